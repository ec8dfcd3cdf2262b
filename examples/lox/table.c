/* table.c - hash tables from strings to values, and the intern table.
 *
 * Owns: probing and growth of both. Keys are interned strings, so a lookup compares addresses. Capacities are powers
 * of two, at most three quarters full; nothing is ever removed, so a free slot ends every probe. A dead string leaves
 * its slot used, until the table is made anew.
 *
 * Invariants:
 *  T1  a table's new entries are filled with plain initialising stores: no safepoint lies between their allocation and
 *      the store that publishes them.
 *  T2  the intern table grows before the string that needs the room is allocated, so that the slot that was found for
 *      it is still there. The table keeps no string alive; what was interned last is kept beside it.
 */
#include "table.h"

#include "types.h"

struct string_table strings;

/* --- tables ----------------------------------------------------------------------------------------------------- */

static struct entry *entry_for(struct entries *entries, uint32_t mask, const struct string *key) {
    uint32_t i = key->hash & mask;
    while (entries->at[i].key != key && entries->at[i].key != NULL) i = (i + 1) & mask;
    return &entries->at[i];
}

const value *table_find(const struct table *table, const struct string *key) {
    if (table->entries == NULL) return NULL;
    struct entry *entry = entry_for(table->entries, table->mask, key);
    return entry->key != NULL ? &entry->val : NULL;
}

static void table_grow(void *owner, struct table *table) {
    uint32_t capacity = table->entries == NULL ? 4 : (table->mask + 1) * 2;
    struct entries *entries = mem_new_n(&type_entries, capacity);
    entries->head = (struct obj){.kind = OBJ_ENTRIES, .n = capacity};
    for (uint32_t i = 0; table->entries != NULL && i <= table->mask; i++) { /* T1 */
        struct entry *from = &table->entries->at[i];
        if (from->key == NULL) continue;
        struct entry *to = entry_for(entries, capacity - 1, from->key);
        mem_init(entries, &to->key, from->key);
        mem_init_value(entries, &to->val, from->val);
    }
    if (owner != NULL)
        mem_store(owner, &table->entries, entries);
    else
        table->entries = entries;
    table->mask = capacity - 1;
}

bool table_set(void *owner, struct table *table, struct string *key, value val) {
    if (table->entries == NULL || table->count + 1 > (table->mask + 1) / 4 * 3) table_grow(owner, table);
    struct entry *entry = entry_for(table->entries, table->mask, key);
    bool added = entry->key == NULL;
    if (added) {
        table->count++;
        mem_store(table->entries, &entry->key, key);
    }
    mem_store_value(table->entries, &entry->val, val);
    return added;
}

void table_copy(void *owner, struct table *to, const struct table *from) {
    for (uint32_t i = 0; from->entries != NULL && i <= from->mask; i++) {
        struct entry *entry = &from->entries->at[i];
        if (entry->key != NULL) table_set(owner, to, entry->key, entry->val);
    }
}

/* --- the intern table ------------------------------------------------------------------------------------------- */

#define HASH_START 2166136261u

/* FNV-1a. The hash of a + b goes on from the hash of a. */
static uint32_t hash_more(uint32_t hash, const char *chars, size_t length) {
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)chars[i]) * 16777619u;
    return hash;
}

/* The first slot from a hash on that was never used. */
static struct string_slot *free_slot(struct string_set *set, uint32_t hash) {
    uint32_t i = hash & (set->head.n - 1);
    while (set->at[i].mark != 0) i = (i + 1) & (set->head.n - 1);
    return &set->at[i];
}

/* The strings that live move to a new set: a larger one if they need it. */
static void strings_grow(void) {
    struct string_set *old = strings.set;
    uint32_t live = 0, capacity = old == NULL ? 256 : old->head.n;
    for (uint32_t i = 0; old != NULL && i < old->head.n; i++) live += old->at[i].string != NULL; /* a hint */
    if (live > capacity / 2) capacity *= 2;
    struct string_set *set = strings.grown = mem_new_n(&type_string_set, capacity);
    set->head = (struct obj){.kind = OBJ_STRING_SET, .n = capacity};
    strings.count = 0;
    for (uint32_t i = 0; old != NULL && i < old->head.n; i++) {
        struct string *string = mem_weak(&old->at[i].string);
        if (string == NULL) continue;
        struct string_slot *to = free_slot(set, string->hash);
        mem_store(set, &to->string, string);
        to->mark = STRING_USED | string->hash;
        strings.count++;
    }
    strings.set = set;
    strings.grown = NULL;
}

static struct string *recent(struct string *string) {
    return strings.recent[strings.nrecent++ % RECENT_STRINGS] = string;
}

/* The string a + b, if there is one. */
static struct string *strings_find(uint32_t hash, const char *a, size_t na, const char *b, size_t nb) {
    struct string_set *set = strings.set;
    for (uint32_t i = hash;; i++) {
        struct string_slot *slot = &set->at[i & (set->head.n - 1)];
        if (slot->mark == 0) return NULL;
        if (slot->mark != (STRING_USED | hash)) continue;
        struct string *string = mem_weak(&slot->string);
        if (string != NULL && string->head.n == na + nb && memcmp(string->chars, a, na) == 0 &&
            memcmp(string->chars + na, b, nb) == 0)
            return string;
    }
}

static struct string *intern(uint32_t hash, const char *a, size_t na, const char *b, size_t nb) {
    if (na + nb > UINT32_MAX / 2) mem_exhausted();
    if (strings.set == NULL || strings.count + 1 > strings.set->head.n / 4 * 3) strings_grow(); /* T2 */
    struct string *found = strings_find(hash, a, na, b, nb);
    if (found != NULL) return recent(found);
    struct string *string = string_alloc(na + nb);
    string->head = (struct obj){.kind = OBJ_STRING, .n = (uint32_t)(na + nb)};
    string->hash = hash;
    memcpy(string->chars, a, na);
    memcpy(string->chars + na, b, nb);
    string->chars[na + nb] = '\0';
    struct string_slot *slot = free_slot(strings.set, hash);
    mem_store(strings.set, &slot->string, string);
    slot->mark = STRING_USED | hash;
    strings.count++;
    return recent(string);
}

struct string *string_intern(const char *chars, size_t length) {
    return intern(hash_more(HASH_START, chars, length), chars, length, "", 0);
}

struct string *string_concat(struct string *a, struct string *b) {
    uint32_t hash = hash_more(a->hash, b->chars, b->head.n);
    return intern(hash, a->chars, a->head.n, b->chars, b->head.n);
}
