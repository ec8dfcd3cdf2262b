/* mark_graphs.c - the graphs that bench-mark measures; see mark.h. */
#include <stdlib.h>
#include "bench/mark.h"

static uint64_t random_below(uint64_t n) {
    static uint64_t state = 20261121;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % n;
}

static void *need(void *memory) {
    if (!memory) mark_fail("out of memory");
    return memory;
}

/* 0..n-1, or a permutation of it. */
static uint32_t *places(size_t n, bool shuffled) {
    uint32_t *place = need(malloc(n * sizeof *place));
    for (size_t i = 0; i < n; i++) place[i] = (uint32_t)i;
    for (size_t i = n - 1; shuffled && i > 0; i--) {
        size_t j = random_below(i + 1);
        uint32_t other = place[i];
        place[i] = place[j];
        place[j] = other;
    }
    return place;
}

static struct node **make_nodes(struct node *(*make)(void), size_t n) {
    struct node **nodes = need(malloc(n * sizeof *nodes));
    for (size_t i = 0; i < n; i++) {
        nodes[i] = need(make());
        nodes[i]->numbers[0] = i;
    }
    return nodes;
}

typedef void store_fn(void *obj, void **slot, void *ref);

/* Hangs a complete binary tree of the nodes on the root, and frees their table. The order of the nodes in memory is
 * that of their levels, or none. */
static size_t link_tree(const struct side *side, store_fn *store, struct node **nodes, size_t n, bool shuffled) {
    uint32_t *place = places(n, shuffled);
    for (size_t i = 0; i < n; i++) {
        struct node *node = nodes[place[i]];
        if (2 * i + 1 < n) store(node, &node->left, nodes[place[2 * i + 1]]);
        if (2 * i + 2 < n) store(node, &node->right, nodes[place[2 * i + 2]]);
    }
    side->root(nodes[place[0]]);
    free(place);
    free(nodes);
    return n;
}

static size_t shuffled_tree(const struct side *side, size_t n) {
    return link_tree(side, side->store, make_nodes(side->node, n), n, true);
}

static size_t ordered_tree(const struct side *side, size_t n) {
    return link_tree(side, side->store, make_nodes(side->node, n), n, false);
}

/* In the order in which a program that parses top down allocates its tree: a node, then what is left of it. */
static struct node *depth_first(const struct side *side, size_t n, size_t *made) {
    struct node *node = need(side->node());
    size_t left = (n - 1) / 2, right = n - 1 - left;
    ++*made;
    if (left) side->store(node, &node->left, depth_first(side, left, made));
    if (right) side->store(node, &node->right, depth_first(side, right, made));
    return node;
}

static size_t parsed_tree(const struct side *side, size_t n) {
    size_t made = 0;
    side->root(depth_first(side, n, &made));
    return made;
}

/* In the order in which a tree is built from its leaves up: a node after both of its subtrees. */
static struct node *leaves_first(const struct side *side, size_t n, size_t *made) {
    size_t left = (n - 1) / 2, right = n - 1 - left;
    struct node *l = left ? leaves_first(side, left, made) : NULL;
    struct node *r = right ? leaves_first(side, right, made) : NULL;
    struct node *node = need(side->node());
    ++*made;
    if (l) side->store(node, &node->left, l);
    if (r) side->store(node, &node->right, r);
    return node;
}

static size_t built_tree(const struct side *side, size_t n) {
    size_t made = 0;
    side->root(leaves_first(side, n, &made));
    return made;
}

/* Each node names two random others: as many edges to marked objects as to unmarked ones. */
static size_t random_graph(const struct side *side, size_t n) {
    struct node **nodes = make_nodes(side->node, n);
    for (size_t i = 0; i < n; i++) {
        side->store(nodes[i], &nodes[i]->left, nodes[i + 1 < n ? i + 1 : 0]); /* all are reached */
        side->store(nodes[i], &nodes[i]->right, nodes[random_below(n)]);
    }
    side->root(nodes[0]);
    free(nodes);
    return n;
}

/* Nodes with references as NaN-boxed values. */
static size_t boxed_tree(const struct side *side, size_t n) {
    return link_tree(side, side->store_boxed, make_nodes(side->boxed, n), n, true);
}

/* One object in memory for each 24 that die: a few in each page. */
static size_t sparse_tree(const struct side *side, size_t n) {
    enum { EACH = 24 };
    struct node **nodes = need(malloc(n * sizeof *nodes));
    for (size_t i = 0; i < n * EACH; i++) {
        struct node *node = need(side->node());
        if (i % EACH == 0) nodes[i / EACH] = node;
    }
    return link_tree(side, side->store, nodes, n, true);
}

static size_t list(const struct side *side, size_t n, bool shuffled) {
    struct node **nodes = make_nodes(side->node, n);
    uint32_t *place = places(n, shuffled);
    for (size_t i = 0; i + 1 < n; i++) side->store(nodes[place[i]], &nodes[place[i]]->left, nodes[place[i + 1]]);
    side->root(nodes[place[0]]);
    free(place);
    free(nodes);
    return n;
}

static size_t ordered_list(const struct side *side, size_t n) {
    return list(side, n, false);
}

static size_t shuffled_list(const struct side *side, size_t n) {
    return list(side, n, true);
}

/* A list of small cells, each with a small object of its own, one after the other. */
static size_t cons_list(const struct side *side, size_t n) {
    struct cons *first = NULL;
    for (size_t i = 0; i < n / 2; i++) {
        struct cons *cell = need(side->cons()), *head = need(side->cons());
        side->store(cell, &cell->head, head);
        side->store(cell, &cell->tail, first);
        first = cell;
    }
    side->root(first);
    return n / 2 * 2;
}

/* Arrays of a thousand references each to objects in memory order, or to any. */
static size_t arrays(const struct side *side, size_t n, size_t width, bool shuffled) {
    size_t narrays = (n + width - 1) / width;
    struct node **nodes = make_nodes(side->node, n);
    uint32_t *place = places(n, shuffled);
    void **all = need(side->array(narrays));
    for (size_t i = 0; i < narrays; i++) {
        void **array = need(side->array(width));
        side->store(all, &all[i], array);
        for (size_t k = 0; k < width && i * width + k < n; k++)
            side->store(array, &array[k], nodes[place[i * width + k]]);
    }
    side->root(all);
    free(place);
    free(nodes);
    return n + narrays + 1;
}

static size_t wide_arrays(const struct side *side, size_t n) {
    return arrays(side, n, 1000, false);
}

static size_t shuffled_arrays(const struct side *side, size_t n) {
    return arrays(side, n, 1000, true);
}

static size_t one_array(const struct side *side, size_t n) {
    return arrays(side, n, n, true);
}

/* Objects of 4 KiB in no order, each naming some others. */
static size_t large_objects(const struct side *side, size_t n) {
    struct large **objs = need(malloc(n * sizeof *objs));
    for (size_t i = 0; i < n; i++) objs[i] = need(side->large());
    for (size_t i = 0; i < n; i++) {
        side->store(objs[i], &objs[i]->slots[0], objs[i + 1 < n ? i + 1 : 0]);
        for (size_t k = 1; k < LARGE_SLOTS; k++) side->store(objs[i], &objs[i]->slots[k], objs[random_below(n)]);
    }
    side->root(objs[0]);
    free(objs);
    return n;
}

const struct graph mark_graphs[] = {
    {"shuffled tree", shuffled_tree, false, 1}, {"ordered tree", ordered_tree, false, 1},
    {"parsed tree", parsed_tree, false, 1},     {"built tree", built_tree, false, 1},
    {"random graph", random_graph, false, 1},   {"boxed tree", boxed_tree, true, 1},
    {"sparse tree", sparse_tree, false, 16},    {"ordered list", ordered_list, false, 4},
    {"shuffled list", shuffled_list, false, 8}, {"cons list", cons_list, false, 1},
    {"wide arrays", wide_arrays, false, 1},     {"shuffled arrays", shuffled_arrays, false, 1},
    {"one array", one_array, false, 1},         {"large objects", large_objects, false, 64},
};
const size_t mark_ngraphs = sizeof mark_graphs / sizeof mark_graphs[0];
