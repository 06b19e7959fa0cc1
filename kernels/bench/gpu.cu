/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/bench/gpu.cuh"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

gpu_options::gpu_options(int argc, char **argv, const char *name,
                         const std::vector<std::string> &values)
    : choice(values[0])
{
    const char *slash = strrchr(argv[0], '/'), *program = slash ? slash + 1 : argv[0];
    out = std::string(program) + ".json";
    for (int i = 1; i < argc; i++) {
        std::string option = argv[i];
        dry = dry || option == "--dry";
        if (option == "--dry")
            continue;
        if (option != name && option != "--out" && option != "--seconds") {
            fprintf(stderr, "%s: expected %s, --out, --seconds or --dry, got %s\n", program, name,
                    argv[i]);
            exit(2);
        }
        if (++i == argc) {
            fprintf(stderr, "%s: expected a value after %s\n", program, option.c_str());
            exit(2);
        }
        if (option == "--seconds")
            seconds = atof(argv[i]);
        else
            (option == name ? choice : out) = argv[i];
    }
    if (std::find(values.begin(), values.end(), choice) != values.end())
        return;
    fprintf(stderr, "%s: %s: expected one of", program, name);
    for (const std::string &value : values)
        fprintf(stderr, " %s", value.c_str());
    fprintf(stderr, ", got %s\n", choice.c_str());
    exit(2);
}

gpu_card gpu_open()
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
        fprintf(stderr, "no GPU to measure: %s\n",
                error == cudaSuccess ? "the driver lists none" : cudaGetErrorString(error));
        exit(3);
    }
    cudaDeviceProp prop;
    GPU(cudaGetDeviceProperties(&prop, 0));
    size_t free_bytes, total_bytes;
    GPU(cudaMemGetInfo(&free_bytes, &total_bytes));
    return {prop.name, prop.multiProcessorCount, (size_t)prop.l2CacheSize, free_bytes,
            prop.major >= 9};
}

void *gpu_library(const char *name)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fprintf(stderr, "%s\n", dlerror());
    return library;
}

/* NVML's functions and numbers: nvmlClockType_t 1 is SM, 2 memory. */
std::string gpu_state()
{
    static void *const nvml = gpu_library("libnvidia-ml.so.1");
    void *device = nullptr;
    if (!nvml)
        return "";
    auto start = (int (*)())dlsym(nvml, "nvmlInit_v2");
    auto find = (int (*)(unsigned, void **))dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2");
    auto clock = (int (*)(void *, int, unsigned *))dlsym(nvml, "nvmlDeviceGetClockInfo");
    auto power = (int (*)(void *, unsigned *))dlsym(nvml, "nvmlDeviceGetPowerUsage");
    auto reasons = (int (*)(void *, unsigned long long *))dlsym(
        nvml, "nvmlDeviceGetCurrentClocksThrottleReasons");
    unsigned sm = 0, memory = 0, milliwatts = 0;
    unsigned long long why = 0;
    if (!start || !find || !clock || !power || !reasons || start() || find(0, &device) ||
        clock(device, 1, &sm) || clock(device, 2, &memory) || power(device, &milliwatts) ||
        reasons(device, &why))
        return "";
    char text[160];
    snprintf(text, sizeof text,
             "\"sm_mhz\":%u,\"memory_mhz\":%u,\"watts\":%.0f,\"throttle\":\"0x%llx\"", sm, memory,
             milliwatts / 1000.0, why);
    return text;
}

gpu_graph::gpu_graph(const std::function<void(cudaStream_t)> &record)
{
    cudaStream_t stream;
    cudaGraph_t graph;
    GPU(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    GPU(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    record(stream);
    GPU(cudaStreamEndCapture(stream, &graph));
    GPU(cudaGraphInstantiate(&exec, graph, 0));
    GPU(cudaGraphDestroy(graph));
    GPU(cudaStreamDestroy(stream));
}

gpu_graph::~gpu_graph()
{
    cudaGraphExecDestroy(exec);
}

void gpu_graph::launch(cudaStream_t stream) const
{
    GPU(cudaGraphLaunch(exec, stream));
}

double gpu_side::quantile(double q) const
{
    if (us.empty())
        return NAN;
    std::vector<double> sorted = us;
    std::sort(sorted.begin(), sorted.end());
    return sorted[(size_t)(q * (double)(sorted.size() - 1) + 0.5)];
}

void gpu_time(std::vector<gpu_side *> sides, int rounds, int launches)
{
    cudaStream_t stream;
    cudaEvent_t from, to;
    GPU(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    GPU(cudaEventCreate(&from));
    GPU(cudaEventCreate(&to));
    for (int round = 0; round < rounds; round++)
        for (gpu_side *side : sides) {
            int replays = (launches + side->launches - 1) / side->launches;
            side->graph->launch(stream);
            for (int i = 0; i < replays; i++) {
                float ms;
                GPU(cudaEventRecord(from, stream));
                side->graph->launch(stream);
                GPU(cudaEventRecord(to, stream));
                GPU(cudaEventSynchronize(to));
                GPU(cudaEventElapsedTime(&ms, from, to));
                side->us.push_back(ms * 1e3 / side->launches);
            }
        }
    GPU(cudaEventDestroy(from));
    GPU(cudaEventDestroy(to));
    GPU(cudaStreamDestroy(stream));
}

gpu_log::gpu_log(const char *path) : file(fopen(path, "w"))
{
    if (!file) {
        fprintf(stderr, "%s: cannot be written\n", path);
        exit(1);
    }
}

gpu_log::~gpu_log()
{
    fclose(file);
}

gpu_log &gpu_log::add(const char *key, const std::string &text)
{
    line += (line.empty() ? "{\"" : ",\"") + std::string(key) + "\":\"" + text + "\"";
    return *this;
}

gpu_log &gpu_log::add(const char *key, const char *text)
{
    return add(key, std::string(text));
}

gpu_log &gpu_log::add(const char *key, double x)
{
    char number[32] = "null";
    if (isfinite(x))
        snprintf(number, sizeof number, "%.6g", x);
    line += (line.empty() ? "{\"" : ",\"") + std::string(key) + "\":" + number;
    return *this;
}

void gpu_log::end()
{
    std::string state = gpu_state();
    if (!state.empty())
        line += "," + state;
    fprintf(file, "%s}\n", line.c_str());
    fflush(file);
    line.clear();
}
