/*
 * fork (R20), one thing at a time: who holds a lock or is in a section that may not be cut in two, the child does not
 * notice; what threads the child has; children in the middle of marking by several; where a fork is refused. Forks in
 * every phase: stress_fork.c.
 */
#include "tests/forking.h"

#include "gc/fork.h"

enum { MOST_LOCKS = 32 };

/* Every lock that a thread may hold at any time. */
static size_t locks_of(tri_heap *heap, struct lock *locks[MOST_LOCKS]) {
    struct memory *mem = &heap->mem;
    struct lock *all[] = {tri__manual_registry_lock(),
                          &heap->cycle_lock,
                          &heap->threads_lock,
                          &heap->roots.lock,
                          &mem->gate,
                          &heap->work.lock,
                          &mem->manual.lock,
                          tri__pageheap_lock(mem->pages),
                          &mem->fix_span.lock,
                          &mem->fix_central.lock,
                          &mem->manual.fix_span.lock,
                          &heap->work.fix.lock,
                          &heap->fix_mutator.lock,
                          &heap->fix_small.lock,
                          &heap->fix_block.lock,
                          &heap->fix_worker.lock,
                          &heap->copies.lock,
                          &heap->pace_lock,
                          &heap->death.watches.lock,
                          &heap->death.watches.shards[0].lock,
                          &heap->death.watches.shards[WATCH_SHARDS - 1].lock,
                          &heap->death.watches.fix.lock,
                          &heap->death.watches.fix_block.lock,
                          &heap->death.maps.locks[0],
                          &heap->death.maps.locks[WMAP_LOCKS - 1]};
    memcpy(locks, all, sizeof all);
    return TRI_COUNT(all);
}

struct lock_holder {
    struct lock *lock;
    uint64_t forker_id;            /* 0: the lock is held beyond the fork */
    uint32_t holds, forks, forked; /* [atomic] */
};

/* Until the thread that forks waits, for this lock or another that it takes before, or has forked without it. */
static void *hold_lock(void *arg) {
    struct lock_holder *h = arg;
    tri__lock_acquire(h->lock);
    atomic_store_release(&h->holds, 1);
    while (!atomic_load_acquire(&h->forked) &&
           (!h->forker_id || !atomic_load_acquire(&h->forks) || !process_thread_sleeps(h->forker_id)))
        sched_yield();
    tri__lock_release(h->lock);
    return NULL;
}

/* A fork while another thread holds the lock. How the child ended, which takes every lock once within so long. */
static int fork_beside_lock(tri_heap *heap, struct lock *lock, bool waits, unsigned within_s) {
    struct lock *all[MOST_LOCKS];
    size_t n = locks_of(heap, all);
    pthread_t holder;
    struct lock_holder h = {.lock = lock, .forker_id = waits ? tri__os_thread_id() : 0};
    CHECK_EQ(pthread_create(&holder, NULL, hold_lock, &h), 0);
    while (!atomic_load_acquire(&h.holds)) sched_yield();
    atomic_store_release(&h.forks, 1);
    pid_t child = fork();
    if (child == 0) {
        alarm(within_s);
        for (size_t i = 0; i < n; i++) {
            tri__lock_acquire(all[i]);
            tri__lock_release(all[i]);
        }
        _exit(0);
    }
    atomic_store_release(&h.forked, 1);
    CHECK_EQ(pthread_join(holder, NULL), 0);
    return forking_wait(child);
}

TEST(fork, whoever_holds_a_lock_the_child_finds_it_free, .timeout = 120) {
    struct fixture f = fixture_open();
    struct lock *locks[MOST_LOCKS];
    size_t n = locks_of(f.heap, locks);
    for (size_t i = 0; i < n; i++) {
        int status = fork_beside_lock(f.heap, locks[i], true, 60);
        CHECK_MSG(status == 0, "lock %s: the child ended with 0x%x", locks[i]->name, status);
    }
    fixture_set(f.heap, "fault=fork_lock");
    int status = fork_beside_lock(f.heap, &f.heap->roots.lock, false, 1);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM, "the planted fault: 0x%x", status);
    fixture_set(f.heap, "fault=none");
    fixture_close(&f);
}

static uint32_t inside; /* how deep somebody is in what may not be cut in two [atomic] */

static void stay_inside(struct osthread *os) {
    if (os) {
        NO_FORK(os);
        atomic_add_acqrel(&inside, 1);
        fixture_sleep_ms(5);
        atomic_sub_acqrel(&inside, 1);
    } else {
        NO_FORK_REST();
        atomic_add_acqrel(&inside, 1);
        fixture_sleep_ms(5);
        atomic_sub_acqrel(&inside, 1);
    }
}

static uint32_t quit; /* [atomic] */

/* Attached, with a heap. */
static void *go_in_and_out(void *heap) {
    tri_thread *t = heap ? fixture_attach(heap) : NULL;
    while (!atomic_load_acquire(&quit)) stay_inside(t ? mutator_of(t)->os : NULL);
    if (t) CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

TEST(fork, nothing_that_is_in_hand_is_cut_in_two, .timeout = 120) {
    if (SANITIZER_HANGS_IN_CHILD) return;
    struct fixture f = fixture_open();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&threads[i], NULL, go_in_and_out, i % 2 ? f.heap : NULL), 0);
    for (int i = 0; i < 50; i++) {
        while (!atomic_load_acquire(&inside)) sched_yield();
        pid_t child = fork();
        if (child == 0) _exit((int)inside);
        CHECK_EQ(forking_wait(child), 0);
    }
    atomic_store_release(&quit, 1);
    for (int i = 0; i < 4; i++) fixture_join(f.thread, threads[i]);
    fixture_close(&f);
}

/* In time: a thread is made, and counted until some moments after it was joined, at its own pace. */
static void expect_thread_count(size_t n) {
    for (int i = 0; i < 30000 && forking_count_threads() != n; i++) fixture_sleep_ms(1);
    CHECK_EQ(forking_count_threads(), n);
}

/* The child's threads are made when somebody needs them; so are a grandchild's. */
static void expect_threads(tri_heap *heap, tri_thread *t, int generations) {
    CHECK_EQ(forking_count_threads(), 1);
    for (int i = 0; i < 1000; i++) CHECK(tri_new(t, &pair_type) && tri_new_bytes(t, 3000));
    CHECK_EQ(forking_count_threads(), 1);
    if (generations > 0) {
        pid_t child = fork();
        if (child == 0) expect_threads(heap, t, generations - 1), _exit(0);
        CHECK_EQ(forking_wait(child), 0);
    }
    CHECK_EQ(tri_collect(t), TRI_OK);
    expect_thread_count(3);
    if (generations > 0) {
        pid_t child = fork();
        if (child == 0) expect_threads(heap, t, generations - 1), _exit(0);
        CHECK_EQ(forking_wait(child), 0);
    }
    CHECK_EQ(tri_verify(t), 0);
    CHECK_EQ(tri_detach(t), TRI_OK);
    CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
    expect_thread_count(1);
}

TEST(fork, a_child_starts_its_threads_when_it_needs_them, .timeout = 60) {
    if (TEST_IS_SLOW) return; /* the sanitizers have threads of their own */
    struct fixture f = fixture_open();
    fixture_collect(&f);
    pid_t child = fork();
    if (child == 0) expect_threads(f.heap, f.thread, 2), _exit(0);
    CHECK_EQ(forking_wait(child), 0);
    fixture_collect(&f);
    fixture_close(&f);
}

#if TRI_CHECKS >= 1
/* A limit on processes: what waits in the child says so, and goes on when there is a thread. */
static void expect_refusal(struct fixture *f) {
    tri__os_fail_at(1, UINT64_MAX);
    CHECK_EQ(tri_collect(f->thread), TRI_ETIMEDOUT);
    CHECK_MSG(strstr(tri_last_error(), "pids.max") && !strstr(tri_last_error(), "tri_poll"), "%s", tri_last_error());
    CHECK_EQ(tri_walk(f->thread, NULL, NULL), 0);
    CHECK_MSG(strstr(tri_last_error(), "pids.max"), "%s", tri_last_error());
    tri__os_fail_at(0, 0);
    fixture_collect(f);
    _exit(0);
}

TEST(fork, a_child_that_gets_no_thread_says_so, .timeout = 60) {
    if (TEST_IS_SLOW) return;
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.wait_limit_ms = 200;
    struct fixture f = fixture_open_config(&config);
    pid_t child = fork();
    if (child == 0) {
        expect_refusal(&f);
    }
    CHECK_EQ(forking_wait(child), 0);
    fixture_close(&f);
}
#endif

static void *collect_again(void *arg) {
    struct fixture f = {arg, fixture_attach(arg)};
    for (int i = 0; i < 40; i++) fixture_collect(&f);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

/* In the middle of marking by several threads, none of which the child has; one child ends its heap at once, the other
 * collects with threads of its own. */
TEST(fork, while_several_threads_mark, .timeout = 60) {
    if (SANITIZER_HANGS_IN_CHILD) return;
    if (TRI_CHECKS == 0) return; /* without delays no heap so small calls them */
    enum { N = 20000 };
    struct fixture f = fixture_open();
    fixture_set(f.heap, "workers=3");
    fixture_set(f.heap, "stress.delay=20");
    TRI_LOCALS(f.thread, roots, 1);
    void **array = roots[0] = tri_new_n(f.thread, &array_type, N);
    for (size_t i = 0; i < N; i++) tri_store(f.thread, array, &array[i], tri_new(f.thread, &pair_type));
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, collect_again, f.heap), 0);
    while (atomic_load_relaxed(&f.heap->stats.worker_ns) == 0) tri_poll(f.thread); /* a second one marks */
    for (int i = 0; i < 20; i++) {
        while (heap_phase(f.heap) != PHASE_MARK && atomic_load_relaxed(&f.heap->stats.cycles) < 35) tri_poll(f.thread);
        pid_t child = fork();
        if (child == 0) {
            CHECK_EQ(f.heap->workers.nstarted, 0);
            if (i % 2 && !TEST_UNDER_TSAN) { /* which may take a new thread for one that is no more */
                uint64_t marked = fixture_stats(f.heap).marked_objects;
                fixture_collect(&f);
                CHECK_EQ(fixture_stats(f.heap).marked_objects - marked, N + 1);
                CHECK_EQ(tri_verify(f.thread), 0);
            }
            TRI_POP(f.thread, roots);
            CHECK_EQ(tri_detach(f.thread), TRI_OK);
            CHECK_EQ(tri_heap_destroy(f.heap), TRI_OK);
            _exit(0);
        }
        CHECK_EQ(forking_wait(child), 0);
        tri_poll(f.thread);
        if (atomic_load_relaxed(&f.heap->stats.cycles) > 30) break;
    }
    fixture_join(f.thread, other);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(fork, a_child_may_end_its_heaps_without_a_cycle, .timeout = 60) {
    struct fixture f = fixture_open();
    for (int i = 0; i < 1000; i++) CHECK(tri_new(f.thread, &pair_type) && tri_manual_alloc(f.heap, 100));
    pid_t child = fork();
    if (child == 0) {
        CHECK_EQ(tri_detach(f.thread), TRI_OK);
        CHECK_EQ(tri_heap_destroy(f.heap), TRI_OK);
        _exit(0);
    }
    CHECK_EQ(forking_wait(child), 0);
    fixture_close(&f);
}

/* In the child: what was about to be delivered, and is watched again already, lies in the queue once and comes back
 * once more when it dies. */
static void take_twice(struct fixture *f, tri_finq *q, void **roots, uintptr_t hidden) {
    int nnow = 0, nlater = 0;
    CHECK_EQ(tri_verify(f->thread), 0);
    for (void *obj; (obj = tri_finq_poll(f->thread, q)) != NULL;) nnow += hide(obj) == hidden;
    roots[0] = NULL;
    fixture_collect(f);
    for (void *obj; (obj = tri_finq_poll(f->thread, q)) != NULL;) nlater += hide(obj) == hidden;
    CHECK_MSG(nnow == 1 && nlater == 1, "it came back %d times, then %d", nnow, nlater);
    _exit(0);
}

TEST(fork, what_comes_back_and_is_watched_again_is_served_twice, .timeout = 60) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.workers = 0;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 1);
    tri_finq *q = tri_finq_new(f.thread);
    struct pair *oldest = NULL, *other = NULL;
    for (int i = 0; i < 1000; i++) { /* a ring; more than is delivered between two looks at the clock */
        struct pair *p = tri_new(f.thread, &pair_type);
        tri_store(f.thread, p, &p->left, roots[0]);
        roots[0] = p;
        if (!oldest) oldest = p;
        CHECK_EQ(tri_finq_watch(f.thread, q, p), TRI_OK);
    }
    tri_store(f.thread, oldest, &oldest->left, roots[0]);
    roots[0] = oldest = NULL;
    tri__cycle_request(f.heap, "test");
    while (!(roots[0] = tri_finq_poll(f.thread, q))) CHECK(tri_step(f.thread, 1));
    const struct watch *coming = f.heap->death.watches.revived.first;
    CHECK(coming != NULL); /* some are delivered, not all */
    for (other = roots[0]; (uintptr_t)other != coming->addr;) other = other->left;
    CHECK_EQ(tri_finq_watch(f.thread, q, other), TRI_OK);
    uintptr_t hidden = hide(other);
    pid_t child = fork();
    if (child == 0) take_twice(&f, q, roots, hidden);
    CHECK_EQ(forking_wait(child), 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- where a fork is refused ------------------------------------------------------------------------------------ */

static size_t trace_and_fork(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)visitor, (void)obj, (void)from, (void)budget;
    static uint32_t once;
    if (atomic_swap_acqrel(&once, 1)) return 0;
    pid_t child = fork();
    if (child == 0) _exit(7);
    CHECK_EQ(WEXITSTATUS(forking_wait(child)), 7);
    return 0;
}
static tri_type forking_type = {
    .struct_size = sizeof(tri_type), .name = "forking", .size = 16, .trace = trace_and_fork};

static void fork_in_a_trace(const void *unused) {
    (void)unused;
    test_begin();
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new(f.thread, &forking_type);
    fixture_collect(&f);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static void fork_in_an_event(const tri_event *event, void *user) {
    (void)user;
    static uint32_t once;
    if (event->kind != TRI_EVENT_CYCLE_END || atomic_swap_acqrel(&once, 1)) return;
    pid_t child = fork();
    if (child == 0) _exit(7);
    CHECK_EQ(WEXITSTATUS(forking_wait(child)), 7);
}

static void fork_in_a_hook(const void *here) {
    test_begin();
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.event = fork_in_an_event;
    struct fixture f = fixture_open_config(&config);
    if (*(const bool *)here) fixture_set(f.heap, "stress.here=1");
    for (int i = 0; i < 100000; i++) CHECK(tri_new(f.thread, &pair_type) != NULL);
    fixture_collect(&f);
    fixture_close(&f);
}

TEST(fork, out_of_a_callback_or_a_hook_is_reported_and_the_parent_goes_on, .timeout = 60) {
    char text[4096];
    CHECK_EQ(process_in_child(fork_in_a_trace, NULL, text, sizeof text), 0);
    CHECK_MSG(strstr(text, "fork: called from inside a"), "%s", text);
    for (int here = 0; here < 2; here++) {
        bool arg = here != 0;
        CHECK_EQ(process_in_child(fork_in_a_hook, &arg, text, sizeof text), 0);
        CHECK_MSG(strstr(text, "fork: called from inside "), "%s", text);
    }
}
