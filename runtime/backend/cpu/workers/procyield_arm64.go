package workers

// procyield executes n YIELD instructions.
//
//go:noescape
func procyield(n uint32)
