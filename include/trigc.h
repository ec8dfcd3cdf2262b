/* trigc.h - the whole contract of trigc, a concurrent garbage-collected heap for C: here heaps, threads, types,
 * allocation, stores and control; trigc/roots.h, death.h, manual.h and insight.h come with it.
 *
 * In one paragraph: create a heap, attach each thread that uses it, describe your objects with `tri_type`
 * descriptors, allocate with `tri_new`, store references with `tri_store`, keep what you need reachable from a root
 * (the native stack by default, frames, VM stacks, global slots or handles), and call `tri_poll` in loops that do not
 * allocate. Marking and sweeping happen beside your threads; no call stops them all.
 *
 * Conventions, which hold wherever a comment does not say otherwise:
 *  - A `tri_thread *` may be used only by the thread that attached it. "Any attached thread" means: with its own one.
 *  - Sizes are bytes, times nanoseconds, unless the name says otherwise (`npages`, `percent`).
 *  - Calls return TRI_OK (0) or a negative `tri_err`; allocation returns NULL. `tri_last_error()` then says which call
 *    it was, what was wrong and what to do. A call that fails changes nothing. TRI_EINVAL for a NULL where none may be,
 *    and TRI_EUNATTACHED for the sentinel of tri_self, go without saying.
 *  - Misuse of a call that returns no status is told to the report hook, and the call does nothing. Builds with checks
 *    (-Dchecks) look for more of it, at the price of time: another thread's tri_thread, calls inside tri_blocking,
 *    calls out of a trace or root callback (TRI_ESTATE, where there is a status), stores that miss their object.
 *  - SAFEPOINT marks the calls at which the collector may scan the thread's roots: every live reference must then be
 *    in a root. Calls without the mark are never safepoints (rule R1 of docs/design.md).
 *  - No call may be made by a signal handler; builds with checks report one that interrupts another on its thread, but
 *    for inline fast paths and calls that read a word or two (tri_load, tri_last_error). Functions that the host gives
 *    a call to run (tri_blocking, cleanups, hooks) interrupt nothing.
 *  - A thread that is cancelled while it waits inside a call ends after it, at its next cancellation point.
 *  - After fork, from a thread that is attached or not, in tri_blocking or not, the child has every heap as it was,
 *    with the calling thread's attachments alone. Other threads' tri_thread pointers are void, their roots gone; a
 *    value stack that one of them ran may only be removed. The parent is not disturbed. Not out of a callback or an
 *    event hook, nor out of a signal handler that interrupted a call: reported, and the child may only exec or _exit.
 *  - References are kept by roots and by objects that roots reach, and by nothing else: a reference that sits only in
 *    malloc'd memory, a C queue or another heap keeps nothing alive. Use a handle (`tri_global`) to hand one over.
 */
#ifndef TRIGC_H
#define TRIGC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <trigc/version.h>

#if defined(__GNUC__) || defined(__clang__)
#define TRI_API __attribute__((visibility("default")))
#else
#error "trigc needs the __atomic builtins of gcc or clang"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------------------------
 * Basic types
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct tri_heap tri_heap;       /* one collected heap; heaps share nothing */
typedef struct tri_thread tri_thread;   /* one thread's attachment to one heap */
typedef struct tri_visitor tri_visitor; /* handed to trace and root callbacks */
typedef struct tri_vmstack tri_vmstack; /* a registered value stack, or native stack of a coroutine */
typedef struct tri_root tri_root;       /* a registered range of global slots */
typedef struct tri_scanner tri_scanner; /* a registered root callback */
typedef struct tri_finq tri_finq;       /* a queue of objects that came back to be finalized */
typedef struct tri_ref *tri_handle;     /* a local or a persistent handle; NULL is no handle */

/* A slot as it lies in memory: a plain pointer or an encoded value. May alias any type, so a `struct foo *` field can
 * be read as one. */
typedef uint64_t __attribute__((__may_alias__)) tri_word;

/* Every status code with the sentence that tri_strerror returns for it. */
#define TRI_ERRORS(X)                                                          \
    X(TRI_OK, 0, "success")                                                    \
    X(TRI_EINVAL, -1, "an argument is not valid")                              \
    X(TRI_ENOMEM, -2, "memory could not be had from the system")               \
    X(TRI_ELIMIT, -3, "a limit of the heap or of the library is reached")      \
    X(TRI_ESTATE, -4, "the call is not allowed in this state")                 \
    X(TRI_EABI, -5, "the header and the library do not belong together")       \
    X(TRI_EUNATTACHED, -6, "the calling thread is not attached to the heap")   \
    X(TRI_EBUSY, -7, "threads are still attached or objects still registered") \
    X(TRI_ETYPE, -8, "the type descriptor contradicts itself")                 \
    X(TRI_ETIMEDOUT, -9, "the wait limit passed before what was waited for came")

#define TRI__ENUM(name, value, text) name = value,
typedef enum tri_err { TRI_ERRORS(TRI__ENUM) TRI__ERR_LAST = -100 } tri_err;
#undef TRI__ENUM

/* The constant sentence for a status code; never NULL. Any thread, attached or not. */
TRI_API const char *tri_strerror(int err);

/* The calling thread's last error in words: call, cause, remedy. An empty string before the first one. The text stays
 * valid until the thread's next failing or reported call. Any thread. */
TRI_API const char *tri_last_error(void);

/* The version of the library that is linked, as TRI_VERSION_STRING has it for the header. Any thread. */
TRI_API const char *tri_version(void);

/* ---------------------------------------------------------------------------------------------------------------
 * Heaps
 * ------------------------------------------------------------------------------------------------------------- */

/* Kinds of event that the host's hook is told. */
enum {
    TRI_EVENT_CYCLE_END = 1,     /* a collection is complete, its sweep too */
    TRI_EVENT_SILENT_THREAD = 2, /* a step has waited for silent_after_ms for a thread to reach a safepoint */
    /* With TRI_HEAP_EVENTS only: */
    TRI_EVENT_PHASE = 3, /* a cycle has come to another phase: `phase`; "idle" when it has ended */
    TRI_EVENT_PAUSE =
        4 /* a thread was kept from running: pause_kind, pause_ns, thread_id; on that thread. A scan is part
                            of a handshake, and told before it */
};

/* One event. Valid during the hook only. */
typedef struct tri_event {
    uint32_t struct_size;     /* sizeof(tri_event) in the library */
    uint32_t kind;            /* TRI_EVENT_* */
    uint64_t cycle;           /* number of the cycle, from 1 */
    const char *reason;       /* what began it: "trigger", "forced", "limit", "pressure", "idle", "stress" */
    size_t live_before_bytes; /* in the heap when the cycle began */
    size_t live_after_bytes;  /* marked, with what was allocated meanwhile */
    size_t goal_bytes;        /* the size at which the next cycle should be complete */
    uint64_t cycle_ns;        /* arm to retire */
    uint64_t mark_ns;         /* the part of it spent tracing */
    uint64_t worst_pause_ns; /* longest that one mutator was kept from running since the last cycle's end; what the host
                               asked for apart */
    uint64_t assist_ns;      /* time that mutators spent on assists, together */
    uint32_t flush_rounds;   /* rounds of H4 that were needed */
    uint32_t nthreads;       /* attached threads */
    uint64_t silent_ns;      /* SILENT_THREAD: how long it has been waited for */
    uint64_t silent_thread_id; /* SILENT_THREAD: the system's thread id */
    uint64_t time_ns;          /* now, on the system's monotonic clock: a pause's end */
    const char *phase;         /* PHASE: "idle", "arm", "settle", "scan", "mark", "flush", "death", "disarm", "retire",
                                  "sweep" */
    uint32_t pause_kind;       /* PAUSE: TRI_PAUSE_*; CYCLE_END: the cause of worst_pause_ns */
    uint64_t pause_ns;         /* PAUSE: how long */
    uint64_t thread_id;        /* PAUSE: the system's thread id */
    /* SILENT_THREAD: its last call that took the library's slow path, and from where in the program (a return address);
     * NULL: none yet. What the inline fast paths have answered since leaves no trace. */
    const char *silent_call;
    const void *silent_site;
} tri_event;

/* Flags of a heap. */
enum {
    TRI_HEAP_PRECISE = 1u << 0,   /* native stacks are not scanned; every reference must be in a precise root */
    TRI_HEAP_NO_CYCLES = 1u << 1, /* collect only when tri_collect asks (the `none` of comparisons) */
    /* Every request for 0 bytes gets an address of its own, of a slot that lives and dies. Else all get one address,
     * which no heap owns: tri_find and tri_usable_size find nothing there, and tri_free has nothing to do. */
    TRI_HEAP_UNIQUE_ZERO = 1u << 2,
    /* The tiny allocator: bytes of fewer than 16 share a slot of 16 with others of their thread, which lives as long as
     * one of them is referred to. They are aligned to the largest power of two that divides their size, at least 2;
     * tri_find names the slot, tri_walk counts it once, tri_usable_size is 0 and tri_free refuses them. */
    TRI_HEAP_TINY = 1u << 3,
    /* The heap's memory thread populates pages ahead of a growing heap of 64 MiB or more: fewer page faults in the
     * program and more throughput where cores are free; longer single waits, since it holds the system's lock on the
     * address space meanwhile. */
    TRI_HEAP_POPULATE = 1u << 4,
    /* tri_heap_destroy runs every cleanup that has not been run, of live objects too; without it they are dropped. */
    TRI_HEAP_RUN_CLEANUPS = 1u << 6,
    /* The event hook is told of phases and pauses too: some ten calls a cycle, and one for each pause. */
    TRI_HEAP_EVENTS = 1u << 5
};

/* Configuration of a heap. Fill it with tri_config_init, then change what you need. */
typedef struct tri_config {
    uint32_t struct_size;    /* set by tri_config_init */
    uint32_t flags;          /* TRI_HEAP_* */
    size_t reserve_bytes;    /* address range to reserve; 0: chosen from the machine's memory and limits */
    size_t hard_limit_bytes; /* committed heap never exceeds it; 0: the reservation */
    size_t soft_limit_bytes; /* cycles work towards staying below it, with up to half of the processors' time, and
                                 free pages go back at once near it; 0: none */
    size_t min_heap_bytes;   /* the least room between what is live and the goal; default 4 MiB */
    uint32_t
        growth_percent; /* goal = base + (base + roots) * growth_percent / 100, with at least that room; default 60 */
    uint32_t silent_after_ms; /* tell the event hook of a thread that reaches no safepoint for so long; default 1000 */
    uint64_t wait_limit_ms;   /* bound of each wait: for a cycle, its close, or a stopped world; at least 1 (0 is
                                 refused), UINT64_MAX: none; default 10000 */
    /* Called when memory for `size_bytes` cannot be had, inside the allocation: may release handles, caches and
     * external memory, may not allocate, nor call what is a SAFEPOINT: tri_manual_alloc and tri_wmap_put, which ask it
     * too, are none. Return nonzero to try once more, 0 to let the allocation return NULL. */
    int (*oom)(tri_heap *heap, size_t size_bytes, void *user);
    /* Told of events, on a thread of the heap's, the one that ran a cycle, or the one that was kept. May call nothing
     * of the heap but tri_stats_get. */
    void (*event)(const tri_event *event, void *user);
    /* Told in words of misuse and of what the checking modes find. NULL: standard error. Any thread. */
    void (*report)(const char *message, void *user);
    void *user; /* handed to the hooks */
    /* A heap in which nothing was allocated for so long is collected and trimmed, once for each such period;
     * 0: never; default 5000. With TRI_HEAP_NO_CYCLES it is trimmed only. */
    uint64_t idle_trim_ms;
    /* Threads that mark; default a quarter of the processors that the process may use, at least 1. 0: the heap starts
     * no thread at all. All its work is then done in slices inside allocations, and in tri_step. Where the heap's
     * threads that run need all processors, they do the work of a cycle that they trigger in such slices, too. */
    uint32_t workers;
    /* What collecting may take of all processors' time (of a control group's quota when the heap is made, in
     * thousandths of a processor, if that is less), assists included:
     * 1 to 100, default 100, no cap. No more threads mark at a time, or one for a part of the time, unless somebody
     * waits for the cycle; and where that is not enough the heap gets more room than growth_percent says, up to the
     * hard limit. Sweeping counts, but follows what is allocated: what it takes alone beyond the cap stays. Near the
     * soft limit the cap holds instead of a half. */
    uint32_t cpu_percent;
} tri_config;

/* Fills `config` with the defaults. Any thread. */
TRI_API void tri_config_init(tri_config *config);

/* Creates a heap and, unless it has no workers, starts its collector threads, and one that gives memory back to the
 * system. `config` may be NULL
 * for the defaults. Environment: TRI_TRACE=1 prints a line a cycle to standard error; TRI_OPTIONS="key=value,..." is
 * applied as by tri_heap_set, and what it refuses is reported. Any thread. Fails with TRI_EINVAL, TRI_ENOMEM,
 * TRI_EABI. */
static inline int tri_heap_create(const tri_config *config, tri_heap **out);

/* Ends the heap: joins its threads, unmaps everything. With TRI_HEAP_RUN_CLEANUPS, cleanups run first, on the calling
 * thread: they may use the heap's manual memory and nothing else of it. What lies in finalizer queues, and what they
 * still watch, is dropped without being seen: tri_finq_new says what to do before the last tri_detach.
 * TRI_EBUSY while a thread is attached. Any thread, not concurrently with another call on the same heap. */
TRI_API int tri_heap_destroy(tri_heap *heap);

/* Changes one option while the heap runs: "growth_percent=80", "hard_limit_bytes=..." (0: the reservation),
 * "soft_limit_bytes=..." (0: none), "min_heap_bytes=...", "cpu_percent=..." (of these goal and trigger are set anew at
 * once, in the middle of a cycle too), "idle_trim_ms=...", "wait_limit_ms=...", "silent_after_ms=..." (from
 * the next wait on), "workers=N" (1 or more, where there is one),
 * "mode=concurrent|insertion|stop-mark|stop|incremental" (how cycles run; between two cycles, else TRI_EBUSY;
 * docs/design.md, "Modes"), "cycles=on|off", "tiny=on|off", "populate=on|off", "events=on|off" and
 * "zero_size=fixed|unique" (see TRI_HEAP_*; from the next allocation on), "metadata_huge=on|off" (huge pages for the
 * side tables from now on, TRI_ENOMEM where the system has none); K, M and G may follow a number. In builds with checks
 * also the switches of docs/design.md, section "Correct first". TRI_EINVAL for an unknown key or a bad value. Any
 * thread. */
TRI_API int tri_heap_set(tri_heap *heap, const char *key_equals_value);

/* ---------------------------------------------------------------------------------------------------------------
 * Threads
 * ------------------------------------------------------------------------------------------------------------- */

/* Flags of an attachment. */
enum {
    TRI_ATTACH_PRECISE = 1u << 0 /* this thread's native stack is not scanned */
};

/* Attaches the calling thread to a heap. A thread that ends is detached by itself (one that attaches in a destructor of
 * thread-specific data detaches there: its turn to be looked at may be over). May be called in mid-cycle.
 * TRI_ESTATE when it is attached already, or inside tri_blocking; TRI_EINVAL for unknown flags; TRI_ENOMEM, also when
 * the thread's stack is to be scanned and the system does not tell where it lies; TRI_ELIMIT without a pthread key.
 * SAFEPOINT for the thread's other heaps. */
TRI_API int tri_attach(tri_heap *heap, uint32_t flags, tri_thread **out);

/* Detaches the calling thread: its roots, frames, local handles, scanners and running VM stacks are forgotten;
 * references it still holds in C variables keep nothing alive. SAFEPOINT. TRI_ESTATE inside tri_blocking (and
 * tri_callin), and for another thread's attachment. */
TRI_API int tri_detach(tri_thread *thread);

/* The calling thread's attachment to `heap`, or, when there is none, a static sentinel: every call made with it (but
 * tri_init and frames, which need no heap) is refused with TRI_EUNATTACHED (or NULL, or nothing stored) and a report
 * that names the call. Never NULL. Any thread. */
TRI_API tri_thread *tri_self(tri_heap *heap);

/* The heap of an attachment; NULL for the sentinel. The thread itself. */
TRI_API tri_heap *tri_thread_heap(tri_thread *thread);

/* SAFEPOINT, and nothing else: one load when nothing is asked. Call it in every loop that neither allocates nor ends
 * soon. A thread that does not delays the end of a cycle, not the other threads. */
static inline void tri_poll(tri_thread *thread);

/* Runs fn(arg) as a blocking region: the collector need not wait for this thread, in any heap that it is attached to.
 * Use it around system calls that wait, long computations without safepoints, and waiting for other threads or locks.
 * fn may not touch references, frames, stacks or handles, may not call trigc (but tri_callin), and must return: no
 * longjmp or cancellation across; a thread that ends inside it may have no frame pushed and no VM stack on its native
 * stack. `arg`, and after it the value returned, are scanned conservatively for the duration, in precise heaps too.
 * Returns fn's value; NULL, reported, inside another region (use tri_callin first) and for another thread's attachment;
 * NULL with TRI_ENOMEM when the fifth region inside regions, or one deeper, cannot be noted for want of memory: fn has
 * not run then. SAFEPOINT before and after. */
TRI_API void *tri_blocking(tri_thread *thread, void *(*fn)(void *), void *arg);

/* From inside tri_blocking: runs fn(arg) as an ordinary mutator again, then goes back to blocking. fn returns on the
 * thread that called it: a coroutine that is left in there goes on on no other (the process ends with words).
 * SAFEPOINT. NULL with TRI_ESTATE when the thread is not in a blocking region. */
TRI_API void *tri_callin(tri_thread *thread, void *(*fn)(void *), void *arg);

/* ---------------------------------------------------------------------------------------------------------------
 * Types
 * ------------------------------------------------------------------------------------------------------------- */

/* How an encoded value names an object: it does if (w & mask) == tag and bit (w & 63) of `tags` is set; the address
 * is then w & ptr_mask. NaN boxing: {0xfffc000000000000, 0xfffc000000000000, ~0, 0x0000ffffffffffff}. Low-bit tags
 * where tag 1 and 3 of two bits are references: {0, 0, every bit k with (k & 3) in {1, 3}, ~3}. */
typedef struct tri_enc {
    uint64_t mask, tag, tags, ptr_mask;
} tri_enc;

/* One kind of slot in an object: as a bitmap (bit i: word i), as byte offsets, or both. All zero: none. */
typedef struct tri_slots {
    const uint64_t *bitmap;  /* bit i of word i/64: the word at byte 8*i is such a slot */
    uint32_t nbits;          /* bits in `bitmap` */
    uint32_t noffsets;       /* entries in `offsets` */
    const uint32_t *offsets; /* byte offsets, each a multiple of 8 */
} tri_slots;

/* Custom tracing, the last resort: visit every slot of obj from position `from` on, stop after about `budget` slots
 * and return the position to go on with, or 0 when all are visited. Runs on any thread while mutators write the
 * object: read slots through tri_visit only; no lock, no allocation, no trigc call but tri_visit*. Removing a slot
 * from what it visits is a deletion: tri_clear it first (rule R11). */
typedef size_t (*tri_trace_fn)(tri_visitor *visitor, void *obj, size_t from, size_t budget);

enum {
    TRI_TYPE_LEAF = 1u << 0 /* no slots: never scanned, and not zeroed unless TRI_TYPE_ZEROED is set too */,
    TRI_TYPE_ZEROED = 1u << 1
};

/* A type descriptor: a static object, registered by its first use. One descriptor may serve many heaps. */
typedef struct tri_type {
    uint32_t struct_size; /* sizeof(tri_type) */
    uint32_t layout;      /* the library's: first layout number, 0 before registration */
    const char *name;     /* for messages; not NULL */
    size_t size;          /* bytes of the object, or of the part before its elements */
    size_t elem_size;     /* bytes of one trailing element; 0: no elements */
    uint32_t align;       /* 8 or 16; 0: 8 */
    uint32_t flags;       /* TRI_TYPE_* */
    const tri_enc *enc;   /* how `values` and `maybes` are decoded; NULL: a plain pointer */
    tri_slots pointers;   /* words that are NULL, a pointer to or into an object, or a pointer outside the heap */
    tri_slots values;     /* words decoded by `enc` */
    tri_slots maybes;     /* words that may be a reference or any bits: validated like a conservative word; every
                           * store to one but the first is a tri_store_value, integers included (rule R5) */
    tri_slots elem_pointers, elem_values, elem_maybes; /* the same within one element */
    tri_trace_fn trace;                                /* NULL, or custom tracing instead of the slots */
    uint32_t hole;        /* the library's: where a thread's hole of this layout lies, 0 before registration */
    tri_slots weaks;      /* words that are NULL or name an object without keeping it alive: cleared when it dies, read
                       * through tri_weak_load alone; allowed beside `trace` */
    tri_slots elem_weaks; /* the same within one element */
} tri_type;

/* What a descriptor says of its objects, in the terms of Go's _type. */
typedef struct tri_type_data {
    uint32_t struct_size; /* set before the call: sizeof(tri_type_data) */
    uint32_t layout;      /* process-wide number */
    const char *name;
    size_t size, ptrdata;   /* bytes; bytes up to and with the last slot of the fixed part */
    uint32_t align, kind;   /* kind: 0 struct, 1 array, 2 leaf, 3 traced */
    uint64_t hash;          /* of name, size and slots */
    const uint64_t *gcdata; /* bitmap of all slots of the fixed part, of any kind */
    uint32_t gcdata_nbits;  /* ptrdata / 8 */
} tri_type_data;

/* Checks and registers a descriptor ahead of its first use. TRI_ETYPE (tri_last_error names the field and the reason),
 * TRI_ELIMIT (some 65,000 layout numbers; an array type takes one for each size class) or TRI_ENOMEM. Any thread. */
TRI_API int tri_type_register(tri_type *type);

/* Describes a descriptor, registering it if needed, and fails as tri_type_register does. Any thread. */
TRI_API int tri_type_describe(tri_type *type, tri_type_data *out);

/* Declares `static tri_type name` for struct T whose pointer slots are the fields listed (1 to 16 of them):
 *     TRI_TYPE(node_type, struct node, left, right); */
#define TRI_TYPE(name_, T, ...)                                             \
    static const uint32_t name_##_slots[] = {TRI__OFFSETS(T, __VA_ARGS__)}; \
    static tri_type name_ = TRI__TYPE_INIT(#T, sizeof(T), 0, 0, 0, TRI__LIST(name_##_slots), TRI__NONE, TRI__NONE)

/* The same for a struct whose fields listed are weak slots, and which has no other slots. */
#define TRI_WEAK_TYPE(name_, T, ...)                                        \
    static const uint32_t name_##_slots[] = {TRI__OFFSETS(T, __VA_ARGS__)}; \
    static tri_type name_ = TRI__TYPE_INIT_WEAK(#T, sizeof(T), TRI__LIST(name_##_slots))

/* The same for fields that hold values encoded as *enc says. */
#define TRI_VALUE_TYPE(name_, T, enc_, ...)                                 \
    static const uint32_t name_##_slots[] = {TRI__OFFSETS(T, __VA_ARGS__)}; \
    static tri_type name_ = TRI__TYPE_INIT(#T, sizeof(T), 0, 0, enc_, TRI__NONE, TRI__LIST(name_##_slots), TRI__NONE)

/* A struct without references: never scanned. Zeroed like any other. */
#define TRI_LEAF_TYPE(name_, T)                                                                                        \
    static tri_type name_ = TRI__TYPE_INIT(#T, sizeof(T), 0, TRI_TYPE_LEAF | TRI_TYPE_ZEROED, 0, TRI__NONE, TRI__NONE, \
                                           TRI__NONE)

/* An array of plain pointers after a header of header_bytes bytes without references (0 is allowed). */
#define TRI_POINTER_ARRAY_TYPE(name_, header_bytes_)                                             \
    static const uint32_t name_##_slots[] = {0};                                                 \
    static tri_type name_ = TRI__TYPE_INIT(#name_, header_bytes_, 8, 0, 0, TRI__NONE, TRI__NONE, \
                                           TRI__LIST(name_##_slots))

/* ---------------------------------------------------------------------------------------------------------------
 * Allocation. SAFEPOINT, all of them. Zeroed memory (but for leaf types without TRI_TYPE_ZEROED), 16-byte aligned
 * from 16 bytes up. NULL when memory cannot be had, after the host's hook; tri_last_error says why.
 * ------------------------------------------------------------------------------------------------------------- */

/* A new object of the type (of its fixed part, when it has elements). Any attached thread. */
static inline void *tri_new(tri_thread *thread, tri_type *type);

/* A new object with n trailing elements. NULL also when the size overflows (TRI_ENOMEM), or when n is not 0 and the
 * type has no elements (TRI_EINVAL). Any attached thread. */
TRI_API void *tri_new_n(tri_thread *thread, tri_type *type, size_t n);

/* Up to n new objects of the type (as tri_new), in out[0] to out[k - 1]; k is returned. The safepoint comes before the
 * first one and there is none until the call returns, so `out` need not be a root before the thread's next safepoint.
 * Fewer than n where the next one would need a safepoint: put those into roots and call again for the rest. 0 when
 * memory cannot be had, or for n = 0. Any attached thread. */
TRI_API size_t tri_new_batch(tri_thread *thread, tri_type *type, void **out, size_t n);

/* size_bytes of memory without references, not zeroed. 0 bytes: see TRI_HEAP_UNIQUE_ZERO. Any attached thread. */
TRI_API void *tri_new_bytes(tri_thread *thread, size_t size_bytes);

/* The same, aligned to align_bytes: a power of two up to 8,192 (else NULL, TRI_EINVAL). Any attached thread. */
TRI_API void *tri_new_aligned(tri_thread *thread, size_t align_bytes, size_t size_bytes);

/* Bytes that the object really has (its slot), from the pointer to its start or its interior; 0 when it names no
 * object. The marker's idea of an array's length is (this - type.size) / type.elem_size. Any thread. */
TRI_API size_t tri_usable_size(tri_heap *heap, const void *obj);

/* Tells the pacer of bytes that objects of this heap hold outside it (buffers, images): `delta_bytes` more or less
 * than before. More of them may start a cycle, and while one marks the call helps it, for 0.2 ms at most: for such
 * bytes as for bytes of the heap. What a cleanup takes back (tri_cleanup_run) counts as garbage of the
 * last cycle: the next one comes as soon as if it had not been there. Taking back more than was added is reported and
 * leaves 0, adding more than a quarter of the address space is reported and leaves that. Not a safepoint. Any attached
 * thread. */
TRI_API void tri_external(tri_thread *thread, ptrdiff_t delta_bytes);

/* ---------------------------------------------------------------------------------------------------------------
 * Stores and loads. Never safepoints. `obj` is the object that the slot lies in; `slot` the address of its field.
 * ------------------------------------------------------------------------------------------------------------- */

/* The first store to a slot of an object that no other thread has seen, before the thread's next safepoint: no
 * barrier (rule R18 of docs/design.md). */
static inline void tri_init(tri_thread *thread, void *obj, void *slot, const void *ref);
static inline void tri_init_value(tri_thread *thread, void *obj, void *slot, tri_word value);

/* Every other store of a reference, NULL included. A release store with the write barrier. */
static inline void tri_store(tri_thread *thread, void *obj, void *slot, const void *ref);
static inline void tri_store_value(tri_thread *thread, void *obj, void *slot, tri_word value);

/* Acquire load of a slot that other threads may write. Slots that only this thread writes may be read plainly. */
static inline void *tri_load(const void *slot);
static inline tri_word tri_load_value(const void *slot);

/* Atomic exchange and compare-and-swap (sequentially consistent) with the barrier. tri_cas returns whether it stored,
 * and writes what it found to *expected when it did not. What is refused gives 0 and false. */
TRI_API tri_word tri_xchg(tri_thread *thread, void *obj, void *slot, tri_word value);
TRI_API bool tri_cas(tri_thread *thread, void *obj, void *slot, tri_word *expected, tri_word value);

/* memmove of n slots into `obj`, and clearing of n slots, word by word, each with the barrier. The two ranges may
 * overlap. */
TRI_API void tri_move(tri_thread *thread, void *obj, void *dst_slots, const void *src_slots, size_t nslots);
TRI_API void tri_clear(tri_thread *thread, void *obj, void *slots, size_t nslots);

/* ---------------------------------------------------------------------------------------------------------------
 * Control
 * ------------------------------------------------------------------------------------------------------------- */

/* Waits for one whole cycle that begins after the call (as a blocking region), and for its sweep. What was garbage
 * before is gone then, but for what a conservative scan took for a reference. TRI_ETIMEDOUT after wait_limit_ms.
 * SAFEPOINT. Any attached thread. */
TRI_API int tri_collect(tri_thread *thread);

/* For a heap without workers (config.workers is 0): does what is to be done of a cycle, of sweeping and of returning
 * memory, for about budget_ns, which it keeps but for what cannot be cut: a thread's own stack, one trace callback, the
 * trim of a heap that has been idle for idle_trim_ms. Call it where the program has time to spare: at the end of a
 * frame, when an event loop has nothing to do. It begins a cycle earlier than allocations do; if that time is enough,
 * allocations do nothing but allocate. True if something is left to do now; where other threads of the heap have to
 * answer first that may take until their next safepoints. With workers: a safepoint, and false. SAFEPOINT. Any attached
 * thread. */
TRI_API bool tri_step(tri_thread *thread, uint64_t budget_ns);

/* Returns all free pages to the system now, those that the last cycle emptied among them; collects nothing itself: call
 * tri_collect first for what is garbage. The number of bytes that went. Any thread; not a safepoint. */
TRI_API size_t tri_trim(tri_heap *heap);

#ifdef __cplusplus
}
#endif

/* The rest of the contract, by topic, and the fast paths. */
#include <trigc/manual.h>
#include <trigc/death.h>
#include <trigc/roots.h>
#include <trigc/insight.h>
#include <trigc/inline.h>

#endif
