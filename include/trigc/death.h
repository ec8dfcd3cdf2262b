/* trigc/death.h - what a program is told when objects die: weak slots and maps, cleanups, finalizer queues.
 * Included by trigc.h, whose conventions hold here. */
#ifndef TRIGC_H
#include <trigc.h> /* which includes this file */
#endif
#ifndef TRIGC_DEATH_H
#define TRIGC_DEATH_H

#ifdef __cplusplus
extern "C" {
#endif

/* What a weak slot of an object names, as a strong reference; NULL: nothing, or what it named is dead. A weak slot
 * holds a plain pointer to an object or into one. It is written with tri_init, tri_store and tri_clear, and cleared by
 * the cycle that finds the object unreachable, before any cleanup or finalizer of it can be seen; tri_xchg, tri_cas and
 * tri_move refuse it, and a plain read of it is no reference. The object that the slot lies in must be in a root.
 * SAFEPOINT: when weak loads of otherwise unreachable objects have kept a cycle from its end for some rounds, it waits
 * for that end, for wait_limit_ms at most (NULL, with TRI_ETIMEDOUT as the last error). Any attached thread. */
static inline void *tri_weak_load(tri_thread *thread, const void *slot);

/* Cleanups: fn(arg) is due once `obj` is gone: in the cycle that finds it unreachable and not coming back (or at its
 * tri_free), when its weak references are cleared. It runs when the host says so, on the thread that does. `arg` is the
 * host's and no root; it must not lead to `obj`, which would not die then. An object may have several: they are due in
 * the order in which they were added. TRI_EINVAL for fn NULL, for what is no object of this heap and for one that
 * shares its slot (tiny=on); TRI_ENOMEM. Not a safepoint. Any attached thread. */
TRI_API int tri_cleanup_add(tri_thread *thread, void *obj, void (*fn)(void *arg), void *arg);

/* Takes back the first such cleanup of a live object; TRI_EINVAL when it has none. Not a safepoint. Any attached
 * thread. */
TRI_API int tri_cleanup_remove(tri_thread *thread, void *obj, void (*fn)(void *arg), void *arg);

/* Runs up to `max` cleanups that are due, each once, and returns how many; one load when there are none, so it may be
 * called at each turn of a loop. They run here, one after the other and with nothing locked, and may do whatever the
 * thread may; after one that detaches it the others stay due. SAFEPOINT if they are. Any attached thread; several may
 * run them at once. */
TRI_API size_t tri_cleanup_run(tri_thread *thread, size_t max);

/* Weak maps, keyed by identity: from an object to a value, for as long as map and key both live. An entry keeps neither
 * alive by itself, and the value lives as long as its key does, also where it leads back to the key (an ephemeron).
 * Maps may be used by several threads at once. What is found in them is a reference like any other: root it before the
 * next safepoint. The map, and what is passed as key or value, must be in roots.
 *
 * A new, empty map: an object like any other, which lives while it is referred to. `enc` says how its values name
 * objects; NULL: they are plain pointers. NULL: TRI_ENOMEM, TRI_EINVAL for an encoding that contradicts itself,
 * TRI_ELIMIT when the program's types have used up all layout numbers before its first map. SAFEPOINT. Any attached
 * thread. */
TRI_API void *tri_wmap_new(tri_thread *thread, const tri_enc *enc);

/* Sets the value of a key, in a time that does not grow with the map: its table grows by a few entries at a time.
 * TRI_EINVAL for what is no map or no object (nor may a key share its slot, tiny=on), TRI_ENOMEM when there is no
 * memory for another entry: nothing has changed then. Not a safepoint. Any attached thread. */
TRI_API int tri_wmap_put(tri_thread *thread, void *map, void *key, tri_word value);

/* The value of a key, in *value (which may be NULL); false: it has none. SAFEPOINT as tri_weak_load. Any attached
 * thread. */
TRI_API bool tri_wmap_get(tri_thread *thread, void *map, const void *key, tri_word *value);

/* Takes a key out; false: it was not in. Not a safepoint. Any attached thread. */
TRI_API bool tri_wmap_remove(tri_thread *thread, void *map, const void *key);

/* Entries, with those of keys that are dead and not found to be yet. Not a safepoint. Any attached thread. */
TRI_API size_t tri_wmap_count(tri_thread *thread, void *map);

/* The next entry, from *position (0 at first) on; false: there are no more. In no order; each entry that stays is given
 * once, one that is put or taken out meanwhile perhaps. SAFEPOINT as tri_weak_load, and while objects are
 * coming back to finalizer queues. Any attached thread. */
TRI_API bool tri_wmap_next(tri_thread *thread, void *map, size_t *position, void **key, tri_word *value);

/* Finalizer queues, for objects that must be seen once more. An object that is watched and that nothing reaches any
 * more comes back once, with all that it names, and lies in its queue (which is a root) until the host takes it out.
 * All that die in one cycle come back in it, in no particular order, also those that name each other. Weak slots that
 * named it are cleared before, its cleanups wait until it dies for good. Prefer cleanups: they cost no second cycle.
 *
 * The heap's end drops queues with all that lies in them, and all that is still watched, dead or not: nothing can be
 * given to a heap without threads. Who wants to see every object drops the roots that keep them and calls tri_collect
 * and then tri_finq_poll until NULL, before the last tri_detach (again, for what it watches anew meanwhile). Cleanups
 * are the other choice: TRI_HEAP_RUN_CLEANUPS.
 *
 * A new queue, which lives as long as its heap. NULL: TRI_ENOMEM. Not a safepoint. Any attached thread. */
TRI_API tri_finq *tri_finq_new(tri_thread *thread);

/* Watches `obj` for the queue, until it has come back (then it can be watched again, also by who finds it in another
 * that came back, and has not taken it out of the queue yet) or is freed by tri_free.
 * TRI_ESTATE when it is watched already; TRI_EINVAL, TRI_ENOMEM as tri_cleanup_add. Not a safepoint. Any attached
 * thread. */
TRI_API int tri_finq_watch(tri_thread *thread, tri_finq *queue, void *obj);

/* Takes the next object out of the queue, or NULL: there is none now. A reference like any other from here on: root it
 * before the next safepoint. Not a safepoint. Any attached thread. */
TRI_API void *tri_finq_poll(tri_thread *thread, tri_finq *queue);

#ifdef __cplusplus
}
#endif

#endif
