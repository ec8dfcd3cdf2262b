/*
 * cleanups.h: a cleanup that counts itself and adds up its argument.
 *
 * For programs of one translation unit, as plain.h.
 */
#ifndef TRI_TESTS_CLEANUPS_H
#define TRI_TESTS_CLEANUPS_H

#include "tests/fixture.h"

static uint64_t sum, ncalls;
static inline void add_to_sum(void *arg) {
    atomic_add_relaxed(&sum, (uint64_t)(uintptr_t)arg);
    atomic_add_relaxed(&ncalls, 1);
}

static inline void *arg_of(uint64_t n) {
    return (void *)(uintptr_t)n;
}

static inline void forget_calls(void) {
    sum = ncalls = 0;
}

#endif
