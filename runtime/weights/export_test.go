package weights

// ParseGGUF parses a GGUF file in memory, for tests.
func ParseGGUF(file []byte) (Metadata, []Tensor, error) {
	md, t, err := parseGGUF(file)
	return md, t.list, err
}

// ParseSafetensors parses a safetensors file in memory, for tests.
func ParseSafetensors(file []byte) ([]Tensor, error) {
	t, err := parseSafetensors(file)
	return t.list, err
}
