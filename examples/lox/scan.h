/* scan.h - from characters to tokens, one at a time. Knows no grammar. */
#ifndef LOX_SCAN_H
#define LOX_SCAN_H

#include <stddef.h>
#include <stdint.h>

enum token_kind {
    TOKEN_LEFT_PAREN,
    TOKEN_RIGHT_PAREN,
    TOKEN_LEFT_BRACE,
    TOKEN_RIGHT_BRACE,
    TOKEN_COMMA,
    TOKEN_DOT,
    TOKEN_MINUS,
    TOKEN_PLUS,
    TOKEN_SEMICOLON,
    TOKEN_SLASH,
    TOKEN_STAR,
    TOKEN_BANG,
    TOKEN_BANG_EQUAL,
    TOKEN_EQUAL,
    TOKEN_EQUAL_EQUAL,
    TOKEN_GREATER,
    TOKEN_GREATER_EQUAL,
    TOKEN_LESS,
    TOKEN_LESS_EQUAL,
    TOKEN_IDENTIFIER,
    TOKEN_STRING,
    TOKEN_NUMBER,
    TOKEN_AND,
    TOKEN_CLASS,
    TOKEN_ELSE,
    TOKEN_FALSE,
    TOKEN_FOR,
    TOKEN_FUN,
    TOKEN_IF,
    TOKEN_NIL,
    TOKEN_OR,
    TOKEN_PRINT,
    TOKEN_RETURN,
    TOKEN_SUPER,
    TOKEN_THIS,
    TOKEN_TRUE,
    TOKEN_VAR,
    TOKEN_WHILE,
    TOKEN_ERROR, /* start and length are those of the message */
    TOKEN_EOF,
    TOKEN_KINDS
};

struct token {
    enum token_kind kind;
    uint32_t line;
    const char *start;
    size_t length;
};

struct scanner {
    const char *at;
    uint32_t line;
};

/* `source` ends with a NUL and outlives the tokens. */
void scanner_init(struct scanner *scanner, const char *source);
struct token scanner_next(struct scanner *scanner);

#endif
