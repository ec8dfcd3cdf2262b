/* cycle.c - one collection from its first step to its last, as the table of docs/design.md has it. No step of it stops
 * all threads; each thread answers a step at its own next safepoint (handshake.c).
 *
 *   step        each thread                                          when all have answered
 *   H1 arm      barrier on; own stack counts as grey                 no store that begins now is without a barrier
 *   H2 settle   nothing                                              no store is in flight that read before H1
 *   H3 scan     shades its roots; stack black; allocates black       all stacks are black; global roots scanned
 *   mark        assists                                              nothing grey is known
 *   H4 flush    hands its grey work over, answers any or none        after a round of none: closed
 *   death       weak loads are closed meanwhile                      (R7; death.c)
 *   H5 disarm   barrier off, buffer thrown away                      -
 *   flip        -                                                    the sweep generation advances, with H6's post (R9)
 *   H6 retire   gives its holes back, allocates white                the old generation has no owner left
 *   sweep       on demand                                            every span is of the new generation
 *
 * The model of this (tests/model/onthefly.pml) has a step for each; its names stand beside ours as "model: M-...".
 *
 * Invariants: I-CYC1 phases follow phase_edges. I-CYC2 H1 is posted when every span is swept. I-CYC3 (R4) tracing
 * begins after the last H3 answer. I-CYC4 (R3) a round starts and ends with an empty list and idle markers. I-CYC5 at
 * H5 nothing unmarked is in any buffer. Lock ranks: threads (posting), gate (closing); nothing is held while
 *   waiting. */
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"
#include "gc/mode.h"
#include "gc/scarce.h"

/* How long the collector marks between two looks at the pace; after how many rounds loads wait for the close (R5). */
enum { MARK_SLICE_NS = 200000, SWEEP_BATCH = 64, SWEEP_SLICE = 8, SWEPT_UNITS = 16, ROUNDS_WITH_LOADS = 8 };

/* phase_edges[from] has bit `to` set when that change is allowed. */
static const uint32_t phase_edges[NUM_PHASES] = {
    [PHASE_IDLE] = 1u << PHASE_ARM,     [PHASE_ARM] = 1u << PHASE_SETTLE,
    [PHASE_SETTLE] = 1u << PHASE_SCAN,  [PHASE_SCAN] = 1u << PHASE_MARK,
    [PHASE_MARK] = 1u << PHASE_FLUSH,   [PHASE_FLUSH] = 1u << PHASE_MARK | 1u << PHASE_DEATH,
    [PHASE_DEATH] = 1u << PHASE_DISARM, [PHASE_DISARM] = 1u << PHASE_RETIRE,
    [PHASE_RETIRE] = 1u << PHASE_SWEEP, [PHASE_SWEEP] = 1u << PHASE_IDLE,
};

/* The only writer of heap->phase. */
static void phase_set(tri_heap *heap, enum phase to) {
    enum phase from = atomic_load_relaxed(&heap->phase); /* own */
    check_always(phase_edges[from] >> to & 1, "I-CYC1: phases follow the table of edges");
    atomic_store_release(&heap->phase, to); /* pairs with heap_phase */
    tri__stats_phase(heap, to);
    tri__stress_delay(heap);
}

static const uint32_t gate_edges[] = {
    [GATE_IDLE] = 1u << GATE_OPEN,
    [GATE_OPEN] = 1u << GATE_OPEN | 1u << GATE_CLOSING,
    [GATE_CLOSING] = 1u << GATE_OPEN | 1u << GATE_CLOSED,
    [GATE_CLOSED] = 1u << GATE_IDLE,
};

/* The only writer of heap->gate. Requires the gate lock. */
static void gate_to(tri_heap *heap, enum weak_gate gate) {
    check_always(gate_edges[heap->gate] >> gate & 1, "R5: the gate opens, closes and goes idle in this order");
    heap->gate = gate;
    heap->mem.pages_stay = gate != GATE_IDLE; /* R13 */
}

/* A round is to begin or has failed: loads go on spoiling the next ones, or wait from here to the close. */
static void gate_set(tri_heap *heap, enum weak_gate gate, bool loads_wait) {
    tri__lock_acquire(&heap->mem.gate);
    gate_to(heap, gate);
    heap->spoiled = false;
    atomic_store_release(&heap->loads_wait, loads_wait); /* pairs with wait_for_close in inspect.c */
    tri__lock_release(&heap->mem.gate);
}

static bool gate_close(tri_heap *heap) {
    tri__lock_acquire(&heap->mem.gate); /* model: M-CLOSE; one lock with whatever spoils (R5) */
    bool closes = !heap->spoiled;
    if (closes) {
        gate_to(heap, GATE_CLOSED);
        atomic_store_release(&heap->loads_wait, 0); /* pairs with wait_for_close in inspect.c */
    }
    tri__lock_release(&heap->mem.gate);
    if (closes) tri__os_futex_wake_all(&heap->loads_wait);
    return closes;
}

/* ---- what a thread does for each step ------------------------------------------------------------------------ */

static void set_armed(struct mutator *m, bool armed) {
    m->armed = armed;
    bool slow = atomic_load_relaxed(&m->heap->stress.slow) != 0; /* a test's switch */
    m->cache.single = slow;
    atomic_store_relaxed(&m->pub.armed, armed || slow); /* read by its own thread only, see inline.h */
}

static void collect_counts(struct mutator *m) {
    atomic_add_relaxed(&m->heap->cycle_marked_bytes, m->marker.marked_bytes);
    atomic_add_relaxed(&m->heap->stats.marked_objects, m->marker.marked_objects);
    m->marker.marked_bytes = m->marker.marked_objects = m->marker.scanned_bytes = 0;
}

/* For the pause that tri__stats_answer tells within the answer's. */
static void note_scan(struct mutator *m, uint64_t start_ns) {
    m->scan_end_ns = tri__os_now_ns();
    m->scan_ns = m->scan_end_ns - start_ns;
}

/* H1, for the memory of H3's copy. A deep chain of frames takes as long to follow as to copy: told as a scan, too. */
static void answer_arm(struct mutator *m) {
    uint64_t start = tri__os_now_ns();
    m->grey_stack = true;
    m->deletes = tri__mode(m->heap) != MODE_INSERTION;
    set_armed(m, true);
    if (tri__mutator_count_frames(m)) note_scan(m, start);
    tri__copies_ask(m->heap, tri__mutator_stack_bytes(m, atomic_load_acquire(&m->os->sp))); /* enter_blocked */
}

/* H3: the whole of it without a safepoint, so stack and colour change together. */
static void answer_scan(struct mutator *m) {
    uint64_t start = tri__os_now_ns();
    if (!heap_fault(m->heap, FAULT_FORGET_ROOT)) tri__mutator_scan_roots(m);
    if (m->deletes) tri__mutator_stacks_scanned(m);
    m->grey_stack = !m->deletes; /* insertion: it is scanned again in a stop */
    m->cache.notes_black = !m->deletes;
    tri__cache_blacken(&m->cache);
    tri__marker_hand_over(&m->marker);
    tri__heap_account(m);
    note_scan(m, start);
}

/* H4: "any" if since its last answer it turned an object grey, popped one or handed over a buffer (R2). */
static void answer_flush(struct mutator *m) {
    bool any = heap_fault(m->heap, FAULT_FLUSH_BLIND) ? false : tri__barrier_flush(m);
    any |= tri__marker_hand_over(&m->marker);
    any |= m->marker.worked;
    m->marker.worked = false; /* cleared only here (R2) */
    collect_counts(m);
    if (any) atomic_store_release(&m->heap->found, 1); /* pairs with the look at the round's end */
}

/* H5: whatever is in the buffers is marked, or the round that closed was wrong. */
static void answer_disarm(struct mutator *m) {
    struct space *space = &m->heap->mem.space;
    struct workbuf *buf = m->marker.buf;
    for (size_t i = 0; i < m->nshade; i++) {
        struct slot slot;
        check_cheap(!space_find_slot(space, m->shade[i], &slot) || space_is_marked(space, &slot) ||
                        heap_fault(m->heap, FAULT_FLUSH_BLIND),
                    "I-CYC5: at H5 nothing in a buffer is unmarked");
    }
    for (size_t i = 0; buf && i < buf->n; i++) {
        struct slot slot;
        check_cheap((buf->entries[i] & WORK_TAG_MASK) == WORK_CANDIDATE, "I-CYC5: at H5 nothing grey is in a buffer");
        check_cheap(!space_find_slot(space, buf->entries[i] & ~(uintptr_t)WORK_TAG_MASK, &slot) ||
                        space_is_marked(space, &slot),
                    "I-CYC5: at H5 nothing in a buffer is unmarked");
    }
    m->nshade = 0; /* I-BAR3 */
    if (buf) {
        buf->n = 0;
        m->marker.buf = NULL;
        tri__work_put_empty(&m->heap->work, buf);
    }
    m->marker.worked = false;
    set_armed(m, false);
}

static void answer_retire(struct mutator *m) {
    tri__heap_account(m);
    tri__cache_flush(&m->cache); /* unmarks what it did not use */
    tri__cache_trim(&m->cache);
    m->cache.taken_bytes = 0; /* pace_next takes it off the heap's size with the garbage: it is in no live byte */
    m->cache.black = false;
    m->cache.gen = m->heap->posted_gen; /* written before the post */
    tri__heap_account(m);
}

void tri__mutator_answer(struct mutator *m) {
    NO_SAFEPOINT("the answer to a step");
    tri_heap *heap = m->heap;
    uint64_t seq = atomic_load_acquire(&m->request_seq); /* pairs with handshake_post; last_step was written before */
    tri__stress_delay(heap);
    switch (heap->last_step) {
    case STEP_NONE: break;
    case STEP_ARM: answer_arm(m); break;
    case STEP_SETTLE: break;
    case STEP_SCAN: answer_scan(m); break;
    case STEP_FLUSH: answer_flush(m); break;
    case STEP_DISARM: answer_disarm(m); break;
    case STEP_RETIRE: answer_retire(m); break;
    }
    tri__stress_delay(heap);
    atomic_add_relaxed(&heap->stats.handshakes, 1);
    atomic_store_release(&m->answer_seq, seq); /* pairs with look() in handshake.c: everything done above */
    if (atomic_sub_seq(&heap->pending, 1) == 1 && atomic_load_seq(&heap->collector_sleeps)) /* sleep_until_answered */
        tri__os_futex_wake_all(&heap->pending);
}

/* The flip shares the lock with H6's post (R9). */
static void post(tri_heap *heap, enum step step) {
    tri__lock_acquire(&heap->threads_lock);
    uint64_t seq = heap->step_seq + 1;
    heap->last_step = step;
    if (step == STEP_RETIRE) {              /* model: M-FLIP */
        tri__lock_acquire(&heap->mem.gate); /* lookups trust marks until here, generations from here on (R5) */
        gate_to(heap, GATE_IDLE);           /* H5 is answered (R13) */
        tri__memory_flip(&heap->mem);
        tri__lock_release(&heap->mem.gate);
        heap->posted_gen = atomic_load_relaxed(&heap->mem.gen); /* own write */
    }
    heap->run.posted_ns = tri__os_now_ns();
    heap->run.silent_told = 0;
    atomic_store_relaxed(&heap->step_seq, seq);                       /* under the lock */
    atomic_store_relaxed(&heap->step_posted_ns, heap->run.posted_ns); /* a hint for throttle */
    tri__handshake_post(heap, seq);
    tri__lock_release(&heap->threads_lock);
    tri__stress_delay(heap);
}

/* Posts a step, once, and waits for its answers. False: some are missing yet. */
static bool handshake(tri_heap *heap, enum step step, uint64_t deadline_ns) {
    struct cycle_run *run = &heap->run;
    if (!run->posted) post(heap, step);
    bool early = step == STEP_SCAN && heap_fault(heap, FAULT_EARLY_TRACE);
    run->posted = !early && !tri__handshake_wait(heap, deadline_ns);
    return !run->posted;
}

/* ---- marking ------------------------------------------------------------------------------------------------- */

/* Makes the worker's progress known: credit for assists, the pace of the cycle. */
static void publish_progress(tri_heap *heap) {
    tri__workers_tell(heap, &heap->worker);
    tri__pace_update(heap);
}

/* With planted delays after next to nothing, so that small heaps of tests call their workers, too. */
static uint64_t slice_end(tri_heap *heap, uint64_t now_ns, uint64_t deadline_ns) {
    uint64_t slice_ns = TRI_CHECKS && atomic_load_relaxed(&heap->stress.delay_us) ? 1 : MARK_SLICE_NS; /* a switch */
    return deadline_ns < now_ns || deadline_ns - now_ns < slice_ns ? deadline_ns : now_ns + slice_ns;
}

/* False: the deadline passed. Something is done in any case, or a host with the smallest budgets would get nowhere. */
static bool mark_until_empty(tri_heap *heap, uint64_t deadline_ns) {
    uint64_t start = tri__os_now_ns(), now = start, away_ns = heap->run.away_ns;
    check_cheap(atomic_load_relaxed(&heap->pending) == 0, "I-CYC3: tracing begins after the last answer (R4)");
    publish_progress(heap);
    atomic_store_seq(&heap->tracing, 1); /* assists may start (R3); pairs with assist() */
    bool empty = false;
    do {
        tri__marker_drain(&heap->worker, slice_end(heap, now, deadline_ns));
        publish_progress(heap);
        if (deadline_ns == UINT64_MAX) heap->run.away_ns += tri__give_way(heap, &heap->run.slice_ns);
        now = tri__os_now_ns();
        if (!tri__marker_is_idle(&heap->worker)) {
            if (deadline_ns == UINT64_MAX) tri__workers_call(heap);
            continue;
        }
        if (!tri__workers_settled(heap)) continue; /* model: M-WORKER */
        empty = tri__work_is_empty(&heap->work);
        if (!empty && atomic_load_acquire(&heap->work.rescan))
            tri__marker_rescan(&heap->worker, SPAN_RESCAN_LOST); /* R19 */
    } while (!empty && now < deadline_ns);
    uint64_t mark_ns = now - start - (heap->run.away_ns - away_ns);
    if (heap->run.by_mutator) heap->run.lent_mark_ns += mark_ns;
    atomic_add_relaxed(&heap->stats.mark_ns, mark_ns);
    return empty;
}

/* No assist runs and none starts after this (R3). False: one still runs. */
static bool stop_assists(tri_heap *heap, uint64_t deadline_ns) {
    atomic_store_seq(&heap->tracing, 0); /* pairs with assist(): it counts itself before it looks */
    uint64_t until_ns = 0;
    while (atomic_load_seq(&heap->nassists)) { /* at most one slice */
        if (!until_ns) until_ns = heap_patience_end(heap, deadline_ns);
        if (tri__os_now_ns() >= until_ns) return false;
        tri__os_yield();
    }
    return true;
}

/* One round of H4: not all answers have come yet; it found something, or the gate was spoiled; the mark phase is
 * closed. */
enum round { ROUND_WAITS, ROUND_FAILS, ROUND_CLOSES };

/* The look at weak maps inside the round is R6's. Behind the one that ends the mark phase and found nothing it finds
 * nothing either, by argument: a mark that somebody made since then is an answer of "any" (R2) or spoils the round
 * (R5). (The model with a look before the round alone has no error with one mutator, nor with assists, nor with
 * attach.) It costs one look at the entries a cycle, and holds also where that other look should be left out. */
static enum round flush_round(tri_heap *heap, uint64_t deadline_ns) {
    if (!heap->run.posted && !heap->run.settling) {
        if (!stop_assists(heap, deadline_ns)) return ROUND_WAITS;
        if (!tri__work_is_empty(&heap->work)) return ROUND_FAILS; /* an assist handed something over */
        check_cheap(tri__marker_is_idle(&heap->worker), "I-CYC4: a round starts with idle markers");
        gate_set(heap, GATE_CLOSING, heap->run.rounds > ROUNDS_WITH_LOADS);
    }
    if (!heap->run.settling) {
        if (!handshake(heap, STEP_FLUSH, deadline_ns)) return ROUND_WAITS; /* model: M-FLUSH */
        bool any = atomic_load_acquire(&heap->found) != 0;                 /* pairs with answer_flush */
        if (any || !tri__work_is_empty(&heap->work)) return ROUND_FAILS;
    }
    enum settled settled = tri__death_settle(heap, true, deadline_ns); /* R6 */
    if (settled != SETTLED_NOTHING) return settled == SETTLED_LATER ? ROUND_WAITS : ROUND_FAILS;
    return tri__mode_closes(heap) ? ROUND_CLOSES : ROUND_FAILS;
}

bool tri__cycle_close(tri_heap *heap) {
    tri__vmstacks_check_scanned(heap);
    check_cheap(tri__copies_are_shaded(heap), "I-COPY1: no round closes while a copy of a stack is unshaded (R3)");
    return gate_close(heap);
}

/* In a stop nobody assists. What a load in the round has spoiled is grey, and is marked here. */
void tri__cycle_mark(tri_heap *heap) {
    do {
        while (!mark_until_empty(heap, UINT64_MAX)) {}
    } while (tri__death_settle(heap, false, UINT64_MAX) != SETTLED_NOTHING);
    bool quiet = stop_assists(heap, UINT64_MAX);
    check_cheap(quiet, "R3: nobody assists in a stop");
    tri__lock_acquire(&heap->mem.gate);
    heap->spoiled = false;
    tri__lock_release(&heap->mem.gate);
}

static void begin_marking(tri_heap *heap) {
    phase_set(heap, PHASE_MARK);
    gate_set(heap, GATE_OPEN, heap->run.rounds >= ROUNDS_WITH_LOADS);
    /* Before the list is seen empty: what a leaver tells from here on counts in the round. */
    atomic_store_relaxed(&heap->found, 0);
}

/* False: the deadline passed. */
static bool mark(tri_heap *heap, uint64_t deadline_ns) {
    for (;;) {
        if (heap_phase(heap) == PHASE_MARK) {
            if (!heap->run.settling && !mark_until_empty(heap, deadline_ns)) return false; /* model: M-MARK */
            /* Little is left for the round to settle, and loads of entries may trust a mark (see ask in wmap.c). */
            enum settled settled = tri__death_settle(heap, false, deadline_ns);
            if (settled == SETTLED_LATER) return false;
            if (settled == SETTLED_SOME) continue;
            phase_set(heap, PHASE_FLUSH);
            heap->run.rounds++;
        }
        enum round round = flush_round(heap, deadline_ns);
        if (round == ROUND_WAITS) return false;
        if (round == ROUND_CLOSES) return true;
        begin_marking(heap);
    }
}

/* ---- the cycle ----------------------------------------------------------------------------------------------- */

/* Both look at every list, under its lock. */
static void check_swept(tri_heap *heap) {
    NO_FORK_REST();
    check_cheap(tri__memory_is_swept(&heap->mem), "I-CYC2: every span is swept before H1");
    (void)heap;
}

static bool is_settled(tri_heap *heap) {
    NO_FORK_REST();
    return tri__memory_is_settled(&heap->mem);
}

static bool sweep_some(tri_heap *heap, size_t nspans, size_t *nswept) {
    NO_FORK_REST();
    return tri__memory_sweep_some(&heap->mem, nspans, nswept);
}

static void begin(tri_heap *heap) {
    check_cheap(!heap->forked && !heap->left, "I-FORK3: a cycle begins when what other threads left is settled");
    check_swept(heap);
    atomic_store_relaxed(&heap->cycle_number, heap->cycle_number + 1); /* own; threads see it after H1 */
    atomic_store_relaxed(&heap->cycle_marked_bytes, 0);
    atomic_store_relaxed(&heap->cycle_black_bytes, 0);
    atomic_store_relaxed(&heap->background_credit, 0);
    atomic_store_relaxed(&heap->triggered,
                         1); /* whatever started it: until the sweep, allocation is held to the goal */
    atomic_store_relaxed(&heap->stats.cycle_assist_ns, 0);
    gate_set(heap, GATE_OPEN, false); /* before H1: from the first armed thread on such loads shade */
}

/* Checked builds let the plain algorithm check what was marked, before anything dies. */
static void check_marked(tri_heap *heap) {
#if TRI_CHECKS >= 1
    if (heap_fault(heap, FAULT_DROP_MARK)) tri__stress_drop_a_mark(heap);
    if (atomic_load_relaxed(&heap->stress.checkmark)) { /* a test's switch */
        if (!tri__world_stop(heap)) return;             /* a silent thread: the event hook was told */
        tri__checkmark(heap);
        tri__world_start(heap);
    }
    if (atomic_load_relaxed(&heap->stress.manual_check)) { /* a test's switch */
        if (!tri__world_stop(heap)) return;
        tri__manual_check(heap);
        tri__world_start(heap);
    }
#else
    (void)heap;
#endif
}

bool tri__cycle_sweep(tri_heap *heap, uint64_t deadline_ns) {
    uint64_t start = tri__os_now_ns(), until_ns = heap_patience_end(heap, deadline_ns);
    size_t batch = deadline_ns == UINT64_MAX ? SWEEP_BATCH : SWEEP_SLICE;
    uint64_t slice_ns = start, away_ns = 0;
    tri__fork_settle(heap);
    bool settled = is_settled(heap), late = false;
    while (!late && !settled) {
        tri__stress_delay(heap);
        size_t nswept = 0;
        bool through = sweep_some(heap, batch, &nswept);
        settled = through && is_settled(heap); /* looks at every list: not after each batch */
        if (deadline_ns == UINT64_MAX) away_ns += tri__give_way(heap, &slice_ns);
        tri__units_did(batch == SWEEP_BATCH ? 0 : SWEEP_SLICE * SWEPT_UNITS);
        late = heap_is_late(heap, deadline_ns);
        if (nswept || settled || !through) continue;
        late |= tri__os_now_ns() >= until_ns; /* the last ones are in other hands */
        if (!late) tri__os_yield();
    }
    atomic_add_relaxed(&heap->stats.sweep_ns, tri__os_now_ns() - start - away_ns);
    return settled;
}

/* What survived the cycle, and the next goal. */
static size_t pace_next(tri_heap *heap, size_t heap_before_flip) {
    NO_FORK_REST(); /* figures that belong together */
    size_t live = atomic_load_relaxed(&heap->cycle_marked_bytes) + atomic_load_relaxed(&heap->cycle_black_bytes);
    if (live > heap_before_flip) live = heap_before_flip; /* holes that were given back count twice otherwise */
    size_t garbage = heap_before_flip - live, size = atomic_load_relaxed(&heap->heap_bytes), after; /* a counter */
    do after = size > garbage ? size - garbage : 0; /* holes given back by threads that left meanwhile count twice */
    while (!atomic_cas_relaxed(&heap->heap_bytes, &size, after));
    atomic_store_relaxed(&heap->live_bytes, live);
    tri__pace_next(heap, live);
    return live;
}

/* False: the deadline passed. */
static bool drop_empty(tri_heap *heap, bool all, uint64_t deadline_ns) {
    struct cycle_run *run = &heap->run;
    if (!run->dropping) tri__memory_drop_begin(&heap->mem);
    run->dropping = true;
    do {
        NO_FORK_REST();
        run->dropping = tri__memory_drop_some(&heap->mem, all, SWEEP_SLICE);
        tri__units_did(deadline_ns == UINT64_MAX ? 0 : SWEEP_SLICE * SWEPT_UNITS);
    } while (run->dropping && !heap_is_late(heap, deadline_ns));
    return !run->dropping;
}

static void tell_cycle(tri_heap *heap) {
    const struct cycle_run *run = &heap->run;
    tri_event event = {.struct_size = sizeof event,
                       .kind = TRI_EVENT_CYCLE_END,
                       .cycle = heap->cycle_number,
                       .reason = run->reason,
                       .live_before_bytes = run->heap_before_bytes,
                       .live_after_bytes = run->live_bytes,
                       .goal_bytes = atomic_load_relaxed(&heap->goal_bytes),
                       .cycle_ns = run->end_ns - run->start_ns,
                       .mark_ns = run->mark_ns,
                       .assist_ns = atomic_load_relaxed(&heap->stats.cycle_assist_ns),
                       .flush_rounds = run->rounds,
                       .nthreads = atomic_load_relaxed(&heap->nthreads),
                       .time_ns = tri__os_now_ns()};
    int rank;
    event.worst_pause_ns = tri__stats_take_worst(heap, &event.pause_kind, &rank);
    if (heap->trace) tri__stats_trace_cycle(heap, &event, rank);
    IN_HOOK();
    if (heap->config.event) heap->config.event(&event, heap->config.user);
}

void tri__cycle_start(tri_heap *heap, const char *reason) {
    uint64_t now_ns = tri__os_now_ns();
    heap->run = (struct cycle_run){.reason = reason,
                                   .slice_ns = now_ns, /* the sweep before it gave way for itself */
                                   .start_ns = now_ns,
                                   .mark_ns = atomic_load_relaxed(&heap->stats.mark_ns),
                                   .heap_before_bytes = atomic_load_relaxed(&heap->heap_bytes)};
    begin(heap);
    tri__pace_begin(heap);
    phase_set(heap, PHASE_ARM);
}

/* H3, then what is nobody's stack, after its last answer (I-CYC3). */
static bool scan(tri_heap *heap, uint64_t deadline_ns) {
    struct cycle_run *run = &heap->run;
    if (!run->scanned) {
        if (!run->posted && !tri__copies_prepare(heap, deadline_ns)) return false;
        if (!handshake(heap, STEP_SCAN, deadline_ns)) return false; /* model: M-SCAN */
        run->scanned = true;
        tri__roots_scan_begin(heap);
        tri__death_scan_begin(heap);
    }
    if (!tri__roots_scan(heap, &heap->worker, deadline_ns)) return false; /* model: M-ROOTS */
    if (!tri__death_scan(heap, &heap->worker, deadline_ns)) return false; /* finalizer queues */
    /* With the insertion barrier stacks stay grey, so threads write to suspended ones without scanning them first: they
     * are scanned in the stop, once (mode.c). */
    return tri__mode(heap) == MODE_INSERTION || tri__vmstacks_scan_suspended(heap, &heap->worker, deadline_ns); /* R8 */
}

/* The garbage is known: the pace of the next cycle, and whoever waits for memory goes on. */
static void after_flip(tri_heap *heap) {
    struct cycle_run *run = &heap->run;
    run->live_bytes = pace_next(heap, run->before_flip_bytes);
    run->end_ns = tri__os_now_ns();
    run->mark_ns = atomic_load_relaxed(&heap->stats.mark_ns) - run->mark_ns;
    phase_set(heap, PHASE_SWEEP);
    atomic_store_release(&heap->triggered, 0); /* pairs with throttle's look: the counts above */
    tri__os_futex_wake_all(&heap->triggered);
}

static bool sweep(tri_heap *heap, uint64_t deadline_ns) {
    if (heap->run.lazy) return true;
    struct cycle_run *run = &heap->run;
    if (!run->dropping) {
        if (!tri__cycle_sweep(heap, run->stopped ? UINT64_MAX : deadline_ns)) return false; /* model: M-SWEEP */
        tri__mode_swept(heap);
    }
    return drop_empty(heap, strcmp(run->reason, "trigger") != 0, deadline_ns); /* who asks wants its memory */
}

static bool is_at(tri_heap *heap, enum phase phase) {
    return heap_phase(heap) == phase;
}

/* The table above from top to bottom, from where it was left. */
bool tri__cycle_continue(tri_heap *heap, uint64_t deadline_ns) {
    struct cycle_run *run = &heap->run;
    if (is_at(heap, PHASE_ARM)) {
        if (!tri__mode_begin(heap)) return false;
        if (run->stopped) deadline_ns = UINT64_MAX;                /* a stop is not left in its middle */
        if (!handshake(heap, STEP_ARM, deadline_ns)) return false; /* model: M-ARM */
        phase_set(heap, PHASE_SETTLE);
    }
    if (is_at(heap, PHASE_SETTLE)) { /* model: M-SETTLE */
        if (!heap_fault(heap, FAULT_NO_SETTLE) && !handshake(heap, STEP_SETTLE, deadline_ns)) return false;
        phase_set(heap, PHASE_SCAN);
    }
    if (is_at(heap, PHASE_SCAN)) {
        if (!scan(heap, deadline_ns)) return false;
        begin_marking(heap);
    }
    if (is_at(heap, PHASE_MARK) || is_at(heap, PHASE_FLUSH)) {
        if (!mark(heap, deadline_ns)) return false; /* model: M-MARK, M-FLUSH, M-CLOSE */
        tri__pace_close(heap);
        phase_set(heap, PHASE_DEATH);
        check_marked(heap);
        tri__death_begin(heap);
    }
    if (is_at(heap, PHASE_DEATH)) {
        if (!tri__death(heap, deadline_ns)) return false; /* model: M-DEATH */
        phase_set(heap, PHASE_DISARM);
    }
    if (is_at(heap, PHASE_DISARM)) {
        if (!handshake(heap, STEP_DISARM, deadline_ns)) return false; /* model: M-DISARM */
        phase_set(heap, PHASE_RETIRE);
        run->before_flip_bytes = atomic_load_relaxed(&heap->heap_bytes);
    }
    if (is_at(heap, PHASE_RETIRE)) {
        if (!handshake(heap, STEP_RETIRE, deadline_ns)) return false; /* model: M-FLIP, M-RETIRE */
        after_flip(heap);
        tri__mode_retired(heap);
    }
    if (!sweep(heap, deadline_ns)) return false;
    phase_set(heap, PHASE_IDLE);
    tri__verify_cycle(heap);
    atomic_add_relaxed(&heap->stats.cycles, 1);
    tri__scavenger_cycle_ended(heap);
    tell_cycle(heap);
    return true;
}

/* Nobody else runs, and of the threads that the cycle was about there is one left. What was marked is stale, if the
 * flip has not made it the sweep's (tri__fork_settle clears it). */
bool tri__cycle_after_fork(tri_heap *heap) {
    bool abandoned = heap->gate != GATE_IDLE; /* from before H1 to the flip */
    heap->gate = GATE_IDLE;
    heap->mem.pages_stay = false;
    heap->spoiled = false;
    heap->loads_wait = heap->found = heap->pending = heap->collector_sleeps = 0;
    heap->nstops = heap->stopping = heap->triggered = heap->tracing = heap->nassists = heap->nnapping = 0;
    heap->phase = PHASE_IDLE;
    if (abandoned) heap->last_step = STEP_NONE;
    heap->run = (struct cycle_run){.mark_ns = UINT64_MAX};
    heap->here_trigger_bytes = SIZE_MAX;
    heap->mem.hold_claims = 0;
    heap->roots.cursor = NULL;
    heap->roots.stack_cursor = NULL;
    heap->roots.nwaiting = 0;
    tri__death_after_fork(heap);
    heap->turn_taken = false;
    heap->nturns = 0;
    heap->stale_marks |= abandoned;
    return abandoned;
}
