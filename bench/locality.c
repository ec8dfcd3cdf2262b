/* locality.c - what it costs to walk over objects that lie together, and over objects that do not.
 *
 * The walk is the well-known one over an array: with step s it visits 0, s, 2s, ..., then 1, s + 1, ..., until each
 * element was visited once. So every step makes the same visits in another order, and what gets slower with the step is
 * the use that is made of a cache line once it is there, of the page's translation, and of the processor's prefetching.
 *
 * It is made over five arrangements of the same objects (32 bytes, one counter of which is raised by a visit):
 *
 *   array          one block of objects, side by side: no pointer to follow. The order that memory could have at best
 *   trigc, malloc  an array of pointers to objects, allocated one after the other
 *   ... mixed      the same, but between two of them an object of another kind (16 to 240 bytes of text) is allocated
 *                  and kept, as programs do. trigc has spans of their own for what holds no references
 *
 * Each figure is the least of the rounds: the walk always does the same, so whatever made it longer was somebody else. Each
 * arrangement has a heap of its own. At the end the counters say whether every object was visited as often as it
 * should have been. Another malloc: LD_PRELOAD. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trigc.h>

#include "bench/clock.h"

struct object {
    struct object *owner;
    uint64_t visits;
    uint64_t rest[2];
};
TRI_TYPE(object_type, struct object, owner);
TRI_POINTER_ARRAY_TYPE(pointers_type, 0);

static const size_t steps[] = {1, 2, 3, 4, 5, 6, 12, 16};
enum { NSTEPS = sizeof steps / sizeof *steps, ROUNDS = 9, TEXT_MOST = 240, TEXT_LEAST = 16 };

/* One arrangement: objects side by side, or an array of pointers to them. */
struct arrangement {
    const char *name;
    struct object *block;
    struct object **pointers;
    double ns[NSTEPS];
};

static size_t count = (size_t)2 << 20;

/* ----------------------------------------------------------------------------------------------------- the walks */

static void walk_block(struct object *block, size_t n, size_t step) {
    for (size_t first = 0; first < step; first++) {
        for (size_t i = first; i < n; i += step) block[i].visits++;
    }
}

static void walk_pointers(struct object *const *pointers, size_t n, size_t step) {
    for (size_t first = 0; first < step; first++) {
        for (size_t i = first; i < n; i += step) pointers[i]->visits++;
    }
}

static double walk_ns(const struct arrangement *a, size_t step) {
    uint64_t start = clock_ticks();
    if (a->block)
        walk_block(a->block, count, step);
    else
        walk_pointers(a->pointers, count, step);
    return (double)clock_ns(clock_ticks() - start) / (double)count;
}

static void measure(struct arrangement *a) {
    walk_ns(a, 1); /* not counted: brings in pages */
    for (int s = 0; s < NSTEPS; s++) {
        a->ns[s] = walk_ns(a, steps[s]);
        for (int r = 1; r < ROUNDS; r++) {
            double ns = walk_ns(a, steps[s]);
            if (ns < a->ns[s]) a->ns[s] = ns;
        }
    }
}

/* Whether each object was visited once by each walk. */
static bool all_visited(const struct arrangement *a) {
    for (size_t i = 0; i < count; i++) {
        const struct object *object = a->block ? &a->block[i] : a->pointers[i];
        if (object->visits != NSTEPS * ROUNDS + 1) return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------ the arrangements */

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t text_bytes(uint64_t *seed) {
    return TEXT_LEAST + next_random(seed) % (TEXT_MOST - TEXT_LEAST + 1);
}

static bool run_block(struct arrangement *a) {
    a->block = calloc(count, sizeof *a->block);
    if (!a->block) return false;
    measure(a);
    bool right = all_visited(a);
    free(a->block);
    return right;
}

static bool run_malloc(struct arrangement *a, bool is_mixed) {
    uint64_t seed = 42;
    char **texts = calloc(count, sizeof *texts);
    a->pointers = calloc(count, sizeof *a->pointers);
    bool right = texts && a->pointers;
    for (size_t i = 0; right && i < count; i++) {
        a->pointers[i] = calloc(1, sizeof(struct object));
        size_t size = is_mixed ? text_bytes(&seed) : 0;
        if (is_mixed && (texts[i] = malloc(size)) != NULL) memset(texts[i], 't', size);
        right = a->pointers[i] && (texts[i] || !is_mixed);
    }
    if (right) measure(a);
    right = right && all_visited(a);
    for (size_t i = 0; i < count; i++) {
        if (a->pointers) free(a->pointers[i]);
        if (texts) free(texts[i]);
    }
    free(a->pointers);
    free(texts);
    return right;
}

/* Builds the objects, and the texts between them, into two arrays of pointers. */
static bool build_trigc(tri_thread *thread, struct object **objects, char **texts, bool is_mixed) {
    uint64_t seed = 42;
    for (size_t i = 0; i < count; i++) {
        struct object *object = tri_new(thread, &object_type);
        if (!object) return false;
        tri_store(thread, objects, &objects[i], object);
        if (!is_mixed) continue;
        size_t size = text_bytes(&seed);
        char *text = tri_new_bytes(thread, size);
        if (!text) return false;
        memset(text, 't', size);
        tri_store(thread, texts, &texts[i], text);
    }
    return tri_collect(thread) == TRI_OK; /* so that no cycle is under way; none begins where nothing is allocated */
}

/* The arrays are collected objects, kept by a frame: objects never move. */
static bool run_trigc(struct arrangement *a, bool is_mixed) {
    tri_heap *heap;
    tri_thread *thread;
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE;
    if (tri_heap_create(&config, &heap) != TRI_OK || tri_attach(heap, 0, &thread) != TRI_OK) return false;
    TRI_LOCALS(thread, kept, 2);
    kept[0] = tri_new_n(thread, &pointers_type, count);
    kept[1] = tri_new_n(thread, &pointers_type, count);
    a->pointers = kept[0];
    bool right = kept[0] && kept[1] && build_trigc(thread, kept[0], kept[1], is_mixed);
    if (right) measure(a);
    right = right && all_visited(a);
    TRI_POP(thread, kept);
    tri_detach(thread);
    tri_heap_destroy(heap);
    return right;
}

/* --------------------------------------------------------------------------------------------------------- the table */

static void print_table(const struct arrangement *arrangements, size_t n) {
    printf("ns for a visit, %zu objects of %zu bytes, the least of %d rounds\nstep", count, sizeof(struct object),
           ROUNDS);
    for (size_t i = 0; i < n; i++) printf("  %12s", arrangements[i].name);
    for (int s = 0; s < NSTEPS; s++) {
        printf("\n%4zu", steps[s]);
        for (size_t i = 0; i < n; i++) printf("  %12.2f", arrangements[i].ns[s]);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            count = (size_t)1 << 16;
        } else if (strncmp(argv[i], "--objects=", 10) != 0 || (count = strtoull(argv[i] + 10, NULL, 10)) == 0) {
            fprintf(stderr, "usage: %s [--quick] [--objects=N]\n", argv[0]);
            return 64;
        }
    }
    bench_clock_init();
    struct arrangement a[] = {
        {.name = "array"}, {.name = "trigc"}, {.name = "malloc"}, {.name = "trigc mixed"}, {.name = "malloc mixed"}};
    bool right = run_block(&a[0]);
    right = run_trigc(&a[1], false) && right;
    right = run_malloc(&a[2], false) && right;
    right = run_trigc(&a[3], true) && right;
    right = run_malloc(&a[4], true) && right;
    print_table(a, sizeof a / sizeof *a);
    if (!right)
        fprintf(stderr, "no memory, or an object was not visited as often as it should be: %s\n", tri_last_error());
    return right ? 0 : 1;
}
