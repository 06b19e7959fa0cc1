/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cuda backend keeps of recorded steps: their operands and outputs on the card, and the
 * launches themselves, as a graph a step or as a list. backend_record.cu fills and plays it.
 */
#ifndef RA_KERNELS_CUDA_BACKEND_RECORDING_CUH
#define RA_KERNELS_CUDA_BACKEND_RECORDING_CUH

#include <deque>
#include <functional>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/backend_call.cuh"
#include "kernels/cuda/backend_watch.cuh"

/* Pieces of one size on both sides: the host's is what is sent or what came back. */
template <class T> struct ra_cuda_pair {
    T *host, *card;
};

/* A choice that waits for the step's end, and the refresh that comes of it, if any. */
struct ra_cuda_due {
    ra_cuda_call choice, install;
    bool refreshes;
};

/* One launch, or a few in line. */
struct ra_cuda_work {
    const char *name; /* for errors, and what its launches are hashed by */
    std::function<cudaError_t(cudaStream_t)> launch;
    const char *op; /* for who watches */
    int layer;      /* -1: several together */
    bool is_append; /* writes nothing but the end of C_f */
};

/* What the main stream was given last: launches may start early behind a kernel alone. */
enum ra_cuda_ahead { RA_CUDA_NO_KERNEL, RA_CUDA_APPEND, RA_CUDA_KERNEL };

/* A graph; or, where steps are not graphs, a launch or wait between streams. And the host's wait
 * for a decision. */
struct ra_cuda_recorded {
    const char *name;
    std::function<cudaError_t()> run;
};

/* Steps with all they read and produce. */
struct ra_cuda_recording {
    bool is_on, is_capturing;
    bool is_open;      /* a step is recorded */
    size_t needed;     /* bytes of the operands of a run, counted while it is checked */
    size_t size, used; /* of the room for them, in both places */
    char *host, *card;
    size_t n_outputs, outputs_of_run;
    struct ra_cuda_pair<float> outputs; /* [outputs_of_run][Hq][D] */
    int n_steps;                        /* closed */
    bool is_counted; /* what follows is of all steps, so that no later play spends time on it */
    std::vector<struct ra_step_launches> launched; /* by each, in `play` or while captured */
    std::vector<cudaGraphExec_t> graphs;
    std::vector<std::vector<ra_cuda_recorded>> steps;
    /* Of each step: where a layer's part begins and ends, in turn, if something is between them. */
    std::vector<std::vector<cudaEvent_t>> spans;
    std::vector<cudaEvent_t> marks; /* before each step, and after the last */
    std::deque<std::vector<int32_t>>
        choices;                         /* of `select`: for each KV head a count, then so many */
    std::vector<ra_cuda_call> held_back; /* of one layer, by copies */
    std::vector<ra_cuda_due> due;
    int surprised; /* layer of a decision that was not as expected; -1: none */
    /* Choices and refreshes that the other stream has, and this one has not waited for. */
    std::vector<ra_cuda_call> beside;
};

#endif
