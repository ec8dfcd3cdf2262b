/* buffers_boehm.c - the same buffers out of Boehm's collector, as its users take them: pointer-free objects, found dead
 * by the collector. Its threads are its own affair (GC_THREADS redirects pthread_create), and so are waits. */
#define GC_THREADS 1
#include <gc/gc.h>
#include <pthread.h>
#include <string.h>

#include "proxy.h"

const char *const buffers_modes[] = {"boehm", NULL};

struct buffers {
    void *places[2];
};

bool buffers_open(const char *name) {
    GC_INIT();
    GC_allow_register_threads();
    return strcmp(name, buffers_modes[0]) == 0;
}

void buffers_close(void) {}

/* It unmaps what several collections have found free, so an idle program has to ask for them. */
void buffers_idle(void) {
    GC_gcollect_and_unmap();
}

void buffers_sizes(size_t *heap_bytes, size_t *beside_bytes, uint64_t *cycles) {
    *heap_bytes = GC_get_heap_size();
    *beside_bytes = 0;
    *cycles = GC_get_gc_no();
}

struct buffers *buffers_enter(void) {
    return GC_MALLOC_UNCOLLECTABLE(sizeof(struct buffers));
}

void buffers_leave(struct buffers *b) {
    GC_FREE(b);
}

void *buffers_take(struct buffers *b, int place, size_t size_bytes) {
    return b->places[place] = GC_MALLOC_ATOMIC(size_bytes);
}

void buffers_drop(struct buffers *b, int place) {
    b->places[place] = NULL;
}

void buffers_wait(struct buffers *b, void *(*fn)(void *), void *arg) {
    (void)b;
    fn(arg);
}

bool buffers_thread(void *(*fn)(void *), void *arg) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, fn, arg) != 0) return false;
    pthread_detach(thread);
    return true;
}
