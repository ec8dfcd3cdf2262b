/* step.c - whether tri_step keeps its budget: a frame loop in a heap without workers, with several loads and budgets.
 *
 *   bench-step [load [frames]]
 *
 * For each budget: how many steps had more to do when they came back (the others end when nothing is left), what they
 * took, in percent of the budget beyond it (median, 99 of 100, the longest), and the share of frames that are such
 * steps. Time is the thread's own on a core, so what a busy machine does to it counts only as far as it slows a core
 * down; the load "spin" shows how far that is: its steps do nothing but look at the clock. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <trigc.h>

enum { NROOTS = 4, NTREE = 1 << 21, NWIDE = 1 << 20, NWEAK = 200000, NENTRIES = 400000, NLARGE = 64, NRECENT = 4096 };

struct node {
    struct node *left, *right;
    uint64_t number, unused;
};
TRI_TYPE(node_type, struct node, left, right);
TRI_POINTER_ARRAY_TYPE(array_type, 0);

struct holder {
    struct node *weak;
};
TRI_WEAK_TYPE(holder_type, struct holder, weak);

struct load {
    tri_thread *thread;
    void **roots;
    uint64_t rng;
};

struct kind {
    const char *name;
    void (*build)(struct load *l);
    void (*frame)(struct load *l);
    bool spins; /* instead of tri_step */
};

static uint64_t next_random(struct load *l) {
    l->rng ^= l->rng << 13; /* xorshift64 (Marsaglia 2003) */
    l->rng ^= l->rng >> 7;
    l->rng ^= l->rng << 17;
    return l->rng;
}

static void *check(void *obj) {
    if (!obj) abort();
    return obj;
}

static void **array_new(struct load *l, size_t n) {
    return check(tri_new_n(l->thread, &array_type, n));
}

static struct node *node_new(struct load *l, uint64_t number) {
    struct node *n = check(tri_new(l->thread, &node_type));
    n->number = number;
    return n;
}

static void put(struct load *l, void **array, size_t at, void *ref) {
    tri_store(l->thread, array, &array[at], ref);
}

/* ---- loads ------------------------------------------------------------------------------------------------------ */

/* What every frame does besides: nodes of which the last few thousand live. */
static void churn(struct load *l) {
    for (int i = 0; i < 4000; i++) {
        struct node *n = node_new(l, (uint64_t)i);
        put(l, l->roots[0], next_random(l) % NRECENT, n);
    }
}

/* Nodes linked at random: each hangs below one that is there already. */
static void build_graph(struct load *l) {
    void **nodes;
    l->roots[1] = array_new(l, NTREE);
    for (size_t i = 0; i < NTREE; i++) {
        struct node *n = node_new(l, i);
        nodes = l->roots[1];
        put(l, nodes, i, n);
        if (i > 0) tri_store(l->thread, n, &n->left, nodes[next_random(l) % i]);
    }
}

/* Arrays of 8 MB; one is made anew in each frame. */
static void build_wide(struct load *l) {
    l->roots[1] = array_new(l, NWIDE);
    for (size_t i = 0; i < NWIDE; i++) {
        struct node *n = node_new(l, i);
        put(l, l->roots[1], i, n);
    }
}

static void frame_wide(struct load *l) {
    churn(l);
    void **fresh = array_new(l, NWIDE / 8), **old = l->roots[1];
    size_t from = next_random(l) % (NWIDE - NWIDE / 8);
    tri_move(l->thread, fresh, fresh, old + from, NWIDE / 8);
    l->roots[2] = fresh;
}

/* Buffers of 40 KB to 4 MB that die. */
static void build_large(struct load *l) {
    build_wide(l);
    l->roots[2] = array_new(l, NLARGE);
}

static void frame_large(struct load *l) {
    churn(l);
    void *buffer = check(tri_new_bytes(l->thread, (size_t)40960 << next_random(l) % 7));
    memset(buffer, 1, 4096);
    put(l, l->roots[2], next_random(l) % NLARGE, buffer);
}

static void build_weak(struct load *l) {
    build_graph(l);
    l->roots[2] = array_new(l, NWEAK);
    for (size_t i = 0; i < NWEAK; i++) {
        struct holder *h = check(tri_new(l->thread, &holder_type));
        void **nodes = l->roots[1];
        tri_init(l->thread, h, &h->weak, nodes[next_random(l) % NTREE]);
        put(l, l->roots[2], i, h);
    }
}

static void frame_weak(struct load *l) {
    churn(l);
    for (int i = 0; i < 100; i++) {
        struct holder *h = check(tri_new(l->thread, &holder_type));
        void **recent = l->roots[0];
        tri_init(l->thread, h, &h->weak, recent[next_random(l) % NRECENT]);
        put(l, l->roots[2], next_random(l) % NWEAK, h);
    }
}

static void build_map(struct load *l) {
    l->roots[1] = array_new(l, NENTRIES);
    l->roots[2] = check(tri_wmap_new(l->thread, NULL));
    for (size_t i = 0; i < NENTRIES; i++) {
        struct node *n = node_new(l, i);
        put(l, l->roots[1], i, n);
        l->roots[3] = node_new(l, i);
        void **keys = l->roots[1];
        if (tri_wmap_put(l->thread, l->roots[2], keys[i], (tri_word)(uintptr_t)l->roots[3]) != TRI_OK) abort();
    }
}

static void frame_map(struct load *l) {
    churn(l);
    for (int i = 0; i < 100; i++) {
        l->roots[3] = node_new(l, (uint64_t)i);
        size_t at = next_random(l) % NENTRIES;
        put(l, l->roots[1], at, l->roots[3]);
        if (tri_wmap_put(l->thread, l->roots[2], l->roots[3], (tri_word)(uintptr_t)l->roots[3]) != TRI_OK) abort();
    }
}

static void nothing(void *arg) {
    (void)arg;
}

static void build_watched(struct load *l) {
    build_map(l);
    for (size_t i = 0; i < NENTRIES; i++) {
        void **keys = l->roots[1];
        if (tri_cleanup_add(l->thread, keys[i], nothing, NULL) != TRI_OK) abort();
    }
}

static void frame_watched(struct load *l) {
    churn(l);
    for (int i = 0; i < 100; i++) {
        struct node *n = node_new(l, (uint64_t)i);
        put(l, l->roots[1], next_random(l) % NENTRIES, n);
        if (tri_cleanup_add(l->thread, n, nothing, NULL) != TRI_OK) abort();
    }
    tri_cleanup_run(l->thread, 200);
}

/* The live half of the heap dies at once now and then: many spans to sweep and pages to give back. */
static void frame_tide(struct load *l) {
    churn(l);
    if (next_random(l) % 512 == 0) l->roots[3] = NULL;
    if (next_random(l) % 4) return;
    for (int i = 0; i < 20000; i++) {
        struct node *n = node_new(l, (uint64_t)i);
        tri_init(l->thread, n, &n->left, l->roots[3]);
        l->roots[3] = n;
    }
}

static void build_nothing(struct load *l) {
    (void)l;
}

static const struct kind kinds[] = {
    {"spin", build_nothing, churn, true},    {"graph", build_graph, churn, false},
    {"wide", build_wide, frame_wide, false}, {"large", build_large, frame_large, false},
    {"weak", build_weak, frame_weak, false}, {"map", build_map, frame_map, false},
    {"tide", build_wide, frame_tide, false}, {"watched", build_watched, frame_watched, false},
};
enum { NKINDS = sizeof kinds / sizeof kinds[0] };

/* ---- measuring -------------------------------------------------------------------------------------------------- */

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* As a step that has always more to do, in pieces of some microseconds. */
static bool spin(uint64_t budget_ns) {
    struct timespec t;
    uint64_t start = 0, now = 0;
    do {
        for (int i = 0; i < 5000; i++) __asm__ volatile("" ::: "memory");
        clock_gettime(CLOCK_MONOTONIC, &t);
        now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        if (start == 0) start = now;
    } while (now - start < budget_ns);
    return true;
}

static double over(const uint64_t *ns, size_t n, double percent, uint64_t budget_ns) {
    if (n == 0) return 0;
    size_t at = (size_t)((double)(n - 1) * percent / 100);
    return ((double)ns[at] / (double)budget_ns - 1) * 100;
}

static void measure(struct load *l, const struct kind *kind, uint64_t budget_ns, size_t nframes) {
    uint64_t *ns = calloc(nframes, sizeof *ns);
    size_t n = 0;
    check(ns);
    for (size_t i = 0; i < nframes; i++) {
        kind->frame(l);
        uint64_t start = cpu_ns();
        bool more = kind->spins ? spin(budget_ns) : tri_step(l->thread, budget_ns);
        uint64_t end = cpu_ns();
        if (more) ns[n++] = end - start;
    }
    qsort(ns, n, sizeof *ns, compare);
    printf("%-8s %6llu us  %7zu of %7zu steps  %+6.1f %%  %+6.1f %%  %+7.1f %%  longest %7.1f us\n", kind->name,
           (unsigned long long)(budget_ns / 1000), n, nframes, over(ns, n, 50, budget_ns), over(ns, n, 99, budget_ns),
           over(ns, n, 100, budget_ns), n ? (double)ns[n - 1] * 1e-3 : 0);
    fflush(stdout);
    free(ns);
}

static void run(const struct kind *kind, size_t nframes) {
    static const uint64_t budgets_us[] = {50, 100, 500, 1000, 5000};
    tri_heap *heap;
    tri_config config;
    struct load l = {.rng = 88172645463325252ull};
    tri_config_init(&config);
    config.workers = 0;
    if (tri_heap_create(&config, &heap) != TRI_OK || tri_attach(heap, TRI_ATTACH_PRECISE, &l.thread) != TRI_OK) abort();
    TRI_LOCALS(l.thread, roots, NROOTS);
    l.roots = roots;
    roots[0] = array_new(&l, NRECENT);
    kind->build(&l);
    tri_collect(l.thread);
    while (tri_step(l.thread, 1000000)) {}
    for (size_t i = 0; i < sizeof budgets_us / sizeof budgets_us[0]; i++)
        measure(&l, kind, budgets_us[i] * 1000, nframes);
    TRI_POP(l.thread, roots);
    tri_detach(l.thread);
    tri_heap_destroy(heap);
}

int main(int argc, char **argv) {
    size_t nframes = argc > 2 ? strtoul(argv[2], NULL, 10) : 5000;
    printf("load        budget  steps with more to do    median      99 %%      most\n");
    for (size_t i = 0; i < NKINDS; i++)
        if (argc < 2 || strcmp(argv[1], "all") == 0 || strcmp(argv[1], kinds[i].name) == 0) run(&kinds[i], nframes);
    return 0;
}
