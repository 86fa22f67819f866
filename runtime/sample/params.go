// Package sample turns logits into tokens: the sampling parameters of the
// OpenAI API and of the servers around it, and the reference sampler that the
// CPU backend runs and the CUDA backend is tested against.
package sample

// Params are the sampling parameters of one request. The zero value is greedy.
type Params struct {
	Temperature       float32 // 0 is greedy; at most 2 is usual
	TopP              float32 // 0 and 1 mean off
	TopK              int     // 0 means off
	MinP              float32 // 0 means off
	PresencePenalty   float32 // -2..2, over generated tokens
	FrequencyPenalty  float32 // -2..2, over generated tokens
	RepetitionPenalty float32 // 0 and 1 mean off; over prompt and generated tokens
	LogitBias         map[int32]float32
	Seed              uint64
	// Logprobs asks for the log-probability of each sampled token, TopLogprobs
	// for that many of the likeliest alternatives (0..20). They are those of the
	// model's own distribution, before temperature and truncation.
	Logprobs    bool
	TopLogprobs int
	// MinTokens holds back every token in Stop until so many were generated.
	MinTokens int
	Stop      []int32
}

// Logprob is a token and its natural log-probability.
type Logprob struct {
	ID      int32
	Logprob float32
}

// Choice is the outcome of one sampling.
type Choice struct {
	ID      int32
	Logprob float32   // valid when Params.Logprobs
	Top     []Logprob // Params.TopLogprobs entries, likeliest first
}
