/* load_larson.c - a server's threads, after the benchmark of Larson and Krishnan: each replaces random objects of an
 * array by others of random size (16 to 1,000 bytes), and after some thousand goes on with an array that another thread
 * may have filled, so that most objects die on a thread that did not make them. */
#include "bench/field/load.h"
#include <pthread.h>

enum { CHUNKS = 1000, ROUND = 5000, MIN_BYTES = 16, MAX_BYTES = 1000 };

struct larson {
    pthread_mutex_t lock;
    void *
        *pool; /* a collected array where objects are; [lock] its slots: the arrays that no thread works on, or NULL */
    unsigned narrays;
};

struct larson_state {
    struct larson *larson;
    uint64_t random;
    bool pointers;
};

/* Nothing allocates while the lock is held, so that no thread waits for a collection with it. */
static void **take_array(struct larson *larson, ad_thread *thread, uint64_t *random, unsigned *index) {
    void **array = NULL;
    pthread_mutex_lock(&larson->lock);
    while (!array) { /* there are more arrays than threads */
        *index = (unsigned)(field_random(random) % larson->narrays);
        array = larson->pool[*index];
    }
    ad_put(thread, larson->pool, &larson->pool[*index], NULL);
    pthread_mutex_unlock(&larson->lock);
    return array;
}

static void return_array(struct larson *larson, ad_thread *thread, void **array, unsigned index) {
    pthread_mutex_lock(&larson->lock);
    ad_put(thread, larson->pool, &larson->pool[index], array);
    pthread_mutex_unlock(&larson->lock);
}

static uint64_t larson_batch(ad_thread *thread, void *arg) {
    struct larson_state *s = arg;
    uint64_t random = s->random;
    unsigned index;
    void **array = take_array(s->larson, thread, &random, &index);
    for (unsigned i = 0; i < ROUND; i++) {
        uint64_t r = field_random(&random);
        void **slot = &array[r % CHUNKS];
        size_t size_bytes = (MIN_BYTES + (r >> 32) % (MAX_BYTES - MIN_BYTES + 1)) & ~(size_t)7;
        uint64_t *obj = s->pointers ? ad_words(thread, size_bytes) : ad_bytes(thread, size_bytes);
        ad_init(thread, obj, obj, NULL);
        ad_init(thread, obj, obj + 1, NULL);
        if (AD_FREES) ad_free(thread, *slot);
        ad_put(thread, array, slot, obj);
    }
    return_array(s->larson, thread, array, index);
    s->random = random;
    return ROUND;
}

static void larson_run(ad_thread *thread, const struct params *params, struct result *result) {
    struct larson larson = {.lock = PTHREAD_MUTEX_INITIALIZER, .narrays = params->nthreads * 2};
    struct larson_state states[FIELD_THREADS];
    struct timed timed = {.batch = larson_batch};
    larson.pool = ad_refs(thread, larson.narrays);
    for (unsigned i = 0; i < larson.narrays; i++) {
        ad_put(thread, larson.pool, &larson.pool[i], ad_refs(thread, CHUNKS));
    }
    for (unsigned i = 0; i < params->nthreads; i++) {
        states[i] = (struct larson_state){&larson, 0x9e3779b97f4a7c15u + i, params->pointers};
        timed.states[i] = &states[i];
    }
    load_timed(thread, params, &timed, result);
    field_keep(&larson);
    result->live_bytes = (uint64_t)larson.narrays * CHUNKS * ((MIN_BYTES + MAX_BYTES) / 2 + sizeof(void *));
}

const struct load load_larson = {"larson", larson_run};
