/*
 * process.h: what tests ask of the process around them: limits of the system that starve it, its own figures as /proc
 * has them, and a child process for what must end one.
 *
 * A limit counts the sanitizers' own memory too, and they end the process when they are refused; an emulated process
 * has no limits but in name. Tests that starve it stand aside where PROCESS_CANNOT_STARVE is 1.
 */
#ifndef TRI_TESTS_PROCESS_H
#define TRI_TESTS_PROCESS_H

#include "tests/plain.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define PROCESS_CANNOT_STARVE (TEST_UNDER_TSAN || TEST_UNDER_ASAN || TEST_EMULATED)

#if defined(__GLIBC__)
typedef __rlimit_resource_t process_resource; /* an enumeration there */
#else
typedef int process_resource;
#endif

/* The soft limit of RLIMIT_AS (mappings) or RLIMIT_DATA (private writable ones); SIZE_MAX: as high as it may be. Linux
 * takes a limit of 0 for none, here and there. */
static inline void process_limit(process_resource resource, size_t bytes) {
    struct rlimit limit;
    CHECK_EQ(getrlimit(resource, &limit), 0);
    limit.rlim_cur = bytes == SIZE_MAX ? limit.rlim_max : (rlim_t)bytes;
    CHECK_EQ(setrlimit(resource, &limit), 0);
}

/* No buffer of the C library: what is measured must not grow by measuring. */
static inline size_t process_read(const char *path, char *text, size_t capacity) {
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_MSG(fd >= 0, "%s: %s", path, strerror(errno));
    for (ssize_t n; length + 1 < capacity && (n = read(fd, text + length, capacity - 1 - length)) > 0;)
        length += (size_t)n;
    close(fd);
    text[length] = '\0';
    return length;
}

/* Field of /proc/self/statm, in bytes: 0 is what is mapped, 1 what is resident. */
static inline size_t process_statm(int field) {
    char text[256], *at = text;
    process_read("/proc/self/statm", text, sizeof text);
    size_t pages = strtoull(at, &at, 10);
    while (field-- > 0) pages = strtoull(at, &at, 10);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static inline size_t process_mapped_bytes(void) {
    return process_statm(0);
}
static inline size_t process_resident_bytes(void) {
    return process_statm(1);
}

/* Memory that belongs to nobody else: exact, where the counts of statm and status lag behind by some pages a thread. */
static inline size_t process_anonymous_bytes(void) {
    char text[4096];
    process_read("/proc/self/smaps_rollup", text, sizeof text);
    const char *line = strstr(text, "Anonymous:");
    CHECK(line != NULL);
    return (size_t)strtoull(line + strlen("Anonymous:"), NULL, 10) << 10;
}

/* Lines of /proc/self/maps, of which vm.max_map_count allows some 65,000. */
static inline size_t process_nmappings(void) {
    static char text[1 << 16];
    size_t n = 0, length;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (ssize_t got; (got = read(fd, text, sizeof text)) > 0;)
        for (length = 0; length < (size_t)got; length++) n += text[length] == '\n';
    close(fd);
    return n;
}

/* A line of /proc/self/status: VmHWM (the most that was resident), VmData (what RLIMIT_DATA counts). */
static inline size_t process_status_bytes(const char *name) {
    char text[8192];
    process_read("/proc/self/status", text, sizeof text);
    const char *line = strstr(text, name);
    CHECK_MSG(line != NULL, "/proc/self/status has no %s", name);
    return (size_t)strtoull(line + strlen(name) + 1, NULL, 10) << 10;
}

/* For what is measured in small pages: also where the system gives huge ones unasked (transparent_hugepage: always),
 * which from here on it does not. */
static inline void process_without_huge_pages(void) {
    CHECK_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
}

/* Whether a thread of this process sleeps: waits for a lock, a condition or a time. By tri__os_thread_id's number. */
static inline bool process_thread_sleeps(uint64_t thread_id) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%llu/stat", (unsigned long long)thread_id);
    process_read(path, text, sizeof text);
    const char *after_name = strrchr(text, ')');
    CHECK_MSG(after_name != NULL, "%s: %s", path, text);
    return after_name[1] == ' ' && after_name[2] == 'S';
}

/* Whether the OS page at this address is mapped, with or without access. */
static inline bool process_is_mapped(const void *address) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    return msync((void *)((uintptr_t)address & ~(page - 1)), page, MS_ASYNC) == 0;
}

/* Runs fn in a process of its own; what it wrote to standard error, and how it ended. */
static inline int process_in_child(void (*fn)(const void *arg), const void *arg, char *text, size_t capacity) {
    int ends[2], status = 0;
    CHECK_EQ(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL); /* no framework's report of an end that is meant */
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        fn(arg);
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t n; length + 1 < capacity && (n = read(ends[0], text + length, capacity - 1 - length)) > 0;)
        length += (size_t)n;
    text[length] = '\0';
    close(ends[0]);
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

#endif /* TRI_TESTS_PROCESS_H */
