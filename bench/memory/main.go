// Command memory measures what the KV cache of one sequence takes under several plans: the
// pages it holds, and by how much the process grows for them. Each point is
// measured in a process of its own, so that no memory is reused.
//
//	go run ./bench/memory -model MODEL.gguf
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/moaserve/moaserve/runtime"
)

func main() {
	model := flag.String("model", "models/SmolLM2-135M-Instruct.Q4_1.gguf", "model file or folder")
	plans := flag.String("plans", "dense,moa-50,moa-25", "plans, separated by commas")
	depths := flag.String("depths", "1024,2048,4096,8128", "lengths in tokens, separated by commas")
	child := flag.Bool("child", false, "measure the one point given and print it as JSON")
	flag.Parse()
	var err error
	if *child {
		err = printPoint(*model, *plans, *depths)
	} else {
		err = table(*model, strings.Split(*plans, ","), strings.Split(*depths, ","))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// point is what was measured of one plan at one depth.
type point struct {
	KV    int64 // bytes of the pages held
	Grown int64 // bytes of memory that the process grew by since a prompt of one chunk, and that chunk's pages
	RSS   int64 // bytes of memory of the process
}

func table(model string, plans, depths []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "plan\ttokens\tKV MB\tof dense\tprocess grew MB\tprocess MB\t")
	dense := make(map[string]int64)
	for _, plan := range plans {
		for _, depth := range depths {
			out, err := exec.Command(self, "-child", "-model", model, "-plans", plan, "-depths", depth).Output()
			if err != nil {
				return fmt.Errorf("plan %s at %s tokens: %w", plan, depth, err)
			}
			var p point
			if err := json.Unmarshal(out, &p); err != nil {
				return err
			}
			if plan == "dense" {
				dense[depth] = p.KV
			}
			share := "-"
			if dense[depth] > 0 {
				share = fmt.Sprintf("%.2f", float64(p.KV)/float64(dense[depth]))
			}
			const mb = 1e6
			_, _ = fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\t%.1f\t%.0f\t\n", plan, depth, float64(p.KV)/mb, share, float64(p.Grown)/mb, float64(p.RSS)/mb)
		}
	}
	return w.Flush()
}

func printPoint(model, plan, depth string) error {
	n, err := strconv.Atoi(depth)
	if err != nil {
		return err
	}
	p, err := measure(model, plan, n)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(p)
}

// chunk is the prompt of the warm-up: a full step, so that every buffer of a step
// is there before the first reading.
const chunk = 512

func measure(model, plan string, depth int) (point, error) {
	ctx := context.Background()
	e, err := runtime.Open(ctx, model, runtime.Options{Plan: plan, NoPrefixCache: true, StepTokens: chunk})
	if err != nil {
		return point{}, err
	}
	defer func() { _ = e.Close() }()
	warm, err := run(ctx, e, chunk)
	if err != nil {
		return point{}, err
	}
	before, err := resident()
	if err != nil {
		return point{}, err
	}
	var p point
	if p.KV, err = run(ctx, e, depth); err != nil {
		return point{}, err
	}
	if p.RSS, err = resident(); err != nil {
		return point{}, err
	}
	p.Grown = p.RSS - before + warm
	return p, nil
}

// run generates two tokens after a random prompt and returns the bytes of the pages
// that are held between them.
func run(ctx context.Context, e *runtime.Engine, prompt int) (int64, error) {
	rnd := rand.New(rand.NewPCG(1, 1))
	ids := make([]int32, prompt)
	for i := range ids {
		ids[i] = int32(rnd.IntN(e.Model().Vocab))
	}
	events, err := e.Generate(ctx, runtime.Request{Prompt: ids, MaxTokens: 2, IgnoreEOS: true})
	if err != nil {
		return 0, err
	}
	pages := 0
	for ev := range events {
		if len(ev.Tokens) > 0 {
			pages = max(pages, e.Stats().UsedPages)
		}
		if ev.Err != nil {
			return 0, ev.Err
		}
	}
	if pages == 0 {
		return 0, errors.New("no pages were seen in use")
	}
	return int64(pages) * (e.KVBytes() / int64(e.KVPages())), nil
}

// resident returns the bytes of memory that the process holds.
func resident() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("/proc/self/status tells no VmRSS")
}
