/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of closed loops: the gate, intervals, what is missing, and text from foreign files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report_eval.h"
#include "tests/support/ra_test.h"

static json_t *parse(const char *text)
{
    json_t *value = json_loads(text, 0, NULL);
    assert_non_null(value);
    return value;
}

static char *text_of(const char *json)
{
    char *text = NULL;
    size_t n = 0;
    json_t *results = parse(json);
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    ra_report_eval(out, results);
    assert_int_equal(fclose(out), 0);
    json_decref(results);
    return text;
}

static void expect(const char *json, const char *const *has, const char *lacks)
{
    char *text = text_of(json);
    for (size_t i = 0; has[i]; i++)
        if (!strstr(text, has[i]))
            fail_msg("no '%s' in:\n%s", has[i], text);
    if (lacks && strstr(text, lacks))
        fail_msg("'%s' in:\n%s", lacks, text);
    free(text);
}

#define HAS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define ASKED(baseline)                                                                            \
    "[{\"task\":\"niah\",\"model\":\"m\",\"policy\":\"streaming:k=8,sinks=4,stride=none\","        \
    "\"texts\":5,"                                                                                 \
    "\"nll\":2.5,\"ppl\":12.18,\"delta_nll\":{\"mean\":0.25,\"low\":0.125,\"high\":0.5},"          \
    "\"accuracy\":0.4,"                                                                            \
    "\"baseline_accuracy\":" baseline                                                              \
    ",\"delta_accuracy\":{\"mean\":-0.4,\"low\":-0.6,\"high\":-0.2},\"keys_share\":0.125,"         \
    "\"documents\":[{\"prompt_len\":9,\"steps\":2},{\"prompt_len\":11,\"steps\":2}]}]"

/* At the threshold the gate is open; below, or with no baseline, no answer is shown. */
static void answers_count_from_the_gate_on(void **unused)
{
    (void)unused;
    expect(ASKED("0.8"),
           HAS("task niah: m, 5 prompts, P = 9 to 11, N = 2\n",
               "streaming:k=8             2.5000  +0.2500   12.18    40.0   -40.0   12.5      -\n",
               "                         +0.1250..+0.5000            -60.0..-20.0\n",
               "here it does (baseline 80.0 %)", "bootstrap over the 5 prompts"),
           "n/a");
    expect(ASKED("0.799"),
           HAS("   12.18     n/a     n/a   12.5      -\n", "right is n/a (baseline 79.9 %)"),
           "40.0");
    expect(ASKED("null"), HAS("     n/a     n/a ", "right is n/a (no baseline)"), "40.0");
}

static void texts_have_no_answers_and_one_text_no_interval(void **unused)
{
    (void)unused;
    expect("[{\"task\":\"ppl\",\"model\":\"m\",\"policy\":\"full\",\"texts\":1,\"nll\":2,\"delta_"
           "nll\":"
           "{\"mean\":0,\"low\":null,\"high\":null},\"kl\":{\"mean\":0.5},\"effective_stride\":1,"
           "\"by_since\":[{\"from\":0,\"to\":0,\"n\":4,\"delta_nll\":0}]},"
           "{\"task\":\"ppl\",\"model\":\"m\",\"policy\":\"tova:k=8\",\"texts\":1,\"nll\":null,"
           "\"by_since\":["
           "{\"from\":1,\"to\":1,\"n\":4,\"delta_nll\":-0.5},{\"from\":2,\"to\":3,\"n\":2,\"delta_"
           "nll\":0.25},"
           "{\"from\":1024,\"to\":null,\"n\":1,\"delta_nll\":1}]}]",
           HAS("full                      2.0000  +0.0000  0.5000       -      -      1\n",
               "tova:k=8                       -        -       -       -      -      -\n",
               "of one text there is no\ninterval\n",
               "tova:k=8\n  1: -0.5000 (4), 2-3: +0.2500 (2), from 1024: +1.0000 (1)\n"),
           "right");
}

/* Other tasks, lengths and decoders have tables of their own. */
static void tables_do_not_mix(void **unused)
{
    (void)unused;
    char *text = text_of(
        "[{\"task\":\"ppl\",\"spelling\":\"a\",\"policy\":\"full\"},{\"task\":\"ppl\","
        "\"spelling\":\"b\",\"policy\":\"full\"},{\"task\":\"ppl\",\"spelling\":\"a\","
        "\"policy\":\"tova:k=8\"},{\"task\":\"ppl\",\"spelling\":\"a\",\"tool\":\"t\\u001b\","
        "\"tool_version\":\"1\",\"policy\":\"full\"}]");
    int n = 0;
    for (const char *at = strstr(text, "task "); at; at = strstr(at + 1, "\ntask "))
        n++;
    assert_int_equal(n, 3);
    assert_non_null(strstr(text, "decoded by t? 1 and imported"));
    assert_null(strchr(text, 27));
    free(text);
}

/* Of any type whatever: what makes no sense is a dash. */
static void foreign_values_are_dashes(void **unused)
{
    (void)unused;
    expect("[{\"task\":7,\"policy\":[],\"texts\":\"x\",\"nll\":{},\"delta_nll\":4,\"by_since\":{"
           "\"from\":1},"
           "\"documents\":[1,{\"prompt_len\":\"y\"}]},{\"policy\":\"full\",\"task\":7,\"kl\":[],"
           "\"by_since\":[3]}]",
           HAS("full                           -        -       -       -      -      -\n"),
           "(null)");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_count_from_the_gate_on),
        cmocka_unit_test(texts_have_no_answers_and_one_text_no_interval),
        cmocka_unit_test(tables_do_not_mix),
        cmocka_unit_test(foreign_values_are_dashes),
    };
    return cmocka_run_group_tests_name("report_eval", tests, NULL, NULL);
}
