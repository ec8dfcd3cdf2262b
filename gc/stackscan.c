/* stackscan.c - a thread's own roots at its scan handshake: native stack, frames, local handles, value stacks,
 * callbacks; in place, or, where the stacks are deep, by a copy (stackcopy.h).
 *
 * Runs on the thread itself or, while it is blocked, on the collector that holds its state word. Owns no state. No lock
 * is held; RANK_COPIES is taken inside. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

#define NO_SANITIZE_STACK __attribute__((no_sanitize("address", "thread"), noinline))

/* Reads a native stack word by word; other frames' redzones and races with itself are none of a sanitizer's
 * business. */
static NO_SANITIZE_STACK void scan_words(struct marker *mk, const tri_word *words, size_t n) {
    const volatile uintptr_t *p = (const volatile uintptr_t *)(uintptr_t)words;
    for (size_t i = 0; i < n; i++) tri__marker_conservative(mk, p[i]);
}

static void scan_native(struct marker *mk, struct copying *copying, uintptr_t low, uintptr_t high) {
    const tri_word *p = (const tri_word *)align_up(low, 8);
    size_t n = (high - (uintptr_t)p) / 8, done = tri__copying_words(copying, p, n, NULL);
    scan_words(mk, p + done, n - done);
}

static bool runs_on_own(const struct osthread *os, uintptr_t sp) {
    return sp >= os->stack_low && sp < os->stack_high;
}

/* A stack that is not the thread's own (a coroutine's, sigaltstack's) has no known end: it is not scanned, but for a
 * report. Such threads keep their references in precise roots. */
static void scan_own_native(struct mutator *m, struct copying *copying) {
    uintptr_t sp = atomic_load_acquire(&m->os->sp); /* pairs with enter_blocked */
    if (runs_on_own(m->os, sp)) {
        scan_native(&m->marker, copying, sp, m->os->stack_high);
        return;
    }
    if (!m->os->told_foreign)
        tri__report(m->heap, "tri_poll",
                    "a safepoint on a stack that is not the thread's own (a coroutine's?) is not scanned: "
                    "keep references in value stacks or frames, and attach with TRI_ATTACH_PRECISE");
    m->os->told_foreign = true;
}

size_t tri__mutator_stack_bytes(const struct mutator *m, uintptr_t sp) {
    size_t bytes = m->nlocals * sizeof(struct tri_ref);
    if (!(m->flags & TRI_ATTACH_PRECISE) && runs_on_own(m->os, sp)) bytes += m->os->stack_high - sp;
    for (const struct tri_vmstack *s = m->vmstacks; s; s = s->next) bytes += tri__vmstack_bytes(s);
    return bytes;
}

void tri__mutator_scan_roots(struct mutator *m) {
    static const tri_enc plain = {0, 0, ~0ull, ~0ull};
    struct marker *mk = &m->marker;
    struct copying copying;
    tri__copying_begin(&copying, m->heap, tri__mutator_stack_bytes(m, atomic_load_acquire(&m->os->sp)));
    if (!(m->flags & TRI_ATTACH_PRECISE)) scan_own_native(m, &copying);
    if (m->os->blocking_arg) tri__marker_conservative(mk, (uintptr_t)m->os->blocking_arg);
    for (tri_frame *f = m->pub.frames; f; f = f->prev)
        for (size_t i = 0; i < f->nslots; i++) tri__marker_candidate(mk, (uintptr_t)f->slots[i]);
    for (struct scope_block *b = m->scopes; b; b = b->prev)
        for (size_t i = tri__copying_words(&copying, &b->slots[0].word, b->n, &plain); i < b->n; i++)
            tri__marker_candidate(mk, (uintptr_t)b->slots[i].word);
    for (struct tri_vmstack *s = m->vmstacks; s; s = s->next) tri__vmstack_scan(s, mk, &copying);
    tri__copying_end(&copying);
    struct tri_visitor visitor = {.marker = mk};
    IN_CALLBACK(ROOT_CALLBACK);
    for (struct tri_scanner *s = m->scanners; s; s = s->next) s->fn(&visitor, s->arg);
}
