/* wmap.c - weak maps: from an object to a value, by identity, for as long as object and map both live.
 *
 * A map is a collected object that holds nothing but the address of its record; record and entries lie outside, so that
 * an entry never moves while it is looked at by the marker's rules, growth needs no safepoint, and a cycle at any
 * moment finds either the old table or the new one. Entries are hashed by the key's address, which stays: objects do
 * not move.
 *
 * An entry keeps neither key nor value alive by itself; a key that lives in a map that lives keeps its value alive
 * (ephemeron.c). Nothing is shaded when an entry is made, changed or taken away: whatever a thread holds is kept by
 * other means, and what it takes out of a map it has asked the gate for (R5).
 *
 * Invariants: I-WMAP1 an entry's key is the start of an object, 0 (never used) or GONE; n entries of the first kind, n
 * and GONE together less than three quarters of the table. I-WMAP2 (R7) between cycles keys and values of a live map's
 * entries are live. Lock ranks: death (33) for the list of maps, wmaps (34) for entries. */
#include <stdio.h>
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

enum { FIRST_ENTRIES = 8, RECORD_BYTES = 128 };
#define GONE ((uintptr_t)WMAP_GONE)

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
    struct wmap *found = tri__wmap_at(m->heap, (uintptr_t)map);
    if (!found) (void)tri__error(TRI_EINVAL, call, "%p is no weak map of this heap", map);
    return found;
}

void *tri_wmap_new(tri_thread *thread, const tri_enc *enc) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_new");
    if (!m || tri__enc_check(enc, "tri_wmap_new") != TRI_OK) return NULL;
    struct wmaps *ms = &m->heap->death.maps;
    struct wmap *map = tri__fixalloc_get(&ms->fix);
    struct wmap_object *obj = map ? tri_new(thread, &wmap_type) : NULL;
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

/* ---- entries; under the map's lock ------------------------------------------------------------------------------- */

static size_t hash(uintptr_t addr) {
    uint64_t x = addr >> 3; /* the finalizer of splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return (size_t)(x ^ x >> 31);
}

static struct wentry *find(const struct wmap *map, uintptr_t key) {
    if (map->capacity == 0) return NULL;
    for (size_t i = hash(key) & (map->capacity - 1);; i = (i + 1) & (map->capacity - 1)) {
        struct wentry *e = &map->entries[i];
        if (e->key == key) return e;
        if (e->key == 0) return NULL;
    }
}

/* A place for a new key: there is one (I-WMAP1). */
static struct wentry *find_free(struct wmap *map, uintptr_t key) {
    size_t i = hash(key) & (map->capacity - 1);
    while (map->entries[i].key > GONE) i = (i + 1) & (map->capacity - 1);
    return &map->entries[i];
}

static bool is_full(const struct wmap *map) {
    return (map->nused + 1) * 4 > map->capacity * 3;
}

static void insert(struct wmap *map, uintptr_t key, tri_word value) {
    struct wentry *e = find_free(map, key);
    if (e->key == 0) map->nused++;
    *e = (struct wentry){key, value};
    map->n++;
}

void tri__wmap_drop(tri_heap *heap, struct wmap *map, struct wentry *e) {
    check_internal(e->key > GONE, "I-WMAP1: an entry goes once");
    *e = (struct wentry){GONE, 0};
    map->n--;
    (void)heap;
}

static size_t wanted_capacity(const struct wmap *map) {
    size_t capacity = FIRST_ENTRIES;
    while (capacity < (map->n + 1) * 2) capacity *= 2;
    return capacity;
}

/* Moves everything over; returns the old table. */
static struct wentry *rehash(struct wmap *map, struct wentry *entries, size_t capacity) {
    struct wentry *old = map->entries;
    size_t old_capacity = map->capacity;
    map->entries = entries;
    map->capacity = capacity;
    map->n = map->nused = 0;
    map->version++;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].key > GONE) insert(map, old[i].key, old[i].value);
    return old;
}

static struct lock *lock_of(struct mutator *m, const struct wmap *map) {
    return tri__wmap_lock(m->heap, map);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

/* Sets the entry; false: the table is full. Takes the lock. */
static bool try_put(struct mutator *m, struct wmap *map, uintptr_t key, tri_word value) {
    tri__lock_acquire(lock_of(m, map));
    struct wentry *e = find(map, key);
    bool fits = e || !is_full(map);
    if (e)
        e->value = value;
    else if (fits)
        insert(map, key, value);
    tri__lock_release(lock_of(m, map));
    return fits;
}

/* A larger table (or one without what is gone), made with nothing locked. False, with the error set: no memory. */
static bool grow(struct mutator *m, struct wmap *map) {
    tri__lock_acquire(lock_of(m, map));
    size_t capacity = wanted_capacity(map);
    uint32_t version = map->version;
    tri__lock_release(lock_of(m, map));
    struct wentry *entries = tri__manual_table_new(m->heap, "tri_wmap_put", capacity * sizeof *entries), *old = entries;
    if (!entries) return false;
    tri__lock_acquire(lock_of(m, map));
    if (map->version == version && capacity > map->n) old = rehash(map, entries, capacity);
    tri__lock_release(lock_of(m, map));
    tri__manual_table_free(m->heap, old); /* or the new one: somebody was faster */
    return true;
}

int tri_wmap_put(tri_thread *thread, void *map, void *key, tri_word value) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_put");
    NO_SAFEPOINT("tri_wmap_put");
    if (!m) return TRI_EUNATTACHED;
    struct wmap *wm = map_of(m, map, "tri_wmap_put");
    uintptr_t addr = tri__object_of(m, key, "tri_wmap_put");
    if (!wm || !addr) return TRI_EINVAL;
    while (!try_put(m, wm, addr, value))
        if (!grow(m, wm)) return TRI_ENOMEM;
    return TRI_OK;
}

bool tri_wmap_remove(tri_thread *thread, void *map, const void *key) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_remove");
    NO_SAFEPOINT("tri_wmap_remove");
    if (!m) return false;
    struct wmap *wm = map_of(m, map, "tri_wmap_remove");
    uintptr_t addr = tri__object_of(m, key, "tri_wmap_remove");
    if (!wm || !addr) return false;
    tri__lock_acquire(lock_of(m, wm));
    struct wentry *e = find(wm, addr);
    if (e) tri__wmap_drop(m->heap, wm, e);
    tri__lock_release(lock_of(m, wm));
    return e != NULL;
}

/* Whether the object that a word of a map names may be given away (R5). Only the gate's lock tells while objects come
 * back; for what a held key leads to, a mark is enough: it was reachable at the close. */
static enum gate_answer ask(struct mutator *m, uintptr_t ref, bool held) {
    if (!m->armed || !ref || !space_contains(&m->heap->mem.space, ref)) return GATE_ALLOWS;
    return held ? tri__gate_load_quick(m, ref) : tri__gate_load(m, ref);
}

static bool read_entry(struct mutator *m, struct wmap *map, uintptr_t key, tri_word *value) {
    tri__lock_acquire(lock_of(m, map));
    const struct wentry *e = find(map, key);
    if (e) *value = e->value;
    tri__lock_release(lock_of(m, map));
    return e != NULL;
}

bool tri_wmap_get(tri_thread *thread, void *map, const void *key, tri_word *value) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_get");
    if (!m) return false;
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
        if (answer == GATE_DELAYS && !tri__gate_wait(m, start, "tri_wmap_get")) return false;
    }
    return false;
}

size_t tri_wmap_count(tri_thread *thread, void *map) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_count");
    NO_SAFEPOINT("tri_wmap_count");
    struct wmap *wm = m ? map_of(m, map, "tri_wmap_count") : NULL;
    if (!wm) return 0;
    tri__lock_acquire(lock_of(m, wm));
    size_t n = wm->n;
    tri__lock_release(lock_of(m, wm));
    return n;
}

/* The next entry from *position on, which moves behind it. */
static bool next_entry(struct mutator *m, struct wmap *map, size_t *position, struct wentry *out) {
    bool found = false;
    tri__lock_acquire(lock_of(m, map));
    while (!found && *position < map->capacity) {
        *out = map->entries[(*position)++];
        found = out->key > GONE;
    }
    tri__lock_release(lock_of(m, map));
    return found;
}

bool tri_wmap_next(tri_thread *thread, void *map, size_t *position, void **key, tri_word *value) {
    struct mutator *m = tri__mutator_check(thread, "tri_wmap_next");
    struct wmap *wm = m ? map_of(m, map, "tri_wmap_next") : NULL;
    if (!wm || !position) return false;
    struct wentry e;
    size_t at = *position;
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
            if (!tri__gate_wait(m, start, "tri_wmap_next")) return false;
            at--; /* the same entry again, if it is still there */
        }
        *position = at; /* refused: its key is dead */
    }
    *position = at;
    return false;
}

/* ---- freed by hand, verify --------------------------------------------------------------------------------------- */

void tri__wmap_unlink(tri_heap *heap, struct wmap *map) {
    struct wmaps *ms = &heap->death.maps;
    check_cheap(tri__lock_held(&heap->death.watches.lock), "R7: the list of maps changes under its lock");
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
    struct wentry *e = find(map, key);
    if (e) tri__wmap_drop(heap, map, e);
    tri__lock_release(lock);
}

void tri__wmaps_freed(tri_heap *heap, uintptr_t addr) {
    struct wmaps *ms = &heap->death.maps;
    if (atomic_load_relaxed(&ms->nmaps) == 0) return; /* the host orders its maps before its tri_free */
    struct wmap *dead = tri__wmap_at(heap, addr);
    tri__lock_acquire(&heap->death.watches.lock);
    if (dead) tri__wmap_unlink(heap, dead);
    for (struct wmap *map = ms->first; map; map = map->next) drop_key(heap, map, addr);
    tri__lock_release(&heap->death.watches.lock);
    if (!dead) return;
    tri__manual_table_free(heap, dead->entries);
    tri__fixalloc_put(&ms->fix, dead);
}

static bool names_dead(tri_heap *heap, uintptr_t ref) {
    struct slot slot;
    if (!space_contains(&heap->mem.space, ref) || manual_span_of(&heap->mem.space, ref)) return false;
    return !space_find_slot(&heap->mem.space, ref, &slot) || !tri__lives(heap, &slot);
}

static void verify_map(tri_heap *heap, const struct wmap *map, void (*say)(void *context, const char *text),
                       void *context) {
    size_t n = 0, nused = 0;
    char text[160];
    for (size_t i = 0; i < map->capacity; i++) {
        const struct wentry *e = &map->entries[i];
        nused += e->key != 0;
        n += e->key > GONE;
        if (e->key <= GONE) continue;
        if (find(map, e->key) != e) say(context, "I-WMAP1: an entry of a weak map is not found by its key");
        if (!names_dead(heap, e->key) && !names_dead(heap, enc_decode(&map->enc, e->value))) continue;
        snprintf(text, sizeof text, "I-WMAP2: the weak map %p has an entry %p -> %016llx, which names the dead",
                 (void *)map->obj, (void *)e->key, (unsigned long long)e->value);
        say(context, text);
    }
    if (n != map->n || nused != map->nused) say(context, "I-WMAP1: a weak map has not as many entries as it counts");
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
