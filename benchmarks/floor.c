/* What the scan's recurrences cost with all of their data in the first-level cache: the kernels' own inner loops, again and
 * again on the same few tokens of one block of 16 channels and 16 states. No softplus, gate or memory: a floor of the scan. */

#include "../aumcli/core/kernels/cpu.c"

enum { STATES = 16, TOKENS = 16 };

typedef struct {
    float A[STATES * BLOCK], steps[TOKENS * 2 * BLOCK], y[TOKENS * BLOCK], states[STATES * BLOCK], B[TOKENS * STATES], C[TOKENS * STATES];
    float g[STATES * BLOCK], dx[TOKENS * 2 * BLOCK], dA[STATES * BLOCK], recalled[TOKENS * STATES * 2 * BLOCK], sums[TOKENS * STATES * 2 * BLOCK];
} floor_data;

static floor_data *fill(scan_problem *p) {
    static _Thread_local floor_data data;
    for (size_t i = 0; i < sizeof data / sizeof(float); i++) ((float *)&data)[i] = 0.01f;
    for (int i = 0; i < STATES * BLOCK; i++) data.A[i] = -1.0f - i / BLOCK;
    memset(p, 0, sizeof *p);
    p->n = STATES, p->l = TOKENS, p->e = BLOCK;
    p->B = (view){data.B, 0, STATES, 0}, p->C = (view){data.C, 0, STATES, 0};
    return &data;
}

#define LOOPS(isa, lockstep, TARGET)                                                                                                  \
    TARGET static void forward_##isa(int64_t times) {                                                                                  \
        scan_problem p;                                                                                                         \
        floor_data *d = fill(&p);                                                                                               \
        while (times--) scan_tokens_##isa(&p, 0, 0, 0, TOKENS, d->A, d->steps, d->y, d->states, NULL);                          \
    }                                                                                                                           \
    TARGET static void backward_##isa(int64_t times) {                                                                                 \
        scan_problem p;                                                                                                         \
        floor_data *d = fill(&p);                                                                                               \
        while (times--) {                                                                                                       \
            scan_tokens_##isa(&p, 0, 0, 0, TOKENS, d->A, d->steps, d->y, d->states, NULL); /* y again, for the gate */          \
            memset(d->g, 0, sizeof d->g);                                                                                       \
            for (int64_t k = 0; k < STATES; k += lockstep)                                                                      \
                unscan_states_##isa(&p, 0, 0, 0, TOKENS, d->A, d->steps, d->y, d->states, d->g, d->dx, d->dA, d->recalled, d->sums, k, lockstep); \
        }                                                                                                                       \
    }

#ifdef X86
LOOPS(avx512, 4, __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512"))))
LOOPS(avx2, 2, __attribute__((target("avx2,fma"))))
#endif
LOOPS(baseline, 1, )

#ifdef X86
#define RUN(loop, times) switch (aum_isa()) { case 2: loop##_avx512(times); break; case 1: loop##_avx2(times); break; default: loop##_baseline(times); }
#else
#define RUN(loop, times) loop##_baseline(times);
#endif

void floor_forward(int64_t times) { RUN(forward, times) }
void floor_backward(int64_t times) { RUN(backward, times) }
