/*
 * zbuf_fixture.h: what the tests of examples/zbuf share: a pool over a heap of its own, and byte streams in which a
 * byte that is lost, doubled or moved shows.
 *
 * A pool is made with the limit and the preallocation that the test is about; each test ends with a pool that has all
 * of its buffers back and a heap that holds no manual byte.
 */
#ifndef TRI_TESTS_ZBUF_FIXTURE_H
#define TRI_TESTS_ZBUF_FIXTURE_H

#include "tests/fixture.h"

#include "examples/zbuf/zbuf.h"

enum { KIB = 1024, LARGEST = BUF_LARGEST_BYTES };

struct zfix {
    struct fixture f;
    struct bufpool *pool;
};

static inline struct zfix zfix_open_config(const struct bufpool_config *config) {
    struct zfix z = {.f = fixture_open()};
    int err = bufpool_create(z.f.heap, config, &z.pool);
    CHECK_MSG(err == ZBUF_OK, "bufpool_create: %d: %s", err, zbuf_last_error());
    return z;
}

/* Nothing preallocated. */
static inline struct zfix zfix_open_limit(size_t limit_bytes) {
    struct bufpool_config config = {.limit_bytes = limit_bytes};
    return zfix_open_config(&config);
}

static inline struct zfix zfix_open(void) {
    return zfix_open_limit((size_t)256 * MIB);
}

static inline void zfix_close(struct zfix *z) {
    int err = bufpool_destroy(z->pool);
    CHECK_MSG(err == ZBUF_OK, "bufpool_destroy: %d: %s", err, zbuf_last_error());
    CHECK_EQ(tri_manual_bytes(z->f.heap), 0);
    fixture_close(&z->f);
}

static inline struct bufpool_stats pool_stats(struct bufpool *pool) {
    struct bufpool_stats stats;
    bufpool_stats_get(pool, &stats);
    return stats;
}

static inline struct buf *take(struct zfix *z, size_t size_bytes) {
    struct buf *b = NULL;
    int err = bufpool_take(z->pool, size_bytes, &b);
    CHECK_MSG(err == ZBUF_OK, "bufpool_take(%zu): %d: %s", size_bytes, err, zbuf_last_error());
    return b;
}

/* The i-th byte of a stream in which no two places within reach of each other look alike. */
static inline char pattern(uint64_t i) {
    uint64_t x = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return (char)(x >> 56);
}

static inline char *pattern_new(uint64_t from, size_t n) {
    char *bytes = malloc(n + 1);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < n; i++) bytes[i] = pattern(from + i);
    return bytes;
}

/* Whether the queue holds exactly bytes [from, from + n) of the pattern. */
static inline bool holds_pattern(const struct zbuf *zb, uint64_t from, size_t n) {
    if (zbuf_length(zb) != n) return false;
    const char *data = zbuf_data(zb);
    for (size_t i = 0; i < n; i++) {
        if (data[i] != pattern(from + i)) return false;
    }
    return true;
}

static inline void append_pattern(struct zbuf *zb, uint64_t from, size_t n) {
    char *bytes = pattern_new(from, n);
    int err = zbuf_read(zb, bytes, n);
    CHECK_MSG(err == ZBUF_OK, "zbuf_read of %zu: %d: %s", n, err, zbuf_last_error());
    free(bytes);
}

/* An error must come with words that name what is asked for. */
static inline void check_words(const char *part) {
    CHECK_MSG(strstr(zbuf_last_error(), part) != NULL, "\"%s\" is not in \"%s\"", part, zbuf_last_error());
}

static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
