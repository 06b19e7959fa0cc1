/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/bench/gpu_bed.cuh"

#include <algorithm>

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

/* Nearly normal, mean 0, variance 1: the sum of the eight bytes of a splitmix64. */
static __device__ float random_normal(uint64_t i)
{
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    int sum = 0;
    for (int j = 0; j < 8; j++)
        sum += (int)(z >> 8 * j & 255);
    return ((float)sum - 1020.0f) / 209.0f;
}

static __device__ void put(float *to, float x)
{
    ra_st(to, x);
}
static __device__ void put(__half *to, float x)
{
    ra_st(to, __float2half_rn(x));
}
static __device__ void put(__nv_bfloat16 *to, float x)
{
    ra_st(to, __float2bfloat16_rn(x));
}

template <class T> __global__ void fill_random(T *to, uint64_t n, uint64_t seed, float scale)
{
    uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        put(to + i, scale * random_normal(i + (seed << 40)));
}

template <class T> static void fill_as(void *to, size_t bytes, uint64_t seed, float scale)
{
    uint64_t n = bytes / sizeof(T);
    unsigned blocks = (unsigned)std::min<uint64_t>((n + 255) / 256, 4096);
    GPU(ra_launch(fill_random<T>, blocks, 256, 0, 0, (T *)to, n, seed, scale));
}

static void fill(enum ra_dtype dtype, void *to, size_t bytes, uint64_t seed)
{
    if (dtype == RA_F16)
        fill_as<__half>(to, bytes, seed, 1);
    else if (dtype == RA_BF16)
        fill_as<__nv_bfloat16>(to, bytes, seed, 1);
    else
        fill_as<float>(to, bytes, seed, 1);
}

/* n positions below L, ascending, every one as likely. */
static void draw_set(int32_t *to, int n, int L)
{
    for (int i = 0, left = n; left > 0; i++)
        if ((int)random_below((uint32_t)(L - i)) < left)
            to[n - left--] = i;
}

/* Another set of as many, of which n_changed are not in `from`. */
static void change_set(int32_t *to, const int32_t *from, int n, int L, int n_changed)
{
    std::vector<bool> in(L);
    for (int i = 0; i < n; i++)
        in[from[i]] = true;
    std::vector<int32_t> kept(from, from + n);
    for (int i = 0; i < n_changed; i++)
        std::swap(kept[i], kept[i + random_below((uint32_t)(n - i))]);
    for (int i = 0; i < n_changed; i++) {
        int32_t fresh;
        do
            fresh = (int32_t)random_below((uint32_t)L);
        while (in[fresh]);
        in[fresh] = true;
        kept[i] = fresh;
    }
    std::sort(kept.begin(), kept.end());
    std::copy(kept.begin(), kept.end(), to);
}

double gpu_bed::memory(const gpu_shape &s)
{
    double queries = (double)s.layers * s.B * s.Hkv * s.heads;
    return s.layers * (s.full_bytes() + s.recycled_bytes()) + queries * s.L * 4 +
           (double)s.rows() * s.L * 4 + (double)s.rows() * s.K * 48 + 64e6;
}

gpu_bed::gpu_bed(const gpu_shape &shape, const gpu_card &card) : s(shape)
{
    size_t rows = (size_t)s.rows(), row_bytes = (size_t)s.D * ra_dtype_bytes(s.dtype);
    int parts = ra_decode_parts(s.heads), of_layer = s.B * s.Hkv;
    queries = (int64_t)of_layer * s.heads;
    kv_layer = (size_t)of_layer * s.L * row_bytes;
    cr_layer = (size_t)of_layer * s.K * row_bytes;
    k = gpu_array<uint8_t>(kv_layer * s.layers);
    v = gpu_array<uint8_t>(kv_layer * s.layers);
    cr_k = gpu_array<uint8_t>(cr_layer * s.layers);
    cr_v = gpu_array<uint8_t>(cr_layer * s.layers);
    self_k = gpu_array<uint8_t>(rows * row_bytes);
    self_v = gpu_array<uint8_t>(rows * row_bytes);
    gpu_array<uint8_t> *stored[] = {&k, &v, &cr_k, &cr_v, &self_k, &self_v};
    for (int i = 0; i < 6; i++)
        fill(s.dtype, stored[i]->get(), stored[i]->bytes(), i + 1);
    q = gpu_array<float>((size_t)queries * s.layers * s.D);
    fill_as<float>(q.get(), q.bytes(), 9, 2);
    out = gpu_array<float>(q.count());
    lse = gpu_array<float>((size_t)queries * s.layers);
    logits = gpu_array<float>((size_t)queries * s.layers * s.L);
    int keys_of[] = {s.L, s.L, s.K, s.K}, most = 1;
    for (int i = 0; i < 4; i++) {
        splits[i] = ra_decode_splits(card.n_sms, of_layer * parts, keys_of[i]);
        most = std::max(most, splits[i]);
    }
    partial = gpu_array<float>((size_t)of_layer * parts * RA_DECODE_MAX_SPLITS *
                               ra_decode_group(s.heads) * s.D);
    sums = gpu_array<float>((size_t)of_layer * parts * RA_DECODE_MAX_SPLITS * 2 *
                            ra_decode_group(s.heads));
    ticket = gpu_array<uint32_t>((size_t)of_layer * parts);
    ticket.zero();
    n_full = gpu_array<int32_t>(std::vector<int32_t>(rows, s.L));
    n_cr = gpu_array<int32_t>(std::vector<int32_t>(rows, s.K));
    host_index.resize(rows * s.K);
    for (size_t row = 0; row < rows; row++)
        draw_set(&host_index[row * s.K], s.K, s.L);
    index = gpu_array<int32_t>(host_index);
    sets.emplace_back(host_index);
    n_pages = ((size_t)s.L + RA_PAGE - 1) / RA_PAGE;
    for (int32_t i = 0; i < (int32_t)n_pages * s.B; i++) {
        host_pages.push_back(i);
        std::swap(host_pages[i], host_pages[random_below((uint32_t)i + 1)]);
    }
    pages = gpu_array<int32_t>(host_pages);
    keys = gpu_array<uint32_t>(rows * s.L);
    chosen = gpu_array<int32_t>(rows * s.K);
    order_of = gpu_array<int32_t>(rows * s.K);
    n_chosen = gpu_array<int32_t>(rows);
    cache_n = gpu_array<int32_t>(std::vector<int32_t>(rows, s.K));
    slot_pos = gpu_array<int32_t>(host_index);
    queue = gpu_array<int32_t>(rows * s.K);
    queue_first = gpu_array<int32_t>(std::vector<int32_t>(rows, 0));
    queue_n = gpu_array<int32_t>(std::vector<int32_t>(rows, s.K));
    moves = gpu_array<int2>(rows * s.K);
    n_moves = gpu_array<int32_t>(rows);
    set_n = gpu_array<int32_t>(std::vector<int32_t>(rows, s.K));
    position = gpu_array<int32_t>(std::vector<int32_t>(rows, s.L - 1));
    gate = gpu_array<int32_t>(std::vector<int32_t>((size_t)s.B, 0));
    size_t n_queries = (size_t)s.layers * s.B;
    reference = gpu_array<double>(n_queries * s.D);
    cosines = gpu_array<double>(n_queries);
    has_reference = gpu_array<int32_t>(std::vector<int32_t>(n_queries, 0));
    fires = gpu_array<int32_t>(n_queries);
    select_plan = ra_plan_select(card.n_sms, s.rows(), s.L);
    layer_plan = ra_plan_select(card.n_sms, of_layer, s.L);
    select_scratch = gpu_array<uint32_t>(ra_select_scratch(select_plan) / 4 + 4);
    layer_scratch = gpu_array<uint32_t>(ra_select_scratch(layer_plan) / 4 + 4);
    select_scratch.zero();
    layer_scratch.zero();
    GPU(cudaDeviceSynchronize());
}

gpu_layer gpu_bed::layer(int number) const
{
    size_t row = (size_t)number * s.B * s.Hkv * row_bytes();
    return {q.get() + number * queries * s.D,
            out.get() + number * queries * s.D,
            k.get() + number * kv_layer,
            v.get() + number * kv_layer,
            self_k.get() + row,
            self_v.get() + row};
}

void gpu_bed::forget_new_rows() const
{
    size_t pitch = (size_t)s.L * row_bytes(), last = pitch - row_bytes();
    self_k.poison();
    self_v.poison();
    for (const gpu_array<uint8_t> *rows : {&k, &v})
        for (size_t row = 0; row < (size_t)s.rows(); row++)
            GPU(cudaMemset(rows->get() + row * pitch + last, 0xff, row_bytes()));
}

ra_decode_args gpu_bed::attention(int layer, enum gpu_keys by) const
{
    bool compact = by == GPU_COMPACT, few = compact || by == GPU_GATHERED;
    int64_t row = (int64_t)layer * s.B * s.Hkv;
    ra_decode_args a = {};
    a.q = q.get() + layer * queries * s.D;
    a.k = compact ? cr_k.get() + layer * cr_layer : k.get() + layer * kv_layer;
    a.v = compact ? cr_v.get() + layer * cr_layer : v.get() + layer * kv_layer;
    a.n = (few ? n_cr : n_full).get() + row;
    a.index = by == GPU_GATHERED ? index.get() + row * s.K : nullptr;
    a.pages = by == GPU_PAGED ? pages.get() : nullptr;
    a.out = out.get() + layer * queries * s.D;
    a.lse = lse.get() + layer * queries;
    a.logits = logits.get() + layer * queries * s.L;
    a.partial = partial.get();
    a.partial_sums = sums.get();
    a.ticket = ticket.get();
    a.row_stride = compact ? s.K : s.L;
    a.index_stride = s.K;
    a.page_stride = (int64_t)n_pages;
    a.logit_stride = s.L;
    a.Hkv = s.Hkv;
    a.heads = s.heads;
    a.scale = 1 / sqrtf((float)s.D);
    return a;
}

void gpu_bed::attend(cudaStream_t stream, int layer, const gpu_way &way) const
{
    ra_decode_args a = attention(layer, way.keys);
    bool gather = way.keys == GPU_GATHERED || way.keys == GPU_PAGED;
    ra_decode_plan plan = {s.dtype, s.D, s.B, splits[way.keys], way.logits, gather};
    a.early = way.early; /* nobody writes keys here */
    a.gate = way.shut ? gate.get() : nullptr;
    a.gate_value = 1;
    GPU(way.scores_alone ? ra_launch_score(plan, a, stream) : ra_launch_decode(plan, a, stream));
}

void gpu_bed::attend_all(cudaStream_t stream, const gpu_way &way) const
{
    for (int layer = 0; layer < s.layers; layer++) {
        ra_early_launches may_start(way.early && layer > 0);
        attend(stream, layer, way);
    }
}

void gpu_bed::select(cudaStream_t stream, int layer) const
{
    int64_t first = layer < 0 ? 0 : (int64_t)layer * s.B * s.Hkv;
    ra_select_args a = {};
    a.logits = logits.get() + first * s.heads * s.L;
    a.lse = lse.get() + first * s.heads;
    a.n = n_full.get() + first;
    a.keys = keys.get() + first * s.L;
    a.chosen = chosen.get() + first * s.K;
    a.n_chosen = n_chosen.get() + first;
    a.scratch = (layer < 0 ? select_scratch : layer_scratch).get();
    a.logit_stride = a.key_stride = s.L;
    a.chosen_stride = s.K;
    a.G = s.heads;
    a.pool = 7;
    a.K = s.K;
    a.agg = RA_AGG_MAX;
    a.current = RA_CURRENT_PSEUDO;
    GPU(ra_launch_select(layer < 0 ? select_plan : layer_plan, a, stream));
}

void gpu_bed::order(cudaStream_t stream) const
{
    ra_order_args a = {};
    a.chosen = chosen.get();
    a.n_chosen = n_chosen.get();
    a.keys = keys.get();
    a.order = order_of.get();
    a.key_stride = s.L;
    a.chosen_stride = s.K;
    GPU(ra_launch_order(s.rows(), s.K, a, stream));
}

int gpu_bed::make_set(double changed)
{
    std::vector<int32_t> second(host_index.size());
    for (size_t row = 0; row < (size_t)s.rows(); row++)
        change_set(&second[row * s.K], &host_index[row * s.K], s.K, s.L,
                   (int)lround(changed * s.K));
    sets.emplace_back(second);
    return (int)sets.size() - 1;
}

void gpu_bed::plan(cudaStream_t stream, int set) const
{
    ra_plan_args a = {};
    a.cache = {cache_n.get(), slot_pos.get(), queue.get(), queue_first.get(), queue_n.get(), s.K};
    a.chosen = a.order = sets[set].get();
    a.n_chosen = set_n.get();
    a.moves = moves.get();
    a.n_moves = n_moves.get();
    a.stride = s.K;
    size_t shared = ra_plan_shared(s.K);
    GPU(cudaFuncSetAttribute(plan_refresh, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)shared));
    GPU(ra_launch(plan_refresh, (unsigned)s.rows(), RA_PLAN_THREADS, shared, stream, a));
}

void gpu_bed::move(cudaStream_t stream) const
{
    ra_move_args a = {};
    a.moves = moves.get();
    a.n_moves = n_moves.get();
    a.from_k = k.get();
    a.from_v = v.get();
    a.to_k = cr_k.get();
    a.to_v = cr_v.get();
    a.row_stride = s.L;
    a.cap = s.K;
    a.Hkv = s.Hkv;
    GPU(ra_launch_move(s.rows(), s.D * (int)ra_dtype_bytes(s.dtype), a, stream));
}

void gpu_bed::insert(cudaStream_t stream, bool appends) const
{
    ra_insert_args a = {};
    a.cache = {cache_n.get(), slot_pos.get(), queue.get(), queue_first.get(), queue_n.get(), s.K};
    a.self_k = self_k.get();
    a.self_v = self_v.get();
    a.position = position.get();
    a.to_k = cr_k.get();
    a.to_v = cr_v.get();
    a.full_k = appends ? k.get() : nullptr;
    a.full_v = appends ? v.get() : nullptr;
    a.row_stride = s.L;
    a.n_rows = s.rows();
    a.Hkv = s.Hkv;
    a.row_bytes = s.D * (int)ra_dtype_bytes(s.dtype);
    a.K = s.K;
    unsigned each = RA_INSERT_THREADS / 32;
    GPU(ra_launch(insert_evict, ((unsigned)a.n_rows + each - 1) / each, RA_INSERT_THREADS, 0,
                  stream, a));
}

static __global__ void add_one(int32_t *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        ra_st(x + i, ra_ld(x + i) + 1);
}

void gpu_bed::advance(cudaStream_t stream) const
{
    int n = (int)position.count();
    GPU(ra_launch(add_one, (unsigned)(n + 127) / 128, 128, 0, stream, position.get(), n));
}

void gpu_bed::cosine(cudaStream_t stream) const
{
    ra_query_args a = {};
    a.q = q.get();
    a.reference = reference.get();
    a.has_reference = has_reference.get();
    a.cosine = cosines.get();
    a.fires = fires.get();
    a.sim = 0.8;
    a.n_rows = s.layers * s.B;
    a.Hq = s.Hkv * s.heads;
    a.D = s.D;
    a.update = RA_QUERY_SET;
    unsigned each = RA_QUERY_THREADS / 32;
    GPU(ra_launch(query_cosine, ((unsigned)a.n_rows + each - 1) / each, RA_QUERY_THREADS, 0, stream,
                  a));
}
