/* adapter_malloc.h - the workloads' calls over malloc and free: a program that never collects. Included by adapter.h.
 *
 * The C library's malloc, or the one that LD_PRELOAD puts in its place. Objects are not zeroed; what a workload drops
 * it frees by hand, at the place where it drops it. */
#include "bench/adapter_plain.h"

#define AD_NAME "malloc"

#define AD_TYPE(name_, T_, ...) enum { name_##_size = sizeof(T_) }
#define AD_PREPARE(name_) ((void)0)
#define AD_NEW(thread_, name_) ((void)(thread_), ad_checked(malloc(name_##_size), name_##_size))

static inline void *ad_new_leaf(ad_thread *thread, size_t size_bytes) {
    (void)thread;
    return ad_checked(malloc(size_bytes), size_bytes);
}

static inline void *ad_new_slots(ad_thread *thread, size_t n) {
    (void)thread;
    return ad_checked(calloc(n, sizeof(void *)), n * sizeof(void *));
}

enum { AD_FREES = 1 };

static inline void ad_free(ad_thread *thread, void *obj) {
    (void)thread;
    free(obj);
}

static inline void *ad_manual(size_t size_bytes) {
    return ad_checked(malloc(size_bytes), size_bytes);
}

static inline void ad_manual_free(void *block) {
    free(block);
}

static inline ad_thread *ad_start(int incremental) {
    static ad_thread thread;
    (void)incremental;
    return &thread;
}

static inline void ad_collect(ad_thread *thread) {
    (void)thread;
}

static inline void ad_report(struct ad_report *report) {
    report->collections = 0;
    report->own_worst_ns = 0;
    report->nkinds = 0;
}
