package cpu

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/moaserve/moaserve/runtime/backend"
	"github.com/moaserve/moaserve/runtime/backend/cpu/hugemem"
)

var _ backend.BandwidthMeter = (*Device)(nil)

const (
	// bandwidthBytes is several times what the largest caches hold.
	bandwidthBytes = 1 << 30
	// bandwidthPiece is what a worker reads at a time: enough to come up to speed.
	bandwidthPiece = 4 << 20
	// bandwidthRuns are made; the fastest counts, for it is a bound.
	bandwidthRuns = 5
)

// ReadBandwidth measures how many bytes of memory all workers together read in a
// second.
func (d *Device) ReadBandwidth() (_ float64, err error) {
	var memory hugemem.Arena
	defer func() { err = errors.Join(err, memory.Free()) }()
	var pieces [bandwidthBytes / bandwidthPiece][]byte
	for i := range pieces {
		if pieces[i], err = memory.Alloc(bandwidthPiece); err != nil {
			return 0, err
		}
	}
	// Pages that nobody wrote to would all be the same one.
	d.workers.Run(len(pieces), func(_, i int) {
		for j := range pieces[i] {
			pieces[i][j] = byte(i + j)
		}
	})
	var sums [len(pieces)]uint64
	read := func(_, i int) { sums[i] = sum(pieces[i]) }
	fastest := time.Duration(0)
	for range bandwidthRuns {
		began := time.Now()
		d.workers.Run(len(pieces), read)
		if took := time.Since(began); fastest == 0 || took < fastest {
			fastest = took
		}
	}
	return bandwidthBytes / fastest.Seconds(), nil
}

// sum adds up the words of b, whose length is a multiple of 64. It waits for memory, not
// for the additions: four of them at a time do not depend on one another.
func sum(b []byte) uint64 {
	var s0, s1, s2, s3 uint64
	for ; len(b) >= 64; b = b[64:] {
		line := b[:64:64]
		s0 += binary.LittleEndian.Uint64(line) + binary.LittleEndian.Uint64(line[32:])
		s1 += binary.LittleEndian.Uint64(line[8:]) + binary.LittleEndian.Uint64(line[40:])
		s2 += binary.LittleEndian.Uint64(line[16:]) + binary.LittleEndian.Uint64(line[48:])
		s3 += binary.LittleEndian.Uint64(line[24:]) + binary.LittleEndian.Uint64(line[56:])
	}
	return s0 + s1 + s2 + s3
}
