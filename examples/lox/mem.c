/* mem.c - the part of the memory layer that is the same for all collectors: choosing one, stress, running out.
 *
 * Owns: `mem`, the one state of the layer. Does not own: anything that a collector does (mem_trigc.c, mem_boehm.c).
 *
 * Under stress every allocation comes through mem_new_slow, which collects first (M1 holds at that point, so an object
 * that no root keeps is gone before the next line of the caller runs).
 */
#include "mem.h"

#include <stdlib.h>

struct mem mem;
const tri_enc mem_value_enc = VALUE_ENC;

bool mem_open(const struct mem_options *options) {
    mem.options = *options;
    mem.allocations = 0;
    if (options->backend == MEM_BOEHM) {
        mem.fast = false;
        return mem_boehm_open();
    }
    mem.fast = options->stress == 0;
    return mem_trigc_open();
}

void mem_close(void) {
    if (mem.options.backend != MEM_BOEHM) mem_trigc_close();
}

void mem_collect(void) {
    if (mem.options.backend == MEM_BOEHM)
        mem_boehm_collect();
    else
        mem_trigc_collect();
}

void mem_block(void (*fn)(void *arg), void *arg) {
    if (mem.options.backend == MEM_BOEHM)
        fn(arg); /* one thread: nobody waits for it */
    else
        mem_trigc_block(fn, arg);
}

static void stress(void) {
    if (__builtin_expect(mem.options.stress != 0, 0) && ++mem.allocations % mem.options.stress == 0) mem_collect();
}

void *mem_new_slow(tri_type *type, size_t n) {
    stress();
    void *obj = mem.options.backend == MEM_BOEHM ? mem_boehm_new(type, n) : mem_trigc_new(type, n);
    if (obj == NULL) mem_exhausted();
    return obj;
}

_Noreturn void mem_exhausted(void) {
    fflush(stdout);
    fputs("Out of memory.\n", stderr);
    exit(70);
}

void mem_stats_get(struct mem_stats *out) {
    *out = (struct mem_stats){0};
    if (mem.options.backend == MEM_BOEHM)
        mem_boehm_stats(out);
    else
        mem_trigc_stats(out);
}

void mem_visit(struct mem_visitor *visitor, void *slots, size_t n) {
    if (mem.options.backend == MEM_BOEHM)
        mem_boehm_visit(visitor, slots, n);
    else
        mem_trigc_visit(visitor, slots, n);
}

void mem_visit_values(struct mem_visitor *visitor, value *slots, size_t n) {
    if (mem.options.backend == MEM_BOEHM)
        mem_boehm_visit_values(visitor, slots, n);
    else
        mem_trigc_visit_values(visitor, slots, n);
}

void *mem_map_new(void) {
    stress();
    return mem.options.backend == MEM_BOEHM ? mem_boehm_map_new() : mem_trigc_map_new();
}

void mem_map_put(void *map, struct obj *key, value val) {
    stress(); /* a put may allocate */
    if (mem.options.backend == MEM_BOEHM)
        mem_boehm_map_put(map, key, val);
    else
        mem_trigc_map_put(map, key, val);
}

bool mem_map_get(void *map, struct obj *key, value *out) {
    if (mem.options.backend == MEM_BOEHM) return mem_boehm_map_get(map, key, out);
    return tri_wmap_get(mem.thread, map, key, out);
}

bool mem_map_remove(void *map, struct obj *key) {
    if (mem.options.backend == MEM_BOEHM) return mem_boehm_map_remove(map, key);
    return tri_wmap_remove(mem.thread, map, key);
}

size_t mem_map_count(void *map) {
    return mem.options.backend == MEM_BOEHM ? mem_boehm_map_count(map) : tri_wmap_count(mem.thread, map);
}
