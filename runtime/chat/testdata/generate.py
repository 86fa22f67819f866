"""Renders templates/*.jinja, and the templates of known.go, for a set of
conversations as transformers does and writes golden.json.gz:
{"inputs": [...], "cases": [[template, input, text or null]]}."""

import gzip
import json
import pathlib
import re
import sys

here = pathlib.Path(__file__).parent
sys.path.insert(0, str(here.parent / "jinja" / "testdata"))

import reference  # noqa: E402


def function(name, description, properties, required=()):
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = function(
    "get_weather",
    "The weather at a place, \"now\" or later.",
    {
        "place": {"type": "string", "description": "City & country, e.g. <Zürich>"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": "integer", "minimum": 0, "description": "Days from now"},
    },
    ["place"],
)
SEARCH = function(
    "search",
    "Finds documents.",
    {
        "query": {"type": "object", "properties": {"text": {"type": "string"}, "exact": {"type": ["boolean", "null"]}}},
        "limit": {"type": "number", "exclusiveMaximum": 1e2},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Tags"},
    },
)
CLOCK = function("clock", "Tells the time.", {})


def call(id, name, **arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def tool(content, id="abcdefghi", **more):
    return {"role": "tool", "content": content, "tool_call_id": id, **more}


TURNS = [
    user("What's the weather in Zürich?"),
    assistant(None, tool_calls=[call("abcdefghi", "get_weather", place="Zürich", days=0)]),
    tool('{"temperature": 21.5, "sky": "klar"}'),
    assistant("It is 21.5 °C and clear."),
    user("Thanks! And the time?"),
]

INPUTS = [
    {"messages": [user("Hello!")]},
    {"messages": [user("Hello!")], "add_generation_prompt": False},
    {"messages": [system("You are terse."), user("Hi"), assistant("Hello."), user("Why?")]},
    {"messages": [system("  Padded.\n\n"), user("  spaces \n"), assistant("\n answer \n"), user("\tmore\t")]},
    {"messages": []},
    {"messages": [user("")], "kwargs": {"enable_thinking": False}},
    {"messages": [user("naïve café ☕ 漢字 👩‍👩‍👧 <b>&amp;</b> 'q' \"d\" \\ \x01 \u2028 end.")]},
    {"messages": [user("line 1\nline 2\r\nline 3\n\n"), assistant("{% raw %} {{ not_a_tag }} {# no #}"), user("ok?")]},
    {"messages": [user("Hi"), assistant("<think>\nHm, \"think\".\n</think>\n\nHello there."), user("And?")]},
    {
        "messages": [user("Hi"), assistant("Answer.", reasoning_content="\nReasons, two of them.\n"), user("Go on"), assistant("Done.", reasoning_content="More.")],
        "add_generation_prompt": False,
    },
    {"messages": TURNS[:1], "tools": [WEATHER]},
    {"messages": [system("Use tools."), *TURNS], "tools": [WEATHER, SEARCH, CLOCK]},
    {"messages": TURNS[:3], "tools": [WEATHER, CLOCK], "kwargs": {"enable_thinking": True, "reasoning_effort": "HIGH"}},
    {
        "messages": [
            user("Both, please."),
            assistant("Calling.", tool_calls=[call("aaaaaaaaa", "clock"), call("bbbbbbbbb", "search", query={"text": "it's 5 < 6", "exact": None}, limit=1.0, tags=["a", "b"])]),
            tool("12:05", "aaaaaaaaa", name="clock"),
            tool("[]", "bbbbbbbbb", name="search"),
        ],
        "tools": [CLOCK, SEARCH],
    },
    {
        "messages": [
            user([{"type": "text", "text": "What is this? "}, {"type": "image_url", "image_url": {"url": "data:,x"}}, {"type": "text", "text": "Tell me."}]),
            assistant([{"type": "text", "text": "A cat."}]),
            user([{"type": "text", "text": "Sure?"}]),
        ],
        "kwargs": {"add_vision_id": True},
    },
    {"messages": [user("one"), user("two"), assistant("three"), system("late system")]},
    {
        "messages": [user("Sum up.", name="ann")],
        "kwargs": {
            "documents": [{"title": "T1", "text": "Text of the first document, which is long."}, {"text": "short", "id": 7}],
            "thinking_budget": 1000,
            "controls": {"length": "short", "originality": None},
        },
    },
    {"messages": [{"role": "developer", "content": "Be exact."}, user("2+2?"), assistant("4"), user("Big: 12345678901234567890, 1e5")], "kwargs": {"thinking_budget": 0, "date_string": "1 Jan 2025"}},
]


def templates():
    """Yields names and sources."""
    go = (here.parent / "known.go").read_text(encoding="utf-8")
    text_of = re.search(r"const textOf = `([^`]*)`", go)[1]
    for name, body in re.findall(r"(\w+) = textOf \+ `([^`]*)`", go):
        yield name.lower(), text_of + body
    for path in sorted((here / "templates").glob("*.jinja")):
        yield path.name, path.read_bytes().decode("utf-8")


def main():
    env = reference.environment()
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    cases = []
    for name, source in templates():
        for i, given in enumerate(INPUTS):
            variables = {
                "messages": given["messages"],
                "tools": given.get("tools"),
                "documents": None,
                "add_generation_prompt": given.get("add_generation_prompt", True),
                **special,
                **given.get("kwargs", {}),
            }
            cases.append([name, i, reference.render(env, source, variables)])
    data = json.dumps({"inputs": INPUTS, "cases": cases}, ensure_ascii=False).encode("utf-8")
    with open(here / "golden.json.gz", "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as z:
        z.write(data)
    print(len(cases), "cases,", sum(c[2] is None for c in cases), "refused")


if __name__ == "__main__":
    main()
