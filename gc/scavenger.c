/* scavenger.c - when memory goes back to the system, and how fast.
 *
 * Owns: the thread "trigc-mem" of a heap, how many free pages stay resident, the idle period. Does not own: which pages
 * go (alloc/pageheap.c: the highest first), what the system says of its memory (alloc/base/pressure.c), cycles.
 *
 * Kept resident, in pages in use and free together:
 *   as a rule   the most that any cycle of the last 8 seconds needed: the pacer's goal and a tenth, or what was in use
 *               at its peak. The window is the hysteresis: a load that rises and falls within it keeps its pages.
 *   near a limit (soft, hard)  no more than 95 % of it
 *   under pressure, and idle   what is in use
 * What is beyond that goes at once where one of the last three holds; else at the pace of 1 % of a core: a slice that
 * takes about a millisecond, by the thread's own CPU clock, then a rest of 99 times that.
 *
 * An idle period begins when no allocation took a slow path, and no span of manual memory came or went, for
 * idle_trim_ms. The heap is trimmed then, and collected (reason "idle"), once a period and not oftener than costs 1 %
 * of the time. While it idles nothing wakes the thread but an event; while something allocates it looks four times in
 * idle_trim_ms.
 *
 * Ahead of growth: while a heap of 64 MiB or more takes pages that have no memory yet, the thread populates those that
 * come next, in slices of 256 KiB, so that the page faults are not the mutators': a sixteenth of the goal at most, 32
 * MiB at most, and never beyond the goal.
 *
 * The limit on the address space is none of these: it is taken up by the reservation, and no page that goes back
 * changes that.
 *
 * Invariants: I-SCAV1 the thread holds no lock while it sleeps or calls the system. I-SCAV2 an event that is signalled
 * after the thread took the others ends its sleep. Lock ranks: none of its own; page heap (70) and cycle (10), one at a
 * time. */
#include "gc/scavenger.h"
#include "alloc/base/check.h"
#include "gc/fork.h"
#include "gc/heap.h"

enum { EVENT_QUIT = 1, EVENT_CYCLE = 2, EVENT_OPTIONS = 4, EVENT_LIMIT = 8, EVENT_STIRRED = 16, EVENT_GROWS = 32 };

enum {
    KEEP_PERCENT = 10,        /* beyond the goal */
    NEAR_LIMIT_FRACTION = 20, /* the last twentieth of a limit is near it */
    REST_FACTOR = 99,         /* 1 % of a core */
    FIRST_SLICE_PAGES = 256,
    LEAST_SLICE_PAGES = 64,
    LEAST_STEP_PAGES = 4, /* in a step's budget */
    MOST_POSTPONED = 8,   /* steps that had no time for it, before one that has none takes it all the same */
    MOST_SLICE_PAGES = 4096,
    URGENT_SLICE_PAGES = 1024,
    FALLBACK_PAGES = 8192, /* at a cycle's end, without the thread */
    TICKS_OF_IDLE = 4,
    AHEAD_HEAP_PAGES = (64 << 20) >> PAGE_SHIFT, /* smaller heaps are not populated ahead */
    AHEAD_FRACTION = 16,                         /* of the goal */
    AHEAD_LEAST_PAGES = (2 << 20) >> PAGE_SHIFT,
    AHEAD_MOST_PAGES = (32 << 20) >> PAGE_SHIFT,
    AHEAD_SLICE_PAGES = (256 << 10) >> PAGE_SHIFT,
    AHEAD_SLICES = 16 /* between two looks at everything else */
};
static const uint64_t AHEAD_REST_NS = 5000000;   /* after it asked and nothing could be done */
static const uint64_t AHEAD_AGAIN_NS = 50000000; /* a heap that asks again so soon wants more */
static const uint64_t CYCLE_WAKE_NS = 100000000; /* a small heap has thousands of cycles a second */
static const uint64_t SLICE_NS = 1000000, SHORT_SLICE_NS = 20000, SECOND_NS = 1000000000, FOREVER_NS = UINT64_MAX,
                      PRESSED_NS = 5 * 1000000000ull, /* how long one sign of pressure counts */
    DORMANT_AFTER_NS = 5 * 1000000000ull,             /* without an idle period: no ticks after that */
    PRESSURE_CYCLE_NS = 2 * 1000000000ull;            /* between two cycles that pressure asks for */
static const size_t PRESSURE_GARBAGE_BYTES = 4 << 20; /* less is not worth a cycle */

/* ---- signals ------------------------------------------------------------------------------------------------- */

static bool has_thread(const struct scavenger *s) {
    return atomic_load_acquire(&s->started); /* pairs with tri__scavenger_start */
}

static void signal_event(struct scavenger *s, uint32_t event) {
    if (atomic_or_seq(&s->events, event) == 0) /* pairs with the swap in scavenger_main (I-SCAV2) */
        tri__pressure_wake(&s->pressure, &s->events);
}

void tri__scavenger_stir(tri_heap *heap, struct scavenger *s) {
    (void)heap;
    if (atomic_swap_seq(&s->quiet, SCAVENGER_STIRRED) == SCAVENGER_DORMANT) /* pairs with go_dormant */
        signal_event(s, EVENT_STIRRED);
}

void tri__scavenger_limit_near(tri_heap *heap) {
    if (has_thread(&heap->scavenger)) signal_event(&heap->scavenger, EVENT_LIMIT);
}

/* ---- how much stays ------------------------------------------------------------------------------------------ */

static size_t pages_of_goal(tri_heap *heap) {
    size_t goal = atomic_load_relaxed(&heap->goal_bytes), outside = atomic_load_relaxed(&heap->external_bytes);
    return (goal > outside ? goal - outside : 0) >> PAGE_SHIFT; /* counters */
}

/* Pages that the heap may have resident by its limits; SIZE_MAX: no limit. */
static size_t pages_of_limit(tri_heap *heap) {
    size_t hard = atomic_load_relaxed(&heap->mem.limit_pages); /* options and counters */
    size_t soft = atomic_load_relaxed(&heap->config.soft_limit_bytes);
    size_t outside = atomic_load_relaxed(&heap->external_bytes);
    size_t limit = hard < heap->mem.space.npages ? hard : SIZE_MAX;
    if (soft) limit = min_size(limit, (soft > outside ? soft - outside : 0) >> PAGE_SHIFT);
    return limit;
}

static size_t near_limit(tri_heap *heap) {
    size_t limit = pages_of_limit(heap);
    return limit == SIZE_MAX ? SIZE_MAX : limit - limit / NEAR_LIMIT_FRACTION;
}

/* What the heap will need until its next cycle ends: the goal, or, where spans are sparse, the pages in use now and the
 * bytes up to the goal, if they were needed in the cycle before. */
static size_t pages_needed(tri_heap *heap, const struct pageheap_stats *ps) {
    size_t goal = pages_of_goal(heap), bytes = atomic_load_relaxed(&heap->heap_bytes) >> PAGE_SHIFT; /* a counter */
    size_t sparse = ps->used_pages + (goal > bytes ? goal - bytes : 0);
    size_t need = max_size(goal, min_size(sparse, ps->peak_pages));
    return need + need * KEEP_PERCENT / 100;
}

static void set_alarm(tri_heap *heap) {
    tri__pageheap_set_alarm(heap->mem.pages, pages_of_limit(heap));
}

static void note_need(struct scavenger *s, uint64_t now_ns, size_t npages) {
    uint64_t second = now_ns / SECOND_NS;
    struct scavenger_need *slot = &s->window[second % SCAVENGER_WINDOW_S];
    if (slot->second != second) *slot = (struct scavenger_need){second, 0};
    slot->npages = max_size(slot->npages, npages);
}

static size_t most_needed(const struct scavenger *s, uint64_t now_ns) {
    uint64_t second = now_ns / SECOND_NS;
    size_t most = s->want_pages;
    for (int i = 0; i < SCAVENGER_WINDOW_S; i++)
        if (s->window[i].second + SCAVENGER_WINDOW_S > second) most = max_size(most, s->window[i].npages);
    return most;
}

static void forget_needs(struct scavenger *s) {
    for (int i = 0; i < SCAVENGER_WINDOW_S; i++) s->window[i] = (struct scavenger_need){0, 0};
}

/* ---- ahead of growth ----------------------------------------------------------------------------------------- */

/* How far ahead pages may be populated now: nothing in a small heap, never beyond what the goal lets the heap have. */
static size_t most_ahead(tri_heap *heap) {
    size_t goal = pages_of_goal(heap), bytes = atomic_load_relaxed(&heap->heap_bytes) >> PAGE_SHIFT;   /* a counter */
    if (!(atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_POPULATE) || heap->threadless) return 0; /* an option */
    if (goal < AHEAD_HEAP_PAGES || atomic_load_relaxed(&heap->scavenger.cannot_populate)) return 0; /* own, and tests */
    size_t most = min_size(min_size(goal / AHEAD_FRACTION, AHEAD_MOST_PAGES), goal > bytes ? goal - bytes : 0);
    return most >= AHEAD_LEAST_PAGES ? most : 0;
}

/* To be told when the heap takes pages that have no memory yet. */
static void ask_for_growth(tri_heap *heap) {
    struct scavenger *s = &heap->scavenger;
    if (s->grows) return;
    s->ask_ns = 0;
    tri__pageheap_set_ahead(heap->mem.pages, most_ahead(heap) ? max_size(s->ahead_pages, AHEAD_LEAST_PAGES) / 2 : 0);
}

void tri__scavenger_grows(tri_heap *heap) {
    if (has_thread(&heap->scavenger)) signal_event(&heap->scavenger, EVENT_GROWS);
}

/* Further ahead each time when the heap asks again soon, less far when it does not. */
static void begin_populating(tri_heap *heap, uint64_t now_ns) {
    struct scavenger *s = &heap->scavenger;
    size_t ahead = now_ns - s->grew_ns < AHEAD_AGAIN_NS ? s->ahead_pages * 2 : s->ahead_pages / 2;
    s->ahead_pages = max_size(ahead, AHEAD_LEAST_PAGES);
    s->grew_ns = now_ns;
    s->grows = true;
    s->populated = 0;
}

/* A few slices. True if there is more to populate. */
static bool populate(tri_heap *heap) {
    NO_FORK_REST();
    struct scavenger *s = &heap->scavenger;
    struct pageheap_stats ps;
    bool working = true;
    size_t n = 1, sum = 0, most = most_ahead(heap), near = near_limit(heap);
    uint64_t cpu_ns = tri__os_thread_cpu_ns();
    tri__pageheap_get_stats(heap->mem.pages, &ps);
    s->ahead_pages = min_size(s->ahead_pages, most);
    if (near != SIZE_MAX && ps.used_pages + ps.dirty_free_pages + most > near) most = 0;
    for (int i = 0; most && n && working && i < AHEAD_SLICES && !atomic_load_relaxed(&s->events); i++) /* a hint */
        sum += n = tri__pageheap_populate(heap->mem.pages, s->ahead_pages, AHEAD_SLICE_PAGES, &working);
    if (most && !working) atomic_store_relaxed(&s->cannot_populate, true);
    s->paid_cpu_ns += tri__os_thread_cpu_ns() - cpu_ns; /* it is the mutators' work, not paid for by rests */
    s->grows = most && n && working;
    s->populated += sum;
    if (s->grows) return true;
    if (s->populated)
        ask_for_growth(heap);
    else
        s->ask_ns = tri__os_now_ns() + AHEAD_REST_NS; /* the last arena is full, or memory is short */
    return false;
}

/* ---- a cycle's end, and what is needed --------------------------------------------------------------------------- */

static void note_use(tri_heap *heap, uint64_t now_ns) {
    struct scavenger *s = &heap->scavenger;
    struct pageheap_stats ps;
    tri__pageheap_get_stats(heap->mem.pages, &ps);
    size_t peak = tri__pageheap_take_peak(heap->mem.pages);
    s->want_pages = pages_needed(heap, &ps);
    s->noted_ns = now_ns;
    note_need(s, now_ns, max_size(s->want_pages, peak));
}

static void after_cycle(tri_heap *heap, uint64_t now_ns) {
    struct scavenger *s = &heap->scavenger;
    note_use(heap, now_ns);
    uint64_t cost_ns = tri__stats_busy_ns(heap);
    s->cost_ns = cost_ns - s->cost_seen_ns;
    s->cost_seen_ns = cost_ns;
    s->trims = true;
    s->idle_owes = false; /* this one will do */
    set_alarm(heap);      /* external bytes count in the soft limit */
    ask_for_growth(heap);
}

void tri__scavenger_cycle_ended(tri_heap *heap) {
    struct scavenger *s = &heap->scavenger;
    atomic_add_seq(&s->cycles, 1); /* before the look at cares; pairs with the turn that sets it */
    if (s->lost) tri__scavenger_start(heap);
    if (has_thread(s)) {
        uint64_t now_ns = tri__os_now_ns();
        if (now_ns - s->woken_ns < CYCLE_WAKE_NS && !atomic_load_seq(&s->cares)) return; /* it sees the count in time */
        s->woken_ns = now_ns;
        signal_event(s, EVENT_CYCLE);
        return;
    }
    struct pageheap_stats ps;
    tri__pageheap_get_stats(heap->mem.pages, &ps);
    size_t keep = min_size(pages_needed(heap, &ps), near_limit(heap)), resident = ps.used_pages + ps.dirty_free_pages;
    tri__pageheap_take_peak(heap->mem.pages);
    set_alarm(heap);
    NO_FORK_REST();
    if (resident > keep) tri__memory_scavenge(&heap->mem, min_size(resident - keep, FALLBACK_PAGES));
}

/* ---- pressure ------------------------------------------------------------------------------------------------ */

static bool cycles_allowed(tri_heap *heap) {
    return !(atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_NO_CYCLES); /* an option */
}

static bool much_is_garbage(tri_heap *heap) {
    size_t size = atomic_load_relaxed(&heap->heap_bytes), live = atomic_load_relaxed(&heap->live_bytes); /* counters */
    return size > live && size - live > max_size(live / 4, PRESSURE_GARBAGE_BYTES);
}

static void look_at_pressure(tri_heap *heap, uint64_t now_ns, uint32_t fired) {
    struct scavenger *s = &heap->scavenger;
    struct pressure_report report;
    if (!s->pressure.sources || (!fired && (!s->active || now_ns - s->looked_ns < SECOND_NS))) return;
    s->looked_ns = now_ns;
    if (!tri__pressure_look(&s->pressure, now_ns, fired, &report)) return;
    s->pressed_until_ns = now_ns + PRESSED_NS;
    s->trims = true;
    s->refused = false;
    uint64_t pause_ns = s->cost_ns * 20 > PRESSURE_CYCLE_NS ? s->cost_ns * 20 : PRESSURE_CYCLE_NS;
    if (!cycles_allowed(heap) || !much_is_garbage(heap) || now_ns - s->pressure_cycle_ns < pause_ns) return;
    s->pressure_cycle_ns = now_ns;
    tri__cycle_request(heap, "pressure");
}

/* ---- the idle period ----------------------------------------------------------------------------------------- */

/* idle_trim_ms in nanoseconds, at most a year; 0: off. */
static uint64_t idle_after_ns(tri_heap *heap) {
    const uint64_t most_ms = 365ull * 24 * 3600 * 1000;
    uint64_t ms = atomic_load_relaxed(&heap->config.idle_trim_ms); /* an option */
    return (ms < most_ms ? ms : most_ms) * 1000000;
}

static void note_activity(struct scavenger *s, uint64_t now_ns) {
    s->activity_ns = now_ns;
    s->active = true;
    s->idle = s->idle_owes = false;
    s->refused = false;
}

static void begin_idle(tri_heap *heap) {
    struct scavenger *s = &heap->scavenger;
    s->idle = s->idle_owes = true;
    s->trims = true;
    s->active = false;
    forget_needs(s);
}

/* Asks for the idle period's cycle, or says how long it must wait for what the last one cost. What is free already goes
 * back without it. */
static uint64_t idle_cycle(tri_heap *heap, uint64_t now_ns) {
    struct scavenger *s = &heap->scavenger;
    if (!s->idle_owes || !cycles_allowed(heap) || idle_after_ns(heap) == 0) return FOREVER_NS;
    uint64_t rest_ns = s->cost_ns * REST_FACTOR, since_ns = now_ns - s->idle_cycle_ns;
    if (s->idle_cycle_ns && since_ns < rest_ns) return rest_ns - since_ns;
    s->idle_owes = false;
    s->idle_cycle_ns = now_ns;
    tri__cycle_request(heap, "idle");
    return FOREVER_NS;
}

/* No tick until something allocates. False: it has allocated just now. */
static bool go_dormant(struct scavenger *s) {
    uint32_t quiet = SCAVENGER_QUIET;
    return atomic_cas_seq(&s->quiet, &quiet, SCAVENGER_DORMANT); /* pairs with scavenger_stir */
}

/* Begins and ends idle periods. The time to the next look. */
static uint64_t watch_activity(tri_heap *heap, uint64_t now_ns) {
    struct scavenger *s = &heap->scavenger;
    uint64_t idle_ns = idle_after_ns(heap), after_ns = idle_ns ? idle_ns : DORMANT_AFTER_NS;
    if (atomic_load_relaxed(&s->quiet) == SCAVENGER_STIRRED) { /* a hint: what it misses the next look sees */
        note_activity(s, now_ns);
        atomic_store_seq(&s->quiet, SCAVENGER_QUIET);
    }
    if (!s->active) return idle_cycle(heap, now_ns);
    uint64_t quiet_ns = now_ns - s->activity_ns, tick_ns = after_ns / TICKS_OF_IDLE;
    if (tri__pressure_needs_reading(&s->pressure) && tick_ns > SECOND_NS) tick_ns = SECOND_NS;
    if (quiet_ns < after_ns) return after_ns - quiet_ns < tick_ns ? after_ns - quiet_ns : tick_ns;
    if (!go_dormant(s)) return 0;
    if (idle_ns)
        begin_idle(heap);
    else
        s->active = false;
    return idle_cycle(heap, now_ns);
}

/* ---- returning ----------------------------------------------------------------------------------------------- */

/* Returns one slice. Sets the size of the next one so that it takes SLICE_NS. */
static size_t return_slice(tri_heap *heap, size_t npages, bool urgent) {
    struct scavenger *s = &heap->scavenger;
    uint64_t cpu_ns = tri__os_thread_cpu_ns();
    size_t most = urgent && !heap->threadless ? (size_t)URGENT_SLICE_PAGES : s->slice_pages;
    size_t least = heap->threadless ? LEAST_STEP_PAGES : LEAST_SLICE_PAGES;
    size_t n = tri__memory_scavenge(&heap->mem, min_size(npages, most));
    cpu_ns = tri__os_thread_cpu_ns() - cpu_ns;
    if ((!urgent || heap->threadless) && n == most && cpu_ns > 0) {
        size_t fit = (size_t)((double)n * (double)s->slice_ns / (double)cpu_ns);
        s->slice_pages = max_size(least, min_size((s->slice_pages + fit) / 2, MOST_SLICE_PAGES));
    }
    return n;
}

/* Returns some of what is too much. The time until there may be more to return: 0 at once. */
static uint64_t scavenge(tri_heap *heap, uint64_t now_ns) {
    NO_FORK_REST();
    struct scavenger *s = &heap->scavenger;
    struct pageheap_stats ps;
    bool all = now_ns < s->pressed_until_ns || s->idle;
    if (all && s->trims) { /* once for each cycle, idle period and sign of pressure: they look at every span */
        tri__manual_trim(&heap->mem);
        if (!tri__memory_drop_empty(&heap->mem, true)) return SECOND_NS; /* the world is stopped */
        s->trims = false;
        tri__copies_trim(heap);
        tri__memory_return_inside(&heap->mem);
    }
    tri__pageheap_get_stats(heap->mem.pages, &ps);
    size_t resident = ps.used_pages + ps.dirty_free_pages, near = near_limit(heap);
    bool urgent = all || resident > near;
    size_t keep = all ? 0 : min_size(most_needed(s, now_ns), near);
    size_t excess = resident > keep ? min_size(resident - keep, ps.dirty_free_pages) : 0;
    if (all && ps.dirty_free_pages == 0) tri__pageheap_release(heap->mem.pages);
    if (ps.dirty_free_pages == 0 || s->refused) return FOREVER_NS;
    if (excess == 0) return resident > s->want_pages ? SECOND_NS : FOREVER_NS; /* until the window has moved on */
    if (!urgent && now_ns < s->rest_until_ns) return s->rest_until_ns - now_ns;
    if (return_slice(heap, excess, urgent) == 0) {
        s->refused = true;
        return FOREVER_NS;
    }
    uint64_t cpu_ns = tri__os_thread_cpu_ns();
    uint64_t rest_ns = urgent ? 0 : (cpu_ns - s->paid_cpu_ns) * REST_FACTOR;
    s->paid_cpu_ns = cpu_ns;
    s->rest_until_ns = now_ns + rest_ns;
    return rest_ns;
}

/* ---- the thread ---------------------------------------------------------------------------------------------- */

/* The time to sleep, 0: none. */
static uint64_t turn(tri_heap *heap, uint32_t events, uint32_t fired) {
    struct scavenger *s = &heap->scavenger;
    uint64_t now_ns = tri__os_now_ns();
    uint64_t cycles = atomic_load_seq(&s->cycles); /* pairs with cycle_ended */
    if (cycles != s->cycles_seen || (events & (EVENT_OPTIONS | EVENT_LIMIT))) s->refused = false;
    if (cycles != s->cycles_seen) after_cycle(heap, now_ns);
    s->cycles_seen = cycles;
    uint64_t tick_ns = watch_activity(heap, now_ns);
    if (s->active && now_ns - s->noted_ns >= SECOND_NS) note_use(heap, now_ns); /* no cycle for long: manual memory */
    look_at_pressure(heap, now_ns, fired);
    uint64_t nap_ns = scavenge(heap, now_ns);
    if (events & EVENT_GROWS) begin_populating(heap, now_ns);
    if (s->grows && populate(heap)) nap_ns = 0;
    if (s->ask_ns && now_ns >= s->ask_ns) ask_for_growth(heap);
    if (s->ask_ns && nap_ns > s->ask_ns - now_ns) nap_ns = s->ask_ns - now_ns;
    bool cares = s->idle || now_ns < s->pressed_until_ns;
    atomic_store_seq(&s->cares, cares); /* pairs with cycle_ended: it sees this, or its cycle is seen here */
    if (cares && atomic_load_seq(&s->cycles) != cycles) return 0;
    return nap_ns < tick_ns ? nap_ns : tick_ns;
}

static void scavenger_main(void *p) {
    tri_heap *heap = p;
    struct scavenger *s = &heap->scavenger;
    uint32_t fired = 0;
    tri__fork_forbid("the scavenger's thread");
    tri__pressure_init(&s->pressure);
    after_cycle(heap, tri__os_now_ns());
    for (;;) {
        uint32_t events = atomic_swap_seq(&s->events, 0); /* pairs with signal_event (I-SCAV2) */
        if (events & EVENT_QUIT) break;
        uint64_t nap_ns = turn(heap, events, fired);
        fired = 0;
        atomic_store_relaxed(&s->cpu_ns, tri__os_thread_cpu_ns()); /* a counter */
        check_cheap(tri__lock_none_held(), "I-SCAV1: nothing is held while it sleeps");
        if (nap_ns) fired = tri__pressure_wait(&s->pressure, &s->events, nap_ns == FOREVER_NS ? 0 : nap_ns);
    }
}

/* ---- without the thread ---------------------------------------------------------------------------------------- */

bool tri__scavenger_is_due(tri_heap *heap, uint64_t since_ns) {
    struct scavenger *s = &heap->scavenger;
    uint32_t events = atomic_load_relaxed(&s->events); /* hints */
    if (events && (since_ns == 0 || events & EVENT_LIMIT)) return true;
    uint64_t next_ns = events ? atomic_load_relaxed(&s->turned_ns) : atomic_load_relaxed(&s->next_ns);
    return next_ns < FOREVER_NS - since_ns && tri__os_now_ns() >= next_ns + since_ns;
}

/* What the system has told of since the last look. */
static uint32_t pressure_news(struct scavenger *s, uint64_t now_ns) {
    const uint32_t nothing = 0;
    if (s->pressure.wake_fd < 0 || now_ns - s->looked_ns < SECOND_NS) return 0; /* read where it is not told */
    return tri__pressure_wait(&s->pressure, &nothing, 1);
}

bool tri__scavenger_step(tri_heap *heap, uint64_t deadline_ns) {
    struct scavenger *s = &heap->scavenger;
    uint64_t nap_ns = 0, now_ns = tri__os_now_ns();
    if (!tri__scavenger_is_due(heap, 0)) return false;
    /* A host with the smallest budgets gets somewhere, too. */
    bool late = now_ns + SHORT_SLICE_NS > deadline_ns, anyway = late && ++s->npostponed > MOST_POSTPONED;
    for (; nap_ns == 0 && (anyway || now_ns + SHORT_SLICE_NS <= deadline_ns); anyway = false) {
        s->npostponed = 0;
        uint32_t events = atomic_swap_seq(&s->events, 0); /* pairs with signal_event */
        uint64_t cpu_ns = tri__os_thread_cpu_ns();
        s->paid_cpu_ns = cpu_ns; /* what the thread did before was its host's */
        nap_ns = turn(heap, events, pressure_news(s, now_ns));
        atomic_add_relaxed(&s->cpu_ns, tri__os_thread_cpu_ns() - cpu_ns); /* a counter */
        now_ns = tri__os_now_ns();
        atomic_store_relaxed(&s->turned_ns, now_ns); /* hints */
        atomic_store_relaxed(&s->next_ns, nap_ns == FOREVER_NS ? FOREVER_NS : now_ns + nap_ns);
    }
    return nap_ns == 0;
}

void tri__scavenger_start(tri_heap *heap) {
    struct scavenger *s = &heap->scavenger;
    s->pressure = (struct pressure)PRESSURE_INIT;
    s->slice_pages = FIRST_SLICE_PAGES;
    s->quiet = SCAVENGER_DORMANT;
    set_alarm(heap);
    s->slice_ns = heap->threadless ? SHORT_SLICE_NS : SLICE_NS;
    s->lost = false;
    if (heap->threadless) {
        s->slice_pages = LEAST_STEP_PAGES;
        s->next_ns = FOREVER_NS;
        tri__pressure_init(&s->pressure);
        after_cycle(heap, tri__os_now_ns());
    }
    atomic_store_release(&s->started, true); /* before its first cycle */
    if (heap->threadless) return;
    bool started = tri__os_thread_start(&s->thread, scavenger_main, heap, "trigc-mem");
    atomic_store_release(&s->started, started); /* pairs with has_thread */
}

/* Its descriptors are the parent's as well: they are closed, not written to. */
void tri__scavenger_after_fork(tri_heap *heap) {
    struct scavenger *s = &heap->scavenger;
    if (!s->started && !s->lost) return;                            /* the heap never had the thread */
    if (s->pressure.wake_fd >= 0) tri__pressure_fini(&s->pressure); /* set last by tri__pressure_init */
    *s = (struct scavenger){.pressure = PRESSURE_INIT,
                            .cycles = s->cycles,
                            .cycles_seen = s->cycles,
                            .cpu_ns = s->cpu_ns,
                            .next_ns = FOREVER_NS,
                            .lost = true};
}

void tri__scavenger_stop(tri_heap *heap) {
    struct scavenger *s = &heap->scavenger;
    if (!has_thread(s)) return;
    if (!heap->threadless) {
        signal_event(s, EVENT_QUIT);
        tri__os_thread_join(&s->thread);
    }
    tri__pressure_fini(&s->pressure); /* not by the thread: who wakes it may still write to its descriptor */
}

void tri__scavenger_options(tri_heap *heap) {
    set_alarm(heap);
    if (has_thread(&heap->scavenger)) signal_event(&heap->scavenger, EVENT_OPTIONS);
}
