/* manual_record.c - the history of each manual block, in builds with checks: its size, and which operations on which
 * threads gave it out and took it back last. Whether a block may be freed is decided by one compare-and-swap of its
 * record, so that of two threads that free it at once one is told.
 *
 * Records go with their span. What is known of a block whose span has been given back lies in a ring of the last frees,
 * for messages only. Lock rank: none. */
#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "alloc/manual.h"
#include "alloc/memory.h"

#if TRI_CHECKS >= 1

#include <stdlib.h>

enum { RING = 4096 };

/* The newest frees of the process; entries may tear. */
static struct {
    uintptr_t block; /* [atomic] */
    struct manual_record record;
} ring[RING];

struct manual_record *tri__manual_records_new(uint32_t nslots) {
    return calloc(nslots, sizeof(struct manual_record));
}

void tri__manual_records_drop(struct manual_record *records) {
    free(records);
}

static uint64_t next_op(struct memory *mem) {
    return atomic_add_relaxed(&mem->manual.nops, 1) + 1; /* a counter */
}

/* Field by field, relaxed: of two threads that free a block at once, the one that is refused reads while the other
 * writes, and what it reads is for a message. */
static void copy(struct manual_record *to, const struct manual_record *from) {
    atomic_store_relaxed(&to->size_bytes, atomic_load_relaxed(&from->size_bytes));
    atomic_store_relaxed(&to->alloc_op, atomic_load_relaxed(&from->alloc_op));
    atomic_store_relaxed(&to->free_op, atomic_load_relaxed(&from->free_op));
    atomic_store_relaxed(&to->alloc_thread, atomic_load_relaxed(&from->alloc_thread));
    atomic_store_relaxed(&to->free_thread, atomic_load_relaxed(&from->free_thread));
}

static void remember(uintptr_t block, const struct manual_record *r) {
    size_t i = atomic_load_relaxed(&r->free_op) % RING; /* own write */
    atomic_store_relaxed(&ring[i].block, block);
    copy(&ring[i].record, r);
}

/* The newest free of the address that the ring still knows. */
static void recall(uintptr_t block, struct manual_record *history) {
    for (size_t i = 0; i < RING; i++)
        if (atomic_load_relaxed(&ring[i].block) == block && /* as in copy */
            atomic_load_relaxed(&ring[i].record.free_op) > history->free_op)
            copy(history, &ring[i].record);
}

static struct manual_record *record_of(struct manual_span *ms, uintptr_t block) {
    return ms->records ? &ms->records[ms->slot_bytes ? (block - ms->base) / ms->slot_bytes : 0] : NULL;
}

void tri__manual_note_alloc(struct memory *mem, void *block, size_t size_bytes, bool root) {
    struct manual_record *r = record_of(manual_span_of(&mem->space, (uintptr_t)block), (uintptr_t)block);
    if (!r) return;
    check_cheap(atomic_load_relaxed(&r->live) == MANUAL_DEAD, "I-MAN2: a block is given out once");
    atomic_store_relaxed(&r->size_bytes, size_bytes); /* as in copy */
    atomic_store_relaxed(&r->alloc_op, next_op(mem));
    atomic_store_relaxed(&r->alloc_thread, tri__os_thread_id());
    atomic_store_release(&r->live, root ? MANUAL_ROOT_BLOCK : MANUAL_LIVE); /* pairs with note_free's CAS */
}

enum manual_verdict tri__manual_note_free(struct memory *mem, void *block, bool root, struct manual_record *history) {
    uintptr_t addr = (uintptr_t)block, start;
    *history = (struct manual_record){.size_bytes = 0};
    struct manual_span *ms = manual_span_of(&mem->space, addr);
    if (!ms || !tri__manual_usable(mem, addr, &start)) {
        recall(addr, history);
        return history->free_op ? MANUAL_FREED : MANUAL_FOREIGN;
    }
    struct manual_record *r = record_of(ms, start);
    if (!r) return start == addr ? MANUAL_FINE : MANUAL_INTERIOR;
    uint32_t expected = root ? MANUAL_ROOT_BLOCK : MANUAL_LIVE;
    copy(history, r);
    if (start != addr) return MANUAL_INTERIOR;
    uint64_t op = next_op(mem), thread = tri__os_thread_id();
    if (!atomic_cas_acqrel(&r->live, &expected, MANUAL_DEAD)) /* pairs with note_alloc; of two frees one is refused */
        return expected == MANUAL_DEAD ? MANUAL_FREED : MANUAL_ROOT;
    atomic_store_relaxed(&r->free_op, op); /* as in copy */
    atomic_store_relaxed(&r->free_thread, thread);
    remember(addr, r);
    return MANUAL_FINE;
}

#endif
