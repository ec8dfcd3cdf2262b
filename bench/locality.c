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
 * All arrangements exist at once, each of trigc's in a heap of its own, and every round walks all of them. A figure is
 * the least of the rounds: the walk always does the same, so whatever made it longer was somebody else. At the end the
 * counters say whether every object was visited as often as it should have been. Another malloc: LD_PRELOAD. */
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
    bool is_mixed;
    struct object *block;
    struct object **pointers;
    char **texts;
    tri_heap *heap; /* NULL where malloc has the objects */
    tri_thread *thread;
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

static void measure(struct arrangement *arrangements, size_t n) {
    for (size_t i = 0; i < n; i++) walk_ns(&arrangements[i], 1); /* not counted: brings in pages */
    for (int r = 0; r < ROUNDS; r++) {
        for (size_t i = 0; i < n; i++) {
            for (int s = 0; s < NSTEPS; s++) {
                double ns = walk_ns(&arrangements[i], steps[s]);
                if (r == 0 || ns < arrangements[i].ns[s]) arrangements[i].ns[s] = ns;
            }
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

static bool build_block(struct arrangement *a) {
    a->block = calloc(count, sizeof *a->block);
    return a->block != NULL;
}

static bool build_malloc(struct arrangement *a) {
    uint64_t seed = 42;
    a->texts = calloc(count, sizeof *a->texts);
    a->pointers = calloc(count, sizeof *a->pointers);
    if (!a->texts || !a->pointers) return false;
    for (size_t i = 0; i < count; i++) {
        a->pointers[i] = calloc(1, sizeof(struct object));
        if (!a->pointers[i]) return false;
        if (!a->is_mixed) continue;
        size_t size = text_bytes(&seed);
        a->texts[i] = malloc(size);
        if (!a->texts[i]) return false;
        memset(a->texts[i], 't', size);
    }
    return true;
}

/* The arrays are collected objects, kept by handles: objects never move. Nothing is garbage, so cycles are off. */
static bool build_trigc(struct arrangement *a) {
    uint64_t seed = 42;
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES;
    if (tri_heap_create(&config, &a->heap) != TRI_OK || tri_attach(a->heap, 0, &a->thread) != TRI_OK) return false;
    a->pointers = tri_new_n(a->thread, &pointers_type, count);
    if (!a->pointers || !tri_global(a->thread, a->pointers)) return false;
    a->texts = tri_new_n(a->thread, &pointers_type, count);
    if (!a->texts || !tri_global(a->thread, a->texts)) return false;
    for (size_t i = 0; i < count; i++) {
        struct object *object = tri_new(a->thread, &object_type);
        if (!object) return false;
        tri_store(a->thread, a->pointers, &a->pointers[i], object);
        if (!a->is_mixed) continue;
        size_t size = text_bytes(&seed);
        char *text = tri_new_bytes(a->thread, size);
        if (!text) return false;
        memset(text, 't', size);
        tri_store(a->thread, a->texts, &a->texts[i], text);
    }
    return true;
}

static void drop(struct arrangement *a) {
    if (a->thread) tri_detach(a->thread);
    if (a->heap) {
        tri_heap_destroy(a->heap);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (a->pointers) free(a->pointers[i]);
        if (a->texts) free(a->texts[i]);
    }
    free(a->pointers);
    free(a->texts);
    free(a->block);
}

/* -------------------------------------------------------------------------------------------------------- the table */

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
    struct arrangement a[] = {{.name = "array"},
                              {.name = "trigc"},
                              {.name = "malloc"},
                              {.name = "trigc mixed", .is_mixed = true},
                              {.name = "malloc mixed", .is_mixed = true}};
    enum { N = sizeof a / sizeof *a };
    bool right = build_block(&a[0]) && build_trigc(&a[1]) && build_malloc(&a[2]) && build_trigc(&a[3]) &&
                 build_malloc(&a[4]);
    if (right) {
        measure(a, N);
        print_table(a, N);
        for (size_t i = 0; i < N; i++) right = all_visited(&a[i]) && right;
        if (!right) fprintf(stderr, "an object was not visited as often as it should be\n");
    } else {
        fprintf(stderr, "no memory: %s\n", tri_last_error());
    }
    for (size_t i = 0; i < N; i++) drop(&a[i]);
    return right ? 0 : 1;
}
