/* lock.c - mutexes with a rank, on pthreads.
 *
 * Owns: the stack of locks that the calling thread holds (TRI_CHECKS >= 1 only), and the clock of timed waits. Does not
 * own: the order itself, which is the table in lock.h, nor what each lock protects.
 *
 * Invariants, asserted in checked builds:
 * I-LOCK1  a thread takes locks in strictly rising rank; so no two locks of one rank are held at once.
 * I-LOCK2  a lock is released by the thread that took it.
 * I-LOCK3  a thread waits only on the lock it took last, since the wait takes that lock anew at its end.
 *
 * Plain pthread mutexes underneath, which ThreadSanitizer and the debuggers know. Nothing here allocates. */
#include "alloc/base/lock.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "alloc/base/atomic.h"
#include "alloc/base/bits.h"
#include "alloc/base/check.h"
#include "alloc/base/os.h"

#if TRI_CHECKS >= 1

enum { MAX_HELD = 16 }; /* more than there are ranks */

static _Thread_local const struct lock *held[MAX_HELD]; /* in the order taken, so by rising rank */
static _Thread_local unsigned nheld;

static char *append(char *at, const char *limit, const char *text) {
    size_t n = min_size(strlen(text), (size_t)(limit - at));
    memcpy(at, text, n);
    at += n;
    *at = '\0';
    return at;
}

static char *append_lock(char *at, const char *limit, const struct lock *lock) {
    char rank[] = {' ', '(', 'r', 'a', 'n', 'k', ' ', '0', '0', ')', '\0'};
    rank[7] = (char)('0' + lock->rank / 10 % 10);
    rank[8] = (char)('0' + lock->rank % 10);
    at = append(at, limit, lock->name);
    return append(at, limit, rank);
}

/* Names the lock at fault and the one that is held, and aborts. */
static _Noreturn TRI_COLD void violation(const char *invariant, const struct lock *lock, const char *what,
                                         const struct lock *other) {
    char text[256];
    const char *limit = text + sizeof text - 1;
    char *at = append(text, limit, invariant);
    at = append_lock(at, limit, lock);
    at = append(at, limit, what);
    if (other != NULL) {
        append_lock(at, limit, other);
    }
    tri__fatal(__FILE__, __LINE__, "rank order", text);
}

static void before_take(const struct lock *lock) {
    if (nheld > 0 && TRI_UNLIKELY(held[nheld - 1]->rank >= lock->rank)) {
        violation("I-LOCK1 ", lock, " is taken while holding ", held[nheld - 1]);
    }
    check_always(nheld < MAX_HELD, "I-LOCK1 there are fewer ranks than entries of the held stack");
}

static void after_take(const struct lock *lock) {
    held[nheld++] = lock;
}

static void before_release(const struct lock *lock) {
    unsigned i = nheld;
    while (i > 0 && held[i - 1] != lock) {
        i--;
    }
    if (TRI_UNLIKELY(i == 0)) {
        violation("I-LOCK2 ", lock, " is released, but this thread does not hold it", NULL);
    }
    nheld--;
    for (i--; i < nheld; i++) {
        held[i] = held[i + 1];
    }
}

static void before_wait(const struct lock *lock) {
    if (TRI_UNLIKELY(nheld == 0)) {
        violation("I-LOCK3 ", lock, " is waited on, but this thread does not hold it", NULL);
    }
    if (TRI_UNLIKELY(held[nheld - 1] != lock)) {
        violation("I-LOCK3 ", lock, " is waited on, but the lock taken last is ", held[nheld - 1]);
    }
}

bool tri__lock_held(const struct lock *lock) {
    for (unsigned i = 0; i < nheld; i++) {
        if (held[i] == lock) {
            return true;
        }
    }
    return false;
}

bool tri__lock_none_held(void) {
    return nheld == 0;
}

#else

static inline void before_take(const struct lock *lock) {
    (void)lock;
}

static inline void after_take(const struct lock *lock) {
    (void)lock;
}

static inline void before_release(const struct lock *lock) {
    (void)lock;
}

static inline void before_wait(const struct lock *lock) {
    (void)lock;
}

bool tri__lock_held(const struct lock *lock) {
    (void)lock;
    return true;
}

bool tri__lock_none_held(void) {
    return true;
}

#endif

void tri__lock_init(struct lock *lock, enum lock_rank rank, const char *name) {
    pthread_mutexattr_t attr;
    int error = pthread_mutexattr_init(&attr);
    check_always(error == 0, "I-LOCK attributes of a mutex need nothing of the system");
#if defined(__GLIBC__) /* short critical sections: a waiter spins for a moment before it sleeps */
    error = pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    check_always(error == 0, "I-LOCK the adaptive type exists");
#endif
    error = pthread_mutex_init(&lock->mutex, &attr);
    check_always(error == 0, "I-LOCK a mutex can always be made");
    pthread_mutexattr_destroy(&attr);
    lock->name = name;
    lock->rank = (int)rank;
}

void tri__lock_fini(struct lock *lock) {
    int error = pthread_mutex_destroy(&lock->mutex);
    check_always(error == 0, "I-LOCK a lock is free when it ends");
}

enum { SPIN_NS = 20000, LOOKS_A_CLOCK = 8, RELAXES_A_LOOK = 8 };

static _Thread_local uint64_t waited_ns, longest_ns; /* for locks, since the thread asked last; for one of them */
static _Thread_local int longest_rank;

static void add_waited(uint64_t ns, int rank) {
    waited_ns += ns;
    if (ns < longest_ns) return;
    longest_ns = ns;
    longest_rank = rank;
}

/* Critical sections take a few microseconds at most as a rule: who sleeps for one costs the holder a wakeup, and gets
 * the lock when the system has found it a core, which takes ten times as long and may take a thousand times. So it
 * looks again for a while, and sleeps when the holder has, most likely, lost its own core. False: it is to sleep. */
static bool spin_for(struct lock *lock, uint64_t start_ns) {
    static unsigned ncpus; /* asked for once: what a process may use rarely changes */
    unsigned n = atomic_load_relaxed(&ncpus);
    if (n == 0) atomic_store_relaxed(&ncpus, n = tri__os_ncpus());
    if (n == 1) return false;
    do
        for (int i = 0; i < LOOKS_A_CLOCK; i++) {
            for (int k = 0; k < RELAXES_A_LOOK; k++) cpu_relax();
            if (pthread_mutex_trylock(&lock->mutex) == 0) return true;
        }
    while (tri__os_now_ns() - start_ns < SPIN_NS);
    return false;
}

static TRI_COLD void take_from_another(struct lock *lock) {
    uint64_t start = tri__os_now_ns();
    if (!spin_for(lock, start)) {
        int error = pthread_mutex_lock(&lock->mutex);
        check_always(error == 0, "I-LOCK an initialised lock can be taken");
    }
    add_waited(tri__os_now_ns() - start, lock->rank);
}

void tri__lock_add_waited(uint64_t ns) {
    add_waited(ns, 0);
}

uint64_t tri__lock_take_waited(int *rank) {
    uint64_t ns = waited_ns;
    *rank = longest_rank;
    if (TRI_UNLIKELY(ns != 0)) waited_ns = longest_ns = 0;
    return ns;
}

void tri__lock_forget_waited(void) {
    waited_ns = longest_ns = 0;
}

void tri__lock_acquire(struct lock *lock) {
    before_take(lock);
    if (TRI_UNLIKELY(pthread_mutex_trylock(&lock->mutex) != 0)) take_from_another(lock);
    after_take(lock);
}

void tri__lock_release(struct lock *lock) {
    before_release(lock);
    int error = pthread_mutex_unlock(&lock->mutex);
    check_always(error == 0, "I-LOCK2 a held lock can be released");
}

void tri__lock_acquire_any(struct lock *lock) {
    int error = pthread_mutex_lock(&lock->mutex);
    check_always(error == 0, "I-LOCK an initialised lock can be taken");
}

void tri__lock_release_any(struct lock *lock) {
    int error = pthread_mutex_unlock(&lock->mutex); /* adaptive: the child of a fork may release its parent's */
    check_always(error == 0, "I-LOCK2 a held lock can be released");
}

void tri__cond_init(struct cond *cond) {
    pthread_condattr_t attr;
    int error = pthread_condattr_init(&attr);
    check_always(error == 0, "I-LOCK attributes of a condition variable need nothing of the system");
    error = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    check_always(error == 0, "I-LOCK the monotonic clock times waits");
    error = pthread_cond_init(&cond->cond, &attr);
    check_always(error == 0, "I-LOCK a condition variable can always be made");
    pthread_condattr_destroy(&attr);
}

void tri__cond_fini(struct cond *cond) {
    int error = pthread_cond_destroy(&cond->cond);
    check_always(error == 0, "I-LOCK nobody waits on a condition variable when it ends");
}

void tri__cond_wait(struct cond *cond, struct lock *lock) {
    before_wait(lock);
    int error = pthread_cond_wait(&cond->cond, &lock->mutex);
    check_always(error == 0, "I-LOCK3 a held lock can be waited on");
}

/* The moment timeout_ns from now; far in the future where the sum is more than the clock can say. */
static struct timespec deadline_after(uint64_t timeout_ns) {
    enum { NS_PER_S = 1000000000, MOST_S = 1000000000 };
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t seconds = timeout_ns / NS_PER_S;
    seconds = seconds < MOST_S ? seconds : MOST_S;
    t.tv_sec += (time_t)seconds;
    t.tv_nsec += (long)(timeout_ns % NS_PER_S);
    if (t.tv_nsec >= NS_PER_S) {
        t.tv_nsec -= NS_PER_S;
        t.tv_sec++;
    }
    return t;
}

bool tri__cond_wait_for(struct cond *cond, struct lock *lock, uint64_t timeout_ns) {
    before_wait(lock);
    struct timespec deadline = deadline_after(timeout_ns);
    int error = pthread_cond_timedwait(&cond->cond, &lock->mutex, &deadline);
    check_always(error == 0 || error == ETIMEDOUT, "I-LOCK3 a held lock can be waited on");
    return error == 0;
}

void tri__cond_broadcast(struct cond *cond) {
    int error = pthread_cond_broadcast(&cond->cond);
    check_always(error == 0, "I-LOCK an initialised condition variable can be signalled");
}
