/* adapter_boehm.h - the workloads' calls over Boehm's collector. Included by adapter.h.
 *
 * As its manual has it: threads registered by its pthread redirection, thread-local free lists, GC_malloc_atomic for
 * what holds no references, GC_malloc_ignore_off_page for arrays of more than 100 KB whose start is kept. With
 * ADAPTER_BOEHM_TYPED objects come from GC_malloc_explicitly_typed with the same bitmaps that trigc is given.
 * Its own pauses are taken from its events: the world stopped (PRE_STOP_WORLD to POST_START_WORLD) and the whole
 * collection (START to END), during which it holds its allocation lock. */
#ifndef GC_THREADS
#define GC_THREADS
#endif
#include <gc.h>
#include <gc/gc_typed.h>

#include "bench/adapter_plain.h"
#include "bench/events.h"

#if defined(ADAPTER_BOEHM_TYPED)
#define AD_NAME "boehm typed"
#else
#define AD_NAME "boehm"
#endif

/* The words of the fields that hold references, as a bitmap of up to 64 words. */
#define AD__BIT(T_, f_) ((GC_word)1 << (offsetof(T_, f_) / sizeof(GC_word)))
#define AD__BITS1(T_, a_) AD__BIT(T_, a_)
#define AD__BITS2(T_, a_, b_) (AD__BIT(T_, a_) | AD__BIT(T_, b_))
#define AD__BITS3(T_, a_, b_, c_) (AD__BITS2(T_, a_, b_) | AD__BIT(T_, c_))
#define AD__BITS4(T_, a_, b_, c_, d_) (AD__BITS3(T_, a_, b_, c_) | AD__BIT(T_, d_))
#define AD__PICK(a_, b_, c_, d_, pick_, ...) pick_
#define AD__BITS(T_, ...) AD__PICK(__VA_ARGS__, AD__BITS4, AD__BITS3, AD__BITS2, AD__BITS1, 0)(T_, __VA_ARGS__)

#define AD_TYPE(name_, T_, ...)                                    \
    enum { name_##_size = sizeof(T_) };                            \
    static const GC_word name_##_bits = AD__BITS(T_, __VA_ARGS__); \
    static GC_descr name_##_descr

#define AD_PREPARE(name_) ((void)(name_##_descr = GC_make_descriptor(&name_##_bits, name_##_size / sizeof(GC_word))))

#if defined(ADAPTER_BOEHM_TYPED)
#define AD_NEW(thread_, name_) \
    ((void)(thread_), ad_checked(GC_malloc_explicitly_typed(name_##_size, name_##_descr), name_##_size))
#else
#define AD_NEW(thread_, name_) ((void)(thread_), (void)name_##_descr, ad_checked(GC_malloc(name_##_size), name_##_size))
#endif

enum { AD_LARGE_BYTES = 100 * 1000 };

static inline void *ad_new_leaf(ad_thread *thread, size_t size_bytes) {
    (void)thread;
    return ad_checked(GC_malloc_atomic(size_bytes), size_bytes);
}

static inline void *ad_new_slots(ad_thread *thread, size_t n) {
    size_t size_bytes = n * sizeof(void *);
    (void)thread;
    if (size_bytes > AD_LARGE_BYTES) return ad_checked(GC_malloc_ignore_off_page(size_bytes), size_bytes);
    return ad_checked(GC_malloc(size_bytes), size_bytes);
}

static inline void *ad_manual(size_t size_bytes) {
    return ad_checked(GC_malloc_atomic_uncollectable(size_bytes), size_bytes);
}

static inline void ad_manual_free(void *block) {
    GC_free(block);
}

enum { AD_FREES = 0 };

static inline void ad_free(ad_thread *thread, void *obj) {
    (void)thread, (void)obj;
}

/* Its pauses, written with the world stopped or its lock held; read at the end. */
struct ad_boehm_log {
    struct hdr stopped, whole;
    uint64_t stop_ticks, start_ticks; /* 0: not in one */
};
extern struct ad_boehm_log ad_log; /* defined by the worker */

static inline uint64_t ad_log_end(struct hdr *h, uint64_t *since) {
    uint64_t ns = *since ? clock_ns(clock_ticks() - *since) : 0;
    if (ns) hdr_record(h, ns);
    *since = 0;
    return ns;
}

/* All threads were stopped: one that stands for each of them. */
static inline void ad_tell_stopped(uint64_t ns) {
    if (ns) events_pause(0, clock_posix_ns(), ns, "stopped");
}

static inline void ad_on_event(GC_EventType event) {
    switch (event) {
    case GC_EVENT_PRE_STOP_WORLD: ad_log.stop_ticks = clock_ticks(); break;
    case GC_EVENT_POST_START_WORLD: ad_tell_stopped(ad_log_end(&ad_log.stopped, &ad_log.stop_ticks)); break;
    case GC_EVENT_START: ad_log.start_ticks = clock_ticks(); break;
    case GC_EVENT_END: (void)ad_log_end(&ad_log.whole, &ad_log.start_ticks); break;
    default: break;
    }
}

static inline ad_thread *ad_start(int incremental) {
    static ad_thread thread;
    if (!hdr_init(&ad_log.stopped) || !hdr_init(&ad_log.whole)) ad_no_memory(sizeof ad_log);
    GC_INIT();
    GC_allow_register_threads();
    GC_set_on_collection_event(ad_on_event);
    if (incremental) GC_enable_incremental();
    return &thread;
}

static inline void ad_collect(ad_thread *thread) {
    (void)thread;
    GC_gcollect();
}

static inline void ad_report(struct ad_report *report) {
    report->collections = GC_get_gc_no();
    report->own_worst_ns = ad_log.stopped.max_ns;
    report->nkinds = 2;
    report->kinds[0] = (struct ad_own){"world stopped", ad_log.stopped.total, ad_log.stopped.max_ns,
                                       ad_log.stopped.sum_ns, 0};
    report->kinds[1] = (struct ad_own){"collection", ad_log.whole.total, ad_log.whole.max_ns, ad_log.whole.sum_ns, 0};
}
