/*
 * Misuse of threads and roots: calls by threads that are not attached, with somebody else's attachment, with one that
 * is gone, with words and encodings that cannot be. Each is refused by a value or a report that names the call, the
 * cause and the remedy, and nothing is lost by it.
 */
#include "tests/fixture.h"

#include <fcntl.h>

static void *inner_region(void *arg) {
    return arg;
}

static void visit_dead(tri_visitor *visitor, void *arg) {
    tri_visit(visitor, arg, 1);
}

static tri_heap *foreign_heap;
static tri_word foreign_words[4];

static int saved_stderr = -1;

static void silence(void) {
    fflush(stderr);
    saved_stderr = dup(2);
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    close(null);
}

static void speak(void) {
    fflush(stderr);
    dup2(saved_stderr, 2);
    close(saved_stderr);
}

#define EXPECT_UNATTACHED(call_, expression_)                                                                  \
    do {                                                                                                       \
        CHECK_MSG((expression_), "%s: the value without an attachment is wrong", call_);                       \
        CHECK_MSG(strncmp(tri_last_error(), call_ ":", strlen(call_ ":")) == 0, "%s: \"%s\"", call_,           \
                  tri_last_error());                                                                           \
        CHECK_MSG(strstr(tri_last_error(), "not attached"), "%s: \"%s\"", call_, tri_last_error());            \
        CHECK_MSG(strstr(tri_last_error(), "tri_attach"), "%s: no remedy in \"%s\"", call_, tri_last_error()); \
    } while (0)

static void jump_nowhere(void *arg) {
    (void)arg;
}

static void *call_without_attaching(void *arg) {
    struct pair *p = arg;
    tri_thread *t = tri_self(foreign_heap);
    tri_word expected = 0, before = (tri_word)(uintptr_t)p->left;
    static tri_word *top = foreign_words;
    CHECK(t != NULL);
    EXPECT_UNATTACHED("tri_new", tri_new(t, &pair_type) == NULL);
    EXPECT_UNATTACHED("tri_new_n", tri_new_n(t, &array_type, 4) == NULL);
    EXPECT_UNATTACHED("tri_new_bytes", tri_new_bytes(t, 4) == NULL);
    EXPECT_UNATTACHED("tri_external", (tri_external(t, 5), true));
    EXPECT_UNATTACHED("tri_store", (tri_store(t, p, &p->left, p), true));
    EXPECT_UNATTACHED("tri_xchg", tri_xchg(t, p, &p->left, 1) == 0);
    EXPECT_UNATTACHED("tri_cas", !tri_cas(t, p, &p->left, &expected, 1));
    EXPECT_UNATTACHED("tri_move", (tri_move(t, p, &p->left, foreign_words, 1), true));
    EXPECT_UNATTACHED("tri_clear", (tri_clear(t, p, &p->left, 1), true));
    CHECK_MSG((tri_word)(uintptr_t)p->left == before, "something was stored");
    EXPECT_UNATTACHED("tri_poll", (tri_poll(t), true));
    EXPECT_UNATTACHED("tri_blocking", tri_blocking(t, inner_region, p) == NULL);
    EXPECT_UNATTACHED("tri_callin", tri_callin(t, inner_region, p) == NULL);
    EXPECT_UNATTACHED("tri_detach", tri_detach(t) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_thread_heap", tri_thread_heap(t) == NULL);
    EXPECT_UNATTACHED("tri_scope_open", tri_scope_open(t) == 0);
    EXPECT_UNATTACHED("tri_local", tri_local(t, p) == NULL);
    EXPECT_UNATTACHED("tri_scope_close", (tri_scope_close(t, 0), true));
    EXPECT_UNATTACHED("tri_global", tri_global(t, p) == NULL);
    EXPECT_UNATTACHED("tri_root_add", tri_root_add(t, foreign_words, 4, NULL) == NULL);
    EXPECT_UNATTACHED("tri_vmstack_add", tri_vmstack_add(t, foreign_words, &top, NULL) == NULL);
    EXPECT_UNATTACHED("tri_native_add", tri_native_add(t, foreign_words, 1024) == NULL);
    EXPECT_UNATTACHED("tri_native_switch", tri_native_switch(t, NULL, jump_nowhere, p) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_scanner_add", tri_scanner_add(t, visit_dead, p) == NULL);
    EXPECT_UNATTACHED("tri_collect", tri_collect(t) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_find", tri_find(t, p, NULL) == NULL);
    EXPECT_UNATTACHED("tri_walk", tri_walk(t, NULL, NULL) == 0);
    EXPECT_UNATTACHED("tri_verify", tri_verify(t) == TRI_EUNATTACHED);
    return NULL;
}

/* What belongs to an attached thread, used by one that is not. */
struct things {
    tri_handle handle;
    tri_root *root;
    tri_vmstack *stack;
    tri_scanner *scanner;
};

static void *use_without_attaching(void *arg) {
    struct things *things = arg;
    tri_thread *t = tri_self(foreign_heap);
    EXPECT_UNATTACHED("tri_global_set", (tri_global_set(t, things->handle, NULL), true));
    EXPECT_UNATTACHED("tri_global_free", (tri_global_free(t, things->handle), true));
    EXPECT_UNATTACHED("tri_root_store", (tri_root_store(t, things->root, &foreign_words[0], things), true));
    EXPECT_UNATTACHED("tri_root_remove", (tri_root_remove(t, things->root), true));
    EXPECT_UNATTACHED("tri_vmstack_move", (tri_vmstack_move(t, things->stack, foreign_words, foreign_words), true));
    EXPECT_UNATTACHED("tri_vmstack_suspend", tri_vmstack_suspend(t, things->stack) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_vmstack_resume", tri_vmstack_resume(t, things->stack) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_vmstack_touch", tri_vmstack_touch(t, things->stack) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_vmstack_remove", (tri_vmstack_remove(t, things->stack), true));
    EXPECT_UNATTACHED("tri_scanner_remove", (tri_scanner_remove(t, things->scanner), true));
    return NULL;
}

TEST(threads, a_call_by_an_unattached_thread_is_refused_by_name) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    struct pair *p = roots[0] = tri_new(f.thread, &pair_type);
    foreign_heap = f.heap;
    static tri_word words[4];
    static tri_word *top = words;
    struct things things = {tri_global(f.thread, p), tri_root_add(f.thread, foreign_words, 4, NULL),
                            tri_vmstack_add(f.thread, words, &top, NULL), tri_scanner_add(f.thread, visit_dead, words)};
    pthread_t thread;
    silence(); /* there is no heap whose hook could be told */
    pthread_create(&thread, NULL, call_without_attaching, p);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, use_without_attaching, &things);
    pthread_join(thread, NULL);
    speak();
    CHECK(tri_deref(things.handle) == p && foreign_words[0] == 0);
    fixture_collect(&f);
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 1);
    CHECK_EQ(fixture_stats(f.heap).external_bytes, 0);
    tri_vmstack_remove(f.thread, things.stack);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

static void *use_foreign_attachment(void *arg) {
    struct fixture *f = arg;
    CHECK_EQ(tri_detach(f->thread), TRI_ESTATE);
    CHECK_MSG(strstr(tri_last_error(), "tri_detach") && strstr(tri_last_error(), "another thread"), "%s",
              tri_last_error());
    fixture_take_reports();
    tri_poll_slow(f->thread);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_poll") && strstr(fixture_report, "another thread"), "%s", fixture_report);
    return NULL;
}

TEST(threads, somebody_elses_attachment_is_refused) {
    struct fixture f = fixture_open();
    pthread_t thread;
    pthread_create(&thread, NULL, use_foreign_attachment, &f);
    pthread_join(thread, NULL);
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    fixture_close(&f);
}

/* Checked builds see it in every call that is not inline. */
static void *use_foreign_attachment_everywhere(void *arg) {
    struct fixture *f = arg;
    struct {
        const char *call;
        bool refused;
    } calls[] = {
        {"tri_collect", tri_collect(f->thread) < 0},
        {"tri_new_bytes", tri_new_bytes(f->thread, 100000) == NULL},
        {"tri_new_bytes, out of an open hole", tri_new_bytes(f->thread, 64) == NULL},
        {"tri_new_n, out of an open hole", tri_new_n(f->thread, &array_type, 4) == NULL},
        {"tri_global", tri_global(f->thread, NULL) == NULL},
        {"tri_local", tri_local(f->thread, NULL) == NULL},
        {"tri_blocking", tri_blocking(f->thread, inner_region, f) == NULL},
        {"tri_verify", tri_verify(f->thread) < 0},
    };
    for (size_t i = 0; i < TRI_COUNT(calls); i++)
        CHECK_MSG(calls[i].refused, "%s takes another thread's attachment", calls[i].call);
    CHECK_EQ(fixture_take_reports(), TRI_COUNT(calls));
    return NULL;
}

TEST(threads, checked_builds_refuse_somebody_elses_attachment_in_every_call) {
    if (TRI_CHECKS < 1) return;
    struct fixture f = fixture_open();
    pthread_t thread;
    CHECK(tri_new_bytes(f.thread, 64) && tri_new_n(f.thread, &array_type, 4)); /* opens the holes */
    pthread_create(&thread, NULL, use_foreign_attachment_everywhere, &f);
    pthread_join(thread, NULL);
    fixture_close(&f);
}

/* ---- An attachment that is gone ---- */

static void *detach_twice(void *arg) {
    tri_heap *heap = arg;
    tri_thread *thread = fixture_attach(heap);
    CHECK_EQ(tri_detach(thread), TRI_OK);
    silence();
    EXPECT_UNATTACHED("tri_detach", tri_detach(thread) == TRI_EUNATTACHED);
    EXPECT_UNATTACHED("tri_new", tri_new(thread, &pair_type) == NULL);
    speak();
    tri_thread *again = fixture_attach(heap);
    CHECK(tri_new(again, &pair_type) != NULL);
    CHECK_EQ(tri_detach(again), TRI_OK);
    return NULL;
}

TEST(threads, detaching_twice_is_refused) {
    struct fixture f = fixture_open();
    TRI_LOCALS(f.thread, roots, 1);
    struct pair *p = roots[0] = tri_new(f.thread, &pair_type);
    pthread_t thread;
    pthread_create(&thread, NULL, detach_twice, f.heap);
    fixture_join(f.thread, thread);
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hide(p)));
    CHECK_EQ(tri_walk(f.thread, NULL, NULL), 1);
    TRI_POP(f.thread, roots);
    fixture_close(&f);
}

/* The record of an attachment serves again: a stale pointer to it is then somebody else's attachment. */
struct stale {
    struct fixture *f;
    tri_thread *thread;
    pthread_barrier_t barrier;
};

static void *take_the_record(void *arg) {
    struct stale *s = arg;
    struct fixture own = {s->f->heap, fixture_attach(s->f->heap)};
    CHECK(own.thread == s->thread);
    TRI_LOCALS(own.thread, roots, 1);
    struct pair *p = roots[0] = tri_new(own.thread, &pair_type);
    p->value = 0xabcd;
    pthread_barrier_wait(&s->barrier);
    pthread_barrier_wait(&s->barrier); /* the other one tries to detach this thread */
    fixture_collect(&own);
    CHECK(is_alive(own.heap, hide(p)) && p->value == 0xabcd);
    TRI_POP(own.thread, roots);
    CHECK_EQ(tri_detach(own.thread), TRI_OK);
    return NULL;
}

TEST(threads, a_stale_attachment_detaches_nobody_else) {
    struct fixture f = fixture_open();
    struct stale s = {.f = &f, .thread = f.thread};
    pthread_barrier_init(&s.barrier, NULL, 2);
    CHECK_EQ(tri_detach(f.thread), TRI_OK);
    pthread_t thread;
    pthread_create(&thread, NULL, take_the_record, &s);
    pthread_barrier_wait(&s.barrier);
    CHECK_EQ(tri_detach(s.thread), TRI_ESTATE);
    CHECK_MSG(strstr(tri_last_error(), "tri_detach") && strstr(tri_last_error(), "another thread"), "%s",
              tri_last_error());
    CHECK_EQ(fixture_stats(f.heap).nthreads, 1);
    pthread_barrier_wait(&s.barrier);
    pthread_join(thread, NULL);
    f.thread = fixture_attach(f.heap);
    fixture_close(&f);
}

/* ---- Words and encodings that cannot be ---- */

static const struct {
    tri_enc enc;
    const char *field;
} bad_encs[] = {
    {{0, 0, 0, ~0ull}, "enc.tags"},               /* nothing is ever a reference */
    {{0, 0, ~0ull, 0}, "enc.ptr_mask"},           /* no address is ever left */
    {{0xff00, 0x00ff, ~0ull, ~0ull}, "enc.tag ("} /* a tag outside its mask */
};

TEST(roots, encodings_that_contradict_themselves_are_refused) {
    struct fixture f = fixture_open();
    static tri_word words[4];
    static tri_word *top = words;
    struct pair *p = tri_new(f.thread, &pair_type);
    tri_handle keeper = tri_global(f.thread, p);
    size_t before = tri__fixalloc_in_use_bytes(&f.heap->fix_small);
    for (size_t i = 0; i < TRI_COUNT(bad_encs); i++) {
        CHECK(tri_root_add(f.thread, words, 4, &bad_encs[i].enc) == NULL);
        CHECK_MSG(strstr(tri_last_error(), "tri_root_add:") && strstr(tri_last_error(), bad_encs[i].field), "%zu: %s",
                  i, tri_last_error());
        CHECK(tri_vmstack_add(f.thread, words, &top, &bad_encs[i].enc) == NULL);
        CHECK_MSG(strstr(tri_last_error(), "tri_vmstack_add:") && strstr(tri_last_error(), bad_encs[i].field),
                  "%zu: %s", i, tri_last_error());
    }
    CHECK_EQ(tri__fixalloc_in_use_bytes(&f.heap->fix_small), before);
    fixture_collect(&f);
    CHECK(tri_deref(keeper) == p && is_alive(f.heap, hide(p)));
    fixture_close(&f);
}

TEST(roots, handles_of_odd_addresses_are_refused) {
    struct fixture f = fixture_open();
    struct pair *p = tri_new(f.thread, &pair_type);
    tri_handle h = tri_global(f.thread, p);
    char *odd = (char *)p + 1;
    CHECK(tri_global(f.thread, odd) == NULL);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_global:") && strstr(fixture_report, "odd"), "%s", fixture_report);
    tri_global_set(f.thread, h, odd);
    CHECK_EQ(fixture_take_reports(), 1);
    CHECK_MSG(strstr(fixture_report, "tri_global_set:") && strstr(fixture_report, "odd"), "%s", fixture_report);
    CHECK(tri_deref(h) == p); /* what it held, it holds */
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hide(p)));
    tri_global_set(f.thread, h, (char *)p + 2); /* an even address inside it will do */
    fixture_collect(&f);
    CHECK(is_alive(f.heap, hide(p)));
    tri_global_free(f.thread, h);
    fixture_collect(&f);
    CHECK(!is_alive(f.heap, hide(p)));
    fixture_close(&f);
}

/* ---- A process without pthread keys ---- */

/* The library needs one for the ends of threads; what it has not got it must not use: key 0 is the host's. */
TEST(threads, without_a_key_no_thread_is_attached_and_the_hosts_stay_as_they_are) {
    enum { MOST_KEYS = 4096 };
    static pthread_key_t keys[MOST_KEYS];
    tri_heap *heap;
    tri_thread *thread;
    size_t n = 0;
    tri_config config = fixture_config(0);
    while (n < MOST_KEYS && pthread_key_create(&keys[n], NULL) == 0) n++;
    CHECK(n > 0 && n < MOST_KEYS);
    for (size_t i = 0; i < n; i++) CHECK_EQ(pthread_setspecific(keys[i], &keys[i]), 0);
    CHECK_EQ(tri_heap_create(&config, &heap), TRI_OK);
    CHECK_EQ(tri_attach(heap, 0, &thread), TRI_ELIMIT);
    CHECK_MSG(strstr(tri_last_error(), "pthread key") != NULL, "%s", tri_last_error());
    CHECK(tri_manual_alloc(heap, 100) == NULL);
    CHECK_MSG(strstr(tri_last_error(), "pthread key") != NULL, "%s", tri_last_error());
    for (size_t i = 0; i < n; i++) CHECK(pthread_getspecific(keys[i]) == &keys[i]);
    for (size_t i = 0; i < n; i++) pthread_key_delete(keys[i]);
    CHECK_EQ(tri_heap_destroy(heap), TRI_OK);
}
