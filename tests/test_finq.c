/*
 * test_finq.c: finalizer queues: watched objects come back once, with all that they name; the order of death around
 * them; those that die together; what changes hands while a cycle marks; what nobody takes before the heap's end.
 * Cleanups: test_death.c.
 */
#include "tests/cleanups.h"
#include "tests/held.h"

#include <pthread.h>

struct ref {
    void *target;
};
TRI_WEAK_TYPE(ref_type, struct ref, target);

/* What a program does that wants to see all of it: drops its roots, collects, and polls until NULL. */
static size_t take_all(const struct fixture *f, tri_finq *q) {
    size_t n = 0;
    CHECK_EQ(tri_collect(f->thread), TRI_OK);
    for (; tri_finq_poll(f->thread, q) != NULL; n++) {}
    return n;
}

/* A queue of the heap's end, with some that came back and nobody took, and some that still live. `sees`: all of them
 * are seen before the last detach. */
static void end_queue(uint32_t flags, bool sees, uint64_t cleanups) {
    enum { EACH = 20 };
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | flags);
    forget_calls();
    TRI_LOCALS(f.thread, roots, 2);
    tri_finq *q = tri_finq_new(f.thread);
    for (int i = 0; i < 2 * EACH; i++) { /* two chains */
        struct pair *p = tri_new(f.thread, &pair_type);
        tri_init(f.thread, p, &p->left, roots[i % 2]);
        roots[i % 2] = p;
        CHECK_EQ(tri_finq_watch(f.thread, q, p), TRI_OK);
        CHECK_EQ(tri_cleanup_add(f.thread, p, add_to_sum, arg_of(1)), TRI_OK);
    }
    roots[1] = NULL;
    if (sees) CHECK_EQ(take_all(&f, q), EACH);
    roots[0] = NULL;
    if (sees) CHECK_EQ(take_all(&f, q), EACH);
    if (!sees) fixture_collect(&f);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
    CHECK_EQ(ncalls, cleanups);
}

TEST(finq, of_the_heap_drops_what_nobody_took_out_of_a_queue) {
    end_queue(0, false, 0);
    end_queue(TRI_HEAP_RUN_CLEANUPS, false, 40); /* of what lies in the queue, too */
    end_queue(TRI_HEAP_RUN_CLEANUPS, true, 40);
}

TEST(finq, a_watched_object_comes_back_once_with_all_that_it_names) {
    struct fixture f = fixture_open();
    forget_calls();
    TRI_LOCALS(f.thread, roots, 3);
    tri_finq *q = tri_finq_new(f.thread);
    struct ref *ref = roots[0] = tri_new(f.thread, &ref_type);
    struct ref *to_child = roots[2] = tri_new(f.thread, &ref_type);
    struct pair *pair = roots[1] = tri_new(f.thread, &pair_type);
    struct pair *child = tri_new(f.thread, &pair_type);
    tri_store(f.thread, pair, &pair->left, child);
    child->value = 77;
    struct pair *grandchild = tri_new(f.thread, &pair_type);
    tri_store(f.thread, child, &child->right, grandchild);
    grandchild->value = 78;
    tri_store(f.thread, ref, &ref->target, pair);
    tri_store(f.thread, to_child, &to_child->target, child);
    CHECK_EQ(tri_finq_watch(f.thread, q, pair), TRI_OK);
    CHECK_EQ(tri_cleanup_add(f.thread, pair, add_to_sum, arg_of(1)), TRI_OK);
    uintptr_t hidden = hide(pair);
    fixture_collect(&f);
    CHECK(tri_finq_poll(f.thread, q) == NULL);
    roots[1] = NULL;
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hidden));
    CHECK(ref->target == NULL && to_child->target == NULL); /* cleared before it came back */
    fixture_collect(&f);                                    /* the queue is a root */
    fixture_collect(&f);
    CHECK_EQ(tri_verify(f.thread), 0);
    pair = roots[1] = tri_finq_poll(f.thread, q);
    CHECK(pair == reveal(hidden) && pair->left->value == 77 && pair->left->right->value == 78);
    CHECK(tri_finq_poll(f.thread, q) == NULL);
    CHECK_EQ(tri_cleanup_run(f.thread, 10), 0);
    CHECK_EQ(tri_finq_watch(f.thread, q, pair), TRI_OK); /* once more */
    roots[1] = NULL;
    fixture_collect(&f);
    CHECK(tri_finq_poll(f.thread, q) == reveal(hidden));
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, hidden));
    CHECK_EQ(tri_cleanup_run(f.thread, 10), 1);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(finq, all_watched_objects_of_a_dead_graph_come_back) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    tri_finq *q = tri_finq_new(f.thread), *other = tri_finq_new(f.thread);
    const size_t n = 1000;
    for (size_t i = 0; i < n; i++) { /* a list, and its end names its beginning */
        struct pair *p = tri_new(f.thread, &pair_type);
        p->value = i;
        tri_store(f.thread, p, &p->left, roots[0]);
        if (i == 0) roots[1] = p;
        roots[0] = p;
        CHECK_EQ(tri_finq_watch(f.thread, i % 10 ? q : other, p), TRI_OK);
    }
    tri_store(f.thread, roots[1], &((struct pair *)roots[1])->right, roots[0]);
    roots[0] = roots[1] = NULL;
    fixture_collect(&f);
    bool seen[1000] = {false};
    size_t nseen = 0;
    for (int which = 0; which < 2; which++)
        for (struct pair *p; (p = roots[0] = tri_finq_poll(f.thread, which ? other : q)) != NULL; nseen++) {
            CHECK(p->value < n && !seen[p->value] && (p->value % 10 == 0) == (which == 1));
            seen[p->value] = true;
            for (struct pair *walk = p; walk->value; walk = walk->left) CHECK_EQ(walk->left->value + 1, walk->value);
            if (nseen % 100 == 0) fixture_collect(&f);
        }
    CHECK_EQ(nseen, n);
    fixture_collect(&f);
    CHECK_EQ(atomic_load_relaxed(&f.heap->live_bytes), 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* Two that come back together: who has taken one out finds the other in it, which lies in the queue still, and may
 * watch it for the next time. */
TEST(finq, what_lies_in_a_queue_may_be_watched_again) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    tri_finq *q = tri_finq_new(f.thread);
    struct pair *one = roots[0] = tri_new(f.thread, &pair_type), *two = roots[1] = tri_new(f.thread, &pair_type);
    tri_store(f.thread, one, &one->left, two);
    tri_store(f.thread, two, &two->left, one);
    CHECK_EQ(tri_finq_watch(f.thread, q, one), TRI_OK);
    CHECK_EQ(tri_finq_watch(f.thread, q, two), TRI_OK);
    roots[0] = roots[1] = one = two = NULL;
    fixture_collect(&f);
    struct pair *first = roots[0] = tri_finq_poll(f.thread, q), *second = first->left;
    CHECK_EQ(tri_finq_watch(f.thread, q, second), TRI_OK);
    CHECK_EQ(tri_finq_watch(f.thread, q, second), TRI_ESTATE);
    roots[0] = first = NULL;
    fixture_collect(&f);
    CHECK(tri_finq_poll(f.thread, q) == second); /* as it died first */
    CHECK(tri_finq_poll(f.thread, q) == NULL);
    uintptr_t was = hide(second);
    second = NULL;
    fixture_collect(&f);
    CHECK(tri_finq_poll(f.thread, q) == reveal(was) && tri_finq_poll(f.thread, q) == NULL);
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, was));
    CHECK_EQ(tri_verify(f.thread), 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* A holder that comes back: its weak slot to what comes back too stays, the one to what does not is cleared. */
static void come_back_with_weak_slots(const char *mode) {
    struct fixture f = fixture_open();
    fixture_set(f.heap, mode);
    TRI_LOCALS(f.thread, roots, 2);
    tri_finq *q = tri_finq_new(f.thread);
    struct ref *lost = roots[0] = tri_new(f.thread, &ref_type), *kept = roots[1] = tri_new(f.thread, &ref_type);
    tri_store(f.thread, lost, &lost->target, reveal(fixture_new_hidden(&f)));
    tri_store(f.thread, kept, &kept->target, lost);
    CHECK_EQ(tri_finq_watch(f.thread, q, lost), TRI_OK);
    CHECK_EQ(tri_finq_watch(f.thread, q, kept), TRI_OK);
    uintptr_t was = hide(lost);
    roots[0] = roots[1] = lost = kept = NULL;
    fixture_collect(&f);
    CHECK_EQ(tri_verify(f.thread), 0);
    for (int i = 0; i < 2; i++) {
        struct ref *ref = roots[i] = tri_finq_poll(f.thread, q);
        CHECK(ref != NULL);
        if (ref == reveal(was))
            CHECK(ref->target == NULL);
        else
            CHECK(tri_weak_load(f.thread, &ref->target) == reveal(was));
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(finq, weak_slots_of_what_came_back_name_the_living) {
    static const char *const modes[] = {"mode=concurrent", "mode=insertion", "mode=stop-mark", "mode=stop",
                                        "mode=incremental"};
    for (size_t i = 0; i < TRI_COUNT(modes); i++) come_back_with_weak_slots(modes[i]);
}

/* ---- while a cycle marks ----------------------------------------------------------------------------------------- */

/* Watched and dropped while the cycle marks; and taken out of the queue while it marks. */
TEST(finq, of_objects_that_change_hands_while_marking) {
    struct fixture f = open_heap("checkmark=1", "verify=1");
    forget_calls();
    TRI_LOCALS(f.thread, roots, 3);
    (void)make_graph(&f, roots);
    tri_finq *q = tri_finq_new(f.thread);
    uintptr_t first = hide(tri_new(f.thread, &thing_type));
    CHECK_EQ(tri_finq_watch(f.thread, q, reveal(first)), TRI_OK);
    fixture_set(f.heap, "stress.delay=0");
    atomic_store_release(&go_on, 1);
    fixture_collect(&f); /* comes back */
    struct owner *keeper = roots[1] = tri_new(f.thread, &owner_type);
    struct owner *inner = tri_new(f.thread, &owner_type);
    uintptr_t second = hide(inner);
    tri_store(f.thread, keeper, &keeper->first, inner);
    pthread_t collect = begin_cycle(&f);
    CHECK_EQ(tri_cleanup_add(f.thread, inner, add_to_sum, arg_of(3)), TRI_OK);
    struct thing *thing = tri_new(f.thread, &thing_type); /* black */
    CHECK_EQ(tri_finq_watch(f.thread, q, thing), TRI_OK);
    uintptr_t third = hide(thing);
    tri_store(f.thread, keeper, &keeper->first, NULL);
    roots[2] = tri_finq_poll(f.thread, q); /* shaded: this thread's stack is black */
    CHECK(roots[2] == reveal(first));
    end_cycle(&f, collect);
    CHECK(is_alive(f.heap, first) && is_alive(f.heap, second) && is_alive(f.heap, third));
    CHECK_EQ(tri_cleanup_run(f.thread, 10), 0);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, first) && !is_alive(f.heap, second) && is_alive(f.heap, third));
    CHECK_EQ(tri_cleanup_run(f.thread, 10), 1);
    CHECK(tri_finq_poll(f.thread, q) == reveal(third));
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

struct finder {
    tri_heap *heap;
    uintptr_t hidden;
    uint32_t asks, done;
    void *found;
};

static void *find_main(void *arg) {
    struct finder *finder = arg;
    tri_thread *t = fixture_attach(finder->heap);
    TRI_LOCALS(t, roots, 1);
    atomic_store_release(&finder->asks, 1);
    roots[0] = finder->found = tri_find(t, reveal(finder->hidden), NULL);
    atomic_store_release(&finder->done, 1);
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* What is coming back is marked and not black yet: a look-up waits until it is, a weak load finds its slot cleared. */
TEST(finq, of_what_comes_back_is_not_seen_before_it_is_complete) {
    struct fixture f = open_heap(NULL, NULL);
    TRI_LOCALS(f.thread, roots, 2);
    tri_finq *q = tri_finq_new(f.thread);
    struct graph g = make_graph(&f, roots);
    struct ref *ref = roots[1] = tri_new(f.thread, &ref_type);
    tri_store(f.thread, ref, &ref->target, g.root);
    CHECK_EQ(tri_finq_watch(f.thread, q, g.root), TRI_OK);
    struct finder finder = {f.heap, hide(g.root), 0, 0, NULL};
    uintptr_t thing = hide(g.thing);
    roots[0] = NULL;
    pthread_t collect, find;
    atomic_store_release(&holding, 0);
    atomic_store_release(&go_on, 0);
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    while (!atomic_load_acquire(&holding)) {
        tri_poll(f.thread);
        sched_yield();
    }
    CHECK_EQ(heap_phase(f.heap), PHASE_DEATH);
    CHECK_EQ(pthread_create(&find, NULL, find_main, &finder), 0);
    for (int i = 0; i < 30 && !atomic_load_acquire(&finder.done);) {
        fixture_sleep_ms(1);
        tri_poll(f.thread);
        i += atomic_load_acquire(&finder.asks) != 0; /* a loaded machine may start it late */
    }
    CHECK(tri_weak_load(f.thread, &ref->target) == NULL);
    CHECK(tri_finq_poll(f.thread, q) == NULL);
    CHECK_EQ(atomic_load_acquire(&finder.done), 0);
    end_cycle(&f, collect);
    fixture_join(f.thread, find);
    CHECK(finder.found == g.root && is_alive(f.heap, thing));
    CHECK(tri_finq_poll(f.thread, q) == g.root);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}
