/* coroutines.c - 100,000 coroutines alive at once, each with a list that nothing names but a local variable on its own
 * native stack, run by two threads that exchange them after each round, with collections all the while.
 *
 *     coroutines [number [rounds]]
 *
 * A switch is tri_native_switch around some instructions that save and restore the registers (swapcontext where there
 * are none here). The stacks are slices of one mapping: small ones, of which each touches a page or two. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* barriers, MAP_NORESERVE */
#endif
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <trigc.h>

enum { STACK_BYTES = 16 << 10, THREADS = 2 };

struct cell {
    struct cell *next;
    uint64_t value;
};
TRI_TYPE(cell_type, struct cell, next);

/* ---- the switch: what a coroutine library has ------------------------------------------------------------------- */

#if defined(__x86_64__)

typedef void *context; /* the stack pointer; everything else is on the stack */

void context_switch(context *save, context to);
void context_start(void);
__asm__(".text\n"
        ".type context_switch, @function\n"
        "context_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".type context_start, @function\n"
        "context_start:\n" /* the first frame of a coroutine: body(argument) */
        "    movq %r12, %rdi\n"
        "    callq *%r13\n"
        "    ud2\n");

static void context_make(context *c, char *stack, size_t size_bytes, void (*body)(void *), void *arg) {
    void **sp = (void **)(void *)(stack + size_bytes);
    *--sp = NULL; /* so that calls find the stack aligned */
    *--sp = NULL;
    *--sp = (void *)(uintptr_t)context_start;
    *--sp = NULL;                    /* rbp */
    *--sp = NULL;                    /* rbx */
    *--sp = arg;                     /* r12 */
    *--sp = (void *)(uintptr_t)body; /* r13 */
    *--sp = NULL;                    /* r14 */
    *--sp = NULL;                    /* r15 */
    *c = sp;
}

#elif defined(__aarch64__)

typedef void *context; /* as above */

void context_switch(context *save, context to);
void context_start(void);
__asm__(".text\n"
        ".type context_switch, %function\n"
        "context_switch:\n"
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
        ".type context_start, %function\n"
        "context_start:\n" /* the first frame of a coroutine: body(argument) */
        "    mov x0, x19\n"
        "    blr x20\n"
        "    brk #0\n");

enum { SAVED_WORDS = 20, SAVED_X19 = 0, SAVED_X20 = 1, SAVED_X30 = 11 };

static void context_make(context *c, char *stack, size_t size_bytes, void (*body)(void *), void *arg) {
    void **sp = (void **)(void *)(stack + size_bytes) - SAVED_WORDS;
    for (int i = 0; i < SAVED_WORDS; i++) sp[i] = NULL;
    sp[SAVED_X19] = arg;
    sp[SAVED_X20] = (void *)(uintptr_t)body;
    sp[SAVED_X30] = (void *)(uintptr_t)context_start;
    *c = sp;
}

#else

#include <ucontext.h>

typedef ucontext_t context;

static void context_switch(context *save, context to) {
    swapcontext(save, &to);
}

static void start(unsigned f0, unsigned f1, unsigned a0, unsigned a1) {
    ((void (*)(void *))((uintptr_t)f1 << 32 | f0))((void *)((uintptr_t)a1 << 32 | a0));
}

static void context_make(context *c, char *stack, size_t size_bytes, void (*body)(void *), void *arg) {
    uintptr_t f = (uintptr_t)body, a = (uintptr_t)arg;
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = size_bytes;
    makecontext(c, (void (*)(void))(uintptr_t)start, 4, (unsigned)f, (unsigned)(f >> 32), (unsigned)a,
                (unsigned)(a >> 32));
}

#endif

/* ---- coroutines ------------------------------------------------------------------------------------------------- */

/* A thread that runs coroutines. */
struct runner {
    struct run *run;
    unsigned index;
    tri_thread *thread;
    context own;
};

struct coroutine {
    tri_vmstack *stack;
    context here;
    struct runner *on; /* who runs it now */
    uint64_t index, sum;
};

struct run {
    tri_heap *heap;
    size_t n, rounds;
    struct coroutine *coroutines;
    char *memory;
    pthread_barrier_t barrier;
};

static void jump_in(void *arg) {
    struct coroutine *co = arg;
    context_switch(&co->on->own, co->here);
}

static void jump_out(void *arg) {
    struct coroutine *co = arg;
    context_switch(&co->here, co->on->own);
}

static void must(int err) {
    if (err == TRI_OK) return;
    fprintf(stderr, "%s\n", tri_last_error());
    exit(1);
}

static void resume(struct runner *runner, struct coroutine *co) {
    co->on = runner;
    must(tri_native_switch(runner->thread, co->stack, jump_in, co));
}

/* Another thread may run it afterwards: its tri_thread is co->on->thread. */
static void yield(struct coroutine *co) {
    must(tri_native_switch(co->on->thread, NULL, jump_out, co));
}

/* A cell in each round; then all of them are added up. The list is in this variable and nowhere else. */
static void body(void *arg) {
    struct coroutine *co = arg;
    struct cell *list = NULL;
    for (size_t round = 0;; round++) {
        struct cell *cell = tri_new(co->on->thread, &cell_type);
        if (!cell) must(TRI_ENOMEM);
        cell->value = co->index + round;
        tri_init(co->on->thread, cell, &cell->next, list);
        list = cell;
        co->sum = 0;
        for (const struct cell *c = list; c; c = c->next) co->sum += c->value;
        yield(co);
    }
}

static void *wait_for_others(void *arg) {
    pthread_barrier_wait(arg);
    return NULL;
}

/* Each round runs the coroutines that the other thread ran in the round before. */
static void *run_rounds(void *arg) {
    struct runner *runner = arg;
    struct run *run = runner->run;
    must(tri_attach(run->heap, 0, &runner->thread));
    for (size_t round = 0; round < run->rounds; round++) {
        for (size_t i = (round + runner->index) % THREADS; i < run->n; i += THREADS)
            resume(runner, &run->coroutines[i]);
        tri_blocking(runner->thread, wait_for_others, &run->barrier);
    }
    must(tri_detach(runner->thread));
    return NULL;
}

static void make_coroutines(struct run *run) {
    tri_thread *thread;
    must(tri_attach(run->heap, 0, &thread));
    run->coroutines = calloc(run->n, sizeof *run->coroutines);
    run->memory = mmap(NULL, run->n * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
    if (!run->coroutines || run->memory == MAP_FAILED) abort();
    madvise(run->memory, run->n * STACK_BYTES, MADV_NOHUGEPAGE); /* a few pages of each are touched */
    for (size_t i = 0; i < run->n; i++) {
        struct coroutine *co = &run->coroutines[i];
        char *memory = run->memory + i * STACK_BYTES;
        co->index = i;
        co->stack = tri_native_add(thread, memory, STACK_BYTES);
        if (!co->stack) must(TRI_ENOMEM);
        context_make(&co->here, memory, STACK_BYTES, body, co);
    }
    must(tri_detach(thread));
}

/* An upper bound of the longest pause of a kind, from its histogram. */
static double longest_us(tri_heap *heap, int kind) {
    uint64_t buckets[64];
    int n = tri_histogram(heap, kind, buckets, 64), last = 0;
    for (int i = 0; i < n; i++)
        if (buckets[i]) last = i;
    return (double)(1ull << last) * 1e-3;
}

static void *run_threads(struct run *run) {
    pthread_t threads[THREADS];
    struct runner runners[THREADS];
    pthread_barrier_init(&run->barrier, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        runners[i] = (struct runner){.run = run, .index = i};
        if (pthread_create(&threads[i], NULL, run_rounds, &runners[i]) != 0) abort();
    }
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&run->barrier);
    return NULL;
}

int main(int argc, char **argv) {
    struct run run = {.n = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000,
                      .rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 10};
    tri_stats stats = {.struct_size = sizeof stats};
    struct timespec start, end;
    must(tri_heap_create(NULL, &run.heap));
    make_coroutines(&run);
    clock_gettime(CLOCK_MONOTONIC, &start);
    run_threads(&run);
    clock_gettime(CLOCK_MONOTONIC, &end);
    uint64_t sum = 0, expected = 0;
    for (size_t i = 0; i < run.n; i++) {
        sum += run.coroutines[i].sum;
        expected += run.rounds * i + run.rounds * (run.rounds - 1) / 2;
    }
    tri_stats_get(run.heap, &stats);
    printf("%zu coroutines on %d threads, %zu rounds: sum %llu, %s\n", run.n, THREADS, run.rounds,
           (unsigned long long)sum, sum == expected ? "as it should be" : "WRONG");
    printf(
        "%llu collections in %.2f s; the longest scan of a thread's roots took less than %.0f us, another answer %.0f, "
        "an assist %.0f\n",
        (unsigned long long)stats.cycles,
        (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9,
        longest_us(run.heap, TRI_PAUSE_SCAN), longest_us(run.heap, TRI_PAUSE_HANDSHAKE),
        longest_us(run.heap, TRI_PAUSE_ASSIST));
    must(tri_heap_destroy(run.heap)); /* the coroutines are given up with it */
    munmap(run.memory, run.n * STACK_BYTES);
    free(run.coroutines);
    return sum != expected;
}
