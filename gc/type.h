/* type.h - from descriptors to what the marker reads: layout numbers and compiled slot maps.
 *
 * Owns: the process-wide table of layouts. A descriptor (public, static) is checked and compiled once, without a lock
 * that two heaps share: its own `layout` word is claimed by compare-and-swap, its numbers come from one atomic counter.
 * A type without elements takes one number; one with elements takes NUM_SIZE_CLASSES consecutive ones, number + class,
 * so that any page entry names both (class 0: large arrays). Entries are immutable once published and never freed.
 *
 * Fixed numbers: 0 none; LAYOUT_BYTES + class: untyped pointer-free bytes; LAYOUT_MIXED + class: mixed spans;
 * LAYOUT_TINY: slots that several small pointer-free objects share.
 *
 * Invariants: I-TYPE1 a published layout never changes. I-TYPE2 every slot lies inside the fixed part or the element,
 * 8-byte aligned, and is of one kind only. */
#ifndef TRI_GC_TYPE_H
#define TRI_GC_TYPE_H

#include <trigc.h>
#include "alloc/sizeclass.h"

enum {
    LAYOUT_BYTES = 1,
    LAYOUT_MIXED = LAYOUT_BYTES + NUM_SIZE_CLASSES,
    LAYOUT_TINY = LAYOUT_MIXED + NUM_SIZE_CLASSES,
    LAYOUT_FIRST,
    LAYOUT_LAST = 65000
};

enum slot_kind { SLOT_NONE = 0, SLOT_POINTER, SLOT_VALUE, SLOT_MAYBE, SLOT_WEAK };
enum { SLOT_KINDS = SLOT_WEAK };

/* How the marker scans an object of a layout, from the cheapest to the dearest. */
enum scan_shape {
    SCAN_LEAF = 0,     /* nothing */
    SCAN_MASK,         /* plain pointers in the first 64 words, no strong elements: one mask */
    SCAN_VALUES,       /* values in the first 64 words, nothing else: one mask */
    SCAN_RUN_POINTERS, /* from run_from to the end of the slot every word is a plain pointer, nothing before */
    SCAN_RUN_VALUES,   /* the same with values */
    SCAN_GENERAL,      /* bitmaps by kind, elements */
    SCAN_TRACE         /* the type's callback */
};

/* Slot bitmaps of a fixed part or an element. */
struct slot_map {
    uint32_t nwords; /* words that the bitmaps cover: up to the last slot */
    const uint64_t *pointers, *values, *maybes, *weaks;
};

/* What one descriptor compiles to. */
struct type_desc {
    const tri_type *type;
    struct slot_map fixed, elem;
    size_t size, elem_size;
    tri_enc enc;            /* identity when the type names none */
    const uint64_t *gcdata; /* all kinds together, fixed part */
    uint64_t hash;
    bool has_weak; /* some slot is weak: its spans are looked through when objects die (weak.c) */
};

struct layout {
    uint16_t scan;                /* enum scan_shape */
    uint16_t uniform;             /* SLOT_POINTER or SLOT_VALUE when every slot is of that kind; else SLOT_NONE */
    uint32_t run_from;            /* SCAN_RUN_*: byte where the words begin */
    uint64_t mask;                /* SCAN_MASK, SCAN_VALUES */
    const struct type_desc *desc; /* NULL for untyped bytes and for no layout */
};

extern struct layout tri__layouts[65536];

/* Checks an encoding on its own; NULL is a plain pointer. TRI_OK or TRI_EINVAL with the reason as the last error. */
int tri__enc_check(const tri_enc *enc, const char *call);

/* Registers (or finds registered) a descriptor. TRI_OK, TRI_ETYPE, TRI_ELIMIT, TRI_ENOMEM; the error text is set. */
int tri__type_bind(tri_type *type, const char *call);

/* The kind of the slot at `offset` of an object of this layout (SLOT_NONE: no slot there). */
enum slot_kind tri__type_slot_kind(const struct type_desc *desc, size_t offset);

static inline const char *layout_name(uint32_t layout) {
    const struct type_desc *desc = tri__layouts[layout].desc;
    return desc ? desc->type->name : "bytes";
}

/* The reference in an encoded word, or 0. */
static inline uintptr_t enc_decode(const tri_enc *enc, tri_word w) {
    return (w & enc->mask) == enc->tag && (enc->tags >> (w & 63) & 1) ? (uintptr_t)(w & enc->ptr_mask) : 0;
}

#endif
