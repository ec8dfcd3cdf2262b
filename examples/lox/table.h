/* table.h - the intern table's own declarations; those of struct table are in object.h. */
#ifndef LOX_TABLE_H
#define LOX_TABLE_H

#include "object.h"

/* Every string there is. A root of the VM's. */
struct string_table {
    struct string_set *set;
    uint32_t count;
};

extern struct string_table strings;

/* Memory for a string of this length, nothing written. */
struct string *string_alloc(size_t length);

#endif
