/* test_heapmap_dump.c - tri_dump_heap_map against what the heap is known to hold.
 *
 * The lines are parsed into an array of pages: by address, without gap or overlap, up to the frontier; sums as
 * tri_stats_get has them; a large object, a span and manual blocks where they were allocated; what went back to the
 * system; and looks while two threads allocate and collect. */
#include "tests/plain.h"

#include <fcntl.h>

#include "gc/heap.h"

enum { MAX_LINES = 100000 };

struct line {
    size_t first, npages, used, slots;
    char state[16];
};

struct look {
    struct line *lines;
    size_t nlines, npages; /* pages: up to the end of the last line */
};

static void look_at(tri_heap *heap, struct look *look) {
    FILE *file = tmpfile();
    CHECK(file != NULL);
    CHECK_EQ(tri_dump_heap_map(heap, fileno(file)), TRI_OK);
    rewind(file);
    char text[128];
    *look = (struct look){.lines = calloc(MAX_LINES, sizeof(struct line))};
    CHECK(look->lines != NULL);
    while (fgets(text, sizeof text, file)) {
        struct line *l = &look->lines[look->nlines++];
        CHECK(look->nlines < MAX_LINES);
        int n = sscanf(text, "%zu %zu %15s %zu %zu", &l->first, &l->npages, l->state, &l->used, &l->slots);
        CHECK_MSG(n == (strcmp(l->state, "small") == 0 ? 5 : 3), "%s", text);
        CHECK_MSG(l->first == look->npages && l->npages > 0, "%s does not begin at page %zu", text, look->npages);
        CHECK_MSG(l->used <= l->slots, "%s", text);
        look->npages = l->first + l->npages;
    }
    fclose(file);
}

static size_t pages_of(const struct look *look, const char *state) {
    size_t n = 0;
    for (size_t i = 0; i < look->nlines; i++)
        if (strcmp(look->lines[i].state, state) == 0) n += look->lines[i].npages;
    return n;
}

/* The line of an address in the heap. */
static const struct line *line_of(const tri_heap *heap, const struct look *look, const void *address) {
    size_t page = space_page_of(&heap->mem.space, (uintptr_t)address);
    for (size_t i = 0; i < look->nlines; i++)
        if (page - look->lines[i].first < look->lines[i].npages) return &look->lines[i];
    return NULL;
}

struct fix {
    tri_heap *heap;
    tri_thread *thread;
};

static struct fix open_heap(void) {
    struct fix f = {NULL, NULL};
    tri_config config;
    tri_config_init(&config);
    config.flags |= TRI_HEAP_PRECISE;
    CHECK_EQ(tri_heap_create(&config, &f.heap), TRI_OK);
    CHECK_EQ(tri_attach(f.heap, TRI_ATTACH_PRECISE, &f.thread), TRI_OK);
    return f;
}

static void close_heap(struct fix f) {
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    CHECK_EQ(tri_heap_destroy(f.heap), TRI_OK);
}

TEST(heapmap_dump, every_page_is_in_one_line_and_the_sums_are_those_of_stats) {
    struct fix f = open_heap();
    TRI_LOCALS(f.thread, kept, 2);
    kept[0] = tri_new_bytes(f.thread, 1 << 20);
    for (int i = 0; i < 20000; i++) kept[1] = tri_new_bytes(f.thread, 48);
    struct look look;
    tri_stats stats = {.struct_size = sizeof stats};
    look_at(f.heap, &look);
    CHECK_EQ(tri_stats_get(f.heap, &stats), TRI_OK);
    size_t spans = pages_of(&look, "small") + pages_of(&look, "large") + pages_of(&look, "manual");
    CHECK_EQ(look.npages, atomic_load_relaxed(&f.heap->mem.space.committed_pages));
    CHECK_EQ(spans << PAGE_SHIFT, stats.committed_bytes);
    CHECK_EQ(pages_of(&look, "free") << PAGE_SHIFT, stats.free_bytes);
    struct pageheap_stats pages;
    tri__pageheap_get_stats(f.heap->mem.pages, &pages);
    CHECK_EQ(spans + pages_of(&look, "taken"), pages.used_pages);
    CHECK(pages_of(&look, "taken") > 0);    /* the thread's own, for its next spans */
    CHECK(pages_of(&look, "returned") > 0); /* the arena's rest */
    const struct line *large = line_of(f.heap, &look, kept[0]);
    CHECK_STR_EQ(large->state, "large");
    CHECK_EQ(large->first, space_page_of(&f.heap->mem.space, (uintptr_t)kept[0]));
    CHECK_EQ(large->npages, (1 << 20) / PAGE_BYTES);
    const struct line *small = line_of(f.heap, &look, kept[1]);
    CHECK_STR_EQ(small->state, "small");
    CHECK_EQ(small->slots, small->npages * PAGE_BYTES / 48);
    CHECK(small->used > 0);
    free(look.lines);
    TRI_POP(f.thread, kept);
    close_heap(f);
}

TEST(heapmap_dump, a_dead_object_leaves_its_span_and_a_trimmed_page_goes_back) {
    enum { LIVE = 40, SLOTS = PAGE_BYTES / 1024 };
    struct fix f = open_heap();
    TRI_LOCALS(f.thread, kept, LIVE);
    for (int i = 0; i < LIVE * SLOTS; i++) { /* one of each eight stays, and one large object dies */
        void *obj = tri_new_bytes(f.thread, 1024);
        if (i % SLOTS == 0) kept[i / SLOTS] = obj;
    }
    CHECK(tri_new_bytes(f.thread, 4 << 20) != NULL);
    struct look look;
    look_at(f.heap, &look);
    size_t small = pages_of(&look, "small"), large = pages_of(&look, "large");
    CHECK(small >= LIVE);
    CHECK(large >= (4 << 20) / PAGE_BYTES);
    free(look.lines);
    CHECK_EQ(tri_collect(f.thread), TRI_OK);
    CHECK_EQ(tri_collect(f.thread), TRI_OK);
    (void)tri_trim(f.heap);
    look_at(f.heap, &look);
    CHECK_EQ(pages_of(&look, "large"), 0);
    CHECK_EQ(pages_of(&look, "free"), 0);
    for (int i = 0; i < LIVE; i++) {
        const struct line *l = line_of(f.heap, &look, kept[i]);
        CHECK_STR_EQ(l->state, "small");
        CHECK(l->used >= 1 && l->slots == l->npages * PAGE_BYTES / 1024);
    }
    free(look.lines);
    TRI_POP(f.thread, kept);
    close_heap(f);
}

TEST(heapmap_dump, manual_blocks_have_pages_of_their_own) {
    struct fix f = open_heap();
    struct look look;
    void *blocks[100], *large = tri_manual_alloc(f.heap, 1 << 20);
    for (int i = 0; i < 100; i++) blocks[i] = tri_manual_alloc(f.heap, 2000);
    look_at(f.heap, &look);
    CHECK_STR_EQ(line_of(f.heap, &look, large)->state, "manual");
    for (int i = 0; i < 100; i++) CHECK_STR_EQ(line_of(f.heap, &look, blocks[i])->state, "manual");
    free(look.lines);
    for (int i = 0; i < 100; i++) tri_manual_free(f.heap, blocks[i]);
    tri_manual_free(f.heap, large);
    close_heap(f);
}

TEST(heapmap_dump, a_descriptor_that_cannot_be_written_is_an_error) {
    struct fix f = open_heap();
    int fd = open("/dev/null", O_RDONLY);
    CHECK(tri_new_bytes(f.thread, 100) != NULL);
    CHECK_EQ(tri_dump_heap_map(f.heap, fd), TRI_EINVAL);
    CHECK(strstr(tri_last_error(), "tri_dump_heap_map") != NULL);
    CHECK_EQ(tri_dump_heap_map(f.heap, -1), TRI_EINVAL);
    CHECK_EQ(tri_dump_heap_map(NULL, 1), TRI_EINVAL);
    close(fd);
    close_heap(f);
}

/* ---- beside threads that allocate ---- */

struct busy {
    tri_heap *heap;
    int stop; /* [atomic] */
};

static void *busy_run(void *arg) {
    struct busy *b = arg;
    tri_thread *thread;
    CHECK_EQ(tri_attach(b->heap, TRI_ATTACH_PRECISE, &thread), TRI_OK);
    TRI_LOCALS(thread, kept, 64);
    for (unsigned i = 0; !__atomic_load_n(&b->stop, __ATOMIC_RELAXED); i++) {
        kept[i % 64] = tri_new_bytes(thread, i % 7 == 0 ? 100000 : 8 + i % 3000);
        if (i % 4096 == 0) CHECK_EQ(tri_collect(thread), TRI_OK);
        tri_manual_free(b->heap, tri_manual_alloc(b->heap, 8 + i % 20000));
    }
    TRI_POP(thread, kept);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

TEST(heapmap_dump, looks_while_threads_allocate_and_collect) {
    struct fix f = open_heap();
    struct busy busy = {f.heap, 0};
    pthread_t threads[2];
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, busy_run, &busy), 0);
    for (int i = 0; i < 200; i++) {
        struct look look;
        look_at(f.heap, &look);
        free(look.lines);
    }
    __atomic_store_n(&busy.stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    CHECK_EQ(tri_heap_destroy(f.heap), TRI_OK);
}
