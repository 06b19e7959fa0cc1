/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operation of a decoding run on a card, checked on the buffers it is timed on, beside a
 * plain read and a plain copy of as many bytes. A graph goes through the caches of all layers, so
 * that the L2 holds nothing of the next; "warm" cases stay on one layer.
 *
 *   bench_gpu [--tier core|batch|grid] [--out FILE] [--seconds LIMIT] [--dry]
 *
 * --dry: sizes that tell nothing of speed; every row says so.
 */
#include <string.h>

#include <chrono>
#include <memory>

#include "kernels/bench/gpu_bed.cuh"
#include "kernels/bench/gpu_plain.cuh"

enum { ROUNDS = 3, LEAST_LAUNCHES = 64 };

/* Is there time, and a place to write to. */
struct run {
    gpu_card card;
    gpu_log *log;
    std::chrono::steady_clock::time_point end;
    bool dry;
    int failed, shapes; /* shapes: begun */

    bool late() const
    {
        return std::chrono::steady_clock::now() > end;
    }
};

static void print_head(const gpu_shape &s)
{
    printf("\n%s: Hq=%d Hkv=%d D=%d %s, B=%d, L=%d, K=%d, %d layers\n", s.model, s.Hkv * s.heads,
           s.Hkv, s.D, ra_dtype_name(s.dtype), s.B, s.L, s.K, s.layers);
    printf("%-22s %10s %10s %10s %9s %8s %9s\n", "case", "us", "p10", "p90", "GB/s", "of best",
           "error");
}

static void report(run &r, const gpu_shape &s, const gpu_side &side, double best, double error)
{
    printf("%-22s %10.2f %10.2f %10.2f %9.0f %8.3f %9.2g\n", side.name.c_str(), side.quantile(0.5),
           side.quantile(0.1), side.quantile(0.9), side.gbps(), side.gbps() / best, error);
    fflush(stdout);
    r.log->add("case", side.name).add("model", s.model).add("card", r.card.name);
    r.log->add("dtype", ra_dtype_name(s.dtype)).add("layers", s.layers).add("Hkv", s.Hkv);
    r.log->add("Hq", s.Hkv * s.heads).add("D", s.D).add("B", s.B).add("L", s.L).add("K", s.K);
    r.log->add("us_median", side.quantile(0.5)).add("us_p10", side.quantile(0.1));
    r.log->add("us_p90", side.quantile(0.9)).add("launches", (double)side.us.size());
    r.log->add("bytes", side.bytes).add("gbps", side.gbps()).add("of_best", side.gbps() / best);
    r.log->add("error", error);
    r.log->end();
}

/* A case that failed its check is listed, without a time. */
static bool passed(run &r, const gpu_shape &s, const char *name, double error, double bound)
{
    if (error <= bound)
        return true;
    r.failed++;
    printf("%-22s %s: error %.3g, at most %.3g expected\n", name, "NOT TIMED", error, bound);
    r.log->add("case", name).add("model", s.model).add("L", s.L).add("failed", error).end();
    return false;
}

/* Graphs and what they time, kept together. */
struct sides {
    std::vector<std::unique_ptr<gpu_graph>> graphs;
    std::vector<std::unique_ptr<gpu_side>> all;
    std::vector<double> error;

    void add(const char *name, int launches, double bytes, double err,
             const std::function<void(cudaStream_t)> &record)
    {
        graphs.emplace_back(new gpu_graph(record));
        all.emplace_back(new gpu_side{name, graphs.back().get(), launches, bytes, {}});
        error.push_back(err);
    }
    void time(const run &r, gpu_plain *beside)
    {
        std::vector<gpu_side *> in_turn;
        for (auto &side : all)
            in_turn.push_back(side.get());
        if (beside) {
            in_turn.push_back(&beside->read);
            in_turn.push_back(&beside->copy);
        }
        gpu_time(in_turn, r.dry ? 1 : ROUNDS, r.dry ? 1 : LEAST_LAUNCHES);
    }
    double us(const char *name) const
    {
        for (auto &side : all)
            if (side->name == name)
                return side->quantile(0.5);
        return NAN;
    }
};

/* Attention in one way, if it is right: cold over the layers, warm on the first. */
static void add_attention(run &r, gpu_bed &bed, sides &to, const char *name, const gpu_way &way)
{
    const gpu_shape &s = bed.s;
    enum gpu_keys by = way.keys;
    double error = bed.check_attention(way);
    if (!passed(r, s, name, error, 1e-5))
        return;
    bool few = by == GPU_COMPACT || by == GPU_GATHERED;
    double bytes = (few ? s.recycled_bytes() : s.full_bytes()) * (way.scores_alone ? 0.5 : 1);
    bytes += by == GPU_GATHERED ? 4.0 * s.B * s.Hkv * s.K : 0;
    bytes += way.logits ? 4.0 * s.B * s.Hkv * s.heads * s.L : 0;
    to.add(name, s.layers, bytes, error, [&](cudaStream_t stream) { bed.attend_all(stream, way); });
    if (by == GPU_COMPACT && !way.early)
        to.add("recycled warm", s.layers, bytes, error, [&](cudaStream_t stream) {
            for (int i = 0; i < s.layers; i++)
                bed.attend(stream, 0, way);
        });
}

/* The branch of a step that the card decided against: its launch, which must do nothing. */
static void add_left_out(run &r, gpu_bed &bed, sides &to, const char *name, enum gpu_keys keys)
{
    const gpu_way way = {keys, false, false, false, true};
    int written = bed.count_written(way);
    if (passed(r, bed.s, name, written, 0))
        to.add(name, bed.s.layers, 4.0 * bed.s.B, written,
               [&](cudaStream_t stream) { bed.attend_all(stream, way); });
}

/* Selection and refresh of all layers, per layer; inline: of one. */
static void add_selection(run &r, gpu_bed &bed, sides &to)
{
    const gpu_shape &s = bed.s;
    double of_layer = s.B * s.Hkv, error = bed.check_selection();
    if (!passed(r, s, "select", error, 1e-4))
        return;
    double bytes = of_layer * (4.0 * s.L * (s.heads + 2) + 4.0 * s.K);
    to.add("select deferred", s.layers, bytes, error,
           [&](cudaStream_t stream) { bed.select(stream, -1); });
    to.add("select inline", s.layers, bytes, error, [&](cudaStream_t stream) {
        for (int layer = 0; layer < s.layers; layer++)
            bed.select(stream, layer);
    });
    to.add("order", s.layers, of_layer * 12.0 * s.K, NAN,
           [&](cudaStream_t stream) { bed.order(stream); });
}

static void add_refresh(run &r, gpu_bed &bed, sides &to, const char *name, double changed)
{
    const gpu_shape &s = bed.s;
    int set = bed.make_set(changed), wrong = bed.check_refresh(set);
    if (!passed(r, s, name, wrong, 0))
        return;
    double moved = 2 * changed * s.recycled_bytes(), lists = 12.0 * s.B * s.Hkv * s.K;
    to.add(name, 2 * s.layers, moved + lists, wrong, [&](cudaStream_t stream) {
        for (int to_set : {0, set}) {
            bed.plan(stream, to_set);
            bed.move(stream);
        }
    });
}

static void add_small(gpu_bed &bed, sides &to)
{
    const gpu_shape &s = bed.s;
    to.add("plan", s.layers, 12.0 * s.B * s.Hkv * s.K, NAN,
           [&](cudaStream_t stream) { bed.plan(stream, 1); });
    to.add("query cosine", s.layers, 4.0 * s.B * s.Hkv * s.heads * s.D, NAN,
           [&](cudaStream_t stream) { bed.cosine(stream); });
}

/* Timed when nothing else is any more: one position, inserted again and again, leaves a cache that
 * no run would. */
static void add_insertion(gpu_bed &bed, sides &to)
{
    const gpu_shape &s = bed.s;
    double row = s.D * (double)ra_dtype_bytes(s.dtype);
    to.add("insert and evict", s.layers, 6 * s.B * s.Hkv * row, NAN,
           [&](cudaStream_t stream) { bed.insert(stream); });
}

/* A step that refreshes at the end of it, 30 % of the set changing, per layer. */
static void add_cycle(gpu_bed &bed, sides &to)
{
    const gpu_shape &s = bed.s;
    int set = bed.make_set(0.3);
    to.add("refresh step", 2 * s.layers, s.full_bytes(), NAN, [&](cudaStream_t stream) {
        for (int to_set : {0, set}) {
            bed.attend_all(stream, {GPU_FULL, true, false, false});
            bed.select(stream, -1);
            bed.order(stream);
            bed.plan(stream, to_set);
            bed.move(stream);
        }
    });
}

static void say_cycle(run &r, const gpu_shape &s, const sides &of)
{
    const int S = 10;
    double full = of.us("full"), refresh = of.us("refresh step"), few = of.us("recycled compact");
    double speedup = S * full / (refresh + (S - 1) * few);
    double ceiling = 1 / (1.0 / S + (1 - 1.0 / S) * s.K / s.L);
    printf("refresh_step_ratio %.3f, speedup_attention at S=%d %.2f (by bytes %.2f)\n",
           refresh / full, S, speedup, ceiling);
    r.log->add("case", "cycle").add("model", s.model).add("card", r.card.name).add("B", s.B);
    r.log->add("L", s.L).add("K", s.K).add("S", S).add("refresh_step_ratio", refresh / full);
    r.log->add("speedup_attention", speedup).add("ceiling", ceiling).end();
}

static void run_shape(run &r, const gpu_shape &shape)
{
    gpu_shape s = shape;
    if (r.dry && ++r.shapes > 2) /* they are all alike then */
        return;
    if (r.dry) {
        s.layers = 2;
        s.B = s.B < 2 ? s.B : 2;
        s.L = 208;
        s.K = 64;
    }
    if (r.late()) {
        printf("\n%s, B=%d, L=%d, K=%d: not measured, no time left\n", s.model, s.B, s.L, s.K);
        return;
    }
    size_t free_bytes, total_bytes;
    GPU(cudaMemGetInfo(&free_bytes, &total_bytes));
    double needed = gpu_bed::memory(s) + 8.0 * (double)r.card.l2_bytes + 4 * s.full_bytes();
    print_head(s);
    if (needed > (double)free_bytes) {
        printf("n/a: needs %.1f GiB\n", needed / 1073741824);
        return;
    }
    gpu_bed bed(s, r.card);
    sides full, recycled, rest, last;
    add_attention(r, bed, full, "full", {GPU_FULL, false, false, false});
    add_attention(r, bed, full, "full, logits", {GPU_FULL, true, false, false});
    add_attention(r, bed, full, "full, pages of 16", {GPU_PAGED, false, false, false});
    add_attention(r, bed, full, "scores alone", {GPU_FULL, true, true, false});
    add_attention(r, bed, recycled, "recycled compact", {GPU_COMPACT, false, false, false});
    add_attention(r, bed, recycled, "recycled gathered", {GPU_GATHERED, false, false, false});
    if (r.card.has_early_launches) {
        add_attention(r, bed, full, "full, early", {GPU_FULL, false, false, true});
        add_attention(r, bed, recycled, "compact, early", {GPU_COMPACT, false, false, true});
        add_attention(r, bed, recycled, "gathered, early", {GPU_GATHERED, false, false, true});
    }
    add_selection(r, bed, rest);
    add_refresh(r, bed, rest, "refresh, all new", 1 < s.L / s.K ? 1 : 0.5);
    add_refresh(r, bed, rest, "refresh, 1 in 10 new", 0.1);
    add_cycle(bed, full);
    add_small(bed, rest);
    add_left_out(r, bed, rest, "full, left out", GPU_FULL);
    add_left_out(r, bed, rest, "recycled, left out", GPU_COMPACT);
    add_insertion(bed, last);
    double best;
    {
        gpu_plain beside(r.card, s.full_bytes());
        full.time(r, &beside);
        best = beside.best();
        for (size_t i = 0; i < full.all.size(); i++)
            report(r, s, *full.all[i], best, full.error[i]);
        report(r, s, beside.read, best, NAN);
        report(r, s, beside.copy, best, NAN);
    }
    {
        gpu_plain beside(r.card, s.recycled_bytes());
        recycled.time(r, &beside);
        for (size_t i = 0; i < recycled.all.size(); i++)
            report(r, s, *recycled.all[i], beside.best(), recycled.error[i]);
        report(r, s, beside.read, beside.best(), NAN);
        report(r, s, beside.copy, beside.best(), NAN);
    }
    for (sides *of : {&rest, &last}) {
        of->time(r, nullptr);
        for (size_t i = 0; i < of->all.size(); i++)
            report(r, s, *of->all[i], best, of->error[i]);
    }
    full.all.push_back(std::move(recycled.all[0]));
    say_cycle(r, s, full);
}

static void run_tier(run &r, const char *tier)
{
    const gpu_shape llama = {"llama-3.1-8b", 32, 8, 4, 128, RA_BF16, 1, 32768, 2048};
    gpu_shape s = llama;
    auto with = [&](int layers, int B, int L, int K) {
        s.layers = layers;
        s.B = B;
        s.L = L;
        s.K = K;
        run_shape(r, s);
    };
    if (!strcmp(tier, "core")) {
        with(32, 1, 32768, 2048);
        with(32, 1, 131072, 2048);
    } else if (!strcmp(tier, "batch")) {
        with(8, 8, 32768, 2048);
        with(8, 4, 32768, 2048);
        with(4, 4, 131072, 2048);
        with(16, 8, 8192, 2048);
        with(32, 4, 8192, 2048);
    } else {
        with(32, 1, 32768, 1024);
        with(32, 1, 32768, 4096);
        s = {"qwen2-7b", 28, 4, 7, 128, RA_BF16, 1, 32768, 2048};
        run_shape(r, s);
        s = {"smollm2-135m", 30, 3, 3, 64, RA_F16, 1, 32768, 2048};
        run_shape(r, s);
    }
}

int main(int argc, char **argv)
{
    gpu_options o(argc, argv, "--tier", {"core", "batch", "grid"});
    run r = {gpu_open(), nullptr, {}, o.dry, 0, 0};
    gpu_log log(o.out.c_str());
    r.log = &log;
    r.end = std::chrono::steady_clock::now() + std::chrono::milliseconds((long)(o.seconds * 1000));
    printf("%s, %d SMs, %.0f MB of L2, %s\n", r.card.name.c_str(), r.card.n_sms,
           (double)r.card.l2_bytes / 1e6, gpu_state().c_str());
    run_tier(r, o.choice.c_str());
    return r.failed != 0;
}
