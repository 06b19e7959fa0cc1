/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmarks of a card share: memory that starts as NaN, graphs timed in turn, one line of
 * JSON a case, what the card says of itself. Errors end the program: a benchmark that goes on after
 * one lies.
 */
#ifndef RA_KERNELS_BENCH_GPU_CUH
#define RA_KERNELS_BENCH_GPU_CUH

#include <math.h>
#include <stdio.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/cuda.cuh"

#define GPU(call) gpu_check((call), #call, __FILE__, __LINE__)

inline void gpu_check(cudaError_t error, const char *call, const char *file, int line)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, call, cudaGetErrorString(error));
    exit(error == cudaErrorNoDevice ? 3 : 1);
}

/* NAME VALUE, --seconds LIMIT, --out FILE, --dry. NAME's value is one of `values`, the first unless
 * given; --out is the program's name with .json. Exits with 2 and a sentence for anything else. */
struct gpu_options {
    std::string choice, out;
    double seconds = 1e6;
    bool dry = false;

    gpu_options(int argc, char **argv, const char *name, const std::vector<std::string> &values);
};

struct gpu_card {
    std::string name;
    int n_sms;
    size_t l2_bytes, free_bytes;
    bool has_early_launches; /* programmatic dependent launch */
};

/* Exits with 3 and a sentence where there is none. */
gpu_card gpu_open();

/* Clocks in MHz, W, and the reasons not to run at full speed; empty where the driver's library is
 * not there. As members of a JSON object. */
std::string gpu_state();

/* n elements of the card's memory, all bits set. */
template <class T> class gpu_array
{
    T *memory = nullptr;
    size_t n = 0;

  public:
    gpu_array() = default;
    explicit gpu_array(size_t count) : n(count)
    {
        GPU(cudaMalloc((void **)&memory, bytes()));
        poison();
    }
    explicit gpu_array(const std::vector<T> &from) : gpu_array(from.size())
    {
        GPU(cudaMemcpy(memory, from.data(), bytes(), cudaMemcpyHostToDevice));
    }
    gpu_array(gpu_array &&other) noexcept : memory(other.memory), n(other.n)
    {
        other.memory = nullptr;
        other.n = 0;
    }
    gpu_array &operator=(gpu_array &&other) noexcept
    {
        std::swap(memory, other.memory);
        std::swap(n, other.n);
        return *this;
    }
    ~gpu_array()
    {
        cudaFree(memory);
    }

    T *get() const
    {
        return memory;
    }
    size_t count() const
    {
        return n;
    }
    size_t bytes() const
    {
        return n * sizeof(T);
    }
    void poison() const
    {
        GPU(cudaMemset(memory, 0xff, bytes()));
    }
    void zero() const
    {
        GPU(cudaMemset(memory, 0, bytes()));
    }
    /* Elements from `first` on; all by default. */
    std::vector<T> read(size_t first = 0, size_t count = (size_t)-1) const
    {
        std::vector<T> to(count == (size_t)-1 ? n - first : count);
        GPU(cudaMemcpy(to.data(), memory + first, to.size() * sizeof(T), cudaMemcpyDeviceToHost));
        return to;
    }
};

/* Work recorded once, replayed in one call. */
class gpu_graph
{
    cudaGraphExec_t exec = nullptr;

  public:
    explicit gpu_graph(const std::function<void(cudaStream_t)> &record);
    gpu_graph(const gpu_graph &) = delete;
    gpu_graph &operator=(const gpu_graph &) = delete;
    ~gpu_graph();
    void launch(cudaStream_t stream) const;
};

/* One thing to time: `graph` does `launches` of it; the bytes it must move, per launch. */
struct gpu_side {
    std::string name;
    const gpu_graph *graph;
    int launches;
    double bytes;
    std::vector<double> us; /* of each replay, per launch */

    double quantile(double q) const;
    double gbps() const
    {
        return bytes / quantile(0.5) / 1e3;
    }
};

/* `rounds` times all sides in turn, each at least `launches` launches, after one untimed. */
void gpu_time(std::vector<gpu_side *> sides, int rounds, int launches);

/* A line of JSON to a file that keeps what came before an end. */
class gpu_log
{
    FILE *file;
    std::string line;

  public:
    explicit gpu_log(const char *path);
    gpu_log(const gpu_log &) = delete;
    gpu_log &operator=(const gpu_log &) = delete;
    ~gpu_log();
    gpu_log &add(const char *key, const std::string &text);
    gpu_log &add(const char *key, const char *text);
    gpu_log &add(const char *key, double x); /* null where it is not finite */
    void end();                              /* the line is out, whatever comes after */
};

/* cuBLAS's and NVML's way: a library that need not be there. NULL, and a line on stderr. */
void *gpu_library(const char *name);

#endif
