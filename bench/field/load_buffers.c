/* load_buffers.c - a proxy's buffers: each request takes one of 10 KB to 3 MB, 100 KB on average, fills it, and holds
 * it until 1,000 more requests have come. Then the load falls to 10 buffers, and then to nothing.
 *
 * Three phases, in each of which memory is sampled: `busy` (3,000 requests, then --ms), `quiet` (the same time, a
 * request a millisecond, 10 buffers held), `idle` (--pause milliseconds without a call). Printed: busy_kb, the highest
 * resident size under load; quiet_kb and idle_kb, at the ends of the other two. The time is that of one request under
 * load, with its filling (a word of every 4 KB is written, as a read of the system's would write it all). */
#include "bench/field/load.h"
#include <math.h>
#include <stdio.h>

enum { HELD_BUSY = 1000, HELD_QUIET = 10, ROUND = 16, MIN_BYTES = 10 << 10, MAX_BYTES = 3 << 20, PAGE = 4096 };

struct proxy {
    void **held;
    size_t sizes[HELD_BUSY];
    size_t at, nheld;
    uint64_t live_bytes, most_bytes, random;
};

/* A bounded Pareto distribution; with this exponent its mean is 100 KB. */
static size_t request_bytes(uint64_t *random) {
    const double alpha = 0.73625638, low = MIN_BYTES, high = MAX_BYTES;
    double u = (double)(field_random(random) >> 11) / 9007199254740992.0;
    double part = 1 - u * (1 - pow(low / high, alpha));
    return (size_t)(low / pow(part, 1 / alpha)) & ~(size_t)7;
}

static void drop(ad_thread *thread, struct proxy *p, size_t i) {
    if (AD_FREES && p->held[i]) ad_free(thread, p->held[i]);
    ad_put(thread, p->held, &p->held[i], NULL);
    p->live_bytes -= p->sizes[i];
    p->sizes[i] = 0;
}

static void request(ad_thread *thread, struct proxy *p) {
    size_t size_bytes = request_bytes(&p->random), i = p->at;
    drop(thread, p, i);
    char *buffer = ad_bytes(thread, size_bytes);
    if (!buffer) field_die("no memory for a buffer");
    for (size_t k = 0; k < size_bytes; k += PAGE) buffer[k] = (char)k;
    field_keep(buffer);
    ad_put(thread, p->held, &p->held[i], buffer);
    p->sizes[i] = size_bytes;
    p->live_bytes += size_bytes;
    if (p->live_bytes > p->most_bytes) p->most_bytes = p->live_bytes;
    p->at = (i + 1) % p->nheld;
}

static void buffers_run(ad_thread *thread, const struct params *params, struct result *result) {
    static struct proxy p = {.nheld = HELD_BUSY, .random = 0x9e3779b97f4a7c15u};
    uint64_t busy_ns = (uint64_t)params->time_ms * 1000000u, start, now, n = 0, busy_peak, quiet;
    void **held = ad_refs(thread, HELD_BUSY); /* kept by this frame */
    struct curve curve;
    p.held = held;
    curve_open(&curve, params, 10);
    for (unsigned i = 0; i < 3 * HELD_BUSY; i++) { /* fresh memory and its faults: not measured */
        request(thread, &p);
        curve_sample(&curve, "busy", p.live_bytes);
    }
    start = clock_posix_ns();
    do {
        for (unsigned i = 0; i < ROUND; i++) request(thread, &p);
        curve_sample(&curve, "busy", p.live_bytes);
        now = clock_posix_ns();
        n += ROUND;
    } while (now - start < busy_ns);
    result->ns = (double)(now - start) / (double)n;
    result->nobjects = n;
    result->live_bytes = p.most_bytes;
    busy_peak = memory_peak_bytes();
    for (size_t i = 0; i < HELD_BUSY; i++) drop(thread, &p, i);
    p.nheld = HELD_QUIET;
    p.at = 0;
    for (start = clock_posix_ns(); clock_posix_ns() - start < busy_ns;) {
        request(thread, &p);
        curve_idle(&curve, thread, 1, "quiet", p.live_bytes);
    }
    quiet = memory_now_bytes();
    if (params->pause_ms) curve_idle(&curve, thread, params->pause_ms, "idle", p.live_bytes);
    printf("busy_kb %llu\nquiet_kb %llu\nidle_kb %llu\nheld_kb %llu\n", (unsigned long long)(busy_peak >> 10),
           (unsigned long long)(quiet >> 10), (unsigned long long)(memory_now_bytes() >> 10),
           (unsigned long long)(p.live_bytes >> 10));
    field_keep(held);
    curve_close(&curve);
}

const struct load load_buffers = {"buffers", buffers_run};
