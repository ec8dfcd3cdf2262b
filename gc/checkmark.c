/* checkmark.c - the oracle: after concurrent marking, with every thread held, mark again with the plain algorithm into
 * bits of its own, and report each object that the concurrent marking missed, with its owner and the slot.
 *
 * What a native stack names conservatively is no proof of a reference (a stale word may have come into view since the
 * scan), so only precise roots count here. The algorithm is the dumbest there is: a stack of objects, no ring, no
 * pieces. Memory comes straight from the system; without it the check is skipped with a report. */
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

struct checkmark {
    tri_heap *heap;
    uint64_t *bits; /* a bit a granule; tiny slots share one, which is fine for leaves */
    size_t bits_bytes;
    uintptr_t *stack;
    size_t n, capacity;
    const char *root;  /* what is being scanned, for messages */
    struct slot owner; /* the object that is being scanned, if root is NULL */
    bool failed;
    int missed;
};

static void grow(struct checkmark *c) {
    size_t capacity = c->capacity ? c->capacity * 2 : 65536;
    uintptr_t *stack = tri__os_map(capacity * sizeof *stack);
    if (!stack) {
        c->failed = true;
        return;
    }
    if (c->stack) {
        memcpy(stack, c->stack, c->n * sizeof *stack);
        tri__os_release(c->stack, c->capacity * sizeof *stack);
    }
    c->stack = stack;
    c->capacity = capacity;
}

static void report_missed(struct checkmark *c, const struct slot *slot, const tri_word *from) {
    struct space *space = &c->heap->mem.space;
    const char *type = layout_name(space_layout_of(space, slot));
    c->missed++;
    if (!tri__stress_may_report(c->heap)) return;
    if (c->root)
        tri__report(c->heap, "checkmark",
                    "%s %p was missed: it is reachable from %s; was the root registered and, if it "
                    "is global, stored with tri_root_store?",
                    type, (void *)slot->addr, c->root);
    else
        tri__report(c->heap, "checkmark",
                    "%s %p was missed: it is reachable from %s %p at offset %zu; stored without "
                    "tri_store?",
                    type, (void *)slot->addr, layout_name(space_layout_of(space, &c->owner)), (void *)c->owner.addr,
                    (size_t)((uintptr_t)from - c->owner.addr));
}

static void reach(struct checkmark *c, const tri_word *from, uintptr_t ref, bool validate) {
    struct space *space = &c->heap->mem.space;
    struct slot slot;
    if (!space_find_slot(space, ref, &slot) || (validate && !space_is_allocated(space, &slot))) return;
    size_t granule = (slot.addr - space->base) >> GRANULE_SHIFT;
    uint64_t bit = 1ull << (granule & 63);
    if (c->bits[granule >> 6] & bit) return;
    c->bits[granule >> 6] |= bit;
    if (!space_is_marked(space, &slot)) report_missed(c, &slot, from);
    if (c->n == c->capacity) grow(c);
    if (!c->failed) c->stack[c->n++] = slot.addr;
}

static void visit_slot(void *p, const tri_word *slot, uintptr_t ref, enum slot_kind kind) {
    reach(p, slot, ref, kind == SLOT_MAYBE);
}

static void trace_all(struct checkmark *c) {
    c->root = NULL;
    while (c->n && !c->failed) {
        uintptr_t addr = c->stack[--c->n];
        if (!space_find_slot(&c->heap->mem.space, addr, &c->owner)) continue;
        tri__mark_each_slot(&c->heap->mem.space, &c->owner, visit_slot, c);
    }
}

struct entries {
    struct checkmark *c;
    size_t nreached;
};

static bool is_reached(const struct checkmark *c, uintptr_t addr) {
    const struct space *space = &c->heap->mem.space;
    struct slot slot;
    if (!space_find_slot(space, addr, &slot) || !space_is_marked(space, &slot))
        return false; /* tiny slots share bits */
    size_t granule = (slot.addr - space->base) >> GRANULE_SHIFT;
    return c->bits[granule >> 6] >> (granule & 63) & 1;
}

static void visit_entry(void *p, const struct wmap *map, const struct wentry *e) {
    struct entries *entries = p;
    struct checkmark *c = entries->c;
    uintptr_t ref = enc_decode(&map->enc, e->value);
    size_t before = c->n;
    if (!ref || !is_reached(c, map->obj) || !is_reached(c, e->key)) return;
    reach(c, &e->value, ref, false);
    entries->nreached += c->n - before;
}

/* Values of weak maps: again and again, until nothing more is reached. */
static void trace_entries(struct checkmark *c) {
    struct entries entries = {c, 1};
    while (entries.nreached && !c->failed) {
        entries.nreached = 0;
        c->root = "a weak map, under a live key";
        tri__ephemerons_each(c->heap, visit_entry, &entries);
        trace_all(c);
    }
}

static void words(struct checkmark *c, const tri_word *p, const tri_word *end, const tri_enc *enc) {
    for (; p < end; p++) {
        uintptr_t ref = enc_decode(enc, atomic_load_acquire(p)); /* nobody runs */
        if (ref) reach(c, p, ref, false);
    }
}

static void frames(struct checkmark *c, const tri_frame *f) {
    static const tri_enc plain = {0, 0, ~0ull, ~0ull};
    for (; f; f = f->prev)
        words(c, (const tri_word *)(void *)f->slots, (const tri_word *)(void *)(f->slots + f->nslots), &plain);
}

static void vmstack(struct checkmark *c, const struct tri_vmstack *s) {
    const tri_word *base = (const tri_word *)s->base;
    if (s->native)
        frames(c, s->frames);
    else
        words(c, base, base + tri__vmstack_bytes(s) / 8, &s->enc);
}

static void thread_roots(struct checkmark *c, struct mutator *m) {
    static const tri_enc plain = {0, 0, ~0ull, ~0ull};
    c->root = "a frame of a thread";
    frames(c, m->pub.frames);
    if (m->native) frames(c, m->own_frames);
    c->root = "a local handle";
    for (struct scope_block *b = m->scopes; b; b = b->prev)
        for (size_t i = 0; i < b->n; i++) words(c, &b->slots[i].word, &b->slots[i].word + 1, &plain);
    c->root = "a VM stack";
    for (struct tri_vmstack *s = m->vmstacks; s; s = s->next) vmstack(c, s);
    c->root = "a scanner callback";
    struct tri_visitor visitor = {.each = visit_slot, .context = c};
    IN_CALLBACK(ROOT_CALLBACK);
    for (struct tri_scanner *s = m->scanners; s; s = s->next) s->fn(&visitor, s->arg);
}

static void visit_queued(void *p, const uintptr_t *addr) {
    reach(p, (const tri_word *)(const void *)addr, *addr, false);
}

static void heap_roots(struct checkmark *c) {
    struct roots *roots = &c->heap->roots;
    c->root = "a registered range of global slots";
    for (struct tri_root *r = roots->ranges; r; r = r->next) words(c, r->slots, r->slots + r->nslots, &r->enc);
    c->root = "a persistent handle";
    for (struct handle_block *b = roots->handles; b; b = b->next)
        for (size_t i = 0; i < b->nused; i++)
            if (!(atomic_load_relaxed(&b->slots[i].word) & 1))
                reach(c, &b->slots[i].word, (uintptr_t)b->slots[i].word, false);
    c->root = "a finalizer queue";
    tri__finalize_each(c->heap, visit_queued, c);
    c->root = "a suspended stack";
    for (struct tri_vmstack *s = roots->stacks; s; s = s->next_all)
        if (!atomic_load_acquire(&s->owner)) vmstack(c, s); /* nobody runs: pairs with suspended_put */
}

int tri__checkmark(tri_heap *heap) {
    struct space *space = &heap->mem.space;
    struct checkmark c = {.heap = heap};
    c.bits_bytes = align_up(atomic_load_acquire(&space->committed_pages) * PAGE_BIT_WORDS * 8,
                            1 << 16); /* space_commit */
    c.bits = tri__os_map(max_size(c.bits_bytes, 1 << 16));
    if (!c.bits) {
        tri__report(heap, "checkmark", "skipped: no memory for its own mark bits");
        return 0;
    }
    for (struct mutator *m = heap->threads; m; m = m->next) thread_roots(&c, m);
    tri__lock_acquire(&heap->roots.lock);
    heap_roots(&c);
    tri__lock_release(&heap->roots.lock);
    trace_all(&c);
    trace_entries(&c);
    if (c.failed) tri__report(heap, "checkmark", "incomplete: no memory for its stack");
    tri__os_release(c.bits, max_size(c.bits_bytes, 1 << 16));
    if (c.stack) tri__os_release(c.stack, c.capacity * sizeof *c.stack);
    return c.missed;
}
