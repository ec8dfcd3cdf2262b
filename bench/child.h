/* child.h - runs one row in a process of its own. */
#ifndef BENCH_CHILD_H
#define BENCH_CHILD_H

#include "bench/row.h"

/* Told about ten times a second: the operations done so far, and how long the row has run. */
typedef void (*child_progress_fn)(void *user, const struct row *row, uint64_t done, double elapsed_s);

/* Runs row->program with row->args for at most timeout_s and fills in the results. Never fails itself: a child that
 * cannot be started, dies, is stopped or prints nonsense is a state of its row. */
void child_run(struct row *row, double timeout_s, child_progress_fn progress, void *user);

#endif
