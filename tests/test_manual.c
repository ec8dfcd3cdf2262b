/*
 * test_manual.c: manual memory: blocks of every size and alignment, blocks freed by other threads, threads and heaps
 * that end, the hard limit. What threads keep of it: test_manual_kept.c; roots and reports: test_manual_checks.c;
 * tri_free: test_free.c.
 *
 * The property test runs several threads that hand their blocks to each other, each block filled with a pattern of its
 * own that is checked when it is freed.
 */
#include "tests/fixture.h"

#include <pthread.h>
#include <string.h>

static size_t pages_of(tri_heap *heap) {
    return tri__manual_pages(&heap->mem);
}

/* Fills a block with what only it has, and tells whether it still has it. */
static void fill(void *block, size_t size_bytes, uint64_t key) {
    unsigned char *p = block;
    for (size_t i = 0; i < size_bytes; i++) p[i] = (unsigned char)(key * 31 + i * 7);
}
static bool is_filled(const void *block, size_t size_bytes, uint64_t key) {
    const unsigned char *p = block;
    for (size_t i = 0; i < size_bytes; i++)
        if (p[i] != (unsigned char)(key * 31 + i * 7)) return false;
    return true;
}

/* ---- one thread ---------------------------------------------------------------------------------------------- */

static const size_t sizes[] = {0,    1,    8,     15,    16,    17,    48,    64,     100,    1000,   1024,   1025,
                               4096, 8192, 20000, 32768, 32769, 65536, 70000, 131072, 131073, 262144, 262145, 3000000};

TEST(manual, blocks_of_every_size_are_aligned_usable_and_apart) {
    struct fixture f = fixture_open();
    enum { NEACH = 40 };
    static void *blocks[TRI_COUNT(sizes)][NEACH];
    size_t expected = 0;
    for (size_t i = 0; i < TRI_COUNT(sizes); i++)
        for (size_t k = 0; k < NEACH; k++) {
            blocks[i][k] = tri_manual_alloc(f.heap, sizes[i]);
            CHECK(blocks[i][k] != NULL && (uintptr_t)blocks[i][k] % 16 == 0);
            size_t usable = tri_manual_usable_size(f.heap, blocks[i][k]);
            CHECK(usable >= sizes[i] && usable >= 16);
            CHECK_MSG(usable <= 48 + sizes[i] + sizes[i] / 4, "%zu bytes take %zu", sizes[i], usable);
            expected += usable;
            fill(blocks[i][k], min_size(usable, 5000), i * NEACH + k);
        }
    CHECK_EQ(tri_manual_bytes(f.heap), expected);
    CHECK_EQ(tri_verify(f.thread), 0);
    for (size_t i = 0; i < TRI_COUNT(sizes); i++)
        for (size_t k = 0; k < NEACH; k++) {
            size_t usable = tri_manual_usable_size(f.heap, blocks[i][k]);
            CHECK(is_filled(blocks[i][k], min_size(usable, 5000), i * NEACH + k));
            tri_manual_free(f.heap, blocks[i][k]);
        }
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    tri_trim(f.heap);
    CHECK_EQ(pages_of(f.heap), 0);
    tri_manual_free(f.heap, NULL);
    fixture_close(&f);
}

TEST(manual, freed_blocks_are_used_again) {
    struct fixture f = fixture_open();
    for (size_t i = 0; i < TRI_COUNT(sizes); i++) {
        size_t most = 0;
        for (int k = 0; k < 2000; k++) {
            void *block = tri_manual_alloc(f.heap, sizes[i]);
            most = max_size(most, pages_of(f.heap));
            tri_manual_free(f.heap, block);
        }
        CHECK_MSG(most <= 64 + ceil_div(sizes[i], PAGE_BYTES), "%zu bytes, one at a time, took %zu pages", sizes[i],
                  most);
        tri_trim(f.heap);
    }
    fixture_close(&f);
}

TEST(manual, calloc_gives_zeroes_wherever_the_memory_comes_from) {
    struct fixture f = fixture_open();
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < TRI_COUNT(sizes); i++) {
            void *blocks[20];
            for (size_t k = 0; k < TRI_COUNT(blocks); k++) {
                const unsigned char *p = blocks[k] = tri_manual_calloc(f.heap, sizes[i], 1);
                CHECK(p != NULL);
                for (size_t b = 0; b < sizes[i]; b++) CHECK_MSG(p[b] == 0, "%zu bytes: byte %zu is set", sizes[i], b);
            }
            for (size_t k = 0; k < TRI_COUNT(blocks); k++) {
                memset(blocks[k], 0xee, sizes[i]);
                tri_manual_free(f.heap, blocks[k]);
            }
        }
    CHECK(tri_manual_calloc(f.heap, SIZE_MAX / 2, 3) == NULL);
    CHECK(strstr(tri_last_error(), "more than any address range holds") != NULL);
    CHECK(tri_manual_alloc(f.heap, SIZE_MAX) == NULL);
    CHECK(tri_manual_alloc(f.heap, SIZE_MAX / 2) == NULL);
    fixture_close(&f);
}

TEST(manual, alignment_up_to_a_gigabyte) {
    struct fixture f = fixture_open();
    static const size_t some[] = {0, 1, 100, 5000, 40000, 300000};
    for (size_t align = 1; align <= (size_t)16 << 20; align *= 2)
        for (size_t i = 0; i < TRI_COUNT(some); i++) {
            void *a = tri_manual_aligned(f.heap, align, some[i]), *b = tri_manual_aligned(f.heap, align, some[i]);
            CHECK(a && b && (uintptr_t)a % align == 0 && (uintptr_t)b % align == 0);
            CHECK(tri_manual_usable_size(f.heap, a) >= some[i]);
            fill(a, some[i], 1);
            fill(b, some[i], 2);
            CHECK_EQ(tri_verify(f.thread), 0);
            CHECK(is_filled(a, some[i], 1));
            tri_manual_free(f.heap, a);
            tri_manual_free(f.heap, b);
        }
    void *far = tri_manual_aligned(f.heap, (size_t)1 << 30, 5000);
    CHECK_MSG(far != NULL && (uintptr_t)far % ((size_t)1 << 30) == 0, "%p: %s", far, tri_last_error());
    fill(far, 5000, 3);
    CHECK(is_filled(far, 5000, 3));
    tri_manual_free(f.heap, far);
    CHECK(tri_manual_aligned(f.heap, (size_t)1 << 31, 100) == NULL);
    CHECK(tri_manual_aligned(f.heap, 24, 100) == NULL);
    CHECK(tri_manual_aligned(f.heap, 0, 100) == NULL);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    tri_trim(f.heap);
    CHECK_EQ(pages_of(f.heap), 0);
    fixture_close(&f);
}

TEST(manual, realloc_keeps_what_fits) {
    struct fixture f = fixture_open();
    char *block = tri_manual_realloc(f.heap, NULL, 10);
    size_t size = 10;
    fill(block, size, 7);
    uint64_t seed = fixture_seed();
    for (int i = 0; i < 300; i++) {
        size_t next = (size_t)(fixture_random(&seed) % (i % 3 == 0 ? 400000 : 3000));
        block = tri_manual_realloc(f.heap, block, next);
        CHECK(block != NULL && tri_manual_usable_size(f.heap, block) >= next);
        CHECK(is_filled(block, min_size(size, next), 7));
        size = next;
        fill(block, size, 7);
    }
    block = tri_manual_realloc(f.heap, block, 0);
    CHECK(block != NULL && tri_manual_usable_size(f.heap, block) == 16);
    CHECK_EQ(tri_manual_bytes(f.heap), 16);
    tri_manual_free(f.heap, block);
    fixture_close(&f);
}

/* Resident memory falls: spans that have become empty are given back, but for a little. */
TEST(manual, empty_spans_go_back) {
    struct fixture f = fixture_open();
    enum { N = 20000 };
    static void *blocks[N];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < N; i++) CHECK((blocks[i] = tri_manual_alloc(f.heap, 600)) != NULL);
        size_t full = pages_of(f.heap);
        CHECK(full >= N * 600 / PAGE_BYTES && full <= N * 656 / PAGE_BYTES * 9 / 8 + 8 + 512);
        for (size_t i = 0; i < N; i += 2) tri_manual_free(f.heap, blocks[i]);
        for (size_t i = 1; i < N; i += 2) tri_manual_free(f.heap, blocks[i]);
        CHECK_MSG(pages_of(f.heap) <= 512 + 48, "%zu pages of %zu stay", pages_of(f.heap), full);
        for (size_t i = 0; i < 3000; i++) CHECK((blocks[i] = tri_manual_alloc(f.heap, 900)) != NULL); /* another size */
        for (size_t i = 0; i < 3000; i++) tri_manual_free(f.heap, blocks[i]);
        CHECK_MSG(pages_of(f.heap) <= 512 + 96, "%zu pages stay", pages_of(f.heap));
        CHECK_EQ(tri_verify(f.thread), 0);
    }
    tri_trim(f.heap);
    CHECK_EQ(pages_of(f.heap), 0);
    fixture_close(&f);
}

/* ---- lookups, walks and the collector leave it alone ---------------------------------------------------------- */

static void count_object(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    (void)obj, (void)type, (void)size_bytes;
    ++*(size_t *)arg;
}

TEST(manual, no_lookup_finds_a_block_and_no_sweep_frees_one) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 2);
    struct pair *object = roots[0] = tri_new(f.thread, &pair_type);
    char *small = tri_manual_alloc(f.heap, 100), *large = tri_manual_alloc(f.heap, 1000000);
    fill(small, 100, 1);
    fill(large, 1000000, 2);
    CHECK(tri_find(f.thread, small, NULL) == NULL && tri_find(f.thread, large + 5000, NULL) == NULL);
    CHECK_EQ(tri_usable_size(f.heap, small), 0);
    tri_store(f.thread, object, &object->left, small); /* like a pointer outside the heap */
    tri_store(f.thread, object, &object->right, large + 70000);
    roots[1] = small;
    for (int i = 0; i < 3; i++) fixture_collect(&f);
    size_t n = 0;
    CHECK_EQ(tri_walk(f.thread, count_object, &n), 1);
    CHECK(is_filled(small, 100, 1) && is_filled(large, 1000000, 2));
    CHECK_EQ(tri_verify(f.thread), 0);
    TRI_POP(f.thread, roots);
    tri_manual_free(f.heap, small);
    tri_manual_free(f.heap, large);
    fixture_close(&f);
}

TEST(manual, pages_go_from_objects_to_blocks_and_back) {
    struct fixture f = fixture_open();
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 5000; i++) CHECK(tri_new(f.thread, &pair_type) != NULL);
        fixture_collect(&f);
        void *blocks[300];
        for (size_t i = 0; i < TRI_COUNT(blocks); i++) {
            blocks[i] = tri_manual_alloc(f.heap, 300);
            memset(blocks[i], 0xff, 300);
        }
        CHECK_EQ(tri_verify(f.thread), 0);
        for (size_t i = 0; i < TRI_COUNT(blocks); i++) tri_manual_free(f.heap, blocks[i]);
        tri_trim(f.heap);
        const struct pair *p = tri_new(f.thread, &pair_type);
        CHECK(p->left == NULL && p->right == NULL && p->value == 0);
    }
    fixture_close(&f);
}

/* ---- the limit ----------------------------------------------------------------------------------------------- */

static uint32_t oom_calls;
static void *oom_block;

static int on_oom(tri_heap *heap, size_t size_bytes, void *user) {
    (void)user;
    CHECK(size_bytes > 0);
    oom_calls++;
    if (!oom_block) return 0;
    tri_manual_free(heap, oom_block);
    oom_block = NULL;
    return 1;
}

TEST(manual, the_hard_limit_ends_in_null_and_frees_make_room_again) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.hard_limit_bytes = 8 << 20;
    config.oom = on_oom;
    struct fixture f = fixture_open_config(&config);
    enum { MOST = 600000 };
    static void *blocks[MOST];
    static const size_t each[] = {16, 100, 1000, 8192, 30000, 65536, 400000};
    for (size_t s = 0; s < TRI_COUNT(each); s++) {
        size_t n = 0, bytes;
        while (n < MOST && (blocks[n] = tri_manual_alloc(f.heap, each[s])) != NULL) n++;
        bytes = tri_manual_bytes(f.heap);
        CHECK_MSG(n < MOST && bytes >= (size_t)(8 << 20) * 3 / 4 && bytes <= 8 << 20,
                  "%zu blocks of %zu take %zu bytes of the limit", n, each[s], bytes);
        CHECK(strstr(tri_last_error(), "no memory for") != NULL);
        CHECK(tri_manual_alloc(f.heap, each[s]) == NULL);
        oom_block = blocks[--n]; /* what the hook frees comes back at once */
        blocks[n] = tri_manual_alloc(f.heap, each[s]);
        CHECK(blocks[n] != NULL && oom_block == NULL);
        while (n < MOST && blocks[n]) tri_manual_free(f.heap, blocks[n]), n = n ? n - 1 : MOST;
        CHECK_EQ(tri_manual_bytes(f.heap), 0);
    }
    CHECK(oom_calls > TRI_COUNT(each));
    CHECK(tri_new_bytes(f.thread, 100000) != NULL);
    fixture_close(&f);
}

static void *alloc_beyond_limit(void *arg) {
    tri_heap *heap = arg;
    CHECK(tri_manual_alloc(heap, 7 << 20) == NULL);
    return NULL;
}

TEST(manual, the_hook_is_asked_on_attached_threads_alone) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.hard_limit_bytes = 8 << 20;
    config.oom = on_oom;
    struct fixture f = fixture_open_config(&config);
    void *most = tri_manual_alloc(f.heap, 7 << 20);
    CHECK(most != NULL);
    oom_calls = 0;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, alloc_beyond_limit, f.heap), 0);
    pthread_join(thread, NULL);
    CHECK_EQ(oom_calls, 0);
    tri_blocking(f.thread, alloc_beyond_limit, f.heap);
    CHECK_EQ(oom_calls, 0);
    alloc_beyond_limit(f.heap);
    CHECK_EQ(oom_calls, 1);
    tri_manual_free(f.heap, most);
    fixture_close(&f);
}

/* ---- several threads ----------------------------------------------------------------------------------------- */

enum { NTHREADS = 4, MAILBOXES = 64, HELD = 200 };

struct parcel {
    size_t size_bytes;
    uint64_t key;
};

struct shared {
    tri_heap *heap;
    void *mailboxes[MAILBOXES]; /* [atomic] */
    uint64_t seed;
    unsigned nsteps;
    bool attach;
};

static struct parcel *parcel_new(tri_heap *heap, uint64_t *random) {
    uint64_t r = fixture_random(random);
    size_t extra = r % 50 == 0 ? 200000 : r % 10 == 0 ? 9000 : 500;
    size_t size = sizeof(struct parcel) + (size_t)(r >> 8) % extra;
    struct parcel *p = r % 7 == 0 ? tri_manual_calloc(heap, 1, size) : tri_manual_alloc(heap, size);
    CHECK(p != NULL);
    if (r % 7 == 0) CHECK(p->size_bytes == 0 && ((char *)p)[size - 1] == 0);
    *p = (struct parcel){size, r};
    fill(p + 1, min_size(size - sizeof *p, 600), r);
    return p;
}

static void parcel_free(tri_heap *heap, struct parcel *p) {
    CHECK(tri_manual_usable_size(heap, p) >= p->size_bytes);
    CHECK_MSG(is_filled(p + 1, min_size(p->size_bytes - sizeof *p, 600), p->key), "a live block was written to");
    tri_manual_free(heap, p);
}

static void *exchange(void *arg) {
    struct shared *s = arg;
    struct parcel *held[HELD] = {0};
    uint64_t random = atomic_add_relaxed(&s->seed, 0x9e3779b97f4a7c15ull) | 1;
    tri_thread *thread = NULL;
    if (s->attach) CHECK_EQ(tri_attach(s->heap, 0, &thread), TRI_OK);
    for (unsigned i = 0; i < s->nsteps; i++) {
        struct parcel **mine = &held[fixture_random(&random) % HELD];
        if (*mine && fixture_random(&random) % 2) { /* to somebody else; what lay there comes to this thread */
            *mine = atomic_swap_acqrel(&s->mailboxes[fixture_random(&random) % MAILBOXES], (void *)*mine);
        } else if (*mine) {
            parcel_free(s->heap, *mine);
            *mine = NULL;
        } else {
            *mine = parcel_new(s->heap, &random);
        }
        if (thread && i % 16 == 0) tri_poll(thread);
    }
    for (size_t i = 0; i < HELD; i++) { /* some are left for others, after this thread's end */
        if (held[i] && i % 2) held[i] = atomic_swap_acqrel(&s->mailboxes[i % MAILBOXES], (void *)held[i]);
        if (held[i]) parcel_free(s->heap, held[i]);
    }
    if (thread) CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

static void run_exchange(bool attach, const char *option, int generations, unsigned nsteps) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, option), TRI_OK);
    static struct shared s;
    s = (struct shared){.heap = f.heap, .seed = fixture_seed(), .nsteps = nsteps, .attach = attach};
    fprintf(stderr, "seed %llu\n", (unsigned long long)s.seed);
    for (int g = 0; g < generations; g++) { /* threads end; others come and take over what they left */
        pthread_t threads[NTHREADS];
        for (size_t i = 0; i < NTHREADS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, exchange, &s), 0);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(tri_verify(f.thread), 0);
            tri_trim(f.heap);
        }
        fixture_collect(&f);
        for (size_t i = 0; i < NTHREADS; i++) {
            while (pthread_tryjoin_np(threads[i], NULL) != 0) {
                tri_poll(f.thread);
                fixture_sleep_ms(1);
            }
        }
        CHECK(f.heap->mem.manual.ncaches <= NTHREADS + 1);
    }
    for (size_t i = 0; i < MAILBOXES; i++)
        if (s.mailboxes[i]) parcel_free(f.heap, s.mailboxes[i]);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    tri_trim(f.heap);
    CHECK_EQ(pages_of(f.heap), 0);
    fixture_close(&f);
}

TEST(manual, threads_free_each_others_blocks_and_leave_theirs_behind) {
    run_exchange(false, "stress.delay=0", 5, (unsigned)test_env_u64("TRI_TEST_STEPS", TEST_IS_SLOW ? 6000 : 30000));
}

TEST(manual, attached_threads_do_so_while_cycles_run) {
    run_exchange(true, "stress.delay=0", 3, TEST_IS_SLOW ? 4000 : 20000);
}

TEST(manual, threads_end_in_the_middle_of_others_frees) {
    run_exchange(false, "stress.delay=2000", 20, 300);
}

/* One free held in the middle: between its look at the span's owner and the push onto that owner's stack. */
struct late {
    tri_heap *heap;
    void *block;
    uint32_t state; /* 1: the block is allocated, 2: its free is held, 3: it goes on [atomic] */
};
static struct late late;
static _Thread_local bool is_late;

static void hold_late(void *context) {
    (void)context;
    if (!is_late) return;
    atomic_store_release(&late.state, 2);
    while (atomic_load_acquire(&late.state) < 3) fixture_sleep_ms(1);
}

static void *allocate_one(void *arg) {
    (void)arg;
    late.block = tri_manual_alloc(late.heap, 64);
    atomic_store_release(&late.state, 1);
    while (atomic_load_acquire(&late.state) < 2) fixture_sleep_ms(1);
    return NULL;
}

static void *free_late(void *arg) {
    while (atomic_load_acquire(&late.state) < 1) fixture_sleep_ms(1);
    is_late = true;
    tri_manual_free(late.heap, late.block);
    return arg;
}

TEST(manual, a_late_block_finds_the_span_at_its_new_owner) {
    struct fixture f = fixture_open();
    late.heap = f.heap;
    f.heap->mem.hooks.delay = hold_late;
    pthread_t owner, other;
    CHECK_EQ(pthread_create(&owner, NULL, allocate_one, NULL), 0);
    CHECK_EQ(pthread_create(&other, NULL, free_late, NULL), 0);
    tri_manual_free(f.heap, tri_manual_alloc(f.heap, 4000)); /* this thread has a cache before that one is an orphan */
    pthread_join(owner, NULL);
    void *block = tri_manual_alloc(f.heap, 64); /* takes the span over */
    CHECK(manual_span_of(&f.heap->mem.space, (uintptr_t)block) ==
          manual_span_of(&f.heap->mem.space, (uintptr_t)late.block));
    tri_manual_free(f.heap, block); /* it is current here, with nothing but the late block given out */
    atomic_store_release(&late.state, 3);
    pthread_join(other, NULL);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    tri_trim(f.heap); /* looks at the old owner's stack first */
    CHECK_EQ(tri_verify(f.thread), 0);
    tri_trim(f.heap);
    CHECK_EQ(pages_of(f.heap), 0);
    tri_manual_free(f.heap, tri_manual_alloc(f.heap, 64));
    fixture_close(&f);
}

struct pipe {
    tri_heap *heap;
    void *slots[256]; /* [atomic] */
    unsigned n;
};

static void *consume(void *arg) {
    struct pipe *p = arg;
    for (unsigned i = 0; i < p->n; i++) {
        void *block;
        while (!(block = atomic_swap_acqrel(&p->slots[i % 256], NULL))) tri__os_yield();
        CHECK(*(unsigned *)block == i);
        tri_manual_free(p->heap, block);
    }
    return NULL;
}

/* A producer whose blocks another thread frees does not grow. */
TEST(manual, a_producer_gets_back_what_its_consumer_freed) {
    struct fixture f = fixture_open();
    static struct pipe p;
    p.heap = f.heap;
    p.n = TEST_IS_SLOW ? 30000 : 200000;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, consume, &p), 0);
    size_t most = 0;
    for (unsigned i = 0; i < p.n; i++) {
        unsigned *block = tri_manual_alloc(f.heap, 200);
        *block = i;
        void *expected = NULL;
        while (!atomic_cas_acqrel(&p.slots[i % 256], &expected, (void *)block)) expected = NULL, tri__os_yield();
        most = max_size(most, pages_of(f.heap));
    }
    pthread_join(thread, NULL);
    CHECK_MSG(most <= 64, "%zu pages for 256 blocks of 200 bytes", most);
    CHECK_EQ(tri_manual_bytes(f.heap), 0);
    fixture_close(&f);
}

/* ---- heaps that end, several heaps --------------------------------------------------------------------------- */

struct visits {
    tri_heap *heap; /* [atomic] */
    uint32_t turn;  /* [atomic] */
};

static void *visit_heaps(void *arg) {
    struct visits *v = arg;
    for (uint32_t i = 1;; i += 2) {
        while (atomic_load_acquire(&v->turn) < i) tri__os_yield();
        tri_heap *heap = atomic_load_relaxed(&v->heap);
        if (!heap) return NULL;
        for (int k = 0; k < 100; k++) memset(tri_manual_alloc(heap, 100), 1, 100);
        tri_manual_free(heap, tri_manual_alloc(heap, 64));
        atomic_store_release(&v->turn, i + 1);
    }
}

/* An unattached thread still has a cache of each heap that ends, often at the address of the next. */
TEST(manual, heaps_end_while_threads_have_caches_of_them) {
    static struct visits v;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, visit_heaps, &v), 0);
    for (uint32_t i = 1; i < 40; i += 2) {
        struct fixture f = fixture_open();
        void *own = tri_manual_alloc(f.heap, 64);
        atomic_store_relaxed(&v.heap, f.heap);
        atomic_store_release(&v.turn, i);
        while (atomic_load_acquire(&v.turn) == i) fixture_sleep_ms(0);
        CHECK(tri_manual_bytes(f.heap) == 100 * 112 + 64);
        tri_manual_free(f.heap, own);
        fixture_close(&f);
    }
    atomic_store_relaxed(&v.heap, NULL);
    atomic_store_release(&v.turn, 1000);
    pthread_join(thread, NULL);
}

TEST(manual, heaps_have_their_own_blocks_and_counts) {
    struct fixture f = fixture_open(), g = fixture_open(), h = fixture_open();
    struct fixture *heaps[] = {&f, &g, &h};
    void *blocks[3][100];
    for (int i = 0; i < 100; i++)
        for (int k = 0; k < 3; k++) blocks[k][i] = tri_manual_alloc(heaps[k]->heap, 100);
    for (int k = 0; k < 3; k++) {
        CHECK_EQ(tri_manual_bytes(heaps[k]->heap), 11200);
        for (int i = 0; i < 100; i++) {
            CHECK(space_contains(&heaps[k]->heap->mem.space, (uintptr_t)blocks[k][i]));
            tri_manual_free(heaps[k]->heap, blocks[k][i]);
        }
        CHECK_EQ(tri_manual_bytes(heaps[k]->heap), 0);
    }
    fixture_close(&f);
    fixture_close(&g);
    fixture_close(&h);
}
