/* code.h - the instruction set, and the buffer in which a function's code grows while it is compiled.
 *
 * An instruction is one byte with operands of one byte each; jumps have a distance of two bytes, high byte first.
 *
 *     k    number of a constant         n    number of arguments
 *     s    slot in the frame            u    number of an upvalue
 */
#ifndef LOX_CODE_H
#define LOX_CODE_H

#include <stddef.h>
#include <stdint.h>

#include "object.h"

/* clang-format off */
#define OPCODES(X)                                                                             \
    X(CONSTANT)      /* k: push it                                                          */ \
    X(NIL)           /* push nil                                                            */ \
    X(TRUE)          /* push true                                                           */ \
    X(FALSE)         /* push false                                                          */ \
    X(POP)           /* drop the top                                                        */ \
    X(GET_LOCAL)     /* s                                                                   */ \
    X(SET_LOCAL)     /* s: the value stays on the stack, as with every SET                  */ \
    X(GET_GLOBAL)    /* k: an index                                                         */ \
    X(DEFINE_GLOBAL) /* k: an index; pops                                                   */ \
    X(SET_GLOBAL)    /* k: an index                                                         */ \
    X(GET_UPVALUE)   /* u                                                                   */ \
    X(SET_UPVALUE)   /* u                                                                   */ \
    X(GET_PROPERTY)  /* k: name; object -> value                                            */ \
    X(SET_PROPERTY)  /* k: name; object value -> value                                      */ \
    X(GET_SUPER)     /* k: name; object superclass -> bound method                          */ \
    X(EQUAL)                                                                                   \
    X(GREATER)                                                                                 \
    X(LESS)                                                                                    \
    X(ADD)                                                                                     \
    X(SUBTRACT)                                                                                \
    X(MULTIPLY)                                                                                \
    X(DIVIDE)                                                                                  \
    X(NOT)                                                                                     \
    X(NEGATE)                                                                                  \
    X(PRINT)         /* pops                                                                */ \
    X(JUMP)          /* forward                                                             */ \
    X(JUMP_IF_FALSE) /* forward; the value stays                                            */ \
    X(LOOP)          /* backward                                                            */ \
    X(CALL)          /* n                                                                   */ \
    X(INVOKE)        /* k: name, n                                                          */ \
    X(SUPER_INVOKE)  /* k: name, n; the superclass is on top                                */ \
    X(CLOSURE)       /* k: function; then (is local, index) for each upvalue                */ \
    X(CLOSE_UPVALUE) /* pops, closing what is open on it                                    */ \
    X(RETURN)                                                                                  \
    X(CLASS)         /* k: name, or the index of the global variable named like it           */ \
    X(INHERIT)       /* superclass class -> superclass                                      */ \
    X(METHOD)        /* k: name; class closure -> class                                     */
/* clang-format on */

enum opcode {
#define OPCODE(name) OP_##name,
    OPCODES(OPCODE)
#undef OPCODE
        OPCODE_COUNT
};

/* Code and lines of a function that is being compiled. Malloc'd: references never lie in here. */
struct code {
    uint8_t *bytes;
    size_t count, capacity;
    struct line_run *lines;
    size_t nlines, lines_capacity;
};

void code_append(struct code *code, uint8_t byte, uint32_t line);
void code_free(struct code *code);

/* The line of the byte at `offset` of a finished function. */
uint32_t function_line(const struct function *function, size_t offset);

#endif
