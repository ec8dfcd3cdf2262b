/* report.c - the table and the histograms of the terminal.
 *
 * Columns: the gaps as they were measured (p50 to the exact worst), the same corrected for the operations that a pause
 * held up, what the collector says is the longest pause it caused, its collections, throughput, peak memory. A row
 * without a result says why instead. Of programs whose output is checked only the wrong ones have a line, and a
 * count. */
#include "bench/report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

const char *report_duration(char text[16], uint64_t ns) {
    static const char *const units[] = {"ns", "us", "ms", "s"};
    double v = (double)ns;
    int unit = 0;
    while (v >= 999.5 && unit < 3) {
        v /= 1000;
        unit++;
    }
    int digits = unit == 0 || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2;
    snprintf(text, 16, "%.*f %s", digits, v, units[unit]);
    return text;
}

const char *report_rate(char text[16], double per_second) {
    if (per_second >= 1e6)
        snprintf(text, 16, "%.1f M/s", per_second / 1e6);
    else if (per_second >= 1e3)
        snprintf(text, 16, "%.1f k/s", per_second / 1e3);
    else
        snprintf(text, 16, "%.2f /s", per_second);
    return text;
}

double report_throughput(const struct row *row) {
    double ops = row->foreign ? 1 : (double)row->ops;
    return row->seconds > 0 ? ops / row->seconds : 0;
}

void report_row_end(FILE *out, const struct row *row) {
    char worst[16], rate[16];
    fprintf(out, "  %-30s %-17s ", row->scene->title, row->peer);
    if (row->state != ROW_OK)
        fprintf(out, "%s\n", row->why);
    else if (row->foreign || row->map[0])
        fprintf(out, "%6.2f s  %5" PRIu64 " MB\n", row->seconds, row->peak_kb / 1024);
    else
        fprintf(out, "%6.2f s  %10s  worst %s\n", row->seconds, report_rate(rate, report_throughput(row)),
                report_duration(worst, row->gaps.max_ns));
}

const struct row *report_find(const struct row *rows, unsigned nrows, const struct scene *scene, const char *peer) {
    for (unsigned i = 0; i < nrows; i++)
        if (rows[i].scene == scene && strcmp(rows[i].peer, peer) == 0) return &rows[i];
    return NULL;
}

bool report_compare(const struct row *rows, unsigned nrows, const struct scene *scene, struct report_ratio *ratio) {
    const struct row *ours = report_find(rows, nrows, scene, "trigc");
    const struct row *theirs = report_find(rows, nrows, scene, "boehm");
    if (!ours || !theirs || ours->state != ROW_OK || theirs->state != ROW_OK) return false;
    ratio->worst = ours->gaps.max_ns ? (double)theirs->gaps.max_ns / (double)ours->gaps.max_ns : 0;
    ratio->throughput = report_throughput(ours) / report_throughput(theirs);
    ratio->memory = (double)theirs->peak_kb / (double)ours->peak_kb;
    return true;
}

struct report_checked report_count_checked(const struct row *rows, unsigned nrows, const struct scene *scene) {
    struct report_checked n = {0, 0};
    for (unsigned i = 0; i < nrows; i++) {
        if (rows[i].scene != scene) continue;
        n.of++;
        n.right += rows[i].state == ROW_OK;
    }
    return n;
}

static void print_checked(FILE *out, const struct row *rows, unsigned nrows, const struct scene *scene) {
    struct report_checked n = report_count_checked(rows, nrows, scene);
    if (scene->checked) fprintf(out, "  %u of %u Lox programs printed what they should\n", n.right, n.of);
}

static void print_cell(FILE *out, const struct hdr *h, double percent) {
    char text[16];
    fprintf(out, " %8s", h->total ? report_duration(text, hdr_percentile(h, percent)) : "-");
}

static void print_foreign(FILE *out, const struct row *row) {
    fprintf(out, "  %-17s%93.2f s%8" PRIu64 "\n", row->peer, row->seconds, row->peak_kb / 1024);
}

static void print_map(FILE *out, const struct row *row) {
    fprintf(out, "  %-17s  looked at while it ran: a picture in the page, the looks in %s\n", row->peer,
            strrchr(row->map, '/') + 1);
}

static void print_row(FILE *out, const struct row *row) {
    static const double measured[] = {50, 99, 99.9, 99.99, 100}, corrected[] = {99.9, 99.99};
    char text[16];
    if (row->state != ROW_OK) {
        fprintf(out, "  %-17s  %s\n", row->peer, row->why);
        return;
    }
    if (row->scene->checked) return;
    if (row->map[0]) {
        print_map(out, row);
        return;
    }
    if (row->foreign) {
        print_foreign(out, row);
        return;
    }
    fprintf(out, "  %-17s", row->peer);
    for (int i = 0; i < 5; i++) print_cell(out, &row->gaps, measured[i]);
    fprintf(out, " %8s |", row->worst_on_core_ns ? report_duration(text, row->worst_on_core_ns) : "-");
    for (int i = 0; i < 2; i++) print_cell(out, &row->corrected, corrected[i]);
    fprintf(out, " | %8s %6" PRIu64, row->own_worst_ns ? report_duration(text, row->own_worst_ns) : "-",
            row->collections);
    fprintf(out, " %10s %7" PRIu64 "\n", report_rate(text, report_throughput(row)), row->peak_kb / 1024);
}

/* "24.1 x shorter worst pause", or who else wins. */
static void print_verdict(FILE *out, const char *what, double ratio, const char *better, const char *tail) {
    if (ratio <= 0)
        return;
    else if (ratio >= 0.995 && ratio <= 1.005)
        fprintf(out, "%s: equal%s", what, tail);
    else if (ratio > 1)
        fprintf(out, "%s: trigc x %.*f %s%s", what, ratio < 10 ? 2 : 1, ratio, better, tail);
    else
        fprintf(out, "%s: BOEHM WINS, x %.*f %s%s", what, 1 / ratio < 10 ? 2 : 1, 1 / ratio, better, tail);
}

static void print_verdicts(FILE *out, const struct row *rows, unsigned nrows, const struct scene *scene) {
    struct report_ratio ratio;
    if (!report_compare(rows, nrows, scene, &ratio)) return;
    fprintf(out, "  trigc beside Boehm: ");
    print_verdict(out, "worst gap", ratio.worst, "shorter", "; ");
    print_verdict(out, scene->interval_ns ? "throughput" : "time", ratio.throughput, "faster", "; ");
    print_verdict(out, "memory", ratio.memory, "less", "\n");
    const struct row *ours = report_find(rows, nrows, scene, "trigc"),
                     *theirs = report_find(rows, nrows, scene, "boehm");
    if (ours->checksum != theirs->checksum) fprintf(out, "  THE TWO DID NOT SEE THE SAME: checksums differ\n");
}

static void print_heading(FILE *out) {
    fprintf(out, "%-19s %53s | %17s | %15s %10s %7s\n", "", "time between operations as the mutator felt it",
            "corrected", "own words", "", "peak");
    fprintf(out, "  %-17s %8s %8s %8s %8s %8s %8s | %8s %8s | %8s %6s %10s %7s\n", "", "p50", "p99", "p99.9", "p99.99",
            "worst", "on core", "p99.9", "p99.99", "worst", "cycles", "throughput", "MB");
}

void report_table(FILE *out, const struct row *rows, unsigned nrows) {
    char interval[16];
    fprintf(out, "Corrected: as a caller would have felt it who asks at the interval given, pause or no pause.\n");
    fprintf(out, "Own words: the longest pause that the collector says it made, and its collections.\n");
    fprintf(out, "On core: the worst gap without the time for which the thread waited for a core.\n\n");
    print_heading(out);
    for (unsigned i = 0; i < nrows; i++) {
        const struct scene *scene = rows[i].scene;
        if (i == 0 || rows[i - 1].scene != scene) {
            fprintf(out, "\n%s", scene->title);
            if (scene->interval_ns && scene->batch > 1) fprintf(out, ", gaps of %u %s", scene->batch, scene->unit);
            if (scene->interval_ns) fprintf(out, ", corrected at %s", report_duration(interval, scene->interval_ns));
            fprintf(out, "\n");
        }
        print_row(out, &rows[i]);
        if (i + 1 < nrows && rows[i + 1].scene == scene) continue;
        print_checked(out, rows, nrows, scene);
        print_verdicts(out, rows, nrows, scene);
    }
    fprintf(out, "\n");
}

/* ---- histograms: a line for each power of two, the bar's length the logarithm of the count ---- */

enum { BAR_WIDTH = 30, POWERS = 41 };

static void powers_of_two(const struct hdr *h, uint64_t powers[POWERS]) {
    memset(powers, 0, POWERS * sizeof powers[0]);
    for (unsigned i = 0; i < HDR_NBUCKETS; i++) {
        if (h->counts[i] == 0) continue;
        uint64_t v = hdr_highest(i);
        int power = v == 0 ? 0 : 64 - __builtin_clzll(v);
        powers[power < POWERS ? power : POWERS - 1] += h->counts[i];
    }
}

static void print_bar(FILE *out, uint64_t count, uint64_t total) {
    int length = count ? 1 + (int)lround((BAR_WIDTH - 1) * log10((double)count) / log10((double)total + 1)) : 0;
    for (int i = 0; i < BAR_WIDTH; i++) fputs(i < length ? "#" : " ", out);
    if (count)
        fprintf(out, " %-10" PRIu64, count);
    else
        fprintf(out, " %-10s", "");
}

static void print_histogram(FILE *out, const struct row *ours, const struct row *theirs) {
    uint64_t a[POWERS], b[POWERS];
    int first = 0, last = POWERS - 1;
    char text[16];
    powers_of_two(&ours->gaps, a);
    powers_of_two(&theirs->gaps, b);
    while (first < last && a[first] + b[first] == 0) first++;
    while (last > first && a[last] + b[last] == 0) last--;
    fprintf(out, "%s\n  %10s   %-*s  %s\n", ours->scene->title, "", BAR_WIDTH + 11, ours->peer, theirs->peer);
    for (int i = first; i <= last; i++) {
        fprintf(out, "  < %8s   ", report_duration(text, UINT64_C(1) << i));
        print_bar(out, a[i], ours->gaps.total);
        fprintf(out, "  ");
        print_bar(out, b[i], theirs->gaps.total);
        fprintf(out, "\n");
    }
    fprintf(out, "\n");
}

void report_histograms(FILE *out, const struct row *rows, unsigned nrows) {
    fprintf(out, "How long the operations took: number of them by duration (length of the bar: its logarithm)\n\n");
    for (unsigned i = 0; i < nrows; i++) {
        const struct scene *scene = rows[i].scene;
        if (scene->interval_ns == 0 || (i > 0 && rows[i - 1].scene == scene)) continue;
        const struct row *ours = report_find(rows, nrows, scene, "trigc");
        const struct row *theirs = report_find(rows, nrows, scene, "boehm");
        if (ours && theirs && ours->state == ROW_OK && theirs->state == ROW_OK) print_histogram(out, ours, theirs);
    }
}
