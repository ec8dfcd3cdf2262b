/* check.c - the one place that ends the process: a broken invariant, named.
 *
 * Owns: the message of a failed assertion. Does not own: errors of any other kind; those go to the caller by value.
 *
 * Invariants: I-CHECK1 nothing here allocates, takes a lock of ours or uses buffered output, so that an assertion may
 * fail on any thread, under any lock and in a signal handler, and its message still comes out whole. */
#include "alloc/base/check.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A message under construction; what does not fit is cut off. */
struct message {
    char text[1024];
    size_t length;
};

static void append(struct message *m, const char *text) {
    size_t left = sizeof m->text - m->length;
    size_t n = strlen(text);
    n = n < left ? n : left;
    memcpy(m->text + m->length, text, n);
    m->length += n;
}

static void append_number(struct message *m, int number) {
    char digits[16];
    size_t at = sizeof digits - 1;
    unsigned rest = number < 0 ? 0u : (unsigned)number;
    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    append(m, digits + at);
}

/* One write for the whole line where the system takes it, so that lines of several threads do not mix. */
static void write_all(const char *text, size_t length) {
    while (length > 0) {
        ssize_t n = write(STDERR_FILENO, text, length);
        if (n <= 0) {
            return;
        }
        text += n;
        length -= (size_t)n;
    }
}

_Noreturn void tri__fatal(const char *file, int line, const char *condition, const char *invariant) {
    struct message m = {.length = 0};
    append(&m, "trigc: broken invariant ");
    append(&m, invariant);
    append(&m, ": `");
    append(&m, condition);
    append(&m, "` does not hold at ");
    append(&m, file);
    append(&m, ":");
    append_number(&m, line);
    append(&m, "\n");
    write_all(m.text, m.length);
    abort();
}
