/* gaps.h - the time between one step of a program and its next, as the program itself felt it (`--gaps`).
 *
 * A step is a call or a turn of a loop. Whatever keeps the program from its next step shows in the gap before it: its
 * own work, the collector, the operating system. Counts go to log-linear buckets of 11 leading bits (an error of at
 * most 0.1 %), the largest value is exact.
 */
#ifndef LOX_GAPS_H
#define LOX_GAPS_H

#include <stdbool.h>

/* Starts recording. False without memory. */
bool gaps_start(void);

/* A step is here. Only after gaps_start. */
void gaps_step(void);

/* Prints one line to standard error: "gaps MIN MAX SUM INDEX:COUNT...", nanoseconds and buckets. Ends recording. */
void gaps_end(void);

#endif
