/* Bodies of the C kernels for vectors of W floats; included by cpu.c once per instruction set. */

typedef float NAME(vf) __attribute__((vector_size(4 * W)));
typedef int32_t NAME(vi) __attribute__((vector_size(4 * W)));
typedef float NAME(vu) __attribute__((vector_size(4 * W), aligned(4), may_alias));  /* unaligned memory */
#define vf NAME(vf)
#define vi NAME(vi)
#define vu NAME(vu)
#define NV (BLOCK / W)

INLINE vf NAME(load)(const float *p) { return *(const vu *)p; }
INLINE void NAME(store)(float *p, vf x) { *(vu *)p = x; }
INLINE vf NAME(splat)(float x) { return x - (vf){0}; }
INLINE vf NAME(select)(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
#define load NAME(load)
#define store NAME(store)
#define splat NAME(splat)
#define select NAME(select)

#if defined(X86) && !defined(__clang__) && W == 8
#define ATLEAST(low, x) __builtin_ia32_maxps256(low, x)         /* gives x where x is NaN */
#elif defined(X86) && !defined(__clang__) && W == 4
#define ATLEAST(low, x) __builtin_ia32_maxps(low, x)
#else
#define ATLEAST(low, x) select(low > x, low, x)
#endif

/* x = 2^x for x <= 127, relative error below 1.1e-7; below -126 it gives 2^-126. NaN stays NaN.
 * `count` vectors go in lockstep: one alone would wait for itself, and a scheduler holds too few to find others. */
INLINE void NAME(exp2s)(vf *x, const int count) {
    const vf magic = splat(12582912.0f);                        /* 1.5 * 2^23: rounds to an integer in the mantissa */
    vf rounded[4], p[4];
#define EACH for (int j = 0; j < count; j++)
    EACH x[j] = ATLEAST(splat(-126.0f), x[j]);
    EACH rounded[j] = x[j] + magic;
    EACH x[j] = x[j] - (rounded[j] - magic);                    /* -0.5 .. 0.5 */
    EACH p[j] = x[j] * 1.535336195e-4f + 1.339887440e-3f;
    EACH p[j] = p[j] * x[j] + 9.618437357e-3f;
    EACH p[j] = p[j] * x[j] + 5.550332471e-2f;
    EACH p[j] = p[j] * x[j] + 2.402264791e-1f;
    EACH p[j] = p[j] * x[j] + 6.931472029e-1f;
    EACH p[j] = p[j] * x[j] + 1.0f;
    EACH x[j] = (vf)((vi)p[j] + ((vi)rounded[j] << 23));
#undef EACH
}
#undef ATLEAST

INLINE vf NAME(exp2v)(vf x) {
    NAME(exp2s)(&x, 1);
    return x;
}
#define exp2v NAME(exp2v)

#define LOG2E 1.44269504088896340736f
#define LN2 0.69314718055994530942f

/* log(1 + exp(x)) without overflow: max(x, 0) + log1p(exp(-|x|)), the logarithm by its atanh series. */
INLINE vf NAME(softplus)(vf x) {
    const vf zero = splat(0.0f);
    const vf magnitude = select(x < zero, -x, x);
    const vf w = exp2v(magnitude * -LOG2E);                     /* 0 .. 1 */
    const vf s = w / (w + 2.0f), s2 = s * s;                    /* 0 .. 1/3; the series ends below 2e-8 */
    vf p = splat(1.0f / 13);
    p = p * s2 + 1.0f / 11;
    p = p * s2 + 1.0f / 9;
    p = p * s2 + 1.0f / 7;
    p = p * s2 + 1.0f / 5;
    p = p * s2 + 1.0f / 3;
    p = p * s2 + 1.0f;
    return select(x > zero, x, x - x) + 2.0f * s * p;           /* x - x: NaN stays NaN */
}

INLINE vf NAME(sigmoid)(vf x) {
    const vf cap = splat(87.0f);                                /* exp(87) is still finite */
    const vf a = select(-x > cap, cap, -x);
    return 1.0f / (1.0f + exp2v(a * LOG2E)) + (x - x);          /* x - x: NaN stays NaN */
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
#define FOLD(count, LOW, HIGH) for (int i = 0; i < count; i++) r[i] = LOW(r[2 * i], r[2 * i + 1]) + HIGH(r[2 * i], r[2 * i + 1]);
#if W == 4
#define L1(a, b) SHUFFLE(a, b, 0, 4, 2, 6)
#define H1(a, b) SHUFFLE(a, b, 1, 5, 3, 7)
#define L2(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define H2(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
    FOLD(2, L1, H1) FOLD(1, L2, H2)
#elif W == 8
#define L1(a, b) SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define H1(a, b) SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#define L2(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define H2(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define L4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define H4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
    FOLD(4, L1, H1) FOLD(2, L2, H2) FOLD(1, L4, H4)
#else
#define L1(a, b) SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#define H1(a, b) SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)
#define L2(a, b) SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define H2(a, b) SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define L4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define H4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define L8(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define H8(a, b) SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
    FOLD(8, L1, H1) FOLD(4, L2, H2) FOLD(2, L4, H4) FOLD(1, L8, H8)
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

/* Step sizes dt and inputs x = dt * u of one block of channels, (l, BLOCK) each; 0 if a step is negative. */
INLINE int NAME(stage)(const scan_problem *p, int64_t i, int64_t c, int m, float *dt, float *x) {
    vf bias[NV] = {{0}}, u[NV], d[NV];
    vi negative = {0};
    if (p->bias) load_row(p->bias + c, m, bias);
    for (int64_t t = 0; t < p->l; t++) {
        load_row(p->delta.data + i * p->delta.batch + t * p->delta.row + c, m, d);
        load_row(p->u.data + i * p->u.batch + t * p->u.row + c, m, u);
        for (int v = 0; v < NV; v++) {
            d[v] += bias[v];
            if (p->softplus) d[v] = softplusv(d[v]);
            negative |= d[v] < splat(0.0f);
            store(dt + t * BLOCK + v * W, d[v]);
            store(x + t * BLOCK + v * W, d[v] * u[v]);
        }
    }
    for (int lane = 0; lane < W; lane++) if (negative[lane]) return 0;
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

#define TOGETHER (W == 16 ? 4 : W == 8 ? 2 : 1)                 /* states whose exponentials go in lockstep */

/* Decays of `count` states from k on, for one token: exp2(step * A). */
INLINE void NAME(decay)(const float *A, const vf *step, int64_t k, const int count, vf *decays) {
    for (int j = 0; j < count; j++)
        for (int v = 0; v < NV; v++) decays[j * NV + v] = step[v] * load(A + (k + j) * BLOCK + v * W);
    NAME(exp2s)(decays, count * NV);
}

/* Take `count` states one token further and add what they say to `sum`. */
INLINE void NAME(advance)(const float *A, const vf *step, const vf *input, const float *B, const float *C, int64_t k,
                          const int count, vf h[][NV], vf *sum) {
    vf decays[4];
    NAME(decay)(A, step, k, count, decays);
    for (int j = 0; j < count; j++)
        for (int v = 0; v < NV; v++) {
            h[k + j][v] = decays[j * NV + v] * h[k + j][v] + input[v] * B[k + j];
            sum[v] += h[k + j][v] * C[k + j];
        }
}

/* Scan one block in one direction, adding C h to y (l, BLOCK); keeps the state before every CHUNK tokens if asked. */
INLINE void NAME(scan_block)(const scan_problem *p, int64_t i, int reverse, const float *A, const float *dt,
                             const float *x, float *y, float *kept, const int64_t n) {
    vf h[MOST_STATES][NV];
    for (int64_t k = 0; k < n; k++) for (int v = 0; v < NV; v++) h[k][v] = splat(0.0f);
    for (int64_t s = 0; s < p->l; s++) {
        const int64_t t = reverse ? p->l - 1 - s : s;
        if (kept && s % CHUNK == 0)
            for (int64_t k = 0; k < n; k++)
                for (int v = 0; v < NV; v++) store(kept + ((s / CHUNK) * n + k) * BLOCK + v * W, h[k][v]);
        const float *B = p->B.data + i * p->B.batch + t * p->B.row;
        const float *C = p->C.data + i * p->C.batch + t * p->C.row;
        vf step[NV], input[NV], sum[NV];
        for (int v = 0; v < NV; v++) {
            step[v] = load(dt + t * BLOCK + v * W);
            input[v] = load(x + t * BLOCK + v * W);
            sum[v] = load(y + t * BLOCK + v * W);
        }
        int64_t k = 0;
        for (; k + TOGETHER <= n; k += TOGETHER) NAME(advance)(A, step, input, B, C, k, TOGETHER, h, sum);
        for (; k < n; k++) NAME(advance)(A, step, input, B, C, k, 1, h, sum);
        for (int v = 0; v < NV; v++) store(y + t * BLOCK + v * W, sum[v]);
    }
}

/* Turn y into (y + skip D u) silu(z) and write it out. */
INLINE void NAME(gate)(const scan_problem *p, int64_t i, int64_t c, int m, const float *y, float skips) {
    vf D[NV] = {{0}}, u[NV], z[NV], out[NV];
    if (p->D) load_row(p->D + c, m, D);
    for (int64_t t = 0; t < p->l; t++) {
        load_row(p->u.data + i * p->u.batch + t * p->u.row + c, m, u);
        if (p->z.data) load_row(p->z.data + i * p->z.batch + t * p->z.row + c, m, z);
        for (int v = 0; v < NV; v++) {
            out[v] = load(y + t * BLOCK + v * W) + skips * D[v] * u[v];
            if (p->z.data) out[v] *= z[v] * sigmoidv(z[v]);
        }
        store_row(p->out + (i * p->l + t) * p->e + c, m, out);
    }
}

static int NAME(scan)(const scan_problem *p) {
    const int64_t blocks = (p->e + BLOCK - 1) / BLOCK, size = p->l * BLOCK;
    int code = DONE;
    #pragma omp parallel num_threads(worth_threads(p->b * p->l * p->e * p->n, p->threads)) reduction(max : code)
    {
        float *scratch = malloc(sizeof(float) * (3 * size + p->n * BLOCK));
        #pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < p->b * blocks; task++) {
            if (!scratch) { code = OUT_OF_MEMORY; continue; }
            float *dt = scratch, *x = dt + size, *y = x + size, *A = y + size;
            const int64_t i = task / blocks, c = task % blocks * BLOCK;
            const int m = p->e - c < BLOCK ? (int)(p->e - c) : BLOCK;
            if (!NAME(stage)(p, i, c, m, dt, x)) { code = NOT_A_DECAY; continue; }
            memset(y, 0, sizeof(float) * size);
            for (int direction = 0; direction < (p->A_b ? 2 : 1); direction++) {
                if (!NAME(stage_A)(direction ? p->A_b : p->A, p->n, c, m, A)) { code = NOT_A_DECAY; break; }
                const int reverse = direction ? 1 : (int)p->reverse;
                if (p->n == 16) NAME(scan_block)(p, i, reverse, A, dt, x, y, NULL, 16);
                else if (p->n == 8) NAME(scan_block)(p, i, reverse, A, dt, x, y, NULL, 8);
                else NAME(scan_block)(p, i, reverse, A, dt, x, y, NULL, p->n);
            }
            NAME(gate)(p, i, c, m, y, p->A_b ? 2.0f : 1.0f);
        }
        free(scratch);
    }
    return code;
}

/* Add each state's gradient of B and C, summed over the block's channels, to rows of n floats. */
INLINE void NAME(add_sums)(vf *sums, float *row, int64_t n) {
    int64_t k = 0;
    for (; k + W <= n; k += W) store(row + k, load(row + k) + NAME(sum_lanes)(sums + k));
    for (; k < n; k++) for (int lane = 0; lane < W; lane++) row[k] += sums[k][lane];
}

/* Take `count` states one token further, keeping their decays and what they carry over from their past. */
INLINE void NAME(recall)(const float *A, const vf *step, const vf *input, const float *B, int64_t k, const int count,
                         vf h[][NV], float *decays, float *carried) {
    vf decay[4];
    NAME(decay)(A, step, k, count, decay);
    for (int j = 0; j < count; j++)
        for (int v = 0; v < NV; v++) {
            const vf carry = decay[j * NV + v] * h[k + j][v];
            store(decays + (k + j) * BLOCK + v * W, decay[j * NV + v]);
            store(carried + (k + j) * BLOCK + v * W, carry);
            h[k + j][v] = carry + input[v] * B[k + j];
        }
}

/* Gradients of one block in one direction: adds to dx, ddt (l, BLOCK), to dB, dC (l, n), and to dA (n, BLOCK). */
INLINE void NAME(unscan_block)(const scan_problem *p, int64_t i, int reverse, const float *A, const float *dt,
                               const float *x, const float *dy, const float *kept, float *decays, float *carried,
                               float *dx, float *ddt, float *dB, float *dC, float *dA, const int64_t n) {
    vf g[MOST_STATES][NV], h[MOST_STATES][NV], sumB[MOST_STATES], sumC[MOST_STATES];
    for (int64_t k = 0; k < n; k++) for (int v = 0; v < NV; v++) g[k][v] = splat(0.0f);
    for (int64_t chunk = (p->l - 1) / CHUNK; chunk >= 0; chunk--) {
        const int64_t from = chunk * CHUNK, to = from + CHUNK < p->l ? from + CHUNK : p->l;
        for (int64_t k = 0; k < n; k++) for (int v = 0; v < NV; v++) h[k][v] = load(kept + (chunk * n + k) * BLOCK + v * W);
        for (int64_t s = from; s < to; s++) {       /* the decays, and what each state carries over from its past */
            const int64_t t = reverse ? p->l - 1 - s : s, at = (s - from) * n * BLOCK;
            const float *B = p->B.data + i * p->B.batch + t * p->B.row;
            vf step[NV], input[NV];
            for (int v = 0; v < NV; v++) { step[v] = load(dt + t * BLOCK + v * W); input[v] = load(x + t * BLOCK + v * W); }
            int64_t k = 0;
            for (; k + TOGETHER <= n; k += TOGETHER)
                NAME(recall)(A, step, input, B, k, TOGETHER, h, decays + at, carried + at);
            for (; k < n; k++) NAME(recall)(A, step, input, B, k, 1, h, decays + at, carried + at);
        }
        for (int64_t s = to - 1; s >= from; s--) {
            const int64_t t = reverse ? p->l - 1 - s : s, at = (s - from) * n * BLOCK;
            const float *B = p->B.data + i * p->B.batch + t * p->B.row;
            const float *C = p->C.data + i * p->C.batch + t * p->C.row;
            vf step[NV], input[NV], out[NV], to_x[NV], to_dt[NV];
            for (int v = 0; v < NV; v++) {
                step[v] = load(dt + t * BLOCK + v * W);
                input[v] = load(x + t * BLOCK + v * W);
                out[v] = load(dy + t * BLOCK + v * W);
                to_x[v] = load(dx + t * BLOCK + v * W);
                to_dt[v] = load(ddt + t * BLOCK + v * W);
            }
            for (int64_t k = 0; k < n; k++) {
                vf for_B = splat(0.0f), for_C = splat(0.0f);
                for (int v = 0; v < NV; v++) {
                    const vf carry = load(carried + at + k * BLOCK + v * W);
                    const vf grad = g[k][v] + out[v] * C[k];
                    const vf through = grad * carry;            /* dL / d(dt A) */
                    for_C += out[v] * (carry + input[v] * B[k]);
                    for_B += grad * input[v];
                    to_x[v] += grad * B[k];
                    to_dt[v] += through * (load(A + k * BLOCK + v * W) * LN2);
                    store(dA + k * BLOCK + v * W, load(dA + k * BLOCK + v * W) + through * step[v]);
                    g[k][v] = grad * load(decays + at + k * BLOCK + v * W);
                }
                sumB[k] = for_B;
                sumC[k] = for_C;
            }
            NAME(add_sums)(sumB, dB + t * n, n);
            NAME(add_sums)(sumC, dC + t * n, n);
            for (int v = 0; v < NV; v++) { store(dx + t * BLOCK + v * W, to_x[v]); store(ddt + t * BLOCK + v * W, to_dt[v]); }
        }
    }
}

/* dz, and dy = the gradient of y before the gate; y holds both directions, y_gate those that dz may see. */
INLINE void NAME(ungate)(const scan_problem *p, int64_t i, int64_t c, int m, const float *y_gate, float skips_gate,
                         float skips, float *dy) {
    vf D[NV] = {{0}}, dD[NV] = {{0}}, u[NV], z[NV], grad[NV], dz[NV];
    if (p->D) load_row(p->D + c, m, D);
    for (int64_t t = 0; t < p->l; t++) {
        load_row(p->u.data + i * p->u.batch + t * p->u.row + c, m, u);
        load_row(p->grad.data + i * p->grad.batch + t * p->grad.row + c, m, grad);
        if (p->z.data) {
            load_row(p->z.data + i * p->z.batch + t * p->z.row + c, m, z);
            for (int v = 0; v < NV; v++) {
                const vf s = sigmoidv(z[v]), whole = load(y_gate + t * BLOCK + v * W) + skips_gate * D[v] * u[v];
                dz[v] = grad[v] * whole * s * (1.0f + z[v] * (1.0f - s));
                grad[v] *= z[v] * s;
            }
            store_row(p->dz + (i * p->l + t) * p->e + c, m, dz);
        }
        for (int v = 0; v < NV; v++) { dD[v] += skips * grad[v] * u[v]; store(dy + t * BLOCK + v * W, grad[v]); }
    }
    if (p->D) store_row(p->dD + i * p->e + c, m, dD);
}

/* From dx and ddt to du, ddelta and the bias's gradient. */
INLINE void NAME(unstage)(const scan_problem *p, int64_t i, int64_t c, int m, float skips, const float *dt,
                          const float *dy, const float *dx, const float *ddt) {
    vf D[NV] = {{0}}, bias[NV] = {{0}}, dbias[NV] = {{0}}, u[NV], raw[NV] = {{0}}, du[NV], dd[NV];
    if (p->D) load_row(p->D + c, m, D);
    if (p->bias) load_row(p->bias + c, m, bias);
    for (int64_t t = 0; t < p->l; t++) {
        load_row(p->u.data + i * p->u.batch + t * p->u.row + c, m, u);
        if (p->softplus) load_row(p->delta.data + i * p->delta.batch + t * p->delta.row + c, m, raw);
        for (int v = 0; v < NV; v++) {
            const int64_t at = t * BLOCK + v * W;
            du[v] = load(dx + at) * load(dt + at) + skips * D[v] * load(dy + at);
            dd[v] = load(ddt + at) + load(dx + at) * u[v];
            if (p->softplus) dd[v] *= sigmoidv(raw[v] + bias[v]);
            dbias[v] += dd[v];
        }
        store_row(p->du + (i * p->l + t) * p->e + c, m, du);
        store_row(p->ddelta + (i * p->l + t) * p->e + c, m, dd);
    }
    if (p->bias) store_row(p->dbias + i * p->e + c, m, dbias);
}

static int NAME(scan_backward)(const scan_problem *p) {
    const int64_t blocks = (p->e + BLOCK - 1) / BLOCK, size = p->l * BLOCK, n = p->n;
    const int64_t states = (p->l + CHUNK - 1) / CHUNK * n * BLOCK;
    const int directions = p->A_b ? 2 : 1;
    const float skips = (float)directions, skips_gate = p->published_gate ? 1.0f : skips;
    int code = DONE;
    #pragma omp parallel num_threads(worth_threads(p->b * p->l * p->e * p->n, p->threads)) reduction(max : code)
    {
        float *scratch = malloc(sizeof(float) * (6 * size + 2 * (states + n * BLOCK) + (2 * CHUNK + 1) * n * BLOCK));
        #pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < p->b * p->slots; task++) {
            if (!scratch) { code = OUT_OF_MEMORY; continue; }
            float *dt = scratch, *x = dt + size, *y = x + size, *dy = y + size, *dx = dy + size, *ddt = dx + size;
            float *kept[2] = {ddt + size, ddt + size + states}, *A[2] = {kept[1] + states, kept[1] + states + n * BLOCK};
            float *dA = A[1] + n * BLOCK, *decays = dA + n * BLOCK, *carried = decays + CHUNK * n * BLOCK;
            const int64_t i = task / p->slots, slot = task % p->slots;
            float *dB = p->dB + task * p->l * n, *dC = p->dC + task * p->l * n;
            for (int64_t block = slot * blocks / p->slots; block < (slot + 1) * blocks / p->slots; block++) {
                const int64_t c = block * BLOCK;
                const int m = p->e - c < BLOCK ? (int)(p->e - c) : BLOCK;
                if (!NAME(stage)(p, i, c, m, dt, x)) { code = NOT_A_DECAY; break; }
                for (int d = 0; d < directions; d++)
                    if (!NAME(stage_A)(d ? p->A_b : p->A, n, c, m, A[d])) code = NOT_A_DECAY;
                memset(y, 0, sizeof(float) * size);
                for (int d = 0; d < directions; d++) {
                    if (d && p->published_gate) NAME(ungate)(p, i, c, m, y, skips_gate, skips, dy);
                    const int reverse = d ? 1 : (int)p->reverse;
                    if (n == 16) NAME(scan_block)(p, i, reverse, A[d], dt, x, y, kept[d], 16);
                    else if (n == 8) NAME(scan_block)(p, i, reverse, A[d], dt, x, y, kept[d], 8);
                    else NAME(scan_block)(p, i, reverse, A[d], dt, x, y, kept[d], n);
                }
                if (directions == 1 || !p->published_gate) NAME(ungate)(p, i, c, m, y, skips_gate, skips, dy);
                memset(dx, 0, sizeof(float) * 2 * size);
                for (int d = 0; d < directions; d++) {
                    const int reverse = d ? 1 : (int)p->reverse;
                    memset(dA, 0, sizeof(float) * n * BLOCK);
                    if (n == 16) NAME(unscan_block)(p, i, reverse, A[d], dt, x, dy, kept[d], decays, carried, dx, ddt, dB, dC, dA, 16);
                    else if (n == 8) NAME(unscan_block)(p, i, reverse, A[d], dt, x, dy, kept[d], decays, carried, dx, ddt, dB, dC, dA, 8);
                    else NAME(unscan_block)(p, i, reverse, A[d], dt, x, dy, kept[d], decays, carried, dx, ddt, dB, dC, dA, n);
                    float *out = (d ? p->dA_b : p->dA) + (i * p->e + c) * n;
                    for (int j = 0; j < m; j++) for (int64_t k = 0; k < n; k++) out[j * n + k] = dA[k * BLOCK + j];
                }
                NAME(unstage)(p, i, c, m, skips, dt, dy, dx, ddt);
            }
        }
        free(scratch);
    }
    return code;
}

/* The convolution before SiLU at token t, channels c .. c+W: weight (k, e); the last tap meets the token itself. */
INLINE vf NAME(taps)(const conv_problem *p, const float *x, int64_t t, int64_t c, const int64_t k) {
    vf sum = p->bias ? load(p->bias + c) : splat(0.0f);
    for (int64_t j = 0; j < k; j++) {
        const int64_t from = p->reverse ? t + k - 1 - j : t - k + 1 + j;
        if (from >= 0 && from < p->l) sum += load(x + from * p->x.row + c) * load(p->weight + j * p->e + c);
    }
    return sum;
}

static int NAME(conv)(const conv_problem *p) {
    const int64_t chunks = (p->l + ROWS - 1) / ROWS;
    #pragma omp parallel for schedule(static) num_threads(worth_threads(p->b * p->l * p->e * p->k, p->threads))
    for (int64_t task = 0; task < p->b * chunks; task++) {
        const int64_t i = task / chunks, from = task % chunks * ROWS, to = from + ROWS < p->l ? from + ROWS : p->l;
        const float *x = p->x.data + i * p->x.batch;
        for (int64_t t = from; t < to; t++)
            for (int64_t c = 0; c < p->e; c += W) {
                const vf s = p->k == 4 ? NAME(taps)(p, x, t, c, 4) : NAME(taps)(p, x, t, c, p->k);
                store(p->out + (i * p->l + t) * p->e + c, s * sigmoidv(s));
            }
    }
    return DONE;
}

/* Gradients for one batch element and W channels, tokens in the order of time (reverse: backwards). */
INLINE void NAME(unconv_lane)(const conv_problem *p, int64_t i, int64_t c, const int64_t k) {
    const float *x = p->x.data + i * p->x.batch, *grad = p->grad.data + i * p->grad.batch;
    vf dw[MOST_TAPS], weight[MOST_TAPS], dbias = splat(0.0f), recent[MOST_TAPS];   /* recent[j]: ds at token s - j */
    for (int64_t j = 0; j < k; j++) { dw[j] = recent[j] = splat(0.0f); weight[j] = load(p->weight + j * p->e + c); }
    for (int64_t s = 0; s < p->l + k - 1; s++) {                /* s runs on: the last inputs meet no later token */
        for (int64_t j = k - 1; j > 0; j--) recent[j] = recent[j - 1];
        recent[0] = splat(0.0f);
        if (s < p->l) {
            const int64_t t = p->reverse ? p->l - 1 - s : s;
            const vf y = NAME(taps)(p, x, t, c, k), sig = sigmoidv(y);
            const vf ds = load(grad + t * p->grad.row + c) * sig * (1.0f + y * (1.0f - sig));
            recent[0] = ds;
            dbias += ds;
            for (int64_t j = 0; j < k; j++) {
                const int64_t past = s - (k - 1) + j;
                if (past >= 0) dw[j] += ds * load(x + (p->reverse ? p->l - 1 - past : past) * p->x.row + c);
            }
        }
        const int64_t done = s - (k - 1);                       /* every output that used this input has been seen */
        if (done >= 0) {
            vf dx = splat(0.0f);
            for (int64_t j = 0; j < k; j++) dx += recent[j] * weight[j];
            store(p->dx + (i * p->l + (p->reverse ? p->l - 1 - done : done)) * p->e + c, dx);
        }
    }
    for (int64_t j = 0; j < k; j++) store(p->dweight + (i * p->k + j) * p->e + c, dw[j]);
    store(p->dbias + i * p->e + c, dbias);
}

static int NAME(conv_backward)(const conv_problem *p) {
    const int64_t blocks = p->e / BLOCK;
    #pragma omp parallel for schedule(static) num_threads(worth_threads(p->b * p->l * p->e * p->k, p->threads))
    for (int64_t task = 0; task < p->b * blocks; task++)
        for (int v = 0; v < NV; v++) {
            const int64_t i = task / blocks, c = task % blocks * BLOCK + v * W;
            if (p->k == 4) NAME(unconv_lane)(p, i, c, 4);
            else NAME(unconv_lane)(p, i, c, p->k);
        }
    return DONE;
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
            const float *x = p->x + r * p->d;
            float *sum = p->sum + r * p->d, *out = p->out + r * p->d;
            vf squares = splat(0.0f);
            for (int64_t c = 0; c < p->d; c += W) {
                const vf s = p->residual ? load(x + c) + load(p->residual + r * p->d + c) : load(x + c);
                squares += s * s;
                store(sum + c, s);
            }
            const float scale = 1.0f / sqrtf(NAME(total)(squares) / p->width + p->eps);
            for (int64_t c = 0; c < p->d; c += W) store(out + c, load(sum + c) * scale * load(p->weight + c));
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
            const float *sum = p->x + row * p->d, *grad = p->grad + row * p->d;
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

/* One frame: mean removed, pre-emphasised, windowed. Multiplication and subtraction are rounded one after the other,
 * as Kaldi's and torchaudio's are: the quiet bins beside a loud tone show the difference. */
static void NAME(frame)(const frame_problem *p, const float *x, const float mean, float *out) {
    int64_t i = 0;
    for (; i + W <= p->size; i += W) {
        const vf now = *(const vu *)(x + i) - mean, before = *(const vu *)(x + i - 1) - mean;
        vf past = before * p->pre_emphasis;
        ROUNDED(past);
        const vf difference = now - past;
        *(vu *)(out + i) = difference * *(const vu *)(p->window + i);
    }
    for (; i < p->size; i++) {
        float past = (x[i - 1] - mean) * p->pre_emphasis;
        ROUNDED(past);
        const float difference = (x[i] - mean) - past;
        out[i] = difference * p->window[i];
    }
    for (; i < p->fft; i++) out[i] = 0.0f;
}

static int NAME(frames)(const frame_problem *p) {
    #pragma omp parallel for schedule(static) num_threads(worth_threads(p->b * p->frames * p->size, p->threads))
    for (int64_t task = 0; task < p->b * p->frames; task++)
        NAME(frame)(p, p->waveforms + task / p->frames * p->samples + 1 + task % p->frames * p->hop,
                    p->means[task], p->out + task * p->fft);
    return DONE;
}

/* Natural logarithm of a positive normal number, relative error below 2e-7; NaN stays NaN. */
INLINE vf NAME(logarithm)(vf x) {
    const vi exponent = ((vi)x - 0x3f3504f3) >> 23;             /* so that the mantissa lies in sqrt(1/2) .. sqrt(2) */
    const vf m = (vf)((vi)x - (exponent << 23));
    const vf s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
    vf p = s2 * (1.0f / 9) + 1.0f / 7;
    p = p * s2 + 1.0f / 5;
    p = p * s2 + 1.0f / 3;
    p = p * s2 + 1.0f;
    return __builtin_convertvector(exponent, vf) * LN2 + 2.0f * s * p + (x - x);
}

/* W frames at a time, a lane each. */
static int NAME(log_mel)(const mel_problem *p) {
    int code = DONE;
    #pragma omp parallel num_threads(worth_threads(p->frames * p->bins, p->threads)) reduction(max : code)
    {
        float *power = malloc(sizeof(float) * W * (p->bins + p->mels)), *mels = power + W * p->bins;
        #pragma omp for schedule(static)
        for (int64_t group = 0; group < (p->frames + W - 1) / W; group++) {
            if (!power) { code = OUT_OF_MEMORY; continue; }
            for (int lane = 0; lane < W; lane++) {
                const int64_t frame = group * W + lane < p->frames ? group * W + lane : p->frames - 1;
                const float *spectrum = p->spectrum + frame * 2 * (p->bins + 1);
                for (int64_t j = 0; j < p->bins; j++)
                    power[j * W + lane] = spectrum[2 * j] * spectrum[2 * j] + spectrum[2 * j + 1] * spectrum[2 * j + 1];
            }
            for (int64_t k = 0; k < p->mels; k++) {
                vf sum = splat(0.0f);
                for (int64_t j = p->first[k]; j < p->end[k]; j++) sum += load(power + j * W) * p->filters[k * p->bins + j];
                store(mels + k * W, NAME(logarithm)(select(sum < splat(p->floor), splat(p->floor), sum)));
            }
            for (int lane = 0; lane < W && group * W + lane < p->frames; lane++)
                for (int64_t k = 0; k < p->mels; k++) p->out[(group * W + lane) * p->mels + k] = mels[k * W + lane];
        }
        free(power);
    }
    return code;
}

#undef vf
#undef vi
#undef vu
#undef NV
#undef TOGETHER
#undef load
#undef store
#undef splat
#undef select
#undef exp2v
#undef softplusv
#undef sigmoidv
#undef load_row
#undef store_row
#undef SHUFFLE
