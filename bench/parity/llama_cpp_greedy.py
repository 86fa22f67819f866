"""Greedy answers of llama.cpp (llama-cpp-python) on 20 prompts of 20 to 6000 tokens.

usage: llama_cpp_greedy.py MODEL.gguf GOLDEN.json.gz LOGITS.f32 TEXT.txt ...

GOLDEN gets, per prompt, its token ids and the first 32 greedily chosen ids. LOGITS gets the raw
float32 logits of those 32 positions of every prompt, [20][32][vocab], for ./bench/parity.
The texts are cut into documents; each prompt is a document and a question in the chat template.
"""
import gzip
import json
import sys

import llama_cpp
import numpy as np

LENGTHS = [20, 32, 48, 63, 64, 65, 96, 128, 160, 256, 320, 450, 512, 700, 1024, 1500, 2048, 3000, 4500, 6000]
GENERATED = 32
QUESTIONS = ["What is this text about?", "Summarise the text.", "Who or what is named in it?", "Continue the text.", "List three facts from it."]


def main():
    model, golden, logits_path, texts = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    # float32 keys and values: the file's weights are the only rounding left when it is dequantised.
    llm = llama_cpp.Llama(model, n_ctx=8192, n_batch=512, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, verbose=False)
    vocab = llm.n_vocab()
    sources = [open(t, encoding="utf8").read() for t in texts]
    cases = []
    with open(logits_path, "wb") as f:
        for i, n in enumerate(LENGTHS):
            question = QUESTIONS[i % len(QUESTIONS)]
            head = llm.tokenize(b"<|im_start|>user\n", add_bos=False, special=True)
            tail = llm.tokenize(f"\n{question}<|im_end|>\n<|im_start|>assistant\n".encode(), add_bos=False, special=True)
            text = sources[i % len(sources)]
            at = 20000 + 3777 * i
            body = llm.tokenize(text[at : at + 8 * n + 200].encode(), add_bos=False, special=False)
            ids = (head + body[: max(1, n - len(head) - len(tail))] + tail)[-n:]
            llm.reset()
            llm.eval(ids)
            chosen = []
            for _ in range(GENERATED):
                row = np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(vocab,)).astype(np.float32)
                f.write(row.tobytes())
                chosen.append(int(row.argmax()))
                llm.eval([chosen[-1]])
            cases.append({"prompt": [int(t) for t in ids], "greedy": chosen})
            print(n, llm.detokenize(chosen)[:70], flush=True)
    with gzip.GzipFile(golden, "wb", mtime=0) as f:
        f.write(json.dumps({"llama_cpp_python": llama_cpp.__version__, "cases": cases}, separators=(",", ":")).encode())


main()
