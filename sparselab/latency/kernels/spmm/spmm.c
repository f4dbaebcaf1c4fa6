/* Y[outputs, pixels] = clamp(W X + b, low, high) with a sparse W and planes X[inputs, pixels], as in Fast Sparse ConvNets (arXiv 1911.09723).

   W is packed in blocks of B consecutive outputs that share their inputs (sparselab/latency/kernels/packing.py): per block the
   number of kept inputs, per kept input B values after the block's B biases, and the steps in bytes from one kept plane to the
   next, beginning at the first kept one.

   Pixels are the outer loop: a chunk of T vectors of every plane stays in the first-level cache while all rows read it. T and B
   are constants in each copy of `chunk`, so that its T x B sums live in registers; the last vector is masked, because a scalar
   tail alone would double the small layers. */

#include "vectors.h"

enum { MOST = 8 }; /* vectors of a chunk */

typedef struct {
  const uint32_t *counts; /* per block: kept inputs */
  const int32_t *steps;   /* bytes */
  const float *values;
  int64_t blocks, plane; /* plane: floats from one plane of Y to the next */
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
      float *out = y + (block * B + b) * w->plane;
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

/* block: 1, 2 or 4 outputs. vectors: most of a chunk, 1 to 8; the chunks are as equal as can be. pixels may be a part of a
   plane of Y (a row of it): plane floats lie between two of them. */
void spmm(const uint32_t *counts, const int32_t *steps, const float *values, int64_t blocks, int64_t pixels, int64_t plane,
          int block, float low, float high, int vectors, const float *x, float *y) {
  const matrix w = {counts, steps, values, blocks, plane, low, high};
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
