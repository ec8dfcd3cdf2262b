/* stats.c - counters, pause histograms, the trace line. All counters are relaxed: they order nothing. */
#include <stdio.h>
#include <string.h>
#include "gc/error.h"
#include "gc/heap.h"

static void raise_to(uint64_t *worst, uint64_t ns) {
    uint64_t seen = atomic_load_relaxed(worst);
    while (ns > seen && !atomic_cas_relaxed(worst, &seen, ns)) {}
}

void tri__stats_pause(tri_heap *heap, int kind, uint64_t ns) {
    unsigned bucket = ns ? bit_highest(ns) + 1 : 0;
    if (bucket >= PAUSE_BUCKETS) bucket = PAUSE_BUCKETS - 1;
    atomic_add_relaxed(&heap->stats.pauses[kind][bucket], 1);
    if (kind == TRI_PAUSE_WAIT) return; /* the host asked for it, or ran out of memory */
    raise_to(&heap->stats.worst_pause_ns, ns);
    raise_to(&heap->stats.cycle_worst_pause_ns, ns);
}

uint64_t tri__stats_spent_ns(tri_heap *heap) {
    struct stats *s = &heap->stats;
    return atomic_load_relaxed(&s->mark_ns) + atomic_load_relaxed(&s->sweep_ns) + atomic_load_relaxed(&s->assist_ns) +
           atomic_load_relaxed(&s->stall_ns) + atomic_load_relaxed(&s->worker_ns);
}

int tri_histogram(tri_heap *heap, int kind, uint64_t *buckets, size_t n) {
    if (!heap || !buckets || kind < 0 || kind >= TRI_PAUSE_KINDS)
        return tri__error(TRI_EINVAL, "tri_histogram", "heap or buckets is NULL, or kind %d is not a TRI_PAUSE_*",
                          kind);
    if (tri__callback_calls(heap, "tri_histogram")) return TRI_ESTATE;
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
    struct stats *s = &heap->stats;
    struct pageheap_stats ps;
    tri__pageheap_get_stats(heap->mem.pages, &ps);
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
                          tri__fixalloc_in_use_bytes(&heap->fix_block) + tri__fixalloc_in_use_bytes(&heap->fix_small),
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
        .limiter_percent = atomic_load_relaxed(&s->limiter_percent)};
    memcpy(out, &stats, out->struct_size); /* an older header's fields */
    return TRI_OK;
}

void tri__stats_trace_cycle(tri_heap *heap, const tri_event *e) {
    fprintf(stderr,
            "trigc %llu @%.3fs %s: %.1f->%.1f MB, goal %.1f MB; cycle %.2f ms, mark %.2f ms, assists %.2f ms, "
            "worst pause %.1f us, %u rounds, %u threads\n",
            (unsigned long long)e->cycle, (double)(tri__os_now_ns() - heap->created_ns) * 1e-9, e->reason,
            (double)e->live_before_bytes / 1048576.0, (double)e->live_after_bytes / 1048576.0,
            (double)e->goal_bytes / 1048576.0, (double)e->cycle_ns * 1e-6, (double)e->mark_ns * 1e-6,
            (double)e->assist_ns * 1e-6, (double)e->worst_pause_ns * 1e-3, e->flush_rounds, e->nthreads);
}
