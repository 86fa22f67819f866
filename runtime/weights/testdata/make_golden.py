#!/usr/bin/env python3
"""Makes golden.gguf: every storage type, written and decoded by ggml's own
Python package (pip install gguf numpy), and a key of every value type.

For each type T there are two tensors: T.stored, of that type, and T.expected,
the same elements decoded to F32. Blocks come from quantised normal numbers where
the package can quantise, and from random bits with finite scales everywhere, so
that every code of every field occurs.
"""
import pathlib

import numpy as np
import gguf
from gguf import GGMLQuantizationType as T
from gguf import quants

HERE = pathlib.Path(__file__).parent
ROWS, ROW = 3, 512
# Byte offsets of the binary16 fields of a block.
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
QUANTISES = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]

rng = np.random.default_rng(20240614)


def random_blocks(t, n):
    _, size = gguf.GGML_QUANT_SIZES[t]
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in SCALES[t]:
        # All exponents but infinity's, both signs, subnormals included.
        half = rng.integers(0, 1 << 16, n, dtype=np.uint16)
        half = np.where((half & 0x7C00) == 0x7C00, half & 0x83FF, half).astype(np.uint16)
        blocks[:, at:at + 2] = half.view(np.uint8).reshape(n, 2)
    return blocks


def stored(t):
    x = rng.standard_normal((ROWS, ROW), dtype=np.float32)
    if t == T.F32:
        return x.view(np.uint8)
    if t == T.F16:
        return x.astype(np.float16).view(np.uint8)
    if t == T.BF16:
        return quants.quantize(x, t).view(np.uint8).reshape(ROWS, -1)
    elems, size = gguf.GGML_QUANT_SIZES[t]
    data = random_blocks(t, ROWS * ROW // elems).reshape(ROWS, -1)
    if t in QUANTISES:
        data[0] = quants.quantize(x[:1], t)[0]
    return data


def main():
    w = gguf.GGUFWriter(HERE / "golden.gguf", "golden")
    w.add_uint8("value.u8", 200)
    w.add_int8("value.i8", -100)
    w.add_uint16("value.u16", 60000)
    w.add_int16("value.i16", -30000)
    w.add_uint32("value.u32", 4_000_000_000)
    w.add_int32("value.i32", -2_000_000_000)
    w.add_uint64("value.u64", 1 << 63)
    w.add_int64("value.i64", -(1 << 62))
    w.add_float32("value.f32", 0.1)
    w.add_float64("value.f64", 0.1)
    w.add_bool("value.true", True)
    w.add_bool("value.false", False)
    w.add_string("value.string", "Größe: 64 ✓")
    w.add_array("array.strings", ["a", "", "ß"])
    w.add_array("array.ints", [1, -2, 3])
    w.add_array("array.floats", [0.5, -1.25])
    w.add_array("array.bools", [True, False, True])
    for t in (T.F32, T.F16, T.BF16, *SCALES):
        data = stored(t)
        expected = quants.dequantize(data if t not in (T.F32, T.F16) else data.view(np.float32 if t == T.F32 else np.float16), t)
        w.add_tensor(t.name + ".stored", data, raw_dtype=t)
        w.add_tensor(t.name + ".expected", np.ascontiguousarray(expected, dtype=np.float32).reshape(ROWS, ROW))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
