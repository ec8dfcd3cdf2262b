/* work.h - grey work: buffers of 2 KiB and the heap's list of full ones, and who waits for one.
 *
 * An entry names something that the marker has still to look at. Its low three bits say what:
 *   WORK_CANDIDATE  an address found in a slot or a root: find its slot, mark it, scan it if it was unmarked
 *   WORK_MARKED     an object that is marked already and has to be scanned
 *   WORK_PIECE      a piece of a large array, from this address on
 *   WORK_RESUME     the rest of a traced object: the entry below it is the position to go on with
 *   WORK_PAGE       candidates of a page: the eight entries below it have a bit for each granule in which one lies
 * Addresses are rounded down to 8 bytes, which keeps them inside their object.
 *
 * Several markers drain the list: the collector, the heap's workers (workers.h), mutators that assist. The end of
 * marking is seen under the list's lock: a worker counts as busy from the critical section in which it takes its first
 * buffer to one in which it holds nothing (model: M-WORKER), so an empty list and no busy worker mean that nothing is
 * grey anywhere but in the hands of mutators, which the rounds ask. Who finds nothing parks; a buffer that is put wakes
 * one of those who do, and nobody spins. While somebody waits, markers that have much share it (nhungry).
 *
 * Invariants: I-WORK1 an entry is in one buffer; a buffer is in one place: a marker's hand, the full list, the free
 * list. I-WORK2 (R19) no entry is dropped: without memory for a buffer the object is marked and its span gets the
 * rescan flag, and marking is not complete while one is set. I-WORK3 (R3) a worker holds grey work only while it counts
 * as busy, and none does while the list is closed. Lock rank: RANK_WORK. */
#ifndef TRI_GC_WORK_H
#define TRI_GC_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/lock.h"
#include "alloc/fixalloc.h"

enum { WORK_CANDIDATE = 0, WORK_MARKED = 1, WORK_PIECE = 2, WORK_RESUME = 3, WORK_PAGE = 4, WORK_TAG_MASK = 7 };
enum { WORKBUF_ENTRIES = 254, WORK_RESERVE = 8 };

struct workbuf {
    struct workbuf *next;
    size_t n;
    uintptr_t entries[WORKBUF_ENTRIES];
};

/* A worker, or the collector, that waits for a buffer. */
struct work_waiter {
    struct work_waiter *next; /* [lock] */
    bool listed;              /* [lock] */
    uint32_t woken;           /* futex [atomic] */
};

struct work {
    struct lock lock;
    struct workbuf *full;    /* [lock] */
    struct workbuf *reserve; /* a few from creation on (R19) [lock] */
    size_t nfull;            /* [atomic, written under lock] */
    uint32_t rescan;         /* some span has its rescan flag set [atomic] */
    size_t ncopies;          /* chunks of stack copies that are not shaded [atomic, written under the copies' lock] */
    struct fixalloc fix;

    struct work_waiter *waiting;  /* who parks [lock] */
    struct work_waiter *settling; /* the collector, while it does [lock] */
    bool open;                    /* workers may take buffers: a mark phase with workers is under way [lock] */
    bool quit;                    /* workers are to end [lock] */
    uint32_t nbusy;               /* workers that hold grey work; the collector is not counted [lock] */
    uint32_t nhungry;             /* who parks while the list is open [atomic, written under lock] */
};

/* False without memory for the reserve. */
bool tri__work_init(struct work *work);
void tri__work_fini(struct work *work);
/* Forgets all work and whose hand a buffer was in (fork). By who runs cycles, between two. */
void tri__work_reset(struct work *work);
/* Nobody waits, nobody is busy (fork). */
void tri__work_forget_waiters(struct work *work);
/* An empty buffer, NULL without memory. */
struct workbuf *tri__work_get_empty(struct work *work);
void tri__work_put_empty(struct work *work, struct workbuf *buf);
void tri__work_put_full(struct work *work, struct workbuf *buf);
/* A buffer with entries, or NULL. */
struct workbuf *tri__work_get_full(struct work *work);
bool tri__work_is_empty(struct work *work);

/* A worker's next buffer, with which it is busy: parks until there is one. NULL: the worker is to end. */
struct workbuf *tri__work_await(struct work *work, struct work_waiter *me);
/* A worker holds nothing any more. */
void tri__work_rest(struct work *work);
/* Lets workers take buffers, for a mark phase, and wakes as many as there are buffers. By the collector. */
void tri__work_open(struct work *work);
/* The collector holds nothing: true if no worker does either and the list is empty, which is then closed. Else it parks
 * until a buffer is put, the last worker rests, or timeout_ns have passed. */
bool tri__work_settle(struct work *work, struct work_waiter *me, uint64_t timeout_ns);
/* Ends the workers' waiting, for good or (false) not: they return NULL from tri__work_await. */
void tri__work_quit(struct work *work, bool quit);
/* True if somebody parks who could be given something. A few buffers may lie ready, so that not everyone who runs dry
 * has to park. */
static inline bool work_is_wanted(struct work *work) {
    uint32_t nhungry = atomic_load_relaxed(&work->nhungry); /* hints: who is not seen now is seen at the next look */
    return TRI_UNLIKELY(nhungry != 0) && atomic_load_relaxed(&work->nfull) <= nhungry / 4;
}

#endif
