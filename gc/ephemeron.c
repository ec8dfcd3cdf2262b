/* ephemeron.c - the cycle's part of weak maps: a marked key in a marked map keeps its value alive.
 *
 * Whenever marking has come to its end, a pass looks at every entry, marks the values of marked keys, and follows
 * chains (a value that leads to the next entry's key) to their end, in time linear in the number of entries: once it
 * has marked something, it notes the entries that wait for their key in an index by that key, and then traces, asking
 * the index about each object that it marks. The index is memory of the pass alone; without it the passes are only more
 * (R19).
 *
 * Another look is part of the rounds (R6): after a round in which nobody had anything, if it finds a value to mark,
 * marking goes on and the round has failed. Only one that finds nothing lets the round close. It ends early when
 * somebody else has failed the round.
 *
 * Mutators use the maps meanwhile. What they put in, they hold, and it is marked: by the end of a round of nothing but
 * "none" everything is that a thread can reach, and what it takes out of a map goes through the gate and spoils the
 * round if it was not. So entries that come or change behind the pass need no second look. A table that grows moves
 * entries ahead only (I-WTAB2). A pass copies some entries with the map locked, and looks at the copies: nobody waits
 * for its cache misses.
 *
 * After the close entries whose keys are unmarked go, and so do maps that are unmarked, with their tables; tables that
 * are far too large get smaller.
 *
 * Invariants: I-EPH1 (R6) after the close the value of a marked key in a marked map is marked. Lock ranks: wmaps (34),
 * death (33) to unlink a map. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

enum { SLICE_ENTRIES = 64, RELEASE_BYTES = 256 << 10 };

static bool is_marked(const tri_heap *heap, uintptr_t addr) {
    struct slot slot;
    return space_find_slot(&heap->mem.space, addr, &slot) && space_is_marked(&heap->mem.space, &slot);
}

/* What a value names, if that is an object which is not marked yet; else 0. */
static uintptr_t unmarked_ref(const tri_heap *heap, const struct wmap *map, tri_word value) {
    uintptr_t ref = enc_decode(&map->enc, value);
    struct slot slot;
    if (!ref || !space_find_slot(&heap->mem.space, ref, &slot) || space_is_marked(&heap->mem.space, &slot)) return 0;
    /* Its mark is seen after its allocation bit (R15), which is looked at seldom. */
    return space_is_allocated(&heap->mem.space, &slot) && !space_is_marked(&heap->mem.space, &slot) ? ref : 0;
}

/* ---- the index: entries that wait for their key ------------------------------------------------------------------ */

struct waiting {
    uintptr_t key, ref;
    uint32_t next; /* of its bucket, + 1; 0: none */
};

static size_t index_bytes(size_t nwaiting) {
    size_t nbuckets = 64;
    while (nbuckets < nwaiting) nbuckets *= 2;
    return align_up(nbuckets * sizeof(uint32_t) + nwaiting * sizeof(struct waiting), 65536);
}

static void index_begin(struct settle *s) {
    s->nbuckets = 64;
    while (s->nbuckets < s->nwaiting) s->nbuckets *= 2;
    s->index_bytes = index_bytes(s->nwaiting);
    s->capacity = s->nwaiting;
    s->nindexed = 0;
    s->buckets = s->nwaiting < UINT32_MAX / 2 ? tri__os_map(s->index_bytes) : NULL;
    s->waiting = s->buckets ? (struct waiting *)(void *)(s->buckets + s->nbuckets)
                            : NULL; /* a multiple of 64 of them */
}

/* The last piece goes back to the system. False: it was all that was left. */
static bool index_shorten(struct settle *s) {
    if (!s->buckets) return false;
    size_t piece = min_size(s->index_bytes, RELEASE_BYTES);
    s->index_bytes -= piece;
    tri__os_release((char *)s->buckets + s->index_bytes, piece);
    tri__units_did(RELEASE_BYTES >> 10);
    if (s->index_bytes == 0) s->buckets = NULL;
    return s->index_bytes > 0;
}

static void index_end(struct settle *s) {
    while (index_shorten(s)) {}
}

static uint32_t *bucket_of(const struct settle *s, uintptr_t key) {
    uint64_t x = (key >> 3) * 0x9e3779b97f4a7c15ull;
    return &s->buckets[(x ^ x >> 32) & (s->nbuckets - 1)];
}

static void index_add(struct settle *s, uintptr_t key, uintptr_t ref) {
    if (s->nindexed == s->capacity) return; /* more than were counted: the next pass sees it */
    uint32_t *bucket = bucket_of(s, key);
    s->waiting[s->nindexed] = (struct waiting){key, ref, *bucket};
    *bucket = (uint32_t)++s->nindexed;
}

/* ---- looking at entries ------------------------------------------------------------------------------------------ */

struct look {
    tri_heap *heap;
    struct settle *s;
    void (*visit)(struct look *l, struct wmap *map, const struct wentry *e);
    uintptr_t dead[SLICE_ENTRIES]; /* keys of the slice */
    size_t ndead;
};

static void prefetch_marks(const tri_heap *heap, const struct wmap *map, const struct wentry *e) {
    const struct space *space = &heap->mem.space;
    uintptr_t ref = enc_decode(&map->enc, e->value);
    __builtin_prefetch(&space->marks[(e->key - space->base) >> (GRANULE_SHIFT + 6)]);
    if (space_contains(space, ref)) __builtin_prefetch(&space->marks[(ref - space->base) >> (GRANULE_SHIFT + 6)]);
}

static void remove_dead(struct look *l, struct wmap *map) {
    tri__lock_acquire(tri__wmap_lock(l->heap, map));
    for (size_t i = 0; i < l->ndead; i++) {
        struct wentry *e = tri__wtable_find(&map->table, l->dead[i]);
        if (e) tri__wtable_remove(&map->table, &l->heap->death.watches.fix_lines, e);
    }
    tri__lock_release(tri__wmap_lock(l->heap, map));
    l->ndead = 0;
}

/* A slice of a map from a cursor on; false: that was not its end. */
static bool look_slice(struct look *l, struct wmap *map, struct wcursor *at) {
    struct wentry e[SLICE_ENTRIES];
    tri__lock_acquire(tri__wmap_lock(l->heap, map));
    size_t n = tri__wtable_copy(&map->table, at, e, SLICE_ENTRIES);
    bool done = at->bucket >= map->table.nbuckets;
    tri__lock_release(tri__wmap_lock(l->heap, map));
    for (size_t i = 0; i < n; i++) prefetch_marks(l->heap, map, &e[i]);
    for (size_t i = 0; i < n; i++) l->visit(l, map, &e[i]);
    if (l->ndead) remove_dead(l, map);
    tri__units_did(SLICE_ENTRIES);
    return done;
}

static void look_begin(struct settle *s, struct wmap *map) {
    s->map = map;
    s->at = (struct wcursor){0, 0};
    s->shrinks = false;
}

static size_t count(tri_heap *heap, const struct wmap *map) {
    tri__lock_acquire(tri__wmap_lock(heap, map));
    size_t n = map->table.n;
    tri__lock_release(tri__wmap_lock(heap, map));
    return n;
}

static struct wmap *first_map(tri_heap *heap) {
    tri__lock_acquire(&heap->death.watches.lock);
    struct wmap *map = heap->death.maps.first;
    tri__lock_release(&heap->death.watches.lock);
    return map;
}

/* Somebody, or the pass itself, has marked something during a round: it need not go on. */
static bool has_failed(tri_heap *heap) {
    return heap->death.settle.in_round && atomic_load_acquire(&heap->found); /* pairs with marker_shade */
}

/* Visits all entries of marked maps, from s->map on. False: the deadline passed. */
static bool look_at_all(struct look *l, uint64_t deadline_ns) {
    struct settle *s = l->s;
    while (s->map) {
        bool done = true;
        if (is_marked(l->heap, s->map->obj))
            done = look_slice(l, s->map, &s->at);
        else if (s->counts)
            s->nwaiting += count(l->heap, s->map); /* it may be marked by what this pass marks */
        if (done) look_begin(s, s->map->next);
        tri__stress_delay(l->heap);
        if (has_failed(l->heap)) return true;
        if (s->map && heap_is_late(l->heap, deadline_ns)) return false;
    }
    return true;
}

/* ---- settling ---------------------------------------------------------------------------------------------------- */

/* First look: values of marked keys are marked, entries that wait are counted. */
static void visit_settle(struct look *l, struct wmap *map, const struct wentry *e) {
    uintptr_t ref = unmarked_ref(l->heap, map, e->value);
    if (!ref) return; /* nothing to keep */
    if (!is_marked(l->heap, e->key))
        l->s->nwaiting++;
    else
        l->s->any |= tri__marker_shade(&l->heap->worker, ref);
}

/* Second look: entries that wait are indexed. */
static void visit_index(struct look *l, struct wmap *map, const struct wentry *e) {
    uintptr_t ref = unmarked_ref(l->heap, map, e->value);
    if (!ref) return;
    if (is_marked(l->heap, e->key))
        tri__marker_shade(&l->heap->worker, ref);
    else
        index_add(l->s, e->key, ref);
}

/* A map that is marked now: its entries count from here on. Keys that were marked before are seen to be when they are
 * looked at, which is when there is time for it. */
static void map_marked(struct settle *s, struct wmap *map) {
    if (map->is_found) return;
    map->is_found = true;
    map->found_next = s->found;
    s->found = map;
}

/* False: the deadline passed. */
static bool look_at_found(tri_heap *heap, struct settle *s, uint64_t deadline_ns) {
    struct look l = {.heap = heap, .s = s, .visit = visit_index};
    while (s->found) {
        struct wmap *map = s->found;
        if (!look_slice(&l, map, &s->in_found)) {
            tri__stress_delay(heap);
            if (heap_is_late(heap, deadline_ns)) return false;
            continue;
        }
        s->in_found = (struct wcursor){0, 0};
        s->found = map->found_next;
        map->is_found = false;
    }
    return true;
}

/* An object is marked and about to be scanned: what waits for it need wait no more. */
static void object_marked(void *context, uintptr_t addr) {
    tri_heap *heap = context;
    struct settle *s = &heap->death.settle;
    if (!s->buckets) return;
    for (uint32_t i = *bucket_of(s, addr); i; i = s->waiting[i - 1].next)
        if (s->waiting[i - 1].key == addr) tri__marker_shade(&heap->worker, s->waiting[i - 1].ref);
    struct wmap *map = tri__wmap_at(heap, addr);
    if (map) map_marked(s, map);
}

static bool trace_told(tri_heap *heap, uint64_t deadline_ns) {
    struct marker *w = &heap->worker;
    struct settle *s = &heap->death.settle;
    uint64_t start = tri__os_now_ns();
    bool empty;
    do empty = look_at_found(heap, s, deadline_ns) && tri__marker_drain_told(w, deadline_ns, object_marked, heap);
    while (empty && s->found);
    atomic_add_relaxed(&heap->stats.mark_ns, tri__os_now_ns() - start);
    tri__workers_tell(heap, w);
    return empty;
}

void tri__ephemerons_begin(tri_heap *heap, bool in_round) {
    heap->death.settle = (struct settle){.step = SETTLE_LOOK, .counts = true, .in_round = in_round};
    heap->death.npasses++;
    look_begin(&heap->death.settle, first_map(heap));
}

enum settled tri__ephemerons_settle(tri_heap *heap, uint64_t deadline_ns) {
    struct settle *s = &heap->death.settle;
    struct look l = {.heap = heap, .s = s, .visit = s->step == SETTLE_LOOK ? visit_settle : visit_index};
    if (s->step == SETTLE_LOOK) {
        if (!look_at_all(&l, deadline_ns)) return SETTLED_LATER;
        if (has_failed(heap)) return SETTLED_SOME;
        if (!s->any) return SETTLED_NOTHING;
        if (s->nwaiting == 0) return SETTLED_SOME; /* marking does the rest */
        index_begin(s);
        s->counts = false;
        s->step = s->buckets ? SETTLE_INDEX : SETTLE_TRACE;
        look_begin(s, first_map(heap));
        l.visit = visit_index;
    }
    if (s->step == SETTLE_INDEX) {
        if (!look_at_all(&l, deadline_ns)) return SETTLED_LATER;
        s->step = SETTLE_TRACE;
    }
    if (s->step == SETTLE_TRACE) {
        if (!trace_told(heap, deadline_ns)) return SETTLED_LATER;
        s->step = SETTLE_END;
    }
    while (index_shorten(s))
        if (heap_is_late(heap, deadline_ns)) return SETTLED_LATER;
    return SETTLED_SOME;
}

void tri__ephemerons_abandon(tri_heap *heap) {
    struct settle *s = &heap->death.settle;
    index_end(s);
    for (; s->found; s->found = s->found->found_next) s->found->is_found = false;
}

/* ---- death ------------------------------------------------------------------------------------------------------- */

static void visit_clear(struct look *l, struct wmap *map, const struct wentry *e) {
    if (!is_marked(l->heap, e->key)) {
        l->dead[l->ndead++] = e->key; /* nobody holds it, so it stays where it is */
        return;
    }
    check_cheap(!unmarked_ref(l->heap, map, e->value) || heap_fault(l->heap, FAULT_LATE_MAPS),
                "I-EPH1: after the close the value of a marked key is marked (R6)");
}

/* Nobody can reach the map, and its table is gone. */
static void free_map(tri_heap *heap, struct wmap *map) {
    tri__lock_acquire(&heap->death.watches.lock);
    tri__wmap_unlink(heap, map);
    tri__lock_release(&heap->death.watches.lock);
    tri__fixalloc_put(&heap->death.maps.fix, map);
}

/* A slice of what is to be done with a map. False: that was not all. */
static bool clear_slice(struct look *l, struct wmap *map) {
    struct settle *s = l->s;
    if (!is_marked(l->heap, map->obj)) return !tri__wmap_free_some(l->heap, map);
    if (!s->shrinks && !look_slice(l, map, &s->at)) return false;
    s->shrinks = true;
    return !tri__wmap_shrink_some(l->heap, map);
}

bool tri__ephemerons_clear(tri_heap *heap, uint64_t deadline_ns) {
    struct settle *s = &heap->death.settle;
    struct look l = {.heap = heap, .s = s, .visit = visit_clear};
    while (s->map) {
        struct wmap *map = s->map, *next = map->next;
        bool done = clear_slice(&l, map);
        tri__units_did(SLICE_ENTRIES);
        if (done) {
            s->nlive += count(heap, map);
            look_begin(s, next);
            if (!is_marked(heap, map->obj)) free_map(heap, map);
        }
        tri__stress_delay(heap);
        if (s->map && heap_is_late(heap, deadline_ns)) return false;
    }
    heap->death.nentries = s->nlive;
    return true;
}

void tri__ephemerons_each(tri_heap *heap, void (*visit)(void *context, const struct wmap *map, const struct wentry *e),
                          void *context) {
    struct wentry e[SLICE_ENTRIES];
    for (const struct wmap *map = heap->death.maps.first; map; map = map->next)
        for (struct wcursor at = {0, 0}; at.bucket < map->table.nbuckets;) {
            size_t n = tri__wtable_copy(&map->table, &at, e, SLICE_ENTRIES);
            for (size_t i = 0; i < n; i++) visit(context, map, &e[i]);
        }
}
