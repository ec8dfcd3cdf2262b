/*
 * Type descriptors: what they say of a C struct (SOURCES S6), what the marker finds through them, and how many there
 * can be. What is refused: test_types_refused.c.
 */
#include "tests/fixture.h"

/* ---- What a descriptor says: the figures of Go's _type for the same structs ---- */

/* {uintptr; u8; *u8; u32; *u64; u64} */
struct mixed_fields {
    uintptr_t a;
    uint8_t b;
    uint8_t *c;
    uint32_t d;
    uint64_t *e;
    uint64_t f;
};
TRI_TYPE(mixed_by_offsets, struct mixed_fields, c, e);

/* {string; *i64; *u64; i64; u8}: a string is a pointer and a length. */
struct string_fields {
    const char *text;
    size_t length;
    int64_t *b;
    uint64_t *c;
    int64_t d;
    uint8_t e;
};
TRI_TYPE(string_by_offsets, struct string_fields, text, b, c);

static const uint64_t bitmap_20[] = {20}, bitmap_13[] = {13};

static tri_type_data describe(tri_type *type) {
    tri_type_data data = {.struct_size = sizeof data};
    int err = tri_type_describe(type, &data);
    CHECK_MSG(err == TRI_OK, "%s", tri_last_error());
    CHECK_EQ(data.layout, type->layout);
    CHECK(data.layout != 0);
    return data;
}

TEST(types, c_structs_give_the_figures_of_the_source) {
    tri_type_data data = describe(&mixed_by_offsets);
    CHECK_EQ(data.size, 48);
    CHECK_EQ(data.ptrdata, 40);
    CHECK_EQ(data.gcdata_nbits, 5);
    CHECK_EQ(data.gcdata[0], 20);
    CHECK_EQ(data.align, 8);
    CHECK_EQ(data.kind, 0);
    CHECK_STR_EQ(data.name, "struct mixed_fields");
    data = describe(&string_by_offsets);
    CHECK_EQ(data.size, 48);
    CHECK_EQ(data.ptrdata, 32);
    CHECK_EQ(data.gcdata_nbits, 4);
    CHECK_EQ(data.gcdata[0], 13);
}

TEST(types, a_bitmap_says_the_same_as_offsets) {
    static tri_type by_bitmap[2];
    by_bitmap[0] = fixture_type_of_size("struct mixed_fields", sizeof(struct mixed_fields));
    by_bitmap[0].pointers = (tri_slots){.bitmap = bitmap_20, .nbits = 5};
    by_bitmap[1] = fixture_type_of_size("struct string_fields", sizeof(struct string_fields));
    by_bitmap[1].pointers = (tri_slots){.bitmap = bitmap_13, .nbits = 6}; /* the bits above the last one are zero */
    tri_type *by_offsets[] = {&mixed_by_offsets, &string_by_offsets};
    for (int i = 0; i < 2; i++) {
        tri_type_data a = describe(by_offsets[i]), b = describe(&by_bitmap[i]);
        CHECK_EQ(a.size, b.size);
        CHECK_EQ(a.ptrdata, b.ptrdata);
        CHECK_EQ(a.gcdata_nbits, b.gcdata_nbits);
        CHECK_EQ(a.gcdata[0], b.gcdata[0]);
        CHECK_MSG(a.hash == b.hash, "the hash differs for equal slots of %s", a.name);
        CHECK(a.layout != b.layout);
    }
}

TEST(types, bitmap_and_offsets_add_up) {
    static tri_type both;
    static const uint32_t offsets[] = {32};
    static const uint64_t bitmap[] = {4};
    both = fixture_type_of_size("both", sizeof(struct mixed_fields));
    both.pointers = (tri_slots){.bitmap = bitmap, .nbits = 3, .offsets = offsets, .noffsets = 1};
    tri_type_data data = describe(&both);
    CHECK_EQ(data.gcdata[0], 20);
    CHECK_EQ(data.ptrdata, 40);
}

TEST(types, hash_tells_names_sizes_and_slots_apart) {
    static tri_type types[4];
    types[0] = fixture_type_of_size("one", 48);
    types[1] = fixture_type_of_size("two", 48);
    types[2] = fixture_type_of_size("one", 64);
    types[3] = fixture_type_of_size("one", 48);
    types[3].pointers = (tri_slots){.bitmap = bitmap_20, .nbits = 5};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            CHECK_MSG(describe(&types[i]).hash != describe(&types[k]).hash, "types %d and %d", i, k);
}

static size_t trace_nothing(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)visitor, (void)obj, (void)from, (void)budget;
    return 0;
}

TEST(types, kinds_are_told_apart) {
    static tri_type traced;
    traced = fixture_type_of_size("traced", 64);
    traced.trace = trace_nothing;
    traced.align = 16;
    CHECK_EQ(describe(&pair_type).kind, 0);
    CHECK_EQ(describe(&array_type).kind, 1);
    CHECK_EQ(describe(&leaf_type).kind, 2);
    CHECK_EQ(describe(&leaf_type).ptrdata, 0);
    CHECK_EQ(describe(&traced).kind, 3);
    CHECK_EQ(describe(&traced).align, 16);
}

TEST(types, gcdata_of_a_large_struct_spans_words) {
    static tri_type large;
    static const uint32_t offsets[] = {0, 63 * 8, 64 * 8, 130 * 8};
    large = fixture_type_of_size("large", 200 * 8);
    large.pointers = (tri_slots){.offsets = offsets, .noffsets = 4};
    tri_type_data data = describe(&large);
    CHECK_EQ(data.ptrdata, 131 * 8);
    CHECK_EQ(data.gcdata_nbits, 131);
    CHECK(data.gcdata[0] == (1ull | 1ull << 63));
    CHECK_EQ(data.gcdata[1], 1);
    CHECK_EQ(data.gcdata[2], 4);
}

/* ---- Encodings ---- */

static const tri_enc nan_box = {0xfffc000000000000ull, 0xfffc000000000000ull, ~0ull, 0x0000ffffffffffffull};
/* Tags 1 and 3 of the low two bits are references, 0 and 2 are numbers. */
static const tri_enc low_tags = {0, 0, 0xaaaaaaaaaaaaaaaaull, ~3ull};

static tri_word box(const void *p) {
    return 0xfffc000000000000ull | (tri_word)(uintptr_t)p;
}

TEST(types, nan_boxes_decode) {
    char object[16];
    double numbers[] = {0.0, -0.0, 1.5, -1e300, 1e-310, __builtin_inf(), -__builtin_inf(), __builtin_nan("")};
    CHECK_EQ(enc_decode(&nan_box, box(object)), (uintptr_t)object);
    for (size_t i = 0; i < TRI_COUNT(numbers); i++) {
        tri_word w;
        memcpy(&w, &numbers[i], sizeof w);
        CHECK_MSG(enc_decode(&nan_box, w) == 0, "%g is a reference", numbers[i]);
    }
    CHECK_EQ(enc_decode(&nan_box, 0x7ffc000000000001ull), 0); /* a quiet NaN that stands for a singleton */
}

TEST(types, low_tags_decode) {
    uintptr_t object = 0x7f0012345670;
    CHECK_EQ(enc_decode(&low_tags, object | 1), object);
    CHECK_EQ(enc_decode(&low_tags, object | 3), object);
    CHECK_EQ(enc_decode(&low_tags, object), 0);
    CHECK_EQ(enc_decode(&low_tags, object | 2), 0);
    for (unsigned bit = 2; bit < 6; bit++) /* the bits above the tag are part of the address, whatever they are */
        CHECK_EQ(enc_decode(&low_tags, (object ^ (1ull << bit)) | 1), object ^ (1ull << bit));
}

/* ---- What the marker finds ---- */

/* One way to hold an object: a type, and how to write and clear its slot. */
struct holder {
    const char *name;
    tri_type type;
    size_t nelems;      /* 0: tri_new */
    size_t slot_offset; /* of the slot that is used */
    tri_word (*encode)(const void *p);
    size_t interior; /* added to the reference */
};

static tri_word encode_plain(const void *p) {
    return (tri_word)(uintptr_t)p;
}
static tri_word encode_tag1(const void *p) {
    return (tri_word)(uintptr_t)p | 1;
}
static tri_word encode_tag3(const void *p) {
    return (tri_word)(uintptr_t)p | 3;
}

static void check_holder(struct holder *h) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    char *owner = h->nelems ? tri_new_n(f.thread, &h->type, h->nelems) : tri_new(f.thread, &h->type);
    CHECK_MSG(owner != NULL, "%s: %s", h->name, tri_last_error());
    roots[0] = owner;
    struct leaf *leaf = tri_new(f.thread, &leaf_type);
    leaf->a = 0x1234;
    uintptr_t hidden = hide(leaf);
    tri_store_value(f.thread, owner, owner + h->slot_offset, h->encode((char *)leaf + h->interior));
    for (int i = 0; i < 3; i++) {
        fixture_collect(&f);
        CHECK_MSG(is_alive(f.heap, hidden), "%s: the object is lost in cycle %d", h->name, i);
        CHECK_EQ(((struct leaf *)reveal(hidden))->a, 0x1234);
    }
    tri_store_value(f.thread, owner, owner + h->slot_offset, 0);
    fixture_collect(&f);
    CHECK_MSG(!is_alive(f.heap, hidden), "%s: the object is kept although its slot is clear", h->name);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(types, each_kind_of_slot_keeps_what_it_names) {
    static const uint64_t bit100[] = {0, 1ull << 36};
    tri_type base = {.struct_size = sizeof(tri_type), .name = "holder", .size = 64};
    tri_type pointer = base, bitmap = base, value = base, tagged = base, maybe = base, maybe_value = base, far = base;
    pointer.pointers = fixture_slot_at(16);
    bitmap.pointers = (tri_slots){.bitmap = bitmap_20, .nbits = 5};
    value.values = fixture_slot_at(56), value.enc = &nan_box;
    tagged.values = fixture_slot_at(8), tagged.enc = &low_tags;
    maybe.maybes = fixture_slot_at(24);
    maybe_value.maybes = fixture_slot_at(24), maybe_value.enc = &nan_box;
    far.size = 1200, far.pointers = (tri_slots){.bitmap = bit100, .nbits = 101};
    struct holder holders[] = {
        {"pointer", pointer, 0, 16, encode_plain, 0},
        {"pointer into the interior", pointer, 0, 16, encode_plain, 24},
        {"pointer to the last byte", pointer, 0, 16, encode_plain, 31},
        {"pointer by bitmap", bitmap, 0, 32, encode_plain, 0},
        {"value in a NaN box", value, 0, 56, box, 0},
        {"value in a NaN box, interior", value, 0, 56, box, 8},
        {"value with tag 1", tagged, 0, 8, encode_tag1, 0},
        {"value with tag 3", tagged, 0, 8, encode_tag3, 0},
        {"maybe", maybe, 0, 24, encode_plain, 0},
        {"maybe into the interior", maybe, 0, 24, encode_plain, 16},
        {"maybe with an encoding", maybe_value, 0, 24, box, 0},
        {"pointer at word 100", far, 0, 800, encode_plain, 0},
    };
    for (size_t i = 0; i < TRI_COUNT(holders); i++) check_holder(&holders[i]);
}

TEST(types, trailing_elements_keep_what_they_name) {
    tri_type base = {.struct_size = sizeof(tri_type), .name = "elements", .size = 16, .elem_size = 24};
    tri_type pointers = base, values = base, maybes = base, headless = base, with_fixed = base;
    pointers.elem_pointers = fixture_slot_at(8);
    values.elem_values = fixture_slot_at(16), values.enc = &nan_box;
    maybes.elem_maybes = fixture_slot_at(0);
    headless.size = 0, headless.elem_size = 8, headless.elem_pointers = fixture_slot_at(0);
    with_fixed.pointers = fixture_slot_at(8), with_fixed.elem_pointers = fixture_slot_at(8);
    struct holder holders[] = {
        {"element pointer", pointers, 5, 16 + 24 * 4 + 8, encode_plain, 0},
        {"element pointer of a large array", pointers, 20000, 16 + 24 * 19999 + 8, encode_plain, 0},
        {"element value", values, 7, 16 + 24 * 3 + 16, box, 0},
        {"element value of a large array", values, 30000, 16 + 24 * 15001 + 16, box, 8},
        {"element maybe", maybes, 9, 16 + 24 * 8, encode_plain, 0},
        {"array of pointers only", headless, 100, 8 * 99, encode_plain, 0},
        {"large array of pointers only", headless, 100000, 8 * 99999, encode_plain, 0},
        {"fixed part of an array", with_fixed, 3, 8, encode_plain, 0},
        {"element beside a fixed slot", with_fixed, 3, 16 + 24 * 2 + 8, encode_plain, 0},
    };
    for (size_t i = 0; i < TRI_COUNT(holders); i++) check_holder(&holders[i]);
}

TEST(types, words_that_are_no_slots_keep_nothing) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    struct mixed_fields *m = roots[0] = tri_new(f.thread, &mixed_by_offsets);
    char *bytes = roots[1] = tri_new_bytes(f.thread, 256);
    uintptr_t hidden[2];
    for (int i = 0; i < 2; i++) hidden[i] = hide(tri_new(f.thread, &leaf_type));
    m->a = (uintptr_t)reveal(hidden[0]);
    m->f = (uint64_t)m->a;
    void *second = reveal(hidden[1]);
    memcpy(bytes + 64, &second, sizeof second);
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, hidden[0]) && !is_alive(f.heap, hidden[1]));
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* A maybe word may hold any bits: what names no object is no reference, and nothing is reported. */
TEST(types, maybe_words_tolerate_any_bits) {
    static tri_type torn;
    torn = fixture_type_of_size("torn", 512);
    static uint64_t all[] = {~0ull};
    torn.maybes = (tri_slots){.bitmap = all, .nbits = 64};
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    uint64_t *words = roots[0] = tri_new(f.thread, &torn);
    uint64_t seed = fixture_seed();
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 64; i++) {
            uint64_t w = fixture_random(&seed);
            if (i % 2) w = f.heap->mem.space.base + w % (8 * MIB); /* into the heap: free memory, tails, objects */
            tri_store_value(f.thread, words, &words[i], w);
        }
        fixture_collect(&f);
        CHECK(is_alive(f.heap, hide(words)));
    }
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(types, pointers_outside_the_heap_are_ignored) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    struct pair *p = roots[0] = tri_new(f.thread, &pair_type);
    static int outside;
    int *malloced = malloc(sizeof *malloced);
    tri_store(f.thread, p, &p->left, &outside);
    tri_store(f.thread, p, &p->right, malloced);
    for (int i = 0; i < 3; i++) fixture_collect(&f);
    CHECK((void *)p->left == &outside && (void *)p->right == malloced);
    tri_store(f.thread, p, &p->left, (void *)(f.heap->mem.space.base - 1));
    tri_store(f.thread, p, &p->right, (void *)(f.heap->mem.space.base + f.heap->mem.space.size_bytes));
    fixture_collect(&f);
    free(malloced);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

TEST(types, null_and_ends_of_objects_keep_nothing) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    struct pair *p = roots[0] = tri_new(f.thread, &pair_type);
    /* Two neighbours in one hole: the end of the first is the start of the second. */
    uintptr_t first = hide(tri_new(f.thread, &leaf_type)), second = hide(tri_new(f.thread, &leaf_type));
    CHECK_EQ(~first + sizeof(struct leaf), ~second);
    tri_store(f.thread, p, &p->left, (char *)reveal(first) + sizeof(struct leaf));
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, first));
    CHECK(is_alive(f.heap, second));
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* ---- Trace callbacks ---- */

struct traced {
    size_t nslots;
    void *slots[];
};

static size_t trace_calls, trace_worst_visit;

static size_t trace_slots(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    struct traced *t = obj;
    size_t n = t->nslots - from < budget ? t->nslots - from : budget;
    atomic_add_relaxed(&trace_calls, 1);
    if (n > atomic_load_relaxed(&trace_worst_visit)) atomic_store_relaxed(&trace_worst_visit, n);
    tri_visit(visitor, &t->slots[from], n);
    return from + n == t->nslots ? 0 : from + n;
}

TEST(types, a_traced_object_is_visited_in_slices) {
    enum { NSLOTS = 100000 };
    static tri_type traced_type;
    traced_type = fixture_type_of_size("traced", sizeof(struct traced));
    traced_type.elem_size = 8;
    traced_type.trace = trace_slots;
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    struct traced *t = roots[0] = tri_new_n(f.thread, &traced_type, NSLOTS);
    t->nslots = NSLOTS;
    static uintptr_t hidden[NSLOTS];
    for (size_t i = 0; i < NSLOTS; i++) {
        struct leaf *leaf = tri_new(f.thread, &leaf_type);
        leaf->a = i;
        hidden[i] = hide(leaf);
        tri_store(f.thread, t, &t->slots[i], leaf);
    }
    fixture_collect(&f);
    for (size_t i = 0; i < NSLOTS; i++)
        CHECK_MSG(is_alive(f.heap, hidden[i]) && ((struct leaf *)t->slots[i])->a == i, "slot %zu is lost", i);
    CHECK_MSG(trace_calls >= 10, "visited in %zu slices only", trace_calls);
    CHECK_MSG(trace_worst_visit <= NSLOTS / 10, "one slice visited %zu slots", trace_worst_visit);
    tri_clear(f.thread, t, &t->slots[NSLOTS / 2], 1000);
    fixture_collect(&f);
    for (size_t i = 0; i < NSLOTS; i++) CHECK_EQ(is_alive(f.heap, hidden[i]), i < NSLOTS / 2 || i >= NSLOTS / 2 + 1000);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

struct boxed {
    tri_word words[8];
};

static size_t trace_boxed(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)from, (void)budget;
    tri_visit_values(visitor, ((struct boxed *)obj)->words, 8, &nan_box);
    return 0;
}

TEST(types, a_trace_callback_may_visit_values) {
    static tri_type boxed_type;
    boxed_type = fixture_type_of_size("boxed", sizeof(struct boxed));
    boxed_type.trace = trace_boxed;
    boxed_type.enc = &nan_box;
    struct holder h = {"traced values", boxed_type, 0, 24, box, 0};
    check_holder(&h);
}

/* ---- Numbers ---- */

enum { REGISTER_THREADS = 8, REGISTER_TYPES = 400 };

static tri_type shared_types[REGISTER_TYPES];
static pthread_barrier_t register_barrier;
static uint32_t numbers[REGISTER_THREADS][REGISTER_TYPES];

static void *register_all(void *arg) {
    uint32_t *mine = arg;
    pthread_barrier_wait(&register_barrier);
    for (int i = 0; i < REGISTER_TYPES; i++) {
        CHECK_EQ(tri_type_register(&shared_types[i]), TRI_OK);
        mine[i] = atomic_load_acquire(&shared_types[i].layout);
    }
    return NULL;
}

TEST(types, threads_that_register_one_type_agree_on_its_number) {
    pthread_t threads[REGISTER_THREADS];
    static const uint64_t bitmap[] = {5};
    for (int i = 0; i < REGISTER_TYPES; i++) {
        shared_types[i] = fixture_type_of_size("shared", 64);
        shared_types[i].pointers = (tri_slots){.bitmap = bitmap, .nbits = 3};
        if (i % 8 == 0) shared_types[i].elem_size = 16;
    }
    pthread_barrier_init(&register_barrier, NULL, REGISTER_THREADS);
    for (int i = 0; i < REGISTER_THREADS; i++) pthread_create(&threads[i], NULL, register_all, numbers[i]);
    for (int i = 0; i < REGISTER_THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < REGISTER_TYPES; i++) {
        for (int k = 0; k < REGISTER_THREADS; k++) CHECK_EQ(numbers[k][i], numbers[0][i]);
        tri_type_data data = describe(&shared_types[i]);
        CHECK_EQ(data.gcdata[0], 5);
        uint32_t width = i % 8 == 0 ? NUM_SIZE_CLASSES : 1;
        for (int k = 0; k < i; k++) { /* no two share a number */
            uint32_t other_width = k % 8 == 0 ? NUM_SIZE_CLASSES : 1;
            uint32_t a = numbers[0][i], b = numbers[0][k];
            CHECK_MSG(a + width <= b || b + other_width <= a, "types %d and %d share number %u", i, k, a);
        }
    }
}

TEST(types, too_many_types_are_refused_and_the_others_stay) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    struct pair *pair = roots[0] = tri_new(f.thread, &pair_type);
    static tri_type arrays[LAYOUT_LAST / NUM_SIZE_CLASSES + 2], plain[NUM_SIZE_CLASSES + 2];
    size_t narrays = 0, nplain = 0;
    for (;; narrays++) {
        CHECK(narrays < TRI_COUNT(arrays));
        arrays[narrays] = fixture_type_of_size("array", 16);
        arrays[narrays].elem_size = 8;
        int err = tri_type_register(&arrays[narrays]);
        if (err == TRI_OK) continue;
        CHECK_EQ(err, TRI_ELIMIT);
        CHECK_MSG(strstr(tri_last_error(), "too many types"), "%s", tri_last_error());
        CHECK_MSG(strstr(tri_last_error(), "fewer array types"), "no remedy in %s", tri_last_error());
        break;
    }
    CHECK(narrays > 900);
    for (;; nplain++) { /* the numbers that are too few for another array still serve plain types */
        CHECK(nplain < TRI_COUNT(plain));
        plain[nplain] = fixture_type_of_size("plain", 32);
        if (tri_type_register(&plain[nplain]) != TRI_OK) break;
    }
    CHECK(tri_new(f.thread, &plain[nplain]) == NULL);
    CHECK(strstr(tri_last_error(), "too many types") != NULL);
    CHECK(tri_wmap_new(f.thread, NULL) == NULL); /* a type of the library's own */
    CHECK_MSG(strstr(tri_last_error(), "tri_wmap_new: too many types"), "%s", tri_last_error());
    CHECK(tri_new_n(f.thread, &arrays[narrays - 1], 4) != NULL);
    struct pair *other = tri_new(f.thread, &pair_type);
    tri_store(f.thread, pair, &pair->left, other);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hide(other)));
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}
