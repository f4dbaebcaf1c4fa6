/* Vectors of floats: AVX-512, AVX2 or whatever the compiler's vector types give. */

#pragma once

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
static inline vec load_between(const float *p, int from, int to) { /* lanes from .. to - 1, zeros elsewhere */
  return _mm512_maskz_loadu_ps((__mmask16)(((1u << to) - 1) & ~((1u << from) - 1)), p);
}
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
static inline vec load_between(const float *p, int from, int to) {
  return _mm256_maskload_ps(p, _mm256_andnot_si256(lanes(from), lanes(to)));
}
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
static inline vec load_between(const float *p, int from, int to) {
  vec v = {0};
  for (int i = from; i < to; i++) v[i] = p[i];
  return v;
}
static inline vec all(float x) { return (vec){x, x, x, x}; }
static inline vec fma_(vec a, vec b, vec c) { return a * b + c; }
typedef int32_t ivec __attribute__((vector_size(16)));
static inline vec pick(ivec first, vec a, vec b) { return (vec)((first & (ivec)a) | (~first & (ivec)b)); }
static inline vec max_(vec a, vec b) { return pick(a > b, a, b); }
static inline vec min_(vec a, vec b) { return pick(a < b, a, b); }
#endif

/* The floats at even places of two vectors. */
#if defined(__AVX512F__)
static inline vec evens(vec a, vec b) {
  return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
}
static inline vec odds(vec a, vec b) {
  return _mm512_permutex2var_ps(a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
}
#elif defined(__AVX2__) && defined(__FMA__)
static inline vec in_order(vec v) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)); } /* a b a b */
static inline vec evens(vec a, vec b) { return in_order(_mm256_shuffle_ps(a, b, 0x88)); }
static inline vec odds(vec a, vec b) { return in_order(_mm256_shuffle_ps(a, b, 0xdd)); }
#else
static inline vec evens(vec a, vec b) { return (vec){a[0], a[2], b[0], b[2]}; }
static inline vec odds(vec a, vec b) { return (vec){a[1], a[3], b[1], b[3]}; }
#endif
