/*
 * coroutine.h: coroutines on native stacks of their own, by ucontext (by some instructions where the C library has
 * none: musl), as a host would have them: a thread runs one until it yields or ends, then goes on itself. Any thread
 * may run it next.
 */
#ifndef TRI_TESTS_COROUTINE_H
#define TRI_TESTS_COROUTINE_H

#include "tests/fixture.h"

#include <sys/mman.h>

#if defined(__aarch64__) && !defined(__GLIBC__)
#define COROUTINE_SWITCHES 1 /* by itself */
typedef void *coroutine_context;
void coroutine_switch(coroutine_context *save, coroutine_context to);
void coroutine_start(void);
__asm__(".text\n"
        ".type coroutine_switch, %function\n"
        "coroutine_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".type coroutine_start, %function\n"
        "coroutine_start:\n" /* the first frame of a coroutine: body(argument) */
        "    mov x0, x19\n"
        "    blr x20\n"
        "    brk #0\n");
#else
#define COROUTINE_SWITCHES 0
#include <ucontext.h>
typedef ucontext_t coroutine_context;
#endif

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
    coroutine_context own;
    void *fiber;
};

struct coroutine {
    tri_vmstack *stack;
    char *memory;
    coroutine_context context;
    struct runner *on; /* who runs it, while it runs */
    void (*body)(struct coroutine *c, void *arg);
    void *arg;
    bool ended;
    void *fiber;
};

static inline void coroutine_swap(void *to_fiber, coroutine_context *from, coroutine_context *to) {
#if TEST_UNDER_TSAN
    __tsan_switch_to_fiber(to_fiber, 0);
#else
    (void)to_fiber;
#endif
#if COROUTINE_SWITCHES
    coroutine_switch(from, *to);
#else
    CHECK_EQ(swapcontext(from, to), 0);
#endif
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

static inline void coroutine_main(void *arg) {
    struct coroutine *c = arg;
    c->body(c, c->arg);
    c->ended = true;
    coroutine_yield(c);
    CHECK(false);
}

#if COROUTINE_SWITCHES
/* What coroutine_switch takes off the stack: x19 and x20 first, x30 the twelfth. */
static inline void coroutine_make(struct coroutine *c) {
    enum { SAVED_WORDS = 20 };
    void **sp = (void **)(void *)(c->memory + COROUTINE_STACK_BYTES) - SAVED_WORDS;
    sp[0] = c;
    sp[1] = (void *)(uintptr_t)coroutine_main;
    sp[11] = (void *)(uintptr_t)coroutine_start;
    c->context = sp;
}
#else
static inline void coroutine_main_of(unsigned low, unsigned high) {
    coroutine_main((void *)((uintptr_t)high << 32 | low));
}

static inline void coroutine_make(struct coroutine *c) {
    CHECK_EQ(getcontext(&c->context), 0);
    c->context.uc_stack.ss_sp = c->memory;
    c->context.uc_stack.ss_size = COROUTINE_STACK_BYTES;
    makecontext(&c->context, (void (*)(void))coroutine_main_of, 2, (unsigned)(uintptr_t)c,
                (unsigned)((uintptr_t)c >> 32));
}
#endif

static inline void coroutine_open(tri_thread *thread, struct coroutine *c, void (*body)(struct coroutine *, void *),
                                  void *arg) {
    *c = (struct coroutine){.body = body, .arg = arg};
    c->memory = mmap(NULL, COROUTINE_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(c->memory != MAP_FAILED);
    c->stack = tri_native_add(thread, c->memory, COROUTINE_STACK_BYTES);
    CHECK_MSG(c->stack != NULL, "%s", tri_last_error());
    coroutine_make(c);
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
