/* os_linux.c - os.h on Linux: address space by mmap, time, futexes, threads, limits.
 *
 * Owns: the translation of os.h into system calls. Does not own: any policy (how much to reserve, when to give back).
 *
 * Invariants: I-OS1 a call that fails says so by its value and has changed nothing. I-OS2 a reservation takes no memory
 * and no commit charge (MAP_NORESERVE, no access), a readable one none beyond page tables. I-OS3 nothing here takes a
 * lock of ours. */
#include "alloc/base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/check.h"

enum { NS_PER_S = 1000000000 };

/* ---- Refusals on purpose, for tests ---- */

#if TRI_CHECKS >= 1
static uint64_t ncalls[OS_CALL_KINDS], countdown, nrefusals; /* all [atomic]: counters, which order nothing */

/* Counts the call. True when it is to fail: from the call that brings the countdown to 0 on, as often as was asked. */
static bool refused(enum os_call kind) {
    atomic_add_relaxed(&ncalls[kind], 1);
    if (TRI_LIKELY(atomic_load_relaxed(&nrefusals) == 0)) return false;
    uint64_t left = atomic_load_relaxed(&countdown);
    while (left > 0 && !atomic_cas_relaxed(&countdown, &left, left - 1)) {}
    if (left > 1) return false;
    uint64_t n = atomic_load_relaxed(&nrefusals);
    while (n > 0 && !atomic_cas_relaxed(&nrefusals, &n, n - 1)) {}
    return n > 0;
}

uint64_t tri__os_ncalls(enum os_call kind) {
    return atomic_load_relaxed(&ncalls[kind]);
}

void tri__os_fail_at(uint64_t nth, uint64_t n) {
    atomic_store_relaxed(&nrefusals, 0);
    atomic_store_relaxed(&countdown, nth);
    atomic_store_relaxed(&nrefusals, nth ? n : 0);
}
#else
static bool refused(enum os_call kind) {
    (void)kind;
    return false;
}

uint64_t tri__os_ncalls(enum os_call kind) {
    (void)kind;
    return 0;
}

void tri__os_fail_at(uint64_t nth, uint64_t n) {
    (void)nth, (void)n;
}
#endif

/* ---- Address space ---- */

static void *map(size_t size_bytes, int prot, int extra_flags) {
    if (refused(OS_CALL_MAP)) return NULL;
    void *p = mmap(NULL, size_bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* A range that begins at a multiple of align: too much is mapped, and the ends are given back. */
static void *map_aligned(size_t size_bytes, size_t align, int prot) {
    size_t slack = align > tri__os_page_size() ? align : 0;
    if (size_bytes == 0 || size_bytes > SIZE_MAX - slack) {
        return NULL;
    }
    char *all = map(size_bytes + slack, prot, MAP_NORESERVE);
    if (all == NULL || slack == 0) {
        return all;
    }
    size_t before = align_up((uintptr_t)all, align) - (uintptr_t)all;
    char *aligned = all + before;
    if (before > 0) {
        munmap(all, before);
    }
    if (slack > before) {
        munmap(aligned + size_bytes, slack - before);
    }
    return aligned;
}

void *tri__os_reserve(size_t size_bytes, size_t align) {
    return map_aligned(size_bytes, align, PROT_NONE);
}

void *tri__os_reserve_readable(size_t size_bytes) {
    return map_aligned(size_bytes, size_bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 1, PROT_READ);
}

bool tri__os_advise_huge(void *addr, size_t size_bytes, bool huge) {
    if (refused(OS_CALL_ADVISE)) return false;
    return madvise(addr, size_bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0;
}

bool tri__os_commit(void *addr, size_t size_bytes) {
    if (refused(OS_CALL_PROTECT)) return false;
    return mprotect(addr, size_bytes, PROT_READ | PROT_WRITE) == 0;
}

bool tri__os_decommit(void *addr, size_t size_bytes) {
    if (refused(OS_CALL_ADVISE)) return false;
    return madvise(addr, size_bytes, MADV_DONTNEED) == 0;
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

bool tri__os_populate(void *addr, size_t size_bytes) {
    if (refused(OS_CALL_ADVISE)) return false;
    return madvise(addr, size_bytes, MADV_POPULATE_WRITE) == 0;
}

void tri__os_release(void *addr, size_t size_bytes) {
    if (addr != NULL && size_bytes > 0) {
        munmap(addr, size_bytes);
    }
}

void *tri__os_map(size_t size_bytes) {
    return size_bytes == 0 ? NULL : map(size_bytes, PROT_READ | PROT_WRITE, 0);
}

void *tri__os_map_sparse(size_t size_bytes) {
    return size_bytes == 0 ? NULL : map(size_bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE);
}

/* ---- Limits of the machine and the process ---- */

size_t tri__os_page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Reads a small file whole, as text. False when it cannot be read or is longer than the buffer. */
static bool read_file(const char *path, char *text, size_t capacity) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t length = 0;
    ssize_t n = 1;
    while (n > 0 && length < capacity) {
        n = read(fd, text + length, capacity - length);
        length += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    if (n != 0) {
        return false;
    }
    text[length] = '\0';
    return true;
}

/* The number in one limit file, SIZE_MAX for "max" or for a file that is not there. `path` is completed and
 * restored. */
static size_t limit_in(char *path, size_t capacity, const char *file) {
    char text[64];
    size_t length = strlen(path);
    if (length + strlen(file) + 1 > capacity) {
        return SIZE_MAX;
    }
    memcpy(path + length, file, strlen(file) + 1);
    bool there = read_file(path, text, sizeof text - 1);
    path[length] = '\0';
    if (!there || text[0] < '0' || text[0] > '9') {
        return SIZE_MAX;
    }
    return (size_t)strtoull(text, NULL, 10);
}

/* The lowest limit from one control group up to the root of its hierarchy, mounted at `root`. */
static size_t limit_along(const char *root, const char *group, size_t group_length, const char *file) {
    char path[PATH_MAX];
    size_t root_length = strlen(root);
    size_t lowest = SIZE_MAX;
    if (root_length + group_length + 1 > sizeof path) {
        return SIZE_MAX;
    }
    memcpy(path, root, root_length);
    memcpy(path + root_length, group, group_length);
    path[root_length + group_length] = '\0';
    for (;;) {
        lowest = min_size(lowest, limit_in(path, sizeof path, file));
        char *slash = strrchr(path + root_length, '/');
        if (slash == NULL) {
            return lowest;
        }
        *slash = '\0';
    }
}

/* The control groups' limit on this process: version 2's memory.max, else version 1's memory controller. */
static size_t container_limit_bytes(void) {
    char text[4096];
    size_t lowest = SIZE_MAX;
    if (!read_file("/proc/self/cgroup", text, sizeof text - 1)) {
        return SIZE_MAX;
    }
    char *next = NULL;
    for (char *line = strtok_r(text, "\n", &next); line != NULL; line = strtok_r(NULL, "\n", &next)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        *group++ = '\0';
        controllers++;
        size_t limit = SIZE_MAX;
        if (controllers[0] == '\0') {
            limit = limit_along("/sys/fs/cgroup", group, strlen(group), "/memory.max");
        } else if (strcmp(controllers, "memory") == 0) {
            limit = limit_along("/sys/fs/cgroup/memory", group, strlen(group), "/memory.limit_in_bytes");
        }
        lowest = min_size(lowest, limit);
    }
    return lowest;
}

size_t tri__os_memory_bytes(void) {
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * tri__os_page_size();
    return min_size(machine, container_limit_bytes());
}

size_t tri__os_address_limit_bytes(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return SIZE_MAX;
    }
    return (size_t)limit.rlim_cur;
}

unsigned tri__os_ncpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
        return (unsigned)CPU_COUNT(&set);
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than cpu_set_t has bits */
    return online > 0 ? (unsigned)online : 1;
}

size_t tri__os_cache_bytes(void) {
    enum { GUESS_BYTES = 1 << 20, LEAST_BYTES = 256 << 10, MOST_BYTES = 4 << 20 };
    long bytes = -1;
#ifdef _SC_LEVEL2_CACHE_SIZE
    bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    if (bytes <= 0) return GUESS_BYTES;
    return min_size(max_size((size_t)bytes, LEAST_BYTES), MOST_BYTES);
}

/* ---- Time and waiting ---- */

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t tri__os_now_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t tri__os_recently_ns(void) {
    return clock_ns(CLOCK_MONOTONIC_COARSE);
}

uint64_t tri__os_thread_cpu_ns(void) {
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t tri__os_thread_id(void) {
    return (uint64_t)syscall(SYS_gettid);
}

void tri__os_yield(void) {
    sched_yield();
}

static struct timespec timespec_of(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

void tri__os_sleep_ns(uint64_t ns) {
    struct timespec left = timespec_of(ns);
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

void tri__os_futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns) {
    struct timespec relative = timespec_of(timeout_ns);
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns == 0 ? NULL : &relative, NULL, 0);
}

void tri__os_futex_wake_all(const uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* ---- Threads ---- */

/* The system keeps the 128 MiB below the first thread's stack free of mappings, and gives arguments and environment,
 * which lie above it, 6 MiB at most. */
enum { FIRST_STACK_GAP_BYTES = 128 << 20, FIRST_STACK_ARGS_BYTES = 8 << 20 };

/* The first thread's bounds are read from /proc, which needs it, and a file descriptor. Without them: where the kernel
 * has put its random bytes, every frame of that thread lies below. Other stacks are further away than the gap. */
static bool first_stack_bounds(uintptr_t random, uintptr_t *low, uintptr_t *high) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (here >= random || random - here >= FIRST_STACK_GAP_BYTES / 2) return false;
    *high = align_down(random, 16);
    *low = *high - FIRST_STACK_GAP_BYTES;
    return true;
}

bool tri__os_stack_bounds(uintptr_t *low, uintptr_t *high) {
    pthread_attr_t attr;
    void *base = NULL;
    size_t size_bytes = 0;
    uintptr_t random = (uintptr_t)getauxval(AT_RANDOM); /* on the first thread's stack */
    if (pthread_getattr_np(pthread_self(), &attr) != 0) {
        return first_stack_bounds(random, low, high);
    }
    bool known = pthread_attr_getstack(&attr, &base, &size_bytes) == 0 && base != NULL && size_bytes > 0;
    pthread_attr_destroy(&attr);
    if (known) {
        *low = (uintptr_t)base;
        *high = (uintptr_t)base + size_bytes;
        /* The first thread's stack may grow as far as the limit of the moment says, which can be raised later. In the
         * child of a fork another thread may be the process's first one: its stack does not grow. */
        bool first = random >= *low && random < *high + FIRST_STACK_ARGS_BYTES;
        if (first && size_bytes < FIRST_STACK_GAP_BYTES) {
            *low = *high - FIRST_STACK_GAP_BYTES;
        }
    }
    return known;
}

static void *start_thread(void *context) {
    struct os_thread *thread = context;
    prctl(PR_SET_NAME, thread->name, 0, 0, 0);
    thread->fn(thread->arg);
    return NULL;
}

/* All signals but those that a thread's own instruction raises: blocking those would only hide a crash's handler. */
static void fill_signals(sigset_t *set) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(set);
    for (size_t i = 0; i < TRI_COUNT(own); i++) {
        sigdelset(set, own[i]);
    }
}

/* Only the part that is used costs memory. The C library carves the static thread-local data of the whole process out
 * of it, and does not say how much that is: the UBSan runtime of the checked builds alone has 256 KiB. */
static size_t thread_stack_bytes(void) {
    long least = sysconf(_SC_THREAD_STACK_MIN);
    return align_up(((size_t)1 << 20) + (least > 0 ? (size_t)least : 0), tri__os_page_size());
}

static bool create_thread(pthread_t *handle, struct os_thread *thread) {
    pthread_attr_t attr;
    sigset_t all, before;
    if (refused(OS_CALL_THREAD) || pthread_attr_init(&attr) != 0) {
        return false;
    }
    fill_signals(&all);
    bool started = pthread_attr_setstacksize(&attr, thread_stack_bytes()) == 0;
    if (started) {
        pthread_sigmask(SIG_BLOCK, &all, &before); /* the new thread inherits the mask */
        started = pthread_create(handle, &attr, start_thread, thread) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attr);
    return started;
}

bool tri__os_thread_start(struct os_thread *thread, void (*fn)(void *), void *arg, const char *name) {
    pthread_t handle;
    size_t length = min_size(strlen(name), sizeof thread->name - 1);
    memcpy(thread->name, name, length);
    thread->name[length] = '\0';
    thread->fn = fn;
    thread->arg = arg;
    if (!create_thread(&handle, thread)) {
        return false;
    }
    thread->handle = (uintptr_t)handle;
    return true;
}

void tri__os_thread_join(struct os_thread *thread) {
    pthread_join((pthread_t)thread->handle, NULL);
}
