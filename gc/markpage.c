/* markpage.c - candidates by page: pointers that are found to lie in one page are marked together and their objects
 * scanned in the order of their addresses.
 *
 * In a heap whose graph follows its memory, more or less, many references that are found one after the other lead into
 * the same page. They are collected as bits of that page (struct page_set, for 64 pages) instead of entries. When the
 * page's turn comes, the newest first, each of its words is marked by one atomic instruction for up to 64 granules, the
 * page's layout is looked up once, and the objects are scanned where they lie side by side; what they name in the same
 * page is done in the same visit, as far as it lies ahead. A graph that was built from its leaves up has everything
 * behind: a visit that leaves something turns the direction of the next ones. A page that has to leave its place for
 * another goes to the buffer, its words under one entry (WORK_PAGE), or as candidates when there are few. Bits are
 * candidates in every respect: in the marker's hand, unmarked, handed over as entries (R2, model: CANDQ).
 *
 * Where few references share a page that costs more than the ring of mark.c, so a marker looks, once in a while,
 * whether it is worth it: the visits of a window have to mark DENSE_OBJECTS each. If they do not, it goes on entry by
 * entry, and tries again after more and more of those.
 *
 * Invariants: I-SET1 a page has at most one place; a place without a page has no bit set. I-SET2 `used` names each
 * place with a page once. */
#include <string.h>
#include "alloc/base/os.h"
#include "gc/heap.h"
#include "gc/mark_inline.h"

enum {
    VISITS_A_WINDOW = 128,
    DENSE_OBJECTS = 4,
    FEW_BITS = 4,         /* go as candidates */
    POP_AT_ONCE = 64,     /* entries that are put by page before one is visited */
    OBJECTS_A_CLOCK = 96, /* marked between two looks at the clock, or words of arrays, or visits: */
    WORDS_A_CLOCK = 512,
    VISITS_A_CLOCK = 16,
    FIRST_PATIENCE = 1 << 14,
    MOST_PATIENCE = 1 << 19
};

void tri__page_set_init(struct page_set *set) {
    memset(set, 0, sizeof *set);
    for (size_t i = 0; i < SET_PAGES; i++) set->each[i].page = NO_PAGE;
    set->patience = FIRST_PATIENCE;
    set->on = true;
}

/* ---- in and out of the buffer ---------------------------------------------------------------------------------- */

static void push_candidates(struct marker *mk, size_t page, const uint64_t *bits) {
    uintptr_t addr = space_page_addr(mk->space, page);
    for (uintptr_t i = 0; i < PAGE_BIT_WORDS; i++)
        for (uint64_t w = bits[i]; w; w &= w - 1)
            mark_push(mk, (addr + ((i * 64 + bit_lowest(w)) << GRANULE_SHIFT)) | WORK_CANDIDATE);
}

static unsigned count_bits(const uint64_t *bits) {
    unsigned n = 0;
    for (size_t i = 0; i < PAGE_BIT_WORDS; i++) n += (unsigned)__builtin_popcountll(bits[i]);
    return n;
}

static bool has_bits(const uint64_t *bits) {
    uint64_t all = 0;
    for (size_t i = 0; i < PAGE_BIT_WORDS; i++) all |= bits[i];
    return all != 0;
}

/* A page's bits become entries. The words lie below their entry, in the same buffer. */
static void evict(struct marker *mk, struct page_bits *place, unsigned nbits) {
    if (nbits <= FEW_BITS || ((!mk->buf || mk->buf->n + PAGE_BIT_WORDS + 1 > WORKBUF_ENTRIES) &&
                              !tri__mark_new_buffer(mk))) { /* without memory each finds its own way (R19) */
        push_candidates(mk, place->page, place->bits);
    } else {
        memcpy(mk->buf->entries + mk->buf->n, place->bits, sizeof place->bits);
        mk->buf->n += PAGE_BIT_WORDS;
        mk->buf->entries[mk->buf->n++] = space_page_addr(mk->space, place->page) | WORK_PAGE;
    }
    memset(place->bits, 0, sizeof place->bits);
}

/* Takes the words of a WORK_PAGE that was popped off the buffer. */
static const uint64_t *pop_words(struct marker *mk) {
    mk->buf->n -= PAGE_BIT_WORDS;
    return mk->buf->entries + mk->buf->n;
}

void tri__mark_unfold_page(struct marker *mk, uintptr_t entry) {
    uint64_t bits[PAGE_BIT_WORDS];
    memcpy(bits, pop_words(mk), sizeof bits);
    push_candidates(mk, space_page_of(mk->space, entry), bits);
}

TRI_COLD void tri__mark_page_open(struct marker *mk, struct page_bits *place, size_t page) {
    struct page_set *set = mk->set;
    if (place->page == NO_PAGE) {
        set->used[set->nused++] = (uint8_t)(place - set->each); /* I-SET2 */
    } else {
        unsigned nbits = count_bits(place->bits);
        set->nvisits++; /* as good, or as bad, as one */
        set->nobjects += nbits;
        evict(mk, place, nbits);
    }
    place->page = page;
    __builtin_prefetch(&mk->space->pages[page]);
    __builtin_prefetch(&mk->space->marks[page * PAGE_BIT_WORDS], 1);
}

void tri__mark_pages_flush(struct marker *mk) {
    struct page_set *set = mk->set;
    while (set->nused) {
        struct page_bits *place = &set->each[set->used[--set->nused]];
        evict(mk, place, count_bits(place->bits));
        place->page = NO_PAGE;
    }
}

bool tri__mark_pages_due(struct page_set *set, unsigned nentries) {
    set->nentries += nentries;
    if (set->nentries < set->patience) return false;
    set->on = true;
    return true;
}

/* ---- a visit --------------------------------------------------------------------------------------------------- */

/* What a visit has to know of its page. */
struct visit {
    size_t page;
    uintptr_t addr;
    uint64_t shape, place;
    uint64_t from; /* bytes of the span before the page */
    const struct layout *layout;
};

/* Marks the candidates of one word; the bits of those that were unmarked. Candidates inside of an object go the long
 * way: its mark may lie in another word. */
static inline uint64_t mark_word(struct marker *mk, const struct visit *v, size_t i, uint64_t candidates) {
    uint64_t starts = 0;
    for (uint64_t c = candidates; c; c &= c - 1) {
        uint64_t in_page = (i * 64 + bit_lowest(c)) << GRANULE_SHIFT;
        uint64_t index = ((v->from + in_page) * (uint32_t)v->place) >> 32; /* I-CLASS2 */
        if (TRI_UNLIKELY(index * shape_slot_bytes(v->shape) != v->from + in_page))
            tri__mark_entry(mk, (v->addr + in_page) | WORK_CANDIDATE);
        else if (TRI_LIKELY(index < v->place >> 48))
            starts |= c & -c;
    }
    uint64_t *word = &mk->space->marks[v->page * PAGE_BIT_WORDS + i];
    starts &= ~atomic_load_relaxed(word);                         /* as space_set_mark */
    return starts ? starts & ~atomic_or_acqrel(word, starts) : 0; /* release, as in hot_process */
}

/* Objects with one mask of pointers, or of values (enc), which is most of them. */
static inline void scan_masked(struct marker *mk, uintptr_t addr, uint64_t objects, uint64_t layout_mask,
                               const tri_enc *enc) {
    const uintptr_t base = mk->space->base;
    const size_t size_bytes = mk->space->size_bytes;
    struct page_set *set = mk->set;
    for (; objects; objects &= objects - 1) {
        const tri_word *obj = (const tri_word *)(addr + ((uintptr_t)bit_lowest(objects) << GRANULE_SHIFT));
        for (uint64_t mask = layout_mask; mask; mask &= mask - 1) {
            const tri_word *p = obj + bit_lowest(mask);
            tri_word w = slot_load(p);
            uintptr_t offset = (enc ? enc_decode(enc, w) : (uintptr_t)w) - base; /* not a reference: 0, in no heap */
            if (offset >= size_bytes) continue;
            CHECK_CHILD(mk, p, offset + base);
            if (TRI_UNLIKELY(offset & 8))
                mark_push(mk, ((offset + base) & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
            else
                page_add(mk, set, offset);
        }
    }
}

static void scan_others(struct marker *mk, const struct visit *v, size_t i, uint64_t objects) {
    for (; objects; objects &= objects - 1) {
        uint64_t in_page = (i * 64 + bit_lowest(objects)) << GRANULE_SHIFT;
        struct slot slot = {v->addr + in_page, v->shape, (uint32_t)(((v->from + in_page) * (uint32_t)v->place) >> 32)};
        tri__mark_scan(mk, &slot);
    }
}

/* Pages of other kinds: each candidate by itself. */
static void visit_one_by_one(struct marker *mk, struct page_bits *place, size_t page) {
    uintptr_t addr = space_page_addr(mk->space, page);
    for (uintptr_t i = 0; i < PAGE_BIT_WORDS; i++)
        while (place->page == page && place->bits[i]) {
            unsigned bit = bit_lowest(place->bits[i]);
            place->bits[i] &= place->bits[i] - 1;
            tri__mark_entry(mk, (addr + ((i * 64 + bit) << GRANULE_SHIFT)) | WORK_CANDIDATE);
        }
}

/* What is found in the page itself is done, too, as far as it lies ahead. Another page may take the place meanwhile. */
static void visit(struct marker *mk, struct page_bits *place) {
    const struct space *space = mk->space;
    struct visit v = {.page = place->page, .addr = space_page_addr(space, place->page)};
    v.shape = atomic_load_acquire(&space->pages[v.page].shape); /* pairs with span_publish */
    if (shape_kind(v.shape) != PAGE_SMALL) {
        visit_one_by_one(mk, place, v.page);
        return;
    }
    v.place = atomic_load_relaxed(&space->pages[v.page].place); /* ordered by the acquire above */
    v.from = (v.place >> 32 & 0xffff) << PAGE_SHIFT;
    v.layout = &tri__layouts[shape_layout(v.shape)];
    uint64_t nobjects = 0;
    const size_t turn = mk->set->downward ? PAGE_BIT_WORDS - 1 : 0;
    for (size_t k = 0; k < PAGE_BIT_WORDS; k++)
        for (size_t i = k ^ turn; place->bits[i] && place->page == v.page;) {
            uint64_t candidates = place->bits[i];
            place->bits[i] = 0;
            uint64_t objects = mark_word(mk, &v, i, candidates);
            nobjects += (unsigned)__builtin_popcountll(objects);
            if (TRI_LIKELY(v.layout->scan == SCAN_MASK))
                scan_masked(mk, v.addr + (i << (GRANULE_SHIFT + 6)), objects, v.layout->mask, NULL);
            else if (v.layout->scan == SCAN_VALUES)
                scan_masked(mk, v.addr + (i << (GRANULE_SHIFT + 6)), objects, v.layout->mask, &v.layout->desc->enc);
            else if (v.layout->scan != SCAN_LEAF)
                scan_others(mk, &v, i, objects);
        }
    mk->marked_objects += nobjects;
    mk->marked_bytes += nobjects * shape_slot_bytes(v.shape);
}

static void visit_newest(struct marker *mk) {
    struct page_set *set = mk->set;
    uint8_t n = set->used[set->nused - 1];
    struct page_bits *place = &set->each[n];
    size_t page = place->page;
    uint64_t before = mk->marked_objects;
    visit(mk, place);
    set->nvisits++;
    set->nobjects += mk->marked_objects - before;
    if (place->page != page) return; /* it is another page's */
    if (has_bits(place->bits)) {     /* something lies behind */
        set->downward = !set->downward;
        return;
    }
    place->page = NO_PAGE;
    unsigned k = set->nused; /* near the top: the pages above it are what it led to */
    while (set->used[--k] != n) {}
    set->nused--;
    memmove(&set->used[k], &set->used[k + 1], set->nused - k);
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

/* Entries become bits, until one asks for something else, a place is taken, or there are enough. */
static bool fold_entries(struct marker *mk) {
    struct page_set *set = mk->set;
    if ((!mk->buf || mk->buf->n == 0) && !tri__mark_more(mk)) return false;
    for (unsigned n = 0; n < POP_AT_ONCE && mk->buf->n > 0; n++) {
        uintptr_t entry = mk->buf->entries[mk->buf->n - 1], tag = entry & WORK_TAG_MASK;
        size_t page = space_page_of(mk->space, entry);
        struct page_bits *place = page_place(set, page);
        bool folds = tag == WORK_PAGE || (tag == WORK_CANDIDATE && !(entry & 8));
        if (folds && n > 0 && place->page != page && place->page != NO_PAGE) break;
        mk->buf->n--;
        if (tag == WORK_RESUME)
            tri__mark_resume(mk, entry);
        else if (!folds)
            tri__mark_entry(mk, entry);
        else if (tag == WORK_CANDIDATE)
            page_add(mk, set, entry - mk->space->base);
        else {
            const uint64_t *bits = pop_words(mk);
            if (place->page != page) tri__mark_page_open(mk, place, page); /* free: nothing is pushed */
            for (size_t i = 0; i < PAGE_BIT_WORDS; i++) place->bits[i] |= bits[i];
        }
        if (!folds) break;
    }
    return true;
}

/* The end of a window: false if going by page is not worth it. */
static bool is_dense(struct page_set *set) {
    bool dense = set->nobjects >= (uint64_t)DENSE_OBJECTS * set->nvisits;
    set->nvisits = 0;
    set->nobjects = 0;
    set->nentries = 0;
    set->on = dense;
    set->patience = dense ? FIRST_PATIENCE : set->patience < MOST_PATIENCE ? set->patience * 2 : MOST_PATIENCE;
    return dense;
}

enum drained tri__mark_by_page(struct marker *mk, uint64_t deadline_ns) {
    struct page_set *set = mk->set;
    do {
        uint64_t until = mk->marked_objects + OBJECTS_A_CLOCK, cost = mk->cost_words + WORDS_A_CLOCK;
        for (unsigned n = 0; n < VISITS_A_CLOCK && mk->marked_objects < until && mk->cost_words < cost; n++) {
            if (set->nused)
                visit_newest(mk);
            else if (!fold_entries(mk))
                return DRAINED_ALL;
        }
        if (set->nvisits >= VISITS_A_WINDOW && !is_dense(set)) {
            tri__mark_pages_flush(mk);
            return DRAINED_CHANGES;
        }
        if (work_is_wanted(&mk->heap->work)) tri__mark_share(mk);
        tri__units_did(VISITS_A_CLOCK + (mk->marked_objects - (until - OBJECTS_A_CLOCK)) / 2 + /* side by side */
                       (mk->cost_words - (cost - WORDS_A_CLOCK)) / WORDS_A_UNIT);
    } while (deadline_ns == 0 || !heap_is_late(mk->heap, deadline_ns));
    return DRAINED_LATE;
}
