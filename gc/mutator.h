/* mutator.h - one thread's attachment to one heap, and the OS thread behind its attachments.
 *
 * The public struct tri_thread is the head of struct mutator. An OS thread has one state word for all its attachments:
 * a blocked thread is blocked in every heap (R14), and whoever holds the word (R16) answers for it.
 *
 *   OS_RUNNING  -> OS_BLOCKED   by the thread, entering a blocking region (then it tests for requests, R16)
 *   OS_BLOCKED  -> OS_HELD      by a collector that answers for it
 *   OS_HELD     -> OS_BLOCKED   by that collector
 *   OS_HELD     -> OS_HELD_WAITED  by the thread, which now waits for the word
 *   OS_BLOCKED  -> OS_RUNNING   by the thread, leaving; it waits while held, then tests for requests
 *
 * Invariants: I-MUT1 a mutator's fields marked [owner] are touched by its running thread or by the collector that holds
 * its state word, never by both. I-MUT2 (R21) answer_seq follows request_seq; a step done twice is harmless. I-MUT3
 * armed, grey_stack and cache.black change only in an answer, attach or detach. */
#ifndef TRI_GC_MUTATOR_H
#define TRI_GC_MUTATOR_H

#include <trigc.h>
#include "alloc/cache.h"
#include "gc/mark.h"
#include "gc/rules.h"

enum { OS_RUNNING = 0, OS_BLOCKED = 1, OS_HELD = 2, OS_HELD_WAITED = 3 };
enum { SHADE_BUFFER = 64 };
/* tri_thread.reserved of the attachment that threads have which are not attached (mutator.c): no mutator is behind
 * it. */
enum { SENTINEL_MARK = 0x5e47 };

struct osthread {
    uint32_t state;              /* OS_* [atomic] */
    uint32_t depth;              /* in a tri_blocking region, and no tri_callin inside it [owner] */
    uint32_t ncallins;           /* tri_callin calls that are running [owner] */
    uintptr_t sp;                /* lowest live stack address while not running [atomic] */
    uintptr_t stack_low;         /* its limit [const] */
    bool told_foreign;           /* that it runs on a stack that is not its own [owner] */
    uintptr_t stack_high;        /* base of the native stack; 0 unknown: every attachment is precise [const] */
    uint64_t id;                 /* the system's number [const] */
    struct lock lock;            /* RANK_OSTHREAD: attachments, against posting collectors */
    struct mutator *attachments; /* [lock to write; the thread itself reads freely] */
    tri_word *region_roots;      /* argument or result of each tri_blocking that runs: conservative roots [owner] */
    size_t nregions, max_regions;
    tri_word first_regions[4];  /* region_roots at first */
    uint64_t last_safepoint_ns; /* when it last answered or entered [atomic] */
    const char *site_call;      /* the last call that took a slow path with a safepoint, for messages [atomic] */
    const void *site;           /* and the host's address that it returns to [atomic] */
    struct mutator *held_for;   /* whose answer the word was held for last [who holds it, then the thread] */
    uint32_t unforkable;        /* in sections that a fork waits for (fork.h) [atomic; its thread writes] */
};

/* A value stack, or a native stack of a coroutine. */
struct tri_vmstack {
    struct tri_vmstack *next, *prev;         /* a running value stack in its mutator's list [owner] */
    struct tri_vmstack *next_all, *prev_all; /* in the heap's list [roots lock] */
    struct mutator *owner; /* its state word (R8): who runs it, NULL: suspended, or as suspended.h says [atomic] */
    tri_heap *heap;
    uintptr_t base;    /* its lowest word; of a native one, where it was left [owner] */
    bool native;       /* [const] */
    bool conservative; /* a native one whose words are scanned, else its frames alone [const] */
    union {
        struct {                   /* a value stack */
            uintptr_t top_address; /* where the host keeps its top [owner] */
            tri_enc enc;           /* [const] */
        };
        struct {                 /* a native one */
            uintptr_t low, high; /* its bounds [const] */
            tri_frame *frames;   /* pushed on it, while it is suspended [owner] */
        };
    };
    uint64_t scanned_cycle; /* cycle in which it was last scanned (R8) [atomic, written by the owner] */
    size_t deep_bytes;      /* counted in roots.deep_bytes, while it is suspended [owner] */
};

struct tri_scanner {
    struct tri_scanner *next, *prev;
    void (*fn)(tri_visitor *, void *);
    void *arg;
};

/* Local handles: blocks of slots in a list, the newest last. */
enum { SCOPE_BLOCK_SLOTS = 510 };
struct scope_block {
    struct scope_block *prev;
    size_t n;
    struct tri_ref slots[SCOPE_BLOCK_SLOTS];
};

struct mutator {
    struct tri_thread pub;           /* first: tri_thread * is struct mutator * */
    tri_heap *heap;                  /* [const] */
    struct osthread *os;             /* [const] */
    struct mutator *next, *prev;     /* heap's threads [threads lock] */
    struct mutator *next_attachment; /* of the OS thread [os lock] */
    uint32_t flags;                  /* TRI_ATTACH_* [const] */
    bool armed;                      /* barrier on (pub.armed is also set by stress.slow) [owner] */
    bool stopped;                    /* held by world_stop [threads lock] */
    bool deletes;                    /* the barrier shades what is overwritten (not in mode insertion) [owner] */
    bool grey_stack;                 /* own stack not scanned yet in this cycle [owner] */
    uint64_t request_seq;            /* last step asked of it [atomic] */
    uint64_t answer_seq;             /* last step answered [atomic; owner writes] */
    uint64_t scan_ns, scan_end_ns;   /* its last scan of its roots took so long, until then; for stats [owner] */
    uint64_t limit_since_ns;         /* waits at the limit of memory since then; 0: it does not [atomic] */
    uint64_t limit_told_ns;          /* such a wait, since then, has been in a cycle's line [atomic] */
    struct cache cache;              /* [owner] */
    struct marker marker;            /* [owner] */
    size_t nshade;                   /* [owner] */
    uintptr_t shade[SHADE_BUFFER];   /* the barrier's buffer [owner] */
    struct tri_vmstack *vmstacks;    /* running ones [owner] */
    struct tri_vmstack *native;      /* that it runs on; NULL: the OS thread's own (I-NAT1) [owner] */
    uintptr_t own_sp;                /* where its own stack was left, while it runs on another [owner] */
    tri_frame *own_frames;           /* the frames on it then [owner] */
    size_t frame_bytes;              /* of the slots in its frames, when they were last counted [owner] */
    struct tri_scanner *scanners;    /* [owner] */
    struct scope_block *scopes;      /* newest block [owner] */
    uint32_t nlocals;                /* local handles in all blocks [owner] */
    uint64_t piece_ns;               /* when the piece of a large object that is being zeroed was begun [owner] */
    int64_t assist_debt;             /* bytes of marking owed [owner] */
    uint64_t paced_cycle;            /* the last one in which it was counted as allocating [owner] */
    uint64_t nslow;                  /* allocation slow paths, for stress [owner] */
    uint32_t ncleaning;              /* cleanups that it runs [owner] */
    struct large_build build;        /* the large object that it is building [owner] */
};

static inline struct mutator *mutator_of(tri_thread *thread) {
    return (struct mutator *)(void *)thread;
}

/* NULL (with the error set, naming the call) for NULL or the sentinel of unattached threads. */
struct mutator *tri__mutator_check(tri_thread *thread, const char *call);
/* The same without the checks of checked builds: the call has its own, or may come from a blocking region. */
struct mutator *tri__mutator_attached(tri_thread *thread, const char *call);
/* tri_self, asked by the library. */
tri_thread *tri__self(const tri_heap *heap);

/* ---- safepoint.c ---- */

/* Does every pending step of every attachment of the calling OS thread (R1). Spills registers first. */
void tri__safepoint(struct mutator *m);
/* The same only when something is asked. */
static inline void safepoint_poll(struct mutator *m) {
    if (TRI_UNLIKELY(atomic_load_relaxed(&m->pub.request))) tri__safepoint(m); /* see tri_poll */
}

/* A call with a safepoint notes where in the host it comes from: tell_silent names it. In the public function
 * itself. */
struct call_site {
    const char *call;
    const void *site;
};
#define CALL_SITE(call_) ((struct call_site){(call_), __builtin_return_address(0)})
static inline void note_site(struct mutator *m, struct call_site from) {
    atomic_store_relaxed(&m->os->site_call, from.call); /* for messages: the two may be of different calls */
    atomic_store_relaxed(&m->os->site, from.site);
}

/* Runs fn with every callee-saved register of its callers in memory at or above os->sp. */
typedef void (*spilled_fn)(struct osthread *os, void *arg);
void tri__with_registers_spilled(spilled_fn fn, struct osthread *os, void *arg);

/* Waits inside the library (R14): runs fn(arg) as a blocking region. No lock may be held. Nanoseconds in the region,
 * for the caller to tell: the steps that the thread answers on its way in and out are told already. */
uint64_t tri__blocking_wait(struct mutator *m, void (*fn)(void *), void *arg);

/* Becomes running again; waits while a collector holds the state word (R16). */
void tri__leave_blocked(struct osthread *os);

/* ---- handshake.c ---- */

/* Tells every attached thread of the heap to do the step numbered seq. Requires RANK_THREADS. */
void tri__handshake_post(tri_heap *heap, uint64_t seq);
/* Waits until all have answered the last posted step, answering for blocked ones. False: the deadline passed, or what
 * waits for running threads may take (heap_patience_end). By who runs the cycle. */
bool tri__handshake_wait(tri_heap *heap, uint64_t deadline_ns);
/* "; thread ..., called from ...": the one that keeps the heap's cycle, or a stop of the world, waiting; empty where
 * none does. For messages, no lock held. */
enum { SILENT_TEXT_BYTES = 200 };
const char *tri__silent_text(tri_heap *heap, char text[SILENT_TEXT_BYTES]);
/* Holds every attached thread at a safepoint until tri__world_start. False, with nothing held, when a thread reached no
 * safepoint within wait_limit_ms. Collector only. */
bool tri__world_stop(tri_heap *heap);
bool tri__world_stop_within(tri_heap *heap, uint64_t limit_ns);
void tri__world_start(tri_heap *heap);
/* The heap's answer to its last posted step, done on behalf of m (gc/cycle.c). */
void tri__mutator_answer(struct mutator *m);

/* stackscan.c: queues the roots that belong to m (H3), in its marker or in a copy of its stacks: native stack, frames,
 * handles, VM stacks, scanners. */
void tri__mutator_scan_roots(struct mutator *m);
/* The stacks that it runs are (R8). */
void tri__mutator_stacks_scanned(struct mutator *m);
/* What of these grows with the depth of calls: how much there is to copy. `sp` is where its native stack ends. Frames
 * as they were last counted: the walk is for H1. */
size_t tri__mutator_stack_bytes(const struct mutator *m, uintptr_t sp);
/* True: so many that it took as long as a scan does (it is told as one). */
bool tri__mutator_count_frames(struct mutator *m);
/* Whether its stacks are so deep that a scan copies them. Looks at no more frames than it takes to know, 4,096 at most,
 * and leaves the last count as it is. */
bool tri__mutator_is_deep(const struct mutator *m, uintptr_t sp);

/* Whether the calling thread is in a section that a fork waits for. */
bool tri__mutator_is_unforkable(void);
/* Whether the attachment is the calling thread's: who runs a slice answers for itself. */
bool tri__mutator_is_own(const struct mutator *m);
/* The same of a thread, which may be no more. */
bool tri__osthread_is_own(const struct osthread *os);
/* In a fork's child: the calling thread's attachment goes on between two cycles; all others are put aside, for
 * tri__mutators_settle to give back what they held, before the first cycle. */
void tri__mutators_after_fork(tri_heap *heap, bool abandoned);
void tri__mutators_settle(tri_heap *heap);

/* Turns the barrier's buffer into marks and grey work. True if an entry was unmarked. */
bool tri__barrier_flush(struct mutator *m);

#endif
