/*
 * Spans between a cache and a layout's central lists: what a hole of a mixed span looks like (R15), in which order
 * spans are filled again, and who may sweep what while some threads have retired and others have not (R10, I-SPAN3). A
 * thread is held where it matters by a delay hook of the test's own in the heap's memory.
 */
#include "tests/fixture.h"

/* ---- Mixed spans ------------------------------------------------------------------------------------------------- */

/* 96 bytes and cold: in a mixed span. */
struct cold {
    void *refs[12];
};
static const uint32_t cold_slots[] = {0, 8, 16, 88};
static tri_type cold_type = {.struct_size = sizeof(tri_type),
                             .name = "cold",
                             .size = sizeof(struct cold),
                             .pointers = {.offsets = cold_slots, .noffsets = TRI_COUNT(cold_slots)}};

static const tri_hole *mixed_hole(tri_thread *thread) {
    return &thread->holes[LAYOUT_MIXED + size_class_of_scan(sizeof(struct cold))];
}

/* A slot of a hole has no layout before an object of it is returned, whatever lay there before: a conservative word
 * that names it marks it, and scans nothing (R15). */
TEST(central, a_hole_of_a_mixed_span_has_no_layouts_left) {
    enum { N = 40 };
    struct fixture f = fixture_open();
    const struct space *space = &f.heap->mem.space;
    TRI_LOCALS(f.thread, roots, 2);
    roots[0] = tri_new(f.thread, &cold_type); /* keeps the span */
    for (int i = 0; i < N; i++) CHECK(tri_new(f.thread, &cold_type) != NULL);
    for (int i = 0; i < 2; i++) fixture_collect(&f);
    roots[1] = tri_new(f.thread, &cold_type);
    const tri_hole *hole = mixed_hole(f.thread);
    const struct span *span = hole->span;
    CHECK(span != NULL && span->kind == PAGE_MIXED);
    size_t nslots = 0;
    for (uintptr_t addr = (uintptr_t)hole->cursor; addr < (uintptr_t)hole->limit; addr += hole->slot_bytes, nslots++)
        CHECK_MSG(space->layouts[(addr - space->base) >> LAYOUT_SHIFT] == 0, "slot %zu of the hole has a layout",
                  nslots);
    CHECK_MSG(nslots >= N - 2, "the hole has %zu slots", nslots);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* 48 bytes: never in a mixed span, and nobody else's layout. */
struct own {
    uint64_t number, words[5];
};
TRI_LEAF_TYPE(own_type, struct own);

/* ---- The order of refills ---------------------------------------------------------------------------------------- */

enum { SPANS = 4 * BATCH_SPANS, SLOTS = PAGE_BYTES / sizeof(struct own) };

static const struct span *span_of(tri_heap *heap, const void *obj) {
    return heap->mem.space.spans[space_page_of(&heap->mem.space, (uintptr_t)obj)];
}

static struct own *new_own(tri_thread *thread, void **array, size_t i) {
    struct own *own = tri_new(thread, &own_type);
    CHECK(own != NULL);
    tri_store(thread, array, &array[i], own);
    return own;
}

/* Spans of a tenth, a third, three fifths and four fifths, a batch of each in turn: the fullest are taken first, a
 * batch at a time, and no fresh one before all of them are full. */
TEST(central, the_fullest_spans_are_filled_first) {
    static const uint32_t kept_of_20[NUM_FILLS] = {2, 7, 12, 17};
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    void **array = roots[0] = tri_new_n(f.thread, &array_type, (size_t)SPANS * SLOTS);
    for (size_t i = 0; i < SPANS * SLOTS; i++) new_own(f.thread, array, i);
    for (size_t i = 0; i < SPANS * SLOTS; i++) {
        const struct span *span = span_of(f.heap, array[i]);
        CHECK(span->nslots == SLOTS && span->npages == 1);
        if (i % SLOTS % 20 >= kept_of_20[span->first_page % NUM_FILLS]) tri_store(f.thread, array, &array[i], NULL);
    }
    fixture_collect(&f);
    const struct span *last = NULL;
    size_t nspans = 0;
    for (size_t i = 0; i < SPANS * SLOTS; i++) {
        if (array[i]) continue;
        const struct span *span = span_of(f.heap, new_own(f.thread, array, i));
        if (span == last) continue;
        last = span;
        size_t fill = NUM_FILLS - 1 - nspans++ / BATCH_SPANS;
        CHECK_MSG(nspans <= SPANS, "a fresh span, or one for the second time");
        CHECK_MSG(span->first_page % NUM_FILLS == fill, "the %zu. span was of quarter %zu, not %zu", nspans,
                  span->first_page % NUM_FILLS, fill);
    }
    CHECK_EQ(nspans, SPANS);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* Spans in which something of the type lives. */
static size_t count_spans(tri_heap *heap, void *const *array, size_t n) {
    static uint8_t seen[1 << 16];
    size_t nspans = 0;
    memset(seen, 0, sizeof seen);
    for (size_t i = 0; i < n; i++) {
        size_t page = array[i] ? span_of(heap, array[i])->first_page : 0;
        CHECK(page < sizeof seen);
        nspans += array[i] && !seen[page];
        seen[page] |= array[i] != NULL;
    }
    return nspans;
}

/* A fifth of many spans lives, at random, and a fifth of that is replaced from cycle to cycle: the sparse spans, from
 * which nothing is allocated, lose what they have. Measured: 48 spans stay for what fits into 40; 72 to 76 where spans
 * lie in one list, the last one first; 106 to 112 where the emptiest are taken first. */
TEST(central, sparse_spans_drain) {
    enum { MANY = 200, LIVE = MANY * SLOTS / 5, CYCLES = 60, DIE = LIVE / 5 };
    struct fixture f = fixture_open();
    uint64_t random = fixture_seed();
    TRI_LOCALS(f.thread, roots, 1);
    void **array = roots[0] = tri_new_n(f.thread, &array_type, (size_t)MANY * SLOTS);
    for (size_t i = 0; i < MANY * SLOTS; i++) new_own(f.thread, array, i);
    for (size_t n = MANY * SLOTS; n > LIVE;) {
        size_t i = fixture_random(&random) % (MANY * SLOTS);
        n -= array[i] != NULL;
        tri_store(f.thread, array, &array[i], NULL);
    }
    fixture_collect(&f);
    size_t before = count_spans(f.heap, array, MANY * SLOTS), pages = fixture_stats(f.heap).committed_bytes;
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        for (size_t n = 0; n < DIE;) {
            size_t i = fixture_random(&random) % (MANY * SLOTS);
            if (array[i]) new_own(f.thread, array, i), n++;
        }
        fixture_collect(&f);
    }
    size_t after = count_spans(f.heap, array, MANY * SLOTS);
    printf("central: %zu spans for what fits into %d, %zu after %d cycles\n", before, MANY / 5, after, CYCLES);
    CHECK_MSG(before > MANY / 10 * 9 && after <= MANY / 5 * 3 / 2, "%zu spans, then %zu", before, after);
    CHECK(fixture_stats(f.heap).committed_bytes <= pages);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- Generations ------------------------------------------------------------------------------------------------- */

#if TRI_CHECKS >= 1

enum { OLD = 3000, NEW = 1000 };

struct late {
    tri_heap *heap;
    tri_thread *thread;
    void *object; /* what its allocation gave */
    uint32_t attached, disarmed, held, go_on, done, quit;
};
static struct late late;
static _Thread_local uint32_t delays_to_hold; /* the n-th delay from here on stops this thread */

static void hold_the_late_one(void *context) {
    (void)context;
    if (delays_to_hold == 0 || --delays_to_hold > 0) return;
    atomic_store_release(&late.held, 1);
    while (!atomic_load_acquire(&late.go_on)) sched_yield();
}

/* Answers H5, and then stops inside an allocation, after it has seen that the generation is its own. */
static void *allocate_late(void *arg) {
    struct late *l = arg;
    tri_thread *thread = l->thread = fixture_attach(l->heap);
    const struct mutator *m = mutator_of(thread);
    TRI_LOCALS(thread, roots, 1);
    atomic_store_release(&l->attached, 1);
    while (!m->armed) tri_poll(thread);
    while (m->armed) tri_poll(thread);
    delays_to_hold = 1; /* the one in tri__central_exchange */
    struct own *own = roots[0] = tri_new(thread, &own_type);
    CHECK(own != NULL && atomic_load_acquire(&l->held));
    own->number = ~0ull;
    l->object = own;
    atomic_store_release(&l->done, 1);
    while (!atomic_load_acquire(&l->quit)) tri_poll(thread);
    CHECK_EQ(own->number, ~0ull);
    TRI_POP(thread, roots);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

static void *collect_once(void *arg) {
    struct fixture f = {arg, fixture_attach(arg)};
    fixture_collect(&f);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    return NULL;
}

static void make(tri_thread *thread, struct own **array, size_t from, size_t n) {
    for (size_t i = from; i < from + n; i++) {
        struct own *own = tri_new(thread, &own_type);
        CHECK(own != NULL);
        own->number = i;
        tri_store(thread, array, &array[i], own);
    }
}

static size_t count_full(tri_heap *heap, unsigned parity) {
    struct central *central = heap->mem.centrals[own_type.layout];
    tri__lock_acquire(&central->lock);
    size_t n = central->full[parity].nspans;
    tri__lock_release(&central->lock);
    return n;
}

/* A thread that has not retired looks for an unswept span of the generation before its own, in the very lists into
 * which the retired ones file what they have swept already, a generation ahead of it. Sweeping one of those again would
 * free everything in it, since its marks are cleared. */
TEST(central, a_late_thread_leaves_spans_alone_that_are_a_generation_ahead, .timeout = 60) {
    struct fixture f = fixture_open();
    struct mutator *m = mutator_of(f.thread);
    TRI_LOCALS(f.thread, roots, 1);
    struct own **array = roots[0] = tri_new_n(f.thread, &array_type, OLD + NEW + 1);
    make(f.thread, array, 0, OLD); /* full spans, and a partial one that this thread keeps */
    fixture_collect(&f);
    make(f.thread, array, OLD, 1);
    late = (struct late){.heap = f.heap};
    pthread_t other, collect;
    CHECK_EQ(pthread_create(&other, NULL, allocate_late, &late), 0);
    while (!atomic_load_acquire(&late.attached)) tri_poll(f.thread);
    f.heap->mem.hooks.delay = hold_the_late_one; /* nobody allocates now */
    CHECK_EQ(pthread_create(&collect, NULL, collect_once, f.heap), 0);

    /* Up to H5, which the other answers first and this thread not before the other stands still. */
    uint32_t gen = atomic_load_relaxed(&f.heap->mem.gen);
    fixture_answer_before(f.heap, f.thread, STEP_DISARM);
    while (!atomic_load_acquire(&late.held)) sched_yield();
    CHECK_EQ(atomic_load_relaxed(&f.heap->mem.gen), gen);
    while (m->cache.gen == gen) tri_poll(f.thread); /* H5, the flip, H6 */
    CHECK_EQ(atomic_load_acquire(&f.heap->mem.gen), gen + 1);
    make(f.thread, array, OLD + 1, NEW); /* sweeps full spans as it goes */
    CHECK_MSG(count_full(f.heap, (gen + 1) & 1) > 0, "this thread has swept nothing that is full");
    atomic_store_release(&late.go_on, 1);
    while (!atomic_load_acquire(&late.done)) tri_poll(f.thread);

    for (size_t i = 0; i < OLD + 1 + NEW; i++) {
        CHECK_MSG(is_alive(f.heap, hide(array[i])), "object %zu is gone", i);
        CHECK_MSG(array[i]->number == i && array[i] != late.object, "object %zu has become %llu", i,
                  (unsigned long long)array[i]->number);
    }
    atomic_store_release(&late.quit, 1);
    fixture_join(f.thread, other);
    fixture_join(f.thread, collect);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), OLD + 1 + NEW + 1);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

#else

TEST(central, delays_need_checks) {
    struct fixture f = fixture_open();
    CHECK(f.heap->mem.hooks.delay == NULL);
    fixture_close(&f);
}

#endif

/* ---- Many layouts ---- */

enum { LAYOUTS = 600, WORDS = 16 };
static tri_type layout_types[LAYOUTS];
static uint32_t layout_slots[LAYOUTS][WORDS], nlooks;

static void count_look(void *context) {
    (void)context;
    atomic_add_relaxed(&nlooks, 1);
}

/* An object in a span of its own layout, which is told to be hot. */
static void *new_of_layout(struct fixture *f, uint32_t number) {
    uint32_t n = 0;
    for (uint32_t word = 0; word < WORDS - 1; word++)
        if (number >> word & 1) layout_slots[number][n++] = word * 8;
    layout_slots[number][n++] = (WORDS - 1) * 8; /* none without a slot */
    layout_types[number] = (tri_type){.struct_size = sizeof(tri_type),
                                      .name = "many",
                                      .size = WORDS * 8,
                                      .pointers = {.offsets = layout_slots[number], .noffsets = n}};
    CHECK(tri_new(f->thread, &layout_types[number]) != NULL);
    f->heap->cold_bytes[layout_types[number].layout] = UINT32_MAX; /* it counts no further */
    return tri_new(f->thread, &layout_types[number]);
}

/* The sweep goes on where it stopped. While it began with the first list for every 64 spans, each cycle of a program
 * with many types cost types times spans: 4,074 looks here. Each list is looked at for its span and for its end. */
TEST(central, a_sweep_looks_at_each_list_once) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    void **array = roots[0] = tri_new_n(f.thread, &array_type, LAYOUTS);
    for (uint32_t i = 0; i < LAYOUTS; i++) {
        void *obj = new_of_layout(&f, i);
        CHECK(obj != NULL && span_of(f.heap, obj)->layout == layout_types[i].layout);
        tri_store(f.thread, array, &array[i], obj);
    }
    fixture_collect(&f);
    f.heap->mem.hooks.delay = count_look;
    uint64_t swept = atomic_load_relaxed(&f.heap->mem.swept_spans);
    fixture_collect(&f);
    swept = atomic_load_relaxed(&f.heap->mem.swept_spans) - swept;
    f.heap->mem.hooks.delay = NULL;
    uint32_t n = atomic_load_relaxed(&nlooks);
    printf("central: %u looks for %llu spans of %d layouts\n", n, (unsigned long long)swept, LAYOUTS);
    CHECK_MSG(swept >= LAYOUTS && n >= LAYOUTS && n <= 3 * LAYOUTS, "%u looks for %llu spans", n,
              (unsigned long long)swept);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- Large objects ---- */

static bool is_zero(const unsigned char *bytes, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; i++)
        if (bytes[i]) return false;
    return true;
}

static size_t ready_pages(tri_heap *heap) {
    tri__lock_acquire(&heap->mem.large_lock);
    size_t npages = heap->mem.ready.npages;
    tri__lock_release(&heap->mem.large_lock);
    return npages;
}

TEST(central, pages_of_dead_buffers_lie_ready_for_the_next_ones) {
    enum { BUFFERS = 12, BUFFER_PAGES = 8, BUFFER_BYTES = BUFFER_PAGES * PAGE_BYTES };
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    void *buffers[BUFFERS];
    uintptr_t lowest = UINTPTR_MAX, highest = 0;
    fixture_collect(&f);
    for (int i = 0; i < BUFFERS; i++) {
        buffers[i] = tri_new_bytes(f.thread, BUFFER_BYTES);
        memset(buffers[i], 0xff, BUFFER_BYTES);
        lowest = min_size(lowest, (uintptr_t)buffers[i]);
        highest = max_size(highest, (uintptr_t)buffers[i]);
    }
    for (int i = 0; i < BUFFERS; i++) CHECK_EQ(tri_free(f.thread, buffers[i]), TRI_OK);
    CHECK_EQ(tri_verify(f.thread), 0);
    CHECK_EQ(ready_pages(f.heap), BUFFERS * BUFFER_PAGES);
    for (int i = 0; i < BUFFERS; i++) { /* with references, so zeroed, in the same pages */
        unsigned char *array = tri_new_n(f.thread, &array_type, BUFFER_BYTES / 8);
        CHECK((uintptr_t)array >= lowest && (uintptr_t)array <= highest);
        CHECK(is_zero(array, BUFFER_BYTES));
    }
    CHECK_EQ(ready_pages(f.heap), 0);
    void *more = tri_new_bytes(f.thread, BUFFER_BYTES), *larger = tri_new_bytes(f.thread, BUFFER_BYTES * 2 + 1);
    CHECK_EQ(tri_free(f.thread, more), TRI_OK);
    CHECK_EQ(tri_free(f.thread, larger), TRI_OK); /* goes to the page heap */
    CHECK_EQ(ready_pages(f.heap), BUFFER_PAGES);
    size_t used = fixture_stats(f.heap).committed_bytes;
    tri_trim(f.heap);
    CHECK_EQ(ready_pages(f.heap), 0);
    CHECK_EQ(fixture_stats(f.heap).committed_bytes + BUFFER_BYTES, used);
    CHECK_EQ(tri_verify(f.thread), 0);
    fixture_close(&f);
}
