/* adapter_manual.h - the field benchmark over trigc's manual memory. The threads are attached, as those of a host that
 * also has collected objects are. */
#ifndef FIELD_ADAPTER_MANUAL_H
#define FIELD_ADAPTER_MANUAL_H

#include <stdio.h>
#include <stdlib.h>
#include <trigc.h>

#define AD_NAME "trigc manual"
#define AD_FREES 1

typedef tri_thread ad_thread;

extern tri_heap *ad_heap; /* main.c */

/* Objects with pointers are zeroed, as the malloc adapter does. */
#define AD_NEW(t, n, kind) ad_new_##kind(n)

static inline void *ad_new_pointers(size_t size_bytes) {
    return tri_manual_calloc(ad_heap, 1, size_bytes);
}

static inline void *ad_new_leaf(size_t size_bytes) {
    return tri_manual_alloc(ad_heap, size_bytes);
}

static inline ad_thread *ad_attach(void) {
    tri_thread *thread;
    if (tri_attach(ad_heap, 0, &thread) != TRI_OK) {
        fprintf(stderr, "field: %s\n", tri_last_error());
        exit(2);
    }
    return thread;
}

static inline void ad_setup(void) {
    if (tri_heap_create(NULL, &ad_heap) != TRI_OK) {
        fprintf(stderr, "field: %s\n", tri_last_error());
        exit(2);
    }
}

static inline void ad_detach(ad_thread *t) {
    tri_detach(t);
}

static inline void ad_wait(ad_thread *t, void *(*fn)(void *), void *arg) {
    tri_blocking(t, fn, arg);
}

static inline void *ad_bytes(ad_thread *t, size_t size_bytes) {
    (void)t;
    return tri_manual_alloc(ad_heap, size_bytes);
}

static inline void *ad_refs(ad_thread *t, size_t n) {
    (void)t;
    return tri_manual_calloc(ad_heap, n, sizeof(void *));
}

static inline void *ad_words(ad_thread *t, size_t size_bytes) {
    (void)t;
    return ad_new_pointers(size_bytes);
}

static inline void ad_poll(ad_thread *t) {
    tri_poll(t);
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
    tri_manual_free(ad_heap, obj);
}

static inline void ad_collect(ad_thread *t) {
    tri_collect(t);
}

static inline void ad_trim(ad_thread *t) {
    (void)t;
    tri_trim(ad_heap);
}

static inline uint64_t ad_collections(void) {
    tri_stats stats = {.struct_size = sizeof stats};
    return tri_stats_get(ad_heap, &stats) == TRI_OK ? stats.cycles : 0;
}

/* The heap's own words at the end, after the figures. */
static inline void ad_report(void) {
    tri_stats stats = {.struct_size = sizeof stats};
    if (tri_stats_get(ad_heap, &stats) != TRI_OK) return;
    printf("heap_kb %zu\ncommitted_kb %zu\nfree_kb %zu\nmetadata_kb %zu\nreturned_kb %llu\n", stats.heap_bytes >> 10,
           stats.committed_bytes >> 10, stats.free_bytes >> 10, stats.metadata_bytes >> 10,
           (unsigned long long)(stats.returned_bytes >> 10));
}

#endif
