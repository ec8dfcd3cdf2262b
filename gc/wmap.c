/* wmap.c - weak maps: from an object to a value, by identity, for as long as object and map both live.
 *
 * A map is a collected object that holds nothing but the address of its record; record and table (wtable.c) lie
 * outside, so that growth needs no safepoint. Entries are hashed by the key's address, which stays: objects do not
 * move. Each call does a bounded piece of work with the map locked, whatever the number of entries, and what it may
 * have to allocate is had before: the table grows by a bucket at a time, and gets smaller in cycles.
 *
 * An entry keeps neither key nor value alive by itself; a key that lives in a map that lives keeps its value alive
 * (ephemeron.c). Nothing is shaded when an entry is made, changed or taken away: whatever a thread holds is kept by
 * other means, and what it takes out of a map it has asked the gate for (R5).
 *
 * Invariants: I-WMAP1 an entry's key is the start of an object. I-WMAP2 (R7) between cycles keys and values of a live
 * map's entries are live. Lock ranks: death (33) for the list of maps, wmaps (34) for entries. */
#include <stdio.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* With a lock held: buckets that are looked at or dropped, and maps. */
enum { RECORD_BYTES = 128, LOCKED_BUCKETS = 64, LOCKED_MAPS = 64 };

/* The collected object. */
struct wmap_object {
    struct wmap *map;
    uint64_t unused;
};

static tri_type wmap_type = {.struct_size = sizeof(tri_type),
                             .name = "weak map",
                             .size = sizeof(struct wmap_object),
                             .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED};
static const tri_enc plain = {0, 0, ~0ull, ~0ull};

void tri__wmaps_init(tri_heap *heap) {
    struct wmaps *ms = &heap->death.maps;
    for (size_t i = 0; i < WMAP_LOCKS; i++) tri__lock_init(&ms->locks[i], RANK_WMAPS, "weak maps");
    tri__fixalloc_init(&ms->fix, RECORD_BYTES, "weak maps", NULL, NULL);
    _Static_assert(sizeof(struct wmap) <= RECORD_BYTES, "a record fits its block");
}

void tri__wmaps_fini(tri_heap *heap) {
    struct wmaps *ms = &heap->death.maps;
    for (size_t i = 0; i < WMAP_LOCKS; i++) tri__lock_fini(&ms->locks[i]);
    tri__fixalloc_fini(&ms->fix); /* tables go with the manual memory */
}

struct wmap *tri__wmap_at(const tri_heap *heap, uintptr_t addr) {
    struct slot slot;
    uint32_t layout = atomic_load_acquire(&wmap_type.layout); /* pairs with tri__type_bind */
    if (layout == 0 || !space_find_slot(&heap->mem.space, addr, &slot) || slot.addr != addr) return NULL;
    if (shape_layout(slot.shape) != layout) return NULL;            /* 16 bytes: never in a mixed span */
    return atomic_load_acquire(&((struct wmap_object *)addr)->map); /* pairs with tri_wmap_new */
}

/* The record of a map that the caller holds; NULL, with the error set. */
static struct wmap *map_of(struct mutator *m, const void *map, const char *call) {
    const struct space *space = &m->heap->mem.space;
    struct slot slot;
    bool is_object = space_find_slot(space, (uintptr_t)map, &slot) && space_is_allocated(space, &slot);
    struct wmap *found = is_object ? tri__wmap_at(m->heap, (uintptr_t)map) : NULL;
    if (!found)
        (void)tri__error(TRI_EINVAL, call,
                         "%p is no weak map of this heap; make one with tri_wmap_new, and keep it reachable", map);
    return found;
}

static struct wmap_object *new_object(tri_thread *thread) {
    IN_HOOK(); /* a public call in another */
    return tri_new(thread, &wmap_type);
}

void *tri_wmap_new(tri_thread *thread, const tri_enc *enc) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_new");
    if (!m) return NULL;
    IN_CALL("tri_wmap_new");
    if (tri__enc_check(enc, "tri_wmap_new") != TRI_OK) return NULL;
    if (tri__type_bind(&wmap_type, "tri_wmap_new") != TRI_OK) return NULL; /* named as the call that the host made */
    struct wmaps *ms = &m->heap->death.maps;
    struct wmap *map = tri__fixalloc_get(&ms->fix);
    struct wmap_object *obj = map ? new_object(thread) : NULL;
    if (!obj) {
        if (map)
            tri__fixalloc_put(&ms->fix, map);
        else
            (void)tri__error(TRI_ENOMEM, "tri_wmap_new", "no memory for the map's record");
        return NULL;
    }
    *map = (struct wmap){.obj = (uintptr_t)obj, .enc = enc ? *enc : plain};
    tri__lock_acquire(&m->heap->death.watches.lock);
    map->next = ms->first;
    if (map->next) map->next->prev = map;
    ms->first = map;
    atomic_add_relaxed(&ms->nmaps, 1); /* written under the lock */
    tri__lock_release(&m->heap->death.watches.lock);
    atomic_store_release(&obj->map, map); /* pairs with tri__wmap_at */
    return obj;
}

static struct lock *lock_of(struct mutator *m, const struct wmap *map) {
    return tri__wmap_lock(m->heap, map);
}

static struct fixalloc *lines_of(tri_heap *heap) {
    return &heap->death.watches.fix_lines;
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

/* Sets the entry; false: that needs memory. *wants_bytes: of a block that the table would grow by. Takes the lock. */
static bool try_put(struct mutator *m, struct wmap *map, uintptr_t key, tri_word value, size_t *wants_bytes) {
    tri__lock_acquire(lock_of(m, map));
    struct wentry *e = tri__wtable_find(&map->table, key);
    bool is_in = e || tri__wtable_add(&map->table, lines_of(m->heap), key, value);
    if (e) e->value = value;
    *wants_bytes = tri__wtable_wants(&map->table);
    tri__lock_release(lock_of(m, map));
    return is_in;
}

/* Gives the table what it grows by, which was made with nothing locked. False, with the error set: no memory. */
static bool grow(struct mutator *m, struct wmap *map, size_t size_bytes) {
    void *block = tri__manual_table_new(m->heap, "tri_wmap_put", size_bytes);
    if (!block) return false;
    tri__lock_acquire(lock_of(m, map));
    void *spare = tri__wtable_give(&map->table, block, size_bytes);
    tri__lock_release(lock_of(m, map));
    tri__manual_table_free(m->heap, spare);
    return true;
}

int tri_wmap_put(tri_thread *thread, void *map, void *key, tri_word value) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_put");
    NO_SAFEPOINT("tri_wmap_put");
    if (!m) return TRI_EUNATTACHED;
    struct wmap *wm = map_of(m, map, "tri_wmap_put");
    uintptr_t addr = tri__object_of(m, key, "tri_wmap_put");
    if (!wm || !addr) return TRI_EINVAL;
    for (;;) {
        size_t wants_bytes;
        bool is_in = try_put(m, wm, addr, value, &wants_bytes);
        if (is_in && !wants_bytes) return TRI_OK;
        if (!is_in && !wants_bytes)
            return tri__error(TRI_ENOMEM, "tri_wmap_put", "no memory for another entry of the map");
        if (!grow(m, wm, wants_bytes)) return is_in ? TRI_OK : TRI_ENOMEM; /* slower without */
        if (is_in) return TRI_OK;
    }
}

bool tri_wmap_remove(tri_thread *thread, void *map, const void *key) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_remove");
    NO_SAFEPOINT("tri_wmap_remove");
    if (!m) return false;
    struct wmap *wm = map_of(m, map, "tri_wmap_remove");
    uintptr_t addr = tri__object_of(m, key, "tri_wmap_remove");
    if (!wm || !addr) return false;
    tri__lock_acquire(lock_of(m, wm));
    struct wentry *e = tri__wtable_find(&wm->table, addr);
    if (e) tri__wtable_remove(&wm->table, lines_of(m->heap), e);
    tri__lock_release(lock_of(m, wm));
    return e != NULL;
}

/* Whether the object that a word of a map names may be given away (R5). Only the gate's lock tells while objects come
 * back; for what a held key leads to, a mark is enough: it was reachable at the close. That another thread has replaced
 * it since it was read makes no difference: maps are settled before the round too, so no entry of a held key names
 * anything unmarked in the round that closes (R6; model: FAULT_EPH_ONCE). */
static enum gate_answer ask(struct mutator *m, uintptr_t ref, bool held) {
    if (!m->armed || !ref || !space_contains(&m->heap->mem.space, ref)) return GATE_ALLOWS;
    return held ? tri__gate_load_quick(m, ref) : tri__gate_load(m, ref);
}

static bool read_entry(struct mutator *m, struct wmap *map, uintptr_t key, tri_word *value) {
    tri__lock_acquire(lock_of(m, map));
    const struct wentry *e = tri__wtable_find(&map->table, key);
    if (e) *value = e->value;
    tri__lock_release(lock_of(m, map));
    return e != NULL;
}

bool tri_wmap_get(tri_thread *thread, void *map, const void *key, tri_word *value) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_get");
    if (!m) return false;
    IN_CALL("tri_wmap_get");
    struct wmap *wm = map_of(m, map, "tri_wmap_get");
    uintptr_t addr = tri__object_of(m, key, "tri_wmap_get");
    tri_word found = 0, refused = 0;
    bool was_refused = false;
    if (!wm || !addr) return false;
    for (uint64_t start = tri__os_now_ns(); read_entry(m, wm, addr, &found);) {
        enum gate_answer answer = ask(m, enc_decode(&wm->enc, found), true);
        if (answer == GATE_ALLOWS) {
            if (value) *value = found;
            return true;
        }
        /* A key that is held has a value that lives, so it has been taken away or replaced meanwhile. */
        if (answer == GATE_REFUSES) {
            if (was_refused && refused == found) return false;
            was_refused = true;
            refused = found;
        }
        if (answer != GATE_DELAYS) continue;
        note_site(m, CALL_SITE("tri_wmap_get"));
        if (!tri__gate_wait(m, start, "tri_wmap_get")) return false;
    }
    return false;
}

size_t tri_wmap_count(tri_thread *thread, void *map) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_count");
    NO_SAFEPOINT("tri_wmap_count");
    struct wmap *wm = m ? map_of(m, map, "tri_wmap_count") : NULL;
    if (!wm) return 0;
    tri__lock_acquire(lock_of(m, wm));
    size_t n = wm->table.n;
    tri__lock_release(lock_of(m, wm));
    return n;
}

/* The next entry from *position on, which moves behind it. */
static bool next_entry(struct mutator *m, struct wmap *map, uint64_t *position, struct wentry *out) {
    int found;
    do {
        tri__lock_acquire(lock_of(m, map));
        found = tri__wtable_next(&map->table, position, out, LOCKED_BUCKETS);
        tri__lock_release(lock_of(m, map));
    } while (found == 0);
    return found > 0;
}

bool tri_wmap_next(tri_thread *thread, void *map, size_t *position, void **key, tri_word *value) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_next");
    IN_CALL("tri_wmap_next");
    struct wmap *wm = m ? map_of(m, map, "tri_wmap_next") : NULL;
    if (wm && !position) (void)tri__error(TRI_EINVAL, "tri_wmap_next", "position is NULL; pass one that begins at 0");
    if (!wm || !position) return false;
    struct wentry e;
    uint64_t at = *position;
    for (uint64_t start = tri__os_now_ns(); next_entry(m, wm, &at, &e);) {
        enum gate_answer answer = ask(m, e.key, false);
        if (answer == GATE_ALLOWS) answer = ask(m, enc_decode(&wm->enc, e.value), false);
        if (answer == GATE_ALLOWS) {
            *position = at;
            if (key) *key = (void *)e.key;
            if (value) *value = e.value;
            return true;
        }
        if (answer == GATE_DELAYS) {
            note_site(m, CALL_SITE("tri_wmap_next"));
            if (!tri__gate_wait(m, start, "tri_wmap_next")) return false;
            at--; /* the same entry again, if it is still there */
        }
        *position = at; /* refused: its key is dead */
    }
    return false; /* and so again, until something is put behind *position */
}

/* ---- a table that gets smaller ----------------------------------------------------------------------------------- */

static bool free_block(tri_heap *heap, void *block) {
    if (block) tri__manual_table_free(heap, block);
    return block != NULL;
}

bool tri__wmap_free_some(tri_heap *heap, struct wmap *map) {
    tri__lock_acquire(tri__wmap_lock(heap, map));
    tri__wtable_drop(&map->table, lines_of(heap), LOCKED_BUCKETS);
    void *spare = tri__wtable_take_spare(&map->table);
    tri__lock_release(tri__wmap_lock(heap, map));
    free_block(heap, spare);
    return map->table.root != NULL; /* nobody else has the map */
}

bool tri__wmap_shrink_some(tri_heap *heap, struct wmap *map) {
    tri__lock_acquire(tri__wmap_lock(heap, map));
    bool more = tri__wtable_contract(&map->table, lines_of(heap), LOCKED_BUCKETS);
    void *spare = map->table.n * 2 < map->table.nroom ? tri__wtable_take_spare(&map->table) : NULL;
    tri__lock_release(tri__wmap_lock(heap, map));
    return free_block(heap, spare) || more;
}

/* ---- freed by hand, verify --------------------------------------------------------------------------------------- */

void tri__wmap_unlink(tri_heap *heap, struct wmap *map) {
    struct wmaps *ms = &heap->death.maps;
    check_cheap(tri__lock_held(&heap->death.watches.lock), "R7: the list of maps changes under its lock");
    for (struct wmap_walk *walk = ms->walks; walk; walk = walk->next)
        if (walk->map == map) walk->map = map->next;
    if (map->prev)
        map->prev->next = map->next;
    else
        ms->first = map->next;
    if (map->next) map->next->prev = map->prev;
    atomic_sub_relaxed(&ms->nmaps, 1); /* written under the lock */
}

static void drop_key(tri_heap *heap, struct wmap *map, uintptr_t key) {
    struct lock *lock = tri__wmap_lock(heap, map);
    tri__lock_acquire(lock);
    struct wentry *e = tri__wtable_find(&map->table, key);
    if (e) tri__wtable_remove(&map->table, lines_of(heap), e);
    tri__lock_release(lock);
}

static void end_walk(struct wmaps *ms, struct wmap_walk *walk) {
    struct wmap_walk **p = &ms->walks;
    while (*p != walk) p = &(*p)->next;
    *p = walk->next;
}

/* A freed object is the key of nobody knows which maps. */
static void drop_key_everywhere(tri_heap *heap, uintptr_t key) {
    struct wmaps *ms = &heap->death.maps;
    struct lock *lock = &heap->death.watches.lock;
    tri__lock_acquire(lock);
    struct wmap_walk walk = {.map = ms->first, .next = ms->walks};
    ms->walks = &walk;
    while (walk.map) {
        for (int n = 0; n < LOCKED_MAPS && walk.map; n++, walk.map = walk.map->next) drop_key(heap, walk.map, key);
        tri__lock_release(lock);
        tri__lock_acquire(lock);
    }
    end_walk(ms, &walk);
    tri__lock_release(lock);
}

void tri__wmaps_freed(tri_heap *heap, uintptr_t addr) {
    struct wmaps *ms = &heap->death.maps;
    if (atomic_load_relaxed(&ms->nmaps) == 0) return; /* the host orders its maps before its tri_free */
    struct wmap *dead = tri__wmap_at(heap, addr);
    if (dead) {
        tri__lock_acquire(&heap->death.watches.lock);
        tri__wmap_unlink(heap, dead);
        tri__lock_release(&heap->death.watches.lock);
    }
    drop_key_everywhere(heap, addr);
    if (!dead) return;
    while (tri__wmap_free_some(heap, dead)) {}
    tri__fixalloc_put(&ms->fix, dead);
}

static bool names_dead(tri_heap *heap, uintptr_t ref) {
    struct slot slot;
    if (!space_contains(&heap->mem.space, ref) || manual_span_of(&heap->mem.space, ref)) return false;
    return !space_find_slot(&heap->mem.space, ref, &slot) || !tri__lives(heap, &slot);
}

static void verify_map(tri_heap *heap, const struct wmap *map, void (*say)(void *context, const char *text),
                       void *context) {
    char text[160];
    struct wentry e[LOCKED_BUCKETS];
    tri__wtable_verify(&map->table, say, context);
    for (struct wcursor at = {0, 0}; at.bucket < map->table.nbuckets;) {
        size_t n = tri__wtable_copy(&map->table, &at, e, LOCKED_BUCKETS);
        for (size_t i = 0; i < n; i++) {
            struct slot slot;
            if (!space_find_slot(&heap->mem.space, e[i].key, &slot) || slot.addr != e[i].key)
                say(context, "I-WMAP1: the key of a weak map's entry is no start of an object");
            if (!names_dead(heap, e[i].key) && !names_dead(heap, enc_decode(&map->enc, e[i].value))) continue;
            snprintf(text, sizeof text, "I-WMAP2: the weak map %p has an entry %p -> %016llx, which names the dead",
                     (void *)map->obj, (void *)e[i].key, (unsigned long long)e[i].value);
            say(context, text);
        }
    }
}

void tri__wmaps_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context) {
    size_t n = 0;
    for (const struct wmap *map = heap->death.maps.first; map; map = map->next, n++) {
        if (names_dead(heap, map->obj) || tri__wmap_at(heap, map->obj) != map)
            say(context, "I-WMAP2: the record of a dead weak map is still there");
        else
            verify_map(heap, map, say, context);
    }
    if (n != atomic_load_relaxed(&heap->death.maps.nmaps))
        say(context, "I-WMAP2: there are not as many weak maps as are counted");
}
