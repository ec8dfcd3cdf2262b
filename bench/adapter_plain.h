/* adapter_plain.h - what the adapters of malloc and of Boehm's collector have in common: a reference is stored by an
 * assignment, and a thread is one of the C library's. Included by them, after <gc.h> where there is one, which puts its
 * own functions in the place of pthread_create and pthread_join. */
#include <pthread.h>

typedef struct ad_thread {
    int unused;
} ad_thread;

/* A reference field of whatever struct pointer type. */
typedef void *__attribute__((__may_alias__)) ad_slot;

static inline void ad_init(ad_thread *thread, void *obj, void *slot, void *ref) {
    (void)thread, (void)obj;
    *(ad_slot *)slot = ref;
}

static inline void ad_store(ad_thread *thread, void *obj, void *slot, void *ref) {
    ad_init(thread, obj, slot, ref);
}

static inline void ad_poll(ad_thread *thread) {
    (void)thread;
}

static inline void ad_finish(ad_thread *thread) {
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
