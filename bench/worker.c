/* worker.c - the program that runs one workload on one collector and says what it measured.
 *
 *     bench-trigc store --ops=5000000
 *     bench-boehm lru --live=67108864 --ops=2000000 --incremental
 *     bench-malloc store --ops=5000000                             malloc and free by hand, whichever is preloaded
 *     bench-trigc lru --live=67108864 --ops=2000000 --populate     the heap's memory touched before the workload starts
 *     bench-trigc faults --live=268435456                          fresh memory, no collector
 *     bench-trigc tides --map=heapmap.txt                          what each page is, every 25 ms, into that file
 *     bench-trigc lru --set=mode=stop --events=stop.txt            an option of the heap; its phases and pauses
 *     bench-boehm lru --events=boehm.txt                           the pauses that it tells of
 *
 * One process, one run: the driver starts it, so that no collector inherits another's heap, and one that dies is a row
 * of the table. Results go to standard output as lines of "key value"; the driver's child.c reads them:
 *     name, ops, seconds, checksum, p50_ns, p999_ns, worst_ns, worst_on_core_ns, collections, own_worst_ns, gaps
 *     <counts>, own <count> <worst> <total> <bound> <kind>
 * For trigc also what metadata.h prints.
 * The last line is "end". Progress goes to the page that --progress=<fd> names. */
#include "bench/workload.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/events.h"
#if defined(ADAPTER_TRIGC)
#include "bench/heapmap.h"
#include "bench/metadata.h"
#include "bench/populate.h"

tri_heap *ad_heap;
#elif !defined(ADAPTER_MALLOC)
struct ad_boehm_log ad_log;
#endif

static const struct workload *const workloads[] = {&workload_trees, &workload_store,   &workload_lru,
                                                   &workload_list,  &workload_alloc,   &workload_faults,
                                                   &workload_tides, &workload_gcbench, &workload_splay};
enum { NWORKLOADS = sizeof workloads / sizeof workloads[0] };

static struct progress own_progress; /* without --progress */

struct options {
    const struct workload *workload;
    bool incremental, csv, populate;
    uint64_t populate_bytes; /* 0: chosen */
    const char *map;         /* file that the looks at the heap go to, or NULL */
    uint64_t map_every_ms;
    const char *set;    /* an option of trigc's heap, or NULL */
    const char *events; /* file that the heap's phases and pauses go to, or NULL */
    struct progress *progress;
};

static _Noreturn void usage(const char *why, const char *what) {
    fprintf(
        stderr,
        "%s: %s\nusage: bench-<collector> <workload> [--ops=N] [--live=BYTES] [--size=BYTES] [--depth=N] [--count=N] "
        "[--threads=N] [--incremental] [--populate[=BYTES]] [--map=FILE] [--map-every=MS] [--set=KEY=VALUE] "
        "[--events=FILE] [--csv]\nworkloads:",
        why, what);
    for (int i = 0; i < NWORKLOADS; i++) fprintf(stderr, " %s", workloads[i]->name);
    fprintf(stderr, "\n");
    exit(64);
}

static uint64_t number_of(const char *argument, const char *text) {
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    if (end == text || *end || n == 0) usage("not a positive number", argument);
    return n;
}

static struct progress *progress_map(int fd) {
    void *page = mmap(NULL, sizeof(struct progress), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return page == MAP_FAILED ? &own_progress : page;
}

static const struct workload *workload_find(const char *name) {
    for (int i = 0; i < NWORKLOADS; i++)
        if (strcmp(workloads[i]->name, name) == 0) return workloads[i];
    usage("no such workload", name);
}

/* The value of "--key=value", or NULL when the argument has another key. */
static const char *value_of(const char *argument, const char *key) {
    size_t n = strlen(key);
    return strncmp(argument, key, n) == 0 && argument[n] == '=' ? argument + n + 1 : NULL;
}

static void parse(int argc, char **argv, struct options *o, struct work *work) {
    const char *v;
    if (argc < 2) usage("missing", "a workload");
    o->workload = workload_find(argv[1]);
    for (int i = 2; i < argc; i++) {
        if ((v = value_of(argv[i], "--ops")))
            work->ops = number_of(argv[i], v);
        else if ((v = value_of(argv[i], "--live")))
            work->live_bytes = number_of(argv[i], v);
        else if ((v = value_of(argv[i], "--size")))
            work->size_bytes = number_of(argv[i], v);
        else if ((v = value_of(argv[i], "--count")))
            work->count = number_of(argv[i], v);
        else if ((v = value_of(argv[i], "--depth")))
            work->depth = (unsigned)number_of(argv[i], v);
        else if ((v = value_of(argv[i], "--threads")))
            work->nthreads = (unsigned)number_of(argv[i], v);
        else if ((v = value_of(argv[i], "--map")))
            o->map = v;
        else if ((v = value_of(argv[i], "--map-every")))
            o->map_every_ms = number_of(argv[i], v);
        else if ((v = value_of(argv[i], "--set")))
            o->set = v;
        else if ((v = value_of(argv[i], "--events")))
            o->events = v;
        else if ((v = value_of(argv[i], "--progress")))
            o->progress = progress_map((int)number_of(argv[i], v));
        else if (strcmp(argv[i], "--incremental") == 0)
            o->incremental = true;
        else if (strcmp(argv[i], "--csv") == 0)
            o->csv = true;
        else if (strcmp(argv[i], "--populate") == 0)
            o->populate = true;
        else if ((v = value_of(argv[i], "--populate"))) {
            o->populate = true;
            o->populate_bytes = number_of(argv[i], v);
        } else
            usage("unknown option", argv[i]);
    }
    if (AD_FREES && o->workload->needs_heap && !o->workload->frees) usage("frees nothing by hand", o->workload->name);
    if (work->nthreads > PROBE_THREADS) usage("too many threads", "--threads");
    if (work->depth > 30) usage("too deep", "--depth");
    if ((o->populate || o->map || o->set || o->events) && !o->workload->needs_heap)
        usage("there is no heap", "--populate, --map, --set or --events");
    if (work->size_bytes != 16 && work->size_bytes != 32) usage("sizes are 16 and 32", "--size");
}

/* When no gap was long enough to look, the longest one is it. */
static uint64_t worst_on_core(const struct work *work) {
    uint64_t worst_ns = 0;
    for (unsigned i = 0; i < PROBE_THREADS; i++)
        if (work->probes[i].worst_on_core_ns > worst_ns) worst_ns = work->probes[i].worst_on_core_ns;
    return worst_ns ? worst_ns : work->probes[0].gaps.max_ns;
}

/* Touches the heap's memory: what is asked for, else the live bytes with what the heap grows by beyond them. */
static void populate(const struct options *o, const struct work *work) {
#if defined(ADAPTER_TRIGC)
    (void)tri_heap_set(ad_heap, "idle_trim_ms=0");
    uint64_t size_bytes = o->populate_bytes ? o->populate_bytes : work->live_bytes * 7 / 4 + (64u << 20);
    if (bench_populate(ad_heap, size_bytes) < size_bytes) ad_no_memory(size_bytes);
#else
    (void)o, (void)work;
    usage("only trigc's memory can be touched beforehand", "--populate");
#endif
}

/* The heap's idle period is shorter than its default for this, so that a rest of half a second shows what one does. */
static void map_start(const struct options *o) {
#if defined(ADAPTER_TRIGC)
    (void)tri_heap_set(ad_heap, "idle_trim_ms=250");
    if (!heapmap_start(ad_heap, o->map, (unsigned)o->map_every_ms)) exit(1);
#else
    (void)o;
    usage("only trigc's heap can be looked at", "--map");
#endif
}

static void map_stop(void) {
#if defined(ADAPTER_TRIGC)
    heapmap_stop();
#endif
}

static void set_option(const struct options *o) {
#if defined(ADAPTER_TRIGC)
    if (!o->set || tri_heap_set(ad_heap, o->set) == TRI_OK) return;
    fprintf(stderr, "%s\n", tri_last_error());
    exit(64);
#else
    if (o->set) usage("only trigc's heap has options", "--set");
#endif
}

/* Memory that went back after it was populated was faulted in again. */
static void warn_returned(void) {
#if defined(ADAPTER_TRIGC)
    tri_stats stats = {.struct_size = sizeof stats};
    if (tri_stats_get(ad_heap, &stats) == TRI_OK && stats.returned_bytes > 0)
        fprintf(stderr, "%" PRIu64 " bytes went back to the system although they were populated\n",
                stats.returned_bytes);
#endif
}

static void print_results(const struct options *o, const struct work *work, const struct hdr *gaps, double seconds,
                          uint64_t checksum) {
    struct ad_report report;
    memset(&report, 0, sizeof report);
    if (o->workload->needs_heap) ad_report(&report);
    printf("name %s\nops %" PRIu64 "\nseconds %.6f\nchecksum %016" PRIx64 "\n",
           o->workload->needs_heap ? AD_NAME : "none", o->workload->total(work), seconds, checksum);
    printf("p50_ns %" PRIu64 "\np999_ns %" PRIu64 "\nworst_ns %" PRIu64 "\n", hdr_percentile(gaps, 50),
           hdr_percentile(gaps, 99.9), gaps->max_ns);
    printf("worst_on_core_ns %" PRIu64 "\nworst_on_core_at %" PRIu64 "\n", worst_on_core(work),
           work->probes[0].worst_on_core_at);
    printf("collections %" PRIu64 "\nown_worst_ns %" PRIu64 "\n", report.collections, report.own_worst_ns);
    for (unsigned i = 0; i < report.nkinds; i++) {
        const struct ad_own *own = &report.kinds[i];
        printf("own %" PRIu64 " %" PRIu64 " %.0f %d %s\n", own->count, own->worst_ns, own->total_ns, own->bound,
               own->name);
    }
#if defined(ADAPTER_TRIGC)
    if (o->workload->needs_heap) bench_metadata_print(ad_heap);
#endif
    printf("gaps ");
    hdr_print_counts(gaps, stdout);
    printf("\nend\n");
}

int main(int argc, char **argv) {
    struct work work = {.ops = 1000000, .live_bytes = 64u << 20, .size_bytes = 16, .depth = 16, .nthreads = 1};
    struct options o = {.progress = &own_progress, .map_every_ms = 25};
    parse(argc, argv, &o, &work);
    bench_clock_init();
    for (unsigned i = 0; i < PROBE_THREADS; i++) {
        work.probes[i].done = &o.progress->thread[i].done;
        if (!hdr_init(&work.probes[i].gaps)) ad_no_memory(sizeof(struct hdr));
    }
    if (o.events && !events_start()) ad_no_memory(0);
    ad_thread *thread = o.workload->needs_heap ? ad_start(o.incremental) : NULL;
    set_option(&o);
    if (o.populate) populate(&o, &work);
    if (o.map) map_start(&o);
    uint64_t start_ns = clock_posix_ns();
    uint64_t checksum = o.workload->run(thread, &work);
    double seconds = (double)(clock_posix_ns() - start_ns) / 1e9;
    if (o.map) map_stop();
    if (o.events && !events_write(o.events)) exit(1);
    for (unsigned i = 1; i < PROBE_THREADS; i++) hdr_merge(&work.probes[0].gaps, &work.probes[i].gaps);
    if (o.csv)
        hdr_print_csv(&work.probes[0].gaps, stdout);
    else
        print_results(&o, &work, &work.probes[0].gaps, seconds, checksum);
    if (o.populate) warn_returned();
    if (thread) ad_finish(thread);
    return 0;
}
