/* error.h - words for failing calls: the calling thread's last error, and the host's report hook. */
#ifndef TRI_GC_ERROR_H
#define TRI_GC_ERROR_H

#include <trigc.h>

/* Sets the calling thread's last error to "<call>: <text>" and returns `err`. Does not allocate. */
int tri__error(int err, const char *call, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Tells the heap's report hook (standard error without one, or without a heap) and sets the last error. For misuse
 * that has no return value, and for what the checking modes find. */
void tri__report(tri_heap *heap, const char *call, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
