/* step.c - a heap without threads of its own (workers=0): cycles, sweeps, jobs and the return of memory in slices on
 * the host's threads, inside allocation and at tri_step.
 *
 * Owns the turn: whoever has it is what the collector's thread is in other heaps, for as long as one slice takes. The
 * cycle itself is cycle.c's, which can be left at any deadline and gone on with. A slice runs in a blocking region of
 * its thread, so the steps that it posts are answered by itself where they are its own, as for any blocked thread;
 * those of running threads it looks at for a moment, and again in the next slice. Who needs a cycle's end (tri_collect,
 * memory at its limit, a job, tri_free) runs it, one after another.
 *
 *   allocation   pays as it goes: debt by the assist ratio while marking, 50 us at most at a time; the steps between,
 *                and the sweep, a little at each slow path
 *   tri_step     whatever there is to do, up to its budget; begins a cycle half-way to the trigger, so that a host
 *                which steps often enough finds no slice in its allocations
 *
 * Where cores are scarce a lent cycle is paid for by the same rules; what scarce.c hands on stands in the turn's place.
 *
 * Invariants: I-STEP1 one thread at most has the turn, and only it runs the cycle, jobs and the scavenger's turns.
 * I-STEP2 the turn is held in a blocking region and given back before its end, so nobody who has it is waited for at a
 * safepoint. I-STEP3 such a heap starts no thread. Lock rank: cycle (10), released while the turn is used. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"
#include "gc/scarce.h"

enum {
    SLICE_NS = 50000,       /* of an allocation while marking */
    SWEEP_NS = 10000,       /* and at each slow path besides: some hundreds of KB are swept for 32 KB taken */
    CLOCK_NS = 4000,        /* half of what is marked between two looks at the clock */
    PATIENCE_NS = 2000,     /* for running threads */
    LOOK_NS = 20000,        /* between two looks at whose answers are missing */
    RELOOK_NS = 1000000,    /* of waits that somebody else ends */
    OVERDUE_NS = 250000000, /* what is due by the clock waits so long for a step, then an allocation does it */
    DEBT_BYTES = 16 << 10,  /* less is not worth a slice */
    SWEEP_FRACTION = 4,
    EARLY_FRACTION = 2 /* tri_step begins a cycle when this part of the way to the trigger is left */
};

/* ---- the turn -------------------------------------------------------------------------------------------------- */

#define THE_TURN "a hook or a callback of a cycle"

static bool take_turn(tri_heap *heap) {
    tri__lock_acquire(&heap->cycle_lock);
    bool is_free = !heap->turn_taken && heap->stepped;          /* the mode may have changed (mode.c) */
    if (is_free) atomic_store_relaxed(&heap->turn_taken, true); /* read as a hint without the lock */
    tri__lock_release(&heap->cycle_lock);
    if (is_free) tri__fork_forbid(THE_TURN);
    return is_free;
}

/* Requires the cycle lock. */
static void end_turn(tri_heap *heap) {
    tri__fork_forbid(NULL);
    check_cheap(heap->turn_taken, "I-STEP1: the turn is given back by who has it");
    atomic_store_relaxed(&heap->turn_taken, false);
    tri__cond_broadcast(&heap->cycle_done);
}

static void give_turn(tri_heap *heap) {
    tri__lock_acquire(&heap->cycle_lock);
    end_turn(heap);
    tri__lock_release(&heap->cycle_lock);
}

/* Waits for it. False: until_ns came first. Requires the cycle lock. */
static bool await_turn(tri_heap *heap, uint64_t until_ns) {
    while (heap->turn_taken) {
        uint64_t now = tri__os_now_ns();
        if (now >= until_ns) return false;
        tri__cond_wait_for(&heap->cycle_done, &heap->cycle_lock, until_ns - now);
    }
    atomic_store_relaxed(&heap->turn_taken, true);
    tri__fork_forbid(THE_TURN);
    return true;
}

/* ---- with the turn --------------------------------------------------------------------------------------------- */

static void begin_cycle(tri_heap *heap, const char *reason, bool early) {
    atomic_store_relaxed(&heap->began_early, early); /* a hint */
    tri__lock_acquire(&heap->cycle_lock);
    atomic_store_relaxed(&heap->wanted, NULL);
    heap->started++;
    tri__lock_release(&heap->cycle_lock);
    tri__cycle_start(heap, reason);
}

/* True when it has ended. */
static bool continue_cycle(tri_heap *heap, uint64_t deadline_ns) {
    if (!tri__cycle_continue(heap, deadline_ns)) return false;
    tri__lock_acquire(&heap->cycle_lock);
    heap->finished++;
    check_cheap(heap->started == heap->finished, "I-COL1: one cycle at a time");
    tri__cond_broadcast(&heap->cycle_done);
    tri__lock_release(&heap->cycle_lock);
    return true;
}

/* Bytes at which a cycle begins. */
static size_t begin_bytes(tri_heap *heap, bool early) {
    size_t trigger = atomic_load_relaxed(&heap->trigger_bytes), live = atomic_load_relaxed(&heap->live_bytes);
    size_t base = live + atomic_load_relaxed(&heap->external_bytes); /* counters */
    if (!early || trigger <= base) return trigger;
    return trigger - (trigger - base) / EARLY_FRACTION;
}

/* What a cycle would be begun for; NULL: nothing. */
static const char *due(tri_heap *heap, bool early) {
    const char *wanted = atomic_load_relaxed(&heap->wanted); /* a hint for who has not the turn */
    if (wanted) return wanted;
    if (atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_NO_CYCLES) return NULL; /* an option */
    return heap_total_bytes(heap) >= begin_bytes(heap, early) ? "trigger" : NULL;
}

static bool scavenger_is_due(tri_heap *heap, uint64_t since_ns) {
    return heap->threadless && tri__scavenger_is_due(heap, since_ns);
}

static bool is_idle(tri_heap *heap) {
    return heap_phase(heap) == PHASE_IDLE;
}

/* The cycle that is due or under way, as far as there is time, and what the scavenger has to do. One cycle's begin at
 * most. True if something is left. */
static bool work(tri_heap *heap, uint64_t deadline_ns, bool early) {
    heap->patience_ns = PATIENCE_NS;
    if (!is_idle(heap) && !continue_cycle(heap, deadline_ns)) return true;
    const char *reason = due(heap, early);
    if (reason) {
        if (!tri__cycle_sweep(heap, deadline_ns)) return true; /* R21: before H1; a batch may be in other hands */
        begin_cycle(heap, reason, early && !due(heap, false));
        if (!continue_cycle(heap, deadline_ns)) return true;
    }
    return (heap->threadless && tri__scavenger_step(heap, deadline_ns)) || due(heap, early);
}

/* ---- slices ---------------------------------------------------------------------------------------------------- */

struct slice {
    tri_heap *heap;
    uint64_t deadline_ns;
    bool early;
    bool had_turn, more;
};

static void run_slice(void *p) {
    struct slice *s = p;
    if (tri__is_lent(s->heap)) { /* nobody takes turns meanwhile */
        s->had_turn = tri__lent_slice(s->heap, s->deadline_ns);
        s->more = true; /* for all it knows */
        return;
    }
    s->had_turn = take_turn(s->heap);
    if (!s->had_turn) return;
    tri__units_begin();
    s->more = work(s->heap, s->deadline_ns, s->early);
    tri__units_look((uint32_t)heap_phase(s->heap));
    give_turn(s->heap);
}

/* False: another thread has the turn. */
static bool slice(struct mutator *m, uint64_t budget_ns) {
    struct slice s = {.heap = m->heap, .deadline_ns = tri__os_now_ns() + budget_ns};
    if (atomic_load_relaxed(&m->heap->turn_taken) || atomic_load_relaxed(&m->heap->lent) == LENT_TAKEN)
        return false; /* hints */
    uint64_t ns = tri__blocking_wait(m, run_slice, &s);
    if (s.had_turn) tri__stats_pause(m->heap, TRI_PAUSE_ASSIST, ns);
    return s.had_turn;
}

/* Beyond the goal it takes a slice at each slow path, however small its debt: little may be left to mark, for which
 * the debt would rise too slowly to be worth one. */
static bool owes(tri_heap *heap, const struct mutator *m) {
    return m->assist_debt > DEBT_BYTES || heap_is_beyond_goal(heap);
}

/* Whether an allocation has to see to a cycle that is not marking: what a step has begun early, steps may end; a sweep
 * has time for a quarter of the way to the trigger. */
static bool is_called_for(tri_heap *heap, enum phase phase) {
    size_t total = heap_total_bytes(heap), trigger = atomic_load_relaxed(&heap->trigger_bytes); /* counters */
    size_t base = atomic_load_relaxed(&heap->live_bytes) + atomic_load_relaxed(&heap->external_bytes);
    if (phase == PHASE_IDLE) return due(heap, false) || scavenger_is_due(heap, OVERDUE_NS);
    if (phase == PHASE_SWEEP) return trigger < base || total > base + (trigger - base) / SWEEP_FRACTION;
    return total >= trigger || !atomic_load_relaxed(&heap->began_early); /* a hint */
}

/* Answers are missing, and somebody has looked a moment ago: a look is one at every thread that owes one. */
static bool waits_for_answers(tri_heap *heap) {
    if (!atomic_load_relaxed(&heap->pending)) return false; /* hints */
    uint64_t now = tri__os_now_ns();
    if (now - atomic_load_relaxed(&heap->looked_ns) < LOOK_NS) return true;
    atomic_store_relaxed(&heap->looked_ns, now);
    return false;
}

/* The phases in which there is nothing to pay with but slices of the cycle's own steps. */
static bool pace_between(struct mutator *m) {
    tri_heap *heap = m->heap;
    enum phase phase = heap_phase(heap);
    if (!is_called_for(heap, phase)) return false;
    bool mine = !waits_for_answers(heap) && slice(m, phase == PHASE_SWEEP ? SWEEP_NS : SLICE_NS);
    enum phase now = heap_phase(heap);
    if (!heap_is_beyond_goal(heap) || (mine && now == PHASE_IDLE)) return false;
    if (!mine || (now == phase && now != PHASE_SWEEP)) tri__throttle(m); /* for answers, or a core, maybe */
    return true;
}

bool tri__step_pace(struct mutator *m) {
    tri_heap *heap = m->heap;
    tri__heap_account(m);
    if (!atomic_load_acquire(&heap->tracing)) { /* see heap_account */
        m->assist_debt = 0;
        return pace_between(m);
    }
    if (m->assist_debt > DEBT_BYTES) tri__borrow_credit(m);
    if (!owes(heap, m)) return false;
    if (!slice(m, SLICE_NS)) { /* another thread has it */
        int64_t debt = m->assist_debt;
        if (debt > 0) tri__assist(m);
        /* What is grey may lie with that thread alone, which may need this one's core. */
        if (m->assist_debt >= debt && heap_is_beyond_goal(heap)) tri__throttle(m);
    }
    tri__borrow_credit(m);
    return owes(heap, m);
}

/* In a blocking region: runs some of what a wait is for, or lets somebody else. */
void tri__step_or_wait(tri_heap *heap, const uint32_t *word) {
    struct slice s = {.heap = heap, .deadline_ns = tri__os_now_ns() + RELOOK_NS};
    bool runs = tri__is_stepped(heap) || tri__is_lent(heap);
    if (runs) run_slice(&s);
    if (!s.had_turn || s.more) tri__os_futex_wait(word, 1, runs ? SLICE_NS : RELOOK_NS);
}

bool tri_step(tri_thread *thread, uint64_t budget_ns) {
    struct mutator *m = tri__mutator_check(thread, "tri_step");
    if (!m) return false;
    IN_CALL("tri_step");
    note_site(m, CALL_SITE("tri_step"));
    uint64_t start = tri__os_now_ns();
    safepoint_poll(m);
    tri_heap *heap = m->heap;
    if (!tri__is_stepped(heap)) return false;
    tri__heap_account(m);
    if (is_idle(heap) && !due(heap, true) && !scavenger_is_due(heap, 0)) return false;
    uint64_t work_ns = budget_ns - min_size(budget_ns / 16, CLOCK_NS); /* the clock is looked at between two pieces */
    struct slice s = {
        .heap = heap, .deadline_ns = work_ns < UINT64_MAX - start ? start + work_ns : UINT64_MAX - 1, .early = true};
    (void)tri__blocking_wait(m, run_slice, &s); /* the host's budget: no pause */
    return s.had_turn ? s.more : !is_idle(heap);
}

/* ---- who needs a cycle, or the world ---------------------------------------------------------------------------- */

/* Requires the cycle lock and the turn; releases the lock meanwhile. */
static void run_to_end(tri_heap *heap, const char *reason, uint64_t until_ns) {
    tri__lock_release(&heap->cycle_lock);
    heap->patience_ns = UINT64_MAX;
    if (is_idle(heap) && reason && tri__cycle_sweep(heap, until_ns)) begin_cycle(heap, reason, false);
    if (!is_idle(heap)) continue_cycle(heap, until_ns);
    tri__lock_acquire(&heap->cycle_lock);
}

bool tri__step_collect(tri_heap *heap, const char *reason, uint64_t until_ns) {
    uint64_t target = heap->started + 1; /* I-COL2 */
    heap->nturns++;                      /* the mode stays as it is */
    while (heap->finished < target && await_turn(heap, until_ns)) {
        if (heap->finished < target) run_to_end(heap, reason, until_ns);
        end_turn(heap);
        if (tri__os_now_ns() >= until_ns) break;
    }
    heap->nturns--;
    return heap->finished >= target;
}

bool tri__step_job(tri_heap *heap, void (*fn)(tri_heap *, void *), void *arg, uint64_t until_ns) {
    bool ran = false;
    heap->nturns++;
    if (await_turn(heap, until_ns)) {
        run_to_end(heap, NULL, until_ns);
        tri__lock_release(&heap->cycle_lock);
        if (is_idle(heap) && tri__cycle_sweep(heap, until_ns) && tri__world_stop(heap)) {
            fn(heap, arg);
            tri__world_start(heap);
            ran = true;
        }
        tri__lock_acquire(&heap->cycle_lock);
        end_turn(heap);
    }
    heap->nturns--;
    return ran;
}
