package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// vocabList reads the object of tokens and ids, and mergeList the array of merge
// rules in either of its two forms, "a b" and ["a", "b"]. Both have hundreds of
// thousands of entries in a large tokenizer.json; reading them by hand halves
// the time to load one. encoding/json has found the syntax valid before it calls
// UnmarshalJSON; what remains is to tell the types apart.
type (
	vocabList []vocabEntry
	mergeList []mergePair
)

var (
	_ json.Unmarshaler = (*vocabList)(nil)
	_ json.Unmarshaler = (*mergeList)(nil)
)

type vocabEntry struct {
	name string
	id   int64
}

var (
	errNotUTF8 = errors.New("not UTF-8")
	errShape   = errors.New("unexpected value")
)

// UnmarshalJSON implements json.Unmarshaler.
func (l *vocabList) UnmarshalJSON(data []byte) error {
	s, err := newJSONScanner(data)
	if err != nil || s.null() {
		return fieldError("model.vocab", err)
	}
	if !s.accept('{') {
		return fieldError("model.vocab", errShape)
	}
	for more := !s.accept('}'); more; more = s.accept(',') {
		name, err := s.string()
		if err != nil {
			return fieldError("model.vocab", err)
		}
		s.accept(':')
		id, err := s.integer()
		if err != nil {
			return fmt.Errorf("model.vocab: id of %.40q: %w", name, err)
		}
		if *l = append(*l, vocabEntry{name, id}); len(*l) > maxVocab {
			return fmt.Errorf("model.vocab: more than %d tokens", maxVocab)
		}
	}
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *mergeList) UnmarshalJSON(data []byte) error {
	s, err := newJSONScanner(data)
	if err != nil || s.null() {
		return fieldError("model.merges", err)
	}
	if !s.accept('[') {
		return fieldError("model.merges", errShape)
	}
	for more := !s.accept(']'); more; more = s.accept(',') {
		p, err := s.mergePair()
		if err != nil {
			return fmt.Errorf("model.merges[%d]: %w", len(*l), err)
		}
		if *l = append(*l, p); len(*l) > maxMerges {
			return fmt.Errorf("model.merges: more than %d rules", maxMerges)
		}
	}
	return nil
}

func fieldError(field string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", field, err)
}

// jsonScanner walks over a valid JSON value.
type jsonScanner struct {
	text string // strings without escapes are cut out of it
	at   int
}

func newJSONScanner(data []byte) (jsonScanner, error) {
	if !utf8.Valid(data) {
		return jsonScanner{}, errNotUTF8
	}
	return jsonScanner{text: string(data)}, nil
}

func (s *jsonScanner) space() {
	for s.at < len(s.text) && s.text[s.at] <= ' ' {
		s.at++ // valid JSON has no other control characters between tokens
	}
}

// accept skips white space and then c, if it comes next.
func (s *jsonScanner) accept(c byte) bool {
	s.space()
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *jsonScanner) null() bool { return strings.TrimSpace(s.text) == "null" }

func (s *jsonScanner) string() (string, error) {
	if !s.accept('"') {
		return "", errShape
	}
	start, escaped := s.at, false
	for s.at < len(s.text) && s.text[s.at] != '"' {
		if s.text[s.at] == '\\' {
			escaped = true
			s.at++
		}
		s.at++
	}
	if s.at >= len(s.text) {
		return "", errShape
	}
	s.at++
	if !escaped {
		return s.text[start : s.at-1], nil
	}
	var out string
	err := json.Unmarshal([]byte(s.text[start-1:s.at]), &out)
	return out, err
}

func (s *jsonScanner) integer() (int64, error) {
	s.space()
	start := s.at
	for s.at < len(s.text) && strings.IndexByte("+-.eE0123456789", s.text[s.at]) >= 0 {
		s.at++
	}
	return strconv.ParseInt(s.text[start:s.at], 10, 64)
}

func (s *jsonScanner) mergePair() (mergePair, error) {
	if !s.accept('[') {
		line, err := s.string()
		if err != nil {
			return mergePair{}, err
		}
		return splitMerge(line)
	}
	left, err := s.string()
	if err != nil {
		return mergePair{}, err
	}
	if !s.accept(',') {
		return mergePair{}, errMergeRule
	}
	right, err := s.string()
	if err != nil {
		return mergePair{}, err
	}
	if !s.accept(']') {
		return mergePair{}, errMergeRule
	}
	return mergePair{left, right}, nil
}
