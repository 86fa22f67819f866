package spill

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"github.com/moaserve/moaserve/runtime/kv"
)

// A file holds one image. All numbers are little-endian.
//
//	offset  size
//	     0     8  magic
//	     8     4  version
//	    12     4  size of the header, its checksum included
//	    16    32  key
//	    48     8  tokens
//	    56     4  bytes of a page
//	    60     4  CRC-32C of all pages
//	    64     4  heads
//	    68     2  length of the format, f
//	    70     2  length of the model, m
//	    72     f  format
//	          m  model
//	    4*heads  first block of each head
//	          4  CRC-32C of the header up to here
//	             the pages, to the end of the file
//
// The size of the file follows from the header, so a file that was cut is found
// by its header alone; the checksums find the rest.
const (
	magic       = "moakv\r\n\x1a" // a transfer as text would damage it
	version     = 1
	fixedHeader = 72
)

// maxHeader bounds the header that is read into memory: the largest number of
// heads and the longest names.
const maxHeader = fixedHeader + 2<<16 + 4*maxHeads + 4

const (
	extension = ".kv"
	temporary = ".tmp"
)

// castagnoli is the polynomial that processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errForeign is what errors.Is finds when a file is sound but was not written
// for this store.
var errForeign = errors.New("written for something else")

// header is what a file says of its pages.
type header struct {
	key           kv.Key
	tokens        int
	starts        []int
	pageBytes     int
	checksum      uint32 // of the pages
	format, model string
}

// append encodes the header.
func (h *header) append(b []byte) []byte {
	from := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.size()))
	b = append(b, h.key[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.tokens))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.pageBytes))
	b = binary.LittleEndian.AppendUint32(b, h.checksum)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.starts)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(h.format)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(h.model)))
	b = append(append(b, h.format...), h.model...)
	for _, start := range h.starts {
		b = binary.LittleEndian.AppendUint32(b, uint32(start))
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
}

// size is the length of the encoded header.
func (h *header) size() int {
	return fixedHeader + len(h.format) + len(h.model) + 4*len(h.starts) + 4
}

// fileSize is the length of the file.
func (h *header) fileSize() (int64, error) {
	n, err := pages(h.tokens, h.starts)
	return int64(h.size()) + int64(n)*int64(h.pageBytes), err
}

// headerSize reads the size of the header from its first bytes, before anything
// is allocated for it.
func headerSize(b []byte, file int64) (int, error) {
	if len(b) < fixedHeader {
		return 0, io.ErrUnexpectedEOF
	}
	if string(b[:8]) != magic {
		return 0, errors.New("not a file of kept prefixes")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return 0, fmt.Errorf("version %d of the file format, not %d: %w", v, version, errForeign)
	}
	n := binary.LittleEndian.Uint32(b[12:])
	if n < fixedHeader+4 || n > maxHeader || int64(n) > file {
		return 0, fmt.Errorf("a header of %d bytes in a file of %d", n, file)
	}
	return int(n), nil
}

// parseHeader decodes a header of headerSize bytes of a file of that length.
func parseHeader(b []byte, file int64) (*header, error) {
	n, err := headerSize(b, file)
	if err != nil {
		return nil, err
	}
	if len(b) != n {
		return nil, fmt.Errorf("%d bytes of a header of %d", len(b), n)
	}
	body := b[:n-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[n-4:]) {
		return nil, errors.New("the header's checksum is wrong")
	}
	tokens := binary.LittleEndian.Uint64(b[48:])
	heads := binary.LittleEndian.Uint32(b[64:])
	format, model := int(binary.LittleEndian.Uint16(b[68:])), int(binary.LittleEndian.Uint16(b[70:]))
	if tokens > maxPages || heads > maxHeads || fixedHeader+format+model+4*int(heads) != len(body) {
		return nil, fmt.Errorf("%d tokens, %d heads and names of %d and %d bytes in a header of %d", tokens, heads, format, model, n)
	}
	h := &header{
		key: kv.Key(b[16:48]), tokens: int(tokens), starts: make([]int, heads),
		pageBytes: int(binary.LittleEndian.Uint32(b[56:])), checksum: binary.LittleEndian.Uint32(b[60:]),
	}
	rest := body[fixedHeader:]
	h.format, rest = string(rest[:format]), rest[format:]
	h.model, rest = string(rest[:model]), rest[model:]
	for i := range h.starts {
		h.starts[i] = int(binary.LittleEndian.Uint32(rest[4*i:]))
	}
	size, err := h.fileSize()
	if err != nil {
		return nil, err
	}
	if size != file {
		return nil, fmt.Errorf("the file has %d bytes instead of %d", file, size)
	}
	return h, nil
}

// headerGuess is read at first; longer headers, of a thousand heads, take a
// second read.
const headerGuess = 4096

// readHeader reads the header of an open file of that length and leaves the file
// at the first page.
func readHeader(f *os.File, size int64) (*header, error) {
	b := make([]byte, min(headerGuess, size))
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	n, err := headerSize(b, size)
	if err != nil {
		return nil, err
	}
	if n > len(b) {
		b = make([]byte, n)
		if _, err := f.ReadAt(b, 0); err != nil {
			return nil, err
		}
	}
	h, err := parseHeader(b[:n], size)
	if err != nil {
		return nil, err
	}
	_, err = f.Seek(int64(n), io.SeekStart)
	return h, err
}

// readPages reads the pages after the header and verifies them. The checksum
// follows the reads piece by piece, while a piece is in the processor's cache.
func readPages(f io.Reader, h *header) ([]byte, error) {
	size, err := h.fileSize()
	if err != nil {
		return nil, err
	}
	const piece = 256 << 10
	b := make([]byte, size-int64(h.size()))
	sum := uint32(0)
	for at := 0; at < len(b); at += piece {
		p := b[at:min(at+piece, len(b))]
		if _, err := io.ReadFull(f, p); err != nil {
			return nil, err
		}
		sum = crc32.Update(sum, castagnoli, p)
	}
	if sum != h.checksum {
		return nil, errors.New("the pages' checksum is wrong")
	}
	return b, nil
}

// fileName returns the name of the file of a key.
func fileName(key kv.Key) string { return hex.EncodeToString(key[:]) + extension }

// keyOf returns the key that a file is named by; false when no fileName has that
// form.
func keyOf(name string) (kv.Key, bool) {
	digits, ok := strings.CutSuffix(name, extension)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(kv.Key{}) || hex.EncodeToString(b) != digits {
		return kv.Key{}, false
	}
	return kv.Key(b), true
}
