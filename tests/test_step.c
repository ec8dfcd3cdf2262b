/*
 * Heaps without workers (gc/step.c): no thread is started, whatever the heap has to do; allocation alone keeps it near
 * its goal, or tri_step does with budgets that it keeps; who needs a cycle or the world runs it; several threads share
 * the turn; threads that answer late are not waited for. Objects carry a sum, so that one freed too early shows.
 */
#include "tests/fixture.h"
#include "tests/sealed.h"
#include "tests/seen.h"

#include <dirent.h>

static struct fixture open_stepped(uint32_t flags) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | flags);
    config.workers = 0;
    config.min_heap_bytes = MIB;
    return fixture_open_config(&config);
}

/* A ring of lists, one replaced at each step. */
enum { NLISTS = 64, LIST_LENGTH = 500, LIST_BYTES = LIST_LENGTH * sizeof(struct sealed) };

static void replace(tri_thread *thread, void **lists, uint64_t i) {
    uint64_t at = i % NLISTS;
    if (lists[at]) CHECK_EQ(check_list(lists[at]), LIST_LENGTH);
    lists[at] = NULL;
    for (uint64_t k = 0; k < LIST_LENGTH; k++) lists[at] = new_sealed(thread, lists[at], i * LIST_LENGTH + k);
}

static size_t nthreads_of_process(void) {
    size_t n = 0;
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir != NULL);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

TEST(step, no_thread_is_started) {
    size_t before = nthreads_of_process(), nmanual = 0;
    struct fixture f = open_stepped(0);
    TRI_LOCALS(f.thread, lists, NLISTS);
    for (uint64_t i = 0; i < 4 * NLISTS; i++) {
        replace(f.thread, lists, i);
        tri_step(f.thread, 100000);
        void *block = tri_manual_alloc(f.heap, 1000);
        nmanual += block != NULL;
        tri_manual_free(f.heap, block);
    }
    fixture_collect(&f);
    CHECK(tri_walk(f.thread, NULL, NULL) >= (size_t)NLISTS * LIST_LENGTH);
    tri_trim(f.heap);
    CHECK(fixture_stats(f.heap).cycles > 2 && nmanual > 0);
    CHECK_EQ(nthreads_of_process(), before);
    TRI_POP(f.thread, lists);
    fixture_close(&f);
    CHECK_EQ(nthreads_of_process(), before);
}

static double goal_share(tri_heap *heap) {
    return (double)atomic_load_relaxed(&heap->heap_bytes) / (double)atomic_load_relaxed(&heap->goal_bytes);
}

TEST(step, allocation_alone_keeps_the_heap_near_its_goal) {
    struct fixture f = open_stepped(0);
    TRI_LOCALS(f.thread, lists, NLISTS);
    for (uint64_t i = 0; i < NLISTS; i++) replace(f.thread, lists, i);
    fixture_collect(&f);
    double worst = 0;
    uint64_t before = fixture_stats(f.heap).cycles;
    for (uint64_t i = NLISTS; i < (TEST_IS_SLOW ? 20u : 60u) * NLISTS; i++) {
        replace(f.thread, lists, i);
        worst = goal_share(f.heap) > worst ? goal_share(f.heap) : worst;
    }
    uint64_t cycles = fixture_stats(f.heap).cycles - before;
    CHECK_MSG(cycles >= (TEST_IS_SLOW ? 3 : 10), "%llu cycles", (unsigned long long)cycles);
    /* Measured 1.00 to 1.05, also beside three busy processes on its core; 1.04 to 1.25 while little that was left to
     * mark kept a cycle open until the hard goal. */
    CHECK_MSG(worst < 1.15 || TEST_IS_SLOW, "%.2f times the goal", worst);
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    for (int i = 0; i < NLISTS; i++) CHECK_EQ(check_list(lists[i]), LIST_LENGTH);
    TRI_POP(f.thread, lists);
    fixture_close(&f);
}

/* What a frame leaves to the collector, by its work and not by the time: a step that loses its core comes back
 * early. */
static bool step_for(tri_thread *thread, size_t nunits) {
    bool more = true;
    tri__units_take_sum();
    for (size_t n = 0; more && n < nunits; n += tri__units_take_sum()) more = tri_step(thread, 100000);
    return more;
}

/* A frame loop: a little allocation, then a step with what is left of the frame. No allocation has to help. */
TEST(step, steps_that_keep_up_spare_the_allocations) {
    enum { FRAMES = TEST_IS_SLOW ? 300 : 1500, FRAME_UNITS = 10000 };
    struct fixture f = open_stepped(0);
    TRI_LOCALS(f.thread, lists, NLISTS);
    TRI_LOCALS(f.thread, ballast, 1);
    for (uint64_t i = 0; i < 100000; i++) ballast[0] = new_sealed(f.thread, ballast[0], i);
    for (uint64_t i = 0; i < NLISTS; i++) replace(f.thread, lists, i);
    fixture_collect(&f);
    while (tri_step(f.thread, 1000000)) {}
    CHECK(count(f.heap, TRI_PAUSE_ASSIST) > 0); /* before there were steps, the allocations had to */
    uint64_t slices = count(f.heap, TRI_PAUSE_ASSIST), cycles = fixture_stats(f.heap).cycles, nbusy = 0;
    for (uint64_t i = 0; i < FRAMES; i++) {
        replace(f.thread, lists, i);
        nbusy += step_for(f.thread, FRAME_UNITS);
    }
    cycles = fixture_stats(f.heap).cycles - cycles;
    CHECK_MSG(cycles >= (TEST_IS_SLOW ? 1 : 3) && nbusy > 2 * cycles, "%llu cycles, %llu frames had more to do",
              (unsigned long long)cycles, (unsigned long long)nbusy);
    CHECK_MSG(count(f.heap, TRI_PAUSE_ASSIST) == slices, "%llu slices in allocations",
              (unsigned long long)(count(f.heap, TRI_PAUSE_ASSIST) - slices));
    CHECK_EQ(check_list(ballast[0]), 100000);
    TRI_POP(f.thread, ballast);
    TRI_POP(f.thread, lists);
    fixture_close(&f);
}

/* ---- between two looks at the clock ------------------------------------------------------------------------------ */

struct watcher {
    void *weak;
};
TRI_WEAK_TYPE(watcher_type, struct watcher, weak);
TRI_POINTER_ARRAY_TYPE(wide_type, 0);
static tri_type weak_array_type = {.struct_size = sizeof weak_array_type,
                                   .name = "weak array",
                                   .elem_size = 8,
                                   .elem_weaks = {.bitmap = (const uint64_t[]){1}, .nbits = 1}};

static void no_cleanup(void *arg) {
    (void)arg;
}

/* What is watched is in the first half, and no root outside the heap names it. */
enum { NWIDE = 60000, NWATCHED = 4000, FIRST_WATCHED = 5, NSUSPENDED = 40, SUSPENDED_WORDS = 3000, NGLOBALS = 20000 };
_Static_assert(FIRST_WATCHED *NWATCHED >= NGLOBALS && (FIRST_WATCHED + 2) * NWATCHED <= NWIDE / 2, "see above");

/* One of each of what cycles look at, and each too much for one look; roots[0] holds all of it. */
static void build_everything(struct fixture *f, void **roots) {
    tri_thread *t = f->thread;
    roots[0] = tri_new_n(t, &wide_type, NWIDE);
    roots[1] = tri_new_n(t, &weak_array_type, NWIDE);
    roots[2] = tri_wmap_new(t, NULL);
    tri_finq *queue = tri_finq_new(t);
    CHECK(roots[0] && roots[1] && roots[2] && queue);
    for (uint32_t i = 0; i < NWIDE; i++) {
        void *obj = new_sealed(t, NULL, i);
        tri_store(t, roots[0], (void **)roots[0] + i, obj);
        if (i % 2) tri_store(t, roots[1], (void **)roots[1] + i, obj);
        uint32_t n = i / NWATCHED;
        if (n == FIRST_WATCHED) CHECK_EQ(tri_finq_watch(t, queue, obj), TRI_OK);
        if (n == FIRST_WATCHED + 1) CHECK_EQ(tri_cleanup_add(t, obj, no_cleanup, NULL), TRI_OK);
        if (n == FIRST_WATCHED + 1) CHECK_EQ(tri_wmap_put(t, roots[2], obj, (tri_word)(uintptr_t)obj), TRI_OK);
        if (i % 8) continue;
        roots[3] = obj;
        struct watcher *w = tri_new(t, &watcher_type);
        CHECK(w != NULL);
        tri_init(t, w, &w->weak, roots[3]);
        tri_store(t, roots[0], (void **)roots[0] + i, w);
    }
    roots[3] = NULL;
}

/* Roots outside the heap. */
struct outside {
    tri_word words[NSUSPENDED][SUSPENDED_WORDS], *tops[NSUSPENDED], globals[NGLOBALS];
    tri_vmstack *stacks[NSUSPENDED];
    tri_root *range;
};

static void add_outside(tri_thread *t, struct outside *o, void **all) {
    o->range = tri_root_add(t, o->globals, NGLOBALS, NULL);
    for (size_t i = 0; i < NGLOBALS; i++) tri_root_store(t, o->range, &o->globals[i], all[i]);
    for (size_t i = 0; i < NSUSPENDED; i++) {
        o->tops[i] = o->words[i] + SUSPENDED_WORDS;
        for (size_t k = 0; k < SUSPENDED_WORDS; k++) o->words[i][k] = (tri_word)(uintptr_t)all[(i * 97 + k) % NWIDE];
        o->stacks[i] = tri_vmstack_add(t, o->words[i], &o->tops[i], NULL);
        CHECK(o->stacks[i] && tri_vmstack_suspend(t, o->stacks[i]) == TRI_OK);
    }
}

static void remove_outside(tri_thread *t, struct outside *o) {
    for (size_t i = 0; i < NSUSPENDED; i++) {
        CHECK_EQ(tri_vmstack_resume(t, o->stacks[i]), TRI_OK);
        tri_vmstack_remove(t, o->stacks[i]);
    }
    tri_root_remove(t, o->range);
}

TEST(step, between_two_looks_at_the_clock_little_is_done) {
    static struct outside outside;
    struct fixture f = open_stepped(TRI_HEAP_NO_CYCLES);
    TRI_LOCALS(f.thread, roots, 4);
    build_everything(&f, roots);
    add_outside(f.thread, &outside, roots[0]);
    uint32_t phases = 0;
    for (uint32_t p = 0; p < NUM_PHASES; p++) tri__units_take_most(p);
    for (int cycle = 0; cycle < 4; cycle++) {
        if (cycle == 2) tri_clear(f.thread, roots[0], roots[0], NWIDE / 2); /* much dies, of each kind */
        tri__cycle_request(f.heap, cycle == 3 ? "idle" : "trigger");
        while (tri_step(f.thread, 1)) phases |= 1u << heap_phase(f.heap);
        tri_cleanup_run(f.thread, NWATCHED);
    }
    for (uint32_t p = 0; p < NUM_PHASES; p++) {
        size_t most = tri__units_take_most(p);
        CHECK_MSG(most <= UNITS_A_LOOK, "%zu units in phase %u", most, p);
    }
    uint32_t seen = 1u << PHASE_SCAN | 1u << PHASE_MARK | 1u << PHASE_DEATH | 1u << PHASE_SWEEP;
    CHECK_MSG((phases & seen) == seen, "left in phases 0x%x", phases);
    tri_stats stats = fixture_stats(f.heap);
    CHECK_EQ(stats.cleanups_run, NWATCHED); /* all that is watched has died */
    CHECK_EQ(atomic_load_acquire(&f.heap->death.watches.queues->ndelivered), NWATCHED);
    CHECK_EQ(tri_wmap_count(f.thread, roots[2]), 0);
    CHECK(stats.weak_cleared > 0);
    remove_outside(f.thread, &outside);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* In whatever phase the cycle was left: who wants another, a walk, a verification, or to free by hand gets it. */
TEST(step, whoever_needs_the_cycle_runs_it) {
    enum { NLIVE = 2000 };
    struct fixture f = open_stepped(TRI_HEAP_NO_CYCLES);
    TRI_LOCALS(f.thread, roots, 2);
    for (uint64_t i = 0; i < NLIVE; i++) roots[0] = new_sealed(f.thread, roots[0], i);
    uint32_t phases = 0;
    for (int i = 0; i < 400; i++) {
        tri__cycle_request(f.heap, "test");
        for (int k = i % 37; k >= 0; k--) tri_step(f.thread, 5000);
        phases |= 1u << heap_phase(f.heap);
        roots[1] = new_sealed(f.thread, NULL, 1);
        switch (i % 4) {
        case 0: CHECK_EQ(tri_free(f.thread, roots[1]), TRI_OK); break;
        case 1: CHECK_EQ(tri_walk(f.thread, NULL, NULL) >= NLIVE, true); break;
        case 2: CHECK_EQ(tri_verify(f.thread), 0); break;
        default: {
            uintptr_t hidden = hide(roots[1]);
            roots[1] = NULL;
            fixture_collect(&f);
            CHECK(!is_alive(f.heap, hidden));
        }
        }
        roots[1] = NULL;
    }
    CHECK_MSG(phases & 1u << PHASE_MARK && (phases & (phases - 1)) != 0, "phases 0x%x", phases);
    CHECK_EQ(check_list(roots[0]), NLIVE);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

struct sharer {
    tri_heap *heap;
    uint32_t collects;
    uint64_t nsteps;
};

static void *share_main(void *arg) {
    struct sharer *s = arg;
    tri_thread *thread = fixture_attach(s->heap);
    TRI_LOCALS(thread, lists, NLISTS);
    for (uint64_t i = 0; i < s->nsteps; i++) {
        replace(thread, lists, i);
        if (i % 8 == 3) tri_step(thread, 20000);
        if (s->collects && i % 64 == 17) CHECK_EQ(tri_collect(thread), TRI_OK);
        if (i % 100 == 50) { /* it comes and goes in every phase */
            for (int k = 0; k < NLISTS; k++) lists[k] = NULL;
            TRI_POP(thread, lists);
            CHECK_EQ(tri_detach(thread), TRI_OK);
            thread = fixture_attach(s->heap);
            tri_frame_push(thread, &lists_frame);
        }
    }
    for (int i = 0; i < NLISTS; i++) CHECK(!lists[i] || check_list(lists[i]) == LIST_LENGTH);
    TRI_POP(thread, lists);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

static void share(const char *setting) {
    enum { SHARERS = 3 };
    struct fixture f = open_stepped(0);
    if (setting) fixture_set(f.heap, setting);
    pthread_t threads[SHARERS];
    struct sharer sharers[SHARERS];
    for (uint32_t i = 0; i < SHARERS; i++) {
        sharers[i] = (struct sharer){f.heap, i, TEST_IS_SLOW || setting ? 150 : 600};
        CHECK_EQ(pthread_create(&threads[i], NULL, share_main, &sharers[i]), 0);
    }
    for (int i = 0; i < SHARERS; i++) fixture_join(f.thread, threads[i]);
    CHECK(fixture_stats(f.heap).cycles > 5);
    if (setting) fixture_set(f.heap, "stress.delay=0");
    fixture_close(&f);
}

TEST(step, threads_share_the_turn) {
    share(NULL);
}

TEST(step, threads_share_the_turn_under_every_check) {
    share("checkmark=1");
    share("stress.delay=5");
}

struct silent {
    tri_heap *heap;
    uint32_t attached, stop, ntold;
};

static void *silent_main(void *arg) {
    struct silent *s = arg;
    tri_thread *thread = fixture_attach(s->heap);
    atomic_store_release(&s->attached, 1);
    while (!atomic_load_acquire(&s->stop)) sched_yield();
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

static void on_silence(const tri_event *event, void *user) {
    struct silent *s = user;
    if (event->kind == TRI_EVENT_SILENT_THREAD) atomic_add_relaxed(&s->ntold, 1);
}

TEST(step, a_step_does_not_wait_for_a_silent_thread) {
    struct silent s = {0};
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.workers = 0;
    config.silent_after_ms = 20;
    config.event = on_silence;
    config.user = &s;
    struct fixture f = fixture_open_config(&config);
    pthread_t other;
    s.heap = f.heap;
    CHECK_EQ(pthread_create(&other, NULL, silent_main, &s), 0);
    while (!atomic_load_acquire(&s.attached)) sched_yield();
    tri__cycle_request(f.heap, "test");
    uint64_t cpu_ns = tri__os_thread_cpu_ns(), nsteps = 0;
    for (; nsteps < 10; nsteps++) {
        CHECK(tri_step(f.thread, 1000000000)); /* a second, and nothing to do but to wait */
        fixture_sleep_ms(5);
    }
    cpu_ns = tri__os_thread_cpu_ns() - cpu_ns;
    CHECK_MSG(cpu_ns < 10 * 2000000, "%llu ns", (unsigned long long)cpu_ns);
    CHECK(atomic_load_relaxed(&s.ntold) > 0);
    CHECK_EQ(heap_phase(f.heap), PHASE_ARM);
    atomic_store_release(&s.stop, 1);
    fixture_join(f.thread, other);
    while (tri_step(f.thread, 1000000)) {}
    CHECK_EQ(fixture_stats(f.heap).cycles, 1);
    fixture_close(&f);
}

TEST(step, an_idle_heap_is_collected_and_trimmed_by_steps) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.workers = 0;
    config.idle_trim_ms = 100;
    size_t nthreads = nthreads_of_process();
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 1);
    for (uint64_t i = 0; i < 400000; i++) roots[0] = new_sealed(f.thread, roots[0], i);
    roots[0] = NULL;
    size_t most = fixture_stats(f.heap).committed_bytes + fixture_stats(f.heap).free_bytes, left = most;
    CHECK(most > 8 * MIB);
    for (int i = 0; i < 2000 && left > most / 8; i++) {
        while (tri_step(f.thread, 1000000)) {}
        fixture_sleep_ms(1);
        left = fixture_stats(f.heap).committed_bytes + fixture_stats(f.heap).free_bytes;
    }
    CHECK_MSG(left <= most / 8, "%zu of %zu bytes are left", left, most);
    CHECK_EQ(nthreads_of_process(), nthreads); /* I-STEP3: the scavenger's work, and the idle heap's, too */
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* In an idle period whose cycle had to wait the host collects: that cycle was the period's, too. */
TEST(step, a_cycle_in_an_idle_period_is_the_one_that_the_period_owes) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.workers = 0;
    config.idle_trim_ms = 1000000000;
    struct fixture f = fixture_open_config(&config);
    struct scavenger *s = &f.heap->scavenger;
    while (tri_step(f.thread, 1000000)) {}
    s->idle = s->idle_owes = true; /* as begin_idle leaves it */
    s->active = false;
    fixture_collect(&f);
    while (tri_step(f.thread, 1000000)) {}
    CHECK(s->cycles_seen == 1 && s->idle && !s->idle_owes);
    CHECK_EQ(fixture_stats(f.heap).cycles, 1);
    fixture_close(&f);
}

/* Beyond the hard goal by what others allocated, while another thread has the turn: whoever owes nothing itself naps;
 * with the turn free it takes a slice. */
TEST(step, beyond_the_hard_goal_a_thread_without_the_turn_naps) {
    struct fixture f = open_stepped(TRI_HEAP_NO_CYCLES);
    struct mutator *m = mutator_of(f.thread);
    TRI_LOCALS(f.thread, roots, 1);
    for (uint64_t i = 0; i < 200000; i++) roots[0] = new_sealed(f.thread, roots[0], i);
    tri__cycle_request(f.heap, "test");
    while (!f.heap->tracing) CHECK(tri_step(f.thread, 20000));
    size_t beyond = atomic_load_relaxed(&f.heap->hard_goal_bytes) + MIB;
    uint64_t before = count(f.heap, TRI_PAUSE_NAP);
    m->assist_debt = 0;
    atomic_add_relaxed(&f.heap->heap_bytes, beyond);
    atomic_store_relaxed(&f.heap->turn_taken, true); /* as another thread does */
    CHECK(tri__step_pace(m));
    CHECK_EQ(count(f.heap, TRI_PAUSE_NAP), before + 1);
    atomic_store_relaxed(&f.heap->turn_taken, false);
    tri__step_pace(m);
    CHECK_EQ(count(f.heap, TRI_PAUSE_NAP), before + 1);
    atomic_sub_relaxed(&f.heap->heap_bytes, beyond);
    fixture_collect(&f);
    CHECK_EQ(check_list(roots[0]), 200000);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* The heap ends with a cycle that nobody ended. */
TEST(step, a_heap_may_end_in_the_middle_of_a_cycle) {
    for (int i = 0; i < 40; i++) {
        struct fixture f = open_stepped(TRI_HEAP_NO_CYCLES);
        TRI_LOCALS(f.thread, roots, 1);
        for (uint64_t k = 0; k < 5000; k++) roots[0] = new_sealed(f.thread, roots[0], k);
        tri__cycle_request(f.heap, "test");
        for (int k = 0; k < i; k++) tri_step(f.thread, 1000);
        TRI_POP(f.thread, roots);
        CHECK_EQ(tri_detach(f.thread), TRI_OK);
        CHECK_EQ(tri_heap_destroy(f.heap), TRI_OK);
    }
}

TEST(step, the_number_of_workers_is_an_option_that_keeps_zero_apart) {
    tri_config config;
    tri_config_init(&config);
    CHECK(config.workers >= 1);
    config.workers = 100000;
    tri_heap *heap;
    CHECK_EQ(tri_heap_create(&config, &heap), TRI_EINVAL);
    struct fixture f = open_stepped(0), g = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "workers=0"), TRI_OK);
    CHECK_EQ(tri_heap_set(f.heap, "workers=1"), TRI_ESTATE);
    CHECK_EQ(tri_heap_set(g.heap, "workers=1"), TRI_OK);
    CHECK_EQ(tri_heap_set(g.heap, "workers=0"), TRI_ESTATE);
    CHECK_EQ(tri_heap_set(g.heap, "workers=100000"), TRI_EINVAL);
    CHECK(!tri_step(g.thread, 1000000)); /* a safepoint */
    CHECK(!tri_step(NULL, 1000) && strstr(tri_last_error(), "tri_step") != NULL);
    fixture_take_reports();
    fixture_close(&g);
    fixture_close(&f);
}
