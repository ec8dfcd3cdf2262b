/* wtable.c - hash tables by the address of an object, for weak maps and for objects whose death is waited for.
 *
 * A table may have a million entries, and its owner's lock is wanted by mutators and by who runs cycles. So nothing
 * that is done with the lock held takes longer for a large table: it grows by one bucket at a time (Litwin's linear
 * hashing), and so it shrinks. Buckets are cache lines of three entries, in blocks of 64 that are the leaves of a tree
 * of blocks of pointers; one that grows takes a block at most, which is had before the lock is taken. A bucket that is
 * full goes on in another line.
 *
 * Who looks at all entries goes by bucket, upwards, and lets the lock go as often as it likes: an entry moves only from
 * a bucket to a later one, so that whatever stays in the table is met, some of it twice. Who has a cursor for longer
 * than that, while the table may shrink, too, goes by the reversed hash, an order that does not depend on the number of
 * buckets: the bucket of all hashes that end in some bits has an interval of the reversed ones to itself.
 *
 * Invariants: I-WTAB1 a key is in its bucket, once; n counts them; buckets from nbuckets on are zero, and at most
 * nroom. I-WTAB2 an entry moves to an earlier bucket only in tri__wtable_contract. Lock rank: its owner's; and that of
 * lines, fixalloc (80). */
#include "gc/wtable.h"
#include <string.h>
#include "alloc/base/bits.h"
#include "alloc/base/check.h"

enum {
    FIRST_BUCKETS = WTABLE_FIRST_BYTES / sizeof(struct wbucket),
    BLOCK_LOG2 = 6, /* buckets of a block */
    NODE_LOG2 = 9,  /* pointers of a block */
    FILL = 2,       /* entries a bucket: grows beyond, and shrinks below half of one */
    SLACK = 1 << BLOCK_LOG2,
    AHEAD = 8 /* buckets */
};
_Static_assert(sizeof(struct wbucket) == 64, "a line");
_Static_assert(WTABLE_BLOCK_BYTES == sizeof(struct wbucket) << BLOCK_LOG2, "a block of buckets");
_Static_assert(WTABLE_BLOCK_BYTES == sizeof(void *) << NODE_LOG2, "a block of pointers");

uint64_t tri__wtable_hash(uintptr_t key) {
    uint64_t x = key >> 3; /* the finalizer of splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* ---- buckets ----------------------------------------------------------------------------------------------------- */

static struct wbucket *bucket_at(const struct wtable *t, size_t b) {
    void *p = t->root;
    for (uint32_t h = t->height; h > 0; h--)
        p = ((void **)p)[b >> (BLOCK_LOG2 + NODE_LOG2 * (h - 1)) & ((1u << NODE_LOG2) - 1)];
    return (struct wbucket *)p + (t->height ? b & (SLACK - 1) : b);
}

/* Buckets that an index with all of its bits would fill: those below split ones have one bit more. */
static size_t low_of(const struct wtable *t) {
    return (size_t)1 << bit_highest(t->nbuckets);
}

static size_t bucket_of(const struct wtable *t, uint64_t hash) {
    size_t low = low_of(t), b = hash & (2 * low - 1);
    return b < t->nbuckets ? b : hash & (low - 1);
}

struct wentry *tri__wtable_find(const struct wtable *t, uintptr_t key) {
    if (t->nbuckets == 0) return NULL;
    for (struct wbucket *w = bucket_at(t, bucket_of(t, tri__wtable_hash(key))); w; w = w->more)
        for (size_t i = 0; i < WBUCKET_ENTRIES; i++)
            if (w->at[i].key == key) return &w->at[i];
    return NULL;
}

/* Lines until there is a place for `n` more. False: no memory; lines that were added are empty. */
static bool ensure_places(struct wbucket *w, struct fixalloc *more, size_t n) {
    for (size_t nfree = 0;; w = w->more) {
        for (size_t i = 0; i < WBUCKET_ENTRIES; i++) nfree += w->at[i].key == 0;
        if (nfree >= n) return true;
        if (w->more) continue;
        w->more = tri__fixalloc_get(more);
        if (!w->more) return false;
        memset(w->more, 0, sizeof *w->more);
    }
}

/* In a bucket that has a place. */
static void place(struct wbucket *w, const struct wentry *e) {
    for (;; w = w->more)
        for (size_t i = 0; i < WBUCKET_ENTRIES; i++)
            if (w->at[i].key == 0) {
                w->at[i] = *e;
                return;
            }
}

static bool is_empty(const struct wbucket *w) {
    return w->at[0].key == 0 && w->at[1].key == 0 && w->at[2].key == 0;
}

/* Lines at the end that nothing is in: those in the middle stay, so that places keep their numbers. */
static void drop_empty_lines(struct wbucket *w, struct fixalloc *more) {
    for (;;) {
        struct wbucket *before = NULL, *last = w;
        while (last->more) before = last, last = last->more;
        if (!before || !is_empty(last)) return;
        before->more = NULL;
        tri__fixalloc_put(more, last);
    }
}

static void drop_lines(struct wbucket *w, struct fixalloc *more) {
    for (struct wbucket *line = w->more, *next; line; line = next) {
        next = line->more;
        tri__fixalloc_put(more, line);
    }
    memset(w, 0, sizeof *w);
}

/* ---- growing by a bucket, and shrinking by one ------------------------------------------------------------------- */

/* Moves the entries of `from` whose hash has `bit` set (all, with no bit) to another bucket. */
static bool move(struct wbucket *from, struct wbucket *to, struct fixalloc *more, uint64_t bit) {
    size_t n = 0;
    for (const struct wbucket *w = from; w; w = w->more)
        for (size_t i = 0; i < WBUCKET_ENTRIES; i++)
            n += w->at[i].key && (!bit || tri__wtable_hash(w->at[i].key) & bit);
    bool fits = ensure_places(to, more, n);
    for (struct wbucket *w = from; fits && w; w = w->more)
        for (size_t i = 0; i < WBUCKET_ENTRIES; i++) {
            if (!w->at[i].key || (bit && !(tri__wtable_hash(w->at[i].key) & bit))) continue;
            place(to, &w->at[i]);
            w->at[i] = (struct wentry){0, 0};
        }
    drop_empty_lines(fits ? from : to, more);
    return fits;
}

static bool is_crowded(const struct wtable *t) {
    return t->n > t->nbuckets * FILL;
}

/* One bucket more: the entries of one are shared out to it and the new one, which is ahead (I-WTAB2). */
static void split(struct wtable *t, struct fixalloc *more) {
    if (!is_crowded(t) || t->nbuckets == t->nroom) return;
    size_t low = low_of(t);
    if (move(bucket_at(t, t->nbuckets - low), bucket_at(t, t->nbuckets), more, low)) t->nbuckets++;
}

bool tri__wtable_contract(struct wtable *t, struct fixalloc *more, size_t nbuckets) {
    for (; nbuckets > 0; nbuckets--) {
        if (t->nbuckets <= FIRST_BUCKETS || t->n * 2 >= t->nbuckets) return false;
        size_t last = t->nbuckets - 1, low = (size_t)1 << bit_highest(last);
        struct wbucket *from = bucket_at(t, last);
        if (!move(from, bucket_at(t, last - low), more, 0)) return false;
        t->nbuckets = last;
    }
    return true;
}

void tri__wtable_drop(struct wtable *t, struct fixalloc *more, size_t nbuckets) {
    for (; nbuckets > 0 && t->nbuckets > 0; nbuckets--) {
        struct wbucket *w = bucket_at(t, --t->nbuckets);
        for (struct wbucket *line = w; line; line = line->more)
            for (size_t i = 0; i < WBUCKET_ENTRIES; i++) t->n -= line->at[i].key != 0;
        drop_lines(w, more);
    }
}

bool tri__wtable_add(struct wtable *t, struct fixalloc *more, uintptr_t key, uint64_t value) {
    if (t->nbuckets == 0) return false;
    struct wbucket *w = bucket_at(t, bucket_of(t, tri__wtable_hash(key)));
    if (!ensure_places(w, more, 1)) return false;
    place(w, &(struct wentry){key, value});
    t->n++;
    split(t, more);
    split(t, more); /* to catch up, where there was no block for a while */
    return true;
}

void tri__wtable_remove(struct wtable *t, struct fixalloc *more, struct wentry *e) {
    struct wbucket *w = bucket_at(t, bucket_of(t, tri__wtable_hash(e->key)));
    *e = (struct wentry){0, 0};
    t->n--;
    if (w->more) drop_empty_lines(w, more);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

size_t tri__wtable_wants(const struct wtable *t) {
    if (t->nroom == 0) return WTABLE_FIRST_BYTES;
    if (t->nbuckets < t->nroom || !is_crowded(t)) return 0;
    return t->nroom < SLACK ? t->nroom * 4 * sizeof(struct wbucket) : WTABLE_BLOCK_BYTES;
}

/* Blocks of buckets that a tree of this height has room for. */
static size_t tree_blocks(uint32_t height) {
    return (size_t)1 << NODE_LOG2 * height;
}

/* The first blocks are as small as the table is: buckets keep their numbers in the next one. */
static void *give_first(struct wtable *t, void *block, size_t size_bytes) {
    void *old = t->root;
    if (old) memcpy(block, old, t->nroom * sizeof(struct wbucket));
    t->root = block;
    t->nroom = size_bytes / sizeof(struct wbucket);
    if (t->nbuckets == 0) t->nbuckets = FIRST_BUCKETS;
    return old;
}

void *tri__wtable_give(struct wtable *t, void *block, size_t size_bytes) {
    if (t->nroom == 0 && size_bytes == WTABLE_BLOCK_BYTES) return give_first(t, block, size_bytes);
    if (tri__wtable_wants(t) != size_bytes) return block; /* somebody was faster */
    if (t->nroom < SLACK) return give_first(t, block, size_bytes);
    size_t index = t->nroom >> BLOCK_LOG2;
    if (index == tree_blocks(t->height)) { /* a level more */
        *(void **)block = t->root;
        t->root = block;
        t->height++;
        return NULL;
    }
    void **p = t->root;
    for (uint32_t h = t->height; h > 0; h--) {
        void **child = &p[index >> NODE_LOG2 * (h - 1) & ((1u << NODE_LOG2) - 1)];
        if (!*child) {
            *child = block;
            if (h == 1) t->nroom += SLACK;
            return NULL;
        }
        p = *child;
    }
    check_always(false, "I-WTAB1: a tree of blocks has room for its buckets");
    return block;
}

/* The last block of the tree: its pointer, and whether it is one of buckets. */
static void **last_block(struct wtable *t, size_t *index, bool *has_buckets) {
    void **link = &t->root;
    *index = 0;
    for (uint32_t h = t->height; h > 0; h--) {
        void **node = *link;
        size_t i = (size_t)1 << NODE_LOG2;
        while (i > 0 && !node[i - 1]) i--;
        *has_buckets = false;
        if (i == 0) return link; /* a block of pointers with none */
        link = &node[i - 1];
        *index = *index << NODE_LOG2 | (i - 1);
    }
    *has_buckets = true;
    return link;
}

void *tri__wtable_take_spare(struct wtable *t) {
    if (!t->root) return NULL;
    void *block, **root = t->root;
    size_t index, keep = t->nbuckets ? t->nbuckets + SLACK : 0;
    bool has_buckets;
    if (t->height > 0 && t->nroom <= tree_blocks(t->height - 1) << BLOCK_LOG2 && !root[1] &&
        root[0]) { /* a level less */
        block = root;
        t->root = root[0];
        t->height--;
        return block;
    }
    void **link = last_block(t, &index, &has_buckets);
    if (has_buckets && index << BLOCK_LOG2 < keep) return NULL;
    block = *link;
    *link = NULL;
    if (has_buckets) t->nroom = index << BLOCK_LOG2;
    if (link == &t->root) t->height = 0;
    return block;
}

/* ---- looking at all of it ---------------------------------------------------------------------------------------- */

/* Buckets lie one behind the other, in blocks; what did not fit in them lies anywhere. */
static void prefetch_ahead(const struct wtable *t, size_t b) {
    if (b + 2 * AHEAD >= t->nbuckets) return;
    __builtin_prefetch(bucket_at(t, b + 2 * AHEAD));
    __builtin_prefetch(bucket_at(t, b + AHEAD)->more);
}

/* A line's entries, without a branch that depends on which places are free. */
static size_t copy_line(const struct wbucket *w, struct wentry *out, size_t n) {
    for (size_t i = 0; i < WBUCKET_ENTRIES; i++) {
        out[n] = w->at[i];
        n += w->at[i].key != 0;
    }
    return n;
}

size_t tri__wtable_copy(const struct wtable *t, struct wcursor *at, struct wentry *out, size_t max) {
    size_t n = 0;
    for (size_t looked = 0; at->bucket < t->nbuckets && looked < max; looked++, at->bucket++, at->place = 0) {
        size_t place = 0;
        prefetch_ahead(t, at->bucket);
        for (const struct wbucket *w = bucket_at(t, at->bucket); w; w = w->more, place += WBUCKET_ENTRIES) {
            if (place < at->place) continue;
            if (n + WBUCKET_ENTRIES > max) {
                at->place = place;
                return n;
            }
            n = copy_line(w, out, n);
        }
    }
    return n;
}

static uint64_t reversed(uint64_t x) {
    x = (x & 0x5555555555555555ull) << 1 | (x >> 1 & 0x5555555555555555ull);
    x = (x & 0x3333333333333333ull) << 2 | (x >> 2 & 0x3333333333333333ull);
    x = (x & 0x0f0f0f0f0f0f0f0full) << 4 | (x >> 4 & 0x0f0f0f0f0f0f0f0full);
    return __builtin_bswap64(x);
}

/* No address has the hash whose bits are all ones (which is that of a number of 64 bits, and of no address without its
 * last three), so a position always has one behind it. */
int tri__wtable_next(const struct wtable *t, uint64_t *position, struct wentry *out, size_t nbuckets) {
    if (t->nbuckets == 0) return -1;
    for (; nbuckets > 0; nbuckets--) {
        uint64_t least = UINT64_MAX;
        size_t b = bucket_of(t, reversed(*position));
        for (const struct wbucket *w = bucket_at(t, b); w; w = w->more)
            for (size_t i = 0; i < WBUCKET_ENTRIES; i++) {
                uint64_t r = w->at[i].key ? reversed(tri__wtable_hash(w->at[i].key)) : UINT64_MAX;
                if (r < *position || r >= least) continue;
                least = r;
                *out = w->at[i];
            }
        if (least != UINT64_MAX) {
            *position = least + 1;
            return 1;
        }
        size_t low = low_of(t); /* the bucket's bits: one more if it has been split, or comes of that */
        unsigned nbits = bit_highest(low) + (b >= low || b + low < t->nbuckets);
        uint64_t last = reversed(b) | (nbits < 64 ? UINT64_MAX >> nbits : 0);
        if (last == UINT64_MAX) return -1;
        *position = last + 1;
    }
    return 0;
}

/* ---- verify ------------------------------------------------------------------------------------------------------ */

void tri__wtable_verify(const struct wtable *t, void (*say)(void *context, const char *text), void *context) {
    size_t n = 0;
    if (t->nbuckets > t->nroom) say(context, "I-WTAB1: a table has more buckets than blocks for them");
    for (size_t b = 0; b < t->nroom; b++)
        for (struct wbucket *w = bucket_at(t, b); w; w = w->more)
            for (size_t i = 0; i < WBUCKET_ENTRIES; i++) {
                if (!w->at[i].key) continue;
                n++;
                if (b >= t->nbuckets || tri__wtable_find(t, w->at[i].key) != &w->at[i])
                    say(context, "I-WTAB1: an entry is not found by its key");
            }
    if (n != t->n) say(context, "I-WTAB1: a table has not as many entries as it counts");
}
