/*
 * Precise roots, row by row as the design's table has them: frames, VM stacks, global slots, handles, root callbacks,
 * and what a blocking region holds. Each keeps what it names, in each cycle; and each, once it is gone, keeps nothing.
 */
#include "tests/fixture.h"

#include <setjmp.h>

/* Asks `n` objects after a collection. */
static void expect_alive(struct fixture *f, const uintptr_t *hidden, int n, bool alive, const char *what) {
    fixture_collect(f);
    for (int i = 0; i < n; i++) {
        CHECK_MSG(is_alive(f->heap, hidden[i]) == alive, "%s: object %d is %s", what, i, alive ? "lost" : "kept");
        if (alive) CHECK_EQ(((struct leaf *)reveal(hidden[i]))->a, 0x5eed);
    }
}

/* ---- Frames ---- */

TEST(roots, frames_keep_their_slots_until_they_are_popped) {
    struct fixture f = fixture_open();
    uintptr_t outer[3], inner[2];
    TRI_LOCALS(f.thread, a, 3);
    for (int i = 0; i < 3; i++) a[i] = reveal(outer[i] = fixture_new_hidden(&f));
    {
        TRI_LOCALS(f.thread, b, 2);
        for (int i = 0; i < 2; i++) b[i] = (char *)reveal(inner[i] = fixture_new_hidden(&f)) + 8 * i; /* interior too */
        expect_alive(&f, outer, 3, true, "outer frame");
        expect_alive(&f, inner, 2, true, "inner frame");
        TRI_POP(f.thread, b);
    }
    expect_alive(&f, inner, 2, false, "popped frame");
    a[1] = NULL;
    expect_alive(&f, &outer[1], 1, false, "cleared slot");
    expect_alive(&f, &outer[2], 1, true, "outer frame");
    TRI_POP(f.thread, a);
    expect_alive(&f, outer, 3, false, "popped frame");
    fixture_close(&f);
}

static jmp_buf back;

static __attribute__((noinline)) void jump_back(bool now) {
    if (now) longjmp(back, 1);
}

static __attribute__((noinline)) void push_and_jump(struct fixture *f, uintptr_t *hidden, int depth) {
    TRI_LOCALS(f->thread, slots, 2);
    slots[0] = reveal(hidden[depth] = fixture_new_hidden(f));
    jump_back(depth == 0);
    if (depth > 0) push_and_jump(f, hidden, depth - 1);
    TRI_POP(f->thread, slots);
}

static __attribute__((noinline)) void leave_frames(struct fixture *f, uintptr_t *hidden) {
    if (setjmp(back) == 0) push_and_jump(f, hidden, 7);
}

static __attribute__((noinline)) uintptr_t overwrite_stack(void) {
    volatile uintptr_t words[2048];
    for (size_t i = 0; i < TRI_COUNT(words); i++) words[i] = 0x4141414141414141u + i;
    return words[7];
}

/* After a longjmp the frames above are dead memory: popping an older one must not read them. */
TEST(roots, popping_an_older_frame_after_a_longjmp_drops_the_newer_ones) {
    struct fixture f = fixture_open();
    static uintptr_t inner[8], outer[1];
    TRI_LOCALS(f.thread, base, 1);
    base[0] = reveal(outer[0] = fixture_new_hidden(&f));
    for (int round = 0; round < 3; round++) {
        void *slots[1] = {NULL};
        tri_frame frame = {NULL, 1, slots};
        tri_frame_push(f.thread, &frame);
        leave_frames(&f, inner);
        CHECK(overwrite_stack() != 0);
        tri_frame_pop(f.thread, &frame);
        CHECK(f.thread->frames == &base_frame);
        expect_alive(&f, inner, 8, false, "frames left by longjmp");
        expect_alive(&f, outer, 1, true, "older frame");
    }
    TRI_POP(f.thread, base);
    fixture_close(&f);
}

TEST(roots, a_frame_that_is_not_pushed_is_reported) {
    if (TRI_CHECKS < 1) return;
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, a, 1);
    TRI_POP(f.thread, a);
    TRI_POP(f.thread, a);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_frame_pop"), "%s", fixture_report);
    CHECK(f.thread->frames == NULL);
    fixture_close(&f);
}

/* ---- VM stacks ---- */

static const tri_enc nan_box = {0xfffc000000000000ull, 0xfffc000000000000ull, ~0ull, 0x0000ffffffffffffull};

static tri_word box(uintptr_t hidden) {
    return 0xfffc000000000000ull | (tri_word)~hidden;
}

TEST(roots, a_vm_stack_keeps_the_words_below_its_top) {
    struct fixture f = fixture_open();
    static tri_word values[64];
    static tri_word *top = values;
    static uintptr_t hidden[4];
    tri_vmstack *stack = tri_vmstack_add(f.thread, values, &top, &nan_box);
    CHECK(stack != NULL);
    for (int i = 0; i < 4; i++) *top++ = box(hidden[i] = fixture_new_hidden(&f));
    *top++ = (tri_word)~fixture_new_hidden(&f); /* not boxed: a double of tiny size */
    uintptr_t unboxed = ~(uintptr_t)top[-1];
    expect_alive(&f, hidden, 4, true, "VM stack");
    CHECK(!is_alive(f.heap, unboxed));
    top -= 3; /* the words are still there, above the top */
    expect_alive(&f, hidden, 2, true, "below the top");
    expect_alive(&f, hidden + 2, 2, false, "above the top");
    tri_vmstack_remove(f.thread, stack);
    expect_alive(&f, hidden, 2, false, "removed stack");
    fixture_close(&f);
}

TEST(roots, a_vm_stack_that_moves_keeps_its_words) {
    struct fixture f = fixture_open();
    size_t capacity = 2, n = 0;
    tri_word *base = calloc(capacity, sizeof *base);
    static tri_word *top;
    static uintptr_t hidden[100];
    top = base;
    tri_vmstack *stack = tri_vmstack_add(f.thread, base, &top, NULL);
    for (; n < TRI_COUNT(hidden); n++) {
        hidden[n] = fixture_new_hidden(&f);
        if ((size_t)(top - base) == capacity) {
            capacity *= 2;
            tri_word *bigger = calloc(capacity, sizeof *bigger);
            memcpy(bigger, base, (capacity / 2) * sizeof *bigger);
            top = bigger + (top - base);
            tri_vmstack_move(f.thread, stack, bigger, &top);
            memset(base, 0x11, (capacity / 2) * sizeof *base);
            free(base);
            base = bigger;
        }
        *top++ = (tri_word)~hidden[n];
        if (n % 9 == 0) expect_alive(&f, hidden, (int)n + 1, true, "grown stack");
    }
    expect_alive(&f, hidden, (int)n, true, "grown stack");
    tri_vmstack_remove(f.thread, stack);
    expect_alive(&f, hidden, (int)n, false, "removed stack");
    free(base);
    fixture_close(&f);
}

struct coroutine {
    tri_word values[8];
    tri_word *top;
    tri_vmstack *stack;
    uintptr_t hidden[8];
};

static void coroutine_open(struct fixture *f, struct coroutine *c) {
    c->top = c->values;
    c->stack = tri_vmstack_add(f->thread, c->values, &c->top, NULL);
    CHECK(c->stack != NULL);
    for (int i = 0; i < 8; i++) *c->top++ = (tri_word) ~(c->hidden[i] = fixture_new_hidden(f));
}

TEST(roots, several_stacks_of_a_thread_are_roots_running_or_suspended) {
    struct fixture f = fixture_open();
    static struct coroutine c[5];
    for (int i = 0; i < 5; i++) coroutine_open(&f, &c[i]);
    CHECK_EQ(tri_vmstack_suspend(f.thread, c[1].stack), TRI_OK);
    CHECK_EQ(tri_vmstack_suspend(f.thread, c[3].stack), TRI_OK);
    for (int i = 0; i < 5; i++) expect_alive(&f, c[i].hidden, 8, true, i % 2 ? "suspended stack" : "running stack");
    CHECK_EQ(tri_vmstack_touch(f.thread, c[3].stack), TRI_OK);
    c[3].values[2] = 0; /* an open upvalue is written */
    expect_alive(&f, &c[3].hidden[2], 1, false, "cleared upvalue");
    CHECK_EQ(tri_vmstack_resume(f.thread, c[1].stack), TRI_OK);
    for (int i = 0; i < 5; i++) expect_alive(&f, c[i].hidden, 2, true, "stack");
    tri_vmstack_remove(f.thread, c[3].stack); /* a suspended one */
    tri_vmstack_remove(f.thread, c[0].stack); /* a running one */
    expect_alive(&f, c[3].hidden, 8, false, "removed suspended stack");
    expect_alive(&f, c[0].hidden, 8, false, "removed running stack");
    expect_alive(&f, c[4].hidden, 8, true, "the others");
    for (int i = 1; i < 5; i++)
        if (i != 3) tri_vmstack_remove(f.thread, c[i].stack);
    fixture_close(&f);
}

TEST(roots, states_of_a_stack_are_checked) {
    struct fixture f = fixture_open();
    static struct coroutine c;
    coroutine_open(&f, &c);
    CHECK_EQ(tri_vmstack_resume(f.thread, c.stack), TRI_ESTATE);
    CHECK(strstr(tri_last_error(), "tri_vmstack_resume") != NULL);
    CHECK_EQ(tri_vmstack_touch(f.thread, c.stack), TRI_OK); /* one's own */
    CHECK_EQ(tri_vmstack_suspend(f.thread, c.stack), TRI_OK);
    CHECK_EQ(tri_vmstack_suspend(f.thread, c.stack), TRI_ESTATE);
    CHECK(strstr(tri_last_error(), "tri_vmstack_suspend") != NULL);
    tri_vmstack_move(f.thread, c.stack, c.values, &c.top);
    CHECK_MSG(strstr(tri_last_error(), "tri_vmstack_move"), "%s", tri_last_error());
    expect_alive(&f, c.hidden, 8, true, "suspended stack");
    CHECK_EQ(tri_vmstack_resume(f.thread, c.stack), TRI_OK);
    tri_vmstack_remove(f.thread, c.stack);
    fixture_close(&f);
}

/* Stacks that travel between two threads while a third collects all the time. */
struct migration {
    tri_heap *heap;
    struct coroutine c;
    uint32_t turn; /* whose it is [atomic] */
    uint32_t stop;
};

struct migrant {
    struct migration *m;
    uint32_t me;
};

static void *migrate(void *arg) {
    struct migrant *who = arg;
    struct migration *m = who->m;
    tri_thread *thread;
    CHECK_EQ(tri_attach(m->heap, 0, &thread), TRI_OK);
    struct fixture f = {m->heap, thread};
    for (uint64_t moves = 0;; moves++) {
        while (atomic_load_acquire(&m->turn) != who->me && !atomic_load_acquire(&m->stop)) {
            tri_poll(thread);
            sched_yield(); /* to the other one, and to the collector */
        }
        if (atomic_load_acquire(&m->stop)) break;
        CHECK_EQ(tri_vmstack_resume(thread, m->c.stack), TRI_OK);
        for (int i = 0; i < 8; i++) {
            CHECK_MSG(((struct leaf *)(uintptr_t)m->c.values[i])->a == 0x5eed, "word %d is lost", i);
            CHECK_MSG(is_alive(m->heap, hide((void *)(uintptr_t)m->c.values[i])), "word %d is lost", i);
        }
        uintptr_t fresh = fixture_new_hidden(&f);
        m->c.values[moves % 8] = (tri_word)~fresh; /* no barrier: it is its own */
        tri_word swap = m->c.values[1];
        m->c.values[1] = m->c.values[5];
        m->c.values[5] = swap;
        tri_poll(thread);
        CHECK_EQ(tri_vmstack_suspend(thread, m->c.stack), TRI_OK);
        atomic_store_release(&m->turn, 1 - who->me);
    }
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(roots, a_stack_that_migrates_between_threads_loses_nothing) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    if (TRI_CHECKS >= 1) {
        CHECK_EQ(tri_heap_set(f.heap, "checkmark=1"), TRI_OK);
        CHECK_EQ(tri_heap_set(f.heap, "poison=1"), TRI_OK);
        CHECK_EQ(tri_heap_set(f.heap, "stress.delay=20"), TRI_OK);
    }
    static struct migration m;
    m.heap = f.heap;
    coroutine_open(&f, &m.c);
    CHECK_EQ(tri_vmstack_suspend(f.thread, m.c.stack), TRI_OK);
    struct migrant who[2] = {{&m, 0}, {&m, 1}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, migrate, &who[i]);
    for (int i = 0; i < (test_stress() ? 2000 : 200); i++) fixture_collect(&f);
    atomic_store_release(&m.stop, 1);
    for (int i = 0; i < 2; i++) fixture_join(f.thread, threads[i]);
    tri_vmstack_remove(f.thread, m.c.stack);
    fixture_close(&f);
}

/* ---- Global slots ---- */

static void *global_slots[40];
static tri_word global_values[10];

TEST(roots, registered_ranges_keep_what_is_stored_into_them) {
    struct fixture f = fixture_open();
    uintptr_t hidden[40], values[10];
    tri_root *range = tri_root_add(f.thread, global_slots, 40, NULL);
    tri_root *boxes = tri_root_add(f.thread, global_values, 10, &nan_box);
    CHECK(range && boxes);
    for (int i = 0; i < 40; i++)
        tri_root_store(f.thread, range, &global_slots[i], reveal(hidden[i] = fixture_new_hidden(&f)));
    for (int i = 0; i < 10; i++)
        tri_root_store_value(f.thread, boxes, &global_values[i], box(values[i] = fixture_new_hidden(&f)));
    expect_alive(&f, hidden, 40, true, "range");
    expect_alive(&f, values, 10, true, "range of values");
    for (int i = 0; i < 20; i++) tri_root_store(f.thread, range, &global_slots[i], NULL);
    expect_alive(&f, hidden, 20, false, "cleared slots");
    expect_alive(&f, hidden + 20, 20, true, "the other slots");
    tri_root_remove(f.thread, range);
    expect_alive(&f, hidden + 20, 20, false, "removed range");
    expect_alive(&f, values, 10, true, "the other range");
    tri_root_remove(f.thread, boxes);
    expect_alive(&f, values, 10, false, "removed range");
    fixture_close(&f);
}

TEST(roots, bad_ranges_are_refused) {
    struct fixture f = fixture_open();
    CHECK(tri_root_add(f.thread, NULL, 4, NULL) == NULL);
    CHECK(strstr(tri_last_error(), "tri_root_add") != NULL);
    CHECK(tri_root_add(f.thread, (char *)global_slots + 4, 4, NULL) == NULL);
    CHECK(tri_root_add(f.thread, global_slots, 0, NULL) == NULL);
    CHECK(tri_vmstack_add(f.thread, NULL, &global_slots, NULL) == NULL);
    CHECK(strstr(tri_last_error(), "tri_vmstack_add") != NULL);
    CHECK(tri_vmstack_add(f.thread, global_slots, NULL, NULL) == NULL);
    CHECK(tri_vmstack_add(f.thread, (char *)global_slots + 1, &global_slots, NULL) == NULL);
    CHECK(tri_scanner_add(f.thread, NULL, NULL) == NULL);
    CHECK(strstr(tri_last_error(), "tri_scanner_add") != NULL);
    fixture_close(&f);
}

/* ---- Handles ---- */

TEST(roots, persistent_handles_keep_until_they_are_freed) {
    struct fixture f = fixture_open();
    enum { N = 2000 };
    static uintptr_t hidden[N];
    static tri_handle handles[N];
    for (int i = 0; i < N; i++) {
        handles[i] = tri_global(f.thread, reveal(hidden[i] = fixture_new_hidden(&f)));
        CHECK(handles[i] != NULL && tri_deref(handles[i]) == reveal(hidden[i]));
    }
    expect_alive(&f, hidden, N, true, "handles");
    uintptr_t other = fixture_new_hidden(&f);
    tri_global_set(f.thread, handles[7], reveal(other));
    expect_alive(&f, &hidden[7], 1, false, "overwritten handle");
    expect_alive(&f, &other, 1, true, "set handle");
    for (int i = 0; i < N; i += 2) tri_global_free(f.thread, handles[i]);
    fixture_collect(&f);
    for (int i = 0; i < N; i++)
        if (i != 7) CHECK_EQ(is_alive(f.heap, hidden[i]), i % 2 == 1);
    for (int i = 0; i < N; i += 2) { /* freed ones serve again */
        tri_handle h = tri_global(f.thread, reveal(hidden[i] = fixture_new_hidden(&f)));
        bool known = false;
        for (int k = 0; k < N && !known; k += 2) known = handles[k] == h;
        CHECK(i > 20 || known);
    }
    fixture_collect(&f);
    for (int i = 0; i < N; i++)
        if (i != 7) CHECK(is_alive(f.heap, hidden[i]));
    fixture_close(&f);
}

TEST(roots, a_handle_that_is_freed_twice_is_reported) {
    struct fixture f = fixture_open();
    uintptr_t hidden = fixture_new_hidden(&f);
    tri_handle h = tri_global(f.thread, reveal(hidden)), other = tri_global(f.thread, NULL);
    tri_global_free(f.thread, h);
    CHECK_EQ(fixture_take_reports(), 0);
    tri_global_free(f.thread, h);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_global_free"), "%s", fixture_report);
    tri_global_set(f.thread, h, reveal(hidden));
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_global_set"), "%s", fixture_report);
    tri_handle again = tri_global(f.thread, NULL), fourth = tri_global(f.thread, NULL);
    CHECK(again == h && fourth != h && fourth != other); /* it is in the free list once */
    expect_alive(&f, &hidden, 1, false, "freed handle");
    fixture_close(&f);
}

TEST(roots, local_handles_live_as_long_as_their_scope) {
    struct fixture f = fixture_open();
    enum { N = 1000 };
    static uintptr_t outer[N], inner[N];
    uint32_t a = tri_scope_open(f.thread);
    for (int i = 0; i < N; i++) CHECK(tri_local(f.thread, reveal(outer[i] = fixture_new_hidden(&f))) != NULL);
    uint32_t b = tri_scope_open(f.thread);
    for (int i = 0; i < N; i++) {
        tri_handle h = tri_local(f.thread, reveal(inner[i] = fixture_new_hidden(&f)));
        CHECK(tri_deref(h) == reveal(inner[i]));
    }
    expect_alive(&f, outer, N, true, "outer scope");
    expect_alive(&f, inner, N, true, "inner scope");
    tri_scope_close(f.thread, b);
    expect_alive(&f, inner, N, false, "closed scope");
    expect_alive(&f, outer, N, true, "outer scope");
    tri_scope_close(f.thread, a);
    expect_alive(&f, outer, N, false, "closed scope");
    tri_scope_close(f.thread, b);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_scope_close"), "%s", fixture_report);
    fixture_close(&f);
}

static __attribute__((noinline)) void open_scopes_and_jump(struct fixture *f, uintptr_t *hidden, int depth) {
    uint32_t mark = tri_scope_open(f->thread);
    for (int i = 0; i < 40; i++)
        CHECK(tri_local(f->thread, reveal(hidden[depth * 40 + i] = fixture_new_hidden(f))) != NULL);
    jump_back(depth == 0);
    if (depth > 0) open_scopes_and_jump(f, hidden, depth - 1);
    tri_scope_close(f->thread, mark);
}

static __attribute__((noinline)) void leave_scopes(struct fixture *f, uintptr_t *hidden) {
    if (setjmp(back) == 0) open_scopes_and_jump(f, hidden, 9);
}

TEST(roots, closing_an_outer_scope_after_a_longjmp_frees_the_inner_ones) {
    struct fixture f = fixture_open();
    static uintptr_t inner[400], outer[1];
    static uint32_t mark;
    size_t before = tri__fixalloc_in_use_bytes(&f.heap->fix_block);
    CHECK(tri_local(f.thread, reveal(outer[0] = fixture_new_hidden(&f))) != NULL);
    mark = tri_scope_open(f.thread);
    leave_scopes(&f, inner);
    expect_alive(&f, inner, 400, true, "scopes left by longjmp, not closed yet");
    tri_scope_close(f.thread, mark);
    expect_alive(&f, inner, 400, false, "closed scopes");
    expect_alive(&f, outer, 1, true, "outer scope");
    tri_scope_close(f.thread, 0);
    CHECK_EQ(tri__fixalloc_in_use_bytes(&f.heap->fix_block), before);
    fixture_close(&f);
}

/* ---- Root callbacks ---- */

struct registry {
    tri_word words[20];
    size_t n;
    uint32_t ncalls;
};

static void visit_registry(tri_visitor *visitor, void *arg) {
    struct registry *r = arg;
    atomic_add_relaxed(&r->ncalls, 1);
    tri_visit(visitor, r->words, r->n / 2);
    tri_visit_values(visitor, r->words + r->n / 2, r->n - r->n / 2, &nan_box);
}

TEST(roots, a_scanner_keeps_what_it_visits) {
    struct fixture f = fixture_open();
    static struct registry r = {.n = 20};
    uintptr_t hidden[20];
    for (int i = 0; i < 20; i++) {
        hidden[i] = fixture_new_hidden(&f);
        r.words[i] = i < 10 ? (tri_word)~hidden[i] : box(hidden[i]);
    }
    tri_scanner *scanner = tri_scanner_add(f.thread, visit_registry, &r);
    expect_alive(&f, hidden, 20, true, "scanner");
    CHECK_EQ(r.ncalls, 1);
    r.n = 10;
    expect_alive(&f, hidden, 5, true, "scanner");
    CHECK(!is_alive(f.heap, hidden[19]));
    tri_scanner_remove(f.thread, scanner);
    expect_alive(&f, hidden, 5, false, "removed scanner");
    CHECK_EQ(r.ncalls, 2);
    fixture_close(&f);
}

/* ---- Blocking regions ---- */

/* A thread inside tri_blocking, while the main thread collects: its roots of all kinds are scanned for it. */
struct blocked {
    tri_heap *heap;
    uintptr_t hidden[6]; /* local, frame, local handle, scanner, stack, argument */
    struct registry registry;
    struct coroutine coroutine;
    pthread_barrier_t barrier;
};

static struct blocked *blocked_world;

static void *wait_at_barriers(void *arg) {
    pthread_barrier_wait(&blocked_world->barrier); /* blocked now */
    pthread_barrier_wait(&blocked_world->barrier); /* and goes on */
    return arg;
}

static __attribute__((noinline)) void block_with_roots(struct blocked *b, tri_thread *thread) {
    struct fixture f = {b->heap, thread};
    volatile uintptr_t local[1] = {~(b->hidden[0] = fixture_new_hidden(&f))};
    TRI_LOCALS(thread, slots, 1);
    slots[0] = reveal(b->hidden[1] = fixture_new_hidden(&f));
    CHECK(tri_local(thread, reveal(b->hidden[2] = fixture_new_hidden(&f))) != NULL);
    b->registry.words[0] = (tri_word) ~(b->hidden[3] = fixture_new_hidden(&f));
    b->registry.n = 2;
    CHECK(tri_scanner_add(thread, visit_registry, &b->registry) != NULL);
    coroutine_open(&f, &b->coroutine);
    b->hidden[4] = b->coroutine.hidden[0];
    b->hidden[5] = fixture_new_hidden(&f);
    CHECK(tri_blocking(thread, wait_at_barriers, reveal(b->hidden[5])) == reveal(b->hidden[5]));
    CHECK(local[0] == ~b->hidden[0]);
    TRI_POP(thread, slots);
}

static void *blocked_main(void *arg) {
    struct blocked *b = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(b->heap, 0, &thread), TRI_OK);
    block_with_roots(b, thread);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(roots, a_blocked_threads_roots_are_scanned_for_it) {
    struct fixture f = fixture_open_flags(TRI_HEAP_NO_CYCLES);
    static struct blocked b;
    blocked_world = &b;
    b.heap = f.heap;
    pthread_barrier_init(&b.barrier, NULL, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, blocked_main, &b);
    pthread_barrier_wait(&b.barrier);
    for (int i = 0; i < 5; i++) expect_alive(&f, b.hidden, 6, true, "roots of a blocked thread");
    CHECK_EQ(b.registry.ncalls, 5);
    pthread_barrier_wait(&b.barrier);
    fixture_join(f.thread, thread);
    expect_alive(&f, b.hidden, 6, false, "roots of a detached thread");
    fixture_close(&f);
}

/* Argument and result of tri_blocking are roots until it returns, with nothing else to name the object. */
struct returning {
    tri_heap *heap;
    uint32_t stop;
    uint64_t nreturns;
};

static void *nap_and_return_interior(void *arg) {
    struct timespec t = {.tv_nsec = 50000};
    nanosleep(&t, NULL);
    return (char *)arg + 8;
}

static void *return_all_the_time(void *arg) {
    struct returning *r = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(r->heap, 0, &thread), TRI_OK);
    struct fixture f = {r->heap, thread};
    while (!atomic_load_acquire(&r->stop)) {
        uintptr_t hidden = fixture_new_hidden(&f);
        char *result = tri_blocking(thread, nap_and_return_interior, reveal(hidden));
        CHECK(result == (char *)reveal(hidden) + 8);
        CHECK_MSG(is_alive(r->heap, hidden), "the result of return %llu is lost", (unsigned long long)r->nreturns);
        CHECK_EQ(((struct leaf *)reveal(hidden))->a, 0x5eed);
        r->nreturns++;
    }
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(roots, argument_and_result_of_a_blocking_region_are_roots) {
    struct fixture f = fixture_open();
    if (TRI_CHECKS >= 1) CHECK_EQ(tri_heap_set(f.heap, "stress.delay=30"), TRI_OK);
    struct returning r = {.heap = f.heap};
    pthread_t thread;
    pthread_create(&thread, NULL, return_all_the_time, &r);
    for (int i = 0; i < (test_stress() ? 3000 : 300); i++) fixture_collect(&f);
    atomic_store_release(&r.stop, 1);
    fixture_join(f.thread, thread);
    CHECK(r.nreturns > 20);
    fixture_close(&f);
}
