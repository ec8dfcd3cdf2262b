/* work.c - the heap's list of work buffers; see work.h. */
#include "gc/work.h"
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/base/os.h"

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

void tri__work_forget_waiters(struct work *work) {
    tri__lock_acquire(&work->lock);
    work->waiting = work->settling = NULL;
    work->open = work->quit = false;
    work->nbusy = 0;
    atomic_store_relaxed(&work->nhungry, 0); /* a hint */
    tri__lock_release(&work->lock);
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

/* Takes a waiter off the list. Requires the lock. */
static void unlist(struct work *work, struct work_waiter *waiter) {
    if (!waiter->listed) return;
    struct work_waiter **at = &work->waiting;
    while (*at != waiter) at = &(*at)->next;
    *at = waiter->next;
    waiter->listed = false;
    if (work->open) atomic_store_relaxed(&work->nhungry, work->nhungry - 1); /* a hint for who has much */
    atomic_store_release(&waiter->woken, 1);                                 /* pairs with park */
}

/* Whom to wake when the lock is released, or NULL. Requires the lock. */
static struct work_waiter *unpark_one(struct work *work) {
    struct work_waiter *waiter = work->waiting;
    if (waiter) unlist(work, waiter);
    return waiter;
}

/* It may have gone on already: only its word's address is used. */
static void wake(const struct work_waiter *waiter) {
    if (waiter) tri__os_futex_wake_all(&waiter->woken);
}

/* Waits until unlisted, or for timeout_ns (0: none). Requires the lock, which it releases meanwhile. */
static void park(struct work *work, struct work_waiter *me, uint64_t timeout_ns) {
    atomic_store_relaxed(&me->woken, 0); /* whoever wakes holds the lock */
    me->next = work->waiting;
    me->listed = true;
    work->waiting = me;
    if (work->open) atomic_store_relaxed(&work->nhungry, work->nhungry + 1); /* a hint for who has much */
    tri__lock_release(&work->lock);
    do {
        if (atomic_load_acquire(&me->woken)) break; /* pairs with unlist */
        tri__os_futex_wait(&me->woken, 0, timeout_ns);
    } while (timeout_ns == 0);
    tri__lock_acquire(&work->lock);
    unlist(work, me);
}

void tri__work_put_full(struct work *work, struct workbuf *buf) {
    check_internal(buf->n > 0, "I-WORK1: a buffer on the full list has entries");
    tri__lock_acquire(&work->lock);
    buf->next = work->full;
    work->full = buf;
    atomic_store_release(&work->nfull, atomic_load_relaxed(&work->nfull) + 1); /* pairs with work_is_empty */
    struct work_waiter *waiter = work->open ? unpark_one(work) : NULL;
    tri__lock_release(&work->lock);
    wake(waiter);
}

/* Requires the lock. */
static struct workbuf *pop_full(struct work *work) {
    struct workbuf *buf = work->full;
    if (!buf) return NULL;
    work->full = buf->next;
    atomic_store_release(&work->nfull, atomic_load_relaxed(&work->nfull) - 1); /* pairs with work_is_empty */
    return buf;
}

struct workbuf *tri__work_get_full(struct work *work) {
    if (atomic_load_acquire(&work->nfull) == 0)
        return NULL; /* pairs with put_full; a miss is found by the next round */
    tri__lock_acquire(&work->lock);
    struct workbuf *buf = pop_full(work);
    tri__lock_release(&work->lock);
    return buf;
}

struct workbuf *tri__work_await(struct work *work, struct work_waiter *me) {
    struct workbuf *buf = NULL;
    tri__lock_acquire(&work->lock);
    while (!work->quit && !(work->open && (buf = pop_full(work)))) park(work, me, 0);
    if (buf) work->nbusy++; /* model: M-WORKER, in the step that takes */
    struct work_waiter *next = buf && work->full ? unpark_one(work) : NULL;
    tri__lock_release(&work->lock);
    wake(next);
    return buf;
}

void tri__work_rest(struct work *work) {
    tri__lock_acquire(&work->lock);
    check_cheap(work->open && work->nbusy > 0, "I-WORK3: who worked was counted, and the list open");
    work->nbusy--;
    struct work_waiter *waiter = NULL;
    if (work->nbusy == 0 && !work->full) {
        waiter = work->settling;
        if (waiter) unlist(work, waiter);
    }
    tri__lock_release(&work->lock);
    wake(waiter);
}

void tri__work_open(struct work *work) {
    tri__lock_acquire(&work->lock);
    uint32_t nwaiting = 0;
    for (struct work_waiter *w = work->waiting; w; w = w->next) nwaiting++;
    atomic_store_relaxed(&work->nhungry, nwaiting); /* a hint for who has much */
    work->open = true;
    struct work_waiter *waiter = work->full ? unpark_one(work) : NULL; /* who wakes the next */
    tri__lock_release(&work->lock);
    wake(waiter);
}

bool tri__work_settle(struct work *work, struct work_waiter *me, uint64_t timeout_ns) {
    tri__lock_acquire(&work->lock);
    if (!work->full && work->nbusy > 0) {
        work->settling = me;
        park(work, me, timeout_ns);
        work->settling = NULL;
    }
    bool settled = !work->full && work->nbusy == 0;
    if (settled) {
        work->open = false; /* R3: no worker takes anything from here on */
        atomic_store_relaxed(&work->nhungry, 0);
    }
    tri__lock_release(&work->lock);
    return settled;
}

void tri__work_quit(struct work *work, bool quit) {
    tri__lock_acquire(&work->lock);
    work->quit = quit;
    check_cheap(work->nbusy == 0, "I-WORK3: no worker is busy between two mark phases");
    while (quit && work->waiting) {
        struct work_waiter *waiter = unpark_one(work);
        tri__lock_release(&work->lock);
        wake(waiter);
        tri__lock_acquire(&work->lock);
    }
    tri__lock_release(&work->lock);
}

bool tri__work_is_empty(struct work *work) {
    return atomic_load_acquire(&work->nfull) == 0 &&
           atomic_load_acquire(&work->rescan) == 0 && /* pairs with put_full */
           atomic_load_acquire(&work->ncopies) == 0;  /* pairs with copying_end */
}
