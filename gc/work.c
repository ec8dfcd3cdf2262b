/* work.c - the heap's list of work buffers; see work.h. */
#include "gc/work.h"
#include <string.h>
#include "alloc/base/atomic.h"
#include "alloc/base/check.h"

_Static_assert(sizeof(struct workbuf) == 2048, "a work buffer is 2 KiB");

static bool fill_reserve(struct work *work) {
    for (int i = 0; i < WORK_RESERVE; i++) {
        struct workbuf *buf = tri__fixalloc_get(&work->fix);
        if (!buf) return false;
        buf->next = work->reserve;
        work->reserve = buf;
    }
    return true;
}

bool tri__work_init(struct work *work) {
    memset(work, 0, sizeof *work);
    tri__lock_init(&work->lock, RANK_WORK, "work buffers");
    tri__fixalloc_init(&work->fix, sizeof(struct workbuf), "work buffers", NULL, NULL);
    return fill_reserve(work);
}

void tri__work_reset(struct work *work) {
    tri__fixalloc_reset(&work->fix);
    work->full = work->reserve = NULL;
    atomic_store_relaxed(&work->ncopies, (size_t)0);
    atomic_store_relaxed(&work->nfull, (size_t)0); /* nobody has work */
    atomic_store_relaxed(&work->rescan, 0);
    bool filled = fill_reserve(work);
    check_always(filled, "I-WORK2: the reserve had its blocks before");
}

void tri__work_fini(struct work *work) {
    tri__fixalloc_fini(&work->fix);
    tri__lock_fini(&work->lock);
}

struct workbuf *tri__work_get_empty(struct work *work) {
    struct workbuf *buf = tri__fixalloc_get(&work->fix);
    if (!buf) {
        tri__lock_acquire(&work->lock);
        buf = work->reserve;
        if (buf) work->reserve = buf->next;
        tri__lock_release(&work->lock);
    }
    if (buf) {
        buf->next = NULL;
        buf->n = 0;
    }
    return buf;
}

void tri__work_put_empty(struct work *work, struct workbuf *buf) {
    check_internal(buf->n == 0, "I-WORK2: no entry is dropped");
    tri__fixalloc_put(&work->fix, buf);
}

void tri__work_put_full(struct work *work, struct workbuf *buf) {
    check_internal(buf->n > 0, "I-WORK1: a buffer on the full list has entries");
    tri__lock_acquire(&work->lock);
    buf->next = work->full;
    work->full = buf;
    atomic_store_release(&work->nfull, atomic_load_relaxed(&work->nfull) + 1); /* pairs with work_is_empty */
    tri__lock_release(&work->lock);
}

struct workbuf *tri__work_get_full(struct work *work) {
    if (atomic_load_acquire(&work->nfull) == 0)
        return NULL; /* pairs with put_full; a miss is found by the next round */
    tri__lock_acquire(&work->lock);
    struct workbuf *buf = work->full;
    if (buf) {
        work->full = buf->next;
        atomic_store_release(&work->nfull, atomic_load_relaxed(&work->nfull) - 1);
    }
    tri__lock_release(&work->lock);
    return buf;
}

bool tri__work_is_empty(struct work *work) {
    return atomic_load_acquire(&work->nfull) == 0 &&
           atomic_load_acquire(&work->rescan) == 0 && /* pairs with put_full */
           atomic_load_acquire(&work->ncopies) == 0;  /* pairs with copying_end */
}
