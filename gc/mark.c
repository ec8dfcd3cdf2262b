/* mark.c - the mark loop, scanning by layout, the prefetch ring; see mark.h. */
#include "gc/mark.h"
#include "alloc/base/atomic.h"
#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "gc/error.h"
#include "gc/heap.h"

/* How many entries are processed between two looks at the clock. */
enum { ENTRIES_A_CLOCK = 128, TRACE_BUDGET = 4096 };

void tri__marker_init(struct marker *marker, tri_heap *heap) {
    *marker = (struct marker){.heap = heap, .space = &heap->mem.space};
}

/* ---- entries ------------------------------------------------------------------------------------------------- */

/* Without memory for a buffer: the object is marked and its span is scanned again later (R19). */
static TRI_COLD void push_without_memory(struct marker *mk, uintptr_t entry) {
    struct slot slot;
    uintptr_t addr = entry & ~(uintptr_t)WORK_TAG_MASK;
    if (!space_find_slot(mk->space, addr, &slot)) return;
    space_set_mark(mk->space, &slot);
    struct span *span = space_span_of(mk->space, slot.addr);
    atomic_store_release(&span->rescan, 1);          /* pairs with the acquire in marker_rescan */
    atomic_store_release(&mk->heap->work.rescan, 1); /* pairs with work_is_empty */
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

/* The position first, so that the tagged address is popped before it; both in one buffer. */
static void push_resume(struct marker *mk, uintptr_t addr, size_t from) {
    if ((!mk->buf || mk->buf->n + 2 > WORKBUF_ENTRIES) && !push_new_buffer(mk)) {
        push_without_memory(mk, addr);
        return;
    }
    mk->buf->entries[mk->buf->n++] = from;
    mk->buf->entries[mk->buf->n++] = addr | WORK_RESUME;
}

static TRI_COLD bool pop_new_buffer(struct marker *mk) {
    struct workbuf *full = tri__work_get_full(&mk->heap->work);
    if (!full) return false;
    if (mk->buf) tri__work_put_empty(&mk->heap->work, mk->buf);
    mk->buf = full;
    mk->worked = true; /* R2: popped */
    return true;
}

static inline bool pop(struct marker *mk, uintptr_t *entry) {
    if (TRI_UNLIKELY(!mk->buf || mk->buf->n == 0) && !pop_new_buffer(mk)) return false;
    *entry = mk->buf->entries[--mk->buf->n];
    return true;
}

void tri__marker_candidate(struct marker *mk, uintptr_t addr) {
    if (space_contains(mk->space, addr)) push(mk, (addr & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
}

bool tri__marker_shade(struct marker *mk, uintptr_t addr) {
    struct slot slot;
    if (!space_find_slot(mk->space, addr, &slot) || !space_set_mark(mk->space, &slot)) return false;
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

/* Splits [from, to) so that a long array goes in pieces: queues the rest and returns where this piece ends. */
static uintptr_t piece_end(struct marker *mk, uintptr_t from, uintptr_t to, size_t stride) {
    size_t piece = MARK_PIECE_BYTES / stride * stride;
    if (piece == 0) piece = stride;
    if (to - from <= piece) return to;
    push(mk, (from + piece) | WORK_PIECE); /* stride and size are multiples of 8 where there are slots (I-TYPE2) */
    return from + piece;
}

/* Elements from `from` (the start of one) to the end of the slot: the allocated capacity, never a length (R11). */
static void scan_elements(struct marker *mk, const struct layout *l, uintptr_t from, uintptr_t end) {
    const struct type_desc *d = l->desc;
    if (l->scan == SCAN_RUN_POINTERS || l->scan == SCAN_RUN_VALUES) {
        uintptr_t to = piece_end(mk, from, end & ~(uintptr_t)7, 8);
        mk->scanned_bytes += to - from;
        scan_run(mk, (const tri_word *)from, (const tri_word *)to, l->scan == SCAN_RUN_VALUES ? &d->enc : NULL);
        return;
    }
    if (d->elem.nwords == 0) return;
    size_t n = (end - from) / d->elem_size;
    uintptr_t to = piece_end(mk, from, from + n * d->elem_size, d->elem_size);
    mk->scanned_bytes += to - from;
    for (; from < to; from += d->elem_size) scan_map(mk, from, &d->elem, &d->enc);
}

static void scan_traced(struct marker *mk, const struct type_desc *d, uintptr_t addr, size_t from) {
    struct tri_visitor visitor = {mk, d, 0};
    size_t next = d->type->trace(&visitor, (void *)addr, from, TRACE_BUDGET);
    mk->scanned_bytes += visitor.nvisited * 8;
    if (next != 0) push_resume(mk, addr, next);
}

static void scan_object(struct marker *mk, const struct slot *slot) {
    uint32_t number = space_layout_of(mk->space, slot);
    const struct layout *l = &tri__layouts[number];
    switch ((enum scan_shape)l->scan) {
    case SCAN_LEAF: return; /* also a slot of a mixed span without a layout yet (R15) */
    case SCAN_MASK:
        mk->scanned_bytes += l->desc->size;
        scan_mask(mk, slot->addr, l->mask);
        return;
    case SCAN_RUN_POINTERS:
    case SCAN_RUN_VALUES:
        scan_elements(mk, l, slot->addr + l->run_from, slot->addr + tri__slot_bytes(mk->space, slot));
        return;
    case SCAN_GENERAL:
        mk->scanned_bytes += (size_t)l->desc->fixed.nwords * 8;
        scan_map(mk, slot->addr, &l->desc->fixed, &l->desc->enc);
        if (l->desc->elem_size)
            scan_elements(mk, l, slot->addr + l->desc->size, slot->addr + tri__slot_bytes(mk->space, slot));
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
                      slot.addr + tri__slot_bytes(mk->space, &slot));
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

static inline void process(struct marker *mk, uintptr_t entry) {
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

static void prefetch_entry(const struct marker *mk, uintptr_t entry) {
    uintptr_t addr = entry & ~(uintptr_t)WORK_TAG_MASK;
    __builtin_prefetch(&mk->space->marks[(addr - mk->space->base) >> (GRANULE_SHIFT + 6)], 1);
    __builtin_prefetch((const void *)addr);
}

bool tri__marker_drain(struct marker *mk, uint64_t deadline_ns) {
    unsigned since_clock = 0;
    for (;;) {
        uintptr_t entry;
        while (mk->head - mk->tail < MARK_RING && pop(mk, &entry)) {
            if ((entry & WORK_TAG_MASK) == WORK_RESUME) {
                size_t from = mk->buf->entries[--mk->buf->n];
                struct slot slot;
                uintptr_t addr = entry & ~(uintptr_t)WORK_TAG_MASK;
                if (space_find_slot(mk->space, addr, &slot))
                    scan_traced(mk, tri__layouts[space_layout_of(mk->space, &slot)].desc, addr, from);
            } else {
                prefetch_entry(mk, entry);
                mk->ring[mk->head++ & MARK_RING_MASK] = entry;
            }
            if (deadline_ns && ++since_clock >= ENTRIES_A_CLOCK * 4) break;
        }
        if (mk->head == mk->tail) {
            if (deadline_ns == 0 || since_clock < ENTRIES_A_CLOCK * 4) return true;
        } else {
            process(mk, mk->ring[mk->tail++ & MARK_RING_MASK]);
        }
        if (deadline_ns && ++since_clock >= ENTRIES_A_CLOCK) {
            since_clock = 0;
            if (tri__os_now_ns() >= deadline_ns) return tri__marker_is_idle(mk) && tri__work_is_empty(&mk->heap->work);
        }
    }
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

void tri__marker_rescan(struct marker *mk) {
    struct memory *mem = &mk->heap->mem;
    atomic_store_release(&mk->heap->work.rescan, 0); /* set again by whoever runs out of memory again */
    size_t npages = atomic_load_acquire(&mem->space.committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages; page++) {
        if (shape_kind(atomic_load_acquire(&mem->space.pages[page].shape)) == PAGE_NONE) continue; /* span_publish */
        struct span *span = atomic_load_relaxed(&mem->space.spans[page]); /* ordered by the shape's acquire */
        if (span->first_page != page || !atomic_load_acquire(&span->rescan)) continue; /* push_without_memory */
        atomic_store_relaxed(&span->rescan, 0);
        for (uint32_t i = 0; i < span->nslots; i++) {
            struct slot slot = span_slot(&mem->space, span, i);
            if (space_is_marked(&mem->space, &slot)) scan_object(mk, &slot);
            if (mk->buf && mk->buf->n > WORKBUF_ENTRIES / 2) tri__marker_drain(mk, 0);
        }
    }
}

/* ---- visitors ------------------------------------------------------------------------------------------------ */

void tri_visit(tri_visitor *visitor, const void *slots, size_t n) {
    visitor->nvisited += n;
    scan_run(visitor->marker, slots, (const tri_word *)slots + n, NULL);
}

void tri_visit_values(tri_visitor *visitor, const void *slots, size_t n, const tri_enc *enc) {
    visitor->nvisited += n;
    scan_run(visitor->marker, slots, (const tri_word *)slots + n, enc);
}

#if TRI_CHECKS >= 2
/* I-MARK3: what a precise slot of the heap names is allocated; anything else was freed under it. */
static void check_child(struct marker *mk, const tri_word *from, uintptr_t ref) {
    struct slot child, owner;
    if (space_find_slot(mk->space, ref, &child) && space_is_allocated(mk->space, &child)) return;
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
    atomic_add_relaxed(&mk->heap->stress.reports, 1);
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
