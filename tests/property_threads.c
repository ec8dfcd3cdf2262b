/*
 * property_threads.c - a worker of a property run: which operation comes next, blocking regions and calls back in,
 * attaching anew, ending with or without detaching, parking when the coordinator asks.
 *
 * Owns: the odds of the operations. Does not own: the operations themselves, nor when workers start and are compared
 * (stress_property.c). A parked worker is in a blocking region: collections go on without it.
 */
#include "tests/property.h"

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
        uint32_t id = property_pick(p, r >> 8);
        if (!id) return;
        for (uint32_t f = 0; f < p->nframes; f++)
            for (uint32_t i = 0; i < FRAME_SLOTS; i++)
                if (property_frame_at(p, f)->ids[i] == id)
                    property_frame_at(p, f)->ids[i] = 0, property_frame_at(p, f)->slots[i] = NULL;
        napping = wk;
        void *obj = tri_blocking(p->t, nap_with_reference, (void *)shadow_entry(&p->w->shadow, id)->addr);
        if (shadow_validate(&p->w->shadow, (uintptr_t)obj, "the argument of a blocking region") != id)
            shadow_fail(&p->w->shadow, "a blocking region gave back another object");
        property_keep(p, r >> 24, id);
    }
    }
}

/* What the thread has in this heap is let go of; the next safepoint may free it. */
static void forget(struct part *p) {
    property_leave_stack(p);
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
    property_frame_push(p);
}

static void detach(struct part *p) {
    forget(p);
    while (p->nframes) property_frame_pop(p);
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
        uint32_t id = property_pick(p, r >> 8);
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
        property_new(wk, p);
    else if (at < 520)
        property_load(wk, p);
    else if (at < 780)
        property_store(wk, p);
    else if (at < 800)
        property_death(wk, p);
    else if (at < 840)
        property_wild(wk, p);
    else if (at < 860)
        property_bulk(wk, p);
    else if (at < 900)
        property_frames(wk, p);
    else if (at < 920)
        property_handle(wk, p);
    else if (at < 940)
        property_range(wk, p);
    else if (at < 980)
        property_stack(wk, p);
    else if (at < 990)
        property_scanner(wk, p);
    else if (at < 1000)
        property_locals(wk, p);
    else if (at < 1010)
        property_manual(wk, p);
    else if (at < 1023)
        tri_poll(p->t);
    else
        op_rare(wk, p);
    __atomic_store_n(&wk->nops, wk->nops + 1, __ATOMIC_RELAXED); /* ops_done reads it meanwhile */
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

void *property_worker_main(void *arg) {
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
