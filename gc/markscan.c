/* markscan.c - scanning objects by their layouts, the visitors of trace and root callbacks, and the plain enumeration
 * of an object's slots for the checking modes; see mark.h.
 *
 * Owns: how each kind of slot is read. What is found goes to mark_candidate (mark_inline.h). */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"
#include "gc/mark_inline.h"

enum { TRACE_BUDGET = 1024 };

size_t tri__slot_bytes(const struct space *space, const struct slot *slot) {
    if (shape_kind(slot->shape) != PAGE_LARGE) return shape_slot_bytes(slot->shape);
    return space_span_of(space, slot->addr)->slot_bytes; /* ordered by the shape's acquire */
}

/* What a slot names. */
static inline void found_pointer(struct marker *mk, const tri_word *from, uintptr_t ref) {
    if (!space_contains(mk->space, ref)) return;
    CHECK_CHILD(mk, from, ref);
    mark_candidate(mk, ref);
}

/* False without memory: the caller goes on with it (R19). The position first, so that the tagged address is popped
 * before it; both in one buffer. */
static bool push_resume(struct marker *mk, uintptr_t addr, size_t from) {
    if ((!mk->buf || mk->buf->n + 2 > WORKBUF_ENTRIES) && !tri__mark_new_buffer(mk)) return false;
    mk->buf->entries[mk->buf->n++] = from;
    mk->buf->entries[mk->buf->n++] = addr | WORK_RESUME;
    return true;
}

static void scan_mask(struct marker *mk, uintptr_t addr, uint64_t mask) {
    for (; mask; mask &= mask - 1) {
        const tri_word *p = (const tri_word *)addr + bit_lowest(mask);
        found_pointer(mk, p, (uintptr_t)slot_load(p));
    }
}

static void scan_values(struct marker *mk, uintptr_t addr, uint64_t mask, const tri_enc *enc) {
    for (; mask; mask &= mask - 1) {
        const tri_word *p = (const tri_word *)addr + bit_lowest(mask);
        uintptr_t ref = enc_decode(enc, slot_load(p));
        if (ref) found_pointer(mk, p, ref);
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
    if (ref && space_contains(mk->space, ref)) tri__mark_maybe(mk, ref);
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

/* Bytes of a piece of an array: markers share it by these. A long array has MARK_PIECES at most. */
static size_t piece_bytes(size_t stride, size_t all_bytes) {
    size_t piece = max_size(MARK_PIECE_BYTES, all_bytes / MARK_PIECES) / stride * stride;
    return piece ? piece : stride;
}

/* Queues the pieces of [base, end) but the first, whose end it returns, the last one first. */
static uintptr_t queue_pieces(struct marker *mk, uintptr_t base, uintptr_t end, size_t piece) {
    if (end - base <= piece) return end;
    for (uintptr_t at = base + (end - base - 1) / piece * piece; at > base; at -= piece) {
        if (TRI_UNLIKELY(!mk->buf || mk->buf->n == WORKBUF_ENTRIES) && !tri__mark_new_buffer(mk))
            return at + piece < end ? at + piece : end; /* all that is not queued now (R19) */
        mark_push(mk, at | WORK_PIECE); /* stride and size are multiples of 8 where there are slots (I-TYPE2) */
    }
    return base + piece;
}

/* What is left of a piece behind its first part goes below what that part leads to; without memory it is done now. */
static uintptr_t part_end(struct marker *mk, uintptr_t from, uintptr_t to, size_t stride) {
    size_t part = stride < MARK_PART_BYTES ? MARK_PART_BYTES / stride * stride : stride;
    if (to - from <= part) return to;
    if (TRI_UNLIKELY(!mk->buf || mk->buf->n == WORKBUF_ENTRIES) && !tri__mark_new_buffer(mk)) return to;
    mark_push(mk, (from + part) | WORK_PIECE);
    return from + part;
}

/* Elements from `from` on, in a slot whose elements lie in [base, end), the allocated capacity, never a length (R11):
 * the first part of the piece that begins there, or goes on there. The first time (`from` is `base`) all other pieces
 * are queued. */
static void scan_elements(struct marker *mk, const struct layout *l, uintptr_t base, uintptr_t end, uintptr_t from) {
    const struct type_desc *d = l->desc;
    bool run = l->scan == SCAN_RUN_POINTERS || l->scan == SCAN_RUN_VALUES;
    size_t stride = run ? 8 : d->elem_size;
    if (!run && d->elem.nwords == 0) return;
    end = base + (end - base) / stride * stride;
    size_t piece = piece_bytes(stride, end - base);
    uintptr_t to = from == base ? queue_pieces(mk, base, end, piece) : base + ((from - base) / piece + 1) * piece;
    to = part_end(mk, from, to < end ? to : end, stride);
    mk->scanned_bytes += to - from;
    mk->cost_words += (to - from) / 8;
    if (run)
        scan_run(mk, (const tri_word *)from, (const tri_word *)to, l->scan == SCAN_RUN_VALUES ? &d->enc : NULL);
    else
        for (; from < to; from += stride) scan_map(mk, from, &d->elem, &d->enc);
}

/* Where the elements of a slot begin. */
static uintptr_t elements_of(const struct layout *l, const struct slot *slot) {
    return slot->addr + (l->scan == SCAN_GENERAL ? l->desc->size : l->run_from);
}

static void scan_traced(struct marker *mk, const struct type_desc *d, uintptr_t addr, size_t from) {
    IN_CALLBACK(TRACE_CALLBACK);
    do {
        struct tri_visitor visitor = {.marker = mk, .desc = d};
        from = d->type->trace(&visitor, (void *)addr, from, TRACE_BUDGET);
        mk->scanned_bytes += visitor.nvisited * 8;
        mk->cost_words += visitor.nvisited;
    } while (from != 0 && !push_resume(mk, addr, from)); /* without memory for the position: all of it now (R19) */
}

void tri__mark_scan(struct marker *mk, const struct slot *slot) {
    uint32_t number = space_layout_of(mk->space, slot);
    const struct layout *l = &tri__layouts[number];
    switch ((enum scan_shape)l->scan) {
    case SCAN_LEAF: return; /* also a slot of a mixed span without a layout yet (R15) */
    case SCAN_MASK: scan_mask(mk, slot->addr, l->mask); return;
    case SCAN_VALUES: scan_values(mk, slot->addr, l->mask, &l->desc->enc); return;
    case SCAN_GENERAL:
        scan_map(mk, slot->addr, &l->desc->fixed, &l->desc->enc);
        mk->cost_words += l->desc->fixed.nwords;
        if (!l->desc->elem_size) return; /* else its elements: */
        /* fall through */
    case SCAN_RUN_POINTERS:
    case SCAN_RUN_VALUES: {
        uintptr_t base = elements_of(l, slot);
        scan_elements(mk, l, base, slot->addr + tri__slot_bytes(mk->space, slot), base);
        return;
    }
    case SCAN_TRACE: scan_traced(mk, l->desc, slot->addr, 0); return;
    }
}

void tri__mark_scan_piece(struct marker *mk, uintptr_t from) {
    struct slot slot;
    bool found = space_find_slot(mk->space, from, &slot);
    check_internal(found, "I-MARK1: a piece lies in its object");
    if (!found) return;
    const struct layout *l = &tri__layouts[space_layout_of(mk->space, &slot)];
    scan_elements(mk, l, elements_of(l, &slot), slot.addr + tri__slot_bytes(mk->space, &slot), from);
}

/* The rest of a traced object: its position lies below its entry, in the same buffer (push_resume). */
void tri__mark_resume(struct marker *mk, uintptr_t entry) {
    size_t from = mk->buf->entries[--mk->buf->n];
    struct slot slot;
    uintptr_t addr = entry & ~(uintptr_t)WORK_TAG_MASK;
    if (space_find_slot(mk->space, addr, &slot))
        scan_traced(mk, tri__layouts[space_layout_of(mk->space, &slot)].desc, addr, from);
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
void tri__mark_check_child(struct marker *mk, const tri_word *from, uintptr_t ref) {
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
