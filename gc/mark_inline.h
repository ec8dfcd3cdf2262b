/* mark_inline.h - what the marker's files share: mark.c (entries, the loop, the ring), markscan.c (objects by their
 * layout), markpage.c (candidates by page). For these three only; see mark.h. */
#ifndef TRI_GC_MARK_INLINE_H
#define TRI_GC_MARK_INLINE_H

#include "alloc/base/check.h"
#include "gc/mark.h"

/* ---- mark.c */

/* Another buffer in hand; the one that was goes to the list. False without memory. */
bool tri__mark_new_buffer(struct marker *mk);
/* A buffer of the list, or a piece of a copied stack, in place of the empty one in hand. False: there is none. */
bool tri__mark_more(struct marker *mk);
/* What becomes of an entry for which there is no memory (R19). */
void tri__mark_without_memory(struct marker *mk, uintptr_t entry);
/* Does what an entry asks for, whatever its kind but WORK_RESUME and WORK_PAGE. */
void tri__mark_entry(struct marker *mk, uintptr_t entry);
/* A word that may name anything: a candidate if something is allocated there (R4). */
void tri__mark_maybe(struct marker *mk, uintptr_t addr);
/* Somebody has nothing to do: gives a part of what is in hand away. */
void tri__mark_share(struct marker *mk);

/* ---- markscan.c */

void tri__mark_scan(struct marker *mk, const struct slot *slot);
void tri__mark_scan_piece(struct marker *mk, uintptr_t from);
/* The rest of a traced object; its entry was popped. */
void tri__mark_resume(struct marker *mk, uintptr_t entry);
#if TRI_CHECKS >= 2
/* I-MARK3. */
void tri__mark_check_child(struct marker *mk, const tri_word *from, uintptr_t ref);
#define CHECK_CHILD(mk, from, ref) tri__mark_check_child(mk, from, ref)
#else
#define CHECK_CHILD(mk, from, ref) ((void)(from))
#endif

/* ---- markpage.c */

enum drained {
    DRAINED_ALL,    /* nothing is left in hand or in the list */
    DRAINED_LATE,   /* the deadline passed */
    DRAINED_CHANGES /* the other way of marking is to go on */
};

/* Candidates by page while that is worth it. */
enum drained tri__mark_by_page(struct marker *mk, uint64_t deadline_ns);
/* All that waits there becomes entries. */
void tri__mark_pages_flush(struct marker *mk);
/* So many entries were done one by one: true if it is time to try by page again. */
bool tri__mark_pages_due(struct page_set *set, unsigned nentries);
/* Entries of one WORK_PAGE, which was popped, one by one. */
void tri__mark_unfold_page(struct marker *mk, uintptr_t entry);
/* Makes room for a page in its place. */
void tri__mark_page_open(struct marker *mk, struct page_bits *place, size_t page);

static inline void mark_push(struct marker *mk, uintptr_t entry) {
    if (TRI_UNLIKELY(!mk->buf || mk->buf->n == WORKBUF_ENTRIES) && !tri__mark_new_buffer(mk)) {
        tri__mark_without_memory(mk, entry);
        return;
    }
    mk->buf->entries[mk->buf->n++] = entry;
}

static inline struct page_bits *page_place(struct page_set *set, size_t page) {
    return &set->each[page % SET_PAGES];
}

/* A candidate of which only the granule counts. */
static inline void page_add(struct marker *mk, struct page_set *set, uintptr_t offset) {
    size_t page = offset >> PAGE_SHIFT;
    struct page_bits *place = page_place(set, page);
    if (TRI_UNLIKELY(place->page != page)) tri__mark_page_open(mk, place, page);
    place->bits[offset >> (GRANULE_SHIFT + 6) & (PAGE_BIT_WORDS - 1)] |= 1ull << (offset >> GRANULE_SHIFT & 63);
}

/* An address inside the heap's range, found in a precise slot. In the middle of a granule an object of the 8-byte class
 * may begin: those go one by one. */
static inline void mark_candidate(struct marker *mk, uintptr_t ref) {
    if (mk->set && mk->set->on && !(ref & 8))
        page_add(mk, mk->set, ref - mk->space->base);
    else
        mark_push(mk, (ref & ~(uintptr_t)WORK_TAG_MASK) | WORK_CANDIDATE);
}

static inline tri_word slot_load(const tri_word *p) {
    return atomic_load_acquire(p); /* pairs with tri_store's release: the object's fields before its reference */
}

#endif
