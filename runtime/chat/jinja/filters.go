package jinja

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// filter is a function behind |: v is what is filtered.
type filter func(st *state, v Value, a *args) (Value, error)

// filters by name. It is filled in init because map, select and others refer to
// it.
var filters map[string]filter

func init() {
	filters = map[string]filter{
		"abs": filterAbs, "attr": filterAttr, "batch": filterBatch, "capitalize": textFilter(capitalize),
		"center": filterCenter, "count": filterLength, "d": filterDefault, "default": filterDefault,
		"dictsort": filterDictSort, "e": filterEscape, "escape": filterEscape, "first": filterFirst,
		"float": filterFloat, "forceescape": filterForceEscape, "format": filterFormat, "groupby": filterGroupBy,
		"indent": filterIndent, "int": filterInt, "items": filterItems, "join": filterJoin, "last": filterLast,
		"length": filterLength, "list": filterList, "lower": textFilter(toLower), "map": filterMap,
		"max": extreme("max", ">"), "min": extreme("min", "<"), "reject": selecting("reject", false, false),
		"rejectattr": selecting("rejectattr", true, false), "replace": filterReplace, "reverse": filterReverse,
		"round": filterRound, "safe": filterSafe, "select": selecting("select", false, true),
		"selectattr": selecting("selectattr", true, true), "slice": filterSlice, "sort": filterSort,
		"string": filterString, "striptags": filterStripTags, "sum": filterSum, "title": textFilter(titleWords),
		"tojson": filterToJSON, "trim": filterTrim, "truncate": filterTruncate, "unique": filterUnique,
		"upper": textFilter(toUpper), "urlencode": filterURLEncode, "wordcount": filterWordCount,
	}
}

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

func filterAttr(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("attr", 1, "name")
	if err != nil {
		return nil, err
	}
	name, err := needText(p[0])
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*undefined); ok {
		return nil, u.error()
	}
	found, err := attribute(st, v, name)
	if found == nil && err == nil {
		return &undefined{of: v, name: name}, nil
	}
	return found, err
}

func filterLength(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("length", 0); err != nil {
		return nil, err
	}
	n, err := length(st, v)
	return int64(n), err
}

// path is the attribute argument of map, sort and others: a name with dots, of
// which numbers are indexes.
type path []Value

func parsePath(v Value) path {
	s, ok := text(v)
	if v == nil || v == Value(None) {
		return nil
	}
	if !ok {
		return path{v}
	}
	var p path
	for part := range strings.SplitSeq(s, ".") {
		if i, ok := parseIndex(part); ok && part != "" {
			p = append(p, i)
		} else {
			p = append(p, part)
		}
	}
	return p
}

// get follows the path from v. Undefined steps take the value unset, if it is
// not nil.
func (p path) get(st *state, v, unset Value) (Value, error) {
	for _, part := range p {
		var err error
		if v, err = getItem(st, v, part); err != nil {
			return nil, err
		}
		if _, ok := v.(*undefined); ok && unset != nil && unset != Value(None) {
			v = unset
		}
	}
	return v, nil
}

// ignoreCase lowers text for comparing.
func ignoreCase(st *state, v Value) (Value, error) {
	s, ok := text(v)
	if !ok {
		return v, nil
	}
	return toLower(s), st.build(len(s))
}

// key returns the value to sort, group or compare by.
func (p path) key(st *state, v, unset Value, caseSensitive bool) (Value, error) {
	v, err := p.get(st, v, unset)
	if err != nil || caseSensitive {
		return v, err
	}
	return ignoreCase(st, v)
}

func filterFirst(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("first", 0); err != nil {
		return nil, err
	}
	it, err := iterate(v)
	if err != nil {
		return nil, err
	}
	item, ok, err := st.next(it)
	if err == nil && !ok {
		return &undefined{hint: "no first item, sequence was empty"}, nil
	}
	return item, err
}

func filterLast(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("last", 0); err != nil {
		return nil, err
	}
	if _, ok := v.(*generator); ok {
		return nil, errors.New("'generator' object is not reversible")
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return &undefined{hint: "no last item, sequence was empty"}, nil
	}
	return items[len(items)-1], nil
}

func filterList(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("list", 0); err != nil {
		return nil, err
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	return &List{Items: items}, nil
}

func filterItems(_ *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("items", 0); err != nil {
		return nil, err
	}
	if _, ok := v.(*undefined); ok {
		return newGenerator(nil, &sliceIterator{})
	}
	d, ok := v.(*Dict)
	if !ok {
		// Python's filter is a generator: it fails when it is gone through.
		return newGenerator(nil, iteratorFunc(func(*state) (Value, bool, error) {
			return nil, false, errors.New("can only get item pairs from a mapping")
		}))
	}
	return newGenerator(nil, &indexIterator{n: d.Len(), at: dictView{d, "items"}.at})
}

func filterJoin(st *state, v Value, a *args) (Value, error) {
	p, err := a.bind("join", 0, "d", "attribute")
	if err != nil {
		return nil, err
	}
	sep := ""
	if p[0] != nil {
		if sep, err = str(st, p[0]); err != nil {
			return nil, err
		}
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	if err := st.build(len(items) * valueBytes); err != nil {
		return nil, err
	}
	by := parsePath(p[1])
	parts := make([]string, len(items))
	for i, item := range items {
		if item, err = by.get(st, item, nil); err != nil {
			return nil, err
		}
		if parts[i], err = str(st, item); err != nil {
			return nil, err
		}
	}
	return joinTexts(st, parts, sep)
}

func filterReverse(st *state, v Value, a *args) (Value, error) {
	if _, err := a.bind("reverse", 0); err != nil {
		return nil, err
	}
	if _, ok := text(v); ok {
		return slice(st, v, nil, nil, int64(-1))
	}
	items, err := st.items(v)
	if err != nil {
		return nil, err
	}
	if _, ok := v.(*generator); ok {
		slices.Reverse(items) // drained into a slice of its own
		return &List{Items: items}, nil
	}
	n := len(items)
	return newGenerator(nil, &indexIterator{n: n, at: func(i int) Value { return items[n-1-i] }})
}
