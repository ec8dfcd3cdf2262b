/*
 * test_free.c: tri_free, collected objects that are freed by hand: of every kind and wherever their span is, what is
 * refused, the wait while a cycle marks, and all of it beside other threads and cycles.
 */
#include "tests/fixture.h"

#include <pthread.h>
#include <string.h>

TEST(free, frees_objects_of_every_kind_and_no_other_memory) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    for (int round = 0; round < 3; round++) {
        struct pair *small = tri_new(f.thread, &pair_type);
        void *large = tri_new_bytes(f.thread, 300000), *tiny = tri_new_bytes(f.thread, 5);
        void *array = tri_new_n(f.thread, &array_type, 100);
        roots[0] = tri_new(f.thread, &pair_type);
        if (round == 1) { /* in spans that lie in a list */
            roots[1] = small, roots[2] = array;
            void *more[] = {large, tiny};
            for (int i = 0; i < 2; i++) (void)more[i];
            CHECK_EQ(tri_free(f.thread, large), TRI_OK);
            fixture_collect(&f);
            large = NULL, tiny = NULL;
        }
        size_t used = atomic_load_relaxed(&f.heap->mem.used_pages), bytes = atomic_load_relaxed(&f.heap->heap_bytes);
        void *objects[] = {small, array, tiny, large};
        for (size_t i = 0; i < TRI_COUNT(objects); i++) {
            if (!objects[i]) continue;
            size_t size = tri_usable_size(f.heap, objects[i]);
            CHECK_EQ(tri_free(f.thread, (char *)objects[i] + (size > 8 ? 8 : 1)), TRI_EINVAL);
            CHECK(is_alive(f.heap, hide(objects[i])));
            CHECK_EQ(tri_free(f.thread, objects[i]), TRI_OK);
            CHECK(!is_alive(f.heap, hide(objects[i])));
            CHECK_EQ(tri_free(f.thread, objects[i]), TRI_EINVAL); /* twice */
            if (size >= 16) CHECK(atomic_load_relaxed(&f.heap->heap_bytes) <= bytes - size);
        }
        if (large) CHECK(atomic_load_relaxed(&f.heap->mem.used_pages) < used);
        CHECK_EQ(tri_verify(f.thread), 0);
        CHECK(is_alive(f.heap, hide(roots[0])));
        roots[1] = roots[2] = NULL;
        for (int i = 0; i < 1000; i++) { /* no pattern in what is used again */
            struct pair *next = tri_new(f.thread, &pair_type);
            CHECK(next->left == NULL && next->right == NULL && next->value == 0);
        }
    }
    int local;
    struct pair *last = tri_new(f.thread, &pair_type); /* what comes after it in its hole is no object */
    CHECK_EQ(tri_free(f.thread, (char *)last + tri_usable_size(f.heap, last)), TRI_EINVAL);
    void *block = tri_manual_alloc(f.heap, 64);
    CHECK_EQ(tri_free(f.thread, &local), TRI_EINVAL);
    CHECK_EQ(tri_free(f.thread, NULL), TRI_EINVAL);
    CHECK_EQ(tri_free(f.thread, block), TRI_EINVAL);
    CHECK(strstr(tri_last_error(), "tri_manual_free") != NULL);
    tri_manual_free(f.heap, block);
    TRI_POP(f.thread, roots);
    for (int i = 0; i < 3; i++) fixture_collect(&f);
    fixture_close(&f);
}

/* A use after tri_free is named: the slot holds the pattern of its type. */
TEST(free, a_store_into_what_tri_free_freed_is_reported) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    struct pair *pair = tri_new(f.thread, &pair_type), *owner = roots[0] = tri_new(f.thread, &pair_type);
    CHECK_EQ(tri_free(f.thread, pair), TRI_OK);
    CHECK_EQ(tri_heap_set(f.heap, "stress.slow=1"), TRI_OK); /* stores take the path that looks */
    fixture_collect(&f);
    CHECK_EQ(fixture_take_reports(), 0);
    tri_store(f.thread, owner, &owner->left, pair);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK(strstr(fixture_report, "names freed memory, once of type struct pair") != NULL);
    tri_store(f.thread, owner, &owner->left, NULL);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

struct other {
    tri_heap *heap;
    void *objects[64]; /* [atomic] */
    uint32_t n, stop;  /* [atomic] */
    unsigned after_ms;
};

static void *churn(void *arg) {
    struct other *o = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(o->heap, 0, &thread), TRI_OK);
    TRI_LOCALS(thread, roots, 64);
    for (unsigned i = 0; !atomic_load_acquire(&o->stop); i++) {
        struct pair *p = tri_new(thread, &pair_type);
        CHECK(p && p->left == NULL && p->right == NULL && p->value == 0);
        p->value = i;
        roots[i % 64] = p;
        if (i % 100 == 0) tri_new_bytes(thread, 40000 + i % 7 * 10000);
        tri_poll(thread);
    }
    TRI_POP(thread, roots);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* Objects freed by hand while another thread allocates and cycles run: nothing is lost, no free waits for ever. */
static void *never_poll(void *arg) { /* until it is told to stop, or for a while */
    struct other *o = arg;
    unsigned left_ms = o->after_ms ? o->after_ms : UINT32_MAX;
    tri_thread *thread;
    CHECK_EQ(tri_attach(o->heap, 0, &thread), TRI_OK);
    atomic_store_release(&o->n, 1);
    for (; !atomic_load_acquire(&o->stop) && left_ms > 0; left_ms--) fixture_sleep_ms(1);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* R13: a thread that is armed may have the object in its buffer. */
TEST(free, waits_while_a_cycle_marks_but_no_longer_than_the_limit) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.wait_limit_ms = 60;
    struct fixture f = fixture_open_config(&config);
    static struct other o;
    o.heap = f.heap;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, never_poll, &o), 0);
    while (!atomic_load_acquire(&o.n)) fixture_sleep_ms(1);
    TRI_LOCALS(f.thread, roots, 2);
    roots[0] = tri_new(f.thread, &pair_type);
    roots[1] = tri_new_bytes(f.thread, 100000);
    tri__cycle_request(f.heap, "test"); /* it waits for the other thread in its first step */
    while (heap_phase(f.heap) == PHASE_IDLE) fixture_sleep_ms(1);
    CHECK_EQ(tri_free(f.thread, roots[0]), TRI_ETIMEDOUT);
    CHECK_EQ(tri_free(f.thread, roots[1]), TRI_ETIMEDOUT);
    CHECK_EQ(tri_free(f.thread, (char *)roots[1] + 16), TRI_EINVAL); /* nothing to wait for */
    CHECK(is_alive(f.heap, hide(roots[0])) && is_alive(f.heap, hide(roots[1])));
    atomic_store_release(&o.stop, 1);
    int err;
    do err = tri_free(f.thread, roots[0]);
    while (err == TRI_ETIMEDOUT);
    CHECK_EQ(err, TRI_OK);
    CHECK_EQ(tri_free(f.thread, roots[1]), TRI_OK);
    pthread_join(thread, NULL);
    f.heap->config.wait_limit_ms = 120000; /* no cycle runs; what follows waits on a busy machine, too */
    roots[0] = roots[1] = NULL;
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* What the host holds in a variable alone survives the cycle that tri_free waits for. */
TEST(free, keeps_its_object_while_it_waits) {
    struct fixture f = fixture_open();
    static struct other o;
    o.heap = f.heap;
    o.after_ms = 100;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, never_poll, &o), 0);
    while (!atomic_load_acquire(&o.n)) fixture_sleep_ms(1);
    struct pair *pair = tri_new(f.thread, &pair_type);
    tri__cycle_request(f.heap, "test");
    while (heap_phase(f.heap) == PHASE_IDLE) fixture_sleep_ms(1);
    CHECK_EQ(tri_free(f.thread, pair), TRI_OK);
    while (heap_phase(f.heap) != PHASE_IDLE || atomic_load_acquire(&f.heap->stats.cycles) == 0) {
        tri_poll(f.thread); /* the one that ran ends, and is counted a moment after its last phase */
        fixture_sleep_ms(1);
    }
    CHECK_EQ(atomic_load_relaxed(&f.heap->stats.cycles), 1);
    pthread_join(thread, NULL);
    fixture_close(&f);
}

TEST(free, beside_cycles_and_other_threads) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "checkmark=1"), TRI_OK);
    static struct other o;
    o.heap = f.heap;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, churn, &o), 0);
    TRI_LOCALS(f.thread, roots, 40);
    uint64_t random = fixture_seed();
    unsigned freed = 0;
    for (unsigned i = 0; i < (TEST_IS_SLOW ? 3000u : 20000u); i++) {
        size_t k = (size_t)(fixture_random(&random) % 40);
        if (roots[k]) {
            void *obj = roots[k];
            roots[k] = NULL;
            CHECK_EQ(tri_free(f.thread, obj), TRI_OK);
            freed++;
        } else {
            roots[k] = k % 10 == 0 ? tri_new_bytes(f.thread, 50000) : tri_new(f.thread, &pair_type);
        }
        if (i % 500 == 0) tri__cycle_request(f.heap, "test");
    }
    CHECK(freed > 1000);
    atomic_store_release(&o.stop, 1);
    while (pthread_tryjoin_np(thread, NULL) != 0) {
        tri_poll(f.thread);
        fixture_sleep_ms(1);
    }
    TRI_POP(f.thread, roots);
    fixture_collect(&f);
    fixture_collect(&f);
    fixture_close(&f);
}

/* ---- what names it weakly ---------------------------------------------------------------------------------------- */

struct weak_holder {
    void *to;
};
TRI_WEAK_TYPE(weak_holder_type, struct weak_holder, to);

static void grow(struct fixture *f, void **root, int n) {
    for (int i = 0; i < n; i++) {
        struct pair *p = tri_new(f->thread, &pair_type);
        tri_init(f->thread, p, &p->left, *root);
        *root = p;
    }
}

/* Every object with weak slots lies between the pages that were noted. */
static void *noted(struct fixture *f, void *holder) {
    const struct death *d = &f->heap->death;
    size_t page = space_span_of(&f->heap->mem.space, (uintptr_t)holder)->first_page;
    CHECK(page >= atomic_load_relaxed(&d->weak_low) && page < atomic_load_relaxed(&d->weak_end));
    return holder;
}

/* No pages but those between the first and the last that had an object with weak slots. */
TEST(free, looks_for_weak_names_where_there_were_objects_with_weak_slots) {
    enum { NOTHERS = 100000, NHOLDERS = 4000 };
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3 + NHOLDERS);
    grow(&f, &roots[0], NOTHERS);
    roots[1] = noted(&f, tri_new(f.thread, &weak_holder_type));
    grow(&f, &roots[0], NOTHERS);
#if TRI_CHECKS >= 1
    size_t expected = space_span_of(&f.heap->mem.space, (uintptr_t)roots[1])->nslots + 1;
    (void)tri__units_take_sum();
    CHECK_EQ(tri_free(f.thread, tri_new(f.thread, &pair_type)), TRI_OK);
    CHECK_EQ(tri__units_take_sum(), expected); /* of the one span: its page and its slots */
#endif
    for (size_t n = 0; n < NHOLDERS / 2; n++) roots[3 + n] = noted(&f, tri_new(f.thread, &weak_holder_type));
    grow(&f, &roots[0], NOTHERS);
    for (size_t n = NHOLDERS / 2; n < NHOLDERS;)
        n += tri_new_batch(f.thread, &weak_holder_type, roots + 3 + n, NHOLDERS - n);
    roots[2] = tri_new(f.thread, &pair_type);
    for (size_t i = 0; i < NHOLDERS; i++)
        tri_store(f.thread, noted(&f, roots[3 + i]), &((struct weak_holder *)roots[3 + i])->to, roots[2]);
    tri_store(f.thread, roots[1], &((struct weak_holder *)roots[1])->to, roots[2]);
    void *target = roots[2];
    roots[2] = NULL;
    CHECK_EQ(tri_free(f.thread, target), TRI_OK);
    CHECK(((struct weak_holder *)roots[1])->to == NULL);
    for (size_t i = 0; i < NHOLDERS; i++) CHECK(((struct weak_holder *)roots[3 + i])->to == NULL);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

struct passer {
    tri_heap *heap;
    uint32_t *stop; /* [atomic] */
};

/* Takes a hole of slots that have weak ones, uses some, and gives it back. */
static void *pass_holes_on(void *arg) {
    struct passer *p = arg;
    while (!atomic_load_acquire(p->stop)) { /* pairs with the test's end */
        tri_thread *thread = fixture_attach(p->heap);
        for (int i = 0; i < 3; i++) CHECK(tri_new(thread, &weak_holder_type) != NULL);
        CHECK_EQ(tri_detach(thread), TRI_OK);
    }
    return NULL;
}

/* Who looks for names sees empty slots in holes that go from thread to thread, each of which zeroes them: for
 * ThreadSanitizer. */
TEST(free, looks_into_holes_that_change_hands) {
    enum { PASSERS = 2, ROUNDS = 3000 };
    struct fixture f = fixture_open();
    uint32_t stop = 0;
    struct passer passer = {f.heap, &stop};
    pthread_t passers[PASSERS];
    for (int i = 0; i < PASSERS; i++) CHECK_EQ(pthread_create(&passers[i], NULL, pass_holes_on, &passer), 0);
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 500 == 0) fixture_collect(&f); /* and spans are swept, and dirty */
        CHECK_EQ(tri_free(f.thread, tri_new(f.thread, &pair_type)), TRI_OK);
    }
    atomic_store_release(&stop, 1);
    for (int i = 0; i < PASSERS; i++) fixture_join(f.thread, passers[i]);
    fixture_close(&f);
}
