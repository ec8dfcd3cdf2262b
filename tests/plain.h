/*
 * plain.h: one set of test macros, two ways to run them.
 *
 * Write a test program once:
 *
 *     #include "tests/plain.h"
 *
 *     TEST(span, sweep_keeps_marked_slots) {
 *         CHECK(span_is_swept(s));
 *         CHECK_EQ(s->nslots, 512);                     // integers (and pointers), prints both sides
 *         CHECK_STR_EQ(type->name, "pair");
 *         CHECK_MSG(n < limit, "seed %llu: %zu objects left", seed, n);
 *     }
 *
 *     TEST(heap, refuses_a_zero_reservation, .timeout = 20, .signal = SIGABRT) { ... }
 *
 * Without TRI_PLAIN_MAIN the macros become Criterion's and Criterion's main runs each test in a process of its own.
 * With TRI_PLAIN_MAIN defined (by the build, for the sanitizers: Criterion's sandbox does not start under
 * ThreadSanitizer) this header brings a main of its own. It forks once per test, so a crash or a hang costs that test
 * only, and its last line is "N passed, N failed". Arguments are filters: a test runs when its "suite.name" contains
 * one of them. TRI_PLAIN_FORK=0 in the environment runs everything in one process, for a debugger.
 *
 * After the name a test may set .timeout (seconds, default 300), .init and .fini (void (*)(void), run around the body),
 * .signal (the signal the test must die of) and .exit_code. Criterion knows the same fields by the same names.
 *
 * The checks may be used from any thread. One that fails on the test's own thread ends that test; one that fails on
 * another thread prints its message and aborts the process, which is that test's process.
 *
 * test_stress() says whether the long variant was asked for (-Dstress, TRI_TEST_STRESS=1), test_env_u64() reads a
 * number such as a seed from the environment. TEST_UNDER_TSAN and TEST_UNDER_ASAN are 1 under those sanitizers, whose
 * own reservations rule out tests that limit the address space.
 *
 * Invariant P1: one test program is one translation unit; the list of tests is static in it.
 */
#ifndef TRI_TESTS_PLAIN_H
#define TRI_TESTS_PLAIN_H

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TEST_TIMEOUT_DEFAULT_S = 300 };

#if defined(__has_feature)
#define TEST_HAS_FEATURE(x) __has_feature(x)
#else
#define TEST_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || TEST_HAS_FEATURE(thread_sanitizer)
#define TEST_UNDER_TSAN 1
#else
#define TEST_UNDER_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__) || TEST_HAS_FEATURE(address_sanitizer)
#define TEST_UNDER_ASAN 1
#else
#define TEST_UNDER_ASAN 0
#endif
#ifndef TEST_EMULATED /* the build says so: another processor's instructions, translated */
#define TEST_EMULATED 0
#endif

/* The thread that runs the test's body; written before the body starts, read by checks on any thread after that. */
static pthread_t test_own_thread;

static inline void test_begin(void) {
    test_own_thread = pthread_self();
}

static inline bool test_stress(void) {
    const char *v = getenv("TRI_TEST_STRESS");
    return v && *v && strcmp(v, "0") != 0;
}

static inline uint64_t test_env_u64(const char *name, uint64_t fallback) {
    const char *v = getenv(name);
    return v && *v ? strtoull(v, NULL, 0) : fallback;
}

#ifndef TRI_PLAIN_MAIN

#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <criterion/internal/ordered-set.h>

/* Criterion has no limit for a test that sets none, and its option --timeout cuts the limits of those that do. */
ReportHook(PRE_ALL)(struct criterion_test_set *tests) {
    FOREACH_SET(struct criterion_suite_set * suite, tests->suites)
    FOREACH_SET(struct criterion_test * test, suite->tests)
    if (test->data->timeout == 0) test->data->timeout = TEST_TIMEOUT_DEFAULT_S;
}

#define TEST(suite_, name_, ...)               \
    static void suite_##_##name_##_body(void); \
    Test(suite_, name_, ##__VA_ARGS__) {       \
        test_begin();                          \
        suite_##_##name_##_body();             \
    }                                          \
    static void suite_##_##name_##_body(void)

static inline void test_stop(const char *file, int line, const char *message) {
    if (pthread_equal(test_own_thread, pthread_self())) {
        cr_assert_fail("%s:%d: %s", file, line, message);
    }
    fprintf(stderr, "%s:%d: %s (not on the test's own thread)\n", file, line, message);
    abort();
}

#else /* TRI_PLAIN_MAIN */

struct test_options {
    void (*init)(void);
    void (*fini)(void);
    unsigned timeout; /* seconds; 0 means TEST_TIMEOUT_DEFAULT_S */
    int signal;       /* the signal the test must die of, 0: none */
    int exit_code;    /* the code the test must exit with */
};

struct plain_test {
    const char *suite;
    const char *name;
    void (*body)(void);
    struct test_options options;
    struct plain_test *next;
};

static struct plain_test *plain_tests;
static struct plain_test **plain_tests_tail = &plain_tests;

#define TEST(suite_, name_, ...)                                                                      \
    static void suite_##_##name_##_body(void);                                                        \
    static struct plain_test suite_##_##name_##_entry = {                                             \
        .suite = #suite_, .name = #name_, .body = suite_##_##name_##_body, .options = {__VA_ARGS__}}; \
    __attribute__((constructor)) static void suite_##_##name_##_register(void) {                      \
        *plain_tests_tail = &suite_##_##name_##_entry;                                                \
        plain_tests_tail = &suite_##_##name_##_entry.next;                                            \
    }                                                                                                 \
    static void suite_##_##name_##_body(void)

static inline void test_stop(const char *file, int line, const char *message) {
    bool own = pthread_equal(test_own_thread, pthread_self()) != 0;
    fprintf(stderr, "%s:%d: %s%s\n", file, line, message, own ? "" : " (not on the test's own thread)");
    fflush(stderr);
    if (own) {
        _exit(1);
    }
    abort();
}

static inline uint64_t plain_now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static inline void plain_run_body(const struct plain_test *t) {
    test_begin();
    if (t->options.init) {
        t->options.init();
    }
    t->body();
    if (t->options.fini) {
        t->options.fini();
    }
}

/* Waits for the child at most timeout_ms. Returns false, with the child killed and reaped, when that was not enough. */
static inline bool plain_wait(pid_t child, uint64_t timeout_ms, int *status) {
    uint64_t start = plain_now_ms();
    long nap_ns = 200000;
    for (;;) {
        pid_t got = waitpid(child, status, WNOHANG);
        if (got == child || (got < 0 && errno != EINTR)) {
            return true;
        }
        if (plain_now_ms() - start > timeout_ms) {
            kill(child, SIGKILL);
            waitpid(child, status, 0);
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = nap_ns}, NULL);
        nap_ns = nap_ns < 20000000 ? nap_ns * 2 : nap_ns;
    }
}

/* Runs one test in a child process and says on stdout how it went. Returns whether it passed. */
static inline bool plain_run_forked(const struct plain_test *t) {
    unsigned timeout_s = t->options.timeout ? t->options.timeout : TEST_TIMEOUT_DEFAULT_S;
    uint64_t start = plain_now_ms();
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        printf("[FAIL] %s.%s: fork: %s\n", t->suite, t->name, strerror(errno));
        return false;
    }
    if (child == 0) {
        plain_run_body(t);
        exit(0); /* not _exit: the sanitizers report, and change the code, on the way out */
    }
    bool in_time = plain_wait(child, (uint64_t)timeout_s * 1000u, &status);
    uint64_t took_ms = plain_now_ms() - start;
    if (!in_time) {
        printf("[FAIL] %s.%s: still running after %u s\n", t->suite, t->name, timeout_s);
        return false;
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) != t->options.signal) {
        printf("[FAIL] %s.%s: died of signal %d (%s)\n", t->suite, t->name, WTERMSIG(status),
               strsignal(WTERMSIG(status)));
        return false;
    }
    if (t->options.signal && !WIFSIGNALED(status)) {
        printf("[FAIL] %s.%s: ended, where signal %d was expected\n", t->suite, t->name, t->options.signal);
        return false;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) != t->options.exit_code) {
        printf("[FAIL] %s.%s: exit code %d\n", t->suite, t->name, WEXITSTATUS(status));
        return false;
    }
    printf("[ ok ] %s.%s (%" PRIu64 " ms)\n", t->suite, t->name, took_ms);
    return true;
}

static inline bool plain_selected(const struct plain_test *t, int argc, char **argv) {
    char full[256];
    snprintf(full, sizeof full, "%s.%s", t->suite, t->name);
    for (int i = 1; i < argc; i++) {
        if (strstr(full, argv[i])) {
            return true;
        }
    }
    return argc < 2;
}

int main(int argc, char **argv) {
    unsigned npassed = 0;
    unsigned nfailed = 0;
    bool forked = test_env_u64("TRI_PLAIN_FORK", 1) != 0;
    for (const struct plain_test *t = plain_tests; t; t = t->next) {
        if (!plain_selected(t, argc, argv)) {
            continue;
        }
        if (!forked) {
            printf("[ run] %s.%s\n", t->suite, t->name);
            plain_run_body(t);
            npassed++;
        } else if (plain_run_forked(t)) {
            npassed++;
        } else {
            nfailed++;
        }
        fflush(stdout);
    }
    printf("%u passed, %u failed\n", npassed, nfailed);
    return nfailed ? 1 : 0;
}

#endif /* TRI_PLAIN_MAIN */

__attribute__((format(printf, 3, 4))) static inline void test_stopf(const char *file, int line, const char *format,
                                                                    ...) {
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    test_stop(file, line, message);
}

static inline void test_check_eq(intmax_t a, intmax_t b, const char *a_text, const char *b_text, const char *file,
                                 int line) {
    if (a != b) {
        test_stopf(file, line,
                   "%s == %s does not hold: %" PRIdMAX " (0x%" PRIxMAX ") and %" PRIdMAX " (0x%" PRIxMAX ")", a_text,
                   b_text, a, (uintmax_t)a, b, (uintmax_t)b);
    }
}

static inline void test_check_str_eq(const char *a, const char *b, const char *a_text, const char *b_text,
                                     const char *file, int line) {
    if (a != b && (!a || !b || strcmp(a, b) != 0)) {
        test_stopf(file, line, "%s and %s differ: \"%s\" and \"%s\"", a_text, b_text, a ? a : "(null)",
                   b ? b : "(null)");
    }
}

#define CHECK(cond) ((cond) ? (void)0 : test_stopf(__FILE__, __LINE__, "%s does not hold", #cond))
#define CHECK_MSG(cond, ...) ((cond) ? (void)0 : test_stopf(__FILE__, __LINE__, __VA_ARGS__))
#define CHECK_EQ(a, b) test_check_eq((intmax_t)(a), (intmax_t)(b), #a, #b, __FILE__, __LINE__)
#define CHECK_STR_EQ(a, b) test_check_str_eq((a), (b), #a, #b, __FILE__, __LINE__)

#endif /* TRI_TESTS_PLAIN_H */
