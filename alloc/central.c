/* central.c - one layout's spans: partial and full, swept and unswept; see memory.h.
 *
 * A span is filed under the parity of its own generation (R10). When the heap's generation is g, lists of parity g & 1
 * hold swept spans, the others what is left of g - 1; before the next H1 those are empty, so the flip needs no walk.
 * Taking a span off a list is the claim to it (I-SPAN1, I-SPAN3): no two threads sweep one span.
 *
 * A thread that has not retired yet (it knows g - 1 while the heap is at g) takes spans of its own generation only,
 * allocates black in them, and gives them back at its H6, before they are swept.
 *
 * Lock rank: RANK_CENTRAL, one at a time, nothing else taken inside but by sweeping's hook (none). */
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "alloc/memory.h"

/* How many unswept full spans one refill sweeps in the hope for a free slot, before it takes fresh pages. */
enum { MAX_SWEEPS_A_REFILL = 16 };

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

static struct span *pop_to(struct memory *mem, struct span_list *list, enum span_place place, bool to_sweep) {
    struct span *span = list->head;
    if (!span) return NULL;
    tri__span_list_remove(list, span);
    check_internal(atomic_load_relaxed(&span->place) == SPAN_LISTED, "I-SPAN1: a span is in one place");
    atomic_store_relaxed(&span->place, (uint8_t)place);
    if (to_sweep) atomic_add_relaxed(&mem->nsweeping, 1); /* under the list's lock: seen by whoever sees it empty */
    return span;
}

/* An unswept span: of the generation before `gen`, which is looked at under the lock. A thread that has not retired may
 * come here with a generation that the flip has just made the old one: the lists of the other parity then hold spans
 * that retired threads have swept already, one generation ahead of it (I-SPAN3). */
static struct span *pop_unswept(struct memory *mem, struct span_list *list, uint32_t gen) {
    if (list->head && atomic_load_relaxed(&list->head->gen) + 1 != gen) return NULL; /* one generation in a list */
    return pop_to(mem, list, SPAN_CLAIMED, true);
}

/* Sweeps a claimed span. */
static void sweep_claimed(struct memory *mem, struct span *span, uint32_t gen) {
    tri__span_sweep(&mem->space, span, gen, atomic_load_relaxed(&mem->poison) != 0);
    atomic_add_relaxed(&mem->swept_spans, 1);
}

static void sweep_done(struct memory *mem) {
    atomic_sub_acqrel(&mem->nsweeping, 1); /* pairs with the acquire in memory_is_swept */
}

static void file(struct central *central, struct span *span) {
    unsigned parity = atomic_load_relaxed(&span->gen) & 1;
    check_internal(span->nalloc <= span->nslots, "I-SPAN4: no more slots than the span has");
    atomic_store_release(&span->place, SPAN_LISTED); /* after the generation; pairs with lives() in inspect.c */
    if (span->nalloc == span->nslots)
        tri__span_list_push(&central->full[parity], span);
    else
        tri__span_list_push(&central->partial[parity], span);
}

void tri__central_put(struct memory *mem, struct central *central, struct span *span) {
    (void)mem;
    check_internal(atomic_load_relaxed(&span->place) == SPAN_CACHED, "I-SPAN1: only a cached span is given back");
    tri__lock_acquire(&central->lock);
    file(central, span);
    tri__lock_release(&central->lock);
}

static struct span *take_fresh(struct memory *mem, struct central *central, uint32_t gen) {
    const struct span_class *sc = &central->span_class;
    bool dirty;
    size_t first;
    size_t npages = tri__size_classes[sc->class_index].npages;
    struct span *span = tri__memory_new_span(mem, npages, &dirty, &first);
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

/* An unswept span of the generation before, swept here; NULL when none of a few has a free slot. */
static struct span *take_swept_here(struct memory *mem, struct central *central, uint32_t gen) {
    unsigned old = (gen + 1) & 1;
    for (int i = 0; i < MAX_SWEEPS_A_REFILL; i++) {
        if (mem->hooks.delay) mem->hooks.delay(mem->hooks.context);
        tri__lock_acquire(&central->lock);
        struct span *span = pop_unswept(mem, &central->partial[old], gen);
        if (!span) span = pop_unswept(mem, &central->full[old], gen);
        tri__lock_release(&central->lock);
        if (!span) return NULL;
        sweep_claimed(mem, span, gen);
        if (span->nalloc < span->nslots) {
            atomic_store_release(&span->place, SPAN_CACHED); /* as in file() */
            sweep_done(mem);
            return span;
        }
        tri__lock_acquire(&central->lock);
        file(central, span);
        tri__lock_release(&central->lock);
        sweep_done(mem);
    }
    return NULL;
}

struct span *tri__central_take(struct memory *mem, struct central *central, uint32_t gen) {
    if (mem->hooks.delay) mem->hooks.delay(mem->hooks.context);
    tri__lock_acquire(&central->lock);
    struct span *span = pop_to(mem, &central->partial[gen & 1], SPAN_CACHED, false);
    tri__lock_release(&central->lock);
    if (span) return span;
    if (gen == atomic_load_acquire(&mem->gen)) { /* retired threads sweep (R10) */
        uint64_t start = tri__os_now_ns();
        span = take_swept_here(mem, central, gen);
        if (span) {
            if (mem->hooks.swept_on_demand) mem->hooks.swept_on_demand(mem->hooks.context, tri__os_now_ns() - start);
            return span;
        }
    }
    return take_fresh(mem, central, gen);
}

/* Sweeps one claimed small span and files it, or frees its pages when nothing in it lives. */
static void sweep_in_background(struct memory *mem, struct central *central, struct span *span, uint32_t gen) {
    sweep_claimed(mem, span, gen);
    if (span->nalloc == 0) {
        tri__memory_free_span(mem, span);
    } else {
        tri__lock_acquire(&central->lock);
        file(central, span);
        tri__lock_release(&central->lock);
    }
    sweep_done(mem);
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
    sweep_done(mem);
}

size_t tri__memory_sweep_some(struct memory *mem, size_t max_spans) {
    uint32_t gen = atomic_load_acquire(&mem->gen);
    unsigned old = (gen + 1) & 1;
    size_t n = 0;
    for (struct central *c = atomic_load_acquire(&mem->all_centrals); c && n < max_spans; c = c->next) {
        while (n < max_spans) {
            if (mem->hooks.delay) mem->hooks.delay(mem->hooks.context);
            tri__lock_acquire(&c->lock);
            struct span *span = pop_unswept(mem, &c->partial[old], gen);
            if (!span) span = pop_unswept(mem, &c->full[old], gen);
            tri__lock_release(&c->lock);
            if (!span) break;
            sweep_in_background(mem, c, span, gen);
            n++;
        }
    }
    while (n < max_spans) {
        tri__lock_acquire(&mem->large_lock);
        struct span *span = pop_unswept(mem, &mem->large[old], gen);
        tri__lock_release(&mem->large_lock);
        if (!span) break;
        sweep_large(mem, span, gen);
        n++;
    }
    return n;
}
