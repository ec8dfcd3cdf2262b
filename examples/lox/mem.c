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

void *mem_new_slow(tri_type *type, size_t n) {
    if (__builtin_expect(mem.options.stress != 0, 0) && ++mem.allocations % mem.options.stress == 0) mem_collect();
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
