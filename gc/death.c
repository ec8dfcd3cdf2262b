/* death.c - what dies in a cycle, in rule R7's order; see death.h.
 *
 * Between the close and H5: every reachable object is marked, every mutator is armed and holds marked objects only, and
 * loads that make references out of what keeps nothing alive are refused what is unmarked (R5). So nobody but the
 * collector can reach what is dead, and the order below needs no handshake of its own:
 *
 *   1  weak slots that name unmarked objects are cleared
 *   2  unmarked objects that finalizer queues claim are marked, with all that they name
 *      and weak maps are settled
 *   3  weak slots of what came back, which name unmarked objects, are cleared
 *   4  entries of unmarked keys leave weak maps, unmarked maps are freed
 *   5  cleanups of what is still unmarked are due
 *   6  the queues get what came back
 *
 * Each step can be left when a deadline has passed, and gone on with.
 *
 * Invariants: I-DEATH1 after step 2 every object that comes back is black, before anybody gets one. Lock ranks: those
 * of the parts. */
#include "alloc/base/check.h"
#include "gc/heap.h"

void tri__death_init(tri_heap *heap) {
    heap->death.weak_low = SIZE_MAX;
    tri__watches_init(heap);
    tri__wmaps_init(heap);
}

void tri__death_fini(tri_heap *heap) {
    tri__ephemerons_abandon(heap);
    tri__wmaps_fini(heap);
    tri__watches_fini(heap);
}

void tri__death_begin(tri_heap *heap) {
    heap->death.step = DEATH_WEAK;
    heap->death.weak = (struct weak_place){0};
}

static void step_to(tri_heap *heap, enum death_step step) {
    struct death *d = &heap->death;
    d->step = step;
    if (step == DEATH_SETTLE || step == DEATH_MAPS) tri__ephemerons_begin(heap, false);
    d->weak = (struct weak_place){0};
    d->watches.shard = 0;
    d->watches.at = (struct wcursor){0, 0};
    d->watches.shrinks = false;
}

/* The time of what follows, without what it traces, which counts as marking. */
struct lap {
    uint64_t start_ns, away_ns, mark_ns;
};

static struct lap lap_begin(tri_heap *heap) {
    return (struct lap){tri__os_now_ns(), heap->run.away_ns, atomic_load_relaxed(&heap->stats.mark_ns)};
}

static void lap_end(tri_heap *heap, const struct lap *lap) {
    struct stats *st = &heap->stats; /* counters; whoever runs the cycle alone adds to these two */
    uint64_t apart_ns = heap->run.away_ns - lap->away_ns + atomic_load_relaxed(&st->mark_ns) - lap->mark_ns;
    atomic_add_relaxed(&st->death_ns, tri__os_now_ns() - lap->start_ns - apart_ns);
}

enum settled tri__death_settle(tri_heap *heap, bool in_round, uint64_t deadline_ns) {
    if (atomic_load_relaxed(&heap->death.maps.nmaps) == 0) return SETTLED_NOTHING; /* a new one is empty, or black */
    if (heap_fault(heap, FAULT_LATE_MAPS)) return SETTLED_NOTHING;
    struct lap lap = lap_begin(heap);
    if (!heap->run.settling) tri__ephemerons_begin(heap, in_round);
    enum settled settled = tri__ephemerons_settle(heap, deadline_ns);
    heap->run.settling = settled == SETTLED_LATER;
    lap_end(heap, &lap);
    return settled;
}

/* Traces what was shaded. False: the deadline passed. */
static bool trace(tri_heap *heap, uint64_t deadline_ns) {
    struct marker *w = &heap->worker;
    uint64_t start = tri__os_now_ns(), limit_ns = deadline_ns == UINT64_MAX ? 0 : deadline_ns;
    bool empty;
    for (;;) {
        empty = tri__marker_drain(w, limit_ns);
        if (!empty || !atomic_load_acquire(&heap->work.rescan)) break; /* pairs with push_without_memory */
        tri__marker_rescan(w, SPAN_RESCAN_LOST);                       /* R19 */
    }
    atomic_add_relaxed(&heap->stats.mark_ns, tri__os_now_ns() - start); /* a counter */
    tri__workers_tell(heap, w);
    return empty;
}

/* Steps 2 and 3. False: the deadline passed. */
static bool revive(tri_heap *heap, uint64_t deadline_ns) {
    struct death *d = &heap->death;
    if (d->step == DEATH_CLAIM) {
        if (!tri__watch_take_dead(heap, true, deadline_ns)) return false;
        d->watches.shade = d->watches.revived.first;
        step_to(heap, d->watches.shade ? DEATH_REVIVE : DEATH_MAPS);
        if (d->step == DEATH_REVIVE) tri__finalize_gate(heap, true); /* before the first of them is marked */
        check_cheap(!atomic_load_relaxed(&heap->tracing), "R3: nobody assists while objects come back"); /* own write */
    }
    if (d->step == DEATH_REVIVE) {
        if (!tri__finalize_shade(heap, deadline_ns) || !trace(heap, deadline_ns)) return false;
        check_cheap(tri__marker_is_idle(&heap->worker) && tri__work_is_empty(&heap->work),
                    "I-DEATH1: what comes back is black before anybody gets it");
        step_to(heap, DEATH_SETTLE);
    }
    if (d->step == DEATH_SETTLE) {
        enum settled settled = tri__ephemerons_settle(heap, deadline_ns);
        if (settled == SETTLED_LATER) return false;
        step_to(heap, settled == SETTLED_SOME ? DEATH_REVIVE : DEATH_WEAK_REVIVED);
        if (settled == SETTLED_SOME) return revive(heap, deadline_ns); /* as many times as chains lead through maps */
    }
    if (d->step == DEATH_WEAK_REVIVED) {
        if (!tri__weak_clear_dead(heap, deadline_ns)) return false;
        tri__finalize_gate(heap, false);
        step_to(heap, DEATH_MAPS);
    }
    return true;
}

static bool die(tri_heap *heap, uint64_t deadline_ns) {
    struct death *d = &heap->death;
    if (d->step == DEATH_WEAK) {
        if (!tri__weak_clear_dead(heap, deadline_ns)) return false;
        step_to(heap, DEATH_CLAIM);
    }
    if (!revive(heap, deadline_ns)) return false;
    if (d->step == DEATH_MAPS) {
        if (!tri__ephemerons_clear(heap, deadline_ns)) return false;
        step_to(heap, DEATH_CLEANUPS);
    }
    if (d->step == DEATH_CLEANUPS) {
        if (!tri__watch_take_dead(heap, false, deadline_ns)) return false;
        step_to(heap, DEATH_DELIVER);
    }
    if (d->step == DEATH_DELIVER) {
        if (!tri__finalize_deliver(heap, deadline_ns)) return false;
        step_to(heap, DEATH_DONE);
    }
    return true;
}

bool tri__death(tri_heap *heap, uint64_t deadline_ns) {
    struct lap lap = lap_begin(heap);
    bool done = die(heap, deadline_ns);
    lap_end(heap, &lap);
    return done;
}

size_t tri__death_bytes(const tri_heap *heap) {
    const struct death *d = &heap->death;
    return (atomic_load_relaxed(&d->watches.n) + d->nentries) * sizeof(struct wbucket); /* a line each */
}

void tri__death_scan_begin(tri_heap *heap) {
    tri__finalize_scan_begin(heap);
}

bool tri__death_scan(tri_heap *heap, struct marker *mk, uint64_t deadline_ns) {
    return tri__finalize_scan(heap, mk, deadline_ns);
}

void tri__death_after_fork(tri_heap *heap) {
    heap->death.reviving = false;
    tri__ephemerons_abandon(heap);
    tri__watch_take_back(heap);
}

bool tri__death_looks(const tri_heap *heap) {
    const struct death *d = &heap->death;
    return atomic_load_relaxed(&d->weak_end) > 0 || atomic_load_relaxed(&d->maps.nmaps) > 0; /* for a pause */
}

void tri__death_of_freed(tri_heap *heap, uintptr_t addr) {
    tri__weak_clear_one(heap, addr);
    tri__wmaps_freed(heap, addr);
    tri__watch_freed(heap, addr);
}

void tri__death_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context) {
    tri__weak_verify(heap, say, context);
    tri__wmaps_verify(heap, say, context);
    tri__watch_verify(heap, say, context);
}
