/* trigc/manual.h - manual memory. Included by trigc.h, whose conventions hold here.
 *
 * Manual memory: blocks that live until they are freed, out of the same size classes and pages as the objects, within
 * the same hard limit, but in spans that no collection touches. A block is no object: tri_find refuses it, references
 * into it are ignored like pointers outside the heap, and references in it keep nothing alive, unless it was made by
 * tri_manual_root_new. Any thread, attached or not, also inside tri_blocking; never a safepoint, never a wait for a
 * cycle. A block may be freed by any thread; the heap's end frees all. Builds with checks report a block that is freed
 * twice or is none, by its history, and free nothing then; in others that is the host's ruin, as with free(). */
#ifndef TRIGC_H
#include <trigc.h> /* which includes this file */
#endif
#ifndef TRIGC_MANUAL_H
#define TRIGC_MANUAL_H

#ifdef __cplusplus
extern "C" {
#endif

/* A block of at least size_bytes (0: of the smallest size), 16-byte aligned, not zeroed. NULL when memory cannot be had
 * (TRI_ENOMEM): then, on an attached thread that is not inside tri_blocking, the host's oom hook was asked first. A
 * cycle is requested meanwhile, not waited for. */
TRI_API void *tri_manual_alloc(tri_heap *heap, size_t size_bytes);

/* The same for n elements of size_bytes, zeroed. NULL also when the product overflows. */
TRI_API void *tri_manual_calloc(tri_heap *heap, size_t n, size_t size_bytes);

/* The same as tri_manual_alloc, aligned to align_bytes: a power of two (else NULL, TRI_EINVAL), up to 1 GiB. */
TRI_API void *tri_manual_aligned(tri_heap *heap, size_t align_bytes, size_t size_bytes);

/* A block of at least size_bytes with the old one's contents, as far as they fit; the old one is gone, unless it is the
 * same. NULL block: as tri_manual_alloc. 0 bytes: a small block, never a free. NULL leaves the old one as it was. An
 * alignment beyond 16 is kept only while the block stays in place. */
TRI_API void *tri_manual_realloc(tri_heap *heap, void *block, size_t size_bytes);

/* Frees a block. NULL: nothing. Waits for nobody, whoever allocated it. */
TRI_API void tri_manual_free(tri_heap *heap, void *block);

/* Bytes that may be used from the block's start on: those asked for, or more. 0 when it is no block of this heap. */
TRI_API size_t tri_manual_usable_size(tri_heap *heap, const void *block);

/* Bytes in live blocks now, by their usable size: exact when no other thread allocates or frees meanwhile. */
TRI_API size_t tri_manual_bytes(tri_heap *heap);

/* A zeroed block of nslots slots that is registered as a root range (tri_root_add): its slots are written through
 * tri_root_store with *root. Any attached thread. NULL: TRI_ENOMEM, TRI_EINVAL. */
TRI_API void *tri_manual_root_new(tri_thread *thread, size_t nslots, const tri_enc *enc, tri_root **root);

/* Takes such a range back as tri_root_remove does, and frees its block. Any attached thread. */
TRI_API void tri_manual_root_free(tri_thread *thread, tri_root *root);

/* Frees a collected object early, for hosts that know that nothing refers to it any more: no slot, root or handle of
 * any thread, no finalizer queue in which it lies. A large object's pages are free when it returns; a small one's slot
 * is, unless another thread's cache holds its span: then the next cycle frees it. Waits as a blocked thread while a
 * cycle marks (rule R13), at most wait_limit_ms (TRI_ETIMEDOUT). In a heap that has weak maps, or has had objects with
 * weak slots, it looks for what names the object weakly: at every weak slot, the spans between and into every map, on
 * the calling thread, and at the entries of a map that it frees (milliseconds for some 100,000). TRI_EINVAL for what is
 * not the start of a live object of this heap: interior pointers, foreign memory, what was freed before. Builds with
 * checks fill the slot with the pattern of poison=1, so that a later use is named. SAFEPOINT. Any attached thread. */
TRI_API int tri_free(tri_thread *thread, void *obj);

#ifdef __cplusplus
}
#endif

#endif
