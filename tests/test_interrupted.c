/*
 * Every public call is interrupted in its middle by a signal handler that makes every public call, and each of those is
 * refused and told by name. The processor's single step (a trap after each instruction, x86-64) finds the middle: the
 * first instruction at which builds with checks know that the call is under way (gc/rules.h). So a call that does not
 * say so, or does not ask whether another one is, fails here, however short it is. Left out are calls that read a word
 * or two (tri_version, tri_manual_bytes), and tri_visit and tri_visit_values, which callbacks make; tri_self,
 * tri_thread_heap and tri_scope_open interrupt, and are too short to be interrupted.
 *
 * Creating a heap blocks signals while its threads start, so it is not stepped through; test_signals.c interrupts it.
 */
#include "tests/coroutine.h"
#include "tests/fixture.h"

#include <fcntl.h>
#include <signal.h>

#if TRI_CHECKS >= 1 && defined(__x86_64__)

#include "gc/rules.h"
#include <ucontext.h>

struct watcher {
    void *weak;
};
TRI_WEAK_TYPE(watcher_type, struct watcher, weak);

/* ---- what the calls are made of ---------------------------------------------------------------------------------- */

enum { LARGE_BYTES = MIB, OBJECT = 0, KEY, MAP, WATCHER, MADE, NROOTS };

static tri_heap *heap, *other;
static tri_thread *t, *other_thread;
static void *roots[NROOTS];                                   /* a frame's */
static void *root, *scanner, *stack, *queue, *handle, *block; /* of the calls that made them */
static tri_root *block_root;
static tri_word words[128], *top = words;
static void *slots[4], *batch[8];
static tri_frame frame = {.slots = slots, .nslots = 4};
static struct runner runner;
static struct coroutine coroutine;
static int null_fd;

static struct pair *object(void) {
    return roots[OBJECT];
}
static void scan_nothing(tri_visitor *visitor, void *arg) {
    (void)visitor, (void)arg;
}
static void clean_up_nothing(void *arg) {
    (void)arg;
}
static void *do_nothing(void *arg) {
    return arg;
}
static void jump_nowhere(void *arg) {
    (void)arg;
}
static void yield_once(struct coroutine *c, void *arg) {
    (void)arg;
    coroutine_yield(c);
}

/* What a call gives back. Refused ones leave it alone: the handler's calls come before the interrupted one's answer. */
static void *made;
static int err;

/* One public call. */
#define CALL(name, ...)             \
    static void name##_call(void) { \
        (void)(__VA_ARGS__);        \
    }

CALL(tri_new, tri_new_slow(t, &pair_type))
CALL(tri_new_n, tri_new_n(t, &array_type, 4000))
CALL(tri_new_bytes, tri_new_bytes(t, 5000))
CALL(tri_new_aligned, tri_new_aligned(t, 256, 1000))
CALL(tri_new_batch, tri_new_batch(t, &pair_type, batch, 8))
CALL(tri_poll, tri_poll_slow(t))
CALL(tri_store, tri_store_slow(t, object(), &object()->left, (tri_word)(uintptr_t)roots[KEY]))
CALL(tri_xchg, tri_xchg(t, object(), &object()->left, 0))
CALL(tri_cas, tri_cas(t, object(), &object()->left, &(tri_word){0}, 0))
CALL(tri_move, tri_move(t, object(), &object()->left, &object()->right, 1))
CALL(tri_clear, tri_clear(t, object(), &object()->left, 2))
CALL(tri_weak_load, tri_weak_load_slow(t, &((struct watcher *)roots[WATCHER])->weak))
CALL(tri_external, tri_external(t, 1000))
CALL(tri_collect, err = tri_collect(t))
CALL(tri_step, tri_step(t, 1000))
CALL(tri_trim, tri_trim(heap))
CALL(tri_find, tri_find(t, object(), NULL))
CALL(tri_walk, tri_walk(t, NULL, NULL))
CALL(tri_verify, tri_verify(t))
CALL(tri_usable_size, tri_usable_size(heap, object()))
CALL(tri_stats_get, tri_stats_get(heap, &(tri_stats){.struct_size = sizeof(tri_stats)}))
CALL(tri_histogram, tri_histogram(heap, TRI_PAUSE_SCAN, (uint64_t[4]){0}, 4))
CALL(tri_class_stats, tri_class_stats(heap, NULL, 0))
CALL(tri_layout_stats, tri_layout_stats(heap, NULL, 0))
CALL(tri_dump_heap_map, tri_dump_heap_map(heap, null_fd))
CALL(tri_heap_set, err = tri_heap_set(heap, "growth_percent=60"))
CALL(tri_heap_create, err = tri_heap_create(NULL, &(tri_heap *){NULL}))
CALL(tri_heap_destroy, err = tri_heap_destroy(other))
CALL(tri_attach, tri_attach(other, 0, &(tri_thread *){NULL}))
CALL(tri_detach, tri_detach(t))
CALL(tri_self, tri_self(heap))
CALL(tri_thread_heap, tri_thread_heap(t))
CALL(tri_blocking, tri_blocking(t, do_nothing, NULL))
CALL(tri_callin, tri_callin(t, do_nothing, NULL))
CALL(tri_type_register, err = tri_type_register(&leaf_type))
CALL(tri_type_describe, err = tri_type_describe(&leaf_type, &(tri_type_data){.struct_size = sizeof(tri_type_data)}))
CALL(tri_cleanup_add, tri_cleanup_add(t, object(), clean_up_nothing, NULL))
CALL(tri_cleanup_remove, tri_cleanup_remove(t, object(), clean_up_nothing, NULL))
CALL(tri_cleanup_run, tri_cleanup_run(t, 10))
CALL(tri_wmap_new, made = tri_wmap_new(t, NULL))
CALL(tri_wmap_put, tri_wmap_put(t, roots[MAP], roots[KEY], 7))
CALL(tri_wmap_get, tri_wmap_get(t, roots[MAP], roots[KEY], NULL))
CALL(tri_wmap_next, tri_wmap_next(t, roots[MAP], &(size_t){0}, NULL, NULL))
CALL(tri_wmap_count, tri_wmap_count(t, roots[MAP]))
CALL(tri_wmap_remove, tri_wmap_remove(t, roots[MAP], roots[KEY]))
CALL(tri_finq_new, made = tri_finq_new(t))
CALL(tri_finq_watch, tri_finq_watch(t, queue, roots[KEY]))
CALL(tri_finq_poll, tri_finq_poll(t, queue))
CALL(tri_root_add, made = tri_root_add(t, slots, 4, NULL))
CALL(tri_root_store, tri_root_store_slow(t, root, slots, 0))
CALL(tri_root_remove, tri_root_remove(t, root))
CALL(tri_scanner_add, made = tri_scanner_add(t, scan_nothing, NULL))
CALL(tri_scanner_remove, tri_scanner_remove(t, scanner))
CALL(tri_vmstack_add, made = tri_vmstack_add(t, words, &top, NULL))
CALL(tri_vmstack_move, tri_vmstack_move(t, stack, words, &top))
CALL(tri_vmstack_suspend, tri_vmstack_suspend(t, stack))
CALL(tri_vmstack_touch, tri_vmstack_touch(t, stack))
CALL(tri_vmstack_resume, tri_vmstack_resume(t, stack))
CALL(tri_vmstack_remove, tri_vmstack_remove(t, stack))
CALL(tri_native_add, tri_native_add(t, words, sizeof words))
CALL(tri_native_switch, tri_native_switch(t, NULL, jump_nowhere, NULL))
CALL(tri_global, made = tri_global(t, object()))
CALL(tri_global_set, tri_global_set(t, handle, NULL))
CALL(tri_global_free, tri_global_free(t, handle))
CALL(tri_scope_open, tri_scope_open(t))
CALL(tri_local, tri_local(t, object()))
CALL(tri_scope_close, tri_scope_close(t, 0))
CALL(tri_frame_pop, tri_frame_pop_slow(t, &frame))
CALL(tri_free, tri_free(t, roots[MADE]))
CALL(tri_manual_alloc, made = tri_manual_alloc(heap, LARGE_BYTES))
CALL(tri_manual_realloc, made = tri_manual_realloc(heap, block, 2 * LARGE_BYTES))
CALL(tri_manual_free, tri_manual_free(heap, block))
CALL(tri_manual_calloc, made = tri_manual_calloc(heap, 1, LARGE_BYTES))
CALL(tri_manual_aligned, made = tri_manual_aligned(heap, 1024, LARGE_BYTES))
CALL(tri_manual_root_new, tri_manual_root_new(t, 4, NULL, &block_root))
CALL(tri_manual_root_free, tri_manual_root_free(t, block_root))

/* ---- the same where it has a place to be made, for one to be interrupted ----------------------------------------- */

static void attach_to_other(void) {
    CHECK_EQ(tri_attach(other, 0, &other_thread), TRI_OK);
}
static void detach_from_other(void) {
    CHECK_EQ(tri_detach(other_thread), TRI_OK);
}
static void *call_in(void *arg) {
    return tri_callin(t, do_nothing, arg);
}
static void call_in_really(void) {
    tri_blocking(t, call_in, NULL);
}
static void add_native(void) {
    coroutine_open(t, &coroutine, yield_once, NULL);
}
static void switch_native(void) {
    CHECK(coroutine_run(&runner, &coroutine));
}
static void pop_pushed(void) {
    tri_frame_push(t, &frame);
    tri_frame_pop_slow(t, &frame);
}
static void free_made(void) {
    void *obj = tri_new(t, &leaf_type);
    CHECK_EQ(tri_free(t, obj), TRI_OK);
}
static void free_block(void) {
    tri_manual_free(heap, block);
    block = NULL;
}

#define WATCHING "registering what waits for an object's death"

/* In an order in which each can be made. */
static const struct call {
    const char *name;
    void (*fn)(void);
    void (*really)(void);  /* instead of fn, to be interrupted */
    void **gives;          /* where what it made is kept */
    const char *under_way; /* as, if not by its name */
    bool without_heap;     /* its report is no heap's: `err` says that it was refused */
    bool only_interrupts;
} calls[] = {
#define PLAIN(name_) \
    { .name = #name_, .fn = name_##_call }
#define ROW(name_, ...) \
    { .name = #name_, .fn = name_##_call, __VA_ARGS__ }
    PLAIN(tri_new),
    PLAIN(tri_new_n),
    PLAIN(tri_new_bytes),
    PLAIN(tri_new_aligned),
    PLAIN(tri_new_batch),
    PLAIN(tri_poll),
    PLAIN(tri_store),
    PLAIN(tri_xchg),
    PLAIN(tri_cas),
    PLAIN(tri_move),
    PLAIN(tri_clear),
    PLAIN(tri_weak_load),
    PLAIN(tri_external),
    PLAIN(tri_collect),
    PLAIN(tri_step),
    PLAIN(tri_trim),
    PLAIN(tri_find),
    PLAIN(tri_walk),
    PLAIN(tri_verify),
    PLAIN(tri_usable_size),
    PLAIN(tri_stats_get),
    PLAIN(tri_histogram),
    PLAIN(tri_class_stats),
    PLAIN(tri_layout_stats),
    PLAIN(tri_dump_heap_map),
    PLAIN(tri_heap_set),
    ROW(tri_heap_create, .without_heap = true, .only_interrupts = true),
    ROW(tri_heap_destroy, .only_interrupts = true),
    ROW(tri_attach, .really = attach_to_other),
    ROW(tri_detach, .really = detach_from_other),
    ROW(tri_self, .only_interrupts = true),
    ROW(tri_thread_heap, .only_interrupts = true),
    PLAIN(tri_blocking),
    ROW(tri_callin, .really = call_in_really),
    ROW(tri_type_register, .without_heap = true),
    ROW(tri_type_describe, .without_heap = true),
    ROW(tri_cleanup_add, .under_way = WATCHING),
    PLAIN(tri_cleanup_remove),
    PLAIN(tri_cleanup_run),
    ROW(tri_wmap_new, .gives = &roots[MAP]),
    PLAIN(tri_wmap_put),
    PLAIN(tri_wmap_get),
    PLAIN(tri_wmap_next),
    PLAIN(tri_wmap_count),
    PLAIN(tri_wmap_remove),
    ROW(tri_finq_new, .gives = &queue),
    ROW(tri_finq_watch, .under_way = WATCHING),
    PLAIN(tri_finq_poll),
    ROW(tri_root_add, .gives = &root),
    PLAIN(tri_root_store),
    PLAIN(tri_root_remove),
    ROW(tri_scanner_add, .gives = &scanner),
    PLAIN(tri_scanner_remove),
    ROW(tri_vmstack_add, .gives = &stack),
    PLAIN(tri_vmstack_move),
    PLAIN(tri_vmstack_suspend),
    PLAIN(tri_vmstack_touch),
    PLAIN(tri_vmstack_resume),
    PLAIN(tri_vmstack_remove),
    ROW(tri_native_add, .really = add_native),
    ROW(tri_native_switch, .really = switch_native),
    ROW(tri_global, .gives = &handle),
    PLAIN(tri_global_set),
    PLAIN(tri_global_free),
    ROW(tri_scope_open, .only_interrupts = true),
    PLAIN(tri_local),
    PLAIN(tri_scope_close),
    ROW(tri_frame_pop, .really = pop_pushed),
    ROW(tri_free, .really = free_made),
    ROW(tri_manual_alloc, .gives = &block),
    ROW(tri_manual_realloc, .gives = &block),
    ROW(tri_manual_free, .really = free_block),
    ROW(tri_manual_calloc, .gives = &block),
    ROW(tri_manual_free, .really = free_block),
    ROW(tri_manual_aligned, .gives = &block),
    ROW(tri_manual_free, .really = free_block),
    PLAIN(tri_manual_root_new),
    PLAIN(tri_manual_root_free),
};

/* ---- stepping ---------------------------------------------------------------------------------------------------- */

enum { TRAP_FLAG = 0x100 };

static const struct call *volatile awaited; /* what is to be interrupted, until it was */
static uint64_t ntraps;

/* Each call, in the middle of `awaited`: refused, and told once. */
static void interrupt_with_all(const char *under_way) {
    char text[160];
    for (size_t i = 0; i < TRI_COUNT(calls); i++) {
        const struct call *c = &calls[i];
        if (c->without_heap && awaited != calls) continue; /* its report is printed: once will do */
        err = TRI_OK;
        fixture_take_reports();
        c->fn();
        snprintf(text, sizeof text, "%s: called while %s is under way", c->name, under_way);
        uint32_t n = fixture_take_reports();
        if (c->without_heap)
            CHECK_MSG(err == TRI_ESTATE, "%s in %s: %d", c->name, under_way, err);
        else
            CHECK_MSG(n == 1 && strncmp(fixture_report, text, strlen(text)) == 0, "%u reports, not \"%s\": %s", n, text,
                      fixture_report);
    }
}

/* After each instruction, until the call is under way. */
static void on_trap(int number, siginfo_t *info, void *context) {
    greg_t *flags = &((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL];
    (void)number, (void)info;
    ntraps++;
    *flags |= TRAP_FLAG;
    if (awaited) {
        const struct running *r = &tri__running;
        const char *now = r->hook ? NULL : r->call ? r->call : r->no_safepoint;
        const char *under_way = awaited->under_way ? awaited->under_way : awaited->name;
        if (!now || strcmp(now, under_way) != 0) return;
        interrupt_with_all(under_way);
        awaited = NULL;
    }
    *flags &= ~TRAP_FLAG;
}

static void expect_interrupted(const struct call *c) {
    awaited = c;
    raise(SIGTRAP); /* from here on */
    (c->really ? c->really : c->fn)();
    CHECK_MSG(!awaited, "%s is never under way, in %llu instructions", c->name, (unsigned long long)ntraps);
    if (c->gives) CHECK_MSG((*c->gives = made) != NULL, "%s: %s", c->name, tri_last_error());
}

/* Some machines that are emulated run on without a trap. */
static bool machine_steps(void) {
    static const struct call none = {.name = ""};
    awaited = &none;
    raise(SIGTRAP);
    for (volatile int i = 0; i < 10; i++) {}
    awaited = NULL;
    return ntraps > 10;
}

TEST(interrupted, every_call_by_every_call_and_told, .timeout = 60) {
    if (TEST_UNDER_TSAN || TEST_UNDER_ASAN || TEST_EMULATED) return; /* their own code is stepped through, too */
    struct fixture f = fixture_open(), second = fixture_open();
    tri_frame kept = {.slots = roots, .nslots = NROOTS};
    tri_frame_push(f.thread, &kept);
    CHECK_EQ(tri_detach(second.thread), TRI_OK);
    heap = f.heap, t = f.thread, other = second.heap;
    runner = runner_of(t);
    null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    roots[OBJECT] = tri_new(t, &pair_type);
    roots[KEY] = tri_new(t, &pair_type);
    roots[WATCHER] = tri_new(t, &watcher_type);
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    CHECK_EQ(sigaction(SIGTRAP, &action, NULL), 0);
    bool steps = machine_steps();
    if (!steps) printf("this machine has no single step: nothing was interrupted\n");
    for (size_t i = 0; steps && i < TRI_COUNT(calls); i++)
        if (!calls[i].only_interrupts) expect_interrupted(&calls[i]);
    printf("%llu instructions stepped through\n", (unsigned long long)ntraps);
    if (steps) {
        coroutine_close(t, &coroutine);
        tri_external(t, -1000);
    }
    close(null_fd);
    tri_frame_pop(t, &kept);
    fixture_take_reports();
    CHECK_EQ(tri_heap_destroy(other), TRI_OK);
    fixture_close(&f);
}

#else

TEST(interrupted, needs_checks_and_a_processor_that_steps) {
    CHECK(TRI_CHECKS == 0 || sizeof(struct fixture) > 0);
}

#endif
