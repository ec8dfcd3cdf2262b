/* load.h - what a load of the field benchmark is: a function that allocates, and what it says afterwards.
 *
 * A worker program is main.c, every load_*.c and one adapter, compiled together; FIELD_TRIGC, FIELD_MANUAL,
 * FIELD_MALLOC or FIELD_BOEHM names the adapter. bench/field.py runs the programs and draws the table. */
#ifndef FIELD_LOAD_H
#define FIELD_LOAD_H

#include "bench/clock.h"
#include "bench/field/adapter.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { FIELD_THREADS = 8 };

/* What the command line asks for; a load reads what it needs. */
struct params {
    const char *load;
    const char *data;    /* --data: file of the measured sizes */
    const char *curve;   /* --curve: file for a CSV of memory over time; NULL: none */
    size_t size_bytes;   /* --size */
    size_t window_bytes; /* --window */
    size_t beside_bytes; /* --beside: live objects beside the load */
    unsigned delay;      /* --delay: objects that an object outlives; 0: it dies at once */
    unsigned nthreads;   /* --threads */
    unsigned time_ms;    /* --ms: length of the measured part */
    bool pointers;       /* --kind=pointers, or else pointer-free */
    bool zero;           /* --zero: the limit zeroes each span first */
    bool collect;        /* --collect: ask for a collection where much has died */
    bool block;          /* --block: what dies is what came last, not any nine tenths */
    unsigned pause_ms;   /* --pause: idle time between the parts of a load */
};

/* What a load found out. */
struct result {
    double ns;           /* wall time for an object, all threads together */
    double cpu_ns;       /* processor time for it, of the whole process; 0: not measured */
    uint64_t nobjects;   /* that were measured */
    uint64_t live_bytes; /* most that was reachable at a time, without what is beside */
};

struct load {
    const char *name;
    void (*run)(ad_thread *thread, const struct params *params, struct result *result);
};

extern const struct load load_buffers, load_fragment, load_handoff, load_larson, load_limit, load_sawtooth, load_short,
    load_sizes;

/* A thread's part of a timed load. `batch` makes a batch of objects and returns how many; it is called until the time
 * is over, which begins when the heap is warm. */
struct timed {
    uint64_t (*batch)(ad_thread *thread, void *state);
    void *states[FIELD_THREADS];
};

/* Runs the batches on params->nthreads threads and fills in ns and nobjects. */
void load_timed(ad_thread *thread, const struct params *params, const struct timed *timed, struct result *result);

/* Resident memory now, and its highest, of this process. */
uint64_t memory_now_bytes(void);
uint64_t memory_peak_bytes(void);

/* A curve of memory over time: `live_bytes` by the load's own count beside what is resident, with the name of the
 * phase. A line of CSV for a sample, at most one in `every_ms` and one for each new phase, to the file of --curve. */
struct curve {
    FILE *file; /* NULL: samples go nowhere */
    uint64_t start_ns, last_ns;
    const char *last_phase;
    unsigned every_ms;
};
void curve_open(struct curve *curve, const struct params *params, unsigned every_ms);
void curve_sample(struct curve *curve, const char *phase, uint64_t live_bytes);
void curve_close(struct curve *curve);

/* Sleeps for `ms` in a blocking region and samples meanwhile. */
void curve_idle(struct curve *curve, ad_thread *thread, unsigned ms, const char *phase, uint64_t live_bytes);

/* Ends the process with a message. */
_Noreturn void field_die(const char *what);

/* Keeps the compiler from seeing that an object is never used. */
static inline void field_keep(const void *obj) {
    __asm__ volatile("" : : "r"(obj) : "memory");
}

/* xorshift64*: the same sequence for all peers. */
static inline uint64_t field_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

#endif
