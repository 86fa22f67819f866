package jinja

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// temporary: differential run
func TestZZDiff(t *testing.T) {
	in := os.Getenv("ZZ_IN")
	if in == "" {
		t.Skip()
	}
	f, _ := os.Open(in)
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 64<<20)
	n, bad := 0, 0
	for sc.Scan() {
		var c struct {
			T    string
			Vars json.RawMessage
			Out  *string
		}
		if err := json.Unmarshal(sc.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		n++
		got, err := renderSource(c.T, testVars(t, c.Vars))
		if err != nil && (strings.Contains(err.Error(), "cannot be sliced") || strings.Contains(err.Error(), "slice ind")) {
			continue
		}
		if (err != nil) != (c.Out == nil) || err == nil && got != *c.Out {
			bad++
			if bad < 40 {
				want := "REFUSED"
				if c.Out != nil {
					want = fmt.Sprintf("%.400q", *c.Out)
				}
				src := c.T
				if len(src) > 600 {
					src = src[:600]
				}
				fmt.Printf("--- %s\n  got  %.400q err=%v\n  want %s\n", src, got, err, want)
			}
		}
	}
	fmt.Println("cases", n, "bad", bad)
}
