/* report.h - the demo's results as text for a terminal. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdio.h>

#include "bench/row.h"

/* A duration in at most seven characters: "312 ns", "1.35 ms". */
const char *report_duration(char text[16], uint64_t ns);

/* Row and unit for people: "4.31 M/s". */
const char *report_rate(char text[16], double per_second);

/* One line on how a row ended, for the progress. */
void report_row_end(FILE *out, const struct row *row);

/* The table: a block a scene, a line a row, and who wins what. */
void report_table(FILE *out, const struct row *rows, unsigned nrows);

/* The distributions of the scenes whose gaps were measured, trigc and Boehm side by side. */
void report_histograms(FILE *out, const struct row *rows, unsigned nrows);

/* How trigc compares with Boehm in a scene: worst gap, throughput and memory as ratios (above 1: trigc is better).
 * Boehm is its default mode. False when either row has no result. */
struct report_ratio {
    double worst, throughput, memory;
};
bool report_compare(const struct row *rows, unsigned nrows, const struct scene *scene, struct report_ratio *ratio);

/* The first row of a scene by that peer, or NULL. */
const struct row *report_find(const struct row *rows, unsigned nrows, const struct scene *scene, const char *peer);

double report_throughput(const struct row *row);

/* Of a scene whose output is checked: how many of its programs printed what they should, and how many ran. */
struct report_checked {
    unsigned right, of;
};
struct report_checked report_count_checked(const struct row *rows, unsigned nrows, const struct scene *scene);

#endif
