/* manual_thread.c - whose cache of manual memory is whose: the calling thread's, found by one thread-local load; those
 * of threads that ended; and what is left of them when a heap ends. See manual.h.
 *
 * A cache is held by one thread, or an orphan of its heap. A thread that ends makes its caches orphans; a thread that
 * comes takes an orphan over, spans and all, before a new cache is made, so a heap has as many caches as it ever had
 * threads at a time. A cache that a thread holds when its heap ends stays allocated, told that it fits no heap
 * (I-MAN4), until that thread looks for another cache, or ends.
 *
 * Lock ranks: registry (5) for `held` and for the end of threads and heaps, manual (65) inside it. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/manual.h"
#include "alloc/memory.h"

/* What a thread may keep of empty spans: less where there are many of them. */
enum { KEEP_MOST_BYTES = 256 << 10, KEEP_LEAST_BYTES = 64 << 10, KEEP_ALL_BYTES = 16 << 20 };

/* What a thread without a cache has: it fits no heap. */
static struct manual_cache no_cache;

_Thread_local struct manual_cache *tri__manual_self __attribute__((tls_model("initial-exec"))) = &no_cache;
static _Thread_local struct manual_cache *own_caches; /* of all heaps */

static struct lock registry; /* RANK_REGISTRY; of the process */
static pthread_key_t exit_key;
static bool has_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- the end of a thread ------------------------------------------------------------------------------------- */

/* Requires the registry lock. */
static void make_orphan(struct manual_cache *c, struct memory *mem) {
    tri__lock_acquire(&mem->manual.lock);
    c->keep_bytes = 0;
    tri__manual_settle(c);
    c->next_orphan = mem->manual.orphans;
    mem->manual.orphans = c;
    atomic_store_relaxed(&mem->manual.norphans, mem->manual.norphans + 1); /* under the lock; a hint to others */
    tri__lock_release(&mem->manual.lock);
    c->held = false;
}

/* Of pthreads: the thread ends. What it frees after this starts with no cache again, and calls this again. */
static void thread_ends(void *unused) {
    (void)unused;
    struct manual_cache *c = own_caches;
    own_caches = NULL;
    tri__manual_self = &no_cache;
    tri__lock_acquire(&registry);
    while (c) {
        struct manual_cache *next = c->next_of_thread;
        struct memory *mem = atomic_load_relaxed(&c->mem); /* under the registry lock */
        if (mem)
            make_orphan(c, mem);
        else
            free(c);
        c = next;
    }
    tri__lock_release(&registry);
}

static void init_process(void) {
    tri__lock_init(&registry, RANK_REGISTRY, "registry");
    has_key = pthread_key_create(&exit_key, thread_ends) == 0;
}

/* ---- finding the calling thread's cache ---------------------------------------------------------------------- */

/* Frees the calling thread's caches of heaps that have ended. */
static void reap(void) {
    struct manual_cache **p = &own_caches;
    while (*p) {
        struct manual_cache *c = *p;
        if (atomic_load_relaxed(&c->mem) != NULL) { /* its heap's end is over, or has not begun for this thread */
            p = &c->next_of_thread;
            continue;
        }
        *p = c->next_of_thread;
        if (tri__manual_self == c) tri__manual_self = &no_cache;
        tri__lock_acquire(&registry); /* after whoever wrote NULL */
        tri__lock_release(&registry);
        free(c);
    }
}

/* Requires the manual lock. */
static struct manual_cache *new_cache(struct memory *mem) {
    if (mem->manual.ncaches == MAX_MANUAL_CACHES) return NULL;
    size_t bytes = align_up(sizeof(struct manual_cache), 64);
    struct manual_cache *c = aligned_alloc(64, bytes);
    if (!c) return NULL;
    memset(c, 0, bytes);
    c->tag = PAGE_MANUAL | (uint64_t)++mem->manual.ncaches << 16;
    c->base = mem->space.base;
    c->size_bytes = mem->space.size_bytes;
    c->pages = mem->space.pages;
    for (unsigned i = 0; i < NUM_MANUAL_CLASSES; i++) c->current[i] = &tri__manual_no_span;
    atomic_store_relaxed(&c->mem, mem);
    c->next_of_heap = mem->manual.caches;
    atomic_store_release(&mem->manual.caches, c); /* pairs with manual_live_bytes */
    return c;
}

/* Requires the manual lock. */
static struct manual_cache *take_orphan(struct memory *mem) {
    struct manual_cache *c = mem->manual.orphans;
    if (!c) return NULL;
    mem->manual.orphans = c->next_orphan;
    c->next_orphan = NULL;
    atomic_store_relaxed(&mem->manual.norphans, mem->manual.norphans - 1); /* as in make_orphan */
    return c;
}

static TRI_COLD struct manual_cache *attach(struct memory *mem) {
    pthread_once(&once, init_process);
    if (!has_key || pthread_setspecific(exit_key, &no_cache) != 0) return NULL; /* nobody would take it back */
    reap();
    tri__lock_acquire(&registry);
    tri__lock_acquire(&mem->manual.lock);
    struct manual_cache *c = take_orphan(mem);
    if (!c) c = new_cache(mem);
    size_t share = KEEP_ALL_BYTES / max_size(mem->manual.ncaches, 1);
    tri__lock_release(&mem->manual.lock);
    if (c) c->held = true;
    tri__lock_release(&registry);
    if (!c) return NULL;
    c->keep_bytes = max_size(min_size(share, KEEP_MOST_BYTES), KEEP_LEAST_BYTES);
    c->next_of_thread = own_caches;
    return own_caches = tri__manual_self = c;
}

struct manual_cache *tri__manual_cache(struct memory *mem) {
    struct manual_cache *c = tri__manual_self;
    if (TRI_LIKELY(atomic_load_relaxed(&c->mem) == mem)) return c; /* I-MAN4 */
    for (c = own_caches; c; c = c->next_of_thread)
        if (atomic_load_relaxed(&c->mem) == mem) return tri__manual_self = c;
    return attach(mem);
}

bool tri__manual_in_other_heap(const struct memory *mem, uintptr_t addr) {
    for (const struct manual_cache *c = own_caches; c; c = c->next_of_thread) {
        const struct memory *other = atomic_load_relaxed(&c->mem); /* I-MAN4 */
        if (other && other != mem && addr - c->base < c->size_bytes) return true;
    }
    return false;
}

/* ---- the child of a fork -------------------------------------------------------------------------------------- */

struct lock *tri__manual_registry_lock(void) {
    return &registry;
}

static bool is_own(const struct manual_cache *cache) {
    for (const struct manual_cache *c = own_caches; c; c = c->next_of_thread)
        if (c == cache) return true;
    return false;
}

void tri__manual_after_fork(struct memory *mem) {
    struct manual *manual = &mem->manual;
    tri__lock_acquire(&registry);
    tri__lock_acquire(&manual->lock);
    for (struct manual_cache *c = atomic_load_relaxed(&manual->caches); c; c = c->next_of_heap) {
        if (!c->held || is_own(c)) continue;
        c->held = false;
        c->next_orphan = manual->orphans;
        manual->orphans = c;
        atomic_store_relaxed(&manual->norphans, manual->norphans + 1); /* as in make_orphan */
    }
    tri__manual_refile_all(mem);
    tri__lock_release(&manual->lock);
    tri__lock_release(&registry);
}

/* ---- the beginning and the end of a heap ---------------------------------------------------------------------- */

void tri__manual_init(struct memory *mem) {
    pthread_once(&once, init_process);
    tri__lock_init(&mem->manual.lock, RANK_MANUAL, "manual memory");
    tri__fixalloc_init(&mem->manual.fix_span, sizeof(struct manual_span), "manual spans", NULL, NULL);
}

/* Every span's records (builds with checks) are the only memory of theirs outside the heap. */
static void drop_records(struct memory *mem) {
#if TRI_CHECKS >= 1
    size_t npages = atomic_load_acquire(&mem->space.committed_pages); /* pairs with space_commit */
    for (size_t page = 0; page < npages; page++) {
        struct manual_span *ms = manual_span_of(&mem->space, space_page_addr(&mem->space, page));
        if (ms && ms->span->first_page == page) tri__manual_records_drop(ms->records);
    }
#else
    (void)mem;
#endif
}

void tri__manual_fini(struct memory *mem) {
    drop_records(mem);
    tri__lock_acquire(&registry);
    for (struct manual_cache *c = mem->manual.caches, *next; c; c = next) {
        next = c->next_of_heap;
        if (c->held)
            atomic_store_relaxed(&c->mem, NULL); /* I-MAN4; its thread frees it */
        else
            free(c);
    }
    tri__lock_release(&registry);
    tri__fixalloc_fini(&mem->manual.fix_span);
    tri__lock_fini(&mem->manual.lock);
}
