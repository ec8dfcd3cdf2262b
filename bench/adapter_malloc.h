/* adapter_malloc.h - the workloads' calls over malloc and free: a program that never collects. Included by adapter.h.
 *
 * The C library's malloc, or the one that LD_PRELOAD puts in its place. Objects are not zeroed; what a workload drops
 * it frees by hand, at the place where it drops it. */
#include <pthread.h>

#define AD_NAME "malloc"

typedef struct ad_thread {
    int unused;
} ad_thread;

/* A reference field of whatever struct pointer type. */
typedef void *__attribute__((__may_alias__)) ad_slot;

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

static inline void ad_init(ad_thread *thread, void *obj, void *slot, void *ref) {
    (void)thread, (void)obj;
    *(ad_slot *)slot = ref;
}

static inline void ad_store(ad_thread *thread, void *obj, void *slot, void *ref) {
    ad_init(thread, obj, slot, ref);
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

static inline void ad_poll(ad_thread *thread) {
    (void)thread;
}

static inline ad_thread *ad_start(int incremental) {
    static ad_thread thread;
    (void)incremental;
    return &thread;
}

static inline void ad_finish(ad_thread *thread) {
    (void)thread;
}

static inline void ad_collect(ad_thread *thread) {
    (void)thread;
}

struct ad_job {
    void (*fn)(ad_thread *, unsigned, void *);
    void *arg;
    unsigned index;
};

static inline void *ad_job_thread(void *arg) {
    static ad_thread thread;
    struct ad_job *job = arg;
    job->fn(&thread, job->index, job->arg);
    return NULL;
}

static inline void ad_run(ad_thread *thread, unsigned n, void (*fn)(ad_thread *, unsigned, void *), void *arg) {
    struct ad_job jobs[16];
    pthread_t ids[16];
    if (n == 1) {
        fn(thread, 0, arg);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        jobs[i] = (struct ad_job){fn, arg, i};
        if (pthread_create(&ids[i], NULL, ad_job_thread, &jobs[i]) != 0) abort();
    }
    for (unsigned i = 0; i < n; i++) pthread_join(ids[i], NULL);
}

static inline void ad_report(struct ad_report *report) {
    report->collections = 0;
    report->own_worst_ns = 0;
    report->nkinds = 0;
}
