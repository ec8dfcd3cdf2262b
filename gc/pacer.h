/* pacer.h - when to start a cycle and how much allocating threads must help: arithmetic only, no heap.
 *
 * base    = live + external bytes; all sizes below count both
 * goal    = base + (base + roots) * percent / 100, at least min_heap (Go's proposal 44167 in outline)
 * runway  = bytes expected to be allocated while the cycle marks: measured bytes allocated per byte marked, smoothed
 * trigger = goal - runway, kept between base + 30 % and base + 95 % of the way to the goal
 * assist  = bytes to mark for each byte allocated so that marking ends at the goal; beyond the goal, twice that
 *
 * Invariants: I-PACE1 base <= trigger <= goal. I-PACE2 the assist ratio is finite and not negative. */
#ifndef TRI_GC_PACER_H
#define TRI_GC_PACER_H

#include <stddef.h>
#include <stdint.h>

struct pacer_config {
    size_t min_heap_bytes; /* goal is never below it */
    uint32_t growth_percent;
    size_t soft_limit_bytes; /* 0: none */
};

struct pacer {
    size_t live_bytes; /* marked by the last cycle */
    size_t base_bytes; /* and what the host held outside then */
    size_t goal_bytes, trigger_bytes;
    double alloc_per_mark; /* bytes allocated per byte marked while marking, smoothed */
    double assist_ratio;   /* of the running cycle: bytes to mark per byte allocated */
};

void tri__pacer_init(struct pacer *pacer, const struct pacer_config *config);
/* At a cycle's end: live and root bytes, external bytes, and what was allocated and marked while it marked. */
void tri__pacer_end(struct pacer *pacer, const struct pacer_config *config, size_t live_bytes, size_t root_bytes,
                    size_t external_bytes, size_t alloc_while_marking_bytes, size_t marked_bytes);
/* While marking: bytes marked so far, and the heap's size now (with external bytes). Sets assist_ratio. */
void tri__pacer_update(struct pacer *pacer, size_t marked_bytes, size_t heap_bytes);

#endif
