/* watch.c - objects whose death somebody waits for: the table of registrations, and cleanups.
 *
 * A registration is a watch: a cleanup (a function and its argument, to be run once the object is gone) or the claim of
 * a finalizer queue (finalize.c). Watches lie in a hash table by their object's address, which stays: objects do not
 * move. The table grows by one bucket at a time (Litwin's linear hashing), over addresses that are reserved at the
 * first registration, so that no registration pays for all others, and that one which was accepted needs no memory
 * when its object dies (R19): its own node goes to the list of what is due.
 *
 * Nothing runs on a collector's thread: the host takes what is due when it wants to, by tri_cleanup_run.
 *
 * Invariants: I-WATCH1 (R7) registering and the cycle's look at the dead share a lock. I-WATCH2 a watch is in one
 * place: its bucket, the list of what is due, the list of what comes back, a queue, or one thread's hand; so it is
 * served once. I-WATCH3 between cycles a watch in the table names a live object. Lock ranks: watches (32) for a share
 * of the table, then death (33) for the lists. */
#include <stdio.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* A slice is what the cycle does with a lock held: some tens of microseconds. Buckets of one shard. */
enum { FIRST_BUCKETS = 16, MAX_BUCKETS = 1 << 18, WATCHES_A_BUCKET = 2, SLICE_BUCKETS = 16 };

void tri__watches_init(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    for (size_t i = 0; i < WATCH_SHARDS; i++) tri__lock_init(&ws->shards[i].lock, RANK_WATCHES, "watches");
    tri__lock_init(&ws->lock, RANK_DEATH, "death");
    tri__fixalloc_init(&ws->fix, sizeof(struct watch), "watched objects", NULL, NULL);
}

void tri__watches_fini(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    for (size_t i = 0; i < WATCH_SHARDS; i++) {
        struct watch_shard *sh = &ws->shards[i];
        if (sh->buckets) tri__os_release(sh->buckets, MAX_BUCKETS * sizeof *sh->buckets);
        tri__lock_fini(&sh->lock);
    }
    tri__fixalloc_fini(&ws->fix);
    tri__lock_fini(&ws->lock);
}

/* ---- lists ------------------------------------------------------------------------------------------------------ */

void tri__watch_append(struct watch_list *list, struct watch *w) {
    w->next = NULL;
    if (list->last)
        list->last->next = w;
    else
        list->first = w;
    list->last = w;
}

struct watch *tri__watch_pop(struct watch_list *list) {
    struct watch *w = list->first;
    if (!w) return NULL;
    list->first = w->next;
    if (!list->first) list->last = NULL;
    return w;
}

/* ---- the table; under its shard's lock --------------------------------------------------------------------------- */

static size_t hash(uintptr_t addr) {
    uint64_t x = addr >> 3; /* the finalizer of splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return (size_t)(x ^ x >> 31);
}

static struct watch_shard *shard_of(struct watches *ws, uintptr_t addr) {
    return &ws->shards[hash(addr) >> 48 & (WATCH_SHARDS - 1)];
}

static size_t bucket_of(const struct watch_shard *sh, uintptr_t addr) {
    size_t low = (size_t)1 << bit_highest(sh->nbuckets), h = hash(addr), b = h & (2 * low - 1);
    return b < sh->nbuckets ? b : h & (low - 1);
}

static void append_to_bucket(struct watch_shard *sh, struct watch *w) {
    struct watch **p = &sh->buckets[bucket_of(sh, w->addr)];
    while (*p) p = &(*p)->next; /* one object's watches stay in their order */
    w->next = NULL;
    *p = w;
}

/* One bucket more: the watches of one are shared out to it and the new one. What a look at the buckets from the first
 * to the last has not come to is still ahead of it. */
static void split(struct watch_shard *sh) {
    if (sh->n <= sh->nbuckets * WATCHES_A_BUCKET || sh->nbuckets == MAX_BUCKETS) return;
    size_t from = sh->nbuckets - ((size_t)1 << bit_highest(sh->nbuckets));
    struct watch *w = sh->buckets[from], *next;
    sh->buckets[from] = NULL;
    sh->nbuckets++;
    for (; w; w = next) {
        next = w->next;
        append_to_bucket(sh, w);
    }
}

static bool make_table(struct watch_shard *sh) {
    if (sh->buckets) return true;
    sh->buckets = tri__os_map_sparse(MAX_BUCKETS * sizeof *sh->buckets);
    sh->nbuckets = sh->buckets ? FIRST_BUCKETS : 0;
    return sh->buckets != NULL;
}

/* Whether a queue claims the object. */
static bool is_claimed(const struct watch_shard *sh, uintptr_t addr) {
    for (const struct watch *w = sh->buckets[bucket_of(sh, addr)]; w; w = w->next)
        if (w->addr == addr && w->queue) return true;
    return false;
}

static void link_watch(struct watches *ws, struct watch_shard *sh, struct watch *w) {
    append_to_bucket(sh, w);
    sh->n++;
    atomic_add_relaxed(&ws->n, 1); /* counters */
    if (w->queue) atomic_add_relaxed(&ws->nclaims, 1);
}

static void unlink_watch(struct watches *ws, struct watch_shard *sh, struct watch **p) {
    struct watch *w = *p;
    *p = w->next;
    sh->n--;
    atomic_sub_relaxed(&ws->n, 1); /* counters */
    if (w->queue) atomic_sub_relaxed(&ws->nclaims, 1);
}

static int add_locked(struct watches *ws, struct watch_shard *sh, struct watch *w, const char *call) {
    if (!make_table(sh)) return tri__error(TRI_ENOMEM, call, "no address space for the table of watched objects");
    if (w->queue && is_claimed(sh, w->addr))
        return tri__error(TRI_ESTATE, call, "object %p is watched for a finalizer queue already", (void *)w->addr);
    link_watch(ws, sh, w);
    split(sh);
    return TRI_OK;
}

uintptr_t tri__object_of(struct mutator *m, const void *obj, const char *call) {
    const struct space *space = &m->heap->mem.space;
    struct slot slot;
    const char *why = "is no object of this heap";
    if (space_find_slot(space, (uintptr_t)obj, &slot) && space_is_allocated(space, &slot)) {
        if (!(space_span_of(space, slot.addr)->flags & SPAN_SHARED)) return slot.addr;
        why = "may share its slot with others (tiny=on), so it has no death of its own";
    }
    (void)tri__error(TRI_EINVAL, call, "%p %s", obj, why);
    return 0;
}

int tri__watch_add(struct mutator *m, const void *obj, tri_finq *queue, void (*fn)(void *), void *arg,
                   const char *call) {
    NO_SAFEPOINT("registering what waits for an object's death");
    struct watches *ws = &m->heap->death.watches;
    uintptr_t addr = tri__object_of(m, obj, call);
    if (!addr) return TRI_EINVAL;
    struct watch *w = tri__fixalloc_get(&ws->fix);
    if (!w) return tri__error(TRI_ENOMEM, call, "no memory for another watched object");
    *w = (struct watch){.addr = addr, .queue = queue, .fn = fn, .arg = arg};
    struct watch_shard *sh = shard_of(ws, addr);
    tri__lock_acquire(&sh->lock); /* I-WATCH1 */
    int err = add_locked(ws, sh, w, call);
    tri__lock_release(&sh->lock);
    if (err != TRI_OK) tri__fixalloc_put(&ws->fix, w);
    return err;
}

/* ---- death ------------------------------------------------------------------------------------------------------ */

static bool is_dead(const tri_heap *heap, const struct watch *w) {
    struct slot slot;
    return !space_find_slot(&heap->mem.space, w->addr, &slot) || !space_is_marked(&heap->mem.space, &slot);
}

/* Takes the claims, or the cleanups, of dead objects out of a bucket. */
static size_t take_bucket(tri_heap *heap, struct watch_shard *sh, size_t bucket, bool claims, struct watch_list *into) {
    size_t n = 0;
    for (struct watch **p = &sh->buckets[bucket]; *p;) {
        struct watch *w = *p;
        if ((w->queue != NULL) != claims || !is_dead(heap, w)) {
            p = &w->next;
            continue;
        }
        unlink_watch(&heap->death.watches, sh, p);
        tri__watch_append(into, w);
        n++;
    }
    return n;
}

/* The end of a slice: what it has taken is in a list before the shard is let go, so that a fork finds it. */
static void splice(struct watch_list *into, const struct watch_list *taken) {
    if (into->last)
        into->last->next = taken->first;
    else
        into->first = taken->first;
    into->last = taken->last;
}

/* A slice of the shard that death is in. */
static void take_slice(tri_heap *heap, bool claims) {
    struct watches *ws = &heap->death.watches;
    struct watch_shard *sh = &ws->shards[ws->shard];
    struct watch_list taken = {NULL, NULL};
    size_t n = 0;
    tri__lock_acquire(&sh->lock); /* I-WATCH1 */
    size_t end = sh->n ? min_size(ws->bucket + SLICE_BUCKETS, sh->nbuckets) : sh->nbuckets;
    if (sh->n)
        while (ws->bucket < end) n += take_bucket(heap, sh, ws->bucket++, claims, &taken);
    if (n) {
        tri__lock_acquire(&ws->lock);
        splice(claims ? &ws->revived : &ws->due, &taken);
        if (!claims) atomic_add_relaxed(&ws->ndue, n); /* a counter */
        tri__lock_release(&ws->lock);
    }
    if (end == sh->nbuckets) ws->shard++, ws->bucket = 0;
    tri__lock_release(&sh->lock);
}

bool tri__watch_take_dead(tri_heap *heap, bool claims, uint64_t deadline_ns) {
    struct watches *ws = &heap->death.watches;
    while (ws->shard < WATCH_SHARDS) {
        /* A registration that is not counted yet is of a live object. */
        if (atomic_load_relaxed(claims ? &ws->nclaims : &ws->n) == 0) return true;
        take_slice(heap, claims);
        tri__units_did(SLICE_BUCKETS * WATCHES_A_BUCKET);
        tri__stress_delay(heap);
        if (heap_is_late(heap, deadline_ns)) return false;
    }
    return true;
}

void tri__watch_take_back(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    struct watch *w;
    ws->scan = NULL;
    ws->scan_queue = NULL;
    while ((w = tri__watch_pop(&ws->revived)) != NULL) link_watch(ws, shard_of(ws, w->addr), w);
}

/* One of the watches of a freed object: a queue's is dropped, a cleanup is due. */
static void serve_freed(struct watches *ws, struct watch *w) {
    if (w->queue) {
        tri__fixalloc_put(&ws->fix, w);
        return;
    }
    tri__lock_acquire(&ws->lock);
    tri__watch_append(&ws->due, w);
    atomic_add_relaxed(&ws->ndue, 1); /* a counter */
    tri__lock_release(&ws->lock);
}

void tri__watch_freed(tri_heap *heap, uintptr_t addr) {
    struct watches *ws = &heap->death.watches;
    struct watch_shard *sh = shard_of(ws, addr);
    if (atomic_load_relaxed(&ws->n) == 0) return; /* the host orders its own registrations before its tri_free */
    tri__lock_acquire(&sh->lock);
    for (struct watch **p = sh->buckets ? &sh->buckets[bucket_of(sh, addr)] : NULL; p && *p;) {
        struct watch *w = *p;
        if (w->addr != addr) {
            p = &w->next;
            continue;
        }
        unlink_watch(ws, sh, p);
        serve_freed(ws, w);
    }
    tri__lock_release(&sh->lock);
}

/* ---- cleanups --------------------------------------------------------------------------------------------------- */

int tri_cleanup_add(tri_thread *thread, void *obj, void (*fn)(void *arg), void *arg) {
    struct mutator *m = tri__mutator_check(thread, "tri_cleanup_add");
    if (!m) return TRI_EUNATTACHED;
    if (!fn) return tri__error(TRI_EINVAL, "tri_cleanup_add", "fn is NULL");
    return tri__watch_add(m, obj, NULL, fn, arg, "tri_cleanup_add");
}

int tri_cleanup_remove(tri_thread *thread, void *obj, void (*fn)(void *arg), void *arg) {
    struct mutator *m = tri__mutator_check(thread, "tri_cleanup_remove");
    NO_SAFEPOINT("tri_cleanup_remove");
    if (!m) return TRI_EUNATTACHED;
    uintptr_t addr = tri__object_of(m, obj, "tri_cleanup_remove");
    if (!addr) return TRI_EINVAL;
    struct watches *ws = &m->heap->death.watches;
    struct watch_shard *sh = shard_of(ws, addr);
    struct watch *found = NULL;
    tri__lock_acquire(&sh->lock);
    for (struct watch **p = sh->buckets ? &sh->buckets[bucket_of(sh, addr)] : NULL; p && *p; p = &(*p)->next) {
        if ((*p)->addr != addr || (*p)->queue || (*p)->fn != fn || (*p)->arg != arg) continue;
        found = *p;
        unlink_watch(ws, sh, p);
        break;
    }
    tri__lock_release(&sh->lock);
    if (!found) return tri__error(TRI_EINVAL, "tri_cleanup_remove", "object %p has no such cleanup", obj);
    tri__fixalloc_put(&ws->fix, found);
    return TRI_OK;
}

/* Takes the next cleanup that is due into the caller's hand. */
static struct watch *take_due(struct watches *ws) {
    tri__lock_acquire(&ws->lock);
    struct watch *w = tri__watch_pop(&ws->due);
    if (w) atomic_sub_relaxed(&ws->ndue, 1); /* a counter */
    tri__lock_release(&ws->lock);
    return w;
}

static void run(struct watches *ws, struct watch *w) {
    void (*fn)(void *) = w->fn;
    void *arg = w->arg;
    tri__fixalloc_put(&ws->fix, w); /* I-WATCH2: nobody else has it */
    atomic_add_relaxed(&ws->nrun, 1);
    fn(arg);
}

size_t tri_cleanup_run(tri_thread *thread, size_t max) {
    struct mutator *m = tri__mutator_check(thread, "tri_cleanup_run");
    if (!m) return 0;
    may_safepoint();
    struct watches *ws = &m->heap->death.watches;
    size_t n = 0;
    while (n < max && atomic_load_relaxed(&ws->ndue)) { /* a hint: the lock decides */
        struct watch *w = take_due(ws);
        if (!w) break;
        m->ncleaning++;
        run(ws, w);
        m->ncleaning--;
        n++;
    }
    return n;
}

void tri__watch_run_all(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    struct watch *w;
    while ((w = take_due(ws)) != NULL) run(ws, w);
    for (size_t i = 0; i < WATCH_SHARDS; i++) {
        struct watch_shard *sh = &ws->shards[i];
        for (size_t b = 0; b < sh->nbuckets; b++)
            while ((w = sh->buckets[b]) != NULL) {
                unlink_watch(ws, sh, &sh->buckets[b]);
                if (!w->queue) run(ws, w);
            }
    }
}

/* ---- verify ----------------------------------------------------------------------------------------------------- */

struct counts {
    size_t n, nclaims;
};

static void verify_shard(tri_heap *heap, const struct watch_shard *sh, struct counts *counts,
                         void (*say)(void *context, const char *text), void *context) {
    char text[160];
    size_t before = counts->n;
    for (size_t b = 0; b < sh->nbuckets; b++)
        for (const struct watch *w = sh->buckets[b]; w; w = w->next) {
            struct slot slot;
            counts->n++;
            counts->nclaims += w->queue != NULL;
            if (shard_of(&heap->death.watches, w->addr) != sh || bucket_of(sh, w->addr) != b)
                say(context, "I-WATCH2: a watch is in another object's bucket");
            if (space_find_slot(&heap->mem.space, w->addr, &slot) && slot.addr == w->addr && tri__lives(heap, &slot))
                continue;
            snprintf(text, sizeof text, "I-WATCH3: %p is watched and is no live object", (void *)w->addr);
            say(context, text);
        }
    if (counts->n - before != sh->n) say(context, "I-WATCH2: the table has not as many watches as it counts");
}

void tri__watch_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context) {
    struct watches *ws = &heap->death.watches;
    struct counts counts = {0, 0};
    size_t ndue = 0;
    for (size_t i = 0; i < WATCH_SHARDS; i++) verify_shard(heap, &ws->shards[i], &counts, say, context);
    for (const struct watch *w = ws->due.first; w; w = w->next) ndue++;
    if (counts.n != atomic_load_relaxed(&ws->n) || counts.nclaims != atomic_load_relaxed(&ws->nclaims))
        say(context, "I-WATCH2: the table has not as many watches as are counted");
    if (ndue != atomic_load_relaxed(&ws->ndue)) say(context, "I-WATCH2: not as many cleanups are due as are counted");
    if (ws->revived.first) say(context, "I-WATCH2: an object that came back is in no queue between cycles");
}
