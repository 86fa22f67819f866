// The choice of tokens against float64 and sorting on the CPU.
#pragma once
#include <map>
#include <set>

#include "harness.cuh"

// Rows of logits with how their tokens are chosen, and what the kernels answer.
struct Choices {
  int rows, vocab;
  std::vector<float> logits;
  std::vector<SampleRow> params;
  std::vector<int> tokens;
  std::vector<Choice> choices;
  bool same;  // the logits are what they were, and the tokens in both places alike

  Choices(int rows, int vocab) : rows(rows), vocab(vocab), logits((size_t)rows * vocab), params(rows) {}
  float* line(int r) { return &logits[(size_t)r * vocab]; }
  std::vector<float> row(int r) { return {line(r), line(r) + vocab}; }
  void choose() {
    Buffer<float> d(logits);
    Buffer<SampleRow> dp(params);
    Buffer<int> t(rows);
    Buffer<Choice> c(rows);
    launch(sample, rows, 1024, 0, 0, false, d.p, dp.p, t.p, c.p, rows, vocab);
    tokens = t.get();
    choices = c.get();
    same = memcmp(d.get().data(), logits.data(), logits.size() * 4) == 0;
    for (int r = 0; r < rows; ++r) same = same && choices[r].id == tokens[r];
  }
};

// Token ids, likeliest first, the lowest first among equals; those above -Inf alone.
static std::vector<int> ranking(const std::vector<float>& x) {
  std::vector<int> ids;
  for (int i = 0; i < (int)x.size(); ++i)
    if (x[i] > -INFINITY) ids.push_back(i);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return x[a] > x[b]; });
  return ids;
}

// Log-probabilities of a row, in float64.
struct Logprobs {
  double hi = -INFINITY, sum = 0;
  explicit Logprobs(const std::vector<float>& x) {
    for (float v : x) if (v > hi) hi = std::min<double>(v, LARGEST);
    for (float v : x) if (v == v) sum += exp(std::min(v - hi, 0.0));
  }
  // Sums of 128k exponentials in float32, 1e-6 relative each, and roundings of numbers
  // below 64: 1e-5 is far above.
  bool near(float got, float x) const {
    double want = std::min<double>(x, LARGEST) - hi - log(sum);
    want = want > -9999 ? std::min(want, 0.0) : -9999;
    return fabs(got - want) < 1e-5 * (1 + fabs(want));
  }
};

static void checkGreedy() {
  Choices c(6, 128256);
  for (size_t i = 0; i < c.logits.size(); ++i) c.logits[i] = gauss(i) * 3;
  c.line(0)[777] = c.line(0)[99999] = 30;  // a tie
  c.line(1)[128255] = 40;                  // the last id
  c.line(2)[5] = NAN;                      // counts as -Inf
  for (int r : {3, 4})
    for (int i = 0; i < c.vocab; ++i) c.line(r)[i] = -INFINITY;
  c.line(3)[4242] = -5;
  c.line(5)[99] = INFINITY;
  for (auto& p : c.params) p.logprobs = 1;
  c.params[2].logprobs = 0;
  c.choose();
  bool ok = c.same;
  for (int r = 0; r < c.rows; ++r) {
    const auto x = c.row(r);
    const auto ids = ranking(x);
    const int want = ids.empty() ? 0 : ids[0];
    const float got = c.choices[r].logprob;
    ok = ok && c.tokens[r] == want && (c.params[r].logprobs ? Logprobs(x).near(got, x[want]) : got != got);
  }
  report(ok, "sample greedy");
}

// The reference sorts: top_k by logit, then weights, min_p, top_p by weight, lowest
// ids first among equals, and a draw in the order of ids. -1 without any token.
static int drawn(const std::vector<float>& x, const SampleRow& p) {
  const int n = (int)x.size();
  auto ids = ranking(x);
  if (ids.empty()) return -1;
  if (p.temperature < 1e-5f) return ids[0];
  if (p.topK > 0 && p.topK < (int)ids.size()) ids.resize(p.topK);
  std::vector<double> w(n, 0.0);
  double total = 0;
  for (int i : ids) {
    const double e = exp(((double)x[i] - x[ids[0]]) / p.temperature);
    w[i] = e < p.minP || e < exp(-87.0) ? 0 : e;
    total += w[i];
  }
  if (p.topP > 0 && p.topP < 1) {
    double sum = 0, kept = 0;
    const double need = p.topP * total;
    for (int i : ids) {
      if (sum >= need) w[i] = 0;
      sum += w[i];
      kept += w[i];
    }
    total = kept;
  }
  double sum = 0;
  int last = 0;
  for (int i = 0; i < n; ++i)
    if (w[i] > 0) {
      last = i;
      if ((sum += w[i]) > p.uniform * total) break;
    }
  return last;
}

static SampleRow drawing(float temperature, float topP, float minP, int topK) {
  SampleRow p{};
  p.temperature = temperature;
  p.topP = topP;
  p.minP = minP;
  p.topK = topK;
  return p;
}

static void checkDraw(int vocab) {
  const SampleRow kinds[] = {drawing(0, 0, 0, 0), drawing(1, 1, 0, 0), drawing(0.7f, 0.9f, 0, 0), drawing(1, 0, 0, 40), drawing(1.3f, 0.95f, 0, 50),
                             drawing(1, 0, 0.05f, 0), drawing(2, 0.5f, 0.01f, 1000), drawing(1, 0.99f, 0, 1), drawing(0.8f, 0.95f, 0, 300),
                             drawing(100, 0.999f, 0, 0), drawing(1, 1e-6f, 0, 0), drawing(1, 0.3f, 0, 1 << 30)};
  const int each = 12;
  Choices c((int)(sizeof kinds / sizeof *kinds) * each, vocab);
  for (int r = 0; r < c.rows; ++r) {
    SampleRow& p = c.params[r] = kinds[r / each];
    p.uniform = r % each == 0 ? 0 : r % each == 1 ? 1 - 1e-12 : hash32(r) / 4294967296.0;
    p.logprobs = r % 3;
    for (int i = 0; i < vocab; ++i) {
      float v = gauss((uint64_t)r * vocab + i) * 3;
      if (r % each == 2) v = roundf(v);                 // many ties, of both zeros too
      if (r % each == 3 && i % 3) v = -INFINITY;        // masked
      if (r % each == 4) v = 1.5f;                      // all equal
      if (r % each == 5 && i == vocab / 2) v = NAN;     // never drawn
      if (r % each == 6 && i != 7 % vocab) v = -INFINITY;  // one token
      c.line(r)[i] = v;
    }
  }
  c.choose();
  int wrong = 0;
  for (int r = 0; r < c.rows; ++r) {
    const auto x = c.row(r);
    const int want = drawn(x, c.params[r]);
    const bool ok = c.tokens[r] == want && (!c.params[r].logprobs || Logprobs(x).near(c.choices[r].logprob, x[want]));
    if (!ok && wrong++ < 5) printf("     row %d (kind %d, case %d): token %d, want %d, logprob %g\n", r, r / each, r % each, c.tokens[r], want, c.choices[r].logprob);
  }
  report(!wrong && c.same, format("sample vocabulary=%d: %d of %d rows wrong", vocab, wrong, c.rows));
}

// Alternatives are sorted out of any heap of ties, and of rows where they are all with
// one of the 1024 threads, or with twenty.
static void checkTops(int vocab) {
  const int ks[] = {1, 5, 20}, cases = 8;
  Choices c(3 * cases, vocab);
  for (int r = 0; r < c.rows; ++r) {
    c.params[r].logprobs = 1 + ks[r / cases];
    for (int i = 0; i < vocab; ++i) {
      float v = gauss((uint64_t)r * vocab + i) * 3;
      switch (r % cases) {
        case 1: v = roundf(v); break;
        case 2: v = 2; break;
        case 3: if (i != 3 % vocab && i != 36 % vocab) v = -INFINITY; break;
        case 4: v = NAN; break;
        case 5: if (i % 1024 == 17) v += 100; break;
        case 6: if (i % 1024 < 20) v += 100 + i / 1024; break;
        case 7: if (i % 50 == 1) v = INFINITY; break;
      }
      c.line(r)[i] = v;
    }
  }
  c.choose();
  int wrong = 0;
  for (int r = 0; r < c.rows; ++r) {
    const auto x = c.row(r);
    const auto ids = ranking(x);
    const Logprobs logprobs(x);
    bool ok = c.tokens[r] == (ids.empty() ? 0 : ids[0]);
    for (int i = 0; i < TOP_LOGPROBS; ++i) {
      const TopLogprob top = c.choices[r].tops[i];
      ok = ok && (i < ks[r / cases] && i < (int)ids.size() ? top.id == ids[i] && logprobs.near(top.logprob, x[ids[i]]) : top.id == -1);
    }
    if (!ok && wrong++ < 5) printf("     row %d (%d alternatives, case %d)\n", r, ks[r / cases], r % cases);
  }
  report(!wrong && c.same, format("sample vocabulary=%d, alternatives: %d of %d rows wrong", vocab, wrong, c.rows));
}

// Biases, penalties, tokens held back, masks, and a token that is not counted yet.
static void checkAdjustments(int vocab, int entries) {
  const int rows = 96, words = (vocab + 31) / 32;
  Choices c(rows, vocab);
  std::vector<Adjustment> list((size_t)rows * entries);
  std::vector<uint32_t> masks((size_t)rows * words);
  std::vector<int> pending(rows);
  Buffer<Adjustment> dList(list.size());
  Buffer<uint32_t> dMasks(masks.size());
  Buffer<int> dPending(rows);
  std::vector<std::vector<float>> want(rows);
  std::vector<std::set<int>> held(rows);
  std::mt19937 rng(vocab);
  for (int r = 0; r < rows; ++r) {
    SampleRow& p = c.params[r] = r % 2 ? drawing(1, r % 3 ? 0.9f : 0, 0, r % 5 ? 0 : 40) : SampleRow{};
    p.uniform = hash32(r) / 4294967296.0;
    p.logprobs = r % 4 == 3 ? 4 : r % 4 == 2;
    p.repetition = r % 6 == 1 ? 0.7f : 1.3f;
    p.frequency = r % 3 * 0.45f - 0.3f;
    p.presence = r % 7 * 0.3f - 0.7f;
    for (int i = 0; i < vocab; ++i) c.line(r)[i] = r % 16 == 5 ? NAN : gauss((uint64_t)r * vocab + i) * 3;
    std::set<int> ids;
    while ((int)ids.size() < std::min(entries, vocab + 1)) ids.insert((int)(rng() % (vocab + 2)) - 1);  // some are outside
    std::map<int, Adjustment> by;
    for (int id : ids) {
      by[id] = {id, (int)(rng() % 5) - 2, r % 5 ? gauss(rng()) * 4 : 0.f};
      list[(size_t)r * entries + p.adjusted++] = by[id];
    }
    if (r % 8 == 7) p.adjusted = 0, by.clear();
    p.adjustments = dList.p + (size_t)r * entries;
    if (r % 3) {
      pending[r] = r % 3 == 1 || by.empty() ? (int)(rng() % vocab) : by.rbegin()->first;
      p.pending = dPending.p + r;
      if (pending[r] >= 0 && pending[r] < vocab) {
        auto& a = by.emplace(pending[r], Adjustment{pending[r], -1, 0}).first->second;
        if (a.count != HELD) a.count = std::max(a.count, 0) + 1;
      }
    }
    auto& x = want[r] = c.row(r);
    for (auto& [id, a] : by) {
      if (id < 0 || id >= vocab) continue;
      volatile float y = x[id] + a.bias, product = p.frequency * (float)a.count;
      if (a.count >= 0) y = y > 0 ? y / p.repetition : y * p.repetition;
      volatile float sum = product + p.presence;
      if (a.count > 0) y = y - sum;
      x[id] = a.count == HELD ? -INFINITY : y;
      if (a.count == HELD) held[r].insert(id);
    }
    if (r % 4 < 3 || r % 16 == 5) {
      p.mask = dMasks.p + (size_t)r * words;
      p.maskWords = r % 5 ? words : words - 1;
      for (int w = 0; w < words; ++w) masks[(size_t)r * words + w] = r % 9 == 8 ? 0 : rng() | (r % 2 ? rng() : 0);
      for (int i = 0; i < vocab; ++i)
        if (i / 32 >= p.maskWords || !(masks[(size_t)r * words + i / 32] >> i % 32 & 1)) x[i] = -INFINITY;
    }
  }
  dList.put(list);
  dMasks.put(masks);
  dPending.put(pending);
  c.choose();
  int wrong = 0;
  for (int r = 0; r < rows; ++r) {
    const SampleRow& p = c.params[r];
    int token = drawn(want[r], p), any = -1;
    for (int i = 0; i < vocab && token < 0; ++i) {
      if (p.mask && (i / 32 >= p.maskWords || !(masks[(size_t)r * words + i / 32] >> i % 32 & 1))) continue;
      if (any < 0) any = i;
      if (!held[r].count(i)) token = i;
    }
    if (token < 0) token = std::max(any, 0);
    const auto raw = c.row(r);
    bool ok = c.tokens[r] == token && (!p.logprobs || Logprobs(raw).near(c.choices[r].logprob, raw[token]));
    if (p.logprobs > 1) ok = ok && c.choices[r].tops[0].id == (ranking(raw).empty() ? -1 : ranking(raw)[0]);
    if (!ok && wrong++ < 5) printf("     row %d: token %d, want %d, logprob %g\n", r, c.tokens[r], token, c.choices[r].logprob);
  }
  report(!wrong && c.same, format("sample vocabulary=%d, %d adjustments: %d of %d rows wrong; logits restored: %d", vocab, entries, wrong, rows, c.same));
}

static void checkSampling() {
  checkGreedy();
  for (int vocab : {128256, 3000, 1000, 37}) checkDraw(vocab);
  for (int vocab : {262144, 128256, 5003, 25}) checkTops(vocab);
  checkAdjustments(128256, 3000);
  checkAdjustments(5003, 700);
  checkAdjustments(70, 40);
}
