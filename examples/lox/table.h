/* table.h - the intern table's own declarations; those of struct table are in object.h. */
#ifndef LOX_TABLE_H
#define LOX_TABLE_H

#include "object.h"

/* The strings that are interned last are kept, so that a caller has time to store its string. */
enum { RECENT_STRINGS = 16 };

/* Every string that lives. Sets and recent strings are roots of the VM's. */
struct string_table {
    struct string_set *set, *grown; /* grown: while it is filled */
    uint32_t count;                 /* slots used, those of dead strings with them */
    uint32_t nrecent;
    struct string *recent[RECENT_STRINGS];
};

extern struct string_table strings;

/* Memory for a string of this length, nothing written. */
struct string *string_alloc(size_t length);

#endif
