/* manual.c - spans of manual memory: refilling a thread's cache, blocks that come back from other threads, empty spans,
 * large blocks; see manual.h. */
#include "alloc/manual.h"
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/memory.h"

enum {
    LINK_BYTES = 4096,   /* so much of a fresh span is linked at a time */
    SPAN_MIN_SLOTS = 32, /* the longest spans of a class have so many slots, within these two: */
    SPAN_SHORT_BYTES = 64 << 10,
    SPAN_LONG_BYTES = 512 << 10,
    IDLE_LEAST_BYTES = 32 << 10, /* of current spans that count in what a cache keeps */
    POOL_PAGES = 512,            /* of empty spans that any thread may take; a heap that idles drops them */
    MAX_ORPHANS_A_REFILL = 16
};

_Static_assert(sizeof(struct manual_span) == 128, "the owner's line and the line that others write to");
_Static_assert(NUM_MANUAL_CLASSES <= 256, "a class is a byte of a page's shape");

/* What `current` holds when there is no span: nothing to take, never written. */
struct manual_span tri__manual_no_span;

/* ---- lists of a cache ---------------------------------------------------------------------------------------- */

/* To the end: by the time its turn comes a span that was full has more than the one block that came back first. */
static void list_push(struct manual_cache *c, struct manual_span *ms) {
    struct manual_span **tail = &c->tails[ms->class_index];
    ms->next = NULL;
    ms->prev = *tail;
    *(*tail ? &(*tail)->next : &c->lists[ms->class_index]) = ms;
    *tail = ms;
}

static void list_remove(struct manual_cache *c, struct manual_span *ms) {
    *(ms->prev ? &ms->prev->next : &c->lists[ms->class_index]) = ms->next;
    *(ms->next ? &ms->next->prev : &c->tails[ms->class_index]) = ms->prev;
    ms->next = ms->prev = NULL;
}

static size_t span_bytes(const struct manual_span *ms) {
    return ms->span->npages << PAGE_SHIFT;
}

/* Whoever gives memory back to the system sees a heap of manual memory alone by this. */
static void tell_moves(const struct memory *mem) {
    if (mem->hooks.manual_moves) mem->hooks.manual_moves(mem->hooks.context);
}

/* ---- making and giving back spans ---------------------------------------------------------------------------- */

static void publish(struct memory *mem, struct manual_span *ms, uint64_t shape) {
    struct space *space = &mem->space;
    for (size_t page = ms->span->first_page; page < ms->span->first_page + ms->span->npages; page++) {
        check_internal(atomic_load_relaxed(&space->pages[page].shape) == 0, "I-SPAN2: a page has one span");
        atomic_store_relaxed(&space->spans[page], ms->span);
        atomic_store_relaxed(&space->pages[page].place, (uint64_t)(uintptr_t)ms);
        atomic_store_release(&space->pages[page].shape,
                             shape); /* I-ARENA2; pairs with space_find_slot, which refuses */
    }
}

static uint64_t shape_of(const struct manual_span *ms) {
    const struct manual_cache *c = atomic_load_relaxed(&ms->owner); /* under the lock */
    uint64_t owner = c ? c->tag : PAGE_MANUAL;
    return owner | (uint64_t)ms->class_index << 8 | (uint64_t)ms->slot_bytes << 32;
}

/* Pages and records for a span. Requires the manual lock. NULL: they cannot be had. */
static struct manual_span *new_span(struct memory *mem, size_t npages, const struct manual_span *like,
                                    size_t align_bytes, bool *dirty) {
    size_t first, extra = align_bytes > PAGE_BYTES ? (align_bytes >> PAGE_SHIFT) - 1 : 0;
    struct manual_span *ms = tri__fixalloc_get(&mem->manual.fix_span);
    struct span *span = ms ? tri__memory_try_new_span(mem, npages + extra, NULL, dirty, &first) : NULL;
    if (!span) {
        if (ms) tri__fixalloc_put(&mem->manual.fix_span, ms);
        return NULL;
    }
    if (extra) { /* what lies around the aligned run goes back */
        size_t start = space_page_of(&mem->space, align_up(space_page_addr(&mem->space, first), align_bytes));
        if (start > first) tri__pageheap_free(mem->pages, first, start - first);
        if (start < first + extra) tri__pageheap_free(mem->pages, start + npages, first + extra - start);
        atomic_sub_relaxed(&mem->used_pages, extra); /* a counter */
        first = start;
    }
    tri__span_format_large(span, first, npages, 0, SPAN_LEAF, *dirty);
    span->kind = PAGE_MANUAL;
    span->class_index = like->class_index;
    atomic_store_relaxed(&span->place, SPAN_CACHED);
    *ms = *like;
    ms->span = span;
    ms->base = space_page_addr(&mem->space, first);
#if TRI_CHECKS >= 1
    ms->records = tri__manual_records_new(ms->nslots);
#endif
    publish(mem, ms, shape_of(ms));
    atomic_store_relaxed(&mem->manual.npages, mem->manual.npages + npages); /* under the lock; others read a figure */
    tell_moves(mem);
    return ms;
}

/* Requires the manual lock. Nobody else can reach the span (I-MAN2). */
static void release_locked(struct memory *mem, struct manual_span *ms) {
    struct space *space = &mem->space;
    size_t first = ms->span->first_page, npages = ms->span->npages;
    check_internal(atomic_load_relaxed(&ms->remote) == 0, "I-MAN2: nothing is on its way to an empty span");
    for (size_t page = first; page < first + npages; page++) {
        atomic_store_release(&space->pages[page].shape, 0); /* lookups refuse it before and after */
        atomic_store_relaxed(&space->pages[page].place, 0);
        atomic_store_relaxed(&space->spans[page], NULL);
    }
#if TRI_CHECKS >= 1
    tri__manual_records_drop(ms->records);
#endif
    tri__memory_drop_span(mem, ms->span, first, npages);
    tri__fixalloc_put(&mem->manual.fix_span, ms);
    atomic_store_relaxed(&mem->manual.npages, mem->manual.npages - npages); /* as in new_span */
}

/* ---- empty spans --------------------------------------------------------------------------------------------- */

static void drop_from_pool(struct memory *mem, unsigned class_index) {
    struct manual_span *ms = mem->manual.pool[class_index];
    mem->manual.pool[class_index] = ms->next;
    atomic_store_relaxed(&mem->manual.pool_pages,
                         mem->manual.pool_pages - ms->span->npages); /* under the lock; a hint */
    release_locked(mem, ms);
}

/* Gives the pool back. Requires the manual lock. */
static void drop_pool(struct memory *mem) {
    for (unsigned i = 0; i < NUM_MANUAL_CLASSES; i++)
        while (mem->manual.pool[i]) drop_from_pool(mem, i);
}

/* Into the pool, at the cost of others there, the classes in turn. */
static void put_in_pool(struct memory *mem, struct manual_span *ms) {
    struct manual *manual = &mem->manual;
    while (manual->pool_pages > 0 && manual->pool_pages + ms->span->npages > POOL_PAGES) {
        manual->pool_victim = (manual->pool_victim + 1) % NUM_MANUAL_CLASSES;
        if (manual->pool[manual->pool_victim]) drop_from_pool(mem, manual->pool_victim);
    }
    ms->next = manual->pool[ms->class_index];
    manual->pool[ms->class_index] = ms;
    atomic_store_relaxed(&manual->pool_pages, manual->pool_pages + ms->span->npages); /* as in drop_from_pool */
}

/* Back from a cache: for any thread, or to the page heap if the manual lock is held already. */
static void release(struct manual_cache *c, struct manual_span *ms, bool locked) {
    struct memory *mem = atomic_load_relaxed(&c->mem); /* alive: the caller uses it */
    atomic_sub_relaxed(&c->nspans[ms->class_index], 1);
    if (locked) {
        release_locked(mem, ms);
        return;
    }
    tri__lock_acquire(&mem->manual.lock);
    put_in_pool(mem, ms);
    tri__lock_release(&mem->manual.lock);
    tell_moves(mem);
}

/* A span that has become empty, in no list and not current: kept for a while, or given back. */
static void put_empty(struct manual_cache *c, struct manual_span *ms, bool locked) {
    size_t bytes = span_bytes(ms);
    if (c->empty_bytes + bytes > c->keep_bytes) {
        release(c, ms, locked);
        return;
    }
    c->empty_bytes += bytes;
    list_push(c, ms);
}

/* Forgets the class among those whose current span is empty. */
static void forget_idle(struct manual_cache *c, unsigned class_index) {
    uint8_t n = 0;
    for (uint8_t i = 0; i < c->nidle; i++)
        if (c->idle[i] != class_index) c->idle[n++] = c->idle[i];
    c->nidle = n;
}

/* The current span of a class has become empty: it stays for the next block, at the cost of those that have been empty
 * for longer (I-MAN5). One that has a block again by now is none of these. */
static TRI_COLD void keep_current(struct manual_cache *c, const struct manual_span *ms, bool locked) {
    uint8_t was[MANUAL_IDLE_CLASSES], n = 1;
    forget_idle(c, ms->class_index);
    uint8_t nwas = c->nidle;
    memcpy(was, c->idle, sizeof was);
    c->idle[0] = ms->class_index;
    size_t sum = span_bytes(ms);
    for (uint8_t i = 0; i < nwas; i++) {
        struct manual_span *other = c->current[was[i]];
        if (other == &tri__manual_no_span || other->used > 0) continue;
        sum += span_bytes(other);
        if (sum <= c->keep_bytes && n < MANUAL_IDLE_CLASSES) {
            c->idle[n++] = was[i];
            continue;
        }
        c->current[was[i]] = &tri__manual_no_span;
        release(c, other, locked);
    }
    c->nidle = n;
}

static bool counts_idle(const struct manual_cache *c, const struct manual_span *ms) {
    if ((size_t)ms->nslots * ms->slot_bytes < IDLE_LEAST_BYTES) return false;
    return c->nidle == 0 || c->idle[0] != ms->class_index;
}

/* The span changes hands: nobody has a block of it, or its owner has ended. Requires the manual lock. */
static void give_to(struct memory *mem, struct manual_cache *c, struct manual_span *ms) {
    atomic_add_relaxed(&c->nspans[ms->class_index], 1);
    if (atomic_load_relaxed(&ms->owner) == c) return;
    atomic_store_relaxed(&ms->owner, c); /* I-MAN3 */
    for (size_t page = ms->span->first_page; page < ms->span->first_page + ms->span->npages; page++)
        atomic_store_release(&mem->space.pages[page].shape, shape_of(ms)); /* others compare, and never match */
}

static struct manual_span *take_pooled(struct manual_cache *c, unsigned class_index) {
    struct memory *mem = atomic_load_relaxed(&c->mem);                  /* alive: the caller uses it */
    if (atomic_load_relaxed(&mem->manual.pool_pages) == 0) return NULL; /* a hint */
    tri__lock_acquire(&mem->manual.lock);
    struct manual_span *ms = mem->manual.pool[class_index];
    if (ms) {
        mem->manual.pool[class_index] = ms->next;
        atomic_store_relaxed(&mem->manual.pool_pages, mem->manual.pool_pages - ms->span->npages); /* drop_from_pool */
        ms->next = ms->prev = NULL;
        give_to(mem, c, ms);
    }
    tri__lock_release(&mem->manual.lock);
    return ms;
}

/* ---- blocks that other threads freed ------------------------------------------------------------------------- */

static void push_returned(const struct memory *mem, struct manual_span *ms) {
    struct manual_cache *owner = atomic_load_relaxed(&ms->owner); /* an old one sends it on (I-MAN3) */
    if (mem->hooks.delay) mem->hooks.delay(mem->hooks.context);   /* it may end, and the span change hands, meanwhile */
    struct manual_span *top = atomic_load_relaxed(&owner->returned);
    do ms->returned = top;
    while (!atomic_cas_acqrel(&owner->returned, &top, ms)); /* pairs with pop_returned */
}

static bool has_returned(const struct manual_cache *c) {
    return atomic_load_relaxed(&c->returned) != NULL; /* a hint */
}

/* All of a cache's stack. */
static struct manual_span *pop_returned(struct manual_cache *c) {
    if (!has_returned(c)) return NULL;
    return atomic_swap_acqrel(&c->returned, NULL); /* pairs with push_returned */
}

/* A free from a thread that does not own the span. The first block brings the span to its owner's notice (I-MAN1). */
static void push_remote(const struct memory *mem, struct manual_span *ms, void *block) {
    uint64_t remote = atomic_load_relaxed(&ms->remote), with;
    do {
        *(void **)block = (void *)(uintptr_t)(remote & REMOTE_ADDRESS);
        with = (remote & ~REMOTE_ADDRESS) + REMOTE_ONE + (uintptr_t)block;
    } while (!atomic_cas_acqrel(&ms->remote, &remote, with)); /* pairs with take_remote, release_returned */
    if (remote == 0) push_returned(mem, ms);
}

/* For a span off the stack: from the exchange on it may be pushed there again. */
static void take_remote(struct manual_span *ms) {
    uint64_t remote = atomic_swap_acqrel(&ms->remote, 0); /* pairs with push_remote */
    void **head = (void **)(uintptr_t)(remote & REMOTE_ADDRESS), **last = head;
    check_cheap(head != NULL, "I-MAN1: a span on the stack has a block that came back");
    if (ms->free) {
        while (*last) last = *last;
        *last = ms->free;
    }
    ms->free = head;
    uint32_t n = (uint32_t)(remote / REMOTE_ONE);
    check_cheap(n <= ms->used, "I-MAN2: no more blocks come back than were given out");
    ms->used -= n;
}

/* Files an own span anew to which blocks have come back. */
static void refile(struct manual_cache *c, struct manual_span *ms, bool locked) {
    if (ms == c->current[ms->class_index]) {
        if (ms->used == 0 && counts_idle(c, ms)) keep_current(c, ms, locked);
        return;
    }
    bool was_full = atomic_load_relaxed(&ms->full); /* own write */
    atomic_store_relaxed(&ms->full, false);
    if (ms->used > 0) {
        if (was_full) list_push(c, ms);
        return;
    }
    if (!was_full) list_remove(c, ms);
    put_empty(c, ms, locked);
}

static void take_returned(struct manual_cache *c, bool locked) {
    const struct memory *mem = atomic_load_relaxed(&c->mem); /* alive: the caller uses it */
    for (struct manual_span *ms = pop_returned(c), *next; ms; ms = next) {
        next = ms->returned;
        if (atomic_load_relaxed(&ms->owner) != c) { /* I-MAN3 */
            push_returned(mem, ms);
            continue;
        }
        take_remote(ms);
        refile(c, ms, locked);
    }
}

/* Of a thread that may be asleep: gives those full spans back whose blocks have all returned from other threads. The
 * owner can do nothing to them but take them off the stack, which this thread has done. Requires the manual lock. */
static void release_returned(struct memory *mem, struct manual_cache *c) {
    for (struct manual_span *ms = pop_returned(c), *next; ms; ms = next) {
        next = ms->returned;
        /* All blocks were given out before they came back, so `full` cannot be read as it was before that. */
        bool whole = atomic_load_acquire(&ms->remote) / REMOTE_ONE == ms->nslots; /* pairs with push_remote */
        if (whole && atomic_load_acquire(&ms->full) && atomic_load_relaxed(&ms->owner) == c) { /* retire_current */
            atomic_store_relaxed(&ms->remote, 0);
            atomic_sub_relaxed(&c->nspans[ms->class_index], 1);
            release_locked(mem, ms);
        } else {
            push_returned(mem, ms);
        }
    }
}

/* The current span has run dry. Another thread may give it back from here on (release_returned). */
static void retire_current(struct manual_cache *c, struct manual_span *ms) {
    c->current[ms->class_index] = &tri__manual_no_span;
    atomic_store_release(&ms->full, true); /* the last touch; pairs with release_returned */
}

/* After a free by the owner: the span was dry before, or is empty now. */
void tri__manual_noted(struct manual_cache *c, struct manual_span *ms) {
    bool is_listed = !atomic_load_relaxed(&ms->full); /* own write */
    if (is_listed && ms->used > 0) return;            /* current, too */
    refile(c, ms, false);
}

/* ---- refilling ----------------------------------------------------------------------------------------------- */

/* Links the next slots of a span that has never been used up. False: all are linked. */
static bool link_more(struct manual_span *ms) {
    if (ms->nlinked == ms->nslots) return false;
    uint32_t n = (uint32_t)max_size(LINK_BYTES / ms->slot_bytes, 1);
    if (n > ms->nslots - ms->nlinked) n = ms->nslots - ms->nlinked;
    char *slot = (char *)ms->base + (size_t)ms->nlinked * ms->slot_bytes;
    ms->nlinked += n;
    void *first = slot;
    for (; n > 1; n--, slot += ms->slot_bytes) *(void **)(void *)slot = slot + ms->slot_bytes;
    *(void **)(void *)slot = NULL;
    ms->free = first;
    return true;
}

/* Pages of the next span of a class: twice as many as before, within bounds. */
static size_t pages_for(const struct manual_cache *c, unsigned class_index, size_t *least) {
    uint32_t slot_bytes = manual_class_bytes(class_index);
    *least = class_index < NUM_SIZE_CLASSES ? tri__size_classes[class_index].npages : slot_bytes >> PAGE_SHIFT;
    size_t most = max_size(min_size((size_t)slot_bytes * SPAN_MIN_SLOTS, SPAN_LONG_BYTES), SPAN_SHORT_BYTES) >>
                  PAGE_SHIFT;
    size_t times = (size_t)1 << min_size(atomic_load_relaxed(&c->nspans[class_index]), 6);
    return *least * max_size(min_size(times, most / *least), 1);
}

static struct manual_span *fresh_of(struct manual_cache *c, unsigned class_index, size_t npages) {
    struct memory *mem = atomic_load_relaxed(&c->mem); /* alive: the caller uses it */
    uint32_t slot_bytes = manual_class_bytes(class_index);
    struct manual_span like = {.nslots = (uint32_t)((npages << PAGE_SHIFT) / slot_bytes),
                               .slot_bytes = slot_bytes,
                               .class_index = (uint8_t)class_index,
                               .owner = c};
    bool dirty;
    tri__lock_acquire(&mem->manual.lock);
    struct manual_span *ms = new_span(mem, npages, &like, 0, &dirty);
    tri__lock_release(&mem->manual.lock);
    if (ms) atomic_add_relaxed(&c->nspans[class_index], 1);
    return ms;
}

/* Gives back whatever this heap keeps empty: manual spans, and spans of objects. */
static void make_room(struct memory *mem) {
    tri__manual_trim(mem);
    tri__memory_drop_empty(mem, true);
}

/* The usual length, else the least, else the least after everything that is kept has been given back. */
static struct manual_span *take_fresh(struct manual_cache *c, unsigned class_index) {
    size_t least, npages = pages_for(c, class_index, &least);
    struct manual_span *ms = fresh_of(c, class_index, npages);
    if (!ms && npages > least) ms = fresh_of(c, class_index, least);
    if (ms) return ms;
    make_room(atomic_load_relaxed(&c->mem)); /* alive: the caller uses it */
    return fresh_of(c, class_index, least);
}

/* A span of the class from a thread that has ended. */
static struct manual_span *take_orphaned(struct manual_cache *c, unsigned class_index) {
    struct memory *mem = atomic_load_relaxed(&c->mem);                /* alive: the caller uses it */
    if (atomic_load_relaxed(&mem->manual.norphans) == 0) return NULL; /* a hint */
    struct manual_span *ms = NULL;
    tri__lock_acquire(&mem->manual.lock);
    struct manual_cache *orphan = mem->manual.orphans;
    for (int i = 0; orphan && !ms && i < MAX_ORPHANS_A_REFILL; orphan = orphan->next_orphan, i++) {
        take_returned(orphan, true);
        ms = orphan->lists[class_index];
        if (!ms) continue;
        list_remove(orphan, ms);
        atomic_sub_relaxed(&orphan->nspans[class_index], 1);
        give_to(mem, c, ms);
    }
    tri__lock_release(&mem->manual.lock);
    return ms;
}

/* Somebody else has trimmed the heap. */
static TRI_COLD void settle_asked(struct manual_cache *c) {
    struct memory *mem = atomic_load_relaxed(&c->mem); /* alive: the caller uses it */
    tri__lock_acquire(&mem->manual.lock);
    atomic_store_relaxed(&c->asked, false);
    tri__manual_settle(c);
    tri__lock_release(&mem->manual.lock);
}

/* A block of the class when the current span has none at hand. NULL without memory. *fresh: the slot has never been
 * given out; its first word is a link. */
static TRI_COLD void *refill(struct manual_cache *c, unsigned class_index, bool *fresh) {
    if (TRI_UNLIKELY(atomic_load_relaxed(&c->asked))) settle_asked(c); /* a hint */
    for (;;) {
        struct manual_span *ms = c->current[class_index];
        *fresh = false;
        if (ms->free) return manual_take(c, class_index);
        /* What others have freed comes before memory that nobody has touched, where a slot is half a system's page. */
        if (ms->slot_bytes >= LINK_BYTES / 2 && ms->nlinked < ms->nslots && has_returned(c)) {
            take_returned(c, false);
            continue;
        }
        *fresh = true;
        if (ms != &tri__manual_no_span && link_more(ms)) return manual_take(c, class_index);
        take_returned(c, false);
        if (ms != c->current[class_index] || ms->free) continue; /* it may have been given back (keep_current) */
        if (ms != &tri__manual_no_span) retire_current(c, ms);
        ms = c->lists[class_index];
        if (ms) {
            list_remove(c, ms);
            if (ms->used == 0) c->empty_bytes -= span_bytes(ms);
        } else {
            ms = take_pooled(c, class_index);
            if (!ms) ms = take_orphaned(c, class_index);
            if (!ms) ms = take_fresh(c, class_index);
            if (!ms && c->lists[class_index]) continue; /* what others have freed meanwhile */
            if (!ms) return NULL;
        }
        c->current[class_index] = ms;
    }
}

/* ---- large blocks -------------------------------------------------------------------------------------------- */

static void *alloc_large(struct memory *mem, size_t align_bytes, size_t size_bytes, bool *clean) {
    if (size_bytes > mem->space.size_bytes || align_bytes > mem->space.size_bytes) return NULL;
    struct manual_span like = {.used = 1, .nslots = 1, .nlinked = 1};
    size_t npages = max_size(ceil_div(size_bytes, PAGE_BYTES), 1);
    bool dirty = true;
    tri__lock_acquire(&mem->manual.lock);
    struct manual_span *ms = new_span(mem, npages, &like, align_bytes, &dirty);
    tri__lock_release(&mem->manual.lock);
    if (!ms) return NULL;
    *clean = !dirty;
    atomic_add_relaxed(&mem->manual.shared_bytes, (int64_t)span_bytes(ms)); /* a counter */
    return (void *)ms->base;
}

static void free_large(struct memory *mem, struct manual_span *ms) {
    atomic_sub_relaxed(&mem->manual.shared_bytes, (int64_t)span_bytes(ms)); /* a counter */
    tri__lock_acquire(&mem->manual.lock);
    release_locked(mem, ms);
    tri__lock_release(&mem->manual.lock);
    tell_moves(mem);
}

/* ---- any block ----------------------------------------------------------------------------------------------- */

static void *alloc_class(struct memory *mem, unsigned class_index, bool *clean) {
    struct manual_cache *c = tri__manual_cache(mem);
    if (!c) return NULL;
    void *block = manual_take(c, class_index);
    if (TRI_LIKELY(block != NULL)) return block;
    bool fresh = false;
    block = refill(c, class_index, &fresh);
    if (block && fresh && !c->current[class_index]->span->dirty) { /* untouched but for the link */
        *(void **)block = NULL;
        *clean = true;
    }
    return block;
}

void *tri__manual_alloc(struct memory *mem, size_t size_bytes, bool *clean) {
    *clean = false;
    if (TRI_LIKELY(size_bytes <= MANUAL_MEDIUM_BYTES)) return alloc_class(mem, manual_class_of(size_bytes), clean);
    void *block = alloc_large(mem, 0, size_bytes, clean);
    if (block) return block;
    make_room(mem);
    return alloc_large(mem, 0, size_bytes, clean);
}

void *tri__manual_alloc_aligned(struct memory *mem, size_t align_bytes, size_t size_bytes) {
    bool clean = false;
    if (size_bytes <= MANUAL_MEDIUM_BYTES && align_bytes <= PAGE_BYTES)
        for (unsigned i = manual_class_of(max_size(size_bytes, 1)); i < NUM_MANUAL_CLASSES; i++)
            if (manual_class_bytes(i) % align_bytes == 0) return alloc_class(mem, i, &clean);
    void *block = alloc_large(mem, align_bytes, size_bytes, &clean);
    if (block) return block;
    make_room(mem);
    return alloc_large(mem, align_bytes, size_bytes, &clean);
}

bool tri__manual_free(struct memory *mem, void *block) {
    struct manual_span *ms = manual_span_of(&mem->space, (uintptr_t)block);
    if (!ms) return false;
    if (ms->slot_bytes == 0) {
        free_large(mem, ms);
        return true;
    }
    struct manual_cache *c = tri__manual_cache(mem);
    if (c && manual_free_fast(mem, block)) return true;
    if (c)
        manual_count(c, -(int64_t)ms->slot_bytes);
    else
        atomic_sub_relaxed(&mem->manual.shared_bytes, (int64_t)ms->slot_bytes); /* a counter */
    push_remote(mem, ms, block);
    return true;
}

size_t tri__manual_usable(const struct memory *mem, uintptr_t addr, uintptr_t *start) {
    const struct manual_span *ms = manual_span_of(&mem->space, addr);
    if (!ms) return 0;
    size_t slot_bytes = ms->slot_bytes ? ms->slot_bytes : span_bytes(ms);
    size_t index = (addr - ms->base) / slot_bytes;
    if (index >= ms->nslots) return 0; /* tail waste */
    *start = ms->base + index * slot_bytes;
    return *start + slot_bytes - addr;
}

size_t tri__manual_live_bytes(const struct memory *mem) {
    int64_t sum = atomic_load_relaxed(&mem->manual.shared_bytes);      /* counters, each read on its own */
    struct manual_cache *c = atomic_load_acquire(&mem->manual.caches); /* pairs with new_cache */
    for (; c; c = c->next_of_heap) sum += atomic_load_relaxed(&c->live_bytes);
    return sum > 0 ? (size_t)sum : 0;
}

size_t tri__manual_pages(const struct memory *mem) {
    return atomic_load_relaxed(&mem->manual.npages); /* a figure */
}

/* ---- giving back --------------------------------------------------------------------------------------------- */

static void settle_class(struct manual_cache *c, unsigned class_index) {
    struct manual_span *ms = c->current[class_index];
    if (ms != &tri__manual_no_span) { /* as if it had been listed all the time */
        c->current[class_index] = &tri__manual_no_span;
        list_push(c, ms);
    }
    for (struct manual_span *next = c->lists[class_index]; (ms = next) != NULL;) {
        next = ms->next;
        if (ms->used) continue;
        list_remove(c, ms);
        release(c, ms, true);
    }
}

void tri__manual_settle(struct manual_cache *c) {
    take_returned(c, true);
    for (unsigned i = 0; i < NUM_MANUAL_CLASSES; i++) settle_class(c, i);
    c->empty_bytes = 0;
    c->nidle = 0;
}

void tri__manual_trim(struct memory *mem) {
    struct manual_cache *own = tri__manual_self;
    tri__lock_acquire(&mem->manual.lock);
    for (struct manual_cache *c = mem->manual.orphans; c; c = c->next_orphan) tri__manual_settle(c);
    for (struct manual_cache *c = atomic_load_relaxed(&mem->manual.caches); c; c = c->next_of_heap) /* under the lock */
        if (c != own) {
            release_returned(mem, c);
            atomic_store_relaxed(&c->asked, true); /* a hint to its thread */
        }
    if (atomic_load_relaxed(&own->mem) == mem) tri__manual_settle(own); /* the calling thread's */
    drop_pool(mem);
    tri__lock_release(&mem->manual.lock);
}

/* ---- after a fork -------------------------------------------------------------------------------------------- */

/* What its thread did last may be half done: lists and counts are not trusted, blocks that were in its hands are
 * lost. */
static void refile_lost(struct memory *mem, struct manual_cache *c, struct manual_span *ms) {
    if (atomic_load_relaxed(&ms->remote)) take_remote(ms);
    ms->next = ms->prev = NULL;
    if (ms->used == 0) {
        release_locked(mem, ms);
        return;
    }
    bool has_room = ms->free || ms->nlinked < ms->nslots;
    atomic_store_relaxed(&ms->full, !has_room);
    if (has_room) list_push(c, ms);
    atomic_add_relaxed(&c->nspans[ms->class_index], 1);
}

static void forget_lists(struct manual_cache *c) {
    for (unsigned i = 0; i < NUM_MANUAL_CLASSES; i++) {
        c->current[i] = &tri__manual_no_span;
        c->lists[i] = c->tails[i] = NULL;
        atomic_store_relaxed(&c->nspans[i], 0);
    }
    c->empty_bytes = c->keep_bytes = 0;
    c->nidle = 0;
}

void tri__manual_refile_all(struct memory *mem) {
    const struct space *space = &mem->space;
    if (tri__manual_pages(mem) == 0) return;
    drop_pool(mem); /* from here on every span of a class is its owner's */
    for (struct manual_cache *c = atomic_load_relaxed(&mem->manual.caches); c; c = c->next_of_heap) {
        atomic_store_relaxed(&c->returned, NULL);
        if (!c->held) forget_lists(c);
    }
    size_t npages = atomic_load_relaxed(&space->committed_pages);
    for (size_t page = 0; page < npages;) {
        struct manual_span *ms = manual_span_of(space, space_page_addr(space, page));
        page += ms ? ms->span->npages : 1;
        struct manual_cache *owner = ms ? atomic_load_relaxed(&ms->owner) : NULL; /* NULL: a large block */
        if (owner && !owner->held)
            refile_lost(mem, owner, ms);
        else if (owner && atomic_load_relaxed(&ms->remote))
            push_returned(mem, ms); /* a thread was on its way there */
    }
}
