/* arena.c - reserving and committing one heap's address space and side tables; see arena.h. */
#include "alloc/arena.h"
#include <string.h>
#include "alloc/base/check.h"
#include "alloc/base/os.h"

_Static_assert(PAGE_BIT_WORDS * 8 == 64, "a page's bits fill one cache line");
_Static_assert(sizeof(struct page_entry) == 16, "two loads describe a page");

/* Side tables in one list: size by page, and where the pointer lies. */
enum { NUM_TABLES = 5 };
static const size_t table_bytes_per_page[NUM_TABLES] = {
    sizeof(struct page_entry),        sizeof(struct span *), PAGE_BIT_WORDS * 8, PAGE_BIT_WORDS * 8,
    (PAGE_BYTES >> LAYOUT_SHIFT) * 2,
};

static void *table_at(const struct space *space, int i) {
    switch (i) {
    case 0: return space->pages;
    case 1: return space->spans;
    case 2: return space->marks;
    case 3: return space->allocs;
    default: return space->layouts;
    }
}

static void table_set(struct space *space, int i, void *table) {
    switch (i) {
    case 0: space->pages = table; break;
    case 1: space->spans = table; break;
    case 2: space->marks = table; break;
    case 3: space->allocs = table; break;
    default: space->layouts = table; break;
    }
}

static size_t table_size(const struct space *space, int i) {
    return align_up(space->npages * table_bytes_per_page[i], 1 << 16);
}

bool tri__space_init(struct space *space, size_t size_bytes) {
    memset(space, 0, sizeof *space);
    check_always(size_bytes % ((size_t)CHUNK_PAGES << PAGE_SHIFT) == 0, "I-ARENA: the reservation is whole chunks");
    void *range = tri__os_reserve(size_bytes, ARENA_BYTES);
    if (!range) return false;
    space->base = (uintptr_t)range;
    space->size_bytes = size_bytes;
    space->npages = size_bytes >> PAGE_SHIFT;
    space->system_page_bytes = tri__os_page_size();
    for (int i = 0; i < NUM_TABLES; i++) {
        void *table = tri__os_reserve_readable(table_size(space, i)); /* I-ARENA1 */
        if (!table) {
            tri__space_fini(space);
            return false;
        }
        table_set(space, i, table);
    }
    return true;
}

void tri__space_fini(struct space *space) {
    for (int i = 0; i < NUM_TABLES; i++)
        if (table_at(space, i)) tri__os_release(table_at(space, i), table_size(space, i));
    if (space->base) tri__os_release((void *)space->base, space->size_bytes);
    memset(space, 0, sizeof *space);
}

bool tri__space_commit(void *context, size_t first, size_t npages) {
    struct space *space = context;
    check_cheap(first + npages <= space->npages, "I-ARENA: commits stay inside the reservation");
    /* A table that is already writable here from a commit that failed half-way is simply made writable again. */
    /* A huge page needs a whole one's range writable. */
    size_t unit = atomic_load_relaxed(&space->huge_tables) ? HUGE_PAGE_BYTES : tri__os_page_size(); /* an option */
    for (int i = 0; i < NUM_TABLES; i++) {
        size_t from = align_down(first * table_bytes_per_page[i], unit);
        size_t to = min_size(align_up((first + npages) * table_bytes_per_page[i], unit), table_size(space, i));
        if (!tri__os_commit((char *)table_at(space, i) + from, to - from)) return false;
    }
    if (!tri__os_commit((void *)space_page_addr(space, first), npages << PAGE_SHIFT)) return false;
    atomic_store_release(&space->committed_pages,
                         space->committed_pages + npages); /* pairs with walks over the pages */
    return true;
}

bool tri__space_decommit(void *context, size_t first, size_t npages) {
    struct space *space = context;
    return tri__os_decommit((void *)space_page_addr(space, first), npages << PAGE_SHIFT);
}

bool tri__space_populate(void *context, size_t first, size_t npages) {
    struct space *space = context;
    for (int i = 0; i < NUM_TABLES - 1; i++) { /* layouts[]: mixed spans only */
        size_t from = align_down(first * table_bytes_per_page[i], tri__os_page_size());
        size_t to = align_up((first + npages) * table_bytes_per_page[i], tri__os_page_size());
        if (!tri__os_populate((char *)table_at(space, i) + from, to - from)) return false;
    }
    return tri__os_populate((void *)space_page_addr(space, first), npages << PAGE_SHIFT);
}

void tri__space_release_tables(void *context, size_t first, size_t npages) {
    struct space *space = context;
    check_cheap(first % CHUNK_PAGES == 0 && npages % CHUNK_PAGES == 0, "I-ARENA: whole chunks have whole system pages");
    for (int i = 0; i < NUM_TABLES; i++) {
        size_t bytes = table_bytes_per_page[i]; /* refused: entries without a span say nothing anyway */
        tri__os_decommit((char *)table_at(space, i) + first * bytes, npages * bytes);
    }
}

bool tri__space_huge_tables(struct space *space, bool huge) {
    bool ok = true;
    atomic_store_relaxed(&space->huge_tables, huge); /* for the arenas that are committed later */
    for (int i = 0; i < NUM_TABLES; i++) ok &= tri__os_advise_huge(table_at(space, i), table_size(space, i), huge);
    return ok;
}

size_t tri__space_metadata_bytes(const struct space *space) {
    size_t per_page = 0;
    for (int i = 0; i < NUM_TABLES - 1; i++) per_page += table_bytes_per_page[i]; /* layouts[]: mixed spans only */
    return atomic_load_acquire(&space->committed_pages) * per_page;               /* pairs with space_commit */
}
