/*
 * Pages inside spans that hold no object (alloc/inside.c): that they go and how much, that what lives keeps its bytes,
 * that what is allocated there again is zero, and that spans may be claimed for it while threads allocate, cycles flip
 * and the world is stopped.
 */
#include "tests/fixture.h"
#include "tests/process.h"

/* Objects of 48 to 4,000 bytes, filled with their number. */
struct filled {
    uint64_t number, size_bytes;
};
static tri_type sized_type = {.struct_size = sizeof(tri_type),
                              .name = "sized",
                              .size = sizeof(struct filled),
                              .elem_size = 8,
                              .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED};

static struct filled *new_filled(tri_thread *thread, uint64_t number, size_t nwords) {
    struct filled *f = tri_new_n(thread, &sized_type, nwords);
    CHECK(f != NULL);
    uint64_t *words = (uint64_t *)(f + 1);
    for (size_t i = 0; i < nwords; i++) CHECK_EQ(words[i], 0);
    f->number = number;
    f->size_bytes = nwords * 8;
    for (size_t i = 0; i < nwords; i++) words[i] = number * 31 + i;
    return f;
}

static void check_filled(const struct filled *f) {
    const uint64_t *words = (const uint64_t *)(f + 1);
    for (size_t i = 0; i < f->size_bytes / 8; i++)
        CHECK_MSG(words[i] == f->number * 31 + i, "object %llu is damaged", (unsigned long long)f->number);
}

static size_t nwords_of(uint64_t *random) {
    return 4 + fixture_random(random) % 496;
}

static void check_all(void **array, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (array[i]) check_filled(array[i]);
}

TEST(inside, pages_of_a_sparse_heap_go_and_come_back_zero) {
    enum { NOBJECTS = TEST_IS_SLOW ? 2000 : 20000, ONE_IN = 20 };
    struct fixture f = fixture_open();
    uint64_t random = 7;
    TRI_LOCALS(f.thread, roots, 1);
    void **array = roots[0] = tri_new_n(f.thread, &array_type, NOBJECTS);
    for (size_t i = 0; i < NOBJECTS; i++)
        tri_store(f.thread, array, &array[i], new_filled(f.thread, i, nwords_of(&random)));
    for (size_t i = 0; i < NOBJECTS; i++)
        if (fixture_random(&random) % ONE_IN) tri_store(f.thread, array, &array[i], NULL);
    fixture_collect(&f);
    size_t spans = fixture_stats(f.heap).committed_bytes;
    size_t returned = tri__memory_return_inside(&f.heap->mem);
    CHECK_MSG(returned > spans / 4, "%zu of %zu bytes in spans", returned, spans);
    CHECK_EQ(tri__memory_return_inside(&f.heap->mem), 0); /* once */
    CHECK_EQ(fixture_stats(f.heap).committed_bytes, spans);
    check_all(array, NOBJECTS);
    CHECK_EQ(tri_verify(f.thread), 0);
    for (size_t i = 0; i < NOBJECTS; i++) /* new_filled sees that they are zero */
        if (!array[i]) tri_store(f.thread, array, &array[i], new_filled(f.thread, i, nwords_of(&random)));
    check_all(array, NOBJECTS);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* What a returned page holds is not resident. */
TEST(inside, resident_memory_falls) {
    enum { NOBJECTS = 30000, NWORDS = 254 }; /* 2 KiB each: a system page has two */
    if (TEST_IS_SLOW) return;
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    void **array = roots[0] = tri_new_n(f.thread, &array_type, NOBJECTS);
    for (size_t i = 0; i < NOBJECTS; i++) tri_store(f.thread, array, &array[i], new_filled(f.thread, i, NWORDS));
    for (size_t i = 0; i < NOBJECTS; i++)
        if (i % 8) tri_store(f.thread, array, &array[i], NULL); /* no span is empty, three of four pages are */
    fixture_collect(&f);
    size_t before = process_resident_bytes();
    size_t returned = tri_trim(f.heap);
    size_t after = process_resident_bytes();
    CHECK_MSG(returned >= (size_t)NOBJECTS * 2048 / 2, "%zu bytes", returned);
    CHECK_MSG(before - after >= returned / 10 * 8, "%zu of %zu bytes: resident %zu, then %zu", before - after, returned,
              before, after);
    check_all(array, NOBJECTS);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

struct mutating {
    tri_heap *heap;
    uint64_t seed;
    uint32_t stop; /* [atomic] */
};

static void *mutate(void *arg) {
    enum { NSLOTS = 500 };
    struct mutating *mu = arg;
    tri_thread *thread = fixture_attach(mu->heap);
    uint64_t random = mu->seed, number = mu->seed << 32;
    TRI_LOCALS(thread, roots, 1);
    void **array = roots[0] = tri_new_n(thread, &array_type, NSLOTS);
    while (!atomic_load_acquire(&mu->stop)) {
        size_t i = fixture_random(&random) % NSLOTS;
        if (array[i]) check_filled(array[i]);
        bool dies = fixture_random(&random) % 4 != 0;
        tri_store(thread, array, &array[i], dies ? NULL : new_filled(thread, number++, nwords_of(&random)));
        tri_poll(thread);
    }
    check_all(array, NSLOTS);
    TRI_POP(thread, roots);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(inside, spans_may_be_claimed_at_any_time) {
    enum { NTHREADS = 3, ROUNDS = TEST_IS_SLOW ? 30 : 200 };
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.min_heap_bytes = 1 << 20;
    struct fixture f = fixture_open_config(&config);
    struct mutating mutating[NTHREADS];
    pthread_t threads[NTHREADS];
    fixture_set(f.heap, "checkmark=1");
    fixture_set(f.heap, "verify=1");
    fixture_set(f.heap, "stress.delay=20");
    for (int i = 0; i < NTHREADS; i++) {
        mutating[i] = (struct mutating){f.heap, (uint64_t)i + 1, 0};
        CHECK_EQ(pthread_create(&threads[i], NULL, mutate, &mutating[i]), 0);
    }
    size_t returned = 0;
    for (int i = 0; i < ROUNDS; i++) {
        returned += tri_trim(f.heap);
        if (i % 10 == 0) fixture_collect(&f);
        if (i % 10 == 5) CHECK_EQ(tri_verify(f.thread), 0);
        tri_poll(f.thread);
    }
    for (int i = 0; i < NTHREADS; i++) atomic_store_release(&mutating[i].stop, 1);
    for (int i = 0; i < NTHREADS; i++) fixture_join(f.thread, threads[i]);
    CHECK(returned > 0);
    CHECK_EQ(f.heap->stress.reports, 0);
    fixture_set(f.heap, "stress.delay=0");
    fixture_close(&f);
}

/* ---- A list that others empty meanwhile ---- */

struct thief {
    struct memory *mem;
    struct central *central;
    struct span *chains[64];
    size_t nchains, ncalls;
    bool busy;
};

static bool has_partial(const struct central *central) {
    for (int parity = 0; parity < 2; parity++)
        for (int fill = 0; fill < NUM_FILLS; fill++)
            if (central->partial[parity][fill].head) return true;
    return false;
}

/* Between two batches: as a thread that allocates takes spans, only all of them. */
static void steal(void *context) {
    struct thief *t = context;
    uint32_t gen = atomic_load_acquire(&t->mem->gen);
    if (t->busy) return; /* called by what is called below */
    t->busy = true;
    CHECK_MSG(++t->ncalls < 1000, "a list that is empty is looked at for ever");
    while (has_partial(t->central) && t->nchains < TRI_COUNT(t->chains))
        t->chains[t->nchains++] = tri__central_exchange(t->mem, t->central, gen, NULL, NULL);
    t->busy = false;
}

TEST(inside, a_list_that_others_empty_ends) {
    enum { NOBJECTS = 8000, ONE_IN = 20 };
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.workers = 0; /* no thread but this one calls the hook */
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, kept, 1);
    void **array = kept[0] = tri_new_n(f.thread, &array_type, NOBJECTS / ONE_IN);
    for (int i = 0; i < NOBJECTS; i++) {
        void *bytes = tri_new_bytes(f.thread, 512);
        if (i % ONE_IN == 0) tri_store(f.thread, array, &array[i / ONE_IN], bytes);
    }
    fixture_collect(&f);
    struct memory *mem = &f.heap->mem;
    struct thief thief = {.mem = mem, .central = mem->centrals[LAYOUT_BYTES + size_class_of(512)]};
    struct alloc_hooks hooks = mem->hooks;
    CHECK(thief.central != NULL && has_partial(thief.central));
    mem->hooks.delay = steal;
    mem->hooks.context = &thief;
    tri__memory_return_inside(mem);
    mem->hooks = hooks;
    CHECK_MSG(thief.nchains > 1, "%zu chains were taken", thief.nchains);
    for (size_t i = 0; i < thief.nchains; i++) tri__central_put(mem, thief.central, thief.chains[i]);
    CHECK_EQ(tri_verify(f.thread), 0);
    TRI_POP(f.thread, kept);
    fixture_close(&f);
}
