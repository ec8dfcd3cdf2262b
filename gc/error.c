/* error.c - last errors and reports; see error.h. The text lies in a thread-local array: nothing is allocated. */
#include "gc/error.h"
#include <stdarg.h>
#include <stdio.h>
#include "gc/heap.h"
#include "gc/rules.h"

static _Thread_local char last_error[512];

const char *tri_last_error(void) {
    return last_error;
}

const char *tri_strerror(int err) {
#define TRI__CASE(name, value, text) \
    case value: return text;
    switch (err) { TRI_ERRORS(TRI__CASE) }
#undef TRI__CASE
    return "unknown error";
}

static void set_text(const char *call, const char *format, va_list args) {
    int n = snprintf(last_error, sizeof last_error, "%s: ", call);
    if (n > 0 && (size_t)n < sizeof last_error) vsnprintf(last_error + n, sizeof last_error - (size_t)n, format, args);
}

int tri__error(int err, const char *call, const char *format, ...) {
    va_list args;
    va_start(args, format);
    set_text(call, format, args);
    va_end(args);
    return err;
}

void tri__report(tri_heap *heap, const char *call, const char *format, ...) {
    va_list args;
    va_start(args, format);
    set_text(call, format, args);
    va_end(args);
    IN_HOOK(); /* it may call what it likes, a trace callback's finding may have brought it here */
    if (heap && heap->config.report)
        heap->config.report(last_error, heap->config.user);
    else
        fprintf(stderr, "trigc: %s\n", last_error);
}
