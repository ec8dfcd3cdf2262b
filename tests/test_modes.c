/*
 * The ways in which a heap collects (gc/mode.c): one program under each of them, with the same survivors; in a stop one
 * collection leaves no garbage at all; the insertion barrier's second scan finds what stacks and new objects hold, and
 * checkmark sees it when it does not; modes change between cycles of a running program.
 */
#include "tests/fixture.h"
#include "gc/mode.h"

static const char *const modes[NUM_MODES] = {"mode=concurrent", "mode=insertion", "mode=stop-mark", "mode=stop",
                                             "mode=incremental"};

struct thing {
    struct thing *refs[3];
    uint64_t number, seal;
};
TRI_TYPE(thing_type, struct thing, refs[0], refs[1], refs[2]);

static uint64_t seal_of(uint64_t number) {
    return (number + 1) * 0x9e3779b97f4a7c15ull;
}

static struct fixture open_in(int mode, uint32_t flags) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | flags);
    config.min_heap_bytes = 256 << 10;
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, modes[mode]);
    return f;
}

/* ---- a program that is the same every time ---------------------------------------------------------------------- */

enum { NROOTS = 64 };

struct survivors {
    size_t n;
    uint64_t sum;
};

static void count_thing(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    struct survivors *s = arg;
    const struct thing *t = obj;
    (void)size_bytes;
    CHECK(type == &thing_type && t->seal == seal_of(t->number));
    s->n++;
    s->sum += t->seal;
}

/* Makes objects out of what the roots hold, links, loads and drops: half of all stores take the only way to something
 * away. */
static void edit(tri_thread *thread, void **roots, uint64_t *random, uint64_t *number, int nops) {
    for (int i = 0; i < nops; i++) {
        uint64_t r = fixture_random(random);
        size_t a = r % NROOTS, b = (r >> 8) % NROOTS, k = (r >> 16) % 3;
        struct thing *t = roots[a], *u = roots[b];
        switch ((r >> 24) % 8) {
        case 0:
        case 1:
        case 2: {
            struct thing *made = tri_new(thread, &thing_type);
            CHECK(made != NULL);
            t = roots[a], u = roots[b];
            tri_init(thread, made, &made->refs[0], t);
            tri_init(thread, made, &made->refs[1], u ? tri_load(&u->refs[k]) : NULL);
            made->number = ++*number;
            made->seal = seal_of(made->number);
            roots[a] = made;
            break;
        }
        case 3:
        case 4:
            if (t) tri_store(thread, t, &t->refs[k], u);
            break;
        case 5:
            if (t) roots[b] = tri_load(&t->refs[k]);
            break;
        case 6: /* moves a reference: out of one object, into another, with nothing on the stack in between */
            if (t && u) {
                tri_store(thread, t, &t->refs[k], tri_load(&u->refs[(k + 1) % 3]));
                tri_store(thread, u, &u->refs[(k + 1) % 3], NULL);
            }
            break;
        default: roots[a] = NULL;
        }
    }
}

/* What lives after each of some stretches. */
enum { STRETCHES = 6, OPS = TEST_IS_SLOW ? 20000 : 100000 };

static void run_program(int mode, struct survivors out[STRETCHES], int ncollects) {
    struct fixture f = open_in(mode, 0);
    TRI_LOCALS(f.thread, roots, NROOTS);
    uint64_t random = 20261121, number = 0;
    for (int i = 0; i < STRETCHES; i++) {
        edit(f.thread, roots, &random, &number, OPS);
        for (int k = 0; k < ncollects; k++) fixture_collect(&f);
        out[i] = (struct survivors){0, 0};
        size_t walked = tri_walk(f.thread, count_thing, &out[i]);
        CHECK_EQ(walked, out[i].n);
    }
    CHECK(fixture_stats(f.heap).cycles >= STRETCHES);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(modes, all_leave_the_same_survivors) {
    struct survivors oracle[STRETCHES], other[STRETCHES];
    run_program(MODE_STOP, oracle, 1); /* in a stop one collection is exact */
    CHECK(oracle[STRETCHES - 1].n > 10);
    for (int mode = 0; mode < NUM_MODES; mode++) {
        run_program(mode, other, mode == MODE_STOP_MARK ? 1 : 2);
        for (int i = 0; i < STRETCHES; i++)
            CHECK_MSG(other[i].n == oracle[i].n && other[i].sum == oracle[i].sum,
                      "%s, stretch %d: %zu survivors, %zu where every thread stands", modes[mode], i, other[i].n,
                      oracle[i].n);
    }
}

/* ---- several threads --------------------------------------------------------------------------------------------- */

struct editor {
    tri_heap *heap;
    uint64_t seed;
    uint32_t stop; /* [atomic] */
};

static void check_reachable(const struct thing *t, int depth) {
    CHECK(t->seal == seal_of(t->number));
    for (int k = 0; k < 3 && depth > 0; k++) {
        const struct thing *next = tri_load(&t->refs[k]);
        if (next) check_reachable(next, depth - 1);
    }
}

static void *edit_main(void *arg) {
    struct editor *e = arg;
    tri_thread *thread = fixture_attach(e->heap);
    TRI_LOCALS(thread, roots, NROOTS);
    uint64_t random = e->seed, number = e->seed << 32;
    while (!atomic_load_acquire(&e->stop)) {
        edit(thread, roots, &random, &number, 1000);
        for (int i = 0; i < NROOTS; i++)
            if (roots[i]) check_reachable(roots[i], 4);
    }
    TRI_POP(thread, roots);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

enum { EDITORS = 3 };

static void start(tri_heap *heap, struct editor *editors, pthread_t *threads) {
    for (uint64_t i = 0; i < EDITORS; i++) {
        editors[i] = (struct editor){heap, i + 1, 0};
        CHECK_EQ(pthread_create(&threads[i], NULL, edit_main, &editors[i]), 0);
    }
}

static void stop(const struct fixture *f, struct editor *editors, pthread_t *threads) {
    for (int i = 0; i < EDITORS; i++) atomic_store_release(&editors[i].stop, 1);
    for (int i = 0; i < EDITORS; i++) fixture_join(f->thread, threads[i]);
}

TEST(modes, threads_lose_nothing_in_any) {
    for (int mode = 0; mode < NUM_MODES; mode++) {
        struct fixture f = open_in(mode, 0);
        struct editor editors[EDITORS];
        pthread_t threads[EDITORS];
        fixture_set(f.heap, "checkmark=1");
        fixture_set(f.heap, "stress.delay=5");
        start(f.heap, editors, threads);
        for (int i = 0; i < 15; i++) fixture_collect(&f);
        stop(&f, editors, threads);
        fixture_set(f.heap, "stress.delay=0");
        CHECK_EQ(f.heap->stress.reports, 0);
        fixture_close(&f);
    }
}

static uint32_t least_of(const uint32_t *counts, size_t n) {
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < n; i++) least = counts[i] < least ? counts[i] : least;
    return least;
}

TEST(modes, change_between_two_cycles_of_a_running_program) {
    struct fixture f = open_in(MODE_CONCURRENT, 0);
    struct editor editors[EDITORS];
    pthread_t threads[EDITORS];
    uint32_t changed[NUM_MODES] = {0}, ncycles = 0;
    start(f.heap, editors, threads);
    for (int i = 0; i < 400 || (i < 40000 && least_of(changed, NUM_MODES) <= 5); i++) {
        int mode = i % NUM_MODES;
        for (int k = 0; k < 200; k++) {
            int err = tri_heap_set(f.heap, modes[mode]);
            CHECK(err == TRI_OK || err == TRI_EBUSY);
            if (err == TRI_OK) {
                changed[mode]++;
                break;
            }
            tri_step(f.thread, 20000);
            sched_yield(); /* the collector has the cycle, and may have no other core */
        }
        if (i % 7 == 0) fixture_collect(&f), ncycles++;
        if (i % 31 == 0) CHECK_EQ(tri_verify(f.thread), 0);
    }
    stop(&f, editors, threads);
    for (int mode = 0; mode < NUM_MODES; mode++)
        CHECK_MSG(changed[mode] > 5, "%s: %u times", modes[mode], changed[mode]);
    CHECK(fixture_stats(f.heap).cycles >= ncycles);
    fixture_close(&f);
}

/* ---- what the second scan is for --------------------------------------------------------------------------------- */

/* A heap without threads, step by step: a cycle has scanned this thread's stack and the roots, and little is traced
 * yet. The only reference to an object is taken out of a black object's future child into the stack, or into a new
 * object that nobody scans. Whether it lives afterwards. */
static bool hidden_object_lives(const char *fault, bool in_new_object) {
    enum { FIRST = 3000 };
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.workers = 0;
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, "mode=insertion");
    fixture_set(f.heap, fault);
    TRI_LOCALS(f.thread, roots, 3);
    struct thing *holder = roots[0] = tri_new(f.thread, &thing_type);
    for (int i = 0; i < FIRST; i++) { /* what is traced before; the holder is a root of the last one alone */
        struct thing *t = tri_new(f.thread, &thing_type);
        tri_init(f.thread, t, &t->refs[0], roots[0]);
        roots[0] = t;
    }
    tri_init(f.thread, holder, &holder->refs[0], tri_new(f.thread, &thing_type));
    uintptr_t hidden = hide(holder->refs[0]);
    tri__cycle_request(f.heap, "test");
    while (heap_phase(f.heap) != PHASE_MARK) CHECK(tri_step(f.thread, 0));
    struct thing *found = tri_load(&holder->refs[0]);
    if (in_new_object) {
        roots[1] = tri_new(f.thread, &thing_type);
        tri_init(f.thread, roots[1], &((struct thing *)roots[1])->refs[2], tri_load(&holder->refs[0]));
    } else {
        roots[1] = found;
    }
    tri_store(f.thread, holder, &holder->refs[0], NULL);
    while (tri_step(f.thread, 1000000)) {}
    CHECK_EQ(heap_phase(f.heap), PHASE_IDLE);
    bool lives = is_alive(f.heap, hidden);
    roots[0] = roots[1] = NULL;
    TRI_POP(f.thread, roots);
    fixture_set(f.heap, "fault=none");
    fixture_close(&f);
    return lives;
}

TEST(modes, what_only_a_stack_holds_is_found_by_the_second_scan) {
    CHECK(hidden_object_lives("fault=none", false));
    CHECK(hidden_object_lives("fault=fresh_black", false));
    CHECK(!hidden_object_lives("fault=no_rescan", false));
}

TEST(modes, what_only_a_new_object_holds_is_found_by_the_second_scan) {
    CHECK(hidden_object_lives("fault=none", true));
    CHECK(hidden_object_lives("fault=no_rescan", true));
    CHECK(!hidden_object_lives("fault=fresh_black", true));
}

/* ---- a newcomer between the second scan and H5 ------------------------------------------------------------------- */

struct newcomer {
    tri_heap *heap;
    tri_vmstack *stack;
    tri_word words[4];
    uintptr_t top;
};

static void *attach_and_suspend(void *arg) {
    struct newcomer *n = arg;
    tri_thread *t = fixture_attach(n->heap);
    CHECK(!mutator_of(t)->grey_stack);
    n->top = (uintptr_t)(n->words + 1);
    n->stack = tri_vmstack_add(t, n->words, &n->top, NULL);
    CHECK_EQ(tri_vmstack_suspend(t, n->stack), TRI_OK);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* Its stack is as black as everybody's, and what it suspends counts as scanned: others may touch it (R8). */
TEST(modes, who_comes_after_the_second_scan_is_black) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.workers = 0;
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, "mode=insertion");
    tri__cycle_request(f.heap, "test");
    while (heap_phase(f.heap) != PHASE_DEATH) CHECK(tri_step(f.thread, 0));
    struct newcomer n = {.heap = f.heap};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, attach_and_suspend, &n), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(heap_phase(f.heap), PHASE_DEATH);
    CHECK_EQ(tri_vmstack_touch(f.thread, n.stack), TRI_OK);
    while (tri_step(f.thread, 1000000)) {}
    tri_vmstack_remove(f.thread, n.stack);
    fixture_close(&f);
}

TEST(modes, are_options_by_name_between_two_cycles) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "mode=hybrid"), TRI_EINVAL);
    CHECK(strstr(tri_last_error(), "insertion") != NULL);
    for (int mode = NUM_MODES; mode-- > 0;) {
        CHECK_EQ(tri_heap_set(f.heap, modes[mode]), TRI_OK);
        CHECK_EQ(tri__mode(f.heap), (enum mode)mode);
        fixture_collect(&f);
    }
    fixture_set(f.heap, "mode=incremental");
    tri__cycle_request(f.heap, "test");
    CHECK_EQ(tri_heap_set(f.heap, "mode=stop"), TRI_EBUSY); /* asked for */
    while (tri_step(f.thread, 1000)) {}
    CHECK_EQ(tri_heap_set(f.heap, "mode=stop"), TRI_OK);
    fixture_close(&f);
}
