/* list.c - a linked list of 2,000,001 nodes, built, walked and dropped, three times.
 *
 * What it shows: a type with one reference field, allocation, the first store to a new object, and that a structure as
 * deep as it is large is marked without a deep C stack. The list is kept by `head` alone, a local variable: this
 * thread's stack is scanned. When it is set to NULL the whole list is garbage, and the next collection says so. */
#include <stdio.h>
#include <trigc.h>

struct node {
    struct node *next;
    uint64_t number;
};
TRI_TYPE(node_type, struct node, next);

enum { NODES = 2000001, ROUNDS = 3 };

static struct node *list_build(tri_thread *thread) {
    struct node *head = NULL;
    for (uint64_t i = 0; i < NODES; i++) {
        struct node *node = tri_new(thread, &node_type); /* a safepoint: `head` is on the stack */
        if (!node) return NULL;
        node->number = i;
        tri_init(thread, node, &node->next, head); /* nobody else has seen the node: no barrier */
        head = node;
    }
    return head;
}

static uint64_t list_sum(tri_thread *thread, const struct node *head) {
    uint64_t sum = 0;
    for (; head; head = head->next) {
        sum += head->number;
        if (head->number % 1024 == 0) tri_poll(thread); /* a loop that does not allocate */
    }
    return sum;
}

static size_t live_bytes(tri_heap *heap) {
    tri_stats stats = {.struct_size = sizeof stats};
    return tri_stats_get(heap, &stats) == TRI_OK ? stats.live_bytes : 0;
}

/* Builds, walks and drops one list. Whether its sum was right. A frame of its own, so that nothing of the list stays on
 * the stack when it has returned. */
__attribute__((noinline)) static bool list_round(tri_thread *thread) {
    struct node *head = list_build(thread);
    if (!head) return false;
    uint64_t sum = list_sum(thread, head), want = (uint64_t)NODES * (NODES - 1) / 2;
    printf("%d nodes, sum %llu\n", NODES, (unsigned long long)sum);
    return sum == want;
}

int main(void) {
    tri_heap *heap;
    tri_thread *thread;
    if (tri_heap_create(NULL, &heap) != TRI_OK || tri_attach(heap, 0, &thread) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        return 1;
    }
    bool right = true;
    for (int round = 0; round < ROUNDS && right; round++) right = list_round(thread);
    if (!right || tri_collect(thread) != TRI_OK) fprintf(stderr, "%s\n", tri_last_error());
    /* A conservative scan may find an old copy of `head` in a dead part of the stack: then the list goes a cycle
     * later. */
    printf("%zu MB live after the last list was dropped\n", live_bytes(heap) / (1024 * 1024));
    tri_detach(thread);
    tri_heap_destroy(heap);
    return right ? 0 : 1;
}
