package cudakernels

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"
)

// The fatbins are committed, so a change of a source without `go generate` would
// otherwise go unnoticed.
func TestFatbinsBelongToTheSources(t *testing.T) {
	headers, err := filepath.Glob("*.cuh")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.cu")
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) != len(modules) {
		t.Errorf("%d sources, %d modules", len(sources), len(modules))
	}
	for _, m := range Modules() {
		files := append([]string{"nvcc.flags", m.Name + ".cu"}, headers...)
		slices.Sort(files)
		h := sha256.New()
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(h, "%s %d\n%s", f, len(data), data)
		}
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != m.SHA256 {
			t.Errorf("%s.fatbin is older than its sources: run go generate ./cudakernels", m.Name)
		}
	}
}

func TestFatbinsAreSmall(t *testing.T) {
	const limit = 3 << 20 // in every binary, also of those who have no GPU
	total := 0
	for _, m := range Modules() {
		total += len(m.Image)
	}
	if total > limit {
		t.Errorf("the fatbins have %d bytes, at most %d", total, limit)
	}
}

// Both sides count parameters of 8 bytes; the order is what the device tests
// check.
func TestArgumentsMatchTheKernels(t *testing.T) {
	params := map[string]int{}
	for _, m := range Modules() {
		for _, k := range m.Kernels {
			params[k.Name] = k.Params
		}
	}
	check := func(a Args, size uintptr) {
		t.Helper()
		n, ok := params[a.Kernel()]
		if !ok {
			t.Errorf("%s is in no module", a.Kernel())
		} else if uintptr(n)*8 != size {
			t.Errorf("%s has %d parameters, its arguments %d bytes", a.Kernel(), n, size)
		}
		delete(params, a.Kernel())
	}
	check(&ScatterPages{}, unsafe.Sizeof(ScatterPages{}))
	check(&DecodePlan{}, unsafe.Sizeof(DecodePlan{}))
	check(&PrefillPlan{}, unsafe.Sizeof(PrefillPlan{}))
	for _, hd := range []int64{64, 128, 256} {
		check(&DecodeAttention{HeadDim: hd}, unsafe.Sizeof(DecodeAttention{}))
		check(&PrefillAttention{HeadDim: hd}, unsafe.Sizeof(PrefillAttention{}))
		check(&DecodeAttentionFP8{DecodeAttention{HeadDim: hd}}, unsafe.Sizeof(DecodeAttentionFP8{}))
		check(&PrefillAttentionFP8{PrefillAttention{HeadDim: hd}}, unsafe.Sizeof(PrefillAttentionFP8{}))
	}
	check(&Embed{}, unsafe.Sizeof(Embed{}))
	check(&RMSNorm{}, unsafe.Sizeof(RMSNorm{}))
	check(&RopeAppend{}, unsafe.Sizeof(RopeAppend{}))
	check(&RopeAppendFP8{}, unsafe.Sizeof(RopeAppendFP8{}))
	check(&SiluMul{}, unsafe.Sizeof(SiluMul{}))
	check(&QuantizeRows{}, unsafe.Sizeof(QuantizeRows{}))
	check(&SplitRows{}, unsafe.Sizeof(SplitRows{}))
	check(&SumSplit{}, unsafe.Sizeof(SumSplit{}))
	check(&DequantizeRows{}, unsafe.Sizeof(DequantizeRows{}))
	for _, scale := range []Ptr{0, 1} {
		for _, m := range []int64{1, MaxProductRows} {
			check(&Product{Scale: scale, M: m}, unsafe.Sizeof(Product{}))
		}
	}
	check(&FillRandom{}, unsafe.Sizeof(FillRandom{}))
	check(&ReadMemory{}, unsafe.Sizeof(ReadMemory{}))
	check(&Sample{}, unsafe.Sizeof(Sample{}))
	for name := range params {
		t.Errorf("%s has no argument struct", name)
	}
}

func TestPointersFollowTheFields(t *testing.T) {
	a := SiluMul{GateUp: 1, Y: 2, Rows: 3, FFN: 4}
	p := Pointers(&a)
	if len(p) != 4 {
		t.Fatalf("%d pointers, want 4", len(p))
	}
	for i, q := range p {
		if got := *(*uint64)(q); got != uint64(i+1) {
			t.Errorf("parameter %d is %d, want %d", i, got, i+1)
		}
	}
}

// The structures that the kernels read must have C's layout.
func TestStepStructuresHaveTheirSize(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"Header", unsafe.Sizeof(Header{}), 64},
		{"Seq", unsafe.Sizeof(Seq{}), 32},
		{"Rule", unsafe.Sizeof(Rule{}), 16},
		{"Row", unsafe.Sizeof(Row{}), 8},
		{"TableDelta", unsafe.Sizeof(TableDelta{}), 16},
		{"SampleRow", unsafe.Sizeof(SampleRow{}), 72},
		{"Adjustment", unsafe.Sizeof(Adjustment{}), 12},
		{"Choice", unsafe.Sizeof(Choice{}), 168},
	} {
		if c.got != c.want {
			t.Errorf("%s has %d bytes, want %d", c.name, c.got, c.want)
		}
	}
}

// Every thread block of the decode attention must be resident, and its ring fit.
func TestDecodeGridFitsTheDevice(t *testing.T) {
	for _, d := range []Device{
		{Major: 8, Minor: 0, SMs: 108, SharedPerSM: 164 << 10, SharedPerBlock: 163 << 10},
		{Major: 8, Minor: 9, SMs: 142, SharedPerSM: 100 << 10, SharedPerBlock: 99 << 10},
		{Major: 9, Minor: 0, SMs: 132, SharedPerSM: 228 << 10, SharedPerBlock: 227 << 10},
	} {
		for _, pages := range []PageType{PagesBF16, PagesFP8} {
			for _, hd := range []int{64, 80, 96, 128, 256} {
				var decode, prefill Args = &DecodeAttention{HeadDim: int64(hd)}, &PrefillAttention{HeadDim: int64(hd)}
				if pages == PagesFP8 {
					decode, prefill = &DecodeAttentionFP8{DecodeAttention{HeadDim: int64(hd)}}, &PrefillAttentionFP8{PrefillAttention{HeadDim: int64(hd)}}
				}
				s := decode.Shape(d)
				if int(s.GridX) != DecodeBlocks(d, pages, hd) {
					t.Errorf("%+v, pages %d, head_dim %d: grid %d, want %d", d, pages, hd, s.GridX, DecodeBlocks(d, pages, hd))
				}
				perSM := int(s.GridX) / d.SMs
				if perSM < 1 || perSM*(int(s.Shared)+1024) > d.SharedPerSM {
					t.Errorf("%+v, pages %d, head_dim %d: %d thread blocks of %d bytes do not fit", d, pages, hd, perSM, s.Shared)
				}
				if need := decodeUsed(d, pages, hd); int(s.Shared) < need || int(s.Shared) > d.SharedPerBlock {
					t.Errorf("%+v, pages %d, head_dim %d: %d bytes of shared memory, want %d to %d", d, pages, hd, s.Shared, need, d.SharedPerBlock)
				}
				if p := prefill.Shape(d); int(p.Shared)+1024 > d.SharedPerSM {
					t.Errorf("%+v, pages %d, head_dim %d: prefill asks for %d bytes of shared memory", d, pages, hd, p.Shared)
				}
			}
		}
	}
}
