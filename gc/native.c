/* native.c - native stacks of coroutines: the conservative counterpart of value stacks, and the switch between two.
 *
 * A thread runs on its own native stack or, by tri_native_switch, on one that was registered. The one that it leaves
 * lies still from there on: its registers are spilled above the recorded stack pointer, the frames pushed on it go with
 * it, and rule R8 holds for it as for any suspended stack. The thread's own stack, once left, stays the thread's: it is
 * scanned with it, from where it was left, since nobody else can run it.
 *
 * Which stack a thread runs on is known by attachment: a host with several heaps tells each (a switch inside the
 * other's `jump`).
 *
 * Invariants: I-NAT1 while a thread runs on a registered stack, mutator.native is that one and own_sp, own_frames say
 * where its own was left. I-NAT2 nobody writes above a suspended native stack's recorded pointer but after a touch.
 * Lock rank: roots (30), where a stack comes and goes; a switch takes none. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/suspended.h"

_Static_assert(sizeof(struct tri_vmstack) <= 128, "a stack's record fits into heap.fix_small");

tri_vmstack *tri_native_add(tri_thread *thread, void *low, size_t size_bytes) {
    struct mutator *m = tri__mutator_check(thread, "tri_native_add");
    NO_SAFEPOINT("tri_native_add");
    if (!m) return NULL;
    if (!low || (uintptr_t)low % 16 || size_bytes < 1024 || size_bytes % 16 ||
        size_bytes > UINTPTR_MAX - (uintptr_t)low) {
        tri__error(TRI_EINVAL, "tri_native_add",
                   "low is NULL or not 16-byte aligned, or size_bytes is no multiple of 16 from 1024 up");
        return NULL;
    }
    tri_vmstack *s = tri__fixalloc_get(&m->heap->fix_small);
    if (!s) {
        tri__error(TRI_ENOMEM, "tri_native_add", "no memory for the stack's record");
        return NULL;
    }
    uintptr_t high = (uintptr_t)low + size_bytes;
    *s = (tri_vmstack){.heap = m->heap,
                       .base = high,
                       .low = (uintptr_t)low,
                       .high = high,
                       .native = true,
                       .conservative = !(m->flags & TRI_ATTACH_PRECISE)};
    tri__suspended_put(m, s); /* nothing is on it: scanned or not */
    tri__stack_enlist(m->heap, s);
    return s;
}

struct switching {
    struct mutator *m;
    tri_vmstack *to;
    void (*jump)(void *);
    void *arg; /* in a frame that is scanned with the stack that is left */
    int err;
};

/* The one that is running is left at sp; `to` runs. */
static int exchange(struct mutator *m, tri_vmstack *to, uintptr_t sp) {
    NO_SAFEPOINT("tri_native_switch");
    tri_vmstack *from = m->native;
    uintptr_t low = from ? from->low : m->os->stack_low, high = from ? from->high : m->os->stack_high;
    if (high && (sp < low || sp >= high))
        return tri__error(TRI_ESTATE, "tri_native_switch",
                          "the calling thread does not run on the stack that it switched to last; tell each switch");
    tri__stress_delay(m->heap);
    bool suspended = !to || tri__suspended_take(m, to);
    if (suspended) {
        tri_frame *frames = to ? to->frames : m->own_frames;
        if (from) {
            from->base = sp;
            from->frames = m->pub.frames;
            tri__suspended_put(m, from);
        } else {
            m->own_sp = sp;
            m->own_frames = m->pub.frames;
        }
        m->native = to;
        m->pub.frames = frames;
    }
    tri__stress_delay(m->heap);
    return suspended ? TRI_OK : tri__error(TRI_ESTATE, "tri_native_switch", "the stack is not suspended");
}

/* Nothing of the thread's may be used once jump has returned: it may be another's call then. */
static void switch_spilled(struct osthread *os, void *p) {
    struct switching *s = p;
    s->err = exchange(s->m, s->to, atomic_load_relaxed(&os->sp)); /* own word, set by who called this */
    if (s->err == TRI_OK) s->jump(s->arg);
}

int tri_native_switch(tri_thread *thread, tri_vmstack *to, void (*jump)(void *arg), void *arg) {
    struct mutator *m = tri__mutator_check(thread, "tri_native_switch");
    if (!m) return TRI_EUNATTACHED;
    if (!jump || (to && (!to->native || to->heap != m->heap)))
        return tri__error(TRI_EINVAL, "tri_native_switch", "jump is NULL, or `to` is no native stack of this heap");
    if (to == m->native)
        return tri__error(TRI_ESTATE, "tri_native_switch", "the calling thread runs on that stack already");
    note_site(m, CALL_SITE("tri_native_switch"));
    struct switching s = {m, to, jump, arg, TRI_OK};
    tri__with_registers_spilled(switch_spilled, m->os, &s);
    return s.err;
}

void tri__native_release(struct mutator *m) {
    if (m->native) {
        tri__stack_delist(m->heap, m->native);
        tri__fixalloc_put(&m->heap->fix_small, m->native);
    }
    m->native = NULL;
    m->own_frames = NULL;
}
