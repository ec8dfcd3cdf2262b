/* vmstack.c - value stacks of interpreters and coroutines: registration and rule R8.
 *
 * A running stack belongs to one thread, which writes it without a barrier and scans it at its scan handshake. A
 * suspended one belongs to nobody: it lies in the heap's list and carries the number of the cycle in which it was last
 * scanned. From its own H3 answer on a thread scans an unscanned stack before it runs, reads or writes it; a thread
 * that has not answered H3 makes any stack that it touches unscanned again. The collector scans the rest after the last
 * H3 answer and before a round may close.
 *
 * Invariants: I-VM1 a stack is in exactly one list: its owner's, or the suspended one. I-VM2 (R8) nobody but the owner
 * writes a running stack. Lock rank: roots (30) for the suspended list and scanned_cycle. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* The owner of a stack that ran on a thread which a fork's child has not. */
static char gone;
#define GONE ((struct mutator *)(void *)&gone)

static void unlink_from(struct tri_vmstack **head, struct tri_vmstack *s) {
    if (s->prev)
        s->prev->next = s->next;
    else
        *head = s->next;
    if (s->next) s->next->prev = s->prev;
    s->next = s->prev = NULL;
}

static void link_into(struct tri_vmstack **head, struct tri_vmstack *s) {
    s->prev = NULL;
    s->next = *head;
    if (s->next) s->next->prev = s;
    *head = s;
}

/* The collector, which takes the lock often, sees that somebody waits for it. */
static void lock_roots(struct roots *roots) {
    atomic_add_relaxed(&roots->nwaiting, 1); /* a hint */
    tri__lock_acquire(&roots->lock);
    atomic_sub_relaxed(&roots->nwaiting, 1);
}

static void cursor_to(struct roots *roots, struct tri_vmstack *s) {
    roots->stack_cursor = s;
    roots->stack_cursor_words = 0;
}

/* Requires the roots lock. */
static void unlink_suspended(tri_heap *heap, struct tri_vmstack *s) {
    struct roots *roots = &heap->roots;
    if (roots->stack_cursor == s) cursor_to(roots, s->next);
    unlink_from(&roots->suspended, s);
    if (s->deep_bytes) atomic_store_relaxed(&roots->deep_bytes, roots->deep_bytes - s->deep_bytes); /* a hint */
    s->deep_bytes = 0;
}

/* Requires the roots lock. */
static void link_suspended(tri_heap *heap, struct tri_vmstack *s) {
    link_into(&heap->roots.suspended, s);
    size_t nbytes = tri__vmstack_bytes(s);
    if (TRI_LIKELY(!tri__copies_wanted(heap, nbytes))) return;
    s->deep_bytes = nbytes;
    atomic_store_relaxed(&heap->roots.deep_bytes, heap->roots.deep_bytes + nbytes); /* a hint for copies_prepare */
}

static const tri_word *top_of(const struct tri_vmstack *s) {
    typedef uintptr_t __attribute__((__may_alias__)) top_word;
    return (const tri_word *)*(const top_word *)s->top_address;
}

size_t tri__vmstack_bytes(const struct tri_vmstack *s) {
    return (uintptr_t)top_of(s) - s->base;
}

static void scan_words(const struct tri_vmstack *s, struct marker *mk, const tri_word *p, const tri_word *end) {
    for (; p < end; p++) {
        uintptr_t ref = enc_decode(&s->enc, *p);
        if (ref) tri__marker_candidate(mk, ref);
    }
}

void tri__vmstack_scan(struct tri_vmstack *s, struct marker *mk, struct copying *copying) {
    const tri_word *base = (const tri_word *)s->base, *top = top_of(s);
    size_t done = tri__copying_words(copying, base, (size_t)(top - base), &s->enc);
    scan_words(s, mk, base + done, top);
}

/* Outside a scan handshake: marked at once, so that only what was unmarked counts for R2. */
static void shade_stack(struct mutator *m, const struct tri_vmstack *s) {
    tri__marker_shade_words(&m->marker, (const tri_word *)s->base, top_of(s), &s->enc);
}

/* The cycle whose scan counts now: that of a thread that has answered H3 and not H5. */
static bool stack_is_black(const struct mutator *m) {
    return m->armed && !m->grey_stack;
}

/* By a thread, before it runs, reads or writes the stack: a deep one is copied, as in its scan handshake. */
static void scan_by(struct mutator *m, struct tri_vmstack *s) {
    size_t nbytes = tri__vmstack_bytes(s);
    struct copying copying;
    tri__copying_begin(&copying, m->heap, nbytes);
    size_t done = tri__copying_words(&copying, (const tri_word *)s->base, nbytes / 8, &s->enc);
    tri__copying_end(&copying);
    tri__marker_shade_words(&m->marker, (const tri_word *)s->base + done, top_of(s), &s->enc);
}

/* R8 before running, reading or writing a suspended stack. Requires the roots lock. */
static void make_safe(struct mutator *m, struct tri_vmstack *s) {
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

tri_vmstack *tri_vmstack_add(tri_thread *thread, void *base, const void *top_address, const tri_enc *enc) {
    static const tri_enc plain = {0, 0, ~0ull, ~0ull};
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_add");
    NO_SAFEPOINT("tri_vmstack_add");
    if (!m) return NULL;
    if (!base || (uintptr_t)base % 8 || !top_address || (uintptr_t)top_address % 8) {
        tri__error(TRI_EINVAL, "tri_vmstack_add", "base and top_address must be 8-byte aligned and not NULL");
        return NULL;
    }
    if (tri__enc_check(enc, "tri_vmstack_add") != TRI_OK) return NULL;
    tri_vmstack *s = tri__fixalloc_get(&m->heap->fix_small);
    if (!s) {
        tri__error(TRI_ENOMEM, "tri_vmstack_add", "no memory for the stack's record");
        return NULL;
    }
    *s = (tri_vmstack){.owner = m,
                       .heap = m->heap,
                       .base = (uintptr_t)base,
                       .top_address = (uintptr_t)top_address,
                       .enc = enc ? *enc : plain};
    link_into(&m->vmstacks, s);
    if (stack_is_black(m)) { /* what it holds already came from nowhere that was scanned as this thread's */
        shade_stack(m, s);
    }
    return s;
}

static bool is_owner(struct mutator *m, const tri_vmstack *s, const char *call) {
    if (s && s->owner == m) return true;
    tri__error(TRI_ESTATE, call, s ? "the stack is not running on this thread" : "stack is NULL");
    return false;
}

void tri_vmstack_move(tri_thread *thread, tri_vmstack *stack, void *base, const void *top_address) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_move");
    NO_SAFEPOINT("tri_vmstack_move");
    if (!m || !is_owner(m, stack, "tri_vmstack_move")) return;
    stack->base = (uintptr_t)base;
    stack->top_address = (uintptr_t)top_address;
}

/* Words that leave the roots may live on in other threads' hands: shade them while armed (as R17). */
static void shade_words(struct mutator *m, tri_vmstack *s) {
    if (m->armed) shade_stack(m, s);
}

void tri_vmstack_remove(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_remove");
    NO_SAFEPOINT("tri_vmstack_remove");
    if (!m || !stack) return;
    if (stack->owner == m) {
        shade_words(m, stack);
        unlink_from(&m->vmstacks, stack);
    } else if (stack->owner != GONE) {
        lock_roots(&m->heap->roots);
        bool suspended = stack->owner == NULL;
        if (suspended) {
            shade_words(m, stack);
            unlink_suspended(m->heap, stack);
        }
        tri__lock_release(&m->heap->roots.lock);
        if (!suspended) {
            tri__report(m->heap, "tri_vmstack_remove", "the stack runs on another thread; suspend it there first");
            return;
        }
    }
    tri__fixalloc_put(&m->heap->fix_small, stack);
}

int tri_vmstack_suspend(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_suspend");
    NO_SAFEPOINT("tri_vmstack_suspend");
    if (!m) return TRI_EUNATTACHED;
    if (!is_owner(m, stack, "tri_vmstack_suspend")) return TRI_ESTATE;
    unlink_from(&m->vmstacks, stack);
    lock_roots(&m->heap->roots);
    stack->owner = NULL;
    /* Scanned with its thread if that has answered H3 in this cycle; else it has to be scanned again (R8). */
    stack->scanned_cycle = stack_is_black(m) ? atomic_load_relaxed(&m->heap->cycle_number) : 0;
    link_suspended(m->heap, stack);
    tri__lock_release(&m->heap->roots.lock);
    return TRI_OK;
}

int tri_vmstack_resume(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_resume");
    NO_SAFEPOINT("tri_vmstack_resume");
    if (!m) return TRI_EUNATTACHED;
    if (!stack) return tri__error(TRI_EINVAL, "tri_vmstack_resume", "stack is NULL");
    lock_roots(&m->heap->roots);
    bool suspended = stack->owner == NULL;
    if (suspended) {
        make_safe(m, stack);
        unlink_suspended(m->heap, stack);
        stack->owner = m;
    }
    tri__lock_release(&m->heap->roots.lock);
    if (!suspended) return tri__error(TRI_ESTATE, "tri_vmstack_resume", "the stack is not suspended");
    link_into(&m->vmstacks, stack);
    return TRI_OK;
}

int tri_vmstack_touch(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_touch");
    NO_SAFEPOINT("tri_vmstack_touch");
    if (!m) return TRI_EUNATTACHED;
    if (!stack) return tri__error(TRI_EINVAL, "tri_vmstack_touch", "stack is NULL");
    if (stack->owner == m) return TRI_OK;
    lock_roots(&m->heap->roots);
    bool suspended = stack->owner == NULL;
    if (suspended) make_safe(m, stack);
    tri__lock_release(&m->heap->roots.lock);
    return suspended ? TRI_OK : tri__error(TRI_ESTATE, "tri_vmstack_touch", "the stack runs on another thread");
}

void tri__vmstacks_release_all(struct mutator *m) {
    while (m->vmstacks) {
        struct tri_vmstack *s = m->vmstacks;
        unlink_from(&m->vmstacks, s);
        tri__fixalloc_put(&m->heap->fix_small, s);
    }
}

void tri__vmstacks_forget_all(struct mutator *m) {
    while (m->vmstacks) {
        struct tri_vmstack *s = m->vmstacks;
        unlink_from(&m->vmstacks, s);
        s->owner = GONE;
    }
}

/* How much the collector looks at before it lets others have the lock. */
enum { SCAN_WORDS = 2048, SCAN_STACKS = 64 };

/* Whoever waits for the lock gets it now: one that is released and taken again at once goes to who runs. */
static void let_others(struct roots *roots) {
    tri__lock_release(&roots->lock);
    for (int i = 0; i < 100 && atomic_load_relaxed(&roots->nwaiting); i++) tri__os_yield(); /* a hint */
    tri__lock_acquire(&roots->lock);
}

/* A piece of the stack that the cursor is in. True when it was the last one. Requires the roots lock. */
static bool scan_piece(struct roots *roots, struct marker *mk) {
    const struct tri_vmstack *s = roots->stack_cursor;
    const tri_word *base = (const tri_word *)s->base;
    size_t all = tri__vmstack_bytes(s) / 8, end = min_size(all, roots->stack_cursor_words + SCAN_WORDS);
    scan_words(s, mk, base + roots->stack_cursor_words, base + end);
    roots->stack_cursor_words = end;
    return end == all;
}

/* In pieces. A stack that a thread makes safe meanwhile has been scanned by it, the whole of it; nobody writes to the
 * others. Stacks that are suspended meanwhile are scanned by their threads (R8). */
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
        in_time = deadline_ns == UINT64_MAX || tri__os_now_ns() < deadline_ns;
        let_others(roots);
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
