/* hdr.c - the histogram of hdr.h: what is not on the recording path.
 *
 * The text form starts with the exact figures ("min max sum"), because they cannot be told from the counts; then one
 * "index:count" for each bucket that is not empty. */
#include "bench/hdr.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((UINT64_C(1) << HDR_TOP_LOG2) > HDR_MAX_NS, "the last bucket must hold the largest value");

void hdr_clear(struct hdr *h) {
    memset(h->counts, 0, HDR_NBUCKETS * sizeof *h->counts);
    h->total = 0;
    h->max_ns = 0;
    h->min_ns = UINT64_MAX;
    h->sum_ns = 0;
}

int hdr_init(struct hdr *h) {
    h->counts = malloc(HDR_NBUCKETS * sizeof *h->counts);
    if (!h->counts) return 0;
    hdr_clear(h);
    return 1;
}

void hdr_fini(struct hdr *h) {
    free(h->counts);
    h->counts = NULL;
}

/* How far the values of a bucket are shifted: 0 in the buckets of width one. */
static unsigned bucket_shift(unsigned index) {
    return index < HDR_SUB ? 0 : (index - HDR_SUB) / HDR_HALF + 1;
}

uint64_t hdr_lowest(unsigned index) {
    if (index < HDR_SUB) return index;
    uint64_t leading = HDR_HALF + (index - HDR_SUB) % HDR_HALF;
    return leading << bucket_shift(index);
}

uint64_t hdr_highest(unsigned index) {
    return hdr_lowest(index) + (UINT64_C(1) << bucket_shift(index)) - 1;
}

void hdr_record_corrected(struct hdr *h, uint64_t value_ns, uint64_t interval_ns) {
    hdr_record(h, value_ns);
    if (interval_ns == 0) return;
    for (uint64_t v = value_ns; v >= 2 * interval_ns; v -= interval_ns) hdr_record(h, v - interval_ns);
}

void hdr_add_corrected(struct hdr *to, const struct hdr *from, uint64_t interval_ns) {
    for (unsigned i = 0; i < HDR_NBUCKETS; i++) {
        uint64_t n = from->counts[i];
        if (n == 0) continue;
        uint64_t v = hdr_highest(i) < from->max_ns ? hdr_highest(i) : from->max_ns;
        hdr_record_n(to, v, n);
        if (interval_ns == 0) continue;
        for (; v >= 2 * interval_ns; v -= interval_ns) hdr_record_n(to, v - interval_ns, n);
    }
}

void hdr_merge(struct hdr *to, const struct hdr *from) {
    for (unsigned i = 0; i < HDR_NBUCKETS; i++) to->counts[i] += from->counts[i];
    to->total += from->total;
    to->sum_ns += from->sum_ns;
    if (from->max_ns > to->max_ns) to->max_ns = from->max_ns;
    if (from->min_ns < to->min_ns) to->min_ns = from->min_ns;
}

double hdr_mean(const struct hdr *h) {
    return h->total ? h->sum_ns / (double)h->total : 0;
}

/* The rank (1..total) that a percentage asks for: the smallest that covers it. */
static uint64_t rank_of(const struct hdr *h, double percent) {
    double exact = percent / 100.0 * (double)h->total;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact) rank++;
    if (rank < 1) rank = 1;
    return rank < h->total ? rank : h->total;
}

static uint64_t bucket_answer(const struct hdr *h, unsigned index) {
    uint64_t v = hdr_highest(index);
    return v < h->max_ns ? v : h->max_ns;
}

uint64_t hdr_percentile(const struct hdr *h, double percent) {
    if (h->total == 0) return 0;
    uint64_t rank = rank_of(h, percent);
    if (rank == h->total) return h->max_ns;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HDR_NBUCKETS; i++) {
        seen += h->counts[i];
        if (seen >= rank) return bucket_answer(h, i); /* H2: the bucket's largest value */
    }
    return h->max_ns;
}

unsigned hdr_curve(const struct hdr *h, unsigned steps_per_half, struct hdr_point *points, unsigned n) {
    if (h->total == 0 || n == 0) return 0;
    unsigned filled = 0, bucket = 0;
    uint64_t seen = h->counts[0];
    double left = 1.0, share = 0.0; /* left: 1 - share at the start of this halving */
    unsigned step = 0;
    while (filled + 1 < n) {
        uint64_t rank = rank_of(h, share * 100.0);
        if (rank >= h->total) break;
        while (seen < rank) seen += h->counts[++bucket];
        points[filled++] = (struct hdr_point){share, bucket_answer(h, bucket), seen};
        if (++step == steps_per_half) {
            step = 0;
            left /= 2;
        }
        share = 1.0 - left + left / 2 * step / steps_per_half;
    }
    points[filled++] = (struct hdr_point){1.0, h->max_ns, h->total};
    return filled;
}

enum { CURVE_STEPS = 10, CURVE_POINTS = 64 * CURVE_STEPS };

void hdr_print_csv(const struct hdr *h, FILE *out) {
    struct hdr_point points[CURVE_POINTS];
    unsigned n = hdr_curve(h, CURVE_STEPS, points, CURVE_POINTS);
    fprintf(out, "value_ns,percentile,count,one_by_one_minus_percentile\n");
    for (unsigned i = 0; i < n; i++) {
        double above = 1.0 - points[i].share;
        fprintf(out, "%" PRIu64 ",%.9f,%" PRIu64 ",", points[i].value_ns, points[i].share, points[i].count_up_to);
        if (above > 0)
            fprintf(out, "%.3f\n", 1.0 / above);
        else
            fprintf(out, "inf\n");
    }
}

void hdr_print_json(const struct hdr *h, FILE *out) {
    struct hdr_point points[CURVE_POINTS];
    unsigned n = hdr_curve(h, CURVE_STEPS, points, CURVE_POINTS);
    fputc('[', out);
    for (unsigned i = 0; i < n; i++)
        fprintf(out, "%s[%.12f,%" PRIu64 "]", i ? "," : "", points[i].share, points[i].value_ns);
    fputc(']', out);
}

void hdr_print_counts(const struct hdr *h, FILE *out) {
    fprintf(out, "%" PRIu64 " %" PRIu64 " %.17g", h->min_ns, h->max_ns, h->sum_ns);
    for (unsigned i = 0; i < HDR_NBUCKETS; i++)
        if (h->counts[i]) fprintf(out, " %u:%" PRIu64, i, h->counts[i]);
}

int hdr_parse_counts(struct hdr *h, const char *text) {
    uint64_t min_ns, max_ns;
    double sum_ns;
    int used = 0;
    if (sscanf(text, "%" SCNu64 " %" SCNu64 " %lf%n", &min_ns, &max_ns, &sum_ns, &used) != 3) return 0;
    text += used;
    for (;;) {
        char *end;
        while (*text == ' ') text++;
        if (*text == '\0' || *text == '\n') break;
        unsigned long index = strtoul(text, &end, 10);
        if (end == text || *end != ':' || index >= HDR_NBUCKETS) return 0;
        text = end + 1;
        unsigned long long n = strtoull(text, &end, 10);
        if (end == text) return 0;
        text = end;
        h->counts[index] += n;
        h->total += n;
    }
    h->sum_ns += sum_ns;
    if (max_ns > h->max_ns) h->max_ns = max_ns;
    if (min_ns < h->min_ns) h->min_ns = min_ns;
    return 1;
}
