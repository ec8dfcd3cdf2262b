/*
 * test_death.c: cleanups: each once, in order, on the thread that asks; tri_free; the heap's end; and, with finalizer
 * queues, threads whose objects die beside cycles of every mode. Finalizer queues by themselves: test_finq.c.
 */
#include "tests/cleanups.h"
#include "tests/fixture.h"

#include <pthread.h>
#include <string.h>

/* ---- cleanups -------------------------------------------------------------------------------------------------- */

static pthread_t ran_on;
static void add_and_note(void *arg) {
    add_to_sum(arg);
    ran_on = pthread_self();
}

TEST(death, a_cleanup_runs_once_on_the_thread_that_asks) {
    struct fixture f = fixture_open();
    forget_calls();
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new(f.thread, &leaf_type);
    uintptr_t leaf = hide(roots[0]);
    CHECK_EQ(tri_cleanup_add(f.thread, reveal(leaf), add_and_note, arg_of(5)), TRI_OK);
    CHECK_EQ(fixture_stats(f.heap).watched_objects, 1);
    fixture_collect(&f);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), 0);
    CHECK_EQ(tri_verify(f.thread), 0);
    roots[0] = NULL;
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, leaf));
    CHECK_EQ(ncalls, 0);
    CHECK_EQ(fixture_stats(f.heap).cleanups_due, 1);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), 1);
    CHECK(pthread_equal(ran_on, pthread_self()));
    CHECK(sum == 5 && ncalls == 1);
    fixture_collect(&f);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), 0);
    CHECK_EQ(fixture_stats(f.heap).cleanups_run, 1);
    CHECK_EQ(fixture_stats(f.heap).watched_objects, 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static void detach_thread(void *arg) {
    add_to_sum(NULL);
    CHECK_EQ(tri_detach(tri_self(arg)), TRI_OK);
}

static void detach_and_end(void *arg) {
    detach_thread(arg);
    CHECK_EQ(tri_heap_destroy(arg), TRI_OK);
}

static void attach_anew(void *arg) {
    tri_thread *thread;
    detach_thread(arg);
    CHECK_EQ(tri_attach(arg, 0, &thread), TRI_OK);
}

/* Three cleanups of one object, the first of which is fn. */
static struct fixture three_are_due(void (*fn)(void *)) {
    struct fixture f = fixture_open();
    forget_calls();
    uintptr_t leaf = hide(tri_new(f.thread, &leaf_type));
    CHECK_EQ(tri_cleanup_add(f.thread, reveal(leaf), fn, f.heap), TRI_OK);
    CHECK_EQ(tri_cleanup_add(f.thread, reveal(leaf), add_to_sum, arg_of(1)), TRI_OK);
    CHECK_EQ(tri_cleanup_add(f.thread, reveal(leaf), add_to_sum, arg_of(2)), TRI_OK);
    fixture_collect(&f);
    CHECK_EQ(fixture_stats(f.heap).cleanups_due, 3);
    return f;
}

TEST(death, a_cleanup_may_detach_its_thread_and_end_the_heap) {
    struct fixture f = three_are_due(detach_thread);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), 1);
    f.thread = fixture_attach(f.heap);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), 2);
    CHECK(sum == 3 && ncalls == 3);
    fixture_close(&f);
    f = three_are_due(detach_and_end);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), 1);
    CHECK_EQ(ncalls, 1);
    f = three_are_due(attach_anew);
    tri_cleanup_run(f.thread, SIZE_MAX);
    CHECK_EQ(mutator_of(tri_self(f.heap))->ncleaning, 0);
    f.thread = tri_self(f.heap);
    fixture_close(&f);
}

static uint64_t in_order;
static void append_digit(void *arg) {
    in_order = in_order * 10 + (uint64_t)(uintptr_t)arg;
}

TEST(death, an_objects_cleanups_run_in_their_order_and_can_be_taken_back) {
    struct fixture f = fixture_open();
    in_order = 0;
    TRI_LOCALS(f.thread, roots, 1);
    struct leaf *leaf = roots[0] = tri_new(f.thread, &leaf_type);
    for (uint64_t i = 1; i <= 5; i++) CHECK_EQ(tri_cleanup_add(f.thread, &leaf->c, append_digit, arg_of(i)), TRI_OK);
    CHECK_EQ(tri_cleanup_remove(f.thread, leaf, append_digit, arg_of(3)), TRI_OK);
    CHECK_EQ(tri_cleanup_remove(f.thread, leaf, append_digit, arg_of(3)), TRI_EINVAL);
    CHECK_EQ(tri_cleanup_remove(f.thread, leaf, add_to_sum, arg_of(1)), TRI_EINVAL);
    CHECK_EQ(tri_cleanup_remove(f.thread, leaf, append_digit, arg_of(1)), TRI_OK); /* the first */
    CHECK_EQ(tri_cleanup_remove(f.thread, leaf, append_digit, arg_of(5)), TRI_OK); /* the last */
    CHECK_EQ(tri_verify(f.thread), 0);
    CHECK_EQ(tri_cleanup_add(f.thread, leaf, append_digit, arg_of(6)), TRI_OK);
    CHECK_EQ(tri_cleanup_add(f.thread, leaf, append_digit, arg_of(7)), TRI_OK);
    roots[0] = NULL;
    fixture_collect(&f);
    CHECK_EQ(tri_cleanup_run(f.thread, 2), 2);
    CHECK_EQ(in_order, 24);
    CHECK_EQ(tri_cleanup_run(f.thread, 100), 2);
    CHECK_EQ(in_order, 2467);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(death, refuses_what_has_no_death_of_its_own) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | TRI_HEAP_TINY);
    TRI_LOCALS(f.thread, roots, 2);
    roots[0] = tri_new_bytes(f.thread, 3);
    void *block = tri_manual_alloc(f.heap, 64);
    int local = 0;
    tri_finq *q = tri_finq_new(f.thread);
    CHECK_EQ(tri_cleanup_add(f.thread, roots[0], add_to_sum, NULL), TRI_EINVAL);
    CHECK(strstr(tri_last_error(), "tiny=on"));
    CHECK_EQ(tri_cleanup_add(f.thread, block, add_to_sum, NULL), TRI_EINVAL);
    CHECK_EQ(tri_cleanup_add(f.thread, &local, add_to_sum, NULL), TRI_EINVAL);
    CHECK_EQ(tri_cleanup_add(f.thread, NULL, add_to_sum, NULL), TRI_EINVAL);
    CHECK_EQ(tri_cleanup_remove(f.thread, NULL, add_to_sum, NULL), TRI_EINVAL);
    roots[1] = tri_new(f.thread, &leaf_type);
    CHECK_EQ(tri_cleanup_add(f.thread, roots[1], NULL, NULL), TRI_EINVAL);
    CHECK_EQ(tri_cleanup_remove(f.thread, roots[1], add_to_sum, NULL), TRI_EINVAL);
    CHECK_EQ(tri_finq_watch(f.thread, NULL, roots[1]), TRI_EINVAL);
    CHECK_EQ(tri_finq_watch(f.thread, q, &local), TRI_EINVAL);
    CHECK(tri_finq_poll(f.thread, NULL) == NULL);
    CHECK(tri_finq_poll(f.thread, q) == NULL);
    CHECK_EQ(tri_finq_watch(f.thread, q, roots[1]), TRI_OK);
    CHECK_EQ(tri_finq_watch(f.thread, q, roots[1]), TRI_ESTATE);
    CHECK_EQ(tri_finq_watch(f.thread, tri_finq_new(f.thread), roots[1]), TRI_ESTATE);
    tri_manual_free(f.heap, block);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* Every third object is kept; the table grows while they are added. */
TEST(death, of_many_objects) {
    struct fixture f = fixture_open();
    const size_t n = TEST_IS_SLOW ? 20000 : 200000;
    forget_calls();
    TRI_LOCALS(f.thread, roots, 1);
    void **kept = roots[0] = tri_new_n(f.thread, &array_type, n / 3 + 1);
    uint64_t dead = 0;
    for (size_t i = 0; i < n; i++) {
        struct leaf *leaf = tri_new(f.thread, &leaf_type);
        CHECK_EQ(tri_cleanup_add(f.thread, leaf, add_to_sum, arg_of(i)), TRI_OK);
        if (i % 3 == 0)
            tri_store(f.thread, kept, &kept[i / 3], leaf);
        else
            dead += i;
    }
    CHECK_EQ(tri_verify(f.thread), 0);
    fixture_collect(&f);
    CHECK_EQ(tri_verify(f.thread), 0);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), n - (n + 2) / 3);
    CHECK_EQ(sum, dead);
    roots[0] = NULL;
    fixture_collect(&f);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), (n + 2) / 3);
    CHECK_EQ(sum, (uint64_t)n * (n - 1) / 2);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(death, by_hand_runs_cleanups_and_ends_a_watch) {
    struct fixture f = fixture_open();
    forget_calls();
    TRI_LOCALS(f.thread, roots, 1);
    tri_finq *q = tri_finq_new(f.thread);
    struct leaf *leaf = roots[0] = tri_new(f.thread, &leaf_type);
    CHECK_EQ(tri_cleanup_add(f.thread, leaf, add_to_sum, arg_of(1)), TRI_OK);
    CHECK_EQ(tri_finq_watch(f.thread, q, leaf), TRI_OK);
    CHECK_EQ(tri_cleanup_add(f.thread, leaf, add_to_sum, arg_of(2)), TRI_OK);
    roots[0] = NULL;
    CHECK_EQ(tri_free(f.thread, leaf), TRI_OK);
    struct leaf *next = roots[0] = tri_new(f.thread, &leaf_type); /* may well have its place */
    CHECK_EQ(tri_finq_watch(f.thread, q, next), TRI_OK);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), 2);
    CHECK_EQ(sum, 3);
    fixture_collect(&f);
    CHECK(tri_finq_poll(f.thread, q) == NULL);
    CHECK_EQ(fixture_stats(f.heap).watched_objects, 1);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static void end_heap(uint32_t flags, uint64_t expected) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | flags);
    forget_calls();
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new(f.thread, &leaf_type);
    CHECK_EQ(tri_cleanup_add(f.thread, roots[0], add_to_sum, arg_of(1)), TRI_OK);
    CHECK_EQ(tri_cleanup_add(f.thread, tri_new(f.thread, &leaf_type), add_to_sum, arg_of(10)), TRI_OK);
    CHECK_EQ(tri_finq_watch(f.thread, tri_finq_new(f.thread), roots[0]), TRI_OK);
    fixture_collect(&f);
    CHECK_EQ(ncalls, 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
    CHECK_EQ(sum, expected);
}

TEST(death, of_the_heap_runs_cleanups_or_drops_them) {
    end_heap(0, 0);
    end_heap(TRI_HEAP_RUN_CLEANUPS, 11);
}

/* ---- beside cycles ---------------------------------------------------------------------------------------------- */

enum { DYERS = 4 };
struct dyer_state {
    tri_heap *heap;
    tri_finq *queue;
    uint32_t stop;
    uint64_t ncleanups, nwatched, ncame;
    uint32_t nbusy; /* threads that have watched an object and added a cleanup [atomic] */
};

struct guarded {
    struct guarded *next, *self;
    uint64_t tag, length;
};
TRI_TYPE(guarded_type, struct guarded, next, self);
enum { TAG = 0x7a6 };

/* Makes short chains whose heads are watched, drops them, drains whatever is due. */
static void *dyer_main(void *arg) {
    struct dyer_state *s = arg;
    tri_thread *t = fixture_attach(s->heap);
    uint64_t rng = (uint64_t)(uintptr_t)&t | 1, nwatched = 0, ncleanups = 0, ncame = 0;
    bool is_busy = false;
    TRI_LOCALS(t, roots, 4);
    while (!atomic_load_acquire(&s->stop) || nwatched == 0 || ncleanups == 0) {
        if (atomic_load_relaxed(&s->heap->death.watches.n) > 10000 &&
            !atomic_load_acquire(&s->stop)) { /* as many as a cycle looks at in no time */
            tri_poll(t);
            sched_yield();
            continue;
        }
        struct guarded *g = roots[fixture_random(&rng) % 3] = tri_new(t, &guarded_type);
        g->tag = TAG;
        tri_store(t, g, &g->self, g);
        struct guarded *next = roots[fixture_random(&rng) % 3];
        if (next && next->length < 6) {
            tri_store(t, g, &g->next, next);
            g->length = next->length + 1;
        }
        if (fixture_random(&rng) % 4 == 0) {
            CHECK_EQ(tri_cleanup_add(t, g, add_to_sum, arg_of(1)), TRI_OK);
            ncleanups++;
            if (fixture_random(&rng) % 8 == 0) {
                CHECK_EQ(tri_cleanup_remove(t, g, add_to_sum, arg_of(1)), TRI_OK);
                ncleanups--;
            }
        }
        if (fixture_random(&rng) % 4 == 0 && tri_finq_watch(t, s->queue, g) == TRI_OK) nwatched++;
        if (!is_busy && nwatched > 0 && ncleanups > 0) {
            is_busy = true;
            atomic_add_relaxed(&s->nbusy, 1); /* the test's loop looks at it */
        }
        if (fixture_random(&rng) % 4 == 0) (void)tri_cleanup_run(t, 3);
        struct guarded *came = fixture_random(&rng) % 2 ? roots[3] = tri_finq_poll(t, s->queue) : NULL;
        if (came) {
            ncame++;
            int steps = 0;
            for (struct guarded *w = came; w && steps < 10; w = tri_load(&w->next), steps++)
                CHECK_MSG(w->tag == TAG && tri_load(&w->self) == w, "lost object %p", (void *)w);
            if (fixture_random(&rng) % 8 == 0) roots[0] = came;
        }
        if (fixture_random(&rng) % 64 == 0) (void)tri_new_bytes(t, 300);
    }
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    atomic_add_relaxed(&s->ncleanups, ncleanups);
    atomic_add_relaxed(&s->nwatched, nwatched);
    atomic_add_relaxed(&s->ncame, ncame);
    return NULL;
}

static void run_dyers(const char *setting1, const char *setting2, int ncycles) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.min_heap_bytes = 1 << 20;
    struct fixture f = fixture_open_config(&config);
    if (setting1) fixture_set(f.heap, setting1);
    if (setting2) fixture_set(f.heap, setting2);
    forget_calls();
    struct dyer_state s = {.heap = f.heap, .queue = tri_finq_new(f.thread)};
    pthread_t threads[DYERS];
    for (int i = 0; i < DYERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, dyer_main, &s), 0);
    for (int i = 0; i < ncycles || atomic_load_relaxed(&s.nbusy) < DYERS; i++) {
        fixture_collect(&f);
        CHECK_MSG(i < 100000, "of %d threads %u have objects to watch", DYERS, atomic_load_relaxed(&s.nbusy));
    }
    atomic_store_release(&s.stop, 1);
    for (int i = 0; i < DYERS; i++) fixture_join(f.thread, threads[i]);
    for (int i = 0; i < 3; i++) {
        fixture_collect(&f);
        while (tri_finq_poll(f.thread, s.queue)) s.ncame++;
        tri_cleanup_run(f.thread, SIZE_MAX);
    }
    CHECK_MSG(s.ncame == s.nwatched && s.nwatched > 0, "%llu objects were watched, %llu came back",
              (unsigned long long)s.nwatched, (unsigned long long)s.ncame);
    CHECK_MSG(ncalls == s.ncleanups && ncalls > 0, "%llu cleanups were added, %llu ran",
              (unsigned long long)s.ncleanups, (unsigned long long)ncalls);
    CHECK_EQ(fixture_stats(f.heap).watched_objects, 0);
    fixture_close(&f);
}

TEST(death, beside_cycles) {
    run_dyers("poison=1", NULL, TEST_IS_SLOW ? 8 : 25);
}

TEST(death, beside_cycles_with_delays) {
    run_dyers("poison=1", "stress.delay=30", TEST_IS_SLOW ? 6 : 15);
}

TEST(death, beside_cycles_with_every_path_slow) {
    run_dyers("stress.slow=1", "checkmark=1", TEST_IS_SLOW ? 6 : 15);
}

TEST(death, beside_cycles_of_every_mode) {
    static const char *const modes[] = {"mode=insertion", "mode=stop-mark", "mode=stop", "mode=incremental"};
    for (size_t i = 0; i < TRI_COUNT(modes); i++) run_dyers(modes[i], "verify=1", TEST_IS_SLOW ? 4 : 8);
}
