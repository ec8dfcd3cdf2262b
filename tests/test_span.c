/*
 * Spans on their own, in a memory without a heap around it: what a sweep keeps, the runs of free slots, holes that are
 * given back, and the way from every address of a page to its slot.
 */
#include "tests/fixture.h"

static void memory_open(struct memory *mem) {
    struct alloc_hooks hooks = {0};
    CHECK(tri__memory_init(mem, (size_t)64 * MIB, &hooks));
}

/* A published span of 16-byte slots of pointer-free bytes, held by the test. */
static struct span *span_open(struct memory *mem, unsigned class_index) {
    bool dirty;
    size_t first;
    struct span *span = tri__memory_new_span(mem, tri__size_classes[class_index].npages, NULL, &dirty, &first);
    CHECK(span != NULL);
    tri__span_format_small(span, first, class_index, LAYOUT_BYTES + class_index, SPAN_LEAF, false, dirty);
    atomic_store_relaxed(&span->gen, 0);
    tri__span_publish(&mem->space, span);
    return span;
}

static bool allocated(struct memory *mem, struct span *span, uint32_t index) {
    struct slot slot = span_slot(&mem->space, span, index);
    return space_is_allocated(&mem->space, &slot);
}

static void set_mark(struct memory *mem, struct span *span, uint32_t index) {
    struct slot slot = span_slot(&mem->space, span, index);
    CHECK(space_set_mark(&mem->space, &slot));
    CHECK(!space_set_mark(&mem->space, &slot)); /* the second one says that it was set */
}

TEST(span, sweep_keeps_marked_slots) {
    struct memory mem;
    memory_open(&mem);
    for (unsigned class_index = 1; class_index < NUM_SIZE_CLASSES; class_index++) {
        struct span *span = span_open(&mem, class_index);
        uint32_t first, n = tri__span_find_free(&mem.space, span, span->nslots, &first);
        CHECK_EQ(first, 0);
        CHECK_EQ(n, span->nslots);
        tri__span_take_hole(&mem.space, span, first, n, false);
        CHECK_EQ(tri__span_count_alloc(&mem.space, span), span->nslots);
        CHECK_EQ(tri__span_count_marks(&mem.space, span), 0);
        uint32_t kept = 0;
        for (uint32_t i = 0; i < span->nslots; i += 3, kept++) set_mark(&mem, span, i);
        CHECK_EQ(tri__span_count_marks(&mem.space, span), kept);
        CHECK_EQ(tri__span_sweep(&mem.space, span, 1, false), span->nslots - kept);
        CHECK_EQ(span->nalloc, kept);
        CHECK_EQ(tri__span_count_marks(&mem.space, span), 0);
        for (uint32_t i = 0; i < span->nslots; i++)
            CHECK_MSG(allocated(&mem, span, i) == (i % 3 == 0), "class %u slot %u", class_index, i);
    }
    tri__memory_fini(&mem);
}

TEST(span, holes_are_the_free_runs_in_order) {
    struct memory mem;
    memory_open(&mem);
    for (unsigned class_index = 1; class_index <= 12; class_index++) {
        struct span *span = span_open(&mem, class_index);
        tri__span_take_hole(&mem.space, span, 0, span->nslots, false);
        uint64_t seed = fixture_seed() + class_index;
        bool live[1024] = {false};
        for (uint32_t i = 0; i < span->nslots; i++)
            if (fixture_random(&seed) % 3 == 0) live[i] = true, set_mark(&mem, span, i);
        tri__span_sweep(&mem.space, span, 1, false);
        uint32_t next = 0, first, n, max_slots = 7;
        while ((n = tri__span_find_free(&mem.space, span, max_slots, &first)) > 0) {
            CHECK(n <= max_slots);
            for (; next < first; next++) CHECK_MSG(live[next], "class %u: free slot %u passed over", class_index, next);
            for (; next < first + n; next++) CHECK_MSG(!live[next], "class %u: live slot %u given", class_index, next);
            tri__span_take_hole(&mem.space, span, first, n, false);
        }
        for (; next < span->nslots; next++) CHECK(live[next]);
        CHECK_EQ(span->nalloc, span->nslots);
    }
    tri__memory_fini(&mem);
}

TEST(span, a_hole_given_back_is_free_and_unmarked) {
    struct memory mem;
    memory_open(&mem);
    for (unsigned class_index = 1; class_index < NUM_SIZE_CLASSES; class_index++) {
        struct span *span = span_open(&mem, class_index);
        uint32_t half = span->nslots / 2;
        tri__span_take_hole(&mem.space, span, 0, span->nslots, true); /* a black hole */
        CHECK_EQ(tri__span_count_marks(&mem.space, span), span->nslots);
        tri__span_return_hole(&mem.space, span, half, span->nslots - half);
        CHECK_EQ(tri__span_count_alloc(&mem.space, span), half);
        CHECK_EQ(tri__span_count_marks(&mem.space, span), half);
        CHECK_EQ(span->nalloc, half);
        uint32_t first, n = tri__span_find_free(&mem.space, span, span->nslots, &first);
        CHECK_EQ(first, half);
        CHECK_EQ(n, span->nslots - half);
    }
    tri__memory_fini(&mem);
}

TEST(span, every_page_leads_to_its_slots) {
    struct memory mem;
    memory_open(&mem);
    for (unsigned class_index = 1; class_index < NUM_SIZE_CLASSES; class_index++) {
        struct span *span = span_open(&mem, class_index);
        uintptr_t base = span_base(&mem.space, span);
        for (uintptr_t addr = base; addr < base + span->npages * PAGE_BYTES; addr += 4) {
            struct slot slot;
            size_t index = (addr - base) / span->slot_bytes;
            bool found = space_find_slot(&mem.space, addr, &slot);
            CHECK_MSG(found == (index < span->nslots), "class %u offset %zu: tail waste and slots", class_index,
                      (size_t)(addr - base));
            if (found) CHECK_EQ(slot.addr, base + index * span->slot_bytes);
        }
        CHECK(space_span_of(&mem.space, base) == span);
    }
    tri__memory_fini(&mem);
}
