/*
 * The page heap against oracles that count page by page: the lowest fitting address every time, threads' blocks of 64
 * pages, the summaries, the counters, which pages may hold old bytes, what is scavenged and in which order; with
 * refusals of either callback injected at random, after which nothing may have changed and the same call must work.
 */
#include "tests/process.h"
#include "tests/random.h"

#include "alloc/base/bits.h"
#include "alloc/pageheap.h"

static void print_contradiction(void *context, const char *text) {
    (void)context;
    fprintf(stderr, "verify: %s\n", text);
}

/* ---- The naive oracle ---- */

enum page_state { ABSENT, CLEAN, DIRTY, USED };
enum { MAX_RUNS = 4096, MAX_BLOCKS = 4 };

struct run {
    size_t first, npages;
};

/* What the page heap must look like, a byte a page, and the callbacks that check what they are asked. */
struct model {
    struct pageheap *ph;
    size_t max_pages, grow_pages, frontier;
    uint8_t *pages;   /* enum page_state */
    uint8_t *content; /* 1: somebody wrote to the page since it last read as zero */
    struct run runs[MAX_RUNS];
    size_t nruns;
    struct page_block blocks[MAX_BLOCKS]; /* in the hands of as many threads */
    bool refuse;                          /* the next callback says no */
    size_t expected_grow;                 /* pages that the call may commit; 0: none */
    uint64_t returned;
    unsigned ncommits, ndecommits;
};

/* How often the steps worth testing came up, over a whole test; each must have. */
static struct {
    unsigned allocs, failures, grown, commits_refused, decommits_refused, dirty_allocs, clean_reused;
    unsigned blocks, block_failures, given_on, put_back;
} seen;

static size_t count_pages(const struct model *m, enum page_state which) {
    size_t n = 0;
    for (size_t i = 0; i < m->frontier; i++) {
        n += m->pages[i] == which;
    }
    return n;
}

static bool is_free(const struct model *m, size_t page) {
    return m->pages[page] == CLEAN || m->pages[page] == DIRTY;
}

/* First fit, the plainest way: the lowest run of npages free pages below the frontier. */
static bool model_find(const struct model *m, size_t npages, size_t *first) {
    size_t run = 0;
    for (size_t i = 0; i < m->frontier; i++) {
        run = is_free(m, i) ? run + 1 : 0;
        if (run == npages) {
            *first = i + 1 - npages;
            return true;
        }
    }
    return false;
}

/* How far the heap must grow for npages: whole steps, counting the free pages at the end; 0 if it cannot. */
static size_t model_growth(const struct model *m, size_t npages) {
    size_t tail = 0;
    while (tail < m->frontier && is_free(m, m->frontier - 1 - tail)) {
        tail++;
    }
    size_t missing = npages - tail, growth = 0;
    while (growth < missing) {
        growth += m->grow_pages;
    }
    size_t left = m->max_pages - m->frontier;
    return missing > left ? 0 : growth < left ? growth : left;
}

static bool on_commit(void *context, size_t first, size_t npages) {
    struct model *m = context;
    m->ncommits++;
    AGREE(first == m->frontier);
    AGREE(npages == m->expected_grow);
    if (m->refuse) {
        return false;
    }
    memset(m->pages + first, CLEAN, npages);
    m->frontier += npages;
    return true;
}

/* The run that scavenging must take next: from the highest dirty page down, 64 at most. */
static bool model_highest_dirty(const struct model *m, size_t most, struct run *run) {
    size_t end = m->frontier;
    while (end > 0 && m->pages[end - 1] != DIRTY) {
        end--;
    }
    size_t first = end;
    while (first > 0 && end - first < most && m->pages[first - 1] == DIRTY) {
        first--;
    }
    *run = (struct run){first, end - first};
    return end > 0;
}

static size_t scavenge_left; /* what on_decommit knows of the call under way */

static bool on_decommit(void *context, size_t first, size_t npages) {
    struct model *m = context;
    struct run expected;
    m->ndecommits++;
    AGREE(tri__lock_none_held());
    AGREE(model_highest_dirty(m, scavenge_left < 64 ? scavenge_left : 64, &expected));
    AGREE(first == expected.first);
    AGREE(npages == expected.npages);
    AGREE(tri__pageheap_in_use(m->ph, first) && tri__pageheap_in_use(m->ph, first + npages - 1));
    if (m->refuse) {
        return false;
    }
    scavenge_left -= npages;
    m->returned += npages;
    memset(m->pages + first, CLEAN, npages);
    memset(m->content + first, 0, npages);
    return true;
}

static void model_begin(struct model *m, size_t max_pages, size_t grow_pages) {
    memset(m, 0, sizeof *m);
    m->max_pages = max_pages;
    m->grow_pages = grow_pages;
    m->pages = calloc(max_pages, 1);
    m->content = calloc(max_pages, 1);
    struct pageheap_ops ops = {.commit = on_commit, .decommit = on_decommit, .context = m};
    m->ph = tri__pageheap_create(max_pages, grow_pages, &ops);
    AGREE(m->pages && m->content && m->ph);
}

static void model_end(struct model *m) {
    tri__pageheap_destroy(m->ph);
    free(m->pages);
    free(m->content);
}

static void check_stats(const struct model *m) {
    struct pageheap_stats s;
    tri__pageheap_get_stats(m->ph, &s);
    AGREE(s.committed_pages == m->frontier);
    AGREE(s.used_pages == count_pages(m, USED));
    AGREE(s.free_pages == m->frontier - count_pages(m, USED));
    AGREE(s.dirty_free_pages == count_pages(m, DIRTY));
    AGREE(s.returned_pages == m->returned);
}

/* A word's pages that are in this state. */
static uint64_t model_bits(const struct model *m, size_t first, enum page_state state) {
    uint64_t bits = 0;
    for (size_t i = first; i < first + 64 && i < m->max_pages; i++) {
        bits |= (uint64_t)(m->pages[i] == state) << (i - first);
    }
    return bits;
}

/* Every bit of both bitmaps is the oracle's; verify computes each summary from these. */
static void check_whole_heap(const struct model *m) {
    check_stats(m);
    for (size_t first = 0; first < m->max_pages; first += CHUNK_PAGES) {
        uint64_t free_bits[CHUNK_PAGES / 64], dirty_bits[CHUNK_PAGES / 64];
        tri__pageheap_get_chunk(m->ph, first / CHUNK_PAGES, free_bits, dirty_bits);
        for (size_t k = 0; k < CHUNK_PAGES / 64; k++) {
            uint64_t dirty = model_bits(m, first + k * 64, DIRTY);
            AGREE(free_bits[k] == (model_bits(m, first + k * 64, CLEAN) | dirty));
            AGREE(dirty_bits[k] == dirty);
        }
    }
    AGREE(tri__pageheap_in_use(m->ph, m->frontier / 2) == (m->pages[m->frontier / 2] == USED));
    AGREE(tri__pageheap_verify(m->ph, print_contradiction, NULL) == 0);
}

/* Takes note of a run that was given out, after comparing it with the one expected. */
static void note_alloc(struct model *m, struct run got, struct page_part part, size_t expected_first) {
    size_t first_dirty = SIZE_MAX, dirty_end = 0;
    bool dirty = part.first < part.end;
    AGREE(got.first == expected_first);
    for (size_t i = got.first; i < got.first + got.npages; i++) {
        AGREE(is_free(m, i));
        if (m->pages[i] == DIRTY) {
            first_dirty = first_dirty < i ? first_dirty : i;
            dirty_end = i + 1;
        }
        AGREE(m->content[i] == 0 || (i >= part.first && i < part.end)); /* what has old bytes is in the part */
        m->pages[i] = USED;
        m->content[i] = 1;
    }
    AGREE(dirty == (dirty_end > 0));
    AGREE(!dirty || (part.first == first_dirty && part.end == dirty_end));
    seen.allocs++;
    seen.dirty_allocs += dirty;
    seen.clean_reused += !dirty && m->returned > 0;
    m->runs[m->nruns++] = got;
}

static void step_alloc(struct model *m, size_t npages, bool refuse) {
    size_t expected, first = 0;
    struct page_part dirty = {0, 0};
    bool fits = model_find(m, npages, &expected);
    size_t growth = fits ? 0 : model_growth(m, npages);
    m->refuse = refuse;
    m->expected_grow = growth;
    unsigned ncommits = m->ncommits;
    bool ok = tri__pageheap_alloc_part(m->ph, npages, &first, &dirty);
    m->refuse = false;
    AGREE(m->ncommits - ncommits == (growth > 0));
    if (!fits && growth > 0 && refuse) {
        AGREE(!ok);
        seen.commits_refused++;
        check_stats(m);
        AGREE(tri__pageheap_verify(m->ph, print_contradiction, NULL) == 0);
        step_alloc(m, npages, false);
        return;
    }
    AGREE(ok == (fits || growth > 0));
    seen.failures += !ok;
    seen.grown += growth > 0;
    if (ok) {
        AGREE(model_find(m, npages, &expected)); /* anew: growth may have moved it */
        note_alloc(m, (struct run){first, npages}, dirty, expected);
    }
}

static void step_free(struct model *m) {
    size_t i = below(m->nruns);
    struct run r = m->runs[i];
    m->runs[i] = m->runs[--m->nruns];
    memset(m->pages + r.first, DIRTY, r.npages);
    tri__pageheap_free(m->ph, r.first, r.npages);
}

static void step_scavenge(struct model *m, size_t most, bool refuse) {
    size_t ndirty = count_pages(m, DIRTY);
    unsigned ncalls = m->ndecommits;
    m->refuse = refuse;
    scavenge_left = most;
    size_t returned = tri__pageheap_scavenge(m->ph, most);
    m->refuse = false;
    if (refuse && ndirty > 0 && most > 0) {
        AGREE(returned == 0);
        AGREE(m->ndecommits == ncalls + 1);
        seen.decommits_refused++;
        check_stats(m);
        step_scavenge(m, most, false);
        return;
    }
    AGREE(returned == (ndirty < most ? ndirty : most));
}

/* Fills an empty block: with every free page of the word that holds the lowest one. */
static void step_take_block(struct model *m, struct page_block *block, bool refuse) {
    size_t lowest;
    bool fits = model_find(m, 1, &lowest);
    size_t growth = fits ? 0 : model_growth(m, 1);
    m->refuse = refuse;
    m->expected_grow = growth;
    unsigned ncommits = m->ncommits;
    bool ok = tri__pageheap_take_block(m->ph, block);
    m->refuse = false;
    AGREE(m->ncommits - ncommits == (growth > 0));
    AGREE(ok == (fits || (growth > 0 && !refuse)));
    AGREE(ok == (block->free != 0));
    if (!ok) {
        seen.block_failures++;
        return;
    }
    AGREE(model_find(m, 1, &lowest)); /* anew: growth may have brought it */
    AGREE(block->first == lowest / 64 * 64);
    AGREE(block->dirty == model_bits(m, block->first, DIRTY));
    AGREE(block->free == (model_bits(m, block->first, CLEAN) | block->dirty));
    for (size_t i = 0; i < 64; i++) {
        if (block->free >> i & 1) {
            m->pages[block->first + i] = USED;
        }
    }
    seen.blocks++;
}

/* Some of a block's pages are given on, each as a run that is freed by itself; a clean one is zero. */
static void step_use_block(struct model *m, struct page_block *block) {
    uint64_t which = next_random() & next_random() & block->free;
    for (size_t i = 0; i < 64; i++) {
        size_t page = block->first + i;
        if (!(which >> i & 1) || m->nruns == MAX_RUNS) {
            continue;
        }
        AGREE(m->content[page] == 0 || (block->dirty >> i & 1));
        m->content[page] = 1;
        m->runs[m->nruns++] = (struct run){page, 1};
        block->free &= ~((uint64_t)1 << i);
        block->dirty &= ~((uint64_t)1 << i);
        seen.given_on++;
    }
}

/* What is left of a block goes back as it was taken: clean pages are clean still. */
static void step_put_block(struct model *m, struct page_block *block) {
    for (size_t i = 0; i < 64; i++) {
        if (block->free >> i & 1) {
            m->pages[block->first + i] = block->dirty >> i & 1 ? DIRTY : CLEAN;
            seen.put_back++;
        }
    }
    tri__pageheap_put_block(m->ph, block);
    AGREE(block->free == 0 && block->dirty == 0);
}

static void step_block(struct model *m, bool refuse) {
    struct page_block *block = &m->blocks[below(MAX_BLOCKS)];
    if (block->free == 0) {
        step_take_block(m, block, refuse);
    } else if (below(3) > 0) {
        step_use_block(m, block);
    } else {
        step_put_block(m, block);
    }
}

static size_t random_npages(const struct model *m) {
    switch (below(16)) {
    case 0: return 1 + below(m->max_pages / 4);
    case 1: return CHUNK_PAGES - 2 + below(5);
    case 2:
    case 3: return 1 + below(130);
    default: return 1 + below(10);
    }
}

/* `pressure` of 16 steps allocate, so that it fills the heap or drains it. */
static void random_steps(struct model *m, size_t nsteps, size_t check_every) {
    size_t pressure = 8;
    for (size_t i = 0; i < nsteps; i++) {
        if (i % 2048 == 0) {
            pressure = 5 + below(6);
        }
        bool refuse = below(8) == 0;
        size_t what = below(64);
        if (what == 0) {
            step_scavenge(m, below(4) == 0 ? m->max_pages : below(200), refuse);
        } else if (what < 3) {
            step_block(m, refuse);
        } else if (what % 16 < pressure && m->nruns < MAX_RUNS) {
            step_alloc(m, random_npages(m), refuse);
        } else if (m->nruns > 0) {
            step_free(m);
        }
        if (i % check_every == check_every - 1) {
            check_whole_heap(m);
        }
    }
    for (size_t i = 0; i < MAX_BLOCKS; i++) {
        step_put_block(m, &m->blocks[i]);
    }
    while (m->nruns > 0) {
        step_free(m);
    }
    check_whole_heap(m);
    step_scavenge(m, m->max_pages, false);
    check_whole_heap(m);
}

/* A million; fewer where every access is watched. */
static size_t total_steps(void) {
    return test_stress() ? 4000000 : TEST_UNDER_TSAN || TEST_UNDER_ASAN ? 200000 : 1000000;
}

/* A share of the steps on one shape of reservation, in `rounds` heaps, so that growth is met often. */
static void property(size_t max_pages, size_t grow_pages, size_t percent, size_t rounds, uint64_t fallback_seed) {
    static struct model m;
    begin_random(fallback_seed);
    size_t nsteps = total_steps() * percent / 100 / rounds;
    for (size_t round = 0; round < rounds; round++) {
        model_begin(&m, max_pages, grow_pages);
        random_steps(&m, nsteps, 100);
        model_end(&m);
    }
    AGREE(seen.allocs > nsteps * rounds / 4);
    AGREE(seen.failures > 0 && seen.grown > rounds && seen.commits_refused > 0 && seen.decommits_refused > 0);
    AGREE(seen.dirty_allocs > 0 && seen.clean_reused > 0);
    AGREE(seen.blocks > nsteps * rounds / 1000);
    AGREE(seen.block_failures > 0 || max_pages > 10000); /* that many are never all in use */
    AGREE(seen.given_on > seen.blocks && seen.put_back > seen.blocks);
}

/* Together total_steps() steps, over three shapes of reservation. */
TEST(pageheap, agrees_with_the_oracle_on_8_MiB) {
    property(1024, CHUNK_PAGES, 57, 500, 11);
}

TEST(pageheap, agrees_with_the_oracle_on_an_odd_size) {
    property(5003, 2 * CHUNK_PAGES, 40, 200, 12);
}

TEST(pageheap, agrees_with_the_oracle_over_several_levels) {
    property(70001, 16 * CHUNK_PAGES, 3, 5, 13);
}

/* ---- A reservation of 2^27 pages, where a byte a page is too much: the oracle keeps the runs given out, sorted -- */

enum { WIDE_SHIFT = 27, WIDE_RUNS = 256 };

struct wide {
    struct run runs[WIDE_RUNS]; /* by address */
    size_t nruns, frontier, grow_pages;
};

static bool wide_commit(void *context, size_t first, size_t npages) {
    struct wide *w = context;
    AGREE(first == w->frontier);
    AGREE(npages % w->grow_pages == 0);
    w->frontier += npages;
    return true;
}

static bool wide_decommit(void *context, size_t first, size_t npages) {
    (void)context;
    (void)first;
    AGREE(npages <= 64);
    return true;
}

/* Where a run of npages must go, and behind how many of the others; SIZE_MAX if nowhere. */
static size_t wide_find(const struct wide *w, size_t npages, size_t *position) {
    size_t at = 0;
    for (*position = 0; *position < w->nruns && w->runs[*position].first - at < npages; (*position)++) {
        at = w->runs[*position].first + w->runs[*position].npages;
    }
    return ((size_t)1 << WIDE_SHIFT) - at < npages ? SIZE_MAX : at;
}

static void wide_step(struct pageheap *ph, struct wide *w) {
    static const size_t shapes[] = {1, 64, 512, 1 << 12, 1 << 18, (1 << 21) - 3, (1 << 21) + 1, 1 << 22, 1 << 24};
    size_t position, first = 0;
    bool dirty;
    if (w->nruns < WIDE_RUNS && below(16) < 9) {
        size_t npages = shapes[below(TRI_COUNT(shapes))];
        npages += below(4) == 0 ? below(npages) : 0;
        size_t expected = wide_find(w, npages, &position);
        bool ok = tri__pageheap_alloc(ph, npages, &first, &dirty);
        AGREE(ok == (expected != SIZE_MAX));
        if (ok) {
            AGREE(first == expected);
            memmove(&w->runs[position + 1], &w->runs[position], (w->nruns - position) * sizeof w->runs[0]);
            w->runs[position] = (struct run){first, npages};
            w->nruns++;
        }
    } else if (w->nruns > 0) {
        size_t i = below(w->nruns);
        tri__pageheap_free(ph, w->runs[i].first, w->runs[i].npages);
        w->nruns--;
        memmove(&w->runs[i], &w->runs[i + 1], (w->nruns - i) * sizeof w->runs[0]);
    }
}

TEST(pageheap, agrees_with_the_oracle_over_one_TiB) {
    static struct wide w;
    begin_random(14);
    w.grow_pages = 8192;
    struct pageheap_ops ops = {.commit = wide_commit, .decommit = wide_decommit, .context = &w};
    struct pageheap *ph = tri__pageheap_create((size_t)1 << WIDE_SHIFT, w.grow_pages, &ops);
    AGREE(ph != NULL);
    AGREE(tri__pageheap_metadata_bytes(ph) < 4096); /* nothing proportional to the reservation before it is used */
    size_t nsteps = test_stress() ? 20000 : 1500;
    for (size_t i = 0; i < nsteps; i++) {
        wide_step(ph, &w);
        if (i % 500 == 499) {
            AGREE(tri__pageheap_verify(ph, print_contradiction, NULL) == 0);
        }
    }
    tri__pageheap_scavenge(ph, 1000);
    AGREE(tri__pageheap_verify(ph, print_contradiction, NULL) == 0);
    tri__pageheap_destroy(ph);
}

/* ---- Edges ---- */

TEST(pageheap, refuses_what_it_cannot_hold) {
    static struct model m;
    begin_random(15);
    struct pageheap_ops ops = {.commit = on_commit, .decommit = on_decommit, .context = &m};
    CHECK(tri__pageheap_create(0, CHUNK_PAGES, &ops) == NULL);
    CHECK(tri__pageheap_create(1024, 0, &ops) == NULL);
    CHECK(tri__pageheap_create(1024, 100, &ops) == NULL);
    model_begin(&m, 1000, CHUNK_PAGES);
    size_t first;
    bool dirty;
    CHECK(!tri__pageheap_alloc(m.ph, 0, &first, &dirty));
    CHECK(!tri__pageheap_alloc(m.ph, 1001, &first, &dirty));
    CHECK(!tri__pageheap_alloc(m.ph, SIZE_MAX, &first, &dirty));
    CHECK_EQ(m.ncommits, 0);
    step_alloc(&m, 1000, true);
    step_alloc(&m, 1, false);
    CHECK_EQ(m.nruns, 1);
    CHECK(!tri__pageheap_in_use(m.ph, 1000000));
    check_whole_heap(&m);
    model_end(&m);
}

#if !PROCESS_CANNOT_STARVE
/* The system may refuse the page heap's own memory, too. A reservation takes none of it, a bitmap does. */
TEST(pageheap, survives_without_memory_for_its_bitmaps) {
    static struct model m;
    size_t first = 0;
    bool dirty;
    begin_random(16);
    model_begin(&m, 100000, CHUNK_PAGES);
    process_limit(RLIMIT_DATA, 4096);
    bool ok = tri__pageheap_alloc(m.ph, 7, &first, &dirty);
    process_limit(RLIMIT_DATA, SIZE_MAX);
    CHECK(!ok);
    CHECK_EQ(m.ncommits, 0);
    check_whole_heap(&m);
    step_alloc(&m, 7, false);
    CHECK_EQ(m.nruns, 1);
    check_whole_heap(&m);
    model_end(&m);
}
#endif

TEST(pageheap, a_run_freed_twice_is_fatal, .signal = SIGABRT) {
    static struct model m;
    begin_random(17);
    model_begin(&m, 1024, CHUNK_PAGES);
    step_alloc(&m, 3, false);
    tri__pageheap_free(m.ph, 0, 3);
    tri__pageheap_free(m.ph, 1, 1);
}
