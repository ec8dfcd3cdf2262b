/*
 * sealed.h: lists of objects that carry a number and a sum of it, so that one freed too early shows.
 */
#ifndef TRI_TESTS_SEALED_H
#define TRI_TESTS_SEALED_H

#include "tests/fixture.h"

struct sealed {
    struct sealed *next;
    uint64_t number, seal;
};
TRI_TYPE(sealed_type, struct sealed, next);

static inline uint64_t seal_of(uint64_t number) {
    return (number + 1) * 0x9e3779b97f4a7c15ull;
}

static inline struct sealed *new_sealed(tri_thread *thread, struct sealed *next, uint64_t number) {
    struct sealed *s = tri_new(thread, &sealed_type);
    CHECK_MSG(s != NULL, "%s", tri_last_error());
    tri_init(thread, s, &s->next, next);
    s->number = number;
    s->seal = seal_of(number);
    return s;
}

static inline uint64_t check_list(const struct sealed *s) {
    uint64_t n = 0;
    for (; s; s = s->next, n++)
        CHECK_MSG(s->seal == seal_of(s->number), "object %llu is damaged", (unsigned long long)s->number);
    return n;
}

#endif
