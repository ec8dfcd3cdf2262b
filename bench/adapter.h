/* adapter.h - the few calls that a workload makes of a collector, so that each workload is written once.
 *
 * A workload is compiled for each collector with one of ADAPTER_TRIGC, ADAPTER_BOEHM and ADAPTER_BOEHM_TYPED defined,
 * and with ADAPTER_MALLOC for malloc and free; everything it calls is a static inline function over the collector's own
 * public interface, used as that collector's manual tells its users to: no private entry, no tuning, the same data
 * structures, operations and seeds for all.
 *
 * The contract that each adapter fills in:
 *   AD_NAME                              what the tables call it
 *   ad_thread                            a thread's connection
 *   AD_TYPE(name, struct T, a, b, ...)   declares a type whose references are the fields named (one to four)
 *   void AD_PREPARE(name)                once, before the type's first object
 *   void *AD_NEW(thread, name)           an object, zeroed by collectors; all its references are set before they are
 *                                        read; never NULL
 *   void *ad_new_leaf(thread, bytes)     bytes without references, not zeroed; never NULL
 *   void *ad_new_slots(thread, n)        an array of n references, all NULL; never NULL
 *   ad_init(thread, obj, slot, ref)      first store to a field of a new object, before the next allocation
 *   ad_store(thread, obj, slot, ref)     any other store of a reference
 *   void *ad_manual(bytes)               a block that no collection frees, without references; never NULL
 *   ad_manual_free(block)
 *   AD_FREES                             1: what a workload drops it gives to ad_free; 0: ad_free does nothing
 *   ad_free(thread, obj)
 *   ad_poll(thread)                      in loops that do not allocate
 *   ad_start(incremental)                a heap, with the calling thread known to it; its pauses go to events.h, if
 *                                        that has started
 *   ad_run(thread, n, fn, arg)           fn(thread_i, i, arg) on n threads; n == 1: on the caller's own
 *   ad_collect(thread)                   a whole collection, now
 *   ad_report(&report)                   what the collector says of its own pauses
 *   ad_finish(thread)
 *
 * Roots: references in local variables. Both collectors scan the native stack conservatively here, as both do unless
 * told otherwise. Nothing is kept in static variables or malloc'd memory.
 *
 * Memory that cannot be had ends the process with code 3 and a line that says so: a row of the table. */
#ifndef BENCH_ADAPTER_H
#define BENCH_ADAPTER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/clock.h"
#include "bench/hdr.h"

enum { AD_OWN_KINDS = 12, AD_EXIT_NO_MEMORY = 3 };

/* One kind of pause as the collector itself counts it. */
struct ad_own {
    const char *name;
    uint64_t count;
    uint64_t worst_ns; /* exact, or the upper bound of its bucket when `bound` is set */
    double total_ns;   /* the same */
    int bound;
};

struct ad_report {
    uint64_t collections;
    uint64_t own_worst_ns; /* longest pause that the collector says it caused */
    unsigned nkinds;
    struct ad_own kinds[AD_OWN_KINDS];
};

static inline _Noreturn void ad_no_memory(size_t size_bytes) {
    fprintf(stderr, "out of memory: %zu bytes were refused\n", size_bytes);
    exit(AD_EXIT_NO_MEMORY);
}

static inline void *ad_checked(void *obj, size_t size_bytes) {
    if (__builtin_expect(obj == NULL, 0)) ad_no_memory(size_bytes);
    return obj;
}

#if defined(ADAPTER_TRIGC)
#include "bench/adapter_trigc.h"
#elif defined(ADAPTER_BOEHM) || defined(ADAPTER_BOEHM_TYPED)
#include "bench/adapter_boehm.h"
#elif defined(ADAPTER_MALLOC)
#include "bench/adapter_malloc.h"
#else
#error "define ADAPTER_TRIGC, ADAPTER_BOEHM, ADAPTER_BOEHM_TYPED or ADAPTER_MALLOC"
#endif

#endif
