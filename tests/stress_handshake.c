/*
 * Threads that come, go, block, call back in, collect, verify and walk, all at once and with random delays inside every
 * step of the protocol: nothing may be lost, nobody may wait for ever, and nobody may be left behind.
 *
 * Two heaps, one of which scans native stacks. Each worker attaches to one of them or to both, does a random number of
 * operations, and ends: by detaching in either order, by returning while attached, by pthread_exit out of its frames or
 * out of a blocking region. The supervisor, which is never attached, joins it and starts another in its place. What
 * lives is a set of lists below global slots, whose nodes never change once they are published; every walk over one
 * checks each node. A worker that makes no progress for a minute ends the process with what it was doing.
 *
 * In a second run threads that were never attached call in all the time; each such call is refused and says which call
 * it was. TRI_TEST_SEED sets the seed that is printed, TRI_HANDSHAKE_SECONDS the length of each run.
 */
#include "tests/fixture.h"

#include <fcntl.h>
#include <sched.h>

enum { NWORKERS = 9, NINTRUDERS = 2, NHEAPS = 2, NSLOTS = 16, MAX_LENGTH = 24, STUCK_S = 60, MAGIC = 0x5a17ed };

enum kind {
    OP_POLL,
    OP_PUBLISH,
    OP_CHECK,
    OP_BLOCK,
    OP_CALL_IN,
    OP_MEET,
    OP_BUSY,
    OP_COLLECT,
    OP_VERIFY,
    OP_WALK,
    OP_SWITCH,
    NUM_OPS
};
static const char *const op_names[NUM_OPS] = {"tri_poll",   "tri_new",   "a walk over a list", "tri_blocking",
                                              "tri_callin", "a meeting", "a busy loop",        "tri_collect",
                                              "tri_verify", "tri_walk",  "tri_heap_set"};

enum ending { DETACH, DETACH_REVERSED, RETURN_ATTACHED, EXIT_IN_FRAMES, EXIT_IN_REGION, NUM_ENDINGS };

struct shared {
    tri_heap *heaps[NHEAPS];
    tri_root *ranges[NHEAPS];
    void *slots[NHEAPS][NSLOTS];
    uint32_t quit;
    uint64_t ncycles[NHEAPS], nops[NUM_OPS], nendings[NUM_ENDINGS], nboth, nrefused;
    pthread_mutex_t mutex;
    pthread_cond_t met;
    uint64_t nmeetings; /* [mutex] */
};

struct worker {
    struct shared *shared;
    tri_thread *threads[NHEAPS]; /* NULL: not attached to it */
    uint64_t rng;
    uint64_t progress; /* operations begun, of all threads that were this worker */
    const char *doing; /* for the supervisor's message */
    uint32_t running;  /* from its start until its last statement */
    int depth;         /* of regions that call back in */
    pthread_t pthread;
};

/* Messages go here: standard error is captured while unattached threads call in. */
static int message_fd = STDERR_FILENO;

__attribute__((format(printf, 1, 2), noreturn)) static void give_up(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vdprintf(message_fd, format, args);
    va_end(args);
    abort();
}

#define MUST(cond) \
    ((cond) ? (void)0 : give_up("%s:%d: %s does not hold: %s\n", __FILE__, __LINE__, #cond, tri_last_error()))

static uint64_t random_of(struct worker *w, uint64_t n) {
    return (fixture_random(&w->rng) >> 16) % n;
}

static void sleep_us(uint64_t us) {
    nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
}

static void delay(struct worker *w) {
    uint64_t r = random_of(w, 16);
    if (r == 0) sleep_us(random_of(w, 300));
    if (r == 1) sched_yield();
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

/* A heap that the worker is attached to. */
static int some_heap(struct worker *w) {
    int h = (int)random_of(w, NHEAPS);
    return w->threads[h] ? h : 1 - h;
}

/* The list below a slot, rooted in `root` by the caller's frame; every node must be as it was published. */
static uint32_t check_list(struct worker *w, int h, void **root) {
    uint32_t n = 0;
    uint64_t slot = random_of(w, NSLOTS);
    for (const struct pair *p = *root = tri_load(&w->shared->slots[h][slot]); p; p = tri_load(&p->left), n++) {
        if (p->value != MAGIC + (uint64_t)h)
            give_up("heap %d: node %u of list %d holds 0x%llx: it was freed\n", h, n, (int)slot,
                    (unsigned long long)p->value);
        if (n == MAX_LENGTH / 2) tri_poll(w->threads[h]); /* the root holds the list */
    }
    return n;
}

static void publish(struct worker *w, int h) {
    tri_thread *t = w->threads[h];
    TRI_LOCALS(t, roots, 2);
    uint32_t n = check_list(w, h, &roots[0]);
    if (n >= MAX_LENGTH) roots[0] = NULL;
    for (uint64_t i = 1 + random_of(w, 4); i > 0; i--) {
        struct pair *p = roots[1] = tri_new(t, &pair_type);
        MUST(p != NULL);
        p->value = MAGIC + (uint64_t)h;
        tri_store(t, p, &p->left, roots[0]);
        roots[0] = p;
        delay(w);
    }
    tri_root_store(t, w->shared->ranges[h], &w->shared->slots[h][random_of(w, NSLOTS)], roots[0]);
    TRI_POP(t, roots);
}

static void check(struct worker *w, int h) {
    TRI_LOCALS(w->threads[h], roots, 1);
    check_list(w, h, &roots[0]);
    delay(w);
    TRI_POP(w->threads[h], roots);
}

static void *sleep_in_region(void *arg) {
    struct worker *w = arg;
    sleep_us(random_of(w, 400));
    return w;
}

static void operate(struct worker *w);

static void *mutate_again(void *arg) {
    struct worker *w = arg;
    for (uint64_t i = random_of(w, 4); i > 0; i--) operate(w);
    return w;
}

static void *call_in(void *arg) {
    struct worker *w = arg;
    for (uint64_t i = 1 + random_of(w, 3); i > 0; i--) {
        MUST(tri_callin(w->threads[some_heap(w)], mutate_again, w) == w);
        if (random_of(w, 2)) sleep_us(random_of(w, 100));
    }
    return w;
}

/* Waits until another thread comes by, or a moment has passed. */
static void *meet(void *arg) {
    struct worker *w = arg;
    struct shared *s = w->shared;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&s->mutex);
    uint64_t before = s->nmeetings++;
    pthread_cond_broadcast(&s->met);
    while (s->nmeetings == before + 1 && pthread_cond_timedwait(&s->met, &s->mutex, &until) == 0) {}
    pthread_mutex_unlock(&s->mutex);
    return w;
}

static void count_object(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    (void)obj;
    MUST(type == NULL || size_bytes >= type->size);
    ++*(size_t *)arg;
}

static void walk(tri_thread *t) {
    size_t n = 0, told = tri_walk(t, count_object, &n);
    MUST(n == told);
}

static void change_switches(struct worker *w, tri_heap *heap) {
    static const char *const settings[] = {
        "stress.delay=0", "stress.delay=30",   "stress.delay=0",   "stress.slow=1",    "stress.slow=0",
        "stress.slow=0",  "stress.collect=50", "stress.collect=0", "checkmark=1",      "checkmark=0",
        "verify=1",       "verify=0",          "poison=1",         "growth_percent=50"};
    const char *setting = settings[random_of(w, sizeof settings / sizeof *settings)];
    int err = tri_heap_set(heap, setting);
    MUST(err == TRI_OK || (TRI_CHECKS == 0 && err == TRI_EINVAL));
}

static enum kind choose(struct worker *w) {
    uint64_t r = random_of(w, 1000);
    if (r < 3) return OP_VERIFY;
    if (r < 6) return OP_WALK;
    if (r < 12) return OP_COLLECT;
    if (r < 20) return OP_SWITCH;
    if (r < 40) return OP_MEET;
    if (r < 60) return OP_BUSY;
    if (r < 120) return w->depth < 3 ? OP_CALL_IN : OP_POLL;
    if (r < 240) return OP_BLOCK;
    return r < 500 ? OP_PUBLISH : r < 750 ? OP_CHECK : OP_POLL;
}

static void operate(struct worker *w) {
    enum kind kind = choose(w);
    int h = some_heap(w);
    tri_thread *t = w->threads[h];
    __atomic_store_n(&w->doing, op_names[kind], __ATOMIC_RELAXED);
    __atomic_fetch_add(&w->progress, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&w->shared->nops[kind], 1, __ATOMIC_RELAXED);
    switch (kind) {
    case OP_POLL: tri_poll(t); break;
    case OP_PUBLISH: publish(w, h); break;
    case OP_CHECK: check(w, h); break;
    case OP_BLOCK: MUST(tri_blocking(t, sleep_in_region, w) == w); break;
    case OP_CALL_IN:
        w->depth++;
        MUST(tri_blocking(t, call_in, w) == w);
        w->depth--;
        break;
    case OP_MEET: MUST(tri_blocking(t, meet, w) == w); break;
    case OP_BUSY: sleep_us(random_of(w, 2000)); break; /* no safepoint meanwhile */
    case OP_COLLECT: MUST(tri_collect(t) == TRI_OK); break;
    case OP_VERIFY: MUST(tri_verify(t) == 0); break;
    case OP_WALK: walk(t); break;
    default: change_switches(w, w->shared->heaps[h]); break;
    }
}

/* ---- a worker's life -------------------------------------------------------------------------------------------- */

static void attach(struct worker *w, int h) {
    tri_thread *t = NULL;
    uint32_t flags = random_of(w, 2) ? (uint32_t)TRI_ATTACH_PRECISE : 0;
    MUST(tri_attach(w->shared->heaps[h], flags, &t) == TRI_OK);
    MUST(tri_self(w->shared->heaps[h]) == t);
    w->threads[h] = t;
}

static void detach(struct worker *w, int h) {
    if (!w->threads[h]) return;
    MUST(tri_detach(w->threads[h]) == TRI_OK);
    MUST(tri_self(w->shared->heaps[h]) != w->threads[h]);
    w->threads[h] = NULL;
}

/* The supervisor joins it: nothing of the worker is touched after this but by the thread's own end. */
static void leave(struct worker *w) {
    __atomic_store_n(&w->doing, "the end of its thread", __ATOMIC_RELAXED);
    __atomic_fetch_add(&w->progress, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&w->running, 0, __ATOMIC_RELEASE); /* pairs with the supervisor's look */
}

static void *exit_in_region(void *arg) {
    leave(arg);
    pthread_exit(NULL);
}

static __attribute__((noinline)) void exit_in_frames(struct worker *w, int depth) {
    int h = some_heap(w);
    TRI_LOCALS(w->threads[h], roots, 3);
    roots[0] = tri_new(w->threads[h], &pair_type);
    if (depth > 0) exit_in_frames(w, depth - 1);
    leave(w);
    if (depth == 0) pthread_exit(NULL);
    TRI_POP(w->threads[h], roots);
}

static void end(struct worker *w, enum ending ending) {
    switch (ending) {
    case DETACH: detach(w, 0), detach(w, 1); break;
    case DETACH_REVERSED: detach(w, 1), detach(w, 0); break;
    case EXIT_IN_FRAMES: exit_in_frames(w, 4); break;
    case EXIT_IN_REGION: tri_blocking(w->threads[some_heap(w)], exit_in_region, w); break;
    default: break;
    }
    leave(w);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct shared *s = w->shared;
    w->threads[0] = w->threads[1] = NULL;
    w->depth = 0;
    int first = (int)random_of(w, NHEAPS);
    bool both = random_of(w, 3) != 0;
    __atomic_store_n(&w->doing, "tri_attach", __ATOMIC_RELAXED);
    attach(w, first);
    delay(w);
    if (both) attach(w, 1 - first);
    __atomic_fetch_add(&s->nboth, both, __ATOMIC_RELAXED);
    for (uint64_t n = random_of(w, 300); n > 0 && !__atomic_load_n(&s->quit, __ATOMIC_RELAXED); n--) {
        operate(w);
        delay(w);
        if (both && random_of(w, 200) == 0) { /* leaves one heap and comes back, in mid-cycle of either */
            __atomic_store_n(&w->doing, "tri_detach", __ATOMIC_RELAXED);
            int h = (int)random_of(w, NHEAPS);
            detach(w, h);
            delay(w);
            attach(w, h);
        }
    }
    enum ending ending = (enum ending)random_of(w, NUM_ENDINGS);
    __atomic_fetch_add(&s->nendings[ending], 1, __ATOMIC_RELAXED);
    __atomic_store_n(&w->doing, "tri_detach", __ATOMIC_RELAXED);
    end(w, ending);
    return NULL;
}

/* ---- threads that were never attached --------------------------------------------------------------------------- */

static void *never_called(void *arg) {
    (void)arg;
    give_up("a function was run for a thread that is not attached\n");
}

static void expect_refused(struct shared *s, bool refused, const char *call) {
    if (!refused) give_up("%s by a thread that was never attached was not refused\n", call);
    if (strncmp(tri_last_error(), call, strlen(call)) != 0)
        give_up("the error does not name %s: %s\n", call, tri_last_error());
    __atomic_fetch_add(&s->nrefused, 1, __ATOMIC_RELAXED);
}

static void *intrude(void *arg) {
    struct worker *w = arg;
    struct shared *s = w->shared;
    while (!__atomic_load_n(&s->quit, __ATOMIC_RELAXED)) {
        tri_thread *t = tri_self(s->heaps[random_of(w, NHEAPS)]);
        struct pair local = {NULL, NULL, 0};
        __atomic_fetch_add(&w->progress, 1, __ATOMIC_RELAXED);
        switch (random_of(w, 7)) {
        case 0: expect_refused(s, tri_new(t, &pair_type) == NULL, "tri_new"); break;
        case 1: tri_poll(t), expect_refused(s, true, "tri_poll"); break;
        case 2: expect_refused(s, tri_collect(t) == TRI_EUNATTACHED, "tri_collect"); break;
        case 3: expect_refused(s, tri_blocking(t, never_called, NULL) == NULL, "tri_blocking"); break;
        case 4: expect_refused(s, tri_callin(t, never_called, NULL) == NULL, "tri_callin"); break;
        case 5: expect_refused(s, tri_detach(t) == TRI_EUNATTACHED, "tri_detach"); break;
        default:
            tri_store(t, &local, &local.left, &local);
            expect_refused(s, local.left == NULL, "tri_store");
            break;
        }
        sleep_us(random_of(w, 20000));
    }
    __atomic_store_n(&w->running, 0, __ATOMIC_RELEASE); /* pairs with the supervisor's look */
    return NULL;
}

/* ---- the supervisor --------------------------------------------------------------------------------------------- */

static void on_event(const tri_event *event, void *user) {
    if (event->kind == TRI_EVENT_CYCLE_END) __atomic_fetch_add((uint64_t *)user, 1, __ATOMIC_RELAXED);
}

static void open_heaps(struct shared *s) {
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->met, NULL);
    for (int h = 0; h < NHEAPS; h++) {
        tri_config config = fixture_config(h == 0 ? 0 : TRI_HEAP_PRECISE);
        config.reserve_bytes = (size_t)1 << 30;
        config.min_heap_bytes = 256 << 10;
        config.wait_limit_ms = 2000 * STUCK_S; /* the supervisor is faster, and says more */
        config.event = on_event;
        config.user = &s->ncycles[h];
        struct fixture f = fixture_open_config(&config);
        s->heaps[h] = f.heap;
        s->ranges[h] = tri_root_add(f.thread, s->slots[h], NSLOTS, NULL);
        if (TRI_CHECKS >= 1) CHECK_EQ(tri_heap_set(f.heap, "stress.delay=30"), TRI_OK);
        CHECK_EQ(tri_detach(f.thread), TRI_OK);
    }
}

/* Nobody is left; nothing that a thread had is left; and the heaps are sound. */
static void close_heaps(struct shared *s) {
    static const char *const off[] = {"stress.delay=0", "stress.slow=0", "stress.collect=0"};
    for (int h = 0; h < NHEAPS; h++) {
        struct fixture f = {s->heaps[h], NULL};
        for (size_t i = 0; i < sizeof off / sizeof *off && TRI_CHECKS >= 1; i++)
            CHECK_EQ(tri_heap_set(f.heap, off[i]), TRI_OK);
        CHECK_EQ(tri_attach(f.heap, TRI_ATTACH_PRECISE, &f.thread), TRI_OK);
        CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
        size_t one = tri__fixalloc_in_use_bytes(&f.heap->fix_mutator);
        CHECK_MSG(one < 2 * align_up(sizeof(struct mutator), 4096), "%zu bytes of attachments are left", one);
        tri_root_remove(f.thread, s->ranges[h]);
        for (int i = 0; i < 2; i++) fixture_collect(&f);
        CHECK_EQ(fixture_stats(f.heap).live_bytes, 0);
        CHECK_EQ(tri__fixalloc_in_use_bytes(&f.heap->fix_small), 0);
        fixture_close(&f);
    }
}

static void start(struct worker *w, void *(*fn)(void *)) {
    w->running = 1;
    int err = pthread_create(&w->pthread, NULL, fn, w);
    if (err != 0) give_up("pthread_create: %s\n", strerror(err));
}

static void tell_stuck(const struct shared *s, const struct worker *w, int i) {
    for (int h = 0; h < NHEAPS; h++) {
        tri_heap *heap = s->heaps[h];
        dprintf(message_fd, "heap %d: phase %d, step %llu of kind %d, %u answers owed, stopping %u, %u threads\n", h,
                (int)heap_phase(heap), (unsigned long long)heap->step_seq, (int)heap->last_step,
                atomic_load_relaxed(&heap->pending), atomic_load_relaxed(&heap->stopping),
                atomic_load_relaxed(&heap->nthreads));
    }
    give_up("worker %d has made no progress for %d s; it is in %s\n", i, STUCK_S,
            __atomic_load_n(&w->doing, __ATOMIC_RELAXED));
}

/* Joins who has ended and starts others, until `end_ns`; then waits for all. */
static void supervise(struct shared *s, struct worker *workers, uint64_t end_ns) {
    uint64_t seen[NWORKERS] = {0}, seen_ns[NWORKERS] = {0};
    for (int nleft = NWORKERS; nleft > 0; sleep_us(500)) {
        uint64_t now = tri__os_now_ns();
        if (now > end_ns) __atomic_store_n(&s->quit, 1, __ATOMIC_RELAXED);
        for (int i = 0; i < NWORKERS; i++) {
            struct worker *w = &workers[i];
            uint64_t progress = __atomic_load_n(&w->progress, __ATOMIC_RELAXED);
            if (!w->pthread) continue;
            if (progress != seen[i] || seen_ns[i] == 0) seen[i] = progress, seen_ns[i] = now;
            if (now - seen_ns[i] > (uint64_t)STUCK_S * 1000000000) tell_stuck(s, w, i);
            if (__atomic_load_n(&w->running, __ATOMIC_ACQUIRE)) continue; /* pairs with leave */
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec += STUCK_S;
            if (pthread_timedjoin_np(w->pthread, NULL, &until) != 0) tell_stuck(s, w, i);
            w->pthread = 0;
            if (now <= end_ns)
                start(w, worker_main);
            else
                nleft--;
        }
    }
}

static uint64_t seconds_of_a_run(void) {
    return test_env_u64("TRI_HANDSHAKE_SECONDS", test_stress() ? 60 : 3);
}

static void run(struct shared *s, int nintruders) {
    static struct worker workers[NWORKERS], intruders[NINTRUDERS];
    uint64_t seed = test_env_u64("TRI_TEST_SEED", tri__os_now_ns() % 1000000007) + 1;
    printf("handshake: seed %llu\n", (unsigned long long)seed - 1);
    fflush(stdout);
    open_heaps(s);
    for (int i = 0; i < NWORKERS + nintruders; i++) {
        struct worker *w = i < NWORKERS ? &workers[i] : &intruders[i - NWORKERS];
        *w = (struct worker){.shared = s, .rng = seed * 0x9e3779b97f4a7c15ull + (uint64_t)i * 0x123456789abcdefu};
        start(w, i < NWORKERS ? worker_main : intrude);
    }
    supervise(s, workers, tri__os_now_ns() + seconds_of_a_run() * 1000000000);
    for (int i = 0; i < nintruders; i++) CHECK_EQ(pthread_join(intruders[i].pthread, NULL), 0);
    uint64_t nops = 0, nthreads = 0, ncycles[NHEAPS]; /* the collectors still run */
    for (int h = 0; h < NHEAPS; h++) ncycles[h] = __atomic_load_n(&s->ncycles[h], __ATOMIC_RELAXED);
    for (int i = 0; i < NUM_OPS; i++) nops += s->nops[i];
    for (int i = 0; i < NUM_ENDINGS; i++) nthreads += s->nendings[i];
    printf("handshake: %llu operations by %llu threads, %llu of them in both heaps; %llu and %llu cycles\n",
           (unsigned long long)nops, (unsigned long long)nthreads, (unsigned long long)s->nboth,
           (unsigned long long)ncycles[0], (unsigned long long)ncycles[1]);
    fflush(stdout);
    CHECK(nthreads > NWORKERS && s->nboth > 0 && ncycles[0] > 1 && ncycles[1] > 1);
    close_heaps(s);
}

TEST(handshake, threads_come_and_go_and_block, .timeout = 600) {
    static struct shared s;
    run(&s, 0);
    for (int i = 0; i < NUM_OPS; i++) CHECK_MSG(s.nops[i] > 0, "no thread has come to %s", op_names[i]);
}

/* ---- standard error, captured ----------------------------------------------------------------------------------- */

static int captured_fd = -1;

/* The process ends while its messages are captured: the last of them are shown, but for the refusals. */
static void show_captured(int number) {
    static char text[1 << 16];
    off_t size = lseek(captured_fd, 0, SEEK_END), from = size > (off_t)sizeof text ? size - (off_t)sizeof text : 0;
    ssize_t n = pread(captured_fd, text, sizeof text - 1, from);
    for (char *line = text, *end; n > 0 && *line; line = end) {
        end = strchr(line, '\n');
        end = end ? end + 1 : line + strlen(line);
        bool refusal = memmem(line, (size_t)(end - line), "not attached", 12) != NULL;
        if (!refusal && write(message_fd, line, (size_t)(end - line)) < 0) break;
    }
    signal(number, SIG_DFL);
    raise(number);
}

/* Every line that was captured is the refusal of a call; the others are shown. */
static uint64_t count_refusals(FILE *captured) {
    char line[1024];
    uint64_t n = 0, nothers = 0;
    rewind(captured);
    while (fgets(line, sizeof line, captured)) {
        bool refusal = strncmp(line, "trigc: tri_", 11) == 0 && strstr(line, "not attached");
        n += refusal;
        nothers += !refusal;
        if (!refusal) fputs(line, stderr);
    }
    CHECK_MSG(nothers == 0, "%llu other lines on standard error", (unsigned long long)nothers);
    return n;
}

TEST(handshake, threads_that_were_never_attached_call_in, .timeout = 600) {
    static struct shared s;
    FILE *captured = tmpfile();
    CHECK(captured != NULL);
    captured_fd = fileno(captured);
    fcntl(captured_fd, F_SETFL, O_APPEND);
    message_fd = dup(STDERR_FILENO);
    signal(SIGABRT, show_captured);
    fflush(stderr);
    CHECK(dup2(captured_fd, STDERR_FILENO) >= 0);
    run(&s, NINTRUDERS);
    fflush(stderr);
    CHECK(dup2(message_fd, STDERR_FILENO) >= 0);
    signal(SIGABRT, SIG_DFL);
    uint64_t n = count_refusals(captured);
    CHECK_MSG(n > 0 && n <= s.nrefused, "%llu refusals on standard error, of %llu", (unsigned long long)n,
              (unsigned long long)s.nrefused);
    fclose(captured);
}
