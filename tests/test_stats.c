/*
 * Counts by size class and by type: after a collection they are what a walk over the heap counts, exactly; and while
 * other threads allocate, drop and collect they are taken without a stop.
 */
#include "tests/fixture.h"

enum { MOST_ROWS = 256 };

struct rare { /* 96 bytes: few of them lie in spans that types share */
    struct rare *next;
    uint64_t numbers[11];
};
TRI_TYPE(rare_type, struct rare, next);

struct node {
    struct node *next;
    uint64_t number;
};
TRI_TYPE(node_type, struct node, next);

/* ---- what a walk counts ------------------------------------------------------------------------------------------ */

struct counted {
    size_t objects[MOST_ROWS], bytes[MOST_ROWS];
    const tri_type *types[MOST_ROWS];
    size_t ntypes;
    size_t by_class[NUM_SIZE_CLASSES];
    size_t class_bytes[NUM_SIZE_CLASSES];
};

static void count_object(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    struct counted *c = arg;
    (void)obj;
    size_t i = 0;
    while (i < c->ntypes && c->types[i] != type) i++;
    CHECK(i < MOST_ROWS);
    if (i == c->ntypes) c->types[c->ntypes++] = type;
    c->objects[i]++;
    c->bytes[i] += size_bytes;
    unsigned class_index = size_bytes > SMALL_MAX_BYTES ? 0 : size_class_of(size_bytes);
    c->by_class[class_index]++;
    c->class_bytes[class_index] += size_bytes;
}

/* Every row against the walk, and the walk's types against the rows. */
static void compare(const struct fixture *f, const struct counted *c) {
    static tri_class_stat classes[MOST_ROWS];
    static tri_layout_stat layouts[MOST_ROWS];
    CHECK_EQ(tri_class_stats(f->heap, classes, MOST_ROWS), NUM_SIZE_CLASSES);
    size_t span_bytes = 0;
    for (unsigned i = 0; i < NUM_SIZE_CLASSES; i++) {
        CHECK_EQ(classes[i].slot_bytes, i ? tri__size_classes[i].slot_bytes : 0);
        CHECK_MSG(classes[i].used_slots == c->by_class[i], "class %u: %zu slots in use, a walk finds %zu", i,
                  classes[i].used_slots, c->by_class[i]);
        CHECK_EQ(classes[i].used_bytes, c->class_bytes[i]);
        CHECK(classes[i].used_slots <= classes[i].slots && classes[i].used_bytes <= classes[i].span_bytes);
        CHECK_EQ(classes[i].slots, classes[i].spans * (i ? tri__size_classes[i].nslots : 1));
        span_bytes += classes[i].span_bytes;
    }
    CHECK_EQ(span_bytes, fixture_stats(f->heap).committed_bytes);

    int rows = tri_layout_stats(f->heap, layouts, MOST_ROWS);
    CHECK(rows > 0 && rows <= MOST_ROWS);
    size_t found = 0;
    for (int i = 0; i < rows; i++) {
        CHECK(i == 0 || layouts[i].layout > layouts[i - 1].layout);
        size_t k = 0;
        while (k < c->ntypes && c->types[k] != layouts[i].type) k++;
        CHECK_MSG(k < c->ntypes || layouts[i].objects == 0, "%s: %zu objects, a walk finds none", layouts[i].name,
                  layouts[i].objects);
        if (k == c->ntypes) continue;
        found++;
        CHECK_STR_EQ(layouts[i].name, c->types[k] ? c->types[k]->name : "bytes");
        CHECK_MSG(layouts[i].objects == c->objects[k] && layouts[i].bytes == c->bytes[k],
                  "%s: %zu objects of %zu bytes, a walk finds %zu of %zu", layouts[i].name, layouts[i].objects,
                  layouts[i].bytes, c->objects[k], c->bytes[k]);
    }
    CHECK_EQ(found, c->ntypes);
}

TEST(stats, counts_are_what_a_walk_finds) {
    enum { NODES = 20000, RARES = 40, ARRAYS = 300, BYTES = 500, LARGE = 5 };
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    void **all = roots[0] = tri_new_n(f.thread, &array_type, RARES + ARRAYS + BYTES + LARGE);
    size_t n = 0;
    for (int i = 0; i < NODES; i++) { /* half of them live */
        struct node *node = tri_new(f.thread, &node_type);
        if (i % 2) continue;
        tri_store(f.thread, node, &node->next, roots[1]);
        roots[1] = node;
    }
    for (int i = 0; i < RARES; i++) tri_store(f.thread, all, &all[n++], tri_new(f.thread, &rare_type));
    for (size_t i = 0; i < ARRAYS; i++) tri_store(f.thread, all, &all[n++], tri_new_n(f.thread, &array_type, i));
    for (size_t i = 0; i < BYTES; i++) tri_store(f.thread, all, &all[n++], tri_new_bytes(f.thread, 1 + i * 20));
    for (size_t i = 0; i < LARGE; i++)
        tri_store(f.thread, all, &all[n++], tri_new_n(f.thread, &array_type, 5000 + i * 9000));
    fixture_collect(&f); /* gives every hole back */
    static struct counted counted;
    CHECK_EQ(tri_walk(f.thread, count_object, &counted), NODES / 2 + 1 + n);
    CHECK_EQ(counted.ntypes, 4);
    compare(&f, &counted);

    roots[0] = roots[1] = NULL; /* and when everything has gone */
    fixture_collect(&f);
    memset(&counted, 0, sizeof counted);
    CHECK_EQ(tri_walk(f.thread, count_object, &counted), 0);
    tri_layout_stat rows[4];
    for (int i = 0, n_rows = tri_layout_stats(f.heap, rows, 4); i < n_rows && i < 4; i++) CHECK_EQ(rows[i].objects, 0);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(stats, rows_beyond_n_are_counted_and_not_written) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 3);
    roots[0] = tri_new(f.thread, &node_type);
    roots[1] = tri_new_bytes(f.thread, 100);
    roots[2] = tri_new(f.thread, &rare_type); /* in a shared span, where the rest of the hole is no object */
    tri_class_stat class_rows[2] = {{.spans = 77}, {.spans = 77}};
    tri_layout_stat layout_rows[3] = {{.spans = 77}, {.spans = 77}, {.spans = 77}};
    CHECK_EQ(tri_class_stats(f.heap, NULL, 0), NUM_SIZE_CLASSES);
    CHECK_EQ(tri_class_stats(f.heap, class_rows, 1), NUM_SIZE_CLASSES);
    CHECK(class_rows[0].spans == 0 && class_rows[1].spans == 77);
    CHECK_EQ(tri_layout_stats(f.heap, NULL, 0), 3);
    CHECK_EQ(tri_layout_stats(f.heap, layout_rows, 1), 3);
    CHECK(layout_rows[0].type == NULL && layout_rows[0].spans == 1 && layout_rows[1].spans == 77);
    CHECK_EQ(tri_layout_stats(f.heap, layout_rows, 3), 3);
    size_t which = layout_rows[1].type == &rare_type ? 1 : 2;
    CHECK(layout_rows[which].spans == 0 && layout_rows[which].objects == 1 && layout_rows[which].bytes == 96);
    CHECK(layout_rows[3 - which].type == &node_type && layout_rows[3 - which].objects >= 1);
    CHECK_EQ(tri_class_stats(NULL, class_rows, 1), TRI_EINVAL);
    CHECK_EQ(tri_class_stats(f.heap, NULL, 1), TRI_EINVAL);
    CHECK_EQ(tri_layout_stats(NULL, layout_rows, 1), TRI_EINVAL);
    CHECK_EQ(tri_layout_stats(f.heap, NULL, 1), TRI_EINVAL);
    CHECK(strstr(tri_last_error(), "tri_layout_stats") != NULL);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- while others run -------------------------------------------------------------------------------------------- */

static uint32_t stop;

/* Keeps a window of objects of all kinds, and drops what falls out of it. */
static void *churn_main(void *arg) {
    enum { WINDOW = 512 };
    tri_heap *heap = arg;
    tri_thread *t = fixture_attach(heap);
    TRI_LOCALS(t, window, WINDOW);
    uint64_t random = fixture_seed();
    for (size_t i = 0; !atomic_load_acquire(&stop); i++) {
        size_t size = fixture_random(&random) % 3000;
        void *obj = i % 4 == 0   ? tri_new(t, &node_type)
                    : i % 4 == 1 ? tri_new(t, &rare_type)
                    : i % 4 == 2
                        ? tri_new_bytes(t, i % 8 == 2 ? 8 : size) /* the bits of the smallest lie beside them */
                        : tri_new_n(t, &array_type, i % 1000 == 3 ? 6000 : size / 8);
        CHECK(obj != NULL);
        window[i % WINDOW] = obj;
    }
    TRI_POP(t, window);
    CHECK_EQ(tri_detach(t), TRI_OK);
    return NULL;
}

TEST(stats, are_taken_while_other_threads_allocate_and_collect) {
    enum { CHURNERS = 2, LOOKS = TEST_IS_SLOW ? 30 : 300 };
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    tri_heap *heap;
    pthread_t churners[CHURNERS];
    CHECK_EQ(tri_heap_create(&config, &heap), TRI_OK);
    for (int i = 0; i < CHURNERS; i++) CHECK_EQ(pthread_create(&churners[i], NULL, churn_main, heap), 0);
    size_t most = 0;
    for (int i = 0; i < LOOKS || fixture_stats(heap).cycles == 0; i++) { /* this thread is attached to no heap */
        tri_class_stat classes[MOST_ROWS];
        tri_layout_stat layouts[MOST_ROWS];
        CHECK_EQ(tri_class_stats(heap, classes, MOST_ROWS), NUM_SIZE_CLASSES);
        size_t used = 0;
        for (int k = 0; k < NUM_SIZE_CLASSES; k++) {
            CHECK(classes[k].used_slots <= classes[k].slots);
            used += classes[k].used_bytes;
        }
        int rows = tri_layout_stats(heap, layouts, MOST_ROWS);
        CHECK(rows >= 0 && rows <= 4);
        for (int k = 0; k < rows; k++) CHECK(layouts[k].name != NULL);
        most = used > most ? used : most;
    }
    atomic_store_release(&stop, 1);
    for (int i = 0; i < CHURNERS; i++) CHECK_EQ(pthread_join(churners[i], NULL), 0);
    CHECK_MSG(most > 0 && fixture_stats(heap).cycles > 0, "%zu bytes, %llu cycles", most,
              (unsigned long long)fixture_stats(heap).cycles);
    CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
    CHECK_MSG(atomic_load_acquire(&fixture_nreports) == 0, "reported: %s", fixture_report);
}
