/*
 * Threads that do not answer by themselves: blocking regions and calls back in, with one heap and with several, world
 * stops that want each other's threads, and threads that fall silent without a word.
 */
#include "tests/fixture.h"

#include <sys/resource.h>

/* ---- Blocking regions ---- */

struct asleep {
    tri_heap *heap;
    pthread_barrier_t barrier;
    tri_thread *thread;
};

static void *two_barriers(void *arg) {
    struct asleep *a = arg;
    pthread_barrier_wait(&a->barrier);
    pthread_barrier_wait(&a->barrier);
    return NULL;
}

static void *sleep_blocked(void *arg) {
    struct asleep *a = arg;
    a->thread = fixture_attach(a->heap);
    for (int i = 0; i < 100; i++) CHECK(tri_new(a->thread, &pair_type) && tri_new_bytes(a->thread, 100));
    tri_blocking(a->thread, two_barriers, a);
    CHECK(tri_new(a->thread, &pair_type) != NULL);
    CHECK_EQ(tri_detach(a->thread), TRI_OK);
    return NULL;
}

static size_t holes_of(const struct mutator *m) {
    size_t n = 0;
    for (const tri_hole *h = cache_first(&m->cache); h; h = cache_after(&m->cache, h)) n += h->span != NULL;
    return n;
}

TEST(threads, a_blocked_thread_keeps_no_hole_past_a_cycle) {
    struct fixture f = fixture_open();
    struct asleep a = {.heap = f.heap};
    pthread_t thread;
    pthread_barrier_init(&a.barrier, NULL, 2);
    pthread_create(&thread, NULL, sleep_blocked, &a);
    pthread_barrier_wait(&a.barrier);
    CHECK(holes_of(mutator_of(a.thread)) > 0);
    fixture_collect(&f);
    CHECK_EQ(holes_of(mutator_of(a.thread)), 0);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    pthread_barrier_wait(&a.barrier);
    fixture_join(f.thread, thread);
    fixture_close(&f);
}

static struct fixture *region; /* of the tests below, whose functions get plain arguments */

static void *inner_region(void *arg) {
    return arg;
}

static void *nest(void *arg) {
    fixture_take_reports();
    CHECK(tri_blocking(region->thread, inner_region, arg) == NULL);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_blocking"), "%s", fixture_report);
    return arg;
}

TEST(threads, a_blocking_region_inside_a_blocking_region_is_refused) {
    struct fixture f = fixture_open();
    region = &f;
    static int token;
    CHECK(tri_blocking(f.thread, nest, &token) == &token);
    CHECK(tri_blocking(f.thread, inner_region, &token) == &token);
    fixture_collect(&f);
    fixture_close(&f);
}

static void *mutate_again(void *arg) {
    TRI_LOCALS(region->thread, roots, 1);
    struct pair *p = roots[0] = tri_new(region->thread, &pair_type);
    p->value = 0xabcd;
    tri_global_set(region->thread, arg, p);
    CHECK_EQ(tri_detach(region->thread), TRI_ESTATE);
    CHECK_MSG(strstr(tri_last_error(), "tri_detach"), "%s", tri_last_error());
    fixture_collect(region);
    static int token;
    CHECK(tri_blocking(region->thread, inner_region, &token) == &token); /* blocks again, as an ordinary mutator may */
    fixture_collect(region);
    CHECK_EQ(p->value, 0xabcd);
    TRI_POP(region->thread, roots);
    return p;
}

static void *call_back_in(void *arg) {
    for (int i = 0; i < 3; i++) CHECK(tri_callin(region->thread, mutate_again, arg) == tri_deref(arg));
    return NULL;
}

TEST(threads, a_region_can_call_back_in) {
    struct fixture f = fixture_open();
    region = &f;
    tri_handle h = tri_global(f.thread, NULL);
    tri_blocking(f.thread, call_back_in, h);
    CHECK_EQ(((struct pair *)tri_deref(h))->value, 0xabcd);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 1);
    fixture_close(&f);
}

/* Regions inside calls inside regions, deeper than a thread has room for at first. */
enum { NESTED = 11 };
struct nested {
    tri_heap *heap;
    tri_thread *thread;
    uintptr_t args[NESTED]; /* hidden */
    int level;
};

static void *enter_next(void *arg);

static void *call_next(void *arg) {
    struct nested *n = arg;
    int level = n->level++;
    fixture_new_hidden(&(struct fixture){n->heap, n->thread}); /* garbage between them */
    if (level + 1 < NESTED) {
        struct pair *p = tri_new(n->thread, &pair_type);
        n->args[level + 1] = hide(p);
        tri_blocking(n->thread, enter_next, p);
    } else {
        struct fixture f = {n->heap, n->thread};
        fixture_collect(&f);
        for (int i = 1; i < NESTED; i++)
            CHECK_MSG(is_alive(n->heap, n->args[i]), "the argument of level %d is gone", i);
    }
    return NULL;
}

static struct nested nested;

static void *enter_next(void *arg) {
    (void)arg;
    tri_callin(nested.thread, call_next, &nested);
    return NULL;
}

/* Of a precise attachment: no word of its native stack keeps one of them. */
TEST(threads, the_argument_of_each_region_is_a_root_while_others_run_inside_it) {
    struct fixture f = fixture_open_flags(TRI_HEAP_PRECISE);
    nested = (struct nested){.heap = f.heap, .thread = f.thread};
    tri_blocking(f.thread, enter_next, NULL);
    CHECK_EQ(nested.level, NESTED);
    fixture_collect(&f);
    for (int i = 1; i < NESTED; i++)
        CHECK_MSG(!is_alive(f.heap, nested.args[i]), "the argument of level %d is kept", i);
    fixture_close(&f);
}

TEST(threads, calling_in_from_outside_a_region_is_refused) {
    struct fixture f = fixture_open();
    static int token;
    CHECK(tri_callin(f.thread, inner_region, &token) == NULL);
    CHECK_MSG(strstr(tri_last_error(), "tri_callin") && strstr(tri_last_error(), "tri_blocking"), "%s",
              tri_last_error());
    fixture_close(&f);
}

/* ---- Several heaps ---- */

struct two_heaps {
    tri_heap *polled, *other;
    uint32_t ready, stop;
};

static void *poll_one_heap(void *arg) {
    struct two_heaps *t = arg;
    tri_thread *polled = fixture_attach(t->polled), *other = fixture_attach(t->other);
    TRI_LOCALS(other, roots, 1);
    struct pair *p = roots[0] = tri_new(other, &pair_type);
    p->value = 0xabcd;
    atomic_store_release(&t->ready, 1);
    while (!atomic_load_acquire(&t->stop)) tri_poll(polled);
    CHECK_EQ(p->value, 0xabcd);
    TRI_POP(other, roots);
    CHECK_EQ(tri_detach(polled), TRI_OK);
    CHECK_EQ(tri_detach(other), TRI_OK);
    return NULL;
}

TEST(threads, a_poll_on_one_heap_answers_the_others, .timeout = 60) {
    struct fixture a = fixture_open(), b = fixture_open();
    struct two_heaps t = {a.heap, b.heap, 0, 0};
    pthread_t thread;
    pthread_create(&thread, NULL, poll_one_heap, &t);
    while (!atomic_load_acquire(&t.ready)) sched_yield();
    for (int i = 0; i < 20; i++) {
        fixture_collect(&b);
        fixture_collect(&a);
    }
    CHECK_EQ(tri_walk(b.thread, NULL, NULL), 1);
    atomic_store_release(&t.stop, 1);
    fixture_join(a.thread, thread);
    fixture_close(&a);
    fixture_close(&b);
}

static tri_heap *blocking_heaps[2];

static void *block_on_one_heap(void *arg) {
    struct asleep *a = arg;
    tri_thread *polled = fixture_attach(blocking_heaps[0]);
    tri_thread *other = fixture_attach(blocking_heaps[1]);
    CHECK(tri_new(other, &pair_type) != NULL);
    tri_blocking(polled, two_barriers, a);
    CHECK_EQ(tri_detach(polled), TRI_OK);
    CHECK_EQ(tri_detach(other), TRI_OK);
    return NULL;
}

TEST(threads, a_blocking_region_answers_for_every_heap) {
    struct fixture a = fixture_open(), b = fixture_open();
    struct asleep s = {.heap = NULL};
    blocking_heaps[0] = a.heap, blocking_heaps[1] = b.heap;
    pthread_barrier_init(&s.barrier, NULL, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, block_on_one_heap, &s);
    pthread_barrier_wait(&s.barrier);
    for (int i = 0; i < 20; i++) {
        fixture_collect(&a);
        fixture_collect(&b);
    }
    pthread_barrier_wait(&s.barrier);
    fixture_join(a.thread, thread);
    fixture_close(&a);
    fixture_close(&b);
}

/* ---- World stops ---- */

/* A thread that two collectors want: asleep in a blocking region, attached to both heaps. */
struct wanted {
    tri_heap *heaps[2];
    struct mutator *m; /* in the first heap */
    struct asleep asleep;
};

static void *sleep_wanted(void *arg) {
    struct wanted *w = arg;
    tri_thread *a = fixture_attach(w->heaps[0]), *b = fixture_attach(w->heaps[1]);
    CHECK(tri_new(a, &pair_type) && tri_new(b, &pair_type));
    w->m = mutator_of(a);
    tri_blocking(a, two_barriers, &w->asleep);
    CHECK_EQ(tri_detach(a), TRI_OK);
    CHECK_EQ(tri_detach(b), TRI_OK);
    return NULL;
}

/* As another heap's collector: it holds one thread's state word, and wants that of another. */
struct rival {
    struct mutator *has, *wants;
    bool got;
};

static bool take_word(struct mutator *m) {
    uint32_t expected = OS_BLOCKED; /* as hold() in handshake.c does it */
    return atomic_cas_seq(&m->os->state, &expected, OS_HELD);
}

static bool is_stopped(struct mutator *m) {
    tri__lock_acquire(&m->heap->threads_lock);
    bool stopped = m->stopped;
    tri__lock_release(&m->heap->threads_lock);
    return stopped;
}

static void *want_another(void *arg) {
    struct rival *r = arg;
    uint64_t end = tri__os_now_ns() + 4000000000ull;
    while (!is_stopped(r->wants)) sched_yield();
    while (!r->got && tri__os_now_ns() < end) r->got = take_word(r->wants);
    if (r->got) atomic_store_seq(&r->wants->os->state, OS_BLOCKED); /* nobody waits for it: its thread sleeps */
    atomic_store_seq(&r->has->os->state, OS_BLOCKED);
    return NULL;
}

/* The stop holds the thread that the rival wants, and wants the one that the rival holds: neither comes to an end
 * unless one of them gives back what it holds. */
TEST(threads, a_world_stop_gives_back_what_it_holds_while_it_waits_for_another, .timeout = 60) {
    struct fixture a = fixture_open(), b = fixture_open();
    for (int which = 0; which < 2; which++) { /* whichever comes first in the heap's list */
        static struct wanted w[2];
        pthread_t threads[2], rival;
        for (int i = 0; i < 2; i++) {
            w[i] = (struct wanted){.heaps = {a.heap, b.heap}};
            pthread_barrier_init(&w[i].asleep.barrier, NULL, 2);
            CHECK_EQ(pthread_create(&threads[i], NULL, sleep_wanted, &w[i]), 0);
            pthread_barrier_wait(&w[i].asleep.barrier);
        }
        struct rival r = {w[which].m, w[1 - which].m, false};
        CHECK(take_word(r.has));
        CHECK_EQ(pthread_create(&rival, NULL, want_another, &r), 0);
        CHECK_EQ(tri_walk(a.thread, NULL, NULL), 2);
        fixture_join(a.thread, rival);
        CHECK_MSG(r.got, "the stop never gave back what it held");
        for (int i = 0; i < 2; i++) {
            pthread_barrier_wait(&w[i].asleep.barrier);
            fixture_join(a.thread, threads[i]);
        }
        fixture_collect(&a);
        fixture_collect(&b);
    }
    fixture_close(&a);
    fixture_close(&b);
}

/* The same with two real collectors: two threads stop two heaps that both of them are attached to. */
struct stopper {
    tri_heap *mine, *other;
    pthread_barrier_t *together;
    int rounds;
};

static void *wait_together(void *barrier) {
    pthread_barrier_wait(barrier);
    return NULL;
}

static void *stop_worlds(void *arg) {
    struct stopper *s = arg;
    tri_thread *mine = fixture_attach(s->mine), *other = fixture_attach(s->other);
    TRI_LOCALS(mine, roots, 1);
    roots[0] = tri_new(mine, &pair_type);
    for (int i = 0; i < s->rounds; i++) {
        tri_blocking(other, wait_together, s->together);
        CHECK_MSG(tri_walk(mine, NULL, NULL) >= 1, "round %d: %s", i, tri_last_error());
        CHECK_MSG(tri_verify(mine) == 0, "round %d: %s", i, tri_last_error());
    }
    TRI_POP(mine, roots);
    CHECK_EQ(tri_detach(mine), TRI_OK);
    CHECK_EQ(tri_detach(other), TRI_OK);
    return NULL;
}

TEST(threads, two_heaps_stop_their_worlds_over_the_same_threads, .timeout = 120) {
    struct fixture a = fixture_open(), b = fixture_open();
    pthread_barrier_t together;
    pthread_barrier_init(&together, NULL, 2);
    int rounds = test_stress() ? 5000 : 200;
    struct stopper s[2] = {{a.heap, b.heap, &together, rounds}, {b.heap, a.heap, &together, rounds}};
    pthread_t threads[2];
    uint64_t start = tri__os_now_ns();
    for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, stop_worlds, &s[i]), 0);
    for (int i = 0; i < 2; i++) fixture_join(a.thread, threads[i]);
    uint64_t took_ms = (tri__os_now_ns() - start) / 1000000;
    CHECK_MSG(test_stress() || took_ms < 60000, "%d stops of each heap took %llu ms", rounds,
              (unsigned long long)took_ms);
    fixture_close(&a);
    fixture_close(&b);
}

/* ---- Silent threads ---- */

/* So that whoever tells of them gets a core in time on a busy machine; the collection after it has to end within it. */
enum { WAIT_LIMIT_MS = 1000 };

struct silent {
    tri_heap *heap;
    uint32_t ready, nevents, stop;
    uint64_t id, told_id, told_ns;
    const char *told_call;
    const void *told_site;
};

static struct silent silent;

static void on_event(const tri_event *event, void *user) {
    (void)user;
    if (event->kind != TRI_EVENT_SILENT_THREAD) return;
    CHECK_EQ(event->struct_size, sizeof *event);
    atomic_store_relaxed(&silent.told_id, event->silent_thread_id);
    atomic_store_relaxed(&silent.told_ns, event->silent_ns);
    atomic_store_relaxed(&silent.told_call, event->silent_call);
    atomic_store_relaxed(&silent.told_site, event->silent_site);
    atomic_add_acqrel(&silent.nevents, 1);
}

static void *fall_silent(void *arg) {
    struct silent *s = arg;
    tri_thread *thread = fixture_attach(s->heap);
    s->id = tri__os_thread_id();
    CHECK(tri_new_bytes(thread, 100) != NULL);       /* its last slow path */
    for (int i = 0; i < 1000; i++) tri_poll(thread); /* the fast path leaves no trace */
    atomic_store_release(&s->ready, 1);
    while (!atomic_load_acquire(&s->stop)) fixture_sleep_ms(1); /* no poll, no blocking region */
    tri_poll(thread);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    return NULL;
}

/* The thread is heard of again: once the cycle that waited for it has ended, nothing is short of time. */
static void hear_again(struct fixture *f, pthread_t thread) {
    atomic_store_release(&silent.stop, 1);
    fixture_join(f->thread, thread);
    for (bool ended = false; !ended; sched_yield()) {
        tri_poll(f->thread);
        tri__lock_acquire(&f->heap->cycle_lock);
        ended = !f->heap->wanted && !f->heap->jobs && f->heap->runner == RUNNER_NONE && !f->heap->handed_over &&
                f->heap->started == f->heap->finished;
        if (ended) f->heap->config.wait_limit_ms = 120000;
        tri__lock_release(&f->heap->cycle_lock);
    }
}

/* The event names the call that was the thread's last safepoint, and where in the program it was made. */
static void expect_site(void) {
    const char *call = atomic_load_relaxed(&silent.told_call);
    uintptr_t site = (uintptr_t)atomic_load_relaxed(&silent.told_site), from = (uintptr_t)fall_silent;
    CHECK_MSG(call && strcmp(call, "tri_new_bytes") == 0, "%s", call ? call : "no call");
    CHECK_MSG(site > from && site < from + 4096, "%p is not in fall_silent", (void *)site);
}

/* Times that this thread gave its core away. */
static long count_sleeps(void) {
    struct rusage usage;
    CHECK_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
    return usage.ru_nvcsw;
}

/* Where memory ends while a thread keeps cycles from their end, an allocation waits for wait_limit_ms, gets NULL, and
 * says whose fault it is. What there is is had until then. */
TEST(threads, at_the_limit_an_allocation_names_the_silent_thread, .timeout = 60) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.event = on_event;
    config.silent_after_ms = 20;
    config.wait_limit_ms = WAIT_LIMIT_MS;
    config.hard_limit_bytes = 8 * MIB;
    struct fixture f = fixture_open_config(&config);
    silent = (struct silent){.heap = f.heap};
    pthread_t thread;
    pthread_create(&thread, NULL, fall_silent, &silent);
    while (!atomic_load_acquire(&silent.ready)) sched_yield();
    size_t nbytes = 0;
    uint64_t nheld = 0;
    for (bool had = true; had; nbytes += 1000) {
        long nsleeps = count_sleeps();
        uint64_t start = tri__os_now_ns();
        had = tri_new_bytes(f.thread, 1000) != NULL;
        uint64_t took_ns = tri__os_now_ns() - start;
        if (!had)
            CHECK_MSG(took_ns >= WAIT_LIMIT_MS * 1000000ull, "refused after %llu ns", (unsigned long long)took_ns);
        nheld += had && took_ns > 100000000 &&
                 count_sleeps() > nsleeps; /* not only without a core, on a busy machine */
    }
    char id[32];
    snprintf(id, sizeof id, "thread %llu", (unsigned long long)silent.id);
    CHECK_MSG(nbytes > 7 * MIB, "refused with %zu bytes", nbytes);
    CHECK_MSG(nheld <= 8, "%llu allocations were held up", (unsigned long long)nheld);
    CHECK_MSG(fixture_stats(f.heap).committed_bytes <= 8 * MIB, "beyond the limit");
    CHECK_MSG(strstr(tri_last_error(), id) && strstr(tri_last_error(), "tri_new_bytes, called from 0x") &&
                  strstr(tri_last_error(), "last call that took the library's slow path"),
              "%s", tri_last_error());
    CHECK(atomic_load_acquire(&silent.nevents) >= 2);
    expect_site();
    hear_again(&f, thread);
    CHECK(tri_new_bytes(f.thread, 1000) != NULL); /* after a cycle */
    fixture_close(&f);
}

TEST(threads, a_silent_thread_is_told_of_and_a_collection_times_out) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE);
    config.event = on_event;
    config.silent_after_ms = 0;
    config.wait_limit_ms = UINT64_MAX;
    struct fixture f = fixture_open_config(&config);
    fixture_set(f.heap, "silent_after_ms=20"); /* both while it runs */
    fixture_set(f.heap, "wait_limit_ms=1000");
    CHECK_EQ(f.heap->config.wait_limit_ms, 1000);
    CHECK_EQ(tri_heap_set(f.heap, "silent_after_ms=4294967296"), TRI_EINVAL);
    CHECK_EQ(tri_heap_set(f.heap, "wait_limit_ms=0"), TRI_EINVAL);
    CHECK_MSG(strstr(tri_last_error(), "wait_limit_ms: 0 is not in 1.."), "%s", tri_last_error());
    silent.heap = f.heap;
    pthread_t thread;
    pthread_create(&thread, NULL, fall_silent, &silent);
    while (!atomic_load_acquire(&silent.ready)) sched_yield();
    uint64_t start = tri__os_now_ns();
    CHECK_EQ(tri_collect(f.thread), TRI_ETIMEDOUT);
    uint64_t waited_ms = (tri__os_now_ns() - start) / 1000000;
    CHECK_MSG(waited_ms >= WAIT_LIMIT_MS && waited_ms < 60000, "waited %llu ms", (unsigned long long)waited_ms);
    CHECK_MSG(strstr(tri_last_error(), "tri_collect") && strstr(tri_last_error(), "safepoint"), "%s", tri_last_error());
    CHECK_MSG(atomic_load_acquire(&silent.nevents) >= 2, "told %u times", silent.nevents);
    CHECK_EQ(atomic_load_relaxed(&silent.told_id), silent.id);
    CHECK(atomic_load_relaxed(&silent.told_ns) >= 20000000);
    expect_site();
    CHECK_MSG(strstr(tri_last_error(), "tri_new_bytes"), "%s", tri_last_error());
    /* This thread goes on meanwhile: it allocates, stores, and waits for nobody. */
    for (int i = 0; i < 10000; i++) CHECK(tri_new(f.thread, &pair_type) != NULL);
    hear_again(&f, thread);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
    fixture_close(&f);
}

/* tri_walk and tri_verify wait for the world to stop, which a silent thread keeps from it: in bounded time, and no
 * longer than it is silent. */
TEST(threads, a_walk_behind_a_silent_thread_times_out_and_works_again, .timeout = 30) {
    tri_config config = fixture_config(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES);
    config.event = on_event;
    config.silent_after_ms = 20;
    config.wait_limit_ms = WAIT_LIMIT_MS;
    struct fixture f = fixture_open_config(&config);
    TRI_LOCALS(f.thread, roots, 1);
    struct pair *p = roots[0] = tri_new(f.thread, &pair_type);
    p->value = 0xabcd;
    silent = (struct silent){.heap = f.heap};
    pthread_t thread;
    pthread_create(&thread, NULL, fall_silent, &silent);
    while (!atomic_load_acquire(&silent.ready)) sched_yield();
    for (int i = 0; i < 2; i++) {
        uint64_t start = tri__os_now_ns();
        if (i == 0)
            CHECK_EQ(tri_walk(f.thread, NULL, NULL), 0);
        else
            CHECK_EQ(tri_verify(f.thread), TRI_ETIMEDOUT);
        uint64_t waited_ms = (tri__os_now_ns() - start) / 1000000;
        CHECK_MSG(waited_ms >= WAIT_LIMIT_MS && waited_ms < 60000, "waited %llu ms", (unsigned long long)waited_ms);
        CHECK_MSG(strstr(tri_last_error(), i == 0 ? "tri_walk:" : "tri_verify:") &&
                      strstr(tri_last_error(), "safepoint"),
                  "%s", tri_last_error());
        CHECK_MSG(atomic_load_acquire(&silent.nevents) >= 2, "told %u times", silent.nevents);
        CHECK_EQ(atomic_load_relaxed(&silent.told_id), silent.id);
        atomic_store_release(&silent.nevents, 0);
    }
    CHECK(tri_new(f.thread, &pair_type) != NULL); /* nobody is held: this thread goes on */
    hear_again(&f, thread);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 3); /* and that thread's */
    CHECK_EQ(p->value, 0xabcd);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}
