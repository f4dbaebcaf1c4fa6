/* What a decoder-only transformer is made of, as one token sees it. native.py has the same structures, field by field. */

#pragma once

#include "products.h"

enum { DOTS, COLUMNS, CODED };                     /* how a matrix is kept */
enum { RMS, LAYER };                               /* norms */
enum { SILU, GELU, GELU_TANH, RELU };              /* activations */
enum { ATTENTION_IN, ATTENTION_OUT, MLP_IN, MLP_MID, GATE, UP, SITES }; /* places where inputs are counted or recorded */

typedef struct { /* y = W x + b; outputs and stride are multiples of 16 */
  int64_t outputs, inputs, stride;
  const void *values;
  const uint16_t *bits;  /* of coded weights */
  const int64_t *starts; /* of coded weights */
  const float *bias;     /* or NULL */
  int32_t form, half;    /* half: weights are bfloat16 */
} matrix;

typedef struct {
  matrix q, k, v, o, gate, up, down; /* gate.values is NULL where there is no gate */
  const float *norm[2], *shift[2];   /* before attention and MLP; shift: of a layer norm, or NULL */
  const float *after[2];             /* norms of what attention and MLP give, or NULL */
  const float *q_norm, *k_norm;      /* of each head, or NULL */
  const float *gates;                /* thresholds of the gate's entries (inner), or NULL */
  float *keys, *kept;                /* the cache: (groups, longest, dim padded) each */
  float limit[4];                    /* entries of a site that are not larger are skipped; below 0: none is */
  int32_t window, rotated;           /* positions that are seen, 0: all; whether positions turn queries and keys */
} layer;

typedef struct {
  int64_t width, heads, groups, dim, inner, vocabulary, layers, longest, rotary;
  int32_t norm, act, parallel, half, threads, pad;
  float eps, scale, cap, last_cap, embedded;
  const void *embedding;     /* (vocabulary, width padded) */
  const float *positions;    /* (longest, width) learned, or NULL */
  const float *cosine, *sine; /* (longest, rotary / 2) */
  const float *last, *last_shift;
  matrix head;
  layer *layer;
  float *scratch;            /* what scratch_floats says */
  int64_t *active;           /* (layers, SITES): entries that were read, summed over tokens */
  float *record;             /* (layers, SITES, widest) of this token, or NULL */
} network;
