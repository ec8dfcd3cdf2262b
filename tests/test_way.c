/*
 * test_way.c: on a machine with one core, which a thread of the program uses, the collector and its markers rest
 * between two pieces of what they mark and of the roots that they scan: what they do in between is counted in units of
 * work (gc/units.h).
 *
 * The clock is the test's own while a cycle is looked at: it stands still, but that each look of a collector's thread
 * takes a whole slice. So the next place that may give way does, and no other program on the machine shows.
 */
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gc/units.h"
#include "tests/fixture.h"

#if TRI_CHECKS >= 1

enum { NANOS_A_LOOK = 250000, NANOS_OF_OTHERS = 1000, MOST_UNITS = 4 * UNITS_A_LOOK, LEAST_UNITS = 8 * MOST_UNITS };

enum who { UNKNOWN, OTHER, COLLECTOR, MARKER, NUM_WHO };

static _Thread_local enum who who;
static _Thread_local size_t since_rest;
static _Thread_local uint32_t round_seen;
static uint32_t nrounds; /* times that the clock was held [atomic] */

/* What the threads of a kind did while the clock was held: in all, and between two rests at most [atomic]. */
static struct { uint64_t all, most; } work[NUM_WHO];

/* Where the clock stands still, 0: it does not; what it is ahead by; and that of the marker that is farthest. A marker
 * has its own, or it would have been away for as long as the collector's looks say. [atomic] */
static uint64_t held_ns, ahead_ns, farthest_ns;
static _Thread_local uint64_t own_ahead_ns;

static enum who who_am_i(void) {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof name);
    return strcmp(name, "trigc") == 0 ? COLLECTOR : strcmp(name, "trigc-mark") == 0 ? MARKER : OTHER;
}

static void raise_to(uint64_t *counter, uint64_t n) {
    uint64_t seen = atomic_load_relaxed(counter);
    while (n > seen && !atomic_cas_relaxed(counter, &seen, n)) {}
}

static void look(void) {
    if (who == UNKNOWN) who = who_am_i();
    size_t n = tri__units_take_sum();
    uint32_t round = atomic_load_relaxed(&nrounds); /* ordered by held_ns */
    if (round != round_seen) {                      /* of the time before */
        n = since_rest = 0;
        own_ahead_ns = atomic_load_relaxed(&ahead_ns);
    }
    round_seen = round;
    since_rest += n;
    atomic_add_relaxed(&work[who].all, n); /* counters */
    raise_to(&work[who].most, since_rest);
}

/* What the calling thread's clock is ahead by. */
static uint64_t look_at_clock(void) {
    look();
    if (who != MARKER) return atomic_add_relaxed(&ahead_ns, who == OTHER ? NANOS_OF_OTHERS : NANOS_A_LOOK);
    raise_to(&farthest_ns, own_ahead_ns += NANOS_A_LOOK);
    return own_ahead_ns;
}

static uint64_t real_ns(clockid_t clock, struct timespec *t) {
    syscall(SYS_clock_gettime, clock, t);
    return (uint64_t)t->tv_sec * 1000000000 + (uint64_t)t->tv_nsec;
}

/* In the C library's place, for the whole program. */
int clock_gettime(clockid_t clock, struct timespec *t) {
    uint64_t now = real_ns(clock, t), held = atomic_load_acquire(&held_ns); /* pairs with begin and end */
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE) return 0;
    now = held ? held + look_at_clock() : now + atomic_load_relaxed(&ahead_ns); /* a counter */
    t->tv_sec = (time_t)(now / 1000000000);
    t->tv_nsec = (long)(now % 1000000000);
    return 0;
}

static uint64_t asked_ns; /* for a rest, most [atomic] */

/* Nobody sleeps while the clock stands still. */
int nanosleep(const struct timespec *t, struct timespec *left) {
    if (!atomic_load_acquire(&held_ns)) return (int)syscall(SYS_nanosleep, t, left); /* pairs with begin and end */
    look();
    since_rest = 0;
    raise_to(&asked_ns, (uint64_t)t->tv_nsec);
    return sched_yield();
}

static void begin(void) {
    struct timespec t;
    for (int i = 0; i < NUM_WHO; i++) { /* no cycle runs: counters */
        atomic_store_relaxed(&work[i].all, 0);
        atomic_store_relaxed(&work[i].most, 0);
    }
    atomic_add_relaxed(&nrounds, 1);
    atomic_store_release(&held_ns, real_ns(CLOCK_MONOTONIC, &t));
}

static void end(void) {
    raise_to(&ahead_ns, atomic_load_relaxed(&farthest_ns)); /* a counter */
    atomic_store_release(&held_ns, 0);
}

/* Who uses the core: a thread that runs, and polls. */
static struct {
    pthread_t id;
    tri_heap *heap;
    uint32_t runs, stop; /* [atomic] */
} other;

static void *run_and_poll(void *arg) {
    tri_thread *thread = fixture_attach(other.heap);
    atomic_store_release(&other.runs, 1);                                      /* pairs with open_on_one_core */
    for (; !atomic_load_acquire(&other.stop); sched_yield()) tri_poll(thread); /* pairs with close_one_core */
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return arg;
}

static struct fixture open_on_one_core(const char *setting) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.idle_trim_ms = 0;
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, setting);
    fixture_use_millicpus(f.heap, 1000, false);
    other.heap = f.heap;
    atomic_store_relaxed(&other.runs, 0); /* the thread is not there yet */
    atomic_store_relaxed(&other.stop, 0);
    CHECK_EQ(pthread_create(&other.id, NULL, run_and_poll, NULL), 0);
    while (!atomic_load_acquire(&other.runs)) tri_poll(f.thread); /* pairs with run_and_poll */
    return f;
}

static void close_one_core(struct fixture *f) {
    atomic_store_release(&other.stop, 1); /* pairs with run_and_poll */
    fixture_join(f->thread, other.id);
    fixture_close(f);
}

static void expect_rests(enum who of, const char *what) {
    uint64_t all = atomic_load_acquire(&work[of].all), most = atomic_load_acquire(&work[of].most);
    CHECK_MSG(all >= LEAST_UNITS, "%s: only %llu units in all", what, (unsigned long long)all);
    CHECK_EQ(atomic_load_acquire(&asked_ns), 200000); /* half of the core: somebody waits for the cycle */
    CHECK_MSG(most <= MOST_UNITS, "%s: %llu units of %llu between two rests", what, (unsigned long long)most,
              (unsigned long long)all);
}

/* One cycle, in which the collector rests often enough. */
static void collect(struct fixture *f, const char *what) {
    begin();
    fixture_collect(f);
    end();
    expect_rests(COLLECTOR, what);
}

enum { MANY = TEST_IS_SLOW ? 40000 : 100000 };

/* An array of so many new objects. */
static void **make_many(struct fixture *f, void **root, tri_type *type) {
    void **array = *root = tri_new_n(f->thread, &array_type, MANY);
    CHECK(array != NULL);
    for (size_t i = 0; i < MANY; i++) {
        void *p = tri_new(f->thread, type);
        CHECK(p != NULL);
        tri_store(f->thread, array, &array[i], p);
    }
    return array;
}

/* A list: it is marked object by object. */
static void make_list(struct fixture *f, void **root) {
    *root = NULL;
    for (size_t i = 0; i < MANY; i++) {
        struct pair *p = tri_new(f->thread, &pair_type);
        CHECK(p != NULL);
        tri_init(f->thread, p, &p->left, *root);
        *root = p;
    }
}

TEST(way, marking_rests) {
    struct fixture f = open_on_one_core("workers=1");
    TRI_LOCALS(f.thread, locals, 2);
    make_list(&f, &locals[0]);
    make_many(&f, &locals[1], &pair_type);
    collect(&f, "marking");
    TRI_POP(f.thread, locals);
    close_one_core(&f);
}

/* A worker gets its share when the system lets it run: as many cycles as that takes. */
TEST(way, marking_by_workers_rests) {
    struct fixture f = open_on_one_core("workers=2");
    TRI_LOCALS(f.thread, locals, 1);
    make_many(&f, &locals[0], &pair_type);
    fixture_collect(&f);
    begin();
    while (atomic_load_acquire(&work[MARKER].all) < LEAST_UNITS) fixture_collect(&f);
    end();
    expect_rests(MARKER, "a worker");
    expect_rests(COLLECTOR, "marking beside a worker");
    TRI_POP(f.thread, locals);
    close_one_core(&f);
}

TEST(way, scanning_of_root_ranges_rests) {
    enum { NRANGES = 64, NSLOTS = 8192 };
    struct fixture f = open_on_one_core("workers=1");
    static void *slots[NRANGES][NSLOTS];
    tri_root *ranges[NRANGES];
    for (size_t i = 0; i < NRANGES; i++) CHECK((ranges[i] = tri_root_add(f.thread, slots[i], NSLOTS, NULL)) != NULL);
    collect(&f, "root ranges");
    for (size_t i = 0; i < NRANGES; i++) tri_root_remove(f.thread, ranges[i]);
    close_one_core(&f);
}

#endif
