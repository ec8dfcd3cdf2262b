/*
 * The heap as a program sees it through its spans: holes and their reuse, alignment and zeroing, large objects, mixed
 * spans, lookups, several heaps side by side, and memory that comes and goes.
 */
#include "tests/fixture.h"

#include "gc/fork.h"
#include "tests/process.h"

/* ---- Objects ---- */

TEST(heap, holes_are_reused_after_a_sweep) {
    struct fixture f = fixture_open();
    enum { N = 4096 };
    TRI_LOCALS(f.thread, roots, N / 4);
    static uintptr_t hidden[N];
    for (int i = 0; i < N; i++) {
        struct leaf *leaf = tri_new(f.thread, &leaf_type);
        leaf->a = (uint64_t)i;
        hidden[i] = hide(leaf);
        if (i % 4 == 0) roots[i / 4] = leaf;
    }
    size_t committed = fixture_stats(f.heap).committed_bytes;
    fixture_collect(&f);
    size_t reused = 0;
    for (int i = 0; i < N - N / 4; i++) {
        uintptr_t addr = (uintptr_t)tri_new(f.thread, &leaf_type);
        for (int k = 1; k < N; k++)
            if (k % 4 && ~hidden[k] == addr) {
                reused++;
                break;
            }
    }
    CHECK_MSG(reused >= (N - N / 4) * 9 / 10, "%zu of %d objects lie in slots of the dead", reused, N - N / 4);
    CHECK(fixture_stats(f.heap).committed_bytes <= committed + 2 * PAGE_BYTES);
    for (int i = 0; i < N; i += 4) CHECK_EQ(((struct leaf *)reveal(hidden[i]))->a, i);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(heap, eight_byte_objects_live_and_die_one_by_one) {
    struct fixture f = fixture_open();
    enum { N = 5000 };
    static tri_type eight = {.struct_size = sizeof(tri_type), .name = "eight", .size = 8, .flags = TRI_TYPE_LEAF};
    TRI_LOCALS(f.thread, roots, N);
    static uintptr_t hidden[N];
    for (int i = 0; i < N; i++) {
        uint64_t *p = i % 2 ? tri_new(f.thread, &eight) : tri_new_bytes(f.thread, 5);
        *p = (uint64_t)i;
        hidden[i] = hide(p);
        roots[i] = i % 3 ? NULL : p;
        CHECK_EQ(tri_usable_size(f.heap, p), 8);
    }
    for (int round = 0; round < 3; round++) {
        fixture_collect(&f);
        for (int i = 0; i < N; i++) {
            CHECK_EQ(is_alive(f.heap, hidden[i]), i % 3 == 0);
            if (i % 3 == 0) CHECK_EQ(*(uint64_t *)roots[i], i);
        }
    }
    for (int i = 0; i < N; i++) /* and their free slots serve again, between the live ones */
        if (i % 3) *(uint64_t *)(roots[i] = tri_new_bytes(f.thread, 8)) = (uint64_t)i;
    fixture_collect(&f);
    for (int i = 0; i < N; i++) CHECK_EQ(*(uint64_t *)roots[i], i);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(heap, objects_of_16_bytes_and_more_are_16_byte_aligned) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    static tri_type leaves = {.struct_size = sizeof(tri_type), .name = "bytes", .elem_size = 1, .flags = TRI_TYPE_LEAF};
    static tri_type aligned = {.struct_size = sizeof(tri_type),
                               .name = "aligned",
                               .size = 8,
                               .align = 16,
                               .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED};
    TRI_LOCALS(f.thread, roots, 1);
    for (size_t size = 1; size <= 40000; size += TEST_IS_SLOW && size > 4096 ? 97 : 1) {
        uintptr_t a = (uintptr_t)(roots[0] = tri_new_bytes(f.thread, size));
        uintptr_t b = (uintptr_t)tri_new_n(f.thread, &leaves, size);
        size_t align = size < 9 ? 8 : 16;
        CHECK_MSG(a && b && a % align == 0 && b % align == 0, "size %zu: %p and %p", size, (void *)a, (void *)b);
        CHECK_MSG(tri_usable_size(f.heap, (void *)a) >= size, "size %zu has %zu usable bytes", size,
                  tri_usable_size(f.heap, (void *)a));
    }
    for (int i = 0; i < 100; i++) {
        CHECK_EQ((uintptr_t)tri_new(f.thread, &aligned) % 16, 0);
        CHECK_EQ((uintptr_t)tri_new(f.thread, &pair_type) % 16, 0);
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static size_t first_nonzero(const void *p, size_t n) {
    const unsigned char *bytes = p;
    for (size_t i = 0; i < n; i++)
        if (bytes[i]) return i;
    return n;
}

/* All sizes get dirty slots, then the same sizes again must be zero to the end of the slot. */
static void check_zeroed(struct fixture *f, tri_type *type, size_t n, int count, bool with_poison) {
    if (with_poison) CHECK_EQ(tri_heap_set(f->heap, "poison=1"), TRI_OK);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < count; i++) {
            char *p = n ? tri_new_n(f->thread, type, n) : tri_new(f->thread, type);
            CHECK_MSG(p != NULL, "%s", tri_last_error());
            size_t usable = tri_usable_size(f->heap, p), at = first_nonzero(p, usable);
            CHECK_MSG(at == usable, "%s, %zu elements: byte %zu of %zu is not zero in round %d", type->name, n, at,
                      usable, round);
            memset(p, 0xa5, usable); /* garbage at once: nothing looks at its slots */
        }
        fixture_collect(f);
    }
}

TEST(heap, reused_memory_is_zero_to_the_end_of_the_slot) {
    static tri_type types[12];
    static const size_t sizes[] = {8, 16, 24, 72, 136, 200, 520, 1000, 3000, 5000, 20000, 32768};
    static const uint32_t first_word[] = {0};
    for (int poison = 0; poison <= (TRI_CHECKS >= 1 ? 1 : 0); poison++) {
        struct fixture f = fixture_open();
        for (size_t i = 0; i < TRI_COUNT(sizes); i++) {
            if (types[i].layout == 0)
                types[i] = (tri_type){.struct_size = sizeof(tri_type),
                                      .name = "scanned",
                                      .size = sizes[i],
                                      .pointers = {.offsets = first_word, .noffsets = 1}};
            check_zeroed(&f, &types[i], 0, (int)(100000 / sizes[i]) + 2, poison != 0);
        }
        check_zeroed(&f, &leaf_type, 0, 3000, poison != 0); /* TRI_TYPE_ZEROED */
        for (size_t n = 1; n <= 6000; n = n * 3 / 2 + 1) check_zeroed(&f, &array_type, n, 40, poison != 0);
        fixture_close(&f);
    }
}

/* ---- Large objects ---- */

TEST(heap, large_objects_are_zeroed_on_pages_that_were_used_before) {
    struct fixture f = fixture_open();
    for (size_t n = 4097; n <= 400000; n = n * 5 / 2) check_zeroed(&f, &array_type, n, 4, false);
    fixture_close(&f);
}

TEST(heap, large_objects_live_and_die) {
    struct fixture f = fixture_open();
    enum { N = 40 };
    TRI_LOCALS(f.thread, roots, N);
    uintptr_t hidden[N];
    for (size_t i = 0; i < N; i++) {
        size_t nslots = 4200 + i * 3000;
        void **array = tri_new_n(f.thread, &array_type, nslots);
        hidden[i] = hide(array);
        tri_store(f.thread, array, &array[nslots - 1], tri_new(f.thread, &leaf_type));
        if (i % 2) roots[i] = i % 4 == 1 ? (void *)array : (void *)((char *)array + 30000); /* interior too */
        CHECK(tri_usable_size(f.heap, array) >= nslots * 8);
        CHECK_EQ(tri_usable_size(f.heap, (char *)array + 20000), tri_usable_size(f.heap, array));
    }
    size_t before = fixture_stats(f.heap).committed_bytes;
    for (int round = 0; round < 3; round++) {
        fixture_collect(&f);
        for (size_t i = 0; i < N; i++) CHECK_EQ(is_alive(f.heap, hidden[i]), i % 2);
    }
    CHECK(fixture_stats(f.heap).committed_bytes < before * 6 / 10);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* A collection in the middle of a large object's zeroing neither finds it nor sweeps it (R12). */
static size_t zeroing_calls;

static void collect_while_zeroing(void *context, void *mutator, size_t done_bytes) {
    tri_heap *heap = context;
    struct mutator *m = mutator;
    size_t published = 0;
    zeroing_calls++;
    CHECK(done_bytes > 0 && done_bytes % 4096 == 0);
    CHECK(atomic_load_relaxed(&heap->mem.building_pages) > 0);
    for (size_t page = 0; page < atomic_load_acquire(&heap->mem.space.committed_pages); page++)
        published += shape_kind(atomic_load_acquire(&heap->mem.space.pages[page].shape)) != PAGE_NONE;
    CHECK_EQ(published + atomic_load_relaxed(&heap->mem.building_pages), atomic_load_relaxed(&heap->mem.used_pages));
    IN_HOOK();
    uint32_t *section = &m->os->unforkable; /* out of it, as the library's own hook */
    unforkable_leave(&section);
    CHECK_EQ(tri_collect(&m->pub), TRI_OK);
    CHECK_EQ(tri_verify(&m->pub), 0);
    unforkable_enter(section);
}

TEST(heap, a_large_object_under_construction_is_left_alone) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    enum { NSLOTS = 200000 };
    memset(tri_new_n(f.thread, &array_type, NSLOTS), 0xff, NSLOTS * 8);
    fixture_collect(&f); /* its pages are free and dirty now */
    f.heap->mem.hooks.zeroing = collect_while_zeroing;
    void **array = roots[0] = tri_new_n(f.thread, &array_type, NSLOTS);
    CHECK(zeroing_calls >= 3);
    CHECK_EQ(first_nonzero(array, tri_usable_size(f.heap, array)), tri_usable_size(f.heap, array));
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hide(array)));
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- Which object, which type ---- */

TEST(heap, mixed_spans_name_each_slots_type) {
    enum { TYPES = 60, EACH = 6 };
    static tri_type types[TYPES];
    static char names[TYPES][16];
    static const uint32_t first_word[] = {0};
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, TYPES * EACH);
    for (int i = 0; i < TYPES; i++) {
        snprintf(names[i], sizeof names[i], "type%d", i);
        types[i] = (tri_type){.struct_size = sizeof(tri_type), .name = names[i], .size = 64 + (size_t)(i % 5) * 16};
        if (i % 2)
            types[i].pointers = (tri_slots){.offsets = first_word, .noffsets = 1};
        else
            types[i].flags = TRI_TYPE_LEAF;
    }
    size_t mixed = 0;
    for (int k = 0; k < EACH; k++)
        for (int i = 0; i < TYPES; i++) {
            char *p = roots[k * TYPES + i] = tri_new(f.thread, &types[i]);
            memset(p + 8, i, types[i].size - 8);
            struct slot slot;
            CHECK(space_find_slot(&f.heap->mem.space, (uintptr_t)p, &slot));
            mixed += shape_kind(slot.shape) == PAGE_MIXED;
        }
    CHECK_MSG(mixed == TYPES * EACH, "%zu of %d objects of cold types lie in mixed spans", mixed, TYPES * EACH);
    for (int round = 0; round < 2; round++) {
        for (int k = 0; k < TYPES * EACH; k++) {
            const tri_type *type = NULL;
            CHECK(tri_find(f.thread, (char *)roots[k] + 24, &type) == roots[k]);
            CHECK_MSG(type == &types[k % TYPES], "object %d is a %s", k, type ? type->name : "(bytes)");
        }
        fixture_collect(&f);
    }
    /* The spans are few: that is what they are for. */
    CHECK(fixture_stats(f.heap).committed_bytes <= 12 * PAGE_BYTES);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(heap, a_hot_type_gets_spans_of_its_own) {
    static tri_type hot = {.struct_size = sizeof(tri_type), .name = "hot", .size = 128, .flags = TRI_TYPE_LEAF};
    struct fixture f = fixture_open();
    struct slot slot;
    for (int i = 0; i < 2000; i++)
        CHECK(space_find_slot(&f.heap->mem.space, (uintptr_t)tri_new(f.thread, &hot), &slot));
    CHECK_EQ(shape_kind(slot.shape), PAGE_SMALL);
    CHECK_EQ(shape_layout(slot.shape), hot.layout);
    fixture_close(&f);
}

TEST(heap, every_address_of_an_object_names_it) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    roots[0] = tri_new(f.thread, &pair_type);
    roots[1] = tri_new_n(f.thread, &array_type, 10);
    roots[2] = tri_new_n(f.thread, &array_type, 10000);
    const tri_type *expected[] = {&pair_type, &array_type, &array_type};
    for (int i = 0; i < 3; i++) {
        size_t usable = tri_usable_size(f.heap, roots[i]);
        for (size_t offset = 0; offset<usable; offset += usable> 200 ? 1001 : 1) {
            const tri_type *type = NULL;
            CHECK(tri_find(f.thread, (char *)roots[i] + offset, &type) == roots[i]);
            CHECK(type == expected[i]);
            CHECK_EQ(tri_usable_size(f.heap, (char *)roots[i] + offset), usable);
        }
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(heap, untyped_bytes_have_no_type) {
    struct fixture f = fixture_open();
    const tri_type *type = &pair_type;
    void *p = tri_new_bytes(f.thread, 100);
    CHECK(tri_find(f.thread, p, &type) == p);
    CHECK(type == NULL);
    fixture_close(&f);
}

TEST(heap, addresses_that_name_no_object_are_refused) {
    struct fixture f = fixture_open();
    int local = 0;
    char *p = tri_new(f.thread, &pair_type), *q = tri_new_bytes(f.thread, 48);
    const struct space *space = &f.heap->mem.space;
    const void *nothing[] = {NULL,
                             &local,
                             (void *)(space->base - 8),
                             (void *)(space->base + space->size_bytes),
                             (void *)(space->base + space->size_bytes - 8), /* reserved, not committed */
                             p + 32,                                        /* the unused part of a hole */
                             (void *)(align_down((uintptr_t)q, PAGE_BYTES) + PAGE_BYTES - 1)}; /* tail waste */
    for (size_t i = 0; i < TRI_COUNT(nothing); i++) {
        CHECK_MSG(tri_find(f.thread, nothing[i], NULL) == NULL, "address %zu is an object", i);
        if (i != 5) CHECK_MSG(tri_usable_size(f.heap, nothing[i]) == 0, "address %zu has a size", i);
    }
    fixture_collect(&f);
    CHECK(tri_find(f.thread, p, NULL) == NULL);
    fixture_close(&f);
}

TEST(heap, a_dead_object_has_no_size) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new(f.thread, &leaf_type); /* keeps the span */
    char *dead = tri_new(f.thread, &leaf_type);
    CHECK_EQ(tri_usable_size(f.heap, dead), 32);
    fixture_collect(&f);
    CHECK_EQ(tri_usable_size(f.heap, dead), 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

struct neighbour {
    tri_heap *heap;
    void *unused_slot;
    pthread_barrier_t barrier;
};

static void *leave_a_hole(void *arg) {
    struct neighbour *n = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(n->heap, 0, &thread), TRI_OK);
    n->unused_slot = (char *)tri_new(thread, &leaf_type) + sizeof(struct leaf);
    pthread_barrier_wait(&n->barrier);
    pthread_barrier_wait(&n->barrier); /* no cycle can begin: nobody asks for one */
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* R4: the unused slots of a hole are no objects for anybody. */
TEST(heap, another_threads_hole_holds_no_objects) {
    struct fixture f = fixture_open();
    struct neighbour n = {.heap = f.heap};
    pthread_t thread;
    pthread_barrier_init(&n.barrier, NULL, 2);
    pthread_create(&thread, NULL, leave_a_hole, &n);
    pthread_barrier_wait(&n.barrier);
    bool found = tri_find(f.thread, n.unused_slot, NULL) != NULL;
    pthread_barrier_wait(&n.barrier);
    pthread_join(thread, NULL);
    CHECK(!found);
    fixture_close(&f);
}

struct walked {
    size_t npairs, nleaves, nothers, nbytes;
};

static void count_one(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    struct walked *w = arg;
    CHECK(obj != NULL);
    w->nbytes += size_bytes;
    if (type == &pair_type)
        w->npairs++;
    else if (type == &leaf_type)
        w->nleaves++;
    else
        w->nothers++;
}

TEST(heap, walk_visits_each_object_once) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 300);
    for (int i = 0; i < 100; i++) roots[i] = tri_new(f.thread, &pair_type);
    for (int i = 100; i < 150; i++) roots[i] = tri_new(f.thread, &leaf_type);
    for (int i = 150; i < 170; i++) roots[i] = tri_new_bytes(f.thread, (size_t)i * 1000);
    for (int i = 0; i < 500; i++) tri_new(f.thread, &leaf_type);
    struct walked w = {0};
    CHECK_EQ(tri_walk(f.thread, count_one, &w), 670);
    CHECK_EQ(w.nleaves, 550);
    fixture_collect(&f);
    w = (struct walked){0};
    CHECK_EQ(tri_walk(f.thread, count_one, &w), 170);
    CHECK_EQ(w.npairs, 100);
    CHECK_EQ(w.nleaves, 50);
    CHECK_EQ(w.nothers, 20);
    CHECK(w.nbytes >= 100 * 24 + 50 * 32 + 20 * 150000);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 170);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- Several heaps ---- */

TEST(heap, pointers_into_another_heap_keep_nothing_alive) {
    struct fixture a = fixture_open(), b = fixture_open();
    TRI_LOCALS(a.thread, roots_a, 2);
    TRI_LOCALS(b.thread, roots_b, 2);
    struct pair *in_a = roots_a[0] = tri_new(a.thread, &pair_type);
    struct pair *in_b = roots_b[0] = tri_new(b.thread, &pair_type);
    uintptr_t lost_a = hide(tri_new(a.thread, &leaf_type)), lost_b = hide(tri_new(b.thread, &leaf_type));
    uintptr_t rooted_in_b = hide(tri_new(a.thread, &leaf_type));
    tri_store(a.thread, in_a, &in_a->left, reveal(lost_b));
    tri_store(b.thread, in_b, &in_b->left, reveal(lost_a));
    roots_b[1] = reveal(rooted_in_b);
    fixture_collect(&a);
    fixture_collect(&b);
    CHECK(!is_alive(a.heap, lost_a) && !is_alive(b.heap, lost_b) && !is_alive(a.heap, rooted_in_b));
    CHECK(is_alive(a.heap, hide(in_a)) && is_alive(b.heap, hide(in_b)));
    CHECK(tri_find(a.thread, in_b, NULL) == NULL && tri_find(b.thread, in_a, NULL) == NULL);
    TRI_POP(b.thread, roots_b);
    TRI_POP(a.thread, roots_a);
    fixture_close(&a);
    fixture_close(&b);
}

TEST(heap, destroying_one_heap_leaves_the_others) {
    enum { HEAPS = 6 };
    struct fixture f[HEAPS];
    struct pair *kept[HEAPS];
    tri_handle handles[HEAPS];
    for (int i = 0; i < HEAPS; i++) {
        f[i] = fixture_open();
        kept[i] = tri_new(f[i].thread, &pair_type);
        kept[i]->value = (uint64_t)i;
        handles[i] = tri_global(f[i].thread, kept[i]);
    }
    static const int order[HEAPS] = {2, 5, 0, 1, 4, 3};
    for (int i = 0; i < HEAPS; i++) {
        fixture_close(&f[order[i]]);
        for (int k = i + 1; k < HEAPS; k++) {
            struct fixture *g = &f[order[k]];
            fixture_collect(g);
            CHECK_EQ(((struct pair *)tri_deref(handles[order[k]]))->value, order[k]);
            CHECK(tri_new(g->thread, &pair_type) != NULL);
            CHECK_EQ(tri_verify(g->thread), 0);
        }
    }
}

/* ---- Memory that comes and goes ---- */

/* Garbage of about nbytes, small and large. */
static void fill(struct fixture *f, size_t nbytes) {
    TRI_LOCALS(f->thread, roots, 1);
    struct pair *list = NULL;
    for (size_t done = 0, i = 0; done < nbytes; i++) {
        struct pair *p = roots[0] = tri_new(f->thread, &pair_type);
        tri_store(f->thread, p, &p->left, list);
        list = p;
        size_t size = i % 64 == 0 ? 40000 : i % 4 == 0 ? 1000 : 0;
        if (size) tri_store(f->thread, p, &p->right, tri_new_bytes(f->thread, size));
        done += 32 + size;
    }
    TRI_POP(f->thread, roots);
}

TEST(heap, after_dropping_everything_the_heap_is_near_empty_in_two_cycles) {
    struct fixture f = fixture_open();
    for (int round = 0; round < 3; round++) {
        fill(&f, 20 * MIB);
        tri_stats full = fixture_stats(f.heap);
        CHECK(full.committed_bytes > 20 * MIB);
        fixture_collect(&f);
        fixture_collect(&f);
        tri_stats empty = fixture_stats(f.heap);
        CHECK_MSG(empty.committed_bytes <= MIB / 4, "%zu bytes are still in spans", empty.committed_bytes);
        CHECK_MSG(empty.live_bytes <= MIB / 4 && empty.heap_bytes <= MIB / 4, "%zu live, %zu in the heap",
                  empty.live_bytes, empty.heap_bytes);
        CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    }
    fixture_close(&f);
}

TEST(heap, empty_spans_go_back_to_the_page_heap) {
    struct fixture f = fixture_open();
    fill(&f, 8 * MIB);
    size_t used = atomic_load_relaxed(&f.heap->mem.used_pages);
    struct pageheap_stats before, after;
    tri__pageheap_get_stats(f.heap->mem.pages, &before);
    CHECK(before.used_pages >= used);
    fixture_collect(&f);
    CHECK(atomic_load_relaxed(&f.heap->mem.used_pages) < used / 10);
    tri_trim(f.heap); /* and waits for what the collector is just giving back */
    for (int i = 0; i < 30000; i++, fixture_sleep_ms(1)) {
        tri__pageheap_get_stats(f.heap->mem.pages, &after);
        if (after.used_pages == atomic_load_relaxed(&f.heap->mem.used_pages)) break;
    }
    CHECK_EQ(after.used_pages, atomic_load_relaxed(&f.heap->mem.used_pages));
    /* Another size takes the same pages: nothing new is committed. */
    fill(&f, 4 * MIB);
    struct pageheap_stats again;
    tri__pageheap_get_stats(f.heap->mem.pages, &again);
    CHECK_EQ(again.committed_pages, before.committed_pages);
    fixture_close(&f);
}

TEST(heap, trim_gives_free_pages_back_to_the_system) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "min_heap_bytes=64M"),
             TRI_OK); /* the collector's own scavenging keeps its hands off */
    fill(&f, 40 * MIB);
    size_t full = process_resident_bytes();
    fixture_collect(&f);
    tri_stats before = fixture_stats(f.heap);
    CHECK_MSG(before.free_bytes > 30 * MIB, "%zu bytes are free and resident", before.free_bytes);
    size_t returned = tri_trim(f.heap);
    tri_stats after = fixture_stats(f.heap);
    CHECK_MSG(returned >= before.free_bytes - MIB, "%zu of %zu bytes went", returned, before.free_bytes);
    CHECK_MSG(after.free_bytes <= MIB, "%zu bytes are free and resident after tri_trim", after.free_bytes);
    CHECK_EQ(after.returned_bytes, before.returned_bytes + returned);
    CHECK_EQ(tri_trim(f.heap), 0);
    if (!TEST_IS_SLOW)
        CHECK_MSG(process_resident_bytes() < full - 25 * MIB, "%zu of %zu bytes resident", process_resident_bytes(),
                  full);
    /* What comes back from the system is zero and serves again. */
    check_zeroed(&f, &array_type, 3000, 20, false);
    fixture_close(&f);
}

TEST(heap, statistics_add_up) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    roots[0] = tri_new_n(f.thread, &array_type, 100000);
    CHECK(tri_new(f.thread, &leaf_type) != NULL); /* counts are handed over at the next slow path */
    tri_stats s = fixture_stats(f.heap);
    CHECK(s.heap_bytes >= 800000 && s.allocated_bytes >= 800000 && s.committed_bytes >= 800000);
    CHECK(s.reserved_bytes == (size_t)4 << 30 && s.metadata_bytes > 0);
    CHECK_EQ(s.nthreads, 1);
    CHECK_EQ(s.cycles, 0);
    tri_external(f.thread, 12345);
    fixture_collect(&f);
    s = fixture_stats(f.heap);
    CHECK_EQ(s.cycles, 1);
    CHECK_EQ(s.external_bytes, 12345);
    CHECK(s.live_bytes >= 800000 && s.live_bytes <= 800000 + 64 * PAGE_BYTES);
    CHECK(s.goal_bytes >= s.trigger_bytes && s.trigger_bytes >= s.live_bytes);
    CHECK(s.marked_objects >= 1 && s.handshakes >= 6);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}
