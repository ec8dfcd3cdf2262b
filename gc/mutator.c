/* mutator.c - who is attached: the calling thread's attachments, attaching and detaching, threads that end, what a
 * fork's child keeps of them, and frames; see mutator.h. Safepoints and blocking regions: safepoint.c.
 *
 * Lock order here: threads (20), then os (25). A thread enters its list last and leaves it first, under the threads
 * lock, which is also the lock of posting a step and of the flip (R9). */
#include "gc/mutator.h"
#include <stdlib.h>
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"
#include "gc/mode.h"

static _Thread_local struct osthread *self;
static pthread_key_t exit_key;
static bool has_key;
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;

/* The attachment of threads that are not attached: no hole, barrier armed, always a request, so that every inline path
 * reaches a slow path, which reports it. One for each thread, since frames may be pushed on it. */
static tri_hole no_holes[MAX_LAYOUTS]; /* never written: untouched memory */
static _Thread_local struct tri_thread sentinel = {
    .holes = no_holes, .armed = 1, .request = 1, .reserved = SENTINEL_MARK};

#if TRI_CHECKS >= 1
/* Misuse that would race with a collector: another thread's attachment, or a call from inside tri_blocking. */
static bool is_own_and_running(struct mutator *m, const char *call) {
    if (m->os != self) {
        tri__report(m->heap, call, "this tri_thread belongs to another thread; each thread uses its own");
        return false;
    }
    if (atomic_load_relaxed(&m->os->state) == OS_RUNNING) return true; /* own word */
    tri__report(m->heap, call, "called inside tri_blocking, where the heap may not be used; go through tri_callin");
    return false;
}
#endif

struct mutator *tri__mutator_attached(tri_thread *thread, const char *call) {
    bool real = thread != NULL && thread->reserved != SENTINEL_MARK;
    if (tri__callback_calls(real ? mutator_of(thread)->heap : NULL, call)) return NULL;
    if (TRI_LIKELY(real)) return mutator_of(thread);
    tri__report(NULL, call,
                "the calling thread is not attached to the heap; call tri_attach first, and pass the "
                "tri_thread it returned");
    return NULL;
}

bool tri__mutator_is_own(const struct mutator *m) {
    return m->os == self;
}

bool tri__osthread_is_own(const struct osthread *os) {
    return os == self;
}

struct mutator *tri__mutator_check(tri_thread *thread, const char *call) {
    struct mutator *m = tri__mutator_attached(thread, call);
#if TRI_CHECKS >= 1
    if (m && !is_own_and_running(m, call)) return NULL;
#endif
    return m;
}

tri_thread *tri__self(const tri_heap *heap) {
    for (struct mutator *m = self ? self->attachments : NULL; m; m = m->next_attachment)
        if (m->heap == heap) return &m->pub;
    return &sentinel;
}

tri_thread *tri_self(tri_heap *heap) {
    return !self || tri__callback_calls(heap, "tri_self") ? &sentinel : tri__self(heap);
}

tri_heap *tri_thread_heap(tri_thread *thread) {
    struct mutator *m = tri__mutator_check(thread, "tri_thread_heap");
    return m ? m->heap : NULL;
}

/* ---- attach and detach --------------------------------------------------------------------------------------- */

/* A detached thread's roots are gone: references do not survive outside handles (R9). */
static void drop_roots(struct mutator *m) {
    m->pub.frames = NULL;
    tri__vmstacks_release_all(m);
    tri__native_release(m);
    while (m->scanners) {
        struct tri_scanner *s = m->scanners;
        m->scanners = s->next;
        tri__fixalloc_put(&m->heap->fix_small, s);
    }
    while (m->scopes) {
        struct scope_block *b = m->scopes;
        m->scopes = b->prev;
        tri__fixalloc_put(&m->heap->fix_block, b);
    }
    m->nlocals = 0;
}

static void thread_exits(void *p) {
    struct osthread *os = p;
    self = os;
    running_ends();
    if (atomic_load_relaxed(&os->state) != OS_RUNNING) { /* it ended inside a blocking region (R20) */
        tri__leave_blocked(os);
    }
    os->depth = os->ncallins = 0;
    os->nregions = 0;
    /* The stack is unwound already: no safepoint may look at frames and stacks that lay on it. */
    for (struct mutator *m = os->attachments; m; m = m->next_attachment) drop_roots(m);
    bool more = os->attachments != NULL;
    while (more) { /* the last detach frees os */
        more = os->attachments->next_attachment != NULL;
        if (tri_detach(&os->attachments->pub) != TRI_OK) break;
    }
}

static void make_exit_key(void) {
    has_key = pthread_key_create(&exit_key, thread_exits) == 0;
}

static void osthread_free(struct osthread *os) {
    tri__lock_fini(&os->lock);
    if (os->region_roots != os->first_regions) free(os->region_roots);
    free(os);
}

static struct osthread *osthread_get(void) {
    if (self) return self;
    struct osthread *os = calloc(1, sizeof *os);
    if (!os) return NULL;
    (void)tri__os_stack_bounds(&os->stack_low, &os->stack_high); /* knows_stack asks again */
    os->id = tri__os_thread_id();
    os->region_roots = os->first_regions;
    os->max_regions = TRI_COUNT(os->first_regions);
    tri__lock_init(&os->lock, RANK_OSTHREAD, "attachments");
    if (pthread_setspecific(exit_key, os) != 0) {
        osthread_free(os);
        return NULL;
    }
    self = os;
    return os;
}

static void osthread_put(struct osthread *os) {
    if (os->attachments) return;
    pthread_setspecific(exit_key, NULL);
    self = NULL;
    osthread_free(os);
}

/* Mode insertion, after the second scan: no thread is grey any more. */
static bool is_rescanned(tri_heap *heap) {
    uint64_t cycle = atomic_load_relaxed(&heap->cycle_number);   /* under the lock of the post */
    return atomic_load_relaxed(&heap->rescanned_cycle) == cycle; /* ordered by the look at `stopping` (enter_list) */
}

/* R9: a newcomer starts as if it had answered the last posted step. Requires the threads lock. */
static void start_like_last_step(struct mutator *m) {
    tri_heap *heap = m->heap;
    check_cheap(tri__lock_held(&heap->threads_lock), "R9: a newcomer starts under the lock of posting and flip");
    m->cache.gen = heap->posted_gen;
    m->deletes = tri__mode(heap) != MODE_INSERTION;
    m->cache.notes_black = !m->deletes;
    switch (heap->last_step) {
    case STEP_ARM:
    case STEP_SETTLE: m->armed = true, m->grey_stack = true, m->cache.black = false; break;
    case STEP_SCAN:
    case STEP_FLUSH: m->armed = true, m->grey_stack = !m->deletes && !is_rescanned(heap), m->cache.black = true; break;
    case STEP_DISARM: m->armed = false, m->grey_stack = false, m->cache.black = true; break;
    case STEP_RETIRE:
    case STEP_NONE: m->armed = false, m->grey_stack = false, m->cache.black = false; break;
    }
    atomic_store_relaxed(&m->pub.armed, m->armed || atomic_load_relaxed(&heap->stress.slow)); /* own */
    m->cache.single = atomic_load_relaxed(&heap->stress.slow) != 0;
    m->answer_seq = heap->step_seq;
    atomic_store_relaxed(&m->request_seq, heap->step_seq);
}

static void wait_while_stopping(void *p) {
    tri_heap *heap = p;
    if (atomic_load_acquire(&heap->stopping))            /* pairs with world_stop */
        tri__os_futex_wait(&heap->stopping, 1, 1000000); /* until world_start, or for another look */
}

/* As park_while_stopped (safepoint.c), of a thread that is not in the heap's list yet. */
static TRI_COLD void tell_newcomer(tri_heap *heap, uint64_t ns) {
    tri__stats_pause(heap, tri__mode(heap) != MODE_CONCURRENT ? TRI_PAUSE_HANDSHAKE : TRI_PAUSE_WAIT, ns);
}

static void enter_list(struct mutator *m) {
    tri_heap *heap = m->heap;
    uint64_t waited_ns = 0;
    for (;;) {
        if (heap_fault(heap, FAULT_ATTACH_LATE)) start_like_last_step(m); /* what another post may make stale */
        tri__lock_acquire(&heap->threads_lock);
        if (!atomic_load_acquire(&heap->stopping)) break; /* pairs with world_stop */
        tri__lock_release(&heap->threads_lock);
        uint64_t start = tri__os_now_ns();
        if (m->os->attachments) { /* a wait is a blocking region in the thread's other heaps (R14) */
            waited_ns += tri__blocking_wait(m->os->attachments, wait_while_stopping, heap);
        } else {
            wait_while_stopping(heap);
            waited_ns += tri__os_now_ns() - start;
        }
    }
    start_like_last_step(m);
    m->next = heap->threads;
    if (m->next) m->next->prev = m;
    heap->threads = m;
    atomic_store_relaxed(&heap->nthreads, heap->nthreads + 1);
    tri__lock_acquire(&m->os->lock);
    m->next_attachment = m->os->attachments;
    m->os->attachments = m;
    tri__lock_release(&m->os->lock);
    tri__lock_release(&heap->threads_lock);
    if (waited_ns > 0) tell_newcomer(heap, waited_ns);
}

/* Where the thread's native stack lies, if it is to be scanned. */
static bool knows_stack(struct osthread *os, uint32_t flags) {
    return flags & TRI_ATTACH_PRECISE || os->stack_high || tri__os_stack_bounds(&os->stack_low, &os->stack_high);
}

static int refuse_attachment(struct osthread *os, int err, const char *why) {
    if (os) osthread_put(os);
    return tri__error(err, "tri_attach", "%s", why);
}

int tri_attach(tri_heap *heap, uint32_t flags, tri_thread **out) {
    if (!heap || !out) return tri__error(TRI_EINVAL, "tri_attach", "heap or out is NULL");
    if (flags & ~(uint32_t)TRI_ATTACH_PRECISE) return tri__error(TRI_EINVAL, "tri_attach", "unknown flags 0x%x", flags);
    if (tri__callback_calls(heap, "tri_attach")) return TRI_ESTATE;
    IN_CALL("tri_attach");
    if (tri__self(heap) != &sentinel)
        return tri__error(TRI_ESTATE, "tri_attach", "the thread is attached to this heap already; use tri_self");
    if (self && atomic_load_relaxed(&self->state) != OS_RUNNING) /* own word */
        return tri__error(TRI_ESTATE, "tri_attach", "the thread is inside tri_blocking; go through tri_callin");
    if (atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_PRECISE) flags |= TRI_ATTACH_PRECISE;
    pthread_once(&exit_once, make_exit_key);
    if (!has_key)
        return tri__error(TRI_ELIMIT, "tri_attach",
                          "the process had no pthread key left for the ends of threads; make fewer of them before the "
                          "first thread attaches");
    struct osthread *os = osthread_get();
    if (os && !knows_stack(os, flags))
        return refuse_attachment(os, TRI_ENOMEM,
                                 "the system does not tell where the thread's stack lies (/proc and a file descriptor "
                                 "are needed); free some, or use TRI_ATTACH_PRECISE with frames and handles");
    struct mutator *m = os ? tri__fixalloc_get(&heap->fix_mutator) : NULL;
    if (m) memset(m, 0, sizeof *m);
    if (!m || !tri__cache_init(&m->cache, &heap->mem, &os->lock)) {
        if (m) tri__fixalloc_put(&heap->fix_mutator, m);
        return refuse_attachment(os, TRI_ENOMEM, "no memory for the thread's attachment");
    }
    if (os->attachments)
        tri__safepoint(os->attachments);
    else
        tri__lock_forget_waited(); /* it was no mutator: no heap's waits */
    m->pub.holes = m->cache.holes;
    m->heap = heap;
    m->os = os;
    m->flags = flags;
    tri__marker_init(&m->marker, heap, NULL);
    tri__stress_delay(heap);
    enter_list(m);
    note_site(m, CALL_SITE("tri_attach"));
    *out = &m->pub;
    return TRI_OK;
}

/* What a detached thread leaves counts as its answer to every later step (R9). Requires the threads lock. */
static void leave_as_answer(struct mutator *m) {
    tri_heap *heap = m->heap;
    check_cheap(tri__lock_held(&heap->threads_lock), "R9: a leaver hands over under the lock of posting and flip");
    check_cheap(m->answer_seq == heap->step_seq, "R9: a leaver has answered every step that was posted");
    bool any = tri__barrier_flush(m);
    any |= tri__marker_hand_over(&m->marker);
    if (any || m->marker.worked) atomic_store_release(&heap->found, 1); /* as R2's answer; pairs with the round's end */
    atomic_add_relaxed(&heap->cycle_marked_bytes, m->marker.marked_bytes);
    atomic_add_relaxed(&heap->stats.marked_objects, m->marker.marked_objects);
    tri__heap_account(m);
    tri__cache_flush(&m->cache);
    tri__heap_account(m);
    tri__cache_fini(&m->cache);
}

static void put_mutator(struct mutator *m) {
    m->os = NULL;
    m->pub = (struct tri_thread){
        .holes = no_holes, .armed = 1, .request = 1, .reserved = SENTINEL_MARK}; /* later calls are refused */
    tri__fixalloc_put(&m->heap->fix_mutator, m);
}

int tri_detach(tri_thread *thread) {
    struct mutator *m = tri__mutator_attached(thread, "tri_detach");
    if (!m) return TRI_EUNATTACHED;
    IN_CALL("tri_detach");
    if (m->os != self) return tri__error(TRI_ESTATE, "tri_detach", "this tri_thread belongs to another thread");
    if (atomic_load_relaxed(&m->os->state) != OS_RUNNING || m->os->depth || m->os->ncallins)
        return tri__error(TRI_ESTATE, "tri_detach", "the thread is inside tri_blocking; return from it first");
    tri_heap *heap = m->heap;
    struct osthread *os = m->os;
    tri__stress_delay(heap);
    uint32_t *unforkable = &os->unforkable;
    for (;;) { /* does the pending step, so that none is left when it leaves the list */
        tri__safepoint(m);
        unforkable_enter(unforkable); /* its spans go back under the lock */
        tri__lock_acquire(&heap->threads_lock);
        if (!atomic_load_acquire(&heap->stopping) && atomic_load_acquire(&m->request_seq) == m->answer_seq) break;
        tri__lock_release(&heap->threads_lock);
        unforkable_leave(&unforkable);
    }
    drop_roots(m);
    leave_as_answer(m);
    if (m->prev)
        m->prev->next = m->next;
    else
        heap->threads = m->next;
    if (m->next) m->next->prev = m->prev;
    if (heap->look_next == m) heap->look_next = m->next;
    atomic_store_relaxed(&heap->nthreads, heap->nthreads - 1);
    tri__lock_acquire(&os->lock);
    for (struct mutator **p = &os->attachments; *p; p = &(*p)->next_attachment)
        if (*p == m) {
            *p = m->next_attachment;
            break;
        }
    tri__lock_release(&os->lock);
    tri__lock_release(&heap->threads_lock);
    unforkable_leave(&unforkable);
    put_mutator(m);
    osthread_put(os);
    return TRI_OK;
}

/* ---- the child of a fork ------------------------------------------------------------------------------------- */

bool tri__mutator_is_unforkable(void) {
    return self && atomic_load_relaxed(&self->unforkable) != 0; /* own */
}

/* As if it had just retired, or never been in a cycle. */
static void go_on_between_cycles(struct mutator *m, bool abandoned) {
    tri_heap *heap = m->heap;
    struct osthread *os = m->os;
    os->id = tri__os_thread_id();
    if (os->state != OS_RUNNING) os->state = OS_BLOCKED; /* a collector that stopped the world may have held it */
    m->stopped = false;
    m->nshade = 0;
    m->assist_debt = 0;
    tri__marker_init(&m->marker, heap, NULL);
    if (abandoned) {
        m->armed = m->grey_stack = m->cache.black = false;
        m->cache.black_bytes = 0;
        m->cache.tiny = NULL;
        m->pub.armed = m->heap->stress.slow != 0;
    } else if (m->answer_seq != m->request_seq) { /* the last step of a cycle */
        heap->pending = 1;
        tri__mutator_answer(m);
    }
    m->request_seq = m->answer_seq = heap->step_seq;
    m->pub.request = 0;
}

/* Of a thread that is no more; the last one frees what was the thread's. */
static void leave_thread(struct mutator *m) {
    struct osthread *os = m->os;
    struct mutator **p = &os->attachments;
    while (*p != m) p = &(*p)->next_attachment;
    *p = m->next_attachment;
    m->os = NULL;
    m->cache.table_lock = &m->heap->left_lock;
    if (!os->attachments) osthread_free(os);
}

void tri__mutators_after_fork(tri_heap *heap, bool abandoned) {
    struct mutator *m = heap->threads, *next;
    heap->threads = heap->look_next = NULL;
    heap->nthreads = heap->roots.nwaiting = 0;
    for (; m; m = next) {
        next = m->next;
        m->prev = NULL;
        if (m->os == self) {
            m->next = NULL;
            heap->threads = m;
            heap->nthreads = 1;
            continue;
        }
        leave_thread(m);
        m->next = heap->left;
        heap->left = m;
    }
    if (heap->threads) go_on_between_cycles(heap->threads, abandoned);
}

void tri__mutators_settle(tri_heap *heap) {
    tri__vmstacks_forget(heap);
    while (heap->left) {
        struct mutator *m = heap->left;
        drop_roots(m);
        NO_FORK_REST();
        tri__large_abandon(&heap->mem, &m->build);
        tri__heap_account(m);
        tri__cache_flush(&m->cache);
        tri__heap_account(m);
        tri__lock_acquire(&heap->threads_lock); /* tri_find may look at it until here */
        heap->left = m->next;
        tri__lock_release(&heap->threads_lock);
        tri__cache_fini(&m->cache);
        put_mutator(m);
    }
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

/* The frames above the one to pop were left by a longjmp: they lie in stack memory that is in use for something else by
 * now, so they are not looked at. A frame that was popped names itself. */
void tri_frame_pop_slow(tri_thread *thread, tri_frame *frame) {
    struct mutator *m = tri__mutator_check(thread, "tri_frame_pop");
    NO_SAFEPOINT("tri_frame_pop");
    if (!m) return;
    if (frame && m->pub.frames && frame->prev != frame) {
        m->pub.frames = frame->prev;
        frame->prev = frame;
        return;
    }
    tri__report(m->heap, "tri_frame_pop", "this frame is not pushed; pop each frame once, newest first");
}
