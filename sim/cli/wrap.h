/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text within 80 columns, the width that all output has, on a terminal and elsewhere: lines break
 * at blanks, and go on below where they began.
 */
#ifndef RA_SIM_CLI_WRAP_H
#define RA_SIM_CLI_WRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A line being written: characters on it, and where the next one begins. */
struct ra_wrap {
    FILE *out;
    int column, indent;
    bool is_joined; /* the next piece follows without a blank */
};

/* Put a piece that stays whole; a blank before it unless the line is new. */
void ra_wrap_piece(struct ra_wrap *wrap, const char *piece, size_t n);

/* Put words. One that is longer than a line breaks after its commas, as spellings of policies can;
 * without commas it stays whole. Control bytes become '?'. */
void ra_wrap_words(struct ra_wrap *wrap, const char *text);

/* The same on stdout, with a newline at the end, right behind the `column` characters that are on
 * the line already. NULL prints as "-". */
void ra_put_wrapped(int column, int indent, const char *text);

/* A message on stderr behind the program's name: broken on a terminal, one line elsewhere, where
 * something may look for it. */
void ra_complain(const char *text);

#endif
