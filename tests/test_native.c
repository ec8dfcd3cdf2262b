/*
 * Native stacks and registers, which are scanned conservatively: what they name lives, what they forget dies, and a
 * thread or a heap that is precise does not look at them.
 */
#include "tests/fixture.h"

#if defined(__x86_64__)
/* int collect_with_register(tri_thread *thread, uintptr_t hidden): the object is named by register r12 alone. */
int collect_with_register(tri_thread *thread, uintptr_t hidden);
__asm__(".text\n"
        ".globl collect_with_register\n"
        ".type collect_with_register, @function\n"
        "collect_with_register:\n"
        "    .cfi_startproc\n"
        "    pushq %r12\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    movq %rsi, %r12\n"
        "    notq %r12\n"
        "    xorl %esi, %esi\n"
        "    call tri_collect@PLT\n"
        "    popq %r12\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size collect_with_register, .-collect_with_register\n");
#elif defined(__aarch64__)
/* The same with register x19. */
int collect_with_register(tri_thread *thread, uintptr_t hidden);
__asm__(".text\n"
        ".globl collect_with_register\n"
        ".type collect_with_register, %function\n"
        "collect_with_register:\n"
        "    stp x29, x30, [sp, #-32]!\n"
        "    str x19, [sp, #16]\n"
        "    mov x29, sp\n"
        "    mvn x19, x1\n"
        "    mov x1, xzr\n"
        "    bl tri_collect\n"
        "    ldr x19, [sp, #16]\n"
        "    ldp x29, x30, [sp], #32\n"
        "    ret\n"
        ".size collect_with_register, .-collect_with_register\n");
#else
static int collect_with_register(tri_thread *thread, uintptr_t hidden) {
    void *volatile local = reveal(hidden);
    int err = tri_collect(thread);
    return local ? err : TRI_EINVAL;
}
#endif

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
    enum { N = 6 };
    for (int i = 0; i < 60; i++) { /* dummies, so that leftovers name something else */
        uintptr_t hidden = fixture_new_hidden(&f);
        if (i % 10) continue;
        int err = 0;
        switch (i / 10) {
        case 0: err = collect_with_register(f.thread, hidden); break;
        case 1: err = collect_with_local(f.thread, hidden, 0); break;
        case 2: err = collect_with_local(f.thread, hidden, 8); break;  /* interior */
        case 3: err = collect_with_local(f.thread, hidden, 31); break; /* not even aligned */
        case 4: err = collect_with_local(f.thread, hidden, 32); break; /* one past the end: word - 1 counts */
        default: err = collect_with_register(f.thread, hidden); break;
        }
        CHECK_EQ(err, TRI_OK);
        CHECK_MSG(is_alive(f.heap, hidden) == alive, "case %d: %s", i / 10, alive ? "lost" : "kept");
    }
    fixture_close(&f);
}

TEST(roots, the_native_stack_and_registers_keep_what_they_name) {
    check_stack(0, 0, true);
}

/* Its fast path leaves addresses in registers of its own frame. */
static __attribute__((noinline)) uintptr_t new_pair_hidden(tri_thread *thread) {
    return hide(tri_new(thread, &pair_type));
}

/* Where a type is smaller than its slot, an address just past the slot is another object's alone; one just past the
 * object is inside the slot. */
TEST(roots, a_pointer_to_an_object_keeps_no_neighbour_whose_end_it_cannot_be) {
    struct fixture f = fixture_open_flags(TRI_HEAP_NO_CYCLES);
    enum { SLOT_BYTES = 32, N = 60 };
    _Static_assert(sizeof(struct pair) == 24, "smaller than its slot");
    for (int i = 0; i < N; i++) { /* most of them dummies, as above */
        uintptr_t hidden = new_pair_hidden(f.thread);
        if (i % 10) continue;
        bool past_slot = i / 10 % 2;
        CHECK_EQ(collect_with_local(f.thread, hidden, past_slot ? SLOT_BYTES : sizeof(struct pair)), TRI_OK);
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
