/* mem_trigc.c - the memory layer over trigc: `--gc=trigc`, and `--gc=none`, which is the same with cycles off.
 *
 * Owns: one precise heap, the interpreter's attachment to it, the VM stack's and the scan callback's registration.
 * Nothing is scanned conservatively: the native stack holds no reference across a safepoint that a root does not hold
 * as well (M1).
 */
#include "mem.h"

#include <stdlib.h>

static tri_heap *heap;
static tri_vmstack *stack;
static tri_scanner *scanner;

static double mib(size_t size_bytes) {
    return (double)size_bytes / (1024.0 * 1024.0);
}

/* On the collector's thread. */
static void on_event(const tri_event *event, void *user) {
    (void)user;
    if (event->kind != TRI_EVENT_CYCLE_END) return;
    fprintf(stderr,
            "[gc %llu] trigc, %s: %.1f -> %.1f MiB, goal %.1f MiB, cycle %.2f ms (marking %.2f), "
            "worst pause %.1f us, assists %.1f us, %u flush rounds\n",
            (unsigned long long)event->cycle, event->reason, mib(event->live_before_bytes),
            mib(event->live_after_bytes), mib(event->goal_bytes), (double)event->cycle_ns / 1e6,
            (double)event->mark_ns / 1e6, (double)event->worst_pause_ns / 1e3, (double)event->assist_ns / 1e3,
            event->flush_rounds);
}

static void scan_roots(tri_visitor *visitor, void *arg) {
    (void)arg;
    mem.options.scan((struct mem_visitor *)visitor);
}

void mem_trigc_visit(struct mem_visitor *visitor, void *slots, size_t n) {
    tri_visit((tri_visitor *)visitor, slots, n);
}

void mem_trigc_visit_values(struct mem_visitor *visitor, value *slots, size_t n) {
    tri_visit_values((tri_visitor *)visitor, slots, n, &mem_value_enc);
}

static bool refused(const char *what) {
    fprintf(stderr, "lox: %s: %s\n", what, tri_last_error());
    return false;
}

bool mem_trigc_open(void) {
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE | (mem.options.backend == MEM_NONE ? TRI_HEAP_NO_CYCLES : 0);
    /* Half as much again as the default: fewer cycles over the interpreter's small, long-lived objects, at a peak that
     * stays below what libgc's own default (a third of the heap) takes for the programs in programs/. */
    config.growth_percent = 150;
    if (mem.options.trace) config.event = on_event;
    if (tri_heap_create(&config, &heap) != TRI_OK) return refused("the heap could not be made");
    if (tri_attach(heap, TRI_ATTACH_PRECISE, &mem.thread) != TRI_OK) return refused("attaching to the heap failed");
    stack = tri_vmstack_add(mem.thread, mem.options.stack, mem.options.top, &mem_value_enc);
    if (stack == NULL) return refused("the VM stack could not be registered");
    scanner = tri_scanner_add(mem.thread, scan_roots, NULL);
    if (scanner == NULL) return refused("the VM's roots could not be registered");
    return true;
}

void mem_trigc_close(void) {
    tri_scanner_remove(mem.thread, scanner);
    tri_vmstack_remove(mem.thread, stack);
    if (tri_detach(mem.thread) != TRI_OK) refused("detaching failed");
    mem.thread = NULL;
    if (tri_heap_destroy(heap) != TRI_OK) refused("the heap could not be destroyed");
}

void *mem_trigc_new(tri_type *type, size_t n) {
    return type->elem_size != 0 ? tri_new_n(mem.thread, type, n) : tri_new(mem.thread, type);
}

void mem_trigc_collect(void) {
    if (mem.options.backend == MEM_NONE && mem.options.stress == 0) return;
    if (tri_collect(mem.thread) != TRI_OK) refused("a forced collection failed");
}

void *mem_trigc_map_new(void) {
    void *map = tri_wmap_new(mem.thread, &mem_value_enc);
    if (map == NULL) mem_exhausted();
    return map;
}

void mem_trigc_map_put(void *map, struct obj *key, value val) {
    if (tri_wmap_put(mem.thread, map, key, val) != TRI_OK) mem_exhausted();
}

struct blocking {
    void (*fn)(void *arg);
    void *arg;
};

static void *run_blocking(void *arg) {
    struct blocking *blocking = arg;
    blocking->fn(blocking->arg);
    return NULL;
}

void mem_trigc_block(void (*fn)(void *arg), void *arg) {
    struct blocking blocking = {fn, arg};
    tri_blocking(mem.thread, run_blocking, &blocking);
}

void mem_trigc_stats(struct mem_stats *out) {
    tri_stats stats = {.struct_size = sizeof stats};
    if (tri_stats_get(heap, &stats) != TRI_OK) return;
    out->cycles = stats.cycles;
    out->heap_bytes = stats.committed_bytes;
    out->worst_pause_ns = stats.worst_pause_ns;
    out->mark_ns = stats.mark_ns;
    out->assist_ns = stats.assist_ns;
    out->sweep_ns = stats.sweep_ns;
}
