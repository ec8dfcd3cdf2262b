/* barrier.c - the write barrier: what a store does while the barrier is armed, and how its buffer becomes grey work.
 *
 * Yuasa and Dijkstra together (Go's proposal 17503): while armed, shade what is overwritten; while this thread's own
 * stack is grey, shade what is stored; then store. Shading looks at the object's mark and, where it sees none, appends
 * the address to the thread's buffer. A flush looks again, and queues what is still unmarked: the mark itself is set by
 * the marker that pops it, beside this thread.
 *
 * Invariants: I-BAR1 (R1) no safepoint between shading and store, nor in a flush. I-BAR2 (R2) an entry counts only if
 * it was unmarked when it was shaded and when it was flushed. I-BAR3 while disarmed the buffer is empty. Lock ranks:
 * gate (maybe words), work. */
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

enum { QUEUE_BUFFERS = 256 /* full ones in the list, up to which a flush leaves the marking to who pops */ };

/* True: what begins here is marked. False: it is not, or `addr` is inside an object, or its marks lie elsewhere, or it
 * is no object: the flush looks again. Only a slot's first granule ever has a bit (R15). */
static inline bool looks_marked(const struct space *space, uintptr_t addr) {
    size_t granule = (addr - space->base) >> GRANULE_SHIFT;
    uint64_t word = atomic_load_acquire(&space->marks[granule >> 6]); /* as space_is_marked */
    return (word >> (granule & 63) & 1) != 0;
}

/* An entry of the buffer that is unmarked: where its candidate lies; 0: there is nothing to mark. */
static inline uintptr_t entry_unmarked(const struct space *space, uintptr_t addr) {
    size_t granule = (addr - space->base) >> GRANULE_SHIFT;
    uint64_t bit = 1ull << (granule & 63);
    if (atomic_load_acquire(&space->marks[granule >> 6]) & bit) return 0;     /* as space_is_marked */
    if (atomic_load_relaxed(&space->allocs[granule >> 6]) & bit) return addr; /* its slot begins in this granule */
    struct slot slot;
    return space_find_slot(space, addr, &slot) && !space_is_marked(space, &slot) ? slot.addr : 0;
}

/* What is in the buffer and unmarked becomes grey: queued as a candidate, which whoever pops it marks (model: CANDQ,
 * CANDONLY), or marked here, when the list is long: what is marked is queued once, a candidate as often as it is
 * overwritten. */
bool tri__barrier_flush(struct mutator *m) {
    NO_SAFEPOINT("a flush of the barrier's buffer");
    const struct space *space = &m->heap->mem.space;
    size_t n = m->nshade, nunmarked = 0;
    for (size_t i = 0; i < n; i++) {
        uintptr_t addr = entry_unmarked(space, m->shade[i]);
        m->shade[nunmarked] = addr; /* entries before i are done */
        nunmarked += addr != 0;
    }
    bool any = nunmarked > 0;
    if (atomic_load_relaxed(&m->heap->work.nfull) < QUEUE_BUFFERS) { /* a hint */
        tri__marker_candidates(&m->marker, m->shade, nunmarked);
    } else {
        any = false; /* others may mark them meanwhile */
        for (size_t i = 0; i < nunmarked; i++) any |= tri__marker_shade(&m->marker, m->shade[i]);
    }
    m->nshade = 0;
    if (!any) return false;
    m->marker.worked = true; /* R2: turned grey; in a round it is over, as in marker_shade */
    if (TRI_UNLIKELY(heap_phase(m->heap) == PHASE_FLUSH)) atomic_store_release(&m->heap->found, 1); /* its end */
    return true;
}

static inline void shade_pointer(struct mutator *m, uintptr_t ref) {
    if (!space_contains(&m->heap->mem.space, ref)) return;
    check_internal(m->armed, "I-BAR3: only an armed thread shades");
    if (looks_marked(&m->heap->mem.space, ref)) return;
    if (m->nshade == SHADE_BUFFER) tri__barrier_flush(m);
    m->shade[m->nshade++] = ref;
}

/* What the gate says to an object that is found and allocated. Gate lock held. */
static enum gate_answer pass_gate(struct mutator *m, const struct slot *slot, bool may_wait) {
    tri_heap *heap = m->heap;
    bool marked = space_is_marked(&heap->mem.space, slot);
    switch (heap->gate) {
    case GATE_IDLE: check_cheap(!m->armed, "R5: the gate is idle only while no thread is armed"); return GATE_ALLOWS;
    case GATE_OPEN:
    case GATE_CLOSING:
        if (marked) return GATE_ALLOWS;
        if (may_wait && heap->loads_wait) return GATE_DELAYS;
        /* While a round is under way, what turns grey spoils it. */
        if (tri__marker_shade(&m->marker, slot->addr) && heap->gate == GATE_CLOSING) heap->spoiled = true;
        return GATE_ALLOWS;
    case GATE_CLOSED:
        if (marked && may_wait && heap->death.reviving)
            return GATE_DELAYS; /* it may have been dead at the close (R7) */
        return marked || heap_fault(heap, FAULT_GATE_OPEN) ? GATE_ALLOWS : GATE_REFUSES;
    }
    return GATE_REFUSES;
}

static enum gate_answer ask_gate(struct mutator *m, uintptr_t addr, bool may_wait) {
    struct memory *mem = &m->heap->mem;
    struct slot slot;
    enum gate_answer answer = GATE_REFUSES;
    tri__lock_acquire(&mem->gate);
    if (space_find_slot(&mem->space, addr, &slot) && space_is_allocated(&mem->space, &slot))
        answer = pass_gate(m, &slot, may_wait);
    tri__lock_release(&mem->gate);
    return answer;
}

enum gate_answer tri__gate_load(struct mutator *m, uintptr_t addr) {
    return ask_gate(m, addr, true);
}

enum gate_answer tri__gate_load_quick(struct mutator *m, uintptr_t addr) {
    struct slot slot;
    check_cheap(m->armed, "R5: only an armed thread trusts a mark");
    if (space_find_slot(&m->heap->mem.space, addr, &slot) && space_is_marked(&m->heap->mem.space, &slot))
        return GATE_ALLOWS; /* it stays marked until this thread has answered H5 */
    return ask_gate(m, addr, true);
}

/* A word that may be a reference and is stored or overwritten: a store never waits (R1). */
static void shade_maybe(struct mutator *m, uintptr_t ref) {
    if (ref && space_contains(&m->heap->mem.space, ref)) (void)ask_gate(m, ref, false);
}

void tri__shade_word(struct mutator *m, tri_word w, enum slot_kind kind, const tri_enc *enc) {
    switch (kind) {
    case SLOT_POINTER: shade_pointer(m, (uintptr_t)w); break;
    case SLOT_VALUE: {
        uintptr_t ref = enc_decode(enc, w);
        if (ref) shade_pointer(m, ref);
        break;
    }
    case SLOT_MAYBE: shade_maybe(m, enc_decode(enc, w)); break; /* validated like a conservative word (R5) */
    case SLOT_WEAK: /* keeps nothing alive: loads go through the gate instead (R5) */
    case SLOT_NONE: break;
    }
}

/* How the slots of an object are read: found once for each armed store. */
struct slot_reader {
    const struct type_desc *desc;
    uintptr_t start;        /* of the object */
    enum slot_kind uniform; /* of every slot of it, or SLOT_NONE */
};

static enum slot_kind kind_of(const struct slot_reader *reader, const void *slot) {
    if (TRI_CHECKS == 0 && reader->uniform != SLOT_NONE) return reader->uniform;
    return reader->desc ? tri__type_slot_kind(reader->desc, (uintptr_t)slot - reader->start) : SLOT_NONE;
}

/* Finds the owner's type; false (reported in checked builds) when `obj` is no object or `slot` is not in it. */
static bool find_owner(struct mutator *m, const char *call, void *obj, const void *slot, struct slot_reader *reader) {
    struct space *space = &m->heap->mem.space;
    struct slot found;
    if (TRI_CHECKS == 0 && space_contains(space, (uintptr_t)obj)) { /* the short way: one load of the page's entry */
        uint64_t shape = atomic_load_acquire(
            &space->pages[space_page_of(space, (uintptr_t)obj)].shape); /* span_publish */
        const struct layout *layout = &tri__layouts[shape_layout(shape)];
        if (TRI_LIKELY(layout->uniform != SLOT_NONE && shape_kind(shape) != PAGE_MIXED)) {
            *reader = (struct slot_reader){layout->desc, 0, (enum slot_kind)layout->uniform};
            return true;
        }
    }
    if (TRI_UNLIKELY(!space_find_slot(space, (uintptr_t)obj, &found))) {
        tri__report(m->heap, call,
                    "obj %p is not an object of this heap; pass the object that the slot lies in, and use "
                    "tri_root_store for root ranges",
                    obj);
        return false;
    }
    uint32_t number = space_layout_of(space, &found);
    *reader = (struct slot_reader){tri__layouts[number].desc, found.addr, (enum slot_kind)tri__layouts[number].uniform};
#if TRI_CHECKS >= 1
    size_t offset = (uintptr_t)slot - found.addr;
    if ((uintptr_t)slot < found.addr || offset + 8 > tri__slot_bytes(space, &found))
        tri__report(m->heap, call, "slot %p does not lie in obj %p (%s)", slot, obj, layout_name(number));
    else if (!space_is_allocated(space, &found))
        tri__report(m->heap, call, "obj %p has been freed; its slot last held a %s", obj, layout_name(number));
    else if (reader->desc && !reader->desc->type->trace && kind_of(reader, slot) == SLOT_NONE)
        tri__report(m->heap, call, "offset %zu of %s is not a slot; name it in the descriptor", offset,
                    layout_name(number));
#else
    (void)slot;
#endif
    return true;
}

/* Shades what a word of this slot names. A traced type's slots are not known, only its callback reads them: both
 * readings are shaded, as an encoded value and as a plain pointer, validated like a maybe word (R5). */
static void shade_slot_word(struct mutator *m, const struct slot_reader *reader, const void *slot, tri_word w) {
    if (!reader->desc) return;
    if (TRI_LIKELY(!reader->desc->type->trace)) {
        tri__shade_word(m, w, kind_of(reader, slot), &reader->desc->enc);
        return;
    }
    if (kind_of(reader, slot) == SLOT_WEAK) return;
    uintptr_t ref = enc_decode(&reader->desc->enc, w);
    shade_maybe(m, ref);
    if (ref != (uintptr_t)w) shade_maybe(m, (uintptr_t)w);
}

/* The barrier for one slot: old value, and new value while this thread's stack is grey. */
static void barrier(struct mutator *m, const struct slot_reader *reader, const void *slot, tri_word value) {
    tri_word old = atomic_load_acquire((const tri_word *)slot); /* pairs with other threads' tri_store */
    if (heap_fault(m->heap, FAULT_NO_BARRIER)) return;
    if (TRI_LIKELY(m->deletes)) shade_slot_word(m, reader, slot, old);
    if (m->grey_stack) shade_slot_word(m, reader, slot, value);
}

#if TRI_CHECKS >= 1
/* Poison and checked builds: a reference that is stored names something that is allocated. */
static void check_stored(struct mutator *m, const char *call, const struct slot_reader *reader, const void *slot,
                         tri_word value) {
    enum slot_kind kind = kind_of(reader, slot);
    if (kind != SLOT_POINTER && kind != SLOT_VALUE && kind != SLOT_WEAK) return;
    uintptr_t ref = enc_decode(&reader->desc->enc, value);
    if (kind != SLOT_VALUE) ref = (uintptr_t)value;
    struct slot target;
    struct space *space = &m->heap->mem.space;
    if (!space_contains(space, ref)) return;
    if (space_find_slot(space, ref, &target) && space_is_allocated(space, &target)) return;
    if (manual_span_of(space, ref)) return; /* like a pointer outside the heap */
    uint32_t was = 0;
    if (space_find_slot(space, ref, &target))
        was = poison_layout(((const uint64_t *)target.addr)[tri__slot_bytes(space, &target) >= 16]);
    atomic_add_relaxed(&m->heap->stress.reports, 1);
    tri__report(m->heap, call,
                "the value %p stored at offset %zu of %s names freed memory%s%s; was it in a root at every "
                "safepoint?",
                (void *)ref, (size_t)((uintptr_t)slot - reader->start), reader->desc->type->name,
                was ? ", once of type " : "", was ? layout_name(was) : "");
}
#else
static void check_stored(struct mutator *m, const char *call, const struct slot_reader *reader, const void *slot,
                         tri_word value) {
    (void)m, (void)call, (void)reader, (void)slot, (void)value;
}
#endif

static TRI_COLD __attribute__((noinline)) void store_any(tri_thread *thread, void *obj, void *slot, tri_word value) {
    struct mutator *m = tri__mutator_check(thread, "tri_store");
    NO_SAFEPOINT("tri_store");
    struct slot_reader reader;
    if (!m || !find_owner(m, "tri_store", obj, slot, &reader)) return;
    check_stored(m, "tri_store", &reader, slot, value);
    if (m->nshade > SHADE_BUFFER - 2) tri__barrier_flush(m); /* or every store would come here */
    if (m->armed) barrier(m, &reader, slot, value);
    tri__stress_delay(m->heap); /* H2 exists for stores that are in flight here */
    if (heap_fault(m->heap, FAULT_STORE_POLLS)) tri__safepoint(m);
    atomic_store_release((tri_word *)slot, value); /* pairs with the marker's and tri_load's acquire */
}

/* The armed store into an object whose slots are all plain pointers, or all values: what an interpreter does most while
 * a cycle marks. It calls nothing, so it saves no registers. False: nothing done. */
static inline __attribute__((always_inline)) bool store_words(struct mutator *m, void *slot, tri_word value,
                                                              uintptr_t old_ref, uintptr_t new_ref) {
    const struct space *space = &m->heap->mem.space;
    size_t n = m->nshade;
    check_internal(m->armed, "I-BAR3: only an armed thread shades");
    if (TRI_UNLIKELY(n > SHADE_BUFFER - 2)) return false;
    if (TRI_LIKELY(m->deletes) && space_contains(space, old_ref) && !looks_marked(space, old_ref))
        m->shade[n] = old_ref, m->nshade = ++n;
    if (TRI_UNLIKELY(m->grey_stack) && space_contains(space, new_ref) && !looks_marked(space, new_ref))
        m->shade[n] = new_ref, m->nshade = n + 1;
    atomic_store_release((tri_word *)slot, value); /* pairs with the marker's and tri_load's acquire */
    return true;
}

#if TRI_CHECKS == 0
static inline __attribute__((always_inline)) bool store_short(tri_thread *thread, void *obj, void *slot,
                                                              tri_word value) {
    struct mutator *m = mutator_of(thread);
    if (TRI_UNLIKELY(thread->reserved == SENTINEL_MARK || !m->armed)) return false;
    const struct space *space = &m->heap->mem.space;
    if (TRI_UNLIKELY(!space_contains(space, (uintptr_t)obj))) return false;
    uint64_t shape = atomic_load_acquire(&space->pages[space_page_of(space, (uintptr_t)obj)].shape); /* span_publish */
    if (TRI_UNLIKELY(shape_kind(shape) == PAGE_MIXED)) return false;
    const struct layout *layout = &tri__layouts[shape_layout(shape)];
    tri_word old = atomic_load_acquire((const tri_word *)slot); /* pairs with other threads' tri_store */
    if (TRI_LIKELY(layout->uniform == SLOT_POINTER))
        return store_words(m, slot, value, (uintptr_t)old, (uintptr_t)value);
    if (layout->uniform != SLOT_VALUE) return false;
    const tri_enc *enc = &layout->desc->enc;
    return store_words(m, slot, value, enc_decode(enc, old), enc_decode(enc, value));
}
#endif

void tri_store_slow(tri_thread *thread, void *obj, void *slot, tri_word value) {
#if TRI_CHECKS == 0
    if (TRI_LIKELY(store_short(thread, obj, slot, value))) return;
#endif
    store_any(thread, obj, slot, value);
}

void tri_root_store_slow(tri_thread *thread, tri_root *root, void *slot, tri_word value) {
    struct mutator *m = tri__mutator_check(thread, "tri_root_store");
    NO_SAFEPOINT("tri_root_store");
    if (!m) return;
    const tri_word *p = slot;
    if (!root || p < root->slots || p >= root->slots + root->nslots) {
        tri__report(m->heap, "tri_root_store", "slot %p is not in the range that was registered", slot);
        return;
    }
    if (m->armed) {
        if (m->deletes)
            tri__shade_word(m, atomic_load_acquire(p), SLOT_VALUE,
                            &root->enc); /* pairs with other threads' root stores */
        if (m->grey_stack) tri__shade_word(m, value, SLOT_VALUE, &root->enc);
    }
    tri__stress_delay(m->heap);
    atomic_store_release((tri_word *)slot, value); /* pairs with the root scanner's acquire */
}

/* What takes a word out of a slot without asking the gate may not touch a weak one (R5). True: refused, reported. */
static bool is_weak(struct mutator *m, const char *call, const struct slot_reader *reader, const void *slots,
                    size_t nslots) {
    if (TRI_LIKELY(!reader->desc || !reader->desc->has_weak)) return false;
    for (size_t i = 0; i < nslots; i++) {
        if (kind_of(reader, (const tri_word *)slots + i) != SLOT_WEAK) continue;
        tri__report(m->heap, call,
                    "slot %p of %s is weak; read it with tri_weak_load and write it with tri_store or tri_clear",
                    (const void *)((const tri_word *)slots + i), reader->desc->type->name);
        return true;
    }
    return false;
}

tri_word tri_xchg(tri_thread *thread, void *obj, void *slot, tri_word value) {
    struct mutator *m = tri__mutator_check(thread, "tri_xchg");
    NO_SAFEPOINT("tri_xchg");
    struct slot_reader reader;
    if (!m || !find_owner(m, "tri_xchg", obj, slot, &reader) || is_weak(m, "tri_xchg", &reader, slot, 1)) return 0;
    check_stored(m, "tri_xchg", &reader, slot, value);
    if (m->armed) barrier(m, &reader, slot, value);
    tri_word old = atomic_swap_seq((tri_word *)slot, value); /* pairs with other exchanges and loads of the slot */
    if (m->armed && m->deletes)
        shade_slot_word(m, &reader, slot, old); /* what was really taken out, should it have changed since */
    return old;
}

bool tri_cas(tri_thread *thread, void *obj, void *slot, tri_word *expected, tri_word value) {
    struct mutator *m = tri__mutator_check(thread, "tri_cas");
    NO_SAFEPOINT("tri_cas");
    struct slot_reader reader;
    if (!m) return false;
    if (!expected) {
        tri__report(m->heap, "tri_cas", "expected is NULL; give the word that the slot should hold");
        return false;
    }
    if (!find_owner(m, "tri_cas", obj, slot, &reader) || is_weak(m, "tri_cas", &reader, slot, 1)) return false;
    check_stored(m, "tri_cas", &reader, slot, value);
    if (m->armed) {
        /* Only what lies in the slot is known to be alive; *expected is the host's word and may be stale. */
        tri_word current = atomic_load_acquire((const tri_word *)slot); /* pairs with other threads' tri_store */
        if (current != *expected) {
            *expected = current;
            return false;
        }
        if (m->deletes) shade_slot_word(m, &reader, slot, current); /* it overwrites exactly this, or nothing */
        if (m->grey_stack) shade_slot_word(m, &reader, slot, value);
    }
    return atomic_cas_seq((tri_word *)slot, expected, value); /* pairs with other exchanges and loads of the slot */
}

/* Bulk stores: all shading first would need a second pass over racing slots; word by word is the same rule, with what
 * is the same for each of them looked at once. */
static TRI_COLD void store_word(struct mutator *m, const struct slot_reader *reader, tri_word *slot, tri_word value) {
    if (m->nshade > SHADE_BUFFER - 2) tri__barrier_flush(m); /* or every store would come here */
    barrier(m, reader, slot, value);
    atomic_store_release(slot, value); /* pairs with the marker's acquire */
}

/* Of slots that are all pointers, or all values. */
static inline __attribute__((always_inline)) void store_uniform(struct mutator *m, const struct slot_reader *reader,
                                                                bool values, tri_word *slot, tri_word value) {
    tri_word old = atomic_load_acquire(slot); /* pairs with other threads' tri_store */
    const tri_enc *enc = &reader->desc->enc;
    uintptr_t old_ref = values ? enc_decode(enc, old) : (uintptr_t)old;
    uintptr_t new_ref = values ? enc_decode(enc, value) : (uintptr_t)value;
    /* A word among them that is no slot holds no reference. Without checks one that looks like one is shaded, which
     * keeps garbage for a cycle at most; with them only what a slot names is (I-CYC5). */
    if (TRI_CHECKS >= 1 && kind_of(reader, slot) != reader->uniform)
        store_word(m, reader, slot, value);
    else if (!store_words(m, slot, value, old_ref, new_ref))
        store_word(m, reader, slot, value);
}

/* n words, from `src` on to `dst`; next_src 0: n times the same one, step -1: backwards. */
struct bulk {
    tri_word *dst;
    const tri_word *src;
    ptrdiff_t step, next_src;
    size_t n;
};

static void store_bulk(struct bulk b) {
    for (; b.n > 0; b.n--, b.dst += b.step, b.src += b.next_src)
        atomic_store_release(b.dst, atomic_load_acquire(b.src)); /* pair with others' stores, and the marker's loads */
}

static __attribute__((noinline)) void store_bulk_armed(struct mutator *m, const struct slot_reader *reader,
                                                       struct bulk b) {
    enum slot_kind uniform = heap_fault(m->heap, FAULT_NO_BARRIER) ? SLOT_NONE : reader->uniform;
    if (TRI_LIKELY(uniform == SLOT_POINTER))
        for (; b.n > 0; b.n--, b.dst += b.step, b.src += b.next_src)
            store_uniform(m, reader, false, b.dst, atomic_load_acquire(b.src)); /* as in store_bulk */
    else if (uniform == SLOT_VALUE)
        for (; b.n > 0; b.n--, b.dst += b.step, b.src += b.next_src)
            store_uniform(m, reader, true, b.dst, atomic_load_acquire(b.src)); /* the same */
    else
        for (; b.n > 0; b.n--, b.dst += b.step, b.src += b.next_src)
            store_word(m, reader, b.dst, atomic_load_acquire(b.src)); /* the same */
}

void tri_move(tri_thread *thread, void *obj, void *dst_slots, const void *src_slots, size_t nslots) {
    struct mutator *m = tri__mutator_check(thread, "tri_move");
    NO_SAFEPOINT("tri_move");
    struct slot_reader reader;
    if (!m || nslots == 0 || !find_owner(m, "tri_move", obj, dst_slots, &reader) ||
        is_weak(m, "tri_move", &reader, dst_slots, nslots))
        return;
    struct bulk b = {dst_slots, src_slots, 1, 1, nslots};
    if (b.dst > b.src) b = (struct bulk){b.dst + nslots - 1, b.src + nslots - 1, -1, -1, nslots};
    if (m->armed)
        store_bulk_armed(m, &reader, b);
    else
        store_bulk(b);
}

void tri_clear(tri_thread *thread, void *obj, void *slots, size_t nslots) {
    struct mutator *m = tri__mutator_check(thread, "tri_clear");
    NO_SAFEPOINT("tri_clear");
    struct slot_reader reader;
    if (!m || nslots == 0 || !find_owner(m, "tri_clear", obj, slots, &reader)) return;
    const tri_word zero = 0;
    struct bulk b = {slots, &zero, 1, 0, nslots};
    if (m->armed)
        store_bulk_armed(m, &reader, b);
    else
        store_bulk(b);
}
