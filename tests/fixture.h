/*
 * fixture.h: what the tests of a running heap share: a heap with its thread and its captured reports, and questions
 * about objects. The heaps are precise and collect only when told to, unless a test asks for something else, so that
 * what lives is decided by the test's own roots and by nothing that a register happens to hold.
 *
 * An object's address is kept as its complement (`hide`) wherever a test wants to ask about it later without being a
 * root itself.
 */
#ifndef TRI_TESTS_FIXTURE_H
#define TRI_TESTS_FIXTURE_H

#include "tests/plain.h"

#include <sched.h>

#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/pressure.h"
#include "gc/heap.h"

enum { MIB = 1 << 20 };

/* Fewer objects where every access is watched. */
enum { TEST_IS_SLOW = TEST_UNDER_TSAN || TEST_UNDER_ASAN || TEST_EMULATED };

/* What the machine's memory is like is no part of the tests: under its pressure a heap gives back what they look at
 * (copies of stacks, free pages), and begins cycles. Those of pressure write files of their own. */
#define FIXTURE_NO_MACHINE "/nonexistent"

__attribute__((constructor)) static void fixture_hide_machine(void) {
    tri__pressure_set_root(FIXTURE_NO_MACHINE);
}

struct fixture {
    tri_heap *heap;
    tri_thread *thread;
};

/* What the heap reported, newest last; counted by any thread. */
static char fixture_report[1024];
static uint32_t fixture_nreports;

static inline void fixture_on_report(const char *message, void *user) {
    (void)user;
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    snprintf(fixture_report, sizeof fixture_report, "%s", message);
    pthread_mutex_unlock(&mutex);
    atomic_add_acqrel(&fixture_nreports, 1);
}

static inline tri_config fixture_config(uint32_t flags) {
    tri_config config;
    tri_config_init(&config);
    config.flags = flags;
    config.report = fixture_on_report;
    config.reserve_bytes = (size_t)4 << 30;
    config.wait_limit_ms = 120000; /* on a busy machine a cycle may take longer than the default */
    return config;
}

/* As on a machine of so much. No cycle may run. */
static inline void fixture_use_millicpus(tri_heap *heap, uint32_t millicpus, bool quota) {
    heap->millicpus = millicpus;
    heap->ncpus = cpus_whole(millicpus);
    heap->quota = quota;
}

static inline struct fixture fixture_open_config(const tri_config *config) {
    struct fixture f = {NULL, NULL};
    int err = tri_heap_create(config, &f.heap);
    CHECK_MSG(err == TRI_OK, "tri_heap_create: %d: %s", err, tri_last_error());
    err = tri_attach(f.heap, 0, &f.thread);
    CHECK_MSG(err == TRI_OK, "tri_attach: %d: %s", err, tri_last_error());
    return f;
}

static inline struct fixture fixture_open_flags(uint32_t flags) {
    tri_config config = fixture_config(flags);
    return fixture_open_config(&config);
}

/* Precise, and collected only by tri_collect. */
static inline struct fixture fixture_open(void) {
    return fixture_open_flags(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
}

/* Verifies the heap, ends it, and fails if it had anything to report. */
static inline void fixture_close(struct fixture *f) {
    CHECK_EQ(tri_verify(f->thread), 0);
    CHECK_EQ(tri_detach(f->thread), TRI_OK);
    CHECK_EQ(tri_heap_destroy(f->heap), TRI_OK);
    CHECK_MSG(atomic_load_acquire(&fixture_nreports) == 0, "reported: %s", fixture_report);
}

/* Forgets the reports that a test has provoked; their number. */
static inline uint32_t fixture_take_reports(void) {
    return atomic_swap_acqrel(&fixture_nreports, 0);
}

static inline void fixture_collect(struct fixture *f) {
    int err = tri_collect(f->thread);
    CHECK_MSG(err == TRI_OK, "tri_collect: %d: %s", err, tri_last_error());
}

/* The calling thread's own attachment to a heap. */
static inline tri_thread *fixture_attach(tri_heap *heap) {
    tri_thread *thread = NULL;
    int err = tri_attach(heap, 0, &thread);
    CHECK_MSG(err == TRI_OK, "tri_attach: %d: %s", err, tri_last_error());
    return thread;
}

static inline void *fixture_join_thread(void *arg) {
    CHECK_EQ(pthread_join(*(pthread_t *)arg, NULL), 0);
    return NULL;
}

/* Joins as a blocking region, as a thread that waits has to. */
static inline void fixture_join(tri_thread *thread, pthread_t other) {
    tri_blocking(thread, fixture_join_thread, &other);
}

static inline void fixture_set(tri_heap *heap, const char *setting) {
    CHECK_MSG(tri_heap_set(heap, setting) == TRI_OK, "%s", tri_last_error());
}

static inline tri_stats fixture_stats(tri_heap *heap) {
    tri_stats stats = {.struct_size = sizeof stats};
    CHECK_EQ(tri_stats_get(heap, &stats), TRI_OK);
    return stats;
}

/* Answers every step of a cycle up to this one, which stays unanswered until the thread's next safepoint. */
static inline void fixture_answer_before(tri_heap *heap, tri_thread *thread, enum step step) {
    struct mutator *m = mutator_of(thread);
    for (;;) {
        while (atomic_load_acquire(&m->request_seq) == m->answer_seq) sched_yield();
        while (!atomic_load_acquire(&m->pub.request)) sched_yield(); /* it comes after the number; a poll looks at it */
        if (heap->last_step == step) return; /* nobody posts another one before this thread's answer */
        tri_poll(thread);
    }
}

/* An address that no scan recognises. */
static inline uintptr_t hide(const void *obj) {
    return ~(uintptr_t)obj;
}
static inline void *reveal(uintptr_t hidden) {
    return (void *)~hidden;
}

/* Whether an object starts there. Makes no reference out of it. */
static inline bool is_alive(tri_heap *heap, uintptr_t hidden) {
    struct slot slot;
    uintptr_t addr = ~hidden;
    return space_find_slot(&heap->mem.space, addr, &slot) && slot.addr == addr &&
           space_is_allocated(&heap->mem.space, &slot);
}

/* A small leaf that a test roots in one way or another. */
struct leaf {
    uint64_t a, b, c, d;
};
TRI_LEAF_TYPE(leaf_type, struct leaf);

/* A new leaf that nothing names. */
static inline uintptr_t fixture_new_hidden(struct fixture *f) {
    struct leaf *leaf = tri_new(f->thread, &leaf_type);
    CHECK_MSG(leaf != NULL, "%s", tri_last_error());
    leaf->a = 0x5eed;
    return hide(leaf);
}

/* Two references and a number. */
struct pair {
    struct pair *left, *right;
    uint64_t value;
};
TRI_TYPE(pair_type, struct pair, left, right);

/* Nothing but references. */
TRI_POINTER_ARRAY_TYPE(array_type, 0);

/* So that a test which needs only some of them compiles without a warning. */
static inline const tri_type *fixture_type(int which) {
    return which == 0 ? &leaf_type : which == 1 ? &pair_type : &array_type;
}

/* A descriptor to be completed by the test, and one slot for it: its offset in memory that stays. */
static inline tri_type fixture_type_of_size(const char *name, size_t size) {
    return (tri_type){.struct_size = sizeof(tri_type), .name = name, .size = size};
}

static inline tri_slots fixture_slot_at(uint32_t offset) {
    static uint32_t pool[256];
    static size_t n;
    uint32_t *place = &pool[n++ % TRI_COUNT(pool)];
    *place = offset;
    return (tri_slots){.offsets = place, .noffsets = 1};
}

static inline uint64_t fixture_random(uint64_t *state) {
    uint64_t x = *state; /* xorshift64 (Marsaglia 2003) */
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static inline uint64_t fixture_seed(void) {
    uint64_t seed = test_env_u64("TRI_TEST_SEED", 0x9e3779b97f4a7c15ull);
    return seed ? seed : 1;
}

static inline void fixture_sleep_ms(unsigned ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

#endif /* TRI_TESTS_FIXTURE_H */
