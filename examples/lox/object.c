/* object.c - constructors of all objects, their descriptors, fields, printing.
 *
 * Owns: what the collectors are told of the layouts in object.h. Kinds whose size varies get one descriptor for each
 * small size, so that the common ones take the inline allocation path, and one with trailing elements for the rest.
 *
 * An instance has as many fields in place as its class's layout had when it was made. Its class learns the layout from
 * the fields that are set, so the first instance gets FIRST_FIELDS, and later ones fit exactly. What joins the layout
 * after an instance was made goes to an extension of that instance.
 */
#include "object.h"

#include <stddef.h>
#include <stdio.h>

#include "table.h"
#include "types.h"

#define FIRST_FIELDS 8u
#define MAX_FIELDS 65535u /* head.small holds a capacity */

/* --- descriptors ------------------------------------------------------------------------------------------------ */

#define OFFSETS(array) \
    { .offsets = (array), .noffsets = (uint32_t)(sizeof(array) / sizeof((array)[0])) }
#define SOME_OFFSETS(array, n) \
    { .offsets = (array), .noffsets = (n) }
#define TYPE(name_, size_, ...) \
    { .struct_size = sizeof(tri_type), .name = (name_), .size = (size_), __VA_ARGS__ }

static const uint32_t at_0[] = {0};
static const uint32_t at_8[] = {8};
static const uint32_t function_slots[] = {offsetof(struct function, name), offsetof(struct function, code),
                                          offsetof(struct function, constants), offsetof(struct function, caches),
                                          offsetof(struct function, lines)};
static const uint32_t class_slots[] = {offsetof(struct class, name), offsetof(struct class, init),
                                       offsetof(struct class, methods.entries), offsetof(struct class, fields.entries)};
static const uint32_t upvalue_values[] = {offsetof(struct upvalue, closed)};
static const uint32_t bound_values[] = {offsetof(struct bound_method, receiver)};
static const uint32_t bound_slots[] = {offsetof(struct bound_method, method)};
static const uint32_t shape_slot[] = {offsetof(struct instance, shape)};
static const uint32_t words_from_8[] = {8, 16, 24, 32, 40, 48, 56, 64, 72};
static const uint32_t words_from_16[] = {16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136};

_Static_assert(offsetof(struct instance, fields) == 16, "words_from_16 lists the fields");
_Static_assert(offsetof(struct extension, fields) == 16 && offsetof(struct extension, class) == 8, "as an instance");
_Static_assert(offsetof(struct closure, function) == 8, "words_from_8 lists function and upvalues");
_Static_assert(sizeof(struct obj) == 8, "the header is one word");
_Static_assert(sizeof(struct upvalue) == 16, "the smallest slot with references");

static tri_type type_function = TYPE("function", sizeof(struct function), .pointers = OFFSETS(function_slots));
static tri_type type_native = TYPE("native", sizeof(struct native), .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED);
static tri_type type_class = TYPE("class", sizeof(struct class), .pointers = OFFSETS(class_slots));
tri_type type_upvalue = TYPE("upvalue", sizeof(struct upvalue), .enc = &mem_value_enc,
                             .values = OFFSETS(upvalue_values));
static tri_type type_bound_method = TYPE("bound method", sizeof(struct bound_method), .enc = &mem_value_enc,
                                         .pointers = OFFSETS(bound_slots), .values = OFFSETS(bound_values));
static tri_type type_values = TYPE("values", sizeof(struct values), .elem_size = 8, .enc = &mem_value_enc,
                                   .elem_values = OFFSETS(at_0));
static tri_type type_bytes = TYPE("bytes", sizeof(struct bytes), .elem_size = 8,
                                  .flags = TRI_TYPE_LEAF | TRI_TYPE_ZEROED);
static tri_type type_extension = TYPE("extension", sizeof(struct extension), .elem_size = 8, .enc = &mem_value_enc,
                                      .pointers = OFFSETS(shape_slot), .elem_values = OFFSETS(at_0));
tri_type type_entries = TYPE("entries", sizeof(struct entries), .elem_size = 16, .enc = &mem_value_enc,
                             .elem_pointers = OFFSETS(at_0), .elem_values = OFFSETS(at_8));
tri_type type_string_set = TYPE("string set", sizeof(struct string_set), .elem_size = 16, .elem_weaks = OFFSETS(at_0));

#define STRING_TYPE(size_) TYPE("string", (size_), .flags = TRI_TYPE_LEAF)
static tri_type type_string[] = {STRING_TYPE(16),  STRING_TYPE(32),  STRING_TYPE(48),  STRING_TYPE(64),
                                 STRING_TYPE(80),  STRING_TYPE(96),  STRING_TYPE(112), STRING_TYPE(128),
                                 STRING_TYPE(144), STRING_TYPE(160), STRING_TYPE(176), STRING_TYPE(192),
                                 STRING_TYPE(208), STRING_TYPE(224), STRING_TYPE(240), STRING_TYPE(256)};
static tri_type type_long_string = TYPE("long string", 16, .elem_size = 16, .flags = TRI_TYPE_LEAF);

#define CLOSURE_TYPE(n) TYPE("closure", 16 + 8 * (n), .pointers = SOME_OFFSETS(words_from_8, 1 + (n)))
static tri_type type_closure[] = {CLOSURE_TYPE(0), CLOSURE_TYPE(1), CLOSURE_TYPE(2), CLOSURE_TYPE(3), CLOSURE_TYPE(4),
                                  CLOSURE_TYPE(5), CLOSURE_TYPE(6), CLOSURE_TYPE(7), CLOSURE_TYPE(8)};
static tri_type type_wide_closure = TYPE("wide closure", 16, .elem_size = 8, .pointers = OFFSETS(at_8),
                                         .elem_pointers = OFFSETS(at_0));

#define INSTANCE_TYPE(n)                                                                   \
    TYPE("instance", 16 + 8 * (n), .enc = &mem_value_enc, .pointers = OFFSETS(shape_slot), \
         .values = SOME_OFFSETS(words_from_16, (n)))
static tri_type type_instance[] = {
    INSTANCE_TYPE(0),  INSTANCE_TYPE(1),  INSTANCE_TYPE(2),  INSTANCE_TYPE(3),  INSTANCE_TYPE(4),  INSTANCE_TYPE(5),
    INSTANCE_TYPE(6),  INSTANCE_TYPE(7),  INSTANCE_TYPE(8),  INSTANCE_TYPE(9),  INSTANCE_TYPE(10), INSTANCE_TYPE(11),
    INSTANCE_TYPE(12), INSTANCE_TYPE(13), INSTANCE_TYPE(14), INSTANCE_TYPE(15), INSTANCE_TYPE(16)};
static tri_type type_wide_instance = TYPE("wide instance", 16, .elem_size = 8, .enc = &mem_value_enc,
                                          .pointers = OFFSETS(shape_slot), .elem_values = OFFSETS(at_0));

#define NTYPES(array) (sizeof(array) / sizeof((array)[0]))

/* --- constructors ----------------------------------------------------------------------------------------------- */

struct string *string_alloc(size_t length) {
    size_t units = (offsetof(struct string, chars) + length + 1 + 15) / 16;
    if (units <= NTYPES(type_string)) return mem_new(&type_string[units - 1]);
    return mem_new_n(&type_long_string, units - 1);
}

struct function *function_new(void) {
    struct function *function = mem_new(&type_function);
    function->head.kind = OBJ_FUNCTION;
    return function;
}

struct native *native_new(native_fn fn, uint32_t arity) {
    struct native *native = mem_new(&type_native);
    native->head = (struct obj){.kind = OBJ_NATIVE, .small = (uint16_t)arity};
    native->fn = fn;
    return native;
}

struct closure *closure_new(struct function *function) {
    uint32_t n = function->nupvalues;
    struct closure *closure = n < NTYPES(type_closure) ? mem_new(&type_closure[n]) : mem_new_n(&type_wide_closure, n);
    closure->head = (struct obj){.kind = OBJ_CLOSURE, .n = n};
    mem_init(closure, &closure->function, function);
    return closure;
}

struct upvalue *upvalue_new(value *location) {
    struct upvalue *upvalue = mem_new(&type_upvalue);
    upvalue->location = location;
    return upvalue;
}

static uint32_t next_class_number(void) {
    static uint32_t last;
    if (++last == EXTENSION_NUMBER) last = 1;
    return last;
}

struct class *class_new(struct string *name) {
    struct class *class = mem_new(&type_class);
    class->head = (struct obj){.kind = OBJ_CLASS, .n = next_class_number()};
    mem_init(class, &class->name, name);
    return class;
}

struct instance *instance_new(struct class *class) {
    uint32_t n = class->fields.count;
    if (__builtin_expect(class->head.flags == 0, 0)) {
        class->head.flags = 1;
        if (n < FIRST_FIELDS) n = FIRST_FIELDS;
    }
    struct instance *instance = n < NTYPES(type_instance) ? mem_new(&type_instance[n])
                                                          : mem_new_n(&type_wide_instance, n);
    instance->head = (struct obj){.kind = OBJ_INSTANCE, .small = (uint16_t)n};
    mem_init(instance, &instance->shape, class);
    for (uint32_t i = 0; i < n; i++) mem_init_value(instance, &instance->fields[i], VALUE_EMPTY);
    return instance;
}

struct bound_method *bound_method_new(value receiver, struct obj *method) {
    struct bound_method *bound = mem_new(&type_bound_method);
    bound->head.kind = OBJ_BOUND_METHOD;
    mem_init_value(bound, &bound->receiver, receiver);
    mem_init(bound, &bound->method, method);
    return bound;
}

struct values *values_new(uint32_t n) {
    struct values *values = mem_new_n(&type_values, n);
    values->head = (struct obj){.kind = OBJ_VALUES, .n = n};
    return values;
}

struct bytes *bytes_new(size_t size_bytes) {
    struct bytes *bytes = mem_new_n(&type_bytes, (size_bytes + 7) / 8);
    bytes->head = (struct obj){.kind = OBJ_BYTES, .n = (uint32_t)size_bytes};
    return bytes;
}

/* --- fields ----------------------------------------------------------------------------------------------------- */

uint32_t class_field(const struct class *class, const struct string *name) {
    const value *position = table_find(&class->fields, name);
    return position != NULL ? value_to_index(*position) : UINT32_MAX;
}

static uint32_t class_add_field(struct class *class, struct string *name) {
    uint32_t position = class->fields.count;
    if (position >= MAX_FIELDS) mem_exhausted();
    table_set(class, &class->fields, name, value_from_index(position));
    class->head.n = next_class_number(); /* O5 */
    return position;
}

/* Makes room for the field at `position` of the extension. */
static struct extension *instance_extend(struct instance *instance, uint32_t position) {
    struct extension *old = instance->shape->kind == OBJ_EXTENSION ? (struct extension *)instance->shape : NULL;
    uint32_t capacity = old != NULL ? old->head.small : 0;
    if (position < capacity) return old;
    uint32_t n = capacity < 4 ? 4 : capacity * 2;
    while (n <= position) n *= 2;
    if (n > MAX_FIELDS) n = MAX_FIELDS;
    struct extension *extension = mem_new_n(&type_extension, n);
    extension->head = (struct obj){.kind = OBJ_EXTENSION, .small = (uint16_t)n, .n = EXTENSION_NUMBER};
    mem_init(extension, &extension->class, instance_class(instance));
    for (uint32_t i = 0; i < n; i++)
        mem_init_value(extension, &extension->fields[i], i < capacity ? old->fields[i] : VALUE_EMPTY);
    mem_store(instance, &instance->shape, extension);
    return extension;
}

void instance_set(struct instance *instance, struct string *name, value val) {
    struct class *class = instance_class(instance);
    uint32_t position = class_field(class, name);
    if (position == UINT32_MAX) position = class_add_field(class, name);
    uint32_t capacity = instance->head.small;
    if (position < capacity) {
        mem_store_value(instance, &instance->fields[position], val);
        return;
    }
    struct extension *extension = instance_extend(instance, position - capacity);
    mem_store_value(extension, &extension->fields[position - capacity], val);
}

value instance_get(const struct instance *instance, const struct string *name) {
    uint32_t position = class_field(instance_class(instance), name);
    uint32_t capacity = instance->head.small;
    if (position == UINT32_MAX) return VALUE_EMPTY;
    if (position < capacity) return instance->fields[position];
    if (instance->shape->kind != OBJ_EXTENSION) return VALUE_EMPTY;
    const struct extension *extension = (const struct extension *)instance->shape;
    return position - capacity < extension->head.small ? extension->fields[position - capacity] : VALUE_EMPTY;
}

/* --- printing --------------------------------------------------------------------------------------------------- */

static void function_print(const struct function *function) {
    if (function->name == NULL)
        fputs("<script>", stdout);
    else
        printf("<fn %s>", function->name->chars);
}

static void obj_print(struct obj *obj) {
    switch (obj->kind) {
    case OBJ_STRING: fwrite(((struct string *)obj)->chars, 1, obj->n, stdout); break;
    case OBJ_FUNCTION: function_print((struct function *)obj); break;
    case OBJ_NATIVE: fputs("<native fn>", stdout); break;
    case OBJ_CLOSURE: function_print(((struct closure *)obj)->function); break;
    case OBJ_BOUND_METHOD: obj_print(((struct bound_method *)obj)->method); break;
    case OBJ_CLASS: fputs(((struct class *)obj)->name->chars, stdout); break;
    case OBJ_INSTANCE: printf("%s instance", instance_class((struct instance *)obj)->name->chars); break;
    default: fputs("<internal>", stdout); break;
    }
}

void value_print(value v) {
    if (value_is_number(v))
        printf("%g", value_to_number(v));
    else if (value_is_obj(v))
        obj_print(value_to_obj(v));
    else if (v == VALUE_NIL)
        fputs("nil", stdout);
    else
        fputs(v == VALUE_TRUE ? "true" : "false", stdout);
}
