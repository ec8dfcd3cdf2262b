/* compare_graph.c - the same seeded program on trigc and on Boehm: the same output, and survivors that fit.
 *
 * The program edits a graph at random: it allocates objects, links and unlinks them, moves and drops roots, and follows
 * chains, adding what it sees to a digest. A shadow graph of plain numbers follows each edit. It holds references in
 * root slots only, so it runs with every root precise on trigc. Each collector runs it in a process of its own, which
 * sends its digest and its survivors to the test.
 *
 * What can be told of the survivors at a checkpoint (collections forced, nothing edited since):
 *   R  what the shadow graph reaches;
 *   T  what trigc still has, by tri_walk after two cycles;
 *   B  what Boehm still has, by one disappearing link for each object, cleared when it finds the object unreachable.
 * Both must keep R, intact by their checks: R within T and R within B. trigc with precise roots may keep nothing else
 * after two cycles: T = R. Boehm scans stacks, registers and static data conservatively, so its count of the dead is a
 * bound and no equality: whatever it found dead is dead for trigc too (T within B), and that it found most of the dead
 * shows that the bound says something. Were T not within B, trigc would have kept what even Boehm could tell was
 * dead. */
#include "tests/plain.h"

#ifndef GC_THREADS
#define GC_THREADS
#endif
#include <gc.h>

/* Boehm's thread calls by their names: this file's other half must not have them. */
#undef pthread_create
#undef pthread_join

#include <trigc.h>

enum { NREFS = 4, NROOTS = 64, MAX_THREADS = 2, MAX_OBJECTS = 80000, MAX_CHECKPOINTS = 8 };

struct object {
    uint64_t id;    /* index into the shadow graph */
    uint64_t check; /* id_check(id): damaged memory shows */
    struct object *refs[NREFS];
    uint64_t tail;
};
TRI_TYPE(object_type, struct object, refs[0], refs[1], refs[2], refs[3]);

/* One collector. `self` is a thread's connection. */
struct side {
    const char *name;
    void (*start)(void);
    void *(*attach)(void);
    void (*detach)(void *self);
    struct object *(*create)(void *self, uint64_t id);
    void (*store)(void *self, struct object *owner, struct object **slot, struct object *ref);
    void (*set_root)(void *self, struct object **slot, struct object *ref);
    void (*poll)(void *self);
    void (*collect)(void *self);
    void (*survivors)(void *self, uint8_t *alive); /* alive[id] = 1 */
    void (*run_threads)(void *self, unsigned n, void *(*fn)(void *), void *args, size_t arg_bytes);
};

/* The roots of all threads: static data, which Boehm scans, registered with trigc. */
static struct object *roots[MAX_THREADS * NROOTS];

static uint64_t id_check(uint64_t id) {
    return (id + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static _Noreturn void fail(const char *side, const char *what, uint64_t id) {
    fprintf(stderr, "%s: %s (object %" PRIu64 ")\n", side, what, id);
    _exit(1);
}

static void object_fill(struct object *obj, uint64_t id) {
    obj->id = id;
    obj->check = id_check(id);
    obj->tail = ~id;
}

/* ---- trigc ---- */

static tri_heap *heap;
static tri_root *root_range;

/* The checked library has found a contradiction. */
static void trigc_reported(const char *message, void *user) {
    (void)user;
    fail("trigc", message, 0);
}

/* A thread that does nothing but collect, beside the edits, to the end of the process. */
static void *trigc_collect_always(void *arg) {
    tri_thread *thread = NULL;
    if (tri_attach(heap, 0, &thread) != TRI_OK) fail("trigc", tri_last_error(), 0);
    while (tri_collect(thread) == TRI_OK) {}
    fail("trigc", tri_last_error(), 0);
    return arg;
}

static void trigc_start(void) {
    tri_config config;
    tri_config_init(&config);
    config.flags |= TRI_HEAP_PRECISE;
    config.report = trigc_reported;
    config.min_heap_bytes = 256 * 1024; /* so that cycles run beside the edits */
    if (tri_heap_create(&config, &heap) != TRI_OK) fail("trigc", tri_last_error(), 0);
    (void)tri_heap_set(heap, "stress.delay=20"); /* in builds with checks: the edits meet every step of a cycle */
    pthread_t id;
    if (pthread_create(&id, NULL, trigc_collect_always, NULL) != 0) fail("trigc", "no thread", 0);
}

static void *trigc_attach(void) {
    tri_thread *thread = NULL;
    if (tri_attach(heap, 0, &thread) != TRI_OK) fail("trigc", tri_last_error(), 0);
    if (!root_range) root_range = tri_root_add(thread, roots, sizeof roots / sizeof roots[0], NULL);
    if (!root_range) fail("trigc", tri_last_error(), 0);
    return thread;
}

static void trigc_detach(void *self) {
    tri_detach(self);
}

static struct object *trigc_create(void *self, uint64_t id) {
    struct object *obj = tri_new(self, &object_type);
    if (!obj) fail("trigc", tri_last_error(), id);
    object_fill(obj, id);
    return obj;
}

static void trigc_store(void *self, struct object *owner, struct object **slot, struct object *ref) {
    tri_store(self, owner, slot, ref);
}

static void trigc_set_root(void *self, struct object **slot, struct object *ref) {
    tri_root_store(self, root_range, slot, ref);
}

static void trigc_poll(void *self) {
    tri_poll(self);
}

static void trigc_collect(void *self) {
    for (int i = 0; i < 2; i++)
        if (tri_collect(self) != TRI_OK) fail("trigc", tri_last_error(), 0);
}

static void trigc_survivor(void *obj, const tri_type *type, size_t size_bytes, void *arg) {
    uint8_t *alive = arg;
    const struct object *o = obj;
    if (type != &object_type || size_bytes < sizeof *o) return;
    if (o->id >= MAX_OBJECTS || o->check != id_check(o->id)) fail("trigc", "a survivor is damaged", o->id);
    alive[o->id] = 1;
}

static void trigc_survivors(void *self, uint8_t *alive) {
    tri_walk(self, trigc_survivor, alive);
}

struct trigc_job {
    unsigned n;
    void *(*fn)(void *);
    char *args;
    size_t arg_bytes;
};

static void *trigc_start_and_join(void *arg) {
    const struct trigc_job *job = arg;
    pthread_t ids[MAX_THREADS];
    for (unsigned i = 0; i < job->n; i++)
        if (pthread_create(&ids[i], NULL, job->fn, job->args + i * job->arg_bytes) != 0) abort();
    for (unsigned i = 0; i < job->n; i++) pthread_join(ids[i], NULL);
    return NULL;
}

static void trigc_run_threads(void *self, unsigned n, void *(*fn)(void *), void *args, size_t arg_bytes) {
    struct trigc_job job = {n, fn, args, arg_bytes};
    tri_blocking(self, trigc_start_and_join, &job);
}

static const struct side trigc_side = {"trigc",       trigc_start,     trigc_attach,     trigc_detach,
                                       trigc_create,  trigc_store,     trigc_set_root,   trigc_poll,
                                       trigc_collect, trigc_survivors, trigc_run_threads};

/* ---- Boehm ---- */

/* Hidden pointers in memory that Boehm does not scan; a link is zero once its object was found unreachable. */
static void **links;

static void boehm_start(void) {
    GC_INIT();
    GC_allow_register_threads();
    links = calloc(MAX_OBJECTS, sizeof *links);
    if (!links) fail("boehm", "no memory for the links", 0);
}

static void *boehm_attach(void) {
    return NULL;
}

static void boehm_detach(void *self) {
    (void)self;
}

static struct object *boehm_create(void *self, uint64_t id) {
    (void)self;
    struct object *obj = GC_MALLOC(sizeof *obj);
    if (!obj) fail("boehm", "no memory", id);
    object_fill(obj, id);
    links[id] = (void *)GC_HIDE_POINTER(obj);
    if (GC_general_register_disappearing_link(&links[id], obj) == GC_NO_MEMORY)
        fail("boehm", "no memory for a link", id);
    return obj;
}

static void boehm_store(void *self, struct object *owner, struct object **slot, struct object *ref) {
    (void)self, (void)owner;
    *slot = ref;
}

static void boehm_set_root(void *self, struct object **slot, struct object *ref) {
    (void)self;
    *slot = ref;
}

static void boehm_poll(void *self) {
    (void)self;
}

static void boehm_collect(void *self) {
    (void)self;
    for (int i = 0; i < 2; i++) GC_gcollect();
}

static void boehm_survivors(void *self, uint8_t *alive) {
    (void)self;
    for (uint64_t id = 0; id < MAX_OBJECTS; id++) {
        alive[id] = links[id] != NULL;
        if (!links[id]) continue;
        const struct object *obj = GC_REVEAL_POINTER((GC_word)links[id]);
        if (obj->id != id || obj->check != id_check(id)) fail("boehm", "a survivor is damaged", id);
    }
}

static void boehm_run_threads(void *self, unsigned n, void *(*fn)(void *), void *args, size_t arg_bytes) {
    pthread_t ids[MAX_THREADS];
    (void)self;
    for (unsigned i = 0; i < n; i++)
        if (GC_pthread_create(&ids[i], NULL, fn, (char *)args + i * arg_bytes) != 0) abort();
    for (unsigned i = 0; i < n; i++) GC_pthread_join(ids[i], NULL);
}

static const struct side boehm_side = {"boehm",       boehm_start,     boehm_attach,     boehm_detach,
                                       boehm_create,  boehm_store,     boehm_set_root,   boehm_poll,
                                       boehm_collect, boehm_survivors, boehm_run_threads};

/* ---- the program ---- */

enum { NONE = UINT32_MAX };

/* What the objects should be, by number; shared by the threads, each of which touches its own ids only. */
static uint32_t shadow_refs[MAX_OBJECTS][NREFS];

/* One thread of the program. */
struct run {
    const struct side *side;
    void *self;
    struct object **roots;
    uint32_t shadow_roots[NROOTS];
    uint64_t random, digest;
    uint64_t first_id, next_id, limit_id;
    uint64_t nops;
};

static uint64_t run_random(struct run *r) {
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return r->random;
}

static void digest_add(struct run *r, uint64_t word) {
    r->digest = (r->digest ^ word) * UINT64_C(0x100000001b3);
}

/* A new object becomes the root, in front of what was there: chains grow by their first reference. */
static void op_create(struct run *r, unsigned root) {
    if (r->next_id == r->limit_id) return;
    uint64_t id = r->next_id++;
    struct object *obj = r->side->create(r->self, id);
    for (int i = 0; i < NREFS; i++) shadow_refs[id][i] = NONE;
    if (r->roots[root]) {
        r->side->store(r->self, obj, &obj->refs[0], r->roots[root]);
        shadow_refs[id][0] = r->shadow_roots[root];
    }
    r->side->set_root(r->self, &r->roots[root], obj);
    r->shadow_roots[root] = (uint32_t)id;
}

static void op_link(struct run *r, unsigned from, unsigned ref, unsigned to) {
    struct object *owner = r->roots[from];
    if (!owner) return;
    r->side->store(r->self, owner, &owner->refs[ref], r->roots[to]);
    shadow_refs[r->shadow_roots[from]][ref] = r->roots[to] ? r->shadow_roots[to] : NONE;
}

/* The root moves on to what its object refers to, the first reference where the chosen one is empty. */
static void op_follow(struct run *r, unsigned root, unsigned ref) {
    struct object *obj = r->roots[root];
    if (!obj) return;
    if (!obj->refs[ref]) ref = 0;
    struct object *next = obj->refs[ref];
    uint32_t shadow = shadow_refs[r->shadow_roots[root]][ref];
    if ((next == NULL) != (shadow == NONE) || (next && next->id != shadow))
        fail(r->side->name, "a reference is not what was stored", obj->id);
    digest_add(r, next ? next->id : UINT64_MAX);
    r->side->set_root(r->self, &r->roots[root], next);
    r->shadow_roots[root] = shadow;
}

static void op_drop(struct run *r, unsigned root) {
    r->side->set_root(r->self, &r->roots[root], NULL);
    r->shadow_roots[root] = NONE;
}

static void run_ops(struct run *r) {
    for (uint64_t i = 0; i < r->nops; i++) {
        uint64_t v = run_random(r);
        unsigned root = v % NROOTS, other = (unsigned)(v >> 8) % NROOTS, ref = (unsigned)(v >> 16) % NREFS;
        switch ((v >> 24) % 32) {
        case 0:
        case 1:
        case 2: op_create(r, root); break;
        case 3:
            if ((v >> 32) % 2 == 0) op_drop(r, root);
            break;
        case 4:
        case 5: op_follow(r, root, ref); break;
        default: op_link(r, root, 1 + ref % (NREFS - 1), other); break;
        }
        r->side->poll(r->self);
    }
}

static void *run_thread(void *arg) {
    struct run *r = arg;
    r->self = r->side->attach();
    run_ops(r);
    r->side->detach(r->self);
    return NULL;
}

/* ---- checkpoints ---- */

/* What a process tells the test at a checkpoint. */
struct checkpoint {
    uint64_t digest;
    uint64_t ncreated;
    uint8_t reached[MAX_OBJECTS], alive[MAX_OBJECTS];
};

/* Marks from one root of the real graph and of the shadow graph at once: each object must be the one that the shadow
 * names, and intact. `stack` holds MAX_OBJECTS * NREFS objects. */
static void reach(const struct run *r, struct object *root, uint32_t shadow, uint8_t *reached, struct object **stack) {
    size_t depth = 0;
    if ((root == NULL) != (shadow == NONE)) fail(r->side->name, "a root is not what was stored", shadow);
    if (root) stack[depth++] = root;
    if (root && root->id != shadow) fail(r->side->name, "a root is another object", shadow);
    while (depth > 0) {
        struct object *obj = stack[--depth];
        uint64_t id = obj->id;
        if (id >= r->next_id || obj->check != id_check(id) || obj->tail != ~id)
            fail(r->side->name, "a reachable object is damaged", id);
        if (reached[id]) continue;
        reached[id] = 1;
        for (int i = 0; i < NREFS; i++) {
            struct object *next = obj->refs[i];
            uint32_t want = shadow_refs[id][i];
            if ((next == NULL) != (want == NONE) || (next && next->id != want))
                fail(r->side->name, "a reachable reference is not what was stored", id);
            if (next) stack[depth++] = next;
        }
    }
}

static void write_all(int fd, const void *bytes, size_t n) {
    const char *p = bytes;
    while (n > 0) {
        ssize_t written = write(fd, p, n);
        if (written <= 0) _exit(2);
        p += written;
        n -= (size_t)written;
    }
}

static void checkpoint_send(const struct run *runs, unsigned nruns, void *self, int fd) {
    static struct checkpoint point;
    static struct object *stack[MAX_OBJECTS * NREFS];
    memset(&point, 0, sizeof point);
    runs[0].side->collect(self);
    for (unsigned i = 0; i < nruns; i++) {
        point.digest = point.digest * 31 + runs[i].digest;
        point.ncreated += runs[i].next_id - runs[i].first_id;
        for (int root = 0; root < NROOTS; root++)
            reach(&runs[i], runs[i].roots[root], runs[i].shadow_roots[root], point.reached, stack);
    }
    memset(stack, 0, sizeof stack); /* static data: Boehm would see them at the next checkpoint */
    runs[0].side->survivors(self, point.alive);
    write_all(fd, &point, sizeof point);
}

static void runs_init(struct run *runs, unsigned n, const struct side *side, uint64_t seed, uint64_t nops) {
    for (unsigned i = 0; i < n; i++) {
        runs[i] = (struct run){.side = side, .roots = roots + i * NROOTS, .random = seed + i * 7919, .nops = nops};
        runs[i].first_id = runs[i].next_id = (uint64_t)MAX_OBJECTS / n * i;
        runs[i].limit_id = runs[i].first_id + MAX_OBJECTS / n;
        for (int root = 0; root < NROOTS; root++) runs[i].shadow_roots[root] = NONE;
    }
}

/* The whole program, in a process of its own; results go to fd. */
static _Noreturn void side_main(const struct side *side, unsigned nthreads, uint64_t seed, unsigned ncheckpoints,
                                int fd) {
    static struct run runs[MAX_THREADS];
    side->start();
    void *self = side->attach();
    runs_init(runs, nthreads, side, seed, (uint64_t)MAX_OBJECTS * 10 / ncheckpoints / nthreads);
    for (unsigned i = 0; i < ncheckpoints; i++) {
        if (nthreads == 1) {
            runs[0].self = self;
            run_ops(&runs[0]);
        } else {
            side->run_threads(self, nthreads, run_thread, runs, sizeof runs[0]);
        }
        checkpoint_send(runs, nthreads, self, fd);
    }
    _exit(0);
}

/* ---- the test's own process ---- */

struct child {
    pid_t pid;
    int fd;
};

static struct child child_start(const struct side *side, unsigned nthreads, uint64_t seed, unsigned ncheckpoints) {
    int fds[2];
    struct child child;
    CHECK_EQ(pipe(fds), 0);
    fflush(NULL);
    child.pid = fork();
    CHECK(child.pid >= 0);
    if (child.pid == 0) {
        close(fds[0]);
        side_main(side, nthreads, seed, ncheckpoints, fds[1]);
    }
    close(fds[1]);
    child.fd = fds[0];
    return child;
}

static void checkpoint_receive(const struct child *child, struct checkpoint *point, const char *name, unsigned i) {
    char *p = (char *)point;
    size_t left = sizeof *point;
    while (left > 0) {
        ssize_t n = read(child->fd, p, left);
        CHECK_MSG(n > 0, "%s ended before its checkpoint %u", name, i);
        p += n;
        left -= (size_t)n;
    }
}

static void child_end(const struct child *child, const char *name) {
    int status = 0;
    close(child->fd);
    CHECK_EQ(waitpid(child->pid, &status, 0), child->pid);
    CHECK_MSG(status == 0, "%s ended with status %#x", name, (unsigned)status);
}

static void compare(const struct checkpoint *t, const struct checkpoint *b, uint64_t seed) {
    unsigned long long s = seed;
    uint64_t dead = 0, dead_b = 0;
    CHECK_MSG(t->digest == b->digest, "seed %llu: the program's output differs", s);
    CHECK_EQ(t->ncreated, b->ncreated);
    CHECK_MSG(memcmp(t->reached, b->reached, sizeof t->reached) == 0, "seed %llu: the two graphs differ", s);
    for (uint64_t id = 0; id < MAX_OBJECTS; id++) {
        CHECK_MSG(!t->reached[id] || t->alive[id], "seed %llu: trigc lost reachable object %" PRIu64, s, id);
        CHECK_MSG(!b->reached[id] || b->alive[id], "seed %llu: boehm lost reachable object %" PRIu64, s, id);
        CHECK_MSG(!t->alive[id] || b->alive[id], "seed %llu: object %" PRIu64 " is dead for boehm, not for trigc", s,
                  id);
        CHECK_MSG(!t->alive[id] || t->reached[id], "seed %llu: trigc keeps unreachable object %" PRIu64, s, id);
        dead_b += !b->alive[id];
    }
    for (uint64_t id = 0; id < MAX_OBJECTS; id++) dead += !t->alive[id];
    uint64_t never = MAX_OBJECTS - t->ncreated;
    CHECK_MSG(dead_b - never >= (dead - never) / 2, "seed %llu: boehm found %" PRIu64 " of %" PRIu64 " dead: no bound",
              s, dead_b - never, dead - never);
}

static void compare_sides(unsigned nthreads, unsigned ncheckpoints) {
    static struct checkpoint t, b;
    uint64_t seed = test_env_u64("TRI_TEST_SEED", 20261121);
    struct child trigc = child_start(&trigc_side, nthreads, seed, ncheckpoints);
    struct child boehm = child_start(&boehm_side, nthreads, seed, ncheckpoints);
    for (unsigned i = 0; i < ncheckpoints; i++) {
        checkpoint_receive(&trigc, &t, "trigc", i);
        checkpoint_receive(&boehm, &b, "boehm", i);
        CHECK(t.ncreated > 0);
        compare(&t, &b, seed);
    }
    child_end(&trigc, "trigc");
    child_end(&boehm, "boehm");
}

TEST(compare, one_thread_gives_the_same_output_and_survivors_on_both) {
    compare_sides(1, MAX_CHECKPOINTS);
}

TEST(compare, two_threads_give_the_same_output_and_survivors_on_both) {
    compare_sides(2, 2);
}
