/* workers.c - marking threads: started when a mark phase needs them, parked otherwise; see workers.h. */
#include "gc/workers.h"
#include "alloc/base/check.h"
#include "alloc/base/pressure.h"
#include "gc/fork.h"
#include "gc/heap.h"
#include "gc/scarce.h"

/* How long a worker marks between two accounts of it; how long the collector waits for one before it looks at the pace
 * again. */
enum { WORKER_SLICE_NS = 200000, SETTLE_WAIT_NS = 1000000, CORES_A_WORKER = 4 };

uint32_t tri__workers_default(void) {
    uint32_t n = cpus_whole(tri__group_millicpus(tri__os_ncpus())) / CORES_A_WORKER;
    return n < 1 ? 1 : n > MAX_WORKERS ? MAX_WORKERS : n;
}

void tri__workers_tell(tri_heap *heap, struct marker *m) {
    atomic_add_relaxed(&heap->background_credit, (int64_t)(m->marked_bytes + m->scanned_bytes)); /* counters */
    atomic_add_relaxed(&heap->cycle_marked_bytes, m->marked_bytes);
    atomic_add_relaxed(&heap->stats.marked_objects, m->marked_objects);
    m->marked_bytes = m->marked_objects = m->scanned_bytes = 0;
}

static void worker_main(void *p) {
    struct mark_worker *w = p;
    tri_heap *heap = w->heap;
    struct workbuf *buf;
    tri__fork_forbid("a trace callback, on a marking thread");
    while ((buf = tri__work_await(&heap->work, &w->waiter))) {
        tri__marker_take(&w->marker, buf);
        uint64_t start = tri__os_now_ns(), now = start, slice_ns = start, away_ns = 0;
        do {
            tri__stress_delay(heap);
            tri__marker_drain(&w->marker, now + WORKER_SLICE_NS);
            tri__workers_tell(heap, &w->marker); /* I-WKR2 */
            away_ns += tri__give_way(heap, &slice_ns);
            now = tri__os_now_ns();
        } while (!tri__marker_is_idle(&w->marker));
        atomic_add_relaxed(&heap->stats.worker_ns, now - start - away_ns); /* a counter */
        tri__stress_delay(heap);
        tri__work_rest(&heap->work);
    }
    tri__marker_hand_over(&w->marker); /* its empty buffer goes back */
}

static bool start_one(tri_heap *heap) {
    struct workers *ws = &heap->workers;
    struct mark_worker *w = tri__fixalloc_get(&heap->fix_worker);
    if (!w) return false;
    *w = (struct mark_worker){.heap = heap};
    tri__marker_init(&w->marker, heap, &w->page_set);
    if (!tri__os_thread_start(&w->thread, worker_main, w, "trigc-mark")) {
        tri__fixalloc_put(&heap->fix_worker, w);
        return false;
    }
    ws->each[ws->nstarted++] = w;
    return true;
}

void tri__workers_stop(tri_heap *heap) {
    struct workers *ws = &heap->workers;
    tri__work_quit(&heap->work, true);
    while (ws->nstarted > 0) {
        struct mark_worker *w = ws->each[--ws->nstarted];
        tri__os_thread_join(&w->thread);
        tri__fixalloc_put(&heap->fix_worker, w);
    }
    tri__work_quit(&heap->work, false);
}

void tri__workers_after_fork(tri_heap *heap) {
    heap->workers = (struct workers){.nstarted = 0};
    tri__fixalloc_reset(&heap->fix_worker);
    tri__work_forget_waiters(&heap->work);
}

void tri__workers_call(tri_heap *heap) {
    struct workers *ws = &heap->workers;
    uint32_t nwanted = tri__pace_markers(heap);
    if (nwanted <= 1 && !ws->called) return;
    if (!ws->called && ws->nstarted + 1 > nwanted) { /* fewer than there were */
        tri__workers_stop(heap);
    }
    if (!ws->called) tri__work_open(&heap->work);
    ws->called = true;
    if (ws->nstarted + 1 < nwanted) (void)start_one(heap); /* refused: with those that there are */
}

bool tri__workers_settled(tri_heap *heap) {
    struct workers *ws = &heap->workers;
    if (!ws->called) return true;
    uint64_t start = tri__os_now_ns();
    bool settled = tri__work_settle(&heap->work, &ws->waiter, SETTLE_WAIT_NS);
    heap->run.slice_ns += tri__os_now_ns() - start; /* it did not run */
    if (settled) ws->called = false;
    return settled;
}
