/* stress.c - the switches of checked builds: cycles at every n-th slow path, random delays, closed fast paths, planted
 * faults. In a build without checks there are none, and tri_heap_set says so. */
#include <stdlib.h>
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

#if TRI_CHECKS >= 1

static const char *const fault_names[] = {
    "none",           "no_barrier", "no_settle",   "drop_mark",   "forget_root", "flush_blind", "store_polls",
    "early_trace",    "gate_open",  "skip_stacks", "attach_late", "bare_root",   "keep_weak",   "lose_copy",
    "copy_uncounted", "fork_lock",  "late_maps",   "no_rescan",   "fresh_black",
};

static uint64_t next_random(void) {
    static _Thread_local uint64_t state;
    if (!state) state = tri__os_thread_id() * 0x9e3779b97f4a7c15ull ^ tri__os_now_ns();
    state ^= state << 13; /* xorshift64 (Marsaglia 2003) */
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static _Thread_local size_t units, units_sum, units_most[NUM_PHASES];

void tri__units_did(size_t n) {
    units += n;
    units_sum += n;
}

void tri__units_begin(void) {
    units = 0;
}

void tri__units_look(uint32_t phase) {
    units_most[phase] = max_size(units_most[phase], units);
    units = 0;
}

size_t tri__units_take_most(uint32_t phase) {
    size_t most = units_most[phase];
    units_most[phase] = 0;
    return most;
}

size_t tri__units_take_sum(void) {
    size_t sum = units_sum;
    units_sum = 0;
    return sum;
}

void tri__stress_delay(tri_heap *heap) {
    uint32_t max_us = atomic_load_relaxed(&heap->stress.delay_us); /* a test's switch */
    if (TRI_LIKELY(max_us == 0)) return;
    uint64_t r = next_random();
    if (r % 4 == 0)
        tri__os_sleep_ns((r >> 8) % ((uint64_t)max_us * 1000));
    else if (r % 4 == 1)
        tri__os_yield();
}

bool tri__stress_may_report(tri_heap *heap) {
    enum { REPORTS_A_CYCLE = 20 };
    uint64_t cycle = atomic_load_relaxed(&heap->cycle_number); /* counters for messages */
    if (atomic_swap_relaxed(&heap->stress.report_cycle, cycle) != cycle)
        atomic_store_relaxed(&heap->stress.cycle_reports, 0);
    atomic_add_relaxed(&heap->stress.reports, 1);
    uint32_t n = atomic_add_relaxed(&heap->stress.cycle_reports, 1) + 1;
    if (n == REPORTS_A_CYCLE)
        tri__report(heap, "checks", "cycle %llu: further reports are left out", (unsigned long long)cycle);
    return n < REPORTS_A_CYCLE;
}

void tri__stress_poll(struct mutator *m) {
    tri_heap *heap = m->heap;
    tri__stress_delay(heap);
    uint32_t every = atomic_load_relaxed(&heap->stress.collect_every); /* a test's switch */
    if (every && ++m->nslow % every == 0) tri__cycle_request(heap, "stress");
    if (atomic_load_relaxed(&heap->stress.slow)) atomic_store_release(&m->pub.request, 1); /* read by tri_poll */
}

/* FAULT_DROP_MARK: clears the mark of one marked object, as a bug would. */
void tri__stress_drop_a_mark(tri_heap *heap) {
    struct space *space = &heap->mem.space;
    size_t npages = atomic_load_acquire(&space->committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages; page++) {
        enum page_kind kind = shape_kind(atomic_load_acquire(&space->pages[page].shape)); /* pairs with span_publish */
        if (kind != PAGE_SMALL && kind != PAGE_MIXED) continue;
        struct span *span = atomic_load_relaxed(&space->spans[page]); /* ordered by the shape */
        if (span->first_page != page || atomic_load_relaxed(&span->place) != SPAN_LISTED) continue;
        for (uint32_t i = 0; i < span->nslots; i++) {
            struct slot slot = span_slot(space, span, i);
            uint64_t bit, *word = space_mark_word(space, &slot, &bit);
            if (atomic_and_relaxed(word, ~bit) & bit) return; /* the planted fault */
        }
    }
}

static bool set_fault(tri_heap *heap, const char *value) {
    for (uint32_t i = 0; i < TRI_COUNT(fault_names); i++)
        if (strcmp(value, fault_names[i]) == 0) {
            atomic_store_relaxed(&heap->stress.fault, i); /* a test's switch */
            return true;
        }
    return false;
}

/* Closing or opening the fast paths takes effect at each thread's next step of a cycle; attaching reads it at once. */
static bool set_number(tri_heap *heap, const char *key, uint32_t n) {
    struct {
        const char *key;
        uint32_t *where;
    } switches[] = {{"stress.collect", &heap->stress.collect_every},
                    {"stress.delay", &heap->stress.delay_us},
                    {"stress.slow", &heap->stress.slow},
                    {"stress.copy", &heap->stress.copy},
                    {"stress.here", &heap->stress.here},
                    {"checkmark", &heap->stress.checkmark},
                    {"manual_check", &heap->stress.manual_check},
                    {"poison", &heap->mem.poison},
                    {"verify", &heap->stress.verify}};
    for (size_t i = 0; i < TRI_COUNT(switches); i++)
        if (strcmp(key, switches[i].key) == 0) {
            atomic_store_relaxed(switches[i].where, n); /* a test's switch */
            return true;
        }
    return false;
}

bool tri__stress_set(tri_heap *heap, const char *key, const char *value, int *err) {
    *err = TRI_OK;
    if (strcmp(key, "fault") == 0) {
        if (!set_fault(heap, value)) *err = tri__error(TRI_EINVAL, "tri_heap_set", "%s is no fault", value);
        return true;
    }
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    return *value && !*end && n <= 1000000000 && set_number(heap, key, (uint32_t)n);
}

#else

bool tri__stress_set(tri_heap *heap, const char *key, const char *value, int *err) {
    static const char *const names[] = {"fault",       "stress.collect", "stress.delay", "stress.slow", "stress.copy",
                                        "stress.here", "checkmark",      "manual_check", "poison",      "verify"};
    (void)heap, (void)value;
    for (size_t i = 0; i < TRI_COUNT(names); i++)
        if (strcmp(key, names[i]) == 0) {
            *err = tri__error(TRI_EINVAL, "tri_heap_set", "%s needs a build with checks (-Dchecks=1 or more)", key);
            return true;
        }
    return false;
}

#endif
