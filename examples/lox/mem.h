/* mem.h - one thin layer over three collectors, chosen when the program starts.
 *
 *     trigc   the heap of this project
 *     none    the same allocation path with its cycles off: what collecting costs is the difference
 *     boehm   libgc, if it was there when lox was built
 *
 * Owns: allocation by type descriptor, stores with what the collector needs, roots, safepoints, counters. Does not own:
 * what the objects mean (object.h); mem_boehm.c alone peeks at their layout, as a mark procedure must.
 *
 * The fast paths are those of trigc, whatever was chosen: with Boehm the attachment is a static one whose holes are
 * always empty, whose barrier is never armed and which is asked for nothing, so a store tests one word that is zero
 * and a poll another. Allocation tests `mem.fast`.
 *
 * Invariants:
 *  M1  mem_new*, mem_weak, mem_map*, mem_poll and mem_collect are safepoints, nothing else is. Across one, every
 *      reference lies in a root: the VM stack, what the scan callback visits, or an object that those reach.
 *  M2  a slot of an object is written by mem_store*, or by mem_init* before the next safepoint after its allocation.
 *  M3  one thread uses the layer: the one that called mem_open.
 */
#ifndef LOX_MEM_H
#define LOX_MEM_H

#include <stdio.h>
#include <trigc.h>

#include "value.h"

enum mem_backend { MEM_TRIGC, MEM_NONE, MEM_BOEHM };

/* Handed to the scan callback; it belongs to the collector that runs. */
struct mem_visitor;

struct mem_options {
    enum mem_backend backend;
    uint32_t stress; /* collect at every n-th allocation; 0: never */
    bool trace;      /* a line a cycle on standard error */
    value *stack;    /* base of the VM stack */
    value **top;     /* where its top is kept; written back before every safepoint */

    /* Visits the VM's other roots; allocates nothing. */
    void (*scan)(struct mem_visitor *visitor);
};

/* Counters, as far as the collector has them. */
struct mem_stats {
    uint64_t cycles;
    uint64_t heap_bytes;     /* in use, or obtained, now */
    uint64_t worst_pause_ns; /* longest that the collector says it kept the program from running */
    uint64_t pauses_ns;      /* Boehm: all of them together */

    /* Of trigc. */
    uint64_t mark_ns, assist_ns, sweep_ns;
};

struct mem {
    tri_thread *thread;
    bool fast; /* allocation may take trigc's inline path */
    struct mem_options options;
    uint64_t allocations; /* counted under stress only */
};

extern struct mem mem;

/* Opens and closes the layer. mem_open: false with a message on standard error. */
bool mem_open(const struct mem_options *options);
void mem_close(void);

void *mem_new_slow(tri_type *type, size_t n);
_Noreturn void mem_exhausted(void);
void mem_collect(void);
void mem_stats_get(struct mem_stats *out);

/* Runs fn(arg), which waits and touches no reference, without keeping the collector waiting. A safepoint. */
void mem_block(void (*fn)(void *arg), void *arg);

/* Maps from an object, by identity, to a value, for as long as both map and key live. The value lives while its key
 * does; over Boehm it lives while the map does, too, until the entry is gone: one whose value leads to its key stays.
 * Without collection all entries stay. The map is no object of the machine's, and encoded as a value like any. What
 * the caller passes lies in roots. */
void *mem_map_new(void);
void mem_map_put(void *map, struct obj *key, value val);
bool mem_map_get(void *map, struct obj *key, value *out);
bool mem_map_remove(void *map, struct obj *key);
size_t mem_map_count(void *map); /* with entries whose keys are dead and not found to be yet */

/* For the scan callback. */
void mem_visit(struct mem_visitor *visitor, void *slots, size_t n);
void mem_visit_values(struct mem_visitor *visitor, value *slots, size_t n);

/* An object of a type without elements. */
static inline void *mem_new(tri_type *type) {
    if (__builtin_expect(mem.fast, 1)) {
        void *obj = tri_new(mem.thread, type);
        if (__builtin_expect(obj != NULL, 1)) return obj;
        mem_exhausted();
    }
    return mem_new_slow(type, 0);
}

/* An object with n elements. */
static inline void *mem_new_n(tri_type *type, size_t n) {
    return mem_new_slow(type, n);
}

/* Stores. `obj`: the object that the slot lies in. */
static inline void mem_store(void *obj, void *slot, const void *ref) {
    tri_store(mem.thread, obj, slot, ref);
}

static inline void mem_store_value(void *obj, value *slot, value v) {
    tri_store_value(mem.thread, obj, slot, v);
}

/* What a weak slot names, or NULL once it is dead. Boehm keeps it alive: it never is. A safepoint. */
static inline void *mem_weak(const void *slot) {
    return tri_weak_load(mem.thread, slot);
}

static inline void mem_init(void *obj, void *slot, const void *ref) {
    tri_init(mem.thread, obj, slot, ref);
}

static inline void mem_init_value(void *obj, value *slot, value v) {
    tri_init_value(mem.thread, obj, slot, v);
}

/* Whether a poll has something to do; the caller writes its roots back and calls mem_poll then. */
static inline bool mem_wanted(void) {
    return __builtin_expect(__atomic_load_n(&mem.thread->request, __ATOMIC_RELAXED) != 0, 0);
}

static inline void mem_poll(void) {
    tri_poll(mem.thread);
}

/* mem_trigc.c, mem_boehm.c */
bool mem_trigc_open(void);
void mem_trigc_close(void);
void *mem_trigc_new(tri_type *type, size_t n);
void mem_trigc_collect(void);
void mem_trigc_block(void (*fn)(void *arg), void *arg);
void mem_trigc_stats(struct mem_stats *out);
void mem_trigc_visit(struct mem_visitor *visitor, void *slots, size_t n);
void mem_trigc_visit_values(struct mem_visitor *visitor, value *slots, size_t n);
void *mem_trigc_map_new(void);
void mem_trigc_map_put(void *map, struct obj *key, value val);
bool mem_boehm_open(void);
void *mem_boehm_new(tri_type *type, size_t n);
void mem_boehm_collect(void);
void mem_boehm_stats(struct mem_stats *out);
void mem_boehm_visit(struct mem_visitor *visitor, void *slots, size_t n);
void mem_boehm_visit_values(struct mem_visitor *visitor, value *slots, size_t n);
void *mem_boehm_map_new(void);
void mem_boehm_map_put(void *map, struct obj *key, value val);
bool mem_boehm_map_get(void *map, struct obj *key, value *out);
bool mem_boehm_map_remove(void *map, struct obj *key);
size_t mem_boehm_map_count(void *map);

/* VALUE_ENC as an object. */
extern const tri_enc mem_value_enc;

#endif
