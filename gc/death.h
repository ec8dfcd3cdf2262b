/* death.h - what happens to objects that a cycle found unreachable, besides being swept: weak slots are cleared,
 * finalizable objects come back once, cleanups are due.
 *
 *   death.c     the order of these (R7), and who may read what meanwhile
 *   weak.c      weak slots of objects
 *   watch.c     objects whose death is waited for; cleanups
 *   finalize.c  queues of objects that came back
 *   wmap.c      weak maps
 *   ephemeron.c weak maps in a cycle
 *   wtable.c    hash tables for both, in steps
 *
 * Nothing here allocates while objects die (R19): what death needs was reserved when it was asked for. */
#ifndef TRI_GC_DEATH_H
#define TRI_GC_DEATH_H

#include <trigc.h>
#include "alloc/arena.h"
#include "alloc/base/lock.h"
#include "alloc/fixalloc.h"
#include "gc/wtable.h"

struct marker;
struct mutator;

/* A registration on an object: a cleanup, or a finalizer queue's claim. Also what lies in a queue. */
struct watch {
    struct watch *next; /* [lock], as all of it but in the table's lists' hands */
    struct watch *last; /* in the first of an object's: the last of them */
    uintptr_t addr;     /* start of the object */
    tri_finq *queue;    /* NULL: a cleanup */
    void (*fn)(void *); /* the cleanup */
    void *arg;
};

struct watch_list {
    struct watch *first, *last;
};

struct tri_finq {
    tri_finq *next;              /* [lock to write; never removed] */
    tri_heap *heap;              /* [const] */
    struct watch_list delivered; /* came back, roots until they are taken [lock] */
    uint64_t ndelivered;         /* [lock to write, atomic] */
};

/* A share of the table, by hash, so that threads and the cycle seldom want the same lock. An entry's value is an
 * object's first watch, and what kinds of them it has. */
enum { WATCH_SHARDS = 16, WATCH_CLAIM = 1, WATCH_CLEANUP = 2, WATCH_KINDS = 3 };
struct watch_shard {
    struct lock lock;    /* RANK_WATCHES */
    struct wtable table; /* [lock] */
};

struct watches {
    struct watch_shard shards[WATCH_SHARDS];
    struct lock lock;          /* RANK_DEATH */
    struct fixalloc fix;       /* of struct watch */
    struct fixalloc fix_lines; /* of tables, those of weak maps too: lines behind full buckets */
    struct fixalloc fix_block; /* of the shards' tables */
    size_t n, nclaims;         /* in the table, and of these claims of queues [atomic] */
    struct watch_list due;     /* cleanups of dead objects, the first first [lock] */
    uint64_t ndue, nrun;       /* [atomic] */
    struct watch_list revived; /* claims whose objects are coming back [lock to write; who runs cycles] */
    struct watch *shade;       /* of `revived`: the next one to mark [who runs cycles] */
    size_t shard;              /* that death comes to next [who runs cycles] */
    struct wcursor at;         /* in it, as this */
    bool shrinks;              /* its table, after the last look at it; as this */
    tri_finq *queues;          /* [lock] */
    tri_finq *scan_queue;      /* the root scan's, and the watch in it that it comes to next [lock] */
    struct watch *scan;
};

enum { WMAP_LOCKS = 8 };

struct wmap {
    struct wmap *next, *prev; /* [watches.lock to write; next is read by who runs cycles] */
    uintptr_t obj;            /* the collected object [const] */
    tri_enc enc;              /* of the values [const] */
    struct wtable table;      /* of blocks of manual memory [lock] */
    struct wmap *found_next;  /* marked while a pass indexes: its entries are looked at later [who runs cycles] */
    bool is_found;
};

/* Where somebody is in the list of maps, who lets its lock go meanwhile [watches.lock]. */
struct wmap_walk {
    struct wmap *map; /* that comes next */
    struct wmap_walk *next;
};

struct wmaps {
    struct lock locks[WMAP_LOCKS]; /* RANK_WMAPS: by the record's address */
    struct fixalloc fix;           /* records */
    struct wmap *first;            /* [watches.lock] */
    struct wmap_walk *walks;       /* [watches.lock] */
    size_t nmaps;                  /* [watches.lock to write, atomic] */
};

/* One pass over all entries (ephemeron.c) [who runs cycles]. */
enum settle_step { SETTLE_LOOK = 0, SETTLE_INDEX, SETTLE_TRACE, SETTLE_END };
struct settle {
    enum settle_step step;
    struct wmap *map;   /* that the pass is in, and what it comes to next there */
    struct wcursor at;  /* in it */
    struct wmap *found; /* maps that were marked while it traces, and where in the first one it is */
    struct wcursor in_found;
    bool shrinks; /* the map's table, after the last look at it */
    bool in_round;
    bool any, counts;  /* something was marked; entries that wait are counted */
    size_t nwaiting;   /* entries whose key is not marked */
    size_t nlive;      /* entries that are left, when objects die */
    uint32_t *buckets; /* the index of them, NULL: none */
    struct waiting *waiting;
    size_t nbuckets, nindexed, capacity, index_bytes;
};
enum settled { SETTLED_LATER = 0, SETTLED_SOME, SETTLED_NOTHING };

/* Where the deaths of a cycle are (death.c). */
enum death_step {
    DEATH_WEAK = 0,     /* weak slots that name the dead */
    DEATH_CLAIM,        /* watched objects that come back are found */
    DEATH_REVIVE,       /* and marked, with all that they name */
    DEATH_SETTLE,       /* so are the values of keys that came back */
    DEATH_WEAK_REVIVED, /* weak slots in what came back */
    DEATH_MAPS,         /* entries of dead keys go, and dead maps */
    DEATH_CLEANUPS,     /* what is still unmarked is gone: its cleanups are due */
    DEATH_DELIVER,      /* the queues get what came back */
    DEATH_DONE
};

/* A place in the look at all weak slots: page, slot of the span that begins there, byte of that slot. */
struct weak_place {
    size_t page;
    uint32_t slot;
    size_t byte;
};

struct death {
    size_t weak_low;        /* objects with weak slots lie from this page on, as far as any was ever [atomic] */
    size_t weak_end;        /* and before this one; 0: there was none [atomic] */
    struct weak_place weak; /* where the look at all pages goes on [who runs cycles] */
    enum death_step step;   /* [who runs cycles] */
    bool reviving;          /* marks do not tell what was reachable at the close [mem.gate lock] */
    uint64_t cleared_slots; /* weak slots that cycles have cleared, ever [atomic] */
    uint64_t npasses;       /* over all entries of weak maps, ever [who runs cycles] */
    size_t nentries;        /* of weak maps, as the last cycle left them [who runs cycles] */
    struct watches watches;
    struct wmaps maps;
    struct settle settle;
};

void tri__death_init(tri_heap *heap);
void tri__death_fini(tri_heap *heap);
/* Before the close: a pass over weak maps. SETTLED_LATER: the deadline passed, call it again. */
enum settled tri__death_settle(tri_heap *heap, bool in_round, uint64_t deadline_ns);
/* Everything that dies in this cycle, in R7's order; by who runs the cycle, between the close and H5. False: the
 * deadline passed, call it again. */
void tri__death_begin(tri_heap *heap);
bool tri__death(tri_heap *heap, uint64_t deadline_ns);
/* What a cycle looks at for registrations, for the pacer. */
size_t tri__death_bytes(const tri_heap *heap);
/* Objects in the hands of queues are roots: scanned after the last H3 answer. */
void tri__death_scan_begin(tri_heap *heap);
bool tri__death_scan(tri_heap *heap, struct marker *mk, uint64_t deadline_ns);
/* In a forked child, which has one thread: what was coming back is watched again. */
void tri__death_after_fork(tri_heap *heap);
/* An object that is about to be freed by hand dies now. */
void tri__death_of_freed(tri_heap *heap, uintptr_t addr);
/* Whether that looks through the heap: there are weak maps, or there is or was an object with weak slots. */
bool tri__death_looks(const tri_heap *heap);
/* World stopped, between cycles: says what contradicts itself. */
void tri__death_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context);

/* weak.c */
/* An object with weak slots was allocated: the first one of a hole. Before its slots can be written. */
void tri__weak_note(tri_heap *heap, const void *obj);
/* Clears each weak slot of a marked object that names an unmarked one, from heap->death.weak on. False: the deadline
 * passed. */
bool tri__weak_clear_dead(tri_heap *heap, uint64_t deadline_ns);
/* Clears each weak slot that names the object at `addr`. */
void tri__weak_clear_one(tri_heap *heap, uintptr_t addr);
void tri__weak_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context);

/* watch.c */
void tri__watches_init(tri_heap *heap);
void tri__watches_fini(tri_heap *heap);
void tri__watch_append(struct watch_list *list, struct watch *w);
struct watch *tri__watch_pop(struct watch_list *list);
/* The start of the object of this heap that `obj` lies in, which the caller holds; 0, with the error set. */
uintptr_t tri__object_of(struct mutator *m, const void *obj, const char *call);
/* Registers a cleanup (queue NULL) or a claim; the status, with the error set for `call`. */
int tri__watch_add(struct mutator *m, const void *obj, tri_finq *queue, void (*fn)(void *), void *arg,
                   const char *call);
/* Takes the claims of unmarked objects to `revived`, or their cleanups to `due`, from watches.shard on. False: the
 * deadline passed. */
bool tri__watch_take_dead(tri_heap *heap, bool claims, uint64_t deadline_ns);
/* What was on its way to a queue is watched again: no memory is needed for it. */
void tri__watch_take_back(tri_heap *heap);
void tri__watch_freed(tri_heap *heap, uintptr_t addr);
/* Runs every cleanup, due or not. The heap ends. */
void tri__watch_run_all(tri_heap *heap);
void tri__watch_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context);

/* finalize.c */
void tri__finalize_scan_begin(tri_heap *heap);
bool tri__finalize_scan(tri_heap *heap, struct marker *mk, uint64_t deadline_ns);
/* Visits what lies in queues. World stopped. */
void tri__finalize_each(tri_heap *heap, void (*visit)(void *context, const uintptr_t *addr), void *context);
/* From before the first object is revived until all are black, loads that trust a mark wait (R5). */
void tri__finalize_gate(tri_heap *heap, bool reviving);
/* Marks what comes back, from watches.shade on. */
bool tri__finalize_shade(tri_heap *heap, uint64_t deadline_ns);
bool tri__finalize_deliver(tri_heap *heap, uint64_t deadline_ns);

/* wmap.c */
void tri__wmaps_init(tri_heap *heap);
void tri__wmaps_fini(tri_heap *heap);
/* The record of the map whose object starts at `addr`, or NULL: it is none. */
struct wmap *tri__wmap_at(const tri_heap *heap, uintptr_t addr);
/* Takes a map off the list. watches.lock held. */
void tri__wmap_unlink(tri_heap *heap, struct wmap *map);
/* A slice of making a dead map's table nothing, or a live one's as small as its entries need. False: that is done. */
bool tri__wmap_free_some(tri_heap *heap, struct wmap *map);
bool tri__wmap_shrink_some(tri_heap *heap, struct wmap *map);
void tri__wmaps_freed(tri_heap *heap, uintptr_t addr);
void tri__wmaps_verify(tri_heap *heap, void (*say)(void *context, const char *text), void *context);

/* ephemeron.c */
/* A new pass. One in a round ends as soon as the round has failed. */
void tri__ephemerons_begin(tri_heap *heap, bool in_round);
/* Marks the values of marked keys in marked maps (R6). SETTLED_SOME: it marked something, so marking has to go on and
 * another pass to follow. */
enum settled tri__ephemerons_settle(tri_heap *heap, uint64_t deadline_ns);
/* Takes out the entries of unmarked keys, and frees unmarked maps, after tri__ephemerons_begin. False: the deadline
 * passed. */
bool tri__ephemerons_clear(tri_heap *heap, uint64_t deadline_ns);
void tri__ephemerons_abandon(tri_heap *heap);
/* Visits every entry. World stopped. */
void tri__ephemerons_each(tri_heap *heap, void (*visit)(void *context, const struct wmap *map, const struct wentry *e),
                          void *context);

#endif
