/* load_sawtooth.c - live data that grows to --window bytes and dies all at once, again and again, with --pause
 * milliseconds idle at the top and at the bottom. The figure is the time of one object without the idle time; `faults`
 * is the page faults a second of it: an allocator that hands its pages back at every tooth pays for them here. */
#include "bench/field/load.h"
#include <stdio.h>
#include <sys/resource.h>

enum { FAN = 1024, MIN_BYTES = 16, MAX_BYTES = 1024 };

static uint64_t faults_now(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_minflt : 0;
}

/* A collected tooth is cut off its table, so that a word left on the stack does not keep all of it. */
static void drop(ad_thread *thread, void **top, size_t narrays) {
    for (size_t i = 0; i < narrays; i++) {
        void **array = top[i];
        for (size_t j = 0; AD_FREES && j < FAN; j++) ad_free(thread, array[j]);
        ad_free(thread, array);
        ad_put(thread, top, &top[i], NULL);
    }
    ad_free(thread, top);
}

/* One tooth: arrays of a thousand objects until the live bytes are there; then all of them go. */
static uint64_t tooth(ad_thread *thread, const struct params *params, struct curve *curve, uint64_t *random,
                      uint64_t *idle_ns) {
    size_t narrays = params->window_bytes / (FAN * (MIN_BYTES + MAX_BYTES) / 2) + 1;
    void **top = ad_refs(thread, narrays);
    uint64_t live = 0, start;
    for (size_t i = 0; i < narrays; i++) {
        void **array = ad_refs(thread, FAN);
        ad_put(thread, top, &top[i], array);
        for (size_t j = 0; j < FAN; j++) {
            size_t size_bytes = (MIN_BYTES + field_random(random) % (MAX_BYTES - MIN_BYTES + 1)) & ~(size_t)7;
            uint64_t *obj = params->pointers ? ad_words(thread, size_bytes) : ad_bytes(thread, size_bytes);
            ad_init(thread, obj, obj, NULL);
            ad_init(thread, obj, obj + 1, NULL);
            ad_put(thread, array, &array[j], obj);
            live += size_bytes;
        }
        curve_sample(curve, "growing", live);
    }
    start = clock_posix_ns();
    if (params->pause_ms) curve_idle(curve, thread, params->pause_ms, "top", live);
    *idle_ns += clock_posix_ns() - start;
    drop(thread, top, narrays);
    return (uint64_t)narrays * FAN;
}

static void sawtooth_run(ad_thread *thread, const struct params *params, struct result *result) {
    uint64_t random = 0x9e3779b97f4a7c15u, start, faults, idle_ns = 0, busy_ns, time_ns, n = 0;
    struct curve curve;
    curve_open(&curve, params, 5);
    tooth(thread, params, &curve, &random, &idle_ns); /* the first one meets fresh memory: not measured */
    idle_ns = 0;
    faults = faults_now();
    start = clock_posix_ns();
    time_ns = (uint64_t)params->time_ms * 1000000u;
    do {
        uint64_t before = clock_posix_ns();
        if (params->pause_ms) curve_idle(&curve, thread, params->pause_ms, "bottom", 0);
        idle_ns += clock_posix_ns() - before;
        n += tooth(thread, params, &curve, &random, &idle_ns);
    } while (clock_posix_ns() - start < time_ns);
    busy_ns = clock_posix_ns() - start - idle_ns;
    faults = faults_now() - faults;
    result->ns = (double)busy_ns / (double)n;
    result->nobjects = n;
    result->live_bytes = params->window_bytes + params->window_bytes / ((MIN_BYTES + MAX_BYTES) / 2) * sizeof(void *);
    printf("faults %.0f\nteeth %llu\n", (double)faults * 1e9 / (double)(clock_posix_ns() - start),
           (unsigned long long)(n / ((params->window_bytes / (FAN * (MIN_BYTES + MAX_BYTES) / 2) + 1) * FAN)));
    curve_close(&curve);
}

const struct load load_sawtooth = {"sawtooth", sawtooth_run};
