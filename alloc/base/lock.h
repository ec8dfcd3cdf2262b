/* lock.h - mutexes with a rank. Ranks are taken in strictly rising order; checked builds (TRI_CHECKS >= 1) keep the
 * thread's held locks in a small stack and abort on a violation, naming both locks.
 *
 * The order is data, here, once. docs/design.md prints this table. */
#ifndef TRI_BASE_LOCK_H
#define TRI_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum lock_rank {
    RANK_HEAPS = 3,     /* the process's: all heaps, for fork */
    RANK_REGISTRY = 5,  /* the process's: whose cache of manual memory is whose */
    RANK_CYCLE = 10,    /* requests for a cycle, and who waits for one */
    RANK_THREADS = 20,  /* a heap's threads, the last posted step, the flip (R9) */
    RANK_OSTHREAD = 25, /* one OS thread's attachments */
    RANK_ROOTS = 30,    /* ranges, persistent handles, suspended stacks */
    RANK_WATCHES = 32,  /* objects whose death is waited for: a lock for a share of them each */
    RANK_DEATH = 33,    /* cleanups that are due, finalizer queues, the list of weak maps */
    RANK_WMAPS = 34,    /* entries of weak maps, a lock for some of the maps each */
    RANK_PACE = 36,     /* the pacer's figures */
    RANK_GATE = 40,     /* the weak-load gate and the decision to close (R5) */
    RANK_CENTRAL = 50,  /* one layout's spans; never two */
    RANK_LARGE = 55,    /* a heap's large spans */
    RANK_WORK = 60,     /* full and empty work buffers */
    RANK_COPIES = 62,   /* copies of deep stacks */
    RANK_MANUAL = 65,   /* a heap's spans of manual memory, caches of ended threads */
    RANK_PAGEHEAP = 70, /* page runs, arenas */
    RANK_FIXALLOC = 80  /* one kind of metadata */
};

struct lock {
    pthread_mutex_t mutex;
    const char *name; /* [const] */
    int rank;         /* [const] */
};

void tri__lock_init(struct lock *lock, enum lock_rank rank, const char *name);
void tri__lock_fini(struct lock *lock);
void tri__lock_acquire(struct lock *lock);
void tri__lock_release(struct lock *lock);
/* The same for fork, which takes all locks, several of one rank: not counted among the thread's. */
void tri__lock_acquire_any(struct lock *lock);
void tri__lock_release_any(struct lock *lock);
/* True in unchecked builds, too: use it only inside check_ macros. */
bool tri__lock_held(const struct lock *lock);
/* True if the calling thread holds no lock of ours (always true in unchecked builds): before each wait (R14). */
bool tri__lock_none_held(void);

/* For how long the calling thread has waited for locks that others held, since it asked last; *rank: of the one that it
 * waited for longest, 0: it waited by other means. And what is to be added, for whoever does. */
uint64_t tri__lock_take_waited(int *rank);
void tri__lock_add_waited(uint64_t ns);
/* They are nobody's, or part of something else that is told. */
void tri__lock_forget_waited(void);

/* A condition variable to go with a lock; timeouts on the monotonic clock. */
struct cond {
    pthread_cond_t cond;
};
void tri__cond_init(struct cond *cond);
void tri__cond_fini(struct cond *cond);
void tri__cond_wait(struct cond *cond, struct lock *lock);
/* False when timeout_ns passed first. */
bool tri__cond_wait_for(struct cond *cond, struct lock *lock, uint64_t timeout_ns);
void tri__cond_broadcast(struct cond *cond);

#endif
