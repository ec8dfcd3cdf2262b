/* trigc/roots.h - roots: frames, handles, global slots, value stacks, coroutines, callbacks. Included by
 * trigc.h, whose conventions hold here. */
#ifndef TRIGC_H
#include <trigc.h> /* which includes this file */
#endif
#ifndef TRIGC_ROOTS_H
#define TRIGC_ROOTS_H

#ifdef __cplusplus
extern "C" {
#endif

/* A frame of precise local slots, on the C stack of its thread; pushed and popped in order. No barrier. */
typedef struct tri_frame {
    struct tri_frame *prev;
    size_t nslots;
    void **slots;
} tri_frame;

/* Declares `void *name[n]`, all NULL, as a pushed frame; leave with TRI_POP(thread, name). */
#define TRI_LOCALS(thread_, name_, n_)          \
    void *name_[n_] = {0};                      \
    tri_frame name_##_frame = {0, (n_), name_}; \
    tri_frame_push((thread_), &name_##_frame)
#define TRI_POP(thread_, name_) tri_frame_pop((thread_), &name_##_frame)

/* Pushes and pops a frame. Popping an older frame (after a longjmp, before the next safepoint) drops the newer ones
 * too; popping one a second time, or when none is pushed, is reported. The thread itself. */
static inline void tri_frame_push(tri_thread *thread, tri_frame *frame);
static inline void tri_frame_pop(tri_thread *thread, tri_frame *frame);

/* Local handles: slots that live until their scope is closed. tri_scope_open returns a mark; tri_scope_close frees
 * every local handle made since, also those of inner scopes (so a mark can be restored after a longjmp); a mark of a
 * scope that is closed already is reported. The thread itself. tri_local returns NULL without memory. */
TRI_API uint32_t tri_scope_open(tri_thread *thread);
TRI_API tri_handle tri_local(tri_thread *thread, void *obj);
TRI_API void tri_scope_close(tri_thread *thread, uint32_t mark);

/* Persistent handles: roots that any attached thread may make, change and free. An odd address inside an object cannot
 * be kept: reported, and tri_global returns NULL then, as it does without memory. Changing or freeing a freed handle is
 * reported, NULL is ignored. Not a safepoint. */
TRI_API tri_handle tri_global(tri_thread *thread, void *obj);
TRI_API void tri_global_set(tri_thread *thread, tri_handle handle, void *obj);
TRI_API void tri_global_free(tri_thread *thread, tri_handle handle);

/* What a handle (local or persistent, not NULL) names. Any attached thread. */
static inline void *tri_deref(tri_handle handle);

/* Registers nslots global slots (static or malloc'd memory) as roots. Written only through tri_root_store. `enc` NULL:
 * plain pointers. NULL without memory (TRI_ENOMEM), for a range that is not 8-byte aligned, empty or beyond the address
 * space, and for an encoding that contradicts itself (TRI_EINVAL). Any attached thread. */
TRI_API tri_root *tri_root_add(tri_thread *thread, void *slots, size_t nslots, const tri_enc *enc);

/* Takes a range back; when it returns no collector reads the slots. Any attached thread. */
TRI_API void tri_root_remove(tri_thread *thread, tri_root *root);

/* Stores into a slot of a registered range. Any attached thread; a release store with the barrier, which reports a slot
 * that is not in the range and stores nothing then. */
static inline void tri_root_store(tri_thread *thread, tri_root *root, void *slot, const void *ref);
static inline void tri_root_store_value(tri_thread *thread, tri_root *root, void *slot, tri_word value);

/* Registers a value stack of the calling thread: words from `base` up to, not with, the pointer that lies at
 * `top_address` (the host's own `Value *sp` variable), written without a barrier by their owner and scanned at its
 * safepoints; the host writes its top back before each. NULL: TRI_ENOMEM; TRI_EINVAL for addresses that are not 8-byte
 * aligned, and for an encoding that contradicts itself. The stack starts running. */
TRI_API tri_vmstack *tri_vmstack_add(tri_thread *thread, void *base, const void *top_address, const tri_enc *enc);

/* Moves a stack to a new base (after growing it), between two safepoints. Its owner; for others nothing moves
 * (TRI_ESTATE as the last error). */
TRI_API void tri_vmstack_move(tri_thread *thread, tri_vmstack *stack, void *base, const void *top_address);

/* Forgets a value stack that the thread runs, or a stack of either kind that is suspended. One that another thread
 * runs, or a native one that this thread runs on, is reported and stays. */
TRI_API void tri_vmstack_remove(tri_thread *thread, tri_vmstack *stack);

/* Coroutines (rule R8). Suspend: the stack is nobody's; it stays a root until removed. Resume: it is the calling
 * thread's. Touch: before the calling thread reads or writes a slot of a suspended stack (an open upvalue, a resume
 * argument); it holds until the thread's next safepoint. Threads that share stacks agree by a lock of their own about
 * who resumes, and who touches and then reads or writes. TRI_ESTATE when the stack is in another state, or native (but
 * for touch). */
TRI_API int tri_vmstack_suspend(tri_thread *thread, tri_vmstack *stack);
TRI_API int tri_vmstack_resume(tri_thread *thread, tri_vmstack *stack);
TRI_API int tri_vmstack_touch(tri_thread *thread, tri_vmstack *stack);

/* Registers a native stack for a coroutine: size_bytes of the host's memory from `low` on, growing down, suspended and
 * empty; what its first function needs lies in roots until that has run. Enough for the calls made on it: trigc's slow
 * paths need some 8 KiB, without the host's callbacks. Its words are scanned conservatively, and the frames pushed on
 * it precisely; by an attachment with TRI_ATTACH_PRECISE, the frames alone. It is a root until tri_vmstack_remove.
 * NULL: TRI_ENOMEM; TRI_EINVAL for an address or size that is no multiple of 16, or less than 1024 bytes. Any attached
 * thread. */
TRI_API tri_vmstack *tri_native_add(tri_thread *thread, void *low, size_t size_bytes);

/* Leaves the native stack that the calling thread runs on for `to`, which is suspended; NULL: for the thread's own.
 * Spills the registers and calls jump(arg) on the stack that is left: it switches (swapcontext, or some instructions of
 * assembly) and returns once somebody has switched back, maybe on another thread; then this call returns TRI_OK.
 * Between the call and jump's switch there is no safepoint, and jump makes none. From then on the stack that was left
 * may be switched to by any thread of the heap, which has to be told so from the stack that was switched to, not
 * before; a thread's own stack only by that thread. After it returns, use the tri_thread of the thread that it returned
 * on (tri_self), and that for frames; no scope of local handles may be open across it. A thread attached to several
 * heaps calls it for each, the next one inside jump. A thread may detach or end on a registered stack: it is forgotten
 * then. TRI_ESTATE when `to` is not suspended, or the thread is on another stack than it said last; TRI_EINVAL when
 * `to` is none of this heap's native stacks: jump is not called then. */
TRI_API int tri_native_switch(tri_thread *thread, tri_vmstack *to, void (*jump)(void *arg), void *arg);

/* Registers a callback that visits roots of the calling thread, in its scan handshake, on its own thread or, while it
 * is blocked, on the collector's. It may call tri_visit* and nothing else. NULL: TRI_ENOMEM, TRI_EINVAL. */
TRI_API tri_scanner *tri_scanner_add(tri_thread *thread, void (*fn)(tri_visitor *, void *), void *arg);
/* Takes a callback back; it is called once more while a cycle marks, so `arg` must still be valid. Its owner. */
TRI_API void tri_scanner_remove(tri_thread *thread, tri_scanner *scanner);

/* For trace and root callbacks: visits n slots from `slots` on: plain pointers, or values under `enc`. */
TRI_API void tri_visit(tri_visitor *visitor, const void *slots, size_t n);
TRI_API void tri_visit_values(tri_visitor *visitor, const void *slots, size_t n, const tri_enc *enc);

#ifdef __cplusplus
}
#endif

#endif
