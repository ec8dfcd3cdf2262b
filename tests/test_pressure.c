/*
 * What the system says about memory, from a tree of files that the tests write in place of /proc and /sys: sources that
 * are missing, unlimited, garbage, rising; and what a heap does about it.
 */
#include "tests/fixture.h"

#include "alloc/base/pressure.h"

#include <sys/stat.h>

static const uint64_t second = 1000000000;

static char tree[64];

static void tree_begin(void) {
    snprintf(tree, sizeof tree, "/tmp/trigc-pressure-XXXXXX");
    CHECK(mkdtemp(tree) != NULL);
    tri__pressure_set_root(tree);
}

static void tree_end(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", tree);
    CHECK_EQ(system(command), 0);
    tri__pressure_set_root(FIXTURE_NO_MACHINE);
}

/* Writes a file, with the folders above it; in one step, so that nobody reads half of it. */
static void put(const char *name, const char *text) {
    char path[512], next[520];
    CHECK(snprintf(path, sizeof path, "%s%s", tree, name) < (int)sizeof path);
    for (char *slash = strchr(path + strlen(tree) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    snprintf(next, sizeof next, "%s.new", path);
    FILE *f = fopen(next, "w");
    CHECK_MSG(f != NULL, "%s", next);
    CHECK(fputs(text, f) >= 0);
    CHECK_EQ(fclose(f), 0);
    CHECK_EQ(rename(next, path), 0);
}

static void put_stall(const char *name, uint64_t total_us) {
    char text[256];
    snprintf(text, sizeof text,
             "some avg10=0.00 avg60=0.00 avg300=0.00 total=%llu\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
             (unsigned long long)total_us);
    put(name, text);
}

#define GROUP "/sys/fs/cgroup/app/web"

static void put_group(void) {
    put("/proc/self/cgroup", "1:name=systemd:/other\n0::/app/web\n");
    put(GROUP "/memory.current", "50000000\n");
    put(GROUP "/memory.max", "max\n");
    put(GROUP "/memory.high", "max\n");
    put(GROUP "/memory.stat", "anon 1\nfile 2\ninactive_anon 5\ninactive_file 0\n");
    put(GROUP "/memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n");
    put_stall(GROUP "/memory.pressure", 1000);
}

static struct pressure begun(void) {
    struct pressure p = PRESSURE_INIT;
    tri__pressure_init(&p);
    return p;
}

static uint32_t look(struct pressure *p, uint64_t seconds) {
    struct pressure_report r;
    return tri__pressure_look(p, seconds * second, 0, &r);
}

/* ---- Sources ---- */

TEST(pressure, nothing_is_there) {
    tree_begin();
    struct pressure p = begun();
    CHECK_EQ(p.sources, 0);
    CHECK_EQ(look(&p, 1), 0);
    CHECK_EQ(look(&p, 2), 0);
    CHECK(!tri__pressure_needs_reading(&p));
    tri__pressure_fini(&p);
    tree_end();
}

TEST(pressure, stalls_of_a_tenth_of_the_time_press) {
    tree_begin();
    put_stall("/proc/pressure/memory", 5000000);
    struct pressure p = begun();
    CHECK_EQ(p.sources, PRESSURE_SYSTEM);
    CHECK(tri__pressure_needs_reading(&p)); /* a plain file: nobody tells of it */
    CHECK_EQ(look(&p, 10), 0);              /* what happened before is not counted */
    put_stall("/proc/pressure/memory", 5050000);
    CHECK_EQ(look(&p, 11), 0); /* 5 % */
    put_stall("/proc/pressure/memory", 5200000);
    CHECK_EQ(look(&p, 12), PRESSURE_SYSTEM); /* 15 % */
    CHECK_EQ(look(&p, 13), 0);               /* it has passed */
    put_stall("/proc/pressure/memory", 5300000);
    CHECK_EQ(look(&p, 23), 0); /* 1 % of ten seconds */
    put_stall("/proc/pressure/memory", 1000);
    CHECK_EQ(look(&p, 24), 0); /* backwards */
    tri__pressure_fini(&p);
    tree_end();
}

TEST(pressure, the_groups_own_stalls_press) {
    tree_begin();
    put_group();
    struct pressure p = begun();
    CHECK_EQ(p.sources, PRESSURE_GROUP | PRESSURE_EVENTS | PRESSURE_LIMIT);
    CHECK_EQ(look(&p, 1), 0);
    put_stall(GROUP "/memory.pressure", 801000);
    CHECK_EQ(look(&p, 2), PRESSURE_GROUP);
    tri__pressure_fini(&p);
    tree_end();
}

TEST(pressure, events_press_when_they_are_counted) {
    tree_begin();
    put_group();
    struct pressure p = begun();
    CHECK_EQ(look(&p, 1), 0);
    put(GROUP "/memory.events", "low 7\nhigh 0\nmax 0\noom 0\noom_kill 0\n");
    CHECK_EQ(look(&p, 2), 0);
    put(GROUP "/memory.events", "low 7\nhigh 3\nmax 0\noom 0\noom_kill 0\n");
    CHECK_EQ(look(&p, 3), PRESSURE_EVENTS);
    CHECK_EQ(look(&p, 4), 0);
    put(GROUP "/memory.events", "low 7\nhigh 3\nmax 1\noom 0\noom_kill 0\n");
    CHECK_EQ(look(&p, 5), PRESSURE_EVENTS);
    tri__pressure_fini(&p);
    tree_end();
}

TEST(pressure, the_limit_presses_when_the_group_is_near_it) {
    static const char *const files[] = {GROUP "/memory.max", GROUP "/memory.high", "/sys/fs/cgroup/app/memory.max"};
    for (size_t i = 0; i < TRI_COUNT(files); i++) {
        struct pressure_report r;
        tree_begin();
        put_group();
        put("/sys/fs/cgroup/app/memory.current", "50000000\n");
        struct pressure p = begun();
        CHECK_EQ(look(&p, 1), 0);
        CHECK(!p.limited);
        put(files[i], "60000000\n");
        CHECK_EQ(tri__pressure_look(&p, 2 * second, 0, &r), 0);
        CHECK_EQ(r.limit_bytes, 60000000);
        CHECK_EQ(r.used_bytes, 50000000);
        CHECK(tri__pressure_needs_reading(&p));
        put(i == 2 ? "/sys/fs/cgroup/app/memory.current" : GROUP "/memory.current", "58000000\n");
        CHECK_EQ(look(&p, 3), PRESSURE_LIMIT);
        /* What the system would drop first does not count. */
        put(i == 2 ? "/sys/fs/cgroup/app/memory.stat" : GROUP "/memory.stat", "anon 1\ninactive_file 20000000\n");
        CHECK_EQ(tri__pressure_look(&p, 4 * second, 0, &r), 0);
        CHECK_EQ(r.used_bytes, 38000000);
        tri__pressure_fini(&p);
        tree_end();
    }
}

TEST(pressure, the_nearest_of_several_limits_counts) {
    struct pressure_report r;
    tree_begin();
    put_group();
    put(GROUP "/memory.max", "100000000\n");
    put(GROUP "/memory.high", "90000000\n");
    put("/sys/fs/cgroup/app/memory.current", "70000000\n");
    put("/sys/fs/cgroup/app/memory.max", "80000000\n");
    struct pressure p = begun();
    CHECK_EQ(tri__pressure_look(&p, second, 0, &r), 0);
    CHECK_EQ(r.limit_bytes, 80000000);
    put("/sys/fs/cgroup/app/memory.max", "8000000000\n");
    CHECK_EQ(tri__pressure_look(&p, 2 * second, 0, &r), 0);
    CHECK_EQ(r.limit_bytes, 90000000);
    tri__pressure_fini(&p);
    tree_end();
}

TEST(pressure, other_places_of_the_group) {
    /* A container's own root, where the name belongs to another world; and a hierarchy beside version 1's. */
    struct pressure p;
    tree_begin();
    put("/proc/self/cgroup", "0::/../elsewhere\n");
    put("/sys/fs/cgroup/memory.current", "1000\n");
    put("/sys/fs/cgroup/memory.max", "1001\n");
    p = begun();
    CHECK_EQ(p.sources, PRESSURE_LIMIT);
    CHECK_EQ(look(&p, 1), PRESSURE_LIMIT);
    tri__pressure_fini(&p);
    tree_end();
    tree_begin();
    put("/proc/self/cgroup", "4:memory:/v1\n0::/app\n");
    put("/sys/fs/cgroup/unified/app/memory.current", "1000\n");
    p = begun();
    CHECK_EQ(p.sources, PRESSURE_LIMIT);
    tri__pressure_fini(&p);
    tree_end();
}

TEST(pressure, garbage_presses_nobody) {
    static const char *const texts[] = {"",
                                        "max",
                                        "\n",
                                        "-1",
                                        "some",
                                        "some total=",
                                        "some total=x\n",
                                        "99999999999999999999999",
                                        "high\nmax\n",
                                        "high x\nmax -\n",
                                        "0::",
                                        "0::app\n",
                                        "12abc",
                                        "full total=9\n"};
    static const char *const files[] = {"/proc/pressure/memory", GROUP "/memory.pressure", GROUP "/memory.events",
                                        GROUP "/memory.max",     GROUP "/memory.high",     GROUP "/memory.current",
                                        GROUP "/memory.stat",    "/proc/self/cgroup"};
    for (size_t i = 0; i < TRI_COUNT(texts); i++)
        for (size_t k = 0; k < TRI_COUNT(files); k++) {
            tree_begin();
            put_group();
            put_stall("/proc/pressure/memory", 1);
            struct pressure before = begun();
            put(files[k], texts[i]);
            struct pressure after = begun();
            for (uint64_t t = 1; t <= 2; t++) {
                CHECK_MSG(look(&before, t) == 0, "\"%s\" in %s presses", texts[i], files[k]);
                CHECK_MSG(look(&after, t) == 0, "\"%s\" in %s presses", texts[i], files[k]);
            }
            tri__pressure_fini(&before);
            tri__pressure_fini(&after);
            tree_end();
        }
}

TEST(pressure, files_may_come_and_go) {
    char path[256];
    tree_begin();
    put_group();
    put(GROUP "/memory.max", "51000000\n");
    struct pressure p = begun();
    CHECK_EQ(look(&p, 1), PRESSURE_LIMIT);
    snprintf(path, sizeof path, "rm -r %s/sys", tree);
    CHECK_EQ(system(path), 0);
    CHECK_EQ(look(&p, 2), 0);
    put_group();
    put(GROUP "/memory.max", "51000000\n");
    CHECK_EQ(look(&p, 3), PRESSURE_LIMIT);
    tri__pressure_fini(&p);
    tree_end();
}

TEST(pressure, a_long_name_is_refused) {
    char text[PRESSURE_PATH_BYTES + 64] = "0::";
    memset(text + 3, '/', sizeof text - 4);
    tree_begin();
    put("/proc/self/cgroup", text);
    put("/sys/fs/cgroup/memory.current", "1000\n");
    struct pressure p = begun();
    CHECK_EQ(p.sources, 0);
    tri__pressure_fini(&p);
    tree_end();
}

/* ---- Sleeping ---- */

struct sleeper {
    struct pressure p;
    uint32_t word;
    uint32_t nturns;
};

static void *sleep_until_woken(void *arg) {
    struct sleeper *s = arg;
    while (atomic_load_seq(&s->word) != 2) {
        uint32_t one = 1;
        atomic_cas_seq(&s->word, &one, 0);
        tri__pressure_wait(&s->p, &s->word, 0);
        atomic_add_acqrel(&s->nturns, 1);
    }
    return NULL;
}

static void wakes_and_ends(void) {
    struct sleeper s = {.p = PRESSURE_INIT};
    pthread_t thread;
    tri__pressure_init(&s.p);
    uint64_t start = tri__os_now_ns();
    if (tri__pressure_wait(&s.p, &s.word, 20000000) == 0) /* else the machine is short of memory */
        CHECK(tri__os_now_ns() - start >= 15000000);
    CHECK_EQ(pthread_create(&thread, NULL, sleep_until_woken, &s), 0);
    while (atomic_load_acquire(&s.nturns) == 0) tri__pressure_wake(&s.p, &s.word), sched_yield(); /* it is there */
    for (int i = 0; i < 2000; i++) {
        uint32_t zero = 0;
        if (atomic_cas_seq(&s.word, &zero, 1)) tri__pressure_wake(&s.p, &s.word);
        if (i % 16 == 0) sched_yield();
    }
    atomic_swap_seq(&s.word, 2);
    tri__pressure_wake(&s.p, &s.word);
    CHECK_EQ(pthread_join(thread, NULL), 0); /* a lost wake hangs here */
    CHECK(s.nturns > 0);
    tri__pressure_fini(&s.p);
}

TEST(pressure, a_wake_ends_the_wait_without_descriptors, .timeout = 60) {
    tree_begin();
    wakes_and_ends();
    tree_end();
}

TEST(pressure, a_wake_ends_the_wait_on_the_system, .timeout = 60) {
    tri__pressure_set_root("");
    wakes_and_ends();
}

/* ---- A heap under pressure ---- */

static size_t heap_resident(tri_heap *heap) {
    tri_stats stats = fixture_stats(heap);
    return stats.committed_bytes + stats.free_bytes;
}

struct block {
    struct block *next;
    char payload[8184];
};
TRI_TYPE(block_type, struct block, next);

static void grow(struct fixture *f, tri_handle list, size_t bytes) {
    for (size_t done = 0; done < bytes; done += sizeof(struct block)) {
        struct block *b = tri_new(f->thread, &block_type);
        CHECK(b != NULL);
        memset(b->payload, 1, sizeof b->payload);
        tri_store(f->thread, b, &b->next, tri_deref(list));
        tri_global_set(f->thread, list, b);
    }
}

static void *sleep_fn(void *p) {
    fixture_sleep_ms(*(unsigned *)p);
    return NULL;
}

TEST(pressure, a_heap_is_collected_and_returns_everything_free_under_pressure) {
    static const char *const reasons[] = {"limit", "stall", "events"};
    for (size_t i = 0; i < TRI_COUNT(reasons); i++) {
        tree_begin();
        put_group();
        tri_config config = fixture_config(TRI_HEAP_PRECISE);
        config.idle_trim_ms = 0;
        struct fixture f = fixture_open_config(&config);
        CHECK_EQ(tri_heap_set(f.heap, "min_heap_bytes=1G"), TRI_OK);
        tri_handle list = tri_global(f.thread, NULL);
        grow(&f, list, MIB);
        fixture_collect(&f);
        grow(&f, list, 40 * MIB);
        tri_global_set(f.thread, list, NULL);
        CHECK_EQ(fixture_stats(f.heap).cycles, 1);
        CHECK(heap_resident(f.heap) >= 40 * MIB);
        unsigned nap_ms = 100;
        uint64_t start_ns = tri__os_now_ns();
        for (int n = 0; n < 600 && heap_resident(f.heap) > MIB; n++) {
            if (i == 0) put(GROUP "/memory.max", "51000000\n");
            if (i == 1) /* half of the time, however long the naps are */
                put_stall(GROUP "/memory.pressure", 1000 + (tri__os_now_ns() - start_ns) / 2000);
            if (i == 2 && n > 12) put(GROUP "/memory.events", "high 1\nmax 1\n");
            struct block *b = tri_new(f.thread, &block_type); /* it is in use: ticks, no idle period */
            CHECK(b != NULL);
            tri_blocking(f.thread, sleep_fn, &nap_ms);
        }
        CHECK_MSG(heap_resident(f.heap) <= MIB, "%s: %zu bytes stay resident", reasons[i], heap_resident(f.heap));
        CHECK(fixture_stats(f.heap).cycles >= 2);
        fixture_close(&f);
        tree_end();
    }
}

TEST(pressure, without_pressure_nothing_is_done) {
    tree_begin();
    put_group();
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.idle_trim_ms = 0;
    config.min_heap_bytes = (size_t)1 << 30;
    struct fixture f = fixture_open_config(&config);
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 20 * MIB);
    unsigned nap_ms = 50;
    for (int i = 0; i < 40; i++) {
        grow(&f, list, 10000);
        tri_blocking(f.thread, sleep_fn, &nap_ms);
    }
    CHECK_EQ(fixture_stats(f.heap).cycles, 0);
    fixture_close(&f);
    tree_end();
}

/* ---- Processors ---- */

TEST(pressure, the_quota_of_a_group_or_one_above_it_counts_instead_of_the_cores) {
    static const struct {
        const char *own, *above, *root;
        unsigned of_16; /* thousandths */
    } quotas[] = {{"max 100000\n", "max 100000\n", NULL, 16000},
                  {"200000 100000\n", "max 100000\n", NULL, 2000},
                  {"150000 100000\n", "max 100000\n", NULL, 1500},
                  {"50000 100000\n", "max 100000\n", NULL, 500},
                  {"1000 100000\n", "max 100000\n", NULL, 10},
                  {"1 100000\n", "max 100000\n", NULL, 1},
                  {"800000 100000\n", "300000 100000\n", NULL, 3000},
                  {"max 100000\n", "400000 50000\n", "600000 100000\n", 6000},
                  {"9000000 100000\n", "max 100000\n", NULL, 16000},
                  {"18446744073709551615 1\n", "max 1\n", NULL, 16000},
                  {"0 100000\n", "garbage\n", "7", 16000},
                  {"500 0\n", "", "100000", 16000}};
    for (size_t i = 0; i < TRI_COUNT(quotas); i++) {
        tree_begin();
        CHECK_EQ(tri__group_millicpus(16), 16000);
        put("/proc/self/cgroup", "1:name=systemd:/other\n0::/app/web\n");
        put(GROUP "/cpu.max", quotas[i].own);
        put("/sys/fs/cgroup/app/cpu.max", quotas[i].above);
        if (quotas[i].root) put("/sys/fs/cgroup/cpu.max", quotas[i].root);
        CHECK_MSG(tri__group_millicpus(16) == quotas[i].of_16, "%zu: %u", i, tri__group_millicpus(16));
        CHECK_EQ(tri__group_millicpus(1), quotas[i].of_16 < 1000 ? quotas[i].of_16 : 1000);
        tree_end();
    }
}

TEST(pressure, so_does_the_quota_of_version_1) {
    tree_begin();
    put("/proc/self/cgroup", "12:memory:/elsewhere\n3:cpu,cpuacct:/app\n2:cpuset:/app\n0::/\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(tri__group_millicpus(8), 8000);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "250000\n");
    CHECK_EQ(tri__group_millicpus(8), 2500);
    put("/proc/self/cgroup", "2:cpuset:/app\n3:cpuacct,cpux:/app\n");
    CHECK_EQ(tri__group_millicpus(8), 8000); /* no hierarchy of that controller */
    tree_end();
}

TEST(pressure, a_heap_counts_the_quota) {
    static const struct {
        const char *quota;
        uint32_t cores, millicpus, ncpus;
        bool less;
    } cases[] = {{"30000 100000\n", 1, 300, 1, true},    {"50000 100000\n", 1, 500, 1, true},
                 {"150000 100000\n", 2, 1500, 2, true},  {"100000 100000\n", 2, 1000, 1, true},
                 {"200000 100000\n", 2, 2000, 2, false}, {"max 100000\n", 2, 2000, 2, false}};
    for (size_t i = 0; i < TRI_COUNT(cases); i++) {
        tree_begin();
        put("/proc/self/cgroup", "0::/app/web\n");
        put(GROUP "/cpu.max", cases[i].quota);
        struct fixture f = fixture_open();
        CHECK_EQ(f.heap->millicpus, tri__group_millicpus(tri__os_ncpus()));
        heap_use_cpus(f.heap, cases[i].cores);
        CHECK_MSG(f.heap->millicpus == cases[i].millicpus && f.heap->ncpus == cases[i].ncpus &&
                      f.heap->quota == cases[i].less,
                  "%zu: %u thousandths, %u, %d", i, f.heap->millicpus, f.heap->ncpus, f.heap->quota);
        fixture_close(&f);
        tree_end();
    }
}
