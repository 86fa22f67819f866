// Package measure is how moaserve bench measures: the speed of prefill and decode of an
// engine, and how a long prompt and a stream that decodes disturb each other. Everything
// goes through the engine or a server as requests do, so that scheduling, sampling and
// detokenisation are part of every figure. Prompts are random and each is new, so that no
// prefix cache knows it.
//
// # Points
//
// A [Point] is a plan, a depth (the mean length of the prompts) and a number of streams.
// A [Meter] measures it in two parts.
//
// First all prompts are read, with nothing else running. The prefill speed counts all
// their tokens, from the first request to the last first token. The time to the first
// token is a stream's own, from its request on, so it includes waiting for the others.
//
// Then all streams decode, going on from the KV pages that the first part left. Nothing
// counts until every stream has made a token and then eight more, because the first steps
// of a shape are tuned and recorded. From there on the tokens of all streams count, until
// each has made as many as there are steps to measure. The gaps are those between the
// tokens of a stream. A run in which the engine had to take back a stream's pages is an
// error: its streams did not all decode at a time.
//
// # Traffic
//
// A decode step reads the weights once, a row of the embedding for each stream, and the
// KV pages that the plan makes visible from each stream's last token. These bytes are
// counted exactly and page by page, a page whole, from the plan and the lengths, not by
// the device. Divided by the time they are the bandwidth reached, which is held against
// a bound: a given one, or a plain read of the device's memory. The remaining distance is
// the step's arithmetic, launches and sampling, and the host. Only what caches hold of
// the bytes can take the bandwidth over the bound.
//
// # Gaps
//
// [EngineGaps] and [ServerGaps] read a long prompt alone, start a stream, wait for enough
// gaps between its tokens and read another long prompt beside it. A gap counts as alone
// when it ends before the second prompt is asked for, the first eight of the stream aside;
// it counts as beside when some part of it lies between the request and the prompt's
// first token. [ServerGaps] does so over HTTP, with any server of the OpenAI API.
//
// # Runs
//
// Where a rehearsal is asked for it comes first and does not count: a point's prompts, or
// as many of them as show every kind of step, are read once; the gaps are measured once.
// Of several runs of a point the one of median decode speed is returned. The gaps of
// several runs are taken together, and the times of the long prompts are their medians.
//
// Errors advise in terms of the command's flags.
package measure
