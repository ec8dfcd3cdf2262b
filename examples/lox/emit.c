/* emit.c - the half of the compiler that emits: code, constants, scopes, upvalues, finished functions. See parser.h. */
#include <stdio.h>
#include <stdlib.h>

#include "compile.h"
#include "parser.h"
#include "vm.h"

/* --- code ------------------------------------------------------------------------------------------------------- */

void emit_byte(struct parser *p, uint32_t byte) {
    code_append(&p->unit->code, (uint8_t)byte, p->previous.line);
}

void emit_depth(struct parser *p, int change) {
    struct unit *unit = p->unit;
    unit->depth += change;
    if (unit->depth > unit->max_depth) unit->max_depth = unit->depth;
}

/* What an instruction adds to the stack, apart from the arguments of calls. */
static int stack_effect(enum opcode op) {
    switch (op) {
    case OP_CONSTANT:
    case OP_NIL:
    case OP_TRUE:
    case OP_FALSE:
    case OP_GET_LOCAL:
    case OP_GET_GLOBAL:
    case OP_GET_UPVALUE:
    case OP_CLOSURE:
    case OP_CLASS: return 1;
    case OP_POP:
    case OP_DEFINE_GLOBAL:
    case OP_SET_PROPERTY:
    case OP_GET_SUPER:
    case OP_EQUAL:
    case OP_GREATER:
    case OP_LESS:
    case OP_ADD:
    case OP_SUBTRACT:
    case OP_MULTIPLY:
    case OP_DIVIDE:
    case OP_PRINT:
    case OP_SUPER_INVOKE:
    case OP_CLOSE_UPVALUE:
    case OP_RETURN:
    case OP_INHERIT:
    case OP_METHOD: return -1;
    default: return 0;
    }
}

void emit_op(struct parser *p, enum opcode op) {
    emit_byte(p, op);
    emit_depth(p, stack_effect(op));
}

void emit_op_operand(struct parser *p, enum opcode op, uint32_t operand) {
    emit_op(p, op);
    emit_byte(p, operand);
    if (op == OP_GET_PROPERTY || op == OP_SET_PROPERTY) p->unit->uses_caches = true;
}

void emit_call(struct parser *p, enum opcode op, uint32_t name, uint32_t argc) {
    emit_op(p, op);
    if (op != OP_CALL) emit_byte(p, name);
    emit_byte(p, argc);
    emit_depth(p, -(int)argc);
    if (op == OP_INVOKE) p->unit->uses_caches = true;
}

size_t emit_jump(struct parser *p, enum opcode op) {
    emit_op(p, op);
    emit_byte(p, 0xff);
    emit_byte(p, 0xff);
    return p->unit->code.count - 2;
}

void emit_patch(struct parser *p, size_t jump) {
    struct code *code = &p->unit->code;
    size_t distance = code->count - jump - 2;
    if (distance > UINT16_MAX) parser_error(p, "Too much code to jump over.");
    code->bytes[jump] = (uint8_t)(distance >> 8);
    code->bytes[jump + 1] = (uint8_t)distance;
}

void emit_loop(struct parser *p, size_t start) {
    emit_op(p, OP_LOOP);
    size_t distance = p->unit->code.count - start + 2;
    if (distance > UINT16_MAX) parser_error(p, "Loop body too large.");
    emit_byte(p, (uint32_t)(distance >> 8) & 0xffu);
    emit_byte(p, (uint32_t)distance & 0xffu);
}

/* The return at the end of every function: its receiver from an initializer, nil from the others. */
void emit_return(struct parser *p) {
    if (p->unit->kind == UNIT_INIT)
        emit_op_operand(p, OP_GET_LOCAL, 0);
    else
        emit_op(p, OP_NIL);
    emit_op(p, OP_RETURN);
}

/* --- constants -------------------------------------------------------------------------------------------------- */

uint32_t constant_add(struct parser *p, value v) {
    struct unit *unit = p->unit;
    if (unit->nconstants == MAX_CONSTANTS) {
        parser_error(p, "Too many constants in one chunk.");
        return 0;
    }
    unit->constants[unit->nconstants] = v;
    return unit->nconstants++;
}

uint32_t constant_name(struct parser *p, const struct token *name) {
    return constant_add(p, value_from_obj(string_intern(name->start, name->length)));
}

uint32_t constant_global(struct parser *p, const struct token *name) {
    return constant_add(p, value_from_index(vm_global(string_intern(name->start, name->length))));
}

/* --- functions in progress -------------------------------------------------------------------------------------- */

static struct unit *innermost; /* of the functions in progress */

struct unit *unit_begin(struct parser *p, enum unit_kind kind, const struct token *name) {
    struct unit *unit = malloc(sizeof *unit);
    if (unit == NULL) mem_exhausted();
    unit->outer = p->unit;
    unit->function = NULL;
    unit->kind = kind;
    unit->scope = 0;
    unit->nlocals = unit->ncaptures = unit->nconstants = 0;
    unit->depth = unit->max_depth = 0;
    unit->uses_caches = false;
    unit->code = (struct code){0};
    p->unit = innermost = unit;
    unit->function = function_new();
    if (kind != UNIT_SCRIPT) mem_store(unit->function, &unit->function->name, string_intern(name->start, name->length));

    /* Slot 0 is the callee, or the receiver, which methods can name. */
    bool method = kind == UNIT_METHOD || kind == UNIT_INIT;
    local_add(p, method ? "this" : "", method ? 4 : 0);
    unit->locals[0].scope = 0;
    emit_depth(p, 1);
    return unit;
}

/* Moves what has grown outside the heap into the function. Allocations are safepoints: unit->function is a root. */
static void unit_finish(struct unit *unit) {
    struct function *function = unit->function;
    struct bytes *code = bytes_new(unit->code.count);
    memcpy(code->data, unit->code.bytes, unit->code.count);
    mem_store(function, &function->code, code);
    function->ncode = (uint32_t)unit->code.count;
    struct bytes *lines = bytes_new(unit->code.nlines * sizeof(struct line_run));
    memcpy(lines->data, unit->code.lines, unit->code.nlines * sizeof(struct line_run));
    mem_store(function, &function->lines, lines);
    function->nlines = (uint32_t)unit->code.nlines;
    struct values *constants = values_new(unit->nconstants);
    for (uint32_t i = 0; i < unit->nconstants; i++) mem_init_value(constants, &constants->at[i], unit->constants[i]);
    mem_store(function, &function->constants, constants);
    if (unit->uses_caches) mem_store(function, &function->caches, bytes_new(unit->nconstants * sizeof(struct cache)));
    function->nupvalues = unit->ncaptures;
    function->max_stack = (uint32_t)unit->max_depth;
}

struct function *unit_end(struct parser *p) {
    struct unit *unit = p->unit;
    emit_return(p);
    if (!p->had_error) unit_finish(unit);
    struct function *function = p->had_error ? NULL : unit->function;
    p->unit = innermost = unit->outer;
    code_free(&unit->code);
    free(unit);
    return function;
}

void compile_visit_roots(struct mem_visitor *visitor) {
    for (struct unit *unit = innermost; unit != NULL; unit = unit->outer) {
        mem_visit(visitor, &unit->function, 1);
        mem_visit_values(visitor, unit->constants, unit->nconstants);
    }
}

/* --- scopes and variables --------------------------------------------------------------------------------------- */

void scope_begin(struct parser *p) {
    p->unit->scope++;
}

void scope_end(struct parser *p) {
    struct unit *unit = p->unit;
    unit->scope--;
    for (; unit->nlocals > 0 && unit->locals[unit->nlocals - 1].scope > unit->scope; unit->nlocals--)
        emit_op(p, unit->locals[unit->nlocals - 1].captured ? OP_CLOSE_UPVALUE : OP_POP);
}

static bool same_name(const struct local *local, const struct token *name) {
    return local->length == name->length && memcmp(local->name, name->start, name->length) == 0;
}

bool token_equal(const struct token *a, const struct token *b) {
    return a->length == b->length && memcmp(a->start, b->start, a->length) == 0;
}

void local_add(struct parser *p, const char *name, size_t length) {
    struct unit *unit = p->unit;
    if (unit->nlocals == MAX_LOCALS) {
        parser_error(p, "Too many local variables in function.");
        return;
    }
    unit->locals[unit->nlocals++] = (struct local){name, length, UNREADY, false};
}

void local_declare(struct parser *p, const struct token *name) {
    struct unit *unit = p->unit;
    if (unit->scope == 0) return;
    for (uint32_t i = unit->nlocals; i > 0; i--) {
        const struct local *local = &unit->locals[i - 1];
        if (local->scope != UNREADY && local->scope < unit->scope) break;
        if (same_name(local, name)) parser_error(p, "Already a variable with this name in this scope.");
    }
    local_add(p, name->start, name->length);
}

void local_ready(struct parser *p) {
    struct unit *unit = p->unit;
    if (unit->scope > 0) unit->locals[unit->nlocals - 1].scope = unit->scope;
}

int local_find(struct parser *p, const struct unit *unit, const struct token *name) {
    for (uint32_t i = unit->nlocals; i > 0; i--) {
        const struct local *local = &unit->locals[i - 1];
        if (!same_name(local, name)) continue;
        if (local->scope == UNREADY) parser_error(p, "Can't read local variable in its own initializer.");
        return (int)i - 1;
    }
    return -1;
}

static int capture_add(struct parser *p, struct unit *unit, uint8_t index, bool is_local) {
    for (uint32_t i = 0; i < unit->ncaptures; i++) {
        if (unit->captures[i].index == index && unit->captures[i].is_local == is_local) return (int)i;
    }
    if (unit->ncaptures == MAX_UPVALUES) {
        parser_error(p, "Too many closure variables in function.");
        return 0;
    }
    unit->captures[unit->ncaptures] = (struct capture){index, is_local};
    return (int)unit->ncaptures++;
}

int upvalue_find(struct parser *p, struct unit *unit, const struct token *name) {
    if (unit->outer == NULL) return -1;
    int local = local_find(p, unit->outer, name);
    if (local >= 0) {
        unit->outer->locals[local].captured = true;
        return capture_add(p, unit, (uint8_t)local, true);
    }
    int outer = upvalue_find(p, unit->outer, name);
    return outer >= 0 ? capture_add(p, unit, (uint8_t)outer, false) : -1;
}
