/* mark_boehm.c - Boehm's side of bench-mark. A figure is what the marking thread's processor spent between its events
 * MARK_START and MARK_END: the phase that marks, without its sweep. Its roots are one word: static data and the
 * libraries' are left out, and what the graph's builder keeps lies in malloc'd memory. */
#include <gc.h>
#include <gc/gc_mark.h>
#include <stdio.h>
#include <stdlib.h>
#include "bench/mark.h"

static void **root;
static double begin_cpu_ms, begin_wall_ms;
static struct cost marking;

static void GC_CALLBACK on_event(GC_EventType event) {
    if (event == GC_EVENT_MARK_START) {
        begin_cpu_ms = mark_cpu_ms();
        begin_wall_ms = mark_wall_ms();
    } else if (event == GC_EVENT_MARK_END) {
        marking = (struct cost){mark_cpu_ms() - begin_cpu_ms, mark_wall_ms() - begin_wall_ms};
    }
}

void mark_boehm_markers(unsigned n) {
    char text[16];
    snprintf(text, sizeof text, "%u", n);
    setenv("GC_MARKERS", text, 1);
}

static void open_heap(void) {
    static bool begun;
    if (!begun) {
        GC_set_no_dls(1);
        GC_INIT();
        GC_clear_roots();
        GC_set_on_collection_event(on_event);
        GC_disable(); /* until asked */
        root = GC_malloc_uncollectable(sizeof *root);
        if (!root) mark_fail("out of memory");
        begun = true;
    }
}

static struct node *new_node(void) {
    return GC_malloc(sizeof(struct node));
}

static struct cons *new_cons(void) {
    return GC_malloc(sizeof(struct cons));
}

static struct large *new_large(void) {
    return GC_malloc(sizeof(struct large));
}

static void **new_array(size_t nslots) {
    size_t size_bytes = nslots * sizeof(void *);
    return size_bytes > 100000 ? GC_malloc_ignore_off_page(size_bytes) : GC_malloc(size_bytes);
}

static void store(void *obj, void **slot, void *ref) {
    (void)obj;
    *slot = ref;
}

static void set_root(void *ref) {
    *root = ref;
}

static struct cost collect(void) {
    GC_enable();
    GC_gcollect();
    GC_disable();
    return marking;
}

static size_t live_bytes(void) {
    return GC_get_heap_size() - GC_get_free_bytes();
}

static void close_heap(void) {
    *root = NULL;
    GC_enable();
    for (int i = 0; i < 3; i++) GC_gcollect();
    GC_disable();
}

const struct side mark_boehm = {"boehm", open_heap, new_node, NULL,    new_cons,   new_large, new_array,
                                store,   NULL,      set_root, collect, live_bytes, close_heap};
