/*
 * test_manual_kept.c: the manual memory that threads keep: of what is empty, of what others freed, asleep and at their
 * end. What blocks are worth otherwise: test_manual.c.
 */
#include "tests/fixture.h"

#include <pthread.h>

static size_t pages_of(tri_heap *heap) {
    return tri__manual_pages(&heap->mem);
}

enum { KEEPERS = 8, KEPT_MOST_BYTES = 3 << 19 };

struct keeper {
    tri_heap *heap;
    pthread_barrier_t *done;
};

static void *keep_main(void *arg) {
    struct keeper *k = arg;
    for (int round = 0; round < 3; round++)
        for (unsigned i = 1; i < NUM_MANUAL_CLASSES; i++) {
            void *block = tri_manual_alloc(k->heap, manual_class_bytes(i));
            CHECK(block != NULL);
            tri_manual_free(k->heap, block);
        }
    pthread_barrier_wait(k->done);
    pthread_barrier_wait(k->done); /* asleep, with its cache */
    void *block = tri_manual_alloc(k->heap, 40000);
    tri_manual_free(k->heap, block);
    pthread_barrier_wait(k->done);
    pthread_barrier_wait(k->done);
    return NULL;
}

/* A block of each class in turn leaves an empty span of each behind; a trim by another reaches what a thread that goes
 * on keeps. */
TEST(manual_kept, a_thread_keeps_little_of_what_is_empty) {
    struct fixture f = fixture_open();
    pthread_barrier_t done;
    pthread_t threads[KEEPERS];
    struct keeper keeper = {f.heap, &done};
    CHECK_EQ(pthread_barrier_init(&done, NULL, KEEPERS + 1), 0);
    for (int i = 0; i < KEEPERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, keep_main, &keeper), 0);
    pthread_barrier_wait(&done);
    size_t kept = pages_of(f.heap) * PAGE_BYTES, pooled = f.heap->mem.manual.pool_pages * PAGE_BYTES;
    CHECK_MSG(kept <= pooled + KEEPERS * KEPT_MOST_BYTES, "%zu bytes, %zu of them for any thread", kept, pooled);
    tri__manual_trim(&f.heap->mem);
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&done); /* each has come by */
    tri__manual_trim(&f.heap->mem);
    kept = pages_of(f.heap) * PAGE_BYTES;
    CHECK_MSG(kept <= KEEPERS * 65536, "%zu bytes after a trim", kept);
    pthread_barrier_wait(&done);
    for (int i = 0; i < KEEPERS; i++) fixture_join(f.thread, threads[i]);
    pthread_barrier_destroy(&done);
    fixture_close(&f);
}

struct other {
    tri_heap *heap;
    void *block;
};

static void *free_there(void *arg) {
    struct other *o = arg;
    tri_manual_free(o->heap, o->block);
    return NULL;
}

TEST(manual_kept, what_others_freed_comes_before_memory_that_nobody_has_touched) {
    enum { TIMES = 40 };
    static const size_t each[] = {3000, 10000, 30000, 50000, 250000};
    struct fixture f = fixture_open();
    for (size_t s = 0; s < TRI_COUNT(each); s++) {
        uintptr_t low = UINTPTR_MAX, high = 0;
        for (int i = 0; i < TIMES; i++) {
            struct other o = {f.heap, tri_manual_alloc(f.heap, each[s])};
            pthread_t thread;
            if ((uintptr_t)o.block < low) low = (uintptr_t)o.block;
            if ((uintptr_t)o.block > high) high = (uintptr_t)o.block;
            CHECK_EQ(pthread_create(&thread, NULL, free_there, &o), 0);
            fixture_join(f.thread, thread);
        }
        CHECK_MSG(high - low <= max_size(2 * each[s], 16384), "%zu bytes for blocks of %zu", high - low, each[s]);
    }
    fixture_close(&f);
}

struct sleeper {
    tri_heap *heap;
    void *blocks[20000];
    uint32_t state; /* [atomic] */
};

static void *allocate_and_sleep(void *arg) {
    struct sleeper *s = arg;
    for (size_t i = 0; i < TRI_COUNT(s->blocks); i++) s->blocks[i] = tri_manual_alloc(s->heap, 40 + i % 3 * 1000);
    atomic_store_release(&s->state, 1);
    while (atomic_load_acquire(&s->state) < 2) fixture_sleep_ms(1);
    for (size_t i = 0; i < TRI_COUNT(s->blocks); i++) s->blocks[i] = tri_manual_alloc(s->heap, 40 + i % 3 * 1000);
    for (size_t i = 0; i < TRI_COUNT(s->blocks); i++) tri_manual_free(s->heap, s->blocks[i]);
    return NULL;
}

TEST(manual_kept, a_trim_returns_what_others_freed_of_a_thread_that_sleeps) {
    struct fixture f = fixture_open();
    static struct sleeper s;
    s.heap = f.heap;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, allocate_and_sleep, &s), 0);
    while (atomic_load_acquire(&s.state) < 1) fixture_sleep_ms(1);
    size_t full = pages_of(f.heap);
    for (size_t i = 0; i < TRI_COUNT(s.blocks); i += 2) tri_manual_free(f.heap, s.blocks[i]);
    tri_trim(f.heap);
    CHECK_EQ(pages_of(f.heap), full); /* a live block in each span */
    for (size_t i = 1; i < TRI_COUNT(s.blocks); i += 2) tri_manual_free(f.heap, s.blocks[i]);
    tri_trim(f.heap);
    CHECK_MSG(pages_of(f.heap) <= 48, "%zu pages of %zu stay", pages_of(f.heap), full); /* those it allocates from */
    CHECK_EQ(tri_verify(f.thread), 0);
    atomic_store_release(&s.state, 2);
    pthread_join(thread, NULL);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    tri_trim(f.heap);
    CHECK_EQ(pages_of(f.heap), 0);
    fixture_close(&f);
}

static void *leave_blocks(void *arg) {
    void ***where = arg;
    tri_heap *heap = (tri_heap *)where[0];
    for (int i = 1; i <= 1000; i++) where[i] = tri_manual_alloc(heap, 64);
    return NULL;
}

TEST(manual_kept, what_an_ended_thread_left_is_used_again_or_given_back) {
    struct fixture f = fixture_open();
    static void **blocks[1001];
    for (int round = 0; round < 20; round++) {
        blocks[0] = (void **)f.heap;
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, leave_blocks, blocks), 0);
        pthread_join(thread, NULL);
        size_t full = pages_of(f.heap);
        CHECK_MSG(full <= 40, "%zu pages after %d threads", full, round + 1);
        for (int i = 1; i <= 1000; i++) tri_manual_free(f.heap, blocks[i]);
        if (round % 2) {
            tri_trim(f.heap);
            CHECK_EQ(pages_of(f.heap), 0);
        }
    }
    CHECK(f.heap->mem.manual.ncaches <= 2);
    fixture_close(&f);
}
