package weights

// Metadata is the key-value section of a GGUF file. Values are one of bool,
// int64, uint64, float64, string, []bool, []int64, []uint64, []float64 and
// []string: the widths of the file are widened, so that a reader need not care
// which of them the converter chose.
type Metadata map[string]any

// String returns the string at key.
func (m Metadata) String(key string) (string, bool) { s, ok := m[key].(string); return s, ok }

// Bool returns the boolean at key.
func (m Metadata) Bool(key string) (bool, bool) { b, ok := m[key].(bool); return b, ok }

// Int returns the integer at key, whether it was stored signed or unsigned.
func (m Metadata) Int(key string) (int, bool) {
	switch v := m[key].(type) {
	case int64:
		return int(v), true
	case uint64:
		return int(v), v <= 1<<62
	}
	return 0, false
}

// Float returns the number at key; integers are converted.
func (m Metadata) Float(key string) (float64, bool) {
	if f, ok := m[key].(float64); ok {
		return f, true
	}
	i, ok := m.Int(key)
	return float64(i), ok
}

// Strings returns the array of strings at key. The slice is shared: do not
// write to it.
func (m Metadata) Strings(key string) ([]string, bool) { s, ok := m[key].([]string); return s, ok }

// Floats returns the array of floating-point numbers at key.
func (m Metadata) Floats(key string) ([]float64, bool) { f, ok := m[key].([]float64); return f, ok }

// Ints returns the array of integers at key, signed or unsigned.
func (m Metadata) Ints(key string) ([]int, bool) {
	switch v := m[key].(type) {
	case []int64:
		out := make([]int, len(v))
		for i, x := range v {
			out[i] = int(x)
		}
		return out, true
	case []uint64:
		out := make([]int, len(v))
		for i, x := range v {
			out[i] = int(x)
		}
		return out, true
	}
	return nil, false
}
