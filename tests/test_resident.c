/*
 * The page heap's part in giving memory back and taking it ahead: what it tells of whole chunks that are free, the
 * alarm at a number of resident pages, and its count of pages with memory while others populate and return them.
 */
#include "tests/fixture.h"

struct told {
    size_t nreleased, last_first, nalarms, alarm_pages;
};
static bool on_commit(void *context, size_t first, size_t npages) {
    (void)context, (void)first, (void)npages;
    return true;
}
static void on_alarm(void *context, size_t npages) {
    struct told *told = context;
    told->nalarms++;
    told->alarm_pages = npages;
}
static void on_release(void *context, size_t first, size_t npages) {
    struct told *told = context;
    CHECK_EQ(npages, CHUNK_PAGES);
    told->nreleased++;
    told->last_first = first;
}

TEST(resident, tables_are_released_with_whole_chunks_that_were_in_use) {
    struct told told = {0};
    struct pageheap_ops ops = {on_commit, on_commit, &told, on_alarm, on_release, NULL, NULL};
    struct pageheap *ph = tri__pageheap_create((size_t)64 * CHUNK_PAGES, (size_t)8 * CHUNK_PAGES, &ops);
    size_t first, far;
    bool dirty;
    CHECK(ph != NULL);
    CHECK_EQ(tri__pageheap_release(ph), 0); /* nothing is there yet */
    CHECK(tri__pageheap_alloc(ph, 10, &first, &dirty));
    CHECK(tri__pageheap_alloc(ph, 2 * CHUNK_PAGES, &far, &dirty));
    CHECK_EQ(first, 0);
    tri__pageheap_free(ph, far, 2 * CHUNK_PAGES);
    CHECK_EQ(tri__pageheap_release(ph), 0); /* dirty pages first */
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 2 * CHUNK_PAGES);
    CHECK_EQ(tri__pageheap_release(ph), 2); /* the first chunk has pages in use */
    CHECK_EQ(told.last_first, 2 * CHUNK_PAGES);
    CHECK_EQ(tri__pageheap_release(ph), 0); /* once */
    CHECK_EQ(tri__pageheap_verify(ph, NULL, NULL), 0);
    tri__pageheap_free(ph, first, 10);
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 10);
    CHECK_EQ(tri__pageheap_release(ph), 1);
    CHECK(tri__pageheap_alloc(ph, CHUNK_PAGES + 1, &first, &dirty) && !dirty);
    tri__pageheap_free(ph, first, CHUNK_PAGES + 1);
    tri__pageheap_scavenge(ph, SIZE_MAX);
    CHECK_EQ(tri__pageheap_release(ph), 2); /* used again, released again */
    CHECK_EQ(tri__pageheap_verify(ph, NULL, NULL), 0);
    tri__pageheap_destroy(ph);
}

TEST(resident, the_alarm_tells_of_fresh_pages_beyond_it_while_others_are_free_and_dirty) {
    struct told told = {0};
    struct pageheap_ops ops = {on_commit, on_commit, &told, on_alarm, on_release, NULL, NULL};
    struct pageheap *ph = tri__pageheap_create((size_t)64 * CHUNK_PAGES, (size_t)8 * CHUNK_PAGES, &ops);
    size_t low, wall, high;
    bool dirty;
    tri__pageheap_set_alarm(ph, 100);
    CHECK(tri__pageheap_alloc(ph, 40, &low, &dirty) && tri__pageheap_alloc(ph, 1, &wall, &dirty));
    tri__pageheap_free(ph, low, 40);
    CHECK(tri__pageheap_alloc(ph, 59, &high, &dirty));
    CHECK_EQ(told.nalarms, 0); /* 100 pages are resident */
    tri__pageheap_free(ph, high, 59);
    CHECK(tri__pageheap_alloc(ph, 60, &high, &dirty));
    CHECK(dirty);
    CHECK_EQ(told.nalarms, 0); /* most of them were resident already */
    CHECK(tri__pageheap_alloc(ph, 41, &high, &dirty) && !dirty);
    CHECK_EQ(told.nalarms, 1);
    CHECK_EQ(told.alarm_pages, 41);
    CHECK(tri__pageheap_alloc(ph, 40, &low, &dirty) && dirty);
    CHECK(tri__pageheap_alloc(ph, 500, &high, &dirty) && !dirty);
    CHECK_EQ(told.nalarms, 1); /* nothing is left that could go */
    CHECK_EQ(tri__pageheap_take_peak(ph), 1 + 60 + 41 + 40 + 500);
    tri__pageheap_free(ph, high, 500);
    CHECK_EQ(tri__pageheap_take_peak(ph), 1 + 60 + 41 + 40 + 500);
    CHECK_EQ(tri__pageheap_take_peak(ph), 1 + 60 + 41 + 40);
    tri__pageheap_destroy(ph);
}

/* Which pages have memory, as the callbacks and the takers leave it. */
enum { AHEAD_PAGES = 16 * CHUNK_PAGES };
struct world {
    bool resident[AHEAD_PAGES];
    struct pageheap *ph; /* scavenged in the middle of populating, if set */
    bool refuses;
    size_t ntold;
};
static bool world_decommit(void *context, size_t first, size_t npages) {
    struct world *w = context;
    memset(w->resident + first, 0, npages);
    return true;
}
static bool world_populate(void *context, size_t first, size_t npages) {
    struct world *w = context;
    if (w->refuses) return false;
    if (w->ph) tri__pageheap_scavenge(w->ph, SIZE_MAX);
    memset(w->resident + first, 1, npages);
    return true;
}
static void world_ahead(void *context) {
    ((struct world *)context)->ntold++;
}

static struct pageheap *world_begin(struct world *w) {
    struct pageheap_ops ops = {on_commit, world_decommit, w, NULL, NULL, world_populate, world_ahead};
    memset(w, 0, sizeof *w);
    struct pageheap *ph = tri__pageheap_create(AHEAD_PAGES, CHUNK_PAGES, &ops);
    CHECK(ph != NULL);
    return ph;
}

/* What is free and has memory counts as such. */
static void world_check(struct world *w, struct pageheap *ph) {
    struct pageheap_stats ps;
    size_t n = 0;
    for (size_t i = 0; i < AHEAD_PAGES; i++) n += w->resident[i] && !tri__pageheap_in_use(ph, i);
    tri__pageheap_get_stats(ph, &ps);
    CHECK_MSG(n <= ps.dirty_free_pages, "%zu free pages are resident, %zu are counted", n, ps.dirty_free_pages);
    CHECK_EQ(tri__pageheap_verify(ph, NULL, NULL), 0);
}

TEST(resident, what_growth_takes_next_is_populated_and_stays_clean) {
    static struct world w;
    struct pageheap *ph = world_begin(&w);
    struct pageheap_stats ps;
    size_t a, b;
    bool dirty, working;
    CHECK(tri__pageheap_alloc(ph, 100, &a, &dirty));
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 32);
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 18);
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 0);
    CHECK(working && w.resident[100] && w.resident[149] && !w.resident[150]);
    tri__pageheap_get_stats(ph, &ps);
    CHECK_EQ(ps.dirty_free_pages, 50);
    tri__pageheap_set_ahead(ph, 20);
    CHECK(tri__pageheap_alloc(ph, 30, &b, &dirty) && b == 100 && !dirty);
    CHECK_EQ(w.ntold, 0); /* 20 are left */
    CHECK(tri__pageheap_alloc(ph, 1, &b, &dirty) && !dirty);
    CHECK_EQ(w.ntold, 1);
    CHECK(tri__pageheap_alloc(ph, 1, &b, &dirty) && !dirty);
    CHECK_EQ(w.ntold, 1); /* once */
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 18);
    CHECK(!w.resident[132] && !w.resident[149]);
    /* A block that comes back untouched. */
    struct page_block block = {0, 0, 0};
    CHECK(tri__pageheap_alloc(ph, 192 - 132, &b, &dirty));
    CHECK_EQ(tri__pageheap_populate(ph, 50, 50, &working), 50);
    CHECK(tri__pageheap_take_block(ph, &block) && block.first == 192 && block.dirty == 0);
    tri__pageheap_put_block(ph, &block);
    world_check(&w, ph);
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 64);
    tri__pageheap_free(ph, b, 192 - 132);
    tri__pageheap_scavenge(ph, SIZE_MAX);
    /* A trim while the system populates: the slice counts as resident afterwards. */
    w.ph = ph;
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 32);
    w.ph = NULL;
    world_check(&w, ph);
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 32);
    w.refuses = true;
    tri__pageheap_populate(ph, 50, 32, &working);
    CHECK(!working);
    world_check(&w, ph);
    /* After a trim the same pages are the next ones again. */
    w.refuses = false;
    tri__pageheap_free(ph, a, 100);
    tri__pageheap_scavenge(ph, SIZE_MAX);
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 32);
    CHECK(w.resident[132] && !w.resident[50]);
    tri__pageheap_destroy(ph);
}

TEST(resident, populated_pages_are_never_lost_from_the_count) {
    static struct world w;
    uint64_t seed = fixture_seed();
    struct pageheap *ph = world_begin(&w);
    struct {
        size_t first, npages;
    } runs[64] = {{0, 0}};
    struct page_block block = {0, 0, 0};
    for (int step = 0; step < 4000; step++) {
        uint64_t r = fixture_random(&seed);
        size_t i = r % 64, npages = 1 + (r >> 8) % ((r >> 20) % 8 ? 12 : 300);
        bool dirty, working;
        if ((r >> 32) % 8 < 3) {
            tri__pageheap_populate(ph, (r >> 36) % 400, 1 + (r >> 48) % 64, &working);
        } else if ((r >> 32) % 64 == 63) {
            tri__pageheap_scavenge(ph, (r >> 40) % 500);
        } else if ((r >> 32) % 8 == 6) {
            if (block.free) {
                tri__pageheap_put_block(ph, &block);
            } else if (tri__pageheap_take_block(ph, &block)) {
                for (size_t k = 0; k < 64 && r >> 63; k++) /* half of them are written to, or none */
                    if (k % 2 && block.free >> k & 1) {
                        w.resident[block.first + k] = true;
                        block.dirty |= UINT64_C(1) << k;
                    }
            }
        } else if (runs[i].npages) {
            tri__pageheap_free(ph, runs[i].first, runs[i].npages);
            runs[i].npages = 0;
        } else if (tri__pageheap_alloc(ph, npages, &runs[i].first, &dirty)) {
            runs[i].npages = npages;
            memset(w.resident + runs[i].first, 1, npages);
        }
        if (step % 16 == 0) world_check(&w, ph);
    }
    tri__pageheap_put_block(ph, &block);
    for (size_t i = 0; i < 64; i++)
        if (runs[i].npages) tri__pageheap_free(ph, runs[i].first, runs[i].npages);
    tri__pageheap_scavenge(ph, SIZE_MAX);
    for (size_t i = 0; i < AHEAD_PAGES; i++) CHECK_MSG(!w.resident[i], "page %zu keeps its memory", i);
    tri__pageheap_destroy(ph);
}
