/* value.h - the one-word value of Lox, NaN-boxed.
 *
 * Owns: the encoding and the conversions. A number is its own IEEE bits. Everything else hides in the quiet NaNs that
 * no arithmetic produces: the two bits below the exponent are set as well, so neither a hardware NaN (0x7ff8...,
 * 0xfff8...) nor any other number collides with them.
 *
 *     0x7ffc 0000 0000 000t   singletons: nil, false, true and `empty`, which no program sees
 *     0x7ffd 0000 iiii iiii   an index (of a global variable) in a constant table, which no program sees either
 *     0xfffc pppp pppp pppp   an object: 48 bits of address
 *
 * Invariants:
 *  V1  the zero word is the number 0: memory that the heap hands out zeroed holds values, and no reference.
 *  V2  VALUE_ENC describes objects and nothing else to the collector.
 */
#ifndef LOX_VALUE_H
#define LOX_VALUE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct obj;
typedef uint64_t value;

#define VALUE_QNAN UINT64_C(0x7ffc000000000000)
#define VALUE_OBJ UINT64_C(0xfffc000000000000)
#define VALUE_ADDRESS UINT64_C(0x0000ffffffffffff)
#define VALUE_NIL (VALUE_QNAN | 1u)
#define VALUE_FALSE (VALUE_QNAN | 2u)
#define VALUE_TRUE (VALUE_QNAN | 3u)
#define VALUE_EMPTY (VALUE_QNAN | 4u) /* a field that is not there, a global that is not defined */
#define VALUE_INDEX UINT64_C(0x7ffd000000000000)

/* The encoding as a tri_enc: mask, tag, tags, ptr_mask. */
#define VALUE_ENC \
    { VALUE_OBJ, VALUE_OBJ, ~UINT64_C(0), VALUE_ADDRESS }

static inline bool value_is_number(value v) {
    return (v & VALUE_QNAN) != VALUE_QNAN;
}

static inline bool value_is_obj(value v) {
    return (v & VALUE_OBJ) == VALUE_OBJ;
}

static inline bool value_is_bool(value v) {
    return (v | 1u) == VALUE_TRUE;
}

/* nil and false are false, everything else is true. */
static inline bool value_is_falsey(value v) {
    return v == VALUE_NIL || v == VALUE_FALSE;
}

static inline double value_to_number(value v) {
    double number;
    memcpy(&number, &v, sizeof number);
    return number;
}

static inline value value_from_number(double number) {
    value v;
    memcpy(&v, &number, sizeof v);
    return v;
}

static inline value value_from_bool(bool b) {
    return b ? VALUE_TRUE : VALUE_FALSE;
}

static inline struct obj *value_to_obj(value v) {
    return (struct obj *)(uintptr_t)(v & VALUE_ADDRESS);
}

static inline value value_from_obj(const void *obj) {
    return VALUE_OBJ | (uint64_t)(uintptr_t)obj;
}

static inline value value_from_index(uint32_t index) {
    return VALUE_INDEX | index;
}

static inline uint32_t value_to_index(value v) {
    return (uint32_t)v;
}

/* Numbers compare as numbers (NaN is not itself); everything else by identity, strings being interned. */
static inline bool value_equal(value a, value b) {
    if (value_is_number(a) && value_is_number(b)) return value_to_number(a) == value_to_number(b);
    return a == b;
}

#endif
