/* manual.c - manual memory, the public calls: their arguments, what happens without memory, and in builds with checks
 * the reports of misuse. The blocks themselves are alloc/manual.c's.
 *
 * These calls are no safepoints and wait for nobody, so that any thread may make them anywhere, inside tri_blocking
 * too. Blocks that are roots are ordinary blocks with a registered range over them (roots.c).
 *
 * Invariants: I-MANU1 no lock is held, and no safepoint reached, while the host's oom hook runs or a block is freed. */
#include <stdio.h>
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"

/* What is asked for. */
struct want {
    const char *call;
    size_t align_bytes, size_bytes;
    bool root;
};

/* ---- without memory ------------------------------------------------------------------------------------------ */

static void *try_once(tri_heap *heap, const struct want *w, bool *clean) {
    NO_FORK_REST(); /* without memory it claims empty spans */
    *clean = false;
    if (w->align_bytes > MANUAL_ALIGN) return tri__manual_alloc_aligned(&heap->mem, w->align_bytes, w->size_bytes);
    return tri__manual_alloc(&heap->mem, w->size_bytes, clean);
}

/* Whether the hook may be called here: it wants a thread of the heap that is not in a blocking region. */
static bool may_call_hook(tri_heap *heap) {
    tri_thread *thread = tri__self(heap);
    return heap->config.oom && thread->reserved == 0 && /* not the sentinel of unattached threads */
           atomic_load_relaxed(&mutator_of(thread)->os->state) == OS_RUNNING; /* own word */
}

static bool ask_host(tri_heap *heap, size_t size_bytes) {
    IN_HOOK();
    check_cheap(tri__lock_none_held(), "I-MANU1: no lock is held while the host's hook runs");
    return heap->config.oom(heap, size_bytes, heap->config.user) != 0;
}

static void request_cycle(tri_heap *heap, const struct want *w) {
    if (ceil_div(w->size_bytes, PAGE_BYTES) > atomic_load_relaxed(&heap->mem.limit_pages)) return; /* an option */
    if (atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_NO_CYCLES) return;
    if (atomic_swap_relaxed(&heap->triggered, 1) == 0) tri__cycle_request(heap, "limit"); /* as in pace_once */
}

static TRI_COLD void *without_memory(tri_heap *heap, const struct want *w, bool *clean) {
    void *block = NULL;
    request_cycle(heap, w);
    if (may_call_hook(heap) && ask_host(heap, w->size_bytes)) block = try_once(heap, w, clean);
    if (!block && !tri__manual_cache(&heap->mem))
        tri__error(TRI_ENOMEM, w->call,
                   "no record for the blocks of this thread: the process had no pthread key left, or has no memory");
    else if (!block)
        tri__error(TRI_ENOMEM, w->call,
                   "no memory for %zu bytes: %zu of %zu bytes are in use, %zu of them in manual memory; free blocks, "
                   "release references, raise hard_limit_bytes, or give the process more address space",
                   w->size_bytes, atomic_load_relaxed(&heap->mem.used_pages) << PAGE_SHIFT, /* counters */
                   atomic_load_relaxed(&heap->mem.limit_pages) << PAGE_SHIFT,
                   tri__manual_pages(&heap->mem) << PAGE_SHIFT);
    return block;
}

/* ---- what builds with checks note ---------------------------------------------------------------------------- */

#if TRI_CHECKS >= 1

static void report_misuse(tri_heap *heap, const char *call, const void *block, enum manual_verdict verdict,
                          const struct manual_record *r) {
    static const char *const what[] = {
        [MANUAL_FOREIGN] = "is no block of this heap",
        [MANUAL_INTERIOR] = "lies inside a block, or beyond the last one of its pages; free the block's start",
        [MANUAL_FREED] = "has been freed already",
        [MANUAL_ROOT] = "is a block of tri_manual_root_new, or was none when its root was freed; use the other call"};
    char history[224] = "";
    if (r->alloc_op)
        snprintf(history, sizeof history,
                 "; it had %llu bytes, allocated by thread %llu as operation %llu, last freed by thread %llu as %llu",
                 (unsigned long long)r->size_bytes, (unsigned long long)r->alloc_thread,
                 (unsigned long long)r->alloc_op, (unsigned long long)r->free_thread, (unsigned long long)r->free_op);
    if (verdict == MANUAL_FOREIGN && tri__manual_in_other_heap(&heap->mem, (uintptr_t)block))
        snprintf(history, sizeof history, ": it belongs to another heap of this program");
    else if (verdict == MANUAL_FOREIGN && space_contains(&heap->mem.space, (uintptr_t)block))
        snprintf(history, sizeof history, "; objects are freed by the collector, or with tri_free");
    atomic_add_relaxed(&heap->stress.reports, 1); /* a counter */
    tri__report(heap, call, "%p %s%s", block, what[verdict], history);
}

static void *note(tri_heap *heap, const struct want *w, void *block) {
    tri__manual_note_alloc(&heap->mem, block, w->size_bytes, w->root);
    return block;
}

/* False, reported: the block may not be freed. */
static bool may_free(tri_heap *heap, const char *call, void *block, bool root) {
    struct manual_record history;
    enum manual_verdict verdict = tri__manual_note_free(&heap->mem, block, root, &history);
    if (verdict == MANUAL_FINE) return true;
    report_misuse(heap, call, block, verdict, &history);
    return false;
}

#else

static inline void *note(tri_heap *heap, const struct want *w, void *block) {
    (void)heap, (void)w;
    return block;
}
static inline bool may_free(tri_heap *heap, const char *call, void *block, bool root) {
    (void)heap, (void)call, (void)block, (void)root;
    return true;
}

#endif

/* ---- blocks -------------------------------------------------------------------------------------------------- */

/* What the fast path has no block for. *clean: the block reads as zero. */
static TRI_COLD void *allocate(tri_heap *heap, const struct want *w, bool *clean) {
    if (!heap) {
        tri__error(TRI_EINVAL, w->call, "heap is NULL");
        return NULL;
    }
    tri__stress_delay(heap);
    void *block = try_once(heap, w, clean);
    if (!block) block = without_memory(heap, w, clean);
    return block ? note(heap, w, block) : NULL;
}

static TRI_COLD void *alloc_slow(tri_heap *heap, size_t size_bytes) {
    struct want w = {"tri_manual_alloc", 0, size_bytes, false};
    bool clean;
    return allocate(heap, &w, &clean);
}

void *tri_manual_alloc(tri_heap *heap, size_t size_bytes) {
    if (tri__callback_calls(heap, "tri_manual_alloc")) return NULL;
    IN_CALL("tri_manual_alloc");
    void *block = manual_alloc_fast(&heap->mem, size_bytes); /* NULL as heap fits no cache */
    if (TRI_UNLIKELY(!block)) return alloc_slow(heap, size_bytes);
    struct want w = {"tri_manual_alloc", 0, size_bytes, false};
    return note(heap, &w, block);
}

static void *calloc_block(tri_heap *heap, const char *call, size_t n, size_t size_bytes, bool root) {
    struct want w = {call, 0, 0, root};
    bool clean = false;
    if (__builtin_mul_overflow(n, size_bytes, &w.size_bytes)) {
        tri__error(TRI_ENOMEM, call, "%zu elements of %zu bytes are more than any address range holds", n, size_bytes);
        return NULL;
    }
    void *block = manual_alloc_fast(&heap->mem, w.size_bytes);
    block = TRI_LIKELY(block != NULL) ? note(heap, &w, block) : allocate(heap, &w, &clean);
    return block && !clean ? memset(block, 0, w.size_bytes) : block;
}

void *tri_manual_calloc(tri_heap *heap, size_t n, size_t size_bytes) {
    if (tri__callback_calls(heap, "tri_manual_calloc")) return NULL;
    IN_CALL("tri_manual_calloc");
    return calloc_block(heap, "tri_manual_calloc", n, size_bytes, false);
}

void *tri_manual_aligned(tri_heap *heap, size_t align_bytes, size_t size_bytes) {
    struct want w = {"tri_manual_aligned", align_bytes, size_bytes, false};
    bool clean;
    if (tri__callback_calls(heap, w.call)) return NULL;
    IN_CALL(w.call);
    if (!is_power_of_two(align_bytes) || align_bytes > (size_t)1 << 30) {
        tri__error(TRI_EINVAL, w.call, "align_bytes %zu is no power of two up to 1 GiB", align_bytes);
        return NULL;
    }
    return allocate(heap, &w, &clean);
}

static TRI_COLD void free_slow(tri_heap *heap, void *block) {
    if (!block) return;
    if (heap) tri__stress_delay(heap);
    if (!heap || !tri__manual_free(&heap->mem, block))
        tri__report(heap, "tri_manual_free", "%p is no block of this heap's manual memory", block);
}

static inline void free_block(tri_heap *heap, void *block) {
    if (TRI_CHECKS >= 1 && heap && block && !may_free(heap, "tri_manual_free", block, false)) return;
    if (TRI_UNLIKELY(!manual_free_fast(&heap->mem, block))) free_slow(heap, block);
}

void tri_manual_free(tri_heap *heap, void *block) {
    if (tri__callback_calls(heap, "tri_manual_free")) return;
    IN_CALL("tri_manual_free");
    free_block(heap, block);
}

size_t tri_manual_usable_size(tri_heap *heap, const void *block) {
    uintptr_t start;
    return heap && block ? tri__manual_usable(&heap->mem, (uintptr_t)block, &start) : 0;
}

void *tri_manual_realloc(tri_heap *heap, void *block, size_t size_bytes) {
    struct want w = {"tri_manual_realloc", 0, size_bytes, false};
    bool clean;
    if (tri__callback_calls(heap, w.call)) return NULL;
    IN_CALL(w.call);
    if (!block) return allocate(heap, &w, &clean);
    size_t old_bytes = tri_manual_usable_size(heap, block);
    if (old_bytes == 0) {
        tri__report(heap, w.call, "%p is no block of this heap's manual memory", block);
        return NULL;
    }
    if (size_bytes <= old_bytes && (size_bytes >= old_bytes / 2 || old_bytes <= MANUAL_ALIGN)) {
        if (may_free(heap, w.call, block, false)) return note(heap, &w, block); /* its history says so */
        return NULL;
    }
    void *moved = allocate(heap, &w, &clean);
    if (!moved) return NULL;
    memcpy(moved, block, min_size(old_bytes, size_bytes));
    free_block(heap, block);
    return moved;
}

/* Noted like a block that is a root: its words are not taken for the host's mistakes. */
void *tri__manual_table_new(tri_heap *heap, const char *call, size_t size_bytes) {
    return calloc_block(heap, call, 1, size_bytes, true);
}

void tri__manual_table_free(tri_heap *heap, void *table) {
    if (table && may_free(heap, "a weak map", table, true)) tri__manual_free(&heap->mem, table);
}

size_t tri_manual_bytes(tri_heap *heap) {
    return heap ? tri__manual_live_bytes(&heap->mem) : 0;
}

/* ---- blocks that are roots ----------------------------------------------------------------------------------- */

static tri_root *add_range(tri_thread *thread, void *block, size_t nslots, const tri_enc *enc) {
    IN_HOOK(); /* a public call in another */
    return tri_root_add(thread, block, nslots, enc);
}

static void remove_range(tri_thread *thread, tri_root *root) {
    IN_HOOK();
    tri_root_remove(thread, root);
}

void *tri_manual_root_new(tri_thread *thread, size_t nslots, const tri_enc *enc, tri_root **root) {
    struct mutator *m = tri__mutator_check(thread, "tri_manual_root_new");
    if (root) *root = NULL;
    if (!m) return NULL;
    IN_CALL("tri_manual_root_new");
    if (!root || nslots == 0) {
        tri__error(TRI_EINVAL, "tri_manual_root_new", "root is NULL, or nslots is 0");
        return NULL;
    }
    void *block = calloc_block(m->heap, "tri_manual_root_new", nslots, sizeof(tri_word), true);
    if (!block) return NULL;
    *root = add_range(thread, block, nslots, enc);
    if (*root) return block;
    if (may_free(m->heap, "tri_manual_root_new", block, true)) tri__manual_free(&m->heap->mem, block);
    return NULL;
}

void tri_manual_root_free(tri_thread *thread, tri_root *root) {
    struct mutator *m = tri__mutator_check(thread, "tri_manual_root_free");
    if (!m || !root) return;
    IN_CALL("tri_manual_root_free");
    void *block = (void *)(uintptr_t)root->slots;
    if (!may_free(m->heap, "tri_manual_root_free", block, true)) return;
    remove_range(thread, root); /* no collector reads the slots from here on */
    tri__stress_delay(m->heap);
    if (!tri__manual_free(&m->heap->mem, block))
        tri__report(m->heap, "tri_manual_root_free", "%p was not made by tri_manual_root_new", block);
}
