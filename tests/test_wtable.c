/*
 * test_wtable.c: tables by address: what is in is found, taken out, copied and iterated, while they grow and shrink by
 * a bucket at a time; no call does work for many; a cursor meets what stays; all blocks come back.
 */
#include "tests/fixture.h"

#include <stdlib.h>
#include <string.h>

#include "gc/wtable.h"

enum { MAX_KEYS = 60000 };

struct model {
    struct wtable t;
    struct fixalloc more;
    bool in[MAX_KEYS];
    size_t n, nblocks;
};
static struct model model;
static size_t nsaid;

static uintptr_t key_of(size_t i) {
    return 0x7f0000000000u + i * 16;
}

static size_t index_of(uintptr_t key) {
    return (key - 0x7f0000000000u) / 16;
}

static void say(void *context, const char *text) {
    (void)context;
    printf("%s\n", text);
    nsaid++;
}

static void verify(struct model *m) {
    nsaid = 0;
    tri__wtable_verify(&m->t, say, NULL);
    CHECK_EQ(nsaid, 0);
    CHECK_EQ(m->t.n, m->n);
}

static struct model *begin(void) {
    memset(&model, 0, sizeof model);
    tri__fixalloc_init(&model.more, sizeof(struct wbucket), "lines", NULL, NULL);
    return &model;
}

/* As a put does it: a block, if the table wants one. */
static void add(struct model *m, size_t i) {
    size_t before = m->t.nbuckets;
    while (!tri__wtable_add(&m->t, &m->more, key_of(i), i) || tri__wtable_wants(&m->t)) {
        size_t bytes = tri__wtable_wants(&m->t);
        CHECK(bytes > 0 && bytes <= WTABLE_BLOCK_BYTES);
        void *spare = tri__wtable_give(&m->t, calloc(1, bytes), bytes);
        m->nblocks += spare == NULL;
        free(spare);
        if (tri__wtable_find(&m->t, key_of(i))) break;
    }
    CHECK_MSG(m->t.nbuckets - before <= 4, "one key made %zu buckets of %zu", m->t.nbuckets, before);
    m->in[i] = true;
    m->n++;
}

static void take_out(struct model *m, size_t i) {
    struct wentry *e = tri__wtable_find(&m->t, key_of(i));
    CHECK(e && e->value == i);
    tri__wtable_remove(&m->t, &m->more, e);
    m->in[i] = false;
    m->n--;
}

static bool shrink(struct model *m, size_t nbuckets) {
    size_t before = m->t.nbuckets;
    bool more = tri__wtable_contract(&m->t, &m->more, nbuckets);
    CHECK(before - m->t.nbuckets <= nbuckets);
    void *spare = tri__wtable_take_spare(&m->t);
    m->nblocks -= spare != NULL;
    free(spare);
    return more || spare;
}

static void end(struct model *m) {
    void *spare;
    while (m->t.nbuckets) tri__wtable_drop(&m->t, &m->more, 64);
    while ((spare = tri__wtable_take_spare(&m->t)) != NULL) {
        m->nblocks--;
        free(spare);
    }
    CHECK(m->t.root == NULL && m->t.nroom == 0 && m->t.height == 0 && m->t.n == 0);
    CHECK_EQ(m->nblocks, 0);
    CHECK_EQ(tri__fixalloc_in_use_bytes(&m->more), 0);
    tri__fixalloc_fini(&m->more);
}

TEST(wtable, keys_come_and_go) {
    struct model *m = begin();
    uint64_t rng = fixture_seed();
    for (size_t round = 0; round < 400000; round++) {
        /* Up to all of them, and down to next to none, twice. */
        size_t wave = round / 100000 % 2, i = fixture_random(&rng) % MAX_KEYS;
        CHECK_EQ(tri__wtable_find(&m->t, key_of(i)) != NULL, m->in[i]);
        if (m->in[i] && (wave || fixture_random(&rng) % 8 == 0))
            take_out(m, i);
        else if (!m->in[i] && (!wave || fixture_random(&rng) % 8 == 0))
            add(m, i);
        if (wave && round % 16 == 0) shrink(m, 8);
        if (round % 50000 == 49999) verify(m);
    }
    CHECK(m->t.height >= 1);
    for (size_t i = 0; i < MAX_KEYS; i++)
        if (m->in[i]) take_out(m, i);
    verify(m);
    while (shrink(m, 64)) {}
    CHECK_MSG(m->t.nroom <= 128, "%zu buckets are left of none", m->t.nroom);
    verify(m);
    end(m);
}

/* Slices of a look at all, between which the table grows and entries go: what stays is met. */
TEST(wtable, a_cursor_meets_what_stays) {
    struct model *m = begin();
    uint64_t rng = fixture_seed();
    static bool met[MAX_KEYS];
    for (size_t i = 0; i < MAX_KEYS / 4; i++) add(m, i);
    size_t fresh = MAX_KEYS / 4;
    for (int round = 0; round < 4; round++) { /* it grows, and in the last one most go */
        memset(met, 0, sizeof met);
        static bool stays[MAX_KEYS];
        memcpy(stays, m->in, sizeof stays);
        for (struct wcursor at = {0, 0}; at.bucket < m->t.nbuckets;) {
            struct wentry e[16];
            size_t n = tri__wtable_copy(&m->t, &at, e, 3 + fixture_random(&rng) % 13);
            for (size_t i = 0; i < n; i++) met[index_of(e[i].key)] = true;
            for (int i = 0; i < 12 && fresh < MAX_KEYS; i++) add(m, fresh++);
            for (int i = 0; i < (round < 3 ? 1 : 60); i++) {
                size_t gone = fixture_random(&rng) % MAX_KEYS;
                if (m->in[gone]) take_out(m, gone), stays[gone] = false;
            }
        }
        for (size_t i = 0; i < MAX_KEYS; i++) CHECK_MSG(!stays[i] || met[i], "key %zu was not met", i);
    }
    CHECK_EQ(fresh, MAX_KEYS);
    verify(m);
    end(m);
}

/* The order by reversed hashes, while the table grows and shrinks: what stays is met once. */
TEST(wtable, an_iteration_meets_what_stays_once) {
    struct model *m = begin();
    uint64_t rng = fixture_seed();
    static uint8_t met[MAX_KEYS];
    static bool stays[MAX_KEYS];
    for (int round = 0; round < 6; round++) {
        bool grows = round % 2 == 0;
        for (size_t i = 0; i < MAX_KEYS; i++)
            if (!m->in[i] && (grows ? i % 16 == 0 : i % 2 == 0)) add(m, i);
        memset(met, 0, sizeof met);
        memcpy(stays, m->in, sizeof stays);
        uint64_t position = 0;
        struct wentry e;
        for (int found; (found = tri__wtable_next(&m->t, &position, &e, 4)) >= 0;) {
            if (found) met[index_of(e.key)]++;
            for (int i = 0; i < 40; i++) {
                size_t k = fixture_random(&rng) % MAX_KEYS;
                if (grows == m->in[k] || (!grows && k % 32 == 0)) continue;
                stays[k] = false;
                if (grows)
                    add(m, k);
                else
                    take_out(m, k);
            }
            if (!grows) shrink(m, 32);
        }
        size_t nstay = 0;
        for (size_t i = 0; i < MAX_KEYS; i++) {
            nstay += stays[i];
            CHECK_MSG(met[i] <= 1 && (met[i] || !stays[i]), "key %zu was met %d times", i, met[i]);
        }
        CHECK(nstay > 0);
        verify(m);
        for (size_t i = 0; i < MAX_KEYS; i++)
            if (m->in[i]) take_out(m, i);
        while (shrink(m, 64)) {}
    }
    end(m);
}

/* Without blocks it goes on, slower; and catches up. */
TEST(wtable, does_without_memory) {
    struct model *m = begin();
    CHECK(!tri__wtable_add(&m->t, &m->more, key_of(0), 0));
    add(m, 0);
    for (size_t i = 1; i < 500; i++) {
        CHECK(tri__wtable_add(&m->t, &m->more, key_of(i), i));
        m->in[i] = true;
        m->n++;
    }
    CHECK_EQ(m->t.nroom, WTABLE_FIRST_BYTES / sizeof(struct wbucket));
    verify(m);
    for (size_t i = 500; i < 1500; i++) add(m, i);
    CHECK(m->t.nbuckets * 3 > m->t.n);
    verify(m);
    end(m);
}
