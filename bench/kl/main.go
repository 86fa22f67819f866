// Command kl measures how far a plan's predictions are from dense attention's:
// the mean KL divergence KL(dense || plan) a token, and the share of positions
// with the same likeliest token, over the last quarter of real texts.
//
//	go run ./bench/kl -model MODEL.gguf -tokens 8192 TEXT.txt ...
//
// With -kv or -weights, what is compared has a KV cache of another type than dense
// attention's, or weights in another form, and dense attention with these is compared,
// too.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/moaserve/moaserve/planstore"
	"github.com/moaserve/moaserve/runtime"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

func main() {
	model := flag.String("model", "models/SmolLM2-135M-Instruct.Q4_1.gguf", "model `file`")
	length := flag.Int("tokens", 8192, "tokens of each text")
	plans := flag.String("plans", "moa-50,moa-25,uniform:50%,uniform:25%", "plans to compare with dense, and all that are known for the model; none if empty")
	skip := flag.Int("skip", 20000, "bytes to skip at the start of each text")
	eightBit := flag.Bool("int8", false, "take activations at 8 bits; their noise is larger than what is measured")
	kvName := flag.String("kv", "f16", "element `type` of the KV cache of what is compared: f16, bf16, q8_0 or fp8")
	weightsName := flag.String("weights", "auto", "`form` of the weights of what is compared: auto, bf16 or fp8")
	backendName := flag.String("backend", "cpu", "`backend`: cpu or cuda")
	flag.Parse()
	kv, ok := map[string]backend.KVType{"f16": backend.KVF16, "bf16": backend.KVBF16, "q8_0": backend.KVQ8_0, "fp8": backend.KVFP8}[*kvName]
	if !ok {
		log.Fatalf("unknown KV type %q", *kvName)
	}
	weights, ok := map[string]backend.WeightType{"auto": backend.WeightsAuto, "bf16": backend.WeightsBF16, "fp8": backend.WeightsFP8}[*weightsName]
	if !ok {
		log.Fatalf("unknown form of weights %q", *weightsName)
	}
	precision := backend.Int16
	if *eightBit {
		precision = backend.Int8
	}
	var err error
	options := runtime.Options{Backend: *backendName, Plan: "dense", MaxSequences: 1, Activations: precision}
	if *plans != "" {
		options.Plans = strings.Split(*plans, ",")
	} else if options.Store, err = planstore.NewMemory(); err != nil { // none that are known, either
		log.Fatal(err)
	}
	if err := run(*model, *length, *skip, options, kv, weights, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(model string, length, skip int, o runtime.Options, kv backend.KVType, weights backend.WeightType, texts []string) error {
	if len(texts) == 0 {
		return fmt.Errorf("name at least one text file")
	}
	ctx := context.Background()
	e, err := runtime.Open(ctx, model, o)
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	compared := e
	if kv != o.KV || weights != o.Weights {
		o.KV, o.Weights = kv, weights
		if compared, err = runtime.Open(ctx, model, o); err != nil {
			return err
		}
		defer func() { _ = compared.Close() }()
	}
	names := make([]string, 0, len(e.Plans()))
	for _, p := range e.Plans() {
		if p.Name != "dense" || compared != e {
			names = append(names, p.Name)
		}
	}
	total := make([]divergence, len(names))
	for _, path := range texts {
		tokens, err := readTokens(e, path, skip, length)
		if err != nil {
			return err
		}
		dense := make([][]float32, 0, length/4)
		err = e.Evaluate(ctx, tokens, "dense", func(pos int, logits []float32) error {
			if pos >= length*3/4 {
				dense = append(dense, logits)
			}
			return nil
		})
		if err != nil {
			return err
		}
		fmt.Printf("%s, tokens %d to %d\n", filepath.Base(path), length*3/4, length)
		for i, name := range names {
			var d divergence
			err := compared.Evaluate(ctx, tokens, name, func(pos int, logits []float32) error {
				if pos >= length*3/4 {
					d.add(dense[pos-length*3/4], logits)
				}
				return nil
			})
			if err != nil {
				return err
			}
			fmt.Printf("  %-12s %v\n", name, &d)
			total[i].merge(d)
		}
	}
	fmt.Println("all texts")
	for i, name := range names {
		fmt.Printf("  %-12s %v\n", name, &total[i])
	}
	return nil
}

func readTokens(e *runtime.Engine, path string, skip, length int) ([]int32, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if skip < len(text) {
		text = text[skip:]
	}
	tokens := e.Tokenizer().Encode(string(text), tokenizer.EncodeOptions{})
	if len(tokens) < length {
		return nil, fmt.Errorf("%s has only %d tokens after %d bytes", path, len(tokens), skip)
	}
	// The context must hold one more token than is evaluated.
	return tokens[:length-1], nil
}

// divergence sums over positions.
type divergence struct {
	n, agree int
	kl       float64
}

func (d *divergence) merge(o divergence) {
	d.n += o.n
	d.agree += o.agree
	d.kl += o.kl
}

func (d *divergence) String() string {
	return fmt.Sprintf("KL %.5f  same top token %.4f  (%d positions)", d.kl/float64(d.n), float64(d.agree)/float64(d.n), d.n)
}

// add compares two rows of logits.
func (d *divergence) add(dense, sparse []float32) {
	p, top := logSoftmax(dense)
	q, sparseTop := logSoftmax(sparse)
	for i := range p {
		d.kl += math.Exp(p[i]) * (p[i] - q[i])
	}
	d.n++
	if top == sparseTop {
		d.agree++
	}
}

func logSoftmax(logits []float32) ([]float64, int) {
	top := 0
	for i, x := range logits {
		if x > logits[top] {
			top = i
		}
	}
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x - logits[top]))
	}
	log := math.Log(sum)
	out := make([]float64, len(logits))
	for i, x := range logits {
		out[i] = float64(x-logits[top]) - log
	}
	return out, top
}
