package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// object reads the fields of a JSON object. Its first error sticks: callers read
// all the fields they want and look at err once. A field that is null is absent,
// as in OpenAI's specification. Fields are taken out as they are read, so that
// what remains is what nobody knows.
type object struct {
	path   string // of the object itself with a final dot, empty for the body
	fields map[string]json.RawMessage
	err    *apiError
}

// parseBody reads the outermost object of a request.
func parseBody(body []byte, depth int) (*object, *apiError) {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return nil, errorf(kindInvalidJSON, "", "The body is empty. It must be a JSON object.")
	case body[0] != '{':
		return nil, errorf(kindInvalidJSON, "", "The body must be a JSON object.")
	case !utf8.Valid(body):
		return nil, errorf(kindInvalidJSON, "", "The body is not valid UTF-8.")
	case !jsonDepth(body, depth):
		return nil, errorf(kindInvalidJSON, "", "The body is nested more than %d levels deep.", depth)
	}
	// What is not valid is told below, whatever is counted here.
	if n := countMembers(body); n > maxFields && json.Valid(body) {
		return nil, errorf(kindTooMany, "", "The body has %d fields; at most %d are accepted.", n, maxFields)
	}
	o := &object{}
	if err := json.Unmarshal(body, &o.fields); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			// The parser's own words quote the offending character.
			return nil, errorf(kindInvalidJSON, "", "The body is not valid JSON: the error is near byte %d.", syntax.Offset)
		}
		return nil, newError(kindInvalidJSON)
	}
	return o, nil
}

// name returns the full name of a field.
func (o *object) name(field string) string { return o.path + field }

// fail keeps the first error.
func (o *object) fail(e *apiError) {
	if o.err == nil {
		o.err = e
	}
}

func (o *object) failType(field, want string) {
	o.fail(errorf(kindInvalidType, o.name(field), "'%s' must be %s.", o.name(field), want))
}

func (o *object) failValue(field, want string) {
	o.fail(errorf(kindInvalidValue, o.name(field), "'%s' must be %s.", o.name(field), want))
}

// take removes a field and returns its value, nil when absent or null.
func (o *object) take(field string) json.RawMessage {
	raw, ok := o.fields[field]
	if !ok {
		return nil
	}
	delete(o.fields, field)
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// rest returns the names of the fields nobody took, sorted.
func (o *object) rest() []string {
	names := make([]string, 0, len(o.fields))
	for name := range o.fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// number reads a number in lo..hi.
func (o *object) number(field string, lo, hi, absent float64) float64 {
	raw := o.take(field)
	if raw == nil {
		return absent
	}
	want := "a number between " + strconv.FormatFloat(lo, 'g', -1, 64) + " and " + strconv.FormatFloat(hi, 'g', -1, 64)
	v, ok := parseNumber(raw)
	switch {
	case !ok:
		o.failType(field, want)
	case v < lo || v > hi:
		o.failValue(field, want)
	default:
		return v
	}
	return absent
}

// integer reads an integer in lo..hi. 2.0 is an integer, 2.5 is not.
func (o *object) integer(field string, lo, hi, absent int64) int64 {
	raw := o.take(field)
	if raw == nil {
		return absent
	}
	want := "an integer between " + strconv.FormatInt(lo, 10) + " and " + strconv.FormatInt(hi, 10)
	switch {
	case lo == math.MinInt64 && hi == math.MaxInt64:
		want = "a 64-bit integer"
	case hi >= math.MaxInt32:
		want = "an integer of at least " + strconv.FormatInt(lo, 10)
	}
	v, ok := parseInteger(raw)
	switch {
	case !ok:
		o.failType(field, want)
	case v > hi:
		o.failValue(field, "an integer of at most "+strconv.FormatInt(hi, 10))
	case v < lo:
		o.failValue(field, want)
	default:
		return v
	}
	return absent
}

// boolean reads true or false.
func (o *object) boolean(field string, absent bool) bool {
	switch raw := o.take(field); {
	case raw == nil:
	case string(raw) == "true":
		return true
	case string(raw) == "false":
		return false
	default:
		o.failType(field, "true or false")
	}
	return absent
}

// text reads a string of at most limit bytes; limit 0 leaves it to the bound of
// the body.
func (o *object) text(field string, limit int) (s string, present bool) {
	raw := o.take(field)
	if raw == nil {
		return "", false
	}
	s, ok := parseString(raw)
	switch {
	case !ok:
		o.failType(field, "a string")
	case limit > 0 && len(s) > limit:
		o.fail(errorf(kindTooLong, o.name(field), "'%s' is longer than %d bytes.", o.name(field), limit))
	default:
		return s, true
	}
	return "", true
}

// list reads an array of at most limit elements.
func (o *object) list(field string, limit int) (elements []json.RawMessage, present bool) {
	raw := o.take(field)
	if raw == nil {
		return nil, false
	}
	if !isArray(raw) {
		o.failType(field, "an array")
		return nil, true
	}
	return o.elements(raw, field, limit), true
}

// elements returns those of an array, at most limit: more are an error about the field.
func (o *object) elements(raw json.RawMessage, field string, limit int) []json.RawMessage {
	if n := countMembers(raw); n > limit {
		o.fail(errorf(kindTooMany, o.name(field), "'%s' has %d elements; at most %d are accepted.", o.name(field), n, limit))
		return nil
	}
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil { // raw is a part of a valid body
		o.failType(field, "an array")
	}
	return elements
}

// object reads a nested object. The result reports its errors to its own err.
func (o *object) object(field string) (nested *object, present bool) {
	raw := o.take(field)
	if raw == nil {
		return nil, false
	}
	nested, ok := parseObject(raw, o.name(field)+".")
	if !ok {
		o.failType(field, "an object")
		return nil, true
	}
	return nested, true
}

// strings reads a string or an array of strings, none of them empty.
func (o *object) strings(field string, limit, bytesLimit int) []string {
	raw, ok := o.fields[field]
	if !ok {
		return nil
	}
	if _, isString := parseString(raw); isString {
		raw = slices.Concat(json.RawMessage("["), raw, json.RawMessage("]"))
		o.fields[field] = raw
	}
	elements, present := o.list(field, limit)
	if !present || o.err != nil {
		return nil
	}
	out := make([]string, 0, len(elements))
	for _, e := range elements {
		s, ok := parseString(e)
		switch {
		case !ok:
			o.failType(field, "a string or an array of strings")
			return nil
		case s == "":
			o.failValue(field, "without empty strings")
			return nil
		case len(s) > bytesLimit:
			o.fail(errorf(kindTooLong, o.name(field), "A string of '%s' is longer than %d bytes.", o.name(field), bytesLimit))
			return nil
		}
		out = append(out, s)
	}
	return out
}

// tokens reads an array of token ids below vocab.
func (o *object) tokens(field string, limit, vocab int) []int32 {
	elements, present := o.list(field, limit)
	if !present || o.err != nil {
		return nil
	}
	ids, ok := parseTokens(elements, vocab)
	if !ok {
		o.failValue(field, "an array of token ids between 0 and "+strconv.Itoa(vocab-1))
		return nil
	}
	return ids
}

// refuse rejects a field that cannot be honoured, unless its value is one of
// harmless, written as compact JSON.
func (o *object) refuse(field, why string, harmless ...string) {
	raw := o.take(field)
	if raw == nil {
		return
	}
	var compact bytes.Buffer
	if json.Compact(&compact, raw) == nil && slices.Contains(harmless, compact.String()) {
		return
	}
	o.fail(errorf(kindUnsupported, o.name(field), "'%s' is not supported: %s.", o.name(field), why))
}

// drop accepts fields without doing anything about them.
func (o *object) drop(fields ...string) {
	for _, f := range fields {
		delete(o.fields, f)
	}
}

func parseString(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	return s, json.Unmarshal(raw, &s) == nil
}

func parseNumber(raw json.RawMessage) (float64, bool) {
	// ParseFloat takes more than JSON does (hex, Inf), but raw is valid JSON
	// already: a number begins with a digit or a minus sign.
	if len(raw) == 0 || (raw[0] != '-' && (raw[0] < '0' || raw[0] > '9')) {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	return v, err == nil
}

func parseInteger(raw json.RawMessage) (int64, bool) {
	if v, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return v, true
	}
	v, ok := parseNumber(raw)
	// Beyond 2^53 a float64 does not tell neighbours apart.
	if !ok || v != math.Trunc(v) || math.Abs(v) > 1<<53 {
		return 0, false
	}
	return int64(v), true
}

func isArray(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '[' }

// maxFields bounds the fields of an object: more than any has a use for, logit_bias
// included.
const maxFields = 2048

func parseObject(raw json.RawMessage, path string) (*object, bool) {
	if len(raw) == 0 || raw[0] != '{' || countMembers(raw) > maxFields {
		return nil, false
	}
	o := &object{path: path}
	return o, json.Unmarshal(raw, &o.fields) == nil
}

func parseTokens(elements []json.RawMessage, vocab int) ([]int32, bool) {
	ids := make([]int32, 0, len(elements))
	for _, e := range elements {
		v, ok := parseInteger(e)
		if !ok || v < 0 || v >= int64(vocab) {
			return nil, false
		}
		ids = append(ids, int32(v))
	}
	return ids, true
}

// ignoredHeader returns the names of unknown fields for the response header
// Moaserve-Ignored-Fields: only names that are safe to repeat, and not too many.
func ignoredHeader(names []string) string {
	const maxNames, maxName = 16, 64
	var kept []string
	for _, n := range names {
		plain := n != "" && len(n) <= maxName && strings.Trim(n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
		if plain && len(kept) < maxNames {
			kept = append(kept, n)
		}
	}
	return strings.Join(kept, ", ")
}
