/*
 * The pacer and the limiter beside programs that allocate at given rates (pacer_sim.h): steady, in steps, ramps, spikes
 * and phases, faster than marking, with many threads, while what lives grows and shrinks, with limits and a cap; and
 * other ways to guess the next cycle. Given figures alone: test_pacer.c.
 *
 * Each scenario states how far the heap may go: as a factor of the goal, or of what lives where that is more.
 */
#include "tests/fixture.h"

#include <math.h>

#include "tests/pacer_sim.h"

static const struct pacer_config default_config = {4 * MIB, 60, 0, 0};

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

TEST(pacer_sim, steady_load_settles_near_the_goal_without_assists) {
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

TEST(pacer_sim, a_noisy_load_moves_the_trigger_less_than_itself) {
    struct sim s;
    open_known(&s, default_config, 64 * SIM_MIB, 2e4);
    s.noise = 0.3;
    run(&s, 30, (struct bounds){1.02, 0.6}, "noise, at first");
    run(&s, 100, (struct bounds){1.02, 0.3}, "noise");
    struct watched settled = watch(&s, 100); /* 30 % of the runway of 0.31 either way, a mean of four */
    CHECK_MSG(settled.trigger_moves <= 0.15, "the trigger moves by %.3f", settled.trigger_moves);
}

TEST(pacer_sim, a_step_in_the_load_overshoots_boundedly_and_is_learnt) {
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

TEST(pacer_sim, a_ramp_is_followed) {
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

TEST(pacer_sim, spikes_are_paid_for_by_those_who_make_them) {
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

TEST(pacer_sim, phases_do_not_build_up) {
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
TEST(pacer_sim, a_program_that_allocates_faster_than_it_marks_is_held_to_the_goal) {
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

TEST(pacer_sim, what_lives_may_grow_and_shrink_sharply) {
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
TEST(pacer_sim, a_heap_that_keeps_all_of_a_sudden_stays_within_its_hard_goal) {
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

TEST(pacer_sim, a_heap_that_grows_all_the_time_is_followed) {
    struct sim s;
    open_known(&s, default_config, 16 * SIM_MIB, 2e4);
    s.retained = 0.3;
    run(&s, 5, (struct bounds){1.1, 0.6}, "growth, at first");
    run(&s, 10, (struct bounds){1.0, 0.05}, "growth");
    CHECK(s.live > 100 * SIM_MIB);
}

TEST(pacer_sim, many_threads_beside_few_markers) {
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
TEST(pacer_sim, bytes_outside_are_paced_like_bytes_inside) {
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
TEST(pacer_sim, the_mean_of_four_cycles_moves_least_and_costs_least) {
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

TEST(pacer_sim, the_cap_is_kept_by_more_room) {
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

TEST(pacer_sim, the_cap_follows_a_load_that_comes_and_goes) {
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

TEST(pacer_sim, the_cap_stops_at_the_hard_limit) {
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
TEST(pacer_sim, close_to_the_soft_limit_there_is_no_spiral) {
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
