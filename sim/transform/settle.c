/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/transform/settle.h"

#include <string.h>

#include "sim/base/error.h"
#include "sim/rope.h"

enum { MOST = 256 };

/* cos and sin of each pair's angle, beside one another as a turned vector has them. */
static void find_angles(const struct ra_settling *settling, int32_t pos, double *angles)
{
    for (int d = 0; d < settling->D; d++)
        angles[d] = d < settling->D / 2;
    ra_rope_turn(settling->frequencies, settling->D, pos, angles);
}

static void turn(const double *angles, int D, double *vec)
{
    int half = D / 2;
    for (int i = 0; i < half; i++) {
        double a = vec[i], b = vec[i + half], c = angles[i], s = angles[i + half];
        vec[i] = a * c - b * s;
        vec[i + half] = b * c + a * s;
    }
}

/* Each row of `from`, turned, a column of `to`. */
static void turn_across(const double *angles, int D, const double *from, double *to)
{
    double row[MOST] = {0};
    for (int r = 0; r < D; r++) {
        memcpy(row, from + (size_t)r * (size_t)D, (size_t)D * sizeof *row);
        turn(angles, D, row);
        for (int c = 0; c < D; c++)
            to[c * D + r] = row[c];
    }
}

static void add_product(const double *vec, int D, double *sum)
{
    for (int r = 0; r < D; r++)
        for (int c = 0; c < D; c++)
            sum[r * D + c] += vec[r] * vec[c];
}

void ra_settling_form(const struct ra_settling *settling, const struct ra_settling_queries *queries,
                      double *room, double *H)
{
    int D = settling->D;
    size_t square = (size_t)D * (size_t)D;
    double *before = room, *half = room + square, *whole = half + square;
    double row[MOST] = {0}, angles[MOST] = {0};
    memset(before, 0, square * sizeof *before);
    memset(H, 0, square * sizeof *H);
    for (int r = 0; r < queries->G * queries->W; r++) {
        for (int d = 0; d < D; d++)
            row[d] = (double)queries->q[(size_t)r * (size_t)D + (size_t)d];
        ra_rope_turn_back(settling->frequencies, D, queries->P - queries->W + r % queries->W, row);
        add_product(row, D, before);
    }
    for (int32_t pos = queries->P; pos < queries->P + queries->ahead; pos++) {
        find_angles(settling, pos, angles);
        turn_across(angles, D, before, half);
        turn_across(angles, D, half, whole);
        for (int r = 0; r < D; r++)
            for (int c = 0; c < D; c++)
                H[r * D + c] += whole[c * D + r];
    }
}

static void add_row(const double *H, double factor, int D, double *gradient)
{
    for (int c = 0; c < D; c++)
        gradient[c] += factor * H[c];
}

/* By how much the entry should be less; a and b are what it is in the turned pair (i, j). */
static double step_of(const struct ra_settling *settling, double damp, int d, double a, double b,
                      const double *gradient, double error)
{
    int D = settling->D, i = d % (D / 2), j = i + D / 2;
    const double *H = settling->H;
    double slope = a * gradient[i] + b * gradient[j] + damp * error;
    double curve = a * a * H[i * D + i] + b * b * H[j * D + j] + 2 * a * b * H[i * D + j] + damp;
    return curve > 0 ? slope / curve : 0;
}

void ra_settling_row(const struct ra_settling *settling, int32_t pos, const double *exact,
                     const bool *fixed, ra_settling_choose choose, void *context, double *read)
{
    int D = settling->D, half = D / 2;
    RA_BUG_ON(half < 1 || D % 2 || D > MOST);
    const double *H = settling->H;
    double angles[MOST] = {0}, error[MOST] = {0}, turned[MOST] = {0}, gradient[MOST] = {0};
    double damp = 0;
    for (int d = 0; d < D; d++) {
        error[d] = turned[d] = read[d] - exact[d];
        damp += H[d * D + d];
    }
    damp = settling->damp * damp / D;
    find_angles(settling, pos, angles);
    turn(angles, D, turned);
    for (int d = 0; d < D; d++)
        add_row(H + d * D, turned[d], D, gradient);
    for (int n = 0; n < settling->sweeps * D; n++) {
        int d = n % D, i = d % half, j = i + half;
        double a = d < half ? angles[i] : -angles[j], b = d < half ? angles[j] : angles[i];
        if (fixed[d])
            continue;
        double step = step_of(settling, damp, d, a, b, gradient, error[d]);
        double change = choose(context, d, read[d] - step) - read[d];
        if (change == 0)
            continue;
        read[d] += change;
        error[d] += change;
        for (int c = 0; c < D; c++)
            gradient[c] += change * a * H[i * D + c] + change * b * H[j * D + c];
    }
}
