package gateway

import (
	"strconv"
	"unicode/utf8"

	"github.com/moaserve/moaserve/runtime"
)

// shape is one of OpenAI's two response families.
type shape struct {
	chat        bool
	object      string // of a whole response
	chunkObject string // of a chunk of a stream
	idPrefix    string
}

var (
	shapeChat       = &shape{chat: true, object: "chat.completion", chunkObject: "chat.completion.chunk", idPrefix: "chatcmpl-"}
	shapeCompletion = &shape{object: "text_completion", chunkObject: "text_completion", idPrefix: "cmpl-"}
)

// envelope is what all parts of one response share.
type envelope struct {
	shape   *shape
	id      string
	created int64 // Unix seconds
	model   string
}

// appendHead appends the members before choices, without the closing brace.
func (e *envelope) appendHead(b []byte, object string) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, e.id)
	b = append(b, `,"object":"`...)
	b = append(b, object...)
	b = append(b, `","created":`...)
	b = strconv.AppendInt(b, e.created, 10)
	b = append(b, `,"model":`...)
	return appendString(b, e.model)
}

// usage counts the tokens of a response: each prompt once, all its choices.
type usage struct {
	prompt, cached, completion int
}

func (u *usage) appendJSON(b []byte) []byte {
	b = append(b, `{"prompt_tokens":`...)
	b = appendInt(b, u.prompt)
	b = append(b, `,"completion_tokens":`...)
	b = appendInt(b, u.completion)
	b = append(b, `,"total_tokens":`...)
	b = appendInt(b, u.prompt+u.completion)
	b = append(b, `,"prompt_tokens_details":{"cached_tokens":`...)
	b = appendInt(b, u.cached)
	return append(b, `}}`...)
}

// choice is one answer of a response that is not streamed.
type choice struct {
	text     []byte
	logprobs *logprobs // nil when not asked for
	reason   runtime.Reason
}

// appendResponse appends a whole response.
func (e *envelope) appendResponse(b []byte, choices []choice, u *usage) []byte {
	b = e.appendHead(b, e.shape.object)
	b = append(b, `,"choices":[`...)
	for i := range choices {
		c := &choices[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"index":`...)
		b = appendInt(b, i)
		if e.shape.chat {
			b = append(b, `,"message":{"role":"assistant","content":`...)
			b = appendString(b, string(c.text))
			b = append(b, `,"refusal":null}`...)
		} else {
			b = append(b, `,"text":`...)
			b = appendString(b, string(c.text))
		}
		b = append(b, `,"logprobs":`...)
		b = c.logprobs.appendJSON(b)
		b = append(b, `,"finish_reason":"`...)
		b = append(b, c.reason...)
		b = append(b, `"}`...)
	}
	b = append(b, `],"usage":`...)
	b = u.appendJSON(b)
	return append(b, '}')
}

// chunks writes the server-sent events of one stream. What does not change from
// one event to the next is made once.
type chunks struct {
	head []byte // up to and including "index":
	tail []byte // after the choice
	base []byte // up to the model, for the usage chunk
	chat bool
}

// newChunks returns the encoder of a stream. With includeUsage every chunk has a
// usage member, null in all but the last.
func newChunks(e *envelope, includeUsage bool) *chunks {
	c := &chunks{chat: e.shape.chat}
	c.base = e.appendHead([]byte("data: "), e.shape.chunkObject)
	c.head = append(append(c.head, c.base...), `,"choices":[{"index":`...)
	c.tail = append(c.tail, "}]"...)
	if includeUsage {
		c.tail = append(c.tail, `,"usage":null`...)
	}
	c.tail = append(c.tail, "}\n\n"...)
	return c
}

// role appends the first chunk of a chat choice.
func (c *chunks) role(b []byte, index int) []byte {
	b = append(b, c.head...)
	b = appendInt(b, index)
	b = append(b, `,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null`...)
	return append(b, c.tail...)
}

// text appends a chunk with a piece of the answer.
func (c *chunks) text(b []byte, index int, text string, lp *logprobs) []byte {
	b = append(b, c.head...)
	b = appendInt(b, index)
	if c.chat {
		b = append(b, `,"delta":{"content":`...)
		b = appendString(b, text)
		b = append(b, '}')
	} else {
		b = append(b, `,"text":`...)
		b = appendString(b, text)
	}
	b = append(b, `,"logprobs":`...)
	b = lp.appendJSON(b)
	b = append(b, `,"finish_reason":null`...)
	return append(b, c.tail...)
}

// empty appends what a chunk without text has between index and finish_reason.
func (c *chunks) empty(b []byte) []byte {
	if c.chat {
		return append(b, `,"delta":{},"logprobs":null`...)
	}
	return append(b, `,"text":"","logprobs":null`...)
}

// finish appends the last chunk of a choice.
func (c *chunks) finish(b []byte, index int, reason runtime.Reason) []byte {
	b = append(b, c.head...)
	b = appendInt(b, index)
	b = c.empty(b)
	b = append(b, `,"finish_reason":"`...)
	b = append(b, reason...)
	b = append(b, '"')
	return append(b, c.tail...)
}

// progress is how far the prefill is, as llama.cpp's server reports it.
type progress struct {
	total, cached, processed int // prompt tokens
	millis                   int64
}

func (p *progress) appendJSON(b []byte) []byte {
	b = append(b, `{"total":`...)
	b = appendInt(b, p.total)
	b = append(b, `,"cache":`...)
	b = appendInt(b, p.cached)
	b = append(b, `,"processed":`...)
	b = appendInt(b, p.processed)
	b = append(b, `,"time_ms":`...)
	b = strconv.AppendInt(b, p.millis, 10)
	return append(b, '}')
}

// progressChunk appends a chunk that carries prompt_progress and an empty delta:
// clients that take choices[0] unasked do not fall over it.
func (c *chunks) progressChunk(b []byte, index int, p *progress) []byte {
	b = append(b, c.head...)
	b = appendInt(b, index)
	b = c.empty(b)
	b = append(b, `,"finish_reason":null}],"prompt_progress":`...)
	b = p.appendJSON(b)
	return append(b, c.tail[len("}]"):]...)
}

// usage appends the chunk that closes a stream with include_usage.
func (c *chunks) usage(b []byte, u *usage) []byte {
	b = append(b, c.base...)
	b = append(b, `,"choices":[],"usage":`...)
	b = u.appendJSON(b)
	return append(b, "}\n\n"...)
}

// Parts of a stream that are not chunks. go-openai recognises an error frame
// only when nothing stands between the brace and "error".
const (
	ssePing = ": ping\n\n"
	sseDone = "data: [DONE]\n\n"
)

// appendErrorFrame appends the error that ends a stream.
func appendErrorFrame(b []byte, e *apiError) []byte {
	b = append(b, "data: "...)
	b = e.appendJSON(b)
	return append(b, "\n\n"...)
}

// logprobs gathers the log-probabilities of tokens in the form of one of the two
// families. A nil *logprobs is "not asked for".
type logprobs struct {
	chat   bool
	tokens []byte // chat: the elements of content; else of tokens
	values []byte
	tops   []byte
	places []byte
	offset int // characters of the text so far
}

// newLogprobs returns a gatherer whose text begins after offset characters.
func newLogprobs(chat bool, offset int) *logprobs { return &logprobs{chat: chat, offset: offset} }

// reset forgets the tokens but not the offset.
func (l *logprobs) reset() {
	l.tokens, l.values, l.tops, l.places = l.tokens[:0], l.values[:0], l.tops[:0], l.places[:0]
}

// add appends a token.
func (l *logprobs) add(t *runtime.Token) {
	if l.chat {
		l.tokens = appendComma(l.tokens)
		l.tokens = appendChatToken(l.tokens, t.Bytes, t.Logprob)
		l.tokens = append(l.tokens, `,"top_logprobs":[`...)
		for i := range t.Top {
			if i > 0 {
				l.tokens = append(l.tokens, ',')
			}
			l.tokens = appendChatToken(l.tokens, t.Top[i].Bytes, t.Top[i].Logprob)
			l.tokens = append(l.tokens, '}')
		}
		l.tokens = append(l.tokens, "]}"...)
		return
	}
	l.tokens = appendString(appendComma(l.tokens), tokenText(t.Bytes, "bytes:"))
	l.values = appendLogprob(appendComma(l.values), t.Logprob)
	l.tops = l.appendTop(appendComma(l.tops), t)
	l.places = appendInt(appendComma(l.places), l.offset)
	for _, c := range t.Bytes {
		if utf8.RuneStart(c) {
			l.offset++
		}
	}
}

// appendTop appends the map of alternatives. The sampled token is always among
// them, as at OpenAI. Tokens with the same text are one key: the likeliest's.
func (*logprobs) appendTop(b []byte, t *runtime.Token) []byte {
	seen := make(map[string]struct{}, len(t.Top)+1)
	b = append(b, '{')
	put := func(bytes []byte, logprob float32) {
		text := tokenText(bytes, "bytes:")
		if _, ok := seen[text]; ok {
			return
		}
		if len(seen) > 0 {
			b = append(b, ',')
		}
		seen[text] = struct{}{}
		b = appendString(b, text)
		b = append(b, ':')
		b = appendLogprob(b, logprob)
	}
	for i := range t.Top {
		put(t.Top[i].Bytes, t.Top[i].Logprob)
	}
	put(t.Bytes, t.Logprob)
	return append(b, '}')
}

// appendJSON appends the logprobs member's value.
func (l *logprobs) appendJSON(b []byte) []byte {
	if l == nil {
		return append(b, "null"...)
	}
	if l.chat {
		b = append(b, `{"content":[`...)
		b = append(b, l.tokens...)
		return append(b, `],"refusal":null}`...)
	}
	b = append(b, `{"tokens":[`...)
	b = append(b, l.tokens...)
	b = append(b, `],"token_logprobs":[`...)
	b = append(b, l.values...)
	b = append(b, `],"top_logprobs":[`...)
	b = append(b, l.tops...)
	b = append(b, `],"text_offset":[`...)
	b = append(b, l.places...)
	return append(b, "]}"...)
}

func appendComma(b []byte) []byte {
	if len(b) > 0 {
		b = append(b, ',')
	}
	return b
}

// appendChatToken appends a token object of the chat family, left open.
func appendChatToken(b, token []byte, logprob float32) []byte {
	b = append(b, `{"token":`...)
	b = appendString(b, tokenText(token, ""))
	b = append(b, `,"logprob":`...)
	b = appendLogprob(b, logprob)
	b = append(b, `,"bytes":[`...)
	for i, c := range token {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendInt(b, int(c))
	}
	return append(b, ']')
}

// tokenText spells a token. A part of a character is written as escaped bytes
// after a prefix, as OpenAI does.
func tokenText(token []byte, prefix string) string {
	if utf8.Valid(token) {
		return string(token)
	}
	b := []byte(prefix)
	for _, c := range token {
		b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
	}
	return string(b)
}
