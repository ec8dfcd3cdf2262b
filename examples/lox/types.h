/* types.h - the descriptors that table.c and object.c share. */
#ifndef LOX_TYPES_H
#define LOX_TYPES_H

#include <trigc.h>

extern tri_type type_entries;
extern tri_type type_string_set;

#endif
