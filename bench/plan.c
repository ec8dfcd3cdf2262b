/* plan.c - the scenes, their sizes and their peers.
 *
 * Sizes are chosen for about a minute in all on two cores; quick ones for CI. The interval of each scene's corrected
 * columns is a round number a little above what one operation takes when nothing is in its way, the same for all peers.
 * Rows of one scene run one after another, so that what the machine does meanwhile meets all of them.
 *
 * Every Lox program in the tree runs once, for what it prints; two kinds of them are timed too, on each collector. */
#include "bench/plan.h"

#include <glob.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct scene noise = {"noise", "the machine: clock reads only", "reads", 1, 1000, false};
static const struct scene faults = {"faults", "fresh memory, no collector", "pages", 1, 1000, false};
static const struct scene faults2g = {"faults2g", "fresh memory, 2 GB, no collector", "pages", 1, 1000, false};
static const struct scene trees1 = {"trees", "binary trees, 1 thread", "nodes", 64, 2000, false};
static const struct scene trees2 = {"trees2", "binary trees, 2 threads", "nodes", 64, 2000, false};
static const struct scene store = {"store", "message store, 200,000 x 1 KB", "pushes", 1, 1000, false};
static const struct scene lru64 = {"lru64", "LRU cache, 64 MB live", "gets and puts", 1, 2000, false};
static const struct scene lru512 = {"lru512", "LRU cache, 512 MB live", "gets and puts", 1, 2000, false};
static const struct scene lru2g = {"lru2g", "LRU cache, 2 GB live", "gets and puts", 1, 2000, false};
static const struct scene list = {"list", "list of 2,000,001 nodes", "nodes", 64, 2000, false};
static const struct scene alloc16 = {"alloc16", "allocation, 16 bytes", "objects", 64, 1000, false};
static const struct scene alloc32 = {"alloc32", "allocation, 32 bytes", "objects", 64, 1000, false};
static const struct scene alloc16x2 = {"alloc16x2", "allocation, 16 B, 2 threads", "objects", 64, 1000, false};
static const struct scene *const scenes[] = {&noise,  &faults, &faults2g, &trees1,  &trees2,  &store,    &lru64,
                                             &lru512, &lru2g,  &list,     &alloc16, &alloc32, &alloc16x2};
static const struct scene history = {"history", "LRU cache, 64 MB live, by mode", "gets and puts", 1, 2000, false};
static const struct scene heapmap = {"heapmap", "the heap over time", "stores", 1, 0, false};
static const struct scene lox_all = {"lox", "Lox: all programs, checked", "programs", 1, 0, true};
enum { NSCENES = sizeof scenes / sizeof scenes[0], LOX_SCENES = 8, LOX_PROGRAMS = 40 };

/* Lox's scenes are made from the programs that are there. */
static struct scene lox_scenes[LOX_SCENES];
static char lox_titles[LOX_SCENES][64], lox_ids[LOX_SCENES][64], lox_names[LOX_PROGRAMS][48];

struct plan {
    struct row *rows;
    unsigned nrows;
    const struct plan_options *options;
};

/* Modes of a peer, as bits: which rows a scene has. */
enum { TRIGC = 1, BOEHM = 2, TYPED = 4, INCREMENTAL = 8 };

void plan_list(FILE *out) {
    for (int i = 0; i < NSCENES; i++) fprintf(out, "  %-10s %s\n", scenes[i]->id, scenes[i]->title);
    fprintf(out, "  %-10s %s\n", history.id, "the same program under each of the heap's modes");
    fprintf(out, "  %-10s %s\n", heapmap.id, "what each page is while a load rises, rests and rises again: a picture");
    fprintf(out, "  %-10s %s\n", "lox",
            "every Lox program, its output checked; some timed on trigc, on Boehm and without collection");
}

/* Is `id` (or its part before ':') in the comma-separated list? */
static bool wanted(const struct plan *p, const char *id) {
    const char *only = p->options->only;
    size_t n = strcspn(id, ":");
    while (only && *only) {
        size_t item = strcspn(only, ",");
        if (item == n && strncmp(only, id, n) == 0) return true;
        only += item + (only[item] == ',');
    }
    return p->options->only == NULL;
}

static struct row *row_add(struct plan *p, const struct scene *scene, const char *peer, const char *program,
                           double expected_s) {
    struct row *row = &p->rows[p->nrows];
    if (p->nrows == PLAN_ROWS) return NULL;
    memset(row, 0, sizeof *row);
    row->scene = scene;
    row->peer = peer;
    row->expected_s = expected_s;
    snprintf(row->program, sizeof row->program, "%s/%s", p->options->bin, program);
    if (!hdr_init(&row->gaps) || !hdr_init(&row->corrected)) return NULL;
    p->nrows++;
    return row;
}

__attribute__((format(printf, 2, 3))) static void row_arg(struct row *row, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(row->args[row->nargs], sizeof row->args[0], format, args);
    va_end(args);
    if (row->nargs + 1 < ROW_ARGS) row->nargs++;
}

/* Splits "--ops=5 --threads=2" into arguments. */
static void row_args(struct row *row, const char *text) {
    while (*text) {
        size_t n = strcspn(text, " ");
        row_arg(row, "%.*s", (int)n, text);
        text += n + (text[n] == ' ');
    }
}

/* Its pauses go to a file named by scene and peer, for the curves of utilisation. */
static void row_events(struct plan *p, struct row *row) {
    int n = snprintf(row->events, sizeof row->events, "%s/", p->options->out);
    if (n < 0 || (size_t)n >= sizeof row->events) return;
    snprintf(row->events + n, sizeof row->events - (size_t)n, "%s-%s.events", row->scene->id, row->peer);
    for (char *c = row->events + n; *c; c++)
        if (*c == ' ') *c = '-';
    row_arg(row, "--events=%s", row->events);
}

/* One scene: the same workload and arguments for each of its peers. */
static void add_scene(struct plan *p, const struct scene *scene, unsigned peers, double expected_s,
                      const char *workload_and_args) {
    static const struct {
        unsigned mode;
        const char *peer, *program, *extra;
        double slower;
    } modes[] = {{TRIGC, "trigc", "bench-trigc", "", 0.7},
                 {BOEHM, "boehm", "bench-boehm", "", 1.0},
                 {TYPED, "boehm typed", "bench-boehm-typed", "", 1.2},
                 {INCREMENTAL, "boehm incremental", "bench-boehm", "--incremental", 1.8}};
    if (!wanted(p, scene->id)) return;
    if (p->options->quick) peers &= TRIGC | BOEHM;
    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (!(peers & modes[i].mode)) continue;
        struct row *row = row_add(p, scene, modes[i].peer, modes[i].program, expected_s * modes[i].slower);
        if (!row) return;
        row_args(row, workload_and_args);
        row_args(row, modes[i].extra);
        row_events(p, row);
        row_arg(row, "--progress=3");
    }
}

static void add_noise(struct plan *p) {
    if (!wanted(p, "noise")) return;
    struct row *row = row_add(p, &noise, "noise", "", p->options->quick ? 0.5 : 2);
    if (!row) return;
    snprintf(row->program, sizeof row->program, "%s", p->options->self);
    row_arg(row, "--measure-noise=%d", p->options->quick ? 500 : 2000);
}

/* What fresh memory costs without any collector. */
static void add_faults(struct plan *p, const struct scene *scene, double expected_s, const char *args) {
    if (!wanted(p, scene->id)) return;
    struct row *row = row_add(p, scene, "no collector", "bench-trigc", expected_s);
    if (!row) return;
    row_args(row, args);
    row_arg(row, "--progress=3");
}

/* The name of a program, without folder and ending. */
static const char *program_name(const char *path, int *length) {
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    *length = (int)strcspn(name, ".");
    return name;
}

/* What has to be printed lies beside the program, in NAME.expected. */
static struct row *row_add_lox(struct plan *p, const struct scene *scene, const char *peer, const char *collector,
                               const char *path, double expected_s) {
    struct row *row = row_add(p, scene, peer, "lox", expected_s);
    if (!row) return NULL;
    row->foreign = true;
    row_arg(row, "--gc=%s", collector);
    row_arg(row, "%s", path);
    snprintf(row->expected, sizeof row->expected, "%.*s.expected", (int)(strlen(path) - strlen(".lox")), path);
    return row;
}

static void add_lox_timed(struct plan *p, const char *path, unsigned index) {
    static const char *const peers[] = {"trigc", "boehm", "none"};
    int n;
    const char *name = program_name(path, &n);
    if (index >= LOX_SCENES) return;
    snprintf(lox_titles[index], sizeof lox_titles[0], "Lox: %.*s", n, name);
    snprintf(lox_ids[index], sizeof lox_ids[0], "lox:%.*s", n, name);
    lox_scenes[index] = (struct scene){lox_ids[index], lox_titles[index], "programs", 1, 0, false};
    for (int i = 0; i < 3; i++) row_add_lox(p, &lox_scenes[index], peers[i], peers[i], path, 0.7);
}

static void add_lox_checked(struct plan *p, const char *path, unsigned index) {
    int n;
    const char *name = program_name(path, &n);
    if (index >= LOX_PROGRAMS) return;
    snprintf(lox_names[index], sizeof lox_names[0], "%.*s", n, name);
    row_add_lox(p, &lox_all, lox_names[index], "trigc", path, 0.15);
}

static void add_each(struct plan *p, const char *pattern, void (*add)(struct plan *, const char *, unsigned),
                     unsigned *index) {
    char path[512];
    glob_t found;
    snprintf(path, sizeof path, "%s/%s", p->options->programs, pattern);
    if (glob(path, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++) add(p, found.gl_pathv[i], (*index)++);
    globfree(&found);
}

/* All of them for their output, some for their time. */
static void add_lox_programs(struct plan *p) {
    unsigned nchecked = 0, ntimed = 0;
    if (!wanted(p, "lox")) return;
    add_each(p, "*.lox", add_lox_checked, &nchecked);
    add_each(p, "binary_trees.lox", add_lox_timed, &ntimed);
    add_each(p, "closures*.lox", add_lox_timed, &ntimed);
}

/* One program, each way to collect (docs/design.md, "Modes"). */
static void add_history(struct plan *p) {
    static const char *const modes[] = {"stop", "stop-mark", "insertion", "concurrent", "incremental"};
    if (!wanted(p, history.id)) return;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        struct row *row = row_add(p, &history, modes[i], "bench-trigc", p->options->quick ? 0.7 : 1.5);
        if (!row) return;
        row_args(row, p->options->quick ? "lru --ops=800000" : "lru --ops=2000000");
        row_arg(row, "--set=mode=%s", modes[i]);
        row_events(p, row);
        row_arg(row, "--progress=3");
    }
}

/* Looked at, not measured. */
static void add_heapmap(struct plan *p) {
    bool quick = p->options->quick;
    if (!wanted(p, heapmap.id)) return;
    struct row *row = row_add(p, &heapmap, "trigc", "bench-trigc", quick ? 2 : 3);
    if (!row) return;
    row_args(row, quick ? "tides --live=8388608 --ops=50000" : "tides --live=25165824 --ops=150000");
    snprintf(row->map, sizeof row->map, "%s/heapmap.txt", p->options->out);
    row_arg(row, "--map=%s", row->map);
    row_arg(row, "--progress=3");
}

unsigned plan_make(struct row rows[PLAN_ROWS], const struct plan_options *o) {
    struct plan p = {rows, 0, o};
    const unsigned both = TRIGC | BOEHM, all = both | INCREMENTAL | TYPED;
    bool quick = o->quick;
    add_noise(&p);
    add_faults(&p, &faults, 0.2, "faults --live=268435456");
    add_lox_programs(&p);
    add_scene(&p, &trees1, all, quick ? 0.5 : 2, quick ? "trees --depth=16" : "trees --depth=18");
    add_scene(&p, &trees2, both, quick ? 0.5 : 2,
              quick ? "trees --depth=16 --threads=2" : "trees --depth=18 --threads=2");
    add_scene(&p, &store, both | INCREMENTAL, quick ? 1 : 4, quick ? "store --ops=1000000" : "store --ops=5000000");
    add_scene(&p, &lru64, all, quick ? 0.7 : 1.5, quick ? "lru --ops=800000" : "lru --ops=2000000");
    if (!quick) add_scene(&p, &lru512, both | INCREMENTAL, 4, "lru --live=536870912 --ops=1500000");
    if (o->full) add_faults(&p, &faults2g, 2, "faults --live=2147483648");
    if (o->full) add_scene(&p, &lru2g, both | INCREMENTAL, 20, "lru --live=2147483648 --ops=3000000");
    add_scene(&p, &list, all, quick ? 0.3 : 0.5, quick ? "list --ops=4" : "list --ops=10");
    add_scene(&p, &alloc16, both, 0.5, "alloc --size=16 --ops=20000000");
    add_scene(&p, &alloc32, both, 0.5, "alloc --size=32 --ops=20000000");
    add_scene(&p, &alloc16x2, both, 0.5, "alloc --size=16 --ops=20000000 --threads=2");
    add_history(&p);
    add_heapmap(&p);
    return p.nrows;
}
