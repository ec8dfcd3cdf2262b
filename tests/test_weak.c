/*
 * test_weak.c: weak slots: what they name dies and they are cleared, in objects of every size and place; loads while a
 * cycle marks, in its rounds and after its close; stores that race the clearing; objects freed by hand; misuse; and
 * many threads that load what cycles are about to take away.
 */
#include "tests/held.h"

#include <pthread.h>
#include <string.h>

struct ref {
    void *target;
};
TRI_WEAK_TYPE(ref_type, struct ref, target);

/* Strong and weak slots side by side, and more of both in elements. */
struct both {
    void *strong, *weak;
    uint64_t number;
};
struct both_elem {
    void *weak;
    uint64_t number;
    void *strong;
};
static tri_type both_type = {.struct_size = sizeof(tri_type),
                             .name = "struct both",
                             .size = sizeof(struct both),
                             .elem_size = sizeof(struct both_elem)};

static void both_init(void) {
    if (both_type.layout) return;
    both_type.pointers = fixture_slot_at(offsetof(struct both, strong));
    both_type.weaks = fixture_slot_at(offsetof(struct both, weak));
    both_type.elem_weaks = fixture_slot_at(offsetof(struct both_elem, weak));
    both_type.elem_pointers = fixture_slot_at(offsetof(struct both_elem, strong));
}

TEST(weak, keeps_nothing_alive_and_is_cleared) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    struct ref *ref = roots[0] = tri_new(f.thread, &ref_type);
    uintptr_t leaf = fixture_new_hidden(&f);
    tri_store(f.thread, ref, &ref->target, reveal(leaf));
    roots[1] = tri_weak_load(f.thread, &ref->target);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, leaf));
    CHECK(tri_weak_load(f.thread, &ref->target) == reveal(leaf));
    CHECK_EQ(((struct leaf *)reveal(leaf))->a, 0x5eed);
    roots[1] = NULL;
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, leaf));
    CHECK(ref->target == NULL);
    CHECK(tri_weak_load(f.thread, &ref->target) == NULL);
    CHECK_EQ(atomic_load_relaxed(&f.heap->death.cleared_slots), 1);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* Each other target is kept; what the holder's strong slots name stays, too. */
static void check_holder(struct fixture *f, size_t nelems) {
    both_init();
    TRI_LOCALS(f->thread, roots, 2);
    struct both *b = roots[0] = tri_new_n(f->thread, &both_type, nelems);
    struct both_elem *e = (struct both_elem *)(b + 1);
    void **kept = roots[1] = tri_new_n(f->thread, &array_type, nelems + 1);
    CHECK(b && kept);
    tri_store(f->thread, b, &b->weak, reveal(fixture_new_hidden(f)));
    tri_store(f->thread, b, &b->strong, reveal(fixture_new_hidden(f)));
    uintptr_t *hidden = calloc(nelems + 1, sizeof *hidden);
    for (size_t i = 0; i < nelems; i++) {
        struct leaf *leaf = reveal(hidden[i] = fixture_new_hidden(f));
        tri_store(f->thread, b, &e[i].weak, i % 3 == 1 ? &leaf->c : &leaf->a); /* interior, too */
        tri_store(f->thread, b, &e[i].strong, reveal(fixture_new_hidden(f)));
        e[i].number = (uint64_t)hidden[i] | 1;
        if (i % 2) tri_store(f->thread, kept, &kept[i], leaf);
    }
    fixture_collect(f);
    fixture_collect(f);
    CHECK(b->weak == NULL && b->strong != NULL);
    for (size_t i = 0; i < nelems; i++) {
        CHECK(is_alive(f->heap, hide(e[i].strong)));
        if (i % 2)
            CHECK(tri_weak_load(f->thread, &e[i].weak) ==
                  (i % 3 == 1 ? (char *)reveal(hidden[i]) + 16 : reveal(hidden[i])));
        else
            CHECK_MSG(e[i].weak == NULL, "element %zu of %zu still names %p", i, nelems, e[i].weak);
    }
    CHECK_EQ(tri_verify(f->thread), 0);
    free(hidden);
    TRI_POP(f->thread, roots);
}

TEST(weak, in_objects_of_every_size_and_place) {
    struct fixture f = fixture_open();
    static const size_t sizes[] = {0, 1, 2, 3, 5, 8, 20, 80, 200, 1300, 1400, 5000, 20000};
    for (size_t i = 0; i < TRI_COUNT(sizes); i++) check_holder(&f, TEST_IS_SLOW ? sizes[i] / 4 : sizes[i]);
    fixture_close(&f);
}

TEST(weak, are_traced_beside_by_a_callback) {
    struct fixture f = fixture_open();
    static tri_type traced = {.struct_size = sizeof(tri_type), .name = "traced", .size = 16, .trace = trace_hold};
    traced.weaks = fixture_slot_at(8);
    atomic_store_release(&go_on, 1);
    TRI_LOCALS(f.thread, roots, 1);
    void **obj = roots[0] = tri_new(f.thread, &traced);
    CHECK_MSG(obj != NULL, "%s", tri_last_error());
    tri_store(f.thread, obj, &obj[0], reveal(fixture_new_hidden(&f)));
    tri_store(f.thread, obj, &obj[1], reveal(fixture_new_hidden(&f)));
    fixture_collect(&f);
    CHECK(obj[0] != NULL && is_alive(f.heap, hide(obj[0])));
    CHECK(obj[1] == NULL);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* A load while the cycle marks keeps what it gives away, and a store of it beside a marked holder does, too. */
TEST(weak, loaded_while_marking_lives) {
    struct fixture f = open_heap("checkmark=1", "verify=1");
    TRI_LOCALS(f.thread, roots, 3);
    (void)make_graph(&f, roots);
    struct ref *ref = roots[1] = tri_new(f.thread, &ref_type);
    struct ref *other = roots[2] = tri_new(f.thread, &ref_type);
    uintptr_t kept = hide(tri_new(f.thread, &thing_type)), lost = hide(tri_new(f.thread, &thing_type));
    tri_init(f.thread, ref, &ref->target, reveal(kept));
    tri_init(f.thread, other, &other->target, reveal(lost));
    pthread_t collect = begin_cycle(&f);
    void *loaded = tri_weak_load(f.thread, &ref->target);
    CHECK(loaded == reveal(kept));
    roots[0] = loaded;
    end_cycle(&f, collect);
    CHECK(is_alive(f.heap, kept) && !is_alive(f.heap, lost));
    CHECK(ref->target == reveal(kept) && other->target == NULL);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* Dropped by the mutator while its stack is black: gone all the same, since nothing shades a weak slot's old word. */
TEST(weak, overwritten_while_marking_keeps_nothing) {
    struct fixture f = open_heap("verify=1", NULL);
    TRI_LOCALS(f.thread, roots, 2);
    (void)make_graph(&f, roots);
    struct ref *ref = roots[1] = tri_new(f.thread, &ref_type);
    uintptr_t lost = hide(tri_new(f.thread, &thing_type));
    tri_init(f.thread, ref, &ref->target, reveal(lost));
    pthread_t collect = begin_cycle(&f);
    tri_store(f.thread, ref, &ref->target, NULL);
    end_cycle(&f, collect);
    CHECK(!is_alive(f.heap, lost));
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(weak, refuses_calls_that_would_read_it) {
    struct fixture f = open_heap(NULL, NULL);
    both_init();
    TRI_LOCALS(f.thread, roots, 2);
    struct both *b = roots[0] = tri_new_n(f.thread, &both_type, 2);
    struct leaf *leaf = roots[1] = tri_new(f.thread, &leaf_type);
    tri_store(f.thread, b, &b->weak, leaf);
    CHECK_EQ(tri_xchg(f.thread, b, &b->weak, 0), 0);
    expect_report("tri_xchg: slot %p of struct both is weak", (void *)&b->weak);
    tri_word expected = (tri_word)(uintptr_t)leaf;
    CHECK(!tri_cas(f.thread, b, &b->weak, &expected, 0));
    expect_report("tri_cas: slot %p of struct both is weak", (void *)&b->weak);
    tri_move(f.thread, b, &b->strong, roots, 2);
    expect_report("tri_move: slot %p of struct both is weak", (void *)&b->weak);
    CHECK(b->weak == leaf && b->strong == NULL);
    tri_clear(f.thread, b, &b->strong, 2);
    CHECK(b->weak == NULL);
    CHECK(tri_weak_load(tri_self(NULL), &b->weak) == NULL);
    forget_reports();
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(weak, of_an_object_freed_by_hand_is_cleared) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    struct ref *refs[2];
    for (int i = 0; i < 2; i++) refs[i] = roots[i] = tri_new(f.thread, &ref_type);
    for (int round = 0; round < 3; round++) {
        void *obj = round == 2 ? tri_new_bytes(f.thread, 100000) : tri_new(f.thread, &leaf_type);
        struct leaf *other = roots[2] = tri_new(f.thread, &leaf_type);
        tri_store(f.thread, refs[0], &refs[0]->target, obj);
        tri_store(f.thread, refs[1], &refs[1]->target, other);
        if (round == 1) { /* out of the caches, into lists */
            roots[2] = obj;
            tri_handle keep = tri_global(f.thread, other);
            fixture_collect(&f);
            roots[2] = other;
            tri_global_free(f.thread, keep);
        }
        CHECK_EQ(tri_free(f.thread, obj), TRI_OK);
        CHECK(refs[0]->target == NULL && refs[1]->target == other);
        CHECK_EQ(tri_verify(f.thread), 0);
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* What the verifier and the oracle say of a slot that was not cleared. */
TEST(weak, that_is_not_cleared_is_reported) {
    struct fixture f = open_heap("fault=keep_weak", NULL);
    TRI_LOCALS(f.thread, roots, 1);
    struct ref *ref = roots[0] = tri_new(f.thread, &ref_type);
    uintptr_t leaf = fixture_new_hidden(&f);
    tri_store(f.thread, ref, &ref->target, reveal(leaf));
    fixture_collect(&f);
    fixture_set(f.heap, "fault=none");
    forget_reports(); /* -Dchecks=3 verifies the first cycle by itself */
    CHECK(!is_alive(f.heap, leaf) && ref->target == reveal(leaf));
    CHECK_EQ(tri_verify(f.thread), 1);
    expect_report("I-WEAK1: the weak slot at offset 0 of a struct ref");
    tri_clear(f.thread, ref, &ref->target, 1);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* ---- stores beside the clearing --------------------------------------------------------------------------------- */

static tri_type weak_array = {.struct_size = sizeof(tri_type), .name = "weak array", .elem_size = 8};

/* Who clears weak slots is held once, between its look at one and the clearing of it: no other delay of the library is
 * in those steps, and it ends in this program's nanosleep. */
static tri_heap *clears; /* [atomic] */
static _Thread_local bool frees;
static uint32_t in_clearing, leave_clearing;

static bool is_clearing(tri_heap *heap) {
    if (!heap || pthread_equal(pthread_self(), test_own_thread)) return false;
    if (frees) return tri__lock_held(&heap->mem.gate);
    return heap_phase(heap) == PHASE_DEATH && heap->death.step == DEATH_WEAK; /* the collector's own */
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    if (is_clearing(atomic_load_acquire(&clears))) {
        atomic_store_release(&clears, NULL);
        atomic_store_release(&in_clearing, 1);
        while (!atomic_load_acquire(&leave_clearing)) sched_yield();
        return 0;
    }
    int err = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
    return err ? (errno = err, -1) : 0;
}

struct freed {
    tri_heap *heap;
    void *obj;
};

static void *free_main(void *arg) {
    struct freed *freed = arg;
    tri_thread *t = fixture_attach(freed->heap);
    frees = true;
    CHECK_EQ(tri_free(t, freed->obj), TRI_OK);
    frees = false;
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* Each slot gets a new value while one of them, seen to name what dies, is about to be cleared: all of them stay (R7).
 * What dies does so in a cycle, or by hand. */
static void store_beside_the_clearing(bool by_hand) {
    enum { SLOTS = 400 }; /* each a chance of one in four to be the one */
    struct fixture f = open_heap(NULL, NULL);
    weak_array.elem_weaks = fixture_slot_at(0);
    TRI_LOCALS(f.thread, roots, 2);
    void **slots = roots[0] = tri_new_n(f.thread, &weak_array, SLOTS);
    void **newer = roots[1] = tri_new_n(f.thread, &array_type, SLOTS);
    struct freed freed = {f.heap, tri_new(f.thread, &leaf_type)};
    for (size_t i = 0; i < SLOTS; i++)
        tri_store(f.thread, slots, &slots[i], by_hand ? freed.obj : reveal(fixture_new_hidden(&f)));
    fixture_set(f.heap, "stress.delay=1");
    in_clearing = leave_clearing = 0;
    atomic_store_release(&clears, f.heap);
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, by_hand ? free_main : collect_main, by_hand ? (void *)&freed : f.heap), 0);
    while (!atomic_load_acquire(&in_clearing)) {
        tri_poll(f.thread);
        sched_yield();
    }
    for (size_t i = 0; i < SLOTS; i++) {
        tri_store(f.thread, newer, &newer[i], reveal(fixture_new_hidden(&f)));
        tri_store(f.thread, slots, &slots[i], newer[i]);
    }
    atomic_store_release(&leave_clearing, 1);
    fixture_join(f.thread, other);
    for (size_t i = 0; i < SLOTS; i++) CHECK_MSG(slots[i] && slots[i] == newer[i], "slot %zu lost its new value", i);
    fixture_set(f.heap, "stress.delay=0");
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(weak, a_store_beside_the_clearing_of_a_cycle_stays) {
    if (TRI_CHECKS >= 1) store_beside_the_clearing(false); /* delays need checks */
}

TEST(weak, a_store_beside_the_clearing_for_a_freed_object_stays) {
    if (TRI_CHECKS >= 1) store_beside_the_clearing(true);
}

/* ---- loads that race cycles ------------------------------------------------------------------------------------ */

enum { RACERS = 4, RACE_SLOTS = 64 };
struct race {
    tri_heap *heap;
    tri_handle table; /* weak array that all threads share */
    uint32_t stop;
    uint64_t nloaded;
};

struct tagged_leaf {
    uint64_t tag, pad[3];
};
TRI_LEAF_TYPE(tagged_type, struct tagged_leaf);

/* Makes objects that only weak slots name, and uses what other threads' slots name for a while. */
static void *race_main(void *arg) {
    struct race *race = arg;
    tri_thread *t = fixture_attach(race->heap);
    uint64_t rng = (uint64_t)(uintptr_t)&t | 1, n = 0;
    TRI_LOCALS(t, roots, 3);
    roots[0] = tri_deref(race->table);
    void **slots = roots[0];
    while (!atomic_load_acquire(&race->stop) || n == 0) {
        size_t at = fixture_random(&rng) % RACE_SLOTS;
        if (fixture_random(&rng) % 4 == 0) {
            struct tagged_leaf *leaf = tri_new(t, &tagged_type);
            leaf->tag = 0x7a66ed0000000000ull | (uintptr_t)leaf;
            tri_store(t, slots, &slots[at], leaf);
        }
        struct tagged_leaf *got = roots[1] = tri_weak_load(t, &slots[at]);
        if (got) {
            n++;
            CHECK_MSG(got->tag == (0x7a66ed0000000000ull | (uintptr_t)got), "lost object: %p", (void *)got);
            roots[2] = got; /* a little longer */
        }
        if (n % 16 == 0) tri_poll(t);
        if (fixture_random(&rng) % 64 == 0) (void)tri_new_bytes(t, 200);
    }
    CHECK(roots[2] == NULL || ((struct tagged_leaf *)roots[2])->tag == (0x7a66ed0000000000ull | (uintptr_t)roots[2]));
    atomic_add_relaxed(&race->nloaded, n);
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

static void run_race(const char *setting1, const char *setting2, int ncycles) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.min_heap_bytes = 1 << 20;
    struct fixture f = fixture_open_config(&config);
    if (setting1) fixture_set(f.heap, setting1);
    if (setting2) fixture_set(f.heap, setting2);
    weak_array.elem_weaks = fixture_slot_at(0);
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new_n(f.thread, &weak_array, RACE_SLOTS);
    struct race race = {f.heap, tri_global(f.thread, roots[0]), 0, 0};
    pthread_t threads[RACERS];
    for (int i = 0; i < RACERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, race_main, &race), 0);
    const uint64_t *cleared = &f.heap->death.cleared_slots; /* slow threads are seen to keep all of them alive */
    for (int i = 0; i < ncycles || (!setting2 && atomic_load_relaxed(cleared) == 0); i++) fixture_collect(&f);
    atomic_store_release(&race.stop, 1);
    for (int i = 0; i < RACERS; i++) fixture_join(f.thread, threads[i]);
    CHECK(race.nloaded > 0);
    tri_global_free(f.thread, race.table);
    TRI_POP(f.thread, roots);
    fixture_collect(&f);
    fixture_close(&f);
}

TEST(weak, loads_race_cycles) {
    run_race("poison=1", NULL, TEST_IS_SLOW ? 20 : 100);
}

TEST(weak, loads_race_cycles_with_delays) {
    run_race("poison=1", "stress.delay=50", TEST_IS_SLOW ? 10 : 40);
}

TEST(weak, loads_race_cycles_with_every_path_slow) {
    run_race("stress.slow=1", "checkmark=1", TEST_IS_SLOW ? 10 : 40);
}

TEST(weak, beside_cycles_of_every_mode) {
    static const char *const modes[] = {"mode=insertion", "mode=stop-mark", "mode=stop", "mode=incremental"};
    for (size_t i = 0; i < TRI_COUNT(modes); i++) run_race(modes[i], "verify=1", TEST_IS_SLOW ? 4 : 8);
}
