/* mark.c - the mark loop, scanning by layout, the prefetch ring; see mark.h. */
#include "gc/mark.h"
#include <string.h>
#include "alloc/base/atomic.h"
#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "gc/error.h"
#include "gc/heap.h"

/* How many entries are processed between two looks at the clock; with how many something is given away. */
enum { ENTRIES_A_CLOCK = 128, TRACE_BUDGET = 4096, SHARE_LEAST = 4 };

void tri__marker_init(struct marker *marker, tri_heap *heap) {
    *marker = (struct marker){.heap = heap, .space = &heap->mem.space};
}

/* ---- entries ------------------------------------------------------------------------------------------------- */

/* Without memory for a buffer: the object is marked and its span is scanned again later (R19). */
static TRI_COLD void push_without_memory(struct marker *mk, uintptr_t entry) {
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

static TRI_COLD bool push_new_buffer(struct marker *mk) {
    struct workbuf *buf = tri__work_get_empty(&mk->heap->work);
    if (!buf) return false;
    if (mk->buf) {
        tri__work_put_full(&mk->heap->work, mk->buf);
        mk->worked = true; /* R2: handed over */
    }
    mk->buf = buf;
    return true;
}

static inline void push(struct marker *mk, uintptr_t entry) {
    if (TRI_UNLIKELY(!mk->buf || mk->buf->n == WORKBUF_ENTRIES) && !push_new_buffer(mk)) {
        push_without_memory(mk, entry);
        return;
    }
    mk->buf->entries[mk->buf->n++] = entry;
}

/* False without memory: the caller goes on with it (R19). The position first, so that the tagged address is popped
 * before it; both in one buffer. */
static bool push_resume(struct marker *mk, uintptr_t addr, size_t from) {
    if ((!mk->buf || mk->buf->n + 2 > WORKBUF_ENTRIES) && !push_new_buffer(mk)) return false;
    mk->buf->entries[mk->buf->n++] = from;
    mk->buf->entries[mk->buf->n++] = addr | WORK_RESUME;
    return true;
}

static TRI_COLD bool pop_new_buffer(struct marker *mk) {
    struct workbuf *full = tri__work_get_full(&mk->heap->work);
    if (!full) return tri__copies_shade(mk) && mk->buf && mk->buf->n > 0; /* a piece without references: look again */
    if (mk->buf) tri__work_put_empty(&mk->heap->work, mk->buf);
    mk->buf = full;
    mk->worked = true; /* R2: popped */
    return true;
}

/* Where to cut a buffer in two: about the middle, and not between an entry and the position that belongs to it. Only
 * from the top can the two be told apart. */
static size_t cut_of(const struct workbuf *buf) {
    size_t at = buf->n;
    while (at > buf->n / 2) at -= (buf->entries[at - 1] & WORK_TAG_MASK) == WORK_RESUME ? 2 : 1;
    return at;
}

/* Somebody has nothing to do: gives the older half of what is in hand away, which is nearer to the roots and so leads
 * to more. */
static TRI_COLD void share(struct marker *mk) {
    struct workbuf *mine = mk->buf, *given;
    if (!mine || mine->n < SHARE_LEAST || !(given = tri__work_get_empty(&mk->heap->work))) return;
    size_t n = cut_of(mine);
    if (n == 0) {
        tri__work_put_empty(&mk->heap->work, given);
        return;
    }
    memcpy(given->entries, mine->entries, n * sizeof mine->entries[0]);
    memmove(mine->entries, mine->entries + n, (mine->n - n) * sizeof mine->entries[0]);
    given->n = n;
    mine->n -= n;
    tri__work_put_full(&mk->heap->work, given);
    mk->worked = true; /* R2: handed over */
}

void tri__marker_candidate(struct marker *mk, uintptr_t addr) {
    if (space_contains(mk->space, addr)) push(mk, (addr & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
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
    push(mk, slot.addr | WORK_MARKED);
    return true;
}

/* R4: a slot of somebody's hole counts (it is queued, not only marked); a free slot outside any hole does not. */
static void conservative_one(struct marker *mk, uintptr_t addr) {
    struct slot slot;
    if (space_find_slot(mk->space, addr, &slot) && space_is_allocated(mk->space, &slot))
        push(mk, slot.addr | WORK_CANDIDATE);
}

void tri__marker_conservative(struct marker *mk, uintptr_t word) {
    if (word - mk->space->base > mk->space->size_bytes) return; /* the end itself counts: word - 1 may be inside */
    conservative_one(mk, word);
    if ((word & (sizeof(void *) - 1)) == 0) conservative_one(mk, word - 1);
}

/* ---- scanning ------------------------------------------------------------------------------------------------ */

size_t tri__slot_bytes(const struct space *space, const struct slot *slot) {
    if (shape_kind(slot->shape) != PAGE_LARGE) return shape_slot_bytes(slot->shape);
    return space_span_of(space, slot->addr)->slot_bytes; /* ordered by the shape's acquire */
}

#if TRI_CHECKS >= 2
static void check_child(struct marker *mk, const tri_word *from, uintptr_t ref);
#define CHECK_CHILD(mk, from, ref) check_child(mk, from, ref)
#else
#define CHECK_CHILD(mk, from, ref) ((void)(from))
#endif

static inline void found_pointer(struct marker *mk, const tri_word *from, uintptr_t ref) {
    if (!space_contains(mk->space, ref)) return;
    CHECK_CHILD(mk, from, ref);
    push(mk, (ref & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
}

static inline tri_word slot_load(const tri_word *p) {
    return atomic_load_acquire(p); /* pairs with tri_store's release: the object's fields before its reference */
}

static void scan_mask(struct marker *mk, uintptr_t addr, uint64_t mask) {
    for (; mask; mask &= mask - 1) {
        const tri_word *p = (const tri_word *)addr + bit_lowest(mask);
        found_pointer(mk, p, (uintptr_t)slot_load(p));
    }
}

static void scan_run(struct marker *mk, const tri_word *p, const tri_word *end, const tri_enc *enc) {
    if (!enc) {
        for (; p < end; p++) found_pointer(mk, p, (uintptr_t)slot_load(p));
        return;
    }
    tri_enc e = *enc;
    for (; p < end; p++) {
        uintptr_t ref = enc_decode(&e, slot_load(p));
        if (ref) found_pointer(mk, p, ref);
    }
}

/* A maybe word is validated like a conservative one; tracing happens while the gate is open (R5). */
static void scan_maybe(struct marker *mk, const tri_word *p, const tri_enc *enc) {
    uintptr_t ref = enc_decode(enc, slot_load(p));
    if (ref && space_contains(mk->space, ref)) conservative_one(mk, ref);
}

static void scan_map(struct marker *mk, uintptr_t addr, const struct slot_map *map, const tri_enc *enc) {
    for (uint32_t base = 0; base < map->nwords; base += 64) {
        const tri_word *words = (const tri_word *)addr + base;
        scan_mask(mk, (uintptr_t)words, map->pointers[base / 64]);
        for (uint64_t m = map->values[base / 64]; m; m &= m - 1)
            scan_run(mk, words + bit_lowest(m), words + bit_lowest(m) + 1, enc);
        for (uint64_t m = map->maybes[base / 64]; m; m &= m - 1) scan_maybe(mk, words + bit_lowest(m), enc);
    }
}

/* Bytes of a piece of an array. */
static size_t piece_bytes(size_t stride) {
    size_t piece = MARK_PIECE_BYTES / stride * stride;
    return piece ? piece : stride;
}

/* Splits [from, to) so that several markers can share a long array: queues the pieces but the first, whose end it
 * returns, the last one first; a piece that is one already (`one`) is not split again. */
static uintptr_t piece_end(struct marker *mk, uintptr_t from, uintptr_t to, size_t stride, bool one) {
    size_t piece = piece_bytes(stride);
    if (to - from <= piece) return to;
    if (one) return from + piece;
    for (uintptr_t at = from + (to - from - 1) / piece * piece; at > from; at -= piece) {
        if (TRI_UNLIKELY(!mk->buf || mk->buf->n == WORKBUF_ENTRIES) && !push_new_buffer(mk))
            return at + piece < to ? at + piece : to; /* all that is not queued now (R19) */
        push(mk, at | WORK_PIECE); /* stride and size are multiples of 8 where there are slots (I-TYPE2) */
    }
    return from + piece;
}

/* Elements from `from` (the start of one) to the end of the slot, or of the piece: the allocated capacity, never a
 * length (R11). */
static void scan_elements(struct marker *mk, const struct layout *l, uintptr_t from, uintptr_t end, bool one) {
    const struct type_desc *d = l->desc;
    if (l->scan == SCAN_RUN_POINTERS || l->scan == SCAN_RUN_VALUES) {
        uintptr_t to = piece_end(mk, from, end & ~(uintptr_t)7, 8, one);
        mk->scanned_bytes += to - from;
        scan_run(mk, (const tri_word *)from, (const tri_word *)to, l->scan == SCAN_RUN_VALUES ? &d->enc : NULL);
        return;
    }
    if (d->elem.nwords == 0) return;
    size_t n = (end - from) / d->elem_size;
    uintptr_t to = piece_end(mk, from, from + n * d->elem_size, d->elem_size, one);
    mk->scanned_bytes += to - from;
    for (; from < to; from += d->elem_size) scan_map(mk, from, &d->elem, &d->enc);
}

static void scan_traced(struct marker *mk, const struct type_desc *d, uintptr_t addr, size_t from) {
    IN_CALLBACK(TRACE_CALLBACK);
    do {
        struct tri_visitor visitor = {.marker = mk, .desc = d};
        from = d->type->trace(&visitor, (void *)addr, from, TRACE_BUDGET);
        mk->scanned_bytes += visitor.nvisited * 8;
    } while (from != 0 && !push_resume(mk, addr, from)); /* without memory for the position: all of it now (R19) */
}

static void scan_object(struct marker *mk, const struct slot *slot) {
    uint32_t number = space_layout_of(mk->space, slot);
    const struct layout *l = &tri__layouts[number];
    switch ((enum scan_shape)l->scan) {
    case SCAN_LEAF: return; /* also a slot of a mixed span without a layout yet (R15) */
    case SCAN_MASK: scan_mask(mk, slot->addr, l->mask); return;
    case SCAN_RUN_POINTERS:
    case SCAN_RUN_VALUES:
        scan_elements(mk, l, slot->addr + l->run_from, slot->addr + tri__slot_bytes(mk->space, slot), false);
        return;
    case SCAN_GENERAL:
        scan_map(mk, slot->addr, &l->desc->fixed, &l->desc->enc);
        if (l->desc->elem_size)
            scan_elements(mk, l, slot->addr + l->desc->size, slot->addr + tri__slot_bytes(mk->space, slot), false);
        return;
    case SCAN_TRACE: scan_traced(mk, l->desc, slot->addr, 0); return;
    }
}

static void scan_piece(struct marker *mk, uintptr_t from) {
    struct slot slot;
    bool found = space_find_slot(mk->space, from, &slot);
    check_internal(found, "I-MARK1: a piece lies in its object");
    if (found)
        scan_elements(mk, &tri__layouts[space_layout_of(mk->space, &slot)], from,
                      slot.addr + tri__slot_bytes(mk->space, &slot), true);
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

/* Every kind of entry, the long way. */
static void process(struct marker *mk, uintptr_t entry) {
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
    default: scan_piece(mk, addr); return;
    }
    scan_object(mk, &slot);
}

/* The rest of a traced object: its position lies below its entry, in the same buffer (push_resume). */
static void resume_traced(struct marker *mk, uintptr_t entry) {
    size_t from = mk->buf->entries[--mk->buf->n];
    struct slot slot;
    uintptr_t addr = entry & ~(uintptr_t)WORK_TAG_MASK;
    if (space_find_slot(mk->space, addr, &slot))
        scan_traced(mk, tri__layouts[space_layout_of(mk->space, &slot)].desc, addr, from);
}

/* What the loop keeps in registers: the buffer in hand, the ring's ends, the counts. Between hot_leave and hot_enter
 * the marker itself is up to date. */
struct hot {
    uintptr_t *top, *base, *end;
    unsigned head, tail;
    uint64_t objects, bytes;
};

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
        push(mk, entry);
        hot_enter(h, mk);
        return;
    }
    *h->top++ = entry;
}

HOT bool hot_pop(struct hot *h, struct marker *mk, uintptr_t *entry) {
    if (TRI_UNLIKELY(h->top == h->base)) {
        hot_leave(h, mk);
        bool more = pop_new_buffer(mk);
        hot_enter(h, mk);
        if (!more) return false;
    }
    *entry = *--h->top;
    return true;
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
        if (atomic_load_relaxed(word) & bit) return; /* as space_set_mark */
        if (atomic_or_relaxed(word, bit) & bit) return;
        h->objects++;
        h->bytes += shape_slot_bytes(shape);
        const struct layout *layout = &tri__layouts[shape_layout(shape)];
        if (layout->scan == SCAN_LEAF) return;
        if (TRI_LIKELY(layout->scan == SCAN_MASK)) {
            for (uint64_t mask = layout->mask; mask; mask &= mask - 1) {
                const tri_word *p = (const tri_word *)slot.addr + bit_lowest(mask);
                uintptr_t ref = (uintptr_t)slot_load(p);
                if (!space_contains(space, ref)) continue;
                CHECK_CHILD(mk, p, ref);
                hot_push(h, mk, (ref & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
            }
            return;
        }
        hot_leave(h, mk);
        scan_object(mk, &slot);
        hot_enter(h, mk);
        return;
    }
    hot_leave(h, mk);
    process(mk, entry);
    hot_enter(h, mk);
}

/* Fills the ring (false: nothing is left): each entry's mark word and object are on their way while the ones before it
 * are worked on. */
HOT bool hot_fill(struct hot *h, struct marker *mk, const struct space *space) {
    uintptr_t entry;
    while (h->head - h->tail < MARK_RING && hot_pop(h, mk, &entry)) {
        if (TRI_UNLIKELY((entry & WORK_TAG_MASK) == WORK_RESUME)) {
            hot_leave(h, mk);
            resume_traced(mk, entry);
            hot_enter(h, mk);
            return true; /* a slice of tracing is much: look at the clock */
        }
        __builtin_prefetch(&space->marks[(entry - space->base) >> (GRANULE_SHIFT + 6)], 1);
        __builtin_prefetch((const void *)entry);
        mk->ring[h->head++ & MARK_RING_MASK] = entry;
    }
    return h->head != h->tail;
}

bool tri__marker_drain(struct marker *mk, uint64_t deadline_ns) {
    /* Relaxed: whoever comes here has seen `tracing`, which was set after the last answer. */
    check_cheap(atomic_load_relaxed(&mk->heap->pending) == 0 && heap_phase(mk->heap) >= PHASE_MARK &&
                    heap_phase(mk->heap) <= PHASE_DEATH,
                "I-CYC3: nothing is traced before the last scan answer, nor during a round (R3, R4)");
    const struct space space = {.base = mk->space->base, /* the constant ones, in registers */
                                .size_bytes = mk->space->size_bytes,
                                .pages = mk->space->pages,
                                .marks = mk->space->marks};
    struct hot h;
    hot_enter(&h, mk);
    bool empty = false;
    do {
        for (unsigned n = 0; n < ENTRIES_A_CLOCK; n++) {
            empty = !hot_fill(&h, mk, &space);
            if (empty) break;
            if (h.head != h.tail) hot_process(&h, mk, &space, mk->ring[h.tail++ & MARK_RING_MASK]);
        }
        if (work_is_wanted(&mk->heap->work)) {
            hot_leave(&h, mk);
            share(mk);
            hot_enter(&h, mk);
        }
    } while (!empty && (deadline_ns == 0 || tri__os_now_ns() < deadline_ns));
    hot_leave(&h, mk);
    return empty;
}

void tri__marker_take(struct marker *mk, struct workbuf *buf) {
    check_internal(tri__marker_is_idle(mk), "I-MARK2: who takes a buffer holds nothing");
    if (mk->buf) tri__work_put_empty(&mk->heap->work, mk->buf);
    mk->buf = buf;
    mk->worked = true; /* R2: popped */
}

bool tri__marker_hand_over(struct marker *mk) {
    while (mk->head != mk->tail) push(mk, mk->ring[mk->tail++ & MARK_RING_MASK]);
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
    return mk->head == mk->tail && (!mk->buf || mk->buf->n == 0);
}

void tri__marker_rescan(struct marker *mk, uint8_t why) {
    struct memory *mem = &mk->heap->mem;
    atomic_store_release(&mk->heap->work.rescan, 0); /* set again by whoever runs out of memory again */
    size_t npages = atomic_load_acquire(&mem->space.committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages; page++) {
        if (!shape_has_objects(atomic_load_acquire(&mem->space.pages[page].shape))) continue; /* span_publish */
        struct span *span = atomic_load_relaxed(&mem->space.spans[page]); /* ordered by the shape's acquire */
        if (span->first_page != page || !(atomic_load_acquire(&span->rescan) & why)) continue; /* push_without_memory */
        atomic_and_acqrel(&span->rescan, (uint8_t)~why);
        for (uint32_t i = 0; i < span->nslots; i++) {
            struct slot slot = span_slot(&mem->space, span, i);
            if (space_is_marked(&mem->space, &slot)) scan_object(mk, &slot);
            if (mk->buf && mk->buf->n > WORKBUF_ENTRIES / 2) tri__marker_drain(mk, 0);
        }
    }
}

/* ---- visitors ------------------------------------------------------------------------------------------------ */

/* Roots that change hands while armed: shaded, which counts for R2 only if it turned something grey. */
void tri__marker_shade_words(struct marker *mk, const tri_word *p, const tri_word *end, const tri_enc *enc) {
    static const tri_enc plain = {0, 0, ~0ull, ~0ull};
    for (; p < end; p++) {
        uintptr_t ref = enc_decode(enc ? enc : &plain, slot_load(p));
        if (ref && space_contains(mk->space, ref)) tri__marker_shade(mk, ref);
    }
}

static void visit_each(tri_visitor *visitor, const tri_word *p, size_t n, const tri_enc *enc) {
    for (size_t i = 0; i < n; i++) {
        tri_word w = slot_load(p + i);
        visitor->each(visitor->context, p + i, enc ? enc_decode(enc, w) : (uintptr_t)w,
                      enc ? SLOT_VALUE : SLOT_POINTER);
    }
}

void tri_visit(tri_visitor *visitor, const void *slots, size_t n) {
    visitor->nvisited += n;
    if (TRI_UNLIKELY(visitor->each != NULL)) {
        visit_each(visitor, slots, n, NULL);
        return;
    }
    if (visitor->shade) {
        tri__marker_shade_words(visitor->marker, slots, (const tri_word *)slots + n, NULL);
        return;
    }
    scan_run(visitor->marker, slots, (const tri_word *)slots + n, NULL);
}

void tri_visit_values(tri_visitor *visitor, const void *slots, size_t n, const tri_enc *enc) {
    visitor->nvisited += n;
    if (TRI_UNLIKELY(visitor->each != NULL)) {
        visit_each(visitor, slots, n, enc);
        return;
    }
    if (visitor->shade) {
        tri__marker_shade_words(visitor->marker, slots, (const tri_word *)slots + n, enc);
        return;
    }
    scan_run(visitor->marker, slots, (const tri_word *)slots + n, enc);
}

#if TRI_CHECKS >= 2
/* I-MARK3: what a precise slot of the heap names is allocated; anything else was freed under it. */
static void check_child(struct marker *mk, const tri_word *from, uintptr_t ref) {
    struct slot child, owner;
    if (space_find_slot(mk->space, ref, &child) && space_is_allocated(mk->space, &child)) return;
    if (manual_span_of(mk->space, ref)) return; /* like a pointer outside the heap */
    struct space *space = mk->space;
    const char *where = "a root";
    size_t offset = 0;
    if (space_find_slot(space, (uintptr_t)from, &owner)) {
        where = layout_name(space_layout_of(space, &owner));
        offset = (uintptr_t)from - owner.addr;
    }
    uint32_t was = 0;
    if (space_find_slot(space, ref, &child))
        was = poison_layout(((const uint64_t *)child.addr)[tri__slot_bytes(space, &child) >= 16]);
    if (!tri__stress_may_report(mk->heap)) return;
    tri__report(mk->heap, "mark",
                "%s at offset %zu names freed memory%s%s: an object was freed while it was reachable; "
                "stored without tri_store, or not rooted at a safepoint?",
                where, offset, was ? ", once of type " : "", was ? layout_name(was) : "");
}
#endif

/* ---- plain enumeration, for checkmark and verify --------------------------------------------------------------- */

static void each_in_map(uintptr_t addr, const struct slot_map *map, const tri_enc *enc, slot_visit_fn visit,
                        void *context) {
    for (uint32_t i = 0; i < map->nwords; i++) {
        uint64_t bit = 1ull << (i % 64);
        const tri_word *p = (const tri_word *)addr + i;
        if (map->pointers[i / 64] & bit)
            visit(context, p, (uintptr_t)slot_load(p), SLOT_POINTER);
        else if (map->values[i / 64] & bit)
            visit(context, p, enc_decode(enc, slot_load(p)), SLOT_VALUE);
        else if (map->maybes[i / 64] & bit)
            visit(context, p, enc_decode(enc, slot_load(p)), SLOT_MAYBE);
    }
}

void tri__mark_each_slot(struct space *space, const struct slot *slot, slot_visit_fn visit, void *context) {
    const struct type_desc *d = tri__layouts[space_layout_of(space, slot)].desc;
    if (!d) return;
    each_in_map(slot->addr, &d->fixed, &d->enc, visit,
                context); /* a traced type has no map: its callback is not run here */
    if (d->elem_size == 0 || d->elem.nwords == 0) return;
    uintptr_t end = slot->addr + tri__slot_bytes(space, slot);
    for (uintptr_t e = slot->addr + d->size; e + d->elem_size <= end; e += d->elem_size)
        each_in_map(e, &d->elem, &d->enc, visit, context);
}
