/* death.c - what registrations cost: weak maps' entries and cleanups of objects that all live.
 *
 *   bench-death [registrations] [collections]
 *
 * Says how long a registration takes, on average and at worst; what so many of them add to a collection that nothing
 * disturbs (processor time); and how long the map or the table keeps a thread that uses it while collections run: the
 * longest call, and how many took more than 20 us, beside as many calls with nothing running. These are of the
 * monotonic clock, so they hold what the system took, too; what locks of the heap took is apart, from the heap's own
 * histogram: together, from one slow path of an allocation to the next. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <trigc.h>

enum { MAX_CYCLES = 100, SLOW_NS = 20000 };
enum kind { NOTHING, ENTRIES, CLEANUPS, NUM_KINDS };
static const char *const names[] = {"nothing", "entries of a weak map", "cleanups"};

struct leaf {
    uint64_t number[2];
};
TRI_LEAF_TYPE(leaf_type, struct leaf);
static tri_type array_type = {.struct_size = sizeof(tri_type), .name = "array", .elem_size = 8};

struct load {
    tri_heap *heap;
    enum kind kind;
    size_t n;
    void **keys;
    void *map;
    uint32_t ncycles, done; /* done [atomic] */
    uint64_t cycle_ns[MAX_CYCLES];
};

struct times {
    uint64_t n, sum_ns, worst_ns, nslow;
};

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

static void note(struct times *t, uint64_t ns) {
    t->n++;
    t->sum_ns += ns;
    t->nslow += ns >= SLOW_NS;
    if (ns > t->worst_ns) t->worst_ns = ns;
}

static void on_death(void *arg) {
    (void)arg;
}

static void add(const struct load *load, tri_thread *thread, size_t i) {
    void *key = load->keys[i];
    int err = TRI_OK;
    if (load->kind == ENTRIES) err = tri_wmap_put(thread, load->map, key, (tri_word)(uintptr_t)key);
    if (load->kind == CLEANUPS) err = tri_cleanup_add(thread, key, on_death, NULL);
    if (err != TRI_OK) abort();
}

/* Something that the registration is for, and that leaves things as they were. */
static void use(const struct load *load, tri_thread *thread, size_t i) {
    if (load->kind == ENTRIES && i % 2) {
        tri_word found;
        if (!tri_wmap_get(thread, load->map, load->keys[i], &found)) abort();
    } else {
        add(load, thread, i);
        if (load->kind == CLEANUPS && tri_cleanup_remove(thread, load->keys[i], on_death, NULL) != TRI_OK) abort();
    }
}

static void *collect(void *arg) {
    struct load *load = arg;
    tri_thread *thread;
    if (tri_attach(load->heap, TRI_ATTACH_PRECISE, &thread) != TRI_OK) abort();
    for (uint32_t i = 0; i < load->ncycles; i++) {
        uint64_t start = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        if (tri_collect(thread) != TRI_OK) abort();
        load->cycle_ns[i] = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start;
        __atomic_store_n(&load->done, i + 1, __ATOMIC_RELEASE);
    }
    tri_detach(thread);
    return NULL;
}

static void *join(void *arg) {
    pthread_join(*(pthread_t *)arg, NULL);
    return NULL;
}

/* Uses the registrations until `calls` calls are made, or until the collections are done. */
static struct times run_calls(struct load *load, tri_thread *thread, uint64_t calls) {
    struct times t = {0};
    uint64_t rng = 88172645463325252u;
    while (calls ? t.n < calls : __atomic_load_n(&load->done, __ATOMIC_ACQUIRE) < load->ncycles) {
        rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
        uint64_t start = now_ns();
        use(load, thread, rng % load->n);
        note(&t, now_ns() - start);
        if (t.n % 64 == 0 && !tri_new_bytes(thread, 2048)) abort(); /* slow paths add up what locks took */
        tri_poll(thread);
    }
    return t;
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t longest_lock_ns(tri_heap *heap) {
    uint64_t buckets[64] = {0};
    int n = tri_histogram(heap, TRI_PAUSE_LOCK, buckets, 64);
    for (int i = n - 1; i >= 0; i--)
        if (buckets[i]) return UINT64_C(1) << i;
    return 0;
}

static void print_times(const char *what, const struct times *t) {
    printf("    %-22s %9llu calls, %7.1f ns each, worst %9.1f us, %llu of 20 us or more\n", what,
           (unsigned long long)t->n, (double)t->sum_ns / (double)t->n, (double)t->worst_ns * 1e-3,
           (unsigned long long)t->nslow);
}

static void measure(struct load *load, tri_thread *thread) {
    struct times added = {0};
    TRI_LOCALS(thread, roots, 2);
    load->keys = roots[0] = tri_new_n(thread, &array_type, load->n);
    load->map = roots[1] = tri_wmap_new(thread, NULL);
    for (size_t i = 0; i < load->n; i++) {
        tri_store(thread, load->keys, &load->keys[i], tri_new(thread, &leaf_type));
        uint64_t start = now_ns();
        add(load, thread, i);
        note(&added, now_ns() - start);
    }
    struct times quiet = run_calls(load, thread, 1000000);
    pthread_t collector;
    if (pthread_create(&collector, NULL, collect, load) != 0) abort();
    tri_blocking(thread, join, &collector);
    qsort(load->cycle_ns, load->ncycles, sizeof *load->cycle_ns, by_size);
    printf("%zu %s: a collection takes %.1f ms (median; least %.1f, longest %.1f)\n", load->n, names[load->kind],
           (double)load->cycle_ns[load->ncycles / 2] * 1e-6, (double)load->cycle_ns[0] * 1e-6,
           (double)load->cycle_ns[load->ncycles - 1] * 1e-6);
    __atomic_store_n(&load->done, 0, __ATOMIC_RELEASE);
    if (pthread_create(&collector, NULL, collect, load) != 0) abort();
    struct times beside = run_calls(load, thread, 0);
    tri_blocking(thread, join, &collector);
    print_times("registering", &added);
    print_times("use, nothing else runs", &quiet);
    print_times("use beside collections", &beside);
    printf("    longest wait for locks of the heap below %.1f us\n", (double)longest_lock_ns(load->heap) * 1e-3);
    fflush(stdout);
    TRI_POP(thread, roots);
}

static void one(enum kind kind, size_t n, uint32_t ncycles) {
    struct load load = {.kind = kind, .n = n, .ncycles = ncycles};
    tri_config config;
    tri_thread *thread;
    tri_config_init(&config);
    config.flags = TRI_HEAP_NO_CYCLES | TRI_HEAP_PRECISE;
    if (tri_heap_create(&config, &load.heap) != TRI_OK || tri_attach(load.heap, 0, &thread) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        exit(1);
    }
    measure(&load, thread);
    tri_detach(thread);
    tri_heap_destroy(load.heap);
}

int main(int argc, char **argv) {
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
    uint32_t ncycles = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 10;
    static const uint32_t slots[] = {0};
    array_type.elem_pointers = (tri_slots){.offsets = slots, .noffsets = 1};
    if (n == 0 || ncycles == 0 || ncycles > MAX_CYCLES) {
        fprintf(stderr, "usage: bench-death [registrations] [collections, up to %d]\n", MAX_CYCLES);
        return 2;
    }
    for (enum kind kind = NOTHING; kind < NUM_KINDS; kind++) one(kind, n, ncycles);
    return 0;
}
