/* mark.h - what bench-mark asks of a collector: a few kinds of objects, stores, one root, and a collection that says
 * how long it took. The graphs (mark_graphs.c) are written once over it. */
#ifndef BENCH_MARK_H
#define BENCH_MARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LARGE_SLOTS = 64 };

/* Two references and two numbers: 32 bytes. With values the references are NaN-boxed. */
struct node {
    void *left, *right;
    uint64_t numbers[2];
};
/* Two references: 16 bytes. */
struct cons {
    void *head, *tail;
};
/* 4 KiB, of which the first half KiB are references. */
struct large {
    void *slots[LARGE_SLOTS];
    uint64_t numbers[448];
};

struct cost {
    double cpu_ms, wall_ms; /* of one collection; as far as the collector tells, of its marking alone */
};

/* One collector. A graph is built without a collection, hung on the root, and measured. */
struct side {
    const char *name;
    void (*open)(void);
    struct node *(*node)(void);
    struct node *(*boxed)(void); /* NULL: not for this collector */
    struct cons *(*cons)(void);
    struct large *(*large)(void);
    void **(*array)(size_t nslots);
    void (*store)(void *obj, void **slot, void *ref);
    void (*store_boxed)(void *obj, void **slot, void *ref);
    void (*root)(void *ref);
    struct cost (*collect)(void);
    size_t (*live_bytes)(void);
    void (*close)(void);
};

extern const struct side mark_trigc, mark_boehm;
/* Options of trigc's side, "key=value", set when it opens. */
void mark_trigc_option(const char *key_equals_value);
/* While it is open: how many threads mark from now on. */
void mark_trigc_workers(size_t n);
/* How many markers Boehm's side has; before it opens. */
void mark_boehm_markers(unsigned n);

/* A graph of about n objects; how many it has. `boxed`: with NaN-boxed values, for collectors that know them. */
struct graph {
    const char *name;
    size_t (*build)(const struct side *side, size_t n);
    bool boxed;
    size_t share; /* of the number of objects asked for: 1/share */
};
extern const struct graph mark_graphs[];
extern const size_t mark_ngraphs;

double mark_cpu_ms(void);
double mark_wall_ms(void);
_Noreturn void mark_fail(const char *what);

#endif
