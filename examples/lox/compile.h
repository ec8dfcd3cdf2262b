/* compile.h - from source to a function, in one pass. */
#ifndef LOX_COMPILE_H
#define LOX_COMPILE_H

#include "object.h"

/* The script as a function, or NULL after messages on standard error. A safepoint; the result is in no root. */
struct function *compile(const char *source);

/* Visits what a compilation in progress holds: part of the VM's scan callback. */
void compile_visit_roots(struct mem_visitor *visitor);

#endif
