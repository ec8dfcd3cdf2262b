/* mark.c - how fast graphs of many shapes are marked, beside Boehm's collector with as many markers.
 *
 * Each graph (mark_graphs.c) is built once on each side, without a collection; then collections are asked for in which
 * nothing dies, by turns on the two sides, so that both see the same machine. A figure is processor time (mark_trigc.c,
 * mark_boehm.c say of what); the medians are printed, and with several markers the elapsed time beside it.
 *
 *     bench-mark                             every graph, 8 million objects, 7 collections each, one marker
 *     bench-mark --graph=tree                those with "tree" in their name
 *     bench-mark --alone                     without Boehm
 *     bench-mark --scale=4                   trigc alone, with 1 to 4 markers by turns: elapsed and processor time
 *     bench-mark --workers=2 --nodes=N --rounds=N --huge --set=key=value */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "bench/mark.h"

enum { MOST_ROUNDS = 100, MOST_MARKERS = 64 };

struct run {
    size_t nnodes, nrounds, workers, scale;
    bool alone;
    const char *pattern;
};

_Noreturn void mark_fail(const char *what) {
    fprintf(stderr, "bench-mark: %s\n", what);
    exit(1);
}

static double clock_ms(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

double mark_cpu_ms(void) {
    return clock_ms(CLOCK_PROCESS_CPUTIME_ID);
}

double mark_wall_ms(void) {
    return clock_ms(CLOCK_MONOTONIC);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n) {
    qsort(v, n, sizeof *v, by_value);
    return v[n / 2];
}

struct series {
    double cpu_ms[MOST_ROUNDS], wall_ms[MOST_ROUNDS];
};

static void print_side(const char *name, struct series *s, size_t n, size_t nobjects) {
    double cpu = median(s->cpu_ms, n);
    printf("  %s %7.1f ms %6.1f ns (%.1f to %.1f), elapsed %.1f ms", name, cpu, cpu * 1e6 / (double)nobjects,
           s->cpu_ms[0], s->cpu_ms[n - 1], median(s->wall_ms, n));
}

static void measure(const struct run *run, const struct graph *graph) {
    static struct series series[2];
    const struct side *sides[2] = {&mark_trigc, &mark_boehm};
    size_t nsides = run->alone || graph->boxed ? 1 : 2, nobjects = 0;
    for (size_t i = 0; i < nsides; i++) {
        sides[i]->open();
        nobjects = graph->build(sides[i], run->nnodes / graph->share);
        sides[i]->collect(); /* what the graph's building left */
    }
    for (size_t r = 0; r < run->nrounds; r++)
        for (size_t i = 0; i < nsides; i++) {
            struct cost cost = sides[i]->collect();
            series[i].cpu_ms[r] = cost.cpu_ms;
            series[i].wall_ms[r] = cost.wall_ms;
        }
    printf("%-15s %9zu objects, %5zu MB:", graph->name, nobjects, sides[0]->live_bytes() >> 20);
    for (size_t i = 0; i < nsides; i++) print_side(sides[i]->name, &series[i], run->nrounds, nobjects);
    if (nsides == 2)
        printf("  speed %.2f", median(series[1].cpu_ms, run->nrounds) / median(series[0].cpu_ms, run->nrounds));
    if (nsides == 2 && run->workers > 1)
        printf(", elapsed %.2f", median(series[1].wall_ms, run->nrounds) / median(series[0].wall_ms, run->nrounds));
    putchar('\n');
    fflush(stdout);
    for (size_t i = 0; i < nsides; i++) sides[i]->close();
}

/* The same collection with one marker, two, and so on, by turns. */
static void measure_scaling(const struct run *run, const struct graph *graph) {
    static struct series series[MOST_MARKERS];
    mark_trigc.open();
    size_t nobjects = graph->build(&mark_trigc, run->nnodes / graph->share);
    mark_trigc.collect();
    for (size_t r = 0; r < run->nrounds; r++)
        for (size_t i = 0; i < run->scale; i++) {
            mark_trigc_workers(i + 1);
            struct cost cost = mark_trigc.collect();
            series[i].cpu_ms[r] = cost.cpu_ms;
            series[i].wall_ms[r] = cost.wall_ms;
        }
    printf("%-15s %9zu objects:", graph->name, nobjects);
    double alone_ms = median(series[0].wall_ms, run->nrounds);
    for (size_t i = 0; i < run->scale; i++) {
        double wall_ms = median(series[i].wall_ms, run->nrounds);
        printf("  %zu: elapsed %.1f ms (%.2f x), processors %.1f ms", i + 1, wall_ms, alone_ms / wall_ms,
               median(series[i].cpu_ms, run->nrounds));
    }
    putchar('\n');
    fflush(stdout);
    mark_trigc.close();
}

static int usage(void) {
    fprintf(stderr,
            "usage: bench-mark [--graph=NAME] [--alone] [--scale=N] [--workers=N] [--nodes=N] [--rounds=N] [--huge] "
            "[--set=KEY=VALUE]\n");
    return 2;
}

static bool parse(struct run *run, char *arg) {
    if (strcmp(arg, "--huge") == 0)
        mark_trigc_option("metadata_huge=on");
    else if (strcmp(arg, "--alone") == 0)
        run->alone = true;
    else if (strncmp(arg, "--graph=", 8) == 0)
        run->pattern = arg + 8;
    else if (strncmp(arg, "--set=", 6) == 0)
        mark_trigc_option(arg + 6);
    else if (strncmp(arg, "--workers=", 10) == 0)
        run->workers = strtoull(arg + 10, NULL, 10);
    else if (strncmp(arg, "--scale=", 8) == 0)
        run->scale = strtoull(arg + 8, NULL, 10);
    else if (strncmp(arg, "--nodes=", 8) == 0)
        run->nnodes = strtoull(arg + 8, NULL, 10);
    else if (strncmp(arg, "--rounds=", 9) == 0)
        run->nrounds = strtoull(arg + 9, NULL, 10);
    else
        return false;
    return true;
}

int main(int argc, char **argv) {
    struct run run = {.nnodes = 8000000, .nrounds = 7, .workers = 1, .pattern = ""};
    for (int i = 1; i < argc; i++)
        if (!parse(&run, argv[i])) return usage();
    if (run.nnodes < 1024 || run.nrounds == 0 || run.nrounds > MOST_ROUNDS || run.workers == 0) return usage();
    if (run.scale > MOST_MARKERS) return usage();
    mark_boehm_markers((unsigned)run.workers);
    char workers[32];
    snprintf(workers, sizeof workers, "workers=%zu", run.workers);
    if (run.workers > 1) mark_trigc_option(workers);
    for (size_t i = 0; i < mark_ngraphs; i++)
        if (strstr(mark_graphs[i].name, run.pattern)) (run.scale ? measure_scaling : measure)(&run, &mark_graphs[i]);
    return 0;
}
