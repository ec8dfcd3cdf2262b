/* adapter_trigc.h - the workloads' calls over trigc. Included by adapter.h.
 *
 * A heap with the default configuration, typed descriptors, native stacks scanned conservatively. */
#include <pthread.h>
#include <string.h>

#include <trigc.h>

#include "bench/events.h"

#define AD_NAME "trigc"

typedef tri_thread ad_thread;

#define AD_TYPE(name_, ...) TRI_TYPE(name_, __VA_ARGS__)
#define AD_PREPARE(name_) ((void)tri_type_register(&name_))
#define AD_NEW(thread_, name_) ad_checked(tri_new((thread_), &name_), name_.size)

TRI_POINTER_ARRAY_TYPE(ad_slots_type, 0);

extern tri_heap *ad_heap; /* defined by the worker */

static inline void *ad_new_leaf(ad_thread *thread, size_t size_bytes) {
    return ad_checked(tri_new_bytes(thread, size_bytes), size_bytes);
}

static inline void *ad_new_slots(ad_thread *thread, size_t n) {
    return ad_checked(tri_new_n(thread, &ad_slots_type, n), n * sizeof(void *));
}

static inline void ad_init(ad_thread *thread, void *obj, void *slot, void *ref) {
    tri_init(thread, obj, slot, ref);
}

static inline void ad_store(ad_thread *thread, void *obj, void *slot, void *ref) {
    tri_store(thread, obj, slot, ref);
}

static inline void *ad_manual(size_t size_bytes) {
    return ad_checked(tri_manual_alloc(ad_heap, size_bytes), size_bytes);
}

static inline void ad_manual_free(void *block) {
    tri_manual_free(ad_heap, block);
}

enum { AD_FREES = 0 };

static inline void ad_free(ad_thread *thread, void *obj) {
    (void)thread, (void)obj;
}

static inline void ad_poll(ad_thread *thread) {
    tri_poll(thread);
}

static inline ad_thread *ad_attach(void) {
    tri_thread *thread = NULL;
    if (tri_attach(ad_heap, 0, &thread) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        exit(1);
    }
    return thread;
}

/* In the order of TRI_PAUSE_*. */
static const char *const ad_causes[TRI_PAUSE_KINDS] = {"handshake", "scan", "assist", "sweep", "wait",  "nap",
                                                       "zero",      "lock", "system", "core",  "limit", "gate"};

static inline void ad_on_event(const tri_event *event, void *user) {
    (void)user;
    if (event->kind == TRI_EVENT_PHASE)
        events_phase(event->time_ns, event->phase);
    else if (event->kind == TRI_EVENT_PAUSE)
        events_pause(event->thread_id, event->time_ns, event->pause_ns, ad_causes[event->pause_kind]);
}

static inline ad_thread *ad_start(int incremental) {
    (void)incremental; /* it always is */
    tri_config config;
    tri_config_init(&config);
    if (events_started()) {
        config.event = ad_on_event;
        config.flags |= TRI_HEAP_EVENTS;
    }
    if (tri_heap_create(&config, &ad_heap) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        exit(1);
    }
    return ad_attach();
}

static inline void ad_finish(ad_thread *thread) {
    if (tri_detach(thread) != TRI_OK || tri_heap_destroy(ad_heap) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        exit(1);
    }
}

static inline void ad_collect(ad_thread *thread) {
    (void)tri_collect(thread);
}

struct ad_job {
    void (*fn)(ad_thread *, unsigned, void *);
    void *arg;
    unsigned index, nthreads;
};

static inline void *ad_job_thread(void *arg) {
    struct ad_job *job = arg;
    ad_thread *thread = ad_attach();
    job->fn(thread, job->index, job->arg);
    tri_detach(thread);
    return NULL;
}

/* In a blocking region: the threads are started and waited for. */
static inline void *ad_job_all(void *arg) {
    struct ad_job *jobs = arg;
    pthread_t ids[16];
    unsigned n = jobs[0].nthreads;
    for (unsigned i = 0; i < n; i++)
        if (pthread_create(&ids[i], NULL, ad_job_thread, &jobs[i]) != 0) abort();
    for (unsigned i = 0; i < n; i++) pthread_join(ids[i], NULL);
    return NULL;
}

static inline void ad_run(ad_thread *thread, unsigned n, void (*fn)(ad_thread *, unsigned, void *), void *arg) {
    struct ad_job jobs[16];
    if (n == 1) {
        fn(thread, 0, arg);
        return;
    }
    for (unsigned i = 0; i < n; i++) jobs[i] = (struct ad_job){fn, arg, i, n};
    tri_blocking(thread, ad_job_all, jobs);
}

/* trigc counts its pauses by powers of two: bucket i holds those of 2^(i-1) up to 2^i ns. */
static inline void ad_report(struct ad_report *report) {
    tri_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    tri_stats_get(ad_heap, &stats);
    report->collections = stats.cycles;
    report->own_worst_ns = stats.worst_pause_ns;
    report->nkinds = 0;
    for (int kind = 0; kind < TRI_PAUSE_KINDS; kind++) {
        uint64_t buckets[64];
        int n = tri_histogram(ad_heap, kind, buckets, 64);
        struct ad_own *own = &report->kinds[report->nkinds++];
        *own = (struct ad_own){.name = ad_causes[kind], .bound = 1};
        for (int i = 0; i < n; i++) {
            if (buckets[i] == 0) continue;
            own->count += buckets[i];
            own->worst_ns = UINT64_C(1) << i;
            own->total_ns += (double)buckets[i] * (double)(UINT64_C(1) << i);
        }
    }
}
