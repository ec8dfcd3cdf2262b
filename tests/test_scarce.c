/*
 * test_scarce.c: cycles where the program's threads need all cores (gc/scarce.c): who begins one lends it, the threads
 * carry it on at their allocations, and the collector ends it when nobody does or somebody waits. The machine's number
 * of cores is the test's own. Objects carry a sum, so that one freed too early shows.
 */
#include <limits.h>
#include <sys/resource.h>

#include "gc/scarce.h"
#include "tests/cleanups.h"
#include "tests/forking.h"
#include "tests/sealed.h"
#include "tests/seen.h"

enum { NLIVE = TEST_IS_SLOW ? 20000 : 100000, NCYCLES = TEST_IS_SLOW ? 3 : 8 };

static struct fixture open_on_one_core(void) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.min_heap_bytes = MIB;
    config.idle_trim_ms = 0;
    struct fixture f = fixture_open_config(&config);
    fixture_use_millicpus(f.heap, 1000, false);
    return f;
}

/* locals[0] holds a list whose marking takes many slices; locals[1] is for garbage. */
static void make_list(struct fixture *f, void **locals) {
    for (uint64_t i = 0; i < NLIVE; i++) locals[0] = new_sealed(f->thread, locals[0], i);
    fixture_collect(f);
}

static uint32_t slices(tri_heap *heap) {
    tri__lock_acquire(&heap->cycle_lock);
    uint32_t n = heap->lent_slices;
    tri__lock_release(&heap->cycle_lock);
    return n;
}

static uint64_t cycles(tri_heap *heap) {
    return atomic_load_relaxed(&heap->stats.cycles); /* a counter */
}

static void allocate_some(tri_thread *thread, void **slot) {
    *slot = NULL;
    for (uint64_t i = 0; i < 100; i++) *slot = new_sealed(thread, *slot, i);
    CHECK_EQ(check_list(*slot), 100);
}

static void run_cycles(struct fixture *f, void **locals, uint64_t n) {
    uint64_t until = cycles(f->heap) + n;
    for (uint64_t i = 0; cycles(f->heap) < until; i++) {
        allocate_some(f->thread, &locals[1]);
        CHECK_MSG(i < 10000000, "%llu cycles are missing", (unsigned long long)(until - cycles(f->heap)));
    }
}

/* Allocates until a cycle is lent and under way. */
static void run_until_lent(struct fixture *f, void **locals) {
    for (uint64_t i = 0; !tri__is_lent(f->heap); i++) {
        allocate_some(f->thread, &locals[1]);
        CHECK_MSG(i < 10000000, "%llu cycles, none lent", (unsigned long long)cycles(f->heap));
    }
}

static void await_cycle(struct fixture *f, uint64_t n) {
    for (uint64_t start = tri__os_now_ns(); cycles(f->heap) < n; fixture_sleep_ms(1))
        CHECK_MSG(tri__os_now_ns() - start < 60000000000, "the cycle does not end: phase %d", heap_phase(f->heap));
}

TEST(scarce, a_thread_carries_a_cycle_on_where_it_needs_the_core, .timeout = 120) {
    struct fixture f = open_on_one_core();
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    fixture_set(f.heap, "checkmark=1");
    fixture_set(f.heap, "verify=1");
    uint64_t assists = count(f.heap, TRI_PAUSE_ASSIST);
    uint32_t before = slices(f.heap);
    run_cycles(&f, locals, NCYCLES);
    uint32_t n = slices(f.heap) - before;
    CHECK_MSG(n >= 5 * NCYCLES, "%u slices in %d cycles", n, NCYCLES);
    CHECK(count(f.heap, TRI_PAUSE_ASSIST) - assists >= n); /* a slice is told as an assist */
    CHECK_EQ(f.heap->stress.reports, 0);
    CHECK_EQ(check_list(locals[0]), NLIVE);
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

/* With a core to spare, or a quarter of one, the collector's own thread is in nobody's way; under a cap it rests. */
TEST(scarce, no_cycle_is_lent_that_has_a_core, .timeout = 120) {
    static const struct {
        uint32_t millicpus;
        bool quota, lent;
        const char *setting;
    } cases[] = {{2000, false, false, NULL},
                 {1250, true, false, NULL},
                 {1249, true, true, NULL},
                 {500, true, true, NULL},
                 {1000, false, false, "cpu_percent=50"},
                 {1000, false, false, "mode=insertion"},
                 {1000, false, false, "mode=incremental"}};
    for (size_t i = 0; i < TRI_COUNT(cases); i++) {
        struct fixture f = open_on_one_core();
        TRI_LOCALS(f.thread, locals, 2);
        fixture_use_millicpus(f.heap, cases[i].millicpus, cases[i].quota);
        fixture_set(f.heap, cases[i].setting ? cases[i].setting : "mode=concurrent");
        make_list(&f, locals);
        run_cycles(&f, locals, 3);
        CHECK_MSG((slices(f.heap) > 0) == cases[i].lent, "%zu: %u slices", i, slices(f.heap));
        TRI_POP(f.thread, locals);
        fixture_close(&f);
    }
}

/* Three times its slice, beside one thread on one core. */
static bool rests_after_a_slice(tri_heap *heap) {
    tri__lock_acquire(&heap->cycle_lock);
    bool rests = heap->lent && heap->lent_rest_ns == 600000;
    tri__lock_release(&heap->cycle_lock);
    return rests;
}

/* Times that the collector sleeps when a slice is over: the least of several looks. */
static void *sleeps_of_a_slice(void *arg) {
    struct fixture *f = arg;
    static long least;
    least = LONG_MAX;
    for (int i = 0; i < 10; i++) {
        struct rusage before, after;
        uint64_t since = tri__os_now_ns() - 1000000;
        CHECK_EQ(getrusage(RUSAGE_THREAD, &before), 0);
        tri__give_way(f->heap, &since);
        CHECK_EQ(getrusage(RUSAGE_THREAD, &after), 0);
        if (after.ru_nvcsw - before.ru_nvcsw < least) least = after.ru_nvcsw - before.ru_nvcsw;
    }
    return &least;
}

/* What this thread leaves of the quota is the collector's share of a core, a quarter of a core or of the quota at
 * least. */
TEST(scarce, under_a_quota_the_collector_sleeps_beside_threads_that_use_all_of_it) {
    static const struct {
        uint32_t millicpus, slices;
    } cases[] = {{1000, 3}, {1500, 1}, {1250, 3}, {500, 7}, {2000, 0}, {5000, 0}};
    struct fixture f = fixture_open();
    const uint64_t slice_ns = 200000;
    for (size_t i = 0; i < TRI_COUNT(cases); i++) {
        fixture_use_millicpus(f.heap, cases[i].millicpus, true);
        uint64_t now = tri__os_now_ns(), since = now - slice_ns, away = tri__give_way(f.heap, &since);
        CHECK_MSG(cases[i].slices ? away >= cases[i].slices * slice_ns : away == 0, "%zu: away for %llu ns", i,
                  (unsigned long long)away);
        CHECK(since >= now + cases[i].slices * slice_ns);
    }
    fixture_close(&f);
}

/* What sleeps under a quota makes room for threads that run; where all wait for the cycle it would be they who wait. */
TEST(scarce, under_a_quota_the_collector_does_not_sleep_while_no_thread_runs) {
    struct fixture f = fixture_open();
    fixture_use_millicpus(f.heap, 500, true);
    CHECK(*(long *)sleeps_of_a_slice(&f) > 0);
    CHECK_EQ(*(long *)tri_blocking(f.thread, sleeps_of_a_slice, &f), 0);
    fixture_close(&f);
}

/* A thread whose nap is over needs the core, and cannot say so; in a stopped world it could not use it. */
TEST(scarce, the_collector_rests_for_threads_that_could_run) {
    struct fixture f = open_on_one_core();
    CHECK(*(long *)sleeps_of_a_slice(&f) > 0);
    CHECK_EQ(*(long *)tri_blocking(f.thread, sleeps_of_a_slice, &f), 0);
    atomic_store_relaxed(&f.heap->nnapping, 1); /* this test's own thread */
    CHECK(*(long *)tri_blocking(f.thread, sleeps_of_a_slice, &f) > 0);
    f.heap->nstops = 1;
    CHECK_EQ(*(long *)sleeps_of_a_slice(&f), 0);
    f.heap->nstops = 0;
    atomic_store_relaxed(&f.heap->nnapping, 0);
    fixture_close(&f);
}

struct other {
    struct fixture *f;
    pthread_t id;
    uint32_t *stop; /* [atomic] */
};

static void *allocate_until(void *arg) {
    struct other *o = arg;
    tri_thread *thread = fixture_attach(o->f->heap);
    TRI_LOCALS(thread, own, 2);
    for (uint64_t i = 0; i < 1000; i++) own[1] = new_sealed(thread, own[1], i);
    while (!atomic_load_acquire(o->stop)) allocate_some(thread, &own[0]); /* pairs with the test's end */
    CHECK_EQ(check_list(own[1]), 1000);
    TRI_POP(thread, own);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(scarce, several_threads_carry_it_on, .timeout = 300) {
    enum { OTHERS = 3 };
    struct fixture f = open_on_one_core();
    struct other others[OTHERS];
    uint32_t stop = 0;
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    fixture_set(f.heap, "checkmark=1");
    fixture_set(f.heap, "stress.delay=5");
    for (int i = 0; i < OTHERS; i++) {
        others[i] = (struct other){.f = &f, .stop = &stop};
        CHECK_EQ(pthread_create(&others[i].id, NULL, allocate_until, &others[i]), 0);
    }
    run_cycles(&f, locals, NCYCLES);
    atomic_store_release(&stop, 1);
    for (int i = 0; i < OTHERS; i++) fixture_join(f.thread, others[i].id);
    CHECK(slices(f.heap) > NCYCLES);
    CHECK_EQ(f.heap->stress.reports, 0);
    CHECK_EQ(check_list(locals[0]), NLIVE);
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

struct hoarder {
    struct fixture *f;
    pthread_t id;
    uint64_t until_cycle;
    double beyond; /* the most that the heap held, in hard goals */
};

/* Large objects that nobody writes: the system's time, and the collector's, is all that holds a thread up. */
static void *allocate_fast(void *arg) {
    struct hoarder *h = arg;
    tri_thread *thread = fixture_attach(h->f->heap);
    while (cycles(h->f->heap) < h->until_cycle) {
        CHECK_MSG(tri_new_bytes(thread, 100000) != NULL, "%s", tri_last_error());
        double beyond = (double)heap_total_bytes(h->f->heap) /
                        (double)atomic_load_relaxed(&h->f->heap->hard_goal_bytes);
        if (beyond > h->beyond) h->beyond = beyond;
    }
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* One of them may lose its core in the middle of its slice: the others wait, while it marks and while it sweeps. A list
 * is grey in one place. 1.0 to 1.1 hard goals; with no wait while another has the slice, 8 and more. */
static void hoard(const char *mode) {
    enum { OTHERS = 4 };
    const double most = 3;
    struct fixture f = open_on_one_core();
    struct hoarder others[OTHERS];
    TRI_LOCALS(f.thread, locals, 2);
    fixture_set(f.heap, mode);
    make_list(&f, locals);
    for (int i = 0; i < OTHERS; i++) {
        others[i] = (struct hoarder){.f = &f, .until_cycle = cycles(f.heap) + 10 * NCYCLES};
        CHECK_EQ(pthread_create(&others[i].id, NULL, allocate_fast, &others[i]), 0);
    }
    for (int i = 0; i < OTHERS; i++) {
        fixture_join(f.thread, others[i].id);
        CHECK_MSG(others[i].beyond <= most, "%s: %.1f hard goals", mode, others[i].beyond);
    }
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

TEST(scarce, threads_that_allocate_wait_for_who_has_the_slice, .timeout = 200) {
    hoard("mode=concurrent");
    hoard("mode=incremental");
}

/* The number of cycles when the one that is lent now is over. */
static uint64_t run_until_lent_counted(struct fixture *f, void **locals) {
    uint64_t n;
    do {
        run_until_lent(f, locals);
        n = cycles(f->heap);
    } while (!tri__is_lent(f->heap)); /* the collector may have ended it */
    return n + 1;
}

struct awaited {
    struct fixture *f;
    uint64_t ncycles;
};

static void *await_it(void *arg) {
    struct awaited *a = arg;
    await_cycle(a->f, a->ncycles);
    return NULL;
}

/* The thread that was to carry it on goes into a blocking region, or runs and allocates nothing. */
TEST(scarce, the_collector_ends_what_nobody_carries_on, .timeout = 200) {
    struct fixture f = open_on_one_core();
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    struct awaited awaited = {&f, run_until_lent_counted(&f, locals)};
    uint32_t n = slices(f.heap);
    tri_blocking(f.thread, await_it, &awaited);
    CHECK_EQ(slices(f.heap), n);
    uint64_t nrests = 0;
    for (int round = 0; round < 50 && nrests == 0; round++) { /* on a busy machine nobody may look in time */
        uint64_t until = run_until_lent_counted(&f, locals), start = tri__os_now_ns();
        n = slices(f.heap);
        for (; cycles(f.heap) < until; tri_poll(f.thread)) {
            CHECK_MSG(tri__os_now_ns() - start < 60000000000, "the cycle does not end: phase %d", heap_phase(f.heap));
            nrests += rests_after_a_slice(f.heap);
        }
        CHECK_EQ(slices(f.heap), n);
    }
    CHECK(nrests > 0); /* between its slices the core is the thread's */
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

/* Who waits inside the library for a lent cycle runs it: here for the flip, to free an object. */
TEST(scarce, who_frees_runs_the_cycle_on, .timeout = 120) {
    struct fixture f = open_on_one_core();
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    uint32_t n = 0;
    for (int i = 0; i < 100 && n == 0; i++) { /* the collector may have ended it before */
        run_until_lent(&f, locals);
        while (tri__is_lent(f.heap) && heap_phase(f.heap) != PHASE_MARK) allocate_some(f.thread, &locals[1]);
        locals[1] = new_sealed(f.thread, NULL, 1);
        void *obj = locals[1];
        locals[1] = NULL;
        n = slices(f.heap);
        CHECK_EQ(tri_free(f.thread, obj), TRI_OK);
        n = slices(f.heap) - n;
    }
    CHECK(n > 0);
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

static void *run_a_moment(void *arg) {
    struct fixture *f = arg;
    tri__lent_slice(f->heap, tri__os_now_ns());
    return NULL;
}

/* A thread gives what dies a slice now and then, however much it is: the collector does the rest, half of the time. */
TEST(scarce, the_collector_helps_with_what_dies, .timeout = 120) {
    enum { NWATCHED = TEST_IS_SLOW ? 20000 : 100000 };
    struct fixture f = open_on_one_core();
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    fixture_set(f.heap, "min_heap_bytes=33554432"); /* no cycle while these are made */
    fixture_collect(&f);
    for (uint64_t n = 0; n < NWATCHED; n++)
        CHECK_EQ(tri_cleanup_add(f.thread, tri_new(f.thread, &sealed_type), add_to_sum, arg_of(1)), TRI_OK);
    run_until_lent(&f, locals);
    uint64_t before = 0, until = cycles(f.heap) + 1;
    for (bool dies = false; cycles(f.heap) < until;) {
        if (!dies && heap_phase(f.heap) == PHASE_DEATH) dies = true, before = count(f.heap, TRI_PAUSE_CORE);
        tri_blocking(f.thread, run_a_moment, &f);
        if (dies) tri__os_sleep_ns(100000); /* it gives little, and often: by their number its slices would be enough */
    }
    CHECK(count(f.heap, TRI_PAUSE_CORE) > before);
    while (tri_cleanup_run(f.thread, 1000) > 0) {}
    CHECK(ncalls > 0);
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

/* A cycle, and a job, that somebody waits for: here the whole rest is the collector's. */
TEST(scarce, who_waits_does_not_wait_for_slices, .timeout = 120) {
    struct fixture f = open_on_one_core();
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    for (int round = 0; round < 10; round++) {
        run_until_lent(&f, locals);
        uint32_t n = slices(f.heap);
        uint64_t before = cycles(f.heap);
        if (round % 2)
            CHECK_EQ(tri_verify(f.thread), 0);
        else
            fixture_collect(&f);
        CHECK(!tri__is_lent(f.heap) && (round % 2 || cycles(f.heap) > before));
        CHECK_EQ(slices(f.heap), n);
    }
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

static void *run_without_safepoint(void *arg) {
    struct other *o = arg;
    tri_thread *thread = fixture_attach(o->f->heap);
    atomic_store_release(o->stop, 1);                        /* it is attached; pairs with the test's wait */
    while (atomic_load_acquire(o->stop) != 2) sched_yield(); /* pairs with the test's end */
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* It delays the end of the cycle and not the other threads: they look for its answer now and then, and sleep for it as
 * long as naps are allowed. */
TEST(scarce, nobody_sleeps_for_a_silent_thread, .timeout = 120) {
    enum { ROUNDS = TEST_IS_SLOW ? 2000 : 20000, MOST_SLEEPS = ROUNDS / 100 }; /* a slow path in each 14th, or more */
    struct fixture f = open_on_one_core();
    uint32_t stop = 0;
    struct other silent = {.f = &f, .stop = &stop};
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    CHECK_EQ(pthread_create(&silent.id, NULL, run_without_safepoint, &silent), 0);
    while (!atomic_load_acquire(&stop)) tri_poll(f.thread); /* pairs with run_without_safepoint */
    run_until_lent(&f, locals);
    uint64_t start = tri__os_now_ns();
    while (tri__os_now_ns() - start < 100000000) allocate_some(f.thread, &locals[1]); /* naps end after 20 ms */
    uint64_t before = cycles(f.heap);
    struct rusage a, b;
    CHECK_EQ(getrusage(RUSAGE_THREAD, &a), 0);
    for (int i = 0; i < ROUNDS; i++) allocate_some(f.thread, &locals[1]);
    CHECK_EQ(getrusage(RUSAGE_THREAD, &b), 0);
    CHECK_EQ(cycles(f.heap), before);
    CHECK_MSG(b.ru_nvcsw - a.ru_nvcsw < MOST_SLEEPS, "%ld sleeps", b.ru_nvcsw - a.ru_nvcsw);
    for (int i = 0; i < 200; i++) { /* the collector looks each 5 ms only */
        CHECK(!rests_after_a_slice(f.heap));
        tri_poll(f.thread);
        tri__os_sleep_ns(100000);
    }
    atomic_store_release(&stop, 2);
    fixture_join(f.thread, silent.id);
    fixture_collect(&f);
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

/* As if a cycle were lent, and somebody asked for one, or had a job: threads leave it to the collector. */
TEST(scarce, who_is_waited_for_is_not_kept_from_it) {
    struct fixture f = open_on_one_core();
    struct job job = {0};
    fixture_collect(&f); /* the collector is there, and waits */
    for (int i = 0; i < 2; i++) {
        tri__lock_acquire(&f.heap->cycle_lock);
        f.heap->lent = LENT_FREE;
        f.heap->handed_over = true;
        f.heap->wanted = i ? NULL : "a test";
        f.heap->jobs = i ? &job : NULL;
        tri__lock_release(&f.heap->cycle_lock);
        CHECK(!tri__lent_slice(f.heap, UINT64_MAX));
        tri__lock_acquire(&f.heap->cycle_lock);
        f.heap->lent = LENT_NOT;
        f.heap->handed_over = false;
        f.heap->wanted = NULL;
        f.heap->jobs = NULL;
        tri__lock_release(&f.heap->cycle_lock);
    }
    fixture_close(&f);
}

/* While others carry it on, and none of them waits. */
TEST(scarce, a_thread_may_collect_beside_those_that_carry_a_cycle_on, .timeout = 120) {
    struct fixture f = open_on_one_core();
    uint32_t stop = 0;
    struct other o = {.f = &f, .stop = &stop};
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    CHECK_EQ(pthread_create(&o.id, NULL, allocate_until, &o), 0);
    for (int i = 0; i < 30; i++) {
        fixture_collect(&f);
        allocate_some(f.thread, &locals[1]);
    }
    atomic_store_release(&stop, 1);
    fixture_join(f.thread, o.id);
    CHECK_EQ(check_list(locals[0]), NLIVE);
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

/* On a busy machine the collector may end it before the thread comes to ask. */
TEST(scarce, a_mode_does_not_change_in_a_lent_cycle, .timeout = 60) {
    struct fixture f = open_on_one_core();
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    int err = TRI_OK;
    for (int i = 0; i < 100 && err == TRI_OK; i++) {
        fixture_set(f.heap, "mode=concurrent");
        run_until_lent(&f, locals);
        err = tri_heap_set(f.heap, "mode=incremental");
    }
    CHECK_EQ(err, TRI_EBUSY);
    fixture_collect(&f);
    fixture_set(f.heap, "mode=incremental");
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}

TEST(scarce, a_heap_may_end_in_a_lent_cycle, .timeout = 60) {
    struct fixture f = open_on_one_core();
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    run_until_lent(&f, locals);
    TRI_POP(f.thread, locals);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    CHECK_EQ(tri_heap_destroy(f.heap), TRI_OK);
}

#if !TEST_UNDER_ASAN /* forking.h */
static void in_the_child(struct fixture *f, void **locals) {
    CHECK(!tri__is_lent(f->heap)); /* it is abandoned */
    run_cycles(f, locals, 2);
    CHECK_EQ(check_list(locals[0]), NLIVE);
    _exit(0);
}

TEST(scarce, a_child_begins_anew, .timeout = 120) {
    struct fixture f = open_on_one_core();
    uint32_t stop = 0;
    struct other o = {.f = &f, .stop = &stop};
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, locals);
    CHECK_EQ(pthread_create(&o.id, NULL, allocate_until, &o), 0); /* it may have the slice, or nap */
    for (int i = 0; i < 10; i++) {
        run_until_lent(&f, locals);
        pid_t child = fork();
        if (child == 0) in_the_child(&f, locals);
        CHECK_EQ(forking_wait(child), 0);
    }
    atomic_store_release(&stop, 1);
    fixture_join(f.thread, o.id);
    CHECK_EQ(check_list(locals[0]), NLIVE);
    TRI_POP(f.thread, locals);
    fixture_close(&f);
}
#endif
