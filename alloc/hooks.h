/* hooks.h - the one upward edge: what alloc/ asks of the layer above, as a table that gc/ fills in.
 *
 * Contract of all of them: called on the thread that allocates or sweeps; may not allocate from this heap. */
#ifndef TRI_ALLOC_HOOKS_H
#define TRI_ALLOC_HOOKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct alloc_hooks {
    /* An allocation swept spans itself, which took it so long. No lock held. */
    void (*swept_on_demand)(void *context, uint64_t ns);
    /* A large object's memory, or its entries in the tables, are made as far as `done_bytes`: a safepoint is due. No
     * lock held, nothing in hand but the span that is being built. */
    void (*zeroing)(void *context, void *mutator, size_t done_bytes);
    /* Resident pages have come to a limit, and some of them are free: more than the caller has returned on the spot
     * should go back. May be NULL. */
    void (*limit_near)(void *context);
    /* Few pages are left that were populated ahead (tri__pageheap_set_ahead). Told once. May be NULL. */
    void (*grows)(void *context);
    /* A span of manual memory was made, or became empty: such a heap may have no allocation of objects to be seen by.
     * The manual lock may be held. May be NULL. */
    void (*manual_moves)(void *context);
    /* Random delay inside a protocol step (stress); may be NULL. */
    void (*delay)(void *context);
    void *context;
};

#endif
