package synthetic

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/plan"
	"github.com/moaserve/moaserve/runtime/tokenizer"
)

func TestShapesAreThosePublished(t *testing.T) {
	for name, want := range map[string]struct {
		parameters    int // as the model cards have them
		context       int
		group         int
		slowest, base float64 // frequency of the last pair of a head; rope's base
	}{
		"vicuna-7b":   {6_738_415_616, 16384, 1, 1. / 4, 10000},
		"vicuna-13b":  {13_015_864_320, 16384, 1, 1. / 4, 10000},
		"llama-3-8b":  {8_030_261_248, 8192, 4, 1, 500000},
		"llama-3-70b": {70_553_706_496, 8192, 8, 1, 500000},
	} {
		m, err := Open(Prefix+name, 0)
		if err != nil {
			t.Fatal(err)
		}
		parameters := 0
		for _, n := range m.Source.Names() {
			x, _ := m.Source.Tensor(n)
			parameters += x.Elems()
		}
		if parameters != want.parameters {
			t.Errorf("%s has %d parameters, want %d", name, parameters, want.parameters)
		}
		if got := m.Source.Bytes(); got != 2*int64(want.parameters) {
			t.Errorf("%s takes %d bytes", name, got)
		}
		if m.Context != want.context || m.Group() != want.group || m.HeadDim != 128 {
			t.Errorf("%s: context %d, %d query heads a KV head of %d dimensions", name, m.Context, m.Group(), m.HeadDim)
		}
		f := want.slowest * math.Pow(want.base, -126./128)
		if got := m.Rope.Frequencies[63]; math.Abs(got-f) > 1e-12*f {
			t.Errorf("%s rotates its last pair by %v a token, want %v", name, got, f)
		}
	}
}

func TestContextMayBeRaised(t *testing.T) {
	for asked, want := range map[int]int{0: 8192, 4096: 8192, 20000: 20000, 131072: 131072, 1 << 20: 131072} {
		m, err := Open("synthetic:llama-3-8b", asked)
		if err != nil {
			t.Fatal(err)
		}
		if m.Context != want {
			t.Errorf("asked for %d tokens the context is %d, want %d", asked, m.Context, want)
		}
	}
}

func TestUnknownNamesAreToldTheKnownOnes(t *testing.T) {
	_, err := Open("synthetic:llama-9", 0)
	if err == nil {
		t.Fatal("there is a llama-9")
	}
	for _, name := range Names() {
		if !strings.Contains(err.Error(), Prefix+name) {
			t.Errorf("%v: does not name %s", err, name)
		}
	}
}

func TestHashesTellModelsApartAndStay(t *testing.T) {
	seen := map[string]string{}
	for _, name := range Names() {
		a, errA := Open(Prefix+name, 0)
		b, errB := Open(Prefix+name, 9999)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.SHA256 != b.SHA256 || len(a.SHA256) != 64 {
			t.Errorf("%s: %q, then %q", name, a.SHA256, b.SHA256)
		}
		if other := seen[a.SHA256]; other != "" {
			t.Errorf("%s and %s have the same hash", name, other)
		}
		seen[a.SHA256] = name
	}
}

// heap is memory of the collector.
type heap struct{ freed bool }

func (*heap) Alloc(n int) ([]byte, error) { return make([]byte, n), nil }
func (h *heap) Free() error               { h.freed = true; return nil }

// Every tensor has numbers of its own, and those of its description.
func TestMaterialiseMakesTheBytesOnce(t *testing.T) {
	m, err := Open("synthetic:tiny", 0)
	if err != nil {
		t.Fatal(err)
	}
	h := &heap{}
	if err := m.Source.Materialise(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	beginnings := map[string]string{}
	for _, name := range m.Source.Names() {
		x, ok := m.Source.Tensor(name)
		if !ok || len(x.Data) != x.Bytes() {
			t.Fatalf("%s: %d bytes of %d", name, len(x.Data), x.Bytes())
		}
		if x.Generated == nil {
			continue
		}
		last := make([]uint16, 3)
		x.Generated.BF16(last, x.Elems()-3)
		for i, want := range last {
			at := x.Data[len(x.Data)-6+2*i:]
			if got := uint16(at[0]) | uint16(at[1])<<8; got != want {
				t.Errorf("%s ends in %#04x, want %#04x", name, got, want)
			}
		}
		begin := string(x.Data[:16])
		if other := beginnings[begin]; other != "" {
			t.Errorf("%s begins like %s", name, other)
		}
		beginnings[begin] = name
	}
	if err := m.Source.Close(); err != nil || !h.freed {
		t.Errorf("closed: %v, freed: %t", err, h.freed)
	}
}

// Whatever the layer, the numbers that flow stay near 1: a float64 forward pass of the
// deepest model would take too long, but each layer adds about the same.
func TestActivationsStayInRange(t *testing.T) {
	m, err := Open("synthetic:tiny", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Source.Materialise(t.Context(), &heap{}); err != nil {
		t.Fatal(err)
	}
	ref, err := model.NewReference(m.Model, m.Source)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]int32, 70)
	for i := range tokens {
		tokens[i] = int32(i * 37 % m.Vocab)
	}
	logits, err := ref.Logits(tokens, plan.NewDense(m.Shape()).Bind(len(tokens)))
	if err != nil {
		t.Fatal(err)
	}
	var squares float64
	for _, x := range logits[len(logits)-1] {
		squares += x * x
	}
	// The last norm gives the output projection, of variance 1/hidden, inputs of unit
	// variance: so is that of the logits, up to the noise of 640 of them.
	if rms := math.Sqrt(squares / float64(m.Vocab)); rms < 0.8 || rms > 1.2 {
		t.Errorf("the logits are about %v, want 1", rms)
	}
}

func TestTextBecomesBytesAndEveryTokenText(t *testing.T) {
	for _, name := range []string{"tiny", "llama-3-8b"} {
		t.Run(name, func(t *testing.T) {
			m, err := Open(Prefix+name, 0)
			if err != nil {
				t.Fatal(err)
			}
			tok := m.Tokenizer
			if tok.VocabSize() != m.Vocab {
				t.Fatalf("%d tokens, the model has %d", tok.VocabSize(), m.Vocab)
			}
			text := "user: 1 + 1 = ?\n\u00e4\u4e16\U0001f30d\x00\xff"
			want := make([]int32, len(text))
			for i := range want {
				want[i] = int32(text[i])
			}
			if ids := tok.Encode(text, tokenizer.EncodeOptions{}); !slices.Equal(ids, want) {
				t.Errorf("the ids are %v, want %v", ids, want)
			}
			for id := range int32(m.Vocab) {
				got := string(tok.Bytes(id))
				switch {
				case id < 256:
					if got != string([]byte{byte(id)}) {
						t.Fatalf("token %d is %q", id, got)
					}
				case id == bosID || id == eosID:
					if !tok.IsSpecial(id) {
						t.Errorf("token %d, %q, is not special", id, got)
					}
				case len(got) < 2 || got[0] != ' ' || strings.Trim(got[1:], "0123456789abcdefghijklmnopqrstuvwxyz") != "":
					t.Fatalf("token %d is %q", id, got)
				}
			}
			if eog := tok.EndOfGeneration(); len(eog) != 1 || eog[0] != eosID {
				t.Errorf("generation ends at %v", eog)
			}
		})
	}
}
