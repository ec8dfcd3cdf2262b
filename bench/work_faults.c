/* work_faults.c - no collector at all: fresh memory, each of its pages written to once.
 *
 * Memory that a program has not touched yet costs a page fault at its first write, which the system serves by finding
 * and clearing a page. That is in every collector's rows, and in malloc's; this workload is the part of it that the
 * machine has by itself. The range grows as a heap does: reserved at once, made writable 64 MB at a time. An operation
 * is the first write to a page. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/workload.h"

enum { STEP_BYTES = 64 << 20 };

static uint64_t page_bytes(void) {
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t faults_total(const struct work *work) {
    return work->live_bytes / page_bytes();
}

static uint64_t faults_run(ad_thread *thread, struct work *work) {
    struct probe *probe = &work->probes[0];
    uint64_t page = page_bytes(), size_bytes = faults_total(work) * page, sum = 0;
    (void)thread; /* NULL: there is no heap */
    char *range = mmap(NULL, size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) ad_no_memory(size_bytes);
    probe_start(probe);
    for (uint64_t at = 0; at < size_bytes; at += page) {
        uint64_t left = size_bytes - at, step = left < STEP_BYTES ? left : STEP_BYTES;
        if (at % STEP_BYTES == 0 && mprotect(range + at, step, PROT_READ | PROT_WRITE) != 0) ad_no_memory(step);
        *(volatile char *)(range + at) = 1;
        probe_op(probe, 1);
    }
    for (uint64_t at = 0; at < size_bytes; at += page) sum += (uint64_t)range[at];
    munmap(range, size_bytes);
    return sum;
}

const struct workload workload_faults = {"faults", faults_total, faults_run, false, false};
