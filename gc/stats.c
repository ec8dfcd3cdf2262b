/* stats.c - counters, pause histograms, the trace line. All counters are relaxed: they order nothing. */
#include <stdio.h>
#include <string.h>
#include "gc/error.h"
#include "gc/heap.h"

/* The worst pause, in one word: its kind, the rank of the lock that was waited for, nanoseconds (100 days). */
/* What death took is told from here on. */
enum { TOLD_DEATH_NS = 10000 };
enum { KIND_BITS = 4, RANK_BITS = 7, WORST_BITS = KIND_BITS + RANK_BITS };
_Static_assert(TRI_PAUSE_KINDS <= 1 << KIND_BITS && RANK_FIXALLOC < 1 << RANK_BITS, "kind and rank have room");

static void raise_to(uint64_t *worst, uint64_t ns) {
    uint64_t seen = atomic_load_relaxed(worst);
    while (ns > seen && !atomic_cas_relaxed(worst, &seen, ns)) {}
}

static bool tells_all(const tri_heap *heap) {
    return heap->config.event && atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_EVENTS; /* an option */
}

static tri_event event_of(tri_heap *heap, uint32_t kind) {
    return (tri_event){.struct_size = sizeof(tri_event),
                       .kind = kind,
                       .cycle = atomic_load_relaxed(&heap->cycle_number), /* a counter */
                       .time_ns = tri__os_now_ns()};
}

static TRI_COLD void tell_pause(tri_heap *heap, const struct mutator *m, int kind, uint64_t ns) {
    tri_event event = event_of(heap, TRI_EVENT_PAUSE);
    event.pause_kind = (uint32_t)kind;
    event.pause_ns = ns;
    event.thread_id = m ? m->os->id : tri__os_thread_id();
    IN_HOOK();
    heap->config.event(&event, heap->config.user);
}

void tri__stats_phase(tri_heap *heap, enum phase phase) {
    static const char *const names[NUM_PHASES] = {"idle",  "arm",   "settle", "scan",   "mark",
                                                  "flush", "death", "disarm", "retire", "sweep"};
    if (!tells_all(heap)) return;
    tri_event event = event_of(heap, TRI_EVENT_PHASE);
    event.phase = names[phase];
    IN_HOOK();
    heap->config.event(&event, heap->config.user);
}

static void count_pause(tri_heap *heap, const struct mutator *m, int kind, uint64_t ns) {
    unsigned bucket = ns ? bit_highest(ns) + 1 : 0;
    if (bucket >= PAUSE_BUCKETS) bucket = PAUSE_BUCKETS - 1;
    atomic_add_relaxed(&heap->stats.pauses[kind][bucket], 1);
    if (kind == TRI_PAUSE_CORE) return; /* of whoever waits for that core, if anybody does */
    if (TRI_UNLIKELY(tells_all(heap))) tell_pause(heap, m, kind, ns);
}

static uint64_t worst_of(int kind, int rank, uint64_t ns) {
    return ns << WORST_BITS | (uint64_t)rank << KIND_BITS | (uint64_t)kind;
}

static void raise_worst(tri_heap *heap, int kind, int rank, uint64_t ns) {
    raise_to(&heap->stats.worst_pause_ns, ns);
    raise_to(&heap->stats.worst_told, worst_of(kind, rank, ns));
}

void tri__stats_pause_of(tri_heap *heap, const struct mutator *m, int kind, uint64_t ns) {
    count_pause(heap, m, kind, ns);
    if (kind == TRI_PAUSE_CORE || kind == TRI_PAUSE_WAIT) return; /* the host asked for it */
    raise_worst(heap, kind, 0, ns);
}

void tri__stats_pause_lock(tri_heap *heap, const struct mutator *m, int rank, uint64_t ns) {
    count_pause(heap, m, TRI_PAUSE_LOCK, ns);
    raise_worst(heap, TRI_PAUSE_LOCK, rank, ns);
}

uint64_t tri__stats_scan_within(const struct mutator *m, uint64_t start_ns, uint64_t end_ns) {
    uint64_t scan_start = m->scan_end_ns - m->scan_ns;
    uint64_t first = max_size(start_ns, scan_start), last = min_size(end_ns, m->scan_end_ns);
    return last > first ? last - first : 0;
}

void tri__stats_answer(const struct mutator *m, uint64_t start_ns, uint64_t end_ns) {
    uint64_t ns = end_ns - start_ns, scan_ns = tri__stats_scan_within(m, start_ns, end_ns);
    if (scan_ns > 0) count_pause(m->heap, m, TRI_PAUSE_SCAN, scan_ns);
    count_pause(m->heap, m, TRI_PAUSE_HANDSHAKE, ns);
    raise_worst(m->heap, scan_ns > ns / 2 ? TRI_PAUSE_SCAN : TRI_PAUSE_HANDSHAKE, 0, ns);
}

void tri__stats_limit_begin(struct mutator *m) {
    atomic_store_relaxed(&m->limit_since_ns, tri__os_now_ns()); /* a figure, as all here */
}

/* What the line of a cycle has told already is not the worst of the next one, too. */
void tri__stats_limit_end(struct mutator *m, uint64_t ns) {
    uint64_t since = atomic_load_relaxed(&m->limit_since_ns);
    atomic_store_relaxed(&m->limit_since_ns, 0);
    count_pause(m->heap, m, TRI_PAUSE_LIMIT, ns);
    if (atomic_load_relaxed(&m->limit_told_ns) == since)
        raise_to(&m->heap->stats.worst_pause_ns, ns);
    else
        raise_worst(m->heap, TRI_PAUSE_LIMIT, 0, ns);
}

/* Every wait for the cycle that ends now, up to now. One that goes on is told by the next line again, as far as it has
 * come then. */
static void tell_limits(tri_heap *heap) {
    tri__lock_acquire(&heap->threads_lock);
    for (struct mutator *m = heap->threads; m; m = m->next) {
        uint64_t since = atomic_load_relaxed(&m->limit_since_ns);
        if (since == 0) continue;
        raise_to(&heap->stats.worst_told, worst_of(TRI_PAUSE_LIMIT, 0, tri__os_now_ns() - since));
        atomic_store_relaxed(&m->limit_told_ns, since);
    }
    tri__lock_release(&heap->threads_lock);
}

uint64_t tri__stats_take_worst(tri_heap *heap, uint32_t *kind, int *rank) {
    tell_limits(heap);
    uint64_t told = atomic_swap_relaxed(&heap->stats.worst_told, 0);
    *kind = (uint32_t)(told & ((1 << KIND_BITS) - 1));
    *rank = (int)(told >> KIND_BITS & ((1 << RANK_BITS) - 1));
    return told >> WORST_BITS;
}

uint64_t tri__stats_busy_ns(tri_heap *heap) {
    struct stats *s = &heap->stats;
    return atomic_load_relaxed(&s->mark_ns) + atomic_load_relaxed(&s->sweep_ns) + atomic_load_relaxed(&s->assist_ns) +
           atomic_load_relaxed(&s->worker_ns) + atomic_load_relaxed(&s->death_ns);
}

int tri_histogram(tri_heap *heap, int kind, uint64_t *buckets, size_t n) {
    if (!heap || !buckets || kind < 0 || kind >= TRI_PAUSE_KINDS)
        return tri__error(TRI_EINVAL, "tri_histogram", "heap or buckets is NULL, or kind %d is not a TRI_PAUSE_*",
                          kind);
    if (tri__callback_calls(heap, "tri_histogram")) return TRI_ESTATE;
    NO_SAFEPOINT("tri_histogram");
    size_t count = min_size(n, PAUSE_BUCKETS);
    for (size_t i = 0; i < count; i++) buckets[i] = atomic_load_relaxed(&heap->stats.pauses[kind][i]);
    return (int)count;
}

int tri_stats_get(tri_heap *heap, tri_stats *out) {
    const size_t first_bytes = offsetof(tri_stats, scavenge_ns); /* of the first header */
    if (!heap || !out || out->struct_size < first_bytes || out->struct_size > sizeof *out)
        return tri__error(TRI_EINVAL, "tri_stats_get",
                          "heap or out is NULL, or out->struct_size is not sizeof(tri_stats)");
    if (tri__callback_calls(heap, "tri_stats_get")) return TRI_ESTATE;
    NO_SAFEPOINT("tri_stats_get");
    struct stats *s = &heap->stats;
    struct pageheap_stats ps;
    tri__pageheap_get_stats(heap->mem.pages, &ps);
    tri__stress_delay(heap); /* the figures are of several moments */
    tri_stats stats = {
        .struct_size = out->struct_size,
        .nthreads = atomic_load_relaxed(&heap->nthreads),
        .cycles = atomic_load_relaxed(&s->cycles),
        .live_bytes = atomic_load_relaxed(&heap->live_bytes),
        .heap_bytes = atomic_load_relaxed(&heap->heap_bytes),
        .goal_bytes = atomic_load_relaxed(&heap->goal_bytes),
        .trigger_bytes = atomic_load_relaxed(&heap->trigger_bytes),
        .committed_bytes = atomic_load_relaxed(&heap->mem.used_pages) << PAGE_SHIFT,
        .free_bytes = ps.dirty_free_pages << PAGE_SHIFT,
        .reserved_bytes = heap->mem.space.size_bytes,
        .metadata_bytes = tri__memory_metadata_bytes(&heap->mem) + tri__fixalloc_in_use_bytes(&heap->work.fix) +
                          tri__fixalloc_in_use_bytes(&heap->fix_mutator) + tri__copies_bytes(heap) +
                          tri__fixalloc_in_use_bytes(&heap->fix_block) + tri__fixalloc_in_use_bytes(&heap->fix_small) +
                          tri__fixalloc_in_use_bytes(&heap->death.watches.fix) +
                          tri__fixalloc_in_use_bytes(&heap->death.watches.fix_lines) +
                          tri__fixalloc_in_use_bytes(&heap->death.watches.fix_block) +
                          tri__fixalloc_in_use_bytes(&heap->death.maps.fix),
        .external_bytes = atomic_load_relaxed(&heap->external_bytes),
        .allocated_bytes = atomic_load_relaxed(&s->allocated_bytes),
        .returned_bytes = (ps.returned_pages << PAGE_SHIFT) +
                          (size_t)atomic_load_relaxed(&heap->mem.returned_inside_bytes),
        .mark_ns = atomic_load_relaxed(&s->mark_ns),
        .assist_ns = atomic_load_relaxed(&s->assist_ns),
        .sweep_ns = atomic_load_relaxed(&s->sweep_ns),
        .worst_pause_ns = atomic_load_relaxed(&s->worst_pause_ns),
        .handshakes = atomic_load_relaxed(&s->handshakes),
        .marked_objects = atomic_load_relaxed(&s->marked_objects),
        .swept_spans = atomic_load_relaxed(&heap->mem.swept_spans),
        .scavenge_ns = atomic_load_relaxed(&heap->scavenger.cpu_ns),
        .stall_ns = atomic_load_relaxed(&s->stall_ns),
        .limited_cycles = atomic_load_relaxed(&s->limited_cycles),
        .limiter_percent = atomic_load_relaxed(&s->limiter_percent),
        .weak_cleared = atomic_load_relaxed(&heap->death.cleared_slots),
        .cleanups_due = atomic_load_relaxed(&heap->death.watches.ndue),
        .cleanups_run = atomic_load_relaxed(&heap->death.watches.nrun),
        .watched_objects = atomic_load_relaxed(&heap->death.watches.n),
        .hard_goal_bytes = atomic_load_relaxed(&heap->hard_goal_bytes),
        .cpu_permille = atomic_load_relaxed(&s->cpu_permille),
        .capped_cycles = atomic_load_relaxed(&s->capped_cycles),
        .widened_percent = atomic_load_relaxed(&s->widened_percent),
        .death_ns = atomic_load_relaxed(&s->death_ns)};
    memcpy(out, &stats, out->struct_size); /* an older header's fields */
    return TRI_OK;
}

void tri__stats_trace_cycle(tri_heap *heap, const tri_event *e, int rank) {
    static const char *const causes[TRI_PAUSE_KINDS] = {"handshake", "scan", "assist", "sweep", "wait",  "nap",
                                                        "zero",      "lock", "system", "core",  "limit", "gate"};
    char workers[64] = "", lock[32] = "", death[32] = "";
    if (rank) snprintf(lock, sizeof lock, ", a lock of rank %d", rank);
    uint64_t worker_ns = atomic_load_relaxed(&heap->stats.worker_ns), before_ns = heap->workers.traced_ns;
    heap->workers.traced_ns = worker_ns;
    if (worker_ns > before_ns)
        snprintf(workers, sizeof workers, ", %u workers marked for %.2f ms beside it", heap->workers.nstarted,
                 (double)(worker_ns - before_ns) * 1e-6);
    uint64_t death_ns = atomic_load_relaxed(&heap->stats.death_ns) - heap->run.death_ns;
    if (death_ns >= TOLD_DEATH_NS) snprintf(death, sizeof death, ", death %.2f ms", (double)death_ns * 1e-6);
    fprintf(stderr,
            "trigc %llu @%.3fs %s: %.1f->%.1f MB, goal %.1f MB; cycle %.2f ms, mark %.2f ms, assists %.2f ms, "
            "worst wait %.1f us (%s), %u rounds, %u threads%s%s%s\n",
            (unsigned long long)e->cycle, (double)(tri__os_now_ns() - heap->created_ns) * 1e-9, e->reason,
            (double)e->live_before_bytes / 1048576.0, (double)e->live_after_bytes / 1048576.0,
            (double)e->goal_bytes / 1048576.0, (double)e->cycle_ns * 1e-6, (double)e->mark_ns * 1e-6,
            (double)e->assist_ns * 1e-6, (double)e->worst_pause_ns * 1e-3, causes[e->pause_kind], e->flush_rounds,
            e->nthreads, workers, death, lock);
}
