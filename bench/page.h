/* page.h - the demo's results as one HTML file that needs nothing else. */
#ifndef BENCH_PAGE_H
#define BENCH_PAGE_H

#include "bench/row.h"

/* Writes `path` from the template and the charting library in the folder `assets` (bench/ of the sources), and the
 * results alone as JSON to `json_path`. False, with a message on standard error, when a file cannot be read or
 * written. */
bool page_write(const char *path, const char *json_path, const char *assets, const struct row *rows, unsigned nrows);

#endif
