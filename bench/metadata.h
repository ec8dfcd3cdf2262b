/* metadata.h - what a heap needs besides its objects, as it lies in memory; see metadata.c. */
#ifndef BENCH_METADATA_H
#define BENCH_METADATA_H

#include <trigc.h>

/* Prints metadata_kb (as tri_stats counts it), metadata_resident_kb, and metadata_percent, the latter's share of the
 * largest resident memory that the process has had. */
void bench_metadata_print(tri_heap *heap);

#endif
