/* shadow.c - the table of entries, slot words, and the comparison of the heap with the table; see shadow.h. */
#include "tests/shadow.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

const tri_enc shadow_boxed = {0xfffc000000000000, 0xfffc000000000000, ~0ull, 0x0000ffffffffffff};
const tri_enc shadow_tagged = {0, 0, 0xaaaaaaaaaaaaaaaa, ~3ull}; /* low bits 01 and 11 */

/* Where a pointer slot points that points out of the heap. */
static uint64_t outside;

_Noreturn void shadow_fail(const struct shadow *s, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "property: %s, seed %llu: %s\n", s->name, (unsigned long long)s->seed, text);
    fprintf(stderr, "property: run again with TRI_PROPERTY_SEED=%llu\n", (unsigned long long)s->seed);
    abort();
}

void shadow_init(struct shadow *s, const char *name, uint64_t seed, tri_heap *heap) {
    memset(s, 0, sizeof *s);
    s->name = name;
    s->seed = seed;
    s->heap = heap;
    s->next_id = 1;
    pthread_mutex_init(&s->lock, NULL);
    size_t bytes = SHADOW_CAPACITY * (sizeof(struct entry) + 2 * sizeof(uint32_t));
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) shadow_fail(s, "no memory for the table");
    s->entries = (struct entry *)(void *)memory;
    s->free_ids = (uint32_t *)(void *)(s->entries + SHADOW_CAPACITY);
    s->queue = s->free_ids + SHADOW_CAPACITY;
}

static void release(struct entry *e) {
    if (e->edges != e->few) free(e->edges);
    e->edges = NULL;
    e->header = 0;
}

void shadow_fini(struct shadow *s) {
    for (uint32_t id = 1; id < s->next_id; id++)
        if (s->entries[id].header) release(&s->entries[id]);
    munmap(s->entries, SHADOW_CAPACITY * (sizeof(struct entry) + 2 * sizeof(uint32_t)));
    pthread_mutex_destroy(&s->lock);
}

void shadow_on_report(const char *message, void *user) {
    struct shadow *s = user;
    pthread_mutex_lock(&s->lock);
    snprintf(s->last_report, sizeof s->last_report, "%s", message);
    if (s->nreports < 10) fprintf(stderr, "property: report: %s\n", message);
    pthread_mutex_unlock(&s->lock);
    __atomic_fetch_add(&s->nreports, 1, __ATOMIC_ACQ_REL);
}

/* ---- entries ------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x) { /* the finalizer of splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* The top bit is 0, so a header is never a boxed reference, and may lie in a value slot. */
static uint64_t make_header(uint32_t id, uint32_t generation) {
    return (mix((uint64_t)generation << 32 | id) & 0x7fffffff) << 32 | id;
}

bool shadow_fills(struct shadow *s) {
    pthread_mutex_lock(&s->lock);
    bool fills = s->next_id - s->nfree > SHADOW_CAPACITY / 2;
    pthread_mutex_unlock(&s->lock);
    return fills;
}

static uint32_t take_id(struct shadow *s, struct shadow_ids *ids) {
    if (ids->n == 0) {
        pthread_mutex_lock(&s->lock);
        while (ids->n < SHADOW_BATCH) {
            if (s->nfree == 0 && s->next_id == SHADOW_CAPACITY) break;
            ids->ids[ids->n++] = s->nfree ? s->free_ids[--s->nfree] : s->next_id++;
        }
        pthread_mutex_unlock(&s->lock);
        if (ids->n == 0) shadow_fail(s, "the table is full; compare more often");
    }
    return ids->ids[--ids->n];
}

static uint64_t payload_word(uint64_t header, uint32_t index) {
    return mix(header + index) >> 16; /* no reference under any encoding that is used */
}

static bool is_slot_word(const struct shape *shape, uint32_t index) {
    for (uint32_t i = 0; i < shape->nfixed; i++)
        if (shape->fixed_offset[i] == index * 8) return true;
    return false;
}

uint32_t shadow_adopt(struct shadow *s, struct shadow_ids *ids, const struct shape *shape, void *obj, uint32_t nelems,
                      uint32_t npayload) {
    uint32_t id = take_id(s, ids);
    struct entry *e = &s->entries[id];
    e->generation++;
    e->header = make_header(id, e->generation);
    e->addr = (uintptr_t)obj;
    e->shape = shape;
    e->nslots = shape->nfixed + nelems * shape->nper_elem;
    e->npayload = npayload;
    e->edges = e->few;
    if (e->nslots > INLINE_EDGES && !shape->wild) e->edges = calloc(e->nslots, sizeof *e->edges);
    memset(e->few, 0, sizeof e->few);
    uint64_t *words = obj;
    words[0] = e->header;
    if (shape->traced) words[1] = nelems; /* what the callback reads */
    for (uint32_t i = 1; i <= npayload; i++)
        if (!is_slot_word(shape, i)) words[i] = payload_word(e->header, i);
    return id;
}

uint32_t shadow_validate(const struct shadow *s, uintptr_t addr, const char *where) {
    uint64_t header = *(const uint64_t *)addr;
    uint32_t id = (uint32_t)header;
    if (id == 0 || id >= SHADOW_CAPACITY || s->entries[id].header != header)
        shadow_fail(s, "lost object: %s names %p, whose header is %016llx", where, (void *)addr,
                    (unsigned long long)header);
    if (s->entries[id].addr != addr)
        shadow_fail(s, "lost object: %s names %p, whose header belongs to %p", where, (void *)addr,
                    (void *)s->entries[id].addr);
    return id;
}

/* ---- slot words ---------------------------------------------------------------------------------------------- */

/* A pointer's offset into its object: below 7 the object's start is the pointer rounded down to 8; offsets that end in
 * 7 are anywhere in the object, and tri_find has to say which one it is. */
enum { FAR = 7 };

tri_word shadow_encode(const struct shadow *s, enum word_kind kind, struct edge edge) {
    uintptr_t addr = edge.id ? s->entries[edge.id].addr : 0;
    switch (kind) {
    case WORD_POINTER: return edge.id ? addr + edge.aux : edge.aux ? (tri_word)(uintptr_t)&outside : 0;
    case WORD_BOXED: return edge.id ? shadow_boxed.tag | addr : edge.aux;
    case WORD_TAGGED: return edge.id ? addr | (edge.aux ? 3 : 1) : (tri_word)edge.aux << 1;
    case WORD_MAYBE: return edge.id ? addr : edge.aux;
    }
    return 0;
}

uintptr_t shadow_decode(const struct shadow *s, tri_thread *thread, enum word_kind kind, tri_word word) {
    switch (kind) {
    case WORD_POINTER:
        if (word == 0 || word == (tri_word)(uintptr_t)&outside) return 0;
        if ((word & 7) == FAR) {
            uintptr_t found = (uintptr_t)tri_find(thread, (void *)(uintptr_t)word, NULL);
            if (!found) shadow_fail(s, "tri_find does not know %p, which a slot names", (void *)(uintptr_t)word);
            return found;
        }
        return (uintptr_t)word & ~(uintptr_t)7;
    case WORD_BOXED: return (word & shadow_boxed.mask) == shadow_boxed.tag ? word & shadow_boxed.ptr_mask : 0;
    case WORD_TAGGED: return word & 1 ? word & ~(uintptr_t)3 : 0;
    case WORD_MAYBE: return word > UINT32_MAX ? (uintptr_t)word : 0;
    }
    return 0;
}

struct edge shadow_edge(const struct shadow *s, enum word_kind kind, uint32_t id, uint64_t random) {
    struct edge edge = {id, 0};
    if (id == 0) {
        edge.aux = kind == WORD_POINTER ? random % 8 == 0 : (uint32_t)random;
    } else if (kind == WORD_POINTER) {
        const struct entry *e = &s->entries[id];
        if (random % 16 == 0) edge.aux = 1 + (uint32_t)(random >> 8) % 6;
        size_t words = e->shape->size / 8 +
                       (e->shape->nper_elem ? (e->nslots - e->shape->nfixed) / e->shape->nper_elem : 0) *
                           (e->shape->elem_size / 8);
        if (random % 256 == 1) edge.aux = (uint32_t)((random >> 8) % (words ? words : 1)) * 8 + FAR;
    } else if (kind == WORD_TAGGED) {
        edge.aux = random & 1;
    }
    return edge;
}

/* ---- the comparison ------------------------------------------------------------------------------------------ */

void shadow_check_begin(struct shadow *s) {
    for (uint32_t id = 1; id < s->next_id; id++) s->entries[id].reached = 0;
    s->nqueued = s->nchecked = 0;
    s->nreached = 0;
}

void shadow_check_root(struct shadow *s, uint32_t id) {
    if (id == 0) return;
    if (s->entries[id].header == 0) shadow_fail(s, "the shadow names entry %u, which is free", id);
    if (s->entries[id].reached) return;
    s->entries[id].reached = 1;
    s->nreached++;
    s->queue[s->nqueued++] = id;
}

static void check_identity(struct shadow *s, tri_thread *thread, const struct entry *e) {
    const uint64_t *words = (const uint64_t *)e->addr;
    const char *name = e->shape->type ? e->shape->type->name : "bytes";
    if (words[0] != e->header)
        shadow_fail(s, "a reachable %s at %p has header %016llx instead of %016llx", name, (void *)e->addr,
                    (unsigned long long)words[0], (unsigned long long)e->header);
    for (uint32_t i = 1; i <= e->npayload; i++)
        if (!is_slot_word(e->shape, i) && words[i] != payload_word(e->header, i))
            shadow_fail(s, "a reachable %s at %p has another word at offset %u", name, (void *)e->addr, i * 8);
    const tri_type *type = NULL;
    void *found = tri_find(thread, (void *)e->addr, &type);
    if (found != (void *)e->addr || type != e->shape->type)
        shadow_fail(s, "tri_find says %p (%s) of a reachable %s at %p", found, type ? type->name : "no type", name,
                    (void *)e->addr);
}

static void check_slots(struct shadow *s, tri_thread *thread, const struct entry *e) {
    const char *name = e->shape->type ? e->shape->type->name : "bytes";
    for (uint32_t i = 0; i < e->nslots; i++) {
        enum word_kind kind = shape_word_kind(e->shape, i);
        tri_word word = tri_load_value(entry_slot(e, i));
        if (e->shape->wild) {
            uintptr_t addr = shadow_decode(s, thread, kind, word);
            if (addr) shadow_check_root(s, shadow_validate(s, addr, "a wild slot"));
            continue;
        }
        tri_word expected = shadow_encode(s, kind, e->edges[i]);
        if (word != expected)
            shadow_fail(s, "slot %u of a reachable %s at %p holds %016llx instead of %016llx", i, name, (void *)e->addr,
                        (unsigned long long)word, (unsigned long long)expected);
        if (e->edges[i].id) shadow_check_root(s, e->edges[i].id);
    }
}

void shadow_check_reachable(struct shadow *s, tri_thread *thread) {
    for (; s->nchecked < s->nqueued; s->nchecked++) {
        const struct entry *e = &s->entries[s->queue[s->nchecked]];
        check_identity(s, thread, e);
        check_slots(s, thread, e);
    }
}

static void walked(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    struct shadow *s = arg;
    if (type && strcmp(type->name, "weak map") == 0) return; /* the library's: it has no header */
    uint32_t id = shadow_validate(s, (uintptr_t)obj, "tri_walk");
    const struct entry *e = &s->entries[id];
    if (!e->reached)
        shadow_fail(s, "a %s at %p is there after two cycles though nothing reaches it", type ? type->name : "bytes",
                    obj);
    if (type != e->shape->type)
        shadow_fail(s, "tri_walk says that a %s at %p is a %s", e->shape->type ? e->shape->type->name : "bytes", obj,
                    type ? type->name : "bytes");
    if (size_bytes < (e->npayload + 1) * 8) shadow_fail(s, "tri_walk says %zu bytes of %p", size_bytes, obj);
    s->nwalked++;
}

static void check_nothing_reported(struct shadow *s, const char *when) {
    if (__atomic_load_n(&s->nreports, __ATOMIC_ACQUIRE))
        shadow_fail(s, "%u reports %s, the last one: %s", s->nreports, when, s->last_report);
}

void shadow_check_collected(struct shadow *s, tri_thread *thread) {
    check_nothing_reported(s, "while the threads ran");
    for (int i = 0; i < 2; i++)
        if (tri_collect(thread) != TRI_OK) shadow_fail(s, "%s", tri_last_error());
    s->nwalked = 0;
    tri_walk(thread, walked, s);
    check_nothing_reported(s, "in the forced cycles");
    if (s->nwalked != s->nreached)
        shadow_fail(s, "tri_walk saw %llu objects, %llu are reachable", (unsigned long long)s->nwalked,
                    (unsigned long long)s->nreached);
    for (uint32_t i = 0; i < s->nqueued; i++) check_identity(s, thread, &s->entries[s->queue[i]]);
    int wrong = tri_verify(thread);
    check_nothing_reported(s, "of the verifier");
    if (wrong) shadow_fail(s, "tri_verify found %d contradictions", wrong);
    if (s->before_free) s->before_free(s, thread, s->before_arg);
    for (uint32_t id = 1; id < s->next_id; id++) {
        struct entry *e = &s->entries[id];
        if (!e->header || e->reached) continue;
        release(e);
        s->free_ids[s->nfree++] = id;
    }
}
