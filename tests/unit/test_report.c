/* SPDX-License-Identifier: Apache-2.0 */
/* Rendering of result objects: figures land in their column, nothing unmeasured becomes a number,
 * times of two methods stay apart, and machine formats can be read back. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report.h"
#include "tests/support/ra_test.h"

static struct ra_error err;

/* A result with the figures a table shows; bytes of a step are in the ratio 1000 : kib. */
static json_t *result(const char *policy, const char *method, int bytes)
{
    return json_pack(
        "{s:s, s:i, s:s, s:s, s:s, s:i, s:[i,i], s:[], s:f, s:i, s:i, s:i,"
        " s:{s:f, s:f, s:f}, s:{s:f, s:f, s:f}, s:{s:{s:f}}, s:{s:f, s:s?}, s:f, s:i,"
        " s:s, s:i, s:i, s:i, s:s, s:n}",
        "trace", "run.safetensors", "sequence", 0, "policy", policy, "backend", "cpu", "device",
        "this processor", "steps", 192, "layers", 0, 9, "window_layers", "effective_stride", 16.0,
        "kv_read_bytes", bytes - 30, "kv_write_bytes", 20, "selection_bytes", 10, "mass_recovered",
        "mean", 0.91234, "p05", 0.61234, "min", 0.5, "output_rel_err", "mean", 0.1, "p95", 0.31234,
        "max", 0.4, "on_recycled", "mass_recovered", "mean", 0.81234, "attention_ns",
        "per_step_mean", 2.5e6, "method", method, "speedup_attention", 1.75, "repeats", 3, "model",
        "a-model", "n_layers", 30, "P", 1536, "N", 192, "schedule_of_trace", "full", "synthetic");
}

static char *render(const json_t *results, enum ra_report_format format)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ra_assert_ok(ra_report_write(out, results, format, &err));
    fclose(out);
    return text;
}

static int count(const char *text, const char *needle)
{
    int n = 0;
    for (; (text = strstr(text, needle)); text += strlen(needle))
        n++;
    return n;
}

static void a_row_has_its_figures_in_order(void **state)
{
    (void)state;
    json_t *results = json_pack("[o,o]", result("full", "cpu-wall", 1000),
                                result("streaming:k=256,sinks=4,stride=none", "cpu-wall", 225));
    char *text = render(results, RA_REPORT_TEXT);
    assert_non_null(strstr(text, "\nstreaming:k=256          0.9123 0.6123 0.8123 0.3123   22.5"
                                 "  2.500  1.75     16\n"));
    assert_non_null(strstr(text, "layers 2 of 30"));
    assert_non_null(strstr(text, "P = 1536"));
    assert_non_null(strstr(text, "recorded under full attention"));
    assert_non_null(strstr(text, "cpu-wall per step"));
    assert_non_null(strstr(text, "median of 3 repeats"));
    assert_non_null(strstr(text, "open loop: exact for this recording; later drift is not included"
                                 " (see eval)"));
    assert_null(strstr(text, "cache-resident"));
    free(text);
    json_decref(results);
}

static void headings_say_what_the_times_and_the_trace_are(void **state)
{
    (void)state;
    json_t *row = result("full", "cpu-wall", 1000);
    json_object_set_new(row, "cache_resident", json_true());
    json_object_set_new(row, "synthetic", json_string("synthetic (case=flat)"));
    json_object_set_new(row, "steps", json_integer(100));
    json_object_set_new(row, "sequence", json_integer(2));
    json_t *results = json_pack("[o]", row);
    char *text = render(results, RA_REPORT_TEXT);
    assert_non_null(strstr(text, "cache-resident"));
    assert_non_null(strstr(text, "synthetic (case=flat)"));
    assert_non_null(strstr(text, "100 of them counted"));
    assert_non_null(strstr(text, "sequence 2"));
    free(text);
    json_decref(results);
}

/* What was not measured is a dash; there is no ratio without a full row, and no method line. */
static void missing_figures_are_dashes(void **state)
{
    (void)state;
    json_t *row = result("oracle:k=8", NULL, 225);
    json_object_set_new(row, "attention_ns", json_null());
    json_object_set_new(row, "speedup_attention", json_null());
    json_object_set_new(row, "mass_recovered", json_pack("{s:n}", "mean"));
    json_object_del(row, "output_rel_err");
    json_object_set_new(row, "on_recycled", json_string("nonsense"));
    json_t *results = json_pack("[o]", row);
    char *text = render(results, RA_REPORT_TEXT);
    assert_non_null(
        strstr(text, "\noracle:k=8                    -      -      -      -      -      -     -"
                     "     16\n"));
    assert_null(strstr(text, "time: "));
    assert_null(strstr(text, "nan"));
    free(text);
    json_decref(results);
}

/* Times of a clock and of a model must not share a column, nor bytes a baseline. */
static void methods_never_share_a_table(void **state)
{
    (void)state;
    json_t *results =
        json_pack("[o,o,o]", result("full", "cpu-wall", 1000), result("full", "cuda-event", 2000),
                  result("oracle:k=8", "cuda-event", 500));
    char *text = render(results, RA_REPORT_TEXT);
    assert_int_equal(count(text, "mass   mass   mass"), 2);
    const char *second = strstr(strstr(text, "mass   mass   mass") + 1, "mass   mass   mass");
    assert_non_null(strstr(second, "0.3123   25.0"));
    assert_null(strstr(text, "50.0"));
    free(text);
    json_decref(results);
}

/* Times of as many layers as were recorded and of more are not of one thing. */
static void layers_laid_out_otherwise_never_share_a_table(void **state)
{
    (void)state;
    json_t *results = json_pack("[o,o,o]", result("full", "cpu-wall", 1000),
                                result("full", "cpu-wall", 1000), result("full", "cpu-wall", 1000));
    json_object_set_new(json_array_get(results, 1), "tile_layers", json_integer(16));
    json_object_set_new(json_array_get(results, 2), "tile_layers", json_integer(1));
    char *text = render(results, RA_REPORT_TEXT);
    assert_int_equal(count(text, "mass   mass   mass"), 2);
    assert_int_equal(count(text, "layers 2 of 30, laid out 16 times,"), 1);
    assert_int_equal(count(text, "attention of all 32 layers laid out"), 1);
    assert_int_equal(count(text, "attention of all replayed layers"), 1);
    free(text);
    json_decref(results);
}

static void copies_that_differ_otherwise_never_share_a_table(void **state)
{
    (void)state;
    json_t *results = json_array();
    for (int i = 0; i < 5; i++) { /* aligned, the same, spread, and two shares of raggedness */
        json_t *row = result("full", "cpu-wall", 1000);
        json_object_set_new(row, "batch", json_integer(8));
        if (i > 0)
            json_object_set_new(row, "phase", json_string(i == 2 ? "spread" : "aligned"));
        if (i > 0)
            json_object_set_new(row, "ragged", json_real(i < 3 ? 0 : i / 10.0));
        json_array_append_new(results, row);
    }
    char *text = render(results, RA_REPORT_TEXT);
    assert_int_equal(count(text, "mass   mass   mass"), 4);
    assert_int_equal(count(text, "8 copies of one trace"), 4);
    assert_int_equal(count(text, "full steps spread"), 1);
    assert_int_equal(count(text, "lengths down to"), 2);
    assert_int_equal(count(text, "lengths down to 70 %"), 1);
    assert_int_equal(count(text, "lengths down to 60 %"), 1);
    free(text);
    json_decref(results);
}

static void long_spellings_wrap_and_lines_fit(void **state)
{
    (void)state;
    json_t *results = json_pack(
        "[o]", result("recycled:k=256,stride=16,sim=0.85,pool=3,agg=mean,current=drop,evict=raw,"
                      "attend=after,query=post,scope=model-prev,share=2/14,stagger=1",
                      "cpu-wall", 10));
    json_object_set_new(json_array_get(results, 0), "by_type",
                        json_pack("{s:{s:f,s:f,s:f,s:f,s:f}}", "an_exceptionally_long_type",
                                  "visible_share", 0.5, "kept_share", 0.25, "mass", 0.75,
                                  "mass_recovered", 0.5, "output_rel_err_mean", 123.4));
    char *text = render(results, RA_REPORT_TEXT);
    assert_non_null(strstr(text, "by token type"));
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 80);
    assert_non_null(strstr(text, "\n  scope=model-prev,"));
    free(text);
    json_decref(results);
}

static void control_bytes_stay_out_of_text(void **state)
{
    (void)state;
    json_t *row = result("full", "cpu-wall", 1000);
    json_object_set_new(row, "trace", json_string("evil\x1b[2J.safetensors"));
    json_object_set_new(row, "policy", json_string("full\r"));
    json_t *results = json_pack("[o]", row);
    char *text = render(results, RA_REPORT_TEXT);
    assert_null(strpbrk(text, "\x1b\r"));
    assert_non_null(strstr(text, "evil?[2J.safetensors"));
    free(text);
    json_decref(results);
}

static void short_spelling_drops_defaults_only(void **state)
{
    static const char *const pairs[][2] = {
        {"full", "full"},
        {"recycled:k=1/8,stride=16,sim=none,pool=7,agg=max,current=pseudo,evict=pooled,"
         "attend=before,query=pre,scope=layer,share=none,stagger=0",
         "recycled:k=1/8,stride=16"},
        {"recycled:k=64,stride=4,sim=0.8,pool=1", "recycled:k=64,stride=4,sim=0.8,pool=1"},
        {"streaming:k=9,sinks=4,stride=8", "streaming:k=9,stride=8"},
        {"recycled:k=64,k@0-3=9,stride=4,pool@5=7", "recycled:k=64,k@0-3=9,stride=4,pool@5=7"},
        {"from-the-future:pool=7", "from-the-future:pool=7"},
        {"", ""},
    };
    char text[128];
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        ra_report_short_policy(pairs[i][0], text, sizeof text);
        assert_string_equal(text, pairs[i][1]);
    }
    ra_report_short_policy("recycled:k=64,stride=4", text, 8);
    assert_string_equal(text, "recycle");
}

static void csv_is_flat_quoted_and_stable(void **state)
{
    (void)state;
    json_t *results = json_loads(
        "[{\"p\":\"a,b\",\"m\":{\"x\":0.5,\"y\":null},\"l\":[1,2],\"e\":[],\"n\":null,\"t\":true},"
        " {\"p\":\"say \\\"hi\\\"\",\"n\":{\"z\":3},\"new\":7,"
        "  \"l\":[{\"a\":1}]}]",
        0, NULL);
    char *text = render(results, RA_REPORT_CSV);
    assert_string_equal(text, "p,m.x,m.y,l,e,t,n.z,new\n"
                              "\"a,b\",0.5,,1/2,,true,,\n"
                              "\"say \"\"hi\"\"\",,,\"[{\"\"a\"\":1}]\",,,3,7\n");
    free(text);
    json_decref(results);
    results = json_array();
    text = render(results, RA_REPORT_CSV);
    assert_string_equal(text, "");
    free(text);
    json_decref(results);
}

/* Values survive: 17 digits bring an f64 back. */
static void numbers_read_back_exactly(void **state)
{
    (void)state;
    json_t *results = json_pack("[{s:f}]", "x", 0.1 + 0.2);
    char *csv = render(results, RA_REPORT_CSV), *json = render(results, RA_REPORT_JSON);
    assert_true(strtod(strchr(csv, '\n') + 1, NULL) == 0.1 + 0.2);
    json_t *back = json_loads(json, 0, NULL);
    assert_true(json_real_value(json_object_get(back, "x")) == 0.1 + 0.2);
    json_decref(back);
    json_decref(results);
    free(csv);
    free(json);
}

static void json_is_an_object_alone_and_an_array_otherwise(void **state)
{
    (void)state;
    json_t *none = json_array(), *two = json_pack("[{s:i},{s:i}]", "a", 1, "a", 2);
    char *text = render(two, RA_REPORT_JSON);
    json_t *back = json_loads(text, 0, NULL);
    assert_true(json_equal(back, two));
    json_decref(back);
    free(text);
    json_array_remove(two, 1);
    text = render(two, RA_REPORT_JSON);
    assert_int_equal(text[0], '{');
    free(text);
    text = render(none, RA_REPORT_JSON);
    assert_string_equal(text, "[]\n");
    free(text);
    json_decref(two);
    json_decref(none);
}

static void what_is_no_result_is_refused(void **state)
{
    (void)state;
    json_t *object = json_object(), *mixed = json_pack("[{},i]", 3);
    ra_assert_fails(ra_report_write(stdout, object, RA_REPORT_TEXT, &err), RA_EFORMAT, "a list");
    ra_assert_fails(ra_report_write(stdout, NULL, RA_REPORT_JSON, &err), RA_EFORMAT, "a list");
    ra_assert_fails(ra_report_write(stdout, mixed, RA_REPORT_CSV, &err), RA_EFORMAT,
                    "element 1 is not an object");
    json_decref(object);
    json_decref(mixed);
    json_t *deep =
        json_loads("[{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}]", 0, NULL);
    ra_assert_fails(ra_report_write(stdout, deep, RA_REPORT_CSV, &err), RA_EFORMAT, "too deep");
    json_decref(deep);
}

static json_t *with_traffic(double unexplained)
{
    json_t *row = result("full", "cpu-wall", 1000);
    json_object_set_new(row, "traffic",
                        json_pack("{s:{s:f, s:i, s:i, s:f, s:i, s:f}, s:f, s:n}", "bytes_per_step",
                                  "kv", 1000 - 100 - unexplained + 50, "rows", 100, "partial", 0,
                                  "l2_hits", -50.0, "measured", 1000, "unexplained", unexplained,
                                  "unexplained_share", unexplained / 1000, "missing"));
    return row;
}

/* Bars from what is predicted to what was measured; what is left is the last, and above 5 % of it a
 * warning, whichever way. */
static void traffic_is_explained_down_to_its_rest(void **state)
{
    (void)state;
    json_t *results = json_pack("[o]", with_traffic(-60));
    char *text = render(results, RA_REPORT_TEXT);
    assert_non_null(strstr(text, "\ntraffic, bytes per step\nfull\n"
                                 "  K and V attended to                          1010   101.0 %\n"
                                 "  K and V appended and moved                    100    10.0 %\n"
                                 "  read, but L2 had it                           -50    -5.0 %\n"
                                 "  measured: DRAM read and written              1000   100.0 %\n"
                                 "  unexplained                                   -60    -6.0 %\n"
                                 "  warning: -6.0 % of what a step moved is not explained\n"));
    free(text);
    json_decref(results);
    for (int rest = 49; rest <= 51; rest++) {
        results = json_pack("[o]", with_traffic(rest));
        text = render(results, RA_REPORT_TEXT);
        assert_int_equal(count(text, "warning"), rest > 50);
        free(text);
        json_decref(results);
    }
}

/* Without a prediction there is no rest; without a measurement there is nothing. */
static void traffic_that_cannot_be_explained_says_why(void **state)
{
    (void)state;
    json_t *row = with_traffic(900), *traffic = json_object_get(row, "traffic");
    json_t *results = json_pack("[o]", row);
    json_object_set_new(traffic, "missing", json_string("of many"));
    json_object_set_new(traffic, "unexplained_share", json_null());
    char *text = render(results, RA_REPORT_TEXT);
    assert_non_null(strstr(text, "bytes per step\nfull\n  measured: DRAM read and written    "
                                 "          1000   100.0 %\n  not explained: of many\n"));
    assert_null(strstr(text, "warning"));
    free(text);
    json_object_set_new(traffic, "bytes_per_step", json_null());
    text = render(results, RA_REPORT_TEXT);
    assert_null(strstr(text, "traffic"));
    free(text);
    json_decref(results);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_has_its_figures_in_order),
        cmocka_unit_test(headings_say_what_the_times_and_the_trace_are),
        cmocka_unit_test(missing_figures_are_dashes),
        cmocka_unit_test(methods_never_share_a_table),
        cmocka_unit_test(layers_laid_out_otherwise_never_share_a_table),
        cmocka_unit_test(copies_that_differ_otherwise_never_share_a_table),
        cmocka_unit_test(long_spellings_wrap_and_lines_fit),
        cmocka_unit_test(control_bytes_stay_out_of_text),
        cmocka_unit_test(short_spelling_drops_defaults_only),
        cmocka_unit_test(csv_is_flat_quoted_and_stable),
        cmocka_unit_test(numbers_read_back_exactly),
        cmocka_unit_test(json_is_an_object_alone_and_an_array_otherwise),
        cmocka_unit_test(what_is_no_result_is_refused),
        cmocka_unit_test(traffic_is_explained_down_to_its_rest),
        cmocka_unit_test(traffic_that_cannot_be_explained_says_why),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
