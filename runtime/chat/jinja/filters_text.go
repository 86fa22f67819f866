package jinja

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// softText is str(), but marked text stays marked.
func softText(st *state, v Value) (Value, error) {
	if _, ok := v.(Markup); ok {
		return v, nil
	}
	return str(st, v)
}

// textFilter makes a filter without arguments of a function on text.
func textFilter(f func(string) string) filter {
	return func(st *state, v Value, a *args) (Value, error) {
		if _, err := a.bind("filter", 0); err != nil {
			return nil, err
		}
		soft, err := softText(st, v)
		if err != nil {
			return nil, err
		}
		s, _ := text(soft)
		if err := st.build(len(s)); err != nil {
			return nil, err
		}
		return likeText(soft, f(s)), nil
	}
}

// titleWords is the title filter: unlike str.title() it looks for the beginnings
// of words only after blanks, hyphens and opening brackets.
func titleWords(s string) string {
	starts := func(r rune) bool { return isSpace(r) || strings.ContainsRune("-({[<", r) }
	var b strings.Builder
	for s != "" {
		i := strings.IndexFunc(s, func(r rune) bool { return !starts(r) })
		if i < 0 {
			i = len(s)
		}
		b.WriteString(s[:i])
		s = s[i:]
		end := strings.IndexFunc(s, starts)
		if end < 0 {
			end = len(s)
		}
		if end > 0 {
			_, n := utf8.DecodeRuneInString(s)
			b.WriteString(toUpper(s[:n]))
			b.WriteString(toLower(s[n:end]))
		}
		s = s[end:]
	}
	return b.String()
}

func filterCenter(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("center", 0, "width")
	if err != nil {
		return nil, err
	}
	width, err := needInt(p[0], 80)
	if err != nil {
		return nil, err
	}
	soft, err := softText(st, v)
	if err != nil {
		return nil, err
	}
	s, _ := text(soft)
	r, err := pad(st, s, width, " ", centerLeft)
	if err != nil {
		return nil, err
	}
	return likeText(soft, r.(string)), nil
}

func filterDefault(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("default", 0, "default_value", "boolean")
	if err != nil {
		return nil, err
	}
	boolean, err := flag(st, p[1], false)
	if err != nil {
		return nil, err
	}
	_, use := v.(*undefined)
	if !use && boolean {
		ok, err := truth(st, v)
		if err != nil {
			return nil, err
		}
		use = !ok
	}
	switch {
	case !use:
		return v, nil
	case p[0] == nil:
		return "", nil
	}
	return p[0], nil
}

func filterEscape(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("escape", 0); err != nil {
		return nil, err
	}
	if _, ok := v.(Markup); ok {
		return v, nil
	}
	return filterForceEscape(st, v, a)
}

func filterForceEscape(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("forceescape", 0); err != nil {
		return nil, err
	}
	s, err := str(st, v)
	if err != nil {
		return nil, err
	}
	s, err = escapeHTML(st, s)
	return Markup(s), err
}

func filterSafe(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("safe", 0); err != nil {
		return nil, err
	}
	s, err := str(st, v)
	return Markup(s), err
}

func filterString(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("string", 0); err != nil {
		return nil, err
	}
	return softText(st, v)
}

func filterTrim(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("trim", 0, "chars")
	if err != nil {
		return nil, err
	}
	if err := optionalText(p[0]); err != nil {
		return nil, err
	}
	soft, err := softText(st, v)
	if err != nil {
		return nil, err
	}
	s, _ := text(soft)
	return likeText(soft, strings.TrimFunc(s, stripSet(p[0]))), st.scan(len(s))
}

func filterReplace(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("replace", 2, "old", "new", "count")
	if err != nil {
		return nil, err
	}
	var s [3]string
	for i, v := range []Value{v, p[0], p[1]} {
		if s[i], err = str(st, v); err != nil {
			return nil, err
		}
	}
	n := -1
	if p[2] != Value(None) {
		if n, err = needInt(p[2], -1); err != nil {
			return nil, err
		}
	}
	return replaceText(st, s[0], s[1], s[2], n)
}

func filterFormat(st *state, v Value, a *args) (Value, error) {
	s, err := str(st, v)
	switch {
	case err != nil:
		return nil, err
	case len(a.pos) > 0 && len(a.named) > 0:
		return nil, errors.New("format cannot handle positional and keyword arguments at the same time")
	case len(a.named) > 0:
		d := NewDict(len(a.named))
		for _, n := range a.named {
			d.Set(n.name, n.value)
		}
		return formatPercent(st, s, d)
	}
	return formatPercent(st, s, &Tuple{Items: a.pos})
}

func filterIndent(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("indent", 0, "width", "first", "blank")
	if err != nil {
		return nil, err
	}
	first, err := flag(st, p[1], false)
	if err != nil {
		return nil, err
	}
	blank, err := flag(st, p[2], false)
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*undefined); ok {
		return nil, u.error()
	}
	s, err := needText(v)
	if err != nil {
		return nil, err
	}
	indent, ok := text(p[0])
	if !ok {
		width, err := needInt(p[0], 4)
		if err != nil {
			return nil, err
		}
		if width > maxField {
			return nil, errBytes
		}
		indent = strings.Repeat(" ", max(width, 0))
	}
	lines := splitLines(s+"\n", false)
	if err := st.build(len(s) + len(lines)*valueBytes); err != nil {
		return nil, err
	}
	if len(indent) > 0 && len(lines) > (1<<31)/len(indent) {
		return nil, errBytes
	}
	if err := st.build(len(lines) * len(indent)); err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == 0 && first || i > 0 && (blank || line != "") {
			b.WriteString(indent)
		}
		b.WriteString(line)
	}
	return likeText(v, b.String()), nil
}

// defaultLeeway is by how much a text may exceed the length of truncate without
// being cut.
const defaultLeeway = 5

func filterTruncate(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("truncate", 0, "length", "killwords", "end", "leeway")
	if err != nil {
		return nil, err
	}
	limit, err := needInt(p[0], 255)
	if err != nil {
		return nil, err
	}
	kill, err := flag(st, p[1], false)
	if err != nil {
		return nil, err
	}
	end := "..."
	if p[2] != nil {
		if end, err = needText(p[2]); err != nil {
			return nil, err
		}
	}
	leeway := defaultLeeway
	if p[3] != Value(None) {
		if leeway, err = needInt(p[3], defaultLeeway); err != nil {
			return nil, err
		}
	}
	keep := limit - utf8.RuneCountInString(end)
	if keep < 0 || leeway < 0 {
		return nil, errors.New("truncate needs a length of at least the end's, and a leeway of at least 0")
	}
	n, err := length(st, v)
	if err != nil || n <= limit || n-limit <= leeway {
		return v, err
	}
	s, err := needText(v)
	if err != nil {
		return nil, err
	}
	s = s[:runeOffset(s, keep)]
	if !kill {
		if i := strings.LastIndexByte(s, ' '); i >= 0 {
			s = s[:i]
		}
	}
	return st.text(s + end)
}

func filterWordCount(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("wordcount", 0); err != nil {
		return nil, err
	}
	s, err := str(st, v)
	if err != nil {
		return nil, err
	}
	words := strings.FieldsFunc(s, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !isNumeric(r) })
	return int64(len(words)), st.build(len(words) * valueBytes)
}

// filterStripTags removes tags and comments, collapses blanks, and decodes the
// five entities that escape makes.
func filterStripTags(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("striptags", 0); err != nil {
		return nil, err
	}
	s, err := str(st, v)
	if err != nil {
		return nil, err
	}
	if err := st.build(2 * len(s)); err != nil {
		return nil, err
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			break
		}
		closing, skip := ">", 0
		if strings.HasPrefix(s[i:], "<!--") {
			closing, skip = "-->", len("<!--")
		}
		end := strings.Index(s[i+skip:], closing)
		if end < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i+skip+end+len(closing):]
	}
	b.WriteString(s)
	return htmlUnescapes.Replace(strings.Join(strings.FieldsFunc(b.String(), isSpace), " ")), nil
}

var htmlUnescapes = strings.NewReplacer("&amp;", "&", "&lt;", "<", "&gt;", ">", "&#34;", `"`, "&#39;", "'", "&quot;", `"`)

func filterURLEncode(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("urlencode", 0); err != nil {
		return nil, err
	}
	quote := func(v Value, query bool) (string, error) {
		s, err := str(st, v)
		if err != nil {
			return "", err
		}
		if err := st.build(3 * len(s)); err != nil {
			return "", err
		}
		return urlQuote(s, query), nil
	}
	var pairs []Value
	switch x := v.(type) {
	case *Dict:
		for i := range x.keys {
			pairs = append(pairs, dictView{x, "items"}.at(i))
		}
	case *List, *Tuple, *generator, dictView, rangeValue, *undefined:
		var err error
		if pairs, err = st.items(v); err != nil {
			return nil, err
		}
	default:
		return quote(v, false)
	}
	var parts []string
	for _, pair := range pairs {
		kv, err := st.items(pair)
		if err != nil {
			return nil, err
		}
		if len(kv) != 2 {
			return nil, errors.New("urlencode needs pairs")
		}
		k, err := quote(kv[0], true)
		if err != nil {
			return nil, err
		}
		val, err := quote(kv[1], true)
		if err != nil {
			return nil, err
		}
		parts = append(parts, k+"="+val)
	}
	return joinTexts(st, parts, "&")
}

// urlQuote quotes all bytes but letters, digits and _.-~, and / outside of a
// query, where a blank becomes a plus.
func urlQuote(s string, query bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case isDecimal(c) || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("_.-~", c) >= 0, c == '/' && !query:
			b.WriteByte(c)
		case c == ' ' && query:
			b.WriteByte('+')
		default:
			b.WriteByte('%')
			b.WriteByte("0123456789ABCDEF"[c>>4])
			b.WriteByte("0123456789ABCDEF"[c&15])
		}
	}
	return b.String()
}
