/*
 * Objects by the batch, and bytes at an alignment.
 */
#include "tests/held.h"

/* ---- batches ----------------------------------------------------------------------------------------------------- */

/* All n of them, as a caller does it: what it has is in roots at each call. */
static void new_all(tri_thread *thread, tri_type *type, void **roots, size_t n) {
    for (size_t had = 0, more; had < n; had += more) {
        more = tri_new_batch(thread, type, roots + had, n - had);
        CHECK_MSG(more > 0 && more <= n - had, "%zu of %zu: %s", more, n - had, tri_last_error());
    }
}

static void check_zero(const void *p, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; i++) CHECK_EQ(((const char *)p)[i], 0);
}

TEST(batch, gives_distinct_zeroed_objects_that_live_by_their_roots) {
    struct big {
        void *first;
        char bytes[40000];
    };
    static const uint32_t first_slot = 0;
    static tri_type big_type = {.struct_size = sizeof(tri_type),
                                .name = "big",
                                .size = sizeof(struct big),
                                .pointers = {.noffsets = 1, .offsets = &first_slot}};
    const struct {
        tri_type *type;
        size_t size_bytes;
    } types[3] = {
        {&pair_type, sizeof(struct pair)}, {&owner_type, sizeof(struct owner)}, {&big_type, sizeof(struct big)}};
    enum { N = 3000 };
    for (int k = 0; k < 3; k++) {
        struct fixture f = open_heap("poison=1", NULL);
        size_t n = k == 2 ? 20 : N;
        TRI_LOCALS(f.thread, roots, N);
        for (int round = 0; round < 3; round++) {
            new_all(f.thread, types[k].type, roots, n);
            for (size_t i = 0; i < n; i++) check_zero(roots[i], types[k].size_bytes);
            for (size_t i = 0; i < n; i++) ((uint64_t *)roots[i])[k == 1 ? 0 : 2] = i; /* no slot of it */
            fixture_collect(&f);
            for (size_t i = 0; i < n; i++) CHECK_EQ(((uint64_t *)roots[i])[k == 1 ? 0 : 2], i);
            CHECK_EQ(tri_walk(f.thread, NULL, NULL), n);
            for (size_t i = round == 0 ? 0 : 1; i < n; i += 1 + (size_t)round) roots[i] = NULL; /* holes */
            fixture_collect(&f);
        }
        TRI_POP(f.thread, roots);
        close_heap(&f);
    }
}

/* 64 to 2,048 bytes: cold layouts lie in mixed spans, unless so many are asked for that the layout is not cold. */
TEST(batch, of_a_cold_type_shares_spans_and_a_long_one_does_not) {
    struct wide {
        void *first;
        uint64_t words[11];
    };
    static const uint32_t first_slot = 0;
    static tri_type wide[2];
    for (int i = 0; i < 2; i++)
        wide[i] = (tri_type){.struct_size = sizeof(tri_type),
                             .name = "wide",
                             .size = sizeof(struct wide),
                             .pointers = {.noffsets = 1, .offsets = &first_slot}};
    struct fixture f = open_heap(NULL, NULL);
    enum { N = 1000 };
    TRI_LOCALS(f.thread, roots, N);
    struct slot slot;
    CHECK(tri_new_batch(f.thread, &wide[0], roots, 10) == 10);
    for (int i = 0; i < 10; i++) {
        const tri_type *type;
        CHECK(space_find_slot(&f.heap->mem.space, (uintptr_t)roots[i], &slot));
        CHECK_EQ(shape_kind(slot.shape), PAGE_MIXED);
        CHECK(tri_find(f.thread, roots[i], &type) == roots[i] && type == &wide[0]);
    }
    fixture_collect(&f);
    new_all(f.thread, &wide[1], roots, N);
    for (int i = 0; i < N; i++) {
        CHECK(space_find_slot(&f.heap->mem.space, (uintptr_t)roots[i], &slot));
        CHECK_EQ(shape_kind(slot.shape), PAGE_SMALL);
    }
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

static uint32_t enough; /* [atomic] */

static void *collect_until_enough(void *arg) {
    struct fixture f = {arg, NULL};
    CHECK_EQ(tri_attach(f.heap, TRI_ATTACH_PRECISE, &f.thread), TRI_OK);
    while (!atomic_load_acquire(&enough)) fixture_collect(&f);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

/* One safepoint, before the first object: a step that is posted is answered by the call, with nothing in hand, and what
 * it returns lives without a root until the next safepoint. On a busy machine most steps are posted while the thread
 * naps, and answered for it: so there are as many cycles as it takes. */
TEST(batch, has_its_safepoint_first_and_no_other) {
    struct fixture f = open_heap("checkmark=1", NULL);
    enum { N = 300 };
    static void *out[N];
    TRI_LOCALS(f.thread, roots, 2);
    struct hold *hold = roots[0] = tri_new(f.thread, &hold_type);
    struct pair *list = roots[1] = tri_new(f.thread, &pair_type);
    tri_init(f.thread, hold, &hold->next, list);
    pthread_t collect;
    atomic_store_release(&go_on, 1);
    atomic_store_release(&enough, 0);
    CHECK_EQ(pthread_create(&collect, NULL, collect_until_enough, f.heap), 0);
    uint64_t answered = 0;
    for (int round = 0; round < 200 || answered < 3; round++) {
        struct mutator *m = mutator_of(f.thread);
        bool asked = atomic_load_acquire(&m->request_seq) != m->answer_seq;
        size_t n = tri_new_batch(f.thread, &pair_type, out, N);
        CHECK(n > 0);
        answered += asked;
        for (size_t i = 0; i < n; i++) { /* the list keeps the last batch */
            struct pair *p = out[i];
            CHECK(p->left == NULL && p->value == 0);
            p->value = i + 1;
            tri_init(f.thread, p, &p->left, i ? out[i - 1] : NULL);
        }
        tri_store(f.thread, list, &list->left, out[n - 1]);
        size_t length = 0;
        for (const struct pair *p = list->left; p; p = p->left) CHECK_EQ(p->value, n - length++);
        CHECK_EQ(length, n);
    }
    atomic_store_release(&enough, 1);
    fixture_join(f.thread, collect);
    fixture_collect(&f);
    size_t length = 0;
    for (const struct pair *p = list->left; p; p = p->left) length++;
    CHECK(length > 0);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(batch, refuses_what_it_cannot_do) {
    struct fixture f = open_heap(NULL, NULL);
    void *out[4];
    CHECK_EQ(tri_new_batch(f.thread, &pair_type, out, 0), 0);
    CHECK_EQ(tri_new_batch(f.thread, &pair_type, NULL, 4), 0);
    CHECK_MSG(strncmp(tri_last_error(), "tri_new_batch:", 14) == 0, "%s", tri_last_error());
    CHECK_EQ(tri_new_batch(f.thread, NULL, out, 4), 0);
    close_heap(&f);
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.hard_limit_bytes = 4 * MIB;
    f = fixture_open_config(&config);
    enum { FIT = 4 * MIB / 32, N = FIT + 1000 };
    TRI_LOCALS(f.thread, roots, N);
    size_t had = 0, more;
    while ((more = tri_new_batch(f.thread, &pair_type, roots + had, N - had)) > 0) had += more;
    CHECK_MSG(had > FIT * 9 / 10 && had <= FIT, "%zu of %d fit", had, FIT); /* what there was, and then none */
    CHECK_MSG(strstr(tri_last_error(), "no memory") != NULL, "%s", tri_last_error());
    for (size_t i = 0; i < had; i++) CHECK(is_alive(f.heap, hide(roots[i])));
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- alignment --------------------------------------------------------------------------------------------------- */

TEST(aligned, bytes_begin_at_a_multiple_and_keep_their_contents) {
    struct fixture f = open_heap("poison=1", NULL);
    enum { N = 4000 };
    TRI_LOCALS(f.thread, roots, N);
    static size_t sizes[N];
    static const size_t limits[] = {16, 200, 3000, 30000, 100000};
    uint64_t seed = fixture_seed();
    for (int round = 0; round < 2; round++) {
        for (int i = round; i < N; i += 1 + round) {
            size_t align = (size_t)1 << fixture_random(&seed) % 14, limit = limits[i % 50 ? i % 3 : 3 + i / 50 % 2];
            sizes[i] = 1 + fixture_random(&seed) % limit;
            unsigned char *p = roots[i] = tri_new_aligned(f.thread, align, sizes[i]);
            CHECK_MSG(p && (uintptr_t)p % align == 0, "%zu bytes at %zu: %p", sizes[i], align, (void *)p);
            size_t usable = tri_usable_size(f.heap, p);
            CHECK_MSG(usable >= sizes[i], "%zu bytes at %zu: %zu usable", sizes[i], align, usable);
            CHECK_MSG(usable <= align_up(sizes[i], align > 8 ? PAGE_BYTES : 128) + sizes[i] / 4,
                      "%zu bytes at %zu take %zu", sizes[i], align, usable);
            p[0] = p[sizes[i] - 1] = (unsigned char)i;
        }
        fixture_collect(&f);
        for (int i = 0; i < N; i++) {
            const unsigned char *p = roots[i];
            CHECK(p[0] == (unsigned char)i && p[sizes[i] - 1] == (unsigned char)i);
        }
    }
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(aligned, other_alignments_are_refused) {
    struct fixture f = open_heap(NULL, NULL);
    static const size_t wrong[] = {0, 3, 24, 8193, 16384, SIZE_MAX};
    for (size_t i = 0; i < TRI_COUNT(wrong); i++) {
        CHECK(tri_new_aligned(f.thread, wrong[i], 100) == NULL);
        CHECK_MSG(strncmp(tri_last_error(), "tri_new_aligned:", 16) == 0, "%s", tri_last_error());
    }
    CHECK(tri_new_aligned(f.thread, 8192, SIZE_MAX) == NULL);
    close_heap(&f);
}

/* ---- several threads, with the switches that look for what is lost ----------------------------------------------- */

enum { NTHREADS = 3, CELLS = 64, BATCH = 50 };

struct maker {
    tri_heap *heap;
    uint64_t seed;
    uint32_t rounds, done;
};

/* A chain of a batch's objects, numbered, with aligned bytes at its end that hold its length. */
static struct pair *make_chain(tri_thread *t, void **cells, size_t at, uint64_t *seed) {
    void *out[BATCH];
    size_t n = tri_new_batch(t, &pair_type, out, 1 + fixture_random(seed) % BATCH);
    CHECK_MSG(n > 0, "%s", tri_last_error());
    for (size_t i = 0; i < n; i++) {
        struct pair *p = out[i];
        CHECK(p->left == NULL && p->right == NULL && p->value == 0);
        p->value = i + 1;
        if (i) tri_init(t, p, &p->left, out[i - 1]);
    }
    tri_store(t, cells, &cells[at], out[n - 1]); /* before the next safepoint */
    size_t align = (size_t)16 << fixture_random(seed) % 6;
    uint64_t *length = tri_new_aligned(t, align, 8 + fixture_random(seed) % 600);
    CHECK((uintptr_t)length % align == 0);
    *length = n;
    struct pair *head = cells[at];
    tri_store(t, head, &head->right, length);
    return head;
}

static void *make_chains(void *arg) {
    struct maker *mk = arg;
    tri_thread *t = fixture_attach(mk->heap);
    TRI_LOCALS(t, roots, 1);
    void **cells = roots[0] = tri_new_n(t, &array_type, CELLS);
    for (uint32_t i = 0; i < mk->rounds; i++) {
        (void)make_chain(t, cells, fixture_random(&mk->seed) % CELLS, &mk->seed);
        const struct pair *head = cells[fixture_random(&mk->seed) % CELLS];
        if (!head) continue;
        size_t n = 0;
        for (const struct pair *p = head; p; p = p->left, n++) CHECK_EQ(p->value, head->value - n);
        CHECK_EQ(*(const uint64_t *)(const void *)head->right, n);
    }
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    atomic_store_release(&mk->done, 1);
    return NULL;
}

TEST(batch, threads_lose_nothing_while_cycles_run) {
    static const char *const settings[] = {"stress.collect=0", "stress.collect=30", "stress.slow=1", "stress.delay=20"};
    for (size_t k = 0; k < (TRI_CHECKS >= 1 ? TRI_COUNT(settings) : 1); k++) {
        struct fixture f = open_heap(TRI_CHECKS >= 1 ? settings[k] : NULL, TRI_CHECKS >= 1 ? "poison=1" : NULL);
        if (TRI_CHECKS >= 1) fixture_set(f.heap, "checkmark=1");
        pthread_t threads[NTHREADS];
        struct maker makers[NTHREADS];
        for (unsigned i = 0; i < NTHREADS; i++) {
            makers[i] = (struct maker){f.heap, fixture_seed() + i, k == 0 && !TEST_IS_SLOW ? 20000 : 1000, 0};
            CHECK_EQ(pthread_create(&threads[i], NULL, make_chains, &makers[i]), 0);
        }
        for (int i = 0; i < NTHREADS; i++) {
            do fixture_collect(&f);
            while (!atomic_load_acquire(&makers[i].done));
            fixture_join(f.thread, threads[i]);
        }
        if (TRI_CHECKS >= 1) fixture_set(f.heap, "stress.delay=0");
        close_heap(&f);
    }
}
