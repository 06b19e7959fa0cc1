/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of events as JSON, one at a time: memory does not grow with the pass. Kernels of a stream
 * may overlap (a launch may begin before the one ahead of it has ended), spans of a track may not:
 * what overlaps goes to another track of the stream.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/cli/export.h"
#include "sim/cli/export_events.h"
#include "sim/cli/output.h"

enum { N_LANES = RA_STREAM_TRACKS - 1, COPIES = RA_STREAM_TRACKS - 1, MAX_STREAMS = 4096 };

struct stream {
    int64_t process, id;
    int n_lanes;
    int64_t ends[N_LANES];
    bool has_copies;
};

struct writer {
    FILE *out;
    struct stream *streams;
    size_t n_streams, last; /* the one found last */
    bool has_events, are_copies;
    int64_t n_arrows;
};

static void put_text(struct writer *w, const char *text)
{
    json_t *value = ra_json_text(text);
    if (!value || json_dumpf(value, w->out, JSON_ENCODE_ANY | JSON_COMPACT) != 0)
        fputs("null", w->out); /* out of memory: the command fails for it in the end */
    json_decref(value);
}

/* ns as microseconds, without a double in between. */
static void put_time(struct writer *w, const char *name, int64_t ns)
{
    uint64_t size = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
    fprintf(w->out, ",\"%s\":%s%" PRIu64 ".%03d", name, ns < 0 ? "-" : "", size / 1000,
            (int)(size % 1000));
}

static int64_t number(const char *text)
{
    return text ? strtoll(text, NULL, 10) : 0;
}

/* A store may hold any numbers: what is too far apart wraps. */
static int64_t difference(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

static int64_t track_of(const struct stream *stream, int lane)
{
    return (int64_t)((uint64_t)stream->id * RA_STREAM_TRACKS + (uint64_t)lane);
}

static void put_number(struct writer *w, const char *text)
{
    char *end = NULL;
    double value = strtod(text, &end);
    bool is_number = (*text == '-' || (*text >= '0' && *text <= '9')) && *end == '\0';
    fputs(is_number && isfinite(value) ? text : "null", w->out);
}

static void put_arguments(struct writer *w, const struct ra_store_cells *row)
{
    bool has_any = false;
    fputs(",\"args\":{", w->out);
    for (int i = RA_EVENT_CELLS; i < row->n; i++) {
        bool is_text = row->names[i][0] == '$';
        if (!row->text[i])
            continue;
        fprintf(w->out, "%s\"%s\":", has_any ? "," : "", row->names[i] + is_text);
        if (is_text)
            put_text(w, row->text[i]);
        else
            put_number(w, row->text[i]);
        has_any = true;
    }
    fputc('}', w->out);
}

static void open_event(struct writer *w, const char *phase, int64_t process, int64_t track)
{
    fprintf(w->out, "%s{\"ph\":\"%s\",\"pid\":%" PRId64 ",\"tid\":%" PRId64,
            w->has_events ? ",\n" : "\n", phase, process, track);
    w->has_events = true;
}

static void put_arrow(struct writer *w, const struct ra_store_cells *row, int64_t track)
{
    const char *const *cell = row->text;
    if (!cell[RA_EVENT_CALL_START])
        return;
    w->n_arrows++;
    open_event(w, "s", RA_PROCESS_HOST, number(cell[RA_EVENT_CALL_TRACK]));
    fprintf(w->out, ",\"name\":\"launch\",\"cat\":\"launch\",\"id\":%" PRId64, w->n_arrows);
    put_time(w, "ts", number(cell[RA_EVENT_CALL_START]));
    fputc('}', w->out);
    open_event(w, "f", number(cell[RA_EVENT_PROCESS]), track);
    fprintf(w->out, ",\"name\":\"launch\",\"cat\":\"launch\",\"bp\":\"e\",\"id\":%" PRId64,
            w->n_arrows);
    put_time(w, "ts", number(cell[RA_EVENT_START]));
    fputc('}', w->out);
}

static void put_event(struct writer *w, const struct ra_store_cells *row, int64_t track)
{
    const char *const *cell = row->text;
    open_event(w, cell[RA_EVENT_PHASE], number(cell[RA_EVENT_PROCESS]), track);
    fputs(",\"name\":", w->out);
    put_text(w, cell[RA_EVENT_NAME]);
    if (cell[RA_EVENT_CATEGORY]) {
        fputs(",\"cat\":", w->out);
        put_text(w, cell[RA_EVENT_CATEGORY]);
    }
    if (cell[RA_EVENT_START])
        put_time(w, "ts", number(cell[RA_EVENT_START]));
    if (cell[RA_EVENT_STOP])
        put_time(w, "dur", difference(number(cell[RA_EVENT_STOP]), number(cell[RA_EVENT_START])));
    put_arguments(w, row);
    fputc('}', w->out);
    put_arrow(w, row, track);
}

static enum ra_status on_host_event(void *context, const struct ra_store_cells *row,
                                    struct ra_error *err)
{
    (void)err;
    put_event(context, row, number(row->text[RA_EVENT_TRACK]));
    return RA_OK;
}

/* NULL when memory ran out; a stream too many shares the last one's tracks. */
static struct stream *find_stream(struct writer *w, int64_t process, int64_t id)
{
    for (size_t i = 0; i < w->n_streams; i++) {
        size_t at = (w->last + i) % w->n_streams;
        if (w->streams[at].process == process && w->streams[at].id == id) {
            w->last = at;
            return &w->streams[at];
        }
    }
    if (w->n_streams == MAX_STREAMS)
        return &w->streams[w->n_streams - 1];
    struct stream *streams = realloc(w->streams, (w->n_streams + 1) * sizeof *streams);
    if (!streams)
        return NULL;
    w->streams = streams;
    w->last = w->n_streams++;
    streams[w->last] = (struct stream){.process = process, .id = id};
    return &streams[w->last];
}

/* The first track that is free at `start`, else the last. */
static int take_lane(struct stream *stream, int64_t start, int64_t stop)
{
    int lane = 0;
    while (lane < stream->n_lanes && lane < N_LANES - 1 && stream->ends[lane] > start)
        lane++;
    if (lane == stream->n_lanes)
        stream->n_lanes++;
    stream->ends[lane] = stop;
    return lane;
}

static enum ra_status on_device_event(void *context, const struct ra_store_cells *row,
                                      struct ra_error *err)
{
    struct writer *w = context;
    const char *const *cell = row->text;
    struct stream *stream =
        find_stream(w, number(cell[RA_EVENT_PROCESS]), number(cell[RA_EVENT_TRACK]));
    if (!stream)
        return ra_fail(err, RA_ENOMEM, "no memory for streams");
    int lane = COPIES;
    if (w->are_copies)
        stream->has_copies = true;
    else
        lane = take_lane(stream, number(cell[RA_EVENT_START]), number(cell[RA_EVENT_STOP]));
    put_event(w, row, track_of(stream, lane));
    return RA_OK;
}

static void name_track(struct writer *w, const struct stream *stream, int lane, const char *what)
{
    open_event(w, "M", stream->process, track_of(stream, lane));
    fprintf(w->out, ",\"name\":\"thread_name\",\"args\":{\"name\":\"stream %" PRId64 "%s\"}}",
            stream->id, what);
}

static void name_streams(struct writer *w)
{
    for (size_t i = 0; i < w->n_streams; i++) {
        const struct stream *stream = &w->streams[i];
        for (int lane = 0; lane < stream->n_lanes; lane++)
            name_track(w, stream, lane, lane ? ", overlapping" : "");
        if (stream->has_copies)
            name_track(w, stream, COPIES, ", copies");
    }
}

static void put_head(struct writer *w, const struct ra_export_pass *pass)
{
    fprintf(w->out, "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"run\":%" PRId64 ",\"uuid\":",
            pass->run_id);
    put_text(w, pass->uuid);
    fputs(",\"policy\":", w->out);
    put_text(w, pass->policy[0] ? pass->policy : NULL);
    fprintf(w->out, ",\"pass\":%" PRId64 ",\"mode\":", pass->ordinal);
    put_text(w, pass->mode);
    fputs(",\"state\":", w->out);
    put_text(w, pass->state);
    fprintf(w->out,
            ",\"kernels\":%" PRId64 ",\"kernels_without_time\":%" PRId64
            ",\"device_clock\":\"%s\"},\n\"traceEvents\":[",
            pass->n_kernels, pass->n_kernels - pass->n_timed,
            pass->has_device_clock ? "aligned to the host's when the pass began"
                                   : "not read; taken for the host's");
}

static enum ra_status put_events(struct writer *w, struct ra_store *store, const char *query,
                                 struct ra_error *err)
{
    for (int i = 0; ra_event_host_sql[i]; i++) {
        const char *sql = ra_event_host_sql[i];
        RA_TRY(ra_store_select(store, &sql, query, on_host_event, w, err));
    }
    const char *kernels = ra_event_kernels_sql, *copies = ra_event_copies_sql;
    RA_TRY(ra_store_select(store, &kernels, query, on_device_event, w, err));
    w->are_copies = true;
    RA_TRY(ra_store_select(store, &copies, query, on_device_event, w, err));
    name_streams(w);
    return RA_OK;
}

enum ra_status ra_export_perfetto(FILE *out, struct ra_store *store,
                                  const struct ra_export_pass *pass, struct ra_error *err)
{
    struct writer w = {.out = out};
    put_head(&w, pass);
    enum ra_status status = put_events(&w, store, pass->query, err);
    fputs("\n]}\n", out);
    free(w.streams);
    return status;
}
