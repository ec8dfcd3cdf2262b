/* mmu.h - minimum mutator utilisation, from what events.h wrote. */
#ifndef BENCH_MMU_H
#define BENCH_MMU_H

#include <stdint.h>
#include <stdio.h>

enum { MMU_WINDOWS = 17 }; /* from 0.1 ms to 1 s, four to each power of ten */

struct mmu_point {
    uint64_t window_ns;
    double share; /* the least of any window of this length that any thread had for itself, from 0 to 1 */
};

/* The curve of the run in the file at `path`, without windows as long as the run or longer. Its number of points; 0:
 * the file is not there, or does not hold the whole run. */
unsigned mmu_curve(const char *path, struct mmu_point points[MMU_WINDOWS]);

/* The same as JSON: an array of [window in nanoseconds, share]. */
void mmu_json(FILE *out, const char *path);

#endif
