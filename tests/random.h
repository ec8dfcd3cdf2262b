/*
 * random.h: random numbers from a seed that every failure prints (TRI_TEST_SEED chooses another one), for tests that
 * hold a structure against an oracle.
 */
#ifndef TRI_TESTS_RANDOM_H
#define TRI_TESTS_RANDOM_H

#include "tests/plain.h"

static uint64_t random_seed;
static uint64_t random_state;

static inline void begin_random(uint64_t fallback) {
    random_seed = test_env_u64("TRI_TEST_SEED", fallback);
    random_state = random_seed * 2862933555777941757u + 3037000493u;
}

static inline uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static inline size_t below(size_t n) {
    return (size_t)(next_random() % n);
}

#define AGREE(cond) CHECK_MSG(cond, "seed %" PRIu64 ": %s does not hold", random_seed, #cond)

#endif /* TRI_TESTS_RANDOM_H */
