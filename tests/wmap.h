/*
 * wmap.h: what the tests of weak maps ask and say: a reference as a value, and the size of a map's table.
 */
#ifndef TRI_TESTS_WMAP_H
#define TRI_TESTS_WMAP_H

#include "tests/fixture.h"

static inline tri_word word_of(const void *p) {
    return (tri_word)(uintptr_t)p;
}

/* Whether the map's table is as small as its entries need. */
static inline bool is_small(const struct fixture *f, const void *map) {
    const struct wmap *record = tri__wmap_at(f->heap, (uintptr_t)map);
    return record->table.nbuckets <= record->table.n * 2 + 4 && record->table.nroom <= record->table.nbuckets + 128;
}

#endif
