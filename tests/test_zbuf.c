/* test_zbuf.c - the buffer pool of examples/zbuf: buffers, the pool with its counts and its limit, and the byte queue
 * over memory. test_zbuf_io.c is about files, pipes and sockets, test_zbuf_echo.c about the server. */
#include "tests/zbuf_fixture.h"

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
