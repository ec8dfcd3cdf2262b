/*
 * Manual memory and the collector: blocks that are roots, and what builds with checks report: misuse with a block's
 * history, words that name objects which are about to be freed. The blocks themselves: test_manual.c.
 */
#include "tests/fixture.h"

#include <string.h>

/* ---- roots --------------------------------------------------------------------------------------------------- */

TEST(manual_checks, a_root_block_keeps_what_it_names_until_it_is_freed) {
    struct fixture f = fixture_open();
    tri_root *root;
    void **slots = tri_manual_root_new(f.thread, 100, NULL, &root);
    CHECK(slots != NULL && root != NULL);
    for (int i = 0; i < 100; i++) CHECK(slots[i] == NULL);
    uintptr_t hidden[100];
    for (int i = 0; i < 100; i++) {
        struct leaf *leaf = tri_new(f.thread, &leaf_type);
        hidden[i] = hide(leaf);
        tri_root_store(f.thread, root, &slots[i], leaf);
    }
    fixture_collect(&f);
    for (int i = 0; i < 100; i++) CHECK(is_alive(f.heap, hidden[i]));
    tri_root_store(f.thread, root, &slots[3], NULL);
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, hidden[3]) && is_alive(f.heap, hidden[4]));
    tri_manual_root_free(f.thread, root);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, hidden[4]));
    CHECK(tri_manual_root_new(f.thread, 0, NULL, &root) == NULL && root == NULL);
    CHECK(tri_manual_root_new(f.thread, SIZE_MAX / 8, NULL, &root) == NULL && root == NULL);
    fixture_close(&f);
}

/* ---- misuse -------------------------------------------------------------------------------------------------- */

static void expect(const char *what) {
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, what) != NULL, "reported: %s", fixture_report);
}

TEST(manual_checks, misuse_is_reported_with_the_blocks_history_and_does_nothing) {
    struct fixture f = fixture_open(), g = fixture_open();
    char *block = tri_manual_alloc(f.heap, 100), *large = tri_manual_alloc(f.heap, 500000);
    char *other = tri_manual_alloc(g.heap, 100);
    int local = 0;
    char history[128];
    tri_manual_free(f.heap, block + 16);
    expect("lies inside a block");
    CHECK_EQ(tri_manual_bytes(f.heap), 112 + align_up(500000, PAGE_BYTES));
    tri_manual_free(f.heap, large + 8192);
    expect("lies inside a block");
    tri_manual_free(f.heap, &local);
    expect("is no block of this heap");
    tri_manual_free(f.heap, other);
    expect("it belongs to another heap of this program");
    tri_manual_free(f.heap, tri_new(f.thread, &pair_type));
    expect("objects are freed by the collector, or with tri_free");
    CHECK(tri_manual_realloc(f.heap, &local, 10) == NULL);
    expect("is no block");
    CHECK_EQ(tri_manual_bytes(f.heap), 112 + align_up(500000, PAGE_BYTES));

    snprintf(history, sizeof history, "it had 100 bytes, allocated by thread %llu as operation 1, last freed by thread",
             (unsigned long long)tri__os_thread_id());
    tri_manual_free(f.heap, block);
    tri_manual_free(f.heap, block);
    expect(history);
    CHECK(strstr(fixture_report, "has been freed already") != NULL);
    tri_manual_free(f.heap, large);
    tri_manual_free(f.heap, large); /* its pages are gone: known from the ring */
    expect("it had 500000 bytes");

    tri_root *root;
    void *slots = tri_manual_root_new(f.thread, 4, NULL, &root);
    tri_manual_free(f.heap, slots);
    expect("is a block of tri_manual_root_new");
    tri_manual_root_free(f.thread, root);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    tri_manual_free(g.heap, other);
    fixture_close(&f);
    fixture_close(&g);
}

/* ---- manual_check -------------------------------------------------------------------------------------------- */

TEST(manual_checks, manual_check_names_both_ends_of_a_word_that_keeps_nothing_alive) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    CHECK_EQ(tri_heap_set(f.heap, "manual_check=1"), TRI_OK);
    uintptr_t *block = tri_manual_calloc(f.heap, 10, 8), *freed = tri_manual_calloc(f.heap, 10, 8);
    tri_root *root;
    void **slots = tri_manual_root_new(f.thread, 10, NULL, &root);
    tri_root_store(f.thread, root, &slots[1], tri_new(f.thread, &leaf_type));
    roots[0] = tri_new(f.thread, &leaf_type);
    block[2] = (uintptr_t)roots[0];
    block[3] = (uintptr_t)slots[1];
    freed[4] = (uintptr_t)tri_new(f.thread, &leaf_type);
    tri_manual_free(f.heap, freed);
    fixture_collect(&f);
    CHECK_EQ(fixture_take_reports(), 0); /* what it names lives by other roots; freed blocks are not read */
    struct pair *pair = tri_new(f.thread, &pair_type);
    block[5] = (uintptr_t)pair + 8;
    char text[128];
    snprintf(text, sizeof text, "names struct pair %p at offset 40", (void *)pair);
    fixture_collect(&f);
    expect(text);
    CHECK(strstr(fixture_report, "manual_check: the manual block") != NULL);
    fixture_collect(&f); /* it is gone: nothing to say */
    CHECK_EQ(fixture_take_reports(), 0);
    TRI_POP(f.thread, roots);
    tri_manual_root_free(f.thread, root);
    CHECK_EQ(tri_heap_set(f.heap, "manual_check=0"), TRI_OK);
    tri_manual_free(f.heap, block);
    fixture_close(&f);
}
