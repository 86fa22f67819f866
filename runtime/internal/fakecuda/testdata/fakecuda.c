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

typedef struct {
  char *pool;
  int *table;  // of the head
  int hd, start;
  float scale;
} Head;

// One query over block 0 and blocks start to its own.
static void attend(const Head *h, const float *q, int pos, bf16 *out) {
  int own = pos / BLOCK, hd = h->hd;
  double most = -INFINITY, sum = 0, acc[256] = {0};
  for (int pass = 0; pass < 2; pass++)
    for (int block = 0; block <= own; block++) {
      if (block > 0 && block < h->start) continue;
      char *page = h->pool + (int64_t)h->table[block] * BLOCK * stored(hd) * 4;
      for (int t = 0; t < BLOCK && block * BLOCK + t <= pos; t++) {
        float s = 0;
        for (int d = 0; d < hd; d++) s += q[d] * widen(*element(page, t, d));
        s *= h->scale;
        if (pass == 0) {
          if (s > most || s != s) most = s;
          continue;
        }
        double p = exp(s - most);
        sum += p;
        for (int d = 0; d < hd; d++) acc[d] += p * widen(*element(page + BLOCK * stored(hd) * 2, t, d));
      }
    }
  for (int d = 0; d < hd; d++) out[d] = narrow(acc[d] / sum);
}

static int decode_attention(const arg *a) {
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
                   spanStart(plan->rules[seq.rules + layer * kv + k], seq.start / BLOCK, seq.floor, seq.total), a[14].f};
      float x[256];
      for (int d = 0; d < hd; d++) x[d] = widen(q[(s * kv * group + h) * stored(hd) + d]);
      attend(&head, x, seq.start, out + (s * kv * group + h) * hd);
    }
  }
  memset(a[6].p, 0xff, 64);
  memset(a[5].p, 0, 64);
  return OK;
}

static int prefill_attention(const arg *a) {
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
                     spanStart(plan->rules[seq.rules + layer * kv + k], block, seq.floor, seq.total), a[10].f};
        char *tile = (char *)a[3].p + ((seq.tile + block - seq.start / BLOCK) * queryHeads + h) * (BLOCK * stored(hd) * 2);
        float x[256];
        for (int d = 0; d < hd; d++) x[d] = widen(*element(tile, pos % BLOCK, d));
        attend(&head, x, pos, (bf16 *)a[4].p + ((seq.row + t) * queryHeads + h) * hd);
      }
    }
  }
  return OK;
}
int64_t prefillLayer, prefillKV, prefillHeads;

static int embed(const arg *a) {
  int64_t rows = a[4].i, hidden = a[5].i, vocab = a[6].i;
  for (int64_t r = 0; r < rows; r++) {
    int64_t id = ((int *)a[0].p)[r];
    if (id < 0) id = ((int *)a[1].p)[-1 - id];
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

static int rope_append(const arg *a) {
  bf16 *qkv = a[0].p;
  float *bias = a[1].p, *norms[2] = {a[2].p, a[3].p}, *angles = a[4].p;
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
      float v[256] = {0}, x[256] = {0};
      double sum = 0;
      for (int d = 0; d < hd; d++) {
        v[d] = widen(qkv[(r * all + h) * hd + d]) + (bias ? bias[h * hd + d] : 0);
        sum += (double)v[d] * v[d];
      }
      int kind = h < qh ? 0 : h < qh + kv ? 1 : 2;
      if (kind < 2 && norms[kind])
        for (int d = 0; d < hd; d++) v[d] *= 1 / sqrt(sum / hd + a[20].f) * norms[kind][d];
      memcpy(x, v, sizeof x);
      for (int i = 0; kind < 2 && i < pairs; i++) {
        int lo = interleaved ? 2 * i : i, hi = interleaved ? 2 * i + 1 : i + pairs;
        float c = angles[2 * (pos * pairs + i)], sn = angles[2 * (pos * pairs + i) + 1];
        x[lo] = v[lo] * c - v[hi] * sn;
        x[hi] = v[hi] * c + v[lo] * sn;
      }
      if (kind == 0) {
        bf16 *q = (bf16 *)a[9].p + (meta[r].seq * qh + h) * stored(hd);
        char *tile = (char *)a[10].p + ((s.tile + block - s.start / BLOCK) * qh + h) * (BLOCK * stored(hd) * 2);
        for (int d = 0; d < stored(hd); d++) *(s.tile >= 0 ? element(tile, token, d) : q + d) = narrow(x[d]);
        continue;
      }
      int page = table[(s.slot * heads + layer * kv + (h - qh) % kv) * maxBlocks + block];
      char *out = pool + (int64_t)page * BLOCK * stored(hd) * 4 + (kind == 2) * BLOCK * stored(hd) * 2;
      for (int d = 0; d < stored(hd); d++) *element(out, token, d) = narrow(x[d]);
    }
  }
  return OK;
}

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

static int argmax(const arg *a) {
  int64_t rows = a[3].i, n = a[4].i;
  for (int64_t r = 0; r < rows; r++) {
    float *x = (float *)a[0].p + r * n, best = -INFINITY;
    int id = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
      if (x[i] > best) best = x[i], id = i;
    for (int64_t i = 0; i < n; i++)
      if (x[i] == x[i]) sum += exp(x[i] - best);
    ((int *)a[1].p)[r] = id;
    if (a[2].p) ((float *)a[2].p)[r] = -log(sum);
  }
  return OK;
}

typedef struct { double uniform; float temperature, topP, minP; int topK; } SampleRow;
typedef struct { float weight; int id; } Weighted;
static int byWeight(const void *a, const void *b) {
  const Weighted *x = a, *y = b;
  return x->weight != y->weight ? (x->weight < y->weight ? 1 : -1) : x->id - y->id;
}
static int byID(const void *a, const void *b) { return ((const Weighted *)a)->id - ((const Weighted *)b)->id; }

static int sample(const arg *a) {
  int64_t rows = a[4].i, n = a[5].i;
  arg likeliest[5] = {a[0], a[2], a[3], a[4], a[5]};
  argmax(likeliest);
  Weighted *w = malloc(n * sizeof *w);
  for (int64_t r = 0; r < rows; r++) {
    SampleRow p = ((SampleRow *)a[1].p)[r];
    if (p.temperature < 1e-5f) continue;
    float *x = (float *)a[0].p + r * n, hi = x[((int *)a[2].p)[r]];
    for (int64_t i = 0; i < n; i++) {
      float e = x[i] == x[i] ? expf((x[i] - hi) / p.temperature) : 0;
      w[i] = (Weighted){e < p.minP ? 0 : e, i};
    }
    qsort(w, n, sizeof *w, byWeight);
    int64_t keep = p.topK > 0 && p.topK < n ? p.topK : n;
    double total = 0, sum = 0;
    for (int64_t i = 0; i < keep; i++) total += w[i].weight;
    if (p.topP > 0 && p.topP < 1)
      for (int64_t i = 0; i < keep; i++)
        if ((sum += w[i].weight) >= p.topP * total) {
          keep = i + 1, total = sum;
          break;
        }
    qsort(w, keep, sizeof *w, byID);
    sum = 0;
    for (int64_t i = 0; i < keep; i++)
      if (w[i].weight > 0) {
        ((int *)a[2].p)[r] = w[i].id;
        if ((sum += w[i].weight) > p.uniform * total) break;
      }
  }
  free(w);
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
    {"silu_mul", silu_mul, 4, 0},                    {"argmax", argmax, 5, 0},
    {"sample", sample, 6, 0},
    {"decode_attention_64", decode_attention, 15, 0},   {"decode_attention_128", decode_attention, 15, 0},
    {"decode_attention_256", decode_attention, 15, 0},  {"prefill_attention_64", prefill_attention, 11, 0},
    {"prefill_attention_128", prefill_attention, 11, 0}, {"prefill_attention_256", prefill_attention, 11, 0},
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
EXPORT int cublasLtMatmulDescCreate(void **d, int compute, int scale) { return *d = calloc(1, 8), alive++, OK; }
EXPORT int cublasLtMatmulDescDestroy(void *d) { return free(d), alive--, OK; }
EXPORT int cublasLtMatmulDescSetAttribute(void *d, int attr, const void *v, size_t n) { return OK; }
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
  bf16 *w, *x;
  void *y;
  uint64_t m, n, k;
  int f32;
} productArgs;
static int runProduct(void *p) {
  productArgs *a = p;
  for (uint64_t r = 0; r < a->m; r++)
    for (uint64_t c = 0; c < a->n; c++) {
      float sum = 0;
      for (uint64_t i = 0; i < a->k; i++) sum += widen(a->x[r * a->k + i]) * widen(a->w[c * a->k + i]);
      if (a->f32)
        ((float *)a->y)[r * a->n + c] = sum;
      else
        ((bf16 *)a->y)[r * a->n + c] = narrow(sum);
    }
  return OK;
}
EXPORT int cublasLtMatmul(void *h, void *d, const void *alpha, const void *w, layout *wl, const void *x, layout *xl, const void *beta,
                          const void *c, layout *cl, void *y, layout *yl, const void *algo, void *workspace, size_t size, stream *s) {
  CURRENT;
  ENTER;
  if (wl->rows != xl->rows || yl->rows != wl->cols || yl->cols != xl->cols || wl->ld != (int64_t)wl->rows) return 7;
  productArgs a = {(bf16 *)w, (bf16 *)x, y, xl->cols, wl->cols, wl->rows, yl->type == 0};
  return submit(s, runProduct, &a, sizeof a);
}
