/*
 * The pacer, by arithmetic and by simulation: goal and trigger for given figures, and a program that allocates at a
 * given rate beside a collector that marks at one, through steady load, steps and swings.
 */
#include "tests/fixture.h"

#include "gc/pacer.h"

static const struct pacer_config plain_config = {4 * MIB, 100, 0, 0};

static struct pacer pacer_after(const struct pacer_config *config, size_t live, size_t roots, size_t external) {
    struct pacer p;
    tri__pacer_init(&p, config);
    tri__pacer_end(&p, config, live, roots, external, 0, 0);
    return p;
}

static void check_order(const struct pacer *p, const char *what) {
    CHECK_MSG(p->live_bytes <= p->trigger_bytes && p->trigger_bytes <= p->goal_bytes,
              "%s: live %zu, trigger %zu, goal %zu", what, p->live_bytes, p->trigger_bytes, p->goal_bytes);
}

/* ---- Figures ---- */

TEST(pacer, the_goal_is_live_and_its_growth) {
    static const uint32_t percents[] = {5, 50, 100, 300};
    static const size_t goals[] = {105, 150, 200, 400};
    for (size_t i = 0; i < TRI_COUNT(percents); i++) {
        struct pacer_config config = {4 * MIB, percents[i], 0, 0};
        struct pacer p = pacer_after(&config, (size_t)100 * MIB, 0, 0);
        CHECK_EQ(p.goal_bytes, goals[i] * MIB);
        check_order(&p, "growth");
    }
}

TEST(pacer, roots_and_external_bytes_add_to_the_growth) {
    struct pacer p = pacer_after(&plain_config, (size_t)100 * MIB, (size_t)10 * MIB, 0);
    CHECK_EQ(p.goal_bytes, (size_t)210 * MIB);
    p = pacer_after(&plain_config, (size_t)100 * MIB, 0, (size_t)50 * MIB);
    CHECK_EQ(p.goal_bytes, (size_t)300 * MIB);
}

TEST(pacer, between_live_and_goal_there_is_at_least_the_least_heap) {
    struct pacer p;
    tri__pacer_init(&p, &plain_config);
    CHECK_EQ(p.goal_bytes, 4 * MIB);
    check_order(&p, "first cycle");
    p = pacer_after(&plain_config, MIB, 0, 0);
    CHECK_EQ(p.goal_bytes, 5 * MIB);
    p = pacer_after(&plain_config, MIB, 0, 2 * MIB);
    CHECK_EQ(p.goal_bytes, 7 * MIB);
    p = pacer_after(&plain_config, 5 * MIB, 0, 0);
    CHECK_EQ(p.goal_bytes, 10 * MIB);
    struct pacer_config none = {0, 100, 0, 0};
    p = pacer_after(&none, 0, 0, 0);
    check_order(&p, "nothing at all");
}

TEST(pacer, the_soft_limit_bounds_the_goal_but_never_below_what_lives) {
    struct pacer_config config = {4 * MIB, 100, (size_t)120 * MIB, 0};
    struct pacer p = pacer_after(&config, (size_t)50 * MIB, 0, 0);
    CHECK_EQ(p.goal_bytes, (size_t)100 * MIB);
    p = pacer_after(&config, (size_t)100 * MIB, 0, 0);
    CHECK_EQ(p.goal_bytes, (size_t)120 * MIB);
    p = pacer_after(&config, (size_t)119 * MIB, 0, 0);
    CHECK(p.goal_bytes >= (size_t)120 * MIB && p.goal_bytes <= (size_t)128 * MIB);
    p = pacer_after(&config, (size_t)500 * MIB, 0, 0); /* far over it: cycles still have a distance to run */
    CHECK(p.goal_bytes > (size_t)500 * MIB && p.goal_bytes <= (size_t)550 * MIB);
    check_order(&p, "over the soft limit");
}

TEST(pacer, live_trigger_and_goal_are_in_order_for_any_figures) {
    uint64_t seed = fixture_seed();
    for (int round = 0; round < 2000; round++) {
        uint64_t r = fixture_random(&seed);
        struct pacer_config config = {(size_t)1 << (r % 28), 5 + (uint32_t)(r >> 8) % 1000,
                                      (r >> 20) % 3 ? 0 : (size_t)1 << (12 + (r >> 24) % 28),
                                      (r >> 50) % 3 ? 0 : (size_t)1 << (20 + (r >> 52) % 12)};
        struct pacer p;
        tri__pacer_init(&p, &config);
        check_order(&p, "first");
        for (int cycle = 0; cycle < 20; cycle++) {
            size_t live = fixture_random(&seed) >> (24 + fixture_random(&seed) % 40);
            size_t roots = fixture_random(&seed) >> (40 + fixture_random(&seed) % 24);
            size_t external = fixture_random(&seed) >> (30 + fixture_random(&seed) % 34);
            size_t allocated = fixture_random(&seed) >> (30 + fixture_random(&seed) % 34);
            for (int k = 0; k < 5; k++) {
                tri__pacer_update(&p, live / 5 * (size_t)k, fixture_random(&seed) >> (24 + fixture_random(&seed) % 40));
                CHECK_MSG(p.assist_ratio >= 0 && p.assist_ratio <= 1000, "assist ratio %g", p.assist_ratio);
            }
            tri__pacer_end(&p, &config, live, roots, external, allocated, live);
            check_order(&p, "random figures");
        }
    }
}

TEST(pacer, the_trigger_leaves_room_on_both_sides) {
    struct pacer p = pacer_after(&plain_config, (size_t)100 * MIB, 0, 0);
    for (int i = 0; i < 40; i++) /* nothing is allocated while it marks: as late as is allowed */
        tri__pacer_end(&p, &plain_config, (size_t)100 * MIB, 0, 0, 0, (size_t)100 * MIB);
    CHECK_MSG(p.trigger_bytes >= (size_t)190 * MIB && p.trigger_bytes < (size_t)200 * MIB, "%zu", p.trigger_bytes);
    tri__pacer_end(&p, &plain_config, (size_t)100 * MIB, 0, 0, (size_t)5000 * MIB, (size_t)100 * MIB); /* as early */
    CHECK_MSG(p.trigger_bytes >= (size_t)125 * MIB && p.trigger_bytes <= (size_t)135 * MIB, "%zu", p.trigger_bytes);
}

TEST(pacer, assists_grow_as_the_goal_comes_near) {
    struct pacer p = pacer_after(&plain_config, (size_t)100 * MIB, 0, 0);
    double last = 0;
    for (size_t heap = 100; heap <= 230; heap += 10) {
        tri__pacer_update(&p, (size_t)20 * MIB, heap * MIB);
        CHECK_MSG(p.assist_ratio >= last, "%g at %zu MiB, %g before", p.assist_ratio, heap, last);
        last = p.assist_ratio;
    }
    CHECK_MSG(last >= 8, "past the goal one byte of allocation costs only %g bytes of marking", last);
    tri__pacer_update(&p, (size_t)90 * MIB, (size_t)150 * MIB); /* nearly done: little to do */
    CHECK(p.assist_ratio < 0.5);
}

/* ---- Simulation ---- */

/* One mutator beside one marker, in steps of a tenth of a millisecond. Rates in bytes a step. */
struct world {
    struct pacer pacer;
    struct pacer_config config;
    double live;           /* what a cycle finds alive */
    double alloc, mark;    /* allocation of a mutator that only allocates, marking by one thread */
    double heap;           /* now */
    double peak_over_goal; /* of the last cycle: heap at its end over its goal */
    double assist_share;   /* of the mutator's time while marking */
    size_t ncycles;
};

static void world_open(struct world *w, const struct pacer_config *config, double live, double alloc, double mark) {
    *w = (struct world){.config = *config, .live = live, .alloc = alloc, .mark = mark, .heap = live};
    tri__pacer_init(&w->pacer, config);
}

/* Allocates up to the trigger, and through the marking. */
static void run_cycle(struct world *w) {
    double goal = (double)w->pacer.goal_bytes, marked = 0, credit = 0, debt = 0, steps = 0, assisting = 0;
    if (w->heap < (double)w->pacer.trigger_bytes) w->heap = (double)w->pacer.trigger_bytes;
    double at_start = w->heap;
    while (marked < w->live && steps < 1e7) {
        tri__pacer_update(&w->pacer, (size_t)marked, (size_t)w->heap);
        double own_time = 1; /* of this step, for the mutator */
        marked += w->mark;
        credit += w->mark;
        if (debt > 0) { /* what it owes, as far as this step goes */
            double borrowed = debt < credit ? debt : credit;
            debt -= borrowed;
            credit -= borrowed;
            double pays = debt < w->mark ? debt : w->mark;
            debt -= pays;
            marked += pays;
            own_time -= pays / w->mark;
            assisting += pays / w->mark;
        }
        double allocated = own_time * w->alloc;
        w->heap += allocated;
        debt += allocated * w->pacer.assist_ratio;
        steps++;
    }
    w->peak_over_goal = w->heap / (goal > w->live ? goal : w->live);
    w->assist_share = assisting / steps;
    double allocated = w->heap - at_start;
    tri__pacer_end(&w->pacer, &w->config, (size_t)(w->live + allocated), 0, 0, (size_t)allocated, (size_t)w->live);
    w->heap = w->live + allocated; /* what was allocated black survives this cycle */
    w->ncycles++;
    check_order(&w->pacer, "simulation");
}

TEST(pacer, steady_load_settles_near_the_goal_without_assists) {
    static const double rates[] = {1e3, 1e4, 5e4, 1e5};
    for (size_t i = 0; i < TRI_COUNT(rates); i++) {
        struct world w;
        world_open(&w, &plain_config, 64.0 * (double)MIB, rates[i], 2e5); /* marks 2 GB a second */
        for (int k = 0; k < 30; k++) run_cycle(&w);
        size_t goal = w.pacer.goal_bytes, trigger = w.pacer.trigger_bytes;
        for (int k = 0; k < 20; k++) { /* no oscillation: every cycle like the one before */
            run_cycle(&w);
            CHECK_MSG(w.peak_over_goal <= 1.02, "rate %g: the heap ends at %.3f of its goal", rates[i],
                      w.peak_over_goal);
            CHECK_MSG(w.assist_share <= 0.35, "rate %g: %.3f of the time goes into assists", rates[i], w.assist_share);
            double dg = (double)w.pacer.goal_bytes / (double)goal, dt = (double)w.pacer.trigger_bytes / (double)trigger;
            CHECK_MSG(dg > 0.95 && dg < 1.05 && dt > 0.9 && dt < 1.1, "rate %g: goal x %.3f, trigger x %.3f", rates[i],
                      dg, dt);
        }
    }
}

TEST(pacer, a_step_in_the_load_overshoots_boundedly_and_is_learned) {
    struct world w;
    world_open(&w, &plain_config, 64.0 * (double)MIB, 1e3, 1e5);
    for (int k = 0; k < 20; k++) run_cycle(&w);
    w.alloc = 2e5; /* 200 times as much, and twice what a thread can mark */
    double worst = 0;
    for (int k = 0; k < 20; k++) {
        run_cycle(&w);
        if (w.peak_over_goal > worst) worst = w.peak_over_goal;
        if (k >= 3)
            CHECK_MSG(w.peak_over_goal <= 1.05, "cycle %d after the step: %.3f of the goal", k, w.peak_over_goal);
    }
    CHECK_MSG(worst <= 1.15, "the heap went to %.3f of its goal", worst);
}

TEST(pacer, a_step_in_the_live_set_overshoots_boundedly) {
    struct world w;
    world_open(&w, &plain_config, 32.0 * (double)MIB, 5e4, 1e5);
    for (int k = 0; k < 20; k++) run_cycle(&w);
    w.live = 120.0 * (double)MIB; /* nobody knew: four times as much lives as before */
    w.heap += 88.0 * (double)MIB;
    run_cycle(&w);
    CHECK_MSG(w.peak_over_goal <= 2.0, "%.3f of the goal, or of what lives", w.peak_over_goal);
    for (int k = 0; k < 5; k++) run_cycle(&w);
    CHECK_MSG(w.peak_over_goal <= 1.05, "%.3f of the goal some cycles later", w.peak_over_goal);
    w.live = 8.0 * (double)MIB; /* and down again */
    for (int k = 0; k < 8; k++) run_cycle(&w);
    CHECK_MSG(w.heap <= 40.0 * (double)MIB, "%.1f MiB are still held", w.heap / (double)MIB);
}

TEST(pacer, swings_of_the_load_do_not_build_up) {
    struct world w;
    world_open(&w, &plain_config, 64.0 * (double)MIB, 1e3, 1e5);
    double worst_early = 0, worst_late = 0;
    for (int k = 0; k < 200; k++) {
        w.alloc = k % 2 ? 1e5 : 1e3;
        run_cycle(&w);
        double *worst = k < 100 ? &worst_early : &worst_late;
        if (k > 10 && w.heap > *worst) *worst = w.heap;
        CHECK_MSG(w.peak_over_goal <= 1.15, "cycle %d: %.3f of the goal", k, w.peak_over_goal);
    }
    CHECK_MSG(worst_late <= worst_early * 1.01, "%.1f MiB late, %.1f early", worst_late / (double)MIB,
              worst_early / (double)MIB);
}

/* ---- The heap's own pace ---- */

TEST(pacer, external_bytes_bring_cycles_nearer_but_do_not_stack_them) {
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
TEST(pacer, external_bytes_alone_start_cycles, .timeout = 60) {
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

/* Buffers of a megabyte behind small objects that die at once. Cleanups run after a cycle's end, when its goal is set:
 * what they take back was garbage, and must not make the goals grow from cycle to cycle. */
TEST(pacer, bytes_that_wait_for_cleanups_do_not_raise_the_goal, .timeout = 60) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    size_t most_goal_bytes = 0;
    uint64_t seen = 0;
    for (int i = 0; i < 2000; i++) {
        void *obj = tri_new(f.thread, &leaf_type);
        CHECK_EQ(tri_cleanup_add(f.thread, obj, give_back_a_megabyte, f.thread), TRI_OK);
        tri_external(f.thread, MIB);
        tri_poll(f.thread);
        if (i % 4 == 0) fixture_sleep_ms(1); /* a server that is not all load: the collector gets its turn */
        if (fixture_stats(f.heap).cycles == seen) continue;
        seen = fixture_stats(f.heap).cycles;
        tri_cleanup_run(f.thread, SIZE_MAX); /* after the cycle's end, not in the middle of it */
        size_t goal_bytes = fixture_stats(f.heap).goal_bytes;
        if (i > 1000 && goal_bytes > most_goal_bytes) most_goal_bytes = goal_bytes;
    }
    CHECK_MSG(fixture_stats(f.heap).cycles > 10, "%llu cycles", (unsigned long long)fixture_stats(f.heap).cycles);
    CHECK_MSG(most_goal_bytes < 256 * (size_t)MIB, "the goal rose to %zu MB", most_goal_bytes / MIB);
    fixture_collect(&f);
    tri_cleanup_run(f.thread, SIZE_MAX);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    fixture_close(&f);
}

TEST(pacer, taking_back_more_external_bytes_than_there_are_is_reported) {
    struct fixture f = fixture_open();
    tri_external(f.thread, 1000);
    tri_external(f.thread, -1001);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_external"), "%s", fixture_report);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    fixture_close(&f);
}

TEST(pacer, the_least_heap_sets_the_first_goal) {
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
