/* units.h - how much is done between two looks at the clock by what can be left at a deadline.
 *
 * A unit is one entry, slot, bucket, page or cache line of words that is looked at: 10 to 100 ns, by what the caches
 * hold. Builds with checks count them, by thread; others look at the clock alone.
 *
 * Invariant: I-STEP4 a slice does at most UNITS_A_LOOK units between two looks at the clock (tests/test_step.c), but
 * for what docs/design.md names ("A heap without threads"). */
#ifndef TRI_GC_UNITS_H
#define TRI_GC_UNITS_H

#include <stddef.h>
#include <stdint.h>

enum { UNITS_A_LOOK = 512, WORDS_A_UNIT = 8 };

#if TRI_CHECKS >= 1
void tri__units_did(size_t n);
/* A look at the clock, or the begin of a slice; the end of what did not count. */
void tri__units_look(uint32_t phase);
void tri__units_begin(void);
/* Of the calling thread since this was asked last: the most between two looks in a phase; the sum. */
size_t tri__units_take_most(uint32_t phase);
size_t tri__units_take_sum(void);
#else
static inline void tri__units_did(size_t n) {
    (void)n;
}
static inline void tri__units_look(uint32_t phase) {
    (void)phase;
}
static inline void tri__units_begin(void) {}
#endif

#endif
