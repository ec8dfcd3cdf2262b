/* cache.c - taking and returning holes; see cache.h. */
#include "alloc/cache.h"
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/base/os.h"

void tri__cache_init(struct cache *cache, struct memory *mem, tri_hole **holes, uint32_t *nholes,
                     struct lock *table_lock) {
    *cache = (struct cache){.mem = mem, .holes = holes, .nholes = nholes, .table_lock = table_lock};
    *holes = NULL;
    *nholes = 0;
}

void tri__cache_fini(struct cache *cache) {
    if (*cache->holes) tri__os_release(*cache->holes, cache->table_bytes);
    *cache->holes = NULL;
    *cache->nholes = 0;
}

/* Makes the table reach `layout`. Grows by doubling; old holes are copied. */
static bool grow_table(struct cache *cache, uint32_t layout) {
    size_t bytes = max_size(align_up((layout + 1) * sizeof(tri_hole), tri__os_page_size()), cache->table_bytes * 2);
    tri_hole *table = tri__os_map(bytes);
    if (!table) return false;
    tri_hole *old = *cache->holes;
    size_t old_bytes = cache->table_bytes;
    if (old) memcpy(table, old, *cache->nholes * sizeof(tri_hole));
    tri__lock_acquire(cache->table_lock); /* against tri_find of other threads */
    *cache->holes = table;
    *cache->nholes = (uint32_t)min_size(bytes / sizeof(tri_hole), MAX_LAYOUTS);
    cache->table_bytes = bytes;
    tri__lock_release(cache->table_lock);
    if (old) tri__os_release(old, old_bytes);
    return true;
}

/* tri_find of other threads reads both, to refuse slots that are not objects yet, and must not take the one end of an
 * old hole with the other of a new one: in between the hole has no end. Pairs with in_hole_of in gc/inspect.c. */
static void set_hole(tri_hole *hole, char *cursor, char *limit) {
    atomic_store_relaxed(&hole->limit, NULL);
    atomic_store_release(&hole->cursor, cursor);
    atomic_store_release(&hole->limit, limit);
}

static struct span *chain_head(struct span *span) {
    while (span && span->prev) span = span->prev;
    return span;
}

/* Gives the unused part of the hole back to its span. */
static void return_rest(struct cache *cache, tri_hole *hole) {
    struct span *span = hole->span;
    if (!span || hole->cursor == hole->limit) return;
    uintptr_t base = span_base(&cache->mem->space, span);
    uint32_t first = (uint32_t)(((uintptr_t)hole->cursor - base) / span->slot_bytes);
    uint32_t left = (uint32_t)((size_t)(hole->limit - hole->cursor) / span->slot_bytes);
    tri__span_return_hole(&cache->mem->space, span, first, left);
    cache->taken_bytes -= (int64_t)(left * span->slot_bytes);
    if (cache->black && atomic_load_relaxed(&span->gen) == cache->gen) /* own span */
        cache->black_bytes -= (int64_t)(left * span->slot_bytes);
}

static void close_hole(struct cache *cache, tri_hole *hole) {
    struct span *span = hole->span;
    if (!span) return;
    return_rest(cache, hole);
    hole->span = NULL;
    set_hole(hole, NULL, NULL);
    struct central *central = atomic_load_acquire(&cache->mem->centrals[span->layout]); /* pairs with central_get */
    tri__central_put(cache->mem, central, chain_head(span));
}

/* The next run of free slots of the hole's span. */
static bool next_run(struct cache *cache, tri_hole *hole) {
    struct span *span = hole->span;
    size_t max_bytes = span_is_zeroed(span) ? HOLE_MAX_BYTES : LEAF_HOLE_MAX_BYTES; /* zeroed: as much as stays near */
    uint32_t max_slots = cache->single ? 1 : (uint32_t)max_size(max_bytes / span->slot_bytes, 1);
    uint32_t first, n = tri__span_find_free(&cache->mem->space, span, max_slots, &first);
    if (n == 0) return false;
    bool black = cache->black && atomic_load_relaxed(&span->gen) == cache->gen; /* R10, I-CACHE2; own span */
    hole->slot_bytes = span->slot_bytes;
    char *start = (char *)span_slot_addr(&cache->mem->space, span, first);
    set_hole(hole, start, start + n * span->slot_bytes); /* before its allocation bits: never an object to tri_find */
    tri__span_take_hole(&cache->mem->space, span, first, n, black);
    cache->taken_bytes += (int64_t)(n * span->slot_bytes);
    if (black) cache->black_bytes += (int64_t)(n * span->slot_bytes);
    return true;
}

/* Opens the next run of the hole's span, or of the ones after it. */
static bool next_hole(struct cache *cache, tri_hole *hole) {
    for (struct span *span = hole->span; span; span = span->next) {
        hole->span = span;
        if (next_run(cache, hole)) return true;
    }
    return false;
}

static void *bump_hole(tri_hole *hole) {
    char *obj = hole->cursor;
    atomic_store_relaxed(&hole->cursor, obj + hole->slot_bytes); /* as in tri_new */
    check_internal(hole->cursor <= hole->limit, "I-CACHE1: a hole is a whole number of slots");
    return obj;
}

void *tri__cache_next(struct cache *cache, uint32_t layout) {
    if (layout >= *cache->nholes) return NULL;
    tri_hole *hole = &(*cache->holes)[layout];
    if (!hole->span || (hole->cursor == hole->limit && !next_hole(cache, hole))) return NULL;
    return bump_hole(hole);
}

void *tri__cache_alloc(struct cache *cache, const struct span_class *span_class) {
    if (TRI_UNLIKELY(span_class->layout >= *cache->nholes) && !grow_table(cache, span_class->layout)) return NULL;
    tri_hole *hole = &(*cache->holes)[span_class->layout];
    while (hole->cursor == hole->limit && !next_hole(cache, hole)) {
        struct span *done = chain_head(hole->span);
        hole->span = NULL;
        set_hole(hole, NULL, NULL);
        struct central *central = tri__central_get(cache->mem, span_class);
        if (!central) return NULL; /* then there was no span either */
        hole->span = tri__central_exchange(cache->mem, central, cache->gen, done, &cache->block);
        if (!hole->span) return NULL;
    }
    return bump_hole(hole);
}

void tri__cache_blacken(struct cache *cache) {
    cache->black = true;
    for (uint32_t i = 0; i < *cache->nholes; i++) {
        tri_hole *hole = &(*cache->holes)[i];
        struct span *span = hole->span;
        if (!span || hole->cursor == hole->limit) continue;
        check_internal(atomic_load_relaxed(&span->gen) == cache->gen, "R10: before H3 every cached span is current");
        uint32_t first = (uint32_t)(((uintptr_t)hole->cursor - span_base(&cache->mem->space, span)) / span->slot_bytes);
        uint32_t n = (uint32_t)((size_t)(hole->limit - hole->cursor) / span->slot_bytes);
        tri__span_mark_slots(&cache->mem->space, span, first, n);
        cache->black_bytes += (int64_t)(n * span->slot_bytes);
    }
}

void tri__cache_flush(struct cache *cache) {
    for (uint32_t i = 0; i < *cache->nholes; i++) close_hole(cache, &(*cache->holes)[i]); /* I-CACHE3 */
    tri__pageheap_put_block(cache->mem->pages, &cache->block);
}
