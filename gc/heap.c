/* heap.c - creating, configuring and destroying a heap: the assembly of heap.h's parts.
 *
 * Several heaps live in one process and share nothing but the table of types (type.h), which has no lock.
 *
 * Invariants: I-HEAP1 (R20) a heap is destroyed only when no thread is attached. */
#include "gc/heap.h"
#include "gc/mode.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/base/pressure.h"
#include "gc/error.h"
#include "gc/fork.h"

enum { IDLE_TRIM_MS = 5000, CONFIG_FIRST_BYTES = offsetof(tri_config, idle_trim_ms) }; /* the first header's size */
enum { MIN_GROWTH = 5, MAX_GROWTH = 100000 };
enum { MIN_HEAP_BYTES = 4 << 20, MIN_LIMIT_BYTES = 64 * PAGE_BYTES, RESERVE_UNIT = CHUNK_PAGES << PAGE_SHIFT };
static const size_t MAX_RESERVE_BYTES = (size_t)1 << 40;

void tri_config_init(tri_config *config) {
    if (!config) return;
    *config = (tri_config){.struct_size = sizeof *config,
                           .min_heap_bytes = MIN_HEAP_BYTES,
                           .growth_percent = 60,
                           .silent_after_ms = 1000,
                           .wait_limit_ms = 10000,
                           .idle_trim_ms = IDLE_TRIM_MS,
                           .workers = tri__workers_default(),
                           .cpu_percent = 100};
}

/* The least of 1 TiB, 16 x the machine's memory and a quarter of RLIMIT_AS. */
static size_t default_reserve(void) {
    size_t memory = tri__os_memory_bytes(), limit = tri__os_address_limit_bytes();
    size_t reserve = memory > MAX_RESERVE_BYTES / 16 ? MAX_RESERVE_BYTES : memory * 16;
    reserve = min_size(reserve, limit / 4);
    reserve = reserve < ARENA_BYTES ? align_down(reserve, RESERVE_UNIT) : align_down(reserve, ARENA_BYTES);
    return max_size(reserve, RESERVE_UNIT);
}

static void hook_zeroing(void *context, void *mutator, size_t done_bytes) {
    struct mutator *m = mutator;
    uint32_t *unforkable = &m->os->unforkable;
    (void)done_bytes;
    tri__stats_pause(context, TRI_PAUSE_ZERO, tri__os_now_ns() - m->piece_ns);
    unforkable_leave(&unforkable);
    safepoint_poll(m);
    unforkable_enter(unforkable);
    m->piece_ns = tri__os_now_ns();
}

static void hook_limit_near(void *context) {
    tri__scavenger_limit_near(context);
}

static void hook_grows(void *context) {
    tri__scavenger_grows(context);
}

static void hook_manual_moves(void *context) {
    tri_heap *heap = context;
    scavenger_note_allocation(heap, &heap->scavenger);
}

static void hook_swept(void *context, uint64_t ns) {
    tri__stats_pause(context, TRI_PAUSE_SWEEP, ns);
}

#if TRI_CHECKS >= 1
static void hook_delay(void *context) {
    tri__stress_delay(context);
}
#define HOOK_DELAY hook_delay
#else
#define HOOK_DELAY NULL
#endif

static int check_config(const tri_config *c) {
    if (c->struct_size < CONFIG_FIRST_BYTES || c->struct_size > sizeof *c)
        return tri__error(TRI_EINVAL, "tri_heap_create", "config.struct_size is not set; call tri_config_init first");
    if (c->flags & ~(uint32_t)(TRI_HEAP_PRECISE | TRI_HEAP_NO_CYCLES | TRI_HEAP_UNIQUE_ZERO | TRI_HEAP_TINY |
                               TRI_HEAP_POPULATE | TRI_HEAP_EVENTS | TRI_HEAP_RUN_CLEANUPS))
        return tri__error(TRI_EINVAL, "tri_heap_create", "unknown flags 0x%x", c->flags);
    if (c->growth_percent < MIN_GROWTH || c->growth_percent > MAX_GROWTH)
        return tri__error(TRI_EINVAL, "tri_heap_create", "growth_percent %u is not in %d..%d", c->growth_percent,
                          MIN_GROWTH, MAX_GROWTH);
    if (c->wait_limit_ms == 0)
        return tri__error(TRI_EINVAL, "tri_heap_create",
                          "wait_limit_ms is 0; UINT64_MAX waits for as long as it takes");
    if (c->reserve_bytes && c->reserve_bytes < RESERVE_UNIT)
        return tri__error(TRI_EINVAL, "tri_heap_create", "reserve_bytes %zu is less than %d", c->reserve_bytes,
                          RESERVE_UNIT);
    if (c->struct_size >= offsetof(tri_config, workers) + sizeof c->workers && c->workers > MAX_WORKERS)
        return tri__error(TRI_EINVAL, "tri_heap_create", "%u workers are more than %d", c->workers, MAX_WORKERS);
    if (c->struct_size >= offsetof(tri_config, cpu_percent) + sizeof c->cpu_percent &&
        (c->cpu_percent < 1 || c->cpu_percent > 100))
        return tri__error(TRI_EINVAL, "tri_heap_create", "cpu_percent %u is not in 1..100", c->cpu_percent);
    if (c->hard_limit_bytes && c->hard_limit_bytes < MIN_LIMIT_BYTES)
        return tri__error(TRI_EINVAL, "tri_heap_create", "hard_limit_bytes %zu is less than %d", c->hard_limit_bytes,
                          MIN_LIMIT_BYTES);
    return TRI_OK;
}

/* Reserves what was asked for; half of it, and again half, while the system refuses a default. */
static bool init_memory(tri_heap *heap) {
    size_t asked = heap->config.reserve_bytes, reserve = asked ? align_up(asked, RESERVE_UNIT) : default_reserve();
    struct alloc_hooks hooks = {.swept_on_demand = hook_swept,
                                .zeroing = hook_zeroing,
                                .limit_near = hook_limit_near,
                                .grows = hook_grows,
                                .manual_moves = hook_manual_moves,
                                .delay = HOOK_DELAY,
                                .context = heap};
    while (!tri__memory_init(&heap->mem, reserve, &hooks)) {
        if (asked || reserve <= RESERVE_UNIT) return false;
        reserve = align_down(reserve / 2, RESERVE_UNIT);
    }
    size_t limit = heap->config.hard_limit_bytes >> PAGE_SHIFT;
    if (limit && limit < heap->mem.limit_pages) heap->mem.limit_pages = limit;
    return true;
}

static void init_parts(tri_heap *heap) {
    tri__lock_init(&heap->threads_lock, RANK_THREADS, "threads");
    tri__lock_init(&heap->left_lock, RANK_OSTHREAD, "left attachments");
    tri__lock_init(&heap->cycle_lock, RANK_CYCLE, "cycle");
    tri__cond_init(&heap->cycle_wanted);
    tri__cond_init(&heap->cycle_done);
    tri__roots_init(heap);
    tri__death_init(heap);
    tri__copies_init(heap);
    tri__fixalloc_init(&heap->fix_mutator, sizeof(struct mutator), "attachments", NULL, NULL);
    tri__fixalloc_init(&heap->fix_small, 128, "stacks and ranges", NULL, NULL);
    tri__fixalloc_init(&heap->fix_block, sizeof(struct handle_block), "handle blocks", NULL, NULL);
    tri__fixalloc_init(&heap->fix_worker, sizeof(struct mark_worker), "marking threads", NULL, NULL);
    tri__marker_init(&heap->worker, heap, &heap->page_set);
    heap_use_cpus(heap, tri__os_ncpus());
    heap->cache_bytes = tri__os_cache_bytes();
    heap->here_trigger_bytes = SIZE_MAX;
    tri__pace_init(heap);
    heap->created_ns = tri__os_now_ns();
}

static void fini_parts(tri_heap *heap) {
    tri__fixalloc_fini(&heap->fix_mutator);
    tri__fixalloc_fini(&heap->fix_small);
    tri__fixalloc_fini(&heap->fix_block);
    tri__fixalloc_fini(&heap->fix_worker);
    tri__roots_fini(heap);
    tri__death_fini(heap);
    tri__copies_fini(heap);
    tri__work_fini(&heap->work);
    tri__cond_fini(&heap->cycle_wanted);
    tri__cond_fini(&heap->cycle_done);
    tri__lock_fini(&heap->cycle_lock);
    tri__lock_fini(&heap->pace_lock);
    tri__lock_fini(&heap->threads_lock);
    tri__lock_fini(&heap->left_lock);
    if (heap->cold_bytes) tri__os_release(heap->cold_bytes, MAX_LAYOUTS * sizeof(uint32_t));
    tri__memory_fini(&heap->mem);
    free(heap);
}

static int set_option(tri_heap *heap, const char *key_equals_value);

/* TRI_OPTIONS="key=value,...": what is refused is reported, and the heap is made all the same. */
static void apply_environment(tri_heap *heap) {
    const char *trace = getenv("TRI_TRACE");
    heap->trace = trace && strcmp(trace, "1") == 0;
    const char *options = getenv("TRI_OPTIONS");
    while (options && *options) {
        char item[128];
        size_t n = strcspn(options, ",");
        if (n < sizeof item) {
            memcpy(item, options, n);
            item[n] = '\0';
            if (n && set_option(heap, item) != TRI_OK) tri__report(heap, "TRI_OPTIONS", "%s is refused", item);
        } else {
            tri__report(heap, "TRI_OPTIONS", "\"%.40s...\" is refused: it is too long for an option", options);
        }
        options += n + (options[n] == ',');
    }
}

int tri_heap_create_abi(const tri_config *config, uint32_t abi, tri_heap **out) {
    if (!out) return tri__error(TRI_EINVAL, "tri_heap_create", "out is NULL");
    *out = NULL;
    if (tri__callback_calls(NULL, "tri_heap_create")) return TRI_ESTATE;
    IN_CALL("tri_heap_create");
    if (abi != TRI_ABI)
        return tri__error(TRI_EABI, "tri_heap_create",
                          "the program was compiled against ABI %u of trigc.h, the library has %u; rebuild it", abi,
                          TRI_ABI);
    tri_config defaults;
    tri_config_init(&defaults);
    if (!config) config = &defaults;
    int err = check_config(config);
    if (err != TRI_OK) return err;
    tri_heap *heap = calloc(1, sizeof *heap);
    if (!heap) return tri__error(TRI_ENOMEM, "tri_heap_create", "no memory for the heap's record");
    heap->config = defaults;
    memcpy(&heap->config, config, config->struct_size); /* what an older header does not have keeps its default */
    if (!init_memory(heap)) {
        free(heap);
        return tri__error(TRI_ENOMEM, "tri_heap_create",
                          "the system refuses the address space; set reserve_bytes lower, or raise RLIMIT_AS");
    }
    heap->cold_bytes = tri__os_map(MAX_LAYOUTS * sizeof(uint32_t));
    bool ok = tri__work_init(&heap->work) && heap->cold_bytes;
    init_parts(heap);
    apply_environment(heap);
    heap->threadless = heap->config.workers == 0;
    heap->stepped |= heap->threadless;
    if (!ok || !tri__collector_start(heap)) {
        fini_parts(heap);
        return tri__error(TRI_ENOMEM, "tri_heap_create", "the system refuses memory or a thread for the collector");
    }
    tri__scavenger_start(heap);
    tri__stress_delay(heap); /* its threads run */
    tri__fork_add_heap(heap);
    heap->made = true;
    *out = heap;
    return TRI_OK;
}

int tri_heap_destroy(tri_heap *heap) {
    if (!heap) return tri__error(TRI_EINVAL, "tri_heap_destroy", "heap is NULL");
    if (tri__callback_calls(heap, "tri_heap_destroy")) return TRI_ESTATE;
    IN_CALL("tri_heap_destroy");
    tri__lock_acquire(&heap->threads_lock);
    uint32_t n = heap->nthreads;
    tri__lock_release(&heap->threads_lock);
    if (n) /* I-HEAP1 */
        return tri__error(TRI_EBUSY, "tri_heap_destroy",
                          "%u threads are still attached; each must call tri_detach or end", n);
    int cancels;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancels); /* it joins threads: half of a heap could not be ended */
    tri__fork_remove_heap(heap);
    tri__stress_delay(heap); /* a cycle may be anywhere */
    tri__collector_stop(heap);
    tri__workers_stop(heap);
    tri__scavenger_stop(heap); /* the collector tells it of cycles */
    tri__fork_settle(heap);
    if (atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_RUN_CLEANUPS) tri__watch_run_all(heap); /* an option */
    fini_parts(heap);
    pthread_setcancelstate(cancels, NULL);
    return TRI_OK;
}

static bool parse_size(const char *text, size_t *out) {
    char *end;
    if (*text < '0' || *text > '9') return false;
    unsigned long long v = strtoull(text, &end, 10);
    unsigned shift = *end == 'k' || *end == 'K'   ? 10
                     : *end == 'm' || *end == 'M' ? 20
                     : *end == 'g' || *end == 'G' ? 30
                                                  : 0;
    if (shift) end++;
    if (*end || v > SIZE_MAX >> shift) return false;
    *out = (size_t)v << shift;
    return true;
}

/* Options with two values: the one under which the flag is set, and the other. */
static const struct switch_option {
    const char *key, *set, *clear;
    uint32_t flag;
} switch_options[] = {{"cycles", "off", "on", TRI_HEAP_NO_CYCLES},
                      {"tiny", "on", "off", TRI_HEAP_TINY},
                      {"populate", "on", "off", TRI_HEAP_POPULATE},
                      {"events", "on", "off", TRI_HEAP_EVENTS},
                      {"zero_size", "unique", "fixed", TRI_HEAP_UNIQUE_ZERO}};

/* True if the key is one of theirs; *err is then the result. */
static bool set_switch(tri_heap *heap, const char *key, const char *value, int *err) {
    for (size_t i = 0; i < sizeof switch_options / sizeof switch_options[0]; i++) {
        const struct switch_option *o = &switch_options[i];
        if (strcmp(key, o->key) != 0) continue;
        *err = TRI_OK; /* options: order nothing */
        if (strcmp(value, o->set) == 0)
            atomic_or_relaxed(&heap->config.flags, o->flag);
        else if (strcmp(value, o->clear) == 0)
            atomic_and_relaxed(&heap->config.flags, ~o->flag);
        else
            *err = tri__error(TRI_EINVAL, "tri_heap_set", "%s is %s or %s, not %s", key, o->clear, o->set, value);
        return true;
    }
    return false;
}

static int set_huge(tri_heap *heap, const char *value) {
    bool on = strcmp(value, "on") == 0;
    if (!on && strcmp(value, "off") != 0)
        return tri__error(TRI_EINVAL, "tri_heap_set", "metadata_huge is on or off, not %s", value);
    if (!tri__space_huge_tables(&heap->mem.space, on))
        return tri__error(TRI_ENOMEM, "tri_heap_set", "the system has no huge pages for metadata_huge");
    return TRI_OK;
}

static int set_workers(tri_heap *heap, size_t n) {
    if (n > MAX_WORKERS) return tri__error(TRI_EINVAL, "tri_heap_set", "%zu workers are more than %d", n, MAX_WORKERS);
    if (heap->made && (n == 0) != heap->threadless)
        return tri__error(TRI_ESTATE, "tri_heap_set", "the heap was made %s, which stays so; set config.workers",
                          heap->threadless ? "without workers" : "with workers");
    atomic_store_relaxed(&heap->config.workers, (uint32_t)n); /* an option */
    return TRI_OK;
}

static int out_of_range(const char *key, size_t value, size_t least, size_t most) {
    return tri__error(TRI_EINVAL, "tri_heap_set", "%s: %zu is not in %zu..%zu", key, value, least, most);
}

/* The options that are numbers; *is_pace: the goal depends on it. */
static int set_number(tri_heap *heap, const char *key, size_t size, bool *is_pace) {
    size_t npages = heap->mem.space.npages;
    size_t length = strlen(key);
    *is_pace = length < 3 || strcmp(key + length - 3, "_ms") != 0;
    if (strcmp(key, "growth_percent") == 0) { /* options: order nothing, but for the pace lock that comes after */
        if (size < MIN_GROWTH || size > MAX_GROWTH) return out_of_range(key, size, MIN_GROWTH, MAX_GROWTH);
        atomic_store_relaxed(&heap->config.growth_percent, (uint32_t)size);
    } else if (strcmp(key, "cpu_percent") == 0) {
        if (size < 1 || size > 100) return out_of_range(key, size, 1, 100);
        atomic_store_relaxed(&heap->config.cpu_percent, (uint32_t)size);
    } else if (strcmp(key, "soft_limit_bytes") == 0) {
        atomic_store_relaxed(&heap->config.soft_limit_bytes, size);
    } else if (strcmp(key, "min_heap_bytes") == 0) {
        atomic_store_relaxed(&heap->config.min_heap_bytes, size);
    } else if (strcmp(key, "hard_limit_bytes") == 0) {
        if (size && size < MIN_LIMIT_BYTES) return out_of_range(key, size, MIN_LIMIT_BYTES, SIZE_MAX);
        atomic_store_relaxed(&heap->mem.limit_pages, size ? min_size(size >> PAGE_SHIFT, npages) : npages);
    } else if (strcmp(key, "idle_trim_ms") == 0) {
        atomic_store_relaxed(&heap->config.idle_trim_ms, (uint64_t)size);
    } else if (strcmp(key, "wait_limit_ms") == 0) {
        if (size < 1) return out_of_range(key, size, 1, SIZE_MAX);
        atomic_store_relaxed(&heap->config.wait_limit_ms, (uint64_t)size);
    } else if (strcmp(key, "silent_after_ms") == 0) {
        if (size > UINT32_MAX) return out_of_range(key, size, 0, UINT32_MAX);
        atomic_store_relaxed(&heap->config.silent_after_ms, (uint32_t)size);
    } else {
        return tri__error(TRI_EINVAL, "tri_heap_set", "\"%s\" is no option of this build; see tri_heap_set in trigc.h",
                          key);
    }
    return TRI_OK;
}

static int set_option(tri_heap *heap, const char *key_equals_value) {
    char key[64];
    const char *equals = strchr(key_equals_value, '=');
    size_t n = equals ? (size_t)(equals - key_equals_value) : sizeof key, size;
    if (n >= sizeof key) return tri__error(TRI_EINVAL, "tri_heap_set", "\"%.40s\" is not key=value", key_equals_value);
    memcpy(key, key_equals_value, n);
    key[n] = '\0';
    const char *value = equals + 1;
    int err = TRI_OK;
    if (set_switch(heap, key, value, &err)) return err;
    if (strcmp(key, "metadata_huge") == 0) return set_huge(heap, value);
    if (strcmp(key, "mode") == 0) return tri__mode_set(heap, value);
    if (tri__stress_set(heap, key, value, &err)) return err;
    if (!parse_size(value, &size))
        return tri__error(TRI_EINVAL, "tri_heap_set", "%s: \"%s\" is not a number (K, M and G may follow)", key, value);
    if (strcmp(key, "workers") == 0) return set_workers(heap, size);
    bool is_pace;
    err = set_number(heap, key, size, &is_pace);
    if (err != TRI_OK) return err;
    tri__stress_delay(heap); /* the goal is of the options before */
    if (is_pace) tri__pace_again(heap);
    tri__scavenger_options(heap);
    return TRI_OK;
}

int tri_heap_set(tri_heap *heap, const char *key_equals_value) {
    if (!heap || !key_equals_value) return tri__error(TRI_EINVAL, "tri_heap_set", "heap or option is NULL");
    if (tri__callback_calls(heap, "tri_heap_set")) return TRI_ESTATE;
    IN_CALL("tri_heap_set");
    return set_option(heap, key_equals_value);
}

/* Spans that are kept empty become free pages. False: the world is stopped. A wait for its end would be one for a fork,
 * too, which waits for this section. */
static bool drop_what_is_kept(tri_heap *heap) {
    NO_FORK_REST();
    tri__manual_trim(&heap->mem);
    return tri__memory_drop_empty(&heap->mem, true);
}

size_t tri_trim(tri_heap *heap) {
    if (!heap) (void)tri__error(TRI_EINVAL, "tri_trim", "heap is NULL");
    if (!heap || tri__callback_calls(heap, "tri_trim")) return 0;
    NO_SAFEPOINT("tri_trim");
    size_t total = 0, n;
    while (!drop_what_is_kept(heap)) tri__os_yield(); /* no mutator's thread: those are stopped then */
    tri__copies_trim(heap);
    do {
        NO_FORK_REST();
        n = tri__memory_scavenge(&heap->mem, 4096);
        total += n;
    } while (n > 0);
    NO_FORK_REST();
    tri__pageheap_release(heap->mem.pages);
    return (total << PAGE_SHIFT) + tri__memory_return_inside(&heap->mem);
}
