package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Stream is a running completion. One goroutine may call Recv at a time.
type Stream struct {
	body  io.ReadCloser
	lines *bufio.Scanner
	done  bool
}

// maxLine bounds one event: a chunk is small, one with 20 alternatives a token
// some kilobytes.
const maxLine = 4 << 20

func newStream(body io.ReadCloser) *Stream {
	s := &Stream{body: body, lines: bufio.NewScanner(body)}
	s.lines.Buffer(make([]byte, 0, 4096), maxLine)
	return s
}

// Recv returns the next chunk, io.EOF after the last one, and an
// *openai.APIError when the server reports a failure in mid-stream. A stream that
// breaks off before its end is io.ErrUnexpectedEOF.
func (s *Stream) Recv() (Chunk, error) {
	if s.done {
		return Chunk{}, io.EOF
	}
	for s.lines.Scan() {
		data, ok := bytes.CutPrefix(s.lines.Bytes(), []byte("data:"))
		if !ok {
			continue // a comment, an empty line or a field that is not used
		}
		data = bytes.TrimSpace(data)
		if bytes.Equal(data, []byte("[DONE]")) {
			s.done = true
			return Chunk{}, io.EOF
		}
		if e := decodeError(data); e != nil {
			s.done = true
			return Chunk{}, e
		}
		var c Chunk
		if err := json.Unmarshal(data, &c); err != nil {
			return Chunk{}, fmt.Errorf("decoding a chunk: %w", err)
		}
		return c, nil
	}
	s.done = true
	if err := s.lines.Err(); err != nil {
		return Chunk{}, err
	}
	return Chunk{}, io.ErrUnexpectedEOF
}

// Close ends the stream; a completion that still runs is cancelled.
func (s *Stream) Close() error { return s.body.Close() }
