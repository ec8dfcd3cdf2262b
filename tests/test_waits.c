/*
 * What a thread waits for (gc/stats.c): each cause in its own histogram, of the heap that it concerns, and each wait
 * told once, whatever it is made of.
 */
#include "gc/fork.h"
#include "gc/units.h"
#include "tests/forking.h"
#include "tests/seen.h"

TEST(waits, handshake_scan_and_wait_have_their_histograms) {
    struct fixture f = fixture_open();
    fixture_collect(&f);
    CHECK_EQ(count(f.heap, TRI_PAUSE_HANDSHAKE), 0); /* it waited, and was answered for */
    CHECK_EQ(count(f.heap, TRI_PAUSE_SCAN), 0);
    CHECK_EQ(count(f.heap, TRI_PAUSE_WAIT), 1);
    poll_through_a_cycle(&f);
    CHECK_EQ(count(f.heap, TRI_PAUSE_SCAN), 1);
    CHECK(count(f.heap, TRI_PAUSE_HANDSHAKE) >= 6);
    CHECK_EQ(count(f.heap, TRI_PAUSE_WAIT), 2);
    CHECK_EQ(count(f.heap, TRI_PAUSE_ZERO), 0);
    fixture_close(&f);
}

TEST(waits, a_slice_has_the_scan_of_its_own_thread) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.workers = 0;
    struct fixture f = fixture_open_config(&config);
    fixture_collect(&f);
    CHECK_EQ(count(f.heap, TRI_PAUSE_SCAN), 1);
    CHECK_EQ(count(f.heap, TRI_PAUSE_HANDSHAKE), 0);
    fixture_close(&f);
}

TEST(waits, zeroing_of_a_large_object_counts_by_pieces) {
    struct fixture f = fixture_open();
    for (int i = 0; i < 2; i++) { /* in used pages: the second time */
        CHECK(tri_new_n(f.thread, &array_type, 4 * MIB / 8) != NULL);
        fixture_collect(&f);
    }
    uint64_t before = count(f.heap, TRI_PAUSE_ZERO);
    CHECK(tri_new_n(f.thread, &array_type, 4 * MIB / 8) != NULL);
    CHECK(count(f.heap, TRI_PAUSE_ZERO) > before);
    fixture_close(&f);
}

TEST(waits, growth_is_the_systems_time) {
    struct fixture f = fixture_open();
    uint64_t before = count(f.heap, TRI_PAUSE_SYSTEM);
    CHECK(tri_new_bytes(f.thread, 80 * MIB) != NULL); /* more than an arena */
    CHECK(count(f.heap, TRI_PAUSE_SYSTEM) > before);
    fixture_close(&f);
}

TEST(waits, a_collector_that_goes_on_where_all_cores_are_needed_is_seen) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    fixture_use_millicpus(f.heap, 1000, false); /* the thread needs it */
    grow(&f, &roots[0], 300000);
    uint64_t before = count(f.heap, TRI_PAUSE_CORE);
    for (int i = 0; i < 100 && count(f.heap, TRI_PAUSE_CORE) == before; i++) fixture_collect(&f);
    CHECK(count(f.heap, TRI_PAUSE_CORE) > before);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

struct holder {
    tri_heap *heap;
    uint64_t waiter_id; /* the thread that is going to want the lock */
    uint32_t holds, wanted;
};

static void *hold_lock(void *arg) {
    struct holder *h = arg;
    tri__lock_acquire(&h->heap->roots.lock);
    atomic_store_release(&h->holds, 1);
    while (!atomic_load_acquire(&h->wanted) || !process_thread_sleeps(h->waiter_id)) sched_yield();
    tri__lock_release(&h->heap->roots.lock);
    return NULL;
}

TEST(waits, a_lock_that_another_thread_holds_is_a_pause) {
    struct fixture f = fixture_open();
    struct holder h = {.heap = f.heap, .waiter_id = tri__os_thread_id()};
    pthread_t other;
    TRI_LOCALS(f.thread, roots, 1);
    grow(&f, &roots[0], 10000);
    uint64_t before = count(f.heap, TRI_PAUSE_LOCK);
    CHECK_EQ(pthread_create(&other, NULL, hold_lock, &h), 0);
    while (!atomic_load_acquire(&h.holds)) sched_yield();
    atomic_store_release(&h.wanted, 1);
    tri_global_free(f.thread, tri_global(f.thread, roots[0])); /* takes the lock, and sleeps until it has it */
    grow(&f, &roots[0], 10000);                                /* and a slow path tells */
    CHECK_MSG(count(f.heap, TRI_PAUSE_LOCK) > before, "%llu waits", (unsigned long long)before);
    fixture_join(f.thread, other);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- what a thread reads for the collector, and forks ------------------------------------------------------------ */

/* A thread that has answered the scan, while another one has not: so the collector has come to no suspended stack yet,
 * and what is counted meanwhile is this thread's. */
struct reader {
    tri_heap *heap;
    tri_vmstack *stack;
    int (*reads)(tri_thread *thread, tri_vmstack *stack);
    uint32_t attached, read; /* [atomic] */
    uint64_t nscans;
};

static void *reader_main(void *arg) {
    struct reader *r = arg;
    tri_thread *thread = NULL;
    CHECK_EQ(tri_attach(r->heap, TRI_ATTACH_PRECISE, &thread), TRI_OK);
    struct mutator *m = mutator_of(thread);
    atomic_store_release(&r->attached, 1);
    while (!m->armed || m->grey_stack) tri_poll(thread);
    uint64_t before = count(r->heap, TRI_PAUSE_SCAN);
    CHECK_EQ(r->reads(thread, r->stack), TRI_OK);
    r->nscans = count(r->heap, TRI_PAUSE_SCAN) - before;
    atomic_store_release(&r->read, 1);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

static uint64_t scans_of(int (*reads)(tri_thread *, tri_vmstack *)) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.wait_limit_ms = 60000;
    struct fixture f = fixture_open_config(&config);
    void *words[64] = {NULL};
    void **top = words + 64;
    tri_vmstack *stack = tri_vmstack_add(f.thread, words, &top, NULL);
    words[3] = tri_new(f.thread, &pair_type);
    CHECK_EQ(tri_vmstack_suspend(f.thread, stack), TRI_OK);
    struct reader r = {.heap = f.heap, .stack = stack, .reads = reads};
    pthread_t reader, collector;
    CHECK_EQ(pthread_create(&reader, NULL, reader_main, &r), 0);
    while (!atomic_load_acquire(&r.attached)) sched_yield();
    CHECK_EQ(pthread_create(&collector, NULL, collect_beside, f.heap), 0);
    fixture_answer_before(f.heap, f.thread, STEP_SCAN);
    while (!atomic_load_acquire(&r.read)) sched_yield();
    fixture_join(f.thread, collector);
    fixture_join(f.thread, reader);
    fixture_close(&f);
    return r.nscans;
}

static int resume_it(tri_thread *thread, tri_vmstack *stack) {
    return tri_vmstack_resume(thread, stack);
}

static int touch_twice(tri_thread *thread, tri_vmstack *stack) {
    CHECK_EQ(tri_vmstack_touch(thread, stack), TRI_OK);
    return tri_vmstack_touch(thread, stack); /* it is safe now */
}

static int remove_it(tri_thread *thread, tri_vmstack *stack) {
    tri_vmstack_remove(thread, stack);
    return TRI_OK;
}

static int add_and_remove_a_range(tri_thread *thread, tri_vmstack *stack) {
    void *slots[8] = {NULL};
    tri_root *root = tri_root_add(thread, slots, 8, NULL);
    CHECK(root != NULL);
    tri_root_remove(thread, root);
    return tri_vmstack_touch(thread, stack);
}

TEST(waits, what_a_thread_reads_of_roots_itself_counts_as_a_scan) {
    CHECK_EQ(scans_of(resume_it), 1);
    CHECK_EQ(scans_of(touch_twice), 1);
    CHECK_EQ(scans_of(remove_it), 1);
    CHECK_EQ(scans_of(add_and_remove_a_range), 3);
}

enum { FORK_MS = 5 };

/* Other threads' parts, each for FORK_MS, until this thread's was seen to wait: it may have had no core meanwhile. */
static void expect_waits(void *(*others)(void *), void (*own)(void)) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    uint64_t before = count_long(f.heap, TRI_PAUSE_LOCK, FORK_MS * 250000), now = before;
    for (int i = 0; i < 100 && now == before; i++) {
        struct holder h = {.heap = f.heap};
        pthread_t other;
        CHECK_EQ(pthread_create(&other, NULL, others, &h), 0);
        while (!atomic_load_acquire(&h.holds)) sched_yield();
        own();
        roots[0] = NULL;
        grow(&f, &roots[0], 20000); /* slow paths: one waits for another thread's fork, the next one tells */
        now = count_long(f.heap, TRI_PAUSE_LOCK, FORK_MS * 250000);
        fixture_join(f.thread, other);
    }
    CHECK(now > before);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static void *stay_inside(void *arg) {
    struct holder *h = arg;
    NO_FORK_REST();
    atomic_store_release(&h->holds, 1);
    fixture_sleep_ms(FORK_MS);
    return NULL;
}

static void fork_and_wait(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) _exit(0);
    CHECK_EQ(forking_wait(child), 0);
}

TEST(waits, a_fork_that_waits_for_others_is_a_pause) {
    expect_waits(stay_inside, fork_and_wait);
}

/* As another thread's fork does. */
static void *be_forking(void *arg) {
    struct holder *h = arg;
    atomic_store_seq(&tri__forking, 1);
    atomic_store_release(&h->holds, 1);
    fixture_sleep_ms(FORK_MS);
    atomic_store_seq(&tri__forking, 0);
    tri__os_futex_wake_all(&tri__forking);
    return NULL;
}

static void go_on(void) {}

TEST(waits, a_fork_on_another_thread_is_a_pause) {
    expect_waits(be_forking, go_on);
}

/* ---- once, and in its heap --------------------------------------------------------------------------------------- */

/* Reading a thread's roots takes so long; and what the heap told of pauses but for scans, which lie within others. */
enum { SCAN_MS = 5 };

static void scan_slowly(tri_visitor *visitor, void *arg) {
    (void)visitor, (void)arg;
    fixture_sleep_ms(SCAN_MS);
}

static struct told told;

static uint64_t told_ns(uint64_t thread_id) {
    uint64_t ns = 0;
    pthread_mutex_lock(&told.mutex);
    for (uint32_t i = 0; i < told.n; i++) {
        const tri_event *e = &told.events[i];
        if (e->kind == TRI_EVENT_PAUSE && e->thread_id == thread_id && e->pause_kind != TRI_PAUSE_SCAN)
            ns += e->pause_ns;
    }
    CHECK(told.n < MOST_EVENTS);
    told.n = 0;
    pthread_mutex_unlock(&told.mutex);
    return ns;
}

static void wait_for_a_cycle(struct fixture *f) {
    CHECK_EQ(tri_collect(f->thread), TRI_OK);
}
static void wait_at_the_limit(struct fixture *f) {
    CHECK(tri__cycle_wait_at_limit(mutator_of(f->thread)));
}
static void wait_for_a_walk(struct fixture *f) {
    tri_walk(f->thread, NULL, NULL);
}
static void wait_at_the_gate(struct fixture *f) {
    CHECK(tri__gate_wait(mutator_of(f->thread), tri__os_now_ns(), "tri_find"));
}

/* The thread comes to a wait with a step to answer, which takes long: whatever is told of it takes no longer, in all,
 * than the call. */
TEST(waits, are_told_once_with_the_steps_that_are_answered_on_their_way) {
    static void (*const waits[])(struct fixture *) = {wait_for_a_cycle, wait_at_the_limit, wait_for_a_walk,
                                                      wait_at_the_gate};
    told = (struct told){.mutex = PTHREAD_MUTEX_INITIALIZER};
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | TRI_HEAP_EVENTS);
    config.event = on_event;
    config.user = &told;
    struct fixture f = fixture_open_config(&config);
    tri_scanner *scanner = tri_scanner_add(f.thread, scan_slowly, NULL);
    CHECK(scanner != NULL);
    for (size_t i = 0; i < TRI_COUNT(waits); i++) {
        pthread_t collector;
        CHECK_EQ(pthread_create(&collector, NULL, collect_beside, f.heap), 0);
        fixture_answer_before(f.heap, f.thread, STEP_SCAN);
        told_ns(0);
        uint64_t start = tri__os_now_ns();
        waits[i](&f);
        uint64_t took_ns = tri__os_now_ns() - start, ns = told_ns(tri__os_thread_id());
        CHECK_MSG(ns >= SCAN_MS * 1000000 && ns <= took_ns, "%zu: %llu ns told of %llu", i, (unsigned long long)ns,
                  (unsigned long long)took_ns);
        fixture_join(f.thread, collector);
    }
    fixture_close(&f);
}

/* Two collectors, one after the other, hold the word of a thread that comes out of its region: as hold() in
 * gc/handshake.c does it. */
struct two_holders {
    struct fixture *a, *b;
    bool a_scans;
    uint32_t away, held; /* [atomic] */
};

static void *hold_twice(void *arg) {
    struct two_holders *h = arg;
    struct mutator *a = mutator_of(h->a->thread), *b = mutator_of(h->b->thread);
    struct osthread *os = a->os;
    while (!atomic_load_acquire(&h->away)) sched_yield();
    collect_beside(h->b->heap); /* reads the thread's roots while nobody waits for it */
    CHECK(b->scan_ns >= SCAN_MS * 1000000);
    for (uint32_t expected = OS_BLOCKED; !atomic_cas_seq(&os->state, &expected, OS_HELD); expected = OS_BLOCKED) {}
    os->held_for = a;
    atomic_store_release(&h->held, 1);
    while (atomic_load_acquire(&os->state) != OS_HELD_WAITED) sched_yield();
    uint64_t start = tri__os_now_ns();
    fixture_sleep_ms(1);
    if (h->a_scans) a->scan_end_ns = tri__os_now_ns(), a->scan_ns = a->scan_end_ns - start;
    os->held_for = b;
    atomic_store_seq(&os->state, OS_BLOCKED);
    tri__os_futex_wake_all(&os->state);
    return NULL;
}

static void *until_held(void *arg) {
    struct two_holders *h = arg;
    atomic_store_release(&h->away, 1);
    while (!atomic_load_acquire(&h->held)) fixture_sleep_ms(1);
    return NULL;
}

TEST(waits, at_a_regions_end_belong_to_the_heap_that_read_the_roots_meanwhile) {
    for (int a_scans = 0; a_scans < 2; a_scans++) {
        struct fixture a = fixture_open(), b = fixture_open();
        CHECK(tri_scanner_add(b.thread, scan_slowly, NULL) != NULL);
        struct two_holders h = {.a = &a, .b = &b, .a_scans = a_scans != 0};
        pthread_t holder;
        CHECK_EQ(pthread_create(&holder, NULL, hold_twice, &h), 0);
        tri_blocking(a.thread, until_held, &h);
        CHECK_EQ(pthread_join(holder, NULL), 0);
        CHECK_EQ(count(a.heap, TRI_PAUSE_SCAN), a_scans);
        CHECK_EQ(count(a.heap, TRI_PAUSE_HANDSHAKE), a_scans);
        CHECK_EQ(count(b.heap, TRI_PAUSE_SCAN), 0); /* what was read before is nobody's */
        CHECK_EQ(count(b.heap, TRI_PAUSE_HANDSHAKE), 1 - a_scans);
        fixture_close(&a);
        fixture_close(&b);
    }
}

static void *wait_and_attach(void *arg) {
    tri__lock_add_waited(UINT64_C(1) << 40); /* as for a fork, in a call of a thread that is not attached */
    struct fixture f = {arg, fixture_attach(arg)};
    tri__lock_add_waited(1 << 10); /* and of one that is */
    TRI_LOCALS(f.thread, roots, 1);
    grow(&f, &roots[0], 20000);
    TRI_POP(f.thread, roots);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

TEST(waits, of_a_thread_before_it_attaches_are_no_heaps) {
    struct fixture f = fixture_open();
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, wait_and_attach, f.heap), 0);
    fixture_join(f.thread, thread);
    CHECK_EQ(count_long(f.heap, TRI_PAUSE_LOCK, UINT64_C(1) << 39), 0);
    CHECK(count(f.heap, TRI_PAUSE_LOCK) > 0);
    fixture_close(&f);
}

/* A thread that attaches while the world is stopped waits, and is in no list yet. */
struct newcomer {
    tri_heap *heap, *first; /* first: NULL, or a heap that it is attached to already */
    pthread_t thread;
    uint64_t id; /* [atomic] */
};

static void *attach_late(void *arg) {
    struct newcomer *n = arg;
    tri_thread *first = n->first ? fixture_attach(n->first) : NULL;
    atomic_store_release(&n->id, tri__os_thread_id());
    CHECK_EQ(tri_detach(fixture_attach(n->heap)), TRI_OK);
    if (first) CHECK_EQ(tri_detach(first), TRI_OK);
    return NULL;
}

static void stay_until_it_waits(tri_heap *heap, void *arg) {
    struct newcomer *n = arg;
    (void)heap;
    CHECK_EQ(pthread_create(&n->thread, NULL, attach_late, n), 0);
    while (!atomic_load_acquire(&n->id) || !process_thread_sleeps(n->id)) sched_yield();
}

TEST(waits, for_a_stopped_world_to_attach_are_told) {
    struct fixture f = fixture_open(), other = fixture_open();
    for (int i = 0; i < 3; i++) {
        struct newcomer n = {.heap = f.heap, .first = i ? other.heap : NULL};
        bool cycle_stops = i == 2; /* so it is told as a cycle's pause */
        if (cycle_stops) fixture_set(f.heap, "mode=stop");
        uint64_t waits = count(f.heap, TRI_PAUSE_WAIT), handshakes = count(f.heap, TRI_PAUSE_HANDSHAKE);
        CHECK(tri__collector_run(mutator_of(f.thread), stay_until_it_waits, &n));
        fixture_join(f.thread, n.thread);
        CHECK_EQ(count(f.heap, TRI_PAUSE_WAIT), waits + 2 - cycle_stops); /* its own wait, and this thread's */
        CHECK_EQ(count(f.heap, TRI_PAUSE_HANDSHAKE), handshakes + cycle_stops);
    }
    CHECK_EQ(count(other.heap, TRI_PAUSE_WAIT), 0);
    fixture_close(&f);
    fixture_close(&other);
}

/* ---- while the world is stopped ---------------------------------------------------------------------------------- */

/* A stop on behalf of another thread lasts for so long, and is told to those that stand as one wait. */
enum { STOP_MS = 5, LONG_NS = 4000000 };
_Static_assert(STOP_MS * 1000000 > 1 << 22 && LONG_NS <= 1 << 22, "a bucket of the histogram begins in between");

static void stand_still(tri_heap *heap, void *arg) {
    (void)heap, (void)arg;
    fixture_sleep_ms(STOP_MS);
}

static size_t trace_slowly(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)visitor, (void)obj, (void)from, (void)budget;
    fixture_sleep_ms(STOP_MS);
    return 0;
}
static tri_type slow_type = {
    .struct_size = sizeof(tri_type), .name = "struct slow", .size = sizeof(struct leaf), .trace = trace_slowly};

struct stopper {
    tri_heap *heap;
    bool cycle;
    uint32_t done; /* [atomic] */
};

static void *stop_the_world(void *arg) {
    struct stopper *s = arg;
    tri_thread *thread = fixture_attach(s->heap);
    if (s->cycle)
        CHECK_EQ(tri_collect(thread), TRI_OK);
    else
        CHECK(tri__collector_run(mutator_of(thread), stand_still, NULL));
    CHECK_EQ(tri_detach(thread), TRI_OK);
    atomic_store_release(&s->done, 1);
    return NULL;
}

/* This thread comes to a poll, where it stands until the world goes on. */
static void stand_through(struct fixture *f, bool cycle) {
    struct stopper s = {.heap = f->heap, .cycle = cycle};
    pthread_t stopper;
    CHECK_EQ(pthread_create(&stopper, NULL, stop_the_world, &s), 0);
    while (!atomic_load_acquire(&s.done)) tri_poll(f->thread);
    CHECK_EQ(pthread_join(stopper, NULL), 0);
}

TEST(waits, of_a_thread_that_stands_in_a_stopped_world_are_told) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    stand_through(&f, false);                                 /* tri_walk and tri_verify are such stops */
    CHECK_EQ(count_long(f.heap, TRI_PAUSE_WAIT, LONG_NS), 2); /* of who asked for it, and of this thread */
    CHECK_EQ(count_long(f.heap, TRI_PAUSE_HANDSHAKE, LONG_NS), 0);
    fixture_set(f.heap, "mode=stop");
    roots[0] = tri_new(f.thread, &slow_type);
    stand_through(&f, true);
    CHECK_EQ(count_long(f.heap, TRI_PAUSE_WAIT, LONG_NS), 3);
    CHECK_EQ(count_long(f.heap, TRI_PAUSE_HANDSHAKE, LONG_NS), 1);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- an object that is freed by hand ----------------------------------------------------------------------------- */

struct weak_holder {
    void *to;
};
TRI_WEAK_TYPE(weak_holder_type, struct weak_holder, to);

/* How many pauses of that kind it takes to free an object. */
static uint64_t told_by_free(struct fixture *f, void *obj) {
    uint64_t before = count(f->heap, TRI_PAUSE_GATE);
    CHECK_EQ(tri_free(f->thread, obj), TRI_OK);
    return count(f->heap, TRI_PAUSE_GATE) - before;
}

TEST(waits, looks_for_what_names_a_freed_object_are_told) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    CHECK_EQ(told_by_free(&f, tri_new(f.thread, &pair_type)), 0); /* nothing can */
    roots[0] = tri_wmap_new(f.thread, NULL);
    CHECK_EQ(told_by_free(&f, tri_new(f.thread, &pair_type)), 1);
    CHECK_EQ(told_by_free(&f, roots[0]), 1); /* its table, too */
    roots[0] = NULL;
    CHECK_EQ(told_by_free(&f, tri_new(f.thread, &pair_type)), 0);
    roots[0] = tri_new(f.thread, &weak_holder_type);
    roots[1] = tri_new(f.thread, &pair_type);
    tri_store(f.thread, roots[0], &((struct weak_holder *)roots[0])->to, roots[1]);
    void *target = roots[1];
    roots[1] = NULL;
    CHECK_EQ(told_by_free(&f, target), 1);
    CHECK(tri_weak_load(f.thread, &((struct weak_holder *)roots[0])->to) == NULL);
    CHECK_EQ(tri_free(f.thread, (char *)roots[0] + 8), TRI_EINVAL); /* looks at nothing */
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- a deep chain of frames -------------------------------------------------------------------------------------- */

struct call {
    tri_frame frame;
    void *slots[2];
};

static struct call *push_calls(struct fixture *f, size_t n, uint32_t nslots) {
    struct call *calls = calloc(n, sizeof *calls);
    CHECK(calls != NULL);
    for (size_t i = 0; i < n; i++) {
        calls[i].frame = (tri_frame){NULL, nslots, calls[i].slots};
        tri_frame_push(f->thread, &calls[i].frame);
    }
    return calls;
}

static void pop_calls(struct fixture *f, struct call *calls, size_t n) {
    for (size_t i = n; i-- > 0;) tri_frame_pop(f->thread, &calls[i].frame);
    free(calls);
}

/* Once in H1, where they are counted, and once in H3; in the answers, and in slices. */
TEST(waits, a_deep_chain_of_frames_is_counted_as_a_scan) {
    for (uint32_t nslots = 0; nslots <= 2; nslots++) {
        for (int workers = 0; workers < 2; workers++) {
            tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
            config.workers = (uint32_t)workers;
            struct fixture f = fixture_open_config(&config);
            size_t n = nslots ? COPY_FROM_BYTES / 8 / nslots : COPY_FROM_BYTES / 8;
            struct call *calls = push_calls(&f, n, nslots);
            for (size_t more = 2; more > 0; more--) {
                uint64_t before = count(f.heap, TRI_PAUSE_SCAN);
                if (workers)
                    poll_through_a_cycle(&f);
                else
                    fixture_collect(&f);
                CHECK_EQ(count(f.heap, TRI_PAUSE_SCAN), before + more);
                if (more == 2) tri_frame_pop(f.thread, &calls[--n].frame); /* now they are not deep */
            }
            pop_calls(&f, calls, n);
            fixture_close(&f);
        }
    }
}

TEST(waits, who_triggers_a_cycle_follows_no_more_frames_than_it_takes_to_know_that_they_are_deep) {
#if TRI_CHECKS >= 1
    enum { NCALLS = 20000, DEEP = COPY_FROM_BYTES / 8 };
    struct fixture f = fixture_open();
    fixture_collect(&f); /* from the second cycle on a thread may run it */
    for (uint32_t nslots = 0; nslots <= 2; nslots++) {
        struct call *calls = push_calls(&f, NCALLS, nslots);
        struct mutator *m = mutator_of(f.thread);
        size_t expected = nslots ? DEEP / nslots : DEEP, counted = m->frame_bytes;
        (void)tri__units_take_sum();
        CHECK(!tri__cycle_here(m, "trigger"));
        size_t looked = tri__units_take_sum();
        CHECK_MSG(looked == expected, "%zu frames of %u slots looked at, not %zu", looked, nslots, expected);
        CHECK_EQ(m->frame_bytes, counted); /* H1's */
        pop_calls(&f, calls, NCALLS);
    }
    fixture_close(&f);
#endif
}
