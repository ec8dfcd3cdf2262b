/* mark_trigc.c - trigc's side of bench-mark. A figure is the processor time of the process for a whole collection that
 * was asked for: marking, nearly all of it, the handshakes and the sweep; the asking thread waits. */
#include <stdio.h>
#include <trigc.h>
#include "bench/mark.h"

static const tri_enc boxes = {0xffff000000000000u, 0xfffc000000000000u, ~0ull, 0x0000ffffffffffffu};

TRI_TYPE(node_type, struct node, left, right);
TRI_VALUE_TYPE(boxed_type, struct node, &boxes, left, right);
TRI_TYPE(cons_type, struct cons, head, tail);
static const uint64_t large_slots[] = {~0ull};
static tri_type large_type = {.struct_size = sizeof(tri_type),
                              .name = "struct large",
                              .size = sizeof(struct large),
                              .pointers = {.bitmap = large_slots, .nbits = 64}};
TRI_POINTER_ARRAY_TYPE(array_type, 0);

enum { MOST_OPTIONS = 8 };
static const char *options[MOST_OPTIONS];
static size_t noptions;
static tri_heap *heap;
static tri_thread *thread;
static tri_handle root;

static void check(int err) {
    if (err != TRI_OK) mark_fail(tri_last_error());
}

void mark_trigc_option(const char *key_equals_value) {
    if (noptions == MOST_OPTIONS) mark_fail("too many options");
    options[noptions++] = key_equals_value;
}

void mark_trigc_workers(size_t n) {
    char setting[32];
    snprintf(setting, sizeof setting, "workers=%zu", n);
    check(tri_heap_set(heap, setting));
}

static void open_heap(void) {
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES; /* nothing lives by chance, nothing is collected early */
    config.idle_trim_ms = 0;
    config.wait_limit_ms = 60000;
    check(tri_heap_create(&config, &heap));
    for (size_t i = 0; i < noptions; i++) check(tri_heap_set(heap, options[i]));
    check(tri_attach(heap, 0, &thread));
    root = tri_global(thread, NULL);
    if (!root) check(TRI_ENOMEM);
}

static struct node *new_node(void) {
    return tri_new(thread, &node_type);
}

static struct node *new_boxed(void) {
    return tri_new(thread, &boxed_type);
}

static struct cons *new_cons(void) {
    return tri_new(thread, &cons_type);
}

static struct large *new_large(void) {
    return tri_new(thread, &large_type);
}

static void **new_array(size_t nslots) {
    return tri_new_n(thread, &array_type, nslots);
}

static void store(void *obj, void **slot, void *ref) {
    tri_store(thread, obj, slot, ref);
}

static void store_boxed(void *obj, void **slot, void *ref) {
    tri_store_value(thread, obj, slot, boxes.tag | (tri_word)(uintptr_t)ref);
}

static void set_root(void *ref) {
    tri_global_set(thread, root, ref);
}

static struct cost collect(void) {
    double cpu_ms = mark_cpu_ms(), wall_ms = mark_wall_ms();
    check(tri_collect(thread));
    return (struct cost){mark_cpu_ms() - cpu_ms, mark_wall_ms() - wall_ms};
}

static size_t live_bytes(void) {
    tri_stats stats = {.struct_size = sizeof stats};
    check(tri_stats_get(heap, &stats));
    return stats.live_bytes;
}

static void close_heap(void) {
    tri_global_free(thread, root);
    check(tri_detach(thread));
    check(tri_heap_destroy(heap));
}

const struct side mark_trigc = {"trigc", open_heap,   new_node, new_boxed, new_cons,   new_large, new_array,
                                store,   store_boxed, set_root, collect,   live_bytes, close_heap};
