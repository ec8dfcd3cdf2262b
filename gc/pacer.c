/* pacer.c - goal, trigger and assist ratio; see pacer.h. */
#include "gc/pacer.h"
#include "alloc/base/bits.h"
#include "alloc/base/check.h"

/* The trigger's window between live and goal, in percent: early enough for a first guess, late enough to be worth
 * it. */
enum { TRIGGER_LOW_PERCENT = 30, TRIGGER_HIGH_PERCENT = 95 };
enum { LEAST_ROOM_FRACTION = 16, LIMITER_MOST_DOUBLED = 16 };
static const uint64_t LIMITER_NS_PER_CORE = 1000000000;
static const double RUNWAY_SAFETY = 1.25; /* a cycle that ends a little before the goal needs no assists */
static const double SMOOTHING = 0.5;      /* weight of the newest measurement */
static const double MAX_ASSIST_RATIO = 64.0;

static void set_trigger(struct pacer *p) {
    size_t room = p->goal_bytes - p->base_bytes;
    size_t low = p->base_bytes + room / 100 * TRIGGER_LOW_PERCENT;
    size_t high = p->base_bytes + room / 100 * TRIGGER_HIGH_PERCENT;
    double runway = p->alloc_per_mark * (double)p->live_bytes * RUNWAY_SAFETY;
    size_t trigger = runway >= (double)p->goal_bytes ? low : p->goal_bytes - (size_t)runway;
    p->trigger_bytes = trigger < low ? low : trigger > high ? high : trigger;
    check_internal(p->base_bytes <= p->trigger_bytes && p->trigger_bytes <= p->goal_bytes,
                   "I-PACE1: base <= trigger <= goal");
}

void tri__pacer_init(struct pacer *p, const struct pacer_config *config) {
    *p = (struct pacer){.alloc_per_mark = 0.5};
    tri__pacer_end(p, config, 0, 0, 0, 0, 0);
}

void tri__pacer_spent(struct pacer *p, uint64_t now_ns, uint64_t spent_ns, uint32_t ncores) {
    struct limiter *l = &p->limiter;
    uint64_t wall_ns = now_ns - l->now_ns, gc_ns = spent_ns - l->spent_ns;
    bool first = l->now_ns == 0;
    l->now_ns = now_ns;
    l->spent_ns = spent_ns;
    l->capacity_ns = LIMITER_NS_PER_CORE * ncores;
    if (first) return;
    uint64_t filled = l->fill_ns + 2 * gc_ns, drained = wall_ns * ncores; /* half and half keeps it where it is */
    l->fill_ns = filled > drained ? filled - drained : 0;
    if (l->fill_ns >= l->capacity_ns) {
        l->fill_ns = l->capacity_ns;
        l->doubled += l->doubled < LIMITER_MOST_DOUBLED;
    } else if (l->fill_ns < l->capacity_ns / 2 && l->doubled > 0) {
        l->doubled--;
    }
    check_internal(l->fill_ns <= l->capacity_ns, "I-PACE3: the limiter's fill is at most its capacity");
}

/* The goal within both limits: there is always a distance to run. */
static size_t within_limits(struct pacer *p, const struct pacer_config *config, size_t goal, size_t held) {
    size_t least = held / LEAST_ROOM_FRACTION, soft = config->soft_limit_bytes, hard = config->hard_limit_bytes;
    p->limiter.widens = false;
    if (soft && goal > soft) {
        size_t room = max_size(soft > held ? soft - held : 0, least), wide = room << p->limiter.doubled;
        wide = wide >> p->limiter.doubled == room ? min_size(goal - held, wide) : goal - held;
        p->limiter.widens = wide > room && p->limiter.doubled > 0;
        goal = held + max_size(wide, least);
    }
    if (hard && goal > hard) goal = max_size(hard, held + least);
    return goal;
}

void tri__pacer_end(struct pacer *p, const struct pacer_config *config, size_t live_bytes, size_t root_bytes,
                    size_t external_bytes, size_t alloc_while_marking_bytes, size_t marked_bytes) {
    if (marked_bytes > 0) {
        double ratio = (double)alloc_while_marking_bytes / (double)marked_bytes;
        /* Up at once, down slowly: a trigger that is too late costs assists, one too early a little time. */
        if (ratio > p->alloc_per_mark)
            p->alloc_per_mark = ratio;
        else
            p->alloc_per_mark += SMOOTHING * (ratio - p->alloc_per_mark);
    }
    p->live_bytes = live_bytes;
    p->base_bytes = live_bytes + external_bytes;
    size_t held = live_bytes + external_bytes;
    size_t growth = (size_t)((double)(held + root_bytes) * config->growth_percent / 100.0);
    size_t goal = held + max_size(growth, config->min_heap_bytes);
    p->goal_bytes = within_limits(p, config, goal, held);
    set_trigger(p);
}

void tri__pacer_update(struct pacer *p, size_t marked_bytes, size_t heap_bytes) {
    /* What was live last time is what there is to mark; once past that, what is allocated now bounds it. */
    size_t expected = p->live_bytes > marked_bytes ? p->live_bytes - marked_bytes : 0;
    if (expected == 0 && heap_bytes > marked_bytes) expected = (heap_bytes - marked_bytes) / 2;
    double ratio;
    if (heap_bytes < p->goal_bytes)
        ratio = (double)expected / (double)(p->goal_bytes - heap_bytes);
    else
        ratio = MAX_ASSIST_RATIO;
    p->assist_ratio = ratio > MAX_ASSIST_RATIO ? MAX_ASSIST_RATIO : ratio;
    check_internal(p->assist_ratio >= 0 && p->assist_ratio <= MAX_ASSIST_RATIO, "I-PACE2: the assist ratio is finite");
}
