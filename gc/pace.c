/* pace.c - the heap's pacer: gathers the figures that pacer.c reckons with, and tells what comes of them to those who
 * allocate. Owns no arithmetic of its own but for the CPU cap's: how many markers there may be, and how long they rest.
 *
 * What mutators read (trigger, goal, hard goal, assist ratio) are relaxed counters: one that is old by a moment starts
 * a cycle, or pays, a moment late. Who writes them holds the pace lock, so an option that is set while a cycle ends is
 * in what comes of it, whoever is second; but for lower_goal in alloc.c, whose bytes the next cycle's end counts
 * anyway.
 *
 * Invariants: I-PACE5 the figures that mutators read are those of the pacer's last decision, or lower. Lock rank: pace
 * (36), for the time of some arithmetic. */
#include <string.h>
#include "alloc/base/check.h"
#include "gc/heap.h"

enum { EMPTY_SHARE = 16, MOST_REST_NS = 20000000 };

/* Options: each on its own. */
static struct pacer_config config_of(tri_heap *heap) {
    size_t limit = atomic_load_relaxed(&heap->mem.limit_pages);
    return (struct pacer_config){
        atomic_load_relaxed(&heap->config.min_heap_bytes), atomic_load_relaxed(&heap->config.growth_percent),
        atomic_load_relaxed(&heap->config.soft_limit_bytes), limit < heap->mem.space.npages ? limit << PAGE_SHIFT : 0};
}

static uint32_t cpu_percent(const tri_heap *heap) {
    return atomic_load_relaxed(&heap->config.cpu_percent); /* an option */
}

/* Requires the pace lock. */
static void publish(tri_heap *heap) {
    const struct pacer *p = &heap->pacer;
    check_internal(p->trigger_bytes <= p->goal_bytes, "I-PACE5: what is published is a decision of the pacer's");
    atomic_store_relaxed(&heap->trigger_bytes, p->trigger_bytes);
    atomic_store_relaxed(&heap->goal_bytes, p->goal_bytes);
    atomic_store_relaxed(&heap->hard_goal_bytes, p->hard_goal_bytes);
    atomic_store_relaxed(&heap->stats.widened_percent, (uint32_t)(p->limiter.widened * 100));
}

/* Requires the pace lock. */
static void publish_ratio(tri_heap *heap) {
    atomic_store_relaxed(&heap->assist_ratio_x256, (uint32_t)(heap->pacer.assist_ratio * 256));
}

void tri__pace_init(tri_heap *heap) {
    tri__lock_init(&heap->pace_lock, RANK_PACE, "pace");
    struct pacer_config pc = config_of(heap);
    tri__pacer_init(&heap->pacer, &pc);
    publish(heap);
}

void tri__pace_begin(tri_heap *heap) {
    struct cycle_run *run = &heap->run;
    struct stats *st = &heap->stats; /* counters */
    run->worker_ns = atomic_load_relaxed(&st->worker_ns);
    run->stall_ns = atomic_load_relaxed(&st->stall_ns);
    run->death_ns = atomic_load_relaxed(&st->death_ns);
    run->hurries = strcmp(run->reason, "trigger") != 0 && strcmp(run->reason, "idle") != 0;
    atomic_store_relaxed(&heap->nallocating, 0);
    size_t external = atomic_load_relaxed(&heap->external_bytes);
    run->paced = (struct pacer_cycle){.external_bytes = external};
    tri__lock_acquire(&heap->pace_lock);
    tri__pacer_begin(&heap->pacer, run->heap_before_bytes, external);
    tri__lock_release(&heap->pace_lock);
}

void tri__pace_update(tri_heap *heap) {
    tri__lock_acquire(&heap->pace_lock);
    tri__pacer_update(&heap->pacer, atomic_load_relaxed(&heap->cycle_marked_bytes), heap_total_bytes(heap));
    publish_ratio(heap);
    tri__lock_release(&heap->pace_lock);
}

static size_t more(size_t now, size_t before) {
    return now > before ? now - before : 0;
}

void tri__pace_close(tri_heap *heap) {
    struct cycle_run *run = &heap->run;
    struct pacer_cycle *c = &run->paced;
    struct stats *st = &heap->stats; /* counters */
    uint64_t marked_ns = atomic_load_relaxed(&st->mark_ns) - run->mark_ns + atomic_load_relaxed(&st->worker_ns) -
                         run->worker_ns;
    uint32_t nallocating = atomic_load_relaxed(&heap->nallocating);
    c->allocated_bytes = more(atomic_load_relaxed(&heap->heap_bytes), run->heap_before_bytes) +
                         more(atomic_load_relaxed(&heap->external_bytes), c->external_bytes);
    c->marked_bytes = atomic_load_relaxed(&heap->cycle_marked_bytes);
    c->wall_ns = tri__os_now_ns() - run->start_ns;
    c->assist_ns = atomic_load_relaxed(&st->cycle_assist_ns);
    c->stall_ns = atomic_load_relaxed(&st->stall_ns) - run->stall_ns;
    c->nthreads = nallocating < heap->ncpus ? nallocating : heap->ncpus;
    /* In slices, on threads of the program's; a lent cycle is theirs if most of it is. */
    bool theirs = tri__is_stepped(heap) || run->lent_mark_ns > marked_ns / 2;
    uint64_t theirs_ns = theirs ? marked_ns : run->lent_mark_ns;
    c->assist_ns += theirs_ns;
    c->own_ns = marked_ns - theirs_ns;
}

/* Of the processors that the program can use: one for each of its threads and one for the collector. */
static void tell_limiter(tri_heap *heap) {
    struct stats *st = &heap->stats; /* counters */
    uint32_t could_use = atomic_load_relaxed(&heap->nthreads) + 1;
    uint64_t swept_ns = atomic_load_relaxed(&st->sweep_ns), busy_ns = tri__stats_busy_ns(heap);
    struct limiter_times times = {.now_ns = tri__os_now_ns(),
                                  .busy_ns = busy_ns - swept_ns,
                                  .swept_ns = swept_ns,
                                  .stalled_ns = atomic_load_relaxed(&st->stall_ns),
                                  .millicpus = heap->millicpus,
                                  .could_use = could_use * 1000 < heap->millicpus ? could_use * 1000 : heap->millicpus,
                                  .cpu_percent = cpu_percent(heap)};
    struct limiter *l = &heap->pacer.limiter;
    tri__limiter_tell(l, &times);
    if (l->capacity_ns) atomic_store_relaxed(&st->limiter_percent, (uint32_t)(l->fill_ns * 100 / l->capacity_ns));
    atomic_store_relaxed(&st->cpu_permille, (uint32_t)(l->share * 1000));
}

void tri__pace_next(tri_heap *heap, size_t live_bytes) {
    struct pacer *p = &heap->pacer;
    struct pacer_cycle *c = &heap->run.paced;
    tri__lock_acquire(&heap->roots.lock);
    c->root_bytes = heap->roots.nslots * 8 + tri__death_bytes(heap);
    tri__lock_release(&heap->roots.lock);
    c->live_bytes = live_bytes;
    c->external_bytes = atomic_load_relaxed(&heap->external_bytes); /* a counter */
    tri__lock_acquire(&heap->pace_lock);
    tell_limiter(heap);
    struct pacer_config pc = config_of(heap);
    tri__pacer_end(p, &pc, c);
    publish(heap);
    atomic_add_relaxed(&heap->stats.limited_cycles, p->limited); /* counters */
    atomic_add_relaxed(&heap->stats.capped_cycles, p->capped);
    atomic_store_relaxed(&heap->here_trigger_bytes, SIZE_MAX); /* whoever runs the cycle says if there is one */
    atomic_store_relaxed(&heap->mem.empty_limit_pages,
                         max_size(p->goal_bytes / EMPTY_SHARE >> PAGE_SHIFT, EMPTY_FLOOR_PAGES));
    tri__lock_release(&heap->pace_lock);
}

void tri__pace_again(tri_heap *heap) {
    struct pacer *p = &heap->pacer;
    tri__lock_acquire(&heap->pace_lock);
    if (cpu_percent(heap) >= 100) p->limiter.widened = 1;
    p->external_bytes = min_size(p->external_bytes, atomic_load_relaxed(&heap->external_bytes)); /* a counter */
    struct pacer_config pc = config_of(heap);
    tri__pacer_commit(p, &pc);
    publish(heap);
    if (atomic_load_acquire(&heap->tracing)) { /* pairs with mark_until_empty; a hint, as the ratio is */
        tri__pacer_update(p, atomic_load_relaxed(&heap->cycle_marked_bytes), heap_total_bytes(heap));
        publish_ratio(heap);
    }
    atomic_store_relaxed(&heap->here_trigger_bytes, SIZE_MAX); /* a counter: it was chosen below the old trigger */
    tri__lock_release(&heap->pace_lock);
}

/* ---- the CPU cap while a cycle runs ------------------------------------------------------------------------------ */

/* In parts of a core, of which there are ALL_PARTS: at least 1. */
enum { ALL_PARTS = 100 * 1000 };
static uint64_t capped_parts(const tri_heap *heap) {
    return (uint64_t)cpu_percent(heap) * heap->millicpus;
}

bool tri__pace_is_capped(const tri_heap *heap) {
    return cpu_percent(heap) < 100;
}

uint32_t tri__pace_markers(tri_heap *heap) {
    uint32_t nmarkers = atomic_load_relaxed(&heap->config.workers); /* an option */
    uint32_t cores = (uint32_t)(capped_parts(heap) / ALL_PARTS);
    if (cpu_percent(heap) == 100) return nmarkers; /* not capped: as many as the host asked for */
    return nmarkers <= cores ? nmarkers : cores > 1 ? cores : 1;
}

/* Less than a core: one marker, which works for a part of the time, unless somebody waits for it, as all threads do in
 * a stop of the world. A quota of less is no cap: scarce.c sees to it. */
uint64_t tri__pace_rest_ns(tri_heap *heap, uint64_t worked_ns) {
    uint64_t parts = cpu_percent(heap) < 100 ? capped_parts(heap) : ALL_PARTS;
    if (TRI_LIKELY(parts >= ALL_PARTS) || heap->run.hurries || heap->nstops > 0) return 0;
    if (atomic_load_relaxed(&heap->wanted)) return 0;                              /* a hint */
    if (heap_total_bytes(heap) > atomic_load_relaxed(&heap->goal_bytes)) return 0; /* counters */
    return min_size(worked_ns * (ALL_PARTS - parts) / parts, MOST_REST_NS);
}
