/* row.h - one line of the demo's table: what is run, and what came of it.
 *
 * A scene is a workload at one size with its peers; a row is one peer's run of it in a process of its own. */
#ifndef BENCH_ROW_H
#define BENCH_ROW_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/hdr.h"

enum { ROW_ARGS = 10, ROW_KINDS = 12, ROW_TEXT = 200, ROW_PATH = 512 };

enum row_state {
    ROW_WAITING,
    ROW_OK,
    ROW_FAILED,  /* ended with an error or a signal; `why` says which */
    ROW_TIMEOUT, /* was stopped */
    ROW_MISSING  /* its program is not there */
};

struct scene {
    const char *id;       /* for --only and the page */
    const char *title;    /* for people */
    const char *unit;     /* what throughput counts */
    unsigned batch;       /* units in one gap that the probe saw */
    uint64_t interval_ns; /* at which the corrected columns expect an operation; 0: no gaps are measured */
    bool checked;         /* its rows are different programs: how many of them printed what they should */
};

struct row_own {
    char name[32];
    uint64_t count, worst_ns;
    double total_ns;
    bool bound; /* worst and total are upper bounds */
};

struct row {
    const struct scene *scene;
    const char *peer; /* trigc, boehm, boehm typed, boehm incr., none, noise */
    char program[ROW_PATH];
    char args[ROW_ARGS][ROW_PATH];
    unsigned nargs;
    double expected_s;       /* for the time still to go; corrected as rows end */
    uint64_t total_ops;      /* for progress within the row; learnt from earlier rows of the scene, 0: unknown */
    bool foreign;            /* not one of our workers: only time, memory and output are taken */
    char map[ROW_PATH];      /* the file that its looks at the heap go to; empty: it is measured */
    char events[ROW_PATH];   /* the file that its collector's pauses go to; empty: they are not asked for */
    char expected[ROW_PATH]; /* foreign: the file that holds what it has to print; empty: anything */

    enum row_state state;
    char why[ROW_TEXT];
    double seconds; /* of the workload; of the process when foreign */
    double wall_s;  /* of the process */
    uint64_t ops;
    uint64_t peak_kb;  /* largest resident memory */
    uint64_t checksum; /* of what it saw or printed */
    uint64_t collections, own_worst_ns;
    uint64_t worst_on_core_ns; /* worst gap without the time spent waiting for a core; 0: not measured */
    unsigned nkinds;
    struct row_own kinds[ROW_KINDS];
    struct hdr gaps, corrected;
};

#endif
