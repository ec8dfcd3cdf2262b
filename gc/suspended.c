/* suspended.c - rule R8: stacks that are not running.
 *
 * A running stack belongs to one thread, which writes it without a barrier and scans it at its scan handshake. A
 * suspended one belongs to nobody. Each carries the number of the cycle in which it was last scanned, and its owner is
 * its state word: a thread takes a suspended stack by a compare-and-swap, and puts it back by a store, so a switch
 * between coroutines takes no lock and touches no line but those of its two stacks. From its own H3 answer on a thread
 * scans an unscanned stack before it runs, reads or writes it; a thread that has not answered H3 makes any stack that
 * it touches unscanned again. The collector scans the rest after the last H3 answer and before a round may close, in
 * pieces, beside the threads: no handshake knows their number.
 *
 * Who looks at a suspended stack without running it (the collector, a touch, a removal) holds it meanwhile, under the
 * roots lock; a thread that wants to run it waits for that lock. The collector passes a running stack when it is
 * scanned: its thread did that in its H3 answer, or is doing it, having just taken it (then it waits).
 *
 * Invariants: I-VM1 a stack is in the heap's list from its registration to its removal, and runs on at most one thread:
 * in its list, or as its `native`. I-VM2 (R8) nobody but the owner writes a running stack. I-VM3 a stack is held under
 * the roots lock alone, so none is in a fork. Lock rank: roots (30). */
#include "gc/suspended.h"
#include "alloc/base/check.h"
#include "gc/scarce.h"

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

char tri__stack_states[2];

void tri__stack_enlist(tri_heap *heap, struct tri_vmstack *s) {
    struct roots *roots = &heap->roots;
    tri__suspended_lock(heap);
    s->next_all = roots->stacks;
    if (s->next_all) s->next_all->prev_all = s;
    roots->stacks = s;
    tri__suspended_unlock(heap);
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

/* The most that a scan of it copies: where its end is known, no chain of frames is walked for it. */
static size_t deep_bytes(const struct tri_vmstack *s) {
    return tri__vmstack_bytes(s) + (s->native && s->frames ? s->high - s->base : 0);
}

/* ---- by threads ------------------------------------------------------------------------------------------------ */

/* A deep one is copied, as in a scan handshake. What is queued here is handed over with the thread's next answer. */
static uint64_t scan_by(struct mutator *m, struct tri_vmstack *s) {
    struct copying copying;
    uint64_t start = tri__os_now_ns();
    tri__copying_begin(&copying, m->heap, deep_bytes(s));
    tri__vmstack_scan(s, &m->marker, &copying);
    tri__copying_end(&copying);
    return tri__os_now_ns() - start;
}

uint64_t tri__suspended_make_safe(struct mutator *m, struct tri_vmstack *s) {
    uint64_t cycle = atomic_load_relaxed(&m->heap->cycle_number); /* ordered by this thread's H1 answer */
    uint64_t ns = 0;
    if (!stack_is_black(m)) {
        stack_note_scanned(s, 0);
    } else if (atomic_load_relaxed(&s->scanned_cycle) != cycle) { /* own */
        /* Before the collector has come to this stack, or while it waits for this; or after the close, when a thread
         * that is disarmed already has touched it: then all that it names is marked. */
        enum phase phase = heap_phase(m->heap);
        check_cheap(phase == PHASE_SCAN || phase == PHASE_DISARM, "R8: while marking every suspended stack is scanned");
        if (phase == PHASE_SCAN) ns = scan_by(m, s);
        stack_note_scanned(s, cycle);
    }
    return ns;
}

void tri__suspended_put(struct mutator *m, struct tri_vmstack *s) {
    /* Scanned with its thread if that has answered H3 in this cycle; else it has to be scanned again. */
    stack_note_scanned(s, stack_is_black(m) ? atomic_load_relaxed(&m->heap->cycle_number) : 0);
    size_t nbytes = deep_bytes(s);
    if (TRI_UNLIKELY(nbytes >= tri__copies_from_bytes(m->heap))) {
        s->deep_bytes = nbytes;
        atomic_add_relaxed(&m->heap->roots.deep_bytes, nbytes); /* a hint for copies_prepare */
    }
    atomic_store_release(&s->owner, STACK_SUSPENDED); /* pairs with take and hold */
}

void tri__suspended_uncount(tri_heap *heap, struct tri_vmstack *s) {
    if (TRI_UNLIKELY(s->deep_bytes)) atomic_sub_relaxed(&heap->roots.deep_bytes, s->deep_bytes); /* a hint */
    s->deep_bytes = 0;
}

/* Whoever holds it has the lock. */
static TRI_COLD bool take_locked(struct mutator *m, struct tri_vmstack *s) {
    struct mutator *expected = STACK_SUSPENDED;
    tri__suspended_lock(m->heap);
    bool taken = atomic_cas_acqrel(&s->owner, &expected, m); /* pairs with put and release */
    tri__suspended_unlock(m->heap);
    return taken;
}

bool tri__suspended_take(struct mutator *m, struct tri_vmstack *s) {
    struct mutator *expected = STACK_SUSPENDED;
    if (!atomic_cas_acqrel(&s->owner, &expected, m) /* pairs with put and release */
        && !(expected == STACK_HELD && take_locked(m, s)))
        return false;
    tri__stress_delay(m->heap); /* the collector may come to it here */
    suspended_tell(m, tri__suspended_make_safe(m, s));
    tri__suspended_uncount(m->heap, s);
    return true;
}

bool tri__suspended_hold(struct tri_vmstack *s) {
    struct mutator *expected = STACK_SUSPENDED;
    check_cheap(tri__lock_held(&s->heap->roots.lock), "I-VM3: a stack is held under the roots lock");
    return atomic_cas_acqrel(&s->owner, &expected, STACK_HELD); /* pairs with put and release */
}

void tri__suspended_release(struct tri_vmstack *s) {
    atomic_store_release(&s->owner, STACK_SUSPENDED); /* pairs with take and hold */
}

/* ---- by the collector ------------------------------------------------------------------------------------------ */

static void cursor_to(struct roots *roots, struct tri_vmstack *s) {
    roots->stack_cursor = s;
    roots->stack_cursor_words = 0;
    roots->stack_in_frames = false;
}

void tri__vmstacks_scan_begin(tri_heap *heap) {
    cursor_to(&heap->roots, heap->roots.stacks);
}

void tri__stack_delist(tri_heap *heap, struct tri_vmstack *s) {
    struct roots *roots = &heap->roots;
    tri__suspended_lock(heap);
    if (roots->stack_cursor == s) cursor_to(roots, s->next_all);
    if (s->prev_all)
        s->prev_all->next_all = s->next_all;
    else
        roots->stacks = s->next_all;
    if (s->next_all) s->next_all->prev_all = s->prev_all;
    tri__suspended_unlock(heap);
}

/* Whoever waits for the lock gets it now: one that is released and taken again at once goes to who runs. */
static void let_others(tri_heap *heap, bool concurrent) {
    struct roots *roots = &heap->roots;
    tri__lock_release(&roots->lock);
    if (concurrent) tri__give_way(heap, &heap->run.slice_ns);
    for (int i = 0; i < GIVE_WAY && atomic_load_relaxed(&roots->nwaiting); i++) tri__os_yield(); /* a hint */
    tri__lock_acquire(&roots->lock);
}

/* Words and frames of it, a piece. True when it was the last one. Requires the lock, and holds the stack. */
static bool scan_piece(struct roots *roots, const struct tri_vmstack *s, struct marker *mk) {
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

static bool is_safe(const struct tri_vmstack *s, uint64_t cycle) {
    return atomic_load_acquire(&s->scanned_cycle) == cycle; /* pairs with stack_note_scanned */
}

/* The stack that the cursor is in, or a piece of it. True: it is safe. Requires the lock. */
static bool look(struct roots *roots, struct marker *mk, uint64_t cycle) {
    struct tri_vmstack *s = roots->stack_cursor;
    if (is_safe(s, cycle)) return true;
    if (!tri__suspended_hold(s)) return stack_runs_on(s, STACK_GONE); /* else who has just taken it makes it safe */
    bool done = is_safe(s, cycle) || scan_piece(roots, s, mk);
    if (done) stack_note_scanned(s, cycle);
    tri__suspended_release(s);
    return done;
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
        bool safe = look(roots, mk, cycle);
        if (safe) cursor_to(roots, roots->stack_cursor->next_all);
        if (safe && ++n % SCAN_STACKS != 0) continue;
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
    for (struct tri_vmstack *s = heap->roots.stacks; s; s = s->next_all) {
        if (!tri__suspended_hold(s)) continue;
        check_internal(is_safe(s, cycle), "R8: at the close every suspended stack has been scanned");
        tri__suspended_release(s);
    }
    tri__lock_release(&heap->roots.lock);
#else
    (void)heap;
#endif
}
