/* Products of a matrix with one vector, where the time is in reading the weights: dense, with inputs that are skipped, and
with weights that are kept as their non-zero values. */

#pragma once

#include "../spmm/vectors.h"

#define FAR 2048 /* bytes ahead that are fetched */
static inline void FETCH(const void *p, int64_t bytes) { /* the lines that `bytes` cover, FAR ahead */
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)p + FAR + at, 0, 3);
}

#if defined(__AVX512F__)
static inline float total(vec v) { return _mm512_reduce_add_ps(v); }
static inline vec half(const uint16_t *p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline vec spread(vec v, unsigned mask) { return _mm512_maskz_expand_ps((__mmask16)mask, v); }
#elif defined(__AVX2__) && defined(__FMA__)
static inline float total(vec v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline vec half(const uint16_t *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
static int32_t places[256][8]; /* for each mask, which of the values stands in each lane; of lanes without one, a sign bit */
static inline vec spread(vec v, unsigned mask) {
  __m256i place = _mm256_loadu_si256((const __m256i *)places[mask]);
  __m256 kept = _mm256_castsi256_ps(_mm256_srai_epi32(place, 31));
  return _mm256_andnot_ps(kept, _mm256_permutevar8x32_ps(v, place));
}
#else
static inline float total(vec v) { return v[0] + v[1] + v[2] + v[3]; }
static inline vec half(const uint16_t *p) {
  union { uint32_t u[4]; vec v; } wide;
  for (int i = 0; i < 4; i++) wide.u[i] = (uint32_t)p[i] << 16;
  return wide.v;
}
static inline vec spread(vec v, unsigned mask) {
  vec out = {0};
  for (int i = 0, at = 0; i < 4; i++)
    if (mask >> i & 1) out[i] = v[at++];
  return out;
}
#endif

#define WEIGHT float
#define GET load
#define NAME(x) x##_float
#include "products.inc"
#undef WEIGHT
#undef GET
#undef NAME
#define WEIGHT uint16_t
#define GET half
#define NAME(x) x##_half
#include "products.inc"
#undef WEIGHT
#undef GET
#undef NAME
