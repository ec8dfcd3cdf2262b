/* stackcopy.c - the chunks behind copies of deep stacks, filling them, and shading what they hold; see stackcopy.h.
 *
 * Why a copy will do (docs/design.md, "Deep stacks"): its words are those that the handshake would shade, taken at the
 * same moment; what is reachable from them stays so, because the barrier shades each slot that is overwritten. Until
 * its last word is shaded no round may close (tri__work_is_empty counts copies).
 *
 * Memory is taken by whoever runs the cycle, between H2 and H3, from what the threads told in H1, so that no thread
 * meets a page fault or the system inside its scan. Without a chunk a stack is scanned in place (R19). Copies add up: a
 * second copy of a stack does not replace the first. */
#include "gc/stackcopy.h"
#include <string.h>
#include "alloc/base/check.h"
#include "gc/heap.h"

enum {
    COPY_CHUNK_BYTES = 64 << 10,
    COPY_WORDS = (COPY_CHUNK_BYTES - 9 * 8) / 8,
    SEGMENT_WORDS = 5,    /* number of words, encoding */
    PIECE_WORDS = 256,    /* shaded between two looks at the clock */
    POPULATE_CHUNKS = 16, /* at once: the system's lock on the address space is held meanwhile */
    MOST_BYTES = 64 << 20 /* of copies, or a quarter of the heap's goal */
};

struct stackcopy {
    struct stackcopy *next;
    size_t nwords; /* written */
    size_t at;     /* the next one to be read */
    size_t left;   /* of the segment that is being read */
    tri_enc enc;   /* its encoding; ptr_mask 0: conservative words */
    size_t unused;
    uintptr_t words[COPY_WORDS];
};
_Static_assert(sizeof(struct stackcopy) == COPY_CHUNK_BYTES, "a chunk is 64 KiB");

void tri__copies_init(tri_heap *heap) {
    tri__lock_init(&heap->copies.lock, RANK_COPIES, "copies of stacks");
}

static void release_list(struct stackcopy *list) {
    while (list) {
        struct stackcopy *next = list->next;
        tri__os_release(list, COPY_CHUNK_BYTES);
        list = next;
    }
}

void tri__copies_fini(tri_heap *heap) {
    release_list(heap->copies.ready);
    release_list(heap->copies.unshaded);
    tri__lock_fini(&heap->copies.lock);
}

size_t tri__copies_bytes(const tri_heap *heap) {
    return atomic_load_relaxed(&heap->copies.nchunks) * COPY_CHUNK_BYTES; /* a counter */
}

/* ---- memory, ahead of the handshake ---------------------------------------------------------------------------- */

size_t tri__copies_from_bytes(tri_heap *heap) {
    bool always = TRI_CHECKS >= 1 && atomic_load_relaxed(&heap->stress.copy); /* a test's switch */
    return always ? 8 : COPY_FROM_BYTES;
}

static size_t chunks_for(size_t stack_bytes) {
    return stack_bytes / ((COPY_WORDS - SEGMENT_WORDS) * 8) + 1;
}

void tri__copies_ask(tri_heap *heap, size_t stack_bytes) {
    if (TRI_LIKELY(stack_bytes < tri__copies_from_bytes(heap))) return;
    /* It may grow until H3. */
    atomic_add_relaxed(&heap->copies.asked, chunks_for(stack_bytes + stack_bytes / 4)); /* read after the handshake */
}

/* Touches memory that the system does not populate when asked. */
static void populate(char *memory, size_t size_bytes) {
    if (tri__os_populate(memory, size_bytes)) return;
    for (size_t i = 0; i < size_bytes; i += tri__os_page_size()) *(volatile char *)(memory + i) = 0;
}

/* n chunks more; false when the system refuses: stacks are scanned in place then (R19). */
static bool grow(struct copies *copies, size_t n) {
    char *memory = tri__os_map(n * COPY_CHUNK_BYTES);
    if (!memory) return false;
    populate(memory, n * COPY_CHUNK_BYTES);
    tri__lock_acquire(&copies->lock);
    for (size_t i = n; i-- > 0;) {
        struct stackcopy *chunk = (struct stackcopy *)(void *)(memory + i * COPY_CHUNK_BYTES);
        chunk->next = copies->ready;
        copies->ready = chunk;
    }
    copies->nready += n;
    atomic_store_relaxed(&copies->nchunks, copies->nchunks + n); /* a counter */
    tri__lock_release(&copies->lock);
    return true;
}

/* Down to `keep` chunks that are ready. */
static void shrink(struct copies *copies, size_t keep) {
    struct stackcopy *gone = NULL;
    tri__lock_acquire(&copies->lock);
    while (copies->nready > keep) {
        struct stackcopy *chunk = copies->ready;
        copies->ready = chunk->next;
        copies->nready--;
        atomic_store_relaxed(&copies->nchunks, copies->nchunks - 1); /* a counter */
        chunk->next = gone;
        gone = chunk;
    }
    tri__lock_release(&copies->lock);
    release_list(gone);
}

void tri__copies_trim(tri_heap *heap) {
    shrink(&heap->copies, 0);
}

static size_t ready_chunks(struct copies *copies) {
    tri__lock_acquire(&copies->lock);
    size_t n = copies->nready;
    check_cheap(!copies->unshaded, "I-COPY1: no copy of the last cycle is left");
    tri__lock_release(&copies->lock);
    return n;
}

bool tri__copies_prepare(tri_heap *heap, uint64_t deadline_ns) {
    struct copies *copies = &heap->copies;
    size_t piece = deadline_ns == UINT64_MAX ? POPULATE_CHUNKS : 1, keep = 0, nready;
    size_t deep = min_size(atomic_load_relaxed(&heap->roots.deep_bytes), MOST_BYTES / 8); /* a hint */
    size_t asked = atomic_load_relaxed(&copies->asked) + (deep ? chunks_for(deep) : 0);   /* after H1's answers */
    size_t most = max_size(MOST_BYTES, atomic_load_relaxed(&heap->goal_bytes) / 4) / COPY_CHUNK_BYTES;
    copies->recent[heap->cycle_number % COPY_CYCLES] = asked = min_size(asked, most);
    for (int i = 0; i < COPY_CYCLES; i++) keep = max_size(keep, copies->recent[i]);
    while ((nready = ready_chunks(copies)) < asked && grow(copies, min_size(asked - nready, piece)))
        if (heap_is_late(heap, deadline_ns)) return false;
    if (nready > keep + keep / 4) shrink(copies, keep);
    atomic_store_relaxed(&copies->asked, 0); /* until the next H1 */
    return true;
}

void tri__copies_reset(tri_heap *heap) {
    struct copies *copies = &heap->copies;
    tri__lock_acquire(&copies->lock);
    while (copies->unshaded) {
        struct stackcopy *chunk = copies->unshaded;
        copies->unshaded = chunk->next;
        chunk->next = copies->ready;
        copies->ready = chunk;
        copies->nready++;
    }
    atomic_store_relaxed(&copies->nchunks, copies->nready); /* a counter */
    atomic_store_relaxed(&copies->asked, (size_t)0);        /* no thread has been asked */
    tri__lock_release(&copies->lock);
}

/* ---- filling --------------------------------------------------------------------------------------------------- */

void tri__copying_begin(struct copying *c, tri_heap *heap, size_t stack_bytes) {
    *c = (struct copying){.heap = heap};
    if (TRI_LIKELY(stack_bytes < tri__copies_from_bytes(heap))) return;
    if (atomic_load_relaxed(&heap->phase) == PHASE_FLUSH && heap->nstops > 0) return; /* again, in a stop (mode.c) */
    /* Relaxed: the phase was written before the post that this answers, or by who runs the cycle. */
    check_cheap(atomic_load_relaxed(&heap->phase) == PHASE_SCAN, "I-COPY1: copies are taken in H3 and before marking");
    struct copies *copies = &heap->copies;
    tri__lock_acquire(&copies->lock);
    for (size_t n = chunks_for(stack_bytes); n > 0 && copies->ready; n--) {
        struct stackcopy *chunk = copies->ready;
        copies->ready = chunk->next;
        copies->nready--;
        chunk->next = c->spare;
        c->spare = chunk;
    }
    tri__lock_release(&copies->lock);
}

/* The next chunk, empty. False when there is none left. */
static bool next_chunk(struct copying *c) {
    struct stackcopy *chunk = c->spare;
    c->segment = NULL;
    if (!chunk) return false;
    c->spare = chunk->next;
    chunk->nwords = chunk->at = chunk->left = 0;
    chunk->next = c->filled;
    c->filled = chunk;
    c->nfilled++;
    return true;
}

static const tri_enc conservative = {0};

/* Room in an open segment of this encoding; 0 when the chunks are used up. */
static size_t open_segment(struct copying *c, const tri_enc *enc) {
    struct stackcopy *chunk = c->filled;
    if (c->segment && chunk->nwords < COPY_WORDS && memcmp(c->segment + 1, enc, sizeof *enc) == 0)
        return COPY_WORDS - chunk->nwords;
    if (!chunk || chunk->nwords + SEGMENT_WORDS >= COPY_WORDS) {
        if (!next_chunk(c)) return 0;
        chunk = c->filled;
    }
    c->segment = &chunk->words[chunk->nwords];
    c->segment[0] = 0;
    memcpy(c->segment + 1, enc, sizeof *enc);
    chunk->nwords += SEGMENT_WORDS;
    return COPY_WORDS - chunk->nwords;
}

/* A native stack: other frames' redzones, and races with what a blocking region's function writes into frames above
 * it, are none of a sanitizer's business. */
static __attribute__((no_sanitize("address", "thread"), noinline)) void copy_native(uintptr_t *to, const tri_word *from,
                                                                                    size_t n) {
    const volatile uintptr_t *p = (const volatile uintptr_t *)(uintptr_t)from;
    for (size_t i = 0; i < n; i++) to[i] = p[i];
}

size_t tri__copying_words(struct copying *c, const tri_word *p, size_t n, const tri_enc *enc) {
    size_t done = 0, room;
    if (TRI_LIKELY(!c->filled && !c->spare)) return 0;
    while (done < n && (room = open_segment(c, enc ? enc : &conservative)) > 0) {
        struct stackcopy *chunk = c->filled;
        size_t k = min_size(room, n - done);
        if (enc)
            memcpy(&chunk->words[chunk->nwords], p + done, k * 8);
        else
            copy_native(&chunk->words[chunk->nwords], p + done, k);
        chunk->nwords += k;
        c->segment[0] += k;
        done += k;
    }
    return done;
}

/* Frames that fit into one chunk, until one does not: a long chain of small ones is what a deep recursion leaves. */
static const tri_frame *copy_small_frames(struct copying *c, const tri_frame *f, size_t room) {
    struct stackcopy *chunk = c->filled;
    uintptr_t *to = &chunk->words[chunk->nwords], *end = to + room, *p = to;
    for (; f && f->nslots <= (size_t)(end - p); f = f->prev)
        for (size_t i = 0; i < f->nslots; i++) *p++ = (uintptr_t)f->slots[i];
    chunk->nwords += (size_t)(p - to);
    c->segment[0] += (size_t)(p - to);
    return f;
}

void tri__copying_frames(struct copying *c, struct frame_cursor *at) {
    static const tri_enc plain = {0, 0, ~0ull, ~0ull};
    size_t room;
    if (TRI_LIKELY(!c->filled && !c->spare)) return;
    while (at->frame && (room = open_segment(c, &plain)) > 0) {
        at->frame = copy_small_frames(c, at->frame, room);
        if (!at->frame) return;
        at->slot = tri__copying_words(c, (const tri_word *)(const void *)at->frame->slots, at->frame->nslots, &plain);
        if (at->slot < at->frame->nslots) return;
        *at = (struct frame_cursor){at->frame->prev, 0};
    }
}

/* A list and its last chunk onto another. */
static void put_list(struct stackcopy **to, struct stackcopy *list) {
    if (!list) return;
    struct stackcopy *last = list;
    while (last->next) last = last->next;
    last->next = *to;
    *to = list;
}

void tri__copying_end(struct copying *c) {
    if (TRI_LIKELY(!c->filled && !c->spare)) return;
    struct copies *copies = &c->heap->copies;
    size_t nspare = 0;
    for (const struct stackcopy *s = c->spare; s; s = s->next) nspare++;
    if (heap_fault(c->heap, FAULT_LOSE_COPY))
        for (struct stackcopy *s = c->filled; s; s = s->next) s->nwords = 0;
    tri__lock_acquire(&copies->lock);
    put_list(&copies->unshaded, c->filled);
    put_list(&copies->ready, c->spare);
    copies->nready += nspare;
    copies->ncopied += c->nfilled;
    size_t counted = heap_fault(c->heap, FAULT_COPY_UNCOUNTED) ? 0 : c->nfilled;
    atomic_store_release(&c->heap->work.ncopies, c->heap->work.ncopies + counted); /* pairs with work_is_empty */
    tri__lock_release(&copies->lock);
}

/* ---- shading --------------------------------------------------------------------------------------------------- */

/* Words of one segment, judged now, not when they were copied: nothing is freed meanwhile and no page leaves a span
 * (R13); a slot that was free then and is an object now was born black, or is queued like one on a grey stack (R4). */
static void shade_words(struct marker *mk, const tri_enc *enc, const uintptr_t *p, size_t n) {
    if (enc->ptr_mask == 0) {
        for (size_t i = 0; i < n; i++) tri__marker_conservative(mk, p[i]);
        return;
    }
    tri_enc e = *enc;
    for (size_t i = 0; i < n; i++) {
        uintptr_t ref = enc_decode(&e, p[i]);
        if (ref) tri__marker_candidate(mk, ref);
    }
}

/* False when the chunk is done. */
static bool shade_piece(struct marker *mk, struct stackcopy *chunk) {
    size_t todo = PIECE_WORDS;
    while (todo > 0 && chunk->at < chunk->nwords) {
        if (chunk->left == 0) {
            chunk->left = chunk->words[chunk->at];
            memcpy(&chunk->enc, &chunk->words[chunk->at + 1], sizeof chunk->enc);
            chunk->at += SEGMENT_WORDS;
        }
        size_t k = min_size(todo, chunk->left);
        shade_words(mk, &chunk->enc, &chunk->words[chunk->at], k);
        mk->scanned_bytes += k * 8;
        mk->cost_words += k * 4; /* many name objects that are looked up */
        chunk->at += k;
        chunk->left -= k;
        todo -= k;
    }
    return chunk->at < chunk->nwords;
}

bool tri__copies_shade(struct marker *mk) {
    struct work *work = &mk->heap->work;
    struct copies *copies = &mk->heap->copies;
    if (TRI_LIKELY(atomic_load_acquire(&work->ncopies) == 0)) return false; /* pairs with copying_end */
    tri__lock_acquire(&copies->lock);
    struct stackcopy *chunk = copies->unshaded;
    if (chunk) {
        copies->unshaded = chunk->next;
        atomic_store_release(&work->ncopies, work->ncopies - 1); /* pairs with work_is_empty: in hand, like a buffer */
    }
    tri__lock_release(&copies->lock);
    if (!chunk) return false;
    mk->worked = true; /* R2: popped */
    bool more = shade_piece(mk, chunk);
    tri__lock_acquire(&copies->lock);
    struct stackcopy **to = more ? &copies->unshaded : &copies->ready;
    chunk->next = *to;
    *to = chunk;
    if (more)
        atomic_store_release(&work->ncopies, work->ncopies + 1); /* pairs with work_is_empty */
    else
        copies->nready++;
    tri__lock_release(&copies->lock);
    return true;
}

bool tri__copies_are_shaded(tri_heap *heap) {
    tri__lock_acquire(&heap->copies.lock);
    bool shaded = !heap->copies.unshaded;
    tri__lock_release(&heap->copies.lock);
    return shaded;
}
