/*
 * fork (R20) in every phase of a cycle: a thousand children, each of which finds the lists that were published before
 * it, allocates, collects, verifies and ends its heaps, while the parent's threads go on and verify theirs. And fork
 * between the steps of a heap without workers; and beside a stopped world, while others return memory.
 *
 * Four threads keep two heaps busy: they publish lists below global slots, whose nodes never change afterwards, make
 * large objects, keep coroutines' stacks, block, come and go, and pass manual blocks to each other. A fifth only
 * collects. Random delays inside every step of the protocol make the phases last. Forks come from an attached thread,
 * out of a blocking region, and from a thread that is not attached. The phase in which a child was made is what its
 * process reads before the library's own handler runs; each phase must have been among them. Everything else about
 * fork: test_fork.c.
 *
 * TRI_TEST_SEED sets the seed that is printed.
 */
#include "tests/forking.h"
enum { NHEAPS = 2, NSLOTS = 16, NBLOCKS = 64, NWORKERS = 4, MAX_LENGTH = 20, MAGIC = 0xf04c, CHILD_S = 60 };

struct world {
    tri_heap *heaps[NHEAPS];
    tri_root *ranges[NHEAPS];
    void *slots[NHEAPS][NSLOTS];
    void *blocks[NBLOCKS]; /* of manual memory, of the first heap: taken and replaced by anyone */
    uint32_t quit;
    uint64_t nops;
};

struct worker {
    struct world *world;
    uint64_t rng;
    tri_thread *threads[NHEAPS];
    uintptr_t top; /* of the value stack below */
    tri_word stack[8];
};

static enum phase phase_at_fork[NHEAPS]; /* in a child */
static struct world world;
static uint32_t nchildren, in_phase[NUM_PHASES];

static uint64_t random_below(struct worker *w, uint64_t n) {
    return (fixture_random(&w->rng) >> 16) % n;
}

/* The library's random delays. In the phase that the test waits for the first heap's collector sleeps for longer. */
static uint32_t wanted_phase = NUM_PHASES; /* [atomic] */
static bool is_collector(void) {
    return world.heaps[0] && !world.heaps[0]->collector_lost &&
           pthread_equal(pthread_self(), (pthread_t)world.heaps[0]->collector.handle);
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    struct timespec longer = {.tv_nsec = 2000000};
    bool hold = atomic_load_relaxed(&wanted_phase) != NUM_PHASES && is_collector() &&
                (uint32_t)heap_phase(world.heaps[0]) == atomic_load_relaxed(&wanted_phase);
    int err = clock_nanosleep(CLOCK_MONOTONIC, 0, hold ? &longer : wanted, left);
    return err ? (errno = err, -1) : 0;
}

/* ---- what the threads do ---------------------------------------------------------------------------------------- */

static uint32_t check_list(tri_thread *t, int h, size_t slot, void **root) {
    uint32_t n = 0;
    for (const struct pair *p = *root = tri_load(&world.slots[h][slot]); p; p = tri_load(&p->left), n++) {
        CHECK_MSG(p->value == MAGIC + (uint64_t)h, "heap %d, list %zu, node %u: 0x%llx", h, slot, n,
                  (unsigned long long)p->value);
        if (n == MAX_LENGTH / 2) tri_poll(t);
    }
    return n;
}

static void publish(struct worker *w, int h) {
    tri_thread *t = w->threads[h];
    TRI_LOCALS(t, roots, 2);
    size_t slot = random_below(w, NSLOTS);
    if (check_list(t, h, slot, &roots[0]) >= MAX_LENGTH) roots[0] = NULL;
    for (uint64_t i = 1 + random_below(w, 4); i > 0; i--) {
        struct pair *p = roots[1] = tri_new(t, &pair_type);
        CHECK(p != NULL);
        p->value = MAGIC + (uint64_t)h;
        tri_store(t, p, &p->left, roots[0]);
        roots[0] = p;
    }
    tri_root_store(t, world.ranges[h], &world.slots[h][random_below(w, NSLOTS)], roots[0]);
    TRI_POP(t, roots);
}

/* Whoever takes a block out of the table frees it: mostly another thread than the one that made it. */
static void pass_block(uint64_t random, size_t most_bytes) {
    void **place = &world.blocks[random % NBLOCKS];
    unsigned char *block = tri_manual_alloc(world.heaps[0], 1 + random % most_bytes);
    CHECK(block != NULL);
    block[0] = 1;
    tri_manual_free(world.heaps[0], atomic_swap_acqrel(place, (void *)block));
}

static void *take_a_nap(void *arg) {
    nanosleep(&(struct timespec){.tv_nsec = (long)(uintptr_t)arg}, NULL);
    return NULL;
}

static void use_a_stack(struct worker *w, tri_thread *t) {
    w->stack[0] = 0;
    w->top = (uintptr_t)(w->stack + 1);
    tri_vmstack *s = tri_vmstack_add(t, w->stack, &w->top, NULL);
    CHECK(s != NULL);
    struct pair *p = tri_new(t, &pair_type);
    p->value = MAGIC;
    w->stack[0] = (tri_word)(uintptr_t)p;
    if (random_below(w, 2)) {
        CHECK_EQ(tri_vmstack_suspend(t, s), TRI_OK);
        tri_poll(t);
        CHECK_EQ(tri_vmstack_resume(t, s), TRI_OK);
    }
    tri_poll(t);
    CHECK_EQ(((struct pair *)(uintptr_t)w->stack[0])->value, MAGIC);
    tri_vmstack_remove(t, s);
}

static void operate(struct worker *w) {
    int h = (int)random_below(w, NHEAPS);
    tri_thread *t = w->threads[h];
    uint64_t r = random_below(w, 100);
    if (r < 50) {
        publish(w, h);
    } else if (r < 54) {
        CHECK(tri_new_n(t, &array_type, 20000 + random_below(w, 100000)) != NULL);
    } else if (r < 60) {
        tri_blocking(t, take_a_nap, (void *)(uintptr_t)random_below(w, 300000));
    } else if (r < 64) {
        CHECK_EQ(tri_detach(t), TRI_OK);
        w->threads[h] = fixture_attach(world.heaps[h]);
    } else if (r < 70) {
        use_a_stack(w, t);
    } else if (r < 74) {
        void *obj = tri_new_bytes(t, 100);
        CHECK_EQ(tri_free(t, obj), TRI_OK);
    } else if (r < 75) {
        tri_trim(world.heaps[h]);
    } else if (r < 90) {
        pass_block(w->rng, random_below(w, 20) == 0 ? 300000 : 2000);
    } else {
        tri_scope_close(t, (tri_local(t, NULL), tri_scope_open(t) - 1));
        tri_global_free(t, tri_global(t, NULL));
    }
    atomic_add_relaxed(&world.nops, 1);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    for (int h = 0; h < NHEAPS; h++) w->threads[h] = fixture_attach(world.heaps[h]);
    while (!atomic_load_acquire(&world.quit)) {
        operate(w);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); /* the children want to run, too */
    }
    for (int h = 0; h < NHEAPS; h++) CHECK_EQ(tri_detach(w->threads[h]), TRI_OK);
    return NULL;
}

static void *collector_main(void *arg) {
    struct worker *w = arg;
    for (int h = 0; h < NHEAPS; h++) w->threads[h] = fixture_attach(world.heaps[h]);
    for (uint32_t i = 0; !atomic_load_acquire(&world.quit); i++) {
        CHECK_EQ(tri_collect(w->threads[i % 2]), TRI_OK);
        if (i % 16 == 0) CHECK_EQ(tri_verify(w->threads[i % 2]), 0);
    }
    for (int h = 0; h < NHEAPS; h++) CHECK_EQ(tri_detach(w->threads[h]), TRI_OK);
    return NULL;
}

/* ---- a child ---------------------------------------------------------------------------------------------------- */

/* Runs before the library's handler, which was registered later. */
static void note_phases(void) {
    for (int h = 0; h < NHEAPS; h++)
        if (world.heaps[h]) phase_at_fork[h] = world.heaps[h]->phase;
}

static void *child_thread(void *arg) {
    struct worker *w = arg;
    for (int h = 0; h < NHEAPS; h++) w->threads[h] = fixture_attach(world.heaps[h]);
    for (int i = 0; i < 20; i++) operate(w);
    for (int h = 0; h < NHEAPS; h++) CHECK_EQ(tri_detach(w->threads[h]), TRI_OK);
    return NULL;
}

static size_t count_objects(tri_thread *t) {
    return tri_walk(t, NULL, NULL);
}

static void live_in_child(struct worker *w) {
    atomic_store_relaxed(&wanted_phase, NUM_PHASES);
    for (int h = 0; h < NHEAPS; h++) fixture_set(world.heaps[h], "stress.delay=20");
    for (int h = 0; h < NHEAPS; h++) {
        tri_heap *heap = world.heaps[h];
        tri_thread *t = w->threads[h] = tri_self(heap);
        if (t->reserved) t = w->threads[h] = fixture_attach(heap); /* the sentinel of unattached threads */
        CHECK_EQ(fixture_stats(heap).nthreads, 1);
        CHECK(heap->threads == mutator_of(t));
        TRI_LOCALS(t, roots, 1);
        for (size_t i = 0; i < NSLOTS; i++) check_list(t, h, i, &roots[0]);
        TRI_POP(t, roots);
    }
    for (int i = 0; i < 20; i++) operate(w);
    for (int h = 0; h < NHEAPS; h++) {
        CHECK_EQ(tri_collect(w->threads[h]), TRI_OK);
        CHECK_EQ(tri_verify(w->threads[h]), 0);
    }
    if (nchildren % 4) return; /* the rest of a life, of every fourth */
    pthread_t other;
    static struct worker second;
    second.rng = w->rng ^ MAGIC;
    CHECK_EQ(pthread_create(&other, NULL, child_thread, &second), 0);
    for (int i = 0; i < 20; i++) operate(w);
    fixture_join(w->threads[0], other);
    for (int h = 0; h < NHEAPS; h++) {
        tri_thread *t = w->threads[h];
        TRI_LOCALS(t, roots, 1);
        for (size_t i = 0; i < NSLOTS; i++) check_list(t, h, i, &roots[0]);
        TRI_POP(t, roots);
        CHECK_EQ(tri_collect(t), TRI_OK);
        CHECK_EQ(tri_verify(t), 0);
        CHECK(count_objects(t) > 0);
    }
    for (int i = 0; i < NBLOCKS; i++) tri_manual_free(world.heaps[0], world.blocks[i]);
    CHECK_EQ(tri_manual_bytes(world.heaps[0]) > 64 * NBLOCKS * sizeof(void *) * 1024, 0);
    for (int h = 0; h < NHEAPS; h++) {
        tri_root_remove(w->threads[h], world.ranges[h]);
        CHECK_EQ(tri_detach(w->threads[h]), TRI_OK);
        CHECK_EQ(tri_heap_destroy(world.heaps[h]), TRI_OK);
    }
}

/* A child that does not end is killed by its own alarm. Its exit code: the phase of the first heap. */
static _Noreturn void child_main(struct worker *w) {
    signal(SIGABRT, SIG_DFL);
    alarm(CHILD_S);
    test_begin();
    live_in_child(w);
    CHECK_MSG(atomic_load_acquire(&fixture_nreports) == 0, "reported: %s", fixture_report);
    _exit(64 + (int)phase_at_fork[0]);
}

/* ---- the parent ------------------------------------------------------------------------------------------------- */

enum { AT_ONCE = 2 };
static pid_t children[AT_ONCE];

static void await_child(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    CHECK_MSG(!WIFSIGNALED(status), "child %u died of signal %d", nchildren, WTERMSIG(status));
    int phase = WEXITSTATUS(status) - 64;
    CHECK_MSG(phase >= 0 && phase < NUM_PHASES, "child %u ended with %d", nchildren, WEXITSTATUS(status));
    in_phase[phase]++;
}

static void make_child(struct worker *w) {
    pid_t *place = &children[nchildren % AT_ONCE];
    if (*place) await_child(*place);
    *place = fork();
    CHECK(*place >= 0);
    if (*place == 0) child_main(w);
    nchildren++;
}

static void *make_child_blocked(void *arg) {
    (void)arg;
    pid_t *place = &children[nchildren % AT_ONCE];
    if (*place) await_child(*place);
    *place = fork();
    CHECK(*place >= 0);
    nchildren++;
    return NULL; /* the child goes on behind the region */
}

static void *make_child_unattached(void *arg) {
    make_child(arg);
    return NULL;
}

static void make_one(struct worker *w, uint32_t i) {
    pthread_t thread;
    switch (i % 4) {
    case 0: {
        pid_t self = getpid();
        tri_blocking(w->threads[0], make_child_blocked, w);
        if (getpid() != self) child_main(w);
        break;
    }
    case 1:
        CHECK_EQ(pthread_create(&thread, NULL, make_child_unattached, w), 0);
        fixture_join(w->threads[0], thread);
        break;
    default: make_child(w); break;
    }
}

/* For a moment at most. */
static void wait_for_phase(struct worker *w, enum phase phase) {
    bool is_short = phase == PHASE_MARK || phase == PHASE_DEATH;
    uint64_t end = tri__os_now_ns() + (is_short ? 40000000 : 5000000);
    atomic_store_relaxed(&wanted_phase, (uint32_t)phase);
    while (heap_phase(world.heaps[0]) != phase && tri__os_now_ns() < end)
        for (int h = 0; h < NHEAPS; h++) tri_poll(w->threads[h]);
}

static void open_world(struct worker *w, const char *setting) {
    CHECK_EQ(pthread_atfork(NULL, NULL, note_phases), 0);
    for (int h = 0; h < NHEAPS; h++) {
        tri_config config = fixture_config(h ? 0 : TRI_HEAP_PRECISE);
        config.reserve_bytes = (size_t)1 << 30;
        config.workers = h ? 1 : 3;
        CHECK_EQ(tri_heap_create(&config, &world.heaps[h]), TRI_OK);
        fixture_set(world.heaps[h], setting);
        w->threads[h] = fixture_attach(world.heaps[h]);
        world.ranges[h] = tri_root_add(w->threads[h], world.slots[h], NSLOTS, NULL);
        for (int i = 0; i < 20; i++) publish(w, h);
    }
}

static void run(uint32_t nforks) {
    static struct worker workers[NWORKERS + 2];
    pthread_t threads[NWORKERS + 1];
    struct worker *own = &workers[NWORKERS + 1];
    uint64_t seed = fixture_seed();
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(NULL);
    for (int i = 0; i < NWORKERS + 2; i++) workers[i].rng = seed * (uint64_t)(2 * i + 1);
    open_world(own, "stress.delay=300");
    for (int i = 0; i <= NWORKERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, i < NWORKERS ? worker_main : collector_main, &workers[i]), 0);
    for (uint32_t i = 0; i < nforks; i++) {
        wait_for_phase(own, (enum phase)(i % NUM_PHASES));
        make_one(own, i);
        operate(own);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        if (children[i]) await_child(children[i]);
        children[i] = 0;
    }
    atomic_store_release(&world.quit, 1);
    for (int i = 0; i <= NWORKERS; i++) fixture_join(own->threads[0], threads[i]);
    for (int i = 0; i < NBLOCKS; i++) tri_manual_free(world.heaps[0], world.blocks[i]);
    atomic_store_relaxed(&wanted_phase, NUM_PHASES);
    for (int h = 0; h < NHEAPS; h++) {
        struct fixture f = {world.heaps[h], own->threads[h]};
        CHECK_EQ(tri_collect(f.thread), TRI_OK);
        tri_root_remove(f.thread, world.ranges[h]);
        fixture_close(&f);
    }
    printf("%u children, %llu operations of the parent's threads; by phase:", nforks, (unsigned long long)world.nops);
    for (int i = 0; i < NUM_PHASES; i++) printf(" %u", in_phase[i]);
    printf("\n");
}
TEST(fork, in_every_phase_of_a_cycle_the_child_has_working_heaps, .timeout = 600) {
    if (SANITIZER_HANGS_IN_CHILD) return;
    run(test_stress() ? 10000 : TEST_IS_SLOW ? 100 : 1000);
    for (int i = 0; i < NUM_PHASES && !TEST_IS_SLOW; i++)
        CHECK_MSG(in_phase[i] > 0, "no child was made in phase %d", i);
}
/* ---- a heap without workers ------------------------------------------------------------------------------------- */

static void step_on(struct worker *w, tri_heap *heap, tri_thread *t) {
    w->threads[0] = w->threads[1] = t;
    world.heaps[0] = world.heaps[1] = heap;
    for (int i = 0; i < 400 && (i < 40 || heap_phase(heap) == PHASE_IDLE); i++) {
        operate(w);
        tri_step(t, 1000); /* not even one handshake, mostly */
    }
}

/* The thread that has the turn may be any: forks happen between the steps of one, in the middle of a cycle. */
TEST(fork, in_the_middle_of_a_stepped_cycle, .timeout = 120) {
    static struct worker w = {.rng = 1};
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.workers = 0;
    config.min_heap_bytes = 256 << 10;
    struct fixture f = fixture_open_config(&config);
    for (int h = 0; h < NHEAPS; h++) world.ranges[h] = tri_root_add(f.thread, world.slots[h], NSLOTS, NULL);
    uint32_t nmiddle = 0;
    for (int i = 0; i < 60; i++) {
        step_on(&w, f.heap, f.thread);
        nmiddle += heap_phase(f.heap) != PHASE_IDLE;
        pid_t child = fork();
        if (child == 0) {
            alarm(CHILD_S);
            CHECK_EQ(heap_phase(f.heap), PHASE_IDLE);
            step_on(&w, f.heap, f.thread);
            CHECK_EQ(tri_collect(f.thread), TRI_OK);
            CHECK_EQ(tri_verify(f.thread), 0);
            CHECK_EQ(forking_count_threads(), TEST_IS_SLOW ? forking_count_threads() : 1);
            CHECK_EQ(tri_detach(f.thread), TRI_OK);
            CHECK_EQ(tri_heap_destroy(f.heap), TRI_OK);
            _exit(0);
        }
        CHECK_EQ(forking_wait(child), 0);
    }
    CHECK_MSG(nmiddle > 0, "no fork was in the middle of a cycle");
    fixture_close(&f);
}

/* ---- beside a stopped world ------------------------------------------------------------------------------------- */

static void *trim_on(void *arg) {
    while (!atomic_load_acquire(&world.quit)) {
        void *block = tri_manual_alloc(arg, 40000);
        tri_manual_free(arg, block);
        tri_trim(arg);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); /* the collector stops the world meanwhile */
    }
    return NULL;
}

static void *allocate_on(void *arg) {
    tri_thread *t = fixture_attach(arg);
    TRI_LOCALS(t, roots, 1);
    while (!atomic_load_acquire(&world.quit)) {
        roots[0] = NULL;
        for (int i = 0; i < 20000 && !atomic_load_acquire(&world.quit); i++) {
            struct pair *p = tri_new(t, &pair_type);
            CHECK(p != NULL);
            tri_init(t, p, &p->left, roots[0]);
            roots[0] = p;
        }
    }
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* As a thread that no stop waits for. */
static void *fork_on(void *arg) {
    for (int i = 0; i < (TEST_IS_SLOW ? 100 : 1500); i++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        CHECK_EQ(forking_wait(child), 0);
    }
    return arg;
}

/* A fork waits for whoever returns memory, who must not wait for the stop's end there: the cycle in the stop waits for
 * the fork. It was a ring of three, closed within 600 forks. */
TEST(fork, beside_a_stopped_world_and_who_trims, .timeout = 120) {
    if (SANITIZER_HANGS_IN_CHILD) return;
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    fixture_set(f.heap, "mode=stop");
    pthread_t allocator, trimmer;
    atomic_store_release(&world.quit, 0);
    CHECK_EQ(pthread_create(&allocator, NULL, allocate_on, f.heap), 0);
    CHECK_EQ(pthread_create(&trimmer, NULL, trim_on, f.heap), 0);
    tri_blocking(f.thread, fork_on, NULL);
    atomic_store_release(&world.quit, 1);
    fixture_join(f.thread, allocator);
    fixture_join(f.thread, trimmer);
    fixture_collect(&f);
    CHECK_EQ(tri_verify(f.thread), 0);
    fixture_close(&f);
}
