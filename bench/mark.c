/* mark.c - how fast a shuffled graph is marked: nodes of 32 bytes with two references to random others.
 *
 * The graph is made once; then collections are asked for, in which nothing dies. A figure is the processor time of the
 * process for one: marking, nearly all of it; the asking thread waits. `tables` is what the side tables and the other
 * metadata need, huge what of the process lies in huge pages.
 *
 *     bench-mark                        4 million nodes, 15 collections
 *     bench-mark --huge                 with metadata_huge=on
 *     bench-mark --nodes=N --rounds=N */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <trigc.h>

struct node {
    struct node *left, *right;
    uint64_t numbers[2];
};
TRI_TYPE(node_type, struct node, left, right);
TRI_POINTER_ARRAY_TYPE(nodes_type, 0);

enum { MOST_ROUNDS = 100 };

static void check(int err) {
    if (err == TRI_OK) return;
    fprintf(stderr, "%s\n", tri_last_error());
    exit(1);
}

static uint64_t random_below(uint64_t n) {
    static uint64_t state = 20261121;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % n;
}

static double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static size_t huge_kb(void) {
    char line[256];
    unsigned long kb = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "AnonHugePages: %lu", &kb) == 1) break;
    if (file) fclose(file);
    return kb;
}

/* The array is a root until the graph is made; afterwards one node leads to all that can be reached. */
static tri_handle make_graph(tri_thread *thread, size_t nnodes) {
    struct node **nodes = tri_new_n(thread, &nodes_type, nnodes);
    tri_handle handle = tri_global(thread, nodes);
    if (!nodes || !handle) check(TRI_ENOMEM);
    for (size_t i = 0; i < nnodes; i++) {
        struct node *n = tri_new(thread, &node_type);
        if (!n) check(TRI_ENOMEM);
        tri_store(thread, nodes, &nodes[i], n);
    }
    for (size_t i = 0; i < nnodes; i++) {
        tri_store(thread, nodes[i], &nodes[i]->left, nodes[random_below(nnodes)]);
        tri_store(thread, nodes[i], &nodes[i]->right, nodes[random_below(nnodes)]);
        tri_poll(thread);
    }
    tri_global_set(thread, handle, nodes[0]);
    return handle;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int usage(void) {
    fprintf(stderr, "usage: bench-mark [--huge] [--nodes=N] [--rounds=N]\n");
    return 2;
}

int main(int argc, char **argv) {
    size_t nnodes = 4000000, nrounds = 15;
    bool huge = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--huge") == 0)
            huge = true;
        else if (strncmp(argv[i], "--nodes=", 8) == 0)
            nnodes = strtoull(argv[i] + 8, NULL, 10);
        else if (strncmp(argv[i], "--rounds=", 9) == 0)
            nrounds = strtoull(argv[i] + 9, NULL, 10);
        else
            return usage();
    }
    if (nnodes == 0 || nrounds == 0 || nrounds > MOST_ROUNDS) return usage();
    tri_heap *heap;
    tri_thread *thread;
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE; /* nothing lives by chance */
    config.idle_trim_ms = 0;
    config.wait_limit_ms = 60000;
    check(tri_heap_create(&config, &heap));
    if (huge) check(tri_heap_set(heap, "metadata_huge=on"));
    check(tri_attach(heap, 0, &thread));
    tri_handle handle = make_graph(thread, nnodes);
    check(tri_collect(thread));
    double ms[MOST_ROUNDS];
    tri_stats stats = {.struct_size = sizeof stats};
    for (size_t i = 0; i < nrounds; i++) {
        double before_ms = cpu_ms();
        check(tri_collect(thread));
        ms[i] = cpu_ms() - before_ms;
    }
    check(tri_stats_get(heap, &stats));
    qsort(ms, nrounds, sizeof ms[0], by_value);
    printf(
        "nodes %zu, live %zu KB, tables %zu KB, huge %zu KB, cpu ms a collection: least %.1f, median %.1f, most %.1f\n",
        nnodes, stats.live_bytes >> 10, stats.metadata_bytes >> 10, huge_kb(), ms[0], ms[nrounds / 2], ms[nrounds - 1]);
    tri_global_free(thread, handle);
    check(tri_detach(thread));
    check(tri_heap_destroy(heap));
    return 0;
}
