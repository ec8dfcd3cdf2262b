/*
 * kernel.h: kernels of the collector for the explorer (explorer.h): the places where memory orders carry weight, by
 * test_order_threads.c (threads ask, answer, sleep) and test_order_objects.c (objects, marks, spans).
 * docs/memory-model.md argues each; the tests have the names of its sections.
 *
 * A kernel's accesses are those of the code, in its order. Each access whose order matters is a *site*: where it is in
 * the sources, by the text of the line; the order that it has; one that is weaker. A test explores the kernel as it is,
 * which must find nothing wrong, and then with each site weakened, alone: where the site is NEEDED the explorer must
 * find what goes wrong, where it is SPARE (another order does the same here) it must find nothing. The sources are
 * read, too: a site's line must be there, with that order, so code and kernel cannot drift apart in silence.
 *
 * What a kernel leaves out: locks are a word (pthread's mutex acquires and releases); a post of a handshake whose own
 * kernel is elsewhere is one store and one count; sleeping in the system is a word of the bucket that a futex call
 * locks.
 *
 * Invariant K1: one test program is one translation unit; the program that is being built is static in it.
 */
#ifndef TRI_TESTS_KERNEL_H
#define TRI_TESTS_KERNEL_H

#include <string.h>
#include "tests/explorer.h"
#include "tests/plain.h"

enum found { NEEDED, SPARE };

struct site {
    const char *file, *text; /* text NULL: the mutex's */
    enum order order, weaker;
    enum found found;
};

static struct ex_program p;
static const enum order *o; /* the orders of the sites of the kernel that is being built */

/* ---- the harness ------------------------------------------------------------------------------------------------- */

static const char *const suffixes[] = {
    [RLX] = "_relaxed(", [ACQ] = "_acquire(", [REL] = "_release(", [ARL] = "_acqrel(", [SEQ] = "_seq("};

/* The line is in the source, and says this order. */
static inline void check_source(const struct site *s) {
    static char text[1 << 16];
    if (!s->text) return;
    FILE *f = fopen(s->file, "r");
    CHECK_MSG(f != NULL, "%s cannot be read: run the tests from the repository's root", s->file);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    CHECK_MSG(n < sizeof text - 1, "%s is longer than this test reads", s->file);
    text[n] = '\0';
    CHECK_MSG(strstr(text, s->text) != NULL, "%s has no more: %s", s->file, s->text);
    CHECK_MSG(strstr(s->text, suffixes[s->order]) != NULL, "%s: another order than the kernel's: %s", s->file, s->text);
}

/* Explores all variants of a kernel; what is wrong with the first that is, or NULL. */
static inline struct ex_result run(void (*build)(int variant), int nvariants, ex_judge judge,
                                   const enum order *orders) {
    struct ex_result r = {0};
    uint64_t ngraphs = 0, nexecutions = 0;
    o = orders;
    for (int v = 0; v < nvariants && !r.wrong; v++) {
        memset(&p, 0, sizeof p);
        build(v);
        r = ex_explore(&p, judge);
        ngraphs += r.ngraphs, nexecutions += r.nexecutions;
        CHECK(r.wrong || r.nexecutions > 0);
    }
    o = NULL;
    r.ngraphs = ngraphs, r.nexecutions = nexecutions;
    return r;
}

enum { MOST_SITES = 12 };

static inline void check_kernel(void (*build)(int variant), int nvariants, ex_judge judge, const struct site *sites,
                                size_t nsites) {
    enum order orders[MOST_SITES] = {PLAIN};
    CHECK(nsites <= MOST_SITES);
    for (size_t i = 0; i < nsites; i++) {
        check_source(&sites[i]);
        orders[i] = sites[i].order;
    }
    struct ex_result r = run(build, nvariants, judge, orders);
    printf("%s: %llu executions, %llu graphs\n", p.name, (unsigned long long)r.nexecutions,
           (unsigned long long)r.ngraphs);
    CHECK_MSG(!r.wrong, "%s: %s\n%s", p.name, r.wrong, r.trace);
    for (size_t i = 0; i < nsites; i++) {
        orders[i] = sites[i].weaker;
        r = run(build, nvariants, judge, orders);
        orders[i] = sites[i].order;
        const char *text = sites[i].text ? sites[i].text : "a lock's order";
        CHECK_MSG((r.wrong != NULL) == (sites[i].found == NEEDED), "%s: weakened, %s: %s (%s)\n%s", p.name, text,
                  r.wrong ? r.wrong : "nothing is found", sites[i].found == NEEDED ? "it is needed" : "it is spare",
                  r.trace);
    }
}

#define CHECK_KERNEL(build, nvariants, judge, sites) \
    check_kernel(build, nvariants, judge, sites, sizeof(sites) / sizeof(sites)[0])

#endif
