// From logits to tokens.
#include "sample_draw.cuh"

// One thread block a row: logit biases, penalties and the mask; then the likeliest
// token, or a draw.
extern "C" __global__ void __launch_bounds__(1024) sample(float* logits, const SampleRow* params, int* tokens, Choice* choices, int64_t rows, int64_t vocab) {
  __shared__ Best bests[32];
  __shared__ float sums[32];
  __shared__ DrawScratch scratch;
  const int n = (int)vocab;
  const int64_t r = blockIdx.x;
  launchDependents();
  waitForPrevious();
  if (r >= rows) return;
  const SampleRow p = params[r];
  float* line = logits + r * vocab;
  Choice& choice = choices[r];
  const Mask mask{p.mask, p.maskWords};
  const bool adjusts = p.adjusted > 0 || p.pending;
  Best best, top, fresh;  // top: the likeliest of this thread's
  float hi = 0, sum = 0;
  // Log-probabilities are those of the logits as they came.
  if (p.logprobs) {
    best = likeliest(line, n, Mask{}, bests, top);
    hi = fminf(best.value, LARGEST);
    sum = logSum(line, n, hi, sums);
    if (p.logprobs > 1) rankTokens(line, n, min(p.logprobs - 1, TOP_LOGPROBS), top, hi, sum, scratch.ranks, scratch.found, choice.tops);
  }
  if (adjusts) fresh = adjust(line, n, p);
  if (adjusts || p.mask || !p.logprobs) best = likeliest(line, n, mask, bests, top);
  int token;
  if (best.value == -INFINITY) {
    token = anyToken(line, n, mask, scratch.found);
  } else if (!(p.temperature >= 1e-5f)) {
    token = best.id;
  } else {
    Candidates c{};
    c.hi = fminf(best.value, LARGEST);
    c.scale = __fdiv_rn(1.f, fminf(p.temperature, LARGEST));
    c.minP = fminf(p.minP, 1.f);
    c.power = (float)exp2((threadIdx.x & 31) / 32.0);
    c.take(line, nullptr, n, mask);
    if (p.topK > 0 && p.topK < n) c.topK(scratch, p.topK, top);
    if (p.topP > 0 && p.topP < 1) c.topP(scratch, p.topP);
    token = c.draw(scratch, p.uniform);
    if (token < 0) token = best.id;
  }
  if (adjusts) restore(line, n, p, fresh);
  if (threadIdx.x == 0) {
    tokens[r] = token;
    choice.id = token;
    if (p.logprobs) choice.logprob = logProbability(line[token], hi, sum);
  }
}
