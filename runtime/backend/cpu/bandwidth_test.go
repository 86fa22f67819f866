package cpu

import (
	"encoding/binary"
	"testing"
)

func TestSumReadsEveryByte(t *testing.T) {
	b := make([]byte, 640)
	want := uint64(0)
	for i := range b {
		b[i] = byte(i*7 + 1)
	}
	for i := 0; i < len(b); i += 8 {
		want += binary.LittleEndian.Uint64(b[i:])
	}
	if got := sum(b); got != want {
		t.Errorf("the sum is %d, want %d", got, want)
	}
	for i := range b {
		b[i]++
		if sum(b) == want {
			t.Fatalf("byte %d does not count", i)
		}
		b[i]--
	}
}
