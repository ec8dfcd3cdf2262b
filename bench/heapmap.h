/* heapmap.h - the heap looked at while a load runs: the worker's half, which writes the file. trigc only. */
#ifndef BENCH_HEAPMAP_H
#define BENCH_HEAPMAP_H

#include <stdbool.h>

#include <trigc.h>

/* Starts a thread that looks at the heap every so many milliseconds and writes what it sees to the file. False with a
 * message when it cannot. One heap at a time. */
bool heapmap_start(tri_heap *heap, const char *path, unsigned every_ms);

/* A last look, and the thread's end. */
void heapmap_stop(void);

#endif
