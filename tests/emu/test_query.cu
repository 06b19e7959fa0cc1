/* SPDX-License-Identifier: Apache-2.0 */
/*
 * query_cosine against the cosine of mean queries in f64: turned, opposite and zero queries, and
 * what becomes of the reference.
 */
#include "kernels/cuda/query.cuh"
#include "tests/emu/kernel_test.h"

struct shape {
    int rows, Hq, D;
    double sim;
    ra_query_update update;
};

struct world {
    shape s;
    std::vector<float> q;
    std::vector<double> reference;
    std::vector<int32_t> has_reference;

    explicit world(const shape &of) : s(of), reference((size_t)s.rows * s.D), has_reference(s.rows)
    {
    }

    double mean(int row, int d) const
    {
        double sum = 0;
        for (int h = 0; h < s.Hq; h++)
            sum += q[((size_t)row * s.Hq + h) * s.D + d];
        return sum / s.Hq;
    }
    double cosine(int row) const
    {
        double dot = 0, norm = 0, other = 0;
        for (int d = 0; d < s.D && has_reference[row]; d++) {
            double x = mean(row, d), y = reference[(size_t)row * s.D + d];
            dot += x * y;
            norm += x * x;
            other += y * y;
        }
        double value = norm > 0 && other > 0 ? dot / sqrt(norm * other) : NAN;
        return value > 1 ? 1 : value < -1 ? -1 : value;
    }
    void take(int row)
    {
        for (int d = 0; d < s.D; d++)
            reference[(size_t)row * s.D + d] = mean(row, d);
        has_reference[row] = 1;
    }
};

/* Rows in turn: as before, a little turned, opposite, zero, unlike. */
static void next_query(world &w, int step)
{
    std::vector<float> last = w.q;
    w.q = random_values<float>((size_t)w.s.rows * w.s.Hq * w.s.D, 1);
    for (size_t i = 0; i < last.size(); i++) {
        int kind = ((int)(i / ((size_t)w.s.Hq * w.s.D)) + step) % 5;
        float blend[5] = {last[i], last[i] + w.q[i] / 2, -last[i], 0, w.q[i]};
        w.q[i] = blend[kind];
    }
}

static void run(const shape &s)
{
    test_case test("query rows=%d Hq=%d D=%d sim=%g update=%d", s.rows, s.Hq, s.D, s.sim, s.update);
    world w(s);
    device_array<double> reference((size_t)s.rows * s.D);
    device_array<int32_t> has_reference(w.has_reference);
    int ctas = (s.rows * 32 + RA_QUERY_THREADS - 1) / RA_QUERY_THREADS;
    for (int step = 0; step < 8; step++) {
        next_query(w, step);
        device_array<float> q(w.q);
        device_array<double> cosine(s.rows);
        device_array<int32_t> fires(s.rows);
        double compared = 0, taken = 0;
        /* Compare alone needs a reference from somewhere. */
        ra_query_update update = step == 0 ? RA_QUERY_SET : s.update;
        ra_query_args a = {q.get(),
                           reference.get(),
                           has_reference.get(),
                           cosine.get(),
                           fires.get(),
                           s.sim,
                           s.rows,
                           s.Hq,
                           s.D,
                           update};
        start_counting();
        test.launched(ra_launch(query_cosine, ctas, RA_QUERY_THREADS, 0, 0, a));
        std::vector<double> cosines = cosine.read(), references = reference.read();
        std::vector<int32_t> fired = fires.read();
        for (int row = 0; row < s.rows; row++) {
            double want = w.cosine(row), got = cosines[row];
            bool want_fires = !(want > s.sim);
            if (isnan(want) ? !isnan(got) : !(fabs(got - want) <= 1e-14) || fabs(got) > 1)
                test.complain("step %d row %d: expected %.17g, got %.17g", step, row, want, got);
            if (fired[row] != want_fires)
                test.complain("step %d row %d: fires %d", step, row, fired[row]);
            compared += w.has_reference[row];
            if (update == RA_QUERY_SET || (update == RA_QUERY_FIRED && want_fires)) {
                w.take(row);
                taken++;
            }
            for (int d = 0; d < s.D; d++)
                if (!(references[(size_t)row * s.D + d] == w.reference[(size_t)row * s.D + d]))
                    test.complain("step %d row %d: reference %d differs", step, row, d);
        }
        test.moved("query_cosine", 4.0 * s.rows * s.Hq * s.D + 8 * s.D * (compared + taken));
    }
}

int main()
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    for (int D : {8, 64, 128, 200, 256})
        for (ra_query_update update : {RA_QUERY_COMPARE, RA_QUERY_FIRED, RA_QUERY_SET})
            for (double sim : {-2.0, 0.5, 0.99, 2.0})
                run({7, D == 64 ? 9 : 4, D, sim, update});
    run({33, 32, 128, 0.9, RA_QUERY_FIRED});
    return finish();
}
