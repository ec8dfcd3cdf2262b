/* populate.c - touches a heap's memory before a workload does, so that what is measured is the collector without the
 * system's page faults.
 *
 * It looks inside the library, like metadata.c and nothing else here: there is no public call for this, since no
 * program should want it. It makes the first bytes of the heap's range writable, as the page heap will do again when it
 * comes there, and writes to each page of them and of the side tables that belong to them. What it writes is what is
 * there.
 *
 * It holds as long as nothing goes back to the system: the worker says so when something did. */
#include "bench/populate.h"

#include <sys/mman.h>

#include "alloc/base/bits.h"
#include "gc/heap.h"

/* Every page of the range is written to; false where the system refuses. */
static bool touch(void *start, size_t size_bytes) {
    size_t page = tri__os_page_size();
    char *from = (char *)align_down((uintptr_t)start, page);
    char *to = (char *)align_up((uintptr_t)start + size_bytes, page);
    if (mprotect(from, (size_t)(to - from), PROT_READ | PROT_WRITE) != 0) return false;
    for (char *p = from; p < to; p += page) __atomic_fetch_or(p, 0, __ATOMIC_RELAXED); /* writes, and changes nothing */
    return true;
}

size_t bench_populate(tri_heap *heap, size_t size_bytes) {
    const struct space *space = &heap->mem.space;
    size_t npages = min_size(size_bytes >> PAGE_SHIFT, space->npages);
    bool done = touch((void *)space->base, npages << PAGE_SHIFT) &&
                touch(space->pages, npages * sizeof *space->pages) &&
                touch(space->spans, npages * sizeof *space->spans) &&
                touch(space->marks, npages * PAGE_BIT_WORDS * sizeof *space->marks) &&
                touch(space->allocs, npages * PAGE_BIT_WORDS * sizeof *space->allocs) &&
                touch(space->layouts, npages * (PAGE_BYTES >> LAYOUT_SHIFT) * sizeof *space->layouts);
    return done ? npages << PAGE_SHIFT : 0;
}
