/*
 * The contract of trigc.h for bad input: each call with each bad argument gives an error that names the call, what was
 * wrong and what to do, and changes nothing. Calls by unattached threads are in test_threads.c, bad descriptors in
 * test_types.c, memory that cannot be had in test_limits.c.
 */
#include "tests/fixture.h"

#include <fcntl.h>

/* The expression holds, and the last error is this call's. */
#define EXPECT_ERROR(call_, expression_, words_)                                                           \
    do {                                                                                                   \
        tri_heap_destroy(NULL); /* another call's error, so that a silent refusal shows */                 \
        CHECK_MSG((expression_), "%s: %s does not hold: \"%s\"", call_, #expression_, tri_last_error());   \
        CHECK_MSG(strncmp(tri_last_error(), call_ ":", strlen(call_ ":")) == 0, "%s is refused by \"%s\"", \
                  #expression_, tri_last_error());                                                         \
        CHECK_MSG(strstr(tri_last_error(), words_), "%s: no \"%s\" in \"%s\"", #expression_, words_,       \
                  tri_last_error());                                                                       \
    } while (0)

/* ---- Status codes and versions ---- */

TEST(api, every_status_has_its_sentence) {
#define SAME(name, value, text)             \
    CHECK_STR_EQ(tri_strerror(name), text); \
    CHECK_EQ(name, value);
    TRI_ERRORS(SAME)
#undef SAME
    static const int unknown[] = {1, -10, -99, -100, 12345, INT32_MIN};
    for (size_t i = 0; i < TRI_COUNT(unknown); i++) {
        CHECK(tri_strerror(unknown[i]) != NULL);
        CHECK(strstr(tri_strerror(unknown[i]), "unknown") != NULL);
    }
}

static void *last_error_of_a_fresh_thread(void *arg) {
    CHECK_STR_EQ(tri_last_error(), "");
    tri_heap_destroy(NULL);
    CHECK(strncmp(tri_last_error(), "tri_heap_destroy:", 17) == 0);
    return arg;
}

TEST(api, the_last_error_is_the_threads_own) {
    CHECK_STR_EQ(tri_last_error(), "");
    CHECK_EQ(tri_heap_create(NULL, NULL), TRI_EINVAL);
    CHECK(strncmp(tri_last_error(), "tri_heap_create:", 16) == 0);
    pthread_t thread;
    pthread_create(&thread, NULL, last_error_of_a_fresh_thread, NULL);
    pthread_join(thread, NULL);
    CHECK(strncmp(tri_last_error(), "tri_heap_create:", 16) == 0);
}

TEST(api, header_and_library_must_have_one_abi) {
    tri_heap *heap = (tri_heap *)&heap;
    CHECK_EQ(tri_heap_create_abi(NULL, 999, &heap), TRI_EABI);
    CHECK(heap == NULL);
    CHECK_MSG(strstr(tri_last_error(), "999") && strstr(tri_last_error(), "rebuild"), "%s", tri_last_error());
    CHECK_STR_EQ(tri_version(), TRI_VERSION_STRING);
}

/* ---- Configuration ---- */

TEST(api, defaults_are_what_the_header_says) {
    tri_config c;
    memset(&c, 0xff, sizeof c);
    tri_config_init(&c);
    CHECK_EQ(c.struct_size, sizeof c);
    CHECK_EQ(c.flags, 0);
    CHECK_EQ(c.reserve_bytes, 0);
    CHECK_EQ(c.hard_limit_bytes, 0);
    CHECK_EQ(c.soft_limit_bytes, 0);
    CHECK_EQ(c.min_heap_bytes, 4 * MIB);
    CHECK_EQ(c.growth_percent, 60);
    CHECK_EQ(c.silent_after_ms, 1000);
    CHECK_EQ(c.wait_limit_ms, 10000);
    CHECK(!c.oom && !c.event && !c.report && !c.user);
    tri_config_init(NULL);
}

TEST(api, bad_configurations_are_refused) {
    for (int i = 0; i < 9; i++) {
        tri_config c = fixture_config(0);
        const char *field = "";
        switch (i) {
        case 0: c.struct_size = 0, field = "struct_size"; break;
        case 1: c.struct_size += 8, field = "struct_size"; break;
        case 2: c.flags = 1u << 31, field = "flags"; break;
        case 3: c.growth_percent = 0, field = "growth_percent"; break;
        case 4: c.growth_percent = 100001, field = "growth_percent"; break;
        case 5: c.reserve_bytes = 4096, field = "reserve_bytes"; break;
        case 6: c.hard_limit_bytes = 1000, field = "hard_limit_bytes"; break;
        case 7: c.reserve_bytes = SIZE_MAX, field = "reserve_bytes"; break;
        case 8: c.reserve_bytes = (size_t)1 << 62, field = "reserve_bytes"; break;
        }
        tri_heap *heap = (tri_heap *)&c;
        int err = tri_heap_create(&c, &heap);
        CHECK_MSG(err == (i == 8 ? TRI_ENOMEM : TRI_EINVAL) || (i == 7 && err == TRI_ENOMEM), "case %d: %d", i, err);
        CHECK(heap == NULL);
        CHECK_MSG(strstr(tri_last_error(), "tri_heap_create:") && strstr(tri_last_error(), field), "case %d: %s", i,
                  tri_last_error());
    }
}

TEST(api, options_of_a_running_heap) {
    struct fixture f = fixture_open();
    static const char *const good[] = {"growth_percent=80",     "growth_percent=5",    "growth_percent=100000",
                                       "soft_limit_bytes=64M",  "soft_limit_bytes=0",  "min_heap_bytes=1048576",
                                       "min_heap_bytes=2k",     "hard_limit_bytes=1g", "hard_limit_bytes=0",
                                       "hard_limit_bytes=512M", "cycles=off",          "cycles=on"};
    static const char *const bad[] = {"",
                                      "growth_percent",
                                      "=5",
                                      "growth_percent=",
                                      "growth_percent=4",
                                      "growth_percent=100001",
                                      "growth_percent=-1",
                                      "growth_percent=5x",
                                      "growth_percent= 5",
                                      "growth_percent=99999999999999999999999",
                                      "min_heap_bytes=18446744073709551615G",
                                      "cycles=maybe",
                                      "cycles=",
                                      "no_such_option=1",
                                      "fault=no_such_fault",
                                      "stress.collect=x",
                                      "stress.delay=-1",
                                      "poison=yes",
                                      "verify=99999999999",
                                      "hard_limit_bytes=1",
                                      "a_key_that_is_longer_than_any_key_of_this_library_ever_will_be_i_promise=1"};
    for (size_t i = 0; i < TRI_COUNT(good); i++)
        CHECK_MSG(tri_heap_set(f.heap, good[i]) == TRI_OK, "%s: %s", good[i], tri_last_error());
    for (size_t i = 0; i < TRI_COUNT(bad); i++) {
        tri_heap_destroy(NULL);
        CHECK_MSG(tri_heap_set(f.heap, bad[i]) == TRI_EINVAL, "\"%s\" is taken", bad[i]);
        CHECK_MSG(strncmp(tri_last_error(), "tri_heap_set:", 13) == 0, "\"%s\": %s", bad[i], tri_last_error());
    }
    CHECK_EQ(f.heap->config.growth_percent, 100000); /* the last one that was taken */
    CHECK_EQ(atomic_load_relaxed(&f.heap->mem.limit_pages), (size_t)512 * MIB / PAGE_BYTES);
    EXPECT_ERROR("tri_heap_set", tri_heap_set(NULL, "cycles=on") == TRI_EINVAL, "NULL");
    EXPECT_ERROR("tri_heap_set", tri_heap_set(f.heap, NULL) == TRI_EINVAL, "NULL");
    fixture_close(&f);
}

TEST(api, switches_exist_in_checked_builds_only) {
    struct fixture f = fixture_open();
    static const char *const switches[] = {
        "stress.collect=1000", "stress.delay=1", "stress.slow=1", "checkmark=1", "poison=1", "verify=1", "fault=none"};
    for (size_t i = 0; i < TRI_COUNT(switches); i++) {
        int err = tri_heap_set(f.heap, switches[i]);
        CHECK_MSG(err == (TRI_CHECKS >= 1 ? TRI_OK : TRI_EINVAL), "%s: %s", switches[i], tri_last_error());
        if (err != TRI_OK) CHECK(strstr(tri_last_error(), "-Dchecks") != NULL);
    }
    for (int i = 0; i < 3; i++) fixture_collect(&f);
    fixture_close(&f);
}

TEST(api, options_come_from_the_environment_too) {
    setenv("TRI_OPTIONS", "growth_percent=55,,nonsense=1,min_heap_bytes=8M", 1);
    struct fixture f = fixture_open();
    CHECK_EQ(f.heap->config.growth_percent, 55);
    CHECK_EQ(f.heap->config.min_heap_bytes, 8 * MIB);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "nonsense"), "%s", fixture_report);
    fixture_close(&f);
    char longest[400] = "growth_percent=";
    memset(longest + strlen(longest), '1', 300);
    setenv("TRI_OPTIONS", longest, 1);
    f = fixture_open();
    CHECK_MSG(fixture_take_reports() >= 1, "an option of 300 digits is passed over without a word");
    fixture_close(&f);
    unsetenv("TRI_OPTIONS");
}

TEST(api, trace_prints_a_line_a_cycle) {
    char path[] = "trace-XXXXXX";
    const char *folder = getenv("TMPDIR");
    if (chdir(folder ? folder : "/tmp") != 0) return;
    int fd = mkstemp(path), saved = dup(2);
    CHECK(fd >= 0);
    unlink(path);
    setenv("TRI_TRACE", "1", 1);
    fflush(stderr);
    dup2(fd, 2);
    struct fixture f = fixture_open();
    for (int i = 0; i < 3; i++) fixture_collect(&f);
    fixture_close(&f);
    fflush(stderr);
    dup2(saved, 2);
    char text[4096];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    CHECK(n > 0);
    text[n] = '\0';
    int lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++)
        CHECK_MSG(strncmp(line, "trigc ", 6) == 0 && strstr(line, "forced") && strstr(line, "worst wait"), "%s", line);
    CHECK_EQ(lines, 3);
}

/* ---- Events ---- */

struct seen {
    uint32_t nevents;
    tri_event last;
    char reason[32];
    bool in_order;
};

static void on_event(const tri_event *event, void *user) {
    struct seen *seen = user;
    if (event->kind != TRI_EVENT_CYCLE_END) return;
    seen->in_order = seen->nevents == 0 || event->cycle == seen->last.cycle + 1;
    seen->last = *event;
    snprintf(seen->reason, sizeof seen->reason, "%s", event->reason);
    atomic_add_acqrel(&seen->nevents, 1);
}

static void no_report(const char *message, void *user) {
    (void)user;
    fixture_on_report(message, NULL);
}

TEST(api, the_event_hook_hears_of_each_cycle) {
    struct seen seen = {0};
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.event = on_event;
    config.report = no_report;
    config.user = &seen;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new_n(f.thread, &array_type, 1000);
    fixture_collect(&f);
    CHECK(atomic_load_acquire(&seen.nevents) >= 1); /* told before the collection returns */
    CHECK_STR_EQ(seen.reason, "forced");
    CHECK_EQ(seen.last.cycle, 1);
    CHECK_EQ(seen.last.struct_size, sizeof(tri_event));
    CHECK(seen.last.live_after_bytes >= 8000 && seen.last.goal_bytes == seen.last.live_after_bytes + 4 * MIB);
    CHECK(seen.last.cycle_ns > 0 && seen.last.mark_ns <= seen.last.cycle_ns && seen.last.flush_rounds >= 1);
    CHECK_EQ(seen.last.nthreads, 1);
    for (int i = 0; i < 300000; i++) CHECK(tri_new(f.thread, &leaf_type) != NULL);
    CHECK_EQ(tri_heap_set(f.heap, "cycles=off"), TRI_OK);
    fixture_collect(&f);
    fixture_collect(&f);
    CHECK(seen.nevents >= 3 && seen.in_order);
    CHECK_EQ(seen.last.cycle, fixture_stats(f.heap).cycles);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- Each call ---- */

static void *identity(void *arg) {
    return arg;
}

static void scan_nothing(tri_visitor *visitor, void *arg) {
    (void)visitor, (void)arg;
}

static tri_word slots[4];

TEST(api, bad_arguments_are_refused_by_name) {
    struct fixture f = fixture_open();
    tri_thread *out = NULL;
    tri_stats stats = {.struct_size = 3};
    tri_type_data data = {.struct_size = 8};
    uint64_t buckets[64];
    EXPECT_ERROR("tri_heap_create", tri_heap_create(NULL, NULL) == TRI_EINVAL, "out");
    tri_attach(NULL, 0, NULL);
    CHECK_EQ(tri_heap_destroy(NULL), TRI_EINVAL);
    CHECK(strncmp(tri_last_error(), "tri_heap_destroy:", 17) == 0);
    EXPECT_ERROR("tri_attach", tri_attach(NULL, 0, &out) == TRI_EINVAL, "heap");
    EXPECT_ERROR("tri_attach", tri_attach(f.heap, 0, NULL) == TRI_EINVAL, "out");
    EXPECT_ERROR("tri_attach", tri_attach(f.heap, 1u << 9, &out) == TRI_EINVAL, "flags");
    EXPECT_ERROR("tri_blocking", tri_blocking(f.thread, NULL, NULL) == NULL, "fn");
    EXPECT_ERROR("tri_callin", tri_callin(f.thread, NULL, NULL) == NULL, "");
    EXPECT_ERROR("tri_new_n", tri_new_n(f.thread, NULL, 1) == NULL, "type");
    EXPECT_ERROR("tri_new_n", tri_new_n(f.thread, &pair_type, 2) == NULL, "elem");
    EXPECT_ERROR("tri_new_n", tri_new_n(f.thread, &array_type, SIZE_MAX) == NULL, "elements");
    EXPECT_ERROR("tri_root_add", tri_root_add(f.thread, NULL, 1, NULL) == NULL, "slots");
    EXPECT_ERROR("tri_vmstack_add", tri_vmstack_add(f.thread, NULL, slots, NULL) == NULL, "base");
    EXPECT_ERROR("tri_vmstack_suspend", tri_vmstack_suspend(f.thread, NULL) < 0, "NULL");
    EXPECT_ERROR("tri_vmstack_resume", tri_vmstack_resume(f.thread, NULL) < 0, "NULL");
    EXPECT_ERROR("tri_vmstack_touch", tri_vmstack_touch(f.thread, NULL) < 0, "NULL");
    EXPECT_ERROR("tri_vmstack_move", (tri_vmstack_move(f.thread, NULL, slots, slots), true), "NULL");
    EXPECT_ERROR("tri_scanner_add", tri_scanner_add(f.thread, NULL, NULL) == NULL, "fn");
    EXPECT_ERROR("tri_stats_get", tri_stats_get(NULL, &stats) == TRI_EINVAL, "heap");
    EXPECT_ERROR("tri_stats_get", tri_stats_get(f.heap, NULL) == TRI_EINVAL, "out");
    EXPECT_ERROR("tri_stats_get", tri_stats_get(f.heap, &stats) == TRI_EINVAL, "struct_size");
    EXPECT_ERROR("tri_histogram", tri_histogram(NULL, 0, buckets, 64) == TRI_EINVAL, "heap");
    EXPECT_ERROR("tri_histogram", tri_histogram(f.heap, TRI_PAUSE_KINDS, buckets, 64) == TRI_EINVAL, "kind");
    EXPECT_ERROR("tri_histogram", tri_histogram(f.heap, -1, buckets, 64) == TRI_EINVAL, "kind");
    EXPECT_ERROR("tri_histogram", tri_histogram(f.heap, 0, NULL, 64) == TRI_EINVAL, "buckets");
    EXPECT_ERROR("tri_type_register", tri_type_register(NULL) == TRI_EINVAL, "type");
    EXPECT_ERROR("tri_type_describe", tri_type_describe(NULL, &data) == TRI_EINVAL, "type");
    EXPECT_ERROR("tri_type_describe", tri_type_describe(&pair_type, NULL) == TRI_EINVAL, "out");
    EXPECT_ERROR("tri_type_describe", tri_type_describe(&pair_type, &data) == TRI_EINVAL, "struct_size");
    /* NULL, where there is nothing to do. */
    CHECK_EQ(tri_trim(NULL), 0);
    CHECK_EQ(tri_usable_size(NULL, &f), 0);
    CHECK_EQ(tri_usable_size(f.heap, NULL), 0);
    CHECK(tri_find(f.thread, NULL, NULL) == NULL);
    CHECK(tri_self(NULL) != NULL && tri_self(NULL) != f.thread);
    tri_root_remove(f.thread, NULL);
    tri_vmstack_remove(f.thread, NULL);
    tri_scanner_remove(f.thread, NULL);
    tri_global_free(f.thread, NULL);
    tri_global_set(f.thread, NULL, NULL);
    fflush(stderr);
    fixture_take_reports();
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    CHECK(tri_blocking(f.thread, identity, slots) == slots);
    fixture_close(&f);
}

/* NULL where a thread belongs: each call that is not inline names itself and does nothing. */
TEST(api, no_thread_is_no_attachment) {
    struct fixture f = fixture_open();
    struct pair *p = tri_new(f.thread, &pair_type);
    tri_word expected = 0;
    tri_handle handle = tri_global(f.thread, p);
    tri_root *root = tri_root_add(f.thread, slots, 2, NULL);
    EXPECT_ERROR("tri_detach", tri_detach(NULL) == TRI_EUNATTACHED, "attach");
    EXPECT_ERROR("tri_collect", tri_collect(NULL) == TRI_EUNATTACHED, "attach");
    EXPECT_ERROR("tri_verify", tri_verify(NULL) == TRI_EUNATTACHED, "attach");
    EXPECT_ERROR("tri_walk", tri_walk(NULL, NULL, NULL) == 0, "attach");
    EXPECT_ERROR("tri_find", tri_find(NULL, p, NULL) == NULL, "attach");
    EXPECT_ERROR("tri_thread_heap", tri_thread_heap(NULL) == NULL, "attach");
    EXPECT_ERROR("tri_blocking", tri_blocking(NULL, identity, NULL) == NULL, "attach");
    EXPECT_ERROR("tri_callin", tri_callin(NULL, identity, NULL) == NULL, "attach");
    EXPECT_ERROR("tri_new_n", tri_new_n(NULL, &array_type, 1) == NULL, "attach");
    EXPECT_ERROR("tri_new_bytes", tri_new_bytes(NULL, 1) == NULL, "attach");
    EXPECT_ERROR("tri_external", (tri_external(NULL, 1), true), "attach");
    EXPECT_ERROR("tri_xchg", tri_xchg(NULL, p, &p->left, 1) == 0, "attach");
    EXPECT_ERROR("tri_cas", !tri_cas(NULL, p, &p->left, &expected, 1), "attach");
    EXPECT_ERROR("tri_move", (tri_move(NULL, p, &p->left, slots, 1), true), "attach");
    EXPECT_ERROR("tri_clear", (tri_clear(NULL, p, &p->left, 1), true), "attach");
    EXPECT_ERROR("tri_scope_open", tri_scope_open(NULL) == 0, "attach");
    EXPECT_ERROR("tri_scope_close", (tri_scope_close(NULL, 0), true), "attach");
    EXPECT_ERROR("tri_local", tri_local(NULL, p) == NULL, "attach");
    EXPECT_ERROR("tri_global", tri_global(NULL, p) == NULL, "attach");
    EXPECT_ERROR("tri_global_set", (tri_global_set(NULL, handle, NULL), true), "attach");
    EXPECT_ERROR("tri_global_free", (tri_global_free(NULL, handle), true), "attach");
    EXPECT_ERROR("tri_root_add", tri_root_add(NULL, slots, 1, NULL) == NULL, "attach");
    EXPECT_ERROR("tri_root_remove", (tri_root_remove(NULL, root), true), "attach");
    EXPECT_ERROR("tri_vmstack_add", tri_vmstack_add(NULL, slots, slots, NULL) == NULL, "attach");
    EXPECT_ERROR("tri_scanner_add", tri_scanner_add(NULL, scan_nothing, NULL) == NULL, "attach");
    CHECK(tri_deref(handle) == p && !p->left && !p->right);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hide(p)));
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    fixture_take_reports();
    tri_root_remove(f.thread, root);
    fixture_close(&f);
}

TEST(api, small_and_empty_objects_are_objects) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    roots[0] = tri_new_bytes(f.thread, 1);
    roots[1] = tri_new_n(f.thread, &array_type, 0);
    roots[2] = tri_new_n(f.thread, &pair_type, 0);
    for (int i = 0; i < 3; i++) CHECK_MSG(roots[i] != NULL && tri_usable_size(f.heap, roots[i]) >= 8, "object %d", i);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 3);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* Every store into something that is no object of this heap, or no slot of it, is refused or at least told. */
TEST(api, stores_that_miss_their_object_are_reported) {
    if (TRI_CHECKS < 1) return;
    CHECK_EQ(setenv("TRI_OPTIONS", "stress.slow=1", 1), 0); /* attaching reads it: every store takes its slow path */
    struct fixture f = fixture_open();
    unsetenv("TRI_OPTIONS");
    TRI_LOCALS(f.thread, roots, 2);
    struct pair *p = roots[0] = tri_new(f.thread, &pair_type);
    struct leaf *leaf = roots[1] = tri_new(f.thread, &leaf_type);
    struct pair outside = {0};
    tri_word expected = 0;
    tri_root *root = tri_root_add(f.thread, slots, 2, NULL);
#define EXPECT_REPORT(call_, words_, expression_)                                                                      \
    do {                                                                                                               \
        fixture_take_reports();                                                                                        \
        CHECK_MSG((expression_), "%s", #expression_);                                                                  \
        CHECK_MSG(fixture_take_reports() == 1, "%s is not reported once", #expression_);                               \
        CHECK_MSG(strncmp(fixture_report, call_ ":", strlen(call_ ":")) == 0, "%s: %s", #expression_, fixture_report); \
        CHECK_MSG(strstr(fixture_report, words_), "%s: no \"%s\" in \"%s\"", #expression_, words_, fixture_report);    \
    } while (0)
    EXPECT_REPORT("tri_store", "not an object", (tri_store(f.thread, &outside, &outside.left, leaf), !outside.left));
    EXPECT_REPORT("tri_store", "does not lie in", (tri_store(f.thread, p, &outside.left, NULL), true));
    EXPECT_REPORT("tri_store", "not a slot", (tri_store_value(f.thread, p, &p->value, 5), true));
    EXPECT_REPORT("tri_store", "not a slot", (tri_store_value(f.thread, leaf, &leaf->b, 5), true));
    EXPECT_REPORT("tri_xchg", "not an object", tri_xchg(f.thread, &outside, &outside.left, 7) == 0);
    EXPECT_REPORT("tri_cas", "not an object", !tri_cas(f.thread, &outside, &outside.left, &expected, 7));
    EXPECT_REPORT("tri_cas", "expected", !tri_cas(f.thread, p, &p->left, NULL, 0));
    EXPECT_REPORT("tri_move", "not an object", (tri_move(f.thread, &outside, &outside.left, slots, 1), !outside.left));
    EXPECT_REPORT("tri_clear", "not an object", (tri_clear(f.thread, &outside, &outside.left, 1), true));
    EXPECT_REPORT("tri_root_store", "not in the range", (tri_root_store(f.thread, root, &slots[2], leaf), !slots[2]));
    EXPECT_REPORT("tri_root_store", "range", (tri_root_store(f.thread, NULL, &slots[2], leaf), !slots[2]));
    CHECK(p->left == NULL && p->right == NULL);
    tri_root_remove(f.thread, root);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(api, bulk_stores_do_what_memmove_does) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    void **array = roots[0] = tri_new_n(f.thread, &array_type, 64);
    for (int cycle = 0; cycle < 2; cycle++) {
        for (int i = 0; i < 64; i++) tri_store(f.thread, array, &array[i], tri_new(f.thread, &leaf_type));
        void *expected[64];
        memcpy(expected, array, sizeof expected);
        tri_move(f.thread, array, &array[3], &array[0], 40); /* overlapping, upwards */
        memmove(&expected[3], &expected[0], 40 * sizeof *expected);
        CHECK(memcmp(expected, array, sizeof expected) == 0);
        tri_move(f.thread, array, &array[1], &array[9], 50); /* and downwards */
        memmove(&expected[1], &expected[9], 50 * sizeof *expected);
        CHECK(memcmp(expected, array, sizeof expected) == 0);
        tri_clear(f.thread, array, &array[10], 20);
        memset(&expected[10], 0, 20 * sizeof *expected);
        CHECK(memcmp(expected, array, sizeof expected) == 0);
        tri_move(f.thread, array, &array[0], &array[0], 0);
        fixture_collect(&f);
        for (int i = 0; i < 64; i++) CHECK(!array[i] || is_alive(f.heap, hide(array[i])));
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(api, exchange_and_compare_are_atomic_stores) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    struct pair *p = roots[0] = tri_new(f.thread, &pair_type);
    struct leaf *a = tri_new(f.thread, &leaf_type), *b = tri_new(f.thread, &leaf_type);
    CHECK_EQ(tri_xchg(f.thread, p, &p->left, (tri_word)(uintptr_t)a), 0);
    CHECK_EQ(tri_xchg(f.thread, p, &p->left, (tri_word)(uintptr_t)b), (uintptr_t)a);
    tri_word expected = (tri_word)(uintptr_t)a;
    CHECK(!tri_cas(f.thread, p, &p->left, &expected, 0));
    CHECK_EQ(expected, (uintptr_t)b);
    CHECK(tri_cas(f.thread, p, &p->left, &expected, (tri_word)(uintptr_t)a));
    CHECK((void *)p->left == a);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hide(a)) && !is_alive(f.heap, hide(b)));
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(api, histograms_count_each_pause_once) {
    struct fixture f = fixture_open();
    for (int i = 0; i < 5; i++) fixture_collect(&f);
    uint64_t buckets[64], total[TRI_PAUSE_KINDS] = {0};
    for (int kind = 0; kind < TRI_PAUSE_KINDS; kind++) {
        int n = tri_histogram(f.heap, kind, buckets, 64);
        CHECK(n > 30 && n <= 64);
        for (int i = 0; i < n; i++) total[kind] += buckets[i];
        CHECK_EQ(tri_histogram(f.heap, kind, buckets, 3), 3);
        CHECK_EQ(tri_histogram(f.heap, kind, buckets, 0), 0);
    }
    CHECK_EQ(total[TRI_PAUSE_WAIT], 5);
    CHECK_EQ(total[TRI_PAUSE_ASSIST], 0);
    CHECK(fixture_stats(f.heap).handshakes >= 5 * 6);
    fixture_close(&f);
}

/* Bounds of waits that do not fit into nanoseconds are long, not short. */
TEST(api, huge_wait_limits_do_not_wrap) {
    static const uint64_t limits[] = {UINT64_MAX, 18446744073710ull, UINT64_MAX / 1000000 + 1};
    for (size_t i = 0; i < TRI_COUNT(limits); i++) {
        tri_config config = fixture_config(TRI_HEAP_PRECISE);
        config.wait_limit_ms = limits[i];
        if (TRI_CHECKS >= 1) setenv("TRI_OPTIONS", "stress.delay=300", 1); /* no cycle is quick */
        struct fixture f = fixture_open_config(&config);
        unsetenv("TRI_OPTIONS");
        for (int k = 0; k < 3; k++)
            CHECK_MSG(tri_collect(f.thread) == TRI_OK, "limit %llu ms: %s", (unsigned long long)limits[i],
                      tri_last_error());
        fixture_close(&f);
    }
}
