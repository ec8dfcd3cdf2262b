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
    char text[256] = "";
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
    if (fd >= 0 && read(fd, text, sizeof text - 1) < 0) text[0] = '\0';
    if (fd >= 0) close(fd);
    bool unasked = strstr(text, "[always]") != NULL, never = text[0] == '\0' || strstr(text, "[never]");
    struct fixture f = fixture_open();
    if (tri_heap_set(f.heap, "metadata_huge=on") == TRI_OK) { /* a system may have none */
        const struct space *space = &f.heap->mem.space;
        fill(&f, 40 * MIB);
        if (!unasked) /* never the objects */
            CHECK_EQ(resident_in((const void *)space->base, space->size_bytes, "AnonHugePages:"), 0);
        if (!never && process_status_bytes("THP_enabled:"))
            CHECK_MSG(tables_of(f.heap, "AnonHugePages:") > 0, "no huge page behind the tables");
        fixture_collect(&f);
    }
    fixture_set(f.heap, "metadata_huge=off");
    CHECK_EQ(tri_heap_set(f.heap, "metadata_huge=1"), TRI_EINVAL);
    fill(&f, 70 * MIB);
    fixture_close(&f);
    f = fixture_open();
    fill(&f, 40 * MIB);
    if (!unasked) CHECK_EQ(tables_of(f.heap, "AnonHugePages:"), 0); /* off by default */
    fixture_close(&f);
}

/* ---- large objects ----------------------------------------------------------------------------------------------- */

static tri_type zeroed_type = {
    .struct_size = sizeof(tri_type), .name = "zeroed bytes", .elem_size = 1, .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED};

/* Fresh pages are zero, and nobody writes zeroes to them: not for bytes, not for a zeroed array of them. */
TEST(metadata, a_fresh_large_object_is_not_resident) {
    if (TEST_IS_SLOW) return;
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    enum { GIB = 1 << 30, PIECE = 100 * MIB };
    size_t before = process_anonymous_bytes();
    char *bytes = roots[0] = tri_new_bytes(f.thread, GIB);
    char *zeroes = roots[1] = tri_new_n(f.thread, &zeroed_type, GIB);
    void **slots = roots[2] = tri_new_n(f.thread, &array_type, GIB / 8);
    CHECK_MSG(bytes && zeroes && slots, "%s", tri_last_error());
    size_t after = process_anonymous_bytes();
    CHECK_MSG(after - before < 32 * MIB, "%zu MB are resident", (after - before) / MIB);
    CHECK_EQ(zeroes[GIB - 1], 0); /* (reads take a page each of what is shared) */
    CHECK(slots[GIB / 8 - 1] == NULL);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static uint32_t noffered;

static void count_safepoint(void *context, void *mutator, size_t done_bytes) {
    (void)context, (void)done_bytes;
    safepoint_poll(mutator);
    noffered++;
}

/* Nothing is zeroed, but 1 GB has some 130,000 page entries, which take their memory at the first touch. */
TEST(metadata, a_fresh_large_object_offers_safepoints) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    enum { GIB = 1 << 30 };
    f.heap->mem.hooks.zeroing = count_safepoint;
    roots[0] = tri_new_bytes(f.thread, GIB);
    CHECK_MSG(roots[0] != NULL, "%s", tri_last_error());
    CHECK_MSG(noffered >= GIB / (32 * MIB) - 1, "%u safepoints", noffered);
    CHECK_EQ(tri_verify(f.thread), 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(metadata, of_a_large_object_what_was_used_is_zeroed) {
    if (TEST_IS_SLOW) return;
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    enum { GIB = 1 << 30, PIECE = 100 * MIB };
    size_t before = process_anonymous_bytes();
    /* What has been written is zeroed before it serves again, and nothing else of the run that it lies in. */
    char *bytes = roots[0] = tri_new_bytes(f.thread, PIECE);
    memset(bytes, 1, PIECE);
    roots[0] = NULL;
    fixture_collect(&f);
    char *zeroes = roots[1] = tri_new_n(f.thread, &zeroed_type, GIB);
    CHECK_EQ((uintptr_t)zeroes, (uintptr_t)bytes); /* the lowest run */
    size_t after = process_anonymous_bytes();
    CHECK_MSG(after - before < 2 * PIECE, "%zu MB are resident", (after - before) / MIB);
    for (size_t i = 0; i < PIECE; i++) CHECK(zeroes[i] == 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- a huge object beside another thread ------------------------------------------------------------------------- */

enum { USED_BYTES = 256 * MIB, MOST_ROUNDS = 30 };

struct idler {
    tri_heap *heap;
    size_t size_bytes;
    uint32_t nasked, nhad; /* calls that began, and that ended */
    uint32_t seen, idles, stop;
};

static void *sleep_until_stop(void *arg) {
    struct idler *idler = arg;
    while (!atomic_load_acquire(&idler->stop)) fixture_sleep_ms(1);
    return NULL;
}

static char *ask(struct idler *idler, tri_thread *t, size_t size_bytes) {
    atomic_add_acqrel(&idler->nasked, 1);
    char *bytes = tri_new_n(t, &zeroed_type, size_bytes);
    atomic_add_acqrel(&idler->nhad, 1);
    CHECK_MSG(bytes != NULL, "%zu bytes: %s", size_bytes, tri_last_error());
    CHECK(bytes[0] == 0 && bytes[size_bytes / 2] == 0 && bytes[size_bytes - 1] == 0);
    return bytes;
}

/* Asks for 256 MB of used memory, which are zeroed, until the other thread has seen enough; then for 10 GB, with which
 * it idles in a blocking region. */
static void *hold_a_huge_object(void *arg) {
    struct idler *idler = arg;
    tri_thread *t = fixture_attach(idler->heap);
    TRI_LOCALS(t, roots, 1);
    for (int round = 0; round < MOST_ROUNDS && !atomic_load_acquire(&idler->seen); round++) {
        char *bytes = roots[0] = ask(idler, t, USED_BYTES);
        memset(bytes, 1, USED_BYTES);
        roots[0] = NULL;
        CHECK_EQ(tri_collect(t), TRI_OK);
    }
    roots[0] = ask(idler, t, idler->size_bytes);
    atomic_store_release(&idler->idles, 1);
    tri_blocking(t, sleep_until_stop, idler);
    CHECK_EQ(*(char *)roots[0], 0);
    TRI_POP(t, roots);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

static bool is_asking(const struct idler *idler) {
    return atomic_load_acquire(&idler->nasked) > atomic_load_acquire(&idler->nhad);
}

/* Cycles that end while one call of the other thread is under way, which cannot be without its answers. */
static uint64_t cycles_in_a_call(struct fixture *f, const struct idler *idler) {
    uint32_t call = atomic_load_acquire(&idler->nasked);
    uint64_t before = fixture_stats(f->heap).cycles, now = before, seen = before;
    while (is_asking(idler) && atomic_load_acquire(&idler->nasked) == call) {
        seen = now;
        for (int k = 0; k < 1000; k++) CHECK(tri_new(f->thread, &pair_type) != NULL);
        now = fixture_stats(f->heap).cycles;
    }
    return seen - before;
}

/* 10 GB on a thread that idles: neither while memory is zeroed, nor while the object is made, nor afterwards does
 * another thread or a handshake wait for it. By counts: cycles end within one call that zeroes 256 MB, and 20 cycles
 * of another thread beside 10 GB. Of these nothing is resident, since they are fresh but for what the calls before them
 * used. */
TEST(metadata, ten_gigabytes_on_an_idle_thread_stall_nobody, .timeout = 200) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.reserve_bytes = TEST_IS_SLOW ? (size_t)3 << 30 : (size_t)16 << 30;
    tri_heap *heap;
    int err = tri_heap_create(&config, &heap);
    if (err == TRI_ENOMEM) return; /* a small machine */
    CHECK_EQ(err, TRI_OK);
    struct fixture f = {heap, fixture_attach(heap)};
    struct idler idler = {.heap = heap, .size_bytes = TEST_IS_SLOW ? (size_t)1 << 30 : (size_t)10 << 30};
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, hold_a_huge_object, &idler), 0);
    uint64_t most = 0;
    while (!atomic_load_acquire(&idler.idles)) {
        CHECK(tri_new(f.thread, &pair_type) != NULL);
        if (!is_asking(&idler)) continue;
        uint64_t n = cycles_in_a_call(&f, &idler);
        most = n > most ? n : most;
        if (most >= 3) atomic_store_release(&idler.seen, 1);
    }
    CHECK_MSG(most >= 3, "%llu cycles at most in one call", (unsigned long long)most);
    enum { CYCLES = 20, OBJECTS = 1000 };
    for (int i = 0; i < CYCLES; i++) { /* it sleeps, and holds 10 GB, which each cycle marks and sweeps */
        for (int k = 0; k < OBJECTS; k++) CHECK(tri_new(f.thread, &pair_type) != NULL);
        fixture_collect(&f);
    }
    CHECK(fixture_stats(heap).live_bytes >= idler.size_bytes);
    if (!TEST_IS_SLOW) CHECK(process_anonymous_bytes() < idler.size_bytes / 8);
    atomic_store_release(&idler.stop, 1);
    fixture_join(f.thread, other);
    fixture_close(&f);
}
