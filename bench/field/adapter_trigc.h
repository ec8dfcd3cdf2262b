/* adapter_trigc.h - the field benchmark over trigc's collected objects, in its default configuration. */
#ifndef FIELD_ADAPTER_TRIGC_H
#define FIELD_ADAPTER_TRIGC_H

#include <stdio.h>
#include <stdlib.h>
#include <trigc.h>
#include "bench/metadata.h"

#define AD_NAME "trigc"
#define AD_FREES 0

typedef tri_thread ad_thread;

extern tri_heap *ad_heap; /* main.c */

/* A struct whose first word is a reference, and one without, of each size. */
#define AD_TYPES(n)                                                                                          \
    struct pointers_##n {                                                                                    \
        void *ref;                                                                                           \
        uint64_t words[(n) / 8 - 1];                                                                         \
    };                                                                                                       \
    struct leaf_##n {                                                                                        \
        uint64_t words[(n) / 8];                                                                             \
    };                                                                                                       \
    TRI_TYPE(type_pointers_##n, struct pointers_##n, ref);                                                   \
    static tri_type type_leaf_##n = TRI__TYPE_INIT("leaf " #n, sizeof(struct leaf_##n), 0, TRI_TYPE_LEAF, 0, \
                                                   TRI__NONE, TRI__NONE, TRI__NONE);
FIELD_SIZES(AD_TYPES)
TRI_POINTER_ARRAY_TYPE(type_refs, 0);

#define AD_NEW(t, n, kind) tri_new((t), &type_##kind##_##n)

static inline ad_thread *ad_attach(void) {
    tri_thread *thread;
    if (tri_attach(ad_heap, 0, &thread) != TRI_OK) {
        fprintf(stderr, "field: %s\n", tri_last_error());
        exit(2);
    }
    return thread;
}

static inline void ad_setup(void) {
    /* Registered here, so that a type that a load does not use is not an unused variable. */
#define AD_REGISTER(n) (void)(tri_type_register(&type_pointers_##n) | tri_type_register(&type_leaf_##n));
    FIELD_SIZES(AD_REGISTER)
#undef AD_REGISTER
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
    return tri_new_bytes(t, size_bytes);
}

static inline void *ad_refs(ad_thread *t, size_t n) {
    return tri_new_n(t, &type_refs, n);
}

static inline void *ad_words(ad_thread *t, size_t size_bytes) {
    return tri_new_n(t, &type_refs, size_bytes / sizeof(void *));
}

static inline void ad_poll(ad_thread *t) {
    tri_poll(t);
}

static inline void ad_init(ad_thread *t, void *obj, void *slot, const void *ref) {
    tri_init(t, obj, slot, ref);
}

static inline void ad_put(ad_thread *t, void *obj, void *slot, const void *ref) {
    tri_store(t, obj, slot, ref);
}

static inline void ad_free(ad_thread *t, void *obj) {
    (void)t;
    (void)obj;
}

static inline void ad_collect(ad_thread *t) {
    tri_collect(t);
}

static inline void ad_trim(ad_thread *t) {
    tri_trim(tri_thread_heap(t));
}

static inline uint64_t ad_collections(void) {
    tri_stats stats = {.struct_size = sizeof stats};
    return tri_stats_get(ad_heap, &stats) == TRI_OK ? stats.cycles : 0;
}

/* The heap's own words at the end, after the figures. */
static inline void ad_report(void) {
    tri_stats stats = {.struct_size = sizeof stats};
    if (tri_stats_get(ad_heap, &stats) != TRI_OK) return;
    printf("heap_kb %zu\ncommitted_kb %zu\nfree_kb %zu\nreturned_kb %llu\n", stats.heap_bytes >> 10,
           stats.committed_bytes >> 10, stats.free_bytes >> 10, (unsigned long long)(stats.returned_bytes >> 10));
    bench_metadata_print(ad_heap);
}

#endif
