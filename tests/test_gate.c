/*
 * Who waits at the gate (R5): a weak load, a look into a weak map, an iteration and a look-up that are delayed wait for
 * the close, are told as pauses of the gate's, are named by their calls while they wait, and give the object then,
 * which was reached meanwhile. The cycle stands still while it marks (held.h); loads wait as after many rounds.
 */
#include "tests/held.h"
#include "tests/seen.h"

struct watcher {
    void *weak;
};
TRI_WEAK_TYPE(watcher_type, struct watcher, weak);

enum { ROOT, WATCHER, MAP, NROOTS };

static void *load_weakly(struct fixture *f, void **roots, const void *thing) {
    const struct watcher *w = roots[WATCHER];
    (void)thing;
    return tri_weak_load(f->thread, &w->weak);
}
static void *look_into_map(struct fixture *f, void **roots, const void *thing) {
    tri_word value = 0;
    (void)thing;
    CHECK(tri_wmap_get(f->thread, roots[MAP], roots[ROOT], &value));
    return (void *)(uintptr_t)value;
}
static void *iterate(struct fixture *f, void **roots, const void *thing) {
    size_t position = 0;
    void *key;
    tri_word value = 0;
    (void)thing;
    CHECK(tri_wmap_next(f->thread, roots[MAP], &position, &key, &value));
    CHECK(key == roots[ROOT]);
    return (void *)(uintptr_t)value;
}
static void *look_up(struct fixture *f, void **roots, const void *thing) {
    (void)roots;
    return tri_find(f->thread, thing, NULL);
}

static const struct load {
    const char *call;
    void *(*fn)(struct fixture *f, void **roots, const void *thing);
} loads[] = {
    {"tri_weak_load", load_weakly}, {"tri_wmap_get", look_into_map}, {"tri_wmap_next", iterate}, {"tri_find", look_up}};

/* Lets the cycle go on when the thread has come to its wait. */
static void *go_on_when_it_waits(void *arg) {
    const struct mutator *m = arg;
    while (atomic_load_acquire(&m->os->state) == OS_RUNNING) sched_yield();
    atomic_store_release(&go_on, 1);
    return NULL;
}

static void expect_wait(struct fixture *f, const struct load *load) {
    struct mutator *m = mutator_of(f->thread);
    TRI_LOCALS(f->thread, roots, NROOTS);
    struct graph g = make_graph(f, roots);
    struct watcher *watcher = roots[WATCHER] = tri_new(f->thread, &watcher_type);
    roots[MAP] = tri_wmap_new(f->thread, NULL);
    CHECK(watcher && roots[MAP]);
    tri_init(f->thread, watcher, &watcher->weak, g.thing);
    CHECK_EQ(tri_wmap_put(f->thread, roots[MAP], g.root, (tri_word)(uintptr_t)g.thing), TRI_OK);
    pthread_t collect = begin_cycle(f), helper;
    uint64_t before = count(f->heap, TRI_PAUSE_GATE);
    tri__lock_acquire(&f->heap->mem.gate);
    atomic_store_release(&f->heap->loads_wait, 1);
    tri__lock_release(&f->heap->mem.gate);
    CHECK_EQ(pthread_create(&helper, NULL, go_on_when_it_waits, m), 0);
    CHECK_MSG(load->fn(f, roots, g.thing) == g.thing, "%s", load->call);
    CHECK_MSG(count(f->heap, TRI_PAUSE_GATE) > before, "%s is no pause", load->call);
    CHECK_STR_EQ(atomic_load_relaxed(&m->os->site_call), load->call);
    CHECK_EQ(pthread_join(helper, NULL), 0);
    end_cycle(f, collect);
    TRI_POP(f->thread, roots);
}

TEST(gate, loads_that_are_delayed_are_told_and_named) {
    for (size_t i = 0; i < TRI_COUNT(loads); i++) {
        struct fixture f = open_heap(NULL, NULL);
        expect_wait(&f, &loads[i]);
        close_heap(&f);
    }
}
