/*
 * The cycle from outside: the order of its phases, what a forced collection promises, deep and wide structures, a fast
 * allocator against the marker, threads that come and go in mid-cycle, and marking without memory for its buffers.
 *
 * Sampling proves little by itself, so each test that samples says what it must have seen at least. Sizes shrink under
 * the sanitizers; what starves the process stands aside there.
 */
#include "tests/fixture.h"
#include "tests/process.h"

/* Ends a heap that is too large to be verified object by object. */
static void close_unverified(struct fixture *f) {
    CHECK_EQ(tri_detach(f->thread), TRI_OK);
    CHECK_EQ(tri_heap_destroy(f->heap), TRI_OK);
    CHECK_MSG(atomic_load_acquire(&fixture_nreports) == 0, "reported: %s", fixture_report);
}

/* ---- Phases ---- */

/* What one thread saw of the phases of one heap. */
struct watcher {
    tri_heap *heap;
    uint64_t cycle;  /* the one that `last` belongs to */
    enum phase last; /* the newest phase of it */
    bool ended;      /* idle again */
    uint32_t seen;   /* bit p: phase p was seen */
    uint32_t again;  /* times that marking came after a flush round */
    uint32_t stop;   /* [atomic] */
};

/* One sample: within a cycle nothing goes back but FLUSH to MARK, and nothing follows the end. */
static void watch_once(struct watcher *w) {
    uint64_t cycle = atomic_load_acquire(&w->heap->cycle_number);
    enum phase phase = heap_phase(w->heap);
    if (cycle != atomic_load_acquire(&w->heap->cycle_number)) return; /* whose phase it is cannot be said */
    CHECK_MSG((unsigned)phase < NUM_PHASES, "phase %u", (unsigned)phase);
    if (cycle != w->cycle) w->cycle = cycle, w->last = PHASE_IDLE, w->ended = false;
    atomic_store_relaxed(&w->seen, w->seen | 1u << phase); /* its only writer */
    if (phase == w->last) return;
    CHECK_MSG(!w->ended, "cycle %llu: phase %d after its end", (unsigned long long)cycle, (int)phase);
    bool again = w->last == PHASE_FLUSH && phase == PHASE_MARK;
    CHECK_MSG(phase > w->last || again || phase == PHASE_IDLE, "cycle %llu: phase %d after %d",
              (unsigned long long)cycle, (int)phase, (int)w->last);
    atomic_store_relaxed(&w->again, w->again + again); /* its only writer */
    w->ended = phase == PHASE_IDLE;
    w->last = phase;
}

static void *watch_thread(void *arg) {
    struct watcher *w = arg;
    while (!atomic_load_acquire(&w->stop)) watch_once(w);
    return NULL;
}

/* A graph that is edited while it is marked, so that rounds of the flush find something. */
static void edit(tri_thread *thread, void **array, size_t n, uint64_t *random, bool starved) {
    enum { STEPS = 50 };
    for (int i = 0; i < STEPS; i++) {
        struct pair *p = tri_new(thread, &pair_type);
        CHECK(p != NULL || starved);
        if (p) tri_init(thread, p, &p->left, array[fixture_random(random) % n]);
        if (!p) p = array[fixture_random(random) % n]; /* then what there is moves */
        tri_store(thread, array, &array[fixture_random(random) % n], p);
        struct pair *q = array[fixture_random(random) % n];
        if (q) tri_store(thread, q, &q->right, NULL);
        if (q && i % 4 == 0) tri_store(thread, q, &q->left, NULL); /* no chain grows for ever */
    }
}

struct editor {
    tri_heap *heap;
    bool starved;   /* allocation may fail */
    uint32_t stop;  /* [atomic] */
    uint32_t ready; /* it has its array [atomic] */
};

static void *edit_thread(void *arg) {
    struct editor *e = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(e->heap, 0, &thread), TRI_OK);
    TRI_LOCALS(thread, roots, 1);
    uint64_t random = fixture_seed();
    roots[0] = tri_new_n(thread, &array_type, 500);
    CHECK(roots[0] != NULL);
    atomic_store_release(&e->ready, 1);
    while (!atomic_load_acquire(&e->stop)) {
        edit(thread, roots[0], 500, &random, e->starved);
        tri_poll(thread);
    }
    TRI_POP(thread, roots);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

enum { ALL_PHASES = (1u << NUM_PHASES) - 1 };

TEST(cycle, phases_follow_the_table) {
    if (TRI_CHECKS < 1) return; /* delays make each phase long enough to be seen */
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "stress.delay=200"), TRI_OK);
    struct watcher w = {.heap = f.heap};
    struct editor e = {.heap = f.heap};
    pthread_t watcher, editor;
    CHECK_EQ(pthread_create(&watcher, NULL, watch_thread, &w), 0);
    CHECK_EQ(pthread_create(&editor, NULL, edit_thread, &e), 0);
    uint64_t start = tri__os_now_ns();
    /* Until a round has failed to close and every phase has been met, which are matters of luck in each cycle. */
    for (int i = 0; i < 20 || tri__os_now_ns() - start < 500000000 ||
                    ((!atomic_load_relaxed(&w.again) || atomic_load_relaxed(&w.seen) != ALL_PHASES) &&
                     tri__os_now_ns() - start < 30000000000);
         i++)
        fixture_collect(&f);
    atomic_store_release(&e.stop, 1);
    atomic_store_release(&w.stop, 1);
    fixture_join(f.thread, editor);
    fixture_join(f.thread, watcher);
    CHECK_MSG(w.seen == ALL_PHASES, "only phases 0x%x were seen", w.seen);
    CHECK_MSG(w.again > 0, "no round of the flush sent the cycle back to marking");
    fixture_close(&f);
}

/* In a child: a phase that the collector did not set. The next one is no edge of the table. */
static void leave_the_table(const void *from) {
    struct fixture f = fixture_open();
    atomic_store_release(&f.heap->phase, *(const enum phase *)from);
    tri_collect(f.thread);
}

TEST(cycle, an_edge_that_is_not_in_the_table_ends_the_process_by_name) {
    for (enum phase from = PHASE_ARM; from < NUM_PHASES; from++) {
        char text[8192];
        int status = process_in_child(leave_the_table, &from, text, sizeof text);
        CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "from phase %d: status 0x%x", (int)from, status);
        CHECK_MSG(strstr(text, "I-CYC1") != NULL, "from phase %d: \"%s\"", (int)from, text);
    }
}

/* ---- A forced collection ---- */

/* A size and type of its own: what is freed there stays free. 48 bytes: never in a mixed span. */
struct own {
    struct own *next;
    uint64_t words[5];
};
TRI_TYPE(own_type, struct own, next);

static void *collect_thread(void *arg) {
    struct editor *e = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(e->heap, 0, &thread), TRI_OK);
    while (!atomic_load_acquire(&e->stop)) CHECK_EQ(tri_collect(thread), TRI_OK);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* At whatever point of somebody else's cycle it is asked for: what was garbage before is gone, what was not is not. */
TEST(cycle, a_forced_collection_frees_what_was_garbage_before) {
    struct fixture f = fixture_open();
    if (TRI_CHECKS >= 1) CHECK_EQ(tri_heap_set(f.heap, "stress.delay=50"), TRI_OK);
    struct editor e = {.heap = f.heap}, c = {.heap = f.heap};
    pthread_t editor, collector;
    CHECK_EQ(pthread_create(&editor, NULL, edit_thread, &e), 0);
    CHECK_EQ(pthread_create(&collector, NULL, collect_thread, &c), 0);
    TRI_LOCALS(f.thread, roots, 2);
    uint64_t random = fixture_seed();
    uint32_t phases = 0;
    for (int i = 0; i < (TEST_IS_SLOW ? 60 : 200); i++) {
        struct own *kept = roots[0] = tri_new(f.thread, &own_type);
        struct own *dropped = roots[1] = tri_new(f.thread, &own_type);
        CHECK(kept && dropped);
        dropped->words[0] = kept->words[0] = 77;
        tri_store(f.thread, dropped, &dropped->next, tri_new(f.thread, &own_type));
        uintptr_t gone[2] = {hide(dropped), hide(dropped->next)};
        for (uint64_t turn = fixture_random(&random) % 400; turn > 0; turn--) tri_poll(f.thread);
        roots[1] = NULL;
        phases |= 1u << heap_phase(f.heap);
        fixture_collect(&f);
        CHECK_MSG(!is_alive(f.heap, gone[0]) && !is_alive(f.heap, gone[1]), "round %d: garbage has survived", i);
        CHECK_MSG(is_alive(f.heap, hide(kept)) && kept->words[0] == 77, "round %d: a live object is gone", i);
    }
    CHECK_MSG((phases & (phases - 1)) != 0, "all were dropped in one phase: 0x%x", phases);
    TRI_POP(f.thread, roots);
    atomic_store_release(&e.stop, 1);
    atomic_store_release(&c.stop, 1);
    fixture_join(f.thread, editor);
    fixture_join(f.thread, collector);
    fixture_close(&f);
}

/* ---- Deep and wide structures ---- */

enum { DEPTH = TEST_IS_SLOW ? 1000000 : 10000000, WIDTH = TEST_IS_SLOW ? 500000 : 5000000 };

/* What work buffers may take, however deep or wide the graph is. */
enum { BUFFERS_LIMIT_BYTES = 4 * MIB };

/* Newest first, so that the marker follows every link; with_leaves: each node of the spine has a node on its right. */
static struct pair *build_spine(tri_thread *thread, void **root, bool with_leaves) {
    for (uint64_t i = 0; i < DEPTH; i++) {
        struct pair *p = tri_new(thread, &pair_type);
        CHECK_MSG(p != NULL, "%s", tri_last_error());
        p->value = i;
        tri_store(thread, p, &p->left, *root);
        *root = p;
        if (!with_leaves) continue;
        struct pair *leaf = tri_new(thread, &pair_type);
        CHECK_MSG(leaf != NULL, "%s", tri_last_error());
        leaf->value = ~i;
        p = *root;
        tri_store(thread, p, &p->right, leaf);
    }
    return *root;
}

static void check_spine(const struct pair *p, bool with_leaves) {
    uint64_t n = DEPTH;
    for (; p; p = p->left) {
        n--;
        CHECK_MSG(p->value == n, "node %llu has become %llu", (unsigned long long)n, (unsigned long long)p->value);
        if (with_leaves) CHECK_MSG(p->right && p->right->value == ~n, "the leaf of node %llu", (unsigned long long)n);
    }
    CHECK_EQ(n, 0);
}

/* Cycles run as they come, with assists by this thread, and then a forced one. */
static void *deep_thread(void *arg) {
    bool with_leaves = *(bool *)arg;
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    TRI_LOCALS(f.thread, roots, 1);
    check_spine(build_spine(f.thread, &roots[0], with_leaves), with_leaves);
    uint64_t marked = fixture_stats(f.heap).marked_objects;
    fixture_collect(&f);
    size_t objects = DEPTH * (with_leaves ? 2u : 1u);
    marked = fixture_stats(f.heap).marked_objects - marked;
    CHECK_MSG(marked >= objects, "%llu objects marked of %zu", (unsigned long long)marked, objects);
    check_spine(roots[0], with_leaves);
    size_t buffers = atomic_load_relaxed(&f.heap->work.fix.mapped_bytes);
    CHECK_MSG(buffers <= BUFFERS_LIMIT_BYTES, "work buffers took %zu bytes", buffers);
    CHECK(fixture_stats(f.heap).live_bytes >= objects * sizeof(struct pair));
    roots[0] = NULL;
    fixture_collect(&f);
    CHECK_MSG(fixture_stats(f.heap).live_bytes <= MIB, "%zu bytes live", fixture_stats(f.heap).live_bytes);
    TRI_POP(f.thread, roots);
    close_unverified(&f);
    size_t peak = process_status_bytes("VmHWM:");
    CHECK_MSG(TEST_IS_SLOW || peak < (size_t)1 << 30, "%zu bytes were resident", peak);
    return NULL;
}

/* On a thread whose stack holds a frame for a few thousand of the nodes at most; the collector's has its own size. */
static void run_deep(bool with_leaves) {
    pthread_attr_t attr;
    pthread_t thread;
    CHECK_EQ(pthread_attr_init(&attr), 0);
    CHECK_EQ(pthread_attr_setstacksize(&attr, 1 << 20), 0); /* thread-local data of a sanitizer has to fit, too */
    CHECK_EQ(pthread_create(&thread, &attr, deep_thread, &with_leaves), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
}

TEST(cycle, a_list_as_long_as_memory_needs_no_deep_stack) {
    run_deep(false);
}

TEST(cycle, a_left_leaning_tree_needs_no_deep_stack) {
    run_deep(true);
}

TEST(cycle, a_wide_array_is_marked_in_pieces) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    TRI_LOCALS(f.thread, roots, 1);
    void **array = roots[0] = tri_new_n(f.thread, &array_type, WIDTH);
    CHECK(array != NULL);
    for (size_t i = 0; i < WIDTH; i++) {
        uint64_t *word = tri_new_bytes(f.thread, 16);
        CHECK(word != NULL);
        *word = i;
        tri_store(f.thread, array, &array[i], word);
    }
    fixture_collect(&f);
    for (size_t i = 0; i < WIDTH; i++) CHECK_MSG(*(uint64_t *)array[i] == i, "element %zu", i);
    CHECK(fixture_stats(f.heap).live_bytes >= (size_t)WIDTH * 24);
    /* A candidate for each element at once would be all of the array again; each hand that marks may have some pieces'
     * candidates. */
    size_t buffers = atomic_load_relaxed(&f.heap->work.fix.mapped_bytes), whole = (size_t)WIDTH * 8;
    CHECK_MSG(buffers <= whole / (TEST_IS_SLOW ? 2 : 4), "work buffers took %zu bytes", buffers);
    TRI_POP(f.thread, roots);
    close_unverified(&f);
}

/* ---- A fast allocator ---- */

struct churn {
    tri_heap *heap;
    uint64_t until_cycles; /* or until_ns, whichever comes later */
    uint64_t until_ns;
    uint32_t nrunning; /* [atomic] */
};

/* Nothing but garbage, as fast as it goes. */
static void *churn_thread(void *arg) {
    struct churn *c = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(c->heap, 0, &thread), TRI_OK);
    while (fixture_stats(c->heap).cycles < c->until_cycles || tri__os_now_ns() < c->until_ns)
        for (int i = 0; i < 5000; i++) CHECK_MSG(tri_new(thread, &pair_type) != NULL, "%s", tri_last_error());
    CHECK_EQ(tri_detach(thread), TRI_OK);
    atomic_sub_acqrel(&c->nrunning, 1);
    return NULL;
}

/* The largest heap in percent of the goal, as a thread outside sees it; goals change at a cycle's end. */
static void *sample_heap(void *arg) {
    struct churn *c = arg;
    size_t worst_percent = 0, before = fixture_stats(c->heap).goal_bytes;
    while (atomic_load_acquire(&c->nrunning)) {
        tri_stats s = fixture_stats(c->heap);
        worst_percent = max_size(worst_percent, s.heap_bytes * 100 / max_size(s.goal_bytes, before));
        before = s.goal_bytes;
        fixture_sleep_ms(1);
    }
    return (void *)worst_percent;
}

static uint64_t count_pauses(tri_heap *heap, int kind) {
    uint64_t buckets[64], total = 0;
    int n = tri_histogram(heap, kind, buckets, 64);
    CHECK(n > 0);
    for (int i = 0; i < n; i++) total += buckets[i];
    return total;
}

/* The bound is there to be a bound: 110 to 170 percent is usual, a machine with other work to do adds to it. */
enum { NCYCLES = TEST_IS_SLOW ? 2 : 5, LIMIT_PERCENT = TEST_IS_SLOW ? 1000 : 400 };

/* Nodes of the live set: one chain, which only one marker at a time can follow, or a thousand of them. */
static void run_fast_allocator(size_t nchains) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.growth_percent = 20; /* little room: assists are needed */
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 1);
    void **chains = roots[0] = tri_new_n(f.thread, &array_type, nchains);
    for (size_t i = 0; i < (TEST_IS_SLOW ? 200000 : 2000000); i++) {
        struct pair *p = tri_new(f.thread, &pair_type);
        CHECK(p != NULL);
        tri_store(f.thread, p, &p->left, chains[i % nchains]);
        tri_store(f.thread, chains, &chains[i % nchains], p);
    }
    fixture_collect(&f);
    uint64_t cycles = fixture_stats(f.heap).cycles;
    struct churn c = {f.heap, cycles + NCYCLES, tri__os_now_ns() + 1000000000, 2};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, churn_thread, &c), 0);
    size_t worst_percent = (size_t)tri_blocking(f.thread, sample_heap, &c);
    for (int i = 0; i < 2; i++) fixture_join(f.thread, threads[i]);
    CHECK_MSG(worst_percent > 0 && worst_percent < LIMIT_PERCENT, "the heap grew to %zu %% of its goal", worst_percent);
    CHECK_MSG(count_pauses(f.heap, TRI_PAUSE_ASSIST) + count_pauses(f.heap, TRI_PAUSE_NAP) > 0, "nobody was held back");
    CHECK(fixture_stats(f.heap).cycles >= cycles + NCYCLES);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(cycle, a_fast_allocator_does_not_outrun_the_marker) {
    run_fast_allocator(1000);
}

TEST(cycle, nor_where_only_one_thread_can_mark) {
    run_fast_allocator(1);
}

/* ---- Threads that come and go in mid-cycle ---- */

struct visitors {
    tri_heap *heap;
    uint32_t attached, detached; /* bit p: one did in phase p [atomic] */
    uint32_t stop;               /* [atomic] */
};

enum { VISITS_KEPT = 8 };

/* Attaches, makes something that outlives it, goes; and looks whether what it left last time is still there. */
static void *visit_heap(void *arg) {
    struct visitors *v = arg;
    tri_handle kept[VISITS_KEPT] = {0};
    uint64_t n = 0;
    while (!atomic_load_acquire(&v->stop)) {
        tri_thread *thread;
        CHECK_EQ(tri_attach(v->heap, 0, &thread), TRI_OK);
        atomic_or_acqrel(&v->attached, 1u << heap_phase(v->heap));
        tri_handle *slot = &kept[n % VISITS_KEPT];
        if (*slot) {
            struct pair *p = tri_deref(*slot);
            CHECK_MSG(p->value == n - VISITS_KEPT && p->left->value == p->value && p->right == NULL, "visit %llu",
                      (unsigned long long)p->value);
            tri_global_free(thread, *slot);
        }
        TRI_LOCALS(thread, roots, 2);
        struct pair *p = roots[0] = tri_new(thread, &pair_type), *q = roots[1] = tri_new(thread, &pair_type);
        CHECK(p && q);
        p->value = q->value = n;
        tri_store(thread, p, &p->right, q);
        tri_poll(thread);
        tri_store(thread, p, &p->left, q); /* moved, while somebody may be marking */
        tri_store(thread, p, &p->right, NULL);
        roots[1] = NULL;
        *slot = tri_global(thread, p);
        CHECK(*slot != NULL);
        if (n % 2) TRI_POP(thread, roots); /* or goes with a frame pushed */
        n++;
        atomic_or_acqrel(&v->detached, 1u << heap_phase(v->heap));
        CHECK_EQ(tri_detach(thread), TRI_OK);
    }
    return NULL;
}

TEST(cycle, threads_come_and_go_in_every_phase) {
    struct fixture f = fixture_open();
    if (TRI_CHECKS >= 1) CHECK_EQ(tri_heap_set(f.heap, "stress.delay=300"), TRI_OK);
    const uint32_t all = (1u << NUM_PHASES) - 1;
    struct visitors v = {.heap = f.heap};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) CHECK_EQ(pthread_create(&threads[i], NULL, visit_heap, &v), 0);
    uint64_t start = tri__os_now_ns(), limit_ns = 20000000000ull;
    for (int i = 0; tri__os_now_ns() - start < limit_ns; i++) {
        fixture_collect(&f);
        bool seen = atomic_load_acquire(&v.attached) == all && atomic_load_acquire(&v.detached) == all;
        if (i >= 50 && (seen || TRI_CHECKS < 1)) break;
    }
    atomic_store_release(&v.stop, 1);
    for (int i = 0; i < 3; i++) fixture_join(f.thread, threads[i]);
    CHECK_MSG(TRI_CHECKS < 1 || (v.attached == all && v.detached == all), "attached in phases 0x%x, detached in 0x%x",
              v.attached, v.detached);
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    fixture_close(&f);
}

/* ---- Marking without memory (R19) ---- */

/* Traced by a callback, in more positions than one slice has. */
enum { TRACED_SLOTS = 20000 };
struct traced {
    void *slots[TRACED_SLOTS];
};

static size_t trace_slots(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    struct traced *t = obj;
    size_t n = min_size(budget, TRACED_SLOTS - from);
    tri_visit(visitor, &t->slots[from], n);
    return from + n == TRACED_SLOTS ? 0 : from + n;
}

static tri_type traced_type = {
    .struct_size = sizeof(tri_type), .name = "traced", .size = sizeof(struct traced), .trace = trace_slots};

enum { STARVED_OBJECTS = 20000 };

/* Every shape that the marker splits or queues: cycles, long chains, a traced object, an array of several pieces. */
static void build_tangle(tri_thread *thread, void **roots, uint64_t *random) {
    struct pair **all = (struct pair **)(roots[0] = tri_new_n(thread, &array_type, STARVED_OBJECTS * 3));
    struct traced *traced = roots[1] = tri_new(thread, &traced_type);
    CHECK(all && traced);
    for (size_t i = 0; i < STARVED_OBJECTS; i++) {
        struct pair *p = tri_new(thread, &pair_type);
        CHECK(p != NULL);
        p->value = i;
        tri_store(thread, all, &all[i], p);
    }
    for (size_t i = 0; i < STARVED_OBJECTS; i++) {
        tri_store(thread, all[i], &all[i]->left, all[fixture_random(random) % STARVED_OBJECTS]);
        tri_store(thread, all[i], &all[i]->right, all[(i + 1) % STARVED_OBJECTS]);
    }
    for (size_t i = 1; i < STARVED_OBJECTS; i++) /* all that keeps them now is the ring through `right`, and this: */
        tri_store(thread, all, &all[i], NULL);
    tri_store(thread, all, &all[STARVED_OBJECTS * 3 - 1], all[0]); /* the last piece of the array */
    tri_store(thread, all, &all[0], NULL);
    for (size_t i = 0; i < TRACED_SLOTS; i++) {
        struct pair *p = tri_new(thread, &pair_type);
        CHECK(p != NULL);
        p->value = ~i;
        tri_store(thread, traced, &traced->slots[i], p);
    }
}

static void check_tangle(tri_heap *heap, void **roots) {
    struct pair **all = roots[0];
    struct traced *traced = roots[1];
    struct pair *p = all[STARVED_OBJECTS * 3 - 1];
    for (size_t i = 0; i < STARVED_OBJECTS; i++, p = p->right) {
        CHECK_MSG(is_alive(heap, hide(p)), "object %zu of the ring is gone", i);
        CHECK_MSG(p->value == i && is_alive(heap, hide(p->left)), "object %zu of the ring", i);
    }
    for (size_t i = 0; i < TRACED_SLOTS; i++) {
        p = traced->slots[i];
        CHECK_MSG(is_alive(heap, hide(p)) && p->value == ~(uint64_t)i, "slot %zu of the traced object", i);
    }
}

/* Takes every buffer that can be had, but for `left` of them; the list of those taken. */
static struct workbuf *take_buffers(struct work *work, size_t left) {
    struct workbuf *taken = NULL;
    for (struct workbuf *buf; (buf = tri__work_get_empty(work)) != NULL;) {
        buf->next = taken;
        taken = buf;
    }
    for (; left > 0; left--) {
        struct workbuf *buf = taken;
        CHECK(buf != NULL);
        taken = buf->next;
        tri__work_put_empty(work, buf);
    }
    return taken;
}

/* And the one that the collector keeps in hand from cycle to cycle; between two cycles it touches nothing. */
static struct workbuf *take_collectors(tri_heap *heap, struct workbuf *taken) {
    struct workbuf *own = heap->worker.buf;
    if (!own) return taken;
    CHECK_EQ(own->n, 0);
    heap->worker.buf = NULL;
    own->next = taken;
    return own;
}

static void give_buffers(struct work *work, struct workbuf *taken) {
    while (taken) {
        struct workbuf *next = taken->next;
        tri__work_put_empty(work, taken);
        taken = next;
    }
}

TEST(cycle, without_memory_for_buffers_nothing_is_lost_and_the_cycle_ends) {
    if (PROCESS_CANNOT_STARVE) return;
    static const size_t left[] = {0, 1, 2, 5};
    uint64_t random = fixture_seed();
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    build_tangle(f.thread, roots, &random);
    fixture_collect(&f);
    check_tangle(f.heap, roots);
    for (size_t i = 0; i < TRI_COUNT(left); i++) {
        roots[2] = tri_new(f.thread, &own_type);
        uintptr_t garbage = hide(roots[2]);
        roots[2] = NULL;
        process_limit(RLIMIT_AS, process_mapped_bytes());
        struct workbuf *taken = take_collectors(f.heap, take_buffers(&f.heap->work, left[i]));
        CHECK(taken != NULL);
        for (int k = 0; k < 2; k++) {
            int err = tri_collect(f.thread);
            CHECK_MSG(err == TRI_OK, "%zu buffers: %s", left[i], tri_last_error());
        }
        give_buffers(&f.heap->work, taken);
        process_limit(RLIMIT_AS, SIZE_MAX);
        check_tangle(f.heap, roots);
        CHECK_MSG(!is_alive(f.heap, garbage), "%zu buffers: garbage has survived", left[i]);
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* The same while other threads edit, whose barriers have no buffers either. */
TEST(cycle, without_memory_for_buffers_mutators_lose_nothing) {
    if (PROCESS_CANNOT_STARVE) return;
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    uint64_t random = fixture_seed();
    build_tangle(f.thread, roots, &random);
    struct editor e[2] = {{.heap = f.heap, .starved = true}, {.heap = f.heap, .starved = true}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, edit_thread, &e[i]), 0);
    for (int i = 0; i < 2; i++)
        while (!atomic_load_acquire(&e[i].ready)) tri_poll(f.thread);
    fixture_collect(&f);
    process_limit(RLIMIT_AS, process_mapped_bytes() + 16 * MIB); /* they allocate, too */
    struct workbuf *taken = take_buffers(&f.heap->work, 0);
    process_limit(RLIMIT_AS, process_mapped_bytes());
    struct workbuf *rest = take_buffers(&f.heap->work, 0);
    for (int k = 0; k < 5; k++) fixture_collect(&f);
    give_buffers(&f.heap->work, rest);
    give_buffers(&f.heap->work, taken);
    process_limit(RLIMIT_AS, SIZE_MAX);
    for (int i = 0; i < 2; i++) {
        atomic_store_release(&e[i].stop, 1);
        fixture_join(f.thread, threads[i]);
    }
    fixture_collect(&f);
    check_tangle(f.heap, roots);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}
