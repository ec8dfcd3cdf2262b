/* events.h - when a collector kept the threads of a workload, as it tells it: for curves of utilisation (mmu.h). */
#ifndef BENCH_EVENTS_H
#define BENCH_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

/* Before the heap is made: from here on what is told is kept. False without memory. */
bool events_start(void);
bool events_started(void);

/* A thread was kept for ns, up to end_ns of the monotonic clock. The cause is a literal. Any thread, at any place: no
 * lock. Nothing, unless started. */
void events_pause(uint64_t thread, uint64_t end_ns, uint64_t ns, const char *cause);
/* A cycle came into another phase. */
void events_phase(uint64_t time_ns, const char *name);

/* Writes a line each: "run <start> <end>", "phase <time> <name>", "pause <thread> <start> <end> <cause>", times in
 * nanoseconds, and "lost <n>" when there was no room for so many. False, with a message, when the file cannot be
 * written. */
bool events_write(const char *path);

#endif
