/* callcounts.c - the fast paths in loops, one function for each, for callgrind to count; tools/callcounts.py reads it.
 *
 * Each path has a loop of N calls and one of 2 N: the difference, over N, is the path with its loop, and what the empty
 * loop takes is taken off. Calls that hit are meant: before it is counted, a loop's hole is made long enough, and no
 * cycle runs (TRI_HEAP_NO_CYCLES) but the one in which the armed stores are counted: an object with a trace callback
 * that waits holds it where what is overwritten is unmarked; then it waits for this thread's answer, with everything
 * marked. Each pointer passes through an empty asm with a memory clobber, so that nothing is kept in registers from one
 * call to the next. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trigc.h>
#include <unistd.h>

enum { N = 8, WARM_SLOTS = 2 * N + 8, MANUAL_BYTES = 64, MOVED = 64, WARM_BYTES = 64 << 10 };

struct node {
    struct node *left, *right;
    uint64_t value;
};
struct point {
    double x, y;
};
TRI_TYPE(node_type, struct node, left, right);
static tri_type point_type = TRI__TYPE_INIT("struct point", sizeof(struct point), 0, TRI_TYPE_LEAF, 0, TRI__NONE,
                                            TRI__NONE, TRI__NONE);
TRI_POINTER_ARRAY_TYPE(array_type, 0);

static tri_thread *thread;
static tri_heap *heap;
static struct node *parent, *child;
static void **array;                       /* of 2 * MOVED references, all to child: one half is moved over the other */
static size_t size_bytes = 48, nelems = 6; /* not known when compiling */

#if defined(__clang__)
#define NOT_UNROLLED _Pragma("clang loop unroll(disable)")
#else
#define NOT_UNROLLED _Pragma("GCC unroll 1")
#endif
#define NOT_INLINED static __attribute__((noinline))

static inline void use(const void *p) {
    __asm__ volatile("" : : "r"(p) : "memory");
}

/* One loop, and its two lengths, which callgrind tells apart by their names. */
#define PATH(name, call)                                      \
    NOT_INLINED void loop_##name(tri_thread *t, unsigned n) { \
        NOT_UNROLLED for (; n > 0; n--) {                     \
            call;                                             \
        }                                                     \
        use(t);                                               \
    }                                                         \
    NOT_INLINED void once_##name(void) {                      \
        loop_##name(thread, N);                               \
        use(thread);                                          \
    }                                                         \
    NOT_INLINED void twice_##name(void) {                     \
        loop_##name(thread, 2 * N);                           \
        use(thread);                                          \
    }

PATH(empty, use(t))
PATH(new_typed, use(tri_new(t, &node_type)))
PATH(new_leaf, use(tri_new(t, &point_type)))
PATH(new_n, use(tri_new_n(t, &array_type, nelems)))
PATH(new_bytes, use(tri_new_bytes(t, size_bytes)))
PATH(init, (tri_init(t, child, &child->left, parent), use(child)))
PATH(store, (tri_store(t, parent, &parent->left, child), use(parent)))
PATH(store_first, (tri_store(t, parent, &parent->left, child), use(parent)))
PATH(store_again, (tri_store(t, parent, &parent->left, child), use(parent)))
PATH(move_one, (tri_move(t, array, array, array + MOVED, 1), use(array)))
PATH(move_one_first, (tri_move(t, array, array, array + MOVED, 1), use(array)))
PATH(move_one_again, (tri_move(t, array, array, array + MOVED, 1), use(array)))
PATH(move_many, (tri_move(t, array, array, array + MOVED, MOVED), use(array)))
PATH(move_many_first, (tri_move(t, array, array, array + MOVED, MOVED), use(array)))
PATH(move_many_again, (tri_move(t, array, array, array + MOVED, MOVED), use(array)))
PATH(load, use(tri_load(&parent->left)))
PATH(poll, (tri_poll(t), use(t)))
PATH(frame, {
    TRI_LOCALS(t, locals, 1);
    use(locals);
    TRI_POP(t, locals);
})

static void *manual_alloc_free(void) {
    void *block = tri_manual_alloc(heap, MANUAL_BYTES);
    use(block);
    tri_manual_free(heap, block);
    return block;
}
PATH(manual, use(manual_alloc_free()))

/* Allocates until the hole that `allocate` serves itself from has room for a loop. */
static void warm(void *(*allocate)(void)) {
    for (unsigned in_a_row = 0, tries = 0; in_a_row < 2; tries++) {
        uintptr_t last = (uintptr_t)allocate();
        tri_hole *hole = NULL;
        for (uint32_t i = 0; i < 65536; i++) {
            if ((uintptr_t)thread->holes[i].cursor == last + thread->holes[i].slot_bytes) hole = &thread->holes[i];
        }
        in_a_row = hole && (size_t)(hole->limit - hole->cursor) >= WARM_SLOTS * hole->slot_bytes ? in_a_row + 1 : 0;
        if (tries > 1000000) {
            fprintf(stderr, "callcounts: no hole of %d slots\n", WARM_SLOTS);
            exit(1);
        }
    }
}

static void *new_typed(void) {
    return tri_new(thread, &node_type);
}
static void *new_leaf(void) {
    return tri_new(thread, &point_type);
}
static void *new_n(void) {
    return tri_new_n(thread, &array_type, nelems);
}
static void *new_bytes(void) {
    return tri_new_bytes(thread, size_bytes);
}

/* In a span of its layout's own: rare layouts share spans, which stores take longer to look up. */
static void array_to(struct node *node) {
    for (size_t i = 0; i < WARM_BYTES; i += 2 * MOVED * sizeof(void *))
        array = tri_new_n(thread, &array_type, 2 * MOVED);
    for (size_t i = 0; i < 2 * MOVED; i++) tri_store(thread, array, array + i, node);
}

#define COUNT(name)     \
    do {                \
        once_##name();  \
        twice_##name(); \
    } while (0)
#define COUNT_NEW(name) \
    do {                \
        warm(name);     \
        once_##name();  \
        warm(name);     \
        twice_##name(); \
    } while (0)

/* ---- stores while a cycle marks --------------------------------------------------------------------------------- */

struct hold {
    void *next;
};
static uint32_t holding, go_on, flushing; /* [atomic] */

static void nap(void) {
    usleep(1000);
}

static size_t trace_hold(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)from, (void)budget;
    __atomic_store_n(&holding, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&go_on, __ATOMIC_ACQUIRE)) nap();
    tri_visit(visitor, &((struct hold *)obj)->next, 1);
    return 0;
}
static tri_type hold_type = {
    .struct_size = sizeof(tri_type), .name = "struct hold", .size = sizeof(struct hold), .trace = trace_hold};

static void on_event(const tri_event *event, void *user) {
    (void)user;
    if (event->kind == TRI_EVENT_PHASE && !strcmp(event->phase, "flush"))
        __atomic_store_n(&flushing, 1, __ATOMIC_RELEASE);
}

static void *collect(void *arg) {
    tri_thread *mine;
    if (tri_attach(arg, TRI_ATTACH_PRECISE, &mine) == TRI_OK) tri_collect(mine);
    return NULL;
}

/* What single stores shade stays in the buffer, which has room for all of it; what many shade is flushed. */
static void count_marking(void) {
    TRI_LOCALS(thread, roots, 1);
    struct hold *hold = roots[0] = tri_new(thread, &hold_type);
    struct node *top = tri_new(thread, &node_type);
    tri_store(thread, hold, &hold->next, top);
    parent = new_typed();
    tri_store(thread, top, &top->left, parent);
    child = new_typed();
    tri_store(thread, parent, &parent->left, child);
    tri_store(thread, top, &top->right, child);
    array_to(child);
    tri_store(thread, parent, &parent->right, array);
    pthread_t collector;
    if (pthread_create(&collector, NULL, collect, heap) != 0) exit(1);
    for (; !__atomic_load_n(&holding, __ATOMIC_ACQUIRE); nap()) tri_poll(thread);
    COUNT(store_first);
    COUNT(move_one_first);
    COUNT(move_many_first);
    __atomic_store_n(&go_on, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&flushing, __ATOMIC_ACQUIRE)) nap();
    COUNT(store_again);
    COUNT(move_one_again);
    COUNT(move_many_again);
}

int main(void) {
    tri_config config;
    tri_config_init(&config);
    config.flags |= TRI_HEAP_NO_CYCLES | TRI_HEAP_PRECISE | TRI_HEAP_EVENTS;
    config.event = on_event;
    if (tri_heap_create(&config, &heap) != TRI_OK || tri_attach(heap, 0, &thread) != TRI_OK) {
        fprintf(stderr, "callcounts: %s\n", tri_last_error());
        return 1;
    }
    parent = new_typed();
    child = new_typed();
    COUNT(empty);
    COUNT_NEW(new_typed);
    COUNT_NEW(new_leaf);
    COUNT_NEW(new_n);
    COUNT_NEW(new_bytes);
    COUNT(init);
    COUNT(store);
    array_to(child);
    COUNT(move_one);
    COUNT(move_many);
    COUNT(load);
    COUNT(poll);
    COUNT(frame);
    for (int i = 0; i < 1000; i++) use(manual_alloc_free());
    COUNT(manual);
    count_marking();
    _exit(0); /* the cycle is still held */
}
