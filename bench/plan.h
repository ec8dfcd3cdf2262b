/* plan.h - which rows the demo runs. */
#ifndef BENCH_PLAN_H
#define BENCH_PLAN_H

#include "bench/row.h"

enum { PLAN_ROWS = 96 };

struct plan_options {
    bool quick;           /* smaller amounts, fewer modes */
    bool full;            /* the cache at 2 GB live too */
    const char *only;     /* comma-separated scene ids, or NULL: all */
    const char *bin;      /* folder of the programs */
    const char *programs; /* folder of the Lox programs */
    const char *self;     /* the driver, which measures the noise itself */
    const char *out;      /* folder of the results */
};

/* Fills rows in the order in which they run. Their number. */
unsigned plan_make(struct row rows[PLAN_ROWS], const struct plan_options *o);

/* Says on `out` which scenes exist. */
void plan_list(FILE *out);

#endif
