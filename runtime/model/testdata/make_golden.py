#!/usr/bin/env python3
"""Makes llama.gguf, qwen2.gguf and qwen3.gguf, tiny random models, and
forward.json, the logits of each under a dense and a mixed plan; and rope.json,
frequencies of published rotary scalings. (pip install gguf numpy)

The forward pass here is written the Hugging Face way (rotate_half on weights as
trained). The llama file is then permuted as converters do, so that a test
against it also holds the interleaved rotation against the permutation.
"""
import json
import math
import pathlib

import gguf
import numpy as np

HERE = pathlib.Path(__file__).parent
BLOCK = 64
LAYERS, HIDDEN, HEADS, KV_HEADS, FFN, VOCAB = 2, 32, 4, 2, 48, 40
EPS = float(np.float32(1e-5))
TOKENS = 200
ROWS = [0, 1, 63, 64, 127, 128, 191, 192, 199]
# A rule for each of the 2x2 KV heads: own block only, two blocks, everything,
# and a span that grows with the position.
FLOOR = 64
RULES = [(0, 0.0), (128, 0.0), (0, 1.0), (-64, 0.75)]
HEAD_RULES = [[0, 1], [2, 3]]

MODELS = {
    "llama": dict(head_dim=8, base=10000.0, bias=False, qk_norm=False, tied=False, llama3=True),
    "qwen2": dict(head_dim=8, base=1e6, bias=True, qk_norm=False, tied=True, llama3=False),
    "qwen3": dict(head_dim=16, base=1e6, bias=False, qk_norm=True, tied=True, llama3=False),
}


def llama3(freqs, factor, low, high, original):
    out = []
    for f in freqs:
        wavelength = 2 * math.pi / f
        if wavelength < original / high:
            out.append(f)
        elif wavelength > original / low:
            out.append(f / factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            out.append((1 - smooth) * f / factor + smooth * f)
    return np.array(out)


def yarn(dims, base, factor, original, beta_fast=32, beta_slow=1):
    """Equations 17 to 23 of arXiv 2309.00071, as its authors' code rounds them."""
    def correction(turns):
        return dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
    low = max(math.floor(correction(beta_fast)), 0)
    high = min(math.ceil(correction(beta_slow)), dims - 1)
    keep = 1 - np.clip((np.arange(dims // 2) - low) / (high - low), 0, 1)
    f = plain(dims, base)
    return f / factor * (1 - keep) + f * keep, 0.1 * math.log(factor) + 1


def plain(dims, base):
    return 1 / base ** (np.arange(0, dims, 2) / dims)


def make_weights(rng, c):
    hd = c["head_dim"]
    def proj(out, inner):
        return (rng.standard_normal((out, inner)) / math.sqrt(inner)).astype(np.float16)
    def gain(n):
        return (1 + 0.1 * rng.standard_normal(n)).astype(np.float32)
    w = {"token_embd.weight": rng.standard_normal((VOCAB, HIDDEN)).astype(np.float16), "output_norm.weight": gain(HIDDEN)}
    if not c["tied"]:
        w["output.weight"] = proj(VOCAB, HIDDEN)
    for i in range(LAYERS):
        p = f"blk.{i}."
        w[p + "attn_norm.weight"] = gain(HIDDEN)
        w[p + "attn_q.weight"] = proj(HEADS * hd, HIDDEN)
        w[p + "attn_k.weight"] = proj(KV_HEADS * hd, HIDDEN)
        w[p + "attn_v.weight"] = proj(KV_HEADS * hd, HIDDEN)
        w[p + "attn_output.weight"] = proj(HIDDEN, HEADS * hd)
        if c["bias"]:
            for n, k in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
                w[p + f"attn_{n}.bias"] = (0.5 * rng.standard_normal(k * hd)).astype(np.float32)
        if c["qk_norm"]:
            w[p + "attn_q_norm.weight"], w[p + "attn_k_norm.weight"] = gain(hd), gain(hd)
        w[p + "ffn_norm.weight"] = gain(HIDDEN)
        w[p + "ffn_gate.weight"] = proj(FFN, HIDDEN)
        w[p + "ffn_up.weight"] = proj(FFN, HIDDEN)
        w[p + "ffn_down.weight"] = proj(HIDDEN, FFN)
    return w


def rms(x, gain):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * gain


def rotate(x, freqs):
    """x: [tokens, heads, head_dim]; rotate_half."""
    angle = np.arange(len(x))[:, None] * np.concatenate([freqs, freqs])[None, :]
    half = x.shape[-1] // 2
    rotated = np.concatenate([-x[..., half:], x[..., :half]], -1)
    return x * np.cos(angle)[:, None] + rotated * np.sin(angle)[:, None]


def span_mask(rule, n):
    alpha, beta = rule
    mask = np.zeros((n, n), bool)
    for t in range(n):
        q = t // BLOCK
        b = min(max(math.floor(alpha / BLOCK + beta * max(q + 1, FLOOR // BLOCK)), 1), q + 1)
        for s in range(t + 1):
            mask[t, s] = s // BLOCK == 0 or s // BLOCK > q - b
    return mask


def forward(c, w, freqs, tokens, rules):
    w = {k: v.astype(np.float64) for k, v in w.items()}
    hd, n = c["head_dim"], len(tokens)
    x = w["token_embd.weight"][tokens]
    for i in range(LAYERS):
        p = f"blk.{i}."
        h = rms(x, w[p + "attn_norm.weight"])
        q, k, v = (h @ w[p + f"attn_{a}.weight"].T + (w[p + f"attn_{a}.bias"] if c["bias"] else 0) for a in "qkv")
        q, k, v = q.reshape(n, HEADS, hd), k.reshape(n, KV_HEADS, hd), v.reshape(n, KV_HEADS, hd)
        if c["qk_norm"]:
            q, k = rms(q, w[p + "attn_q_norm.weight"]), rms(k, w[p + "attn_k_norm.weight"])
        q, k = rotate(q, freqs), rotate(k, freqs)
        k, v = np.repeat(k, HEADS // KV_HEADS, 1), np.repeat(v, HEADS // KV_HEADS, 1)
        scores = np.einsum("thd,shd->hts", q, k) / math.sqrt(hd)
        for head in range(HEADS):
            scores[head][~span_mask(rules[i][head // (HEADS // KV_HEADS)], n)] = -np.inf
        a = np.exp(scores - scores.max(-1, keepdims=True))
        a /= a.sum(-1, keepdims=True)
        x = x + np.einsum("hts,shd->thd", a, v).reshape(n, -1) @ w[p + "attn_output.weight"].T
        h = rms(x, w[p + "ffn_norm.weight"])
        gate = h @ w[p + "ffn_gate.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "ffn_up.weight"].T)) @ w[p + "ffn_down.weight"].T
    return rms(x, w["output_norm.weight"]) @ w.get("output.weight", w["token_embd.weight"]).T


def permute(x, heads):
    """What converters do to the query and key rows of llama."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def write(arch, c, w, divisors):
    g = gguf.GGUFWriter(HERE / f"{arch}.gguf", arch)
    g.add_name(f"tiny {arch}")
    g.add_block_count(LAYERS)
    g.add_context_length(4096)
    g.add_embedding_length(HIDDEN)
    g.add_feed_forward_length(FFN)
    g.add_head_count(HEADS)
    g.add_head_count_kv(KV_HEADS)
    g.add_key_length(c["head_dim"])
    g.add_value_length(c["head_dim"])
    g.add_layer_norm_rms_eps(EPS)
    g.add_rope_freq_base(c["base"])
    g.add_vocab_size(VOCAB)
    if divisors is not None:
        g.add_tensor("rope_freqs.weight", divisors)
    for name, x in w.items():
        if arch == "llama" and name.endswith("attn_q.weight"):
            x = permute(x, HEADS)
        if arch == "llama" and name.endswith("attn_k.weight"):
            x = permute(x, KV_HEADS)
        g.add_tensor(name, np.ascontiguousarray(x))
    g.write_header_to_file()
    g.write_kv_data_to_file()
    g.write_tensors_to_file()
    g.close()


def main():
    rng = np.random.default_rng(64)
    tokens = rng.integers(0, VOCAB, TOKENS)
    dense = [[(0, 1.0)] * KV_HEADS] * LAYERS
    mixed = [[RULES[i] for i in layer] for layer in HEAD_RULES]
    out = {"tokens": tokens.tolist(), "rows": ROWS, "floor": FLOOR, "heads": HEAD_RULES,
           "rules": [{"alpha": a, "beta": b} for a, b in RULES], "models": {}}
    for arch, c in MODELS.items():
        w = make_weights(rng, c)
        freqs, divisors = plain(c["head_dim"], c["base"]), None
        if c["llama3"]:
            # As stored: the divisors are rounded to float32.
            divisors = (freqs / llama3(freqs, 8, 1, 4, 64)).astype(np.float32)
            freqs = freqs / divisors.astype(np.float64)
        write(arch, c, w, divisors)
        out["models"][arch] = {name: forward(c, w, freqs, tokens, rules)[ROWS].round(12).tolist()
                               for name, rules in (("dense", dense), ("mixed", mixed))}
    (HERE / "forward.json").write_text(json.dumps(out) + "\n")

    qwen, scale = yarn(128, 1e6, 4, 32768)
    llama2, scale2 = yarn(128, 10000.0, 16, 4096)
    (HERE / "rope.json").write_text(json.dumps({
        "plain": {"frequencies": plain(64, 100000.0).tolist(), "scale": 1},
        "linear": {"frequencies": (plain(128, 10000.0) / 4).tolist(), "scale": 1},
        "llama3.1-8b": {"frequencies": llama3(plain(128, 500000.0), 8, 1, 4, 8192).tolist(), "scale": 1},
        "llama3.2-1b": {"frequencies": llama3(plain(64, 500000.0), 32, 1, 4, 8192).tolist(), "scale": 1},
        "qwen2.5-yarn": {"frequencies": qwen.tolist(), "scale": scale},
        "llama2-yarn": {"frequencies": llama2.tolist(), "scale": scale2},
    }) + "\n")


if __name__ == "__main__":
    main()
