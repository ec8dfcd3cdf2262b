/* vmstack.c - value stacks of interpreters and coroutines: their registration, and the calls of rule R8, which
 * suspended.c keeps. Removing, suspending and touching serve native stacks of coroutines (native.c) as far as they may.
 *
 * Lock rank: roots (30), where a stack is suspended. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/suspended.h"

/* Words that come to the roots or leave them while armed are marked at once, so that only what was unmarked counts for
 * R2. For how long that kept the thread. */
static uint64_t shade_stack(struct mutator *m, const struct tri_vmstack *s) {
    const tri_word *words = (const tri_word *)s->base;
    uint64_t start = tri__os_now_ns();
    tri__marker_shade_words(&m->marker, words, words + tri__vmstack_bytes(s) / 8, &s->enc);
    return tri__os_now_ns() - start;
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
    tri__stack_link(&m->vmstacks, s);
    if (stack_is_black(m)) { /* what it holds already came from nowhere that was scanned as this thread's */
        suspended_tell(m, shade_stack(m, s));
        stack_note_scanned(s, atomic_load_relaxed(&m->heap->cycle_number)); /* ordered by this thread's H1 answer */
    }
    tri__stack_enlist(m->heap, s);
    return s;
}

/* A value stack that the thread runs. */
static bool is_owner(struct mutator *m, const tri_vmstack *s, const char *call) {
    if (s && stack_runs_on(s, m) && !s->native) return true;
    tri__error(TRI_ESTATE, call,
               !s          ? "stack is NULL"
               : s->native ? "this is a native stack; tri_native_switch runs and suspends it"
                           : "the stack is not running on this thread");
    return false;
}

void tri_vmstack_move(tri_thread *thread, tri_vmstack *stack, void *base, const void *top_address) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_move");
    NO_SAFEPOINT("tri_vmstack_move");
    if (!m || !is_owner(m, stack, "tri_vmstack_move")) return;
    stack->base = (uintptr_t)base;
    stack->top_address = (uintptr_t)top_address;
}

/* Words that leave the roots may live on in other threads' hands: shaded while armed (as R17). A native stack that
 * is suspended is in nobody's hands but by a touch, so it is enough that it is safe; and its words may be stale, which
 * nothing may shade after the close. */
static uint64_t leave_roots(struct mutator *m, tri_vmstack *s) {
    if (s->native) return tri__suspended_make_safe(m, s);
    return m->armed ? shade_stack(m, s) : 0;
}

/* True when it was suspended: nobody takes it any more. */
static bool take_for_good(struct mutator *m, tri_vmstack *s) {
    uint64_t ns = 0;
    tri__suspended_lock(m->heap);
    bool suspended = tri__suspended_hold(s);
    if (suspended) {
        ns = leave_roots(m, s);
        tri__suspended_uncount(m->heap, s);
        atomic_store_relaxed(&s->owner, STACK_GONE); /* the last use of it is its removal */
    }
    tri__suspended_unlock(m->heap);
    suspended_tell(m, ns);
    return suspended;
}

void tri_vmstack_remove(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_remove");
    NO_SAFEPOINT("tri_vmstack_remove");
    if (!m || !stack) return;
    if (stack_runs_on(stack, m)) {
        if (stack->native) {
            tri__report(m->heap, "tri_vmstack_remove", "the calling thread runs on this stack; switch away first");
            return;
        }
        suspended_tell(m, leave_roots(m, stack));
        tri__stack_unlink(&m->vmstacks, stack);
    } else if (!stack_runs_on(stack, STACK_GONE) && !take_for_good(m, stack)) {
        tri__report(m->heap, "tri_vmstack_remove", "the stack runs on another thread; suspend it there first");
        return;
    }
    tri__stack_delist(m->heap, stack);
    tri__fixalloc_put(&m->heap->fix_small, stack);
}

int tri_vmstack_suspend(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_suspend");
    NO_SAFEPOINT("tri_vmstack_suspend");
    if (!m) return TRI_EUNATTACHED;
    if (!is_owner(m, stack, "tri_vmstack_suspend")) return TRI_ESTATE;
    tri__stack_unlink(&m->vmstacks, stack);
    tri__suspended_put(m, stack);
    return TRI_OK;
}

int tri_vmstack_resume(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_resume");
    NO_SAFEPOINT("tri_vmstack_resume");
    if (!m) return TRI_EUNATTACHED;
    if (!stack) return tri__error(TRI_EINVAL, "tri_vmstack_resume", "stack is NULL");
    if (stack->native)
        return tri__error(TRI_ESTATE, "tri_vmstack_resume", "this is a native stack; tri_native_switch runs it");
    if (!tri__suspended_take(m, stack))
        return tri__error(TRI_ESTATE, "tri_vmstack_resume", "the stack is not suspended");
    tri__stack_link(&m->vmstacks, stack);
    return TRI_OK;
}

int tri_vmstack_touch(tri_thread *thread, tri_vmstack *stack) {
    struct mutator *m = tri__mutator_check(thread, "tri_vmstack_touch");
    NO_SAFEPOINT("tri_vmstack_touch");
    if (!m) return TRI_EUNATTACHED;
    if (!stack) return tri__error(TRI_EINVAL, "tri_vmstack_touch", "stack is NULL");
    if (stack_runs_on(stack, m)) return TRI_OK;
    uint64_t ns = 0;
    tri__suspended_lock(m->heap);
    bool suspended = tri__suspended_hold(stack);
    if (suspended) {
        ns = tri__suspended_make_safe(m, stack);
        tri__suspended_release(stack);
    }
    tri__suspended_unlock(m->heap);
    suspended_tell(m, ns);
    return suspended ? TRI_OK : tri__error(TRI_ESTATE, "tri_vmstack_touch", "the stack runs on another thread");
}

void tri__vmstacks_release_all(struct mutator *m) {
    while (m->vmstacks) {
        struct tri_vmstack *s = m->vmstacks;
        tri__stack_unlink(&m->vmstacks, s);
        tri__stack_delist(m->heap, s);
        tri__fixalloc_put(&m->heap->fix_small, s);
    }
}

/* Their own lists may be in the middle of a change; the heap's was locked. */
void tri__vmstacks_forget(tri_heap *heap) {
    for (struct mutator *m = heap->left; m; m = m->next) {
        m->vmstacks = NULL;
        m->native = NULL;
    }
    tri__lock_acquire(&heap->roots.lock);
    for (struct tri_vmstack *s = heap->roots.stacks; s; s = s->next_all) {
        struct mutator *m = atomic_load_acquire(&s->owner); /* pairs with suspended_take */
        bool of_none = m == STACK_SUSPENDED || m == STACK_HELD || m == STACK_GONE;
        if (!of_none && !m->os) atomic_store_relaxed(&s->owner, STACK_GONE); /* nobody runs it */
    }
    tri__lock_release(&heap->roots.lock);
}
