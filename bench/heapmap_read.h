/* heapmap_read.h - the heap looked at while a load runs: the driver's half, which makes the picture's data. */
#ifndef BENCH_HEAPMAP_READ_H
#define BENCH_HEAPMAP_READ_H

#include <stdbool.h>
#include <stdio.h>

/* Writes the looks in the file as a JSON object; "null" when there are none. Whether there are. */
bool heapmap_json(FILE *out, const char *path);

#endif
