/*
 * A crowd: 1,000 attached threads, of which as many run as there are cores and the others are blocked. How long a
 * handshake takes from its post to its last answer, what one idle thread keeps of memory (also one that used thousands
 * of layouts once), and that nobody is woken in
 * vain or left waiting: rounds upon rounds of handshakes while threads fall asleep and wake up; and 10,000 threads that
 * are made and end while cycles run.
 *
 * The times are printed, not judged: a machine with other work to do makes them anything. (5 ms is what they should
 * stay below.) A million rounds over 5 threads, and 300 over a thousand that fall asleep and wake up all the time, or,
 * with TRI_TEST_STRESS=1, 10,000. TRI_CROWD_ROUNDS sets another number of the former, TRI_CROWD_ROUNDS_OF_MANY of the
 * latter.
 */
#include "tests/fixture.h"

#include "tests/process.h"

enum { NTHREADS = TEST_IS_SLOW ? 100 : 1000, NSTORM = TEST_IS_SLOW ? 500 : 10000 };

struct crowd {
    tri_heap *heap;
    uint32_t nblocked, go_on, stop; /* [atomic] */
    uint64_t nops;
};
static struct crowd crowd;

static void *until_told(void *arg) {
    (void)arg;
    atomic_add_acqrel(&crowd.nblocked, 1);
    while (!atomic_load_acquire(&crowd.go_on)) tri__os_futex_wait(&crowd.go_on, 0, 0);
    return NULL;
}

/* Allocates something of several kinds, so that it has holes and spans to give back, and sleeps. */
static void *sleeper(void *arg) {
    (void)arg;
    tri_thread *t = fixture_attach(crowd.heap);
    TRI_LOCALS(t, roots, 1);
    struct pair *p = roots[0] = tri_new(t, &pair_type);
    p->value = 0xabcd;
    for (int i = 0; i < 20; i++) CHECK(tri_new(t, &leaf_type) && tri_new_bytes(t, (size_t)(1 + i) * 100));
    tri_blocking(t, until_told, NULL);
    CHECK_EQ(p->value, 0xabcd);
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* On a small stack: where memory is not overcommitted (vm.overcommit_memory=2) a thousand of the usual size are not to
 * be had. */
static pthread_t start_thread(void *(*fn)(void *), void *arg) {
    enum { STACK_BYTES = 512 << 10 };
    pthread_t thread;
    pthread_attr_t attr;
    CHECK_EQ(pthread_attr_init(&attr), 0);
    CHECK_EQ(pthread_attr_setstacksize(&attr, STACK_BYTES), 0);
    int err = pthread_create(&thread, &attr, fn, arg);
    CHECK_MSG(err == 0, "pthread_create: %s", strerror(err));
    pthread_attr_destroy(&attr);
    return thread;
}

/* Runs and polls. It allocates a little with each cycle, and no more however long that one takes: no other is started
 * by it. */
static void *runner(void *arg) {
    (void)arg;
    tri_thread *t = fixture_attach(crowd.heap);
    for (uint64_t seen = UINT64_MAX; !atomic_load_acquire(&crowd.stop); tri_poll(t)) {
        uint64_t cycles = atomic_load_relaxed(&crowd.heap->stats.cycles); /* a counter */
        if (cycles == seen) continue;
        seen = cycles;
        for (int i = 0; i < 10000; i++) CHECK(tri_new(t, &pair_type) != NULL);
    }
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

static void wake_all(void) {
    atomic_store_release(&crowd.go_on, 1);
    tri__os_futex_wake_all(&crowd.go_on);
}

static pthread_t sleepers[NTHREADS];

static void gather(const struct fixture *f) {
    crowd = (struct crowd){.heap = f->heap};
    for (int i = 0; i < NTHREADS; i++) sleepers[i] = start_thread(sleeper, NULL);
    while (atomic_load_acquire(&crowd.nblocked) < NTHREADS) {
        tri_poll(f->thread);
        fixture_sleep_ms(1);
    }
}

static void scatter(const struct fixture *f) {
    wake_all();
    for (int i = 0; i < NTHREADS; i++) fixture_join(f->thread, sleepers[i]);
}

/* ---- how long a handshake takes --------------------------------------------------------------------------------- */

/* Post to last answer of each step, as the phases' events tell it. */
static struct {
    uint64_t since_ns, took_ns[400];
    uint32_t n;
} steps;

static int compare_ns(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void on_phase(const tri_event *event, void *user) {
    (void)user;
    if (event->kind != TRI_EVENT_PHASE) return;
    if (steps.since_ns && steps.n < TRI_COUNT(steps.took_ns))
        steps.took_ns[steps.n++] = event->time_ns - steps.since_ns; /* these three are a handshake and nothing else */
    bool is_step = !strcmp(event->phase, "arm") || !strcmp(event->phase, "settle") || !strcmp(event->phase, "disarm");
    steps.since_ns = is_step ? event->time_ns : 0;
}

TEST(crowd, a_handshake_over_a_thousand_threads, .timeout = 120) {
    enum { NCYCLES = TEST_IS_SLOW ? 5 : 20 };
    tri_config config = fixture_config(TRI_HEAP_EVENTS | TRI_HEAP_NO_CYCLES); /* the figures are of forced ones */
    process_without_huge_pages();                                             /* a thousand stacks */
    config.event = on_phase;
    struct fixture f = fixture_open_config(&config);
    gather(&f);
    unsigned ncores = tri__os_ncpus();
    pthread_t runners[64];
    unsigned nrunners = ncores < 64 ? ncores : 64; /* who asks for the cycles is blocked meanwhile */
    for (unsigned i = 0; i < nrunners; i++) runners[i] = start_thread(runner, NULL);
    for (int i = 0; i < NCYCLES; i++) fixture_collect(&f);
    atomic_store_release(&crowd.stop, 1);
    for (unsigned i = 0; i < nrunners; i++) fixture_join(f.thread, runners[i]);
    CHECK(steps.n >= NCYCLES * 3);
    qsort(steps.took_ns, steps.n, sizeof steps.took_ns[0], compare_ns);
    printf(
        "%d blocked, %u running: %u handshakes (5 ms each), median %.3f ms, nine of ten below %.3f, longest %.3f ms\n",
        NTHREADS, nrunners, steps.n, (double)steps.took_ns[steps.n / 2] / 1e6,
        (double)steps.took_ns[steps.n * 9 / 10] / 1e6, (double)steps.took_ns[steps.n - 1] / 1e6);
    scatter(&f);
    fixture_close(&f);
}

/* ---- what an idle thread keeps ---------------------------------------------------------------------------------- */

TEST(crowd, an_idle_thread_keeps_little, .timeout = 120) {
    if (TEST_IS_SLOW) return; /* their memory is in the figures */
    process_without_huge_pages();
    struct fixture f = fixture_open();
    crowd = (struct crowd){.heap = f.heap};
    size_t before = process_anonymous_bytes();
    for (int i = 0; i < NTHREADS; i++) sleepers[i] = start_thread(until_told, NULL);
    while (atomic_load_acquire(&crowd.nblocked) < NTHREADS) fixture_sleep_ms(1);
    size_t bare = process_anonymous_bytes() - before;
    scatter(&f);
    before = process_anonymous_bytes();
    gather(&f);
    fixture_collect(&f); /* holes and page caches go back */
    for (struct mutator *m = f.heap->threads; m; m = m->next) {
        if (m == mutator_of(f.thread)) continue;
        CHECK(cache_first(&m->cache) == NULL && m->cache.block.free == 0);
    }
    tri_trim(f.heap);
    size_t attached = process_anonymous_bytes() - before;
    size_t each = attached > bare ? (attached - bare) / NTHREADS : 0;
    printf("an idle thread: %zu bytes with its stack, of which %zu are there without a heap; %zu are the heap's\n",
           attached / NTHREADS, bare / NTHREADS, each);
    CHECK_MSG(each <= 40 << 10, "%zu bytes for each attached thread", each);
    scatter(&f);
    fixture_close(&f);
}

/* How much of its table of holes has memory. */
static size_t table_pages(const tri_thread *t) {
    static unsigned char in[HOLE_TABLE_BYTES / 4096];
    size_t n = 0, page_bytes = tri__os_page_size();
    CHECK_EQ(mincore((void *)(uintptr_t)t->holes, HOLE_TABLE_BYTES, in), 0);
    for (size_t i = 0; i < HOLE_TABLE_BYTES / page_bytes; i++) n += in[i] & 1;
    return n * page_bytes / HOLE_PAGE_BYTES;
}

enum { MANY_TYPES = 4000 };
static tri_type many_types[MANY_TYPES];

static void use_many_types(tri_thread *t) {
    for (int i = 0; i < MANY_TYPES; i++) {
        many_types[i].struct_size = sizeof(tri_type);
        many_types[i].name = "one of many";
        many_types[i].size = 8;
        many_types[i].flags = TRI_TYPE_LEAF;
        uint64_t *obj = tri_new(t, &many_types[i]);
        CHECK(obj != NULL);
        *obj = (uint64_t)i;
    }
}

static void *collect_twice(void *arg) {
    tri_thread *t = fixture_attach(arg);
    for (int i = 0; i < 2; i++) CHECK_EQ(tri_collect(t), TRI_OK);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

TEST(crowd, a_thread_gives_the_table_of_many_layouts_back, .timeout = 60) {
    enum { TOUCHED = MANY_TYPES * sizeof(tri_hole) / HOLE_PAGE_BYTES };
    process_without_huge_pages();
    struct fixture f = fixture_open();
    for (int i = 0; i < 3; i++) { /* in use: it stays */
        use_many_types(f.thread);
        fixture_collect(&f);
        CHECK_MSG(table_pages(f.thread) >= TOUCHED, "%zu pages", table_pages(f.thread));
    }
    fixture_collect(&f); /* it was not used since the last one */
    CHECK_MSG(table_pages(f.thread) <= HOLE_PAGES_KEPT, "%zu pages", table_pages(f.thread));
    use_many_types(f.thread);
    CHECK(table_pages(f.thread) >= TOUCHED);
    pthread_t other; /* for a thread that is blocked the collector does it */
    CHECK_EQ(pthread_create(&other, NULL, collect_twice, f.heap), 0);
    fixture_join(f.thread, other);
    CHECK_MSG(table_pages(f.thread) <= HOLE_PAGES_KEPT, "%zu pages", table_pages(f.thread));
    use_many_types(f.thread);
    fixture_close(&f);
}

/* ---- rounds ----------------------------------------------------------------------------------------------------- */

static void *moment(void *arg) {
    uint64_t r = (uint64_t)(uintptr_t)arg;
    if (r % 16 == 0) tri__os_yield();
    if (r % 256 == 1) nanosleep(&(struct timespec){.tv_nsec = (long)(r >> 8) % 100000}, NULL);
    return NULL;
}

/* In and out of blocking regions, so that each answer may be the thread's own or the collector's. */
static void *dozer(void *arg) {
    uint64_t rng = fixture_seed() * (2 * (uint64_t)(uintptr_t)arg + 1);
    tri_thread *t = fixture_attach(crowd.heap);
    while (!atomic_load_acquire(&crowd.stop)) {
        uint64_t r = fixture_random(&rng) >> 16;
        tri_blocking(t, moment, (void *)(uintptr_t)r);
        for (uint64_t i = r >> 32 & 255; i > 0; i--) tri_poll(t); /* runs for as long, about */
        atomic_add_relaxed(&crowd.nops, 1);
    }
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* Somebody went through a region since the cycle before: the threads are in every state when the steps come. */
static void await_a_region(tri_thread *t, uint64_t *seen) {
    while (atomic_load_relaxed(&crowd.nops) == *seen) {
        tri_poll(t);
        tri__os_yield();
    }
    *seen = atomic_load_relaxed(&crowd.nops);
}

/* Nobody looks again by himself (silent_after_ms is 0): a collector that is not woken sleeps on, and the heap's wait
 * limit ends the wait for it; a thread that is not woken hangs. */
static void run_rounds(uint64_t nrounds, int ndozers) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.wait_limit_ms = 20000;
    config.silent_after_ms = 0;
    struct fixture f = fixture_open_config(&config);
    crowd = (struct crowd){.heap = f.heap};
    pthread_t *dozers = sleepers;
    for (int i = 0; i < ndozers; i++) dozers[i] = start_thread(dozer, (void *)(uintptr_t)i);
    uint64_t start = tri__os_now_ns(), before = atomic_load_relaxed(&f.heap->step_seq), worst_ns = 0;
    uint64_t seen = 0;
    while (atomic_load_relaxed(&f.heap->step_seq) - before < nrounds) {
        await_a_region(f.thread, &seen);
        uint64_t began = tri__os_now_ns();
        fixture_collect(&f);
        uint64_t took_ns = tri__os_now_ns() - began;
        if (took_ns > worst_ns) worst_ns = took_ns;
    }
    atomic_store_release(&crowd.stop, 1);
    for (int i = 0; i < ndozers; i++) fixture_join(f.thread, dozers[i]);
    printf("%llu rounds over %d threads in %.1f s, %llu regions entered; the longest cycle took %.1f ms\n",
           (unsigned long long)nrounds, ndozers + 1, (double)(tri__os_now_ns() - start) / 1e9,
           (unsigned long long)crowd.nops, (double)worst_ns / 1e6);
    fixture_close(&f);
}

TEST(crowd, no_wakeup_is_lost, .timeout = 900) {
    run_rounds(test_env_u64("TRI_CROWD_ROUNDS", TEST_IS_SLOW ? 2000 : 1000000), 4);
}

TEST(crowd, no_wakeup_of_a_thousand_is_lost, .timeout = 900) {
    enum { NDOZERS = NTHREADS - 1 };
    run_rounds(test_env_u64("TRI_CROWD_ROUNDS_OF_MANY", test_stress() ? 10000 : 300), NDOZERS);
}

/* ---- coming and going ------------------------------------------------------------------------------------------- */

static void *visitor(void *arg) {
    tri_thread *t = fixture_attach(crowd.heap);
    struct pair *p = tri_new(t, &pair_type);
    CHECK(p && tri_new_bytes(t, 500));
    if ((uintptr_t)arg % 4 == 0) tri_blocking(t, moment, arg);
    if ((uintptr_t)arg % 8 != 1) CHECK_EQ(tri_detach(t), TRI_OK); /* else the thread's end does it */
    atomic_add_relaxed(&crowd.nops, 1);
    return NULL;
}

static void *collect_on(void *arg) {
    (void)arg;
    tri_thread *t = fixture_attach(crowd.heap);
    while (!atomic_load_acquire(&crowd.stop)) CHECK_EQ(tri_collect(t), TRI_OK);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

TEST(crowd, ten_thousand_threads_come_and_go_during_cycles, .timeout = 300) {
    enum { AT_ONCE = 16 };
    struct fixture f = fixture_open();
    crowd = (struct crowd){.heap = f.heap};
    pthread_t collector = start_thread(collect_on, NULL), threads[AT_ONCE];
    uint64_t start = tri__os_now_ns(), cycles = fixture_stats(f.heap).cycles;
    for (uintptr_t i = 0; i < NSTORM + AT_ONCE; i++) {
        if (i >= AT_ONCE) fixture_join(f.thread, threads[i % AT_ONCE]);
        if (i < NSTORM) threads[i % AT_ONCE] = start_thread(visitor, (void *)i);
    }
    atomic_store_release(&crowd.stop, 1);
    fixture_join(f.thread, collector);
    tri_stats stats = fixture_stats(f.heap);
    printf("%d threads came and went in %.2f s, during %llu cycles\n", NSTORM, (double)(tri__os_now_ns() - start) / 1e9,
           (unsigned long long)(stats.cycles - cycles));
    CHECK_EQ(crowd.nops, NSTORM);
    CHECK_EQ(stats.nthreads, 1);
    CHECK(stats.cycles > cycles);
    CHECK_MSG(f.heap->fix_mutator.mapped_bytes < 64 * sizeof(struct mutator), "records of threads: %zu bytes mapped",
              f.heap->fix_mutator.mapped_bytes);
    fixture_close(&f);
}
