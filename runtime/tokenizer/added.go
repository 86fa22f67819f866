package tokenizer

import (
	"iter"
	"slices"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is found in the text as a whole.
type addedToken struct {
	id      int32
	special bool
	// singleWord accepts it only where no letter, mark or digit touches it;
	// lstrip and rstrip make it swallow the white space before and after it.
	singleWord, lstrip, rstrip bool
}

// matcher finds added tokens: at each place the longest, and places from left
// to right without overlap. Its trie is a table keyed by node and byte, small
// because few tokens are added. A nil matcher finds nothing.
type matcher struct {
	first  [256]bool // bytes that begin a token
	edges  map[trieEdge]int32
	tokens []*addedToken // of the node; nil where no token ends
}

type trieEdge struct {
	node int32
	byte byte
}

// add enters a token with its spelling, which must not be empty.
func (m *matcher) add(spelling string, token *addedToken) {
	m.first[spelling[0]] = true
	node := int32(0)
	for i := range len(spelling) {
		e := trieEdge{node, spelling[i]}
		next, ok := m.edges[e]
		if !ok {
			next = int32(len(m.tokens))
			m.tokens = append(m.tokens, nil)
			m.edges[e] = next
		}
		node = next
	}
	m.tokens[node] = token
}

func newMatcher() *matcher {
	return &matcher{edges: map[trieEdge]int32{}, tokens: make([]*addedToken, 1)}
}

// longest returns the longest token at s[i:] and where it ends.
func (m *matcher) longest(s string, i int) (token *addedToken, end int) {
	node := int32(0)
	for ; i < len(s); i++ {
		next, ok := m.edges[trieEdge{node, s[i]}]
		if !ok {
			break
		}
		node = next
		if m.tokens[node] != nil {
			token, end = m.tokens[node], i+1
		}
	}
	return token, end
}

// segment is a part of a text: an added token, or what lies between two of them
// when token is nil.
type segment struct {
	start, end int
	token      *addedToken
}

// segments yields the parts of s in order. Unless parseSpecial is set, special
// tokens count as text; they still hide tokens that begin inside them, as in the
// reference.
func (m *matcher) segments(s string, parseSpecial bool) iter.Seq[segment] {
	return func(yield func(segment) bool) {
		done := 0 // everything before it has been yielded
		for i := 0; m != nil && i < len(s); {
			if !m.first[s[i]] {
				i++
				continue
			}
			token, end := m.longest(s, i)
			if token == nil {
				i++
				continue
			}
			start, stop := i, end
			i = end
			if token.special && !parseSpecial {
				continue
			}
			if token.singleWord && (endsInWord(s[:start]) || beginsWithWord(s[stop:])) {
				continue
			}
			if token.lstrip {
				start = done + trimSpaceRight(s[done:start])
			}
			if token.rstrip {
				stop += leadingSpace(s[stop:])
				i = stop
			}
			if done < start && !yield(segment{start: done, end: start}) {
				return
			}
			if !yield(segment{start, stop, token}) {
				return
			}
			done = stop
		}
		if done < len(s) {
			yield(segment{start: done, end: len(s)})
		}
	}
}

// trimSpaceRight returns the length of s without the white space at its end.
func trimSpaceRight(s string) int {
	for s != "" {
		r, size := utf8.DecodeLastRuneInString(s)
		if !unicode.IsSpace(r) {
			break
		}
		s = s[:len(s)-size]
	}
	return len(s)
}

// leadingSpace returns the length of the white space that s begins with.
func leadingSpace(s string) int {
	for i, r := range s {
		if !unicode.IsSpace(r) {
			return i
		}
	}
	return len(s)
}

func endsInWord(s string) bool {
	_, size := utf8.DecodeLastRuneInString(s)
	return s != "" && beginsWithWord(s[len(s)-size:])
}

func beginsWithWord(s string) bool {
	if s == "" {
		return false
	}
	class, _ := classes().at(s, 0)
	return class&word != 0
}

// collect sorts added tokens into the two matchers; normalize may be nil. Nil
// stands for a matcher without tokens.
func collect(tokens []addedSpelling, normalize func(string) string) (raw, normalized *matcher) {
	// Of two tokens with one spelling the later wins; a stable order keeps the
	// result independent of how the caller found them.
	slices.SortStableFunc(tokens, func(a, b addedSpelling) int { return int(a.token.id) - int(b.token.id) })
	for i := range tokens {
		into, spelling := &raw, tokens[i].spelling
		if tokens[i].normalized {
			into = &normalized
			if normalize != nil {
				spelling = normalize(spelling)
			}
		}
		if spelling == "" {
			continue // the reference ignores an empty token
		}
		if *into == nil {
			*into = newMatcher()
		}
		(*into).add(spelling, &tokens[i].token)
	}
	return raw, normalized
}

// addedSpelling is an added token as a file declares it.
type addedSpelling struct {
	spelling   string
	normalized bool
	token      addedToken
}
