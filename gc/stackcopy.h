/* stackcopy.h - copies of deep stacks: what a scan handshake takes instead of shading them there and then.
 *
 * A copy lies in chunks of 64 KiB, which the collector has put into memory before the handshake. Once it is taken, its
 * thread runs on; the collector and assists shade the words of the copy beside it, and a chunk that is not shaded yet
 * is grey work. Words lie in segments, each of one encoding.
 *
 * Invariants: I-COPY1 a copy is taken between the post of H3 and the end of the scan of suspended stacks, and no round
 * closes while one is unshaded (model: M-COPY). I-COPY2 a chunk is in one place: ready, in the hand of who fills or
 * shades it, or unshaded. I-COPY3 a copy belongs to the heap, not to the thread whose stack it was. Lock rank:
 * RANK_COPIES (62); nothing is taken inside. */
#ifndef TRI_GC_STACKCOPY_H
#define TRI_GC_STACKCOPY_H

#include <trigc.h>
#include "alloc/base/lock.h"

/* Stacks of a thread that are smaller together are scanned in place. */
enum { COPY_CYCLES = 8, COPY_FROM_BYTES = 32 << 10 };

struct marker;
struct stackcopy;
struct frame_cursor;

struct copies {
    struct lock lock;
    struct stackcopy *ready;    /* empty, and in memory [lock] */
    struct stackcopy *unshaded; /* counted in heap->work.ncopies [lock] */
    size_t nready;              /* [lock] */
    size_t nchunks;             /* wherever they are [atomic, written under lock] */
    size_t asked;               /* by the threads' answers to H1 of this cycle [atomic] */
    size_t recent[COPY_CYCLES]; /* what the last cycles asked for [who runs cycles] */
    uint64_t ncopied;           /* chunks filled, ever [lock] */
};

/* One scan that copies: the chunks that it has. */
struct copying {
    tri_heap *heap;
    struct stackcopy *filled, *spare; /* the one in hand is the first of `filled` */
    size_t nfilled;
    uintptr_t *segment; /* that is open in it, NULL: none */
};

void tri__copies_init(tri_heap *heap);
void tri__copies_fini(tri_heap *heap);
/* A thread whose stacks are that large will have to be scanned: noted until the next prepare. Any thread. */
void tri__copies_ask(tri_heap *heap, size_t stack_bytes);
/* Puts what was asked for into memory, and gives back what no cycle needed lately. Whoever runs the cycle, before H3.
 * False: the deadline passed, call it again. */
bool tri__copies_prepare(tri_heap *heap, uint64_t deadline_ns);
/* Gives back all that is ready. Any thread. */
void tri__copies_trim(tri_heap *heap);
/* No copy is unshaded; chunks in somebody's hand are lost (fork). */
void tri__copies_reset(tri_heap *heap);
/* Of all chunks. */
size_t tri__copies_bytes(const tri_heap *heap);
/* From which size on stacks are copied: COPY_FROM_BYTES, but for a test's switch. */
size_t tri__copies_from_bytes(tri_heap *heap);

/* Takes chunks for stacks of that size in all; none if they are small, or none are ready: then nothing is copied. */
void tri__copying_begin(struct copying *copying, tri_heap *heap, size_t stack_bytes);
/* Copies n words, read as `enc` says (NULL: conservatively). How many were copied: the rest is the caller's to scan. */
size_t tri__copying_words(struct copying *copying, const tri_word *p, size_t n, const tri_enc *enc);
/* The same for the slots of frames, from `at` on, which moves to the first that is not copied. */
void tri__copying_frames(struct copying *copying, struct frame_cursor *at);
/* The copy is grey work from here on. */
void tri__copying_end(struct copying *copying);

/* Shades a piece of some copy into the marker (model: M-COPY). False when there was none. */
bool tri__copies_shade(struct marker *marker);
/* True if no copy is unshaded, whatever the counter says. */
bool tri__copies_are_shaded(tri_heap *heap);

#endif
