/* hdr.h - a histogram of durations with a fixed relative error (the HDR idea: log-linear buckets).
 *
 * Owns: counts of values of 1 ns to 10^12 ns at three significant digits, and the exact largest and smallest value and
 * sum. Does not own: time; whoever records says what a nanosecond is.
 *
 * The buckets: a value v below 2048 has a bucket of its own. Above, v is cut to its 11 leading bits, so a bucket at
 * [m << s, (m + 1) << s) with 1024 <= m < 2048 is at most 1/1024 (0.098 %) of its values wide.
 *
 * Invariants
 *  H1  `total` is the sum of all counts.
 *  H2  every percentile is an answer within one bucket of the exact one: never below it, and at most 0.1 % above.
 *  H3  values outside the range are counted at its ends, and `max_ns` still tells the exact largest one.
 *
 * One histogram has one writer; merge them afterwards. */
#ifndef BENCH_HDR_H
#define BENCH_HDR_H

#include <stdint.h>
#include <stdio.h>

enum {
    HDR_SUB_LOG2 = 11,           /* leading bits that are kept */
    HDR_SUB = 1 << HDR_SUB_LOG2, /* buckets of width one */
    HDR_HALF = HDR_SUB / 2,      /* buckets of each power of two above */
    HDR_TOP_LOG2 = 40,           /* 2^40 ns > 10^12 ns */
    HDR_NBUCKETS = HDR_SUB + (HDR_TOP_LOG2 - HDR_SUB_LOG2) * HDR_HALF
};

#define HDR_MAX_NS UINT64_C(1000000000000)

struct hdr {
    uint64_t total;   /* values recorded */
    uint64_t max_ns;  /* exact */
    uint64_t min_ns;  /* exact; UINT64_MAX while empty */
    double sum_ns;    /* exact but for rounding in double */
    uint64_t *counts; /* HDR_NBUCKETS */
};

/* One step of a percentile curve: a share of `share` (0..1) of the values is at most value_ns. */
struct hdr_point {
    double share;
    uint64_t value_ns;
    uint64_t count_up_to;
};

/* Makes an empty histogram with its memory touched, so that recording takes no page fault. False without memory. */
int hdr_init(struct hdr *h);
void hdr_fini(struct hdr *h);
void hdr_clear(struct hdr *h);

static inline unsigned hdr_index(uint64_t v) {
    if (v < HDR_SUB) return (unsigned)v;
    unsigned shift = 63u - (unsigned)__builtin_clzll(v) - (HDR_SUB_LOG2 - 1);
    return HDR_SUB + (shift - 1) * HDR_HALF + ((unsigned)(v >> shift) - HDR_HALF);
}

/* Smallest and largest value that share a bucket. */
uint64_t hdr_lowest(unsigned index);
uint64_t hdr_highest(unsigned index);

static inline void hdr_record_n(struct hdr *h, uint64_t value_ns, uint64_t n) {
    uint64_t v = value_ns < HDR_MAX_NS ? value_ns : HDR_MAX_NS; /* H3 */
    h->counts[hdr_index(v)] += n;
    h->total += n; /* H1 */
    h->sum_ns += (double)value_ns * (double)n;
    if (value_ns > h->max_ns) h->max_ns = value_ns;
    if (value_ns < h->min_ns) h->min_ns = value_ns;
}

static inline void hdr_record(struct hdr *h, uint64_t value_ns) {
    hdr_record_n(h, value_ns, 1);
}

/* Records a value and, where it is longer than the interval at which the operations should have come, the values that
 * the operations held up behind it would have seen: value - interval, value - 2 * interval, ... down to interval. */
void hdr_record_corrected(struct hdr *h, uint64_t value_ns, uint64_t interval_ns);

/* The same afterwards: adds everything in `from`, corrected, to `to`. */
void hdr_add_corrected(struct hdr *to, const struct hdr *from, uint64_t interval_ns);

/* Adds `from` to `to`. */
void hdr_merge(struct hdr *to, const struct hdr *from);

/* The value that `percent` (0..100) of the values are at most; 0 while empty. 100 gives the exact largest one. */
uint64_t hdr_percentile(const struct hdr *h, double percent);
double hdr_mean(const struct hdr *h);

/* Writes up to n points of the curve: `steps_per_half` points for each halving of what is left above, and the largest
 * value last. The number written. */
unsigned hdr_curve(const struct hdr *h, unsigned steps_per_half, struct hdr_point *points, unsigned n);

/* The curve as comma-separated lines with a heading, and as a JSON array of [share, value_ns]. */
void hdr_print_csv(const struct hdr *h, FILE *out);
void hdr_print_json(const struct hdr *h, FILE *out);

/* The counts as text ("index:count index:count ..."), and back. hdr_parse adds to h; 0 when the text is not that. */
void hdr_print_counts(const struct hdr *h, FILE *out);
int hdr_parse_counts(struct hdr *h, const char *text);

#endif
