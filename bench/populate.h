/* populate.h - touching a heap's memory beforehand; trigc only. */
#ifndef BENCH_POPULATE_H
#define BENCH_POPULATE_H

#include <stddef.h>

#include <trigc.h>

/* Touches the first `size_bytes` of the heap's range and its tables. The bytes done, 0 where the system refuses. Before
 * the first allocation. */
size_t bench_populate(tri_heap *heap, size_t size_bytes);

#endif
