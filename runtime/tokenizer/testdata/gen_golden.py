"""Writes the test data of package tokenizer: texts, small vocabularies trained on
text made here, and for each family what the Rust package `tokenizers` (PyPI) makes
of each text.

    pip install tokenizers gguf
    python testdata/gen_golden.py                       # families and texts
    python testdata/gen_golden.py --gguf SmolLM2.gguf   # smollm2.golden
    python testdata/gen_golden.py --json DIR            # DIR/golden for DIR/tokenizer.json

A golden file holds one little-endian 32-bit FNV-1a hash a text, over the ids with
special tokens added and parsed, the ids without either, and the first of them
decoded with and without special tokens. Variants whose name ends in -added leave the
decoded texts out: the reference decodes a token that is marked as normalised to its
normalised spelling and takes that for byte-level text.
"""

import argparse
import collections
import copy
import gzip
import hashlib
import json
import os
import random
import struct

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

WORDS = """the of and to in a is that it for was on are as with his they at be this from I have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my made over
did down only way find use may water long little very after words called just where most know attention sparse model
token cache memory window query key value head layer block page density span profile plan matrix tensor gradient kernel
throughput latency scheduler continuous batching prefill decode streaming quantised embedding normalisation""".split()

SENTENCES = [
    "Größere Öfen wärmen süße Brötchen früh.", "L'été, les élèves mangent à l'école où ça coûte peu.",
    "El niño comió piñas en la montaña; ¿quién sabe?", "Być może żółta łódź śpi.", "Tiếng Việt có nhiều dấu thanh.",
    "Съешь же ещё этих мягких французских булок.", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.", "İstanbul'da ılık rüzgâr.",
    "人工智能正在改变世界，我们需要更多的数据。", "吾輩は猫である。名前はまだ無い。", "カタカナとひらがなを混ぜる。",
    "다람쥐 헌 쳇바퀴에 타고파.", "한국어 문장을 나눕니다.", "مرحبا بالعالم، كيف حالك؟", "שָׁלוֹם עוֹלָם",
    "नमस्ते दुनिया, आप कैसे हैं?", "สวัสดีชาวโลก", "வணக்கம் உலகம்", "გამარჯობა მსოფლიო", "Բարեւ աշխարհ",
]

CODE = [
    "def f(x, y=0):\n    return x ** 2 + y\n", "for i := 0; i < n; i++ {\n\t\tsum += a[i]\n\t}\n", "if (a && b || !c) { x->y = *p++; }\r\n",
    "SELECT id, name FROM users WHERE age >= 18;", "<div class=\"row\">\n  <a href='#'>x</a>\n</div>", '{"key": [1, 2.5e-3, null, true], "s": "\\u00e9\\n"}',
    "#include <stdio.h>\r\n#define MAX(a,b) ((a)>(b)?(a):(b))\r\n", "$ ls -la | grep '^d' > out.txt 2>&1", "x = lambda a: a[::-1]  # reverse", "http://example.org/a/b?c=d&e=%20f#g",
    "let v: Vec<&'static str> = vec![\"a\"; 10];", "\\begin{equation} \\frac{1}{2} \\sum_{i=0}^{n} x_i \\end{equation}", "===> ;;; ??? !!! ... --- ___ *** ### //// \\\\\\\\",
]

EMOJI = [
    "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "👍🏽", "1️⃣", "❤️‍🔥", "🧑🏿‍🚀", "😀😃😄", "☺︎", "🫠", "🤌🏻", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇺", "\u200d", "\ufe0f",
]

MARKS = [
    "e\u0301", "a\u0308\u0323", "o\u0302\u0309", "n\u0303", "A\u030a", "\u212b", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0915\u094d\u0937", "\u09c7\u09be",
    "\u0b47\u0b56", "q\u0307\u0323", "\u0344", "\u2126", "\ufb1d\u05b4", "z\u0335\u0327\u0324\u0301\u035d", "\u0e40\u0e49\u0e33", "a" + "\u0301" * 40, "x" + "\u0323\u0301" * 35,
    "e\u08ca\u0301", "e\u1dfa\u0323", "\U00011935\U00011930", "\u0041\u0345\u0334", "\u1e0b\u0323", "\u0958", "\U0001d15e", "\uf900", "\u30ab\u3099", "\uff76\uff9e",
]

SPACES = list("\t\n\x0b\x0c\r\x1c\x1f\x20\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff") + ["\r\n", "\n\n", "  ", "   ", " \n", "\n ", "\t\t"]

CONTROLS = ["\x00", "\x01", "\x04", "\x07", "\x08", "\x1b[31m", "\x7f", "\x80", "\x9f", "\xad", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\ue000", "\u202e", "\U000e0041", "\x13\x14\x16\x06"]

DIGITS = ["0", "7", "12", "123", "1234", "1234567890", "3.14159", "1,000,000", "0x1F", "1e-9", "٣٤٥", "１２３", "²³", "½", "Ⅷ", "一二三", "௧௨", "𝟙𝟚", "\U00010d40", "\U00011de0", "2024-11-25T13:40", "+49 (0)30 12345"]

QUOTES = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'Re", "'vE", "'\u017f", "'\u212a", "it's", "WE'VE", "don't", "'twas", "''s", "\u2019s", " 's", "'sad", "'", "''", "\"quoted\""]

SPECIALS = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>user<|end_header_id|>", "<s>", "</s>", "<unk>", "<0x0A>", "<0xFF>", "<tool_call>", "</tool_call>", "<think>",
    "<|im_start", "<|im_end|", "|im_end|>", "<<|im_end|>>", "<s", "<|", "[INST]", "[/INST]", "<mask>", " <mask> ", "<|user|>\n\n", "wordy", "wordywordy", " wordy.", "\u00c5ng", "A\u030ang", "<repo_name>",
]

META = ["▁", "▁▁", "▁a", "a▁b", "Ġ", "Ġthe", "Ċ", "âĢĻ", "##ing", "@@"]


def long_run(rng):
    unit = rng.choice(["a", "A", " ", "\n", "\t", ".", "-", "=", "0", "7", "é", "中", "😀", "ab", " a", "\r\n", "▁", "\x00", ";", "?", "ha", "the "])
    return unit * rng.choice([2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 66, 100, 129])


def any_rune(rng):
    while True:
        c = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000), rng.randrange(0x20000), rng.randrange(0x110000)])
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def prose(rng, n):
    words = [rng.choice(WORDS) for _ in range(n)]
    for i in range(n):
        r = rng.random()
        if r < 0.1:
            words[i] = words[i].capitalize()
        elif r < 0.13:
            words[i] = words[i].upper()
        elif r < 0.18:
            words[i] += rng.choice([",", ".", ";", ":", "!", "?", "'s", "'ll", " -"])
    return " ".join(words)


def fragment(rng):
    r = rng.randrange(20)
    if r < 4:
        return prose(rng, rng.randrange(1, 6))
    if r < 6:
        return rng.choice(SENTENCES)[rng.randrange(4) :][: rng.randrange(1, 20)]
    if r < 7:
        return rng.choice(CODE)[rng.randrange(6) :][: rng.randrange(1, 30)]
    if r < 8:
        return "".join(any_rune(rng) for _ in range(rng.randrange(1, 5)))
    if r < 9:
        return rng.choice(WORDS)
    pools = [EMOJI, MARKS, SPACES, SPACES, SPACES, CONTROLS, DIGITS, DIGITS, QUOTES, QUOTES, SPECIALS, SPECIALS, META]
    return rng.choice(rng.choice(pools))


def corpus(seed, size):
    """The test texts: every single item, then mixtures."""
    rng = random.Random(seed)
    texts = ["", " ", "  ", "a", "\n"]
    pools = [SENTENCES, CODE, EMOJI, MARKS, SPACES, CONTROLS, DIGITS, QUOTES, SPECIALS, META]
    for pool in pools:
        for item in pool:
            texts += [item, " " + item, "a" + item + "b", item + " " + item]
    for c in range(0x180):
        texts.append("x" + chr(c) + "y" + chr(c))
    texts += [long_run(rng) for _ in range(150)]
    texts += [prose(rng, rng.randrange(5, 25)) for _ in range(150)]
    texts += ["".join(any_rune(rng) for _ in range(rng.randrange(1, 12))) for _ in range(250)]
    while len(texts) < size:
        parts = [fragment(rng) if rng.random() < 0.97 else long_run(rng) for _ in range(rng.randrange(2, 9))]
        texts.append(rng.choice(["", "", " "]).join(parts))
    return texts


def training_text():
    rng = random.Random(1)
    for _ in range(4000):
        yield prose(rng, 12) + "\n"
        yield rng.choice(CODE) + rng.choice(SENTENCES) + rng.choice(QUOTES) + " " + rng.choice(DIGITS) + "\n\n"
        yield "    " * rng.randrange(4) + rng.choice(CODE) + rng.choice(EMOJI) + "\r\n" + rng.choice("aA.-=;? ") * rng.randrange(1, 12)


def token(id, content, special=True, **flags):
    t = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    t.update(flags)
    return t


def add(spec, content, special=True, **flags):
    """Adds a token to a tokenizer.json with the next free id."""
    ids = list(spec["model"]["vocab"].values()) + [t["id"] for t in spec["added_tokens"]]
    spec["added_tokens"].append(token(spec["model"]["vocab"].get(content, max(ids) + 1), content, special, **flags))
    return spec["added_tokens"][-1]["id"]


def train_byte_level(pre, vocab_size):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator(training_text(), trainer)
    return json.loads(t.to_str())


def train_sentence_piece(vocab_size):
    """A vocabulary in SentencePiece's manner: merges are all the ways to make a
    token out of two, in the order of the scores."""
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    reserved = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=reserved, show_progress=False)
    texts = list(training_text())
    # Some runes must be left to byte fallback. (The trainer's limit_alphabet
    # breaks ties in any order.)
    count = collections.Counter("".join(texts))
    rare = {ord(c): None for c in sorted(count, key=lambda c: (-count[c], c))[180:]}
    t.train_from_iterator([text.translate(rare) for text in texts], trainer)
    spec = json.loads(t.to_str())
    vocab = spec["model"]["vocab"]
    # SentencePiece orders its vocabulary by score, the single runes last.
    names = sorted(vocab, key=vocab.get)
    order = reserved + [n for n in names[len(reserved) :] if len(n) > 1] + ["▁▁", "▁▁▁▁"] + [n for n in names[len(reserved) :] if len(n) == 1]
    vocab = {n: i for i, n in enumerate(dict.fromkeys(order))}
    merges = []
    for name, i in vocab.items():
        if i >= len(reserved):
            merges += [[name[:k], name[k:]] for k in range(1, len(name)) if name[:k] in vocab and name[k:] in vocab]
    spec["model"]["vocab"], spec["model"]["merges"] = vocab, [" ".join(m) for m in merges]
    spec["added_tokens"] = [token(i, n) for i, n in enumerate(reserved[:3])]
    spec["pre_tokenizer"] = None
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
    }
    spec["decoder"] = {
        "type": "Sequence",
        "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
    }
    spec["post_processor"] = template("<s>", 1)
    return spec


def template(content, id, end=None, end_id=None):
    single = [{"SpecialToken": {"id": content, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {content: {"id": content, "ids": [id], "tokens": [content]}}
    if end:
        single.append({"SpecialToken": {"id": end, "type_id": 0}})
        special[end] = {"id": end, "ids": [end_id], "tokens": [end]}
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special}


def families():
    """(name, tokenizer.json) pairs; and for variants (name, base, changed fields)."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    smollm = train_byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]), 1400)
    for name in ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]:
        add(smollm, name)

    split = lambda rx: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(rx), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    llama3 = train_byte_level(split(LLAMA3), 1400)
    llama3["model"]["ignore_merges"] = True
    vocab = llama3["model"]["vocab"]
    for whole in ["Ġattention", "Ġwhatever", "Ċ" * 6, "123", "Ġä¸Ńæĸĩ", "ing"]:
        vocab.setdefault(whole, len(vocab))
    bos = add(llama3, "<|begin_of_text|>")
    for name in ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]:
        add(llama3, name)
    add(llama3, "<mask>", lstrip=True)
    add(llama3, "<|user|>", special=False, rstrip=True)
    add(llama3, "wordy", special=False, single_word=True)
    llama3["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}, template("<|begin_of_text|>", bos)]}

    qwen2 = train_byte_level(split(QWEN2), 1400)
    qwen2["normalizer"] = {"type": "NFC"}
    for name in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]:
        add(qwen2, name)
    for name in ["<tool_call>", "</tool_call>", "<think>"]:
        add(qwen2, name, special=False)

    spm = train_sentence_piece(1500)

    gappy = copy.deepcopy(smollm["model"])
    for missing in ["Ą", "Ć", "Ē", "Ĕ", "ð", "Ł"]:
        b = gappy["vocab"].pop(missing)
        gappy["vocab"]["gap%d" % b] = b
    lost = lambda m: any(c in "".join(m) for c in "ĄĆĒĔðŁ")
    gappy["merges"] = [m for m in gappy["merges"] if not lost(m)]
    fused = dict(copy.deepcopy(gappy), unk_token="gap%d" % smollm["model"]["vocab"]["Ą"], fuse_unk=True)

    llama_meta = lambda scheme, split: {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}}
    base = {"smollm": smollm, "llama3": llama3, "qwen2": qwen2, "spm": spm}
    variants = [
        ("gpt2", "smollm", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}),
        ("gappy", "smollm", {"model": gappy}),
        ("fused", "smollm", {"model": fused}),
        ("spm-first", "spm", dict(llama_meta("first", False), post_processor=template("<s>", 1, "</s>", 2))),
        ("spm-split", "spm", llama_meta("always", True)),
        ("qwen2-added", "qwen2", {"added_tokens": qwen2["added_tokens"] + [token(max(t["id"] for t in qwen2["added_tokens"]) + 1, "A\u030ang", False, normalized=True)]}),
        ("spm-added", "spm", {"added_tokens": spm["added_tokens"][:1] + [token(1, "<s>", normalized=True), token(2, "</s>", rstrip=True), token(len(spm["model"]["vocab"]), "[INST]", False, lstrip=True)]}),
    ]
    return base, variants


def fnv(data):
    h = 0x811C9DC5
    for b in data:
        h = (h ^ b) * 0x01000193 & 0xFFFFFFFF
    return h


def pack(ids):
    return b"".join(struct.pack("<I", i) for i in ids) + b"\xff\xff\xff\xff"


def golden(t, texts, decode=True):
    out = []
    for text in texts:
        t.encode_special_tokens = False
        special = t.encode(text, add_special_tokens=True).ids
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        h = pack(special) + pack(plain)
        if decode:
            h += t.decode(special, skip_special_tokens=False).encode() + b"\xff" + t.decode(special, skip_special_tokens=True).encode()
        out.append(fnv(h))
    return struct.pack("<%dI" % len(out), *out)


def nfc_hash():
    """SHA-256 of what NFC makes of every code point in the company of others."""
    points = [c for c in range(0x20000) if not 0xD800 <= c < 0xE000] + list(range(0x2F800, 0x2FA20)) + list(range(0xE0000, 0xE0200))
    nfc, h = normalizers.NFC(), hashlib.sha256()
    for before, after in [("", ""), ("a\u0345", ""), ("a", "\u0334"), ("a\u0301", "\u0316"), ("\u1100", "\u11a8"), ("", "\u0338"), ("\U00011935", "\u0300")]:
        h.update(nfc.normalize_str("".join(before + chr(c) + after + "\n" for c in points)).encode())
    return h.hexdigest()


def smollm2(path):
    """SmolLM2's tokenizer from its GGUF file."""
    import gguf

    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields["tokenizer.ggml." + key].contents()
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [token(i, t) for i, (t, kind) in enumerate(zip(get("tokens"), get("token_type"))) if kind == 3],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": {t: i for i, t in enumerate(get("tokens"))}, "merges": get("merges")},
    }
    return Tokenizer.from_str(json.dumps(spec))


def write(name, data, compress=False):
    if compress:
        data = gzip.compress(data, 9, mtime=0)
    with open(name if os.path.isabs(name) else os.path.join(HERE, name), "wb") as f:
        f.write(data)


def dump(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf")
    parser.add_argument("--json")
    args = parser.parse_args()
    texts = corpus(7, 3100)
    if args.gguf:
        return write("smollm2.golden", golden(smollm2(args.gguf), texts))
    if args.json:
        path = os.path.abspath(args.json)
        return write(os.path.join(path, "golden"), golden(Tokenizer.from_file(os.path.join(path, "tokenizer.json")), texts))
    write("corpus.json.gz", dump(texts), True)
    write("nfc.sha256", nfc_hash().encode())
    base, variants = families()
    for name, spec in base.items():
        write(name + ".json.gz", dump(spec), True)
        write(name + ".golden", golden(Tokenizer.from_str(json.dumps(spec)), texts))
    write("variants.json.gz", dump([{"name": n, "base": b, "fields": f} for n, b, f in variants]), True)
    for name, b, fields in variants:
        write(name + ".golden", golden(Tokenizer.from_str(json.dumps(dict(base[b], **fields))), texts, not name.endswith("-added")))


if __name__ == "__main__":
    main()
