/* compile.c - the half of the compiler that knows the grammar: a Pratt parser for expressions, recursive descent for
 * the rest, emitting code as it reads (emit.c).
 *
 * Owns: tokens, errors and their recovery, the rules. The first error of a statement is reported, what follows is held
 * back until the next statement begins.
 *
 * The parser recurses as deeply as the source nests. Before each level it compares the C stack with a limit, so source
 * that is nested beyond it is an error like any other, at the token where it went too far.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "parser.h"

enum precedence {
    LEVEL_NONE,
    LEVEL_ASSIGNMENT,
    LEVEL_OR,
    LEVEL_AND,
    LEVEL_EQUALITY,
    LEVEL_COMPARISON,
    LEVEL_TERM,
    LEVEL_FACTOR,
    LEVEL_UNARY,
    LEVEL_CALL
};

typedef void (*parse_fn)(struct parser *p, bool can_assign);

struct rule {
    parse_fn prefix, infix;
    enum precedence level; /* of the infix use */
};

static const struct rule rules[TOKEN_KINDS];

static void expression(struct parser *p);
static void declaration(struct parser *p);
static void statement(struct parser *p);

/* --- errors and tokens ------------------------------------------------------------------------------------------ */

static void error_at(struct parser *p, const struct token *token, const char *message) {
    if (p->panicking) return;
    p->panicking = true;
    p->had_error = true;
    fprintf(stderr, "[line %u] Error", token->line);
    if (token->kind == TOKEN_EOF)
        fputs(" at end", stderr);
    else if (token->kind != TOKEN_ERROR)
        fprintf(stderr, " at '%.*s'", (int)token->length, token->start);
    fprintf(stderr, ": %s\n", message);
}

void parser_error(struct parser *p, const char *message) {
    error_at(p, &p->previous, message);
}

void parser_error_at_current(struct parser *p, const char *message) {
    error_at(p, &p->current, message);
}

static void advance(struct parser *p) {
    p->previous = p->current;
    if (p->hopeless) {
        p->current.kind = TOKEN_EOF;
        return;
    }
    while ((p->current = scanner_next(&p->scanner)).kind == TOKEN_ERROR) parser_error_at_current(p, p->current.start);
}

static bool check(const struct parser *p, enum token_kind kind) {
    return p->current.kind == kind;
}

static bool match(struct parser *p, enum token_kind kind) {
    if (!check(p, kind)) return false;
    advance(p);
    return true;
}

static void consume(struct parser *p, enum token_kind kind, const char *message) {
    if (!match(p, kind)) parser_error_at_current(p, message);
}

/* False once the C stack is used up: the caller returns at once, and so do all that called it. */
static bool nest(struct parser *p) {
    if ((const char *)__builtin_frame_address(0) > p->stack_limit) return true;
    if (!p->hopeless) parser_error_at_current(p, "Nested too deeply.");
    p->hopeless = true;
    p->current.kind = TOKEN_EOF;
    return false;
}

/* Skips to where a statement probably begins. */
static void synchronize(struct parser *p) {
    p->panicking = p->hopeless;
    while (!check(p, TOKEN_EOF) && p->previous.kind != TOKEN_SEMICOLON) {
        switch (p->current.kind) {
        case TOKEN_CLASS:
        case TOKEN_FUN:
        case TOKEN_VAR:
        case TOKEN_FOR:
        case TOKEN_IF:
        case TOKEN_WHILE:
        case TOKEN_PRINT:
        case TOKEN_RETURN: return;
        default: advance(p);
        }
    }
}

/* --- expressions ------------------------------------------------------------------------------------------------ */

static void parse_level(struct parser *p, enum precedence level) {
    if (!nest(p)) return;
    advance(p);
    parse_fn prefix = rules[p->previous.kind].prefix;
    if (prefix == NULL) {
        parser_error(p, "Expect expression.");
        return;
    }
    bool can_assign = level <= LEVEL_ASSIGNMENT;
    prefix(p, can_assign);
    while (level <= rules[p->current.kind].level) {
        advance(p);
        rules[p->previous.kind].infix(p, can_assign);
    }
    if (can_assign && match(p, TOKEN_EQUAL)) parser_error(p, "Invalid assignment target.");
}

static void expression(struct parser *p) {
    parse_level(p, LEVEL_ASSIGNMENT);
}

static void number(struct parser *p, bool can_assign) {
    char buffer[64];
    (void)can_assign;
    size_t length = p->previous.length;
    char *text = length < sizeof buffer ? buffer : malloc(length + 1);
    if (text == NULL) mem_exhausted();
    memcpy(text, p->previous.start, length);
    text[length] = '\0';
    emit_op_operand(p, OP_CONSTANT, constant_add(p, value_from_number(strtod(text, NULL))));
    if (text != buffer) free(text);
}

static void string(struct parser *p, bool can_assign) {
    (void)can_assign;
    struct string *chars = string_intern(p->previous.start + 1, p->previous.length - 2);
    emit_op_operand(p, OP_CONSTANT, constant_add(p, value_from_obj(chars)));
}

static void literal(struct parser *p, bool can_assign) {
    (void)can_assign;
    enum token_kind kind = p->previous.kind;
    emit_op(p, kind == TOKEN_NIL ? OP_NIL : kind == TOKEN_TRUE ? OP_TRUE : OP_FALSE);
}

static void grouping(struct parser *p, bool can_assign) {
    (void)can_assign;
    expression(p);
    consume(p, TOKEN_RIGHT_PAREN, "Expect ')' after expression.");
}

static void unary(struct parser *p, bool can_assign) {
    (void)can_assign;
    enum token_kind sign = p->previous.kind;
    parse_level(p, LEVEL_UNARY);
    emit_op(p, sign == TOKEN_MINUS ? OP_NEGATE : OP_NOT);
}

static void binary(struct parser *p, bool can_assign) {
    (void)can_assign;
    enum token_kind sign = p->previous.kind;
    parse_level(p, rules[sign].level + 1);
    switch (sign) {
    case TOKEN_PLUS: emit_op(p, OP_ADD); break;
    case TOKEN_MINUS: emit_op(p, OP_SUBTRACT); break;
    case TOKEN_STAR: emit_op(p, OP_MULTIPLY); break;
    case TOKEN_SLASH: emit_op(p, OP_DIVIDE); break;
    case TOKEN_EQUAL_EQUAL:
    case TOKEN_BANG_EQUAL: emit_op(p, OP_EQUAL); break;
    case TOKEN_GREATER:
    case TOKEN_LESS_EQUAL: emit_op(p, OP_GREATER); break;
    default: emit_op(p, OP_LESS); break;
    }
    if (sign == TOKEN_BANG_EQUAL || sign == TOKEN_LESS_EQUAL || sign == TOKEN_GREATER_EQUAL) emit_op(p, OP_NOT);
}

static void and_(struct parser *p, bool can_assign) {
    (void)can_assign;
    size_t end = emit_jump(p, OP_JUMP_IF_FALSE);
    emit_op(p, OP_POP);
    parse_level(p, LEVEL_AND);
    emit_patch(p, end);
}

static void or_(struct parser *p, bool can_assign) {
    (void)can_assign;
    size_t otherwise = emit_jump(p, OP_JUMP_IF_FALSE);
    size_t end = emit_jump(p, OP_JUMP);
    emit_patch(p, otherwise);
    emit_op(p, OP_POP);
    parse_level(p, LEVEL_OR);
    emit_patch(p, end);
}

/* A variable by name: local, upvalue or global; read, or assigned if an '=' follows. */
static void named_variable(struct parser *p, const struct token *name, bool can_assign) {
    enum opcode get = OP_GET_LOCAL, set = OP_SET_LOCAL;
    int found = local_find(p, p->unit, name);
    if (found < 0) {
        get = OP_GET_UPVALUE, set = OP_SET_UPVALUE;
        found = upvalue_find(p, p->unit, name);
    }
    uint32_t operand = (uint32_t)found;
    if (found < 0) {
        get = OP_GET_GLOBAL, set = OP_SET_GLOBAL;
        operand = constant_global(p, name);
    }
    if (can_assign && match(p, TOKEN_EQUAL)) {
        expression(p);
        get = set;
    }
    emit_op_operand(p, get, operand);
}

static void variable(struct parser *p, bool can_assign) {
    struct token name = p->previous;
    named_variable(p, &name, can_assign);
}

static struct token synthetic(const struct parser *p, const char *text) {
    return (struct token){TOKEN_IDENTIFIER, p->previous.line, text, strlen(text)};
}

static uint32_t arguments(struct parser *p) {
    uint32_t argc = 0;
    if (!check(p, TOKEN_RIGHT_PAREN)) {
        do {
            expression(p);
            if (argc == 255)
                parser_error(p, "Can't have more than 255 arguments.");
            else
                argc++;
        } while (match(p, TOKEN_COMMA));
    }
    consume(p, TOKEN_RIGHT_PAREN, "Expect ')' after arguments.");
    return argc;
}

static void call(struct parser *p, bool can_assign) {
    (void)can_assign;
    emit_call(p, OP_CALL, 0, arguments(p));
}

static void dot(struct parser *p, bool can_assign) {
    consume(p, TOKEN_IDENTIFIER, "Expect property name after '.'.");
    uint32_t name = constant_name(p, &p->previous);
    if (can_assign && match(p, TOKEN_EQUAL)) {
        expression(p);
        emit_op_operand(p, OP_SET_PROPERTY, name);
    } else if (match(p, TOKEN_LEFT_PAREN)) {
        emit_call(p, OP_INVOKE, name, arguments(p));
    } else {
        emit_op_operand(p, OP_GET_PROPERTY, name);
    }
}

static void this_(struct parser *p, bool can_assign) {
    (void)can_assign;
    if (p->class == NULL) {
        parser_error(p, "Can't use 'this' outside of a class.");
        return;
    }
    variable(p, false);
}

static void super_(struct parser *p, bool can_assign) {
    (void)can_assign;
    if (p->class == NULL)
        parser_error(p, "Can't use 'super' outside of a class.");
    else if (!p->class->has_superclass)
        parser_error(p, "Can't use 'super' in a class with no superclass.");
    consume(p, TOKEN_DOT, "Expect '.' after 'super'.");
    consume(p, TOKEN_IDENTIFIER, "Expect superclass method name.");
    uint32_t name = constant_name(p, &p->previous);
    struct token this_name = synthetic(p, "this"), super_name = synthetic(p, "super");
    named_variable(p, &this_name, false);
    if (match(p, TOKEN_LEFT_PAREN)) {
        uint32_t argc = arguments(p);
        named_variable(p, &super_name, false);
        emit_call(p, OP_SUPER_INVOKE, name, argc);
    } else {
        named_variable(p, &super_name, false);
        emit_op_operand(p, OP_GET_SUPER, name);
    }
}

static const struct rule rules[TOKEN_KINDS] = {
    [TOKEN_LEFT_PAREN] = {grouping, call, LEVEL_CALL},
    [TOKEN_DOT] = {NULL, dot, LEVEL_CALL},
    [TOKEN_MINUS] = {unary, binary, LEVEL_TERM},
    [TOKEN_PLUS] = {NULL, binary, LEVEL_TERM},
    [TOKEN_SLASH] = {NULL, binary, LEVEL_FACTOR},
    [TOKEN_STAR] = {NULL, binary, LEVEL_FACTOR},
    [TOKEN_BANG] = {unary, NULL, LEVEL_NONE},
    [TOKEN_BANG_EQUAL] = {NULL, binary, LEVEL_EQUALITY},
    [TOKEN_EQUAL_EQUAL] = {NULL, binary, LEVEL_EQUALITY},
    [TOKEN_GREATER] = {NULL, binary, LEVEL_COMPARISON},
    [TOKEN_GREATER_EQUAL] = {NULL, binary, LEVEL_COMPARISON},
    [TOKEN_LESS] = {NULL, binary, LEVEL_COMPARISON},
    [TOKEN_LESS_EQUAL] = {NULL, binary, LEVEL_COMPARISON},
    [TOKEN_IDENTIFIER] = {variable, NULL, LEVEL_NONE},
    [TOKEN_STRING] = {string, NULL, LEVEL_NONE},
    [TOKEN_NUMBER] = {number, NULL, LEVEL_NONE},
    [TOKEN_AND] = {NULL, and_, LEVEL_AND},
    [TOKEN_OR] = {NULL, or_, LEVEL_OR},
    [TOKEN_FALSE] = {literal, NULL, LEVEL_NONE},
    [TOKEN_TRUE] = {literal, NULL, LEVEL_NONE},
    [TOKEN_NIL] = {literal, NULL, LEVEL_NONE},
    [TOKEN_THIS] = {this_, NULL, LEVEL_NONE},
    [TOKEN_SUPER] = {super_, NULL, LEVEL_NONE},
};

/* --- declarations ----------------------------------------------------------------------------------------------- */

/* Reads a variable's name and declares it. The number of the constant that means it, if it is global. */
static uint32_t parse_variable(struct parser *p, const char *message) {
    consume(p, TOKEN_IDENTIFIER, message);
    local_declare(p, &p->previous);
    return p->unit->scope > 0 ? 0 : constant_global(p, &p->previous);
}

static void define_variable(struct parser *p, uint32_t global) {
    if (p->unit->scope > 0)
        local_ready(p);
    else
        emit_op_operand(p, OP_DEFINE_GLOBAL, global);
}

static void block(struct parser *p) {
    while (!check(p, TOKEN_RIGHT_BRACE) && !check(p, TOKEN_EOF)) declaration(p);
    consume(p, TOKEN_RIGHT_BRACE, "Expect '}' after block.");
}

static void parameters(struct parser *p) {
    if (check(p, TOKEN_RIGHT_PAREN)) return;
    do {
        if (p->unit->function->arity == 255)
            parser_error_at_current(p, "Can't have more than 255 parameters.");
        else
            p->unit->function->arity++;
        define_variable(p, parse_variable(p, "Expect parameter name."));
        emit_depth(p, 1);
    } while (match(p, TOKEN_COMMA));
}

static void function(struct parser *p, enum unit_kind kind) {
    if (!nest(p)) return;
    struct unit *unit = unit_begin(p, kind, &p->previous);
    scope_begin(p);
    consume(p, TOKEN_LEFT_PAREN, "Expect '(' after function name.");
    parameters(p);
    consume(p, TOKEN_RIGHT_PAREN, "Expect ')' after parameters.");
    consume(p, TOKEN_LEFT_BRACE, "Expect '{' before function body.");
    block(p);
    struct capture captures[MAX_UPVALUES];
    uint32_t ncaptures = unit->ncaptures;
    memcpy(captures, unit->captures, ncaptures * sizeof captures[0]);
    struct function *finished = unit_end(p);
    value constant = finished != NULL ? value_from_obj(finished) : VALUE_NIL;
    emit_op_operand(p, OP_CLOSURE, constant_add(p, constant));
    for (uint32_t i = 0; i < ncaptures; i++) {
        emit_byte(p, captures[i].is_local);
        emit_byte(p, captures[i].index);
    }
}

static void method(struct parser *p) {
    consume(p, TOKEN_IDENTIFIER, "Expect method name.");
    uint32_t name = constant_name(p, &p->previous);
    bool is_init = p->previous.length == 4 && memcmp(p->previous.start, "init", 4) == 0;
    function(p, is_init ? UNIT_INIT : UNIT_METHOD);
    emit_op_operand(p, OP_METHOD, name);
}

static void superclass(struct parser *p, const struct token *class_name) {
    consume(p, TOKEN_IDENTIFIER, "Expect superclass name.");
    variable(p, false);
    if (token_equal(class_name, &p->previous)) parser_error(p, "A class can't inherit from itself.");
    scope_begin(p);
    local_add(p, "super", 5);
    local_ready(p);
    named_variable(p, class_name, false);
    emit_op(p, OP_INHERIT);
    p->class->has_superclass = true;
}

static void class_declaration(struct parser *p) {
    consume(p, TOKEN_IDENTIFIER, "Expect class name.");
    struct token name = p->previous;
    uint32_t constant = p->unit->scope > 0 ? constant_name(p, &name) : constant_global(p, &name);
    local_declare(p, &name);
    emit_op_operand(p, OP_CLASS, constant);
    define_variable(p, constant);

    struct class_scope class = {p->class, false};
    p->class = &class;
    if (match(p, TOKEN_LESS)) superclass(p, &name);
    named_variable(p, &name, false);
    consume(p, TOKEN_LEFT_BRACE, "Expect '{' before class body.");
    while (!check(p, TOKEN_RIGHT_BRACE) && !check(p, TOKEN_EOF)) method(p);
    consume(p, TOKEN_RIGHT_BRACE, "Expect '}' after class body.");
    emit_op(p, OP_POP);
    if (class.has_superclass) scope_end(p);
    p->class = class.outer;
}

static void fun_declaration(struct parser *p) {
    uint32_t global = parse_variable(p, "Expect function name.");
    local_ready(p); /* so that it can call itself */
    function(p, UNIT_FUNCTION);
    define_variable(p, global);
}

static void var_declaration(struct parser *p) {
    uint32_t global = parse_variable(p, "Expect variable name.");
    if (match(p, TOKEN_EQUAL))
        expression(p);
    else
        emit_op(p, OP_NIL);
    consume(p, TOKEN_SEMICOLON, "Expect ';' after variable declaration.");
    define_variable(p, global);
}

static void declaration(struct parser *p) {
    if (match(p, TOKEN_CLASS))
        class_declaration(p);
    else if (match(p, TOKEN_FUN))
        fun_declaration(p);
    else if (match(p, TOKEN_VAR))
        var_declaration(p);
    else
        statement(p);
    if (p->panicking) synchronize(p);
}

/* --- statements ------------------------------------------------------------------------------------------------- */

static void expression_statement(struct parser *p) {
    expression(p);
    consume(p, TOKEN_SEMICOLON, "Expect ';' after expression.");
    emit_op(p, OP_POP);
}

static void print_statement(struct parser *p) {
    expression(p);
    consume(p, TOKEN_SEMICOLON, "Expect ';' after value.");
    emit_op(p, OP_PRINT);
}

static void return_statement(struct parser *p) {
    if (p->unit->kind == UNIT_SCRIPT) parser_error(p, "Can't return from top-level code.");
    if (match(p, TOKEN_SEMICOLON)) {
        emit_return(p);
        return;
    }
    if (p->unit->kind == UNIT_INIT) parser_error(p, "Can't return a value from an initializer.");
    expression(p);
    consume(p, TOKEN_SEMICOLON, "Expect ';' after return value.");
    emit_op(p, OP_RETURN);
}

static void if_statement(struct parser *p) {
    consume(p, TOKEN_LEFT_PAREN, "Expect '(' after 'if'.");
    expression(p);
    consume(p, TOKEN_RIGHT_PAREN, "Expect ')' after condition.");
    size_t otherwise = emit_jump(p, OP_JUMP_IF_FALSE);
    emit_op(p, OP_POP);
    statement(p);
    size_t end = emit_jump(p, OP_JUMP);
    emit_patch(p, otherwise);
    emit_depth(p, 1); /* P2: the condition is still there on this path */
    emit_op(p, OP_POP);
    if (match(p, TOKEN_ELSE)) statement(p);
    emit_patch(p, end);
}

static void while_statement(struct parser *p) {
    size_t start = p->unit->code.count;
    consume(p, TOKEN_LEFT_PAREN, "Expect '(' after 'while'.");
    expression(p);
    consume(p, TOKEN_RIGHT_PAREN, "Expect ')' after condition.");
    size_t exit = emit_jump(p, OP_JUMP_IF_FALSE);
    emit_op(p, OP_POP);
    statement(p);
    emit_loop(p, start);
    emit_patch(p, exit);
    emit_depth(p, 1); /* P2 */
    emit_op(p, OP_POP);
}

static void for_initializer(struct parser *p) {
    if (match(p, TOKEN_SEMICOLON)) return;
    if (match(p, TOKEN_VAR))
        var_declaration(p);
    else
        expression_statement(p);
}

/* The increment comes before the body in the source and after it in time: jump over it, and back to it. */
static size_t for_increment(struct parser *p, size_t start) {
    size_t body = emit_jump(p, OP_JUMP);
    size_t increment = p->unit->code.count;
    expression(p);
    emit_op(p, OP_POP);
    consume(p, TOKEN_RIGHT_PAREN, "Expect ')' after for clauses.");
    emit_loop(p, start);
    emit_patch(p, body);
    return increment;
}

static void for_statement(struct parser *p) {
    scope_begin(p);
    consume(p, TOKEN_LEFT_PAREN, "Expect '(' after 'for'.");
    for_initializer(p);
    size_t start = p->unit->code.count;
    bool conditional = !match(p, TOKEN_SEMICOLON);
    size_t exit = 0;
    if (conditional) {
        expression(p);
        consume(p, TOKEN_SEMICOLON, "Expect ';' after loop condition.");
        exit = emit_jump(p, OP_JUMP_IF_FALSE);
        emit_op(p, OP_POP);
    }
    if (!match(p, TOKEN_RIGHT_PAREN)) start = for_increment(p, start);
    statement(p);
    emit_loop(p, start);
    if (conditional) {
        emit_patch(p, exit);
        emit_depth(p, 1); /* P2 */
        emit_op(p, OP_POP);
    }
    scope_end(p);
}

static void statement(struct parser *p) {
    if (!nest(p)) return;
    if (match(p, TOKEN_PRINT)) {
        print_statement(p);
    } else if (match(p, TOKEN_FOR)) {
        for_statement(p);
    } else if (match(p, TOKEN_IF)) {
        if_statement(p);
    } else if (match(p, TOKEN_RETURN)) {
        return_statement(p);
    } else if (match(p, TOKEN_WHILE)) {
        while_statement(p);
    } else if (match(p, TOKEN_LEFT_BRACE)) {
        scope_begin(p);
        block(p);
        scope_end(p);
    } else {
        expression_statement(p);
    }
}

/* --- the whole -------------------------------------------------------------------------------------------------- */

/* Half of the C stack, from here on; where there is no limit, 64 MiB. */
static const char *find_stack_limit(void) {
    struct rlimit limit;
    size_t room_bytes = (size_t)64 << 20;
    if (getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur / 2 < room_bytes)
        room_bytes = (size_t)limit.rlim_cur / 2;
    return (const char *)__builtin_frame_address(0) - room_bytes;
}

struct function *compile(const char *source) {
    struct parser parser = {0};
    scanner_init(&parser.scanner, source);
    parser.stack_limit = find_stack_limit();
    unit_begin(&parser, UNIT_SCRIPT, NULL);
    advance(&parser);
    while (!match(&parser, TOKEN_EOF)) declaration(&parser);
    struct function *function = unit_end(&parser);
    return function;
}
