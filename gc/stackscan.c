/* stackscan.c - a thread's own roots at its scan handshake: native stack, frames, local handles, value stacks,
 * callbacks; in place, or, where the stacks are deep, by a copy (stackcopy.h).
 *
 * Runs on the thread itself or, while it is blocked, on the collector that holds its state word. Owns no state. No lock
 * is held; RANK_COPIES is taken inside. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/suspended.h"
#include "gc/units.h"

#define NO_SANITIZE_STACK __attribute__((no_sanitize("address", "thread"), noinline))

/* Other frames' redzones, and races with what a blocking region's function writes into frames above it, are none of a
 * sanitizer's business. */
NO_SANITIZE_STACK void tri__marker_native_words(struct marker *mk, const tri_word *words, size_t n) {
    const volatile uintptr_t *p = (const volatile uintptr_t *)(uintptr_t)words;
    for (size_t i = 0; i < n; i++) tri__marker_conservative(mk, p[i]);
}

void tri__marker_frames(struct marker *mk, struct frame_cursor *at, size_t nslots) {
    while (at->frame && nslots > 0) {
        const tri_frame *f = at->frame;
        size_t end = min_size(f->nslots, at->slot + nslots);
        nslots -= min_size(nslots, end - at->slot + 1); /* an empty frame counts, too */
        for (size_t i = at->slot; i < end; i++) tri__marker_candidate(mk, (uintptr_t)f->slots[i]);
        bool done = end == f->nslots;
        *at = (struct frame_cursor){done ? f->prev : f, done ? 0 : end};
    }
}

static void scan_frames(struct marker *mk, struct copying *copying, const tri_frame *frames) {
    struct frame_cursor at = {frames, 0};
    tri__copying_frames(copying, &at);
    tri__marker_frames(mk, &at, SIZE_MAX);
}

static void scan_native(struct marker *mk, struct copying *copying, uintptr_t low, uintptr_t high) {
    const tri_word *p = (const tri_word *)align_up(low, 8);
    size_t n = (high - (uintptr_t)p) / 8, done = tri__copying_words(copying, p, n, NULL);
    tri__marker_native_words(mk, p + done, n - done);
}

/* Two parts: the stack that the thread runs on, from sp up, and, if that is a coroutine's, its own from where it was
 * left. Either is empty where it is scanned precisely or its end is not known. */
struct native_part {
    uintptr_t low, high;
};

/* False when the thread runs on a stack that is neither its own nor one that it has switched to. */
static bool native_parts(const struct mutator *m, uintptr_t sp, struct native_part parts[2]) {
    const struct osthread *os = m->os;
    const struct tri_vmstack *on = m->native;
    bool own = !(m->flags & TRI_ATTACH_PRECISE);
    parts[0] = parts[1] = (struct native_part){0, 0};
    if (on && own) parts[1] = (struct native_part){m->own_sp, os->stack_high};
    if (on ? !on->conservative : !own) return true;
    uintptr_t low = on ? on->low : os->stack_low, high = on ? on->high : os->stack_high;
    if (sp < low || sp >= high) return false;
    parts[0] = (struct native_part){sp, high};
    return true;
}

/* A stack that is not the thread's own (a coroutine's, sigaltstack's), and to which it has not switched by
 * tri_native_switch, has no known end: it is not scanned, but for a report. Such threads keep their references in
 * precise roots. */
static void report_foreign(struct mutator *m) {
    if (!m->os->told_foreign)
        tri__report(m->heap, "tri_poll",
                    "a safepoint on a stack that is not the thread's own (a coroutine's?) is not scanned: switch to it "
                    "by tri_native_switch, or keep references in value stacks or frames and attach with "
                    "TRI_ATTACH_PRECISE");
    m->os->told_foreign = true;
}

/* To look at a frame costs as much as to look at a slot, or more: it is in a place of its own. */
struct frame_count {
    size_t nframes, nslots;
};

static bool has_counted(const struct frame_count *c, size_t most) {
    return c->nframes >= most || c->nslots >= most;
}

static void count_chain(struct frame_count *c, const tri_frame *f, size_t most) {
    for (; f && !has_counted(c, most); f = f->prev) {
        c->nslots += f->nslots;
        c->nframes++;
    }
}

/* All chains, or until there are that many frames or slots. */
static struct frame_count count_frames(const struct mutator *m, size_t most) {
    struct frame_count c = {0, 0};
    count_chain(&c, m->pub.frames, most);
    if (m->native) count_chain(&c, m->own_frames, most);
    return c;
}

bool tri__mutator_count_frames(struct mutator *m) {
    struct frame_count c = count_frames(m, SIZE_MAX);
    m->frame_bytes = c.nslots * sizeof(void *);
    return has_counted(&c, COPY_FROM_BYTES / sizeof(void *));
}

static size_t bytes_beside_frames(const struct mutator *m, uintptr_t sp) {
    struct native_part parts[2];
    size_t bytes = m->nlocals * sizeof(struct tri_ref);
    native_parts(m, sp, parts);
    for (int i = 0; i < 2; i++) bytes += parts[i].high - parts[i].low;
    for (const struct tri_vmstack *s = m->vmstacks; s; s = s->next) bytes += tri__vmstack_bytes(s);
    return bytes;
}

size_t tri__mutator_stack_bytes(const struct mutator *m, uintptr_t sp) {
    return bytes_beside_frames(m, sp) + m->frame_bytes;
}

bool tri__mutator_is_deep(const struct mutator *m, uintptr_t sp) {
    size_t from = tri__copies_from_bytes(m->heap), bytes = bytes_beside_frames(m, sp);
    if (bytes >= from) return true;
    size_t most = (from - bytes + sizeof(void *) - 1) / sizeof(void *);
    struct frame_count c = count_frames(m, most);
    tri__units_did(c.nframes);
    return has_counted(&c, most);
}

void tri__mutator_stacks_scanned(struct mutator *m) {
    uint64_t cycle = atomic_load_relaxed(&m->heap->cycle_number); /* ordered by this thread's H1 answer */
    for (struct tri_vmstack *s = m->vmstacks; s; s = s->next) stack_note_scanned(s, cycle);
    if (m->native) stack_note_scanned(m->native, cycle);
}

void tri__mutator_scan_roots(struct mutator *m) {
    static const tri_enc plain = {0, 0, ~0ull, ~0ull};
    struct marker *mk = &m->marker;
    struct copying copying;
    struct native_part parts[2];
    uintptr_t sp = atomic_load_acquire(&m->os->sp); /* pairs with enter_blocked */
    tri__copying_begin(&copying, m->heap, tri__mutator_stack_bytes(m, sp));
    if (!native_parts(m, sp, parts)) report_foreign(m);
    for (int i = 0; i < 2; i++)
        if (parts[i].high) scan_native(mk, &copying, parts[i].low, parts[i].high);
    for (size_t i = 0; i < m->os->nregions; i++) tri__marker_conservative(mk, (uintptr_t)m->os->region_roots[i]);
    scan_frames(mk, &copying, m->pub.frames);
    if (m->native) scan_frames(mk, &copying, m->own_frames);
    for (struct scope_block *b = m->scopes; b; b = b->prev)
        for (size_t i = tri__copying_words(&copying, &b->slots[0].word, b->n, &plain); i < b->n; i++)
            tri__marker_candidate(mk, (uintptr_t)b->slots[i].word);
    for (struct tri_vmstack *s = m->vmstacks; s; s = s->next) tri__vmstack_scan(s, mk, &copying);
    tri__copying_end(&copying);
    struct tri_visitor visitor = {.marker = mk};
    IN_CALLBACK(ROOT_CALLBACK);
    for (struct tri_scanner *s = m->scanners; s; s = s->next) s->fn(&visitor, s->arg);
}
