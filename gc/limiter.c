/* limiter.c - the bucket of the soft limit and the controller of the cap; see limiter.h. */
#include "gc/limiter.h"
#include "alloc/base/check.h"

enum { MOST_DOUBLED = 16, SOFT_SHARE_PERCENT = 50 };
static const uint64_t NS_PER_CORE = 1000000000;
static const double MOST = LIMITER_MOST, MOST_STEP = 4;

void tri__limiter_init(struct limiter *l) {
    *l = (struct limiter){.widened = 1};
}

static void fill(struct limiter *l, const struct limiter_times *t, uint64_t wall_ns, uint64_t gc_ns) {
    uint32_t share = t->cpu_percent < SOFT_SHARE_PERCENT ? t->cpu_percent : SOFT_SHARE_PERCENT;
    uint64_t filled = l->fill_ns + gc_ns * 100 / share, drained = (uint64_t)((double)wall_ns * t->could_use / 1000);
    l->capacity_ns = NS_PER_CORE / 1000 * t->could_use;
    l->fill_ns = filled > drained ? filled - drained : 0;
    if (l->fill_ns >= l->capacity_ns) {
        l->fill_ns = l->capacity_ns;
        l->doubled += l->doubled < MOST_DOUBLED;
    } else if (l->fill_ns < l->capacity_ns / 2 && l->doubled > 0) {
        l->doubled--;
    }
    check_internal(l->fill_ns <= l->capacity_ns, "I-PACE3: the limiter's fill is at most its capacity");
}

/* `swept`: sweeping's part of the share. */
static void widen(struct limiter *l, double cap, double swept) {
    if (cap >= 1) {
        l->widened = 1;
        return;
    }
    double left = cap - swept > cap / 4 ? cap - swept : cap / 4;
    double asked = (l->share - swept) / left; /* by so much more room the last period would have kept to the cap */
    if (asked > MOST_STEP) asked = MOST_STEP;
    if (asked < 1.0 / MOST_STEP) asked = 1.0 / MOST_STEP;
    if (asked >= 1)
        l->widened *= 1 + (asked - 1) / 2;
    else
        l->widened /= 1 + (1 / asked - 1) / 2;
    if (l->widened < 1) l->widened = 1;
    if (l->widened > MOST) l->widened = MOST;
    check_internal(l->widened >= 1 && l->widened <= MOST, "I-PACE4: the room is widened by 1 to LIMITER_MOST");
}

void tri__limiter_tell(struct limiter *l, const struct limiter_times *t) {
    uint64_t wall_ns = t->now_ns - l->now_ns, busy_ns = t->busy_ns - l->busy_ns, swept_ns = t->swept_ns - l->swept_ns;
    uint64_t stalled_ns = t->stalled_ns - l->stalled_ns;
    bool first = l->now_ns == 0;
    l->now_ns = t->now_ns;
    l->busy_ns = t->busy_ns;
    l->swept_ns = t->swept_ns;
    l->stalled_ns = t->stalled_ns;
    if (first || wall_ns == 0) return;
    double all_ns = (double)wall_ns * t->millicpus / 1000;
    l->share = (double)(busy_ns + swept_ns) / all_ns;
    fill(l, t, wall_ns, busy_ns + swept_ns + stalled_ns);
    widen(l, t->cpu_percent / 100.0, (double)swept_ns / all_ns);
}

size_t tri__limiter_room(const struct limiter *l, size_t room_bytes) {
    size_t wide = room_bytes << l->doubled;
    return wide >> l->doubled == room_bytes ? wide : SIZE_MAX;
}
