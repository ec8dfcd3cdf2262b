/*
 * property_roots.c - the roots of a property run: a thread's frames, local handles, scanner and the stack that it runs;
 * shared handles, ranges of global slots and suspended stacks. What leaves a root by an edit is often kept in a frame:
 * then what that edit shades is all that protects it.
 *
 * Owns: the edits of roots. Does not own: when a thread attaches and detaches (property_threads.c). A shared root is
 * edited under its lock, which is held for as long as a thread runs a stack, else for a moment.
 */
#include "tests/property.h"

/* ---- a thread's own roots ---------------------------------------------------------------------------------------- */

struct frame *property_frame_at(struct part *p, uint32_t i) {
    return &p->frames[MAX_FRAMES - 1 - i];
}

void property_frame_push(struct part *p) {
    if (p->nframes == MAX_FRAMES) return;
    struct frame *f = &p->frames[MAX_FRAMES - ++p->nframes]; /* newer ones lie lower, as on a native stack */
    memset(f, 0, sizeof *f);
    f->frame.nslots = FRAME_SLOTS;
    f->frame.slots = f->slots;
    tri_frame_push(p->t, &f->frame);
}

void property_frame_pop(struct part *p) {
    tri_frame_pop(p->t, &p->frames[MAX_FRAMES - p->nframes--].frame);
}

/* The number of some object that the thread holds in a frame, or 0. */
uint32_t property_pick(struct part *p, uint64_t r) {
    struct frame *f = property_frame_at(p, (uint32_t)(r & 0xff) * p->nframes >> 8);
    return f->ids[(r >> 8 & 0xff) * FRAME_SLOTS >> 8];
}

void property_keep(struct part *p, uint64_t r, uint32_t id) {
    struct frame *f = property_frame_at(p, (uint32_t)(r & 0xff) * p->nframes >> 8);
    uint32_t i = (uint32_t)((r >> 8 & 0xff) * FRAME_SLOTS >> 8);
    uintptr_t addr = id ? shadow_entry(&p->w->shadow, id)->addr : 0;
    if (addr && (r >> 16 & 15) == 0) addr += 1 + (r >> 20) % 6; /* an interior pointer */
    if (f->ids[i] != id) f->since[i] = property_clock(p->w);
    f->slots[i] = (void *)addr;
    f->ids[i] = id;
}

/* ---- roots ------------------------------------------------------------------------------------------------------ */

void property_frames(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    switch (r % 16) {
    case 0: property_frame_push(p); break;
    case 1:
        if (p->nframes > 1) property_frame_pop(p);
        break;
    case 2:
        if (p->nframes > 2) { /* to an older frame, as after a longjmp */
            p->nframes--;
            property_frame_pop(p);
        }
        break;
    case 3:
    case 4: property_keep(p, r >> 24, property_pick(p, r >> 8)); break;
    default: property_keep(p, r >> 24, 0);
    }
}

void property_handle(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    struct shared_handle *h = &p->w->handles[(r >> 8) % NHANDLES];
    struct shadow *s = &p->w->shadow;
    if (!property_try_lock(&h->lock)) return;
    uint32_t id = property_pick(p, r >> 16);
    void *obj = (void *)shadow_entry(s, id)->addr;
    if (!h->handle) {
        h->handle = tri_global(p->t, obj);
        h->id = id;
    } else {
        void *old = tri_deref(h->handle);
        if (old != (void *)shadow_entry(s, h->id)->addr) shadow_fail(s, "a handle names another object");
        if (h->id) shadow_validate(s, (uintptr_t)old, "a handle");
        switch (r % 4) {
        case 0:
            tri_global_free(p->t, h->handle);
            property_keep(p, r >> 32,
                          h->id); /* freed, and its object kept: what freeing shades is all that protects it */
            h->handle = NULL;
            h->id = 0;
            break;
        case 1: property_keep(p, r >> 32, h->id); break;
        default:
            if (r >> 40 & 1) property_keep(p, r >> 32, h->id);
            tri_global_set(p->t, h->handle, obj);
            h->id = id;
        }
    }
    property_unlock(&h->lock);
}

static const tri_enc *range_enc(enum word_kind kind) {
    return kind == WORD_BOXED ? &shadow_boxed : kind == WORD_TAGGED ? &shadow_tagged : NULL;
}

/* Takes the range away. What it held is often kept: then what its removal shades is all that protects it. */
static void range_end(struct worker *wk, struct part *p, struct shared_range *range) {
    for (uint32_t i = 0; i < RANGE_SLOTS; i += 5) property_keep(p, RANDOM(wk), range->edges[i].id);
    if (range->manual)
        tri_manual_root_free(p->t, range->root);
    else
        tri_root_remove(p->t, range->root);
    range->root = NULL;
}

/* In memory of the host's, which is full when it is registered; or in a block of manual memory, which is empty. */
static void range_start(struct worker *wk, struct part *p, struct shared_range *range, uint64_t r) {
    struct shadow *s = &p->w->shadow;
    range->kind = (enum word_kind)(r % 3);
    range->manual = r >> 8 & 1;
    range->slots = range->own;
    if (range->manual) range->slots = tri_manual_root_new(p->t, RANGE_SLOTS, range_enc(range->kind), &range->root);
    if (!range->slots) shadow_fail(s, "tri_manual_root_new: %s", tri_last_error());
    for (uint32_t i = 0; i < RANGE_SLOTS; i++) {
        uint64_t r2 = RANDOM(wk);
        range->edges[i] = shadow_edge(s, range->kind, r2 & 1 ? property_pick(p, r2 >> 8) : 0, 8 * (r2 >> 32));
        tri_word word = shadow_encode(s, range->kind, range->edges[i]);
        if (range->manual)
            tri_root_store_value(p->t, range->root, &range->slots[i], word);
        else
            __atomic_store_n(&range->slots[i], word, __ATOMIC_RELAXED);
    }
    if (!range->manual) range->root = tri_root_add(p->t, range->slots, RANGE_SLOTS, range_enc(range->kind));
    if (!range->root) shadow_fail(s, "tri_root_add: %s", tri_last_error());
}

void property_range(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    struct shared_range *range = &p->w->ranges[(r >> 8) % NRANGES];
    struct shadow *s = &p->w->shadow;
    if (!property_try_lock(&range->lock)) return;
    if (!range->root || (r >> 16) % 64 == 0) {
        if (range->root) range_end(wk, p, range);
        range_start(wk, p, range, r >> 24);
    } else {
        uint32_t i = (uint32_t)(r >> 32) % RANGE_SLOTS;
        tri_word word = tri_load_value(&range->slots[i]);
        if (word != shadow_encode(s, range->kind, range->edges[i])) shadow_fail(s, "a global slot holds another word");
        if (property_decode(p, range->kind, word, "a global slot") && r & 1)
            property_keep(p, r >> 40, range->edges[i].id);
        uint64_t r2 = RANDOM(wk);
        range->edges[i] = shadow_edge(s, range->kind, r2 & 3 ? property_pick(p, r2 >> 8) : 0, 8 * (r2 >> 32));
        tri_root_store_value(p->t, range->root, &range->slots[i], shadow_encode(s, range->kind, range->edges[i]));
    }
    property_unlock(&range->lock);
}

/* Pushes, pops, reads and overwrites words of a stack that the calling thread may touch now. */
static void use_stack(struct worker *wk, struct part *p, struct shared_stack *st) {
    struct shadow *s = &p->w->shadow;
    for (int i = 0; i < 4; i++) {
        uint64_t r = RANDOM(wk);
        bool push = (r & 1) ? st->n < STACK_WORDS : st->n == 0;
        if (push) {
            st->edges[st->n] = shadow_edge(s, st->kind, property_pick(p, r >> 8), 8 * (r >> 32));
            st->words[st->n] = shadow_encode(s, st->kind, st->edges[st->n]);
            st->top = st->words + ++st->n;
        } else if (r & 2) {
            uint32_t at = (uint32_t)(r >> 8) % st->n;
            if (st->words[at] != shadow_encode(s, st->kind, st->edges[at]))
                shadow_fail(s, "a stack holds another word");
            if (property_decode(p, st->kind, st->words[at], "a stack")) property_keep(p, r >> 16, st->edges[at].id);
            if (r & 4) {
                st->edges[at] = shadow_edge(s, st->kind, property_pick(p, r >> 40), 8 * (r >> 32));
                st->words[at] = shadow_encode(s, st->kind, st->edges[at]);
            }
        } else {
            st->top = st->words + --st->n;
            if (property_decode(p, st->kind, *st->top, "a stack's top")) property_keep(p, r >> 16, st->edges[st->n].id);
        }
    }
}

static void stack_start(struct worker *wk, struct part *p, struct shared_stack *st) {
    st->words = st->memory[0];
    st->n = 0;
    st->top = st->words;
    st->kind = (enum word_kind)(RANDOM(wk) % 3);
    st->stack = tri_vmstack_add(p->t, st->words, &st->top, range_enc(st->kind));
    if (!st->stack) shadow_fail(&p->w->shadow, "tri_vmstack_add: %s", tri_last_error());
}

static void stack_must(struct part *p, int err, const char *call) {
    if (err != TRI_OK) shadow_fail(&p->w->shadow, "%s: %d: %s", call, err, tri_last_error());
}

/* The stack that the thread runs. */
static void op_own_stack(struct worker *wk, struct part *p) {
    struct shared_stack *st = &p->w->stacks[p->stack];
    uint64_t r = RANDOM(wk);
    use_stack(wk, p, st);
    if (r % 64 == 1) { /* it moves */
        tri_word *words = st->words == st->memory[0] ? st->memory[1] : st->memory[0];
        memcpy(words, st->words, st->n * sizeof *words);
        st->words = words;
        st->top = words + st->n;
        tri_vmstack_move(p->t, st->stack, words, &st->top);
    } else if (r % 16 == 2) {
        stack_must(p, tri_vmstack_suspend(p->t, st->stack), "tri_vmstack_suspend");
        st->owner = -1;
        p->stack = -1;
        property_unlock(&st->lock);
    } else if (r % 256 == 3) {
        if (st->n) property_keep(p, r >> 16, st->edges[0].id);
        tri_vmstack_remove(p->t, st->stack);
        st->stack = NULL;
        st->n = 0;
        p->stack = -1;
        property_unlock(&st->lock);
    }
}

void property_stack(struct worker *wk, struct part *p) {
    if (p->stack >= 0 && RANDOM(wk) % 4) {
        op_own_stack(wk, p);
        return;
    }
    uint64_t r = RANDOM(wk);
    int index = (int)(r % NSTACKS);
    struct shared_stack *st = &p->w->stacks[index];
    if (!property_try_lock(&st->lock)) return; /* somebody runs it, or touches it */
    if (!st->stack) {
        if (p->stack < 0) {
            stack_start(wk, p, st);
            st->owner = wk->index;
            p->stack = index;
            return; /* the lock is kept while it runs */
        }
    } else if (p->stack < 0 && (r >> 16) % 3) {
        stack_must(p, tri_vmstack_resume(p->t, st->stack), "tri_vmstack_resume");
        st->owner = wk->index;
        p->stack = index;
        return;
    } else if ((r >> 16) % 32 == 5) {
        if (st->n) property_keep(p, r >> 24, st->edges[st->n - 1].id);
        tri_vmstack_remove(p->t, st->stack);
        st->stack = NULL;
        st->n = 0;
    } else {
        stack_must(p, tri_vmstack_touch(p->t, st->stack), "tri_vmstack_touch");
        use_stack(wk, p, st);
    }
    property_unlock(&st->lock);
}

static void scan_words(tri_visitor *visitor, void *arg) {
    const struct part *p = arg;
    tri_visit(visitor, p->scanned, SCANNER_WORDS / 2);
    tri_visit_values(visitor, p->scanned + SCANNER_WORDS / 2, SCANNER_WORDS - SCANNER_WORDS / 2, &shadow_boxed);
}

void property_scanner(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    if (!p->scanner) {
        p->scanner = tri_scanner_add(p->t, scan_words, p);
        if (!p->scanner) shadow_fail(&p->w->shadow, "tri_scanner_add: %s", tri_last_error());
        return;
    }
    uint32_t i = (uint32_t)(r >> 8) % SCANNER_WORDS;
    if (r % 128 == 0) {
        property_keep(p, r >> 32, p->scanned_ids[i]);
        tri_scanner_remove(p->t, p->scanner);
        p->scanner = NULL;
        memset(p->scanned, 0, sizeof p->scanned);
        memset(p->scanned_ids, 0, sizeof p->scanned_ids);
        return;
    }
    enum word_kind kind = i < SCANNER_WORDS / 2 ? WORD_POINTER : WORD_BOXED;
    if (property_decode(p, kind, p->scanned[i], "a scanned word") != p->scanned_ids[i])
        shadow_fail(&p->w->shadow, "a scanned word names another object");
    if (p->scanned_ids[i]) property_keep(p, r >> 32, p->scanned_ids[i]);
    p->scanned_ids[i] = property_pick(p, r >> 16);
    p->scanned[i] = shadow_encode(&p->w->shadow, kind, (struct edge){p->scanned_ids[i], 0});
}

void property_locals(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    if (p->nlocals == MAX_LOCALS || r % 16 == 0) {
        if (r >> 8 & 1) { /* the inner scope only */
            tri_scope_close(p->t, p->scope);
            p->nlocals = p->scope_nlocals;
        } else {
            tri_scope_close(p->t, 0);
            p->nlocals = 0;
        }
        p->scope = tri_scope_open(p->t);
        p->scope_nlocals = p->nlocals;
    } else if (r % 16 == 1) {
        p->scope = tri_scope_open(p->t);
        p->scope_nlocals = p->nlocals;
    } else if (r % 4 == 2 && p->nlocals) {
        uint32_t i = (uint32_t)(r >> 8) % p->nlocals;
        void *obj = tri_deref(p->locals[i]);
        if (obj != (void *)shadow_entry(&p->w->shadow, p->local_ids[i])->addr)
            shadow_fail(&p->w->shadow, "a local handle names another object");
        if (obj) shadow_validate(&p->w->shadow, (uintptr_t)obj, "a local handle");
        property_keep(p, r >> 16, p->local_ids[i]);
    } else {
        uint32_t id = property_pick(p, r >> 8);
        p->local_ids[p->nlocals] = id;
        p->locals[p->nlocals++] = tri_local(p->t, (void *)shadow_entry(&p->w->shadow, id)->addr);
    }
}

void property_leave_stack(struct part *p) {
    if (p->stack < 0) return;
    struct shared_stack *st = &p->w->stacks[p->stack];
    stack_must(p, tri_vmstack_suspend(p->t, st->stack), "tri_vmstack_suspend");
    st->owner = -1;
    p->stack = -1;
    property_unlock(&st->lock);
}
