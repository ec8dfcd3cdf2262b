/* work_gcbench.c - GCBench, as Ellis, Kovac and Boehm have it: complete binary trees, built top down and bottom up.
 *
 * A tree of the full depth stretches the heap and is dropped; a tree two levels lower and an array of half a million
 * doubles live to the end. Then, for each depth from 4 to that of the long-lived tree in steps of 2, as many trees as
 * twice the stretch tree's nodes allow are built top down (a parent is stored into when its children are made) and as
 * many bottom up, and dropped at once; none is walked. A step is a node; the probe sees every 64th. */
#include "bench/workload.h"

struct gnode {
    struct gnode *left, *right;
    int i, j;
};
AD_TYPE(gnode_type, struct gnode, left, right);

enum { MIN_DEPTH = 4, ARRAY_DOUBLES = 500000 };

struct gcbench {
    ad_thread *thread;
    struct probe *probe;
    uint64_t steps;
};

static struct gnode *node_new(struct gcbench *b, struct gnode *left, struct gnode *right) {
    struct gnode *node = AD_NEW(b->thread, gnode_type);
    ad_init(b->thread, node, &node->left, left);
    ad_init(b->thread, node, &node->right, right);
    work_step(b->thread, b->probe, &b->steps);
    return node;
}

/* Top down: the node is there before its children. */
static void populate_tree(struct gcbench *b, unsigned depth, struct gnode *node) {
    if (depth == 0) return;
    ad_store(b->thread, node, &node->left, node_new(b, NULL, NULL));
    ad_store(b->thread, node, &node->right, node_new(b, NULL, NULL));
    populate_tree(b, depth - 1, node->left);
    populate_tree(b, depth - 1, node->right);
}

static struct gnode *make_tree(struct gcbench *b, unsigned depth) {
    if (depth == 0) return node_new(b, NULL, NULL);
    struct gnode *left = make_tree(b, depth - 1), *right = make_tree(b, depth - 1);
    return node_new(b, left, right);
}

/* Where memory is freed by hand. */
static void drop(struct gcbench *b, struct gnode *node) {
    if (!AD_FREES || !node) return;
    drop(b, node->left);
    drop(b, node->right);
    ad_free(b->thread, node);
}

static uint64_t tree_size(unsigned depth) {
    return (UINT64_C(2) << depth) - 1;
}

static uint64_t ntrees_of(unsigned stretch_depth, unsigned depth) {
    return 2 * tree_size(stretch_depth) / tree_size(depth);
}

static uint64_t count(const struct gnode *node) {
    return node ? 1 + count(node->left) + count(node->right) : 0;
}

static uint64_t build_trees(struct gcbench *b, unsigned depth, uint64_t ntrees) {
    for (uint64_t i = 0; i < ntrees; i++) {
        struct gnode *tree = node_new(b, NULL, NULL);
        populate_tree(b, depth, tree);
        drop(b, tree);
    }
    for (uint64_t i = 0; i < ntrees; i++) drop(b, make_tree(b, depth));
    return ntrees;
}

static uint64_t gcbench_run(ad_thread *thread, struct work *work) {
    struct gcbench b = {thread, &work->probes[0], 0};
    unsigned longest = work->depth > 2 ? work->depth - 2 : 1;
    uint64_t sum = 0;
    AD_PREPARE(gnode_type);
    probe_start(b.probe);
    drop(&b, make_tree(&b, work->depth));
    struct gnode *long_lived = node_new(&b, NULL, NULL);
    populate_tree(&b, longest, long_lived);
    double *array = ad_new_leaf(thread, ARRAY_DOUBLES * sizeof *array);
    for (unsigned i = 0; i < ARRAY_DOUBLES; i++) array[i] = i > 0 && i < ARRAY_DOUBLES / 2 ? 1.0 / i : 0.0;
    for (unsigned depth = MIN_DEPTH; depth <= longest; depth += 2)
        sum = sum * 31 + build_trees(&b, depth, ntrees_of(work->depth, depth));
    if (array[1000] != 1.0 / 1000) {
        fprintf(stderr, "the array is damaged\n");
        exit(1);
    }
    return sum * 31 + count(long_lived);
}

static uint64_t gcbench_total(const struct work *work) {
    unsigned longest = work->depth > 2 ? work->depth - 2 : 1;
    uint64_t nodes = tree_size(work->depth) + tree_size(longest);
    for (unsigned depth = MIN_DEPTH; depth <= longest; depth += 2)
        nodes += 2 * ntrees_of(work->depth, depth) * tree_size(depth);
    return nodes;
}

const struct workload workload_gcbench = {"gcbench", gcbench_total, gcbench_run, true, true};
