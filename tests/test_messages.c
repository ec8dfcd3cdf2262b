/*
 * What the library says when it refuses: each message that no other test reads, provoked once. It begins with the
 * call's name and says what was wrong, and where there is a way to do it right, which.
 */
#include "tests/held.h"

/* The expression holds, and the call has said this. */
#define EXPECT_SAID(expression_, said_)                                                                                \
    do {                                                                                                               \
        tri_heap_destroy(NULL); /* another call's words, so that silence shows */                                      \
        CHECK_MSG((expression_), "%s does not hold: \"%s\"", #expression_, tri_last_error());                          \
        CHECK_MSG(strncmp(tri_last_error(), said_, strlen(said_)) == 0, "%s: \"%s\"", #expression_, tri_last_error()); \
    } while (0)

TEST(messages, of_making_a_heap) {
    tri_heap *heap;
    tri_config good = fixture_config(0), bad = good;
    EXPECT_SAID(tri_heap_create(&good, NULL) == TRI_EINVAL, "tri_heap_create: out is NULL");
    bad.struct_size = 3;
    EXPECT_SAID(tri_heap_create(&bad, &heap) == TRI_EINVAL,
                "tri_heap_create: config.struct_size is not set; call tri_config_init first");
    bad = good;
    bad.flags = 1u << 20;
    EXPECT_SAID(tri_heap_create(&bad, &heap) == TRI_EINVAL, "tri_heap_create: unknown flags 0x100000");
    bad = good;
    bad.growth_percent = 4;
    EXPECT_SAID(tri_heap_create(&bad, &heap) == TRI_EINVAL, "tri_heap_create: growth_percent 4 is not in 5..100000");
    bad = good;
    bad.reserve_bytes = 4096;
    EXPECT_SAID(tri_heap_create(&bad, &heap) == TRI_EINVAL, "tri_heap_create: reserve_bytes 4096 is less than ");
    bad = good;
    bad.hard_limit_bytes = 4096;
    EXPECT_SAID(tri_heap_create(&bad, &heap) == TRI_EINVAL, "tri_heap_create: hard_limit_bytes 4096 is less than ");
    bad = good;
    bad.wait_limit_ms = 0;
    EXPECT_SAID(tri_heap_create(&bad, &heap) == TRI_EINVAL, "tri_heap_create: wait_limit_ms is 0; UINT64_MAX waits ");
}

TEST(messages, of_options) {
    struct fixture f = fixture_open();
    EXPECT_SAID(tri_heap_set(f.heap, "cycles=maybe") == TRI_EINVAL, "tri_heap_set: cycles is on or off, not maybe");
    EXPECT_SAID(tri_heap_set(f.heap, "metadata_huge=1") == TRI_EINVAL,
                "tri_heap_set: metadata_huge is on or off, not 1");
    EXPECT_SAID(tri_heap_set(f.heap, "growth_percent=3") == TRI_EINVAL,
                "tri_heap_set: growth_percent: 3 is not in 5..100000");
    EXPECT_SAID(tri_heap_set(f.heap, "mode=fast") == TRI_EINVAL,
                "tri_heap_set: mode is concurrent, insertion, stop-mark, stop or incremental, not fast");
    EXPECT_SAID(tri_heap_set(NULL, "cycles=on") == TRI_EINVAL, "tri_heap_set: heap or option is NULL");
    if (TRI_CHECKS >= 1)
        EXPECT_SAID(tri_heap_set(f.heap, "fault=of_ours") == TRI_EINVAL, "tri_heap_set: of_ours is no fault");
    fixture_close(&f);
}

static void *attach_blocked(void *arg) {
    tri_thread *thread;
    EXPECT_SAID(tri_attach(arg, 0, &thread) == TRI_ESTATE,
                "tri_attach: the thread is inside tri_blocking; go through tri_callin");
    return NULL;
}

TEST(messages, of_heaps_and_threads) {
    struct fixture f = fixture_open(), g = fixture_open();
    tri_heap *other;
    tri_config config = fixture_config(0);
    CHECK_EQ(tri_heap_create(&config, &other), TRI_OK);
    tri_blocking(f.thread, attach_blocked, other);
    CHECK_EQ(tri_heap_destroy(other), TRI_OK);
    tri_thread *thread;
    EXPECT_SAID(tri_attach(f.heap, 1u << 9, &thread) == TRI_EINVAL, "tri_attach: unknown flags 0x200");
    CHECK_EQ(tri_heap_destroy(NULL), TRI_EINVAL);
    CHECK_STR_EQ(tri_last_error(), "tri_heap_destroy: heap is NULL");
    EXPECT_SAID(tri_trim(NULL) == 0, "tri_trim: heap is NULL");
    EXPECT_SAID(tri_class_stats(f.heap, NULL, 3) == TRI_EINVAL, "tri_class_stats: heap is NULL, or out with n 3");
    EXPECT_SAID(tri_layout_stats(NULL, NULL, 0) == TRI_EINVAL, "tri_layout_stats: heap is NULL, or out with n 0");
    EXPECT_SAID(tri_dump_heap_map(NULL, 1) == TRI_EINVAL, "tri_dump_heap_map: heap is NULL");
    CHECK(tri_new(f.thread, &leaf_type) != NULL); /* there is something to write */
    EXPECT_SAID(tri_dump_heap_map(f.heap, -1) == TRI_EINVAL,
                "tri_dump_heap_map: file descriptor -1 cannot be written: Bad file descriptor");
    fixture_close(&g);
    fixture_close(&f);
}

TEST(messages, of_objects_and_blocks) {
    struct fixture f = fixture_open();
    tri_root *root;
    EXPECT_SAID(tri_new_aligned(f.thread, 48, 100) == NULL,
                "tri_new_aligned: an alignment of 48 is no power of two up to 8192; use tri_manual_aligned beyond");
    EXPECT_SAID(tri_manual_aligned(f.heap, 24, 100) == NULL,
                "tri_manual_aligned: align_bytes 24 is no power of two up to 1 GiB");
    EXPECT_SAID(tri_manual_root_new(f.thread, 0, NULL, &root) == NULL && !root,
                "tri_manual_root_new: root is NULL, or nslots is 0");
    EXPECT_SAID(tri_manual_root_new(f.thread, 5, NULL, NULL) == NULL,
                "tri_manual_root_new: root is NULL, or nslots is 0");
    static tri_word slots[3];
    EXPECT_SAID(tri_root_add(f.thread, slots, 0, NULL) == NULL,
                "tri_root_add: slots is NULL or not 8-byte aligned, or nslots is 0");
    EXPECT_SAID(tri_root_add(f.thread, (char *)slots + 4, 2, NULL) == NULL,
                "tri_root_add: slots is NULL or not 8-byte aligned, or nslots is 0");
    fixture_close(&f);
}

static void no_cleanup(void *arg) {
    (void)arg;
}

TEST(messages, of_cleanups) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    void *obj = roots[0] = tri_new(f.thread, &leaf_type);
    EXPECT_SAID(tri_cleanup_add(f.thread, obj, NULL, NULL) == TRI_EINVAL,
                "tri_cleanup_add: fn is NULL; pass the function that cleans up");
    CHECK_EQ(tri_cleanup_add(f.thread, obj, no_cleanup, &f), TRI_OK);
    char said[64];
    snprintf(said, sizeof said, "tri_cleanup_remove: object %p has no such cleanup", obj);
    EXPECT_SAID(tri_cleanup_remove(f.thread, obj, no_cleanup, NULL) == TRI_EINVAL, said);
    CHECK_EQ(tri_cleanup_remove(f.thread, obj, no_cleanup, &f), TRI_OK);
    EXPECT_SAID(tri_cleanup_remove(f.thread, obj, no_cleanup, &f) == TRI_EINVAL, said); /* once */
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static void jump_nowhere(void *arg) {
    CHECK_MSG(false, "%p", arg);
}

TEST(messages, of_stacks) {
    static char memory[4096] __attribute__((aligned(16)));
    static tri_word words[8], *top = words;
    struct fixture f = fixture_open(), g = fixture_open();
    tri_vmstack *native = tri_native_add(f.thread, memory, sizeof memory);
    tri_vmstack *stack = tri_vmstack_add(f.thread, words, &top, NULL);
    CHECK(native && stack);
    EXPECT_SAID(tri_vmstack_add(f.thread, (char *)words + 1, &top, NULL) == NULL,
                "tri_vmstack_add: base and top_address must be 8-byte aligned and not NULL");
    EXPECT_SAID(tri_native_add(f.thread, memory + 8, 2048) == NULL,
                "tri_native_add: low is NULL or not 16-byte aligned, or size_bytes is no multiple of 16 from 1024 up");
    EXPECT_SAID(tri_vmstack_resume(f.thread, native) == TRI_ESTATE,
                "tri_vmstack_resume: this is a native stack; tri_native_switch runs it");
    EXPECT_SAID(tri_vmstack_resume(f.thread, stack) == TRI_ESTATE, "tri_vmstack_resume: the stack is not suspended");
    EXPECT_SAID(tri_native_switch(f.thread, NULL, jump_nowhere, NULL) == TRI_ESTATE,
                "tri_native_switch: the calling thread runs on that stack already");
    EXPECT_SAID(tri_native_switch(g.thread, native, jump_nowhere, NULL) == TRI_EINVAL,
                "tri_native_switch: jump is NULL, or `to` is no native stack of this heap");
    tri_vmstack_remove(f.thread, stack);
    tri_vmstack_remove(f.thread, native);
    fixture_close(&g);
    fixture_close(&f);
}

/* ---- what is reported ------------------------------------------------------------------------------------------- */

TEST(messages, of_what_is_reported) {
    CHECK_EQ(setenv("TRI_OPTIONS", TRI_CHECKS >= 1 ? "stress.slow=1" : "", 1), 0); /* no store is short */
    struct fixture f = open_heap(NULL, NULL);
    unsetenv("TRI_OPTIONS");
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new(f.thread, &pair_type); /* keeps the span */
    struct pair *freed = tri_new(f.thread, &pair_type);
    CHECK_EQ(tri_free(f.thread, freed), TRI_OK);
    if (TRI_CHECKS >= 1) {
        tri_store(f.thread, freed, &freed->left, NULL);
        expect_report("obj %p has been freed; its slot last held a struct pair", (void *)freed);
    }
    void *slot[1] = {NULL};
    tri_frame frame = {0, 1, slot};
    tri_frame_push(f.thread, &frame);
    tri_frame_pop(f.thread, &frame);
    if (TRI_CHECKS >= 1) {
        forget_reports();
        frame.prev = &frame;
        tri_frame_pop(f.thread, &frame);
        expect_report("tri_frame_pop: this frame is not pushed; pop each frame once, newest first");
    }
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* ---- waits that end ---------------------------------------------------------------------------------------------- */

#if TRI_CHECKS >= 3

static void *find_main(void *arg) {
    const struct fixture *f = arg;
    tri_thread *t = fixture_attach(f->heap);
    EXPECT_SAID(tri_find(t, f->thread, NULL) == NULL, "tri_find: the cycle does not close: ");
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* Objects come back for as long as the test wants: a look-up that has to wait for it gives up in time, in words. */
TEST(messages, of_a_look_up_that_waits_in_vain) {
    struct fixture f = open_heap(NULL, NULL);
    f.heap->config.wait_limit_ms = 20; /* nothing runs yet */
    TRI_LOCALS(f.thread, roots, 1);
    tri_finq *q = tri_finq_new(f.thread);
    struct graph g = make_graph(&f, roots);
    CHECK_EQ(tri_finq_watch(f.thread, q, g.root), TRI_OK);
    struct fixture finder = {f.heap, (void *)g.root};
    roots[0] = NULL;
    pthread_t find;
    atomic_store_release(&holding, 0);
    atomic_store_release(&go_on, 0);
    tri__cycle_request(f.heap, "test");
    while (!atomic_load_acquire(&holding)) {
        tri_poll(f.thread);
        sched_yield();
    }
    CHECK_EQ(heap_phase(f.heap), PHASE_DEATH);
    CHECK_EQ(pthread_create(&find, NULL, find_main, &finder), 0);
    fixture_join(f.thread, find);
    atomic_store_release(&go_on, 1);
    while (heap_phase(f.heap) != PHASE_IDLE || fixture_stats(f.heap).cycles == 0) tri_poll(f.thread), sched_yield();
    f.heap->config.wait_limit_ms = 120000;
    CHECK(tri_finq_poll(f.thread, q) == g.root);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

#endif
