/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of a layer at a step, against sums worked out by hand from what the kernels load and store;
 * tests/emu/waterfall.bats holds the same formulas to what they do.
 */
#include <string.h>

#include "sim/traffic.h"
#include "tests/support/ra_test.h"

/* Two KV heads of two query heads each, rows of 128 bytes, C_r of 16 entries and self. */
static const struct ra_traffic_run small = {.Hq = 4,
                                            .Hkv = 2,
                                            .D = 64,
                                            .element_bytes = 2,
                                            .n_sms = 8,
                                            .copies = 1,
                                            .max_rows = 102,
                                            .cap = 17,
                                            .pool = 7};

/* The policy full at its first step: 97 keys, 2 heads, 256 bytes of K and V; self appended. */
static const struct ra_traffic_step full = {
    .keys_read = 194, .kv_read_bytes = 194 * 256, .kv_write_bytes = 512, .L = 97, .is_full = true};

static void expect(const struct ra_traffic_run *run, const struct ra_traffic_step *step,
                   const double want[RA_TRAFFIC_PARTS])
{
    double got[RA_TRAFFIC_PARTS] = {0};
    assert_true(ra_traffic_can(run));
    ra_traffic_add(run, step, got);
    for (int i = 0; i < RA_TRAFFIC_PARTS; i++)
        if (got[i] != want[i])
            fail_msg("%s: expected %.0f, got %.0f", ra_traffic_name((enum ra_traffic_part)i),
                     want[i], got[i]);
}

static void a_full_step_reads_all_and_appends_self(void **state)
{
    (void)state;
    struct ra_traffic_run run = small;
    run.cap = 0;
    /* Self read and written; q and out of 4 heads of 64 floats; of each head a length for each of 4
     * warps, and one read and one written by append. */
    double want[RA_TRAFFIC_PARTS] = {[RA_TRAFFIC_KV] = 49664,
                                     [RA_TRAFFIC_ROWS] = 2 * 512,
                                     [RA_TRAFFIC_QUERIES] = 2 * 4 * 64 * 4,
                                     [RA_TRAFFIC_COUNTS] = 2 * (16 + 8)};
    expect(&run, &full, want);
    run.copies = 3;
    for (int i = 0; i < RA_TRAFFIC_PARTS; i++)
        want[i] *= 3;
    expect(&run, &full, want);
    run.between_bytes = 1e6; /* before a layer, however many copies */
    want[RA_TRAFFIC_BETWEEN] = 1e6;
    expect(&run, &full, want);
}

static void a_recycled_step_puts_self_into_the_cache(void **state)
{
    (void)state;
    struct ra_traffic_run run = small;
    struct ra_traffic_step step = {
        .keys_read = 34, .kv_read_bytes = 34 * 256, .kv_write_bytes = 1024, .L = 97};
    /* Twice self; a flag as often as a length; 36 bytes of places in lists for each head. */
    double want[RA_TRAFFIC_PARTS] = {[RA_TRAFFIC_KV] = 8704,
                                     [RA_TRAFFIC_ROWS] = 2 * 1024,
                                     [RA_TRAFFIC_QUERIES] = 2048,
                                     [RA_TRAFFIC_COUNTS] = 2 * (32 + 36 + 8)};
    expect(&run, &step, want);
    step.kv_write_bytes = 512; /* a schedule that needs no C_f: the backend has one all the same */
    expect(&run, &step, want);
    run.gathers = true; /* self is read, and stays where it is; a list says where keys are */
    step.selection_bytes = 4 * 32;
    want[RA_TRAFFIC_ROWS] = 3 * 512;
    want[RA_TRAFFIC_CHOICE] = 4 * 34;
    expect(&run, &step, want);
    step.has_window = true; /* then 34 are the newest, and there is no C_r */
    step.selection_bytes = 0;
    want[RA_TRAFFIC_ROWS] = 2 * 512;
    want[RA_TRAFFIC_CHOICE] = 0;
    want[RA_TRAFFIC_COUNTS] = 2 * (16 + 8);
    expect(&run, &step, want);
}

static void splits_write_and_read_what_they_have(void **state)
{
    (void)state;
    struct ra_traffic_run run = small;
    struct ra_traffic_step step = full;
    run.cap = 0;
    run.max_rows = 1008;
    step.L = 1000;
    step.keys_read = 2000;
    step.kv_read_bytes = 2000 * 256;
    /* 8 SMs for 2 rows: 4 splits of 256 keys. Each has, of 4 query heads, 64 sums, the largest
     * logit and the sum of weights; a ticket a row. Each reads q, one writes the output. */
    double want[RA_TRAFFIC_PARTS] = {[RA_TRAFFIC_KV] = 512000,
                                     [RA_TRAFFIC_ROWS] = 1024,
                                     [RA_TRAFFIC_PARTIAL] = 2 * 4 * 4 * 66 * 4 + 2 * 4,
                                     [RA_TRAFFIC_QUERIES] = (4 + 1) * 1024,
                                     [RA_TRAFFIC_COUNTS] = 2 * (4 * 16 + 8)};
    expect(&run, &step, want);
    run.n_sms = 1; /* no room for a second */
    want[RA_TRAFFIC_PARTIAL] = 0;
    want[RA_TRAFFIC_QUERIES] = 2048;
    want[RA_TRAFFIC_COUNTS] = 2 * (16 + 8);
    expect(&run, &step, want);
    run.Hq = 24; /* twelve query heads of a KV head: eight and four, which read it twice */
    want[RA_TRAFFIC_KV] = 2 * 512000;
    want[RA_TRAFFIC_QUERIES] = 2 * 24 * 256;
    want[RA_TRAFFIC_COUNTS] = 2 * (2 * 16 + 8);
    expect(&run, &step, want);
}

/* Given one by one, three that one launch serves are as three copies; the longest says how many
 * splits, the others leave some empty. */
static void members_of_one_launch(void **state)
{
    (void)state;
    struct ra_traffic_run run = small;
    struct ra_traffic_step step = {.keys_read = 2 * 1000,
                                   .kv_read_bytes = 2 * 1000 * 256,
                                   .kv_write_bytes = 512,
                                   .L = 1000,
                                   .is_full = true};
    double copies[RA_TRAFFIC_PARTS] = {0}, members[RA_TRAFFIC_PARTS] = {0},
           apart[RA_TRAFFIC_PARTS] = {0};
    run.cap = 0;
    run.n_sms = 24;
    run.copies = 3;
    ra_traffic_add(&run, &step, copies);
    run.copies = 1;
    step.together = 3;
    for (int i = 0; i < 3; i++)
        ra_traffic_add(&run, &step, members);
    step.together = 1;
    for (int i = 0; i < 3; i++)
        ra_traffic_add(&run, &step, apart);
    assert_memory_equal(members, copies, sizeof copies);
    assert_true(apart[RA_TRAFFIC_PARTIAL] > copies[RA_TRAFFIC_PARTIAL]);
    struct ra_traffic_step brief = {.keys_read = 2 * 100,
                                    .kv_read_bytes = 2 * 100 * 256,
                                    .kv_write_bytes = 512,
                                    .L = 100,
                                    .is_full = true,
                                    .together = 2};
    double alone[RA_TRAFFIC_PARTS] = {0}, beside[RA_TRAFFIC_PARTS] = {0};
    ra_traffic_add(&run, &brief, alone); /* 100 keys are one split */
    brief.longest = 1000;
    ra_traffic_add(&run, &brief, beside); /* six, of which two have keys: 64 each */
    assert_true(alone[RA_TRAFFIC_PARTIAL] == 0);
    assert_true(beside[RA_TRAFFIC_PARTIAL] == 4 * 2 * 66 * 4 * 2 + 2 * 4);
}

static void a_full_step_that_chooses(void **state)
{
    (void)state;
    struct ra_traffic_step step = full;
    step.rebuilds = true;
    step.refresh_entries = 20;
    step.refresh_bytes = 20 * 256;
    step.kv_read_bytes += step.refresh_bytes;
    step.kv_write_bytes += step.refresh_bytes;
    step.selection_bytes = 8 * 97 * (4 + 2) + 8 * 32; /* 32 entries of both heads */
    step.n_choices = 1;
    double want[RA_TRAFFIC_PARTS] = {
        [RA_TRAFFIC_KV] = 49664,
        [RA_TRAFFIC_ROWS] = 2 * (512 + 5120),
        [RA_TRAFFIC_LOGITS] = 2 * 4 * 97 * 4,
        /* Keys written and read, 2048 bins read and cleared, of each entry ten words in lists, and
         * of each that moves whence, whither, twice, and who is there. */
        [RA_TRAFFIC_CHOICE] = 2 * 4 * 97 * 2 + 2 * 2048 * 4 * 2 + 32 * 40 + 20 * 20,
        [RA_TRAFFIC_QUERIES] = 2048 + 2 * 4 * 4,
        /* Attention and append; 4 times 16 warps, a ticket, how many, and one that sorts; plan: two
         * lengths for 16 warps, four counts; two CTAs that move. */
        [RA_TRAFFIC_COUNTS] = 2 * (16 + 8) + 2 * 4 * (64 + 3) + 2 * 4 * (32 + 4) + 2 * 2 * 16};
    assert_true(ra_traffic_chooses(&small, &step));
    expect(&small, &step, want);
    struct ra_traffic_run run = small;
    run.scores_apart = true; /* q and a length once more; K is among what the replay counted */
    want[RA_TRAFFIC_QUERIES] += 1024;
    want[RA_TRAFFIC_COUNTS] += 2 * 16;
    expect(&run, &step, want);
    run.compares = true; /* q and the reference, and the reference that is written */
    want[RA_TRAFFIC_QUERIES] += 1024 + 2 * 512;
    expect(&run, &step, want);
    step.compared = true;
    want[RA_TRAFFIC_QUERIES] += 1024 + 512;
    expect(&run, &step, want);
    assert_false(ra_traffic_chooses(&small, &full));
}

static void what_no_kernel_has_is_refused(void **state)
{
    (void)state;
    struct ra_traffic_run runs[] = {small, small, small, small, small, small, small};
    runs[0].D = 32;
    runs[1].Hkv = 3;
    runs[2].Hkv = 0;
    runs[3].copies = 0;
    runs[4].n_sms = 0;
    runs[5].D = -1;
    runs[6].element_bytes = 16;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        assert_false(ra_traffic_can(&runs[i]));
    /* What a store says may be as large as is let through: sums stay sums. */
    struct ra_traffic_run huge = small;
    huge.Hq = huge.Hkv = huge.copies = huge.n_sms = huge.pool = 1 << 16;
    huge.max_rows = huge.cap = 1 << 28;
    huge.gathers = huge.paged = huge.scores_apart = huge.compares = true;
    struct ra_traffic_step step = {.keys_read = 1e14,
                                   .selection_bytes = 9e14,
                                   .refresh_entries = 9e14,
                                   .L = 1 << 28,
                                   .n_choices = 1 << 28,
                                   .rebuilds = true};
    double parts[RA_TRAFFIC_PARTS] = {0};
    assert_true(ra_traffic_can(&huge));
    ra_traffic_add(&huge, &step, parts);
    huge.Hkv = 1;
    ra_traffic_add(&huge, &step, parts);
    for (int i = 0; i < RA_TRAFFIC_BETWEEN; i++)
        assert_true(parts[i] >= 0 && parts[i] < 1e30);
    huge.copies++;
    assert_false(ra_traffic_can(&huge));
    for (int i = 0; i < RA_TRAFFIC_PARTS; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(ra_traffic_name((enum ra_traffic_part)i),
                                    ra_traffic_name((enum ra_traffic_part)j));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_step_reads_all_and_appends_self),
        cmocka_unit_test(a_recycled_step_puts_self_into_the_cache),
        cmocka_unit_test(splits_write_and_read_what_they_have),
        cmocka_unit_test(members_of_one_launch),
        cmocka_unit_test(a_full_step_that_chooses),
        cmocka_unit_test(what_no_kernel_has_is_refused),
    };
    return cmocka_run_group_tests_name("traffic", tests, NULL, NULL);
}
