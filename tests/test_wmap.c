/*
 * test_wmap.c: weak maps: entries live with their keys, values with them; chains of a million; growth; encoded values;
 * maps that die; loads and iterations while a cycle marks; maps and finalizers; keys and maps freed by hand. Threads
 * that share maps: test_wmap_threads.c.
 */
#include "tests/held.h"
#include "tests/wmap.h"

#include <pthread.h>
#include <string.h>

static void put(struct fixture *f, void *map, void *key, const void *value) {
    CHECK_MSG(tri_wmap_put(f->thread, map, key, word_of(value)) == TRI_OK, "%s", tri_last_error());
}

static void *get(struct fixture *f, void *map, const void *key) {
    tri_word w = 0;
    return tri_wmap_get(f->thread, map, key, &w) ? (void *)(uintptr_t)w : NULL;
}

TEST(wmap, an_entry_lives_with_its_key) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL);
    void *key = roots[1] = tri_new(f.thread, &leaf_type);
    uintptr_t value = fixture_new_hidden(&f), lost_key = fixture_new_hidden(&f), lost = fixture_new_hidden(&f);
    put(&f, map, key, reveal(value));
    put(&f, map, reveal(lost_key), reveal(lost));
    CHECK_EQ(tri_wmap_count(f.thread, map), 2);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, value) && !is_alive(f.heap, lost_key) && !is_alive(f.heap, lost));
    CHECK_EQ(tri_wmap_count(f.thread, map), 1);
    CHECK(get(&f, map, key) == reveal(value));
    CHECK(tri_wmap_get(f.thread, map, key, NULL));
    put(&f, map, key, key); /* to itself */
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, value) && get(&f, map, key) == key);
    uintptr_t was = hide(key);
    roots[1] = key = NULL;
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, was)); /* though its own value */
    CHECK_EQ(tri_wmap_count(f.thread, map), 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static uint32_t nasked;

static int say_no(tri_heap *heap, size_t size_bytes, void *user) {
    (void)heap, (void)size_bytes, (void)user;
    atomic_add_relaxed(&nasked, 1);
    return 0;
}

/* In builds with checks, too, and without a word about signal handlers. */
TEST(wmap, without_memory_the_host_is_asked_and_the_map_stays_as_it_was) {
    enum { KEYS = 20000 };
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.hard_limit_bytes = 4 << 20;
    config.oom = say_no;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 2);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL);
    void **keys = roots[1] = tri_new_n(f.thread, &array_type, KEYS);
    for (size_t i = 0; i < KEYS; i++) tri_store(f.thread, keys, &keys[i], tri_new(f.thread, &leaf_type));
    for (size_t size = 1 << 20; size >= 16; size /= 2)
        while (tri_manual_alloc(f.heap, size)) {}
    uint32_t before = nasked;
    size_t nput = 0;
    while (nput < KEYS && tri_wmap_put(f.thread, map, keys[nput], word_of(map)) == TRI_OK) nput++;
    CHECK_MSG(nput < KEYS && nasked > before, "%zu entries, asked %u times", nput, nasked - before);
    CHECK_EQ(tri_wmap_put(f.thread, map, keys[nput], word_of(map)), TRI_ENOMEM);
    CHECK_EQ(tri_wmap_count(f.thread, map), nput);
    CHECK_MSG(atomic_load_acquire(&fixture_nreports) == 0, "reported: %s", fixture_report);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* What is put in while a cycle marks, and chains that it has to follow, however the heap collects. */
static void run_in_mode(const char *mode) {
    struct fixture f = fixture_open();
    fixture_set(f.heap, mode);
    fixture_set(f.heap, "stress.delay=5");
    TRI_LOCALS(f.thread, roots, 4);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL);
    void *first = roots[1] = tri_new(f.thread, &pair_type);
    for (int round = 0; round < 4; round++) {
        roots[2] = first;
        for (size_t i = 0; i < 300; i++) {
            void *next = roots[3] = tri_new(f.thread, &pair_type);
            put(&f, map, roots[2], next);
            roots[2] = next;
            if (i % 100 == 50) fixture_collect(&f);
        }
        uintptr_t last = hide(roots[2]);
        roots[2] = roots[3] = NULL;
        fixture_collect(&f);
        CHECK_MSG(is_alive(f.heap, last), "%s", mode);
        CHECK_EQ(tri_wmap_count(f.thread, map), 300);
        CHECK_EQ(tri_wmap_remove(f.thread, map, first), true);
        fixture_collect(&f);
        CHECK(!is_alive(f.heap, last));
        CHECK_EQ(tri_wmap_count(f.thread, map), 0);
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(wmap, in_every_mode) {
    static const char *const modes[] = {"mode=concurrent", "mode=insertion", "mode=stop-mark", "mode=stop",
                                        "mode=incremental"};
    for (size_t i = 0; i < TRI_COUNT(modes); i++) run_in_mode(modes[i]);
}

TEST(wmap, keys_are_found_replaced_and_taken_out) {
    struct fixture f = fixture_open();
    const size_t n = TEST_IS_SLOW ? 2000 : 20000;
    TRI_LOCALS(f.thread, roots, 2);
    void *map = roots[0] = tri_wmap_new(f.thread, &(tri_enc){1, 1, ~0ull, ~1ull}); /* odd words are references */
    void **keys = roots[1] = tri_new_n(f.thread, &array_type, n);
    for (size_t i = 0; i < n; i++) {
        tri_store(f.thread, keys, &keys[i], tri_new(f.thread, &leaf_type));
        CHECK_EQ(tri_wmap_put(f.thread, map, keys[i], i * 2), TRI_OK);
        if (i == n / 2) fixture_collect(&f);
    }
    for (size_t i = 0; i < n; i += 3) CHECK(tri_wmap_remove(f.thread, map, keys[i]));
    for (size_t i = 0; i < n; i += 5) CHECK_EQ(tri_wmap_put(f.thread, map, keys[i], i * 4), TRI_OK);
    CHECK_EQ(tri_verify(f.thread), 0);
    for (size_t i = 0; i < n; i++) {
        tri_word w = 1;
        bool there = tri_wmap_get(f.thread, map, keys[i], &w);
        CHECK_MSG(there == (i % 3 != 0 || i % 5 == 0) && (!there || w == (i % 5 == 0 ? i * 4 : i * 2)), "key %zu", i);
    }
    size_t nseen = 0, position = 0;
    void *key;
    tri_word value;
    while (tri_wmap_next(f.thread, map, &position, &key, &value)) {
        size_t i = value % 4 == 0 && keys[value / 4] == key && value / 4 % 5 == 0 ? value / 4 : value / 2;
        CHECK(keys[i] == key);
        nseen++;
    }
    CHECK_EQ(nseen, tri_wmap_count(f.thread, map));
    for (int round = 0; round < 5; round++) /* tombstones do not fill it for ever */
        for (size_t i = 0; i < n; i++) {
            CHECK_EQ(tri_wmap_put(f.thread, map, keys[i], 0), TRI_OK);
            CHECK(tri_wmap_remove(f.thread, map, keys[i]) && !tri_wmap_remove(f.thread, map, keys[i]));
        }
    CHECK_EQ(tri_wmap_count(f.thread, map), 0);
    CHECK_EQ(tri_verify(f.thread), 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(wmap, encoded_values_and_dead_maps) {
    struct fixture f = fixture_open();
    static const tri_enc odd = {1, 1, ~0ull, ~1ull}, wrong = {0, 1, ~0ull, ~0ull};
    TRI_LOCALS(f.thread, roots, 2);
    CHECK(tri_wmap_new(f.thread, &wrong) == NULL);
    size_t manual = tri_manual_bytes(f.heap);
    uintptr_t map = hide(tri_wmap_new(f.thread, &odd));
    void *key = roots[1] = tri_new(f.thread, &leaf_type);
    uintptr_t value = fixture_new_hidden(&f), no_value = fixture_new_hidden(&f);
    CHECK_EQ(tri_wmap_put(f.thread, reveal(map), key, word_of(reveal(value)) | 1), TRI_OK);
    roots[0] = reveal(map);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, value) && !is_alive(f.heap, no_value));
    CHECK(tri_manual_bytes(f.heap) > manual);
    roots[0] = NULL;
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, map) && !is_alive(f.heap, value));
    CHECK_EQ(tri_manual_bytes(f.heap), manual);
    CHECK_EQ(f.heap->death.maps.nmaps, 0);
    CHECK_EQ(tri_wmap_put(f.thread, key, key, 0), TRI_EINVAL);
    CHECK(!tri_wmap_get(f.thread, NULL, key, NULL) && tri_wmap_count(f.thread, key) == 0);
    roots[0] = tri_wmap_new(f.thread, NULL);
    CHECK_EQ(tri_wmap_put(f.thread, roots[0], &f, 0), TRI_EINVAL);
    CHECK(!tri_wmap_remove(f.thread, roots[0], key) && !tri_wmap_remove(f.thread, roots[0], NULL));
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* key i leads to key i + 1, directly, by an object in between, or by another map that only this entry names. */
static size_t settle_chain(size_t n, int way) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.wait_limit_ms = 100000; /* of a loaded machine */
    config.workers = 0;            /* this thread runs the cycle: its units of work are counted */
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 4);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL);
    void *first = roots[1] = tri_new(f.thread, &pair_type);
    roots[2] = first;
    for (size_t i = 0; i < n; i++) {
        struct pair *next = roots[3] = tri_new(f.thread, &pair_type);
        next->value = i;
        if (way == 0) {
            put(&f, map, roots[2], next);
        } else if (way == 1) {
            void **between = tri_new_n(f.thread, &array_type, 1);
            tri_init(f.thread, between, &between[0], next);
            put(&f, map, roots[2], between);
        } else {
            void *inner = tri_wmap_new(f.thread, NULL);
            put(&f, inner, first, next);
            put(&f, map, roots[2], inner);
        }
        roots[2] = next;
    }
    uintptr_t last = hide(roots[2]);
    roots[2] = roots[3] = NULL;
    uint64_t npasses = f.heap->death.npasses;
    (void)tri__units_take_sum();
    fixture_collect(&f);
    size_t units = tri__units_take_sum();
    npasses = f.heap->death.npasses - npasses;
    CHECK_MSG(npasses <= 6, "%llu looks at all entries for a chain of %zu", (unsigned long long)npasses, n);
    CHECK(is_alive(f.heap, last));
    CHECK_EQ(tri_wmap_count(f.thread, map), n);
    roots[1] = first = NULL;
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, last));
    CHECK_EQ(tri_wmap_count(f.thread, map), 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
    return units;
}

TEST(wmap, chains_settle_in_linear_time, .timeout = 120) {
    for (int way = 0; way < 3; way++) {
        size_t n = TEST_IS_SLOW ? 1000 : way == 2 ? 5000 : 100000;
        size_t one = settle_chain(n, way), ten = settle_chain(n * 10, way);
        CHECK_MSG(one > n && ten < one * 12, "way %d: %zu units for a chain of %zu, %zu for ten times as many", way,
                  one, n, ten);
    }
}

TEST(wmap, tables_get_smaller_with_what_dies) {
    struct fixture f = fixture_open();
    const size_t n = TEST_IS_SLOW ? 5000 : 50000;
    TRI_LOCALS(f.thread, roots, 2);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL);
    void **kept = roots[1] = tri_new_n(f.thread, &array_type, 100);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < n; i++) {
            void *key = tri_new(f.thread, &leaf_type);
            if (i % (n / 100) == 0) tri_store(f.thread, kept, &kept[i / (n / 100)], key);
            put(&f, map, key, key);
        }
        size_t manual = tri_manual_bytes(f.heap);
        fixture_collect(&f);
        CHECK_EQ(tri_wmap_count(f.thread, map), 100);
        CHECK(is_small(&f, map) && tri_manual_bytes(f.heap) < manual / (TEST_IS_SLOW ? 3 : 10));
        CHECK_EQ(tri_verify(f.thread), 0);
        for (size_t i = 0; i < 100; i++) CHECK(get(&f, map, kept[i]) == kept[i]);
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* Chains through maps that come back with a finalizable object. */
TEST(wmap, keys_that_come_back_bring_their_values) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL);
    tri_finq *q = tri_finq_new(f.thread);
    struct pair *key = roots[1] = tri_new(f.thread, &pair_type);
    struct pair *third = tri_new(f.thread, &pair_type);
    put(&f, map, key, third); /* no other entry waits */
    tri_store(f.thread, third, &third->left, tri_new(f.thread, &pair_type));
    uintptr_t child = hide(third->left), was = hide(key);
    CHECK_EQ(tri_finq_watch(f.thread, q, key), TRI_OK);
    roots[1] = key = NULL;
    fixture_collect(&f);
    CHECK_EQ(tri_verify(f.thread), 0);
    CHECK((key = roots[1] = tri_finq_poll(f.thread, q)) == reveal(was) && is_alive(f.heap, child));
    struct pair *second = tri_new(f.thread, &pair_type);
    put(&f, map, second, third);
    put(&f, map, key, second);
    uintptr_t lost_key = fixture_new_hidden(&f), hidden = hide(key), end = hide(third);
    put(&f, map, reveal(lost_key), key);
    CHECK_EQ(tri_finq_watch(f.thread, q, key), TRI_OK);
    roots[1] = key = NULL;
    fixture_collect(&f);
    CHECK_EQ(tri_verify(f.thread), 0);
    CHECK(!is_alive(f.heap, lost_key) && is_alive(f.heap, end));
    CHECK_EQ(tri_wmap_count(f.thread, map), 2);
    CHECK((key = roots[1] = tri_finq_poll(f.thread, q)) == reveal(hidden));
    CHECK(get(&f, map, get(&f, map, key)) == reveal(end));
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(wmap, used_while_marking) {
    struct fixture f = open_heap("checkmark=1", "verify=1");
    TRI_LOCALS(f.thread, roots, 6);
    (void)make_graph(&f, roots);
    void *map = roots[1] = tri_wmap_new(f.thread, NULL);
    void *kept_key = roots[2] = tri_new(f.thread, &thing_type);
    uintptr_t v1 = hide(tri_new(f.thread, &thing_type)), dead_key = hide(tri_new(f.thread, &thing_type)),
              dead = hide(tri_new(f.thread, &thing_type)), found_key = hide(tri_new(f.thread, &thing_type)),
              found = hide(tri_new(f.thread, &thing_type)), replaced = hide(tri_new(f.thread, &thing_type));
    put(&f, map, kept_key, reveal(replaced));
    put(&f, map, reveal(dead_key), reveal(dead));
    pthread_t collect = begin_cycle(&f);
    void *new_key = roots[3] = tri_new(f.thread, &thing_type); /* black */
    put(&f, map, new_key, reveal(v1));                         /* white, and in no root: but it is not loaded either */
    put(&f, map, kept_key, new_key);
    put(&f, map, reveal(found_key), reveal(found));
    CHECK(get(&f, map, new_key) == reveal(v1));
    size_t position = 0;
    void *key;
    tri_word value;
    while (tri_wmap_next(f.thread, map, &position, &key, &value))
        if (key == reveal(found_key)) roots[4] = key, roots[5] = (void *)(uintptr_t)value;
    CHECK(roots[4] == reveal(found_key) && roots[5] == reveal(found));
    end_cycle(&f, collect);
    CHECK(is_alive(f.heap, v1) && is_alive(f.heap, found_key) && is_alive(f.heap, found));
    CHECK(get(&f, map, new_key) == reveal(v1) && get(&f, map, kept_key) == new_key);
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, dead_key) && !is_alive(f.heap, dead) && !is_alive(f.heap, replaced));
    CHECK_EQ(tri_wmap_count(f.thread, map), 3);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(wmap, keys_and_maps_freed_by_hand) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    size_t manual = tri_manual_bytes(f.heap);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL), *other = roots[1] = tri_wmap_new(f.thread, NULL);
    void *key = tri_new(f.thread, &leaf_type);
    put(&f, map, key, map);
    put(&f, other, key, key);
    CHECK_EQ(tri_free(f.thread, key), TRI_OK);
    CHECK_EQ(tri_wmap_count(f.thread, map) + tri_wmap_count(f.thread, other), 0);
    roots[2] = tri_new(f.thread, &leaf_type); /* may have its place */
    CHECK(get(&f, map, roots[2]) == NULL);
    put(&f, other, roots[2], map);
    CHECK_EQ(tri_verify(f.thread), 0);
    roots[0] = NULL;
    put(&f, other, roots[2], other);
    CHECK_EQ(tri_free(f.thread, map), TRI_OK);
    CHECK_EQ(f.heap->death.maps.nmaps, 1);
    CHECK_EQ(tri_wmap_put(f.thread, map, roots[2], 0), TRI_EINVAL); /* and not into what its record is now */
    CHECK(strstr(tri_last_error(), "tri_wmap_put") && strstr(tri_last_error(), "is no weak map"));
    CHECK_EQ(tri_wmap_count(f.thread, map), 0);
    size_t position = 0;
    CHECK(!tri_wmap_next(f.thread, other, NULL, NULL, NULL) && strstr(tri_last_error(), "position is NULL"));
    CHECK(tri_wmap_next(f.thread, other, &position, NULL, NULL));
    fixture_collect(&f);
    CHECK(get(&f, other, roots[2]) == other);
    roots[1] = NULL;
    fixture_collect(&f);
    CHECK_EQ(tri_manual_bytes(f.heap), manual);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* Many maps, most of which die. */
TEST(wmap, many_maps) {
    struct fixture f = fixture_open();
    const size_t n = TEST_IS_SLOW ? 1000 : 20000;
    TRI_LOCALS(f.thread, roots, 2);
    size_t manual = tri_manual_bytes(f.heap);
    void **kept = roots[0] = tri_new_n(f.thread, &array_type, n / 10 + 1);
    void *key = roots[1] = tri_new(f.thread, &leaf_type);
    for (size_t i = 0; i < n; i++) {
        void *map = tri_wmap_new(f.thread, NULL);
        if (i % 10 == 0) tri_store(f.thread, kept, &kept[i / 10], map);
        put(&f, map, key, map);
    }
    fixture_collect(&f);
    CHECK_EQ(f.heap->death.maps.nmaps, (n + 9) / 10);
    for (size_t i = 0; i < n; i += 10) CHECK(get(&f, kept[i / 10], key) == kept[i / 10]);
    roots[0] = kept = NULL;
    fixture_collect(&f);
    CHECK_EQ(f.heap->death.maps.nmaps, 0);
    CHECK_EQ(tri_manual_bytes(f.heap), manual);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(wmap, that_is_not_settled_is_reported) {
    struct fixture f = open_heap("fault=late_maps", "checkmark=1");
    TRI_LOCALS(f.thread, roots, 2);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL);
    void *key = roots[1] = tri_new(f.thread, &leaf_type);
    put(&f, map, key, tri_new(f.thread, &thing_type));
    fixture_collect(&f);
    fixture_set(f.heap, "fault=none");
    pthread_mutex_lock(&told_mutex);
    CHECK_MSG(strstr(told, "struct thing") && strstr(told, "from a weak map"), "%s", told);
    pthread_mutex_unlock(&told_mutex);
    CHECK(tri_verify(f.thread) > 0);
    CHECK(tri_wmap_remove(f.thread, map, key));
    forget_reports();
    TRI_POP(f.thread, roots);
    close_heap(&f);
}
