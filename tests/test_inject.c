/*
 * Every call that the system may refuse, refused in turn. A scenario that uses all of a heap (threads, objects of every
 * size, roots of every kind, a deep stack, manual memory, cleanups, cycles with two markers, trimming, what populates
 * and what advises), and so comes to every place in the library that asks the system for memory or a thread, but for
 * types (which have a test of their own) and checkmark, runs again and again: in run k the k-th mmap, mprotect, madvise
 * or thread start fails (tri__os_fail_at), until there is a run with fewer calls than that. In some passes all calls
 * after it fail too, until the host has seen a refusal. Whatever failed: the call that met it says so by name or goes
 * on without; the same call works as soon as the system gives again; no object is lost, the heap verifies clean, and
 * when it is destroyed the process has as much address space as before.
 */
#include "tests/fixture.h"
#include "tests/process.h"

#include <malloc.h>

/* ---- What the scenario keeps ------------------------------------------------------------------------------------- */

/* An object of n payload words, each of which follows from its number. */
struct block {
    struct block *next;
    uint64_t number, nwords;
    uint64_t words[];
};
static const uint32_t block_slots[] = {0};
static tri_type block_type = {.struct_size = sizeof(tri_type),
                              .name = "block",
                              .size = sizeof(struct block),
                              .elem_size = 8,
                              .pointers = {.offsets = block_slots, .noffsets = 1}};

static uint64_t word_of(uint64_t number, uint64_t i) {
    return (number + 1) * 0x9e3779b97f4a7c15ull ^ i << 3;
}

enum { NLISTS = 8, NSMALL = 3000, NHANDLES = 1500, NRANGES = 300, NSTACKS = 160, NSCANNERS = 160, NLOCALS = 1500 };
enum { NDEEP = 10000, NCLEANUPS = 300 };

struct run {
    tri_heap *heap;
    uint64_t nth, nrefusals; /* what is refused in it */
    uint32_t nseen;          /* refusals that the host was told of [atomic] */
    uint64_t ncalls;         /* of the system, when it began */
    const char *step;        /* for messages */
    tri_root *range;
    void *lists[NLISTS];           /* a range of global slots: lists of blocks */
    uint64_t nblocks[NLISTS];      /* how many each has; its numbers go down to 0 */
    tri_handle handles[NHANDLES];  /* every third one holds a block of its own */
    tri_root *ranges[NRANGES];     /* of one slot each: */
    void *range_slots[NRANGES];    /*   a block in each */
    tri_vmstack *stacks[NSTACKS];  /* of one word each: */
    tri_word stack_words[NSTACKS]; /*   a block in each */
    tri_word *stack_tops[NSTACKS];
};
static struct run run;

static uint64_t calls_so_far(void) {
    uint64_t n = 0;
    for (int kind = 0; kind < OS_CALL_KINDS; kind++) n += tri__os_ncalls((enum os_call)kind);
    return n;
}

/* A call has failed for want of memory: it said so by name; from now on the system gives again. */
static void was_refused(const char *call) {
    CHECK_MSG(run.nth != 0, "%s: %s fails where nothing is refused: %s", run.step, call, tri_last_error());
    CHECK_MSG(strstr(tri_last_error(), call) != NULL, "run %" PRIu64 ", %s: \"%s\" does not name %s", run.nth, run.step,
              tri_last_error(), call);
    atomic_add_relaxed(&run.nseen, 1);
    if (run.nrefusals > 1) tri__os_fail_at(0, 0);
}

/* The call's value; after a refusal that of the same call again, which has to work. */
#define HAVE(result_, call_, name_)                                                                        \
    do {                                                                                                   \
        (result_) = (call_);                                                                               \
        if (!(result_)) {                                                                                  \
            was_refused(name_);                                                                            \
            (result_) = (call_);                                                                           \
        }                                                                                                  \
        CHECK_MSG((result_), "run %" PRIu64 ", %s: fails again: %s", run.nth, run.step, tri_last_error()); \
    } while (0)

static struct block *make_block(tri_thread *thread, uint64_t number, size_t nwords) {
    struct block *b;
    HAVE(b, tri_new_n(thread, &block_type, nwords), "tri_new_n");
    CHECK(b->next == NULL && b->number == 0);
    b->number = number;
    b->nwords = nwords;
    for (size_t i = 0; i < nwords; i += 61) { /* enough of a large one */
        CHECK_MSG(b->words[i] == 0, "run %" PRIu64 ", %s: word %zu of %zu is not zero", run.nth, run.step, i, nwords);
        b->words[i] = word_of(number, i);
    }
    return b;
}

static void check_block(const struct block *b, uint64_t number) {
    CHECK_MSG(is_alive(run.heap, hide(b)), "run %" PRIu64 ", %s: block %" PRIu64 " is gone", run.nth, run.step, number);
    CHECK_MSG(b->number == number, "run %" PRIu64 ", %s: block %" PRIu64 " has become %" PRIu64, run.nth, run.step,
              number, b->number);
    for (size_t i = 0; i < b->nwords; i += 61)
        CHECK_MSG(b->words[i] == word_of(number, i), "run %" PRIu64 ", %s: block %" PRIu64 ", word %zu", run.nth,
                  run.step, number, i);
}

/* A list belongs to one thread at a time. */
static void prepend(tri_thread *thread, int list, size_t nwords) {
    struct block *b = make_block(thread, run.nblocks[list]++, nwords);
    tri_store(thread, b, &b->next, run.lists[list]);
    tri_root_store(thread, run.range, &run.lists[list], b);
}

static void check_everything(void) {
    for (int list = 0; list < NLISTS; list++) {
        uint64_t n = run.nblocks[list];
        for (const struct block *b = run.lists[list]; b; b = b->next) check_block(b, --n);
        CHECK_MSG(n == 0, "run %" PRIu64 ", %s: %" PRIu64 " blocks of list %d are gone", run.nth, run.step, n, list);
    }
    for (size_t i = 0; i < NHANDLES; i += 3)
        if (run.handles[i]) check_block(tri_deref(run.handles[i]), i);
    for (size_t i = 0; i < NRANGES; i++)
        if (run.ranges[i]) check_block(run.range_slots[i], i);
    for (size_t i = 0; i < NSTACKS; i++)
        if (run.stacks[i]) check_block((struct block *)(uintptr_t)run.stack_words[i], i);
}

/* ---- Its steps --------------------------------------------------------------------------------------------------- */

static void attach(tri_thread **thread) {
    bool ok;
    HAVE(ok, tri_attach(run.heap, 0, thread) == TRI_OK, "tri_attach");
}

static void collect(tri_thread *thread) {
    CHECK_MSG(tri_collect(thread) == TRI_OK, "run %" PRIu64 ", %s: %s", run.nth, run.step, tri_last_error());
}

/* Small, medium and large ones, and much garbage. */
static void allocate(tri_thread *thread, int list, uint64_t seed) {
    static const size_t medium[] = {500, 1200, 2000, 3900}, large[] = {4200, 13000, 40000};
    for (int i = 0; i < NSMALL; i++) {
        uint64_t r = fixture_random(&seed);
        size_t nwords = r % 100 == 0   ? medium[(r >> 8) % TRI_COUNT(medium)]
                        : r % 500 == 1 ? large[(r >> 8) % TRI_COUNT(large)]
                                       : (r >> 8) % 20;
        if (r >> 60 < 4)
            prepend(thread, list, nwords);
        else
            (void)make_block(thread, 0, nwords);
    }
}

struct worker {
    int list;
    uint64_t seed;
};

static void *worker_main(void *arg) {
    struct worker *w = arg;
    tri_thread *thread;
    attach(&thread);
    allocate(thread, w->list, w->seed);
    static _Thread_local tri_word words[4];
    static _Thread_local tri_word *top;
    top = words;
    tri_vmstack *stack;
    HAVE(stack, tri_vmstack_add(thread, words, &top, NULL), "tri_vmstack_add");
    for (int i = 0; i < 3; i++) *top++ = (tri_word)(uintptr_t)make_block(thread, (uint64_t)i, 10);
    collect(thread);
    for (uint64_t i = 0; i < 3; i++) check_block((struct block *)(uintptr_t)words[i], i);
    CHECK_EQ(tri_detach(thread), TRI_OK); /* and the stack with it */
    return NULL;
}

/* Threads on stacks of the test's own: the C library keeps those that it makes, for a while. */
enum { NWORKERS = 2, WORKER_STACK_BYTES = TEST_IS_SLOW ? 4 << 20 : 1 << 20 };
static _Alignas(4096) char worker_stacks[NWORKERS][WORKER_STACK_BYTES];

static void run_workers(tri_thread *thread) {
    pthread_t threads[NWORKERS];
    struct worker workers[NWORKERS];
    for (int i = 0; i < NWORKERS; i++) {
        pthread_attr_t attr;
        workers[i] = (struct worker){1 + i, fixture_seed() + (uint64_t)i};
        pthread_attr_init(&attr);
        CHECK_EQ(pthread_attr_setstack(&attr, worker_stacks[i], WORKER_STACK_BYTES), 0);
        CHECK_EQ(pthread_create(&threads[i], &attr, worker_main, &workers[i]), 0);
        pthread_attr_destroy(&attr);
    }
    allocate(thread, 0, fixture_seed() + 99);
    for (int i = 0; i < NWORKERS; i++) fixture_join(thread, threads[i]);
}

static void visit_nothing(tri_visitor *visitor, void *arg) {
    (void)visitor, (void)arg;
}

static void add_roots(tri_thread *thread) {
    for (size_t i = 0; i < NHANDLES; i++) {
        struct block *b = i % 3 == 0 ? make_block(thread, i, 2) : NULL;
        HAVE(run.handles[i], tri_global(thread, b), "tri_global");
    }
    for (size_t i = 0; i < NRANGES; i++) {
        run.range_slots[i] = NULL;
        HAVE(run.ranges[i], tri_root_add(thread, &run.range_slots[i], 1, NULL), "tri_root_add");
        tri_root_store(thread, run.ranges[i], &run.range_slots[i], make_block(thread, i, 1));
    }
    for (size_t i = 0; i < NSTACKS; i++) {
        run.stack_tops[i] = &run.stack_words[i];
        HAVE(run.stacks[i], tri_vmstack_add(thread, &run.stack_words[i], &run.stack_tops[i], NULL), "tri_vmstack_add");
        *run.stack_tops[i]++ = (tri_word)(uintptr_t)make_block(thread, i, 3);
        if (i % 2) CHECK_EQ(tri_vmstack_suspend(thread, run.stacks[i]), TRI_OK);
    }
    for (size_t i = 0; i < NSCANNERS; i++) {
        tri_scanner *scanner;
        HAVE(scanner, tri_scanner_add(thread, visit_nothing, NULL), "tri_scanner_add");
    }
}

static void use_locals(tri_thread *thread) {
    static tri_handle locals[NLOCALS];
    uint32_t mark = tri_scope_open(thread);
    for (size_t i = 0; i < NLOCALS; i++) {
        struct block *b = i % 10 == 0 ? make_block(thread, i, 1) : NULL;
        HAVE(locals[i], tri_local(thread, b), "tri_local");
    }
    collect(thread);
    for (size_t i = 0; i < NLOCALS; i += 10) check_block(tri_deref(locals[i]), i);
    tri_scope_close(thread, mark);
}

static void remove_roots(tri_thread *thread) {
    for (size_t i = 0; i < NHANDLES; i++) tri_global_free(thread, run.handles[i]);
    for (size_t i = 0; i < NRANGES; i++) tri_root_remove(thread, run.ranges[i]);
    for (size_t i = 0; i < NSTACKS; i++) tri_vmstack_remove(thread, run.stacks[i]);
    memset(run.handles, 0, sizeof run.handles);
    memset(run.ranges, 0, sizeof run.ranges);
    memset(run.stacks, 0, sizeof run.stacks);
}

/* Pages that are written, dropped, given back to the system, and come again; then more than an arena, which nobody
 * writes to. */
static void grow_and_trim(tri_thread *thread) {
    enum { NBLOCKS = 8, NWORDS = 60000 };
    void *untouched[3];
    for (int i = 0; i < NBLOCKS; i++) (void)memset(make_block(thread, 0, NWORDS)->words, 1, NWORDS * 8);
    collect(thread);
    tri_trim(run.heap);
    for (int i = 0; i < 2 * NBLOCKS; i++) (void)make_block(thread, 0, NWORDS);
    for (int i = 0; i < 3; i++) HAVE(untouched[i], tri_new_bytes(thread, 40 * MIB), "tri_new_bytes");
    collect(thread);
}

static void *manual_without_attaching(void *arg) {
    void *block;
    HAVE(block, tri_manual_alloc(run.heap, 3000), "tri_manual_alloc");
    return memset(block, *(int *)arg, 3000);
}

static void check_bytes(const void *block, size_t n, int value) {
    const unsigned char *bytes = block;
    for (size_t i = 0; i < n; i += 1 + i / 16)
        CHECK_MSG(bytes[i] == value, "run %" PRIu64 ", %s: byte %zu of a manual block", run.nth, run.step, i);
}

static void use_manual(tri_thread *thread) {
    enum { N = 40 };
    void *blocks[N], *other, *zeroed, *aligned;
    pthread_t unattached;
    pthread_attr_t attr;
    int value = 77;
    for (size_t i = 0; i < N; i++) {
        HAVE(blocks[i], tri_manual_alloc(run.heap, (size_t)16 << i % 18), "tri_manual_alloc");
        memset(blocks[i], (int)i, (size_t)16 << i % 18);
    }
    pthread_attr_init(&attr);
    CHECK_EQ(pthread_attr_setstack(&attr, worker_stacks[0], WORKER_STACK_BYTES), 0);
    CHECK_EQ(pthread_create(&unattached, &attr, manual_without_attaching, &value), 0);
    pthread_attr_destroy(&attr);
    CHECK_EQ(pthread_join(unattached, &other), 0);
    check_bytes(other, 3000, value);
    tri_manual_free(run.heap, other);
    HAVE(zeroed, tri_manual_calloc(run.heap, 1000, 100), "tri_manual_calloc");
    check_bytes(zeroed, 100000, 0);
    HAVE(aligned, tri_manual_aligned(run.heap, 1 << 16, 5000), "tri_manual_aligned");
    CHECK_EQ((uintptr_t)aligned % (1 << 16), 0);
    for (size_t i = 0; i < N; i++) {
        size_t size_bytes = (size_t)16 << i % 18;
        void *grown;
        HAVE(grown, tri_manual_realloc(run.heap, blocks[i], size_bytes * 3), "tri_manual_realloc");
        check_bytes(grown, size_bytes, (int)i);
        tri_manual_free(run.heap, grown);
    }
    tri_manual_free(run.heap, zeroed);
    tri_manual_free(run.heap, aligned);
    tri_root *root;
    void **slots;
    HAVE(slots, tri_manual_root_new(thread, 50, NULL, &root), "tri_manual_root_new");
    for (size_t i = 0; i < 50; i++) tri_root_store(thread, root, &slots[i], make_block(thread, i, i));
    collect(thread);
    for (size_t i = 0; i < 50; i++) check_block(slots[i], i);
    tri_manual_root_free(thread, root);
    CHECK_EQ(tri_manual_bytes(run.heap), 0);
}

/* A stack that is deep enough to be copied. */
static void use_a_deep_stack(tri_thread *thread) {
    static tri_word words[NDEEP];
    static tri_word *top;
    tri_vmstack *stack;
    top = words;
    HAVE(stack, tri_vmstack_add(thread, words, &top, NULL), "tri_vmstack_add");
    for (uint64_t i = 0; i < NDEEP; i++) {
        *top = i % 100 == 0 ? (tri_word)(uintptr_t)make_block(thread, i, 1) : 0;
        top++;
    }
    collect(thread);
    for (uint64_t i = 0; i < NDEEP; i += 100) check_block((struct block *)(uintptr_t)words[i], i);
    tri_vmstack_remove(thread, stack);
}

static void count_one(void *arg) {
    ++*(size_t *)arg;
}

/* Every cleanup that could be added runs. */
static void use_cleanups(tri_thread *thread) {
    size_t ncleaned = 0;
    tri_finq *queue;
    bool ok;
    for (uint64_t i = 0; i < NCLEANUPS; i++) {
        struct block *b = make_block(thread, i, 1);
        HAVE(ok, tri_cleanup_add(thread, b, count_one, &ncleaned) == TRI_OK, "tri_cleanup_add");
    }
    HAVE(queue, tri_finq_new(thread), "tri_finq_new");
    collect(thread);
    while (tri_cleanup_run(thread, SIZE_MAX) > 0) {}
    CHECK_EQ(ncleaned, NCLEANUPS);
    CHECK(tri_finq_poll(thread, queue) == NULL);
}

/* What asks the system for something that it may well not have: refused, it is done without. */
static void use_the_rest(tri_thread *thread) {
    bool ok, working;
    HAVE(ok, tri_layout_stats(run.heap, NULL, 0) > 0, "tri_layout_stats");
    if (tri_heap_set(run.heap, "metadata_huge=on") != TRI_OK)
        CHECK_MSG(strstr(tri_last_error(), "metadata_huge"), "%s", tri_last_error());
    (void)tri_heap_set(run.heap, "metadata_huge=off");
    (void)tri__pageheap_populate(run.heap->mem.pages, 64, 32, &working);
    (void)make_block(thread, 0, 30000);
}

/* Every span object that was ever taken is a span, or was put back. */
static void check_span_objects(void) {
    struct memory *mem = &run.heap->mem;
    size_t n = 0, npages = atomic_load_acquire(&mem->space.committed_pages);
    for (size_t page = 0; page < npages; page++) {
        const struct span *span = mem->space.spans[page];
        n += span && span->first_page == page;
    }
    CHECK_EQ(tri__fixalloc_in_use_bytes(&mem->fix_span), n * align_up(sizeof(struct span), 8));
}

static void scenario(uint32_t flags) {
    tri_config config = fixture_config(flags);
    config.reserve_bytes = (size_t)256 << 20;
    config.min_heap_bytes = 1 << 20;
    config.workers = 2;
    tri_thread *thread;
    bool ok;
    run.step = "create";
    HAVE(ok, tri_heap_create(&config, &run.heap) == TRI_OK, "tri_heap_create");
    fixture_set(run.heap, "stress.copy=1"); /* so that stacks are copied, if the system has memory for that */
    run.step = "attach";
    attach(&thread);
    HAVE(run.range, tri_root_add(thread, run.lists, NLISTS, NULL), "tri_root_add");
    run.step = "threads";
    run_workers(thread);
    check_everything();
    run.step = "roots";
    add_roots(thread);
    collect(thread);
    check_everything();
    run.step = "locals";
    use_locals(thread);
    run.step = "growth";
    grow_and_trim(thread);
    check_everything();
    run.step = "manual";
    use_manual(thread);
    run.step = "a deep stack";
    use_a_deep_stack(thread);
    run.step = "cleanups";
    use_cleanups(thread);
    run.step = "the rest";
    use_the_rest(thread);
    check_everything();

    run.step = "end";
    tri__os_fail_at(0, 0);
    collect(thread);
    check_everything();
    CHECK_EQ(tri_verify(thread), 0);
    allocate(thread, 3, fixture_seed() + 7);
    remove_roots(thread);
    for (int i = 0; i < NLISTS; i++) tri_root_store(thread, run.range, &run.lists[i], NULL);
    for (int i = 0; i < 2; i++) collect(thread);
    CHECK_EQ(tri_walk(thread, NULL, NULL), 0);
    CHECK_EQ(tri_verify(thread), 0);
    check_span_objects();
    tri_root_remove(thread, run.range);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    CHECK_EQ(tri_heap_destroy(run.heap), TRI_OK);
    CHECK_MSG(atomic_load_acquire(&fixture_nreports) == 0, "run %" PRIu64 ": reported: %s", run.nth, fixture_report);
}

/* Runs the scenario; true if it was long enough for something to be refused. */
static bool run_refusing(uint32_t flags, uint64_t nth, uint64_t nrefusals) {
    memset(&run, 0, sizeof run);
    run.nth = nth;
    run.nrefusals = nrefusals;
    run.ncalls = calls_so_far();
    tri__os_fail_at(nth, nrefusals);
    scenario(flags);
    return calls_so_far() - run.ncalls >= nth;
}

/* What is mapped but for malloc's own, which is one contiguous piece here. */
static size_t mapped_but_malloc(void) {
    static char *first_break;
    if (!first_break) first_break = sbrk(0);
    return process_mapped_bytes() - (size_t)((char *)sbrk(0) - first_break);
}

static void wait_for_word(void *arg) {
    while (!atomic_load_acquire((uint32_t *)arg)) tri__os_sleep_ns(100000);
}

/* The C library keeps the stacks of threads that ended. Whether a second marker is called, and when, is a matter of
 * time: so there is a stack for every thread that a heap may have at once, from the beginning. */
static void keep_stacks(void) {
    struct os_thread threads[4];
    uint32_t go_on = 0;
    for (size_t i = 0; i < TRI_COUNT(threads); i++)
        CHECK(tri__os_thread_start(&threads[i], wait_for_word, &go_on, "stack"));
    atomic_store_release(&go_on, 1);
    for (size_t i = 0; i < TRI_COUNT(threads); i++) tri__os_thread_join(&threads[i]);
}

static void refuse_in_turn(uint32_t flags, uint64_t nrefusals, uint64_t stride) {
    if (TRI_CHECKS < 1) return;
    keep_stacks();
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    size_t baseline = 0;
    uint64_t k, nseen = 0, before[OS_CALL_KINDS];
    for (int i = 0; i < 3; i++) {
        CHECK(run_refusing(flags, 0, 0));
        baseline = max_size(baseline, mapped_but_malloc());
    }
    for (int kind = 0; kind < OS_CALL_KINDS; kind++) before[kind] = tri__os_ncalls((enum os_call)kind);
    for (k = 1; run_refusing(flags, k, nrefusals); k += stride) {
        nseen += run.nseen;
        CHECK_MSG(TEST_IS_SLOW || mapped_but_malloc() <= baseline, "run %" PRIu64 ": %zu bytes stay mapped", k,
                  mapped_but_malloc() - baseline);
        CHECK_MSG(k < 20000, "the scenario has no end");
    }
    CHECK_MSG(k > 30 && nseen >= (TEST_IS_SLOW ? 2 : 15),
              "%" PRIu64 " runs, and the host was told of %" PRIu64 " refusals", k, nseen);
    for (int kind = 0; kind < OS_CALL_KINDS; kind++)
        CHECK_MSG(tri__os_ncalls((enum os_call)kind) > before[kind], "no call of kind %d was made", kind);
    printf("inject: calls 1 to %" PRIu64 " refused in turn, %" PRIu64 " of which the host was told of\n", k, nseen);
}

TEST(inject, each_call_refused_once, .timeout = 600) {
    refuse_in_turn(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES, 1, TEST_IS_SLOW ? 11 : 1);
}

TEST(inject, each_call_refused_once_while_cycles_run, .timeout = 600) {
    refuse_in_turn(TRI_HEAP_PRECISE, 1, TEST_IS_SLOW ? 11 : 1);
}

TEST(inject, all_calls_refused_until_the_host_sees_it, .timeout = 600) {
    refuse_in_turn(TRI_HEAP_PRECISE, UINT64_MAX, TEST_IS_SLOW ? 11 : 1);
}

/* A default reservation is made smaller until the system agrees: one refusal costs half of it, and no more. */
TEST(inject, a_refused_default_reservation_becomes_a_smaller_one) {
    if (TRI_CHECKS < 1) return;
    tri_config config;
    tri_config_init(&config);
    config.report = fixture_on_report;
    size_t whole = 0;
    for (uint64_t k = 0; k <= 6; k++) {
        tri_heap *heap;
        tri__os_fail_at(k, 1);
        CHECK_MSG(tri_heap_create(&config, &heap) == TRI_OK, "refusal %" PRIu64 ": %s", k, tri_last_error());
        tri__os_fail_at(0, 0);
        size_t reserved = fixture_stats(heap).reserved_bytes;
        if (k == 0) whole = reserved;
        CHECK_MSG(k == 0 || (reserved >= whole / 2 - ARENA_BYTES && reserved < whole),
                  "refusal %" PRIu64 ": %zu of %zu", k, reserved, whole);
        tri_thread *thread = fixture_attach(heap);
        CHECK(tri_new(thread, &pair_type) && tri_new_bytes(thread, 100000));
        CHECK_EQ(tri_verify(thread), 0);
        CHECK_EQ(tri_detach(thread), TRI_OK);
        CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
    }
}

/* Descriptors are for the process: what is refused leaves the type as it was, to be registered again. */
TEST(inject, a_type_is_registered_after_a_refusal) {
    if (TRI_CHECKS < 1) return;
    enum { NTYPES = 40, NWORDS = 500 };
    static tri_type types[NTYPES];
    static uint64_t bitmaps[NTYPES][NWORDS / 64 + 1];
    uint64_t nrefused = 0;
    for (size_t i = 0; i < NTYPES; i++) {
        bitmaps[i][NWORDS / 64] = bitmaps[i][0] = 0x5; /* words 0 and 2, and two far ones */
        types[i] = (tri_type){.struct_size = sizeof(tri_type), .name = "refused", .size = NWORDS * 8 + 4 * 64};
        types[i].pointers = (tri_slots){bitmaps[i], NWORDS, 0, NULL};
        tri__os_fail_at(1 + i % 3, 1);
        int err = tri_type_register(&types[i]);
        if (err != TRI_OK) {
            CHECK_EQ(err, TRI_ENOMEM);
            CHECK_MSG(strstr(tri_last_error(), "refused"), "%s", tri_last_error());
            nrefused++;
        }
        tri__os_fail_at(0, 0);
        CHECK_EQ(tri_type_register(&types[i]), TRI_OK);
    }
    CHECK_MSG(nrefused >= NTYPES / 4, "%" PRIu64 " were refused", nrefused);
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    for (size_t i = 0; i < NTYPES; i++) {
        void **obj = tri_new(f.thread, &types[i]);
        CHECK(obj != NULL);
        tri_store(f.thread, obj, &obj[0], roots[0]);
        tri_store(f.thread, obj, &obj[NWORDS / 64 * 64], tri_new(f.thread, &leaf_type));
        roots[0] = obj;
    }
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 2 * NTYPES);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}
