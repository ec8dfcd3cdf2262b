/* suspended.c - rule R8: stacks that are not running.
 *
 * A running stack belongs to one thread, which writes it without a barrier and scans it at its scan handshake. A
 * suspended one belongs to nobody: it lies in the heap's list and carries the number of the cycle in which it was last
 * scanned. From its own H3 answer on a thread scans an unscanned stack before it runs, reads or writes it; a thread
 * that has not answered H3 makes any stack that it touches unscanned again. The collector scans the rest after the last
 * H3 answer and before a round may close, in pieces, beside the threads: no handshake knows their number.
 *
 * Invariants: I-VM1 a stack is in exactly one place: its owner's list, its owner's `native`, the suspended list. I-VM2
 * (R8) nobody but the owner writes a running stack. Lock rank: roots (30) for the list and scanned_cycle. */
#include "gc/suspended.h"
#include "alloc/base/check.h"

/* How much the collector looks at before it lets others have the lock. */
enum { SCAN_WORDS = 512, SCAN_STACKS = 16, GIVE_WAY = 100 };

void tri__stack_unlink(struct tri_vmstack **list, struct tri_vmstack *s) {
    if (s->prev)
        s->prev->next = s->next;
    else
        *list = s->next;
    if (s->next) s->next->prev = s->prev;
    s->next = s->prev = NULL;
}

void tri__stack_link(struct tri_vmstack **list, struct tri_vmstack *s) {
    s->prev = NULL;
    s->next = *list;
    if (s->next) s->next->prev = s;
    *list = s;
}

void tri__suspended_lock(tri_heap *heap) {
    atomic_add_relaxed(&heap->roots.nwaiting, 1); /* a hint for let_others */
    tri__lock_acquire(&heap->roots.lock);
    atomic_sub_relaxed(&heap->roots.nwaiting, 1);
}

void tri__suspended_unlock(tri_heap *heap) {
    tri__lock_release(&heap->roots.lock);
}

/* ---- what a stack holds ---------------------------------------------------------------------------------------- */

size_t tri__vmstack_bytes(const struct tri_vmstack *s) {
    typedef uintptr_t __attribute__((__may_alias__)) top_word;
    if (s->native) return s->conservative ? s->high - s->base : 0;
    return *(const top_word *)s->top_address - s->base;
}

/* Words [from, to) of it, as candidates. */
static void scan_words(const struct tri_vmstack *s, struct marker *mk, size_t from, size_t to) {
    const tri_word *words = (const tri_word *)s->base;
    if (s->native) {
        tri__marker_native_words(mk, words + from, to - from);
        return;
    }
    for (size_t i = from; i < to; i++) {
        uintptr_t ref = enc_decode(&s->enc, words[i]);
        if (ref) tri__marker_candidate(mk, ref);
    }
}

void tri__vmstack_scan(struct tri_vmstack *s, struct marker *mk, struct copying *copying) {
    size_t n = tri__vmstack_bytes(s) / 8;
    size_t done = tri__copying_words(copying, (const tri_word *)s->base, n, s->native ? NULL : &s->enc);
    scan_words(s, mk, done, n);
    if (!s->native) return;
    struct frame_cursor at = {s->frames, 0};
    tri__copying_frames(copying, &at);
    tri__marker_frames(mk, &at, SIZE_MAX);
}

/* ---- by threads ------------------------------------------------------------------------------------------------ */

/* A deep one is copied, as in a scan handshake. What is queued here is handed over with the thread's next answer. */
static void scan_by(struct mutator *m, struct tri_vmstack *s) {
    struct copying copying;
    tri__copying_begin(&copying, m->heap, tri__vmstack_bytes(s));
    tri__vmstack_scan(s, &m->marker, &copying);
    tri__copying_end(&copying);
}

void tri__suspended_make_safe(struct mutator *m, struct tri_vmstack *s) {
    uint64_t cycle = atomic_load_relaxed(&m->heap->cycle_number); /* ordered by this thread's H1 answer */
    if (!stack_is_black(m)) {
        s->scanned_cycle = 0;
    } else if (s->scanned_cycle != cycle) {
        /* Under the lock: before the collector has come to this stack, or after the close, when a thread that is
         * disarmed already has touched it; then all that it names is marked. */
        enum phase phase = heap_phase(m->heap);
        check_cheap(phase == PHASE_SCAN || phase == PHASE_DISARM, "R8: while marking every suspended stack is scanned");
        if (phase == PHASE_SCAN) scan_by(m, s);
        s->scanned_cycle = cycle;
    }
}

void tri__suspended_put(struct mutator *m, struct tri_vmstack *s) {
    struct roots *roots = &m->heap->roots;
    atomic_store_relaxed(&s->owner, NULL); /* under the lock */
    /* Scanned with its thread if that has answered H3 in this cycle; else it has to be scanned again. */
    s->scanned_cycle = stack_is_black(m) ? atomic_load_relaxed(&m->heap->cycle_number) : 0;
    tri__stack_link(&roots->suspended, s);
    size_t nbytes = tri__vmstack_bytes(s);
    if (TRI_LIKELY(!tri__copies_wanted(m->heap, nbytes))) return;
    s->deep_bytes = nbytes;
    atomic_store_relaxed(&roots->deep_bytes, roots->deep_bytes + nbytes); /* a hint for copies_prepare */
}

static void cursor_to(struct roots *roots, struct tri_vmstack *s) {
    roots->stack_cursor = s;
    roots->stack_cursor_words = 0;
    roots->stack_in_frames = false;
}

void tri__suspended_take(tri_heap *heap, struct tri_vmstack *s, struct mutator *owner) {
    struct roots *roots = &heap->roots;
    if (roots->stack_cursor == s) cursor_to(roots, s->next);
    tri__stack_unlink(&roots->suspended, s);
    if (s->deep_bytes) atomic_store_relaxed(&roots->deep_bytes, roots->deep_bytes - s->deep_bytes); /* a hint */
    s->deep_bytes = 0;
    atomic_store_relaxed(&s->owner, owner); /* under the lock */
}

/* ---- by the collector ------------------------------------------------------------------------------------------ */

/* Whoever waits for the lock gets it now: one that is released and taken again at once goes to who runs. */
static void let_others(tri_heap *heap, bool concurrent) {
    struct roots *roots = &heap->roots;
    tri__lock_release(&roots->lock);
    if (concurrent) tri__give_way(heap, &heap->run.slice_ns);
    for (int i = 0; i < GIVE_WAY && atomic_load_relaxed(&roots->nwaiting); i++) tri__os_yield(); /* a hint */
    tri__lock_acquire(&roots->lock);
}

/* A piece of the stack that the cursor is in. True when it was the last one. Requires the lock. */
static bool scan_piece(struct roots *roots, struct marker *mk) {
    const struct tri_vmstack *s = roots->stack_cursor;
    size_t all = tri__vmstack_bytes(s) / 8, end = min_size(all, roots->stack_cursor_words + SCAN_WORDS);
    scan_words(s, mk, roots->stack_cursor_words, end);
    tri__units_did(1 + (end - roots->stack_cursor_words) / 4); /* many name objects that are looked up */
    roots->stack_cursor_words = end;
    if (end < all || !s->native) return end == all;
    if (!roots->stack_in_frames) roots->stack_frames = (struct frame_cursor){s->frames, 0};
    roots->stack_in_frames = true;
    tri__marker_frames(mk, &roots->stack_frames, SCAN_WORDS);
    return !roots->stack_frames.frame;
}

/* In pieces. A stack that a thread makes safe meanwhile has been scanned by it, the whole of it; nobody writes to the
 * others. Stacks that are suspended meanwhile are scanned by their threads. */
bool tri__vmstacks_scan_suspended(tri_heap *heap, struct marker *mk, uint64_t deadline_ns) {
    if (heap_fault(heap, FAULT_SKIP_STACKS)) return true;
    uint64_t cycle = atomic_load_relaxed(&heap->cycle_number); /* own */
    struct roots *roots = &heap->roots;
    size_t n = 0;
    bool in_time = true;
    tri__lock_acquire(&roots->lock);
    while (roots->stack_cursor && in_time) {
        struct tri_vmstack *s = roots->stack_cursor;
        bool done = s->scanned_cycle == cycle || scan_piece(roots, mk);
        if (done) {
            s->scanned_cycle = cycle;
            cursor_to(roots, s->next);
        }
        if (done && ++n % SCAN_STACKS != 0) continue;
        in_time = !heap_is_late(heap, deadline_ns);
        let_others(heap, deadline_ns == UINT64_MAX);
    }
    bool all = !roots->stack_cursor;
    tri__lock_release(&roots->lock);
    return all;
}

void tri__vmstacks_check_scanned(tri_heap *heap) {
#if TRI_CHECKS >= 2
    uint64_t cycle = atomic_load_relaxed(&heap->cycle_number); /* own */
    tri__lock_acquire(&heap->roots.lock);
    for (const struct tri_vmstack *s = heap->roots.suspended; s; s = s->next)
        check_internal(s->scanned_cycle == cycle, "R8: at the close every suspended stack has been scanned");
    tri__lock_release(&heap->roots.lock);
#else
    (void)heap;
#endif
}
