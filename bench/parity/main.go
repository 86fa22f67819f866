// Command parity compares the logits of dense greedy decoding with those that
// llama.cpp computed for the same prompts (llama_cpp_greedy.py writes both
// files): the largest difference at each position, and where the answers part.
//
//	go run ./bench/parity -model MODEL.gguf -golden greedy.json.gz -logits LOGITS.f32
package main

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"os"

	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/backend"
)

type golden struct {
	Cases []struct {
		Prompt []int32 `json:"prompt"`
		Greedy []int32 `json:"greedy"`
	} `json:"cases"`
}

func main() {
	model := flag.String("model", "models/SmolLM2-135M-Instruct.Q4_1.gguf", "model `file`")
	goldenPath := flag.String("golden", "runtime/testdata/greedy.json.gz", "prompts and greedy answers")
	logits := flag.String("logits", "", "raw logits of the answers' positions")
	eightBit := flag.Bool("int8", false, "take activations at 8 bits")
	flag.Parse()
	precision := backend.Int16
	if *eightBit {
		precision = backend.Int8
	}
	if err := run(*model, *goldenPath, *logits, precision); err != nil {
		log.Fatal(err)
	}
}

func run(model, goldenPath, logitsPath string, precision backend.Precision) error {
	g, err := readGolden(goldenPath)
	if err != nil {
		return err
	}
	f, err := os.Open(logitsPath)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	ctx := context.Background()
	e, err := runtime.Open(ctx, model, runtime.Options{Plan: "dense", MaxSequences: 1, Activations: precision})
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()

	vocab := e.Model().Vocab
	sum, n, same := 0.0, 0, 0
	for i, c := range g.Cases {
		// The prompt followed by llama.cpp's own answer: the logits of the
		// answer's positions are then comparable whatever either would pick.
		tokens := append(append([]int32{}, c.Prompt...), c.Greedy...)
		first, worst, caseSum := -1, 0.0, 0.0
		theirs := make([]float32, vocab)
		err := e.Evaluate(ctx, tokens, "dense", func(pos int, ours []float32) error {
			k := pos - (len(c.Prompt) - 1)
			if k < 0 || k >= len(c.Greedy) {
				return nil
			}
			if err := binary.Read(f, binary.LittleEndian, theirs); err != nil {
				return fmt.Errorf("reading %s: %w", logitsPath, err)
			}
			largest, top := 0.0, 0
			for j := range ours {
				largest = math.Max(largest, math.Abs(float64(ours[j]-theirs[j])))
				if ours[j] > ours[top] {
					top = j
				}
			}
			if int32(top) != c.Greedy[k] && first < 0 {
				first = k
				fmt.Printf("  parts at token %d: ours prefers %d over %d by %.4f, llama.cpp the other way by %.4f\n",
					k, top, c.Greedy[k], ours[top]-ours[c.Greedy[k]], theirs[c.Greedy[k]]-theirs[top])
			}
			worst = math.Max(worst, largest)
			caseSum += largest
			return nil
		})
		if err != nil {
			return err
		}
		if first < 0 {
			same++
		}
		sum += caseSum
		n += len(c.Greedy)
		fmt.Printf("prompt %2d of %4d tokens: largest logit difference, mean over %d positions %.4f, worst %.4f\n",
			i, len(c.Prompt), len(c.Greedy), caseSum/float64(len(c.Greedy)), worst)
	}
	fmt.Printf("all: the first %d tokens agree on %d of %d prompts; largest logit difference, mean over positions %.4f\n",
		len(g.Cases[0].Greedy), same, len(g.Cases), sum/float64(n))
	return nil
}

func readGolden(path string) (*golden, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var g golden
	if err := json.NewDecoder(z).Decode(&g); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &g, nil
}
