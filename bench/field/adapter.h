/* adapter.h - the little that a load of the field benchmark needs of an allocator.
 *
 *   ad_thread                         a thread's attachment; nothing where the allocator has none
 *   ad_setup()                        once, first
 *   ad_attach(), ad_detach(t)         on every thread
 *   ad_wait(t, fn, arg)               runs fn(arg), which may wait for other threads
 *   AD_NEW(t, size, kind)             an object of a size of FIELD_SIZES, known when compiling; kind: pointers or leaf
 *   ad_bytes(t, size)                 pointer-free memory of any size
 *   ad_words(t, size)                 memory of any size whose words are references
 *   ad_refs(t, n)                     an array of n references, all NULL
 *   ad_poll(t)                        where a thread waits in a loop without allocating
 *   ad_init(t, obj, slot, ref)        the first store of a reference into a new object
 *   ad_put(t, obj, slot, ref)         any other
 *   AD_FREES                          1: objects end by ad_free(t, obj); 0: it does nothing
 *   ad_report()                       prints what the heap says of itself, a key and a value a line
 *   ad_collect(t)                     a collection, where there is one
 *   ad_trim(t)                        asks for free memory to be returned to the system
 *
 * `pointers` objects hold a reference in their first word; a `leaf` object holds none. Where objects are
 * freed by hand, `pointers` are zeroed all the same, so that the two kinds mean one thing. */
#ifndef FIELD_ADAPTER_H
#define FIELD_ADAPTER_H

#include <stddef.h>
#include <stdint.h>

/* The sizes of the short-lived objects. */
#define FIELD_SIZES(X) X(16) X(32) X(64) X(256) X(1024) X(8192) X(65536)

#if defined(FIELD_TRIGC)
#include "bench/field/adapter_trigc.h"
#elif defined(FIELD_MANUAL)
#include "bench/field/adapter_manual.h"
#elif defined(FIELD_BOEHM)
#include "bench/field/adapter_boehm.h"
#elif defined(FIELD_MALLOC)
#include "bench/field/adapter_malloc.h"
#else
#error "one of FIELD_TRIGC, FIELD_MANUAL, FIELD_MALLOC, FIELD_BOEHM"
#endif

#endif
