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

/* Requires the roots lock. */
static void unlink_suspended(struct roots *roots, struct tri_vmstack *s) {
    if (roots->stack_cursor == s) roots->stack_cursor = s->next;
    unlink_from(&roots->suspended, s);
}

static const tri_word *top_of(const struct tri_vmstack *s) {
    typedef uintptr_t __attribute__((__may_alias__)) top_word;
    return (const tri_word *)*(const top_word *)s->top_address;
}

void tri__vmstack_scan(struct tri_vmstack *s, struct marker *mk) {
    const tri_word *top = top_of(s);
    for (const tri_word *p = (const tri_word *)s->base; p < top; p++) {
        uintptr_t ref = enc_decode(&s->enc, *p);
        if (ref) tri__marker_candidate(mk, ref);
    }
}

/* Outside a scan handshake: marked at once, so that only what was unmarked counts for R2. */
static void shade_stack(struct mutator *m, const struct tri_vmstack *s) {
    tri__marker_shade_words(&m->marker, (const tri_word *)s->base, top_of(s), &s->enc);
}

/* The cycle whose scan counts now: that of a thread that has answered H3 and not H5. */
static bool stack_is_black(const struct mutator *m) {
    return m->armed && !m->grey_stack;
}

/* R8 before running, reading or writing a suspended stack. Requires the roots lock. */
static void make_safe(struct mutator *m, struct tri_vmstack *s) {
    uint64_t cycle = atomic_load_relaxed(&m->heap->cycle_number); /* ordered by this thread's H1 answer */
    if (!stack_is_black(m)) {
        s->scanned_cycle = 0;
    } else if (s->scanned_cycle != cycle) {
        shade_stack(m, s);
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
        tri__lock_acquire(&m->heap->roots.lock);
        bool suspended = stack->owner == NULL;
        if (suspended) {
            shade_words(m, stack);
            unlink_suspended(&m->heap->roots, stack);
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
    tri__lock_acquire(&m->heap->roots.lock);
    stack->owner = NULL;
    /* Scanned with its thread if that has answered H3 in this cycle; else it has to be scanned again (R8). */
    stack->scanned_cycle = stack_is_black(m) ? atomic_load_relaxed(&m->heap->cycle_number) : 0;
    link_into(&m->heap->roots.suspended, stack);
    tri__lock_release(&m->heap->roots.lock);
    return TRI_OK;
}

int tri_vmstack_resume(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_resume");
    NO_SAFEPOINT("tri_vmstack_resume");
    if (!m) return TRI_EUNATTACHED;
    if (!stack) return tri__error(TRI_EINVAL, "tri_vmstack_resume", "stack is NULL");
    tri__lock_acquire(&m->heap->roots.lock);
    bool suspended = stack->owner == NULL;
    if (suspended) {
        make_safe(m, stack);
        unlink_suspended(&m->heap->roots, stack);
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
    tri__lock_acquire(&m->heap->roots.lock);
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

/* One stack under the lock at a time. Stacks that are suspended meanwhile are scanned by their threads (R8). */
void tri__vmstacks_scan_suspended(tri_heap *heap, struct marker *mk) {
    if (heap_fault(heap, FAULT_SKIP_STACKS)) return;
    uint64_t cycle = atomic_load_relaxed(&heap->cycle_number); /* own */
    struct roots *roots = &heap->roots;
    tri__lock_acquire(&roots->lock);
    roots->stack_cursor = roots->suspended;
    while (roots->stack_cursor) {
        struct tri_vmstack *s = roots->stack_cursor;
        roots->stack_cursor = s->next;
        if (s->scanned_cycle == cycle) continue;
        tri__vmstack_scan(s, mk);
        s->scanned_cycle = cycle;
        tri__lock_release(&roots->lock);
        tri__lock_acquire(&roots->lock);
    }
    tri__lock_release(&roots->lock);
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
