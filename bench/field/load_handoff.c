/* load_handoff.c - a pair of threads: one makes objects, the other uses and frees them, with a bounded queue between
 * them. Every object dies on the thread that did not make it: the case that costs a malloc with caches by thread most.
 *
 * The queue is a ring of references with two counters, each on a cache line of its own, moved once for a batch, so that
 * it costs little beside the objects. A batch that meets a full or empty queue returns: nobody waits for the other. */
#include "bench/field/load.h"
#include <sched.h>
#include <stdatomic.h>

enum { QUEUE = 4096, HAND = 64 };

struct queue {
    _Alignas(128) _Atomic uint64_t head; /* slots up to here are filled; the producer writes it with release */
    _Alignas(128) _Atomic uint64_t tail; /* slots up to here are empty again; the consumer writes it with release */
    _Alignas(128) void **slots;          /* a collected array where objects are */
    size_t size_bytes;
    bool pointers;
};

static uint64_t produce(ad_thread *thread, struct queue *q) {
    uint64_t head = atomic_load_explicit(&q->head, memory_order_relaxed); /* own */
    /* Pairs with consume's release: its slots are read. */
    if (head + HAND - atomic_load_explicit(&q->tail, memory_order_acquire) > QUEUE) {
        ad_poll(thread);
        sched_yield();
        return 0;
    }
    for (unsigned i = 0; i < HAND; i++) {
        uint64_t *obj = q->pointers ? ad_words(thread, q->size_bytes) : ad_bytes(thread, q->size_bytes);
        ad_init(thread, obj, obj, NULL);
        ad_init(thread, obj, obj + 1, NULL);
        ad_put(thread, q->slots, &q->slots[(head + i) % QUEUE], obj);
    }
    atomic_store_explicit(&q->head, head + HAND, memory_order_release); /* pairs with consume's acquire */
    return HAND;
}

static void consume(ad_thread *thread, struct queue *q) {
    uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed); /* own */
    ad_poll(thread);
    /* Pairs with produce's release: its objects are written. */
    if (atomic_load_explicit(&q->head, memory_order_acquire) - tail < HAND) {
        sched_yield();
        return;
    }
    for (unsigned i = 0; i < HAND; i++) {
        void **slot = &q->slots[(tail + i) % QUEUE];
        uint64_t *obj = *slot;
        field_keep((void *)(uintptr_t)(obj[0] + obj[1]));
        if (AD_FREES)
            ad_free(thread, obj);
        else
            ad_put(thread, q->slots, slot, NULL);
    }
    atomic_store_explicit(&q->tail, tail + HAND, memory_order_release); /* pairs with produce's acquire */
}

struct handoff_state {
    struct queue *queue;
    bool consumer;
};

/* Only the producer's objects count, so that the rate is the pair's. */
static uint64_t handoff_batch(ad_thread *thread, void *arg) {
    struct handoff_state *s = arg;
    if (!s->consumer) return produce(thread, s->queue);
    consume(thread, s->queue);
    return 0;
}

static void handoff_run(ad_thread *thread, const struct params *params, struct result *result) {
    static struct queue q;
    struct handoff_state states[2] = {{&q, false}, {&q, true}};
    struct timed timed = {.batch = handoff_batch, .states = {&states[0], &states[1]}};
    void **slots = ad_refs(thread, QUEUE);
    if (params->nthreads != 2 || params->size_bytes < 16) field_die("handoff has --threads=2 and a --size from 16 up");
    q.slots = slots;
    q.size_bytes = params->size_bytes;
    q.pointers = params->pointers;
    load_timed(thread, params, &timed, result);
    field_keep(slots); /* on this thread's stack till now: a root */
    result->live_bytes = (uint64_t)QUEUE * (params->size_bytes + sizeof(void *));
}

const struct load load_handoff = {"handoff", handoff_run};
