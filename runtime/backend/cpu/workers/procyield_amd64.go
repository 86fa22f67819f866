package workers

// procyield executes n PAUSE instructions.
//
//go:noescape
func procyield(n uint32)
