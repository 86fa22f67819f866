package plan

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Load reads a plan file. A plan that states no name gets the file's.
func Load(path string) (*Plan, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the plan: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the plan: %w", err)
	}
	p, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if p.Name == "" {
		p.Name = strings.TrimSuffix(filepath.Base(path), ".json")
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("%s has no name, and the file's will not do: %w", filepath.Base(path), err)
		}
	}
	return p, nil
}

// Parse returns the plan for the model m that spec asks for:
//
//	dense                    every head sees everything
//	uniform:50%              every head sees half the context (alpha 0, beta 0.5)
//	uniform:50%,floor=4096   the same, never less than at 4096 tokens
//	uniform:50%,span=length  the same share of the total length, as published
//	mixed:50%                spans spread around half the context, as a search gives
//	mixed:50%,at=8192        the same, half of the KV cache at 8192 tokens
//	anything else            a plan file, which must fit m
//
// The percentage of a uniform plan is the span's share. The sink block comes on
// top where the span does not reach it: of 8192 tokens, uniform:50% keeps 65
// blocks of 128. That of a mixed plan is the density, sink included, at the length at
// (the model's context unless said): see [Mixed].
//
// Parse opens files, so spec must come from the operator, never from a request.
func Parse(spec string, m Shape) (*Plan, error) {
	if spec == denseName {
		return NewDense(m), nil
	}
	if rest, ok := strings.CutPrefix(spec, "uniform:"); ok {
		p, err := parseUniform(rest, m)
		if err != nil {
			return nil, fmt.Errorf("plan %q: %w", spec, err)
		}
		return p, nil
	}
	if rest, ok := strings.CutPrefix(spec, "mixed:"); ok {
		p, err := parseMixed(rest, m)
		if err != nil {
			return nil, fmt.Errorf("plan %q: %w", spec, err)
		}
		return p, nil
	}
	p, err := Load(spec)
	if errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(spec, `/\.`) {
		return nil, fmt.Errorf("plan %q is neither dense, nor uniform:N%%, nor mixed:N%%, nor a file: %w", spec, err)
	}
	if err != nil {
		return nil, err
	}
	if err := p.Check(m); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(spec), err)
	}
	return p, nil
}

func parseUniform(spec string, m Shape) (*Plan, error) {
	share, options, _ := strings.Cut(spec, ",")
	percent, err := parsePercent(share)
	if err != nil {
		return nil, err
	}
	p := Uniform("uniform-"+formatPercent(percent), m, Rule{Beta: percent / 100})
	for options != "" {
		var option string
		option, options, _ = strings.Cut(options, ",")
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "span":
			p.Span = Span(value)
		case "floor":
			if p.Floor, err = strconv.Atoi(value); err != nil {
				return nil, fmt.Errorf("floor %q is not a number of tokens", value)
			}
		default:
			return nil, fmt.Errorf("unknown option %q: span or floor", key)
		}
		p.Name += "-" + key + "-" + value
	}
	return p, p.validateRun()
}

func parseMixed(spec string, m Shape) (*Plan, error) {
	share, option, _ := strings.Cut(spec, ",")
	percent, err := parsePercent(share)
	if err != nil {
		return nil, err
	}
	name, at := "mixed-"+formatPercent(percent), m.Context
	if option != "" {
		key, value, _ := strings.Cut(option, "=")
		if key != "at" {
			return nil, fmt.Errorf("unknown option %q: at", key)
		}
		if at, err = strconv.Atoi(value); err != nil {
			return nil, fmt.Errorf("at %q is not a number of tokens", value)
		}
		name += "-at-" + value
	}
	return Mixed(name, m, percent/100, at)
}

func parsePercent(s string) (float64, error) {
	number, ok := strings.CutSuffix(s, "%")
	percent, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(percent > 0 && percent <= 100) {
		return 0, fmt.Errorf("%q is not a percentage above 0%% and up to 100%%", s)
	}
	return percent, nil
}

func formatPercent(percent float64) string { return strconv.FormatFloat(percent, 'f', -1, 64) }
