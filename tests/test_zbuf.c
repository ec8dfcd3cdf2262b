/* test_zbuf.c - the buffer pool of examples/zbuf: buffers, the pool with its counts and its limit, and the byte queue
 * over memory, files, pipes and sockets, with what goes wrong there. test_zbuf_echo.c is about the server.
 *
 * A pool is made with the limit and the preallocation that the test is about; each test ends with a pool that has all
 * of its buffers back and a heap that holds no manual byte. */
#include "tests/fixture.h"

#include "examples/zbuf/zbuf.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

enum { KIB = 1024, LARGEST = BUF_LARGEST_BYTES };

struct zfix {
    struct fixture f;
    struct bufpool *pool;
};

static struct zfix zfix_open_config(const struct bufpool_config *config) {
    struct zfix z = {.f = fixture_open()};
    int err = bufpool_create(z.f.heap, config, &z.pool);
    CHECK_MSG(err == ZBUF_OK, "bufpool_create: %d: %s", err, zbuf_last_error());
    return z;
}

/* Nothing preallocated. */
static struct zfix zfix_open_limit(size_t limit_bytes) {
    struct bufpool_config config = {.limit_bytes = limit_bytes};
    return zfix_open_config(&config);
}

static struct zfix zfix_open(void) {
    return zfix_open_limit((size_t)256 * MIB);
}

static void zfix_close(struct zfix *z) {
    int err = bufpool_destroy(z->pool);
    CHECK_MSG(err == ZBUF_OK, "bufpool_destroy: %d: %s", err, zbuf_last_error());
    CHECK_EQ(tri_manual_bytes(z->f.heap), 0);
    fixture_close(&z->f);
}

static struct bufpool_stats pool_stats(struct bufpool *pool) {
    struct bufpool_stats stats;
    bufpool_stats_get(pool, &stats);
    return stats;
}

static struct buf *take(struct zfix *z, size_t size_bytes) {
    struct buf *b = NULL;
    int err = bufpool_take(z->pool, size_bytes, &b);
    CHECK_MSG(err == ZBUF_OK, "bufpool_take(%zu): %d: %s", size_bytes, err, zbuf_last_error());
    return b;
}

/* The i-th byte of a stream in which no two places within reach of each other look alike. */
static char pattern(uint64_t i) {
    uint64_t x = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return (char)(x >> 56);
}

static char *pattern_new(uint64_t from, size_t n) {
    char *bytes = malloc(n + 1);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < n; i++) bytes[i] = pattern(from + i);
    return bytes;
}

/* Whether the queue holds exactly bytes [from, from + n) of the pattern. */
static bool holds_pattern(const struct zbuf *zb, uint64_t from, size_t n) {
    if (zbuf_length(zb) != n) return false;
    const char *data = zbuf_data(zb);
    for (size_t i = 0; i < n; i++) {
        if (data[i] != pattern(from + i)) return false;
    }
    return true;
}

static void append_pattern(struct zbuf *zb, uint64_t from, size_t n) {
    char *bytes = pattern_new(from, n);
    int err = zbuf_read(zb, bytes, n);
    CHECK_MSG(err == ZBUF_OK, "zbuf_read of %zu: %d: %s", n, err, zbuf_last_error());
    free(bytes);
}

/* An error must come with words that name what is asked for. */
static void check_words(const char *part) {
    CHECK_MSG(strstr(zbuf_last_error(), part) != NULL, "\"%s\" is not in \"%s\"", part, zbuf_last_error());
}

static FILE *temporary_file(void) {
    FILE *file = tmpfile();
    CHECK_MSG(file != NULL, "tmpfile: %s", strerror(errno));
    return file;
}

/* ------------------------------------------------------------------------------------------------------------ buf */

TEST(buf, set_then_get_then_pop_4_leaves_d12345) {
    struct zfix z = zfix_open();
    struct buf *b = take(&z, 10);
    CHECK_EQ(buf_set_bytes(b, "Aceld12345", 10), ZBUF_OK);
    CHECK_EQ(b->length, 10);
    CHECK(memcmp(buf_bytes(b), "Aceld12345", 10) == 0);
    CHECK_EQ(buf_pop(b, 4), ZBUF_OK);
    CHECK_EQ(b->length, 6);
    CHECK(memcmp(buf_bytes(b), "d12345", 6) == 0);
    CHECK_EQ(bufpool_give(z.pool, b), ZBUF_OK);
    zfix_close(&z);
}

TEST(buf, a_copy_has_the_bytes_and_lives_on_its_own) {
    struct zfix z = zfix_open();
    struct buf *from = take(&z, 10), *to = take(&z, 10);
    CHECK_EQ(buf_set_bytes(from, "Aceld12345", 10), ZBUF_OK);
    CHECK_EQ(buf_set_bytes(to, "what was there before", 21), ZBUF_OK);
    CHECK_EQ(buf_pop(to, 3), ZBUF_OK);
    CHECK_EQ(buf_copy(to, from), ZBUF_OK);
    memset(from->data, 'x', from->capacity);
    CHECK_EQ(to->head, 0);
    CHECK_EQ(to->length, 10);
    CHECK(memcmp(buf_bytes(to), "Aceld12345", 10) == 0);
    CHECK_EQ(buf_copy(to, to), ZBUF_OK);
    CHECK(memcmp(buf_bytes(to), "Aceld12345", 10) == 0);
    bufpool_give(z.pool, from);
    bufpool_give(z.pool, to);
    zfix_close(&z);
}

TEST(buf, adjust_moves_head_from_4_to_0_and_keeps_the_data) {
    struct zfix z = zfix_open();
    struct buf *b = take(&z, 10);
    CHECK_EQ(buf_set_bytes(b, "Aceld12345", 10), ZBUF_OK);
    CHECK_EQ(buf_pop(b, 4), ZBUF_OK);
    CHECK_EQ(b->head, 4);
    CHECK_EQ(b->length, 6);
    buf_adjust(b);
    CHECK_EQ(b->head, 0);
    CHECK_EQ(b->length, 6);
    CHECK(memcmp(b->data, "d12345", 6) == 0);
    CHECK_EQ(buf_pop(b, 6), ZBUF_OK);
    buf_adjust(b);
    CHECK_EQ(b->head, 0);
    bufpool_give(z.pool, b);
    zfix_close(&z);
}

TEST(buf, what_does_not_fit_is_refused_and_changes_nothing) {
    struct zfix z = zfix_open();
    struct buf *small = take(&z, 1), *large = take(&z, 16 * KIB);
    char *bytes = pattern_new(0, 8 * KIB);
    CHECK_EQ(buf_set_bytes(small, bytes, 4 * KIB - 1), ZBUF_OK);
    CHECK_EQ(buf_set_bytes(small, bytes, 2), ZBUF_ETOOLARGE);
    check_words("room for 1");
    CHECK_EQ(small->length, 4 * KIB - 1);
    CHECK_EQ(buf_set_bytes(large, bytes, 8 * KIB), ZBUF_OK);
    CHECK_EQ(buf_copy(small, large), ZBUF_ETOOLARGE);
    CHECK_EQ(small->length, 4 * KIB - 1);
    CHECK(memcmp(buf_bytes(small), bytes, small->length) == 0);
    CHECK_EQ(buf_pop(small, 4 * KIB), ZBUF_EINVAL);
    CHECK_EQ(small->length, 4 * KIB - 1);
    buf_clear(small);
    CHECK_EQ(buf_set_bytes(small, bytes, 4 * KIB), ZBUF_OK);
    free(bytes);
    bufpool_give(z.pool, small);
    bufpool_give(z.pool, large);
    zfix_close(&z);
}

/* -------------------------------------------------------------------------------------------------------- bufpool */

TEST(bufpool, takes_the_nearest_size_up) {
    static const struct {
        size_t asked, capacity;
    } cases[] = {{0, 4 * KIB},
                 {1, 4 * KIB},
                 {4 * KIB, 4 * KIB},
                 {4 * KIB + 1, 16 * KIB},
                 {16 * KIB + 1, 64 * KIB},
                 {64 * KIB + 1, 256 * KIB},
                 {256 * KIB + 1, MIB},
                 {MIB + 1, 4 * MIB},
                 {4 * MIB + 1, 8 * MIB},
                 {LARGEST, 8 * MIB}};
    struct zfix z = zfix_open();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf *b = take(&z, cases[i].asked);
        CHECK_EQ(b->capacity, cases[i].capacity);
        CHECK_EQ(b->length, 0);
        CHECK(tri_manual_usable_size(z.f.heap, b->data) >= b->capacity);
        memset(b->data, 'x', b->capacity);
        CHECK_EQ(bufpool_give(z.pool, b), ZBUF_OK);
    }
    struct buf *b = NULL;
    CHECK_EQ(bufpool_take(z.pool, (size_t)LARGEST + 1, &b), ZBUF_ETOOLARGE);
    check_words("8388609");
    CHECK_EQ(bufpool_take(z.pool, SIZE_MAX, &b), ZBUF_ETOOLARGE);
    CHECK(b == NULL);
    zfix_close(&z);
}

TEST(bufpool, counts_what_is_preallocated_before_it_is_built) {
    static const size_t sum = (size_t)5000 * 4 * KIB + (size_t)1000 * 16 * KIB + (size_t)500 * 64 * KIB +
                              (size_t)200 * 256 * KIB + (size_t)50 * MIB + (size_t)20 * 4 * MIB + (size_t)10 * 8 * MIB;
    struct zfix z = zfix_open_config(NULL);
    struct bufpool_stats stats = pool_stats(z.pool);
    CHECK_EQ(stats.limit_bytes, (size_t)5 << 30);
    CHECK_EQ(stats.counted_bytes, sum);
    CHECK_EQ(stats.built_bytes, 0);
    struct buf *b = take(&z, 1);
    stats = pool_stats(z.pool);
    CHECK_EQ(stats.counted_bytes, sum);
    CHECK_EQ(stats.built_bytes, 4 * KIB);
    CHECK_EQ(stats.out_bytes, 4 * KIB);
    bufpool_give(z.pool, b);
    zfix_close(&z);
}

TEST(bufpool, an_eager_one_is_built_at_once) {
    struct bufpool_config config = {.limit_bytes = 32 * MIB, .npreallocated = {100, 20, 5, 2, 1, 1, 1}, .eager = true};
    struct zfix z = zfix_open_config(&config);
    struct bufpool_stats stats = pool_stats(z.pool);
    for (int i = 0; i < BUF_NSIZES; i++) CHECK_EQ(stats.nbuilt[i], config.npreallocated[i]);
    CHECK_EQ(stats.built_bytes, stats.counted_bytes);
    CHECK_EQ(stats.out_bytes, 0);
    size_t before = tri_manual_bytes(z.f.heap);
    struct buf *b = take(&z, LARGEST);
    CHECK_EQ(tri_manual_bytes(z.f.heap), before);
    bufpool_give(z.pool, b);
    zfix_close(&z);
}

TEST(bufpool, more_preallocated_than_the_limit_is_refused) {
    struct fixture f = fixture_open();
    struct bufpool_config config = {.limit_bytes = 8 * MIB - 1, .npreallocated = {[6] = 1}};
    struct bufpool *pool = NULL;
    CHECK_EQ(bufpool_create(f.heap, &config, &pool), ZBUF_EINVAL);
    check_words("8388608 bytes preallocated under a limit of 8388607");
    CHECK_EQ(bufpool_create(NULL, &config, &pool), ZBUF_EINVAL);
    CHECK(pool == NULL);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    fixture_close(&f);
}

TEST(bufpool, a_buffer_that_came_back_is_used_again) {
    struct zfix z = zfix_open();
    struct buf *first = take(&z, 100), *second = take(&z, 100);
    CHECK(first != second);
    buf_set_bytes(second, "rest", 4);
    buf_pop(second, 1);
    bufpool_give(z.pool, first);
    bufpool_give(z.pool, second);
    size_t before = tri_manual_bytes(z.f.heap);
    struct buf *again = take(&z, 200);
    CHECK(again == second); /* last in, first out */
    CHECK_EQ(again->length, 0);
    CHECK_EQ(again->head, 0);
    CHECK_EQ(tri_manual_bytes(z.f.heap), before);
    CHECK_EQ(pool_stats(z.pool).nbuilt[0], 2);
    bufpool_give(z.pool, again);
    zfix_close(&z);
}

TEST(bufpool, the_limit_holds_and_what_is_given_back_can_be_had_again) {
    struct bufpool_config config = {.limit_bytes = 100 * KIB, .npreallocated = {3}}; /* 12 KiB of it */
    struct zfix z = zfix_open_config(&config);
    struct buf *large = take(&z, 64 * KIB), *medium = take(&z, 16 * KIB), *small[5];
    CHECK_EQ(pool_stats(z.pool).counted_bytes, 92 * KIB);
    for (int i = 0; i < 5; i++) small[i] = take(&z, 1); /* the three preallocated and the 8 KiB that are left */
    CHECK_EQ(pool_stats(z.pool).counted_bytes, 100 * KIB);
    struct buf *b = NULL;
    CHECK_EQ(bufpool_take(z.pool, 1, &b), ZBUF_ELIMIT);
    check_words("4096 bytes more would exceed the limit of 102400");
    CHECK_EQ(bufpool_take(z.pool, LARGEST, &b), ZBUF_ELIMIT);
    CHECK_EQ(pool_stats(z.pool).nout[0], 5);
    bufpool_give(z.pool, small[4]);
    small[4] = take(&z, 1);
    bufpool_give(z.pool, large); /* another size's: it helps nobody until it is trimmed */
    CHECK_EQ(bufpool_take(z.pool, 1, &b), ZBUF_ELIMIT);
    CHECK_EQ(bufpool_trim(z.pool), 64 * KIB);
    CHECK_EQ(pool_stats(z.pool).counted_bytes, 36 * KIB);
    large = take(&z, 64 * KIB);
    bufpool_give(z.pool, large);
    bufpool_give(z.pool, medium);
    for (int i = 0; i < 5; i++) bufpool_give(z.pool, small[i]);
    CHECK_EQ(bufpool_trim(z.pool), 100 * KIB);
    CHECK_EQ(pool_stats(z.pool).counted_bytes, 12 * KIB);
    CHECK_EQ(pool_stats(z.pool).built_bytes, 0);
    zfix_close(&z);
}

/* The limit that the pool has by default, reached with memory that nobody writes to. */
TEST(bufpool, the_default_limit_is_five_gibibytes) {
    if (TEST_IS_SLOW) return;
    tri_config heap_config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    heap_config.reserve_bytes = (size_t)16 << 30;
    struct zfix z = {.f = fixture_open_config(&heap_config)};
    CHECK_EQ(bufpool_create(z.f.heap, NULL, &z.pool), ZBUF_OK);
    struct buf *taken = NULL, *b;
    size_t ntaken = 0;
    int err;
    while ((err = bufpool_take(z.pool, LARGEST, &b)) == ZBUF_OK) {
        b->next = taken;
        taken = b;
        ntaken++;
    }
    CHECK_EQ(err, ZBUF_ELIMIT);
    struct bufpool_stats stats = pool_stats(z.pool);
    CHECK(stats.counted_bytes <= (size_t)5 << 30);
    CHECK(stats.counted_bytes > ((size_t)5 << 30) - LARGEST);
    CHECK(ntaken > 500);
    while ((b = taken) != NULL) {
        taken = b->next;
        bufpool_give(z.pool, b);
    }
    zfix_close(&z);
}

TEST(bufpool, memory_that_cannot_be_had_is_an_error_and_leaves_the_counts_right) {
    tri_config heap_config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    heap_config.hard_limit_bytes = 64 * MIB;
    heap_config.reserve_bytes = 256 * MIB;
    struct zfix z = {.f = fixture_open_config(&heap_config)};
    struct bufpool_config config = {.limit_bytes = (size_t)1 << 30, .npreallocated = {[6] = 4}};
    CHECK_EQ(bufpool_create(z.f.heap, &config, &z.pool), ZBUF_OK);
    struct buf *taken[16], *b = NULL;
    int n = 0;
    while (n < 16 && bufpool_take(z.pool, LARGEST, &taken[n]) == ZBUF_OK) n++;
    CHECK_MSG(n >= 4 && n <= 8, "%d buffers of 8 MiB in 64 MiB", n);
    CHECK_EQ(bufpool_take(z.pool, LARGEST, &b), ZBUF_ENOMEM);
    check_words("no memory for a buffer of 8388608 bytes");
    CHECK_EQ(pool_stats(z.pool).nout[6], n);
    CHECK_EQ(pool_stats(z.pool).nbuilt[6], n);
    CHECK_EQ(pool_stats(z.pool).counted_bytes, (size_t)n * LARGEST);
    while (n > 0) bufpool_give(z.pool, taken[--n]);
    fixture_take_reports();
    zfix_close(&z);
}

TEST(bufpool, misuse_is_refused) {
    struct zfix z = zfix_open(), other = zfix_open();
    struct buf *b = take(&z, 1);
    CHECK_EQ(bufpool_destroy(z.pool), ZBUF_EBUSY);
    check_words("4096 bytes are out");
    CHECK_EQ(bufpool_give(other.pool, b), ZBUF_EINVAL);
    check_words("another pool");
    CHECK_EQ(bufpool_give(z.pool, b), ZBUF_OK);
    CHECK_EQ(bufpool_give(z.pool, b), ZBUF_EINVAL);
    check_words("already");
    CHECK_EQ(bufpool_give(z.pool, NULL), ZBUF_OK);
    CHECK_EQ(bufpool_destroy(NULL), ZBUF_OK);
    CHECK_STR_EQ(zbuf_strerror(ZBUF_ELIMIT), "the pool is at its limit");
    CHECK_STR_EQ(zbuf_strerror(12345), "not an error of zbuf");
    zfix_close(&other);
    zfix_close(&z);
}

/* ----------------------------------------------------------------------------------------------------- many threads */

enum { SHARED_THREADS = 6 };

struct sharer {
    struct bufpool *pool;
    struct buf **exchange; /* one slot a thread; a buffer travels through it to whoever finds it */
    uint64_t seed;
    uint64_t nlimit, nwrong;
};

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Takes buffers, signs their bytes, and leaves them for another thread, which checks the bytes and gives them back. */
static void *share(void *arg) {
    struct sharer *s = arg;
    uint64_t nrounds = TEST_IS_SLOW ? 5000 : 60000;
    for (uint64_t i = 0; i < nrounds; i++) {
        struct buf *b = NULL;
        uint64_t r = next_random(&s->seed);
        if (r % 64 == 0) bufpool_trim(s->pool);
        int err = bufpool_take(s->pool, r % 8 == 0 ? r % (64 * KIB) : r % (4 * KIB), &b);
        if (err == ZBUF_ELIMIT) s->nlimit++;
        if (b) {
            s->nwrong += b->length != 0;
            uint64_t sign[2] = {r, ~r};
            buf_set_bytes(b, sign, sizeof sign);
        }
        struct buf *found = atomic_swap_acqrel(&s->exchange[r / 64 % SHARED_THREADS], b);
        if (!found) continue;
        uint64_t sign[2];
        memcpy(sign, buf_bytes(found), sizeof sign);
        s->nwrong += sign[0] != ~sign[1] || found->length != sizeof sign;
        s->nwrong += bufpool_give(s->pool, found) != ZBUF_OK;
    }
    return NULL;
}

TEST(bufpool, many_threads_take_and_give_and_the_count_is_right_at_the_end) {
    struct bufpool_config config = {.limit_bytes = 120 * KIB, .npreallocated = {4, 1}};
    struct zfix z = zfix_open_config(&config);
    struct buf *exchange[SHARED_THREADS] = {0};
    struct sharer sharers[SHARED_THREADS];
    pthread_t threads[SHARED_THREADS];
    for (unsigned i = 0; i < SHARED_THREADS; i++) {
        sharers[i] = (struct sharer){.pool = z.pool, .exchange = exchange, .seed = 77 + i * 1000003};
        CHECK_EQ(pthread_create(&threads[i], NULL, share, &sharers[i]), 0);
    }
    uint64_t nlimit = 0;
    for (unsigned i = 0; i < SHARED_THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_EQ(sharers[i].nwrong, 0);
        nlimit += sharers[i].nlimit;
    }
    CHECK_MSG(nlimit > 0, "the limit was never met: the test is not about it any more");
    for (unsigned i = 0; i < SHARED_THREADS; i++) CHECK_EQ(bufpool_give(z.pool, exchange[i]), ZBUF_OK);
    bufpool_trim(z.pool);
    struct bufpool_stats stats = pool_stats(z.pool);
    CHECK_EQ(stats.counted_bytes, 32 * KIB);
    CHECK_EQ(stats.built_bytes, 0);
    zfix_close(&z);
}

/* ------------------------------------------------------------------------------------------------- the byte queue */

TEST(zbuf, read_then_pop_then_clear) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    CHECK_EQ(zbuf_length(&zb), 0);
    CHECK(zbuf_data(&zb) == NULL);
    CHECK_EQ(zbuf_read(&zb, NULL, 0), ZBUF_OK);
    CHECK_EQ(zbuf_read(&zb, "Aceld", 5), ZBUF_OK);
    CHECK_EQ(zbuf_read(&zb, "12345", 5), ZBUF_OK);
    CHECK_EQ(zbuf_pop(&zb, 4), ZBUF_OK);
    CHECK_EQ(zbuf_length(&zb), 6);
    CHECK(memcmp(zbuf_data(&zb), "d12345", 6) == 0);
    CHECK_EQ(zbuf_pop(&zb, 7), ZBUF_EINVAL);
    check_words("7 bytes of 6");
    CHECK_EQ(zbuf_length(&zb), 6);
    zbuf_adjust(&zb);
    CHECK_EQ(zb.b->head, 0);
    CHECK(memcmp(zbuf_data(&zb), "d12345", 6) == 0);
    zbuf_clear(&zb);
    CHECK_EQ(zbuf_length(&zb), 0);
    CHECK_EQ(zbuf_pop(&zb, 1), ZBUF_EINVAL);
    zbuf_clear(&zb);
    zbuf_adjust(&zb);
    zfix_close(&z);
}

TEST(zbuf, an_empty_one_has_no_block) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    CHECK_EQ(pool_stats(z.pool).built_bytes, 0);
    append_pattern(&zb, 0, 5000);
    CHECK_EQ(pool_stats(z.pool).out_bytes, 16 * KIB);
    CHECK_EQ(zbuf_pop(&zb, 4999), ZBUF_OK);
    CHECK_EQ(pool_stats(z.pool).out_bytes, 16 * KIB);
    CHECK_EQ(zbuf_pop(&zb, 1), ZBUF_OK);
    CHECK_EQ(pool_stats(z.pool).out_bytes, 0);
    zfix_close(&z);
}

TEST(zbuf, grows_through_the_sizes_and_keeps_its_bytes) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    size_t end = 0, popped = 0;
    for (size_t n = 1; end + n - popped <= (size_t)5 * MIB; n = n * 3 / 2 + 1) {
        append_pattern(&zb, end, n);
        end += n;
        size_t drop = n / 5;
        CHECK_EQ(zbuf_pop(&zb, drop), ZBUF_OK);
        popped += drop;
        CHECK(holds_pattern(&zb, popped, end - popped));
        CHECK_EQ(pool_stats(z.pool).out_bytes, zb.b->capacity); /* the smaller block went back */
    }
    CHECK(zb.b->capacity >= 4 * MIB);
    zbuf_clear(&zb);
    zfix_close(&z);
}

TEST(zbuf, uses_the_space_of_what_was_popped_before_it_grows) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    append_pattern(&zb, 0, 4000);
    const struct buf *block = zb.b;
    CHECK_EQ(zbuf_pop(&zb, 3000), ZBUF_OK);
    append_pattern(&zb, 4000, 3096);
    CHECK(zb.b == block);
    CHECK_EQ(zb.b->head, 0);
    CHECK(holds_pattern(&zb, 3000, 4096));
    append_pattern(&zb, 7096, 1);
    CHECK(zb.b != block);
    CHECK(holds_pattern(&zb, 3000, 4097));
    zbuf_clear(&zb);
    zfix_close(&z);
}

TEST(zbuf, too_much_and_the_limit_leave_the_contents) {
    struct zfix z = zfix_open_limit(84 * KIB);
    struct zbuf zb, other;
    zbuf_init(&zb, z.pool);
    zbuf_init(&other, z.pool);
    append_pattern(&zb, 0, 100);
    CHECK_EQ(zbuf_read(&zb, "x", SIZE_MAX), ZBUF_ETOOLARGE);
    CHECK_EQ(zbuf_read(&zb, "x", LARGEST - 99), ZBUF_ETOOLARGE);
    check_words("pop first");
    CHECK(holds_pattern(&zb, 0, 100));
    append_pattern(&other, 0, 60 * KIB);
    char *bytes = pattern_new(100, 16 * KIB);
    CHECK_EQ(zbuf_read(&zb, bytes, 16 * KIB), ZBUF_ELIMIT); /* would need 64 KiB */
    CHECK(holds_pattern(&zb, 0, 100));
    CHECK_EQ(zbuf_read(&zb, bytes, 16 * KIB - 100), ZBUF_OK); /* fits 16 KiB, which are left */
    CHECK(holds_pattern(&zb, 0, 16 * KIB));
    free(bytes);
    zbuf_clear(&other);
    CHECK_EQ(zbuf_read(&other, "x", LARGEST), ZBUF_ELIMIT);
    CHECK(other.b == NULL);
    zbuf_clear(&zb);
    zfix_close(&z);
}

/* ---------------------------------------------------------------------------------------------------------- files */

TEST(zbuf_file, what_is_written_is_read_again) {
    static const size_t sizes[] = {1, 4095, 4096, 4097, 70000, LARGEST};
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        FILE *file = temporary_file();
        append_pattern(&zb, 7, sizes[i]);
        CHECK_EQ(zbuf_write_to_file(&zb, file), sizes[i]);
        CHECK(zb.b == NULL);
        CHECK_EQ(ftello(file), sizes[i]);
        rewind(file);
        CHECK_EQ(zbuf_read_from_file(&zb, file), sizes[i]);
        CHECK(holds_pattern(&zb, 7, sizes[i]));
        if (sizes[i] == 4096) CHECK_EQ(zb.b->capacity, 4096); /* no larger one just to see the end */
        zbuf_clear(&zb);
        CHECK_EQ(zbuf_read_from_file(&zb, file), 0);
        CHECK(zb.b == NULL);
        fclose(file);
    }
    zfix_close(&z);
}

/* The stream's own calls before and after, so that its buffer and its position are right on both sides. */
TEST(zbuf_file, goes_together_with_stdio) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    FILE *file = temporary_file();
    CHECK(fputs("head ", file) >= 0);
    CHECK_EQ(zbuf_read(&zb, "middle ", 7), ZBUF_OK);
    CHECK_EQ(zbuf_write_to_file(&zb, file), 7);
    CHECK(fputs("tail", file) >= 0);
    CHECK_EQ(zbuf_write_to_file(&zb, file), 0);
    CHECK_EQ(ftello(file), 16);
    rewind(file);
    CHECK_EQ(fgetc(file), 'h');
    CHECK_EQ(zbuf_read_from_file(&zb, file), 15);
    CHECK(memcmp(zbuf_data(&zb), "ead middle tail", 15) == 0);
    CHECK_EQ(fgetc(file), EOF);
    rewind(file);
    CHECK_EQ(fgetc(file), 'h');
    CHECK_EQ(zbuf_write_to_file(&zb, file), 15); /* over what follows the one that was read */
    rewind(file);
    CHECK_EQ(zbuf_read_from_file(&zb, file), 16);
    CHECK(memcmp(zbuf_data(&zb), "head middle tail", 16) == 0);
    zbuf_clear(&zb);
    fclose(file);
    zfix_close(&z);
}

TEST(zbuf_file, one_larger_than_a_buffer_comes_in_parts) {
    enum { TOTAL = 2 * LARGEST + 12345 };
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    char *bytes = pattern_new(0, TOTAL);
    FILE *file = temporary_file();
    CHECK_EQ(fwrite(bytes, 1, TOTAL, file), TOTAL);
    free(bytes);
    for (int by_fd = 0; by_fd < 2; by_fd++) {
        rewind(file);
        ssize_t n;
        size_t total = 0;
        while ((n = by_fd ? zbuf_read_from_fd(&zb, fileno(file)) : zbuf_read_from_file(&zb, file)) > 0) {
            CHECK(holds_pattern(&zb, total, (size_t)n));
            CHECK_EQ(n, total + LARGEST <= TOTAL ? LARGEST : TOTAL - total);
            total += (size_t)n;
            if (n == LARGEST) { /* full: nothing more until some is popped */
                CHECK_EQ(zbuf_read_from_fd(&zb, fileno(file)), ZBUF_ETOOLARGE);
                CHECK_EQ(zbuf_read_from_file(&zb, file), ZBUF_ETOOLARGE);
            }
            CHECK_EQ(zbuf_pop(&zb, (size_t)n), ZBUF_OK);
        }
        CHECK_EQ(n, 0);
        CHECK_EQ(total, TOTAL);
    }
    fclose(file);
    zfix_close(&z);
}

TEST(zbuf_file, a_full_device_and_a_directory_are_errors) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    append_pattern(&zb, 0, 5000);
    FILE *full = fopen("/dev/full", "w");
    CHECK(full != NULL);
    CHECK_EQ(zbuf_write_to_file(&zb, full), ZBUF_ESYSTEM);
    check_words("No space left on device");
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(zbuf_write_to_fd(&zb, fileno(full)), ZBUF_ESYSTEM);
    CHECK(holds_pattern(&zb, 0, 5000));
    fclose(full);
    FILE *folder = fopen("/", "r");
    CHECK(folder != NULL);
    CHECK_EQ(zbuf_read_from_file(&zb, folder), ZBUF_ESYSTEM);
    check_words("Is a directory");
    CHECK(holds_pattern(&zb, 0, 5000));
    zbuf_clear(&zb);
    CHECK_EQ(zbuf_read_from_fd(&zb, fileno(folder)), ZBUF_ESYSTEM);
    CHECK_EQ(errno, EISDIR);
    CHECK(zb.b == NULL);
    fclose(folder);
    zfix_close(&z);
}

/* A file that may not grow takes a part, which is popped; the next call meets the error. */
TEST(zbuf_file, progress_before_an_error_is_told) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    FILE *file = temporary_file();
    signal(SIGXFSZ, SIG_IGN);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){3000, RLIM_INFINITY}), 0);
    append_pattern(&zb, 0, 10000);
    CHECK_EQ(zbuf_write_to_file(&zb, file), 3000);
    CHECK(holds_pattern(&zb, 3000, 7000));
    CHECK_EQ(zbuf_write_to_file(&zb, file), ZBUF_ESYSTEM);
    CHECK_EQ(errno, EFBIG);
    CHECK(holds_pattern(&zb, 3000, 7000));
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}), 0);
    CHECK_EQ(zbuf_write_to_fd(&zb, fileno(file)), 7000);
    rewind(file);
    CHECK_EQ(zbuf_read_from_file(&zb, file), 10000);
    CHECK(holds_pattern(&zb, 0, 10000));
    zbuf_clear(&zb);
    fclose(file);
    zfix_close(&z);
}

/* ---------------------------------------------------------------------------------------------- descriptors, pipes */

static void set_nonblocking(int fd) {
    CHECK_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

TEST(zbuf_fd, a_read_takes_all_that_waits_and_0_is_the_end) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    char *bytes = pattern_new(0, 50000);
    CHECK_EQ(write(fds[1], bytes, 50000), 50000);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), 50000);
    CHECK(holds_pattern(&zb, 0, 50000));
    CHECK_EQ(zb.b->capacity, 64 * KIB);
    CHECK_EQ(write(fds[1], bytes, 1), 1);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), 1);
    CHECK_EQ(zbuf_length(&zb), 50001);
    close(fds[1]);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), 0);
    CHECK_EQ(zbuf_length(&zb), 50001);
    zbuf_clear(&zb);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), 0);
    CHECK(zb.b == NULL);
    close(fds[0]);
    free(bytes);
    zfix_close(&z);
}

TEST(zbuf_fd, one_that_does_not_block_says_so_and_takes_what_it_can) {
    struct zfix z = zfix_open();
    struct zbuf out, in;
    zbuf_init(&out, z.pool);
    zbuf_init(&in, z.pool);
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    set_nonblocking(fds[0]);
    set_nonblocking(fds[1]);
    CHECK_EQ(zbuf_read_from_fd(&in, fds[0]), ZBUF_EAGAIN);
    check_words("nothing to do now");
    CHECK(in.b == NULL);
    append_pattern(&out, 0, MIB);
    size_t got = 0;
    while (got < MIB) {
        ssize_t n = zbuf_write_to_fd(&out, fds[1]);
        CHECK(n > 0 || zbuf_length(&out) == 0);
        if (zbuf_length(&out) > 0) CHECK_EQ(zbuf_write_to_fd(&out, fds[1]), ZBUF_EAGAIN);
        CHECK_EQ(zbuf_length(&out), (size_t)MIB - got - (size_t)n);
        CHECK_EQ(zbuf_read_from_fd(&in, fds[0]), n);
        CHECK(holds_pattern(&in, got, (size_t)n));
        got += (size_t)n;
        zbuf_clear(&in);
    }
    CHECK_EQ(zbuf_write_to_fd(&out, fds[1]), 0);
    close(fds[0]);
    close(fds[1]);
    zfix_close(&z);
}

TEST(zbuf_fd, errors_of_the_system_come_with_its_words) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    CHECK_EQ(zbuf_read_from_fd(&zb, -1), ZBUF_ESYSTEM);
    check_words("Bad file descriptor");
    CHECK_EQ(errno, EBADF);
    CHECK_EQ(zbuf_read(&zb, "kept", 4), ZBUF_OK);
    CHECK_EQ(zbuf_write_to_fd(&zb, -1), ZBUF_ESYSTEM);
    check_words("zbuf_write_to_fd: descriptor -1");
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    close(fds[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK_EQ(zbuf_write_to_fd(&zb, fds[1]), ZBUF_ESYSTEM);
    CHECK_EQ(errno, EPIPE);
    CHECK_EQ(zbuf_length(&zb), 4);
    close(fds[1]);
    zbuf_clear(&zb);
    zfix_close(&z);
}

/* At the limit a queue that holds something reads on with the room that it has. */
TEST(zbuf_fd, at_the_limit_the_room_that_is_there_serves) {
    struct zfix z = zfix_open_limit(4 * KIB);
    struct zbuf zb, other;
    zbuf_init(&zb, z.pool);
    zbuf_init(&other, z.pool);
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    char *bytes = pattern_new(0, 20000);
    CHECK_EQ(write(fds[1], bytes, 20000), 20000);
    free(bytes);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), ZBUF_ELIMIT);
    CHECK_EQ(zbuf_read(&zb, "x", 1), ZBUF_OK);
    size_t got = 0;
    while (got < 20000) {
        ssize_t n = zbuf_read_from_fd(&zb, fds[0]);
        CHECK_MSG(n > 0, "%zd: %s", n, zbuf_last_error());
        CHECK_EQ(zbuf_read_from_fd(&other, fds[0]), ZBUF_ELIMIT); /* one without a block has no room at all */
        CHECK_EQ(zbuf_pop(&zb, zbuf_length(&zb) - (size_t)n), ZBUF_OK);
        CHECK(holds_pattern(&zb, got, (size_t)n));
        got += (size_t)n;
        if (got < 20000 && zbuf_length(&zb) == 4 * KIB) CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), ZBUF_ELIMIT);
        CHECK_EQ(zbuf_pop(&zb, (size_t)n - 1), ZBUF_OK);
    }
    zbuf_clear(&zb);
    close(fds[0]);
    close(fds[1]);
    zfix_close(&z);
}

/* -------------------------------------------------------------------------------------------------------- signals */

static volatile sig_atomic_t nsignals;

static void on_signal(int number) {
    (void)number;
    nsignals = nsignals + 1;
}

/* Signals that interrupt system calls, every millisecond, to the thread that has not blocked them. */
static void interrupt_often(bool on) {
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    suseconds_t us = on ? 1000 : 0;
    setitimer(ITIMER_REAL, &(struct itimerval){{0, us}, {0, us}}, NULL);
}

struct feeder {
    int fd;
    uint64_t from;
    size_t n;
};

/* Writes a pattern with pauses, then closes. No signals here. */
static void *feed(void *arg) {
    struct feeder *feeder = arg;
    char *bytes = pattern_new(feeder->from, feeder->n);
    for (size_t done = 0; done < feeder->n;) {
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
        size_t part = feeder->n - done < 3000 ? feeder->n - done : 3000;
        ssize_t n = write(feeder->fd, bytes + done, part);
        CHECK(n > 0);
        done += (size_t)n;
    }
    close(feeder->fd);
    free(bytes);
    return NULL;
}

/* Reads everything slowly. */
static void *drain(void *arg) {
    struct feeder *drainer = arg;
    char bytes[1000];
    ssize_t n;
    uint64_t wrong = 0;
    while ((n = read(drainer->fd, bytes, sizeof bytes)) > 0) {
        for (ssize_t i = 0; i < n; i++) wrong += bytes[i] != pattern(drainer->from + drainer->n + (uint64_t)i);
        drainer->n += (size_t)n;
        if (drainer->n % 8000 == 0) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    CHECK_EQ(wrong, 0);
    return NULL;
}

static pthread_t start_without_signals(void *(*fn)(void *), void *arg) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, fn, arg), 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return thread;
}

static ssize_t read_in_kind(struct zbuf *zb, int kind, int fd, FILE *file) {
    if (kind == 0) return zbuf_read_from_fd(zb, fd);
    return kind == 1 ? zbuf_read_from_file(zb, file) : zbuf_read_from_conn(zb, fd, 20000);
}

static ssize_t write_in_kind(struct zbuf *zb, int kind, int fd, FILE *file) {
    if (kind == 0) return zbuf_write_to_fd(zb, fd);
    return kind == 1 ? zbuf_write_to_file(zb, file) : zbuf_write_to_conn(zb, fd, 20000);
}

TEST(zbuf_fd, signals_do_not_disturb) {
    enum { TOTAL = 100000 };
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    for (int kind = 0; kind < 3; kind++) {
        int in[2], out[2];
        CHECK_EQ(kind == 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, in) : pipe(in), 0);
        CHECK_EQ(kind == 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, out) : pipe(out), 0);
        struct feeder feeder = {in[1], 0, TOTAL}, drainer = {out[0], 0, 0};
        FILE *source = fdopen(in[0], "r"), *sink = fdopen(out[1], "w");
        CHECK(source && sink);
        pthread_t feeding = start_without_signals(feed, &feeder);
        nsignals = 0;
        interrupt_often(true);
        size_t got = 0;
        while (got < TOTAL) {
            ssize_t n = read_in_kind(&zb, kind, in[0], source);
            CHECK_MSG(n > 0, "kind %d: %zd: %s", kind, n, zbuf_last_error());
            got += (size_t)n;
        }
        CHECK(holds_pattern(&zb, 0, TOTAL));
        pthread_t draining = start_without_signals(drain, &drainer);
        append_pattern(&zb, TOTAL, TOTAL);
        CHECK_EQ(write_in_kind(&zb, kind, out[1], sink), 2 * TOTAL);
        interrupt_often(false);
        CHECK_MSG(nsignals > 5, "%d signals: the test is not about them any more", (int)nsignals);
        fclose(sink);
        fclose(source);
        pthread_join(feeding, NULL);
        pthread_join(draining, NULL);
        CHECK_EQ(drainer.n, 2 * TOTAL);
        close(out[0]);
    }
    zfix_close(&z);
}

/* ---------------------------------------------------------------------------------------------------- connections */

static uint64_t elapsed_ms(const struct timespec *since) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)((now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000);
}

TEST(zbuf_conn, waits_as_long_as_it_is_told) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    int fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0); /* blocking ones: the limit holds all the same */
    CHECK_EQ(zbuf_read_from_conn(&zb, fds[0], 0), ZBUF_EAGAIN);
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK_EQ(zbuf_read_from_conn(&zb, fds[0], 60), ZBUF_ETIMEDOUT);
    CHECK(elapsed_ms(&start) >= 59);
    check_words("within 60 ms");
    CHECK_EQ(pool_stats(z.pool).out_bytes, 0);
    append_pattern(&zb, 0, 4 * MIB);
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK_EQ(zbuf_write_to_conn(&zb, fds[0], 60), ZBUF_ETIMEDOUT);
    CHECK(elapsed_ms(&start) >= 59);
    size_t sent = (size_t)4 * MIB - zbuf_length(&zb);
    CHECK(sent > 0);
    CHECK(holds_pattern(&zb, sent, (size_t)4 * MIB - sent)); /* what went is gone, the rest is there */
    CHECK_EQ(zbuf_write_to_conn(&zb, fds[0], 0), ZBUF_EAGAIN);
    zbuf_clear(&zb);
    size_t got = 0;
    for (ssize_t n; got < sent; got += (size_t)n, zbuf_clear(&zb)) {
        n = zbuf_read_from_conn(&zb, fds[1], -1);
        CHECK(n > 0 && holds_pattern(&zb, got, (size_t)n));
    }
    CHECK_EQ(got, sent);
    close(fds[0]);
    CHECK_EQ(zbuf_read_from_conn(&zb, fds[1], -1), 0);
    CHECK_EQ(zbuf_read(&zb, "x", 1), ZBUF_OK);
    CHECK_EQ(zbuf_write_to_conn(&zb, fds[1], -1), ZBUF_ESYSTEM); /* and no SIGPIPE */
    CHECK_EQ(errno, EPIPE);
    CHECK_EQ(zbuf_length(&zb), 1);
    zbuf_clear(&zb);
    close(fds[1]);
    zfix_close(&z);
}

struct mover {
    struct bufpool *pool;
    int fd;
    size_t n;
    uint64_t nwrong;
};

/* Sends a pattern in pieces through a queue, and takes the other one meanwhile. */
static void *send_pieces(void *arg) {
    struct mover *m = arg;
    struct zbuf zb;
    zbuf_init(&zb, m->pool);
    uint64_t seed = 4711;
    for (size_t done = 0; done < m->n;) {
        size_t part = next_random(&seed) % (300 * KIB) + 1;
        if (part > m->n - done) part = m->n - done;
        append_pattern(&zb, done, part);
        if (zbuf_write_to_conn(&zb, m->fd, 20000) < 0) m->nwrong++;
        done += part;
    }
    shutdown(m->fd, SHUT_WR);
    return NULL;
}

TEST(zbuf_conn, two_threads_move_a_stream_larger_than_every_buffer) {
    size_t total = TEST_IS_SLOW ? (size_t)3 * MIB : (size_t)24 * MIB;
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    int fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct mover m = {z.pool, fds[0], total, 0};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, send_pieces, &m), 0);
    size_t got = 0;
    ssize_t n;
    while ((n = zbuf_read_from_conn(&zb, fds[1], 20000)) > 0) {
        got += (size_t)n;
        size_t held = zbuf_length(&zb);
        CHECK(holds_pattern(&zb, got - held, held));
        CHECK_EQ(zbuf_pop(&zb, held - held / 3), ZBUF_OK); /* some stays, so that the next read appends */
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(got, total);
    pthread_join(thread, NULL);
    CHECK_EQ(m.nwrong, 0);
    zbuf_clear(&zb);
    close(fds[0]);
    close(fds[1]);
    zfix_close(&z);
}
