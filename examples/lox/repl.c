/* repl.c - the REPL. On a terminal, and built with libedit (LOX_WITH_EDIT), lines are edited and remembered, between
 * sessions too, in ~/.lox_history; else lines are read plainly. Global variables live from line to line. While it waits
 * for a line, the collector need not wait for it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "repl.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm.h"

#define PROMPT "> "

#ifdef LOX_WITH_EDIT

#include <editline/readline.h>

#define HISTORY_LINES 1000

static const char *history_path(char *buffer, size_t size_bytes) {
    const char *home = getenv("HOME");
    if (home == NULL || *home == '\0') return NULL;
    int n = snprintf(buffer, size_bytes, "%s/.lox_history", home);
    return n > 0 && (size_t)n < size_bytes ? buffer : NULL;
}

static void remember(const char *line, const char *last) {
    if (*line != '\0' && (last == NULL || strcmp(line, last) != 0)) add_history(line);
}

static void edit_line(void *line) {
    *(char **)line = readline(PROMPT);
}

static void repl_edited(void) {
    char buffer[4096];
    char *line = NULL, *last = NULL;
    const char *path = history_path(buffer, sizeof buffer);
    using_history();
    stifle_history(HISTORY_LINES);
    if (path != NULL) read_history(path);
    while (mem_block(edit_line, &line), line != NULL) {
        remember(line, last);
        free(last);
        last = line;
        vm_interpret(line);
        fflush(stdout);
    }
    free(last);
    if (path != NULL && write_history(path) != 0) fprintf(stderr, "lox: the history cannot be written to %s\n", path);
    putchar('\n');
}

#endif

struct line {
    char *text;
    size_t capacity;
    bool end;
};

static void read_line(void *arg) {
    struct line *line = arg;
    line->end = getline(&line->text, &line->capacity, stdin) < 0;
}

static void repl_plain(void) {
    struct line line = {0};
    for (;;) {
        fputs(PROMPT, stdout);
        fflush(stdout);
        mem_block(read_line, &line);
        if (line.end) break;
        vm_interpret(line.text);
    }
    putchar('\n');
    free(line.text);
}

void repl(void) {
#ifdef LOX_WITH_EDIT
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
        repl_edited();
        return;
    }
#endif
    repl_plain();
}
