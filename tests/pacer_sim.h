/*
 * pacer_sim.h: a program and its collector without a heap, for the pacer and the limiter. Threads that allocate at
 * rates of their own share cores with markers; a slow path pays debt as gc/alloc.c does: credit first, then slices of
 * 50 us, more of them beyond the hard goal, naps where there is nothing to mark. One step of the simulation is such a
 * slice.
 *
 * What a cycle marks is what lived at its begin; what is allocated meanwhile survives it.
 */
#ifndef TRI_TESTS_PACER_SIM_H
#define TRI_TESTS_PACER_SIM_H

#include "gc/pacer.h"
#include "tests/fixture.h"

#define SIM_MIB 1048576.0

enum { SIM_THREADS = 64, SIM_LATENCY_STEPS = 4, SIM_UPDATE_STEPS = 4 };
static const double SIM_STEP_NS = 50000, SIM_UNIT = 32768, SIM_THRESHOLD = 16384;

/* Ways to guess the next cycle's allocation per byte marked from those that were. */
enum sim_guess { GUESS_OURS, GUESS_LAST, GUESS_MOST, GUESS_UP_AT_ONCE, NUM_GUESSES };

struct sim_thread {
    double rate;     /* bytes per step that it has for itself */
    double external; /* of them: the part outside the heap */
    double debt, taken;
    unsigned slices; /* that it still has to give */
};

struct sim_cycle {
    double over_goal, over_hard; /* the most that the heap had, by the goal (or what lives) and by the hard goal */
    double assist_share;         /* of the mutators' time while marking */
    double trigger_at;           /* between base and goal, 0 to 1 */
    double gc_share;             /* of all cores, from the end of the cycle before to this one's */
    double live, heap, room;
};

struct sim {
    struct pacer pacer;
    struct pacer_config config;
    enum sim_guess guess;
    double guessed;                     /* by up-at-once */
    double ncores, nmarkers, mark_rate; /* bytes per step of a marker */
    uint32_t nthreads, cpu_percent;
    struct sim_thread threads[SIM_THREADS];
    double live, retained; /* bytes; and of each byte allocated, the part that stays alive */
    double noise;          /* the rates change by up to this part with each cycle */
    double external_dies;  /* of the external bytes added, the part that is taken back at a cycle's end */
    uint64_t seed, steps;
    double heap, external, busy_ns, stalled_ns, last_busy_ns;
    uint64_t last_steps;
    size_t ncycles;
    struct sim_cycle cycle; /* the last one */
    /* of the running one */
    bool tracing;
    double marked, work, credit, allocated, own_ns, assist_ns, stall_ns, most;
};

/* What holds of every pacer, whatever it was told. */
static inline void check_order(const struct pacer *p, const char *what) {
    CHECK_MSG(p->base_bytes <= p->trigger_bytes && p->trigger_bytes <= p->goal_bytes &&
                  p->goal_bytes <= p->hard_goal_bytes,
              "%s: base %zu, trigger %zu, goal %zu, hard goal %zu", what, p->base_bytes, p->trigger_bytes,
              p->goal_bytes, p->hard_goal_bytes);
}

static inline double sim_random(struct sim *s) { /* 0 to 1 */
    s->seed = s->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(s->seed >> 40) / (double)(1 << 24);
}

static inline void sim_open(struct sim *s, struct pacer_config config, double live, double rate, double mark_rate) {
    *s = (struct sim){.config = config,
                      .ncores = 2,
                      .nmarkers = 1,
                      .mark_rate = mark_rate,
                      .nthreads = 1,
                      .cpu_percent = 100,
                      .live = live,
                      .heap = live,
                      .seed = 1,
                      .guessed = 0.5};
    for (size_t i = 0; i < SIM_THREADS; i++) s->threads[i].rate = rate;
    tri__pacer_init(&s->pacer, &config);
}

static inline double sim_total(const struct sim *s) {
    return s->heap + s->external;
}

/* Debt for what was added, and at the slow path the slices that it costs. */
static inline void sim_account(struct sim *s, struct sim_thread *t) {
    if (t->taken < SIM_UNIT) return;
    double taken = t->taken;
    t->taken = 0;
    if (!s->tracing) {
        t->debt = 0;
        return;
    }
    t->debt += taken * s->pacer.assist_ratio;
    double borrowed = t->debt < s->credit ? t->debt : s->credit;
    t->debt -= borrowed;
    s->credit -= borrowed;
    bool far = sim_total(s) > (double)s->pacer.hard_goal_bytes;
    t->slices = t->debt > SIM_THRESHOLD || far ? (1 + (unsigned)(taken / SIM_UNIT)) * (far ? 8 : 1) : 0;
}

/* `share`: of the step, what the thread gets of a core. */
static inline void sim_run_thread(struct sim *s, struct sim_thread *t, double share) {
    double ns = SIM_STEP_NS * share;
    if (t->slices > 0) {
        bool work = s->tracing && s->marked < s->work;
        if (work && t->debt > SIM_THRESHOLD) {
            s->marked += s->mark_rate * share;
            t->debt -= s->mark_rate * share;
            s->assist_ns += ns;
        } else if (!work && sim_total(s) > (double)s->pacer.goal_bytes) {
            s->stall_ns += ns;
        } else {
            t->slices = 0;
        }
        if (t->slices > 0) {
            t->slices--;
            return;
        }
    }
    double bytes = t->rate * share, outside = bytes * t->external;
    s->heap += bytes - outside;
    s->external += outside;
    s->live += (bytes - outside) * s->retained;
    s->allocated += bytes;
    t->taken += bytes;
    sim_account(s, t);
}

static inline void sim_step(struct sim *s, bool cycle) {
    double nmarkers = cycle && s->tracing ? s->nmarkers : 0, runnable = s->nthreads + nmarkers;
    double share = runnable > s->ncores ? s->ncores / runnable : 1;
    for (uint32_t i = 0; i < s->nthreads; i++) sim_run_thread(s, &s->threads[i], share);
    if (nmarkers > 0 && s->marked < s->work) {
        double marks = nmarkers * s->mark_rate * share;
        s->marked += marks;
        s->credit += marks;
        s->own_ns += nmarkers * SIM_STEP_NS * share;
    }
    s->steps++;
    if (sim_total(s) > s->most) s->most = sim_total(s);
}

static inline void sim_learn(struct sim *s, const struct pacer_cycle *c) {
    struct pacer *p = &s->pacer;
    tri__pacer_learn(p, c);
    double newest = p->history[0], most = 0;
    for (uint32_t i = 0; i < p->nhistory; i++)
        if (p->history[i] > most) most = p->history[i];
    s->guessed = newest > s->guessed ? newest : (s->guessed + newest) / 2;
    switch (s->guess) {
    case GUESS_LAST: p->alloc_per_mark = newest; break;
    case GUESS_MOST: p->alloc_per_mark = most; break;
    case GUESS_UP_AT_ONCE: p->alloc_per_mark = s->guessed; break;
    default: break;
    }
    tri__pacer_commit(p, &s->config);
}

static inline void sim_end_cycle(struct sim *s, uint64_t began) {
    struct pacer *p = &s->pacer;
    double goal = (double)p->goal_bytes > s->work ? (double)p->goal_bytes : s->work;
    double wall_ns = (double)(s->steps - began) * SIM_STEP_NS, hard = (double)p->hard_goal_bytes;
    s->cycle = (struct sim_cycle){.over_goal = s->most / goal,
                                  .over_hard = s->most / (hard > s->work ? hard : s->work),
                                  .assist_share = s->assist_ns / (wall_ns * s->nthreads),
                                  .live = s->live};
    s->busy_ns += s->own_ns + s->assist_ns;
    s->stalled_ns += s->stall_ns;
    double period_ns = (double)(s->steps - s->last_steps) * SIM_STEP_NS;
    s->cycle.gc_share = (s->busy_ns - s->last_busy_ns) / (period_ns * s->ncores);
    s->last_busy_ns = s->busy_ns;
    s->last_steps = s->steps;
    double survives = s->work + s->allocated; /* allocated black */
    if (survives < s->heap) s->heap = survives;
    s->external *= 1 - s->external_dies;
    uint32_t ncould = s->nthreads + 1 < s->ncores ? s->nthreads + 1 : (uint32_t)s->ncores;
    struct limiter_times times = {.now_ns = (s->steps + 1) * (uint64_t)SIM_STEP_NS,
                                  .busy_ns = (uint64_t)s->busy_ns,
                                  .stalled_ns = (uint64_t)s->stalled_ns,
                                  .millicpus = (uint32_t)(s->ncores * 1000),
                                  .could_use = ncould * 1000,
                                  .cpu_percent = s->cpu_percent};
    tri__limiter_tell(&p->limiter, &times);
    struct pacer_cycle c = {.live_bytes = (size_t)s->heap,
                            .external_bytes = (size_t)s->external,
                            .allocated_bytes = (size_t)s->allocated,
                            .marked_bytes = (size_t)s->work,
                            .wall_ns = (uint64_t)wall_ns,
                            .own_ns = (uint64_t)s->own_ns,
                            .assist_ns = (uint64_t)s->assist_ns,
                            .stall_ns = (uint64_t)s->stall_ns,
                            .nthreads = s->nthreads < s->ncores ? s->nthreads : (uint32_t)s->ncores};
    sim_learn(s, &c);
    s->cycle.heap = sim_total(s);
    s->cycle.room = (double)(p->goal_bytes - p->base_bytes);
    s->cycle.trigger_at = (double)(p->trigger_bytes - p->base_bytes) / s->cycle.room;
    s->ncycles++;
}

/* Allocates up to the trigger, and through the marking. */
static inline void sim_cycle(struct sim *s) {
    struct pacer *p = &s->pacer;
    double plain[SIM_THREADS];
    for (uint32_t i = 0; i < s->nthreads; i++) {
        plain[i] = s->threads[i].rate;
        s->threads[i].rate *= 1 + s->noise * (2 * sim_random(s) - 1);
        s->threads[i].debt = 0;
        s->threads[i].slices = 0;
    }
    s->tracing = false;
    for (uint64_t limit = s->steps + 10000000; sim_total(s) < (double)p->trigger_bytes && s->steps < limit;)
        sim_step(s, false);
    s->work = s->live < s->heap ? s->live : s->heap;
    s->marked = s->credit = s->allocated = s->own_ns = s->assist_ns = s->stall_ns = s->most = 0;
    uint64_t began = s->steps;
    tri__pacer_begin(p, (size_t)s->heap, (size_t)s->external);
    for (int i = 0; i < SIM_LATENCY_STEPS; i++) sim_step(s, true);
    for (uint64_t n = 0; s->marked < s->work && n < 10000000; n++) {
        if (n % SIM_UPDATE_STEPS == 0) tri__pacer_update(p, (size_t)s->marked, (size_t)sim_total(s));
        s->tracing = true;
        sim_step(s, true);
    }
    s->tracing = false;
    for (int i = 0; i < SIM_LATENCY_STEPS; i++) sim_step(s, true);
    sim_end_cycle(s, began);
    for (uint32_t i = 0; i < s->nthreads; i++) s->threads[i].rate = plain[i];
}

#endif
