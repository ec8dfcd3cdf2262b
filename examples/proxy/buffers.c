/* buffers.c - buffers out of trigc, in three ways, and out of malloc:
 *
 *   collected  an object of bytes for each buffer; the collector finds out when nobody refers to it
 *   cleanup    a small object for each buffer, whose bytes are manual memory; when the object is gone its cleanup frees
 *              them. The bytes are told to the collector (tri_external), or it would see no reason to collect
 *   manual     manual memory, freed when the request is over
 *   malloc     the C library's, freed in the same way: what is there without trigc */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <trigc.h>

#include "proxy.h"

enum mode { COLLECTED = 0, CLEANUP, MANUAL, MALLOC };
const char *const buffers_modes[] = {"collected", "cleanup", "manual", "malloc", NULL};

static enum mode mode;
static tri_heap *heap;

/* In "cleanup": what is collected. */
struct handle {
    void *data; /* manual memory: no slot */
    uint64_t size_bytes;
};
TRI_LEAF_TYPE(handle_type, struct handle);

/* The cleanup's argument must not lead to the object: it is the block itself, with what is needed in front. */
struct block {
    tri_heap *heap;
    size_t size_bytes;
    uint64_t bytes[];
};

struct buffers {
    tri_thread *thread;
    void *places[2]; /* roots: objects; or blocks, which are none */
    tri_frame frame;
};

bool buffers_open(const char *name) {
    int i = 0;
    while (buffers_modes[i] && strcmp(buffers_modes[i], name) != 0) i++;
    if (!buffers_modes[i]) return false;
    mode = (enum mode)i;
    if (mode == MALLOC) return true;
    tri_config config;
    tri_config_init(&config);
    config.idle_trim_ms = 1000;
    return tri_heap_create(&config, &heap) == TRI_OK;
}

void buffers_close(void) {
    if (heap) tri_heap_destroy(heap);
    heap = NULL;
}

/* A heap that idles is collected and trimmed by itself; cleanups that are due then wait for a thread to run them. */
void buffers_idle(void) {
    tri_thread *thread;
    if (mode != CLEANUP || tri_attach(heap, 0, &thread) != TRI_OK) return;
    tri_cleanup_run(thread, SIZE_MAX);
    tri_detach(thread);
}

void buffers_sizes(size_t *heap_bytes, size_t *beside_bytes, uint64_t *cycles) {
    tri_stats stats = {.struct_size = sizeof stats};
    *heap_bytes = *beside_bytes = 0;
    *cycles = 0;
    if (!heap || tri_stats_get(heap, &stats) != TRI_OK) return;
    *heap_bytes = stats.heap_bytes;
    *beside_bytes = tri_manual_bytes(heap);
    *cycles = stats.cycles;
}

struct buffers *buffers_enter(void) {
    struct buffers *b = calloc(1, sizeof *b);
    if (!b || mode == MALLOC) return b;
    if (tri_attach(heap, 0, &b->thread) != TRI_OK) {
        free(b);
        return NULL;
    }
    b->frame = (tri_frame){.nslots = 2, .slots = b->places};
    if (mode != MANUAL) tri_frame_push(b->thread, &b->frame);
    return b;
}

void buffers_leave(struct buffers *b) {
    if (b->thread) {
        if (mode != MANUAL) tri_frame_pop(b->thread, &b->frame);
        tri_detach(b->thread);
    }
    free(b);
}

/* A cleanup runs on the thread that asks for them, which is attached. */
static void free_block(void *arg) {
    struct block *block = arg;
    tri_external(tri_self(block->heap), -(ptrdiff_t)block->size_bytes);
    tri_manual_free(block->heap, block);
}

static void *take_with_cleanup(struct buffers *b, int place, size_t size_bytes) {
    tri_cleanup_run(b->thread, SIZE_MAX); /* those that the last cycles have found */
    struct handle *h = b->places[place] = tri_new(b->thread, &handle_type);
    struct block *block = h ? tri_manual_alloc(heap, sizeof *block + size_bytes) : NULL;
    if (!block) return NULL;
    *block = (struct block){.heap = heap, .size_bytes = size_bytes};
    h->data = block->bytes;
    h->size_bytes = size_bytes;
    if (tri_cleanup_add(b->thread, h, free_block, block) != TRI_OK) {
        tri_manual_free(heap, block);
        return NULL;
    }
    tri_external(b->thread, (ptrdiff_t)size_bytes);
    return h->data;
}

void *buffers_take(struct buffers *b, int place, size_t size_bytes) {
    switch (mode) {
    case COLLECTED: return b->places[place] = tri_new_bytes(b->thread, size_bytes);
    case CLEANUP: return take_with_cleanup(b, place, size_bytes);
    case MANUAL: return b->places[place] = tri_manual_alloc(heap, size_bytes);
    default: return b->places[place] = malloc(size_bytes);
    }
}

void buffers_drop(struct buffers *b, int place) {
    if (mode == MANUAL) tri_manual_free(heap, b->places[place]);
    if (mode == MALLOC) free(b->places[place]);
    b->places[place] = NULL;
}

void buffers_wait(struct buffers *b, void *(*fn)(void *), void *arg) {
    if (b->thread)
        tri_blocking(b->thread, fn, arg);
    else
        fn(arg);
}

bool buffers_thread(void *(*fn)(void *), void *arg) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, fn, arg) != 0) return false;
    pthread_detach(thread);
    return true;
}
