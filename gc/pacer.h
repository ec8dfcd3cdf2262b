/* pacer.h - when to start a cycle and how much allocating threads must help: arithmetic only, no heap.
 *
 * base    = live + external bytes; all sizes below count both
 * goal    = base + max((base + roots) * percent / 100, min_heap) (Go's proposal 44167 in outline)
 * runway  = bytes expected to be allocated while the cycle marks: measured bytes allocated per byte marked, smoothed
 * trigger = goal - runway, kept between base + 30 % and base + 95 % of the way to the goal
 * limits  a goal beyond the soft limit is pulled back to it, but for a sixteenth of the base; beyond the hard limit, to
 *         that. When collecting takes more than half of the processors' time (the limiter: a leaky bucket that fills
 *         with collecting time and drains with the rest), the room up to the soft limit is doubled with each cycle
 *         until it takes less: the soft limit is exceeded instead.
 * assist  = bytes to mark for each byte allocated so that marking ends at the goal; beyond the goal, twice that
 *
 * Invariants: I-PACE1 base <= trigger <= goal. I-PACE2 the assist ratio is finite and not negative. I-PACE3 the
 * limiter's fill is at most its capacity. */
#ifndef TRI_GC_PACER_H
#define TRI_GC_PACER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pacer_config {
    size_t min_heap_bytes; /* goal - base is never below it */
    uint32_t growth_percent;
    size_t soft_limit_bytes; /* 0: none */
    size_t hard_limit_bytes; /* 0: none */
};

struct limiter {
    uint64_t fill_ns, capacity_ns; /* one second of each processor */
    uint64_t now_ns, spent_ns;     /* when it was told last, and what it was told */
    uint32_t doubled;              /* how often the room up to the soft limit is doubled now */
    bool widens;                   /* it has changed the goal of the cycle to come */
};

struct pacer {
    size_t live_bytes; /* marked by the last cycle */
    size_t base_bytes; /* and what the host held outside then */
    size_t goal_bytes, trigger_bytes;
    double alloc_per_mark; /* bytes allocated per byte marked while marking, smoothed */
    double assist_ratio;   /* of the running cycle: bytes to mark per byte allocated */
    struct limiter limiter;
};

void tri__pacer_init(struct pacer *pacer, const struct pacer_config *config);
/* Before tri__pacer_end: the time now, and what collecting has taken so far, ever: marking, sweeping, and the time for
 * which mutators helped or were held back. `ncores` processors are what the program could use. */
void tri__pacer_spent(struct pacer *pacer, uint64_t now_ns, uint64_t spent_ns, uint32_t ncores);
/* At a cycle's end: live and root bytes, external bytes, and what was allocated and marked while it marked. */
void tri__pacer_end(struct pacer *pacer, const struct pacer_config *config, size_t live_bytes, size_t root_bytes,
                    size_t external_bytes, size_t alloc_while_marking_bytes, size_t marked_bytes);
/* While marking: bytes marked so far, and the heap's size now (with external bytes). Sets assist_ratio. */
void tri__pacer_update(struct pacer *pacer, size_t marked_bytes, size_t heap_bytes);

#endif
