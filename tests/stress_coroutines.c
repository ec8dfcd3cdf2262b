/*
 * Coroutines on native stacks, run by several threads at random while cycles come one after the other with delays in
 * every step: what a coroutine has in its locals, however deep, is what it put there; so is what other threads read
 * from a suspended one after a touch, and write to it. Each object carries a number, which whoever refers to it knows;
 * freed memory is filled with a pattern.
 */
#include "tests/coroutine.h"

enum { NCOROUTINES = 40, MAX_RUNNERS = 4, NSLOTS = 6, STEPS = 24 };

struct cell {
    struct cell *next;
    uint64_t number, padding[2];
};
TRI_TYPE(cell_type, struct cell, next);

/* The locals of one coroutine, on its stack. */
struct locals {
    struct cell *volatile cells[NSLOTS];
    volatile uint64_t numbers[NSLOTS];
};

struct shared {
    struct coroutine c;
    uint8_t lock;          /* held by who runs or touches it [atomic] */
    struct locals *locals; /* NULL: it has not run yet, or has ended [lock] */
    uint64_t rng;
};

struct world {
    tri_heap *heap;
    struct shared coroutines[NCOROUTINES];
    uint64_t next_number, nruns, ntouches, nends; /* [atomic] */
    uint64_t wanted;                              /* of runs and touches */
};

static bool try_lock(uint8_t *lock) {
    return __atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) == 0;
}

static void unlock(uint8_t *lock) {
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

static struct world *world;

static void check_cell(const struct cell *cell, uint64_t number, const char *where) {
    if (cell == NULL && number == 0) return;
    CHECK_MSG(cell != NULL && cell->number == number, "%s: %llu instead of %llu", where,
              cell ? (unsigned long long)cell->number : 0, (unsigned long long)number);
    const struct cell *next = tri_load(&cell->next);
    if (next) CHECK_MSG(next->number < number, "%s: a newer cell behind an older one", where);
}

static void new_cell(tri_thread *t, struct locals *l, uint64_t r) {
    struct cell *cell = tri_new(t, &cell_type);
    CHECK_MSG(cell != NULL, "%s", tri_last_error());
    uint64_t i = r % NSLOTS, from = (r >> 8) % NSLOTS;
    cell->number = __atomic_add_fetch(&world->next_number, 1, __ATOMIC_RELAXED);
    if (l->cells[from] && (r >> 16) % 4) tri_init(t, cell, &cell->next, l->cells[from]);
    l->cells[i] = cell;
    l->numbers[i] = cell->number;
}

/* One edit of locals that the calling thread may touch. */
static void edit(tri_thread *t, struct locals *l, uint64_t r) {
    uint64_t i = (r >> 8) % NSLOTS, k = (r >> 16) % NSLOTS;
    check_cell(l->cells[i], l->numbers[i], "a local");
    switch (r % 8) {
    case 0:
    case 1: new_cell(t, l, r >> 24); break;
    case 2: /* moved: only the stack has it */
        l->cells[k] = l->cells[i], l->numbers[k] = l->numbers[i];
        l->cells[i] = NULL, l->numbers[i] = 0;
        break;
    case 3: /* a load from the heap */
        if (l->cells[i] && (l->cells[k] = tri_load(&l->cells[i]->next)) != NULL)
            l->numbers[k] = l->cells[k]->number;
        else
            l->cells[k] = NULL, l->numbers[k] = 0;
        break;
    case 4: /* cut off: what lay behind it may be on a stack alone */
        if (l->cells[i]) tri_store(t, l->cells[i], &l->cells[i]->next, NULL);
        break;
    case 5: tri_poll(t); break;
    default: break;
    }
}

static uint64_t next_random(struct shared *s) {
    return fixture_random(&s->rng);
}

/* Deeper, with locals on each level, and yields somewhere down there. */
static __attribute__((noinline)) void go_down(struct shared *s, int depth) {
    struct locals l = {{0}, {0}};
    for (int i = 0; i < 3; i++) edit(s->c.on->thread, &l, next_random(s));
    struct locals *outer = s->locals;
    s->locals = &l;
    if (depth > 0) {
        go_down(s, depth - 1);
    } else {
        coroutine_yield(&s->c);
        for (int i = 0; i < 4; i++) edit(s->c.on->thread, &l, next_random(s));
    }
    s->locals = outer;
    for (int i = 0; i < NSLOTS; i++) check_cell(l.cells[i], l.numbers[i], "a frame");
}

static void live(struct coroutine *c, void *arg) {
    struct shared *s = arg;
    struct locals l = {{0}, {0}};
    s->locals = &l;
    for (int i = 0; i < STEPS; i++) {
        uint64_t r = next_random(s);
        for (int k = 0; k < 8; k++) edit(c->on->thread, &l, next_random(s));
        if (r % 16 == 0)
            go_down(s, (int)(r >> 8) % (r % 64 == 0 ? 400 : 20)); /* 64 KiB, or some */
        else
            coroutine_yield(c);
    }
    s->locals = NULL;
}

static void run_or_touch(struct runner *runner, struct locals *mine, uint64_t *rng) {
    uint64_t r = fixture_random(rng);
    struct shared *s = &world->coroutines[(r >> 8) % NCOROUTINES];
    if (!try_lock(&s->lock)) return;
    if (!s->c.stack) {
        s->rng = r | 1;
        coroutine_open(runner->thread, &s->c, live, s);
    } else if (s->locals && r % 4 == 0) {
        CHECK_EQ(tri_vmstack_touch(runner->thread, s->c.stack), TRI_OK);
        struct locals *l = s->locals;
        uint64_t i = (r >> 16) % NSLOTS, k = (r >> 24) % NSLOTS;
        check_cell(l->cells[i], l->numbers[i], "a suspended local");
        struct cell *cell = mine->cells[k];
        uint64_t number = mine->numbers[k];
        mine->cells[k] = l->cells[i], mine->numbers[k] = l->numbers[i];
        l->cells[i] = cell, l->numbers[i] = number; /* what each had is the other's alone */
        __atomic_fetch_add(&world->ntouches, 1, __ATOMIC_RELAXED);
    } else if (!coroutine_run(runner, &s->c) || (s->locals && r % 64 == 1)) {
        coroutine_close(runner->thread, &s->c); /* at its end, or in the middle */
        s->locals = NULL;
        __atomic_fetch_add(&world->nends, 1, __ATOMIC_RELAXED);
    }
    __atomic_fetch_add(&world->nruns, 1, __ATOMIC_RELAXED);
    unlock(&s->lock);
}

static void *runner_main(void *arg) {
    uint64_t rng = fixture_seed() + (uint64_t)(uintptr_t)arg * 0x9e3779b97f4a7c15ull;
    struct runner runner = runner_of(fixture_attach(world->heap));
    struct locals mine = {{0}, {0}};
    while (__atomic_load_n(&world->nruns, __ATOMIC_RELAXED) < world->wanted) {
        run_or_touch(&runner, &mine, &rng);
        edit(runner.thread, &mine, fixture_random(&rng));
    }
    CHECK_EQ(tri_detach(runner.thread), TRI_OK);
    return NULL;
}

static void run_world(uint64_t wanted, const char *settings[], uint32_t flags) {
    static struct world the_world;
    tri_config config = fixture_config(flags);
    config.min_heap_bytes = 256 << 10;
    struct fixture f = fixture_open_config(&config);
    for (int i = 0; settings[i]; i++) fixture_set(f.heap, settings[i]);
    memset(&the_world, 0, sizeof the_world);
    world = &the_world;
    world->heap = f.heap;
    world->wanted = TEST_IS_SLOW ? wanted / 8 : wanted;
    pthread_t threads[MAX_RUNNERS];
    for (uintptr_t i = 0; i < MAX_RUNNERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, runner_main, (void *)(i + 1)), 0);
    while (__atomic_load_n(&world->nruns, __ATOMIC_RELAXED) < world->wanted) fixture_collect(&f);
    for (int i = 0; i < MAX_RUNNERS; i++) fixture_join(f.thread, threads[i]);
    printf("coroutines: %llu runs and touches (%llu touches), %llu ended, %llu cycles\n",
           (unsigned long long)world->nruns, (unsigned long long)world->ntouches, (unsigned long long)world->nends,
           (unsigned long long)fixture_stats(f.heap).cycles);
    CHECK(fixture_stats(f.heap).cycles > 0 && world->ntouches > 0 && world->nends > 0);
    for (int i = 0; i < NCOROUTINES; i++)
        if (world->coroutines[i].c.stack) coroutine_close(f.thread, &world->coroutines[i].c);
    fixture_collect(&f);
    fixture_close(&f);
}

TEST(coroutines, run_and_touched_by_several_threads, .timeout = 120) {
    run_world(test_env_u64("TRI_COROUTINE_RUNS", 400000), (const char *[]){"poison=1", NULL}, 0);
}

#if TRI_CHECKS >= 1

TEST(coroutines, with_delays_in_every_step, .timeout = 120) {
    run_world(test_env_u64("TRI_COROUTINE_RUNS", 40000), (const char *[]){"poison=1", "stress.delay=50", NULL}, 0);
}

TEST(coroutines, with_every_stack_copied, .timeout = 120) {
    run_world(test_env_u64("TRI_COROUTINE_RUNS", 40000),
              (const char *[]){"poison=1", "stress.copy=1", "stress.delay=20", NULL}, 0);
}

#endif
