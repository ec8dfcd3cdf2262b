/*
 * Copies of deep stacks: what a copied stack names lives, wherever its thread has put it by the time the copy is
 * shaded; what it does not name dies. The memory of copies is there before the handshake, is counted, and goes back.
 *
 * A cycle is held between two answers to its scan step by a thread that has not answered yet: the test's own. Another
 * one, which has answered, is black meanwhile, and its copy is unshaded.
 */
#include "tests/held.h"
#include "tests/process.h"

#include <sys/resource.h>

#include "gc/stackcopy.h"

enum { DEEP = TEST_IS_SLOW ? 40000 : 200000, CHUNK_BYTES = 64 << 10 };

static uint64_t ncopied(tri_heap *heap) {
    tri__lock_acquire(&heap->copies.lock);
    uint64_t n = heap->copies.ncopied;
    tri__lock_release(&heap->copies.lock);
    return n;
}

static size_t copies_bytes(tri_heap *heap) {
    return tri__copies_bytes(heap);
}

/* A value stack of n words in which every seventh names an object, and the objects' complements. */
struct deep {
    size_t n;
    tri_word *words, *top;
    uintptr_t *hidden;
    tri_vmstack *stack;
};

static const tri_enc boxed = {0xfffc000000000000u, 0xfffc000000000000u, ~0ull, 0x0000ffffffffffffu};

static struct deep *deep_open(struct fixture *f, size_t n, const tri_enc *enc) {
    struct deep *d = calloc(1, sizeof *d);
    d->n = n;
    d->words = calloc(n, sizeof *d->words);
    d->hidden = calloc(n / 7 + 1, sizeof *d->hidden);
    d->top = d->words;
    d->stack = tri_vmstack_add(f->thread, d->words, &d->top, enc);
    CHECK(d->stack != NULL);
    for (size_t i = 0; i < n; i++) {
        d->words[i] = i; /* no reference, in either reading */
        if (i % 7 == 0) d->words[i] = (enc ? enc->tag : 0) | (tri_word) ~(d->hidden[i / 7] = fixture_new_hidden(f));
        d->top = d->words + i + 1;
    }
    return d;
}

static void deep_close(struct fixture *f, struct deep *d) {
    tri_vmstack_remove(f->thread, d->stack);
    free(d->words);
    free(d->hidden);
    free(d);
}

static void deep_expect(struct fixture *f, const struct deep *d, size_t nwords) {
    for (size_t i = 0; i < d->n; i += 7)
        CHECK_MSG(is_alive(f->heap, d->hidden[i / 7]) == (i < nwords), "word %zu of %zu", i, nwords);
}

TEST(stackcopy, value_stacks_of_every_encoding_keep_what_they_name) {
    struct fixture f = open_heap("checkmark=1", NULL);
    struct deep *d[] = {deep_open(&f, DEEP, NULL), deep_open(&f, DEEP, &boxed), deep_open(&f, 100, NULL)};
    CHECK_EQ(ncopied(f.heap), 0);
    for (int round = 0; round < 3; round++) {
        uint64_t before = ncopied(f.heap);
        fixture_collect(&f);
        CHECK(ncopied(f.heap) - before >= 2 * DEEP * 8 / CHUNK_BYTES);
        for (size_t i = 0; i < TRI_COUNT(d); i++) deep_expect(&f, d[i], d[i]->n);
    }
    d[0]->top = d[0]->words + DEEP / 2;
    fixture_collect(&f);
    deep_expect(&f, d[0], DEEP / 2);
    deep_expect(&f, d[1], DEEP);
    for (size_t i = 0; i < TRI_COUNT(d); i++) deep_close(&f, d[i]);
    close_heap(&f);
}

static __attribute__((noinline)) void with_deep_native(struct fixture *f, size_t depth) {
    volatile uintptr_t words[512];
    uintptr_t hidden = fixture_new_hidden(f);
    for (size_t i = 0; i < TRI_COUNT(words); i++) words[i] = i;
    words[depth % 512] = ~hidden + (depth & 1) * sizeof(struct leaf); /* an address past its end, too */
    if (depth > 0) {
        with_deep_native(f, depth - 1);
    } else {
        uint64_t before = ncopied(f->heap);
        for (int i = 0; i < 2; i++) fixture_collect(f);
        CHECK(ncopied(f->heap) - before >= 2 * 60 * sizeof words / CHUNK_BYTES);
    }
    CHECK(is_alive(f->heap, hidden));
    CHECK_EQ(words[(depth + 1) % 512], (depth + 1) % 512);
    words[depth % 512] = 0;
}

TEST(stackcopy, native_stacks_keep_what_they_name) {
    struct fixture f = fixture_open_flags(TRI_HEAP_NO_CYCLES);
    with_deep_native(&f, 100);
    fixture_close(&f);
}

static void *call_in_blocking(void *arg) {
    struct fixture *f = arg;
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, collect_main, f->heap), 0);
    pthread_join(other, NULL);
    return NULL;
}

TEST(stackcopy, a_blocked_threads_stacks_are_copied_for_it) {
    struct fixture f = open_heap("checkmark=1", NULL);
    struct deep *d = deep_open(&f, DEEP, NULL);
    uint64_t before = ncopied(f.heap);
    tri_blocking(f.thread, call_in_blocking, &f);
    CHECK(ncopied(f.heap) > before);
    deep_expect(&f, d, DEEP);
    deep_close(&f, d);
    close_heap(&f);
}

TEST(stackcopy, many_local_handles_are_copied) {
    struct fixture f = open_heap("checkmark=1", NULL);
    uint32_t mark = tri_scope_open(f.thread);
    static uintptr_t hidden[8000];
    for (size_t i = 0; i < TRI_COUNT(hidden); i++)
        CHECK(tri_local(f.thread, reveal(hidden[i] = fixture_new_hidden(&f))) != NULL);
    fixture_collect(&f);
    CHECK(ncopied(f.heap) > 0);
    for (size_t i = 0; i < TRI_COUNT(hidden); i++) CHECK(is_alive(f.heap, hidden[i]));
    tri_scope_close(f.thread, mark);
    close_heap(&f);
}

/* What a deep recursion leaves: a chain of small frames, and one that fills a chunk alone. */
struct chain {
    tri_frame frame;
    void *slots[2];
};

static struct chain *push_chain(struct fixture *f, size_t n, uintptr_t *hidden) {
    struct chain *chain = calloc(n, sizeof *chain);
    CHECK(chain != NULL);
    for (size_t i = 0; i < n; i++) {
        chain[i].frame = (tri_frame){NULL, i % 3, chain[i].slots}; /* of 0, 1 and 2 slots */
        tri_frame_push(f->thread, &chain[i].frame);
        if (i % 3) chain[i].slots[i % 3 - 1] = reveal(hidden[i] = fixture_new_hidden(f));
    }
    return chain;
}

TEST(stackcopy, long_chains_of_frames_are_copied) {
    enum { NFRAMES = TEST_IS_SLOW ? 20000 : 100000, NWIDE = 20000 };
    struct fixture f = open_heap("checkmark=1", NULL);
    uintptr_t *hidden = calloc(NFRAMES + NWIDE, sizeof *hidden);
    struct chain *chain = push_chain(&f, NFRAMES, hidden);
    TRI_LOCALS(f.thread, wide, NWIDE);
    for (size_t i = 0; i < NWIDE; i++) wide[i] = reveal(hidden[NFRAMES + i] = fixture_new_hidden(&f));
    fixture_collect(&f);
    CHECK_MSG(ncopied(f.heap) * (CHUNK_BYTES / 8) >= NFRAMES + NWIDE, "%llu chunks",
              (unsigned long long)ncopied(f.heap));
    for (size_t i = 0; i < NFRAMES + NWIDE; i++) CHECK(!hidden[i] || is_alive(f.heap, hidden[i]));
    TRI_POP(f.thread, wide);
    for (size_t i = NFRAMES; i-- > 0;) tri_frame_pop(f.thread, &chain[i].frame);
    fixture_collect(&f);
    for (size_t i = 0; i < NFRAMES + NWIDE; i++) CHECK(!hidden[i] || !is_alive(f.heap, hidden[i]));
    free(chain);
    free(hidden);
    close_heap(&f);
}

/* ---- the memory of copies --------------------------------------------------------------------------------------- */

TEST(stackcopy, memory_is_counted_and_goes_back_after_some_cycles_or_on_request) {
    struct fixture f = fixture_open();
    struct deep *d = deep_open(&f, DEEP, NULL);
    fixture_collect(&f);
    size_t bytes = copies_bytes(f.heap);
    CHECK(bytes >= DEEP * 8 && bytes <= DEEP * 8 * 3 / 2 + 2 * CHUNK_BYTES);
    size_t with = fixture_stats(f.heap).metadata_bytes;
    tri_trim(f.heap);
    CHECK_EQ(copies_bytes(f.heap), 0);
    CHECK(fixture_stats(f.heap).metadata_bytes <= with - bytes);
    fixture_collect(&f);
    CHECK_EQ(copies_bytes(f.heap), bytes);
    deep_close(&f, d);
    for (int i = 0; i < COPY_CYCLES + 1; i++) {
        if (i < 3) CHECK_EQ(copies_bytes(f.heap), bytes); /* it may be needed again */
        fixture_collect(&f);
    }
    CHECK_EQ(copies_bytes(f.heap), 0);
    fixture_close(&f);
}

TEST(stackcopy, without_memory_stacks_are_scanned_in_place) {
#if TRI_CHECKS >= 1
    struct fixture f = open_heap("checkmark=1", NULL);
    struct deep *d = deep_open(&f, DEEP, &boxed);
    fixture_collect(&f); /* its other memory is there from now on */
    tri_trim(f.heap);
    uint64_t before = ncopied(f.heap);
    tri__os_fail_at(1, 1000);
    int err = tri_collect(f.thread);
    tri__os_fail_at(0, 0);
    CHECK_EQ(err, TRI_OK);
    deep_expect(&f, d, DEEP);
    CHECK_EQ(ncopied(f.heap), before);
    forget_reports(); /* checkmark had no memory either */
    deep_close(&f, d);
    close_heap(&f);
#endif
}

/* How many chunks are copied of a stack that had so many words when it was asked for, and DEEP when it is scanned. */
static uint64_t copied_of_grown(size_t nwords) {
    struct fixture f = open_heap("checkmark=1", NULL);
    struct deep *d = deep_open(&f, DEEP, NULL);
    d->top = d->words + nwords;
    pthread_t collect;
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    fixture_answer_before(f.heap, f.thread, STEP_SCAN);
    d->top = d->words + DEEP;
    uint64_t before = ncopied(f.heap);
    tri_poll(f.thread);
    uint64_t copied = ncopied(f.heap) - before;
    fixture_join(f.thread, collect);
    deep_expect(&f, d, DEEP);
    deep_close(&f, d);
    close_heap(&f);
    return copied;
}

/* A part of the chunks only: the rest is scanned in place. */
TEST(stackcopy, what_grows_after_it_was_asked_for_is_scanned_too) {
    uint64_t copied = copied_of_grown(DEEP / 4);
    CHECK(copied > 0 && copied < DEEP * 8 / CHUNK_BYTES);
}

/* A quarter more is there than was asked for. */
TEST(stackcopy, what_grows_by_a_fifth_after_it_was_asked_for_is_copied) {
    CHECK(copied_of_grown(DEEP / 6 * 5) >= DEEP * 8 / CHUNK_BYTES);
}

/* Page faults of this thread's scan of 8 MB, into chunks that are new. */
static size_t faults_of_a_scan(struct fixture *f, size_t stack_bytes) {
    struct rusage before, after;
    pthread_t collect;
    tri_trim(f->heap);
    CHECK_EQ(copies_bytes(f->heap), 0);
    uint64_t copied = ncopied(f->heap);
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f->heap), 0);
    fixture_answer_before(f->heap, f->thread, STEP_SCAN);
    CHECK_EQ(getrusage(RUSAGE_THREAD, &before), 0);
    tri_poll(f->thread);
    CHECK_EQ(getrusage(RUSAGE_THREAD, &after), 0);
    fixture_join(f->thread, collect);
    CHECK(ncopied(f->heap) - copied >= stack_bytes / CHUNK_BYTES);
    return (size_t)(after.ru_minflt - before.ru_minflt);
}

TEST(stackcopy, a_scan_meets_no_page_fault_in_its_copy) {
    enum { WORDS = 1 << 20, ROUNDS = 5 };
    if (TEST_IS_SLOW) return; /* what they keep of the chunks is in the figure */
    process_without_huge_pages();
    struct fixture f = open_heap(NULL, NULL);
    tri_word *words = malloc(WORDS * sizeof *words), *top = words + WORDS;
    for (size_t i = 0; i < WORDS; i++) words[i] = i;
    tri_vmstack *stack = tri_vmstack_add(f.thread, words, &top, NULL);
    size_t least = SIZE_MAX, npages = WORDS * sizeof *words / tri__os_page_size();
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = faults_of_a_scan(&f, WORDS * sizeof *words);
        if (n < least) least = n; /* the system may take its time to look at pages, too */
    }
    printf("%zu page faults in a scan that copies %zu pages\n", least, npages);
    CHECK_MSG(least < npages / 8, "%zu page faults, %zu pages", least, npages);
    tri_vmstack_remove(f.thread, stack);
    free(words);
    close_heap(&f);
}

/* ---- what happens between the copy and its shading -------------------------------------------------------------- */

enum mover { MOVE_OWN, MOVE_DETACH, MOVE_RESUMED, MOVE_TOUCHED, NUM_MOVERS };

struct moving {
    tri_heap *heap;
    enum mover how;
    struct deep *deep;  /* of the test's thread, suspended: MOVE_RESUMED, MOVE_TOUCHED */
    tri_handle to;      /* a pair */
    uintptr_t hidden;   /* what was moved */
    uint32_t moved, go; /* [atomic] */
};

/* Takes an object from the deep stack, which is copied and not shaded, into a new object, which is black; no store of
 * this shades it. */
static void move(struct moving *m, tri_thread *thread, struct deep *d) {
    struct pair *pair = tri_new(thread, &pair_type);
    m->hidden = d->hidden[DEEP / 14];
    tri_init(thread, pair, &pair->left, reveal(m->hidden));
    tri_global_set(thread, m->to, pair);
    memset(d->words, 0, d->n * sizeof *d->words);
}

static void *mover_main(void *arg) {
    struct moving *m = arg;
    struct fixture f = {m->heap, fixture_attach(m->heap)};
    bool own = m->how == MOVE_OWN || m->how == MOVE_DETACH;
    struct deep *d = own ? deep_open(&f, DEEP, NULL) : m->deep;
    atomic_store_release(&m->go, 1);
    struct mutator *mut = mutator_of(f.thread);
    while (!mut->armed || mut->grey_stack) tri_poll(f.thread); /* until it has answered the scan */
    if (m->how == MOVE_RESUMED) CHECK_EQ(tri_vmstack_resume(f.thread, d->stack), TRI_OK);
    if (m->how == MOVE_TOUCHED) CHECK_EQ(tri_vmstack_touch(f.thread, d->stack), TRI_OK);
    move(m, f.thread, d);
    if (own) deep_close(&f, d);
    if (m->how == MOVE_RESUMED) CHECK_EQ(tri_vmstack_suspend(f.thread, d->stack), TRI_OK);
    if (m->how == MOVE_DETACH) CHECK_EQ(tri_detach(f.thread), TRI_OK);
    atomic_store_release(&m->moved, 1);
    if (m->how == MOVE_DETACH) return NULL;
    while (atomic_load_acquire(&m->go) != 2) tri_poll(f.thread);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

static void move_between(enum mover how, bool fault) {
    struct fixture f = open_heap("checkmark=1", fault ? "fault=lose_copy" : NULL);
    struct moving m = {.heap = f.heap, .how = how, .to = tri_global(f.thread, NULL)};
    bool own = how == MOVE_OWN || how == MOVE_DETACH;
    if (!own) {
        m.deep = deep_open(&f, DEEP, NULL);
        CHECK_EQ(tri_vmstack_suspend(f.thread, m.deep->stack), TRI_OK);
    }
    pthread_t mover, collect;
    CHECK_EQ(pthread_create(&mover, NULL, mover_main, &m), 0);
    while (atomic_load_acquire(&m.go) != 1) sched_yield();
    CHECK_EQ(pthread_create(&collect, NULL, collect_main, f.heap), 0);
    fixture_answer_before(f.heap, f.thread, STEP_SCAN);
    while (!atomic_load_acquire(&m.moved)) sched_yield();
    CHECK(tri__copies_are_shaded(f.heap) == false); /* the cycle waits for this thread's answer */
    fixture_join(f.thread, collect);
    if (fault)
        CHECK_MSG(ntold > 0 && strstr(told, "was missed"), "%u reports: %s", ntold, told);
    else
        expect_silence();
    CHECK_EQ(is_alive(f.heap, m.hidden), !fault);
    atomic_store_release(&m.go, 2);
    fixture_join(f.thread, mover);
    tri_global_free(f.thread, m.to);
    if (!own) deep_close(&f, m.deep);
    fixture_set(f.heap, "fault=none");
    forget_reports();
    close_heap(&f);
}

TEST(stackcopy, what_leaves_a_stack_after_its_copy_lives) {
    for (int how = 0; how < NUM_MOVERS; how++) move_between((enum mover)how, false);
}

TEST(stackcopy, a_copy_that_is_lost_is_reported) {
#if TRI_CHECKS >= 1
    for (int how = 0; how < NUM_MOVERS; how++) move_between((enum mover)how, true);
#endif
}

/* ---- without a collector's thread -------------------------------------------------------------------------------- */

TEST(stackcopy, a_heap_without_workers_copies_in_its_steps) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.report = on_report;
    config.workers = 0;
    forget_reports();
    struct fixture f = fixture_open_config(&config);
#if TRI_CHECKS >= 1
    fixture_set(f.heap, "checkmark=1");
#endif
    struct deep *d = deep_open(&f, DEEP, &boxed);
    for (int i = 0; i < 2; i++) {
        fixture_collect(&f);
        deep_expect(&f, d, DEEP);
    }
    CHECK(ncopied(f.heap) >= 2 * DEEP * 8 / CHUNK_BYTES);
    deep_close(&f, d);
    close_heap(&f);
}
