/*
 * What a heap needs besides its objects: the side tables, the page heap's bitmaps, span objects. Bounded by the heap's
 * peak, in huge pages when asked for, and large objects that cost no more memory than is written to.
 */
#include "tests/fixture.h"
#include "tests/process.h"

/* Bytes of memory, and of it in huge pages, behind [start, start + size): of the mappings that begin there. */
static size_t resident_in(const void *start, size_t size_bytes, const char *what) {
    static char text[1 << 20];
    size_t total = 0;
    bool inside = false;
    size_t n = process_read("/proc/self/smaps", text, sizeof text), what_length = strlen(what);
    CHECK(n + 1 < sizeof text);
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned long long from, to, kb;
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
            inside = from >= (uintptr_t)start && from < (uintptr_t)start + size_bytes;
        else if (inside && strncmp(line, what, what_length) == 0 && sscanf(line + what_length, " %llu", &kb) == 1)
            total += (size_t)kb << 10;
    }
    return total;
}

struct table {
    const void *start;
    size_t bytes_per_page;
};

static size_t tables_of(const tri_heap *heap, const char *what) {
    const struct space *space = &heap->mem.space;
    const struct table tables[] = {{space->pages, sizeof(struct page_entry)},
                                   {space->spans, sizeof(struct span *)},
                                   {space->marks, PAGE_BIT_WORDS * 8},
                                   {space->allocs, PAGE_BIT_WORDS * 8},
                                   {space->layouts, (PAGE_BYTES >> LAYOUT_SHIFT) * 2}};
    size_t total = 0;
    for (size_t i = 0; i < TRI_COUNT(tables); i++)
        total += resident_in(tables[i].start, space->npages * tables[i].bytes_per_page, what);
    return total;
}

/* ---- how much ---------------------------------------------------------------------------------------------------- */

/* 200 MB of small objects of two types, half of them linked, and a cycle that marks them: what belongs to the heap but
 * is no page of it is at most 3.5 % of it, by what is counted and by what is resident. */
TEST(metadata, is_at_most_three_and_a_half_percent_of_the_heap, .timeout = 120) {
    if (TEST_IS_SLOW) return; /* their shadow memory lies in the same mappings */
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    void *out[256];
    for (size_t had = 0; fixture_stats(f.heap).committed_bytes < (size_t)200 * MIB;) {
        size_t n = tri_new_batch(f.thread, &pair_type, out, TRI_COUNT(out));
        CHECK_MSG(n > 0, "%s", tri_last_error());
        for (size_t i = 0; i < n; i++, had++) {
            struct pair *p = out[i];
            tri_init(f.thread, p, &p->left, roots[0]);
            roots[0] = p;
        }
        CHECK(tri_new_bytes(f.thread, had % 300) != NULL);
    }
    size_t peak = fixture_stats(f.heap).committed_bytes;
    fixture_collect(&f);
    tri_stats stats = fixture_stats(f.heap);
    const struct memory *mem = &f.heap->mem;
    size_t resident = stats.metadata_bytes - tri__space_metadata_bytes(&mem->space) + tables_of(f.heap, "Rss:");
    printf("metadata: a heap of %zu MB has %.2f %% counted and %.2f %% resident\n", peak / MIB,
           100.0 * (double)stats.metadata_bytes / (double)peak, 100.0 * (double)resident / (double)peak);
    CHECK_MSG(stats.metadata_bytes <= peak / 1000 * 35, "%zu of %zu", stats.metadata_bytes, peak);
    CHECK_MSG(resident <= peak / 1000 * 35, "%zu of %zu", resident, peak);
    CHECK(tables_of(f.heap, "Rss:") > peak / 200); /* what is measured is there */
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- huge pages -------------------------------------------------------------------------------------------------- */

static void fill(struct fixture *f, size_t size_bytes) {
    for (size_t had = 0; had < size_bytes; had += 32) CHECK(tri_new(f->thread, &pair_type) != NULL);
}

TEST(metadata, lies_in_huge_pages_when_asked_to) {
    if (TEST_IS_SLOW) return;
    struct fixture f = fixture_open();
    if (tri_heap_set(f.heap, "metadata_huge=on") == TRI_OK) { /* a system may have none */
        const struct space *space = &f.heap->mem.space;
        fill(&f, 40 * MIB);
        CHECK_EQ(resident_in((const void *)space->base, space->size_bytes, "AnonHugePages:"),
                 0); /* never the objects */
        char text[256] = "";
        int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
        if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && !strstr(text, "[never]") &&
            process_status_bytes("THP_enabled:"))
            CHECK_MSG(tables_of(f.heap, "AnonHugePages:") > 0, "no huge page behind the tables");
        if (fd >= 0) close(fd);
        fixture_collect(&f);
    }
    fixture_set(f.heap, "metadata_huge=off");
    CHECK_EQ(tri_heap_set(f.heap, "metadata_huge=1"), TRI_EINVAL);
    fill(&f, 70 * MIB);
    fixture_close(&f);
    f = fixture_open();
    fill(&f, 40 * MIB);
    CHECK_EQ(tables_of(f.heap, "AnonHugePages:"), 0); /* off by default */
    fixture_close(&f);
}

/* ---- large objects ----------------------------------------------------------------------------------------------- */

/* Fresh pages are zero, and nobody writes zeroes to them: not for bytes, not for a zeroed array of them. */
TEST(metadata, a_fresh_large_object_is_not_resident) {
    if (TEST_IS_SLOW) return;
    static tri_type zeroed = {.struct_size = sizeof(tri_type),
                              .name = "zeroed bytes",
                              .elem_size = 1,
                              .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED};
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    enum { GIB = 1 << 30, PIECE = 100 * MIB };
    size_t before = process_anonymous_bytes();
    char *bytes = roots[0] = tri_new_bytes(f.thread, GIB);
    char *zeroes = roots[1] = tri_new_n(f.thread, &zeroed, GIB);
    void **slots = roots[2] = tri_new_n(f.thread, &array_type, GIB / 8);
    CHECK_MSG(bytes && zeroes && slots, "%s", tri_last_error());
    size_t after = process_anonymous_bytes();
    CHECK_MSG(after - before < 32 * MIB, "%zu MB are resident", (after - before) / MIB);
    CHECK_EQ(zeroes[GIB - 1], 0); /* (reads take a page each of what is shared) */
    CHECK(slots[GIB / 8 - 1] == NULL);
    for (int i = 0; i < 3; i++) roots[i] = NULL;
    fixture_collect(&f);

    /* What has been written is zeroed before it serves again. */
    bytes = roots[0] = tri_new_bytes(f.thread, PIECE);
    memset(bytes, 1, PIECE);
    roots[0] = NULL;
    fixture_collect(&f);
    zeroes = roots[1] = tri_new_n(f.thread, &zeroed, PIECE);
    for (size_t i = 0; i < PIECE; i++) CHECK(zeroes[i] == 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

struct idler {
    tri_heap *heap;
    size_t size_bytes;
    uint32_t asked, has, stop; /* how often it has begun and ended; futures of the test */
};

static void *sleep_until_stop(void *arg) {
    struct idler *idler = arg;
    while (!atomic_load_acquire(&idler->stop)) fixture_sleep_ms(1);
    return NULL;
}

/* A thread that asks for a huge object, twice (the second time for 256 MB of used memory, which are zeroed), and idles
 * in a blocking region with it. */
static void *hold_a_huge_object(void *arg) {
    static tri_type zeroed = {.struct_size = sizeof(tri_type),
                              .name = "zeroed words",
                              .elem_size = 8,
                              .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED};
    struct idler *idler = arg;
    tri_thread *t = fixture_attach(idler->heap);
    TRI_LOCALS(t, roots, 1);
    enum { USED_BYTES = 256 * MIB };
    uint64_t *words = tri_new_n(t, &zeroed, USED_BYTES / 8);
    CHECK_MSG(words != NULL, "%s", tri_last_error());
    memset(words, 1, USED_BYTES);
    words = NULL;
    CHECK_EQ(tri_collect(t), TRI_OK);
    for (int i = 0; i < 2; i++) {
        atomic_add_acqrel(&idler->asked, 1);
        size_t size_bytes = i == 0 ? USED_BYTES : idler->size_bytes;
        words = roots[0] = tri_new_n(t, &zeroed, size_bytes / 8);
        CHECK_MSG(words != NULL, "%zu bytes: %s", size_bytes, tri_last_error());
        CHECK(words[0] == 0 && words[size_bytes / 16] == 0 && words[size_bytes / 8 - 1] == 0);
        atomic_add_acqrel(&idler->has, 1);
    }
    tri_blocking(t, sleep_until_stop, idler);
    CHECK(roots[0] == words && words[0] == 0);
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

/* 10 GB on a thread that idles: neither while it is made nor afterwards does another thread wait for it. By counts: the
 * other one allocates on, and completes cycles, before the call has returned and while the thread is away. */
TEST(metadata, ten_gigabytes_on_an_idle_thread_stall_nobody, .timeout = 200) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.reserve_bytes = TEST_IS_SLOW ? (size_t)2 << 30 : (size_t)16 << 30;
    tri_heap *heap;
    int err = tri_heap_create(&config, &heap);
    if (err == TRI_ENOMEM) return; /* a small machine */
    CHECK_EQ(err, TRI_OK);
    struct fixture f = {heap, fixture_attach(heap)};
    struct idler idler = {.heap = heap, .size_bytes = TEST_IS_SLOW ? (size_t)1 << 30 : (size_t)10 << 30};
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, hold_a_huge_object, &idler), 0);
    TRI_LOCALS(f.thread, roots, 1);
    uint64_t while_asked = 0, ncycles = 0;
    while (atomic_load_acquire(&idler.has) < 2) {
        bool asked = atomic_load_acquire(&idler.asked) > atomic_load_acquire(&idler.has);
        roots[0] = tri_new(f.thread, &pair_type);
        CHECK(roots[0] != NULL);
        if (asked && atomic_load_acquire(&idler.asked) > atomic_load_acquire(&idler.has)) while_asked++;
    }
    enum { CYCLES = 20, OBJECTS = 1000 };
    for (int i = 0; i < CYCLES; i++) { /* it sleeps, and holds 10 GB, which each cycle marks and sweeps */
        for (int k = 0; k < OBJECTS; k++) CHECK((roots[0] = tri_new(f.thread, &pair_type)) != NULL);
        fixture_collect(&f);
        ncycles++;
    }
    CHECK_EQ(atomic_load_acquire(&idler.stop), 0);
    printf("metadata: %llu objects of another thread while %zu MB were made, then %llu cycles beside them\n",
           (unsigned long long)while_asked, idler.size_bytes / MIB, (unsigned long long)ncycles);
    CHECK_MSG(while_asked > 1000, "%llu objects only", (unsigned long long)while_asked);
    CHECK(fixture_stats(heap).live_bytes >= idler.size_bytes);
    atomic_store_release(&idler.stop, 1);
    fixture_join(f.thread, other);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}
