#!/usr/bin/env python3
"""Makes smollm2.json: logits of the real model by llama.cpp.
(pip install llama-cpp-python gguf numpy; argument: SmolLM2-135M-Instruct.Q4_1.gguf)

The weights are decoded to F32 first and the cache is F32, so that llama.cpp does
not round activations, keys or values: what is left is float32 arithmetic.
"""
import hashlib
import json
import pathlib
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np
from gguf import quants

HERE = pathlib.Path(__file__).parent
TOKENS = [100 + 7 * i for i in range(48)]
ROWS = [0, 15, 47]


def decode(source, target):
    r = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(target, "llama")
    for key, field in r.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[0]
            w.add_key_value(key, field.contents(), kind, sub_type=field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for t in r.tensors:
        x = quants.dequantize(t.data, t.tensor_type)
        w.add_tensor(t.name, np.ascontiguousarray(x, dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "f32.gguf"
    decode(sys.argv[1], path)
    model = llama_cpp.Llama(str(path), n_ctx=64, n_batch=64, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0)
    model.eval(TOKENS)
rows = []
for t in ROWS:
    logits = np.array(model.scores[t], dtype=np.float64)
    # The ten best and thirty from anywhere.
    ids = np.concatenate([np.argsort(-logits)[:10], np.arange(30) * 1601])
    rows.append({"row": t, "ids": ids.tolist(), "logits": logits[ids].round(5).tolist(), "deviation": round(float(logits.std()), 5)})
digest = hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest()
(HERE / "smollm2.json").write_text(json.dumps({"sha256": digest, "tokens": TOKENS, "rows": rows}) + "\n")
