/* fork.c - fork, in every phase of a cycle (R20).
 *
 * A child has one thread, the one that forked, and memory as all the others left it. Three things make that memory a
 * heap:
 *
 *   before    nobody is inside a section that has spans, slot bits or pages in hand (NO_FORK in fork.h), and the
 *             forking thread holds every lock that somebody takes outside of such sections, in rank order. So no span
 *             is claimed, no hole is being taken and no list is half changed. Running threads are not stopped: each
 *             goes on until its next slow path.
 *   child     the locks are released. Before the flip the cycle is abandoned: what was marked, queued and asked for is
 *             forgotten. After it nothing is lost but the sweep's progress: spans are unswept until somebody needs
 *             them, as after any cycle. The child's own attachments are disarmed, or retired, on the spot; all others
 *             leave the heap's list. Costs no more than a few lines of each thread's record: most children call exec.
 *   later     what the others left (holes, pages, objects under construction, stale marks, work buffers) is given back
 *             by whoever runs the child's first cycle, before it (tri__fork_settle). The collector's thread is started
 *             by the first request for it, the scavenger's by the end of the first cycle.
 *
 * The parent only waits: for the sections, which are shorter than a sweep of 64 spans, and its threads for the fork
 * itself, if they come to a slow path meanwhile.
 *
 * A fork from inside a section, out of a callback that runs in one, or on one of the library's own threads is not
 * prepared for: it is reported, and the child must not use its heaps.
 *
 * WHO ADDS A THREAD, A LOCK OR A STATE OF THE CYCLE registers it here:
 *   a lock            a line in `heap_locks` (the compiler asks for it when enum lock_rank grows), unless it is only
 *                     taken inside sections
 *   code that has something in hand that the child would miss, or find half done: a section around it
 *   a thread          forgotten in the child and started by need (tri__collector_after_fork shows how), and
 *                     tri__fork_forbid at its beginning
 *   a field of the cycle that is only valid while one runs: reset in tri__cycle_after_fork
 *
 * Invariants: I-FORK1 while a process forks nobody is inside a section: no span is claimed, no batch either. I-FORK2 a
 * section is entered with no lock held and reaches no safepoint. I-FORK3 a cycle begins when nothing of threads that
 * the process does not have is left.
 * Lock ranks: heaps (3) for the list of heaps; all others in `heap_locks`. */
#include "gc/fork.h"
#include <pthread.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

uint32_t tri__forking, tri__unforkable_rest;

static struct lock heaps_lock; /* RANK_HEAPS */
static tri_heap *heaps;        /* [heaps lock] */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local const char *forbidden_where; /* the calling thread may not fork: where it is */
static _Thread_local bool unprepared;             /* and does so all the same */

/* ---- sections ------------------------------------------------------------------------------------------------ */

void tri__unforkable_check(void) {
    check_cheap(tri__lock_none_held(), "I-FORK2: a section that a fork waits for is entered with no lock held");
}

/* Counts as a wait for a lock, which the thread's next slow path tells. */
static void wait_for_fork(void) {
    uint64_t start = tri__os_now_ns();
    while (atomic_load_seq(&tri__forking)) tri__os_futex_wait(&tri__forking, 1, 1000000); /* resume wakes */
    tri__lock_add_waited(tri__os_now_ns() - start);
}

/* A fork is under way, or about to be: out again, and in when it is over. */
TRI_COLD void tri__unforkable_wait(uint32_t *unforkable) {
    do {
        atomic_store_seq(unforkable, 0); /* pairs with wait_for_sections */
        wait_for_fork();
        atomic_swap_seq(unforkable, 1); /* as in unforkable_enter */
    } while (atomic_load_seq(&tri__forking));
}

void tri__unforkable_enter_rest(void) {
    tri__unforkable_check();
    for (;;) {
        atomic_add_seq(&tri__unforkable_rest, 1); /* as in unforkable_enter */
        if (TRI_LIKELY(!atomic_load_seq(&tri__forking))) return;
        atomic_sub_seq(&tri__unforkable_rest, 1);
        wait_for_fork();
    }
}

void tri__unforkable_leave_rest(const bool *unused) {
    (void)unused;
    atomic_sub_seq(&tri__unforkable_rest, 1); /* pairs with wait_for_sections */
}

static bool is_somebody_inside(tri_heap *heap) {
    bool inside = false;
    tri__lock_acquire(&heap->threads_lock);
    for (struct mutator *m = heap->threads; m && !inside; m = m->next)
        inside = atomic_load_seq(&m->os->unforkable) != 0; /* after tri__forking was set; pairs with unforkable_enter */
    tri__lock_release(&heap->threads_lock);
    return inside;
}

/* Whoever is inside leaves, whoever comes waits. Requires the heaps lock. */
static void wait_for_sections(void) {
    enum { TURNS_BEFORE_SLEEP = 100, NAP_NS = 50000 };
    atomic_store_seq(&tri__forking, 1); /* pairs with unforkable_enter */
    for (unsigned turn = 0;; turn++) {
        bool inside = atomic_load_seq(&tri__unforkable_rest) != 0; /* pairs with unforkable_enter_rest */
        for (tri_heap *heap = heaps; heap && !inside; heap = heap->next_heap) inside = is_somebody_inside(heap);
        if (!inside) return;
        if (turn < TURNS_BEFORE_SLEEP)
            tri__os_yield();
        else
            tri__os_futex_wait(&tri__forking, 1, NAP_NS); /* nobody wakes it: a nap */
    }
}

/* ---- locks --------------------------------------------------------------------------------------------------- */

/* Every lock of a heap that somebody takes outside of a section, by rank. */
static void heap_locks(tri_heap *heap, enum lock_rank rank, void (*fn)(struct lock *)) {
    struct memory *mem = &heap->mem;
    switch (rank) {
    case RANK_HEAPS:    /* below */
    case RANK_REGISTRY: /* tri__manual_registry_lock */
    case RANK_OSTHREAD: /* in sections, or under the threads lock */
    case RANK_CENTRAL:  /* these two in sections only: there may be thousands */
    case RANK_LARGE: break;
    case RANK_CYCLE: fn(&heap->cycle_lock); break;
    case RANK_THREADS: fn(&heap->threads_lock); break;
    case RANK_ROOTS:
        if (!heap_fault(heap, FAULT_FORK_LOCK)) fn(&heap->roots.lock);
        break;
    case RANK_WATCHES:
        for (size_t i = 0; i < WATCH_SHARDS; i++) fn(&heap->death.watches.shards[i].lock);
        break;
    case RANK_DEATH: fn(&heap->death.watches.lock); break;
    case RANK_WMAPS:
        for (size_t i = 0; i < WMAP_LOCKS; i++) fn(&heap->death.maps.locks[i]);
        break;
    case RANK_PACE: fn(&heap->pace_lock); break;
    case RANK_GATE: fn(&mem->gate); break;
    case RANK_WORK: fn(&heap->work.lock); break;
    case RANK_COPIES: fn(&heap->copies.lock); break;
    case RANK_MANUAL: fn(&mem->manual.lock); break;
    case RANK_PAGEHEAP: fn(tri__pageheap_lock(mem->pages)); break;
    case RANK_FIXALLOC: { /* nobody takes two of them */
        struct fixalloc *all[] = {&mem->fix_span,
                                  &mem->fix_central,
                                  &mem->manual.fix_span,
                                  &heap->work.fix,
                                  &heap->fix_mutator,
                                  &heap->fix_small,
                                  &heap->fix_block,
                                  &heap->fix_worker,
                                  &heap->death.watches.fix,
                                  &heap->death.maps.fix,
                                  &heap->death.watches.fix_lines,
                                  &heap->death.watches.fix_block};
        for (size_t i = 0; i < TRI_COUNT(all); i++) fn(&all[i]->lock);
        break;
    }
    }
}

static const enum lock_rank ranks[] = {RANK_CYCLE,  RANK_THREADS,  RANK_ROOTS,   RANK_WATCHES, RANK_DEATH,
                                       RANK_WMAPS,  RANK_PACE,     RANK_GATE,    RANK_WORK,    RANK_COPIES,
                                       RANK_MANUAL, RANK_PAGEHEAP, RANK_FIXALLOC};

/* By rank over all heaps, so that whoever holds one and waits for another gets it. Requires the heaps lock. */
static void take_locks(void) {
    tri__lock_acquire_any(tri__manual_registry_lock());
    for (size_t i = 0; i < TRI_COUNT(ranks); i++)
        for (tri_heap *heap = heaps; heap; heap = heap->next_heap) heap_locks(heap, ranks[i], tri__lock_acquire_any);
}

static void release_locks(void) {
    for (size_t i = TRI_COUNT(ranks); i-- > 0;)
        for (tri_heap *heap = heaps; heap; heap = heap->next_heap) heap_locks(heap, ranks[i], tri__lock_release_any);
    tri__lock_release_any(tri__manual_registry_lock());
}

static void resume(void) {
    release_locks();
    atomic_store_seq(&tri__forking, 0); /* pairs with unforkable_enter */
    tri__os_futex_wake_all(&tri__forking);
    tri__lock_release(&heaps_lock);
}

/* ---- the three moments of a fork ----------------------------------------------------------------------------- */

void tri__fork_forbid(const char *where) {
    forbidden_where = where;
}

/* Where the calling thread is, if it may not fork there. */
static const char *why_not(void) {
    if (forbidden_where) return forbidden_where;
#if TRI_CHECKS >= 1
    if (tri__running.callback) return tri__running.callback;
#endif
    if (tri__mutator_is_unforkable()) return "a callback, or a signal handler, in the middle of a call";
    return tri__lock_none_held() ? NULL : "a signal handler in the middle of a call";
}

static void prepare(void) {
    const char *where = why_not();
    unprepared = where != NULL;
    if (unprepared) {
        tri__report(NULL, "fork", "called from inside %s: the child may exec or _exit, but not use a heap", where);
        return;
    }
    tri__lock_acquire(&heaps_lock);
    uint64_t start = tri__os_now_ns();
    wait_for_sections();
    take_locks();
    tri__lock_add_waited(tri__os_now_ns() - start); /* the forking thread's own */
    for (tri_heap *heap = heaps; heap; heap = heap->next_heap)
        check_always(atomic_load_acquire(&heap->mem.nsweeping) == 0 && atomic_load_acquire(&heap->mem.nclaimed) == 0,
                     "I-FORK1: while a process forks no span is claimed"); /* pair with their releases */
}

static void in_parent(void) {
    if (!unprepared) resume();
    unprepared = false;
}

static void in_child(void) {
    if (unprepared) return;
    resume();
    for (tri_heap *heap = heaps; heap; heap = heap->next_heap) {
        bool abandoned = tri__cycle_after_fork(heap);
        tri__collector_after_fork(heap);
        tri__workers_after_fork(heap);
        tri__scavenger_after_fork(heap);
        tri__mutators_after_fork(heap, abandoned);
        tri__manual_after_fork(&heap->mem);
        heap->forked = true;
    }
}

static void register_handlers(void) {
    tri__lock_init(&heaps_lock, RANK_HEAPS, "heaps");
    pthread_atfork(prepare, in_parent, in_child);
}

void tri__fork_add_heap(tri_heap *heap) {
    pthread_once(&once, register_handlers);
    tri__lock_acquire(&heaps_lock);
    heap->next_heap = heaps;
    heaps = heap;
    tri__lock_release(&heaps_lock);
}

void tri__fork_remove_heap(tri_heap *heap) {
    tri__lock_acquire(&heaps_lock);
    for (tri_heap **p = &heaps; *p; p = &(*p)->next_heap)
        if (*p == heap) {
            *p = heap->next_heap;
            break;
        }
    tri__lock_release(&heaps_lock);
}

/* ---- what the other threads left ------------------------------------------------------------------------------ */

void tri__fork_settle(tri_heap *heap) {
    if (!heap->forked) return;
    heap->forked = false;
    tri__mutators_settle(heap);
    if (heap->stale_marks) tri__memory_clear_marks(&heap->mem);
    heap->stale_marks = false;
    tri__work_reset(&heap->work);
    tri__copies_reset(heap);
    tri__marker_init(&heap->worker, heap, &heap->page_set);
}
