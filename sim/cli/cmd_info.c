/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info: what a trace is; with --verify, whether it is what it says; with --fit, how well a
 * synthetic trace has the statistics of the recording it was fitted to.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "sim/cli/commands.h"
#include "sim/cli/info.h"
#include "sim/cli/interrupt.h"
#include "sim/cli/output.h"
#include "sim/cli/progress.h"
#include "traces/check.h"
#include "traces/synth_fit.h"

struct values {
    const char *trace;
    bool verify, fit;
};

static const struct ra_operand operands[] = {
    {"TRACE", 1, 1, offsetof(struct values, trace),
     .help =
         "a recorded trace (a file, or a folder of shards), or a generated one: synth:case=needle, "
         "synth:like=FILE"},
    {.name = NULL},
};

static const struct ra_option options[] = {
    {.name = "verify",
     .kind = RA_OPTION_FLAG,
     .offset = offsetof(struct values, verify),
     .help = "read everything: checksum, finite values, attention recomputed at the check steps"},
    {.name = "fit",
     .kind = RA_OPTION_FLAG,
     .offset = offsetof(struct values, fit),
     .help = "statistics of the synthetic trace beside those of the recording it imitates"},
    {.name = NULL},
};

/* --- verify ------------------------------------------------------------------------------------
 */

static bool on_check(void *context, double share)
{
    ra_progress_show(context, "verifying", (uint64_t)(share * 1000), 1000);
    return !ra_interrupt_requested();
}

static json_t *place_json(const struct ra_trace_check_place *place)
{
    if (place->layer_id < 0)
        return json_null();
    return json_pack("{s:f, s:i, s:i, s:i, s:i}", "worst", place->error, "sequence", place->seq,
                     "layer", place->layer_id, "head", place->head, "step", (int)place->step);
}

static json_t *verify_json(const struct ra_trace_check_result *result, enum ra_status status,
                           const struct ra_error *why)
{
    json_t *object = json_object();
    json_object_set_new(object, "ok", json_boolean(status == RA_OK));
    json_object_set_new(object, "checksum",
                        result->has_digest ? json_boolean(result->digest_matches) : json_null());
    json_object_set_new(object, "finite_values", json_integer((json_int_t)result->n_values));
    json_object_set_new(object, "check_rows", json_integer((json_int_t)result->n_rows));
    json_object_set_new(object, "output", place_json(&result->o));
    json_object_set_new(object, "lse", place_json(&result->lse));
    json_object_set_new(object, "acc", place_json(&result->acc));
    json_object_set_new(object, "message", ra_json_text(status == RA_OK ? NULL : why->msg));
    return object;
}

static void put_place(const char *what, const struct ra_trace_check_place *place)
{
    if (place->layer_id < 0)
        return;
    printf("  %-8s worst %.3g, at layer %d, head %d", what, place->error, place->layer_id,
           place->head);
    if (place->step >= 0)
        printf(", step %" PRId32, place->step);
    putchar('\n');
}

static void verify_text(const struct ra_trace_check_result *result, double tolerance)
{
    printf("\nchecksum     %s\n", !result->has_digest      ? "none stated"
                                  : result->digest_matches ? "matches"
                                                           : "DIFFERS");
    printf("values       %" PRIu64 " are finite\n", result->n_values);
    printf("check rows   %" PRIu64 " compared, tolerance %.0e\n", result->n_rows, tolerance);
    put_place("output", &result->o);
    put_place("lse", &result->lse);
    put_place("acc", &result->acc);
}

/* --- fit ---------------------------------------------------------------------------------------
 */

static void on_fit(void *context, int done, int n)
{
    ra_progress_show(context, "measuring", (uint64_t)done, (uint64_t)n);
}

static json_t *fit_json(const struct ra_fit_report *report)
{
    json_t *object = json_object(), *layers = json_array();
    for (int i = 0; i < report->n_rows; i++) {
        const struct ra_fit_row *row = &report->rows[i];
        json_t *figures = json_object();
        for (int stat = 0; stat < RA_FIT_N; stat++) {
            double target = row->target.value[stat], obtained = row->obtained.value[stat];
            json_t *figure = json_object();
            json_object_set_new(figure, "target", ra_json_real(target));
            json_object_set_new(figure, "obtained", ra_json_real(obtained));
            json_object_set_new(figure, "tolerance", json_real(ra_fit_definitions[stat].tolerance));
            json_object_set_new(figure, "relative",
                                json_boolean(ra_fit_definitions[stat].is_relative));
            json_object_set_new(figure, "promised",
                                json_boolean(ra_fit_definitions[stat].is_promised));
            json_object_set_new(
                figure, "miss",
                ra_json_real(ra_fit_miss((enum ra_fit_stat)stat, target, obtained)));
            json_object_set_new(figures, ra_fit_definitions[stat].name, figure);
        }
        json_array_append_new(layers, json_pack("{s:i, s:i, s:o, s:o}", "layer", row->layer_id,
                                                "source_layer", row->source_layer_id, "worst_miss",
                                                ra_json_real(row->worst), "figures", figures));
    }
    json_object_set_new(object, "trace", ra_json_text(report->name));
    const struct ra_model *model = &report->source_model;
    json_object_set_new(object, "source", ra_json_text(report->source));
    json_object_set_new(object, "source_heads",
                        json_pack("{s:i, s:i, s:i, s:i}", "Hq", model->Hq, "Hkv", model->Hkv, "D",
                                  model->D, "Dv", model->Dv));
    json_object_set_new(object, "layers", layers);
    return object;
}

static void fit_text(const struct ra_fit_report *report)
{
    fputs("\nfitted to    ", stdout);
    ra_put_safe(report->source);
    const struct ra_model *model = &report->source_model;
    printf("\nits heads    Hq = %d, Hkv = %d (G = %d), D = %d, Dv = %d", model->Hq, model->Hkv,
           model->G, model->D, model->Dv);
    printf("\n%5s %6s  %-18s %9s %9s  %s\n", "layer", "source", "figure", "target", "obtained",
           "within");
    for (int i = 0; i < report->n_rows; i++) {
        const struct ra_fit_row *row = &report->rows[i];
        for (int stat = 0; stat < RA_FIT_N; stat++) {
            const struct ra_fit_definition *definition = &ra_fit_definitions[stat];
            double target = row->target.value[stat], obtained = row->obtained.value[stat];
            double miss = ra_fit_miss((enum ra_fit_stat)stat, target, obtained);
            if (isnan(target) || isnan(obtained))
                continue;
            printf("%5d %6d  %-18s %9.4f %9.4f  %g%s%s\n", row->layer_id, row->source_layer_id,
                   definition->name, target, obtained,
                   definition->tolerance * (definition->is_relative ? 100 : 1),
                   definition->is_relative ? " %" : "",
                   miss <= 1                 ? ""
                   : definition->is_promised ? ": MISSED"
                                             : ": missed, not promised");
        }
    }
}

static double worst_miss(const struct ra_fit_report *report)
{
    double worst = 0;
    for (int i = 0; i < report->n_rows; i++)
        if (report->rows[i].worst > worst)
            worst = report->rows[i].worst;
    return worst;
}

/* --- the command -------------------------------------------------------------------------------
 */

/* Print or add the fit; RA_EDIVERGED when what is promised was missed. */
static enum ra_status show_fit(const struct ra_cli *cli, const char *name, json_t *object,
                               struct ra_error *err)
{
    struct ra_fit_report report;
    struct ra_progress progress;
    ra_progress_init(&progress, "layers", cli->is_quiet);
    enum ra_status status = ra_fit_report_open(&report, name, on_fit, &progress, err);
    ra_progress_fini(&progress);
    if (status != RA_OK)
        return status;
    if (cli->format == RA_FORMAT_TEXT)
        fit_text(&report);
    else
        json_object_set_new(object, "fit", fit_json(&report));
    double worst = worst_miss(&report);
    if (worst > 1)
        status =
            ra_fail(err, RA_EDIVERGED, "%s: a figure is %.2f times its tolerance off", name, worst);
    ra_fit_report_close(&report);
    return status;
}

/* Print or add the check. The verdict is shown even when it is bad. */
static enum ra_status show_check(const struct ra_cli *cli, const struct ra_trace *trace,
                                 json_t *object, struct ra_error *err)
{
    struct ra_trace_check_result result = {0};
    struct ra_progress progress;
    ra_progress_init(&progress, "thousandths", cli->is_quiet);
    enum ra_status status = ra_trace_check(trace, &result, on_check, &progress, err);
    ra_progress_fini(&progress);
    if (status == RA_EINTERRUPTED)
        return status;
    if (cli->format == RA_FORMAT_TEXT)
        verify_text(&result, ra_trace_info(trace)->check_tolerance);
    else
        json_object_set_new(object, "verify", verify_json(&result, status, err));
    return status;
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    const struct values *values = arguments;
    struct ra_trace *trace;
    RA_TRY(ra_trace_open(&trace, values->trace, err));
    ra_interrupt_install();
    json_t *object = NULL;
    enum ra_status status = RA_OK, fit = RA_OK;
    if (cli->format == RA_FORMAT_TEXT)
        ra_info_text(trace, cli->verbosity > 0);
    else if (!(object = ra_info_json(trace)))
        status = ra_fail(err, RA_ENOMEM, "no memory for a description");
    if (status == RA_OK && values->verify)
        status = show_check(cli, trace, object, err);
    if (values->fit && (status == RA_OK || status == RA_EDIVERGED))
        fit = show_fit(cli, values->trace, object, status == RA_OK ? err : NULL);
    if (object && status != RA_EINTERRUPTED) {
        enum ra_status put = ra_put_json(object, status == RA_OK && fit == RA_OK ? err : NULL);
        status = status == RA_OK && fit == RA_OK ? put : status;
    }
    json_decref(object);
    ra_trace_close(trace);
    return status != RA_OK ? status : fit;
}

const struct ra_command ra_cmd_info = {
    .name = "info",
    .summary = "what a trace holds, where it comes from, whether it is sound",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_JSON | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes = "Exit code 4: --verify found that the trace is not what it says, or --fit that a "
             "promised figure was missed.",
};
