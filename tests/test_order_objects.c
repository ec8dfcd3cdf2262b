/*
 * test_order_objects.c: what is stored, marked, swept and found, under C11's memory model: marks against the sweep,
 * holes and what is published out of them, initialising stores (R18), rounds, work buffers, weak loads, page entries,
 * lists of spans. See kernel.h.
 */
#include "tests/kernel.h"

/* ---- the barrier against the flip: marks against the sweep ------------------------------------------------------- */

enum { M_ANSWER, M_WAIT, M_FLIP, M_GEN, M_ALLOCS, M_CLEAR, M_SWEPT, M_ALL_SWEPT, M_POST, M_READ, M_LOOK };

static const struct site sweep_sites[] = {
    [M_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [M_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
    [M_FLIP] = {"alloc/memory.c", "atomic_store_release(&mem->gen,", REL, RLX, NEEDED},
    [M_GEN] = {"alloc/central.c", "uint32_t gen = atomic_load_acquire(&mem->gen);", ACQ, RLX, NEEDED},
    /* Who allocates from the span has it from a list, under its lock; who looks without one is the next section's. */
    [M_ALLOCS] = {"alloc/span.c", "atomic_store_release(&w->allocs[word], marks)", REL, RLX, SPARE},
    [M_CLEAR] = {"alloc/span.c", "atomic_store_release(&w->marks[word], 0)", REL, RLX, SPARE},
    [M_SWEPT] = {"alloc/central.c", "atomic_sub_acqrel(&mem->nsweeping, n)", ARL, RLX, NEEDED},
    [M_ALL_SWEPT] = {"alloc/memory.c", "atomic_load_acquire(&mem->nsweeping) == 0", ACQ, RLX, NEEDED},
    [M_POST] = {"gc/handshake.c", "atomic_store_release(&m->request_seq, seq)", REL, RLX, NEEDED},
    [M_READ] = {"gc/cycle.c", "atomic_load_acquire(&m->request_seq); /* pairs with handshake_post; last_step", ACQ, RLX,
                NEEDED},
    [M_LOOK] = {"gc/barrier.c", "atomic_load_acquire(&space->marks[granule >> 6]); /* as space_is_marked */", ACQ, RLX,
                SPARE},
};

static int sweep_marks, sweep_allocs;

/* The last mark of a cycle (relaxed, hot_process), the answers after it, the flip; the sweep of its word; the first
 * mark of the next cycle in the same word, and before it a barrier's look at it. */
static void sweeping(int variant) {
    (void)variant;
    ex_begin(&p, "marks against the sweep");
    int answers = ex_loc(&p, "answers to H5", 0), gen = ex_loc(&p, "gen", 0), h1 = ex_loc(&p, "H1", 0);
    int nsweeping = ex_loc(&p, "nsweeping", 1); /* counted under the list's lock */
    sweep_marks = ex_loc(&p, "marks", 0);
    sweep_allocs = ex_loc(&p, "allocs", 3);
    ex_thread(&p, "mutator");
    ex_or(&p, -1, sweep_marks, 1, RLX);
    ex_add(&p, -1, answers, 1, o[M_ANSWER]);
    ex_await(&p, -1, h1, EQ, 1, o[M_READ]);
    ex_load(&p, R0, sweep_marks, o[M_LOOK]);
    ex_when(&p, R0, NE, 0, 1);
    ex_fail(&p, "a store takes a mark of the last cycle for one of this");
    ex_or(&p, R0, sweep_marks, 2, RLX);
    ex_thread(&p, "collector");
    ex_await(&p, -1, answers, EQ, 1, o[M_WAIT]);
    ex_store(&p, gen, 1, o[M_FLIP]);
    ex_await(&p, -1, nsweeping, EQ, 0, o[M_ALL_SWEPT]);
    ex_store(&p, h1, 1, o[M_POST]);
    ex_thread(&p, "sweeper");
    ex_await(&p, -1, gen, EQ, 1, o[M_GEN]);
    ex_load(&p, R0, sweep_marks, RLX);
    ex_store(&p, sweep_allocs, R0, o[M_ALLOCS]);
    ex_store(&p, sweep_marks, 0, o[M_CLEAR]);
    ex_add(&p, -1, nsweeping, -1, o[M_SWEPT]);
}

static const char *marks_kept(const struct ex_outcome *e) {
    if (e->memory[sweep_allocs] != 1) return "a marked object was freed";
    return e->memory[sweep_marks] == 2 ? NULL : "a mark of the next cycle is lost, or one of the last is left";
}

TEST(memory_order, marks_against_the_sweep) {
    CHECK_KERNEL(sweeping, 1, marks_kept, sweep_sites);
}

/* ---- who lives, asked beside a sweep ----------------------------------------------------------------------------- */

enum { L_CLEAR, L_MARKED, L_GEN, L_GEN_READ, L_PLACE, L_PLACE_READ };
enum { LISTED = 1, CLAIMED = 2 };

static const struct site lives_sites[] = {
    [L_CLEAR] = {"alloc/span.c", "atomic_store_release(&w->marks[word], 0)", REL, RLX, NEEDED},
    [L_MARKED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit", ACQ,
                  RLX, NEEDED},
    [L_GEN] = {"alloc/span.c", "atomic_store_release(&span->gen, gen)", REL, RLX, NEEDED},
    [L_GEN_READ] = {"gc/inspect.c", "atomic_load_acquire(&span->gen) == current", ACQ, RLX, NEEDED},
    [L_PLACE] = {"alloc/central.c", "atomic_store_release(&span->place, SPAN_LISTED)", REL, RLX, NEEDED},
    [L_PLACE_READ] = {"gc/inspect.c", "atomic_load_acquire(&span->place) != SPAN_CLAIMED", ACQ, RLX, NEEDED},
};

/* tri__lives beside tri__span_sweep; variant 1: the object is dead. */
static void living(int variant) {
    int live = variant == 0;
    ex_begin(&p, live ? "a live object beside a sweep" : "a dead object beside a sweep");
    int marks = ex_loc(&p, "marks", live), allocs = ex_loc(&p, "allocs", 1), gen = ex_loc(&p, "gen", 0);
    int place = ex_loc(&p, "place", LISTED);
    ex_thread(&p, "sweeper");
    ex_store(&p, place, CLAIMED, RLX);
    ex_load(&p, R0, marks, RLX);
    if (!live) ex_store(&p, allocs, R0, REL);
    if (live) ex_store(&p, marks, 0, o[L_CLEAR]);
    ex_store(&p, gen, 1, o[L_GEN]);
    ex_store(&p, place, LISTED, o[L_PLACE]);
    ex_thread(&p, "reader");
    for (int turn = 0; turn < 2; turn++) {
        ex_load(&p, R0, gen, o[L_GEN_READ]);
        ex_when(&p, R0, EQ, 1, 4);
        ex_load(&p, R1, allocs, ACQ);
        ex_when(&p, R1, EQ, !live, 1);
        ex_fail(&p, live ? "a live object is taken for dead" : "a dead object is taken for alive");
        ex_end(&p);
        ex_load(&p, R1, marks, o[L_MARKED]);
        ex_when(&p, R1, EQ, 1, 1);
        ex_end(&p);
        ex_load(&p, R2, place, o[L_PLACE_READ]);
        ex_when(&p, R2, NE, CLAIMED, 5);
        ex_load(&p, R3, gen, ACQ);
        ex_when(&p, R3, NE, 1, 3);
        ex_when(&p, R3, EQ, live ? 0 : 2, 1);
        ex_fail(&p, "a live object is taken for dead");
        ex_end(&p);
    }
}

TEST(memory_order, who_lives_beside_a_sweep) {
    CHECK_KERNEL(living, 2, NULL, lives_sites);
}

/* ---- hand-over of holes, publication of fresh objects ------------------------------------------------------------ */

enum { P_ALLOC, P_ALLOCATED, P_STORE, P_LOAD, P_LAYOUT, P_LAYOUT_READ };
enum { GARBAGE = 9, CHILD = 5 };

static const struct site hole_sites[] = {
    [P_ALLOC] = {"alloc/span.c", "atomic_store_release(&w->allocs[word], atomic_load_relaxed(&w->allocs[word]) | bits)",
                 REL, RLX, NEEDED},
    [P_ALLOCATED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* pairs with the release in span_take",
                     ACQ, RLX, NEEDED},
    [P_STORE] = {"gc/barrier.c", "atomic_store_release((tri_word *)slot, value)", REL, RLX, NEEDED},
    [P_LOAD] = {"gc/mark_inline.h", "return atomic_load_acquire(p); /* pairs with tri_store", ACQ, RLX, NEEDED},
    /* A reference to the object, or the scan handshake, comes with what was stored before it. */
    [P_LAYOUT] = {"gc/alloc.c", "atomic_store_release(&m->heap->mem.space.layouts", REL, RLX, SPARE},
    [P_LAYOUT_READ] = {"alloc/arena.h", "return atomic_load_acquire(&space->layouts", ACQ, RLX, SPARE},
};

struct hole {
    int mark, alloc, layout, field, user, slot;
};

static struct hole hole_begin(const char *name) {
    ex_begin(&p, name);
    return (struct hole){ex_loc(&p, "mark", 0),        ex_loc(&p, "alloc", 0), ex_loc(&p, "layout", 3),
                         ex_loc(&p, "field", GARBAGE), ex_loc(&p, "user", 0),  ex_loc(&p, "slot", 0)};
}

/* tri__span_take_hole, try_small, the host's initialisation. */
static void take_and_init(const struct hole *h, bool black) {
    if (black) ex_or(&p, -1, h->mark, 1, RLX);
    ex_store(&p, h->field, 0, PLAIN);
    ex_store(&p, h->layout, 0, RLX);
    ex_store(&p, h->alloc, 1, o[P_ALLOC]);
    ex_store(&p, h->layout, 1, o[P_LAYOUT]);
    ex_store(&p, h->user, 1, PLAIN);    /* a C field */
    ex_store(&p, h->field, CHILD, RLX); /* tri_init */
}

/* A black thread takes a hole, and publishes an object out of it. Variant 0: beside it a marker with a stale
 * conservative word that names the slot. 1: a marker that follows a reference to the new object. 2: a thread that does,
 * and reads it. 3: the look for the dead, with a stale weak word (clear_if_dead). */
static void hole(int variant) {
    struct hole h = hole_begin("a hole, and what is published out of it");
    ex_thread(&p, "mutator");
    take_and_init(&h, true);
    ex_store(&p, h.slot, 1, o[P_STORE]);
    ex_thread(&p, variant == 2 ? "another" : "marker");
    if (variant == 0 || variant == 3) {
        ex_load(&p, R0, h.alloc, o[P_ALLOCATED]);
        ex_when(&p, R0, EQ, 0, 1);
        ex_end(&p); /* refused */
    } else {
        ex_load(&p, R0, h.slot, o[P_LOAD]);
        ex_when(&p, R0, EQ, 0, 1);
        ex_end(&p);
    }
    if (variant == 3) {
        ex_load(&p, R1, h.mark, ACQ);
        ex_when(&p, R1, EQ, 0, 1);
        ex_fail(&p, "a slot of a black hole is taken for dead");
        return;
    }
    if (variant < 2) {
        ex_or(&p, R1, h.mark, 1, RLX);
        ex_when(&p, R1, EQ, 0, 2);
        ex_load(&p, R2, h.field, ACQ);
        ex_fail(&p, "a slot of a black hole is scanned");
        return;
    }
    ex_load(&p, R2, h.field, ACQ);
    ex_when(&p, R2, NE, CHILD, 1);
    ex_fail(&p, "a reference leads to what is not initialised");
    ex_load(&p, R2, h.layout, o[P_LAYOUT_READ]); /* find_owner */
    ex_when(&p, R2, NE, 1, 1);
    ex_fail(&p, "a reference leads to another layout");
    ex_load(&p, R3, h.user, PLAIN);
}

TEST(memory_order, a_hole_and_what_is_published_out_of_it) {
    CHECK_KERNEL(hole, 4, NULL, hole_sites);
}

/* ---- R18: initialising stores ------------------------------------------------------------------------------------ */

enum { I_ANSWER, I_WAIT };

static const struct site init_sites[] = {
    [I_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [I_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
};

/* A white object that nobody has published: a stale word, or its thread's stack, leads the marker to it, after H3. */
static void initialised(int variant) {
    static const enum order always[] = {[P_ALLOC] = REL, [P_LAYOUT] = REL};
    const enum order *mine = o;
    (void)variant;
    struct hole h = hole_begin("initialising stores before the next safepoint");
    int answers = ex_loc(&p, "answers to H3", 0);
    ex_thread(&p, "mutator");
    o = always;
    take_and_init(&h, false);
    o = mine;
    ex_add(&p, -1, answers, 1, o[I_ANSWER]);
    ex_thread(&p, "collector");
    ex_await(&p, -1, answers, EQ, 1, o[I_WAIT]);
    ex_or(&p, R0, h.mark, 1, RLX);
    ex_load(&p, R1, h.layout, ACQ);
    ex_when(&p, R1, NE, 1, 1);
    ex_fail(&p, "an object is scanned by no layout, or by another one's");
    ex_load(&p, R2, h.field, ACQ);
    ex_when(&p, R2, NE, CHILD, 1);
    ex_fail(&p, "an object is scanned before it is initialised");
}

TEST(memory_order, initialising_stores_before_the_next_safepoint) {
    CHECK_KERNEL(initialised, 1, NULL, init_sites);
}

/* What R18 does not allow: the object was allocated before H3 and gets its reference after it, when the marker may be
 * reading it. The reference is to an object that was allocated meanwhile, black. */
static void initialised_late(int variant) {
    enum order init = o[0];
    (void)variant;
    struct hole h = hole_begin("initialising stores after a safepoint");
    int answers = ex_loc(&p, "answers to H3", 0), old_field = ex_loc(&p, "the old object's field", 0);
    ex_thread(&p, "mutator");
    ex_add(&p, -1, answers, 1, SEQ);
    ex_or(&p, -1, h.mark, 1, RLX); /* the new one's hole */
    ex_store(&p, h.field, 0, PLAIN);
    ex_store(&p, h.alloc, 1, REL);
    ex_store(&p, old_field, 1, init); /* tri_init(old, new) */
    ex_thread(&p, "collector");
    ex_await(&p, -1, answers, EQ, 1, ACQ);
    ex_load(&p, R0, old_field, ACQ);
    ex_when(&p, R0, EQ, 1, 3);
    ex_or(&p, R1, h.mark, 1, RLX);
    ex_when(&p, R1, EQ, 0, 1);
    ex_load(&p, R2, h.field, ACQ);
}

TEST(memory_order, initialising_stores_after_a_safepoint_would_have_to_release) {
    static const enum order relaxed[] = {RLX}, release[] = {REL};
    struct ex_result r = run(initialised_late, 1, NULL, relaxed);
    CHECK(r.wrong != NULL);
    CHECK_STR_EQ(r.wrong, "a data race"); /* the marker reads what the thread zeroes */
    r = run(initialised_late, 1, NULL, release);
    CHECK_MSG(!r.wrong, "%s\n%s", r.wrong, r.trace);
}

/* ---- the ends of a hole, read by others -------------------------------------------------------------------------- */

enum { E_CURSOR, E_LIMIT, E_LIMIT_READ, E_CURSOR_READ, E_ALLOC, E_ALLOCATED };

static const struct site ends_sites[] = {
    [E_CURSOR] = {"alloc/cache.c", "atomic_store_release(&hole->cursor, cursor)", REL, RLX, NEEDED},
    [E_LIMIT] = {"alloc/cache.c", "atomic_store_release(&hole->limit, limit)", REL, RLX, NEEDED},
    [E_LIMIT_READ] = {"gc/inspect.c", "atomic_load_acquire(&h->limit)", ACQ, RLX, NEEDED},
    [E_CURSOR_READ] = {"gc/inspect.c", "atomic_load_acquire(&h->cursor)", ACQ, RLX, NEEDED},
    [E_ALLOC] = {"alloc/span.c", "atomic_store_release(&w->allocs[word], atomic_load_relaxed(&w->allocs[word]) | bits)",
                 REL, RLX, NEEDED},
    [E_ALLOCATED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* pairs with the release in span_take",
                     ACQ, RLX, NEEDED},
};

/* set_hole and next_run beside in_hole_of. The old hole is [3, 4), its last slot is bumped over; the new one [10,
 * 12). */
static void hole_ends(int variant) {
    ex_begin(&p, "the ends of a hole");
    int cursor = ex_loc(&p, "cursor", 3), limit = ex_loc(&p, "limit", 4), alloc = ex_loc(&p, "alloc of 10", 0);
    ex_thread(&p, "owner");
    ex_store(&p, cursor, 4, RLX);
    ex_store(&p, limit, 0, RLX);
    ex_store(&p, cursor, 10, o[E_CURSOR]);
    ex_store(&p, limit, 12, o[E_LIMIT]);
    ex_store(&p, alloc, 1, o[E_ALLOC]);
    ex_thread(&p, "reader");
    if (variant == 1) {
        ex_load(&p, R3, alloc, o[E_ALLOCATED]);
        ex_when(&p, R3, EQ, 0, 1);
        ex_end(&p); /* no object there */
    }
    ex_load(&p, R0, limit, o[E_LIMIT_READ]);
    ex_load(&p, R1, cursor, o[E_CURSOR_READ]);
    ex_load(&p, R2, limit, RLX);
    ex_when(&p, R2, NE, R0, 1);
    ex_end(&p); /* looks again */
    ex_when(&p, R0, EQ, 4, 2);
    ex_when(&p, R1, GE, 10, 1);
    ex_fail(&p, "the new cursor with the old limit");
    ex_when(&p, R0, EQ, 12, 2);
    ex_when(&p, R1, LT, 10, 1);
    ex_fail(&p, "the old cursor with the new limit");
    if (variant == 1) {
        ex_when(&p, R0, NE, 12, 1);
        ex_fail(&p, "a slot of the hole is taken for an object");
    }
}

TEST(memory_order, the_ends_of_a_hole) {
    CHECK_KERNEL(hole_ends, 2, NULL, ends_sites);
}

/* ---- rounds: found before the mark ------------------------------------------------------------------------------- */

enum { F_FOUND, F_MARK, F_MARKED, F_ANSWER, F_WAIT, F_LOOK };

static const struct site round_sites[] = {
    /* The mark's release behind it, and the count's, carry it. */
    [F_FOUND] = {"gc/mark.c", "atomic_store_release(&mk->heap->found, 1); /* round's end */", REL, RLX, SPARE},
    [F_MARK] = {"alloc/arena.h", "atomic_or_acqrel(word, bit)", ARL, RLX, NEEDED},
    [F_MARKED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit", ACQ,
                  RLX, NEEDED},
    [F_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [F_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
    [F_LOOK] = {"gc/cycle.c", "atomic_load_acquire(&heap->found) != 0", ACQ, RLX, SPARE},
};

static void shade(int found, int mark) {
    ex_load(&p, R0, mark, o[F_MARKED]);
    ex_when(&p, R0, EQ, 0, 2);
    ex_store(&p, found, 1, o[F_FOUND]);
    ex_or(&p, R1, mark, 1, o[F_MARK]);
}

/* One thread has answered and turns an object grey then; another one finds it marked and answers "none". */
static void rounds(int variant) {
    (void)variant;
    ex_begin(&p, "found before the mark");
    int found = ex_loc(&p, "found", 0), mark = ex_loc(&p, "mark", 0), answers = ex_loc(&p, "answers", 0);
    ex_thread(&p, "a");
    ex_add(&p, -1, answers, 1, o[F_ANSWER]);
    shade(found, mark);
    ex_thread(&p, "b");
    shade(found, mark);
    ex_add(&p, -1, answers, 1, o[F_ANSWER]);
    ex_thread(&p, "collector");
    ex_await(&p, -1, answers, EQ, 2, o[F_WAIT]);
    ex_load(&p, R0, found, o[F_LOOK]);
    ex_when(&p, R0, EQ, 0, 1);
    ex_fail(&p, "a round closes although something turned grey in it");
}

TEST(memory_order, found_before_the_mark) {
    CHECK_KERNEL(rounds, 1, NULL, round_sites);
}

/* ---- work buffers ------------------------------------------------------------------------------------------------ */

enum { W_ACQUIRE, W_RELEASE, W_PUT, W_LOOK, W_ANSWER, W_WAIT };

static const struct site work_sites[] = {
    [W_ACQUIRE] = {NULL, NULL, ACQ, RLX, NEEDED},
    [W_RELEASE] = {NULL, NULL, REL, RLX, NEEDED},
    /* A hint beside the lock; at a round's end the answers carry it. */
    [W_PUT] = {"gc/work.c", "atomic_store_release(&work->nfull, atomic_load_relaxed(&work->nfull) + 1)", REL, RLX,
               SPARE},
    [W_LOOK] = {"gc/work.c", "atomic_load_acquire(&work->nfull) == 0", ACQ, RLX, SPARE},
    [W_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [W_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
};

/* A flush answer hands a buffer over. Variant 0: a worker takes it (tri__work_await). 1: the collector sees at the
 * round's end that there is one (tri__work_is_empty, no lock). */
static void handing_over(int variant) {
    ex_begin(&p, "a work buffer changes hands");
    int lock = ex_loc(&p, "lock", 0), full = ex_loc(&p, "full", 0), nfull = ex_loc(&p, "nfull", 0);
    int entries = ex_loc(&p, "entries", 0), answers = ex_loc(&p, "answers", 0);
    ex_thread(&p, "mutator");
    ex_store(&p, entries, 1, PLAIN);
    ex_lock(&p, lock, o[W_ACQUIRE]);
    ex_store(&p, full, 1, PLAIN);
    ex_store(&p, nfull, 1, o[W_PUT]);
    ex_unlock(&p, lock, o[W_RELEASE]);
    ex_add(&p, -1, answers, 1, o[W_ANSWER]);
    if (variant == 1) {
        ex_thread(&p, "collector");
        ex_await(&p, -1, answers, EQ, 1, o[W_WAIT]);
        ex_load(&p, R0, nfull, o[W_LOOK]);
        ex_when(&p, R0, EQ, 0, 1);
        ex_fail(&p, "a round closes although a buffer was handed over");
        return;
    }
    ex_thread(&p, "worker");
    ex_lock(&p, lock, o[W_ACQUIRE]);
    ex_load(&p, R1, full, PLAIN);
    ex_when(&p, R1, EQ, 1, 2);
    ex_store(&p, full, 0, PLAIN);
    ex_store(&p, nfull, 0, REL);
    ex_unlock(&p, lock, o[W_RELEASE]);
    ex_when(&p, R1, EQ, 1, 1);
    ex_load(&p, R2, entries, PLAIN);
}

TEST(memory_order, work_buffers) {
    CHECK_KERNEL(handing_over, 2, NULL, work_sites);
}

/* ---- weak loads -------------------------------------------------------------------------------------------------- */

enum { C_ACQUIRE, C_RELEASE, C_MARK, C_MARKED };

static const struct site close_sites[] = {
    [C_ACQUIRE] = {NULL, NULL, ACQ, RLX, NEEDED},
    [C_RELEASE] = {NULL, NULL, REL, RLX, NEEDED},
    [C_MARK] = {"alloc/arena.h", "atomic_or_acqrel(word, bit)", ARL, RLX, SPARE}, /* under the gate's lock */
    [C_MARKED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit", ACQ,
                  RLX, SPARE},
};
enum { CLOSING = 1, CLOSED = 2, OBJECT = 7 };
static int close_mark, close_slot;

/* tri_weak_load_slow, tri__gate_load_quick, pass_gate; gate_close, clear_if_dead. */
static void closing(int variant) {
    (void)variant;
    ex_begin(&p, "a weak load against the close");
    int lock = ex_loc(&p, "gate's lock", 0), gate = ex_loc(&p, "gate", CLOSING), spoiled = ex_loc(&p, "spoiled", 0);
    close_mark = ex_loc(&p, "mark", 0);
    close_slot = ex_loc(&p, "weak slot", OBJECT);
    ex_thread(&p, "mutator");
    ex_load(&p, R0, close_slot, ACQ);
    ex_when(&p, R0, EQ, 0, 1);
    ex_end(&p);
    ex_load(&p, R1, close_mark, o[C_MARKED]);
    ex_when(&p, R1, EQ, 0, 11);
    ex_lock(&p, lock, o[C_ACQUIRE]);
    ex_load(&p, R1, close_mark, o[C_MARKED]);
    ex_load(&p, R2, gate, PLAIN);
    ex_when(&p, R1, EQ, 0, 5);
    ex_when(&p, R2, EQ, CLOSING, 3);
    ex_or(&p, -1, close_mark, 1, o[C_MARK]);
    ex_store(&p, spoiled, 1, PLAIN);
    ex_set(&p, R1, 1); /* allowed */
    ex_when(&p, R2, EQ, CLOSED, 0);
    ex_unlock(&p, lock, o[C_RELEASE]);
    ex_when(&p, R1, EQ, 0, 1);
    ex_end(&p); /* refused */
    ex_load(&p, R3, close_slot, ACQ);
    ex_thread(&p, "collector");
    ex_lock(&p, lock, o[C_ACQUIRE]);
    ex_load(&p, R0, spoiled, PLAIN);
    ex_when(&p, R0, EQ, 0, 1);
    ex_store(&p, gate, CLOSED, PLAIN);
    ex_unlock(&p, lock, o[C_RELEASE]);
    ex_when(&p, R0, EQ, 1, 1);
    ex_end(&p); /* another round */
    ex_load(&p, R1, close_slot, ACQ);
    ex_load(&p, R2, close_mark, o[C_MARKED]);
    ex_when(&p, R2, EQ, 0, 1);
    ex_cas(&p, R3, close_slot, OBJECT, 0, ARL);
}

static const char *given_away_alive(const struct ex_outcome *e) {
    if (e->regs[0][3] != OBJECT) return NULL;
    return e->memory[close_mark] && e->memory[close_slot] == OBJECT ? NULL : "a weak load gave a dead object away";
}

TEST(memory_order, a_weak_load_against_the_close) {
    CHECK_KERNEL(closing, 1, given_away_alive, close_sites);
}

enum { V_CLEAR, V_MARK, V_MARKED, V_AGAIN };

static const struct site revival_sites[] = {
    [V_CLEAR] = {"gc/weak.c", "atomic_cas_acqrel(word, &seen, 0)) w->ncleared++", ARL, RLX, SPARE},
    [V_MARK] = {"gc/mark.c", "if (atomic_or_acqrel(word, bit) & bit) return;", ARL, RLX, NEEDED},
    [V_MARKED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit", ACQ,
                  RLX, NEEDED},
    [V_AGAIN] = {"gc/weak.c", "atomic_load_acquire(word) == seen", ACQ, RLX, SPARE},
};

/* An object that a finalizer queue's object leads to: its weak slots are cleared, then it is marked (hot_process). Who
 * finds the mark, without the gate's lock, looks at the slot again. */
static void reviving(int variant) {
    (void)variant;
    ex_begin(&p, "a weak load against what comes back");
    int slot = ex_loc(&p, "weak slot", OBJECT), mark = ex_loc(&p, "mark", 0);
    ex_thread(&p, "collector");
    ex_cas(&p, R0, slot, OBJECT, 0, o[V_CLEAR]);
    ex_or(&p, -1, mark, 1, o[V_MARK]);
    ex_thread(&p, "mutator");
    ex_load(&p, R0, slot, ACQ);
    ex_when(&p, R0, EQ, OBJECT, 5);
    ex_load(&p, R1, mark, o[V_MARKED]);
    ex_when(&p, R1, EQ, 1, 3);
    ex_load(&p, R2, slot, o[V_AGAIN]);
    ex_when(&p, R2, EQ, OBJECT, 1);
    ex_fail(&p, "a weak load gave away what was dead at the close");
}

TEST(memory_order, a_weak_load_against_what_comes_back) {
    CHECK_KERNEL(reviving, 1, NULL, revival_sites);
}

/* ---- page-table lookups, lists of spans -------------------------------------------------------------------------- */

enum { T_SHAPE, T_READ };

static const struct site page_sites[] = {
    [T_SHAPE] = {"alloc/span.c", "atomic_store_release(&space->pages[page].shape, shape)", REL, RLX, NEEDED},
    [T_READ] = {"alloc/arena.h", "atomic_load_acquire(&space->pages[page].shape)", ACQ, RLX, NEEDED},
};

/* tri__span_publish, space_find_slot. */
static void looking_up(int variant) {
    (void)variant;
    ex_begin(&p, "a page's entry");
    int shape = ex_loc(&p, "shape", 0), place = ex_loc(&p, "place", 0), span = ex_loc(&p, "span", 0);
    int descriptor = ex_loc(&p, "slot_bytes of the span", 0);
    ex_thread(&p, "mutator");
    ex_store(&p, descriptor, 1, PLAIN);
    ex_store(&p, span, 1, RLX);
    ex_store(&p, place, 1, RLX);
    ex_store(&p, shape, 1, o[T_SHAPE]);
    ex_thread(&p, "marker");
    ex_load(&p, R0, shape, o[T_READ]);
    ex_when(&p, R0, EQ, 0, 1);
    ex_end(&p); /* no span */
    ex_load(&p, R1, place, RLX);
    ex_when(&p, R1, EQ, 0, 1);
    ex_fail(&p, "a page's shape without its place");
    ex_load(&p, R1, span, RLX);
    ex_when(&p, R1, EQ, 0, 1);
    ex_fail(&p, "a page's shape without its span");
    ex_load(&p, R2, descriptor, PLAIN);
}

TEST(memory_order, page_table_lookups) {
    CHECK_KERNEL(looking_up, 1, NULL, page_sites);
}

enum { G_ACQUIRE, G_RELEASE, G_FLIP, G_GEN };

static const struct site list_sites[] = {
    [G_ACQUIRE] = {NULL, NULL, ACQ, RLX, NEEDED},
    [G_RELEASE] = {NULL, NULL, REL, RLX, NEEDED},
    /* The list's lock and the generation of its head, read under it, decide. */
    [G_FLIP] = {"alloc/memory.c", "atomic_store_release(&mem->gen,", REL, RLX, SPARE},
    [G_GEN] = {"alloc/central.c", "gen == atomic_load_acquire(&mem->gen); /* only such threads sweep", ACQ, RLX, SPARE},
};

/* A thread that has not retired gives a span of generation 1 back, unmarks what it did not use before; one that has
 * takes it off the list and sweeps it. */
static void listing(int variant) {
    (void)variant;
    ex_begin(&p, "a span goes through a list");
    int lock = ex_loc(&p, "list's lock", 0), head = ex_loc(&p, "head", 0), gen = ex_loc(&p, "gen of the heap", 1);
    int span_gen = ex_loc(&p, "gen of the span", 0), nalloc = ex_loc(&p, "nalloc", 0), marks = ex_loc(&p, "marks", 3);
    ex_thread(&p, "not retired");
    ex_store(&p, span_gen, 1, RLX);
    ex_store(&p, nalloc, 1, PLAIN);
    ex_and(&p, -1, marks, 1, RLX);
    ex_lock(&p, lock, o[G_ACQUIRE]);
    ex_store(&p, head, 1, PLAIN);
    ex_unlock(&p, lock, o[G_RELEASE]);
    ex_thread(&p, "retired");
    ex_await(&p, -1, gen, EQ, 2, o[G_GEN]);
    ex_lock(&p, lock, o[G_ACQUIRE]);
    ex_load(&p, R0, head, PLAIN);
    ex_load(&p, R1, span_gen, RLX);
    ex_when(&p, R0, EQ, 1, 1);
    ex_store(&p, head, 0, PLAIN);
    ex_unlock(&p, lock, o[G_RELEASE]);
    ex_when(&p, R0, EQ, 1, 6);
    ex_when(&p, R1, NE, 1, 1);
    ex_fail(&p, "a list has a span of another generation");
    ex_load(&p, R2, nalloc, PLAIN);
    ex_load(&p, R3, marks, RLX);
    ex_when(&p, R3, NE, 1, 1);
    ex_fail(&p, "a slot that was given back is swept as live");
    ex_thread(&p, "collector");
    ex_store(&p, gen, 2, o[G_FLIP]);
}

TEST(memory_order, lists_of_spans) {
    CHECK_KERNEL(listing, 1, NULL, list_sites);
}
