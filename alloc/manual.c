/* manual.c - what a thread's cache does with its spans of manual memory: it refills them, takes over the blocks that
 * come back from other threads, and keeps some that are empty; and any block, large ones included. Invariants and lock
 * rank stand in manual.h. How a span is made and goes back, and the pool: manual_span.c. */
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
    MAX_ORPHANS_A_REFILL = 16
};

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

/* ---- empty spans --------------------------------------------------------------------------------------------- */

/* Back from a cache: for any thread, or to the page heap if the manual lock is held already. Out of line: a free that
 * gives nothing back saves no register for it. */
static TRI_COLD void release(struct manual_cache *c, struct manual_span *ms, bool locked) {
    struct memory *mem = atomic_load_relaxed(&c->mem); /* alive: the caller uses it */
    atomic_sub_relaxed(&c->nspans[ms->class_index], 1);
    if (locked) {
        tri__manual_span_drop(mem, ms);
        return;
    }
    tri__lock_acquire(&mem->manual.lock);
    tri__manual_pool_put(mem, ms);
    tri__lock_release(&mem->manual.lock);
    tri__manual_tell(mem);
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
            tri__manual_span_drop(mem, ms);
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
    struct manual_span *ms = tri__manual_span_new(mem, npages, &like, 0, &dirty);
    tri__lock_release(&mem->manual.lock);
    if (ms) atomic_add_relaxed(&c->nspans[class_index], 1);
    return ms;
}

/* Gives back whatever this heap keeps empty: manual spans, and spans of objects. */
static void make_room(struct memory *mem) {
    tri__manual_trim(mem);
    (void)tri__memory_drop_empty(mem, true);
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
        tri__manual_give_to(mem, c, ms);
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
            ms = tri__manual_pool_take(c, class_index);
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
    struct manual_span *ms = tri__manual_span_new(mem, npages, &like, align_bytes, &dirty);
    tri__lock_release(&mem->manual.lock);
    if (!ms) return NULL;
    *clean = !dirty;
    atomic_add_relaxed(&mem->manual.shared_bytes, (int64_t)span_bytes(ms)); /* a counter */
    return (void *)ms->base;
}

static void free_large(struct memory *mem, struct manual_span *ms) {
    atomic_sub_relaxed(&mem->manual.shared_bytes, (int64_t)span_bytes(ms)); /* a counter */
    tri__lock_acquire(&mem->manual.lock);
    tri__manual_span_drop(mem, ms);
    tri__lock_release(&mem->manual.lock);
    tri__manual_tell(mem);
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
    tri__manual_pool_drop(mem);
    tri__lock_release(&mem->manual.lock);
}

/* ---- after a fork -------------------------------------------------------------------------------------------- */

/* What its thread did last may be half done: lists and counts are not trusted, blocks that were in its hands are
 * lost. */
static void refile_lost(struct memory *mem, struct manual_cache *c, struct manual_span *ms) {
    if (atomic_load_relaxed(&ms->remote)) take_remote(ms);
    ms->next = ms->prev = NULL;
    if (ms->used == 0) {
        tri__manual_span_drop(mem, ms);
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
    tri__manual_pool_drop(mem); /* from here on every span of a class is its owner's */
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
