/* object.h - the objects of Lox as they lie in the heap.
 *
 * Owns: their layout, and constructors that return them complete. Does not own: how memory is had and how references
 * are stored (mem.h), the VM's roots (vm.h).
 *
 * The collectors know these structs by the descriptors at the end of object.c; a field added here is added there.
 *
 * Invariants:
 *  O1  the first word of every object but an upvalue is its header, and the kind in its lowest byte is odd: a free cell
 *      of Boehm's, whose first word is an aligned link, is never taken for an object.
 *  O2  constructors are safepoints. What the caller holds across one lies in a root (mem.h).
 *  O3  a constructor initialises every slot before it returns, without a safepoint after the allocation.
 *  O4  strings are interned: two strings are equal exactly if they are the same object.
 *  O5  a class's number changes whenever a field name joins its layout, so that (number, position) pairs that were
 *      remembered at an instruction stay true for as long as the number matches.
 */
#ifndef LOX_OBJECT_H
#define LOX_OBJECT_H

#include "mem.h"
#include "value.h"

/* All kinds are odd (O1). */
enum obj_kind {
    OBJ_STRING = 1,
    OBJ_FUNCTION = 3,
    OBJ_NATIVE = 5,
    OBJ_CLOSURE = 7,
    OBJ_CLASS = 9,
    OBJ_INSTANCE = 11,
    OBJ_BOUND_METHOD = 13,
    OBJ_EXTENSION = 15, /* from here on: never seen as a value */
    OBJ_ENTRIES = 17,
    OBJ_STRING_SET = 19,
    OBJ_VALUES = 21,
    OBJ_BYTES = 23,
    OBJ_WEAK_TABLE = 25 /* over Boehm */
};

/* The header word. */
struct obj {
    uint8_t kind;   /* enum obj_kind */
    uint8_t flags;  /* by kind */
    uint16_t small; /* by kind */
    uint32_t n;     /* by kind: a length, or a class's number */
};

/* head.n: length in bytes. The characters end with a NUL that is not counted. */
struct string {
    struct obj head;
    uint32_t hash;
    char chars[];
};

/* A hash table from strings to values, part of its owner; open addressing, linear probing, no removal. */
struct entry {
    struct string *key; /* NULL: free */
    value val;
};

struct entries {
    struct obj head; /* head.n: capacity, a power of two */
    struct entry at[];
};

struct table {
    struct entries *entries; /* NULL while the table is empty */
    uint32_t count;
    uint32_t mask; /* capacity - 1 */
};

/* Slots of the intern table; head.n: capacity. The strings are weak where the collector can do that. */
struct string_slot {
    struct string *string; /* NULL: none, or it is dead */
    uint64_t mark;         /* STRING_USED | hash; 0: never used, the end of every probe */
};
#define STRING_USED ((uint64_t)1 << 32)

struct string_set {
    struct obj head;
    struct string_slot at[];
};

struct values {
    struct obj head; /* head.n: length */
    value at[];
};

struct bytes {
    struct obj head; /* head.n: length in bytes */
    uint64_t data[];
};

/* From byte `start` of the code on, instructions belong to `line`. */
struct line_run {
    uint32_t start, line;
};

/* What a property instruction found last time, by its constant's number: class number and position. */
struct cache {
    uint32_t class_number; /* 0: nothing yet */
    uint32_t position;
};

struct function {
    struct obj head;
    uint32_t arity;
    uint32_t nupvalues;
    uint32_t max_stack;  /* most stack words that a call of it uses, callee and arguments included */
    uint32_t ncode;      /* bytes of code */
    uint32_t nlines;     /* entries of lines */
    struct string *name; /* NULL: the script */
    struct bytes *code;
    struct values *constants; /* as many as caches has entries */
    struct bytes *caches;     /* NULL: no instruction uses one */
    struct bytes *lines;
};

/* args[-1]: the receiver of a method. VALUE_EMPTY: a run-time error has been reported. */
typedef value (*native_fn)(uint32_t argc, const value *args);

/* head.small: how many arguments it takes, or ANY_ARITY. */
struct native {
    struct obj head;
    native_fn fn;
};
#define ANY_ARITY UINT16_MAX

/* While open, `location` names a slot of the VM stack and the upvalue is in the VM's list; once closed, `location`
 * names its own `closed`. The smallest object there is, and the one without a header: nothing but closures refers to
 * it. A link is no value that names an object, so the collector may read either member at any time. */
struct upvalue {
    value *location;
    union {
        value closed;
        struct upvalue *next; /* next open one, further down the stack */
    };
};

struct closure {
    struct obj head; /* head.n: number of upvalues */
    struct function *function;
    struct upvalue *upvalues[];
};

struct class {
    struct obj head; /* head.n: the class's number (O5); head.flags: 1 once it has an instance */
    struct string *name;
    struct closure *init; /* NULL: none */
    struct table methods; /* to closures; complete before the first instance exists */
    struct table fields;  /* the layout: to positions, as numbers */
};

/* Fields that did not fit: those of positions from the instance's own capacity on. */
struct extension {
    struct obj head; /* head.n: EXTENSION_NUMBER; head.small: capacity */
    struct class *class;
    value fields[];
};

#define EXTENSION_NUMBER UINT32_MAX /* never the number of a class */

/* `shape` is the class, or an extension that names it: the numbers in their headers tell them apart. */
struct instance {
    struct obj head; /* head.small: capacity of fields */
    struct obj *shape;
    value fields[]; /* VALUE_EMPTY: not set */
};

struct bound_method {
    struct obj head;
    value receiver;
    struct obj *method; /* a closure or a native */
};

static inline bool value_is_kind(value v, enum obj_kind kind) {
    return value_is_obj(v) && value_to_obj(v)->kind == (uint8_t)kind;
}

#define AS(T, v) ((struct T *)value_to_obj(v))

static inline struct class *instance_class(const struct instance *instance) {
    struct obj *shape = instance->shape;
    return shape->kind == OBJ_CLASS ? (struct class *)shape : ((struct extension *)shape)->class;
}

/* Constructors (O2, O3). References among the arguments lie in roots of the caller's. */
struct function *function_new(void);
struct native *native_new(native_fn fn, uint32_t arity);
struct closure *closure_new(struct function *function);
struct upvalue *upvalue_new(value *location);
struct class *class_new(struct string *name);
struct instance *instance_new(struct class *class);
struct bound_method *bound_method_new(value receiver, struct obj *method);
struct values *values_new(uint32_t n);
struct bytes *bytes_new(size_t size_bytes);

/* The string of these characters, interned: an existing one, or a new one. The characters lie outside the heap, or in
 * objects that a root keeps. */
struct string *string_intern(const char *chars, size_t length);
struct string *string_concat(struct string *a, struct string *b);

/* The value of `key`, or NULL. Not a safepoint. */
const value *table_find(const struct table *table, const struct string *key);

/* Sets it. `owner`: the object that the table is part of, NULL for a root of the VM's. May allocate. True: new key. */
bool table_set(void *owner, struct table *table, struct string *key, value val);
void table_copy(void *owner, struct table *to, const struct table *from);

/* Sets and finds a field by name. instance_set may allocate. */
void instance_set(struct instance *instance, struct string *name, value val);
value instance_get(const struct instance *instance, const struct string *name);

/* Position of a field of this name in the class's layout, or UINT32_MAX. */
uint32_t class_field(const struct class *class, const struct string *name);

/* Prints as the `print` statement does. */
void value_print(value v);

#endif
