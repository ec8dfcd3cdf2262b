/* work_trees.c - binary trees: short-lived trees of depths 4, 6, .. beside one long-lived tree of the full depth.
 *
 * The known allocation benchmark: for each depth d, 2^(depth - d + 4) trees of depth d are built bottom up, walked and
 * dropped. With several threads each takes its share of every depth's trees and keeps a long-lived tree of its own. A
 * step is a node allocated or visited; the probe sees every 64th. */
#include "bench/workload.h"

struct node {
    struct node *left, *right;
};
AD_TYPE(node_type, struct node, left, right);

enum { MIN_DEPTH = 4 };

/* One thread's view. */
struct trees {
    ad_thread *thread;
    struct probe *probe;
    uint64_t steps;
};

static struct node *build(struct trees *t, unsigned depth) {
    struct node *left = NULL, *right = NULL;
    if (depth > 0) {
        left = build(t, depth - 1);
        right = build(t, depth - 1);
    }
    struct node *node = AD_NEW(t->thread, node_type);
    ad_init(t->thread, node, &node->left, left);
    ad_init(t->thread, node, &node->right, right);
    work_step(t->thread, t->probe, &t->steps);
    return node;
}

static uint64_t count(struct trees *t, const struct node *node) {
    work_step(t->thread, t->probe, &t->steps);
    if (!node->left) return 1;
    return 1 + count(t, node->left) + count(t, node->right);
}

/* Where memory is freed by hand. */
static void drop(struct trees *t, struct node *node) {
    if (!AD_FREES || !node) return;
    drop(t, node->left);
    drop(t, node->right);
    ad_free(t->thread, node);
}

/* Builds a tree, walks it and drops it. */
static uint64_t build_and_count(struct trees *t, unsigned depth) {
    struct node *tree = build(t, depth);
    uint64_t n = count(t, tree);
    drop(t, tree);
    return n;
}

static uint64_t ntrees_of(unsigned max_depth, unsigned depth) {
    return UINT64_C(1) << (max_depth - depth + MIN_DEPTH);
}

struct trees_run {
    struct work *work;
    uint64_t sums[PROBE_THREADS];
};

static void trees_thread(ad_thread *thread, unsigned index, void *arg) {
    struct trees_run *run = arg;
    const struct work *work = run->work;
    struct trees t = {thread, &run->work->probes[index], 0};
    uint64_t sum = 0;
    probe_start(t.probe);
    sum += build_and_count(&t, work->depth + 1);
    struct node *long_lived = build(&t, work->depth);
    for (unsigned depth = MIN_DEPTH; depth <= work->depth; depth += 2) {
        uint64_t ntrees = ntrees_of(work->depth, depth);
        for (uint64_t i = index; i < ntrees; i += work->nthreads) sum += build_and_count(&t, depth);
    }
    sum += count(&t, long_lived);
    run->sums[index] = sum;
}

static uint64_t trees_run(ad_thread *thread, struct work *work) {
    struct trees_run run = {work, {0}};
    uint64_t sum = 0;
    AD_PREPARE(node_type);
    ad_run(thread, work->nthreads, trees_thread, &run);
    for (unsigned i = 0; i < work->nthreads; i++) sum += run.sums[i];
    return sum;
}

static uint64_t trees_total(const struct work *work) {
    uint64_t nodes = ((UINT64_C(2) << (work->depth + 1)) + (UINT64_C(2) << work->depth)) * work->nthreads;
    for (unsigned depth = MIN_DEPTH; depth <= work->depth; depth += 2)
        nodes += ntrees_of(work->depth, depth) * (UINT64_C(2) << depth);
    return nodes * 2; /* built, then visited */
}

const struct workload workload_trees = {"trees", trees_total, trees_run, true, true};
