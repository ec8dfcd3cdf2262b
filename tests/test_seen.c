/*
 * What a host sees of its heap (gc/stats.c): phases and pauses as events in order, the worst pause of a cycle with its
 * cause, the trace line in its documented format, and statistics that are cheap enough for every frame.
 */
#include "tests/process.h"
#include "tests/seen.h"

/* ---- events ------------------------------------------------------------------------------------------------------ */

static struct told *collect_with(uint32_t flags, uint32_t workers, int ncycles) {
    static struct told told;
    told = (struct told){.mutex = PTHREAD_MUTEX_INITIALIZER};
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | flags);
    config.event = on_event;
    config.user = &told;
    config.workers = workers;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 1);
    grow(&f, &roots[0], 20000);
    for (int i = 0; i < ncycles; i++) fixture_collect(&f);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
    return &told;
}

static void check_phases(uint32_t workers) {
    static const char *const order[] = {"arm",   "settle", "scan",   "mark",  "flush",
                                        "death", "disarm", "retire", "sweep", "idle"};
    const struct told *t = collect_with(TRI_HEAP_EVENTS, workers, 3);
    uint32_t at = 0, npauses[TRI_PAUSE_KINDS] = {0}, ncycles = 0;
    uint64_t time_ns = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const tri_event *e = &t->events[i];
        if (e->kind == TRI_EVENT_PAUSE) {
            CHECK(e->thread_id != 0 && e->pause_kind < TRI_PAUSE_KINDS);
            npauses[e->pause_kind]++;
        }
        ncycles += e->kind == TRI_EVENT_CYCLE_END;
        if (e->kind != TRI_EVENT_PHASE) continue;
        CHECK(e->time_ns >= time_ns);
        time_ns = e->time_ns;
        if (strcmp(e->phase, "mark") == 0 && at == 5) at = 3; /* a round that failed */
        CHECK_MSG(strcmp(e->phase, order[at]) == 0, "%s where %s is due", e->phase, order[at]);
        at = (at + 1) % 10;
    }
    CHECK_EQ(ncycles, 3);
    CHECK_EQ(at, 0);
    CHECK_EQ(npauses[TRI_PAUSE_WAIT], 3 + 1);           /* tri_collect, and tri_verify at the end */
    CHECK_EQ(npauses[TRI_PAUSE_SCAN], workers ? 0 : 3); /* who waits is answered for, by itself in a slice */
}

TEST(seen, phases_and_pauses_are_events_in_order) {
    check_phases(1);
    check_phases(0);
}

TEST(seen, without_the_flag_only_cycles_are_told) {
    const struct told *t = collect_with(0, 1, 4);
    CHECK_EQ(t->n, 4);
    for (uint32_t i = 0; i < t->n; i++) CHECK_EQ(t->events[i].kind, TRI_EVENT_CYCLE_END);
}

TEST(seen, the_worst_pause_of_a_cycle_has_its_cause) {
    struct fixture f = fixture_open();
    uint32_t kind = 99;
    int rank = 99;
    (void)tri__stats_take_worst(f.heap, &kind, &rank);
    tri__stats_pause(f.heap, TRI_PAUSE_SCAN, 1000);
    tri__stats_pause(f.heap, TRI_PAUSE_SWEEP, 7000);
    tri__stats_pause(f.heap, TRI_PAUSE_HANDSHAKE, 3000);
    tri__stats_pause(f.heap, TRI_PAUSE_WAIT, 1000000); /* the host asked for it */
    CHECK_EQ(tri__stats_take_worst(f.heap, &kind, &rank), 7000);
    CHECK_EQ(kind, TRI_PAUSE_SWEEP);
    CHECK_EQ(rank, 0);
    tri__stats_pause_lock(f.heap, mutator_of(f.thread), RANK_FIXALLOC, 9000); /* the highest rank */
    tri__stats_pause(f.heap, TRI_PAUSE_SCAN, 8000);
    CHECK_EQ(tri__stats_take_worst(f.heap, &kind, &rank), 9000);
    CHECK_EQ(kind, TRI_PAUSE_LOCK);
    CHECK_EQ(rank, RANK_FIXALLOC);
    CHECK_EQ(tri__stats_take_worst(f.heap, &kind, &rank), 0);
    fixture_close(&f);
}

/* ---- the cause of the worst ------------------------------------------------------------------------------------- */

enum { SCAN_MS = 5 };

/* A thread whose roots take so long to read, as a deep stack's do. */
struct deep {
    struct mutator *m;
    bool until_waited_for;
    uint32_t scanning; /* [atomic] */
};

static void scan_deeply(tri_visitor *visitor, void *arg) {
    struct deep *d = arg;
    (void)visitor;
    atomic_store_release(&d->scanning, 1);
    while (d->until_waited_for && atomic_load_acquire(&d->m->os->state) != OS_HELD_WAITED) sched_yield();
    fixture_sleep_ms(SCAN_MS);
}

static struct told *open_deep(struct fixture *f, struct deep *d) {
    static struct told told;
    told = (struct told){.mutex = PTHREAD_MUTEX_INITIALIZER};
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.event = on_event;
    config.user = &told;
    *f = fixture_open_config(&config);
    *d = (struct deep){.m = mutator_of(f->thread)};
    CHECK(tri_scanner_add(f->thread, scan_deeply, d) != NULL);
    return &told;
}

/* Of the last cycle. On a busy machine an answer may have waited for a core for longer, so several are tried. */
static uint32_t worst_kind(const struct told *t) {
    CHECK(t->n > 0);
    return t->events[t->n - 1].pause_kind;
}

TEST(seen, a_deep_stack_is_the_cause_of_its_answer) {
    struct fixture f;
    struct deep d;
    const struct told *t = open_deep(&f, &d);
    bool told = false;
    for (int i = 0; i < 20 && !told; i++) {
        poll_through_a_cycle(&f);
        told = worst_kind(t) == TRI_PAUSE_SCAN;
        CHECK_EQ(count_long(f.heap, TRI_PAUSE_SCAN, SCAN_MS * 250000), i + 1);
        CHECK(count_long(f.heap, TRI_PAUSE_HANDSHAKE, SCAN_MS * 250000) >= (uint64_t)i + 1); /* has the scan within */
        CHECK(t->events[t->n - 1].worst_pause_ns >= SCAN_MS * 1000000);
    }
    CHECK(told);
    fixture_close(&f);
}

static void *sleep_through(void *arg) {
    struct beside *b = arg;
    atomic_store_release(&b->away, 1);
    while (!atomic_load_acquire(&b->done)) fixture_sleep_ms(1);
    return NULL;
}

TEST(seen, what_the_collector_does_for_a_blocked_thread_keeps_nobody) {
    struct fixture f;
    struct deep d;
    open_deep(&f, &d);
    struct beside b = {f.heap, &d, 0, 0};
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, collect_and_tell, &b), 0);
    tri_blocking(f.thread, sleep_through, &b);
    CHECK_EQ(pthread_join(other, NULL), 0);
    CHECK(d.scanning);
    CHECK_EQ(count_long(f.heap, TRI_PAUSE_SCAN, SCAN_MS * 250000), 0);
    CHECK_EQ(count_long(f.heap, TRI_PAUSE_HANDSHAKE, SCAN_MS * 250000), 0);
    fixture_close(&f);
}

static void *leave_when_held(void *arg) {
    struct beside *b = arg;
    atomic_store_release(&b->away, 1);
    while (!atomic_load_acquire(&b->deep->scanning)) sched_yield();
    return NULL;
}

/* The thread comes out of its region while a collector reads its roots: it waits, in the heap whose collector that is,
 * and not in the one that it was attached to last. */
TEST(seen, the_end_of_a_region_that_a_collector_holds_up_is_a_pause_of_its_heap) {
    struct fixture f, last = fixture_open();
    CHECK_EQ(tri_detach(last.thread), TRI_OK);
    struct deep d;
    const struct told *t = open_deep(&f, &d);
    last.thread = fixture_attach(last.heap);
    d.until_waited_for = true;
    bool told = false;
    for (int i = 0; i < 20 && !told; i++) {
        struct beside b = {f.heap, &d, 0, 0};
        pthread_t other;
        atomic_store_release(&d.scanning, 0);
        CHECK_EQ(pthread_create(&other, NULL, collect_and_tell, &b), 0);
        tri_blocking(f.thread, leave_when_held, &b);
        while (!atomic_load_acquire(&b.done)) tri_poll(f.thread);
        CHECK_EQ(pthread_join(other, NULL), 0);
        told = worst_kind(t) == TRI_PAUSE_SCAN;
        CHECK_EQ(count_long(f.heap, TRI_PAUSE_SCAN, SCAN_MS * 250000), i + 1);
        CHECK(count_long(f.heap, TRI_PAUSE_HANDSHAKE, SCAN_MS * 250000) >= (uint64_t)i + 1);
    }
    CHECK(told);
    CHECK_EQ(count(last.heap, TRI_PAUSE_HANDSHAKE), 0);
    d.until_waited_for = false;
    fixture_close(&f);
    fixture_close(&last);
}

/* Memory at its limit: the allocation waits for a cycle, whose line is told before the wait is over. */
TEST(seen, a_wait_at_the_limit_is_the_cause_of_its_cycles_worst) {
    static struct told told;
    told = (struct told){.mutex = PTHREAD_MUTEX_INITIALIZER};
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.event = on_event;
    config.user = &told;
    config.hard_limit_bytes = 8 * MIB;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new_bytes(f.thread, 5 * MIB);
    CHECK(roots[0] != NULL);
    fixture_collect(&f); /* whatever its size has triggered is over */
    uint64_t nwaits = count(f.heap, TRI_PAUSE_WAIT);
    uint32_t nworst = 0, kind = 99;
    int rank;
    for (uint32_t i = 1; i <= 10; i++) {
        CHECK(tri_new_bytes(f.thread, 4 * MIB) == NULL);
        CHECK_EQ(count(f.heap, TRI_PAUSE_LIMIT), 2 * i);
        const tri_event *e = &told.events[told.n - 1];
        CHECK_STR_EQ(e->reason, "limit");
        nworst += e->pause_kind == TRI_PAUSE_LIMIT && e->worst_pause_ns > 0;
    }
    CHECK_MSG(nworst >= 5, "%u of 10", nworst); /* on a busy machine another wait may be longer */
    CHECK_EQ(count(f.heap, TRI_PAUSE_WAIT), nwaits);
    (void)tri__stats_take_worst(f.heap, &kind, &rank);
    CHECK(kind != TRI_PAUSE_LIMIT); /* it was told */
    CHECK(fixture_stats(f.heap).worst_pause_ns > 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* Another thread of the heap, away until the test is over. */
struct away {
    tri_heap *heap;
    tri_thread *thread;
    pthread_barrier_t barrier;
};

static void *two_barriers(void *arg) {
    pthread_barrier_wait(arg);
    pthread_barrier_wait(arg);
    return NULL;
}

static void *be_away(void *arg) {
    struct away *a = arg;
    a->thread = fixture_attach(a->heap);
    tri_blocking(a->thread, two_barriers, &a->barrier);
    CHECK_EQ(tri_detach(a->thread), TRI_OK);
    return NULL;
}

static uint32_t worst_of_line(tri_heap *heap) {
    uint32_t kind;
    int rank;
    return tri__stats_take_worst(heap, &kind, &rank) > 0 ? kind : TRI_PAUSE_KINDS;
}

/* Two threads wait for a cycle: its line tells both, whoever comes first; the next line tells neither unless it still
 * waits then. */
TEST(seen, waits_of_several_threads_at_the_limit_are_in_the_line_of_their_cycle) {
    struct fixture f = fixture_open();
    struct away a = {.heap = f.heap};
    pthread_t other;
    pthread_barrier_init(&a.barrier, NULL, 2);
    CHECK_EQ(pthread_create(&other, NULL, be_away, &a), 0);
    pthread_barrier_wait(&a.barrier);
    struct mutator *both[] = {mutator_of(f.thread), mutator_of(a.thread)};
    for (int first = 0; first < 2; first++) {
        (void)worst_of_line(f.heap);
        tri__stats_limit_begin(both[first]);
        tri__stats_limit_begin(both[1 - first]);
        CHECK_EQ(worst_of_line(f.heap), TRI_PAUSE_LIMIT);
        tri__stats_limit_end(both[first], 1000);
        CHECK_EQ(worst_of_line(f.heap), TRI_PAUSE_LIMIT); /* the other one goes on */
        tri__stats_limit_end(both[1 - first], 2000);
        CHECK_EQ(worst_of_line(f.heap), TRI_PAUSE_KINDS);
        tri__stats_limit_begin(both[first]); /* no cycle ends meanwhile: the next line's */
        tri__stats_limit_end(both[first], 1000);
        CHECK_EQ(worst_of_line(f.heap), TRI_PAUSE_LIMIT);
    }
    CHECK_EQ(count(f.heap, TRI_PAUSE_LIMIT), 6);
    pthread_barrier_wait(&a.barrier);
    fixture_join(f.thread, other);
    pthread_barrier_destroy(&a.barrier);
    fixture_close(&f);
}

struct freer {
    tri_heap *heap;
    struct mutator *m;
    uint32_t attached, frees; /* [atomic] */
};

static void *free_while_marking(void *arg) {
    struct freer *w = arg;
    tri_thread *thread = fixture_attach(w->heap);
    TRI_LOCALS(thread, roots, 1);
    void *obj = roots[0] = tri_new(thread, &pair_type);
    w->m = mutator_of(thread);
    atomic_store_release(&w->attached, 1);
    while (!w->m->armed) tri_poll(thread);
    roots[0] = NULL;
    atomic_store_release(&w->frees, 1);
    CHECK_EQ(tri_free(thread, obj), TRI_OK);
    TRI_POP(thread, roots);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(seen, what_waits_for_a_cycle_without_having_asked_for_it_is_a_pause) {
    struct fixture f = fixture_open();
    struct freer w = {.heap = f.heap};
    pthread_t freer, collector;
    CHECK_EQ(pthread_create(&freer, NULL, free_while_marking, &w), 0);
    while (!atomic_load_acquire(&w.attached)) sched_yield();
    CHECK_EQ(pthread_create(&collector, NULL, collect_beside, f.heap), 0);
    fixture_answer_before(f.heap, f.thread, STEP_SCAN);
    while (!atomic_load_acquire(&w.frees) || atomic_load_acquire(&w.m->os->state) == OS_RUNNING) sched_yield();
    fixture_join(f.thread, freer);
    fixture_join(f.thread, collector);
    CHECK_EQ(count(f.heap, TRI_PAUSE_GATE), 1);
    CHECK(fixture_stats(f.heap).worst_pause_ns > 0);
    fixture_close(&f);
}

/* The collector's thread comes to the sweep, and stays there until this one has swept for itself. */
static uint32_t sweep_begins, sweep_goes_on; /* [atomic] */

static void stay_before_the_sweep(const tri_event *event, void *user) {
    (void)user;
    if (event->kind != TRI_EVENT_PHASE || strcmp(event->phase, "sweep") != 0) return;
    atomic_store_release(&sweep_begins, 1);
    while (!atomic_load_acquire(&sweep_goes_on)) sched_yield();
}

TEST(seen, sweeping_for_a_free_slot_is_a_pause) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | TRI_HEAP_EVENTS);
    config.event = stay_before_the_sweep;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 2);
    grow(&f, &roots[0], 200000); /* spans without a free slot: each refill sweeps several */
    CHECK_EQ(count(f.heap, TRI_PAUSE_SWEEP), 0);
    pthread_t collector;
    CHECK_EQ(pthread_create(&collector, NULL, collect_beside, f.heap), 0);
    while (!atomic_load_acquire(&sweep_begins)) tri_poll(f.thread);
    grow(&f, &roots[1], 100000);
    CHECK(count(f.heap, TRI_PAUSE_SWEEP) > 0);
    atomic_store_release(&sweep_goes_on, 1);
    fixture_join(f.thread, collector);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- the trace line ---------------------------------------------------------------------------------------------- */

static void traced(const void *arg) {
    (void)arg;
    setenv("TRI_TRACE", "1", 1);
    struct fixture f = fixture_open();
    fixture_collect(&f);
    fixture_collect(&f);
}

TEST(seen, the_trace_is_one_line_a_cycle_in_the_documented_format) {
    static char text[4096];
    CHECK_EQ(process_in_child(traced, NULL, text, sizeof text), 0);
    const char *line = text;
    for (unsigned n = 1; n <= 2; n++) {
        unsigned number, rounds, threads;
        char reason[16], cause[16];
        double at, before, after, goal, cycle, mark, assists, worst;
        int fields = sscanf(line,
                            "trigc %u @%lfs %15[a-z]: %lf->%lf MB, goal %lf MB; cycle %lf ms, mark %lf ms, assists %lf "
                            "ms, worst wait %lf us (%15[a-z]), %u rounds, %u threads",
                            &number, &at, reason, &before, &after, &goal, &cycle, &mark, &assists, &worst, cause,
                            &rounds, &threads);
        CHECK_MSG(fields == 13, "%d fields of: %s", fields, line);
        CHECK(number == n && strcmp(reason, "forced") == 0 && threads == 1 && rounds >= 1);
        line = strchr(line, '\n');
        CHECK(line != NULL);
        line++;
    }
    CHECK_STR_EQ(line, "");
}

static void traced_reasons(const void *arg) {
    (void)arg;
    setenv("TRI_TRACE", "1", 1);
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.hard_limit_bytes = 8 * MIB;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new_bytes(f.thread, 5 * MIB);
    CHECK(tri_new_bytes(f.thread, 4 * MIB) == NULL);
    fixture_collect(&f);
    roots[0] = NULL;
    uint64_t before = fixture_stats(f.heap).cycles;
    while (fixture_stats(f.heap).cycles < before + 2) CHECK(tri_new(f.thread, &pair_type) != NULL);
}

TEST(seen, the_trace_says_what_began_each_cycle) {
    static char text[1 << 16];
    CHECK_EQ(process_in_child(traced_reasons, NULL, text, sizeof text), 0);
    CHECK_MSG(strstr(text, "s limit: ") && strstr(text, "s forced: ") && strstr(text, "s trigger: "), "%s", text);
    CHECK_MSG(strstr(text, " us (limit)"), "%s", text);
    CHECK(!strstr(text, "workers marked"));
}

static void traced_workers(const void *arg) {
    (void)arg;
    setenv("TRI_TRACE", "1", 1);
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.workers = 4;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 64);
    for (int i = 0; i < 64; i++) grow(&f, &roots[i], 5000); /* several lists: enough for each */
    uint64_t ns = 0; /* what a line tells, as 0.00 ms if that is all that the workers got */
    for (int i = 0; i < 100 && ns < 10000; i++) {
        ns = f.heap->workers.traced_ns;
        fixture_collect(&f);
        ns = f.heap->workers.traced_ns - ns;
    }
}

TEST(seen, the_trace_says_how_many_workers_marked_and_for_how_long) {
    static char text[1 << 16];
    CHECK_EQ(process_in_child(traced_workers, NULL, text, sizeof text), 0);
    double most_ms = 0;
    for (const char *at = text; (at = strstr(at, " threads, ")) != NULL; at++) {
        unsigned n = 0;
        double ms = 0;
        int fields = sscanf(at, " threads, %u workers marked for %lf ms beside it", &n, &ms);
        if (fields == 0) continue; /* a lock's rank */
        CHECK_MSG(fields == 2 && n >= 1 && n <= 3, "%s", text);
        if (ms > most_ms) most_ms = ms;
    }
    CHECK_MSG(most_ms > 0, "%s", text);
}

static void note_call(void *arg) {
    const char *call = mutator_of(arg)->os->site_call;
    CHECK_MSG(strcmp(call, "tri_cleanup_run") == 0, "%s", call);
}

TEST(seen, a_cleanup_has_its_call_site) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_cleanup_add(f.thread, tri_new(f.thread, &leaf_type), note_call, f.thread), TRI_OK);
    fixture_collect(&f);
    CHECK_EQ(tri_cleanup_run(f.thread, 1), 1);
    fixture_close(&f);
}

/* A frame has some 16 ms: a thousandth of that is cheap. On a busy machine the least of many counts. */
TEST(seen, statistics_are_cheap_enough_for_each_frame) {
    struct fixture f = fixture_open();
    uint64_t least_ns = UINT64_MAX;
    for (int i = 0; i < 1000; i++) {
        uint64_t start = tri__os_now_ns();
        fixture_stats(f.heap);
        uint64_t ns = tri__os_now_ns() - start;
        least_ns = ns < least_ns ? ns : least_ns;
    }
    CHECK_MSG(least_ns < 16000 || TEST_IS_SLOW, "%llu ns", (unsigned long long)least_ns);
    fixture_close(&f);
}
