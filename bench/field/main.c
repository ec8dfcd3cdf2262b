/* main.c - one load of the field benchmark in one process: options, threads, time, memory.
 *
 *   field-NAME --load=short --size=64 --kind=pointers --delay=1000 --threads=2 --beside=100 --ms=400
 *
 * Prints a key and a value a line: ns (wall time for one object, all threads together), cpu_ns
 * (processor time for it, the collector's threads with it; 0: not measured), peak_kb (the highest resident
 * size, VmHWM: ru_maxrss would be the parent's where that was larger), live_kb (most that was reachable at a time),
 * bound_kb (live + max(live, 8 MB), what the peak shall not exceed), collections, and last "end". */
#include "bench/field/load.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(FIELD_TRIGC) || defined(FIELD_MANUAL)
tri_heap *ad_heap;
#endif

static const struct load *const loads[] = {&load_buffers, &load_fragment, &load_handoff, &load_larson,
                                           &load_limit,   &load_sawtooth, &load_short,   &load_sizes};

void field_die(const char *what) {
    fprintf(stderr, "field: %s\n", what);
    exit(2);
}

/* ---- threads ---- */

struct part {
    const struct params *params;
    const struct timed *timed;
    pthread_barrier_t *start;
    unsigned index;
    uint64_t nobjects;
    double seconds, cpu_seconds; /* the latter of the whole process, while this part was measured */
};

static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *wait_start(void *arg) {
    pthread_barrier_wait(arg);
    return NULL;
}

/* Whether the heap has been through as much as a long run would see: two collections, where there are any. */
static bool is_warm(uint64_t collections, uint64_t waited_ns) {
    return AD_FREES || ad_collections() >= collections + 2 || waited_ns > 2000000000u;
}

/* The unmeasured start, then the measured time. */
static void part_run(ad_thread *thread, struct part *part) {
    void *state = part->timed->states[part->index];
    uint64_t time_ns = (uint64_t)part->params->time_ms * 1000000u, n = 0, collections = ad_collections();
    uint64_t start = clock_posix_ns(), now = start;
    while (now - start < time_ns / 4 || !is_warm(collections, now - start)) {
        part->timed->batch(thread, state);
        now = clock_posix_ns();
    }
    double cpu = cpu_now();
    start = clock_posix_ns();
    do {
        n += part->timed->batch(thread, state);
        now = clock_posix_ns();
    } while (now - start < time_ns);
    part->nobjects = n;
    part->seconds = (double)(now - start) / 1e9;
    part->cpu_seconds = cpu_now() - cpu;
}

static void *part_main(void *arg) {
    struct part *part = arg;
    ad_thread *thread = ad_attach();
    ad_wait(thread, wait_start, part->start);
    part_run(thread, part);
    ad_detach(thread);
    return NULL;
}

struct crew {
    pthread_t ids[FIELD_THREADS];
    unsigned n;
};

static void *join_all(void *arg) {
    struct crew *crew = arg;
    for (unsigned i = 0; i < crew->n; i++) pthread_join(crew->ids[i], NULL);
    return NULL;
}

void load_timed(ad_thread *thread, const struct params *params, const struct timed *timed, struct result *result) {
    struct part parts[FIELD_THREADS];
    struct crew crew = {.n = params->nthreads};
    pthread_barrier_t start;
    double rate = 0, cpu = 0;
    pthread_barrier_init(&start, NULL, params->nthreads);
    for (unsigned i = 0; i < params->nthreads; i++) {
        parts[i] = (struct part){.params = params, .timed = timed, .start = &start, .index = i};
    }
    if (params->nthreads == 1) {
        part_run(thread, &parts[0]);
    } else {
        for (unsigned i = 0; i < crew.n; i++) {
            if (pthread_create(&crew.ids[i], NULL, part_main, &parts[i]) != 0) field_die("no thread");
        }
        ad_wait(thread, join_all, &crew);
    }
    pthread_barrier_destroy(&start);
    for (unsigned i = 0; i < params->nthreads; i++) {
        rate += (double)parts[i].nobjects / parts[i].seconds;
        cpu += parts[i].cpu_seconds / parts[i].seconds / params->nthreads;
        result->nobjects += parts[i].nobjects;
    }
    result->ns = rate > 0 ? 1e9 / rate : 0;
    result->cpu_ns = result->ns * cpu;
}

/* ---- what lives beside the load ---- */

enum { BESIDE_FAN = 1024, BESIDE_BYTES = 64 };

/* Objects of 64 bytes, a thousand to an array, the arrays in one: a wide tree, as live data mostly is. */
static void **beside_make(ad_thread *thread, size_t size_bytes) {
    size_t narrays = size_bytes / (BESIDE_FAN * BESIDE_BYTES);
    void **top;
    if (size_bytes == 0) return NULL;
    top = ad_refs(thread, narrays);
    for (size_t i = 0; i < narrays; i++) {
        void **array = ad_refs(thread, BESIDE_FAN);
        ad_put(thread, top, &top[i], array);
        for (size_t j = 0; j < BESIDE_FAN; j++) {
            uint64_t *node = AD_NEW(thread, 64, pointers);
            ad_init(thread, node, node, NULL);
            node[1] = i;
            ad_put(thread, array, &array[j], node);
        }
    }
    return top;
}

static uint64_t beside_sum(void **top, size_t size_bytes) {
    uint64_t sum = 0;
    for (size_t i = 0; i < size_bytes / (BESIDE_FAN * BESIDE_BYTES); i++)
        sum += ((uint64_t **)top[i])[i % BESIDE_FAN][1];
    return sum;
}

/* ---- options ---- */

static const char *value_of(const char *argument, const char *key) {
    size_t length = strlen(key);
    return strncmp(argument, key, length) == 0 ? argument + length : NULL;
}

static void parse(struct params *p, int argc, char **argv) {
    const char *v;
    for (int i = 1; i < argc; i++) {
        if ((v = value_of(argv[i], "--load=")))
            p->load = v;
        else if ((v = value_of(argv[i], "--size=")))
            p->size_bytes = strtoull(v, NULL, 0);
        else if ((v = value_of(argv[i], "--window=")))
            p->window_bytes = strtoull(v, NULL, 0);
        else if ((v = value_of(argv[i], "--beside=")))
            p->beside_bytes = strtoull(v, NULL, 0) << 20;
        else if ((v = value_of(argv[i], "--delay=")))
            p->delay = (unsigned)strtoul(v, NULL, 0);
        else if ((v = value_of(argv[i], "--threads=")))
            p->nthreads = (unsigned)strtoul(v, NULL, 0);
        else if ((v = value_of(argv[i], "--ms=")))
            p->time_ms = (unsigned)strtoul(v, NULL, 0);
        else if ((v = value_of(argv[i], "--pause=")))
            p->pause_ms = (unsigned)strtoul(v, NULL, 0);
        else if ((v = value_of(argv[i], "--data=")))
            p->data = v;
        else if ((v = value_of(argv[i], "--curve=")))
            p->curve = v;
        else if (strcmp(argv[i], "--kind=pointers") == 0)
            p->pointers = true;
        else if (strcmp(argv[i], "--kind=leaf") == 0)
            p->pointers = false;
        else if (strcmp(argv[i], "--zero") == 0)
            p->zero = true;
        else if (strcmp(argv[i], "--block") == 0)
            p->block = true;
        else if (strcmp(argv[i], "--collect") == 0)
            p->collect = true;
        else
            field_die("unknown option");
    }
    if (p->nthreads < 1 || p->nthreads > FIELD_THREADS) field_die("--threads is 1 to 8");
}

int main(int argc, char **argv) {
    struct params params = {.load = "short", .size_bytes = 64, .window_bytes = 1 << 20, .nthreads = 1, .time_ms = 400};
    struct result result = {0};
    const struct load *load = NULL;
    uint64_t live, sum;
    void **beside;
    ad_thread *thread;
    parse(&params, argc, argv);
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
        if (strcmp(loads[i]->name, params.load) == 0) load = loads[i];
    }
    if (!load) field_die("unknown load");
    ad_setup();
    thread = ad_attach();
    beside = beside_make(thread, params.beside_bytes);
    load->run(thread, &params, &result);
    sum = beside_sum(beside, params.beside_bytes);
    field_keep(&sum);
    live = result.live_bytes + params.beside_bytes / BESIDE_BYTES * (BESIDE_BYTES + sizeof(void *));
    printf("name %s\nns %.3f\ncpu_ns %.3f\nobjects %llu\n", AD_NAME, result.ns, result.cpu_ns,
           (unsigned long long)result.nobjects);
    printf("live_kb %llu\nbound_kb %llu\npeak_kb %llu\n", (unsigned long long)(live >> 10),
           (unsigned long long)((live + (live > (8u << 20) ? live : 8u << 20)) >> 10),
           (unsigned long long)(memory_peak_bytes() >> 10));
    printf("collections %llu\n", (unsigned long long)ad_collections());
    ad_report();
    puts("end");
    return 0;
}
