/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever people spell: policies, options of every command, lists of layers and heads, generated
 * traces, the words of `explain`. The first byte of an input chooses. Rules: the canonical spelling
 * reads back to itself, numbers that are taken are those that were written, and a refusal says why.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "sim/cli/commands.h"
#include "sim/policy.h"
#include "sim/report.h"
#include "traces/trace.h"

enum { MAX_TEXT = 4096, MAX_WORDS = 24 };

static void check_shortened(const char *canonical)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_policy_spec *spec;
    char brief[MAX_TEXT], small[16];
    ra_report_short_policy(canonical, brief, sizeof brief);
    enum ra_status status = ra_policy_parse(&spec, brief, &err);
    FUZZ_CHECK(status == RA_OK, "%s: %s", brief, err.msg);
    FUZZ_CHECK(strcmp(ra_policy_spec_canonical(spec), canonical) == 0, "%s: %s", brief,
               ra_policy_spec_canonical(spec));
    ra_policy_spec_close(spec);
    ra_report_short_policy(canonical, small, sizeof small);
    FUZZ_CHECK(strncmp(small, brief, sizeof small - 1) == 0, "%s: %s", brief, small);
}

static void try_policy(const char *text)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_policy_spec *spec, *again;
    enum ra_status status = ra_policy_parse(&spec, text, &err);
    fuzz_check_error(status, &err);
    if (status != RA_OK) {
        FUZZ_CHECK(!spec, "%s", text);
        return;
    }
    const char *canonical = ra_policy_spec_canonical(spec);
    status = ra_policy_parse(&again, canonical, &err);
    FUZZ_CHECK(status == RA_OK, "%s: %s", canonical, err.msg);
    FUZZ_CHECK(strcmp(ra_policy_spec_canonical(again), canonical) == 0, "%s: %s", canonical,
               ra_policy_spec_canonical(again));
    FUZZ_CHECK(ra_policy_spec_needs(again) == ra_policy_spec_needs(spec) &&
                   ra_policy_spec_caches(again) == ra_policy_spec_caches(spec),
               "%s", canonical);
    for (int32_t P = 1; P < INT32_MAX / 8; P = P * 7 + 1) {
        int32_t k = ra_policy_spec_k(spec, P), most = ra_policy_spec_k_max(spec, P);
        FUZZ_CHECK(k == ra_policy_spec_k(again, P) && most == ra_policy_spec_k_max(again, P), "%s",
                   canonical);
        FUZZ_CHECK((k == -1 && most == -1) || (k >= 1 && most >= k), "%s: %d, %d", canonical, k,
                   most);
    }
    check_shortened(canonical);
    ra_policy_spec_close(again);
    ra_policy_spec_close(spec);
}

static const struct ra_command *const commands[] = {
    &ra_cmd_explain, &ra_cmd_info, &ra_cmd_replay, &ra_cmd_compare,
    &ra_cmd_report,  &ra_cmd_plot, &ra_cmd_list,   &ra_cmd_doctor,
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

/* Fields of the struct that a table fills, once a line was taken. */
static void check_values(const struct ra_command *command, const unsigned char *values)
{
    const struct ra_option *option = command->options;
    for (; option && option->name; option++) {
        struct ra_option_range range;
        int64_t number;
        if (option->absent)
            continue;
        if (option->kind == RA_OPTION_INT) {
            memcpy(&number, values + option->offset, sizeof number);
            bool unset = number == 0 && !option->fallback; /* or it was given, and may be 0 */
            FUZZ_CHECK(unset || ((double)number >= option->min && (double)number <= option->max),
                       "%s: %lld", option->name, (long long)number);
        } else if (option->kind == RA_OPTION_RANGE) {
            memcpy(&range, values + option->offset, sizeof range);
            FUZZ_CHECK(
                !range.is_set || (range.first <= range.last && (double)range.first >= option->min &&
                                  (double)range.last <= option->max),
                "%s: %lld..%lld", option->name, (long long)range.first, (long long)range.last);
        }
    }
}

/* Words divided by line ends, parsed by the table of a command, which does not run. */
static void try_options(struct fuzz_input *input)
{
    const struct ra_command *command = commands[fuzz_take_byte(input) % N_COMMANDS];
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_cli cli = {.argc = 0};
    enum ra_options_want want = RA_WANT_RUN;
    char text[MAX_TEXT], *argv[MAX_WORDS] = {(char *)(uintptr_t)command->name}, *rest = text;
    int argc = 1;
    void *values = calloc(1, command->values_size + 1);
    FUZZ_CHECK(values, "%zu", command->values_size);
    fuzz_take_text(input, text, sizeof text);
    for (char *word; argc < MAX_WORDS && (word = strsep(&rest, "\n"));)
        argv[argc++] = word;
    enum ra_status status = ra_options_parse(command, argc, argv, values, &cli, &want, &err);
    fuzz_check_error(status, &err);
    if (status == RA_OK && want == RA_WANT_RUN)
        check_values(command, values);
    free(values);
}

/* A replay that only says what it would do, with one option as given. */
static void try_replay(struct fuzz_input *input)
{
    static const struct {
        const char *option, *alphabet; /* of what may be taken; NULL: anything */
    } rows[] = {{"--layers", "0123456789,-"}, {"--keep-sets", "0123456789./"},
                {"--steps", "-0123456789."},  {"--repeat", "-0123456789"},
                {"--threads", "-0123456789"}, {"--scores", "fusedrecompute"},
                {"--cache", "compactgather"}, {"--backend", NULL},
                {"--profile", "off"},         {"--policy", NULL}};
    struct ra_error err;
    char text[MAX_TEXT];
    size_t row = fuzz_take_byte(input) % (sizeof rows / sizeof *rows);
    const char *out, *option = rows[row].option, *alphabet = rows[row].alphabet;
    const char *words[] = {"replay",    "synth:case=flat,P=8,N=4,layers=3,D=8",
                           "--dry-run", "--format=json",
                           "--policy",  "recycled:k=4,stride=2",
                           "-q",        option,
                           text};
    fuzz_take_text(input, text, sizeof text);
    enum ra_status status = fuzz_run(&ra_cmd_replay, 9, words, &out, &err);
    FUZZ_CHECK(status == RA_OK || status == RA_EUSAGE || status == RA_ENODEV, "%s: %s", text,
               err.msg);
    FUZZ_CHECK(status != RA_OK || strstr(out, "recycled:k=4"), "%s: %s", text, out);
    FUZZ_CHECK(status != RA_OK || !alphabet || (*text && strspn(text, alphabet) == strlen(text)),
               "%s %s was taken", option, text);
}

/* Opening a generated trace computes nothing yet, unless it is fitted to a recording. */
static void try_synth(const char *spelling)
{
    struct ra_error err = FUZZ_NO_ERROR;
    struct ra_trace *trace, *again;
    char text[MAX_TEXT];
    snprintf(text, sizeof text, "synth:%s", spelling);
    enum ra_status status = ra_trace_open(&trace, text, &err);
    fuzz_check_error(status, &err);
    if (status != RA_OK)
        return;
    const struct ra_trace_info *info = ra_trace_info(trace);
    FUZZ_CHECK(info->n_seq == 1 && info->n_layers > 0 && info->seqs[0].P > 0 &&
                   info->seqs[0].N > 0 && info->seqs[0].W > 0 && info->seqs[0].W <= info->seqs[0].P,
               "%s", text);
    const char *canonical = ra_trace_metadata(trace, "synth.spelling");
    if (canonical) {
        status = ra_trace_open(&again, canonical, &err);
        FUZZ_CHECK(status == RA_OK, "%s: %s", canonical, err.msg);
        const char *twice = ra_trace_metadata(again, "synth.spelling");
        FUZZ_CHECK(twice && strcmp(twice, canonical) == 0, "%s: %s", canonical, twice);
        ra_trace_close(again);
    }
    ra_trace_close(trace);
}

static void try_explain(struct fuzz_input *input)
{
    static const char *const formats[] = {"--format=text", "--format=json"};
    struct ra_error err;
    char policy[1200], text[MAX_TEXT], steps[64];
    uint8_t how = fuzz_take_byte(input);
    const char *out;
    fuzz_take_text(input, policy, sizeof policy);
    fuzz_take_text(input, steps, sizeof steps);
    fuzz_take_text(input, text, sizeof text);
    const char *words[] = {"explain", formats[how & 1], "-p", policy, "-v", "--steps",
                           steps,     "--text",         text};
    int n = how & 2 ? 9 : how & 4 ? 7 : 4;
    (void)fuzz_run(&ra_cmd_explain, n, words, &out, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    char text[MAX_TEXT];
    switch (fuzz_take_byte(&input)) {
    case 'o':
        try_options(&input);
        break;
    case 'r':
        try_replay(&input);
        break;
    case 's':
        try_synth(fuzz_take_text(&input, text, sizeof text));
        break;
    case 'e':
        try_explain(&input);
        break;
    default:
        try_policy(fuzz_take_text(&input, text, sizeof text));
    }
    return 0;
}
