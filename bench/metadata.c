/* metadata.c - how much of a heap's metadata is resident: the side tables by /proc/self/smaps, the rest as counted.
 *
 * Looks inside the library, as populate.c does: where the tables lie is nobody else's business. A table's committed
 * part is a mapping of its own, so a mapping counts if it begins within the table. Called at the end of a run, when
 * nothing of the tables has been given back unless the heap has idled: what is resident then is what the peak needed.
 */
#include "bench/metadata.h"

#include <stdio.h>
#include <string.h>

#include "alloc/base/bits.h"
#include "gc/heap.h"

enum { NTABLES = 5 };

struct table {
    uintptr_t start;
    size_t size_bytes;
};

static void tables_of(const struct space *space, struct table tables[NTABLES]) {
    const struct table found[NTABLES] = {
        {(uintptr_t)space->pages, space->npages * sizeof *space->pages},
        {(uintptr_t)space->spans, space->npages * sizeof *space->spans},
        {(uintptr_t)space->marks, space->npages * PAGE_BIT_WORDS * sizeof *space->marks},
        {(uintptr_t)space->allocs, space->npages * PAGE_BIT_WORDS * sizeof *space->allocs},
        {(uintptr_t)space->layouts, space->npages * (PAGE_BYTES >> LAYOUT_SHIFT) * sizeof *space->layouts},
    };
    memcpy(tables, found, sizeof found);
}

static bool is_in(const struct table tables[NTABLES], uintptr_t address) {
    bool in = false;
    for (int i = 0; i < NTABLES; i++) in |= address - tables[i].start < tables[i].size_bytes;
    return in;
}

static size_t resident_kb(const struct table tables[NTABLES]) {
    char line[512];
    unsigned long long from, to, kb;
    size_t total = 0;
    bool in = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
            in = is_in(tables, (uintptr_t)from);
        else if (in && sscanf(line, "Rss: %llu", &kb) == 1)
            total += (size_t)kb;
    }
    if (file) fclose(file);
    return total;
}

static size_t peak_kb(void) {
    char line[256];
    unsigned long kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lu", &kb) == 1) break;
    if (file) fclose(file);
    return kb;
}

void bench_metadata_print(tri_heap *heap) {
    struct table tables[NTABLES];
    tri_stats stats = {.struct_size = sizeof stats};
    if (tri_stats_get(heap, &stats) != TRI_OK) return;
    tables_of(&heap->mem.space, tables);
    size_t counted = tri__space_metadata_bytes(&heap->mem.space);
    size_t resident = resident_kb(tables) + ((stats.metadata_bytes - min_size(counted, stats.metadata_bytes)) >> 10);
    printf("metadata_kb %zu\nmetadata_resident_kb %zu\nmetadata_percent %.2f\n", stats.metadata_bytes >> 10, resident,
           100.0 * (double)resident / (double)max_size(peak_kb(), 1));
}
