/* The operators on a CPU, float32. One file of plain C: it compiles in a second or two, once, so
 * that a notebook hardly feels it (_native.py).
 *
 * Maps are (N, C, H, W) in memory, or (N, H, W, C) where `last` is set. Every function works on a
 * range of its outermost index, [from, to), with so many threads where OpenMP is there (SHARED, at
 * the end); else the caller shares the range. No result depends on how it is shared.
 *
 * The loops are written for the compiler's vectorizer: contiguous, without branches, on scratch
 * that stays in the first-level cache. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { NONE, BEFORE, AFTER }; /* where the ReLU stands */
enum { LANES = 32 };          /* pixels of a map that are normalized together, in planes */
enum { CACHED = 8192 };       /* numbers that stay in the first-level cache */

static inline float relu(float x) { return x < 0 ? 0 : x; } /* NaN stays NaN */

static inline float power(float s) { /* s^-0.75 */
    float r = 1 / sqrtf(s);
    return r * sqrtf(r);
}

/* s[i] = k + alpha * (the squares of i's `radius` neighbors on either side, `step` apart, and its
 * own) */
static inline void denominators(const float *restrict q, float *restrict s, long length, long step,
                                long radius, float alpha, float k) {
    if (radius == 2)
        for (long i = 0; i < length; i++)
            s[i] = k +
                   alpha *
                       (((q[i - 2 * step] + q[i - step]) + (q[i + step] + q[i + 2 * step])) + q[i]);
    else {
        for (long i = 0; i < length; i++) s[i] = q[i];
        for (long j = 1; j <= radius; j++)
            for (long i = 0; i < length; i++) s[i] += q[i - j * step] + q[i + j * step];
        for (long i = 0; i < length; i++) s[i] = k + alpha * s[i];
    }
}

static inline void normalize(const float *u, const float *s, float *y, long length) {
    for (long i = 0; i < length; i++) y[i] = u[i] * power(s[i]);
}

/* One column of maps, `stride` apart, at LANES pixels: y = LRN(x), or the gradient in place of y
 * where dy is given. q, w, t: (maps, LANES) each, which stay in the cache; q and t have zeros
 * around them, which end the windows. */
static inline void lanes(const float *restrict x, const float *bias, const float *restrict dy,
                         float *restrict y, long maps, long stride, long radius, float alpha,
                         float beta, float k, const int order, float *restrict q, float *restrict w,
                         float *restrict t) {
    for (long c = 0; c < maps; c++) {
        const float b = bias ? bias[c] : 0;
        for (long i = 0; i < LANES; i++) {
            float raw = x[c * stride + i] + b, u = order == BEFORE ? relu(raw) : raw;
            q[c * LANES + i] = u * u;
        }
        /* the next ones: more maps than the processor foresees on its own */
        for (long i = LANES; i < 2 * LANES; i += 16) {
            __builtin_prefetch(x + c * stride + i);
            if (dy) __builtin_prefetch(dy + c * stride + i);
            __builtin_prefetch(y + c * stride + i, 1);
        }
    }
    for (long c = 0; c < maps; c++) {
        const float b = bias ? bias[c] : 0;
        float s[LANES];
        denominators(q + c * LANES, s, LANES, LANES, radius, alpha, k);
        if (!dy)
            for (long i = 0; i < LANES; i++) {
                float raw = x[c * stride + i] + b, u = order == BEFORE ? relu(raw) : raw,
                      out = u * power(s[i]);
                y[c * stride + i] = order == AFTER ? relu(out) : out;
            }
        else
            for (long i = 0; i < LANES; i++) {
                float raw = x[c * stride + i] + b, u = order == BEFORE ? relu(raw) : raw,
                      g = dy[c * stride + i];
                g = (order == AFTER) & (raw <= 0) ? 0 : g;
                float scaled = g * power(s[i]);
                w[c * LANES + i] = scaled;
                t[c * LANES + i] = scaled * u / s[i];
            }
    }
    for (long c = 0; dy && c < maps; c++) {
        const float b = bias ? bias[c] : 0;
        float s[LANES];
        denominators(t + c * LANES, s, LANES, LANES, radius, 2 * alpha * beta, 0);
        for (long i = 0; i < LANES; i++) {
            float raw = x[c * stride + i] + b, u = order == BEFORE ? relu(raw) : raw,
                  dx = w[c * LANES + i] - u * s[i];
            y[c * stride + i] = (order == BEFORE) & (raw <= 0) ? 0 : dx;
        }
    }
}

/* In planes. For images [from, to): y = LRN(x); or, where dy is given, its gradient dx in place of
 * y. bias: one number a map, or null. 0: out of memory. */
static inline int planes_norm(const float *x, const float *bias, const float *dy, float *y,
                              long from, long to, long channels, long pixels, long columns,
                              long radius, float alpha, float beta, float k, const int order) {
    const long maps = channels / columns, length = maps * LANES, pad = radius * LANES;
    float *scratch = calloc(6 * length + 4 * pad, sizeof *scratch);
    if (!scratch) return 0;
    float *q = scratch + pad, *t = q + length + 2 * pad, *w = t + length + pad;
    float *few = w + length, *few_dy = few + length, *few_y = few_dy + length;
    for (long n = from; n < to; n++)
        for (long column = 0; column < columns; column++) {
            const float *b = bias ? bias + column * maps : 0;
            const long at = (n * channels + column * maps) * pixels;
            if (pixels < LANES) {
                for (long c = 0; c < maps; c++)
                    memcpy(few + c * LANES, x + at + c * pixels, pixels * sizeof *x);
                for (long c = 0; dy && c < maps; c++)
                    memcpy(few_dy + c * LANES, dy + at + c * pixels, pixels * sizeof *x);
                lanes(few, b, dy ? few_dy : 0, few_y, maps, LANES, radius, alpha, beta, k, order, q,
                      w, t);
                for (long c = 0; c < maps; c++)
                    memcpy(y + at + c * pixels, few_y + c * LANES, pixels * sizeof *x);
                continue;
            }
            /* the last ones once more, where LANES is no divisor */
            for (long p = 0; p < pixels; p += LANES) {
                const long here = at + (p + LANES <= pixels ? p : pixels - LANES);
                lanes(x + here, b, dy ? dy + here : 0, y + here, maps, pixels, radius, alpha, beta,
                      k, order, q, w, t);
            }
        }
    free(scratch);
    return 1;
}

/* The same in channels-last memory, where a pixel's maps are one run */
static int last_norm(const float *x, const float *bias, const float *dy, float *y, long from,
                     long to, long channels, long pixels, long columns, long radius, float alpha,
                     float beta, float k, int order) {
    const long maps = channels / columns, pad = 2 * radius;
    float *scratch = calloc(6 * (maps + 2 * pad), sizeof *scratch);
    if (!scratch) return 0;
    float *raw = scratch + pad, *u = raw + maps + 2 * pad, *q = u + maps + 2 * pad,
          *s = q + maps + 2 * pad, *g = s + maps + 2 * pad, *t = g + maps + 2 * pad;
    for (long p = from * pixels; p < to * pixels; p++)
        for (long column = 0; column < columns; column++) {
            const long at = p * channels + column * maps;
            memcpy(raw, x + at, maps * sizeof *raw);
            if (bias)
                for (long c = 0; c < maps; c++) raw[c] += bias[column * maps + c];
            for (long c = 0; c < maps; c++) u[c] = order == BEFORE ? relu(raw[c]) : raw[c];
            for (long c = 0; c < maps; c++) q[c] = u[c] * u[c];
            denominators(q, s, maps, 1, radius, alpha, k);
            if (!dy) {
                normalize(u, s, y + at, maps);
                for (long c = 0; order == AFTER && c < maps; c++) y[at + c] = relu(y[at + c]);
                continue;
            }
            memcpy(g, dy + at, maps * sizeof *g);
            for (long c = 0; order == AFTER && c < maps; c++) g[c] = raw[c] <= 0 ? 0 : g[c];
            for (long c = 0; c < maps; c++) {
                g[c] *= power(s[c]);
                t[c] = g[c] * u[c] / s[c];
            }
            denominators(t, s, maps, 1, radius, 2 * alpha * beta, 0);
            for (long c = 0; c < maps; c++) {
                float dx = g[c] - u[c] * s[c];
                y[at + c] = (order == BEFORE) & (raw[c] <= 0) ? 0 : dx;
            }
        }
    free(scratch);
    return 1;
}

static int response_norm(const float *x, const float *bias, const float *dy, float *y, long from,
                         long to, long channels, long pixels, long columns, long radius,
                         float alpha, float beta, float k, int order, int last) {
    if (last)
        return last_norm(x, bias, dy, y, from, to, channels, pixels, columns, radius, alpha, beta,
                         k, order);
    switch (order) { /* known where it is compiled: no branch in the loops */
    case BEFORE:
        return planes_norm(x, bias, dy, y, from, to, channels, pixels, columns, radius, alpha, beta,
                           k, BEFORE);
    case AFTER:
        return planes_norm(x, bias, dy, y, from, to, channels, pixels, columns, radius, alpha, beta,
                           k, AFTER);
    default:
        return planes_norm(x, bias, dy, y, from, to, channels, pixels, columns, radius, alpha, beta,
                           k, NONE);
    }
}

/* s = k + alpha * (sums of q over squares of side 2 radius + 1), for rows `pitch` apart with zeros
 * around them; rows: scratch of q's size */
static inline void square_sums(const float *q, float *rows, float *s, long length, long pitch,
                               long radius, float alpha, float k) {
    denominators(q, rows, length, 1, radius, 1, 0);
    denominators(rows, s, length, pitch, radius, alpha, k);
}

/* For maps [from, to) of (N C, height, width): y = the normalization within each map, or its
 * gradient where dy is given. Rows lie in scratch with `radius` zeros between them, which end the
 * windows, so that a whole map is one run. 0: out of memory. */
static int within_maps(const float *x, const float *dy, float *y, long from, long to, long height,
                       long width, long radius, float alpha, float beta, float k) {
    const long largest = height > width ? height : width;
    if (radius > largest) radius = largest; /* wider windows see no more */
    const long pitch = width + radius, length = height * pitch, pad = (radius + 1) * pitch,
               part = length + 2 * pad;
    float *scratch = calloc(5 * part, sizeof *scratch);
    if (!scratch) return 0;
    float *u = scratch + pad, *q = u + part, *rows = q + part, *s = rows + part, *g = s + part;
    for (long map = from; map < to; map++) {
        const float *in = x + map * height * width;
        float *out = y + map * height * width;
        for (long h = 0; h < height; h++) memcpy(u + h * pitch, in + h * width, width * sizeof *u);
        for (long i = 0; i < length; i++) q[i] = u[i] * u[i];
        square_sums(q, rows, s, length, pitch, radius, alpha, k);
        if (!dy) {
            for (long h = 0; h < height; h++)
                normalize(in + h * width, s + h * pitch, out + h * width, width);
            continue;
        }
        for (long h = 0; h < height; h++)
            memcpy(g + h * pitch, dy + (map * height + h) * width, width * sizeof *g);
        for (long i = 0; i < length; i++) {
            g[i] *= power(s[i]);
            q[i] = g[i] * u[i] / s[i];
        }
        /* 0 / NaN would spread */
        for (long h = 0; h < height; h++) memset(q + h * pitch + width, 0, radius * sizeof *q);
        square_sums(q, rows, s, length, pitch, radius, 2 * alpha * beta, 0);
        for (long h = 0; h < height; h++)
            for (long w = 0; w < width; w++)
                out[h * width + w] = g[h * pitch + w] - u[h * pitch + w] * s[h * pitch + w];
        for (long h = 0; h < height; h++) memset(g + h * pitch + width, 0, radius * sizeof *g);
    }
    free(scratch);
    return 1;
}

static inline long phase_area(long height, long width, long stride) { /* entries of a map's phase */
    return (height / stride + 2) * (width / stride + 1);
}

/* Maxima of `maps` maps. Taps that are `stride` apart would be slow to load, so each map is first
 * dealt out to stride x stride phases: entry (h, w) of phase (p, q) is x[h stride + p][w stride +
 * q], and tap (i, j) of window (h, w) lies in phase (i % stride, j % stride) at (h + i / stride, w
 * + j / stride). A tap of all windows of all the maps is then one contiguous run; entries where no
 * window fits, at the end of each row and each map, are worked out and left behind. A later value
 * takes the place of the maximum so far if it is greater, or NaN. */
static inline void pool_maps(const float *x, float *y, uint8_t *code, long maps, long height,
                             long width, const long size, const long stride, float *restrict phases,
                             float *restrict best, int32_t *restrict tap) {
    const long out_height = (height - size) / stride + 1, out_width = (width - size) / stride + 1;
    const long row = width / stride + 1, area = phase_area(height, width, stride),
               phase = maps * area;
    const long run = (maps - 1) * area + out_height * row;
    for (long map = 0; map < maps; map++)
        for (long h = 0; h < height; h++)
            for (long q = 0; q < stride; q++) {
                float *out =
                    phases + (h % stride * stride + q) * phase + map * area + h / stride * row;
                for (long w = 0; w * stride + q < width; w++)
                    out[w] = x[(map * height + h) * width + w * stride + q];
            }
    for (long i = 0; i < run; i++) best[i] = -INFINITY;
    for (long i = 0; i < run; i++) tap[i] = 0;
    for (long i = 0; i < size; i++)
        for (long j = 0; j < size; j++) {
            const float *v =
                phases + (i % stride * stride + j % stride) * phase + i / stride * row + j / stride;
            for (long w = 0; w < run; w++) {
                int better = (v[w] > best[w]) | (v[w] != v[w]);
                best[w] = better ? v[w] : best[w];
                tap[w] = better ? (int32_t)(i * size + j) : tap[w];
            }
        }
    for (long map = 0; map < maps; map++)
        for (long h = 0; h < out_height; h++)
            for (long w = 0; w < out_width; w++) {
                *y++ = best[map * area + h * row + w];
                *code++ = (uint8_t)tap[map * area + h * row + w];
            }
}

/* For maps [from, to) in planes, images [from, to) in channels-last memory. code: which of the
 * window's size x size taps was the maximum. 0: out of memory. */
static int maxima(const float *x, float *y, uint8_t *code, long from, long to, long channels,
                  long height, long width, long size, long stride, int last) {
    const long out_height = (height - size) / stride + 1, out_width = (width - size) / stride + 1;
    if (!last) {
        const long area = phase_area(height, width, stride), each = (stride * stride + 2) * area,
                   outs = out_height * out_width;
        const long most = each < CACHED ? CACHED / each : 1;
        float *phases = calloc(stride * stride * most * area + size, sizeof *phases),
              *best = malloc(most * area * sizeof *best);
        int32_t *tap = malloc(most * area * sizeof *tap);
        const int enough = phases && best && tap;
        for (long map = from; enough && map < to; map += most) {
            const long maps = map + most < to ? most : to - map;
            if (size == 3 && stride == 2)
                pool_maps(x + map * height * width, y + map * outs, code + map * outs, maps, height,
                          width, 3, 2, phases, best, tap);
            else
                pool_maps(x + map * height * width, y + map * outs, code + map * outs, maps, height,
                          width, size, stride, phases, best, tap);
        }
        free(phases);
        free(best);
        free(tap);
        return enough;
    }
    for (long n = from; n < to; n++)
        for (long h = 0; h < out_height; h++)
            for (long w = 0; w < out_width; w++) {
                float *best = y + ((n * out_height + h) * out_width + w) * channels;
                uint8_t *tap = code + ((n * out_height + h) * out_width + w) * channels;
                for (long c = 0; c < channels; c++) best[c] = -INFINITY;
                for (long c = 0; c < channels; c++) tap[c] = 0;
                for (long i = 0; i < size; i++)
                    for (long j = 0; j < size; j++) {
                        const float *v =
                            x + ((n * height + h * stride + i) * width + w * stride + j) * channels;
                        for (long c = 0; c < channels; c++) {
                            int better = v[c] > best[c] || v[c] != v[c];
                            best[c] = better ? v[c] : best[c];
                            tap[c] = better ? (uint8_t)(i * size + j) : tap[c];
                        }
                    }
            }
    return 1;
}

static int to_maxima(const float *dy, const uint8_t *code, float *dx, long from, long to,
                     long channels, long height, long width, long size, long stride, int last) {
    const long out_height = (height - size) / stride + 1, out_width = (width - size) / stride + 1,
               deep = last ? channels : 1;
    const long pixels = height * width * deep, out_pixels = out_height * out_width * deep;
    long place[225]; /* of each tap, from the window's corner */
    for (long i = 0; i < size * size; i++) place[i] = (i / size * width + i % size) * deep;
    if (!last) {
        for (long map = from; map < to; map++) {
            /* a map at a time: it stays in cache */
            memset(dx + map * pixels, 0, pixels * sizeof *dx);
            for (long h = 0; h < out_height; h++) {
                float *row = dx + map * pixels + h * stride * width;
                const long at = map * out_pixels + h * out_width;
                for (long w = 0; w < out_width; w++)
                    row[w * stride + place[code[at + w]]] += dy[at + w];
            }
        }
        return 1;
    }
    for (long n = from; n < to; n++) {
        memset(dx + n * pixels, 0, pixels * sizeof *dx);
        for (long h = 0; h < out_height; h++)
            for (long w = 0; w < out_width; w++) {
                const long at = n * out_pixels + (h * out_width + w) * deep;
                float *corner = dx + n * pixels + (h * stride * width + w * stride) * deep;
                for (long c = 0; c < deep; c++) corner[place[code[at + c]] + c] += dy[at + c];
            }
    }
    return 1;
}

/* v = momentum v - rate g - decay w; w = w + v, for entries [from, to) of all parameters in a row;
 * decays have the rate in them */
static int moved(float *const *w, const float *const *g, float *const *v, const long *counts,
                 const float *rates, const float *decays, long from, long to, float momentum) {
    for (; to > 0; from -= *counts, to -= *counts, w++, g++, v++, counts++, rates++, decays++) {
        const float rate = *rates, decay = *decays;
        float *weight = *w, *velocity = *v;
        const float *gradient = *g;
        for (long i = from < 0 ? 0 : from; i < (to < *counts ? to : *counts); i++) {
            velocity[i] = momentum * velocity[i] - rate * gradient[i] - decay * weight[i];
            weight[i] += velocity[i];
        }
    }
    return 1;
}

#include "bfloat16.h"

/* For images [from, to): out (N, 3, size, size), or (N, size, size, 3) where `last` is set, is scale
 * * (crop - mean + shift). The mean image is cropped with the image where `aligned` is set. */
#define CUT(name, type, store)                                                                     \
    static int name(const uint8_t *images, const int64_t *offsets, const uint8_t *flips,           \
                   const float *shift, const float *mean, type *out, long from, long to,           \
                   long height, long width, long size, float scale, int aligned, int last) {       \
        const long plane = size * size;                                                            \
        for (long n = from; n < to; n++) {                                                         \
            const long top = offsets[2 * n], left = offsets[2 * n + 1];                            \
            for (long h = 0; h < size; h++) {                                                      \
                const uint8_t *pixel = images + ((n * height + top + h) * width + left) * 3;       \
                const float *average =                                                             \
                    aligned ? mean + ((top + h) * width + left) * 3 : mean + h * size * 3;         \
                for (long c = 0; c < 3; c++) {                                                     \
                    type *row = last ? out + (n * plane + h * size) * 3 + c                        \
                                      : out + (n * 3 + c) * plane + h * size;                      \
                    const long step = last ? 3 : 1;                                                \
                    const float add = shift[3 * n + c];                                            \
                    if (flips[n])                                                                  \
                        for (long w = 0; w < size; w++)                                            \
                            row[(size - 1 - w) * step] =                                           \
                                store(scale * ((pixel[3 * w + c] - average[3 * w + c]) + add));    \
                    else                                                                           \
                        for (long w = 0; w < size; w++)                                            \
                            row[w * step] =                                                        \
                                store(scale * ((pixel[3 * w + c] - average[3 * w + c]) + add));    \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        return 1;                                                                                  \
    }
CUT(cut, float, same)
CUT(cut_bf16, bf16, narrow)

static inline uint64_t mixed(uint64_t x) { /* splitmix64's finalizer, as in keep_mask.py */
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* The type of what a mask is written as, and its number for True */
#define KEPT(type, one)                                                                            \
    for (long i = 0; i < numbers; i++)                                                             \
        ((type *)keep)[n * numbers + i] =                                                          \
            (int64_t)mixed(state + (uint64_t)(i + 1) * GOLDEN) < threshold ? one : 0

/* For keys [from, to), each hashed with `many` parts first: keep (N, count) = whether the i-th
 * number of the key, a signed integer, is less than `threshold`; as bytes, bfloat16 or float32, by
 * the size of an entry */
static int masks(const int64_t *keys, const int64_t *parts, void *keep, long from, long to,
                 long many, long numbers, int64_t threshold, int size) {
    const uint64_t GOLDEN = UINT64_C(0x9E3779B97F4A7C15);
    for (long n = from; n < to; n++) {
        uint64_t state = keys[n];
        for (long i = 0; i < many; i++) state = mixed((state ^ (uint64_t)parts[i]) + GOLDEN);
        if (size == 1)
            KEPT(uint8_t, 1);
        else if (size == 2)
            KEPT(bf16, 0x3F80);
        else
            KEPT(float, 1);
    }
    return 1;
}

/* What Python calls: the same, shared by `threads` threads of torch's own OpenMP, if there is one
 * (_native.py). 0: out of memory. */

#ifdef _OPENMP
#define SHARED(call)                                                                               \
    int fine = 1;                                                                                  \
    _Pragma("omp parallel num_threads(threads) reduction(&& : fine)") {                            \
        const long piece = omp_get_thread_num(), pieces = omp_get_num_threads(),                   \
                   count = end - begin;                                                            \
        const long from = begin + count * piece / pieces,                                          \
                   to = begin + count * (piece + 1) / pieces;                                      \
        fine = call;                                                                               \
    }                                                                                              \
    return fine;
const int shares = 1;
#else
#define SHARED(call)                                                                               \
    const long from = begin, to = end;                                                             \
    (void)threads;                                                                                 \
    return call;
const int shares = 0;
#endif

int local_response_norm(const float *x, const float *bias, const float *dy, float *y, long begin,
                        long end, int threads, long channels, long pixels, long columns,
                        long radius, float alpha, float beta, float k, int order, int last) {
    SHARED(response_norm(x, bias, dy, y, from, to, channels, pixels, columns, radius, alpha, beta,
                         k, order, last))
}

int same_map_norm(const float *x, const float *dy, float *y, long begin, long end, int threads,
                  long height, long width, long radius, float alpha, float beta, float k) {
    SHARED(within_maps(x, dy, y, from, to, height, width, radius, alpha, beta, k))
}

int max_pool(const float *x, float *y, uint8_t *code, long begin, long end, int threads,
             long channels, long height, long width, long size, long stride, int last) {
    SHARED(maxima(x, y, code, from, to, channels, height, width, size, stride, last))
}

int max_pool_backward(const float *dy, const uint8_t *code, float *dx, long begin, long end,
                      int threads, long channels, long height, long width, long size, long stride,
                      int last) {
    SHARED(to_maxima(dy, code, dx, from, to, channels, height, width, size, stride, last))
}

int momentum_step(float *const *w, const float *const *g, float *const *v, const long *counts,
                  const float *rates, const float *decays, long begin, long end, int threads,
                  float momentum) {
    SHARED(moved(w, g, v, counts, rates, decays, from, to, momentum))
}

int crop_flip_color(const uint8_t *images, const int64_t *offsets, const uint8_t *flips,
                    const float *shift, const float *mean, float *out, long begin, long end,
                    int threads, long height, long width, long size, float scale, int aligned,
                    int last) {
    SHARED(cut(images, offsets, flips, shift, mean, out, from, to, height, width, size, scale,
               aligned, last))
}

int keep_mask(const int64_t *keys, const int64_t *parts, void *keep, long begin, long end,
              int threads, long many, long numbers, int64_t threshold, int size) {
    SHARED(masks(keys, parts, keep, from, to, many, numbers, threshold, size))
}

int local_response_norm_bf16(const bf16 *x, const float *bias, const bf16 *dy, bf16 *y, long begin,
                             long end, int threads, long channels, long pixels, long columns,
                             long radius, float alpha, float beta, float k, int order, int last) {
    SHARED(norm_bf16(x, bias, dy, y, from, to, channels, pixels, columns, radius, alpha, beta, k,
                     order, last))
}

int same_map_norm_bf16(const bf16 *x, const bf16 *dy, bf16 *y, long begin, long end, int threads,
                       long channels, long height, long width, long radius, float alpha, float beta,
                       float k, int last) {
    SHARED(within_maps_bf16(x, dy, y, from, to, channels, height, width, radius, alpha, beta, k,
                            last))
}

int max_pool_bf16(const bf16 *x, bf16 *y, uint8_t *code, long begin, long end, int threads,
                  long channels, long height, long width, long size, long stride, int last) {
    SHARED(maxima_bf16(x, y, code, from, to, channels, height, width, size, stride, last))
}

int max_pool_backward_bf16(const bf16 *dy, const uint8_t *code, bf16 *dx, long begin, long end,
                           int threads, long channels, long height, long width, long size,
                           long stride, int last) {
    SHARED(to_maxima_bf16(dy, code, dx, from, to, channels, height, width, size, stride, last))
}

int response_norm_pool_bf16(const bf16 *x, const float *bias, bf16 *y, uint8_t *code, long begin,
                            long end, int threads, long channels, long height, long width,
                            long columns, long radius, float alpha, float beta, float k, int order,
                            long size, long stride) {
    SHARED(block(x, bias, y, code, from, to, channels, height, width, columns, radius, alpha, beta,
                 k, order, size, stride))
}

int response_norm_pool_backward_bf16(const bf16 *x, const float *bias, const uint8_t *code,
                                     const bf16 *dy, bf16 *dx, float *dbias, long begin, long end,
                                     int threads, long channels, long height, long width,
                                     long columns, long radius, float alpha, float beta, float k,
                                     int order, long size, long stride) {
    SHARED(block_back(x, bias, code, dy, dx, dbias, from, to, channels, height, width, columns,
                      radius, alpha, beta, k, order, size, stride))
}

int momentum_step_bf16(float *const *w, const bf16 *const *g, float *const *v, bf16 *const *copies,
                       const long *counts, const float *rates, const float *decays, long begin,
                       long end, int threads, float momentum) {
    SHARED(moved_bf16(w, g, v, copies, counts, rates, decays, from, to, momentum))
}

int crop_flip_color_bf16(const uint8_t *images, const int64_t *offsets, const uint8_t *flips,
                         const float *shift, const float *mean, bf16 *out, long begin, long end,
                         int threads, long height, long width, long size, float scale, int aligned,
                         int last) {
    SHARED(cut_bf16(images, offsets, flips, shift, mean, out, from, to, height, width, size, scale,
                    aligned, last))
}
