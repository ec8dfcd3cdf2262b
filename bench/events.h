/* events.h - what a heap tells of itself while a workload runs: phases and pauses, with times. trigc only. */
#ifndef BENCH_EVENTS_H
#define BENCH_EVENTS_H

#include <stdbool.h>

#include <trigc.h>

/* The event hook; keeps what it is told in memory that is there already. */
void events_hook(const tri_event *event, void *user);

/* Before the heap is made. False without memory. */
bool events_start(void);

/* Writes a line each: "run <start> <end>", "phase <time> <name>", "pause <thread> <start> <end> <cause>", times in
 * nanoseconds of the monotonic clock. False, with a message, when the file cannot be written. */
bool events_write(const char *path);

#endif
