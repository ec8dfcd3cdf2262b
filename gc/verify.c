/* verify.c - the whole heap against itself: every span, bit, list and counter. Runs with the world stopped, between
 * cycles, on the collector's thread, which builds with checks let do it now and then by themselves. Each contradiction
 * is reported with the invariant that it breaks. */
#include "gc/error.h"
#include "gc/heap.h"

struct verify {
    tri_heap *heap;
    int wrong;
    size_t pages_in_spans, manual_pages, spans_seen, spans_listed;
};

#define EXPECT(v, cond, ...)                                   \
    do {                                                       \
        if (!(cond)) {                                         \
            (v)->wrong++;                                      \
            atomic_add_relaxed(&(v)->heap->stress.reports, 1); \
            tri__report((v)->heap, "verify", __VA_ARGS__);     \
        }                                                      \
    } while (0)

static void check_pages(struct verify *v, const struct span *span) {
    struct space *space = &v->heap->mem.space;
    for (size_t i = 0; i < span->npages; i++) {
        size_t page = span->first_page + i;
        uint64_t shape = atomic_load_acquire(&space->pages[page].shape); /* pairs with span_publish */
        EXPECT(v, shape_kind(shape) == (enum page_kind)span->kind && shape_layout(shape) == span->layout,
               "I-SPAN2: page %zu says kind %d layout %u, its span kind %d layout %u", page, (int)shape_kind(shape),
               shape_layout(shape), span->kind, span->layout);
        EXPECT(v,
               (atomic_load_relaxed(&space->pages[page].place) >> 32 &
                (span->kind == PAGE_LARGE ? UINT32_MAX : 0xffff)) == i,
               "I-SPAN2: page %zu leads to a wrong first page", page);
        EXPECT(v, atomic_load_relaxed(&space->spans[page]) == span, "I-SPAN2: page %zu names another span", page);
        EXPECT(v, tri__pageheap_in_use(v->heap->mem.pages, page),
               "I-PAGE1: page %zu of a span is free in the page heap", page);
    }
}

static void check_bits(struct verify *v, struct span *span) {
    struct space *space = &v->heap->mem.space;
    uint32_t marks = tri__span_count_marks(space, span), allocs = tri__span_count_alloc(space, span), at_slots = 0;
    EXPECT(v, allocs == span->nalloc, "I-SPAN4: span at page %zu has %u allocation bits and counts %u",
           span->first_page, allocs, span->nalloc);
    EXPECT(v, marks == 0 || atomic_load_relaxed(&span->gen) != atomic_load_relaxed(&v->heap->mem.gen),
           "R10: span at page %zu is swept and has %u marks between cycles", span->first_page, marks);
    for (uint32_t i = 0; i < span->nslots; i++) {
        struct slot slot = span_slot(space, span, i);
        if (space_is_allocated(space, &slot)) {
            at_slots++;
        } else if (atomic_load_relaxed(&v->heap->mem.poison) && span->dirty && span->kind != PAGE_LARGE) {
            size_t damage = tri__span_poison_damage(space, span, i);
            uint64_t word = ((const uint64_t *)slot.addr)[damage == 0 ? 1 % (span->slot_bytes / 8) : 0];
            EXPECT(v, damage == SIZE_MAX || poison_layout(word) == 0,
                   "poison: a freed %s at %p was written at offset %zu after it was freed",
                   layout_name(poison_layout(word)), (void *)slot.addr, damage);
        }
    }
    EXPECT(v, at_slots == allocs, "I-ARENA3: span at page %zu has allocation bits off its slots", span->first_page);
}

/* What stays as it is while threads that are not attached go on: the manual lock is held (I-MEM1). */
static void check_manual_span(struct verify *v, const struct manual_span *ms) {
    struct space *space = &v->heap->mem.space;
    size_t first = ms->span->first_page;
    const struct manual_cache *c = atomic_load_relaxed(&ms->owner); /* under the lock */
    uint64_t owner = c ? c->tag : PAGE_MANUAL;
    for (size_t page = first; page < first + ms->span->npages; page++) {
        uint64_t shape = atomic_load_relaxed(&space->pages[page].shape); /* under the lock */
        EXPECT(v, (shape & MANUAL_TAG_MASK) == owner && shape_slot_bytes(shape) == ms->slot_bytes,
               "I-MAN3: page %zu of manual memory names another owner or size than its span", page);
        EXPECT(v, manual_span_of(space, space_page_addr(space, page)) == ms,
               "I-SPAN2: page %zu names another manual span", page);
        EXPECT(v, tri__pageheap_in_use(v->heap->mem.pages, page), "I-PAGE1: page %zu of manual memory is free", page);
    }
    v->manual_pages += ms->span->npages;
}

static void check_spans(struct verify *v) {
    struct space *space = &v->heap->mem.space;
    size_t npages = atomic_load_acquire(&space->committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages;) {
        uint64_t shape = atomic_load_acquire(&space->pages[page].shape); /* pairs with span_publish */
        if (shape_kind(shape) == PAGE_MANUAL) {
            const struct manual_span *ms = manual_span_of(space, space_page_addr(space, page));
            EXPECT(v, ms->span->first_page == page, "I-SPAN2: page %zu is inside a manual span that begins elsewhere",
                   page);
            check_manual_span(v, ms);
            page += ms->span->npages;
            continue;
        }
        if (!shape_has_objects(shape)) {
            page++;
            continue;
        }
        struct span *span = atomic_load_relaxed(&space->spans[page]); /* ordered by the shape */
        EXPECT(v, span && span->first_page == page, "I-SPAN2: page %zu is inside a span that does not begin before it",
               page);
        if (!span || span->first_page != page) return;
        check_pages(v, span);
        check_bits(v, span);
        v->spans_seen++;
        v->pages_in_spans += span->npages;
        page += span->npages;
    }
}

static void check_list(struct verify *v, const struct span_list *list, unsigned parity, const char *name, int full) {
    size_t n = 0;
    for (const struct span *s = list->head, *prev = NULL; s; prev = s, s = s->next, n++) {
        EXPECT(v, s->prev == prev, "I-SPAN1: list %s is broken at page %zu", name, s->first_page);
        EXPECT(v, atomic_load_relaxed(&s->place) == SPAN_LISTED,
               "I-SPAN1: span at page %zu is in list %s and elsewhere", s->first_page, name);
        EXPECT(v, (atomic_load_relaxed(&s->gen) & 1) == parity,
               "R10: span at page %zu is filed under a wrong generation", s->first_page);
        if (full >= 0)
            EXPECT(v, (s->nalloc == s->nslots) == (full == 1), "I-SPAN4: span at page %zu is in the wrong list %s",
                   s->first_page, name);
        if (prev == s) break;
    }
    EXPECT(v, n == list->nspans, "I-SPAN1: list %s holds %zu spans and counts %zu", name, n, list->nspans);
    v->spans_listed += n;
}

/* The empty spans of a layout: nothing in them, no mark, of no generation. */
static size_t check_empty(struct verify *v, const struct span_list *list) {
    size_t n = 0, npages = 0;
    for (const struct span *s = list->head; s; s = s->next, n++) {
        npages += s->npages;
        EXPECT(v, atomic_load_relaxed(&s->place) == SPAN_EMPTY && s->nalloc == 0,
               "I-SPAN1: span at page %zu lies ready as empty and has %u objects", s->first_page, s->nalloc);
        EXPECT(v, tri__span_count_marks(&v->heap->mem.space, s) == 0, "R10: empty span at page %zu has marks",
               s->first_page);
    }
    EXPECT(v, n == list->nspans, "I-SPAN1: the list of empty spans holds %zu and counts %zu", n, list->nspans);
    v->spans_listed += n;
    return npages;
}

static void check_lists(struct verify *v) {
    struct memory *mem = &v->heap->mem;
    size_t empty_pages = mem->ready.npages;
    for (struct central *c = atomic_load_acquire(&mem->all_centrals); c; c = c->next) /* pairs with central_get */
        empty_pages += check_empty(v, &c->empty);
    EXPECT(v, empty_pages == atomic_load_relaxed(&mem->empty_pages),
           "I-MEM1: empty spans and ready runs have %zu pages, %zu are counted", empty_pages,
           atomic_load_relaxed(&mem->empty_pages));
    for (struct central *c = atomic_load_acquire(&mem->all_centrals); c; c = c->next) /* pairs with central_get */
        for (unsigned parity = 0; parity < 2; parity++) {
            for (int fill = 0; fill < NUM_FILLS; fill++) check_list(v, &c->partial[parity][fill], parity, "partial", 0);
            check_list(v, &c->full[parity], parity, "full", 1);
        }
    for (unsigned parity = 0; parity < 2; parity++) check_list(v, &mem->large[parity], parity, "large", -1);
}

static void check_caches(struct verify *v) {
    for (struct mutator *m = v->heap->threads; m; m = m->next)
        for (const tri_hole *h = cache_first(&m->cache); h; h = cache_after(&m->cache, h)) {
            if (!h->span) continue;
            const struct span *span = h->span;
            EXPECT(v, (size_t)(h->limit - h->cursor) % span->slot_bytes == 0,
                   "I-CACHE1: a hole is no whole number of slots");
            while (span->prev) span = span->prev;
            for (; span; span = span->next) {
                v->spans_listed++;
                EXPECT(v, atomic_load_relaxed(&span->place) == SPAN_CACHED, "I-SPAN1: a cached span is elsewhere too");
            }
        }
}

/* The number of pages that lie ready for large objects. Nobody takes any: threads stand, and no claim begins. */
static size_t check_ready(struct verify *v) {
    struct memory *mem = &v->heap->mem;
    size_t npages = 0;
    for (size_t i = 0; i <= READY_MOST_PAGES - READY_LEAST_PAGES; i++)
        for (struct span *span = mem->ready.lists[i].head; span; span = span->next) {
            npages += span->npages;
            EXPECT(v,
                   span->npages == i + READY_LEAST_PAGES &&
                       space_span_of(&mem->space, span_base(&mem->space, span)) != span,
                   "I-LARGE1: a ready run of %zu pages is in the list for %zu, or has an entry", span->npages,
                   i + READY_LEAST_PAGES);
        }
    EXPECT(v, npages == mem->ready.npages, "I-LARGE1: %zu pages lie ready, %zu are counted", npages, mem->ready.npages);
    return npages;
}

static void say(void *context, const char *text) {
    struct verify *v = context;
    EXPECT(v, false, "%s", text);
}

int tri__verify(tri_heap *heap) {
    struct verify v = {.heap = heap};
    tri__lock_acquire(&heap->mem.manual.lock); /* no manual span comes or goes */
    check_spans(&v);
    check_lists(&v);
    check_caches(&v);
    EXPECT(&v, v.spans_seen == v.spans_listed, "I-SPAN1: %zu spans are published, %zu are in lists and caches",
           v.spans_seen, v.spans_listed);
    size_t used = atomic_load_relaxed(&heap->mem.used_pages);
    size_t building = atomic_load_relaxed(&heap->mem.building_pages); /* nobody runs */
    size_t ready = check_ready(&v);
    EXPECT(
        &v, v.pages_in_spans + building + ready + v.manual_pages == used,
        "I-MEM1: spans have %zu pages, %zu are being built, %zu lie ready and %zu are manual memory, %zu are counted",
        v.pages_in_spans, building, ready, v.manual_pages, used);
    EXPECT(&v, v.manual_pages == tri__manual_pages(&heap->mem), "I-MEM1: %zu pages are manual memory, %zu are counted",
           v.manual_pages, tri__manual_pages(&heap->mem));
    tri__lock_release(&heap->mem.manual.lock);
    tri__death_verify(heap, say, &v);
    tri__pageheap_verify(heap->mem.pages, say, &v);
    return v.wrong;
}

/* ---- after a cycle ---------------------------------------------------------------------------------------------- */

/* What -Dchecks=3 does by itself: the whole heap after the first cycle and each 8th from there, if its threads come to
 * a stop at once, for at most a tenth of the heap's time. What contradicts itself is reported, as with verify=1. */
static void verify_now_and_then(tri_heap *heap) {
    enum { EVERY_CYCLES = 8, SHARE = 10, STOP_NS = 2000000 };
    uint64_t start = tri__os_now_ns();
    if (heap->cycle_number % EVERY_CYCLES != 1 || heap->whole_ns > (start - heap->created_ns) / SHARE) return;
    if (tri__world_stop_within(heap, STOP_NS)) {
        tri__verify(heap);
        tri__world_start(heap);
    }
    heap->whole_ns += tri__os_now_ns() - start;
}

void tri__verify_cycle(tri_heap *heap) {
    if (TRI_CHECKS >= 1 && atomic_load_relaxed(&heap->stress.verify)) { /* a test's switch */
        if (!tri__world_stop(heap)) return;                             /* a silent thread: the event hook was told */
        tri__verify(heap);
        tri__world_start(heap);
    } else if (TRI_CHECKS >= 3) {
        verify_now_and_then(heap);
    }
}
