/* sawtooth.c - a load that rises and falls: what the scavenger's hysteresis saves.
 *
 *     trigc-sawtooth [--live=BYTES] [--peak=BYTES] [--period-ms=N] [--teeth=N] [--idle-ms=N]
 *
 * Lives on `live` bytes, and for each tooth builds a list of another `peak` bytes in the first half of the period,
 * drops it, and goes on with short-lived objects in the second half. Prints page faults a second (minor faults of the
 * process, after the first two teeth), the resident memory over the teeth, and what is resident after `idle-ms` without
 * work. What the hysteresis gives is measured against a build with -DTRI_SCAVENGER_WINDOW_S=1. */
#include <trigc.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct node {
    struct node *next;
    char payload[232];
};
TRI_TYPE(node_type, struct node, next);

struct options {
    size_t live_bytes, peak_bytes;
    unsigned period_ms, teeth, idle_ms;
};

struct run {
    tri_heap *heap;
    tri_thread *thread;
    tri_handle live, tooth;
};

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static long faults(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_minflt;
}

static double resident_mb(void) {
    size_t size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%zu %zu", &size, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576.0;
}

static void *sleep_fn(void *p) {
    double s = *(double *)p;
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
    return NULL;
}

static void rest(struct run *r, double seconds) {
    if (seconds > 0) tri_blocking(r->thread, sleep_fn, &seconds);
}

static void push(struct run *r, tri_handle list) {
    struct node *n = tri_new(r->thread, &node_type);
    if (!n) {
        fprintf(stderr, "%s\n", tri_last_error());
        exit(1);
    }
    tri_init(r->thread, n, &n->next, tri_deref(list));
    tri_global_set(r->thread, list, n);
}

/* Allocates `bytes` over `seconds`, kept in `list` if there is one. */
static void allocate(struct run *r, tri_handle list, size_t bytes, double seconds) {
    double start = now_s();
    size_t done = 0;
    for (int step = 1; step <= 50; step++) {
        for (; done < bytes / 50 * (size_t)step; done += sizeof(struct node)) {
            if (list)
                push(r, list);
            else if (!tri_new(r->thread, &node_type))
                exit(1);
        }
        rest(r, start + seconds * step / 50 - now_s());
    }
}

static void saw(struct run *r, const struct options *o) {
    long faults_at = 0;
    double start = 0, sum_mb = 0, most_mb = 0;
    for (unsigned tooth = 0; tooth < o->teeth; tooth++) {
        if (tooth == 2) start = now_s(), faults_at = faults();
        allocate(r, r->tooth, o->peak_bytes, o->period_ms / 2000.0);
        most_mb = resident_mb() > most_mb ? resident_mb() : most_mb;
        sum_mb += resident_mb() / 2;
        tri_global_set(r->thread, r->tooth, NULL);
        allocate(r, NULL, o->peak_bytes, o->period_ms / 2000.0);
        sum_mb += resident_mb() / 2;
    }
    double seconds = now_s() - start;
    printf("faults_per_s %.0f\nseconds_a_tooth %.3f\nresident_mean_mb %.1f\nresident_peak_mb %.1f\n",
           (double)(faults() - faults_at) / seconds, seconds / (o->teeth - 2), sum_mb / o->teeth, most_mb);
}

static bool number(const char *argument, const char *key, size_t *out) {
    size_t n = strlen(key);
    if (strncmp(argument, key, n) != 0) return false;
    *out = strtoull(argument + n, NULL, 10);
    return true;
}

static void parse(int argc, char **argv, struct options *o) {
    for (int i = 1; i < argc; i++) {
        size_t v = 0;
        if (number(argv[i], "--live=", &v))
            o->live_bytes = v;
        else if (number(argv[i], "--peak=", &v))
            o->peak_bytes = v;
        else if (number(argv[i], "--period-ms=", &v))
            o->period_ms = (unsigned)v;
        else if (number(argv[i], "--teeth=", &v) && v > 2)
            o->teeth = (unsigned)v;
        else if (number(argv[i], "--idle-ms=", &v))
            o->idle_ms = (unsigned)v;
        else {
            fprintf(stderr, "%s: not understood\n", argv[i]);
            exit(64);
        }
    }
}

int main(int argc, char **argv) {
    struct options o = {16 << 20, 256 << 20, 1000, 12, 10000};
    struct run r;
    tri_stats stats = {.struct_size = sizeof stats};
    parse(argc, argv, &o);
    if (tri_heap_create(NULL, &r.heap) != TRI_OK || tri_attach(r.heap, 0, &r.thread) != TRI_OK) return 1;
    r.live = tri_global(r.thread, NULL);
    r.tooth = tri_global(r.thread, NULL);
    allocate(&r, r.live, o.live_bytes, 0);
    saw(&r, &o);
    tri_stats_get(r.heap, &stats);
    printf("cycles %" PRIu64 "\nscavenger_cpu_ms %.2f\nreturned_mb %.1f\n", stats.cycles,
           (double)stats.scavenge_ns * 1e-6, (double)stats.returned_bytes / 1048576.0);
    if (o.idle_ms) {
        rest(&r, o.idle_ms / 1000.0);
        tri_stats_get(r.heap, &stats);
        printf("idle_resident_mb %.1f\nlive_mb %.1f\nin_spans_mb %.1f\nmetadata_mb %.1f\n", resident_mb(),
               (double)stats.live_bytes / 1048576.0, (double)stats.committed_bytes / 1048576.0,
               (double)stats.metadata_bytes / 1048576.0);
    }
    tri_detach(r.thread);
    return tri_heap_destroy(r.heap) == TRI_OK ? 0 : 1;
}
