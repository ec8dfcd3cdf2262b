/* census.c - tri_class_stats and tri_layout_stats: how many slots are in use, by size class and by type.
 *
 * Owns nothing. A look from the side while everything runs, as heapmap.c: page entries by acquire (I-ARENA2),
 * allocation bits and layout numbers by atomic loads; no span object, and no lock but the gate's (40) for spans of
 * the smallest class: their bits lie in their page, which must not become another span's, with objects there, while
 * they are read (R13). So each span is counted as it was when it was looked at. What is counted is allocation bits:
 * what the last sweep of the span has left, and what was taken since, by whole holes. */
#include "alloc/base/os.h"
#include "gc/error.h"
#include "gc/heap.h"

/* One span as its page entries and bits say. */
struct seen {
    size_t first_page, npages;
    uint64_t shape;
    uint32_t nslots, nused;
};

typedef void (*seen_fn)(void *context, const struct space *space, const struct seen *seen);

static bool slot_in_use(const struct space *space, const struct seen *s, uint32_t index) {
    struct slot slot = {space_page_addr(space, s->first_page) + (uintptr_t)index * shape_slot_bytes(s->shape), s->shape,
                        index};
    return space_is_allocated(space, &slot);
}

static uint32_t count_used(const struct space *space, const struct seen *s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->nslots; i++) n += slot_in_use(space, s, i);
    return n;
}

/* With bits in the page itself: 0 when it has left its span. */
static uint32_t count_used_tiny(struct memory *mem, const struct seen *s) {
    tri__lock_acquire(&mem->gate); /* R13: no page leaves its span */
    /* Acquire: its bits are clear before it is published; pairs with span_publish. */
    bool stays = atomic_load_acquire(&mem->space.pages[s->first_page].shape) == s->shape;
    uint32_t n = stays ? count_used(&mem->space, s) : 0;
    tri__lock_release(&mem->gate);
    return n;
}

/* Pages from `page` on whose entries lead back to it. */
static size_t large_pages(const struct space *space, size_t page, size_t end) {
    size_t n = 1;
    for (; page + n < end; n++) {
        const struct page_entry *entry = &space->pages[page + n];
        if (shape_kind(atomic_load_acquire(&entry->shape)) != PAGE_LARGE) break; /* pairs with span_publish */
        if (atomic_load_relaxed(&entry->place) >> 32 != n) break;                /* ordered by the acquire */
    }
    return n;
}

/* The span that begins at the page, if one does. */
static bool look_at(struct memory *mem, size_t page, size_t end, struct seen *s) {
    const struct space *space = &mem->space;
    const struct page_entry *entry = &space->pages[page];
    uint64_t shape = atomic_load_acquire(&entry->shape); /* pairs with span_publish's release (I-ARENA2) */
    uint64_t place = atomic_load_relaxed(&entry->place); /* ordered by the acquire */
    if (!shape_has_objects(shape)) return false;
    bool large = shape_kind(shape) == PAGE_LARGE;
    if ((large ? place >> 32 : place >> 32 & 0xffff) != 0) return false; /* its first page was passed already */
    *s = (struct seen){page, 1, shape, 1, 0};
    if (large) {
        s->npages = large_pages(space, page, end);
    } else {
        s->npages = tri__size_classes[shape_class(shape)].npages;
        s->nslots = (uint32_t)(place >> 48);
    }
    s->nused = shape_kind(shape) == PAGE_TINY ? count_used_tiny(mem, s) : count_used(space, s);
    return true;
}

static void look_at_all(tri_heap *heap, seen_fn fn, void *context) {
    const struct space *space = &heap->mem.space;
    size_t end = atomic_load_acquire(&space->committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < end;) {
        struct seen s;
        bool found = look_at(&heap->mem, page, end, &s);
        if (found) fn(context, space, &s);
        page += found ? s.npages : 1;
    }
}

static size_t slot_bytes(const struct seen *s) {
    return shape_kind(s->shape) == PAGE_LARGE ? s->npages << PAGE_SHIFT : shape_slot_bytes(s->shape);
}

/* ---- by size class ------------------------------------------------------------------------------------------- */

static void count_class(void *context, const struct space *space, const struct seen *s) {
    tri_class_stat *c = (tri_class_stat *)context + shape_class(s->shape);
    (void)space;
    c->spans++;
    c->span_bytes += s->npages << PAGE_SHIFT;
    c->slots += s->nslots;
    c->used_slots += s->nused;
    c->used_bytes += s->nused * slot_bytes(s);
}

int tri_class_stats(tri_heap *heap, tri_class_stat *out, size_t n) {
    if (!heap || (!out && n)) return tri__error(TRI_EINVAL, "tri_class_stats", "heap is NULL, or out with n %zu", n);
    if (tri__callback_calls(heap, "tri_class_stats")) return TRI_ESTATE;
    NO_SAFEPOINT("tri_class_stats");
    tri_class_stat classes[NUM_SIZE_CLASSES] = {{0}};
    for (unsigned i = 1; i < NUM_SIZE_CLASSES; i++) classes[i].slot_bytes = tri__size_classes[i].slot_bytes;
    if (n) look_at_all(heap, count_class, classes);
    for (size_t i = 0; i < min_size(n, NUM_SIZE_CLASSES); i++) out[i] = classes[i];
    return NUM_SIZE_CLASSES;
}

/* ---- by type -------------------------------------------------------------------------------------------------- */

struct layout_count {
    size_t spans, objects, bytes;
};

/* All size classes of an array type, and of untyped bytes, count under the first number. */
static uint32_t first_number(uint32_t layout) {
    const struct type_desc *desc = tri__layouts[layout].desc;
    if (desc) return atomic_load_relaxed(&desc->type->layout); /* set before anything of the layout was allocated */
    return LAYOUT_BYTES;
}

static void count_layout(void *context, const struct space *space, const struct seen *s) {
    struct layout_count *counts = context;
    if (shape_kind(s->shape) != PAGE_MIXED) {
        struct layout_count *c = &counts[first_number(shape_layout(s->shape))];
        c->spans++;
        c->objects += s->nused;
        c->bytes += s->nused * slot_bytes(s);
        return;
    }
    for (uint32_t i = 0; i < s->nslots; i++) {
        struct slot slot = {space_page_addr(space, s->first_page) + (uintptr_t)i * shape_slot_bytes(s->shape), s->shape,
                            i};
        uint32_t layout = space_is_allocated(space, &slot) ? space_layout_of(space, &slot) : 0;
        if (layout == 0) continue; /* free, or nobody's yet: the rest of a hole */
        counts[first_number(layout)].objects++;
        counts[first_number(layout)].bytes += slot_bytes(s);
    }
}

int tri_layout_stats(tri_heap *heap, tri_layout_stat *out, size_t n) {
    if (!heap || (!out && n)) return tri__error(TRI_EINVAL, "tri_layout_stats", "heap is NULL, or out with n %zu", n);
    if (tri__callback_calls(heap, "tri_layout_stats")) return TRI_ESTATE;
    NO_SAFEPOINT("tri_layout_stats");
    struct layout_count *counts = tri__os_map(MAX_LAYOUTS * sizeof *counts);
    if (!counts) return tri__error(TRI_ENOMEM, "tri_layout_stats", "no memory for the counts");
    look_at_all(heap, count_layout, counts);
    size_t rows = 0;
    for (uint32_t i = 0; i < MAX_LAYOUTS; i++) {
        if (counts[i].spans == 0 && counts[i].objects == 0) continue;
        const struct type_desc *desc = tri__layouts[i].desc;
        if (rows < n)
            out[rows] = (tri_layout_stat){.layout = i,
                                          .type = desc ? desc->type : NULL,
                                          .name = layout_name(i),
                                          .spans = counts[i].spans,
                                          .objects = counts[i].objects,
                                          .bytes = counts[i].bytes};
        rows++;
    }
    tri__os_release(counts, MAX_LAYOUTS * sizeof *counts);
    return (int)rows;
}
