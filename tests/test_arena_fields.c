/*
 * The fields of the sources' heapArena (Go: one record for each 64 MiB), and where trigc keeps what they say:
 *
 *   heapArena     what it says                              trigc
 *   spans         the span of each page                     space.spans[page], and pages[page] for marking
 *   pageInUse     bit at a span's first page, while in use  the page heap's bits (every page of a run, not the first)
 *   pageMarks     a span with some marked object            the words marks[] of a page; a tiny span's own marks
 *   pageSpecials  a span with finalizers and the like       nothing yet: no object can have one
 *   zeroedBase    pages from here on were never used        the page heap's dirty bits, page by page; span.dirty
 *   checkmarks    a second set of marks for debugging       bits of its own, made when checkmark=1 runs
 *   bitmap        which words of the heap are pointers      layouts: pages[].shape names a type's, layouts[] a slot's
 *
 * After random allocation and collection each one is compared with a walk over the heap's objects.
 */
#include "tests/fixture.h"

enum { NTYPES = 24, NROOTS = 3000 };

struct objects {
    struct fixture f;
    tri_type types[NTYPES];
    void *roots[NROOTS];
    tri_frame frame;
    uint64_t seed;
};

static const uint32_t slot_offsets[] = {0, 16, 40};

static struct objects *objects_open(void) {
    static struct objects o;
    o.f = fixture_open();
    o.seed = fixture_seed();
    o.frame = (tri_frame){NULL, NROOTS, o.roots};
    tri_frame_push(o.f.thread, &o.frame);
    for (size_t i = 0; i < NTYPES; i++) {
        static const size_t sizes[] = {8, 16, 48, 64, 96, 256, 1024, 2048, 5000, 20000, 33000, 100000};
        tri_type *t = &o.types[i];
        *t = (tri_type){.struct_size = sizeof(tri_type), .name = "object", .size = sizes[i / 2]};
        if (i % 2 == 0)
            t->flags = TRI_TYPE_LEAF;
        else
            t->pointers = (tri_slots){.offsets = slot_offsets, .noffsets = t->size >= 48 ? 3 : 1};
    }
    return &o;
}

static void objects_close(struct objects *o) {
    tri_frame_pop(o->f.thread, &o->frame);
    fixture_close(&o->f);
}

/* Random allocation into random roots, with references between the objects and a collection now and then. */
static void objects_churn(struct objects *o, int n) {
    for (int i = 0; i < n; i++) {
        uint64_t r = fixture_random(&o->seed);
        size_t big = r % 50 == 0 ? NTYPES : 16;
        tri_type *type = &o->types[(r >> 8) % big];
        char *p = tri_new(o->f.thread, type);
        CHECK_MSG(p != NULL, "%s", tri_last_error());
        for (uint32_t k = 0; k < type->pointers.noffsets; k++)
            if ((r >> (20 + k)) & 1) tri_store(o->f.thread, p, p + slot_offsets[k], o->roots[(r >> 32) % NROOTS]);
        o->roots[(r >> 44) % NROOTS] = (r >> 60) == 0 ? NULL : p;
        if (r % 9973 == 0) fixture_collect(&o->f);
    }
}

/* What a walk over the objects says of each page. */
enum { MAX_PAGES = 64 << 10 };
struct page_view {
    uint32_t nobjects; /* that begin on it */
    bool covered;      /* by an object's slot */
};
static struct page_view views[MAX_PAGES];

static void view_object(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    struct space *space = arg;
    size_t first = space_page_of(space, (uintptr_t)obj), last = space_page_of(space, (uintptr_t)obj + size_bytes - 1);
    struct slot slot;
    CHECK(last < MAX_PAGES);
    CHECK(space_find_slot(space, (uintptr_t)obj, &slot) && slot.addr == (uintptr_t)obj);
    CHECK_MSG(tri__layouts[space_layout_of(space, &slot)].desc->type == type, "bitmap: the layout of %p", obj);
    views[first].nobjects++;
    for (size_t page = first; page <= last; page++) views[page].covered = true;
}

static size_t look(struct objects *o) {
    memset(views, 0, sizeof views);
    return tri_walk(o->f.thread, view_object, &o->f.heap->mem.space);
}

/* How far a page's entry says that its span began, as lookups read it: through the slot of the page's first byte. */
static size_t distance_of(const struct space *space, size_t page) {
    struct slot slot;
    uintptr_t addr = space_page_addr(space, page);
    if (!space_find_slot(space, addr, &slot)) return SIZE_MAX; /* tail waste */
    uint64_t shape = space->pages[page].shape;
    uintptr_t start = slot.addr -
                      (shape_kind(shape) == PAGE_LARGE ? 0 : (uintptr_t)slot.index * shape_slot_bytes(shape));
    return page - space_page_of(space, start);
}

TEST(arena_fields, spans_name_the_span_of_each_page) {
    struct objects *o = objects_open();
    objects_churn(o, 30000);
    struct space *space = &o->f.heap->mem.space;
    for (int round = 0; round < 3; round++) {
        size_t nobjects = look(o), counted = 0;
        CHECK(nobjects > 1000);
        for (size_t page = 0; page < space->committed_pages; page++) {
            struct span *span = space->spans[page];
            bool formatted = shape_kind(space->pages[page].shape) != PAGE_NONE;
            CHECK_EQ(span != NULL, formatted);
            if (views[page].covered) CHECK_MSG(span != NULL, "page %zu holds objects and no span", page);
            if (!span) continue;
            CHECK_MSG(page >= span->first_page && page < span->first_page + span->npages, "page %zu", page);
            size_t distance = distance_of(space, page);
            if (distance != SIZE_MAX) CHECK_EQ(distance, page - span->first_page);
            if (page != span->first_page) continue;
            for (size_t i = page; i < page + span->npages; i++) counted += views[i].nobjects;
        }
        CHECK_EQ(counted, nobjects); /* no object lies outside the spans */
        objects_churn(o, 5000);
        fixture_collect(&o->f);
    }
    objects_close(o);
}

TEST(arena_fields, page_in_use_is_the_page_heaps_bit) {
    struct objects *o = objects_open();
    objects_churn(o, 30000);
    struct memory *mem = &o->f.heap->mem;
    for (int round = 0; round < 3; round++) {
        fixture_collect(&o->f);
        tri_trim(o->f.heap); /* no run is on its way back to the system, once the scavenger has ended its slice: */
        struct pageheap_stats ps;
        for (int i = 0; i < 30000; i++, fixture_sleep_ms(1)) {
            tri__pageheap_get_stats(mem->pages, &ps);
            if (ps.used_pages == atomic_load_relaxed(&mem->used_pages)) break;
        }
        size_t in_use = 0;
        look(o);
        for (size_t page = 0; page < mem->space.committed_pages; page++) {
            bool used = tri__pageheap_in_use(mem->pages, page);
            CHECK_MSG(used == (mem->space.spans[page] != NULL), "page %zu: in use %d, and its span", page, used);
            if (views[page].covered) CHECK(used);
            in_use += used;
        }
        CHECK_EQ(in_use, atomic_load_relaxed(&mem->used_pages));
        CHECK_EQ(in_use * PAGE_BYTES, fixture_stats(o->f.heap).committed_bytes);
        objects_churn(o, 5000);
    }
    objects_close(o);
}

/* Marks exist while a cycle runs: they are read where the heap tells of its end, before they become allocation bits. */
static size_t marked_slots, marked_pages;

static void count_marks(struct memory *mem) {
    marked_slots = marked_pages = 0;
    for (size_t page = 0; page < mem->space.committed_pages; page++) {
        struct span *span = mem->space.spans[page];
        if (!span || span->first_page != page) continue;
        uint32_t n = tri__span_count_marks(&mem->space, span);
        marked_slots += n;
        if (n) marked_pages += span->npages;
    }
}

TEST(arena_fields, page_marks_are_the_words_of_the_page) {
    struct objects *o = objects_open();
    objects_churn(o, 30000);
    fixture_collect(&o->f);
    struct memory *mem = &o->f.heap->mem;
    count_marks(mem);
    CHECK_EQ(marked_slots, 0); /* between cycles nothing is marked */
    size_t live = look(o);
    /* Mark by hand what is allocated: the words of marks[] of exactly the pages with objects are set. */
    for (size_t page = 0; page < mem->space.committed_pages; page++) {
        struct span *span = mem->space.spans[page];
        if (!span || span->first_page != page) continue;
        for (uint32_t i = 0; i < span->nslots; i++) {
            struct slot slot = span_slot(&mem->space, span, i);
            if (space_is_allocated(&mem->space, &slot)) CHECK(space_set_mark(&mem->space, &slot));
        }
    }
    count_marks(mem);
    CHECK_EQ(marked_slots, live);
    for (size_t page = 0; page < mem->space.committed_pages; page++) {
        struct span *span = mem->space.spans[page];
        bool any = false;
        if (span && span->kind == PAGE_TINY) {
            any = tri__span_count_marks(&mem->space, span) > 0;
        } else {
            for (size_t i = 0; i < PAGE_BIT_WORDS; i++) any |= mem->space.marks[page * PAGE_BIT_WORDS + i] != 0;
        }
        CHECK_MSG(any == (views[page].nobjects > 0), "page %zu: marks %d, objects %u", page, any, views[page].nobjects);
    }
    for (size_t page = 0; page < mem->space.committed_pages; page++) { /* as they were */
        struct span *span = mem->space.spans[page];
        if (!span || span->first_page != page) continue;
        for (uint32_t i = 0; i < span->nslots; i++) {
            struct slot slot = span_slot(&mem->space, span, i);
            uint64_t bit, *word = space_mark_word(&mem->space, &slot, &bit);
            *word &= ~bit;
        }
    }
    objects_close(o);
}

/* A sweep turns marks into allocation bits: what it freed is the difference of two walks. */
TEST(arena_fields, sweeping_frees_what_was_not_marked) {
    struct objects *o = objects_open();
    objects_churn(o, 20000);
    for (int round = 0; round < 4; round++) {
        objects_churn(o, 3000);
        uint64_t marked_before = fixture_stats(o->f.heap).marked_objects;
        fixture_collect(&o->f);
        uint64_t marked = fixture_stats(o->f.heap).marked_objects - marked_before;
        CHECK_EQ(look(o), marked);
    }
    objects_close(o);
}

/* zeroedBase: a page that was never given out, or went back to the system, is clean; everything else counts as
 * dirty. */
TEST(arena_fields, zeroed_base_is_a_dirty_bit_for_each_page) {
    struct objects *o = objects_open();
    struct memory *mem = &o->f.heap->mem;
    struct pageheap_stats ps;
    tri__pageheap_get_stats(mem->pages, &ps);
    CHECK_EQ(ps.dirty_free_pages, 0);
    objects_churn(o, 30000);
    size_t used = atomic_load_relaxed(&mem->used_pages);
    memset(o->roots, 0, sizeof o->roots);
    CHECK_EQ(tri_heap_set(o->f.heap, "min_heap_bytes=1G"), TRI_OK); /* nothing is scavenged */
    fixture_collect(&o->f);
    size_t left = atomic_load_relaxed(&mem->used_pages);
    CHECK(left < used);
    tri__pageheap_get_stats(mem->pages, &ps);
    CHECK_MSG(ps.dirty_free_pages >= used - left && ps.dirty_free_pages <= ps.free_pages,
              "%zu dirty free pages, %zu were freed", ps.dirty_free_pages, used - left);
    static size_t taken[4096];
    size_t ntaken = 0, nclean = 0;
    for (; ntaken < TRI_COUNT(taken); ntaken++) { /* a clean free page reads as zero */
        bool dirty;
        if (!tri__pageheap_alloc(mem->pages, 1, &taken[ntaken], &dirty)) break;
        const uint64_t *words = (const uint64_t *)space_page_addr(&mem->space, taken[ntaken]);
        for (size_t i = 0; i < PAGE_BYTES / 8 && !dirty; i++) CHECK_EQ(words[i], 0);
        nclean += !dirty;
    }
    CHECK(nclean > 0 && nclean < ntaken);
    while (ntaken > 0) tri__pageheap_free(mem->pages, taken[--ntaken], 1);
    tri_trim(o->f.heap);
    tri__pageheap_get_stats(mem->pages, &ps);
    CHECK_EQ(ps.dirty_free_pages, 0);
    objects_close(o);
}

/* checkmarks: a second marking into bits of its own finds the same objects, and leaves marks[] alone. */
TEST(arena_fields, checkmarks_are_bits_of_their_own) {
    if (TRI_CHECKS < 1) return;
    struct objects *o = objects_open();
    CHECK_EQ(tri_heap_set(o->f.heap, "checkmark=1"), TRI_OK);
    objects_churn(o, 20000);
    for (int round = 0; round < 3; round++) {
        fixture_collect(&o->f);
        size_t live = look(o);
        CHECK(live > 1000);
        count_marks(&o->f.heap->mem);
        CHECK_EQ(marked_slots, 0);
        objects_churn(o, 3000);
    }
    CHECK_EQ(atomic_load_relaxed(&o->f.heap->stress.reports), 0);
    objects_close(o);
}

/* bitmap: which words of an object are references is said once for a type, by the layout that its page or slot
 * names. */
TEST(arena_fields, layouts_say_which_words_are_pointers) {
    struct objects *o = objects_open();
    objects_churn(o, 20000);
    fixture_collect(&o->f);
    struct space *space = &o->f.heap->mem.space;
    size_t seen = 0;
    for (int i = 0; i < NROOTS; i++) {
        struct slot slot;
        if (!o->roots[i] || !space_find_slot(space, (uintptr_t)o->roots[i], &slot)) continue;
        const struct type_desc *desc = tri__layouts[space_layout_of(space, &slot)].desc;
        CHECK(desc != NULL);
        const tri_type *type = desc->type;
        for (uint32_t offset = 0; offset + 8 <= type->size && offset < 64; offset += 8) {
            bool named = false;
            for (uint32_t k = 0; k < type->pointers.noffsets; k++) named |= type->pointers.offsets[k] == offset;
            CHECK_MSG(tri__type_slot_kind(desc, offset) == (named ? SLOT_POINTER : SLOT_NONE), "offset %u", offset);
        }
        seen++;
    }
    CHECK(seen > 1000);
    objects_close(o);
}
