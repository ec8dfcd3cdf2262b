/*
 * The pacer and the limiter, without a heap: goal and trigger for given figures, then programs that allocate at given
 * rates beside a collector (pacer_sim.h): steady, in steps, ramps, spikes and phases, faster than marking, with many
 * threads, while what lives grows and shrinks, with limits and a cap.
 *
 * Each scenario states how far the heap may go: as a factor of the goal, or of what lives where that is more.
 */
#include "tests/fixture.h"

#include <math.h>

#include "tests/pacer_sim.h"

static const struct pacer_config plain_config = {4 * MIB, 100, 0, 0};
static const struct pacer_config default_config = {4 * MIB, 60, 0, 0};

static struct pacer pacer_after(const struct pacer_config *config, size_t live, size_t roots, size_t external) {
    struct pacer p;
    tri__pacer_init(&p, config);
    struct pacer_cycle cycle = {.live_bytes = live, .root_bytes = roots, .external_bytes = external};
    tri__pacer_end(&p, config, &cycle);
    return p;
}

static void check_order(const struct pacer *p, const char *what) {
    CHECK_MSG(p->base_bytes <= p->trigger_bytes && p->trigger_bytes <= p->goal_bytes &&
                  p->goal_bytes <= p->hard_goal_bytes,
              "%s: base %zu, trigger %zu, goal %zu, hard goal %zu", what, p->base_bytes, p->trigger_bytes,
              p->goal_bytes, p->hard_goal_bytes);
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

TEST(pacer, the_hard_limit_goes_before_the_soft_one_and_the_least_heap) {
    struct pacer_config config = {(size_t)64 * MIB, 100, (size_t)150 * MIB, (size_t)120 * MIB};
    struct pacer p = pacer_after(&config, (size_t)100 * MIB, 0, 0);
    CHECK_EQ(p.goal_bytes, (size_t)120 * MIB);
    p = pacer_after(&config, (size_t)119 * MIB, 0, 0);
    CHECK(p.goal_bytes > (size_t)120 * MIB && p.goal_bytes <= (size_t)127 * MIB);
    p.limiter.widened = 8; /* the cap widens up to there */
    config.soft_limit_bytes = 0;
    p.live_bytes = (size_t)20 * MIB;
    tri__pacer_commit(&p, &config);
    CHECK_EQ(p.goal_bytes, (size_t)120 * MIB);
    CHECK(p.capped && !p.limited);
}

TEST(pacer, base_trigger_and_goal_are_in_order_for_any_figures) {
    uint64_t seed = fixture_seed();
    for (int round = 0; round < 2000; round++) {
        uint64_t r = fixture_random(&seed);
        struct pacer_config config = {(r >> 60) == 0 ? SIZE_MAX : (size_t)1 << (r % 28),
                                      5 + (uint32_t)(r >> 8) % 100000,
                                      (r >> 20) % 3 ? 0 : (size_t)1 << (12 + (r >> 24) % 28),
                                      (r >> 50) % 3 ? 0 : (size_t)1 << (20 + (r >> 52) % 12)};
        struct pacer p;
        tri__pacer_init(&p, &config);
        check_order(&p, "first");
        uint64_t now_ns = 1, busy_ns = 0;
        for (int cycle = 0; cycle < 20; cycle++) {
            struct pacer_cycle c = {.live_bytes = fixture_random(&seed) >> (24 + fixture_random(&seed) % 40),
                                    .root_bytes = fixture_random(&seed) >> (40 + fixture_random(&seed) % 24),
                                    .external_bytes = fixture_random(&seed) >> (2 + fixture_random(&seed) % 62),
                                    .allocated_bytes = fixture_random(&seed) >> (30 + fixture_random(&seed) % 34),
                                    .marked_bytes = fixture_random(&seed) >> (24 + fixture_random(&seed) % 40),
                                    .wall_ns = fixture_random(&seed) >> (30 + fixture_random(&seed) % 34),
                                    .own_ns = fixture_random(&seed) >> (30 + fixture_random(&seed) % 34),
                                    .assist_ns = fixture_random(&seed) >> (30 + fixture_random(&seed) % 34),
                                    .stall_ns = fixture_random(&seed) >> (30 + fixture_random(&seed) % 34),
                                    .nthreads = (uint32_t)fixture_random(&seed) % 100};
            tri__pacer_begin(&p, fixture_random(&seed) >> (24 + fixture_random(&seed) % 40), c.external_bytes);
            for (int k = 0; k < 5; k++) {
                tri__pacer_update(&p, c.live_bytes / 5 * (size_t)k,
                                  fixture_random(&seed) >> (24 + fixture_random(&seed) % 40));
                CHECK_MSG(p.assist_ratio >= 0 && p.assist_ratio <= 1000, "assist ratio %g", p.assist_ratio);
            }
            struct limiter_times times = {.now_ns = now_ns += fixture_random(&seed) >>
                                                              (30 + fixture_random(&seed) % 34),
                                          .busy_ns = busy_ns += fixture_random(&seed) >> 34,
                                          .millicpus = 4000,
                                          .could_use = 2000,
                                          .cpu_percent = 1 + (uint32_t)fixture_random(&seed) % 100};
            tri__limiter_tell(&p.limiter, &times);
            tri__pacer_end(&p, &config, &c);
            check_order(&p, "random figures");
            CHECK(p.limiter.widened >= 1 && p.limiter.widened <= (double)LIMITER_MOST);
        }
    }
}

/* Periods of a second on two cores. */
static double widened_after(double marked_share, double swept_share, uint32_t cpu_percent, int nperiods) {
    struct limiter l;
    tri__limiter_init(&l);
    struct limiter_times t = {.now_ns = 1, .millicpus = 2000, .could_use = 2000, .cpu_percent = cpu_percent};
    tri__limiter_tell(&l, &t);
    for (int i = 0; i < nperiods; i++) {
        t.now_ns += 1000000000;
        t.busy_ns += (uint64_t)(2e9 * marked_share / l.widened); /* a cycle costs the same, there are fewer */
        t.swept_ns += (uint64_t)(2e9 * swept_share);
        tri__limiter_tell(&l, &t);
        CHECK_MSG(l.share >= swept_share * 0.99, "share %g", l.share); /* counted all the same */
    }
    return l.widened;
}

TEST(pacer, room_is_given_for_marking_and_not_for_sweeping) {
    double marking = widened_after(0.40, 0, 10, 50), beside = widened_after(0.40, 0.02, 10, 50);
    CHECK_MSG(marking > 3.8 && marking < 4.2, "%g", marking); /* a quarter of the share is what the cap leaves */
    CHECK_MSG(beside > 4.8 && beside < 5.2, "%g", beside);    /* 8 percent are left for it */
    double nothing = widened_after(0.0001, 0.05, 1, 200), most = widened_after(0.40, 0.20, 10, 200);
    CHECK_MSG(nothing < 1.01, "%g: sweeping alone is beyond the cap, and more room would not help", nothing);
    CHECK_MSG(most > 15 && most < 17, "%g", most); /* marking is left a quarter of the cap */
}

static struct pacer_cycle cycle_that(size_t allocated, size_t marked) {
    return (struct pacer_cycle){.live_bytes = (size_t)100 * MIB, .allocated_bytes = allocated, .marked_bytes = marked};
}

TEST(pacer, the_trigger_leaves_room_on_both_sides) {
    struct pacer p = pacer_after(&plain_config, (size_t)100 * MIB, 0, 0);
    struct pacer_cycle none = cycle_that(0, (size_t)100 * MIB),
                       much = cycle_that((size_t)5000 * MIB, (size_t)100 * MIB);
    for (int i = 0; i < 40; i++) tri__pacer_end(&p, &plain_config, &none); /* as late as is allowed */
    CHECK_MSG(p.trigger_bytes >= (size_t)190 * MIB && p.trigger_bytes < (size_t)200 * MIB, "%zu", p.trigger_bytes);
    tri__pacer_end(&p, &plain_config, &much); /* as early */
    CHECK_MSG(p.trigger_bytes >= (size_t)125 * MIB && p.trigger_bytes <= (size_t)135 * MIB, "%zu", p.trigger_bytes);
}

/* The same load, seen through cycles with and without assists, by one marker and by several: the same runway. */
TEST(pacer, what_assists_did_is_taken_out_of_what_is_learnt) {
    const size_t mib = MIB;
    /* One thread of 100 MB/s beside one marker of 1,000 MB/s, for 0.1 s: 10 MB for 100 MB. */
    struct pacer_cycle plain = {.live_bytes = 100 * mib,
                                .allocated_bytes = 10 * mib,
                                .marked_bytes = 100 * mib,
                                .wall_ns = 100000000,
                                .own_ns = 100000000,
                                .nthreads = 1};
    /* Half of the thread's time went into assists: the marking is over after two thirds of the time. */
    struct pacer_cycle helped = plain;
    helped.wall_ns = helped.own_ns = 66666667;
    helped.assist_ns = 33333333;
    helped.allocated_bytes = 10 * mib / 3;
    /* Two markers, and two threads, of which naps have held back each half of the time. */
    struct pacer_cycle two = plain;
    two.wall_ns = 50000000;
    two.nthreads = 2;
    two.stall_ns = 50000000;
    two.allocated_bytes = 5 * mib;
    struct pacer_cycle all[] = {plain, helped, two};
    static const double expected[] = {0.1, 0.1, 0.1};
    for (size_t i = 0; i < TRI_COUNT(all); i++) {
        struct pacer p = pacer_after(&plain_config, 100 * mib, 0, 0);
        tri__pacer_learn(&p, &all[i]);
        CHECK_MSG(p.alloc_per_mark > expected[i] * 0.99 && p.alloc_per_mark < expected[i] * 1.01, "case %zu: %g", i,
                  p.alloc_per_mark);
    }
    /* In slices on the program's threads: a quarter of their time is what the trigger plans with. */
    struct pacer_cycle sliced = plain;
    sliced.own_ns = 0;
    sliced.assist_ns = 50000000;
    sliced.allocated_bytes = 5 * mib; /* 100 MB/s by 2,000 MB/s, three times as much time for it */
    struct pacer p = pacer_after(&plain_config, 100 * mib, 0, 0);
    tri__pacer_learn(&p, &sliced);
    CHECK_MSG(p.alloc_per_mark > 0.149 && p.alloc_per_mark < 0.151, "in slices: %g", p.alloc_per_mark);
}

TEST(pacer, assists_grow_as_the_goal_comes_near) {
    struct pacer p = pacer_after(&plain_config, (size_t)100 * MIB, 0, 0);
    struct pacer_cycle cycle = cycle_that(0, (size_t)100 * MIB);
    tri__pacer_end(&p, &plain_config, &cycle);
    tri__pacer_begin(&p, (size_t)190 * MIB, 0);
    double last = 0;
    for (size_t heap = 100; heap < 200; heap += 10) {
        tri__pacer_update(&p, (size_t)20 * MIB, heap * MIB);
        CHECK_MSG(p.assist_ratio >= last, "%g at %zu MiB, %g before", p.assist_ratio, heap, last);
        last = p.assist_ratio;
    }
    CHECK_MSG(last >= 7, "near the goal one byte of allocation costs only %g bytes of marking", last);
    for (size_t heap = 200; heap < 290; heap += 10) { /* beyond it: all that was there, until the hard goal */
        tri__pacer_update(&p, (size_t)20 * MIB, heap * MIB);
        bool beyond = heap * MIB >= p.hard_goal_bytes;
        double expected = beyond ? 64 : 170 * SIM_MIB / (double)(p.hard_goal_bytes - heap * MIB);
        CHECK_MSG(p.assist_ratio > expected * 0.99 && p.assist_ratio < expected * 1.01, "%g at %zu MiB, not %g",
                  p.assist_ratio, heap, expected);
    }
    tri__pacer_update(&p, (size_t)90 * MIB, (size_t)150 * MIB); /* nearly done: little to do */
    CHECK(p.assist_ratio < 0.5);
}

/* More lives than was expected: work and goal move together, so nobody pays all of it within the last megabytes. */
TEST(pacer, a_surprise_moves_the_goal_as_far_as_the_hard_goal) {
    struct pacer p = pacer_after(&plain_config, (size_t)100 * MIB, 0, 0);
    struct pacer_cycle cycle = cycle_that((size_t)30 * MIB, (size_t)100 * MIB);
    for (int i = 0; i < 5; i++) tri__pacer_end(&p, &plain_config, &cycle);
    size_t trigger = p.trigger_bytes, room = p.goal_bytes - trigger, hard = p.hard_goal_bytes;
    tri__pacer_begin(&p, trigger, 0);
    /* A program that pays exactly what it owes while nobody else marks, and of which everything lives. */
    size_t marked = 0, heap = trigger;
    for (; marked < trigger && heap < (size_t)400 * MIB; heap += MIB / 4) {
        tri__pacer_update(&p, marked, heap);
        marked += (size_t)(p.assist_ratio * SIM_MIB / 4);
    }
    /* At the same price for each byte it ends where the room has grown as the work has, and before the hard goal. */
    double grown = (double)trigger + (double)room * (double)trigger / (100 * SIM_MIB);
    CHECK_MSG((double)heap > grown * 0.99 && (double)heap < grown * 1.02 && heap < p.hard_goal_bytes,
              "%zu MiB, not %.0f; the hard goal is %zu", heap / MIB, grown / SIM_MIB, p.hard_goal_bytes / MIB);
    /* Hardly anything was expected: not beyond the hard goal, whatever is found. */
    p.expected_bytes = 10 * MIB;
    for (marked = 0, heap = trigger; marked < trigger && heap < (size_t)400 * MIB; heap += MIB / 4) {
        tri__pacer_update(&p, marked, heap);
        marked += (size_t)(p.assist_ratio * SIM_MIB / 4);
    }
    CHECK_MSG(heap <= hard + MIB, "%zu MiB, the hard goal is %zu", heap / MIB, hard / MIB);
}

TEST(pacer, sums_and_products_end_where_sizes_do) {
    struct pacer_config config = {SIZE_MAX, 100000, 0, 0};
    struct pacer p = pacer_after(&config, SIZE_MAX / 16, SIZE_MAX / 16, SIZE_MAX / 4);
    CHECK_MSG(p.goal_bytes == p.base_bytes + SIZE_MAX / 8, "%zu", p.goal_bytes);
    check_order(&p, "the largest of all");
    config.min_heap_bytes = 4 * MIB;
    p = pacer_after(&config, SIZE_MAX / 16, 0, 0);
    CHECK_MSG(p.goal_bytes == p.base_bytes + SIZE_MAX / 8, "%zu", p.goal_bytes);
}

/* ---- Simulation ---- */

/* Marks 2 GB a second; the rates are 20 MB to 20 GB a second. */
static const double mark_rate = 1e5;

/* What a scenario may show at worst. */
struct bounds {
    double over_goal;    /* the heap's peak, by the goal */
    double assist_share; /* of the mutators' time while marking */
};

static void run(struct sim *s, int ncycles, struct bounds b, const char *what) {
    for (int k = 0; k < ncycles; k++) {
        sim_cycle(s);
        check_order(&s->pacer, what);
        CHECK_MSG(s->cycle.over_goal <= b.over_goal, "%s, cycle %d: the heap goes to %.3f of its goal", what, k,
                  s->cycle.over_goal);
        CHECK_MSG(s->cycle.assist_share <= b.assist_share, "%s, cycle %d: %.3f of the time goes into assists", what, k,
                  s->cycle.assist_share);
    }
}

/* A heap of which nothing is known has its first cycle far beyond its goal of 4 MiB. */
static void open_known(struct sim *s, struct pacer_config config, double live, double rate) {
    sim_open(s, config, live, rate, mark_rate);
    sim_cycle(s);
}

/* How far the trigger moves between the cycles of a window, by the room; the mean share of all cores. */
struct watched {
    double trigger_moves, gc_share, room_moves;
};

static struct watched watch(struct sim *s, int ncycles) {
    double least = 1e9, most = 0, least_room = 1e18, most_room = 0, busy_ns = s->busy_ns;
    uint64_t steps = s->steps;
    for (int k = 0; k < ncycles; k++) {
        sim_cycle(s);
        if (s->cycle.trigger_at < least) least = s->cycle.trigger_at;
        if (s->cycle.trigger_at > most) most = s->cycle.trigger_at;
        if (s->cycle.room < least_room) least_room = s->cycle.room;
        if (s->cycle.room > most_room) most_room = s->cycle.room;
    }
    double wall_ns = (double)(s->steps - steps) * SIM_STEP_NS;
    return (struct watched){most - least, (s->busy_ns - busy_ns) / (wall_ns * s->ncores), most_room / least_room};
}

TEST(pacer, steady_load_settles_near_the_goal_without_assists) {
    static const double rates[] = {1e3, 1e4, 2e4, 5e4};
    for (size_t i = 0; i < TRI_COUNT(rates); i++) {
        struct sim s;
        open_known(&s, default_config, 64 * SIM_MIB, rates[i]);
        run(&s, 30, (struct bounds){1.02, 0.6}, "steady, at first");
        run(&s, 20, (struct bounds){1.01, 0.1}, "steady");
        struct watched settled = watch(&s, 20);
        CHECK_MSG(settled.trigger_moves <= 0.01, "rate %g: the trigger moves by %.3f", rates[i], settled.trigger_moves);
        CHECK_MSG(s.cycle.over_goal >= 0.9 || rates[i] < 2e3, "rate %g: it ends at %.3f of the goal", rates[i],
                  s.cycle.over_goal); /* not too early either */
    }
}

TEST(pacer, a_noisy_load_moves_the_trigger_less_than_itself) {
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 2e4);
    s.noise = 0.3;
    run(&s, 30, (struct bounds){1.02, 0.6}, "noise, at first");
    run(&s, 100, (struct bounds){1.02, 0.3}, "noise");
    struct watched settled = watch(&s, 100); /* 30 % of the runway of 0.31 either way, a mean of four */
    CHECK_MSG(settled.trigger_moves <= 0.15, "the trigger moves by %.3f", settled.trigger_moves);
}

TEST(pacer, a_step_in_the_load_overshoots_boundedly_and_is_learnt) {
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 1e3);
    run(&s, 20, (struct bounds){1.02, 0.6}, "before the step");
    s.threads[0].rate = 5e4; /* 50 times as much */
    run(&s, 4, (struct bounds){1.1, 0.9}, "the step");
    run(&s, 20, (struct bounds){1.02, 0.15}, "after the step");
    CHECK_MSG(watch(&s, 10).trigger_moves <= 0.01, "the trigger does not come to rest");
    s.threads[0].rate = 1e3;
    run(&s, 20, (struct bounds){1.02, 0.15}, "and back");
    CHECK_MSG(s.cycle.trigger_at > 0.9, "the trigger stays at %.3f", s.cycle.trigger_at);
}

TEST(pacer, a_ramp_is_followed) {
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 1e3);
    for (int k = 0; k < 200; k++) {
        s.threads[0].rate *= 1.02; /* 50 times as much in the end */
        run(&s, 1, (struct bounds){1.02, k < 10 ? 0.6 : 0.3}, "ramp");
    }
    for (int k = 0; k < 200; k++) {
        s.threads[0].rate /= 1.02;
        run(&s, 1, (struct bounds){1.02, 0.3}, "ramp down");
    }
}

TEST(pacer, spikes_are_paid_for_by_those_who_make_them) {
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 1e4);
    run(&s, 10, (struct bounds){1.02, 0.6}, "before the spikes");
    double between = 0;
    for (int k = 0; k < 100; k++) {
        s.threads[0].rate = k % 10 == 9 ? 1e5 : 1e4;
        run(&s, 1, (struct bounds){1.05, k % 10 == 9 ? 0.9 : 0.05}, "spikes");
        if (k % 10 < 9 && s.cycle.assist_share > between) between = s.cycle.assist_share;
    }
    CHECK_MSG(between <= 0.05, "%.3f of the time goes into assists between spikes", between);
}

TEST(pacer, phases_do_not_build_up) {
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 5e3);
    double early = 0, late = 0;
    for (int k = 0; k < 200; k++) {
        s.threads[0].rate = k % 2 ? 5e4 : 5e3;
        run(&s, 1, (struct bounds){1.03, 0.7}, "phases");
        double *worst = k < 100 ? &early : &late;
        if (k > 10 && s.cycle.heap > *worst) *worst = s.cycle.heap;
    }
    CHECK_MSG(late <= early * 1.01, "%.1f MiB late, %.1f early", late / SIM_MIB, early / SIM_MIB);
}

/* Faster than a thread can mark: assists hold it back, for as long as there is something to mark. */
TEST(pacer, a_program_that_allocates_faster_than_it_marks_is_held_to_the_goal) {
    static const double rates[] = {1e5, 2e5, 1e6};
    for (size_t i = 0; i < TRI_COUNT(rates); i++) {
        struct sim s;
        open_known(&s, default_config, 64 * SIM_MIB, rates[i]);
        run(&s, 50, (struct bounds){1.06, 0.95}, "faster than marking");
        struct watched settled = watch(&s, 20);
        CHECK_MSG(settled.trigger_moves <= 0.02, "rate %g: the trigger moves by %.3f", rates[i], settled.trigger_moves);
        CHECK(s.cycle.assist_share > 0.1);
    }
}

TEST(pacer, what_lives_may_grow_and_shrink_sharply) {
    struct sim s;
    open_known(&s, default_config, 32 * SIM_MIB, 2e4);
    run(&s, 10, (struct bounds){1.02, 0.6}, "before");
    for (int k = 0; k < 10; k++) {
        s.live = 128 * SIM_MIB; /* nobody knew: four times as much lives as before */
        s.heap += 96 * SIM_MIB;
        run(&s, 1, (struct bounds){1.4, 0.95}, "four times as much");
        run(&s, 8, (struct bounds){1.02, 0.2}, "after it");
        s.live = 32 * SIM_MIB;
        run(&s, 8, (struct bounds){1.02, 0.2}, "a quarter again");
        CHECK_MSG(s.cycle.heap <= 60 * SIM_MIB, "%.1f MiB are still held", s.cycle.heap / SIM_MIB);
    }
}

/* Everything that was garbage in the cycles before lives: what was expected is marked long before the end. */
TEST(pacer, a_heap_that_keeps_all_of_a_sudden_stays_within_its_hard_goal) {
    struct sim s;
    open_known(&s, default_config, 32 * SIM_MIB, 2e4);
    for (int k = 0; k < 10; k++) {
        run(&s, 10, (struct bounds){1.02, 0.6}, "before");
        s.retained = 1;
        for (int i = 0; i < 4; i++) {
            sim_cycle(&s);
            CHECK_MSG(s.cycle.over_hard <= 1, "it goes to %.3f of the hard goal", s.cycle.over_hard);
        }
        s.retained = 0;
        s.live = 32 * SIM_MIB;
        run(&s, 5, (struct bounds){1.02, 0.6}, "after");
    }
}

TEST(pacer, a_heap_that_grows_all_the_time_is_followed) {
    struct sim s;
    open_known(&s, default_config, 16 * SIM_MIB, 2e4);
    s.retained = 0.3;
    run(&s, 5, (struct bounds){1.1, 0.6}, "growth, at first");
    run(&s, 10, (struct bounds){1.0, 0.05}, "growth");
    CHECK(s.live > 100 * SIM_MIB);
}

TEST(pacer, many_threads_beside_few_markers) {
    static const struct {
        uint32_t nthreads;
        double ncores, nmarkers, rate, assist_share;
    } cases[] = {{2, 2, 1, 2e4, 0.1},   {4, 2, 1, 2e4, 0.1},   {16, 2, 1, 2e4, 0.15},
                 {16, 17, 1, 1e4, 0.2}, {16, 20, 4, 1e4, 0.1}, {64, 64, 16, 1e4, 0.15}};
    for (size_t i = 0; i < TRI_COUNT(cases); i++) {
        struct sim s;
        sim_open(&s, default_config, 64 * SIM_MIB, cases[i].rate, mark_rate);
        s.nthreads = cases[i].nthreads;
        s.ncores = cases[i].ncores;
        s.nmarkers = cases[i].nmarkers;
        sim_cycle(&s);
        run(&s, 10, (struct bounds){1.3, 0.95}, "threads, at first");
        run(&s, 30, (struct bounds){1.05, cases[i].assist_share}, "threads");
        CHECK_MSG(watch(&s, 10).trigger_moves <= 0.05, "case %zu: the trigger does not come to rest", i);
    }
}

/* Half of the threads allocate nothing, and only tell of bytes outside. */
TEST(pacer, bytes_outside_are_paced_like_bytes_inside) {
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 2e4);
    s.nthreads = 2;
    s.ncores = 3;
    s.threads[1].external = 1;
    s.external_dies = 1;
    run(&s, 10, (struct bounds){1.05, 0.8}, "bytes outside, at first");
    run(&s, 20, (struct bounds){1.02, 0.1}, "bytes outside");
    CHECK_MSG(watch(&s, 10).trigger_moves <= 0.02, "the trigger does not come to rest");
}

/* ---- How the next cycle is guessed ---- */

/* Cycles of one scenario under one guess: assists and collecting, and how much the trigger moves. */
struct judged {
    double assist_share, gc_share, trigger_moves, over_goal;
};

static double plain_rate(int scenario, int k) {
    switch (scenario) {
    case 1: return k % 2 ? 5e4 : 5e3;
    case 2: return k % 10 == 9 ? 1e5 : 1e4;
    case 3: return k / 20 % 2 ? 1e5 : 2e3;
    default: return 2e4;
    }
}

static struct judged judge(int scenario, enum sim_guess guess) {
    enum { SKIPPED = 20, CYCLES = 200 };
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 2e4);
    s.guess = guess;
    s.noise = scenario == 0 ? 0.3 : 0;
    struct judged sum = {0};
    double last = 0, busy_ns = 0, steps = 0;
    for (int k = 0; k < CYCLES; k++) {
        s.threads[0].rate = plain_rate(scenario, k);
        if (k == SKIPPED) busy_ns = s.busy_ns, steps = (double)s.steps;
        sim_cycle(&s);
        if (k >= SKIPPED) {
            sum.assist_share += s.cycle.assist_share / (CYCLES - SKIPPED);
            sum.trigger_moves += fabs(s.cycle.trigger_at - last) / (CYCLES - SKIPPED);
            if (s.cycle.over_goal > sum.over_goal) sum.over_goal = s.cycle.over_goal;
        }
        last = s.cycle.trigger_at;
    }
    sum.gc_share = (s.busy_ns - busy_ns) / (((double)s.steps - steps) * SIM_STEP_NS * s.ncores);
    return sum;
}

/* The table of docs/design.md, "Pacing". */
TEST(pacer, the_mean_of_four_cycles_moves_least_and_costs_least) {
    static const char *const scenarios[] = {"noise of 30 %", "phases 1:10", "spikes 1 in 10", "steps of 20 cycles"};
    static const char *const guesses[NUM_GUESSES] = {"mean of 4", "last", "most of 4", "up at once"};
    double gc[NUM_GUESSES] = {0}, moves[NUM_GUESSES] = {0};
    for (int i = 0; i < 4; i++)
        for (int g = 0; g < NUM_GUESSES; g++) {
            struct judged j = judge(i, (enum sim_guess)g);
            fprintf(stderr, "| %-18s | %-10s | %5.1f %% | %5.1f %% | %.3f | %.3f |\n", scenarios[i], guesses[g],
                    j.assist_share * 100, j.gc_share * 100, j.trigger_moves, j.over_goal);
            CHECK_MSG(j.over_goal <= 1.07, "%s, %s: %.3f of the goal", scenarios[i], guesses[g], j.over_goal);
            gc[g] += j.gc_share;
            moves[g] += j.trigger_moves;
        }
    for (int g = GUESS_OURS + 1; g < NUM_GUESSES; g++) {
        CHECK_MSG(g == GUESS_LAST || gc[GUESS_OURS] < gc[g], "%s collects for %.3f, ours for %.3f", guesses[g], gc[g],
                  gc[GUESS_OURS]);
        CHECK_MSG(g == GUESS_MOST || moves[GUESS_OURS] < moves[g], "%s moves by %.3f, ours by %.3f", guesses[g],
                  moves[g], moves[GUESS_OURS]);
    }
}

/* ---- The cap and the limits ---- */

TEST(pacer, the_cap_is_kept_by_more_room) {
    static const uint32_t caps[] = {1, 2, 5, 10, 25};
    for (size_t i = 0; i < TRI_COUNT(caps); i++)
        for (int which = 0; which < 3; which++) { /* one thread on two cores, eight on eight, one on eight */
            struct sim s;
            open_known(&s, default_config, 64 * SIM_MIB, which == 1 ? 1e4 : 5e4);
            s.nthreads = which == 1 ? 8 : 1;
            s.ncores = which > 0 ? 8 : 2;
            s.nmarkers = which > 0 ? 2 : 1;
            double without = (watch(&s, 20), watch(&s, 20).gc_share), cap = caps[i] / 100.0;
            s.cpu_percent = caps[i];
            watch(&s, 30);
            struct watched settled = watch(&s, 40);
            bool binds = without > cap;
            CHECK_MSG(settled.gc_share <= cap * 1.05, "cap of %u %%: it takes %.4f", caps[i], settled.gc_share);
            CHECK_MSG(!binds || settled.gc_share >= cap * 0.9, "cap of %u %%: it takes only %.4f", caps[i],
                      settled.gc_share);
            CHECK_MSG(settled.room_moves <= 1.05, "cap of %u %%: the room moves by %.3f", caps[i], settled.room_moves);
            CHECK_EQ(s.pacer.capped, binds);
            CHECK_EQ(s.pacer.limiter.widened > 1, binds);
            s.cpu_percent = 100;
            sim_cycle(&s);
            CHECK(s.pacer.limiter.widened <= 1 && !s.pacer.capped);
        }
}

TEST(pacer, the_cap_follows_a_load_that_comes_and_goes) {
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 5e4);
    s.cpu_percent = 5;
    watch(&s, 30);
    for (int k = 0; k < 5; k++) {
        double rate = s.threads[0].rate = k % 2 ? 5e4 : 1e3;
        watch(&s, 20);
        double share = watch(&s, 10).gc_share;
        CHECK_MSG(share <= 0.0525, "at %g it takes %.3f", rate, share);
        CHECK_EQ(s.pacer.limiter.widened > 1.01, rate > 1e4);
    }
}

TEST(pacer, the_cap_stops_at_the_hard_limit) {
    struct sim s;
    struct pacer_config config = default_config;
    config.hard_limit_bytes = (size_t)250 * MIB;
    open_known(&s, config, 64 * SIM_MIB, 5e4);
    s.cpu_percent = 1;
    for (int k = 0; k < 50; k++) {
        sim_cycle(&s);
        CHECK(s.pacer.goal_bytes <= (size_t)250 * MIB);
    }
    CHECK(s.pacer.capped && s.pacer.limiter.widened <= (double)LIMITER_MOST);
}

/* A program with a mebibyte of room below its soft limit: it is exceeded, and collecting takes half of the time. */
TEST(pacer, close_to_the_soft_limit_there_is_no_spiral) {
    for (int capped = 0; capped < 2; capped++) {
        struct sim s;
        struct pacer_config config = default_config;
        config.soft_limit_bytes = (size_t)65 * MIB;
        open_known(&s, config, 64 * SIM_MIB, 1e5);
        s.cpu_percent = capped ? 20 : 100;
        double at_first = watch(&s, 10).gc_share;
        CHECK_MSG(at_first > 0.6, "%.3f", at_first);
        watch(&s, 300);
        double share = watch(&s, 100).gc_share;
        CHECK_MSG(share <= (capped ? 0.21 : 0.52), "%.3f of the time, at first %.3f", share, at_first);
        CHECK(s.pacer.limited || s.pacer.capped);
        s.threads[0].rate = 100; /* hardly anything to do: within the limit again, or a sixteenth beyond what lives */
        watch(&s, 60);
        CHECK_MSG(s.pacer.goal_bytes <= (size_t)69 * MIB, "the goal stays at %zu MiB", s.pacer.goal_bytes / MIB);
        CHECK_EQ(s.pacer.limited, false);
    }
}
