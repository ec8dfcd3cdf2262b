/*
 * held.h: a heap whose reports are counted one by one, and a cycle that stands still in its mark phase for as long as a
 * test wants: an object whose trace callback waits for the test holds the collector. While it is held this thread's
 * roots are scanned, its barrier is on, and of a small graph (struct graph) the root is scanned and the rest is not; so
 * one edit decides whether the thing at its end lives. Nothing waits for luck.
 *
 * One cycle is held at a time. For programs of one translation unit, as plain.h.
 */
#ifndef TRI_TESTS_HELD_H
#define TRI_TESTS_HELD_H

#include "tests/fixture.h"

/* ---- what was reported ------------------------------------------------------------------------------------------ */

static pthread_mutex_t told_mutex = PTHREAD_MUTEX_INITIALIZER;
static char told[16384]; /* every message, a line each */
static uint32_t ntold;
static tri_heap *mend_on_report; /* its planted fault ends with the first report */

static inline void on_report(const char *message, void *user) {
    (void)user;
    pthread_mutex_lock(&told_mutex);
    size_t n = strlen(told);
    snprintf(told + n, sizeof told - n, "%s\n", message);
    ntold++;
    pthread_mutex_unlock(&told_mutex);
    if (mend_on_report) CHECK_EQ(tri_heap_set(mend_on_report, "fault=none"), TRI_OK);
}

static inline void forget_reports(void) {
    pthread_mutex_lock(&told_mutex);
    told[0] = '\0';
    ntold = 0;
    pthread_mutex_unlock(&told_mutex);
}

static inline void expect_silence(void) {
    pthread_mutex_lock(&told_mutex);
    CHECK_MSG(ntold == 0, "reported: %s", told);
    pthread_mutex_unlock(&told_mutex);
}

/* Exactly one report, with this text in it. */
__attribute__((format(printf, 1, 2))) static inline void expect_report(const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&told_mutex);
    CHECK_MSG(ntold == 1 && strstr(told, text), "%u reports, expected one with \"%s\":\n%s", ntold, text, told);
    pthread_mutex_unlock(&told_mutex);
    forget_reports();
}

/* ---- the heap, and a cycle that stands still -------------------------------------------------------------------- */

struct owner {
    uint64_t numbers[2];
    void *first, *second; /* at 16 and 24 */
};
TRI_TYPE(owner_type, struct owner, first, second);

struct thing {
    uint64_t numbers[6];
};
TRI_LEAF_TYPE(thing_type, struct thing);

struct hold {
    void *next;
};
static uint32_t holding, go_on;

/* Keeps the collector in the mark phase until the test says go on. */
static inline size_t trace_hold(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)from, (void)budget;
    atomic_store_release(&holding, 1);
    while (!atomic_load_acquire(&go_on)) fixture_sleep_ms(1);
    tri_visit(visitor, &((struct hold *)obj)->next, 1);
    return 0;
}
static tri_type hold_type = {
    .struct_size = sizeof(tri_type), .name = "struct hold", .size = sizeof(struct hold), .trace = trace_hold};

static inline struct fixture open_heap(const char *setting1, const char *setting2) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.report = on_report;
    forget_reports();
    struct fixture f = fixture_open_config(&config);
    if (setting1) fixture_set(f.heap, setting1);
    if (setting2) fixture_set(f.heap, setting2);
    return f;
}

static inline void close_heap(struct fixture *f) {
    fixture_close(f);
    expect_silence();
}

static inline void *collect_main(void *arg) {
    struct fixture f = {arg, NULL};
    CHECK_EQ(tri_attach(f.heap, TRI_ATTACH_PRECISE, &f.thread), TRI_OK);
    fixture_collect(&f);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

/* A cycle on another thread: from here until end_cycle it is marking, and waits in the hold. */
static inline pthread_t begin_cycle(const struct fixture *f) {
    pthread_t collect;
    atomic_store_release(&holding, 0);
    atomic_store_release(&go_on, 0);
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f->heap), 0);
    while (!atomic_load_acquire(&holding)) {
        tri_poll(f->thread);
        sched_yield();
    }
    CHECK_EQ(heap_phase(f->heap), PHASE_MARK);
    CHECK(mutator_of(f->thread)->armed && !mutator_of(f->thread)->grey_stack);
    return collect;
}

static inline void end_cycle(const struct fixture *f, pthread_t collect) {
    atomic_store_release(&go_on, 1);
    fixture_join(f->thread, collect);
}

/* root -> hold -> keeper -> thing: while the cycle is held, root is scanned, keeper and thing are not. */
struct graph {
    struct owner *root, *keeper;
    struct thing *thing;
};

static inline struct graph make_graph(const struct fixture *f, void **roots) {
    tri_thread *t = f->thread;
    struct owner *root = roots[0] = tri_new(t, &owner_type);
    struct hold *hold = tri_new(t, &hold_type);
    tri_store(t, root, &root->first, hold);
    struct owner *keeper = tri_new(t, &owner_type);
    tri_store(t, hold, &hold->next, keeper);
    struct thing *thing = tri_new(t, &thing_type);
    tri_store(t, keeper, &keeper->second, thing);
    CHECK(root && hold && keeper && thing);
    return (struct graph){root, keeper, thing};
}

static inline void plain_store(void *slot, void *ref) {
    atomic_store_release((tri_word *)slot, (tri_word)(uintptr_t)ref);
}

#endif /* TRI_TESTS_HELD_H */
