/* rules.h - what builds with checks know of the code that a thread is in, so that rules which no single place keeps can
 * be asserted where they would be broken:
 *
 *   R1   stores, flushes, handle operations and a step's answer reach no safepoint: NO_SAFEPOINT says so to the end of
 *        its block, and every safepoint and every wait asks may_safepoint.
 *   R17  trace and root callbacks call tri_visit* and nothing else: IN_CALLBACK stands around each call of one, and
 *        every public call asks tri__callback_calls.
 *
 *   signals  a handler that interrupts a call of its thread makes none: IN_CALL stands in the calls that have
 *        safepoints or run functions of the host's, NO_SAFEPOINT in the others, and every public call asks whether one
 *        is under way (tri__callback_calls). The host's own functions run in IN_HOOK: hooks, cleanups, what
 *        tri_blocking and tri_callin call; so do public calls that another one is made of. Left out are calls that read
 *        a word or two and the inline fast paths; and tri_native_switch, whose jump may come back on another thread, is
 *        covered up to it.
 *
 * Without checks all of it is nothing. Both belong to the running thread, not to an attachment: a safepoint answers all
 * heaps of its thread, and callbacks run on collectors, too. */
#ifndef TRI_GC_RULES_H
#define TRI_GC_RULES_H

#include <trigc.h>
#include "alloc/base/bits.h"
#include "alloc/base/check.h"

#if TRI_CHECKS >= 1

struct running {
    const char *no_safepoint; /* what may reach none, or NULL */
    const char *callback;     /* the kind of host's callback that runs, or NULL */
    const char *call;         /* the call of IN_CALL that is under way, or NULL */
    bool hook;                /* a hook of the host's runs, which may make calls */
};
extern _Thread_local struct running tri__running;

/* Ends the process: a safepoint where none may be (R1). */
_Noreturn void tri__safepoint_refused(void);
/* True, with a report, if the call comes out of a trace or root callback (R17), or interrupts another one on its
 * thread: it is refused then. */
bool tri__callback_calls(tri_heap *heap, const char *call);

static inline struct running running_without_safepoint(const char *what) {
    struct running outer = tri__running;
    tri__running.no_safepoint = what;
    tri__running.hook = false;
    return outer;
}
static inline struct running running_callback(const char *what) {
    struct running outer = tri__running;
    tri__running.callback = what;
    return outer;
}
static inline struct running running_call(const char *what) {
    struct running outer = tri__running;
    tri__running.call = what;
    tri__running.hook = false;
    return outer;
}
static inline struct running running_hook(void) {
    struct running outer = tri__running;
    tri__running.callback = NULL;
    tri__running.hook = true;
    return outer;
}
static inline void running_back(struct running *outer) {
    tri__running = *outer;
}
/* At a thread's end: no call goes on, whatever it was ended in. */
static inline void running_ends(void) {
    tri__running = (struct running){0};
}
static inline void may_safepoint(void) {
    if (TRI_UNLIKELY(tri__running.no_safepoint != NULL)) tri__safepoint_refused();
}

#define TRACE_CALLBACK "trace callback, which may call tri_visit and tri_visit_values and nothing else (R17)"
#define ROOT_CALLBACK "root callback, which may call tri_visit and tri_visit_values and nothing else (R17)"
#define WALK_CALLBACK "callback of tri_walk, which may not call trigc"

#define RUNNING_SCOPE __attribute__((cleanup(running_back), unused)) struct running
#define NO_SAFEPOINT(what) RUNNING_SCOPE running_outer = running_without_safepoint(what)
#define IN_CALLBACK(what) RUNNING_SCOPE callback_outer = running_callback(what)
#define IN_CALL(what) RUNNING_SCOPE call_outer = running_call(what)
#define IN_HOOK() RUNNING_SCOPE hook_outer = running_hook()

#else

static inline bool tri__callback_calls(tri_heap *heap, const char *call) {
    (void)heap, (void)call;
    return false;
}
static inline void running_ends(void) {}
static inline void may_safepoint(void) {}

#define NO_SAFEPOINT(what) ((void)0)
#define IN_CALLBACK(what) ((void)0)
#define IN_CALL(what) ((void)0)
#define IN_HOOK() ((void)0)

#endif
#endif
