"""KV memory of llama.cpp (through llama-cpp-python) at several context lengths, for bench/memory's table.

usage: llama_cpp_memory.py MODEL.gguf [tokens ...]
A process for each length: the KV buffer is allocated for n_ctx at the start and touched as it fills. Prints the bytes that n_ctx takes
by the model's shape, the growth of the process for it, and the size of the process.
"""
import subprocess, sys

CHUNK = 512


def resident():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmRSS:"))


def measure(model, tokens):
    import llama_cpp

    llm = llama_cpp.Llama(model, n_ctx=tokens, n_batch=CHUNK, n_threads=2, n_threads_batch=2, verbose=False)
    meta = {k.split(".", 1)[1]: v for k, v in llm.metadata.items() if k.startswith("llama.")}
    head = int(meta["embedding_length"]) // int(meta["attention.head_count"])
    cell = int(meta["block_count"]) * int(meta["attention.head_count_kv"]) * head * 2 * 2  # keys and values, f16
    llm.eval([1] * CHUNK)
    before = resident()
    llm.reset()
    llm.eval([1 + i % 1000 for i in range(tokens - 1)])
    after = resident()
    print(f"{tokens:6d} tokens: KV {tokens * cell / 1e6:.1f} MB, process grew {(after - before + CHUNK * cell) / 1e6:.1f} MB, process {after / 1e6:.0f} MB", flush=True)


if sys.argv[1] == "-child":
    measure(sys.argv[2], int(sys.argv[3]))
else:
    for n in sys.argv[2:] or ["1024", "2048", "4096", "8128"]:
        subprocess.run([sys.executable, __file__, "-child", sys.argv[1], n], check=True)
