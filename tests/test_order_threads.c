/*
 * test_order_threads.c: how threads ask each other, answer, wait and are woken, under C11's memory model: the handshake
 * word, the state word of blocked threads, parking, flags with a count of who is inside, the barrier that goes on for
 * one thread before the other, and blocks of manual memory that come back. See kernel.h.
 */
#include "tests/kernel.h"

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
    [H_TAKE] = {"gc/safepoint.c", "atomic_swap_acqrel(&m->pub.request, 0)", ARL, RLX, NEEDED},
    [H_READ] = {"gc/safepoint.c", "atomic_load_acquire(&m->request_seq); /* pairs with handshake_post */", ACQ, RLX,
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
    [B_SP] = {"gc/safepoint.c", "atomic_store_release(&os->sp, sp)", REL, RLX, SPARE}, /* the state word follows */
    [B_BLOCK] = {"gc/safepoint.c", "atomic_store_seq(&os->state, OS_BLOCKED)", SEQ, REL, NEEDED},
    [B_LOOK] = {"gc/safepoint.c", "atomic_load_seq(&m->pub.request)", SEQ, ACQ, NEEDED},
    [B_LEAVE] = {"gc/safepoint.c", "atomic_cas_seq(&os->state, &expected, OS_RUNNING)", SEQ, RLX, NEEDED},
    [B_REQUEST] = {"gc/handshake.c", "atomic_store_seq(&a->pub.request, 1)", SEQ, REL, NEEDED},
    [B_HOLD] = {"gc/handshake.c", "atomic_cas_seq(&os->state, &expected, OS_HELD)", SEQ, ARL, NEEDED},
    [B_GIVE] = {"gc/handshake.c", "atomic_swap_seq(&os->state, OS_BLOCKED)", SEQ, RLX, NEEDED},
    /* Beside the state word and the count of answers: what saves a look at a thread that has answered. */
    [B_ANSWERED] = {"gc/cycle.c", "atomic_store_release(&m->answer_seq, seq)", REL, RLX, SPARE},
    [B_ASKED] = {"gc/handshake.c", "atomic_load_acquire(&m->answer_seq) >= seq", ACQ, RLX, SPARE},
};

/* run_blocking, enter_blocked, tri__leave_blocked, answer_all; post, look, hold, release_hold. Inside the region the
 * thread waits for something that comes only after the step has all its answers. */
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

/* ---- blocks of manual memory that come back ---------------------------------------------------------------------- */

enum { X_PUSH, X_TAKE };

static const struct site remote_sites[] = {
    [X_PUSH] = {"alloc/manual.c", "atomic_cas_acqrel(&ms->remote, &remote, with)", ARL, RLX, NEEDED},
    [X_TAKE] = {"alloc/manual.c", "atomic_swap_acqrel(&ms->remote, 0); /* pairs with push_remote", ARL, RLX, NEEDED},
};

/* push_remote, with as many turns as it can take here: the other thread and the owner may each come between once. */
static void push_block(int remote, int block, int link, int content) {
    enum { TURNS = 3, INSTRS = 4 };
    ex_store(&p, content, 1, PLAIN); /* the host's last write to it */
    ex_load(&p, R0, remote, RLX);
    ex_set(&p, R1, -1);
    for (int turn = 0; turn < TURNS; turn++) {
        ex_when(&p, R1, NE, R0, INSTRS);
        ex_when(&p, R1, GE, 0, 1);
        ex_set(&p, R0, R1); /* what was found */
        ex_store(&p, link, R0, PLAIN);
        ex_cas(&p, R1, remote, R0, block, o[X_PUSH]);
    }
    ex_when(&p, R1, NE, R0, 1);
    ex_fail(&p, "a turn more than there can be");
}

/* Two threads free a block each of a span that a third one owns, which takes what there is, and uses it. */
static void remote_frees(int variant) {
    (void)variant;
    ex_begin(&p, "blocks that come back");
    int remote = ex_loc(&p, "remote", 0), link[3], content[3];
    for (int i = 1; i < 3; i++) {
        link[i] = ex_loc(&p, i == 1 ? "link of 1" : "link of 2", 0);
        content[i] = ex_loc(&p, i == 1 ? "content of 1" : "content of 2", 0);
    }
    ex_thread(&p, "a");
    push_block(remote, 1, link[1], content[1]);
    ex_thread(&p, "b");
    push_block(remote, 2, link[2], content[2]);
    ex_thread(&p, "owner");
    ex_await(&p, -1, remote, NE, 0, RLX);
    ex_swap(&p, R0, remote, 0, o[X_TAKE]);
    for (int turn = 0; turn < 2; turn++) { /* along the list */
        ex_set(&p, R2, R0);
        for (int i = 1; i < 3; i++) {
            ex_when(&p, R2, EQ, i, 2);
            ex_store(&p, content[i], 2, PLAIN);
            ex_load(&p, R0, link[i], PLAIN);
        }
    }
    ex_when(&p, R0, NE, 0, 1);
    ex_fail(&p, "a list that does not end");
}

TEST(memory_order, blocks_that_come_back) {
    CHECK_KERNEL(remote_frees, 1, NULL, remote_sites);
}
