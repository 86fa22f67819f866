package weights

// table is a set of tensors in file order.
type table struct {
	list  []Tensor
	index map[string]int
}

// add appends a tensor; false when the name is taken.
func (t *table) add(x Tensor) bool {
	if _, taken := t.index[x.Name]; taken {
		return false
	}
	if t.index == nil {
		t.index = make(map[string]int)
	}
	t.index[x.Name] = len(t.list)
	t.list = append(t.list, x)
	return true
}

func (t *table) get(name string) (Tensor, bool) {
	i, ok := t.index[name]
	if !ok {
		return Tensor{}, false
	}
	return t.list[i], true
}

func (t *table) names() []string {
	names := make([]string, len(t.list))
	for i, x := range t.list {
		names[i] = x.Name
	}
	return names
}
