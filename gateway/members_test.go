package gateway

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

func FuzzMembersAreCountedAsDecoded(f *testing.F) {
	for _, s := range []string{`[]`, `{}`, `[ ]`, `[[]]`, `[{}]`, `[0]`, `["a,b","\",",[1,2],{"x":[3,4]}]`, `{"a":1,"b":{"c":2,"d":3}}`, "[\n1\t, 2 ]", `["\\"]`, `[""]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.TrimSpace(b)
		var elements []json.RawMessage
		if isArray(b) && json.Unmarshal(b, &elements) == nil {
			if n := countMembers(b); n != len(elements) {
				t.Errorf("%s has %d elements, counted are %d", b, len(elements), n)
			}
		}
		var fields map[string]json.RawMessage
		if len(b) > 0 && b[0] == '{' && json.Unmarshal(b, &fields) == nil {
			// Of fields with the same name the last counts: there may be fewer.
			if n := countMembers(b); n < len(fields) || n > 0 && len(fields) == 0 {
				t.Errorf("%s has %d fields, counted are %d", b, len(fields), n)
			}
		}
	})
}

func TestLongArraysTakeLittleMemoryBeforeTheyAreRefused(t *testing.T) {
	limits, err := Limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	many := strings.Repeat("0,", size/2) + "0"
	fields := strings.Repeat(`"a":0,`, size/6) + `"a":0`
	for name, body := range map[string]string{
		"tools": `{"messages":[],"tools":[` + many + `]}`, "stop": `{"messages":[],"stop":[` + many + `]}`,
		"content": `{"messages":[{"role":"user","content":[` + many + `]}]}`, "fields": `{` + fields + `}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, e := decodeChat([]byte(body), &limits, 1000)
		runtime.ReadMemStats(&after)
		if e == nil {
			t.Errorf("%s: %d elements are taken", name, size/2)
		}
		// The field is copied out of the body once by each level that holds it: the body's
		// own fields, messages, a message, its content.
		if took := after.TotalAlloc - before.TotalAlloc; took > 5*uint64(len(body)) {
			t.Errorf("%s: %d bytes took %d", name, len(body), took)
		}
	}
}
