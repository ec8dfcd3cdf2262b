/*
 * Several markers: what they mark together is what one marks, the phase does not end while one of them holds anything,
 * what one holds is shared, and who has nothing to do sleeps.
 */
#include "tests/held.h"

#if TRI_CHECKS >= 3

static double process_cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static bool on_a_worker(void) {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof name);
    return strcmp(name, "trigc-mark") == 0;
}

static uint32_t count_waiting(tri_heap *heap) {
    uint32_t n = 0;
    tri__lock_acquire(&heap->work.lock);
    for (const struct work_waiter *w = heap->work.waiting; w; w = w->next) n++;
    tri__lock_release(&heap->work.lock);
    return n;
}

static uint64_t worker_ns(tri_heap *heap) {
    return atomic_load_relaxed(&heap->stats.worker_ns);
}

/* Marks as one cycle counts them; nothing is allocated meanwhile. */
static uint64_t marks_of_a_cycle(struct fixture *f) {
    uint64_t before = fixture_stats(f->heap).marked_objects;
    fixture_collect(f);
    return fixture_stats(f->heap).marked_objects - before;
}

/* n pairs that name random others; each is named by the one before it. */
static struct pair *make_tangle(const struct fixture *f, void **root, size_t n) {
    struct pair **array = root[0] = tri_new_n(f->thread, &array_type, n);
    uint64_t rng = fixture_seed();
    CHECK(array != NULL);
    for (size_t i = 0; i < n; i++) {
        struct pair *p = tri_new(f->thread, &pair_type);
        CHECK(p != NULL);
        tri_store(f->thread, array, &array[i], p);
    }
    for (size_t i = 0; i < n; i++) {
        tri_store(f->thread, array[i], &array[i]->left, array[(i + 1) % n]);
        tri_store(f->thread, array[i], &array[i]->right, array[fixture_random(&rng) % n]);
        tri_poll(f->thread);
    }
    return root[0] = array[0];
}

static struct pair *make_tree(const struct fixture *f, int depth) {
    TRI_LOCALS(f->thread, locals, 2);
    if (depth > 0) {
        locals[0] = make_tree(f, depth - 1);
        locals[1] = make_tree(f, depth - 1);
    }
    struct pair *p = tri_new(f->thread, &pair_type);
    CHECK(p != NULL);
    tri_store(f->thread, p, &p->left, locals[0]);
    tri_store(f->thread, p, &p->right, locals[1]);
    TRI_POP(f->thread, locals);
    return p;
}

TEST(workers, several_mark_what_one_marks) {
    enum { N = TEST_IS_SLOW ? 20000 : 100000 };
    for (uint32_t n = 1; n <= 4; n++) {
        struct fixture f = open_heap("checkmark=1", n > 1 ? "stress.delay=20" : NULL);
        char option[32];
        snprintf(option, sizeof option, "workers=%u", n);
        fixture_set(f.heap, option);
        TRI_LOCALS(f.thread, locals, 1);
        make_tangle(&f, locals, N);
        fixture_collect(&f); /* the array is gone */
        for (int round = 0; round < 3; round++) {
            uint64_t marks = marks_of_a_cycle(&f);
            CHECK_MSG(marks == N, "%u markers marked %llu of %d", n, (unsigned long long)marks, N);
            CHECK(!f.heap->work.open && f.heap->work.nbusy == 0 && f.heap->work.nhungry == 0);
        }
        CHECK_EQ(f.heap->workers.nstarted, n - 1);
        CHECK(n == 1 ? worker_ns(f.heap) == 0 : worker_ns(f.heap) > 0);
        TRI_POP(f.thread, locals);
        close_heap(&f);
    }
}

/* A tree's depth-first order has never more in hand than its depth: no buffer is ever full, and nothing would come to
 * the list if the collector did not give some of it away. */
TEST(workers, what_one_holds_is_shared) {
    enum { DEPTH = TEST_IS_SLOW ? 14 : 17 };
    struct fixture f = open_heap("workers=2", "stress.delay=1");
    TRI_LOCALS(f.thread, locals, 1);
    locals[0] = make_tree(&f, DEPTH);
    fixture_set(f.heap, "stress.delay=1");
    for (int round = 0; round < 3; round++) CHECK_EQ(marks_of_a_cycle(&f), (1u << (DEPTH + 1)) - 1);
    CHECK_MSG(worker_ns(f.heap) > 0, "the worker got nothing");
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* A long array in pieces, each element of which is an object of its own. */
TEST(workers, pieces_of_one_array_are_shared) {
    enum { N = TEST_IS_SLOW ? 100000 : 400000 };
    struct fixture f = open_heap("workers=3", "checkmark=1");
    TRI_LOCALS(f.thread, locals, 1);
    void **array = locals[0] = tri_new_n(f.thread, &array_type, N);
    CHECK(array != NULL);
    for (size_t i = 0; i < N; i++) {
        void *p = tri_new(f.thread, &pair_type);
        CHECK(p != NULL);
        tri_store(f.thread, array, &array[i], p);
    }
    fixture_set(f.heap, "stress.delay=1");
    for (int round = 0; round < 3; round++) CHECK_EQ(marks_of_a_cycle(&f), N + 1);
    CHECK_MSG(worker_ns(f.heap) > 0, "the workers got nothing");
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* ---- A worker that stands still --------------------------------------------------------------------------------- */

struct stop {
    void *next;
};
static uint32_t stops, leave_stop;

/* The first one that a worker comes to keeps it. */
static size_t trace_stop(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)from, (void)budget;
    if (on_a_worker() && atomic_add_acqrel(&stops, 1) == 0)
        while (!atomic_load_acquire(&leave_stop)) fixture_sleep_ms(1);
    tri_visit(visitor, &((struct stop *)obj)->next, 1);
    return 0;
}
static tri_type stop_type = {
    .struct_size = sizeof(tri_type), .name = "struct stop", .size = sizeof(struct stop), .trace = trace_stop};

/* Everything else is marked, and one worker holds one object: the phase does not end, and nobody spends time on waiting
 * for it. Then it goes on, and what only it knew of is marked. */
TEST(workers, the_phase_waits_for_a_worker_without_spinning, .timeout = 60) {
    enum { N = 20000, WAIT_MS = 200 };
    struct fixture f = open_heap("workers=4", "checkmark=1");
    TRI_LOCALS(f.thread, locals, 1);
    void **array = locals[0] = tri_new_n(f.thread, &array_type, N);
    static uintptr_t hidden[N];
    CHECK(array != NULL);
    for (size_t i = 0; i < N; i++) {
        struct stop *stop = tri_new(f.thread, &stop_type);
        CHECK(stop != NULL);
        tri_store(f.thread, array, &array[i], stop);
        struct thing *thing = tri_new(f.thread, &thing_type);
        CHECK(thing != NULL);
        tri_store(f.thread, stop, &stop->next, thing);
        hidden[i] = hide(thing);
    }
    fixture_set(f.heap, "stress.delay=1");
    atomic_store_release(&stops, 0);
    atomic_store_release(&leave_stop, 0);
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    struct work *work = &f.heap->work;
    for (bool settling = false; !settling;) { /* one is held, and the others have done all the rest */
        tri_poll(f.thread);
        sched_yield();
        CHECK_MSG(heap_phase(f.heap) <= PHASE_MARK, "the phase ended without a worker, or before it");
        tri__lock_acquire(&work->lock);
        settling = atomic_load_acquire(&stops) && work->nbusy == 1 && !work->full && work->settling;
        tri__lock_release(&work->lock);
    }
    double cpu_ms = process_cpu_ms();
    for (int i = 0; i < 4; i++) {
        fixture_sleep_ms(WAIT_MS / 4);
        tri_poll(f.thread);
        CHECK_EQ(heap_phase(f.heap), PHASE_MARK);
    }
    cpu_ms = process_cpu_ms() - cpu_ms;
    CHECK_MSG(cpu_ms < WAIT_MS / 2, "%.0f ms of processor time in %d ms of waiting", cpu_ms, WAIT_MS);
    atomic_store_release(&leave_stop, 1);
    fixture_join(f.thread, collect);
    expect_silence();
    for (size_t i = 0; i < N; i++) CHECK_MSG(is_alive(f.heap, hidden[i]), "thing %zu is lost", i);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* Between two cycles all workers are parked, and cost nothing. */
TEST(workers, who_has_nothing_to_do_sleeps) {
    enum { N = 20000, WAIT_MS = 200 };
    struct fixture f = open_heap("workers=4", "stress.delay=1");
    TRI_LOCALS(f.thread, locals, 1);
    make_tangle(&f, locals, N);
    while (f.heap->workers.nstarted < 3) fixture_collect(&f);
    for (int i = 0; i < 30000 && count_waiting(f.heap) < 3; i++) fixture_sleep_ms(1); /* each on its way to bed */
    CHECK_EQ(count_waiting(f.heap), 3);
    double cpu_ms = process_cpu_ms();
    fixture_sleep_ms(WAIT_MS);
    cpu_ms = process_cpu_ms() - cpu_ms;
    CHECK_MSG(cpu_ms < WAIT_MS / 10, "%.0f ms of processor time in %d ms of nothing to do", cpu_ms, WAIT_MS);
    CHECK_EQ(count_waiting(f.heap), 3);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* One object leads to the next: there is nothing to share, and three of four sleep. */
TEST(workers, a_long_list_occupies_one) {
    enum { N = TEST_IS_SLOW ? 100000 : 600000 };
    struct fixture f = open_heap("workers=4", NULL);
    TRI_LOCALS(f.thread, locals, 2);
    for (size_t i = 0; i < N; i++) {
        struct pair *p = tri_new(f.thread, &pair_type);
        CHECK(p != NULL);
        tri_store(f.thread, p, &p->left, locals[0]);
        locals[0] = p;
    }
    fixture_collect(&f);
    for (int round = 0; round < 3; round++) {
        uint64_t start = tri__os_now_ns();
        double cpu_ms = process_cpu_ms();
        CHECK_EQ(marks_of_a_cycle(&f), N);
        double wall_ms = (double)(tri__os_now_ns() - start) / 1e6;
        cpu_ms = process_cpu_ms() - cpu_ms;
        CHECK_MSG(cpu_ms < 1.5 * wall_ms + 5, "%.1f ms of processor time in %.1f ms", cpu_ms, wall_ms);
    }
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* Cycle after cycle with a few markers and little to share: whoever parks is woken by what is put, and the last one who
 * rests wakes the collector. A wakeup of a parked marker that is lost leaves the test hanging; the collector's own wait
 * for the last one to rest has an end, and is not shown by it. */
TEST(workers, no_wakeup_is_lost, .timeout = 120) {
    struct fixture f = open_heap("workers=4", "stress.delay=1");
    TRI_LOCALS(f.thread, locals, 1);
    make_tangle(&f, locals, 3000);
    uint64_t start = tri__os_now_ns(), ncycles = 0;
    while (tri__os_now_ns() - start < (test_stress() ? 60000000000u : 1500000000u)) {
        fixture_collect(&f);
        ncycles++;
    }
    CHECK(ncycles > 3);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* ---- Their number ------------------------------------------------------------------------------------------------ */

TEST(workers, their_number_changes_while_the_heap_runs) {
    struct fixture f = open_heap("stress.delay=1", NULL);
    TRI_LOCALS(f.thread, locals, 1);
    make_tangle(&f, locals, 20000);
    CHECK_EQ(tri_heap_set(f.heap, "workers=257"), TRI_EINVAL);
    CHECK_EQ(tri_heap_set(f.heap, "workers=many"), TRI_EINVAL);
    static const struct {
        const char *option;
        uint32_t nthreads;
    } steps[] = {{"workers=4", 3}, {"workers=2", 1}, {"workers=3", 2}, {"workers=1", 2}, {"workers=64", 63}};
    for (size_t i = 0; i < TRI_COUNT(steps); i++) {
        fixture_set(f.heap, steps[i].option);
        for (int round = 0; round < 100 && f.heap->workers.nstarted != steps[i].nthreads; round++) fixture_collect(&f);
        CHECK_MSG(f.heap->workers.nstarted == steps[i].nthreads, "%s: %u threads", steps[i].option,
                  f.heap->workers.nstarted);
        uint64_t before_ns = worker_ns(f.heap);
        CHECK_EQ(marks_of_a_cycle(&f), 20000);
        CHECK(i != 3 || worker_ns(f.heap) == before_ns); /* one marker: the collector alone */
    }
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* A cycle that the heap's only thread runs itself, and a short one of the collector's, start no thread. */
TEST(workers, a_short_cycle_calls_nobody) {
    struct fixture f = open_heap("workers=4", NULL);
    TRI_LOCALS(f.thread, locals, 1);
    locals[0] = tri_new(f.thread, &pair_type);
    for (int i = 0; i < 20; i++) fixture_collect(&f);
    CHECK_EQ(f.heap->workers.nstarted, 0);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

#else

TEST(workers, their_number_has_bounds) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "workers=257"), TRI_EINVAL);
    CHECK_EQ(tri_heap_set(f.heap, "workers=2"), TRI_OK);
    fixture_collect(&f);
    fixture_close(&f);
}

#endif
