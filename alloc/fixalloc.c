/* fixalloc.c - blocks of one size for metadata, carved from 16 KiB chunks (SOURCES S7).
 *
 * Owns: the chunks of one kind of metadata. Does not own: what the blocks mean, nor any clearing: a block is zero at
 * its first use only (the system's memory), so that state which must survive reuse, such as a generation number, does.
 *
 * Invariants:
 * I-FIX1  a chunk goes back to the system only when the allocator ends: a stale pointer reads memory of this kind.
 * I-FIX2  a block is given out, on the free list, or beyond the bump pointer: exactly one of the three.
 * I-FIX3  in_use_bytes is size_bytes times the blocks given out; it is at most mapped_bytes.
 * I-FIX4  blocks are 8-byte aligned; of a multiple of 64 bytes, 64-byte aligned.
 * Only a freed block's first word is written here (the link), and atomically: a stale reader may be looking at it.
 *
 * Lock rank: RANK_FIXALLOC. The first-use callback runs without the lock, on a block that nobody else knows yet. */
#include "alloc/fixalloc.h"

#include <stdbool.h>
#include <stdint.h>

#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/check.h"
#include "alloc/base/os.h"

enum { CHUNK_BYTES = 16384, MAX_BLOCK_BYTES = 8192, CACHE_LINE_BYTES = 64 };

void tri__fixalloc_init(struct fixalloc *fix, size_t size_bytes, const char *name,
                        void (*first_use)(void *context, void *block), void *context) {
    check_always(size_bytes > 0 && size_bytes <= MAX_BLOCK_BYTES, "I-FIX a block has 1 to 8192 bytes");
    *fix = (struct fixalloc){.size_bytes = align_up(size_bytes, 8), .first_use = first_use, .context = context};
    tri__lock_init(&fix->lock, RANK_FIXALLOC, name);
}

void tri__fixalloc_fini(struct fixalloc *fix) {
    void *chunk = fix->chunks;
    while (chunk != NULL) {
        void *next = *(void **)chunk;
        tri__os_release(chunk, CHUNK_BYTES);
        chunk = next;
    }
    tri__lock_fini(&fix->lock);
    fix->chunks = fix->free_list = NULL;
    fix->bump = fix->bump_limit = NULL;
    fix->in_use_bytes = fix->mapped_bytes = 0;
}

/* The chunk's first word is its link; the blocks begin where their alignment allows (I-FIX4). */
static size_t header_bytes_of(const struct fixalloc *fix) {
    return fix->size_bytes % CACHE_LINE_BYTES == 0 ? CACHE_LINE_BYTES : fix->size_bytes % 16 == 0 ? 16 : sizeof(void *);
}

static bool add_chunk(struct fixalloc *fix) {
    char *chunk = tri__os_map(CHUNK_BYTES);
    if (chunk == NULL) {
        return false;
    }
    *(void **)chunk = fix->chunks;
    fix->chunks = chunk;
    fix->bump = chunk + header_bytes_of(fix);
    fix->bump_limit = chunk + CHUNK_BYTES;
    atomic_add_relaxed(&fix->mapped_bytes, (size_t)CHUNK_BYTES); /* partner: readers of statistics */
    return true;
}

static bool bump_has_room(const struct fixalloc *fix) {
    return (size_t)(fix->bump_limit - fix->bump) >= fix->size_bytes;
}

/* A block from the free list or the newest chunk; NULL when both are empty and the system has no memory. */
static void *take_locked(struct fixalloc *fix, bool *first) {
    void *block = fix->free_list;
    *first = block == NULL;
    if (block != NULL) {
        fix->free_list = atomic_load_relaxed((void **)block);
    } else if (bump_has_room(fix) || add_chunk(fix)) {
        block = fix->bump;
        fix->bump += fix->size_bytes;
    } else {
        return NULL;
    }
    atomic_add_relaxed(&fix->in_use_bytes, fix->size_bytes); /* partner: tri__fixalloc_in_use_bytes */
    return block;
}

void *tri__fixalloc_get(struct fixalloc *fix) {
    bool first = false;
    tri__lock_acquire(&fix->lock);
    void *block = take_locked(fix, &first);
    tri__lock_release(&fix->lock);
    if (block != NULL && first && fix->first_use != NULL) {
        fix->first_use(fix->context, block);
    }
    return block;
}

void tri__fixalloc_put(struct fixalloc *fix, void *block) {
    check_always(block != NULL && (uintptr_t)block % 8 == 0, "I-FIX4 a block is 8-byte aligned");
    tri__lock_acquire(&fix->lock);
    check_cheap(block != fix->free_list, "I-FIX2 a block is put back once");
    check_cheap(atomic_load_relaxed(&fix->in_use_bytes) >= fix->size_bytes, "I-FIX3 a block put back was given out");
    atomic_store_relaxed((void **)block, fix->free_list); /* partner: a stale reader, which may see either */
    fix->free_list = block;
    atomic_sub_relaxed(&fix->in_use_bytes, fix->size_bytes); /* partner: tri__fixalloc_in_use_bytes */
    tri__lock_release(&fix->lock);
}

void tri__fixalloc_reset(struct fixalloc *fix) {
    tri__lock_acquire(&fix->lock);
    fix->free_list = NULL;
    fix->bump = fix->bump_limit = NULL;
    atomic_store_relaxed(&fix->in_use_bytes, (size_t)0); /* partner: tri__fixalloc_in_use_bytes */
    for (char *chunk = fix->chunks; chunk != NULL; chunk = *(void **)(void *)chunk)
        for (size_t at = header_bytes_of(fix); at + fix->size_bytes <= CHUNK_BYTES; at += fix->size_bytes) {
            *(void **)(void *)(chunk + at) = fix->free_list;
            fix->free_list = chunk + at;
        }
    tri__lock_release(&fix->lock);
}

size_t tri__fixalloc_in_use_bytes(const struct fixalloc *fix) {
    return atomic_load_relaxed(&fix->in_use_bytes); /* partner: get and put, which write it under the lock */
}
