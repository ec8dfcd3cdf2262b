/*
 * stress_property.c: random mutators against a shadow graph.
 *
 * Several threads edit random graphs in one or two heaps: every kind of store, objects of every shape and size, roots
 * of every kind, attaching, ending, blocking, calling back in, forced cycles. Each edit is made in the heap and in the
 * shadow (tests/shadow.h); the collector runs all the time. Every object that a thread reads out of the heap is held
 * against its entry at once; every so often all threads park, and the whole heap is compared: what the shadow reaches is
 * intact, and what it does not reach is gone after two cycles.
 *
 * Environment: TRI_PROPERTY_SEED (else from the clock; printed), TRI_PROPERTY_OPS (operations of the long test, which
 * otherwise takes its share of the default), TRI_PROPERTY_THREADS.
 *
 * Not deterministic: a seed fixes what each thread tries, not how the threads interleave.
 */
#include <string.h>
#include "tests/plain.h"
#include "tests/shadow.h"

enum {
    MAX_THREADS = 16,
    MAX_HEAPS = 2,
    FRAME_SLOTS = 10,
    MAX_FRAMES = 4,
    MAX_LOCALS = 24,
    SCANNER_WORDS = 6,
    NHANDLES = 96,
    NWILD_HANDLES = 8,
    NRANGES = 12,
    RANGE_SLOTS = 24,
    NSTACKS = 12,
    STACK_WORDS = 32,
    NMIXED = 48,
    BATCH = 64 /* operations between two looks at what the coordinator wants */
};

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

enum shape_name {
    LEAF8,
    SMALL,
    PAIR,
    BOXED,
    TAGGED,
    PARRAY,
    VARRAY,
    ELEMS,
    LEAF,
    BYTES,
    TRACED,
    MAYBE,
    WILD,
    WILD_BOXED,
    NUM_SHAPES
};

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

/* Types that are made while the test runs, so that there are always cold ones, which lie in mixed spans. */
struct made_type {
    struct made_type *next; /* in all_made */
    tri_type type;
    struct shape shape;
    uint32_t offsets[2][SHAPE_MAX_FIXED];
};

/* ---- the state of a run ---------------------------------------------------------------------------------------- */

struct world;

/* A persistent handle and its number, or a registered range, or a VM stack: edited under their lock. */
struct shared_handle {
    tri_handle handle;
    uint32_t id;
    uint8_t lock;
};
struct shared_range {
    tri_root *root;
    enum word_kind kind;
    uint8_t lock;
    struct edge edges[RANGE_SLOTS];
    tri_word slots[RANGE_SLOTS];
};
struct shared_stack {
    tri_vmstack *stack; /* NULL: not registered */
    int owner;          /* thread that runs it, -1: suspended */
    uint8_t lock;       /* held for a moment; by the owner for as long as it runs the stack */
    uint32_t n;         /* words on it */
    enum word_kind kind;
    tri_word *top;
    tri_word *words;
    tri_word memory[2][STACK_WORDS]; /* it moves between the two */
    struct edge edges[STACK_WORDS];
};

struct world {
    tri_heap *heap;
    tri_thread *thread; /* the coordinator's */
    struct shadow shadow;
    uint32_t pressure; /* live bytes are over the limit: make less, drop more [atomic] */
    uint64_t ncycles;  /* [atomic] */
    struct shared_handle handles[NHANDLES];
    tri_handle wild_handles[NWILD_HANDLES];
    struct shared_range ranges[NRANGES];
    struct shared_range wild_range;
    struct shared_stack stacks[NSTACKS];
    pthread_mutex_t made_lock;
    struct made_type *made[NMIXED]; /* [atomic entries] */
    uint32_t nmade;                 /* [atomic] */
};

/* One thread's part in one heap. */
struct frame {
    tri_frame frame;
    void *slots[FRAME_SLOTS];
    uint32_t ids[FRAME_SLOTS];
};
struct part {
    struct world *w;
    tri_thread *t;
    struct frame frames[MAX_FRAMES];
    uint32_t nframes;
    tri_handle locals[MAX_LOCALS];
    uint32_t local_ids[MAX_LOCALS], nlocals, scope, scope_nlocals;
    tri_scanner *scanner;
    tri_word scanned[SCANNER_WORDS];
    uint32_t scanned_ids[SCANNER_WORDS];
    int stack; /* the stack that it runs, or -1 */
    uint32_t blocking_id;
    struct shadow_ids ids;
};

enum life { LIFE_NONE = 0, LIFE_RUNS, LIFE_ENDED };

struct worker {
    struct run *run;
    int index;
    pthread_t pthread;
    uint64_t rng, nops, nops_wanted;
    uint32_t life; /* [atomic] */
    bool quiet;    /* inside a call-back from a blocking region: no nesting */
    struct part parts[MAX_HEAPS];
};

struct options {
    const char *name;
    uint64_t nops;
    int nheaps;
    bool rotate;             /* other switches after each comparison */
    const char *settings[6]; /* tri_heap_set, on every heap */
    uint32_t min_heap_kib, limit_kib;
};

struct run {
    struct options options;
    uint64_t seed;
    int nworkers, nheaps;
    struct world *worlds[MAX_HEAPS];
    struct worker *workers;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t pause;    /* workers park [atomic] */
    uint32_t nparked;  /* [mutex] */
    uint32_t nrunning; /* threads that have not ended [mutex] */
    uint64_t ncompared;
};

static inline uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13; /* xorshift64 (Marsaglia 2003) */
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

#define RANDOM(w_) (next_random(&(w_)->rng) >> 8)

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- a thread's own roots ---------------------------------------------------------------------------------------- */

static struct frame *frame_at(struct part *p, uint32_t i) {
    return &p->frames[MAX_FRAMES - 1 - i];
}

static void frame_push(struct part *p) {
    if (p->nframes == MAX_FRAMES) return;
    struct frame *f = &p->frames[MAX_FRAMES - ++p->nframes]; /* newer ones lie lower, as on a native stack */
    memset(f, 0, sizeof *f);
    f->frame.nslots = FRAME_SLOTS;
    f->frame.slots = f->slots;
    tri_frame_push(p->t, &f->frame);
}

static void frame_pop(struct part *p) {
    tri_frame_pop(p->t, &p->frames[MAX_FRAMES - p->nframes--].frame);
}

/* The number of some object that the thread holds in a frame, or 0. */
static uint32_t pick(struct part *p, uint64_t r) {
    struct frame *f = frame_at(p, (uint32_t)(r & 0xff) * p->nframes >> 8);
    return f->ids[(r >> 8 & 0xff) * FRAME_SLOTS >> 8];
}

static void keep(struct part *p, uint64_t r, uint32_t id) {
    struct frame *f = frame_at(p, (uint32_t)(r & 0xff) * p->nframes >> 8);
    uint32_t i = (uint32_t)((r >> 8 & 0xff) * FRAME_SLOTS >> 8);
    uintptr_t addr = id ? shadow_entry(&p->w->shadow, id)->addr : 0;
    if (addr && (r >> 16 & 15) == 0) addr += 1 + (r >> 20) % 6; /* an interior pointer */
    f->slots[i] = (void *)addr;
    f->ids[i] = id;
}

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
        struct edge edge = shadow_edge(s, kind, pressure ? 0 : pick(p, r >> 16), r >> 8);
        tri_word word = shadow_encode(s, kind, edge);
        if (r % 4 == 0)
            tri_store_value(p->t, (void *)e->addr, entry_slot(e, slot), word);
        else
            tri_init_value(p->t, (void *)e->addr, entry_slot(e, slot), word);
        if (!e->shape->wild) e->edges[slot] = edge;
    }
}

static void op_new(struct worker *wk, struct part *p) {
    struct plan plan = plan_object(p->w, RANDOM(wk));
    void *obj;
    if (!plan.shape->type)
        obj = tri_new_bytes(p->t, 8 + 8 * (size_t)plan.npayload);
    else if (plan.shape->elem_size)
        obj = tri_new_n(p->t, plan.shape->type, plan.nelems);
    else
        obj = tri_new(p->t, plan.shape->type);
    if (!obj) shadow_fail(&p->w->shadow, "allocation failed: %s", tri_last_error());
    uint32_t id = shadow_adopt(&p->w->shadow, &p->ids, plan.shape, obj, plan.nelems, plan.npayload);
    if (shadow_entry(&p->w->shadow, id)->nslots) init_slots(wk, p, id);
    keep(p, RANDOM(wk), id);
}

/* ---- loads and stores -------------------------------------------------------------------------------------------- */

static uint32_t decode(struct part *p, enum word_kind kind, tri_word word, const char *where) {
    uintptr_t addr = shadow_decode(&p->w->shadow, p->t, kind, word);
    return addr ? shadow_validate(&p->w->shadow, addr, where) : 0;
}

static void op_load(struct worker *wk, struct part *p) {
    struct shadow *s = &p->w->shadow;
    uint64_t r = RANDOM(wk);
    uint32_t id = pick(p, r);
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
    uint32_t found = decode(p, kind, word, "a slot");
    if (found) keep(p, r >> 16, found);
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
        if (e->shape->wild && decode(p, kind, old, "the word that tri_xchg gave back"))
            keep(p, r >> 8, decode(p, kind, old, "x"));
        break;
    case 1:
        old = expected;
        if (!tri_cas(p->t, obj, address, &old, word)) {
            if (!e->shape->wild) shadow_fail(s, "tri_cas did not store");
            (void)decode(p, kind, old, "the word that tri_cas found");
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

static void op_store(struct worker *wk, struct part *p) {
    struct shadow *s = &p->w->shadow;
    uint64_t r = RANDOM(wk);
    uint32_t id = pick(p, r);
    struct entry *e = shadow_entry(s, id);
    if (!id || e->nslots == 0) return;
    bool wild = e->shape->wild;
    if (!wild && !shadow_try_lock(e)) return;
    uint32_t slot = (uint32_t)(r >> 32) % e->nslots;
    bool drop = __atomic_load_n(&p->w->pressure, __ATOMIC_RELAXED) && (r >> 60 & 1);
    uint64_t r2 = RANDOM(wk);
    struct edge edge = shadow_edge(s, shape_word_kind(e->shape, slot), drop ? 0 : pick(p, r >> 16), r2 >> 8);
    store_one(p, e, slot, edge, r2 >> 40);
    if (!wild) shadow_unlock(e);
}

/* A wild object's slots are stored into without a lock: two stores and the marker meet in them. */
static void op_wild(struct worker *wk, struct part *p) {
    struct shadow *s = &p->w->shadow;
    uint64_t r = RANDOM(wk);
    uint32_t id = 0;
    uint32_t at = (uint32_t)(r >> 40) % (NWILD_HANDLES * 2);
    if (at < NWILD_HANDLES) { /* the objects that all threads know */
        uintptr_t addr = (uintptr_t)tri_deref(p->w->wild_handles[at]);
        id = addr ? shadow_validate(s, addr, "a wild handle") : 0;
        if ((r & 15) == 0) tri_global_set(p->t, p->w->wild_handles[at], (void *)shadow_entry(s, pick(p, r >> 8))->addr);
        if (id) keep(p, r >> 16, id);
    } else if (at < NWILD_HANDLES + 4) {
        tri_word *slot = &p->w->wild_range.slots[(r >> 8) % RANGE_SLOTS];
        id = decode(p, WORD_BOXED, tri_load_value(slot), "a wild global slot");
        tri_word word = shadow_encode(s, WORD_BOXED, (struct edge){pick(p, r >> 16), 5});
        if (r & 1) tri_root_store_value(p->t, p->w->wild_range.root, slot, word);
        if (id) keep(p, r >> 24, id);
    }
    if (!id) return;
    struct entry *e = shadow_entry(s, id);
    if (!e->shape->wild) return;
    r = RANDOM(wk);
    uint32_t slot = (uint32_t)r % 3, target = pick(p, r >> 16);
    store_one(p, e, slot, (struct edge){target, 0}, r >> 40);
}

/* tri_move within an array or from one to another, and tri_clear. */
static void op_bulk(struct worker *wk, struct part *p) {
    struct shadow *s = &p->w->shadow;
    uint64_t r = RANDOM(wk);
    uint32_t to_id = pick(p, r), from_id = pick(p, r >> 16);
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

/* ---- roots ------------------------------------------------------------------------------------------------------ */

static bool try_lock(uint8_t *lock) {
    return __atomic_load_n(lock, __ATOMIC_RELAXED) == 0 && __atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) == 0;
}
static void unlock(uint8_t *lock) {
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

static void op_frames(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    switch (r % 16) {
    case 0: frame_push(p); break;
    case 1:
        if (p->nframes > 1) frame_pop(p);
        break;
    case 2:
        if (p->nframes > 2) { /* to an older frame, as after a longjmp */
            p->nframes--;
            frame_pop(p);
        }
        break;
    case 3:
    case 4: keep(p, r >> 24, pick(p, r >> 8)); break;
    default: keep(p, r >> 24, 0);
    }
}

static void op_handle(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    struct shared_handle *h = &p->w->handles[(r >> 8) % NHANDLES];
    struct shadow *s = &p->w->shadow;
    if (!try_lock(&h->lock)) return;
    uint32_t id = pick(p, r >> 16);
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
            keep(p, r >> 32, h->id); /* freed, and its object kept: what freeing shades is all that protects it */
            h->handle = NULL;
            h->id = 0;
            break;
        case 1: keep(p, r >> 32, h->id); break;
        default:
            if (r >> 40 & 1) keep(p, r >> 32, h->id);
            tri_global_set(p->t, h->handle, obj);
            h->id = id;
        }
    }
    unlock(&h->lock);
}

static const tri_enc *range_enc(enum word_kind kind) {
    return kind == WORD_BOXED ? &shadow_boxed : kind == WORD_TAGGED ? &shadow_tagged : NULL;
}

static void op_range(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    struct shared_range *range = &p->w->ranges[(r >> 8) % NRANGES];
    struct shadow *s = &p->w->shadow;
    if (!try_lock(&range->lock)) return;
    if (!range->root || (r >> 16) % 64 == 0) {
        if (range->root) {
            for (uint32_t i = 0; i < RANGE_SLOTS; i += 5) keep(p, RANDOM(wk), range->edges[i].id);
            tri_root_remove(p->t, range->root);
        }
        range->kind = (enum word_kind)((r >> 24) % 3);
        for (uint32_t i = 0; i < RANGE_SLOTS; i++) {
            uint64_t r2 = RANDOM(wk);
            range->edges[i] = shadow_edge(s, range->kind, r2 & 1 ? pick(p, r2 >> 8) : 0, 8 * (r2 >> 32));
            __atomic_store_n(&range->slots[i], shadow_encode(s, range->kind, range->edges[i]), __ATOMIC_RELAXED);
        }
        range->root = tri_root_add(p->t, range->slots, RANGE_SLOTS, range_enc(range->kind));
        if (!range->root) shadow_fail(s, "tri_root_add: %s", tri_last_error());
    } else {
        uint32_t i = (uint32_t)(r >> 32) % RANGE_SLOTS;
        tri_word word = tri_load_value(&range->slots[i]);
        if (word != shadow_encode(s, range->kind, range->edges[i])) shadow_fail(s, "a global slot holds another word");
        if (decode(p, range->kind, word, "a global slot") && r & 1) keep(p, r >> 40, range->edges[i].id);
        uint64_t r2 = RANDOM(wk);
        range->edges[i] = shadow_edge(s, range->kind, r2 & 3 ? pick(p, r2 >> 8) : 0, 8 * (r2 >> 32));
        tri_root_store_value(p->t, range->root, &range->slots[i], shadow_encode(s, range->kind, range->edges[i]));
    }
    unlock(&range->lock);
}

/* Pushes, pops, reads and overwrites words of a stack that the calling thread may touch now. */
static void use_stack(struct worker *wk, struct part *p, struct shared_stack *st) {
    struct shadow *s = &p->w->shadow;
    for (int i = 0; i < 4; i++) {
        uint64_t r = RANDOM(wk);
        bool push = (r & 1) ? st->n < STACK_WORDS : st->n == 0;
        if (push) {
            st->edges[st->n] = shadow_edge(s, st->kind, pick(p, r >> 8), 8 * (r >> 32));
            st->words[st->n] = shadow_encode(s, st->kind, st->edges[st->n]);
            st->top = st->words + ++st->n;
        } else if (r & 2) {
            uint32_t at = (uint32_t)(r >> 8) % st->n;
            if (st->words[at] != shadow_encode(s, st->kind, st->edges[at]))
                shadow_fail(s, "a stack holds another word");
            if (decode(p, st->kind, st->words[at], "a stack")) keep(p, r >> 16, st->edges[at].id);
            if (r & 4) {
                st->edges[at] = shadow_edge(s, st->kind, pick(p, r >> 40), 8 * (r >> 32));
                st->words[at] = shadow_encode(s, st->kind, st->edges[at]);
            }
        } else {
            st->top = st->words + --st->n;
            if (decode(p, st->kind, *st->top, "a stack's top")) keep(p, r >> 16, st->edges[st->n].id);
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
        unlock(&st->lock);
    } else if (r % 256 == 3) {
        if (st->n) keep(p, r >> 16, st->edges[0].id);
        tri_vmstack_remove(p->t, st->stack);
        st->stack = NULL;
        st->n = 0;
        p->stack = -1;
        unlock(&st->lock);
    }
}

static void op_stack(struct worker *wk, struct part *p) {
    if (p->stack >= 0 && RANDOM(wk) % 4) {
        op_own_stack(wk, p);
        return;
    }
    uint64_t r = RANDOM(wk);
    int index = (int)(r % NSTACKS);
    struct shared_stack *st = &p->w->stacks[index];
    if (!try_lock(&st->lock)) return; /* somebody runs it, or touches it */
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
        if (st->n) keep(p, r >> 24, st->edges[st->n - 1].id);
        tri_vmstack_remove(p->t, st->stack);
        st->stack = NULL;
        st->n = 0;
    } else {
        stack_must(p, tri_vmstack_touch(p->t, st->stack), "tri_vmstack_touch");
        use_stack(wk, p, st);
    }
    unlock(&st->lock);
}

static void scan_words(tri_visitor *visitor, void *arg) {
    const struct part *p = arg;
    tri_visit(visitor, p->scanned, SCANNER_WORDS / 2);
    tri_visit_values(visitor, p->scanned + SCANNER_WORDS / 2, SCANNER_WORDS - SCANNER_WORDS / 2, &shadow_boxed);
}

static void op_scanner(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    if (!p->scanner) {
        p->scanner = tri_scanner_add(p->t, scan_words, p);
        if (!p->scanner) shadow_fail(&p->w->shadow, "tri_scanner_add: %s", tri_last_error());
        return;
    }
    uint32_t i = (uint32_t)(r >> 8) % SCANNER_WORDS;
    if (r % 128 == 0) {
        keep(p, r >> 32, p->scanned_ids[i]);
        tri_scanner_remove(p->t, p->scanner);
        p->scanner = NULL;
        memset(p->scanned, 0, sizeof p->scanned);
        memset(p->scanned_ids, 0, sizeof p->scanned_ids);
        return;
    }
    enum word_kind kind = i < SCANNER_WORDS / 2 ? WORD_POINTER : WORD_BOXED;
    if (decode(p, kind, p->scanned[i], "a scanned word") != p->scanned_ids[i])
        shadow_fail(&p->w->shadow, "a scanned word names another object");
    if (p->scanned_ids[i]) keep(p, r >> 32, p->scanned_ids[i]);
    p->scanned_ids[i] = pick(p, r >> 16);
    p->scanned[i] = shadow_encode(&p->w->shadow, kind, (struct edge){p->scanned_ids[i], 0});
}

static void op_locals(struct worker *wk, struct part *p) {
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
        keep(p, r >> 16, p->local_ids[i]);
    } else {
        uint32_t id = pick(p, r >> 8);
        p->local_ids[p->nlocals] = id;
        p->locals[p->nlocals++] = tri_local(p->t, (void *)shadow_entry(&p->w->shadow, id)->addr);
    }
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

static void op_any(struct worker *wk, struct part *p);

struct region {
    struct worker *wk;
    struct part *p;
    void *result;
};

static void *nap(void *arg) {
    struct region *region = arg;
    uint64_t r = RANDOM(region->wk);
    if (r & 1) nanosleep(&(struct timespec){.tv_nsec = (long)(r >> 8) % 100000}, NULL);
    return NULL;
}

static void *edit(void *arg) {
    struct region *region = arg;
    for (uint64_t i = 0, n = RANDOM(region->wk) % 40; i < n; i++) op_any(region->wk, region->p);
    return NULL;
}

static void *nap_and_call_in(void *arg) {
    struct region *region = arg;
    nap(arg);
    if (tri_callin(region->p->t, edit, arg) != NULL) shadow_fail(&region->p->w->shadow, "tri_callin gave a result");
    nap(arg);
    return NULL;
}

static __thread struct worker *napping;

/* The argument and the result are a reference that lies nowhere else. */
static void *nap_with_reference(void *arg) {
    struct region region = {.wk = napping};
    nap(&region);
    return arg;
}

static void op_blocking(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    struct region region = {wk, p, NULL};
    switch (r % 4) {
    case 0: tri_blocking(p->t, nap, &region); break;
    case 1:
        wk->quiet = true;
        tri_blocking(p->t, nap_and_call_in, &region);
        wk->quiet = false;
        break;
    default: {
        uint32_t id = pick(p, r >> 8);
        if (!id) return;
        for (uint32_t f = 0; f < p->nframes; f++)
            for (uint32_t i = 0; i < FRAME_SLOTS; i++)
                if (frame_at(p, f)->ids[i] == id) frame_at(p, f)->ids[i] = 0, frame_at(p, f)->slots[i] = NULL;
        napping = wk;
        void *obj = tri_blocking(p->t, nap_with_reference, (void *)shadow_entry(&p->w->shadow, id)->addr);
        if (shadow_validate(&p->w->shadow, (uintptr_t)obj, "the argument of a blocking region") != id)
            shadow_fail(&p->w->shadow, "a blocking region gave back another object");
        keep(p, r >> 24, id);
    }
    }
}

/* What the thread has in this heap is let go of; the next safepoint may free it. */
static void forget(struct part *p) {
    if (p->stack >= 0) {
        struct shared_stack *st = &p->w->stacks[p->stack];
        stack_must(p, tri_vmstack_suspend(p->t, st->stack), "tri_vmstack_suspend");
        st->owner = -1;
        p->stack = -1;
        unlock(&st->lock);
    }
    p->nlocals = p->scope = p->scope_nlocals = 0;
    p->scanner = NULL;
    memset(p->scanned_ids, 0, sizeof p->scanned_ids);
    memset(p->scanned, 0, sizeof p->scanned);
}

static void attach(struct part *p) {
    int err = tri_attach(p->w->heap, 0, &p->t);
    if (err != TRI_OK) shadow_fail(&p->w->shadow, "tri_attach: %d: %s", err, tri_last_error());
    p->nframes = 0;
    p->stack = -1;
    frame_push(p);
}

static void detach(struct part *p) {
    forget(p);
    while (p->nframes) frame_pop(p);
    int err = tri_detach(p->t);
    if (err != TRI_OK) shadow_fail(&p->w->shadow, "tri_detach: %d: %s", err, tri_last_error());
    p->t = NULL;
}

static void op_rare(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    switch (r % 64) {
    case 0:
    case 1:
    case 2:
        if (!wk->quiet) {
            detach(p);
            attach(p);
        }
        break;
    case 3:
        if (!wk->quiet && (r >> 8) % 4 == 0 && tri_collect(p->t) != TRI_OK)
            shadow_fail(&p->w->shadow, "%s", tri_last_error());
        break;
    case 4: tri_trim(p->w->heap); break;
    case 5: {
        uint32_t id = pick(p, r >> 8);
        if (!id) break;
        const struct entry *e = shadow_entry(&p->w->shadow, id);
        const tri_type *type = NULL;
        void *found = tri_find(p->t, (void *)(e->addr + (r >> 32) % 8), &type);
        if (found != (void *)e->addr || type != e->shape->type)
            shadow_fail(&p->w->shadow, "tri_find says %p of the object at %p", found, (void *)e->addr);
        if (tri_usable_size(p->w->heap, found) < (e->npayload + 1) * 8)
            shadow_fail(&p->w->shadow, "tri_usable_size says too little");
        break;
    }
    default:
        if (!wk->quiet) op_blocking(wk, p);
    }
}

static void op_any(struct worker *wk, struct part *p) {
    uint32_t at = (uint32_t)(RANDOM(wk) % 1024);
    if (at < 250)
        op_new(wk, p);
    else if (at < 520)
        op_load(wk, p);
    else if (at < 780)
        op_store(wk, p);
    else if (at < 840)
        op_wild(wk, p);
    else if (at < 860)
        op_bulk(wk, p);
    else if (at < 900)
        op_frames(wk, p);
    else if (at < 920)
        op_handle(wk, p);
    else if (at < 940)
        op_range(wk, p);
    else if (at < 980)
        op_stack(wk, p);
    else if (at < 990)
        op_scanner(wk, p);
    else if (at < 1000)
        op_locals(wk, p);
    else if (at < 1023)
        tri_poll(p->t);
    else
        op_rare(wk, p);
    wk->nops++;
}

static void *park(void *arg) {
    struct run *run = arg;
    pthread_mutex_lock(&run->mutex);
    run->nparked++;
    pthread_cond_broadcast(&run->changed);
    while (__atomic_load_n(&run->pause, __ATOMIC_RELAXED)) pthread_cond_wait(&run->changed, &run->mutex);
    run->nparked--;
    pthread_mutex_unlock(&run->mutex);
    return NULL;
}

static void *worker_main(void *arg) {
    struct worker *wk = arg;
    struct run *run = wk->run;
    for (int h = 0; h < run->nheaps; h++) attach(&wk->parts[h]);
    bool ends = false;
    while (wk->nops < wk->nops_wanted && !ends) {
        struct part *p = &wk->parts[run->nheaps > 1 && RANDOM(wk) % 4 == 0];
        for (int i = 0; i < BATCH; i++) op_any(wk, p);
        if (__atomic_load_n(&run->pause, __ATOMIC_RELAXED)) tri_blocking(p->t, park, run);
        ends = RANDOM(wk) % 2048 == 0;
    }
    bool by_itself = RANDOM(wk) & 1; /* the thread's end detaches it */
    for (int h = 0; h < run->nheaps; h++) {
        forget(&wk->parts[h]);
        if (!by_itself) detach(&wk->parts[h]);
        wk->parts[h].nframes = 0;
    }
    pthread_mutex_lock(&run->mutex);
    run->nrunning--;
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->mutex);
    __atomic_store_n(&wk->life, LIFE_ENDED, __ATOMIC_RELEASE);
    return NULL;
}

/* ---- the coordinator ------------------------------------------------------------------------------------------- */

static void on_event(const tri_event *event, void *user) {
    struct world *w = (struct world *)(void *)((char *)user - offsetof(struct world, shadow));
    if (event->kind != TRI_EVENT_CYCLE_END) return;
    __atomic_store_n(&w->pressure, event->live_after_bytes > w->shadow.seed % 4 * (4 << 20) + (12 << 20),
                     __ATOMIC_RELAXED);
    __atomic_fetch_add(&w->ncycles, 1, __ATOMIC_RELAXED);
}

static void must_set(struct world *w, const char *setting) {
    if (tri_heap_set(w->heap, setting) != TRI_OK) shadow_fail(&w->shadow, "tri_heap_set: %s", tri_last_error());
}

static struct world *world_open(const struct run *run) {
    struct world *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE;
    config.min_heap_bytes = (size_t)run->options.min_heap_kib << 10;
    config.growth_percent = 50;
    config.reserve_bytes = (size_t)2 << 30;
    config.wait_limit_ms = 120000;
    config.report = shadow_on_report;
    config.event = on_event;
    config.user = &w->shadow;
    shadow_init(&w->shadow, run->options.name, run->seed, NULL);
    if (tri_heap_create(&config, &w->heap) != TRI_OK) shadow_fail(&w->shadow, "%s", tri_last_error());
    w->shadow.heap = w->heap;
    if (tri_attach(w->heap, 0, &w->thread) != TRI_OK) shadow_fail(&w->shadow, "%s", tri_last_error());
    pthread_mutex_init(&w->made_lock, NULL);
    for (int i = 0; i < NWILD_HANDLES; i++) w->wild_handles[i] = tri_global(w->thread, NULL);
    w->wild_range.root = tri_root_add(w->thread, w->wild_range.slots, RANGE_SLOTS, &shadow_boxed);
    for (size_t i = 0; i < 6 && run->options.settings[i]; i++) must_set(w, run->options.settings[i]);
    return w;
}

static void check_thread_roots(struct shadow *s, struct part *p) {
    for (uint32_t f = 0; f < p->nframes; f++)
        for (uint32_t i = 0; i < FRAME_SLOTS; i++) shadow_check_root(s, frame_at(p, f)->ids[i]);
    for (uint32_t i = 0; i < p->nlocals; i++) shadow_check_root(s, p->local_ids[i]);
    for (uint32_t i = 0; i < SCANNER_WORDS && p->scanner; i++) shadow_check_root(s, p->scanned_ids[i]);
}

static void check_shared_roots(struct world *w) {
    struct shadow *s = &w->shadow;
    for (int i = 0; i < NHANDLES; i++) shadow_check_root(s, w->handles[i].id);
    for (int i = 0; i < NWILD_HANDLES; i++) {
        uintptr_t addr = (uintptr_t)tri_deref(w->wild_handles[i]);
        if (addr) shadow_check_root(s, shadow_validate(s, addr, "a wild handle"));
    }
    for (int i = 0; i < NRANGES; i++)
        for (int k = 0; k < RANGE_SLOTS && w->ranges[i].root; k++) shadow_check_root(s, w->ranges[i].edges[k].id);
    for (int k = 0; k < RANGE_SLOTS; k++) {
        uintptr_t addr = shadow_decode(s, w->thread, WORD_BOXED, w->wild_range.slots[k]);
        if (addr) shadow_check_root(s, shadow_validate(s, addr, "a wild global slot"));
    }
    for (int i = 0; i < NSTACKS; i++)
        for (uint32_t k = 0; k < w->stacks[i].n; k++) shadow_check_root(s, w->stacks[i].edges[k].id);
}

static void compare(struct run *run) {
    for (int h = 0; h < run->nheaps; h++) {
        struct world *w = run->worlds[h];
        shadow_check_begin(&w->shadow);
        for (int i = 0; i < run->nworkers; i++) check_thread_roots(&w->shadow, &run->workers[i].parts[h]);
        check_shared_roots(w);
        shadow_check_reachable(&w->shadow, w->thread);
        shadow_check_collected(&w->shadow, w->thread);
    }
    run->ncompared++;
}

/* Waits as a blocked thread until every worker that runs is parked or has ended. */
static void *wait_parked(void *arg) {
    struct run *run = arg;
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 60;
    pthread_mutex_lock(&run->mutex);
    while (run->nparked < run->nrunning)
        if (pthread_cond_timedwait(&run->changed, &run->mutex, &deadline) != 0) {
            shadow_fail(&run->worlds[0]->shadow, "%u of %u threads did not park within 60 s",
                        run->nrunning - run->nparked, run->nrunning);
        }
    pthread_mutex_unlock(&run->mutex);
    return NULL;
}

/* Joins the workers that have ended; in_blocking: as a blocked thread. */
static void *join_ended(void *arg) {
    struct run *run = arg;
    for (int i = 0; i < run->nworkers; i++) {
        struct worker *wk = &run->workers[i];
        if (__atomic_load_n(&wk->life, __ATOMIC_ACQUIRE) != LIFE_ENDED) continue;
        pthread_join(wk->pthread, NULL);
        wk->life = LIFE_NONE;
    }
    return NULL;
}

static bool start_ended(struct run *run) {
    bool any = false;
    for (int i = 0; i < run->nworkers; i++) {
        struct worker *wk = &run->workers[i];
        uint32_t life = __atomic_load_n(&wk->life, __ATOMIC_ACQUIRE);
        any |= life == LIFE_RUNS || wk->nops < wk->nops_wanted;
        if (life != LIFE_NONE || wk->nops >= wk->nops_wanted) continue;
        pthread_mutex_lock(&run->mutex);
        run->nrunning++;
        pthread_mutex_unlock(&run->mutex);
        wk->life = LIFE_RUNS;
        int err = pthread_create(&wk->pthread, NULL, worker_main, wk);
        if (err) shadow_fail(&run->worlds[0]->shadow, "pthread_create: %s", strerror(err));
    }
    return any;
}

static void *sleep_some(void *arg) {
    (void)arg;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return NULL;
}

/* Other switches for the next stretch. Most of the time none, so that many operations meet many cycles. */
static void rotate(struct run *run, uint64_t *rng) {
    static const char *const off[] = {"stress.delay=0", "stress.slow=0", "stress.collect=0", "checkmark=0", "verify=0"};
    static const char *const on[] = {"stress.delay=20", "stress.slow=1", "stress.collect=300",
                                     "checkmark=1",     "checkmark=1",   "verify=1"};
    for (int h = 0; h < run->nheaps; h++) {
        for (size_t i = 0; i < sizeof off / sizeof *off; i++) must_set(run->worlds[h], off[i]);
        uint64_t r = next_random(rng) >> 8;
        if (r % 16 < 6) must_set(run->worlds[h], on[r % 16]);
    }
}

static uint64_t ops_done(const struct run *run) {
    uint64_t n = 0;
    for (int i = 0; i < run->nworkers; i++) n += run->workers[i].nops; /* while they are parked or ended */
    return n;
}

static void pause_and_compare(struct run *run) {
    pthread_mutex_lock(&run->mutex);
    __atomic_store_n(&run->pause, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&run->mutex);
    tri_blocking(run->worlds[0]->thread, wait_parked, run);
    tri_blocking(run->worlds[0]->thread, join_ended, run);
    compare(run);
    pthread_mutex_lock(&run->mutex);
    __atomic_store_n(&run->pause, 0, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->mutex);
}

static uint64_t cycles_done(const struct run *run) {
    uint64_t n = 0;
    for (int h = 0; h < run->nheaps; h++) n += __atomic_load_n(&run->worlds[h]->ncycles, __ATOMIC_RELAXED);
    return n;
}

/* Numbers come back by comparing alone. */
static bool a_table_fills(struct run *run) {
    bool fills = false;
    for (int h = 0; h < run->nheaps; h++) fills |= shadow_fills(&run->worlds[h]->shadow);
    return fills;
}

static void coordinate(struct run *run) {
    uint64_t rng = run->seed | 1, start = now_ns(), told = start, compared_at = start, gap_ns = 50000000;
    while (start_ended(run)) {
        tri_blocking(run->worlds[0]->thread, sleep_some, NULL);
        tri_blocking(run->worlds[0]->thread, join_ended, run);
        if (now_ns() - compared_at < gap_ns && !a_table_fills(run)) continue;
        uint64_t before = now_ns();
        pause_and_compare(run);
        compared_at = now_ns();
        gap_ns = 4 * (compared_at - before) + 50000000; /* a fifth of the time goes into comparing */
        if (run->options.rotate) rotate(run, &rng);
        if (compared_at - told > 30000000000u) {
            told = compared_at;
            printf("property: %s: %llu operations, %llu cycles\n", run->options.name, (unsigned long long)ops_done(run),
                   (unsigned long long)cycles_done(run));
            fflush(stdout);
        }
    }
    pause_and_compare(run);
    double seconds = (double)(now_ns() - start) / 1e9;
    printf(
        "property: %s: %llu operations on %d threads, %d heaps, in %.1f s (%.0f a second), %llu cycles, %llu comparisons\n",
        run->options.name, (unsigned long long)ops_done(run), run->nworkers, run->nheaps, seconds,
        (double)ops_done(run) / seconds, (unsigned long long)cycles_done(run), (unsigned long long)run->ncompared);
    fflush(stdout);
}

static void run_property(struct options options) {
    struct run run = {.options = options, .nheaps = options.nheaps};
    run.seed = test_env_u64("TRI_PROPERTY_SEED", now_ns() % 1000000007);
    run.nworkers = (int)test_env_u64("TRI_PROPERTY_THREADS", 5);
    if (run.nworkers > MAX_THREADS) run.nworkers = MAX_THREADS;
    printf("property: %s: seed %llu\n", options.name, (unsigned long long)run.seed);
    fflush(stdout);
    pthread_mutex_init(&run.mutex, NULL);
    pthread_cond_init(&run.changed, NULL);
    for (int h = 0; h < run.nheaps; h++) run.worlds[h] = world_open(&run);
    run.workers = calloc((size_t)run.nworkers, sizeof *run.workers);
    CHECK(run.workers != NULL);
    for (int i = 0; i < run.nworkers; i++) {
        struct worker *wk = &run.workers[i];
        wk->run = &run;
        wk->index = i;
        wk->rng = (run.seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)i * UINT64_C(0x123456789abcdef);
        wk->nops_wanted = options.nops / (uint64_t)run.nworkers + 1;
        for (int h = 0; h < run.nheaps; h++) wk->parts[h].w = run.worlds[h];
    }
    coordinate(&run);
    for (int h = 0; h < run.nheaps; h++) {
        CHECK_EQ(tri_detach(run.worlds[h]->thread), TRI_OK);
        CHECK_EQ(tri_heap_destroy(run.worlds[h]->heap), TRI_OK);
        shadow_fini(&run.worlds[h]->shadow);
        free(run.worlds[h]);
    }
    free(run.workers);
}

/* ---- the tests -------------------------------------------------------------------------------------------------- */

static uint64_t scaled(uint64_t nops) {
    if (test_env_u64("TRI_PROPERTY_OPS", 0)) return 1000; /* the long test takes them */
    return TEST_UNDER_TSAN || TEST_UNDER_ASAN ? nops / 10 : nops;
}

TEST(property, as_it_is_used) {
    run_property((struct options){.name = "as it is used", .nops = scaled(300000), .nheaps = 1, .min_heap_kib = 512});
}

TEST(property, with_delays_in_every_step) {
    run_property((struct options){.name = "delays",
                                  .nops = scaled(100000),
                                  .nheaps = 1,
                                  .min_heap_kib = 256,
                                  .settings = {"stress.delay=50", "poison=1"}});
}

TEST(property, with_every_path_slow) {
    run_property((struct options){.name = "slow paths",
                                  .nops = scaled(150000),
                                  .nheaps = 1,
                                  .min_heap_kib = 512,
                                  .settings = {"stress.slow=1", "poison=1"}});
}

TEST(property, with_every_check) {
    run_property((struct options){.name = "checks",
                                  .nops = scaled(150000),
                                  .nheaps = 1,
                                  .min_heap_kib = 512,
                                  .settings = {"poison=1", "checkmark=1", "verify=1"}});
}

TEST(property, in_two_heaps) {
    run_property((struct options){.name = "two heaps",
                                  .nops = scaled(200000),
                                  .nheaps = 2,
                                  .min_heap_kib = 256,
                                  .settings = {"stress.collect=400", "checkmark=1"}});
}

TEST(property, with_changing_switches, .timeout = 14400) {
    run_property((struct options){.name = "changing switches",
                                  .nops = test_env_u64("TRI_PROPERTY_OPS", scaled(200000)),
                                  .nheaps = 2,
                                  .min_heap_kib = 512,
                                  .rotate = true,
                                  .settings = {"poison=1"}});
}
