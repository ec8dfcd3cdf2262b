/*
 * How work spreads over many markers, simulated: the buffers, the list, sharing and parking of gc/work.c and gc/mark.c,
 * step by step in simulated time, for as many markers as no machine at hand has. No thread runs.
 *
 * What is simulated: each marker does entries, one at a time, depth first; full buffers go to the list, which is one
 * lock; after ENTRIES_A_CLOCK entries a marker that sees somebody parked and the list nearly empty gives every other
 * entry away; who puts a buffer wakes one, and who takes one while there are more wakes the next. What it costs is
 * assumed (struct costs); memory is not simulated, so a figure is the most that the distribution allows, not what a
 * machine's memory bandwidth leaves of it.
 *
 * Prints a table; the whole of it in the long variant (-Dstress).
 */
#include "tests/plain.h"

#include "gc/mark.h"

enum { MOST_MARKERS = 64, MOST_BUFFERS = 1 << 16 };

struct costs {
    uint64_t object_ns, marked_ns; /* an object; an entry whose object is marked already */
    uint64_t lock_ns;              /* the list's lock, held */
    uint64_t wake_ns;              /* from the wake to the first entry */
};
static const struct costs costs = {25, 12, 80, 30000};

/* ---- graphs: the children of an object, by number ---------------------------------------------------------------- */

struct shape {
    const char *name;
    uint32_t nobjects;
    uint32_t (*nchildren)(const struct shape *shape, uint32_t object);
    uint32_t (*child)(const struct shape *shape, uint32_t object, uint32_t i);
    double least_4, least_64; /* speedup that has to be reached */
};

static uint32_t none_or(const struct shape *s, uint64_t child) {
    return child < s->nobjects ? 1 : 0;
}
static uint32_t tree_n(const struct shape *s, uint32_t o) {
    return none_or(s, 2ull * o + 1) + none_or(s, 2ull * o + 2);
}
static uint32_t tree_child(const struct shape *s, uint32_t o, uint32_t i) {
    (void)s;
    return 2 * o + 1 + i;
}
static uint32_t mix(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    return x ^ x >> 16;
}
static uint32_t two(const struct shape *s, uint32_t o) {
    (void)s, (void)o;
    return 2;
}
static uint32_t random_child(const struct shape *s, uint32_t o, uint32_t i) {
    return i == 0 ? (o + 1) % s->nobjects : mix(o) % s->nobjects;
}
static uint32_t list_n(const struct shape *s, uint32_t o) {
    return none_or(s, (uint64_t)o + 1);
}
static uint32_t list_child(const struct shape *s, uint32_t o, uint32_t i) {
    (void)s, (void)i;
    return o + 1;
}
/* An array of pieces of 16,384 references each: object 0 leads to the pieces, they to the rest. */
enum { PIECE = 16384, HUNDRED = 100 };
static uint32_t npieces(const struct shape *s) {
    return (s->nobjects - 1) / (PIECE + 1);
}
static uint32_t array_n(const struct shape *s, uint32_t o) {
    return o == 0 ? npieces(s) : o <= npieces(s) ? PIECE : 0;
}
static uint32_t array_child(const struct shape *s, uint32_t o, uint32_t i) {
    return o == 0 ? 1 + i : 1 + npieces(s) + (o - 1) * PIECE + i;
}
/* A hundred lists. */
static uint32_t lists_n(const struct shape *s, uint32_t o) {
    return o == 0 ? HUNDRED : none_or(s, (uint64_t)o + HUNDRED);
}
static uint32_t lists_child(const struct shape *s, uint32_t o, uint32_t i) {
    (void)s;
    return o == 0 ? 1 + i : o + HUNDRED;
}
/* A list each of whose members has a record with 15 leaves: a spine that one marker follows, and work at its side. */
enum { COMB = 17 };
static uint32_t comb_n(const struct shape *s, uint32_t o) {
    return o % COMB == 0 ? 1 + none_or(s, (uint64_t)o + COMB) : o % COMB == 1 ? COMB - 2 : 0;
}
static uint32_t comb_child(const struct shape *s, uint32_t o, uint32_t i) {
    (void)s;
    return o % COMB == 1 ? o + 1 + i : i == 0 ? o + 1 : o + COMB;
}

static const struct shape shapes[] = {
    {"tree", (1u << 22) - 1, tree_n, tree_child, 3.7, 35},
    {"random graph", 1u << 22, two, random_child, 3.7, 30},
    {"one array", 1 + 255 * (PIECE + 1), array_n, array_child, 3, 18},
    {"a hundred lists", 1 + HUNDRED * 40000, lists_n, lists_child, 3.5, 20},
    {"list with records", COMB * 240000, comb_n, comb_child, 3.5, 10},
    {"list", 1000000, list_n, list_child, 0.99, 0.99},
};

/* ---- the simulation ---------------------------------------------------------------------------------------------- */

struct buffer {
    uint32_t n;
    uint32_t entries[WORKBUF_ENTRIES];
};

struct sim_marker {
    uint64_t now_ns;
    bool parked;
    struct buffer *buf;
};

struct sim {
    const struct shape *shape;
    uint32_t nmarkers, nparked;
    struct sim_marker markers[MOST_MARKERS];
    struct buffer *full[MOST_BUFFERS]; /* the list, its newest last */
    uint32_t nfull;
    uint64_t lock_free_ns, end_ns, nshares, nputs;
    uint8_t *marked;
    uint64_t nmarked;
};

static struct buffer *new_buffer(void) {
    struct buffer *b = malloc(sizeof *b);
    CHECK(b != NULL);
    b->n = 0;
    return b;
}

static void lock(struct sim *sim, struct sim_marker *m) {
    if (m->now_ns < sim->lock_free_ns) m->now_ns = sim->lock_free_ns;
    m->now_ns += costs.lock_ns;
    sim->lock_free_ns = m->now_ns;
}

static void wake_one(struct sim *sim, uint64_t now_ns) {
    for (uint32_t i = 0; i < sim->nmarkers; i++) {
        struct sim_marker *m = &sim->markers[i];
        if (!m->parked) continue;
        m->parked = false;
        m->now_ns = now_ns + costs.wake_ns;
        sim->nparked--;
        return;
    }
}

static void put(struct sim *sim, struct sim_marker *m, struct buffer *b) {
    lock(sim, m);
    CHECK(sim->nfull < MOST_BUFFERS);
    sim->full[sim->nfull++] = b;
    sim->nputs++;
    wake_one(sim, m->now_ns);
}

static void push(struct sim *sim, struct sim_marker *m, uint32_t object) {
    if (m->buf->n == WORKBUF_ENTRIES) {
        put(sim, m, m->buf);
        m->buf = new_buffer();
        lock(sim, m); /* for the empty one */
    }
    m->buf->entries[m->buf->n++] = object;
}

static void share(struct sim *sim, struct sim_marker *m) {
    if (sim->nparked == 0 || sim->nfull > sim->nparked / 4 || m->buf->n < SHARE_LEAST) return;
    struct buffer *given = new_buffer();
    uint32_t kept = 0;
    for (uint32_t i = 0; i < m->buf->n; i++)
        if (i % 2)
            given->entries[given->n++] = m->buf->entries[i];
        else
            m->buf->entries[kept++] = m->buf->entries[i];
    m->buf->n = kept;
    put(sim, m, given);
    sim->nshares++;
}

static void take_or_park(struct sim *sim, struct sim_marker *m) {
    lock(sim, m);
    if (sim->nfull == 0) {
        m->parked = true;
        sim->nparked++;
        return;
    }
    free(m->buf);
    m->buf = sim->full[--sim->nfull];
    if (sim->nfull > 0) wake_one(sim, m->now_ns);
}

/* What a marker does between two looks. */
static void go_on(struct sim *sim, struct sim_marker *m) {
    if (m->buf->n == 0) {
        take_or_park(sim, m);
        return;
    }
    for (unsigned k = 0; k < ENTRIES_A_CLOCK && m->buf->n > 0; k++) {
        uint32_t object = m->buf->entries[--m->buf->n];
        m->now_ns += sim->marked[object] ? costs.marked_ns : costs.object_ns;
        if (sim->marked[object]) continue;
        sim->marked[object] = 1;
        sim->nmarked++;
        uint32_t n = sim->shape->nchildren(sim->shape, object);
        for (uint32_t i = 0; i < n; i++) push(sim, m, sim->shape->child(sim->shape, object, i));
    }
    if (m->now_ns > sim->end_ns) sim->end_ns = m->now_ns;
    share(sim, m);
}

static struct sim_marker *next_in_time(struct sim *sim) {
    struct sim_marker *next = NULL;
    for (uint32_t i = 0; i < sim->nmarkers; i++) {
        struct sim_marker *m = &sim->markers[i];
        if (!m->parked && (!next || m->now_ns < next->now_ns)) next = m;
    }
    return next;
}

/* Simulated nanoseconds until everything is marked. */
static uint64_t simulate(const struct shape *shape, uint32_t nmarkers, struct sim *sim) {
    memset(sim, 0, sizeof *sim);
    sim->shape = shape;
    sim->nmarkers = nmarkers;
    sim->marked = calloc(shape->nobjects, 1);
    CHECK(sim->marked != NULL);
    for (uint32_t i = 0; i < nmarkers; i++) {
        sim->markers[i].buf = new_buffer();
        sim->markers[i].parked = i > 0;
    }
    sim->nparked = nmarkers - 1;
    push(sim, &sim->markers[0], 0);
    for (struct sim_marker *m; (m = next_in_time(sim));) go_on(sim, m);
    CHECK_EQ(sim->nmarked, shape->nobjects);
    CHECK_EQ(sim->nfull, 0);
    for (uint32_t i = 0; i < nmarkers; i++) free(sim->markers[i].buf);
    free(sim->marked);
    return sim->end_ns;
}

TEST(worksim, many_markers_get_their_part, .timeout = 120) {
    static const uint32_t counts[] = {1, 2, 4, 8, 16, 32, 64};
    static struct sim sim;
    printf("%-18s %9s  speedup with %s64 markers; buffers put, of them shared, with 64\n", "", "objects",
           test_stress() ? "2, 4, 8, 16, 32, " : "4, ");
    for (size_t k = 0; k < TRI_COUNT(shapes); k++) {
        uint64_t alone_ns = 0;
        printf("%-18s %9u ", shapes[k].name, shapes[k].nobjects);
        for (size_t i = 0; i < TRI_COUNT(counts); i++) {
            if (!test_stress() && counts[i] != 1 && counts[i] != 4 && counts[i] != 64) continue;
            uint64_t ns = simulate(&shapes[k], counts[i], &sim);
            if (counts[i] == 1) alone_ns = ns;
            double speedup = (double)alone_ns / (double)ns;
            if (counts[i] > 1) printf(" %5.1f", speedup);
            CHECK_MSG(counts[i] != 4 || speedup >= shapes[k].least_4, "%s: %.2f times as fast with 4 markers",
                      shapes[k].name, speedup);
            CHECK_MSG(counts[i] != 64 || speedup >= shapes[k].least_64, "%s: %.2f times as fast with 64 markers",
                      shapes[k].name, speedup);
        }
        printf("; %llu, %llu\n", (unsigned long long)sim.nputs, (unsigned long long)sim.nshares);
        fflush(stdout);
    }
}
