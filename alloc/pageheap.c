/* pageheap.c - the page heap: growth, first fit over the radix tree, taking back, scavenging (SOURCES S8).
 *
 * Owns: the chunks' bitmaps, the summaries over them, the frontier (pages below it were committed once) and the counts.
 * Does not own: the memory itself (the callbacks), nor any policy of when to scavenge.
 *
 * The tree: level 0 has a summary for each chunk of 512 pages; an entry of each level above covers eight of the level
 * below, up to level 4, where an entry covers 2^21 pages (16 GiB). Level 4 is searched as a list. All of it is indexed
 * by page number, reserved at creation for max_pages and committed as the frontier rises; what is beyond reads as zero,
 * which means "nothing free".
 *
 * Invariants: I-PAGE1 to I-PAGE5 of pageheap.h, and
 * I-PAGE6  a bit is set in `free` only below the frontier, and in `dirty` only where `free` is set.
 * I-PAGE7  no dirty page lies at or above dirty_limit.
 * I-PAGE9  no page at or above `high` is in use or dirty, and all that are populated lie from there on.
 * I-PAGE8  a refused commit, of pages or of metadata, leaves the heap as it was.
 *
 * Lock rank: RANK_PAGEHEAP; all fields but the constant ones are under it. The commit callback runs with the lock held,
 * the decommit callback without: the run under it counts as given out meanwhile. */
#include "alloc/pageheap_parts.h"

#include <string.h>

#include "alloc/base/check.h"
#include "alloc/base/os.h"

/* ---- Metadata ---- */

static bool growing_reserve(struct growing *g, size_t size_bytes) {
    g->reserved_bytes = align_up(size_bytes, tri__os_page_size());
    g->base = tri__os_reserve_readable(g->reserved_bytes);
    return g->base != NULL;
}

static bool growing_commit(struct growing *g, size_t size_bytes) {
    size_t wanted = align_up(size_bytes, tri__os_page_size());
    if (wanted <= g->committed_bytes) {
        return true;
    }
    if (!tri__os_commit(g->base + g->committed_bytes, wanted - g->committed_bytes)) {
        return false;
    }
    g->committed_bytes = wanted;
    return true;
}

static bool reserve_metadata(struct pageheap *ph) {
    if (!growing_reserve(&ph->chunks, level_entries(0, ph->max_pages) * sizeof(struct page_chunk))) {
        return false;
    }
    if (!growing_reserve(&ph->touched, level_entries(0, ph->max_pages))) {
        return false;
    }
    for (unsigned level = 0; level < LEVELS; level++) {
        if (!growing_reserve(&ph->levels[level], level_entries(level, ph->max_pages) * sizeof(page_summary))) {
            return false;
        }
    }
    return true;
}

/* What got committed before a refusal stays committed, which is harmless: it is zero and counted (I-PAGE8). */
static bool commit_metadata(struct pageheap *ph, size_t npages) {
    if (!growing_commit(&ph->chunks, level_entries(0, npages) * sizeof(struct page_chunk))) {
        return false;
    }
    if (!growing_commit(&ph->touched, level_entries(0, npages))) {
        return false;
    }
    for (unsigned level = 0; level < LEVELS; level++) {
        if (!growing_commit(&ph->levels[level], level_entries(level, npages) * sizeof(page_summary))) {
            return false;
        }
    }
    return true;
}

struct pageheap *tri__pageheap_create(size_t max_pages, size_t grow_pages, const struct pageheap_ops *ops) {
    if (max_pages == 0 || grow_pages == 0 || grow_pages % CHUNK_PAGES != 0) {
        return NULL;
    }
    struct pageheap *ph = tri__os_map(align_up(sizeof *ph, tri__os_page_size()));
    if (ph == NULL) {
        return NULL;
    }
    ph->ops = *ops;
    ph->max_pages = max_pages;
    ph->grow_pages = grow_pages;
    ph->alarm_pages = SIZE_MAX;
    tri__lock_init(&ph->lock, RANK_PAGEHEAP, "page heap");
    if (!reserve_metadata(ph)) {
        tri__pageheap_destroy(ph);
        return NULL;
    }
    return ph;
}

void tri__pageheap_destroy(struct pageheap *ph) {
    if (ph == NULL) {
        return;
    }
    tri__os_release(ph->chunks.base, ph->chunks.reserved_bytes);
    tri__os_release(ph->touched.base, ph->touched.reserved_bytes);
    for (unsigned level = 0; level < LEVELS; level++) {
        tri__os_release(ph->levels[level].base, ph->levels[level].reserved_bytes);
    }
    tri__lock_fini(&ph->lock);
    tri__os_release(ph, align_up(sizeof *ph, tri__os_page_size()));
}

struct lock *tri__pageheap_lock(struct pageheap *ph) {
    return &ph->lock;
}

/* ---- Bits of a run, a word at a time ---- */

/* The part of the pages [first, end) that lies in one word of the bitmaps. */
struct piece {
    uint64_t *free, *dirty, mask;
};

/* The first piece; *first moves past it. */
static struct piece next_piece(const struct pageheap *ph, size_t *first, size_t end) {
    struct page_chunk *chunk = chunk_at(ph, *first >> CHUNK_SHIFT);
    size_t word = *first / 64 % CHUNK_WORDS;
    size_t bit = *first % 64;
    size_t count = min_size(64 - bit, end - *first);
    *first += count;
    return (struct piece){&chunk->free[word], &chunk->dirty[word], (UINT64_MAX >> (64 - count)) << bit};
}

/* Brings the summaries over the pages [first, end) in line with the bits; stops at a level where nothing changes. */
static void update_summaries(struct pageheap *ph, size_t first, size_t end) {
    bool changed = false;
    size_t low = first >> CHUNK_SHIFT;
    size_t high = (end - 1) >> CHUNK_SHIFT;
    for (size_t i = low; i <= high; i++) {
        page_summary now = tri__summary_of_chunk(chunk_at(ph, i));
        changed |= *level_at(ph, 0, i) != now;
        *level_at(ph, 0, i) = now;
    }
    for (unsigned level = 1; level < LEVELS && changed; level++) {
        size_t part_pages = (size_t)1 << level_shift(level - 1);
        changed = false;
        low >>= FANOUT_SHIFT;
        high >>= FANOUT_SHIFT;
        for (size_t i = low; i <= high; i++) {
            page_summary now = tri__summary_merge(level_at(ph, level - 1, i << FANOUT_SHIFT), part_pages);
            changed |= *level_at(ph, level, i) != now;
            *level_at(ph, level, i) = now;
        }
    }
}

/* The pages [first, end) of the free and clean ones become dirty. */
static void mark_dirty(struct pageheap *ph, size_t first, size_t end) {
    for (size_t at = first; at < end;) {
        struct piece p = next_piece(ph, &at, end);
        uint64_t changed = *p.free & ~*p.dirty & p.mask;
        *p.dirty |= changed;
        ph->dirty_free_pages += bit_count(changed);
        if (changed) {
            ph->dirty_limit = max_size(ph->dirty_limit, at);
            ph->high = max_size(ph->high, at);
        }
    }
}

/* Pages up to `end` are given out, from `first` on (I-PAGE9). A populated one that this leaves below is dirty now. */
static void raise_high(struct pageheap *ph, size_t first, size_t end) {
    if (end <= ph->high) {
        return;
    }
    if (first > ph->high && ph->populated_end > ph->high) {
        mark_dirty(ph, ph->high, min_size(first, ph->populated_end));
    }
    ph->high = max_size(ph->high, end);
}

/* Gives the free pages [first, end) out. From the first dirty one of them to behind the last; empty: all were clean. */
static struct page_part mark_used(struct pageheap *ph, size_t first, size_t end) {
    size_t ndirty = 0;
    struct page_part part = {end, end};
    raise_high(ph, first, end);
    for (size_t at = first; at < end;) {
        size_t word_page = align_down(at, 64);
        struct piece p = next_piece(ph, &at, end);
        check_cheap((*p.free & p.mask) == p.mask, "I-PAGE1 only free pages are given out");
        uint64_t dirty = *p.dirty & p.mask;
        if (dirty) {
            if (ndirty == 0) part.first = word_page + bit_lowest(dirty);
            part.end = word_page + bit_highest(dirty) + 1;
            ndirty += bit_count(dirty);
        }
        *p.free &= ~p.mask;
        *p.dirty &= ~p.mask;
    }
    for (size_t i = first >> CHUNK_SHIFT; i <= (end - 1) >> CHUNK_SHIFT; i++) {
        ph->touched.base[i] = 1;
    }
    ph->used_pages += end - first;
    ph->dirty_free_pages -= ndirty;
    update_summaries(ph, first, end);
    return ndirty > 0 ? part : (struct page_part){end, end};
}

/* Makes the pages [first, end), which are given out or new, free. */
static void mark_free(struct pageheap *ph, size_t first, size_t end, bool dirty) {
    for (size_t at = first; at < end;) {
        struct piece p = next_piece(ph, &at, end);
        check_always((*p.free & p.mask) == 0, "I-PAGE1 a page is freed once");
        *p.free |= p.mask;
        *p.dirty |= dirty ? p.mask : 0;
    }
    if (dirty) {
        ph->dirty_free_pages += end - first;
        ph->dirty_limit = max_size(ph->dirty_limit, end);
        ph->high = max_size(ph->high, end);
    }
    ph->search = min_size(ph->search, first);
    update_summaries(ph, first, end);
}

/* ---- Finding a run ---- */

/* One step of first fit at one level: among entries [from, to), the lowest run of npages. True: it begins at *first,
 * exactly. False with *inside < to: it lies wholly inside entry *inside. False with *inside == to: there is none. */
static bool find_in_level(const struct pageheap *ph, unsigned level, size_t from, size_t to, size_t npages,
                          size_t *first, size_t *inside) {
    size_t entry_pages = (size_t)1 << level_shift(level);
    size_t run = 0; /* free pages that end where entry i begins */
    for (size_t i = from; i < to; i++) {
        page_summary summary = *level_at(ph, level, i);
        if (summary == 0) {
            run = 0;
            continue;
        }
        struct page_runs runs = tri__summary_unpack(summary);
        if (run + runs.start >= npages) {
            *first = (i << level_shift(level)) - run;
            return true;
        }
        if (runs.max >= npages) {
            *inside = i;
            return false;
        }
        run = runs.end == entry_pages ? run + entry_pages : runs.end;
    }
    *inside = to;
    return false;
}

/* The lowest free run of npages. */
static bool find_run(const struct pageheap *ph, size_t npages, size_t *first) {
    size_t from = ph->search >> level_shift(TOP);
    size_t to = ceil_div(ph->frontier, (size_t)1 << level_shift(TOP));
    size_t inside = to;
    for (unsigned level = TOP;; level--) {
        if (find_in_level(ph, level, from, to, npages, first, &inside)) {
            return true;
        }
        if (inside == to) {
            check_cheap(level == TOP, "I-PAGE2 a run that a summary promises is there");
            return false;
        }
        if (level == 0) {
            break;
        }
        from = inside << FANOUT_SHIFT;
        to = from + SUMMARY_FANOUT;
    }
    int at = tri__chunk_find(chunk_at(ph, inside), npages);
    check_always(at >= 0, "I-PAGE2 a run that a summary promises is there");
    *first = (inside << CHUNK_SHIFT) + (size_t)at;
    return true;
}

/* ---- Growing ---- */

/* Free pages just below the frontier, counted no further than `most`. */
static size_t free_below_frontier(const struct pageheap *ph, size_t most) {
    size_t n = 0;
    while (n < most && n < ph->frontier && page_is_free(ph, ph->frontier - n - 1)) {
        n++;
    }
    return n;
}

/* Raises the frontier so that a run of npages ends there at the latest. */
static bool grow(struct pageheap *ph, size_t npages) {
    size_t missing = npages - free_below_frontier(ph, npages - 1);
    size_t left = ph->max_pages - ph->frontier;
    if (missing > left) {
        return false;
    }
    size_t added = min_size(ceil_div(missing, ph->grow_pages) * ph->grow_pages, left);
    size_t end = ph->frontier + added;
    if (!commit_metadata(ph, end) || !ph->ops.commit(ph->ops.context, ph->frontier, added)) {
        return false;
    }
    size_t first = ph->frontier;
    ph->frontier = end;
    mark_free(ph, first, end, false);
    return true;
}

/* ---- Interface ---- */

/* What is due once the lock is free. */
enum { TELL_ALARM = 1, TELL_AHEAD = 2 };

/* After pages were given out, some of them clean if `fresh`. What is to be told. */
static unsigned note_taken(struct pageheap *ph, bool fresh) {
    unsigned due = 0;
    ph->peak_pages = max_size(ph->peak_pages, ph->used_pages);
    if (!fresh) {
        return 0;
    }
    if (ph->dirty_free_pages > 0 && ph->used_pages + ph->dirty_free_pages > ph->alarm_pages) {
        due |= TELL_ALARM;
    }
    if (populated_pages(ph) < ph->ahead_low) {
        ph->ahead_low = 0; /* once */
        due |= TELL_AHEAD;
    }
    return due;
}

static void tell(struct pageheap *ph, unsigned due, size_t npages) {
    if (TRI_UNLIKELY(due & TELL_ALARM) && ph->ops.alarm != NULL) {
        ph->ops.alarm(ph->ops.context, npages);
    }
    if (TRI_UNLIKELY(due & TELL_AHEAD) && ph->ops.ahead != NULL) {
        ph->ops.ahead(ph->ops.context);
    }
}

bool tri__pageheap_alloc(struct pageheap *ph, size_t npages, size_t *first, bool *dirty) {
    struct page_part part;
    if (!tri__pageheap_alloc_part(ph, npages, first, &part)) return false;
    *dirty = part.first < part.end;
    return true;
}

bool tri__pageheap_alloc_part(struct pageheap *ph, size_t npages, size_t *first, struct page_part *dirty) {
    if (npages == 0 || npages > ph->max_pages) {
        return false;
    }
    tri__lock_acquire(&ph->lock);
    bool found = find_run(ph, npages, first);
    if (!found && grow(ph, npages)) {
        found = find_run(ph, npages, first);
        check_always(found, "I-PAGE2 the run that growth made room for is there");
    }
    unsigned due = 0;
    if (found) {
        *dirty = mark_used(ph, *first, *first + npages);
        if (npages == 1 || *first == ph->search) {
            ph->search = *first + npages; /* the lowest free page was the run's first */
        }
        due = note_taken(ph, dirty->first == dirty->end);
    }
    tri__lock_release(&ph->lock);
    tell(ph, due, npages);
    return found;
}

/* The word of the bitmaps that a block is made of. */
static struct piece piece_of_block(const struct pageheap *ph, size_t first) {
    struct page_chunk *chunk = chunk_at(ph, first >> CHUNK_SHIFT);
    size_t word = first / 64 % CHUNK_WORDS;
    return (struct piece){&chunk->free[word], &chunk->dirty[word], UINT64_MAX};
}

bool tri__pageheap_take_block(struct pageheap *ph, struct page_block *block) {
    size_t page;
    check_cheap(block->free == 0, "I-PAGE1 a block is filled when it is empty");
    tri__lock_acquire(&ph->lock);
    bool found = find_run(ph, 1, &page) || (grow(ph, 1) && find_run(ph, 1, &page));
    unsigned due = 0;
    if (found) {
        struct piece p = piece_of_block(ph, page);
        *block = (struct page_block){align_down(page, 64), *p.free, *p.dirty};
        *p.free = *p.dirty = 0;
        ph->used_pages += bit_count(block->free);
        ph->dirty_free_pages -= bit_count(block->dirty);
        ph->touched.base[block->first >> CHUNK_SHIFT] = 1;
        raise_high(ph, block->first, block->first + 64);
        due = note_taken(ph, block->dirty != block->free);
        ph->search = block->first + 64; /* the lowest free page lay in here */
        update_summaries(ph, block->first, block->first + 64);
    }
    tri__lock_release(&ph->lock);
    tell(ph, due, 64);
    return found;
}

void tri__pageheap_put_block(struct pageheap *ph, struct page_block *block) {
    if (block->free == 0) return;
    tri__lock_acquire(&ph->lock);
    struct piece p = piece_of_block(ph, block->first);
    check_always((*p.free & block->free) == 0, "I-PAGE1 a page is freed once");
    if (block->first < ph->populated_top) {
        block->dirty = block->free; /* clean, but perhaps in memory */
    }
    *p.free |= block->free;
    *p.dirty |= block->dirty;
    ph->used_pages -= bit_count(block->free);
    if (block->dirty) {
        ph->dirty_free_pages += bit_count(block->dirty);
        ph->dirty_limit = max_size(ph->dirty_limit, block->first + bit_highest(block->dirty) + 1);
        ph->high = max_size(ph->high, ph->dirty_limit);
    }
    ph->search = min_size(ph->search, block->first + bit_lowest(block->free));
    update_summaries(ph, block->first, block->first + 64);
    tri__lock_release(&ph->lock);
    *block = (struct page_block){0, 0, 0};
}

void tri__pageheap_free(struct pageheap *ph, size_t first, size_t npages) {
    tri__lock_acquire(&ph->lock);
    check_always(npages > 0 && first < ph->frontier && npages <= ph->frontier - first,
                 "I-PAGE1 a freed run lies within the pages that were given out");
    mark_free(ph, first, first + npages, true);
    check_cheap(ph->used_pages >= npages, "I-PAGE5 no more pages are freed than were given out");
    ph->used_pages -= npages;
    tri__lock_release(&ph->lock);
}

/* ---- Populating ahead of growth ---- */

/* What was populated and not taken is dirty from now on: it is about to be returned. */
static void settle_populated(struct pageheap *ph) {
    if (populated_pages(ph) > 0) {
        mark_dirty(ph, ph->high, ph->populated_end);
    }
    ph->populated_end = ph->populated_top = 0;
    ph->settled++;
}

/* Lowers `high` as far as the bits say, while nothing is populated. */
static void lower_high(struct pageheap *ph) {
    while (ph->high > 0) {
        size_t word = (ph->high - 1) / 64;
        const struct page_chunk *chunk = chunk_at(ph, word / CHUNK_WORDS);
        uint64_t mask = UINT64_MAX >> (63 - (ph->high - 1) % 64);
        uint64_t held = ~(chunk->free[word % CHUNK_WORDS] & ~chunk->dirty[word % CHUNK_WORDS]) & mask;
        if (held != 0) {
            ph->high = word * 64 + bit_highest(held) + 1;
            return;
        }
        ph->high = word * 64;
    }
}

size_t tri__pageheap_populate(struct pageheap *ph, size_t ahead_pages, size_t slice_pages, bool *working) {
    *working = ph->ops.populate != NULL;
    tri__lock_acquire(&ph->lock);
    if (populated_pages(ph) == 0) {
        lower_high(ph);
        ph->populated_end = ph->high;
    }
    size_t first = ph->populated_end;
    size_t end = min_size(min_size(ph->high + ahead_pages, ph->frontier), first + slice_pages);
    if (!*working || end <= first) {
        tri__lock_release(&ph->lock);
        return 0;
    }
    ph->populated_end = end; /* before it is so: never less than what is in memory */
    ph->populated_top = max_size(ph->populated_top, end);
    uint64_t settled = ph->settled;
    tri__lock_release(&ph->lock);
    *working = ph->ops.populate(ph->ops.context, first, end - first);
    tri__lock_acquire(&ph->lock);
    if (ph->settled != settled) {
        mark_dirty(ph, first, end); /* the scavenger was there in between */
    }
    tri__lock_release(&ph->lock);
    return end - first;
}

void tri__pageheap_set_ahead(struct pageheap *ph, size_t low_pages) {
    tri__lock_acquire(&ph->lock);
    ph->ahead_low = low_pages;
    tri__lock_release(&ph->lock);
}

/* ---- Returning ---- */

/* The highest dirty page below dirty_limit, which it lowers to just above that page. False: there is none. */
static bool find_highest_dirty(struct pageheap *ph, size_t *page) {
    if (ph->dirty_free_pages == 0) {
        ph->dirty_limit = 0;
        return false;
    }
    for (size_t word = ceil_div(ph->dirty_limit, 64); word-- > 0;) {
        uint64_t dirty = chunk_at(ph, word / CHUNK_WORDS)->dirty[word % CHUNK_WORDS];
        if (dirty != 0) {
            *page = word * 64 + bit_highest(dirty);
            ph->dirty_limit = *page + 1;
            return true;
        }
    }
    check_cheap(false, "I-PAGE5 as many dirty pages as counted lie below the dirty limit");
    return false;
}

/* Gives the highest dirty run, of at most `most` pages, out to the scavenger. False: nothing is dirty. */
static bool take_dirty_run(struct pageheap *ph, size_t most, size_t *first, size_t *end) {
    size_t low;
    if (!find_highest_dirty(ph, &low)) {
        return false;
    }
    *end = low + 1;
    while (low > 0 && *end - low < most) {
        const struct page_chunk *chunk = chunk_at(ph, (low - 1) >> CHUNK_SHIFT);
        if (!(chunk->dirty[(low - 1) / 64 % CHUNK_WORDS] >> (low - 1) % 64 & 1)) {
            break;
        }
        low--;
    }
    *first = low;
    mark_used(ph, low, *end);
    ph->dirty_limit = low;
    return true;
}

size_t tri__pageheap_scavenge(struct pageheap *ph, size_t max_pages) {
    size_t returned = 0;
    bool working = true;
    tri__lock_acquire(&ph->lock);
    settle_populated(ph);
    while (working && returned < max_pages) {
        size_t first, end;
        if (!take_dirty_run(ph, min_size(max_pages - returned, SCAVENGE_RUN), &first, &end)) {
            break;
        }
        tri__lock_release(&ph->lock);
        working = ph->ops.decommit(ph->ops.context, first, end - first);
        tri__lock_acquire(&ph->lock);
        ph->used_pages -= end - first;
        mark_free(ph, first, end, !working);
        if (working) {
            returned += end - first;
            ph->returned_pages += end - first;
        }
    }
    tri__lock_release(&ph->lock);
    return returned;
}

static bool is_free_and_clean(const struct page_chunk *chunk) {
    for (size_t word = 0; word < CHUNK_WORDS; word++) {
        if (chunk->free[word] != UINT64_MAX || chunk->dirty[word] != 0) {
            return false;
        }
    }
    return true;
}

size_t tri__pageheap_release(struct pageheap *ph) {
    size_t n = 0;
    if (ph->ops.release == NULL) {
        return 0;
    }
    tri__lock_acquire(&ph->lock);
    settle_populated(ph);
    for (size_t i = 0; i < ph->frontier >> CHUNK_SHIFT; i++) {
        size_t first = i << CHUNK_SHIFT;
        if (!ph->touched.base[i] || !is_free_and_clean(chunk_at(ph, i))) {
            continue;
        }
        mark_used(ph, first, first + CHUNK_PAGES);
        tri__lock_release(&ph->lock);
        ph->ops.release(ph->ops.context, first, CHUNK_PAGES);
        tri__lock_acquire(&ph->lock);
        ph->used_pages -= CHUNK_PAGES;
        mark_free(ph, first, first + CHUNK_PAGES, false);
        ph->touched.base[i] = 0;
        n++;
    }
    tri__lock_release(&ph->lock);
    return n;
}

void tri__pageheap_set_alarm(struct pageheap *ph, size_t npages) {
    tri__lock_acquire(&ph->lock);
    ph->alarm_pages = npages;
    tri__lock_release(&ph->lock);
}
