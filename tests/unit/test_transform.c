/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transformations against closed forms, against the definition of 8-bit floats, and to the bit
 * against numpy (tests/reference/rows.py prints that table).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/hash.h"
#include "sim/transform.h"
#include "sim/transform/levels.h"
#include "tests/support/ra_test.h"

enum { HKV = 2, G = 3, D = 16, DV = 8, P = 24, T = 33, W = 5 };

/* One layer in a stored type, and what was asked of it. */
struct layer {
    struct ra_model model;
    struct ra_transform_rows rows;
    struct ra_transform_bits bits;
    char k[HKV * T * D * 4], v[HKV * T * DV * 4];
};

static void layer_init(struct layer *layer, enum ra_dtype dtype, enum ra_rope_type rope)
{
    *layer = (struct layer){.model = {.n_layers = 1,
                                      .Hq = HKV * G,
                                      .Hkv = HKV,
                                      .G = G,
                                      .D = D,
                                      .Dv = DV,
                                      .dtype = dtype,
                                      .attn_scale = 1,
                                      .rope = {.type = rope,
                                               .theta = rope == RA_ROPE_LINEAR ? 500 : 10000,
                                               .factor = rope == RA_ROPE_LINEAR ? 4 : 8,
                                               .low_freq_factor = 1,
                                               .high_freq_factor = 4,
                                               .original_max_position = 32}}};
    layer->rows = (struct ra_transform_rows){
        .model = &layer->model, .P = P, .n = T, .k = layer->k, .v = layer->v};
}

static void apply(struct layer *layer, const char *spelling)
{
    struct ra_transform_chain *chain;
    struct ra_error err;
    ra_assert_ok(ra_transform_parse(&chain, ra_span_of(spelling), &err));
    ra_assert_ok(ra_transform_fits(chain, &layer->model, &err));
    ra_assert_ok(ra_transform_apply(chain, &layer->rows, &layer->bits, &err));
    ra_transform_close(chain);
}

/* Multiples of 1/256 in [-8, 8), from a linear congruence; channels differ in size. */
static float draw(uint64_t *state, int channel)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)((int)((*state >> 40) % 4096) - 2048) / 256 * (float)(1 + channel % 5);
}

static void fill(enum ra_dtype dtype, uint64_t *state, int n_rows, int width, char *out)
{
    float values[HKV * T * D];
    for (int i = 0; i < n_rows * width; i++)
        values[i] = draw(state, i % width);
    ra_narrow(dtype, values, (size_t)(n_rows * width), out);
}

/* -0 and 0 are one number. */
static void hash_rows(struct ra_sha256 *hash, enum ra_dtype dtype, const char *stored, size_t n)
{
    float values[HKV * T * D];
    char again[sizeof values];
    ra_widen(dtype, stored, n, values);
    for (size_t i = 0; i < n; i++)
        values[i] += 0;
    ra_narrow(dtype, values, n, again);
    ra_sha256_bytes(hash, again, n * ra_dtype_bytes(dtype));
}

static void test_numpy(void **state)
{
    (void)state;
    static const struct {
        enum ra_dtype dtype;
        enum ra_rope_type rope;
        int has_acc;
        const char *spelling;
        int64_t k_bits, v_bits;
        const char *hash;
    } cases[] = {
        {RA_F16, RA_ROPE_NONE, 0, "kvquant:values=head", 9440, 7680, "1e8d52411aa7c857"},
        {RA_F16, RA_ROPE_DEFAULT, 1, "kvquant:values=head", 9952, 7680, "d8c7d7423b8f77ae"},
        {RA_F16, RA_ROPE_DEFAULT, 1, "kvquant:bits=4,outliers=0.1,values=head", 20960, 11808,
         "c30f03664105d490"},
        {RA_F16, RA_ROPE_DEFAULT, 1,
         "kvquant:bits=4,values=token,levels=layer,weights=acc,scale=none,sweeps=0", 10208, 6688,
         "7447876a56ece6ed"},
        {RA_F32, RA_ROPE_LLAMA3, 1, "kvquant:keys=head,values=channel,weights=one,ahead=7,damp=3",
         16416, 7584, "20eefb2844826704"},
        {RA_BF16, RA_ROPE_LINEAR, 0, "kvquant:bits=3,outliers=0,values=token,sweeps=1,damp=0", 8704,
         5120, "ffa41ba72b4cca01"},
        {RA_F32, RA_ROPE_DEFAULT, 0, "kvquant:bits=3,keys=token,values=channel", 19488, 10144,
         "b787c781d6b383b4"},
        {RA_BF16, RA_ROPE_LINEAR, 1, "kvquant:bits=3,outliers=0,values=head", 8704, 6144,
         "1735b91f13ae019f"},
        {RA_F32, RA_ROPE_LLAMA3, 1, "kvquant:bits=2,outliers=0.25,nuq=0,values=head", 20096, 13344,
         "5749526fce72555b"},
        {RA_F16, RA_ROPE_DEFAULT, 0, "int8", 10560, 6336, "d396550292a343c0"},
        {RA_F32, RA_ROPE_DEFAULT, 0, "int4", 8448, 6336, "ae68b6c13a8ebf43"},
        {RA_BF16, RA_ROPE_NONE, 0, "fp8", 9504, 5280, "49745211180b6f43"},
        {RA_F16, RA_ROPE_NONE, 0, "fp8:format=e5m2", 9504, 5280, "3022ac0c5d7b2f86"},
        {RA_F16, RA_ROPE_LLAMA3, 1, "int8+kvquant:bits=4,values=head+int4", 6336, 4224,
         "478a9ec26cdb7902"},
    };
    static struct layer layer;
    float acc[HKV * G * P], q[HKV * G * W * D];
    char stored[sizeof q];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t seed = 1;
        struct ra_sha256 hash;
        char hex[RA_SHA256_HEX];
        layer_init(&layer, cases[i].dtype, cases[i].rope);
        fill(cases[i].dtype, &seed, HKV * T, D, layer.k);
        fill(cases[i].dtype, &seed, HKV * T, DV, layer.v);
        fill(cases[i].dtype, &seed, HKV * G * W, D, stored);
        ra_widen(cases[i].dtype, stored, HKV * G * W * D, q);
        layer.rows.q = q;
        layer.rows.W = W;
        for (int j = 0; j < HKV * G * P; j++)
            acc[j] = fabsf(draw(&seed, j % P));
        layer.rows.acc = cases[i].has_acc ? acc : NULL;
        apply(&layer, cases[i].spelling);
        assert_int_equal(layer.bits.k, cases[i].k_bits);
        assert_int_equal(layer.bits.v, cases[i].v_bits);
        ra_sha256_init(&hash);
        hash_rows(&hash, cases[i].dtype, layer.k, HKV * T * D);
        hash_rows(&hash, cases[i].dtype, layer.v, HKV * T * DV);
        ra_sha256_hex(&hash, hex);
        hex[16] = '\0';
        assert_string_equal(hex, cases[i].hash);
    }
}

/* Whole numbers 0..255 are codes of themselves, and so is whatever is constant. */
static void test_integers_on_the_grid(void **state)
{
    (void)state;
    static struct layer layer, before;
    float row[HKV * T * D];
    layer_init(&layer, RA_F16, RA_ROPE_NONE);
    for (int i = 0; i < HKV * T * D; i++)
        row[i] = i % D == 0 ? 0 : i % D == 1 ? 255 : (float)(i * 37 % 256);
    ra_narrow(RA_F16, row, HKV * T * D, layer.k);
    for (int i = 0; i < HKV * T * DV; i++)
        row[i] = -0.37F * (float)(i / DV + 1);
    ra_narrow(RA_F16, row, HKV * T * DV, layer.v);
    before = layer;
    apply(&layer, "int8");
    assert_memory_equal(layer.k, before.k, HKV * T * D * 2);
    assert_memory_equal(layer.v, before.v, HKV * T * DV * 2);
}

/* No entry moves by more than half a step, of the row's own. */
static void test_integers_half_a_step(void **state)
{
    (void)state;
    static struct layer layer;
    for (int bits = 4; bits <= 8; bits += 4) {
        float before[HKV * T * D], after[HKV * T * D];
        double largest_share = 0;
        uint64_t seed = 7;
        layer_init(&layer, RA_F32, RA_ROPE_UNKNOWN);
        fill(RA_F32, &seed, HKV * T, D, layer.k);
        memcpy(before, layer.k, sizeof before);
        apply(&layer, bits == 4 ? "int4" : "int8");
        memcpy(after, layer.k, sizeof after);
        for (int r = 0; r < HKV * T; r++) {
            double least = before[r * D], most = least;
            for (int d = 1; d < D; d++) {
                least = fmin(least, before[r * D + d]);
                most = fmax(most, before[r * D + d]);
            }
            double step = (most - least) / ((1 << bits) - 1);
            for (int i = r * D; i < (r + 1) * D; i++)
                largest_share = fmax(largest_share, fabs((double)after[i] - before[i]) / step);
        }
        assert_true(largest_share < 0.5 + 1e-5);
        assert_true(largest_share > 0.4); /* and some do move that far */
    }
}

/* The numbers of a form, from their bits: sign, exponent, fraction. */
static double fp8_number(int code, int fraction, int bias)
{
    int exponent = (code & 127) >> fraction, part = code & ((1 << fraction) - 1);
    double value = exponent ? ldexp(1 + ldexp(part, -fraction), exponent - bias)
                            : ldexp(part, 1 - bias - fraction);
    return code & 128 ? -value : value;
}

/* Each number of the form stays, and what is between two goes to the nearer, ties to even. */
static void check_fp8(const char *spelling, int fraction, int bias, int largest)
{
    static struct layer layer;
    float row[HKV * T * D];
    for (int code = 0; code < largest; code++) {
        double low = fp8_number(code, fraction, bias), high = fp8_number(code + 1, fraction, bias);
        double middle = (low + high) / 2, quarter = (high - low) / 4;
        layer_init(&layer, RA_F32, RA_ROPE_NONE);
        memset(row, 0, sizeof row);
        row[0] = (float)fp8_number(largest, fraction, bias); /* scale 1 */
        row[1] = (float)low;
        row[2] = (float)-high;
        row[3] = (float)(middle - quarter);
        row[4] = (float)(middle + quarter);
        row[5] = (float)-middle;
        memcpy(layer.k, row, sizeof row);
        apply(&layer, spelling);
        memcpy(row, layer.k, sizeof row);
        assert_true(row[1] == (float)low && row[2] == (float)-high);
        assert_true(row[3] == (float)low && row[4] == (float)high);
        assert_true(row[5] == (float)-(code % 2 ? high : low));
    }
}

static void test_fp8(void **state)
{
    (void)state;
    assert_true(fp8_number(0x7e, 3, 7) == 448);
    assert_true(fp8_number(0x7b, 2, 15) == 57344);
    check_fp8("fp8", 3, 7, 0x7e); /* 0x7f is not a number */
    check_fp8("fp8:format=e5m2", 2, 15, 0x7b);
}

/* What is on even levels between a channel's ends survives; the first token does whatever it is;
 * what is out of range does, beside codes that do not. */
static void test_kvquant_exact(void **state)
{
    (void)state;
    static struct layer layer, before;
    float k[HKV * T * D], v[HKV * T * DV];
    layer_init(&layer, RA_F16, RA_ROPE_NONE);
    for (int h = 0; h < HKV; h++)
        for (int t = 0; t < T; t++) {
            for (int d = 0; d < D; d++)
                k[(h * T + t) * D + d] = (float)((d + 1) * (2 * ((t + d) % 4) - 3));
            for (int d = 0; d < DV; d++)
                v[(h * T + t) * DV + d] = (float)(d % 4) * 0.75F - 3;
        }
    for (int d = 0; d < D; d++)
        k[d] = 1000.5F + (float)d;
    ra_narrow(RA_F16, k, HKV * T * D, layer.k);
    ra_narrow(RA_F16, v, HKV * T * DV, layer.v);
    before = layer;
    apply(&layer, "kvquant:bits=2,outliers=0,nuq=0,values=token,scale=none");
    assert_memory_equal(layer.k, before.k, HKV * T * D * 2);
    assert_memory_equal(layer.v, before.v, HKV * T * DV * 2);

    layer = before;
    k[5 * D + 3] = -777; /* of the prompt, and of a decoded token */
    k[(T - 1) * D + 2] = 555.5F;
    k[(T - 2) * D + 2] = 0.3125F;
    ra_narrow(RA_F16, k, HKV * T * D, layer.k);
    apply(&layer, "kvquant:bits=2,outliers=0.02,nuq=0,values=channel");
    ra_widen(RA_F16, layer.k, HKV * T * D, k);
    assert_true(k[5 * D + 3] == -777);
    assert_true(k[(T - 1) * D + 2] == 555.5F);
    assert_true(k[(T - 2) * D + 2] != 0.3125F);
    assert_true(k[0] == 1000.5F);
}

/* Sum of squares of what keys lost in products with `query`, where its head would see them. */
static double lost(const struct layer *before, const struct layer *after, const float *query)
{
    float k[2][HKV * T * D];
    double sum = 0;
    ra_widen(RA_F16, before->k, HKV * T * D, k[0]);
    ra_widen(RA_F16, after->k, HKV * T * D, k[1]);
    for (int r = 0; r < HKV * T; r++) {
        double product = 0;
        for (int d = 0; d < D; d++)
            product += (double)query[d] * ((double)k[1][r * D + d] - (double)k[0][r * D + d]);
        sum += product * product;
    }
    return sum;
}

/* One query that comes again and again, unrotated: errors cancel along it. Without queries, or
 * without a sweep, codes are the nearest. */
static void test_kvquant_queries(void **state)
{
    (void)state;
    static struct layer before, layer, nearest;
    static float q[HKV * G * W * D];
    uint64_t seed = 3;
    layer_init(&before, RA_F16, RA_ROPE_NONE);
    fill(RA_F16, &seed, HKV * T, D, before.k);
    fill(RA_F16, &seed, HKV * T, DV, before.v);
    for (int i = 0; i < HKV * G * W * D; i++)
        q[i] = (float)(i % D % 5 - 2);
    nearest = layer = before;
    nearest.rows.k = nearest.k;
    nearest.rows.v = nearest.v;
    nearest.rows.model = &nearest.model;
    layer.rows = (struct ra_transform_rows){
        .model = &layer.model, .P = P, .n = T, .q = q, .W = W, .k = layer.k, .v = layer.v};
    apply(&nearest, "kvquant");
    apply(&layer, "kvquant");
    assert_true(lost(&before, &nearest, q) > 10 * lost(&before, &layer, q));
    assert_true(lost(&before, &layer, q) > 0);
    assert_int_equal(layer.bits.k, nearest.bits.k);
    assert_memory_equal(layer.v, nearest.v, sizeof layer.v);
    memcpy(layer.k, before.k, sizeof layer.k);
    memcpy(layer.v, before.v, sizeof layer.v);
    apply(&layer, "kvquant:sweeps=0");
    assert_memory_equal(layer.k, nearest.k, sizeof layer.k);
}

/* By hand, of Hkv = 2, D = 16, Dv = 8, 33 rows, f16: codes of 32 tokens, the first token, ranges,
 * levels, outliers with their indices, pointers. */
static void test_bits(void **state)
{
    (void)state;
    static struct layer layer;
    layer_init(&layer, RA_F16, RA_ROPE_NONE); /* all zero: nothing is out of range */
    apply(&layer, "kvquant:bits=3,values=token,levels=layer,scale=none");
    assert_int_equal(layer.bits.k, 32 * 32 * 3 + 32 * 16 + 32 * 2 * 16 + 8 * 16 + 33 * 32);
    assert_int_equal(layer.bits.v, 32 * 16 * 3 + 16 * 16 + 32 * 2 * 16 + 8 * 16 + 33 * 32);
    apply(
        &layer,
        "kvquant:bits=3,values=head"); /* a set of levels for each channel, a range for each head */
    assert_int_equal(layer.bits.k, 32 * 32 * 3 + 32 * 16 + 32 * 2 * 16 + 32 * 8 * 16 + 33 * 32);
    assert_int_equal(layer.bits.v, 32 * 16 * 3 + 16 * 16 + 32 * 2 * 2 * 16 + 16 * 8 * 16 + 16 * 16 +
                                       33 * 32); /* and a scale */
    apply(&layer, "kvquant:bits=4,outliers=0,nuq=0");
    assert_int_equal(layer.bits.k, 32 * 32 * 4 + 32 * 16 + 32 * 2 * 16);
    memset(layer.k, 0, sizeof layer.k);
    ra_narrow(RA_F16, &(float){9}, 1, layer.k + (size_t)(T * D + 30 * D + 1) * 2);
    apply(&layer, "kvquant:bits=4,nuq=0");
    assert_int_equal(layer.bits.k,
                     32 * 32 * 4 + 32 * 16 + 32 * 2 * 16 + 33 * 32 + (16 + 16)); /* one outlier */
    apply(&layer, "int8");
    assert_int_equal(layer.bits.k, 66 * (16 * 8 + 2 * 16));
    assert_int_equal(layer.bits.v, 66 * (8 * 8 + 2 * 16));
    apply(&layer, "int4");
    assert_int_equal(layer.bits.k, 66 * (16 * 4 + 2 * 16));
    apply(&layer, "int4+fp8");
    assert_int_equal(layer.bits.k, 66 * (16 * 8 + 16));
}

/* Four heaps of points are their own levels; weights move a level between two. */
static void test_levels(void **state)
{
    (void)state;
    static struct ra_level_histogram histogram;
    double levels[4], borders[3];
    ra_levels_find(&histogram, 4, levels);
    assert_true(levels[0] == -1 && levels[3] == 1 && fabs(levels[1] + 1.0 / 3) < 1e-15);
    for (int more = 0; more <= 500; more += 500) { /* then 750 of weight at -0.1, 750 at -0.2 */
        for (int i = 0; i < 1000; i++) {
            ra_levels_add(&histogram, -0.9, 1);
            ra_levels_add(&histogram, i % 4 ? -0.2 : -0.1, 1);
            ra_levels_add(&histogram, 0.5, 1);
            ra_levels_add(&histogram, 1, 1);
        }
        ra_levels_add(&histogram, -0.1, more);
        ra_levels_find(&histogram, 4, levels);
        assert_true(fabs(levels[0] + 0.9) < 1e-12 && levels[3] == 1);
        assert_true(fabs(levels[1] + (more ? 0.15 : 0.175)) < 1e-12 && levels[2] == 0.5);
    }
    ra_levels_borders((double[]){-1, 0, 1, 2}, 4, borders);
    assert_int_equal(ra_levels_nearest(borders, 4, -0.5), 0); /* as near to both: the lower */
    assert_int_equal(ra_levels_nearest(borders, 4, -0.25), 1);
    assert_int_equal(ra_levels_nearest(borders, 4, 9), 3);
}

static void test_spelling(void **state)
{
    (void)state;
    static const struct {
        const char *given, *canonical, *message;
    } rows[] = {
        {"kvquant",
         "kvquant:bits=2,outliers=0.01,keys=channel,values=token,nuq=1,levels=channel,weights=root,"
         "scale=channel,sweeps=3,ahead=256,damp=0.5",
         NULL},
        {"kvquant:nuq=0,bits=4+int8",
         "kvquant:bits=4,outliers=0.01,keys=channel,values=token,nuq=0,levels=channel,weights=root,"
         "scale=channel,sweeps=3,ahead=256,damp=0.5+int8",
         NULL},
        {"fp8", "fp8:format=e4m3", NULL},
        {"", NULL, "no transformation named ''"},
        {"int8+", NULL, "no transformation named ''"},
        {"kvqant", NULL, "nearest is 'kvquant'"},
        {"int8:bits=8", NULL, "int8: takes no parameters, got 'bits'"},
        {"int8:", NULL, "int8: expected key=value, got ''"},
        {"kvquant:bit=2", NULL, "kvquant: no parameter named 'bit'; nearest is 'bits'"},
        {"kvquant:bits=5", NULL, "kvquant: bits: expected a whole number from 2 to 4, got '5'"},
        {"kvquant:bits=2,bits=3", NULL, "bits: expected once"},
        {"kvquant:bits@0-3=2", NULL, "kvquant: is the same in all layers, got 'bits@0-3'"},
        {"kvquant:outliers=0.6", NULL, "outliers: expected"},
        {"int8+int8+int8+int8+int4", NULL, "expected at most 4 transformations"},
    };
    struct ra_transform_chain *chain;
    struct ra_error err;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ra_span text = ra_span_of(rows[i].given);
        if (rows[i].message) {
            ra_assert_fails(ra_transform_parse(&chain, text, &err), RA_EUSAGE, rows[i].message);
            assert_null(chain);
            continue;
        }
        ra_assert_ok(ra_transform_parse(&chain, text, &err));
        assert_string_equal(ra_transform_canonical(chain), rows[i].canonical);
        ra_transform_close(chain);
    }
    struct ra_model model = {.rope = {.type = RA_ROPE_UNKNOWN}};
    ra_assert_ok(ra_transform_parse(&chain, ra_span_of("int8+kvquant"), &err));
    ra_assert_fails(ra_transform_fits(chain, &model, &err), RA_EUSAGE, "kvquant: expected a trace");
    ra_transform_close(chain);
}

/* What listings and tables count on. */
static void test_registry(void **state)
{
    (void)state;
    for (size_t i = 0; ra_transforms[i]; i++) {
        const struct ra_transform_ops *ops = ra_transforms[i];
        assert_true(strlen(ops->summary) <= 72 && *ops->source && ops->apply);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(ops->name, ra_transforms[j]->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numpy),
        cmocka_unit_test(test_integers_on_the_grid),
        cmocka_unit_test(test_integers_half_a_step),
        cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_kvquant_exact),
        cmocka_unit_test(test_kvquant_queries),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_spelling),
        cmocka_unit_test(test_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
