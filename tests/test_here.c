/*
 * Cycles that the thread which triggers them runs itself (gc/collector.c): that they happen and collect, alone and
 * among others, that what does not fit into a slice, or waits for another thread, is left to the collector's thread,
 * that threads come and go meanwhile, and that nothing is lost with every check on. Objects carry a sum, so that one
 * freed too early shows.
 */
#include "tests/fixture.h"
#include "tests/sealed.h"
#include "tests/seen.h"

static struct fixture open_small(void) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.min_heap_bytes = 256 << 10;
    struct fixture f = fixture_open_config(&config);
    fixture_use_millicpus(f.heap, 64000, false); /* cores to spare: test_scarce.c has none */
    return f;
}

static uint64_t cycles_here(tri_heap *heap) {
    return atomic_load_relaxed(&heap->stats.cycles_here);
}

static uint64_t cycles_handed(tri_heap *heap) {
    return atomic_load_relaxed(&heap->stats.cycles_handed);
}

/* A ring of lists, one replaced at each step. */
enum { NLISTS = 16, LIST_LENGTH = 8 };

static void churn(tri_thread *thread, void **lists, uint64_t from, uint64_t nsteps) {
    for (uint64_t i = from; i < from + nsteps; i++) {
        uint64_t at = i % NLISTS;
        if (lists[at]) CHECK_EQ(check_list(lists[at]), LIST_LENGTH);
        lists[at] = NULL;
        for (uint64_t k = 0; k < LIST_LENGTH; k++) lists[at] = new_sealed(thread, lists[at], i * LIST_LENGTH + k);
    }
}

TEST(here, a_small_heap_collects_on_the_thread_that_triggers) {
    struct fixture f = open_small();
    TRI_LOCALS(f.thread, lists, NLISTS);
    fixture_collect(&f);
    fixture_set(f.heap, "stress.here=1"); /* however loaded the machine is */
    churn(f.thread, lists, 0, TEST_IS_SLOW ? 20000 : 100000);
    uint64_t here = cycles_here(f.heap);
    CHECK_MSG(here >= 10, "%llu cycles on the thread itself", (unsigned long long)here);
    CHECK_MSG(count(f.heap, TRI_PAUSE_ASSIST) >= here, "%llu cycles on the thread itself, %llu pauses",
              (unsigned long long)here, (unsigned long long)count(f.heap, TRI_PAUSE_ASSIST));
    CHECK_MSG(fixture_stats(f.heap).heap_bytes < MIB, "%zu bytes", fixture_stats(f.heap).heap_bytes);
    TRI_POP(f.thread, lists);
    fixture_close(&f);
}

TEST(here, nothing_is_lost_under_every_check) {
    struct fixture f = open_small();
    TRI_LOCALS(f.thread, lists, NLISTS);
    fixture_collect(&f);
    fixture_set(f.heap, "checkmark=1");
    fixture_set(f.heap, "verify=1");
    fixture_set(f.heap, "poison=1");
    churn(f.thread, lists, 0, 20000);
    fixture_set(f.heap, "stress.delay=2");
    fixture_set(f.heap, "stress.here=1"); /* although the delays make marking long */
    for (int round = 0; round < 20; round++) {
        churn(f.thread, lists, 20000 + (uint64_t)round * 2000, 2000);
    }
    CHECK(cycles_here(f.heap) >= 5);
    CHECK_EQ(f.heap->stress.reports, 0);
    TRI_POP(f.thread, lists);
    fixture_close(&f);
}

/* The last cycle was short, this one is not: the slice ends, the collector does the rest while the thread goes on. */
TEST(here, what_does_not_fit_is_left_to_the_collector) {
    struct fixture f = open_small();
    TRI_LOCALS(f.thread, lists, NLISTS);
    fixture_set(f.heap, "min_heap_bytes=4194304");
    fixture_set(f.heap, "stress.here=1"); /* however loaded the machine is */
    fixture_collect(&f);
    uint64_t n = 0;
    for (int round = 0; round < 100 && cycles_handed(f.heap) == 0; round++) {
        lists[0] = NULL;
        n = 0;
        fixture_collect(&f); /* short: nothing lives */
        while (n < 200000) lists[0] = new_sealed(f.thread, lists[0], n++);
        CHECK_EQ(check_list(lists[0]), n);
    }
    CHECK_MSG(cycles_handed(f.heap) > 0, "none of %llu", (unsigned long long)cycles_here(f.heap));
    fixture_collect(&f); /* the cycle that was handed over has ended */
    CHECK_EQ(check_list(lists[0]), n);
    TRI_POP(f.thread, lists);
    fixture_close(&f);
}

struct visitor_thread {
    tri_heap *heap;
    uint32_t stop;     /* [atomic] */
    uint32_t attached; /* times [atomic] */
};

static void *attach_often(void *arg) {
    struct visitor_thread *v = arg;
    while (!atomic_load_acquire(&v->stop)) { /* pairs with the test's end */
        tri_thread *thread = fixture_attach(v->heap);
        TRI_LOCALS(thread, list, 1);
        for (uint64_t i = 0; i < 50; i++) list[0] = new_sealed(thread, list[0], i);
        tri_poll(thread);
        CHECK_EQ(check_list(list[0]), 50);
        TRI_POP(thread, list);
        CHECK_EQ(tri_detach(thread), TRI_OK);
        atomic_add_relaxed(&v->attached, 1);
        tri__os_sleep_ns(200000);
    }
    return NULL;
}

TEST(here, threads_come_and_go_meanwhile) {
    struct fixture f = open_small();
    struct visitor_thread v = {.heap = f.heap};
    pthread_t other;
    TRI_LOCALS(f.thread, lists, NLISTS);
    fixture_collect(&f);
    fixture_set(f.heap, "stress.here=1");
    fixture_set(f.heap, "stress.delay=20"); /* makes the cycles long enough to be met */
    CHECK_EQ(pthread_create(&other, NULL, attach_often, &v), 0);
    uint64_t steps = 0;
    while (atomic_load_acquire(&v.attached) < 50 || cycles_here(f.heap) < 20) {
        churn(f.thread, lists, steps, 500);
        steps += 500;
        CHECK_MSG(steps < 100000000, "%u attached, %llu cycles here", atomic_load_relaxed(&v.attached),
                  (unsigned long long)cycles_here(f.heap));
    }
    atomic_store_release(&v.stop, 1);
    fixture_join(f.thread, other);
    TRI_POP(f.thread, lists);
    fixture_set(f.heap, "stress.delay=0");
    fixture_close(&f);
}

struct churner {
    tri_heap *heap;
    uint64_t first;
    uint32_t *stop; /* [atomic] */
};

static void *churn_until(void *arg) {
    struct churner *c = arg;
    tri_thread *thread = fixture_attach(c->heap);
    TRI_LOCALS(thread, lists, NLISTS);
    for (uint64_t at = c->first; !atomic_load_acquire(c->stop); at += 100) churn(thread, lists, at, 100);
    TRI_POP(thread, lists);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* Whoever triggers runs the cycle; the others go on and answer it. */
TEST(here, one_of_several_runs_the_cycle) {
    enum { OTHERS = 2, BEGUN = TEST_IS_SLOW ? 5 : 30, ENDED = TEST_IS_SLOW ? 0 : 5 };
    struct fixture f = open_small();
    struct churner churners[OTHERS];
    pthread_t others[OTHERS];
    uint32_t stop = 0;
    TRI_LOCALS(f.thread, lists, NLISTS);
    fixture_collect(&f);
    fixture_set(f.heap, "stress.here=1");
    fixture_set(f.heap, "verify=1");
    fixture_set(f.heap, "checkmark=1");
    for (int i = 0; i < OTHERS; i++) {
        churners[i] = (struct churner){f.heap, (uint64_t)(i + 1) << 32, &stop};
        CHECK_EQ(pthread_create(&others[i], NULL, churn_until, &churners[i]), 0);
    }
    uint64_t steps = 0, begun, ended;
    do {
        churn(f.thread, lists, steps, 500);
        steps += 500;
        begun = cycles_here(f.heap);
        ended = begun - cycles_handed(f.heap); /* within the time that it waits for others */
        CHECK_MSG(steps < 100000000, "%llu cycles here, %llu of them ended", (unsigned long long)begun,
                  (unsigned long long)ended);
    } while (begun < BEGUN || ended < ENDED);
    atomic_store_release(&stop, 1);
    for (int i = 0; i < OTHERS; i++) fixture_join(f.thread, others[i]);
    CHECK_EQ(f.heap->stress.reports, 0);
    TRI_POP(f.thread, lists);
    fixture_close(&f);
}

/* As if the collector had a job in hand, from its first moment on: who triggers a cycle asks for it (I-COL3). */
TEST(here, no_cycle_begins_beside_a_job) {
    struct fixture f = open_small();
    TRI_LOCALS(f.thread, lists, NLISTS);
    fixture_collect(&f);
    fixture_set(f.heap, "stress.here=1");
    tri__lock_acquire(&f.heap->cycle_lock);
    f.heap->runner = RUNNER_COLLECTOR;
    tri__lock_release(&f.heap->cycle_lock);
    uint64_t here = cycles_here(f.heap), cycles = fixture_stats(f.heap).cycles;
    churn(f.thread, lists, 0, 5000); /* 1 MB and more: several times what triggers one */
    CHECK_EQ(cycles_here(f.heap), here);
    CHECK_EQ(fixture_stats(f.heap).cycles, cycles);
    tri__lock_acquire(&f.heap->cycle_lock);
    CHECK(f.heap->wanted != NULL);
    f.heap->runner = RUNNER_NONE;
    tri__cond_broadcast(&f.heap->cycle_wanted);
    tri__lock_release(&f.heap->cycle_lock);
    fixture_collect(&f);
    TRI_POP(f.thread, lists);
    fixture_close(&f);
}

/* A thread far from its next safepoint: the cycle waits for it in the collector's hands, and the next ones are left to
 * the collector from the start. */
static void *silent_until(void *arg) {
    struct churner *c = arg;
    tri_thread *thread = fixture_attach(c->heap);
    atomic_store_release(c->stop, 1); /* it is attached; pairs with the test's wait */
    while (atomic_load_acquire(c->stop) != 2) tri__os_sleep_ns(100000);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(here, a_silent_thread_delays_the_collector_and_not_the_others) {
    struct fixture f = open_small();
    uint32_t stop = 0;
    struct churner silent = {f.heap, 0, &stop};
    pthread_t other;
    TRI_LOCALS(f.thread, lists, NLISTS);
    fixture_collect(&f);
    fixture_set(f.heap, "stress.here=1");
    CHECK_EQ(pthread_create(&other, NULL, silent_until, &silent), 0);
    while (!atomic_load_acquire(&stop)) tri_poll(f.thread); /* it attaches; pairs with silent_until */
    uint64_t cycles = fixture_stats(f.heap).cycles, steps = 0;
    while (cycles_handed(f.heap) == 0) {
        churn(f.thread, lists, steps, 100);
        steps += 100;
        CHECK_MSG(steps < 10000000, "%llu cycles here", (unsigned long long)cycles_here(f.heap));
    }
    churn(f.thread, lists, steps, 1000); /* goes on, with no cycle's end */
    CHECK(fixture_stats(f.heap).cycles <= cycles + 1);
    tri__lock_acquire(&f.heap->cycle_lock);
    CHECK(f.heap->here_rests > 0);
    tri__lock_release(&f.heap->cycle_lock);
    atomic_store_release(&stop, 2);
    fixture_join(f.thread, other);
    fixture_collect(&f);
    uint64_t here = cycles_here(f.heap);
    for (; cycles_here(f.heap) == here && steps < 10000000; steps += 100) churn(f.thread, lists, steps, 100);
    CHECK(cycles_here(f.heap) > here); /* and it is tried again */
    TRI_POP(f.thread, lists);
    fixture_close(&f);
}
