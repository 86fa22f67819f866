//go:build !amd64

package vec

func best() ISA { return Generic }
