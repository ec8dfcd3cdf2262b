/* span.c - formatting spans, their holes and their sweep; see span.h. */
#include "alloc/span.h"
#include <string.h>
#include "alloc/base/check.h"

/* The words of bits that belong to a span, in one place for both kinds of storage. */
struct bit_words {
    uint64_t *marks, *allocs;
    size_t nwords;
    unsigned shift; /* granule of the bits: 4, or 3 in tiny spans */
};

static struct bit_words words_of(const struct space *space, const struct span *span) {
    struct bit_words w;
    if (span->kind == PAGE_TINY) {
        uintptr_t end = span_base(space, span) + PAGE_BYTES;
        w.marks = (uint64_t *)(end - 2 * TINY_BITS_BYTES);
        w.allocs = (uint64_t *)(end - TINY_BITS_BYTES);
        w.nwords = TINY_BITS_BYTES / 8;
        w.shift = 3;
    } else {
        w.marks = &space->marks[span->first_page * PAGE_BIT_WORDS];
        w.allocs = &space->allocs[span->first_page * PAGE_BIT_WORDS];
        w.nwords = span->kind == PAGE_LARGE ? 1 : span->npages * PAGE_BIT_WORDS;
        w.shift = GRANULE_SHIFT;
    }
    return w;
}

void tri__span_format_small(struct span *span, size_t first_page, unsigned class_index, uint32_t layout, uint8_t flags,
                            bool mixed, bool dirty) {
    const struct size_class *c = &tri__size_classes[class_index];
    span->next = span->prev = NULL;
    span->kind = (uint8_t)(class_index == 1 ? PAGE_TINY : mixed ? PAGE_MIXED : PAGE_SMALL);
    span->class_index = (uint8_t)class_index;
    span->flags = flags;
    span->layout = layout;
    span->nslots = c->nslots;
    span->nalloc = 0;
    span->next_slot = 0;
    span->returned = 0;
    span->dirty = dirty;
    atomic_store_relaxed(&span->rescan, 0); /* nobody else has the span */
    span->slot_bytes = c->slot_bytes;
    span->first_page = first_page;
    span->npages = c->npages;
}

void tri__span_format_large(struct span *span, size_t first_page, size_t npages, uint32_t layout, uint8_t flags,
                            bool dirty) {
    span->next = span->prev = NULL;
    span->kind = PAGE_LARGE;
    span->class_index = 0;
    span->flags = flags;
    span->layout = layout;
    span->nslots = 1;
    span->nalloc = 1;
    span->next_slot = 1;
    span->returned = 0;
    span->dirty = dirty;
    atomic_store_relaxed(&span->rescan, 0); /* nobody else has the span */
    span->slot_bytes = npages << PAGE_SHIFT;
    span->first_page = first_page;
    span->npages = npages;
}

void tri__span_publish(struct space *space, struct span *span) {
    uint64_t shape = shape_make((enum page_kind)span->kind, span->class_index, span->layout,
                                span->kind == PAGE_LARGE ? 0 : (uint32_t)span->slot_bytes);
    uint64_t place = 0;
    if (span->kind != PAGE_LARGE)
        place = (uint64_t)tri__size_classes[span->class_index].reciprocal | (uint64_t)span->nslots << 48;
    if (span->kind == PAGE_TINY && span->dirty) /* its bits lie in the span: clear before anyone can read them */
        memset((void *)(span_base(space, span) + PAGE_BYTES - 2 * TINY_BITS_BYTES), 0, 2 * TINY_BITS_BYTES);
    for (size_t i = span->npages; i-- > 0;) {
        size_t page = span->first_page + i;
        check_internal(atomic_load_relaxed(&space->pages[page].shape) == 0, "I-SPAN2: a page has one span");
        atomic_store_relaxed(&space->spans[page], span); /* before the shape's release */
        atomic_store_relaxed(&space->pages[page].place, place | (uint64_t)i << 32);
        atomic_store_release(&space->pages[page].shape, shape); /* I-ARENA2; pairs with space_find_slot */
    }
}

void tri__span_unpublish(struct space *space, struct span *span) {
    for (size_t i = 0; i < span->npages; i++) {
        size_t page = span->first_page + i;
        atomic_store_release(&space->pages[page].shape, 0); /* lookups run under the gate lock, or in a cycle (R13) */
        atomic_store_relaxed(&space->spans[page], NULL);
    }
    struct bit_words w = words_of(space, span);
    if (span->kind == PAGE_TINY) return; /* its bits go with its pages, which count as dirty */
    for (size_t i = 0; i < w.nwords; i++) {
        atomic_store_relaxed(&w.allocs[i], 0);
        atomic_store_relaxed(&w.marks[i], 0);
    }
}

/* The bits of the first granules of slots, a word at a time: bits are set at those only (I-ARENA3). */
struct starts {
    size_t word;       /* of the bits */
    unsigned bit;      /* of the first start in it */
    unsigned granules; /* from one start to the next */
    uint64_t pattern;  /* every granules-th bit */
};

static struct starts starts_from(const struct bit_words *w, const struct span *span, uint32_t index) {
    size_t granule = ((size_t)index * span->slot_bytes) >> w->shift, granules = span->slot_bytes >> w->shift;
    uint64_t pattern = 1;
    for (size_t step = granules; step < 64; step <<= 1) pattern |= pattern << step;
    return (struct starts){granule >> 6, (unsigned)(granule & 63), (unsigned)min_size(granules, 1u << 30), pattern};
}

static inline uint64_t starts_here(const struct starts *s) {
    return s->pattern << s->bit;
}

static inline void starts_next(struct starts *s) {
    size_t next = s->bit + (size_t)bit_count(starts_here(s)) * s->granules;
    s->word += next >> 6;
    s->bit = (unsigned)(next & 63);
}

/* The slot that begins at, or holds, this granule of the span. I-CLASS2 makes it a product. */
static inline uint32_t slot_at(const struct bit_words *w, const struct span *span, size_t granule) {
    return (uint32_t)((uint64_t)(granule << w->shift) * tri__size_classes[span->class_index].reciprocal >> 32);
}

static inline size_t granule_after(const struct bit_words *w, const struct span *span, uint32_t nslots) {
    return ((size_t)nslots * span->slot_bytes) >> w->shift;
}

#if TRI_CHECKS >= 2
static bool slot_is_free(const struct bit_words *w, const struct span *span, uint32_t index) {
    size_t granule = granule_after(w, span, index);
    return (atomic_load_relaxed(&w->allocs[granule >> 6]) >> (granule & 63) & 1) == 0; /* own writes only (I-SPAN1) */
}
#endif

/* The first allocated slot after the free slot i, or nslots; looks no further than max_slots. */
static uint32_t next_allocated(const struct bit_words *w, const struct span *span, uint32_t i, uint32_t max_slots) {
    size_t granule = granule_after(w, span, i);
    size_t limit = granule_after(w, span, (uint32_t)min_size(span->nslots, (size_t)i + max_slots));
    uint64_t bits = atomic_load_relaxed(&w->allocs[granule >> 6]) & ~0ull << (granule & 63); /* holder's own words */
    for (size_t word = granule >> 6; (word << 6) < limit;) {
        if (bits) return slot_at(w, span, (word << 6) + bit_lowest(bits));
        if (++word < w->nwords) bits = atomic_load_relaxed(&w->allocs[word]);
    }
    return span->nslots;
}

uint32_t tri__span_find_free(const struct space *space, const struct span *span, uint32_t max_slots, uint32_t *first) {
    if (span->nalloc == span->nslots) return 0;
    if (span->nalloc == span->next_slot) { /* all from next_slot on is free */
        *first = span->next_slot;
        return (uint32_t)min_size(span->nslots - span->next_slot, max_slots);
    }
    struct bit_words w = words_of(space, span);
    size_t end = granule_after(&w, span, span->nslots);
    uint64_t free_bits;
    struct starts s = starts_from(&w, span, span->next_slot);
    for (;; starts_next(&s)) {
        if ((s.word << 6) + s.bit >= end) return 0;
        free_bits = starts_here(&s) & ~atomic_load_relaxed(&w.allocs[s.word]); /* holder's own words */
        if (free_bits) break;
    }
    size_t granule = (s.word << 6) + bit_lowest(free_bits);
    if (granule >= end) return 0; /* the tail */
    uint32_t i = slot_at(&w, span, granule), after = next_allocated(&w, span, i, max_slots);
    *first = i;
    return (uint32_t)min_size(after - i, max_slots);
}

/* Applies fn's kind of change to the bits of slots [first, first + nslots), gathered by word. */
enum bit_change { BITS_SET_ALLOC, BITS_SET_MARK, BITS_CLEAR_ALLOC, BITS_CLEAR_MARK };

static void change_word(struct bit_words *w, size_t word, uint64_t bits, enum bit_change change) {
    switch (change) {
    case BITS_SET_ALLOC: /* one writer, the holder; release pairs with space_is_allocated's acquire (R15) */
        atomic_store_release(&w->allocs[word], atomic_load_relaxed(&w->allocs[word]) | bits);
        break;
    case BITS_CLEAR_ALLOC: atomic_store_release(&w->allocs[word], atomic_load_relaxed(&w->allocs[word]) & ~bits); break;
    case BITS_SET_MARK: /* markers set other bits of the word at the same time (R15) */
        atomic_or_relaxed(&w->marks[word], bits);
        break;
    case BITS_CLEAR_MARK: atomic_and_relaxed(&w->marks[word], ~bits); break;
    }
}

static void change_bits(struct bit_words *w, const struct span *span, uint32_t first, uint32_t nslots,
                        enum bit_change change) {
    for (struct starts s = starts_from(w, span, first); nslots > 0; starts_next(&s)) {
        uint64_t bits = starts_here(&s);
        uint32_t here = bit_count(bits);
        if (here > nslots) { /* then the next start is in this word as well */
            here = nslots;
            bits &= (1ull << (s.bit + nslots * s.granules)) - 1;
        }
        change_word(w, s.word, bits, change);
        nslots -= here;
    }
}

/* Somebody may have looked at weak slots here, and have found them empty, while the hole was another thread's, which
 * gave it back (gc/weak.c): nothing orders that look before these stores. */
static void zero_words(uintptr_t addr, size_t size_bytes) {
    for (uintptr_t p = addr; p < addr + size_bytes; p += sizeof(uint64_t)) atomic_store_relaxed((uint64_t *)p, 0);
}

void tri__span_take_hole(struct space *space, struct span *span, uint32_t first, uint32_t nslots, bool black) {
    struct bit_words w = words_of(space, span);
    if (black) change_bits(&w, span, first, nslots, BITS_SET_MARK); /* marks first (R15) */
    uintptr_t addr = span_slot_addr(space, span, first);
    if (span->dirty && (span->flags & SPAN_WEAK))
        zero_words(addr, (size_t)nslots * span->slot_bytes); /* I-SPAN5 */
    else if (span->dirty && span_is_zeroed(span))
        memset((void *)addr, 0, nslots * span->slot_bytes); /* I-SPAN5 */
    else if (span_is_zeroed(span)) /* fresh pages: touched by a write, since a read before the write faults twice */
        for (uintptr_t p = align_up(addr, 4096); p < addr + nslots * span->slot_bytes; p += 4096)
            atomic_store_relaxed((uint64_t *)p, 0); /* as there */
    if (span->kind == PAGE_MIXED)
        for (uint32_t i = 0; i < nslots; i++) /* scan nothing until the layout is stored (R15) */
            atomic_store_relaxed(&space->layouts[(addr + i * span->slot_bytes - space->base) >> LAYOUT_SHIFT], 0);
    change_bits(&w, span, first, nslots, BITS_SET_ALLOC); /* and allocation bits last, with release */
    if (TRI_UNLIKELY(span->returned)) tri__span_note_taken(space, span, first, nslots);
    span->nalloc = (uint16_t)(span->nalloc + nslots);
    span->next_slot = (uint16_t)(first + nslots);
    check_internal(span->nalloc <= span->nslots, "I-SPAN4: no more slots than the span has");
}

void tri__span_return_hole(struct space *space, struct span *span, uint32_t first, uint32_t nslots) {
    if (nslots == 0) return;
    struct bit_words w = words_of(space, span);
#if TRI_CHECKS >= 2
    for (uint32_t i = first; i < first + nslots; i++)
        check_internal(!slot_is_free(&w, span, i), "I-SPAN5: a hole is given back once");
#endif
    check_internal(span->nalloc >= nslots, "I-SPAN5: a hole is given back once");
    change_bits(&w, span, first, nslots, BITS_CLEAR_ALLOC);
    change_bits(&w, span, first, nslots, BITS_CLEAR_MARK);
    span->nalloc = (uint16_t)(span->nalloc - nslots);
    if (first < span->next_slot) span->next_slot = (uint16_t)first;
}

void tri__span_mark_slots(struct space *space, struct span *span, uint32_t first, uint32_t nslots) {
    struct bit_words w = words_of(space, span);
    change_bits(&w, span, first, nslots, BITS_SET_MARK);
}

static void poison_freed(const struct space *space, const struct span *span, const struct bit_words *w) {
    for (uint32_t i = 0; i < span->nslots; i++) {
        size_t granule = ((size_t)i * span->slot_bytes) >> w->shift;
        uint64_t bit = 1ull << (granule & 63);
        if (!(atomic_load_relaxed(&w->allocs[granule >> 6]) & bit)) continue;
        if (atomic_load_relaxed(&w->marks[granule >> 6]) & bit) continue;
        struct slot slot = span_slot(space, span, i);
        uint64_t pattern = poison_word(space_layout_of(space, &slot));
        uint64_t *words = (uint64_t *)slot.addr;
        for (size_t k = 0; k < span->slot_bytes / 8; k++) words[k] = pattern;
    }
}

/* allocs := marks, marks := 0, for one word; the number of marks. */
static uint32_t sweep_word(struct bit_words *w, size_t word) {
    uint64_t marks = atomic_load_relaxed(&w->marks[word]); /* all marking ended before the flip */
    if (marks != atomic_load_relaxed(&w->allocs[word])) atomic_store_release(&w->allocs[word], marks);
    if (!marks) return 0;
    atomic_store_release(&w->marks[word], 0);
    return bit_count(marks);
}

uint32_t tri__span_sweep(struct space *space, struct span *span, uint32_t gen, bool poison) {
    struct bit_words w = words_of(space, span);
    uint32_t before = span->nalloc, live = 0;
    check_always(atomic_load_relaxed(&span->gen) + 1 == gen, "I-SPAN3: a span is swept once in each generation");
    if (poison && span->kind != PAGE_LARGE) poison_freed(space, span, &w);
    if (span->slot_bytes >= (size_t)64 << w.shift) /* a word has the bit of one slot at most: the others are zero */
        for (uint32_t i = 0; i < span->nslots; i++)
            live += sweep_word(&w, ((size_t)i * span->slot_bytes) >> w.shift >> 6);
    else
        for (size_t i = 0; i < w.nwords; i++) live += sweep_word(&w, i);
    span->nalloc = (uint16_t)live;
    span->next_slot = 0;
    if (live < before) span->dirty = 1;
    atomic_store_release(&span->gen, gen); /* pairs with the acquire in find: bits first */
    return before > live ? before - live : 0;
}

uint32_t tri__span_count_alloc(const struct space *space, const struct span *span) {
    struct bit_words w = words_of(space, span);
    uint32_t n = 0;
    for (size_t i = 0; i < w.nwords; i++)
        n += bit_count(atomic_load_acquire(&w.allocs[i])); /* pairs with change_word */
    return n;
}

uint32_t tri__span_count_marks(const struct space *space, const struct span *span) {
    struct bit_words w = words_of(space, span);
    uint32_t n = 0;
    for (size_t i = 0; i < w.nwords; i++) n += bit_count(atomic_load_acquire(&w.marks[i])); /* pairs with change_word */
    return n;
}

size_t tri__span_poison_damage(const struct space *space, const struct span *span, uint32_t index) {
    const uint64_t *words = (const uint64_t *)span_slot_addr(space, span, index);
    if (poison_layout(words[0]) == 0) return poison_layout(words[1 % (span->slot_bytes / 8)]) ? 0 : SIZE_MAX;
    for (size_t k = 1; k < span->slot_bytes / 8; k++)
        if (words[k] != words[0]) return k * 8;
    return SIZE_MAX;
}
