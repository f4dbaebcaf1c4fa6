/* 3x3 convolutions on planes (channels, height x width), as Fast Sparse ConvNets has them beside its sparse product
   (arXiv 1911.09723): depthwise ones, and a full one for the first layer. Stride 1 or 2, with 0 or 1 zeros above and to the left
   and as many below and to the right as the size of the output asks for. Bias first, clamp last, in the same pass. */

#include "vectors.h"

void spmm(const uint32_t *counts, const int32_t *steps, const float *values, int64_t blocks, int64_t pixels, int64_t plane,
          int block, float low, float high, int vectors, const float *x, float *y);

typedef struct {
  int64_t height, width, out_height, out_width; /* of planes */
  int64_t stride, pad;
} shape;

/* Columns c, c + 1 ... of a row, zeros where it has none. `inside`: it has all of them. */
static inline __attribute__((always_inline)) vec columns(const float *row, int64_t c, int64_t width, const int inside) {
  if (inside) return load(row + c);
  const int64_t from = c < 0 ? -c : 0, to = width - c;
  return load_between(row + c, (int)(from < LANES ? from : LANES), (int)(to < 0 ? 0 : to < LANES ? to : LANES));
}

/* A vector of GROUP rows of output below each other, beginning at column x. STRIDE, GROUP and inside are constants. */
static inline __attribute__((always_inline)) void group(const int STRIDE, const int GROUP, const int inside, const shape *s,
                                                        const float *const *rows, const vec *w, const vec *ends, int64_t x,
                                                        float *y) {
  const int64_t c = x * STRIDE - s->pad;
  vec sum[4];
#pragma GCC unroll 4
  for (int g = 0; g < GROUP; g++) sum[g] = w[9];
#pragma GCC unroll 8
  for (int r = 0; r < (GROUP - 1) * STRIDE + 3; r++) {
    vec left = columns(rows[r], c, s->width, inside), middle, right;
    if (STRIDE == 1) {
      middle = columns(rows[r], c + 1, s->width, inside);
      right = columns(rows[r], c + 2, s->width, inside);
    } else {
      const vec more = columns(rows[r], c + LANES, s->width, inside);
      middle = odds(left, more);
      left = evens(left, more);
      right = evens(columns(rows[r], c + 2, s->width, inside), columns(rows[r], c + 2 + LANES, s->width, inside));
    }
#pragma GCC unroll 4
    for (int g = 0; g < GROUP; g++) {
      const int k = r - g * STRIDE;
      if (k >= 0 && k < 3) sum[g] = fma_(left, w[3 * k], fma_(middle, w[3 * k + 1], fma_(right, w[3 * k + 2], sum[g])));
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < GROUP; g++) {
    const vec v = min_(max_(sum[g], ends[0]), ends[1]);
    if (inside) store(y + g * s->out_width + x, v);
    else store_some(y + g * s->out_width + x, v, (int)(s->out_width - x < LANES ? s->out_width - x : LANES));
  }
}

/* GROUP rows of output from `row` on. */
static inline __attribute__((always_inline)) void rows_of(const int STRIDE, const int GROUP, const shape *s, int64_t row,
                                                          const float *x, const vec *w, const vec *ends, float *y,
                                                          const float *zeros) {
  const float *rows[8];
  for (int r = 0; r < (GROUP - 1) * STRIDE + 3; r++) {
    const int64_t at = row * STRIDE - s->pad + r;
    rows[r] = at < 0 || at >= s->height ? zeros : x + at * s->width;
  }
  y += row * s->out_width;
  for (int64_t c = 0; c < s->out_width; c += LANES) {
    const int64_t first = c * STRIDE - s->pad, last = first + 2 + (LANES - 1) * STRIDE + (STRIDE - 1);
    if (first >= 0 && last < s->width && c + LANES <= s->out_width) group(STRIDE, GROUP, 1, s, rows, w, ends, c, y);
    else group(STRIDE, GROUP, 0, s, rows, w, ends, c, y);
  }
}

static inline __attribute__((always_inline)) void channel(const int STRIDE, const int GROUP, const shape *s, const float *x,
                                                          const vec *w, const vec *ends, float *y, const float *zeros) {
  int64_t row = 0;
  for (; row + GROUP <= s->out_height; row += GROUP) rows_of(STRIDE, GROUP, s, row, x, w, ends, y, zeros);
  for (; row < s->out_height; row++) rows_of(STRIDE, 1, s, row, x, w, ends, y, zeros);
}

/* x: (channels, height, width). weights: (channels, 9). zeros: as many as a row of x has. */
void depthwise(const float *weights, const float *biases, int64_t channels, int64_t height, int64_t width, int64_t out_height,
               int64_t out_width, int64_t stride, int64_t pad, float low, float high, const float *zeros, const float *x,
               float *y) {
  const shape s = {height, width, out_height, out_width, stride, pad};
  const vec ends[2] = {all(low), all(high)};
  for (int64_t c = 0; c < channels; c++) {
    vec w[10];
#pragma GCC unroll 9
    for (int k = 0; k < 9; k++) w[k] = all(weights[9 * c + k]);
    w[9] = all(biases[c]);
    if (stride == 1) channel(1, 4, &s, x, w, ends, y, zeros);
    else channel(2, 2, &s, x, w, ends, y, zeros);
    x += height * width;
    y += out_height * out_width;
  }
}

/* The full convolution copies the rows that a row of output reads, in the form in which every tap is a run of floats: with the
   zeros at both ends and, for stride 2, even and odd places apart. Then the row is a sparse product of weights with taps. */

int64_t floats_of_a_run(int64_t width, int64_t out_width, int64_t stride, int64_t pad) {
  const int64_t read = out_width + (stride == 1 ? 2 : 1), written = (width + pad + stride - 1) / stride;
  return read > written ? read : written;
}

/* Row y of a plane. Its taps are at 0, 1 and 2; for stride 2 at 0, run and 1. */
static void copy_row(const shape *s, const float *plane, int64_t y, int64_t run, float *to) {
  memset(to, 0, (size_t)(run * s->stride) * sizeof(float));
  if (y < 0 || y >= s->height) return;
  const float *from = plane + y * s->width;
  if (s->stride == 1) {
    memcpy(to + s->pad, from, (size_t)s->width * sizeof(float));
    return;
  }
  float *even = s->pad ? to + run : to, *odd = s->pad ? to + 1 : to + run; /* of the input: padding shifts places by one */
  int64_t x = 0;
  for (; x + 2 * LANES <= s->width; x += 2 * LANES) {
    const vec a = load(from + x), b = load(from + x + LANES);
    store(even + x / 2, evens(a, b));
    store(odd + x / 2, odds(a, b));
  }
  for (; x < s->width; x++) (x % 2 ? odd : even)[x / 2] = from[x];
}

/* steps: bytes from tap to tap in scratch, where row r of channel c begins at (3 c + r) * stride * run; first: float of the first
   tap. scratch: 3 * channels * stride * run floats. */
void full(const uint32_t *counts, const int32_t *steps, const float *values, int64_t blocks, int block, int vectors,
          int64_t first, int64_t channels, int64_t height, int64_t width, int64_t out_height, int64_t out_width,
          int64_t stride, int64_t pad, float low, float high, float *scratch, const float *x, float *y) {
  const shape s = {height, width, out_height, out_width, stride, pad};
  const int64_t run = floats_of_a_run(width, out_width, stride, pad);
  for (int64_t row = 0; row < out_height; row++) {
    for (int64_t c = 0; c < channels; c++)
      for (int64_t r = 0; r < 3; r++)
        copy_row(&s, x + c * height * width, row * stride - pad + r, run, scratch + (3 * c + r) * stride * run);
    spmm(counts, steps, values, blocks, out_width, out_height * out_width, block, low, high, vectors, scratch + first,
         y + row * out_width);
  }
}
