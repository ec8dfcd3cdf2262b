/* mark.c - entries and the loop that does them one by one, with its prefetch ring; see mark.h. How objects are scanned
 * is in markscan.c, candidates by page in markpage.c. */
#include "gc/mark.h"
#include <string.h>
#include "alloc/base/atomic.h"
#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "gc/heap.h"
#include "gc/mark_inline.h"

void tri__marker_init(struct marker *marker, tri_heap *heap, struct page_set *set) {
    *marker = (struct marker){.heap = heap, .space = &heap->mem.space, .set = set};
    if (set) tri__page_set_init(set);
}

/* ---- entries ------------------------------------------------------------------------------------------------- */

/* Without memory for a buffer: the object is marked and its span is scanned again later (R19). */
TRI_COLD void tri__mark_without_memory(struct marker *mk, uintptr_t entry) {
    struct slot slot;
    uintptr_t addr = entry & ~(uintptr_t)WORK_TAG_MASK;
    if (!space_find_slot(mk->space, addr, &slot)) return;
    if (heap_phase(mk->heap) == PHASE_FLUSH)
        atomic_store_release(&mk->heap->found, 1); /* before the mark, as in shade */
    bool unmarked = space_set_mark(mk->space, &slot);
    if ((entry & WORK_TAG_MASK) == WORK_CANDIDATE && !unmarked) return; /* whoever marked it scans it */
    struct span *span = space_span_of(mk->space, slot.addr);
    atomic_or_acqrel(&span->rescan, SPAN_RESCAN_LOST); /* pairs with the acquire in marker_rescan */
    atomic_store_release(&mk->heap->work.rescan, 1);   /* pairs with work_is_empty */
}

TRI_COLD bool tri__mark_new_buffer(struct marker *mk) {
    struct workbuf *buf = tri__work_get_empty(&mk->heap->work);
    if (!buf) return false;
    if (mk->buf) {
        tri__work_put_full(&mk->heap->work, mk->buf);
        mk->worked = true; /* R2: handed over */
    }
    mk->buf = buf;
    return true;
}

TRI_COLD bool tri__mark_more(struct marker *mk) {
    struct workbuf *full = tri__work_get_full(&mk->heap->work);
    if (!full) return tri__copies_shade(mk) && mk->buf && mk->buf->n > 0; /* a piece without references: look again */
    if (mk->buf) tri__work_put_empty(&mk->heap->work, mk->buf);
    mk->buf = full;
    mk->worked = true; /* R2: popped */
    return true;
}

/* Where the entries of a buffer begin, each with the words below that belong to it; how many there are. Only from the
 * top can the two be told apart. */
static size_t entries_of(const struct workbuf *buf, uint8_t *starts) {
    size_t n = 0;
    for (size_t at = buf->n; at > 0; starts[n++] = (uint8_t)at) {
        uintptr_t tag = buf->entries[at - 1] & WORK_TAG_MASK;
        at -= tag == WORK_RESUME ? 2 : tag == WORK_PAGE ? 1 + PAGE_BIT_WORDS : 1;
    }
    return n;
}

/* Every other entry, from the second oldest on: the older ones are nearer to the roots and lead to more, so both sides
 * have some of each kind. (Whoever gets all of the older ones gives the oldest away again before it comes to it.) */
TRI_COLD void tri__mark_share(struct marker *mk) {
    if (mk->set) tri__mark_pages_flush(mk);
    struct workbuf *mine = mk->buf, *given;
    uint8_t starts[WORKBUF_ENTRIES];
    size_t n = mine ? entries_of(mine, starts) : 0, end, kept = 0;
    if (n < 2 || mine->n < SHARE_LEAST || !(given = tri__work_get_empty(&mk->heap->work))) return;
    for (size_t i = 0; i < n; i++) {
        size_t from = starts[n - 1 - i];
        end = i + 1 < n ? starts[n - 2 - i] : mine->n;
        if (i % 2) {
            memcpy(given->entries + given->n, mine->entries + from, (end - from) * sizeof mine->entries[0]);
            given->n += end - from;
        } else {
            memmove(mine->entries + kept, mine->entries + from, (end - from) * sizeof mine->entries[0]);
            kept += end - from;
        }
    }
    mine->n = kept;
    tri__work_put_full(&mk->heap->work, given);
    mk->worked = true; /* R2: handed over */
}

void tri__marker_candidate(struct marker *mk, uintptr_t addr) {
    if (space_contains(mk->space, addr)) mark_push(mk, (addr & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
}

void tri__marker_candidates(struct marker *mk, const uintptr_t *addrs, size_t n) {
    for (size_t i = 0; i < n; i++) mark_push(mk, (addrs[i] & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
}

bool tri__marker_shade(struct marker *mk, uintptr_t addr) {
    struct slot slot;
    if (!space_find_slot(mk->space, addr, &slot) || space_is_marked(mk->space, &slot)) return false;
    /* While a round is under way, whatever turns grey ends it, said before the mark is set: a thread that answers after
     * this may find the object marked and have nothing to tell, although it is grey in a buffer here (R2). */
    if (TRI_UNLIKELY(heap_phase(mk->heap) == PHASE_FLUSH)) atomic_store_release(&mk->heap->found, 1); /* round's end */
    if (!space_set_mark(mk->space, &slot)) return false;
    mk->worked = true; /* R2: turned grey */
    mk->marked_objects++;
    mk->marked_bytes += tri__slot_bytes(mk->space, &slot);
    mark_push(mk, slot.addr | WORK_MARKED);
    return true;
}

/* R4: a slot of somebody's hole counts (it is queued, not only marked); a free slot outside any hole does not. */
static void mark_allocated(struct marker *mk, const struct slot *slot) {
    if (space_is_allocated(mk->space, slot)) mark_push(mk, slot->addr | WORK_CANDIDATE);
}

void tri__mark_maybe(struct marker *mk, uintptr_t addr) {
    struct slot slot;
    if (space_find_slot(mk->space, addr, &slot)) mark_allocated(mk, &slot);
}

/* May an address just past this slot be one just past its object? Not where the type says that the object ends earlier:
 * such an address is inside the slot. Without this, whatever names an object keeps its neighbour, too, and the root of
 * a tree that is built bottom up is the neighbour of what comes after the tree. */
static bool may_end_with_slot(const struct marker *mk, const struct slot *slot) {
    const struct type_desc *desc = tri__layouts[space_layout_of(mk->space, slot)].desc;
    return !desc || desc->elem_size != 0 || desc->size == 0 || desc->size >= tri__slot_bytes(mk->space, slot);
}

void tri__marker_conservative(struct marker *mk, uintptr_t word) {
    if (word - mk->space->base > mk->space->size_bytes) return; /* the end itself counts: word - 1 may be inside */
    tri__mark_maybe(mk, word);
    struct slot slot;
    if ((word & (sizeof(void *) - 1)) == 0 && space_find_slot(mk->space, word - 1, &slot) &&
        may_end_with_slot(mk, &slot))
        mark_allocated(mk, &slot);
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

/* Every kind of entry, the long way. */
void tri__mark_entry(struct marker *mk, uintptr_t entry) {
    struct slot slot;
    uintptr_t addr = entry & ~(uintptr_t)WORK_TAG_MASK;
    switch (entry & WORK_TAG_MASK) {
    case WORK_CANDIDATE:
        if (!space_find_slot(mk->space, addr, &slot) || !space_set_mark(mk->space, &slot)) return;
        mk->marked_objects++;
        mk->marked_bytes += tri__slot_bytes(mk->space, &slot);
        break;
    case WORK_MARKED:
        if (!space_find_slot(mk->space, addr, &slot)) return;
        break;
    default: tri__mark_scan_piece(mk, addr); return;
    }
    tri__mark_scan(mk, &slot);
}

/* What the loop keeps in registers: the buffer in hand, the ring's ends, the counts. Between hot_leave and hot_enter
 * the marker itself is up to date. */
struct hot {
    uintptr_t *top, *base, *end;
    unsigned head, tail;
    unsigned n; /* entries since the last look at the clock; what is more than an entry counts as several */
    uint64_t objects, bytes;
};

enum { TOLD_A_CLOCK = 16 };

#define HOT static inline __attribute__((always_inline))

HOT void hot_enter(struct hot *h, const struct marker *mk) {
    h->base = mk->buf ? mk->buf->entries : NULL;
    h->top = mk->buf ? h->base + mk->buf->n : NULL;
    h->end = mk->buf ? h->base + WORKBUF_ENTRIES : NULL;
    h->head = mk->head;
    h->tail = mk->tail;
    h->objects = h->bytes = 0;
}

HOT void hot_leave(const struct hot *h, struct marker *mk) {
    if (mk->buf) mk->buf->n = (size_t)(h->top - h->base);
    mk->head = h->head;
    mk->tail = h->tail;
    mk->marked_objects += h->objects;
    mk->marked_bytes += h->bytes;
}

HOT void hot_push(struct hot *h, struct marker *mk, uintptr_t entry) {
    if (TRI_UNLIKELY(h->top == h->end)) {
        hot_leave(h, mk);
        mark_push(mk, entry);
        hot_enter(h, mk);
        return;
    }
    *h->top++ = entry;
}

HOT bool hot_pop(struct hot *h, struct marker *mk, uintptr_t *entry) {
    if (TRI_UNLIKELY(h->top == h->base)) {
        uint64_t cost = mk->cost_words; /* of stacks' copies */
        hot_leave(h, mk);
        bool more = tri__mark_more(mk);
        hot_enter(h, mk);
        h->n += (unsigned)(mk->cost_words - cost) / WORDS_A_UNIT;
        if (!more) return false;
    }
    *entry = *--h->top;
    return true;
}

/* One mask of pointers, or of values (enc). */
HOT void hot_scan(struct hot *h, struct marker *mk, const struct space *space, uintptr_t addr, uint64_t mask,
                  const tri_enc *enc) {
    for (; mask; mask &= mask - 1) {
        const tri_word *p = (const tri_word *)addr + bit_lowest(mask);
        tri_word w = slot_load(p);
        uintptr_t ref = enc ? enc_decode(enc, w) : (uintptr_t)w; /* a value that is none decodes to 0: in no heap */
        if (!space_contains(space, ref)) continue;
        CHECK_CHILD(mk, p, ref);
        hot_push(h, mk, (ref & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
    }
}

/* A candidate in a small span whose type has one mask of pointers is done here; all others go the long way. */
HOT void hot_process(struct hot *h, struct marker *mk, const struct space *space, uintptr_t entry) {
    uintptr_t offset = entry - space->base;
    size_t page = offset >> PAGE_SHIFT;
    uint64_t shape = atomic_load_acquire(&space->pages[page].shape); /* pairs with span_publish */
    if (TRI_LIKELY((entry & WORK_TAG_MASK) == WORK_CANDIDATE && shape_kind(shape) == PAGE_SMALL)) {
        uint64_t place = atomic_load_relaxed(&space->pages[page].place); /* ordered by the acquire above */
        uintptr_t start = (page - (size_t)(place >> 32 & 0xffff)) << PAGE_SHIFT;
        uint64_t index = ((offset - start) * (uint32_t)place) >> 32; /* I-CLASS2 */
        if (TRI_UNLIKELY(index >= place >> 48)) return;
        struct slot slot = {space->base + start + index * shape_slot_bytes(shape), shape, (uint32_t)index};
        size_t granule = (slot.addr - space->base) >> GRANULE_SHIFT;
        uint64_t bit = 1ull << (granule & 63), *word = &space->marks[granule >> 6];
        if (atomic_load_relaxed(word) & bit) return;   /* as space_set_mark */
        if (atomic_or_acqrel(word, bit) & bit) return; /* release: a weak slot cleared before (R7); space_is_marked */
        h->objects++;
        h->bytes += shape_slot_bytes(shape);
        const struct layout *layout = &tri__layouts[shape_layout(shape)];
        if (layout->scan == SCAN_LEAF) return;
        if (TRI_LIKELY(layout->scan == SCAN_MASK)) {
            hot_scan(h, mk, space, slot.addr, layout->mask, NULL);
            return;
        }
        if (layout->scan == SCAN_VALUES) {
            hot_scan(h, mk, space, slot.addr, layout->mask, &layout->desc->enc);
            return;
        }
        uint64_t cost = mk->cost_words;
        hot_leave(h, mk);
        tri__mark_scan(mk, &slot);
        hot_enter(h, mk);
        h->n += (unsigned)(mk->cost_words - cost) / WORDS_A_UNIT;
        return;
    }
    uint64_t cost = mk->cost_words;
    hot_leave(h, mk);
    tri__mark_entry(mk, entry);
    hot_enter(h, mk);
    h->n += (unsigned)(mk->cost_words - cost) / WORDS_A_UNIT;
}

/* Fills the ring (false: nothing is left): each entry's mark word and object are on their way while the ones before it
 * are worked on. */
HOT bool hot_fill(struct hot *h, struct marker *mk, const struct space *space) {
    uintptr_t entry;
    while (h->head - h->tail < MARK_RING && hot_pop(h, mk, &entry)) {
        if (TRI_UNLIKELY((entry & WORK_TAG_MASK) >= WORK_RESUME)) {
            bool resumes = (entry & WORK_TAG_MASK) == WORK_RESUME;
            uint64_t cost = mk->cost_words;
            hot_leave(h, mk);
            if (resumes)
                tri__mark_resume(mk, entry);
            else
                tri__mark_unfold_page(mk, entry);
            hot_enter(h, mk);
            h->n += (unsigned)(mk->cost_words - cost) / WORDS_A_UNIT;
            if (resumes) return true; /* a slice of tracing is much */
            continue;
        }
        __builtin_prefetch(&space->marks[(entry - space->base) >> (GRANULE_SHIFT + 6)], 1);
        __builtin_prefetch((const void *)entry);
        mk->ring[h->head++ & MARK_RING_MASK] = entry;
    }
    return h->head != h->tail;
}

/* Entries one by one. */
static enum drained by_entry(struct marker *mk, uint64_t deadline_ns) {
    const struct space space = {.base = mk->space->base, /* the constant ones, in registers */
                                .size_bytes = mk->space->size_bytes,
                                .pages = mk->space->pages,
                                .marks = mk->space->marks};
    struct hot h;
    hot_enter(&h, mk);
    bool empty = false, due = false;
    do {
        for (h.n = 0; h.n < ENTRIES_A_CLOCK; h.n++) {
            empty = !hot_fill(&h, mk, &space);
            if (empty) break;
            if (h.head != h.tail) hot_process(&h, mk, &space, mk->ring[h.tail++ & MARK_RING_MASK]);
        }
        if (work_is_wanted(&mk->heap->work)) {
            hot_leave(&h, mk);
            tri__mark_share(mk);
            hot_enter(&h, mk);
        }
        due = mk->set && tri__mark_pages_due(mk->set, ENTRIES_A_CLOCK);
        tri__units_did(h.n);
    } while (!empty && !due && (deadline_ns == 0 || !heap_is_late(mk->heap, deadline_ns)));
    hot_leave(&h, mk);
    return empty ? DRAINED_ALL : due ? DRAINED_CHANGES : DRAINED_LATE;
}

static void empty_ring(struct marker *mk) {
    while (mk->head != mk->tail) mark_push(mk, mk->ring[mk->tail++ & MARK_RING_MASK]);
}

bool tri__marker_drain(struct marker *mk, uint64_t deadline_ns) {
    /* Relaxed: whoever comes here has seen `tracing`, which was set after the last answer. */
    check_cheap(atomic_load_relaxed(&mk->heap->pending) == 0 && heap_phase(mk->heap) >= PHASE_MARK &&
                    heap_phase(mk->heap) <= PHASE_DEATH,
                "I-CYC3: nothing is traced before the last scan answer, nor during a round (R3, R4)");
    for (;;) {
        bool by_page = mk->set && mk->set->on;
        if (by_page) empty_ring(mk);
        enum drained drained = by_page ? tri__mark_by_page(mk, deadline_ns) : by_entry(mk, deadline_ns);
        if (drained != DRAINED_CHANGES) return drained == DRAINED_ALL;
    }
}

void tri__marker_take(struct marker *mk, struct workbuf *buf) {
    check_internal(tri__marker_is_idle(mk), "I-MARK2: who takes a buffer holds nothing");
    if (mk->buf) tri__work_put_empty(&mk->heap->work, mk->buf);
    mk->buf = buf;
    mk->worked = true; /* R2: popped */
}

/* An entry for tri__marker_drain_told. True: it was much. */
static bool process_told(struct marker *mk, uintptr_t entry, void (*marked)(void *context, uintptr_t addr),
                         void *context) {
    struct slot slot;
    uintptr_t tag = entry & WORK_TAG_MASK;
    if (tag == WORK_RESUME) {
        tri__mark_resume(mk, entry);
        return true;
    }
    if (tag == WORK_PAGE) {
        tri__mark_unfold_page(mk, entry);
        return false;
    }
    if (tag == WORK_PIECE || !space_find_slot(mk->space, entry & ~(uintptr_t)WORK_TAG_MASK, &slot)) {
        tri__mark_entry(mk, entry);
        return true;
    }
    if (tag == WORK_CANDIDATE) {
        if (!space_set_mark(mk->space, &slot)) return false;
        mk->marked_objects++;
        mk->marked_bytes += tri__slot_bytes(mk->space, &slot);
    }
    marked(context, slot.addr);
    tri__mark_scan(mk, &slot);
    return false;
}

bool tri__marker_drain_told(struct marker *mk, uint64_t deadline_ns, void (*marked)(void *context, uintptr_t addr),
                            void *context) {
    bool by_page = mk->set && mk->set->on, late = false;
    if (mk->set) {
        tri__mark_pages_flush(mk);
        mk->set->on = false; /* entries alone, until it is left */
    }
    empty_ring(mk);
    for (unsigned n = 1; !late && ((mk->buf && mk->buf->n > 0) || tri__mark_more(mk)); n++) {
        uint64_t cost = mk->cost_words;
        bool much = process_told(mk, mk->buf->entries[--mk->buf->n], marked, context);
        tri__units_did(4 + (mk->cost_words - cost) / WORDS_A_UNIT); /* no prefetch here */
        late = (much || n % TOLD_A_CLOCK == 0) && heap_is_late(mk->heap, deadline_ns);
    }
    if (mk->set) mk->set->on = by_page;
    return !late;
}

bool tri__marker_hand_over(struct marker *mk) {
    if (mk->set) tri__mark_pages_flush(mk);
    empty_ring(mk);
    if (!mk->buf) return false;
    struct workbuf *buf = mk->buf;
    mk->buf = NULL;
    if (buf->n == 0) {
        tri__work_put_empty(&mk->heap->work, buf);
        return false;
    }
    tri__work_put_full(&mk->heap->work, buf);
    mk->worked = true; /* R2: handed over */
    return true;
}

bool tri__marker_is_idle(const struct marker *mk) {
    return mk->head == mk->tail && (!mk->buf || mk->buf->n == 0) && (!mk->set || mk->set->nused == 0);
}

void tri__marker_rescan(struct marker *mk, uint8_t why) {
    struct memory *mem = &mk->heap->mem;
    atomic_store_release(&mk->heap->work.rescan, 0); /* set again by whoever runs out of memory again */
    size_t npages = atomic_load_acquire(&mem->space.committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages; page++) {
        if (!shape_has_objects(atomic_load_acquire(&mem->space.pages[page].shape))) continue; /* span_publish */
        struct span *span = atomic_load_relaxed(&mem->space.spans[page]); /* ordered by the shape's acquire */
        if (span->first_page != page || !(atomic_load_acquire(&span->rescan) & why))
            continue; /* tri__mark_without_memory */
        atomic_and_acqrel(&span->rescan, (uint8_t)~why);
        for (uint32_t i = 0; i < span->nslots; i++) {
            struct slot slot = span_slot(&mem->space, span, i);
            if (space_is_marked(&mem->space, &slot)) tri__mark_scan(mk, &slot);
            if (mk->buf && mk->buf->n > WORKBUF_ENTRIES / 2) tri__marker_drain(mk, 0);
        }
    }
}
