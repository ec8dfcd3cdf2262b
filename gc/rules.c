/* rules.c - the reports of rules.h: a safepoint where none may be, a callback that calls what it may not. */
#include "gc/rules.h"

#if TRI_CHECKS >= 1

#include <stdio.h>
#include "gc/error.h"

_Thread_local struct running tri__running;

_Noreturn void tri__safepoint_refused(void) {
    char text[160];
    snprintf(text, sizeof text, "R1: no safepoint inside %s%s", tri__running.no_safepoint,
             tri__running.hook ? ": a hook made a call that is one (tri_collect, an allocation)" : "");
    tri__fatal(__FILE__, __LINE__, "no_safepoint == NULL", text);
}

bool tri__callback_calls(tri_heap *heap, const char *call) {
    if (TRI_UNLIKELY(tri__running.callback != NULL)) {
        tri__report(heap, call, "called from inside a %s", tri__running.callback);
        return true;
    }
    const char *under_way = tri__running.call ? tri__running.call : tri__running.no_safepoint;
    if (TRI_LIKELY(!under_way || tri__running.hook)) return false;
    tri__report(heap, call, "called while %s is under way on the same thread: a signal handler may not call trigc",
                under_way);
    return true;
}

#else

typedef int tri__no_rules; /* a file is not empty in ISO C */

#endif
