/*
 * Planted bugs in what names objects without keeping them alive: each thing that tri_verify compares of watches
 * (cleanups and finalizer queues), of their tables and of weak maps is made wrong once, and has to be reported by its
 * invariant.
 */
#include "tests/held.h"

#if TRI_CHECKS >= 3

/* At least one contradiction, one of which says this; none when the test begins, nor when it has mended it. */
static void expect_contradiction(const struct fixture *f, const char *text) {
    int wrong = tri_verify(f->thread);
    CHECK_MSG(wrong > 0 && ntold == (uint32_t)wrong && strstr(told, text),
              "%d contradictions and %u reports, expected \"%s\":\n%s", wrong, ntold, text, told);
    forget_reports();
}

static void expect_sound(const struct fixture *f) {
    int wrong = tri_verify(f->thread);
    CHECK_MSG(wrong == 0, "%d contradictions:\n%s", wrong, told);
}

static void no_cleanup(void *arg) {
    (void)arg;
}

/* The shard that has the object's watches. */
static struct watch_shard *shard_with(struct watches *ws, const void *obj) {
    for (size_t i = 0; i < WATCH_SHARDS; i++)
        if (tri__wtable_find(&ws->shards[i].table, (uintptr_t)obj)) return &ws->shards[i];
    return NULL;
}

/* Two objects that a queue and cleanups watch, through a cycle. */
struct watched {
    struct fixture f;
    struct watches *ws;
    struct watch_shard *shard; /* of obj */
    struct wentry *entry;
    struct watch *first; /* a cleanup, and another behind it */
    void *obj, *other;
};

static struct watched open_watched(void **roots, tri_frame *frame) {
    struct watched w = {.f = open_heap(NULL, NULL)};
    tri_thread *t = w.f.thread;
    tri_frame_push(t, frame);
    w.obj = roots[0] = tri_new(t, &thing_type);
    w.other = roots[1] = tri_new(t, &thing_type);
    CHECK_EQ(tri_cleanup_add(t, w.obj, no_cleanup, &w), TRI_OK);
    CHECK_EQ(tri_cleanup_add(t, w.obj, no_cleanup, NULL), TRI_OK);
    CHECK_EQ(tri_finq_watch(t, tri_finq_new(t), w.other), TRI_OK);
    fixture_collect(&w.f);
    w.ws = &w.f.heap->death.watches;
    w.shard = shard_with(w.ws, w.obj);
    CHECK(w.shard != NULL);
    w.entry = tri__wtable_find(&w.shard->table, (uintptr_t)w.obj);
    w.first = (struct watch *)(uintptr_t)(w.entry->value & ~(uint64_t)WATCH_KINDS);
    CHECK(w.first->last != w.first && w.first->addr == (uintptr_t)w.obj);
    expect_sound(&w.f);
    return w;
}

#define WATCHED(w, roots)                    \
    void *roots[2] = {NULL, NULL};           \
    tri_frame roots##_frame = {0, 2, roots}; \
    struct watched w = open_watched(roots, &roots##_frame)

static void close_watched(struct watched *w, tri_frame *frame) {
    expect_sound(&w->f);
    tri_frame_pop(w->f.thread, frame);
    close_heap(&w->f);
}

TEST(planted_death, verify_sees_watches) {
    WATCHED(w, roots);
    w.first->addr = (uintptr_t)w.other;
    expect_contradiction(&w.f, "I-WATCH2: a watch is in another object's entry");
    w.first->addr = (uintptr_t)w.obj;

    struct watch *last = w.first->last;
    w.first->last = w.first;
    expect_contradiction(&w.f, "I-WATCH2: an object's first watch does not know its last one");
    w.first->last = last;

    w.entry->value ^= WATCH_CLAIM;
    expect_contradiction(&w.f, "I-WATCH2: an entry has other watches than it says");
    w.entry->value ^= WATCH_CLAIM;

    struct watch_shard *elsewhere = &w.ws->shards[w.shard == &w.ws->shards[0]];
    struct wtable kept = w.shard->table;
    w.shard->table = elsewhere->table;
    elsewhere->table = kept;
    expect_contradiction(&w.f, "I-WATCH2: a watch is in another object's shard");
    elsewhere->table = w.shard->table;
    w.shard->table = kept;

    struct slot slot;
    uint64_t bit, *word;
    CHECK(space_find_slot(&w.f.heap->mem.space, (uintptr_t)w.obj, &slot));
    word = space_alloc_word(&w.f.heap->mem.space, &slot, &bit);
    *word ^= bit;
    expect_contradiction(&w.f, "is watched and is no live object");
    *word ^= bit;
    close_watched(&w, &roots_frame);
}

TEST(planted_death, verify_sees_counts_and_lists_of_watches) {
    WATCHED(w, roots);
    atomic_add_relaxed(&w.ws->n, 1);
    expect_contradiction(&w.f, "I-WATCH2: the table has not as many watches as are counted");
    atomic_sub_relaxed(&w.ws->n, 1);
    atomic_add_relaxed(&w.ws->ndue, 1);
    expect_contradiction(&w.f, "I-WATCH2: not as many cleanups are due as are counted");
    atomic_sub_relaxed(&w.ws->ndue, 1);
    w.ws->revived.first = w.first;
    expect_contradiction(&w.f, "I-WATCH2: an object that came back is in no queue between cycles");
    w.ws->revived.first = NULL;
    close_watched(&w, &roots_frame);
}

/* ---- weak maps and their tables --------------------------------------------------------------------------------- */

enum { KEYS = 400 };

TEST(planted_death, verify_sees_weak_maps) {
    struct fixture f = open_heap(NULL, NULL);
    TRI_LOCALS(f.thread, roots, 2);
    void *map = roots[0] = tri_wmap_new(f.thread, NULL);
    void **keys = roots[1] = tri_new_n(f.thread, &array_type, KEYS + 1);
    for (size_t i = 0; i <= KEYS; i++) {
        tri_store(f.thread, keys, &keys[i], tri_new(f.thread, &thing_type));
        if (i < KEYS) CHECK_EQ(tri_wmap_put(f.thread, map, keys[i], (tri_word)(uintptr_t)keys[0]), TRI_OK);
    }
    uintptr_t dead = hide(tri_new(f.thread, &owner_type));
    fixture_collect(&f);
    expect_sound(&f);
    struct wmaps *maps = &f.heap->death.maps;
    struct wmap *record = maps->first;
    CHECK(record->obj == (uintptr_t)map && record->table.n == KEYS && !is_alive(f.heap, dead));
    struct wentry *e = tri__wtable_find(&record->table, (uintptr_t)keys[7]), kept = *e;

    e->key += 16;
    expect_contradiction(&f, "I-WMAP1: the key of a weak map's entry is no start of an object");
    for (size_t i = 7; (e->key = (uintptr_t)keys[KEYS], tri__wtable_find(&record->table, e->key) == e); i++) {
        *e = kept; /* in the bucket that is its own by chance: addresses differ from run to run */
        e = tri__wtable_find(&record->table, (uintptr_t)keys[i + 1]), kept = *e;
    }
    expect_contradiction(&f, "I-WTAB1: an entry is not found by its key"); /* alive, but its place is another */
    *e = kept;
    e->value = (tri_word)(uintptr_t)reveal(dead);
    expect_contradiction(&f, "which names the dead");
    *e = kept;
    record->table.n++;
    expect_contradiction(&f, "I-WTAB1: a table has not as many entries as it counts");
    record->table.n--;
    record->obj = (uintptr_t)reveal(dead);
    expect_contradiction(&f, "I-WMAP2: the record of a dead weak map is still there");
    record->obj = (uintptr_t)map;
    atomic_add_relaxed(&maps->nmaps, 1);
    expect_contradiction(&f, "I-WMAP2: there are not as many weak maps as are counted");
    atomic_sub_relaxed(&maps->nmaps, 1);
    expect_sound(&f);
    TRI_POP(f.thread, roots);
    close_heap(&f);
}

static void count_said(void *context, const char *text) {
    CHECK_STR_EQ(text, "I-WTAB1: a table has more buckets than blocks for them");
    ++*(int *)context;
}

TEST(planted_death, verify_sees_a_table_without_its_blocks) {
    struct wtable table = {.nbuckets = 1};
    int nsaid = 0;
    tri__wtable_verify(&table, count_said, &nsaid);
    CHECK_EQ(nsaid, 1);
    table.nbuckets = 0;
    tri__wtable_verify(&table, count_said, &nsaid);
    CHECK_EQ(nsaid, 1);
}

#else

TEST(planted_death, faults_need_checks) {
    struct fixture f = fixture_open();
    CHECK_EQ(tri_heap_set(f.heap, "fault=nonsense"), TRI_EINVAL);
    fixture_close(&f);
}

#endif
