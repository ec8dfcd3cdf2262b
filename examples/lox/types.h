/* types.h - the descriptors of object.c that other files name. */
#ifndef LOX_TYPES_H
#define LOX_TYPES_H

#include <trigc.h>

extern tri_type type_entries;
extern tri_type type_string_set;
extern tri_type type_upvalue;

#endif
