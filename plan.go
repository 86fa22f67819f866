package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/synthetic"
	"github.com/moaserve/moaserve/runtime/weights"
)

// planCmd groups the commands on plans.
type planCmd struct {
	Show   showPlanCmd   `cmd:"" help:"Draw a plan: each KV head's share of the context, and the density by length."`
	Check  checkPlanCmd  `cmd:"" help:"Check that a plan is well formed and fits a model."`
	Import importPlanCmd `cmd:"" help:"Turn a published MoA plan (alphas and betas for each query head) into a plan file."`
}

type showPlanCmd struct {
	Plan   string `arg:"" help:"Plan file." type:"existingfile"`
	Length int    `help:"Length at which the heads are drawn, in tokens." default:"8192"`
}

// densityLengths are the lengths at which densities are printed.
var densityLengths = []int{1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072}

// Run draws the plan with a digit a head: tenths of the context that it sees.
func (c *showPlanCmd) Run() error {
	p, err := plan.Load(c.Plan)
	if err != nil {
		return err
	}
	return showPlan(os.Stdout, p, c.Length)
}

func showPlan(w io.Writer, p *plan.Plan, length int) error {
	if length < 1 {
		return fmt.Errorf("the length is %d tokens, want at least 1", length)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s for %s: %d layers x %d KV heads, %d rules, span: %s", p.Name, p.Model.Name, p.Model.Layers, p.Model.KVHeads, len(p.Rules), p.Span)
	if p.Span == plan.SpanPosition {
		fmt.Fprintf(&b, ", floor %d", p.Floor)
	}
	l := p.Bind(length)
	q := (length - 1) / plan.BlockSize
	fmt.Fprintf(&b, "\n\ntenths of %d tokens that each KV head sees (# is all of them)\n", length)
	for layer := range p.Heads {
		fmt.Fprintf(&b, "layer %3d  ", layer)
		for h := range p.Heads[layer] {
			share := l.Visible(layer*p.Model.KVHeads+h, q) * 10 / (q + 1)
			if share >= 10 {
				b.WriteByte('#')
			} else {
				fmt.Fprintf(&b, "%d", share)
			}
		}
		b.WriteByte('\n')
	}
	if _, err := io.WriteString(w, b.String()+"\n"); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "tokens\tKV pages\tdensity\t")
	for _, n := range densityLengths {
		_, _ = fmt.Fprintf(t, "%d\t%d\t%.3f\t\n", n, p.Bind(n).Pages(n), p.Density(n))
	}
	return t.Flush()
}

type checkPlanCmd struct {
	Plan  string `arg:"" help:"Plan file." type:"existingfile"`
	Model string `arg:"" help:"Model file, folder or synthetic:NAME." type:"model"`
}

// Run says that the plan fits, or which fields differ. It hashes the weights, as
// serving does.
func (c *checkPlanCmd) Run(ctx context.Context) error {
	p, err := plan.Load(c.Plan)
	if err != nil {
		return err
	}
	shape, err := shapeOf(c.Model)
	if err != nil {
		return err
	}
	if shape.WeightsSHA256, err = sumOf(ctx, c.Model); err != nil {
		return err
	}
	if err := p.Check(shape); err != nil {
		return err
	}
	fmt.Printf("%s fits %s; density %.3f at %d tokens\n", p.Name, filepath.Base(c.Model), p.Density(shape.Context), shape.Context)
	return nil
}

// sumOf returns the hash of a model's weights.
func sumOf(ctx context.Context, path string) (string, error) {
	if !synthetic.Is(path) {
		return weights.SHA256(ctx, path)
	}
	m, err := synthetic.Open(path, 0)
	if err != nil {
		return "", err
	}
	return m.SHA256, m.Source.Close()
}

// shapeOf reads what a plan must fit, the weights' hash aside.
func shapeOf(path string) (plan.Shape, error) {
	if synthetic.Is(path) {
		m, err := synthetic.Open(path, 0)
		if err != nil {
			return plan.Shape{}, err
		}
		return m.Shape(), m.Source.Close()
	}
	src, err := weights.Open(path)
	if err != nil {
		return plan.Shape{}, err
	}
	m, err := model.FromSource(src)
	if err != nil {
		return plan.Shape{}, errors.Join(err, src.Close())
	}
	return m.Shape(), src.Close()
}

type importPlanCmd struct {
	Plan  string `arg:"" help:"Published plan: a JSON object with alphas and betas." type:"existingfile"`
	Model string `arg:"" help:"Model file, folder or synthetic:NAME it is for." type:"model"`
	Out   string `help:"Plan file to write." required:"" placeholder:"FILE" short:"o"`
	Name  string `help:"Name of the plan; by default that of the file." placeholder:"NAME"`
	Cover bool   `help:"Make a rule that no rule of the KV head's query heads exceeds at any length, instead of taking the widest."`
}

// Run converts the plan and prints what taking one rule a KV head costs.
func (c *importPlanCmd) Run() error {
	data, err := os.ReadFile(c.Plan)
	if err != nil {
		return err
	}
	shape, err := shapeOf(c.Model)
	if err != nil {
		return err
	}
	p, report, err := plan.Importer{Cover: c.Cover}.Import(data, shape)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(c.Plan), err)
	}
	p.Name = c.Name
	if p.Name == "" {
		p.Name = strings.TrimSuffix(filepath.Base(c.Out), ".json")
	}
	out, err := p.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Out, out, 0o644); err != nil {
		return err
	}
	fmt.Printf("%d query heads' rules became %d KV heads'; %d KV heads had one rule for all their query heads\n",
		report.QueryHeads, report.KVHeads, report.Shared)
	t := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "tokens\tdensity as published\tas imported\tpublished implementation / dense\tKV heads narrowed\t")
	for _, l := range report.Lengths {
		_, _ = fmt.Fprintf(t, "%d\t%.3f\t%.3f\t%.2f\t%d\t\n", l.Tokens, l.Before, l.After, l.Upstream, l.Narrowed)
	}
	return t.Flush()
}
