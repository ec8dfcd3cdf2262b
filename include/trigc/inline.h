/* trigc/inline.h - the fast paths: a bump, a barrier test, a poll. Included by trigc.h; never include it alone.
 *
 * Everything here is frozen into the programs that are compiled against it: the head of `struct tri_thread` and
 * `struct tri_hole` may change only together with TRI_ABI, which heap creation passes to the library (it refuses a
 * header of another number). Checked and stress modes use the same code: the library closes a fast path by emptying the
 * holes and arming the barrier, never by another header.
 *
 * Atomics: the __atomic builtins on plain words, because C++ includes this file too. Partners are named at each. */
#ifndef TRIGC_H
#include <trigc.h> /* which includes this file */
#endif
#ifndef TRIGC_INLINE_H
#define TRIGC_INLINE_H

#ifdef __cplusplus
extern "C" {
#endif

#define TRI_ABI 3u

#if defined(__GNUC__)
#define TRI__LIKELY(x) __builtin_expect(!!(x), 1)
#define TRI__UNLIKELY(x) __builtin_expect(!!(x), 0)
#endif

/* A run of free slots that one thread owns: allocation bumps `cursor` by `slot_bytes` until it meets `limit`. */
typedef struct tri_hole {
    char *cursor;
    char *limit;
    uint32_t slot_bytes;
    uint32_t next; /* the library's */
    void *span;    /* the library's */
} tri_hole;

/* The head of an attachment; the rest is the library's. */
struct tri_thread {
    uint64_t unused; /* the library's, once the thread is detached */
    /* By layout number, an entry for every number there can be, most of them untouched memory; owner writes (or the
     * collector, while the owner is blocked). */
    tri_hole *holes;
    uint32_t armed;   /* barrier on; written only in this thread's safepoints or under its state word */
    uint32_t request; /* nonzero: a safepoint has something to do; set by collectors with release */
    uint32_t reserved, unused_too;
    tri_frame *frames; /* newest frame of precise locals; owner */
};

/* Slow paths. Called by the code below only. */
TRI_API int tri_heap_create_abi(const tri_config *config, uint32_t abi, tri_heap **out);
TRI_API void *tri_new_slow(tri_thread *thread, tri_type *type);
TRI_API void tri_poll_slow(tri_thread *thread);
TRI_API void tri_store_slow(tri_thread *thread, void *obj, void *slot, tri_word value);
TRI_API void tri_root_store_slow(tri_thread *thread, tri_root *root, void *slot, tri_word value);
TRI_API void *tri_weak_load_slow(tri_thread *thread, const void *slot);
TRI_API void tri_frame_pop_slow(tri_thread *thread, tri_frame *frame);

static inline int tri_heap_create(const tri_config *config, tri_heap **out) {
    return tri_heap_create_abi(config, TRI_ABI, out);
}

static inline void tri_poll(tri_thread *thread) {
    /* Relaxed: the slow path loads again with acquire, whose partner is the release in handshake_post. */
    if (TRI__UNLIKELY(__atomic_load_n(&thread->request, __ATOMIC_RELAXED) != 0)) tri_poll_slow(thread);
}

static inline void *tri_new(tri_thread *thread, tri_type *type) {
    /* Relaxed: a hole there has slots only if this thread's own slow path has filled it. Before registration it is the
     * first one, which never has. */
    uint32_t offset = __atomic_load_n(&type->hole, __ATOMIC_RELAXED);
    tri_hole *hole = (tri_hole *)(void *)((char *)thread->holes + offset);
    char *obj = hole->cursor;
    if (TRI__LIKELY(obj != hole->limit)) {
        /* Relaxed: only tri_find of other threads reads it meanwhile, to refuse slots that are not objects yet. */
        __atomic_store_n(&hole->cursor, obj + hole->slot_bytes, __ATOMIC_RELAXED);
        return obj;
    }
    return tri_new_slow(thread, type);
}

static inline void tri_init_value(tri_thread *thread, void *obj, void *slot, tri_word value) {
    (void)thread;
    (void)obj;
    __atomic_store_n((tri_word *)slot, value,
                     __ATOMIC_RELAXED); /* published by a later release: tri_store, a handshake */
}

static inline void tri_init(tri_thread *thread, void *obj, void *slot, const void *ref) {
    tri_init_value(thread, obj, slot, (tri_word)(uintptr_t)ref);
}

static inline void tri_store_value(tri_thread *thread, void *obj, void *slot, tri_word value) {
    /* Relaxed: only this thread's safepoints change it (or the collector while the thread is blocked, ordered by the
     * state word). */
    if (TRI__UNLIKELY(__atomic_load_n(&thread->armed, __ATOMIC_RELAXED) != 0)) {
        tri_store_slow(thread, obj, slot, value);
        return;
    }
    __atomic_store_n((tri_word *)slot, value, __ATOMIC_RELEASE); /* pairs with the marker's and tri_load's acquire */
}

static inline void tri_store(tri_thread *thread, void *obj, void *slot, const void *ref) {
    tri_store_value(thread, obj, slot, (tri_word)(uintptr_t)ref);
}

static inline tri_word tri_load_value(const void *slot) {
    return __atomic_load_n((const tri_word *)slot, __ATOMIC_ACQUIRE); /* pairs with tri_store's release */
}

static inline void *tri_load(const void *slot) {
    return (void *)(uintptr_t)tri_load_value(slot);
}

static inline void *tri_weak_load(tri_thread *thread, const void *slot) {
    /* Relaxed, as in tri_store. Disarmed: no cycle that could take the object away is past this thread's H1, and what
     * the last one found dead is cleared before its H5. */
    if (TRI__UNLIKELY(__atomic_load_n(&thread->armed, __ATOMIC_RELAXED) != 0)) return tri_weak_load_slow(thread, slot);
    return tri_load(slot);
}

static inline void tri_root_store_value(tri_thread *thread, tri_root *root, void *slot, tri_word value) {
    if (TRI__UNLIKELY(__atomic_load_n(&thread->armed, __ATOMIC_RELAXED) != 0)) {
        tri_root_store_slow(thread, root, slot, value);
        return;
    }
    __atomic_store_n((tri_word *)slot, value, __ATOMIC_RELEASE); /* pairs with the root scanner's acquire */
}

static inline void tri_root_store(tri_thread *thread, tri_root *root, void *slot, const void *ref) {
    tri_root_store_value(thread, root, slot, (tri_word)(uintptr_t)ref);
}

/* A handle points at its slot. */
struct tri_ref {
    tri_word word;
};

static inline void *tri_deref(tri_handle handle) {
    return tri_load(&handle->word);
}

static inline void tri_frame_push(tri_thread *thread, tri_frame *frame) {
    frame->prev = thread->frames;
    thread->frames = frame;
}

static inline void tri_frame_pop(tri_thread *thread, tri_frame *frame) {
    if (TRI__UNLIKELY(thread->frames != frame)) {
        tri_frame_pop_slow(thread, frame);
        return;
    }
    thread->frames = frame->prev;
    frame->prev = frame; /* so that a second pop is seen */
}

/* Pieces of the TRI_TYPE macros. */
#define TRI__NONE \
    { 0, 0, 0, 0 }
#define TRI__LIST(array_) \
    { 0, 0, (uint32_t)(sizeof(array_) / sizeof((array_)[0])), array_ }
#define TRI__TYPE_INIT(text_, size_, elem_, flags_, enc_, ptrs_, vals_, elem_ptrs_)                               \
    {                                                                                                             \
        (uint32_t)sizeof(tri_type), 0, text_, size_, elem_, 0, flags_, enc_, ptrs_, vals_, TRI__NONE, elem_ptrs_, \
            TRI__NONE, TRI__NONE, 0, 0, TRI__NONE, TRI__NONE                                                      \
    }
#define TRI__TYPE_INIT_WEAK(text_, size_, weaks_)                                                            \
    {                                                                                                        \
        (uint32_t)sizeof(tri_type), 0, text_, size_, 0, 0, 0, 0, TRI__NONE, TRI__NONE, TRI__NONE, TRI__NONE, \
            TRI__NONE, TRI__NONE, 0, 0, weaks_, TRI__NONE                                                    \
    }
#define TRI__OFF(T, f) (uint32_t) offsetof(T, f)
#define TRI__OFFSETS(T, ...)                                                                                       \
    TRI__PICK(__VA_ARGS__, TRI__O16, TRI__O15, TRI__O14, TRI__O13, TRI__O12, TRI__O11, TRI__O10, TRI__O9, TRI__O8, \
              TRI__O7, TRI__O6, TRI__O5, TRI__O4, TRI__O3, TRI__O2, TRI__O1, TRI__O0)                              \
    (T, __VA_ARGS__)
#define TRI__PICK(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, pick, ...) pick
#define TRI__O1(T, a) TRI__OFF(T, a)
#define TRI__O2(T, a, ...) TRI__OFF(T, a), TRI__O1(T, __VA_ARGS__)
#define TRI__O3(T, a, ...) TRI__OFF(T, a), TRI__O2(T, __VA_ARGS__)
#define TRI__O4(T, a, ...) TRI__OFF(T, a), TRI__O3(T, __VA_ARGS__)
#define TRI__O5(T, a, ...) TRI__OFF(T, a), TRI__O4(T, __VA_ARGS__)
#define TRI__O6(T, a, ...) TRI__OFF(T, a), TRI__O5(T, __VA_ARGS__)
#define TRI__O7(T, a, ...) TRI__OFF(T, a), TRI__O6(T, __VA_ARGS__)
#define TRI__O8(T, a, ...) TRI__OFF(T, a), TRI__O7(T, __VA_ARGS__)
#define TRI__O9(T, a, ...) TRI__OFF(T, a), TRI__O8(T, __VA_ARGS__)
#define TRI__O10(T, a, ...) TRI__OFF(T, a), TRI__O9(T, __VA_ARGS__)
#define TRI__O11(T, a, ...) TRI__OFF(T, a), TRI__O10(T, __VA_ARGS__)
#define TRI__O12(T, a, ...) TRI__OFF(T, a), TRI__O11(T, __VA_ARGS__)
#define TRI__O13(T, a, ...) TRI__OFF(T, a), TRI__O12(T, __VA_ARGS__)
#define TRI__O14(T, a, ...) TRI__OFF(T, a), TRI__O13(T, __VA_ARGS__)
#define TRI__O15(T, a, ...) TRI__OFF(T, a), TRI__O14(T, __VA_ARGS__)
#define TRI__O16(T, a, ...) TRI__OFF(T, a), TRI__O15(T, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#endif
