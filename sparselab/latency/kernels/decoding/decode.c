/* One token of a decoder-only transformer, all layers in one call. Every matrix may be dense, skip inputs, or be coded. */

#include "decode.h"

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#define BARRIER _Pragma("omp barrier")
#else
#define BARRIER
#endif

static int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t widest(const network *n) { return padded(larger(larger(n->width, n->inner), n->heads * n->dim)); }

/* Shared: q, k, v, what attention read, two outputs, mid. Each thread: x, normed, values, list, gate, up, a head, scores. */
static int64_t shared_floats(const network *n) { return 7 * (widest(n) + 16); }
static int64_t own_floats(const network *n) { return 9 * (widest(n) + 16) + padded(n->longest) + 64; }
int64_t scratch_floats(const network *n) { return shared_floats(n) + n->threads * own_floats(n); }
int64_t widest_of(const network *n) { return widest(n); }
int64_t size_of(int what) { return what == 0 ? sizeof(matrix) : what == 1 ? sizeof(layer) : sizeof(network); }
int lanes_of_a_vector(void) { return LANES; }

/* The part of `outputs` of thread `t`, in sixteens. */
static void part(int64_t outputs, int t, int threads, int64_t *from, int64_t *to) {
  int64_t pieces = outputs / 16;
  *from = pieces * t / threads * 16, *to = pieces * (t + 1) / threads * 16;
}

static inline float power(float x) { /* e^x to a few units of the last place, in a form that compilers vectorise */
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f, r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f, p = p * r + 8.3334519073e-3f, p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f, p = p * r + 5.0000001201e-1f, p = p * r * r + r + 1.0f;
  union { int32_t i; float f; } two = {((int32_t)n + 127) << 23};
  return p * two.f;
}

static void activate(float *x, int64_t from, int64_t to, int act) {
  if (act == SILU)
    for (int64_t i = from; i < to; i++) x[i] = x[i] / (1.0f + power(-x[i]));
  else if (act == GELU)
    for (int64_t i = from; i < to; i++) x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
  else if (act == GELU_TANH)
    for (int64_t i = from; i < to; i++)
      x[i] = x[i] / (1.0f + power(-1.59576912f * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
  else
    for (int64_t i = from; i < to; i++) x[i] = x[i] > 0 ? x[i] : 0;
}

static void normalise(const float *x, float *y, const float *gain, const float *shift, int64_t n, int kind, float eps) {
  double sum = 0, squares = 0;
  if (kind == LAYER)
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i];
  float mean = (float)(sum / n);
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; i++) squares += (double)(x[i] - mean) * (x[i] - mean);
  float scale = 1.0f / sqrtf((float)(squares / n) + eps);
  for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * gain[i] + (shift ? shift[i] : 0);
}

/* Which entries are larger than `limit`, and their values. */
static int64_t choose(const float *x, int64_t n, float limit, int32_t *list, float *values) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) list[count] = (int32_t)i, values[count] = x[i], count += fabsf(x[i]) > limit;
  return count;
}

typedef struct { /* an input: whole, and what of it is read */
  const float *x;
  const int32_t *list;
  const float *values;
  int64_t count;
} input;

static void multiply(const matrix *m, const input *in, float *y, int64_t from, int64_t to) {
  if (m->form == COLUMNS) {
    if (m->bias) memcpy(y + from, m->bias + from, (to - from) * sizeof(float));
    else memset(y + from, 0, (to - from) * sizeof(float));
    if (m->half) columns_half(m->values, m->stride, in->values, in->list, in->count, y, from, to);
    else columns_float(m->values, m->stride, in->values, in->list, in->count, y, from, to);
    return;
  }
  if (m->form == CODED) {
    if (m->half) coded_half(m->values, m->bits, m->starts, m->stride, in->x, y, from, to);
    else coded_float(m->values, m->bits, m->starts, m->stride, in->x, y, from, to);
  } else if (m->half) dots_half(m->values, m->stride, in->x, y, 0, from, to);
  else dots_float(m->values, m->stride, in->x, y, 0, from, to);
  if (m->bias)
    for (int64_t i = from; i < to; i++) y[i] += m->bias[i];
}

static void fill_places(void) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  for (int mask = 0; mask < 256; mask++)
    for (int lane = 0, at = 0; lane < 8; lane++) places[mask][lane] = mask >> lane & 1 ? at++ : (int32_t)0x80000000;
#endif
}

/* One matrix with one vector: x (inputs padded to 16), y (outputs). limit: entries that are not larger are skipped. */
int64_t product(const matrix *m, const float *x, float limit, float *y, int32_t *list, float *values, int threads) {
  fill_places();
  input in = {x, list, values, m->inputs};
  if (m->form == COLUMNS) in.count = choose(x, m->inputs, limit, list, values);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#ifdef _OPENMP
    int t = omp_get_thread_num(), all_of_them = omp_get_num_threads();
#else
    int t = 0, all_of_them = 1;
#endif
    int64_t from, to;
    part(m->outputs, t, all_of_them, &from, &to);
    if (from < to) multiply(m, &in, y, from, to);
  }
  return in.count;
}

/* The sum of n floats, n a multiple of 16: what reading memory costs where nothing else is done. */
float sum_of(const float *p, int64_t n, int threads) {
  float sum = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(+ : sum) schedule(static)
  for (int64_t block = 0; block < (n + 65535) / 65536; block++) {
    const float *end = p + (65536 * (block + 1) < n ? 65536 * (block + 1) : n);
    vec s = all(0), t = all(0);
    const float *at = p + 65536 * block;
    for (; at + 2 * LANES <= end; at += 2 * LANES) s = s + load(at), t = t + load(at + LANES);
    for (; at + LANES <= end; at += LANES) s = s + load(at);
    sum += total(s + t);
  }
  return sum;
}

static void turn(float *head, const network *n, int64_t position) {
  int64_t half = n->rotary / 2;
  const float *c = n->cosine + position * half, *s = n->sine + position * half;
  for (int64_t i = 0; i < half; i++) {
    float a = head[i], b = head[i + half];
    head[i] = a * c[i] - b * s[i], head[i + half] = b * c[i] + a * s[i];
  }
}

/* The heads that read group `g`: q and k are turned, k and v go into the cache, what they read goes to `out`. */
static void attend(const network *n, const layer *l, int64_t g, float *q, float *k, const float *v, float *out, float *head,
                   float *scores, int64_t position) {
  int64_t dim = n->dim, wide = padded(dim), each = n->heads / n->groups;
  float *keys = l->keys + g * n->longest * wide, *kept = l->kept + g * n->longest * wide;
  k += g * dim;
  if (l->k_norm) normalise(k, k, l->k_norm, 0, dim, RMS, n->eps);
  if (l->rotated) turn(k, n, position);
  memcpy(keys + position * wide, k, dim * sizeof(float));
  memcpy(kept + position * wide, v + g * dim, dim * sizeof(float));
  int64_t first = l->window && position + 1 > l->window ? position + 1 - l->window : 0;
  for (int64_t h = g * each; h < (g + 1) * each; h++) {
    memset(head, 0, wide * sizeof(float));
    memcpy(head, q + h * dim, dim * sizeof(float));
    if (l->q_norm) normalise(head, head, l->q_norm, 0, dim, RMS, n->eps);
    if (l->rotated) turn(head, n, position);
    float most = -INFINITY, sum = 0;
    for (int64_t p = first; p <= position; p++) {
      vec s = all(0);
      for (int64_t i = 0; i < wide; i += LANES) s = fma_(load(keys + p * wide + i), load(head + i), s);
      float score = total(s) * n->scale;
      if (n->cap > 0) score = n->cap * tanhf(score / n->cap);
      scores[p] = score, most = score > most ? score : most;
    }
    for (int64_t p = first; p <= position; p++) scores[p] = power(scores[p] - most), sum += scores[p];
    memset(head, 0, wide * sizeof(float));
    for (int64_t p = first; p <= position; p++) {
      vec share = all(scores[p] / sum);
      for (int64_t i = 0; i < wide; i += LANES) store(head + i, fma_(load(kept + p * wide + i), share, load(head + i)));
    }
    memcpy(out + h * dim, head, dim * sizeof(float));
  }
}

static void keep(const network *n, int64_t l, int site, const float *x, int64_t count) {
  if (n->record) memcpy(n->record + (l * SITES + site) * widest(n), x, count * sizeof(float));
}

/* An input of which entries are skipped; thread 0 counts. */
static input site(const network *n, int64_t l, int which, const float *x, int64_t count, int32_t *list, float *values, int t) {
  input in = {x, list, values, choose(x, count, n->layer[l].limit[which], list, values)};
  if (t == 0) n->active[l * SITES + which] += in.count, keep(n, l, which, x, count);
  return in;
}

static void mlp(const network *n, const layer *l, int64_t number, const input *in, float *gate, float *up, float *mid,
                int32_t *list, float *values, int t, int threads) {
  int64_t from, to, most = n->inner;
  part(l->up.outputs, t, threads, &from, &to);
  int64_t end = to < most ? to : most;
  if (!l->gate.values) {
    multiply(&l->up, in, mid, from, to);
    activate(mid, from, end, n->act);
    return;
  }
  multiply(&l->gate, in, gate, from, to);
  activate(gate, from, end, n->act);
  if (l->gates) { /* only the survivors' rows of `up` are read */
    int64_t count = 0;
    for (int64_t i = from; i < end; i++) list[count] = (int32_t)i, count += fabsf(gate[i]) > l->gates[i];
    if (l->up.half) dots_half(l->up.values, l->up.stride, in->x, up, list, 0, count);
    else dots_float(l->up.values, l->up.stride, in->x, up, list, 0, count);
    for (int64_t i = from; i < end; i++) mid[i] = 0;
    for (int64_t k = 0; k < count; k++) {
      int32_t i = list[k];
      mid[i] = gate[i] * (up[i] + (l->up.bias ? l->up.bias[i] : 0));
    }
  } else {
    multiply(&l->up, in, up, from, to);
    for (int64_t i = from; i < end; i++) mid[i] = gate[i] * up[i];
  }
  if (n->record) {
    float *at = n->record + (number * SITES + GATE) * widest(n);
    memcpy(at + from, gate + from, (end - from) * sizeof(float));
    if (!l->gates) memcpy(at + widest(n) + from, up + from, (end - from) * sizeof(float));
  }
}

static void add(const network *n, float *x, float *given, const float *after, float *room) {
  const float *what = given;
  if (after) normalise(given, room, after, 0, n->width, RMS, n->eps), what = room;
  for (int64_t i = 0; i < n->width; i++) x[i] += what[i];
}

static void step(const network *n, int64_t token, int64_t position, float *logits, int t, int threads) {
  int64_t wide = widest(n) + 16, width = n->width, from, to;
  float *q = n->scratch, *k = q + wide, *v = k + wide, *read = v + wide, *one = read + wide, *two = one + wide;
  float *mid = two + wide, *x = n->scratch + shared_floats(n) + t * own_floats(n), *normed = x + wide;
  float *values = normed + wide, *gate = values + wide, *up = gate + wide, *head = up + wide, *room = head + wide;
  int32_t *list = (int32_t *)(room + wide);
  float *scores = room + 2 * wide;
  for (int64_t i = 0; i < width; i++) {
    union { uint32_t u; float f; } wide_value;
    if (n->half) wide_value.u = (uint32_t)((const uint16_t *)n->embedding)[token * padded(width) + i] << 16;
    else wide_value.f = ((const float *)n->embedding)[token * padded(width) + i];
    x[i] = wide_value.f * n->embedded + (n->positions ? n->positions[position * width + i] : 0);
  }
  for (int64_t number = 0; number < n->layers; number++) {
    const layer *l = n->layer + number;
    normalise(x, normed, l->norm[0], l->shift[0], width, n->norm, n->eps);
    input in = site(n, number, ATTENTION_IN, normed, width, list, values, t);
    part(l->q.outputs, t, threads, &from, &to), multiply(&l->q, &in, q, from, to);
    part(l->k.outputs, t, threads, &from, &to), multiply(&l->k, &in, k, from, to);
    part(l->v.outputs, t, threads, &from, &to), multiply(&l->v, &in, v, from, to);
    BARRIER
    for (int64_t g = n->groups * t / threads; g < n->groups * (t + 1) / threads; g++)
      attend(n, l, g, q, k, v, read, head, scores, position);
    BARRIER
    in = site(n, number, ATTENTION_OUT, read, n->heads * n->dim, list, values, t);
    part(l->o.outputs, t, threads, &from, &to), multiply(&l->o, &in, one, from, to);
    BARRIER
    if (!n->parallel) add(n, x, one, l->after[0], room);
    normalise(x, normed, l->norm[1], l->shift[1], width, n->norm, n->eps);
    if (n->parallel) add(n, x, one, l->after[0], room);
    in = site(n, number, MLP_IN, normed, width, list, values, t);
    mlp(n, l, number, &in, gate, up, mid, (int32_t *)room, values, t, threads);
    BARRIER
    in = site(n, number, MLP_MID, mid, n->inner, list, values, t);
    part(l->down.outputs, t, threads, &from, &to), multiply(&l->down, &in, two, from, to);
    BARRIER
    add(n, x, two, l->after[1], room);
  }
  normalise(x, normed, n->last, n->last_shift, width, n->norm, n->eps);
  input in = {normed, list, values, width};
  part(n->head.outputs, t, threads, &from, &to), multiply(&n->head, &in, logits, from, to);
  if (n->last_cap > 0)
    for (int64_t i = from; i < to; i++) logits[i] = n->last_cap * tanhf(logits[i] / n->last_cap);
}

static void replayed(const network *n, int t, int threads) {
  int64_t wide = widest(n) + 16, from, to;
  float *q = n->scratch, *one = q + 4 * wide, *two = one + wide, *mid = two + wide;
  float *x = n->scratch + shared_floats(n) + t * own_floats(n), *values = x + 2 * wide, *gate = x + 3 * wide;
  float *up = x + 4 * wide, *room = x + 6 * wide;
  int32_t *list = (int32_t *)(x + 7 * wide);
  for (int64_t number = 0; number < n->layers; number++) {
    const layer *l = n->layer + number;
    const float *at = n->record + number * SITES * widest(n);
    input in = {at, list, values, choose(at, n->width, l->limit[ATTENTION_IN], list, values)};
    part(l->q.outputs, t, threads, &from, &to), multiply(&l->q, &in, q, from, to);
    part(l->k.outputs, t, threads, &from, &to), multiply(&l->k, &in, q + wide, from, to);
    part(l->v.outputs, t, threads, &from, &to), multiply(&l->v, &in, q + 2 * wide, from, to);
    in.x = at + widest(n), in.count = choose(in.x, n->heads * n->dim, l->limit[ATTENTION_OUT], list, values);
    part(l->o.outputs, t, threads, &from, &to), multiply(&l->o, &in, one, from, to);
    in.x = at + 2 * widest(n), in.count = choose(in.x, n->width, l->limit[MLP_IN], list, values);
    network silent = *n;
    silent.record = 0;
    mlp(&silent, l, number, &in, gate, up, mid, (int32_t *)room, values, t, threads);
    in.x = at + 3 * widest(n), in.count = choose(in.x, n->inner, l->limit[MLP_MID], list, values);
    part(l->down.outputs, t, threads, &from, &to), multiply(&l->down, &in, two, from, to);
    BARRIER
  }
}

/* The products of all blocks on inputs that were recorded, and nothing else. */
void replay(const network *n) {
  fill_places();
#ifdef _OPENMP
  if (n->threads > 1) {
#pragma omp parallel num_threads(n->threads)
    replayed(n, omp_get_thread_num(), omp_get_num_threads());
    return;
  }
#endif
  replayed(n, 0, 1);
}

/* Read `token` at `position`; logits (vocabulary padded to 16). */
void decode_token(const network *n, int64_t token, int64_t position, float *logits) {
  fill_places();
#ifdef _OPENMP
  if (n->threads > 1) {
#pragma omp parallel num_threads(n->threads)
    step(n, token, position, logits, omp_get_thread_num(), omp_get_num_threads());
    return;
  }
#endif
  step(n, token, position, logits, 0, 1);
}
