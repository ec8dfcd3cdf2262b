/* adapter_malloc.h - the field benchmark over malloc and free: the C library's, or whatever LD_PRELOAD puts there. */
#ifndef FIELD_ADAPTER_MALLOC_H
#define FIELD_ADAPTER_MALLOC_H

#include <malloc.h>
#include <stdlib.h>

#define AD_NAME "malloc"
#define AD_FREES 1

typedef struct ad_thread ad_thread;

/* Objects with pointers are zeroed here too: what a program pays that wants what a collector must give. */
#define AD_NEW(t, n, kind) ad_new_##kind(n)

static inline void *ad_new_pointers(size_t size_bytes) {
    return calloc(1, size_bytes);
}

static inline void *ad_new_leaf(size_t size_bytes) {
    return malloc(size_bytes);
}

static inline void ad_setup(void) {}

static inline ad_thread *ad_attach(void) {
    return NULL;
}

static inline void ad_detach(ad_thread *t) {
    (void)t;
}

static inline void ad_wait(ad_thread *t, void *(*fn)(void *), void *arg) {
    (void)t;
    fn(arg);
}

static inline void *ad_bytes(ad_thread *t, size_t size_bytes) {
    (void)t;
    return malloc(size_bytes);
}

static inline void *ad_refs(ad_thread *t, size_t n) {
    (void)t;
    return calloc(n, sizeof(void *));
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
    free(obj);
}

static inline void ad_collect(ad_thread *t) {
    (void)t;
}

static inline void ad_trim(ad_thread *t) {
    (void)t;
    malloc_trim(0); /* does nothing where another malloc is in its place */
}

static inline uint64_t ad_collections(void) {
    return 0;
}

static inline void ad_report(void) {}

#endif
