//go:build !amd64

package isa

func best() ISA { return Generic }
