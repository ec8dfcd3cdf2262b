/*
 * stress_property.c: random mutators against a shadow graph.
 *
 * Several threads edit random graphs in one or two heaps: every kind of store, objects of every shape and size, roots
 * of every kind, attaching, ending, blocking, calling back in, forced cycles. Each edit is made in the heap and in the
 * shadow (tests/shadow.h); the collector runs all the time. Every object that a thread reads out of the heap is held
 * against its entry at once; every so often all threads park, and the whole heap is compared: what the shadow reaches
 * is intact, and what it does not reach is gone after two cycles.
 *
 * Environment: TRI_PROPERTY_SEED (else from the clock; printed), TRI_PROPERTY_OPS (operations of the long test, which
 * otherwise takes its share of the default), TRI_PROPERTY_THREADS, TRI_PROPERTY_DELAY (the long test then has delays of
 * that strength in every step and checkmark all the time, beside the switches that change; tools/soak.py).
 *
 * Not deterministic: a seed fixes what each thread tries, not how the threads interleave.
 *
 * Owns here: the coordinator (starts workers, parks them, compares, changes switches) and the tests. The rest of a run
 * is in property_*.c; property.h says what is where.
 */
#include <string.h>
#include "gc/heap.h"
#include "tests/plain.h"
#include "tests/property.h"

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the coordinator ------------------------------------------------------------------------------------------- */

static void on_event(const tri_event *event, void *user) {
    struct world *w = (struct world *)(void *)((char *)user - offsetof(struct world, shadow));
    if (event->kind != TRI_EVENT_CYCLE_END) return;
    __atomic_store_n(&w->pressure, event->live_after_bytes > w->shadow.seed % 4 * (4 << 20) + (12 << 20),
                     __ATOMIC_RELAXED);
    __atomic_fetch_add(&w->ncycles, 1, __ATOMIC_RELAXED);
}

static void must_set(struct world *w, const char *setting) {
    if (tri_heap_set(w->heap, setting) != TRI_OK) shadow_fail(&w->shadow, "tri_heap_set: %s", tri_last_error());
}

/* As many cores as the seed says: with few, cycles are lent to the threads (gc/scarce.c). No cycle has run. */
static void use_cores(tri_heap *heap, uint64_t seed) {
    static const uint32_t ncores[] = {0, 1, 64};
    uint32_t n = ncores[seed / 7 % TRI_COUNT(ncores)];
    if (n == 0) return; /* the machine's */
    heap->ncpus = n;
    heap->millicpus = n * 1000;
    heap->quota = false;
}

static struct world *world_open(const struct run *run) {
    struct world *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE;
    config.min_heap_bytes = (size_t)run->options.min_heap_kib << 10;
    config.growth_percent = 50;
    config.reserve_bytes = (size_t)2 << 30;
    config.wait_limit_ms = 120000;
    config.report = shadow_on_report;
    config.event = on_event;
    config.user = &w->shadow;
    shadow_init(&w->shadow, run->options.name, run->seed, NULL);
    if (tri_heap_create(&config, &w->heap) != TRI_OK) shadow_fail(&w->shadow, "%s", tri_last_error());
    w->shadow.heap = w->heap;
    use_cores(w->heap, run->seed);
    if (tri_attach(w->heap, 0, &w->thread) != TRI_OK) shadow_fail(&w->shadow, "%s", tri_last_error());
    pthread_mutex_init(&w->made_lock, NULL);
    for (int i = 0; i < NWILD_HANDLES; i++) w->wild_handles[i] = tri_global(w->thread, NULL);
    w->wild_range.slots = w->wild_range.own;
    w->wild_range.root = tri_root_add(w->thread, w->wild_range.slots, RANGE_SLOTS, &shadow_boxed);
    property_death_open(w);
    for (size_t i = 0; i < 6 && run->options.settings[i]; i++) must_set(w, run->options.settings[i]);
    return w;
}

static void check_thread_roots(struct shadow *s, struct part *p) {
    for (uint32_t f = 0; f < p->nframes; f++)
        for (uint32_t i = 0; i < FRAME_SLOTS; i++) shadow_check_root(s, property_frame_at(p, f)->ids[i]);
    for (uint32_t i = 0; i < p->nlocals; i++) shadow_check_root(s, p->local_ids[i]);
    for (uint32_t i = 0; i < SCANNER_WORDS && p->scanner; i++) shadow_check_root(s, p->scanned_ids[i]);
}

static void check_shared_roots(struct world *w) {
    struct shadow *s = &w->shadow;
    for (int i = 0; i < NHANDLES; i++) shadow_check_root(s, w->handles[i].id);
    for (int i = 0; i < NWILD_HANDLES; i++) {
        uintptr_t addr = (uintptr_t)tri_deref(w->wild_handles[i]);
        if (addr) shadow_check_root(s, shadow_validate(s, addr, "a wild handle"));
    }
    for (int i = 0; i < NRANGES; i++)
        for (int k = 0; k < RANGE_SLOTS && w->ranges[i].root; k++) shadow_check_root(s, w->ranges[i].edges[k].id);
    for (int k = 0; k < RANGE_SLOTS; k++) {
        uintptr_t addr = shadow_decode(s, w->thread, WORD_BOXED, w->wild_range.slots[k]);
        if (addr) shadow_check_root(s, shadow_validate(s, addr, "a wild global slot"));
    }
    for (int i = 0; i < NSTACKS; i++)
        for (uint32_t k = 0; k < w->stacks[i].n; k++) shadow_check_root(s, w->stacks[i].edges[k].id);
}

static void compare(struct run *run) {
    for (int h = 0; h < run->nheaps; h++) {
        struct world *w = run->worlds[h];
        shadow_check_begin(&w->shadow);
        for (int i = 0; i < run->nworkers; i++) check_thread_roots(&w->shadow, &run->workers[i].parts[h]);
        check_shared_roots(w);
        property_death_before(w);
        shadow_check_reachable(&w->shadow, w->thread);
        shadow_check_collected(&w->shadow, w->thread);
    }
    run->ncompared++;
}

/* What threads and cycles have done: a cycle with delays that a thread runs itself, beside other programs, may take
 * longer than anybody would wait for a thread that hangs. */
static uint64_t progress(const struct run *run) {
    uint64_t n = 0;
    for (int i = 0; i < run->nworkers; i++) n += __atomic_load_n(&run->workers[i].nops, __ATOMIC_RELAXED);
    for (int h = 0; h < run->nheaps; h++) {
        const tri_heap *heap = run->worlds[h]->heap;
        n += atomic_load_relaxed(&heap->step_seq) + atomic_load_relaxed(&heap->mem.swept_spans);
    }
    return n;
}

/* Waits as a blocked thread until every worker that runs is parked or has ended. */
static void *wait_parked(void *arg) {
    struct run *run = arg;
    uint64_t before = progress(run);
    pthread_mutex_lock(&run->mutex);
    for (int minute = 1; run->nparked < run->nrunning; minute++) {
        struct timespec deadline;
        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec += 60;
        int err = 0;
        while (run->nparked < run->nrunning && err == 0)
            err = pthread_cond_timedwait(&run->changed, &run->mutex, &deadline);
        if (err != 0 && (progress(run) == before || minute == 10))
            shadow_fail(&run->worlds[0]->shadow, "%u of %u threads did not park within %d minutes",
                        run->nrunning - run->nparked, run->nrunning, minute);
        before = progress(run);
    }
    pthread_mutex_unlock(&run->mutex);
    return NULL;
}

/* Joins the workers that have ended; in_blocking: as a blocked thread. */
static void *join_ended(void *arg) {
    struct run *run = arg;
    for (int i = 0; i < run->nworkers; i++) {
        struct worker *wk = &run->workers[i];
        if (__atomic_load_n(&wk->life, __ATOMIC_ACQUIRE) != LIFE_ENDED) continue;
        pthread_join(wk->pthread, NULL);
        wk->life = LIFE_NONE;
    }
    return NULL;
}

static bool start_ended(struct run *run) {
    bool any = false;
    for (int i = 0; i < run->nworkers; i++) {
        struct worker *wk = &run->workers[i];
        uint32_t life = __atomic_load_n(&wk->life, __ATOMIC_ACQUIRE);
        any |= life == LIFE_RUNS || wk->nops < wk->nops_wanted;
        if (life != LIFE_NONE || wk->nops >= wk->nops_wanted) continue;
        pthread_mutex_lock(&run->mutex);
        run->nrunning++;
        pthread_mutex_unlock(&run->mutex);
        wk->life = LIFE_RUNS;
        int err = pthread_create(&wk->pthread, NULL, property_worker_main, wk);
        if (err) shadow_fail(&run->worlds[0]->shadow, "pthread_create: %s", strerror(err));
    }
    return any;
}

static void *sleep_some(void *arg) {
    (void)arg;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return NULL;
}

/* Other switches for the next stretch. Most of the time none, so that many operations meet many cycles. */
static void rotate(struct run *run, uint64_t *rng) {
    char always[32];
    unsigned delay = (unsigned)test_env_u64("TRI_PROPERTY_DELAY", 0);
    snprintf(always, sizeof always, "stress.delay=%u", delay);
    static const char *const off[] = {"stress.delay=0", "stress.slow=0",  "stress.collect=0", "checkmark=0",
                                      "verify=0",       "manual_check=0", "stress.copy=0"};
    static const char *const on[] = {"stress.delay=20", "stress.slow=1", "stress.collect=300", "checkmark=1",
                                     "checkmark=1",     "verify=1",      "manual_check=1",     "stress.copy=1"};
    static const char *const modes[] = {"mode=concurrent", "mode=insertion", "mode=stop-mark", "mode=stop",
                                        "mode=incremental"};
    for (int h = 0; h < run->nheaps; h++) {
        for (size_t i = 0; i < sizeof off / sizeof *off; i++) must_set(run->worlds[h], off[i]);
        uint64_t r = next_random(rng) >> 8;
        if (delay) must_set(run->worlds[h], always);
        if (delay) must_set(run->worlds[h], "checkmark=1");
        if (r % 16 < sizeof on / sizeof *on) must_set(run->worlds[h], on[r % 16]);
        (void)tri_heap_set(run->worlds[h]->heap, modes[(r >> 4) % 5]); /* or as it was, while a cycle runs */
    }
}

static uint64_t ops_done(const struct run *run) {
    uint64_t n = 0;
    for (int i = 0; i < run->nworkers; i++) n += __atomic_load_n(&run->workers[i].nops, __ATOMIC_RELAXED);
    return n;
}

static void pause_and_compare(struct run *run) {
    pthread_mutex_lock(&run->mutex);
    __atomic_store_n(&run->pause, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&run->mutex);
    tri_blocking(run->worlds[0]->thread, wait_parked, run);
    tri_blocking(run->worlds[0]->thread, join_ended, run);
    compare(run);
    pthread_mutex_lock(&run->mutex);
    __atomic_store_n(&run->pause, 0, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->mutex);
}

static uint64_t cycles_done(const struct run *run) {
    uint64_t n = 0;
    for (int h = 0; h < run->nheaps; h++) n += __atomic_load_n(&run->worlds[h]->ncycles, __ATOMIC_RELAXED);
    return n;
}

/* Numbers come back by comparing alone. */
static bool a_table_fills(struct run *run) {
    bool fills = false;
    for (int h = 0; h < run->nheaps; h++) fills |= shadow_fills(&run->worlds[h]->shadow);
    return fills;
}

static void coordinate(struct run *run) {
    uint64_t rng = run->seed | 1, start = now_ns(), told = start, compared_at = start, gap_ns = 50000000;
    while (start_ended(run)) {
        tri_blocking(run->worlds[0]->thread, sleep_some, NULL);
        tri_blocking(run->worlds[0]->thread, join_ended, run);
        if (now_ns() - compared_at < gap_ns && !a_table_fills(run)) continue;
        uint64_t before = now_ns();
        pause_and_compare(run);
        compared_at = now_ns();
        gap_ns = 4 * (compared_at - before) + 50000000; /* a fifth of the time goes into comparing */
        if (run->options.rotate) rotate(run, &rng);
        if (compared_at - told > 30000000000u) {
            told = compared_at;
            printf("property: %s: %llu operations, %llu cycles\n", run->options.name, (unsigned long long)ops_done(run),
                   (unsigned long long)cycles_done(run));
            fflush(stdout);
        }
    }
    pause_and_compare(run);
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("property: %s: %llu operations on %d threads, %d heaps, in %.1f s (%.0f a second), %llu cycles, "
           "%llu comparisons\n",
           run->options.name, (unsigned long long)ops_done(run), run->nworkers, run->nheaps, seconds,
           (double)ops_done(run) / seconds, (unsigned long long)cycles_done(run), (unsigned long long)run->ncompared);
    fflush(stdout);
}

static uint64_t draw_seed(void) {
    return test_env_u64("TRI_PROPERTY_SEED", now_ns() % 1000000007);
}

static void run_seeded(struct options options, uint64_t seed) {
    struct run run = {.options = options, .nheaps = options.nheaps, .seed = seed};
    run.nworkers = (int)test_env_u64("TRI_PROPERTY_THREADS", 5);
    if (run.nworkers > MAX_THREADS) run.nworkers = MAX_THREADS;
    printf("property: %s: seed %llu\n", options.name, (unsigned long long)run.seed);
    fflush(stdout);
    pthread_mutex_init(&run.mutex, NULL);
    pthread_cond_init(&run.changed, NULL);
    for (int h = 0; h < run.nheaps; h++) run.worlds[h] = world_open(&run);
    run.workers = calloc((size_t)run.nworkers, sizeof *run.workers);
    CHECK(run.workers != NULL);
    for (int i = 0; i < run.nworkers; i++) {
        struct worker *wk = &run.workers[i];
        wk->run = &run;
        wk->index = i;
        wk->rng = (run.seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)i * UINT64_C(0x123456789abcdef);
        wk->nops_wanted = options.nops / (uint64_t)run.nworkers + 1;
        for (int h = 0; h < run.nheaps; h++) wk->parts[h].w = run.worlds[h];
    }
    coordinate(&run);
    for (int h = 0; h < run.nheaps; h++) {
        CHECK_EQ(tri_detach(run.worlds[h]->thread), TRI_OK);
        CHECK_EQ(tri_heap_destroy(run.worlds[h]->heap), TRI_OK);
        shadow_fini(&run.worlds[h]->shadow);
        free(run.worlds[h]);
    }
    free(run.workers);
}

static void run_property(struct options options) {
    run_seeded(options, draw_seed());
}

/* ---- the tests -------------------------------------------------------------------------------------------------- */

static uint64_t scaled(uint64_t nops) {
    if (test_env_u64("TRI_PROPERTY_OPS", 0)) return 1000; /* the long test takes them */
    return TEST_UNDER_TSAN || TEST_UNDER_ASAN ? nops / 10 : nops;
}

TEST(property, as_it_is_used) {
    run_property((struct options){.name = "as it is used", .nops = scaled(300000), .nheaps = 1, .min_heap_kib = 512});
}

TEST(property, with_delays_in_every_step) {
    run_property((struct options){.name = "delays",
                                  .nops = scaled(100000),
                                  .nheaps = 1,
                                  .min_heap_kib = 256,
                                  .settings = {"stress.delay=50", "poison=1"}});
}

TEST(property, with_two_markers_and_delays) {
    run_property((struct options){.name = "two markers",
                                  .nops = scaled(60000),
                                  .nheaps = 1,
                                  .min_heap_kib = 256,
                                  .settings = {"stress.delay=30", "poison=1", "checkmark=1", "workers=2"}});
}

TEST(property, with_four_markers_and_delays) {
    run_property((struct options){.name = "four markers",
                                  .nops = scaled(60000),
                                  .nheaps = 1,
                                  .min_heap_kib = 256,
                                  .settings = {"stress.delay=30", "poison=1", "checkmark=1", "workers=4"}});
}

TEST(property, with_every_path_slow) {
    run_property((struct options){.name = "slow paths",
                                  .nops = scaled(150000),
                                  .nheaps = 1,
                                  .min_heap_kib = 512,
                                  .settings = {"stress.slow=1", "poison=1"}});
}

TEST(property, with_every_check) {
    run_property((struct options){.name = "checks",
                                  .nops = scaled(150000),
                                  .nheaps = 1,
                                  .min_heap_kib = 512,
                                  .settings = {"poison=1", "checkmark=1", "verify=1"}});
}

TEST(property, with_every_stack_copied) {
    run_property((struct options){.name = "copies",
                                  .nops = scaled(150000),
                                  .nheaps = 1,
                                  .min_heap_kib = 256,
                                  .settings = {"stress.copy=1", "stress.delay=20", "poison=1", "checkmark=1"}});
}

/* One seed in each of the heap's modes: each thread tries the same operations. (What comes of them depends on how the
 * threads interleave; the same program with the same outcome is tests/test_modes.c's.) */
TEST(property, in_every_mode) {
    static const char *const modes[][2] = {{"stops", "mode=stop"},
                                           {"stops for marking", "mode=stop-mark"},
                                           {"insertion barrier", "mode=insertion"},
                                           {"incremental", "mode=incremental"},
                                           {"concurrent", "mode=concurrent"}};
    uint64_t seed = draw_seed();
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        run_seeded((struct options){.name = modes[i][0],
                                    .nops = scaled(60000),
                                    .nheaps = 1,
                                    .min_heap_kib = 256,
                                    .settings = {modes[i][1], "stress.delay=10", "poison=1", "checkmark=1"}},
                   seed);
}

TEST(property, in_two_heaps) {
    run_property((struct options){.name = "two heaps",
                                  .nops = scaled(200000),
                                  .nheaps = 2,
                                  .min_heap_kib = 256,
                                  .settings = {"stress.collect=400", "checkmark=1"}});
}

TEST(property, with_changing_switches, .timeout = 14400) {
    run_property((struct options){.name = "changing switches",
                                  .nops = test_env_u64("TRI_PROPERTY_OPS", scaled(200000)),
                                  .nheaps = 2,
                                  .min_heap_kib = 512,
                                  .rotate = true,
                                  .settings = {"poison=1"}});
}
