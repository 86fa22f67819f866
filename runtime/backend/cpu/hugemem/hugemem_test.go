package hugemem

import (
	"bytes"
	"testing"
	"unsafe"
)

func TestArenaHandsOutZeroedAlignedPartsThatDoNotOverlap(t *testing.T) {
	var a Arena
	var parts [][]byte
	for i, n := range []int{1, 63, 64, 65, 0, 3 << 20, chunkBytes - 5, 2*chunkBytes + 1, 100} {
		b, err := a.Alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != n || cap(b) != n || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%Align != 0 {
			t.Errorf("%d bytes: length %d, capacity %d, at %p", n, len(b), cap(b), unsafe.SliceData(b))
		}
		if n < 1<<20 && !bytes.Equal(b, make([]byte, n)) {
			t.Errorf("%d bytes are not zero", n)
		}
		for j := 0; j < n; j += 4096 {
			b[j] = byte(i + 1)
		}
		parts = append(parts, b)
	}
	for i, b := range parts {
		for j := 0; j < len(b); j += 4096 {
			if b[j] != byte(i+1) {
				t.Fatalf("part %d was overwritten by part %d", i, b[j]-1)
			}
		}
	}
	if err := a.Free(); err != nil {
		t.Error(err)
	}
	if err := a.Free(); err != nil {
		t.Errorf("freed again: %v", err)
	}
}
