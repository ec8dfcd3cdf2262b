/* load_sizes.c - sizes and lifetimes of a real program, as record.c found them (--data: one of the sizes_*.txt files).
 *
 * Each object's size and lifetime are drawn together, by the recorded counts. For each power of two of lifetimes there
 * is a ring whose length is the number of such objects that live at a time (half again the power of two, times their
 * share of the allocations); an object takes the place of the oldest in its ring. Those that lived to the program's end
 * have a ring of their number: together they are the live size. */
#include "bench/field/load.h"
#include <stdio.h>
#include <stdlib.h>

enum { NRINGS = 49, ROWS = 8192, BATCH = 2048, DRAWS = 1 << 16 };

struct row {
    uint32_t size_bytes;
    int32_t ring;
    uint64_t count;
};

struct data {
    struct row rows[ROWS];
    size_t nrows;
    uint64_t total;
    struct draw {
        uint32_t size_bytes;
        uint32_t ring;
    } draws[DRAWS]; /* what the rows say, in random order */
    size_t lengths[NRINGS];
    uint64_t live_bytes;
};

struct sizes_state {
    const struct data *data;
    void **rings; /* a collected array of arrays where objects are */
    size_t at[NRINGS], next_draw;
    bool pointers;
};

static void read_rows(struct data *d, const char *path) {
    char line[256];
    FILE *file = fopen(path ? path : "", "r");
    if (!file) field_die("--data cannot be read");
    while (fgets(line, sizeof line, file)) {
        unsigned long long size_bytes, count;
        int life;
        if (sscanf(line, "%llu %d %llu", &size_bytes, &life, &count) != 3) continue;
        if (d->nrows == ROWS) field_die("--data has too many rows");
        size_bytes = size_bytes < 16 ? 16 : (size_bytes + 7) & ~7ull;
        d->rows[d->nrows++] = (struct row){(uint32_t)size_bytes, life < 0 ? NRINGS - 1 : life, count};
        d->total += count;
    }
    fclose(file);
    if (d->nrows == 0) field_die("--data has no rows");
}

/* Every row as often as its share says, each at a random place. */
static void draw(struct data *d) {
    uint64_t random = 0x9e3779b97f4a7c15u, before = 0;
    double shares[NRINGS] = {0}, bytes[NRINGS] = {0};
    size_t n = 0;
    for (size_t i = 0; i < d->nrows; i++) {
        const struct row *row = &d->rows[i];
        before += row->count;
        shares[row->ring] += (double)row->count / (double)d->total;
        bytes[row->ring] += (double)row->count * row->size_bytes / (double)d->total;
        while (n < DRAWS && n * d->total < before * DRAWS) {
            d->draws[n++] = (struct draw){row->size_bytes, (uint32_t)row->ring};
        }
    }
    for (size_t i = DRAWS - 1; i > 0; i--) {
        size_t j = (size_t)(field_random(&random) % (i + 1));
        struct draw swap = d->draws[i];
        d->draws[i] = d->draws[j];
        d->draws[j] = swap;
    }
    for (int k = 0; k < NRINGS; k++) {
        double lives = k == NRINGS - 1 ? (double)d->total : 1.5 * (double)(1ull << k);
        d->lengths[k] = (size_t)(shares[k] * lives) + 1;
        if (shares[k] > 0) d->live_bytes += (uint64_t)((double)d->lengths[k] * (bytes[k] / shares[k] + sizeof(void *)));
    }
}

static uint64_t sizes_batch(ad_thread *thread, void *arg) {
    struct sizes_state *s = arg;
    for (unsigned i = 0; i < BATCH; i++) {
        const struct draw *draw = &s->data->draws[s->next_draw++ % DRAWS];
        void **ring = s->rings[draw->ring], **slot = &ring[s->at[draw->ring]];
        uint64_t *obj = s->pointers ? ad_words(thread, draw->size_bytes) : ad_bytes(thread, draw->size_bytes);
        ad_init(thread, obj, obj, NULL);
        ad_init(thread, obj, obj + 1, NULL);
        if (AD_FREES) ad_free(thread, *slot);
        ad_put(thread, ring, slot, obj);
        if (++s->at[draw->ring] == s->data->lengths[draw->ring]) s->at[draw->ring] = 0;
    }
    return BATCH;
}

static void sizes_run(ad_thread *thread, const struct params *params, struct result *result) {
    static struct data data;
    struct sizes_state states[FIELD_THREADS] = {{0}};
    struct timed timed = {.batch = sizes_batch};
    read_rows(&data, params->data);
    draw(&data);
    for (unsigned i = 0; i < params->nthreads; i++) {
        states[i] = (struct sizes_state){.data = &data, .pointers = params->pointers, .next_draw = i * 4099};
        states[i].rings = ad_refs(thread, NRINGS);
        for (int k = 0; k < NRINGS; k++) {
            ad_put(thread, states[i].rings, &states[i].rings[k], ad_refs(thread, data.lengths[k]));
        }
        timed.states[i] = &states[i];
    }
    load_timed(thread, params, &timed, result);
    field_keep(states);
    result->live_bytes = params->nthreads * data.live_bytes;
}

const struct load load_sizes = {"sizes", sizes_run};
