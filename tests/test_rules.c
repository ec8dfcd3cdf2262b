/*
 * Rules that builds with checks assert where they run: R1, R3, R4, R5, R8, R9 and R17. Each is broken by a planted
 * fault, in a process of its own that has to end with the rule's name, and beside it the same program without the fault
 * runs to its end. What a callback may not call is reported and refused. And R5's other half: a host that looks up ever
 * new garbage holds up the close for a bounded number of rounds.
 */
#include "tests/held.h"
#include "tests/process.h"

#if TRI_CHECKS >= 3

/* ---- a program that ends with a rule's name, and without the fault does not ------------------------------------- */

struct program {
    void (*run)(const char *fault);
    const char *fault;
};

static void run_program(const void *arg) {
    const struct program *p = arg;
    p->run(p->fault);
}

static void expect_broken(void (*run)(const char *fault), const char *fault, const char *rule) {
    char text[4096];
    struct program p = {run, NULL};
    int status = process_in_child(run_program, &p, text, sizeof text);
    CHECK_MSG(status == 0, "without a fault: status %x: %s", (unsigned)status, text);
    p.fault = fault;
    status = process_in_child(run_program, &p, text, sizeof text);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status %x: %s", fault, (unsigned)status, text);
    CHECK_MSG(strstr(text, "broken invariant") && strstr(text, rule), "%s: \"%s\" is not in: %s", fault, rule, text);
}

static void store_slowly(const char *fault) {
    struct fixture f = open_heap("stress.slow=1", NULL);
    fixture_collect(&f); /* the switch takes effect at a step */
    TRI_LOCALS(f.thread, roots, 1);
    struct pair *pair = roots[0] = tri_new(f.thread, &pair_type);
    if (fault) fixture_set(f.heap, fault);
    tri_store(f.thread, pair, &pair->left, pair);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(rules, r1_a_store_that_reaches_a_safepoint_ends_the_process) {
    expect_broken(store_slowly, "fault=store_polls", "R1: no safepoint inside tri_store");
}

static void collect_once(const char *fault) {
    struct fixture f = open_heap(fault, NULL);
    fixture_collect(&f);
    close_heap(&f);
}

TEST(rules, r4_tracing_before_the_last_scan_answer_ends_the_process) {
    expect_broken(collect_once, "fault=early_trace", "R4");
}

static void suspend_and_collect(const char *fault) {
    struct fixture f = open_heap(fault, NULL);
    tri_word words[4] = {0}, *top = words;
    tri_vmstack *stack = tri_vmstack_add(f.thread, words, &top, NULL);
    *top++ = (tri_word)(uintptr_t)tri_new(f.thread, &leaf_type);
    CHECK_EQ(tri_vmstack_suspend(f.thread, stack), TRI_OK);
    fixture_collect(&f);
    tri_vmstack_remove(f.thread, stack);
    close_heap(&f);
}

TEST(rules, r8_a_suspended_stack_that_was_not_scanned_ends_the_process) {
    expect_broken(suspend_and_collect, "fault=skip_stacks", "R8: at the close every suspended stack has been scanned");
}

static void copy_and_collect(const char *fault) {
    struct fixture f = open_heap("stress.copy=1", fault);
    TRI_LOCALS(f.thread, roots, 1);
    tri_word words[4] = {0}, *top = words;
    tri_vmstack *stack = tri_vmstack_add(f.thread, words, &top, NULL);
    *top++ = (tri_word)(uintptr_t)(roots[0] = tri_new(f.thread, &leaf_type));
    fixture_collect(&f);
    tri_vmstack_remove(f.thread, stack);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(rules, r3_a_round_that_closes_over_an_unshaded_copy_ends_the_process) {
    expect_broken(copy_and_collect, "fault=copy_uncounted", "I-COPY1");
}

static void attach_another(const char *fault) {
    struct fixture f = open_heap(fault, NULL);
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, collect_main, f.heap), 0);
    fixture_join(f.thread, other);
    close_heap(&f);
}

TEST(rules, r9_a_newcomer_that_looks_before_it_has_the_lock_ends_the_process) {
    expect_broken(attach_another, "fault=attach_late", "R9: a newcomer starts under the lock");
}

static void register_while_marking(const char *fault) {
    struct fixture f = open_heap(NULL, NULL);
    TRI_LOCALS(f.thread, roots, 1);
    struct graph g = make_graph(&f, roots);
    void *slots[2] = {NULL, g.thing};
    pthread_t collect = begin_cycle(&f);
    if (fault) fixture_set(f.heap, fault);
    tri_root *root = tri_root_add(f.thread, slots, 2, NULL);
    CHECK(root != NULL);
    tri_root_remove(f.thread, root);
    end_cycle(&f, collect);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(rules, r17_a_range_that_comes_unshaded_ends_the_process) {
    expect_broken(register_while_marking, "fault=bare_root", "R17: what enters or leaves a root while armed is shaded");
}

/* The scanner gives the lock back between two pieces of a range: one that is taken back then is not gone on with. */
TEST(rules, r17_a_range_may_go_while_the_scanner_is_in_it) {
    enum { RANGES = 8, SLOTS = 90000 };
    static void *slots[RANGES][SLOTS];
    tri_root *ranges[RANGES];
    struct fixture f = open_heap("stress.delay=2000", NULL);
    for (int i = 0; i < RANGES; i++) ranges[i] = tri_root_add(f.thread, slots[i], SLOTS, NULL);
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    for (int gone = -1; gone < 0;) {
        tri_poll(f.thread);
        tri__lock_acquire(&f.heap->roots.lock);
        tri_root *inside = f.heap->roots.cursor_slot > 0 ? f.heap->roots.cursor : NULL;
        tri__lock_release(&f.heap->roots.lock);
        for (int i = 0; inside && i < RANGES && gone < 0; i++)
            if (ranges[i] == inside) gone = i;
        if (gone >= 0) tri_root_remove(f.thread, inside);
    }
    fixture_join(f.thread, collect);
    close_heap(&f);
}

/* ---- the gate (R5) ---------------------------------------------------------------------------------------------- */

static bool gate_is_closed(tri_heap *heap) {
    tri__lock_acquire(&heap->mem.gate);
    bool closed = heap->gate == GATE_CLOSED;
    tri__lock_release(&heap->mem.gate);
    return closed;
}

/* This thread holds up the disarm handshake while it looks: the gate stays closed for as long as it does not poll. */
static void find_after_close(const char *fault) {
    struct fixture f = open_heap(fault, NULL);
    uintptr_t garbage = hide(tri_new(f.thread, &pair_type));
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    while (!gate_is_closed(f.heap)) {
        tri_poll(f.thread);
        sched_yield();
    }
    CHECK(tri_find(f.thread, reveal(garbage), NULL) == NULL);
    fixture_join(f.thread, collect);
    close_heap(&f);
}

TEST(rules, r5_a_load_of_garbage_after_the_close_ends_the_process) {
    expect_broken(find_after_close, "fault=gate_open", "R5: after the close a load gives away marked objects only");
}

static uint32_t rounds_seen;

static void on_event(const tri_event *event, void *user) {
    (void)user;
    if (event->kind == TRI_EVENT_CYCLE_END) atomic_store_release(&rounds_seen, event->flush_rounds);
}

/* Each look-up makes something grey, so the answer to each round is "any": until look-ups of garbage wait. */
TEST(rules, r5_look_ups_of_ever_new_garbage_do_not_keep_a_cycle_open) {
    enum { GARBAGE = TEST_IS_SLOW ? 20000 : 200000, MOST_ROUNDS = 16 };
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.event = on_event;
    struct fixture f = fixture_open_config(&config);
    uintptr_t *garbage = malloc(GARBAGE * sizeof *garbage);
    CHECK(garbage != NULL);
    for (size_t i = 0; i < GARBAGE; i++) garbage[i] = hide(tri_new(f.thread, &pair_type));
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    while (!mutator_of(f.thread)->armed) { /* what is looked up before this is not shaded */
        tri_poll(f.thread);
        sched_yield();
    }
    size_t found = 0, refused = 0;
    for (size_t i = 0; i < GARBAGE && refused == 0; i++) {
        if (tri_find(f.thread, reveal(garbage[i]), NULL))
            found++;
        else
            refused++; /* it waited, and the cycle closed without it */
        tri_poll(f.thread);
        if (i % 64 == 63) sched_yield(); /* the collector has its rounds to run */
    }
    fixture_join(f.thread, collect);
    uint32_t rounds = atomic_load_acquire(&rounds_seen);
    CHECK_MSG(found > 8 && refused == 1, "%zu found, %zu refused, %u rounds", found, refused, rounds);
    CHECK_MSG(rounds > 8 && rounds <= MOST_ROUNDS, "%u rounds", rounds);
    tri_stats stats = fixture_stats(f.heap);
    CHECK_EQ(stats.live_bytes, found * 32); /* their size class; what was refused is gone */
    free(garbage);
    fixture_close(&f);
}

/* ---- what a callback may not call (R17) ------------------------------------------------------------------------- */

static struct fixture called; /* what the callbacks call */
static struct pair *called_pair;
static tri_handle called_handle;
static uint32_t calls; /* the next callback does */

/* One call of each kind: each has to be refused and reported, under its own name. */
static void call_everything(void) {
    tri_thread *t = called.thread;
    tri_stats stats = {.struct_size = sizeof stats};
    uint64_t buckets[4];
    tri_poll_slow(t);
    CHECK(tri_new_n(t, &array_type, 4) == NULL);
    CHECK(tri_new_bytes(t, 64) == NULL);
    tri_store_slow(t, called_pair, &called_pair->left, 0);
    tri_clear(t, called_pair, &called_pair->left, 1);
    CHECK(tri_global(t, NULL) == NULL);
    tri_global_free(t, called_handle);
    CHECK(tri_find(t, called_pair, NULL) == NULL);
    CHECK_EQ(tri_usable_size(called.heap, called_pair), 0);
    CHECK_EQ(tri_collect(t), TRI_EUNATTACHED);
    CHECK_EQ(tri_detach(t), TRI_EUNATTACHED);
    CHECK(tri_blocking(t, fixture_join_thread, NULL) == NULL);
    CHECK_EQ(tri_stats_get(called.heap, &stats), TRI_ESTATE);
    CHECK_EQ(tri_histogram(called.heap, TRI_PAUSE_SCAN, buckets, 4), TRI_ESTATE);
    CHECK_EQ(tri_class_stats(called.heap, NULL, 0), TRI_ESTATE);
    CHECK_EQ(tri_layout_stats(called.heap, NULL, 0), TRI_ESTATE);
    CHECK_EQ(tri_trim(called.heap), 0);
    CHECK_EQ(tri_heap_set(called.heap, "poison=0"), TRI_ESTATE);
}

static const char *const refused_calls[] = {
    "tri_poll",        "tri_new_n",     "tri_new_bytes",   "tri_store",        "tri_clear",  "tri_global",
    "tri_global_free", "tri_find",      "tri_usable_size", "tri_collect",      "tri_detach", "tri_blocking",
    "tri_stats_get",   "tri_histogram", "tri_class_stats", "tri_layout_stats", "tri_trim",   "tri_heap_set"};

static size_t trace_calling(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)from, (void)budget;
    if (atomic_load_acquire(&calls)) call_everything();
    atomic_store_release(&calls, 0);
    tri_visit(visitor, obj, 1);
    return 0;
}
static tri_type calling_type = {
    .struct_size = sizeof(tri_type), .name = "struct calling", .size = sizeof(struct hold), .trace = trace_calling};

static void scan_calling(tri_visitor *visitor, void *arg) {
    if (atomic_load_acquire(&calls)) call_everything();
    atomic_store_release(&calls, 0);
    tri_visit(visitor, arg, 1);
}

static void expect_refusals(const char *kind) {
    pthread_mutex_lock(&told_mutex);
    for (size_t i = 0; i < TRI_COUNT(refused_calls); i++) {
        char text[128];
        snprintf(text, sizeof text, "%s: called from inside a %s callback", refused_calls[i], kind);
        CHECK_MSG(strstr(told, text), "no \"%s\" in:\n%s", text, told);
    }
    CHECK_MSG(ntold == TRI_COUNT(refused_calls), "%u reports:\n%s", ntold, told);
    pthread_mutex_unlock(&told_mutex);
    forget_reports();
}

/* On the collector's thread, and for the scanner on the thread's own. */
TEST(rules, r17_callbacks_that_call_more_than_visit_are_reported_and_refused) {
    struct fixture f = called = open_heap(NULL, NULL);
    TRI_LOCALS(f.thread, roots, 2);
    struct hold *traced = roots[0] = tri_new(f.thread, &calling_type);
    called_pair = roots[1] = tri_new(f.thread, &pair_type);
    tri_store(f.thread, called_pair, &called_pair->left, traced);
    called_handle = tri_global(f.thread, called_pair);
    atomic_store_release(&calls, 1);
    fixture_collect(&f);
    CHECK(!atomic_load_acquire(&calls));
    expect_refusals("trace");
    CHECK(tri_load(&called_pair->left) == traced && tri_deref(called_handle) == called_pair);

    void *slot = called_pair;
    tri_scanner *scanner = tri_scanner_add(f.thread, scan_calling, &slot);
    atomic_store_release(&calls, 1);
    fixture_collect(&f); /* blocked: the collector calls it */
    CHECK(!atomic_load_acquire(&calls));
    expect_refusals("root");
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    atomic_store_release(&calls, 1);
    for (; atomic_load_acquire(&calls); sched_yield()) tri_poll(f.thread); /* running: it calls itself */
    fixture_join(f.thread, collect);
    expect_refusals("root");
    tri_scanner_remove(f.thread, scanner);
    tri_global_free(f.thread, called_handle);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

static void visit_and_call(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    (void)obj, (void)type, (void)size_bytes;
    CHECK_EQ(tri_usable_size(called.heap, called_pair), 0);
    *(bool *)arg = true;
}

TEST(rules, a_walk_s_callback_that_calls_back_is_reported) {
    struct fixture f = called = open_heap(NULL, NULL);
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = called_pair = tri_new(f.thread, &pair_type);
    bool seen = false;
    CHECK_EQ(tri_walk(f.thread, visit_and_call, &seen), 1);
    CHECK(seen);
    expect_report("tri_usable_size: called from inside a callback of tri_walk");
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* ---- attaching from where trigc may not be called --------------------------------------------------------------- */

static void *attach_in_region(void *arg) {
    tri_thread *thread = NULL;
    CHECK_EQ(tri_attach(arg, 0, &thread), TRI_ESTATE);
    CHECK(thread == NULL && strstr(tri_last_error(), "tri_blocking"));
    return NULL;
}

/* To another heap: its safepoint would answer for heaps whose collectors may hold the thread's word meanwhile. */
TEST(rules, r16_attaching_inside_a_blocking_region_is_refused) {
    struct fixture f = fixture_open(), other = fixture_open();
    CHECK_EQ(tri_detach(other.thread), TRI_OK);
    tri_blocking(f.thread, attach_in_region, other.heap);
    other.thread = fixture_attach(other.heap);
    fixture_close(&other);
    fixture_close(&f);
}

#else

TEST(rules, need_checks) {
    CHECK(!heap_fault(NULL, FAULT_NONE));
}

#endif
