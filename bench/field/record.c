/* record.c - writes down what a program asks of malloc: how many blocks of each size, and for how long they live.
 *
 * A library to preload; docs/benchmarks.md has the command lines that made the sizes_*.txt files:
 *
 *   LD_PRELOAD=zig-out/lib/libfield-record.so FIELD_RECORD=/tmp/sizes PROGRAM ARGUMENTS        writes /tmp/sizes.PID
 *   for each process
 *
 * A block's lifetime is counted in allocations between its own and its end, and kept as a power of two: 2^k to
 * 2^(k+1)-1, -1 for a block that outlives the program. realloc ends one block and makes another. Sizes are exact (in
 * steps of 8) up to 1 KB and in eighths of a power of two above. Rows that hold less than one block in 50,000 are left
 * out. The C library's own functions do the work (__libc_malloc and its like, so glibc is needed); the books are kept
 * in memory that is mapped, under one spin lock. */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t size_bytes);
void *__libc_calloc(size_t n, size_t size_bytes);
void *__libc_realloc(void *block, size_t size_bytes);
void *__libc_memalign(size_t align_bytes, size_t size_bytes);
void __libc_free(void *block);

enum { TABLE = 1 << 23, EXACT_STEPS = 128, NCLASSES = 512, NLIVES = 48, RARE = 50000 };

struct entry {
    uintptr_t block; /* 0: never used; 1: was used */
    uint64_t born;
    uint32_t class_index;
};

static struct {
    atomic_flag lock;
    bool off; /* [lock] in the child of a fork that has not called exec, and after the report */
    uint64_t clock;
    struct entry *table;
    uint64_t counts[NCLASSES][NLIVES + 1]; /* the last one: never freed */
} books = {.lock = ATOMIC_FLAG_INIT};

static void lock(void) {
    while (atomic_flag_test_and_set_explicit(&books.lock, memory_order_acquire)) {} /* pairs with unlock's release */
}

static void unlock(void) {
    atomic_flag_clear_explicit(&books.lock, memory_order_release); /* pairs with lock's acquire */
}

static unsigned log2_of(uint64_t x) {
    return 63 - (unsigned)__builtin_clzll(x);
}

/* 0 to 1 KB in steps of 8, then eight classes for each doubling. */
static uint32_t class_of(size_t size_bytes) {
    if (size_bytes <= EXACT_STEPS * 8) return (uint32_t)((size_bytes + 7) / 8);
    unsigned k = log2_of(size_bytes - 1);
    uint32_t class_index = EXACT_STEPS + 1 + (k - 10) * 8 + (uint32_t)((size_bytes - 1) >> (k - 3) & 7);
    return class_index < NCLASSES ? class_index : NCLASSES - 1;
}

static size_t size_of(uint32_t class_index) {
    if (class_index <= EXACT_STEPS) return (size_t)class_index * 8;
    uint32_t step = class_index - EXACT_STEPS - 1;
    return ((size_t)(step % 8 + 9)) << (step / 8 + 7);
}

/* The block's entry, or the free one where it would be. */
static struct entry *find(uintptr_t block, bool insert) {
    size_t i = (size_t)((block >> 4) * 0x9e3779b97f4a7c15u >> 20) % TABLE;
    struct entry *reuse = NULL;
    for (size_t n = 0; n < TABLE; n++, i = (i + 1) % TABLE) {
        struct entry *entry = &books.table[i];
        if (entry->block == block) return entry;
        if (entry->block == 1 && !reuse) reuse = entry;
        if (entry->block == 0) return insert ? (reuse ? reuse : entry) : NULL;
    }
    return reuse;
}

static void note_birth(void *block, size_t size_bytes) {
    if (!block) return;
    lock();
    if (!books.table && !books.off) {
        void *table = mmap(NULL, TABLE * sizeof(struct entry), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        books.off = table == MAP_FAILED;
        if (!books.off) books.table = table;
    }
    struct entry *entry = books.off ? NULL : find((uintptr_t)block, true);
    if (entry) *entry = (struct entry){(uintptr_t)block, books.clock++, class_of(size_bytes)};
    unlock();
}

static void note_death(void *block) {
    if (!block) return;
    lock();
    struct entry *entry = books.off || !books.table ? NULL : find((uintptr_t)block, false);
    if (entry && entry->block == (uintptr_t)block) {
        uint64_t life = books.clock - entry->born;
        books.counts[entry->class_index][log2_of(life ? life : 1)]++;
        entry->block = 1;
    }
    unlock();
}

/* ---- the functions that are taken over ---- */

void *malloc(size_t size_bytes) {
    void *block = __libc_malloc(size_bytes);
    note_birth(block, size_bytes);
    return block;
}

void *calloc(size_t n, size_t size_bytes) {
    void *block = __libc_calloc(n, size_bytes);
    note_birth(block, n * size_bytes);
    return block;
}

void *realloc(void *old, size_t size_bytes) {
    note_death(old); /* first: afterwards the address may be another thread's */
    void *block = __libc_realloc(old, size_bytes);
    note_birth(block, size_bytes);
    return block;
}

void free(void *block) {
    note_death(block);
    __libc_free(block);
}

void *memalign(size_t align_bytes, size_t size_bytes) {
    void *block = __libc_memalign(align_bytes, size_bytes);
    note_birth(block, size_bytes);
    return block;
}

void *aligned_alloc(size_t align_bytes, size_t size_bytes) {
    return memalign(align_bytes, size_bytes);
}

int posix_memalign(void **out, size_t align_bytes, size_t size_bytes) {
    void *block = memalign(align_bytes, size_bytes);
    if (!block) return ENOMEM;
    *out = block;
    return 0;
}

/* ---- the report ---- */

static void write_rows(FILE *file, uint64_t total) {
    fprintf(file, "allocations %llu\n", (unsigned long long)total);
    for (uint32_t c = 0; c < NCLASSES; c++) {
        for (int k = 0; k <= NLIVES; k++) {
            uint64_t count = books.counts[c][k];
            if (count == 0 || count * RARE < total) continue;
            fprintf(file, "%zu %d %llu\n", size_of(c), k == NLIVES ? -1 : k, (unsigned long long)count);
        }
    }
}

__attribute__((destructor)) static void report(void) {
    const char *prefix = getenv("FIELD_RECORD");
    char name[512];
    lock();
    bool empty = books.off || !books.table;
    books.off = true;
    unlock();
    if (!prefix || empty) return;
    for (size_t i = 0; i < TABLE; i++) {
        if (books.table[i].block > 1) books.counts[books.table[i].class_index][NLIVES]++;
    }
    snprintf(name, sizeof name, "%s.%d", prefix, (int)getpid());
    FILE *file = fopen(name, "w");
    if (!file) return;
    write_rows(file, books.clock);
    fclose(file);
}
