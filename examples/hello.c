#include <stdio.h>
#include <trigc.h>

struct node {
    struct node *left, *right;
};
TRI_TYPE(node_type, struct node, left, right); /* where the references lie */

static struct node *tree(tri_thread *thread, int depth) {
    struct node *left = depth ? tree(thread, depth - 1) : NULL; /* kept by this thread's stack, which is a root */
    struct node *right = depth ? tree(thread, depth - 1) : NULL;
    struct node *node = tri_new(thread, &node_type); /* zeroed; NULL when memory cannot be had */
    if (!node) return NULL;
    tri_init(thread, node, &node->left, left); /* first stores, before anyone else sees the object */
    tri_init(thread, node, &node->right, right);
    return node;
}

int main(void) {
    tri_heap *heap;
    tri_thread *thread;
    if (tri_heap_create(NULL, &heap) != TRI_OK || tri_attach(heap, 0, &thread) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        return 1;
    }
    struct node *root = tri_new(thread, &node_type);
    for (int i = 0; root && i < 1000; i++) /* each store of a new tree makes garbage of the one before */
        tri_store(thread, root, &root->left, tree(thread, 12));
    tri_collect(thread); /* a cycle of its own, complete */

    tri_stats stats = {.struct_size = sizeof stats};
    tri_stats_get(heap, &stats);
    printf("%.0f MB allocated, %.1f MB live after %llu cycles, longest pause %.2f ms\n",
           (double)stats.allocated_bytes * 1e-6, (double)stats.live_bytes * 1e-6, (unsigned long long)stats.cycles,
           (double)stats.worst_pause_ns * 1e-6);
    tri_detach(thread);
    return tri_heap_destroy(heap);
}
