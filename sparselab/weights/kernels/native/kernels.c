/* Masks at memory speed on a CPU. Every function here has a plain twin in torch, and tests that they agree bit by bit.

   Scores are compared as integers: the bits of a non-negative float order as it does, those of a negative one backwards,
   and -0 counts as 0. Products with a mask are products with 0 or 1, signs of zero included, as torch makes them. The
   compiler must not fuse a product with a sum (-ffp-contract=off), or results would depend on the machine. */

#include <stdint.h>
#include <string.h>

#define LANES 8
#define LARGEST_GROUP 256 /* the same in build.py */
#define PAIRS_UP_TO 15    /* group size up to which comparing all pairs is faster than a network (measured) */
#define CHUNK 16384       /* elements that one thread takes at a time */

typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

/* (bits ^ (sign & FLIP)) & KEEP: an integer that orders as the score does, or as its size where magnitude is asked for. */
#define FLIP(magnitude) ((magnitude) ? 0 : 0x7fffffff)
#define KEEP(magnitude) ((magnitude) ? 0x7fffffff : -1)
#define KEY(bits, flip, keep) (((bits) ^ (((bits) >> 31) & (flip))) & (keep))
#define INLINE static inline __attribute__((always_inline))
#define NOT_FINITE(bits) (((bits) & 0x7f800000) == 0x7f800000)

static inline int32_t bits_of(float x) {
    int32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline floats load(const float *x) {
    floats value;
    memcpy(&value, x, sizeof value);
    return value;
}

static inline int any(ints flags) {
    int found = 0;
    for (int l = 0; l < LANES; l++) found |= flags[l];
    return found != 0;
}

/* Eight of a mask as 0.0 and 1.0. */
INLINE floats flags(const uint8_t *mask) {
    ints wide;
#ifdef __AVX2__
    typedef char sixteen __attribute__((vector_size(16)));
    typedef int64_t two __attribute__((vector_size(16)));
    int64_t eight;
    memcpy(&eight, mask, sizeof eight);
    wide = __builtin_ia32_pmovzxbd256((sixteen)(two){eight, 0});
#else
    for (int l = 0; l < LANES; l++) wide[l] = mask[l];
#endif
    return __builtin_convertvector(wide, floats);
}

/* Eight values to their place. `stream`: past the caches, which saves reading what is about to be overwritten; for
   places that are not read soon and are written one after the other (lines of 64 bytes are put together on the way). */
INLINE void put(float *out, floats value, int stream) {
#ifdef __AVX__
    if (stream && !((uintptr_t)out & (sizeof value - 1))) {
        __builtin_ia32_movntps256(out, value);
        return;
    }
#endif
    memcpy(out, &value, sizeof value);
}

/* After streaming, before another thread looks. */
INLINE void settled(void) {
#ifdef __SSE__
    __builtin_ia32_sfence();
#endif
}

/* Eight decisions (-1 is kept, else 0) for eight values that lie side by side. */
INLINE void store(const float *x, uint8_t *mask, float *out, ints kept, int stream) {
    const bytes narrow = __builtin_convertvector(kept & 1, bytes);
    memcpy(mask, &narrow, sizeof narrow);
    if (!out) return;
    const floats one = {1, 1, 1, 1, 1, 1, 1, 1}, product = load(x) * (floats)(kept & (ints)one);
    put(out, product, stream);
}

/* N of M = 2, 4 or 8 side by side: eight values are compared with themselves, turned within their groups.
   A partner of lower index also wins a tie: x >= y is x > y - 1. */
INLINE int turned(
    const float *x, uint8_t *mask, float *out, int64_t begin, int64_t end, int m, int n, int magnitude) {
    const int32_t flip = FLIP(magnitude), keep = KEEP(magnitude);
    ints partner[8], lower[8], bad = {0};
    for (int r = 1; r < m; r++)
        for (int i = 0; i < 8; i++) {
            partner[r][i] = i / m * m + (i % m + r) % m;
            lower[r][i] = i % m + r >= m;
        }
    for (int64_t at = begin; at < end; at += 8) {
        const ints bits = (ints)(load(x + at) + 0.0f), key = KEY(bits, flip, keep);
        ints beaten = {0};
        bad |= NOT_FINITE(bits);
        for (int r = 1; r < m; r++) beaten -= __builtin_shuffle(key, partner[r]) > key - lower[r];
        store(x + at, mask + at, out ? out + at : 0, beaten < n, out != x);
    }
    return any(bad);
}

/* How the least of the n largest of m is found: `pairs` exchanges, after each of which the smaller is at low. */
typedef struct {
    int m, n, pairs;
    uint8_t low[LARGEST_GROUP * 16], high[LARGEST_GROUP * 16];
} Network;

/* Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2 M) without what place m - n does not need. */
static void plan(Network *net, int m, int n) {
    int top = 1, needed[LARGEST_GROUP] = {0}, kept = LARGEST_GROUP * 16;
    net->m = m, net->n = n, net->pairs = 0;
    while (top * 2 < m) top *= 2;
    for (int p = top; p > 0; p /= 2)
        for (int q = top, r = 0, d = p;; d = q - p, q /= 2, r = p) {
            for (int i = 0; i < m - d; i++)
                if ((i & p) == r) net->low[net->pairs] = i, net->high[net->pairs++] = i + d;
            if (q == p) break;
        }
    needed[m - n] = 1;
    for (int i = net->pairs - 1; i >= 0; i--) {
        const int low = net->low[i], high = net->high[i];
        if (!needed[low] && !needed[high]) continue;
        needed[low] = needed[high] = 1;
        kept--, net->low[kept] = low, net->high[kept] = high;
    }
    net->pairs = LARGEST_GROUP * 16 - kept;
    memmove(net->low, net->low + kept, net->pairs);
    memmove(net->high, net->high + kept, net->pairs);
}

/* In each lane the smaller to a, the larger to b. */
static inline void exchange(ints *a, ints *b) {
    const ints first = *a, second = *b;
#ifdef __AVX2__
    *a = __builtin_ia32_pminsd256(first, second), *b = __builtin_ia32_pmaxsd256(first, second);
#else
    const ints less = first < second, low = (first & less) | (second & ~less);
    *a = low, *b = first ^ second ^ low;
#endif
}

/* As choose, by comparing all pairs: for small m nothing waits for anything. */
INLINE void choose_by_pairs(ints *key, int stride, int m, int n) {
    ints kept[PAIRS_UP_TO];
    for (int i = 0; i < m; i++) {
        const ints own = key[i * stride];
        ints beaten = {0}, more = {0};
        int j = 0;
        for (; j + 1 < i; j += 2) beaten -= key[j * stride] >= own, more -= key[(j + 1) * stride] >= own;
        if (j < i) beaten -= key[j * stride] >= own;
        for (j = i + 1; j + 1 < m; j += 2) beaten -= key[j * stride] > own, more -= key[(j + 1) * stride] > own;
        if (j < m) more -= key[j * stride] > own;
        kept[i] = beaten + more < n;
    }
    for (int i = 0; i < m; i++) key[i * stride] = kept[i];
}

/* Who is kept, once the least that is kept is known: where no lane has more than n keys that reach it, nobody has a tie. */
INLINE void reach(ints *key, int stride, int m, int n, ints least) {
    ints count = {0};
#pragma GCC unroll 16
    for (int j = 0; j < m; j++) count -= key[j * stride] >= least;
    if (!any(count > n)) {
#pragma GCC unroll 16
        for (int j = 0; j < m; j++) key[j * stride] = key[j * stride] >= least;
        return;
    }
    ints room = {0};
    room += n;
    for (int j = 0; j < m; j++) room += key[j * stride] > least;
    for (int j = 0; j < m; j++) {
        const ints equal = key[j * stride] == least;
        key[j * stride] = (key[j * stride] > least) | (equal & (room > 0));
        room += equal;
    }
}

/* One pass of the network above over sixteen keys that the compiler keeps in registers. */
INLINE void pass(ints *key, int distance, int bit, int side) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        if ((i & bit) == side && i + distance < 16) exchange(key + i, key + i + distance);
}

/* As choose, of m = 16. */
INLINE void choose_of_16(ints *key, int stride, int n) {
    ints sorted[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++) sorted[j] = key[j * stride];
    pass(sorted, 8, 8, 0);
    pass(sorted, 4, 4, 0), pass(sorted, 4, 4, 4);
    pass(sorted, 2, 2, 0), pass(sorted, 6, 2, 2), pass(sorted, 2, 2, 2);
    pass(sorted, 1, 1, 0), pass(sorted, 7, 1, 1), pass(sorted, 3, 1, 1), pass(sorted, 1, 1, 1);
    reach(key, stride, 16, n, sorted[16 - n]);
}

static void some_of_16(ints *key, int stride, int n) { choose_of_16(key, stride, n); }

/* Of a number that the compiler knows, what the least does not depend on is left out. */
static void quarter_of_16(ints *key, int stride) { choose_of_16(key, stride, 4); }

/* The n largest of the m keys of every lane, lowest index first among equals: -1 in place of their keys, else 0.
   A group's keys are `stride` vectors apart. */
static void choose(ints *key, int stride, const Network *net) {
    const int m = net->m, n = net->n;
    if (m == 4) return choose_by_pairs(key, stride, 4, n); /* unrolled */
    if (m == 8) return choose_by_pairs(key, stride, 8, n);
    if (m == 16) return n == 4 ? quarter_of_16(key, stride) : some_of_16(key, stride, n);
    if (m <= PAIRS_UP_TO) return choose_by_pairs(key, stride, m, n);
    ints sorted[LARGEST_GROUP];
    for (int j = 0; j < m; j++) sorted[j] = key[j * stride];
    for (int i = 0; i < net->pairs; i++) exchange(sorted + net->low[i], sorted + net->high[i]);
    reach(key, stride, m, n, sorted[m - n]);
}

/* Eight rows of eight as eight columns, in place: elements, pairs, then halves change places. */
INLINE void transpose(ints *v) {
    const ints low1 = {0, 8, 1, 9, 4, 12, 5, 13}, high1 = {2, 10, 3, 11, 6, 14, 7, 15};
    const ints low2 = {0, 1, 8, 9, 4, 5, 12, 13}, high2 = {2, 3, 10, 11, 6, 7, 14, 15};
    const ints low4 = {0, 1, 2, 3, 8, 9, 10, 11}, high4 = {4, 5, 6, 7, 12, 13, 14, 15};
    ints a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2)
        a[i] = __builtin_shuffle(v[i], v[i + 1], low1), a[i + 1] = __builtin_shuffle(v[i], v[i + 1], high1);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int from = i / 2 * 4 + i % 2, to = i / 2 * 4 + i % 2 * 2;
        b[to] = __builtin_shuffle(a[from], a[from + 2], low2), b[to + 1] = __builtin_shuffle(a[from], a[from + 2], high2);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        v[i] = __builtin_shuffle(b[i], b[i + 4], low4), v[i + 4] = __builtin_shuffle(b[i], b[i + 4], high4);
}

/* Eight rows of (m, after) that lie one behind the other, a lane each. The last eight columns may overlap those before. */
INLINE int side_by_side(
    const float *x, uint8_t *mask, float *out, int after, const Network *net, int32_t flip, int32_t keep) {
    const int width = net->m * after;
    const ints bit = {1, 2, 4, 8, 16, 32, 64, 128};
    ints key[LARGEST_GROUP], bad = {0};
    for (int next = 0; next < width; next += LANES) {
        const int j = next + LANES <= width ? next : width - LANES;
        for (int l = 0; l < LANES; l++) {
            const ints bits = (ints)(load(x + l * width + j) + 0.0f);
            bad |= NOT_FINITE(bits);
            key[j + l] = KEY(bits, flip, keep);
        }
        transpose(key + j);
    }
    for (int group = 0; group < after; group++) choose(key + group, after, net);
    for (int next = 0; next < width; next += LANES) { /* back to rows: eight decisions as bits, then a vector each */
        const int j = next + LANES <= width ? next : width - LANES;
        ints packed = {0};
        int32_t row[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) packed |= key[j + i] & (1 << i);
        memcpy(row, &packed, sizeof row);
#pragma GCC unroll 8
        for (int l = 0; l < LANES; l++) {
            const int at = l * width + j;
            store(x + at, mask + at, out ? out + at : 0, (((ints){0} + row[l]) & bit) != 0, 0);
        }
    }
    return any(bad);
}

/* Eight groups whose first members lie side by side, and so on: member j is `stride` after member j - 1. */
static inline int abreast(
    const float *x, uint8_t *mask, float *out, int64_t stride, const Network *net, int32_t flip, int32_t keep) {
    const int m = net->m;
    ints key[LARGEST_GROUP], bad = {0};
    for (int j = 0; j < m; j++) {
        const ints bits = (ints)(load(x + j * stride) + 0.0f);
        bad |= NOT_FINITE(bits);
        key[j] = KEY(bits, flip, keep);
    }
    choose(key, 1, net);
    for (int j = 0; j < m; j++) store(x + j * stride, mask + j * stride, out ? out + j * stride : 0, key[j], 0);
    return any(bad);
}

/* Up to eight groups anywhere: member j of group l is at place[l] + j * stride. */
static inline int scattered(
    const float *x, uint8_t *mask, float *out, const int64_t *place, int count, int64_t stride, const Network *net,
    int32_t flip, int32_t keep) {
    const int m = net->m;
    ints key[LARGEST_GROUP], bad = {0};
    for (int j = 0; j < m; j++) {
        floats value = {0};
        for (int l = 0; l < count; l++) value[l] = x[place[l] + j * stride];
        const ints bits = (ints)(value + 0.0f);
        bad |= NOT_FINITE(bits);
        key[j] = KEY(bits, flip, keep);
    }
    choose(key, 1, net);
    for (int j = 0; j < m; j++)
        for (int l = 0; l < count; l++) {
            const int64_t at = place[l] + j * stride;
            mask[at] = (uint8_t)-key[j][l];
            if (out) out[at] = x[at] * (float)-key[j][l];
        }
    return any(bad);
}

/* Rows `begin` to `end` of (rows, m, after): each holds `after` groups. */
static int some_rows(
    const float *x, uint8_t *mask, float *out, int64_t begin, int64_t end, int64_t after, const Network *net, int magnitude) {
    const int m = net->m, n = net->n;
    const int32_t flip = FLIP(magnitude), keep = KEEP(magnitude);
    int bad = 0;
    if (after == 1 && 8 % m == 0) {
        const int64_t whole = begin + (end - begin) / 8 * 8;
        if (m == 2) bad |= turned(x, mask, out, begin * 2, whole * 2, 2, n, magnitude);
        if (m == 4) bad |= turned(x, mask, out, begin * 4, whole * 4, 4, n, magnitude);
        if (m == 8) bad |= turned(x, mask, out, begin * 8, whole * 8, 8, n, magnitude);
        begin = whole;
    } else if (after < 2 * LANES && after % LANES && m * after >= LANES && m * after <= LARGEST_GROUP) {
        for (; begin + LANES <= end; begin += LANES) {
            const int64_t at = begin * m * after;
            bad |= side_by_side(x + at, mask + at, out ? out + at : 0, (int)after, net, flip, keep);
        }
    } else if (after >= LANES) {
        for (; begin < end; begin++)
            for (int64_t lane = 0; lane < after; lane += LANES) { /* the last eight may overlap those before them */
                const int64_t at = begin * m * after + (lane + LANES <= after ? lane : after - LANES);
                bad |= abreast(x + at, mask + at, out ? out + at : 0, after, net, flip, keep);
            }
    }
    for (int64_t group = begin * after; group < end * after;) {
        int64_t place[LANES];
        int count = 0;
        for (; count < LANES && group < end * after; count++, group++)
            place[count] = group / after * after * m + group % after;
        bad |= scattered(x, mask, out, place, count, after, net, flip, keep);
    }
    return bad;
}

/* n of every m along the middle of (rows, m, after) are kept. out, where given, receives x times the mask; it may be x
   where magnitudes are ranked. Returns whether a score is not finite. */
int groups(const float *x, uint8_t *mask, float *out, int64_t rows, int64_t after, int m, int n, int magnitude, int threads) {
    const int64_t share = CHUNK / (m * after) / LANES * LANES + LANES;
    int bad = 0;
    Network net;
    plan(&net, m, n);
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : bad)
    for (int64_t begin = 0; begin < rows; begin += share) {
        bad |= some_rows(x, mask, out, begin, begin + share < rows ? begin + share : rows, after, &net, magnitude);
        settled();
    }
    return bad;
}

/* out = x * mask; out may be x. */
void masked(const float *x, const uint8_t *mask, float *out, int64_t total, int threads) {
    if (out == x) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
        for (int64_t i = 0; i < total; i++) out[i] = x[i] * (float)mask[i];
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t begin = 0; begin < total; begin += CHUNK) {
        const int64_t end = begin + CHUNK < total ? begin + CHUNK : total, whole = begin + (end - begin) / LANES * LANES;
        for (int64_t i = begin; i < whole; i += LANES) put(out + i, load(x + i) * flags(mask + i), 1);
        for (int64_t i = whole; i < end; i++) out[i] = x[i] * (float)mask[i];
        settled();
    }
}

/* grad += (value * x) * (1 - mask) */
void add_pruned(float *grad, const float *x, const uint8_t *mask, float value, int64_t total, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < total; i++) grad[i] += value * x[i] * (float)(1 - mask[i]);
}

/* Keys from low to high go to `found`, in order, as far as there is room. counts: keys above high, keys from low to high. */
void bracket(
    const float *x, int64_t total, int32_t low, int32_t high, int magnitude, int32_t *found, int64_t room, int64_t *counts) {
    const int32_t flip = FLIP(magnitude), keep = KEEP(magnitude);
    int64_t first = 0, above = 0, inside = 0;
#ifdef __AVX2__
    while (first + LANES <= total) { /* few are inside: eight at a time are asked whether one is */
        const int64_t end = first + CHUNK < total ? first + CHUNK : total;
        ints over = {0};
        for (; first + LANES <= end; first += LANES) {
            const ints bits = (ints)(load(x + first) + 0.0f), key = KEY(bits, flip, keep), larger = key > high;
            int left = __builtin_ia32_movmskps256((floats)((key >= low) & ~larger));
            over -= larger;
            if (!left) continue;
            int32_t row[LANES];
            memcpy(row, &key, sizeof row);
            for (; left; left &= left - 1, inside++)
                if (inside < room) found[inside] = row[__builtin_ctz(left)];
        }
        for (int l = 0; l < LANES; l++) above += over[l];
    }
#endif
    for (; first < total; first++) {
        const int32_t key = KEY(bits_of(x[first]), flip, keep);
        above += key > high;
        if (key < low || key > high) continue;
        if (inside < room) found[inside] = key;
        inside++;
    }
    counts[0] = above, counts[1] = inside;
}

/* How many keys that agree with `prefix` above shift + bits have each value of the `bits` bits above shift. */
void histogram(const float *x, int64_t total, uint32_t prefix, int shift, int bits, int magnitude, int64_t *counts) {
    const int32_t flip = FLIP(magnitude), keep = KEEP(magnitude);
    for (int64_t i = 0; i < total; i++) {
        const uint64_t key = (uint32_t)KEY(bits_of(x[i]), flip, keep) ^ 0x80000000u;
        if (key >> (shift + bits) == prefix) counts[key >> shift & ((1u << bits) - 1)]++;
    }
}

/* mask = key >= threshold, but of the keys at the threshold the last `surplus` go. */
void above(const float *x, uint8_t *mask, int64_t total, int32_t threshold, int64_t surplus, int magnitude, int threads) {
    const int32_t flip = FLIP(magnitude), keep = KEEP(magnitude);
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < total; i++) mask[i] = KEY(bits_of(x[i]), flip, keep) >= threshold;
    for (int64_t i = total - 1; surplus && i >= 0; i--)
        if (KEY(bits_of(x[i]), flip, keep) == threshold) mask[i] = 0, surplus--;
}
