/* The operators on a CPU in bfloat16, computed in float32. Part of native.c.
 *
 * Maps lie channels-last, (N, H, W, C): a pixel's maps are one run, which is the form that
 * convolutions in bfloat16 are fastest in. Maps in planes are widened, an image at a time, to
 * scratch for the functions in float32. All work on images [from, to); they return 0 where memory
 * for scratch is lacking. */

typedef uint16_t bf16;
enum { STRIP = 8 }; /* pixels normalized together: scratch stays in the first-level cache */

static inline float wide(bf16 x) {
    union {
        uint32_t bits;
        float value;
    } u = {(uint32_t)x << 16};
    return u.value;
}

static inline float same(float x) { return x; }

static inline bf16 narrow(float x) { /* to the nearest, ties to even; NaN becomes positive */
    union {
        float value;
        uint32_t bits;
    } u = {x};
    const uint32_t rounded = (u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16;
    return (u.bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bf16)rounded;
}

static void widen(const bf16 *restrict x, float *restrict y, long count) {
    for (long i = 0; i < count; i++) y[i] = wide(x[i]);
}

static void round_off(const float *restrict x, bf16 *restrict y, long count) {
    for (long i = 0; i < count; i++) y[i] = narrow(x[i]);
}

/* s^-0.75 without a division or a root: a guess from the exponent, within 4.5 %, then Newton's
 * steps for y^-4 = s^3, which leave 2e-7. s is positive, infinite or NaN. */
static inline float fast_power(float s) {
    union {
        float value;
        uint32_t bits;
    } u = {s};
    u.bits = 0x6f14c000 - (u.bits >> 2) * 3;
    float y = u.value;
    for (int step = 0; step < 3; step++) {
        const float root = s * y * y;
        y = y * (1.25f - 0.25f * s * root * root);
    }
    return s > FLT_MAX ? 0 : y;
}

/* power^2 s, whose square is 1 / s; power is that of s */
static inline float fast_root(float s, float power) {
    return power * power * (s > FLT_MAX ? FLT_MAX : s);
}

/* --- response normalization, a strip of pixels at a time --- */

typedef struct {
    long channels, maps, columns, radius;
    long pitch; /* of a column in scratch: its maps, and the zeros that end their windows */
    float alpha, beta, k;
    int order;
    const float *bias;             /* (channels) */
    float *memory, *u, *q, *g, *t; /* STRIP pixels: input, its squares, gradient, its terms */
} Strip;

static int strip_begin(Strip *n, const float *bias, long channels, long columns, long radius,
                       float alpha, float beta, float k, int order) {
    n->channels = channels, n->columns = columns, n->radius = radius;
    n->maps = channels / columns, n->pitch = n->maps + radius;
    n->alpha = alpha, n->beta = beta, n->k = k, n->order = order;
    const long part = STRIP * columns * n->pitch + 2 * radius;
    n->memory = calloc(4 * part + channels, sizeof(float));
    if (!n->memory) return 0;
    n->u = n->memory + radius, n->q = n->u + part, n->g = n->q + part, n->t = n->g + part;
    n->bias = bias ? bias : n->memory + 4 * part;
    return 1;
}

static inline float window_sum(const float *q, const long radius) {
    if (radius == 2) return ((q[-2] + q[-1]) + (q[1] + q[2])) + q[0];
    float sum = q[0];
    for (long j = 1; j <= radius; j++) sum += q[-j] + q[j];
    return sum;
}

/* For each column of each pixel: where it begins in scratch, and where among a pixel's channels */
#define EACH_COLUMN                                                                                \
    for (long p = 0; p < pixels; p++)                                                              \
        for (long column = 0, at = p * n->columns * n->pitch, map = 0; column < n->columns;        \
             column++, at += n->pitch, map += n->maps)

/* Pixels of x into scratch, bias added, and their squares */
static inline void strip_take(const Strip *n, const bf16 *restrict x, long pixels,
                              const int order) {
    EACH_COLUMN {
        float *restrict u = n->u + at, *restrict q = n->q + at;
        const bf16 *restrict in = x + p * n->channels + map;
        const float *restrict bias = n->bias + map;
        for (long c = 0; c < n->maps; c++) {
            const float raw = wide(in[c]) + bias[c], value = order == BEFORE ? relu(raw) : raw;
            u[c] = value;
            q[c] = value * value;
        }
    }
}

static inline void strip_norm(const Strip *n, const bf16 *restrict x, bf16 *restrict y,
                              long pixels, const int order, const long radius) {
    const float alpha = n->alpha, k = n->k;
    strip_take(n, x, pixels, order);
    EACH_COLUMN {
        const float *restrict u = n->u + at, *restrict q = n->q + at;
        bf16 *restrict out = y + p * n->channels + map;
        for (long c = 0; c < n->maps; c++) {
            const float value = u[c] * fast_power(k + alpha * window_sum(q + c, radius));
            out[c] = narrow(order == AFTER ? relu(value) : value);
        }
    }
}

/* The gradient of a strip's output into scratch, and zeros between columns, which strip_back has
 * written over */
#define STRIP_GRADIENT(name, type, load)                                                           \
    static inline void name(const Strip *n, const type *restrict dy, long pixels) {                \
        EACH_COLUMN {                                                                              \
            float *restrict g = n->g + at;                                                         \
            const type *restrict in = dy + p * n->channels + map;                                  \
            for (long c = 0; c < n->maps; c++) g[c] = load(in[c]);                                 \
            for (long c = n->maps; c < n->pitch; c++) g[c] = 0;                                    \
        }                                                                                          \
    }
STRIP_GRADIENT(strip_gradient, bf16, wide)
STRIP_GRADIENT(strip_gradient_wide, float, same)

/* The gradient of a strip, of which scratch holds that of its output; dbias (channels) grows by its
 * sum over pixels. */
static inline void strip_back(const Strip *n, const bf16 *restrict x, bf16 *restrict dx,
                              float *restrict dbias, long pixels, const int order,
                              const long radius) {
    const float alpha = n->alpha, k = n->k, twice = 2 * n->alpha * n->beta;
    float *restrict u = n->u, *restrict q = n->q, *restrict g = n->g, *restrict t = n->t;
    strip_take(n, x, pixels, order);
    for (long i = 0; i < pixels * n->columns * n->pitch; i++) {
        const float s = k + alpha * window_sum(q + i, radius), power = fast_power(s);
        const float scaled = (order == AFTER && u[i] <= 0 ? 0 : g[i]) * power;
        const float root = fast_root(s, power);
        g[i] = scaled;
        t[i] = scaled * u[i] * root * root;
    }
    EACH_COLUMN {
        const float *restrict value = u + at, *restrict scaled = g + at, *restrict term = t + at;
        bf16 *restrict out = dx + p * n->channels + map;
        float *restrict sum = dbias + map;
        for (long c = 0; c < n->maps; c++) {
            float d = scaled[c] - value[c] * twice * window_sum(term + c, radius);
            d = order == BEFORE && value[c] <= 0 ? 0 : d;
            out[c] = narrow(d);
            sum[c] += d;
        }
    }
}

/* The compiler makes one form of each for the order and the radius that it knows. */
#define KNOWN(call)                                                                                \
    if (n->radius == 2 && n->order == BEFORE) call(BEFORE, 2);                                     \
    else if (n->radius == 2 && n->order == AFTER) call(AFTER, 2);                                  \
    else call(n->order, n->radius)

static void strip_forward(const Strip *n, const bf16 *x, bf16 *y, long pixels) {
#define CALL(order, radius) strip_norm(n, x, y, pixels, order, radius)
    KNOWN(CALL);
#undef CALL
}

static void strip_backward(const Strip *n, const bf16 *x, bf16 *dx, float *dbias, long pixels) {
#define CALL(order, radius) strip_back(n, x, dx, dbias, pixels, order, radius)
    KNOWN(CALL);
#undef CALL
}

static int norm_last(const bf16 *x, const float *bias, const bf16 *dy, bf16 *y, long from, long to,
                     long channels, long pixels, long columns, long radius, float alpha,
                     float beta, float k, int order) {
    Strip n;
    if (!strip_begin(&n, bias, channels, columns, radius, alpha, beta, k, order)) return 0;
    float *sums = calloc(channels, sizeof *sums);
    for (long p = from * pixels; sums && p < to * pixels; p += STRIP) {
        const long count = p + STRIP < to * pixels ? STRIP : to * pixels - p, at = p * channels;
        if (!dy) {
            strip_forward(&n, x + at, y + at, count);
            continue;
        }
        strip_gradient(&n, dy + at, count);
        strip_backward(&n, x + at, y + at, sums, count);
    }
    free(n.memory);
    free(sums);
    return sums != 0;
}

/* --- pooling, a row of windows at a time --- */

/* Integers that rank as the numbers do: -0 as 0, NaN above all */
static inline int16_t rank_of(bf16 x) {
    const int16_t magnitude = x & 0x7fff;
    return magnitude > 0x7f80 ? 0x7fff : x & 0x8000 ? -magnitude : magnitude;
}

static inline bf16 of_rank(int16_t rank) {
    return rank < 0 ? (bf16)(0x8000 | -rank) : (bf16)rank;
}

/* Maxima of a row of windows, from `size` rows of maps; the first of equal ones counts. scratch:
 * (2 channels). */
static inline void pool_row(const bf16 *const *rows, bf16 *restrict y, uint8_t *restrict code,
                            long channels, long out_width, const long size, const long stride,
                            int16_t *restrict scratch) {
    int16_t *restrict best = scratch, *restrict tap = scratch + channels;
    for (long w = 0; w < out_width; w++, y += channels, code += channels) {
        for (long c = 0; c < channels; c++) best[c] = INT16_MIN;
        for (long i = 0; i < size * size; i++) {
            const bf16 *restrict v = rows[i / size] + (w * stride + i % size) * channels;
            for (long c = 0; c < channels; c++) {
                const int16_t rank = rank_of(v[c]);
                tap[c] = rank > best[c] ? (int16_t)i : tap[c];
                best[c] = rank > best[c] ? rank : best[c];
            }
        }
        for (long c = 0; c < channels; c++) y[c] = of_rank(best[c]);
        for (long c = 0; c < channels; c++) code[c] = (uint8_t)tap[c];
    }
}

/* Row h of the gradient of an image, float (width, channels), from that of its maxima */
static inline void pool_row_back(const bf16 *dy, const uint8_t *code, float *restrict dx, long h,
                                 long channels, long out_height, long width, long out_width,
                                 const long size, const long stride) {
    memset(dx, 0, width * channels * sizeof *dx);
    const long first = h < size ? 0 : (h - size) / stride + 1;
    for (long oh = first; oh < out_height && oh * stride <= h; oh++)
        for (long w = 0; w < out_width; w++)
            for (long j = 0; j < size; j++) {
                const long at = (oh * out_width + w) * channels;
                const uint8_t *restrict taps = code + at;
                const uint8_t tap = (uint8_t)((h - oh * stride) * size + j);
                const bf16 *restrict in = dy + at;
                float *restrict out = dx + (w * stride + j) * channels;
                for (long c = 0; c < channels; c++)
                    out[c] += wide(in[c] & (bf16) - (taps[c] == tap));
            }
}

#define OUT(side) (((side)-size) / stride + 1)

static int pool_last(const bf16 *x, bf16 *y, uint8_t *code, long from, long to, long channels,
                     long height, long width, long size, long stride) {
    const long out_height = OUT(height), out_row = OUT(width) * channels;
    int16_t *scratch = malloc(2 * channels * sizeof *scratch);
    const bf16 *rows[15];
    for (long row = from * out_height; scratch && row < to * out_height; row++) {
        const long top = row / out_height * height + row % out_height * stride;
        bf16 *out = y + row * out_row;
        uint8_t *taps = code + row * out_row;
        for (long i = 0; i < size; i++) rows[i] = x + (top + i) * width * channels;
        if (size == 3 && stride == 2)
            pool_row(rows, out, taps, channels, OUT(width), 3, 2, scratch);
        else pool_row(rows, out, taps, channels, OUT(width), size, stride, scratch);
    }
    free(scratch);
    return scratch != 0;
}

static void pool_back(const bf16 *dy, const uint8_t *code, float *dx, long h, long channels,
                      long height, long width, long size, long stride) {
    if (size == 3 && stride == 2)
        pool_row_back(dy, code, dx, h, channels, OUT(height), width, OUT(width), 3, 2);
    else pool_row_back(dy, code, dx, h, channels, OUT(height), width, OUT(width), size, stride);
}

static int pool_last_back(const bf16 *dy, const uint8_t *code, bf16 *dx, long from, long to,
                          long channels, long height, long width, long size, long stride) {
    const long row = width * channels, outs = OUT(height) * OUT(width) * channels;
    float *sums = malloc(row * sizeof *sums);
    for (long i = from * height; sums && i < to * height; i++) {
        const long image = i / height;
        pool_back(dy + image * outs, code + image * outs, sums, i % height, channels, height, width,
                  size, stride);
        round_off(sums, dx + i * row, row);
    }
    free(sums);
    return sums != 0;
}

/* --- bias, ReLU, normalization and pooling in one pass: a ring of normalized rows --- */

/* Bias and ReLU alone, where a block has no normalization (radius < 0) */
static void strip_plain(const Strip *n, const bf16 *restrict x, bf16 *restrict y, long pixels) {
    for (long p = 0; p < pixels; p++, x += n->channels, y += n->channels)
        for (long c = 0; c < n->channels; c++) {
            const float value = wide(x[c]) + n->bias[c];
            y[c] = narrow(n->order == NONE ? value : relu(value));
        }
}

static void strip_plain_back(const Strip *n, const bf16 *restrict x, const float *restrict g,
                             bf16 *restrict dx, float *restrict dbias, long pixels) {
    for (long p = 0; p < pixels; p++, x += n->channels, dx += n->channels, g += n->channels)
        for (long c = 0; c < n->channels; c++) {
            const float d = n->order != NONE && wide(x[c]) + n->bias[c] <= 0 ? 0 : g[c];
            dx[c] = narrow(d);
            dbias[c] += d;
        }
}

static int block(const bf16 *x, const float *bias, bf16 *y, uint8_t *code, long from, long to,
                 long channels, long height, long width, long columns, long radius, float alpha,
                 float beta, float k, int order, long size, long stride) {
    const long row = width * channels, out_row = OUT(width) * channels;
    bf16 *ring = malloc(size * row * sizeof *ring);
    int16_t *scratch = malloc(2 * channels * sizeof *scratch);
    const bf16 *rows[15];
    Strip n;
    int fine = ring && scratch &&
               strip_begin(&n, bias, channels, columns, radius < 0 ? 0 : radius, alpha, beta, k,
                           order);
    for (long image = from; fine && image < to; image++)
        for (long h = 0; h < (OUT(height) - 1) * stride + size; h++) {
            const bf16 *in = x + (image * height + h) * row;
            bf16 *out = ring + h % size * row;
            for (long w = 0; w < width; w += STRIP) {
                const long count = w + STRIP < width ? STRIP : width - w, at = w * channels;
                if (radius < 0) strip_plain(&n, in + at, out + at, count);
                else strip_forward(&n, in + at, out + at, count);
            }
            const long top = h - size + 1;
            if (top < 0 || top % stride) continue;
            for (long i = 0; i < size; i++) rows[i] = ring + (top + i) % size * row;
            const long at = (image * OUT(height) + top / stride) * out_row;
            if (size == 3 && stride == 2)
                pool_row(rows, y + at, code + at, channels, OUT(width), 3, 2, scratch);
            else pool_row(rows, y + at, code + at, channels, OUT(width), size, stride, scratch);
        }
    if (fine) free(n.memory);
    free(ring);
    free(scratch);
    return fine;
}

/* dbias: (N, channels), each image's sums of dx over its pixels */
static int block_back(const bf16 *x, const float *bias, const uint8_t *code, const bf16 *dy,
                      bf16 *dx, float *dbias, long from, long to, long channels, long height,
                      long width, long columns, long radius, float alpha, float beta, float k,
                      int order, long size, long stride) {
    const long row = width * channels, outs = OUT(height) * OUT(width) * channels;
    float *spread = malloc(row * sizeof *spread);
    Strip n;
    int fine = spread && strip_begin(&n, bias, channels, columns, radius < 0 ? 0 : radius, alpha,
                                     beta, k, order);
    for (long i = from * height; fine && i < to * height; i++) {
        const long image = i / height, h = i % height;
        float *sums = dbias + image * channels;
        if (h == 0) memset(sums, 0, channels * sizeof *sums);
        pool_back(dy + image * outs, code + image * outs, spread, h, channels, height, width, size,
                  stride);
        for (long w = 0; w < width; w += STRIP) {
            const long count = w + STRIP < width ? STRIP : width - w, at = i * row + w * channels;
            if (radius < 0) {
                strip_plain_back(&n, x + at, spread + w * channels, dx + at, sums, count);
                continue;
            }
            strip_gradient_wide(&n, spread + w * channels, count);
            strip_backward(&n, x + at, dx + at, sums, count);
        }
    }
    if (fine) free(n.memory);
    free(spread);
    return fine;
}

/* --- normalization within maps --- */

static void add_row(float *restrict sums, const float *restrict row, long count) {
    for (long i = 0; i < count; i++) sums[i] += row[i];
}

/* out (width, channels): sums of a row over 2 radius + 1 neighboring pixels */
static void sum_across(const float *row, float *out, long width, long channels, long radius) {
    memcpy(out, row, width * channels * sizeof *out);
    for (long j = 1; j <= radius && j < width; j++) {
        add_row(out + j * channels, row, (width - j) * channels);
        add_row(out, row + j * channels, (width - j) * channels);
    }
}

/* sums (width, channels): of row h and its neighbors above and below */
static void sum_down(const float *rows, float *sums, long h, long height, long row, long radius) {
    memcpy(sums, rows + h * row, row * sizeof *sums);
    for (long j = 1; j <= radius; j++) {
        if (h >= j) add_row(sums, rows + (h - j) * row, row);
        if (h + j < height) add_row(sums, rows + (h + j) * row, row);
    }
}

static int within_maps_last(const bf16 *x, const bf16 *dy, bf16 *y, long from, long to,
                            long channels, long height, long width, long radius, float alpha,
                            float beta, float k) {
    const long row = width * channels, map = height * row;
    float *memory = malloc((3 * map + row) * sizeof *memory);
    if (!memory) return 0;
    float *squares = memory, *terms = squares + map, *scaled = terms + map, *sums = scaled + map;
    for (long image = from; image < to; image++) {
        const bf16 *in = x + image * map, *gradient = dy ? dy + image * map : 0;
        bf16 *out = y + image * map;
        for (long h = 0; h < height; h++) {
            for (long i = 0; i < row; i++) sums[i] = wide(in[h * row + i]) * wide(in[h * row + i]);
            sum_across(sums, squares + h * row, width, channels, radius);
        }
        for (long h = 0; h < height; h++) {
            const bf16 *restrict u = in + h * row;
            float *restrict kept = scaled + h * row;
            sum_down(squares, sums, h, height, row, radius);
            for (long i = 0; !gradient && i < row; i++)
                out[h * row + i] = narrow(wide(u[i]) * fast_power(k + alpha * sums[i]));
            if (!gradient) continue;
            for (long i = 0; i < row; i++) {
                const float s = k + alpha * sums[i], power = fast_power(s);
                const float root = fast_root(s, power);
                kept[i] = wide(gradient[h * row + i]) * power;
                sums[i] = kept[i] * wide(u[i]) * root * root;
            }
            sum_across(sums, terms + h * row, width, channels, radius);
        }
        for (long h = 0; gradient && h < height; h++) {
            sum_down(terms, sums, h, height, row, radius);
            const float *restrict kept = scaled + h * row;
            for (long i = 0; i < row; i++)
                out[h * row + i] =
                    narrow(kept[i] - wide(in[h * row + i]) * (2 * alpha * beta) * sums[i]);
        }
    }
    free(memory);
    return 1;
}

/* --- maps in planes: through float32 scratch, an image at a time --- */

static int norm_bf16(const bf16 *x, const float *bias, const bf16 *dy, bf16 *y, long from, long to,
                     long channels, long pixels, long columns, long radius, float alpha, float beta,
                     float k, int order, int last) {
    if (last)
        return norm_last(x, bias, dy, y, from, to, channels, pixels, columns, radius, alpha, beta,
                         k, order);
    const long count = channels * pixels;
    float *in = malloc(3 * count * sizeof *in), *g = in + count, *out = g + count;
    int fine = in != 0;
    for (long at = from * count; fine && at < to * count; at += count) {
        widen(x + at, in, count);
        if (dy) widen(dy + at, g, count);
        fine = response_norm(in, bias, dy ? g : 0, out, 0, 1, channels, pixels, columns, radius,
                             alpha, beta, k, order, 0);
        round_off(out, y + at, count);
    }
    free(in);
    return fine;
}

static int within_maps_bf16(const bf16 *x, const bf16 *dy, bf16 *y, long from, long to,
                            long channels, long height, long width, long radius, float alpha,
                            float beta, float k, int last) {
    if (last)
        return within_maps_last(x, dy, y, from, to, channels, height, width, radius, alpha, beta,
                                k);
    const long count = height * width;
    float *in = malloc(3 * count * sizeof *in), *g = in + count, *out = g + count;
    int fine = in != 0;
    for (long at = from * channels * count; fine && at < to * channels * count; at += count) {
        widen(x + at, in, count);
        if (dy) widen(dy + at, g, count);
        fine = within_maps(in, dy ? g : 0, out, 0, 1, height, width, radius, alpha, beta, k);
        round_off(out, y + at, count);
    }
    free(in);
    return fine;
}

static int maxima_bf16(const bf16 *x, bf16 *y, uint8_t *code, long from, long to, long channels,
                       long height, long width, long size, long stride, int last) {
    if (last) return pool_last(x, y, code, from, to, channels, height, width, size, stride);
    const long count = height * width, outs = OUT(height) * OUT(width);
    float *in = malloc((count + outs) * sizeof *in), *out = in + count;
    int fine = in != 0;
    for (long map = from * channels; fine && map < to * channels; map++) {
        widen(x + map * count, in, count);
        fine = maxima(in, out, code + map * outs, 0, 1, 1, height, width, size, stride, 0);
        round_off(out, y + map * outs, outs);
    }
    free(in);
    return fine;
}

static int to_maxima_bf16(const bf16 *dy, const uint8_t *code, bf16 *dx, long from, long to,
                          long channels, long height, long width, long size, long stride,
                          int last) {
    if (last) return pool_last_back(dy, code, dx, from, to, channels, height, width, size, stride);
    const long count = height * width, outs = OUT(height) * OUT(width);
    float *out = malloc((count + outs) * sizeof *out), *g = out + count;
    int fine = out != 0;
    for (long map = from * channels; fine && map < to * channels; map++) {
        widen(dy + map * outs, g, outs);
        fine = to_maxima(g, code + map * outs, out, 0, 1, 1, height, width, size, stride, 0);
        round_off(out, dx + map * count, count);
    }
    free(out);
    return fine;
}

/* --- the update: weights and velocities in float32, gradients and copies in bfloat16 --- */

static int moved_bf16(float *const *w, const bf16 *const *g, float *const *v, bf16 *const *copies,
                      const long *counts, const float *rates, const float *decays, long from,
                      long to, float momentum) {
    for (; to > 0; from -= *counts, to -= *counts, w++, g++, v++, copies++, counts++, rates++,
                   decays++) {
        const float rate = *rates, decay = *decays;
        float *restrict weight = *w, *restrict velocity = *v;
        const bf16 *restrict gradient = *g;
        bf16 *restrict copy = *copies;
        for (long i = from < 0 ? 0 : from; i < (to < *counts ? to : *counts); i++) {
            velocity[i] = momentum * velocity[i] - rate * wide(gradient[i]) - decay * weight[i];
            weight[i] += velocity[i];
            copy[i] = narrow(weight[i]);
        }
    }
    return 1;
}
#undef OUT
