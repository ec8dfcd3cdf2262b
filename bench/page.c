/* page.c - fills page.html: the charting library's style and code, and the results as JSON.
 *
 * The template marks where each goes with a line "@@NAME@@". The page is complete in itself: no network, no other
 * file. */
#include "bench/page.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench/heapmap_read.h"
#include "bench/mmu.h"
#include "bench/report.h"

static char *file_read(const char *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "the page's %s cannot be read: %s (say where the sources' bench folder is with --assets=DIR)\n",
                path, strerror(errno));
        return NULL;
    }
    char *text = NULL;
    size_t size = 0, n;
    char piece[65536];
    FILE *memory = open_memstream(&text, &size);
    while (memory && (n = fread(piece, 1, sizeof piece, f)) > 0) fwrite(piece, 1, n, memory);
    fclose(f);
    if (memory) fclose(memory);
    return text;
}

/* A JSON string that is safe inside a script element. */
static void json_string(FILE *out, const char *text) {
    fputc('"', out);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == '<' || c == '>' || c == '&')
            fprintf(out, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void json_histogram(FILE *out, const char *name, const struct hdr *h) {
    fprintf(out,
            ",\"%s\":{\"total\":%" PRIu64 ",\"mean\":%.1f,\"p50\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"p999\":%" PRIu64,
            name, h->total, hdr_mean(h), hdr_percentile(h, 50), hdr_percentile(h, 99), hdr_percentile(h, 99.9));
    fprintf(out, ",\"p9999\":%" PRIu64 ",\"worst\":%" PRIu64 ",\"curve\":", hdr_percentile(h, 99.99), h->max_ns);
    hdr_print_json(h, out);
    fputc('}', out);
}

static void json_row(FILE *out, const struct row *row) {
    fprintf(out, "{\"peer\":");
    json_string(out, row->peer);
    fprintf(out, ",\"ok\":%s,\"why\":", row->state == ROW_OK ? "true" : "false");
    json_string(out, row->why);
    fprintf(out, ",\"seconds\":%.6f,\"wall\":%.6f,\"peak_kb\":%" PRIu64 ",\"per_second\":%.3f", row->seconds,
            row->wall_s, row->peak_kb, report_throughput(row));
    fprintf(out,
            ",\"checksum\":\"%016" PRIx64 "\",\"collections\":%" PRIu64 ",\"own_worst\":%" PRIu64
            ",\"on_core\":%" PRIu64 ",\"own\":[",
            row->checksum, row->collections, row->own_worst_ns, row->worst_on_core_ns);
    for (unsigned i = 0; i < row->nkinds; i++) {
        const struct row_own *own = &row->kinds[i];
        fprintf(out, "%s{\"name\":", i ? "," : "");
        json_string(out, own->name);
        fprintf(out, ",\"count\":%" PRIu64 ",\"worst\":%" PRIu64 ",\"total\":%.0f,\"bound\":%s}", own->count,
                own->worst_ns, own->total_ns, own->bound ? "true" : "false");
    }
    fputc(']', out);
    if (row->state == ROW_OK && row->map[0]) {
        fprintf(out, ",\"map\":");
        heapmap_json(out, row->map);
    } else if (row->state == ROW_OK && !row->foreign) {
        json_histogram(out, "gaps", &row->gaps);
        json_histogram(out, "corrected", &row->corrected);
        fprintf(out, ",\"mmu\":");
        mmu_json(out, row->events);
    }
    fputc('}', out);
}

/* The processor's name, for the page's heading. */
static void cpu_name(char *name, size_t size) {
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unknown processor");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strstr(line, ": ");
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(name, size, "%s", colon + 2);
        break;
    }
    if (f) fclose(f);
}

static void json_machine(FILE *out) {
    char name[256], when[64];
    struct utsname u;
    time_t now = time(NULL);
    cpu_name(name, sizeof name);
    uname(&u);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M", localtime(&now));
    fprintf(out, "\"when\":\"%s\",\"cores\":%ld,\"system\":", when, sysconf(_SC_NPROCESSORS_ONLN));
    json_string(out, u.sysname);
    fprintf(out, ",\"release\":");
    json_string(out, u.release);
    fprintf(out, ",\"cpu\":");
    json_string(out, name);
}

static void json_all(FILE *out, const struct row *rows, unsigned nrows) {
    fputc('{', out);
    json_machine(out);
    fprintf(out, ",\"scenes\":[");
    for (unsigned i = 0; i < nrows; i++) {
        const struct scene *scene = rows[i].scene;
        if (i == 0 || rows[i - 1].scene != scene) {
            fprintf(out, "%s{\"id\":\"%s\",\"title\":", i ? "]}," : "", scene->id);
            json_string(out, scene->title);
            fprintf(out, ",\"unit\":\"%s\",\"batch\":%u,\"interval\":%" PRIu64 ",\"checked\":%s,\"rows\":[",
                    scene->unit, scene->batch, scene->interval_ns, scene->checked ? "true" : "false");
        } else {
            fputc(',', out);
        }
        json_row(out, &rows[i]);
    }
    fprintf(out, "%s]}\n", nrows ? "]}" : "");
}

/* Copies the template, with the text of each mark in its place. */
static void page_fill(FILE *out, const char *template, const char *style, const char *code, const struct row *rows,
                      unsigned nrows) {
    for (const char *line = template; *line;) {
        size_t n = strcspn(line, "\n");
        if (strncmp(line, "@@STYLE@@", 9) == 0)
            fputs(style, out);
        else if (strncmp(line, "@@CODE@@", 8) == 0)
            fputs(code, out);
        else if (strncmp(line, "@@DATA@@", 8) == 0)
            json_all(out, rows, nrows);
        else
            fwrite(line, 1, n, out);
        fputc('\n', out);
        line += n + (line[n] == '\n');
    }
}

static FILE *file_create(const char *path) {
    FILE *f = fopen(path, "wb");
    if (!f) fprintf(stderr, "%s cannot be written: %s\n", path, strerror(errno));
    return f;
}

bool page_write(const char *path, const char *json_path, const char *assets, const struct row *rows, unsigned nrows) {
    FILE *json = file_create(json_path);
    if (json) {
        json_all(json, rows, nrows);
        fclose(json);
    }
    char *template = file_read(assets, "page.html");
    char *style = template ? file_read(assets, "third_party/uplot/uPlot.min.css") : NULL;
    char *code = style ? file_read(assets, "third_party/uplot/uPlot.iife.min.js") : NULL;
    FILE *page = code ? file_create(path) : NULL;
    if (page) page_fill(page, template, style, code, rows, nrows);
    bool written = page && !ferror(page);
    if (page && fclose(page) != 0) written = false;
    free(template);
    free(style);
    free(code);
    return written && json != NULL;
}
