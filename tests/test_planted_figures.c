/*
 * Planted bugs in a heap's own figures, and those that a broken invariant ends: each count, bit, list and entry that
 * tri_verify compares is made wrong once, and has to be reported by its invariant; a hole given back twice and a buffer
 * with unmarked entries end the process, by name; a write through a stale pointer shows in poisoned memory.
 */
#include "tests/held.h"
#include "tests/process.h"

#if TRI_CHECKS >= 3

/* ---- what ends the process -------------------------------------------------------------------------------------- */

static void expect_abort(void (*fn)(const void *), const char *first, const char *invariant) {
    char text[8192];
    int status = process_in_child(fn, NULL, text, sizeof text);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status 0x%x: %s", (unsigned)status, text);
    const char *at = strstr(text, first);
    CHECK_MSG(at && strstr(at, invariant) && strstr(at, "broken invariant"), "expected \"%s\", then \"%s\": %s", first,
              invariant, text);
}

static void say_begun(void) {
    fprintf(stderr, "begun\n");
    fflush(stderr);
}

/* The thing's only protection is the entry that the deletion leaves in the barrier's buffer. */
static struct thing *delete_while_marking(const struct fixture *f, void **roots) {
    struct graph g = make_graph(f, roots);
    pthread_t collect = begin_cycle(f);
    roots[1] = tri_load(&g.keeper->second);
    tri_store(f->thread, g.keeper, &g.keeper->second, NULL);
    end_cycle(f, collect);
    return g.thing;
}

static void flush_blindly_then_assert(const void *arg) {
    (void)arg;
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

static void return_a_hole_twice(const void *arg) {
    (void)arg;
    struct fixture f = open_heap(NULL, NULL);
    struct rest r = open_hole(&f);
    tri__span_return_hole(&f.heap->mem.space, r.span, r.first, r.nslots);
    say_begun();
    tri__span_return_hole(&f.heap->mem.space, r.span, r.first, r.nslots);
}

/* Once too early, and then by the thread that has it. */
static void return_a_hole_of_another(const void *arg) {
    (void)arg;
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

static void end_silently(const void *arg) {
    (void)arg;
    struct fixture f = open_heap(NULL, NULL);
    (void)open_hole(&f);
    say_begun();
    close_heap(&f);
}

TEST(planted, a_hole_given_back_once) {
    char text[1024];
    CHECK_EQ(process_in_child(end_silently, NULL, text, sizeof text), 0);
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
    CHECK(r.span->place == SPAN_LISTED && r.central->partial[r.parity][0].head == r.span);
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
    struct span_list *partial = &r.central->partial[r.parity][0], *large = &r.mem->large[r.parity];
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
    fixture_set(r.f.heap, "verify=1");
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
