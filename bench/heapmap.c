/* heapmap.c - looks at the heap every few milliseconds from a thread of its own, into a file.
 *
 * Each look is a line "@ <milliseconds> <live bytes> <bytes in use> <resident bytes of the process>" and what
 * tri_dump_heap_map writes. bench/heapmap_read.c makes the picture's data of it. Looking takes time and locks of the
 * heap: no row of the table is measured meanwhile. */
#include "bench/heapmap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/clock.h"

struct watch {
    tri_heap *heap;
    int fd;
    unsigned every_ms;
    uint64_t start_ns;
    pthread_t thread;
    int stop; /* [atomic, relaxed] nothing else is handed over by it */
};
static struct watch watch;

/* The second number of statm, in pages; 0 where it cannot be read. */
static size_t resident_bytes(void) {
    char text[128];
    unsigned long long size, resident;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = '\0';
    return sscanf(text, "%llu %llu", &size, &resident) == 2 ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

static void look(const struct watch *w) {
    tri_stats stats = {.struct_size = sizeof stats};
    double ms = (double)(clock_posix_ns() - w->start_ns) / 1e6;
    if (tri_stats_get(w->heap, &stats) != TRI_OK) return;
    dprintf(w->fd, "@ %.3f %zu %zu %zu\n", ms, stats.live_bytes, stats.heap_bytes, resident_bytes());
    if (tri_dump_heap_map(w->heap, w->fd) != TRI_OK) fprintf(stderr, "%s\n", tri_last_error());
}

static void *watch_run(void *arg) {
    struct watch *w = arg;
    struct timespec pause = {w->every_ms / 1000, (long)(w->every_ms % 1000) * 1000000};
    while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
        look(w);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

bool heapmap_start(tri_heap *heap, const char *path, unsigned every_ms) {
    watch = (struct watch){.heap = heap, .every_ms = every_ms, .start_ns = clock_posix_ns()};
    watch.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (watch.fd < 0) {
        fprintf(stderr, "%s cannot be written: %s\n", path, strerror(errno));
        return false;
    }
    int error = pthread_create(&watch.thread, NULL, watch_run, &watch);
    if (error == 0) return true;
    fprintf(stderr, "no thread to look at the heap: %s\n", strerror(error));
    close(watch.fd);
    return false;
}

void heapmap_stop(void) {
    __atomic_store_n(&watch.stop, 1, __ATOMIC_RELAXED);
    pthread_join(watch.thread, NULL);
    look(&watch);
    close(watch.fd);
}
