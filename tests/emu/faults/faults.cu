/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels with one fault each, to see whether it shows: faults NAME runs one. Ends with 0 if the
 * result is right (the fault hides), 1 if it is wrong; a report ends it otherwise. NAME "clean" has
 * none.
 */
#include "kernels/cuda/cuda.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define ALL 0xffffffffu

enum { N = 256, TILES = 6 };

/* Every kernel here sums x, N floats, into *out; the fault is chosen by the template argument. */
enum fault {
    CLEAN,
    STATIC_OVERRUN,  /* writes one element past a static shared array */
    DYNAMIC_OVERRUN, /* the same past dynamic shared memory */
    GLOBAL_OVERRUN,  /* a plain store one past the end of an allocation */
    COUNTED_OVERRUN, /* a counted load one past the end */
    HOST_POINTER,    /* dereferences what is not the card's */
    MISALIGNED,      /* 16 bytes from an address that is no multiple of 16 */
    NO_BARRIER,      /* none between the warps' sums and their reader */
    STALE_SHARED,    /* adds to shared memory that nobody cleared */
    SKIPS_SHUFFLE,   /* one lane leaves a full-mask shuffle out */
    WRONG_MASK,      /* one lane names other partners */
    TWO_BARRIERS,    /* half of the block waits at another __syncthreads */
    NOT_IN_MASK      /* a lane meets others under a mask without it */
};

template <enum fault F> __global__ void sum(const float *x, float *out, const float *host)
{
    RA_SHARED(float, part, 8);
    RA_DYN(float, all);
    unsigned t = threadIdx.x, lane = t % 32;
    float s = F == HOST_POINTER ? ra_ld(host + t) : ra_ld(x + t);
    if (F == COUNTED_OVERRUN && t == 0)
        s += ra_ld(x + N);
    if (F == MISALIGNED && t == 0)
        s += (float)ra_ld16(x + 1).x;
    if (F == GLOBAL_OVERRUN && t == 0)
        out[1] = s;
    if (F == STALE_SHARED && lane == 0)
        s += part[t / 32];
    for (int o = 16; o; o /= 2)
        if (F != SKIPS_SHUFFLE || t != 5 || o != 8)
            s += __shfl_xor_sync(F == WRONG_MASK && t == 3 ? 0xffffu : ALL, s, o);
    if (F == NOT_IN_MASK && t == 40)
        s += (float)__popc(__ballot_sync(1u, 1));
    if (lane == 0)
        part[t / 32] = s;
    if (F == STATIC_OVERRUN && t == 0)
        part[8] = s;
    all[t] = s;
    if (F == DYNAMIC_OVERRUN && t == 0)
        all[N] = s;
    if (F == TWO_BARRIERS && t >= N / 2)
        __syncthreads();
    else if (F != NO_BARRIER)
        __syncthreads();
    if (t)
        return;
    s = 0;
    for (int i = 0; i < N / 32; i++)
        s += part[i];
    ra_st(out, s);
}

/* Neighbours exchange values within their warp, then all add up in a counter. */
enum meet_fault {
    MEET_CLEAN,
    MEET_NO_SYNCWARP, /* nothing between a lane's write and its neighbour's read */
    MEET_NO_BARRIER   /* the counter is read while others may still add to it */
};

template <enum meet_fault F> __global__ void meet(const float *x, float *out)
{
    RA_SHARED(float, all, N);
    RA_SHARED(float, counter, 1);
    unsigned t = threadIdx.x;
    if (t == 0)
        counter[0] = 0;
    all[t] = ra_ld(x + t);
    __syncthreads();
    float s = all[t] + 1;
    all[t] = s;
    if (F != MEET_NO_SYNCWARP)
        __syncwarp();
    atomicAdd(counter, all[t ^ 1]);
    if (F != MEET_NO_BARRIER)
        __syncthreads();
    if (t == 0)
        ra_st(out, counter[0]);
}

/* Tiles go through two stages by cp.async; a thread reads what its neighbour copied. */
enum pipe_fault {
    PIPE_CLEAN,
    PIPE_WAIT,   /* waits for one group too few */
    PIPE_NO_WAR, /* no barrier before a stage is filled again */
    PIPE_NO_END  /* leaves with copies under way */
};

template <enum pipe_fault F> __global__ void pipe(const float4 *x, float *out)
{
    RA_SHARED(float4, stage, 2 * N);
    int t = (int)threadIdx.x;
    float s = 0;
    ra_cp_async16(&stage[t], x + t);
    ra_cp_async_commit();
    for (int i = 0; i < TILES; i++) {
        if (i + 1 < TILES || F == PIPE_NO_END)
            ra_cp_async16(&stage[(i + 1) % 2 * N + t], x + (i + 1) % TILES * N + t);
        ra_cp_async_commit();
        ra_cp_async_wait<F == PIPE_WAIT ? 2 : 1>();
        __syncthreads();
        s += stage[i % 2 * N + (t + 33) % N].x;
        if (F != PIPE_NO_WAR)
            __syncthreads();
    }
    if (F != PIPE_NO_END)
        ra_cp_async_wait<0>();
    atomicAdd(out, s);
}

/* Each block doubles its tile; the one that ends last sums all tiles. */
enum last_fault {
    LAST_CLEAN,
    LAST_NO_BARRIER, /* none before the ticket is drawn */
    LAST_NO_FENCE,   /* what is written may come after the ticket */
    LAST_NO_LOOK,    /* what is read may come before it */
    LAST_EARLY       /* the ticket is drawn before the tile is written */
};

template <enum last_fault F> __global__ void last(float *x, float *out, unsigned *ticket)
{
    RA_SHARED(unsigned, drawn, 1);
    unsigned t = threadIdx.x;
    float *own = x + blockIdx.x * N + t, s = 0;
    if (F != LAST_EARLY)
        ra_st(own, 2 * ra_ld(own));
    if (F != LAST_NO_FENCE)
        __threadfence();
    if (F != LAST_NO_BARRIER)
        __syncthreads();
    if (t == 0)
        drawn[0] = atomicAdd(ticket, 1u);
    __syncthreads();
    if (F == LAST_EARLY)
        ra_st(own, 2 * ra_ld(own));
    if (drawn[0] + 1 != gridDim.x)
        return;
    if (F != LAST_NO_LOOK)
        __threadfence();
    for (int i = 0; i < TILES; i++)
        s += ra_ld_l2(x + i * N + t);
    atomicAdd(out, s);
}

/* Doubles the first tile; follow sums it with the second, which is there from the start, and may
 * begin before it. */
enum follow_fault {
    FOLLOW_CLEAN,
    FOLLOW_READ,  /* reads what is still being written */
    FOLLOW_WRITE, /* writes before its time */
    FOLLOW_END    /* some threads end without having waited */
};

__global__ void twice(float *x)
{
    ra_after_earlier();
    ra_st(x + threadIdx.x, 2 * ra_ld(x + threadIdx.x));
}

template <enum follow_fault F> __global__ void follow(const float *x, float *out)
{
    unsigned t = threadIdx.x;
    float s = ra_ld(x + N + t);
    if (F == FOLLOW_READ)
        s += ra_ld(x + t);
    if (F == FOLLOW_WRITE)
        atomicAdd(out, s);
    if (F == FOLLOW_END && t >= N / 2)
        return;
    ra_after_earlier();
    if (F != FOLLOW_READ)
        s += ra_ld(x + t);
    atomicAdd(out, s);
}

struct bed {
    float *x, *out;
    std::vector<float> host;
    float expected;
};

static void get(cudaError_t error)
{
    if (error) {
        printf("%s\n", cudaGetErrorString(error));
        exit(3);
    }
}

/* Small integers: the sum is the same in any order. */
static struct bed make_bed(int n)
{
    struct bed bed = {};
    bed.host.resize((size_t)n);
    for (int i = 0; i < n; i++)
        bed.host[(size_t)i] = (float)(i % 7 + 1);
    get(cudaMalloc(&bed.x, (size_t)n * sizeof(float)));
    get(cudaMalloc(&bed.out, sizeof(float)));
    get(cudaMemcpy(bed.x, bed.host.data(), (size_t)n * sizeof(float), cudaMemcpyHostToDevice));
    get(cudaMemset(bed.out, 0, sizeof(float)));
    return bed;
}

/* A NaN is wrong too. */
static int verdict(struct bed *bed)
{
    float got = 0;
    get(cudaMemcpy(&got, bed->out, sizeof got, cudaMemcpyDeviceToHost));
    get(cudaFree(bed->x));
    get(cudaFree(bed->out));
    printf("got %g, expected %g\n", (double)got, (double)bed->expected);
    return !(got == bed->expected);
}

template <enum fault F> static int run_sum()
{
    struct bed bed = make_bed(N);
    for (float v : bed.host)
        bed.expected += v;
    get(ra_launch(sum<F>, dim3(1), dim3(N), N * sizeof(float), 0, bed.x, bed.out,
                  (const float *)bed.host.data()));
    return verdict(&bed);
}

template <enum meet_fault F> static int run_meet()
{
    struct bed bed = make_bed(N);
    for (float v : bed.host)
        bed.expected += v + 1;
    get(ra_launch(meet<F>, dim3(1), dim3(N), 0, 0, (const float *)bed.x, bed.out));
    return verdict(&bed);
}

template <enum pipe_fault F> static int run_pipe()
{
    struct bed bed = make_bed(TILES * N * 4);
    for (size_t i = 0; i < bed.host.size(); i += 4)
        bed.expected += bed.host[i];
    get(ra_launch(pipe<F>, dim3(1), dim3(N), 0, 0, (const float4 *)bed.x, bed.out));
    return verdict(&bed);
}

template <enum last_fault F> static int run_last()
{
    struct bed bed = make_bed(TILES * N);
    unsigned *ticket;
    for (float v : bed.host)
        bed.expected += 2 * v;
    get(cudaMalloc(&ticket, sizeof *ticket));
    get(cudaMemset(ticket, 0, sizeof *ticket));
    get(ra_launch(last<F>, dim3(TILES), dim3(N), 0, 0, bed.x, bed.out, ticket));
    int wrong = verdict(&bed);
    get(cudaFree(ticket));
    return wrong;
}

template <enum follow_fault F> static int run_follow()
{
    struct bed bed = make_bed(2 * N);
    for (size_t i = 0; i < bed.host.size(); i++)
        bed.expected += (i < N ? 2 : 1) * bed.host[i];
    get(ra_launch(twice, dim3(1), dim3(N), 0, 0, bed.x));
    ra_early_launches may_start(true);
    get(ra_launch(follow<F>, dim3(1), dim3(N), 0, 0, (const float *)bed.x, bed.out));
    return verdict(&bed);
}

/* What watches this program. */
static int mode()
{
#if defined(__SANITIZE_ADDRESS__)
    printf("address\n");
#elif defined(__SANITIZE_THREAD__)
    printf("thread\n");
#else
    printf("plain\n");
#endif
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)();
    } faults[] = {
        {"mode", mode},
        {"clean", run_sum<CLEAN>},
        {"static-overrun", run_sum<STATIC_OVERRUN>},
        {"dynamic-overrun", run_sum<DYNAMIC_OVERRUN>},
        {"global-overrun", run_sum<GLOBAL_OVERRUN>},
        {"counted-overrun", run_sum<COUNTED_OVERRUN>},
        {"host-pointer", run_sum<HOST_POINTER>},
        {"misaligned", run_sum<MISALIGNED>},
        {"no-barrier", run_sum<NO_BARRIER>},
        {"stale-shared", run_sum<STALE_SHARED>},
        {"skips-shuffle", run_sum<SKIPS_SHUFFLE>},
        {"wrong-mask", run_sum<WRONG_MASK>},
        {"two-barriers", run_sum<TWO_BARRIERS>},
        {"not-in-mask", run_sum<NOT_IN_MASK>},
        {"meet-clean", run_meet<MEET_CLEAN>},
        {"meet-no-syncwarp", run_meet<MEET_NO_SYNCWARP>},
        {"meet-no-barrier", run_meet<MEET_NO_BARRIER>},
        {"pipe-clean", run_pipe<PIPE_CLEAN>},
        {"pipe-wait", run_pipe<PIPE_WAIT>},
        {"pipe-no-war", run_pipe<PIPE_NO_WAR>},
        {"pipe-no-end", run_pipe<PIPE_NO_END>},
        {"last-clean", run_last<LAST_CLEAN>},
        {"last-no-barrier", run_last<LAST_NO_BARRIER>},
        {"last-no-fence", run_last<LAST_NO_FENCE>},
        {"last-no-look", run_last<LAST_NO_LOOK>},
        {"last-early", run_last<LAST_EARLY>},
        {"follow-clean", run_follow<FOLLOW_CLEAN>},
        {"follow-read", run_follow<FOLLOW_READ>},
        {"follow-write", run_follow<FOLLOW_WRITE>},
        {"follow-end", run_follow<FOLLOW_END>},
    };
    for (const auto &each : faults)
        if (argc == 2 && !strcmp(argv[1], each.name))
            return each.run();
    fprintf(stderr, "usage: faults NAME\n");
    return 2;
}
