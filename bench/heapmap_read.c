/* heapmap_read.c - what heapmap.c wrote, as data for the page's picture: a string of characters for each look.
 *
 * The picture has at most MAP_ROWS rows; with a larger heap each row is one page of every so many, always the same one,
 * so that a row is a page's life. Its character in a look says what the page was:
 *
 *     .  never used        f  free, in memory     r  free, returned to the system
 *     t  taken: in a thread's hands, for its next spans
 *     L  a large object    M  manual blocks       0 to 8  a span of small objects, by eighths of its slots in use
 *
 * The sums beside them are of all pages.
 *
 * Two passes over the file: one for its size, one for the cells. Lines that it does not know are left out. */
#include "bench/heapmap_read.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAP_ROWS = 600, MAP_PAGE_BYTES = 8192 };

enum kind { KIND_FREE = 0, KIND_RETURNED, KIND_TAKEN, KIND_SMALL, KIND_LARGE, KIND_MANUAL, NUM_KINDS };
static const char *const kind_names[NUM_KINDS] = {"free", "returned", "taken", "small", "large", "manual"};

/* One run of pages, or the beginning of a look. */
struct line {
    bool is_look;
    double ms;
    uint64_t live_bytes, heap_bytes, resident_bytes;
    enum kind kind;
    uint64_t first, npages, used, slots;
};

struct map {
    uint64_t npages, pages_per_row;
    unsigned nrows, nlooks;
    char cells[MAP_ROWS + 1];
    uint64_t total[NUM_KINDS];
};

static bool kind_parse(const char *name, enum kind *kind) {
    for (int i = 0; i < NUM_KINDS; i++) {
        if (strcmp(name, kind_names[i]) != 0) continue;
        *kind = (enum kind)i;
        return true;
    }
    return false;
}

/* The next line that means something. */
static bool line_next(FILE *in, struct line *l) {
    char text[256], name[32];
    while (fgets(text, sizeof text, in)) {
        memset(l, 0, sizeof *l);
        l->is_look = sscanf(text, "@ %lf %" SCNu64 " %" SCNu64 " %" SCNu64, &l->ms, &l->live_bytes, &l->heap_bytes,
                            &l->resident_bytes) == 4;
        if (l->is_look) return true;
        int n = sscanf(text, "%" SCNu64 " %" SCNu64 " %31s %" SCNu64 " %" SCNu64, &l->first, &l->npages, name, &l->used,
                       &l->slots);
        if (n >= 3 && l->npages > 0 && kind_parse(name, &l->kind)) return true;
    }
    return false;
}

static void measure(FILE *in, struct map *map) {
    struct line l;
    while (line_next(in, &l)) {
        if (l.is_look)
            map->nlooks++;
        else if (l.first + l.npages > map->npages)
            map->npages = l.first + l.npages;
    }
    map->pages_per_row = (map->npages + MAP_ROWS - 1) / MAP_ROWS;
    if (map->pages_per_row) map->nrows = (unsigned)((map->npages + map->pages_per_row - 1) / map->pages_per_row);
}

static char run_character(const struct line *l) {
    if (l->kind != KIND_SMALL) return "frt?LM"[l->kind];
    return (char)('0' + (l->slots ? (l->used * 8 + l->slots / 2) / l->slots : 8));
}

/* Rows whose page lies in the run. The page of row i is i * pages_per_row + pages_per_row / 2. */
static void add_run(struct map *map, const struct line *l) {
    uint64_t per = map->pages_per_row, middle = per / 2, end = l->first + l->npages;
    uint64_t row = l->first > middle ? (l->first - middle + per - 1) / per : 0;
    map->total[l->kind] += l->npages;
    for (; row < map->nrows && row * per + middle < end; row++) map->cells[row] = run_character(l);
}

static void look_begin(struct map *map) {
    memset(map->cells, '.', map->nrows);
    map->cells[map->nrows] = '\0';
    memset(map->total, 0, sizeof map->total);
}

static void look_end(FILE *out, const struct map *map) {
    for (int i = 0; i < NUM_KINDS; i++) fprintf(out, ",\"%s\":%" PRIu64, kind_names[i], map->total[i]);
    fprintf(out, ",\"cells\":\"%s\"}", map->cells);
}

static void looks_write(FILE *out, FILE *in, struct map *map) {
    struct line l;
    bool open = false;
    while (line_next(in, &l)) {
        if (!l.is_look) {
            if (open) add_run(map, &l);
            continue;
        }
        if (open) look_end(out, map);
        fprintf(out, "%s{\"ms\":%.1f,\"live\":%" PRIu64 ",\"heap\":%" PRIu64 ",\"resident\":%" PRIu64,
                open ? ",\n" : "", l.ms, l.live_bytes, l.heap_bytes, l.resident_bytes);
        look_begin(map);
        open = true;
    }
    if (open) look_end(out, map);
}

bool heapmap_json(FILE *out, const char *path) {
    static struct map map;
    FILE *in = fopen(path, "r");
    memset(&map, 0, sizeof map);
    if (in) measure(in, &map);
    bool any = map.nlooks > 0 && map.nrows > 0;
    if (any) {
        rewind(in);
        fprintf(out, "{\"page_bytes\":%d,\"pages_per_row\":%" PRIu64 ",\"rows\":%u,\"looks\":[\n", MAP_PAGE_BYTES,
                map.pages_per_row, map.nrows);
        looks_write(out, in, &map);
        fprintf(out, "]}");
    } else {
        fprintf(out, "null");
    }
    if (in) fclose(in);
    return any;
}
