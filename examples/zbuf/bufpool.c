/* bufpool.c - the blocks and the pool that they come from, and the words of errors.
 *
 * Owns the memory: a buffer is a `struct buf` and its data, two manual blocks, so that 4 KiB of data are a slot of 4
 * KiB and not a bit more. Does not know what buffers are for.
 *
 * The pool never gives memory back on its own: what was needed at once will be needed at once again (bufpool_trim is
 * for who knows better). The preallocated buffers are about 320 MiB by default. They are counted at the start, as if
 * they were there, and built one by one at first use: a program starts at once, pays for what it uses, and yet can rely
 * on them under the limit.
 *
 * Invariants:
 *  B1. Under its class's lock: a buffer is in the free list exactly when it is built and not out; nbuilt = nout +
 *      length of the list, but while a taker is between counting and building (counted as out).
 *  B2. counted = the sum over the classes of max(nbuilt, npreallocated) x size, never above the limit. Both ends keep
 *      it by looking at nbuilt alone, so it holds whatever the order in which several threads build and fail.
 *  B3. A free buffer is empty.
 *
 * Locks: one a class, never two at once, and manual memory is never called under one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "zbuf.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

const size_t bufpool_sizes[BUF_NSIZES] = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, BUF_LARGEST_BYTES};

static const unsigned preallocated[BUF_NSIZES] = {5000, 1000, 500, 200, 50, 20, 10};

struct size_class {
    pthread_mutex_t mutex;
    struct buf *free;     /* [mutex] last given back first: it is the one still in the cache */
    size_t nbuilt;        /* [mutex] */
    size_t nout;          /* [mutex] */
    size_t npreallocated; /* [const] */
    size_t size_bytes;    /* [const] */
};

struct bufpool {
    tri_heap *heap;        /* [const] */
    size_t limit_bytes;    /* [const] */
    atomic_size_t counted; /* [atomic] B2; relaxed: a number, nothing is published by it */
    struct size_class classes[BUF_NSIZES];
};

/* --------------------------------------------------------------------------------------------------------- errors */

static _Thread_local char error_text[256];

int zbuf_error(int err, const char *format, ...) {
    int saved = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(error_text, sizeof error_text, format, args);
    va_end(args);
    errno = saved;
    return err;
}

const char *zbuf_last_error(void) {
    return error_text;
}

const char *zbuf_strerror(int err) {
    switch (err) {
#define ZBUF_CASE(name, value, text) \
    case name: return text;
        ZBUF_ERRORS(ZBUF_CASE)
#undef ZBUF_CASE
    default: return "not an error of zbuf";
    }
}

/* ------------------------------------------------------------------------------------------------------------ buf */

int buf_set_bytes(struct buf *b, const void *src, size_t n) {
    size_t room = b->capacity - b->head - b->length;
    if (n > room) return zbuf_error(ZBUF_ETOOLARGE, "buf_set_bytes: %zu bytes do not fit: room for %zu", n, room);
    if (n > 0) memcpy(buf_bytes(b) + b->length, src, n);
    b->length += n;
    return ZBUF_OK;
}

int buf_copy(struct buf *dst, const struct buf *src) {
    if (dst == src) return ZBUF_OK;
    if (src->length > dst->capacity)
        return zbuf_error(ZBUF_ETOOLARGE, "buf_copy: %zu bytes into a buffer of %zu", src->length, dst->capacity);
    buf_clear(dst);
    return buf_set_bytes(dst, buf_bytes(src), src->length);
}

int buf_pop(struct buf *b, size_t n) {
    if (n > b->length) return zbuf_error(ZBUF_EINVAL, "buf_pop: %zu bytes of %zu", n, b->length);
    b->length -= n;
    b->head += n;
    return ZBUF_OK;
}

void buf_adjust(struct buf *b) {
    if (b->head > 0 && b->length > 0) memmove(b->data, buf_bytes(b), b->length);
    b->head = 0;
}

void buf_clear(struct buf *b) {
    b->head = b->length = 0;
}

/* -------------------------------------------------------------------------------------------- counting and building */

/* Takes `bytes` of the limit, or says that they are not there. */
static bool charge(struct bufpool *pool, size_t bytes) {
    size_t counted = atomic_load_explicit(&pool->counted, memory_order_relaxed);
    do {
        if (bytes > pool->limit_bytes - counted) return false;
    } while (!atomic_compare_exchange_weak_explicit(&pool->counted, &counted, counted + bytes, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void uncharge(struct bufpool *pool, size_t bytes) {
    atomic_fetch_sub_explicit(&pool->counted, bytes, memory_order_relaxed);
}

/* Requires: the class's lock. Counts one buffer more as built; false at the limit. */
static bool count_built(struct bufpool *pool, struct size_class *class) {
    if (class->nbuilt >= class->npreallocated && !charge(pool, class->size_bytes)) return false; /* B2 */
    class->nbuilt++;
    return true;
}

/* Requires: the class's lock. */
static void uncount_built(struct bufpool *pool, struct size_class *class) {
    if (class->nbuilt > class->npreallocated) uncharge(pool, class->size_bytes); /* B2 */
    class->nbuilt--;
}

static void buf_delete(struct bufpool *pool, struct buf *b) {
    tri_manual_free(pool->heap, b->data);
    tri_manual_free(pool->heap, b);
}

/* A buffer that is out already; NULL without memory. */
static struct buf *buf_new(struct bufpool *pool, unsigned idx) {
    struct buf *b = tri_manual_alloc(pool->heap, sizeof *b);
    if (!b) return NULL;
    size_t capacity = bufpool_sizes[idx];
    *b = (struct buf){.pool = pool, .capacity = capacity, .size_idx = idx, .is_out = true};
    b->data = tri_manual_alloc(pool->heap, capacity);
    if (b->data) return b;
    tri_manual_free(pool->heap, b);
    return NULL;
}

/* ----------------------------------------------------------------------------------------------- create and destroy */

void bufpool_config_init(struct bufpool_config *config) {
    *config = (struct bufpool_config){.limit_bytes = (size_t)5 << 30};
    memcpy(config->npreallocated, preallocated, sizeof preallocated);
}

/* Builds what is preallocated: takes all of it, then gives it back. */
static int build_all(struct bufpool *pool) {
    int err = ZBUF_OK;
    for (unsigned i = 0; i < BUF_NSIZES && err == ZBUF_OK; i++) {
        struct buf *taken = NULL, *b;
        for (size_t n = 0; n < pool->classes[i].npreallocated && err == ZBUF_OK; n++) {
            err = bufpool_take(pool, bufpool_sizes[i], &b);
            if (err != ZBUF_OK) break;
            b->next = taken;
            taken = b;
        }
        while ((b = taken) != NULL) {
            taken = b->next;
            bufpool_give(pool, b);
        }
    }
    return err;
}

/* The bytes that the preallocated buffers count for; SIZE_MAX when that overflows. */
static size_t preallocated_bytes(const struct bufpool_config *config) {
    size_t sum = 0;
    for (unsigned i = 0; i < BUF_NSIZES; i++) {
        size_t bytes;
        if (__builtin_mul_overflow(bufpool_sizes[i], config->npreallocated[i], &bytes)) return SIZE_MAX;
        if (__builtin_add_overflow(sum, bytes, &sum)) return SIZE_MAX;
    }
    return sum;
}

int bufpool_create(tri_heap *heap, const struct bufpool_config *config, struct bufpool **out) {
    struct bufpool_config defaults;
    bufpool_config_init(&defaults);
    if (!config) config = &defaults;
    if (!heap || !out) return zbuf_error(ZBUF_EINVAL, "bufpool_create: no heap, or nowhere to put the pool");
    size_t counted = preallocated_bytes(config);
    if (counted > config->limit_bytes)
        return zbuf_error(ZBUF_EINVAL, "bufpool_create: %zu bytes preallocated under a limit of %zu: raise the limit",
                          counted, config->limit_bytes);
    struct bufpool *pool = tri_manual_calloc(heap, 1, sizeof *pool);
    if (!pool) return zbuf_error(ZBUF_ENOMEM, "bufpool_create: %s", tri_last_error());
    pool->heap = heap;
    pool->limit_bytes = config->limit_bytes;
    atomic_init(&pool->counted, counted);
    for (unsigned i = 0; i < BUF_NSIZES; i++) {
        struct size_class *class = &pool->classes[i];
        pthread_mutex_init(&class->mutex, NULL);
        class->npreallocated = config->npreallocated[i];
        class->size_bytes = bufpool_sizes[i];
    }
    int err = config->eager ? build_all(pool) : ZBUF_OK;
    if (err != ZBUF_OK) {
        bufpool_destroy(pool);
        return err;
    }
    *out = pool;
    return ZBUF_OK;
}

int bufpool_destroy(struct bufpool *pool) {
    if (!pool) return ZBUF_OK;
    struct bufpool_stats stats;
    bufpool_stats_get(pool, &stats);
    if (stats.out_bytes > 0)
        return zbuf_error(ZBUF_EBUSY, "bufpool_destroy: buffers of %zu bytes are out: give them back first",
                          stats.out_bytes);
    bufpool_trim(pool);
    for (unsigned i = 0; i < BUF_NSIZES; i++) pthread_mutex_destroy(&pool->classes[i].mutex);
    tri_manual_free(pool->heap, pool);
    return ZBUF_OK;
}

/* -------------------------------------------------------------------------------------------------- take and give */

/* The smallest size that holds `size_bytes`; BUF_NSIZES when none does. */
static unsigned size_idx_for(size_t size_bytes) {
    unsigned i = 0;
    while (i < BUF_NSIZES && bufpool_sizes[i] < size_bytes) i++;
    return i;
}

/* Builds a buffer of a class that has none free, and for which one was counted. */
static int build_counted(struct bufpool *pool, unsigned idx, struct buf **out) {
    struct size_class *class = &pool->classes[idx];
    *out = buf_new(pool, idx);
    if (*out) return ZBUF_OK;
    pthread_mutex_lock(&class->mutex);
    class->nout--;
    uncount_built(pool, class);
    pthread_mutex_unlock(&class->mutex);
    return zbuf_error(ZBUF_ENOMEM, "bufpool_take: no memory for a buffer of %zu bytes: %s", class->size_bytes,
                      tri_last_error());
}

int bufpool_take(struct bufpool *pool, size_t size_bytes, struct buf **out) {
    unsigned idx = size_idx_for(size_bytes);
    if (idx == BUF_NSIZES)
        return zbuf_error(ZBUF_ETOOLARGE, "bufpool_take: %zu bytes asked, the largest buffer has %d: work in parts",
                          size_bytes, BUF_LARGEST_BYTES);
    struct size_class *class = &pool->classes[idx];
    pthread_mutex_lock(&class->mutex);
    struct buf *b = class->free;
    bool granted = true;
    if (b) {
        class->free = b->next;
        b->next = NULL;
        b->is_out = true;
    } else {
        granted = count_built(pool, class);
    }
    if (granted) class->nout++;
    pthread_mutex_unlock(&class->mutex);
    if (!granted)
        return zbuf_error(ZBUF_ELIMIT,
                          "bufpool_take: a buffer of %zu bytes more would exceed the limit of %zu: give some back, or "
                          "raise it",
                          class->size_bytes, pool->limit_bytes);
    if (!b) return build_counted(pool, idx, out);
    *out = b;
    return ZBUF_OK;
}

int bufpool_give(struct bufpool *pool, struct buf *b) {
    if (!b) return ZBUF_OK;
    if (b->pool != pool) return zbuf_error(ZBUF_EINVAL, "bufpool_give: the buffer is of another pool");
    struct size_class *class = &pool->classes[b->size_idx];
    pthread_mutex_lock(&class->mutex);
    bool was_out = b->is_out;
    if (was_out) {
        buf_clear(b); /* B3 */
        b->is_out = false;
        b->next = class->free;
        class->free = b;
        class->nout--;
    }
    pthread_mutex_unlock(&class->mutex);
    return was_out ? ZBUF_OK : zbuf_error(ZBUF_EINVAL, "bufpool_give: the buffer was given back already");
}

/* -------------------------------------------------------------------------------------------------- trim and stats */

size_t bufpool_trim(struct bufpool *pool) {
    size_t bytes = 0;
    for (unsigned i = 0; i < BUF_NSIZES; i++) {
        struct size_class *class = &pool->classes[i];
        pthread_mutex_lock(&class->mutex);
        struct buf *b = class->free;
        class->free = NULL;
        for (struct buf *each = b; each; each = each->next) uncount_built(pool, class);
        pthread_mutex_unlock(&class->mutex);
        while (b) {
            struct buf *next = b->next;
            bytes += b->capacity;
            buf_delete(pool, b);
            b = next;
        }
    }
    return bytes;
}

void bufpool_stats_get(struct bufpool *pool, struct bufpool_stats *out) {
    *out = (struct bufpool_stats){.limit_bytes = pool->limit_bytes};
    for (unsigned i = 0; i < BUF_NSIZES; i++) {
        struct size_class *class = &pool->classes[i];
        pthread_mutex_lock(&class->mutex);
        out->nbuilt[i] = class->nbuilt;
        out->nout[i] = class->nout;
        pthread_mutex_unlock(&class->mutex);
        out->built_bytes += out->nbuilt[i] * class->size_bytes;
        out->out_bytes += out->nout[i] * class->size_bytes;
    }
    out->counted_bytes = atomic_load_explicit(&pool->counted, memory_order_relaxed);
}
