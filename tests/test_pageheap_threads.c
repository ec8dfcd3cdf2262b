/*
 * Several threads at one page heap, with a scavenger in each of them: no page is given to two, nor scavenged while it
 * is given out. What one thread sees: test_pageheap.c.
 */
#include "tests/process.h"

#include "alloc/base/atomic.h"
#include "alloc/base/os.h"
#include "alloc/pageheap.h"

static void print_contradiction(void *context, const char *text) {
    (void)context;
    fprintf(stderr, "verify: %s\n", text);
}

struct run {
    size_t first, npages;
};

enum { THREADS = 4, THREAD_PAGES = 4096, THREAD_HELD = 40 };

struct shared_pages {
    struct pageheap *ph;
    uint8_t owner[THREAD_PAGES]; /* [atomic] 1 while given out, or under the scavenger */
    uint32_t nstarted;           /* [atomic] */
};

static bool shared_commit(void *context, size_t first, size_t npages) {
    (void)context;
    return first + npages <= THREAD_PAGES;
}

static void set_owner(struct shared_pages *s, struct run r, uint8_t from) {
    for (size_t i = r.first; i < r.first + r.npages; i++) {
        /* partner: the same swap by the pages' next owner; the order comes from the page heap's lock */
        CHECK_EQ(atomic_swap_relaxed(&s->owner[i], (uint8_t)!from), from);
    }
}

static bool shared_decommit(void *context, size_t first, size_t npages) {
    set_owner(context, (struct run){first, npages}, 0);
    tri__os_yield();
    set_owner(context, (struct run){first, npages}, 1);
    return true;
}

static void churn(void *arg) {
    struct shared_pages *s = arg;
    struct run held[THREAD_HELD];
    size_t nheld = 0;
    bool dirty;
    uint64_t r = 88172645463325252u + atomic_add_relaxed(&s->nstarted, 1u);
    for (unsigned i = 0; i < 4000; i++) {
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        struct run run = {.npages = 1 + r % 40};
        if (nheld < THREAD_HELD && r >> 60 < 9) {
            if (tri__pageheap_alloc(s->ph, run.npages, &run.first, &dirty)) {
                set_owner(s, run, 0);
                held[nheld++] = run;
            }
        } else if (nheld > 0) {
            set_owner(s, held[--nheld], 1);
            tri__pageheap_free(s->ph, held[nheld].first, held[nheld].npages);
        }
        if (i % 64 == 0) {
            tri__pageheap_scavenge(s->ph, 100);
        }
    }
    while (nheld-- > 0) {
        set_owner(s, held[nheld], 1);
        tri__pageheap_free(s->ph, held[nheld].first, held[nheld].npages);
    }
}

TEST(pageheap_threads, threads_never_share_a_page) {
    static struct shared_pages s;
    struct os_thread threads[THREADS];
    struct pageheap_stats stats;
    struct pageheap_ops ops = {.commit = shared_commit, .decommit = shared_decommit, .context = &s};
    s.ph = tri__pageheap_create(THREAD_PAGES, CHUNK_PAGES, &ops);
    CHECK(s.ph != NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(tri__os_thread_start(&threads[i], churn, &s, "churn"));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        tri__os_thread_join(&threads[i]);
    }
    tri__pageheap_get_stats(s.ph, &stats);
    CHECK_EQ(stats.used_pages, 0);
    CHECK_EQ(tri__pageheap_verify(s.ph, print_contradiction, NULL), 0);
    tri__pageheap_destroy(s.ph);
}
