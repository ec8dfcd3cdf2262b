/* heapmap.c - tri_dump_heap_map: what each page of the heap is, as text.
 *
 * Owns nothing. A look from the side while everything runs: page entries by acquire (I-ARENA2), the bits of objects by
 * relaxed loads, the page heap's bitmaps a chunk at a time. It touches no span object, since one may go meanwhile. So a
 * line was true when its page was looked at, and two lines need not fit together.
 * Lock rank: RANK_PAGEHEAP for a chunk's bitmaps; nothing is held while it writes. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "gc/error.h"
#include "gc/heap.h"

enum { DUMP_TEXT_BYTES = 8192, DUMP_LINE_BYTES = 96, DUMP_WORDS = CHUNK_PAGES / 64 };

/* Adjacent pages of these states are one line; a span or a large object is a line of its own. */
enum dump_state { DUMP_NOTHING = 0, DUMP_FREE, DUMP_RETURNED, DUMP_TAKEN, DUMP_MANUAL };
static const char *const dump_names[] = {"", "free", "returned", "taken", "manual"};

struct dump {
    const struct space *space;
    struct pageheap *pages;
    enum dump_state state; /* of the run that ends where the walk is */
    size_t first;          /* of that run */
    size_t chunk;          /* whose bitmaps these are */
    uint64_t free[DUMP_WORDS], dirty[DUMP_WORDS];
    int fd, error;
    size_t nbytes;
    char text[DUMP_TEXT_BYTES];
};

static void dump_flush(struct dump *d) {
    for (size_t at = 0; at < d->nbytes && !d->error;) {
        ssize_t n = write(d->fd, d->text + at, d->nbytes - at);
        if (n > 0) at += (size_t)n;
        if (n < 0 && errno != EINTR) d->error = errno;
    }
    d->nbytes = 0;
}

__attribute__((format(printf, 2, 3))) static void dump_line(struct dump *d, const char *format, ...) {
    va_list args;
    if (d->nbytes + DUMP_LINE_BYTES > sizeof d->text) dump_flush(d);
    va_start(args, format);
    d->nbytes += (size_t)vsnprintf(d->text + d->nbytes, DUMP_LINE_BYTES, format, args);
    va_end(args);
}

/* The run that ends before `page` becomes a line; one of `state` begins there. */
static void dump_switch(struct dump *d, size_t page, enum dump_state state) {
    if (d->state == state && state != DUMP_NOTHING) return;
    if (d->state != DUMP_NOTHING) dump_line(d, "%zu %zu %s\n", d->first, page - d->first, dump_names[d->state]);
    d->state = state;
    d->first = page;
}

/* Of a page without a span: the page heap's, or in somebody's hands. */
static enum dump_state state_without_span(struct dump *d, size_t page) {
    if (page / CHUNK_PAGES != d->chunk) {
        d->chunk = page / CHUNK_PAGES;
        tri__pageheap_get_chunk(d->pages, d->chunk, d->free, d->dirty);
    }
    uint64_t bit = 1ull << page % 64;
    size_t word = page % CHUNK_PAGES / 64;
    if (!(d->free[word] & bit)) return DUMP_TAKEN;
    return d->dirty[word] & bit ? DUMP_FREE : DUMP_RETURNED;
}

/* Allocation bits of a span, holes included. */
static uint32_t count_slots(const struct space *space, uint64_t shape, size_t page, size_t npages) {
    uint32_t n = 0;
    if (shape_kind(shape) == PAGE_TINY) {
        const uint64_t *bits = (const uint64_t *)(space_page_addr(space, page + 1) - TINY_BITS_BYTES);
        for (size_t i = 0; i < TINY_BITS_BYTES / sizeof *bits; i++) n += bit_count(atomic_load_relaxed(&bits[i]));
        return n;
    }
    for (size_t i = page * PAGE_BIT_WORDS; i < (page + npages) * PAGE_BIT_WORDS; i++)
        n += bit_count(atomic_load_relaxed(&space->allocs[i])); /* a count, and it may change meanwhile */
    return n;
}

/* A span of small objects that begins at `page`; its pages. */
static size_t dump_small(struct dump *d, size_t page, uint64_t shape, uint64_t place) {
    size_t npages = tri__size_classes[shape_class(shape)].npages, distance = place >> 32 & 0xffff;
    if (distance > 0)
        npages = distance < npages ? npages - distance : 1; /* it was made after its first page was passed */
    uint32_t nslots = (uint32_t)(place >> 48), used = count_slots(d->space, shape, page, npages);
    dump_switch(d, page, DUMP_NOTHING);
    dump_line(d, "%zu %zu small %u %u\n", page, npages, used < nslots ? used : nslots, nslots);
    return npages;
}

/* A large object that begins at `page`: as far as pages follow whose entries lead back to it. */
static size_t dump_large(struct dump *d, size_t page, size_t end) {
    size_t npages = 1;
    for (; page + npages < end; npages++) {
        const struct page_entry *entry = &d->space->pages[page + npages];
        if (shape_kind(atomic_load_acquire(&entry->shape)) != PAGE_LARGE) break; /* pairs with span_publish */
        if (atomic_load_relaxed(&entry->place) >> 32 != npages) break;           /* ordered by the acquire */
    }
    dump_switch(d, page, DUMP_NOTHING);
    dump_line(d, "%zu %zu large\n", page, npages);
    return npages;
}

/* The line or the run that a page belongs to; how many pages were looked at. */
static size_t dump_page(struct dump *d, size_t page, size_t end) {
    const struct page_entry *entry = &d->space->pages[page];
    uint64_t shape = atomic_load_acquire(&entry->shape); /* pairs with span_publish's release (I-ARENA2) */
    uint64_t place = atomic_load_relaxed(&entry->place); /* ordered by the acquire */
    switch (shape_kind(shape)) {
    case PAGE_NONE: dump_switch(d, page, state_without_span(d, page)); return 1;
    case PAGE_MANUAL: dump_switch(d, page, DUMP_MANUAL); return 1;
    case PAGE_LARGE: return dump_large(d, page, end);
    default: return dump_small(d, page, shape, place);
    }
}

int tri_dump_heap_map(tri_heap *heap, int fd) {
    if (!heap) return tri__error(TRI_EINVAL, "tri_dump_heap_map", "heap is NULL");
    if (tri__callback_calls(heap, "tri_dump_heap_map")) return TRI_ESTATE;
    NO_SAFEPOINT("tri_dump_heap_map");
    struct dump d = {.space = &heap->mem.space, .pages = heap->mem.pages, .chunk = SIZE_MAX, .fd = fd};
    size_t end = atomic_load_acquire(&d.space->committed_pages), page = 0; /* pairs with space_commit */
    while (page < end && !d.error) page += dump_page(&d, page, end);
    dump_switch(&d, page, DUMP_NOTHING);
    dump_flush(&d);
    if (!d.error) return TRI_OK;
    return tri__error(TRI_EINVAL, "tri_dump_heap_map", "file descriptor %d cannot be written: %s", fd,
                      strerror(d.error));
}
