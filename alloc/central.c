/* central.c - one layout's spans: partial and full, swept and unswept, and those in which nothing lives; see memory.h.
 *
 * A span is filed under the parity of its own generation (R10). When the heap's generation is g, lists of parity g & 1
 * hold swept spans, the others what is left of g - 1; before the next H1 those are empty, so the flip needs no walk.
 * Taking a span off a list is the claim to it (I-SPAN1, I-SPAN3): no two threads sweep one span.
 *
 * A thread that has not retired yet (it knows g - 1 while the heap is at g) takes spans of its own generation only,
 * allocates black in them, and gives them back at its H6, before they are swept.
 *
 * Spans move in chains of up to BATCH_SPANS, so that a cache comes to this lock once for 64 KiB of slots. Partial spans
 * are filed by how full they are and the fullest are taken first: sparse ones get the time to empty.
 *
 * A span that a sweep found empty lies ready in `empty` for its own layout, as far as empty_limit_pages allows: making
 * one anew costs as much as allocating a page's worth of objects. Only a sweep files one there, never a cache that
 * gives an unused hole back in the middle of a cycle: a marker may still hold a conservative word that names a slot of
 * that hole and mark it (R4), and a span without a generation would keep the stale mark.
 *
 * Lock rank: RANK_CENTRAL, one at a time, nothing else taken inside. */
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "alloc/memory.h"

/* How many unswept spans without a free slot one refill sweeps, before it takes fresh pages. LOOKS_A_SPAN: how many
 * lists take about as long to look at as one span to sweep. */
enum { MAX_SWEEPS_A_REFILL = 16, BACKGROUND_BATCH = 16, LOOKS_A_SPAN = 16 };

struct central *tri__central_get(struct memory *mem, const struct span_class *span_class) {
    struct central **entry = &mem->centrals[span_class->layout];
    struct central *central = atomic_load_acquire(entry); /* pairs with the swap below */
    if (TRI_LIKELY(central != NULL)) return central;
    central = tri__fixalloc_get(&mem->fix_central);
    if (!central) return NULL;
    *central = (struct central){.span_class = *span_class};
    tri__lock_init(&central->lock, RANK_CENTRAL, "central");
    struct central *found = NULL;
    if (!atomic_cas_acqrel(entry, &found, central)) { /* somebody was faster */
        tri__lock_fini(&central->lock);
        tri__fixalloc_put(&mem->fix_central, central);
        return found;
    }
    struct central *head = atomic_load_relaxed(&mem->all_centrals);
    do central->next = head;
    while (!atomic_cas_acqrel(&mem->all_centrals, &head, central)); /* pairs with acquire loads of the list */
    return central;
}

/* ---- filing and taking, under the lock ------------------------------------------------------------------------ */

static void file(const struct memory *mem, struct central *central, struct span *span) {
    check_internal(span->nalloc <= span->nslots, "I-SPAN4: no more slots than the span has");
    check_whole(tri__span_count_alloc(&mem->space, span) == span->nalloc, "I-SPAN4: a span counts its allocation bits");
    (void)mem;
    atomic_store_release(&span->place, SPAN_LISTED); /* after the generation; pairs with lives() in inspect.c */
    tri__span_list_push(central_list(central, span), span);
}

static void file_chain(const struct memory *mem, struct central *central, struct span *chain) {
    while (chain) {
        struct span *next = chain->next;
        check_internal(atomic_load_relaxed(&chain->place) == SPAN_CACHED, "I-SPAN1: only a cached span is given back");
        file(mem, central, chain);
        chain = next;
    }
}

static struct span *pop_to(struct span_list *list, enum span_place place) {
    struct span *span = list->head;
    if (!span) return NULL;
    tri__span_list_remove(list, span);
    check_internal(atomic_load_relaxed(&span->place) == SPAN_LISTED, "I-SPAN1: a span is in one place");
    atomic_store_relaxed(&span->place, (uint8_t)place);
    return span;
}

/* An unswept span: of the generation before `gen`, which is looked at under the lock. A thread that has not retired may
 * come here with a generation that the flip has just made the old one: the lists of the other parity then hold spans
 * that retired threads have swept already, one generation ahead of it (I-SPAN3). */
static struct span *pop_unswept(struct memory *mem, struct span_list *list, uint32_t gen) {
    if (!list->head || atomic_load_relaxed(&list->head->gen) + 1 != gen) return NULL; /* one generation in a list */
    struct span *span = pop_to(list, SPAN_CLAIMED);
    atomic_add_relaxed(&mem->nsweeping, 1); /* under the list's lock: seen by whoever sees it empty */
    return span;
}

static struct span *pop_unswept_small(struct memory *mem, struct central *central, uint32_t gen) {
    unsigned old = (gen + 1) & 1;
    struct span *span = NULL;
    for (int fill = NUM_FILLS; fill-- > 0 && !span;) span = pop_unswept(mem, &central->partial[old][fill], gen);
    return span ? span : pop_unswept(mem, &central->full[old], gen);
}

/* The head of a chain in front of `chain`. */
static struct span *chained(struct span *span, struct span *chain) {
    span->next = chain;
    span->prev = NULL;
    if (chain) chain->prev = span;
    return span;
}

static unsigned batch_of(const struct central *central) {
    size_t span_bytes = (size_t)tri__size_classes[central->span_class.class_index].npages << PAGE_SHIFT;
    size_t n = BATCH_BYTES / span_bytes;
    return n < 1 ? 1 : n > BATCH_SPANS ? BATCH_SPANS : (unsigned)n;
}

static struct span *take_partial(struct central *central, uint32_t gen) {
    struct span *chain = NULL;
    unsigned left = batch_of(central);
    for (int fill = NUM_FILLS; fill-- > 0;)
        for (struct span *span; left > 0 && (span = pop_to(&central->partial[gen & 1][fill], SPAN_CACHED)); left--)
            chain = chained(span, chain);
    return chain;
}

/* They get the taker's generation, like fresh ones: they have no mark and no object (R10). */
static struct span *take_empty(struct memory *mem, struct central *central, uint32_t gen) {
    struct span *chain = NULL;
    for (unsigned left = batch_of(central); left > 0 && central->empty.head; left--) {
        struct span *span = central->empty.head;
        tri__span_list_remove(&central->empty, span);
        check_internal(atomic_load_relaxed(&span->place) == SPAN_EMPTY && span->nalloc == 0,
                       "I-SPAN1: an empty span is in one place");
        check_whole(tri__span_count_marks(&mem->space, span) == 0, "R10: an empty span has no marks");
        atomic_store_relaxed(&span->gen, gen);
        atomic_store_release(&span->place, SPAN_CACHED); /* as in file() */
        atomic_sub_relaxed(&mem->empty_pages, span->npages);
        chain = chained(span, chain);
    }
    if (central->empty.nspans < central->empty_low) central->empty_low = central->empty.nspans;
    return chain;
}

/* ---- sweeping ------------------------------------------------------------------------------------------------- */

static void sweep_claimed(struct memory *mem, struct span *span, uint32_t gen) {
    tri__span_sweep(&mem->space, span, gen, atomic_load_relaxed(&mem->poison) != 0);
    atomic_add_relaxed(&mem->swept_spans, 1);
}

static void sweep_done(struct memory *mem, uint32_t n) {
    atomic_sub_acqrel(&mem->nsweeping, n); /* pairs with the acquire in memory_is_swept */
}

/* Up to `max` unswept spans, claimed. */
static struct span *claim_unswept(struct memory *mem, struct central *central, uint32_t gen, unsigned max) {
    struct span *chain = NULL;
    if (mem->hooks.delay) mem->hooks.delay(mem->hooks.context);
    tri__lock_acquire(&central->lock);
    for (struct span *span; max > 0 && (span = pop_unswept_small(mem, central, gen)); max--)
        chain = chained(span, chain);
    tri__lock_release(&central->lock);
    return chain;
}

/* Sweeps some unswept spans of the generation before and keeps those with a free slot; NULL when a few have none. The
 * first batch takes about a microsecond and is not timed: looking at the clock twice would take a tenth of that. */
static struct span *take_swept_here(struct memory *mem, struct central *central, uint32_t gen) {
    struct span *found = NULL;
    unsigned batch = batch_of(central), swept = 0;
    uint64_t start = 0;
    for (; !found && swept < MAX_SWEEPS_A_REFILL; swept += batch) {
        struct span *chain = claim_unswept(mem, central, gen, batch), *full = NULL;
        uint32_t n = 0;
        if (!chain) break;
        if (swept > 0 && start == 0) start = tri__os_now_ns();
        for (struct span *span = chain, *next; span; span = next, n++) {
            next = span->next;
            sweep_claimed(mem, span, gen);
            atomic_store_release(&span->place, SPAN_CACHED); /* as in file() */
            if (span->nalloc < span->nslots)
                found = chained(span, found);
            else
                full = chained(span, full);
        }
        if (full) tri__central_put(mem, central, full);
        sweep_done(mem, n);
    }
    if (start && mem->hooks.swept_on_demand) mem->hooks.swept_on_demand(mem->hooks.context, tri__os_now_ns() - start);
    return found;
}

/* ---- a cache's side ------------------------------------------------------------------------------------------- */

void tri__central_put(struct memory *mem, struct central *central, struct span *chain) {
    (void)mem;
    tri__lock_acquire(&central->lock);
    file_chain(mem, central, chain);
    tri__lock_release(&central->lock);
}

static struct span *take_fresh(struct memory *mem, struct central *central, uint32_t gen, struct page_block *block) {
    const struct span_class *sc = &central->span_class;
    bool dirty;
    size_t first;
    size_t npages = tri__size_classes[sc->class_index].npages;
    struct span *span = tri__memory_new_span(mem, npages, block, &dirty, &first);
    if (!span) return NULL;
    if (dirty &&
        atomic_load_relaxed(&mem->poison)) { /* no pattern of the pages' life before in this span's free slots */
        memset((void *)space_page_addr(&mem->space, first), 0, npages << PAGE_SHIFT);
        dirty = false;
    }
    tri__span_format_small(span, first, sc->class_index, sc->layout, sc->flags, sc->mixed, dirty);
    atomic_store_relaxed(&span->gen, gen); /* fresh spans have zero marks and their taker's generation (R10) */
    atomic_store_relaxed(&span->place, SPAN_CACHED);
    tri__span_publish(&mem->space, span);
    return span;
}

/* Requires the lock. */
static bool has_unswept(const struct central *central, uint32_t gen) {
    unsigned old = (gen + 1) & 1;
    bool left = central->full[old].head != NULL;
    for (int fill = 0; fill < NUM_FILLS; fill++) left |= central->partial[old][fill].head != NULL;
    return left;
}

bool tri__central_is_swept(struct central *central, uint32_t gen) {
    tri__lock_acquire(&central->lock);
    bool left = has_unswept(central, gen);
    tri__lock_release(&central->lock);
    return !left;
}

struct span *tri__central_exchange(struct memory *mem, struct central *central, uint32_t gen, struct span *done,
                                   struct page_block *block) {
    bool retired = gen == atomic_load_acquire(&mem->gen); /* only such threads sweep (R10); a flip may come any time */
    if (mem->hooks.delay) mem->hooks.delay(mem->hooks.context);
    tri__lock_acquire(&central->lock);
    file_chain(mem, central, done);
    struct span *chain = take_partial(central, gen);
    bool unswept = !chain && retired && has_unswept(central, gen);
    if (!chain && !unswept) chain = take_empty(mem, central, gen);
    tri__lock_release(&central->lock);
    if (unswept) {
        chain = take_swept_here(mem, central, gen);
        if (chain) return chain;
        tri__lock_acquire(&central->lock);
        chain = take_empty(mem, central, gen);
        tri__lock_release(&central->lock);
    }
    return chain ? chain : take_fresh(mem, central, gen, block);
}

/* ---- in the background ---------------------------------------------------------------------------------------- */

/* Files what was swept; what is empty lies ready, or is returned as a chain when enough does. */
static struct span *file_swept(struct memory *mem, struct central *central, struct span *chain) {
    struct span *freed = NULL;
    tri__lock_acquire(&central->lock);
    for (struct span *span = chain, *next; span; span = next) {
        next = span->next;
        if (span->nalloc > 0) {
            file(mem, central, span);
        } else if (atomic_load_relaxed(&mem->empty_pages) >= atomic_load_relaxed(&mem->empty_limit_pages)) { /* hints */
            freed = chained(span, freed);
        } else {
            atomic_store_release(&span->place, SPAN_EMPTY); /* as in file() */
            tri__span_list_push(&central->empty, span);
            atomic_add_relaxed(&mem->empty_pages, span->npages);
        }
    }
    tri__lock_release(&central->lock);
    return freed;
}

static size_t sweep_central(struct memory *mem, struct central *central, uint32_t gen, size_t max_spans) {
    size_t total = 0;
    while (total < max_spans) {
        struct span *chain = claim_unswept(mem, central, gen, (unsigned)min_size(max_spans - total, BACKGROUND_BATCH));
        uint32_t n = 0;
        if (!chain) break;
        for (struct span *span = chain; span; span = span->next, n++) sweep_claimed(mem, span, gen);
        for (struct span *span = file_swept(mem, central, chain), *next; span; span = next) {
            next = span->next;
            tri__memory_free_span(mem, span);
        }
        sweep_done(mem, n);
        total += n;
    }
    return total;
}

static void sweep_large(struct memory *mem, struct span *span, uint32_t gen) {
    sweep_claimed(mem, span, gen);
    if (span->nalloc == 0) {
        tri__memory_free_span(mem, span);
    } else {
        tri__lock_acquire(&mem->large_lock);
        atomic_store_release(&span->place, SPAN_LISTED); /* as in file() */
        tri__span_list_push(&mem->large[gen & 1], span);
        tri__lock_release(&mem->large_lock);
    }
    sweep_done(mem, 1);
}

/* A cycle looks at each list once, however many layouts have none to sweep, and again at those to which a thread that
 * retired late gave spans: its caller goes on until all are swept. */
bool tri__memory_sweep_some(struct memory *mem, size_t max_spans, size_t *nswept) {
    uint32_t gen = atomic_load_acquire(&mem->gen);
    struct central *c = mem->sweep_next ? mem->sweep_next : atomic_load_acquire(&mem->all_centrals);
    size_t n = 0;
    for (size_t looks = max_spans * LOOKS_A_SPAN; c && n < max_spans && looks > 0; looks--) {
        n += sweep_central(mem, c, gen, max_spans - n);
        if (n < max_spans) c = c->next; /* this one is through */
    }
    mem->sweep_next = c;
    while (!c && n < max_spans) {
        tri__lock_acquire(&mem->large_lock);
        struct span *span = pop_unswept(mem, &mem->large[(gen + 1) & 1], gen);
        tri__lock_release(&mem->large_lock);
        if (!span) break;
        sweep_large(mem, span, gen);
        n++;
    }
    *nswept = n;
    return !c && n < max_spans;
}

/* Takes up to `max` empty spans, the ones that lay longest, off the list. *left: how many are to go besides. */
static struct span *take_coldest(struct memory *mem, struct central *central, bool all, size_t max, size_t *left) {
    struct span *chain = NULL;
    tri__lock_acquire(&central->lock);
    if (*left == SIZE_MAX) *left = all ? central->empty.nspans : (central->empty_low + 1) / 2;
    for (; *left > 0 && max > 0 && central->empty.tail; --*left, max--) {
        struct span *span = central->empty.tail;
        tri__span_list_remove(&central->empty, span);
        atomic_store_relaxed(&span->place, SPAN_CLAIMED);
        atomic_sub_relaxed(&mem->empty_pages, span->npages);
        chain = chained(span, chain);
    }
    if (!central->empty.tail) *left = 0;
    if (*left == 0) central->empty_low = central->empty.nspans;
    tri__lock_release(&central->lock);
    return chain;
}

/* Lets up to `max` of a layout's go. */
static void drop_of(struct memory *mem, struct central *c, bool all, size_t max, size_t *left) {
    for (struct span *span = take_coldest(mem, c, all, max, left), *next; span; span = next) {
        next = span->next;
        if (tri__memory_try_free_span(mem, span)) continue;
        tri__lock_acquire(&c->lock); /* a cycle marks: it lies ready again (R13) */
        atomic_store_release(&span->place, SPAN_EMPTY);
        tri__span_list_push(&c->empty, span);
        atomic_add_relaxed(&mem->empty_pages, span->npages);
        tri__lock_release(&c->lock);
    }
}

static struct drop drop_begin(struct memory *mem) {
    return (struct drop){0, atomic_load_acquire(&mem->all_centrals), SIZE_MAX}; /* pairs with central_get */
}

enum dropped { DROPPED_ALL, DROPPED_SOME, DROPS_REFUSED };

/* Up to `max` of the list that it has come to. Refused while the world is stopped, and not waited for: the caller may
 * be in a section that a fork waits for, and the cycle that stopped the world wait for the fork. */
static enum dropped drop_some(struct memory *mem, struct drop *drop, bool all, size_t max) {
    if (atomic_load_relaxed(&mem->empty_pages) == 0) return DROPPED_ALL; /* a hint */
    if (drop->list == READY_LISTS && !drop->central) return DROPPED_ALL;
    if (!tri__memory_begin_claims(mem)) return DROPS_REFUSED;
    if (drop->list < READY_LISTS)
        tri__large_drop_ready(mem, drop->list, all, max, &drop->left);
    else
        drop_of(mem, drop->central, all, max, &drop->left);
    tri__memory_end_claims(mem);
    if (drop->left > 0) return DROPPED_SOME;
    drop->left = SIZE_MAX;
    if (drop->list < READY_LISTS)
        drop->list++;
    else
        drop->central = drop->central->next;
    return DROPPED_SOME;
}

bool tri__memory_drop_empty(struct memory *mem, bool all) {
    struct drop drop = drop_begin(mem);
    enum dropped dropped = DROPPED_SOME;
    while (dropped == DROPPED_SOME) dropped = drop_some(mem, &drop, all, SIZE_MAX);
    return dropped == DROPPED_ALL;
}

void tri__memory_drop_begin(struct memory *mem) {
    mem->drop = drop_begin(mem);
}

bool tri__memory_drop_some(struct memory *mem, bool all, size_t max_spans) {
    return drop_some(mem, &mem->drop, all, max_spans) == DROPPED_SOME;
}
