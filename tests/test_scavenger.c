/*
 * The thread that gives memory back: what it keeps and what it returns after a cycle, its pace, idle periods, limits,
 * and the system's pressure (told by a tree of files that a test writes).
 *
 * Resident bytes are counted by the page heap, and once against the system's own count.
 */
#include "tests/fixture.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

static size_t heap_resident(tri_heap *heap) {
    tri_stats stats = fixture_stats(heap);
    return stats.committed_bytes + stats.free_bytes;
}

static size_t process_resident(void) {
    size_t ignored = 0, npages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL);
    CHECK_EQ(fscanf(f, "%zu %zu", &ignored, &npages), 2);
    fclose(f);
    return npages * (size_t)sysconf(_SC_PAGESIZE);
}

static uint64_t now_ms(void) {
    return tri__os_now_ns() / 1000000;
}

/* True if `resident` bytes or fewer are left within the time. */
static bool falls_to(tri_heap *heap, size_t resident, unsigned within_ms) {
    for (uint64_t end = now_ms() + within_ms; now_ms() < end; fixture_sleep_ms(5))
        if (heap_resident(heap) <= resident) return true;
    return heap_resident(heap) <= resident;
}

/* A list of blocks under a handle, with pages that were written to. */
static const uint32_t block_slots[] = {0};
struct block {
    struct block *next;
    uint64_t value;
};
static tri_type block_type = {.struct_size = sizeof(tri_type),
                              .name = "block",
                              .size = sizeof(struct block),
                              .elem_size = 8,
                              .pointers = {.offsets = block_slots, .noffsets = 1}};

static void grow(struct fixture *f, tri_handle list, size_t bytes, size_t block_bytes) {
    for (size_t done = 0; done < bytes; done += block_bytes) {
        struct block *b = tri_new_n(f->thread, &block_type, (block_bytes - sizeof(struct block)) / 8);
        CHECK_MSG(b != NULL, "%s", tri_last_error());
        memset((char *)b + sizeof *b, 1, block_bytes - sizeof *b);
        tri_store(f->thread, b, &b->next, tri_deref(list));
        tri_global_set(f->thread, list, b);
    }
}

/* Sleeps as a thread does that waits for work: in a blocking region. */
static void *sleep_fn(void *p) {
    fixture_sleep_ms(*(unsigned *)p);
    return NULL;
}
static void idle_ms(struct fixture *f, unsigned ms) {
    tri_blocking(f->thread, sleep_fn, &ms);
}

/* Sleeps until that many cycles have ended. On a busy machine what a cycle cost, and so the rest after it, is
 * longer. */
static bool idle_until_cycles(struct fixture *f, uint64_t n) {
    for (int i = 0; i < 400 && fixture_stats(f->heap).cycles < n; i++) idle_ms(f, 50);
    return fixture_stats(f->heap).cycles >= n;
}

static struct fixture open_with(uint32_t flags, uint64_t idle_trim_ms) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | flags);
    tri__pressure_set_root("/nonexistent"); /* what happens on the machine is not part of these tests */
    config.idle_trim_ms = idle_trim_ms;
    return fixture_open_config(&config);
}

/* ---- after a cycle ---- */

TEST(scavenger, what_is_beyond_the_goal_goes_back_after_a_cycle) {
    struct fixture f = open_with(TRI_HEAP_NO_CYCLES, 0);
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 60 * MIB, 20000);
    tri_global_set(f.thread, list, NULL);
    fixture_collect(&f);
    CHECK_MSG(heap_resident(f.heap) > 50 * MIB, "the peak's pages went at once: no hysteresis");
    CHECK_MSG(falls_to(f.heap, 6 * MIB, 30000), "%zu bytes stay resident", heap_resident(f.heap));
    CHECK_MSG(heap_resident(f.heap) >= 3 * MIB, "less than the goal is kept: %zu", heap_resident(f.heap));
    fixture_close(&f);
}

TEST(scavenger, the_highest_addresses_go_first_and_what_is_used_stays) {
    struct fixture f = open_with(TRI_HEAP_NO_CYCLES, 0);
    tri_handle list = tri_global(f.thread, NULL), keep = tri_global(f.thread, NULL);
    for (int i = 0; i < 30; i++) {
        grow(&f, list, MIB, 20000);
        grow(&f, keep, 100000, 1000);
    }
    tri_global_set(f.thread, list, NULL);
    fixture_collect(&f);
    CHECK(falls_to(f.heap, 9 * MIB, 30000));
    size_t n = 0;
    for (struct block *b = tri_deref(keep); b; b = b->next, n++)
        for (size_t i = sizeof *b; i < 1000; i++) CHECK_EQ(((unsigned char *)b)[i], 1);
    CHECK_EQ(n, 3000);
    fixture_close(&f);
}

TEST(scavenger, it_costs_about_a_hundredth_of_a_core) {
    struct fixture f = open_with(TRI_HEAP_NO_CYCLES, 0);
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, (TEST_IS_SLOW ? 100 : 400) * (size_t)MIB, 200000);
    tri_global_set(f.thread, list, NULL);
    fixture_collect(&f);
    idle_ms(&f, 8500); /* the window of what was needed */
    uint64_t start = tri__os_now_ns(), cpu = fixture_stats(f.heap).scavenge_ns;
    size_t before = heap_resident(f.heap);
    bool busy = !falls_to(f.heap, 20 * MIB, 2000);
    uint64_t wall_ns = tri__os_now_ns() - start, cpu_ns = fixture_stats(f.heap).scavenge_ns - cpu;
    CHECK(before > heap_resident(f.heap));
    /* A slice may be under way at both ends. */
    CHECK_MSG(cpu_ns <= wall_ns / 50 + 10000000, "%.2f ms of %.2f ms", (double)cpu_ns * 1e-6, (double)wall_ns * 1e-6);
    CHECK_MSG(!busy || cpu_ns > wall_ns / 500, "%.2f ms of %.2f ms, with memory left to return", (double)cpu_ns * 1e-6,
              (double)wall_ns * 1e-6);
    fixture_close(&f);
}

TEST(scavenger, a_sawtooth_keeps_its_pages) {
    struct fixture f = open_with(0, 0);
    tri_handle list = tri_global(f.thread, NULL);
    uint64_t returned = 0;
    for (int tooth = 0; tooth < 6; tooth++) {
        grow(&f, list, 40 * MIB, 20000);
        tri_global_set(f.thread, list, NULL);
        fixture_collect(&f);
        idle_ms(&f, 300);
        if (tooth == 0) returned = fixture_stats(f.heap).returned_bytes;
    }
    returned = fixture_stats(f.heap).returned_bytes - returned;
    CHECK_MSG(returned <= 20 * MIB, "%zu MiB of the same pages went back in five teeth", (size_t)(returned / MIB));
    fixture_close(&f);
}

/* ---- idle periods ---- */

/* A cycle that the growth began is not the idle period's. */
static void let_cycles_end(struct fixture *f) {
    while (atomic_load_acquire(&f->heap->triggered) || heap_phase(f->heap) != PHASE_IDLE) idle_ms(f, 1);
    idle_ms(f, 20); /* it is counted a moment after its phase */
}

TEST(scavenger, an_idle_heap_is_collected_and_trimmed_once) {
    struct fixture f = open_with(0, 400);
    tri_handle list = tri_global(f.thread, NULL), keep = tri_global(f.thread, NULL);
    grow(&f, keep, 5 * MIB, 1000);
    grow(&f, list, 60 * MIB, 20000);
    tri_global_set(f.thread, list, NULL);
    let_cycles_end(&f);
    uint64_t cycles = fixture_stats(f.heap).cycles;
    CHECK(idle_until_cycles(&f, cycles + 1));
    idle_ms(&f, 1500);
    tri_stats s = fixture_stats(f.heap);
    CHECK_MSG(s.cycles == cycles + 1, "%d cycles in one idle period", (int)(s.cycles - cycles));
    CHECK_MSG(s.committed_bytes + s.free_bytes <= 5 * MIB * 13 / 10 + 4 * MIB, "%zu + %zu bytes", s.committed_bytes,
              s.free_bytes);
    CHECK_EQ(s.free_bytes, 0);
    /* The next period has its own. */
    grow(&f, list, 20 * MIB, 20000);
    tri_global_set(f.thread, list, NULL);
    let_cycles_end(&f);
    cycles = fixture_stats(f.heap).cycles;
    CHECK(idle_until_cycles(&f, cycles + 1));
    idle_ms(&f, 1000);
    CHECK_EQ(fixture_stats(f.heap).cycles, cycles + 1);
    CHECK_EQ(fixture_stats(f.heap).free_bytes, 0);
    fixture_close(&f);
}

TEST(scavenger, the_process_falls_to_near_its_live_size) {
    if (TEST_IS_SLOW) return; /* shadow memory */
    struct fixture f = open_with(0, 500);
    size_t empty = process_resident();
    tri_handle list = tri_global(f.thread, NULL), keep = tri_global(f.thread, NULL);
    grow(&f, keep, 20 * MIB, 200);
    grow(&f, list, 300 * (size_t)MIB, 500);
    tri_global_set(f.thread, list, NULL);
    idle_until_cycles(&f, fixture_stats(f.heap).cycles + 1);
    idle_ms(&f, 1500);
    size_t live = fixture_stats(f.heap).live_bytes, now = process_resident() - empty;
    CHECK_MSG(now <= live * 13 / 10 + 4 * MIB, "%.1f MiB resident of %.1f MiB live", (double)now / (double)MIB,
              (double)live / (double)MIB);
    fixture_close(&f);
}

TEST(scavenger, a_heap_in_use_is_not_idle) {
    struct fixture f = open_with(0, 1000);
    tri_handle list = tri_global(f.thread, NULL);
    for (int i = 0; i < 40; i++) {
        grow(&f, list, 20000, 10000);
        idle_ms(&f, 50);
    }
    CHECK_EQ(fixture_stats(f.heap).cycles, 0);
    fixture_close(&f);
}

TEST(scavenger, a_little_allocation_begins_another_period) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.idle_trim_ms = 200;
    config.min_heap_bytes = 50 * MIB; /* no cycle but for the idle ones */
    struct fixture f = fixture_open_config(&config);
    tri_handle list = tri_global(f.thread, NULL);
    for (uint64_t period = 1; period <= 3; period++) {
        grow(&f, list, MIB, 20000);
        tri_global_set(f.thread, list, NULL);
        CHECK(idle_until_cycles(&f, period));
        idle_ms(&f, 500);
        CHECK_EQ(fixture_stats(f.heap).cycles, period);
    }
    fixture_close(&f);
}

TEST(scavenger, idle_trim_can_be_switched_off_and_on) {
    struct fixture f = open_with(0, 0);
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 2 * MIB, 20000);
    tri_global_set(f.thread, list, NULL);
    idle_ms(&f, 500);
    CHECK_EQ(fixture_stats(f.heap).cycles, 0);
    CHECK_EQ(tri_heap_set(f.heap, "idle_trim_ms=100"), TRI_OK);
    CHECK(idle_until_cycles(&f, 1));
    idle_ms(&f, 500);
    CHECK_EQ(fixture_stats(f.heap).cycles, 1);
    CHECK_EQ(fixture_stats(f.heap).free_bytes, 0);
    fixture_close(&f);
}

TEST(scavenger, without_cycles_an_idle_heap_is_only_trimmed) {
    struct fixture f = open_with(TRI_HEAP_NO_CYCLES, 300);
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 20 * MIB, 20000);
    tri_global_set(f.thread, list, NULL);
    fixture_collect(&f);
    CHECK(falls_to(f.heap, MIB, 3000));
    CHECK_EQ(fixture_stats(f.heap).cycles, 1);
    fixture_close(&f);
}

/* Voluntary switches of the thread that is named so; -1: there is none. */
static long switches_of(const char *name) {
    char path[300], line[256];
    long n = -1;
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir != NULL);
    for (struct dirent *d; (d = readdir(dir)) && n < 0;) {
        snprintf(path, sizeof path, "/proc/self/task/%.200s/status", d->d_name);
        FILE *f = fopen(path, "r");
        if (!f) continue;
        bool it = fgets(line, sizeof line, f) && strstr(line, name) && strchr(line, '\n');
        if (it && strcmp(strchr(line, '\t') + 1, name) != '\n') it = strlen(strchr(line, '\t') + 1) == strlen(name) + 1;
        while (it && fgets(line, sizeof line, f))
            if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1) break;
        fclose(f);
    }
    closedir(dir);
    return n;
}

TEST(scavenger, an_idle_heap_costs_no_wakeups) {
    struct fixture f = open_with(0, 200);
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 20 * MIB, 20000);
    tri_global_set(f.thread, list, NULL);
    idle_until_cycles(&f, fixture_stats(f.heap).cycles + 1);
    idle_ms(&f, 1000);
    CHECK_EQ(fixture_stats(f.heap).free_bytes, 0);
    long before = switches_of("trigc-mem");
    CHECK(before > 0);
    idle_ms(&f, 1500);
    CHECK_EQ(switches_of("trigc-mem"), before);
    fixture_close(&f);
}

/* ---- limits ---- */

TEST(scavenger, a_limit_that_is_near_returns_memory_at_once) {
    struct fixture f = open_with(TRI_HEAP_NO_CYCLES, 0);
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 60 * MIB, 20000);
    tri_global_set(f.thread, list, NULL);
    fixture_collect(&f);
    CHECK(heap_resident(f.heap) > 50 * MIB);
    CHECK_EQ(tri_heap_set(f.heap, "soft_limit_bytes=32M"), TRI_OK);
    CHECK_MSG(falls_to(f.heap, (size_t)32 * MIB / 100 * 96, 2000), "%zu bytes stay resident", heap_resident(f.heap));
    CHECK(heap_resident(f.heap) > 25 * MIB);
    fixture_close(&f);
}

/* Small objects first, then large ones: no run of free pages that the first leave behind is long enough. */
TEST(scavenger, the_heap_stays_within_its_hard_limit_with_its_free_pages) {
    struct fixture f = open_with(0, 0);
    tri__scavenger_stop(f.heap); /* what allocating threads do about it */
    f.heap->scavenger.started = false;
    CHECK_EQ(tri_heap_set(f.heap, "hard_limit_bytes=48M"), TRI_OK);
    CHECK_EQ(tri_heap_set(f.heap, "min_heap_bytes=64M"), TRI_OK); /* what is free is kept */
    tri_handle list = tri_global(f.thread, NULL), keep = tri_global(f.thread, NULL);
    size_t worst = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 60; i++) {
            grow(&f, list, MIB / 2, 30000);
            grow(&f, keep, 16000, 8000);
        }
        tri_global_set(f.thread, list, NULL);
        fixture_collect(&f);
        for (int i = 0; i < 12; i++) {
            grow(&f, list, 2 * MIB, 2 * MIB);
            worst = max_size(worst, heap_resident(f.heap));
        }
        tri_global_set(f.thread, list, NULL);
        tri_global_set(f.thread, keep, NULL);
    }
    CHECK_MSG(worst <= 49 * MIB, "%.1f MiB resident under a limit of 48 MiB", (double)worst / (double)MIB);
    fixture_close(&f);
}

/* Garbage beside a live size of 60 MiB, for `ms`. What collecting took of the time of two processors, in percent, and
 * the most that the heap had. */
struct squeeze {
    double percent;
    size_t most_bytes, nallocated_bytes;
};

static struct squeeze squeezed(struct fixture *f, unsigned ms) {
    struct squeeze result = {0, 0, 0};
    tri_stats before = fixture_stats(f->heap);
    uint64_t start = tri__os_now_ns();
    for (uint64_t end = now_ms() + ms; now_ms() < end;) {
        for (int i = 0; i < 1000; i++) CHECK(tri_new(f->thread, &pair_type) != NULL);
        result.most_bytes = max_size(result.most_bytes, fixture_stats(f->heap).heap_bytes);
    }
    tri_stats after = fixture_stats(f->heap);
    uint64_t spent_ns = after.mark_ns + after.sweep_ns + after.assist_ns + after.stall_ns - before.mark_ns -
                        before.sweep_ns - before.assist_ns - before.stall_ns;
    result.percent = (double)spent_ns * 50 / (double)(tri__os_now_ns() - start);
    result.nallocated_bytes = after.allocated_bytes - before.allocated_bytes;
    return result;
}

TEST(scavenger, near_the_soft_limit_collecting_takes_half_of_the_time_at_most) {
    if (TEST_IS_SLOW) return; /* it is about time */
    struct fixture f = open_with(0, 0);
    if (f.heap->ncpus < 2) return fixture_close(&f);
    f.heap->ncpus = 2;
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 60 * MIB, 64);
    CHECK_EQ(tri_heap_set(f.heap, "soft_limit_bytes=64M"), TRI_OK);
    fixture_collect(&f);
    struct squeeze without = squeezed(&f, 700); /* until the bucket of two seconds is full */
    squeezed(&f, 3000);                         /* it fills */
    struct squeeze with = squeezed(&f, 2000);
    tri_stats s = fixture_stats(f.heap);
    const char *figures = "without the limiter %.0f %% and %zu MiB, with it %.0f %% and %zu MiB";
    /* By the clock, so that on a busy machine the time without a core counts as well; the widest room is the growth of
     * 60 percent, and what is allocated while a cycle marks comes on top. */
    CHECK_MSG(with.percent <= 75 && with.percent <= without.percent - 5, figures, without.percent,
              without.most_bytes / MIB, with.percent, with.most_bytes / MIB);
    CHECK_MSG(with.most_bytes <= 240 * (size_t)MIB && without.most_bytes < 100 * (size_t)MIB, figures, without.percent,
              without.most_bytes / MIB, with.percent, with.most_bytes / MIB);
    CHECK_MSG(s.limited_cycles > 0 && s.limiter_percent <= 100, "%d limited cycles, %d %%", (int)s.limited_cycles,
              (int)s.limiter_percent);
    fixture_close(&f);
}

/* A program that allocates at a rate beside cycles of a length, told to the limiter as pace_next does. */
TEST(scavenger, the_limiter_widens_the_room_until_collecting_takes_half) {
    struct pacer_config config = {4 * MIB, 60, (size_t)100 * MIB, 0};
    struct pacer p;
    const double alloc_per_ns = 1.0, cycle_ns = 50e6; /* 1 GB a second, while nothing collects */
    double now = 1e9, spent = 0, late_now = 0, late_spent = 0;
    size_t widest = 0;
    tri__pacer_init(&p, &config);
    tri__pacer_end(&p, &config, (size_t)98 * MIB, 0, 0, 0, 0);
    for (int i = 0; i < 400; i++) {
        double free_ns = (double)(p.goal_bytes - p.base_bytes) / alloc_per_ns;
        now += free_ns + cycle_ns;
        spent += 2 * cycle_ns; /* the collector, and the thread that is held back */
        if (i == 200) late_now = now, late_spent = spent;
        if (i >= 200) widest = max_size(widest, p.goal_bytes);
        tri__pacer_spent(&p, (uint64_t)now, (uint64_t)spent, 2);
        tri__pacer_end(&p, &config, (size_t)98 * MIB, 0, 0, 0, 0);
        CHECK(p.limiter.fill_ns <= p.limiter.capacity_ns);
        CHECK(p.goal_bytes <= (size_t)98 * MIB * 16 / 10 + MIB);
        if (i < 10) CHECK(p.goal_bytes <= (size_t)105 * MIB); /* the bucket of two seconds takes a while to fill */
    }
    double share = (spent - late_spent) / (2 * (now - late_now));
    CHECK_MSG(share < 0.55, "%.2f of the time", share);
    CHECK(widest > (size_t)140 * MIB);
    /* Less to do: back within the limit. */
    for (int i = 0; i < 100; i++) {
        now += 1e9;
        spent += 1e7;
        tri__pacer_spent(&p, (uint64_t)now, (uint64_t)spent, 2);
        tri__pacer_end(&p, &config, (size_t)98 * MIB, 0, 0, 0, 0);
    }
    CHECK_EQ(p.limiter.fill_ns, 0);
    CHECK_EQ(p.limiter.doubled, 0);
    CHECK(p.goal_bytes <= (size_t)105 * MIB);
    /* The hard limit bounds what it may do. */
    config.hard_limit_bytes = (size_t)110 * MIB;
    p.limiter.doubled = 10;
    tri__pacer_end(&p, &config, (size_t)98 * MIB, 0, 0, 0, 0);
    CHECK_EQ(p.goal_bytes, (size_t)110 * MIB);
}

TEST(scavenger, the_goal_lies_within_the_hard_limit) {
    struct fixture f = open_with(0, 0);
    CHECK_EQ(tri_heap_set(f.heap, "hard_limit_bytes=40M"), TRI_OK);
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 30 * MIB, 1000);
    fixture_collect(&f);
    tri_stats s = fixture_stats(f.heap);
    CHECK_MSG(s.goal_bytes <= 40 * MIB, "a goal of %zu bytes cannot be reached", s.goal_bytes);
    CHECK(s.goal_bytes > s.live_bytes);
    fixture_close(&f);
}

/* ---- the page heap's part ---- */

struct told {
    size_t nreleased, last_first, nalarms, alarm_pages;
};
static bool on_commit(void *context, size_t first, size_t npages) {
    (void)context, (void)first, (void)npages;
    return true;
}
static void on_alarm(void *context, size_t npages) {
    struct told *told = context;
    told->nalarms++;
    told->alarm_pages = npages;
}
static void on_release(void *context, size_t first, size_t npages) {
    struct told *told = context;
    CHECK_EQ(npages, CHUNK_PAGES);
    told->nreleased++;
    told->last_first = first;
}

TEST(scavenger, tables_are_released_with_whole_chunks_that_were_in_use) {
    struct told told = {0};
    struct pageheap_ops ops = {on_commit, on_commit, &told, on_alarm, on_release, NULL, NULL};
    struct pageheap *ph = tri__pageheap_create((size_t)64 * CHUNK_PAGES, (size_t)8 * CHUNK_PAGES, &ops);
    size_t first, far;
    bool dirty;
    CHECK(ph != NULL);
    CHECK_EQ(tri__pageheap_release(ph), 0); /* nothing is there yet */
    CHECK(tri__pageheap_alloc(ph, 10, &first, &dirty));
    CHECK(tri__pageheap_alloc(ph, 2 * CHUNK_PAGES, &far, &dirty));
    CHECK_EQ(first, 0);
    tri__pageheap_free(ph, far, 2 * CHUNK_PAGES);
    CHECK_EQ(tri__pageheap_release(ph), 0); /* dirty pages first */
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 2 * CHUNK_PAGES);
    CHECK_EQ(tri__pageheap_release(ph), 2); /* the first chunk has pages in use */
    CHECK_EQ(told.last_first, 2 * CHUNK_PAGES);
    CHECK_EQ(tri__pageheap_release(ph), 0); /* once */
    CHECK_EQ(tri__pageheap_verify(ph, NULL, NULL), 0);
    tri__pageheap_free(ph, first, 10);
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 10);
    CHECK_EQ(tri__pageheap_release(ph), 1);
    CHECK(tri__pageheap_alloc(ph, CHUNK_PAGES + 1, &first, &dirty) && !dirty);
    tri__pageheap_free(ph, first, CHUNK_PAGES + 1);
    tri__pageheap_scavenge(ph, SIZE_MAX);
    CHECK_EQ(tri__pageheap_release(ph), 2); /* used again, released again */
    CHECK_EQ(tri__pageheap_verify(ph, NULL, NULL), 0);
    tri__pageheap_destroy(ph);
}

TEST(scavenger, the_alarm_tells_of_fresh_pages_beyond_it_while_others_are_free_and_dirty) {
    struct told told = {0};
    struct pageheap_ops ops = {on_commit, on_commit, &told, on_alarm, on_release, NULL, NULL};
    struct pageheap *ph = tri__pageheap_create((size_t)64 * CHUNK_PAGES, (size_t)8 * CHUNK_PAGES, &ops);
    size_t low, wall, high;
    bool dirty;
    tri__pageheap_set_alarm(ph, 100);
    CHECK(tri__pageheap_alloc(ph, 40, &low, &dirty) && tri__pageheap_alloc(ph, 1, &wall, &dirty));
    tri__pageheap_free(ph, low, 40);
    CHECK(tri__pageheap_alloc(ph, 59, &high, &dirty));
    CHECK_EQ(told.nalarms, 0); /* 100 pages are resident */
    tri__pageheap_free(ph, high, 59);
    CHECK(tri__pageheap_alloc(ph, 60, &high, &dirty));
    CHECK(dirty);
    CHECK_EQ(told.nalarms, 0); /* most of them were resident already */
    CHECK(tri__pageheap_alloc(ph, 41, &high, &dirty) && !dirty);
    CHECK_EQ(told.nalarms, 1);
    CHECK_EQ(told.alarm_pages, 41);
    CHECK(tri__pageheap_alloc(ph, 40, &low, &dirty) && dirty);
    CHECK(tri__pageheap_alloc(ph, 500, &high, &dirty) && !dirty);
    CHECK_EQ(told.nalarms, 1); /* nothing is left that could go */
    CHECK_EQ(tri__pageheap_take_peak(ph), 1 + 60 + 41 + 40 + 500);
    tri__pageheap_free(ph, high, 500);
    CHECK_EQ(tri__pageheap_take_peak(ph), 1 + 60 + 41 + 40 + 500);
    CHECK_EQ(tri__pageheap_take_peak(ph), 1 + 60 + 41 + 40);
    tri__pageheap_destroy(ph);
}

/* Which pages have memory, as the callbacks and the takers leave it. */
enum { AHEAD_PAGES = 16 * CHUNK_PAGES };
struct world {
    bool resident[AHEAD_PAGES];
    struct pageheap *ph; /* scavenged in the middle of populating, if set */
    bool refuses;
    size_t ntold;
};
static bool world_decommit(void *context, size_t first, size_t npages) {
    struct world *w = context;
    memset(w->resident + first, 0, npages);
    return true;
}
static bool world_populate(void *context, size_t first, size_t npages) {
    struct world *w = context;
    if (w->refuses) return false;
    if (w->ph) tri__pageheap_scavenge(w->ph, SIZE_MAX);
    memset(w->resident + first, 1, npages);
    return true;
}
static void world_ahead(void *context) {
    ((struct world *)context)->ntold++;
}

static struct pageheap *world_begin(struct world *w) {
    struct pageheap_ops ops = {on_commit, world_decommit, w, NULL, NULL, world_populate, world_ahead};
    memset(w, 0, sizeof *w);
    struct pageheap *ph = tri__pageheap_create(AHEAD_PAGES, CHUNK_PAGES, &ops);
    CHECK(ph != NULL);
    return ph;
}

/* What is free and has memory counts as such. */
static void world_check(struct world *w, struct pageheap *ph) {
    struct pageheap_stats ps;
    size_t n = 0;
    for (size_t i = 0; i < AHEAD_PAGES; i++) n += w->resident[i] && !tri__pageheap_in_use(ph, i);
    tri__pageheap_get_stats(ph, &ps);
    CHECK_MSG(n <= ps.dirty_free_pages, "%zu free pages are resident, %zu are counted", n, ps.dirty_free_pages);
    CHECK_EQ(tri__pageheap_verify(ph, NULL, NULL), 0);
}

TEST(scavenger, what_growth_takes_next_is_populated_and_stays_clean) {
    static struct world w;
    struct pageheap *ph = world_begin(&w);
    struct pageheap_stats ps;
    size_t a, b;
    bool dirty, working;
    CHECK(tri__pageheap_alloc(ph, 100, &a, &dirty));
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 32);
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 18);
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 0);
    CHECK(working && w.resident[100] && w.resident[149] && !w.resident[150]);
    tri__pageheap_get_stats(ph, &ps);
    CHECK_EQ(ps.dirty_free_pages, 50);
    tri__pageheap_set_ahead(ph, 20);
    CHECK(tri__pageheap_alloc(ph, 30, &b, &dirty) && b == 100 && !dirty);
    CHECK_EQ(w.ntold, 0); /* 20 are left */
    CHECK(tri__pageheap_alloc(ph, 1, &b, &dirty) && !dirty);
    CHECK_EQ(w.ntold, 1);
    CHECK(tri__pageheap_alloc(ph, 1, &b, &dirty) && !dirty);
    CHECK_EQ(w.ntold, 1); /* once */
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 18);
    CHECK(!w.resident[132] && !w.resident[149]);
    /* A block that comes back untouched. */
    struct page_block block = {0, 0, 0};
    CHECK(tri__pageheap_alloc(ph, 192 - 132, &b, &dirty));
    CHECK_EQ(tri__pageheap_populate(ph, 50, 50, &working), 50);
    CHECK(tri__pageheap_take_block(ph, &block) && block.first == 192 && block.dirty == 0);
    tri__pageheap_put_block(ph, &block);
    world_check(&w, ph);
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 64);
    tri__pageheap_free(ph, b, 192 - 132);
    tri__pageheap_scavenge(ph, SIZE_MAX);
    /* A trim while the system populates: the slice counts as resident afterwards. */
    w.ph = ph;
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 32);
    w.ph = NULL;
    world_check(&w, ph);
    CHECK_EQ(tri__pageheap_scavenge(ph, SIZE_MAX), 32);
    w.refuses = true;
    tri__pageheap_populate(ph, 50, 32, &working);
    CHECK(!working);
    world_check(&w, ph);
    /* After a trim the same pages are the next ones again. */
    w.refuses = false;
    tri__pageheap_free(ph, a, 100);
    tri__pageheap_scavenge(ph, SIZE_MAX);
    CHECK_EQ(tri__pageheap_populate(ph, 50, 32, &working), 32);
    CHECK(w.resident[132] && !w.resident[50]);
    tri__pageheap_destroy(ph);
}

TEST(scavenger, populated_pages_are_never_lost_from_the_count) {
    static struct world w;
    uint64_t seed = fixture_seed();
    struct pageheap *ph = world_begin(&w);
    struct {
        size_t first, npages;
    } runs[64] = {{0, 0}};
    struct page_block block = {0, 0, 0};
    for (int step = 0; step < 4000; step++) {
        uint64_t r = fixture_random(&seed);
        size_t i = r % 64, npages = 1 + (r >> 8) % ((r >> 20) % 8 ? 12 : 300);
        bool dirty, working;
        if ((r >> 32) % 8 < 3) {
            tri__pageheap_populate(ph, (r >> 36) % 400, 1 + (r >> 48) % 64, &working);
        } else if ((r >> 32) % 64 == 63) {
            tri__pageheap_scavenge(ph, (r >> 40) % 500);
        } else if ((r >> 32) % 8 == 6) {
            if (block.free) {
                tri__pageheap_put_block(ph, &block);
            } else if (tri__pageheap_take_block(ph, &block)) {
                for (size_t k = 0; k < 64 && r >> 63; k++) /* half of them are written to, or none */
                    if (k % 2 && block.free >> k & 1) {
                        w.resident[block.first + k] = true;
                        block.dirty |= UINT64_C(1) << k;
                    }
            }
        } else if (runs[i].npages) {
            tri__pageheap_free(ph, runs[i].first, runs[i].npages);
            runs[i].npages = 0;
        } else if (tri__pageheap_alloc(ph, npages, &runs[i].first, &dirty)) {
            runs[i].npages = npages;
            memset(w.resident + runs[i].first, 1, npages);
        }
        if (step % 16 == 0) world_check(&w, ph);
    }
    tri__pageheap_put_block(ph, &block);
    for (size_t i = 0; i < 64; i++)
        if (runs[i].npages) tri__pageheap_free(ph, runs[i].first, runs[i].npages);
    tri__pageheap_scavenge(ph, SIZE_MAX);
    for (size_t i = 0; i < AHEAD_PAGES; i++) CHECK_MSG(!w.resident[i], "page %zu keeps its memory", i);
    tri__pageheap_destroy(ph);
}

static long own_faults(void) {
    struct rusage u;
    CHECK_EQ(getrusage(RUSAGE_THREAD, &u), 0);
    return u.ru_minflt;
}

TEST(scavenger, a_growing_heap_finds_its_pages_populated) {
    if (TEST_IS_SLOW) return;
    long faults[2];
    for (int ahead = 0; ahead < 2; ahead++) {
        struct fixture f = open_with(0, 0);
        fixture_set(f.heap, ahead ? "populate=on" : "populate=off");
        tri_handle list = tri_global(f.thread, NULL);
        grow(&f, list, 100 * (size_t)MIB, 2000);
        long before = own_faults();
        for (int i = 0; i < 100; i++) {
            grow(&f, list, 2 * MIB, 2000);
            fixture_sleep_ms(2); /* the machine may be busy */
        }
        faults[ahead] = own_faults() - before;
        tri_global_set(f.thread, list, NULL);
        fixture_collect(&f);
        tri_trim(f.heap);
        CHECK(fixture_stats(f.heap).free_bytes == 0);
        fixture_close(&f);
    }
    CHECK_MSG(faults[0] > 40000, "%ld page faults without: nothing is shown", faults[0]);
    CHECK_MSG(faults[1] < faults[0] / 4 * 3, "%ld page faults, %ld without", faults[1], faults[0]);
}

/* ---- threads that cannot be had ---- */

TEST(scavenger, without_its_thread_memory_goes_back_after_a_cycle) {
    struct fixture f = open_with(TRI_HEAP_NO_CYCLES, 100);
    tri__scavenger_stop(f.heap); /* as if it had never started */
    f.heap->scavenger.started = false;
    tri_handle list = tri_global(f.thread, NULL);
    grow(&f, list, 40 * MIB, 20000);
    tri_global_set(f.thread, list, NULL);
    fixture_collect(&f);
    CHECK_MSG(heap_resident(f.heap) <= 6 * MIB, "%zu bytes stay resident", heap_resident(f.heap));
    grow(&f, list, 10 * MIB, 20000);
    CHECK_EQ(tri_heap_set(f.heap, "soft_limit_bytes=64M"), TRI_OK);
    fixture_close(&f);
}

TEST(scavenger, trim_counts_what_goes_while_the_thread_works) {
    struct fixture f = open_with(TRI_HEAP_NO_CYCLES, 50);
    tri_handle list = tri_global(f.thread, NULL);
    for (unsigned i = 0; i < 20; i++) {
        grow(&f, list, 8 * MIB, 20000);
        tri_global_set(f.thread, list, NULL);
        fixture_collect(&f);
        uint64_t before = fixture_stats(f.heap).returned_bytes;
        size_t went = tri_trim(f.heap);
        CHECK(fixture_stats(f.heap).returned_bytes >= before + went);
        fixture_sleep_ms(i * 7 % 60);
    }
    CHECK(falls_to(f.heap, MIB, 2000));
    fixture_close(&f);
}
