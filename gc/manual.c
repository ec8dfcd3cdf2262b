/* manual.c - manual memory and the early free of collected objects. */
#include <stdlib.h>
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

/* In front of each block. */
struct head {
    void *start;
    size_t size_bytes;
};

static struct head *head_of(const void *block) {
    return (struct head *)(uintptr_t)block - 1;
}

void *tri_manual_aligned(tri_heap *heap, size_t align_bytes, size_t size_bytes) {
    if (!heap || !is_power_of_two(align_bytes) || align_bytes > (size_t)1 << 30) {
        tri__error(TRI_EINVAL, "tri_manual_aligned", "heap is NULL, or %zu is no power of two up to 1 GiB",
                   align_bytes);
        return NULL;
    }
    size_t align = max_size(align_bytes, 16), size = align_up(max_size(size_bytes, 16), 16);
    char *start = size_bytes > SIZE_MAX / 2 ? NULL : malloc(size + align + sizeof(struct head));
    if (!start) {
        tri__error(TRI_ENOMEM, "tri_manual_alloc", "no memory for %zu bytes", size_bytes);
        return NULL;
    }
    char *block = (char *)align_up((uintptr_t)start + sizeof(struct head), align);
    *head_of(block) = (struct head){start, size};
    atomic_add_relaxed(&heap->manual_bytes, size);
    return block;
}

void *tri_manual_alloc(tri_heap *heap, size_t size_bytes) {
    return tri_manual_aligned(heap, 16, size_bytes);
}

void *tri_manual_calloc(tri_heap *heap, size_t n, size_t size_bytes) {
    size_t total;
    if (__builtin_mul_overflow(n, size_bytes, &total)) {
        tri__error(TRI_ENOMEM, "tri_manual_calloc", "%zu elements of %zu bytes are more than any address range holds",
                   n, size_bytes);
        return NULL;
    }
    void *block = tri_manual_alloc(heap, total);
    return block ? memset(block, 0, total) : NULL;
}

void tri_manual_free(tri_heap *heap, void *block) {
    if (!block) return;
    atomic_sub_relaxed(&heap->manual_bytes, head_of(block)->size_bytes);
    free(head_of(block)->start);
}

size_t tri_manual_usable_size(tri_heap *heap, const void *block) {
    (void)heap;
    return block ? head_of(block)->size_bytes : 0;
}

void *tri_manual_realloc(tri_heap *heap, void *block, size_t size_bytes) {
    void *fresh = tri_manual_alloc(heap, size_bytes);
    if (!block || !fresh) return fresh;
    memcpy(fresh, block, min_size(size_bytes, tri_manual_usable_size(heap, block)));
    tri_manual_free(heap, block);
    return fresh;
}

size_t tri_manual_bytes(tri_heap *heap) {
    return heap ? atomic_load_relaxed(&heap->manual_bytes) : 0;
}

void *tri_manual_root_new(tri_thread *thread, size_t nslots, const tri_enc *enc, tri_root **root) {
    struct mutator *m = tri__mutator_check(thread, "tri_manual_root_new");
    if (!m) return NULL;
    if (!root || nslots == 0) {
        tri__error(TRI_EINVAL, "tri_manual_root_new", "root is NULL, or nslots is 0");
        return NULL;
    }
    void *block = tri_manual_calloc(m->heap, nslots, sizeof(tri_word));
    *root = block ? tri_root_add(thread, block, nslots, enc) : NULL;
    if (*root) return block;
    tri_manual_free(m->heap, block);
    return NULL;
}

void tri_manual_root_free(tri_thread *thread, tri_root *root) {
    struct mutator *m = tri__mutator_check(thread, "tri_manual_root_free");
    if (!m || !root) return;
    void *block = (void *)(uintptr_t)root->slots;
    tri_root_remove(thread, root);
    tri_manual_free(m->heap, block);
}

/* Checks its argument; the next cycle frees what nothing refers to. */
int tri_free(tri_thread *thread, void *obj) {
    struct mutator *m = tri__mutator_check(thread, "tri_free");
    if (!m) return TRI_EUNATTACHED;
    safepoint_poll(m);
    struct slot slot;
    if (!space_find_slot(&m->heap->mem.space, (uintptr_t)obj, &slot) || slot.addr != (uintptr_t)obj ||
        !space_is_allocated(&m->heap->mem.space, &slot))
        return tri__error(TRI_EINVAL, "tri_free", "%p is not the start of a live object of this heap", obj);
    return TRI_OK;
}
