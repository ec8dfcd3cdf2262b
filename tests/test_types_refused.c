/*
 * Type descriptors that contradict themselves: each is refused by an error value and a message that names the call, the
 * type, the field and the reason; and the same descriptor, corrected, can be registered.
 */
#include "tests/fixture.h"

static size_t trace_nothing(tri_visitor *visitor, void *obj, size_t from, size_t budget) {
    (void)visitor, (void)obj, (void)from, (void)budget;
    return 0;
}

static const uint64_t two_bits[] = {20};
static const tri_enc nan_box = {0xfffc000000000000ull, 0xfffc000000000000ull, ~0ull, 0x0000ffffffffffffull};

static const tri_enc enc_tag_outside = {1, 2, ~0ull, ~0ull}, enc_no_tags = {3, 1, 0, ~3ull},
                     enc_no_address = {3, 1, ~0ull, 0}, enc_keeps_tag = {3, 1, ~0ull, ~0ull},
                     enc_no_word = {3, 1, 1, ~3ull}; /* tag 1 is asked for, and only tag 0 is a reference */

static void refuse_far_offset(tri_type *t) {
    t->pointers = fixture_slot_at(64);
}
static void refuse_straddling_offset(tri_type *t) {
    t->size = 60;
    t->pointers = fixture_slot_at(56);
}
static void refuse_wrapping_offset(tri_type *t) {
    t->pointers = fixture_slot_at(0xfffffff8u);
}
static void refuse_unaligned(tri_type *t) {
    t->values = fixture_slot_at(12), t->enc = &nan_box;
}
static void refuse_long_bitmap(tri_type *t) {
    t->maybes = (tri_slots){.bitmap = two_bits, .nbits = 9};
}
static void refuse_no_size(tri_type *t) {
    t->size = 0;
}
static void refuse_tag_outside(tri_type *t) {
    t->values = fixture_slot_at(8), t->enc = &enc_tag_outside;
}
static void refuse_no_tags(tri_type *t) {
    t->values = fixture_slot_at(8), t->enc = &enc_no_tags;
}
static void refuse_no_address(tri_type *t) {
    t->values = fixture_slot_at(8), t->enc = &enc_no_address;
}
static void refuse_kept_tag(tri_type *t) {
    t->values = fixture_slot_at(8), t->enc = &enc_keeps_tag;
}
static void refuse_no_word(tri_type *t) {
    t->values = fixture_slot_at(8), t->enc = &enc_no_word;
}
static void refuse_two_kinds(tri_type *t) {
    t->pointers = fixture_slot_at(16), t->values = fixture_slot_at(16), t->enc = &nan_box;
}
static void refuse_two_kinds_of_element(tri_type *t) {
    t->elem_size = 16, t->elem_pointers = fixture_slot_at(8), t->elem_maybes = fixture_slot_at(8);
}
static void refuse_no_name(tri_type *t) {
    t->name = NULL;
}
static void refuse_struct_size(tri_type *t) {
    t->struct_size = 8;
}
static void refuse_leaf_with_slots(tri_type *t) {
    t->flags = TRI_TYPE_LEAF, t->pointers = fixture_slot_at(8);
}
static void refuse_leaf_with_trace(tri_type *t) {
    t->flags = TRI_TYPE_LEAF, t->trace = trace_nothing;
}
static void refuse_trace_with_slots(tri_type *t) {
    t->trace = trace_nothing, t->pointers = fixture_slot_at(8);
}
static void refuse_elements_without_size(tri_type *t) {
    t->elem_pointers = fixture_slot_at(0);
}
static void refuse_element_offset(tri_type *t) {
    t->elem_size = 16, t->elem_pointers = fixture_slot_at(16);
}
static void refuse_odd_element(tri_type *t) {
    t->elem_size = 20, t->elem_pointers = fixture_slot_at(8);
}
static void refuse_odd_header(tri_type *t) {
    t->size = 12, t->elem_size = 16, t->elem_pointers = fixture_slot_at(8);
}
static void refuse_values_without_enc(tri_type *t) {
    t->values = fixture_slot_at(8);
}
static void refuse_elem_values_without_enc(tri_type *t) {
    t->elem_size = 8, t->elem_values = fixture_slot_at(0);
}
static void refuse_align(tri_type *t) {
    t->align = 32;
}
static void refuse_bits_without_bitmap(tri_type *t) {
    t->pointers.nbits = 4;
}
static void refuse_count_without_offsets(tri_type *t) {
    t->pointers.noffsets = 4;
}
static void refuse_huge(tri_type *t) {
    t->size = SIZE_MAX - 7;
}
static void refuse_flags(tri_type *t) {
    t->flags = 1u << 17;
}

/* What is wrong, and the words that the message must have: the field and the reason. */
static const struct refusal {
    void (*apply)(tri_type *type);
    const char *field, *reason;
} refusals[] = {
    {refuse_far_offset, "pointers", "past the size"},
    {refuse_straddling_offset, "pointers", "past the size"},
    {refuse_wrapping_offset, "pointers", "past the size"},
    {refuse_unaligned, "values", "multiple of 8"},
    {refuse_long_bitmap, "maybes", "longer than the object"},
    {refuse_no_size, "size", "neither size nor elem_size"},
    {refuse_tag_outside, "enc.tag", "outside mask"},
    {refuse_no_tags, "enc.tags", "no tag"},
    {refuse_no_address, "enc.ptr_mask", "NULL"},
    {refuse_kept_tag, "enc.ptr_mask", "bits of the tag"},
    {refuse_no_word, "enc.tags", "no word"},
    {refuse_two_kinds, "pointers/values/maybes", "two kinds"},
    {refuse_two_kinds_of_element, "pointers/values/maybes", "two kinds"},
    {refuse_no_name, "name", "NULL"},
    {refuse_struct_size, "struct_size", "sizeof(tri_type)"},
    {refuse_leaf_with_slots, "flags", "LEAF"},
    {refuse_leaf_with_trace, "flags", "LEAF"},
    {refuse_trace_with_slots, "trace", "slots"},
    {refuse_elements_without_size, "elem_size", "0"},
    {refuse_element_offset, "elem_pointers", "past the size"},
    {refuse_odd_element, "elem_size", "multiples of 8"},
    {refuse_odd_header, "elem_size", "multiples of 8"},
    {refuse_values_without_enc, "enc", "encoding"},
    {refuse_elem_values_without_enc, "enc", "encoding"},
    {refuse_align, "align", "8 or 16"},
    {refuse_bits_without_bitmap, "pointers", "bitmap is NULL"},
    {refuse_count_without_offsets, "pointers", "offsets is NULL"},
    {refuse_huge, "size", "larger than any object"},
    {refuse_flags, "flags", "unknown"},
};

TEST(types, a_bad_descriptor_is_refused_with_field_and_reason) {
    for (size_t i = 0; i < TRI_COUNT(refusals); i++) {
        const struct refusal *r = &refusals[i];
        tri_type type = {.struct_size = sizeof(tri_type), .name = "crooked", .size = 64};
        r->apply(&type);
        int err = tri_type_register(&type);
        CHECK_MSG(err == TRI_ETYPE, "refusal %zu (%s): %d, %s", i, r->field, err, tri_last_error());
        CHECK_EQ(type.layout, 0);
        CHECK_MSG(strstr(tri_last_error(), "tri_type_register"), "no call in \"%s\"", tri_last_error());
        CHECK_MSG(strstr(tri_last_error(), r->field), "refusal %zu: no \"%s\" in \"%s\"", i, r->field,
                  tri_last_error());
        CHECK_MSG(strstr(tri_last_error(), r->reason), "refusal %zu: no \"%s\" in \"%s\"", i, r->reason,
                  tri_last_error());
        if (type.name) CHECK_MSG(strstr(tri_last_error(), "crooked"), "no name in \"%s\"", tri_last_error());
    }
}

TEST(types, a_refused_descriptor_can_be_corrected) {
    struct fixture f = fixture_open();
    for (size_t i = 0; i < TRI_COUNT(refusals); i++) {
        static tri_type types[TRI_COUNT(refusals)];
        types[i] = fixture_type_of_size("crooked", 64);
        refusals[i].apply(&types[i]);
        CHECK(tri_new(f.thread, &types[i]) == NULL);
        CHECK_MSG(strstr(tri_last_error(), "tri_new"), "\"%s\" does not name the call", tri_last_error());
        types[i] = fixture_type_of_size("straight", 64);
        types[i].pointers = fixture_slot_at(16);
        CHECK_EQ(tri_type_register(&types[i]), TRI_OK);
        CHECK(tri_new(f.thread, &types[i]) != NULL);
    }
    fixture_close(&f);
}

TEST(types, null_arguments_are_refused) {
    tri_type_data data = {.struct_size = sizeof data};
    CHECK_EQ(tri_type_register(NULL), TRI_EINVAL);
    CHECK_EQ(tri_type_describe(NULL, &data), TRI_EINVAL);
    CHECK_EQ(tri_type_describe(&pair_type, NULL), TRI_EINVAL);
    data.struct_size = 4;
    CHECK_EQ(tri_type_describe(&pair_type, &data), TRI_EINVAL);
    CHECK(strstr(tri_last_error(), "struct_size") != NULL);
}
