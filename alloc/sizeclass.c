/* sizeclass.c - the size classes as data: one definition of each table in sizeclass_table.h.
 *
 * Owns: nothing but the arrays. Invariants: I-CLASS1 to 4 of sizeclass.h; here only what the compiler can check. */
#include "alloc/sizeclass.h"

#define ENTRY(class, bytes, pages, slots, recip) \
    [class] = {.slot_bytes = (bytes), .reciprocal = (recip), .npages = (pages), .nslots = (slots)},

const struct size_class tri__size_classes[NUM_SIZE_CLASSES] = {TRI__SIZE_CLASS_TABLE(ENTRY)};
const uint8_t tri__class_by_8[] = TRI__CLASS_BY_8;
const uint8_t tri__class_by_128[] = TRI__CLASS_BY_128;

_Static_assert(NUM_SIZE_CLASSES <= 256, "a class number is a byte in the maps");
_Static_assert(sizeof tri__class_by_8 == 1024 / 8 + 1, "the fine map reaches from 0 to 1024");
_Static_assert(sizeof tri__class_by_128 == (SMALL_MAX_BYTES - 1024) / 128 + 1, "the coarse map reaches the last class");
