/*
 * Fixed-size metadata: distinct aligned blocks, zero at their first use and kept as they were at the next, the
 * first-use callback once a block, the bytes in use, chunks of 16 KiB that stay until the end, a refusal that changes
 * nothing, and several threads.
 */
#include "tests/process.h"

#include "alloc/base/bits.h"
#include "alloc/base/os.h"
#include "alloc/fixalloc.h"

enum { CHUNK = 16384, MANY = 3000 };

static char *blocks[MANY];

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t) * (char *const *)a, y = (uintptr_t) * (char *const *)b;
    return x < y ? -1 : x > y;
}

static bool all_bytes(const char *block, size_t size, char value) {
    for (size_t i = 0; i < size; i++) {
        if (block[i] != value) {
            return false;
        }
    }
    return true;
}

static void check_size(size_t asked, size_t size, size_t align) {
    struct fixalloc fix;
    size_t n = size > 1000 ? 50 : MANY;
    tri__fixalloc_init(&fix, asked, "blocks", NULL, NULL);
    CHECK_EQ(fix.mapped_bytes, 0);
    for (size_t i = 0; i < n; i++) {
        blocks[i] = tri__fixalloc_get(&fix);
        CHECK(blocks[i] != NULL);
        CHECK_EQ((uintptr_t)blocks[i] % align, 0);
        CHECK(all_bytes(blocks[i], size, 0));
        memset(blocks[i], 0x5a, size);
        CHECK_EQ(tri__fixalloc_in_use_bytes(&fix), (i + 1) * size);
    }
    CHECK_EQ(fix.mapped_bytes % CHUNK, 0);
    CHECK(fix.mapped_bytes >= n * size);
    CHECK(fix.mapped_bytes - n * size <= CHUNK + fix.mapped_bytes / CHUNK * (64 + size - 1));
    for (size_t i = 0; i < n; i++) {
        CHECK(all_bytes(blocks[i], size, 0x5a)); /* no block's bytes are another's */
    }
    qsort(blocks, n, sizeof blocks[0], by_address);
    for (size_t i = 1; i < n; i++) {
        CHECK(blocks[i] >= blocks[i - 1] + size);
    }
    for (size_t i = 0; i < n; i++) {
        tri__fixalloc_put(&fix, blocks[i]);
    }
    CHECK_EQ(tri__fixalloc_in_use_bytes(&fix), 0);
    tri__fixalloc_fini(&fix);
}

TEST(fixalloc, blocks_are_distinct_zero_and_aligned) {
    check_size(1, 8, 8);
    check_size(8, 8, 8);
    check_size(20, 24, 8);
    check_size(48, 48, 16);
    check_size(64, 64, 64);
    check_size(192, 192, 64);
    check_size(1000, 1000, 8);
    check_size(8191, 8192, 64);
}

TEST(fixalloc, a_freed_block_comes_back_as_it_was) {
    struct fixalloc fix;
    tri__fixalloc_init(&fix, 40, "blocks", NULL, NULL);
    char *a = tri__fixalloc_get(&fix);
    char *b = tri__fixalloc_get(&fix);
    memset(a, 1, 40);
    memset(b, 2, 40);
    size_t mapped = fix.mapped_bytes;
    tri__fixalloc_put(&fix, a);
    tri__fixalloc_put(&fix, b);
    CHECK(all_bytes(a + 8, 32, 1)); /* a stale pointer still reads a block of this kind */
    CHECK(tri__fixalloc_get(&fix) == b);
    CHECK(tri__fixalloc_get(&fix) == a);
    CHECK(all_bytes(a + 8, 32, 1) && all_bytes(b + 8, 32, 2));
    CHECK_EQ(fix.mapped_bytes, mapped);
    tri__fixalloc_fini(&fix);
}

/* ---- The first-use callback ---- */

struct first_uses {
    struct fixalloc *fix;
    size_t n;
    void *last;
};

static void on_first_use(void *context, void *block) {
    struct first_uses *f = context;
    CHECK(all_bytes(block, 16, 0));
    CHECK(tri__lock_none_held());
    ((uint64_t *)block)[1] = ++f->n;
    f->last = block;
}

TEST(fixalloc, first_use_is_told_once_a_block) {
    struct fixalloc fix;
    struct first_uses f = {.fix = &fix};
    tri__fixalloc_init(&fix, 16, "blocks", on_first_use, &f);
    for (size_t i = 0; i < MANY; i++) {
        blocks[i] = tri__fixalloc_get(&fix);
        CHECK(f.last == blocks[i]);
        CHECK_EQ(f.n, i + 1);
    }
    for (size_t i = 0; i < MANY; i++) {
        tri__fixalloc_put(&fix, blocks[i]);
    }
    for (size_t i = 0; i < MANY; i++) {
        char *block = tri__fixalloc_get(&fix);
        CHECK_EQ(((uint64_t *)(void *)block)[1], MANY - i); /* last in, first out; the number outlived the free */
    }
    CHECK_EQ(f.n, MANY);
    CHECK(tri__fixalloc_get(&fix) != NULL);
    CHECK_EQ(f.n, MANY + 1);
    tri__fixalloc_fini(&fix);
}

/* ---- Memory ---- */

TEST(fixalloc, chunks_stay_until_the_end) {
    struct fixalloc fix;
    tri__fixalloc_init(&fix, 4096, "blocks", NULL, NULL);
    for (size_t i = 0; i < 30; i++) {
        blocks[i] = tri__fixalloc_get(&fix);
    }
    for (size_t i = 0; i < 30; i++) {
        tri__fixalloc_put(&fix, blocks[i]);
    }
    for (size_t i = 0; i < 30; i++) {
        CHECK(process_is_mapped(blocks[i]));
    }
    tri__fixalloc_fini(&fix);
    for (size_t i = 0; i < 30; i++) {
        CHECK(!process_is_mapped(blocks[i]));
    }
}

#if !PROCESS_CANNOT_STARVE
TEST(fixalloc, without_memory_it_says_so_and_goes_on) {
    struct fixalloc fix;
    tri__fixalloc_init(&fix, 512, "blocks", NULL, NULL);
    size_t got = 0;
    CHECK(tri__fixalloc_get(&fix) != NULL);
    process_limit(RLIMIT_AS, 4096);
    while (got < MANY && (blocks[got] = tri__fixalloc_get(&fix)) != NULL) {
        got++;
    }
    process_limit(RLIMIT_AS, SIZE_MAX);
    CHECK_EQ(got, (CHUNK - 64) / 512 - 1); /* what was left of the first chunk */
    CHECK_EQ(tri__fixalloc_in_use_bytes(&fix), (got + 1) * 512);
    CHECK_EQ(fix.mapped_bytes, CHUNK);
    CHECK(tri__fixalloc_get(&fix) != NULL);
    CHECK_EQ(fix.mapped_bytes, 2 * CHUNK);
    tri__fixalloc_fini(&fix);
}
#endif

/* ---- Misuse ---- */

TEST(fixalloc, a_block_too_large_is_fatal, .signal = SIGABRT) {
    struct fixalloc fix;
    tri__fixalloc_init(&fix, 8193, "blocks", NULL, NULL);
}

#if TRI_CHECKS >= 1
TEST(fixalloc, putting_back_twice_is_fatal, .signal = SIGABRT) {
    struct fixalloc fix;
    tri__fixalloc_init(&fix, 32, "blocks", NULL, NULL);
    void *block = tri__fixalloc_get(&fix);
    tri__fixalloc_get(&fix);
    tri__fixalloc_put(&fix, block);
    tri__fixalloc_put(&fix, block);
}
#endif

/* ---- Several threads ---- */

enum { THREADS = 4, HELD = 64 };

static void churn(void *arg) {
    struct fixalloc *fix = arg;
    uint64_t *held[HELD];
    size_t nheld = 0;
    uint64_t own = tri__os_thread_id();
    for (uint64_t i = 0, r = own; i < 20000; i++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        if (nheld < HELD && r >> 63) {
            held[nheld] = tri__fixalloc_get(fix);
            CHECK(held[nheld] != NULL);
            held[nheld++][1] = own;
        } else if (nheld > 0) {
            CHECK_EQ(held[--nheld][1], own);
            tri__fixalloc_put(fix, held[nheld]);
        }
    }
    while (nheld > 0) {
        CHECK_EQ(held[--nheld][1], own);
        tri__fixalloc_put(fix, held[nheld]);
    }
}

TEST(fixalloc, threads_never_share_a_block) {
    struct fixalloc fix;
    struct os_thread threads[THREADS];
    tri__fixalloc_init(&fix, 48, "blocks", NULL, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(tri__os_thread_start(&threads[i], churn, &fix, "churn"));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        tri__os_thread_join(&threads[i]);
    }
    CHECK_EQ(tri__fixalloc_in_use_bytes(&fix), 0);
    CHECK(fix.mapped_bytes <= CHUNK * (1 + THREADS * HELD * 48 / CHUNK + 1));
    tri__fixalloc_fini(&fix);
}
