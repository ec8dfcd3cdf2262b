/*
 * Planted bugs that lose an object: a host or a collector with one real bug in it, which the checking modes (checkmark,
 * poison, stress) have to report, with the type and the offset of the field where they can name them. Beside each
 * stands the same program without the bug, which must be silent. What the figures of a heap are checked for, and what
 * ends the process, is in test_planted_figures.c.
 *
 * A cycle is held in its mark phase (held.h), and a store is held between its barrier and its write through this
 * program's own nanosleep, which the random delays of stress.delay call in exactly that place.
 */
#include "tests/held.h"

#if TRI_CHECKS >= 3

/* ---- a store without its barrier -------------------------------------------------------------------------------- */

enum store { STORE_RIGHT, STORE_BY_FAULT, STORE_PLAIN };

/* Moves the thing from an object that is not scanned yet into one that is. */
static void move_thing(enum store how) {
    struct fixture f = open_heap("checkmark=1", how == STORE_BY_FAULT ? "fault=no_barrier" : NULL);
    TRI_LOCALS(f.thread, roots, 1);
    struct graph g = make_graph(&f, roots);
    pthread_t collect = begin_cycle(&f);
    if (how == STORE_PLAIN) {
        plain_store(&g.root->second, g.thing);
        plain_store(&g.keeper->second, NULL);
    } else {
        tri_store(f.thread, g.root, &g.root->second, g.thing);
        tri_store(f.thread, g.keeper, &g.keeper->second, NULL);
    }
    end_cycle(&f, collect);
    fixture_set(f.heap, "fault=none");
    if (how == STORE_RIGHT) {
        expect_silence();
        CHECK(is_alive(f.heap, hide(g.thing)));
    } else {
        expect_report("checkmark: struct thing %p was missed: it is reachable from struct owner %p at offset 24; "
                      "stored without tri_store?",
                      (void *)g.thing, (void *)g.root);
        CHECK(!is_alive(f.heap, hide(g.thing))); /* it was a real bug */
        tri_store(f.thread, g.root, &g.root->second, NULL);
    }
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(planted, a_store_with_its_barrier_is_silent) {
    move_thing(STORE_RIGHT);
}

TEST(planted, a_store_whose_barrier_does_nothing) {
    move_thing(STORE_BY_FAULT);
}

TEST(planted, a_plain_store_instead_of_tri_store) {
    move_thing(STORE_PLAIN);
}

static void *global_slots[2];

static void store_global(bool right) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, roots, 1);
    tri_root *range = tri_root_add(f.thread, global_slots, 2, NULL);
    struct graph g = make_graph(&f, roots);
    pthread_t collect = begin_cycle(&f);
    if (right) {
        tri_root_store(f.thread, range, &global_slots[1], g.thing);
        tri_store(f.thread, g.keeper, &g.keeper->second, NULL);
    } else {
        plain_store(&global_slots[1], g.thing);
        plain_store(&g.keeper->second, NULL);
    }
    end_cycle(&f, collect);
    if (right)
        expect_silence();
    else
        expect_report("checkmark: struct thing %p was missed: it is reachable from a registered range of global slots",
                      (void *)g.thing);
    CHECK_EQ(is_alive(f.heap, hide(g.thing)), right);
    tri_root_remove(f.thread, range);
    global_slots[1] = NULL;
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(planted, a_global_slot_written_without_tri_root_store) {
    store_global(true);
    store_global(false);
}

/* ---- a root forgotten ------------------------------------------------------------------------------------------- */

enum forgotten { IN_FRAME, IN_HANDLE, IN_STACK, NUM_FORGOTTEN };

static void forget_roots(enum forgotten where, bool fault) {
    static const char *const names[] = {"a frame of a thread", "a local handle", "a VM stack"};
    struct fixture f = open_heap("checkmark=1", fault ? "fault=forget_root" : NULL);
    TRI_LOCALS(f.thread, roots, 1);
    uint32_t scope = tri_scope_open(f.thread);
    tri_word stack[4] = {0}, *top = stack;
    tri_vmstack *vmstack = tri_vmstack_add(f.thread, stack, &top, NULL);
    CHECK(vmstack != NULL);
    struct thing *thing = tri_new(f.thread, &thing_type);
    switch (where) {
    case IN_FRAME: roots[0] = thing; break;
    case IN_HANDLE: CHECK(tri_local(f.thread, thing) != NULL); break;
    default: *top++ = (tri_word)(uintptr_t)thing; break;
    }
    fixture_collect(&f);
    if (fault)
        expect_report("checkmark: struct thing %p was missed: it is reachable from %s; was the root registered",
                      (void *)thing, names[where]);
    else
        expect_silence();
    CHECK_EQ(is_alive(f.heap, hide(thing)), !fault);
    tri_vmstack_remove(f.thread, vmstack);
    tri_scope_close(f.thread, scope);
    TRI_POP(f.thread, roots);
    fixture_set(f.heap, "fault=none");
    close_heap(&f);
}

TEST(planted, a_thread_whose_roots_are_not_scanned) {
    for (int where = 0; where < NUM_FORGOTTEN; where++) {
        forget_roots((enum forgotten)where, false);
        forget_roots((enum forgotten)where, true);
    }
}

/* The host's bug: a reference in malloc'd memory that nobody was told of. Another thing keeps the span in use. */
static struct thing **forget_in_malloc(const struct fixture *f, void **roots) {
    struct thing **secret = malloc(sizeof(struct thing *));
    roots[0] = tri_new(f->thread, &owner_type);
    roots[1] = tri_new(f->thread, &thing_type);
    *secret = tri_new(f->thread, &thing_type);
    struct fixture again = *f;
    for (int i = 0; i < 2; i++) fixture_collect(&again);
    CHECK(!is_alive(f->heap, hide(*secret)));
    expect_silence();
    return secret;
}

TEST(planted, a_stored_reference_that_was_in_no_root) {
    struct fixture f = open_heap("poison=1", "stress.slow=1");
    TRI_LOCALS(f.thread, roots, 2);
    struct thing **secret = forget_in_malloc(&f, roots);
    struct owner *owner = roots[0];
    tri_store(f.thread, owner, &owner->first, roots[1]);
    expect_silence();
    tri_store(f.thread, owner, &owner->second, *secret);
    expect_report("tri_store: the value %p stored at offset 24 of struct owner names freed memory, once of type "
                  "struct thing; was it in a root at every safepoint?",
                  (void *)*secret);
    tri_store(f.thread, owner, &owner->second, NULL);
    free(secret);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* The same reference, stored where the fast path does not look: the next marker does. */
TEST(planted, a_slot_that_names_freed_memory) {
    struct fixture f = open_heap("poison=1", NULL);
    TRI_LOCALS(f.thread, roots, 2);
    struct thing **secret = forget_in_malloc(&f, roots);
    struct owner *owner = roots[0];
    tri_store(f.thread, owner, &owner->second, *secret);
    expect_silence();
    fixture_collect(&f);
    expect_report("mark: struct owner at offset 24 names freed memory, once of type struct thing");
    tri_store(f.thread, owner, &owner->second, NULL);
    free(secret);
    TRI_POP(f.thread, roots);
    fixture_collect(&f);
    close_heap(&f);
}

/* Without stress this program, which roots a new object too late, runs for ever. */
static bool late_root_is_seen(const char *setting1, const char *setting2) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.report = on_report;
    forget_reports();
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, "poison=1");
    if (setting1) fixture_set(f.heap, setting1);
    if (setting2) fixture_set(f.heap, setting2);
    TRI_LOCALS(f.thread, roots, 2);
    struct owner *owner = roots[0] = tri_new(f.thread, &owner_type);
    roots[1] = tri_new(f.thread, &thing_type);
    for (int i = 0; i < 20; i++) (void)tri_new(f.thread, &thing_type); /* stress.slow closes what is open by now */
    struct thing *thing = tri_new(f.thread, &thing_type);
    for (int i = 0; i < 3000; i++) {          /* safepoints, all of them */
        (void)tri_new(f.thread, &owner_type); /* of another type: the freed slot is not given out again */
        if (setting1 && i % 100 == 0) fixture_sleep_ms(1);
    }
    tri_store(f.thread, owner, &owner->second, thing);
    bool seen = ntold > 0;
    if (seen) expect_report("at offset 24 of struct owner names freed memory, once of type struct thing");
    tri_store(f.thread, owner, &owner->second, NULL);
    TRI_POP(f.thread, roots);
    close_heap(&f);
    return seen;
}

TEST(planted, a_root_that_comes_too_late_shows_under_stress) {
    CHECK(!late_root_is_seen(NULL, NULL));
    CHECK(late_root_is_seen("stress.slow=1", "stress.collect=1"));
}

/* ---- a mark bit dropped ----------------------------------------------------------------------------------------- */

TEST(planted, a_mark_that_is_dropped) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, roots, 1);
    struct owner *child = roots[0] = tri_new(f.thread, &owner_type);
    struct owner *parent = tri_new(f.thread, &owner_type);
    CHECK(child < parent); /* the fault takes the first mark of the heap */
    tri_store(f.thread, parent, &parent->first, child);
    roots[0] = parent;
    for (int i = 0; i < 2; i++) fixture_collect(&f);
    expect_silence();
    fixture_set(f.heap, "fault=drop_mark");
    fixture_collect(&f);
    fixture_set(f.heap, "fault=none");
    expect_report("checkmark: struct owner %p was missed: it is reachable from struct owner %p at offset 16",
                  (void *)child, (void *)parent);
    CHECK(!is_alive(f.heap, hide(child)) && is_alive(f.heap, hide(parent)));
    tri_store(f.thread, parent, &parent->first, NULL);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* ---- a store in flight while the cycle goes on: H2 left out ----------------------------------------------------- */

static _Thread_local bool in_store;
static uint32_t store_paused, store_may_end;

/* The library's delays end here. Everybody sleeps, but for a thread that is told to stop in the middle of a store. */
int nanosleep(const struct timespec *wanted, struct timespec *left) {
    if (in_store) {
        in_store = false;
        atomic_store_release(&store_paused, 1);
        while (!atomic_load_acquire(&store_may_end)) sched_yield();
        return 0;
    }
    int err = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
    if (err != 0) errno = err;
    return err == 0 ? 0 : -1;
}

struct writer {
    tri_heap *heap;
    tri_handle shared;
    pthread_t thread;
    uint32_t attached, quit;
};

/* Thread A: armed, it begins to store over a slot that holds NULL, and stops between its barrier and its write. */
static void *write_slowly(void *arg) {
    struct writer *w = arg;
    tri_thread *t;
    CHECK_EQ(tri_attach(w->heap, TRI_ATTACH_PRECISE, &t), TRI_OK);
    atomic_store_release(&w->attached, 1);
    while (!mutator_of(t)->armed) tri_poll(t);
    struct owner *shared = tri_deref(w->shared);
    in_store = true;
    while (in_store) tri_store(t, shared, &shared->second, NULL); /* a delay comes in every fourth or so */
    while (!atomic_load_acquire(&w->quit)) tri_poll(t);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

static bool is_scanned(const struct fixture *f) {
    return mutator_of(f->thread)->armed && !mutator_of(f->thread)->grey_stack;
}

/* Thread B is the test. Not armed yet, it stores a thing into A's slot without a barrier, and forgets it; it is
 * scanned; it reads the thing back; A overwrites it, having shaded what was there before. Only H2 keeps B from being
 * scanned while A is in its store. */
static void overtake_a_store(bool settle) {
    struct fixture f = open_heap("checkmark=1", settle ? NULL : "fault=no_settle");
    fixture_set(f.heap, "stress.delay=1");
    TRI_LOCALS(f.thread, roots, 1);
    struct writer w = {.heap = f.heap};
    struct owner *shared = tri_new(f.thread, &owner_type);
    w.shared = tri_global(f.thread, shared);
    struct thing *thing = roots[0] = tri_new(f.thread, &thing_type);
    store_paused = store_may_end = 0;
    CHECK_EQ(pthread_create(&w.thread, NULL, write_slowly, &w), 0);
    while (!atomic_load_acquire(&w.attached)) sched_yield();
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    while (!atomic_load_acquire(&store_paused)) sched_yield(); /* no safepoint: this thread is not armed */
    CHECK(!mutator_of(f.thread)->armed);
    tri_store(f.thread, shared, &shared->second, thing);
    roots[0] = NULL;
    for (int i = 0; i < (settle ? 50 : 20000) && !is_scanned(&f); i++) {
        tri_poll(f.thread);
        fixture_sleep_ms(1);
    }
    CHECK_EQ(is_scanned(&f), !settle); /* H2: no scan while a store is in flight that began before */
    roots[0] = tri_load(&shared->second);
    CHECK(roots[0] == thing);
    atomic_store_release(&store_may_end, 1);
    fixture_join(f.thread, collect);
    atomic_store_release(&w.quit, 1);
    fixture_join(f.thread, w.thread);
    if (settle)
        expect_silence();
    else
        expect_report("checkmark: struct thing %p was missed: it is reachable from a frame of a thread", (void *)thing);
    CHECK_EQ(is_alive(f.heap, hide(thing)), settle);
    fixture_set(f.heap, "fault=none");
    tri_global_free(f.thread, w.shared);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(planted, the_settling_step_left_out, .timeout = 60) {
    for (int i = 0; i < 3; i++) {
        overtake_a_store(true);
        overtake_a_store(false);
    }
}

/* ---- a flush that looks at nothing ------------------------------------------------------------------------------ */

/* The thing's only protection is the entry that the deletion leaves in the barrier's buffer. */
static struct thing *delete_while_marking(const struct fixture *f, void **roots) {
    struct graph g = make_graph(f, roots);
    pthread_t collect = begin_cycle(f);
    roots[1] = tri_load(&g.keeper->second);
    tri_store(f->thread, g.keeper, &g.keeper->second, NULL);
    end_cycle(f, collect);
    return g.thing;
}

/* The same by every call that takes a reference out of an object: what it took out is in a frame that is not scanned
 * again, so only the call's own shading keeps it. Each of them is caught here when its barrier is taken out. */
enum deletion { BY_STORE, BY_CLEAR, BY_MOVE_UP, BY_MOVE_DOWN, BY_XCHG, BY_CAS, DELETIONS };

static void delete_by(tri_thread *t, struct owner *keeper, enum deletion how) {
    static const tri_word nothing[2];
    tri_word expected = tri_load_value(&keeper->second);
    switch (how) {
    case BY_STORE: tri_store(t, keeper, &keeper->second, NULL); break;
    case BY_CLEAR: tri_clear(t, keeper, &keeper->first, 2); break;
    case BY_MOVE_UP: tri_move(t, keeper, &keeper->first, nothing, 2); break;
    case BY_MOVE_DOWN: tri_move(t, keeper, &keeper->second, &keeper->first, 1); break;
    case BY_XCHG: CHECK_EQ(tri_xchg(t, keeper, &keeper->second, 0), expected); break;
    case BY_CAS: CHECK(tri_cas(t, keeper, &keeper->second, &expected, 0)); break;
    case DELETIONS: break;
    }
}

TEST(planted, every_way_to_take_a_reference_out_shades_it) {
    for (int how = 0; how < DELETIONS; how++) {
        struct fixture f = open_heap("checkmark=1", NULL);
        TRI_LOCALS(f.thread, roots, 2);
        struct graph g = make_graph(&f, roots);
        pthread_t collect = begin_cycle(&f);
        roots[1] = tri_load(&g.keeper->second);
        delete_by(f.thread, g.keeper, (enum deletion)how);
        CHECK(tri_load(&g.keeper->second) == NULL);
        end_cycle(&f, collect);
        expect_silence();
        CHECK_MSG(is_alive(f.heap, hide(g.thing)), "deletion %d lost what it took out", how);
        TRI_POP(f.thread, roots);
        close_heap(&f);
    }
}

static void flush_blindly(bool fault) {
    struct fixture f = open_heap("checkmark=1", fault ? "fault=flush_blind" : NULL);
    TRI_LOCALS(f.thread, roots, 2);
    struct thing *thing = delete_while_marking(&f, roots);
    fixture_set(f.heap, "fault=none");
    if (fault)
        expect_report("checkmark: struct thing %p was missed: it is reachable from a frame of a thread", (void *)thing);
    else
        expect_silence();
    CHECK_EQ(is_alive(f.heap, hide(thing)), !fault);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(planted, a_flush_that_forgets_the_buffer) {
    flush_blindly(false);
    flush_blindly(true);
}

#else

TEST(planted, faults_need_checks) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "fault=nonsense"), TRI_EINVAL);
    fixture_close(&f);
}

#endif
