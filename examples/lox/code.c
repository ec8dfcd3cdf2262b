/* code.c - growing code, and from an instruction back to its line. */
#include "code.h"

#include <stdlib.h>

static void *grow(void *array, size_t *capacity, size_t elem_bytes) {
    *capacity = *capacity == 0 ? 64 : *capacity * 2;
    void *grown = realloc(array, *capacity * elem_bytes);
    if (grown == NULL) mem_exhausted();
    return grown;
}

void code_append(struct code *code, uint8_t byte, uint32_t line) {
    if (code->nlines == 0 || code->lines[code->nlines - 1].line != line) {
        if (code->nlines == code->lines_capacity)
            code->lines = grow(code->lines, &code->lines_capacity, sizeof *code->lines);
        code->lines[code->nlines++] = (struct line_run){(uint32_t)code->count, line};
    }
    if (code->count == code->capacity) code->bytes = grow(code->bytes, &code->capacity, 1);
    code->bytes[code->count++] = byte;
}

void code_free(struct code *code) {
    free(code->bytes);
    free(code->lines);
    *code = (struct code){0};
}

uint32_t function_line(const struct function *function, size_t offset) {
    const struct line_run *runs = (const struct line_run *)(const void *)function->lines->data;
    uint32_t low = 0, high = function->nlines;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (runs[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return runs[low].line;
}
