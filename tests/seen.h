/*
 * seen.h: what the tests of waits and of events share: a histogram's sum, work for an allocator, a cycle beside this
 * thread, and the events that a heap told.
 */
#ifndef TRI_TESTS_SEEN_H
#define TRI_TESTS_SEEN_H

#include "tests/fixture.h"

static inline uint64_t count(tri_heap *heap, int kind) {
    uint64_t buckets[PAUSE_BUCKETS], n = 0;
    CHECK_EQ(tri_histogram(heap, kind, buckets, PAUSE_BUCKETS), PAUSE_BUCKETS);
    for (int i = 0; i < PAUSE_BUCKETS; i++) n += buckets[i];
    return n;
}

static inline void grow(struct fixture *f, void **root, int n) {
    for (int i = 0; i < n; i++) {
        struct pair *p = tri_new(f->thread, &pair_type);
        CHECK(p != NULL);
        tri_init(f->thread, p, &p->left, *root);
        *root = p;
    }
}

/* Waits of at least that long. */
static inline uint64_t count_long(tri_heap *heap, int kind, uint64_t ns) {
    uint64_t buckets[PAUSE_BUCKETS], n = 0;
    CHECK_EQ(tri_histogram(heap, kind, buckets, PAUSE_BUCKETS), PAUSE_BUCKETS);
    for (int i = 0; i < PAUSE_BUCKETS; i++) n += i > 0 && (UINT64_C(1) << (i - 1)) >= ns ? buckets[i] : 0;
    return n;
}

/* A cycle of another thread's, which this one answers itself. */
struct beside {
    tri_heap *heap;
    struct deep *deep;
    uint32_t away, done; /* [atomic] */
};

static inline void *collect_and_tell(void *arg) {
    struct beside *b = arg;
    tri_thread *thread = fixture_attach(b->heap);
    while (b->deep && !atomic_load_acquire(&b->away)) tri_poll(thread);
    CHECK_EQ(tri_collect(thread), TRI_OK);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    atomic_store_release(&b->done, 1);
    return NULL;
}

static inline void poll_through_a_cycle(struct fixture *f) {
    struct beside b = {f->heap, NULL, 0, 0};
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, collect_and_tell, &b), 0);
    while (!atomic_load_acquire(&b.done)) tri_poll(f->thread);
    CHECK_EQ(pthread_join(other, NULL), 0);
}

static inline void *collect_beside(void *arg) {
    tri_thread *thread = NULL;
    CHECK_EQ(tri_attach(arg, 0, &thread), TRI_OK);
    CHECK_EQ(tri_collect(thread), TRI_OK);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

enum { MOST_EVENTS = 4096 };
struct told {
    pthread_mutex_t mutex;
    uint32_t n, ncycles;
    tri_event events[MOST_EVENTS];
};

static inline void on_event(const tri_event *event, void *user) {
    struct told *t = user;
    pthread_mutex_lock(&t->mutex);
    if (t->n < MOST_EVENTS) t->events[t->n++] = *event;
    t->ncycles += event->kind == TRI_EVENT_CYCLE_END;
    pthread_mutex_unlock(&t->mutex);
}

#endif
