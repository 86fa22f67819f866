// What the device tests share: the kernels themselves, launch shapes as in
// ../shape.go, random data and the float64 reference of attention.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../decode.cu"
#include "../layer.cu"
#include "../plan.cu"
#include "../prefill.cu"
#include "../rope.cu"
#include "../sample.cu"

#define CK(x)                                                                                        \
  do {                                                                                               \
    cudaError_t e_ = (x);                                                                            \
    if (e_ != cudaSuccess) {                                                                         \
      printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(e_));                     \
      exit(2);                                                                                       \
    }                                                                                                \
  } while (0)

static int failures = 0;
static void report(bool ok, const std::string& what) {
  if (!ok) ++failures;
  printf("%s %s\n", ok ? "ok  " : "FAIL", what.c_str());
  fflush(stdout);
}
template <class... T>
static std::string format(const char* f, T... x) {
  char b[512];
  snprintf(b, sizeof b, f, x...);
  return b;
}

// Device memory, filled with 0xff so that what is never written reads as NaN.
template <class T>
struct Buffer {
  T* p = nullptr;
  size_t n = 0;
  Buffer() {}
  explicit Buffer(size_t n) { alloc(n); }
  explicit Buffer(const std::vector<T>& v) { alloc(v.size()); put(v); }
  Buffer(const Buffer&) = delete;
  ~Buffer() { if (p) cudaFree(p); }
  void alloc(size_t count) {
    if (p) CK(cudaFree(p));
    n = count;
    CK(cudaMalloc(&p, std::max<size_t>(n, 1) * sizeof(T)));
    CK(cudaMemset(p, 0xff, n * sizeof(T)));
  }
  void put(const std::vector<T>& v) { CK(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice)); }
  void zero() { CK(cudaMemset(p, 0, n * sizeof(T))); }
  void poison() { CK(cudaMemset(p, 0xff, n * sizeof(T))); }
  std::vector<T> get() const {
    std::vector<T> v(n);
    CK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
  }
};

static float toFloat(bf16 x) { return __bfloat162float(x); }
static bf16 toBf16(float x) { return __float2bfloat16(x); }
static std::vector<float> widen(const std::vector<bf16>& v) {
  std::vector<float> f(v.size());
  for (size_t i = 0; i < v.size(); ++i) f[i] = toFloat(v[i]);
  return f;
}

__host__ __device__ inline uint32_t hash32(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull; x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return (uint32_t)(x >> 32) ^ (uint32_t)x;
}
// Normal, unit variance; the sum of 4 uniforms.
__host__ __device__ inline float gauss(uint64_t i) {
  const uint32_t a = hash32(2 * i), b = hash32(2 * i + 1);
  return ((a & 0xffff) + (a >> 16) + (b & 0xffff) + (b >> 16)) * (1.7320508f / 65536.f) - 3.4641016f;
}
__global__ void fillGauss(bf16* d, size_t n, uint64_t seed, float scale) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
    d[i] = __float2bfloat16(gauss((seed << 40) + i) * scale);
}

static bool programmatic;  // the code loaded may be launched before its predecessor ends

// ---- launch shapes, as shape.go has them
struct Device {
  int sms, sharedPerSM, sharedPerBlock;
  bool hopper;
  Device() {
    cudaDeviceProp pr;
    CK(cudaGetDeviceProperties(&pr, 0));
    sms = pr.multiProcessorCount;
    sharedPerSM = (int)pr.sharedMemPerMultiprocessor;
    sharedPerBlock = (int)pr.sharedMemPerBlockOptin;
    cudaFuncAttributes at;
    CK(cudaFuncGetAttributes(&at, prefill_attention_128));
    hopper = programmatic = at.maxThreadsPerBlock >= 512;  // which code was loaded
    printf("# %s, %d multiprocessors, %s\n", pr.name, sms, hopper ? "sm_90a" : "sm_80 path");
  }
};
static int pageBytes(int hd, bool fp8 = false) { return fp8 ? pageBytesE4M3(storedHeadDim(hd)) : 2 * BLOCK * storedHeadDim(hd) * 2; }
static int decodeTile(int hd, bool fp8) { return BLOCK * storedHeadDim(hd) * (fp8 ? 1 : 2); }
static int byStored(int hd, int d64, int d128, int d256) { return storedHeadDim(hd) == 64 ? d64 : storedHeadDim(hd) == 128 ? d128 : d256; }
static int decodeRing(int hd, bool fp8) { return fp8 ? byStored(hd, 4, 3, 2) : 2; }
static int decodeFixed(int hd, bool fp8) { return 2 * 8 * 72 * 4 + decodeRing(hd, fp8) * (72 + 8 * (storedHeadDim(hd) * 2 + 16)); }
static int decodeStages(const Device& d, int hd, bool fp8 = false) {
  int stages = 2 * decodeRing(hd, fp8);
  while (stages > 2 && stages * decodeTile(hd, fp8) + decodeFixed(hd, fp8) > d.sharedPerBlock) stages -= 2;
  return stages;
}
static int decodeUsed(const Device& d, int hd, bool fp8) { return decodeStages(d, hd, fp8) * decodeTile(hd, fp8) + decodeFixed(hd, fp8); }
static int decodePerSM(const Device& d, int hd, bool fp8) {
  const int want = fp8 ? byStored(hd, 4, 3, 2) : byStored(hd, 3, 2, 1);
  return std::max(1, std::min(want, d.sharedPerSM / (decodeUsed(d, hd, fp8) + 1024)));
}
static int decodeShared(const Device& d, int hd, bool fp8 = false) {
  const int next = d.sharedPerSM / (decodePerSM(d, hd, fp8) + 1) / 128 * 128 - 1024 + 128;
  return std::min(std::max(decodeUsed(d, hd, fp8), next), d.sharedPerBlock);
}
static int decodeGrid(const Device& d, int hd, bool fp8 = false) { return std::min(d.sms * decodePerSM(d, hd, fp8), MAX_GRID); }
static size_t roundUp(size_t n, size_t to) { return (n + to - 1) / to * to; }
static size_t decodePlanBytes(int decodes, int kv) { return roundUp(64 + 64 * MAX_GRID + 16 * ((size_t)decodes * kv + 1), 256); }
static size_t decodeWorkspaceWords(const Device& d, int group, int hd, bool fp8 = false) {
  return roundUp((size_t)2 * decodeGrid(d, hd, fp8) * group * (storedHeadDim(hd) + 2) * 4, 256) / 4;
}

// A kernel that follows another of the step: programmatic dependent launch if pdl.
template <class... P, class... A>
static void launch(void (*kernel)(P...), dim3 grid, int threads, int shared, cudaStream_t stream, bool pdl, A... args) {
  if (shared > 48 * 1024) CK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  cudaLaunchAttribute at[1];
  at[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  at[0].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t c{};
  c.gridDim = grid;
  c.blockDim = threads;
  c.dynamicSmemBytes = shared;
  c.stream = stream;
  c.attrs = at;
  c.numAttrs = pdl && programmatic ? 1 : 0;
  CK(cudaLaunchKernelEx(&c, kernel, static_cast<P>(args)...));
}

// ---- a batch over paged keys and values
struct Cache {
  bool fp8 = false;  // pages in e4m3
  int layers, kv, group, hd, stored, heads, slots, maxBlocks;
  std::vector<Seq> seqs;
  int decodes = 0;
  std::vector<Rule> rules;  // several plans of `heads` rules
  std::vector<int> table;
  Buffer<char> pool;
  Buffer<int> dTable;
  Buffer<Seq> dSeqs;
  Buffer<Rule> dRules;
  Buffer<Header> dHeader;
  int pages = 0, rows = 0, tiles = 0, prefills = 0;
  int startBlock(const Seq& s, int head, int q) const { return spanStart(rules[s.rules + head], q, s.floor, s.total); }
};

// e4m3 from its definition: a sign, 4 bits of exponent, 3 of mantissa, no infinity, the
// last magnitude a NaN.
__host__ __device__ inline double decodeE4M3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 127) == 127) return NAN;
  const double x = exponent ? ldexp(8.0 + mantissa, exponent - 10) : ldexp((double)mantissa, -9);
  return code & 128 ? -x : x;
}
// The nearest code, the even one of two, saturated: by bisection among the 127
// magnitudes, which ascend with their codes.
__host__ __device__ inline uint8_t encodeE4M3(double x) {
  const uint8_t sign = signbit(x) ? 128 : 0;
  const double a = fabs(x);
  if (a != a) return 127 | sign;
  int lo = 0, hi = 126;
  while (lo < hi) {  // the last code not above a
    const int mid = (lo + hi + 1) / 2;
    if (decodeE4M3(mid) <= a) lo = mid; else hi = mid - 1;
  }
  if (lo < 126) {
    const double down = a - decodeE4M3(lo), up = decodeE4M3(lo + 1) - a;
    if (up < down || (up == down && lo % 2)) ++lo;
  }
  return lo | sign;
}
__host__ __device__ inline float* scalesOf(char* page, int stored) { return (float*)(page + 2 * tileBytesE4M3(stored)); }
// Element (token, d) of the keys (kv 0) or the values (1) of a page.
__host__ __device__ inline double element(const char* page, int kv, int token, int d, int stored, bool fp8) {
  if (fp8) return decodeE4M3(page[kv * tileBytesE4M3(stored) + offsetE4M3(token, d, stored)]) * scalesOf((char*)page, stored)[kv];
  return __bfloat162float(*(const bf16*)(page + kv * BLOCK * stored * 2 + tileOffset(token, d)));
}

// Pages of normal data; what lies past a page's tokens is large and finite. The scales
// of e4m3 pages are 1/16 to 1, and their keys fill the padding of the head dimension.
__global__ void fillPages(char* pool, const int* tokens, int pages, int stored, int hd, uint64_t seed, bool fp8) {
  const size_t per = (size_t)2 * BLOCK * stored;
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < pages * per; i += (size_t)gridDim.x * blockDim.x) {
    const int page = (int)(i / per), kv = (int)(i % per / (BLOCK * stored)), t = (int)(i % (BLOCK * stored) / stored), d = (int)(i % stored);
    float v = d >= hd && !(fp8 && kv == 0) ? 0.f : t < tokens[page] ? gauss((seed << 40) + i) : 1e4f;
    if (tokens[page] < 0) v = __int_as_float(0x7fc00000);
    if (fp8) {
      char* at = pool + (size_t)page * pageBytesE4M3(stored);
      const float scale = tokens[page] < 0 ? v : ldexpf(1, -(int)(hash32(2 * page + kv) % 5));
      if (t == 0 && d == 0) scalesOf(at, stored)[kv] = scale;
      at[kv * BLOCK * stored + offsetE4M3(t, d, stored)] = encodeE4M3(v / scale);
    } else {
      *(bf16*)(pool + (size_t)page * per * 2 + (size_t)kv * BLOCK * stored * 2 + tileOffset(t, d)) = __float2bfloat16(v);
    }
  }
}

// Gives every visible block of every sequence a page, in random order; all other
// entries of the table name page 0, which is NaN.
static void layOut(Cache& c, uint64_t seed) {
  c.heads = c.layers * c.kv;
  c.stored = storedHeadDim(c.hd);
  c.slots = 0;
  c.maxBlocks = 1;
  for (auto& s : c.seqs) {
    c.slots = std::max(c.slots, s.slot + 1);
    c.maxBlocks = std::max(c.maxBlocks, (s.start + s.len - 1) / BLOCK + 1);
  }
  std::vector<TableDelta> deltas;
  std::vector<int> tokens{-1};
  for (auto& s : c.seqs)
    for (int h = 0; h < c.heads; ++h) {
      const int q0 = s.start / BLOCK, q1 = (s.start + s.len - 1) / BLOCK, first = c.startBlock(s, h, q0);
      for (int b = 0; b <= q1; ++b)
        if (b == 0 || b >= first) {
          deltas.push_back({s.slot, h, b, (int)tokens.size()});
          tokens.push_back(std::min(BLOCK, s.start + s.len - b * BLOCK));
        }
    }
  c.pages = (int)tokens.size();
  std::mt19937 rng((uint32_t)seed);
  std::vector<int> ids(c.pages);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin() + 1, ids.end(), rng);
  std::vector<int> placed(c.pages);
  for (int i = 0; i < c.pages; ++i) placed[ids[i]] = tokens[i];
  c.table.assign((size_t)c.slots * c.heads * c.maxBlocks, 0);
  for (auto& d : deltas) {
    d.page = ids[d.page];
    c.table[((size_t)d.slot * c.heads + d.head) * c.maxBlocks + d.block] = d.page;
  }
  c.pool.alloc((size_t)c.pages * pageBytes(c.hd, c.fp8));
  Buffer<int> dTokens(placed);
  fillPages<<<2048, 256>>>(c.pool.p, dTokens.p, c.pages, c.stored, c.hd, seed, c.fp8);
  CK(cudaDeviceSynchronize());
  c.rows = c.tiles = c.prefills = 0;
  for (auto& s : c.seqs) {
    c.rows = std::max(c.rows, s.row + s.len);
    if (s.tile >= 0) {
      ++c.prefills;
      c.tiles = std::max(c.tiles, s.tile + (s.start + s.len - 1) / BLOCK - s.start / BLOCK + 1);
    }
  }
  c.dTable.alloc(c.table.size());
  c.dTable.zero();
  c.dSeqs.alloc(c.seqs.size());
  c.dSeqs.put(c.seqs);
  c.dRules.alloc(c.rules.size());
  c.dRules.put(c.rules);
  Header h{};
  h.deltas = (int)deltas.size();
  h.decodes = c.decodes;
  h.seqs = (int)c.seqs.size();
  h.rows = c.rows;
  c.dHeader.alloc(1);
  c.dHeader.put({h});
  Buffer<TableDelta> dDeltas(deltas);
  launch(scatter_pages, 132, 256, 0, 0, false, c.dHeader.p, dDeltas.p, c.dTable.p, c.heads, c.maxBlocks);
  CK(cudaDeviceSynchronize());
}

// Attention of one query head of one row, in double, block by block over the mask:
// key block kb is visible if it is 0 or in [start, q], keys up to the query's own.
struct RefRow {
  int table, kvStart, pos;  // table: slot*heads+head; kvStart: start block
  int64_t query;            // element of the query's first dimension; with tile: of the tile
  int tileRow;              // -1: plain
  int64_t out;              // element of the output
};
__global__ void reference(const char* pool, const int* table, const bf16* q, const RefRow* rows, double* out, int maxBlocks, int stored, int hd, bool fp8, double scale) {
  extern __shared__ double sc[];
  const RefRow r = rows[blockIdx.x];
  const int n = r.pos + 1, qb = r.pos / BLOCK, bytes = fp8 ? pageBytesE4M3(stored) : 4 * BLOCK * stored;
  double* qs = sc;             // [stored]
  double* red = sc + 256;      // [blockDim]
  double* p = red + blockDim.x;  // scores of visible tokens, by chunks of one block
  for (int d = threadIdx.x; d < stored; d += blockDim.x)
    qs[d] = r.tileRow < 0 ? (double)__bfloat162float(q[r.query + d]) : (double)__bfloat162float(*(const bf16*)((const char*)(q + r.query) + tileOffset(r.tileRow, d)));
  __syncthreads();
  double top = -INFINITY;
  auto visible = [&](int kb) { return kb == 0 || kb >= r.kvStart; };
  auto score = [&](int t) {
    const char* k = pool + (size_t)table[(size_t)r.table * maxBlocks + t / BLOCK] * bytes;
    double s = 0;
    for (int d = 0; d < stored; ++d) s += qs[d] * element(k, 0, t % BLOCK, d, stored, fp8);
    return s * scale;
  };
  for (int t = threadIdx.x; t < n; t += blockDim.x)
    if (visible(t / BLOCK)) top = fmax(top, score(t));
  red[threadIdx.x] = top;
  __syncthreads();
  for (int i = 0; i < (int)blockDim.x; ++i) top = fmax(top, red[i]);
  double l = 0, acc[4] = {0, 0, 0, 0};
  for (int kb = 0; kb <= qb; ++kb) {
    if (!visible(kb)) continue;
    __syncthreads();
    for (int t = threadIdx.x; t < BLOCK; t += blockDim.x) p[t] = kb * BLOCK + t < n ? exp(score(kb * BLOCK + t) - top) : 0;
    __syncthreads();
    const char* v = pool + (size_t)table[(size_t)r.table * maxBlocks + kb] * bytes;
    for (int t = 0; t < BLOCK && kb * BLOCK + t < n; ++t) {
      l += p[t];
      for (int d = threadIdx.x, i = 0; d < hd; d += blockDim.x, ++i) acc[i] += p[t] * element(v, 1, t, d, stored, fp8);
    }
  }
  for (int d = threadIdx.x, i = 0; d < hd; d += blockDim.x, ++i) out[(size_t)blockIdx.x * hd + d] = acc[i] / l;
}

// Compares the rows with the reference. The probabilities and the output are rounded
// to bfloat16 (2^-9 relative each), which gives ||out-ref||/||ref|| of 2.0e-3 to
// 2.4e-3 on normal data; a wrong or missing key among 64 moves it above 1e-1 for its
// row. Hence 4e-3 over all rows and 1.5e-2 for the worst row.
static bool compareRows(const Cache& c, const bf16* q, const Buffer<bf16>& out, const std::vector<RefRow>& rows, double& total, double& worst) {
  Buffer<RefRow> dRows(rows);
  Buffer<double> dRef(rows.size() * c.hd);
  const int threads = 128, shared = (256 + threads + BLOCK) * 8;
  reference<<<(int)rows.size(), threads, shared>>>(c.pool.p, c.dTable.p, q, dRows.p, dRef.p, c.maxBlocks, c.stored, c.hd, c.fp8, 1 / sqrt((double)c.hd));
  CK(cudaGetLastError());
  CK(cudaDeviceSynchronize());
  const auto ref = dRef.get();
  const auto got = out.get();
  double num = 0, den = 0;
  worst = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    double a = 0, b = 0;
    for (int d = 0; d < c.hd; ++d) {
      const double x = ref[r * c.hd + d], y = toFloat(got[rows[r].out + d]) - x;
      a += y == y ? y * y : INFINITY;
      b += x * x;
    }
    num += a; den += b;
    worst = std::max(worst, sqrt(a / b));
  }
  total = sqrt(num / den);
  return total < 4e-3 && worst < 1.5e-2;
}

// The grid of rope_append, as args.go has it.
static dim3 ropeGrid(int rows, int all, int hd, int pairs, bool interleaved, bool fp8) {
  const bool halves = !fp8 && !interleaved && 2 * pairs == hd && (hd == 64 || hd == 128 || hd == 256);
  const int heads = 4 * (halves ? 512 / hd : 1);
  return dim3(rows, (all + heads - 1) / heads);
}
