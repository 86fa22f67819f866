//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/backendtest"
	"github.com/moaserve/moaserve/runtime/model"
	"github.com/moaserve/moaserve/runtime/model/modeltest"
	"github.com/moaserve/moaserve/runtime/plan"
)

// Rotated keys fill the padding of a head, and scores are sums over it, too. The last
// tokens are decoded, so both kinds of queries are met.
func TestFP8PagesHoldEveryHeadDimension(t *testing.T) {
	for _, headDim := range []int{16, 64, 80, 128, 192, 256} {
		t.Run(fmt.Sprintf("head dimension %d", headDim), func(t *testing.T) {
			m, src := modeltest.New(t, modeltest.Options{Hidden: 64, Heads: 2, KVHeads: 1, HeadDim: headDim, Layers: 2, Seed: 3})
			l := plan.NewDense(m.Shape()).Bind(100)
			prompt := make([]int32, 100)
			for i := range prompt {
				prompt[i] = int32(i * 37 % m.Vocab)
			}
			ref, err := model.NewReference(m, src)
			if err != nil {
				t.Fatal(err)
			}
			want, err := ref.Logits(prompt, l)
			if err != nil {
				t.Fatal(err)
			}
			o := testOptions()
			o.KV = backend.KVFP8
			// As backendtest derives it: four products a layer and one to the logits, keys and
			// values.
			n := float64(m.Layers)
			tolerance := 2 * math.Sqrt((4*n+1)*productError*productError+2*n*backendtest.E4M3*backendtest.E4M3)
			for i, row := range logitsOf(t, New(), m, src, o, l, prompt) {
				var diff, size float64
				for j, x := range row {
					e := float64(x) - want[i][j]
					diff, size = diff+e*e, size+want[i][j]*want[i][j]
				}
				if d := math.Sqrt(diff / size); !(d <= tolerance) {
					t.Fatalf("the logits of token %d are off by %.3g of their length, more than %.3g", i, d, tolerance)
				}
			}
		})
	}
}

// The bytes of a key depend on its rotation, which the name of a precision does not tell.
func TestFormatTellsHowKeysAreRotated(t *testing.T) {
	for kv, rotated := range map[backend.KVType]bool{backend.KVBF16: false, backend.KVFP8: true} {
		m, src := modeltest.New(t, modeltest.Options{Layers: 1})
		o := testOptions()
		o.KV = kv
		dev, f := loadFormat(t, m, src, o)
		if strings.Contains(f, "Hadamard") != rotated {
			t.Errorf("pages of type %v have the format %q", kv, f)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}
