/* roots.c - roots that belong to no thread: global slot ranges and persistent handles; and the local kinds' upkeep.
 *
 * Ranges and handles are scanned concurrently, like heap slots, after the last H3 answer; so they are written through
 * the barrier, and adding, removing, overwriting and destroying one shades what it holds (R17). The scanner holds the
 * roots lock while it reads, so a removal that has returned has no reader left.
 *
 * Invariants: I-ROOT1 (R17) a free handle's word is odd or zero: never a reference. I-ROOT2 a range's slots are read
 * only under the roots lock. Lock rank: roots (30); the gate and work locks may be taken inside. */
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"
#include "gc/scarce.h"

enum { ROOT_CHUNK = 1024 }; /* slots scanned under the lock at a time: some microseconds */

static const tri_enc plain = {0, 0, ~0ull, ~0ull};

void tri__roots_init(tri_heap *heap) {
    tri__lock_init(&heap->roots.lock, RANK_ROOTS, "roots");
}

void tri__roots_fini(tri_heap *heap) {
    tri__lock_fini(&heap->roots.lock); /* blocks go with their fixalloc */
}

#if TRI_CHECKS >= 2
/* What a word names is marked, or the last that went into the barrier's buffer. */
static bool is_shaded(struct mutator *m, tri_word w, const tri_enc *enc) {
    const struct space *space = &m->heap->mem.space;
    uintptr_t ref = enc_decode(enc, w);
    struct slot slot;
    if (!ref || !space_find_slot(space, ref, &slot) || space_is_marked(space, &slot)) return true;
    return m->nshade > 0 && m->shade[m->nshade - 1] == ref;
}
#endif

/* Shades a word that leaves or enters a root, while armed (R17); any stack colour. */
static void shade_root_word(struct mutator *m, tri_word w, const tri_enc *enc) {
    if (!m->armed) return;
    if (!heap_fault(m->heap, FAULT_BARE_ROOT)) tri__shade_word(m, w, SLOT_VALUE, enc);
#if TRI_CHECKS >= 2
    check_internal(is_shaded(m, w, enc), "R17: what enters or leaves a root while armed is shaded");
#endif
}

static void shade_range(struct mutator *m, const struct tri_root *root) {
    if (!m->armed) return;
    uint64_t start = tri__os_now_ns();
    for (size_t i = 0; i < root->nslots; i++) /* pairs with tri_root_store */
        shade_root_word(m, atomic_load_acquire(&root->slots[i]), &root->enc);
    tri__stats_pause_of(m->heap, m, TRI_PAUSE_SCAN, tri__os_now_ns() - start);
}

/* ---- global slots -------------------------------------------------------------------------------------------- */

tri_root *tri_root_add(tri_thread *thread, void *slots, size_t nslots, const tri_enc *enc) {
    struct mutator *m = tri__mutator_check(thread, "tri_root_add");
    NO_SAFEPOINT("tri_root_add");
    if (!m) return NULL;
    if (!slots || nslots == 0 || (uintptr_t)slots % 8) {
        tri__error(TRI_EINVAL, "tri_root_add", "slots is NULL or not 8-byte aligned, or nslots is 0");
        return NULL;
    }
    if (nslots > (UINTPTR_MAX - (uintptr_t)slots) / 8) {
        tri__error(TRI_EINVAL, "tri_root_add", "%zu slots reach past the end of the address space", nslots);
        return NULL;
    }
    if (tri__enc_check(enc, "tri_root_add") != TRI_OK) return NULL;
    tri_root *root = tri__fixalloc_get(&m->heap->fix_small);
    if (!root) {
        tri__error(TRI_ENOMEM, "tri_root_add", "no memory for the range");
        return NULL;
    }
    *root = (tri_root){.heap = m->heap, .slots = slots, .nslots = nslots, .enc = enc ? *enc : plain};
    shade_range(m, root);
    tri__lock_acquire(&m->heap->roots.lock);
    root->next = m->heap->roots.ranges;
    if (root->next) root->next->prev = root;
    m->heap->roots.ranges = root;
    m->heap->roots.nslots += nslots;
    tri__lock_release(&m->heap->roots.lock);
    return root;
}

void tri_root_remove(tri_thread *thread, tri_root *root) {
    struct mutator *m = tri__mutator_check(thread, "tri_root_remove");
    NO_SAFEPOINT("tri_root_remove");
    if (!m || !root) return;
    shade_range(m, root);
    tri__lock_acquire(&m->heap->roots.lock); /* no scanner is in it from here on */
    if (m->heap->roots.cursor == root) m->heap->roots.cursor = root->next, m->heap->roots.cursor_slot = 0;
    if (root->prev)
        root->prev->next = root->next;
    else
        m->heap->roots.ranges = root->next;
    if (root->next) root->next->prev = root->prev;
    m->heap->roots.nslots -= root->nslots;
    check_cheap(m->heap->roots.cursor != root, "R17: no scanner is in a range that is taken back");
    tri__lock_release(&m->heap->roots.lock);
    tri__fixalloc_put(&m->heap->fix_small, root);
}

/* ---- persistent handles -------------------------------------------------------------------------------------- */

/* An odd word would look like a free handle (I-ROOT1). */
static bool is_odd(struct mutator *m, const char *call, const void *obj) {
    if (((uintptr_t)obj & 1) == 0) return false;
    tri__report(m->heap, call, "%p is an odd address; give the object's start, or an even address inside it", obj);
    return true;
}

tri_handle tri_global(tri_thread *thread, void *obj) {
    struct mutator *m = tri__mutator_check(thread, "tri_global");
    NO_SAFEPOINT("tri_global");
    if (!m || is_odd(m, "tri_global", obj)) return NULL;
    struct roots *roots = &m->heap->roots;
    shade_root_word(m, (tri_word)(uintptr_t)obj, &plain);
    tri__lock_acquire(&roots->lock);
    struct tri_ref *ref = roots->free_handles;
    if (ref) {
        roots->free_handles = (struct tri_ref *)(uintptr_t)(atomic_load_relaxed(&ref->word) &
                                                            ~1ull); /* under the lock */
    } else {
        struct handle_block *block = roots->handles;
        if (!block || block->nused == HANDLE_BLOCK_SLOTS) {
            block = tri__fixalloc_get(&m->heap->fix_block);
            if (!block) {
                tri__lock_release(&roots->lock);
                tri__error(TRI_ENOMEM, "tri_global", "no memory for another block of handles");
                return NULL;
            }
            block->nused = 0;
            block->next = roots->handles;
            roots->handles = block;
        }
        ref = &block->slots[block->nused++];
    }
    atomic_store_release(&ref->word, (tri_word)(uintptr_t)obj); /* pairs with tri_deref and the root scanner */
    tri__lock_release(&roots->lock);
    return ref;
}

static bool handle_is_free(tri_handle handle) {
    return (atomic_load_relaxed(&handle->word) & 1) != 0; /* I-ROOT1 */
}

void tri_global_set(tri_thread *thread, tri_handle handle, void *obj) {
    struct mutator *m = tri__mutator_check(thread, "tri_global_set");
    NO_SAFEPOINT("tri_global_set");
    if (!m || !handle || is_odd(m, "tri_global_set", obj)) return;
    if (handle_is_free(handle)) {
        tri__report(m->heap, "tri_global_set", "the handle has been freed");
        return;
    }
    shade_root_word(m, atomic_load_acquire(&handle->word), &plain); /* pairs with other threads' sets */
    if (m->grey_stack) shade_root_word(m, (tri_word)(uintptr_t)obj, &plain);
    atomic_store_release(&handle->word, (tri_word)(uintptr_t)obj); /* pairs with tri_deref and the root scanner */
}

void tri_global_free(tri_thread *thread, tri_handle handle) {
    struct mutator *m = tri__mutator_check(thread, "tri_global_free");
    NO_SAFEPOINT("tri_global_free");
    if (!m || !handle) return;
    struct roots *roots = &m->heap->roots;
    shade_root_word(m, handle_is_free(handle) ? 0 : atomic_load_acquire(&handle->word), &plain);
    tri__lock_acquire(&roots->lock);
    bool freed_before = handle_is_free(handle);
    if (!freed_before) {
        atomic_store_release(&handle->word, (tri_word)(uintptr_t)roots->free_handles | 1); /* I-ROOT1 */
        roots->free_handles = handle;
    }
    tri__lock_release(&roots->lock);
    if (freed_before) tri__report(m->heap, "tri_global_free", "the handle has been freed already");
}

/* ---- local handles ------------------------------------------------------------------------------------------- */

uint32_t tri_scope_open(tri_thread *thread) {
    struct mutator *m = tri__mutator_check(thread, "tri_scope_open");
    return m ? m->nlocals : 0;
}

tri_handle tri_local(tri_thread *thread, void *obj) {
    struct mutator *m = tri__mutator_check(thread, "tri_local");
    NO_SAFEPOINT("tri_local");
    if (!m) return NULL;
    struct scope_block *block = m->scopes;
    if (!block || block->n == SCOPE_BLOCK_SLOTS) {
        block = tri__fixalloc_get(&m->heap->fix_block);
        if (!block) {
            tri__error(TRI_ENOMEM, "tri_local", "no memory for another block of handles");
            return NULL;
        }
        block->prev = m->scopes;
        block->n = 0;
        m->scopes = block;
    }
    struct tri_ref *ref = &block->slots[block->n++];
    m->nlocals++;
    atomic_store_relaxed(&ref->word, (tri_word)(uintptr_t)obj); /* own stack: no barrier */
    return ref;
}

void tri_scope_close(tri_thread *thread, uint32_t mark) {
    struct mutator *m = tri__mutator_check(thread, "tri_scope_close");
    NO_SAFEPOINT("tri_scope_close");
    if (!m) return;
    if (mark > m->nlocals) {
        tri__report(m->heap, "tri_scope_close", "the mark %u is of a scope that is closed already", mark);
        return;
    }
    while (m->nlocals > mark) {
        struct scope_block *block = m->scopes;
        size_t n = min_size(block->n, m->nlocals - mark);
        block->n -= n;
        m->nlocals -= (uint32_t)n;
        if (block->n == 0) {
            m->scopes = block->prev;
            tri__fixalloc_put(&m->heap->fix_block, block);
        }
    }
}

/* ---- scanners ------------------------------------------------------------------------------------------------ */

tri_scanner *tri_scanner_add(tri_thread *thread, void (*fn)(tri_visitor *, void *), void *arg) {
    struct mutator *m = tri__mutator_check(thread, "tri_scanner_add");
    NO_SAFEPOINT("tri_scanner_add");
    if (!m) return NULL;
    tri_scanner *s = fn ? tri__fixalloc_get(&m->heap->fix_small) : NULL;
    if (!s) {
        tri__error(fn ? TRI_ENOMEM : TRI_EINVAL, "tri_scanner_add", fn ? "no memory" : "fn is NULL");
        return NULL;
    }
    *s = (tri_scanner){.next = m->scanners, .fn = fn, .arg = arg};
    if (s->next) s->next->prev = s;
    m->scanners = s;
    return s;
}

/* What it visits leaves the roots: shaded like a removed range (R17), by one last call. */
void tri_scanner_remove(tri_thread *thread, tri_scanner *scanner) {
    struct mutator *m = tri__mutator_check(thread, "tri_scanner_remove");
    NO_SAFEPOINT("tri_scanner_remove");
    if (!m || !scanner) return;
    if (m->armed) {
        struct tri_visitor visitor = {.marker = &m->marker, .shade = true};
        IN_CALLBACK(ROOT_CALLBACK);
        scanner->fn(&visitor, scanner->arg);
    }
    if (scanner->prev)
        scanner->prev->next = scanner->next;
    else
        m->scanners = scanner->next;
    if (scanner->next) scanner->next->prev = scanner->prev;
    tri__fixalloc_put(&m->heap->fix_small, scanner);
}

/* ---- the collector's part ------------------------------------------------------------------------------------ */

/* At most ROOT_CHUNK slots of the range that the cursor is in. Requires the roots lock. */
static void scan_range_chunk(struct roots *roots, struct marker *mk) {
    struct tri_root *r = roots->cursor;
    check_cheap(tri__lock_held(&roots->lock), "R17: a range is read under the lock of its removal (I-ROOT2)");
    size_t end = min_size(r->nslots, roots->cursor_slot + ROOT_CHUNK);
    for (size_t i = roots->cursor_slot; i < end; i++) {
        uintptr_t ref = enc_decode(&r->enc, atomic_load_acquire(&r->slots[i])); /* pairs with tri_root_store */
        if (ref) tri__marker_candidate(mk, ref);
    }
    roots->cursor_slot = end;
    if (end == r->nslots) roots->cursor = r->next, roots->cursor_slot = 0;
}

static void scan_handle_block(struct handle_block *b, struct marker *mk) {
    for (size_t i = 0; i < b->nused; i++) {
        tri_word w = atomic_load_acquire(&b->slots[i].word); /* pairs with tri_global_set */
        if (w && !(w & 1)) tri__marker_candidate(mk, (uintptr_t)w);
    }
}

void tri__roots_scan_begin(tri_heap *heap) {
    struct roots *roots = &heap->roots;
    tri__lock_acquire(&roots->lock);
    roots->cursor = roots->ranges;
    roots->cursor_slot = 0;
    roots->handle_cursor = roots->handles;
    tri__vmstacks_scan_begin(heap);
    tri__lock_release(&roots->lock);
}

/* In chunks: the lock is free between two. What is added meanwhile was shaded by whoever added it, and so was what is
 * removed; blocks of handles stay for the heap's life. */
bool tri__roots_scan(tri_heap *heap, struct marker *mk, uint64_t deadline_ns) {
    struct roots *roots = &heap->roots;
    for (;;) {
        tri__lock_acquire(&roots->lock);
        if (roots->cursor) {
            scan_range_chunk(roots, mk);
        } else if (roots->handle_cursor) {
            scan_handle_block(roots->handle_cursor, mk);
            roots->handle_cursor = roots->handle_cursor->next;
        }
        bool more = roots->cursor || roots->handle_cursor;
        tri__lock_release(&roots->lock);
        if (!more) return true;
        tri__stress_delay(heap);
        if (deadline_ns == UINT64_MAX) tri__give_way(heap, &heap->run.slice_ns);
        tri__units_did(ROOT_CHUNK / WORDS_A_UNIT);
        if (heap_is_late(heap, deadline_ns)) return false;
    }
}
