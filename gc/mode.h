/* mode.h - the ways in which a heap collects; see mode.c. */
#ifndef TRI_GC_MODE_H
#define TRI_GC_MODE_H

#include <stdbool.h>
#include <trigc.h>

enum mode { MODE_CONCURRENT = 0, MODE_INSERTION, MODE_STOP_MARK, MODE_STOP, MODE_INCREMENTAL, NUM_MODES };

enum mode tri__mode(const tri_heap *heap);
/* By its name, between two cycles: TRI_EBUSY in one. Any thread. */
int tri__mode_set(tri_heap *heap, const char *name);

/* By who runs the cycle. */

/* Before H1: stops the world where the mode does. False: a silent thread. */
bool tri__mode_begin(tri_heap *heap);
/* H6 is answered; the sweep is over: the world goes on where it was stopped until here. */
void tri__mode_retired(tri_heap *heap);
void tri__mode_swept(tri_heap *heap);
/* After a round of none: closes the gate, after whatever the mode asks for first. False: something is grey, or may
 * be. */
bool tri__mode_closes(tri_heap *heap);

#endif
