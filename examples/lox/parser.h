/* parser.h - what the two halves of the compiler share: the state, and the half that emits (emit.c) for the half that
 * knows the grammar (compile.c).
 *
 * Owns: the functions in progress, a chain from the innermost outwards; scopes, locals, upvalues; code and constants.
 *
 * Invariants:
 *  P1  what a function in progress references (its object, its constants) is visited as a root of the VM's; nothing
 *      else in these structs is a reference. Names are pieces of the source.
 *  P2  `depth` is the number of stack words that the function uses at this point of its code, so `max_depth` bounds
 *      what a call of it needs. The grammar corrects it where control flow joins.
 */
#ifndef LOX_PARSER_H
#define LOX_PARSER_H

#include <stdbool.h>

#include "code.h"
#include "scan.h"

#define MAX_LOCALS 256u
#define MAX_UPVALUES 256u
#define MAX_CONSTANTS 256u

enum unit_kind { UNIT_SCRIPT, UNIT_FUNCTION, UNIT_METHOD, UNIT_INIT };

struct local {
    const char *name;
    size_t length;
    int scope;     /* scope depth, or UNREADY until its initializer is compiled */
    bool captured; /* a closure refers to it */
};

#define UNREADY (-1)

/* Where a closure finds an upvalue when it is made: a slot of the frame, or an upvalue of the enclosing closure. */
struct capture {
    uint8_t index;
    bool is_local;
};

/* A function in progress. */
struct unit {
    struct unit *outer;
    struct function *function; /* P1 */
    enum unit_kind kind;
    int scope;
    uint32_t nlocals, ncaptures, nconstants;
    int depth, max_depth; /* P2 */
    bool uses_caches;
    struct code code;
    value constants[MAX_CONSTANTS]; /* P1 */
    struct capture captures[MAX_UPVALUES];
    struct local locals[MAX_LOCALS];
};

struct class_scope {
    struct class_scope *outer;
    bool has_superclass;
};

struct parser {
    struct scanner scanner;
    struct token current, previous;
    bool had_error;
    bool panicking;          /* messages are held back until the next statement */
    bool hopeless;           /* nested too deeply: the rest of the source is not read */
    const char *stack_limit; /* the C stack may not grow below it */
    struct unit *unit;
    struct class_scope *class;
};

/* Errors: at the token before, or at the current one. */
void parser_error(struct parser *p, const char *message);
void parser_error_at_current(struct parser *p, const char *message);

/* Emission. */
void emit_op(struct parser *p, enum opcode op);
void emit_op_operand(struct parser *p, enum opcode op, uint32_t operand);
void emit_byte(struct parser *p, uint32_t byte);
void emit_call(struct parser *p, enum opcode op, uint32_t name, uint32_t argc);
size_t emit_jump(struct parser *p, enum opcode op);
void emit_patch(struct parser *p, size_t jump);
void emit_loop(struct parser *p, size_t start);
void emit_return(struct parser *p);
void emit_depth(struct parser *p, int change);
uint32_t constant_add(struct parser *p, value v);
uint32_t constant_name(struct parser *p, const struct token *name);
uint32_t constant_global(struct parser *p, const struct token *name);

/* Functions in progress. unit_end: the finished function, in no root, or NULL after an error. */
struct unit *unit_begin(struct parser *p, enum unit_kind kind, const struct token *name);
struct function *unit_end(struct parser *p);

/* Scopes and variables. */
void scope_begin(struct parser *p);
void scope_end(struct parser *p);
void local_declare(struct parser *p, const struct token *name);
void local_add(struct parser *p, const char *name, size_t length);
void local_ready(struct parser *p);
bool token_equal(const struct token *a, const struct token *b);

/* Index of the local or upvalue that a name means in the unit; -1: none. */
int local_find(struct parser *p, const struct unit *unit, const struct token *name);
int upvalue_find(struct parser *p, struct unit *unit, const struct token *name);

#endif
