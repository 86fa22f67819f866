#!/usr/bin/env python3
"""Times llama.cpp through llama-cpp-python, for bench/compare.sh.

    llama_cpp_bench.py MODEL.gguf THREADS DEPTH [DEPTH ...]

At each depth a prompt of that many random tokens is read, then 64 tokens are decoded
greedily. Prints a JSON line a depth. llama-cpp-python should be built for the machine:

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36
"""

import json
import random
import sys
import time

from llama_cpp import Llama

STEPS = 64


def main() -> None:
    model, threads, depths = sys.argv[1], int(sys.argv[2]), [int(d) for d in sys.argv[3:]]
    llama = Llama(model, n_ctx=max(depths) + STEPS + 1, n_threads=threads, n_threads_batch=threads, verbose=False)
    for depth in depths:
        llama.reset()
        prompt = random.Random(depth).choices(range(1000, llama.n_vocab() - 1000), k=depth)
        begin = time.perf_counter()
        llama.eval(prompt)
        read = time.perf_counter()
        for _ in range(STEPS):
            llama.eval([llama.sample(temp=0)])
        end = time.perf_counter()
        print(json.dumps({
            "program": "llama.cpp", "depth_tokens": depth, "steps": STEPS,
            "prefill_tok_per_s": depth / (read - begin), "decode_tok_per_s": STEPS / (end - read),
        }), flush=True)


main()
