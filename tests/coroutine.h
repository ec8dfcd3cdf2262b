/*
 * coroutine.h: coroutines on native stacks of their own, by ucontext, as a host would have them: a thread runs one
 * until it yields or ends, then goes on itself. Any thread may run it next.
 */
#ifndef TRI_TESTS_COROUTINE_H
#define TRI_TESTS_COROUTINE_H

#include "tests/fixture.h"

#include <sys/mman.h>
#include <ucontext.h>

#if TEST_UNDER_TSAN
/* Of ThreadSanitizer's runtime: not every compiler that has it brings its header. */
extern void *__tsan_get_current_fiber(void);
extern void *__tsan_create_fiber(unsigned flags);
extern void __tsan_destroy_fiber(void *fiber);
extern void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

enum { COROUTINE_STACK_BYTES = 256 << 10 };

/* A thread that runs coroutines. */
struct runner {
    tri_thread *thread;
    ucontext_t own;
    void *fiber;
};

struct coroutine {
    tri_vmstack *stack;
    char *memory;
    ucontext_t context;
    struct runner *on; /* who runs it, while it runs */
    void (*body)(struct coroutine *c, void *arg);
    void *arg;
    bool ended;
    void *fiber;
};

static inline void coroutine_swap(void *to_fiber, ucontext_t *from, ucontext_t *to) {
#if TEST_UNDER_TSAN
    __tsan_switch_to_fiber(to_fiber, 0);
#else
    (void)to_fiber;
#endif
    CHECK_EQ(swapcontext(from, to), 0);
}

static void coroutine_jump_in(void *arg) {
    struct coroutine *c = arg;
    coroutine_swap(c->fiber, &c->on->own, &c->context);
}

static void coroutine_jump_out(void *arg) {
    struct coroutine *c = arg;
    coroutine_swap(c->on->fiber, &c->context, &c->on->own);
}

/* Back to the thread that runs it; returns when one runs it again: use c->on->thread afresh. */
static __attribute__((noinline, unused)) void coroutine_yield(struct coroutine *c) {
    int err = tri_native_switch(c->on->thread, NULL, coroutine_jump_out, c);
    CHECK_MSG(err == TRI_OK, "tri_native_switch: %d: %s", err, tri_last_error());
}

static void coroutine_main(unsigned low, unsigned high) {
    struct coroutine *c = (struct coroutine *)((uintptr_t)high << 32 | low);
    c->body(c, c->arg);
    c->ended = true;
    coroutine_yield(c);
    CHECK(false);
}

static inline void coroutine_open(tri_thread *thread, struct coroutine *c, void (*body)(struct coroutine *, void *),
                                  void *arg) {
    *c = (struct coroutine){.body = body, .arg = arg};
    c->memory = mmap(NULL, COROUTINE_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(c->memory != MAP_FAILED);
    c->stack = tri_native_add(thread, c->memory, COROUTINE_STACK_BYTES);
    CHECK_MSG(c->stack != NULL, "%s", tri_last_error());
    CHECK_EQ(getcontext(&c->context), 0);
    c->context.uc_stack.ss_sp = c->memory;
    c->context.uc_stack.ss_size = COROUTINE_STACK_BYTES;
    makecontext(&c->context, (void (*)(void))coroutine_main, 2, (unsigned)(uintptr_t)c, (unsigned)((uintptr_t)c >> 32));
#if TEST_UNDER_TSAN
    c->fiber = __tsan_create_fiber(0);
#endif
}

static inline void coroutine_close(tri_thread *thread, struct coroutine *c) {
    tri_vmstack_remove(thread, c->stack);
    munmap(c->memory, COROUTINE_STACK_BYTES);
#if TEST_UNDER_TSAN
    __tsan_destroy_fiber(c->fiber);
#endif
    c->stack = NULL;
}

static inline struct runner runner_of(tri_thread *thread) {
    struct runner r = {.thread = thread};
#if TEST_UNDER_TSAN
    r.fiber = __tsan_get_current_fiber();
#endif
    return r;
}

/* Until it yields. True while there is more to run. */
static __attribute__((noinline, unused)) bool coroutine_run(struct runner *runner, struct coroutine *c) {
    c->on = runner;
    int err = tri_native_switch(runner->thread, c->stack, coroutine_jump_in, c);
    CHECK_MSG(err == TRI_OK, "tri_native_switch: %d: %s", err, tri_last_error());
    return !c->ended;
}

#endif /* TRI_TESTS_COROUTINE_H */
