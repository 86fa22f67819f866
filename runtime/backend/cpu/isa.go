package cpu

import (
	"github.com/moaserve/moaserve/runtime/backend/cpu/matmul"
	"github.com/moaserve/moaserve/runtime/backend/cpu/vec"
)

func vecISA(i matmul.ISA) vec.ISA {
	switch i {
	case matmul.AVX512:
		return vec.AVX512
	case matmul.AVX2:
		return vec.AVX2
	}
	return vec.Generic
}
