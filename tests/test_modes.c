/*
 * The ways in which a heap collects (gc/mode.c): one program under each of them, with the same survivors, and
 * the same weak slots cleared, entries of a weak map gone, cleanups run and objects come back; in a stop one collection
 * leaves no garbage at all; the insertion barrier's second scan finds what stacks and new objects hold, and
 * checkmark sees it when it does not; modes change between cycles of a running program.
 */
#include "tests/fixture.h"
#include "gc/mode.h"

static const char *const modes[NUM_MODES] = {"mode=concurrent", "mode=insertion", "mode=stop-mark", "mode=stop",
                                             "mode=incremental"};

/* Watched by a finalizer queue. It names nothing: whatever an object that came back names would live until it is taken
 * out of the queue, so for as long as the cycles have it. */
struct note {
    uint64_t number, seal;
};
TRI_LEAF_TYPE(note_type, struct note);

struct thing {
    struct thing *refs[3];
    struct note *note;
    struct thing *seen; /* weak */
    uint64_t number, seal;
};
static const uint32_t thing_refs[] = {offsetof(struct thing, refs[0]), offsetof(struct thing, refs[1]),
                                      offsetof(struct thing, refs[2]), offsetof(struct thing, note)};
static const uint32_t thing_weaks[] = {offsetof(struct thing, seen)};
static tri_type thing_type = {.struct_size = sizeof(tri_type),
                              .name = "struct thing",
                              .size = sizeof(struct thing),
                              .pointers = {.noffsets = TRI_COUNT(thing_refs), .offsets = thing_refs},
                              .weaks = {.noffsets = TRI_COUNT(thing_weaks), .offsets = thing_weaks}};

static uint64_t seal_of(uint64_t number) {
    return (number + 1) * 0x9e3779b97f4a7c15ull;
}

static struct fixture open_in(int mode, uint32_t flags) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | flags);
    config.min_heap_bytes = 256 << 10;
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, modes[mode]);
    return f;
}

/* ---- a program that is the same every time ---------------------------------------------------------------------- */

enum { NROOTS = 64, MAP_ROOT = NROOTS, MADE_ROOT, ALL_ROOTS };

/* A number of objects, and which: the sum of their seals. */
struct tally {
    uint64_t n, sum;
};

static void tally_up(struct tally *t, uint64_t number) {
    t->n++;
    t->sum += seal_of(number);
}

/* After a stretch: what lives, and what the program was told of since it began. */
struct survivors {
    struct tally things, notes, weak, entries, cleanups, finalized;
};

/* What a thread edits with. */
struct program {
    tri_thread *thread;
    void **roots;
    tri_finq *queue;
    uint64_t random, number, nwatched, ncleanups;
};
static struct tally cleaned; /* under the mutex */
static pthread_mutex_t cleaned_mutex = PTHREAD_MUTEX_INITIALIZER;

static void clean_up(void *arg) {
    pthread_mutex_lock(&cleaned_mutex);
    tally_up(&cleaned, (uintptr_t)arg);
    pthread_mutex_unlock(&cleaned_mutex);
}

static void count_one(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    struct survivors *s = arg;
    (void)size_bytes;
    if (type == &note_type) {
        const struct note *note = obj;
        CHECK(note->seal == seal_of(note->number));
        tally_up(&s->notes, note->number);
    } else if (type == &thing_type) {
        struct thing *t = obj, *seen = atomic_load_relaxed(&t->seen); /* nobody runs */
        CHECK(t->seal == seal_of(t->number));
        tally_up(&s->things, t->number);
        if (seen) tally_up(&s->weak, t->number ^ seen->number << 20);
    }
}

static void open_program(struct program *p, tri_thread *thread, void **roots, uint64_t seed) {
    *p = (struct program){.thread = thread, .roots = roots, .random = seed, .number = seed << 32};
    p->queue = tri_finq_new(thread);
    roots[MAP_ROOT] = tri_wmap_new(thread, NULL);
    CHECK(p->queue && roots[MAP_ROOT]);
}

static void watch_note(struct program *p, struct thing *made) {
    struct note *note = tri_new(p->thread, &note_type);
    CHECK(note != NULL);
    made = p->roots[MADE_ROOT];
    note->number = made->number;
    note->seal = made->seal;
    tri_store(p->thread, made, &made->note, note);
    CHECK_EQ(tri_finq_watch(p->thread, p->queue, note), TRI_OK);
    p->nwatched++;
}

static void make_thing(struct program *p, size_t a, size_t b, size_t k) {
    struct thing *made = p->roots[MADE_ROOT] = tri_new(p->thread, &thing_type);
    CHECK(made != NULL);
    struct thing *t = p->roots[a], *u = p->roots[b];
    tri_init(p->thread, made, &made->refs[0], t);
    tri_init(p->thread, made, &made->refs[1], u ? tri_load(&u->refs[k]) : NULL);
    made->number = ++p->number;
    made->seal = seal_of(made->number);
    if (made->number % 4 == 0) {
        CHECK_EQ(tri_cleanup_add(p->thread, made, clean_up, (void *)(uintptr_t)made->number), TRI_OK);
        p->ncleanups++;
    }
    if (made->number % 8 == 1) watch_note(p, made);
    p->roots[a] = p->roots[MADE_ROOT];
    p->roots[MADE_ROOT] = NULL;
}

/* Another reference that keeps nothing alive, or a look into the map. Weak slots are not loaded: that would bring
 * things back which one mode has cleared already, and another has not. */
static void name_weakly(struct program *p, size_t a, size_t b, size_t k) {
    struct thing *t = p->roots[a], *u = p->roots[b];
    tri_word found;
    if (!t) return;
    if (k == 0)
        tri_store(p->thread, t, &t->seen, u);
    else if (k == 1 && u)
        CHECK_EQ(tri_wmap_put(p->thread, p->roots[MAP_ROOT], t, (tri_word)(uintptr_t)u), TRI_OK);
    else if (k == 2 && tri_wmap_get(p->thread, p->roots[MAP_ROOT], t, &found)) /* it is held, and so is what it has */
        p->roots[b] = (void *)(uintptr_t)found;
}

/* Makes objects out of what the roots hold, links, loads and drops: half of all stores take the only way to something
 * away. */
static void edit(struct program *p, int nops) {
    tri_thread *thread = p->thread;
    void **roots = p->roots;
    for (int i = 0; i < nops; i++) {
        uint64_t r = fixture_random(&p->random);
        size_t a = r % NROOTS, b = (r >> 8) % NROOTS, k = (r >> 16) % 3;
        struct thing *t = roots[a], *u = roots[b];
        switch ((r >> 24) % 9) {
        case 0:
        case 1:
        case 2: make_thing(p, a, b, k); break;
        case 3:
        case 4:
            if (t) tri_store(thread, t, &t->refs[k], u);
            break;
        case 5:
            if (t) roots[b] = tri_load(&t->refs[k]);
            break;
        case 6: /* moves a reference: out of one object, into another, with nothing on the stack in between */
            if (t && u) {
                tri_store(thread, t, &t->refs[k], tri_load(&u->refs[(k + 1) % 3]));
                tri_store(thread, u, &u->refs[(k + 1) % 3], NULL);
            }
            break;
        case 7: name_weakly(p, a, b, k); break;
        default: roots[a] = NULL;
        }
    }
}

static void take_finalized(struct program *p, struct tally *finalized) {
    for (const struct note *note; (note = tri_finq_poll(p->thread, p->queue)) != NULL;) {
        CHECK(note->seal == seal_of(note->number));
        tally_up(finalized, note->number);
    }
}

/* Collects what is unreachable, and what is no more once it came back. */
static void count_survivors(const struct fixture *f, struct program *p, int ncollects, struct survivors *s) {
    struct tally finalized = s->finalized;
    *s = (struct survivors){.finalized = finalized};
    for (int k = 0; k < ncollects; k++) CHECK_EQ(tri_collect(f->thread), TRI_OK);
    take_finalized(p, &s->finalized);
    for (int k = 0; k < ncollects; k++) CHECK_EQ(tri_collect(f->thread), TRI_OK);
    tri_cleanup_run(p->thread, SIZE_MAX);
    s->cleanups = cleaned;
    CHECK(tri_finq_poll(p->thread, p->queue) == NULL);
    size_t nwalked = tri_walk(p->thread, count_one, s);
    CHECK_EQ(nwalked, s->things.n + s->notes.n + 1); /* and the map */
    size_t position = 0;
    void *key;
    for (tri_word value; tri_wmap_next(p->thread, p->roots[MAP_ROOT], &position, &key, &value);)
        tally_up(&s->entries, ((struct thing *)key)->number ^ ((struct thing *)(uintptr_t)value)->number << 20);
    CHECK_EQ(tri_wmap_count(p->thread, p->roots[MAP_ROOT]), s->entries.n);
}

/* What lives after each of some stretches. */
enum { STRETCHES = 6, OPS = TEST_IS_SLOW ? 20000 : 100000 };

/* The last one of `out` is of a heap where everything but the map was dropped. */
static void run_program(int mode, struct survivors out[STRETCHES + 1], int ncollects) {
    struct fixture f = open_in(mode, 0);
    TRI_LOCALS(f.thread, roots, ALL_ROOTS);
    struct program p;
    struct survivors s = {0};
    open_program(&p, f.thread, roots, 20261121);
    cleaned = (struct tally){0};
    for (int i = 0; i < STRETCHES; i++) {
        edit(&p, OPS);
        count_survivors(&f, &p, ncollects, &s);
        out[i] = s;
    }
    for (int i = 0; i < NROOTS; i++) roots[i] = NULL;
    count_survivors(&f, &p, ncollects, &s);
    out[STRETCHES] = s;
    CHECK(s.things.n + s.notes.n + s.weak.n + s.entries.n == 0);
    CHECK_EQ(s.finalized.n, p.nwatched);
    CHECK_EQ(s.cleanups.n, p.ncleanups);
    CHECK(fixture_stats(f.heap).cycles >= STRETCHES);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static void expect_same(const char *mode, int stretch, const char *what, struct tally got, struct tally oracle) {
    CHECK_MSG(got.n == oracle.n && got.sum == oracle.sum, "%s, stretch %d: %llu %s, %llu where every thread stands%s",
              mode, stretch, (unsigned long long)got.n, what, (unsigned long long)oracle.n,
              got.n == oracle.n ? ", and others" : "");
}

TEST(modes, all_leave_the_same_survivors) {
    struct survivors oracle[STRETCHES + 1], other[STRETCHES + 1];
    run_program(MODE_STOP, oracle, 1); /* in a stop one collection is exact */
    const struct survivors *o = &oracle[STRETCHES - 1];
    CHECK(o->things.n > 10 && o->notes.n > 2 && o->weak.n > 2 && o->entries.n > 2);
    CHECK(o->cleanups.n > 100 && o->finalized.n > 100);
    printf("the last stretch leaves %llu things, %llu notes, %llu weak slots and %llu entries; %llu cleanups ran, %llu "
           "notes came back\n",
           (unsigned long long)o->things.n, (unsigned long long)o->notes.n, (unsigned long long)o->weak.n,
           (unsigned long long)o->entries.n, (unsigned long long)o->cleanups.n, (unsigned long long)o->finalized.n);
    for (int mode = 0; mode < NUM_MODES; mode++) {
        run_program(mode, other, mode == MODE_STOP_MARK ? 1 : 2);
        for (int i = 0; i <= STRETCHES; i++) {
            expect_same(modes[mode], i, "things", other[i].things, oracle[i].things);
            expect_same(modes[mode], i, "notes", other[i].notes, oracle[i].notes);
            expect_same(modes[mode], i, "weak slots that name something", other[i].weak, oracle[i].weak);
            expect_same(modes[mode], i, "entries of the map", other[i].entries, oracle[i].entries);
            expect_same(modes[mode], i, "cleanups", other[i].cleanups, oracle[i].cleanups);
            expect_same(modes[mode], i, "notes that came back", other[i].finalized, oracle[i].finalized);
        }
    }
}

/* ---- several threads --------------------------------------------------------------------------------------------- */

struct editor {
    tri_heap *heap;
    uint64_t seed;
    uint32_t stop; /* [atomic] */
};

static void check_reachable(const struct thing *t, int depth) {
    CHECK(t->seal == seal_of(t->number));
    const struct note *note = tri_load(&t->note);
    if (note) CHECK(note->seal == seal_of(note->number));
    for (int k = 0; k < 3 && depth > 0; k++) {
        const struct thing *next = tri_load(&t->refs[k]);
        if (next) check_reachable(next, depth - 1);
    }
}

static void *edit_main(void *arg) {
    struct editor *e = arg;
    tri_thread *thread = fixture_attach(e->heap);
    TRI_LOCALS(thread, roots, ALL_ROOTS);
    struct program p;
    struct tally finalized = {0, 0};
    open_program(&p, thread, roots, e->seed);
    while (!atomic_load_acquire(&e->stop)) {
        edit(&p, 1000);
        take_finalized(&p, &finalized);
        tri_cleanup_run(thread, SIZE_MAX);
        for (int i = 0; i < NROOTS; i++)
            if (roots[i]) check_reachable(roots[i], 4);
    }
    TRI_POP(thread, roots);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

enum { EDITORS = 3 };

static void start(tri_heap *heap, struct editor *editors, pthread_t *threads) {
    for (uint64_t i = 0; i < EDITORS; i++) {
        editors[i] = (struct editor){heap, i + 1, 0};
        CHECK_EQ(pthread_create(&threads[i], NULL, edit_main, &editors[i]), 0);
    }
}

static void stop(const struct fixture *f, struct editor *editors, pthread_t *threads) {
    for (int i = 0; i < EDITORS; i++) atomic_store_release(&editors[i].stop, 1);
    for (int i = 0; i < EDITORS; i++) fixture_join(f->thread, threads[i]);
}

TEST(modes, threads_lose_nothing_in_any) {
    for (int mode = 0; mode < NUM_MODES; mode++) {
        struct fixture f = open_in(mode, 0);
        struct editor editors[EDITORS];
        pthread_t threads[EDITORS];
        fixture_set(f.heap, "checkmark=1");
        fixture_set(f.heap, "stress.delay=5");
        start(f.heap, editors, threads);
        for (int i = 0; i < 15; i++) fixture_collect(&f);
        stop(&f, editors, threads);
        fixture_set(f.heap, "stress.delay=0");
        CHECK_EQ(f.heap->stress.reports, 0);
        fixture_close(&f);
    }
}

static uint32_t least_of(const uint32_t *counts, size_t n) {
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < n; i++) least = counts[i] < least ? counts[i] : least;
    return least;
}

TEST(modes, change_between_two_cycles_of_a_running_program) {
    struct fixture f = open_in(MODE_CONCURRENT, 0);
    struct editor editors[EDITORS];
    pthread_t threads[EDITORS];
    uint32_t changed[NUM_MODES] = {0}, ncycles = 0;
    start(f.heap, editors, threads);
    for (int i = 0; i < 400 || (i < 40000 && least_of(changed, NUM_MODES) <= 5); i++) {
        int mode = i % NUM_MODES;
        for (int k = 0; k < 200; k++) {
            int err = tri_heap_set(f.heap, modes[mode]);
            CHECK(err == TRI_OK || err == TRI_EBUSY);
            if (err == TRI_OK) {
                changed[mode]++;
                break;
            }
            tri_step(f.thread, 20000);
            sched_yield(); /* the collector has the cycle, and may have no other core */
        }
        if (i % 7 == 0) fixture_collect(&f), ncycles++;
        if (i % 31 == 0) CHECK_EQ(tri_verify(f.thread), 0);
    }
    stop(&f, editors, threads);
    for (int mode = 0; mode < NUM_MODES; mode++)
        CHECK_MSG(changed[mode] > 5, "%s: %u times", modes[mode], changed[mode]);
    CHECK(fixture_stats(f.heap).cycles >= ncycles);
    fixture_close(&f);
}

/* ---- what the second scan is for --------------------------------------------------------------------------------- */

/* A heap without threads, step by step: a cycle has scanned this thread's stack and the roots, and little is traced
 * yet. The only reference to an object is taken out of a black object's future child into the stack, or into a new
 * object that nobody scans. Whether it lives afterwards. */
static bool hidden_object_lives(const char *fault, bool in_new_object) {
    enum { FIRST = 3000 };
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.workers = 0;
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, "mode=insertion");
    fixture_set(f.heap, fault);
    TRI_LOCALS(f.thread, roots, 3);
    struct thing *holder = roots[0] = tri_new(f.thread, &thing_type);
    for (int i = 0; i < FIRST; i++) { /* what is traced before; the holder is a root of the last one alone */
        struct thing *t = tri_new(f.thread, &thing_type);
        tri_init(f.thread, t, &t->refs[0], roots[0]);
        roots[0] = t;
    }
    tri_init(f.thread, holder, &holder->refs[0], tri_new(f.thread, &thing_type));
    uintptr_t hidden = hide(holder->refs[0]);
    tri__cycle_request(f.heap, "test");
    while (heap_phase(f.heap) != PHASE_MARK) CHECK(tri_step(f.thread, 0));
    struct thing *found = tri_load(&holder->refs[0]);
    if (in_new_object) {
        roots[1] = tri_new(f.thread, &thing_type);
        tri_init(f.thread, roots[1], &((struct thing *)roots[1])->refs[2], tri_load(&holder->refs[0]));
    } else {
        roots[1] = found;
    }
    tri_store(f.thread, holder, &holder->refs[0], NULL);
    while (tri_step(f.thread, 1000000)) {}
    CHECK_EQ(heap_phase(f.heap), PHASE_IDLE);
    bool lives = is_alive(f.heap, hidden);
    roots[0] = roots[1] = NULL;
    TRI_POP(f.thread, roots);
    fixture_set(f.heap, "fault=none");
    fixture_close(&f);
    return lives;
}

TEST(modes, what_only_a_stack_holds_is_found_by_the_second_scan) {
    CHECK(hidden_object_lives("fault=none", false));
    CHECK(hidden_object_lives("fault=fresh_black", false));
    CHECK(!hidden_object_lives("fault=no_rescan", false));
}

TEST(modes, what_only_a_new_object_holds_is_found_by_the_second_scan) {
    CHECK(hidden_object_lives("fault=none", true));
    CHECK(hidden_object_lives("fault=no_rescan", true));
    CHECK(!hidden_object_lives("fault=fresh_black", true));
}

/* ---- a newcomer between the second scan and H5 ------------------------------------------------------------------- */

struct newcomer {
    tri_heap *heap;
    tri_vmstack *stack;
    tri_word words[4];
    uintptr_t top;
};

static void *attach_and_suspend(void *arg) {
    struct newcomer *n = arg;
    tri_thread *t = fixture_attach(n->heap);
    CHECK(!mutator_of(t)->grey_stack);
    n->top = (uintptr_t)(n->words + 1);
    n->stack = tri_vmstack_add(t, n->words, &n->top, NULL);
    CHECK_EQ(tri_vmstack_suspend(t, n->stack), TRI_OK);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* Its stack is as black as everybody's, and what it suspends counts as scanned: others may touch it (R8). */
TEST(modes, who_comes_after_the_second_scan_is_black) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.workers = 0;
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, "mode=insertion");
    tri__cycle_request(f.heap, "test");
    while (heap_phase(f.heap) != PHASE_DEATH) CHECK(tri_step(f.thread, 0));
    struct newcomer n = {.heap = f.heap};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, attach_and_suspend, &n), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(heap_phase(f.heap), PHASE_DEATH);
    CHECK_EQ(tri_vmstack_touch(f.thread, n.stack), TRI_OK);
    while (tri_step(f.thread, 1000000)) {}
    tri_vmstack_remove(f.thread, n.stack);
    fixture_close(&f);
}

TEST(modes, are_options_by_name_between_two_cycles) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "mode=hybrid"), TRI_EINVAL);
    CHECK(strstr(tri_last_error(), "insertion") != NULL);
    for (int mode = NUM_MODES; mode-- > 0;) {
        CHECK_EQ(tri_heap_set(f.heap, modes[mode]), TRI_OK);
        CHECK_EQ(tri__mode(f.heap), (enum mode)mode);
        fixture_collect(&f);
    }
    fixture_set(f.heap, "mode=incremental");
    tri__cycle_request(f.heap, "test");
    CHECK_EQ(tri_heap_set(f.heap, "mode=stop"), TRI_EBUSY); /* asked for */
    while (tri_step(f.thread, 1000)) {}
    CHECK_EQ(tri_heap_set(f.heap, "mode=stop"), TRI_OK);
    fixture_close(&f);
}
