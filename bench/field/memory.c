/* memory.c - resident memory of the process, now and at its highest, and curves of it over time.
 *
 * VmHWM is read, not ru_maxrss: the latter is inherited across exec, so that a small program started by a large one
 * would show its parent's. */
#include "bench/field/load.h"
#include <stdlib.h>
#include <string.h>

static uint64_t status_bytes(const char *key) {
    char line[256];
    unsigned long long kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            kb = strtoull(line + strlen(key), NULL, 10);
            break;
        }
    }
    fclose(file);
    return kb * 1024;
}

uint64_t memory_now_bytes(void) {
    return status_bytes("VmRSS:");
}

uint64_t memory_peak_bytes(void) {
    return status_bytes("VmHWM:");
}

/* ---- curves ---- */

void curve_open(struct curve *curve, const struct params *params, unsigned every_ms) {
    *curve = (struct curve){.start_ns = clock_posix_ns(), .every_ms = every_ms};
    if (!params->curve) return;
    curve->file = fopen(params->curve, "w");
    if (!curve->file) field_die("--curve cannot be written");
    fprintf(curve->file, "seconds,phase,live_mb,resident_mb\n");
}

void curve_sample(struct curve *curve, const char *phase, uint64_t live_bytes) {
    uint64_t now = clock_posix_ns();
    bool is_new = phase != curve->last_phase;
    if (!curve->file || (!is_new && now - curve->last_ns < (uint64_t)curve->every_ms * 1000000u)) return;
    curve->last_ns = now;
    curve->last_phase = phase;
    fprintf(curve->file, "%.3f,%s,%.2f,%.2f\n", (double)(now - curve->start_ns) / 1e9, phase,
            (double)live_bytes / (1 << 20), (double)memory_now_bytes() / (1 << 20));
}

void curve_close(struct curve *curve) {
    if (curve->file) fclose(curve->file);
    curve->file = NULL;
}

struct idle {
    struct curve *curve;
    const char *phase;
    uint64_t live_bytes;
    unsigned ms;
};

static void *idle_main(void *arg) {
    struct idle *idle = arg;
    uint64_t end = clock_posix_ns() + (uint64_t)idle->ms * 1000000u;
    while (clock_posix_ns() < end) {
        struct timespec nap = {.tv_nsec = 10000000};
        nanosleep(&nap, NULL);
        curve_sample(idle->curve, idle->phase, idle->live_bytes);
    }
    return NULL;
}

void curve_idle(struct curve *curve, ad_thread *thread, unsigned ms, const char *phase, uint64_t live_bytes) {
    struct idle idle = {curve, phase, live_bytes, ms};
    ad_wait(thread, idle_main, &idle);
}
