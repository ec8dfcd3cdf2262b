/*
 * trigc.h from C++: every macro and inline function of it in one program, which is compiled without a warning and run.
 * Needs nothing of the C++ library.
 */
#include <trigc.h>

#include <stdio.h>

namespace {

struct node {
    node *left, *right;
    uint64_t value;
};
TRI_TYPE(node_type, node, left, right);

struct boxes {
    tri_word first, second;
};
const tri_enc nan_box = {0xfffc000000000000ull, 0xfffc000000000000ull, ~0ull, 0x0000ffffffffffffull};
TRI_VALUE_TYPE(boxes_type, boxes, &nan_box, first, second);

struct blob {
    char bytes[40];
};
TRI_LEAF_TYPE(blob_type, blob);
TRI_POINTER_ARRAY_TYPE(array_type, 16);

int failures;

void expect(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "api_cxx: %s does not hold (%s)\n", what, tri_last_error());
    failures++;
}
#define EXPECT(condition) expect((condition), #condition)

void *give_back(void *arg) {
    return arg;
}

void use(tri_thread *thread) {
    TRI_LOCALS(thread, roots, 3);
    node *a = static_cast<node *>(roots[0] = tri_new(thread, &node_type));
    node *b = static_cast<node *>(tri_new(thread, &node_type));
    tri_init(thread, a, &a->left, b);
    b->value = 42;
    boxes *box = static_cast<boxes *>(roots[1] = tri_new(thread, &boxes_type));
    blob *leaf = static_cast<blob *>(tri_new(thread, &blob_type));
    leaf->bytes[7] = 7;
    tri_init_value(thread, box, &box->first, 0xfffc000000000000ull | reinterpret_cast<uintptr_t>(leaf));
    tri_store_value(thread, box, &box->second, tri_load_value(&box->first));
    tri_store(thread, a, &a->right, tri_load(&a->left));
    void **array = static_cast<void **>(roots[2] = tri_new_n(thread, &array_type, 10));
    tri_store(thread, array, &array[2 + 9], a);
    static void *slots[2];
    tri_root *root = tri_root_add(thread, slots, 2, nullptr);
    tri_root_store(thread, root, &slots[0], a);
    tri_root_store_value(thread, root, &slots[1], 0);
    tri_handle handle = tri_global(thread, b);
    for (int i = 0; i < 3; i++) {
        tri_poll(thread);
        EXPECT(tri_collect(thread) == TRI_OK);
        EXPECT(!tri_step(thread, 1000));
    }
    EXPECT(tri_deref(handle) == b && b->value == 42);
    EXPECT(a->left == b && a->right == b && leaf->bytes[7] == 7);
    EXPECT(tri_blocking(thread, give_back, a) == a);
    EXPECT(tri_walk(thread, nullptr, nullptr) == 5);
    tri_root_remove(thread, root);
    tri_global_free(thread, handle);
    TRI_POP(thread, roots);
}

} // namespace

int main() {
    tri_config config;
    tri_config_init(&config);
    config.flags = TRI_HEAP_PRECISE;
    tri_heap *heap = nullptr;
    tri_thread *thread = nullptr;
    EXPECT(tri_heap_create(&config, &heap) == TRI_OK);
    EXPECT(tri_attach(heap, 0, &thread) == TRI_OK);
    EXPECT(tri_self(heap) == thread);
    use(thread);
    EXPECT(tri_collect(thread) == TRI_OK);
    EXPECT(tri_verify(thread) == 0);
    EXPECT(tri_detach(thread) == TRI_OK);
    EXPECT(tri_heap_destroy(heap) == TRI_OK);
    return failures != 0;
}
