/*
 * The operating system's layer: address space (reserved, committed, given back, taken back), limits, clocks, futexes,
 * threads. Access that must fault is tried in a child process.
 */
#include "tests/process.h"

#include <sched.h>

#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/os.h"

enum { MIB = 1 << 20 };

/* Whether reading (or writing) one byte ends a process. */
static bool faults(volatile char *byte, bool write) {
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* no sanitizer's or test framework's report of a fault that is meant */
        signal(SIGBUS, SIG_DFL);
        if (write) {
            *byte = 1;
        }
        _exit(*byte == 77 ? 1 : 0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
}

/* ---- Address space ---- */

TEST(os, reserve_is_aligned_and_without_access) {
    static const size_t aligns[] = {1, 4096, 65536, 64 * MIB};
    for (size_t i = 0; i < TRI_COUNT(aligns); i++) {
        size_t size = 3 * (size_t)MIB + tri__os_page_size();
        char *p = tri__os_reserve(size, aligns[i]);
        CHECK(p != NULL);
        CHECK_EQ((uintptr_t)p % aligns[i], 0);
        CHECK(process_is_mapped(p) && process_is_mapped(p + size - tri__os_page_size()));
        CHECK(faults(p, false) && faults(p + size - 1, false));
        tri__os_release(p, size);
        CHECK(!process_is_mapped(p) && !process_is_mapped(p + size - tri__os_page_size()));
    }
}

/* Over-allocation for the alignment is given back: the process grows by the size asked for. */
TEST(os, reserve_keeps_no_slack) {
    size_t before = process_mapped_bytes();
    CHECK(tri__os_reserve(8 * (size_t)MIB, 1024 * (size_t)MIB) != NULL);
    CHECK(process_mapped_bytes() - before < 16 * (size_t)MIB);
}

TEST(os, reserve_refuses_what_cannot_be) {
    CHECK(tri__os_reserve(0, 4096) == NULL);
    CHECK(tri__os_reserve(SIZE_MAX - 4095, 4096) == NULL);
    CHECK(tri__os_reserve(SIZE_MAX - 4095, 64 * MIB) == NULL);
    CHECK(tri__os_reserve((size_t)1 << 62, 4096) == NULL);
    CHECK(tri__os_reserve_readable((size_t)1 << 62) == NULL);
    CHECK(tri__os_map((size_t)1 << 62) == NULL);
    CHECK(tri__os_map(0) == NULL);
    tri__os_release(NULL, 4096);
}

TEST(os, commit_makes_a_part_usable_and_decommit_clears_it) {
    size_t size = 16 * (size_t)MIB, page = tri__os_page_size();
    char *p = tri__os_reserve(size, page);
    CHECK(p != NULL);
    CHECK(tri__os_commit(p + MIB, MIB));
    for (size_t i = 0; i < MIB; i += page) {
        CHECK_EQ(p[MIB + i], 0);
        p[MIB + i] = (char)(i / page + 1);
    }
    CHECK(faults(p + MIB - 1, false) && faults(p + 2 * MIB, false));
    CHECK(tri__os_decommit(p + MIB + page, 2 * page));
    CHECK_EQ(p[MIB], 1);
    CHECK_EQ(p[MIB + page], 0);
    CHECK_EQ(p[MIB + 2 * page], 0);
    CHECK_EQ(p[MIB + 3 * page], 4);
    p[MIB + page] = 9;
    CHECK_EQ(p[MIB + page], 9);
    tri__os_release(p, size);
    CHECK(!tri__os_commit(p, page));
    if (!TEST_EMULATED) CHECK(!tri__os_decommit(p, page)); /* there the range is the emulator's */
}

TEST(os, readable_reads_zero_and_is_written_after_commit) {
    size_t size = (size_t)1 << 32, page = tri__os_page_size();
    char *p = tri__os_reserve_readable(size);
    CHECK(p != NULL);
    for (size_t at = 0; at < size; at += size / 16) {
        CHECK_EQ(p[at], 0);
    }
    CHECK(faults(p + page, true));
    CHECK(tri__os_commit(p + page, page));
    p[page] = 3;
    CHECK_EQ(p[page], 3);
    CHECK_EQ(p[page - 1], 0);
    CHECK(faults(p + 2 * page, true));
    tri__os_release(p, size);
}

TEST(os, map_is_zero_and_writable) {
    char *p = tri__os_map(MIB);
    CHECK(p != NULL);
    for (size_t i = 0; i < MIB; i++) {
        CHECK_EQ(p[i], 0);
    }
    memset(p, 7, MIB);
    tri__os_release(p, MIB);
    CHECK(!process_is_mapped(p));
}

/* ---- Limits ---- */

TEST(os, address_limit_is_the_resource_limit) {
    if (TEST_EMULATED) return; /* it keeps the limit to itself */
    struct rlimit before, lower;
    CHECK_EQ(getrlimit(RLIMIT_AS, &before), 0);
    if (before.rlim_cur == RLIM_INFINITY) {
        CHECK_EQ(tri__os_address_limit_bytes(), SIZE_MAX);
    }
    lower = before;
    lower.rlim_cur = 123456 * 4096;
    CHECK_EQ(setrlimit(RLIMIT_AS, &lower), 0);
    size_t limit = tri__os_address_limit_bytes();
    void *refused = tri__os_reserve((size_t)1 << 40, 4096);
    CHECK_EQ(setrlimit(RLIMIT_AS, &before), 0);
    CHECK_EQ(limit, 123456 * 4096);
    CHECK(refused == NULL);
}

TEST(os, memory_is_at_most_the_machines) {
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    CHECK(tri__os_memory_bytes() >= 16 * (size_t)MIB);
    CHECK(tri__os_memory_bytes() <= machine);
    CHECK(is_power_of_two(tri__os_page_size()));
    CHECK_EQ(tri__os_page_size(), sysconf(_SC_PAGESIZE));
}

TEST(os, cpus_are_those_the_process_may_use) {
    cpu_set_t before, one;
    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    CHECK_EQ(tri__os_ncpus(), CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &before)) {
            CPU_SET(cpu, &one);
        }
    }
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_EQ(tri__os_ncpus(), 1);
    CHECK_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

/* ---- Time and waiting ---- */

TEST(os, the_clock_never_goes_back_and_sleep_lasts) {
    uint64_t last = tri__os_now_ns();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = tri__os_now_ns();
        CHECK(now >= last);
        last = now;
    }
    tri__os_sleep_ns(20000000);
    CHECK(tri__os_now_ns() - last >= 20000000);
    tri__os_yield();
}

static uint32_t word;   /* [atomic] */
static uint32_t nwoken; /* [atomic] */

TEST(os, futex_wait_returns_at_once_or_in_time) {
    uint64_t start = tri__os_now_ns();
    tri__os_futex_wait(&word, 1, 0); /* the word is 0: no wait, though there is no timeout */
    tri__os_futex_wait(&word, 0, 20000000);
    uint64_t took = tri__os_now_ns() - start;
    CHECK(took >= 20000000);
    CHECK(took < 10000000000u);
    tri__os_futex_wake_all(&word);
}

static void wait_for_word(void *arg) {
    (void)arg;
    while (atomic_load_acquire(&word) == 0) { /* partner: the store in the test's body */
        tri__os_futex_wait(&word, 0, 0);
    }
    atomic_add_acqrel(&nwoken, 1u);
}

TEST(os, futex_wakes_all, .timeout = 60) {
    struct os_thread threads[4];
    for (size_t i = 0; i < TRI_COUNT(threads); i++) {
        CHECK(tri__os_thread_start(&threads[i], wait_for_word, NULL, "waiter"));
    }
    tri__os_sleep_ns(20000000); /* most of them are asleep by now; the test holds if none is */
    CHECK_EQ(atomic_load_acquire(&nwoken), 0);
    atomic_store_release(&word, 1u); /* partner: the load in wait_for_word */
    tri__os_futex_wake_all(&word);
    for (size_t i = 0; i < TRI_COUNT(threads); i++) {
        tri__os_thread_join(&threads[i]);
    }
    CHECK_EQ(nwoken, TRI_COUNT(threads));
}

/* ---- Threads ---- */

struct report {
    char name[32];
    uint64_t id;
    uintptr_t low, high, here;
    bool bounds, blocked, own_open;
};

static void fill_report(void *arg) {
    struct report *r = arg;
    sigset_t mask;
    pthread_getname_np(pthread_self(), r->name, sizeof r->name);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    r->blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGUSR1) == 1 &&
                 sigismember(&mask, SIGPROF) == 1 && sigismember(&mask, SIGALRM) == 1;
    r->own_open = sigismember(&mask, SIGSEGV) == 0;
    r->id = tri__os_thread_id();
    r->bounds = tri__os_stack_bounds(&r->low, &r->high);
    r->here = (uintptr_t)__builtin_frame_address(0);
}

TEST(os, a_thread_has_its_name_stack_and_blocked_signals) {
    struct os_thread thread;
    struct report r = {.id = 0};
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    CHECK(tri__os_thread_start(&thread, fill_report, &r, "a name of more than fifteen"));
    tri__os_thread_join(&thread);
    CHECK_STR_EQ(r.name, "a name of more ");
    CHECK(r.blocked && r.own_open);
    CHECK(r.id != 0 && r.id != tri__os_thread_id());
    CHECK(r.bounds && r.low < r.high);
    CHECK(r.high - r.low >= 256 * 1024 && r.high - r.low <= 8 * MIB);
    CHECK(r.here >= r.low && r.here < r.high);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int s = 1; s < 32; s++) {
        CHECK_EQ(sigismember(&before, s), sigismember(&after, s));
    }
}

TEST(os, the_first_thread_knows_its_stack) {
    uintptr_t low = 0, high = 0;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    CHECK(tri__os_stack_bounds(&low, &high));
    CHECK(here >= low && here < high);
    CHECK_EQ(tri__os_thread_id(), getpid());
}

/* The C library reads the first thread's bounds from a file. */
TEST(os, the_first_thread_knows_its_stack_without_a_file_descriptor) {
    uintptr_t low = 0, high = 0, low_without = 0, high_without = 0;
    CHECK(tri__os_stack_bounds(&low, &high));
    process_limit(RLIMIT_NOFILE, 0);
    bool known = tri__os_stack_bounds(&low_without, &high_without);
    process_limit(RLIMIT_NOFILE, SIZE_MAX);
    CHECK(known);
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), above_frames = (uintptr_t)environ;
    CHECK(low_without <= here && here < high_without && above_frames < high_without);
    CHECK(high_without < high + 8 * MIB);
}

static void *fork_and_look(void *child) {
    struct report before, after;
    before.bounds = tri__os_stack_bounds(&before.low, &before.high);
    *(pid_t *)child = fork();
    if (*(pid_t *)child != 0) return NULL;
    after.bounds = tri__os_stack_bounds(&after.low, &after.high);
    _exit(before.bounds && after.bounds && before.low == after.low && before.high == after.high ? 0 : 1);
}

/* The process's first thread is then one whose stack does not grow: what lies below it is not its own. */
TEST(os, a_thread_that_forks_knows_its_stack_in_the_child) {
    pthread_t thread;
    pid_t child = 0;
    int status = 0;
    CHECK_EQ(pthread_create(&thread, NULL, fork_and_look, &child), 0);
    pthread_join(thread, NULL);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

#if !PROCESS_CANNOT_STARVE
TEST(os, a_thread_that_cannot_start_is_refused) {
    struct os_thread thread;
    struct report r = {.id = 0};
    process_limit(RLIMIT_AS, 4096);
    bool started = tri__os_thread_start(&thread, fill_report, &r, "never");
    process_limit(RLIMIT_AS, SIZE_MAX);
    CHECK(!started);
    CHECK(tri__os_thread_start(&thread, fill_report, &r, "now"));
    tri__os_thread_join(&thread);
    CHECK_STR_EQ(r.name, "now");
}
#endif
