package weights_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moaserve/moaserve/runtime/weights"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

// safetensor makes a tensor of ascending numbers.
func safetensor(t testing.TB, name string, typ weights.Type, shape ...int) weights.Tensor {
	t.Helper()
	x := weights.Tensor{Name: name, Type: typ, Shape: shape}
	values := make([]float32, x.Elems())
	for i := range values {
		values[i] = float32(i)
	}
	var err error
	if x.Data, err = weightstest.Quantize(typ, values); err != nil {
		t.Fatal(err)
	}
	return x
}

func safetensorsFile(t testing.TB, tensors ...weights.Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := weightstest.WriteSafetensors(&b, tensors); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSafetensorsAreReadBack(t *testing.T) {
	want := []weights.Tensor{
		safetensor(t, "half", weights.F16, 3, 5),
		safetensor(t, "brain", weights.BF16, 7),
		safetensor(t, "full \"x\"", weights.F32, 2, 2, 2),
		safetensor(t, "scalar", weights.F32),
	}
	s, err := weights.OpenSafetensors(writeFile(t, "m.safetensors", safetensorsFile(t, want...)))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range s.Names() {
		got, _ := s.Tensor(name)
		if diff := cmp.Diff(want[i], got, cmp.Transformer("shape", func(s []int) [8]int {
			return [8]int(append(s, make([]int, 8-len(s))...)) // nil and empty are one
		})); diff != "" {
			t.Error(diff)
		}
	}
	if len(s.Names()) != len(want) {
		t.Errorf("%d tensors, not %d", len(s.Names()), len(want))
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// rawSafetensors is a file with that header and n bytes of data.
func rawSafetensors(header string, n int) []byte {
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(file, header...), make([]byte, n)...)
}

func TestDamagedSafetensorsAreRefusedWithAReason(t *testing.T) {
	const entry = `"dtype":"F32","shape":[2],"data_offsets":`
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "too few"},
		{"a header over the cap", binary.LittleEndian.AppendUint64(nil, 100_000_001), "more than 100000000"},
		{"a header beyond the end", append(binary.LittleEndian.AppendUint64(nil, 50), "{}"...), "only 2 are left"},
		{"no JSON", rawSafetensors(`hello`, 0), "header, offset"},
		{"a list", rawSafetensors(`[]`, 0), "not a JSON object"},
		{"an open object", rawSafetensors(`{"a":{`+entry+`[0,8]}`, 8), "header, offset"},
		{"something behind it", rawSafetensors(`{} {}`, 0), "more follows"},
		{"a name twice", rawSafetensors(`{"a":{`+entry+`[0,8]},"a":{`+entry+`[8,16]}}`, 16), `tensor "a" is there twice`},
		{"an overlap", rawSafetensors(`{"a":{`+entry+`[0,8]},"b":{`+entry+`[4,12]}}`, 12), `tensor "b" at offset 4 overlaps tensor "a"`},
		{"the same bytes", rawSafetensors(`{"a":{`+entry+`[0,8]},"b":{`+entry+`[0,8]}}`, 8), "overlaps"},
		{"a hole", rawSafetensors(`{"a":{`+entry+`[0,8]},"b":{`+entry+`[12,20]}}`, 20), "4 bytes between it"},
		{"a hole at the front", rawSafetensors(`{"a":{`+entry+`[4,12]}}`, 12), "4 bytes between it"},
		{"bytes at the end", rawSafetensors(`{"a":{`+entry+`[0,8]}}`, 9), "1 bytes behind"},
		{"data beyond the end", rawSafetensors(`{"a":{`+entry+`[0,8]}}`, 7), "not inside the 7 bytes"},
		{"offsets in reverse", rawSafetensors(`{"a":{`+entry+`[8,0]}}`, 8), "not inside"},
		{"a wrong size", rawSafetensors(`{"a":{`+entry+`[0,12]}}`, 12), "takes 8 bytes"},
		{"one offset", rawSafetensors(`{"a":{`+entry+`[8]}}`, 8), "has 1 numbers"},
		{"a negative dimension", rawSafetensors(`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`, 8), `tensor "a"`},
		{"an overflowing shape", rawSafetensors(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}`, 8), "too large"},
		{"an overflowing dimension", rawSafetensors(`{"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}}`, 8), "a dimension is"},
		{"nine dimensions", rawSafetensors(`{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}`, 4), "9 dimensions"},
		{"a type that is not read", rawSafetensors(`{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}`, 8), `storage type "I64"`},
		{"metadata of numbers", rawSafetensors(`{"__metadata__":{"x":1}}`, 0), "__metadata__"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := weights.ParseSafetensors(c.file)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestEveryTruncationOfSafetensorsIsRefused(t *testing.T) {
	file := safetensorsFile(t, safetensor(t, "a", weights.F32, 3), safetensor(t, "b", weights.F16, 2, 2))
	for n := range file {
		if _, err := weights.ParseSafetensors(file[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(file))
		}
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(safetensorsFile(f, safetensor(f, "a", weights.F32, 3), safetensor(f, "b", weights.F16, 2, 2)))
	f.Add(rawSafetensors(`{"a":{"dtype":"BF16","shape":[0],"data_offsets":[0,0]}}`, 0))
	f.Fuzz(func(t *testing.T, file []byte) {
		tensors, err := weights.ParseSafetensors(file)
		if err != nil {
			return
		}
		total := 0
		for _, x := range tensors {
			if _, err := x.Float32s(); err != nil {
				t.Fatalf("an accepted tensor cannot be decoded: %v", err)
			}
			total += len(x.Data)
		}
		if header := 8 + int(binary.LittleEndian.Uint64(file)); header+total != len(file) {
			t.Fatalf("header and tensors take %d bytes of %d", header+total, len(file))
		}
	})
}
