/* work_store.c - a message store: a window of messages of 1 KB in a ring (200,000); each push replaces the oldest.
 *
 * The shape that made collectors' pauses famous: a large live heap of pointer-free objects of which one dies with each
 * one that is born. An operation is a push: allocate, fill, store. At the end every message of the window is read. */
#include <string.h>

#include "bench/workload.h"

enum { WINDOW = 200000, MESSAGE_BYTES = 1024 };

/* The messages that are kept. */
static uint64_t window_of(const struct work *work) {
    return work->count ? work->count : WINDOW;
}

static void push(ad_thread *thread, void **ring, uint64_t window, uint64_t number) {
    unsigned char *message = ad_new_leaf(thread, MESSAGE_BYTES);
    memset(message, (int)(number & 0xff), MESSAGE_BYTES);
    void **slot = &ring[number % window];
    ad_free(thread, *slot);
    ad_store(thread, ring, slot, message);
}

/* Every byte of a message that must be there, summed: 1024 times its number's low byte. */
static uint64_t message_sum(const unsigned char *message) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < MESSAGE_BYTES; i++) sum += message[i];
    return sum;
}

static uint64_t store_run(ad_thread *thread, struct work *work) {
    uint64_t window = window_of(work);
    void **ring = ad_new_slots(thread, window);
    struct probe *probe = &work->probes[0];
    uint64_t sum = 0;
    probe_start(probe);
    for (uint64_t i = 0; i < work->ops; i++) {
        push(thread, ring, window, i);
        probe_op(probe, 1);
    }
    uint64_t first = work->ops > window ? work->ops - window : 0;
    for (uint64_t i = first; i < work->ops; i++) {
        uint64_t got = message_sum(ring[i % window]);
        if (got != (i & 0xff) * MESSAGE_BYTES) {
            fprintf(stderr, "message %llu is damaged\n", (unsigned long long)i);
            exit(1);
        }
        sum = sum * 31 + got;
        if ((i & 63) == 0) ad_poll(thread);
    }
    return sum;
}

static uint64_t store_total(const struct work *work) {
    return work->ops;
}

const struct workload workload_store = {"store", store_total, store_run, true, true};
