/*
 * Native stacks of coroutines: what lies on one keeps its object while it runs, while it is suspended and after it has
 * moved to another thread, and so does what lies on the thread's own stack meanwhile; frames go with their stack; a
 * touch makes a suspended one safe to read and write; wrong use is refused by name.
 */
#include "tests/coroutine.h"
#include "tests/held.h"
#include "tests/process.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gc/stackcopy.h"

static struct fixture open_conservative(void) {
    tri_config config = fixture_config(TRI_HEAP_NO_CYCLES);
    config.report = on_report;
    forget_reports();
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, "poison=1");
    return f;
}

static void check_leaf(const struct leaf *leaf) {
    CHECK_EQ(leaf->a, 0x5eed);
}

/* ---- what keeps an object --------------------------------------------------------------------------------------- */

/* One object in a local, one in what is most likely a register that the callee saves. */
static void hold_two(struct coroutine *c, void *arg) {
    uintptr_t *hidden = arg;
    struct fixture f = {tri_thread_heap(c->on->thread), c->on->thread};
    struct leaf *volatile in_memory = reveal(hidden[0] = fixture_new_hidden(&f));
    hidden[1] = fixture_new_hidden(&f);
    for (int i = 0; i < 4; i++) {
        struct leaf *in_register = reveal(hidden[1]);
        __asm__ volatile("" : "+r"(in_register));
        coroutine_yield(c);
        __asm__ volatile("" : "+r"(in_register));
        check_leaf(in_register);
        check_leaf(in_memory);
        tri_poll(c->on->thread);
    }
    in_memory = NULL;
}

/* By a precise thread. */
static void collect_precisely(tri_heap *heap) {
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, collect_main, heap), 0);
    CHECK_EQ(pthread_join(other, NULL), 0);
}

TEST(coroutines, a_suspended_stack_keeps_what_it_names_until_it_is_removed) {
    struct fixture f = open_conservative();
    struct runner runner = runner_of(f.thread);
    struct coroutine c;
    uintptr_t hidden[2] = {0};
    coroutine_open(f.thread, &c, hold_two, hidden);
    fixture_collect(&f); /* before it has run */
    for (int i = 0; i < 3; i++) {
        CHECK(coroutine_run(&runner, &c));
        for (int k = 0; k < 2; k++) fixture_collect(&f);
        for (int k = 0; k < 2; k++) CHECK(is_alive(f.heap, hidden[k]));
    }
    coroutine_close(f.thread, &c);          /* in the middle of its run */
    CHECK_EQ(tri_detach(f.thread), TRI_OK); /* what this thread's own stack may still name does not count */
    collect_precisely(f.heap);
    for (int k = 0; k < 2; k++) CHECK(!is_alive(f.heap, hidden[k]));
    f.thread = fixture_attach(f.heap);
    close_heap(&f);
}

static void collect_here(struct coroutine *c, void *arg) {
    uint32_t *nrounds = arg;
    for (;; ++*nrounds) {
        struct fixture f = {tri_thread_heap(c->on->thread), c->on->thread};
        uintptr_t hidden = fixture_new_hidden(&f);
        struct leaf *volatile mine = reveal(hidden);
        fixture_collect(&f);
        CHECK(is_alive(f.heap, hidden));
        check_leaf(mine);
        coroutine_yield(c);
    }
}

TEST(coroutines, the_threads_own_stack_is_scanned_while_it_runs_on_another) {
    struct fixture f = open_conservative();
    struct runner runner = runner_of(f.thread);
    struct coroutine c;
    uint32_t nrounds = 0;
    coroutine_open(f.thread, &c, collect_here, &nrounds);
    struct leaf *volatile mine = reveal(fixture_new_hidden(&f));
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(coroutine_run(&runner, &c) && nrounds == i);
        CHECK_STR_EQ(atomic_load_relaxed(&mutator_of(f.thread)->os->site_call), "tri_native_switch"); /* its last */
        check_leaf(mine);
    }
    coroutine_close(f.thread, &c);
    close_heap(&f);
}

static void hold_in_frames(struct coroutine *c, void *arg) {
    uintptr_t *hidden = arg;
    struct fixture f = {tri_thread_heap(c->on->thread), c->on->thread};
    static void *slots[2]; /* that no native stack names */
    tri_frame frame = {.slots = slots, .nslots = 2};
    tri_frame_push(c->on->thread, &frame);
    for (int i = 0; i < 2; i++) slots[i] = reveal(hidden[i] = fixture_new_hidden(&f));
    coroutine_yield(c);
    for (int i = 0; i < 2; i++) check_leaf(slots[i]);
    fixture_collect(&f);
    for (int i = 0; i < 2; i++) check_leaf(slots[i]);
    tri_frame_pop(c->on->thread, &frame);
}

TEST(coroutines, frames_go_with_their_stack_in_precise_heaps_too) {
    struct fixture f = open_heap("checkmark=1", "poison=1");
    struct runner runner = runner_of(f.thread);
    struct coroutine c;
    uintptr_t hidden[2];
    static void *mine[1];
    tri_frame frame = {.slots = mine, .nslots = 1};
    tri_frame_push(f.thread, &frame);
    mine[0] = reveal(fixture_new_hidden(&f));
    coroutine_open(f.thread, &c, hold_in_frames, hidden);
    CHECK(coroutine_run(&runner, &c));
    CHECK(f.thread->frames == &frame);
    fixture_collect(&f);
    for (int i = 0; i < 2; i++) CHECK(is_alive(f.heap, hidden[i]));
    CHECK(!coroutine_run(&runner, &c)); /* collects on its own stack */
    check_leaf(mine[0]);
    fixture_collect(&f);
    for (int i = 0; i < 2; i++) CHECK(!is_alive(f.heap, hidden[i]));
    coroutine_close(f.thread, &c);
    tri_frame_pop(f.thread, &frame);
    close_heap(&f);
}

/* ---- other threads ---------------------------------------------------------------------------------------------- */

struct migration {
    tri_heap *heap;
    struct coroutine *c;
};

static void *run_once(void *arg) {
    struct migration *m = arg;
    struct fixture f = {m->heap, fixture_attach(m->heap)};
    struct runner runner = runner_of(f.thread);
    CHECK(coroutine_run(&runner, m->c));
    fixture_collect(&f);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

TEST(coroutines, one_that_moves_to_another_thread_takes_its_roots_along) {
    struct fixture f = open_conservative();
    struct coroutine c;
    uintptr_t hidden[2];
    coroutine_open(f.thread, &c, hold_two, hidden);
    for (int i = 0; i < 4; i++) {
        struct migration m = {f.heap, &c};
        pthread_t other;
        CHECK_EQ(pthread_create(&other, NULL, run_once, &m), 0);
        fixture_join(f.thread, other);
        fixture_collect(&f);
        for (int k = 0; k < 2; k++) CHECK(is_alive(f.heap, hidden[k]));
    }
    coroutine_close(f.thread, &c);
    close_heap(&f);
}

static void *yield_here(void *arg) {
    coroutine_yield(arg);
    return NULL;
}

static void *call_in_and_yield(void *arg) {
    const struct coroutine *c = arg;
    return tri_callin(c->on->thread, yield_here, arg);
}

static void yield_in_a_call_back_in(struct coroutine *c, void *arg) {
    (void)arg;
    tri_blocking(c->on->thread, call_in_and_yield, c);
}

static void move_in_a_call_back_in(const void *arg) {
    (void)arg;
    struct fixture f = open_conservative();
    struct runner runner = runner_of(f.thread);
    struct coroutine c;
    coroutine_open(f.thread, &c, yield_in_a_call_back_in, NULL);
    CHECK(coroutine_run(&runner, &c));
    struct migration m = {f.heap, &c};
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, run_once, &m), 0);
    fixture_join(f.thread, other);
}

/* What was noted of the region is the first thread's: the second would answer and block for it. */
TEST(coroutines, one_that_moves_to_another_thread_in_a_call_back_in_ends_with_words) {
    if (TEST_UNDER_TSAN || TEST_UNDER_ASAN) return; /* a child that starts a thread */
    char text[2000];
    int status = process_in_child(move_in_a_call_back_in, NULL, text, sizeof text);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %x: %s", (unsigned)status, text);
    CHECK_MSG(strstr(text, "I-REG1"), "%s", text);
}

static void *collect_beside(void *arg) {
    collect_precisely(arg);
    return NULL;
}

static void block_here(struct coroutine *c, void *arg) {
    struct fixture f = {tri_thread_heap(c->on->thread), c->on->thread};
    uintptr_t hidden = fixture_new_hidden(&f);
    struct leaf *volatile mine = reveal(hidden);
    tri_blocking(c->on->thread, collect_beside, f.heap);
    CHECK(is_alive(f.heap, hidden) && is_alive(f.heap, *(uintptr_t *)arg));
    check_leaf(mine);
}

TEST(coroutines, both_stacks_of_a_blocked_thread_are_scanned) {
    struct fixture f = open_conservative();
    struct runner runner = runner_of(f.thread);
    struct coroutine c;
    uintptr_t hidden = fixture_new_hidden(&f);
    struct leaf *volatile mine = reveal(hidden);
    coroutine_open(f.thread, &c, block_here, &hidden);
    CHECK(!coroutine_run(&runner, &c));
    check_leaf(mine);
    coroutine_close(f.thread, &c);
    close_heap(&f);
}

static void detach_here(struct coroutine *c, void *arg) {
    tri_frame *frame = arg;
    tri_frame_push(c->on->thread, frame);
    tri_poll(c->on->thread);
    CHECK_EQ(tri_detach(c->on->thread), TRI_OK);
    coroutine_jump_out(c); /* there is nobody to tell */
}

static void *detach_main(void *arg) {
    struct runner runner = runner_of(fixture_attach(arg));
    struct coroutine c;
    tri_frame frame = {0};
    coroutine_open(runner.thread, &c, detach_here, &frame);
    CHECK(coroutine_run(&runner, &c));
    munmap(c.memory, COROUTINE_STACK_BYTES);
    return NULL;
}

TEST(coroutines, a_thread_may_detach_on_one) {
    struct fixture f = open_conservative();
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, detach_main, f.heap), 0);
    fixture_join(f.thread, other);
    fixture_collect(&f);
    close_heap(&f);
}

#if !TEST_UNDER_TSAN /* which knows nothing of fibers in a child */

/* ---- fork ------------------------------------------------------------------------------------------------------- */

struct forking {
    struct fixture *f;
    struct coroutine *elsewhere; /* runs on a thread that the child has not */
};

/* In a child: this thread goes on where it was, and the other stack belongs to nobody. */
static void after_fork(const struct forking *forking, uintptr_t hidden) {
    struct fixture *f = forking->f;
    for (int i = 0; i < 2; i++) fixture_collect(f);
    CHECK(is_alive(f->heap, hidden));
    tri_vmstack_remove(f->thread, forking->elsewhere->stack);
    fixture_collect(f);
    CHECK_EQ(tri_verify(f->thread), 0);
    expect_silence();
    _exit(0);
}

static void fork_here(struct coroutine *c, void *arg) {
    const struct forking *forking = arg;
    uintptr_t hidden = fixture_new_hidden(forking->f);
    struct leaf *volatile mine = reveal(hidden);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) after_fork(forking, hidden);
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    check_leaf(mine);
    coroutine_yield(c);
    check_leaf(mine);
}

static void wait_here(struct coroutine *c, void *arg) {
    uint32_t *turn = arg;
    atomic_store_release(turn, 1);
    while (atomic_load_acquire(turn) == 1) tri_poll(c->on->thread);
    coroutine_yield(c);
}

static void *run_elsewhere(void *arg) {
    struct migration *m = arg;
    struct runner runner = runner_of(fixture_attach(m->heap));
    CHECK(coroutine_run(&runner, m->c));
    CHECK_EQ(tri_detach(runner.thread), TRI_OK);
    return NULL;
}

TEST(coroutines, a_childs_thread_goes_on_where_it_forked) {
    if (TEST_EMULATED) return; /* the emulator's own child of several threads ends when it starts one */
    struct fixture f = open_conservative();
    struct runner runner = runner_of(f.thread);
    struct coroutine c, elsewhere;
    uint32_t turn = 0;
    struct forking forking = {&f, &elsewhere};
    coroutine_open(f.thread, &c, fork_here, &forking);
    coroutine_open(f.thread, &elsewhere, wait_here, &turn);
    struct migration m = {f.heap, &elsewhere};
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, run_elsewhere, &m), 0);
    while (!atomic_load_acquire(&turn)) sched_yield();
    CHECK(coroutine_run(&runner, &c));
    atomic_store_release(&turn, 2);
    fixture_join(f.thread, other);
    fixture_collect(&f);
    CHECK(!coroutine_run(&runner, &c));
    coroutine_close(f.thread, &c);
    coroutine_close(f.thread, &elsewhere);
    close_heap(&f);
}

#endif

/* ---- deep ones -------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) void yield_deep(struct coroutine *c, uintptr_t *hidden, int depth) {
    volatile uintptr_t words[256];
    for (size_t i = 0; i < TRI_COUNT(words); i++) words[i] = i;
    if (depth > 0) {
        yield_deep(c, hidden, depth - 1);
    } else {
        words[77] = ~*hidden; /* an address */
        coroutine_yield(c);
        check_leaf(reveal(*hidden));
    }
    CHECK_EQ(words[33], 33);
}

static void be_deep(struct coroutine *c, void *arg) {
    yield_deep(c, arg, 50);
}

TEST(coroutines, a_deep_stack_is_scanned_in_pieces_or_copied) {
    struct fixture f = open_conservative();
    struct runner runner = runner_of(f.thread);
    struct coroutine c;
    uintptr_t hidden = fixture_new_hidden(&f);
    coroutine_open(f.thread, &c, be_deep, &hidden);
    CHECK(coroutine_run(&runner, &c));
    CHECK(atomic_load_relaxed(&f.heap->roots.deep_bytes) >= 50 * 2048);
    for (int i = 0; i < 2; i++) fixture_collect(&f);
    CHECK(is_alive(f.heap, hidden));
    CHECK(!coroutine_run(&runner, &c));
    CHECK_EQ(atomic_load_relaxed(&f.heap->roots.deep_bytes), 0);
    coroutine_close(f.thread, &c);
    close_heap(&f);
}

/* ---- between a thread's scan and the collector's ----------------------------------------------------------------- */

/* A thread that has answered the scan touches a suspended stack that the collector has not come to, and takes an object
 * from it into a new one, which is black. */
struct taking {
    tri_heap *heap;
    struct coroutine *c;
    struct leaf *volatile *there; /* on the coroutine's stack */
    tri_handle to;
    uint32_t go, taken; /* [atomic] */
};

static void expose(struct coroutine *c, void *arg) {
    struct taking *t = arg;
    struct fixture f = {t->heap, c->on->thread};
    struct leaf *volatile mine = reveal(fixture_new_hidden(&f));
    t->there = &mine;
    coroutine_yield(c);
}

static void *taking_main(void *arg) {
    struct taking *t = arg;
    tri_thread *thread = NULL;
    CHECK_EQ(tri_attach(t->heap, TRI_ATTACH_PRECISE, &thread), TRI_OK);
    struct mutator *m = mutator_of(thread);
    atomic_store_release(&t->go, 1);
    while (!m->armed || m->grey_stack) tri_poll(thread);
    CHECK_EQ(tri_vmstack_touch(thread, t->c->stack), TRI_OK);
    struct pair *pair = tri_new(thread, &pair_type);
    tri_init(thread, pair, &pair->left, *t->there);
    tri_global_set(thread, t->to, pair);
    *t->there = NULL;
    atomic_store_release(&t->taken, 1);
    while (atomic_load_acquire(&t->go) != 2) tri_poll(thread);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* Without the touch the object would be lost: the snapshot of that stack would never be taken. */
static void take_between(const char *setting) {
    struct fixture f = open_conservative();
    if (setting) fixture_set(f.heap, setting);
    struct runner runner = runner_of(f.thread);
    struct coroutine c;
    struct taking t = {.heap = f.heap, .c = &c, .to = tri_global(f.thread, NULL)};
    coroutine_open(f.thread, &c, expose, &t);
    CHECK(coroutine_run(&runner, &c));
    uintptr_t hidden = hide(*t.there);
    pthread_t taker, collect;
    CHECK_EQ(pthread_create(&taker, NULL, taking_main, &t), 0);
    while (!atomic_load_acquire(&t.go)) sched_yield();
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    fixture_answer_before(f.heap, f.thread, STEP_SCAN);
    while (!atomic_load_acquire(&t.taken)) sched_yield();
    fixture_join(f.thread, collect);
    CHECK(is_alive(f.heap, hidden));
    atomic_store_release(&t.go, 2);
    fixture_join(f.thread, taker);
    tri_global_free(f.thread, t.to);
    coroutine_close(f.thread, &c);
    close_heap(&f);
}

TEST(coroutines, a_touch_makes_a_suspended_stack_safe_to_take_from) {
    take_between(NULL);
#if TRI_CHECKS >= 1
    take_between("stress.copy=1");
#endif
}

/* Frames of a deep recursion go with the stack: no switch counts them, and the collector takes them in pieces. */
/* A black thread that touches it before the collector comes to it. */
static void *touch_main(void *arg) {
    struct taking *t = arg;
    tri_thread *thread = NULL;
    CHECK_EQ(tri_attach(t->heap, TRI_ATTACH_PRECISE, &thread), TRI_OK);
    struct mutator *m = mutator_of(thread);
    atomic_store_release(&t->go, 1);
    while (!m->armed || m->grey_stack) tri_poll(thread);
    CHECK_EQ(tri_vmstack_touch(thread, t->c->stack), TRI_OK);
    atomic_store_release(&t->taken, 1);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

enum { NFRAMES = 4000 };
struct chain {
    uintptr_t hidden[NFRAMES];
    struct fixture *f;
};

static void push_frames(struct coroutine *c, void *arg) {
    struct chain *chain = arg;
    struct {
        tri_frame frame;
        void *slot;
    } calls[NFRAMES];
    for (int i = 0; i < NFRAMES; i++) {
        calls[i].slot = reveal(chain->hidden[i] = fixture_new_hidden(chain->f));
        calls[i].frame = (tri_frame){NULL, 1, &calls[i].slot};
        tri_frame_push(c->on->thread, &calls[i].frame);
    }
    coroutine_yield(c);
    for (int i = NFRAMES; i-- > 0;) {
        check_leaf(calls[i].slot);
        tri_frame_pop(c->on->thread, &calls[i].frame);
    }
}

TEST(coroutines, a_suspended_chain_of_frames_is_scanned_in_pieces_or_copied) {
    struct fixture f = open_heap("checkmark=1", NULL);
    struct runner runner = runner_of(f.thread);
    struct coroutine c;
    struct chain *chain = calloc(1, sizeof *chain);
    CHECK(chain != NULL);
    chain->f = &f;
    coroutine_open(f.thread, &c, push_frames, chain);
    CHECK(coroutine_run(&runner, &c));
    for (int i = 0; i < 2; i++) fixture_collect(&f);
    for (int i = 0; i < NFRAMES; i++) CHECK(is_alive(f.heap, chain->hidden[i]));
    tri__lock_acquire(&f.heap->copies.lock);
    uint64_t before = f.heap->copies.ncopied;
    tri__lock_release(&f.heap->copies.lock);
    struct taking t = {.heap = f.heap, .c = &c};
    pthread_t toucher, collect;
    CHECK_EQ(pthread_create(&toucher, NULL, touch_main, &t), 0);
    while (!atomic_load_acquire(&t.go)) sched_yield();
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    fixture_answer_before(f.heap, f.thread, STEP_SCAN);
    while (!atomic_load_acquire(&t.taken)) sched_yield();
    fixture_join(f.thread, collect);
    fixture_join(f.thread, toucher);
    for (int i = 0; i < NFRAMES; i++) CHECK(is_alive(f.heap, chain->hidden[i]));
    CHECK(f.heap->copies.ncopied > before);
    CHECK(!coroutine_run(&runner, &c));
    coroutine_close(f.thread, &c);
    free(chain);
    close_heap(&f);
}

/* ---- wrong use -------------------------------------------------------------------------------------------------- */

static void stay(struct coroutine *c, void *arg) {
    struct fixture *f = arg;
    CHECK_EQ(tri_native_switch(f->thread, c->stack, coroutine_jump_out, c), TRI_ESTATE); /* it runs */
    tri_vmstack_remove(f->thread, c->stack);
    expect_report("tri_vmstack_remove: the calling thread runs on this stack; switch away first");
    coroutine_yield(c);
}

static void say_nothing(struct coroutine *c, void *arg) {
    struct fixture *f = arg;
    CHECK_EQ(tri_native_switch(f->thread, c->stack, coroutine_jump_in, c), TRI_ESTATE);
    CHECK_MSG(strstr(tri_last_error(), "tell each switch"), "%s", tri_last_error());
    tri_collect(f->thread);
    expect_report("a safepoint on a stack that is not the thread's own");
    coroutine_jump_out(c);
}

TEST(coroutines, wrong_use_is_refused_by_name) {
    struct fixture f = open_conservative(), other = fixture_open();
    struct runner runner = runner_of(f.thread);
    struct coroutine c, silent;
    char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(tri_native_add(f.thread, NULL, 65536) == NULL);
    CHECK(tri_native_add(f.thread, memory + 8, 1024) == NULL);
    CHECK(tri_native_add(f.thread, memory, 512) == NULL);
    CHECK(tri_native_add(f.thread, memory, SIZE_MAX - 15) == NULL);
    munmap(memory, 65536);
    coroutine_open(f.thread, &c, stay, &f);
    c.on = &runner;
    CHECK_EQ(tri_native_switch(f.thread, NULL, coroutine_jump_in, &c), TRI_ESTATE); /* it is there */
    CHECK_EQ(tri_native_switch(f.thread, c.stack, NULL, &c), TRI_EINVAL);
    CHECK_EQ(tri_native_switch(other.thread, c.stack, coroutine_jump_in, &c), TRI_EINVAL);
    CHECK_EQ(tri_vmstack_resume(f.thread, c.stack), TRI_ESTATE);
    CHECK_EQ(tri_vmstack_suspend(f.thread, c.stack), TRI_ESTATE);
    tri_vmstack_move(f.thread, c.stack, c.memory, c.memory);
    CHECK_MSG(strstr(tri_last_error(), "tri_native_switch"), "%s", tri_last_error());
    tri_word words[1] = {0}, *top = words;
    tri_vmstack *values = tri_vmstack_add(f.thread, words, &top, NULL);
    CHECK_EQ(tri_native_switch(f.thread, values, coroutine_jump_in, &c), TRI_EINVAL);
    tri_vmstack_remove(f.thread, values);
    CHECK(coroutine_run(&runner, &c));
    coroutine_close(f.thread, &c);
    coroutine_open(f.thread, &silent, say_nothing, &f);
    silent.on = &runner;
    coroutine_jump_in(&silent); /* nobody is told */
    coroutine_close(f.thread, &silent);
    fixture_close(&other);
    close_heap(&f);
}
