/*
 * Planted bugs: each of the checking modes (checkmark, poison, verify, stress and the assertions) is shown a heap or a
 * host with one real bug in it, and has to report it, with the type and the offset of the field where it can name them.
 * Beside each stands the same program without the bug, which must be silent.
 *
 * Nothing here waits for luck. A cycle is held in its mark phase by an object whose trace callback waits for the test,
 * and a store is held between its barrier and its write through this program's own nanosleep, which the random delays
 * of stress.delay call in exactly that place.
 */
#include "tests/fixture.h"

#include <sched.h>
#include <sys/resource.h>

#if TRI_CHECKS >= 3

/* ---- what was reported ------------------------------------------------------------------------------------------ */

static pthread_mutex_t told_mutex = PTHREAD_MUTEX_INITIALIZER;
static char told[16384]; /* every message, a line each */
static uint32_t ntold;
static tri_heap *mend_on_report; /* its planted fault ends with the first report */

static void on_report(const char *message, void *user) {
    (void)user;
    pthread_mutex_lock(&told_mutex);
    size_t n = strlen(told);
    snprintf(told + n, sizeof told - n, "%s\n", message);
    ntold++;
    pthread_mutex_unlock(&told_mutex);
    if (mend_on_report) CHECK_EQ(tri_heap_set(mend_on_report, "fault=none"), TRI_OK);
}

static void forget_reports(void) {
    pthread_mutex_lock(&told_mutex);
    told[0] = '\0';
    ntold = 0;
    pthread_mutex_unlock(&told_mutex);
}

static void expect_silence(void) {
    pthread_mutex_lock(&told_mutex);
    CHECK_MSG(ntold == 0, "reported: %s", told);
    pthread_mutex_unlock(&told_mutex);
}

/* Exactly one report, with this text in it. */
__attribute__((format(printf, 1, 2))) static void expect_report(const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&told_mutex);
    CHECK_MSG(ntold == 1 && strstr(told, text), "%u reports, expected one with \"%s\":\n%s", ntold, text, told);
    pthread_mutex_unlock(&told_mutex);
    forget_reports();
}

/* ---- the heap, and a cycle that stands still -------------------------------------------------------------------- */

struct owner {
    uint64_t numbers[2];
    void *first, *second; /* at 16 and 24 */
};
TRI_TYPE(owner_type, struct owner, first, second);

struct thing {
    uint64_t numbers[6];
};
TRI_LEAF_TYPE(thing_type, struct thing);

struct hold {
    void *next;
};
static uint32_t holding, go_on;

/* Keeps the collector in the mark phase until the test says go on. */
static size_t trace_hold(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)from, (void)budget;
    atomic_store_release(&holding, 1);
    while (!atomic_load_acquire(&go_on)) fixture_sleep_ms(1);
    tri_visit(visitor, &((struct hold *)obj)->next, 1);
    return 0;
}
static tri_type hold_type = {
    .struct_size = sizeof(tri_type), .name = "struct hold", .size = sizeof(struct hold), .trace = trace_hold};

static void set(const struct fixture *f, const char *setting) {
    CHECK_MSG(tri_heap_set(f->heap, setting) == TRI_OK, "%s", tri_last_error());
}

static struct fixture open_heap(const char *setting1, const char *setting2) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.report = on_report;
    forget_reports();
    struct fixture f = fixture_open_config(&config);
    if (setting1) set(&f, setting1);
    if (setting2) set(&f, setting2);
    return f;
}

static void close_heap(struct fixture *f) {
    fixture_close(f);
    expect_silence();
}

static void *collect_main(void *arg) {
    struct fixture f = {arg, NULL};
    CHECK_EQ(tri_attach(f.heap, TRI_ATTACH_PRECISE, &f.thread), TRI_OK);
    fixture_collect(&f);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

static void *join(void *arg) {
    CHECK_EQ(pthread_join(*(pthread_t *)arg, NULL), 0);
    return NULL;
}

/* A cycle on another thread: from here until end_cycle it is marking, and waits in the hold. */
static pthread_t begin_cycle(const struct fixture *f) {
    pthread_t collect;
    atomic_store_release(&holding, 0);
    atomic_store_release(&go_on, 0);
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f->heap), 0);
    while (!atomic_load_acquire(&holding)) {
        tri_poll(f->thread);
        sched_yield();
    }
    CHECK_EQ(heap_phase(f->heap), PHASE_MARK);
    CHECK(mutator_of(f->thread)->armed && !mutator_of(f->thread)->grey_stack);
    return collect;
}

static void end_cycle(const struct fixture *f, pthread_t collect) {
    atomic_store_release(&go_on, 1);
    tri_blocking(f->thread, join, &collect);
}

/* root -> hold -> keeper -> thing: while the cycle is held, root is scanned, keeper and thing are not. */
struct graph {
    struct owner *root, *keeper;
    struct thing *thing;
};

static struct graph make_graph(const struct fixture *f, void **roots) {
    tri_thread *t = f->thread;
    struct owner *root = roots[0] = tri_new(t, &owner_type);
    struct hold *hold = tri_new(t, &hold_type);
    tri_store(t, root, &root->first, hold);
    struct owner *keeper = tri_new(t, &owner_type);
    tri_store(t, hold, &hold->next, keeper);
    struct thing *thing = tri_new(t, &thing_type);
    tri_store(t, keeper, &keeper->second, thing);
    CHECK(root && hold && keeper && thing);
    return (struct graph){root, keeper, thing};
}

static void plain_store(void *slot, void *ref) {
    atomic_store_release((tri_word *)slot, (tri_word)(uintptr_t)ref);
}

/* ---- a store without its barrier -------------------------------------------------------------------------------- */

enum store { STORE_RIGHT, STORE_BY_FAULT, STORE_PLAIN };

/* Moves the thing from an object that is not scanned yet into one that is. */
static void move_thing(enum store how) {
    struct fixture f = open_heap("checkmark=1", how == STORE_BY_FAULT ? "fault=no_barrier" : NULL);
    TRI_LOCALS(f.thread, roots, 1);
    struct graph g = make_graph(&f, roots);
    pthread_t collect = begin_cycle(&f);
    if (how == STORE_PLAIN) {
        plain_store(&g.root->second, g.thing);
        plain_store(&g.keeper->second, NULL);
    } else {
        tri_store(f.thread, g.root, &g.root->second, g.thing);
        tri_store(f.thread, g.keeper, &g.keeper->second, NULL);
    }
    end_cycle(&f, collect);
    set(&f, "fault=none");
    if (how == STORE_RIGHT) {
        expect_silence();
        CHECK(is_alive(f.heap, hide(g.thing)));
    } else {
        expect_report("checkmark: struct thing %p was missed: it is reachable from struct owner %p at offset 24; "
                      "stored without tri_store?",
                      (void *)g.thing, (void *)g.root);
        CHECK(!is_alive(f.heap, hide(g.thing))); /* it was a real bug */
        tri_store(f.thread, g.root, &g.root->second, NULL);
    }
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(planted, a_store_with_its_barrier_is_silent) {
    move_thing(STORE_RIGHT);
}

TEST(planted, a_store_whose_barrier_does_nothing) {
    move_thing(STORE_BY_FAULT);
}

TEST(planted, a_plain_store_instead_of_tri_store) {
    move_thing(STORE_PLAIN);
}

static void *global_slots[2];

static void store_global(bool right) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, roots, 1);
    tri_root *range = tri_root_add(f.thread, global_slots, 2, NULL);
    struct graph g = make_graph(&f, roots);
    pthread_t collect = begin_cycle(&f);
    if (right) {
        tri_root_store(f.thread, range, &global_slots[1], g.thing);
        tri_store(f.thread, g.keeper, &g.keeper->second, NULL);
    } else {
        plain_store(&global_slots[1], g.thing);
        plain_store(&g.keeper->second, NULL);
    }
    end_cycle(&f, collect);
    if (right)
        expect_silence();
    else
        expect_report("checkmark: struct thing %p was missed: it is reachable from a registered range of global slots",
                      (void *)g.thing);
    CHECK_EQ(is_alive(f.heap, hide(g.thing)), right);
    tri_root_remove(f.thread, range);
    global_slots[1] = NULL;
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(planted, a_global_slot_written_without_tri_root_store) {
    store_global(true);
    store_global(false);
}

/* ---- a root forgotten ------------------------------------------------------------------------------------------- */

enum forgotten { IN_FRAME, IN_HANDLE, IN_STACK, NUM_FORGOTTEN };

static void forget_roots(enum forgotten where, bool fault) {
    static const char *const names[] = {"a frame of a thread", "a local handle", "a VM stack"};
    struct fixture f = open_heap("checkmark=1", fault ? "fault=forget_root" : NULL);
    TRI_LOCALS(f.thread, roots, 1);
    uint32_t scope = tri_scope_open(f.thread);
    tri_word stack[4] = {0}, *top = stack;
    tri_vmstack *vmstack = tri_vmstack_add(f.thread, stack, &top, NULL);
    CHECK(vmstack != NULL);
    struct thing *thing = tri_new(f.thread, &thing_type);
    switch (where) {
    case IN_FRAME: roots[0] = thing; break;
    case IN_HANDLE: CHECK(tri_local(f.thread, thing) != NULL); break;
    default: *top++ = (tri_word)(uintptr_t)thing; break;
    }
    fixture_collect(&f);
    if (fault)
        expect_report("checkmark: struct thing %p was missed: it is reachable from %s; was the root registered",
                      (void *)thing, names[where]);
    else
        expect_silence();
    CHECK_EQ(is_alive(f.heap, hide(thing)), !fault);
    tri_vmstack_remove(f.thread, vmstack);
    tri_scope_close(f.thread, scope);
    TRI_POP(f.thread, roots);
    set(&f, "fault=none");
    close_heap(&f);
}

TEST(planted, a_thread_whose_roots_are_not_scanned) {
    for (int where = 0; where < NUM_FORGOTTEN; where++) {
        forget_roots((enum forgotten)where, false);
        forget_roots((enum forgotten)where, true);
    }
}

/* The host's bug: a reference in malloc'd memory that nobody was told of. Another thing keeps the span in use. */
static struct thing **forget_in_malloc(const struct fixture *f, void **roots) {
    struct thing **secret = malloc(sizeof(struct thing *));
    roots[0] = tri_new(f->thread, &owner_type);
    roots[1] = tri_new(f->thread, &thing_type);
    *secret = tri_new(f->thread, &thing_type);
    struct fixture again = *f;
    for (int i = 0; i < 2; i++) fixture_collect(&again);
    CHECK(!is_alive(f->heap, hide(*secret)));
    expect_silence();
    return secret;
}

TEST(planted, a_stored_reference_that_was_in_no_root) {
    struct fixture f = open_heap("poison=1", "stress.slow=1");
    TRI_LOCALS(f.thread, roots, 2);
    struct thing **secret = forget_in_malloc(&f, roots);
    struct owner *owner = roots[0];
    tri_store(f.thread, owner, &owner->first, roots[1]);
    expect_silence();
    tri_store(f.thread, owner, &owner->second, *secret);
    expect_report("tri_store: the value %p stored at offset 24 of struct owner names freed memory, once of type "
                  "struct thing; was it in a root at every safepoint?",
                  (void *)*secret);
    tri_store(f.thread, owner, &owner->second, NULL);
    free(secret);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* The same reference, stored where the fast path does not look: the next marker does. */
TEST(planted, a_slot_that_names_freed_memory) {
    struct fixture f = open_heap("poison=1", NULL);
    TRI_LOCALS(f.thread, roots, 2);
    struct thing **secret = forget_in_malloc(&f, roots);
    struct owner *owner = roots[0];
    tri_store(f.thread, owner, &owner->second, *secret);
    expect_silence();
    fixture_collect(&f);
    expect_report("mark: struct owner at offset 24 names freed memory, once of type struct thing");
    tri_store(f.thread, owner, &owner->second, NULL);
    free(secret);
    TRI_POP(f.thread, roots);
    fixture_collect(&f);
    close_heap(&f);
}

/* Without stress this program, which roots a new object too late, runs for ever. */
static bool late_root_is_seen(const char *setting1, const char *setting2) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.report = on_report;
    forget_reports();
    struct fixture f = fixture_open_config(&config);
    set(&f, "poison=1");
    if (setting1) set(&f, setting1);
    if (setting2) set(&f, setting2);
    TRI_LOCALS(f.thread, roots, 2);
    struct owner *owner = roots[0] = tri_new(f.thread, &owner_type);
    roots[1] = tri_new(f.thread, &thing_type);
    for (int i = 0; i < 20; i++) (void)tri_new(f.thread, &thing_type); /* stress.slow closes what is open by now */
    struct thing *thing = tri_new(f.thread, &thing_type);
    for (int i = 0; i < 3000; i++) {          /* safepoints, all of them */
        (void)tri_new(f.thread, &owner_type); /* of another type: the freed slot is not given out again */
        if (setting1 && i % 100 == 0) fixture_sleep_ms(1);
    }
    tri_store(f.thread, owner, &owner->second, thing);
    bool seen = ntold > 0;
    if (seen) expect_report("at offset 24 of struct owner names freed memory, once of type struct thing");
    tri_store(f.thread, owner, &owner->second, NULL);
    TRI_POP(f.thread, roots);
    close_heap(&f);
    return seen;
}

TEST(planted, a_root_that_comes_too_late_shows_under_stress) {
    CHECK(!late_root_is_seen(NULL, NULL));
    CHECK(late_root_is_seen("stress.slow=1", "stress.collect=1"));
}

/* ---- a mark bit dropped ----------------------------------------------------------------------------------------- */

TEST(planted, a_mark_that_is_dropped) {
    struct fixture f = open_heap("checkmark=1", NULL);
    TRI_LOCALS(f.thread, roots, 1);
    struct owner *child = roots[0] = tri_new(f.thread, &owner_type);
    struct owner *parent = tri_new(f.thread, &owner_type);
    CHECK(child < parent); /* the fault takes the first mark of the heap */
    tri_store(f.thread, parent, &parent->first, child);
    roots[0] = parent;
    for (int i = 0; i < 2; i++) fixture_collect(&f);
    expect_silence();
    set(&f, "fault=drop_mark");
    fixture_collect(&f);
    set(&f, "fault=none");
    expect_report("checkmark: struct owner %p was missed: it is reachable from struct owner %p at offset 16",
                  (void *)child, (void *)parent);
    CHECK(!is_alive(f.heap, hide(child)) && is_alive(f.heap, hide(parent)));
    tri_store(f.thread, parent, &parent->first, NULL);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* ---- a store in flight while the cycle goes on: H2 left out ----------------------------------------------------- */

static _Thread_local bool in_store;
static uint32_t store_paused, store_may_end;

/* The library's delays end here. Everybody sleeps, but for a thread that is told to stop in the middle of a store. */
int nanosleep(const struct timespec *wanted, struct timespec *left) {
    if (in_store) {
        in_store = false;
        atomic_store_release(&store_paused, 1);
        while (!atomic_load_acquire(&store_may_end)) sched_yield();
        return 0;
    }
    int err = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
    if (err != 0) errno = err;
    return err == 0 ? 0 : -1;
}

struct writer {
    tri_heap *heap;
    tri_handle shared;
    pthread_t thread;
    uint32_t attached, quit;
};

/* Thread A: armed, it begins to store over a slot that holds NULL, and stops between its barrier and its write. */
static void *write_slowly(void *arg) {
    struct writer *w = arg;
    tri_thread *t;
    CHECK_EQ(tri_attach(w->heap, TRI_ATTACH_PRECISE, &t), TRI_OK);
    atomic_store_release(&w->attached, 1);
    while (!mutator_of(t)->armed) tri_poll(t);
    struct owner *shared = tri_deref(w->shared);
    in_store = true;
    while (in_store) tri_store(t, shared, &shared->second, NULL); /* a delay comes in every fourth or so */
    while (!atomic_load_acquire(&w->quit)) tri_poll(t);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

static bool is_scanned(const struct fixture *f) {
    return mutator_of(f->thread)->armed && !mutator_of(f->thread)->grey_stack;
}

/* Thread B is the test. Not armed yet, it stores a thing into A's slot without a barrier, and forgets it; it is scanned;
 * it reads the thing back; A overwrites it, having shaded what was there before. Only H2 keeps B from being scanned
 * while A is in its store. */
static void overtake_a_store(bool settle) {
    struct fixture f = open_heap("checkmark=1", settle ? NULL : "fault=no_settle");
    set(&f, "stress.delay=1");
    TRI_LOCALS(f.thread, roots, 1);
    struct writer w = {.heap = f.heap};
    struct owner *shared = tri_new(f.thread, &owner_type);
    w.shared = tri_global(f.thread, shared);
    struct thing *thing = roots[0] = tri_new(f.thread, &thing_type);
    store_paused = store_may_end = 0;
    CHECK_EQ(pthread_create(&w.thread, NULL, write_slowly, &w), 0);
    while (!atomic_load_acquire(&w.attached)) sched_yield();
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    while (!atomic_load_acquire(&store_paused)) sched_yield(); /* no safepoint: this thread is not armed */
    CHECK(!mutator_of(f.thread)->armed);
    tri_store(f.thread, shared, &shared->second, thing);
    roots[0] = NULL;
    for (int i = 0; i < (settle ? 50 : 20000) && !is_scanned(&f); i++) {
        tri_poll(f.thread);
        fixture_sleep_ms(1);
    }
    CHECK_EQ(is_scanned(&f), !settle); /* H2: no scan while a store is in flight that began before */
    roots[0] = tri_load(&shared->second);
    CHECK(roots[0] == thing);
    atomic_store_release(&store_may_end, 1);
    tri_blocking(f.thread, join, &collect);
    atomic_store_release(&w.quit, 1);
    tri_blocking(f.thread, join, &w.thread);
    if (settle)
        expect_silence();
    else
        expect_report("checkmark: struct thing %p was missed: it is reachable from a frame of a thread", (void *)thing);
    CHECK_EQ(is_alive(f.heap, hide(thing)), settle);
    set(&f, "fault=none");
    tri_global_free(f.thread, w.shared);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(planted, the_settling_step_left_out, .timeout = 60) {
    for (int i = 0; i < 3; i++) {
        overtake_a_store(true);
        overtake_a_store(false);
    }
}

/* ---- a flush that looks at nothing ------------------------------------------------------------------------------ */

/* The thing's only protection is the entry that the deletion leaves in the barrier's buffer. */
static struct thing *delete_while_marking(const struct fixture *f, void **roots) {
    struct graph g = make_graph(f, roots);
    pthread_t collect = begin_cycle(f);
    roots[1] = tri_load(&g.keeper->second);
    tri_store(f->thread, g.keeper, &g.keeper->second, NULL);
    end_cycle(f, collect);
    return g.thing;
}

/* The same by every call that takes a reference out of an object: what it took out is in a frame that is not scanned
 * again, so only the call's own shading keeps it. Each of them is caught here when its barrier is taken out. */
enum deletion { BY_STORE, BY_CLEAR, BY_MOVE_UP, BY_MOVE_DOWN, BY_XCHG, BY_CAS, DELETIONS };

static void delete_by(tri_thread *t, struct owner *keeper, enum deletion how) {
    static const tri_word nothing[2];
    tri_word expected = tri_load_value(&keeper->second);
    switch (how) {
    case BY_STORE: tri_store(t, keeper, &keeper->second, NULL); break;
    case BY_CLEAR: tri_clear(t, keeper, &keeper->first, 2); break;
    case BY_MOVE_UP: tri_move(t, keeper, &keeper->first, nothing, 2); break;
    case BY_MOVE_DOWN: tri_move(t, keeper, &keeper->second, &keeper->first, 1); break;
    case BY_XCHG: CHECK_EQ(tri_xchg(t, keeper, &keeper->second, 0), expected); break;
    case BY_CAS: CHECK(tri_cas(t, keeper, &keeper->second, &expected, 0)); break;
    case DELETIONS: break;
    }
}

TEST(planted, every_way_to_take_a_reference_out_shades_it) {
    for (int how = 0; how < DELETIONS; how++) {
        struct fixture f = open_heap("checkmark=1", NULL);
        TRI_LOCALS(f.thread, roots, 2);
        struct graph g = make_graph(&f, roots);
        pthread_t collect = begin_cycle(&f);
        roots[1] = tri_load(&g.keeper->second);
        delete_by(f.thread, g.keeper, (enum deletion)how);
        CHECK(tri_load(&g.keeper->second) == NULL);
        end_cycle(&f, collect);
        expect_silence();
        CHECK_MSG(is_alive(f.heap, hide(g.thing)), "deletion %d lost what it took out", how);
        TRI_POP(f.thread, roots);
        close_heap(&f);
    }
}

static void flush_blindly(bool fault) {
    struct fixture f = open_heap("checkmark=1", fault ? "fault=flush_blind" : NULL);
    TRI_LOCALS(f.thread, roots, 2);
    struct thing *thing = delete_while_marking(&f, roots);
    set(&f, "fault=none");
    if (fault)
        expect_report("checkmark: struct thing %p was missed: it is reachable from a frame of a thread", (void *)thing);
    else
        expect_silence();
    CHECK_EQ(is_alive(f.heap, hide(thing)), !fault);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(planted, a_flush_that_forgets_the_buffer) {
    flush_blindly(false);
    flush_blindly(true);
}

/* ---- what ends the process -------------------------------------------------------------------------------------- */

/* Runs fn in a process of its own; what it wrote to standard error, and how it ended. */
static int in_child(void (*fn)(void), char *text, size_t size) {
    int ends[2], status = 0;
    CHECK_EQ(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        fn();
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n + 1 < size && (got = read(ends[0], text + n, size - 1 - n)) > 0;) n += (size_t)got;
    text[n] = '\0';
    close(ends[0]);
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

static void expect_abort(void (*fn)(void), const char *first, const char *invariant) {
    char text[8192];
    int status = in_child(fn, text, sizeof text);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status 0x%x: %s", (unsigned)status, text);
    const char *at = strstr(text, first);
    CHECK_MSG(at && strstr(at, invariant) && strstr(at, "broken invariant"), "expected \"%s\", then \"%s\": %s", first,
              invariant, text);
}

static void say_begun(void) {
    fprintf(stderr, "begun\n");
    fflush(stderr);
}

static void flush_blindly_then_assert(void) {
    struct fixture f = open_heap("checkmark=1", "fault=flush_blind");
    TRI_LOCALS(f.thread, roots, 2);
    mend_on_report = f.heap; /* the assertion is off while the fault is on */
    say_begun();
    delete_while_marking(&f, roots);
    TRI_POP(f.thread, roots);
}

TEST(planted, a_buffer_with_unmarked_entries_at_disarming) {
    expect_abort(flush_blindly_then_assert, "begun", "I-CYC5");
}

struct rest {
    struct span *span;
    uint32_t first, nslots;
};

/* The unused rest of the hole that things are allocated from. */
static struct rest open_hole(const struct fixture *f) {
    CHECK(tri_new(f->thread, &thing_type) != NULL);
    const tri_hole *hole = &f->thread->holes[thing_type.layout];
    struct rest r = {.span = hole->span};
    CHECK(r.span != NULL && hole->cursor < hole->limit);
    uintptr_t offset = (uintptr_t)hole->cursor - span_base(&f->heap->mem.space, r.span);
    r.first = (uint32_t)(offset / r.span->slot_bytes);
    r.nslots = (uint32_t)((size_t)(hole->limit - hole->cursor) / r.span->slot_bytes);
    return r;
}

static void return_a_hole_twice(void) {
    struct fixture f = open_heap(NULL, NULL);
    struct rest r = open_hole(&f);
    tri__span_return_hole(&f.heap->mem.space, r.span, r.first, r.nslots);
    say_begun();
    tri__span_return_hole(&f.heap->mem.space, r.span, r.first, r.nslots);
}

/* Once too early, and then by the thread that has it. */
static void return_a_hole_of_another(void) {
    struct fixture f = open_heap(NULL, NULL);
    struct rest r = open_hole(&f);
    tri__span_return_hole(&f.heap->mem.space, r.span, r.first, r.nslots);
    say_begun();
    tri_detach(f.thread);
}

TEST(planted, a_hole_given_back_twice) {
    expect_abort(return_a_hole_twice, "begun", "I-SPAN5");
    expect_abort(return_a_hole_of_another, "begun", "I-SPAN5");
}

static void end_silently(void) {
    struct fixture f = open_heap(NULL, NULL);
    (void)open_hole(&f);
    say_begun();
    close_heap(&f);
}

TEST(planted, a_hole_given_back_once) {
    char text[1024];
    CHECK_EQ(in_child(end_silently, text, sizeof text), 0);
    CHECK_STR_EQ(text, "begun\n");
}

/* ---- verify: the heap's own figures ----------------------------------------------------------------------------- */

/* At least one contradiction, one of which says this. */
__attribute__((format(printf, 2, 3))) static void expect_contradiction(const struct fixture *f, const char *format,
                                                                       ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int wrong = tri_verify(f->thread);
    CHECK_MSG(wrong > 0 && ntold == (uint32_t)wrong && strstr(told, text),
              "%d contradictions and %u reports, expected \"%s\":\n%s", wrong, ntold, text, told);
    forget_reports();
}

static void expect_sound(const struct fixture *f) {
    int wrong = tri_verify(f->thread);
    CHECK_MSG(wrong == 0, "%d contradictions:\n%s", wrong, told);
}

/* A heap at rest: one thing in a span that is listed as partial, one array of some pages. */
struct rested {
    struct fixture f;
    struct memory *mem;
    struct thing *thing;
    struct span *span, *large; /* of the thing, of the array */
    struct central *central;
    unsigned parity;
};

static struct rested open_rested(void **roots, tri_frame *frame) {
    struct rested r = {.f = open_heap(NULL, NULL)};
    tri_frame_push(r.f.thread, frame);
    struct owner *owner = roots[0] = tri_new(r.f.thread, &owner_type);
    tri_store(r.f.thread, owner, &owner->first, r.thing = tri_new(r.f.thread, &thing_type));
    tri_store(r.f.thread, owner, &owner->second, tri_new_n(r.f.thread, &array_type, 10000));
    fixture_collect(&r.f);
    r.mem = &r.f.heap->mem;
    r.span = space_span_of(&r.mem->space, (uintptr_t)r.thing);
    r.large = space_span_of(&r.mem->space, (uintptr_t)owner->second);
    r.central = r.mem->centrals[r.span->layout];
    r.parity = r.mem->gen & 1;
    CHECK(r.span->place == SPAN_LISTED && r.central->partial[r.parity].head == r.span);
    CHECK(r.span->kind == PAGE_SMALL && r.large->kind == PAGE_LARGE && r.large->npages > 2);
    expect_sound(&r.f);
    return r;
}

static void close_rested(struct rested *r, tri_frame *frame) {
    expect_sound(&r->f);
    tri_frame_pop(r->f.thread, frame);
    close_heap(&r->f);
}

#define RESTED(r, roots)                     \
    void *roots[1] = {NULL};                 \
    tri_frame roots##_frame = {0, 1, roots}; \
    struct rested r = open_rested(roots, &roots##_frame)

TEST(planted, verify_sees_counts_and_bits) {
    RESTED(r, roots);
    struct space *space = &r.mem->space;
    size_t page = r.span->first_page;
    r.span->nalloc++;
    expect_contradiction(&r.f, "I-SPAN4: span at page %zu has 1 allocation bits and counts 2", page);
    r.span->nalloc--;

    uint64_t bit, *word;
    struct slot slot = span_slot(space, r.span, 5); /* free */
    CHECK(!space_is_allocated(space, &slot));
    word = space_alloc_word(space, &slot, &bit);
    *word ^= bit;
    expect_contradiction(&r.f, "I-SPAN4: span at page %zu has 2 allocation bits and counts 1", page);
    *word ^= bit;

    CHECK(space_find_slot(space, (uintptr_t)r.thing, &slot));
    word = space_alloc_word(space, &slot, &bit);
    *word ^= bit | bit << 1; /* the thing's bit, a granule too far */
    expect_contradiction(&r.f, "I-ARENA3: span at page %zu has allocation bits off its slots", page);
    *word ^= bit | bit << 1;

    word = space_mark_word(space, &slot, &bit);
    *word ^= bit;
    expect_contradiction(&r.f, "R10: span at page %zu is swept and has 1 marks between cycles", page);
    *word ^= bit;
    close_rested(&r, &roots_frame);
}

TEST(planted, verify_sees_page_entries) {
    RESTED(r, roots);
    struct space *space = &r.mem->space;
    size_t page = r.large->first_page + 1;
    struct page_entry *entry = &space->pages[page], kept = *entry;
    entry->shape ^= 1 << 16;
    expect_contradiction(&r.f, "I-SPAN2: page %zu says kind %d layout %u, its span kind %d layout %u", page, PAGE_LARGE,
                         r.large->layout ^ 1, PAGE_LARGE, r.large->layout);
    *entry = kept;
    entry->place += 1ull << 32;
    expect_contradiction(&r.f, "I-SPAN2: page %zu leads to a wrong first page", page);
    *entry = kept;
    space->spans[page] = r.span;
    expect_contradiction(&r.f, "I-SPAN2: page %zu names another span", page);
    space->spans[page] = r.large;

    for (page = 0; page < space->committed_pages && space->pages[page].shape != 0;) page++;
    CHECK(page < space->committed_pages);
    space->pages[page].shape = kept.shape;
    expect_contradiction(&r.f, "I-SPAN2: page %zu is inside a span that does not begin before it", page);
    space->pages[page].shape = 0;
    close_rested(&r, &roots_frame);
}

TEST(planted, verify_sees_lists) {
    RESTED(r, roots);
    struct span_list *partial = &r.central->partial[r.parity], *large = &r.mem->large[r.parity];
    size_t page = r.span->first_page, n = partial->nspans;
    partial->nspans++;
    expect_contradiction(&r.f, "I-SPAN1: list partial holds %zu spans and counts %zu", n, n + 1);
    partial->nspans--;
    large->nspans--;
    expect_contradiction(&r.f, "I-SPAN1: list large holds 1 spans and counts 0");
    large->nspans++;
    r.span->prev = r.large;
    expect_contradiction(&r.f, "I-SPAN1: list partial is broken at page %zu", page);
    r.span->prev = NULL;
    r.span->place = SPAN_CACHED;
    expect_contradiction(&r.f, "I-SPAN1: span at page %zu is in list partial and elsewhere", page);
    r.span->place = SPAN_LISTED;
    r.span->gen++;
    expect_contradiction(&r.f, "R10: span at page %zu is filed under a wrong generation", page);
    r.span->gen--;
    tri__span_list_remove(partial, r.span);
    tri__span_list_push(&r.central->full[r.parity], r.span);
    expect_contradiction(&r.f, "I-SPAN4: span at page %zu is in the wrong list full", page);
    tri__span_list_remove(&r.central->full[r.parity], r.span);
    expect_contradiction(&r.f, "are published, ");
    tri__span_list_push(partial, r.span);
    close_rested(&r, &roots_frame);
}

TEST(planted, verify_sees_totals_and_holes) {
    RESTED(r, roots);
    r.mem->used_pages++;
    expect_contradiction(&r.f, "I-MEM1: spans have ");
    r.mem->used_pages--;
    r.mem->building_pages++;
    expect_contradiction(&r.f, "I-MEM1: spans have ");
    r.mem->building_pages--;

    struct rest rest = open_hole(&r.f);
    tri_hole *hole = &r.f.thread->holes[thing_type.layout];
    expect_sound(&r.f);
    hole->limit -= 8;
    expect_contradiction(&r.f, "I-CACHE1: a hole is no whole number of slots");
    hole->limit += 8;
    rest.span->place = SPAN_LISTED;
    expect_contradiction(&r.f, "I-SPAN1: a cached span is elsewhere too");
    rest.span->place = SPAN_CACHED;
    close_rested(&r, &roots_frame);
}

/* Not mended: the page heap gives a page out again where it likes. */
TEST(planted, verify_sees_a_page_that_is_free_and_in_use) {
    RESTED(r, roots);
    size_t page = r.large->first_page + 1;
    tri__pageheap_free(r.mem->pages, page, 1);
    expect_contradiction(&r.f, "I-PAGE1: page %zu of a span is free in the page heap", page);
}

/* verify=1: nobody has to ask. */
TEST(planted, verify_by_itself_after_each_cycle) {
    RESTED(r, roots);
    set(&r.f, "verify=1");
    fixture_collect(&r.f);
    expect_silence();
    r.mem->used_pages++;
    fixture_collect(&r.f);
    expect_report("verify: I-MEM1: spans have ");
    r.mem->used_pages--;
    close_rested(&r, &roots_frame);
}

/* ---- poison: a write through a stale pointer -------------------------------------------------------------------- */

TEST(planted, a_write_into_a_freed_object) {
    struct fixture f = open_heap("poison=1", NULL);
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new(f.thread, &thing_type); /* keeps the span */
    struct thing *stale = tri_new(f.thread, &thing_type);
    for (int i = 0; i < 2; i++) fixture_collect(&f);
    CHECK(!is_alive(f.heap, hide(stale)));
    expect_sound(&f);
    for (size_t i = 0; i < 6; i++) {
        uint64_t kept = stale->numbers[i];
        stale->numbers[i] = 42;
        CHECK_EQ(tri_verify(f.thread), 1);
        expect_report("verify: poison: a freed struct thing at %p was written at offset %zu after it was freed",
                      (void *)stale, i * 8);
        stale->numbers[i] = kept;
    }
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

#else

TEST(planted, faults_need_checks) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "fault=nonsense"), TRI_EINVAL);
    fixture_close(&f);
}

#endif
