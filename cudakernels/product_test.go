package cudakernels

import "testing"

// Where launches overlap, not two thread blocks of a product may fit on a
// multiprocessor; everywhere one must.
func TestProductsFitTheDevice(t *testing.T) {
	for _, c := range []struct {
		device Device
		m, k   int
		stages int
	}{
		{Device{Major: 9, SharedPerSM: 228 << 10, SharedPerBlock: 227 << 10}, 1, 4096, 4},
		{Device{Major: 9, SharedPerSM: 228 << 10, SharedPerBlock: 227 << 10}, 16, 14336, 4},
		{Device{Major: 8, SharedPerSM: 164 << 10, SharedPerBlock: 163 << 10}, 16, 576, 4},
		{Device{Major: 8, Minor: 9, SharedPerSM: 100 << 10, SharedPerBlock: 99 << 10}, 8, 4096, 2},
		{Device{Major: 7, Minor: 5, SharedPerSM: 64 << 10, SharedPerBlock: 64 << 10}, 1, 4096, 0},
		{Device{Major: 9, SharedPerSM: 228 << 10, SharedPerBlock: 227 << 10}, 17, 4096, 0},
		{Device{Major: 9, SharedPerSM: 228 << 10, SharedPerBlock: 227 << 10}, 1, 4128, 0},
		{Device{Major: 9, SharedPerSM: 228 << 10, SharedPerBlock: 227 << 10}, 0, 4096, 0},
	} {
		got := ProductStages(c.device, c.m, c.k)
		if got != c.stages {
			t.Errorf("%+v, %d rows, %d inputs: %d stages, want %d", c.device, c.m, c.k, got, c.stages)
		}
		if got == 0 {
			continue
		}
		a := Product{M: int64(c.m), K: int64(c.k), Stages: int64(got)}
		shared := int(a.Shape(c.device).Shared)
		if shared > c.device.SharedPerBlock {
			t.Errorf("%+v, %d rows: %d bytes of shared memory", c.device, c.m, shared)
		}
		if c.device.Programmatic() && 2*(shared+1024) <= c.device.SharedPerSM {
			t.Errorf("%+v, %d rows: two thread blocks of %d bytes fit", c.device, c.m, shared)
		}
	}
}
