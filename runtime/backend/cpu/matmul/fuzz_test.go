package matmul

import (
	"testing"

	"github.com/moaserve/moaserve/runtime/backend/cpu/isa"
	"github.com/moaserve/moaserve/runtime/weights"
)

// Whatever a file says, Pack refuses it or gives a matrix that multiplies
// without a fault.
func FuzzPack(f *testing.F) {
	for _, typ := range allTypes {
		k := kinds[typ]
		in := max(k.srcCols, blockCols)
		f.Add(uint8(typ), 3, in, make([]byte, 3*in/k.srcCols*k.srcBlock))
	}
	f.Add(uint8(weights.F32), 1<<62, 4, []byte{0})
	f.Fuzz(func(t *testing.T, typ uint8, out, in int, data []byte) {
		w := weights.Tensor{Name: "w", Type: weights.Type(typ), Shape: []int{out, in}, Data: data}
		for _, set := range []isa.ISA{isa.Generic, isa.Auto.Resolve()} {
			m, err := Pack(w, set, heap)
			if err != nil {
				continue
			}
			var a Activations
			a.Resize(3, in)
			for i := range 3 {
				a.Quantize(i)
			}
			product(m, &a)
		}
	})
}
