/*
 * Threads: attach and detach at any moment of a cycle, newcomers and leavers at each step, threads that end, what a
 * detached thread leaves. Blocking regions and threads that fall silent: test_blocking.c. Misuse: test_misuse.c.
 */
#include "tests/fixture.h"

/* Bytes of metadata that belong to threads. */
static size_t thread_bytes(tri_heap *heap) {
    return tri__fixalloc_in_use_bytes(&heap->fix_mutator) + tri__fixalloc_in_use_bytes(&heap->fix_small) +
           tri__fixalloc_in_use_bytes(&heap->fix_block);
}

/* ---- Attaching ---- */

TEST(threads, attaching_twice_is_refused) {
    struct fixture f = fixture_open();
    tri_thread *again = f.thread;
    CHECK_EQ(tri_attach(f.heap, 0, &again), TRI_ESTATE);
    CHECK_MSG(strstr(tri_last_error(), "tri_attach") && strstr(tri_last_error(), "tri_self"), "%s", tri_last_error());
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    CHECK(tri_self(f.heap) == f.thread && tri_thread_heap(f.thread) == f.heap);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    CHECK(tri_self(f.heap) != f.thread);
    f.thread = fixture_attach(f.heap);
    fixture_close(&f);
}

TEST(threads, a_heap_with_threads_is_not_destroyed) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_destroy(f.heap), TRI_EBUSY);
    CHECK_MSG(strstr(tri_last_error(), "1 thread"), "%s", tri_last_error());
    CHECK(tri_new(f.thread, &pair_type) != NULL);
    fixture_close(&f);
}

struct churn {
    tri_heap *heap;
    tri_root *root;
    void **slots;
    uint32_t index;
    int rounds;
};

enum { CHURN_SLOTS = 8 };
static void *churn_slots[CHURN_SLOTS];

static void check_list(const struct pair *p, uint32_t *n) {
    for (*n = 0; p; p = p->left, (*n)++)
        CHECK_MSG(p->value == 0xabcd, "node %u holds %llx", *n, (unsigned long long)p->value);
}

/* Attaches, checks and changes what the others have left, and goes again. */
static void *attach_and_detach(void *arg) {
    struct churn *c = arg;
    uint64_t seed = fixture_seed() + c->index;
    for (int i = 0; i < c->rounds; i++) {
        tri_thread *thread = fixture_attach(c->heap);
        TRI_LOCALS(thread, roots, 2);
        void **slot = &c->slots[fixture_random(&seed) % CHURN_SLOTS];
        uint32_t length;
        struct pair *list = roots[0] = tri_load(slot);
        check_list(list, &length);
        if (length > 200) list = roots[0] = NULL;
        for (int k = 0; k < 10; k++) {
            struct pair *p = roots[1] = tri_new(thread, &pair_type);
            p->value = 0xabcd;
            tri_store(thread, p, &p->left, list);
            list = roots[0] = p;
        }
        slot = &c->slots[fixture_random(&seed) % CHURN_SLOTS];
        tri_root_store(thread, c->root, slot, list);
        if (fixture_random(&seed) % 3) TRI_POP(thread, roots); /* detaching drops it as well */
        CHECK_EQ(tri_detach(thread), TRI_OK);
    }
    return NULL;
}

TEST(threads, attaching_and_detaching_in_mid_cycle_loses_nothing) {
    enum { N = 3 };
    for (int delay = 0; delay <= (TRI_CHECKS >= 1 ? 1 : 0); delay++) {
        struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
        if (TRI_CHECKS >= 1) {
            CHECK_EQ(tri_heap_set(f.heap, "checkmark=1"), TRI_OK);
            CHECK_EQ(tri_heap_set(f.heap, "poison=1"), TRI_OK);
        }
        if (delay) CHECK_EQ(tri_heap_set(f.heap, "stress.delay=20"), TRI_OK);
        memset(churn_slots, 0, sizeof churn_slots);
        tri_root *root = tri_root_add(f.thread, churn_slots, CHURN_SLOTS, NULL);
        struct churn churn[N];
        pthread_t threads[N];
        for (uint32_t i = 0; i < N; i++) {
            churn[i] = (struct churn){f.heap, root, churn_slots, i, test_stress() ? 20000 : delay ? 300 : 1500};
            pthread_create(&threads[i], NULL, attach_and_detach, &churn[i]);
        }
        for (int i = 0; i < (test_stress() ? 2000 : 100); i++) fixture_collect(&f);
        for (int i = 0; i < N; i++) fixture_join(f.thread, threads[i]);
        CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
        tri_root_remove(f.thread, root);
        fixture_close(&f);
    }
}

/* ---- Newcomers and leavers at each step (R9) ---- */

/* The test's thread answers no step before it has let others attach and detach, so that the cycle stands still. */
enum { STEPS = 6 };
static const enum step steps[STEPS] = {STEP_ARM, STEP_SETTLE, STEP_SCAN, STEP_FLUSH, STEP_DISARM, STEP_RETIRE};

struct visitor {
    tri_heap *heap;
    int from, to; /* attaches at steps[from], detaches at steps[to] */
    pthread_t thread;
    pthread_barrier_t arrived, leave, gone;
};
static struct visitor visitors[STEPS * STEPS];
static tri_handle visited; /* a list that all of them prepend to */
static pthread_mutex_t visited_mutex = PTHREAD_MUTEX_INITIALIZER;

static void prepend(tri_thread *thread) {
    TRI_LOCALS(thread, roots, 1);
    struct pair *p = roots[0] = tri_new(thread, &pair_type), *payload = tri_new(thread, &pair_type);
    payload->value = p->value = 0xabcd;
    pthread_mutex_lock(&visited_mutex); /* no safepoint inside */
    struct pair *head = tri_deref(visited);
    tri_store(thread, p, &p->right, payload);
    if (head) { /* the newest node takes the payload of the one before: a store over a reference */
        struct pair *taken = head->right;
        tri_store(thread, head, &head->right, NULL);
        tri_store(thread, payload, &payload->left, taken);
    }
    tri_store(thread, p, &p->left, head);
    tri_global_set(thread, visited, p);
    pthread_mutex_unlock(&visited_mutex);
    TRI_POP(thread, roots);
}

static void *wait_to_leave(void *arg) {
    struct visitor *v = arg;
    pthread_barrier_wait(&v->arrived);
    pthread_barrier_wait(&v->leave);
    return NULL;
}

static void *visit(void *arg) {
    struct visitor *v = arg;
    tri_thread *thread = fixture_attach(v->heap);
    const struct mutator *m = mutator_of(thread);
    int at = v->from; /* R9: as if it had answered the last posted step */
    CHECK_MSG(m->armed == (at <= 3), "step %d: armed %d", at, m->armed);
    CHECK_MSG(m->grey_stack == (at <= 1), "step %d: grey %d", at, m->grey_stack);
    CHECK_MSG(m->cache.black == (at >= 2 && at <= 4), "step %d: black %d", at, m->cache.black);
    for (int i = 0; i < 3; i++) prepend(thread);
    tri_blocking(thread, wait_to_leave, v);
    for (int i = 0; i < 3; i++) prepend(thread);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    pthread_barrier_wait(&v->gone);
    return NULL;
}

static enum step pending_step(tri_heap *heap, tri_thread *thread) {
    struct mutator *m = mutator_of(thread);
    while (atomic_load_acquire(&m->request_seq) == m->answer_seq) sched_yield();
    return heap->last_step; /* nobody posts another one before this thread's answer */
}

static void *collect_once(void *arg) {
    struct fixture f = {arg, fixture_attach(arg)};
    fixture_collect(&f);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

static uint32_t visited_length(void) {
    uint32_t n = 0, payloads = 0;
    for (const struct pair *p = tri_deref(visited); p; p = p->left, n++) CHECK_EQ(p->value, 0xabcd);
    const struct pair *head = tri_deref(visited);
    for (const struct pair *p = head ? head->right : NULL; p; p = p->left, payloads++) CHECK_EQ(p->value, 0xabcd);
    CHECK_EQ(n, payloads);
    return n;
}

TEST(threads, newcomers_and_leavers_at_each_step_lose_nothing, .timeout = 120) {
    struct fixture f = fixture_open();
    if (TRI_CHECKS >= 1) CHECK_EQ(tri_heap_set(f.heap, "poison=1"), TRI_OK);
    visited = tri_global(f.thread, NULL);
    uint32_t expected = 0;
    for (int round = 0; round < (test_stress() ? 100 : 5); round++) {
        int n = 0;
        pthread_t collector;
        pthread_create(&collector, NULL, collect_once, f.heap);
        for (int at = 0; at < STEPS; at++) {
            while (pending_step(f.heap, f.thread) != steps[at]) tri_poll(f.thread);
            for (int to = at; to < STEPS; to++) {
                struct visitor *v = &visitors[n++];
                *v = (struct visitor){.heap = f.heap, .from = at, .to = to};
                pthread_barrier_init(&v->arrived, NULL, 2);
                pthread_barrier_init(&v->leave, NULL, 2);
                pthread_barrier_init(&v->gone, NULL, 2);
                pthread_create(&v->thread, NULL, visit, v);
                pthread_barrier_wait(&v->arrived);
                expected += 3;
            }
            for (int i = 0; i < n; i++)
                if (visitors[i].to == at) {
                    pthread_barrier_wait(&visitors[i].leave);
                    pthread_barrier_wait(&visitors[i].gone);
                    pthread_join(visitors[i].thread, NULL);
                    expected += 3;
                }
            CHECK_EQ(visited_length(), expected);
        }
        fixture_join(f.thread, collector);
        CHECK_EQ(visited_length(), expected);
        fixture_collect(&f);
        CHECK_EQ(visited_length(), expected);
        CHECK_EQ(tri_walk(f.thread, NULL, NULL), 2 * expected);
    }
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    fixture_close(&f);
}

/* ---- Threads that end ---- */

static tri_heap *ending_heaps[3];

static void *never_returns(void *arg) {
    pthread_exit(arg);
}

static void visit_dead(tri_visitor *visitor, void *arg) {
    tri_visit(visitor, arg, 1);
}

/* Ends in one of several ways, attached to three heaps and with roots of every kind. */
static void *end_attached(void *arg) {
    uintptr_t how = (uintptr_t)arg;
    tri_thread *threads[3];
    static _Thread_local tri_word words[4];
    static _Thread_local tri_word *top;
    top = words;
    for (int i = 0; i < 3; i++) {
        threads[i] = fixture_attach(ending_heaps[i]);
        for (int k = 0; k < 300; k++) CHECK(tri_local(threads[i], tri_new(threads[i], &leaf_type)) != NULL);
        CHECK(tri_scanner_add(threads[i], visit_dead, words) != NULL);
        CHECK(tri_vmstack_add(threads[i], words, &top, NULL) != NULL);
    }
    if (how == 0) return NULL;
    if (how == 1) pthread_exit(NULL);
    tri_blocking(threads[how % 3], never_returns, NULL);
    return NULL;
}

TEST(threads, a_thread_that_ends_is_detached_from_all_its_heaps) {
    struct fixture f[3];
    size_t before[3];
    for (int i = 0; i < 3; i++) {
        f[i] = fixture_open();
        ending_heaps[i] = f[i].heap;
        before[i] = thread_bytes(f[i].heap);
    }
    for (uintptr_t how = 0; how < 5; how++) {
        pthread_t thread;
        pthread_create(&thread, NULL, end_attached, (void *)how);
        fixture_join(f[0].thread, thread);
        for (int i = 0; i < 3; i++) {
            CHECK_MSG(fixture_stats(f[i].heap).nthreads == 1, "way %d: heap %d still has its thread", (int)how, i);
            CHECK_MSG(thread_bytes(f[i].heap) == before[i], "way %d: heap %d: %zu bytes stay", (int)how, i,
                      thread_bytes(f[i].heap) - before[i]);
            fixture_collect(&f[i]);
            CHECK_EQ(tri_walk(f[i].thread, NULL, NULL), 0);
        }
    }
    for (int i = 0; i < 3; i++) fixture_close(&f[i]);
}

static __attribute__((noinline)) void end_now(bool now) {
    if (now) pthread_exit(NULL);
}

static __attribute__((noinline)) void end_in_frames(tri_thread *thread, int depth) {
    TRI_LOCALS(thread, slots, 4);
    for (int i = 0; i < 4; i++) slots[i] = tri_new(thread, &pair_type);
    end_now(depth == 0);
    if (depth > 0) end_in_frames(thread, depth - 1);
    TRI_POP(thread, slots);
}

static void *end_with_frames(void *arg) {
    tri_thread *thread = fixture_attach(arg);
    end_in_frames(thread, 20);
    return NULL;
}

static void *scribble(void *arg) { /* on the stack that the dead thread has left: threads reuse stacks */
    volatile char bytes[16384];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = 0x41;
    return bytes[100] ? arg : NULL;
}

/* pthread_exit leaves frames behind whose memory is gone: the detaching must not scan them. */
TEST(threads, a_thread_may_end_inside_its_frames) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    if (TRI_CHECKS >= 1) CHECK_EQ(tri_heap_set(f.heap, "stress.delay=20"), TRI_OK);
    for (int i = 0; i < (test_stress() ? 2000 : 150); i++) {
        pthread_t threads[2], collector;
        pthread_create(&collector, NULL, collect_once, f.heap);
        for (int k = 0; k < 2; k++) pthread_create(&threads[k], NULL, end_with_frames, f.heap);
        for (int k = 0; k < 2; k++) fixture_join(f.thread, threads[k]);
        fixture_join(f.thread, collector);
        pthread_create(&threads[0], NULL, scribble, &f);
        fixture_join(f.thread, threads[0]);
    }
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    fixture_close(&f);
}

/* ---- What a detached thread leaves ---- */

static void *come_and_go(void *arg) {
    tri_heap *heap = arg;
    tri_thread *thread = fixture_attach(heap);
    for (int k = 0; k < 1000; k++) CHECK(tri_local(thread, tri_new(thread, &leaf_type)) != NULL);
    for (int k = 0; k < 30; k++) CHECK(tri_new_bytes(thread, (size_t)k * 700 + 1) != NULL);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(threads, a_detached_thread_leaves_nothing_behind) {
    struct fixture f = fixture_open();
    fixture_collect(&f);
    size_t before = thread_bytes(f.heap), spans = tri__fixalloc_in_use_bytes(&f.heap->mem.fix_span), work = 0;
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, come_and_go, f.heap);
        if (i % 2) fixture_collect(&f);
        fixture_join(f.thread, thread);
        CHECK_EQ(thread_bytes(f.heap), before);
        CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
        if (i == 10) work = tri__fixalloc_in_use_bytes(&f.heap->work.fix);
        if (i > 10) /* a cycle may hold a few at either look; a leak is one for each thread */
            CHECK(tri__fixalloc_in_use_bytes(&f.heap->work.fix) <= work + 6 * sizeof(struct workbuf));
    }
    fixture_collect(&f);
    fixture_collect(&f);
    CHECK_EQ(tri__fixalloc_in_use_bytes(&f.heap->mem.fix_span), spans);
    CHECK_EQ(atomic_load_relaxed(&f.heap->mem.used_pages), 0);
    fixture_close(&f);
}

TEST(threads, detaching_forgets_stacks_that_still_run) {
    struct fixture f = fixture_open();
    static tri_word words[4];
    static tri_word *top = words;
    CHECK(tri_vmstack_add(f.thread, words, &top, NULL) != NULL);
    *top++ = (tri_word)(uintptr_t)tri_new(f.thread, &leaf_type);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 1);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    f.thread = fixture_attach(f.heap);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    fixture_close(&f);
}

/* ---- Cancelled threads ---- */

static uint32_t ended_whole; /* [atomic] */

/* With a cancellation pending all along. */
static void *end_a_heap(void *unused) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    struct fixture f = fixture_open_config(&config);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    pthread_cancel(pthread_self());
    CHECK_EQ(tri_heap_destroy(f.heap), TRI_OK);
    atomic_store_release(&ended_whole, 1);
    pthread_testcancel();
    return unused;
}

TEST(threads, a_thread_that_is_cancelled_ends_its_heap_first) {
    if (TEST_UNDER_ASAN) return; /* it does not follow a cancelled thread's unwinding: its stack stays poisoned */
    pthread_t thread;
    void *result = NULL;
    atomic_store_release(&ended_whole, 0);
    CHECK_EQ(pthread_create(&thread, NULL, end_a_heap, NULL), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED && atomic_load_acquire(&ended_whole));
}

static void *collect_until_cancelled(void *heap) {
    tri_thread *thread = fixture_attach(heap);
    for (;;) {
        tri_collect(thread);
        pthread_testcancel();
    }
    return NULL;
}

/* A wait inside a call is no place to end: whoever waits for a cycle has its lock in between. */
TEST(threads, a_thread_that_is_cancelled_in_a_call_leaves_no_lock, .timeout = 60) {
    if (TEST_UNDER_ASAN) return; /* as above */
    struct fixture f = fixture_open();
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, collect_until_cancelled, f.heap), 0);
        while (fixture_stats(f.heap).nthreads < 2) tri_poll(f.thread);
        for (int k = 0; k < 100 * i; k++) tri_poll(f.thread);
        CHECK_EQ(pthread_cancel(thread), 0);
        while (fixture_stats(f.heap).nthreads > 1) tri_poll(f.thread);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        fixture_collect(&f);
    }
    fixture_close(&f);
}
