/*
 * Threads that share weak maps while cycles run, in every mode: chains from map to map, iterations, and one table that
 * grows and shrinks in waves. A value's number is its key's plus one, so that a wrong pair shows. What one thread sees:
 * test_wmap.c.
 */
#include "tests/fixture.h"
#include "tests/wmap.h"

#include <pthread.h>

enum { SHARERS = 4, NMAPS = 4 };
struct shared {
    tri_heap *heap;
    tri_handle maps[NMAPS];
    uint32_t stop;
    uint64_t nfound, niterated;
};

struct node {
    struct node *other;
    uint64_t tag, number;
};
TRI_TYPE(node_type, struct node, other);
enum { TAG = 0x6d6170 };

static void check_node(const struct node *node) {
    CHECK_MSG(node->tag == TAG, "lost object: %p", (const void *)node);
}

/* A value's number is its key's plus one, wherever it comes from. */
static void *share_main(void *arg) {
    struct shared *s = arg;
    tri_thread *t = fixture_attach(s->heap);
    uint64_t rng = (uint64_t)(uintptr_t)&t | 1, nfound = 0, niterated = 0;
    TRI_LOCALS(t, roots, 12);
    while (!atomic_load_acquire(&s->stop) || nfound == 0 || niterated == 0) {
        void *map = roots[0] = tri_deref(s->maps[fixture_random(&rng) % NMAPS]);
        size_t at = 1 + fixture_random(&rng) % 8;
        uint64_t r = fixture_random(&rng) % 16;
        if (tri_wmap_count(t, map) > 5000) tri_poll(t), r = 13; /* as many as a cycle looks at in no time */
        if (r < 4 || (r != 13 && !roots[at])) {
            struct node *key = roots[at] = tri_new(t, &node_type);
            key->tag = TAG;
            key->number = r < 2 && roots[1 + at % 8] ? ((struct node *)roots[1 + at % 8])->number + 1
                                                     : fixture_random(&rng);
            struct node *value = roots[9] = tri_new(t, &node_type);
            value->tag = TAG;
            value->number = key->number + 1;
            CHECK_EQ(tri_wmap_put(t, map, key, word_of(value)), TRI_OK);
            struct node *before = roots[1 + at % 8]; /* a chain, if the numbers fit */
            if (before && before->number + 1 == key->number)
                CHECK_EQ(tri_wmap_put(t, map, before, word_of(key)), TRI_OK);
            roots[9] = NULL;
        } else if (r < 12) {
            tri_word w = 0;
            struct node *key = roots[at];
            if (tri_wmap_get(t, map, key, &w)) {
                struct node *value = roots[10] = (void *)(uintptr_t)w;
                check_node(value);
                CHECK_EQ(value->number, key->number + 1);
                if (r < 8) roots[at] = value; /* along the chain */
                nfound++;
            }
        } else if (r == 12) {
            (void)tri_wmap_remove(t, map, roots[at]);
        } else if (r == 13) {
            roots[at] = NULL;
        } else if (fixture_random(&rng) % 16 == 0) {
            size_t position = fixture_random(&rng) % 64;
            void *key;
            tri_word w;
            for (int i = 0; i < 20 && tri_wmap_next(t, map, &position, &key, &w); i++) {
                roots[10] = key, roots[11] = (void *)(uintptr_t)w;
                check_node(key);
                check_node(roots[11]);
                CHECK_EQ(((struct node *)roots[11])->number, ((struct node *)key)->number + 1);
                niterated++;
            }
        }
        if (r % 4 == 0) tri_poll(t);
        if (fixture_random(&rng) % 64 == 0) (void)tri_new_bytes(t, 300);
    }
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    atomic_add_relaxed(&s->nfound, nfound);
    atomic_add_relaxed(&s->niterated, niterated);
    return NULL;
}

static struct fixture open_for_threads(const char *setting1, const char *setting2) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.min_heap_bytes = 1 << 20;
    config.wait_limit_ms = 100000; /* of a loaded machine */
    struct fixture f = fixture_open_config(&config);
    if (setting1) fixture_set(f.heap, setting1);
    if (setting2) fixture_set(f.heap, setting2);
    return f;
}

static void run_sharers(const char *setting1, const char *setting2, int ncycles) {
    struct fixture f = open_for_threads(setting1, setting2);
    struct shared s = {.heap = f.heap};
    for (int i = 0; i < NMAPS; i++) s.maps[i] = tri_global(f.thread, tri_wmap_new(f.thread, NULL));
    pthread_t threads[SHARERS];
    for (int i = 0; i < SHARERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, share_main, &s), 0);
    for (int i = 0; i < ncycles; i++) {
        fixture_collect(&f);
        if (i % 8 == 7) tri_global_set(f.thread, s.maps[i % NMAPS], tri_wmap_new(f.thread, NULL));
    }
    atomic_store_release(&s.stop, 1);
    for (int i = 0; i < SHARERS; i++) fixture_join(f.thread, threads[i]);
    CHECK(s.nfound > 0 && s.niterated > 0);
    fixture_collect(&f);
    for (int i = 0; i < NMAPS; i++) {
        CHECK_EQ(tri_wmap_count(f.thread, tri_deref(s.maps[i])), 0);
        tri_global_free(f.thread, s.maps[i]);
    }
    fixture_collect(&f);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    fixture_close(&f);
}

/* One map that all threads fill and empty in waves, so that its table grows and shrinks while cycles look at it. */
enum { WAVE_KEYS = TEST_IS_SLOW ? 500 : 2000 };
struct wave_state {
    tri_heap *heap;
    tri_handle map;
    uint32_t stop;
    uint64_t nwaves;
};

static void check_held(tri_thread *t, void *map, struct node *key) {
    tri_word w = 0;
    CHECK_MSG(tri_wmap_get(t, map, key, &w), "a map lost a key that is held");
    struct node *value = (void *)(uintptr_t)w;
    check_node(value);
    CHECK_EQ(value->number, key->number + 1);
}

static void *wave_main(void *arg) {
    struct wave_state *s = arg;
    tri_thread *t = fixture_attach(s->heap);
    uint64_t rng = (uint64_t)(uintptr_t)&t | 1, nwaves = 0;
    TRI_LOCALS(t, roots, 4);
    struct node **keys = roots[0] = tri_new_n(t, &array_type, WAVE_KEYS);
    while (!atomic_load_acquire(&s->stop) || nwaves == 0) {
        void *map = roots[1] = tri_deref(s->map);
        for (size_t i = 0; i < WAVE_KEYS; i++) {
            struct node *key = roots[2] = tri_new(t, &node_type), *value = roots[3] = tri_new(t, &node_type);
            key->tag = value->tag = TAG;
            value->number = (key->number = fixture_random(&rng)) + 1;
            CHECK_EQ(tri_wmap_put(t, map, key, word_of(value)), TRI_OK);
            roots[3] = NULL; /* the map alone has it */
            tri_store(t, keys, &keys[i], key);
            check_held(t, map, keys[fixture_random(&rng) % (i + 1)]);
        }
        for (size_t i = 0; i < WAVE_KEYS; i++) {
            check_held(t, map, keys[i]);
            if (nwaves % 2) CHECK(tri_wmap_remove(t, map, keys[i]));
            tri_store(t, keys, &keys[i], NULL);
            if (i % 16 == 0) tri_poll(t);
        }
        nwaves++;
    }
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    atomic_add_relaxed(&s->nwaves, nwaves);
    return NULL;
}

static void run_waves(const char *setting1, const char *setting2, int ncycles) {
    struct fixture f = open_for_threads(setting1, setting2);
    struct wave_state s = {.heap = f.heap, .map = tri_global(f.thread, tri_wmap_new(f.thread, NULL))};
    pthread_t threads[SHARERS];
    for (int i = 0; i < SHARERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, wave_main, &s), 0);
    for (int i = 0; i < ncycles; i++) fixture_collect(&f);
    atomic_store_release(&s.stop, 1);
    for (int i = 0; i < SHARERS; i++) fixture_join(f.thread, threads[i]);
    CHECK(s.nwaves >= SHARERS);
    fixture_collect(&f);
    fixture_collect(&f);
    CHECK_EQ(tri_wmap_count(f.thread, tri_deref(s.map)), 0);
    CHECK(is_small(&f, tri_deref(s.map)));
    CHECK_EQ(tri_verify(f.thread), 0);
    tri_global_free(f.thread, s.map);
    fixture_collect(&f);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    fixture_close(&f);
}

TEST(wmap_threads, grows_and_shrinks_beside_cycles) {
    run_waves("poison=1", NULL, TEST_IS_SLOW ? 6 : 12);
    run_waves("verify=1", "stress.delay=5", TEST_IS_SLOW ? 3 : 4);
}

TEST(wmap_threads, grows_and_shrinks_beside_cycles_of_every_mode) {
    static const char *const modes[] = {"mode=insertion", "mode=stop", "mode=incremental"};
    for (size_t i = 0; i < TRI_COUNT(modes); i++) run_waves(modes[i], "checkmark=1", TEST_IS_SLOW ? 2 : 3);
}

TEST(wmap_threads, shared_beside_cycles) {
    run_sharers("poison=1", NULL, TEST_IS_SLOW ? 8 : 25);
}

TEST(wmap_threads, shared_beside_cycles_with_delays) {
    run_sharers("poison=1", "stress.delay=30", TEST_IS_SLOW ? 6 : 15);
}

TEST(wmap_threads, shared_beside_cycles_with_every_check) {
    run_sharers("stress.slow=1", "checkmark=1", TEST_IS_SLOW ? 6 : 15);
}

TEST(wmap_threads, beside_cycles_of_every_mode) {
    static const char *const modes[] = {"mode=insertion", "mode=stop-mark", "mode=stop", "mode=incremental"};
    for (size_t i = 0; i < TRI_COUNT(modes); i++) run_sharers(modes[i], "verify=1", TEST_IS_SLOW ? 4 : 8);
}
