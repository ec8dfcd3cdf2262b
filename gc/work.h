/* work.h - grey work: buffers of 2 KiB and the heap's list of full ones.
 *
 * An entry names something that the marker has still to look at. Its low three bits say what:
 *   WORK_CANDIDATE  an address found in a slot or a root: find its slot, mark it, scan it if it was unmarked
 *   WORK_MARKED     an object that is marked already and has to be scanned
 *   WORK_PIECE      the rest of a large array, from this address on
 *   WORK_RESUME     the rest of a traced object: the entry below it is the position to go on with
 * Addresses are rounded down to 8 bytes, which keeps them inside their object.
 *
 * Invariants: I-WORK1 an entry is in one buffer; a buffer is in one place: a marker's hand, the full list, the free
 * list. I-WORK2 (R19) no entry is dropped: without memory for a buffer the object is marked and its span gets the
 * rescan flag, and marking is not complete while one is set. Lock rank: RANK_WORK. */
#ifndef TRI_GC_WORK_H
#define TRI_GC_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "alloc/base/lock.h"
#include "alloc/fixalloc.h"

enum { WORK_CANDIDATE = 0, WORK_MARKED = 1, WORK_PIECE = 2, WORK_RESUME = 3, WORK_TAG_MASK = 7 };
enum { WORKBUF_ENTRIES = 254, WORK_RESERVE = 8 };

struct workbuf {
    struct workbuf *next;
    size_t n;
    uintptr_t entries[WORKBUF_ENTRIES];
};

struct work {
    struct lock lock;
    struct workbuf *full;    /* [lock] */
    struct workbuf *reserve; /* a few from creation on (R19) [lock] */
    size_t nfull;            /* [atomic, written under lock] */
    uint32_t rescan;         /* some span has its rescan flag set [atomic] */
    size_t ncopies;          /* chunks of stack copies that are not shaded [atomic, written under the copies' lock] */
    struct fixalloc fix;
};

/* False without memory for the reserve. */
bool tri__work_init(struct work *work);
void tri__work_fini(struct work *work);
/* Forgets all work and whose hand a buffer was in (fork). By who runs cycles, between two. */
void tri__work_reset(struct work *work);
/* An empty buffer, NULL without memory. */
struct workbuf *tri__work_get_empty(struct work *work);
void tri__work_put_empty(struct work *work, struct workbuf *buf);
void tri__work_put_full(struct work *work, struct workbuf *buf);
/* A buffer with entries, or NULL. */
struct workbuf *tri__work_get_full(struct work *work);
bool tri__work_is_empty(struct work *work);

#endif
