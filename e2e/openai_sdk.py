"""Holds a conversation over a long document with the official openai SDK. Prints OK when all is as it should be.

usage: openai_sdk.py BASE_URL DOCUMENT
"""
import sys

import openai

base, document = sys.argv[1], open(sys.argv[2], encoding="utf8").read()
client = openai.OpenAI(base_url=base + "/v1", api_key="unused", max_retries=0)

models = client.models.list().data
name = models[0].id
assert {m.id for m in models} >= {name, f"{name}:dense", f"{name}:moa-25"}, [m.id for m in models]
assert client.models.retrieve(f"{name}:dense").id == f"{name}:dense"


def ask(messages, model=name, **kw):
    """One streamed answer: its text, finish reason and usage."""
    text, reason, usage = "", None, None
    stream = client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}, temperature=0, max_tokens=24, **kw)
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk" and chunk.id.startswith("chatcmpl-")
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason, usage


messages = [{"role": "user", "content": document + "\n\nWhat is this text about?"}]
answer, reason, usage = ask(messages)
assert answer and reason in ("stop", "length"), (answer, reason)
assert usage.prompt_tokens > 1000 and usage.completion_tokens <= 24 and usage.prompt_tokens_details.cached_tokens >= 0, usage

# The follow-up, and the same without streaming: the same tokens.
messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Say it in one word."}]
second, reason, usage = ask(messages)
whole = client.chat.completions.create(model=name, messages=messages, temperature=0, max_tokens=24)
assert whole.choices[0].message.content == second, (whole.choices[0].message.content, second)
assert whole.choices[0].message.role == "assistant" and whole.usage.prompt_tokens == usage.prompt_tokens

# Two choices with a seed, log-probabilities, a stop string.
two = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "Count from one to ten."}], n=2, seed=7,
                                     temperature=1, max_tokens=12, logprobs=True, top_logprobs=3)
assert [c.index for c in two.choices] == [0, 1]
for c in two.choices:
    assert len(c.logprobs.content) >= 1 and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in c.logprobs.content)
again = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "Count from one to ten."}], n=2, seed=7,
                                       temperature=1, max_tokens=12)
assert [c.message.content for c in again.choices] == [c.message.content for c in two.choices]

text = client.completions.create(model=f"{name}:dense", prompt="One, two, three, four,", temperature=0, max_tokens=16, stop=["seven"])
assert "seven" not in text.choices[0].text and text.usage.completion_tokens <= 16

try:
    client.chat.completions.create(model=name, messages=[{"role": "user", "content": "word " * 9000}])
    raise SystemExit("an over-long prompt was accepted")
except openai.BadRequestError as e:
    assert e.code == "context_length_exceeded" and e.param == "messages", e
try:
    client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "hi"}])
    raise SystemExit("an unknown model was accepted")
except openai.NotFoundError as e:
    assert e.code == "model_not_found", e
print("OK")
