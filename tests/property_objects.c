/*
 * property_objects.c - the objects of a property run: their shapes (every kind of slot that a descriptor can name, made
 * types for mixed spans, arrays small and large), making them, and loads and stores of every kind; and blocks of manual
 * memory beside them.
 *
 * Owns: which shapes there are and how often. Does not own: what an entry of the shadow is (shadow.c), the roots that
 * objects are picked from (property_roots.c). A slot is edited under its entry's lock; wild objects have none.
 */
#include "tests/property.h"

/* ---- shapes -------------------------------------------------------------------------------------------------- */

#define OFFSETS(...)                                                                        \
    {                                                                                       \
        0, 0, (uint32_t)(sizeof((const uint32_t[]){__VA_ARGS__}) / 4), (const uint32_t[]) { \
            __VA_ARGS__                                                                     \
        }                                                                                   \
    }
#define TYPE_HEAD(name_, size_, elem_) \
    .struct_size = sizeof(tri_type), .name = (name_), .size = (size_), .elem_size = (elem_)

static tri_type leaf8_type = {TYPE_HEAD("leaf8", 8, 0), .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED};
static tri_type small_type = {TYPE_HEAD("small", 16, 0), .pointers = OFFSETS(8)};
static tri_type pair_type = {TYPE_HEAD("pair", 32, 0), .pointers = OFFSETS(8, 16)};
static tri_type boxed_type = {TYPE_HEAD("boxed", 32, 0), .enc = &shadow_boxed, .values = OFFSETS(0, 8, 16, 24)};
static tri_type tagged_type = {TYPE_HEAD("tagged", 24, 0), .enc = &shadow_tagged, .values = OFFSETS(8, 16)};
static tri_type parray_type = {TYPE_HEAD("parray", 8, 8), .elem_pointers = OFFSETS(0)};
static tri_type varray_type = {TYPE_HEAD("varray", 8, 8), .enc = &shadow_boxed, .elem_values = OFFSETS(0)};
static tri_type elems_type = {TYPE_HEAD("elems", 16, 24), .enc = &shadow_boxed, .pointers = OFFSETS(8),
                              .elem_values = OFFSETS(0), .elem_pointers = OFFSETS(8)};
static tri_type leaf_type = {TYPE_HEAD("leaf", 48, 0), .flags = TRI_TYPE_LEAF};
static tri_type maybe_type = {TYPE_HEAD("maybe", 32, 0), .maybes = OFFSETS(16), .pointers = OFFSETS(24)};
static tri_type wild_type = {TYPE_HEAD("wild", 32, 0), .pointers = OFFSETS(8, 16, 24)};
static tri_type wild_boxed_type = {TYPE_HEAD("wild_boxed", 32, 0), .enc = &shadow_boxed,
                                   .values = OFFSETS(0, 8, 16, 24)};

/* Elements of a pointer and a boxed value, from offset 16 on; their number lies at offset 8 and never changes. */
static size_t trace_traced(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    size_t n = (size_t)((const uint64_t *)obj)[1], at = from;
    const tri_word *slots = (const tri_word *)obj + 2;
    size_t end = at + (budget < 5 ? budget : 5); /* resumes often */
    if (end > n) end = n;
    for (; at < end; at++) {
        tri_visit(visitor, slots + 2 * at, 1);
        tri_visit_values(visitor, slots + 2 * at + 1, 1, &shadow_boxed);
    }
    return at < n ? at : 0;
}
static tri_type traced_type = {TYPE_HEAD("traced", 16, 16), .enc = &shadow_boxed, .trace = trace_traced};

#define FIXED(n_, ...) .nfixed = (n_), .fixed_offset = {__VA_ARGS__}
static const struct shape shapes[NUM_SHAPES] = {
    [LEAF8] = {.type = &leaf8_type, .size = 8},
    [SMALL] = {.type = &small_type, .size = 16, FIXED(1, 8)},
    [PAIR] = {.type = &pair_type, .size = 32, FIXED(2, 8, 16), .npayload = 3},
    [BOXED] = {.type = &boxed_type,
               .size = 32,
               FIXED(3, 8, 16, 24),
               .fixed_kind = {WORD_BOXED, WORD_BOXED, WORD_BOXED}},
    [TAGGED] = {.type = &tagged_type, .size = 24, FIXED(2, 8, 16), .fixed_kind = {WORD_TAGGED, WORD_TAGGED}},
    [PARRAY] = {.type = &parray_type, .size = 8, .elem_size = 8, .nper_elem = 1},
    [VARRAY] = {.type = &varray_type, .size = 8, .elem_size = 8, .nper_elem = 1, .elem_kind = {WORD_BOXED}},
    [ELEMS] = {.type = &elems_type,
               .size = 16,
               .elem_size = 24,
               FIXED(1, 8),
               .nper_elem = 2,
               .elem_offset = {0, 8},
               .elem_kind = {WORD_BOXED, WORD_POINTER}},
    [LEAF] = {.type = &leaf_type, .size = 48, .npayload = 5},
    [BYTES] = {.type = NULL, .size = 8},
    [TRACED] = {.type = &traced_type,
                .size = 16,
                .elem_size = 16,
                .nper_elem = 2,
                .elem_offset = {0, 8},
                .elem_kind = {WORD_POINTER, WORD_BOXED},
                .traced = 1},
    [MAYBE] =
        {.type = &maybe_type, .size = 32, FIXED(2, 16, 24), .fixed_kind = {WORD_MAYBE, WORD_POINTER}, .npayload = 1},
    [WILD] = {.type = &wild_type, .size = 32, FIXED(3, 8, 16, 24), .wild = true},
    [WILD_BOXED] = {.type = &wild_boxed_type,
                    .size = 32,
                    FIXED(3, 8, 16, 24),
                    .fixed_kind = {WORD_BOXED, WORD_BOXED, WORD_BOXED},
                    .wild = true},
};

/* ---- objects --------------------------------------------------------------------------------------------------- */

static struct made_type *all_made; /* [atomic] descriptors are never freed: they may be in use by any later heap */

static struct made_type *make_type(struct world *w, uint64_t r) {
    static const uint16_t sizes[] = {64, 80, 96, 112, 128, 176, 256, 320, 512, 768, 1024, 1536, 2048};
    struct made_type *m = calloc(1, sizeof *m); /* for as long as the process lives, as descriptors must */
    if (!m) shadow_fail(&w->shadow, "no memory for a descriptor");
    size_t size = sizes[r % (sizeof sizes / sizeof *sizes)];
    r >>= 8;
    bool boxed = r & 1, maybe = !boxed && (r & 2);
    uint32_t nslots = 1 + (r >> 2) % SHAPE_MAX_FIXED, n[2] = {0, 0};
    r >>= 8;
    m->shape = (struct shape){.type = &m->type, .size = size, .npayload = (uint32_t)(size / 8 - 1)};
    size_t stride = (size / 8 - 1) / nslots;
    for (uint32_t i = 0; i < nslots && stride > 0; i++) {
        uint32_t offset = (uint32_t)(1 + i * stride + (r >> i) % stride) * 8;
        bool other = (boxed || maybe) && (r >> (i + 8) & 1);
        m->shape.fixed_offset[m->shape.nfixed] = (uint16_t)offset;
        m->shape.fixed_kind[m->shape.nfixed++] = (uint8_t)(!other ? WORD_POINTER : boxed ? WORD_BOXED : WORD_MAYBE);
        m->offsets[other][n[other]++] = offset;
    }
    m->type = (tri_type){TYPE_HEAD("made", size, 0), .enc = boxed ? &shadow_boxed : NULL};
    m->type.pointers = (tri_slots){0, 0, n[0], m->offsets[0]};
    *(maybe ? &m->type.maybes : &m->type.values) = (tri_slots){0, 0, n[1], m->offsets[1]};
    m->next = __atomic_exchange_n(&all_made, m, __ATOMIC_ACQ_REL);
    return m;
}

/* One of the last NMIXED types; a new one takes the oldest's place now and then. */
static const struct shape *made_shape(struct world *w, uint64_t r) {
    uint32_t n = __atomic_load_n(&w->nmade, __ATOMIC_ACQUIRE);
    if ((n < NMIXED || r % 100 == 0) && n < 20000 && pthread_mutex_trylock(&w->made_lock) == 0) {
        n = __atomic_load_n(&w->nmade, __ATOMIC_RELAXED);
        struct made_type *made = make_type(w, r / 128);
        __atomic_store_n(&w->made[n % NMIXED], made, __ATOMIC_RELEASE);
        __atomic_store_n(&w->nmade, n + 1, __ATOMIC_RELEASE);
        pthread_mutex_unlock(&w->made_lock);
        return &made->shape;
    }
    struct made_type *made = __atomic_load_n(&w->made[(r >> 8) % NMIXED], __ATOMIC_ACQUIRE);
    return made ? &made->shape : &shapes[PAIR];
}

static uint32_t random_length(uint64_t r, bool pressure) {
    uint32_t few = (uint32_t)(r >> 20) % 12;
    if (pressure || r % 512 > 1) return few;
    switch ((r >> 10) % 16) {
    case 0: return 17000 + few;     /* over 128 KiB */
    case 1: return 36000 + few * 9; /* zeroed in pieces */
    case 2:
    case 3:
    case 4: return 4100 + few; /* over 32 KiB */
    default: return 100 + (uint32_t)(r >> 20) % 900;
    }
}

struct plan {
    const struct shape *shape;
    uint32_t nelems, npayload;
};

static struct plan plan_object(struct world *w, uint64_t r) {
    static const uint8_t odds[32] = {LEAF8,  SMALL,  SMALL,  SMALL,  SMALL, PAIR,   PAIR,       PAIR,
                                     PAIR,   PAIR,   BOXED,  BOXED,  BOXED, TAGGED, TAGGED,     PARRAY,
                                     PARRAY, PARRAY, VARRAY, VARRAY, ELEMS, ELEMS,  LEAF,       LEAF,
                                     BYTES,  TRACED, TRACED, MAYBE,  MAYBE, WILD,   WILD_BOXED, NUM_SHAPES};
    enum shape_name name = (enum shape_name)odds[r % 32];
    r >>= 5;
    if (name == NUM_SHAPES) {
        const struct shape *made = made_shape(w, r);
        return (struct plan){made, 0, made->npayload};
    }
    const struct shape *shape = &shapes[name];
    struct plan plan = {shape, 0, shape->npayload};
    bool pressure = __atomic_load_n(&w->pressure, __ATOMIC_RELAXED) != 0;
    if (shape->elem_size) plan.nelems = random_length(r, pressure);
    if (shape->elem_size > 8) plan.nelems /= 2;
    if (name == BYTES) plan.npayload = random_length(r, pressure);
    return plan;
}

static void init_slots(struct worker *wk, struct part *p, uint32_t id) {
    struct shadow *s = &p->w->shadow;
    struct entry *e = shadow_entry(s, id);
    uint32_t n = e->nslots < 6 ? e->nslots : 6;
    bool pressure = __atomic_load_n(&p->w->pressure, __ATOMIC_RELAXED) != 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t r = RANDOM(wk);
        uint32_t slot = e->nslots <= 6 ? i : (uint32_t)(r >> 32) % e->nslots;
        enum word_kind kind = shape_word_kind(e->shape, slot);
        struct edge edge = shadow_edge(s, kind, pressure ? 0 : property_pick(p, r >> 16), r >> 8);
        tri_word word = shadow_encode(s, kind, edge);
        if (r % 4 == 0)
            tri_store_value(p->t, (void *)e->addr, entry_slot(e, slot), word);
        else
            tri_init_value(p->t, (void *)e->addr, entry_slot(e, slot), word);
        if (!e->shape->wild) e->edges[slot] = edge;
    }
}

/* What was just allocated: no safepoint before it lies in a frame. */
static void take_in(struct worker *wk, struct part *p, const struct plan *plan, void *obj) {
    if (!obj) shadow_fail(&p->w->shadow, "allocation failed: %s", tri_last_error());
    uint32_t id = shadow_adopt(&p->w->shadow, &p->ids, plan->shape, obj, plan->nelems, plan->npayload);
    if (shadow_entry(&p->w->shadow, id)->nslots) init_slots(wk, p, id);
    property_keep(p, RANDOM(wk), id);
}

static void *new_bytes(struct worker *wk, struct part *p, size_t size_bytes) {
    uint64_t r = RANDOM(wk);
    if (r % 8) return tri_new_bytes(p->t, size_bytes);
    size_t align_bytes = (size_t)8 << (r >> 8) % 10;
    void *obj = tri_new_aligned(p->t, align_bytes, size_bytes);
    if ((uintptr_t)obj % align_bytes) shadow_fail(&p->w->shadow, "%p is not aligned to %zu", obj, align_bytes);
    return obj;
}

void property_new(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    struct plan plan = plan_object(p->w, r);
    if (!plan.shape->type) {
        take_in(wk, p, &plan, new_bytes(wk, p, 8 + 8 * (size_t)plan.npayload));
    } else if (plan.shape->elem_size) {
        take_in(wk, p, &plan, tri_new_n(p->t, plan.shape->type, plan.nelems));
    } else if ((r >> 48) % 8) {
        take_in(wk, p, &plan, tri_new(p->t, plan.shape->type));
    } else {
        void *objs[MAX_BATCH];
        size_t n = tri_new_batch(p->t, plan.shape->type, objs, 1 + (r >> 52) % MAX_BATCH);
        if (n == 0) shadow_fail(&p->w->shadow, "allocation failed: %s", tri_last_error());
        for (size_t i = 0; i < n; i++) take_in(wk, p, &plan, objs[i]);
    }
}

/* ---- manual memory ---------------------------------------------------------------------------------------------- */

static void check_manual(struct part *p, const struct shared_block *b, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; i += 1 + i / 4)
        if (b->block[i] != b->fill)
            shadow_fail(&p->w->shadow, "byte %zu of the manual block %p of %zu bytes is %02x instead of %02x", i,
                        (void *)b->block, size_bytes, b->block[i], b->fill);
}

void property_manual(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    struct shared_block *b = &p->w->blocks[r % NBLOCKS];
    if (!property_try_lock(&b->lock)) return;
    r = RANDOM(wk);
    size_t size_bytes = r % 64 == 0 ? (r >> 8) % 400000 : (r >> 8) % 3000;
    if (b->block) check_manual(p, b, b->size_bytes);
    if (b->block && (r >> 40) % 4) {
        tri_manual_free(p->w->heap, b->block);
        b->block = NULL;
    } else {
        void *block = b->block ? tri_manual_realloc(p->w->heap, b->block, size_bytes)
                               : tri_manual_alloc(p->w->heap, size_bytes);
        if (!block) shadow_fail(&p->w->shadow, "no manual memory: %s", tri_last_error());
        bool grown = b->block != NULL;
        b->block = block;
        if (grown) check_manual(p, b, b->size_bytes < size_bytes ? b->size_bytes : size_bytes);
        b->size_bytes = size_bytes;
        b->fill = (uint8_t)(r >> 48);
        memset(block, b->fill, size_bytes);
    }
    property_unlock(&b->lock);
}

/* ---- loads and stores -------------------------------------------------------------------------------------------- */

uint32_t property_decode(struct part *p, enum word_kind kind, tri_word word, const char *where) {
    uintptr_t addr = shadow_decode(&p->w->shadow, p->t, kind, word);
    return addr ? shadow_validate(&p->w->shadow, addr, where) : 0;
}

void property_load(struct worker *wk, struct part *p) {
    struct shadow *s = &p->w->shadow;
    uint64_t r = RANDOM(wk);
    uint32_t id = property_pick(p, r);
    if (!id) return;
    struct entry *e = shadow_entry(s, id);
    if (*(const uint64_t *)e->addr != e->header) shadow_fail(s, "lost object: a frame names %p", (void *)e->addr);
    if (e->nslots == 0) return;
    uint32_t slot = (uint32_t)(r >> 32) % e->nslots;
    enum word_kind kind = shape_word_kind(e->shape, slot);
    bool locked = !e->shape->wild && (r >> 20 & 3) == 0 && shadow_try_lock(e);
    tri_word word = tri_load_value(entry_slot(e, slot));
    if (locked) {
        tri_word expected = shadow_encode(s, kind, e->edges[slot]);
        if (word != expected)
            shadow_fail(s, "slot %u of %s at %p holds %016llx instead of %016llx", slot, e->shape->type->name,
                        (void *)e->addr, (unsigned long long)word, (unsigned long long)expected);
        shadow_unlock(e);
    }
    uint32_t found = property_decode(p, kind, word, "a slot");
    if (found) property_keep(p, r >> 16, found);
}

/* One word into one slot, by one of the kinds of store. What a slot held must be what the shadow says, if it says. */
static void store_one(struct part *p, struct entry *e, uint32_t slot, struct edge edge, uint64_t r) {
    struct shadow *s = &p->w->shadow;
    enum word_kind kind = shape_word_kind(e->shape, slot);
    tri_word word = shadow_encode(s, kind, edge), *address = entry_slot(e, slot), old;
    void *obj = (void *)e->addr;
    tri_word expected = e->shape->wild ? tri_load_value(address) : shadow_encode(s, kind, e->edges[slot]);
    switch (r % 8) {
    case 0:
        old = tri_xchg(p->t, obj, address, word);
        if (!e->shape->wild && old != expected) shadow_fail(s, "tri_xchg gave back another word");
        if (e->shape->wild && property_decode(p, kind, old, "the word that tri_xchg gave back"))
            property_keep(p, r >> 8, property_decode(p, kind, old, "x"));
        break;
    case 1:
        old = expected;
        if (!tri_cas(p->t, obj, address, &old, word)) {
            if (!e->shape->wild) shadow_fail(s, "tri_cas did not store");
            (void)property_decode(p, kind, old, "the word that tri_cas found");
        }
        break;
    case 2:
        if (e->shape->wild) return;
        old = expected ^ 16;
        if (tri_cas(p->t, obj, address, &old, word)) shadow_fail(s, "tri_cas stored over another word");
        if (old != expected) shadow_fail(s, "tri_cas found another word");
        return;
    case 3:
        if (kind == WORD_POINTER) {
            tri_store(p->t, obj, address, (void *)(uintptr_t)word);
            break;
        }
        __attribute__((fallthrough));
    default: tri_store_value(p->t, obj, address, word);
    }
    if (!e->shape->wild) e->edges[slot] = edge;
}

void property_store(struct worker *wk, struct part *p) {
    struct shadow *s = &p->w->shadow;
    uint64_t r = RANDOM(wk);
    uint32_t id = property_pick(p, r);
    struct entry *e = shadow_entry(s, id);
    if (!id || e->nslots == 0) return;
    bool wild = e->shape->wild;
    if (!wild && !shadow_try_lock(e)) return;
    uint32_t slot = (uint32_t)(r >> 32) % e->nslots;
    bool drop = __atomic_load_n(&p->w->pressure, __ATOMIC_RELAXED) && (r >> 60 & 1);
    uint64_t r2 = RANDOM(wk);
    struct edge edge = shadow_edge(s, shape_word_kind(e->shape, slot), drop ? 0 : property_pick(p, r >> 16), r2 >> 8);
    store_one(p, e, slot, edge, r2 >> 40);
    if (!wild) shadow_unlock(e);
}

/* A wild object's slots are stored into without a lock: two stores and the marker meet in them. */
void property_wild(struct worker *wk, struct part *p) {
    struct shadow *s = &p->w->shadow;
    uint64_t r = RANDOM(wk);
    uint32_t id = 0;
    uint32_t at = (uint32_t)(r >> 40) % (NWILD_HANDLES * 2);
    if (at < NWILD_HANDLES) { /* the objects that all threads know */
        uintptr_t addr = (uintptr_t)tri_deref(p->w->wild_handles[at]);
        id = addr ? shadow_validate(s, addr, "a wild handle") : 0;
        if ((r & 15) == 0)
            tri_global_set(p->t, p->w->wild_handles[at], (void *)shadow_entry(s, property_pick(p, r >> 8))->addr);
        if (id) property_keep(p, r >> 16, id);
    } else if (at < NWILD_HANDLES + 4) {
        tri_word *slot = &p->w->wild_range.slots[(r >> 8) % RANGE_SLOTS];
        id = property_decode(p, WORD_BOXED, tri_load_value(slot), "a wild global slot");
        tri_word word = shadow_encode(s, WORD_BOXED, (struct edge){property_pick(p, r >> 16), 5});
        if (r & 1) tri_root_store_value(p->t, p->w->wild_range.root, slot, word);
        if (id) property_keep(p, r >> 24, id);
    }
    if (!id) return;
    struct entry *e = shadow_entry(s, id);
    if (!e->shape->wild) return;
    r = RANDOM(wk);
    uint32_t slot = (uint32_t)r % 3, target = property_pick(p, r >> 16);
    store_one(p, e, slot, (struct edge){target, 0}, r >> 40);
}

/* tri_move within an array or from one to another, and tri_clear. */
void property_bulk(struct worker *wk, struct part *p) {
    struct shadow *s = &p->w->shadow;
    uint64_t r = RANDOM(wk);
    uint32_t to_id = property_pick(p, r), from_id = property_pick(p, r >> 16);
    struct entry *to = shadow_entry(s, to_id), *from = shadow_entry(s, from_id);
    if (!to_id || (to->shape != &shapes[PARRAY] && to->shape != &shapes[VARRAY]) || to->nslots == 0) return;
    if (!shadow_try_lock(to)) return;
    uint32_t n = 1 + (uint32_t)(r >> 32) % 64;
    if (n > to->nslots) n = to->nslots;
    r = RANDOM(wk);
    uint32_t at = (uint32_t)r % (to->nslots - n + 1);
    if ((r >> 32) % 4 == 0 || !from_id || from->shape != to->shape) {
        tri_clear(p->t, (void *)to->addr, entry_slot(to, at), n);
        memset(to->edges + at, 0, n * sizeof *to->edges);
    } else if (from == to || shadow_try_lock(from)) {
        if (n > from->nslots) n = from->nslots;
        uint32_t source = (uint32_t)(r >> 40) % (from->nslots - n + 1);
        tri_move(p->t, (void *)to->addr, entry_slot(to, at), n ? entry_slot(from, source) : NULL, n);
        memmove(to->edges + at, from->edges + source, n * sizeof *to->edges);
        if (from != to) shadow_unlock(from);
    }
    shadow_unlock(to);
}
