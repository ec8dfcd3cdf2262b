/* collector.c - the heap's collector thread: waits for requests, runs cycles and jobs, returns memory.
 *
 * One thread a heap. It is the only one that changes phases. Who wants a cycle says so under the cycle lock; who waits
 * for one does it as a blocked thread, holding nothing else (R14).
 *
 * Invariants: I-COL1 cycles begin and end under the cycle lock's counters: started >= finished. I-COL2 a waiter is let go
 * only by a cycle whose H1 came after its request (R14). Lock rank: cycle (10). */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* Memory goes back in slices, so that a request never waits long for it. */
enum { SCAVENGE_SLICE_PAGES = 512, SCAVENGE_KEEP_PERCENT = 10 };

void tri__cycle_request(tri_heap *heap, const char *reason) {
    tri__lock_acquire(&heap->cycle_lock);
    if (!heap->wanted) heap->wanted = reason;
    atomic_store_relaxed(&heap->step_posted_ns, tri__os_now_ns()); /* a hint for throttle */
    tri__cond_broadcast(&heap->cycle_wanted);
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
    uint64_t target = heap->started + 1; /* I-COL2 */
    while (heap->finished < target) {
        if (heap->started < target) { /* asked for until it begins: one that is running does not count */
            heap->wanted = w->reason;
            tri__cond_broadcast(&heap->cycle_wanted);
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
    uint64_t start = tri__os_now_ns();
    tri__blocking_wait(m, wait_for_cycle, &w);
    tri__stats_pause(m->heap, TRI_PAUSE_WAIT, tri__os_now_ns() - start);
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
    w->job.next = heap->jobs;
    heap->jobs = &w->job;
    tri__cond_broadcast(&heap->cycle_wanted);
    while (!w->job.done) {
        uint64_t waited = tri__os_now_ns() - start;
        if (waited >= limit_ns && unlink_job(heap, &w->job)) break;
        tri__cond_wait_for(&heap->cycle_done, &heap->cycle_lock, waited < limit_ns ? limit_ns - waited : limit_ns);
    }
    tri__lock_release(&heap->cycle_lock);
}

bool tri__collector_run(struct mutator *m, void (*fn)(tri_heap *, void *), void *arg) {
    struct job_waiter w = {m->heap, {NULL, fn, arg, false, false}};
    tri__blocking_wait(m, wait_for_job, &w);
    return w.job.ran;
}

/* Requires the cycle lock; releases it meanwhile. */
static void run_job(tri_heap *heap) {
    struct job *job = heap->jobs;
    heap->jobs = job->next;
    tri__lock_release(&heap->cycle_lock);
    job->ran = tri__world_stop(heap);
    if (job->ran) {
        job->fn(heap, job->arg);
        tri__world_start(heap);
    }
    tri__lock_acquire(&heap->cycle_lock);
    job->done = true; /* the waiter's frame may be gone from here on */
    tri__cond_broadcast(&heap->cycle_done);
}

static void run_cycle(tri_heap *heap) {
    const char *reason = heap->wanted;
    heap->wanted = NULL;
    heap->started++;
    tri__lock_release(&heap->cycle_lock);
    tri__cycle_run(heap, reason);
    tri__lock_acquire(&heap->cycle_lock);
    heap->finished++;
    check_cheap(heap->started == heap->finished, "I-COL1: one cycle at a time");
    tri__cond_broadcast(&heap->cycle_done);
}

/* Free pages beyond what the next cycle will want go back, a slice at a time. True if there may be more. */
static bool scavenge_some(tri_heap *heap) {
    struct pageheap_stats ps;
    tri__pageheap_get_stats(heap->mem.pages, &ps);
    size_t goal = atomic_load_relaxed(&heap->goal_bytes),
           outside = atomic_load_relaxed(&heap->external_bytes); /* hints */
    size_t goal_pages = (goal > outside ? goal - outside : 0) >> PAGE_SHIFT;
    size_t keep = goal_pages + goal_pages * SCAVENGE_KEEP_PERCENT / 100;
    size_t resident = ps.used_pages + ps.dirty_free_pages;
    if (resident <= keep || ps.dirty_free_pages == 0) return false;
    size_t want = min_size(resident - keep, SCAVENGE_SLICE_PAGES);
    return tri__memory_scavenge(&heap->mem, want) == want && resident - keep > want;
}

static void collector_main(void *p) {
    tri_heap *heap = p;
    bool may_scavenge = false;
    tri__lock_acquire(&heap->cycle_lock);
    while (!heap->quit) {
        if (heap->jobs) {
            run_job(heap);
        } else if (heap->wanted) {
            run_cycle(heap);
            may_scavenge = true;
        } else if (may_scavenge) {
            tri__lock_release(&heap->cycle_lock);
            may_scavenge = scavenge_some(heap);
            tri__lock_acquire(&heap->cycle_lock);
        } else {
            tri__cond_wait(&heap->cycle_wanted, &heap->cycle_lock);
        }
    }
    tri__lock_release(&heap->cycle_lock);
}

bool tri__collector_start(tri_heap *heap) {
    return tri__os_thread_start(&heap->collector, collector_main, heap, "trigc");
}

void tri__collector_stop(tri_heap *heap) {
    tri__lock_acquire(&heap->cycle_lock);
    heap->quit = true;
    tri__cond_broadcast(&heap->cycle_wanted);
    tri__lock_release(&heap->cycle_lock);
    tri__os_thread_join(&heap->collector);
}

int tri_collect(tri_thread *thread) {
    struct mutator *m = tri__mutator_check(thread, "tri_collect");
    if (!m) return TRI_EUNATTACHED;
    if (tri__cycle_wait(m, "forced", heap_wait_limit_ns(m->heap))) return TRI_OK;
    return tri__error(TRI_ETIMEDOUT, "tri_collect",
                      "no cycle ended within %llu ms; a thread does not reach a safepoint "
                      "(the event hook names it): call tri_poll there, or wrap the wait in tri_blocking; or marking "
                      "takes longer than that: raise wait_limit_ms",
                      (unsigned long long)m->heap->config.wait_limit_ms);
}
