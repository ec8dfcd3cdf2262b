/* alloc.c - the slow half of allocation: safepoint, pacing, spans, and what happens when memory cannot be had.
 *
 * The order is rule R1's: the safepoint comes first, with nothing in hand; generation and colour are read after it, by
 * the cache. A layout is cold until it has allocated COLD_LIMIT_BYTES: until then its objects of 64 to 2048 bytes lie
 * in mixed spans, which all cold layouts of a size class share, with a layout number for each slot.
 *
 * Invariants: I-ALLOC1 no safepoint between taking a slot and returning it. I-ALLOC2 (R15) in a mixed span the slot's
 * layout number is stored with release before the object is returned. Lock ranks: none held across calls. */
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/fork.h"
#include "gc/heap.h"
#include "gc/scarce.h"

enum {
    COLD_LIMIT_BYTES = 32 << 10,
    MIXED_MIN_BYTES = 1 << LAYOUT_SHIFT,
    MIXED_MAX_BYTES = 2048,
    ASSIST_SLICE_NS = 50000,
    ASSIST_PIECE_NS = 5000, /* between two looks at the debt */
    ASSIST_THRESHOLD_BYTES = 16 << 10,
    EXTERNAL_SLICES = 4,  /* of marking for bytes outside, at once */
    HARD_GOAL_SLICES = 8, /* for each one below the hard goal */
    PACE_UNIT_BYTES = 32 << 10,
    ACCOUNT_BYTES = 32 << 10, /* taken before the heap's counters are told: they are shared by all threads */
    NAP_NS = 50000,
    LONG_NAP_NS = 500000,
    MAX_STEP_NS = 20000000
};

/* What is to be allocated. */
struct request {
    struct call_site from;
    size_t size_bytes;
    uint32_t layout; /* of the type: first number */
    bool sized;      /* the number of the size class is added to it */
    bool leaf, zeroed, align16;
    bool weak;  /* has weak slots: a span of its own layout, so that death finds it by the page */
    bool large; /* pages of its own, however small */
};

static bool is_small(const struct request *r) {
    return r->size_bytes <= SMALL_MAX_BYTES && !r->large;
}

/* Bytes were added to the heap, or outside: while a cycle runs its thread counts as one that allocates, and while it
 * marks they cost marking. */
static void owe(struct mutator *m, uint64_t taken_bytes) {
    tri_heap *heap = m->heap;
    uint64_t cycle = atomic_load_relaxed(&heap->cycle_number); /* counters */
    if (m->paced_cycle != cycle) {
        m->paced_cycle = cycle;
        atomic_add_relaxed(&heap->nallocating, 1);
    }
    if (!atomic_load_acquire(&heap->tracing)) return; /* pairs with the phase's start: its ratio */
    uint64_t ratio = atomic_load_relaxed(&heap->assist_ratio_x256);
    m->assist_debt += (int64_t)(taken_bytes * ratio / 256);
}

/* Moves the cache's counts to the heap's. */
void tri__heap_account(struct mutator *m) {
    tri_heap *heap = m->heap;
    int64_t taken = m->cache.taken_bytes;
    if (taken == 0 && m->cache.black_bytes == 0) return;
    m->cache.taken_bytes = 0;
    atomic_add_relaxed(&heap->heap_bytes, (size_t)taken); /* counters: nothing else is ordered by them */
    if (taken > 0) atomic_add_relaxed(&heap->stats.allocated_bytes, (uint64_t)taken);
    if (m->cache.black_bytes) atomic_add_relaxed(&heap->cycle_black_bytes, (uint64_t)m->cache.black_bytes);
    m->cache.black_bytes = 0;
    if (taken > 0) owe(m, (uint64_t)taken);
}

/* Borrows what the collector has marked ahead. */
void tri__borrow_credit(struct mutator *m) {
    int64_t credit = atomic_load_relaxed(&m->heap->background_credit); /* a counter */
    while (credit > 0 && m->assist_debt > 0) {
        int64_t part = credit < m->assist_debt ? credit : m->assist_debt;
        if (atomic_cas_relaxed(&m->heap->background_credit, &credit, credit - part)) {
            m->assist_debt -= part;
            return;
        }
    }
}

/* Marks until the debt is paid or the slice is over. What the last piece marked beyond the debt pays for what the
 * thread allocates next, in the next cycle too: at most 5 us of marking, or one entry. */
static void pay_by_marking(struct mutator *m, uint64_t start_ns) {
    uint64_t now_ns = start_ns, end_ns = start_ns + ASSIST_SLICE_NS;
    for (bool empty = false; !empty && m->assist_debt > 0 && now_ns < end_ns; now_ns = tri__os_now_ns()) {
        uint64_t before = m->marker.marked_bytes + m->marker.scanned_bytes;
        empty = tri__marker_drain(&m->marker, now_ns + ASSIST_PIECE_NS < end_ns ? now_ns + ASSIST_PIECE_NS : end_ns);
        m->assist_debt -= (int64_t)(m->marker.marked_bytes + m->marker.scanned_bytes - before);
    }
}

/* Marks for at most one slice (R3: only in the mark phase; no safepoint while something popped is held). */
void tri__assist(struct mutator *m) {
    NO_SAFEPOINT("an assist, which holds what it popped (R3)");
    NO_FORK(m->os); /* a fork out of a trace callback is told from another */
    tri_heap *heap = m->heap;
    atomic_add_seq(&heap->nassists, 1); /* before the look at tracing; pairs with stop_assists in cycle.c */
    if (atomic_load_seq(&heap->tracing)) {
        uint64_t start = tri__os_now_ns();
        pay_by_marking(m, start);
        tri__marker_hand_over(&m->marker); /* popping and handing over count for R2; finding nothing does not */
        uint64_t ns = tri__os_now_ns() - start;
        atomic_add_relaxed(&heap->stats.assist_ns, ns);
        atomic_add_relaxed(&heap->stats.cycle_assist_ns, ns);
        tri__stats_pause(heap, TRI_PAUSE_ASSIST, ns);
    }
    atomic_sub_seq(&heap->nassists, 1);
}

static bool is_far_beyond_goal(tri_heap *heap) {
    return heap_total_bytes(heap) > atomic_load_relaxed(&heap->hard_goal_bytes); /* counters */
}

struct nap {
    tri_heap *heap;
    uint64_t ns;
};

static void take_nap(void *p) {
    struct nap *nap = p;
    if (atomic_load_relaxed(&nap->heap->triggered))            /* a hint */
        tri__os_futex_wait(&nap->heap->triggered, 1, nap->ns); /* woken when the cycle's garbage is known */
    else
        tri__os_sleep_ns(nap->ns);
}

/* Beyond the goal while a cycle is under way, and nothing to assist with: the collector waits for a core or for an
 * answer. A short blocking region gives it both; a longer one far beyond the goal. No nap while a step has waited long
 * for its answers, because a silent thread must not hold up the others before the hard limit. */
void tri__throttle(struct mutator *m) {
    tri_heap *heap = m->heap;
    if (!atomic_load_relaxed(&heap->triggered) && !tri__is_stepped(heap)) return; /* hints; in slices nobody asks */
    uint64_t start = tri__os_now_ns();
    if (atomic_load_relaxed(&heap->pending) && start - atomic_load_relaxed(&heap->step_posted_ns) > MAX_STEP_NS)
        return; /* hints: a thread owes its answer for long; a collector without a core owes nothing */
    struct nap nap = {heap, is_far_beyond_goal(heap) ? LONG_NAP_NS : NAP_NS};
    atomic_add_relaxed(&heap->nnapping, 1); /* a hint for who rests (scarce.c) */
    uint64_t ns = tri__blocking_wait(m, take_nap, &nap);
    atomic_sub_relaxed(&heap->nnapping, 1);
    atomic_add_relaxed(&heap->stats.stall_ns, ns); /* a counter */
    tri__stats_pause(heap, TRI_PAUSE_NAP, ns);
}

/* One slice of help, or one nap. True if this thread still owes something. */
static bool pace_once(struct mutator *m) {
    tri_heap *heap = m->heap;
    if (TRI_UNLIKELY(tri__is_paid_in_slices(heap))) return tri__step_pace(m);
    tri__heap_account(m);
    bool tracing = atomic_load_acquire(&heap->tracing); /* see heap_account */
    /* Before tracing begins and in a flush round there may be grey work, but nobody may help with it. */
    if (TRI_UNLIKELY(heap_is_beyond_goal(heap)) && (!tracing || tri__work_is_empty(&heap->work))) tri__throttle(m);
    if (tracing) {
        if (m->assist_debt > ASSIST_THRESHOLD_BYTES) tri__borrow_credit(m);
        if (m->assist_debt > ASSIST_THRESHOLD_BYTES) tri__assist(m);
        return m->assist_debt > ASSIST_THRESHOLD_BYTES || is_far_beyond_goal(heap);
    }
    m->assist_debt = 0;
    size_t total = heap_total_bytes(heap);
    if (total >= atomic_load_relaxed(&heap->here_trigger_bytes) && tri__cycle_here(m, "trigger"))
        return false;                                                    /* hint */
    if (total < atomic_load_relaxed(&heap->trigger_bytes)) return false; /* a counter */
    if ((atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_NO_CYCLES) == 0 &&
        atomic_swap_relaxed(&heap->triggered, 1) == 0 && !tri__cycle_here(m, "trigger"))
        tri__cycle_request(heap, "trigger");
    return atomic_load_relaxed(&heap->triggered) && is_far_beyond_goal(heap);
}

/* As many slices as the request is large, with a safepoint between two: one for a hole, more for a large object. */
static void pace(struct mutator *m, size_t size_bytes) {
    scavenger_note_allocation(m->heap, &m->heap->scavenger);
    tri__stats_locks(m);
    size_t taken = m->cache.taken_bytes > 0 ? (size_t)m->cache.taken_bytes : 0; /* holes since the last time */
    size_t slices = 1 + max_size(size_bytes, taken) / PACE_UNIT_BYTES;
    if (TRI_UNLIKELY(is_far_beyond_goal(m->heap))) slices *= HARD_GOAL_SLICES;
    while (pace_once(m) && --slices > 0) safepoint_poll(m);
}

static void stress(struct mutator *m) {
#if TRI_CHECKS >= 1
    tri__stress_delay(m->heap);
    uint32_t every = atomic_load_relaxed(&m->heap->stress.collect_every); /* a test's switch */
    if (every && ++m->nslow % every == 0) tri__cycle_wait(m, "stress", heap_wait_limit_ns(m->heap));
#else
    (void)m;
#endif
}

/* The class of a small request. */
static unsigned class_of(const struct request *r) {
    return r->leaf && !r->align16 ? size_class_of(r->size_bytes) : size_class_of_scan(r->size_bytes);
}

/* The span class for a small request; counts towards the layout's heat. */
static struct span_class choose_class(tri_heap *heap, const struct request *r, uint32_t *number) {
    unsigned class_index = class_of(r);
    *number = r->layout + (r->sized ? class_index : 0);
    uint32_t slot_bytes = tri__size_classes[class_index].slot_bytes;
    uint8_t flags = (uint8_t)((r->leaf ? SPAN_LEAF : 0) | (r->zeroed ? SPAN_ZEROED : 0) |
                              (r->layout == LAYOUT_TINY ? SPAN_SHARED : 0) | (r->weak ? SPAN_WEAK : 0));
    struct span_class sc = {*number, (uint8_t)class_index, flags, false};
    if (*number < LAYOUT_FIRST || slot_bytes < MIXED_MIN_BYTES || slot_bytes > MIXED_MAX_BYTES || r->weak) return sc;
    uint32_t *cold = &heap->cold_bytes[*number];
    uint32_t so_far = atomic_load_relaxed(cold); /* a heuristic's counter */
    if (so_far >= COLD_LIMIT_BYTES) return sc;
    atomic_store_relaxed(cold, so_far + slot_bytes);
    return (struct span_class){LAYOUT_MIXED + class_index, (uint8_t)class_index, 0, true};
}

static void *try_small(struct mutator *m, const struct request *r) {
    NO_SAFEPOINT("an allocation with its slot in hand (I-ALLOC1)");
    NO_FORK(m->os);
    uint32_t number;
    struct span_class sc = choose_class(m->heap, r, &number);
    void *obj = tri__cache_alloc(&m->cache, &sc);
    if (TRI_UNLIKELY(r->weak) && obj) tri__weak_note(m->heap, obj); /* each span of such a layout begins here */
    if (obj && sc.mixed)                                            /* I-ALLOC2; pairs with space_layout_of */
        atomic_store_release(&m->heap->mem.space.layouts[((uintptr_t)obj - m->heap->mem.space.base) >> LAYOUT_SHIFT],
                             (uint16_t)number);
    return obj;
}

/* Its zeroing reaches safepoints, out of the section that a fork waits for (hook_zeroing in heap.c). */
static void *try_large(struct mutator *m, const struct request *r) {
    NO_FORK(m->os);
    m->piece_ns = tri__os_now_ns();
    uint8_t flags = (uint8_t)((r->leaf ? SPAN_LEAF : 0) | (r->zeroed ? SPAN_ZEROED : 0));
    void *obj = tri__large_alloc(&m->heap->mem, m, r->size_bytes, r->layout, flags, &m->cache.gen, &m->cache.black,
                                 &m->build);
    tri__stats_pause(m->heap, TRI_PAUSE_ZERO, tri__os_now_ns() - m->piece_ns);
    if (!obj) return NULL;
    if (r->weak) tri__weak_note(m->heap, obj);
    m->cache.taken_bytes += (int64_t)(m->build.npages << PAGE_SHIFT);
    if (m->cache.black) m->cache.black_bytes += (int64_t)(m->build.npages << PAGE_SHIFT);
    if (m->cache.black && m->cache.notes_black) /* read in a stop */
        atomic_or_relaxed(&space_span_of(&m->heap->mem.space, (uintptr_t)obj)->rescan, SPAN_RESCAN_FRESH);
    return obj;
}

static void *try_once(struct mutator *m, const struct request *r) {
    return is_small(r) ? try_small(m, r) : try_large(m, r);
}

/* Larger than the heap may ever be: no cycle helps. */
static bool is_hopeless(tri_heap *heap, const struct request *r) {
    return !is_small(r) && ceil_div(r->size_bytes, PAGE_BYTES) > atomic_load_relaxed(&heap->mem.limit_pages);
}

static bool ask_host(tri_heap *heap, size_t size_bytes) {
    IN_HOOK();
    return heap->config.oom(heap, size_bytes, heap->config.user) != 0;
}

/* `ended`: a cycle has ended, and did not help. Else whoever kept it from that is named. */
static void tell_no_memory(tri_heap *heap, const struct request *r, bool ended) {
    char silent[SILENT_TEXT_BYTES] = "";
    tri__error(TRI_ENOMEM, r->from.call,
               "no memory for %zu bytes: %zu of %zu bytes are in use; release references, raise hard_limit_bytes, or "
               "give the process more address space%s%s%s",
               r->size_bytes, atomic_load_relaxed(&heap->mem.used_pages) << PAGE_SHIFT,
               atomic_load_relaxed(&heap->mem.limit_pages) << PAGE_SHIFT,
               ended ? "" : "; no cycle ended within wait_limit_ms: ", ended ? "" : tri__why_late(heap),
               ended ? silent : tri__silent_text(heap, silent));
}

/* Memory cannot be had: wait for a cycle (bounded, as a blocked thread), then the host's hook, then NULL. */
static TRI_COLD void *without_memory(struct mutator *m, const struct request *r) {
    tri_heap *heap = m->heap;
    void *obj = NULL;
    bool ended = true;
    bool cycles = !(atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_NO_CYCLES) &&
                  !is_hopeless(heap, r); /* an option */
    if (cycles)
        for (int i = 0; i < 2 && !obj; i++) {
            ended = tri__cycle_wait_at_limit(m);
            if (!ended) break;
            obj = try_once(m, r);
        }
    while (!obj && heap->config.oom && ask_host(heap, r->size_bytes)) {
        if (cycles) tri__cycle_wait_at_limit(m);
        obj = try_once(m, r);
        if (!obj) break; /* one more try, as the hook's contract says */
    }
    if (!obj) tell_no_memory(heap, r, ended);
    return obj;
}

/* The next hole of the chain that the cache has: no lock, and nothing to tell anyone yet. */
static void *try_next_hole(struct mutator *m, const struct request *r) {
    if (!is_small(r) || m->cache.taken_bytes >= ACCOUNT_BYTES) return NULL;
    if (TRI_CHECKS >= 1 && atomic_load_relaxed(&m->heap->stress.collect_every)) return NULL; /* counts slow paths */
    NO_FORK(m->os);
    return tri__cache_next(&m->cache, r->layout + (r->sized ? class_of(r) : 0));
}

static void *allocate(struct mutator *m, const struct request *r) {
    IN_CALL(r->from.call);
    note_site(m, r->from);
    safepoint_poll(m); /* R1: first, with nothing in hand */
    void *next = try_next_hole(m, r);
    if (next) return next;
    stress(m);
    pace(m, r->size_bytes);
    void *obj = try_once(m, r);
    uint64_t system_ns = tri__memory_take_system_ns();
    if (TRI_UNLIKELY(system_ns > 0)) tri__stats_pause(m->heap, TRI_PAUSE_SYSTEM, system_ns);
    if (TRI_UNLIKELY(!obj)) obj = without_memory(m, r);
    return obj;
}

/* ---- public -------------------------------------------------------------------------------------------------- */

static struct request request_typed(const tri_type *type, size_t size_bytes, struct call_site from) {
    uint32_t layout = atomic_load_acquire(&type->layout); /* pairs with tri__type_bind */
    const struct type_desc *desc = tri__layouts[layout].desc;
    return (struct request){.from = from,
                            .size_bytes = size_bytes,
                            .layout = layout,
                            .sized = type->elem_size != 0,
                            .leaf = tri__layouts[layout].scan == SCAN_LEAF,
                            .zeroed = !(type->flags & TRI_TYPE_LEAF) || (type->flags & TRI_TYPE_ZEROED),
                            .align16 = type->align == 16,
                            .weak = desc && desc->has_weak};
}

static void *allocate_typed(struct mutator *m, const tri_type *type, size_t size_bytes, struct call_site from) {
    struct request r = request_typed(type, size_bytes, from);
    return allocate(m, &r);
}

void *tri_new_slow(tri_thread *thread, tri_type *type) {
    struct mutator *m = tri__mutator_check(thread, "tri_new");
    if (!m || tri__type_bind(type, "tri_new") != TRI_OK) return NULL;
    return allocate_typed(m, type, max_size(type->size, 1), CALL_SITE("tri_new"));
}

/* The next slot of the hole at this number, if there is one: tri_new's short way for sizes known at run time. */
static inline void *bump(const tri_thread *thread, size_t layout) {
    tri_hole *hole = &thread->holes[layout];
    char *obj = hole->cursor;
    if (TRI_UNLIKELY(obj == hole->limit)) return NULL;
    atomic_store_relaxed(&hole->cursor, obj + hole->slot_bytes); /* as in tri_new */
    return obj;
}

static TRI_COLD void *new_n_slow(tri_thread *thread, tri_type *type, size_t n, struct call_site from) {
    struct mutator *m = tri__mutator_check(thread, "tri_new_n");
    if (!m || tri__type_bind(type, "tri_new_n") != TRI_OK) return NULL;
    size_t size_bytes;
    if (__builtin_mul_overflow(n, type->elem_size, &size_bytes) ||
        __builtin_add_overflow(size_bytes, type->size, &size_bytes)) {
        tri__error(TRI_ENOMEM, "tri_new_n", "%zu elements of %zu bytes are more than any address range holds", n,
                   type->elem_size);
        return NULL;
    }
    if (n && type->elem_size == 0) {
        tri__error(TRI_EINVAL, "tri_new_n", "type %s has no elements; set elem_size, or use tri_new", type->name);
        return NULL;
    }
    return allocate_typed(m, type, max_size(size_bytes, 1), from);
}

/* As tri_new does it: the sentinel's holes are empty, so only builds with checks look at the thread first. */
void *tri_new_n(tri_thread *thread, tri_type *type, size_t n) {
    if (TRI_CHECKS >= 1 && !tri__mutator_check(thread, "tri_new_n")) return NULL;
    if (TRI_LIKELY(thread && type)) {
        size_t hole = atomic_load_relaxed(&type->hole), elem_bytes = type->elem_size; /* as in tri_new; 0: not bound */
        if (TRI_LIKELY(hole != 0 && elem_bytes - 1 < SMALL_MAX_BYTES && n <= SMALL_MAX_BYTES)) {
            size_t size_bytes = type->size + n * elem_bytes;
            void *obj = size_bytes > 8 && size_bytes <= SMALL_MAX_BYTES
                            ? bump(thread, hole / sizeof(tri_hole) + size_class_of(size_bytes))
                            : NULL;
            if (TRI_LIKELY(obj != NULL)) return obj;
        }
    }
    return new_n_slow(thread, type, n, CALL_SITE("tri_new_n"));
}

/* ---- many at once -------------------------------------------------------------------------------------------- */

/* The slots that are left in the hole of this number, at most n of them. */
static size_t take_run(struct mutator *m, uint32_t number, void **out, size_t n) {
    tri_hole *hole = &m->pub.holes[number];
    char *obj = hole->cursor;
    if (obj == hole->limit) return 0;
    size_t slot_bytes = hole->slot_bytes;
    n = min_size(n, (size_t)(hole->limit - obj) / slot_bytes);
    for (size_t i = 0; i < n; i++, obj += slot_bytes) out[i] = obj;
    atomic_store_relaxed(&hole->cursor, obj); /* as in tri_new */
    return n;
}

/* So many at once that the layout is not cold any more: spans of its own from the first one on. */
static void warm(tri_heap *heap, const struct request *r, size_t n) {
    uint32_t number = r->layout + (r->sized ? class_of(r) : 0);
    if (n >= COLD_LIMIT_BYTES / tri__size_classes[class_of(r)].slot_bytes)
        atomic_store_relaxed(&heap->cold_bytes[number], COLD_LIMIT_BYTES); /* a heuristic's counter */
}

size_t tri_new_batch(tri_thread *thread, tri_type *type, void **out, size_t n) {
    struct mutator *m = tri__mutator_check(thread, "tri_new_batch");
    if (!m) return 0;
    IN_CALL("tri_new_batch");
    if (tri__type_bind(type, "tri_new_batch") != TRI_OK || n == 0) return 0;
    if (!out) {
        tri__error(TRI_EINVAL, "tri_new_batch", "out is NULL; give an array of n pointers");
        return 0;
    }
    struct request r = request_typed(type, max_size(type->size, 1), CALL_SITE("tri_new_batch"));
    if (!is_small(&r)) return (out[0] = allocate(m, &r)) != NULL;
    uint32_t number = r.layout + (r.sized ? class_of(&r) : 0);
    warm(m->heap, &r, n);
    safepoint_poll(m); /* R1: first; what allocate does is first, too, as long as nothing is in hand */
    size_t had = take_run(m, number, out, n);
    if (had == 0 && (out[had++] = allocate(m, &r)) == NULL) return 0;
    NO_SAFEPOINT("a batch with objects in hand (I-ALLOC1)");
    for (;;) {
        had += take_run(m, number, out + had, n - had);
        if (had == n || m->cache.taken_bytes >= ACCOUNT_BYTES || !(out[had] = try_small(m, &r))) return had;
        had++;
    }
}

/* ---- bytes --------------------------------------------------------------------------------------------------- */

/* What every request for 0 bytes gets: outside all heaps, so that every lookup, root and barrier passes it over. */
void *tri__zero_address(void) {
    static char room[2 * PAGE_BYTES];
    return (void *)align_up((uintptr_t)room, PAGE_BYTES);
}

/* The largest power of two that divides the size: no C object of that size asks for more. Never 1: an odd address is no
 * value for a handle. */
static uint32_t natural_align(size_t size_bytes) {
    uint32_t lowest = (uint32_t)(size_bytes & (0 - size_bytes));
    return lowest < 2 ? 2 : lowest;
}

/* The tiny allocator: the next bytes of the slot that the thread fills, or the first ones of another. Of the two the
 * one with more room is filled next. I-CACHE4: the slot is as black as the thread. */
static void *share_slot(struct mutator *m, size_t size_bytes, size_t align_bytes, struct call_site from) {
    struct cache *cache = &m->cache;
    size_t at = align_up(cache->tiny_used_bytes, max_size(align_bytes, natural_align(size_bytes)));
    if (cache->tiny && at + size_bytes <= TINY_SLOT_BYTES) {
#if TRI_CHECKS >= 2
        struct slot slot;
        bool found = space_find_slot(&cache->mem->space, (uintptr_t)cache->tiny, &slot);
        check_internal(found && (!cache->black || space_is_marked(&cache->mem->space, &slot)),
                       "I-CACHE4: a black thread fills a marked slot");
#endif
        cache->tiny_used_bytes = (uint32_t)(at + size_bytes);
        return cache->tiny + at;
    }
    struct request r = {
        .from = from, .size_bytes = TINY_SLOT_BYTES, .layout = LAYOUT_TINY, .leaf = true, .align16 = true};
    char *slot = bump(&m->pub, LAYOUT_TINY);
    if (!slot) slot = allocate(m, &r); /* its safepoint may take cache->tiny away */
    if (slot && (!cache->tiny || size_bytes < cache->tiny_used_bytes)) {
        cache->tiny = slot;
        cache->tiny_used_bytes = (uint32_t)size_bytes;
    }
    return slot;
}

/* The smallest class whose slots, in spans that begin on a page, are so aligned; 0: pages of its own take less. */
static unsigned class_aligned(size_t align_bytes, size_t size_bytes) {
    if (size_bytes > SMALL_MAX_BYTES) return 0;
    unsigned c = align_bytes > 8 ? size_class_of_scan(size_bytes) : size_class_of(size_bytes);
    while (c < NUM_SIZE_CLASSES && tri__size_classes[c].slot_bytes & (align_bytes - 1)) c++;
    return c < NUM_SIZE_CLASSES && tri__size_classes[c].slot_bytes <= align_up(size_bytes, PAGE_BYTES) ? c : 0;
}

/* A slot of a class of its own (0: pages). */
static void *new_bytes(struct mutator *m, unsigned class_index, size_t size_bytes, struct call_site from) {
    void *obj = class_index ? bump(&m->pub, LAYOUT_BYTES + class_index) : NULL;
    if (TRI_LIKELY(obj != NULL)) return obj;
    struct request r = {.from = from,
                        .size_bytes = class_index ? tri__size_classes[class_index].slot_bytes : size_bytes,
                        .layout = LAYOUT_BYTES,
                        .sized = true,
                        .leaf = true,
                        .align16 = class_index != 1,
                        .large = class_index == 0};
    return allocate(m, &r);
}

/* Fewer bytes than a shared slot has, as the heap's options say; false: like all others. */
static bool new_few_bytes(struct mutator *m, size_t size_bytes, size_t align_bytes, struct call_site from, void **obj) {
    uint32_t flags = atomic_load_relaxed(&m->heap->config.flags); /* options */
    if (size_bytes == 0) {
        if (flags & TRI_HEAP_UNIQUE_ZERO) return false;
        safepoint_poll(m);
        *obj = tri__zero_address();
        return true;
    }
    if (!(flags & TRI_HEAP_TINY) || align_bytes > 8) return false;
    *obj = share_slot(m, size_bytes, align_bytes, from);
    return true;
}

static TRI_COLD void *new_bytes_slow(tri_thread *thread, size_t size_bytes, struct call_site from) {
    struct mutator *m = tri__mutator_check(thread, "tri_new_bytes");
    void *obj;
    if (!m) return NULL;
    if (size_bytes < TINY_SLOT_BYTES && new_few_bytes(m, size_bytes, 1, from, &obj)) return obj;
    if (size_bytes == 0) size_bytes = 1;
    return new_bytes(m, size_bytes <= SMALL_MAX_BYTES ? size_class_of(size_bytes) : 0, size_bytes, from);
}

/* As tri_new_n; what options may treat otherwise is on the slow path. */
void *tri_new_bytes(tri_thread *thread, size_t size_bytes) {
    if (TRI_CHECKS >= 1 && !tri__mutator_check(thread, "tri_new_bytes")) return NULL;
    if (TRI_LIKELY(thread && size_bytes >= TINY_SLOT_BYTES && size_bytes <= SMALL_MAX_BYTES)) {
        void *obj = bump(thread, LAYOUT_BYTES + size_class_of(size_bytes));
        if (TRI_LIKELY(obj != NULL)) return obj;
    }
    return new_bytes_slow(thread, size_bytes, CALL_SITE("tri_new_bytes"));
}

void *tri_new_aligned(tri_thread *thread, size_t align_bytes, size_t size_bytes) {
    struct mutator *m = tri__mutator_check(thread, "tri_new_aligned");
    void *obj;
    if (!m) return NULL;
    if (!is_power_of_two(align_bytes) || align_bytes > PAGE_BYTES) {
        tri__error(TRI_EINVAL, "tri_new_aligned",
                   "an alignment of %zu is no power of two up to %d; use tri_manual_aligned beyond", align_bytes,
                   PAGE_BYTES);
        return NULL;
    }
    if (size_bytes < TINY_SLOT_BYTES && new_few_bytes(m, size_bytes, align_bytes, CALL_SITE("tri_new_aligned"), &obj))
        return obj;
    if (size_bytes == 0) size_bytes = 1;
    return new_bytes(m, class_aligned(align_bytes, size_bytes), size_bytes, CALL_SITE("tri_new_aligned"));
}

static size_t minus(size_t a, size_t b) {
    return a > b ? a - b : 0;
}

/* Bytes that a cleanup takes back were garbage when the last cycle's end set the goal, and counted as if they lived:
 * goal and trigger move down as if they had not. The next cycle's end sets both anew; half of the least room stays. */
static void lower_goal(tri_heap *heap, size_t less_bytes) {
    uint32_t growth = atomic_load_relaxed(&heap->config.growth_percent); /* options and counters */
    size_t by = less_bytes + less_bytes / 100 * growth, trigger = atomic_load_relaxed(&heap->trigger_bytes), lower;
    size_t least = heap_total_bytes(heap) + atomic_load_relaxed(&heap->config.min_heap_bytes) / 2;
    do lower = max_size(minus(trigger, by), min_size(trigger, least));
    while (!atomic_cas_relaxed(&heap->trigger_bytes, &trigger, lower));
    size_t goal = atomic_load_relaxed(&heap->goal_bytes);
    while (!atomic_cas_relaxed(&heap->goal_bytes, &goal, minus(goal, trigger - lower))) {}
}

/* Whoever only adds bytes outside comes to no slow path of an allocation. Asks, and waits for nothing. */
static void trigger_for_external(tri_heap *heap) {
    if (heap_total_bytes(heap) < atomic_load_relaxed(&heap->trigger_bytes)) return;         /* counters */
    if (atomic_load_relaxed(&heap->config.flags) & TRI_HEAP_NO_CYCLES) return;              /* an option */
    if (atomic_swap_relaxed(&heap->triggered, 1) == 0) tri__cycle_request(heap, "trigger"); /* as in pace_once */
}

/* Bytes outside cost marking like bytes in the heap. Marking is no safepoint, and a thread that may assist has been
 * scanned (R3); a nap would be one, so what is owed beyond some slices stays for the next time, or the next
 * allocation. */
static void pace_external(struct mutator *m, size_t added_bytes) {
    trigger_for_external(m->heap);
    if (!atomic_load_acquire(&m->heap->tracing)) { /* see heap_account */
        m->assist_debt = 0;
        return;
    }
    owe(m, added_bytes);
    size_t slices = 1 + added_bytes / PACE_UNIT_BYTES;
    for (slices = min_size(slices, EXTERNAL_SLICES); slices > 0 && m->assist_debt > ASSIST_THRESHOLD_BYTES; slices--) {
        tri__borrow_credit(m);
        if (m->assist_debt > ASSIST_THRESHOLD_BYTES) tri__assist(m);
    }
}

void tri_external(tri_thread *thread, ptrdiff_t delta_bytes) {
    struct mutator *m = tri__mutator_check(thread, "tri_external");
    NO_SAFEPOINT("tri_external");
    if (!m) return;
    size_t before = atomic_load_relaxed(&m->heap->external_bytes), after; /* a counter */
    bool too_much;
    do {
        size_t less = delta_bytes < 0 ? 0 - (size_t)delta_bytes : 0, more = delta_bytes > 0 ? (size_t)delta_bytes : 0;
        too_much = less > before || more > SIZE_MAX / 4 - min_size(before, SIZE_MAX / 4);
        after = too_much ? (less ? 0 : SIZE_MAX / 4) : before - less + more;
    } while (!atomic_cas_relaxed(&m->heap->external_bytes, &before, after));
    if (too_much)
        tri__report(m->heap, "tri_external",
                    "more bytes were taken back than were ever added, or added than can be; the count is %zu now; add "
                    "what you take, and take back what you add",
                    after);
    if (delta_bytes > 0) pace_external(m, (size_t)delta_bytes);
    if (delta_bytes < 0 && m->ncleaning && !too_much) lower_goal(m->heap, 0 - (size_t)delta_bytes);
}
