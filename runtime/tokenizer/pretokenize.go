package tokenizer

// The regular expressions that byte-level pre-tokenizers split text with. Each
// has a hand-written scanner, so that no backtracking engine meets the text of a
// request; an expression without one is refused when the tokenizer is loaded.
const (
	// gpt2Pattern is the expression of GPT-2's tokenizer and the one that
	// ByteLevel applies when use_regex is set.
	gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	// llama3Pattern is Llama-3's expression; numbers go in groups of up to three.
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	// qwen2Pattern is that of Qwen2 and Qwen3; numbers go one by one.
	qwen2Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// scanner returns the end of the piece that begins at s[i:], i < len(s). The
// result is beyond i. Nothing before i is looked at, and s ends where the text
// between two added tokens ends: that is what the look-ahead of \s+(?!\S) sees.
type scanner func(t *classTable, s string, i int) int

// scanners holds the expressions that are understood.
var scanners = map[string]scanner{
	gpt2Pattern:   scanGPT2,
	llama3Pattern: scanLlama3,
	qwen2Pattern:  scanQwen2,
}

// ggufPreTokenizer is what a name in tokenizer.ggml.pre stands for.
type ggufPreTokenizer struct {
	scan         scanner
	digits       bool // isolate every digit before scanning
	nfc          bool
	ignoreMerges bool
	addBOS       bool // when the file does not say
}

// ggufPreTokenizers holds the names that are understood. A name that several
// converters use for the same thing is listed under each of its spellings.
var ggufPreTokenizers = map[string]ggufPreTokenizer{
	"gpt-2":            {scan: scanGPT2},
	"phi-2":            {scan: scanGPT2},
	"smollm":           {scan: scanGPT2, digits: true},
	"starcoder":        {scan: scanGPT2, digits: true},
	"llama-bpe":        {scan: scanLlama3, ignoreMerges: true, addBOS: true},
	"llama3":           {scan: scanLlama3, ignoreMerges: true, addBOS: true},
	"llama-v3":         {scan: scanLlama3, ignoreMerges: true, addBOS: true},
	"qwen2":            {scan: scanQwen2, nfc: true},
	"deepseek-r1-qwen": {scan: scanQwen2, nfc: true},
}

// eachDigit calls f for the pieces of s that the pre-tokenizer Digits with
// individual_digits makes: every digit by itself, and what lies between.
func eachDigit(t *classTable, s string, f func(string)) {
	start := 0
	for i := 0; i < len(s); {
		class, size := t.at(s, i)
		if class&digit == 0 {
			i += size
			continue
		}
		if start < i {
			f(s[start:i])
		}
		f(s[i : i+size])
		i += size
		start = i
	}
	if start < len(s) {
		f(s[start:])
	}
}

// scanGPT2 implements gpt2Pattern.
func scanGPT2(t *classTable, s string, i int) int {
	if s[i] == '\'' {
		if n := contraction(s[i+1:], false); n > 0 {
			return i + 1 + n
		}
	}
	class, size := t.at(s, i)
	j := i
	if s[i] == ' ' && i+1 < len(s) {
		j = i + 1
		class, size = t.at(s, j)
	}
	if class&space == 0 {
		// " ?X+" for the class X of what follows the optional space.
		return span(t, s, j+size, class&(letter|number))
	}
	return scanSpaces(t, s, i, false)
}

// scanLlama3 implements llama3Pattern.
func scanLlama3(t *classTable, s string, i int) int { return scanCL100K(t, s, i, 3) }

// scanQwen2 implements qwen2Pattern.
func scanQwen2(t *classTable, s string, i int) int { return scanCL100K(t, s, i, 1) }

// scanCL100K implements the form that llama3Pattern and qwen2Pattern share;
// \p{N} matches up to maxDigits times.
func scanCL100K(t *classTable, s string, i, maxDigits int) int {
	if s[i] == '\'' {
		if n := contraction(s[i+1:], true); n > 0 {
			return i + 1 + n
		}
	}
	class, size := t.at(s, i)
	next := i + size
	switch {
	case class&letter != 0:
		return span(t, s, next, letter)
	case class&number != 0:
		for n := 1; n < maxDigits && next < len(s); n++ {
			class, size := t.at(s, next)
			if class&number == 0 {
				break
			}
			next += size
		}
		return next
	}
	// [^\r\n\p{L}\p{N}]?\p{L}+ : one rune of any other kind may lead a word.
	if s[i] != '\r' && s[i] != '\n' && next < len(s) {
		if class, size := t.at(s, next); class&letter != 0 {
			return span(t, s, next+size, letter)
		}
	}
	if class&space != 0 {
		// " ?[^\s\p{L}\p{N}]+[\r\n]*" after its space, or else white space.
		if s[i] != ' ' || next == len(s) {
			return scanSpaces(t, s, i, true)
		}
		class, size = t.at(s, next)
		if class&(space|letter|number) != 0 {
			return scanSpaces(t, s, i, true)
		}
		next += size
	}
	next = span(t, s, next, 0)
	for next < len(s) && (s[next] == '\r' || s[next] == '\n') {
		next++
	}
	return next
}

// span returns the end of the run of runes from s[i:] whose class, of letter,
// number, space and none (0), is want.
func span(t *classTable, s string, i int, want uint8) int {
	ascii := &t.class[0]
	for i < len(s) {
		if c := s[i]; c < 0x80 {
			if ascii[c]&(letter|number|space) != want {
				return i
			}
			i++
			continue
		}
		class, size := t.at(s, i)
		if class&(letter|number|space) != want {
			return i
		}
		i += size
	}
	return i
}

// scanSpaces implements \s+(?!\S)|\s+ from a white-space rune at s[i:], after
// \s*[\r\n]+ when lines is set.
func scanSpaces(t *classTable, s string, i int, lines bool) int {
	last, lineEnd, j := i, 0, i // last: where the run's last rune begins
	for j < len(s) {
		class, size := t.at(s, j)
		if class&space == 0 {
			break
		}
		last = j
		if s[j] == '\r' || s[j] == '\n' {
			lineEnd = j + 1
		}
		j += size
	}
	switch {
	case lines && lineEnd > 0:
		// \s* is greedy and then gives back: the match ends after the last line end.
		return lineEnd
	case j < len(s) && last > i:
		// (?!\S) leaves the last space to the word that follows.
		return last
	}
	return j
}

// contraction returns the length of the ending that s begins with, of those in
// 's 't 're 've 'm 'll 'd (without the quote); 0 when there is none.
func contraction(s string, foldCase bool) int {
	if s == "" {
		return 0
	}
	// U+017F, the long s, is the only rune outside ASCII that folds to a letter
	// of these endings.
	if foldCase && len(s) >= 2 && s[:2] == "\u017f" {
		return 2
	}
	a := s[0]
	var b byte
	if len(s) > 1 {
		b = s[1]
	}
	if foldCase {
		a, b = lower(a), lower(b)
	}
	switch a {
	case 's', 't', 'm', 'd':
		return 1
	case 'r', 'v':
		if b == 'e' {
			return 2
		}
	case 'l':
		if b == 'l' {
			return 2
		}
	}
	return 0
}

// lower folds an ASCII capital to its small letter.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
