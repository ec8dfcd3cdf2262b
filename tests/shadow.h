/*
 * shadow.h: a graph beside the heap. Every object that the property test allocates has an entry here, in malloc'd
 * memory, with its address, its type, the words that its slots must hold and, by number, the objects they name. Objects
 * carry their number and a checksum in their first word, so whatever a thread reads out of the heap can be held against
 * the entry at once: an object that was freed too early shows another word, or the wrong entry.
 *
 * Owns: the shapes of objects (which words are slots, of which kind), the table of entries, encoding and decoding of
 * slot words, and the comparison of the whole heap with the table (shadow_check). Does not own: who edits what when;
 * that is property_*.c. An entry's edges are changed only under its lock; "wild" objects have no edges: any thread
 * stores into them at any time without a lock, and the comparison takes what it finds there, which must be intact.
 *
 * Invariants: SH1 an entry is complete before its object's address is stored anywhere. SH2 entries are freed only by
 * shadow_check, while every thread is parked. SH3 a lock is never waited for: who does not get it does something else.
 */
#ifndef TRI_TESTS_SHADOW_H
#define TRI_TESTS_SHADOW_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <trigc.h>

/* How a slot's word names an object. */
enum word_kind { WORD_POINTER = 0, WORD_BOXED, WORD_TAGGED, WORD_MAYBE };

enum { SHAPE_MAX_FIXED = 8, SHAPE_MAX_PER_ELEM = 2, INLINE_EDGES = 3, SHADOW_CAPACITY = 1 << 23 };

/* Which words of an object are slots. All slots of an object: the fixed ones, then element by element. */
struct shape {
    tri_type *type; /* NULL: untyped bytes */
    size_t size, elem_size;
    bool wild; /* stored into without a lock */
    uint8_t nfixed, nper_elem;
    uint16_t fixed_offset[SHAPE_MAX_FIXED];
    uint8_t fixed_kind[SHAPE_MAX_FIXED];
    uint8_t elem_offset[SHAPE_MAX_PER_ELEM], elem_kind[SHAPE_MAX_PER_ELEM];
    uint32_t npayload; /* words after the header that hold a pattern, where they are no slots */
    uint32_t traced;   /* 1: slots are elements from offset 16 on, the count lies at offset 8 */
};

/* What one slot must hold: object `id` and `aux` (interior offset, tag), or no object and `aux` (an integer). */
struct edge {
    uint32_t id, aux;
};

struct entry {
    uintptr_t addr;
    uint64_t header; /* checksum << 32 | id; 0: the entry is free */
    const struct shape *shape;
    struct edge *edges; /* nslots of them, or `few` */
    uint32_t nslots, generation;
    uint32_t npayload;
    uint8_t lock, reached;
    struct edge few[INLINE_EDGES];
};

struct shadow {
    struct entry *entries;
    const char *name;     /* for messages */
    uint64_t seed;        /* for messages */
    tri_heap *heap;       /* whose objects these are */
    pthread_mutex_t lock; /* free_ids and next_id */
    uint32_t *free_ids;
    uint32_t nfree, next_id;
    uint32_t *queue; /* of the comparison */
    uint32_t nqueued, nchecked;
    uint64_t nreached, nwalked;
    void (*before_free)(struct shadow *s, tri_thread *thread, void *arg); /* in shadow_check_collected; may be NULL */
    void *before_arg;
    uint32_t nreports;     /* what the heap's report hook was told [atomic] */
    char last_report[512]; /* [report mutex] */
};

/* A few entries' numbers in one thread's hand. */
enum { SHADOW_BATCH = 64 };
struct shadow_ids {
    uint32_t ids[SHADOW_BATCH], n;
};

extern const tri_enc shadow_boxed, shadow_tagged;

/* Says what is wrong, with the seed, and aborts. */
_Noreturn void shadow_fail(const struct shadow *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

void shadow_init(struct shadow *s, const char *name, uint64_t seed, tri_heap *heap);
void shadow_fini(struct shadow *s);
/* The heap's report hook; `user` is the shadow. */
void shadow_on_report(const char *message, void *user);

/* Writes the object's header and pattern and makes its entry. The object's slots are all zero. */
uint32_t shadow_adopt(struct shadow *s, struct shadow_ids *ids, const struct shape *shape, void *obj, uint32_t nelems,
                      uint32_t npayload);
/* The entry of the object at `addr`, which some word named: dies if there is no intact object of the table. */
uint32_t shadow_validate(const struct shadow *s, uintptr_t addr, const char *where);

static inline struct entry *shadow_entry(const struct shadow *s, uint32_t id) {
    return &s->entries[id];
}
static inline bool shadow_try_lock(struct entry *e) {
    return __atomic_load_n(&e->lock, __ATOMIC_RELAXED) == 0 && __atomic_exchange_n(&e->lock, 1, __ATOMIC_ACQUIRE) == 0;
}
static inline void shadow_unlock(struct entry *e) {
    __atomic_store_n(&e->lock, 0, __ATOMIC_RELEASE);
}

static inline enum word_kind shape_word_kind(const struct shape *shape, uint32_t slot) {
    if (slot < shape->nfixed) return (enum word_kind)shape->fixed_kind[slot];
    return (enum word_kind)shape->elem_kind[(slot - shape->nfixed) % shape->nper_elem];
}
static inline tri_word *entry_slot(const struct entry *e, uint32_t slot) {
    const struct shape *shape = e->shape;
    if (slot < shape->nfixed) return (tri_word *)(e->addr + shape->fixed_offset[slot]);
    uint32_t at = slot - shape->nfixed;
    return (tri_word *)(e->addr + shape->size + (at / shape->nper_elem) * shape->elem_size +
                        shape->elem_offset[at % shape->nper_elem]);
}

/* The word that an edge stands for. */
tri_word shadow_encode(const struct shadow *s, enum word_kind kind, struct edge edge);
/* The object's start that a word names, or 0. A far interior pointer is looked up with tri_find. */
uintptr_t shadow_decode(const struct shadow *s, tri_thread *thread, enum word_kind kind, tri_word word);
/* An edge of this kind to an object (or to none), with whatever else the kind can hold chosen from `random`. */
struct edge shadow_edge(const struct shadow *s, enum word_kind kind, uint32_t id, uint64_t random);

/* ---- the comparison; all other threads are parked in blocking regions ------------------------------------------- */

/* True when half of the numbers are taken: a comparison is due. */
bool shadow_fills(struct shadow *s);

void shadow_check_begin(struct shadow *s);
/* Names a root. `where` is for messages. */
void shadow_check_root(struct shadow *s, uint32_t id);
/* Follows all edges from the roots, and finds each object intact. */
void shadow_check_reachable(struct shadow *s, tri_thread *thread);
/* Two cycles, then: what is there is what was reached, no more and no less; tri_verify finds nothing; no reports. */
void shadow_check_collected(struct shadow *s, tri_thread *thread);

#endif
