/*
 * Signals of the host. A storm of them, with SA_RESTART and without, on threads that allocate, store, block, collect
 * and wait: every call of the system may end with EINTR, every instruction may be interrupted, and nothing is lost as
 * long as the handlers do not call trigc. A handler that does, in the middle of another call, is told so in builds with
 * checks; it is interrupted in the place where the call sleeps for a planted delay, in this program's own nanosleep.
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

static void collect_in_handler(void) {
    CHECK(tri_collect(signalled->thread) != TRI_OK);
}
static void make_handle_in_handler(void) {
    CHECK(tri_global(signalled->thread, NULL) == NULL);
}
static void allocate_by_hand_in_handler(void) {
    CHECK(tri_manual_alloc(signalled->heap, 10) == NULL);
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

/* Calls `fn` until one of its delays was interrupted; the report names both calls. */
static void expect_told(void (*fn)(void), const char *name, void (*handler)(void), const char *call) {
    in_handler = handler;
    fixture_take_reports();
    for (int i = 0; i < 1000 && atomic_load_acquire(&fixture_nreports) == 0; i++) {
        interrupted = signalled->thread;
        fn();
    }
    interrupted = NULL;
    CHECK_MSG(atomic_load_acquire(&fixture_nreports) == 1, "%s in %s: %u reports", call, name, fixture_nreports);
    CHECK_MSG(strncmp(fixture_report, call, strlen(call)) == 0 && strstr(fixture_report, name) &&
                  strstr(fixture_report, "signal handler"),
              "%s", fixture_report);
    fixture_take_reports();
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

#endif
