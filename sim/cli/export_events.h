/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queries behind exported events. Each row is an event: the columns of enum ra_event_cell, then
 * its arguments, under their own names; '$' before a name says that the value is text.
 */
#ifndef RA_SIM_CLI_EXPORT_EVENTS_H
#define RA_SIM_CLI_EXPORT_EVENTS_H

enum ra_event_cell {
    RA_EVENT_PHASE, /* of the trace event format: X span, C counter, M name of a track */
    RA_EVENT_PROCESS,
    RA_EVENT_TRACK,
    RA_EVENT_NAME,
    RA_EVENT_CATEGORY, /* may be NULL, like all below */
    RA_EVENT_START,    /* ns since the pass began */
    RA_EVENT_STOP,
    RA_EVENT_CALL_START, /* of the call that launched it */
    RA_EVENT_CALL_TRACK,
    RA_EVENT_CELLS
};

/* Processes, and tracks of the host. Calls have their thread's number above RA_TRACK_CALLS; a
 * stream has RA_STREAM_TRACKS tracks, the last for copies. A device is RA_PROCESS_DEVICE + n. */
enum { RA_PROCESS_HOST = 1, RA_PROCESS_DEVICE = 100, RA_TRACK_CALLS = 10, RA_STREAM_TRACKS = 16 };

/* Of the host: names of tracks, spans, counters. */
extern const char *const ra_event_host_sql[];
/* Of the device, in order of start; their track is the stream's number. */
extern const char ra_event_kernels_sql[], ra_event_copies_sql[];

#endif
