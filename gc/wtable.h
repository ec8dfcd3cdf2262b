/* wtable.h - hash tables by the address of an object, in which no call has to do all the work for the others: see
 * wtable.c. */
#ifndef TRI_GC_WTABLE_H
#define TRI_GC_WTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "alloc/fixalloc.h"

/* From the start of an object to a word. */
struct wentry {
    uintptr_t key; /* 0: free */
    uint64_t value;
};

enum { WBUCKET_ENTRIES = 3, WTABLE_BLOCK_BYTES = 4096, WTABLE_FIRST_BYTES = 256 };

/* A cache line. */
struct wbucket {
    struct wentry at[WBUCKET_ENTRIES];
    struct wbucket *more; /* what did not fit */
    uint64_t unused;
};

/* All of it under its owner's lock. */
struct wtable {
    void *root;      /* a block of buckets, or the top of a tree of blocks of pointers */
    uint32_t height; /* levels of pointers above the buckets */
    size_t nbuckets; /* in use */
    size_t nroom;    /* that there are blocks for */
    size_t n;        /* entries */
};

/* Where a look at all buckets comes to next. Entries only move ahead of it (I-WTAB2). */
struct wcursor {
    size_t bucket;
    size_t place; /* of a line in it, in entries */
};

/* The hash of an address; a bijection. */
uint64_t tri__wtable_hash(uintptr_t key);
/* The key's entry, or NULL. */
struct wentry *tri__wtable_find(const struct wtable *t, uintptr_t key);
/* Adds a key that is not in. `more`: of struct wbucket. False: no memory; nothing has changed. */
bool tri__wtable_add(struct wtable *t, struct fixalloc *more, uintptr_t key, uint64_t value);
void tri__wtable_remove(struct wtable *t, struct fixalloc *more, struct wentry *e);

/* Bytes of a zeroed block that the table would grow by, or 0. It works without, but slower and slower. */
size_t tri__wtable_wants(const struct wtable *t);
/* Gives it one; returns one that is free now, perhaps the same, or NULL. */
void *tri__wtable_give(struct wtable *t, void *block, size_t size_bytes);
/* A table with far fewer entries than buckets loses up to `nbuckets` of these; between two looks at it (I-WTAB2).
 * False: there is no more to lose. */
bool tri__wtable_contract(struct wtable *t, struct fixalloc *more, size_t nbuckets);
/* Drops the entries of the last `nbuckets` buckets, and the buckets. */
void tri__wtable_drop(struct wtable *t, struct fixalloc *more, size_t nbuckets);
/* A block that the table needs no more, to be freed, or NULL: there is none. */
void *tri__wtable_take_spare(struct wtable *t);

/* Copies up to `max` entries (at least a line's) from a cursor on, which moves behind them; bucket == nbuckets: that
 * was the end. Looks at no more than `max` buckets. */
size_t tri__wtable_copy(const struct wtable *t, struct wcursor *at, struct wentry *out, size_t max);
/* The entry that comes next in the order of reversed hashes, from *position on, which moves behind it; at most
 * `nbuckets` are looked at. 1: *out is it; 0: not yet; -1: there are no more. */
int tri__wtable_next(const struct wtable *t, uint64_t *position, struct wentry *out, size_t nbuckets);

/* Says what contradicts itself. */
void tri__wtable_verify(const struct wtable *t, void (*say)(void *context, const char *text), void *context);

#endif
