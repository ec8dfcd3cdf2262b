/* work_tides.c - the load for the picture of the heap: it rises, stays, is thinned out, takes large buffers, rests, and
 * rises again.
 *
 * A table of slots holds blocks of 32 to 4,096 bytes, half of them with references, up to --live bytes. So the picture
 * has full spans, spans of which a tenth is left, runs of pages of large objects, manual blocks among them, free pages
 * and such as went back to the system while nothing happened. An operation is a block stored or dropped; the rests are
 * no operations. */
#include <string.h>
#include <time.h>

#include "bench/workload.h"

enum { BLOCK_MIN = 32, BLOCK_MAX = 4096, BUFFER_BYTES = 2 << 20, NBUFFERS = 8, NMANUAL = 2000, REST_MS = 500 };

struct tides {
    ad_thread *thread;
    void **table;
    uint64_t nslots;
    uint64_t random, sum;
    struct probe *probe;
    void *manual[NMANUAL]; /* not collected */
};

/* A block that says how long it is; small ones are the most frequent. */
static void *block_new(struct tides *t) {
    uint64_t r = work_random(&t->random), size_bytes = BLOCK_MIN + (r >> 8) % (BLOCK_MAX >> (r & 3));
    uint64_t *block;
    if (r & 4) {
        block = ad_new_leaf(t->thread, size_bytes);
        memset(block, 0, size_bytes);
        *block = size_bytes;
    } else {
        block = ad_new_slots(t->thread, size_bytes / sizeof(void *));
    }
    return block;
}

static uint64_t nslots_of(const struct work *work) {
    return work->live_bytes / 1024; /* a little more than a block's mean size */
}

static void set(struct tides *t, uint64_t slot, void *block) {
    ad_store(t->thread, t->table, &t->table[slot], block);
    t->sum += slot;
    probe_op(t->probe, 1);
}

static void rise(struct tides *t) {
    for (uint64_t i = 0; i < t->nslots; i++) {
        if (!t->table[i]) set(t, i, block_new(t));
        if ((i & 63) == 0) ad_poll(t->thread);
    }
}

/* Blocks of 32 to 4,096 bytes that the program frees itself. */
static void manual_make(struct tides *t) {
    for (int i = 0; i < NMANUAL; i++) {
        size_t size_bytes = (size_t)BLOCK_MIN << (i & 7);
        t->manual[i] = ad_manual(size_bytes);
        memset(t->manual[i], i, size_bytes);
    }
}

/* Each `stride`-th of them stays. */
static void manual_free(struct tides *t, int stride) {
    for (int i = 0; i < NMANUAL; i++) {
        if (!t->manual[i] || (stride && i % stride == 0)) continue;
        t->sum += *(unsigned char *)t->manual[i];
        ad_manual_free(t->manual[i]);
        t->manual[i] = NULL;
    }
}

static void churn(struct tides *t, uint64_t ops) {
    for (uint64_t i = 0; i < ops; i++) set(t, (work_random(&t->random) >> 8) % t->nslots, block_new(t));
}

/* Nine of ten go, at random places; a cycle sees it. */
static void thin_out(struct tides *t) {
    for (uint64_t i = 0; i < t->nslots; i++) {
        if (work_random(&t->random) % 10 != 0) set(t, i, NULL);
        if ((i & 63) == 0) ad_poll(t->thread);
    }
    ad_collect(t->thread);
}

static void rest(struct tides *t) {
    struct timespec ms = {0, 1000000};
    for (int i = 0; i < REST_MS; i++) {
        nanosleep(&ms, NULL);
        ad_poll(t->thread);
    }
}

static void buffers(struct tides *t) {
    void **held = ad_new_slots(t->thread, NBUFFERS);
    for (int i = 0; i < NBUFFERS; i++) {
        unsigned char *buffer = ad_new_leaf(t->thread, BUFFER_BYTES);
        memset(buffer, i, BUFFER_BYTES);
        ad_store(t->thread, held, &held[i], buffer);
    }
    rest(t);
    for (int i = 0; i < NBUFFERS; i++) {
        t->sum += ((unsigned char *)held[i])[BUFFER_BYTES - 1];
        ad_store(t->thread, held, &held[i], NULL);
    }
}

static uint64_t tides_run(ad_thread *thread, struct work *work) {
    struct tides *t = calloc(1, sizeof *t); /* the table is found by its local variable below */
    if (!t) ad_no_memory(sizeof *t);
    void **table = ad_new_slots(thread, nslots_of(work));
    *t = (struct tides){
        .thread = thread, .table = table, .nslots = nslots_of(work), .random = 20261121, .probe = &work->probes[0]};
    probe_start(t->probe);
    rise(t);
    manual_make(t);
    churn(t, work->ops);
    thin_out(t);
    manual_free(t, 10);
    rest(t);
    buffers(t);
    ad_collect(thread);
    rest(t);
    rise(t);
    churn(t, work->ops / 2);
    manual_free(t, 0);
    uint64_t sum = t->sum + (table[0] != NULL); /* used to the end */
    free(t);
    return sum;
}

/* Nearly: how many the second rise fills is chance. */
static uint64_t tides_total(const struct work *work) {
    return nslots_of(work) * 28 / 10 + work->ops * 3 / 2;
}

const struct workload workload_tides = {"tides", tides_total, tides_run, true, false};
