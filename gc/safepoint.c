/* safepoint.c - the calling thread's side of a handshake (R1, R14, R16, R21): it answers what is asked of it at a
 * safepoint, becomes blocked for as long as the host or the library waits, and parks while the world is stopped. Owns
 * the thread's moves of its state word (mutator.h has the table); the collector's are handshake.c's. Who is attached,
 * and how, is mutator.c's. Invariants: I-MUT1 and I-MUT2 of mutator.h; that a thread which enters a region and a
 * collector that asks see one another is I-HS2 (handshake.c).
 *
 * Lock rank: no lock is held at a safepoint (R14); the answers take their own. */
#include <stdlib.h>
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"
#include "gc/mode.h"
#include "gc/mutator.h"

/* ---- the state word ------------------------------------------------------------------------------------------ */

void tri__leave_blocked(struct osthread *os) {
    for (;;) {
        uint32_t expected = OS_BLOCKED;
        if (TRI_LIKELY(atomic_cas_seq(&os->state, &expected, OS_RUNNING))) return; /* hold's CAS and release_hold */
        if (expected == OS_HELD && !atomic_cas_seq(&os->state, &expected, OS_HELD_WAITED)) continue;
        tri__os_futex_wait(&os->state, OS_HELD_WAITED, 0); /* release_hold wakes */
    }
}

/* The same where nobody else times it: a collector that holds the word answers a step for this thread. Of several that
 * held it, it is in the heap of the one that read this thread's roots meanwhile, else of the last. All are attached
 * still. */
static void leave_timed(struct osthread *os) {
    uint32_t expected = OS_BLOCKED;
    if (TRI_LIKELY(atomic_cas_seq(&os->state, &expected, OS_RUNNING))) return; /* as tri__leave_blocked */
    uint64_t start = tri__os_now_ns();
    tri__leave_blocked(os);
    uint64_t end = tri__os_now_ns();
    const struct mutator *cause = os->held_for;
    for (const struct mutator *m = os->attachments; m; m = m->next_attachment)
        if (tri__stats_scan_within(m, start, end) > tri__stats_scan_within(cause, start, end)) cause = m;
    tri__stats_answer(cause, start, end);
}

static bool any_request(struct osthread *os) {
    for (struct mutator *m = os->attachments; m; m = m->next_attachment)
        if (atomic_load_seq(&m->pub.request)) return true; /* after the state change, both seq_cst (R16) */
    return false;
}

static void answer_all(struct osthread *os);

/* Becomes blocked, and tests for requests after that (R16): a collector that posted before sees the state, or this
 * thread sees the request. */
static void enter_blocked(struct osthread *os, uintptr_t sp) {
    may_safepoint();
    check_cheap(tri__lock_none_held(), "R14: no lock is held in a blocking region");
    check_cheap(atomic_load_relaxed(&os->unforkable) == 0, "I-FORK2: a section that a fork waits for has no safepoint");
    atomic_store_release(&os->sp, sp); /* pairs with the holder's acquire */
    for (;;) {
        atomic_store_seq(&os->state, OS_BLOCKED); /* pairs with the collector's look at the state after its post */
        if (!any_request(os)) return;
        leave_timed(os);
        answer_all(os);
    }
}

/* Answers every pending step of every attachment of this OS thread. os->sp is set. */
static void answer_all(struct osthread *os) {
    /* All requests first, then the sequences: a post sets the request of every attachment after its sequence, so one
     * that is cleared here is answered below, and one that is not stays set on the attachment that the host polls. */
    for (struct mutator *m = os->attachments; m; m = m->next_attachment)
        atomic_swap_acqrel(&m->pub.request, 0); /* pairs with handshake_post */
    for (struct mutator *m = os->attachments; m; m = m->next_attachment) {
        uint64_t seq = atomic_load_acquire(&m->request_seq); /* pairs with handshake_post */
        if (seq == m->answer_seq) continue;
        NO_FORK(os);
        uint64_t start = tri__os_now_ns(); /* a fork's wait is told as a lock's */
        tri__mutator_answer(m);
        tri__stats_answer(m, start, tri__os_now_ns());
    }
    if (os->attachments) tri__stats_locks(os->attachments);
    atomic_store_relaxed(&os->last_safepoint_ns, tri__os_recently_ns()); /* for messages */
}

/* Without AddressSanitizer: it may move a function's variables to a frame of its own, off the stack, and its address
 * with them. */
static __attribute__((no_sanitize("address"), noinline)) void with_sp(spilled_fn fn, struct osthread *os, void *arg) {
    atomic_store_release(&os->sp, (uintptr_t)__builtin_frame_address(0)); /* below the spilled frame */
    fn(os, arg);
    __asm__ volatile("" ::: "memory"); /* no tail call: this frame stays under fn */
}
__attribute__((noinline)) void tri__with_registers_spilled(spilled_fn fn, struct osthread *os, void *arg) {
    __builtin_unwind_init(); /* saves all callee-saved registers in this frame */
    with_sp(fn, os, arg);
    __asm__ volatile("" ::: "memory");
}

/* A world stop: park as a blocked thread until it is over. What enter_blocked answers before it has been told. */
static void park_while_stopped(struct mutator *m) {
    while (atomic_load_acquire(&m->heap->stopping)) { /* pairs with world_start */
        enter_blocked(m->os, atomic_load_relaxed(&m->os->sp));
        uint64_t start = tri__os_now_ns();
        tri__os_futex_wait(&m->heap->stopping, 1, 0);
        tri__leave_blocked(m->os);
        if (tri__mode(m->heap) != MODE_CONCURRENT) /* the cycle may have stopped it: a pause */
            tri__stats_answer(m, start, tri__os_now_ns());
        else
            tri__stats_pause(m->heap, TRI_PAUSE_WAIT, tri__os_now_ns() - start);
    }
}

static void safepoint_spilled(struct osthread *os, void *arg) {
    (void)arg;
    /* One step a safepoint: what is posted from here on sets the request again and waits for the next one. A stop that
     * was asked for before the answer took the request back is seen by the look at `stopping`. */
    answer_all(os);
    for (struct mutator *m = os->attachments; m; m = m->next_attachment) park_while_stopped(m);
}

void tri__safepoint(struct mutator *m) {
    may_safepoint();
    check_cheap(tri__lock_none_held(), "R1: no lock is held at a safepoint");
    tri__with_registers_spilled(safepoint_spilled, m->os, NULL);
}

void tri_poll_slow(tri_thread *thread) {
    struct mutator *m = tri__mutator_attached(thread, "tri_poll");
    if (!m) return;
    IN_CALL("tri_poll");
    note_site(m, CALL_SITE("tri_poll"));
    if (!tri__mutator_is_own(m)) {
        tri__report(m->heap, "tri_poll", "this tri_thread belongs to another thread; each thread uses its own");
        return;
    }
    tri__safepoint(m);
    tri__stress_poll(m);
}

/* ---- blocking regions ---------------------------------------------------------------------------------------- */

struct blocking_call {
    void *(*fn)(void *);
    void *arg, *result;
};

static void *call_host(const struct blocking_call *call) {
    IN_HOOK();
    return call->fn(call->arg);
}

/* Not on the thread's stack: a thread that ends inside a region unwinds that beside a collector which scans for it. */
static bool has_room_for_region(struct osthread *os) {
    if (os->nregions < os->max_regions) return true;
    size_t max = os->max_regions * 2;
    tri_word *roots = malloc(max * sizeof *roots);
    if (!roots) return false;
    memcpy(roots, os->region_roots, os->nregions * sizeof *roots);
    if (os->region_roots != os->first_regions) free(os->region_roots);
    os->region_roots = roots; /* read by others only while this thread is blocked */
    os->max_regions = max;
    return true;
}

/* A coroutine that was left in the function may be taken up by any thread. */
#define ENDS_WHERE_IT_BEGAN "I-REG1: the function of a tri_blocking or tri_callin returns on the thread that called it"

static void run_blocking(struct osthread *os, void *p) {
    struct blocking_call *call = p;
    uintptr_t outer_sp = atomic_load_relaxed(&os->sp);
    size_t number = os->nregions++;                            /* a callin's regions come and go behind it */
    os->region_roots[number] = (tri_word)(uintptr_t)call->arg; /* a root from the first answer on */
    answer_all(os);
    os->depth++;
    enter_blocked(os, outer_sp);
    call->result = call_host(call);
    check_always(tri__osthread_is_own(os), ENDS_WHERE_IT_BEGAN);
    leave_timed(os);
    os->depth--;
    atomic_store_release(&os->sp, outer_sp);
    os->region_roots[number] = (tri_word)(uintptr_t)call->result; /* a root while the pending steps are answered */
    safepoint_spilled(os, NULL);
    os->nregions = number;
}

/* The thread's own attachment, and a function to call. */
static bool is_callable(struct mutator *m, const char *call, void *(*fn)(void *)) {
    if (!tri__mutator_is_own(m)) {
        tri__report(m->heap, call, "this tri_thread belongs to another thread; each thread uses its own");
        return false;
    }
    if (!fn) tri__error(TRI_EINVAL, call, "fn is NULL");
    return fn != NULL;
}

void *tri_blocking(tri_thread *thread, void *(*fn)(void *), void *arg) {
    struct mutator *m = tri__mutator_attached(thread, "tri_blocking");
    if (!m || !is_callable(m, "tri_blocking", fn)) return NULL;
    IN_CALL("tri_blocking");
    note_site(m, CALL_SITE("tri_blocking"));
    if (atomic_load_relaxed(&m->os->state) != OS_RUNNING) { /* own word */
        tri__report(m->heap, "tri_blocking", "the thread is in a blocking region already; call tri_callin first");
        return NULL;
    }
    if (!has_room_for_region(m->os)) {
        tri__error(TRI_ENOMEM, "tri_blocking", "no memory for one more region inside those of this thread");
        return NULL;
    }
    struct blocking_call call = {fn, arg, NULL};
    tri__with_registers_spilled(run_blocking, m->os, &call);
    return call.result;
}

static void run_callin(struct osthread *os, void *p) {
    struct blocking_call *call = p;
    safepoint_spilled(os, NULL);
    call->result = call_host(call);
    check_always(tri__osthread_is_own(os), ENDS_WHERE_IT_BEGAN);
    safepoint_spilled(os, NULL); /* the result is the host's business: it is no root here */
}

void *tri_callin(tri_thread *thread, void *(*fn)(void *), void *arg) {
    struct mutator *m = tri__mutator_attached(thread, "tri_callin");
    if (!m || !is_callable(m, "tri_callin", fn)) return NULL;
    IN_CALL("tri_callin");
    note_site(m, CALL_SITE("tri_callin"));
    struct osthread *os = m->os;
    if (os->depth == 0 || atomic_load_relaxed(&os->state) == OS_RUNNING) { /* own word: HELD or BLOCKED otherwise */
        tri__error(TRI_ESTATE, "tri_callin",
                   "the thread is not in a blocking region; call it from inside tri_blocking");
        return NULL;
    }
    struct blocking_call call = {fn, arg, NULL};
    uintptr_t outer_sp = atomic_load_relaxed(&os->sp); /* the frames from the region's entry up stay roots */
    leave_timed(os);
    uint32_t depth = os->depth;
    os->depth = 0;
    os->ncallins++;
    tri__with_registers_spilled(run_callin, os, &call);
    os->ncallins--;
    os->depth = depth;
    enter_blocked(os, outer_sp);
    return call.result;
}

struct internal_wait {
    void (*fn)(void *);
    void *arg;
    uint64_t ns;
};

/* A thread that the host cancels goes when the call is over: it may hold the cycle lock, or run a cycle. The steps that
 * it answers before and after are told as such, and are no part of the wait. */
static void run_wait(struct osthread *os, void *p) {
    struct internal_wait *wait = p;
    int cancels;
    answer_all(os);
    enter_blocked(os, atomic_load_relaxed(&os->sp));
    uint64_t start = tri__os_now_ns();
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancels);
    wait->fn(wait->arg);
    pthread_setcancelstate(cancels, NULL);
    tri__leave_blocked(os);
    wait->ns = tri__os_now_ns() - start;
    tri__lock_forget_waited(); /* since answer_all: part of it */
    safepoint_spilled(os, NULL);
}

uint64_t tri__blocking_wait(struct mutator *m, void (*fn)(void *), void *arg) {
    struct internal_wait wait = {fn, arg, 0};
    tri__with_registers_spilled(run_wait, m->os, &wait);
    return wait.ns;
}
