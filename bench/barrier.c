/* barrier.c - what stores, loads, copies and polls cost, between cycles and while one marks, beside the plain ones.
 *
 *   bench-barrier [--objects=N] [--cycles=N] [--quick]
 *
 * Each measurement is a pair: the plain loop over one table, the call's loop over another one like it, in turn, block
 * by block, in one process. A figure is what an operation takes more: between the least block of either, and the median
 * over the pairs, in nanoseconds of bench/clock.h; and in instructions where the kernel counts them for us
 * (perf_event_open).
 *
 * The marking phase is a real one. An object with a trace callback that waits holds the collector in it, and all that
 * is measured with hangs behind that object, so that it is unmarked when its slot is overwritten first. Let go, the
 * collector marks it, and waits for this thread's answer: a slot's object is a marked one then. "Stack grey" is the
 * time between a thread's own first and last handshake before that, when it shades what it stores, too.
 *
 * Objects lie in shuffled order, one to a store: with many (--objects=1000000) the marks miss the caches. */
#include "bench/clock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trigc.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/membarrier.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#endif

enum { BLOCK = 2048, MOST_SAMPLES = 20000, NYOUNG = 64 };

struct object {
    struct object *next;
    uint64_t number, padding[4];
};
TRI_TYPE(object_type, struct object, next);
struct weak {
    struct object *object;
};
TRI_WEAK_TYPE(weak_type, struct weak, object);
TRI_POINTER_ARRAY_TYPE(table_type, 0);

/* ---- the cycle that is held ------------------------------------------------------------------------------------- */

struct hold {
    void *table;
};
static struct { uint32_t wanted, done, holding, go_on, flushing, quit; /* [atomic] */ } cycle;

/* While the other thread comes to what is waited for: not measured. */
static void nap(void) {
    struct timespec t = {.tv_nsec = 50000};
    nanosleep(&t, NULL);
}

static size_t trace_hold(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)from, (void)budget;
    __atomic_store_n(&cycle.holding, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&cycle.go_on, __ATOMIC_ACQUIRE)) nap();
    tri_visit(visitor, &((struct hold *)obj)->table, 1);
    return 0;
}
static tri_type hold_type = {
    .struct_size = sizeof(tri_type), .name = "struct hold", .size = sizeof(struct hold), .trace = trace_hold};

static void on_event(const tri_event *event, void *user) {
    (void)user;
    if (event->kind == TRI_EVENT_PHASE && !strcmp(event->phase, "flush"))
        __atomic_store_n(&cycle.flushing, 1, __ATOMIC_RELEASE);
}

static void *wait_for_next(void *arg) {
    (void)arg;
    while (__atomic_load_n(&cycle.wanted, __ATOMIC_ACQUIRE) == __atomic_load_n(&cycle.done, __ATOMIC_RELAXED) &&
           !__atomic_load_n(&cycle.quit, __ATOMIC_ACQUIRE))
        nap();
    return NULL;
}

/* A second thread that asks for the cycles. */
static void *collect(void *arg) {
    tri_thread *thread;
    if (tri_attach(arg, TRI_ATTACH_PRECISE, &thread) != TRI_OK) abort();
    for (;;) {
        tri_blocking(thread, wait_for_next, NULL);
        if (__atomic_load_n(&cycle.quit, __ATOMIC_ACQUIRE)) break;
        if (tri_collect(thread) != TRI_OK) abort();
        __atomic_add_fetch(&cycle.done, 1, __ATOMIC_RELEASE);
    }
    tri_detach(thread);
    return NULL;
}

/* ---- pairs ------------------------------------------------------------------------------------------------------ */

struct load {
    tri_heap *heap;
    tri_thread *thread;
    size_t nobjects;
    unsigned ncycles;
    /* The library's table and the plain one; what each slot holds, in the same order; one more to be copied to. */
    void **table, **plain, **kept;
    struct weak **weaks;
    void *young[NYOUNG];
    size_t ncopied; /* slots that one bulk copy has */
};
static struct load load;

enum row_id {
    ROW_STORE_IDLE,
    ROW_STORE_FIRST,
    ROW_STORE_AGAIN,
    ROW_STORE_NULL,
    ROW_STORE_OVER_NULL,
    ROW_STORE_YOUNG,
    ROW_STORE_ONE,
    ROW_STORE_GREY,
    ROW_POLL,
    ROW_BLOCKING,
    ROW_FENCED,
    ROW_MEMBARRIER,
    ROW_LOAD,
    ROW_WEAK_IDLE,
    ROW_WEAK_FIRST,
    ROW_WEAK_AGAIN,
    ROW_COPY8_IDLE,
    ROW_COPY8_FIRST,
    ROW_COPY8_AGAIN,
    ROW_COPY64_IDLE,
    ROW_COPY64_FIRST,
    ROW_COPY64_AGAIN,
    ROW_COPY1024_IDLE,
    ROW_COPY1024_FIRST,
    ROW_COPY1024_AGAIN,
    NROWS
};

static struct row {
    const char *name, *plain_name;
    double goal_ns; /* 0: none */
    size_t n;
    float plain_ns[MOST_SAMPLES], call_ns[MOST_SAMPLES], extra_ns[MOST_SAMPLES];
    float plain_instructions, instructions; /* of the last block */
} rows[NROWS] = {
    [ROW_STORE_IDLE] = {.name = "tri_store, no cycle", .plain_name = "store", .goal_ns = 1},
    [ROW_STORE_FIRST] = {.name = "tri_store marking, over an unmarked object", .plain_name = "store", .goal_ns = 6},
    [ROW_STORE_AGAIN] = {.name = "tri_store marking, over a marked one", .plain_name = "store", .goal_ns = 6},
    [ROW_STORE_NULL] = {.name = "tri_store marking, NULL over a marked one", .plain_name = "store", .goal_ns = 6},
    [ROW_STORE_OVER_NULL] = {.name = "tri_store marking, a young one over NULL", .plain_name = "store", .goal_ns = 6},
    [ROW_STORE_YOUNG] = {.name = "tri_store marking, a young one over a young one",
                         .plain_name = "store",
                         .goal_ns = 6},
    [ROW_STORE_ONE] = {.name = "tri_store marking, one slot again and again", .plain_name = "store", .goal_ns = 6},
    [ROW_STORE_GREY] = {.name = "tri_store, stack grey, unmarked over unmarked", .plain_name = "store"},
    [ROW_POLL] = {.name = "tri_poll, nothing asked", .plain_name = "nothing", .goal_ns = 0.5},
    [ROW_BLOCKING] = {.name = "tri_blocking of an empty function", .plain_name = "its call"},
    [ROW_FENCED] = {.name = "a sequentially consistent store", .plain_name = "store"},
    [ROW_MEMBARRIER] = {.name = "membarrier, private, expedited", .plain_name = "nothing"},
    [ROW_LOAD] = {.name = "tri_load", .plain_name = "load"},
    [ROW_WEAK_IDLE] = {.name = "tri_weak_load, no cycle", .plain_name = "load"},
    [ROW_WEAK_FIRST] = {.name = "tri_weak_load marking, an unmarked object", .plain_name = "load"},
    [ROW_WEAK_AGAIN] = {.name = "tri_weak_load marking, a marked one", .plain_name = "load"},
    [ROW_COPY8_IDLE] = {.name = "tri_move of 8 slots, no cycle", .plain_name = "memmove"},
    [ROW_COPY8_FIRST] = {.name = "tri_move of 8 slots marking, over unmarked", .plain_name = "memmove"},
    [ROW_COPY8_AGAIN] = {.name = "tri_move of 8 slots marking, over marked", .plain_name = "memmove"},
    [ROW_COPY64_IDLE] = {.name = "tri_move of 64 slots, no cycle", .plain_name = "memmove"},
    [ROW_COPY64_FIRST] = {.name = "tri_move of 64 slots marking, over unmarked", .plain_name = "memmove"},
    [ROW_COPY64_AGAIN] = {.name = "tri_move of 64 slots marking, over marked", .plain_name = "memmove"},
    [ROW_COPY1024_IDLE] = {.name = "tri_move of 1,024 slots, no cycle", .plain_name = "memmove"},
    [ROW_COPY1024_FIRST] = {.name = "tri_move of 1,024 slots marking, over unmarked", .plain_name = "memmove"},
    [ROW_COPY1024_AGAIN] = {.name = "tri_move of 1,024 slots marking, over marked", .plain_name = "memmove"},
};

static int counter_fd = -1; /* instructions of this thread in user mode; -1: the kernel does not count for us */

static void counter_open(void) {
#if defined(__linux__)
    struct perf_event_attr attr = {.type = PERF_TYPE_HARDWARE,
                                   .size = sizeof attr,
                                   .config = PERF_COUNT_HW_INSTRUCTIONS,
                                   .exclude_kernel = 1,
                                   .exclude_hv = 1};
    counter_fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
#endif
}

static uint64_t counter_read(void) {
    uint64_t n = 0;
    if (counter_fd < 0 || read(counter_fd, &n, sizeof n) != sizeof n) return 0;
    return n;
}

static inline void use(const void *p) {
    __asm__ volatile("" : : "r"(p) : "memory");
}

typedef void (*block_fn)(size_t from, size_t to);

struct timed {
    double ns, instructions; /* for each slot or call */
};

static struct timed time_block(block_fn fn, size_t from, size_t to) {
    uint64_t instructions = counter_read(), start = clock_ticks();
    fn(from, to);
    uint64_t ns = clock_ns(clock_ticks() - start);
    instructions = counter_read() - instructions;
    return (struct timed){(double)ns / (double)(to - from), (double)instructions / (double)(to - from)};
}

static void measure(enum row_id id, block_fn plain, block_fn call, size_t from, size_t to) {
    struct row *row = &rows[id];
    for (; from + BLOCK <= to && row->n < MOST_SAMPLES; from += BLOCK) {
        struct timed p = time_block(plain, from, from + BLOCK), c = time_block(call, from, from + BLOCK);
        row->plain_ns[row->n] = (float)p.ns;
        row->call_ns[row->n] = (float)c.ns;
        row->extra_ns[row->n++] = (float)(c.ns - p.ns);
        row->plain_instructions = (float)p.instructions;
        row->instructions = (float)c.instructions;
    }
}

/* ---- what is measured ------------------------------------------------------------------------------------------- */

#define LOOP(name, body)                                                 \
    static __attribute__((noinline)) void name(size_t from, size_t to) { \
        tri_thread *t = load.thread;                                     \
        for (size_t i = from; i < to; i++) {                             \
            body;                                                        \
            use(t);                                                      \
        }                                                                \
    }
static inline void plain_store(void **slot, void *value) {
    __atomic_store_n(slot, value, __ATOMIC_RELAXED);
}
LOOP(plain_kept, plain_store(&load.plain[i], load.kept[i]))
LOOP(store_kept, tri_store(t, load.table, &load.table[i], load.kept[i]))
LOOP(plain_null, plain_store(&load.plain[i], NULL))
LOOP(store_null, tri_store(t, load.table, &load.table[i], NULL))
LOOP(plain_young, plain_store(&load.plain[i], load.young[i % NYOUNG]))
LOOP(store_young, tri_store(t, load.table, &load.table[i], load.young[i % NYOUNG]))
LOOP(plain_one, plain_store(&load.plain[0], load.young[i % NYOUNG]))
LOOP(store_one, tri_store(t, load.table, &load.table[0], load.young[i % NYOUNG]))
LOOP(nothing, (void)i)
LOOP(poll, tri_poll(t))
static __attribute__((noinline)) void *empty(void *arg) {
    use(arg);
    return arg;
}
LOOP(call, empty(t))
LOOP(block, tri_blocking(t, empty, t))
static uint64_t state_word;
LOOP(plain_state, (__atomic_store_n(&state_word, i, __ATOMIC_RELEASE), use(&state_word)))
LOOP(fenced_state, (__atomic_store_n(&state_word, i, __ATOMIC_SEQ_CST), use(&state_word)))
LOOP(plain_load, use(load.plain[i]))
LOOP(tri_load_loop, use(tri_load(&load.table[i])))
LOOP(plain_weak, use(*(void *volatile *)&load.weaks[i]->object))
LOOP(weak_load, use(tri_weak_load(t, &load.weaks[i]->object)))

static __attribute__((noinline)) void plain_copy(size_t from, size_t to) {
    size_t n = load.ncopied;
    for (size_t i = from; i < to; i += n) {
        memmove(load.plain + i, load.kept + i, n * sizeof(void *));
        use(load.plain);
    }
}
static __attribute__((noinline)) void move(size_t from, size_t to) {
    size_t n = load.ncopied;
    for (size_t i = from; i < to; i += n) {
        tri_move(load.thread, load.table, load.table + i, load.kept + i, n);
        use(load.table);
    }
}

static const size_t sizes[] = {8, 64, 1024};
enum { NSIZES = 3 };

/* The objects in parts: half for single stores, an eighth for each size of copies, an eighth for weak loads. */
static size_t part(unsigned eighths) {
    return load.nobjects / 8 * eighths;
}

/* What an asymmetric fence would cost who posts, and whether there is one. */
#if defined(__linux__) && defined(SYS_membarrier)
static bool membarrier_here(void) {
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}
LOOP(membarrier_all, syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
#else
static bool membarrier_here(void) {
    return false;
}
LOOP(membarrier_all, (void)i)
#endif

static void measure_fences(void) {
    measure(ROW_BLOCKING, call, block, 0, BLOCK);
    measure(ROW_FENCED, plain_state, fenced_state, 0, BLOCK);
    if (membarrier_here()) measure(ROW_MEMBARRIER, nothing, membarrier_all, 0, BLOCK);
}

static void measure_idle(void) {
    measure_fences();
    measure(ROW_STORE_IDLE, plain_kept, store_kept, 0, part(4));
    measure(ROW_POLL, nothing, poll, 0, part(4));
    measure(ROW_LOAD, plain_load, tri_load_loop, 0, part(4));
    measure(ROW_WEAK_IDLE, plain_weak, weak_load, part(7), part(8));
    for (unsigned i = 0; i < NSIZES; i++) {
        load.ncopied = sizes[i];
        measure((enum row_id)(ROW_COPY8_IDLE + 3 * i), plain_copy, move, part(4 + i), part(5 + i));
    }
}

/* The collector is held: nothing here is marked but what is young. */
static void measure_unmarked(void) {
    measure(ROW_STORE_FIRST, plain_kept, store_kept, 0, part(4));
    for (unsigned i = 0; i < NSIZES; i++) {
        load.ncopied = sizes[i];
        measure((enum row_id)(ROW_COPY8_FIRST + 3 * i), plain_copy, move, part(4 + i), part(5 + i));
    }
    measure(ROW_WEAK_FIRST, plain_weak, weak_load, part(7), part(8));
}

/* It has marked everything, and waits for this thread's next safepoint. */
static void measure_marked(void) {
    measure(ROW_STORE_AGAIN, plain_kept, store_kept, 0, part(4));
    measure(ROW_STORE_NULL, plain_null, store_null, 0, part(4));
    measure(ROW_STORE_OVER_NULL, plain_young, store_young, 0, part(4));
    measure(ROW_STORE_YOUNG, plain_young, store_young, 0, part(4));
    measure(ROW_STORE_ONE, plain_one, store_one, 0, part(4));
    for (unsigned i = 0; i < NSIZES; i++) {
        load.ncopied = sizes[i];
        measure((enum row_id)(ROW_COPY8_AGAIN + 3 * i), plain_copy, move, part(4 + i), part(5 + i));
    }
    measure(ROW_WEAK_AGAIN, plain_weak, weak_load, part(7), part(8));
}

/* ---- the heap --------------------------------------------------------------------------------------------------- */

static void *new_or_die(void *object) {
    if (!object) {
        fprintf(stderr, "bench-barrier: %s\n", tri_last_error());
        exit(1);
    }
    return object;
}

/* Everything is reachable by way of the object that holds the cycle: tables[0] names it, and nothing else on any
 * stack is a root. */
static void build(void **root) {
    tri_thread *t = load.thread;
    size_t n = load.nobjects;
    struct hold *hold = *root = new_or_die(tri_new(t, &hold_type));
    void **top = new_or_die(tri_new_n(t, &table_type, 5));
    tri_store(t, hold, &hold->table, top);
    for (size_t i = 0; i < 4; i++) tri_store(t, top, &top[i], new_or_die(tri_new_n(t, &table_type, n)));
    load.table = top[0], load.plain = top[1], load.kept = top[2], load.weaks = (struct weak **)top[3];
    tri_store(t, top, &top[4], new_or_die(tri_new_n(t, &table_type, NYOUNG)));
    uint64_t rng = 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < n; i++) { /* shuffled as it is filled */
        rng = rng * 6364136223846793005u + 1442695040888963407u;
        size_t k = (size_t)(rng >> 33) % (i + 1);
        if (k != i) tri_store(t, load.kept, &load.kept[i], load.kept[k]);
        tri_store(t, load.kept, &load.kept[k], new_or_die(tri_new(t, &object_type)));
    }
    for (size_t i = 0; i < n; i++) {
        tri_store(t, load.table, &load.table[i], load.kept[i]);
        tri_store(t, load.plain, &load.plain[i], load.kept[i]);
        if (i < part(7)) continue;
        struct weak *weak = new_or_die(tri_new(t, &weak_type));
        tri_init(t, weak, &weak->object, load.kept[i]);
        tri_store(t, load.weaks, &load.weaks[i], weak);
    }
}

/* In the heap, since the collector writes no slot, and everything that the plain loops dropped is kept otherwise. */
static void restore(void) {
    for (size_t i = 0; i < load.nobjects; i++) {
        tri_store(load.thread, load.table, &load.table[i], load.kept[i]);
        tri_store(load.thread, load.plain, &load.plain[i], load.kept[i]);
    }
}

static void one_cycle(void **top) {
    __atomic_store_n(&cycle.holding, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&cycle.go_on, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&cycle.flushing, 0, __ATOMIC_RELAXED);
    uint32_t number = __atomic_add_fetch(&cycle.wanted, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&load.thread->armed, __ATOMIC_RELAXED)) tri_poll(load.thread);
    if (number % 2 == 0) measure(ROW_STORE_GREY, plain_kept, store_kept, 0, part(4)); /* what it marks is marked then */
    while (!__atomic_load_n(&cycle.holding, __ATOMIC_ACQUIRE)) tri_poll(load.thread);
    for (size_t i = 0; i < NYOUNG; i++) { /* born black */
        load.young[i] = new_or_die(tri_new(load.thread, &object_type));
        tri_store(load.thread, top[4], &((void **)top[4])[i], load.young[i]);
    }
    if (number % 2 == 1) measure_unmarked();
    __atomic_store_n(&cycle.go_on, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&cycle.flushing, __ATOMIC_ACQUIRE)) nap();
    measure_marked();
    restore();
    while (__atomic_load_n(&cycle.done, __ATOMIC_ACQUIRE) != number) tri_poll(load.thread);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static void report(void) {
    printf("%zu objects; for each store, slot, load or poll, beyond what the plain one takes\n", load.nobjects);
    printf("%-50s %-8s %8s %8s %8s %8s%s\n", "call", "beside", "plain ns", "least", "median", "at most",
           counter_fd < 0 ? "" : "  instructions");
    for (int i = 0; i < NROWS; i++) {
        struct row *row = &rows[i];
        if (row->n == 0) continue;
        qsort(row->plain_ns, row->n, sizeof(float), by_value);
        qsort(row->call_ns, row->n, sizeof(float), by_value);
        qsort(row->extra_ns, row->n, sizeof(float), by_value);
        char goal[16] = "";
        if (row->goal_ns > 0) snprintf(goal, sizeof goal, "%.1f", row->goal_ns);
        printf("%-50s %-8s %8.2f %8.2f %8.2f %8s", row->name, row->plain_name, (double)row->plain_ns[row->n / 2],
               (double)row->call_ns[0] - (double)row->plain_ns[0], (double)row->extra_ns[row->n / 2], goal);
        if (counter_fd >= 0) printf("  %.1f - %.1f", (double)row->instructions, (double)row->plain_instructions);
        printf("\n");
    }
}

static void options(int argc, char **argv) {
    load.nobjects = 1 << 16;
    load.ncycles = 40;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--objects=", 10))
            load.nobjects = strtoull(argv[i] + 10, NULL, 10);
        else if (!strncmp(argv[i], "--cycles=", 9))
            load.ncycles = (unsigned)strtoul(argv[i] + 9, NULL, 10);
        else if (!strcmp(argv[i], "--quick"))
            load.ncycles = 6;
        else {
            fprintf(stderr, "usage: bench-barrier [--objects=N] [--cycles=N] [--quick]\n");
            exit(2);
        }
    }
    load.nobjects = (load.nobjects + 8 * BLOCK - 1) / (8 * BLOCK) * (8 * BLOCK);
}

static void *join(void *arg) {
    pthread_join(*(pthread_t *)arg, NULL);
    return NULL;
}

int main(int argc, char **argv) {
    options(argc, argv);
    bench_clock_init();
    counter_open();
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_NO_CYCLES | TRI_HEAP_PRECISE | TRI_HEAP_EVENTS;
    config.event = on_event;
    config.silent_after_ms = 0;
    config.wait_limit_ms = 600000;
    if (tri_heap_create(&config, &load.heap) != TRI_OK || tri_attach(load.heap, 0, &load.thread) != TRI_OK) {
        fprintf(stderr, "bench-barrier: %s\n", tri_last_error());
        return 1;
    }
    pthread_t collector;
    TRI_LOCALS(load.thread, root, 1);
    build(root);
    if (pthread_create(&collector, NULL, collect, load.heap) != 0) return 1;
    for (unsigned i = 0; i < load.ncycles; i++) {
        measure_idle();
        one_cycle(((struct hold *)root[0])->table);
    }
    __atomic_store_n(&cycle.quit, 1, __ATOMIC_RELEASE);
    tri_blocking(load.thread, join, &collector);
    report();
    TRI_POP(load.thread, root);
    tri_detach(load.thread);
    tri_heap_destroy(load.heap);
    return 0;
}
