/* collector.c - the heap's collector thread: waits for requests, runs cycles and jobs.
 *
 * One thread a heap. It is the only one that changes phases, but for two cases. When the last cycle was over in
 * microseconds, the thread that triggers the next one runs it itself, as a blocked thread (waking the collector and
 * being woken takes longer than such a cycle, and meanwhile a fast allocator fills a small heap several times over).
 * Other threads answer it at their safepoints as they answer the collector; when it has to wait for one, or the slice
 * is over, the collector goes on from there.
 * And where the program's threads need all cores a cycle is lent to them: scarce.c.
 * Who wants a cycle says so under the cycle lock; who waits for one does it as a blocked thread, holding nothing else
 * (R14).
 *
 * Invariants: I-COL1 cycles begin and end under the cycle lock's counters: started >= finished. I-COL2 a waiter is let
 * go only by a cycle whose H1 came after its request (R14). I-COL3 one thread at a time runs cycles and jobs:
 * the collector, or a mutator, until it gives the cycle back. Lock ranks: cycle (10), then threads (20). */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"
#include "gc/mode.h"
#include "gc/scarce.h"

/* A cycle on the thread that triggers it: for heaps whose last cycle marked for no longer than that, which have no more
 * spans than this to sweep (30 ns each) and no more slots of global roots; how long it may take, and wait for one other
 * thread; the most to allocate between two; and of how many the collector is left in charge when others were waited for
 * in vain, at most. */
enum {
    HERE_LAST_MARK_NS = 30000,
    HERE_SPANS = 2048,
    HERE_ROOT_SLOTS = 4096,
    HERE_SLICE_NS = 50000,
    HERE_PATIENCE_NS = 10000,
    HERE_MOST_RESTS = 63,
    HERE_RUNWAY_FRACTION = 4,
    HERE_WINDOW_BYTES = 8 << 20
};

/* Starts it in the child of a fork, where it is not. */
void tri__collector_wake(tri_heap *heap) {
    if (TRI_UNLIKELY(heap->collector_lost)) heap->collector_lost = !tri__collector_start(heap); /* else the next time */
    tri__cond_broadcast(&heap->cycle_wanted);
}

void tri__cycle_request(tri_heap *heap, const char *reason) {
    tri__lock_acquire(&heap->cycle_lock);
    if (!heap->wanted) atomic_store_relaxed(&heap->wanted, reason); /* read without the lock by step.c */
    atomic_store_relaxed(&heap->step_posted_ns, tri__os_now_ns());  /* a hint for throttle */
    tri__collector_wake(heap);
    tri__lock_release(&heap->cycle_lock);
}

struct cycle_waiter {
    tri_heap *heap;
    const char *reason;
    uint64_t timeout_ns;
    bool ended;
};

static void wait_for_cycle(void *p) {
    struct cycle_waiter *w = p;
    tri_heap *heap = w->heap;
    uint64_t start = tri__os_now_ns();
    tri__lock_acquire(&heap->cycle_lock);
    if (heap->stepped) {
        w->ended = tri__step_collect(heap, w->reason, start + w->timeout_ns);
        tri__lock_release(&heap->cycle_lock);
        return;
    }
    uint64_t target = heap->started + 1; /* I-COL2 */
    while (heap->finished < target) {
        if (heap->started < target) { /* asked for until it begins: one that is running does not count */
            atomic_store_relaxed(&heap->wanted, w->reason);
            tri__collector_wake(heap);
        }
        uint64_t waited = tri__os_now_ns() - start;
        if (waited >= w->timeout_ns) break;
        tri__cond_wait_for(&heap->cycle_done, &heap->cycle_lock, w->timeout_ns - waited);
    }
    w->ended = heap->finished >= target;
    tri__lock_release(&heap->cycle_lock);
}

bool tri__cycle_wait(struct mutator *m, const char *reason, uint64_t timeout_ns) {
    struct cycle_waiter w = {m->heap, reason, timeout_ns, false};
    tri__stats_pause_of(m->heap, m, TRI_PAUSE_WAIT, tri__blocking_wait(m, wait_for_cycle, &w));
    return w.ended;
}

bool tri__cycle_wait_at_limit(struct mutator *m) {
    struct cycle_waiter w = {m->heap, "limit", heap_wait_limit_ns(m->heap), false};
    tri__stats_limit_begin(m);
    tri__stats_limit_end(m, tri__blocking_wait(m, wait_for_cycle, &w));
    return w.ended;
}

struct job_waiter {
    tri_heap *heap;
    struct job job;
};

/* Takes a job that has not begun off the list. Requires the cycle lock. */
static bool unlink_job(tri_heap *heap, struct job *job) {
    for (struct job **p = &heap->jobs; *p; p = &(*p)->next)
        if (*p == job) {
            *p = job->next;
            return true;
        }
    return false;
}

/* Bounded (R14): by the wait for its turn here, by the stop of the world once it has begun. */
static void wait_for_job(void *p) {
    struct job_waiter *w = p;
    tri_heap *heap = w->heap;
    uint64_t start = tri__os_now_ns(), limit_ns = heap_wait_limit_ns(heap);
    tri__lock_acquire(&heap->cycle_lock);
    if (heap->stepped) {
        w->job.ran = tri__step_job(heap, w->job.fn, w->job.arg, start + limit_ns);
        tri__lock_release(&heap->cycle_lock);
        return;
    }
    w->job.next = heap->jobs;
    heap->jobs = &w->job;
    tri__collector_wake(heap);
    while (!w->job.done) {
        uint64_t waited = tri__os_now_ns() - start;
        if (waited >= limit_ns && unlink_job(heap, &w->job)) break;
        tri__cond_wait_for(&heap->cycle_done, &heap->cycle_lock,
                           waited < limit_ns ? limit_ns - waited : max_size(limit_ns, 1000000)); /* it runs */
    }
    tri__lock_release(&heap->cycle_lock);
}

bool tri__collector_run(struct mutator *m, void (*fn)(tri_heap *, void *), void *arg) {
    struct job_waiter w = {m->heap, {NULL, fn, arg, false, false}};
    tri__stats_pause_of(m->heap, m, TRI_PAUSE_WAIT, tri__blocking_wait(m, wait_for_job, &w));
    return w.job.ran;
}

void tri__runner_set(tri_heap *heap, enum cycle_runner runner) {
    check_cheap((heap->runner == RUNNER_NONE) != (runner == RUNNER_NONE), "I-COL3: one thread at a time runs cycles");
    heap->runner = runner;
}

/* Requires the cycle lock; releases it meanwhile. */
static void run_job(tri_heap *heap) {
    struct job *job = heap->jobs;
    heap->jobs = job->next;
    tri__runner_set(heap, RUNNER_COLLECTOR);
    tri__lock_release(&heap->cycle_lock);
    heap->run.hurries = true; /* the sweep that is left of it */
    tri__cycle_sweep(heap, UINT64_MAX);
    job->ran = tri__world_stop(heap);
    if (job->ran) {
        job->fn(heap, job->arg);
        tri__world_start(heap);
    }
    tri__lock_acquire(&heap->cycle_lock);
    tri__runner_set(heap, RUNNER_NONE);
    job->done = true; /* the waiter's frame may be gone from here on */
    tri__cond_broadcast(&heap->cycle_done);
}

void tri__cycle_end(tri_heap *heap) {
    heap->finished++;
    check_cheap(heap->started == heap->finished, "I-COL1: one cycle at a time");
    tri__cond_broadcast(&heap->cycle_done);
}

/* A new cycle, or the rest of one that a thread has begun. Requires the cycle lock; releases it meanwhile. */
static void run_cycle(tri_heap *heap) {
    const char *reason = heap->handed_over ? NULL : heap->wanted;
    tri__runner_set(heap, RUNNER_COLLECTOR);
    if (reason) {
        atomic_store_relaxed(&heap->wanted, NULL);
        heap->started++;
    }
    heap->handed_over = false;
    heap->run.lazy = false;
    heap->run.slice_ns = tri__os_now_ns(); /* a thread may have run it so far */
    tri__lock_release(&heap->cycle_lock);
    heap->patience_ns = UINT64_MAX;
    if (reason) {
        tri__cycle_sweep(heap, UINT64_MAX); /* R21: before H1 */
        tri__cycle_start(heap, reason);
    }
    bool lends = reason && !heap->run.hurries && tri__cycle_is_to_lend(heap);
    while (!lends && !tri__cycle_continue(heap, UINT64_MAX)) {} /* false where the world does not stop (mode.c) */
    tri__lock_acquire(&heap->cycle_lock);
    tri__runner_set(heap, RUNNER_NONE);
    heap->handed_over = lends;
    if (lends)
        tri__cycle_lend(heap);
    else
        tri__cycle_end(heap);
}

/* ---- a cycle on the thread that triggers it -------------------------------------------------------------------- */

struct here {
    tri_heap *heap;
    const char *reason;
    uint64_t start_ns;
    bool small, lend; /* the cycle will be short; it is lent if it is not */
};

/* It is short as far as the last one tells. */
static bool is_small(tri_heap *heap) {
    bool short_last = heap->run.mark_ns <= HERE_LAST_MARK_NS || atomic_load_relaxed(&heap->stress.here); /* a switch */
    if (!short_last || atomic_load_relaxed(&heap->mem.nspans) > HERE_SPANS) return false;                /* a counter */
    tri__lock_acquire(&heap->roots.lock);
    bool few = heap->roots.nslots <= HERE_ROOT_SLOTS;
    tri__lock_release(&heap->roots.lock);
    return few;
}

/* Becomes the one that runs cycles, if the collector is idle. */
static bool borrow(tri_heap *heap, struct here *here) {
    if (atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_NO_CYCLES) return false; /* an option */
    tri__lock_acquire(&heap->cycle_lock);
    bool idle = tri__mode(heap) == MODE_CONCURRENT && heap->runner == RUNNER_NONE && !heap->wanted && !heap->jobs &&
                heap->started == heap->finished && heap->finished > 0;
    here->small = idle && is_small(heap);
    idle &= here->small || here->lend;
    if (idle && !here->lend && heap->here_rests > 0) {
        heap->here_rests--;
        idle = false;
    }
    if (idle) tri__runner_set(heap, RUNNER_MUTATOR);
    tri__lock_release(&heap->cycle_lock);
    return idle;
}

/* The collector runs more and more of the next cycles when this one had to be left to it because of others: with more
 * threads than cores, or long ways between safepoints, trying costs the patience each time. Requires the cycle lock. */
static void rest(tri_heap *heap, bool failed) {
    heap->here_failed = failed ? (uint32_t)min_size(heap->here_failed * 2 + 1, HERE_MOST_RESTS) : 0;
    heap->here_rests = heap->here_failed;
}

/* True if the cycle may begin: every span is swept (R21). Else it is the collector's from the start. */
static bool begin_here(tri_heap *heap, const struct here *here) {
    bool settled = tri__cycle_sweep(heap, tri__os_now_ns() + HERE_SLICE_NS);
    tri__lock_acquire(&heap->cycle_lock);
    if (settled) {
        heap->started++;
    } else {
        if (!here->lend) rest(heap, true);
        tri__runner_set(heap, RUNNER_NONE);
        if (!heap->wanted) atomic_store_relaxed(&heap->wanted, here->reason); /* as everywhere: under the lock */
        tri__collector_wake(heap);
    }
    tri__lock_release(&heap->cycle_lock);
    return settled;
}

static void give_back(tri_heap *heap, const struct here *here, bool ended) {
    tri__lock_acquire(&heap->cycle_lock);
    tri__runner_set(heap, RUNNER_NONE);
    heap->handed_over = !ended;
    if (!ended && here->lend)
        tri__cycle_lend(heap);
    else if (ended || heap->run.posted)
        rest(heap, !ended);
    atomic_add_relaxed(&heap->stats.cycles_here, 1);
    if (!ended) atomic_add_relaxed(&heap->stats.cycles_handed, 1);
    if (ended) tri__cycle_end(heap);
    if (!ended || heap->wanted || heap->jobs) tri__collector_wake(heap);
    tri__lock_release(&heap->cycle_lock);
}

/* How much to allocate until the next such cycle: as little as the processor's own cache holds, so that what was just
 * swept is used while it is near; more when cycles take more than a tenth of the thread's time (a graph of some size is
 * marked each time), half as much when they take less than a twentieth. */
static void choose_window(tri_heap *heap, uint64_t start_ns, uint64_t end_ns) {
    uint64_t cost_ns = end_ns - start_ns, between_ns = start_ns - heap->here_ended_ns;
    size_t nrunning = min_size(atomic_load_relaxed(&heap->nthreads), heap->ncpus); /* each has a cache; a hint */
    size_t least = heap->cache_bytes / 4 * 3 * nrunning, window = heap->here_window_bytes;
    if (cost_ns > between_ns / 10) window *= 2;
    if (cost_ns < between_ns / 20) window /= 2;
    window = min_size(max_size(window, least), HERE_WINDOW_BYTES);
    heap->here_window_bytes = window;
    heap->here_ended_ns = end_ns;
    size_t trigger = heap_total_bytes(heap) + window; /* counters */
    if (nrunning > 1) {                               /* the others go on allocating meanwhile */
        size_t goal = atomic_load_relaxed(&heap->goal_bytes), held = heap_total_bytes(heap);
        trigger = min_size(trigger, goal > held ? goal - (goal - held) / HERE_RUNWAY_FRACTION : goal);
    }
    atomic_store_relaxed(&heap->here_trigger_bytes, trigger); /* a counter */
}

/* The thread is blocked: it answers its own handshakes as a collector does for blocked threads. */
static void run_here(void *p) {
    struct here *here = p;
    tri_heap *heap = here->heap;
    heap->patience_ns = HERE_PATIENCE_NS;
    if (!begin_here(heap, here)) return;
    tri__fork_forbid("the event hook");
    tri__cycle_start(heap, here->reason);
    heap->run.lazy = here->small; /* spans are swept one by one as they are needed, and used while they are near */
    heap->run.by_mutator = here->lend;
    bool ended = tri__cycle_continue(heap, tri__os_now_ns() + HERE_SLICE_NS);
    heap->run.by_mutator = false;
    if (ended && here->small) choose_window(heap, here->start_ns, tri__os_now_ns());
    give_back(heap, here, ended);
    tri__fork_forbid(NULL);
}

bool tri__cycle_here(struct mutator *m, const char *reason) {
    tri_heap *heap = m->heap;
    struct here here = {.heap = heap, .reason = reason, .start_ns = tri__os_now_ns()};
    atomic_store_relaxed(&heap->here_trigger_bytes, SIZE_MAX); /* a counter */
    /* A deep stack's copy takes memory and time that the thread would lose; a lent one may come to it all the same. */
    if (tri__mutator_is_deep(m, (uintptr_t)__builtin_frame_address(0))) return false;
    here.lend = tri__cycle_is_to_lend(heap);
    if (!borrow(heap, &here)) return false;
    atomic_store_relaxed(&heap->triggered, 1); /* also when the collector has to end it: throttle() looks at it */
    tri__stats_pause(heap, TRI_PAUSE_ASSIST, tri__blocking_wait(m, run_here, &here));
    return true;
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

static void collector_main(void *p) {
    tri_heap *heap = p;
    tri__fork_forbid("a hook or a callback, on the collector's thread");
    tri__lock_acquire(&heap->cycle_lock);
    while (!heap->quit) {
        if (heap->lent) {
            tri__lent_watch(heap);
        } else if (heap->runner != RUNNER_NONE || heap->stepped) {
            tri__cond_wait(&heap->cycle_wanted, &heap->cycle_lock);
        } else if (heap->jobs && !heap->handed_over) {
            run_job(heap);
        } else if (heap->wanted || heap->handed_over) {
            run_cycle(heap);
        } else {
            tri__cond_wait(&heap->cycle_wanted, &heap->cycle_lock);
        }
    }
    tri__lock_release(&heap->cycle_lock);
}

bool tri__collector_start(tri_heap *heap) {
    if (heap->threadless) return true; /* I-STEP3 */
    return tri__os_thread_start(&heap->collector, collector_main, heap, "trigc");
}

void tri__collector_stop(tri_heap *heap) {
    if (heap->threadless) return;
    tri__lock_acquire(&heap->cycle_lock);
    heap->quit = true;
    bool lost = heap->collector_lost;
    tri__cond_broadcast(&heap->cycle_wanted);
    tri__lock_release(&heap->cycle_lock);
    if (!lost) tri__os_thread_join(&heap->collector);
}

/* Who waited for a cycle or a job is not in the child. The lock and what they waited on count them still: made anew. */
void tri__collector_after_fork(tri_heap *heap) {
    tri__lock_init(&heap->cycle_lock, RANK_CYCLE, "cycle");
    tri__cond_init(&heap->cycle_wanted);
    tri__cond_init(&heap->cycle_done);
    heap->wanted = NULL;
    heap->jobs = NULL;
    heap->handed_over = false;
    heap->lent = LENT_NOT;
    heap->runner = RUNNER_NONE;
    heap->finished = heap->started;
    heap->collector_lost = !heap->threadless;
}

const char *tri__why_late(tri_heap *heap) {
    tri__lock_acquire(&heap->cycle_lock);
    bool lost = heap->collector_lost;
    tri__lock_release(&heap->cycle_lock);
    return lost
               ? "the system refuses the collector's thread, which the child of a fork starts anew: raise RLIMIT_NPROC "
                 "or the control group's pids.max"
               : "a thread does not reach a safepoint (the event hook names it): call tri_poll there, or wrap the "
                 "wait in tri_blocking";
}

int tri_collect(tri_thread *thread) {
    struct mutator *m = tri__mutator_check(thread, "tri_collect");
    if (!m) return TRI_EUNATTACHED;
    IN_CALL("tri_collect");
    note_site(m, CALL_SITE("tri_collect"));
    if (tri__cycle_wait(m, "forced", heap_wait_limit_ns(m->heap))) return TRI_OK;
    char silent[SILENT_TEXT_BYTES];
    return tri__error(TRI_ETIMEDOUT, "tri_collect",
                      "no cycle ended within %llu ms; %s; or marking takes longer than that: raise wait_limit_ms%s",
                      (unsigned long long)(heap_wait_limit_ns(m->heap) / 1000000), tri__why_late(m->heap),
                      tri__silent_text(m->heap, silent));
}
