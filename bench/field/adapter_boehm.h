/* adapter_boehm.h - the field benchmark over Boehm's collector as its manual has it: GC_malloc, GC_malloc_atomic for
 * what holds no references, thread-local free lists and its parallel marker. */
#ifndef FIELD_ADAPTER_BOEHM_H
#define FIELD_ADAPTER_BOEHM_H

#define GC_THREADS
#define GC_NO_THREAD_REDIRECTS
#include <gc/gc.h>
#include <stdlib.h>

#define AD_NAME "boehm"
#define AD_FREES 0

typedef struct ad_thread ad_thread;

#define AD_NEW(t, n, kind) ad_new_##kind(n)

static inline void *ad_new_pointers(size_t size_bytes) {
    return size_bytes > 100000 ? GC_malloc_ignore_off_page(size_bytes) : GC_malloc(size_bytes);
}

static inline void *ad_new_leaf(size_t size_bytes) {
    return size_bytes > 100000 ? GC_malloc_atomic_ignore_off_page(size_bytes) : GC_malloc_atomic(size_bytes);
}

static inline void ad_setup(void) {
    GC_INIT();
    GC_allow_register_threads();
}

static inline ad_thread *ad_attach(void) {
    struct GC_stack_base base;
    if (!GC_thread_is_registered() && GC_get_stack_base(&base) == GC_SUCCESS) GC_register_my_thread(&base);
    return NULL;
}

static inline void ad_detach(ad_thread *t) {
    (void)t;
    GC_unregister_my_thread();
}

static inline void ad_wait(ad_thread *t, void *(*fn)(void *), void *arg) {
    (void)t;
    GC_do_blocking(fn, arg);
}

static inline void *ad_bytes(ad_thread *t, size_t size_bytes) {
    (void)t;
    return ad_new_leaf(size_bytes);
}

static inline void *ad_refs(ad_thread *t, size_t n) {
    (void)t;
    return ad_new_pointers(n * sizeof(void *));
}

static inline void *ad_words(ad_thread *t, size_t size_bytes) {
    (void)t;
    return ad_new_pointers(size_bytes);
}

static inline void ad_poll(ad_thread *t) {
    (void)t;
}

static inline void ad_init(ad_thread *t, void *obj, void *slot, const void *ref) {
    (void)t;
    (void)obj;
    __atomic_store_n((uintptr_t *)slot, (uintptr_t)ref, __ATOMIC_RELAXED);
}

static inline void ad_put(ad_thread *t, void *obj, void *slot, const void *ref) {
    (void)t;
    (void)obj;
    __atomic_store_n((uintptr_t *)slot, (uintptr_t)ref, __ATOMIC_RELEASE); /* as trigc's stores are */
}

static inline void ad_free(ad_thread *t, void *obj) {
    (void)t;
    (void)obj;
}

static inline void ad_collect(ad_thread *t) {
    (void)t;
    GC_gcollect();
}

static inline void ad_trim(ad_thread *t) {
    (void)t;
    GC_gcollect_and_unmap();
}

static inline uint64_t ad_collections(void) {
    return GC_get_gc_no();
}

static inline void ad_report(void) {}

#endif
