/* work_alloc.c - the time of one allocation: objects of 16 or 32 bytes with one reference, dropped at once.
 *
 * Nothing else is done, so what is measured is the allocator's path with its share of the collections. The total time
 * over the number of allocations is the figure; the probe sees every 64th. */
#include "bench/workload.h"

struct cell16 {
    void *ref;
    uint64_t number;
};
struct cell32 {
    void *ref;
    uint64_t number[3];
};
AD_TYPE(cell16_type, struct cell16, ref);
AD_TYPE(cell32_type, struct cell32, ref);

struct alloc_run {
    struct work *work;
    uint64_t sums[PROBE_THREADS];
};

/* Keeps the compiler from seeing that an object is never used. */
static inline void keep(void *obj) {
    __asm__ volatile("" : : "r"(obj) : "memory");
}

static void alloc_thread(ad_thread *thread, unsigned index, void *arg) {
    struct alloc_run *run = arg;
    struct probe *probe = &run->work->probes[index];
    uint64_t n = run->work->ops / run->work->nthreads, steps = 0, sum = 0;
    probe_start(probe);
    if (run->work->size_bytes == sizeof(struct cell16)) {
        for (uint64_t i = 0; i < n; i++) {
            struct cell16 *cell = AD_NEW(thread, cell16_type);
            sum += cell->number; /* zeroed */
            cell->number = i;
            keep(cell);
            work_step(thread, probe, &steps);
        }
    } else {
        for (uint64_t i = 0; i < n; i++) {
            struct cell32 *cell = AD_NEW(thread, cell32_type);
            sum += cell->number[2];
            cell->number[2] = i;
            keep(cell);
            work_step(thread, probe, &steps);
        }
    }
    run->sums[index] = sum + n;
}

static uint64_t alloc_run(ad_thread *thread, struct work *work) {
    struct alloc_run run = {work, {0}};
    uint64_t sum = 0;
    AD_PREPARE(cell16_type);
    AD_PREPARE(cell32_type);
    ad_run(thread, work->nthreads, alloc_thread, &run);
    for (unsigned i = 0; i < work->nthreads; i++) sum += run.sums[i];
    return sum;
}

static uint64_t alloc_total(const struct work *work) {
    return work->ops;
}

const struct workload workload_alloc = {"alloc", alloc_total, alloc_run, true, false};
