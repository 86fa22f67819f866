// A CUDA driver and a cuBLASLt for tests; see the package comment of fakecuda.
// Work in a stream runs at once, and during a capture it is recorded instead.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };

// ---- Failures and counts.

#define NAMES 256
static struct {
  char name[64];
  long count;
} calls[NAMES];
static char failCall[64];
static int failSkip, failCode, sticky;
static long alive, bytes;

static long *counter(const char *name) {
  for (int i = 0; i < NAMES; i++) {
    if (!calls[i].name[0]) snprintf(calls[i].name, sizeof calls[i].name, "%s", name);
    if (!strcmp(calls[i].name, name)) return &calls[i].count;
  }
  abort();
}

static int enter(const char *call) {
  if (sticky) return sticky;
  if (failCode && !strcmp(call, failCall) && failSkip-- == 0) {
    int code = failCode;
    failCode = 0;
    if (code >= 700 && code < 800) sticky = code;
    return code;
  }
  ++*counter(call);
  return OK;
}
#define ENTER                      \
  do {                             \
    int code_ = enter(__func__);   \
    if (code_) return code_;       \
  } while (0)

EXPORT void fakecuda_fail(const char *call, int skip, int code) {
  snprintf(failCall, sizeof failCall, "%s", call);
  failSkip = skip, failCode = code;
  if (!*call) memset(calls, 0, sizeof calls), sticky = 0;
}
// FAKECUDA_FAIL=call,skip,code does the same for a process that is not a test.
__attribute__((constructor)) static void failFromEnvironment(void) {
  const char *s = getenv("FAKECUDA_FAIL");
  char call[64];
  int skip, code;
  if (s && sscanf(s, "%63[^,],%d,%d", call, &skip, &code) == 3) fakecuda_fail(call, skip, code);
}
EXPORT long fakecuda_count(const char *call) {
  if (!strcmp(call, "memory")) return alive;
  if (!strcmp(call, "bytes")) return bytes;
  return *counter(call);
}

static int broken(const char *what) {
  fprintf(stderr, "fakecuda: %s\n", what);
  sticky = 719;
  return sticky;
}

// ---- Device, contexts, memory.

static const int64_t deviceMemory = 8LL << 30;
static char contexts[16];
static __thread void *current;

EXPORT int cuInit(unsigned flags) { return OK; }
EXPORT int cuDriverGetVersion(int *v) { return *v = 13000, OK; }
EXPORT int cuGetErrorName(int code, const char **s) { return *s = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_FAKE", OK; }
EXPORT int cuGetErrorString(int code, const char **s) { return *s = "an error of the fake driver", OK; }
EXPORT int cuDeviceGet(int *dev, int n) {
  ENTER;
  return *dev = n, OK;
}
EXPORT int cuDeviceGetName(char *s, int n, int dev) { return snprintf(s, n, "Fake GPU"), OK; }
EXPORT int cuDeviceTotalMem_v2(size_t *n, int dev) { return *n = deviceMemory, OK; }
EXPORT int cuDeviceGetAttribute(int *v, int attr, int dev) {
  switch (attr) {
    case 16: *v = 132; break;         // multiprocessors
    case 75: *v = 9; break;           // compute capability
    case 76: *v = 0; break;
    case 81: *v = 233472; break;      // shared memory of a multiprocessor
    case 97: *v = 232448; break;      // and of a thread block
    default: return INVALID_VALUE;
  }
  return OK;
}
EXPORT int cuCtxCreate_v2(void **c, unsigned flags, int dev) {
  ENTER;
  for (int i = 0; i < 16; i++)
    if (!contexts[i]) return contexts[i] = 1, *c = current = &contexts[i], OK;
  return OUT_OF_MEMORY;
}
EXPORT int cuCtxSetCurrent(void *c) {
  ENTER;
  return current = c, OK;
}
EXPORT int cuCtxSynchronize(void) { return current ? sticky : 201; }
EXPORT int cuCtxDestroy_v2(void *c) {
  *(char *)c = 0;
  if (current == c) current = 0;
  return sticky;
}
#define CURRENT \
  if (!current) return 201  // CUDA_ERROR_INVALID_CONTEXT

EXPORT int cuMemGetInfo_v2(size_t *free, size_t *total) {
  CURRENT;
  return *free = deviceMemory - bytes, *total = deviceMemory, OK;
}

// What is allocated is full of NaN, as far as it is read as numbers.
static void *allocate(size_t n) {
  size_t *p = aligned_alloc(256, (n + 511) / 256 * 256);
  if (!p) return 0;
  p[0] = n;
  memset((char *)p + 256, 0xff, n);
  alive++;
  return (char *)p + 256;
}
static size_t release(void *p) {
  size_t *base = (size_t *)((char *)p - 256), n = base[0];
  if (n == SIZE_MAX) abort();
  base[0] = SIZE_MAX;
  free(base);
  alive--;
  return n;
}
EXPORT int cuMemAlloc_v2(uint64_t *p, size_t n) {
  CURRENT;
  ENTER;
  if (bytes + (int64_t)n > deviceMemory) return OUT_OF_MEMORY;
  bytes += n;
  return *p = (uint64_t)allocate(n), *p ? OK : OUT_OF_MEMORY;
}
EXPORT int cuMemFree_v2(uint64_t p) {
  CURRENT;
  bytes -= release((void *)p);
  return sticky;
}
EXPORT int cuMemHostAlloc(void **p, size_t n, unsigned flags) {
  CURRENT;
  ENTER;
  return *p = allocate(n), *p ? OK : OUT_OF_MEMORY;
}
EXPORT int cuMemFreeHost(void *p) {
  CURRENT;
  release(p);
  return sticky;
}

// ---- Streams and graphs. An operation is a function and a copy of its arguments.

typedef struct op {
  struct op *next;
  int (*run)(void *);
  uint64_t data[40];
} op;
typedef struct {
  op *first, **end;
} graph;
typedef struct {
  graph *capture;
  const char *before;  // the kernel launched last
} stream;

static int submit(stream *s, int (*run)(void *), const void *data, size_t n) {
  if (!s->capture) return sticky ? sticky : run((void *)data);
  op *o = calloc(1, sizeof *o);
  if (n > sizeof o->data) abort();
  o->run = run;
  memcpy(o->data, data, n);
  *s->capture->end = o;
  s->capture->end = &o->next;
  return OK;
}
EXPORT int cuStreamCreate(stream **s, unsigned flags) {
  CURRENT;
  ENTER;
  return *s = calloc(1, sizeof(stream)), alive++, OK;
}
EXPORT int cuStreamDestroy_v2(stream *s) {
  free(s);
  alive--;
  return sticky;
}
EXPORT int cuStreamSynchronize(stream *s) {
  CURRENT;
  ENTER;
  return s->capture ? 900 : OK;
}
EXPORT int cuStreamBeginCapture_v2(stream *s, int mode) {
  ENTER;
  s->capture = calloc(1, sizeof(graph));
  s->capture->end = &s->capture->first;
  return OK;
}
EXPORT int cuStreamEndCapture(stream *s, graph **g) {
  *g = s->capture;
  s->capture = 0;
  ENTER;
  return OK;
}
EXPORT int cuGraphInstantiateWithFlags(graph **exec, graph *g, unsigned long long flags) {
  ENTER;
  graph *e = calloc(1, sizeof *e);
  op **end = &e->first;
  for (op *o = g->first; o; o = o->next) {
    *end = malloc(sizeof *o);
    memcpy(*end, o, sizeof *o);
    (*end)->next = 0;
    end = &(*end)->next;
  }
  alive++;
  return *exec = e, OK;
}
static void freeGraph(graph *g) {
  for (op *o = g->first, *next; o; o = next) next = o->next, free(o);
  free(g);
}
EXPORT int cuGraphDestroy(graph *g) { return freeGraph(g), OK; }
EXPORT int cuGraphExecDestroy(graph *g) { return freeGraph(g), alive--, sticky; }
EXPORT int cuGraphLaunch(graph *g, stream *s) {
  CURRENT;
  ENTER;
  for (op *o = g->first; o; o = o->next) {
    int r = o->run(o->data);
    if (r) return r;
  }
  return OK;
}

typedef struct {
  void *dst;
  const void *src;
  size_t n;
} copyArgs;
static int runCopy(void *p) {
  copyArgs *a = p;
  return memcpy(a->dst, a->src, a->n), OK;
}
static int runFill(void *p) {
  copyArgs *a = p;
  return memset(a->dst, (int)(uintptr_t)a->src, a->n), OK;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t dst, const void *src, size_t n, stream *s) {
  CURRENT;
  ENTER;
  copyArgs a = {(void *)dst, src, n};
  return submit(s, runCopy, &a, sizeof a);
}
EXPORT int cuMemcpyDtoHAsync_v2(void *dst, uint64_t src, size_t n, stream *s) {
  CURRENT;
  ENTER;
  copyArgs a = {dst, (void *)src, n};
  return submit(s, runCopy, &a, sizeof a);
}
EXPORT int cuMemsetD8Async(uint64_t dst, unsigned char v, size_t n, stream *s) {
  CURRENT;
  ENTER;
  copyArgs a = {(void *)dst, (void *)(uintptr_t)v, n};
  return submit(s, runFill, &a, sizeof a);
}
EXPORT int cuEventCreate(void **e, unsigned flags) { return *e = calloc(1, 8), OK; }
EXPORT int cuEventRecord(void *e, stream *s) { return s->capture ? 900 : OK; }
EXPORT int cuEventSynchronize(void *e) {
  CURRENT;
  ENTER;
  return OK;
}
EXPORT int cuEventElapsedTime(float *ms, void *a, void *b) { return *ms = 1, OK; }
EXPORT int cuEventElapsedTime_v2(float *ms, void *a, void *b) { return *ms = 1, OK; }
EXPORT int cuEventDestroy_v2(void *e) { return free(e), OK; }

// ---- Numbers.

typedef uint16_t bf16;
static float widen(bf16 x) {
  uint32_t b = (uint32_t)x << 16;
  float f;
  return memcpy(&f, &b, 4), f;
}
static bf16 narrow(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  if ((b & 0x7fffffff) > 0x7f800000) return b >> 16 | 0x40;
  return (b + 0x7fff + (b >> 16 & 1)) >> 16;
}

// The value of an e4m3 code, and the code nearest to a magnitude, of two the even one.
static float codeValues[256];
__attribute__((constructor)) static void defineCodes(void) {
  for (int code = 0; code < 256; code++) {
    int e = code >> 3 & 15, f = code & 7;
    float x = (code & 0x7f) == 0x7f ? NAN : e ? ldexpf(8 + f, e - 10) : ldexpf(f, -9);
    codeValues[code] = code & 0x80 ? -x : x;
  }
}
static float codeValue(int code) { return codeValues[code]; }
static int nearestCode(float a) {
  int lo = 0, hi = 0x7e;  // a finite code's value grows with the code
  if (a != a) return 0x7f;
  while (hi - lo > 1) *(codeValue((lo + hi) / 2) <= a ? &lo : &hi) = (lo + hi) / 2;
  float below = a - codeValue(lo), above = codeValue(hi) - a;
  return below < above || (below == above && lo % 2 == 0) ? lo : hi;
}

// ---- Kernels. Parameters are values of 8 bytes, in the order of args.go.

#define BLOCK 64
typedef union {
  uint64_t u;
  int64_t i;
  double f;
  void *p;
} arg;
typedef struct { int deltas, decodes, seqs, rows, reserved[12]; } Header;
typedef struct { int slot, row, len, start, rules, floor, total, tile; } Seq;
typedef struct { double alpha, beta; } Rule;
typedef struct { int seq, pos; } Row;
typedef struct { int slot, head, block, page; } Delta;
typedef struct { Header *header; Seq *seqs; Rule *rules; } Plan;  // what the plan kernels leave here

static int stored(int hd) { return hd <= 64 ? 64 : hd <= 128 ? 128 : 256; }
static int tileOffset(int token, int d) { return (d >> 6) * 8192 + token * 128 + ((((d & 63) >> 3) ^ (token & 7)) << 4) + (d & 7) * 2; }
static bf16 *element(void *tile, int token, int d) { return (bf16 *)((char *)tile + tileOffset(token, d)); }

static int spanStart(Rule r, int q, int floorBlocks, int total) {
  volatile double share = r.beta * (total > 0 ? total : q + 1 > floorBlocks ? q + 1 : floorBlocks);
  double b = total > 0 ? floor(r.alpha / BLOCK) + floor(share) : floor(r.alpha / BLOCK + share);
  return b >= q + 1 ? 0 : b >= 1 ? q - (int)b + 1 : q;
}

static int scatter_pages(const arg *a) {
  Header *h = a[0].p;
  Delta *d = a[1].p;
  for (int i = 0; i < h->deltas; i++) ((int *)a[2].p)[(d[i].slot * a[3].i + d[i].head) * a[4].i + d[i].block] = d[i].page;
  return OK;
}

static int savePlan(const arg *a, int64_t stride, int64_t layers) {
  for (int64_t i = 0; i < layers; i++) *(Plan *)((char *)a[3].p + i * stride) = (Plan){a[0].p, a[1].p, a[2].p};
  return OK;
}
static int decode_plan(const arg *a) { return savePlan(a, a[4].i, a[5].i); }
static int prefill_plan(const arg *a) { return savePlan(a, a[4].i, a[6].i); }

// An e4m3 page: the scales of its keys and of its values, and a code of these.
static float *scales(char *page, int hd) { return (float *)(page + 2 * BLOCK * stored(hd)); }
static uint8_t *code(char *page, int value, int token, int d, int hd) {
  int s = stored(hd), chunk = (d / 16 ^ (token % 2 * 4 + token / 2 % 4)) % (s / 16);
  return (uint8_t *)page + (value * BLOCK + token) * s + chunk * 16 + d % 8 * 2 + d / 8 % 2;
}

static int pageBytes(int hd, int fp8) { return fp8 ? 2 * BLOCK * stored(hd) + 128 : 4 * BLOCK * stored(hd); }

typedef struct {
  char *pool;
  int *table;  // of the head
  int hd, start, fp8;
  float scale;
} Head;

static float entry(const Head *h, char *page, int value, int token, int d) {
  if (h->fp8) return codeValue(*code(page, value, token, d, h->hd)) * scales(page, h->hd)[value];
  return widen(*element(page + value * BLOCK * stored(h->hd) * 2, token, d));
}

// One query over block 0 and blocks start to its own; q has all stored dimensions.
static void attend(const Head *h, const float *q, int pos, bf16 *out) {
  int own = pos / BLOCK, hd = h->hd;
  double most = -INFINITY, sum = 0, acc[256] = {0};
  for (int pass = 0; pass < 2; pass++)
    for (int block = 0; block <= own; block++) {
      if (block > 0 && block < h->start) continue;
      char *page = h->pool + (int64_t)h->table[block] * pageBytes(hd, h->fp8);
      for (int t = 0; t < BLOCK && block * BLOCK + t <= pos; t++) {
        float s = 0;
        for (int d = 0; d < stored(hd); d++) s += q[d] * entry(h, page, 0, t, d);
        s *= h->scale;
        if (pass == 0) {
          if (s > most || s != s) most = s;
          continue;
        }
        double p = exp(s - most);
        sum += p;
        for (int d = 0; d < hd; d++) acc[d] += p * entry(h, page, 1, t, d);
      }
    }
  for (int d = 0; d < hd; d++) out[d] = narrow(acc[d] / sum);
}

static int decode(const arg *a, int fp8) {
  char *pool = a[0].p;
  Plan *plan = a[1].p;
  int *table = a[2].p;
  bf16 *q = a[3].p, *out = a[4].p;
  int64_t layer = a[7].i, kv = a[8].i, heads = a[9].i, maxBlocks = a[10].i, group = a[11].i, hd = a[12].i;
  for (int i = 0; i < 64; i++)
    if (((unsigned char *)a[5].p)[i] != 0xff) return broken("the workspace of a decode attention is not clean");
  for (int s = 0; s < plan->header->decodes; s++) {
    Seq seq = plan->seqs[s];
    for (int h = 0; h < kv * group; h++) {
      int k = h / group;
      Head head = {pool, table + (seq.slot * heads + layer * kv + k) * maxBlocks, hd,
                   spanStart(plan->rules[seq.rules + layer * kv + k], seq.start / BLOCK, seq.floor, seq.total), fp8, a[14].f};
      float x[256];
      for (int d = 0; d < stored(hd); d++) x[d] = widen(q[(s * kv * group + h) * stored(hd) + d]);
      attend(&head, x, seq.start, out + (s * kv * group + h) * hd);
    }
  }
  memset(a[6].p, 0xff, 64);
  memset(a[5].p, 0, 64);
  return OK;
}

static int decode_attention(const arg *a) { return decode(a, 0); }
static int decode_attention_fp8(const arg *a) { return decode(a, 1); }

static int prefill(const arg *a, int fp8) {
  Plan *plan = a[1].p;
  int64_t maxBlocks = a[7].i, queryHeads = a[8].i, hd = a[9].i;
  // The layer and the heads are in the list of work on a GPU; here they are known
  // from where the plan lies, which the kernel before has told.
  extern int64_t prefillLayer, prefillKV, prefillHeads;
  int64_t layer = prefillLayer, kv = prefillKV, heads = prefillHeads, group = queryHeads / kv;
  for (int s = plan->header->decodes; s < plan->header->seqs; s++) {
    Seq seq = plan->seqs[s];
    for (int t = 0; t < seq.len; t++) {
      int pos = seq.start + t, block = pos / BLOCK;
      for (int h = 0; h < queryHeads; h++) {
        int k = h / group;
        Head head = {a[0].p, (int *)a[2].p + (seq.slot * heads + layer * kv + k) * maxBlocks, hd,
                     spanStart(plan->rules[seq.rules + layer * kv + k], block, seq.floor, seq.total), fp8, a[10].f};
        char *tile = (char *)a[3].p + ((seq.tile + block - seq.start / BLOCK) * queryHeads + h) * (BLOCK * stored(hd) * 2);
        float x[256];
        for (int d = 0; d < stored(hd); d++) x[d] = widen(*element(tile, pos % BLOCK, d));
        attend(&head, x, pos, (bf16 *)a[4].p + ((seq.row + t) * queryHeads + h) * hd);
      }
    }
  }
  return OK;
}
int64_t prefillLayer, prefillKV, prefillHeads;
static int prefill_attention(const arg *a) { return prefill(a, 0); }
static int prefill_attention_fp8(const arg *a) { return prefill(a, 1); }

static int embed(const arg *a) {
  int64_t rows = a[4].i, hidden = a[5].i, vocab = a[6].i;
  for (int64_t r = 0; r < rows; r++) {
    int64_t id = ((int *)a[0].p)[r];
    if (id < 0) ((int *)a[0].p)[r] = id = ((int *)a[1].p)[-1 - id];
    if (id < 0 || id >= vocab) id = 0;
    for (int64_t i = 0; i < hidden; i++) ((float *)a[3].p)[r * hidden + i] = widen(((bf16 *)a[2].p)[id * hidden + i]);
  }
  return OK;
}

static int rmsnorm(const arg *a) {
  float *x = a[0].p, *w = a[2].p;
  bf16 *delta = a[1].p, *y = a[3].p;
  int *index = a[4].p;
  int64_t rows = a[5].i, n = a[6].i;
  float *v = malloc(4 * n);
  for (int64_t r = 0; r < rows; r++) {
    int64_t row = index ? index[r] : r;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
      v[i] = x[row * n + i] + (delta ? widen(delta[row * n + i]) : 0);
      if (!index) x[row * n + i] = v[i];
      sum += (double)v[i] * v[i];
    }
    float f = 1 / sqrt(sum / n + a[7].f);
    for (int64_t i = 0; i < n; i++) y[r * n + i] = narrow(v[i] * f * w[i]);
  }
  free(v);
  return OK;
}

// The head h of a row, biased and, if it has a norm, normalised.
static void loadHead(const arg *a, int64_t row, int64_t h, float *v) {
  bf16 *qkv = a[0].p;
  float *bias = a[1].p;
  int64_t qh = a[12].i, kv = a[13].i, hd = a[14].i;
  float *norm = h < qh ? a[2].p : h < qh + kv ? a[3].p : 0;
  double sum = 0;
  memset(v, 0, 256 * sizeof *v);
  for (int d = 0; d < hd; d++) {
    v[d] = widen(qkv[(row * (qh + 2 * kv) + h) * hd + d]) + (bias ? bias[h * hd + d] : 0);
    sum += (double)v[d] * v[d];
  }
  for (int d = 0; norm && d < hd; d++) v[d] *= 1 / sqrt(sum / hd + a[20].f) * norm[d];
}

// The scale for the largest magnitude of a head: it becomes 2 to 4, within bounds.
static float scaleFor(const float *v, int hd) {
  float largest = 0, scale = 0x1p-6f;
  for (int d = 0; d < hd; d++)
    if (fabsf(v[d]) > largest) largest = fabsf(v[d]);
  while (scale < 128 && largest >= 4 * scale) scale *= 2;
  return scale;
}

// Multiplies by the Hadamard matrix of order n over its square root, row by row.
static void hadamard(float *x, int n) {
  float y[256];
  for (int i = 0; i < n; i++) {
    y[i] = 0;
    for (int j = 0; j < n; j++) y[i] += __builtin_parity(i & j) ? -x[j] : x[j];
  }
  for (int i = 0; i < n; i++) x[i] = y[i] / sqrtf(n);
}

static int rope(const arg *a, int fp8) {
  float *angles = a[4].p;
  Row *meta = a[5].p;
  Seq *seqs = a[6].p;
  int *table = a[7].p;
  char *pool = a[8].p;
  int64_t rows = a[11].i, qh = a[12].i, kv = a[13].i, hd = a[14].i, pairs = a[15].i, interleaved = a[16].i, layer = a[17].i,
          heads = a[18].i, maxBlocks = a[19].i, all = qh + 2 * kv;
  prefillLayer = layer, prefillKV = kv, prefillHeads = heads;
  for (int64_t r = 0; r < rows; r++) {
    if (meta[r].seq < 0) continue;
    Seq s = seqs[meta[r].seq];
    int pos = meta[r].pos, token = pos % BLOCK, block = pos / BLOCK;
    for (int64_t h = 0; h < all; h++) {
      float v[256], x[256];
      int kind = h < qh ? 0 : h < qh + kv ? 1 : 2;
      loadHead(a, r, h, v);
      memcpy(x, v, sizeof x);
      for (int i = 0; kind < 2 && i < pairs; i++) {
        int lo = interleaved ? 2 * i : i, hi = interleaved ? 2 * i + 1 : i + pairs;
        float c = angles[2 * (pos * pairs + i)], sn = angles[2 * (pos * pairs + i) + 1];
        x[lo] = v[lo] * c - v[hi] * sn;
        x[hi] = v[hi] * c + v[lo] * sn;
      }
      if (fp8 && kind < 2) hadamard(x, stored(hd));
      if (kind == 0) {
        bf16 *q = (bf16 *)a[9].p + (meta[r].seq * qh + h) * stored(hd);
        char *tile = (char *)a[10].p + ((s.tile + block - s.start / BLOCK) * qh + h) * (BLOCK * stored(hd) * 2);
        for (int d = 0; d < stored(hd); d++) *(s.tile >= 0 ? element(tile, token, d) : q + d) = narrow(x[d]);
        continue;
      }
      int page = table[(s.slot * heads + layer * kv + (h - qh) % kv) * maxBlocks + block];
      char *out = pool + (int64_t)page * pageBytes(hd, fp8);
      if (fp8) {
        float *scale = scales(out, hd) + (kind == 2);
        if (token == 0) *scale = scaleFor(v, hd);
        for (int d = 0; d < stored(hd); d++) *code(out, kind == 2, token, d, hd) = nearestCode(fabsf(x[d]) / *scale) | (signbit(x[d]) ? 0x80 : 0);
        continue;
      }
      for (int d = 0; d < stored(hd); d++) *element(out + (kind == 2) * BLOCK * stored(hd) * 2, token, d) = narrow(x[d]);
    }
  }
  return OK;
}
static int rope_append(const arg *a) { return rope(a, 0); }
static int rope_append_fp8(const arg *a) { return rope(a, 1); }

static int silu_mul(const arg *a) {
  bf16 *in = a[0].p, *y = a[1].p;
  int64_t rows = a[2].i, n = a[3].i;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++) {
      float g = widen(in[r * 2 * n + i]), u = widen(in[r * 2 * n + n + i]);
      y[r * n + i] = narrow(g / (1 + expf(-g)) * u);
    }
  return OK;
}

static int quantizeRows(const arg *a, float least) {
  bf16 *x = a[0].p;
  uint8_t *codes = a[1].p;
  float *scales = a[2].p;
  int64_t rows = a[3].i, cols = a[4].i;
  for (int64_t r = 0; r < rows; r++) {
    float largest = 0, scale = least;
    for (int64_t i = 0; i < cols; i++)
      if (fabsf(widen(x[r * cols + i])) > largest) largest = fabsf(widen(x[r * cols + i]));
    while (largest > 448 * scale) scale *= 2;
    scales[r] = scale;
    for (int64_t i = 0; i < cols; i++) codes[r * cols + i] = nearestCode(fabsf(widen(x[r * cols + i])) / scale) | (x[r * cols + i] >> 8 & 0x80);
  }
  return OK;
}

static int quantize_rows(const arg *a) { return quantizeRows(a, 0x1p-126f); }

static int split_rows(const arg *a) {
  bf16 *x = a[0].p;
  uint8_t *codes = a[1].p;
  float *scales = a[2].p;
  int64_t rows = a[3].i, cols = a[4].i;
  quantizeRows(a, 0x1p-122f);
  for (int64_t r = 0; r < rows; r++) {
    scales[rows + r] = scales[r] / 16;
    for (int64_t i = r * cols; i < (r + 1) * cols; i++) {
      float rest = 16 * (widen(x[i]) / scales[r] - codeValue(codes[i]));
      codes[rows * cols + i] = nearestCode(fabsf(rest)) | (rest < 0 ? 0x80 : 0);
    }
  }
  return OK;
}

static int sum_split(const arg *a) {
  float *sums = a[0].p;
  int64_t n = a[2].i * a[3].i;
  for (int64_t i = 0; i < n; i++) ((bf16 *)a[1].p)[i] = narrow(sums[i] + sums[n + i]);
  return OK;
}

static int dequantize_rows(const arg *a) {
  uint8_t *codes = a[0].p;
  float *scales = a[1].p;
  bf16 *y = a[2].p;
  int64_t rows = a[3].i, cols = a[4].i;
  for (int64_t i = 0; i < rows * cols; i++) y[i] = narrow(codeValue(codes[i]) * scales[i / cols]);
  return OK;
}

// The parts of the squares are one here, in the first of 132 places.
static int product_few(const arg *a) {
  bf16 *w = a[0].p, *x = a[1].p;
  uint8_t *codes = a[0].p;
  float *scale = a[3].p, *stream = a[4].p, *norm = a[5].p, *squares = a[6].p;
  int64_t m = a[8].i, n = a[9].i, k = a[10].i, f32 = a[11].i, gated = a[12].i, normalise = a[13].i;
  if (m < 1 || m > 16 || k % 64 || a[14].i < 2) return broken("a product of few rows has a wrong shape");
  for (int64_t r = 0; r < m; r++) {
    float factor = 1, total = 0, sums[2];
    for (int64_t i = 0; normalise && i < 132; i++) total += squares[r * 132 + i];
    if (normalise) factor = 1 / sqrtf(total / k + a[19].f);
    total = 0;
    for (int64_t c = 0; c < n; c++) {
      for (int half = 0; half <= gated; half++) {
        int64_t row = c + half * n;
        float sum = 0;
        for (int64_t i = 0; i < k; i++) sum += widen(x[r * k + i]) * (scale ? codeValue(codes[row * k + i]) : widen(w[row * k + i]));
        sums[half] = sum * factor * (scale ? scale[row] : 1);
      }
      float v = gated ? sums[0] / (1 + expf(-sums[0])) * sums[1] : sums[0];
      if (stream) {
        v = stream[r * n + c] += v;
        total += v * v;
        v *= norm[c];
      }
      if (f32)
        ((float *)a[2].p)[r * n + c] = v;
      else
        ((bf16 *)a[2].p)[r * n + c] = narrow(v);
    }
    if (stream) memset(squares + r * 132, 0, 132 * 4), squares[r * 132] = total;
  }
  return OK;
}

// Adjusted logits are the same numbers as on a GPU.
#pragma GCC push_options
#pragma GCC optimize("no-fast-math", "fp-contract=off")
typedef struct { int id, count; float bias; } Adjustment;
typedef struct {
  double uniform;
  uint32_t *mask;
  Adjustment *adjustments;
  int *pending;
  float temperature, topP, minP;
  int topK;
  float repetition, frequency, presence;
  int maskWords, adjusted, logprobs;
} SampleRow;
enum { HELD = -2, TOPS = 20 };

static int allowed(const SampleRow *p, int id) { return !p->mask || (id / 32 < p->maskWords && p->mask[id / 32] >> id % 32 & 1); }

static float penalised(const SampleRow *p, float x, int count) {
  if (count < 0) return x;
  x = x > 0 ? x / p->repetition : x * p->repetition;
  return count > 0 ? x - (p->frequency * (float)count + p->presence) : x;
}

// What the row is chosen from; held gets a 1 for each token that is held back.
static void adjust(const SampleRow *p, float *x, char *held, int64_t n) {
  int pending = p->pending ? *p->pending : -1;
  for (int i = 0; i < p->adjusted; i++) {
    Adjustment *a = &p->adjustments[i];
    int id = a->id, count = a->count;
    if (id < 0 || id >= n) continue;
    if (id == pending && count != HELD) count = (count > 0 ? count : 0) + 1;
    x[id] = count == HELD ? -INFINITY : penalised(p, x[id] + a->bias, count);
    held[id] = count == HELD;
    if (id == pending) pending = -1;
    memset(a, 0xff, sizeof *a);
  }
  if (pending >= 0 && pending < n) x[pending] = penalised(p, x[pending], 1);
  for (int i = 0; i < n; i++)
    if (!allowed(p, i)) x[i] = -INFINITY;
}
#pragma GCC pop_options

typedef struct { float value; int id; } Ranked;
static int byRank(const void *a, const void *b) {
  const Ranked *x = a, *y = b;
  return x->value != y->value ? (x->value < y->value ? 1 : -1) : x->id - y->id;
}
static int byID(const void *a, const void *b) { return ((const Ranked *)a)->id - ((const Ranked *)b)->id; }

// The likeliest token, and -1 if none has a logit.
static int likeliest(const float *x, int64_t n) {
  int id = -1;
  for (int64_t i = 0; i < n; i++)
    if (x[i] > (id < 0 ? -INFINITY : x[id])) id = i;
  return id;
}

static double logSumExp(const float *x, int64_t n) {
  int best = likeliest(x, n);
  if (best < 0) return -INFINITY;
  double sum = 0, hi = fminf(x[best], 3.402823466e38f);
  for (int64_t i = 0; i < n; i++)
    if (x[i] == x[i]) sum += exp(fmin(x[i] - hi, 0));
  return hi + log(sum);
}

static float logProbability(float x, double norm) {
  double p = (x > 3.402823466e38f ? 3.402823466e38f : x) - norm;
  return p > -9999 ? fmin(p, 0) : -9999;
}

// Draws from adjusted logits, the largest of which is hi.
static int draw(const SampleRow *p, const float *x, Ranked *w, float hi, int64_t n) {
  int64_t keep = 0;
  for (int64_t i = 0; i < n; i++)
    if (x[i] > -INFINITY) w[keep++] = (Ranked){x[i], i};
  qsort(w, keep, sizeof *w, byRank);
  if (p->topK > 0 && p->topK < keep) keep = p->topK;
  double total = 0, sum = 0;
  for (int64_t i = 0; i < keep; i++) {
    float e = expf((w[i].value - hi) / p->temperature);
    w[i].value = e < p->minP ? 0 : e;
    total += w[i].value;
  }
  if (p->topP > 0 && p->topP < 1)
    for (int64_t i = 0; i < keep; i++)
      if ((sum += w[i].value) >= p->topP * total) {
        keep = i + 1, total = sum;
        break;
      }
  qsort(w, keep, sizeof *w, byID);
  int id = 0;
  sum = 0;
  for (int64_t i = 0; i < keep; i++)
    if (w[i].value > 0) {
      id = w[i].id;
      if ((sum += w[i].value) > p->uniform * total) break;
    }
  return id;
}

typedef struct {
  int id;
  float logprob;
  struct { int id; float logprob; } tops[TOPS];
} Choice;

static void describe(const SampleRow *p, const float *raw, Ranked *ranked, Choice *c, int64_t n) {
  double norm = logSumExp(raw, n);
  int found = 0;
  c->logprob = logProbability(raw[c->id], norm);
  for (int64_t i = 0; i < n; i++)
    if (raw[i] > -INFINITY) ranked[found++] = (Ranked){raw[i], i};
  qsort(ranked, found, sizeof *ranked, byRank);
  for (int i = 0; p->logprobs > 1 && i < TOPS; i++) {
    c->tops[i].id = i < found && i < p->logprobs - 1 ? ranked[i].id : -1;
    c->tops[i].logprob = i < found ? logProbability(ranked[i].value, norm) : 0;
  }
}

static int sample(const arg *a) {
  int64_t rows = a[4].i, n = a[5].i;
  float *x = malloc(n * sizeof *x);
  char *held = malloc(n);
  Ranked *ranked = malloc(n * sizeof *ranked);
  for (int64_t r = 0; r < rows; r++) {
    const SampleRow *p = (SampleRow *)a[1].p + r;
    const float *raw = (float *)a[0].p + r * n;
    Choice *c = (Choice *)a[3].p + r;
    memcpy(x, raw, n * sizeof *x);
    memset(held, 0, n);
    adjust(p, x, held, n);
    int id = likeliest(x, n);
    if (id >= 0 && p->temperature >= 1e-5f) id = draw(p, x, ranked, x[id], n);
    for (int i = 0; id < 0 && i < n; i++)
      if (allowed(p, i) && !held[i]) id = i;
    for (int i = 0; id < 0 && i < n; i++)
      if (allowed(p, i)) id = i;
    if (id < 0) id = 0;
    ((int *)a[2].p)[r] = c->id = id;
    if (p->logprobs) describe(p, raw, ranked, c, n);
  }
  free(x), free(held), free(ranked);
  return OK;
}

// The numbers of weights.Generated.
static int fill_random(const arg *a) {
  bf16 *out = a[0].p;
  float unit = (float)a[4].f * 0x1p-16f;
  if (a[1].i % 8 || a[2].i % 8) return broken("a tensor is filled by other than eights");
  for (int64_t i = 0; i < a[2].i; i++) {
    uint64_t e = a[1].i + i, x = a[3].u + (e / 4 + 1) * 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    x ^= x >> 31;
    out[i] = narrow((2 * (int16_t)(x >> 16 * (e % 4)) + 1) * unit);
  }
  return OK;
}

static int read_memory(const arg *a) {
  uint32_t *sum = a[2].p;
  for (int64_t i = 0; i < a[1].i / 4; i++) *sum ^= ((uint32_t *)a[0].p)[i];
  return OK;
}

static struct {
  const char *name;
  int (*run)(const arg *);
  int params, alone;  // alone: must not overlap with what is before
} kernels[] = {
    {"scatter_pages", scatter_pages, 5, 1},          {"decode_plan", decode_plan, 10, 1},
    {"prefill_plan", prefill_plan, 11, 1},           {"embed", embed, 7, 1},
    {"rmsnorm", rmsnorm, 8, 0},                      {"rope_append", rope_append, 21, 0},
    {"silu_mul", silu_mul, 4, 0},                    {"sample", sample, 6, 0},
    {"fill_random", fill_random, 5, 0},              {"read_memory", read_memory, 3, 0},
    {"rope_append_fp8", rope_append_fp8, 21, 0},
    {"decode_attention_fp8_64", decode_attention_fp8, 15, 0},    {"decode_attention_fp8_128", decode_attention_fp8, 15, 0},
    {"decode_attention_fp8_256", decode_attention_fp8, 15, 0},   {"prefill_attention_fp8_64", prefill_attention_fp8, 11, 0},
    {"prefill_attention_fp8_128", prefill_attention_fp8, 11, 0}, {"prefill_attention_fp8_256", prefill_attention_fp8, 11, 0},
    {"decode_attention_64", decode_attention, 15, 0},   {"decode_attention_128", decode_attention, 15, 0},
    {"decode_attention_256", decode_attention, 15, 0},  {"prefill_attention_64", prefill_attention, 11, 0},
    {"prefill_attention_128", prefill_attention, 11, 0}, {"prefill_attention_256", prefill_attention, 11, 0},
    {"product_bf16_8", product_few, 20, 0},             {"product_bf16_16", product_few, 20, 0},
    {"product_e4m3_8", product_few, 20, 0},             {"product_e4m3_16", product_few, 20, 0},
    {"quantize_rows", quantize_rows, 5, 0},             {"dequantize_rows", dequantize_rows, 5, 0},
    {"split_rows", split_rows, 5, 0},                   {"sum_split", sum_split, 4, 0},
};
enum { KERNELS = sizeof kernels / sizeof *kernels };
static unsigned shared[KERNELS];  // more than 48 KiB, once it was asked for

// The image names its kernels somewhere; which of them a module has does not
// matter here: every module has all of them.
EXPORT int cuModuleLoadData(void **m, const void *image) {
  CURRENT;
  ENTER;
  return *m = calloc(1, 8), alive++, OK;
}
EXPORT int cuModuleUnload(void *m) { return free(m), alive--, sticky; }
EXPORT int cuModuleGetFunction(void **f, void *m, const char *name) {
  ENTER;
  for (int i = 0; i < KERNELS; i++)
    if (!strcmp(kernels[i].name, name)) return *f = &kernels[i], OK;
  return NOT_FOUND;
}
EXPORT int cuFuncSetAttribute(void *f, int attr, int value) {
  ENTER;
  if (attr != 8 || value > 232448) return INVALID_VALUE;
  shared[(typeof(&kernels[0]))f - kernels] = value;
  return OK;
}

typedef struct {
  int kernel;
  arg args[21];
} kernelArgs;
static int runKernel(void *p) {
  kernelArgs *a = p;
  char name[64];
  snprintf(name, sizeof name, "kernel:%s", kernels[a->kernel].name);
  int r = enter(name);
  return r ? r : kernels[a->kernel].run(a->args);
}

typedef struct {
  unsigned grid[3], block[3], shared;
  stream *s;
  void *attrs;
  unsigned numAttrs;
} launchConfig;
EXPORT int cuLaunchKernelEx(const launchConfig *c, void *f, void **params, void **extra) {
  CURRENT;
  ENTER;
  kernelArgs a = {(typeof(&kernels[0]))f - kernels};
  const char *name = kernels[a.kernel].name;
  if (c->shared > 48 << 10 && c->shared > shared[a.kernel]) return INVALID_VALUE;
  if (!c->grid[0] || !c->grid[1] || !c->grid[2] || c->block[0] % 32 || c->block[0] > 1024) return INVALID_VALUE;
  if (c->numAttrs && kernels[a.kernel].alone) return broken("a kernel overlaps that must not");
  for (int i = 0; i < kernels[a.kernel].params; i++) a.args[i] = *(arg *)params[i];
  c->s->before = name;
  return submit(c->s, runKernel, &a, sizeof a);
}

// ---- cuBLASLt.

typedef struct {
  int type;
  uint64_t rows, cols;
  int64_t ld;
} layout;
typedef struct {
  uint64_t algo[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
} choice;
EXPORT int cublasLtCreate(void **h) {
  ENTER;
  return *h = calloc(1, 8), alive++, OK;
}
EXPORT int cublasLtDestroy(void *h) { return free(h), alive--, OK; }
EXPORT size_t cublasLtGetVersion(void) { return 130100; }
typedef struct {
  float *scales[2];
  int modes[2];
} product;
EXPORT int cublasLtMatmulDescCreate(product **d, int compute, int scale) { return *d = calloc(1, sizeof **d), alive++, OK; }
EXPORT int cublasLtMatmulDescDestroy(product *d) { return free(d), alive--, OK; }
EXPORT int cublasLtMatmulDescSetAttribute(product *d, int attr, const void *v, size_t n) {
  ENTER;
  if (attr == 17 || attr == 18) memcpy(&d->scales[attr - 17], v, n);
  if (attr == 31 || attr == 32) memcpy(&d->modes[attr - 31], v, n);
  return OK;
}
EXPORT int cublasLtMatrixLayoutCreate(layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  *l = malloc(sizeof **l);
  **l = (layout){type, rows, cols, ld};
  return alive++, OK;
}
EXPORT int cublasLtMatrixLayoutDestroy(layout *l) { return free(l), alive--, OK; }
EXPORT int cublasLtMatmulPreferenceCreate(void **p) { return *p = calloc(1, 8), alive++, OK; }
EXPORT int cublasLtMatmulPreferenceDestroy(void *p) { return free(p), alive--, OK; }
EXPORT int cublasLtMatmulPreferenceSetAttribute(void *p, int attr, const void *v, size_t n) { return OK; }
EXPORT int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, layout *w, layout *x, layout *c, layout *y, void *p, int max, choice *out, int *n) {
  ENTER;
  memset(out, 0, 2 * sizeof *out);
  return *n = 2, OK;
}

typedef struct {
  void *w, *x, *y;
  float *wScales, *xScales;  // of e4m3 operands
  uint64_t m, n, k, stride;
  int f32;
} productArgs;
// bfloat16 holds every code exactly.
static bf16 *decodeCodes(const uint8_t *codes, uint64_t n) {
  bf16 *x = malloc(2 * n);
  for (uint64_t i = 0; i < n; i++) x[i] = narrow(codeValue(codes[i]));
  return x;
}
static int runProduct(void *p) {
  productArgs *a = p;
  bf16 *w = a->wScales ? decodeCodes(a->w, a->n * a->k) : a->w, *x = a->wScales ? decodeCodes(a->x, a->m * a->k) : a->x;
  for (uint64_t r = 0; r < a->m; r++)
    for (uint64_t c = 0; c < a->n; c++) {
      float sum = 0;
      for (uint64_t i = 0; i < a->k; i++) sum += widen(x[r * a->k + i]) * widen(w[c * a->k + i]);
      if (a->wScales) sum *= a->wScales[c] * a->xScales[r];
      if (a->f32)
        ((float *)a->y)[r * a->stride + c] = sum;
      else
        ((bf16 *)a->y)[r * a->stride + c] = narrow(sum);
    }
  if (a->wScales) free(w), free(x);
  return OK;
}
EXPORT int cublasLtMatmul(void *h, product *d, const void *alpha, void *w, layout *wl, void *x, layout *xl, const void *beta, const void *c,
                          layout *cl, void *y, layout *yl, const void *algo, void *workspace, size_t size, stream *s) {
  CURRENT;
  ENTER;
  if (wl->rows != xl->rows || yl->rows != wl->cols || yl->cols != xl->cols || wl->ld != (int64_t)wl->rows || yl->ld < (int64_t)yl->rows) return 7;
  productArgs a = {w, x, y, 0, 0, xl->cols, wl->cols, wl->rows, yl->ld, yl->type == 0};
  if (wl->type == 28) {
    if (d->modes[0] != 3 || d->modes[1] != 3 || !d->scales[0] || !d->scales[1] || a.n % 16 || a.k % 16) return 7;
    a.wScales = d->scales[0], a.xScales = d->scales[1];
  }
  return submit(s, runProduct, &a, sizeof a);
}
