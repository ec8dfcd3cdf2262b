/* load_limit.c - no allocator at all: a bump through a window of 8 KiB spans, two words written to each object, each
 * span zeroed first or not. What an allocator that never reuses a slot early can reach at most on this machine; the
 * window stands for the memory that it walks through between two collections. */
#include "bench/field/load.h"
#include <stdlib.h>
#include <string.h>

enum { SPAN_BYTES = 8192 };

struct limit_state {
    char *window;
    size_t window_bytes, at_bytes, size_bytes;
    bool zero;
};

/* One span, or one object where that is larger. */
static uint64_t limit_batch(ad_thread *thread, void *arg) {
    struct limit_state *s = arg;
    size_t size = s->size_bytes, step = size > SPAN_BYTES ? size : SPAN_BYTES;
    uint64_t done = 0;
    (void)thread;
    for (int k = 0; k < 64; k++) {
        char *span = s->window + s->at_bytes;
        if (s->zero) memset(span, 0, step);
        for (char *obj = span; obj + size <= span + step; obj += size, done++) {
            ((uint64_t *)obj)[0] = done;
            ((uint64_t *)obj)[1] = done;
            field_keep(obj);
        }
        s->at_bytes += step;
        if (s->at_bytes + step > s->window_bytes) s->at_bytes = 0;
    }
    return done;
}

static void limit_run(ad_thread *thread, const struct params *params, struct result *result) {
    struct limit_state states[FIELD_THREADS];
    struct timed timed = {.batch = limit_batch};
    if (params->size_bytes < 16 || params->window_bytes < 2 * params->size_bytes) field_die("--size, --window");
    for (unsigned i = 0; i < params->nthreads; i++) {
        states[i] = (struct limit_state){.window_bytes = params->window_bytes,
                                         .size_bytes = params->size_bytes,
                                         .zero = params->zero,
                                         .window = aligned_alloc(SPAN_BYTES, params->window_bytes)};
        if (!states[i].window) field_die("no memory for the window");
        memset(states[i].window, 1, params->window_bytes);
        timed.states[i] = &states[i];
    }
    load_timed(thread, params, &timed, result);
    result->live_bytes = params->nthreads * params->window_bytes;
    for (unsigned i = 0; i < params->nthreads; i++) free(states[i].window);
}

const struct load load_limit = {"limit", limit_run};
