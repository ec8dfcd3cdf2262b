/* handshake.c - the collector's side of a handshake: post, wait, answer for blocked threads, stop the world.
 *
 * A step is posted under the threads lock to every attached thread. Each thread answers at its own next safepoint; for
 * a thread in a blocking region the collector answers under its state word. Nothing here stops a running thread.
 *
 * `pending` counts the answers that are owed. The collector spins on it for a moment, since a running mutator answers
 * within microseconds, then sleeps; whoever answers last wakes it, if it sleeps.
 *
 * Invariants: I-HS1 a step is posted only when the step before it has all its answers. I-HS2 (R16) the post is a
 * sequentially consistent store before the look at the state; the thread's state change is one before its look at the
 * request: at least one of the two sees the other. Lock ranks: threads, os. */
#include <stdio.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"

enum {
    SPIN_NS = 20000,        /* a running mutator answers within a refill or two: cheaper than two futex calls */
    LEAST_SLEEP_NS = 50000, /* less takes as long: the system wakes nobody sooner, and others may have the core then */
    RELOOK_NS = 200000,     /* a state word held by another heap's collector comes back without an answer to us */
    STOP_ROUNDS = 32,       /* of a world stop before it gives back what it holds */
    MAX_SLEEP_NS = 20000000 /* and for the silent-thread event */
};

void tri__handshake_post(tri_heap *heap, uint64_t seq) {
    check_cheap(tri__lock_held(&heap->threads_lock), "R9: posting holds the threads lock");
    check_cheap(atomic_load_relaxed(&heap->pending) == 0, "I-HS1: the step before has all its answers");
    atomic_store_relaxed(&heap->pending, heap->nthreads); /* before the posts' releases */
    for (struct mutator *m = heap->threads; m; m = m->next) {
        atomic_store_release(&m->request_seq, seq); /* pairs with answer_all's acquire */
        tri__lock_acquire(&m->os->lock);
        for (struct mutator *a = m->os->attachments; a; a = a->next_attachment)
            atomic_store_seq(&a->pub.request, 1); /* I-HS2; a poll on any heap answers every heap */
        tri__lock_release(&m->os->lock);
        if (TRI_CHECKS) tri__stress_delay(heap);
    }
}

/* Takes the state word of a blocked thread. */
static bool hold(struct mutator *m) {
    struct osthread *os = m->os;
    uint32_t expected = OS_BLOCKED;
    if (!atomic_cas_seq(&os->state, &expected, OS_HELD)) return false; /* I-HS2; enter_blocked and tri__leave_blocked */
    os->held_for = m;
    return true;
}

static void release_hold(struct osthread *os) {
    /* Pairs with tri__leave_blocked's CAS: what was done for it is visible. After this the thread may be gone: only its
     * word's address is used. */
    if (atomic_swap_seq(&os->state, OS_BLOCKED) == OS_HELD_WAITED) tri__os_futex_wake_all(&os->state);
}

/* A thread that runs and has not answered, and where it was seen last. For messages. */
struct silent {
    uint64_t since_ns, id; /* 0: none */
    const char *call;
    const void *site;
};

/* The state of the threads that still owe an answer. */
struct owing {
    struct mutator *held; /* one that is now held: answer for it */
    bool all;             /* none is: every thread was looked at */
    bool elsewhere;       /* one is held by another heap's collector */
    struct silent silent;
};

/* Of several the one that has been away for longest. Requires the threads lock. */
static void note_silent(struct silent *s, const struct mutator *m) {
    uint64_t since = atomic_load_relaxed(&m->os->last_safepoint_ns); /* for messages, as all here */
    if (s->id && since >= s->since_ns) return;
    *s = (struct silent){since, m->os->id, atomic_load_relaxed(&m->os->site_call), atomic_load_relaxed(&m->os->site)};
}

/* Takes hold of the next blocked thread that owes an answer. Goes on where it left off, so that a step costs one look
 * at each thread and not one at all for each: the cursor moves on when its thread leaves (tri_detach). */
static struct owing look(tri_heap *heap, uint64_t seq) {
    struct owing o = {0};
    tri__lock_acquire(&heap->threads_lock);
    o.all = !heap->look_next;
    struct mutator *m = heap->look_next ? heap->look_next : heap->threads;
    for (; m && !o.held; m = m->next) {
        if (atomic_load_acquire(&m->answer_seq) >= seq) continue; /* pairs with mutator_answer's release */
        if (m->stopped) {                                         /* by the cycle itself (mode.c) */
            o.held = m;
        } else if (hold(m)) {
            if (atomic_load_acquire(&m->answer_seq) >= seq) /* it answered between the two looks */
                release_hold(m->os);
            else
                o.held = m;
        } else {
            o.elsewhere |= atomic_load_relaxed(&m->os->state) != OS_RUNNING; /* only to choose the time to wait */
            note_silent(&o.silent, m);
        }
    }
    heap->look_next = m;
    tri__lock_release(&heap->threads_lock);
    return o;
}

/* The answer of a blocked thread, if there is one. */
static struct owing answer_for_one(tri_heap *heap, uint64_t seq) {
    NO_FORK_REST(); /* it has the other's holes in hand */
    struct owing o = look(heap, seq);
    if (o.held) {
        uint64_t scanned_ns = o.held->scan_end_ns;
        tri__mutator_answer(o.held);
        if (o.held->scan_end_ns != scanned_ns && tri__mutator_is_own(o.held)) /* part of a slice, which is its pause */
            tri__stats_pause_of(heap, o.held, TRI_PAUSE_SCAN, o.held->scan_ns);
        if (!o.held->stopped) release_hold(o.held->os);
    }
    return o;
}

static void tell_silent(tri_heap *heap, const struct silent *s, uint64_t start_ns) {
    uint64_t now = tri__os_now_ns();
    if (!heap->config.event || !s->id) return;
    tri_event event = {.struct_size = sizeof event,
                       .kind = TRI_EVENT_SILENT_THREAD,
                       .cycle = atomic_load_relaxed(&heap->cycle_number),
                       .reason = "silent thread",
                       .silent_ns = now - start_ns,
                       .silent_thread_id = s->id,
                       .silent_call = s->call,
                       .silent_site = s->site};
    IN_HOOK();
    heap->config.event(&event, heap->config.user);
}

const char *tri__silent_text(tri_heap *heap, char text[SILENT_TEXT_BYTES]) {
    struct silent s = {0};
    uint64_t asked_ns = atomic_load_relaxed(&heap->step_posted_ns); /* for a message */
    text[0] = '\0';
    tri__lock_acquire(&heap->threads_lock);
    bool stopping = atomic_load_relaxed(&heap->stopping) != 0; /* under the lock */
    for (const struct mutator *m = heap->threads; m; m = m->next) {
        bool owes = atomic_load_acquire(&m->answer_seq) < atomic_load_relaxed(&heap->step_seq); /* as in look */
        if ((owes || stopping) && atomic_load_relaxed(&m->os->state) == OS_RUNNING) note_silent(&s, m);
    }
    tri__lock_release(&heap->threads_lock);
    uint64_t now_ns = tri__os_now_ns(); /* after the threads' own times were read */
    if (s.id)
        snprintf(
            text, SILENT_TEXT_BYTES,
            "; thread %llu reaches no safepoint since %llu ms; its last call that took the library's slow path was "
            "%s, called from %p",
            (unsigned long long)s.id, (unsigned long long)((now_ns - max_size(asked_ns, s.since_ns)) / 1000000),
            s.call ? s.call : "none", s.site);
    return text;
}

/* True when every answer has come, within the time that a spin is worth. */
static bool spin(tri_heap *heap, uint64_t until_ns) {
    if (heap->ncpus < 2) return atomic_load_acquire(&heap->pending) == 0; /* pairs with mutator_answer's decrement */
    uint64_t now = tri__os_now_ns(), end = until_ns - now < SPIN_NS ? until_ns : now + SPIN_NS;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_acquire(&heap->pending) == 0) return true; /* pairs with mutator_answer's decrement */
            cpu_relax();
        }
    } while (tri__os_now_ns() < end);
    return false;
}

static void sleep_until_answered(tri_heap *heap, uint64_t timeout_ns) {
    atomic_store_seq(&heap->collector_sleeps, 1); /* before the look at pending; pairs with mutator_answer */
    uint32_t pending = atomic_load_seq(&heap->pending);
    uint64_t start = tri__os_now_ns();
    if (pending) tri__os_futex_wait(&heap->pending, pending, timeout_ns);
    atomic_store_relaxed(&heap->collector_sleeps, 0);
    heap->run.slice_ns += tri__os_now_ns() - start; /* it did not run */
}

/* Builds with checks wait without an end where nobody asks for silent threads: a wakeup that is lost shows. */
static uint64_t longest_sleep_ns(const tri_heap *heap) {
    return TRI_CHECKS >= 1 && heap_silent_ns(heap) == 0 ? UINT64_MAX : MAX_SLEEP_NS;
}

/* Once for each silent_after_ms that the step has waited, whoever waits for it. */
static void watch_silence(tri_heap *heap, const struct silent *s, uint64_t now_ns) {
    struct cycle_run *run = &heap->run;
    uint64_t silent_ns = heap_silent_ns(heap), waited_ns = now_ns - run->posted_ns;
    if (!silent_ns || waited_ns / silent_ns <= run->silent_told) return;
    run->silent_told = waited_ns / silent_ns;
    tell_silent(heap, s, run->posted_ns);
}

bool tri__handshake_wait(tri_heap *heap, uint64_t deadline_ns) {
    uint64_t seq = atomic_load_relaxed(&heap->step_seq), until_ns = 0; /* own write */
    while (atomic_load_acquire(&heap->pending)) {                      /* pairs with mutator_answer's decrement */
        struct owing o = answer_for_one(heap, seq);
        if (o.held || !o.all) continue;
        if (!until_ns) until_ns = heap_patience_end(heap, deadline_ns);
        if (spin(heap, until_ns)) return true;
        uint64_t now = tri__os_now_ns(), most_ns = o.elsewhere ? RELOOK_NS : longest_sleep_ns(heap);
        watch_silence(heap, &o.silent, now);
        if (now >= until_ns || until_ns - now < LEAST_SLEEP_NS) return false;
        sleep_until_answered(heap, until_ns - now < most_ns ? until_ns - now : most_ns);
    }
    return true;
}

/* ---- stopping the world: checkmark, verify, walk; part of a cycle in the modes that stop (mode.c) ---------------- */

/* The thread that has been longest away from a safepoint, of those that are not held. */
static struct silent silent_thread(tri_heap *heap) {
    struct silent s = {0};
    tri__lock_acquire(&heap->threads_lock);
    for (struct mutator *m = heap->threads; m; m = m->next)
        if (!m->stopped) note_silent(&s, m);
    tri__lock_release(&heap->threads_lock);
    return s;
}

/* Asks every thread that is not held yet to park, and holds those that have. True when all are held. */
static bool stop_round(tri_heap *heap) {
    bool all = true;
    tri__lock_acquire(&heap->threads_lock);
    for (struct mutator *m = heap->threads; m; m = m->next) {
        if (m->stopped || (m->stopped = hold(m))) continue;
        all = false;
        tri__lock_acquire(&m->os->lock);
        for (struct mutator *a = m->os->attachments; a; a = a->next_attachment) atomic_store_seq(&a->pub.request, 1);
        tri__lock_release(&m->os->lock);
    }
    tri__lock_release(&heap->threads_lock);
    return all;
}

/* Gives back every word that is held. Requires the threads lock. */
static void give_back(tri_heap *heap) {
    for (struct mutator *m = heap->threads; m; m = m->next) {
        if (!m->stopped) continue;
        m->stopped = false;
        release_hold(m->os);
    }
}

static void end_stop(tri_heap *heap) {
    tri__lock_acquire(&heap->threads_lock);
    atomic_store_seq(&heap->stopping, 0); /* pairs with park_while_stopped */
    give_back(heap);
    tri__lock_release(&heap->threads_lock);
    tri__os_futex_wake_all(&heap->stopping);
}

/* Two heaps that stop may each hold a thread that the other needs: after a while each gives all back and tries again
 * after a time of its own. The threads stay parked meanwhile. */
static void back_off(tri_heap *heap, uint32_t nrounds) {
    tri__lock_acquire(&heap->threads_lock);
    give_back(heap);
    tri__lock_release(&heap->threads_lock);
    tri__os_sleep_ns((tri__os_now_ns() * 0x9e3779b97f4a7c15ull ^ (uintptr_t)heap ^ nrounds) % 500000);
}

bool tri__world_stop(tri_heap *heap) {
    return tri__world_stop_within(heap, heap_wait_limit_ns(heap));
}

bool tri__world_stop_within(tri_heap *heap, uint64_t limit_ns) {
    uint64_t start = tri__os_now_ns(), told = 0;
    uint64_t silent_ns = heap_silent_ns(heap);
    if (heap->nstops > 0) { /* within a stop of the cycle's */
        heap->nstops++;
        return true;
    }
    tri__lock_acquire(&heap->threads_lock);
    atomic_store_seq(&heap->stopping, 1); /* pairs with park_while_stopped; attach and detach wait outside the list */
    tri__lock_release(&heap->threads_lock);
    for (uint32_t nrounds = 1; !stop_round(heap); nrounds++) {
        uint64_t waited = tri__os_now_ns() - start;
        if (silent_ns && waited / silent_ns > told) {
            told = waited / silent_ns;
            struct silent s = silent_thread(heap);
            tell_silent(heap, &s, start);
        }
        if (waited > limit_ns) {
            end_stop(heap);
            return false;
        }
        if (nrounds % STOP_ROUNDS == 0)
            back_off(heap, nrounds);
        else
            tri__os_sleep_ns(20000);
    }
    tri__memory_hold_claims(&heap->mem, true);
    heap->run.slice_ns += tri__os_now_ns() - start; /* it did not run */
    heap->nstops = 1;
    return true;
}

void tri__world_start(tri_heap *heap) {
    if (--heap->nstops > 0) return;
    tri__memory_hold_claims(&heap->mem, false);
    end_stop(heap);
}
