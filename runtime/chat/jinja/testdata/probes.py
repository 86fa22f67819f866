"""Renders probes.txt with jinja2 and writes probes.json: [source, text or null]."""

import json
import pathlib

import reference

VARIABLES = {
    "user": {"name": "ann", "age": 31},
    "users": [
        {"name": "ann", "age": 31, "admin": True, "tags": ["x", "y"]},
        {"name": "bob", "age": 47, "admin": False, "tags": []},
        {"name": "Cy", "age": 5, "admin": True, "tags": ["z"]},
    ],
    "d": {"zeta": 26, "a": 1, "M": 13},
    "big": 12345678901234567890,
    "inf": float("inf"),
    "nan": float("nan"),
}

if __name__ == "__main__":
    here = pathlib.Path(__file__).parent
    env = reference.environment()
    cases = []
    for line in (here / "probes.txt").read_text(encoding="utf-8").split("\n"):
        if line and not line.startswith("# "):
            line = line.replace("⏎", "\n").replace("→", "\t")
            parts = [line]
            if line.startswith("{{ ") and line.endswith(" }}") and "{%" not in line:
                parts = ["{{ " + e + " }}" for e in line[3:-3].split(" }} {{ ")]
            cases += [[p, reference.render(env, p, VARIABLES)] for p in parts]
    with open(here / "probes.json", "w", encoding="utf-8") as f:
        # JSON has no infinity and NaN: the test sets those variables itself.
        plain = {k: v for k, v in VARIABLES.items() if k not in ("inf", "nan")}
        f.write('{"variables": ' + json.dumps(plain) + ',\n"probes": [\n')
        f.write(",\n".join(json.dumps(c, ensure_ascii=False) for c in cases))
        f.write("\n]}\n")
    print(len(cases), "probes,", sum(c[1] is None for c in cases), "refused")
