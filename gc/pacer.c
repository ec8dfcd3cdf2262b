/* pacer.c - goal, trigger and assist ratio; see pacer.h. */
#include "gc/pacer.h"
#include "alloc/base/bits.h"
#include "alloc/base/check.h"

/* The trigger's window between base and goal, in percent: early enough for a first guess, late enough to be worth
 * it. */
enum { TRIGGER_LOW_PERCENT = 30, TRIGGER_HIGH_PERCENT = 95 };
enum { LEAST_ROOM_FRACTION = 16 };
static const size_t MOST_BYTES = SIZE_MAX / 8; /* no size that counts is larger */
static const double RUNWAY_SAFETY = 1.1;       /* a cycle that ends a little before the goal needs no assists */
static const double FIRST_GUESS = 0.5;         /* bytes allocated per byte marked */
static const double LEAST_OWN_TIME = 1.0 / 16; /* of the mutators' time: what is left beside assists and naps */
static const double LEAST_MARKERS = 1.0 / 16;  /* for each mutator that runs */
static const double SLICED_MARKERS = 1.0 / 3;  /* the same, where the program's threads mark, all of it */
static const double SURPRISE = 4;              /* a quarter more than expected, and all that is there is expected */
static const double MAX_ASSIST_RATIO = 64.0;

static size_t sum(size_t a, size_t b) {
    return min_size(a, MOST_BYTES) + min_size(b, MOST_BYTES);
}

/* What of a room, by a factor that may be anything from 0. */
static size_t scaled(size_t bytes, double factor) {
    double product = (double)bytes * factor;
    return product < (double)MOST_BYTES ? (size_t)product : MOST_BYTES;
}

void tri__pacer_init(struct pacer *p, const struct pacer_config *config) {
    *p = (struct pacer){.alloc_per_mark = FIRST_GUESS};
    tri__limiter_init(&p->limiter);
    tri__pacer_commit(p, config);
}

/* ---- learning ---------------------------------------------------------------------------------------------------- */

static double at_least(double a, double b) {
    return a > b ? a : b;
}

/* Bytes that would be allocated for each byte marked, if nobody had to assist. */
static double measured(const struct pacer_cycle *c) {
    if (c->marked_bytes == 0) return 0;
    double plain = (double)c->allocated_bytes / (double)c->marked_bytes;
    double marking_ns = (double)c->own_ns + (double)c->assist_ns, wall_ns = (double)c->wall_ns;
    if (wall_ns <= 0 || marking_ns <= 0) return plain;
    double nthreads = at_least(c->nthreads, 1), thread_ns = nthreads * wall_ns;
    double own_ns = at_least(thread_ns - (double)c->assist_ns - (double)c->stall_ns, thread_ns * LEAST_OWN_TIME);
    double cons_mark = plain / own_ns * marking_ns;
    double nmarkers = at_least((double)c->own_ns / wall_ns, nthreads * (c->own_ns ? LEAST_MARKERS : SLICED_MARKERS));
    return cons_mark * nthreads / nmarkers;
}

static double mean(const double *values, uint32_t n) {
    double total = 0;
    for (uint32_t i = 0; i < n; i++) total += values[i];
    return total / n;
}

void tri__pacer_learn(struct pacer *p, const struct pacer_cycle *c) {
    if (c->marked_bytes > 0) {
        for (uint32_t i = PACER_HISTORY - 1; i > 0; i--) p->history[i] = p->history[i - 1];
        p->history[0] = measured(c);
        p->nhistory += p->nhistory < PACER_HISTORY;
        p->alloc_per_mark = mean(p->history, p->nhistory); /* measured against others: docs/design.md */
    }
    size_t grown = c->marked_bytes > p->marked_bytes ? c->marked_bytes - p->marked_bytes : 0;
    p->marked_bytes = c->marked_bytes;
    p->live_bytes = c->live_bytes;
    p->root_bytes = c->root_bytes;
    p->external_bytes = c->external_bytes;
    p->expected_bytes = min_size(c->live_bytes, sum(c->marked_bytes, grown));
}

/* ---- goal and trigger -------------------------------------------------------------------------------------------- */

static void set_trigger(struct pacer *p) {
    size_t room = p->goal_bytes - p->base_bytes;
    size_t low = p->base_bytes + room / 100 * TRIGGER_LOW_PERCENT;
    size_t high = p->base_bytes + room / 100 * TRIGGER_HIGH_PERCENT;
    size_t runway = scaled(p->expected_bytes, p->alloc_per_mark * RUNWAY_SAFETY);
    size_t trigger = runway >= p->goal_bytes ? low : p->goal_bytes - runway;
    p->trigger_bytes = trigger < low ? low : trigger > high ? high : trigger;
    check_internal(p->base_bytes <= p->trigger_bytes && p->trigger_bytes <= p->goal_bytes &&
                       p->goal_bytes <= p->hard_goal_bytes,
                   "I-PACE1: base <= trigger <= goal <= hard goal");
}

/* The room within both limits: there is always a distance to run. */
static size_t within_limits(struct pacer *p, const struct pacer_config *config, size_t room) {
    size_t held = p->base_bytes, least = held / LEAST_ROOM_FRACTION;
    size_t soft = config->soft_limit_bytes, hard = config->hard_limit_bytes;
    p->limited = false;
    if (soft && (soft <= held || room > soft - held)) {
        size_t narrow = max_size(soft > held ? soft - held : 0, least);
        size_t wide = min_size(max_size(room, least), tri__limiter_room(&p->limiter, narrow));
        p->limited = wide > narrow;
        room = wide;
    }
    if (hard && (hard <= held || room > hard - held)) room = max_size(hard > held ? hard - held : 0, least);
    return room;
}

void tri__pacer_commit(struct pacer *p, const struct pacer_config *config) {
    size_t base = p->base_bytes = sum(p->live_bytes, p->external_bytes);
    size_t room = max_size(scaled(sum(base, p->root_bytes), config->growth_percent / 100.0), config->min_heap_bytes);
    size_t plain = within_limits(p, config, min_size(room, MOST_BYTES));
    room = within_limits(p, config, min_size(scaled(room, p->limiter.widened), MOST_BYTES));
    p->capped = room > plain;
    p->goal_bytes = base + room;
    p->hard_goal_bytes = p->goal_bytes + room / 3 * 2;
    set_trigger(p);
}

void tri__pacer_end(struct pacer *p, const struct pacer_config *config, const struct pacer_cycle *cycle) {
    tri__pacer_learn(p, cycle);
    tri__pacer_commit(p, config);
}

/* ---- the running cycle ------------------------------------------------------------------------------------------- */

void tri__pacer_begin(struct pacer *p, size_t heap_bytes, size_t external_bytes) {
    p->there_bytes = heap_bytes;
    p->began_bytes = sum(heap_bytes, external_bytes);
}

void tri__pacer_update(struct pacer *p, size_t marked_bytes, size_t total_bytes) {
    double expected = (double)p->expected_bytes, there = (double)max_size(p->there_bytes, p->expected_bytes);
    double marked = (double)marked_bytes, work = expected, goal = (double)p->goal_bytes;
    double hard = (double)p->hard_goal_bytes, total = (double)total_bytes, began = (double)p->began_bytes;
    if (marked > expected) { /* what was expected is done: the goal moves as the work does */
        double surprise = (marked - expected) * SURPRISE;
        bool some = surprise < expected && total < goal;
        work = some ? expected + (there - expected) * surprise / expected : there;
        goal = expected > 0 && goal > began ? goal + (goal - began) * (work - expected) / expected : hard;
        if (goal > hard) goal = hard;
    }
    if (total >= goal) {
        work = there;
        goal = hard;
    }
    double left = work > marked ? work - marked : 0;
    double ratio = total < goal ? left / (goal - total) : MAX_ASSIST_RATIO;
    p->assist_ratio = ratio > MAX_ASSIST_RATIO ? MAX_ASSIST_RATIO : ratio;
    check_internal(p->assist_ratio >= 0 && p->assist_ratio <= MAX_ASSIST_RATIO, "I-PACE2: the assist ratio is finite");
}
