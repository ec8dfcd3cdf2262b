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
 * served once. I-WATCH3 between cycles a watch in the table names a live object. Lock rank: watches (32). */
#include <stdio.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* A slice is what the cycle does with the lock held: some tens of microseconds, so that it gets on beside threads which
 * want the lock all the time. */
enum { FIRST_BUCKETS = 64, MAX_BUCKETS = 1 << 22, WATCHES_A_BUCKET = 2, SLICE_BUCKETS = 1024 };

void tri__watches_init(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    tri__lock_init(&ws->lock, RANK_WATCHES, "watches");
    tri__fixalloc_init(&ws->fix, sizeof(struct watch), "watched objects", NULL, NULL);
}

void tri__watches_fini(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    if (ws->buckets) tri__os_release(ws->buckets, MAX_BUCKETS * sizeof *ws->buckets);
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

/* ---- the table; all of it under the lock ------------------------------------------------------------------------ */

static size_t hash(uintptr_t addr) {
    uint64_t x = addr >> 3; /* the finalizer of splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return (size_t)(x ^ x >> 31);
}

static size_t bucket_of(const struct watches *ws, uintptr_t addr) {
    size_t low = (size_t)1 << bit_highest(ws->nbuckets), h = hash(addr), b = h & (2 * low - 1);
    return b < ws->nbuckets ? b : h & (low - 1);
}

static void append_to_bucket(struct watches *ws, struct watch *w) {
    struct watch **p = &ws->buckets[bucket_of(ws, w->addr)];
    while (*p) p = &(*p)->next; /* one object's watches stay in their order */
    w->next = NULL;
    *p = w;
}

/* One bucket more: the watches of one are shared out to it and the new one. What a look at the buckets from the first
 * to the last has not come to is still ahead of it. */
static void split(struct watches *ws) {
    if (ws->n <= ws->nbuckets * WATCHES_A_BUCKET || ws->nbuckets == MAX_BUCKETS) return;
    size_t from = ws->nbuckets - ((size_t)1 << bit_highest(ws->nbuckets));
    struct watch *w = ws->buckets[from], *next;
    ws->buckets[from] = NULL;
    ws->nbuckets++;
    for (; w; w = next) {
        next = w->next;
        append_to_bucket(ws, w);
    }
}

static bool make_table(struct watches *ws) {
    if (ws->buckets) return true;
    ws->buckets = tri__os_map_sparse(MAX_BUCKETS * sizeof *ws->buckets);
    ws->nbuckets = FIRST_BUCKETS;
    return ws->buckets != NULL;
}

/* The queue's watch of an object, if there is one. */
static bool is_claimed(const struct watches *ws, uintptr_t addr) {
    for (const struct watch *w = ws->buckets[bucket_of(ws, addr)]; w; w = w->next)
        if (w->addr == addr && w->queue) return true;
    return false;
}

static void unlink_watch(struct watches *ws, struct watch **p) {
    struct watch *w = *p;
    *p = w->next;
    atomic_store_relaxed(&ws->n, ws->n - 1); /* written under the lock */
    if (w->queue) ws->nclaims--;
}

static int add_locked(struct watches *ws, struct watch *w, const char *call) {
    if (!make_table(ws)) return tri__error(TRI_ENOMEM, call, "no address space for the table of watched objects");
    if (w->queue && is_claimed(ws, w->addr))
        return tri__error(TRI_ESTATE, call, "object %p is watched for a finalizer queue already", (void *)w->addr);
    append_to_bucket(ws, w);
    atomic_store_relaxed(&ws->n, ws->n + 1); /* written under the lock */
    if (w->queue) ws->nclaims++;
    split(ws);
    return TRI_OK;
}

/* The start of the object of this heap that `obj` lies in, which the caller holds; 0, with the error set. */
static uintptr_t object_of(struct mutator *m, const void *obj, const char *call) {
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
    uintptr_t addr = object_of(m, obj, call);
    if (!addr) return TRI_EINVAL;
    struct watch *w = tri__fixalloc_get(&ws->fix);
    if (!w) return tri__error(TRI_ENOMEM, call, "no memory for another watched object");
    *w = (struct watch){.addr = addr, .queue = queue, .fn = fn, .arg = arg};
    tri__lock_acquire(&ws->lock); /* I-WATCH1 */
    int err = add_locked(ws, w, call);
    tri__lock_release(&ws->lock);
    if (err != TRI_OK) tri__fixalloc_put(&ws->fix, w);
    return err;
}

/* ---- death ------------------------------------------------------------------------------------------------------ */

static bool is_dead(const tri_heap *heap, const struct watch *w) {
    struct slot slot;
    return !space_find_slot(&heap->mem.space, w->addr, &slot) || !space_is_marked(&heap->mem.space, &slot);
}

/* Takes the claims, or the cleanups, of dead objects out of a bucket. */
static size_t take_bucket(tri_heap *heap, size_t bucket, bool claims, struct watch_list *into) {
    struct watches *ws = &heap->death.watches;
    size_t n = 0;
    for (struct watch **p = &ws->buckets[bucket]; *p;) {
        struct watch *w = *p;
        if ((w->queue != NULL) != claims || !is_dead(heap, w)) {
            p = &w->next;
            continue;
        }
        unlink_watch(ws, p);
        tri__watch_append(into, w);
        n++;
    }
    return n;
}

bool tri__watch_take_dead(tri_heap *heap, bool claims, uint64_t deadline_ns) {
    struct watches *ws = &heap->death.watches;
    struct watch_list *into = claims ? &ws->revived : &ws->due;
    for (;;) {
        size_t n = 0;
        tri__lock_acquire(&ws->lock); /* I-WATCH1 */
        size_t end = min_size(ws->cursor + SLICE_BUCKETS, ws->nbuckets);
        if (ws->n) /* none of the kind: nothing to look for */
            while (ws->cursor < end) n += take_bucket(heap, ws->cursor++, claims, into);
        bool done = ws->n == 0 || ws->cursor >= ws->nbuckets || (claims && ws->nclaims == 0);
        if (!claims) atomic_add_relaxed(&ws->ndue, n); /* a counter */
        tri__lock_release(&ws->lock);
        tri__stress_delay(heap);
        if (done) return true;
        if (tri__os_now_ns() >= deadline_ns) return false;
    }
}

void tri__watch_take_back(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    struct watch *w;
    ws->scan = NULL;
    ws->scan_queue = NULL;
    while ((w = tri__watch_pop(&ws->revived)) != NULL) {
        append_to_bucket(ws, w);
        atomic_store_relaxed(&ws->n, ws->n + 1); /* nobody else runs */
        ws->nclaims++;
    }
}

void tri__watch_freed(tri_heap *heap, uintptr_t addr) {
    struct watches *ws = &heap->death.watches;
    if (atomic_load_relaxed(&ws->n) == 0) return; /* the host orders its own registrations before its tri_free */
    tri__lock_acquire(&ws->lock);
    for (struct watch **p = &ws->buckets[bucket_of(ws, addr)]; *p;) {
        struct watch *w = *p;
        if (w->addr != addr) {
            p = &w->next;
            continue;
        }
        unlink_watch(ws, p);
        if (w->queue) { /* it does not come back */
            tri__fixalloc_put(&ws->fix, w);
        } else {
            tri__watch_append(&ws->due, w);
            atomic_add_relaxed(&ws->ndue, 1); /* a counter */
        }
    }
    tri__lock_release(&ws->lock);
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
    uintptr_t addr = object_of(m, obj, "tri_cleanup_remove");
    if (!addr) return TRI_EINVAL;
    struct watches *ws = &m->heap->death.watches;
    struct watch *found = NULL;
    tri__lock_acquire(&ws->lock);
    for (struct watch **p = ws->buckets ? &ws->buckets[bucket_of(ws, addr)] : &found; *p; p = &(*p)->next) {
        if ((*p)->addr != addr || (*p)->queue || (*p)->fn != fn || (*p)->arg != arg) continue;
        found = *p;
        unlink_watch(ws, p);
        break;
    }
    tri__lock_release(&ws->lock);
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
    for (size_t b = 0; b < ws->nbuckets; b++)
        while ((w = ws->buckets[b]) != NULL) {
            unlink_watch(ws, &ws->buckets[b]);
            if (!w->queue) run(ws, w);
        }
}

/* ---- verify ----------------------------------------------------------------------------------------------------- */

void tri__watch_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context) {
    struct watches *ws = &heap->death.watches;
    size_t n = 0, nclaims = 0, ndue = 0;
    char text[160];
    for (size_t b = 0; b < ws->nbuckets; b++)
        for (const struct watch *w = ws->buckets[b]; w; w = w->next) {
            struct slot slot;
            n++;
            nclaims += w->queue != NULL;
            if (bucket_of(ws, w->addr) != b) say(context, "I-WATCH2: a watch is in another object's bucket");
            if (space_find_slot(&heap->mem.space, w->addr, &slot) && slot.addr == w->addr && tri__lives(heap, &slot))
                continue;
            snprintf(text, sizeof text, "I-WATCH3: %p is watched and is no live object", (void *)w->addr);
            say(context, text);
        }
    for (const struct watch *w = ws->due.first; w; w = w->next) ndue++;
    if (n != ws->n || nclaims != ws->nclaims) say(context, "I-WATCH2: the table has not as many watches as it counts");
    if (ndue != atomic_load_relaxed(&ws->ndue)) say(context, "I-WATCH2: not as many cleanups are due as are counted");
    if (ws->revived.first) say(context, "I-WATCH2: an object that came back is in no queue between cycles");
}
