/* mem_boehm.c - the memory layer over libgc, as a host that stores boxed values has to use it.
 *
 * libgc finds plain pointers by itself, on the stack, in static data and in objects, but it cannot see an address that
 * is boxed in a NaN. So objects are allocated as a user of libgc would:
 *     without references     GC_malloc_atomic
 *     plain pointers only    GC_malloc
 *     with values            kinds of its own, whose mark procedures decode them
 * and the VM stack with the VM's other roots is pushed by a push_other_roots procedure.
 *
 * Owns: the kinds, their mark procedures, the collection events. Built without libgc (LOX_WITH_BOEHM not defined),
 * opening it says so.
 *
 * Invariants:
 *  B1  a mark procedure may meet a free cell (an aligned link, then zeros): its lowest byte is even, no kind's is (O1).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mem.h"

#include <stdlib.h>

#ifdef LOX_WITH_BOEHM

#include <gc/gc.h>
#include <gc/gc_inline.h>
#include <gc/gc_mark.h>
#include <time.h>
#include <unistd.h>

#include "object.h"
#include "types.h"

/* A weak map: a table of keys, which libgc clears when they are gone, and values. */
struct weak_entry {
    struct obj *key; /* NULL: free, or its key is gone */
    value val;       /* VALUE_EMPTY: never used, the end of every probe */
};
struct weak_table {
    struct obj head; /* head.n: capacity, a power of two */
    struct weak_entry at[];
};
struct weak_map {
    struct weak_table *table;
    uint32_t nused; /* entries that were ever used, at most three quarters */
};
enum { FIRST_WEAK_ENTRIES = 8 };

/* No holes, barrier off, nothing requested: see mem.h. */
static tri_thread idle_thread;
static int value_kind, upvalue_kind;
static GC_push_other_roots_proc push_next;
static struct { uint64_t cycles, pauses_ns, worst_ns, stopped_at_ns, started_at_ns, pause_ns; } events;

static uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- marking ---------------------------------------------------------------------------------------------------- */

typedef struct GC_ms_entry mark_entry;

static mark_entry *push_pointer(mark_entry *msp, mark_entry *limit, void *slot) {
    void *ref = *(void **)slot;
    return GC_MARK_AND_PUSH(ref, msp, limit, slot);
}

static mark_entry *push_values(mark_entry *msp, mark_entry *limit, value *slots, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (value_is_obj(slots[i])) msp = GC_MARK_AND_PUSH(value_to_obj(slots[i]), msp, limit, (void **)&slots[i]);
    }
    return msp;
}

static mark_entry *push_entries(mark_entry *msp, mark_entry *limit, struct entries *entries) {
    for (uint32_t i = 0; i < entries->head.n; i++) {
        if (entries->at[i].key == NULL) continue;
        msp = push_pointer(msp, limit, &entries->at[i].key);
        msp = push_values(msp, limit, &entries->at[i].val, 1);
    }
    return msp;
}

/* Keys are links that disappear; the value of one that has is garbage. */
static mark_entry *push_weak_table(mark_entry *msp, mark_entry *limit, struct weak_table *table) {
    for (uint32_t i = 0; i < table->head.n; i++)
        if (table->at[i].key != NULL) msp = push_values(msp, limit, &table->at[i].val, 1);
    return msp;
}

/* The mark procedure of the kind that has values. */
static mark_entry *mark_object(GC_word *address, mark_entry *msp, mark_entry *limit, GC_word env) {
    struct obj *head = (struct obj *)address;
    (void)env;
    switch (head->kind) {
    case OBJ_INSTANCE: {
        struct instance *instance = (struct instance *)head;
        msp = push_pointer(msp, limit, &instance->shape);
        return push_values(msp, limit, instance->fields, head->small);
    }
    case OBJ_EXTENSION: {
        struct extension *extension = (struct extension *)head;
        msp = push_pointer(msp, limit, &extension->class);
        return push_values(msp, limit, extension->fields, head->small);
    }
    case OBJ_BOUND_METHOD: {
        struct bound_method *bound = (struct bound_method *)head;
        msp = push_values(msp, limit, &bound->receiver, 1);
        return push_pointer(msp, limit, &bound->method);
    }
    case OBJ_ENTRIES: return push_entries(msp, limit, (struct entries *)head);
    case OBJ_VALUES: return push_values(msp, limit, ((struct values *)head)->at, head->n);
    case OBJ_WEAK_TABLE: return push_weak_table(msp, limit, (struct weak_table *)head);
    default: return msp; /* a free cell (B1), or an object whose header is not written yet: its fields are zero */
    }
}

/* Upvalues have no header. In a free cell the second word is zero. */
static mark_entry *mark_upvalue(GC_word *address, mark_entry *msp, mark_entry *limit, GC_word env) {
    (void)env;
    return push_values(msp, limit, &((struct upvalue *)address)->closed, 1);
}

void mem_boehm_visit(struct mem_visitor *visitor, void *slots, size_t n) {
    (void)visitor;
    GC_push_all_eager(slots, (void **)slots + n);
}

/* Decodes a batch at a time into a plain array, which libgc understands. */
void mem_boehm_visit_values(struct mem_visitor *visitor, value *slots, size_t n) {
    void *batch[64];
    size_t nbatch = 0;
    (void)visitor;
    for (size_t i = 0; i < n; i++) {
        if (!value_is_obj(slots[i])) continue;
        batch[nbatch++] = value_to_obj(slots[i]);
        if (nbatch < sizeof batch / sizeof batch[0]) continue;
        GC_push_all_eager(batch, batch + nbatch);
        nbatch = 0;
    }
    GC_push_all_eager(batch, batch + nbatch);
}

static void push_roots(void) {
    value *stack = mem.options.stack;
    mem_boehm_visit_values(NULL, stack, (size_t)(*mem.options.top - stack));
    mem.options.scan(NULL);
    if (push_next != NULL) push_next();
}

/* --- weak maps -------------------------------------------------------------------------------------------------- */

static struct weak_table *weak_table_new(uint32_t capacity) {
    struct weak_table *table = GC_malloc_kind(sizeof *table + capacity * sizeof table->at[0], value_kind);
    if (table == NULL) mem_exhausted();
    table->head = (struct obj){.kind = OBJ_WEAK_TABLE, .n = capacity};
    for (uint32_t i = 0; i < capacity; i++) table->at[i].val = VALUE_EMPTY;
    return table;
}

void *mem_boehm_map_new(void) {
    struct weak_map *map = GC_malloc(sizeof *map);
    if (map == NULL) mem_exhausted();
    map->table = weak_table_new(FIRST_WEAK_ENTRIES);
    return map;
}

/* The key's entry, or the one that was never used where it belongs. */
static struct weak_entry *weak_entry_for(struct weak_table *table, const struct obj *key) {
    uint64_t hash = ((uint64_t)(uintptr_t)key >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    for (;; hash++) {
        struct weak_entry *entry = &table->at[hash & (table->head.n - 1)];
        if (entry->key == key || (entry->key == NULL && entry->val == VALUE_EMPTY)) return entry;
    }
}

/* A table for as many keys as live, and as many again; the old one's links move over. */
static void weak_map_grow(struct weak_map *map) {
    uint32_t capacity = FIRST_WEAK_ENTRIES, n = (uint32_t)mem_boehm_map_count(map);
    while (capacity < (n + 1) * 2) capacity *= 2;
    struct weak_table *old = map->table, *table = weak_table_new(capacity); /* may collect, so that fewer live */
    map->nused = 0;
    for (uint32_t i = 0; i < old->head.n; i++) {
        struct weak_entry *from = &old->at[i];
        if (from->key == NULL) continue;
        struct weak_entry *to = weak_entry_for(table, from->key);
        *to = *from;
        GC_move_disappearing_link((void **)&from->key, (void **)&to->key);
        map->nused++;
    }
    map->table = table;
}

void mem_boehm_map_put(void *p, struct obj *key, value val) {
    struct weak_map *map = p;
    struct weak_entry *entry = weak_entry_for(map->table, key);
    if (entry->key == NULL && (map->nused + 1) * 4 > map->table->head.n * 3) {
        weak_map_grow(map);
        entry = weak_entry_for(map->table, key);
    }
    bool is_new = entry->key == NULL;
    *entry = (struct weak_entry){key, val};
    if (!is_new) return;
    map->nused++;
    if (GC_general_register_disappearing_link((void **)&entry->key, key) == GC_NO_MEMORY) mem_exhausted();
}

bool mem_boehm_map_get(void *map, struct obj *key, value *out) {
    const struct weak_entry *entry = weak_entry_for(((struct weak_map *)map)->table, key);
    if (entry->key == NULL) return false;
    *out = entry->val;
    return true;
}

bool mem_boehm_map_remove(void *map, struct obj *key) {
    struct weak_entry *entry = weak_entry_for(((struct weak_map *)map)->table, key);
    if (entry->key == NULL) return false;
    GC_unregister_disappearing_link((void **)&entry->key);
    *entry = (struct weak_entry){NULL, VALUE_NIL}; /* used */
    return true;
}

size_t mem_boehm_map_count(void *map) {
    const struct weak_table *table = ((struct weak_map *)map)->table;
    size_t n = 0;
    for (uint32_t i = 0; i < table->head.n; i++) n += table->at[i].key != NULL;
    return n;
}

/* --- events ----------------------------------------------------------------------------------------------------- */

/* Under libgc's lock: no stdio, whose buffers may be held. */
static void print_cycle(uint64_t cycle_ns) {
    char line[200];
    int n = snprintf(line, sizeof line, "[gc %llu] boehm: heap %.1f MiB, cycle %.2f ms, stopped %.2f ms\n",
                     (unsigned long long)events.cycles, (double)GC_get_heap_size() / (1024.0 * 1024.0),
                     (double)cycle_ns / 1e6, (double)events.pause_ns / 1e6);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) mem.options.trace = false;
}

static void on_event(GC_EventType event) {
    uint64_t now = now_ns();
    switch (event) {
    case GC_EVENT_START:
        events.started_at_ns = now;
        events.pause_ns = 0;
        break;
    case GC_EVENT_PRE_STOP_WORLD: events.stopped_at_ns = now; break;
    case GC_EVENT_POST_START_WORLD: events.pause_ns += now - events.stopped_at_ns; break;
    case GC_EVENT_END: {
        /* One thread, so the whole collection keeps the program from running, not only its stopped part. */
        uint64_t cycle_ns = now - events.started_at_ns;
        events.cycles++;
        events.pauses_ns += cycle_ns;
        if (cycle_ns > events.worst_ns) events.worst_ns = cycle_ns;
        if (mem.options.trace) print_cycle(cycle_ns);
        break;
    }
    default: break;
    }
}

/* --- the layer -------------------------------------------------------------------------------------------------- */

bool mem_boehm_open(void) {
    mem.thread = &idle_thread;
    GC_INIT();
    value_kind = (int)GC_new_kind(GC_new_free_list(), GC_MAKE_PROC(GC_new_proc(mark_object), 0), 0, 1);
    upvalue_kind = (int)GC_new_kind(GC_new_free_list(), GC_MAKE_PROC(GC_new_proc(mark_upvalue), 0), 0, 1);
    push_next = GC_get_push_other_roots();
    GC_set_push_other_roots(push_roots);
    GC_set_on_collection_event(on_event);
    return true;
}

void *mem_boehm_new(tri_type *type, size_t n) {
    size_t size_bytes = type->size + type->elem_size * n;
    if ((type->flags & TRI_TYPE_LEAF) != 0) return GC_malloc_atomic(size_bytes);
    if (type->values.noffsets == 0 && type->elem_values.noffsets == 0) return GC_malloc(size_bytes);
    return GC_malloc_kind(size_bytes, type == &type_upvalue ? upvalue_kind : value_kind);
}

void mem_boehm_collect(void) {
    GC_gcollect();
}

void mem_boehm_stats(struct mem_stats *out) {
    out->cycles = events.cycles;
    out->heap_bytes = GC_get_heap_size();
    out->worst_pause_ns = events.worst_ns;
    out->pauses_ns = events.pauses_ns;
}

#else

bool mem_boehm_open(void) {
    fputs("lox: built without Boehm's collector; install libgc-dev and build again, or use --gc=trigc\n", stderr);
    return false;
}

void *mem_boehm_new(tri_type *type, size_t n) {
    (void)type;
    (void)n;
    return NULL;
}

void mem_boehm_collect(void) {}

void mem_boehm_stats(struct mem_stats *out) {
    (void)out;
}

void mem_boehm_visit(struct mem_visitor *visitor, void *slots, size_t n) {
    (void)visitor;
    (void)slots;
    (void)n;
}

void mem_boehm_visit_values(struct mem_visitor *visitor, value *slots, size_t n) {
    (void)visitor;
    (void)slots;
    (void)n;
}

void *mem_boehm_map_new(void) {
    return NULL;
}

void mem_boehm_map_put(void *map, struct obj *key, value val) {
    (void)map;
    (void)key;
    (void)val;
}

bool mem_boehm_map_get(void *map, struct obj *key, value *out) {
    (void)map;
    (void)key;
    (void)out;
    return false;
}

bool mem_boehm_map_remove(void *map, struct obj *key) {
    (void)map;
    (void)key;
    return false;
}

size_t mem_boehm_map_count(void *map) {
    (void)map;
    return 0;
}

#endif
