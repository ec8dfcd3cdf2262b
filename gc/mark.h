/* mark.h - tracing: from entries to marked, scanned objects.
 *
 * Owns: struct marker, the private half of one that traces: the collector's worker, or a mutator (assists, its
 * barrier's grey objects, its root scan). Depth comes from buffers, never from recursion; long arrays go in pieces of
 * 128 KiB; a ring of entries on their way hides the cache misses of marks and objects.
 *
 * Invariants: I-MARK1 an object is scanned by whoever set its mark, or by whoever pops its WORK_MARKED entry. I-MARK2 a
 * marker that is idle holds no buffer with entries and an empty ring. I-MARK3 a precise slot names allocated slots only
 * (checked builds report one that does not: the object was freed under it). */
#ifndef TRI_GC_MARK_H
#define TRI_GC_MARK_H

#include <trigc.h>
#include "alloc/arena.h"
#include "gc/type.h"
#include "gc/work.h"

enum {
    MARK_RING = 16,
    MARK_RING_MASK = 31,
    MARK_PIECE_BYTES = 128 << 10,
    MARK_PIECES = 1024,
    MARK_PART_BYTES = 8 << 10
};

/* How many entries are done between two looks at the clock and at who has nothing to do; with how many words in hand
 * something is given away. */
enum { ENTRIES_A_CLOCK = 64, SHARE_LEAST = 4 };

/* Candidates by page (markpage.c): a bit for each granule in which one lies. */
enum { SET_PAGES = 64 };
#define NO_PAGE SIZE_MAX

struct page_bits {
    size_t page; /* its number, NO_PAGE: none */
    uint64_t bits[PAGE_BIT_WORDS];
};

struct page_set {
    struct page_bits each[SET_PAGES]; /* a page's place is its number modulo SET_PAGES */
    uint8_t used[SET_PAGES];          /* places with a page, the newest last */
    unsigned nused;
    bool on;           /* candidates go by page; else one by one */
    bool downward;     /* pages are visited from their end to their start: turns when a visit leaves something behind */
    unsigned nvisits;  /* in the window that runs */
    uint64_t nobjects; /* marked by them */
    uint64_t nentries; /* done one by one since it was last tried */
    uint64_t patience; /* after how many of those it is tried again */
};

struct marker {
    struct page_set *set; /* NULL: one by one only [owner] */
    tri_heap *heap;       /* [const] */
    struct space *space;  /* [const] */
    struct workbuf *buf;  /* LIFO in hand; may be NULL [owner] */
    unsigned head, tail;  /* of the ring [owner] */
    uintptr_t ring[MARK_RING_MASK + 1];
    uint64_t marked_bytes; /* since last collected by the cycle [owner] */
    uint64_t marked_objects;
    uint64_t scanned_bytes; /* [owner] */
    uint64_t cost_words;    /* looked at in what costs more than an entry does: arrays, traced objects [owner] */
    bool worked;            /* R2: turned grey, popped or handed over since the last answer [owner] */
};

/* Calls visit(context, slot address, decoded reference, kind) for every slot of an object. For checkmark and verify. */
typedef void (*slot_visit_fn)(void *context, const tri_word *slot, uintptr_t ref, enum slot_kind kind);

/* The visitor of trace and root callbacks. */
struct tri_visitor {
    struct marker *marker;
    const struct type_desc *desc; /* of the traced object, NULL for roots */
    size_t nvisited;
    bool shade;         /* mark at once what it visits: outside a scan handshake, so that R2 is exact */
    slot_visit_fn each; /* checkmark: called for each slot instead */
    void *context;
};

/* set: for one that marks much; NULL for the others. */
void tri__marker_init(struct marker *marker, tri_heap *heap, struct page_set *set);
void tri__page_set_init(struct page_set *set);

/* Adds a word of a precise slot as a candidate if it points into the heap. */
void tri__marker_candidate(struct marker *marker, uintptr_t addr);
/* Adds addresses inside the heap's range, each in an object that is there. */
void tri__marker_candidates(struct marker *marker, const uintptr_t *addrs, size_t n);
/* Adds a conservative word (and the address before it, if it may point past an object's end): validated by allocation
 * bits. */
void tri__marker_conservative(struct marker *marker, uintptr_t word);
/* stackscan.c: the words of a native stack, read conservatively. */
void tri__marker_native_words(struct marker *marker, const tri_word *words, size_t n);
/* A place in a chain of frames; `frame` NULL: its end. */
struct frame_cursor {
    const tri_frame *frame;
    size_t slot;
};
/* stackscan.c: the next nslots slots, or fewer, as candidates; moves on. */
void tri__marker_frames(struct marker *marker, struct frame_cursor *at, size_t nslots);
/* Shades what words name (enc NULL: plain pointers): for roots that are added, removed or change hands while armed. */
void tri__marker_shade_words(struct marker *marker, const tri_word *p, const tri_word *end, const tri_enc *enc);
/* Shades at once: marks and queues. True if the object was unmarked. */
bool tri__marker_shade(struct marker *marker, uintptr_t addr);

/* Traces until there is nothing left in hand or in the list, or until deadline_ns (0: none) has passed. True: nothing
 * is left. */
bool tri__marker_drain(struct marker *marker, uint64_t deadline_ns);
/* Goes on with a buffer that it was given; it holds nothing. */
void tri__marker_take(struct marker *marker, struct workbuf *buf);
/* The same, telling `marked` of each object that it scans for the first time. */
bool tri__marker_drain_told(struct marker *marker, uint64_t deadline_ns, void (*marked)(void *context, uintptr_t addr),
                            void *context);
/* Hands all grey work over to the heap's list. True if there was any. */
bool tri__marker_hand_over(struct marker *marker);
/* True if it holds nothing (I-MARK2). */
bool tri__marker_is_idle(const struct marker *marker);
/* Scans every marked object of the spans with one of these flags (SPAN_RESCAN_*): after running out of memory (R19);
 * in a stop, what was allocated black. */
void tri__marker_rescan(struct marker *marker, uint8_t why);

void tri__mark_each_slot(struct space *space, const struct slot *slot, slot_visit_fn visit, void *context);
/* Bytes of a slot: large objects from their span. */
size_t tri__slot_bytes(const struct space *space, const struct slot *slot);

#endif
