/* load_fragment.c - a heap of mixed sizes of which nine tenths die: how much memory stays resident.
 *
 * --window bytes of objects of 16 to 2,048 bytes (as many small as large: the logarithm is uniform); then 90 % of them
 * are dropped in random order, or, with --block, the youngest 90 %, as after a peak; then nothing happens for --pause
 * milliseconds. With --collect a collection is asked for before that; without, it is the library that has to notice.
 * Printed: died_kb, resident a second after the deaths (sooner where --pause is shorter); idle_kb, at the end of the
 * idle time; trimmed_kb, after a call that asks for the memory to be returned; survivors_kb, the live size then, with
 * the index of references; pages_kb, the pages of 4 KB that a survivor lies in, below which no allocator gets that
 * does not move objects. */
#include "bench/field/load.h"
#include <stdio.h>
#include <stdlib.h>

enum { FAN = 1024, DIE_OF_10 = 9, PAGE = 4096 };

struct fragment {
    void **top; /* arrays of FAN references */
    uint16_t *sizes;
    size_t n;
    uint64_t live_bytes;
};

/* 16 to 2,048 bytes: a power of two, then a part of it. */
static size_t random_size(uint64_t *random) {
    uint64_t r = field_random(random);
    size_t low = (size_t)16 << ((r >> 8) % 7);
    return (low + (r >> 16) % low) & ~(size_t)7;
}

static void **slot_of(const struct fragment *f, size_t i, void ***array) {
    *array = f->top[i / FAN];
    return &(*array)[i % FAN];
}

static void build(ad_thread *thread, const struct params *params, struct fragment *f, struct curve *curve,
                  uint64_t *random) {
    size_t max = params->window_bytes / 16;
    f->sizes = malloc(max * sizeof f->sizes[0]); /* the load's own; written as far as it is used */
    f->top = ad_refs(thread, max / FAN + 1);
    if (!f->sizes || !f->top) field_die("no memory");
    while (f->live_bytes < params->window_bytes) {
        void **array;
        size_t size_bytes = random_size(random);
        if (f->n % FAN == 0) {
            ad_put(thread, f->top, &f->top[f->n / FAN], ad_refs(thread, FAN));
            f->live_bytes += FAN * sizeof(void *);
        }
        void **slot = slot_of(f, f->n, &array);
        uint64_t *obj = params->pointers ? ad_words(thread, size_bytes) : ad_bytes(thread, size_bytes);
        for (size_t k = 0; k < size_bytes / 8; k++) ad_init(thread, obj, &obj[k], NULL); /* all of it is in use */
        ad_put(thread, array, slot, obj);
        f->sizes[f->n++] = (uint16_t)size_bytes;
        f->live_bytes += size_bytes;
        curve_sample(curve, "growing", f->live_bytes);
    }
}

static void kill_most(ad_thread *thread, struct fragment *f, bool block, struct curve *curve, uint64_t *random) {
    uint32_t *order = malloc(f->n * sizeof order[0]);
    if (!order) field_die("no memory");
    for (size_t i = 0; i < f->n; i++) order[i] = (uint32_t)(f->n - 1 - i); /* the youngest first */
    for (size_t i = f->n - 1; i > 0 && !block; i--) {
        size_t j = (size_t)(field_random(random) % (i + 1));
        uint32_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    for (size_t i = 0; i < f->n / 10 * DIE_OF_10; i++) {
        void **array, **slot = slot_of(f, order[i], &array);
        if (AD_FREES) ad_free(thread, *slot);
        ad_put(thread, array, slot, NULL);
        f->live_bytes -= f->sizes[order[i]];
        if (i % 256 == 0) {
            ad_poll(thread);
            curve_sample(curve, "dying", f->live_bytes);
        }
    }
    free(order);
}

static int by_number(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

/* Bytes of the pages in which something lives. */
static uint64_t pages_in_use(const struct fragment *f) {
    uintptr_t *pages = malloc((f->n / 10 + FAN) * 4 * sizeof pages[0]);
    size_t n = 0, distinct = 0;
    if (!pages) field_die("no memory");
    for (size_t i = 0; i < f->n; i++) {
        void **array, **slot = slot_of(f, i, &array);
        uintptr_t first = (uintptr_t)*slot / PAGE, last = ((uintptr_t)*slot + f->sizes[i] - 1) / PAGE;
        if (i % FAN == 0) {
            for (size_t k = 0; k < FAN * sizeof(void *); k += PAGE) pages[n++] = ((uintptr_t)array + k) / PAGE;
        }
        if (!*slot) continue;
        pages[n++] = first;
        if (last != first) pages[n++] = last;
    }
    qsort(pages, n, sizeof pages[0], by_number);
    for (size_t i = 0; i < n; i++) distinct += i == 0 || pages[i] != pages[i - 1];
    free(pages);
    return (uint64_t)distinct * PAGE;
}

static void fragment_run(ad_thread *thread, const struct params *params, struct result *result) {
    uint64_t random = 0x9e3779b97f4a7c15u, died, idle, start = clock_posix_ns();
    struct fragment f = {0};
    struct curve curve;
    curve_open(&curve, params, 10);
    build(thread, params, &f, &curve, &random);
    result->live_bytes = f.live_bytes;
    result->nobjects = f.n;
    result->ns = (double)(clock_posix_ns() - start) / (double)f.n;
    uint64_t peak = memory_peak_bytes();
    kill_most(thread, &f, params->block, &curve, &random);
    if (params->collect) ad_collect(thread);
    unsigned second_ms = params->pause_ms < 1000 ? params->pause_ms : 1000;
    curve_idle(&curve, thread, second_ms, "idle", f.live_bytes);
    died = memory_now_bytes();
    curve_idle(&curve, thread, params->pause_ms - second_ms, "idle", f.live_bytes);
    idle = memory_now_bytes();
    ad_trim(thread);
    curve_idle(&curve, thread, 100, "trimmed", f.live_bytes);
    printf("built_kb %llu\nsurvivors_kb %llu\n", (unsigned long long)(peak >> 10),
           (unsigned long long)(f.live_bytes >> 10));
    printf("died_kb %llu\nidle_kb %llu\ntrimmed_kb %llu\n", (unsigned long long)(died >> 10),
           (unsigned long long)(idle >> 10), (unsigned long long)(memory_now_bytes() >> 10));
    printf("pages_kb %llu\n", (unsigned long long)(pages_in_use(&f) >> 10));
    field_keep(f.top);
    free(f.sizes);
    curve_close(&curve);
}

const struct load load_fragment = {"fragment", fragment_run};
