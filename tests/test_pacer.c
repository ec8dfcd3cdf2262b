/*
 * The pacer and the limiter, without a heap: goal, trigger, debt and room for given figures. Programs that allocate at
 * given rates beside a collector: test_pacer_sim.c.
 */
#include "tests/fixture.h"

#include "tests/pacer_sim.h"

static const struct pacer_config plain_config = {4 * MIB, 100, 0, 0};

static struct pacer pacer_after(const struct pacer_config *config, size_t live, size_t roots, size_t external) {
    struct pacer p;
    tri__pacer_init(&p, config);
    struct pacer_cycle cycle = {.live_bytes = live, .root_bytes = roots, .external_bytes = external};
    tri__pacer_end(&p, config, &cycle);
    return p;
}

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
