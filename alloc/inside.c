/* inside.c - pages of spans that hold no object, given back to the system one by one while the span stays.
 *
 * After most objects of a heap died at random, few spans are empty, but many pages are: a page here is the system's (4
 * KiB), so a span of one heap page has two, and one of ten has twenty. Owns: which of them go and the bits in
 * span->returned that remember it (so that nothing is asked of the system twice). Does not own: when (gc/scavenger.c:
 * an idle heap, memory pressure, limits; tri_trim).
 *
 * A span is claimed for that as a sweeper claims one (I-SPAN1): taken off the list of swept, partial spans of the
 * heap's generation, at most half full. Whoever sees it claimed waits for it: tri__memory_is_settled. A cycle may begin
 * or end meanwhile: no object is touched, no bit of marks or allocations changes, and the span is filed under its own
 * generation afterwards (R10), so that a flip in between only makes it unswept.
 *
 * Invariants: I-INS1 a page goes only if no allocated slot overlaps it; its span is claimed, so none is allocated
 * meanwhile. I-INS2 a returned page reads as zero until a hole takes it (then its bit is cleared). With poison on
 * nothing goes: the pattern in free slots is what is looked at.
 * Lock ranks: central (50), not held during the system's calls. */
#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "alloc/memory.h"

enum { CLAIM_BATCH = 16 };

/* The system's pages that slots [first, first + nslots) overlap, a bit for each. */
static uint32_t pages_of_slots(const struct space *space, const struct span *span, uint32_t first, uint32_t nslots) {
    size_t page_bytes = space->system_page_bytes;
    size_t from = (size_t)first * span->slot_bytes / page_bytes;
    size_t to = ceil_div((size_t)(first + nslots) * span->slot_bytes, page_bytes);
    return (uint32_t)(((uint64_t)1 << to) - ((uint64_t)1 << from));
}

void tri__span_note_taken(const struct space *space, struct span *span, uint32_t first, uint32_t nslots) {
    span->returned &= ~pages_of_slots(space, span, first, nslots); /* I-INS2 */
}

static uint32_t occupied_pages(const struct space *space, const struct span *span) {
    uint32_t occupied = 0;
    for (uint32_t i = 0; i < span->nslots; i++) {
        struct slot slot = span_slot(space, span, i);
        if (space_is_allocated(space, &slot)) occupied |= pages_of_slots(space, span, i, 1);
    }
    return occupied;
}

/* Returns the free pages of a claimed span; the number of them that went. */
static size_t return_pages(struct memory *mem, struct span *span) {
    uint32_t all = pages_of_slots(&mem->space, span, 0, span->nslots);
    uint32_t going = all & ~occupied_pages(&mem->space, span) & ~span->returned; /* I-INS1 */
    size_t page_bytes = mem->space.system_page_bytes, n = 0;
    uintptr_t base = span_base(&mem->space, span);
    while (going) {
        unsigned first = bit_lowest(going), end = first;
        while (end < 32 && going >> end & 1) end++;
        uint32_t run = (uint32_t)(((uint64_t)1 << end) - ((uint64_t)1 << first));
        if (tri__os_decommit((void *)(base + first * page_bytes), (end - first) * page_bytes)) {
            span->returned |= run;
            n += end - first;
        }
        going &= ~run;
    }
    return n;
}

static bool is_worth_it(const struct span *span, uint32_t gen) {
    return span->kind != PAGE_TINY && span->dirty && atomic_load_relaxed(&span->gen) == gen &&
           span->nalloc * 2u <= span->nslots;
}

bool tri__memory_begin_claims(struct memory *mem) {
    atomic_add_seq(&mem->nclaimed, 1); /* before the look; pairs with hold_claims, which looks after its store */
    if (!atomic_load_seq(&mem->hold_claims)) return true;
    atomic_sub_acqrel(&mem->nclaimed, 1);
    return false;
}

void tri__memory_end_claims(struct memory *mem) {
    atomic_sub_acqrel(&mem->nclaimed, 1); /* pairs with the acquire in memory_is_settled */
}

void tri__memory_hold_claims(struct memory *mem, bool hold) {
    atomic_store_seq(&mem->hold_claims, hold);                       /* pairs with begin_claims */
    while (hold && atomic_load_seq(&mem->nclaimed)) tri__os_yield(); /* a few calls of the system */
}

/* Claims up to CLAIM_BATCH spans from the tail of a list, of which *left have not been looked at. */
static struct span *claim(struct memory *mem, struct central *central, struct span_list *list, size_t *left) {
    uint32_t gen = atomic_load_acquire(&mem->gen), n = 0;
    struct span *chain = NULL;
    tri__lock_acquire(&central->lock);
    for (; *left > 0 && n < CLAIM_BATCH && list->tail; --*left) {
        struct span *span = list->tail;
        tri__span_list_remove(list, span);
        if (is_worth_it(span, gen)) {
            atomic_store_relaxed(&span->place, SPAN_CLAIMED);
            span->next = chain;
            chain = span;
            n++;
        } else {
            tri__span_list_push(list, span);
        }
    }
    if (!list->tail) *left = 0; /* others have taken spans off it meanwhile */
    tri__lock_release(&central->lock);
    return chain;
}

static void give_back(struct central *central, struct span *chain) {
    tri__lock_acquire(&central->lock);
    for (struct span *next; chain; chain = next) {
        next = chain->next;
        atomic_store_release(&chain->place, SPAN_LISTED); /* as file() in central.c */
        tri__span_list_push(central_list(central, chain), chain);
    }
    tri__lock_release(&central->lock);
}

static size_t return_of_list(struct memory *mem, struct central *central, struct span_list *list) {
    tri__lock_acquire(&central->lock);
    size_t left = list->nspans, npages = 0;
    tri__lock_release(&central->lock);
    while (left > 0 && tri__memory_begin_claims(mem)) {
        struct span *chain = claim(mem, central, list, &left);
        for (struct span *span = chain; span; span = span->next) npages += return_pages(mem, span);
        give_back(central, chain);
        tri__memory_end_claims(mem);
        if (mem->hooks.delay) mem->hooks.delay(mem->hooks.context);
    }
    return npages;
}

size_t tri__memory_return_inside(struct memory *mem) {
    size_t npages = 0;
    if (atomic_load_relaxed(&mem->poison) || mem->space.system_page_bytes > PAGE_BYTES) return 0; /* a test's switch */
    for (struct central *c = atomic_load_acquire(&mem->all_centrals); c; c = c->next) /* pairs with central_get */
        for (int parity = 0; parity < 2; parity++)
            for (int fill = 0; fill <= NUM_FILLS / 2; fill++)
                npages += return_of_list(mem, c, &c->partial[parity][fill]);
    size_t bytes = npages * mem->space.system_page_bytes;
    atomic_add_relaxed(&mem->returned_inside_bytes, bytes); /* a counter */
    return bytes;
}
