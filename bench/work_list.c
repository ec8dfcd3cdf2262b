/* work_list.c - a linked list of 2,000,001 nodes: built from its end, walked, and dropped whole; then again.
 *
 * No recursion in the workload, and none allowed in a collector: a list has no width to mark in parallel and its whole
 * length to run out of stack. A step is a node linked or visited. */
#include "bench/workload.h"

struct item {
    struct item *next;
    uint64_t number;
};
AD_TYPE(item_type, struct item, next);

enum { ITEMS = 2000001 };

static uint64_t list_run(ad_thread *thread, struct work *work) {
    struct probe *probe = &work->probes[0];
    uint64_t sum = 0, steps = 0;
    AD_PREPARE(item_type);
    probe_start(probe);
    for (uint64_t round = 0; round < work->ops; round++) {
        struct item *head = NULL;
        for (uint64_t i = 0; i < ITEMS; i++) {
            struct item *item = AD_NEW(thread, item_type);
            item->number = i ^ round;
            ad_init(thread, item, &item->next, head);
            head = item;
            work_step(thread, probe, &steps);
        }
        for (const struct item *item = head; item; item = item->next) {
            sum = sum * 31 + item->number;
            work_step(thread, probe, &steps);
        }
    }
    return sum;
}

static uint64_t list_total(const struct work *work) {
    return work->ops * ITEMS * 2;
}

const struct workload workload_list = {"list", list_total, list_run, true, false};
