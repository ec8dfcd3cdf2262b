/*
 * property.h: the state of a property run, which its files share: random mutators against a shadow graph.
 *
 *     property_objects.c   shapes of objects, making them, loads and stores of every kind
 *     property_roots.c     frames, handles, ranges, stacks, scanners
 *     property_death.c     weak slots, a weak map, cleanups, a finalizer queue
 *     property_threads.c   attaching, ending, blocking, calling back in; what a worker does
 *     stress_property.c    the coordinator, and the tests
 *
 * Each edit is made in the heap and in the shadow (shadow.h). What several threads edit lies under a lock that nobody
 * waits for; what one thread edits is its `part`. All of it may be read by the coordinator while every thread is
 * parked.
 */
#ifndef TRI_TESTS_PROPERTY_H
#define TRI_TESTS_PROPERTY_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/shadow.h"

enum {
    MAX_THREADS = 16,
    MAX_HEAPS = 2,
    FRAME_SLOTS = 10,
    MAX_FRAMES = 4,
    MAX_LOCALS = 24,
    SCANNER_WORDS = 6,
    NHANDLES = 96,
    NWILD_HANDLES = 8,
    NRANGES = 12,
    RANGE_SLOTS = 24,
    NSTACKS = 12,
    STACK_WORDS = 32,
    NMIXED = 48,
    NBLOCKS = 64,
    NWEAK = 48,
    NMAP = 64,
    NTOKENS = 512,
    NWATCHED = 32,
    MAX_BATCH = 6,
    BATCH = 64 /* operations between two looks at what the coordinator wants */
};

enum shape_name {
    LEAF8,
    SMALL,
    PAIR,
    BOXED,
    TAGGED,
    PARRAY,
    VARRAY,
    ELEMS,
    LEAF,
    BYTES,
    TRACED,
    MAYBE,
    WILD,
    WILD_BOXED,
    NUM_SHAPES
};

/* Types that are made while the test runs, so that there are always cold ones, which lie in mixed spans. */
struct made_type {
    struct made_type *next; /* in all_made */
    tri_type type;
    struct shape shape;
    uint32_t offsets[2][SHAPE_MAX_FIXED];
};

/* ---- the state of a run ---------------------------------------------------------------------------------------- */

struct world;

/* A persistent handle and its number, or a registered range, or a VM stack: edited under their lock. */
struct shared_handle {
    tri_handle handle;
    uint32_t id;
    uint8_t lock;
};
struct shared_range {
    tri_root *root;
    enum word_kind kind;
    uint8_t lock;
    bool manual; /* in a block of manual memory, else in `own` */
    struct edge edges[RANGE_SLOTS];
    tri_word *slots;
    tri_word own[RANGE_SLOTS];
};
/* A block of manual memory, filled with one byte; freed by whoever comes by. */
struct shared_block {
    unsigned char *block;
    size_t size_bytes;
    uint8_t lock, fill;
};
struct shared_stack {
    tri_vmstack *stack; /* NULL: not registered */
    int owner;          /* thread that runs it, -1: suspended */
    uint8_t lock;       /* held for a moment; by the owner for as long as it runs the stack */
    uint32_t n;         /* words on it */
    enum word_kind kind;
    tri_word *top;
    tri_word *words;
    tri_word memory[2][STACK_WORDS]; /* it moves between the two */
    struct edge edges[STACK_WORDS];
};

/* A holder of one weak slot, and what that names; one entry of the weak map; a cleanup; all by the objects' numbers. */
struct weak_cell {
    tri_handle handle;
    uint32_t holder, target;
    uint8_t lock;
    uint32_t ncame; /* of the death state, when the target was stored */
    uint64_t since; /* its clock then */
    bool must;      /* the object is reachable: the slot may not be cleared */
};
struct map_edge {
    uint32_t key, value;
};
struct token {
    uint32_t id, ran;
    uint8_t lock;
};
struct death_state {
    struct weak_cell cells[NWEAK];
    tri_handle map;
    uint8_t map_lock, watch_lock;
    struct map_edge edges[NMAP];
    struct token tokens[NTOKENS];
    tri_finq *queue;
    uint32_t watched[NWATCHED];
    uint32_t ncame; /* objects that came back [atomic]: with all that they name, whose weak slots are cleared by then */
    uint64_t clock; /* of what is put into frames and weak slots, in this order [atomic] */
};

struct world {
    tri_heap *heap;
    tri_thread *thread; /* the coordinator's */
    struct shadow shadow;
    uint32_t pressure; /* live bytes are over the limit: make less, drop more [atomic] */
    uint64_t ncycles;  /* [atomic] */
    struct shared_handle handles[NHANDLES];
    tri_handle wild_handles[NWILD_HANDLES];
    struct shared_range ranges[NRANGES];
    struct shared_range wild_range;
    struct shared_block blocks[NBLOCKS];
    struct shared_stack stacks[NSTACKS];
    pthread_mutex_t made_lock;
    struct made_type *made[NMIXED]; /* [atomic entries] */
    uint32_t nmade;                 /* [atomic] */
    struct death_state death;
};

/* One thread's part in one heap. */
struct frame {
    tri_frame frame;
    void *slots[FRAME_SLOTS];
    uint32_t ids[FRAME_SLOTS];
    uint64_t since[FRAME_SLOTS]; /* by the death state's clock, without a gap */
};
struct part {
    struct world *w;
    tri_thread *t;
    struct frame frames[MAX_FRAMES];
    uint32_t nframes;
    tri_handle locals[MAX_LOCALS];
    uint32_t local_ids[MAX_LOCALS], nlocals, scope, scope_nlocals;
    tri_scanner *scanner;
    tri_word scanned[SCANNER_WORDS];
    uint32_t scanned_ids[SCANNER_WORDS];
    int stack; /* the stack that it runs, or -1 */
    uint32_t blocking_id;
    uint32_t weak_cells[4]; /* that it stored into lately */
    struct shadow_ids ids;
};

enum life { LIFE_NONE = 0, LIFE_RUNS, LIFE_ENDED };

struct worker {
    struct run *run;
    int index;
    pthread_t pthread;
    uint64_t rng, nops, nops_wanted;
    uint32_t life; /* [atomic] */
    bool quiet;    /* inside a call-back from a blocking region: no nesting */
    struct part parts[MAX_HEAPS];
};

struct options {
    const char *name;
    uint64_t nops;
    int nheaps;
    bool rotate;             /* other switches after each comparison */
    const char *settings[6]; /* tri_heap_set, on every heap */
    uint32_t min_heap_kib, limit_kib;
};

struct run {
    struct options options;
    uint64_t seed;
    int nworkers, nheaps;
    struct world *worlds[MAX_HEAPS];
    struct worker *workers;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t pause;    /* workers park [atomic] */
    uint32_t nparked;  /* [mutex] */
    uint32_t nrunning; /* threads that have not ended [mutex] */
    uint64_t ncompared;
};

static inline uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13; /* xorshift64 (Marsaglia 2003) */
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

#define RANDOM(w_) (next_random(&(w_)->rng) >> 8)

static inline bool property_try_lock(uint8_t *lock) {
    return __atomic_load_n(lock, __ATOMIC_RELAXED) == 0 && __atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) == 0;
}
static inline void property_unlock(uint8_t *lock) {
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

/* ---- one operation of one thread in one heap (property_objects.c, property_roots.c) ------------------------------ */

void property_new(struct worker *wk, struct part *p);
void property_load(struct worker *wk, struct part *p);
void property_store(struct worker *wk, struct part *p);
void property_wild(struct worker *wk, struct part *p);
void property_bulk(struct worker *wk, struct part *p);
void property_frames(struct worker *wk, struct part *p);
void property_handle(struct worker *wk, struct part *p);
void property_range(struct worker *wk, struct part *p);
void property_stack(struct worker *wk, struct part *p);
void property_scanner(struct worker *wk, struct part *p);
void property_locals(struct worker *wk, struct part *p);
void property_manual(struct worker *wk, struct part *p);
void property_death(struct worker *wk, struct part *p);

/* property_death.c: in a new world; once all other roots are named; and after the cycles, before numbers are freed. */
void property_death_open(struct world *w);
void property_death_before(struct world *w);
void property_death_after(struct shadow *s, tri_thread *thread, void *world);

/* The frames of a part: index 0 is the oldest. */
struct frame *property_frame_at(struct part *p, uint32_t i);
void property_frame_push(struct part *p);
void property_frame_pop(struct part *p);
/* The number of some object that the thread holds in a frame, or 0; and puts one into some frame's slot. */
uint32_t property_pick(struct part *p, uint64_t random);
void property_keep(struct part *p, uint64_t random, uint32_t id);
/* The next time of the clock by which frames and weak slots get their objects. */
uint64_t property_clock(struct world *w);
/* The number of the object that a word names (checked: it is intact), or 0. */
uint32_t property_decode(struct part *p, enum word_kind kind, tri_word word, const char *where);
/* Suspends the stack that the thread runs, if it runs one. */
void property_leave_stack(struct part *p);

/* ---- a thread (property_threads.c) ------------------------------------------------------------------------------- */

void *property_worker_main(void *worker);

#endif
