/* test_hdr.c - the benchmarks' histogram against distributions whose percentiles are known.
 *
 * Uniform, exponential and constant values, the ends of the range, merging, the correction for operations that were
 * held up, and the text form. The claim under test is H2 of bench/hdr.h: an answer is never below the exact percentile
 * and at most 0.1 % above it. */
#include "tests/plain.h"

#include <math.h>

#include "bench/hdr.h"

static const double percents[] = {1, 10, 25, 50, 75, 90, 99, 99.9, 99.99, 100};
enum { NPERCENTS = sizeof percents / sizeof percents[0] };

/* The exact percentile by sorting: the oracle. */
static int compare_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t exact_percentile(const uint64_t *sorted, size_t n, double percent) {
    double rank = ceil(percent / 100.0 * (double)n);
    size_t i = rank < 1 ? 0 : (size_t)rank - 1;
    return sorted[i < n ? i : n - 1];
}

static void check_within_bound(const struct hdr *h, const uint64_t *sorted, size_t n) {
    for (int i = 0; i < NPERCENTS; i++) {
        uint64_t want = exact_percentile(sorted, n, percents[i]);
        uint64_t got = hdr_percentile(h, percents[i]);
        CHECK_MSG(got >= want, "p%g: %" PRIu64 " is below the exact %" PRIu64, percents[i], got, want);
        CHECK_MSG((double)got <= (double)want * 1.001, "p%g: %" PRIu64 " is more than 0.1 %% above %" PRIu64,
                  percents[i], got, want);
    }
}

static uint64_t rng_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double rng_unit(uint64_t *state) {
    return ((double)(rng_next(state) >> 11) + 0.5) / 9007199254740992.0;
}

enum { NVALUES = 200000 };

TEST(hdr, every_bucket_holds_its_own_range_and_is_narrow) {
    CHECK_EQ(hdr_lowest(0), 0);
    for (unsigned i = 0; i < HDR_NBUCKETS; i++) {
        uint64_t low = hdr_lowest(i), high = hdr_highest(i);
        CHECK_EQ(hdr_index(low), i);
        CHECK_EQ(hdr_index(high), i);
        if (i > 0) CHECK_EQ(low, hdr_highest(i - 1) + 1);
        CHECK_MSG((double)(high - low) <= (double)low * 0.001, "bucket %u is too wide", i);
    }
    CHECK(hdr_index(HDR_MAX_NS) < HDR_NBUCKETS);
}

TEST(hdr, uniform_values_have_exact_percentiles_within_the_bound) {
    struct hdr h;
    CHECK(hdr_init(&h));
    for (uint64_t v = 1; v <= 1000000; v++) hdr_record(&h, v * 100);
    for (int i = 0; i < NPERCENTS; i++) {
        double want = percents[i] / 100.0 * 1e8, got = (double)hdr_percentile(&h, percents[i]);
        CHECK_MSG(got >= want - 0.5 && got <= want * 1.001, "p%g: %.0f for %.0f", percents[i], got, want);
    }
    CHECK_EQ(h.total, 1000000);
    CHECK_EQ(h.max_ns, 100000000);
    CHECK_EQ(h.min_ns, 100);
    CHECK(fabs(hdr_mean(&h) - 50000050.0) < 1.0);
    hdr_fini(&h);
}

TEST(hdr, exponential_values_follow_the_sorted_ones_and_the_formula) {
    static uint64_t values[NVALUES];
    uint64_t state = 20261121;
    struct hdr h;
    const double mean = 50000;
    CHECK(hdr_init(&h));
    for (int i = 0; i < NVALUES; i++) {
        values[i] = (uint64_t)(-mean * log(rng_unit(&state))) + 1;
        hdr_record(&h, values[i]);
    }
    qsort(values, NVALUES, sizeof values[0], compare_u64);
    check_within_bound(&h, values, NVALUES);
    /* The distribution itself, to 3 %: catches a recorder that is consistently wrong about all of them. */
    const double formula[] = {50, 90, 99};
    for (int i = 0; i < 3; i++) {
        double want = -mean * log(1 - formula[i] / 100), got = (double)hdr_percentile(&h, formula[i]);
        CHECK_MSG(fabs(got - want) < want * 0.03, "p%g: %.0f, the formula says %.0f", formula[i], got, want);
    }
    hdr_fini(&h);
}

TEST(hdr, values_over_ten_powers_of_ten_stay_within_the_bound) {
    static uint64_t values[NVALUES];
    uint64_t state = 42;
    struct hdr h;
    CHECK(hdr_init(&h));
    for (int i = 0; i < NVALUES; i++) {
        values[i] = (uint64_t)pow(10.0, rng_unit(&state) * 11.5) + 1;
        hdr_record(&h, values[i]);
    }
    qsort(values, NVALUES, sizeof values[0], compare_u64);
    check_within_bound(&h, values, NVALUES);
    hdr_fini(&h);
}

TEST(hdr, a_constant_is_every_percentile_and_the_mean) {
    const uint64_t constants[] = {1, 2047, 2048, 2049, 123456789, HDR_MAX_NS};
    for (size_t c = 0; c < sizeof constants / sizeof constants[0]; c++) {
        struct hdr h;
        CHECK(hdr_init(&h));
        hdr_record_n(&h, constants[c], 1000);
        for (int i = 0; i < NPERCENTS; i++) CHECK_EQ(hdr_percentile(&h, percents[i]), constants[c]);
        CHECK(hdr_mean(&h) == (double)constants[c]);
        CHECK_EQ(h.total, 1000);
        hdr_fini(&h);
    }
}

TEST(hdr, an_empty_histogram_answers_zero_and_too_large_values_count_at_the_end) {
    struct hdr h;
    struct hdr_point point;
    CHECK(hdr_init(&h));
    CHECK_EQ(hdr_percentile(&h, 50), 0);
    CHECK(hdr_mean(&h) == 0);
    CHECK_EQ(hdr_curve(&h, 10, &point, 1), 0);
    hdr_record(&h, 0);
    CHECK_EQ(hdr_percentile(&h, 100), 0);
    hdr_record(&h, HDR_MAX_NS * 5); /* H3 */
    CHECK_EQ(h.total, 2);
    CHECK_EQ(h.max_ns, HDR_MAX_NS * 5);
    CHECK_EQ(h.counts[hdr_index(HDR_MAX_NS)], 1);
    hdr_fini(&h);
}

TEST(hdr, merging_two_halves_equals_recording_the_whole) {
    struct hdr whole, half[2];
    uint64_t state = 7;
    CHECK(hdr_init(&whole) && hdr_init(&half[0]) && hdr_init(&half[1]));
    for (int i = 0; i < NVALUES; i++) {
        uint64_t v = rng_next(&state) % 10000000 + 1;
        hdr_record(&whole, v);
        hdr_record(&half[i % 3 == 0], v);
    }
    CHECK(half[0].total != half[1].total);
    hdr_merge(&half[0], &half[1]);
    CHECK_EQ(half[0].total, whole.total);
    CHECK_EQ(half[0].max_ns, whole.max_ns);
    CHECK_EQ(half[0].min_ns, whole.min_ns);
    CHECK(fabs(half[0].sum_ns - whole.sum_ns) < 1.0);
    CHECK_EQ(memcmp(half[0].counts, whole.counts, HDR_NBUCKETS * sizeof whole.counts[0]), 0);
    hdr_fini(&whole);
    hdr_fini(&half[0]);
    hdr_fini(&half[1]);
}

/* 9,999 operations of 1 us and one of 100 ms, expected every 1 us. A caller who asks every microsecond would have seen
 * 100,000 slow answers more or less evenly spread over 0..100 ms: so half of all answers are slower than about 45
 * ms. */
TEST(hdr, the_correction_puts_back_the_operations_that_one_pause_held_up) {
    struct hdr raw, live, later;
    CHECK(hdr_init(&raw) && hdr_init(&live) && hdr_init(&later));
    hdr_record_n(&raw, 1000, 9999);
    hdr_record(&raw, 100000000);
    for (int i = 0; i < 9999; i++) hdr_record_corrected(&live, 1000, 1000);
    hdr_record_corrected(&live, 100000000, 1000);
    hdr_add_corrected(&later, &raw, 1000);
    CHECK_EQ(hdr_percentile(&raw, 99.9), 1000); /* what coordinated omission hides */
    CHECK_EQ(live.total, 9999 + 100000);
    CHECK_EQ(later.total, live.total);
    double median = (double)hdr_percentile(&live, 50);
    CHECK_MSG(fabs(median - 45e6) < 0.1e6, "median %.0f", median);
    CHECK(fabs((double)hdr_percentile(&later, 50) - median) <= median * 0.002);
    CHECK_EQ(later.max_ns, 100000000);
    hdr_clear(&later);
    hdr_add_corrected(&later, &raw, 0); /* no interval: nothing is added */
    CHECK_EQ(later.total, raw.total);
    hdr_fini(&raw);
    hdr_fini(&live);
    hdr_fini(&later);
}

TEST(hdr, the_curve_rises_and_ends_at_the_largest_value) {
    static struct hdr_point points[1000];
    struct hdr h;
    CHECK(hdr_init(&h));
    for (uint64_t v = 1; v <= 100000; v++) hdr_record(&h, v);
    unsigned n = hdr_curve(&h, 10, points, 1000);
    CHECK(n > 100 && n < 400);
    CHECK(points[0].share == 0.0);
    for (unsigned i = 1; i < n; i++) {
        CHECK(points[i].share > points[i - 1].share);
        CHECK(points[i].value_ns >= points[i - 1].value_ns);
        CHECK_EQ(points[i].value_ns, hdr_percentile(&h, points[i].share * 100.0));
    }
    CHECK(points[n - 1].share == 1.0);
    CHECK_EQ(points[n - 1].value_ns, 100000);
    CHECK_EQ(points[n - 1].count_up_to, 100000);
    hdr_fini(&h);
}

static char *text_of(const struct hdr *h, void (*print)(const struct hdr *, FILE *)) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    CHECK(f != NULL);
    print(h, f);
    fclose(f);
    return text;
}

TEST(hdr, counts_survive_the_text_form_and_bad_text_is_refused) {
    struct hdr a, b;
    uint64_t state = 99;
    CHECK(hdr_init(&a) && hdr_init(&b));
    for (int i = 0; i < 10000; i++) hdr_record(&a, rng_next(&state) % UINT64_C(50000000000) + 1);
    char *text = text_of(&a, hdr_print_counts);
    CHECK(hdr_parse_counts(&b, text));
    CHECK_EQ(a.total, b.total);
    CHECK_EQ(a.max_ns, b.max_ns);
    CHECK_EQ(a.min_ns, b.min_ns);
    CHECK(a.sum_ns == b.sum_ns);
    CHECK_EQ(memcmp(a.counts, b.counts, HDR_NBUCKETS * sizeof a.counts[0]), 0);
    free(text);
    CHECK(!hdr_parse_counts(&b, ""));
    CHECK(!hdr_parse_counts(&b, "1 2 3 x:4"));
    CHECK(!hdr_parse_counts(&b, "1 2 3 99999999:4"));
    CHECK(!hdr_parse_counts(&b, "1 2 3 5:"));
    hdr_fini(&a);
    hdr_fini(&b);
}

TEST(hdr, csv_and_json_give_the_curve) {
    struct hdr h;
    CHECK(hdr_init(&h));
    hdr_record_n(&h, 10, 90);
    hdr_record_n(&h, 1000, 10);
    CHECK_EQ(hdr_percentile(&h, 90), 10); /* the rank is the smallest that covers the share, no more */
    CHECK_EQ(hdr_percentile(&h, 91), 1000);
    char *csv = text_of(&h, hdr_print_csv), *json = text_of(&h, hdr_print_json);
    CHECK(strncmp(csv, "value_ns,percentile,count,", 26) == 0);
    CHECK(strstr(csv, "\n10,0.500000000,90,2.000\n") != NULL);
    CHECK(strstr(csv, "\n1000,1.000000000,100,inf\n") != NULL);
    CHECK(strncmp(json, "[[0.000000000000,10],", 21) == 0);
    CHECK(strstr(json, ",[1.000000000000,1000]]") != NULL);
    free(csv);
    free(json);
    hdr_fini(&h);
}
