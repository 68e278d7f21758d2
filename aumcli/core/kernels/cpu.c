/* C kernels for processors: selective scan, causal convolution and normalisation, forward and backward; log-mel
 * spectra.
 *
 * Plain C ABI, no torch headers: cpu.py fills one `problem` and calls one of the functions at the end.
 * cpu_simd.h holds the bodies; it is included once per instruction set, and the widest that the machine has
 * is chosen at run time. Every function returns 0, or one of the codes below.
 *
 * Axes: b batch, l tokens, e channels, n states, k taps. Tensors (b, l, e) have any row stride and unit
 * channel stride. Sums over channels or tokens are always taken in an order that depends on the shape
 * alone, so results are the same bit for bit for any number of threads.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
#define FLUSH_DENORMALS 0x8040u /* bits of MXCSR: take them for zero, as inputs and as results */
#endif

enum { DONE = 0, OUT_OF_MEMORY = 1, NOT_A_DECAY = 2 };

typedef struct {
    const void *data;
    int64_t batch, row, half;
} view; /* (b, l, *), strides in numbers; half: bfloat16, else float */

typedef struct {
    int64_t b, l, e, n, slots; /* slots: fixed groups of channels, each with its own dB and dC */
    int64_t threads;
    int64_t softplus, reverse;       /* reverse: of the only direction, where A_b is null */
    int64_t published_gate;          /* the gate's gradient misses the reversed direction */
    view u, delta, z, B, C, grad;    /* z.data may be null */
    const float *A, *A_b, *D, *bias; /* (e, n), (e, n) or null, (e) or null, (e) or null */
    void *out;                       /* (b, l, e), bfloat16 if half_out */
    float *partial;                  /* (b, l, e): the first direction's y where out is bfloat16, else out */
    int64_t half_out;
    float *du, *ddelta, *dz; /* (b, l, e) */
    float *dB, *dC;          /* (b, slots, l, n) */
    float *dA, *dA_b;        /* (b, e, n) */
    float *dD, *dbias;       /* (b, e) */
} scan_problem;

typedef struct {
    int64_t b, l, e, k, threads, reverse;
    view x, grad;
    const float *weight, *bias; /* (k, e), (e) or null */
    void *out;                  /* (b, l, e), bfloat16 if x is */
    float *dx;                  /* (b, l, e) */
    float *dweight, *dbias;     /* (b, k, e), (b, e) */
} conv_problem;

typedef struct {
    int64_t rows, d, width, threads, blocks; /* d: row stride, width padded with zeros; blocks of ROWS rows */
    float eps;
    int64_t half_x, half_out;       /* bfloat16, else float */
    const void *x;                  /* (rows, d) */
    const float *residual, *weight; /* (rows, d) or null, (d) */
    const float *grad, *grad_sum;   /* (rows, d), (rows, d) or null */
    void *out;                      /* (rows, d) */
    float *sum;                     /* (rows, d) */
    float *dx, *dweight;            /* (rows, d), (blocks, d) */
} norm_problem;

typedef struct {
    int64_t b, samples, frames, size, hop, start, fft, bins, mels,
        threads; /* start: of the first frame, may be negative */
    int64_t remove_means, magnitude;
    float pre_emphasis, floor, offset, shift, scale;
    const float *waveforms;            /* (b, samples) */
    const int64_t *lengths, *n_frames; /* (b): samples that belong to a clip; frames to compute, `frames` at most */
    const float *window;               /* (size) */
    const float *roots, *halves;       /* of the FFT's steps, (3, 2) each; exp(-2 pi i k / fft), (fft / 4 + 1, 2) */
    const int64_t *places;             /* (fft / 2): where the FFT leaves each bin */
    const float *filters;              /* (mels, bins) */
    const int64_t *first, *end;        /* (mels): the bins where a filter is not zero */
    float *out;                        /* (b, frames, mels) */
} mel_problem;

typedef struct {
    int64_t clip, t;
    float mean, *out;
} lane_frame; /* its clip's mean; out is null where it isn't wanted */

#define LOG2E 1.44269504088896340736f
#define LN2 0.69314718055994530942f
#define BLOCK 16 /* channels of one task: a cache line of floats */
#define CHUNK 24 /* tokens whose states the backward pass keeps at a time: fits the first-level cache */
#define SPAN                                                                                                      \
    48 /* tokens, whole chunks, that the forward pass takes through all channels of a task: fits the second-level \
          cache */
#define WIDEST 64 /* blocks of channels in a task */
#define AHEAD 2   /* rows that are fetched before their turn: each begins on another page, where no prefetcher looks */
#define ROWS 64   /* rows of one task of the convolution and the normalisation */
#define MOST_STATES 256
#define MOST_TAPS 16
_Static_assert(SPAN % CHUNK == 0, "the forward pass keeps a state at each chunk's start, and where a span begins");
/* Keep the compiler from fusing the rounding of `x` into what follows. */
#if defined(__x86_64__)
#define ROUNDED(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define ROUNDED(x) __asm__("" : "+w"(x))
#else
#define ROUNDED(x) __asm__("" : "+m"(x))
#endif
#define INLINE static inline __attribute__((always_inline))

/* Kernels smaller than this many multiplications are not worth waking a thread. */
static int worth_threads(int64_t work, int64_t threads) { return work < 200000 ? 1 : (int)threads; }

/* Floats to set aside for an array of `size`, so that arrays side by side don't begin at the same place of a page: a
 * load has to wait for an earlier store to an address that looks the same in its last 12 bits. */
static int64_t apart(int64_t size) { return (size + 1023) / 1024 * 1024 + 160; }

/* Floats to set aside for a block's rows of so many tokens: blocks whose rows lay a multiple of 4096 bytes apart would
 * all have to share one set of the first-level cache, and a row is written for one block after the other. */
static int64_t extent(int64_t tokens) { return tokens * BLOCK + 2 * BLOCK; }

/* From now on this thread takes denormal numbers, below 1.2e-38, for zero; gives what to `restore`. Gradients pass
 * through them on their way to zero, far from the tokens that the loss depends on, and each would cost some hundred
 * cycles on x86. */
static unsigned flush_denormals(void) {
#ifdef X86
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | FLUSH_DENORMALS);
    return mode;
#else
    return 0;
#endif
}

static void restore(unsigned mode) {
#ifdef X86
    _mm_setcsr(mode);
#else
    (void)mode;
#endif
}

#define KEEP (16 << 20) /* floats of scratch space that a thread may keep */

/* Scratch space of this thread, aligned to cache lines; null if there is no memory. It is kept for the next call: fresh
 * memory costs a page fault for every 4096 bytes. */
static float *scratch_space(int64_t floats) {
    static _Thread_local float *kept;
    static _Thread_local int64_t size;
    if (floats > size || size > KEEP) {
        free(kept);
        size = (floats + 15) / 16 * 16;
        kept = aligned_alloc(64, sizeof(float) * size);
        if (!kept) size = 0;
    }
    return kept;
}

/* The number at `index` of an array of floats, or of bfloat16 numbers if `half`. */
static inline const void *at(const void *data, int64_t half, int64_t index) {
    return (const char *)data + (half ? 2 : 4) * index;
}

static int64_t blocks_of(int64_t e) { return (e + BLOCK - 1) / BLOCK; }

/* The first block of channels of a slot. */
static int64_t first_block(const scan_problem *p, int64_t slot) { return slot * blocks_of(p->e) / p->slots; }

/* In how many parts, of `most`, to cut the blocks of each of b batch elements: so few that all threads have work, since
 * the memory likes long rows, and none wider than WIDEST. */
static int64_t parts_of(int64_t b, int64_t blocks, int64_t most, int64_t threads) {
    int64_t parts = (threads + b - 1) / b;
    if ((blocks + parts - 1) / parts > WIDEST) parts = (blocks + WIDEST - 1) / WIDEST;
    return parts < most ? parts : most;
}

/* What scanning `count` blocks of channels works in: staged tokens and their y, (block, 2, ..) and (block, ..), rates
 * and states, (block, n, BLOCK). */
typedef struct {
    float *steps, *y, *A, *states;
} scan_space;

static int64_t scan_scratch(int64_t count, int64_t n) {
    return 3 * apart(count * extent(SPAN)) + 2 * apart(count * n * BLOCK);
}

static scan_space scan_space_in(float *scratch, int64_t count, int64_t n) {
    float *y = scratch + 2 * apart(count * extent(SPAN)), *A = y + apart(count * extent(SPAN));
    return (scan_space){scratch, y, A, A + apart(count * n * BLOCK)};
}

#ifdef X86
static const float exp2_of_32nds[32] = {
    1.0f,        1.02189715f, 1.04427378f, 1.0671404f,  1.09050773f, 1.11438674f, 1.13878863f, 1.16372486f,
    1.18920712f, 1.21524736f, 1.24185781f, 1.26905096f, 1.29683955f, 1.32523664f, 1.35425555f, 1.38390988f,
    1.41421356f, 1.44518081f, 1.47682615f, 1.50916443f, 1.54221083f, 1.57598085f, 1.61049033f, 1.64575548f,
    1.68179283f, 1.7186193f,  1.75625216f, 1.79470908f, 1.83400809f, 1.87416763f, 1.91520656f, 1.95714412f};

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define W 16
#define NAME(x) x##_avx512
#include "cpu_simd.h"
#undef W
#undef NAME
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define W 8
#define NAME(x) x##_avx2
#include "cpu_simd.h"
#undef W
#undef NAME
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#define W 4
#define NAME(x) x##_baseline
#include "cpu_simd.h"

/* 0 baseline, 1 AVX2, 2 AVX-512; `aum_limit_isa` lowers it, for tests. */
static int isa_limit = 2;
void aum_limit_isa(int limit) { isa_limit = limit; }

int aum_isa(void) {
    int best = 0;
#ifdef X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = 1;
    if (best && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        best = 2;
#endif
    return best < isa_limit ? best : isa_limit;
}

int aum_has_threads(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

#ifdef X86
#define DISPATCH(function, problem)          \
    switch (aum_isa()) {                     \
    case 2:                                  \
        return function##_avx512(problem);   \
    case 1:                                  \
        return function##_avx2(problem);     \
    default:                                 \
        return function##_baseline(problem); \
    }
#else
#define DISPATCH(function, problem) return function##_baseline(problem);
#endif

int aum_scan(const scan_problem *p) { DISPATCH(scan, p) }
int aum_scan_backward(const scan_problem *p) { DISPATCH(scan_backward, p) }
int aum_conv(const conv_problem *p) { DISPATCH(conv, p) }
int aum_conv_backward(const conv_problem *p) { DISPATCH(conv_backward, p) }
int aum_norm(const norm_problem *p) { DISPATCH(norm, p) }
int aum_log_mel(const mel_problem *p) { DISPATCH(log_mel, p) }
int aum_norm_backward(const norm_problem *p) { DISPATCH(norm_backward, p) }
