/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole decode steps of two models' shapes under three schedules, each step one graph: what
 * recycling saves of a step, beside what its bytes would let it save.
 *
 *   bench_step [--model NAME] [--seconds LIMIT] [--out FILE] [--dry]
 *
 * --dry: sizes that tell nothing of speed; every row says so.
 */
#include <algorithm>
#include <chrono>

#include "kernels/bench/gpu_plain.cuh"
#include "kernels/bench/step.cuh"

enum { STRIDE = 10, ROUNDS = 3 };

struct run {
    gpu_options o;
    gpu_card card;
    const step_gemm &gemm;
    gpu_log &log;
    std::chrono::steady_clock::time_point end;
    double read_gbps; /* a plain read of a layer's weights */
    int failed;
};

/* Graphs in the order in which steps launch them, and what each step took. */
struct schedule {
    const char *name;
    std::vector<const gpu_graph *> steps;
    double ceiling; /* speed-up by bytes */
    std::vector<double> us;

    double mean() const
    {
        double sum = 0;
        for (double x : us)
            sum += x;
        return sum / (double)us.size();
    }
    double quantile(double q) const
    {
        std::vector<double> sorted = us;
        std::sort(sorted.begin(), sorted.end());
        return sorted[(size_t)(q * (double)(sorted.size() - 1) + 0.5)];
    }
};

/* All steps are queued before the first is waited for. */
static void time_steps(schedule &of, bool is_timed)
{
    cudaStream_t stream;
    std::vector<cudaEvent_t> marks(of.steps.size() + 1);
    GPU(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (cudaEvent_t &mark : marks)
        GPU(cudaEventCreate(&mark));
    GPU(cudaEventRecord(marks[0], stream));
    for (size_t i = 0; i < of.steps.size(); i++) {
        of.steps[i]->launch(stream);
        GPU(cudaEventRecord(marks[i + 1], stream));
    }
    GPU(cudaStreamSynchronize(stream));
    for (size_t i = 0; i < of.steps.size() && is_timed; i++) {
        float ms;
        GPU(cudaEventElapsedTime(&ms, marks[i], marks[i + 1]));
        of.us.push_back(ms * 1e3);
    }
    for (cudaEvent_t mark : marks)
        GPU(cudaEventDestroy(mark));
    GPU(cudaStreamDestroy(stream));
}

static void report(run &r, const step_shape &s, const schedule &of, const schedule &full,
                   const schedule &rest)
{
    double mean = of.mean(), attention = (mean - rest.mean()) / mean;
    printf("%-26s %10.1f %10.1f %10.1f %10.1f %8.3f %8.2f %8.2f\n", of.name, mean, of.quantile(0.5),
           of.quantile(0.99), s.B / mean * 1e6, attention, full.mean() / mean, of.ceiling);
    r.log.add("case", of.name).add("model", s.model).add("card", r.card.name).add("B", s.B);
    r.log.add("L", s.L).add("K", s.K).add("layers", s.layers).add("dry", r.o.dry);
    r.log.add("us_mean", mean).add("us_p50", of.quantile(0.5)).add("us_p99", of.quantile(0.99));
    r.log.add("tokens_per_s", s.B / mean * 1e6).add("attention_share", attention);
    r.log.add("speedup_step", full.mean() / mean).add("ceiling", of.ceiling);
    r.log.add("steps", (double)of.us.size()).end();
}

static void report_rest(run &r, const step_shape &s, const schedule &rest)
{
    double floor = s.weight_bytes() / r.read_gbps / 1e3;
    printf("%-26s %10.1f %10.1f %10.1f: %.2f times its weights' bytes over a plain read's %.0f "
           "GB/s\n",
           rest.name, rest.mean(), rest.quantile(0.5), rest.quantile(0.99), rest.mean() / floor,
           r.read_gbps);
    r.log.add("case", rest.name).add("model", s.model).add("card", r.card.name).add("B", s.B);
    r.log.add("L", s.L).add("dry", r.o.dry).add("us_mean", rest.mean());
    r.log.add("weight_bytes", s.weight_bytes()).add("read_gbps", r.read_gbps);
    r.log.add("of_floor", rest.mean() / floor).end();
}

/* Full of all keys; recycled of K and, every STRIDE-th step, of all with logits. */
static void time_schedules(run &r, const step_model &model)
{
    const step_shape &s = model.s;
    auto graph = [&](enum step_kind kind, int set) {
        return std::unique_ptr<gpu_graph>(
            new gpu_graph([&](cudaStream_t stream) { model.record(stream, kind, s.layers, set); }));
    };
    auto full = graph(STEP_FULL, 0), first = graph(STEP_REFRESH, 0),
         second = graph(STEP_REFRESH, 1), recycled = graph(STEP_RECYCLED, 0),
         rest = graph(STEP_REST, 0);
    double weights = s.weight_bytes(), all = s.layers * s.attention().full_bytes(),
           few = s.layers * s.attention().recycled_bytes();
    schedule of[] = {{"full", {}, 1, {}},
                     {"recycled:k=2048,stride=10", {}, 0, {}},
                     {"streaming", {}, (weights + all) / (weights + few), {}},
                     {"rest", {}, 0, {}}};
    of[1].ceiling = (weights + all) / (weights + all / STRIDE + few * (STRIDE - 1) / STRIDE);
    int n_steps = r.o.dry ? 2 : 4 * STRIDE;
    for (int step = 0; step < n_steps; step++) {
        const gpu_graph *refresh = step / STRIDE % 2 == 0 ? first.get() : second.get();
        of[0].steps.push_back(full.get());
        of[1].steps.push_back(step % STRIDE == 0 ? refresh : recycled.get());
        of[2].steps.push_back(recycled.get());
        of[3].steps.push_back(rest.get());
    }
    for (int round = 0; round < (r.o.dry ? 1 : ROUNDS + 1); round++)
        for (schedule &each : of)
            time_steps(each, round > 0 || r.o.dry);
    for (int i = 0; i < 3; i++)
        report(r, s, of[i], of[0], of[3]);
    report_rest(r, s, of[3]);
}

/* The first layer of both ways to attend; then all layers, which must at least be numbers. */
static bool is_right(step_model &model)
{
    const double kBound = 1e-2; /* a few roundings to 8 bits */
    for (enum step_kind kind : {STEP_FULL, STEP_RECYCLED}) {
        double error = model.check(kind);
        printf("%s step, first layer: error %.2g\n", kind == STEP_FULL ? "full" : "recycled",
               error);
        if (error <= kBound)
            continue;
        printf("NOT TIMED: at most %.2g expected\n", kBound);
        return false;
    }
    if (model.is_finite(STEP_REFRESH) && model.is_finite(STEP_RECYCLED))
        return true;
    printf("NOT TIMED: a step leaves values that are not numbers\n");
    return false;
}

static void run_shape(run &r, step_shape s)
{
    if (r.o.dry) {
        s.layers = 2;
        s.Hkv = 2;
        s.hidden = 128;
        s.ffn = 192;
        s.vocab = 200;
        s.B = 2;
        s.L = 208;
        s.K = 64;
    }
    printf("\n%s, B=%d, L=%d, K=%d, %d layers, %.2f GB of weights\n", s.model, s.B, s.L, s.K,
           s.layers, s.weight_bytes() / 1e9);
    if (std::chrono::steady_clock::now() > r.end) {
        printf("not measured, no time left\n");
        return;
    }
    size_t free_bytes, total_bytes;
    GPU(cudaMemGetInfo(&free_bytes, &total_bytes));
    if (step_model::memory(s) > (double)free_bytes) {
        printf("n/a: needs %.1f GiB\n", step_model::memory(s) / 0x1p30);
        return;
    }
    step_model model(s, r.card, r.gemm);
    if (!is_right(model)) {
        r.failed++;
        return;
    }
    printf("%-26s %10s %10s %10s %10s %8s %8s %8s\n", "schedule", "us a step", "p50", "p99",
           "tokens/s", "attends", "speed-up", "by bytes");
    time_schedules(r, model);
}

int main(int argc, char **argv)
{
    static const step_shape models[] = {
        {"llama-3.1-8b", 32, 8, 4, 128, 4096, 14336, 128256, false, 5e5f, 1, 32768, 2048},
        {"qwen2-7b", 28, 4, 7, 128, 3584, 18944, 152064, true, 1e6f, 1, 32768, 2048}};
    static const struct {
        int B, L;
    } sizes[] = {{1, 32768}, {8, 32768}, {1, 131072}, {4, 32768}, {4, 131072}, {8, 131072}};
    gpu_options o(argc, argv, "--model", {"all", "llama-3.1-8b", "qwen2-7b"});
    gpu_card card = gpu_open();
    gpu_log log(o.out.c_str());
    step_gemm gemm;
    auto limit = std::chrono::milliseconds((long)(o.seconds * 1000));
    run r = {o, card, gemm, log, std::chrono::steady_clock::now() + limit, 0, 0};
    printf("%s, %s\n", card.name.c_str(), gpu_state().c_str());
    {
        gpu_plain beside(card, o.dry ? 1e6 : 2 * models[0].layer_weights());
        gpu_time({&beside.read}, o.dry ? 1 : ROUNDS, o.dry ? 1 : 50);
        r.read_gbps = beside.read.gbps();
    }
    for (auto size : sizes)
        for (step_shape s : models) {
            if (o.dry && (size.B > 1 || size.L > 32768))
                continue;
            s.B = size.B;
            s.L = size.L;
            if (o.choice == "all" || o.choice == s.model)
                run_shape(r, s);
        }
    return r.failed != 0;
}
