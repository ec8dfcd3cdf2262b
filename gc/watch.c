/* watch.c - objects whose death somebody waits for: the table of registrations, and cleanups.
 *
 * A registration is a watch: a cleanup (a function and its argument, to be run once the object is gone) or the claim of
 * a finalizer queue (finalize.c). Watches lie in a hash table by their object's address, which stays: objects do not
 * move. The table (wtable.c) grows by one bucket at a time, so that no registration pays for all others; one that was
 * accepted needs no memory when its object dies (R19): its own node goes to the list of what is due. A cycle copies
 * some entries with a shard locked and looks at the copies, so that no registration waits for its cache misses.
 *
 * Nothing runs on a collector's thread: the host takes what is due when it wants to, by tri_cleanup_run.
 *
 * Invariants: I-WATCH1 (R7) registering and the cycle's look at the dead share a lock. I-WATCH2 a watch is in one
 * place: its bucket, the list of what is due, the list of what comes back, a queue, or one thread's hand; so it is
 * served once. I-WATCH3 between cycles a watch in the table names a live object. Lock ranks: watches (32) for a share
 * of the table, then death (33) for the lists. */
#include <stdio.h>
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

enum { SLICE_ENTRIES = 64 };

void tri__watches_init(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    for (size_t i = 0; i < WATCH_SHARDS; i++) tri__lock_init(&ws->shards[i].lock, RANK_WATCHES, "watches");
    tri__lock_init(&ws->lock, RANK_DEATH, "death");
    tri__fixalloc_init(&ws->fix, sizeof(struct watch), "watched objects", NULL, NULL);
    tri__fixalloc_init(&ws->fix_lines, sizeof(struct wbucket), "lines of tables", NULL, NULL);
    tri__fixalloc_init(&ws->fix_block, WTABLE_BLOCK_BYTES, "tables of watched objects", NULL, NULL);
}

void tri__watches_fini(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    for (size_t i = 0; i < WATCH_SHARDS; i++) tri__lock_fini(&ws->shards[i].lock);
    tri__fixalloc_fini(&ws->fix);
    tri__fixalloc_fini(&ws->fix_lines);
    tri__fixalloc_fini(&ws->fix_block);
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

static struct watch_shard *shard_of(struct watches *ws, uintptr_t addr) {
    return &ws->shards[tri__wtable_hash(addr) >> 48 & (WATCH_SHARDS - 1)];
}

static struct watch *first_of(const struct wentry *e) {
    return (struct watch *)(uintptr_t)(e->value & ~(uint64_t)WATCH_KINDS);
}

static uint64_t kind_of(const struct watch *w) {
    return w->queue ? WATCH_CLAIM : WATCH_CLEANUP;
}

/* An object's watches, in their order, become its entry's; without any the entry goes. */
static void set_watches(struct watches *ws, struct watch_shard *sh, struct wentry *e, const struct watch_list *list) {
    uint64_t kinds = 0;
    for (const struct watch *w = list->first; w; w = w->next) kinds |= kind_of(w);
    if (list->first) {
        list->first->last = list->last;
        e->value = (uintptr_t)list->first | kinds;
    } else {
        tri__wtable_remove(&sh->table, &ws->fix_lines, e);
    }
}

/* One block more, where the table wants one: without it is slower. False: there is no table. */
static bool grow(struct watches *ws, struct watch_shard *sh) {
    while (sh->table.nroom == 0 || tri__wtable_wants(&sh->table)) {
        void *block = tri__fixalloc_get(&ws->fix_block);
        if (!block) return sh->table.nroom > 0;
        memset(block, 0, WTABLE_BLOCK_BYTES);
        block = tri__wtable_give(&sh->table, block, WTABLE_BLOCK_BYTES);
        check_internal(!block, "I-WATCH1: a shard's table grows under its lock");
    }
    return true;
}

/* Behind the object's other watches. False: no memory. */
static bool link_watch(struct watches *ws, struct watch_shard *sh, struct watch *w) {
    struct wentry *e = tri__wtable_find(&sh->table, w->addr);
    w->next = NULL;
    w->last = w;
    if (e) {
        struct watch *first = first_of(e);
        first->last = first->last->next = w;
        e->value |= kind_of(w);
    } else if (!grow(ws, sh) || !tri__wtable_add(&sh->table, &ws->fix_lines, w->addr, (uintptr_t)w | kind_of(w))) {
        return false;
    }
    atomic_add_relaxed(&ws->n, 1); /* counters */
    if (w->queue) atomic_add_relaxed(&ws->nclaims, 1);
    return true;
}

/* Counts a watch that is in no entry any more. */
static void count_out(struct watches *ws, const struct watch *w) {
    atomic_sub_relaxed(&ws->n, 1); /* counters */
    if (w->queue) atomic_sub_relaxed(&ws->nclaims, 1);
}

static int add_locked(struct watches *ws, struct watch_shard *sh, struct watch *w, const char *call) {
    const struct wentry *e = tri__wtable_find(&sh->table, w->addr);
    if (w->queue && e && e->value & WATCH_CLAIM)
        return tri__error(
            TRI_ESTATE, call,
            "object %p is watched for a finalizer queue already; once it came back it may be watched again",
            (void *)w->addr);
    if (!link_watch(ws, sh, w)) return tri__error(TRI_ENOMEM, call, "no memory for the table of watched objects");
    return TRI_OK;
}

uintptr_t tri__object_of(struct mutator *m, const void *obj, const char *call) {
    const struct space *space = &m->heap->mem.space;
    struct slot slot;
    const char *why = "is no object of this heap; pass what tri_new or tri_new_bytes returned, not yet freed";
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

static bool is_dead(const tri_heap *heap, uintptr_t addr) {
    struct slot slot;
    return !space_find_slot(&heap->mem.space, addr, &slot) || !space_is_marked(&heap->mem.space, &slot);
}

/* Takes a dead object's claims, or its cleanups, out of the table; how many. */
static size_t take(struct watches *ws, struct watch_shard *sh, uintptr_t addr, bool claims, struct watch_list *into) {
    struct wentry *e = tri__wtable_find(&sh->table, addr);
    struct watch_list rest = {NULL, NULL};
    size_t n = 0;
    if (!e) return 0;
    for (struct watch *w = first_of(e), *next; w; w = next) {
        next = w->next;
        bool is_taken = (w->queue != NULL) == claims;
        tri__watch_append(is_taken ? into : &rest, w);
        if (!is_taken) continue;
        count_out(ws, w);
        n++;
    }
    set_watches(ws, sh, e, &rest);
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

static void take_all(tri_heap *heap, struct watch_shard *sh, const uintptr_t *dead, size_t ndead, bool claims) {
    struct watches *ws = &heap->death.watches;
    struct watch_list taken = {NULL, NULL};
    size_t n = 0;
    tri__lock_acquire(&sh->lock); /* I-WATCH1 */
    for (size_t i = 0; i < ndead; i++) n += take(ws, sh, dead[i], claims, &taken);
    if (n) {
        tri__lock_acquire(&ws->lock);
        splice(claims ? &ws->revived : &ws->due, &taken);
        if (!claims) atomic_add_relaxed(&ws->ndue, n); /* a counter */
        tri__lock_release(&ws->lock);
    }
    tri__lock_release(&sh->lock);
}

/* A slice of the shard that death is in. What is dead stays so, and nobody can register anything on it, so the marks
 * are looked at with nothing locked. False: that was not the shard's end. */
static bool take_slice(tri_heap *heap, struct watch_shard *sh, bool claims) {
    struct watches *ws = &heap->death.watches;
    const struct space *space = &heap->mem.space;
    struct wentry e[SLICE_ENTRIES];
    uintptr_t dead[SLICE_ENTRIES];
    size_t ndead = 0;
    tri__lock_acquire(&sh->lock); /* I-WATCH1 */
    size_t n = tri__wtable_copy(&sh->table, &ws->at, e, SLICE_ENTRIES);
    bool done = ws->at.bucket >= sh->table.nbuckets;
    tri__lock_release(&sh->lock);
    for (size_t i = 0; i < n; i++) __builtin_prefetch(&space->marks[(e[i].key - space->base) >> (GRANULE_SHIFT + 6)]);
    for (size_t i = 0; i < n; i++)
        if (e[i].value & (claims ? WATCH_CLAIM : WATCH_CLEANUP) && is_dead(heap, e[i].key)) dead[ndead++] = e[i].key;
    if (ndead) take_all(heap, sh, dead, ndead, claims);
    return done;
}

/* A shard's table, when nobody looks at it any more in this cycle, becomes as small as it may be. False: that is
 * done. */
static bool shrink_some(struct watches *ws, struct watch_shard *sh) {
    tri__lock_acquire(&sh->lock);
    bool more = tri__wtable_contract(&sh->table, &ws->fix_lines, SLICE_ENTRIES);
    void *spare = sh->table.n * 2 < sh->table.nroom ? tri__wtable_take_spare(&sh->table) : NULL;
    tri__lock_release(&sh->lock);
    if (spare) tri__fixalloc_put(&ws->fix_block, spare);
    return more || spare;
}

bool tri__watch_take_dead(tri_heap *heap, bool claims, uint64_t deadline_ns) {
    struct watches *ws = &heap->death.watches;
    while (ws->shard < WATCH_SHARDS) {
        struct watch_shard *sh = &ws->shards[ws->shard];
        /* A registration that is not counted yet is of a live object. */
        bool done = atomic_load_relaxed(claims ? &ws->nclaims : &ws->n) == 0;
        if (!done && !ws->shrinks) done = take_slice(heap, sh, claims);
        ws->shrinks |= done;
        if (ws->shrinks && (claims || !shrink_some(ws, sh))) {
            ws->shard++;
            ws->at = (struct wcursor){0, 0};
            ws->shrinks = false;
        }
        tri__stress_delay(heap);
        tri__units_did(SLICE_ENTRIES);
        if (heap_is_late(heap, deadline_ns)) return ws->shard == WATCH_SHARDS;
    }
    return true;
}

/* A host that took another object out of a queue may have found this one in it, and watched it again already. */
static bool has_claim(struct watch_shard *sh, uintptr_t addr) {
    const struct wentry *e = tri__wtable_find(&sh->table, addr);
    return e && e->value & WATCH_CLAIM;
}

/* In a forked child. What finds no memory to be watched again, or is, has come back: weak slots that named it are
 * cleared. */
void tri__watch_take_back(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    struct watch *w;
    ws->scan = NULL;
    ws->scan_queue = NULL;
    while ((w = tri__watch_pop(&ws->revived)) != NULL) {
        struct watch_shard *sh = shard_of(ws, w->addr);
        if (!has_claim(sh, w->addr) && link_watch(ws, sh, w)) continue;
        tri__watch_append(&w->queue->delivered, w);
        atomic_add_relaxed(&w->queue->ndelivered, 1); /* the only thread */
    }
}

/* One of the watches of a freed object: a queue's is dropped, a cleanup is due. */
static void serve_freed(struct watches *ws, struct watch *w) {
    count_out(ws, w);
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
    struct wentry *e = tri__wtable_find(&sh->table, addr);
    struct watch *w = e ? first_of(e) : NULL;
    if (e) tri__wtable_remove(&sh->table, &ws->fix_lines, e);
    for (struct watch *next; w; w = next) {
        next = w->next;
        serve_freed(ws, w);
    }
    tri__lock_release(&sh->lock);
}

/* ---- cleanups --------------------------------------------------------------------------------------------------- */

int tri_cleanup_add(tri_thread *thread, void *obj, void (*fn)(void *arg), void *arg) {
    struct mutator *m = tri__mutator_check(thread, "tri_cleanup_add");
    if (!m) return TRI_EUNATTACHED;
    if (!fn) return tri__error(TRI_EINVAL, "tri_cleanup_add", "fn is NULL; pass the function that cleans up");
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
    struct wentry *e = tri__wtable_find(&sh->table, addr);
    struct watch_list rest = {NULL, NULL};
    for (struct watch *w = e ? first_of(e) : NULL, *next; w; w = next) {
        next = w->next;
        if (!found && !w->queue && w->fn == fn && w->arg == arg)
            found = w;
        else
            tri__watch_append(&rest, w);
    }
    if (e) set_watches(ws, sh, e, &rest);
    if (found) count_out(ws, found);
    tri__lock_release(&sh->lock);
    if (!found)
        return tri__error(
            TRI_EINVAL, "tri_cleanup_remove",
            "object %p has no such cleanup: it was run, or taken back; fn and arg must be those of tri_cleanup_add",
            obj);
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
    IN_HOOK();
    fn(arg);
}

size_t tri_cleanup_run(tri_thread *thread, size_t max) {
    struct mutator *m = tri__mutator_check(thread, "tri_cleanup_run");
    if (!m) return 0;
    IN_CALL("tri_cleanup_run");
    may_safepoint();
    note_site(m, CALL_SITE("tri_cleanup_run"));
    tri_heap *heap = m->heap;
    struct watches *ws = &heap->death.watches;
    size_t n = 0;
    while (n < max && atomic_load_relaxed(&ws->ndue)) { /* a hint: the lock decides */
        struct watch *w = take_due(ws);
        if (!w) break;
        tri__stress_delay(heap);
        uint32_t outer = m->ncleaning;
        m->ncleaning = outer + 1;
        run(ws, w);
        n++;
        if (tri__self(heap) != thread) break; /* it has detached the thread: attachment and heap may be gone */
        m->ncleaning = outer;
    }
    return n;
}

/* What waits for an object that is still there when the heap ends. */
static void run_rest(struct watches *ws, struct watch_shard *sh, uintptr_t addr) {
    struct wentry *e = tri__wtable_find(&sh->table, addr);
    struct watch *w = first_of(e);
    tri__wtable_remove(&sh->table, &ws->fix_lines, e);
    for (struct watch *next; w; w = next) {
        next = w->next;
        count_out(ws, w);
        if (!w->queue) run(ws, w);
    }
}

void tri__watch_run_all(tri_heap *heap) {
    struct watches *ws = &heap->death.watches;
    struct watch *w;
    while ((w = take_due(ws)) != NULL) run(ws, w);
    for (size_t i = 0; i < WATCH_SHARDS; i++) {
        struct watch_shard *sh = &ws->shards[i];
        struct wentry e[SLICE_ENTRIES];
        for (struct wcursor at = {0, 0}; at.bucket < sh->table.nbuckets;) {
            size_t n = tri__wtable_copy(&sh->table, &at, e, SLICE_ENTRIES);
            for (size_t k = 0; k < n; k++) run_rest(ws, sh, e[k].key);
        }
    }
}

/* ---- verify ----------------------------------------------------------------------------------------------------- */

struct counts {
    size_t n, nclaims;
};

static void verify_entry(tri_heap *heap, const struct watch_shard *sh, const struct wentry *e, struct counts *counts,
                         void (*say)(void *context, const char *text), void *context) {
    char text[160];
    uint64_t kinds = 0;
    struct slot slot;
    const struct watch *last = NULL;
    if (shard_of(&heap->death.watches, e->key) != sh) say(context, "I-WATCH2: a watch is in another object's shard");
    for (const struct watch *w = first_of(e); w; w = w->next) {
        counts->n++;
        counts->nclaims += w->queue != NULL;
        kinds |= kind_of(w);
        last = w;
        if (w->addr != e->key) say(context, "I-WATCH2: a watch is in another object's entry");
    }
    if (first_of(e)->last != last) say(context, "I-WATCH2: an object's first watch does not know its last one");
    if (!kinds || kinds != (e->value & WATCH_KINDS)) say(context, "I-WATCH2: an entry has other watches than it says");
    if (space_find_slot(&heap->mem.space, e->key, &slot) && slot.addr == e->key && tri__lives(heap, &slot)) return;
    snprintf(text, sizeof text, "I-WATCH3: %p is watched and is no live object", (void *)e->key);
    say(context, text);
}

static void verify_shard(tri_heap *heap, const struct watch_shard *sh, struct counts *counts,
                         void (*say)(void *context, const char *text), void *context) {
    struct wentry e[SLICE_ENTRIES];
    tri__wtable_verify(&sh->table, say, context);
    for (struct wcursor at = {0, 0}; at.bucket < sh->table.nbuckets;) {
        size_t n = tri__wtable_copy(&sh->table, &at, e, SLICE_ENTRIES);
        for (size_t i = 0; i < n; i++) verify_entry(heap, sh, &e[i], counts, say, context);
    }
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
