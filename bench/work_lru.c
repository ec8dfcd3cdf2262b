/* work_lru.c - a cache with a hash table and a doubly-linked list in order of use, held at a size in bytes.
 *
 * Entries have 48 bytes and four references (hash chain, both neighbours, payload); payloads are pointer-free, 32 to
 * 1,024 bytes by their key and version. The cache is filled to its size, then runs a mix: 70 % gets, of which those
 * that miss put the entry back, and 30 % puts, of which those that hit replace the payload. Keys are uniform over a
 * quarter more than fit, so about four of five gets hit. Each get checks the payload that it finds. */
#include <string.h>

#include "bench/workload.h"

struct entry {
    uint64_t key;
    uint64_t size_bytes; /* of the payload */
    struct entry *chain; /* next in the hash bucket */
    struct entry *prev, *next;
    unsigned char *payload;
};
AD_TYPE(entry_type, struct entry, chain, prev, next, payload);

struct lru {
    ad_thread *thread;
    struct entry **buckets;
    uint64_t nbuckets;  /* a power of two */
    struct entry *ring; /* sentinel: next is the newest, prev the oldest */
    uint64_t used_bytes, limit_bytes;
    uint64_t nentries;
    uint64_t random;
    uint64_t sum; /* of what the gets saw */
};

enum { PAYLOAD_MIN = 32, PAYLOAD_MAX = 1024, PAYLOAD_MEAN = (PAYLOAD_MIN + PAYLOAD_MAX) / 2 };

static uint64_t hash(uint64_t key) {
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return key ^ key >> 32;
}

static struct entry **bucket_of(const struct lru *c, uint64_t key) {
    return &c->buckets[hash(key) & (c->nbuckets - 1)];
}

static struct entry *lookup(const struct lru *c, uint64_t key) {
    struct entry *e = *bucket_of(c, key);
    while (e && e->key != key) e = e->chain;
    return e;
}

static void ring_remove(struct lru *c, struct entry *e) {
    ad_store(c->thread, e->prev, &e->prev->next, e->next);
    ad_store(c->thread, e->next, &e->next->prev, e->prev);
}

static void ring_insert_newest(struct lru *c, struct entry *e) {
    struct entry *newest = c->ring->next;
    ad_store(c->thread, e, &e->prev, c->ring);
    ad_store(c->thread, e, &e->next, newest);
    ad_store(c->thread, newest, &newest->prev, e);
    ad_store(c->thread, c->ring, &c->ring->next, e);
}

static void chain_remove(struct lru *c, struct entry *e) {
    struct entry **bucket = bucket_of(c, e->key), *before = *bucket;
    if (before == e) {
        ad_store(c->thread, c->buckets, bucket, e->chain);
        return;
    }
    while (before->chain != e) before = before->chain;
    ad_store(c->thread, before, &before->chain, e->chain);
}

static void evict_to_limit(struct lru *c) {
    while (c->used_bytes > c->limit_bytes) {
        struct entry *oldest = c->ring->prev;
        ring_remove(c, oldest);
        chain_remove(c, oldest);
        c->used_bytes -= sizeof *oldest + oldest->size_bytes;
        c->nentries--;
        ad_free(c->thread, oldest->payload);
        ad_free(c->thread, oldest);
    }
}

/* A payload names its key in every byte. */
static unsigned char *payload_new(struct lru *c, uint64_t key, uint64_t *size_bytes) {
    *size_bytes = PAYLOAD_MIN + work_random(&c->random) % (PAYLOAD_MAX - PAYLOAD_MIN + 1);
    unsigned char *payload = ad_new_leaf(c->thread, *size_bytes);
    memset(payload, (int)(hash(key) & 0xff), *size_bytes);
    return payload;
}

static void insert(struct lru *c, uint64_t key) {
    uint64_t size_bytes;
    unsigned char *payload = payload_new(c, key, &size_bytes);
    struct entry *e = AD_NEW(c->thread, entry_type), **bucket = bucket_of(c, key);
    e->key = key;
    e->size_bytes = size_bytes;
    ad_init(c->thread, e, &e->payload, payload);
    ad_init(c->thread, e, &e->chain, *bucket);
    ad_store(c->thread, c->buckets, bucket, e);
    ring_insert_newest(c, e);
    c->used_bytes += sizeof *e + size_bytes;
    c->nentries++;
    evict_to_limit(c);
}

static void touch(struct lru *c, struct entry *e) {
    if (c->ring->next == e) return;
    ring_remove(c, e);
    ring_insert_newest(c, e);
}

static void check_payload(struct lru *c, const struct entry *e) {
    unsigned char want = (unsigned char)hash(e->key);
    if (e->payload[0] != want || e->payload[e->size_bytes / 2] != want || e->payload[e->size_bytes - 1] != want) {
        fprintf(stderr, "the payload of key %llu is damaged\n", (unsigned long long)e->key);
        exit(1);
    }
    c->sum += e->size_bytes;
}

static void get(struct lru *c, uint64_t key) {
    struct entry *e = lookup(c, key);
    if (!e) {
        insert(c, key);
        return;
    }
    check_payload(c, e);
    touch(c, e);
}

static void put(struct lru *c, uint64_t key) {
    struct entry *e = lookup(c, key);
    if (!e) {
        insert(c, key);
        return;
    }
    uint64_t size_bytes;
    unsigned char *payload = payload_new(c, key, &size_bytes);
    c->used_bytes = c->used_bytes - e->size_bytes + size_bytes;
    e->size_bytes = size_bytes;
    ad_free(c->thread, e->payload);
    ad_store(c->thread, e, &e->payload, payload);
    touch(c, e);
    evict_to_limit(c);
}

static uint64_t nentries_of(uint64_t live_bytes) {
    return live_bytes / (sizeof(struct entry) + PAYLOAD_MEAN);
}

static uint64_t lru_run(ad_thread *thread, struct work *work) {
    struct lru c = {.thread = thread, .nbuckets = 1024, .limit_bytes = work->live_bytes, .random = 20261121};
    struct probe *probe = &work->probes[0];
    uint64_t expected = nentries_of(work->live_bytes), keys = expected + expected / 4;
    AD_PREPARE(entry_type);
    while (c.nbuckets < expected) c.nbuckets *= 2;
    c.buckets = ad_new_slots(thread, c.nbuckets);
    c.ring = AD_NEW(thread, entry_type);
    ad_init(thread, c.ring, &c.ring->prev, c.ring);
    ad_init(thread, c.ring, &c.ring->next, c.ring);
    probe_start(probe);
    for (uint64_t key = 0; key < expected; key++) {
        insert(&c, key);
        probe_op(probe, 1);
    }
    for (uint64_t i = 0; i < work->ops; i++) {
        uint64_t r = work_random(&c.random), key = (r >> 8) % keys;
        if (r % 10 < 7)
            get(&c, key);
        else
            put(&c, key);
        probe_op(probe, 1);
    }
    return c.sum * 31 + c.nentries;
}

static uint64_t lru_total(const struct work *work) {
    return nentries_of(work->live_bytes) + work->ops;
}

const struct workload workload_lru = {"lru", lru_total, lru_run, true, true};
