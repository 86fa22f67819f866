#!/usr/bin/env python3
"""What PyTorch's own kernels reach on the GPU here, to hold figures of docs/benchmarks.md
against: run it in the same minutes as bench/cuda.sh and cudakernels/devicetest.

    python3 bench/cuda_reference.py
"""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attention

HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "FlashAttention-2": SDPBackend.FLASH_ATTENTION}


def seconds(run, warm=0.2, measure=0.4):
    """Median seconds of a run, after some that do not count: the power limit takes a while."""
    for budget in (warm, measure):
        times, total = [], 0.0
        while total < budget:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
            total += times[-1]
    return sorted(times)[len(times) // 2]


def normal(*shape):
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


def product():
    n = 8192
    x, w = normal(n, n), normal(n, n)
    print(f"product {n}^3: {2 * n**3 / seconds(lambda: x @ w.T) / 1e12:.0f} TFLOP/s")


def read():
    x = torch.ones(1 << 31, device="cuda", dtype=torch.float32)
    print(f"sum of 8.6 GB: {x.nbytes / seconds(x.sum) / 1e12:.2f} TB/s")


def prefill():
    for n in (8192, 32768):
        q, k, v = normal(1, HEADS, n, HEAD_DIM), normal(1, KV_HEADS, n, HEAD_DIM), normal(1, KV_HEADS, n, HEAD_DIM)
        for name, backend in BACKENDS.items():
            with sdpa_kernel(backend):
                s = seconds(lambda: attention(q, k, v, is_causal=True, enable_gqa=True))
            print(f"prefill attention, dense, {n} tokens, {name}: {2 * n * n * HEADS * HEAD_DIM / s / 1e12:.0f} TFLOP/s")


def decode():
    """One key and value head a query head, as in Vicuna-7B."""
    for batch, n in ((1, 16384), (8, 8192), (32, 8192)):
        q, k, v = normal(batch, HEADS, 1, HEAD_DIM), normal(batch, HEADS, n, HEAD_DIM), normal(batch, HEADS, n, HEAD_DIM)
        for name, backend in BACKENDS.items():
            with sdpa_kernel(backend):
                s = seconds(lambda: attention(q, k, v))
            print(f"decode attention, dense, batch {batch} at {n}, {name}: {(k.nbytes + v.nbytes) / s / 1e12:.2f} TB/s")


if __name__ == "__main__":
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    with torch.inference_mode():
        for part in (read, product, prefill, decode):
            try:
                part()
            except (RuntimeError, torch.OutOfMemoryError) as e:
                print(f"{part.__name__}: {str(e).splitlines()[0]}")
            torch.cuda.empty_cache()
