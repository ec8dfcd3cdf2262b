/* pageheap.h - runs of 8 KiB pages by number: find, give, take back, return to the system (SOURCES S8).
 *
 * Owns: which pages of the reservation are in use, free, or not there yet, and which free pages may hold old bytes.
 * Bitmap chunks of 512 pages under a radix tree of packed (start, max, end) summaries; address-ordered first fit from a
 * search address below which nothing is free. Knows nothing of spans, slots or liveness; works on page numbers, memory
 * is touched only through the two callbacks.
 *
 * Invariants: I-PAGE1 a page is in at most one given-out run. I-PAGE2 every summary equals the one computed from the
 * bits below it. I-PAGE3 no free page lies below the search address. I-PAGE4 a free page that is not dirty reads as
 * zero. I-PAGE5 the counters equal the bits' sums. Lock rank: RANK_PAGEHEAP. */
#ifndef TRI_ALLOC_PAGEHEAP_H
#define TRI_ALLOC_PAGEHEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "alloc/base/lock.h"

enum { PAGE_SHIFT = 13, PAGE_BYTES = 1 << PAGE_SHIFT, CHUNK_PAGES = 512 };

struct pageheap_ops {
    /* Makes the pages [first, first + npages) usable (commits them and their side tables). Called with the page heap's
     * lock held. False: refused, nothing changed. */
    bool (*commit)(void *context, size_t first, size_t npages);
    /* Gives the memory behind free pages back; they read as zero when it returns true. Without the lock. */
    bool (*decommit)(void *context, size_t first, size_t npages);
    void *context;
    /* Pages were given out that were not resident, and pages that are in use or dirty are more than the alarm says.
     * Without the lock, on the thread that takes the pages. NULL: nobody asks. */
    void (*alarm)(void *context, size_t npages);
    /* Gives back what the tables beside the pages take for [first, first + CHUNK_PAGES), none of which is in use; they
     * read as zero then. Without the lock. NULL: there are none. */
    void (*release)(void *context, size_t first, size_t npages);
    /* Puts memory behind free pages that have none yet, zeroed; others may take and write them meanwhile. Without the
     * lock. False: the system does not do that. NULL: nobody asks. */
    bool (*populate)(void *context, size_t first, size_t npages);
    /* Pages that were populated run out (tri__pageheap_set_ahead). Without the lock. NULL: nobody asks. */
    void (*ahead)(void *context);
};

struct pageheap_stats {
    size_t committed_pages;  /* ever made usable */
    size_t used_pages;       /* given out */
    size_t free_pages;       /* committed - used */
    size_t dirty_free_pages; /* free, and perhaps resident: populated ones as well */
    size_t peak_pages;       /* most that were given out at once since tri__pageheap_take_peak */
    uint64_t returned_pages; /* decommitted, ever */
};

struct pageheap;

/* A page heap over page numbers [0, max_pages), grown by `grow_pages` at a time (a multiple of CHUNK_PAGES). Never
 * commits more than max_pages. NULL without memory. */
struct pageheap *tri__pageheap_create(size_t max_pages, size_t grow_pages, const struct pageheap_ops *ops);
void tri__pageheap_destroy(struct pageheap *ph);
/* Its lock, for fork. */
struct lock *tri__pageheap_lock(struct pageheap *ph);

/* A run of npages at the lowest address. *dirty: some page of it may hold old bytes. False: none, and no growth. */
bool tri__pageheap_alloc(struct pageheap *ph, size_t npages, size_t *first, bool *dirty);

/* Pages [first, end). */
struct page_part {
    size_t first, end;
};
/* The same: *dirty reaches from the first dirty page to behind the last one, or is empty. */
bool tri__pageheap_alloc_part(struct pageheap *ph, size_t npages, size_t *first, struct page_part *dirty);

/* Free pages of one aligned group of 64, in the hand of one thread: its pages for small spans (SOURCES S8). */
struct page_block {
    size_t first;         /* page of bit 0 */
    uint64_t free, dirty; /* of those taken: not given on yet; of these: may hold old bytes */
};
enum { BLOCK_RUN_PAGES = 16 }; /* longer runs come from the tree at once */

/* Fills an empty block: every free page of the group that holds the lowest free page. False: none, and no growth. */
bool tri__pageheap_take_block(struct pageheap *ph, struct page_block *block);
/* Takes back what is left in a block, which is empty then; pages that nobody wrote are still clean. */
void tri__pageheap_put_block(struct pageheap *ph, struct page_block *block);
/* Takes a whole run back (as given out). The pages count as dirty. */
void tri__pageheap_free(struct pageheap *ph, size_t first, size_t npages);
/* Returns up to max_pages dirty free pages to the system, highest addresses first, in runs of at most 64 pages at a
 * time without the lock held meanwhile (the run counts as given out for that long). The number of pages returned. */
size_t tri__pageheap_scavenge(struct pageheap *ph, size_t max_pages);

/* Populates a slice of at most slice_pages of what growth will take next: the pages above all that are in use or dirty,
 * no further than ahead_pages beyond them. They stay clean, and count as dirty_free_pages in the statistics. The number
 * of pages; *working becomes false when the system refuses. */
size_t tri__pageheap_populate(struct pageheap *ph, size_t ahead_pages, size_t slice_pages, bool *working);
/* Asks to be told, once, by ops.ahead, when pages without memory are taken and less than low_pages are populated
 * beyond. 0: not to be told. */
void tri__pageheap_set_ahead(struct pageheap *ph, size_t low_pages);

/* Calls ops.release for each chunk that is free, clean and was in use since its last release. The number of chunks;
 * each counts as given out while it is released. */
size_t tri__pageheap_release(struct pageheap *ph);

/* Sets what `ops.alarm` watches: resident pages of the heap, in use and dirty. SIZE_MAX: no alarm. */
void tri__pageheap_set_alarm(struct pageheap *ph, size_t npages);
/* The most pages that were given out at once since the last call. */
size_t tri__pageheap_take_peak(struct pageheap *ph);

void tri__pageheap_get_stats(struct pageheap *ph, struct pageheap_stats *out);
/* True if the page is given out. For verify and tests. */
bool tri__pageheap_in_use(struct pageheap *ph, size_t page);
/* The bitmaps of one chunk, as they are now: pages that are free, and of these such as may be in memory. Pages beyond
 * the last commit are neither. */
void tri__pageheap_get_chunk(struct pageheap *ph, size_t chunk, uint64_t free[CHUNK_PAGES / 64],
                             uint64_t dirty[CHUNK_PAGES / 64]);
/* Bytes of bitmaps and summaries that are in use. */
size_t tri__pageheap_metadata_bytes(struct pageheap *ph);
/* Recomputes everything from the bits (I-PAGE2..5); the number of contradictions, each described through `say`. */
int tri__pageheap_verify(struct pageheap *ph, void (*say)(void *context, const char *text), void *context);

#endif
