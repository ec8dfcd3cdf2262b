/* work_splay.c - Splay, after the benchmark of that name in Octane: a splay tree whose nodes carry trees of payload.
 *
 * 8,000 nodes under random keys, each with a binary tree of depth 5 whose 32 leaves hold an array of ten numbers and a
 * string that names the key. An operation inserts a new node and removes the one with the greatest smaller key (or
 * itself, if there is none). Every access rotates the tree, so the heap's references change all the time, and what is
 * removed has lived for long. At the end the tree is walked in order, and its strings are read. */
#include <string.h>

#include "bench/workload.h"

struct payload {
    struct payload *left, *right; /* inside */
    uint64_t *numbers;            /* leaves: NPAYLOAD_NUMBERS of them */
    char *text;                   /* leaves: TEXT_BYTES */
};
AD_TYPE(payload_type, struct payload, left, right, numbers, text);

struct snode {
    uint64_t key;
    struct payload *payload;
    struct snode *left, *right;
};
AD_TYPE(snode_type, struct snode, payload, left, right);

enum { NODES = 8000, PAYLOAD_DEPTH = 5, NPAYLOAD_NUMBERS = 10 };
static const char text_form[] = "String for key ................ in leaf node";
enum { TEXT_BYTES = sizeof text_form - 1, TEXT_KEY = 15, TEXT_DIGITS = 16 };

struct splay {
    ad_thread *thread;
    struct snode *root, *dummy;
    uint64_t random, nnodes;
};

static void set_left(struct splay *s, struct snode *node, struct snode *left) {
    ad_store(s->thread, node, &node->left, left);
}

static void set_right(struct splay *s, struct snode *node, struct snode *right) {
    ad_store(s->thread, node, &node->right, right);
}

/* Top-down splaying (Sleator and Tarjan): the key's node, or the last one on the way to it, comes to the root. */
static void splay(struct splay *s, uint64_t key) {
    struct snode *left = s->dummy, *right = s->dummy, *at = s->root, *next;
    set_left(s, s->dummy, NULL);
    set_right(s, s->dummy, NULL);
    while (key != at->key) {
        if (key < at->key) {
            if (!at->left) break;
            if (key < at->left->key) {
                next = at->left;
                set_left(s, at, next->right);
                set_right(s, next, at);
                at = next;
                if (!at->left) break;
            }
            set_left(s, right, at);
            right = at;
            at = at->left;
        } else {
            if (!at->right) break;
            if (key > at->right->key) {
                next = at->right;
                set_right(s, at, next->left);
                set_left(s, next, at);
                at = next;
                if (!at->right) break;
            }
            set_right(s, left, at);
            left = at;
            at = at->right;
        }
    }
    set_right(s, left, at->left);
    set_left(s, right, at->right);
    set_left(s, at, s->dummy->right);
    set_right(s, at, s->dummy->left);
    s->root = at;
}

static bool has_key(struct splay *s, uint64_t key) {
    if (!s->root) return false;
    splay(s, key);
    return s->root->key == key;
}

static void insert(struct splay *s, uint64_t key, struct payload *payload) {
    struct snode *node = AD_NEW(s->thread, snode_type);
    node->key = key;
    ad_init(s->thread, node, &node->payload, payload);
    ad_init(s->thread, node, &node->left, NULL);
    ad_init(s->thread, node, &node->right, NULL);
    s->nnodes++;
    if (!s->root) {
        s->root = node;
        return;
    }
    splay(s, key);
    struct snode *root = s->root;
    if (key > root->key) {
        set_left(s, node, root);
        set_right(s, node, root->right);
        set_right(s, root, NULL);
    } else {
        set_right(s, node, root);
        set_left(s, node, root->left);
        set_left(s, root, NULL);
    }
    s->root = node;
}

static void payload_drop(struct splay *s, struct payload *payload) {
    if (!AD_FREES || !payload) return;
    payload_drop(s, payload->left);
    payload_drop(s, payload->right);
    if (payload->numbers) ad_free(s->thread, payload->numbers);
    if (payload->text) ad_free(s->thread, payload->text);
    ad_free(s->thread, payload);
}

static void remove_key(struct splay *s, uint64_t key) {
    splay(s, key);
    struct snode *removed = s->root;
    if (!removed->left) {
        s->root = removed->right;
    } else {
        struct snode *right = removed->right;
        s->root = removed->left;
        splay(s, key);
        set_right(s, s->root, right);
    }
    s->nnodes--;
    payload_drop(s, removed->payload);
    ad_free(s->thread, removed);
}

/* The greatest key below `key`, which is in the tree; or `key` itself where it is the least. */
static uint64_t key_before(struct splay *s, uint64_t key) {
    splay(s, key);
    const struct snode *node = s->root->left;
    if (!node) return key;
    while (node->right) node = node->right;
    return node->key;
}

static char *text_new(struct splay *s, uint64_t key) {
    char *text = ad_new_leaf(s->thread, TEXT_BYTES);
    memcpy(text, text_form, TEXT_BYTES);
    for (unsigned i = 0; i < TEXT_DIGITS; i++) text[TEXT_KEY + i] = "0123456789abcdef"[key >> (60 - 4 * i) & 15];
    return text;
}

static uint64_t *numbers_new(struct splay *s) {
    uint64_t *numbers = ad_new_leaf(s->thread, NPAYLOAD_NUMBERS * sizeof *numbers);
    for (unsigned i = 0; i < NPAYLOAD_NUMBERS; i++) numbers[i] = i;
    return numbers;
}

static struct payload *payload_new(struct splay *s, unsigned depth, uint64_t key) {
    struct payload *left = NULL, *right = NULL;
    uint64_t *numbers = NULL;
    char *text = NULL;
    if (depth == 0) {
        numbers = numbers_new(s);
        text = text_new(s, key);
    } else {
        left = payload_new(s, depth - 1, key);
        right = payload_new(s, depth - 1, key);
    }
    struct payload *payload = AD_NEW(s->thread, payload_type);
    ad_init(s->thread, payload, &payload->left, left);
    ad_init(s->thread, payload, &payload->right, right);
    ad_init(s->thread, payload, &payload->numbers, numbers);
    ad_init(s->thread, payload, &payload->text, text);
    return payload;
}

static uint64_t insert_new(struct splay *s) {
    uint64_t key;
    do key = work_random(&s->random);
    while (has_key(s, key));
    insert(s, key, payload_new(s, PAYLOAD_DEPTH, key));
    return key;
}

static uint64_t payload_sum(const struct payload *payload, uint64_t key) {
    if (payload->left) return payload_sum(payload->left, key) + payload_sum(payload->right, key);
    uint64_t sum = 0, read = 0;
    for (unsigned i = 0; i < NPAYLOAD_NUMBERS; i++) sum += payload->numbers[i];
    for (unsigned i = 0; i < TEXT_DIGITS; i++) {
        unsigned char c = (unsigned char)payload->text[TEXT_KEY + i];
        read = read * 16 + (c >= 'a' ? c - 'a' + 10u : c - '0' + 0u);
    }
    if (read != key) {
        fprintf(stderr, "the payload of key %llx is damaged\n", (unsigned long long)key);
        exit(1);
    }
    return sum + read;
}

/* In the order of the keys. */
static uint64_t tree_sum(const struct snode *node, uint64_t sum) {
    if (!node) return sum;
    sum = tree_sum(node->left, sum);
    sum = sum * 31 + payload_sum(node->payload, node->key);
    return tree_sum(node->right, sum);
}

static uint64_t nodes_of(const struct work *work) {
    return work->count ? work->count : NODES;
}

static uint64_t splay_run(ad_thread *thread, struct work *work) {
    struct splay s = {.thread = thread, .random = 20261121};
    struct probe *probe = &work->probes[0];
    AD_PREPARE(payload_type);
    AD_PREPARE(snode_type);
    s.dummy = AD_NEW(thread, snode_type);
    ad_init(thread, s.dummy, &s.dummy->payload, NULL);
    probe_start(probe);
    for (uint64_t i = 0; i < nodes_of(work); i++) {
        (void)insert_new(&s);
        probe_op(probe, 1);
    }
    for (uint64_t i = 0; i < work->ops; i++) {
        remove_key(&s, key_before(&s, insert_new(&s)));
        probe_op(probe, 1);
    }
    return tree_sum(s.root, s.nnodes);
}

static uint64_t splay_total(const struct work *work) {
    return nodes_of(work) + work->ops;
}

const struct workload workload_splay = {"splay", splay_total, splay_run, true, true};
