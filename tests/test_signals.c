/*
 * Signals of the host. A storm of them, with SA_RESTART and without, on threads that allocate, store, block, collect
 * and wait: every call of the system may end with EINTR, every instruction may be interrupted, and nothing is lost as
 * long as the handlers do not call trigc. A handler that does, in the middle of another call, is told so in builds with
 * checks; it is interrupted in the place where the call sleeps for a planted delay, in this program's own nanosleep.
 * What the host's own functions call inside a call (tri_blocking's, cleanups, hooks) is no such interruption.
 */
#include "tests/fixture.h"

#include <signal.h>
#include <sys/time.h>

enum { NTHREADS = 3, NSLOTS = 8, MAX_LENGTH = 20, MAGIC = 0x51617a1 };

/* ---- the storm -------------------------------------------------------------------------------------------------- */

struct storm {
    tri_heap *heap;
    tri_root *range;
    void *slots[NSLOTS];
    uint32_t stop, nready;
    pthread_t threads[NTHREADS];
    uint64_t nops;
};
static struct storm storm;
static uint64_t nhandled; /* [atomic] */

/* What a handler may do: anything but call trigc. */
static void on_signal(int number, siginfo_t *info, void *context) {
    int saved = errno;
    (void)number, (void)info, (void)context;
    atomic_add_relaxed(&nhandled, 1);
    char buffer[512]; /* it has a frame, on whatever stack this is */
    memset(buffer, 0x5a, sizeof buffer);
    __asm__ volatile("" : : "r"(buffer) : "memory");
    sched_yield();
    errno = saved;
}

static void set_handlers(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags = SA_SIGINFO; /* what it interrupts ends with EINTR */
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
}

static void *nap(void *arg) {
    nanosleep(&(struct timespec){.tv_nsec = (long)(uintptr_t)arg}, NULL);
    return NULL;
}

static void check_list(tri_thread *t, size_t slot, void **root, uint32_t *length) {
    *length = 0;
    for (const struct pair *p = *root = tri_load(&storm.slots[slot]); p; p = tri_load(&p->left), ++*length) {
        CHECK_EQ(p->value, MAGIC);
        if (*length == MAX_LENGTH / 2) tri_poll(t);
    }
}

static void operate(tri_thread *t, uint64_t *rng) {
    uint64_t r = fixture_random(rng) >> 16;
    TRI_LOCALS(t, roots, 2);
    uint32_t length;
    check_list(t, r % NSLOTS, &roots[0], &length);
    if (length >= MAX_LENGTH) roots[0] = NULL;
    for (int i = 0; i < 20; i++) {
        struct pair *p = roots[1] = tri_new(t, &pair_type);
        CHECK(p != NULL);
        p->value = MAGIC;
        tri_store(t, p, &p->left, i ? NULL : roots[0]);
        if (i == 0) tri_root_store(t, storm.range, &storm.slots[(r >> 8) % NSLOTS], p);
    }
    void *block = tri_manual_alloc(storm.heap, 1 + (r >> 20) % 5000);
    CHECK(block && tri_new_bytes(t, (r >> 24) % 3000) && tri_new_n(t, &array_type, 5000));
    tri_manual_free(storm.heap, block);
    if (r % 16 == 0) tri_blocking(t, nap, (void *)(uintptr_t)(r % 200000));
    if (r % 64 == 1) CHECK_EQ(tri_collect(t), TRI_OK);
    if (r % 256 == 2) CHECK_EQ(tri_verify(t), 0);
    if (r % 256 == 3) CHECK(tri_walk(t, NULL, NULL) > 0);
    if (r % 64 == 4) tri_trim(storm.heap);
    TRI_POP(t, roots);
    atomic_add_relaxed(&storm.nops, 1);
}

static void *storm_thread(void *arg) {
    uint64_t rng = fixture_seed() * (2 * (uint64_t)(uintptr_t)arg + 1);
    tri_thread *t = fixture_attach(storm.heap);
    atomic_add_acqrel(&storm.nready, 1);
    while (!atomic_load_acquire(&storm.stop)) {
        operate(t, &rng);
        if (fixture_random(&rng) % 32 == 0) {
            CHECK_EQ(tri_detach(t), TRI_OK);
            t = fixture_attach(storm.heap);
        }
    }
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

TEST(signals, a_storm_of_them_on_every_thread_breaks_nothing, .timeout = 120) {
    uint64_t seconds = test_stress() ? 30 : 2, rng = fixture_seed();
    tri_config config = fixture_config(0);
    struct fixture f = fixture_open_config(&config);
    storm.heap = f.heap;
    storm.range = tri_root_add(f.thread, storm.slots, NSLOTS, NULL);
    if (TRI_CHECKS) fixture_set(f.heap, "stress.delay=50");
    set_handlers();
    for (int i = 0; i < NTHREADS; i++)
        CHECK_EQ(pthread_create(&storm.threads[i], NULL, storm_thread, (void *)(uintptr_t)i), 0);
    while (atomic_load_acquire(&storm.nready) < NTHREADS) tri_poll(f.thread), sched_yield();
    struct itimerval timer = {{0, 300}, {0, 300}};
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
    uint64_t end = tri__os_now_ns() + seconds * 1000000000ull, nsent = 0;
    while (tri__os_now_ns() < end) {
        for (int i = 0; i < NTHREADS; i++, nsent++)
            pthread_kill(storm.threads[i], fixture_random(&rng) % 2 ? SIGUSR1 : SIGUSR2);
        operate(f.thread, &rng);
    }
    timer = (struct itimerval){{0, 0}, {0, 0}};
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
    atomic_store_release(&storm.stop, 1);
    for (int i = 0; i < NTHREADS; i++) fixture_join(f.thread, storm.threads[i]);
    printf("%llu signals handled, %llu operations\n", (unsigned long long)nhandled, (unsigned long long)storm.nops);
    CHECK(atomic_load_relaxed(&nhandled) > 100);
    fixture_set(f.heap, "stress.delay=0");
    tri_root_remove(f.thread, storm.range);
    fixture_close(&f);
}

/* The library's own threads leave the host's signals to the host's. */
TEST(signals, the_librarys_threads_take_none) {
    struct fixture f = fixture_open();
    fixture_collect(&f);
    sigset_t own, blocked;
    sigemptyset(&own);
    sigaddset(&own, SIGUSR1);
    set_handlers();
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &own, &blocked), 0);
    CHECK_EQ(kill(getpid(), SIGUSR1), 0); /* to any thread that lets it in: there is none */
    fixture_sleep_ms(20);
    CHECK_EQ(atomic_load_relaxed(&nhandled), 0);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, &blocked, NULL), 0);
    CHECK(atomic_load_relaxed(&nhandled) > 0);
    fixture_close(&f);
}

/* ---- a handler that calls trigc --------------------------------------------------------------------------------- */

static tri_thread *interrupted; /* the thread whose next delay is interrupted */
static void (*in_handler)(void);

static void on_delay(int number) {
    (void)number;
    in_handler();
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    if (pthread_equal(test_own_thread, pthread_self()) && interrupted) { /* written by that thread alone */
        interrupted = NULL;
        raise(SIGUSR1);
    }
    int err = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
    return err ? (errno = err, -1) : 0;
}

#if TRI_CHECKS >= 1

static struct fixture *signalled;
static tri_heap *other_heap;

static void collect_in_handler(void) {
    CHECK(tri_collect(signalled->thread) != TRI_OK);
}
static void make_handle_in_handler(void) {
    CHECK(tri_global(signalled->thread, NULL) == NULL);
}
static void allocate_by_hand_in_handler(void) {
    CHECK(tri_manual_alloc(signalled->heap, 10) == NULL);
}
static void set_in_handler(void) {
    CHECK_EQ(tri_heap_set(signalled->heap, "growth_percent=70"), TRI_ESTATE);
}
static void attach_in_handler(void) {
    tri_thread *thread = NULL;
    CHECK_EQ(tri_attach(other_heap, 0, &thread), TRI_ESTATE);
}

static void allocate_now(void) {
    CHECK(tri_new_n(signalled->thread, &array_type, 4000) != NULL);
}
static void poll_now(void) {
    atomic_store_release(&signalled->thread->request, 1); /* as a collector that asks */
    tri_poll(signalled->thread);
}
static tri_handle stored;
static void store_now(void) {
    struct pair *p = tri_deref(stored);
    tri_store(signalled->thread, p, &p->left, p);
}

static void attach_now(void) {
    CHECK_EQ(tri_detach(fixture_attach(other_heap)), TRI_OK);
}
static void *do_nothing(void *arg) {
    return arg;
}
static void block_now(void) {
    tri_blocking(signalled->thread, do_nothing, NULL);
    sched_yield(); /* the collector has steps to post */
}
static void *call_in_from_inside(void *arg) {
    return tri_callin(signalled->thread, do_nothing, arg);
}
static void call_in_now(void) {
    tri_blocking(signalled->thread, call_in_from_inside, NULL);
    sched_yield();
}
enum { LARGE_BYTES = MIB };
static void *by_hand;
static void allocate_by_hand_now(void) {
    void *block = tri_manual_alloc(signalled->heap, LARGE_BYTES);
    CHECK(block != NULL);
    tri_manual_free(signalled->heap, by_hand);
    by_hand = block;
}
static void calloc_by_hand_now(void) {
    tri_manual_free(signalled->heap, tri_manual_calloc(signalled->heap, 1, LARGE_BYTES));
}
static void align_by_hand_now(void) {
    tri_manual_free(signalled->heap, tri_manual_aligned(signalled->heap, 1024, LARGE_BYTES));
}
static void realloc_by_hand_now(void) {
    by_hand = tri_manual_realloc(signalled->heap, by_hand, tri_manual_usable_size(signalled->heap, by_hand) + 1);
    CHECK(by_hand != NULL);
    if (tri_manual_usable_size(signalled->heap, by_hand) < 8 * MIB) return;
    tri_manual_free(signalled->heap, by_hand);
    by_hand = NULL;
}
static void root_by_hand_now(void) {
    tri_root *root;
    CHECK(tri_manual_root_new(signalled->thread, LARGE_BYTES / 8, NULL, &root) != NULL);
    tri_manual_root_free(signalled->thread, root);
}
static void clean_up_nothing(void *arg) {
    (void)arg;
}
static void clean_up_now(void) {
    struct pair *p = tri_new(signalled->thread, &pair_type);
    CHECK_EQ(tri_cleanup_add(signalled->thread, p, clean_up_nothing, NULL), TRI_OK);
    CHECK_EQ(tri_free(signalled->thread, p), TRI_OK);
    CHECK_EQ(tri_cleanup_run(signalled->thread, SIZE_MAX), 1);
}
static void set_now(void) {
    CHECK_EQ(tri_heap_set(signalled->heap, "growth_percent=60"), TRI_OK);
}
static void read_stats_now(void) {
    (void)fixture_stats(signalled->heap);
}
static void make_heap_now(void) { /* with delays of its own: TRI_OPTIONS */
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.workers = 0;
    tri_heap *heap;
    CHECK_EQ(tri_heap_create(&config, &heap), TRI_OK);
    CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
}

/* Calls `fn` until one of its delays was interrupted; the report names both calls. */
static void expect_told(void (*fn)(void), const char *name, void (*handler)(void), const char *call) {
    in_handler = handler;
    fixture_take_reports();
    char under_way[64];
    snprintf(under_way, sizeof under_way, "called while %s is under way", name);
    bool told = false;
    for (int i = 0; i < 100000 && !told; i++) {
        interrupted = signalled->thread;
        fn();
        interrupted = NULL;
        uint32_t n = fixture_take_reports();
        CHECK_MSG(n <= 1, "%s in %s: %u reports", call, name, n);
        if (n == 0) continue;
        CHECK_MSG(strncmp(fixture_report, call, strlen(call)) == 0 && strstr(fixture_report, "signal handler"), "%s",
                  fixture_report);
        told = strstr(fixture_report, under_way) != NULL; /* else it met another call that `fn` makes */
    }
    CHECK_MSG(told, "%s in %s is not told: %s", call, name, fixture_report);
}

TEST(signals, a_handler_that_calls_trigc_in_the_middle_of_a_call_is_told, .timeout = 60) {
    struct fixture f = fixture_open();
    signalled = &f;
    tri_new(f.thread, &leaf_type);
    stored = tri_global(f.thread, tri_new(f.thread, &pair_type));
    fixture_set(f.heap, "stress.delay=5");
    fixture_set(f.heap, "stress.slow=1");
    fixture_collect(&f);
    struct sigaction action = {.sa_handler = on_delay};
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    expect_told(allocate_now, "tri_new_n", collect_in_handler, "tri_collect");
    expect_told(allocate_now, "tri_new_n", make_handle_in_handler, "tri_global");
    expect_told(allocate_now, "tri_new_n", allocate_by_hand_in_handler, "tri_manual_alloc");
    expect_told(store_now, "tri_store", collect_in_handler, "tri_collect");
    expect_told(store_now, "tri_store", make_handle_in_handler, "tri_global");
    expect_told(poll_now, "tri_poll", make_handle_in_handler, "tri_global");
    expect_told(poll_now, "tri_poll", collect_in_handler, "tri_collect");
    fixture_set(f.heap, "stress.slow=0");
    fixture_set(f.heap, "stress.delay=0");
    fixture_collect(&f);
    fixture_close(&f);
}

static void *collect_on(void *arg) {
    tri_thread *t = fixture_attach(signalled->heap);
    while (!atomic_load_acquire((uint32_t *)arg)) CHECK_EQ(tri_collect(t), TRI_OK);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

TEST(signals, one_that_interrupts_coming_going_and_blocking_is_told, .timeout = 60) {
    CHECK_EQ(setenv("TRI_OPTIONS", "stress.delay=5", 1), 0);
    struct fixture f = fixture_open();
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    CHECK_EQ(tri_heap_create(&config, &other_heap), TRI_OK);
    signalled = &f;
    struct sigaction action = {.sa_handler = on_delay};
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    expect_told(attach_now, "tri_attach", allocate_by_hand_in_handler, "tri_manual_alloc");
    expect_told(attach_now, "tri_attach", set_in_handler, "tri_heap_set");
    expect_told(attach_now, "tri_detach", allocate_by_hand_in_handler, "tri_manual_alloc");
    expect_told(attach_now, "tri_detach", attach_in_handler, "tri_attach");
    expect_told(make_heap_now, "tri_heap_create", set_in_handler, "tri_heap_set");
    expect_told(make_heap_now, "tri_heap_destroy", attach_in_handler, "tri_attach");
    uint32_t stop = 0;
    pthread_t collector;
    CHECK_EQ(pthread_create(&collector, NULL, collect_on, &stop), 0);
    expect_told(block_now, "tri_blocking", allocate_by_hand_in_handler, "tri_manual_alloc");
    expect_told(call_in_now, "tri_callin", attach_in_handler, "tri_attach");
    atomic_store_release(&stop, 1);
    fixture_join(f.thread, collector);
    CHECK_EQ(unsetenv("TRI_OPTIONS"), 0);
    CHECK_EQ(tri_heap_destroy(other_heap), TRI_OK);
    fixture_close(&f);
}

TEST(signals, one_that_interrupts_other_calls_is_told, .timeout = 60) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_create(NULL, &other_heap), TRI_OK);
    signalled = &f;
    struct sigaction action = {.sa_handler = on_delay};
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    fixture_set(f.heap, "stress.delay=5");
    expect_told(allocate_by_hand_now, "tri_manual_alloc", allocate_by_hand_in_handler, "tri_manual_alloc");
    expect_told(allocate_by_hand_now, "tri_manual_free", collect_in_handler, "tri_collect");
    expect_told(calloc_by_hand_now, "tri_manual_calloc", set_in_handler, "tri_heap_set");
    expect_told(align_by_hand_now, "tri_manual_aligned", set_in_handler, "tri_heap_set");
    expect_told(realloc_by_hand_now, "tri_manual_realloc", set_in_handler, "tri_heap_set");
    expect_told(root_by_hand_now, "tri_manual_root_new", allocate_by_hand_in_handler, "tri_manual_alloc");
    expect_told(root_by_hand_now, "tri_manual_root_free", set_in_handler, "tri_heap_set");
    expect_told(clean_up_now, "tri_cleanup_run", allocate_by_hand_in_handler, "tri_manual_alloc");
    expect_told(set_now, "tri_heap_set", make_handle_in_handler, "tri_global");
    expect_told(read_stats_now, "tri_stats_get", collect_in_handler, "tri_collect");
    fixture_set(f.heap, "stress.delay=0");
    tri_manual_free(f.heap, by_hand);
    CHECK_EQ(tri_heap_destroy(other_heap), TRI_OK);
    fixture_close(&f);
}

/* ---- the host's own functions, inside a call -------------------------------------------------------------------- */

static uint32_t ncalled;

/* What may be called on any thread; then of the thread's own. */
static void call_some(tri_thread *t) {
    tri_type_data data = {.struct_size = sizeof data};
    void *block = tri_manual_alloc(signalled->heap, LARGE_BYTES);
    CHECK(block != NULL);
    tri_manual_free(signalled->heap, block);
    CHECK_EQ(tri_heap_set(signalled->heap, "growth_percent=60"), TRI_OK);
    CHECK_EQ(tri_type_describe(&pair_type, &data), TRI_OK);
    read_stats_now();
    atomic_add_relaxed(&ncalled, 1);
    if (!t) return;
    CHECK(tri_new(t, &pair_type) && tri_wmap_new(t, NULL));
    CHECK_EQ(tri_collect(t), TRI_OK);
    tri_root *root;
    CHECK(tri_manual_root_new(t, 4, NULL, &root) != NULL);
    tri_manual_root_free(t, root);
}
static void *call_some_inside(void *arg) {
    call_some(arg);
    return NULL;
}
static void *call_some_in_region(void *arg) {
    call_some(NULL);
    tri_callin(arg, call_some_inside, arg);
    return NULL;
}
static void call_some_in_cleanup(void *arg) {
    call_some(arg);
    attach_now();
    tri_blocking(arg, call_some_in_region, arg);
}
static void on_event(const tri_event *event, void *user) {
    (void)event, (void)user;
    call_some(NULL);
}
static int on_no_memory(tri_heap *heap, size_t size_bytes, void *user) {
    (void)heap, (void)size_bytes, (void)user;
    if (signalled->heap) call_some(signalled->thread);
    return 0;
}
static void *end_in_region(void *arg) {
    call_some_in_region(arg);
    pthread_exit(arg);
}

static void *end_in_call(void *arg) {
    tri_thread *t = fixture_attach(signalled->heap);
    (void)arg;
    return tri_blocking(t, end_in_region, t);
}

TEST(signals, what_the_hosts_functions_call_inside_a_call_is_no_interruption) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_RUN_CLEANUPS | TRI_HEAP_NO_CYCLES);
    config.event = on_event;
    config.oom = on_no_memory;
    struct fixture f = {NULL, NULL};
    signalled = &f;
    CHECK_EQ(tri_heap_create(NULL, &other_heap), TRI_OK);
    f = fixture_open_config(&config);
    tri_blocking(f.thread, call_some_in_region, f.thread);
    struct pair *p = tri_new(f.thread, &pair_type);
    CHECK_EQ(tri_cleanup_add(f.thread, p, call_some_in_cleanup, f.thread), TRI_OK);
    CHECK_EQ(tri_free(f.thread, p), TRI_OK);
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), 1);
    CHECK(tri_manual_alloc(f.heap, (size_t)1 << 40) == NULL);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, end_in_call, NULL), 0);
    fixture_join(f.thread, thread);
    CHECK(atomic_load_relaxed(&ncalled) > 8);
    CHECK_EQ(tri_heap_destroy(other_heap), TRI_OK);
    fixture_close(&f);
}

#endif
