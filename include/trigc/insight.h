/* trigc/insight.h - what a heap tells of itself: counters, histograms, look-ups, walks, the check of everything.
 * Included by trigc.h, whose conventions hold here. */
#ifndef TRIGC_H
#include <trigc.h> /* which includes this file */
#endif
#ifndef TRIGC_INSIGHT_H
#define TRIGC_INSIGHT_H

#ifdef __cplusplus
extern "C" {
#endif

/* Counters of a heap. All are cheap to read; each is read on its own, so two may differ by what happened in between. */
typedef struct tri_stats {
    uint32_t struct_size;     /* set before the call: sizeof(tri_stats) */
    uint32_t nthreads;        /* attached now */
    uint64_t cycles;          /* completed */
    size_t live_bytes;        /* marked by the last cycle */
    size_t heap_bytes;        /* live_bytes with what was allocated since (whole holes) */
    size_t goal_bytes;        /* where the next cycle should be complete */
    size_t trigger_bytes;     /* where it will start */
    size_t committed_bytes;   /* pages in spans */
    size_t free_bytes;        /* pages free but still resident */
    size_t reserved_bytes;    /* the address range */
    size_t metadata_bytes;    /* side tables and fixed-size metadata that is in use */
    size_t external_bytes;    /* told by tri_external */
    uint64_t allocated_bytes; /* ever, by whole holes and large objects */
    uint64_t returned_bytes;  /* to the system, ever */
    uint64_t mark_ns;         /* time spent tracing by the collector, and by threads in slices of a cycle, ever */
    uint64_t assist_ns;       /* by mutators that help it */
    uint64_t sweep_ns;        /* by the collector */
    uint64_t worst_pause_ns;  /* longest that a mutator was kept from running, ever; TRI_PAUSE_WAIT apart */
    uint64_t handshakes;      /* steps answered */
    uint64_t marked_objects;  /* ever */
    uint64_t swept_spans;     /* ever */
    uint64_t scavenge_ns;     /* CPU time of the thread that gives memory back, ever */
    uint64_t stall_ns;        /* for which allocating threads were held back beyond the goal, ever */
    uint64_t limited_cycles;  /* before which the soft limit was exceeded, so that collecting takes no more than half of
                                 the processors' time */
    uint64_t limiter_percent; /* how near that is: at 100 it is so now */
    uint64_t weak_cleared;    /* weak slots that cycles have cleared, ever */
    uint64_t cleanups_due;    /* that tri_cleanup_run would run now */
    uint64_t cleanups_run;    /* ever */
    uint64_t watched_objects; /* cleanups and finalizer queues' claims on objects that live */
    size_t hard_goal_bytes;   /* how far a cycle that is late may run: beyond it allocations give all their time */
    uint64_t cpu_permille;    /* of all processors' time that collecting took between the last two cycles' ends */
    uint64_t capped_cycles;   /* before which the heap was given more room than growth_percent says, for cpu_percent */
    uint64_t widened_percent; /* that room now, of what growth_percent says: 100 while cpu_percent asks for none */
    uint64_t death_ns;        /* in weak maps, and with what dies: queues, cleanups; its tracing is mark_ns; ever */
} tri_stats;
/* TRI_EINVAL when struct_size is not set. Any thread. */
TRI_API int tri_stats_get(tri_heap *heap, tri_stats *out);

/* What kept a mutator from running. */
enum {
    TRI_PAUSE_HANDSHAKE = 0, /* the answer to a step, its scan included */
    TRI_PAUSE_SCAN,   /* of the thread's own roots, and of a suspended stack or a range that it puts its hand on */
    TRI_PAUSE_ASSIST, /* marking for its allocation; without workers, or with too few cores, a slice of the cycle */
    TRI_PAUSE_SWEEP,  /* on demand, for a free slot */
    TRI_PAUSE_WAIT,   /* for a cycle or a stopped world that the host asked for */
    TRI_PAUSE_NAP,    /* held back beyond the goal, while who runs the cycle waits for a core or an answer */
    TRI_PAUSE_ZERO,   /* zeroing of a piece of a large object, or of what its tables need */
    TRI_PAUSE_LOCK,   /* locks of the heap that others held, or a fork, up to a slow path, together */
    TRI_PAUSE_SYSTEM, /* calls of the system in an allocation: the heap grows, or returns pages near a limit */
    TRI_PAUSE_CORE,   /* no thread's pause: how long a thread of the heap's held a core that threads needed */
    TRI_PAUSE_LIMIT,  /* an allocation's, for a cycle, since memory cannot be had without one */
    TRI_PAUSE_GATE, /* for the close of a cycle: weak loads and look-ups; for its end, or looking for names: tri_free */
    TRI_PAUSE_KINDS
};

/* Histogram of one kind of pause since the heap was made: buckets[i] counts pauses of less than 2^i ns (and at least
 * half of that), the last one all longer ones too. Returns the number of buckets written (at most n), or TRI_EINVAL.
 * Any thread. */
TRI_API int tri_histogram(tri_heap *heap, int kind, uint64_t *buckets, size_t n);

/* What one size class holds. A slot is in use when it holds an object that the last sweep left, or was taken since: by
 * whole holes, so that a thread's next objects are counted before they are made. */
typedef struct tri_class_stat {
    size_t slot_bytes;        /* 0: large objects, each a span of its own */
    size_t spans, span_bytes; /* runs of pages, and their size */
    size_t slots, used_slots; /* in them, and in use */
    size_t used_bytes;        /* of these */
} tri_class_stat;
/* Counts the collected heap by size class, in their order, the large objects first; manual memory is not in it. Writes
 * at most n rows, and returns how many there are, or TRI_EINVAL. A look at all pages while the other threads run on,
 * not a snapshot. Any thread; not a safepoint. */
TRI_API int tri_class_stats(tri_heap *heap, tri_class_stat *out, size_t n);

/* What there is of one type: under its first layout number, arrays of all lengths together. */
typedef struct tri_layout_stat {
    uint32_t layout;      /* as in tri_type_data */
    const tri_type *type; /* NULL: untyped bytes */
    const char *name;     /* the type's, or "bytes" */
    size_t spans;         /* of its own; rare types of 64 to 2,048 bytes share others, which are counted for none */
    size_t objects;       /* slots in use, as in tri_class_stat; in shared spans objects alone */
    size_t bytes;         /* of these slots */
} tri_layout_stat;
/* The same by type, in the order of the numbers; types without a span or an object are left out. Writes at most n rows,
 * and returns how many there are, TRI_EINVAL or TRI_ENOMEM. */
TRI_API int tri_layout_stats(tri_heap *heap, tri_layout_stat *out, size_t n);

/* Writes what each page of the heap is to a file descriptor, as text: for each run of pages of one state a line
 *     <first page> <pages> <state> [<slots in use> <slots>]
 * by address, as far as the heap has grown. States: "small" (a span, with its slots), "large" (one object), "manual",
 * "free" (in memory), "returned" (free, not in memory: returned, or not touched yet), "taken" (in a thread's hands: its
 * pages for the next spans, or an object under construction). A look while the other threads run on, not a snapshot.
 * TRI_EINVAL when the descriptor cannot be written. Any thread; not a safepoint. */
TRI_API int tri_dump_heap_map(tri_heap *heap, int fd);

/* The object that an address lies in (interior too) and its type (NULL for untyped bytes), or NULL: nothing is
 * allocated there, it is unreachable and about to be freed, or it is not in this heap. The result is a reference:
 * root it before the next safepoint. SAFEPOINT when it has to wait, before it looks: when look-ups of unreachable
 * objects have kept a cycle from its end for some rounds, it waits for that end, for wait_limit_ms at most (NULL, with
 * TRI_ETIMEDOUT as the last error). Any attached thread. */
TRI_API void *tri_find(tri_thread *thread, const void *address, const tri_type **type);

/* Calls fn, on the collector's thread, for every object that the last cycle marked or that was allocated since, between
 * two cycles and with all threads stopped meanwhile. fn may not call trigc. Returns their number; 0 with TRI_ETIMEDOUT
 * as the last error when a cycle did not end, or a thread reached no safepoint, within wait_limit_ms. SAFEPOINT. Any
 * attached thread. */
TRI_API size_t tri_walk(tri_thread *thread, void (*fn)(void *obj, const tri_type *type, size_t size_bytes, void *arg),
                        void *arg);

/* Checks every span, bit, list and counter of the heap against each other, between two cycles and with all threads
 * stopped meanwhile. The number of contradictions, each of them reported; TRI_ETIMEDOUT as tri_walk. SAFEPOINT. Any
 * attached thread. */
TRI_API int tri_verify(tri_thread *thread);

#ifdef __cplusplus
}
#endif

#endif
