package weights_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moaserve/moaserve/runtime/weights"
)

func TestMetadataIsReadWhateverItsWidth(t *testing.T) {
	md := weights.Metadata{
		"signed": int64(-3), "unsigned": uint64(7), "huge": uint64(1 << 63), "half": 0.5, "yes": true, "text": "x",
		"signeds": []int64{-1, 2}, "unsigneds": []uint64{3}, "texts": []string{"a"}, "halves": []float64{0.5},
	}
	type answer struct {
		Value any
		OK    bool
	}
	of := func(v any, ok bool) answer { return answer{v, ok} }
	for name, c := range map[string]struct{ got, want answer }{
		"signed":            {of(md.Int("signed")), answer{-3, true}},
		"unsigned":          {of(md.Int("unsigned")), answer{7, true}},
		"no integer":        {of(md.Int("text")), answer{0, false}},
		"float":             {of(md.Float("half")), answer{0.5, true}},
		"integer as float":  {of(md.Float("unsigned")), answer{7.0, true}},
		"no float":          {of(md.Float("missing")), answer{0.0, false}},
		"bool":              {of(md.Bool("yes")), answer{true, true}},
		"no bool":           {of(md.Bool("signed")), answer{false, false}},
		"string":            {of(md.String("text")), answer{"x", true}},
		"signed integers":   {of(md.Ints("signeds")), answer{[]int{-1, 2}, true}},
		"unsigned integers": {of(md.Ints("unsigneds")), answer{[]int{3}, true}},
		"no integers":       {of(md.Ints("halves")), answer{[]int(nil), false}},
		"strings":           {of(md.Strings("texts")), answer{[]string{"a"}, true}},
		"floats":            {of(md.Floats("halves")), answer{[]float64{0.5}, true}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	if _, ok := md.Int("huge"); ok {
		t.Error("an integer that does not fit was returned")
	}
}

func TestOpenTellsFilesFromFolders(t *testing.T) {
	src, err := weights.Open("testdata/golden.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := src.(*weights.GGUF); !ok {
		t.Errorf("a file opened as %T", src)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"testdata/make_golden.py", "testdata/missing"} {
		if src, err := weights.Open(path); err == nil || src != nil {
			t.Errorf("%s: %v, %v", path, src, err)
		}
	}
}
