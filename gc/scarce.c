/* scarce.c - cycles where the program's threads need all cores: on one core, with a busy thread for each core, under a
 * control group's quota that threads use up.
 *
 * There a collector of its own stands in somebody's way, for as long as the system's slice: some milliseconds. A
 * yield does not help with a scheduler that goes by what each thread has had so far: who has had less stays on.
 * So the cycle is lent: whoever triggers it begins it, and the threads of the program carry it on in slices of 50 us
 * at their allocations, as in a heap without workers (step.c decides when). Between two slices it is nobody's. The
 * collector looks at it now and then: if no thread has run a slice meanwhile, or not enough of what death adds, it runs
 * one itself, and rests for as long as the running threads' share asks. Where nobody runs it does not rest.
 *
 *   lent         a cycle that a trigger began. Ends as every cycle does; whoever runs its last slice ends it
 *   not lent     what somebody waits for (tri_collect, the limit, a job), and what the modes of mode.c do: the
 *                collector's alone; a lent cycle that somebody waits for is the collector's from there on
 *   give way     in those, after each 200 us: a rest
 *
 * Invariants: I-LEND1 a lent cycle is under way, and handed over: nobody's, or its runner's (I-COL3). I-LEND2 a slice
 * is run in a blocking region and given back before its end, so nobody who has it is waited for at a safepoint. Lock
 * ranks: cycle (10), then threads (20). */
#include "gc/scarce.h"
#include "alloc/base/check.h"
#include "gc/fork.h"
#include "gc/mode.h"

enum {
    OWN_SLICE_NS = 200000,   /* of a thread of the heap's own */
    MOST_REST_NS = 20000000, /* between two of them */
    NAP_REST_NS = 50000,     /* the same, where nobody runs but threads whose nap may be over */
    LEAST_PART = 4,          /* a quarter of a core, or of a quota of less, is the collector's at least */
    HURRIED_PART = 2,        /* half of one while somebody waits for it */
    AWAY_PART = 8,           /* who was away for long works on for this part of it */
    CPU = 1000,              /* thousandths */
    LENT_WATCH_NS = 5000000, /* how long the collector leaves a lent cycle to others before it looks again */
    LENT_PATIENCE_NS = 2000  /* how long a mutator's slice waits for running threads */
};

/* ---- how many cores are left ----------------------------------------------------------------------------------- */

/* How many threads of the heap run, are neither in a blocking region nor wait inside the library; as many at most. */
static uint32_t threads_run(tri_heap *heap, uint32_t most) {
    uint32_t n = 0;
    tri__lock_acquire(&heap->threads_lock);
    for (const struct mutator *m = heap->threads; m && n < most; m = m->next)
        n += atomic_load_relaxed(&m->os->state) == OS_RUNNING; /* a hint */
    tri__lock_release(&heap->threads_lock);
    return n;
}

static bool has_spare_core(tri_heap *heap) {
    return (atomic_load_relaxed(&heap->nthreads) + 1) * CPU <= heap->millicpus; /* a hint */
}

/* Whether the threads of the program that run leave less than a quarter of a core. */
static bool cores_are_scarce(tri_heap *heap) {
    if (TRI_LIKELY(has_spare_core(heap))) return false;
    uint32_t used = threads_run(heap, heap->ncpus) * CPU;
    return used > 0 && used + CPU / LEAST_PART > heap->millicpus;
}

/* Nobody owes anything for what death adds, in the rounds and after the close: threads give it a slice at each slow
 * path, however much there is. */
static bool is_unpaid(tri_heap *heap) {
    enum phase phase = heap_phase(heap);
    return phase == PHASE_FLUSH || phase == PHASE_DEATH;
}

/* For how long it rests after a slice: what running threads leave is its share of a core, a quarter at least; half of
 * one while somebody waits, as two threads share it that are alike. By who runs the cycle. */
static uint64_t own_rest_ns(tri_heap *heap) {
    uint32_t all = heap->millicpus, used = threads_run(heap, heap->ncpus) * CPU;
    if (heap->nstops > 0) return 0;                                               /* rests would be everybody's */
    if (used == 0) return atomic_load_relaxed(&heap->nnapping) ? NAP_REST_NS : 0; /* a hint; the same for who waits */
    bool hurries = !heap->quota &&
                   (heap->run.hurries || is_unpaid(heap) || atomic_load_relaxed(&heap->wanted)); /* a hint */
    uint32_t left = all > used ? all - used : 0,
             least = (all < CPU ? all : CPU) / (hurries ? HURRIED_PART : LEAST_PART);
    uint64_t share = left > least ? left : least > 0 ? least : 1;
    return share >= CPU ? 0 : min_size(OWN_SLICE_NS * (CPU - share) / share, MOST_REST_NS);
}

/* ---- giving way ------------------------------------------------------------------------------------------------ */

/* The system's own slices are some milliseconds, for which a thread that shares the core would stand still. What the
 * collector does not get to mark, assists do. Under a quota its core may be free and is not to be used beside threads
 * that use all of it: what is used beyond the quota stops the whole program until the period's end. On a machine that
 * others keep busy a yield takes tens of milliseconds: the longer one took, the later comes the next. A CPU cap of less
 * than a core makes it rest, too. */
uint64_t tri__give_way(tri_heap *heap, uint64_t *since_ns) {
    uint64_t now = tri__os_now_ns();
    if (now < *since_ns + OWN_SLICE_NS) return 0;
    uint64_t slice_ns = now - *since_ns, rest_ns = tri__pace_rest_ns(heap, slice_ns);
    *since_ns = now;
    if (TRI_LIKELY(has_spare_core(heap)) && rest_ns == 0) return 0;
    tri__stats_pause(heap, TRI_PAUSE_CORE, slice_ns);
    if (!rest_ns) rest_ns = own_rest_ns(heap);
    if (rest_ns)
        tri__os_sleep_ns(rest_ns);
    else if (!heap->quota)
        tri__os_yield(); /* to threads that are not the heap's, or in a blocking region */
    uint64_t back_ns = tri__os_now_ns(), more_ns = (back_ns - now) / AWAY_PART;
    *since_ns = back_ns + (more_ns > OWN_SLICE_NS ? more_ns - OWN_SLICE_NS : 0);
    return back_ns - now;
}

/* ---- lent cycles ------------------------------------------------------------------------------------------------- */

/* Another cycle has been asked for, or a job: somebody waits for this one's end, or the heap does. Requires the cycle
 * lock. */
static bool is_waited_for(const tri_heap *heap) {
    return heap->wanted || heap->jobs;
}

bool tri__cycle_is_to_lend(tri_heap *heap) {
    return tri__mode(heap) == MODE_CONCURRENT && !tri__pace_is_capped(heap) && cores_are_scarce(heap);
}

void tri__cycle_lend(tri_heap *heap) {
    atomic_store_relaxed(&heap->lent, LENT_FREE);    /* read as a hint without the lock */
    atomic_store_relaxed(&heap->began_early, false); /* a hint */
    heap->lent_rest_ns = LENT_WATCH_NS;
}

/* The runner's slice is over. Requires the cycle lock. */
static void leave(tri_heap *heap, bool ended) {
    tri__runner_set(heap, RUNNER_NONE);
    atomic_store_relaxed(&heap->lent, ended ? LENT_NOT : LENT_FREE); /* as above */
    if (ended) {
        heap->handed_over = false;
        tri__cycle_end(heap);
    }
    if (is_waited_for(heap)) tri__collector_wake(heap);
}

/* Requires the cycle lock. */
static bool take(tri_heap *heap, enum cycle_runner runner) {
    bool takes = heap->lent && heap->runner == RUNNER_NONE;
    check_cheap(!heap->lent || heap->handed_over, "I-LEND1: a lent cycle is under way, and handed over");
    if (!takes) return false;
    tri__runner_set(heap, runner);
    atomic_store_relaxed(&heap->lent, LENT_TAKEN); /* as above */
    return true;
}

bool tri__lent_slice(tri_heap *heap, uint64_t deadline_ns) {
    if (atomic_load_relaxed(&heap->lent) != LENT_FREE) return false; /* a hint */
    tri__lock_acquire(&heap->cycle_lock);
    bool mine = !is_waited_for(heap) && take(heap, RUNNER_MUTATOR);
    heap->lent_slices += mine;
    tri__lock_release(&heap->cycle_lock);
    if (!mine) return false;
    tri__fork_forbid("a hook or a callback of a cycle");
    heap->patience_ns = LENT_PATIENCE_NS;
    heap->run.by_mutator = true;
    uint64_t start = tri__os_now_ns();
    bool ended = tri__cycle_continue(heap, deadline_ns);
    heap->run.by_mutator = false;
    tri__lock_acquire(&heap->cycle_lock);
    heap->lent_ns += tri__os_now_ns() - start;
    leave(heap, ended);
    tri__lock_release(&heap->cycle_lock);
    tri__fork_forbid(NULL);
    return true;
}

/* A slice, or all that is left when somebody waits for it. Requires the cycle lock; releases it meanwhile. */
static void run_own_slice(tri_heap *heap) {
    bool hurries = is_waited_for(heap);
    heap->run.hurries |= hurries;
    tri__lock_release(&heap->cycle_lock);
    heap->run.slice_ns = tri__os_now_ns(); /* a thread may have run it so far */
    heap->patience_ns = hurries ? UINT64_MAX : OWN_SLICE_NS;
    bool ended;
    do ended = tri__cycle_continue(heap, hurries ? UINT64_MAX : heap->run.slice_ns + OWN_SLICE_NS);
    while (hurries && !ended); /* false also where the world does not come to a stop (mode.c) */
    uint64_t rest_ns = ended || hurries ? 0 : own_rest_ns(heap);
    if (rest_ns) tri__stats_pause(heap, TRI_PAUSE_CORE, tri__os_now_ns() - heap->run.slice_ns);
    if (rest_ns && heap->run.posted) rest_ns = LENT_WATCH_NS; /* for an answer: there is nothing else to do */
    tri__lock_acquire(&heap->cycle_lock);
    heap->lent_rest_ns = rest_ns;
    leave(heap, ended);
}

/* Whether threads have carried the cycle on since then: they ran slices, and, where nobody owes, for as long as the
 * collector would have. Requires the cycle lock. */
static bool is_carried_on(tri_heap *heap, uint32_t nslices, uint64_t ran_ns, uint64_t since_ns) {
    if (is_unpaid(heap)) return (heap->lent_ns - ran_ns) * HURRIED_PART >= tri__os_now_ns() - since_ns;
    return heap->lent_slices != nslices;
}

void tri__lent_watch(tri_heap *heap) {
    uint32_t nslices = heap->lent_slices;
    uint64_t ran_ns = heap->lent_ns, since_ns = tri__os_now_ns();
    uint64_t rest_ns = heap->runner != RUNNER_NONE ? LENT_WATCH_NS : is_waited_for(heap) ? 0 : heap->lent_rest_ns;
    if (rest_ns) tri__cond_wait_for(&heap->cycle_wanted, &heap->cycle_lock, rest_ns);
    heap->lent_rest_ns = LENT_WATCH_NS;
    if (!is_waited_for(heap) && is_carried_on(heap, nslices, ran_ns, since_ns)) return;
    if (take(heap, RUNNER_COLLECTOR)) run_own_slice(heap);
}
