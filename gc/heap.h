/* heap.h - struct tri_heap, assembled: the only structure that sees all parts. Each part has its file:
 *
 *   config, options, create, destroy          heap.c
 *   mem       spans, pages, tables            alloc/memory.h
 *   threads   attached mutators, handshakes   mutator.c, safepoint.c, handshake.c
 *   roots     ranges, handles, stacks         roots.c, vmstack.c, suspended.c, native.c
 *   work      grey buffers                    work.c, mark.c
 *   workers   marking threads                 workers.c
 *   copies    of deep stacks                  stackcopy.c
 *   cycle     phases, collector thread        cycle.c, collector.c, step.c where there is none
 *   pacer     goal and trigger                pacer.c, limiter.c, pace.c
 *   death     weak slots, watches, what dies   death.c, weak.c, watch.c, finalize.c, wmap.c, ephemeron.c
 *   scavenger memory goes back                scavenger.c
 *   fork      all of it in a child            fork.c
 *   stats     counters, histograms            stats.c
 *   stress    switches of checked builds      stress.c
 *
 * Lock ranks: alloc/base/lock.h. */
#ifndef TRI_GC_HEAP_H
#define TRI_GC_HEAP_H

#include <trigc.h>
#include "alloc/base/pressure.h"
#include "alloc/base/os.h"
#include "alloc/memory.h"
#include "gc/death.h"
#include "gc/mutator.h"
#include "gc/pacer.h"
#include "gc/scavenger.h"
#include "gc/stackcopy.h"
#include "gc/units.h"
#include "gc/work.h"
#include "gc/workers.h"

/* The steps of a cycle (the table in docs/design.md). */
enum step { STEP_NONE = 0, STEP_ARM, STEP_SETTLE, STEP_SCAN, STEP_FLUSH, STEP_DISARM, STEP_RETIRE };

/* The phases between them. Edges: see phase_edges in cycle.c. */
enum phase {
    PHASE_IDLE = 0,
    PHASE_ARM,
    PHASE_SETTLE,
    PHASE_SCAN,
    PHASE_MARK,
    PHASE_FLUSH,
    PHASE_DEATH,
    PHASE_DISARM,
    PHASE_RETIRE,
    PHASE_SWEEP,
    NUM_PHASES
};

/* R5: whether making a reference out of something that is not a strong slot is allowed. [gate lock] */
enum weak_gate { GATE_IDLE = 0, GATE_OPEN, GATE_CLOSING, GATE_CLOSED };

enum { HANDLE_BLOCK_SLOTS = 510, PAUSE_BUCKETS = 48 };

struct handle_block {
    struct handle_block *next; /* [roots lock] */
    size_t nused;              /* slots ever used [roots lock] */
    struct tri_ref slots[HANDLE_BLOCK_SLOTS];
};

struct tri_root {
    struct tri_root *next, *prev; /* [roots lock] */
    tri_heap *heap;
    const tri_word *slots;
    size_t nslots;
    tri_enc enc;
};

struct roots {
    struct lock lock;             /* RANK_ROOTS; a scanner holds it over a few thousand slots (R17) */
    struct tri_root *ranges;      /* [lock] */
    struct handle_block *handles; /* [lock] */
    struct tri_ref *free_handles; /* list through the slots' words, tagged odd (R17) [lock] */
    struct tri_root *cursor;      /* range that the scanner is in, and the slot it comes to next [lock] */
    size_t cursor_slot;
    struct handle_block *handle_cursor; /* block that the scanner comes to next [lock] */
    struct tri_vmstack *stack_cursor;   /* stack that the scanner is in [lock] */
    size_t stack_cursor_words;          /* of it that are scanned [lock] */
    bool stack_in_frames;               /* all of its words are, and its frames as far as this [lock] */
    struct frame_cursor stack_frames;
    struct tri_vmstack *stacks; /* all of the heap, running ones too [lock] */
    size_t nslots;              /* of all ranges, for the pacer [lock] */
    uint32_t nwaiting;          /* threads that want the lock for a suspended stack [atomic] */
    size_t deep_bytes;          /* of suspended stacks that will be copied [atomic] */
};

/* Work for the collector's thread besides cycles: run with the world stopped, between cycles. */
struct job {
    struct job *next;
    void (*fn)(tri_heap *heap, void *arg);
    void *arg;
    bool done; /* [cycle lock] */
    bool ran;  /* false: a silent thread kept the world from stopping [collector, before done] */
};

struct stress {
    uint32_t collect_every;             /* a cycle at every n-th slow path; 0: off [atomic] */
    uint32_t delay_us;                  /* random delays of up to this; 0: off [atomic] */
    uint32_t slow;                      /* every allocation and store takes its slow path [atomic] */
    uint32_t copy;                      /* stacks are copied, however shallow [atomic] */
    uint32_t here;                      /* the thread that triggers a cycle runs it, short or not [atomic] */
    uint32_t checkmark, poison, verify; /* [atomic] */
    uint32_t manual_check;              /* [atomic] */
    uint32_t fault;                     /* planted fault for tests (checked builds only), enum fault [atomic] */
    uint64_t report_cycle;              /* cycle of cycle_reports [atomic] */
    uint32_t cycle_reports;             /* found in that cycle [atomic] */
    uint64_t reports;                   /* what the checking modes have found [atomic] */
};

/* Faults that tests plant to see that the machinery reports them ("fault=NAME"). */
enum fault {
    FAULT_NONE = 0,
    FAULT_NO_BARRIER,
    FAULT_NO_SETTLE,
    FAULT_DROP_MARK,
    FAULT_FORGET_ROOT,
    FAULT_FLUSH_BLIND,
    FAULT_STORE_POLLS,    /* R1: a safepoint between shading and store */
    FAULT_EARLY_TRACE,    /* R4: tracing does not wait for the last scan answer */
    FAULT_GATE_OPEN,      /* R5: the gate lets everything through after the close */
    FAULT_SKIP_STACKS,    /* R8: suspended stacks are not scanned */
    FAULT_ATTACH_LATE,    /* R9: a newcomer looks at the last step before it has the lock */
    FAULT_BARE_ROOT,      /* R17: what enters or leaves a root is not shaded */
    FAULT_KEEP_WEAK,      /* R7: weak slots of dead objects are not cleared */
    FAULT_LOSE_COPY,      /* what a copied stack holds is not shaded */
    FAULT_COPY_UNCOUNTED, /* R3: a round closes with a copy unshaded */
    FAULT_FORK_LOCK,      /* R20: fork does not take the lock of the roots */
    FAULT_LATE_MAPS,      /* R6: weak maps are not settled before the close */
    FAULT_NO_RESCAN,      /* mode insertion: stacks are not scanned again */
    FAULT_FRESH_BLACK,    /* mode insertion: what was allocated black is not scanned in the stop */
};

struct stats {
    uint64_t cycles, mark_ns, assist_ns, sweep_ns, worst_pause_ns, worst_told, handshakes, marked_objects;
    uint64_t stall_ns, limited_cycles, capped_cycles;
    uint64_t worker_ns; /* that the threads of workers.c have marked */
    uint64_t death_ns;  /* passes over weak maps, and death, without what they trace (mark_ns) */
    uint32_t limiter_percent, cpu_permille, widened_percent;
    uint64_t allocated_bytes, cycle_assist_ns;
    uint64_t cycles_here, cycles_handed; /* begun by mutators, and of those handed over */
    /* worst_told: of the cycle, with its kind in the lowest bits, and a rank */
    uint64_t pauses[TRI_PAUSE_KINDS][PAUSE_BUCKETS];
}; /* all [atomic] */

/* Who runs a cycle, or a job, now. */
enum cycle_runner { RUNNER_NONE = 0, RUNNER_COLLECTOR, RUNNER_MUTATOR };

/* Whether what is handed over is the program's threads' to carry on, and whether somebody runs it now (scarce.c). */
enum lent { LENT_NOT = 0, LENT_FREE, LENT_TAKEN };

/* What the cycle that runs, or ran last, is about; written by whoever runs it (collector.c). */
struct cycle_run {
    const char *reason;
    uint64_t slice_ns;          /* when the collector last gave way, and later by what it has slept since */
    uint64_t away_ns;           /* for how long it was away when it gave way, in all */
    uint64_t start_ns, mark_ns; /* when it began; stats.mark_ns then, afterwards what it spent marking */
    size_t heap_before_bytes, before_flip_bytes; /* at its begin, before the flip */
    struct pacer_cycle paced;                    /* what it has shown up to the close */
    uint64_t worker_ns, stall_ns, death_ns;      /* of stats, at its begin */
    bool hurries;                                /* somebody waits for it: the CPU cap holds nobody back */
    size_t live_bytes;                           /* that survived */
    uint64_t end_ns;                             /* when every thread had retired */
    uint32_t rounds;
    bool stopped;                    /* the world is, for the cycle's sake (mode.c) */
    bool posted;                     /* the phase's step is posted, and not all answers have come */
    bool scanned;                    /* H3 is answered */
    bool settling;                   /* the round has all its answers, weak maps are being settled (R6) */
    bool dropping;                   /* all is swept, what lies empty goes back to the page heap */
    uint64_t posted_ns, silent_told; /* when the last step was posted, how often its silence has been told of */
    bool by_mutator;                 /* a thread runs a slice of it, lent (scarce.c) */
    uint64_t lent_mark_ns;           /* marked in such slices */
    bool lazy; /* its sweep is left to those who need spans, and to whoever starts the next cycle */
};

struct tri_heap {
    struct tri_config config; /* [const] but for what tri_heap_set changes [cycle lock] */
    struct memory mem;

    struct tri_heap *next_heap; /* of the process [heaps lock, fork.c] */
    struct mutator *left;       /* attachments of threads that a fork's child has not [threads lock to write] */
    struct lock left_lock;      /* RANK_OSTHREAD: stands in for those threads' own */
    bool forked, stale_marks;   /* in such a child, before its first cycle: tri__fork_settle [who runs cycles] */

    struct lock threads_lock;    /* RANK_THREADS */
    struct mutator *threads;     /* [threads lock] */
    struct mutator *look_next;   /* whom the collector looks at next, of those that owe an answer [threads lock] */
    uint32_t nthreads;           /* [threads lock to write, atomic] */
    uint64_t step_seq;           /* number of the last posted step [threads lock to write, atomic] */
    enum step last_step;         /* last posted step (R9) [threads lock] */
    uint32_t posted_gen;         /* generation of the last posted H6 (R9) [threads lock] */
    uint32_t pending;            /* futex: answers owed to the last posted step [atomic] */
    uint64_t looked_ns;          /* when an allocation last looked for answers that are missing [atomic] */
    uint64_t step_posted_ns;     /* when the last step, or a request for a cycle, was posted [atomic] */
    uint32_t collector_sleeps;   /* it waits on pending [atomic] */
    uint32_t millicpus;          /* thousandths of cores, or what the control group's quota grants if less [const] */
    uint32_t ncpus;              /* the same in cores, rounded up [const] */
    bool quota;                  /* it is less: cores may be free that must not be used [const] */
    size_t cache_bytes;          /* of a core's own cache [const] */
    uint32_t nstops;             /* world stops within each other [who runs cycles] */
    uint32_t stopping;           /* futex: world is stopped or being stopped [atomic] */
    struct fixalloc fix_mutator; /* mutators; never unmapped while the heap lives */

    struct roots roots;
    struct work work;
    struct copies copies;
    struct fixalloc fix_small;  /* stacks, ranges, scanners: 128-byte blocks */
    struct fixalloc fix_block;  /* handle and scope blocks: 4 KiB */
    struct fixalloc fix_worker; /* records of marking threads */

    enum phase phase;      /* written by who runs the cycle [atomic] */
    enum weak_gate gate;   /* [mem.gate lock] */
    bool spoiled;          /* a flush round was spoiled (R5) [mem.gate lock] */
    uint32_t loads_wait;   /* futex: loads through the gate wait for the close (R5) [mem.gate lock to write, atomic] */
    uint64_t cycle_number; /* of the running or last cycle [atomic] */
    uint32_t tracing;      /* assists may start (R3) [atomic] */
    uint32_t nassists;     /* assists that are running [atomic] */
    uint32_t found;        /* an answer in this flush round was "any" [atomic] */
    struct marker worker;  /* of who runs the cycle */
    struct page_set page_set;
    struct workers workers;

    struct lock cycle_lock; /* RANK_CYCLE */
    struct cond cycle_wanted, cycle_done;
    bool quit;                  /* [cycle lock] */
    const char *wanted;         /* reason, NULL: none [cycle lock to write, atomic] */
    uint64_t started, finished; /* cycles begun, and ended with their sweep [cycle lock] */
    struct job *jobs;           /* [cycle lock] */
    struct cycle_run run;       /* by who runs the cycle; changes hands under the cycle lock */
    uint64_t patience_ns;       /* how long a cycle may wait for running threads before it is left for later [same] */
    bool handed_over;           /* the cycle has begun, and is left to the collector, or lent [cycle lock] */
    enum cycle_runner runner;   /* I-COL3 [cycle lock] */
    uint8_t lent;          /* what is handed over is the program's threads' to carry on [cycle lock to write, atomic] */
    uint32_t lent_slices;  /* that they have run [cycle lock] */
    uint64_t lent_ns;      /* for which they ran [cycle lock] */
    uint64_t lent_rest_ns; /* how long the collector leaves it to them now [cycle lock] */
    uint32_t here_failed;  /* how many cycles it left to the collector after the last failure [cycle lock] */
    uint32_t here_rests;   /* how many of these are left [cycle lock] */
    size_t here_trigger_bytes; /* where it runs the next one; SIZE_MAX: not before trigger_bytes [atomic] */
    size_t here_window_bytes;  /* what it allocates between two of them [who runs such cycles] */
    uint64_t here_ended_ns;    /* when its last one was over [who runs such cycles] */
    bool turn_taken;           /* without workers: a thread runs cycles now [cycle lock to write, atomic] */
    uint32_t nturns;           /* threads that run a cycle or a job so, or wait for the turn to [cycle lock] */
    bool began_early;          /* without workers: a step began the cycle before its time [atomic] */
    uint32_t mode;             /* enum mode [cycle lock to write, atomic] */
    uint64_t rescanned_cycle;  /* mode insertion: the last one whose second scan is over [in the stop; atomic] */
    bool stepped;              /* cycles run in slices on the program's threads (step.c) [same] */
    bool threadless;           /* without workers: it starts no thread of its own [const once made] */
    bool made;                 /* tri_heap_create has returned it [const once made] */
    struct os_thread collector;
    bool collector_lost; /* in a fork's child: not started yet [cycle lock] */
    uint32_t triggered;  /* a trigger has been sent and not been served yet [atomic] */

    struct lock pace_lock;       /* RANK_PACE */
    struct pacer pacer;          /* its figures below are what others read [pace lock] */
    size_t trigger_bytes;        /* [pace lock to write, but for lower_goal; atomic] */
    size_t goal_bytes;           /* [as trigger_bytes] */
    size_t hard_goal_bytes;      /* [pace lock to write, atomic] */
    uint32_t nnapping;           /* threads in a nap beyond the goal [atomic] */
    uint32_t nallocating;        /* threads that have allocated since the cycle's begin [atomic] */
    uint32_t assist_ratio_x256;  /* [atomic] */
    int64_t background_credit;   /* bytes marked by who runs the cycle and not yet borrowed [atomic] */
    size_t heap_bytes;           /* live with all taken since [atomic] */
    size_t live_bytes;           /* [atomic] */
    size_t external_bytes;       /* [atomic] */
    uint64_t cycle_marked_bytes; /* by everyone in this cycle [atomic] */
    uint64_t cycle_black_bytes;  /* taken black in this cycle [atomic] */
    uint32_t *cold_bytes;        /* by layout: allocated in mixed spans so far [atomic entries] */
    struct death death;
    struct stats stats;
    struct scavenger scavenger;
    struct stress stress;
    bool trace;          /* TRI_TRACE=1 [const] */
    uint64_t whole_ns;   /* spent on whole checks that nobody asked for (-Dchecks=3) [who runs cycles] */
    uint64_t created_ns; /* [const] */
};

/* What the goal and the trigger are compared with: bytes in the heap and those that the host holds for it outside. */
static inline size_t heap_total_bytes(tri_heap *heap) {
    return atomic_load_relaxed(&heap->heap_bytes) + atomic_load_relaxed(&heap->external_bytes); /* counters */
}

static inline bool heap_is_beyond_goal(tri_heap *heap) {
    return heap_total_bytes(heap) > atomic_load_relaxed(&heap->goal_bytes); /* counters */
}

static inline enum phase heap_phase(tri_heap *heap) {
    return (enum phase)atomic_load_acquire(&heap->phase); /* pairs with phase_set's release */
}

/* A look at the clock, between two pieces of what can be left at a deadline (I-STEP4). UINT64_MAX: there is none. */
static inline bool heap_is_late(tri_heap *heap, uint64_t deadline_ns) {
    tri__units_look((uint32_t)heap_phase(heap));
    return deadline_ns != UINT64_MAX && tri__os_now_ns() >= deadline_ns;
}

/* Thousandths of cores as cores that are used, the last one for a part of the time. */
static inline uint32_t cpus_whole(uint32_t millicpus) {
    return (millicpus + 999) / 1000;
}

/* What the heap may use of so many processors, by the control group's quota now: when the heap is made. */
static inline void heap_use_cpus(tri_heap *heap, uint32_t ncpus) {
    heap->millicpus = tri__group_millicpus(ncpus);
    heap->ncpus = cpus_whole(heap->millicpus);
    heap->quota = heap->millicpus < ncpus * 1000;
}

/* pace.c: the heap's pacer. By who runs the cycle, but for the last. */
void tri__pace_init(tri_heap *heap);
/* When a cycle begins; while it marks; at the close; and, with what survived it, when its garbage is known. */
void tri__pace_begin(tri_heap *heap);
void tri__pace_update(tri_heap *heap);
void tri__pace_close(tri_heap *heap);
void tri__pace_next(tri_heap *heap, size_t live_bytes);
/* An option has changed: goal and trigger of the cycle to come, and the pace of the one that runs. Any thread. */
void tri__pace_again(tri_heap *heap);
/* For how long a thread of the heap's own rests after so much work, and how many may mark, under the CPU cap. */
uint64_t tri__pace_rest_ns(tri_heap *heap, uint64_t worked_ns);
uint32_t tri__pace_markers(tri_heap *heap);
bool tri__pace_is_capped(const tri_heap *heap);

/* wait_limit_ms in nanoseconds, at most a hundred years. */
static inline uint64_t heap_wait_limit_ns(const tri_heap *heap) {
    const uint64_t most_ms = 100ull * 365 * 24 * 3600 * 1000;
    uint64_t ms = atomic_load_relaxed(&heap->config.wait_limit_ms); /* an option */
    return (ms < most_ms ? ms : most_ms) * 1000000;
}
/* silent_after_ms in nanoseconds; 0: nobody is told. */
static inline uint64_t heap_silent_ns(const tri_heap *heap) {
    return (uint64_t)atomic_load_relaxed(&heap->config.silent_after_ms) * 1000000; /* an option */
}

/* collector.c */
bool tri__collector_start(tri_heap *heap);
/* In a fork's child: no request and no thread, until somebody asks for a cycle. */
void tri__collector_after_fork(tri_heap *heap);
void tri__collector_stop(tri_heap *heap);
/* Asks for a cycle without waiting. Any thread. */
void tri__cycle_request(tri_heap *heap, const char *reason);
/* Waits for a cycle that starts after the call (R14); false when timeout_ns passed. */
bool tri__cycle_wait(struct mutator *m, const char *reason, uint64_t timeout_ns);
bool tri__cycle_wait_at_limit(struct mutator *m); /* for "limit", a pause; wait_limit_ms at most */
/* Runs fn on the collector's thread with the world stopped, between cycles, and waits for it. False: the world could
 * not be stopped within wait_limit_ms. */
bool tri__collector_run(struct mutator *m, void (*fn)(tri_heap *, void *), void *arg);

/* Runs a cycle on the calling thread, if the last cycle was so short that waking the collector would cost more; what
 * does not fit into a slice is left to the collector, or lent (scarce.c). False: not done, ask for one. */
bool tri__cycle_here(struct mutator *m, const char *reason);

/* Whether cycles run in slices; a hint for who does not hold the cycle lock: the mode may change (mode.c). */
static inline bool tri__is_stepped(const tri_heap *heap) {
    return atomic_load_relaxed(&heap->stepped);
}

/* step.c: what takes the collector's place in a heap without workers. */
/* A slow path's share of the cycle, after its safepoint. True if the thread owes more. */
bool tri__step_pace(struct mutator *m);
/* As tri__cycle_wait and tri__collector_run, in a blocking region. Require the cycle lock; release it meanwhile. */
bool tri__step_collect(tri_heap *heap, const char *reason, uint64_t until_ns);
bool tri__step_job(tri_heap *heap, void (*fn)(tri_heap *, void *), void *arg, uint64_t until_ns);
/* In a blocking region: waits for a moment for *word to be no longer 1, in such a heap, or where the cycle is lent, by
 * running it on. */
void tri__step_or_wait(tri_heap *heap, const uint32_t *word);

/* collector.c: what keeps cycles and stops of the world from their end, in words. No lock is held. */
const char *tri__why_late(tri_heap *heap);

/* cycle.c: begins a cycle; every span is swept. Then as much of it as there is time for. False: call it again. By who
 * runs the cycle. */
void tri__cycle_start(tri_heap *heap, const char *reason);
/* In a fork's child: no cycle runs. True if one was abandoned; false if none ran, or its flip was over. */
bool tri__cycle_after_fork(tri_heap *heap);
bool tri__cycle_continue(tri_heap *heap, uint64_t deadline_ns);
/* For mode.c: marks until nothing is grey, with the world stopped; closes the gate, false when the round was
 * spoiled. */
void tri__cycle_mark(tri_heap *heap);
bool tri__cycle_close(tri_heap *heap);
/* Sweeps whatever the last cycle has left unswept. False: something is left. By who may run a cycle, between two. */
bool tri__cycle_sweep(tri_heap *heap, uint64_t deadline_ns);

/* Until when a wait for running threads may take that began now. */
static inline uint64_t heap_patience_end(const tri_heap *heap, uint64_t deadline_ns) {
    uint64_t now_ns = tri__os_now_ns();
    if (deadline_ns < now_ns) return deadline_ns;
    return deadline_ns - now_ns < heap->patience_ns ? deadline_ns : now_ns + heap->patience_ns;
}

/* roots.c: shades what is not any thread's, concurrently with mutators; collector only. */
void tri__roots_init(tri_heap *heap);
void tri__roots_fini(tri_heap *heap);
/* Ranges and handles, from where the last call left off; also suspended stacks begin anew at scan_begin. False: the
 * deadline passed. */
void tri__roots_scan_begin(tri_heap *heap);
bool tri__roots_scan(tri_heap *heap, struct marker *marker, uint64_t deadline_ns);
/* suspended.c: from the first stack on. Requires the roots lock. */
void tri__vmstacks_scan_begin(tri_heap *heap);
/* Stacks that nobody has scanned in this cycle (R8), in the same way. */
bool tri__vmstacks_scan_suspended(tri_heap *heap, struct marker *marker, uint64_t deadline_ns);
/* Checked builds, at the close: none is left (R8). */
void tri__vmstacks_check_scanned(tri_heap *heap);
/* Queues what a stack holds: from a copy as far as there is room in it, the rest in place. */
void tri__vmstack_scan(struct tri_vmstack *stack, struct marker *marker, struct copying *copying);
size_t tri__vmstack_bytes(const struct tri_vmstack *stack);
void tri__vmstacks_release_all(struct mutator *m);
/* native.c: the stack that a thread ends on is forgotten with it. */
void tri__native_release(struct mutator *m);
/* In a fork's child: stacks of threads that are not in this process are nobody's, of no use but to be removed. */
void tri__vmstacks_forget(tri_heap *heap);

/* barrier.c */
/* Shades the reference in a word that is about to be overwritten or stored: `kind` and `enc` say how to read it. */
void tri__shade_word(struct mutator *m, tri_word w, enum slot_kind kind, const tri_enc *enc);
/* R5: what a load gets that makes a reference from something that is no strong slot: nothing; the object, which is
 * shaded; or it has to wait for the close as a blocked thread (R14), and to ask again. */
enum gate_answer { GATE_REFUSES = 0, GATE_ALLOWS, GATE_DELAYS };
enum gate_answer tri__gate_load(struct mutator *m, uintptr_t addr);
/* The same for an armed thread, without the lock where the object is marked. */
enum gate_answer tri__gate_load_quick(struct mutator *m, uintptr_t addr);
/* inspect.c: waits for the close as a blocked thread; false, with TRI_ETIMEDOUT set for `call`, when wait_limit_ms have
 * passed since start_ns. */
bool tri__gate_wait(struct mutator *m, uint64_t start_ns, const char *call);
/* Whether a slot lives, between cycles or before H1. Gate lock held, or the world stopped. */
bool tri__lives(tri_heap *heap, const struct slot *slot);

static inline struct lock *tri__wmap_lock(tri_heap *heap, const struct wmap *map) {
    return &heap->death.maps.locks[(uintptr_t)map / 128 % WMAP_LOCKS];
}

/* manual.c: zeroed manual memory for tables of the library's own; NULL, with the error set for `call`, without memory.
 * Nothing locked. */
void *tri__manual_table_new(tri_heap *heap, const char *call, size_t size_bytes);
void tri__manual_table_free(tri_heap *heap, void *table);

/* alloc.c */
void tri__heap_account(struct mutator *m);
/* The parts of pacing: takes over credit, one slice of marking, a nap beyond the goal. */
void tri__borrow_credit(struct mutator *m);
void tri__assist(struct mutator *m);
void tri__throttle(struct mutator *m);
/* What requests for 0 bytes get, in every heap. */
void *tri__zero_address(void);

/* stats.c */
/* A mutator was kept from running until now. No lock held; `m` NULL: the calling thread, attached or not. */
void tri__stats_pause_of(tri_heap *heap, const struct mutator *m, int kind, uint64_t ns);
void tri__stats_pause_lock(tri_heap *heap, const struct mutator *m, int rank, uint64_t ns);
static inline void tri__stats_pause(tri_heap *heap, int kind, uint64_t ns) {
    tri__stats_pause_of(heap, NULL, kind, ns);
}
/* The thread's answers to steps, or a wait while somebody else answers for it: a handshake, and the scan of its roots
 * as far as it falls into that time. The longer part is the cause. */
void tri__stats_answer(const struct mutator *m, uint64_t start_ns, uint64_t end_ns);
uint64_t tri__stats_scan_within(const struct mutator *m, uint64_t start_ns, uint64_t end_ns);
/* The thread's own waits for locks since it told last. */
static inline void tri__stats_locks(const struct mutator *m) {
    int rank;
    uint64_t ns = tri__lock_take_waited(&rank);
    if (TRI_UNLIKELY(ns > 0)) tri__stats_pause_lock(m->heap, m, rank, ns);
}
/* A wait for a cycle at the limit of memory: whose line is told before the wait is over. */
void tri__stats_limit_begin(struct mutator *m);
void tri__stats_limit_end(struct mutator *m, uint64_t ns);
/* The longest since this was asked last, and its kind; of a wait for locks, the rank of the one that took longest. */
uint64_t tri__stats_take_worst(tri_heap *heap, uint32_t *kind, int *rank);
/* Tells the hook of a phase (TRI_HEAP_EVENTS). */
void tri__stats_phase(tri_heap *heap, enum phase phase);
/* What collecting has taken, ever: marking, passes over weak maps and death, sweeping, assists. */
uint64_t tri__stats_busy_ns(tri_heap *heap);
void tri__stats_trace_cycle(tri_heap *heap, const tri_event *event, int rank);

/* stress.c */
#if TRI_CHECKS >= 1
void tri__stress_delay(tri_heap *heap);
/* The end of a poll's slow path: a request for a cycle at every n-th; with stress.slow the next poll is slow again. */
void tri__stress_poll(struct mutator *m);
void tri__stress_drop_a_mark(tri_heap *heap);
/* Counts a finding; true for the first few of a cycle, which are worth printing. */
bool tri__stress_may_report(tri_heap *heap);
static inline bool heap_fault(tri_heap *heap, enum fault fault) {
    return TRI_UNLIKELY(atomic_load_relaxed(&heap->stress.fault) == (uint32_t)fault); /* a test's switch */
}
#else
static inline void tri__stress_delay(tri_heap *heap) {
    (void)heap;
}
static inline void tri__stress_poll(struct mutator *m) {
    (void)m;
}
static inline bool tri__stress_may_report(tri_heap *heap) {
    (void)heap;
    return true;
}
static inline bool heap_fault(tri_heap *heap, enum fault fault) {
    (void)heap;
    (void)fault;
    return false;
}
#endif
/* True if key was one of the stress switches; *err is then the result. */
bool tri__stress_set(tri_heap *heap, const char *key, const char *value, int *err);

/* checkmark.c, manual_check.c, verify.c; collector only, world stopped. The number of contradictions. */
int tri__checkmark(tri_heap *heap);
int tri__manual_check(tri_heap *heap);
int tri__verify(tri_heap *heap);
/* At the end of a cycle, by who ran it: where verify=1 or the build's checks ask for it. */
void tri__verify_cycle(tri_heap *heap);

#endif
