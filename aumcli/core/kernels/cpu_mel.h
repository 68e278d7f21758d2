/* Log-mel spectra for vectors of W floats, W frames at a time, a lane each; included by cpu_simd.h.
 *
 * A lane never meets another, so a frame's result doesn't depend on its neighbours, the batch or the threads. */

#define LANES(x) for (int x = 0; x < W; x++)

#if W == 4
#define LOW_HALVES(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define HIGH_HALVES(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#elif W == 8
#define LOW_HALVES(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_HALVES(a, b) SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define LOW_HALVES(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH_HALVES(a, b) SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#endif

/* Transpose r, (W, W): each round rotates the bits of an element's place by one. */
INLINE void NAME(transpose)(vf *r) {
    vf s[W];
    for (int round = 1; round < W; round *= 2) {
        for (int i = 0; i < W / 2; i++) {
            s[2 * i] = LOW_HALVES(r[i], r[i + W / 2]);
            s[2 * i + 1] = HIGH_HALVES(r[i], r[i + W / 2]);
        }
        LANES(i) r[i] = s[i];
    }
}

/* Sum of `count` numbers, always in the same order. */
INLINE float NAME(sum)(const float *x, int64_t count) {
    vf sums[4] = {{0}, {0}, {0}, {0}};
    int64_t i = 0;
    for (; i + 4 * W <= count; i += 4 * W)
        for (int j = 0; j < 4; j++) sums[j] += load(x + i + j * W);
    for (; i + W <= count; i += W) sums[0] += load(x + i);
    float rest = 0.0f;
    for (; i < count; i++) rest += x[i];
    return NAME(total)((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

/* The samples of a frame and the one before: in place, or where it reaches beyond its clip a copy in `row`, with the
 * clip's mean beyond the ends, which is silence once that is removed. */
INLINE const float *NAME(samples)(const mel_problem *p, const lane_frame *lane, float *row) {
    const int64_t from = p->start + lane->t * p->hop - 1, size = (p->size + W) / W * W, length = p->lengths[lane->clip];
    const float *samples = p->waveforms + lane->clip * p->samples;
    if (from >= 0 && from + size <= length) return samples + from;
    for (int64_t j = 0; j < size; j++) row[j] = from + j >= 0 && from + j < length ? samples[from + j] : lane->mean;
    return row;
}

/* W frames to z (fft, W): means removed, pre-emphasised, windowed, zeros behind them. Multiplication and subtraction
 * are rounded one after the other, as Kaldi's are: the quiet bins beside a loud tone show the difference. */
static void NAME(frames)(const mel_problem *p, const lane_frame *lanes, float *rows, float *z) {
    const int64_t size = (p->size + W) / W * W; /* with the sample before */
    const float *from[W];
    vf mean, sums[4] = {{0}, {0}, {0}, {0}}, r[W];
    LANES(lane) {
        from[lane] = NAME(samples)(p, &lanes[lane], rows + lane * size);
        mean[lane] = lanes[lane].mean;
    }
    float *x = z + W; /* the sample before a frame's first goes to z + 0 */
    for (int64_t j = 0; j < size; j += W) {
        LANES(lane) r[lane] = load(from[lane] + j);
        NAME(transpose)(r);
        LANES(i) {
            if (j + i > p->size) break;
            r[i] -= mean;
            store(z + (j + i) * W, r[i]);
            if (j + i) sums[i % 4] += r[i];
        }
    }
    const vf own = p->remove_means ? ((sums[0] + sums[1]) + (sums[2] + sums[3])) / (float)p->size : splat(0.0f);
    vf before = load(z) - own;
    for (int64_t j = 0; j < p->size; j++) {
        const vf now = load(x + j * W) - own;
        vf past = before * p->pre_emphasis;
        ROUNDED(past);
        before = now;
        store(z + j * W, (now - past) * p->window[j]);
    }
    memset(z + p->size * W, 0, sizeof(float) * W * (p->fft - p->size));
}

typedef struct {
    vf re, im;
} NAME(complex);
#define complex NAME(complex)

INLINE complex NAME(fetch)(const float *x) { return (complex){load(x), load(x + W)}; }
INLINE void NAME(put)(float *x, complex a) {
    store(x, a.re);
    store(x + W, a.im);
}
INLINE complex NAME(times)(complex a, const float *root) {
    return (complex){a.re * root[0] - a.im * root[1], a.re * root[1] + a.im * root[0]};
}

/* One step of radix 4 on points `apart` from each other; roots: (3, 2), or null for ones. */
INLINE void NAME(fourfold)(float *x, int64_t apart, const float *roots) {
    const complex a = NAME(fetch)(x), b = NAME(fetch)(x + apart), c = NAME(fetch)(x + 2 * apart),
                  d = NAME(fetch)(x + 3 * apart);
    const complex ac = {a.re + c.re, a.im + c.im}, bd = {b.re + d.re, b.im + d.im};
    const complex a_c = {a.re - c.re, a.im - c.im}, turned = {b.im - d.im, d.re - b.re}; /* -i (b - d) */
    const complex second = {a_c.re + turned.re, a_c.im + turned.im}, third = {ac.re - bd.re, ac.im - bd.im},
                  fourth = {a_c.re - turned.re, a_c.im - turned.im};
    NAME(put)(x, (complex){ac.re + bd.re, ac.im + bd.im});
    NAME(put)(x + apart, roots ? NAME(times)(second, roots) : second);
    NAME(put)(x + 2 * apart, roots ? NAME(times)(third, roots + 2) : third);
    NAME(put)(x + 3 * apart, roots ? NAME(times)(fourth, roots + 4) : fourth);
}

/* FFT of n complex points (n, 2, W) in place, decimated in frequency; p->places tells where each bin has come to. */
static void NAME(fft)(float *x, int64_t n, const float *roots) {
    int64_t length = n;
    for (; length >= 4; length /= 4) {
        const int64_t apart = length / 4 * 2 * W;
        for (int64_t j = 0; j < length / 4; j++, roots += 6)
            for (int64_t k = j; k < n; k += length) {
                if (j)
                    NAME(fourfold)(x + k * 2 * W, apart, roots);
                else
                    NAME(fourfold)(x + k * 2 * W, apart, NULL);
            }
    }
    if (length == 2)
        for (int64_t k = 0; k < n; k += 2) {
            const complex a = NAME(fetch)(x + k * 2 * W), b = NAME(fetch)(x + (k + 1) * 2 * W);
            NAME(put)(x + k * 2 * W, (complex){a.re + b.re, a.im + b.im});
            NAME(put)(x + (k + 1) * 2 * W, (complex){a.re - b.re, a.im - b.im});
        }
}

/* |X|^2 of the bins 0 .. n of 2n real points, from the FFT of n complex ones whose real parts are the even points:
 * 2 X[k] = (Z[k] + conj Z[n-k]) - i w^k (Z[k] - conj Z[n-k]), w = exp(-i pi / n). */
static void NAME(powers)(const float *z, int64_t n, const float *roots, const int64_t *places, float *out) {
    const complex z0 = NAME(fetch)(z);
    store(out, (z0.re + z0.im) * (z0.re + z0.im));
    store(out + n * W, (z0.re - z0.im) * (z0.re - z0.im));
    for (int64_t k = 1; k <= n / 2; k++) {
        const complex a = NAME(fetch)(z + places[k] * 2 * W), b = NAME(fetch)(z + places[n - k] * 2 * W);
        const complex even = {a.re + b.re, a.im - b.im};
        const complex odd = NAME(times)((complex){a.im + b.im, b.re - a.re}, roots + 2 * k);
        const vf re = even.re + odd.re, im = even.im + odd.im, re2 = even.re - odd.re, im2 = even.im - odd.im;
        store(out + k * W, (re * re + im * im) * 0.25f);
        store(out + (n - k) * W, (re2 * re2 + im2 * im2) * 0.25f);
    }
}

/* Natural logarithm of a positive normal number, relative error below 2e-7; NaN stays NaN. */
INLINE vf NAME(logarithm)(vf x) {
    const vi exponent = ((vi)x - 0x3f3504f3) >> 23; /* so that the mantissa lies in sqrt(1/2) .. sqrt(2) */
    const vf m = (vf)((vi)x - (exponent << 23));
    const vf s = (m - 1.0f) * NAME(reciprocal)(m + 1.0f), s2 = s * s;
    vf p = s2 * (1.0f / 9) + 1.0f / 7;
    p = p * s2 + 1.0f / 5;
    p = p * s2 + 1.0f / 3;
    p = p * s2 + 1.0f;
    return __builtin_convertvector(exponent, vf) * LN2 + 2.0f * s * p + (x - x);
}

/* x / by, to the last bit as a division gives it (Markstein 1990), several times as fast; inverse: 1 / by, rounded. */
INLINE vf NAME(quotient)(vf x, float by, float inverse) {
#ifdef TABLE_EXP2
    const __m512 guess = _mm512_mul_ps((__m512)x, _mm512_set1_ps(inverse));
    const __m512 rest = _mm512_fnmadd_ps(guess, _mm512_set1_ps(by), (__m512)x);
    return (vf)_mm512_fmadd_ps(rest, _mm512_set1_ps(inverse), guess);
#else
    (void)inverse;
    return x / by;
#endif
}

/* Write the mels of W frames. */
static void NAME(mel_frames)(const mel_problem *whole, const lane_frame *lanes, float *scratch) {
    const mel_problem copy = *whole, *p = &copy; /* for all the compiler knows, stores change *whole */
    const int64_t n = p->fft / 2, size = p->size + W;
    const float inverse = 1.0f / p->scale;
    float *z = scratch, *power = z + (p->fft + 1) * W, *mels = power + (size > n + 1 ? size : n + 1) * W;
    vf r[W];
    NAME(frames)(p, lanes, power, z);
    NAME(fft)(z, n, p->roots);
    NAME(powers)(z, n, p->halves, p->places, power);
    if (p->magnitude)
        for (int64_t j = 0; j < p->bins * W; j++) power[j] = sqrtf(power[j]);
    for (int64_t k = 0; k < p->mels; k++) {
        vf sum = splat(0.0f);
        for (int64_t j = p->first[k]; j < p->end[k]; j++) sum += load(power + j * W) * p->filters[k * p->bins + j];
        sum = NAME(logarithm)(select(sum < splat(p->floor), splat(p->floor), sum) + p->offset);
        store(mels + k * W, NAME(quotient)(sum - p->shift, p->scale, inverse));
    }
    for (int64_t k = 0; k < p->mels; k += W) {
        const int64_t count = p->mels - k < W ? p->mels - k : W;
        LANES(i) r[i] = load(mels + (k + i) * W);
        NAME(transpose)(r);
        LANES(lane) {
            if (!lanes[lane].out) continue;
            if (count == W)
                store(lanes[lane].out + k, r[lane]);
            else
                memcpy(lanes[lane].out + k, &r[lane], sizeof(float) * count);
        }
    }
}

static int NAME(log_mel)(const mel_problem *p) {
    const int64_t rows = p->size + W, half = p->fft / 2 + 1, mels = (p->mels + W - 1) / W * W;
    const int64_t size = (p->fft + 1 + (rows > half ? rows : half) + mels) * W;
    const float nothing = (0.0f - p->shift) / p->scale;
    int64_t all = 0;
    for (int64_t i = 0; i < p->b; i++) all += p->n_frames[i];
    int code = DONE;
#pragma omp parallel num_threads(worth_threads(all * p->fft * 8, p->threads)) reduction(max : code)
    {
        float *scratch = scratch_space(size), mean = 0.0f;
        int64_t known = -1; /* the clip whose mean that is */
#pragma omp for schedule(static)
        for (int64_t group = 0; group < (all + W - 1) / W; group++) {
            if (!scratch) {
                code = OUT_OF_MEMORY;
                continue;
            }
            lane_frame lanes[W];
            int64_t i = 0, t = group * W;
            while (t >= p->n_frames[i]) t -= p->n_frames[i++];
            LANES(lane) {
                if (i != known && p->remove_means && p->lengths[i])
                    mean = NAME(sum)(p->waveforms + i * p->samples, p->lengths[i]) / p->lengths[i];
                known = i;
                lanes[lane] =
                    (lane_frame){i, t, mean, group * W + lane < all ? p->out + (i * p->frames + t) * p->mels : NULL};
                if (group * W + lane + 1 < all) /* lanes left over compute the last frame again */
                    for (t++; t >= p->n_frames[i]; t = 0) i++;
            }
            NAME(mel_frames)(p, lanes, scratch);
            LANES(lane)
            if (lanes[lane].out && lanes[lane].t == p->n_frames[lanes[lane].clip] - 1)
                for (int64_t k = p->mels; k < (p->frames - lanes[lane].t) * p->mels; k++) lanes[lane].out[k] = nothing;
        }
    }
    return code;
}

#undef LANES
#undef LOW_HALVES
#undef HIGH_HALVES
#undef complex
