/*
 * The barrier's buffer and its flush: what is unmarked is queued once it is flushed, wherever in an object the word
 * pointed and in whatever span; what is marked already, or is no object, is not; and what is overwritten again and
 * again before anybody marks it takes a bounded number of entries.
 */
#include "tests/held.h"

#include "gc/work.h"

enum { NSLOTS = 8 };
TRI_POINTER_ARRAY_TYPE(slots_type, 0);
struct small {
    uint64_t number;
};
TRI_LEAF_TYPE(small_type, struct small);

/* Behind the hold: unmarked, until the cycle goes on. */
static void **make_slots(const struct fixture *f, const struct graph *g) {
    void **slots = tri_new_n(f->thread, &slots_type, NSLOTS);
    CHECK(slots != NULL);
    tri_store(f->thread, g->keeper, &g->keeper->first, slots);
    return slots;
}

static bool is_marked(const struct fixture *f, const void *object) {
    struct slot slot;
    const struct space *space = &f->heap->mem.space;
    CHECK(space_find_slot(space, (uintptr_t)object, &slot));
    return space_is_marked(space, &slot);
}

/* Entries in the thread's hand and in the list. */
static size_t nqueued(const struct fixture *f) {
    const struct marker *mk = &mutator_of(f->thread)->marker;
    return (mk->buf ? mk->buf->n : 0) + atomic_load_relaxed(&f->heap->work.nfull) * WORKBUF_ENTRIES;
}

TEST(barrier, what_a_word_pointed_at_lives_wherever_in_it) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, locals, 1);
    struct graph g = make_graph(&f, locals);
    void **slots = make_slots(&f, &g);
    struct mutator *m = mutator_of(f.thread);
    struct thing *inside = tri_new(f.thread, &thing_type);
    struct small *small = tri_new(f.thread, &small_type);
    char *large = tri_new_bytes(f.thread, 100000);
    char *manual = tri_manual_alloc(f.heap, 64);
    CHECK(inside && small && large && manual);
    CHECK_EQ(tri_usable_size(f.heap, small), 8); /* its marks are in its span */
    tri_store(f.thread, slots, &slots[0], &inside->numbers[3]);
    tri_store(f.thread, slots, &slots[1], small);
    tri_store(f.thread, slots, &slots[2], large + 70000);
    tri_store(f.thread, slots, &slots[3], manual + 8);
    pthread_t collect = begin_cycle(&f);
    for (int i = 0; i < 4; i++) tri_store(f.thread, slots, &slots[i], NULL);
    CHECK_EQ(m->nshade, 4);
    size_t before = nqueued(&f);
    m->marker.worked = false;
    CHECK(tri__barrier_flush(m) && m->marker.worked); /* R2 */
    CHECK_EQ(m->nshade, 0);
    CHECK_EQ(nqueued(&f) - before, 3); /* manual memory is no object */
    end_cycle(&f, collect);
    CHECK(is_alive(f.heap, hide(inside)) && is_alive(f.heap, hide(small)) && is_alive(f.heap, hide(large)));
    tri_manual_free(f.heap, manual);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* A thread that overwrites references to what is marked has nothing to tell (R2), or no round would close. */
TEST(barrier, what_is_marked_does_not_count) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, locals, 1);
    struct graph g = make_graph(&f, locals);
    void **slots = make_slots(&f, &g);
    struct mutator *m = mutator_of(f.thread);
    struct thing *thing = tri_new(f.thread, &thing_type);
    struct small *small = tri_new(f.thread, &small_type);
    tri_store(f.thread, slots, &slots[0], thing);
    tri_store(f.thread, slots, &slots[1], &thing->numbers[5]);
    tri_store(f.thread, slots, &slots[2], small);
    pthread_t collect = begin_cycle(&f);
    atomic_store_release(&go_on, 1);
    while (heap_phase(f.heap) != PHASE_FLUSH) sched_yield(); /* it waits for this thread's answer */
    CHECK(is_marked(&f, thing) && is_marked(&f, small));
    for (int i = 0; i < 3; i++) tri_store(f.thread, slots, &slots[i], NULL);
    CHECK_EQ(m->nshade, 2); /* the first is seen to be marked at once */
    size_t before = nqueued(&f);
    m->marker.worked = false;
    CHECK(!tri__barrier_flush(m) && !m->marker.worked);
    CHECK_EQ(nqueued(&f), before);
    CHECK_EQ(atomic_load_acquire(&f.heap->found), 0);
    end_cycle(&f, collect);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* Two unmarked objects take turns in a slot while the collector is held: what waits in the list stays bounded. */
TEST(barrier, a_slot_that_is_overwritten_again_and_again_fills_no_list) {
    enum { NSTORES = TEST_IS_SLOW ? 200000 : 1000000 };
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, locals, 1);
    struct graph g = make_graph(&f, locals);
    void **slots = make_slots(&f, &g);
    struct thing *things[2];
    for (int i = 0; i < 2; i++) tri_store(f.thread, slots, &slots[i], things[i] = tri_new(f.thread, &thing_type));
    pthread_t collect = begin_cycle(&f);
    CHECK(!is_marked(&f, things[0]) && !is_marked(&f, things[1]));
    for (int i = 0; i < NSTORES; i++) tri_store(f.thread, slots, &slots[0], things[i % 2]);
    size_t most = atomic_load_relaxed(&f.heap->work.nfull);
    CHECK_MSG(most > 10 && most < 400, "%zu buffers of %d entries in the list", most, WORKBUF_ENTRIES);
    for (int i = 0; i < 2; i++) tri_store(f.thread, slots, &slots[i], NULL);
    end_cycle(&f, collect);
    CHECK(is_alive(f.heap, hide(things[0])) && is_alive(f.heap, hide(things[1])));
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* In bulk, too, a number that looks like a reference is none: what it names dies. Only builds with checks tell. */
TEST(barrier, a_word_that_is_no_slot_keeps_nothing) {
    if (TRI_CHECKS == 0) return;
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, locals, 2);
    (void)make_graph(&f, locals);
    struct pair *pair = locals[1] = tri_new(f.thread, &pair_type);
    struct mutator *m = mutator_of(f.thread);
    uintptr_t dead = fixture_new_hidden(&f), kept = fixture_new_hidden(&f);
    pair->value = (uintptr_t)reveal(dead);
    tri_store(f.thread, pair, &pair->right, reveal(kept));
    pthread_t collect = begin_cycle(&f);
    size_t before = m->nshade;
    tri_clear(f.thread, pair, &pair->left, 3);
    CHECK_EQ(m->nshade - before, 1); /* what its slot named */
    CHECK(pair->left == NULL && pair->right == NULL && pair->value == 0);
    end_cycle(&f, collect);
    CHECK(is_alive(f.heap, kept) && !is_alive(f.heap, dead));
    TRI_POP(f.thread, locals);
    close_heap(&f);
}
