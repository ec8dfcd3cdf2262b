/* manual_check.c - "manual_check=1" (builds with checks): after marking, with every attached thread held, each manual
 * block that is no root is read word by word, and each word that names an object which this cycle is about to free is
 * reported with both ends. What looks like a reference may be a number; a host that keeps such numbers will be told in
 * vain.
 *
 * Runs on the collector's thread between the close and H5, where a live object is marked. Threads that are not attached
 * go on; what they write meanwhile is read as it comes. Lock rank: manual (65), so that no block's pages go. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

#if TRI_CHECKS >= 1

struct reader {
    tri_heap *heap;
    const struct manual_record *record;
    uintptr_t block;
    int found;
};

static void report_word(struct reader *r, uintptr_t at, const struct slot *slot) {
    r->found++;
    if (!tri__stress_may_report(r->heap)) return;
    tri__report(
        r->heap, "manual_check",
        "the manual block %p of %llu bytes (thread %llu, operation %llu) names %s %p at offset %zu, which is about "
        "to be freed: blocks keep nothing alive; use tri_manual_root_new, or a handle",
        (void *)r->block, (unsigned long long)atomic_load_relaxed(&r->record->size_bytes),
        (unsigned long long)atomic_load_relaxed(&r->record->alloc_thread),
        (unsigned long long)atomic_load_relaxed(&r->record->alloc_op),
        layout_name(space_layout_of(&r->heap->mem.space, slot)), (void *)slot->addr, (size_t)(at - r->block));
}

static void read_word(struct reader *r, uintptr_t at, uintptr_t word) {
    const struct space *space = &r->heap->mem.space;
    struct slot slot;
    if (!space_find_slot(space, word, &slot) || !space_is_allocated(space, &slot) || space_is_marked(space, &slot) ||
        space_layout_of(space, &slot) == 0)
        return;
    report_word(r, at, &slot);
}

/* The world is stopped, but a thread that is not attached may write to its blocks, with plain stores of the host's.
 * Each word is loaded whole, and is only asked what it would name: a report may come from a word that has just
 * changed. */
__attribute__((no_sanitize("thread"))) static uintptr_t word_at(uintptr_t at) {
    return atomic_load_relaxed((const uintptr_t *)at); /* no partner: see above */
}

static void read_block(struct reader *r, size_t slot_bytes) {
    size_t size = (size_t)atomic_load_relaxed(&r->record->size_bytes); /* as in copy, manual_record.c */
    for (uintptr_t at = r->block, end = at + (min_size(size, slot_bytes) & ~(size_t)7); at < end; at += 8)
        read_word(r, at, word_at(at));
}

static void read_span(struct reader *r, const struct manual_span *ms) {
    size_t slot_bytes = ms->slot_bytes ? ms->slot_bytes : ms->span->npages << PAGE_SHIFT;
    for (uint32_t i = 0; ms->records && i < ms->nslots; i++) {
        if (atomic_load_acquire(&ms->records[i].live) != MANUAL_LIVE) continue; /* pairs with note_alloc */
        r->record = &ms->records[i];
        r->block = ms->base + i * slot_bytes;
        read_block(r, slot_bytes);
    }
}

int tri__manual_check(tri_heap *heap) {
    struct reader r = {.heap = heap};
    struct space *space = &heap->mem.space;
    tri__lock_acquire(&heap->mem.manual.lock);
    size_t npages = atomic_load_acquire(&space->committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages; page++) {
        const struct manual_span *ms = manual_span_of(space, space_page_addr(space, page));
        if (!ms) continue;
        read_span(&r, ms);
        page = ms->span->first_page + ms->span->npages - 1;
    }
    tri__lock_release(&heap->mem.manual.lock);
    return r.found;
}

#else

int tri__manual_check(tri_heap *heap) {
    (void)heap;
    return 0;
}

#endif
