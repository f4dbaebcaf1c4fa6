/* Y[outputs, pixels] = clamp(W X + b, low, high) with a sparse W and planes X[inputs, pixels], as in Fast Sparse ConvNets (arXiv 1911.09723).

   W is packed in blocks of B consecutive outputs that share their inputs (sparselab/kernels/packing.py): per block the
   number of kept inputs, per kept input B values after the block's B biases, and the steps in bytes from one kept plane to the
   next, beginning at the first kept one.

   Pixels are the outer loop: a chunk of T vectors of every plane stays in the first-level cache while all rows read it. T and B
   are constants in each copy of `chunk`, so that its T x B sums live in registers; the last vector is masked, because a scalar
   tail alone would double the small layers. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define SUMS 24 /* of 32 registers */
typedef __m512 vec;
static inline vec load(const float *p) { return _mm512_loadu_ps(p); }
static inline vec load_some(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline void store(float *p, vec v) { _mm512_storeu_ps(p, v); }
static inline void store_some(float *p, vec v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
static inline vec all(float x) { return _mm512_set1_ps(x); }
static inline vec fma_(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec max_(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec min_(vec a, vec b) { return _mm512_min_ps(a, b); }
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
#define SUMS 12 /* of 16 registers */
typedef __m256 vec;
static inline __m256i lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vec load(const float *p) { return _mm256_loadu_ps(p); }
static inline vec load_some(const float *p, int n) { return _mm256_maskload_ps(p, lanes(n)); }
static inline void store(float *p, vec v) { _mm256_storeu_ps(p, v); }
static inline void store_some(float *p, vec v, int n) { _mm256_maskstore_ps(p, lanes(n), v); }
static inline vec all(float x) { return _mm256_set1_ps(x); }
static inline vec fma_(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec max_(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec min_(vec a, vec b) { return _mm256_min_ps(a, b); }
#else /* any compiler with vector types: NEON, SSE */
#define LANES 4
#define SUMS 24
typedef float vec __attribute__((vector_size(16)));
static inline vec load(const float *p) { vec v; memcpy(&v, p, sizeof v); return v; }
static inline vec load_some(const float *p, int n) { vec v = {0}; memcpy(&v, p, (size_t)n * sizeof(float)); return v; }
static inline void store(float *p, vec v) { memcpy(p, &v, sizeof v); }
static inline void store_some(float *p, vec v, int n) { memcpy(p, &v, (size_t)n * sizeof(float)); }
static inline vec all(float x) { return (vec){x, x, x, x}; }
static inline vec fma_(vec a, vec b, vec c) { return a * b + c; }
typedef int32_t ivec __attribute__((vector_size(16)));
static inline vec pick(ivec first, vec a, vec b) { return (vec)((first & (ivec)a) | (~first & (ivec)b)); }
static inline vec max_(vec a, vec b) { return pick(a > b, a, b); }
static inline vec min_(vec a, vec b) { return pick(a < b, a, b); }
#endif

enum { MOST = 8 }; /* vectors of a chunk */

typedef struct {
  const uint32_t *counts; /* per block: kept inputs */
  const int32_t *steps;   /* bytes */
  const float *values;
  int64_t blocks, pixels;
  float low, high;
} matrix;

/* One chunk of T vectors, of which the last has `tail` lanes, for all rows. */
static inline __attribute__((always_inline)) void chunk(const int T, const int B, const matrix *w, const float *x, float *y,
                                                        const int tail) {
  const int32_t *step = w->steps;
  const float *value = w->values;
  const vec low = all(w->low), high = all(w->high);
  for (int64_t block = 0; block < w->blocks; block++) {
    vec sum[4][MOST];
#pragma GCC unroll 4
    for (int b = 0; b < B; b++)
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) sum[b][t] = all(value[b]);
    value += B;
    for (uint32_t kept = w->counts[block]; kept > 0; kept--) {
      vec in[MOST];
#pragma GCC unroll 8
      for (int t = 0; t < T - 1; t++) in[t] = load(x + t * LANES);
      in[T - 1] = tail == LANES ? load(x + (T - 1) * LANES) : load_some(x + (T - 1) * LANES, tail);
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) {
        const vec weight = all(value[b]);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) sum[b][t] = fma_(in[t], weight, sum[b][t]);
      }
      value += B;
      x = (const float *)((const char *)x + *step++);
    }
#pragma GCC unroll 4
    for (int b = 0; b < B; b++) {
      float *out = y + (block * B + b) * w->pixels;
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) {
        const vec v = min_(max_(sum[b][t], low), high);
        if (t < T - 1 || tail == LANES) store(out + t * LANES, v);
        else store_some(out + t * LANES, v, tail);
      }
    }
  }
}

#define WHOLE_OR_NOT(T, B)                                       \
  static void chunk_##T##_##B(const matrix *w, const float *x, float *y, int tail) { \
    if (tail == LANES) chunk(T, B, w, x, y, LANES);              \
    else chunk(T, B, w, x, y, tail);                             \
  }
#define SIZES(B) WHOLE_OR_NOT(1, B) WHOLE_OR_NOT(2, B) WHOLE_OR_NOT(3, B) WHOLE_OR_NOT(4, B) WHOLE_OR_NOT(5, B) \
  WHOLE_OR_NOT(6, B) WHOLE_OR_NOT(7, B) WHOLE_OR_NOT(8, B)
SIZES(1) SIZES(2) SIZES(4)

typedef void (*worker)(const matrix *, const float *, float *, int);
#define ROW(B) {chunk_1_##B, chunk_2_##B, chunk_3_##B, chunk_4_##B, chunk_5_##B, chunk_6_##B, chunk_7_##B, chunk_8_##B}
static const worker WORKERS[3][MOST] = {ROW(1), ROW(2), ROW(4)};

int lanes_of_a_vector(void) { return LANES; }
int sums_in_registers(void) { return SUMS; }

/* block: 1, 2 or 4 outputs. vectors: most of a chunk, 1 to 8. The chunks are as equal as can be. */
void spmm(const uint32_t *counts, const int32_t *steps, const float *values, int64_t blocks, int64_t pixels, int block,
          float low, float high, int vectors, const float *x, float *y) {
  const matrix w = {counts, steps, values, blocks, pixels, low, high};
  const worker *sized = WORKERS[block == 4 ? 2 : block - 1];
  const int64_t all_vectors = (pixels + LANES - 1) / LANES;
  const int64_t chunks = (all_vectors + vectors - 1) / vectors;
  const int last = (int)(pixels - (all_vectors - 1) * LANES);
  int64_t at = 0;
  for (int64_t c = 0; c < chunks; c++) {
    const int64_t size = all_vectors / chunks + (c < all_vectors % chunks);
    sized[size - 1](&w, x + at * LANES, y + at * LANES, c == chunks - 1 ? last : LANES);
    at += size;
  }
}
