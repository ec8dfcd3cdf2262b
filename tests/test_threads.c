/*
 * Threads: attach and detach at any moment of a cycle, threads that end, blocking regions, several heaps at once, and
 * misuse: by threads that are not attached, by threads with somebody else's attachment, by threads that fall silent.
 */
#include "tests/fixture.h"

#include <fcntl.h>
#include <sched.h>

static void *join_thread(void *arg) {
    CHECK_EQ(pthread_join(*(pthread_t *)arg, NULL), 0);
    return NULL;
}

static void join_blocking(tri_thread *thread, pthread_t other) {
    tri_blocking(thread, join_thread, &other);
}

static tri_thread *attach(tri_heap *heap) {
    tri_thread *thread = NULL;
    int err = tri_attach(heap, 0, &thread);
    CHECK_MSG(err == TRI_OK, "%s", tri_last_error());
    return thread;
}

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
    f.thread = attach(f.heap);
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
        tri_thread *thread = attach(c->heap);
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
        for (int i = 0; i < N; i++) join_blocking(f.thread, threads[i]);
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
    tri_thread *thread = attach(v->heap);
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
    struct fixture f = {arg, attach(arg)};
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
        join_blocking(f.thread, collector);
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
        threads[i] = attach(ending_heaps[i]);
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
        join_blocking(f[0].thread, thread);
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
    tri_thread *thread = attach(arg);
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
        for (int k = 0; k < 2; k++) join_blocking(f.thread, threads[k]);
        join_blocking(f.thread, collector);
        pthread_create(&threads[0], NULL, scribble, &f);
        join_blocking(f.thread, threads[0]);
    }
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    fixture_close(&f);
}

/* ---- What a detached thread leaves ---- */

static void *come_and_go(void *arg) {
    tri_heap *heap = arg;
    tri_thread *thread = attach(heap);
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
        join_blocking(f.thread, thread);
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
    f.thread = attach(f.heap);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    fixture_close(&f);
}

/* ---- Blocking regions ---- */

struct asleep {
    tri_heap *heap;
    pthread_barrier_t barrier;
    tri_thread *thread;
};

static void *two_barriers(void *arg) {
    struct asleep *a = arg;
    pthread_barrier_wait(&a->barrier);
    pthread_barrier_wait(&a->barrier);
    return NULL;
}

static void *sleep_blocked(void *arg) {
    struct asleep *a = arg;
    a->thread = attach(a->heap);
    for (int i = 0; i < 100; i++) CHECK(tri_new(a->thread, &pair_type) && tri_new_bytes(a->thread, 100));
    tri_blocking(a->thread, two_barriers, a);
    CHECK(tri_new(a->thread, &pair_type) != NULL);
    CHECK_EQ(tri_detach(a->thread), TRI_OK);
    return NULL;
}

static size_t holes_of(const struct mutator *m) {
    size_t n = 0;
    for (uint32_t i = 0; i < m->pub.nholes; i++) n += m->pub.holes[i].span != NULL;
    return n;
}

TEST(threads, a_blocked_thread_keeps_no_hole_past_a_cycle) {
    struct fixture f = fixture_open();
    struct asleep a = {.heap = f.heap};
    pthread_t thread;
    pthread_barrier_init(&a.barrier, NULL, 2);
    pthread_create(&thread, NULL, sleep_blocked, &a);
    pthread_barrier_wait(&a.barrier);
    CHECK(holes_of(mutator_of(a.thread)) > 0);
    fixture_collect(&f);
    CHECK_EQ(holes_of(mutator_of(a.thread)), 0);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    pthread_barrier_wait(&a.barrier);
    join_blocking(f.thread, thread);
    fixture_close(&f);
}

static struct fixture *region; /* of the tests below, whose functions get plain arguments */

static void *inner_region(void *arg) {
    return arg;
}

static void *nest(void *arg) {
    fixture_take_reports();
    CHECK(tri_blocking(region->thread, inner_region, arg) == NULL);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_blocking"), "%s", fixture_report);
    return arg;
}

TEST(threads, a_blocking_region_inside_a_blocking_region_is_refused) {
    struct fixture f = fixture_open();
    region = &f;
    static int token;
    CHECK(tri_blocking(f.thread, nest, &token) == &token);
    CHECK(tri_blocking(f.thread, inner_region, &token) == &token);
    fixture_collect(&f);
    fixture_close(&f);
}

static void *mutate_again(void *arg) {
    TRI_LOCALS(region->thread, roots, 1);
    struct pair *p = roots[0] = tri_new(region->thread, &pair_type);
    p->value = 0xabcd;
    tri_global_set(region->thread, arg, p);
    CHECK_EQ(tri_detach(region->thread), TRI_ESTATE);
    CHECK_MSG(strstr(tri_last_error(), "tri_detach"), "%s", tri_last_error());
    fixture_collect(region);
    static int token;
    CHECK(tri_blocking(region->thread, inner_region, &token) == &token); /* blocks again, as an ordinary mutator may */
    fixture_collect(region);
    CHECK_EQ(p->value, 0xabcd);
    TRI_POP(region->thread, roots);
    return p;
}

static void *call_back_in(void *arg) {
    for (int i = 0; i < 3; i++) CHECK(tri_callin(region->thread, mutate_again, arg) == tri_deref(arg));
    return NULL;
}

TEST(threads, a_region_can_call_back_in) {
    struct fixture f = fixture_open();
    region = &f;
    tri_handle h = tri_global(f.thread, NULL);
    tri_blocking(f.thread, call_back_in, h);
    CHECK_EQ(((struct pair *)tri_deref(h))->value, 0xabcd);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 1);
    fixture_close(&f);
}

TEST(threads, calling_in_from_outside_a_region_is_refused) {
    struct fixture f = fixture_open();
    static int token;
    CHECK(tri_callin(f.thread, inner_region, &token) == NULL);
    CHECK_MSG(strstr(tri_last_error(), "tri_callin") && strstr(tri_last_error(), "tri_blocking"), "%s",
              tri_last_error());
    fixture_close(&f);
}

/* ---- Several heaps ---- */

struct two_heaps {
    tri_heap *polled, *other;
    uint32_t ready, stop;
};

static void *poll_one_heap(void *arg) {
    struct two_heaps *t = arg;
    tri_thread *polled = attach(t->polled), *other = attach(t->other);
    TRI_LOCALS(other, roots, 1);
    struct pair *p = roots[0] = tri_new(other, &pair_type);
    p->value = 0xabcd;
    atomic_store_release(&t->ready, 1);
    while (!atomic_load_acquire(&t->stop)) tri_poll(polled);
    CHECK_EQ(p->value, 0xabcd);
    TRI_POP(other, roots);
    CHECK_EQ(tri_detach(polled), TRI_OK);
    CHECK_EQ(tri_detach(other), TRI_OK);
    return NULL;
}

TEST(threads, a_poll_on_one_heap_answers_the_others, .timeout = 60) {
    struct fixture a = fixture_open(), b = fixture_open();
    struct two_heaps t = {a.heap, b.heap, 0, 0};
    pthread_t thread;
    pthread_create(&thread, NULL, poll_one_heap, &t);
    while (!atomic_load_acquire(&t.ready)) sched_yield();
    for (int i = 0; i < 20; i++) {
        fixture_collect(&b);
        fixture_collect(&a);
    }
    CHECK_EQ(tri_walk(b.thread, NULL, NULL), 1);
    atomic_store_release(&t.stop, 1);
    join_blocking(a.thread, thread);
    fixture_close(&a);
    fixture_close(&b);
}

static void *block_on_one_heap(void *arg) {
    struct asleep *a = arg;
    tri_thread *polled = attach(ending_heaps[0]);
    tri_thread *other = attach(ending_heaps[1]);
    CHECK(tri_new(other, &pair_type) != NULL);
    tri_blocking(polled, two_barriers, a);
    CHECK_EQ(tri_detach(polled), TRI_OK);
    CHECK_EQ(tri_detach(other), TRI_OK);
    return NULL;
}

TEST(threads, a_blocking_region_answers_for_every_heap) {
    struct fixture a = fixture_open(), b = fixture_open();
    struct asleep s = {.heap = NULL};
    ending_heaps[0] = a.heap, ending_heaps[1] = b.heap;
    pthread_barrier_init(&s.barrier, NULL, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, block_on_one_heap, &s);
    pthread_barrier_wait(&s.barrier);
    for (int i = 0; i < 20; i++) {
        fixture_collect(&a);
        fixture_collect(&b);
    }
    pthread_barrier_wait(&s.barrier);
    join_blocking(a.thread, thread);
    fixture_close(&a);
    fixture_close(&b);
}

/* ---- Misuse ---- */

static tri_heap *foreign_heap;
static tri_word foreign_words[4];

static int saved_stderr = -1;

static void silence(void) {
    fflush(stderr);
    saved_stderr = dup(2);
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    close(null);
}

static void speak(void) {
    fflush(stderr);
    dup2(saved_stderr, 2);
    close(saved_stderr);
}

#define EXPECT_UNATTACHED(call_, expression_)                                                                  \
    do {                                                                                                       \
        CHECK_MSG((expression_), "%s: the value without an attachment is wrong", call_);                       \
        CHECK_MSG(strncmp(tri_last_error(), call_ ":", strlen(call_ ":")) == 0, "%s: \"%s\"", call_,           \
                  tri_last_error());                                                                           \
        CHECK_MSG(strstr(tri_last_error(), "not attached"), "%s: \"%s\"", call_, tri_last_error());            \
        CHECK_MSG(strstr(tri_last_error(), "tri_attach"), "%s: no remedy in \"%s\"", call_, tri_last_error()); \
    } while (0)

static void *call_without_attaching(void *arg) {
    struct pair *p = arg;
    tri_thread *t = tri_self(foreign_heap);
    tri_word expected = 0, before = (tri_word)(uintptr_t)p->left;
    static tri_word *top = foreign_words;
    CHECK(t != NULL);
    EXPECT_UNATTACHED("tri_new", tri_new(t, &pair_type) == NULL);
    EXPECT_UNATTACHED("tri_new_n", tri_new_n(t, &array_type, 4) == NULL);
    EXPECT_UNATTACHED("tri_new_bytes", tri_new_bytes(t, 4) == NULL);
    EXPECT_UNATTACHED("tri_external", (tri_external(t, 5), true));
    EXPECT_UNATTACHED("tri_store", (tri_store(t, p, &p->left, p), true));
    EXPECT_UNATTACHED("tri_xchg", tri_xchg(t, p, &p->left, 1) == 0);
    EXPECT_UNATTACHED("tri_cas", !tri_cas(t, p, &p->left, &expected, 1));
    EXPECT_UNATTACHED("tri_move", (tri_move(t, p, &p->left, foreign_words, 1), true));
    EXPECT_UNATTACHED("tri_clear", (tri_clear(t, p, &p->left, 1), true));
    CHECK_MSG((tri_word)(uintptr_t)p->left == before, "something was stored");
    EXPECT_UNATTACHED("tri_poll", (tri_poll(t), true));
    EXPECT_UNATTACHED("tri_blocking", tri_blocking(t, inner_region, p) == NULL);
    EXPECT_UNATTACHED("tri_callin", tri_callin(t, inner_region, p) == NULL);
    EXPECT_UNATTACHED("tri_detach", tri_detach(t) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_thread_heap", tri_thread_heap(t) == NULL);
    EXPECT_UNATTACHED("tri_scope_open", tri_scope_open(t) == 0);
    EXPECT_UNATTACHED("tri_local", tri_local(t, p) == NULL);
    EXPECT_UNATTACHED("tri_scope_close", (tri_scope_close(t, 0), true));
    EXPECT_UNATTACHED("tri_global", tri_global(t, p) == NULL);
    EXPECT_UNATTACHED("tri_root_add", tri_root_add(t, foreign_words, 4, NULL) == NULL);
    EXPECT_UNATTACHED("tri_vmstack_add", tri_vmstack_add(t, foreign_words, &top, NULL) == NULL);
    EXPECT_UNATTACHED("tri_scanner_add", tri_scanner_add(t, visit_dead, p) == NULL);
    EXPECT_UNATTACHED("tri_collect", tri_collect(t) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_find", tri_find(t, p, NULL) == NULL);
    EXPECT_UNATTACHED("tri_walk", tri_walk(t, NULL, NULL) == 0);
    EXPECT_UNATTACHED("tri_verify", tri_verify(t) == TRI_EUNATTACHED);
    return NULL;
}

/* What belongs to an attached thread, used by one that is not. */
struct things {
    tri_handle handle;
    tri_root *root;
    tri_vmstack *stack;
    tri_scanner *scanner;
};

static void *use_without_attaching(void *arg) {
    struct things *things = arg;
    tri_thread *t = tri_self(foreign_heap);
    EXPECT_UNATTACHED("tri_global_set", (tri_global_set(t, things->handle, NULL), true));
    EXPECT_UNATTACHED("tri_global_free", (tri_global_free(t, things->handle), true));
    EXPECT_UNATTACHED("tri_root_store", (tri_root_store(t, things->root, &foreign_words[0], things), true));
    EXPECT_UNATTACHED("tri_root_remove", (tri_root_remove(t, things->root), true));
    EXPECT_UNATTACHED("tri_vmstack_move", (tri_vmstack_move(t, things->stack, foreign_words, foreign_words), true));
    EXPECT_UNATTACHED("tri_vmstack_suspend", tri_vmstack_suspend(t, things->stack) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_vmstack_resume", tri_vmstack_resume(t, things->stack) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_vmstack_touch", tri_vmstack_touch(t, things->stack) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_vmstack_remove", (tri_vmstack_remove(t, things->stack), true));
    EXPECT_UNATTACHED("tri_scanner_remove", (tri_scanner_remove(t, things->scanner), true));
    return NULL;
}

TEST(threads, a_call_by_an_unattached_thread_is_refused_by_name) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    struct pair *p = roots[0] = tri_new(f.thread, &pair_type);
    foreign_heap = f.heap;
    static tri_word words[4];
    static tri_word *top = words;
    struct things things = {tri_global(f.thread, p), tri_root_add(f.thread, foreign_words, 4, NULL),
                            tri_vmstack_add(f.thread, words, &top, NULL), tri_scanner_add(f.thread, visit_dead, words)};
    pthread_t thread;
    silence(); /* there is no heap whose hook could be told */
    pthread_create(&thread, NULL, call_without_attaching, p);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, use_without_attaching, &things);
    pthread_join(thread, NULL);
    speak();
    CHECK(tri_deref(things.handle) == p && foreign_words[0] == 0);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 1);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    tri_vmstack_remove(f.thread, things.stack);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static void *use_foreign_attachment(void *arg) {
    struct fixture *f = arg;
    CHECK_EQ(tri_detach(f->thread), TRI_ESTATE);
    CHECK_MSG(strstr(tri_last_error(), "tri_detach") && strstr(tri_last_error(), "another thread"), "%s",
              tri_last_error());
    fixture_take_reports();
    tri_poll_slow(f->thread);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_poll") && strstr(fixture_report, "another thread"), "%s", fixture_report);
    return NULL;
}

TEST(threads, somebody_elses_attachment_is_refused) {
    struct fixture f = fixture_open();
    pthread_t thread;
    pthread_create(&thread, NULL, use_foreign_attachment, &f);
    pthread_join(thread, NULL);
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    fixture_close(&f);
}

/* Checked builds see it in every call that is not inline. */
static void *use_foreign_attachment_everywhere(void *arg) {
    struct fixture *f = arg;
    struct {
        const char *call;
        bool refused;
    } calls[] = {
        {"tri_collect", tri_collect(f->thread) < 0},
        {"tri_new_bytes", tri_new_bytes(f->thread, 100000) == NULL},
        {"tri_global", tri_global(f->thread, NULL) == NULL},
        {"tri_local", tri_local(f->thread, NULL) == NULL},
        {"tri_blocking", tri_blocking(f->thread, inner_region, f) == NULL},
        {"tri_verify", tri_verify(f->thread) < 0},
    };
    for (size_t i = 0; i < TRI_COUNT(calls); i++)
        CHECK_MSG(calls[i].refused, "%s takes another thread's attachment", calls[i].call);
    CHECK_EQ(fixture_take_reports(), TRI_COUNT(calls));
    return NULL;
}

TEST(threads, checked_builds_refuse_somebody_elses_attachment_in_every_call) {
    if (TRI_CHECKS < 1) return;
    struct fixture f = fixture_open();
    pthread_t thread;
    pthread_create(&thread, NULL, use_foreign_attachment_everywhere, &f);
    pthread_join(thread, NULL);
    fixture_close(&f);
}

/* ---- Silent threads ---- */

struct silent {
    tri_heap *heap;
    uint32_t ready, nevents, stop;
    uint64_t id, told_id, told_ns;
};

static struct silent silent;

static void on_event(const tri_event *event, void *user) {
    (void)user;
    if (event->kind != TRI_EVENT_SILENT_THREAD) return;
    CHECK_EQ(event->struct_size, sizeof *event);
    atomic_store_relaxed(&silent.told_id, event->silent_thread_id);
    atomic_store_relaxed(&silent.told_ns, event->silent_ns);
    atomic_add_acqrel(&silent.nevents, 1);
}

static void *fall_silent(void *arg) {
    struct silent *s = arg;
    tri_thread *thread = attach(s->heap);
    s->id = tri__os_thread_id();
    atomic_store_release(&s->ready, 1);
    while (!atomic_load_acquire(&s->stop)) fixture_sleep_ms(1); /* no poll, no blocking region */
    tri_poll(thread);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(threads, a_silent_thread_is_told_of_and_a_collection_times_out) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.event = on_event;
    config.silent_after_ms = 20;
    config.wait_limit_ms = 150;
    struct fixture f = fixture_open_config(&config);
    silent.heap = f.heap;
    pthread_t thread;
    pthread_create(&thread, NULL, fall_silent, &silent);
    while (!atomic_load_acquire(&silent.ready)) sched_yield();
    uint64_t start = tri__os_now_ns();
    CHECK_EQ(tri_collect(f.thread), TRI_ETIMEDOUT);
    uint64_t waited_ms = (tri__os_now_ns() - start) / 1000000;
    CHECK_MSG(waited_ms >= 150 && waited_ms < 5000, "waited %llu ms", (unsigned long long)waited_ms);
    CHECK_MSG(strstr(tri_last_error(), "tri_collect") && strstr(tri_last_error(), "safepoint"), "%s", tri_last_error());
    CHECK_MSG(atomic_load_acquire(&silent.nevents) >= 2, "told %u times", silent.nevents);
    CHECK_EQ(atomic_load_relaxed(&silent.told_id), silent.id);
    CHECK(atomic_load_relaxed(&silent.told_ns) >= 20000000);
    /* This thread goes on meanwhile: it allocates, stores, and waits for nobody. */
    for (int i = 0; i < 10000; i++) CHECK(tri_new(f.thread, &pair_type) != NULL);
    atomic_store_release(&silent.stop, 1);
    join_blocking(f.thread, thread);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    fixture_close(&f);
}
