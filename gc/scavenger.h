/* scavenger.h - the thread of a heap that gives memory back to the system: after cycles, under pressure, near a limit,
 * and when the heap idles. See scavenger.c. */
#ifndef TRI_GC_SCAVENGER_H
#define TRI_GC_SCAVENGER_H

#include <trigc.h>
#include "alloc/base/atomic.h"
#include "alloc/base/os.h"
#include "alloc/base/pressure.h"

#ifndef TRI_SCAVENGER_WINDOW_S
#define TRI_SCAVENGER_WINDOW_S 8 /* 1 for comparisons: no hysteresis to speak of */
#endif
enum { SCAVENGER_WINDOW_S = TRI_SCAVENGER_WINDOW_S };

/* What a second's cycles needed. */
struct scavenger_need {
    uint64_t second;
    size_t npages;
};

/* Whether somebody has allocated since the thread looked. */
enum scavenger_quiet { SCAVENGER_STIRRED = 0, SCAVENGER_QUIET, SCAVENGER_DORMANT };

struct scavenger {
    struct os_thread thread;
    bool started;             /* [const once the heap is made, but in a fork's child; atomic] */
    bool lost;                /* in a fork's child: not started yet [whoever runs cycles] */
    uint32_t events;          /* what has happened; the thread sleeps while it is zero [atomic] */
    uint32_t cares;           /* the next cycle's end wakes the thread [atomic] */
    uint64_t cycles;          /* that have ended [atomic] */
    uint64_t woken_ns;        /* when a cycle's end woke it last [whoever runs cycles] */
    uint32_t quiet;           /* enum scavenger_quiet [atomic] */
    uint64_t cpu_ns;          /* that the thread has spent [atomic] */
    struct pressure pressure; /* [thread] but for wakes */
    /* [thread] from here on */
    struct scavenger_need window[SCAVENGER_WINDOW_S]; /* by second, modulo */
    size_t want_pages;                                /* what the pacer's goal says will be needed, and a tenth */
    size_t slice_pages;                               /* that take about a millisecond */
    uint64_t rest_until_ns, paid_cpu_ns;              /* pacing: up to which CPU time it has rested */
    uint64_t cycles_seen;
    uint64_t noted_ns;            /* when the window was told last what is needed */
    uint64_t activity_ns;         /* when allocation was last seen */
    bool active, idle, idle_owes; /* ticking; the idle period has begun; its cycle has not been asked for */
    bool trims;                   /* spans are to be looked at for what can be returned of them */
    bool refused;                 /* the system takes nothing back; until the next event */
    uint64_t idle_cycle_ns;       /* when the last idle cycle was asked for */
    uint64_t looked_ns, pressed_until_ns, pressure_cycle_ns;
    size_t ahead_pages; /* to populate beyond the pages in use; 0: not asked for */
    uint64_t grew_ns;   /* when it was asked for last */
    size_t populated;   /* since then */
    uint64_t ask_ns;    /* when to listen again; 0: it does */
    bool grows;         /* it was asked, and is not yet that far ahead */
    bool cannot_populate;
    uint64_t slice_ns;              /* how long a slice of returning may take */
    uint32_t npostponed;            /* without a thread: steps that had no time for it [who has the turn] */
    uint64_t turned_ns;             /* without a thread: when it was looked at last [atomic] */
    uint64_t next_ns;               /* without a thread: when there is something to look at [atomic] */
    uint64_t cost_ns, cost_seen_ns; /* of the last cycle, of all until then */
};

/* Starts the thread. A heap works without it: memory then goes back at the end of each cycle. */
void tri__scavenger_start(tri_heap *heap);
/* Without a thread (heap->threadless): what it would do now, in slices up to the deadline. True if something is left to
 * do at once. By who has the heap's turn. */
bool tri__scavenger_step(tri_heap *heap, uint64_t deadline_ns);
/* Whether something is to be done, and has been for since_ns. Any thread. */
bool tri__scavenger_is_due(tri_heap *heap, uint64_t since_ns);
/* After the collector's thread has ended. */
void tri__scavenger_stop(tri_heap *heap);
/* In a fork's child: the thread is started by the end of the first cycle. */
void tri__scavenger_after_fork(tri_heap *heap);
/* A cycle has ended, with its sweep. Whoever runs cycles, no lock held. */
void tri__scavenger_cycle_ended(tri_heap *heap);
/* Limits or options have changed. Any thread. */
void tri__scavenger_options(tri_heap *heap);
/* A limit has come near (hooks.h). Any thread. */
void tri__scavenger_limit_near(tri_heap *heap);
/* Few populated pages are left (hooks.h). Any thread. */
void tri__scavenger_grows(tri_heap *heap);
/* See scavenger_note_allocation. */
void tri__scavenger_stir(tri_heap *heap, struct scavenger *scavenger);

/* Each slow path of an allocation: ends an idle period. */
static inline void scavenger_note_allocation(tri_heap *heap, struct scavenger *scavenger) {
    if (__builtin_expect(atomic_load_relaxed(&scavenger->quiet) != SCAVENGER_STIRRED, 0)) /* a hint */
        tri__scavenger_stir(heap, scavenger);
}

#endif
