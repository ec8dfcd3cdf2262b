/* cache.c - taking and returning holes; see cache.h. */
#include "alloc/cache.h"
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/base/os.h"

_Static_assert(sizeof(tri_hole) * MAX_LAYOUTS == HOLE_TABLE_BYTES, "the table has a hole for every layout");

bool tri__cache_init(struct cache *cache, struct memory *mem, struct lock *table_lock) {
    *cache = (struct cache){.mem = mem, .table_lock = table_lock, .open = HOLE_LAST};
    cache->holes = tri__os_map_sparse(HOLE_TABLE_BYTES);
    if (!cache->holes) return false;
    (void)tri__os_advise_huge(cache->holes, HOLE_TABLE_BYTES, false); /* or a hole would cost 2 MiB; a hint */
    return true;
}

void tri__cache_fini(struct cache *cache) {
    tri__os_release(cache->holes, HOLE_TABLE_BYTES);
    cache->holes = NULL;
}

/* tri_find of other threads reads both, to refuse slots that are not objects yet, and must not take the one end of an
 * old hole with the other of a new one: in between the hole has no end. Pairs with in_hole_of in gc/inspect.c. */
static void set_hole(tri_hole *hole, char *cursor, char *limit) {
    atomic_store_relaxed(&hole->limit, NULL);
    atomic_store_release(&hole->cursor, cursor);
    atomic_store_release(&hole->limit, limit);
}

/* Puts a hole that gets its first span into the list. */
static void open_hole(struct cache *cache, uint32_t number) {
    tri_hole *hole = &cache->holes[number];
    if (hole->next != HOLE_UNLISTED) return; /* own */
    size_t page = number * sizeof(tri_hole) / HOLE_PAGE_BYTES;
    cache->backed[page / 64] |= 1ull << page % 64; /* I-CACHE5 */
    cache->recent[page / 64] |= 1ull << page % 64;
    atomic_store_relaxed(&hole->next, cache->open);
    atomic_store_release(&cache->open, number); /* pairs with cache_first: the hole's own link */
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
    hole->slot_bytes = (uint32_t)span->slot_bytes;
    char *start = (char *)span_slot_addr(&cache->mem->space, span, first);
    set_hole(hole, start, start + n * span->slot_bytes); /* before its allocation bits: never an object to tri_find */
    tri__span_take_hole(&cache->mem->space, span, first, n, black);
    cache->taken_bytes += (int64_t)(n * span->slot_bytes);
    if (black) cache->black_bytes += (int64_t)(n * span->slot_bytes);
    if (TRI_UNLIKELY(cache->notes_black) && black)
        atomic_or_relaxed(&span->rescan, SPAN_RESCAN_FRESH); /* read in a stop */
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
    tri_hole *hole = &cache->holes[layout];
    if (!hole->span || (hole->cursor == hole->limit && !next_hole(cache, hole))) return NULL;
    return bump_hole(hole);
}

void *tri__cache_alloc(struct cache *cache, const struct span_class *span_class) {
    tri_hole *hole = &cache->holes[span_class->layout];
    while (hole->cursor == hole->limit && !next_hole(cache, hole)) {
        struct span *done = chain_head(hole->span);
        cache->tiny = NULL; /* I-CACHE4: after the flip others sweep what is given back here, its marks with it */
        hole->span = NULL;
        set_hole(hole, NULL, NULL);
        struct central *central = tri__central_get(cache->mem, span_class);
        if (!central) return NULL; /* then there was no span either */
        hole->span = tri__central_exchange(cache->mem, central, cache->gen, done, &cache->block);
        if (!hole->span) return NULL;
        open_hole(cache, span_class->layout);
    }
    return bump_hole(hole);
}

void tri__cache_blacken(struct cache *cache) {
    cache->black = true;
    cache->tiny = NULL; /* I-CACHE4: it may be white */
    for (tri_hole *hole = cache_first(cache); hole; hole = cache_after(cache, hole)) {
        struct span *span = hole->span;
        if (!span || hole->cursor == hole->limit) continue;
        check_internal(atomic_load_relaxed(&span->gen) == cache->gen, "R10: before H3 every cached span is current");
        uint32_t first = (uint32_t)(((uintptr_t)hole->cursor - span_base(&cache->mem->space, span)) / span->slot_bytes);
        uint32_t n = (uint32_t)((size_t)(hole->limit - hole->cursor) / span->slot_bytes);
        tri__span_mark_slots(&cache->mem->space, span, first, n);
        if (cache->notes_black) atomic_or_relaxed(&span->rescan, SPAN_RESCAN_FRESH); /* read in a stop */
        cache->black_bytes += (int64_t)(n * span->slot_bytes);
    }
}

void tri__cache_flush(struct cache *cache) {
    cache->tiny = NULL;
    tri__lock_acquire(cache->table_lock);
    tri_hole *hole = cache_first(cache);
    atomic_store_relaxed(&cache->open, HOLE_LAST); /* under the lock of those who follow the list */
    for (tri_hole *next; hole; hole = next) {
        next = cache_after(cache, hole);
        atomic_store_relaxed(&hole->next, HOLE_UNLISTED); /* as above */
        close_hole(cache, hole);                          /* I-CACHE3 */
    }
    tri__lock_release(cache->table_lock);
    tri__pageheap_put_block(cache->mem->pages, &cache->block);
}

/* Nobody is in the table: its list is empty, and whoever followed it held the lock that it was emptied under. */
void tri__cache_trim(struct cache *cache) {
    check_cheap(atomic_load_relaxed(&cache->open) == HOLE_LAST, "I-CACHE3: the table is trimmed with no hole in it");
    size_t nbacked = 0, nrecent = 0;
    for (size_t i = 0; i < HOLE_PAGE_WORDS; i++) {
        nbacked += bit_count(cache->backed[i]);
        nrecent += bit_count(cache->recent[i]);
    }
    memset(cache->recent, 0, sizeof cache->recent);
    if (nbacked <= HOLE_PAGES_KEPT || nrecent > nbacked / 2) return; /* it would only come back */
    if (tri__os_decommit(cache->holes, HOLE_TABLE_BYTES)) memset(cache->backed, 0, sizeof cache->backed);
}
