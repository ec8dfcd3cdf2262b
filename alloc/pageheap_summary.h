/* pageheap_summary.h - free runs within a chunk of 512 pages, and packed summaries of runs over wider ranges.
 *
 * Pure functions on bits and words. A summary of a range of pages is (start, max, end): the length of the free run at
 * its beginning, of the longest one inside it, and of the one at its end. Three numbers of 21 bits in a word; a range
 * of 2^21 pages that is wholly free does not fit and has bit 63 of its own. Zero says "nothing free", which is also how
 * pages that are not there yet look. Inside pageheap*.c only. */
#ifndef TRI_ALLOC_PAGEHEAP_SUMMARY_H
#define TRI_ALLOC_PAGEHEAP_SUMMARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHUNK_WORDS = 512 / 64, SUMMARY_FANOUT = 8, SUMMARY_BITS = 21 };

/* The pages of one chunk, a bit each. All zero: none of them is there yet. */
struct page_chunk {
    uint64_t free[CHUNK_WORDS];  /* 1: committed and not given out */
    uint64_t dirty[CHUNK_WORDS]; /* 1: free, and may hold old bytes */
};

typedef uint64_t page_summary;

/* Unpacked. */
struct page_runs {
    size_t start, max, end;
};

page_summary tri__summary_pack(struct page_runs runs);
struct page_runs tri__summary_unpack(page_summary summary);
/* The summary of SUMMARY_FANOUT neighbouring ranges of part_pages each. */
page_summary tri__summary_merge(const page_summary *parts, size_t part_pages);
page_summary tri__summary_of_chunk(const struct page_chunk *chunk);

/* The lowest free run of at least npages within the chunk, as its first page's index; -1 if there is none. */
int tri__chunk_find(const struct page_chunk *chunk, size_t npages);

#endif
