/* bits.h - arithmetic on words and sizes: alignment, counting, ceilings. Pure functions. */
#ifndef TRI_BASE_BITS_H
#define TRI_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRI_LIKELY(x) __builtin_expect(!!(x), 1)
#define TRI_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define TRI_COLD __attribute__((noinline, cold))
#define TRI_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline bool is_power_of_two(size_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}
/* `align` is a power of two in both. */
static inline size_t align_up(size_t n, size_t align) {
    return (n + align - 1) & ~(align - 1);
}
static inline size_t align_down(size_t n, size_t align) {
    return n & ~(align - 1);
}
static inline size_t ceil_div(size_t n, size_t d) {
    return (n + d - 1) / d;
}
static inline unsigned bit_count(uint64_t w) {
    return (unsigned)__builtin_popcountll(w);
}
/* Index of the lowest set bit; w is not 0. */
static inline unsigned bit_lowest(uint64_t w) {
    return (unsigned)__builtin_ctzll(w);
}
/* Index of the highest set bit; w is not 0. */
static inline unsigned bit_highest(uint64_t w) {
    return 63u - (unsigned)__builtin_clzll(w);
}
static inline size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}
static inline size_t max_size(size_t a, size_t b) {
    return a > b ? a : b;
}

#endif
