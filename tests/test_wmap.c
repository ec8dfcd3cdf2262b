/*
 * test_wmap.c: weak maps: entries live with their keys, values with them; chains of a million; growth; encoded values;
 * maps that die; loads and iterations while a cycle marks; maps and finalizers; keys and maps freed by hand; threads
 * that share maps while cycles run.
 */
#include "tests/held.h"

#include <pthread.h>
#include <string.h>

static tri_word word_of(const void *p) {
    return (tri_word)(uintptr_t)p;
}

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

/* Whether the map's table is as small as its entries need. */
static bool is_small(const struct fixture *f, const void *map) {
    const struct wmap *record = tri__wmap_at(f->heap, (uintptr_t)map);
    return record->table.nbuckets <= record->table.n * 2 + 4 && record->table.nroom <= record->table.nbuckets + 128;
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

/* ---- beside cycles ---------------------------------------------------------------------------------------------- */

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

static void run_sharers(const char *setting1, const char *setting2, int ncycles) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.min_heap_bytes = 1 << 20;
    config.wait_limit_ms = 100000; /* of a loaded machine */
    struct fixture f = fixture_open_config(&config);
    if (setting1) fixture_set(f.heap, setting1);
    if (setting2) fixture_set(f.heap, setting2);
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
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.min_heap_bytes = 1 << 20;
    config.wait_limit_ms = 100000; /* of a loaded machine */
    struct fixture f = fixture_open_config(&config);
    if (setting1) fixture_set(f.heap, setting1);
    if (setting2) fixture_set(f.heap, setting2);
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

TEST(wmap, grows_and_shrinks_beside_cycles) {
    run_waves("poison=1", NULL, TEST_IS_SLOW ? 6 : 12);
    run_waves("verify=1", "stress.delay=5", TEST_IS_SLOW ? 3 : 4);
}

TEST(wmap, grows_and_shrinks_beside_cycles_of_every_mode) {
    static const char *const modes[] = {"mode=insertion", "mode=stop", "mode=incremental"};
    for (size_t i = 0; i < TRI_COUNT(modes); i++) run_waves(modes[i], "checkmark=1", TEST_IS_SLOW ? 2 : 3);
}

TEST(wmap, shared_beside_cycles) {
    run_sharers("poison=1", NULL, TEST_IS_SLOW ? 8 : 25);
}

TEST(wmap, shared_beside_cycles_with_delays) {
    run_sharers("poison=1", "stress.delay=30", TEST_IS_SLOW ? 6 : 15);
}

TEST(wmap, shared_beside_cycles_with_every_check) {
    run_sharers("stress.slow=1", "checkmark=1", TEST_IS_SLOW ? 6 : 15);
}

TEST(wmap, beside_cycles_of_every_mode) {
    static const char *const modes[] = {"mode=insertion", "mode=stop-mark", "mode=stop", "mode=incremental"};
    for (size_t i = 0; i < TRI_COUNT(modes); i++) run_sharers(modes[i], "verify=1", TEST_IS_SLOW ? 4 : 8);
}
