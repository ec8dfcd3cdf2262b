/* demo.c - the driver: runs each row in its own process, shows how far it is, and at the end the table and the page.
 *
 *     trigc-demo                 about a minute: what `zigw build demo` runs
 *     trigc-demo --quick         smaller amounts, two peers: what CI runs
 *     trigc-demo --only=store,lru64 --csv
 *
 * No figure is judged by an exit code: figures are figures. Errors are its own failures (1: no page written), and wrong
 * results (2): two collectors that computed different ones from the same program, and a Lox program that did not print
 * what it should. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/child.h"
#include "bench/clock.h"
#include "bench/page.h"
#include "bench/plan.h"
#include "bench/probe.h"
#include "bench/report.h"

struct options {
    struct plan_options plan;
    const char *out, *assets;
    char self[PATH_MAX], bin[PATH_MAX], folder[PATH_MAX], programs[PATH_MAX], out_folder[PATH_MAX];
    double timeout_s; /* 0: chosen by the row */
    bool csv;
};

/* Where the whole run is, for the line that is redrawn. */
struct show {
    struct row *rows;
    unsigned nrows, current;
    uint64_t start_ns;
    double expected_done_s, taken_done_s; /* of the rows that have ended */
    bool terminal;
};

static struct row rows[PLAN_ROWS];

static _Noreturn void usage(int code) {
    fprintf(
        code ? stderr : stdout,
        "usage: trigc-demo [--quick] [--full] [--only=SCENE,...] [--csv] [--timeout=SECONDS] [--out=DIR] [--bin=DIR] "
        "[--assets=DIR]\n"
        "  --quick   smaller amounts, trigc and Boehm's default mode only\n"
        "  --full    the LRU cache at 2 GB live too\n"
        "  --csv     each row's percentile curve into the output folder\n"
        "  --out     where the page goes (../demo from this program's folder)\n"
        "  --bin     where bench-trigc, bench-boehm and lox are (beside this program)\n"
        "  --assets  the sources' bench folder, for the page's template (../../bench from there)\n"
        "scenes:\n");
    plan_list(code ? stderr : stdout);
    exit(code);
}

static const char *value_of(const char *argument, const char *key) {
    size_t n = strlen(key);
    return strncmp(argument, key, n) == 0 && argument[n] == '=' ? argument + n + 1 : NULL;
}

/* A thread that reads nothing but the clock: the gaps that the machine makes by itself. */
static int measure_noise(const char *milliseconds) {
    struct probe probe = {.done = &probe.ops};
    uint64_t limit_ns = strtoull(milliseconds, NULL, 10) * 1000000u;
    bench_clock_init();
    if (!hdr_init(&probe.gaps)) return 1;
    probe_start(&probe);
    uint64_t start = probe.last_ticks;
    while (clock_ns(probe.last_ticks - start) < limit_ns) probe_op(&probe, 1);
    printf("name noise\nops %" PRIu64 "\nseconds %.6f\nchecksum 0\nworst_ns %" PRIu64 "\nworst_on_core_ns %" PRIu64
           "\ngaps ",
           probe.ops, (double)clock_ns(probe.last_ticks - start) / 1e9, probe.gaps.max_ns,
           probe.worst_on_core_ns ? probe.worst_on_core_ns : probe.gaps.max_ns);
    hdr_print_counts(&probe.gaps, stdout);
    printf("\nend\n");
    return 0;
}

/* The folder that a path lies in. */
static void parent_of(const char *path, char parent[PATH_MAX]) {
    snprintf(parent, PATH_MAX, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash)
        *slash = '\0';
    else
        snprintf(parent, PATH_MAX, ".");
}

static void path_add(char path[PATH_MAX], const char *tail) {
    size_t n = strlen(path);
    snprintf(path + n, PATH_MAX - n, "%s", tail);
}

/* The path as seen from here, when it lies below. */
static const char *path_from_here(const char *path) {
    static char here[PATH_MAX];
    size_t n = getcwd(here, sizeof here) ? strlen(here) : 0;
    return n > 1 && strncmp(path, here, n) == 0 && path[n] == '/' ? path + n + 1 : path;
}

static void defaults(struct options *o) {
    ssize_t n = readlink("/proc/self/exe", o->self, sizeof o->self - 1);
    if (n <= 0) snprintf(o->self, sizeof o->self, "./trigc-demo");
    parent_of(o->self, o->bin);
    parent_of(o->bin, o->out_folder); /* zig-out */
    parent_of(o->out_folder, o->folder);
    path_add(o->out_folder, "/demo");
    path_add(o->folder, "/bench");
    if (access(o->folder, R_OK) != 0) snprintf(o->folder, sizeof o->folder, "bench");
    o->plan.bin = o->bin;
    o->plan.self = o->self;
    o->assets = o->folder;
    o->out = o->out_folder;
}

static void parse(int argc, char **argv, struct options *o) {
    const char *v;
    defaults(o);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            o->plan.quick = true;
        else if (strcmp(argv[i], "--full") == 0)
            o->plan.full = true;
        else if (strcmp(argv[i], "--csv") == 0)
            o->csv = true;
        else if (strcmp(argv[i], "--help") == 0)
            usage(0);
        else if ((v = value_of(argv[i], "--only")))
            o->plan.only = v;
        else if ((v = value_of(argv[i], "--timeout")))
            o->timeout_s = strtod(v, NULL);
        else if ((v = value_of(argv[i], "--out")))
            o->out = v;
        else if ((v = value_of(argv[i], "--bin")))
            o->plan.bin = v;
        else if ((v = value_of(argv[i], "--assets")))
            o->assets = v;
        else
            usage(64);
    }
    parent_of(o->assets, o->programs);
    path_add(o->programs, "/examples/lox/programs");
    o->plan.programs = o->programs;
    o->plan.out = o->out;
}

/* Seconds still to go: the rest of this row, by its progress where it has one, and the rows to come, by what the rows
 * so far took beside what was expected of them. */
static double seconds_to_go(const struct show *s, double part, double elapsed_s) {
    double pace = s->expected_done_s > 1 ? s->taken_done_s / s->expected_done_s : 1;
    const struct row *row = &s->rows[s->current];
    double here = part > 0.05 ? elapsed_s / part * (1 - part) : row->expected_s * pace - elapsed_s;
    double rest = here > 0 ? here : 0;
    for (unsigned i = s->current + 1; i < s->nrows; i++) rest += s->rows[i].expected_s * pace;
    return rest;
}

static void show_progress(void *user, const struct row *row, uint64_t done, double elapsed_s) {
    struct show *s = user;
    if (!s->terminal) return;
    double part = row->total_ops ? (double)done / (double)row->total_ops : 0;
    double total_s = (double)(clock_posix_ns() - s->start_ns) / 1e9;
    char percent[16] = "";
    if (part > 0) snprintf(percent, sizeof percent, "%3.0f %%", part < 1 ? part * 100 : 100.0);
    printf("\r\033[K[%2u/%u] %s, %s  %s   %.0f s so far, about %.0f s to go", s->current + 1, s->nrows,
           row->scene->title, row->peer, percent, total_s, seconds_to_go(s, part, elapsed_s));
    fflush(stdout);
}

/* A scene's operations are the same for all of its peers: the first row that ends tells the others. */
static void learn_total(struct show *s, const struct row *ended) {
    for (unsigned i = s->current + 1; i < s->nrows; i++)
        if (s->rows[i].scene == ended->scene) s->rows[i].total_ops = ended->ops;
}

static void run_rows(struct show *s, const struct options *o) {
    s->start_ns = clock_posix_ns();
    for (s->current = 0; s->current < s->nrows; s->current++) {
        struct row *row = &s->rows[s->current];
        double timeout_s = o->timeout_s > 0 ? o->timeout_s : 15 + row->expected_s * 8;
        child_run(row, timeout_s, show_progress, s);
        s->expected_done_s += row->expected_s;
        s->taken_done_s += row->state == ROW_MISSING ? row->expected_s : row->wall_s;
        learn_total(s, row);
        if (s->terminal)
            printf("\r\033[K");
        else
            printf("[%2u/%u] %3.0f s to go ", s->current + 1, s->nrows, seconds_to_go(s, 1, 0));
        report_row_end(stdout, row);
        fflush(stdout);
    }
}

static bool folder_make(const char *path) {
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", path);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0') continue;
        char c = *p;
        *p = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) {
            fprintf(stderr, "%s cannot be made: %s\n", part, strerror(errno));
            return false;
        }
        *p = c;
        if (c == '\0') return true;
    }
}

static void write_curves(const struct options *o, const struct show *s) {
    for (unsigned i = 0; i < s->nrows; i++) {
        char path[PATH_MAX];
        const struct row *row = &s->rows[i];
        if (row->state != ROW_OK || row->foreign || row->map[0]) continue;
        snprintf(path, sizeof path, "%s/%s-%s.csv", o->out, row->scene->id, row->peer);
        for (char *p = path + strlen(o->out); *p; p++)
            if (*p == ' ') *p = '-';
        FILE *f = fopen(path, "w");
        if (!f) continue;
        hdr_print_csv(&row->gaps, f);
        fclose(f);
    }
}

/* Peers of one scene that ended well must have seen the same. The number that did not. */
static unsigned count_disagreements(const struct show *s) {
    unsigned n = 0;
    for (unsigned i = 1; i < s->nrows; i++) {
        const struct row *a = &s->rows[i - 1], *b = &s->rows[i];
        if (a->scene != b->scene || a->scene->checked || a->state != ROW_OK || b->state != ROW_OK ||
            a->checksum == b->checksum)
            continue;
        fprintf(stderr, "%s: %s and %s computed different results\n", a->scene->title, a->peer, b->peer);
        n++;
    }
    return n;
}

/* Programs that did not print what they should: each of them is a row of the table, with the reason. */
static unsigned count_wrong_programs(const struct show *s) {
    unsigned n = 0;
    for (unsigned i = 0; i < s->nrows; i++) n += s->rows[i].expected[0] != '\0' && s->rows[i].state != ROW_OK;
    if (n > 0) fprintf(stderr, "%u runs of Lox programs did not print what they should\n", n);
    return n;
}

int main(int argc, char **argv) {
    static struct options o;
    static char page[PATH_MAX + 16], json[PATH_MAX + 16];
    const char *v = argc == 2 ? value_of(argv[1], "--measure-noise") : NULL;
    if (v) return measure_noise(v);
    parse(argc, argv, &o);
    struct show s = {.rows = rows, .nrows = plan_make(rows, &o.plan), .terminal = isatty(STDOUT_FILENO) != 0};
    if (s.nrows == 0) {
        fprintf(stderr, "no scene is called that\n");
        usage(64);
    }
    double planned_s = 0;
    for (unsigned i = 0; i < s.nrows; i++) planned_s += rows[i].expected_s;
    printf("%u runs, each in a process of its own; about %.0f s on two cores\n", s.nrows, planned_s);
    if (!folder_make(o.out)) return 1;
    run_rows(&s, &o);
    printf("\n");
    report_histograms(stdout, rows, s.nrows);
    report_table(stdout, rows, s.nrows);
    unsigned wrong = count_disagreements(&s) + count_wrong_programs(&s);
    snprintf(page, sizeof page, "%s/index.html", o.out);
    snprintf(json, sizeof json, "%s/results.json", o.out);
    if (!page_write(page, json, o.assets, rows, s.nrows)) return 1;
    if (o.csv) write_curves(&o, &s);
    printf("The curves: %s\n", path_from_here(page));
    return wrong ? 2 : 0;
}
