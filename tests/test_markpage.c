/*
 * Candidates by page (gc/markpage.c): every way in which an address may lie in a page, pages that contend for a place,
 * the entries that they become, and the choice between the two ways of marking.
 */
#include "tests/held.h"

#include "gc/mark_inline.h"

/* ---- addresses --------------------------------------------------------------------------------------------------- */

struct bytes_of {
    const char *name;
    size_t bytes, offset; /* of the object, and where the reference points in it */
};

static const struct bytes_of places[] = {
    {"8-byte objects", 8, 0},
    {"the smallest", 16, 8},
    {"inside, in another granule", 48, 40},
    {"inside, in another word of marks", 2048, 1040},
    {"three pages, in another page", 6144, 5000},
    {"the last byte", 24, 23},
    {"large ones", 100000, 0},
    {"inside of large ones", 100000, 77777},
};

/* Leaves of each size, named by their start or by an inner address alone, from one dense array: each lives, and the
 * others in between die. */
TEST(markpage, every_address_keeps_its_object) {
    enum { N = 300 };
    for (size_t k = 0; k < TRI_COUNT(places); k++) {
        struct fixture f = open_heap(TRI_CHECKS ? "checkmark=1" : NULL, NULL);
        TRI_LOCALS(f.thread, locals, 1);
        void **array = locals[0] = tri_new_n(f.thread, &array_type, N);
        static uintptr_t kept[N], dropped[N];
        CHECK(array != NULL);
        for (size_t i = 0; i < N; i++) {
            char *obj = tri_new_bytes(f.thread, places[k].bytes), *other = tri_new_bytes(f.thread, places[k].bytes);
            CHECK(obj && other);
            if (i % 2) { /* so that of small ones the second of a granule is kept, too */
                char *first = obj;
                obj = other;
                other = first;
            }
            kept[i] = hide(obj);
            dropped[i] = hide(other);
            tri_store(f.thread, array, &array[i], obj + places[k].offset);
        }
        for (int round = 0; round < 2; round++) fixture_collect(&f);
        for (size_t i = 0; i < N; i++) {
            CHECK_MSG(is_alive(f.heap, kept[i]), "%s: object %zu is lost", places[k].name, i);
            CHECK_MSG(!is_alive(f.heap, dropped[i]), "%s: object %zu is kept", places[k].name, i);
        }
        expect_silence();
        TRI_POP(f.thread, locals);
        close_heap(&f);
    }
}

/* ---- a marker of the test's own ---------------------------------------------------------------------------------- */

struct bench {
    struct fixture f;
    struct marker marker;
    struct page_set set;
};

static void open_bench(struct bench *b) {
    b->f = fixture_open();
    tri__marker_init(&b->marker, b->f.heap, &b->set);
}

/* How many candidates are in hand, in all their forms, counting places and buffers of the list. */
static size_t count_candidates(struct bench *b) {
    size_t n = 0;
    for (size_t i = 0; i < SET_PAGES; i++)
        for (size_t w = 0; w < PAGE_BIT_WORDS; w++) n += (size_t)__builtin_popcountll(b->set.each[i].bits[w]);
    struct workbuf *bufs[64];
    size_t nbufs = 0;
    if (b->marker.buf) bufs[nbufs++] = b->marker.buf;
    for (struct workbuf *buf = b->f.heap->work.full; buf; buf = buf->next) bufs[nbufs++] = buf;
    for (size_t k = 0; k < nbufs; k++)
        for (size_t at = bufs[k]->n; at > 0;) {
            uintptr_t tag = bufs[k]->entries[--at] & WORK_TAG_MASK;
            n += tag == WORK_CANDIDATE;
            for (size_t w = 0; tag == WORK_PAGE && w < PAGE_BIT_WORDS; w++)
                n += (size_t)__builtin_popcountll(bufs[k]->entries[--at]);
        }
    return n;
}

static void close_bench(struct bench *b) {
    for (struct workbuf *buf; (buf = tri__work_get_full(&b->f.heap->work));) {
        buf->n = 0;
        tri__work_put_empty(&b->f.heap->work, buf);
    }
    if (b->marker.buf) {
        b->marker.buf->n = 0;
        tri__work_put_empty(&b->f.heap->work, b->marker.buf);
    }
    fixture_close(&b->f);
}

/* Pages whose numbers differ by SET_PAGES share a place; the one that is there goes to the buffer, as one entry with
 * its words, or as candidates where they are few; nothing is lost on any way, and no page is in two places (I-SET1,
 * I-SET2). */
TEST(markpage, pages_that_contend_for_a_place_lose_nothing) {
    struct bench b;
    open_bench(&b);
    uint64_t rng = fixture_seed();
    size_t n = 0;
    static uint8_t seen[8 * SET_PAGES][512];
    uintptr_t base = b.f.heap->mem.space.base;
    for (int i = 0; i < 6000; i++) { /* some pages get many, some few */
        size_t page = fixture_random(&rng) % (8 * SET_PAGES), granule = fixture_random(&rng) % 512;
        if (page % 3 == 0) page = page % 6 * SET_PAGES;
        if (!seen[page][granule]) {
            seen[page][granule] = 1;
            mark_candidate(&b.marker, base + page * PAGE_BYTES + granule * 16);
            n++;
        }
        if (i == 3000) tri__mark_pages_flush(&b.marker);
    }
    uint8_t used[SET_PAGES] = {0};
    for (unsigned i = 0; i < b.set.nused; i++) CHECK_EQ(used[b.set.used[i]]++, 0);
    for (size_t i = 0; i < SET_PAGES; i++) {
        CHECK_EQ(used[i], b.set.each[i].page != NO_PAGE);
        CHECK(b.set.each[i].page == NO_PAGE || b.set.each[i].page % SET_PAGES == i);
    }
    CHECK_EQ(count_candidates(&b), n);
    CHECK(!tri__marker_is_idle(&b.marker));
    CHECK(tri__marker_hand_over(&b.marker));
    CHECK(tri__marker_is_idle(&b.marker));
    CHECK_EQ(b.set.nused, 0);
    CHECK_EQ(count_candidates(&b), n);
    close_bench(&b);
}

/* What is shared is cut between entries, never in the words of one. */
TEST(markpage, a_buffer_is_shared_between_its_entries) {
    for (unsigned npages = 1; npages <= 25; npages++) {
        struct bench b;
        open_bench(&b);
        uintptr_t base = b.f.heap->mem.space.base;
        for (uintptr_t i = 0; i < npages; i++) {
            for (uintptr_t g = 0; g < 20; g++) mark_candidate(&b.marker, base + i * PAGE_BYTES + (g * 7 + i) * 16);
            tri__mark_pages_flush(&b.marker);
            for (uintptr_t k = 0; k < i % 3; k++) mark_push(&b.marker, (base + k * PAGE_BYTES + 8) | WORK_CANDIDATE);
        }
        size_t n = count_candidates(&b);
        for (int i = 0; i < 4; i++) tri__mark_share(&b.marker);
        CHECK_EQ(count_candidates(&b), n);
        close_bench(&b);
    }
}

/* ---- the choice -------------------------------------------------------------------------------------------------- */

/* Lists through the pages, one in the order of the addresses and one against it, as what is built from its leaves up: a
 * page is visited about once, not once for each word of its marks. */
TEST(markpage, pages_are_visited_in_the_graphs_direction) {
    enum { N = 2000, PAGES = N * 32 / PAGE_BYTES + 1 };
    for (int downward = 0; downward < 2; downward++) {
        struct fixture f = open_heap(NULL, NULL);
        TRI_LOCALS(f.thread, locals, 2);
        struct pair *before = locals[0] = tri_new(f.thread, &pair_type);
        locals[1] = before;
        for (size_t i = 1; i < N; i++) {
            struct pair *p = tri_new(f.thread, &pair_type);
            CHECK(before != NULL && p != NULL);
            if (downward)
                tri_store(f.thread, p, &p->left, locals[0]);
            else
                tri_store(f.thread, locals[0], &((struct pair *)locals[0])->left, p);
            locals[0] = p;
        }
        locals[downward ? 1 : 0] = NULL;
        unsigned nvisits = 0;
        for (int round = 0; round < 3; round++) { /* the first one finds out, and checks hold the world in some */
            f.heap->page_set.nvisits = 0;
            fixture_collect(&f);
            if (round == 0 || f.heap->page_set.nvisits < nvisits) nvisits = f.heap->page_set.nvisits;
        }
        CHECK_EQ(f.heap->page_set.downward, downward != 0);
        CHECK_MSG(nvisits >= PAGES && nvisits <= 3 * PAGES, "%u visits of %d pages", nvisits, PAGES);
        TRI_POP(f.thread, locals);
        close_heap(&f);
    }
}

/* Objects one after the other go by page; the same objects in no order do not, and it is tried less and less often. */
TEST(markpage, the_way_of_marking_follows_the_graph) {
    enum { N = TEST_IS_SLOW ? 40000 : 150000 };
    struct fixture f = open_heap(NULL, NULL);
    TRI_LOCALS(f.thread, locals, 1);
    const struct page_set *set = &f.heap->page_set;
    struct pair **array = locals[0] = tri_new_n(f.thread, &array_type, N);
    CHECK(array != NULL);
    for (size_t i = 0; i < N; i++) {
        struct pair *p = tri_new(f.thread, &pair_type);
        CHECK(p != NULL);
        tri_store(f.thread, array, &array[i], p);
    }
    for (int round = 0; round < 3; round++) {
        fixture_collect(&f);
        CHECK(set->on);
        CHECK_EQ(set->nused, 0);
    }
    uint64_t rng = fixture_seed(), first = set->patience;
    for (size_t i = N - 1; i > 0; i--) {
        size_t j = fixture_random(&rng) % (i + 1);
        struct pair *p = array[i];
        tri_store(f.thread, array, &array[i], array[j]);
        tri_store(f.thread, array, &array[j], p);
        tri_poll(f.thread);
    }
    bool was_off = false;
    for (int round = 0; round < 20 && !(was_off && set->patience > 2 * first); round++) {
        fixture_collect(&f);
        was_off |= !set->on;
    }
    CHECK_MSG(was_off && set->patience > 2 * first, "off %d, patience %llu", was_off,
              (unsigned long long)set->patience);
    uint64_t marked = fixture_stats(f.heap).marked_objects;
    fixture_collect(&f);
    CHECK_EQ(fixture_stats(f.heap).marked_objects - marked, N + 1);
    TRI_POP(f.thread, locals);
    close_heap(&f);
}
