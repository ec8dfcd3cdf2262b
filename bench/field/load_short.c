/* load_short.c - objects that die young: at once, or when `delay` younger ones exist (a ring that holds the last ones).
 *
 * The first two words of each are written. The size is known when compiling, as in a program that allocates structs:
 * one loop for each size, kind and way to die. */
#include "bench/field/load.h"

struct short_state {
    void **ring; /* delay references; a collected object where objects are collected */
    unsigned delay, at;
};

/* A batch is about 256 KB of objects, at least 64 of them. */
#define BATCH(n) ((n) < 4096 ? (256 * 1024 / (n)) : 64)

#define FILL_pointers(t, obj) (ad_init((t), (obj), &(obj)[0], (obj)), (obj)[1] = i)
#define FILL_leaf(t, obj) ((obj)[0] = i, (obj)[1] = i)

#define LOOPS(n, kind)                                                     \
    static uint64_t at_once_##kind##_##n(ad_thread *thread, void *state) { \
        (void)state;                                                       \
        for (uint64_t i = 0; i < BATCH(n); i++) {                          \
            uint64_t *obj = AD_NEW(thread, n, kind);                       \
            FILL_##kind(thread, obj);                                      \
            field_keep(obj);                                               \
            ad_free(thread, obj);                                          \
        }                                                                  \
        return BATCH(n);                                                   \
    }                                                                      \
    static uint64_t delayed_##kind##_##n(ad_thread *thread, void *state) { \
        struct short_state *s = state;                                     \
        void **ring = s->ring;                                             \
        unsigned at = s->at, delay = s->delay;                             \
        for (uint64_t i = 0; i < BATCH(n); i++) {                          \
            uint64_t *obj = AD_NEW(thread, n, kind);                       \
            FILL_##kind(thread, obj);                                      \
            if (AD_FREES && ring[at]) ad_free(thread, ring[at]);           \
            ad_put(thread, ring, &ring[at], obj);                          \
            if (++at == delay) at = 0;                                     \
        }                                                                  \
        s->at = at;                                                        \
        return BATCH(n);                                                   \
    }
#define BOTH_KINDS(n) LOOPS(n, pointers) LOOPS(n, leaf)
FIELD_SIZES(BOTH_KINDS)

static const struct {
    size_t size_bytes;
    uint64_t (*at_once[2])(ad_thread *, void *);
    uint64_t (*delayed[2])(ad_thread *, void *);
} loops[] = {
#define ROW(n) {n, {at_once_leaf_##n, at_once_pointers_##n}, {delayed_leaf_##n, delayed_pointers_##n}},
    FIELD_SIZES(ROW)};

static void short_run(ad_thread *thread, const struct params *params, struct result *result) {
    struct short_state states[FIELD_THREADS] = {{0}};
    struct timed timed = {0};
    for (size_t i = 0; i < sizeof loops / sizeof loops[0]; i++) {
        if (loops[i].size_bytes != params->size_bytes) continue;
        timed.batch = params->delay ? loops[i].delayed[params->pointers] : loops[i].at_once[params->pointers];
    }
    if (!timed.batch) field_die("--size is one of 16, 32, 64, 256, 1024, 8192, 65536");
    for (unsigned i = 0; i < params->nthreads; i++) {
        states[i].delay = params->delay;
        if (params->delay) states[i].ring = ad_refs(thread, params->delay);
        timed.states[i] = &states[i];
    }
    load_timed(thread, params, &timed, result);
    field_keep(states);
    result->live_bytes = (uint64_t)params->nthreads * params->delay * (params->size_bytes + sizeof(void *));
}

const struct load load_short = {"short", short_run};
