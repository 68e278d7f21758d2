/* Bodies of the C kernels for vectors of W floats; included by cpu.c once per instruction set. */

typedef float NAME(vf) __attribute__((vector_size(4 * W)));
typedef int32_t NAME(vi) __attribute__((vector_size(4 * W)));
typedef float NAME(vu) __attribute__((vector_size(4 * W), aligned(4), may_alias)); /* unaligned memory */
#define vf NAME(vf)
#define vi NAME(vi)
#define vu NAME(vu)
#define NV (BLOCK / W)

INLINE vf NAME(load)(const float *p) { return *(const vu *)p; }
INLINE void NAME(store)(float *p, vf x) { *(vu *)p = x; }
INLINE vf NAME(splat)(float x) { return x - (vf){0}; }
INLINE vf NAME(select)(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

typedef uint16_t NAME(vh) __attribute__((vector_size(2 * W), aligned(2), may_alias));
typedef uint32_t NAME(vw) __attribute__((vector_size(4 * W)));
INLINE vf NAME(widen)(const uint16_t *p) { return (vf)(__builtin_convertvector(*(const NAME(vh) *)p, NAME(vw)) << 16); }

/* To bfloat16, rounded to nearest, ties to even; NaN stays NaN. */
INLINE void NAME(narrow)(uint16_t *p, vf x) {
    const NAME(vw) bits = (NAME(vw))x, rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
    const NAME(vw) nan = (NAME(vw))(x != x);
    *(NAME(vh) *)p = __builtin_convertvector((nan & 0x7fc0u) | (~nan & rounded), NAME(vh));
}

#define load NAME(load)
#define store NAME(store)
#define splat NAME(splat)
#define select NAME(select)

/* The larger and the smaller of two; where x is NaN, NaN and `high`. */
#if defined(X86) && W == 16
#define ATLEAST(low, x) ((vf)_mm512_max_ps((__m512)(low), (__m512)(x)))
#define LESSER(x, high) ((vf)_mm512_min_ps((__m512)(x), (__m512)(high)))
#elif defined(X86) && W == 8
#define ATLEAST(low, x) ((vf)_mm256_max_ps((__m256)(low), (__m256)(x)))
#define LESSER(x, high) ((vf)_mm256_min_ps((__m256)(x), (__m256)(high)))
#elif defined(X86)
#define ATLEAST(low, x) ((vf)_mm_max_ps((__m128)(low), (__m128)(x)))
#define LESSER(x, high) ((vf)_mm_min_ps((__m128)(x), (__m128)(high)))
#else
#define ATLEAST(low, x) select((low) > (x), low, x)
#define LESSER(x, high) select((x) < (high), x, high)
#endif

/* vectors, at most: one alone would wait for itself, and a scheduler holds too few to find others */
#define LOCKSTEP 4
#define TOGETHER (LOCKSTEP / NV) /* states of a block that make so many vectors */

/* x = 2^x for x <= 127, relative error below 1.1e-7; below -126 it gives 2^-126. NaN stays NaN.
 * `count` vectors go in lockstep. */
INLINE void NAME(exp2s)(vf *x, const int count) {
    const vf magic = splat(12582912.0f); /* 1.5 * 2^23: rounds to an integer in the mantissa */
    vf rounded[LOCKSTEP], p[LOCKSTEP];
#define EACH for (int j = 0; j < count; j++)
    EACH x[j] = ATLEAST(splat(-126.0f), x[j]);
    EACH rounded[j] = x[j] + magic;
    EACH x[j] = x[j] - (rounded[j] - magic); /* -0.5 .. 0.5 */
    EACH p[j] = x[j] * 1.535336195e-4f + 1.339887440e-3f;
    EACH p[j] = p[j] * x[j] + 9.618437357e-3f;
    EACH p[j] = p[j] * x[j] + 5.550332471e-2f;
    EACH p[j] = p[j] * x[j] + 2.402264791e-1f;
    EACH p[j] = p[j] * x[j] + 6.931472029e-1f;
    EACH p[j] = p[j] * x[j] + 1.0f;
    EACH x[j] = (vf)((vi)p[j] + ((vi)rounded[j] << 23));
#undef EACH
}

#if defined(X86) && W == 16
#define TABLE_EXP2
/* 2^(a b), relative error below 1.2e-7, 0 below 2^-149. With t = a b rounded to 1/32 and r the rest: the whole part of
 * t by scalef, its fraction from a table of 32 in two registers, 2^r by a parabola: 8 instructions. NaN stays NaN. */
INLINE vf NAME(exp2_product)(vf a, vf b) {
    const __m512 magic = _mm512_set1_ps(393216.0f), low = _mm512_loadu_ps(exp2_of_32nds), /* 1.5 * 2^23 / 32 */
        high = _mm512_loadu_ps(exp2_of_32nds + 16);
    const __m512 shifted = _mm512_fmadd_ps((__m512)a, (__m512)b, magic);
    const __m512 t = _mm512_sub_ps(shifted, magic);
    const __m512 r = _mm512_fmsub_ps((__m512)a, (__m512)b, t); /* -1/64 .. 1/64 */
    const __m512 fraction = _mm512_permutex2var_ps(low, _mm512_castps_si512(shifted), high);
    const __m512 q = _mm512_fmadd_ps(r, _mm512_set1_ps(0.2402265f), _mm512_set1_ps(0.69315734f));
    return (vf)_mm512_scalef_ps(_mm512_fmadd_ps(_mm512_mul_ps(r, fraction), q, fraction), t);
}
#endif

/* exp(x) for x <= 87. */
INLINE vf NAME(exponential)(vf x) {
#ifdef TABLE_EXP2
    return NAME(exp2_product)(x, splat(LOG2E));
#else
    x *= LOG2E;
    NAME(exp2s)(&x, 1);
    return x;
#endif
}
#define exponential NAME(exponential)

/* log(1 + exp(x)) without overflow: max(x, 0) + log1p(w) with w = exp(-|x|), by a minimax polynomial of log1p(w) / w,
 * relative error below 4e-8 (a division would take as long as all the rest). */
INLINE vf NAME(softplus)(vf x) {
    const vf w = exponential((vf)((vi)x | INT32_MIN)); /* of -|x|: 0 .. 1 */
    vf p = w * 5.232687903e-3f - 2.950521329e-2f;
    p = p * w + 7.822591037e-2f;
    p = p * w - 1.366324227e-1f;
    p = p * w + 1.910600511e-1f;
    p = p * w - 2.484298179e-1f;
    p = p * w + 3.331909675e-1f;
    p = p * w - 4.999949314e-1f;
    p = p * w + 9.999999699e-1f;
    return ATLEAST(splat(0.0f), x) + w * p;
}

/* 1 / x for 1 <= x. */
INLINE vf NAME(reciprocal)(vf x) {
#ifdef TABLE_EXP2
    const vf guess = (vf)_mm512_rcp14_ps((__m512)x); /* 14 bits, and one step of Newton's */
    return guess * (2.0f - x * guess);
#else
    return 1.0f / x;
#endif
}

INLINE vf NAME(sigmoid)(vf x) {
    return NAME(reciprocal)(1.0f + exponential(-ATLEAST(splat(-87.0f), x))); /* exp(87) is still finite */
}
#define softplusv NAME(softplus)
#define sigmoidv NAME(sigmoid)

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLE
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

/* Sum each of r[0 .. W-1] over its lanes; lane i of the result is the sum of r[i]. */
INLINE vf NAME(sum_lanes)(vf *r) {
#define FOLD(count, LOW, HIGH) \
    for (int i = 0; i < count; i++) r[i] = LOW(r[2 * i], r[2 * i + 1]) + HIGH(r[2 * i], r[2 * i + 1]);
#if W == 4
#define L1(a, b) SHUFFLE(a, b, 0, 4, 2, 6)
#define H1(a, b) SHUFFLE(a, b, 1, 5, 3, 7)
#define L2(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define H2(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
    FOLD(2, L1, H1)
    FOLD(1, L2, H2)
#elif W == 8
#define L1(a, b) SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define H1(a, b) SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#define L2(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define H2(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define L4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define H4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
    FOLD(4, L1, H1)
    FOLD(2, L2, H2)
    FOLD(1, L4, H4)
#else
#define L1(a, b) SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#define H1(a, b) SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)
#define L2(a, b) SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define H2(a, b) SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define L4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define H4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define L8(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define H8(a, b) SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
    FOLD(8, L1, H1)
    FOLD(4, L2, H2)
    FOLD(2, L4, H4)
    FOLD(1, L8, H8)
#endif
    return r[0];
}
#undef FOLD
#undef L1
#undef H1
#undef L2
#undef H2
#undef L4
#undef H4
#undef L8
#undef H8

/* A row of up to BLOCK channels, zero beyond them. */
INLINE void NAME(load_row)(const float *p, int m, vf *row) {
    if (m == BLOCK) {
        for (int v = 0; v < NV; v++) row[v] = load(p + v * W);
    } else {
        float padded[BLOCK] = {0};
        memcpy(padded, p, sizeof(float) * m);
        for (int v = 0; v < NV; v++) row[v] = load(padded + v * W);
    }
}

INLINE void NAME(store_row)(float *p, int m, const vf *row) {
    if (m == BLOCK) {
        for (int v = 0; v < NV; v++) store(p + v * W, row[v]);
    } else {
        float padded[BLOCK];
        for (int v = 0; v < NV; v++) store(padded + v * W, row[v]);
        memcpy(p, padded, sizeof(float) * m);
    }
}
#define load_row NAME(load_row)
#define store_row NAME(store_row)

/* Channels of block g, counted from channel c. */
INLINE int NAME(channels)(const scan_problem *p, int64_t c, int64_t g) {
    const int64_t left = p->e - c - g * BLOCK;
    return left < BLOCK ? (int)left : BLOCK;
}

/* The same from floats, or from bfloat16 numbers if `half`: the upper halves of floats. */
INLINE void NAME(read_row)(const void *p, int64_t half, int m, vf *row) {
    if (!half) {
        load_row(p, m, row);
    } else if (m == BLOCK) {
        for (int v = 0; v < NV; v++) row[v] = NAME(widen)((const uint16_t *)p + v * W);
    } else {
        uint16_t padded[BLOCK] = {0};
        memcpy(padded, p, sizeof(uint16_t) * m);
        for (int v = 0; v < NV; v++) row[v] = NAME(widen)(padded + v * W);
    }
}

INLINE void NAME(write_row)(void *p, int64_t half, int m, const vf *row) {
    if (!half) {
        store_row(p, m, row);
    } else {
        uint16_t padded[BLOCK];
        for (int v = 0; v < NV; v++) NAME(narrow)(m == BLOCK ? (uint16_t *)p + v * W : padded + v * W, row[v]);
        if (m < BLOCK) memcpy(p, padded, sizeof(uint16_t) * m);
    }
}
#define read_row NAME(read_row)
#define write_row NAME(write_row)

/* Step sizes dt and inputs x = dt * u of tokens from .. to and `count` blocks of channels from c on: (tokens, 2, BLOCK)
 * for each block. Whole rows are read, since finding one takes longer than reading it. 0 if a step is negative. */
INLINE int NAME(stage)(const scan_problem *p, int64_t i, int64_t from, int64_t to, int64_t c, int64_t count,
                       float *steps) {
    const int64_t size = 2 * extent(to - from);
    const view d_in = p->delta, u_in = p->u; /* locals: for all the compiler knows, stores change p's */
    const float *bias = p->bias ? p->bias + c : NULL;
    const int softplus = (int)p->softplus, last = NAME(channels)(p, c, count - 1);
    vf biases[NV] = {{0}}, us[NV], d[NV], least = splat(0.0f);
    for (int64_t t = from; t < to; t++, steps += 2 * BLOCK)
        for (int64_t g = 0; g < count; g++) {
            const int m = g == count - 1 ? last : BLOCK;
            const void *delta = at(d_in.data, d_in.half, i * d_in.batch + t * d_in.row + c + g * BLOCK);
            const void *u = at(u_in.data, u_in.half, i * u_in.batch + t * u_in.row + c + g * BLOCK);
            __builtin_prefetch(at(delta, d_in.half, AHEAD * d_in.row));
            __builtin_prefetch(at(u, u_in.half, AHEAD * u_in.row));
            if (bias) load_row(bias + g * BLOCK, m, biases);
            read_row(delta, d_in.half, m, d);
            read_row(u, u_in.half, m, us);
            for (int v = 0; v < NV; v++) {
                d[v] += biases[v];
                if (softplus)
                    d[v] = softplusv(d[v]);
                else
                    least = LESSER(d[v], least);
                store(steps + g * size + v * W, d[v]);
                store(steps + g * size + BLOCK + v * W, d[v] * us[v]);
            }
        }
    for (int lane = 0; lane < W; lane++)
        if (least[lane] < 0.0f) return 0;
    return 1;
}

/* A of one block, transposed to (n, BLOCK) and scaled to base 2; 0 if an entry is positive or no number. */
INLINE int NAME(stage_A)(const float *A, int64_t n, int64_t c, int m, float *out) {
    int fine = 1;
    for (int64_t k = 0; k < n; k++)
        for (int j = 0; j < BLOCK; j++) {
            const float a = j < m ? A[(c + j) * n + k] : 0.0f;
            fine &= a <= 0.0f;
            out[k * BLOCK + j] = a * LOG2E;
        }
    return fine;
}

/* Decays of `count` states for one token: exp2(step * A). */
INLINE void NAME(decay)(vf A[][NV], const vf *step, const int count, vf decays[][NV]) {
    for (int j = 0; j < count; j++)
        for (int v = 0; v < NV; v++)
#ifdef TABLE_EXP2
            decays[j][v] = NAME(exp2_product)(step[v], A[j][v]);
#else
            decays[j][v] = step[v] * A[j][v];
    NAME(exp2s)(decays[0], count * NV);
#endif
}

#define EACH_STATE                  \
    for (int j = 0; j < count; j++) \
        for (int v = 0; v < NV; v++)
#define AT(array, k) ((array) + (k) * BLOCK + v * W) /* lanes of vector v of state k in an array (n, BLOCK) */

/* Scan tokens from .. to of one block in one direction with the `count` states from k on, adding C h to y (tokens,
 * BLOCK). `states` (n, BLOCK) holds the state before and after; `kept`, if asked for, the one before each CHUNK of
 * tokens. */
INLINE void NAME(scan_states)(const scan_problem *p, int64_t i, int reverse, int64_t from, int64_t to, const float *A,
                              const float *steps, float *y, float *states, float *kept, int64_t k, const int count) {
    const int64_t n = p->n, B_row = p->B.row, C_row = p->C.row, way = reverse ? -1 : 1;
    const float *B = (const float *)p->B.data + i * p->B.batch + k, *C = (const float *)p->C.data + i * p->C.batch + k;
    vf h[TOGETHER][NV], rates[TOGETHER][NV], decays[TOGETHER][NV], step[NV], input[NV], sum[NV];
    EACH_STATE {
        h[j][v] = load(AT(states, k + j));
        rates[j][v] = load(AT(A, k + j));
    }
    for (int64_t t = reverse ? to - 1 : from; t >= from && t < to; t += way) {
        const int64_t at = (t - from) * BLOCK;
        if (kept && (reverse ? t == to - 1 || t % CHUNK == CHUNK - 1 : t % CHUNK == 0))
            EACH_STATE store(AT(kept, t / CHUNK * n + k + j), h[j][v]);
        for (int v = 0; v < NV; v++) {
            step[v] = load(steps + 2 * at + v * W);
            input[v] = load(steps + 2 * at + BLOCK + v * W);
            sum[v] = load(y + at + v * W);
        }
        NAME(decay)(rates, step, count, decays);
        EACH_STATE {
            h[j][v] = decays[j][v] * h[j][v] + input[v] * B[t * B_row + j];
            sum[v] += h[j][v] * C[t * C_row + j];
        }
        for (int v = 0; v < NV; v++) store(y + at + v * W, sum[v]);
    }
    EACH_STATE store(AT(states, k + j), h[j][v]);
}

static void NAME(scan_tokens)(const scan_problem *p, int64_t i, int reverse, int64_t from, int64_t to, const float *A,
                              const float *steps, float *y, float *states, float *kept) {
    int64_t k = 0;
    for (; k + TOGETHER <= p->n; k += TOGETHER)
        NAME(scan_states)(p, i, reverse, from, to, A, steps, y, states, kept, k, TOGETHER);
    for (; k < p->n; k++) NAME(scan_states)(p, i, reverse, from, to, A, steps, y, states, kept, k, 1);
}

/* Write y of tokens from .. to and `count` blocks out: added to what is there if `more`; then, if `last`, as
 * (y + skip D u) silu(z). In the backward pass dz is computed here too: from all of y, or where the published gradient
 * is wanted from the first direction's, at its end (`gated`). */
INLINE void NAME(finish)(const scan_problem *p, int64_t i, int64_t from, int64_t to, int64_t c, int64_t count,
                         const float *y, const int more, const int last, const int gated, const float skips) {
    const int64_t size = extent(to - from), half_out = last && p->half_out;
    const view u_in = p->u, z_in = p->z, grad_in = p->grad;
    const float *D = p->D ? p->D + c : NULL, skips_gated = p->published_gate ? 1.0f : skips;
    const int tail = NAME(channels)(p, c, count - 1), skip_used = D && (last || gated),
              gate_used = z_in.data && (last || gated);
    for (int64_t t = from; t < to; t++, y += BLOCK) {
        const int64_t row_at = (i * p->l + t) * p->e + c;
        for (int64_t g = 0; g < count; g++) {
            const int m = g == count - 1 ? tail : BLOCK;
            vf skip[NV] = {{0}}, us[NV], zs[NV] = {{0}}, row[NV], before[NV], grads[NV];
            for (int v = 0; v < NV; v++) row[v] = load(y + g * size + v * W);
            if (more) {
                load_row(p->partial + row_at + g * BLOCK, m, before);
                for (int v = 0; v < NV; v++) row[v] += before[v];
            }
            if (skip_used) {
                load_row(D + g * BLOCK, m, skip);
                read_row(at(u_in.data, u_in.half, i * u_in.batch + t * u_in.row + c + g * BLOCK), u_in.half, m, us);
                for (int v = 0; v < NV; v++) skip[v] *= us[v];
            }
            if (gate_used) {
                const void *z = at(z_in.data, z_in.half, i * z_in.batch + t * z_in.row + c + g * BLOCK);
                __builtin_prefetch(at(z, z_in.half, AHEAD * z_in.row));
                read_row(z, z_in.half, m, zs);
                vf slope[NV];
                for (int v = 0; v < NV; v++) {
                    const vf s = sigmoidv(zs[v]);
                    slope[v] = s * (1.0f + zs[v] * (1.0f - s));
                    zs[v] *= s;
                }
                if (gated) {
                    load_row((const float *)grad_in.data + i * grad_in.batch + t * grad_in.row + c + g * BLOCK, m,
                             grads);
                    for (int v = 0; v < NV; v++) grads[v] *= (row[v] + skips_gated * skip[v]) * slope[v];
                    store_row(p->dz + row_at + g * BLOCK, m, grads);
                }
            }
            if (last)
                for (int v = 0; v < NV; v++) row[v] += skips * skip[v];
            if (last && gate_used)
                for (int v = 0; v < NV; v++) row[v] *= zs[v];
            void *out = last ? p->out : p->partial;
            write_row((char *)out + (half_out ? 2 : 4) * (row_at + g * BLOCK), half_out, m, row);
        }
    }
}

/* Scan staged tokens from .. to of `count` blocks in one direction and write y out. With `kept`, for the backward pass:
 * the states before each chunk, (direction, block, chunk, n, BLOCK), and dz. */
INLINE void NAME(scan_span)(const scan_problem *p, int64_t i, int direction, int64_t from, int64_t to, int64_t c,
                            int64_t count, const scan_space work, float *kept) {
    const int64_t n = p->n, size = extent(to - from), kept_size = (p->l + CHUNK - 1) / CHUNK * n * BLOCK;
    const int reverse = direction ? 1 : (int)p->reverse, last = direction || !p->A_b;
    const int gated = kept && p->z.data && (p->published_gate ? !direction : last);
    memset(work.y, 0, sizeof(float) * count * size);
    for (int64_t g = 0; g < count; g++)
        NAME(scan_tokens)(p, i, reverse, from, to, work.A + g * n * BLOCK, work.steps + 2 * g * size, work.y + g * size,
                          work.states + g * n * BLOCK, kept ? kept + (direction * count + g) * kept_size : NULL);
    NAME(finish)(p, i, from, to, c, count, work.y, direction, last, gated, p->A_b ? 2.0f : 1.0f);
}

/* Begin to scan `count` blocks in one direction: its rates, and states of zero. 0 if a rate is positive or no number.
 */
INLINE int NAME(start)(const scan_problem *p, int direction, int64_t c, int64_t count, const scan_space work) {
    int fine = 1;
    for (int64_t g = 0; g < count; g++)
        fine &= NAME(stage_A)(direction ? p->A_b : p->A, p->n, c + g * BLOCK, NAME(channels)(p, c, g),
                              work.A + g * p->n * BLOCK);
    memset(work.states, 0, sizeof(float) * count * p->n * BLOCK);
    return fine;
}

/* Scan `count` blocks of channels from c on in one direction, SPAN tokens at a time. */
INLINE int NAME(scan_channels)(const scan_problem *p, int64_t i, int direction, int64_t c, int64_t count,
                               const scan_space work, float *kept) {
    const int64_t spans = (p->l + SPAN - 1) / SPAN;
    if (!NAME(start)(p, direction, c, count, work)) return NOT_A_DECAY;
    for (int64_t s = 0; s < spans; s++) {
        const int64_t from = (direction || p->reverse ? spans - 1 - s : s) * SPAN,
                      to = from + SPAN < p->l ? from + SPAN : p->l;
        if (!NAME(stage)(p, i, from, to, c, count, work.steps)) return NOT_A_DECAY;
        NAME(scan_span)(p, i, direction, from, to, c, count, work, kept);
    }
    return DONE;
}

static int NAME(scan)(const scan_problem *p) {
    const int64_t blocks = blocks_of(p->e), threads = worth_threads(p->b * p->l * p->e * p->n, p->threads),
                  parts = parts_of(p->b, blocks, blocks, threads);
    const int64_t widest = (blocks + parts - 1) / parts;
    int code = DONE;
#pragma omp parallel num_threads(threads) reduction(max : code)
    {
        float *scratch = scratch_space(scan_scratch(widest, p->n));
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < p->b * parts; task++) {
            const int64_t part = task % parts, first = part * blocks / parts,
                          count = (part + 1) * blocks / parts - first;
            for (int direction = 0; direction < (p->A_b ? 2 : 1); direction++) {
                const int done = scratch ? NAME(scan_channels)(p, task / parts, direction, first * BLOCK, count,
                                                               scan_space_in(scratch, count, p->n), NULL)
                                         : OUT_OF_MEMORY;
                code = done > code ? done : code;
            }
        }
    }
    return code;
}

/* Gradients of one block in one direction, tokens from .. to, with the `count` states from k on. First the scan again
 * from the states at `start` (n, BLOCK), keeping each token's decays and states; then against its direction. `g` (n,
 * BLOCK) is the gradient of the state after and before. Adds to dx, ddt (tokens, 2, BLOCK), dA (n, BLOCK), and to the
 * gradients of B and C, (2, tokens, count, BLOCK), whose lanes are yet to be summed. With g' = decay g: dL / d(dt A) =
 * g' h before. */
INLINE void NAME(unscan_states)(const scan_problem *p, int64_t i, int reverse, int64_t from, int64_t to, const float *A,
                                const float *steps, const float *dy, const float *start, float *g, float *dx, float *dA,
                                float *recalled, float *sums, int64_t k, const int count) {
    const int64_t B_row = p->B.row, C_row = p->C.row, tokens = to - from, line = count * BLOCK, for_C = tokens * line;
    const float *B = (const float *)p->B.data + i * p->B.batch + from * B_row + k,
                *C = (const float *)p->C.data + i * p->C.batch + from * C_row + k;
    vf h[TOGETHER][NV], rates[TOGETHER][NV], decay[TOGETHER][NV], step[NV], input[NV], out[NV], to_x[NV], to_dt[NV];
    EACH_STATE {
        h[j][v] = load(AT(start, k + j));
        rates[j][v] = load(AT(A, k + j));
    }
    float *at = recalled; /* (tokens in the scan's order, 2, count, BLOCK) */
    for (int64_t s = 0; s < tokens; s++, at += 2 * line) {
        const int64_t t = reverse ? tokens - 1 - s : s;
        for (int v = 0; v < NV; v++) {
            step[v] = load(steps + t * 2 * BLOCK + v * W);
            input[v] = load(steps + t * 2 * BLOCK + BLOCK + v * W);
        }
        NAME(decay)(rates, step, count, decay);
        EACH_STATE {
            store(AT(at, j), h[j][v]);
            store(AT(at + line, j), decay[j][v]);
            h[j][v] = decay[j][v] * h[j][v] + input[v] * B[t * B_row + j];
        }
    }
    vf grads[TOGETHER][NV], to_A[TOGETHER][NV];
    EACH_STATE {
        grads[j][v] = load(AT(g, k + j));
        rates[j][v] *= LN2;
        to_A[j][v] = load(AT(dA, k + j));
    }
    for (int64_t s = tokens - 1; s >= 0; s--) {
        const int64_t t = reverse ? tokens - 1 - s : s;
        at -= 2 * line;
        for (int v = 0; v < NV; v++) {
            step[v] = load(steps + t * 2 * BLOCK + v * W);
            input[v] = load(steps + t * 2 * BLOCK + BLOCK + v * W);
            out[v] = load(dy + t * BLOCK + v * W);
            to_x[v] = load(dx + t * 2 * BLOCK + v * W);
            to_dt[v] = load(dx + t * 2 * BLOCK + BLOCK + v * W);
        }
        float *sum = sums + t * line;
        EACH_STATE {
            const vf grad = grads[j][v] + out[v] * C[t * C_row + j];
            store(AT(sum, j), load(AT(sum, j)) + grad * input[v]);
            store(AT(sum + for_C, j), load(AT(sum + for_C, j)) + out[v] * h[j][v]);
            to_x[v] += grad * B[t * B_row + j];
            grads[j][v] = grad * load(AT(at + line, j));
            h[j][v] = load(AT(at, j)); /* before */
            const vf through = grads[j][v] * h[j][v];
            to_dt[v] += through * rates[j][v];
            to_A[j][v] += through * step[v];
        }
        for (int v = 0; v < NV; v++) {
            store(dx + t * 2 * BLOCK + v * W, to_x[v]);
            store(dx + t * 2 * BLOCK + BLOCK + v * W, to_dt[v]);
        }
    }
    EACH_STATE {
        store(AT(g, k + j), grads[j][v]);
        store(AT(dA, k + j), to_A[j][v]);
    }
}

/* Add the sums over lanes of (tokens, count, BLOCK) to the first `count` floats of rows of n; count divides W. */
INLINE void NAME(add_sums)(const float *sums, int64_t tokens, const int count, float *to, int64_t n) {
    for (int64_t t = 0; t < tokens; t += W / count) {
        vf lanes[W];
        for (int j = 0; j < W; j++) {
            lanes[j] = splat(0.0f);
            if (t + j / count < tokens)
                for (int v = 0; v < NV; v++) lanes[j] += load(sums + (t * count + j) * BLOCK + v * W);
        }
        float total[W];
        store(total, NAME(sum_lanes)(lanes));
        for (int j = 0; j < W / count && t + j < tokens; j++)
            for (int l = 0; l < count; l++) to[(t + j) * n + l] += total[j * count + l];
    }
}

/* The gradient of y before the gate, dy = grad silu(z), of tokens from .. to and `count` blocks: (tokens, BLOCK) each.
 */
INLINE void NAME(stage_dy)(const scan_problem *p, int64_t i, int64_t from, int64_t to, int64_t c, int64_t count,
                           float *dy) {
    const int64_t size = extent(to - from);
    const view z_in = p->z, grad_in = p->grad;
    const int tail = NAME(channels)(p, c, count - 1);
    vf grads[NV], zs[NV];
    for (int64_t t = from; t < to; t++, dy += BLOCK)
        for (int64_t g = 0; g < count; g++) {
            const int m = g == count - 1 ? tail : BLOCK;
            const float *grad = (const float *)grad_in.data + i * grad_in.batch + t * grad_in.row + c + g * BLOCK;
            __builtin_prefetch(grad + AHEAD * grad_in.row);
            load_row(grad, m, grads);
            if (z_in.data) {
                const void *z = at(z_in.data, z_in.half, i * z_in.batch + t * z_in.row + c + g * BLOCK);
                __builtin_prefetch(at(z, z_in.half, AHEAD * z_in.row));
                read_row(z, z_in.half, m, zs);
                for (int v = 0; v < NV; v++) grads[v] *= zs[v] * sigmoidv(zs[v]);
            }
            for (int v = 0; v < NV; v++) store(dy + g * size + v * W, grads[v]);
        }
}

/* From dx and ddt, (tokens, 2, BLOCK), of one direction to du and ddelta: added to what is there if `more`; if `last`,
 * with the skip's share and the slope of softplus, and with the sums over tokens dD and dbias, (count, BLOCK) each. */
INLINE void NAME(unstage)(const scan_problem *p, int64_t i, int64_t from, int64_t to, int64_t c, int64_t count,
                          const float *steps, const float *dy, const float *dx, float *dD, float *dbias, const int more,
                          const int last) {
    const int64_t size = extent(to - from), e = p->e;
    const view u_in = p->u, d_in = p->delta;
    const float *D = p->D ? p->D + c : NULL, *bias = p->bias ? p->bias + c : NULL, skips = p->A_b ? 2.0f : 1.0f;
    float *du = p->du + (i * p->l + from) * e + c, *ddelta = p->ddelta + (i * p->l + from) * e + c;
    const int tail = NAME(channels)(p, c, count - 1), softplus = (int)p->softplus;
    for (int64_t t = from; t < to; t++, du += e, ddelta += e)
        for (int64_t g = 0; g < count; g++) {
            const int m = g == count - 1 ? tail : BLOCK;
            vf us[NV], raw[NV] = {{0}}, Ds[NV] = {{0}}, biases[NV] = {{0}}, to_u[NV], to_delta[NV], before[NV];
            const void *u = at(u_in.data, u_in.half, i * u_in.batch + t * u_in.row + c + g * BLOCK);
            const void *delta = at(d_in.data, d_in.half, i * d_in.batch + t * d_in.row + c + g * BLOCK);
            __builtin_prefetch(at(u, u_in.half, AHEAD * u_in.row));
            __builtin_prefetch(at(delta, d_in.half, AHEAD * d_in.row));
            __builtin_prefetch(du + g * BLOCK + AHEAD * e, 1);
            __builtin_prefetch(ddelta + g * BLOCK + AHEAD * e, 1);
            read_row(u, u_in.half, m, us);
            for (int v = 0; v < NV; v++) {
                const int64_t here = 2 * (g * size + (t - from) * BLOCK) + v * W;
                const vf to_x = load(dx + here), to_dt = load(dx + here + BLOCK);
                to_u[v] = to_x * load(steps + here);
                to_delta[v] = to_dt + to_x * us[v];
            }
            if (more) {
                load_row(du + g * BLOCK, m, before);
                for (int v = 0; v < NV; v++) to_u[v] += before[v];
                load_row(ddelta + g * BLOCK, m, before);
                for (int v = 0; v < NV; v++) to_delta[v] += before[v];
            }
            if (last) {
                if (D) load_row(D + g * BLOCK, m, Ds);
                if (bias) load_row(bias + g * BLOCK, m, biases);
                if (softplus) read_row(delta, d_in.half, m, raw);
                for (int v = 0; v < NV; v++) {
                    const vf back = skips * load(dy + g * size + (t - from) * BLOCK + v * W);
                    if (softplus) to_delta[v] *= sigmoidv(raw[v] + biases[v]);
                    to_u[v] += Ds[v] * back;
                    store(AT(dD, g), load(AT(dD, g)) + back * us[v]);
                    store(AT(dbias, g), load(AT(dbias, g)) + to_delta[v]);
                }
            }
            store_row(du + g * BLOCK, m, to_u);
            store_row(ddelta + g * BLOCK, m, to_delta);
        }
}

/* The recurrences of one slot's blocks, own .. end of those staged, on one chunk of tokens; `start`: the states before
 * it of the first block. */
INLINE void NAME(unscan_slot)(const scan_problem *p, int64_t i, int64_t slot, int reverse, int64_t from, int64_t to,
                              int64_t own, int64_t end, const float *A, const float *steps, const float *dy,
                              const float *start, float *g, float *dx, float *dA, float *recalled, float *sums) {
    const int64_t n = p->n, size = extent(to - from), between = (p->l + CHUNK - 1) / CHUNK * n * BLOCK;
    const int64_t into = ((i * p->slots + slot) * p->l + from) * n;
    for (int64_t k = 0; k < n;) { /* all blocks, so that their sums are summed over lanes but once */
        const int64_t some = n - k >= TOGETHER ? TOGETHER : 1;
        memset(sums, 0, sizeof(float) * CHUNK * some * 2 * BLOCK);
        for (int64_t block = own; block < end; block++) {
            const int64_t at = block * size, rate = block * n * BLOCK;
            if (some == 1)
                NAME(unscan_states)(p, i, reverse, from, to, A + rate, steps + 2 * at, dy + at, start + block * between,
                                    g + rate, dx + 2 * at, dA + rate, recalled, sums, k, 1);
            else
                NAME(unscan_states)(p, i, reverse, from, to, A + rate, steps + 2 * at, dy + at, start + block * between,
                                    g + rate, dx + 2 * at, dA + rate, recalled, sums, k, TOGETHER);
        }
        for (int which = 0; which < 2; which++) {
            const float *sum = sums + which * some * (to - from) * BLOCK;
            float *out = (which ? p->dC : p->dB) + into + k;
            if (some == 1)
                NAME(add_sums)(sum, to - from, 1, out, n);
            else
                NAME(add_sums)(sum, to - from, TOGETHER, out, n);
        }
        k += some;
    }
}

/* Gradients of the channels of slots first .. end. The first direction forward again; then CHUNK tokens at a time
 * against it, which is the way that the second one goes forward; then against that. */
static int NAME(unscan_channels)(const scan_problem *p, int64_t i, int64_t first, int64_t end, float *scratch) {
    const int64_t n = p->n, chunks = (p->l + CHUNK - 1) / CHUNK, directions = p->A_b ? 2 : 1;
    const int64_t from_block = first_block(p, first), c = from_block * BLOCK, count = first_block(p, end) - from_block;
    const int64_t rows = apart(count * extent(CHUNK)), pairs = apart(CHUNK * TOGETHER * 2 * BLOCK),
                  rates = apart(count * n * BLOCK);
    const scan_space work = scan_space_in(scratch, count, n);
    float *kept = scratch + scan_scratch(count, n), *dy = kept + apart(directions * count * chunks * n * BLOCK),
          *dx = dy + rows;
    float *recalled = dx + 2 * rows, *sums = recalled + pairs;
    float *first_A = sums + pairs, *dA = first_A + rates, *g = dA + rates, *dD = g + rates,
          *dbias = dD + apart(count * BLOCK);
    if (NAME(scan_channels)(p, i, 0, c, count, work, kept) != DONE) return NOT_A_DECAY;
    memcpy(first_A, work.A, sizeof(float) * count * n * BLOCK);
    if (p->A_b && !NAME(start)(p, 1, c, count, work)) return NOT_A_DECAY;
    memset(dD, 0, sizeof(float) * 2 * apart(count * BLOCK));
    for (int direction = 0; direction < directions; direction++) {
        const int reverse = direction ? 1 : (int)p->reverse, last = direction == directions - 1;
        const float *A = direction ? work.A : first_A;
        memset(dA, 0, sizeof(float) * 2 * rates); /* and g */
        for (int64_t s = 0; s < chunks; s++) {
            const int64_t chunk = reverse ? s : chunks - 1 - s, from = chunk * CHUNK,
                          to = from + CHUNK < p->l ? from + CHUNK : p->l;
            NAME(stage)(p, i, from, to, c, count, work.steps);
            if (!last) NAME(scan_span)(p, i, 1, from, to, c, count, work, kept);
            NAME(stage_dy)(p, i, from, to, c, count, dy);
            memset(dx, 0, sizeof(float) * 2 * rows); /* and ddt */
            for (int64_t slot = first; slot < end; slot++) {
                const int64_t own = first_block(p, slot) - from_block;
                NAME(unscan_slot)(p, i, slot, reverse, from, to, own, first_block(p, slot + 1) - from_block, A,
                                  work.steps, dy, kept + (direction * count * chunks + chunk) * n * BLOCK, g, dx, dA,
                                  recalled, sums);
            }
            NAME(unstage)(p, i, from, to, c, count, work.steps, dy, dx, dD, dbias, direction, last);
        }
        float *out = (direction ? p->dA_b : p->dA) + (i * p->e + c) * n;
        for (int64_t block = 0; block < count; block++)
            for (int j = 0; j < NAME(channels)(p, c, block); j++)
                for (int64_t k = 0; k < n; k++) out[(block * BLOCK + j) * n + k] = dA[(block * n + k) * BLOCK + j];
    }
    for (int64_t block = 0; block < count; block++) {
        const size_t bytes = sizeof(float) * NAME(channels)(p, c, block);
        if (p->D) memcpy(p->dD + i * p->e + c + block * BLOCK, dD + block * BLOCK, bytes);
        if (p->bias) memcpy(p->dbias + i * p->e + c + block * BLOCK, dbias + block * BLOCK, bytes);
    }
    return DONE;
}

static int NAME(scan_backward)(const scan_problem *p) {
    const int64_t blocks = blocks_of(p->e), n = p->n, threads = worth_threads(p->b * p->l * p->e * n, p->threads);
    const int64_t parts = parts_of(p->b, blocks, p->slots, threads),
                  widest = (p->slots + parts - 1) / parts * ((blocks + p->slots - 1) / p->slots);
    const int64_t kept = apart((p->A_b ? 2 : 1) * widest * ((p->l + CHUNK - 1) / CHUNK) * n * BLOCK);
    const int64_t scratch_size = scan_scratch(widest, n) + kept + 3 * apart(widest * extent(CHUNK)) +
                                 2 * apart(CHUNK * TOGETHER * 2 * BLOCK) + 3 * apart(widest * n * BLOCK) +
                                 2 * apart(widest * BLOCK);
    int code = DONE;
#pragma omp parallel num_threads(threads) reduction(max : code)
    {
        const unsigned mode = flush_denormals();
        float *scratch = scratch_space(scratch_size);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < p->b * parts; task++) {
            const int64_t part = task % parts;
            const int done = scratch ? NAME(unscan_channels)(p, task / parts, part * p->slots / parts,
                                                             (part + 1) * p->slots / parts, scratch)
                                     : OUT_OF_MEMORY;
            code = done > code ? done : code;
        }
        restore(mode);
    }
    return code;
}
#undef EACH_STATE
#undef AT
/* The convolution before SiLU at token t, channels c .. c+W: weight (k, e); the last tap meets the token itself.
 * `inside`: no tap reaches beyond the sequence. */
INLINE vf NAME(taps)(const conv_problem *p, const void *x, const int half, const int inside, int64_t t, int64_t c,
                     const int64_t k) {
    vf sum = p->bias ? load(p->bias + c) : splat(0.0f);
    for (int64_t j = 0; j < k; j++) {
        const int64_t from = p->reverse ? t + k - 1 - j : t - k + 1 + j;
        if (!inside && (from < 0 || from >= p->l)) continue;
        const void *input = at(x, half, from * p->x.row + c);
        sum += (half ? NAME(widen)(input) : load(input)) * load(p->weight + j * p->e + c);
    }
    return sum;
}

/* `count` tokens from t on: together, since they share taps and inputs. */
INLINE void NAME(conv_rows)(const conv_problem *p, int64_t i, int64_t t, const int half, const int inside,
                            const int64_t k, const int count) {
    const conv_problem q = *p; /* a copy: for all the compiler knows, stores change *p */
    const void *x = at(q.x.data, half, i * q.x.batch);
    for (int64_t c = 0; c < q.e; c += W) {
        vf sums[LOCKSTEP];
        for (int j = 0; j < count; j++) {
            __builtin_prefetch(at(x, half, (t + count + j) * q.x.row + c));
            sums[j] = NAME(taps)(&q, x, half, inside, t + j, c, k);
        }
        for (int j = 0; j < count; j++) {
            const int64_t place = (i * q.l + t + j) * q.e + c;
            const vf y = sums[j] * sigmoidv(sums[j]);
            if (half)
                NAME(narrow)((uint16_t *)q.out + place, y);
            else
                store((float *)q.out + place, y);
        }
    }
}

static int NAME(conv)(const conv_problem *p) {
    const int64_t chunks = (p->l + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static) num_threads(worth_threads(p->b * p->l * p->e * p->k, p->threads))
    for (int64_t task = 0; task < p->b * chunks; task++) {
        const int64_t i = task / chunks, from = task % chunks * ROWS, to = from + ROWS < p->l ? from + ROWS : p->l;
        for (int64_t t = from, some; t < to; t += some) {
            some = p->k == 4 && t >= 3 && t + LOCKSTEP <= to && t + LOCKSTEP + 3 <= p->l ? LOCKSTEP : 1;
            if (some == 1)
                NAME(conv_rows)(p, i, t, (int)p->x.half, 0, p->k, 1);
            else if (p->x.half)
                NAME(conv_rows)(p, i, t, 1, 1, 4, LOCKSTEP);
            else
                NAME(conv_rows)(p, i, t, 0, 1, 4, LOCKSTEP);
        }
    }
    return DONE;
}

/* Gradients for channels c .. end from `count` steps of time, s and later (a reversed convolution's first step is the
 * last token). `inside`: no tap reaches beyond the sequence, and no step either. `recent` (k - 1, end - c) holds the
 * gradients before SiLU of the last steps: an input's gradient is complete k - 1 steps later. */
INLINE void NAME(unconv_steps)(const conv_problem *p, int64_t i, int64_t s, int64_t c, int64_t end, float *recent,
                               const int inside, const int64_t k, const int count) {
    const conv_problem q = *p;
    const int64_t start = q.reverse ? q.l - 1 : 0, way = q.reverse ? -1 : 1, width = end - c;
    const float *x_in = (const float *)q.x.data + i * q.x.batch, *grad = (const float *)q.grad.data + i * q.grad.batch;
    for (; c < end; c += W, recent += W) {
        vf x[MOST_TAPS + LOCKSTEP], ds[MOST_TAPS + LOCKSTEP], weight[MOST_TAPS],
            dw[MOST_TAPS]; /* x, ds: from step s - k + 1 on */
        const vf bias = q.bias ? load(q.bias + c) : splat(0.0f);
        vf dbias = load(q.dbias + i * q.e + c);
        for (int64_t j = 0; j < k; j++) {
            weight[j] = load(q.weight + j * q.e + c);
            dw[j] = load(q.dweight + (i * k + j) * q.e + c);
        }
        for (int64_t j = 0; j < k - 1 + count; j++) {
            const int64_t step = s - k + 1 + j;
            x[j] = inside || (step >= 0 && step < q.l) ? load(x_in + (start + way * step) * q.x.row + c) : splat(0.0f);
        }
        for (int64_t j = 0; j < k - 1; j++) ds[j] = load(recent + j * width);
        for (int j = 0; j < count; j++) {
            vf y = bias, *now = ds + k - 1 + j;
            for (int64_t m = 0; m < k; m++) y += x[j + m] * weight[m];
            const vf sig = sigmoidv(y);
            *now = inside || s + j < q.l
                       ? load(grad + (start + way * (s + j)) * q.grad.row + c) * sig * (1.0f + y * (1.0f - sig))
                       : splat(0.0f);
            dbias += *now;
            for (int64_t m = 0; m < k; m++) dw[m] += *now * x[j + m];
        }
        for (int j = 0; j < count; j++) {
            const int64_t step = s - k + 1 + j;
            vf dx = splat(0.0f);
            for (int64_t m = 0; m < k; m++) dx += ds[j + k - 1 - m] * weight[m];
            if (inside || step >= 0) store(q.dx + (i * q.l + start + way * step) * q.e + c, dx);
        }
        for (int64_t j = 0; j < k - 1; j++) store(recent + j * width, ds[count + j]);
        for (int64_t j = 0; j < k; j++) store(q.dweight + (i * k + j) * q.e + c, dw[j]);
        store(q.dbias + i * q.e + c, dbias);
    }
}

/* Gradients for channels c .. end of one batch element. */
static void NAME(unconv_channels)(const conv_problem *p, int64_t i, int64_t c, int64_t end, float *recent) {
    const int64_t k = p->k;
    const size_t row = sizeof(float) * (end - c);
    memset(recent, 0, row * (k - 1));
    for (int64_t j = 0; j < k; j++) memset(p->dweight + (i * k + j) * p->e + c, 0, row);
    memset(p->dbias + i * p->e + c, 0, row);
    for (int64_t s = 0, some; s < p->l + k - 1; s += some) { /* it runs on: the last inputs meet no later token */
        some = k == 4 && s >= 3 && s + LOCKSTEP <= p->l ? LOCKSTEP : 1;
        if (some == 1)
            NAME(unconv_steps)(p, i, s, c, end, recent, 0, k, 1);
        else
            NAME(unconv_steps)(p, i, s, c, end, recent, 1, 4, LOCKSTEP);
    }
}

static int NAME(conv_backward)(const conv_problem *p) {
    const int64_t blocks = blocks_of(p->e), threads = worth_threads(p->b * p->l * p->e * p->k, p->threads),
                  parts = parts_of(p->b, blocks, blocks, threads);
    const int64_t widest = (blocks + parts - 1) / parts * BLOCK;
    int code = DONE;
#pragma omp parallel num_threads(threads) reduction(max : code)
    {
        float *recent = scratch_space(p->k * widest);
        if (!recent) code = OUT_OF_MEMORY;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < p->b * parts; task++) {
            const int64_t part = task % parts;
            if (recent)
                NAME(unconv_channels)(p, task / parts, part * blocks / parts * BLOCK,
                                      (part + 1) * blocks / parts * BLOCK, recent);
        }
    }
    return code;
}

INLINE float NAME(total)(vf x) {
    float sum = 0.0f;
    for (int lane = 0; lane < W; lane++) sum += x[lane];
    return sum;
}

static int NAME(norm)(const norm_problem *p) {
#pragma omp parallel for schedule(static) num_threads(worth_threads(p->rows * p->d, p->threads))
    for (int64_t block = 0; block < p->blocks; block++)
        for (int64_t r = block * ROWS; r < p->rows && r < (block + 1) * ROWS; r++) {
            float *sum = p->sum + r * p->d;
            vf squares = splat(0.0f);
            for (int64_t c = 0; c < p->d; c += W) {
                const void *x = at(p->x, p->half_x, r * p->d + c);
                vf s = p->half_x ? NAME(widen)(x) : load(x);
                if (p->residual) s += load(p->residual + r * p->d + c);
                squares += s * s;
                store(sum + c, s);
            }
            const float scale = 1.0f / sqrtf(NAME(total)(squares) / p->width + p->eps);
            for (int64_t c = 0; c < p->d; c += W) {
                const vf out = load(sum + c) * scale * load(p->weight + c);
                if (p->half_out)
                    NAME(narrow)((uint16_t *)p->out + r * p->d + c, out);
                else
                    store((float *)p->out + r * p->d + c, out);
            }
        }
    return DONE;
}

/* With r = the sum's inverse root mean square: dx = r (w g - sum * r^2 mean(w g sum)) + grad_sum; dw = g sum r. */
static int NAME(norm_backward)(const norm_problem *p) {
#pragma omp parallel for schedule(static) num_threads(worth_threads(p->rows * p->d, p->threads))
    for (int64_t block = 0; block < p->blocks; block++) {
        float *dweight = p->dweight + block * p->d;
        for (int64_t c = 0; c < p->d; c++) dweight[c] = 0.0f;
        for (int64_t row = block * ROWS; row < p->rows && row < (block + 1) * ROWS; row++) {
            const float *sum = (const float *)p->x + row * p->d, *grad = p->grad + row * p->d;
            vf squares = splat(0.0f), dots = splat(0.0f);
            for (int64_t c = 0; c < p->d; c += W) {
                const vf s = load(sum + c);
                squares += s * s;
                dots += s * load(grad + c) * load(p->weight + c);
            }
            const float r = 1.0f / sqrtf(NAME(total)(squares) / p->width + p->eps);
            const float pull = r * r * r * NAME(total)(dots) / p->width;
            for (int64_t c = 0; c < p->d; c += W) {
                const vf g = load(grad + c), s = load(sum + c);
                vf dx = g * load(p->weight + c) * r - s * pull;
                if (p->grad_sum) dx += load(p->grad_sum + row * p->d + c);
                store(p->dx + row * p->d + c, dx);
                store(dweight + c, load(dweight + c) + g * s * r);
            }
        }
    }
    return DONE;
}

#include "cpu_mel.h"

#undef vf
#undef vi
#undef vu
#undef NV
#undef TOGETHER
#undef TABLE_EXP2
#undef LOCKSTEP
#undef load
#undef store
#undef splat
#undef select
#undef exponential
#undef ATLEAST
#undef LESSER
#undef softplusv
#undef sigmoidv
#undef read_row
#undef write_row
#undef load_row
#undef store_row
#undef SHUFFLE
