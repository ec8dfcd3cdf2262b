/*
 * Memory that cannot be had: the heap's own limit, and limits of the system (RLIMIT_AS for mappings, RLIMIT_DATA for
 * pages that a reservation makes usable). Allocation returns NULL, only after the host's hook has said no, nothing is
 * corrupted, and the same call works once there is memory again.
 *
 * Tests that starve the process stand aside under the sanitizers, which map memory of their own.
 */
#include "tests/fixture.h"
#include "tests/process.h"

/* ---- The host's hook ---- */

struct host {
    uint32_t ncalls;
    size_t size_bytes;
    int answer;         /* what the hook returns */
    tri_thread *thread; /* whose handle it may release */
    tri_handle *handle; /* released by the hook, if any */
};

static int on_oom(tri_heap *heap, size_t size_bytes, void *user) {
    struct host *host = user;
    CHECK(heap != NULL);
    atomic_add_acqrel(&host->ncalls, 1);
    atomic_store_relaxed(&host->size_bytes, size_bytes);
    if (host->handle && *host->handle) {
        tri_global_free(host->thread, *host->handle);
        *host->handle = NULL;
    }
    return host->answer;
}

static void quiet_report(const char *message, void *user) {
    (void)user;
    fixture_on_report(message, NULL);
}

static struct fixture limited_open(struct host *host, size_t limit_bytes, uint32_t flags) {
    tri_config config = fixture_config(flags);
    config.hard_limit_bytes = limit_bytes;
    config.oom = on_oom;
    config.report = quiet_report;
    config.user = host;
    return fixture_open_config(&config);
}

/* A list of blocks of `size_bytes` under a handle, until allocation returns NULL; the number of blocks. */
struct block {
    struct block *next;
    uint64_t check;
};
static const uint32_t block_slots[] = {0};
static tri_type block_type = {.struct_size = sizeof(tri_type),
                              .name = "block",
                              .size = sizeof(struct block),
                              .elem_size = 8,
                              .pointers = {.offsets = block_slots, .noffsets = 1}};

static size_t fill_until_null(tri_thread *thread, tri_handle handle, size_t size_bytes) {
    size_t n = 0;
    for (;; n++) {
        struct block *b = tri_new_n(thread, &block_type, (size_bytes - sizeof(struct block)) / 8);
        if (!b) break;
        CHECK_EQ(b->check, 0);
        b->check = n;
        tri_store(thread, b, &b->next, tri_deref(handle));
        tri_global_set(thread, handle, b);
        CHECK(n < 100000000);
    }
    return n;
}

static void check_list(tri_handle handle, size_t n) {
    for (struct block *b = tri_deref(handle); b; b = b->next) {
        CHECK(n > 0);
        CHECK_EQ(b->check, --n);
    }
    CHECK_EQ(n, 0);
}

TEST(limits, null_only_after_the_hook_said_no) {
    static const size_t sizes[] = {16, 200, 3000, 30000, 70000, 1000000};
    for (size_t i = 0; i < TRI_COUNT(sizes); i++) {
        struct host host = {0};
        struct fixture f = limited_open(&host, 8 * MIB, TRI_HEAP_PRECISE);
        tri_handle list = tri_global(f.thread, NULL);
        size_t n = fill_until_null(f.thread, list, sizes[i]);
        CHECK_MSG(n * sizes[i] >= 8 * MIB * 6 / 10, "NULL after %zu blocks of %zu bytes", n, sizes[i]);
        CHECK_MSG(host.ncalls >= 1, "the hook was not asked");
        CHECK(host.size_bytes >= sizes[i] - 8 && host.size_bytes <= sizes[i]);
        CHECK_MSG(strstr(tri_last_error(), "tri_new_n"), "\"%s\" does not name the call", tri_last_error());
        CHECK_MSG(strstr(tri_last_error(), "hard_limit_bytes"), "\"%s\" names no remedy", tri_last_error());
        tri_stats stats = fixture_stats(f.heap);
        CHECK_MSG(stats.committed_bytes <= 8 * MIB, "%zu bytes are committed", stats.committed_bytes);
        CHECK_EQ(tri_verify(f.thread), 0);
        check_list(list, n);
        uint32_t asked = host.ncalls; /* and again NULL, after another question */
        CHECK(tri_new_n(f.thread, &block_type, sizes[i] / 8) == NULL);
        CHECK_EQ(host.ncalls, asked + 1);
        check_list(list, n);

        tri_global_set(f.thread, list, NULL);
        CHECK_EQ(fill_until_null(f.thread, list, sizes[i]) >= n * 9 / 10, true);
        CHECK_EQ(tri_verify(f.thread), 0);
        fixture_close(&f);
    }
}

TEST(limits, garbage_is_collected_before_the_hook_is_asked) {
    struct host host = {0};
    struct fixture f = limited_open(&host, 8 * MIB, TRI_HEAP_PRECISE);
    CHECK_EQ(tri_heap_set(f.heap, "min_heap_bytes=1G"), TRI_OK); /* only the limit starts cycles */
    for (size_t i = 0; i < 5000; i++) {
        size_t size = i % 100 == 0 ? 500000 : 20000;
        CHECK_MSG(tri_new_bytes(f.thread, size) != NULL, "%s", tri_last_error());
    }
    CHECK_EQ(host.ncalls, 0);
    fixture_close(&f);
}

TEST(limits, a_hook_that_releases_saves_the_allocation) {
    static const size_t sizes[] = {64, 2000, 500000};
    for (size_t i = 0; i < TRI_COUNT(sizes); i++) {
        struct host host = {.answer = 1};
        struct fixture f = limited_open(&host, 8 * MIB, TRI_HEAP_PRECISE);
        tri_handle cache = tri_global(f.thread, NULL), list = tri_global(f.thread, NULL);
        for (int k = 0; k < 6; k++) { /* most of the heap is a cache that the host can do without */
            void **p = tri_new_n(f.thread, &array_type, MIB / 8 - 100);
            tri_store(f.thread, p, p, tri_deref(cache));
            tri_global_set(f.thread, cache, p);
        }
        host.thread = f.thread;
        host.handle = &cache;
        size_t n = fill_until_null(f.thread, list, sizes[i]);
        CHECK_MSG(host.ncalls >= 2, "asked %u times", host.ncalls); /* once in vain: then there was nothing left */
        CHECK(cache == NULL);
        CHECK_MSG(n * sizes[i] >= 5 * MIB, "%zu blocks of %zu bytes", n, sizes[i]);
        check_list(list, n);
        CHECK_EQ(tri_verify(f.thread), 0);
        fixture_close(&f);
    }
}

TEST(limits, every_allocating_call_names_itself) {
    struct host host = {0};
    struct fixture f = limited_open(&host, 4 * MIB, TRI_HEAP_PRECISE);
    tri_handle list = tri_global(f.thread, NULL);
    fill_until_null(f.thread, list, 32000);
    fill_until_null(f.thread, list, 1000); /* and the rest */
    static tri_type big = {.struct_size = sizeof(tri_type), .name = "big", .size = 60000, .flags = TRI_TYPE_LEAF};
    CHECK(tri_new(f.thread, &big) == NULL);
    CHECK_MSG(strncmp(tri_last_error(), "tri_new:", 8) == 0, "%s", tri_last_error());
    CHECK(tri_new_n(f.thread, &array_type, 50000) == NULL);
    CHECK_MSG(strncmp(tri_last_error(), "tri_new_n:", 10) == 0, "%s", tri_last_error());
    CHECK(tri_new_bytes(f.thread, 60000) == NULL);
    CHECK_MSG(strncmp(tri_last_error(), "tri_new_bytes:", 14) == 0, "%s", tri_last_error());
    CHECK(tri_new_bytes(f.thread, (size_t)1 << 50) == NULL); /* more than there ever can be */
    CHECK(tri_new_bytes(f.thread, SIZE_MAX) == NULL);
    CHECK(tri_new_n(f.thread, &array_type, SIZE_MAX / 4) == NULL);
    CHECK(tri_new_n(f.thread, &array_type, SIZE_MAX / 8) == NULL);
    CHECK_EQ(tri_verify(f.thread), 0);
    fixture_close(&f);
}

TEST(limits, without_cycles_the_limit_is_met_at_once) {
    struct host host = {0};
    struct fixture f = limited_open(&host, 4 * MIB, TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    size_t n = 0;
    while (tri_new_bytes(f.thread, 4000)) n++;
    CHECK(n >= 800 && n <= 1048);
    CHECK_EQ(host.ncalls, 1);
    CHECK_EQ(fixture_stats(f.heap).cycles, 0);
    fixture_collect(&f);
    CHECK(tri_new_bytes(f.thread, 4000) != NULL);
    fixture_close(&f);
}

TEST(limits, the_limit_can_be_lowered_and_raised) {
    struct host host = {0};
    struct fixture f = limited_open(&host, 0, TRI_HEAP_PRECISE);
    tri_handle list = tri_global(f.thread, tri_new_n(f.thread, &array_type, 3 * MIB / 8));
    CHECK_EQ(tri_heap_set(f.heap, "hard_limit_bytes=1M"), TRI_OK); /* less than there is: nothing is lost */
    CHECK(tri_new_bytes(f.thread, 100000) == NULL);
    CHECK(tri_deref(list) != NULL && tri_usable_size(f.heap, tri_deref(list)) >= 3 * MIB);
    CHECK_EQ(tri_heap_set(f.heap, "hard_limit_bytes=8M"), TRI_OK);
    CHECK(tri_new_bytes(f.thread, 100000) != NULL);
    CHECK_EQ(tri_heap_set(f.heap, "hard_limit_bytes=0"), TRI_OK); /* none but the reservation's */
    CHECK(tri_new_bytes(f.thread, 20 * MIB) != NULL);
    fixture_close(&f);
}

/* ---- Several threads at the limit ---- */

struct greedy {
    tri_heap *heap;
    size_t n;
};

static void *greedy_thread(void *arg) {
    struct greedy *g = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(g->heap, 0, &thread), TRI_OK);
    tri_handle list = tri_global(thread, NULL);
    for (int round = 0; round < 3; round++) {
        size_t n = fill_until_null(thread, list, round == 1 ? 50000 : 500);
        check_list(list, n);
        g->n += n;
        tri_global_set(thread, list, NULL);
    }
    tri_global_free(thread, list);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(limits, threads_share_the_limit_and_none_is_corrupted) {
    struct host host = {0};
    struct fixture f = limited_open(&host, 6 * MIB, TRI_HEAP_PRECISE);
    struct greedy greedy[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        greedy[i] = (struct greedy){f.heap, 0};
        pthread_create(&threads[i], NULL, greedy_thread, &greedy[i]);
    }
    for (int i = 0; i < 3; i++) fixture_join(f.thread, threads[i]);
    CHECK(host.ncalls >= 9);
    fixture_collect(&f);
    fixture_collect(&f);
    CHECK(fixture_stats(f.heap).committed_bytes <= MIB);
    CHECK(tri_new_bytes(f.thread, 4 * MIB) != NULL);
    fixture_close(&f);
}

/* ---- Limits of the system ---- */

TEST(limits, a_heap_fits_into_a_small_address_space) {
    if (PROCESS_CANNOT_STARVE) return;
    process_limit(RLIMIT_AS, process_mapped_bytes() + (size_t)256 * MIB);
    tri_heap *heap;
    tri_thread *thread;
    tri_config config;
    tri_config_init(&config);        /* the reservation is the library's choice; */
    config.flags = TRI_HEAP_PRECISE; /* no stale word of the stack keeps the list */
    CHECK_MSG(tri_heap_create(&config, &heap) == TRI_OK, "%s", tri_last_error());
    CHECK_EQ(tri_attach(heap, 0, &thread), TRI_OK);
    size_t reserved = fixture_stats(heap).reserved_bytes;
    CHECK_MSG(reserved >= 16 * MIB && reserved <= 256 * MIB, "%zu bytes reserved", reserved);
    tri_handle list = tri_global(thread, NULL);
    size_t n = fill_until_null(thread, list, 1000); /* to the last page of the reservation, or of the limit */
    CHECK_MSG(n * 1000 >= reserved * 8 / 10, "%zu bytes of %zu could be had", n * 1000, reserved);
    check_list(list, n);
    CHECK_EQ(tri_verify(thread), 0);
    tri_global_set(thread, list, NULL);
    CHECK(fill_until_null(thread, list, 1000) >= n * 9 / 10);
    CHECK_EQ(tri_verify(thread), 0);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
}

/* Whatever the creation of a heap stumbles over, it says so and leaves nothing behind. */
TEST(limits, creation_fails_cleanly_at_every_limit) {
    if (PROCESS_CANNOT_STARVE) return;
    tri_heap *heap;
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.reserve_bytes = 64 * MIB;
    for (int i = 0; i < 3; i++) { /* what the C library keeps for itself */
        CHECK_EQ(tri_heap_create(&config, &heap), TRI_OK);
        CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
    }
    size_t before = process_mapped_bytes(), nfailed = 0, nworked = 0;
    for (size_t extra = 0; extra < 160 * MIB; extra += extra < 128 * MIB ? MIB * 3 / 2 : 48 << 10) {
        process_limit(RLIMIT_AS, before + extra);
        heap = (tri_heap *)&config;
        int err = tri_heap_create(&config, &heap);
        process_limit(RLIMIT_AS, SIZE_MAX);
        if (err == TRI_OK) {
            nworked++;
            CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
        } else {
            nfailed++;
            CHECK_EQ(err, TRI_ENOMEM);
            CHECK(heap == NULL);
            CHECK_MSG(strstr(tri_last_error(), "tri_heap_create"), "%s", tri_last_error());
        }
        CHECK_MSG(process_mapped_bytes() <= before + MIB / 4, "with %zu bytes: %zu bytes stay mapped", extra,
                  process_mapped_bytes() - before);
    }
    CHECK_MSG(nfailed > 20 && nworked > 5, "%zu failed, %zu worked", nfailed, nworked);
}

/* No more mappings for metadata: what runs out first, it is NULL, and memory that comes back is used. */
TEST(limits, allocation_survives_the_end_of_the_address_space) {
    if (PROCESS_CANNOT_STARVE) return;
    static const size_t sizes[] = {24, 1000, 40000};
    for (size_t i = 0; i < TRI_COUNT(sizes); i++) {
        struct host host = {0};
        struct fixture f = limited_open(&host, 0, TRI_HEAP_PRECISE);
        tri_handle list = tri_global(f.thread, NULL);
        CHECK(tri_new_n(f.thread, &block_type, 4) != NULL);
        process_limit(RLIMIT_AS, process_mapped_bytes());
        process_limit(RLIMIT_DATA, process_status_bytes("VmData:") + 24 * MIB);
        size_t n = fill_until_null(f.thread, list, sizes[i]);
        CHECK(host.ncalls >= 1);
        CHECK_MSG(strstr(tri_last_error(), "tri_new_n"), "%s", tri_last_error());
        CHECK_EQ(tri_verify(f.thread), 0);
        check_list(list, n);
        tri_global_set(f.thread, list, NULL);
        size_t m = fill_until_null(f.thread, list, sizes[i]);
        CHECK_MSG(m >= n * 9 / 10, "%zu blocks of %zu bytes, and %zu the second time", n, sizes[i], m);
        process_limit(RLIMIT_AS, SIZE_MAX);
        process_limit(RLIMIT_DATA, SIZE_MAX);
        check_list(list, m);
        CHECK(tri_new_n(f.thread, &block_type, sizes[i] / 8) != NULL);
        CHECK(tri_new_bytes(f.thread, 100 * MIB) != NULL);
        fixture_close(&f);
    }
}

/* The first arena cannot be made usable: a heap that never had a page. */
TEST(limits, a_heap_without_a_single_page_recovers) {
    if (PROCESS_CANNOT_STARVE) return;
    struct host host = {0};
    struct fixture f = limited_open(&host, 0, TRI_HEAP_PRECISE);
    process_limit(RLIMIT_DATA, process_status_bytes("VmData:") + MIB);
    CHECK(tri_new(f.thread, &pair_type) == NULL);
    CHECK_MSG(strncmp(tri_last_error(), "tri_new:", 8) == 0, "%s", tri_last_error());
    CHECK(tri_new_bytes(f.thread, 1000000) == NULL);
    CHECK(host.ncalls >= 2);
    CHECK_EQ(tri_verify(f.thread), 0);
    process_limit(RLIMIT_DATA, SIZE_MAX);
    CHECK(tri_new(f.thread, &pair_type) != NULL);
    CHECK(tri_new_bytes(f.thread, 1000000) != NULL);
    fixture_close(&f);
}

static size_t nothing_visited;
static void visit_nothing(tri_visitor *visitor, void *arg) {
    (void)visitor, (void)arg;
    nothing_visited++;
}

/* Handles, ranges, stacks and scanners: their records come from mappings too. */
TEST(limits, registrations_fail_one_by_one_and_name_themselves) {
    if (PROCESS_CANNOT_STARVE) return;
    struct fixture f = fixture_open();
    static tri_word slots[4];
    static tri_word *top = slots;
    static tri_type late = {.struct_size = sizeof(tri_type), .name = "late", .size = 16};
    struct leaf *leaf = tri_new(f.thread, &leaf_type);
    tri_handle keeper = tri_global(f.thread, leaf);
    for (int kind = 0; kind < 5; kind++) {
        static const char *const calls[] = {"tri_global", "tri_local", "tri_root_add", "tri_vmstack_add",
                                            "tri_scanner_add"};
        process_limit(RLIMIT_AS, process_mapped_bytes());
        size_t n = 0;
        uint32_t mark = tri_scope_open(f.thread);
        for (bool more = true; more; n++) {
            CHECK(n < 10000000);
            switch (kind) {
            case 0: more = tri_global(f.thread, leaf) != NULL; break;
            case 1: more = tri_local(f.thread, leaf) != NULL; break;
            case 2: more = tri_root_add(f.thread, slots, 4, NULL) != NULL; break;
            case 3: more = tri_vmstack_add(f.thread, slots, &top, NULL) != NULL; break;
            default: more = tri_scanner_add(f.thread, visit_nothing, NULL) != NULL; break;
            }
        }
        CHECK_MSG(strstr(tri_last_error(), calls[kind]), "\"%s\" does not name %s", tri_last_error(), calls[kind]);
        CHECK_EQ(tri_type_register(&late), TRI_ENOMEM);
        CHECK(strstr(tri_last_error(), "late") != NULL);
        fixture_collect(&f);
        CHECK(tri_deref(keeper) == leaf && is_alive(f.heap, hide(leaf)));
        if (kind == 1) tri_scope_close(f.thread, mark);
        process_limit(RLIMIT_AS, SIZE_MAX);
        CHECK(tri_global(f.thread, leaf) != NULL && tri_local(f.thread, leaf) != NULL);
        CHECK(tri_root_add(f.thread, slots, 4, NULL) != NULL);
    }
    CHECK(nothing_visited > 0);
    CHECK_EQ(tri_type_register(&late), TRI_OK);
    fixture_close(&f);
}

static void *attach_once(void *arg) {
    tri_heap *heap = arg;
    tri_thread *thread = NULL;
    int err = tri_attach(heap, 0, &thread);
    if (err == TRI_OK)
        CHECK_EQ(tri_detach(thread), TRI_OK);
    else
        CHECK(err == TRI_ENOMEM && strstr(tri_last_error(), "tri_attach"));
    return err == TRI_OK ? NULL : heap;
}

/* Threads that wait to be let go, all attached, until one cannot be. */
struct crowd {
    tri_heap *heap;
    pthread_barrier_t start, end;
    uint32_t nattached, nrefused;
};

static void *join_crowd(void *arg) {
    struct crowd *c = arg;
    pthread_barrier_wait(&c->start);
    tri_thread *thread;
    int err = tri_attach(c->heap, 0, &thread);
    if (err == TRI_OK) {
        atomic_add_acqrel(&c->nattached, 1);
    } else {
        CHECK_EQ(err, TRI_ENOMEM);
        CHECK(strstr(tri_last_error(), "tri_attach") != NULL);
        atomic_add_acqrel(&c->nrefused, 1);
    }
    pthread_barrier_wait(&c->end);
    if (err == TRI_OK) CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(limits, a_thread_that_cannot_be_attached_is_told_so) {
    if (PROCESS_CANNOT_STARVE) return;
    enum { CROWD = 24 };
    struct fixture f = fixture_open();
    static struct crowd c;
    c.heap = f.heap;
    pthread_barrier_init(&c.start, NULL, CROWD + 1);
    pthread_barrier_init(&c.end, NULL, CROWD + 1);
    pthread_t threads[CROWD];
    for (int i = 0; i < CROWD; i++) CHECK_EQ(pthread_create(&threads[i], NULL, join_crowd, &c), 0);
    process_limit(RLIMIT_AS,
                  process_mapped_bytes()); /* attachments come from 16 KiB chunks: a few fit into the first one */
    pthread_barrier_wait(&c.start);
    pthread_barrier_wait(&c.end);
    for (int i = 0; i < CROWD; i++) pthread_join(threads[i], NULL);
    process_limit(RLIMIT_AS, SIZE_MAX);
    CHECK_EQ(c.nattached + c.nrefused, CROWD);
    CHECK_MSG(c.nrefused > 0, "all of them could be attached");
    pthread_t again;
    void *result = &c;
    pthread_create(&again, NULL, attach_once, f.heap);
    pthread_join(again, &result);
    CHECK(result == NULL);
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    fixture_close(&f);
}
