/*
 * Native stacks and registers, which are scanned conservatively: what they name lives, what they forget dies, and a
 * thread or a heap that is precise does not look at them.
 *
 * What it is to catch in a port: registers that a safepoint does not save, a stack pointer that is recorded too high.
 * Both, planted by hand in gc/safepoint.c, were seen to fail here, on x86-64 and, under the emulator, on ARMv8.
 */
#include "tests/fixture.h"

/* The object is named by one register alone, which calls preserve, while the thread collects, or polls. Each of them in
 * turn: what the calls in between save in their frames is found there, even if a safepoint saves nothing by itself. */
typedef int asked_fn(tri_thread *thread, uintptr_t hidden);
#if defined(__x86_64__)
#define WITH_REGISTER(name, fn, reg)                   \
    asked_fn name;                                     \
    __asm__(".text\n"                                  \
            ".globl " #name "\n"                       \
            ".type " #name ", @function\n" #name ":\n" \
            "    .cfi_startproc\n"                     \
            "    pushq %" #reg "\n"                    \
            "    .cfi_adjust_cfa_offset 8\n"           \
            "    movq %rsi, %" #reg "\n"               \
            "    notq %" #reg "\n"                     \
            "    xorl %esi, %esi\n"                    \
            "    call " #fn "@PLT\n"                   \
            "    popq %" #reg "\n"                     \
            "    .cfi_adjust_cfa_offset -8\n"          \
            "    ret\n"                                \
            "    .cfi_endproc\n"                       \
            ".size " #name ", .-" #name "\n")
#define WITH(reg)                                        \
    WITH_REGISTER(collect_with_##reg, tri_collect, reg); \
    WITH_REGISTER(poll_with_##reg, tri_poll_slow, reg)
WITH(rbx);
WITH(r12);
WITH(r13);
WITH(r14);
WITH(r15);
static asked_fn *const collect_with[] = {collect_with_rbx, collect_with_r12, collect_with_r13, collect_with_r14,
                                         collect_with_r15};
static asked_fn *const poll_with[] = {poll_with_rbx, poll_with_r12, poll_with_r13, poll_with_r14, poll_with_r15};
#elif defined(__aarch64__)
#define WITH_REGISTER(name, fn, reg)                   \
    asked_fn name;                                     \
    __asm__(".text\n"                                  \
            ".globl " #name "\n"                       \
            ".type " #name ", %function\n" #name ":\n" \
            "    stp x29, x30, [sp, #-32]!\n"          \
            "    str " #reg ", [sp, #16]\n"            \
            "    mov x29, sp\n"                        \
            "    mvn " #reg ", x1\n"                   \
            "    mov x1, xzr\n"                        \
            "    bl " #fn "\n"                         \
            "    ldr " #reg ", [sp, #16]\n"            \
            "    ldp x29, x30, [sp], #32\n"            \
            "    ret\n"                                \
            ".size " #name ", .-" #name "\n")
#define WITH(reg)                                        \
    WITH_REGISTER(collect_with_##reg, tri_collect, reg); \
    WITH_REGISTER(poll_with_##reg, tri_poll_slow, reg)
WITH(x19);
WITH(x20);
WITH(x21);
WITH(x22);
WITH(x23);
WITH(x24);
WITH(x25);
WITH(x26);
WITH(x27);
WITH(x28);
static asked_fn *const collect_with[] = {collect_with_x19, collect_with_x20, collect_with_x21, collect_with_x22,
                                         collect_with_x23, collect_with_x24, collect_with_x25, collect_with_x26,
                                         collect_with_x27, collect_with_x28};
static asked_fn *const poll_with[] = {poll_with_x19, poll_with_x20, poll_with_x21, poll_with_x22, poll_with_x23,
                                      poll_with_x24, poll_with_x25, poll_with_x26, poll_with_x27, poll_with_x28};
#else
static int collect_with_some_word(tri_thread *thread, uintptr_t hidden) {
    void *volatile local = reveal(hidden);
    int err = tri_collect(thread);
    return local ? err : TRI_EINVAL;
}
static int poll_with_some_word(tri_thread *thread, uintptr_t hidden) {
    void *volatile local = reveal(hidden);
    tri_poll(thread);
    return local ? TRI_OK : TRI_EINVAL;
}
static asked_fn *const collect_with[] = {collect_with_some_word}, *const poll_with[] = {poll_with_some_word};
#endif

/* In a frame of its own, which forgets the address. */
static __attribute__((noinline)) uintptr_t new_leaf_hidden(struct fixture *f) {
    return fixture_new_hidden(f);
}

/* Every frame of its own: what a compiler leaves behind in other frames names nothing. */
static __attribute__((noinline)) int collect_with_local(tri_thread *thread, uintptr_t hidden, size_t offset) {
    volatile uintptr_t local[1] = {(~hidden) + offset};
    int err = tri_collect(thread);
    return local[0] != 0 ? err : TRI_EINVAL;
}

static void check_stack(uint32_t heap_flags, uint32_t attach_flags, bool alive) {
    tri_config config = fixture_config(heap_flags | TRI_HEAP_NO_CYCLES);
    struct fixture f = {NULL, NULL};
    CHECK_EQ(tri_heap_create(&config, &f.heap), TRI_OK);
    CHECK_EQ(tri_attach(f.heap, attach_flags, &f.thread), TRI_OK);
    static const size_t offsets[] = {0, 8, 31, 32}; /* interior, not even aligned, one past the end: word - 1 counts */
    const size_t nregisters = TRI_COUNT(collect_with);
    for (size_t i = 0; i < 10 * (nregisters + TRI_COUNT(offsets)); i++) { /* dummies, so that leftovers name others */
        uintptr_t hidden = new_leaf_hidden(&f);
        if (i % 10) continue;
        int err = i / 10 < nregisters ? collect_with[i / 10](f.thread, hidden)
                                      : collect_with_local(f.thread, hidden, offsets[i / 10 - nregisters]);
        CHECK_EQ(err, TRI_OK);
        CHECK_MSG(is_alive(f.heap, hidden) == alive, "case %zu of %zu registers and %zu words: %s", i / 10, nregisters,
                  TRI_COUNT(offsets), alive ? "lost" : "kept");
    }
    fixture_close(&f);
}

TEST(roots, the_native_stack_and_registers_keep_what_they_name) {
    check_stack(0, 0, true);
}

/* The thread's own scan, at a poll, where fewer calls lie between the register and the stack that is scanned. */
TEST(roots, registers_keep_what_they_name_at_a_poll) {
    struct fixture f = fixture_open_flags(TRI_HEAP_NO_CYCLES);
    for (size_t i = 0; i < 10 * TRI_COUNT(poll_with); i++) { /* most of them dummies, as above */
        uintptr_t hidden = new_leaf_hidden(&f);
        if (i % 10) continue;
        uint64_t before = fixture_stats(f.heap).cycles;
        tri__cycle_request(f.heap, "test");
        fixture_answer_before(f.heap, f.thread, STEP_SCAN);
        (void)poll_with[i / 10](f.thread, hidden);
        while (fixture_stats(f.heap).cycles == before) {
            tri_poll(f.thread);
            sched_yield();
        }
        CHECK_MSG(is_alive(f.heap, hidden), "register %zu of %zu: lost", i / 10, TRI_COUNT(poll_with));
    }
    fixture_close(&f);
}

/* Its fast path leaves addresses in registers of its own frame. */
static __attribute__((noinline)) uintptr_t new_pair_hidden(tri_thread *thread) {
    return hide(tri_new(thread, &pair_type));
}

/* Where a type is smaller than its slot, an address just past the slot is another object's alone; one just past the
 * object is inside the slot. */
TEST(roots, a_pointer_to_an_object_keeps_no_neighbour_whose_end_it_cannot_be) {
    if (TEST_UNDER_ASAN) return; /* its frames are large and hardly written: they keep what lay there before */
    struct fixture f = fixture_open_flags(TRI_HEAP_NO_CYCLES);
    enum { SLOT_BYTES = 32, N = 60 };
    _Static_assert(sizeof(struct pair) == 24, "smaller than its slot");
    uintptr_t hidden = 0;
    for (int i = 0; i < N; i++) { /* the dummies after it take its leftovers' place in dead frames */
        uintptr_t newest = new_pair_hidden(f.thread);
        if (i % 10 == 0) hidden = newest;
        if (i % 10 != 9) continue;
        bool past_slot = i / 10 % 2;
        size_t offset = past_slot ? SLOT_BYTES : sizeof(struct pair);
        CHECK_EQ(collect_with_local(f.thread, hidden - offset, 0), TRI_OK); /* the object's own address nowhere */
        CHECK_MSG(is_alive(f.heap, hidden) == !past_slot, "%s",
                  past_slot ? "kept by its neighbour" : "lost at its end");
    }
    fixture_close(&f);
}

TEST(roots, a_precise_heap_scans_no_native_stack) {
    check_stack(TRI_HEAP_PRECISE, 0, false);
}

TEST(roots, a_precise_attachment_scans_no_native_stack) {
    check_stack(0, TRI_ATTACH_PRECISE, false);
}

static __attribute__((noinline)) void make_garbage(struct fixture *f, uintptr_t *hidden, int n) {
    for (int i = 0; i < n; i++) hidden[i] = fixture_new_hidden(f);
}

TEST(roots, what_the_stack_forgets_is_garbage) {
    struct fixture f = fixture_open_flags(TRI_HEAP_NO_CYCLES);
    enum { N = 2000 };
    static uintptr_t hidden[N];
    make_garbage(&f, hidden, N);
    fixture_collect(&f);
    int kept = 0;
    for (int i = 0; i < N; i++) kept += is_alive(f.heap, hidden[i]);
    CHECK_MSG(kept < N / 20, "%d of %d are kept by leftovers", kept, N);
    fixture_close(&f);
}
