/*
 * The options of small requests: what 0 bytes get, and the tiny allocator. First the four flows of an allocation by
 * size, each seen by the kind of span behind the address.
 */
#include "tests/held.h"

static struct fixture open_with(uint32_t flags) {
    forget_reports();
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | flags);
    config.report = on_report;
    return fixture_open_config(&config);
}

/* The slot that an address lies in. */
static struct slot slot_at(const struct fixture *f, const void *address) {
    struct slot slot = {0};
    CHECK(space_find_slot(&f->heap->mem.space, (uintptr_t)address, &slot));
    return slot;
}

static bool is_shared(const struct fixture *f, const void *address) {
    struct slot slot = slot_at(f, address);
    return space_layout_of(&f->heap->mem.space, &slot) == LAYOUT_TINY;
}

/* ---- the four flows ---------------------------------------------------------------------------------------------- */

TEST(options, four_sizes_go_four_ways) {
    struct fixture f = open_with(TRI_HEAP_TINY);
    TRI_LOCALS(f.thread, roots, 6);
    void *zero = roots[0] = tri_new_bytes(f.thread, 0);
    CHECK(!space_contains(&f.heap->mem.space, (uintptr_t)zero));
    roots[1] = tri_new_bytes(f.thread, 1);
    roots[2] = tri_new_bytes(f.thread, 15);
    CHECK(is_shared(&f, roots[1]) && is_shared(&f, roots[2]));
    roots[3] = tri_new_bytes(f.thread, 16);
    roots[4] = tri_new_bytes(f.thread, SMALL_MAX_BYTES);
    roots[5] = tri_new_bytes(f.thread, SMALL_MAX_BYTES + 1);
    CHECK(!is_shared(&f, roots[3]));
    CHECK_EQ(shape_kind(slot_at(&f, roots[3]).shape), PAGE_SMALL);
    CHECK_EQ(shape_kind(slot_at(&f, roots[4]).shape), PAGE_SMALL);
    CHECK_EQ(shape_kind(slot_at(&f, roots[5]).shape), PAGE_LARGE);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 5); /* 15 bytes found no room beside 1 */
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* ---- 0 bytes ----------------------------------------------------------------------------------------------------- */

TEST(options, zero_bytes_get_one_address_that_nothing_looks_at) {
    struct fixture f = open_with(0), other_heap;
    if (TRI_CHECKS >= 1) fixture_set(f.heap, "stress.slow=1");
    TRI_LOCALS(f.thread, roots, 3);
    void *zero = tri_new_bytes(f.thread, 0);
    const tri_type *type;
    CHECK(zero != NULL && zero == tri_new_bytes(f.thread, 0));
    for (size_t align = 1; align <= PAGE_BYTES; align *= 2) CHECK(tri_new_aligned(f.thread, align, 0) == zero);
    CHECK_EQ((uintptr_t)zero % PAGE_BYTES, 0);
    hold_type.struct_size = sizeof(tri_type);
    struct hold *hold = roots[0] = tri_new(f.thread, &hold_type);
    struct pair *p = roots[1] = tri_new(f.thread, &pair_type);
    tri_init(f.thread, hold, &hold->next, p);
    tri_store(f.thread, p, &p->left, zero);
    roots[2] = zero;
    tri_handle handle = tri_global(f.thread, zero);
    pthread_t collect = begin_cycle(&f); /* the same stores through an armed barrier, and lookups through the gate */
    tri_store(f.thread, p, &p->left, NULL);
    tri_store(f.thread, p, &p->left, zero);
    tri_global_set(f.thread, handle, zero);
    CHECK(tri_find(f.thread, zero, &type) == NULL);
    CHECK_EQ(tri_usable_size(f.heap, zero), 0);
    CHECK_EQ(tri_free(f.thread, zero), TRI_OK); /* waits for nothing */
    end_cycle(&f, collect);
    CHECK(p->left == zero && tri_deref(handle) == zero && roots[2] == zero);
    CHECK(tri_find(f.thread, zero, &type) == NULL);
    CHECK_EQ(tri_free(f.thread, zero), TRI_OK);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 2);
    tri_global_free(f.thread, handle);

    other_heap = open_with(0);
    CHECK(tri_new_bytes(other_heap.thread, 0) == zero);
    close_heap(&other_heap);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(options, zero_bytes_may_be_unique) {
    for (int how = 0; how < 2; how++) {
        struct fixture f = open_with(how == 0 ? TRI_HEAP_UNIQUE_ZERO | TRI_HEAP_TINY : 0);
        if (how == 1) fixture_set(f.heap, "zero_size=unique");
        enum { N = 100 };
        TRI_LOCALS(f.thread, roots, N);
        for (int i = 0; i < N; i++) {
            roots[i] = i % 2 ? tri_new_bytes(f.thread, 0) : tri_new_aligned(f.thread, 64, 0);
            CHECK(roots[i] != NULL && tri_usable_size(f.heap, roots[i]) >= 8);
            if (i % 2 == 0) CHECK_EQ((uintptr_t)roots[i] % 64, 0);
            for (int k = 0; k < i; k++) CHECK(roots[k] != roots[i]);
        }
        fixture_collect(&f);
        for (int i = 0; i < N; i++) CHECK(is_alive(f.heap, hide(roots[i])));
        CHECK_EQ(tri_free(f.thread, roots[0]), TRI_OK);
        fixture_set(f.heap, "zero_size=fixed");
        CHECK(tri_new_bytes(f.thread, 0) == tri_new_aligned(f.thread, 16, 0));
        CHECK_EQ(tri_heap_set(f.heap, "zero_size=two"), TRI_EINVAL);
        CHECK_EQ(tri_heap_set(f.heap, "tiny="), TRI_EINVAL);
        TRI_POP(f.thread, roots);
        close_heap(&f);
    }
}

/* A typed object of no bytes has a type to be found by, and an identity: a slot of its own. */
TEST(options, empty_arrays_are_objects_of_their_own) {
    struct fixture f = open_with(0);
    TRI_LOCALS(f.thread, roots, 2);
    const tri_type *type = NULL;
    for (int i = 0; i < 2; i++) roots[i] = tri_new_n(f.thread, &array_type, 0);
    CHECK(roots[0] != roots[1]);
    CHECK(tri_find(f.thread, roots[0], &type) == roots[0] && type == &array_type);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* ---- the tiny allocator ------------------------------------------------------------------------------------------ */

TEST(options, small_bytes_share_a_slot_of_their_thread) {
    struct fixture f = open_with(TRI_HEAP_TINY);
    TRI_LOCALS(f.thread, roots, 1);
    char *first = roots[0] = tri_new_bytes(f.thread, 4);
    CHECK_EQ(slot_at(&f, first).addr, (uintptr_t)first);
    CHECK(tri_new_bytes(f.thread, 1) == first + 4);
    CHECK(tri_new_bytes(f.thread, 2) == first + 6); /* 5 would be odd */
    CHECK(tri_new_bytes(f.thread, 8) == first + 8);
    char *second = tri_new_bytes(f.thread, 12);
    CHECK(slot_at(&f, second).addr == (uintptr_t)second && second != first);
    CHECK(tri_new_bytes(f.thread, 8) != second + 12); /* no room: a third one, which has more of it now */
    CHECK(((uintptr_t)tri_new_bytes(f.thread, 8) & 15) == 8);
    char *alone = tri_new_aligned(f.thread, 8, 3), *beside = tri_new_aligned(f.thread, 8, 3);
    CHECK(beside == alone + 8 && (uintptr_t)alone % 8 == 0);
    CHECK(!is_shared(&f, tri_new_aligned(f.thread, 16, 3))); /* more than a shared slot has */
    CHECK(!is_shared(&f, tri_new(f.thread, &leaf_type)));
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(options, shared_slots_hold_what_was_written_at_its_alignment) {
    struct fixture f = open_with(0);
    fixture_set(f.heap, "tiny=on");
    enum { N = 20000 };
    static unsigned char *objects[N], sizes[N];
    TRI_LOCALS(f.thread, roots, N);
    uint64_t seed = fixture_seed();
    for (int round = 0; round < 3; round++) {
        for (int i = round; i < N; i += 1 + round) {
            size_t size = 1 + fixture_random(&seed) % 15, align = size & (0 - size);
            sizes[i] = (unsigned char)size;
            objects[i] = roots[i] = tri_new_bytes(f.thread, size);
            CHECK_EQ((uintptr_t)objects[i] % (align < 2 ? 2 : align), 0);
            CHECK(((uintptr_t)objects[i] & 15) + size <= 16);
            memset(objects[i], i & 0xff, size);
        }
        fixture_collect(&f);
        for (int i = 0; i < N; i++)
            for (size_t k = 0; k < sizes[i]; k++) CHECK_EQ(objects[i][k], i & 0xff);
    }
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(options, a_shared_slot_lives_as_long_as_one_of_its_objects) {
    struct fixture f = open_with(TRI_HEAP_TINY);
    TRI_LOCALS(f.thread, roots, 2);
    char *first = roots[0] = tri_new_bytes(f.thread, 4), *last = tri_new_bytes(f.thread, 8);
    roots[1] = tri_new(f.thread, &pair_type);
    struct pair *p = roots[1];
    CHECK(last == first + 8);
    tri_store(f.thread, p, &p->left, last);
    roots[0] = NULL;
    uintptr_t hidden = hide(first);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hidden)); /* by a reference into its middle */
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 2);
    tri_store(f.thread, p, &p->left, NULL);
    tri_handle handle = tri_global(f.thread, (void *)(~hidden + 8));
    CHECK(handle != NULL);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hidden));
    tri_global_free(f.thread, handle);
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, hidden));
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 1);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* I-CACHE4: the slot that is half full when its thread has been scanned may be white; what is allocated then may not go
 * into it. Both steps of the cycle at which it changes. */
TEST(options, a_slot_from_before_the_scan_is_not_filled_after_it) {
    struct fixture f = open_with(TRI_HEAP_TINY);
    TRI_LOCALS(f.thread, roots, 3);
    roots[0] = tri_new(f.thread, &hold_type);
    char *before = tri_new_bytes(f.thread, 2); /* garbage */
    uintptr_t before_slot = slot_at(&f, before).addr;
    pthread_t collect = begin_cycle(&f);
    char *born_black = roots[1] = tri_new_bytes(f.thread, 2);
    CHECK(slot_at(&f, born_black).addr != before_slot);
    born_black[0] = 'b';
    end_cycle(&f, collect);
    CHECK(is_alive(f.heap, hide((void *)slot_at(&f, born_black).addr)) && born_black[0] == 'b');
    CHECK(!is_alive(f.heap, hide((void *)before_slot)));
    char *after = roots[2] = tri_new_bytes(f.thread, 2);
    CHECK(slot_at(&f, after).addr != slot_at(&f, born_black).addr);
    after[0] = 'a';
    fixture_collect(&f);
    CHECK(born_black[0] == 'b' && after[0] == 'a');
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

TEST(options, shared_slots_are_not_freed_by_hand_nor_measured) {
    struct fixture f = open_with(TRI_HEAP_TINY);
    TRI_LOCALS(f.thread, roots, 2);
    char *first = roots[0] = tri_new_bytes(f.thread, 4), *second = roots[1] = tri_new_bytes(f.thread, 4);
    memcpy(second, "abc", 4);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(tri_usable_size(f.heap, roots[i]), 0);
        CHECK_EQ(tri_free(f.thread, roots[i]), TRI_EINVAL);
        CHECK_MSG(strstr(tri_last_error(), "share") != NULL, "%s", tri_last_error());
        CHECK(tri_find(f.thread, roots[i], NULL) == first);
        fixture_collect(&f);
    }
    CHECK(strcmp(second, "abc") == 0);
    fixture_set(f.heap, "tiny=off"); /* what is there stays what it is */
    CHECK_EQ(tri_free(f.thread, first), TRI_EINVAL);
    CHECK(!is_shared(&f, tri_new_bytes(f.thread, 4)));
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

/* ---- several threads, cycles all the time ------------------------------------------------------------------------ */

enum { CELLS = 400, NTHREADS = 3 };

struct filler {
    tri_heap *heap;
    uint64_t seed;
    uint32_t rounds;
    uint32_t done;
};

static unsigned char pattern_of(const unsigned char *bytes, size_t size) {
    return (unsigned char)((uintptr_t)bytes * 31 + size);
}

/* Keeps CELLS small strings in an array, replaces them at random, and looks at them. */
static void *fill_cells(void *arg) {
    struct filler *fl = arg;
    tri_thread *t = fixture_attach(fl->heap);
    TRI_LOCALS(t, roots, 1);
    unsigned char sizes[CELLS] = {0};
    void **cells = roots[0] = tri_new_n(t, &array_type, CELLS);
    for (uint32_t i = 0; i < fl->rounds; i++) {
        size_t at = fixture_random(&fl->seed) % CELLS, size = fixture_random(&fl->seed) % 18;
        unsigned char *bytes = tri_new_bytes(t, size);
        memset(bytes, pattern_of(bytes, size), size);
        sizes[at] = (unsigned char)size;
        tri_store(t, cells, &cells[at], bytes);
        at = fixture_random(&fl->seed) % CELLS;
        const unsigned char *seen = cells[at];
        for (size_t k = 0; k < sizes[at]; k++) CHECK_EQ(seen[k], pattern_of(seen, sizes[at]));
    }
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    atomic_store_release(&fl->done, 1);
    return NULL;
}

TEST(options, threads_fill_shared_slots_while_cycles_run) {
    struct fixture f = open_with(TRI_HEAP_TINY);
    if (TRI_CHECKS >= 1) {
        fixture_set(f.heap, "poison=1");
        fixture_set(f.heap, "checkmark=1");
    }
    pthread_t threads[NTHREADS];
    struct filler fillers[NTHREADS];
    for (unsigned i = 0; i < NTHREADS; i++) {
        fillers[i] = (struct filler){f.heap, fixture_seed() + i, TEST_IS_SLOW ? 20000 : 100000, 0};
        CHECK_EQ(pthread_create(&threads[i], NULL, fill_cells, &fillers[i]), 0);
    }
    for (int i = 0; i < 4; i++) fixture_collect(&f);
    for (int i = 0; i < NTHREADS; i++) {
        do fixture_collect(&f);
        while (!atomic_load_acquire(&fillers[i].done));
        fixture_join(f.thread, threads[i]);
    }
    close_heap(&f);
}
