/* scan.c - the scanner. Tokens point into the source; nothing is copied and nothing is allocated. */
#include "scan.h"

#include <stdbool.h>
#include <string.h>

static const struct {
    const char *word;
    enum token_kind kind;
} keywords[] = {
    {"and", TOKEN_AND},   {"class", TOKEN_CLASS}, {"else", TOKEN_ELSE},     {"false", TOKEN_FALSE},
    {"for", TOKEN_FOR},   {"fun", TOKEN_FUN},     {"if", TOKEN_IF},         {"nil", TOKEN_NIL},
    {"or", TOKEN_OR},     {"print", TOKEN_PRINT}, {"return", TOKEN_RETURN}, {"super", TOKEN_SUPER},
    {"this", TOKEN_THIS}, {"true", TOKEN_TRUE},   {"var", TOKEN_VAR},       {"while", TOKEN_WHILE},
};

void scanner_init(struct scanner *scanner, const char *source) {
    scanner->at = source;
    scanner->line = 1;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static void skip_blanks(struct scanner *scanner) {
    for (;; scanner->at++) {
        switch (*scanner->at) {
        case '\n': scanner->line++; break;
        case ' ':
        case '\t':
        case '\r': break;
        case '/':
            if (scanner->at[1] != '/') return;
            while (scanner->at[1] != '\n' && scanner->at[1] != '\0') scanner->at++;
            break;
        default: return;
        }
    }
}

static struct token token_from(const struct scanner *scanner, enum token_kind kind, const char *start) {
    return (struct token){kind, scanner->line, start, (size_t)(scanner->at - start)};
}

static struct token token_error(const struct scanner *scanner, const char *message) {
    return (struct token){TOKEN_ERROR, scanner->line, message, strlen(message)};
}

static struct token scan_name(struct scanner *scanner, const char *start) {
    while (is_name(*scanner->at) || is_digit(*scanner->at)) scanner->at++;
    size_t length = (size_t)(scanner->at - start);
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++) {
        if (strlen(keywords[i].word) == length && memcmp(keywords[i].word, start, length) == 0)
            return token_from(scanner, keywords[i].kind, start);
    }
    return token_from(scanner, TOKEN_IDENTIFIER, start);
}

static struct token scan_number(struct scanner *scanner, const char *start) {
    while (is_digit(*scanner->at)) scanner->at++;
    if (*scanner->at == '.' && is_digit(scanner->at[1])) {
        scanner->at++;
        while (is_digit(*scanner->at)) scanner->at++;
    }
    return token_from(scanner, TOKEN_NUMBER, start);
}

/* The token keeps its quotes; its line is the one it ends on. */
static struct token scan_string(struct scanner *scanner, const char *start) {
    for (; *scanner->at != '"'; scanner->at++) {
        if (*scanner->at == '\0') return token_error(scanner, "Unterminated string.");
        if (*scanner->at == '\n') scanner->line++;
    }
    scanner->at++;
    return token_from(scanner, TOKEN_STRING, start);
}

/* An operator that may be followed by '='. */
static struct token scan_pair(struct scanner *scanner, const char *start, enum token_kind alone,
                              enum token_kind equal) {
    if (*scanner->at != '=') return token_from(scanner, alone, start);
    scanner->at++;
    return token_from(scanner, equal, start);
}

struct token scanner_next(struct scanner *scanner) {
    skip_blanks(scanner);
    const char *start = scanner->at;
    if (*start == '\0') return token_from(scanner, TOKEN_EOF, start);
    char c = *scanner->at++;
    if (is_name(c)) return scan_name(scanner, start);
    if (is_digit(c)) return scan_number(scanner, start);
    switch (c) {
    case '(': return token_from(scanner, TOKEN_LEFT_PAREN, start);
    case ')': return token_from(scanner, TOKEN_RIGHT_PAREN, start);
    case '{': return token_from(scanner, TOKEN_LEFT_BRACE, start);
    case '}': return token_from(scanner, TOKEN_RIGHT_BRACE, start);
    case ';': return token_from(scanner, TOKEN_SEMICOLON, start);
    case ',': return token_from(scanner, TOKEN_COMMA, start);
    case '.': return token_from(scanner, TOKEN_DOT, start);
    case '-': return token_from(scanner, TOKEN_MINUS, start);
    case '+': return token_from(scanner, TOKEN_PLUS, start);
    case '/': return token_from(scanner, TOKEN_SLASH, start);
    case '*': return token_from(scanner, TOKEN_STAR, start);
    case '!': return scan_pair(scanner, start, TOKEN_BANG, TOKEN_BANG_EQUAL);
    case '=': return scan_pair(scanner, start, TOKEN_EQUAL, TOKEN_EQUAL_EQUAL);
    case '<': return scan_pair(scanner, start, TOKEN_LESS, TOKEN_LESS_EQUAL);
    case '>': return scan_pair(scanner, start, TOKEN_GREATER, TOKEN_GREATER_EQUAL);
    case '"': return scan_string(scanner, start);
    default: return token_error(scanner, "Unexpected character.");
    }
}
