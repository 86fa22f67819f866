package weights_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moaserve/moaserve/runtime/weights"
	"github.com/moaserve/moaserve/runtime/weights/weightstest"
)

func TestMetadataOfEveryValueTypeIsWidened(t *testing.T) {
	md := openGolden(t).Metadata()
	want := weights.Metadata{
		"general.architecture": "golden",
		"value.u8":             uint64(200), "value.i8": int64(-100),
		"value.u16": uint64(60000), "value.i16": int64(-30000),
		"value.u32": uint64(4_000_000_000), "value.i32": int64(-2_000_000_000),
		"value.u64": uint64(1 << 63), "value.i64": int64(-1 << 62),
		"value.f32": float64(float32(0.1)), "value.f64": 0.1,
		"value.true": true, "value.false": false,
		"value.string":  "Größe: 64 ✓",
		"array.strings": []string{"a", "", "ß"}, "array.ints": []int64{1, -2, 3},
		"array.floats": []float64{0.5, -1.25}, "array.bools": []bool{true, false, true},
	}
	if diff := cmp.Diff(want, md); diff != "" {
		t.Errorf("metadata differs (-want +got):\n%s", diff)
	}
}

func TestMetadataOutlivesTheFile(t *testing.T) {
	g, err := weights.OpenGGUF("testdata/golden.gguf")
	if err != nil {
		t.Fatal(err)
	}
	md := g.Metadata()
	for range 2 {
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s, _ := md.String("value.string"); s != "Größe: 64 ✓" {
		t.Errorf("got %q", s)
	}
}

// sampleTensors has odd shapes, so that alignment and order matter.
func sampleTensors(t testing.TB) []weights.Tensor {
	t.Helper()
	var out []weights.Tensor
	for _, x := range []struct {
		name  string
		typ   weights.Type
		shape []int
	}{
		{"a", weights.F32, []int{3}},
		{"b", weights.Q4_0, []int{3, 64}},
		{"c", weights.F16, []int{2, 3, 5}},
		{"d", weights.Q6_K, []int{2, 256}},
	} {
		tensor := weights.Tensor{Name: x.name, Type: x.typ, Shape: x.shape}
		values := make([]float32, tensor.Elems())
		for i := range values {
			values[i] = float32(math.Sin(float64(i)))
		}
		var err error
		if tensor.Data, err = weightstest.Quantize(x.typ, values); err != nil {
			t.Fatal(err)
		}
		out = append(out, tensor)
	}
	return out
}

func sampleGGUF(t testing.TB) []byte {
	t.Helper()
	md := weights.Metadata{
		"general.architecture": "test", "i": int64(-5), "u": uint64(1 << 40), "f": 0.25, "b": true,
		"strings": []string{"x", "yz"}, "floats": []float64{1, 0.1}, "ints": []int64{1, 1 << 40},
	}
	var b bytes.Buffer
	if err := weightstest.WriteGGUF(&b, md, sampleTensors(t)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAWrittenFileIsReadBack(t *testing.T) {
	g, err := weights.OpenGGUF(writeFile(t, "m.gguf", sampleGGUF(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	want := sampleTensors(t)
	if diff := cmp.Diff([]string{"a", "b", "c", "d"}, g.Names()); diff != "" {
		t.Errorf("names: %s", diff)
	}
	for _, w := range want {
		got, ok := g.Tensor(w.Name)
		if !ok {
			t.Errorf("tensor %q is missing", w.Name)
		} else if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("tensor %q: %s", w.Name, diff)
		}
	}
	if _, ok := g.Tensor("e"); ok {
		t.Error("a tensor that is not in the file was found")
	}
}

// rawGGUF builds damaged headers.
type rawGGUF struct{ bytes.Buffer }

func (r *rawGGUF) put(values ...any) *rawGGUF {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			r.put(uint64(len(v)))
			r.WriteString(v)
		case []byte:
			r.Write(v)
		default:
			if err := binary.Write(r, binary.LittleEndian, v); err != nil {
				panic(err)
			}
		}
	}
	return r
}

// header begins a file with the given counts.
func header(tensors, pairs uint64) *rawGGUF {
	return (&rawGGUF{}).put([]byte("GGUF"), uint32(3), tensors, pairs)
}

// info adds the info of a tensor of one dimension.
func (r *rawGGUF) info(name string, elems uint64, typ uint32, offset uint64) *rawGGUF {
	return r.put(name, uint32(1), elems, typ, offset)
}

// data pads to the alignment and adds n bytes.
func (r *rawGGUF) data(n int) *rawGGUF {
	return r.put(make([]byte, (32-r.Len()%32)%32+n))
}

const typeF32, typeQ4_0, typeUint32, typeString, typeArray = uint32(0), uint32(2), uint32(4), uint32(8), uint32(9)

func TestDamagedGGUFIsRefusedWithAReason(t *testing.T) {
	huge := uint64(1) << 60
	for _, c := range []struct {
		name string
		file *rawGGUF
		want string
	}{
		{"another format", (&rawGGUF{}).put([]byte("PK\x03\x04 and so on")), "not a GGUF file"},
		{"version 1", (&rawGGUF{}).put([]byte("GGUF"), uint32(1), huge, huge), "version 1 is not read"},
		{"big-endian", (&rawGGUF{}).put([]byte("GGUF\x00\x00\x00\x03"), huge, huge), "big-endian"},
		{"too many tensors", header(huge, 0).data(64), "1152921504606846976 tensors do not fit"},
		{"too many pairs", header(0, huge).data(64), "key-value pairs do not fit"},
		{"a key of a giant's length", header(0, 1).put(huge).data(64), "bytes of a string do not fit"},
		{"an empty key", header(0, 1).put("", typeUint32, uint32(1)).data(64), "has 0 bytes"},
		{"a key twice", header(0, 2).put("k", typeUint32, uint32(1), "k", typeUint32, uint32(1)), `key "k" is there twice`},
		{"an unknown value type", header(0, 1).put("k", uint32(13), uint32(1)), `key "k": offset 33: unknown value type 13`},
		{"a long string", header(0, 1).put("k", typeString, huge), `key "k": offset 37: `},
		{"a long array", header(0, 1).put("k", typeArray, typeUint32, huge), "array elements do not fit"},
		{"an array of arrays", header(0, 1).put("k", typeArray, typeArray, uint64(1)), "array of arrays"},
		{"an unknown element type", header(0, 1).put("k", typeArray, uint32(99), uint64(1)), "element type 99"},
		{"an odd alignment", header(0, 1).put("general.alignment", typeUint32, uint32(24)), "24 is not a power of two"},
		{"no alignment", header(0, 1).put("general.alignment", typeUint32, uint32(0)), "0 is not a power of two"},
		{"no dimensions", header(1, 0).put("t", uint32(0), uint64(1), typeF32, uint64(0)).data(64), `tensor "t" (info at offset 24): 0 dimensions`},
		{"five dimensions", header(1, 0).put("t", uint32(5), make([]byte, 60)), "5 dimensions"},
		{"an empty dimension", header(1, 0).info("t", 0, typeF32, 0).data(64), "a dimension is 0"},
		{"an overflowing dimension", header(1, 0).info("t", 1<<63, typeF32, 0).data(64), "a dimension is 9223372036854775808"},
		{"an overflowing product", header(1, 0).put("t", uint32(2), uint64(1)<<40, uint64(1)<<40, typeF32, uint64(0)).data(64), "too large"},
		{"half a block", header(1, 0).info("t", 33, typeQ4_0, 0).data(64), "rows of 33 elements do not divide into Q4_0 blocks of 32"},
		{"a type that is not read", header(1, 0).info("t", 256, 23, 0).data(256), "storage type IQ4_XS is not read"},
		{"an unknown type", header(1, 0).info("t", 256, 999, 0).data(256), "unknown storage type 999"},
		{"an offset off the alignment", header(1, 0).info("t", 4, typeF32, 4).data(64), "offset 4 is not a multiple"},
		{"data beyond the end", header(1, 0).info("t", 17, typeF32, 0).data(64), `tensor "t": 68 bytes at offset 64+0 go beyond`},
		{"an offset beyond the end", header(1, 0).info("t", 4, typeF32, 1<<62).data(64), "go beyond"},
		{"an overlap", header(2, 0).info("t", 16, typeF32, 0).info("u", 4, typeF32, 32).data(64), `tensor "u" at offset 96+32 overlaps tensor "t"`},
		{"a name twice", header(2, 0).info("t", 4, typeF32, 0).info("t", 4, typeF32, 32).data(64), `tensor "t" is there twice`},
		{"a header without end", header(0, 1).put("k", typeArray, uint32(0), uint64(65<<20)).data(65 << 20), "do not fit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := weights.ParseGGUF(c.file.Bytes())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestEveryTruncationOfAGGUFIsRefused(t *testing.T) {
	file := sampleGGUF(t)
	end := len(file) - len(file)%32
	last := sampleTensors(t)[3]
	// The padding behind the last tensor may be missing.
	end = end - (32-len(last.Data)%32)%32
	for n := range end {
		if _, _, err := weights.ParseGGUF(file[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(file))
		}
	}
	if _, _, err := weights.ParseGGUF(file[:end]); err != nil {
		t.Errorf("without the last padding: %v", err)
	}
}

func TestAHeaderCannotAskForMemory(t *testing.T) {
	for name, file := range map[string][]byte{
		"tensors": header(1<<59, 0).data(64).Bytes(),
		"pairs":   header(0, 1<<59).data(64).Bytes(),
		"string":  header(0, 1).put("k", typeString, uint64(1)<<40).data(64).Bytes(),
		"array":   header(0, 1).put("k", typeArray, typeString, uint64(1)<<40).data(64).Bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, _, err := weights.ParseGGUF(file); err == nil {
				t.Fatal("accepted")
			}
			runtime.ReadMemStats(&after)
			// Other goroutines of the test binary allocate a little too.
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%d bytes were allocated for a file of %d", n, len(file))
			}
		})
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ path, want string }{
		"a folder":     {dir, "not a regular file"},
		"a device":     {os.DevNull, "not a regular file"},
		"nothing":      {filepath.Join(dir, "missing.gguf"), "no such file"},
		"an empty one": {writeFile(t, "empty.gguf", nil), "empty"},
		"a short one":  {writeFile(t, "short.gguf", []byte("GG")), "short.gguf: offset 0"},
	} {
		if _, err := weights.OpenGGUF(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func FuzzGGUF(f *testing.F) {
	f.Add(sampleGGUF(f))
	f.Add(header(1, 1).put("k", typeArray, typeString, uint64(2), "a", "b").info("t", 32, typeQ4_0, 0).data(18).Bytes())
	f.Fuzz(func(t *testing.T, file []byte) {
		md, tensors, err := weights.ParseGGUF(file)
		if err != nil {
			return
		}
		for _, x := range tensors {
			if len(x.Data) > len(file) {
				t.Fatalf("tensor %q has %d bytes of a file of %d", x.Name, len(x.Data), len(file))
			}
			if _, err := x.Float32s(); err != nil {
				t.Fatalf("an accepted tensor cannot be decoded: %v", err)
			}
		}
		// What was understood survives being written and read again.
		if _, set := md["general.alignment"]; set {
			return // the writer always aligns to 32
		}
		var b bytes.Buffer
		if err := weightstest.WriteGGUF(&b, md, tensors); err != nil {
			t.Fatal(err)
		}
		md2, tensors2, err := weights.ParseGGUF(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tensors, tensors2); diff != "" {
			t.Error(diff)
		}
		if len(md) != len(md2) {
			t.Errorf("%d keys became %d", len(md), len(md2))
		}
	})
}
