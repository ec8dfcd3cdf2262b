/*
 * test_memory_order.c: the places of the collector where memory orders carry weight, as kernels for the explorer
 * (explorer.h). docs/memory-model.md argues each; the names of the tests are those of its sections.
 *
 * A kernel's accesses are those of the code, in its order. Each access whose order matters is a *site*: where it is in
 * the sources, by the text of the line; the order that it has; one that is weaker. A test explores the kernel as it is,
 * which must find nothing wrong, and then with each site weakened, alone: where the site is NEEDED the explorer must
 * find what goes wrong, where it is SPARE (another order does the same here) it must find nothing. The sources are
 * read, too: a site's line must be there, with that order, so code and kernel cannot drift apart in silence.
 *
 * What a kernel leaves out: locks are a word (pthread's mutex acquires and releases); a post of a handshake whose own
 * kernel is elsewhere is one store and one count; sleeping in the system is a word of the bucket that a futex call
 * locks.
 */
#include <string.h>
#include "tests/explorer.h"
#include "tests/plain.h"

enum found { NEEDED, SPARE };

struct site {
    const char *file, *text; /* text NULL: the mutex's */
    enum order order, weaker;
    enum found found;
};

static struct ex_program p;
static const enum order *o; /* the orders of the sites of the kernel that is being built */

/* ---- the harness ------------------------------------------------------------------------------------------------- */

static const char *const suffixes[] = {
    [RLX] = "_relaxed(", [ACQ] = "_acquire(", [REL] = "_release(", [ARL] = "_acqrel(", [SEQ] = "_seq("};

/* The line is in the source, and says this order. */
static void check_source(const struct site *s) {
    static char text[1 << 16];
    if (!s->text) return;
    FILE *f = fopen(s->file, "r");
    CHECK_MSG(f != NULL, "%s cannot be read: run the tests from the repository's root", s->file);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    CHECK_MSG(n < sizeof text - 1, "%s is longer than this test reads", s->file);
    text[n] = '\0';
    CHECK_MSG(strstr(text, s->text) != NULL, "%s has no more: %s", s->file, s->text);
    CHECK_MSG(strstr(s->text, suffixes[s->order]) != NULL, "%s: another order than the kernel's: %s", s->file, s->text);
}

/* Explores all variants of a kernel; what is wrong with the first that is, or NULL. */
static struct ex_result run(void (*build)(int variant), int nvariants, ex_judge judge, const enum order *orders) {
    struct ex_result r = {0};
    uint64_t ngraphs = 0, nexecutions = 0;
    o = orders;
    for (int v = 0; v < nvariants && !r.wrong; v++) {
        memset(&p, 0, sizeof p);
        build(v);
        r = ex_explore(&p, judge);
        ngraphs += r.ngraphs, nexecutions += r.nexecutions;
        CHECK(r.wrong || r.nexecutions > 0);
    }
    r.ngraphs = ngraphs, r.nexecutions = nexecutions;
    return r;
}

enum { MOST_SITES = 12 };

static void check_kernel(void (*build)(int variant), int nvariants, ex_judge judge, const struct site *sites,
                         size_t nsites) {
    enum order orders[MOST_SITES] = {PLAIN};
    CHECK(nsites <= MOST_SITES);
    for (size_t i = 0; i < nsites; i++) {
        check_source(&sites[i]);
        orders[i] = sites[i].order;
    }
    struct ex_result r = run(build, nvariants, judge, orders);
    printf("%s: %llu executions, %llu graphs\n", p.name, (unsigned long long)r.nexecutions,
           (unsigned long long)r.ngraphs);
    CHECK_MSG(!r.wrong, "%s: %s\n%s", p.name, r.wrong, r.trace);
    for (size_t i = 0; i < nsites; i++) {
        orders[i] = sites[i].weaker;
        r = run(build, nvariants, judge, orders);
        orders[i] = sites[i].order;
        const char *text = sites[i].text ? sites[i].text : "a lock's order";
        CHECK_MSG((r.wrong != NULL) == (sites[i].found == NEEDED), "%s: weakened, %s: %s (%s)\n%s", p.name, text,
                  r.wrong ? r.wrong : "nothing is found", sites[i].found == NEEDED ? "it is needed" : "it is spare",
                  r.trace);
    }
}

#define CHECK_KERNEL(build, nvariants, judge, sites) \
    check_kernel(build, nvariants, judge, sites, sizeof(sites) / sizeof(sites)[0])

/* A futex's bucket: the wait looks at the word and lists itself under the bucket's lock, the wake takes that lock. */
static void futex_wait(int bucket, int word, int reg, int other_reg, int value) {
    ex_add(&p, other_reg, bucket, 0, ARL);
    ex_load(&p, reg, word, RLX);
    ex_when(&p, reg, EQ, value, 1);
    ex_await(&p, -1, bucket, NE, other_reg, RLX);
}
enum { FUTEX_WAIT_INSTRS = 4 };

static void futex_wake(int bucket) {
    ex_add(&p, -1, bucket, 1, ARL);
}

/* ---- the handshake word ------------------------------------------------------------------------------------------ */

enum { H_SEQ, H_REQUEST, H_TAKE, H_READ, H_ANSWER, H_WAIT };

static const struct site handshake_sites[] = {
    [H_SEQ] = {"gc/handshake.c", "atomic_store_release(&m->request_seq, seq)", REL, RLX, NEEDED},
    [H_REQUEST] = {"gc/handshake.c", "atomic_store_seq(&a->pub.request, 1)", SEQ, RLX, NEEDED},
    [H_TAKE] = {"gc/mutator.c", "atomic_swap_acqrel(&m->pub.request, 0)", ARL, RLX, NEEDED},
    [H_READ] = {"gc/mutator.c", "atomic_load_acquire(&m->request_seq); /* pairs with handshake_post */", ACQ, RLX,
                NEEDED},
    [H_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [H_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
};

/* tri__handshake_post and _wait; answer_all and tri__mutator_answer, by a thread that came to a safepoint of its own
 * accord beside the post and polls then, and by one that polls. */
static void handshake(int variant) {
    (void)variant;
    ex_begin(&p, "the handshake word");
    int step = ex_loc(&p, "last_step", 0), pending = ex_loc(&p, "pending", 0);
    int seq[2], request[2], data[2];
    for (int i = 0; i < 2; i++) {
        seq[i] = ex_loc(&p, i ? "b.request_seq" : "a.request_seq", 0);
        request[i] = ex_loc(&p, i ? "b.request" : "a.request", 0);
        data[i] = ex_loc(&p, i ? "what b did" : "what a did", 0);
    }
    ex_thread(&p, "collector");
    ex_store(&p, step, 1, PLAIN);
    ex_store(&p, pending, 2, RLX);
    for (int i = 0; i < 2; i++) {
        ex_store(&p, seq[i], 1, o[H_SEQ]);
        ex_store(&p, request[i], 1, o[H_REQUEST]);
    }
    ex_await(&p, -1, pending, EQ, 0, o[H_WAIT]);
    ex_load(&p, R0, data[0], PLAIN);
    ex_load(&p, R1, data[1], PLAIN);
    ex_thread(&p, "a");
    ex_swap(&p, R0, request[0], 0, o[H_TAKE]);
    ex_load(&p, R1, seq[0], o[H_READ]);
    ex_when(&p, R1, EQ, 0, 3); /* not asked yet: until a poll */
    ex_await(&p, -1, request[0], NE, 0, RLX);
    ex_swap(&p, R0, request[0], 0, o[H_TAKE]);
    ex_load(&p, R1, seq[0], o[H_READ]);
    ex_when(&p, R1, EQ, 0, 1); /* took the request back without seeing what was asked: nobody asks again */
    ex_await(&p, -1, request[0], NE, 0, RLX);
    ex_load(&p, R2, step, PLAIN);
    ex_store(&p, data[0], 1, PLAIN);
    ex_add(&p, -1, pending, -1, o[H_ANSWER]);
    ex_thread(&p, "b");
    ex_await(&p, -1, request[1], NE, 0, RLX);
    ex_swap(&p, R0, request[1], 0, o[H_TAKE]);
    ex_load(&p, R1, seq[1], o[H_READ]);
    ex_when(&p, R1, EQ, 0, 1);
    ex_await(&p, -1, request[1], NE, 0, RLX);
    ex_load(&p, R2, step, PLAIN);
    ex_store(&p, data[1], 1, PLAIN);
    ex_add(&p, -1, pending, -1, o[H_ANSWER]);
}

TEST(memory_order, the_handshake_word) {
    CHECK_KERNEL(handshake, 1, NULL, handshake_sites);
}

/* ---- the collector sleeps, and is woken -------------------------------------------------------------------------- */

enum { S_SLEEPS, S_LOOK, S_ANSWER, S_WAKES };

static const struct site sleep_sites[] = {
    [S_SLEEPS] = {"gc/handshake.c", "atomic_store_seq(&heap->collector_sleeps, 1)", SEQ, REL, NEEDED},
    [S_LOOK] = {"gc/handshake.c", "atomic_load_seq(&heap->pending)", SEQ, ACQ, NEEDED},
    [S_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, ARL, NEEDED},
    [S_WAKES] = {"gc/cycle.c", "atomic_load_seq(&heap->collector_sleeps)", SEQ, ACQ, NEEDED},
};

static void sleeping(int variant) {
    (void)variant;
    ex_begin(&p, "the collector sleeps");
    int sleeps = ex_loc(&p, "collector_sleeps", 0), pending = ex_loc(&p, "pending", 1),
        bucket = ex_loc(&p, "bucket", 0);
    ex_thread(&p, "collector");
    ex_store(&p, sleeps, 1, o[S_SLEEPS]);
    ex_load(&p, R0, pending, o[S_LOOK]);
    ex_when(&p, R0, NE, 0, FUTEX_WAIT_INSTRS);
    futex_wait(bucket, pending, R0, R1, 1);
    ex_thread(&p, "mutator");
    ex_add(&p, -1, pending, -1, o[S_ANSWER]);
    ex_load(&p, R0, sleeps, o[S_WAKES]);
    ex_when(&p, R0, EQ, 1, 1);
    futex_wake(bucket);
}

TEST(memory_order, park_and_wake_of_the_collector) {
    CHECK_KERNEL(sleeping, 1, NULL, sleep_sites);
}

/* ---- a worker parks, and is woken -------------------------------------------------------------------------------- */

enum { K_ACQUIRE, K_RELEASE, K_WOKEN, K_LOOK };

static const struct site park_sites[] = {
    [K_ACQUIRE] = {NULL, NULL, ACQ, RLX, NEEDED},
    [K_RELEASE] = {NULL, NULL, REL, RLX, NEEDED},
    /* The list is looked at again under the lock after each wait. */
    [K_WOKEN] = {"gc/work.c", "atomic_store_release(&waiter->woken, 1)", REL, RLX, SPARE},
    [K_LOOK] = {"gc/work.c", "atomic_load_acquire(&me->woken)", ACQ, RLX, SPARE},
};

/* tri__work_await and tri__work_put_full: the buffer arrives, with what is in it. */
static void parking(int variant) {
    (void)variant;
    ex_begin(&p, "a worker parks");
    int lock = ex_loc(&p, "lock", 0), full = ex_loc(&p, "full", 0), listed = ex_loc(&p, "listed", 0);
    int woken = ex_loc(&p, "woken", 0), bucket = ex_loc(&p, "bucket", 0), entries = ex_loc(&p, "entries", 0);
    ex_thread(&p, "worker");
    ex_lock(&p, lock, o[K_ACQUIRE]);
    ex_load(&p, R0, full, PLAIN);
    ex_when(&p, R0, EQ, 0, 6 + FUTEX_WAIT_INSTRS);
    ex_store(&p, woken, 0, RLX);
    ex_store(&p, listed, 1, PLAIN);
    ex_unlock(&p, lock, o[K_RELEASE]);
    ex_load(&p, R1, woken, o[K_LOOK]);
    ex_when(&p, R1, EQ, 0, FUTEX_WAIT_INSTRS);
    futex_wait(bucket, woken, R1, R2, 0);
    ex_lock(&p, lock, o[K_ACQUIRE]);
    ex_load(&p, R0, full, PLAIN);
    ex_when(&p, R0, EQ, 0, 1);
    ex_fail(&p, "a worker was woken for nothing");
    ex_store(&p, full, 0, PLAIN);
    ex_unlock(&p, lock, o[K_RELEASE]);
    ex_load(&p, R3, entries, PLAIN);
    ex_thread(&p, "marker");
    ex_store(&p, entries, 1, PLAIN);
    ex_lock(&p, lock, o[K_ACQUIRE]);
    ex_store(&p, full, 1, PLAIN);
    ex_load(&p, R0, listed, PLAIN);
    ex_when(&p, R0, EQ, 1, 1);
    ex_store(&p, woken, 1, o[K_WOKEN]);
    ex_unlock(&p, lock, o[K_RELEASE]);
    ex_when(&p, R0, EQ, 1, 1);
    futex_wake(bucket);
}

TEST(memory_order, park_and_wake_of_a_worker) {
    CHECK_KERNEL(parking, 1, NULL, park_sites);
}

/* ---- a flag, and a count of who is inside (Dekker) --------------------------------------------------------------- */

enum { D_ENTER, D_LOOK, D_LEAVE, D_FLAG, D_WAIT };

static const struct site assist_sites[] = {
    [D_ENTER] = {"gc/alloc.c", "atomic_add_seq(&heap->nassists, 1)", SEQ, ARL, NEEDED},
    [D_LOOK] = {"gc/alloc.c", "atomic_load_seq(&heap->tracing)", SEQ, ACQ, NEEDED},
    [D_LEAVE] = {"gc/alloc.c", "atomic_sub_seq(&heap->nassists, 1)", SEQ, RLX, NEEDED},
    [D_FLAG] = {"gc/cycle.c", "atomic_store_seq(&heap->tracing, 0)", SEQ, REL, NEEDED},
    [D_WAIT] = {"gc/cycle.c", "while (atomic_load_seq(&heap->nassists)) {", SEQ, ACQ, NEEDED},
};
static const struct site fork_sites[] = {
    [D_ENTER] = {"gc/fork.h", "atomic_swap_seq(unforkable, 1)", SEQ, ARL, NEEDED},
    [D_LOOK] = {"gc/fork.h", "atomic_load_seq(&tri__forking)", SEQ, ACQ, NEEDED},
    [D_LEAVE] = {"gc/fork.h", "atomic_store_release(*unforkable, atomic_load_relaxed(*unforkable) - 1)", REL, RLX,
                 NEEDED},
    [D_FLAG] = {"gc/fork.c", "atomic_store_seq(&tri__forking, 1)", SEQ, REL, NEEDED},
    [D_WAIT] = {"gc/fork.c", "inside = atomic_load_seq(&m->os->unforkable) != 0", SEQ, ACQ, NEEDED},
};
static const struct site claim_sites[] = {
    [D_ENTER] = {"alloc/inside.c", "atomic_add_seq(&mem->nclaimed, 1)", SEQ, ARL, NEEDED},
    [D_LOOK] = {"alloc/inside.c", "atomic_load_seq(&mem->hold_claims)", SEQ, ACQ, NEEDED},
    [D_LEAVE] = {"alloc/inside.c", "atomic_sub_acqrel(&mem->nclaimed, 1)", ARL, RLX, NEEDED},
    [D_FLAG] = {"alloc/inside.c", "atomic_store_seq(&mem->hold_claims, hold)", SEQ, REL, NEEDED},
    [D_WAIT] = {"alloc/inside.c", "atomic_load_seq(&mem->nclaimed)", SEQ, ACQ, NEEDED},
};

/* Who is inside touches what the other side touches when nobody is. A count, or one thread's own word. */
static void dekker(bool counts) {
    ex_begin(&p, "a flag and a count");
    int inside = ex_loc(&p, "inside", 0), closed = ex_loc(&p, "closed", 0), work = ex_loc(&p, "work", 0);
    ex_thread(&p, "mutator");
    if (counts)
        ex_add(&p, -1, inside, 1, o[D_ENTER]);
    else
        ex_swap(&p, -1, inside, 1, o[D_ENTER]);
    ex_load(&p, R0, closed, o[D_LOOK]);
    ex_when(&p, R0, EQ, 0, 1);
    ex_store(&p, work, 1, PLAIN);
    if (counts)
        ex_add(&p, -1, inside, -1, o[D_LEAVE]);
    else
        ex_store(&p, inside, 0, o[D_LEAVE]);
    ex_thread(&p, "collector");
    ex_store(&p, closed, 1, o[D_FLAG]);
    ex_await(&p, -1, inside, EQ, 0, o[D_WAIT]);
    ex_load(&p, R0, work, PLAIN);
}

static void counted(int variant) {
    (void)variant;
    dekker(true);
}
static void own_word(int variant) {
    (void)variant;
    dekker(false);
}

TEST(memory_order, assists_against_the_round) {
    CHECK_KERNEL(counted, 1, NULL, assist_sites);
}
TEST(memory_order, sections_against_fork) {
    CHECK_KERNEL(own_word, 1, NULL, fork_sites);
}
TEST(memory_order, claimed_spans_against_a_stopped_world) {
    CHECK_KERNEL(counted, 1, NULL, claim_sites);
}

/* ---- blocking, and answered for ---------------------------------------------------------------------------------- */

enum { B_SP, B_BLOCK, B_LOOK, B_LEAVE, B_REQUEST, B_HOLD, B_GIVE, B_ANSWERED, B_ASKED };
enum { RUNNING, BLOCKED, HELD };

static const struct site blocking_sites[] = {
    [B_SP] = {"gc/mutator.c", "atomic_store_release(&os->sp, sp)", REL, RLX, SPARE}, /* the state word follows */
    [B_BLOCK] = {"gc/mutator.c", "atomic_store_seq(&os->state, OS_BLOCKED)", SEQ, REL, NEEDED},
    [B_LOOK] = {"gc/mutator.c", "atomic_load_seq(&m->pub.request)", SEQ, ACQ, NEEDED},
    [B_LEAVE] = {"gc/mutator.c", "atomic_cas_seq(&os->state, &expected, OS_RUNNING)", SEQ, RLX, NEEDED},
    [B_REQUEST] = {"gc/handshake.c", "atomic_store_seq(&a->pub.request, 1)", SEQ, REL, NEEDED},
    [B_HOLD] = {"gc/handshake.c", "atomic_cas_seq(&os->state, &expected, OS_HELD)", SEQ, ARL, NEEDED},
    [B_GIVE] = {"gc/handshake.c", "atomic_swap_seq(&os->state, OS_BLOCKED)", SEQ, RLX, NEEDED},
    /* Beside the state word and the count of answers: what saves a look at a thread that has answered. */
    [B_ANSWERED] = {"gc/cycle.c", "atomic_store_release(&m->answer_seq, seq)", REL, RLX, SPARE},
    [B_ASKED] = {"gc/handshake.c", "atomic_load_acquire(&m->answer_seq) >= seq", ACQ, RLX, SPARE},
};

/* run_blocking, enter_blocked, leave_blocked, answer_all; post, look, hold, release_hold. Inside the region the thread
 * waits for something that comes only after the step has all its answers. */
static void blocking(int variant) {
    (void)variant;
    ex_begin(&p, "a blocking region");
    int roots = ex_loc(&p, "roots", 0), cache = ex_loc(&p, "cache", 0), sp = ex_loc(&p, "sp", 0);
    int state = ex_loc(&p, "state", RUNNING), request = ex_loc(&p, "request", 0), seq = ex_loc(&p, "request_seq", 0);
    int answer = ex_loc(&p, "answer_seq", 0), pending = ex_loc(&p, "pending", 1), over = ex_loc(&p, "over", 0);
    ex_thread(&p, "mutator");
    ex_store(&p, roots, 1, PLAIN);
    ex_store(&p, sp, 1, o[B_SP]);
    ex_store(&p, state, BLOCKED, o[B_BLOCK]);
    ex_load(&p, R0, request, o[B_LOOK]);
    ex_when(&p, R0, EQ, 0, 1); /* not asked: in the region */
    ex_await(&p, -1, over, EQ, 1, RLX);
    ex_cas(&p, R1, state, BLOCKED, RUNNING, o[B_LEAVE]);
    ex_when(&p, R1, NE, BLOCKED, 2);
    ex_await(&p, -1, state, EQ, BLOCKED, RLX);
    ex_cas(&p, R1, state, BLOCKED, RUNNING, o[B_LEAVE]);
    ex_store(&p, roots, 2, PLAIN);
    ex_swap(&p, -1, request, 0, ARL);
    ex_load(&p, R2, seq, ACQ);
    ex_load(&p, R3, answer, PLAIN);
    ex_when(&p, R2, NE, R3, 3);
    ex_store(&p, cache, 2, PLAIN);
    ex_store(&p, answer, 1, o[B_ANSWERED]);
    ex_add(&p, -1, pending, -1, SEQ);
    ex_load(&p, R4, cache, PLAIN);
    ex_thread(&p, "collector");
    ex_store(&p, seq, 1, REL);
    ex_store(&p, request, 1, o[B_REQUEST]);
    ex_load(&p, R0, answer, o[B_ASKED]);
    ex_when(&p, R0, EQ, 0, 10);
    ex_cas(&p, R1, state, BLOCKED, HELD, o[B_HOLD]);
    ex_when(&p, R1, EQ, BLOCKED, 8);
    ex_load(&p, R2, answer, o[B_ASKED]);
    ex_when(&p, R2, EQ, 0, 5);
    ex_load(&p, R3, sp, ACQ);
    ex_load(&p, R4, roots, PLAIN);
    ex_store(&p, cache, 1, PLAIN);
    ex_store(&p, answer, 1, o[B_ANSWERED]);
    ex_add(&p, -1, pending, -1, SEQ);
    ex_swap(&p, -1, state, BLOCKED, o[B_GIVE]);
    ex_await(&p, -1, pending, EQ, 0, ACQ);
    ex_store(&p, over, 1, RLX);
}

static const char *answered_once(const struct ex_outcome *e) {
    return e->memory[7] == 0 ? NULL : "a step was answered twice, or never";
}

TEST(memory_order, blocking_and_answered_for) {
    CHECK_KERNEL(blocking, 1, answered_once, blocking_sites);
}

/* ---- the barrier against the flip: the barrier goes on (H1, H2) -------------------------------------------------- */

enum { A_POST, A_READ, A_ANSWER, A_WAIT, A_OLD, A_STORE };
enum { OBJECT = 7, OTHER = 8 };

static const struct site arm_sites[] = {
    [A_POST] = {"gc/handshake.c", "atomic_store_release(&m->request_seq, seq)", REL, RLX, NEEDED},
    [A_READ] = {"gc/cycle.c", "atomic_load_acquire(&m->request_seq); /* pairs with handshake_post; last_step", ACQ, RLX,
                NEEDED},
    [A_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [A_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
    /* Coherence of one slot is enough here; the object behind the reference is the next sections' affair. */
    [A_OLD] = {"gc/barrier.c", "atomic_load_acquire((const tri_word *)slot); /* pairs with other threads' tri_store",
               ACQ, RLX, SPARE},
    [A_STORE] = {"gc/barrier.c", "atomic_store_release((tri_word *)slot, value)", REL, RLX, SPARE},
};

static int arm_slot, arm_mark;

static void answer_step(const int *post, const int *count, int step) {
    ex_await(&p, -1, post[step], EQ, 1, o[A_READ]);
    ex_add(&p, -1, count[step], 1, o[A_ANSWER]);
}

/* A thread that is armed stores into the slot into which one that is not armed yet has put an object and from which it
 * takes it back when its stack is black. */
static void arming(int variant) {
    int post[3], count[3];
    ex_begin(&p, variant ? "the barrier goes on, without H2" : "the barrier goes on");
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"H1", "H2", "H3", "answers to H1", "answers to H2", "answers to H3"};
        post[i] = ex_loc(&p, names[i], 0);
        count[i] = ex_loc(&p, names[3 + i], 0);
    }
    arm_slot = ex_loc(&p, "slot", 0);
    arm_mark = ex_loc(&p, "mark", 0);
    ex_thread(&p, "collector");
    for (int i = 0; i < 3; i++) {
        if (variant && i == 1) continue;
        ex_store(&p, post[i], 1, o[A_POST]);
        ex_await(&p, -1, count[i], EQ, 2, o[A_WAIT]);
    }
    ex_thread(&p, "a");
    answer_step(post, count, 0);
    ex_load(&p, R0, arm_slot, o[A_OLD]);
    ex_when(&p, R0, EQ, OBJECT, 1);
    ex_or(&p, -1, arm_mark, 1, ARL); /* shaded; flushed later */
    ex_store(&p, arm_slot, OTHER, o[A_STORE]);
    if (!variant) answer_step(post, count, 1);
    answer_step(post, count, 2);
    ex_thread(&p, "b");
    ex_store(&p, arm_slot, OBJECT, REL);
    answer_step(post, count, 0);
    if (!variant) answer_step(post, count, 1);
    answer_step(post, count, 2);
    ex_load(&p, R0, arm_slot, ACQ);
}

static const char *object_on_a_black_stack(const struct ex_outcome *e) {
    bool kept = e->memory[arm_mark] || e->memory[arm_slot] == OBJECT;
    return e->regs[2][0] == OBJECT && !kept ? "a black stack has an object that nobody marks" : NULL;
}

TEST(memory_order, the_barrier_goes_on) {
    CHECK_KERNEL(arming, 1, object_on_a_black_stack, arm_sites);
}

static void arming_without_settle(int variant) {
    (void)variant;
    arming(1);
}

TEST(memory_order, without_h2_an_object_is_lost) {
    enum order orders[MOST_SITES] = {PLAIN};
    for (size_t i = 0; i < sizeof arm_sites / sizeof arm_sites[0]; i++) orders[i] = arm_sites[i].order;
    struct ex_result r = run(arming_without_settle, 1, object_on_a_black_stack, orders);
    CHECK(r.wrong != NULL);
    CHECK_STR_EQ(r.wrong, "a black stack has an object that nobody marks");
}

/* ---- the barrier against the flip: marks against the sweep ------------------------------------------------------- */

enum { M_ANSWER, M_WAIT, M_FLIP, M_GEN, M_ALLOCS, M_CLEAR, M_SWEPT, M_ALL_SWEPT, M_POST, M_READ };

static const struct site sweep_sites[] = {
    [M_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [M_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
    [M_FLIP] = {"alloc/memory.c", "atomic_store_release(&mem->gen,", REL, RLX, NEEDED},
    [M_GEN] = {"alloc/central.c", "uint32_t gen = atomic_load_acquire(&mem->gen);", ACQ, RLX, NEEDED},
    /* Who allocates from the span has it from a list, under its lock; who looks without one is the next section's. */
    [M_ALLOCS] = {"alloc/span.c", "atomic_store_release(&w->allocs[word], marks)", REL, RLX, SPARE},
    [M_CLEAR] = {"alloc/span.c", "atomic_store_release(&w->marks[word], 0)", REL, RLX, SPARE},
    [M_SWEPT] = {"alloc/central.c", "atomic_sub_acqrel(&mem->nsweeping, n)", ARL, RLX, NEEDED},
    [M_ALL_SWEPT] = {"alloc/memory.c", "atomic_load_acquire(&mem->nsweeping) == 0", ACQ, RLX, NEEDED},
    [M_POST] = {"gc/handshake.c", "atomic_store_release(&m->request_seq, seq)", REL, RLX, NEEDED},
    [M_READ] = {"gc/cycle.c", "atomic_load_acquire(&m->request_seq); /* pairs with handshake_post; last_step", ACQ, RLX,
                NEEDED},
};

static int sweep_marks, sweep_allocs;

/* The last mark of a cycle (relaxed, hot_process), the answers after it, the flip; the sweep of its word; the first
 * mark of the next cycle in the same word. */
static void sweeping(int variant) {
    (void)variant;
    ex_begin(&p, "marks against the sweep");
    int answers = ex_loc(&p, "answers to H5", 0), gen = ex_loc(&p, "gen", 0), h1 = ex_loc(&p, "H1", 0);
    int nsweeping = ex_loc(&p, "nsweeping", 1); /* counted under the list's lock */
    sweep_marks = ex_loc(&p, "marks", 0);
    sweep_allocs = ex_loc(&p, "allocs", 3);
    ex_thread(&p, "mutator");
    ex_or(&p, -1, sweep_marks, 1, RLX);
    ex_add(&p, -1, answers, 1, o[M_ANSWER]);
    ex_await(&p, -1, h1, EQ, 1, o[M_READ]);
    ex_or(&p, R0, sweep_marks, 2, RLX);
    ex_thread(&p, "collector");
    ex_await(&p, -1, answers, EQ, 1, o[M_WAIT]);
    ex_store(&p, gen, 1, o[M_FLIP]);
    ex_await(&p, -1, nsweeping, EQ, 0, o[M_ALL_SWEPT]);
    ex_store(&p, h1, 1, o[M_POST]);
    ex_thread(&p, "sweeper");
    ex_await(&p, -1, gen, EQ, 1, o[M_GEN]);
    ex_load(&p, R0, sweep_marks, RLX);
    ex_store(&p, sweep_allocs, R0, o[M_ALLOCS]);
    ex_store(&p, sweep_marks, 0, o[M_CLEAR]);
    ex_add(&p, -1, nsweeping, -1, o[M_SWEPT]);
}

static const char *marks_kept(const struct ex_outcome *e) {
    if (e->memory[sweep_allocs] != 1) return "a marked object was freed";
    return e->memory[sweep_marks] == 2 ? NULL : "a mark of the next cycle is lost, or one of the last is left";
}

TEST(memory_order, marks_against_the_sweep) {
    CHECK_KERNEL(sweeping, 1, marks_kept, sweep_sites);
}

/* ---- who lives, asked beside a sweep ----------------------------------------------------------------------------- */

enum { L_CLEAR, L_MARKED, L_GEN, L_GEN_READ, L_PLACE, L_PLACE_READ };
enum { LISTED = 1, CLAIMED = 2 };

static const struct site lives_sites[] = {
    [L_CLEAR] = {"alloc/span.c", "atomic_store_release(&w->marks[word], 0)", REL, RLX, NEEDED},
    [L_MARKED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit", ACQ,
                  RLX, NEEDED},
    [L_GEN] = {"alloc/span.c", "atomic_store_release(&span->gen, gen)", REL, RLX, NEEDED},
    [L_GEN_READ] = {"gc/inspect.c", "atomic_load_acquire(&span->gen) == current", ACQ, RLX, NEEDED},
    [L_PLACE] = {"alloc/central.c", "atomic_store_release(&span->place, SPAN_LISTED)", REL, RLX, NEEDED},
    [L_PLACE_READ] = {"gc/inspect.c", "atomic_load_acquire(&span->place) != SPAN_CLAIMED", ACQ, RLX, NEEDED},
};

/* tri__lives beside tri__span_sweep; variant 1: the object is dead. */
static void living(int variant) {
    int live = variant == 0;
    ex_begin(&p, live ? "a live object beside a sweep" : "a dead object beside a sweep");
    int marks = ex_loc(&p, "marks", live), allocs = ex_loc(&p, "allocs", 1), gen = ex_loc(&p, "gen", 0);
    int place = ex_loc(&p, "place", LISTED);
    ex_thread(&p, "sweeper");
    ex_store(&p, place, CLAIMED, RLX);
    ex_load(&p, R0, marks, RLX);
    if (!live) ex_store(&p, allocs, R0, REL);
    if (live) ex_store(&p, marks, 0, o[L_CLEAR]);
    ex_store(&p, gen, 1, o[L_GEN]);
    ex_store(&p, place, LISTED, o[L_PLACE]);
    ex_thread(&p, "reader");
    for (int turn = 0; turn < 2; turn++) {
        ex_load(&p, R0, gen, o[L_GEN_READ]);
        ex_when(&p, R0, EQ, 1, 4);
        ex_load(&p, R1, allocs, ACQ);
        ex_when(&p, R1, EQ, !live, 1);
        ex_fail(&p, live ? "a live object is taken for dead" : "a dead object is taken for alive");
        ex_end(&p);
        ex_load(&p, R1, marks, o[L_MARKED]);
        ex_when(&p, R1, EQ, 1, 1);
        ex_end(&p);
        ex_load(&p, R2, place, o[L_PLACE_READ]);
        ex_when(&p, R2, NE, CLAIMED, 5);
        ex_load(&p, R3, gen, ACQ);
        ex_when(&p, R3, NE, 1, 3);
        ex_when(&p, R3, EQ, live ? 0 : 2, 1);
        ex_fail(&p, "a live object is taken for dead");
        ex_end(&p);
    }
}

TEST(memory_order, who_lives_beside_a_sweep) {
    CHECK_KERNEL(living, 2, NULL, lives_sites);
}

/* ---- hand-over of holes, publication of fresh objects ------------------------------------------------------------ */

enum { P_ALLOC, P_ALLOCATED, P_STORE, P_LOAD, P_LAYOUT, P_LAYOUT_READ };
enum { GARBAGE = 9, CHILD = 5 };

static const struct site hole_sites[] = {
    [P_ALLOC] = {"alloc/span.c", "atomic_store_release(&w->allocs[word], atomic_load_relaxed(&w->allocs[word]) | bits)",
                 REL, RLX, NEEDED},
    [P_ALLOCATED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* pairs with the release in span_take",
                     ACQ, RLX, NEEDED},
    [P_STORE] = {"gc/barrier.c", "atomic_store_release((tri_word *)slot, value)", REL, RLX, NEEDED},
    [P_LOAD] = {"gc/mark_inline.h", "return atomic_load_acquire(p); /* pairs with tri_store", ACQ, RLX, NEEDED},
    /* A reference to the object, or the scan handshake, comes with what was stored before it. */
    [P_LAYOUT] = {"gc/alloc.c", "atomic_store_release(&m->heap->mem.space.layouts", REL, RLX, SPARE},
    [P_LAYOUT_READ] = {"alloc/arena.h", "return atomic_load_acquire(&space->layouts", ACQ, RLX, SPARE},
};

struct hole {
    int mark, alloc, layout, field, user, slot;
};

static struct hole hole_begin(const char *name) {
    ex_begin(&p, name);
    return (struct hole){ex_loc(&p, "mark", 0),        ex_loc(&p, "alloc", 0), ex_loc(&p, "layout", 3),
                         ex_loc(&p, "field", GARBAGE), ex_loc(&p, "user", 0),  ex_loc(&p, "slot", 0)};
}

/* tri__span_take_hole, try_small, the host's initialisation. */
static void take_and_init(const struct hole *h, bool black) {
    if (black) ex_or(&p, -1, h->mark, 1, RLX);
    ex_store(&p, h->field, 0, PLAIN);
    ex_store(&p, h->layout, 0, RLX);
    ex_store(&p, h->alloc, 1, o[P_ALLOC]);
    ex_store(&p, h->layout, 1, o[P_LAYOUT]);
    ex_store(&p, h->user, 1, PLAIN);    /* a C field */
    ex_store(&p, h->field, CHILD, RLX); /* tri_init */
}

/* A black thread takes a hole, and publishes an object out of it. Variant 0: beside it a marker with a stale
 * conservative word that names the slot. 1: a marker that follows a reference to the new object. 2: a thread that does,
 * and reads it. 3: the look for the dead, with a stale weak word (clear_if_dead). */
static void hole(int variant) {
    struct hole h = hole_begin("a hole, and what is published out of it");
    ex_thread(&p, "mutator");
    take_and_init(&h, true);
    ex_store(&p, h.slot, 1, o[P_STORE]);
    ex_thread(&p, variant == 2 ? "another" : "marker");
    if (variant == 0 || variant == 3) {
        ex_load(&p, R0, h.alloc, o[P_ALLOCATED]);
        ex_when(&p, R0, EQ, 0, 1);
        ex_end(&p); /* refused */
    } else {
        ex_load(&p, R0, h.slot, o[P_LOAD]);
        ex_when(&p, R0, EQ, 0, 1);
        ex_end(&p);
    }
    if (variant == 3) {
        ex_load(&p, R1, h.mark, ACQ);
        ex_when(&p, R1, EQ, 0, 1);
        ex_fail(&p, "a slot of a black hole is taken for dead");
        return;
    }
    if (variant < 2) {
        ex_or(&p, R1, h.mark, 1, RLX);
        ex_when(&p, R1, EQ, 0, 2);
        ex_load(&p, R2, h.field, ACQ);
        ex_fail(&p, "a slot of a black hole is scanned");
        return;
    }
    ex_load(&p, R2, h.field, ACQ);
    ex_when(&p, R2, NE, CHILD, 1);
    ex_fail(&p, "a reference leads to what is not initialised");
    ex_load(&p, R2, h.layout, o[P_LAYOUT_READ]); /* find_owner */
    ex_when(&p, R2, NE, 1, 1);
    ex_fail(&p, "a reference leads to another layout");
    ex_load(&p, R3, h.user, PLAIN);
}

TEST(memory_order, a_hole_and_what_is_published_out_of_it) {
    CHECK_KERNEL(hole, 4, NULL, hole_sites);
}

/* ---- R18: initialising stores ------------------------------------------------------------------------------------ */

enum { I_ANSWER, I_WAIT };

static const struct site init_sites[] = {
    [I_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [I_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
};

/* A white object that nobody has published: a stale word, or its thread's stack, leads the marker to it, after H3. */
static void initialised(int variant) {
    static const enum order always[] = {[P_ALLOC] = REL, [P_LAYOUT] = REL};
    const enum order *mine = o;
    (void)variant;
    struct hole h = hole_begin("initialising stores before the next safepoint");
    int answers = ex_loc(&p, "answers to H3", 0);
    ex_thread(&p, "mutator");
    o = always;
    take_and_init(&h, false);
    o = mine;
    ex_add(&p, -1, answers, 1, o[I_ANSWER]);
    ex_thread(&p, "collector");
    ex_await(&p, -1, answers, EQ, 1, o[I_WAIT]);
    ex_or(&p, R0, h.mark, 1, RLX);
    ex_load(&p, R1, h.layout, ACQ);
    ex_when(&p, R1, NE, 1, 1);
    ex_fail(&p, "an object is scanned by no layout, or by another one's");
    ex_load(&p, R2, h.field, ACQ);
    ex_when(&p, R2, NE, CHILD, 1);
    ex_fail(&p, "an object is scanned before it is initialised");
}

TEST(memory_order, initialising_stores_before_the_next_safepoint) {
    CHECK_KERNEL(initialised, 1, NULL, init_sites);
}

/* What R18 does not allow: the object was allocated before H3 and gets its reference after it, when the marker may be
 * reading it. The reference is to an object that was allocated meanwhile, black. */
static void initialised_late(int variant) {
    enum order init = o[0];
    (void)variant;
    struct hole h = hole_begin("initialising stores after a safepoint");
    int answers = ex_loc(&p, "answers to H3", 0), old_field = ex_loc(&p, "the old object's field", 0);
    ex_thread(&p, "mutator");
    ex_add(&p, -1, answers, 1, SEQ);
    ex_or(&p, -1, h.mark, 1, RLX); /* the new one's hole */
    ex_store(&p, h.field, 0, PLAIN);
    ex_store(&p, h.alloc, 1, REL);
    ex_store(&p, old_field, 1, init); /* tri_init(old, new) */
    ex_thread(&p, "collector");
    ex_await(&p, -1, answers, EQ, 1, ACQ);
    ex_load(&p, R0, old_field, ACQ);
    ex_when(&p, R0, EQ, 1, 3);
    ex_or(&p, R1, h.mark, 1, RLX);
    ex_when(&p, R1, EQ, 0, 1);
    ex_load(&p, R2, h.field, ACQ);
}

TEST(memory_order, initialising_stores_after_a_safepoint_would_have_to_release) {
    static const enum order relaxed[] = {RLX}, release[] = {REL};
    struct ex_result r = run(initialised_late, 1, NULL, relaxed);
    CHECK(r.wrong != NULL);
    CHECK_STR_EQ(r.wrong, "a data race"); /* the marker reads what the thread zeroes */
    r = run(initialised_late, 1, NULL, release);
    CHECK_MSG(!r.wrong, "%s\n%s", r.wrong, r.trace);
}

/* ---- the ends of a hole, read by others -------------------------------------------------------------------------- */

enum { E_CURSOR, E_LIMIT, E_LIMIT_READ, E_CURSOR_READ, E_ALLOC, E_ALLOCATED };

static const struct site ends_sites[] = {
    [E_CURSOR] = {"alloc/cache.c", "atomic_store_release(&hole->cursor, cursor)", REL, RLX, NEEDED},
    [E_LIMIT] = {"alloc/cache.c", "atomic_store_release(&hole->limit, limit)", REL, RLX, NEEDED},
    [E_LIMIT_READ] = {"gc/inspect.c", "atomic_load_acquire(&h->limit)", ACQ, RLX, NEEDED},
    [E_CURSOR_READ] = {"gc/inspect.c", "atomic_load_acquire(&h->cursor)", ACQ, RLX, NEEDED},
    [E_ALLOC] = {"alloc/span.c", "atomic_store_release(&w->allocs[word], atomic_load_relaxed(&w->allocs[word]) | bits)",
                 REL, RLX, NEEDED},
    [E_ALLOCATED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* pairs with the release in span_take",
                     ACQ, RLX, NEEDED},
};

/* set_hole and next_run beside in_hole_of. The old hole is [3, 4), its last slot is bumped over; the new one [10,
 * 12). */
static void hole_ends(int variant) {
    ex_begin(&p, "the ends of a hole");
    int cursor = ex_loc(&p, "cursor", 3), limit = ex_loc(&p, "limit", 4), alloc = ex_loc(&p, "alloc of 10", 0);
    ex_thread(&p, "owner");
    ex_store(&p, cursor, 4, RLX);
    ex_store(&p, limit, 0, RLX);
    ex_store(&p, cursor, 10, o[E_CURSOR]);
    ex_store(&p, limit, 12, o[E_LIMIT]);
    ex_store(&p, alloc, 1, o[E_ALLOC]);
    ex_thread(&p, "reader");
    if (variant == 1) {
        ex_load(&p, R3, alloc, o[E_ALLOCATED]);
        ex_when(&p, R3, EQ, 0, 1);
        ex_end(&p); /* no object there */
    }
    ex_load(&p, R0, limit, o[E_LIMIT_READ]);
    ex_load(&p, R1, cursor, o[E_CURSOR_READ]);
    ex_load(&p, R2, limit, RLX);
    ex_when(&p, R2, NE, R0, 1);
    ex_end(&p); /* looks again */
    ex_when(&p, R0, EQ, 4, 2);
    ex_when(&p, R1, GE, 10, 1);
    ex_fail(&p, "the new cursor with the old limit");
    ex_when(&p, R0, EQ, 12, 2);
    ex_when(&p, R1, LT, 10, 1);
    ex_fail(&p, "the old cursor with the new limit");
    if (variant == 1) {
        ex_when(&p, R0, NE, 12, 1);
        ex_fail(&p, "a slot of the hole is taken for an object");
    }
}

TEST(memory_order, the_ends_of_a_hole) {
    CHECK_KERNEL(hole_ends, 2, NULL, ends_sites);
}

/* ---- rounds: found before the mark ------------------------------------------------------------------------------- */

enum { F_FOUND, F_MARK, F_MARKED, F_ANSWER, F_WAIT, F_LOOK };

static const struct site round_sites[] = {
    /* The mark's release behind it, and the count's, carry it. */
    [F_FOUND] = {"gc/mark.c", "atomic_store_release(&mk->heap->found, 1); /* round's end */", REL, RLX, SPARE},
    [F_MARK] = {"alloc/arena.h", "atomic_or_acqrel(word, bit)", ARL, RLX, NEEDED},
    [F_MARKED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit", ACQ,
                  RLX, NEEDED},
    [F_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [F_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
    [F_LOOK] = {"gc/cycle.c", "atomic_load_acquire(&heap->found) != 0", ACQ, RLX, SPARE},
};

static void shade(int found, int mark) {
    ex_load(&p, R0, mark, o[F_MARKED]);
    ex_when(&p, R0, EQ, 0, 2);
    ex_store(&p, found, 1, o[F_FOUND]);
    ex_or(&p, R1, mark, 1, o[F_MARK]);
}

/* One thread has answered and turns an object grey then; another one finds it marked and answers "none". */
static void rounds(int variant) {
    (void)variant;
    ex_begin(&p, "found before the mark");
    int found = ex_loc(&p, "found", 0), mark = ex_loc(&p, "mark", 0), answers = ex_loc(&p, "answers", 0);
    ex_thread(&p, "a");
    ex_add(&p, -1, answers, 1, o[F_ANSWER]);
    shade(found, mark);
    ex_thread(&p, "b");
    shade(found, mark);
    ex_add(&p, -1, answers, 1, o[F_ANSWER]);
    ex_thread(&p, "collector");
    ex_await(&p, -1, answers, EQ, 2, o[F_WAIT]);
    ex_load(&p, R0, found, o[F_LOOK]);
    ex_when(&p, R0, EQ, 0, 1);
    ex_fail(&p, "a round closes although something turned grey in it");
}

TEST(memory_order, found_before_the_mark) {
    CHECK_KERNEL(rounds, 1, NULL, round_sites);
}

/* ---- work buffers ------------------------------------------------------------------------------------------------ */

enum { W_ACQUIRE, W_RELEASE, W_PUT, W_LOOK, W_ANSWER, W_WAIT };

static const struct site work_sites[] = {
    [W_ACQUIRE] = {NULL, NULL, ACQ, RLX, NEEDED},
    [W_RELEASE] = {NULL, NULL, REL, RLX, NEEDED},
    /* A hint beside the lock; at a round's end the answers carry it. */
    [W_PUT] = {"gc/work.c", "atomic_store_release(&work->nfull, atomic_load_relaxed(&work->nfull) + 1)", REL, RLX,
               SPARE},
    [W_LOOK] = {"gc/work.c", "atomic_load_acquire(&work->nfull) == 0", ACQ, RLX, SPARE},
    [W_ANSWER] = {"gc/cycle.c", "atomic_sub_seq(&heap->pending, 1)", SEQ, RLX, NEEDED},
    [W_WAIT] = {"gc/handshake.c", "while (atomic_load_acquire(&heap->pending)) {", ACQ, RLX, NEEDED},
};

/* A flush answer hands a buffer over. Variant 0: a worker takes it (tri__work_await). 1: the collector sees at the
 * round's end that there is one (tri__work_is_empty, no lock). */
static void handing_over(int variant) {
    ex_begin(&p, "a work buffer changes hands");
    int lock = ex_loc(&p, "lock", 0), full = ex_loc(&p, "full", 0), nfull = ex_loc(&p, "nfull", 0);
    int entries = ex_loc(&p, "entries", 0), answers = ex_loc(&p, "answers", 0);
    ex_thread(&p, "mutator");
    ex_store(&p, entries, 1, PLAIN);
    ex_lock(&p, lock, o[W_ACQUIRE]);
    ex_store(&p, full, 1, PLAIN);
    ex_store(&p, nfull, 1, o[W_PUT]);
    ex_unlock(&p, lock, o[W_RELEASE]);
    ex_add(&p, -1, answers, 1, o[W_ANSWER]);
    if (variant == 1) {
        ex_thread(&p, "collector");
        ex_await(&p, -1, answers, EQ, 1, o[W_WAIT]);
        ex_load(&p, R0, nfull, o[W_LOOK]);
        ex_when(&p, R0, EQ, 0, 1);
        ex_fail(&p, "a round closes although a buffer was handed over");
        return;
    }
    ex_thread(&p, "worker");
    ex_lock(&p, lock, o[W_ACQUIRE]);
    ex_load(&p, R1, full, PLAIN);
    ex_when(&p, R1, EQ, 1, 2);
    ex_store(&p, full, 0, PLAIN);
    ex_store(&p, nfull, 0, REL);
    ex_unlock(&p, lock, o[W_RELEASE]);
    ex_when(&p, R1, EQ, 1, 1);
    ex_load(&p, R2, entries, PLAIN);
}

TEST(memory_order, work_buffers) {
    CHECK_KERNEL(handing_over, 2, NULL, work_sites);
}

/* ---- weak loads -------------------------------------------------------------------------------------------------- */

enum { C_ACQUIRE, C_RELEASE, C_MARK, C_MARKED };

static const struct site close_sites[] = {
    [C_ACQUIRE] = {NULL, NULL, ACQ, RLX, NEEDED},
    [C_RELEASE] = {NULL, NULL, REL, RLX, NEEDED},
    [C_MARK] = {"alloc/arena.h", "atomic_or_acqrel(word, bit)", ARL, RLX, SPARE}, /* under the gate's lock */
    [C_MARKED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit", ACQ,
                  RLX, SPARE},
};
enum { CLOSING = 1, CLOSED = 2 };
static int close_mark, close_slot;

/* tri_weak_load_slow, tri__gate_load_quick, pass_gate; gate_close, clear_if_dead. */
static void closing(int variant) {
    (void)variant;
    ex_begin(&p, "a weak load against the close");
    int lock = ex_loc(&p, "gate's lock", 0), gate = ex_loc(&p, "gate", CLOSING), spoiled = ex_loc(&p, "spoiled", 0);
    close_mark = ex_loc(&p, "mark", 0);
    close_slot = ex_loc(&p, "weak slot", OBJECT);
    ex_thread(&p, "mutator");
    ex_load(&p, R0, close_slot, ACQ);
    ex_when(&p, R0, EQ, 0, 1);
    ex_end(&p);
    ex_load(&p, R1, close_mark, o[C_MARKED]);
    ex_when(&p, R1, EQ, 0, 11);
    ex_lock(&p, lock, o[C_ACQUIRE]);
    ex_load(&p, R1, close_mark, o[C_MARKED]);
    ex_load(&p, R2, gate, PLAIN);
    ex_when(&p, R1, EQ, 0, 5);
    ex_when(&p, R2, EQ, CLOSING, 3);
    ex_or(&p, -1, close_mark, 1, o[C_MARK]);
    ex_store(&p, spoiled, 1, PLAIN);
    ex_set(&p, R1, 1); /* allowed */
    ex_when(&p, R2, EQ, CLOSED, 0);
    ex_unlock(&p, lock, o[C_RELEASE]);
    ex_when(&p, R1, EQ, 0, 1);
    ex_end(&p); /* refused */
    ex_load(&p, R3, close_slot, ACQ);
    ex_thread(&p, "collector");
    ex_lock(&p, lock, o[C_ACQUIRE]);
    ex_load(&p, R0, spoiled, PLAIN);
    ex_when(&p, R0, EQ, 0, 1);
    ex_store(&p, gate, CLOSED, PLAIN);
    ex_unlock(&p, lock, o[C_RELEASE]);
    ex_when(&p, R0, EQ, 1, 1);
    ex_end(&p); /* another round */
    ex_load(&p, R1, close_slot, ACQ);
    ex_load(&p, R2, close_mark, o[C_MARKED]);
    ex_when(&p, R2, EQ, 0, 1);
    ex_cas(&p, R3, close_slot, OBJECT, 0, ARL);
}

static const char *given_away_alive(const struct ex_outcome *e) {
    if (e->regs[0][3] != OBJECT) return NULL;
    return e->memory[close_mark] && e->memory[close_slot] == OBJECT ? NULL : "a weak load gave a dead object away";
}

TEST(memory_order, a_weak_load_against_the_close) {
    CHECK_KERNEL(closing, 1, given_away_alive, close_sites);
}

enum { V_CLEAR, V_MARK, V_MARKED, V_AGAIN };

static const struct site revival_sites[] = {
    [V_CLEAR] = {"gc/weak.c", "atomic_cas_acqrel(word, &seen, 0)) w->ncleared++", ARL, RLX, SPARE},
    [V_MARK] = {"gc/mark.c", "if (atomic_or_acqrel(word, bit) & bit) return;", ARL, RLX, NEEDED},
    [V_MARKED] = {"alloc/arena.h", "(atomic_load_acquire(word) & bit) != 0; /* acquire: after an allocation bit", ACQ,
                  RLX, NEEDED},
    [V_AGAIN] = {"gc/weak.c", "atomic_load_acquire(word) == seen", ACQ, RLX, SPARE},
};

/* An object that a finalizer queue's object leads to: its weak slots are cleared, then it is marked (hot_process). Who
 * finds the mark, without the gate's lock, looks at the slot again. */
static void reviving(int variant) {
    (void)variant;
    ex_begin(&p, "a weak load against what comes back");
    int slot = ex_loc(&p, "weak slot", OBJECT), mark = ex_loc(&p, "mark", 0);
    ex_thread(&p, "collector");
    ex_cas(&p, R0, slot, OBJECT, 0, o[V_CLEAR]);
    ex_or(&p, -1, mark, 1, o[V_MARK]);
    ex_thread(&p, "mutator");
    ex_load(&p, R0, slot, ACQ);
    ex_when(&p, R0, EQ, OBJECT, 5);
    ex_load(&p, R1, mark, o[V_MARKED]);
    ex_when(&p, R1, EQ, 1, 3);
    ex_load(&p, R2, slot, o[V_AGAIN]);
    ex_when(&p, R2, EQ, OBJECT, 1);
    ex_fail(&p, "a weak load gave away what was dead at the close");
}

TEST(memory_order, a_weak_load_against_what_comes_back) {
    CHECK_KERNEL(reviving, 1, NULL, revival_sites);
}

/* ---- page-table lookups, lists of spans -------------------------------------------------------------------------- */

enum { T_SHAPE, T_READ };

static const struct site page_sites[] = {
    [T_SHAPE] = {"alloc/span.c", "atomic_store_release(&space->pages[page].shape, shape)", REL, RLX, NEEDED},
    [T_READ] = {"alloc/arena.h", "atomic_load_acquire(&space->pages[page].shape)", ACQ, RLX, NEEDED},
};

/* tri__span_publish, space_find_slot. */
static void looking_up(int variant) {
    (void)variant;
    ex_begin(&p, "a page's entry");
    int shape = ex_loc(&p, "shape", 0), place = ex_loc(&p, "place", 0), span = ex_loc(&p, "span", 0);
    int descriptor = ex_loc(&p, "slot_bytes of the span", 0);
    ex_thread(&p, "mutator");
    ex_store(&p, descriptor, 1, PLAIN);
    ex_store(&p, span, 1, RLX);
    ex_store(&p, place, 1, RLX);
    ex_store(&p, shape, 1, o[T_SHAPE]);
    ex_thread(&p, "marker");
    ex_load(&p, R0, shape, o[T_READ]);
    ex_when(&p, R0, EQ, 0, 1);
    ex_end(&p); /* no span */
    ex_load(&p, R1, place, RLX);
    ex_when(&p, R1, EQ, 0, 1);
    ex_fail(&p, "a page's shape without its place");
    ex_load(&p, R1, span, RLX);
    ex_when(&p, R1, EQ, 0, 1);
    ex_fail(&p, "a page's shape without its span");
    ex_load(&p, R2, descriptor, PLAIN);
}

TEST(memory_order, page_table_lookups) {
    CHECK_KERNEL(looking_up, 1, NULL, page_sites);
}

enum { G_ACQUIRE, G_RELEASE, G_FLIP, G_GEN };

static const struct site list_sites[] = {
    [G_ACQUIRE] = {NULL, NULL, ACQ, RLX, NEEDED},
    [G_RELEASE] = {NULL, NULL, REL, RLX, NEEDED},
    /* The list's lock and the generation of its head, read under it, decide. */
    [G_FLIP] = {"alloc/memory.c", "atomic_store_release(&mem->gen,", REL, RLX, SPARE},
    [G_GEN] = {"alloc/central.c", "gen == atomic_load_acquire(&mem->gen); /* only such threads sweep", ACQ, RLX, SPARE},
};

/* A thread that has not retired gives a span of generation 1 back, unmarks what it did not use before; one that has
 * takes it off the list and sweeps it. */
static void listing(int variant) {
    (void)variant;
    ex_begin(&p, "a span goes through a list");
    int lock = ex_loc(&p, "list's lock", 0), head = ex_loc(&p, "head", 0), gen = ex_loc(&p, "gen of the heap", 1);
    int span_gen = ex_loc(&p, "gen of the span", 0), nalloc = ex_loc(&p, "nalloc", 0), marks = ex_loc(&p, "marks", 3);
    ex_thread(&p, "not retired");
    ex_store(&p, span_gen, 1, RLX);
    ex_store(&p, nalloc, 1, PLAIN);
    ex_and(&p, -1, marks, 1, RLX);
    ex_lock(&p, lock, o[G_ACQUIRE]);
    ex_store(&p, head, 1, PLAIN);
    ex_unlock(&p, lock, o[G_RELEASE]);
    ex_thread(&p, "retired");
    ex_await(&p, -1, gen, EQ, 2, o[G_GEN]);
    ex_lock(&p, lock, o[G_ACQUIRE]);
    ex_load(&p, R0, head, PLAIN);
    ex_load(&p, R1, span_gen, RLX);
    ex_when(&p, R0, EQ, 1, 1);
    ex_store(&p, head, 0, PLAIN);
    ex_unlock(&p, lock, o[G_RELEASE]);
    ex_when(&p, R0, EQ, 1, 6);
    ex_when(&p, R1, NE, 1, 1);
    ex_fail(&p, "a list has a span of another generation");
    ex_load(&p, R2, nalloc, PLAIN);
    ex_load(&p, R3, marks, RLX);
    ex_when(&p, R3, NE, 1, 1);
    ex_fail(&p, "a slot that was given back is swept as live");
    ex_thread(&p, "collector");
    ex_store(&p, gen, 2, o[G_FLIP]);
}

TEST(memory_order, lists_of_spans) {
    CHECK_KERNEL(listing, 1, NULL, list_sites);
}
