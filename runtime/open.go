package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moaserve/moaserve/plans"
	"github.com/moaserve/moaserve/planstore"
	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu"
	"github.com/moaserve/moaserve/runtime/chat"
	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/synthetic"
	"github.com/moaserve/moaserve/runtime/tokenizer"
	"github.com/moaserve/moaserve/runtime/weights"
)

// Options say how a model is opened. The zero value serves it on the best
// backend there is, under the best plan that is known for its weights.
type Options struct {
	// Name is what clients call the model; by default the file's base name.
	Name string
	// Backend is "auto", "cpu" or "cuda"; empty means auto.
	Backend string
	// Threads of the CPU backend; 0 means one a core.
	Threads int
	// KV is the element type of the KV cache.
	KV backend.KVType
	// Weights is the form of the projections on the CUDA backend; the CPU backend keeps
	// them as they are stored.
	Weights backend.WeightType
	// Activations is the precision of the inputs of quantised products: on the CPU, and
	// with fp8 weights on the CUDA backend.
	Activations backend.Precision
	// Plan is the default plan: "dense", "uniform:50%", a plan file, the name of
	// a plan of the Store for these weights, or empty for "moa-50" of the Store (dense
	// when no plan is known).
	Plan string
	// Plans are further plans to offer, written like Plan.
	Plans []string
	// Store holds the plans that are found by name; nil means the built-in ones.
	Store planstore.Store
	// Context bounds prompt and answer together; 0 means the model's own.
	Context int
	// KVBytes is the size of the KV cache in bytes; 0 lets Open choose. On a GPU that is nine
	// tenths of the free memory. On a CPU it is room for KVSequences full contexts under the
	// default plan (default 16) and for a dense one, in at most a quarter of the memory.
	KVBytes     int64
	KVSequences int
	// MaxSequences bounds the sequences that run at a time (default 64, on the CUDA
	// backend 128), StepTokens the new tokens of one step (default 512, on the CUDA
	// backend 4096).
	MaxSequences int
	StepTokens   int
	// MaxQueuedRequests and MaxQueuedTokens bound the queue (defaults 256, 4M).
	MaxQueuedRequests int
	MaxQueuedTokens   int
	// NoPrefixCache computes every prompt from its first token, even when its
	// beginning is known.
	NoPrefixCache bool
	// DecodeStretch is how many times as long a step that decodes may take for the
	// prompts of others (default 2.5).
	DecodeStretch float64
	// SharePrefixes lets tenants continue each other's prefixes.
	SharePrefixes bool
	// KVDir, when not empty, is a directory in which the prefixes that follow-ups may
	// continue outlive the process. KVDirBytes bounds its size (default 4 GiB).
	KVDir      string
	KVDirBytes int64
	// Build names the program, because another one may compute other bits: what it
	// left in KVDir is not used.
	Build string
	// ChatTemplate overrides the model's own chat template (Jinja source).
	ChatTemplate string
	// Warm prepares the steps that are common before the first request is taken.
	Warm bool
	// Observer, when not nil, is told of steps and finished requests.
	Observer engine.Observer
	Logger   *slog.Logger
	// Progress, when not nil, is told the share of the weights loaded so far.
	Progress func(done, total int64)
}

// setDefaults fills in what does not depend on the backend.
func (o *Options) setDefaults() {
	if o.KVSequences <= 0 {
		o.KVSequences = kvSequences
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// setSizes fills in the sizes of steps. A GPU needs more rows to be busy: a prompt of
// 8192 tokens in pieces of 4096 is as fast as in one, and in pieces of 512 it is not.
func (o *Options) setSizes(b backend.Backend) {
	sequences, tokens := 64, 512
	if b.Name() == "cuda" {
		sequences, tokens = 128, 4096
	}
	if o.MaxSequences <= 0 {
		o.MaxSequences = sequences
	}
	if o.StepTokens <= 0 {
		o.StepTokens = max(tokens, o.MaxSequences)
	}
}

// files is a model on disk, opened: its weights and what belongs to them.
type files struct {
	path      string
	source    weights.Source
	model     *model.Model
	tokenizer *tokenizer.Tokenizer
	template  string // Jinja source; may be empty
	sum       string // SHA-256 of the weights, once sha256 was asked
	fp8       bool   // what WeightsAuto means on the CUDA backend; otherwise bfloat16
}

// weightType returns the form of the projections on a backend, if that one was asked for.
func (f *files) weightType(asked backend.WeightType, backendName string) backend.WeightType {
	if asked == backend.WeightsAuto && f.fp8 && backendName == "cuda" {
		return backend.WeightsFP8
	}
	return asked
}

// sha256 returns the hash of the weights. They are read for it once: gigabytes, of
// some models.
func (f *files) sha256(ctx context.Context) (string, error) {
	if f.sum == "" {
		sum, err := weights.SHA256(ctx, f.path)
		if err != nil {
			return "", fmt.Errorf("hashing the weights: %w", err)
		}
		f.sum = sum
	}
	return f.sum, nil
}

// openFiles opens a GGUF file, a Hugging Face folder or a synthetic model, whose
// context may be raised to what is asked for.
func openFiles(path string, context int) (*files, error) {
	if synthetic.Is(path) {
		return openSynthetic(path, context)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the model: %w", err)
	}
	if info.IsDir() {
		return openFolder(path)
	}
	g, err := weights.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	f := &files{path: path, source: g}
	if f.model, err = model.FromGGUF(g.Metadata(), g); err == nil {
		f.tokenizer, err = tokenizer.FromGGUF(g.Metadata())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", filepath.Base(path), err), g.Close())
	}
	f.template, _ = g.Metadata().String("tokenizer.chat_template")
	return f, nil
}

// Open loads a model file (GGUF), a folder (Hugging Face safetensors) or a synthetic
// model ("synthetic:llama-3-8b": see package synthetic) and starts its engine. Close the Engine to release everything.
func Open(ctx context.Context, path string, o Options) (*Engine, error) {
	o.setDefaults()
	f, err := openFiles(path, o.Context)
	if err != nil {
		return nil, err
	}
	e, err := start(ctx, path, f, o)
	if err != nil {
		return nil, errors.Join(err, f.source.Close())
	}
	return e, nil
}

func start(ctx context.Context, path string, f *files, o Options) (*Engine, error) {
	if err := f.model.Check(f.source); err != nil {
		return nil, err
	}
	e := &Engine{name: o.Name, files: f, model: f.model, tokenizer: f.tokenizer, log: o.Logger}
	if e.name == "" {
		e.name = defaultName(path)
	}
	if err := e.loadPlans(ctx, o); err != nil {
		return nil, err
	}
	source := f.template
	if o.ChatTemplate != "" {
		source = o.ChatTemplate
	}
	if source == "" {
		source = chat.ChatML
		o.Logger.Warn("the model has no chat template; ChatML is used")
	}
	var err error
	if e.template, err = chat.Parse(source); err != nil {
		return nil, fmt.Errorf("the chat template: %w", err)
	}
	b, err := chooseBackend(&o)
	if err != nil {
		return nil, err
	}
	o.setSizes(b)
	if err := f.materialise(ctx, b); err != nil {
		return nil, err
	}
	e.context = f.model.Context
	if o.Context > e.context {
		o.Logger.Warn("the model's context is shorter than what was asked for", "asked", o.Context, "context", e.context)
	} else if o.Context > 0 {
		e.context = o.Context
	}
	device, err := b.Load(ctx, f.model, f.source, backend.Options{
		Threads: o.Threads, KV: o.KV, Weights: f.weightType(o.Weights, b.Name()), Activations: o.Activations, MaxBatchTokens: o.StepTokens + o.MaxSequences, MaxSequences: o.MaxSequences,
		MaxContext: e.context, Progress: o.Progress,
	})
	if err != nil {
		return nil, err
	}
	e.device = device
	e.pages = kvPages(o, e.plans[0], e.context, device)
	e.stepTokens = o.StepTokens
	if err := e.checkPages(); err != nil {
		return nil, errors.Join(err, device.Close())
	}
	openSpill, err := e.openSpill(ctx, o)
	if err != nil {
		return nil, errors.Join(err, device.Close())
	}
	e.engine, err = engine.New(device, f.model, engine.Options{
		MaxContext: e.context, Pages: e.pages,
		MaxSequences: o.MaxSequences, StepTokens: o.StepTokens, Warm: o.Warm,
		DecodeStretch: o.DecodeStretch, OpenSpill: openSpill, NoPrefixCache: o.NoPrefixCache, SharePrefixes: o.SharePrefixes, MaxQueuedRequests: o.MaxQueuedRequests, MaxQueuedTokens: o.MaxQueuedTokens,
		Observer: o.Observer, Logger: o.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, device.Close())
	}
	return e, nil
}

// checkPages refuses a KV cache that holds next to nothing, and warns of one that is
// shorter than the context.
func (e *Engine) checkPages() error {
	p, page := e.plans[0], int64(e.device.PageBytes())
	n := e.PlanContext(p)
	if n >= e.context {
		return nil
	}
	const mib = 1 << 20
	full := int64(p.Bind(e.context).PeakPages(0, e.context, e.stepTokens)) * page
	if n < plan.BlockSize {
		return fmt.Errorf("a KV cache of %.1f MiB holds %d tokens of one sequence under plan %s; its whole context of %d takes %.0f MiB: raise --kv-memory",
			float64(e.KVBytes())/mib, n, p.Name, e.context, float64(full)/mib)
	}
	e.log.Warn("the KV cache is shorter than the context; raise --kv-memory for all of it",
		"plan", p.Name, "tokens", n, "context", e.context, "kv_memory_for_all", fmt.Sprintf("%.0fMiB", float64(full)/mib))
	return nil
}

// defaultName is the file's base name without its extension. A colon would begin the
// name of a plan.
func defaultName(path string) string {
	base := filepath.Base(strings.TrimRight(path, string(filepath.Separator)))
	return strings.ReplaceAll(strings.TrimSuffix(base, ".gguf"), ":", "-")
}

// chooseBackend returns the backend of that name. It may change options that the
// backend takes otherwise by default.
func chooseBackend(o *Options) (backend.Backend, error) {
	switch o.Backend {
	case "", "auto":
		if b, err := newCUDA(o); err == nil {
			return b, nil
		}
		return newCPU(o)
	case "cpu":
		return newCPU(o)
	case "cuda":
		return newCUDA(o)
	}
	return nil, fmt.Errorf("unknown backend %q: auto, cpu or cuda", o.Backend)
}

// newCPU returns the CPU backend, which computes with weights as they are stored.
func newCPU(o *Options) (backend.Backend, error) {
	if o.Weights != backend.WeightsAuto {
		return nil, fmt.Errorf("%w: the CPU backend keeps weights as the model stores them; --weights is for the CUDA backend", backend.ErrNotSupported)
	}
	return cpu.New(), nil
}

// loadPlans fills e.plans: the default first, those of the store after what was
// asked for, dense always there.
func (e *Engine) loadPlans(ctx context.Context, o Options) error {
	store := o.Store
	if store == nil {
		var err error
		if store, err = planstore.NewMemory(plans.All()...); err != nil {
			return fmt.Errorf("the built-in plans: %w", err)
		}
	}
	shape := e.model.Shape()
	known, err := store.List(ctx, shape)
	if err != nil {
		return err
	}
	if len(known) > 0 { // for such dimensions; hashing tells for which weights
		if shape.WeightsSHA256, err = e.files.sha256(ctx); err != nil {
			return err
		}
		if known, err = store.List(ctx, shape); err != nil {
			return err
		}
	}
	first := o.Plan
	if first == "" {
		first = "dense"
		if slices.ContainsFunc(known, func(p *plan.Plan) bool { return p.Name == defaultPlan }) {
			first = defaultPlan
		}
	}
	for _, spec := range append([]string{first}, o.Plans...) {
		p, err := store.Get(ctx, shape, spec)
		if errors.Is(err, planstore.ErrNotFound) {
			p, err = plan.Parse(spec, shape)
		}
		if err != nil {
			return err
		}
		if err := p.Check(shape); err != nil {
			return fmt.Errorf("plan %q: %w", p.Name, err)
		}
		e.offer(p)
	}
	for _, p := range known {
		e.offer(p)
	}
	e.offer(plan.NewDense(shape))
	return nil
}

// offer adds a plan, unless one of its name is offered already.
func (e *Engine) offer(p *plan.Plan) {
	if e.plan(p.Name) == nil {
		e.plans = append(e.plans, p)
	}
}

// defaultPlan is the plan of the store that is used when none is asked for: half the
// KV cache at one thousandth of a nat of divergence.
const defaultPlan = "moa-50"

const (
	// kvShare bounds the automatic KV cache to a quarter of the machine's memory:
	// the weights and the page cache need the rest.
	kvShare = 4
	// deviceShare leaves a tenth of what a device has free to its driver and its
	// libraries, which allocate as they go.
	deviceShare = 0.9
	// kvSequences is how many full contexts the automatic KV cache holds by default.
	kvSequences = 16
)

// kvPages chooses the number of KV pages: what KVBytes holds; otherwise most of what a
// device with memory of its own has left, which is there for nothing else, or, of the
// machine's memory, which others want too, enough for KVSequences full contexts under
// the default plan, and a share at most. There, pages are only mapped and become
// resident as they are used.
func kvPages(o Options, p *plan.Plan, context int, device backend.Device) int {
	pageBytes := device.PageBytes()
	if o.KVBytes > 0 {
		return int(max(1, o.KVBytes/int64(pageBytes)))
	}
	if d, ok := device.(backend.MemoryMeter); ok {
		return int(max(1, int64(deviceShare*float64(d.FreeMemory()))/int64(pageBytes)))
	}
	one := max(p.Bind(context).Pages(context), 1)
	dense := len(p.Heads) * p.Model.KVHeads * (context/plan.BlockSize + 1)
	want := max(o.KVSequences*one, dense)
	return int(max(1, min(int64(want), totalMemory()/kvShare/int64(pageBytes))))
}
