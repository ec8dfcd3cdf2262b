/*
 * property_death.c - what names objects without keeping them alive, in a property run: weak slots, a weak map,
 * cleanups, and a finalizer queue from which objects come back. Threads use them on objects that they hold in a frame;
 * after each comparison's cycles the coordinator holds what is left against what the shadow says is reachable.
 *
 * Owns: these edits and that comparison. Does not own: reachability (shadow.c). An object that is watched counts as
 * reached, since it comes back; a weak slot that names what is reached only so may be cleared or not.
 */
#include "gc/heap.h"
#include "tests/property.h"

struct weak_holder {
    uint64_t header;
    void *target; /* weak */
};
static const uint32_t target_offset[] = {offsetof(struct weak_holder, target)};
static tri_type holder_type = {.struct_size = sizeof(tri_type),
                               .name = "weak holder",
                               .size = sizeof(struct weak_holder),
                               .weaks = {.noffsets = 1, .offsets = target_offset}};
static const struct shape holder_shape = {.type = &holder_type, .size = sizeof(struct weak_holder)};

static struct weak_holder *holder_of(const struct weak_cell *cell) {
    return tri_deref(cell->handle);
}

void property_death_open(struct world *w) {
    struct death_state *d = &w->death;
    struct shadow_ids ids = {.n = 0};
    for (int i = 0; i < NWEAK; i++) {
        void *holder = tri_new(w->thread, &holder_type);
        if (!holder) shadow_fail(&w->shadow, "%s", tri_last_error());
        d->cells[i].handle = tri_global(w->thread, holder);
        d->cells[i].holder = shadow_adopt(&w->shadow, &ids, &holder_shape, holder, 0, 0);
    }
    d->map = tri_global(w->thread, tri_wmap_new(w->thread, NULL));
    d->queue = tri_finq_new(w->thread);
    w->shadow.before_free = property_death_after;
    w->shadow.before_arg = w;
}

uint64_t property_clock(struct world *w) {
    return __atomic_fetch_add(&w->death.clock, 1, __ATOMIC_ACQ_REL);
}

/* Whether a frame holds the object, and has held it since before this time. */
static bool holds(struct part *p, uint32_t id, uint64_t since) {
    for (uint32_t f = 0; f < p->nframes; f++)
        for (uint32_t i = 0; i < FRAME_SLOTS; i++)
            if (property_frame_at(p, f)->ids[i] == id && property_frame_at(p, f)->since[i] < since) return true;
    return false;
}

/* Nothing has come back since the cell's target was stored. What was dead in between may be held again, and its weak
 * slot be cleared all the same (R7). */
static bool none_came(const struct death_state *d, const struct weak_cell *cell) {
    return __atomic_load_n(&d->ncame, __ATOMIC_ACQUIRE) == cell->ncame; /* pairs with op_finalize */
}

/* Every other time the cell is one that the thread has stored into lately, and may hold the object of. */
static void op_weak(struct part *p, uint64_t r) {
    struct shadow *s = &p->w->shadow;
    uint32_t at = (uint32_t)(r >> 8) % NWEAK, *mine = &p->weak_cells[r >> 40 & 3];
    if (r % 4 && r >> 42 & 1) at = *mine;
    struct weak_cell *cell = &p->w->death.cells[at];
    if (!property_try_lock(&cell->lock)) return;
    struct weak_holder *holder = holder_of(cell);
    uint32_t id = property_pick(p, r >> 16);
    if (r % 4 == 0 && id) {
        tri_store(p->t, holder, &holder->target, (void *)shadow_entry(s, id)->addr);
        cell->target = id;
        cell->ncame = __atomic_load_n(&p->w->death.ncame, __ATOMIC_ACQUIRE);
        cell->since = property_clock(p->w);
        *mine = at;
    } else {
        void *got = tri_weak_load(p->t, &holder->target);
        if (got) {
            if (shadow_validate(s, (uintptr_t)got, "a weak slot") != cell->target)
                shadow_fail(s, "a weak slot names another object");
            if (r % 4 == 1) property_keep(p, r >> 32, cell->target);
        } else if (cell->target && holds(p, cell->target, cell->since)) {
            shadow_fail(s, "a weak slot is cleared though a frame has held its object since it was stored");
        } else if (cell->target && holds(p, cell->target, UINT64_MAX) && none_came(&p->w->death, cell)) {
            shadow_fail(s, "a weak slot is cleared though a frame holds its object");
        }
    }
    property_unlock(&cell->lock);
}

static struct map_edge *find_edge(struct death_state *d, uint32_t key) {
    for (int i = 0; i < NMAP; i++)
        if (d->edges[i].key == key) return &d->edges[i];
    return NULL;
}

static void op_map(struct part *p, uint64_t r) {
    struct shadow *s = &p->w->shadow;
    struct death_state *d = &p->w->death;
    uint32_t key = property_pick(p, r >> 8), value = property_pick(p, r >> 24);
    if (!key || !property_try_lock(&d->map_lock)) return;
    void *map = tri_deref(d->map), *at = (void *)shadow_entry(s, key)->addr;
    struct map_edge *edge = find_edge(d, key);
    tri_word found = 0;
    bool there = tri_wmap_get(p->t, map, at, &found);
    if (there != (edge != NULL)) shadow_fail(s, "a weak map %s a key that a frame holds", there ? "has" : "lost");
    if (edge && found != shadow_entry(s, edge->value)->addr) shadow_fail(s, "a weak map has another value");
    if (edge) shadow_validate(s, (uintptr_t)found, "a weak map");
    if (edge && r % 4 == 0) property_keep(p, r >> 40, edge->value);
    if (edge && r % 4 == 1) {
        if (!tri_wmap_remove(p->t, map, at)) shadow_fail(s, "a weak map did not give up a key");
        *edge = (struct map_edge){0, 0};
    } else if (value && (edge || (edge = find_edge(d, 0)) != NULL)) {
        if (tri_wmap_put(p->t, map, at, shadow_entry(s, value)->addr) != TRI_OK) shadow_fail(s, "%s", tri_last_error());
        *edge = (struct map_edge){key, value};
    }
    property_unlock(&d->map_lock);
}

static void on_cleanup(void *arg) {
    struct token *token = arg;
    __atomic_fetch_add(&token->ran, 1, __ATOMIC_RELAXED);
}

static void op_cleanup(struct part *p, uint64_t r) {
    struct death_state *d = &p->w->death;
    uint32_t id = property_pick(p, r >> 8);
    struct token *token = &d->tokens[(r >> 32) % NTOKENS];
    if (r % 4 == 0) {
        (void)tri_cleanup_run(p->t, 3);
    } else if (id && property_try_lock(&token->lock)) { /* held until the coordinator has seen what became of it */
        token->id = id;
        if (tri_cleanup_add(p->t, (void *)shadow_entry(&p->w->shadow, id)->addr, on_cleanup, token) != TRI_OK)
            shadow_fail(&p->w->shadow, "%s", tri_last_error());
    }
}

static uint32_t *find_watched(struct death_state *d, uint32_t id) {
    for (int i = 0; i < NWATCHED; i++)
        if (d->watched[i] == id) return &d->watched[i];
    return NULL;
}

static int count_at(const struct watch_list *list, const tri_finq *queue, uintptr_t addr) {
    int n = 0;
    for (const struct watch *w = list->first; w; w = w->next) n += w->queue == queue && w->addr == addr;
    return n;
}

/* Watches of the object that are served already: it comes back, or lies in the queue. A thread may hold it all the
 * same, from a field of another that came back before it. */
static int count_served(tri_finq *queue, uintptr_t addr) {
    struct watches *ws = &queue->heap->death.watches;
    tri__lock_acquire(&ws->lock);
    int n = count_at(&ws->revived, queue, addr) + count_at(&queue->delivered, queue, addr);
    tri__lock_release(&ws->lock);
    return n;
}

/* An object has at most one watch that is not served. A thread that holds it keeps that so. */
static void watch_object(struct part *p, uint32_t id, uint32_t *free_place) {
    struct shadow *s = &p->w->shadow;
    struct death_state *d = &p->w->death;
    uintptr_t addr = shadow_entry(s, id)->addr;
    int nwatches = 0, nserved = count_served(d->queue, addr);
    for (int i = 0; i < NWATCHED; i++) nwatches += d->watched[i] == id;
    int err = tri_finq_watch(p->t, d->queue, (void *)addr);
    if (nwatches < nserved || nwatches > nserved + 1) shadow_fail(s, "%d watches, %d served", nwatches, nserved);
    if (err != (nwatches > nserved ? TRI_ESTATE : TRI_OK)) shadow_fail(s, "tri_finq_watch: %d", err);
    if (err == TRI_OK) *free_place = id;
}

static void op_finalize(struct part *p, uint64_t r) {
    struct shadow *s = &p->w->shadow;
    struct death_state *d = &p->w->death;
    uint32_t id = property_pick(p, r >> 8);
    if (!property_try_lock(&d->watch_lock)) return;
    uint32_t *free_place = find_watched(d, 0);
    void *came;
    if (r % 2 && id && free_place) {
        watch_object(p, id, free_place);
    } else if ((came = tri_finq_poll(p->t, d->queue)) != NULL) {
        id = shadow_validate(s, (uintptr_t)came, "a finalizer queue");
        uint32_t *place = find_watched(d, id);
        if (!place) shadow_fail(s, "an object came back that nobody watched, or twice");
        *place = 0;
        __atomic_fetch_add(&d->ncame, 1, __ATOMIC_RELEASE); /* before anybody else can hold it */
        property_keep(p, r >> 40, id);
    }
    property_unlock(&d->watch_lock);
}

void property_death(struct worker *wk, struct part *p) {
    uint64_t r = RANDOM(wk);
    switch (r % 8) {
    case 0: op_cleanup(p, r >> 4); break;
    case 1: op_finalize(p, r >> 4); break;
    case 2:
    case 3:
    case 4: op_map(p, r >> 4); break;
    default: op_weak(p, r >> 4), op_weak(p, RANDOM(wk)), op_weak(p, RANDOM(wk));
    }
}

/* ---- the comparison ---------------------------------------------------------------------------------------------- */

/* Values of reached keys, until there are no more. */
static void settle(struct world *w) {
    struct shadow *s = &w->shadow;
    uint64_t before;
    do {
        before = s->nreached;
        shadow_check_reachable(s, w->thread);
        for (int i = 0; i < NMAP; i++) {
            const struct map_edge *e = &w->death.edges[i];
            if (e->key && shadow_entry(s, e->key)->reached) shadow_check_root(s, e->value);
        }
    } while (s->nreached != before);
}

void property_death_before(struct world *w) {
    struct shadow *s = &w->shadow;
    struct death_state *d = &w->death;
    for (int i = 0; i < NWEAK; i++) shadow_check_root(s, d->cells[i].holder);
    settle(w);
    for (int i = 0; i < NWEAK; i++) {
        struct weak_cell *cell = &d->cells[i];
        bool was_there = tri_load(&holder_of(cell)->target) != NULL || none_came(d, cell);
        cell->must = cell->target && was_there && shadow_entry(s, cell->target)->reached;
    }
    /* Whatever of the watched is dead lies in the queue after this: before, a look-up refuses it. */
    if (tri_collect(w->thread) != TRI_OK) shadow_fail(s, "%s", tri_last_error());
    for (int i = 0; i < NWATCHED; i++) shadow_check_root(s, d->watched[i]);
    settle(w);
}

static void compare_cell(struct shadow *s, struct weak_cell *cell) {
    uintptr_t word = (uintptr_t)tri_load(&holder_of(cell)->target);
    if (!cell->target) {
        if (word) shadow_fail(s, "a weak slot names %p, which is dead", (void *)word);
        return;
    }
    const struct entry *e = shadow_entry(s, cell->target);
    if (word && (word != e->addr || !e->reached)) shadow_fail(s, "a weak slot names %p, which is dead", (void *)word);
    if (!word && cell->must) shadow_fail(s, "a weak slot is cleared though its object is reachable");
    if (!word) cell->target = 0;
}

static void compare_token(struct shadow *s, struct token *token) {
    if (!token->id) return;
    uint32_t ran = __atomic_load_n(&token->ran, __ATOMIC_RELAXED), due = !shadow_entry(s, token->id)->reached;
    if (ran != due) shadow_fail(s, "the cleanup of %s object ran %u times", due ? "a dead" : "a reachable", ran);
    if (!ran) return;
    token->id = token->ran = 0;
    property_unlock(&token->lock);
}

/* After the cycles of a comparison, while the numbers of the dead are still known. */
void property_death_after(struct shadow *s, tri_thread *thread, void *arg) {
    struct world *w = arg;
    struct death_state *d = &w->death;
    for (int i = 0; i < NWEAK; i++) compare_cell(s, &d->cells[i]);
    size_t n = 0;
    for (int i = 0; i < NMAP; i++) {
        struct map_edge *e = &d->edges[i];
        if (e->key && !shadow_entry(s, e->key)->reached) *e = (struct map_edge){0, 0};
        if (!e->key) continue;
        tri_word found = 0;
        n++;
        if (!tri_wmap_get(thread, tri_deref(d->map), (void *)shadow_entry(s, e->key)->addr, &found) ||
            found != shadow_entry(s, e->value)->addr)
            shadow_fail(s, "a weak map lost a reachable key's value");
    }
    if (tri_wmap_count(thread, tri_deref(d->map)) != n)
        shadow_fail(s, "a weak map has %zu entries instead of %zu", tri_wmap_count(thread, tri_deref(d->map)), n);
    (void)tri_cleanup_run(thread, SIZE_MAX);
    for (int i = 0; i < NTOKENS; i++) compare_token(s, &d->tokens[i]);
}
