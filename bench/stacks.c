/* stacks.c - what a deep stack costs its thread: the longest time that a poll, or the end of a blocking region, took in
 * each collection, for native stacks, value stacks and chains of frames of several depths.
 *
 *   bench-stacks [collections]
 *
 * A second thread asks for the collections, one after the other. Every fourth word of a stack names an object of its
 * own; the others are numbers. Times are of the monotonic clock, so they hold what the system took, too. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <trigc.h>

enum { MAX_CYCLES = 1000 };

struct item {
    struct item *next;
    uint64_t number;
};
TRI_TYPE(item_type, struct item, next);

enum kind { VALUES, NATIVE, FRAMES };

struct load {
    tri_heap *heap;
    tri_thread *thread;
    size_t stack_bytes;
    enum kind kind;
    bool blocking;
    uint32_t ncycles, done; /* done [atomic] */
    uint64_t worst_ns[MAX_CYCLES];
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *collect(void *arg) {
    struct load *load = arg;
    tri_thread *thread;
    if (tri_attach(load->heap, TRI_ATTACH_PRECISE, &thread) != TRI_OK) abort();
    for (uint32_t i = 0; i < load->ncycles; i++) {
        if (tri_collect(thread) != TRI_OK) abort();
        __atomic_store_n(&load->done, i + 1, __ATOMIC_RELEASE);
    }
    tri_detach(thread);
    return NULL;
}

static void *short_wait(void *arg) {
    struct timespec t = {.tv_nsec = 20000};
    nanosleep(&t, NULL);
    *(uint64_t *)arg = now_ns();
    return arg;
}

static void *join(void *arg) {
    pthread_join(*(pthread_t *)arg, NULL);
    return NULL;
}

/* Polls, or blocks for a moment, until all collections are done; the longest of each. */
static void measure(struct load *load) {
    pthread_t collector;
    if (pthread_create(&collector, NULL, collect, load) != 0) abort();
    for (uint32_t done; (done = __atomic_load_n(&load->done, __ATOMIC_ACQUIRE)) < load->ncycles;) {
        uint64_t start = now_ns();
        if (load->blocking)
            tri_blocking(load->thread, short_wait, &start); /* from the end of the wait on */
        else
            tri_poll(load->thread);
        uint64_t ns = now_ns() - start;
        if (ns > load->worst_ns[done]) load->worst_ns[done] = ns;
    }
    tri_blocking(load->thread, join, &collector);
}

static void fill(tri_thread *thread, tri_word *words, size_t n) {
    for (size_t i = 0; i < n; i++) words[i] = i * 8;
    for (size_t i = 0; i < n; i += 4) {
        struct item *item = tri_new(thread, &item_type);
        if (!item) abort();
        words[i] = (tri_word)(uintptr_t)item;
    }
}

static __attribute__((noinline)) void on_native_stack(struct load *load) {
    tri_word words[load->stack_bytes / 8];
    memset(words, 0, sizeof words);
    fill(load->thread, words, load->stack_bytes / 8);
    measure(load);
    __asm__ volatile("" : : "r"(words) : "memory");
}

static void on_value_stack(struct load *load) {
    size_t n = load->stack_bytes / 8;
    tri_word *words = calloc(n, sizeof *words), *top = words + n;
    tri_vmstack *stack = words ? tri_vmstack_add(load->thread, words, &top, NULL) : NULL;
    if (!stack) abort();
    fill(load->thread, words, n);
    measure(load);
    tri_vmstack_remove(load->thread, stack);
    free(words);
}

/* A call's frame of a record and two slots, with what its registers and its return address take, is 80 bytes. */
struct call {
    tri_frame frame;
    void *slots[2];
    char registers[40];
};

static void on_frames(struct load *load) {
    size_t n = load->stack_bytes / sizeof(struct call);
    struct call *calls = calloc(n, sizeof *calls);
    if (!calls) abort();
    for (size_t i = 0; i < n; i++) {
        calls[i].frame = (tri_frame){NULL, 2, calls[i].slots};
        tri_frame_push(load->thread, &calls[i].frame);
        if (i % 2 == 0 && !(calls[i].slots[0] = tri_new(load->thread, &item_type))) abort();
    }
    measure(load);
    for (size_t i = n; i-- > 0;) tri_frame_pop(load->thread, &calls[i].frame);
    free(calls);
}

static void *load_main(void *arg) {
    struct load *load = arg;
    if (tri_attach(load->heap, load->kind == FRAMES ? TRI_ATTACH_PRECISE : 0, &load->thread) != TRI_OK) abort();
    switch (load->kind) {
    case NATIVE: on_native_stack(load); break;
    case VALUES: on_value_stack(load); break;
    case FRAMES: on_frames(load); break;
    }
    tri_detach(load->thread);
    return NULL;
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(const struct load *load) {
    uint64_t sorted[MAX_CYCLES];
    size_t n = load->ncycles;
    memcpy(sorted, load->worst_ns, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_size);
    printf("%-6s %-8s %9zu bytes: least %8.1f us, median %8.1f us, worst %8.1f us\n",
           load->kind == NATIVE   ? "native"
           : load->kind == VALUES ? "values"
                                  : "frames",
           load->blocking ? "blocked" : "running", load->stack_bytes, (double)sorted[0] * 1e-3,
           (double)sorted[n / 2] * 1e-3, (double)sorted[n - 1] * 1e-3);
    fflush(stdout);
}

static void one(size_t stack_bytes, enum kind kind, bool blocking, uint32_t ncycles) {
    struct load load = {.stack_bytes = stack_bytes, .kind = kind, .blocking = blocking, .ncycles = ncycles};
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_NO_CYCLES;
    if (tri_heap_create(&config, &load.heap) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        exit(1);
    }
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, stack_bytes + (1 << 20));
    if (pthread_create(&thread, &attr, load_main, &load) != 0) abort();
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    report(&load);
    tri_heap_destroy(load.heap);
}

int main(int argc, char **argv) {
    static const size_t sizes[] = {16 << 10, 64 << 10, 512 << 10, 8 << 20};
    uint32_t ncycles = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 100;
    if (ncycles == 0 || ncycles > MAX_CYCLES) ncycles = MAX_CYCLES;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = VALUES; kind <= FRAMES; kind++)
            for (int blocking = 0; blocking < 2; blocking++) one(sizes[i], (enum kind)kind, blocking, ncycles);
    return 0;
}
