/* check.h - assertions by level, each of which names the invariant that it checks.
 *
 * TRI_CHECKS: 0 none, 1 cheap O(1), 2 internal (a few instructions more on warm paths), 3 whole structures. A failed
 * assertion is the only thing that aborts: it prints the invariant, the condition and the place, without allocating. */
#ifndef TRI_BASE_CHECK_H
#define TRI_BASE_CHECK_H

#include <stdbool.h>

#ifndef TRI_CHECKS
#define TRI_CHECKS 0
#endif

/* Prints "trigc: broken invariant <text> ..." to standard error and aborts. Any thread, no lock needed. */
_Noreturn void tri__fatal(const char *file, int line, const char *condition, const char *invariant);

#define TRI__CHECK_ON(cond, inv) ((cond) ? (void)0 : tri__fatal(__FILE__, __LINE__, #cond, inv))
#define TRI__CHECK_OFF(cond, inv) ((void)sizeof((cond) ? 1 : 0))

/* check_always: also in release builds; for facts without which going on would corrupt memory. */
#define check_always(cond, inv) TRI__CHECK_ON(cond, inv)
#if TRI_CHECKS >= 1
#define check_cheap(cond, inv) TRI__CHECK_ON(cond, inv)
#else
#define check_cheap(cond, inv) TRI__CHECK_OFF(cond, inv)
#endif
#if TRI_CHECKS >= 2
#define check_internal(cond, inv) TRI__CHECK_ON(cond, inv)
#else
#define check_internal(cond, inv) TRI__CHECK_OFF(cond, inv)
#endif
#if TRI_CHECKS >= 3
#define check_whole(cond, inv) TRI__CHECK_ON(cond, inv)
#else
#define check_whole(cond, inv) TRI__CHECK_OFF(cond, inv)
#endif

#endif
