/*
 * forking.h: what the tests of fork share: what a sanitizer cannot do in a child, and waiting for one.
 */
#ifndef TRI_TESTS_FORKING_H
#define TRI_TESTS_FORKING_H

#include "tests/fixture.h"

#include <signal.h>

#include "tests/process.h"

#if TEST_UNDER_TSAN /* it ends a child that starts a thread, and a process that holds 64 locks at once */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "die_after_fork=0:detect_deadlocks=0";
}
#endif

/* AddressSanitizer's allocator is not made for forks of several threads: a lock of its own that another thread held
 * stays taken in the child, whose first free waits for it for ever (seen with gcc 12 and clang 14). */
enum { SANITIZER_HANGS_IN_CHILD = TEST_UNDER_ASAN };

static inline int forking_wait(pid_t child) {
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

static inline size_t forking_count_threads(void) {
    return (size_t)(process_status_bytes("Threads") >> 10); /* the line's plain number */
}

#endif
