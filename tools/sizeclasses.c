/* sizeclasses.c - prints the size classes in the columns of Go's table (SOURCES S4), from the arrays the heap uses.
 *
 * Owns: the arithmetic of the columns. Does not own: the table. "tail waste" is what no slot covers at a span's end
 * (in the 8-byte class: the span's own bits); "max waste" is the worst share of a full span that requests do not use:
 * each one byte above the class below, plus the tail. "min align" is what a slot's size promises, at most a page. */
#include <stdio.h>

#include "alloc/sizeclass.h"

enum { SPAN_PAGE_BYTES = 8192 };

/* The alignment that every slot of the class has, given that spans begin on a page. */
static unsigned min_align(unsigned slot_bytes) {
    unsigned lowest_bit = slot_bytes & (0u - slot_bytes);
    return lowest_bit < SPAN_PAGE_BYTES ? lowest_bit : SPAN_PAGE_BYTES;
}

static int print_size_classes(FILE *out) {
    fprintf(out, "class  bytes/obj  bytes/span  objects  tail waste  max waste  min align\n");
    unsigned below = 0;
    for (unsigned i = 1; i < NUM_SIZE_CLASSES; i++) {
        const struct size_class *c = &tri__size_classes[i];
        unsigned span_bytes = c->npages * (unsigned)SPAN_PAGE_BYTES;
        unsigned tail = span_bytes - c->nslots * c->slot_bytes;
        unsigned wasted = (c->slot_bytes - below - 1) * c->nslots + tail;
        fprintf(out, "%5u  %9u  %10u  %7u  %10u  %8.2f%%  %9u\n", i, c->slot_bytes, span_bytes, c->nslots, tail,
                100.0 * wasted / span_bytes, min_align(c->slot_bytes));
        below = c->slot_bytes;
    }
    return fflush(out);
}

int main(void) {
    return print_size_classes(stdout) == 0 ? 0 : 1;
}
