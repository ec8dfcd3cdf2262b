/*
 * The heap's pace: what of the pacer's figures reaches allocating threads, bytes outside the heap, options that change
 * while cycles run, and limits close to what lives.
 */
#include "tests/fixture.h"

/* ---- Bytes outside ---- */

TEST(pace, external_bytes_bring_cycles_nearer_but_do_not_stack_them) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    tri_external(f.thread, (ptrdiff_t)200 * MIB);
    for (size_t i = 0; i < 40 * MIB / 64; i++) CHECK(tri_new_bytes(f.thread, 64) != NULL);
    tri_stats s = fixture_stats(f.heap);
    CHECK_MSG(s.cycles <= 5, "%llu cycles for 40 MiB beside 200 MiB outside", (unsigned long long)s.cycles);
    tri_external(f.thread, -(ptrdiff_t)200 * MIB);
    fixture_collect(&f);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    CHECK_EQ(fixture_stats(f.heap).goal_bytes, 4 * MIB);
    fixture_close(&f);
}

/* A thread that allocates nothing, and only tells of bytes outside, starts cycles all the same. */
TEST(pace, external_bytes_alone_start_cycles, .timeout = 60) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    for (int i = 0; i < 64; i++) {
        tri_external(f.thread, MIB);
        tri_poll(f.thread);
    }
    for (int i = 0; i < 5000 && fixture_stats(f.heap).cycles == 0; i++) {
        tri_poll(f.thread);
        fixture_sleep_ms(1);
    }
    CHECK(fixture_stats(f.heap).cycles > 0);
    tri_external(f.thread, -(ptrdiff_t)64 * MIB);
    fixture_close(&f);
}

static void give_back_a_megabyte(void *arg) {
    tri_external(arg, -(ptrdiff_t)MIB);
}

/* Buffers of a megabyte behind small objects that die at once. Cleanups run after a cycle's end, when its goal is set:
 * what they take back was garbage, and must not make the goals grow from cycle to cycle. */
TEST(pace, bytes_that_wait_for_cleanups_do_not_raise_the_goal, .timeout = 60) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    size_t most_goal_bytes = 0;
    uint64_t seen = 0;
    for (int i = 0; i < 2000; i++) {
        void *obj = tri_new(f.thread, &leaf_type);
        CHECK_EQ(tri_cleanup_add(f.thread, obj, give_back_a_megabyte, f.thread), TRI_OK);
        tri_external(f.thread, MIB);
        tri_poll(f.thread);
        if (i % 4 == 0) fixture_sleep_ms(1); /* a server that is not all load: the collector gets its turn */
        if (fixture_stats(f.heap).cycles == seen) continue;
        seen = fixture_stats(f.heap).cycles;
        tri_cleanup_run(f.thread, SIZE_MAX); /* after the cycle's end, not in the middle of it */
        size_t goal_bytes = fixture_stats(f.heap).goal_bytes;
        if (i > 1000 && goal_bytes > most_goal_bytes) most_goal_bytes = goal_bytes;
    }
    CHECK_MSG(fixture_stats(f.heap).cycles > 10, "%llu cycles", (unsigned long long)fixture_stats(f.heap).cycles);
    CHECK_MSG(most_goal_bytes < 256 * (size_t)MIB, "the goal rose to %zu MB", most_goal_bytes / MIB);
    fixture_collect(&f);
    tri_cleanup_run(f.thread, SIZE_MAX);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    fixture_close(&f);
}

TEST(pace, taking_back_more_external_bytes_than_there_are_is_reported) {
    struct fixture f = fixture_open();
    tri_external(f.thread, 1000);
    tri_external(f.thread, -1001);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_external"), "%s", fixture_report);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    fixture_close(&f);
}

TEST(pace, the_least_heap_sets_the_first_goal) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    CHECK_EQ(fixture_stats(f.heap).goal_bytes, 4 * MIB);
    CHECK(fixture_stats(f.heap).trigger_bytes >= 2 * MIB);
    for (size_t i = 0; i < 100 * MIB / 256; i++) CHECK(tri_new_bytes(f.thread, 256) != NULL);
    fixture_collect(&f);
    tri_stats s = fixture_stats(f.heap);
    CHECK_MSG(s.cycles >= 20 && s.cycles <= 130, "%llu cycles for 100 MiB of garbage", (unsigned long long)s.cycles);
    CHECK(s.committed_bytes <= 8 * MIB);
    fixture_close(&f);
}
