/*
 * Ranked locks: mutual exclusion, waiting with and without a timeout, and, in checked builds, a violation of the order
 * that ends the process with a message naming both locks.
 */
#include "tests/process.h"

#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/lock.h"
#include "alloc/base/os.h"

static struct lock central, central_too, pages, metadata;

static void begin(void) {
    tri__lock_init(&central, RANK_CENTRAL, "central list");
    tri__lock_init(&central_too, RANK_CENTRAL, "another central list");
    tri__lock_init(&pages, RANK_PAGEHEAP, "page heap");
    tri__lock_init(&metadata, RANK_FIXALLOC, "metadata");
}

static void end(void) {
    tri__lock_fini(&metadata);
    tri__lock_fini(&pages);
    tri__lock_fini(&central_too);
    tri__lock_fini(&central);
}

TEST(lock, rising_ranks_are_taken_and_held) {
    begin();
    CHECK(tri__lock_none_held());
    tri__lock_acquire(&central);
    tri__lock_acquire(&pages);
    CHECK(tri__lock_held(&central) && tri__lock_held(&pages));
    CHECK_EQ(tri__lock_none_held(), TRI_CHECKS == 0);
    CHECK_EQ(tri__lock_held(&metadata), TRI_CHECKS == 0);
    tri__lock_release(&central); /* not in the order of taking: allowed */
    CHECK_EQ(tri__lock_held(&central), TRI_CHECKS == 0);
    tri__lock_acquire(&metadata);
    tri__lock_release(&pages);
    tri__lock_release(&metadata);
    CHECK(tri__lock_none_held());
    tri__lock_acquire(&central);
    tri__lock_release(&central);
    end();
}

/* ---- Violations, each in a child whose standard error is read ---- */

#if TRI_CHECKS >= 1

static void take_lower(const void *arg) {
    (void)arg;
    tri__lock_acquire(&pages);
    tri__lock_acquire(&central);
}

static void take_equal(const void *arg) {
    (void)arg;
    tri__lock_acquire(&central);
    tri__lock_acquire(&central_too);
}

static void take_again(const void *arg) {
    (void)arg;
    tri__lock_acquire(&pages);
    tri__lock_acquire(&pages);
}

static void take_lower_after_release(const void *arg) {
    (void)arg;
    tri__lock_acquire(&central);
    tri__lock_acquire(&metadata);
    tri__lock_release(&central);
    tri__lock_acquire(&pages);
}

static void release_free(const void *arg) {
    (void)arg;
    tri__lock_acquire(&central);
    tri__lock_release(&pages);
}

static void wait_below_another(const void *arg) {
    (void)arg;
    struct cond cond;
    tri__cond_init(&cond);
    tri__lock_acquire(&central);
    tri__lock_acquire(&pages);
    tri__cond_wait_for(&cond, &central, 1);
}

static void wait_without(const void *arg) {
    (void)arg;
    struct cond cond;
    tri__cond_init(&cond);
    tri__cond_wait_for(&cond, &central, 1);
}

TEST(lock, violations_abort_and_name_the_locks) {
    static const struct {
        void (*body)(const void *);
        const char *invariant, *first, *second;
    } cases[] = {
        {take_lower, "I-LOCK1", "central list (rank 50)", "holding page heap (rank 70)"},
        {take_equal, "I-LOCK1", "another central list (rank 50)", "holding central list (rank 50)"},
        {take_again, "I-LOCK1", "page heap (rank 70)", "holding page heap (rank 70)"},
        {take_lower_after_release, "I-LOCK1", "page heap (rank 70)", "holding metadata (rank 80)"},
        {release_free, "I-LOCK2", "page heap (rank 70)", "does not hold it"},
        {wait_below_another, "I-LOCK3", "central list (rank 50)", "taken last is page heap (rank 70)"},
        {wait_without, "I-LOCK3", "central list (rank 50)", "does not hold it"},
    };
    begin();
    for (size_t i = 0; i < TRI_COUNT(cases); i++) {
        char text[1024];
        int status = process_in_child(cases[i].body, NULL, text, sizeof text);
        CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "case %zu: status %#x, said: %s", i,
                  (unsigned)status, text);
        CHECK_MSG(strstr(text, "trigc: broken invariant ") == text, "case %zu: %s", i, text);
        CHECK_MSG(strstr(text, cases[i].invariant) != NULL, "case %zu: %s", i, text);
        CHECK_MSG(strstr(text, cases[i].first) != NULL, "case %zu: %s", i, text);
        CHECK_MSG(strstr(text, cases[i].second) != NULL, "case %zu: %s", i, text);
        if (!TEST_EMULATED) /* the emulator has its say, too */
            CHECK_MSG(strchr(text, '\n') == text + strlen(text) - 1, "case %zu: %s", i, text);
    }
    end();
}

#endif

/* ---- Several threads ---- */

enum { THREADS = 4, ROUNDS = 20000 };

static struct {
    struct lock lock;
    struct cond turn;
    uint64_t count; /* [lock], not atomic: the lock must order it */
    unsigned next;  /* [lock] whose turn it is */
} shared;

static void count_up(void *arg) {
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        tri__lock_acquire(&shared.lock);
        shared.count++;
        tri__lock_release(&shared.lock);
    }
    CHECK(tri__lock_none_held());
}

static void run_threads(void (*body)(void *arg)) {
    struct os_thread threads[THREADS];
    static unsigned numbers[THREADS];
    tri__lock_init(&shared.lock, RANK_WORK, "shared");
    tri__cond_init(&shared.turn);
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(tri__os_thread_start(&threads[i], body, &numbers[i], "lock test"));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        tri__os_thread_join(&threads[i]);
    }
    tri__cond_fini(&shared.turn);
    tri__lock_fini(&shared.lock);
}

TEST(lock, one_thread_at_a_time) {
    run_threads(count_up);
    CHECK_EQ(shared.count, (uint64_t)THREADS * ROUNDS);
}

static uint32_t holds, wanted; /* [atomic] */

/* Until the thread that wants the lock sleeps for it, however late it gets a core. */
static void hold_until_waited_for(void *arg) {
    const uint64_t *waiter_id = arg;
    tri__lock_acquire(&central);
    atomic_store_release(&holds, 1);
    while (!atomic_load_acquire(&wanted) || !process_thread_sleeps(*waiter_id)) tri__os_yield();
    tri__lock_release(&central);
}

/* Whoever waits is told for how long, and for which lock, once; a lock that is free is no wait. */
TEST(lock, a_wait_is_told_with_its_rank) {
    struct os_thread holder;
    uint64_t own_id = tri__os_thread_id();
    int rank = 0;
    begin();
    tri__lock_acquire(&pages);
    tri__lock_release(&pages);
    CHECK_EQ(tri__lock_take_waited(&rank), 0);
    CHECK(tri__os_thread_start(&holder, hold_until_waited_for, &own_id, "holder"));
    while (!atomic_load_acquire(&holds)) tri__os_yield();
    atomic_store_release(&wanted, 1);
    tri__lock_acquire(&central);
    tri__lock_release(&central);
    tri__os_thread_join(&holder);
    CHECK(tri__lock_take_waited(&rank) > 0);
    CHECK_EQ(rank, RANK_CENTRAL);
    CHECK_EQ(tri__lock_take_waited(&rank), 0);
    end();
}

/* Each thread waits for its turn; a broadcast that is lost would hang the ring. */
static void take_turns(void *arg) {
    unsigned own = *(unsigned *)arg;
    for (int i = 0; i < 500; i++) {
        tri__lock_acquire(&shared.lock);
        while (shared.next != own) {
            if (i % 2 == 0) {
                tri__cond_wait(&shared.turn, &shared.lock);
            } else {
                tri__cond_wait_for(&shared.turn, &shared.lock, UINT64_MAX); /* a timeout beyond the clock's range */
            }
            CHECK(tri__lock_held(&shared.lock));
        }
        shared.next = (own + 1) % THREADS;
        shared.count++;
        tri__cond_broadcast(&shared.turn);
        tri__lock_release(&shared.lock);
    }
}

TEST(lock, waiters_are_woken, .timeout = 60) {
    run_threads(take_turns);
    CHECK_EQ(shared.count, THREADS * 500);
}

TEST(lock, a_wait_times_out) {
    static const uint64_t timeouts_ns[] = {0, 1, 999999, 30000000, 1010000000};
    struct lock lock;
    struct cond cond;
    tri__lock_init(&lock, RANK_CYCLE, "cycle");
    tri__cond_init(&cond);
    tri__lock_acquire(&lock);
    for (size_t i = 0; i < TRI_COUNT(timeouts_ns); i++) {
        uint64_t start = tri__os_now_ns();
        while (tri__cond_wait_for(&cond, &lock, timeouts_ns[i])) { /* woken for no reason: wait again */
            start = tri__os_now_ns();
        }
        CHECK(tri__os_now_ns() - start >= timeouts_ns[i]);
        CHECK(tri__lock_held(&lock));
    }
    tri__lock_release(&lock);
    tri__cond_fini(&cond);
    tri__lock_fini(&lock);
}
