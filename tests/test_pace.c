/*
 * The heap's pace: what of the pacer's figures reaches allocating threads, bytes outside the heap, options that change
 * while cycles run, and limits close to what lives.
 */
#include "tests/fixture.h"

/* ---- Bytes outside ---- */

TEST(pace, external_bytes_bring_cycles_nearer_but_do_not_stack_them) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    tri_external(f.thread, (ptrdiff_t)200 * MIB);
    for (size_t i = 0; i < 40 * MIB / 64; i++) CHECK(tri_new_bytes(f.thread, 64) != NULL);
    tri_stats s = fixture_stats(f.heap);
    CHECK_MSG(s.cycles <= 5, "%llu cycles for 40 MiB beside 200 MiB outside", (unsigned long long)s.cycles);
    tri_external(f.thread, -(ptrdiff_t)200 * MIB);
    fixture_collect(&f);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    CHECK_EQ(fixture_stats(f.heap).goal_bytes, 4 * MIB);
    fixture_close(&f);
}

/* A thread that allocates nothing, and only tells of bytes outside, starts cycles all the same. */
TEST(pace, external_bytes_alone_start_cycles, .timeout = 60) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    for (int i = 0; i < 64; i++) {
        tri_external(f.thread, MIB);
        tri_poll(f.thread);
    }
    for (int i = 0; i < 5000 && fixture_stats(f.heap).cycles == 0; i++) {
        tri_poll(f.thread);
        fixture_sleep_ms(1);
    }
    CHECK(fixture_stats(f.heap).cycles > 0);
    tri_external(f.thread, -(ptrdiff_t)64 * MIB);
    fixture_close(&f);
}

static void give_back_a_megabyte(void *arg) {
    tri_external(arg, -(ptrdiff_t)MIB);
}

/* So many objects that die at once, each with a buffer of a megabyte behind it. */
static void add_buffers(struct fixture *f, int n) {
    for (int i = 0; i < n; i++) {
        void *obj = tri_new(f->thread, &leaf_type);
        CHECK_EQ(tri_cleanup_add(f->thread, obj, give_back_a_megabyte, f->thread), TRI_OK);
        tri_external(f->thread, MIB);
        tri_poll(f->thread);
    }
}

/* Until the goal of the cycle after `seen` ones is set. */
static tri_stats await_cycle(struct fixture *f, uint64_t seen) {
    tri_stats s;
    for (;;) {
        tri_poll(f->thread);
        s = fixture_stats(f->heap);
        if (s.cycles > seen) return s;
        fixture_sleep_ms(1);
    }
}

/* Cleanups run after a cycle's end, when its goal is set: what they take back was garbage, and must not make the goals
 * grow from cycle to cycle. Each cycle here is waited for, and meets as many buffers as bring it on and a few more. */
TEST(pace, bytes_that_wait_for_cleanups_do_not_raise_the_goal, .timeout = 60) {
    enum { NCYCLES = 40, DURING = 4 };
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    fixture_set(f.heap, "idle_trim_ms=0");
    for (int i = 0; i < NCYCLES; i++) {
        tri_stats s = fixture_stats(f.heap);
        uint64_t seen = s.cycles;
        for (; s.cycles == seen && s.external_bytes < s.trigger_bytes; s = fixture_stats(f.heap)) add_buffers(&f, 1);
        add_buffers(&f, DURING);
        await_cycle(&f, seen);
        tri_cleanup_run(f.thread, SIZE_MAX); /* after the cycle's end, not in the middle of it */
        s = fixture_stats(f.heap);
        CHECK_MSG(s.goal_bytes < 64 * (size_t)MIB, "the goal rose to %zu MB in %d cycles", s.goal_bytes / MIB, i + 1);
    }
    fixture_collect(&f);
    tri_cleanup_run(f.thread, SIZE_MAX);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    fixture_close(&f);
}

TEST(pace, taking_back_more_external_bytes_than_there_are_is_reported) {
    struct fixture f = fixture_open();
    tri_external(f.thread, 1000);
    tri_external(f.thread, -1001);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_external"), "%s", fixture_report);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    fixture_close(&f);
}

TEST(pace, the_least_heap_sets_the_first_goal) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    CHECK_EQ(fixture_stats(f.heap).goal_bytes, 4 * MIB);
    CHECK(fixture_stats(f.heap).trigger_bytes >= 2 * MIB);
    for (size_t i = 0; i < 100 * MIB / 256; i++) CHECK(tri_new_bytes(f.thread, 256) != NULL);
    fixture_collect(&f);
    tri_stats s = fixture_stats(f.heap);
    CHECK_MSG(s.cycles >= 20 && s.cycles <= 130, "%llu cycles for 100 MiB of garbage", (unsigned long long)s.cycles);
    CHECK(s.committed_bytes <= 8 * MIB);
    fixture_close(&f);
}

/* ---- Bytes outside pay ---- */

/* A graph that takes some milliseconds to mark. */
static tri_handle build_list(struct fixture *f, size_t nbytes) {
    tri_handle list = tri_global(f->thread, NULL);
    for (size_t i = 0; i < nbytes / 32; i++) {
        struct pair *p = tri_new(f->thread, &pair_type);
        CHECK(p != NULL);
        tri_init(f->thread, p, &p->left, tri_deref(list));
        tri_global_set(f->thread, list, p);
    }
    return list;
}

/* A second thread that allocates nothing, and only tells of bytes outside: it gives time of its own to the cycles that
 * it causes. The first one does nothing but poll. */
struct outside {
    tri_heap *heap;
    uint32_t done;
    bool paid;
};

static void *add_outside(void *arg) {
    struct outside *o = arg;
    tri_thread *thread = fixture_attach(o->heap);
    tri_stats before = fixture_stats(o->heap), s = before;
    for (int i = 0; !o->paid && s.cycles < before.cycles + 100; i++) {
        tri_external(thread, 256 << 10);
        tri_poll(thread);
        if (i % 64 != 63) continue;
        tri_external(thread, -(ptrdiff_t)(64 * (256 << 10))); /* what lives outside stays the same */
        sched_yield();
        s = fixture_stats(o->heap);
        o->paid = s.assist_ns > before.assist_ns;
    }
    CHECK_EQ(s.allocated_bytes, before.allocated_bytes);
    size_t left = fixture_stats(o->heap).external_bytes;
    tri_external(thread, -(ptrdiff_t)left);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    atomic_store_release(&o->done, 1);
    return NULL;
}

TEST(pace, who_only_adds_bytes_outside_helps_to_mark, .timeout = 120) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    tri_handle list = build_list(&f, 16 * MIB);
    fixture_collect(&f);
    struct outside o = {.heap = f.heap};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, add_outside, &o), 0);
    while (!atomic_load_acquire(&o.done)) {
        tri_poll(f.thread);
        sched_yield();
    }
    fixture_join(f.thread, thread);
    CHECK_MSG(o.paid, "%llu cycles, no assist", (unsigned long long)fixture_stats(f.heap).cycles);
    tri_global_free(f.thread, list);
    fixture_close(&f);
}

/* ---- Options while it runs ---- */

TEST(pace, an_option_moves_the_goal_at_once) {
    struct fixture f = fixture_open();
    tri_handle list = build_list(&f, 20 * MIB);
    fixture_collect(&f);
    size_t live = fixture_stats(f.heap).live_bytes;
    static const struct {
        const char *set;
        double goal; /* by what lives; 0: looked at otherwise */
    } steps[] = {{"growth_percent=60", 1.6},     {"growth_percent=200", 3},   {"growth_percent=30", 1.3},
                 {"min_heap_bytes=200M", 0},     {"min_heap_bytes=1M", 1.3},  {"soft_limit_bytes=1M", 1.0625},
                 {"soft_limit_bytes=0", 1.3},    {"hard_limit_bytes=24M", 0}, {"hard_limit_bytes=0", 1.3},
                 {"growth_percent=100000", 1001}};
    for (size_t i = 0; i < TRI_COUNT(steps); i++) {
        fixture_set(f.heap, steps[i].set);
        tri_stats s = fixture_stats(f.heap);
        double goal = (double)s.goal_bytes / (double)live;
        if (steps[i].goal > 0)
            CHECK_MSG(goal > steps[i].goal * 0.99 && goal < steps[i].goal * 1.01, "%s: goal %.3f of what lives",
                      steps[i].set, goal);
        else if (i == 3)
            CHECK_EQ(s.goal_bytes, live + (size_t)200 * MIB);
        else
            CHECK_EQ(s.goal_bytes, max_size(24 * MIB, live + live / 16));
        CHECK(s.trigger_bytes >= live && s.trigger_bytes <= s.goal_bytes && s.goal_bytes <= s.hard_goal_bytes);
    }
    tri_global_free(f.thread, list);
    fixture_close(&f);
}

/* A heap that has more than the new goal allows begins a cycle, and is small again. */
TEST(pace, a_lowered_goal_starts_a_cycle, .timeout = 60) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    fixture_set(f.heap, "min_heap_bytes=1G");
    fixture_set(f.heap, "idle_trim_ms=0"); /* no idle cycle, however slow the machine */
    for (size_t i = 0; i < 64 * MIB / 256; i++) CHECK(tri_new_bytes(f.thread, 256) != NULL);
    CHECK_EQ(fixture_stats(f.heap).cycles, 0);
    fixture_set(f.heap, "min_heap_bytes=1M");
    for (int i = 0; i < 20000 && fixture_stats(f.heap).cycles == 0; i++) {
        CHECK(tri_new_bytes(f.thread, 2000) != NULL);
        if (i % 100 == 0) fixture_sleep_ms(1);
    }
    tri_stats s = fixture_stats(f.heap);
    CHECK(s.cycles > 0);
    CHECK_MSG(s.heap_bytes < 50 * MIB, "%zu bytes", s.heap_bytes);
    fixture_close(&f);
}

TEST(pace, values_out_of_range_are_refused_by_name_and_change_nothing) {
    struct fixture f = fixture_open();
    static const struct {
        const char *set, *says;
    } bad[] = {{"growth_percent=4", "growth_percent: 4 is not in 5..100000"},
               {"growth_percent=100001", "growth_percent"},
               {"growth_percent=-1", "growth_percent: \"-1\" is not a number"},
               {"growth_percent=", "growth_percent: \"\" is not a number"},
               {"growth_percent=60 ", "is not a number"},
               {"growth_percent=99999999999999999999999", "is not in 5..100000"},
               {"cpu_percent=0", "cpu_percent: 0 is not in 1..100"},
               {"cpu_percent=101", "cpu_percent: 101 is not in 1..100"},
               {"cpu_percent=50%", "cpu_percent: \"50%\" is not a number"},
               {"hard_limit_bytes=4K", "hard_limit_bytes: 4096 is not in"},
               {"soft_limit_bytes=many", "soft_limit_bytes: \"many\" is not a number"},
               {"min_heap_bytes=17179869184G", "min_heap_bytes"},
               {"min_heap=4M", "\"min_heap\" is no option"},
               {"=5", "\"\" is no option"},
               {"cpu_percent", "is not key=value"}};
    tri_stats before = fixture_stats(f.heap);
    for (size_t i = 0; i < TRI_COUNT(bad); i++) {
        CHECK_MSG(tri_heap_set(f.heap, bad[i].set) == TRI_EINVAL, "%s was taken", bad[i].set);
        CHECK_MSG(strstr(tri_last_error(), bad[i].says) && strstr(tri_last_error(), "tri_heap_set"),
                  "%s: \"%s\" does not say \"%s\"", bad[i].set, tri_last_error(), bad[i].says);
    }
    tri_stats after = fixture_stats(f.heap);
    CHECK(before.goal_bytes == after.goal_bytes && before.trigger_bytes == after.trigger_bytes);
    CHECK_EQ(f.heap->config.cpu_percent, 100);
    fixture_close(&f);
    tri_heap *heap;
    tri_config config = fixture_config(0);
    for (uint32_t percent = 0; percent <= 101; percent += 101) {
        config.cpu_percent = percent;
        CHECK_EQ(tri_heap_create(&config, &heap), TRI_EINVAL);
        CHECK_MSG(strstr(tri_last_error(), "cpu_percent"), "%s", tri_last_error());
    }
}

/* Threads that allocate, and keep some, while others change every option and what lies outside. */
struct changers {
    tri_heap *heap;
    uint64_t until_cycles, seed;
    bool changes;
};

static void allocate_some(tri_thread *thread, tri_handle keep, uint64_t *seed) {
    for (int i = 0; i < 200; i++) {
        struct pair *p = tri_new(thread, &pair_type);
        CHECK(p != NULL);
        if (fixture_random(seed) % 8 == 0) {
            tri_init(thread, p, &p->left, tri_deref(keep));
            tri_global_set(thread, keep, p);
        }
    }
    if (fixture_random(seed) % 400 == 0) tri_global_set(thread, keep, NULL);
}

static void *change_or_allocate(void *arg) {
    struct changers *c = arg;
    static const char *const good[] = {"growth_percent=5",
                                       "growth_percent=300",
                                       "growth_percent=60",
                                       "min_heap_bytes=64K",
                                       "min_heap_bytes=4M",
                                       "soft_limit_bytes=1M",
                                       "soft_limit_bytes=20M",
                                       "soft_limit_bytes=0",
                                       "hard_limit_bytes=256M",
                                       "hard_limit_bytes=0",
                                       "cpu_percent=1",
                                       "cpu_percent=10",
                                       "cpu_percent=30",
                                       "cpu_percent=100",
                                       "workers=1",
                                       "workers=3",
                                       "idle_trim_ms=50",
                                       "idle_trim_ms=100000"};
    static const char *const bad[] = {"growth_percent=4", "cpu_percent=0", "hard_limit_bytes=1", "workers=0",
                                      "min_heap_bytes=x"};
    tri_thread *thread = fixture_attach(c->heap);
    tri_handle keep = tri_global(thread, NULL);
    ptrdiff_t outside = 0;
    while (fixture_stats(c->heap).cycles < c->until_cycles) {
        uint64_t r = fixture_random(&c->seed);
        if (!c->changes) {
            allocate_some(thread, keep, &c->seed);
            continue;
        }
        fixture_set(c->heap, good[r % TRI_COUNT(good)]);
        if (r >> 32 & 1) CHECK(tri_heap_set(c->heap, bad[(r >> 40) % TRI_COUNT(bad)]) != TRI_OK);
        ptrdiff_t delta = (r >> 48 & 1) && outside > 0 ? -outside : (ptrdiff_t)(r >> 50) * 64;
        tri_external(thread, delta);
        outside += delta;
        tri_stats s = fixture_stats(c->heap);
        CHECK(s.limiter_percent <= 100 && s.widened_percent >= 100 && s.cpu_permille <= 1100);
        tri_poll(thread);
        if (r >> 33 & 1) sched_yield();
    }
    tri_external(thread, -outside);
    tri_global_free(thread, keep);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(pace, every_option_changes_during_cycles, .timeout = 120) {
    enum { THREADS = 5 };
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    if (TRI_CHECKS >= 1) fixture_set(f.heap, "stress.delay=20");
    struct changers c[THREADS];
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        c[i] = (struct changers){f.heap, TEST_IS_SLOW ? 10 : 40, fixture_seed() + i, i < 2};
        CHECK_EQ(pthread_create(&threads[i], NULL, change_or_allocate, &c[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) fixture_join(f.thread, threads[i]);
    static const char *const usual[] = {"growth_percent=60",  "min_heap_bytes=4M", "soft_limit_bytes=0",
                                        "hard_limit_bytes=0", "cpu_percent=100",   "workers=1"};
    for (size_t i = 0; i < TRI_COUNT(usual); i++) fixture_set(f.heap, usual[i]);
    fixture_collect(&f);
    tri_stats s = fixture_stats(f.heap);
    CHECK_EQ(s.external_bytes, 0);
    CHECK_MSG(s.goal_bytes == s.live_bytes + 4 * MIB, "goal %zu, live %zu", s.goal_bytes, s.live_bytes);
    CHECK_EQ(s.widened_percent, 100);
    fixture_close(&f);
}

/* ---- The cap ---- */

/* Allocates garbage until there were so many cycles more. */
static void churn(struct fixture *f, uint64_t ncycles) {
    for (uint64_t until = fixture_stats(f->heap).cycles + ncycles; fixture_stats(f->heap).cycles < until;)
        for (int i = 0; i < 1000; i++) CHECK(tri_new(f->thread, &pair_type) != NULL);
}

TEST(pace, a_cap_gives_the_heap_more_room_and_takes_it_back, .timeout = 120) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    tri_handle list = build_list(&f, TEST_IS_SLOW ? MIB / 2 : 6 * MIB);
    churn(&f, 8);
    tri_stats s = fixture_stats(f.heap);
    CHECK(s.capped_cycles == 0 && s.widened_percent == 100 && s.cpu_permille > 20); /* a cycle for each 4 MiB */
    char setting[32]; /* a quarter of what it takes, if that is a percent */
    snprintf(setting, sizeof setting, "cpu_percent=%d", s.cpu_permille < 40 ? 1 : (int)s.cpu_permille / 40);
    fixture_set(f.heap, setting);
    churn(&f, 6);
    for (int i = 0; i < 20 && fixture_stats(f.heap).widened_percent <= 150; i++) churn(&f, 2); /* in other company */
    s = fixture_stats(f.heap);
    CHECK_MSG(s.capped_cycles >= 4 && s.widened_percent > 150, "%d capped cycles, room of %d %%", (int)s.capped_cycles,
              (int)s.widened_percent);
    CHECK(s.goal_bytes - s.live_bytes > max_size(4 * MIB, s.live_bytes * 6 / 10));
    fixture_set(f.heap, "hard_limit_bytes=8M"); /* the hard limit goes first */
    CHECK(fixture_stats(f.heap).goal_bytes <= max_size(8 * MIB, s.live_bytes + s.live_bytes / 16));
    fixture_set(f.heap, "hard_limit_bytes=0");
    fixture_set(f.heap, "cpu_percent=100");
    CHECK_EQ(fixture_stats(f.heap).widened_percent, 100);
    uint64_t capped = fixture_stats(f.heap).capped_cycles;
    churn(&f, 3);
    CHECK(fixture_stats(f.heap).capped_cycles <= capped + 1); /* one cycle may have been ending */
    tri_global_free(f.thread, list);
    fixture_close(&f);
}

static void take_rest(tri_heap *heap, void *arg) {
    *(uint64_t *)arg = tri__pace_rest_ns(heap, 200000);
}

TEST(pace, a_cap_of_less_than_a_core_makes_its_marker_rest) {
    struct fixture f = fixture_open();
    fixture_use_millicpus(f.heap, 2000, false);
    f.heap->run.hurries = false;
    const uint64_t us = 1000;
    static const struct {
        uint32_t percent, workers, nmarkers;
        uint64_t rest_us;
    } cases[] = {{100, 1, 1, 0},  {50, 1, 1, 0},  {25, 4, 1, 200}, {10, 1, 1, 800}, {5, 2, 1, 1800},
                 {1, 1, 1, 9800}, {100, 2, 2, 0}, {60, 4, 1, 0},   {100, 9, 2, 0}};
    for (size_t i = 0; i < TRI_COUNT(cases); i++) {
        atomic_store_relaxed(&f.heap->config.cpu_percent, cases[i].percent);
        atomic_store_relaxed(&f.heap->config.workers, cases[i].workers);
        CHECK_EQ(tri__pace_rest_ns(f.heap, 200 * us), cases[i].rest_us * us);
        if (cases[i].percent < 100) CHECK_EQ(tri__pace_markers(f.heap), cases[i].nmarkers);
    }
    fixture_use_millicpus(f.heap, 300, true);
    fixture_set(f.heap, "cpu_percent=100"); /* the quota is no cap */
    CHECK_EQ(tri__pace_rest_ns(f.heap, 200 * us), 0);
    fixture_set(f.heap, "cpu_percent=50"); /* of 0.3 */
    CHECK_EQ(tri__pace_rest_ns(f.heap, 3 * us), 17 * us);
    fixture_use_millicpus(f.heap, 1, true);
    fixture_set(f.heap, "cpu_percent=1");
    CHECK_EQ(tri__pace_rest_ns(f.heap, 200 * us), 20000 * us); /* at most */
    fixture_use_millicpus(f.heap, 2000, false);
    fixture_set(f.heap, "cpu_percent=10");
    fixture_set(f.heap, "workers=1");
    f.heap->run.hurries = true; /* somebody waits */
    CHECK_EQ(tri__pace_rest_ns(f.heap, 200 * us), 0);
    f.heap->run.hurries = false;
    atomic_add_relaxed(&f.heap->heap_bytes, 100 * MIB); /* beyond the goal */
    CHECK_EQ(tri__pace_rest_ns(f.heap, 200 * us), 0);
    atomic_sub_relaxed(&f.heap->heap_bytes, 100 * MIB);
    CHECK(tri__pace_rest_ns(f.heap, 200 * us) > 0);
    uint64_t rest_ns = 1;
    CHECK(tri__collector_run(mutator_of(f.thread), take_rest, &rest_ns)); /* in a stop all wait */
    CHECK_EQ(rest_ns, 0);
    fixture_set(f.heap, "cpu_percent=100");
    fixture_close(&f);
}

/* ---- what death takes ---- */

/* Passes over weak maps, and death, as the cycle goes on. */
struct deaths {
    tri_heap *heap;
    uint64_t settled_ns, died_ns; /* when what dies is next, and when it is gone */
};

static void note_death(const tri_event *event, void *user) {
    struct deaths *d = user;
    if (event->kind != TRI_EVENT_PHASE) return;
    uint64_t ns = atomic_load_relaxed(&d->heap->stats.death_ns);
    if (strcmp(event->phase, "death") == 0) d->settled_ns = ns;
    if (strcmp(event->phase, "disarm") == 0) d->died_ns = ns;
}

static void no_cleanup(void *arg) {
    (void)arg;
}

TEST(pace, passes_over_weak_maps_and_death_count_as_collecting) {
    enum { NKEYS = 5000 };
    struct deaths deaths = {NULL, 0, 0};
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | TRI_HEAP_EVENTS);
    config.event = note_death;
    config.user = &deaths;
    struct fixture f = fixture_open_config(&config);
    deaths.heap = f.heap;
    TRI_LOCALS(f.thread, roots, 3);
    roots[0] = tri_new_n(f.thread, &array_type, NKEYS);
    roots[1] = tri_wmap_new(f.thread, NULL);
    for (uint32_t i = 0; i < NKEYS; i++) {
        roots[2] = tri_new(f.thread, &pair_type);
        tri_store(f.thread, roots[0], (void **)roots[0] + i, roots[2]);
        CHECK_EQ(tri_wmap_put(f.thread, roots[1], roots[2], (tri_word)(uintptr_t)roots[2]), TRI_OK);
        CHECK_EQ(tri_cleanup_add(f.thread, roots[2], no_cleanup, NULL), TRI_OK);
    }
    roots[2] = NULL;
    for (int i = 0; i < 2; i++) { /* all live; all die */
        tri_stats before = fixture_stats(f.heap);
        uint64_t start = tri__os_now_ns();
        fixture_collect(&f);
        tri_stats s = fixture_stats(f.heap);
        CHECK(deaths.settled_ns > before.death_ns && deaths.died_ns > deaths.settled_ns);
        CHECK_EQ(s.death_ns, deaths.died_ns);
        CHECK(s.death_ns + s.mark_ns + s.sweep_ns - before.death_ns - before.mark_ns - before.sweep_ns <=
              tri__os_now_ns() - start); /* nothing twice */
        uint64_t worked_ns = s.death_ns + s.mark_ns + s.assist_ns + atomic_load_relaxed(&f.heap->stats.worker_ns);
        CHECK_EQ(f.heap->pacer.limiter.busy_ns, worked_ns);
        CHECK_EQ(tri__stats_busy_ns(f.heap), worked_ns + s.sweep_ns);
        tri_clear(f.thread, roots[0], roots[0], NKEYS);
    }
    CHECK_EQ(tri_cleanup_run(f.thread, SIZE_MAX), NKEYS);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- Limits close to what lives ---- */

static void empty_the_bucket(tri_heap *heap) {
    tri__lock_acquire(&heap->pace_lock);
    tri__limiter_init(&heap->pacer.limiter);
    tri__lock_release(&heap->pace_lock);
}

/* Garbage beside a list, with next to no room below the soft limit: cycles follow each other until the limiter is full;
 * then the room grows, and so does what is allocated between two cycles. */
TEST(pace, close_to_the_soft_limit_cycles_become_fewer_again, .timeout = 200) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    fixture_use_millicpus(f.heap, 1000, false); /* the bucket holds a second; nobody has looked yet */
    tri_handle list = build_list(&f, 24 * MIB);
    fixture_collect(&f);
    empty_the_bucket(f.heap); /* on a slow machine the cycles while the list grew have filled it */
    fixture_set(f.heap, "soft_limit_bytes=25M");
    tri_stats before = fixture_stats(f.heap);
    CHECK(before.goal_bytes <= 27 * MIB && before.limited_cycles == 0);
    for (int i = 0; i < 100000 && fixture_stats(f.heap).limited_cycles == 0; i++) churn(&f, 1);
    tri_stats full = fixture_stats(f.heap);
    CHECK(full.limited_cycles > 0 && full.limiter_percent > 40);
    churn(&f, 12);
    tri_stats after = fixture_stats(f.heap);
    CHECK_MSG(after.limited_cycles >= full.limited_cycles + 4, "only %d cycles of 12 were limited",
              (int)(after.limited_cycles - full.limited_cycles));
    uint64_t early = (full.allocated_bytes - before.allocated_bytes) / (full.cycles - before.cycles);
    uint64_t late = (after.allocated_bytes - full.allocated_bytes) / (after.cycles - full.cycles);
    CHECK_MSG(late > early, "%llu bytes a cycle, %llu at first", (unsigned long long)late, (unsigned long long)early);
    fixture_collect(&f);
    after = fixture_stats(f.heap); /* the growth of 60 % at most, or the least heap */
    CHECK_MSG(after.goal_bytes <= max_size(after.live_bytes / 10 * 16, after.live_bytes + 4 * MIB) + MIB,
              "a goal of %zu bytes, %zu live", after.goal_bytes, after.live_bytes);
    tri_global_free(f.thread, list);
    fixture_close(&f);
}

static uint32_t nasked;
static int count_asked(tri_heap *heap, size_t size_bytes, void *user) {
    (void)heap, (void)size_bytes, (void)user;
    atomic_add_relaxed(&nasked, 1);
    return 0;
}

/* The same below the hard limit, which is not exceeded: the program slows down, and gets all its garbage back. */
TEST(pace, close_to_the_hard_limit_a_program_goes_on, .timeout = 200) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.oom = count_asked;
    struct fixture f = fixture_open_config(&config);
    tri_handle list = build_list(&f, 8 * MIB);
    fixture_collect(&f);
    fixture_set(f.heap, "hard_limit_bytes=11M");
    tri_stats before = fixture_stats(f.heap);
    size_t nbytes = (TEST_IS_SLOW ? 8 : 64) * MIB;
    for (size_t done = 0; done < nbytes; done += 1024) CHECK_MSG(tri_new_bytes(f.thread, 1024), "%s", tri_last_error());
    tri_stats after = fixture_stats(f.heap);
    uint64_t ncycles = after.cycles - before.cycles;
    CHECK_EQ(atomic_load_relaxed(&nasked), 0);
    CHECK(after.committed_bytes <= 11 * MIB);
    /* Some 2 MiB between two of them, of which a cycle in progress keeps a part. */
    CHECK_MSG(ncycles >= nbytes / (4 * MIB) && ncycles <= nbytes / (MIB / 8), "%llu cycles for %zu bytes",
              (unsigned long long)ncycles, nbytes);
    tri_global_free(f.thread, list);
    fixture_close(&f);
}
