/*
 * Small machines: what a heap costs before it holds anything, a hundred heaps in one process, an address space of 256
 * MB for the whole process, and the number of mappings, which no heap may grow. Figures are read from /proc as
 * differences.
 */
#include "tests/fixture.h"
#include "tests/process.h"

static tri_heap *default_heap(tri_thread **thread) {
    tri_config config;
    tri_config_init(&config); /* the reservation is the library's choice */
    config.flags = TRI_HEAP_PRECISE;
    config.report = fixture_on_report;
    tri_heap *heap;
    CHECK_MSG(tri_heap_create(&config, &heap) == TRI_OK, "%s", tri_last_error());
    *thread = fixture_attach(heap);
    return heap;
}

static void end_heap(tri_heap *heap, tri_thread *thread) {
    CHECK_EQ(tri_verify(thread), 0);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
    CHECK_MSG(atomic_load_acquire(&fixture_nreports) == 0, "reported: %s", fixture_report);
}

/* A list of pairs under a handle; its length is its head's number plus one. */
static void make_list(tri_thread *thread, tri_handle list, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        struct pair *p = tri_new(thread, &pair_type);
        CHECK_MSG(p != NULL, "%s", tri_last_error());
        p->value = i;
        tri_store(thread, p, &p->left, tri_deref(list));
        tri_global_set(thread, list, p);
    }
}

static void check_list(tri_handle list, uint64_t n) {
    for (const struct pair *p = tri_deref(list); p; p = p->left) CHECK_EQ(p->value, --n);
    CHECK_EQ(n, 0);
}

/* ---- What a heap costs ------------------------------------------------------------------------------------------- */

TEST(small, a_heap_starts_with_less_than_a_megabyte) {
    if (TEST_IS_SLOW) return; /* their shadow memory counts, too */
    process_without_huge_pages();
    tri_thread *thread;
    tri_heap *heap = default_heap(&thread); /* what the first one costs the process is the process's */
    end_heap(heap, thread);
    size_t before = process_anonymous_bytes();
    heap = default_heap(&thread);
    size_t created = process_anonymous_bytes() - before;
    tri_handle list = tri_global(thread, NULL);
    make_list(thread, list, 100);
    CHECK(tri_new_bytes(thread, 10000) != NULL);
    size_t used = process_anonymous_bytes() - before;
    CHECK_EQ(tri_collect(thread), TRI_OK);
    size_t collected = process_anonymous_bytes() - before;
    printf("small: %zu KB resident when created, %zu KB with its first objects, %zu KB after a cycle\n", created >> 10,
           used >> 10, collected >> 10);
    CHECK_MSG(created < MIB && used < MIB && collected < MIB, "%zu, %zu and %zu bytes are resident", created, used,
              collected);
    check_list(list, 100);
    end_heap(heap, thread);
}

/* ---- Many heaps -------------------------------------------------------------------------------------------------- */

enum { NHEAPS = TEST_UNDER_TSAN ? 20 : 100 };

TEST(small, a_hundred_heaps_in_one_process, .timeout = 120) {
    static tri_heap *heaps[NHEAPS];
    static tri_thread *threads[NHEAPS];
    static tri_handle lists[NHEAPS];
    process_without_huge_pages();
    size_t before = process_anonymous_bytes(), mappings = process_nmappings();
    for (uint64_t i = 0; i < NHEAPS; i++) {
        heaps[i] = default_heap(&threads[i]);
        lists[i] = tri_global(threads[i], NULL);
        make_list(threads[i], lists[i], 100 + i);
    }
    size_t resident = process_anonymous_bytes() - before;
    mappings = process_nmappings() - mappings;
    printf("small: %d heaps: %zu KB resident and %zu mappings for each\n", NHEAPS, (resident >> 10) / NHEAPS,
           mappings / NHEAPS);
    CHECK_MSG(TEST_IS_SLOW || resident < (size_t)NHEAPS * MIB, "%zu bytes are resident", resident);
    CHECK_MSG(mappings < (size_t)NHEAPS * 60, "%zu mappings", mappings);
    for (int round = 0; round < 2; round++)
        for (uint64_t i = 0; i < NHEAPS; i++) {
            CHECK_MSG(tri_collect(threads[i]) == TRI_OK, "%s", tri_last_error());
            CHECK_EQ(tri_walk(threads[i], NULL, NULL), 100 + i);
            check_list(lists[i], 100 + i);
        }
    for (uint64_t i = 0; i < NHEAPS; i++) end_heap(heaps[i], threads[i]);
    CHECK_MSG(process_nmappings() <= 1000, "%zu mappings are left", process_nmappings());
}

/* ---- 256 MB of address space ------------------------------------------------------------------------------------- */

struct tenant {
    tri_heap *heap;
    uint64_t nbytes; /* what it allocated */
};

/* Garbage, and a list that is checked and replaced. */
static void *live_small(void *arg) {
    struct tenant *t = arg;
    tri_thread *thread = fixture_attach(t->heap);
    tri_handle list = tri_global(thread, NULL);
    for (int round = 0; round < 8; round++) {
        tri_global_set(thread, list, NULL);
        make_list(thread, list, 20000);
        for (size_t i = 0; i < 2000; i++) {
            size_t size_bytes = i % 100 == 0 ? 300000 : 5000;
            CHECK_MSG(tri_new_bytes(thread, size_bytes) != NULL, "%s", tri_last_error());
            t->nbytes += size_bytes;
        }
        check_list(list, 20000);
    }
    tri_global_free(thread, list);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(small, a_process_of_256_megabytes_of_address_space, .timeout = 120) {
    enum { NTENANTS = 3 };
    if (PROCESS_CANNOT_STARVE || process_mapped_bytes() > 128 * (size_t)MIB) return;
    process_limit(RLIMIT_AS, 256 * (size_t)MIB);
    tri_thread *thread;
    tri_heap *heap = default_heap(&thread);
    size_t reserved = fixture_stats(heap).reserved_bytes;
    CHECK_MSG(reserved >= 16 * MIB && reserved <= 128 * MIB, "%zu bytes reserved", reserved);
    struct tenant tenants[NTENANTS];
    pthread_t threads[NTENANTS];
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 1 << 20);
    for (int i = 0; i < NTENANTS; i++) {
        tenants[i] = (struct tenant){heap, 0};
        CHECK_EQ(pthread_create(&threads[i], &attr, live_small, &tenants[i]), 0);
    }
    pthread_attr_destroy(&attr);
    for (int i = 0; i < NTENANTS; i++) fixture_join(thread, threads[i]);
    CHECK(tenants[0].nbytes + tenants[1].nbytes + tenants[2].nbytes > 4 * (uint64_t)reserved); /* it was collected */
    end_heap(heap, thread);
    process_limit(RLIMIT_AS, SIZE_MAX);
}

/* ---- Mappings ---------------------------------------------------------------------------------------------------- */

/* Every other span dies, their pages go back to the system one by one, and come again: the mappings stay what they
 * were. */
TEST(small, mappings_do_not_grow_with_the_heap, .timeout = 120) {
    enum { NBLOCKS = TEST_IS_SLOW ? 2000 : 20000, BLOCK_BYTES = 40000 };
    tri_thread *thread;
    tri_heap *heap = default_heap(&thread);
    tri_handle handle = tri_global(thread, tri_new_n(thread, &array_type, NBLOCKS));
    void **array = tri_deref(handle);
    size_t most = 0, before = process_nmappings();
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < NBLOCKS; i++) {
            if (array[i]) continue;
            void *block = tri_new_bytes(thread, BLOCK_BYTES);
            CHECK_MSG(block != NULL, "%s", tri_last_error());
            *(uint64_t *)block = i;
            tri_store(thread, array, &array[i], block);
        }
        most = max_size(most, process_nmappings());
        for (size_t i = (size_t)round & 1; i < NBLOCKS; i += 2) tri_store(thread, array, &array[i], NULL);
        CHECK_EQ(tri_collect(thread), TRI_OK);
        tri_trim(heap);
        most = max_size(most, process_nmappings());
        for (size_t i = 0; i < NBLOCKS; i++) CHECK(!array[i] || *(uint64_t *)array[i] == i);
    }
    printf("small: %zu mappings, and at most %zu with %zu MB in use\n", before, most,
           (size_t)NBLOCKS * BLOCK_BYTES / MIB);
    CHECK_MSG(most < 1000, "%zu mappings", most);
    tri_global_free(thread, handle);
    end_heap(heap, thread);
}
