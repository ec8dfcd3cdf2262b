/* fixalloc.h - fixed-size metadata from 16 KiB chunks (SOURCES S7): a free list threaded through the blocks, bytes in
 * use, a callback at a block's first use. Memory is returned only when the allocator ends, so that a reader that holds
 * a stale pointer to a freed block still reads memory of this kind (I-FIX1). */
#ifndef TRI_ALLOC_FIXALLOC_H
#define TRI_ALLOC_FIXALLOC_H

#include <stddef.h>
#include "alloc/base/lock.h"

struct fixalloc {
    struct lock lock;                              /* RANK_FIXALLOC */
    size_t size_bytes;                             /* of a block, multiple of 8 [const] */
    void (*first_use)(void *context, void *block); /* may be NULL [const] */
    void *context;                                 /* [const] */
    void *free_list;                               /* [lock] */
    char *bump, *bump_limit;                       /* rest of the newest chunk [lock] */
    void *chunks;                                  /* list through the chunks' first words [lock] */
    size_t in_use_bytes;                           /* [atomic, written under lock] */
    size_t mapped_bytes;                           /* [atomic, written under lock] */
};

/* size_bytes: 8 to 8 KiB, rounded up to 8 (blocks of a multiple of 64 bytes are 64-byte aligned). */
void tri__fixalloc_init(struct fixalloc *fix, size_t size_bytes, const char *name,
                        void (*first_use)(void *context, void *block), void *context);
void tri__fixalloc_fini(struct fixalloc *fix);
/* Every block counts as free from here on. Only where nobody has one that he uses. */
void tri__fixalloc_reset(struct fixalloc *fix);
/* A block; zeroed at its first use only, otherwise as it was freed (but for its first word). NULL without memory. */
void *tri__fixalloc_get(struct fixalloc *fix);
void tri__fixalloc_put(struct fixalloc *fix, void *block);
size_t tri__fixalloc_in_use_bytes(const struct fixalloc *fix);

#endif
