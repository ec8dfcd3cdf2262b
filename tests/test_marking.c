/*
 * What mutators do while a cycle marks, made to happen by holding the collector where it matters: who takes a reference
 * out of a root that is not scanned yet shades it (R8, R17), and who allocates faster than the collector marks is made
 * to mark.
 *
 * In its mark phase the collector is held by an object (held.h). Between the threads' scan and its own scan of the
 * roots it is held by this program's nanosleep, which stress.delay calls between two pieces of a range: a long empty
 * range, registered last and so scanned first, gives it hundreds of chances, each with odds of one in four.
 */
#include "tests/held.h"

#if TRI_CHECKS >= 3

/* ---- Roots that are not scanned yet ------------------------------------------------------------------------------ */

enum { DECOY_SLOTS = 200 * 4096 };
static tri_word decoy_slots[DECOY_SLOTS];

static tri_heap *roots_of; /* whose collector is to stop in the decoy [atomic] */
static tri_root *decoy;
static uint32_t in_decoy, leave_decoy;

/* Every delay of the library ends here. */
int nanosleep(const struct timespec *wanted, struct timespec *left) {
    tri_heap *heap = atomic_load_acquire(&roots_of);
    if (heap && !pthread_equal(pthread_self(), test_own_thread) && atomic_load_acquire(&heap->roots.cursor) == decoy &&
        heap_phase(heap) == PHASE_SCAN) {
        atomic_store_release(&roots_of, NULL);
        atomic_store_release(&in_decoy, 1);
        while (!atomic_load_acquire(&leave_decoy)) sched_yield();
        return 0;
    }
    int err = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
    if (err != 0) errno = err;
    return err == 0 ? 0 : -1;
}

static tri_word range_slots[3], stack_words[4], *stack_top;

/* What the thing hangs on: one root of each kind that the collector scans by itself. */
struct own_roots {
    tri_root *range;
    tri_handle handle;
    tri_vmstack *stack;
};

enum removal {
    REMOVE_RANGE,
    STORE_OVER_SLOT,
    SET_HANDLE,
    FREE_HANDLE,
    REMOVE_STACK,
    POP_AFTER_RESUME,
    POP_AFTER_TOUCH,
    REMOVALS
};

static void hang(tri_thread *t, struct own_roots *roots, enum removal how, struct thing *thing) {
    bool in_range = how <= STORE_OVER_SLOT, in_handle = how == SET_HANDLE || how == FREE_HANDLE;
    memset(range_slots, 0, sizeof range_slots);
    range_slots[1] = in_range ? (tri_word)(uintptr_t)thing : 0;
    roots->range = tri_root_add(t, range_slots, 3, NULL);
    roots->handle = tri_global(t, in_handle ? thing : NULL);
    stack_words[0] = in_range || in_handle ? 0 : (tri_word)(uintptr_t)thing;
    stack_top = stack_words + 1;
    roots->stack = tri_vmstack_add(t, stack_words, &stack_top, NULL);
    CHECK(roots->range && roots->handle && roots->stack);
    CHECK_EQ(tri_vmstack_suspend(t, roots->stack), TRI_OK);
}

/* Takes it out; the root is empty, or gone, from here on. */
static void take_out(tri_thread *t, struct own_roots *roots, enum removal how) {
    switch (how) {
    case REMOVE_RANGE:
        tri_root_remove(t, roots->range);
        roots->range = NULL;
        range_slots[1] = 0;
        break;
    case STORE_OVER_SLOT: tri_root_store(t, roots->range, &range_slots[1], NULL); break;
    case SET_HANDLE: tri_global_set(t, roots->handle, NULL); break;
    case FREE_HANDLE:
        tri_global_free(t, roots->handle);
        roots->handle = NULL;
        break;
    case REMOVE_STACK:
        tri_vmstack_remove(t, roots->stack);
        roots->stack = NULL;
        break;
    case POP_AFTER_RESUME:
        CHECK_EQ(tri_vmstack_resume(t, roots->stack), TRI_OK);
        stack_top = stack_words;
        break;
    case POP_AFTER_TOUCH:
        CHECK_EQ(tri_vmstack_touch(t, roots->stack), TRI_OK);
        stack_words[0] = 0;
        break;
    case REMOVALS: break;
    }
}

static void *root_of(const struct own_roots *roots, enum removal how) {
    if (how <= STORE_OVER_SLOT) return (void *)(uintptr_t)range_slots[1];
    if (how <= FREE_HANDLE) return tri_deref(roots->handle);
    return (void *)(uintptr_t)stack_words[0];
}

static void drop_roots(tri_thread *t, struct own_roots *roots) {
    if (roots->range) tri_root_remove(t, roots->range);
    if (roots->handle) tri_global_free(t, roots->handle);
    if (roots->stack) tri_vmstack_remove(t, roots->stack);
    tri_root_remove(t, decoy);
}

/* This thread's stack is scanned and black, the root is not scanned yet. It reads the reference into its stack, which
 * nobody looks at again, and takes it out of the root: only what the call shades keeps the thing. */
static void lose_a_root(enum removal how) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, locals, 1);
    struct thing *thing = tri_new(f.thread, &thing_type);
    struct own_roots roots;
    hang(f.thread, &roots, how, thing);
    decoy = tri_root_add(f.thread, decoy_slots, DECOY_SLOTS, NULL);
    CHECK(thing && decoy);
    fixture_set(f.heap, "stress.delay=1");
    in_decoy = leave_decoy = 0;
    atomic_store_release(&roots_of, f.heap);
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    while (!atomic_load_acquire(&in_decoy)) {
        CHECK_MSG(heap_phase(f.heap) < PHASE_MARK, "the collector did not stop in the decoy");
        tri_poll(f.thread);
        sched_yield();
    }
    CHECK(mutator_of(f.thread)->armed && !mutator_of(f.thread)->grey_stack);
    locals[0] = root_of(&roots, how);
    CHECK(locals[0] == thing);
    take_out(f.thread, &roots, how);
    atomic_store_release(&leave_decoy, 1);
    fixture_join(f.thread, collect);
    expect_silence();
    CHECK_MSG(is_alive(f.heap, hide(thing)), "removal %d lost what the root held", (int)how);
    fixture_set(f.heap, "stress.delay=0");
    drop_roots(f.thread, &roots);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

TEST(marking, what_leaves_a_root_that_is_not_scanned_yet_is_shaded, .timeout = 120) {
    for (int how = 0; how < REMOVALS; how++) lose_a_root((enum removal)how);
}

/* ---- A stack that two threads touch while the cycle arms --------------------------------------------------------- */

struct toucher {
    tri_heap *heap;
    tri_vmstack *stack;
    uint32_t attached, touched, quit;
};

/* Scanned, it touches the stack, which counts as scanned in this cycle from here on. */
static void *touch_when_black(void *arg) {
    struct toucher *t = arg;
    tri_thread *thread = fixture_attach(t->heap);
    const struct mutator *m = mutator_of(thread);
    atomic_store_release(&t->attached, 1);
    while (!m->armed || m->grey_stack) tri_poll(thread);
    CHECK_EQ(tri_vmstack_touch(thread, t->stack), TRI_OK);
    atomic_store_release(&t->touched, 1);
    while (!atomic_load_acquire(&t->quit)) tri_poll(thread);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* This thread is not scanned yet. It moves its only reference into that stack before it is: the stack has to be scanned
 * again, though a black thread has scanned it (R8). */
TEST(marking, a_stack_touched_by_a_thread_that_is_not_scanned_is_scanned_again) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, locals, 1);
    struct thing *thing = locals[0] = tri_new(f.thread, &thing_type);
    stack_words[0] = 0;
    stack_top = stack_words + 1;
    struct toucher t = {.heap = f.heap, .stack = tri_vmstack_add(f.thread, stack_words, &stack_top, NULL)};
    CHECK_EQ(tri_vmstack_suspend(f.thread, t.stack), TRI_OK);
    pthread_t other, collect;
    CHECK_EQ(pthread_create(&other, NULL, touch_when_black, &t), 0);
    while (!atomic_load_acquire(&t.attached)) sched_yield();
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    fixture_answer_before(f.heap, f.thread, STEP_SCAN);
    while (!atomic_load_acquire(&t.touched)) sched_yield();
    CHECK(mutator_of(f.thread)->armed && mutator_of(f.thread)->grey_stack);
    CHECK_EQ(tri_vmstack_touch(f.thread, t.stack), TRI_OK);
    stack_words[0] = (tri_word)(uintptr_t)thing;
    locals[0] = NULL;
    fixture_join(f.thread, collect);
    expect_silence();
    CHECK(is_alive(f.heap, hide(thing)));
    atomic_store_release(&t.quit, 1);
    fixture_join(f.thread, other);
    tri_vmstack_remove(f.thread, t.stack);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* ---- A grey thread, and an object that is born black ------------------------------------------------------------- */

struct maker {
    tri_heap *heap;
    tri_handle handle;
    uint32_t attached, made, quit;
};

/* Scanned, it makes an object, which is black: marked, and never scanned. */
static void *make_when_black(void *arg) {
    struct maker *mk = arg;
    tri_thread *thread = fixture_attach(mk->heap);
    const struct mutator *m = mutator_of(thread);
    atomic_store_release(&mk->attached, 1);
    while (!m->armed || m->grey_stack) tri_poll(thread);
    tri_global_set(thread, mk->handle, tri_new(thread, &owner_type));
    atomic_store_release(&mk->made, 1);
    while (!atomic_load_acquire(&mk->quit)) tri_poll(thread);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* This thread is not scanned yet. It stores its only reference into that object, and forgets it: the barrier has to
 * shade what is stored, too, as long as the storing thread's stack is grey. */
TEST(marking, what_a_grey_thread_stores_into_a_black_object_is_shaded) {
    for (int how = 0; how < 3; how++) {
        struct fixture f = open_heap("checkmark=1", NULL);
        TRI_LOCALS(f.thread, locals, 1);
        struct thing *thing = locals[0] = tri_new(f.thread, &thing_type);
        struct maker mk = {.heap = f.heap, .handle = tri_global(f.thread, NULL)};
        pthread_t other, collect;
        CHECK_EQ(pthread_create(&other, NULL, make_when_black, &mk), 0);
        while (!atomic_load_acquire(&mk.attached)) sched_yield();
        CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
        fixture_answer_before(f.heap, f.thread, STEP_SCAN);
        while (!atomic_load_acquire(&mk.made)) sched_yield();
        CHECK(mutator_of(f.thread)->armed && mutator_of(f.thread)->grey_stack);
        struct owner *owner = tri_deref(mk.handle);
        tri_word expected = 0;
        if (how == 0) tri_store(f.thread, owner, &owner->second, thing);
        if (how == 1) tri_xchg(f.thread, owner, &owner->second, (tri_word)(uintptr_t)thing);
        if (how == 2) CHECK(tri_cas(f.thread, owner, &owner->second, &expected, (tri_word)(uintptr_t)thing));
        CHECK(tri_load(&owner->second) == thing);
        locals[0] = NULL;
        fixture_join(f.thread, collect);
        expect_silence();
        CHECK_MSG(is_alive(f.heap, hide(thing)), "store %d lost what it stored", how);
        atomic_store_release(&mk.quit, 1);
        fixture_join(f.thread, other);
        tri_global_free(f.thread, mk.handle);
        TRI_POP(f.thread, locals);
        close_heap(&f);
    }
}

/* ---- A round of the flush, and what turns grey in the middle of it ----------------------------------------------- */

struct answerer {
    tri_heap *heap;
    tri_handle root;
    uint32_t attached, shaded, quit;
};

/* Answers the flush, with nothing to tell, and then makes the object grey that the root names: it lies in this thread's
 * buffer from here on. */
static void *shade_after_answering(void *arg) {
    struct answerer *a = arg;
    tri_thread *thread = fixture_attach(a->heap);
    struct mutator *m = mutator_of(thread);
    static tri_word words[1];
    static tri_word *top = words;
    atomic_store_release(&a->attached, 1);
    while (!m->armed || m->grey_stack) tri_poll(thread);
    for (uint64_t scanned = m->answer_seq; m->answer_seq == scanned;) tri_poll(thread); /* the next step is the flush */
    struct owner *root = tri_deref(a->root);
    words[0] = (tri_word)(uintptr_t)tri_load(&root->second);
    top = words + 1;
    CHECK(words[0] != 0 && tri_vmstack_add(thread, words, &top, NULL) != NULL); /* shades what it holds */
    tri_store(thread, root, &root->second, NULL);
    atomic_store_release(&a->shaded, 1);
    while (!atomic_load_acquire(&a->quit)) tri_poll(thread);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* The same object is in this thread's buffer, too, and nowhere else. When this thread answers it finds the object
 * marked, and has nothing to tell; yet it is grey, and what it names is not marked. Whoever turned it grey has said so
 * before its mark could be seen (R2). */
TEST(marking, what_turns_grey_behind_an_answer_ends_the_round) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, locals, 1);
    struct graph g = make_graph(&f, locals);
    struct owner *middle = tri_new(f.thread, &owner_type); /* keeper -> middle -> thing */
    tri_store(f.thread, middle, &middle->first, g.thing);
    tri_store(f.thread, g.keeper, &g.keeper->second, middle);
    struct answerer a = {.heap = f.heap, .root = tri_global(f.thread, g.root)};
    pthread_t other;
    locals[0] = NULL; /* who has roots at H3 has marked something, and says so in the first round */
    CHECK_EQ(pthread_create(&other, NULL, shade_after_answering, &a), 0);
    while (!atomic_load_acquire(&a.attached)) sched_yield();
    pthread_t collect = begin_cycle(&f);
    tri_store(f.thread, g.root, &g.root->second, middle); /* into a black object, by a black thread: not shaded */
    tri_store(f.thread, g.keeper, &g.keeper->second, NULL);
    CHECK_EQ(mutator_of(f.thread)->nshade, 1);
    atomic_store_release(&go_on, 1);
    while (heap_phase(f.heap) != PHASE_FLUSH) sched_yield();
    while (!atomic_load_acquire(&a.shaded)) sched_yield(); /* no safepoint: this thread's answer comes last */
    tri_poll(f.thread);
    fixture_join(f.thread, collect);
    expect_silence();
    CHECK(is_alive(f.heap, hide(middle)) && is_alive(f.heap, hide(g.thing)));
    atomic_store_release(&a.quit, 1);
    fixture_join(f.thread, other);
    tri_global_free(f.thread, a.root);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* ---- Stale words ------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) uintptr_t make_hidden(tri_thread *thread) {
    struct thing *thing = tri_new(thread, &thing_type);
    CHECK(thing != NULL);
    return hide(thing);
}

/* A word on a native stack that names a slot where nothing lives any more: it marks nothing, or the sweep would take
 * the slot for an object (R4). Others keep the span in use. */
TEST(marking, a_stale_word_brings_nothing_back) {
    if (TEST_UNDER_ASAN) return; /* its frames lie elsewhere */
    enum { N = 60 };
    tri_config config = fixture_config(TRI_HEAP_NO_CYCLES);
    config.report = on_report;
    forget_reports();
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, locals, N);
    static uintptr_t hidden[N];
    volatile uintptr_t stale[N];
    for (int i = 0; i < N; i++) {
        hidden[i] = make_hidden(f.thread);
        if (i % 3 == 0) locals[i] = reveal(hidden[i]); /* and so the one before it, whose end that is */
    }
    for (int i = 0; i < 2; i++) fixture_collect(&f);
    bool dead[N];
    uint32_t ndead = 0;
    for (int i = 0; i < N; i++) ndead += dead[i] = !is_alive(f.heap, hidden[i]);
    CHECK_MSG(ndead >= N / 3 - 4, "%u of %d are dead", ndead, N / 3); /* but for what the stack still held by chance */
    for (int i = 0; i < N; i++) stale[i] = ~hidden[i];
    for (int round = 0; round < 3; round++) {
        fixture_collect(&f);
        for (int i = 0; i < N; i++)
            CHECK_MSG(!dead[i] || !is_alive(f.heap, hidden[i]), "round %d: dead thing %d is back", round, i);
    }
    for (int i = 0; i < N; i++) CHECK_EQ(stale[i], ~hidden[i]);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* ---- Pages ------------------------------------------------------------------------------------------------------- */

/* From H1 on until H5 is answered no page leaves a span (R13): a marker may be about to look one up that a stale word
 * names. Empty spans that lie ready are asked back in the middle of a cycle, and stay. */
TEST(marking, no_page_leaves_a_span_while_a_cycle_marks) {
    struct fixture f = open_heap(NULL, NULL);
    struct memory *mem = &f.heap->mem;
    TRI_LOCALS(f.thread, locals, 1);
    make_graph(&f, locals);
    for (int i = 0; i < 2000; i++) CHECK(tri_new(f.thread, &pair_type) != NULL);
    atomic_store_release(&go_on, 1);
    CHECK(tri__cycle_wait(mutator_of(f.thread), "trigger", 10000000000ull)); /* one that keeps empty spans ready */
    size_t empty = atomic_load_relaxed(&mem->empty_pages), used = atomic_load_relaxed(&mem->used_pages);
    CHECK(empty > 0);
    pthread_t collect = begin_cycle(&f);
    tri_trim(f.heap);
    CHECK_EQ(atomic_load_relaxed(&mem->empty_pages), empty);
    CHECK_EQ(atomic_load_relaxed(&mem->used_pages), used);
    end_cycle(&f, collect);
    tri_trim(f.heap);
    CHECK_EQ(atomic_load_relaxed(&mem->empty_pages), 0);
    CHECK(atomic_load_relaxed(&mem->used_pages) < used);
    expect_silence();
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* ---- Assists ----------------------------------------------------------------------------------------------------- */

enum { HEADS = 4000, CHAIN = 20, HOLD_EVERY = 50 };
static void *heads[HEADS];
static tri_frame heads_frame = {NULL, HEADS, heads};

/* So many roots that their buffers outnumber those that the collector takes before it meets the hold, which is in each
 * of them: what is left on the list is for whoever assists. */
static void make_heads(tri_thread *t) {
    tri_frame_push(t, &heads_frame);
    struct hold *hold = tri_new(t, &hold_type);
    for (size_t i = 0; i < HEADS; i++) {
        if (i % HOLD_EVERY == 0) {
            heads[i] = hold;
            continue;
        }
        for (int k = 0; k < CHAIN; k++) {
            struct pair *p = tri_new(t, &pair_type);
            CHECK(p != NULL);
            tri_store(t, p, &p->left, heads[i]);
            heads[i] = p;
        }
    }
}

static uint64_t count_pauses(tri_heap *heap, int kind) {
    uint64_t buckets[64], total = 0;
    int n = tri_histogram(heap, kind, buckets, 64);
    for (int i = 0; i < n; i++) total += buckets[i];
    return total;
}

TEST(marking, who_allocates_while_the_collector_stands_still_marks, .timeout = 60) {
    struct fixture f = open_heap(NULL, NULL);
    struct mutator *m = mutator_of(f.thread);
    make_heads(f.thread);
    atomic_store_release(&go_on, 1);
    fixture_collect(&f); /* from here on the pacer knows how much there is to mark */
    size_t live_bytes = fixture_stats(f.heap).live_bytes;
    CHECK(live_bytes >= (size_t)HEADS * CHAIN * sizeof(struct pair) * 9 / 10);
    uint64_t pauses = count_pauses(f.heap, TRI_PAUSE_ASSIST), assist_ns = fixture_stats(f.heap).assist_ns;
    CHECK_EQ(pauses, 0); /* nothing was marked beside this thread before */
    CHECK_EQ(assist_ns, 0);

    pthread_t collect = begin_cycle(&f);
    size_t goal_bytes = fixture_stats(f.heap).goal_bytes, marked = 0;
    while (fixture_stats(f.heap).heap_bytes < goal_bytes * 9 / 10) { /* no nap: those count as assists, too */
        CHECK(tri_new(f.thread, &pair_type) != NULL);
        marked = m->marker.marked_bytes; /* its own, handed over at the next flush */
    }
    /* All the time the collector stood still; the chains are marked all the same, but for its own buffers. */
    CHECK_EQ(heap_phase(f.heap), PHASE_MARK);
    /* How much a slice gets done is the machine's affair: with no other work on it, more than half of the chains. */
    CHECK_MSG(marked >= live_bytes / 50, "the allocating thread marked %zu of %zu bytes", marked, live_bytes);
    CHECK(fixture_stats(f.heap).assist_ns > assist_ns);
    CHECK(count_pauses(f.heap, TRI_PAUSE_ASSIST) > pauses);
    end_cycle(&f, collect);
    expect_silence();
    tri_frame_pop(f.thread, &heads_frame);
    close_heap(&f);
}

/* An assist marks what is owed, not a slice for its own sake; what the last piece marked beyond it stays the
 * thread's. */
TEST(marking, an_assist_ends_when_the_debt_is_paid, .timeout = 60) {
    struct fixture f = open_heap(NULL, NULL);
    struct mutator *m = mutator_of(f.thread);
    make_heads(f.thread);
    pthread_t collect = begin_cycle(&f);
    CHECK(!tri__work_is_empty(&f.heap->work));
    uint64_t before = m->marker.marked_bytes + m->marker.scanned_bytes;
    m->assist_debt = 0;
    tri__assist(m);
    CHECK_EQ(m->marker.marked_bytes + m->marker.scanned_bytes, before);
    m->assist_debt = 1;
    tri__assist(m);
    uint64_t marked = m->marker.marked_bytes + m->marker.scanned_bytes - before;
    CHECK(marked > 0);
    CHECK_EQ(m->assist_debt, 1 - (int64_t)marked);
    atomic_store_release(&go_on, 1);
    end_cycle(&f, collect);
    expect_silence();
    tri_frame_pop(f.thread, &heads_frame);
    close_heap(&f);
}

/* Nothing is left to assist with, and the heap is beyond its goal: who goes on allocating is put to sleep for a moment,
 * so that the collector gets a core, and the heap's growth an end. Below the goal nobody sleeps. */
TEST(marking, who_allocates_beyond_the_goal_with_nothing_to_mark_naps, .timeout = 60) {
    struct fixture f = open_heap(NULL, NULL);
    TRI_LOCALS(f.thread, locals, 1);
    make_graph(&f, locals);
    atomic_store_release(&go_on, 1);
    fixture_collect(&f);
    pthread_t collect = begin_cycle(&f);
    CHECK(tri__work_is_empty(&f.heap->work));
    size_t goal_bytes = fixture_stats(f.heap).goal_bytes;
    while (fixture_stats(f.heap).heap_bytes < goal_bytes * 8 / 10) CHECK(tri_new(f.thread, &pair_type) != NULL);
    CHECK_EQ(atomic_load_relaxed(&f.heap->stats.stall_ns), 0);
    uint64_t before = count_pauses(f.heap, TRI_PAUSE_NAP);
    while (fixture_stats(f.heap).heap_bytes < goal_bytes * 11 / 10) CHECK(tri_new(f.thread, &pair_type) != NULL);
    CHECK_MSG(atomic_load_relaxed(&f.heap->stats.stall_ns) > 0, "nobody was held back beyond the goal");
    CHECK(count_pauses(f.heap, TRI_PAUSE_NAP) > before);
    CHECK_EQ(heap_phase(f.heap), PHASE_MARK);
    end_cycle(&f, collect);
    expect_silence();
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

/* Between H3 and the start of tracing, and in a flush round, grey work may wait that nobody may help with (R3): who
 * allocates beyond the goal then naps as well. The same state is made by hand here, with the collector in the hold. */
TEST(marking, who_allocates_beyond_the_goal_naps_while_nobody_may_assist, .timeout = 60) {
    struct fixture f = open_heap(NULL, NULL);
    TRI_LOCALS(f.thread, locals, 1);
    make_graph(&f, locals);
    atomic_store_release(&go_on, 1);
    fixture_collect(&f);
    pthread_t collect = begin_cycle(&f);
    struct workbuf *grey = tri__work_get_empty(&f.heap->work);
    CHECK(grey != NULL);
    grey->entries[grey->n++] = (uintptr_t)locals[0] | WORK_CANDIDATE;
    tri__work_put_full(&f.heap->work, grey);
    atomic_store_seq(&f.heap->tracing, 0);
    size_t goal_bytes = fixture_stats(f.heap).goal_bytes;
    while (fixture_stats(f.heap).heap_bytes < goal_bytes * 11 / 10) CHECK(tri_new(f.thread, &pair_type) != NULL);
    CHECK_MSG(atomic_load_relaxed(&f.heap->stats.stall_ns) > 0, "nobody was held back beyond the goal");
    CHECK(!tri__work_is_empty(&f.heap->work)); /* and nobody helped */
    atomic_store_seq(&f.heap->tracing, 1);
    end_cycle(&f, collect);
    expect_silence();
    TRI_POP(f.thread, locals);
    close_heap(&f);
}

#else

TEST(marking, delays_need_checks) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "stress.delay=1"), TRI_EINVAL);
    fixture_close(&f);
}

#endif
