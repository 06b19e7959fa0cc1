/* SPDX-License-Identifier: Apache-2.0 */
/* The page's queries and looks, which travel inside the binary; the build makes report_text.h. */
#include "sim/report_html_part.h"

#include "report_text.h"

const char *const ra_html_page_css = page_css, *const ra_html_card_sql = card_sql,
                  *const ra_html_kernels_sql = kernels_sql, *const ra_html_passes_sql = passes_sql,
                  *const ra_html_refresh_sql = refresh_sql,
                  *const ra_html_traffic_sql = traffic_sql,
                  *const ra_html_verdict_sql = verdict_sql,
                  *const ra_html_warnings_sql = warnings_sql, *const ra_html_worst_sql = worst_sql;
