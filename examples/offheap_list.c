/* offheap_list.c - one linked list of 2,000,001 nodes, kept in two ways: as collected objects and as manual memory.
 *
 * What it shows: manual memory lies beside the heap and has a count of its own (tri_manual_bytes). The collector
 * neither scans it nor counts it, so the second list costs the heap nothing and gives its bytes back at the moment it
 * is freed; the first costs nothing to give up, and its bytes go with the next collection. A tenth of a million nodes
 * apart, a value is printed, so that the list is seen to hold what was put in.
 *
 * Nothing here recurses over the list: it is built from its end, walked and freed by loops.
 *
 * The heap is precise: the collected list is kept by one local slot and by nothing that the native stack happens to
 * hold, so that what is printed after the collection does not depend on the compiler. */
#include <inttypes.h>
#include <stdio.h>
#include <trigc.h>

struct node {
    struct node *next;
    uint64_t value;
};
TRI_TYPE(node_type, struct node, next);

enum { NODES = 2000001, PRINT_EVERY = 100000 };

static double mib(size_t bytes) {
    return (double)bytes / (1024.0 * 1024.0);
}

/* Both sizes, as the heap knows them now. */
static void print_sizes(tri_heap *heap, const char *when) {
    tri_stats stats = {.struct_size = sizeof stats};
    if (tri_stats_get(heap, &stats) != TRI_OK) return;
    printf("%-34s heap %5.1f MiB   off-heap %5.1f MiB\n", when, mib(stats.heap_bytes), mib(tri_manual_bytes(heap)));
}

/* Prints every 100,000th node. Whether each node holds its number and none is missing. `thread` is NULL for a list
 * that no collector cares for. */
static bool list_print(tri_thread *thread, const struct node *head) {
    uint64_t n = 0;
    bool right = true;
    for (; head; head = head->next, n++) {
        right &= head->value == n;
        if (n % PRINT_EVERY != 0) continue;
        printf("node: %" PRIu64 "\n", head->value);
        if (thread) tri_poll(thread); /* a loop that does not allocate; a collected object never moves */
    }
    return right && n == NODES;
}

/* ---------------------------------------------------------------------------------------------------- collected */

/* Builds the list into a slot that is a root, last node first, so that each link is a first store. */
static bool collected_build(tri_thread *thread, void **head) {
    for (uint64_t i = NODES; i-- > 0;) {
        struct node *node = tri_new(thread, &node_type);
        if (!node) return false;
        node->value = i;
        tri_init(thread, node, &node->next, *head);
        *head = node;
    }
    return true;
}

static bool collected_list(tri_heap *heap, tri_thread *thread) {
    print_sizes(heap, "collected: before");
    TRI_LOCALS(thread, head, 1);
    bool right = collected_build(thread, &head[0]);
    print_sizes(heap, "collected: built");
    right = right && list_print(thread, head[0]);
    head[0] = NULL; /* all that it takes to give up two million nodes */
    TRI_POP(thread, head);
    right = tri_collect(thread) == TRI_OK && right;
    print_sizes(heap, "collected: dropped and collected");
    return right;
}

/* ------------------------------------------------------------------------------------------------------- manual */

/* The list as far as memory went; *complete says whether that is all of it. */
static struct node *manual_build(tri_heap *heap, bool *complete) {
    struct node *head = NULL;
    for (uint64_t i = NODES; i-- > 0;) {
        struct node *node = tri_manual_alloc(heap, sizeof *node);
        *complete = node != NULL;
        if (!node) break;
        *node = (struct node){.next = head, .value = i};
        head = node;
    }
    return head;
}

static void manual_free(tri_heap *heap, struct node *head) {
    while (head) {
        struct node *next = head->next; /* read before the node is gone */
        tri_manual_free(heap, head);
        head = next;
    }
}

static bool manual_list(tri_heap *heap) {
    print_sizes(heap, "manual: before");
    bool right;
    struct node *head = manual_build(heap, &right);
    print_sizes(heap, "manual: built");
    right = right && list_print(NULL, head);
    manual_free(heap, head);
    print_sizes(heap, "manual: freed");
    return right;
}

int main(void) {
    tri_heap *heap;
    tri_thread *thread;
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE;
    if (tri_heap_create(&config, &heap) != TRI_OK || tri_attach(heap, 0, &thread) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        return 1;
    }
    bool right = collected_list(heap, thread);
    right = manual_list(heap) && right;
    if (!right) fprintf(stderr, "a list was not what was put in: %s\n", tri_last_error());
    tri_detach(thread);
    tri_heap_destroy(heap);
    return right ? 0 : 1;
}
