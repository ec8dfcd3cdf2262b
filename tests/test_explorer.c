/*
 * test_explorer.c: the explorer against litmus tests whose outcomes are known: what C11 allows (RC11
 * with load buffering, see explorer.h) it must find, what C11 forbids it must not. The names are the literature's
 * (Alglave, Maranget, Tautschnig 2014, "Herding cats"; Lahav et al. 2017, "Repairing sequential consistency in
 * C/C++11"). An outcome is written as in print: the values of registers, and of locations at the end.
 */
#include <string.h>
#include "tests/explorer.h"
#include "tests/plain.h"

static struct ex_program p;
static int x, y, z;

static void begin(const char *name) {
    ex_begin(&p, name);
    x = ex_loc(&p, "x", 0);
    y = ex_loc(&p, "y", 0);
    z = ex_loc(&p, "z", 0);
}

#define THREAD() ex_thread(&p, "thread")
#define R(t, n) (o->regs[(t)-1][n])
/* A judge that calls an outcome wrong, so that finding it is seen. */
#define OUTCOME(name, condition)                             \
    static const char *name(const struct ex_outcome *o) {    \
        return (condition) ? "the outcome asked for" : NULL; \
    }

static bool allows(ex_judge outcome) {
    struct ex_result r = ex_explore(&p, outcome);
    CHECK_MSG(!r.wrong || strcmp(r.wrong, "the outcome asked for") == 0, "%s: %s\n%s", p.name, r.wrong, r.trace);
    CHECK(r.wrong || r.nexecutions > 0);
    return r.wrong != NULL;
}

/* ---- message passing --------------------------------------------------------------------------------------------- */

OUTCOME(stale_message, R(2, 0) == 1 && R(2, 1) == 0)

static void mp(enum order write, enum order read) {
    begin("MP");
    THREAD();
    ex_store(&p, x, 1, RLX);
    ex_store(&p, y, 1, write);
    THREAD();
    ex_load(&p, R0, y, read);
    ex_load(&p, R1, x, RLX);
}

TEST(explorer, message_passing) {
    mp(REL, ACQ);
    CHECK(!allows(stale_message));
    mp(SEQ, SEQ);
    CHECK(!allows(stale_message));
    mp(RLX, ACQ);
    CHECK(allows(stale_message));
    mp(REL, RLX);
    CHECK(allows(stale_message));
    mp(RLX, RLX);
    CHECK(allows(stale_message));
}

TEST(explorer, plain_data_behind_a_message_races_unless_it_is_released_and_acquired) {
    for (int i = 0; i < 4; i++) {
        begin("MP with plain data");
        THREAD();
        ex_store(&p, x, 1, PLAIN);
        ex_store(&p, y, 1, i & 1 ? RLX : REL);
        THREAD();
        ex_await(&p, -1, y, EQ, 1, i & 2 ? RLX : ACQ);
        ex_load(&p, R1, x, PLAIN);
        struct ex_result r = ex_explore(&p, NULL);
        CHECK_EQ(r.wrong != NULL, i != 0);
        if (r.wrong) CHECK_STR_EQ(r.wrong, "a data race");
    }
}

/* ---- store buffering, load buffering ----------------------------------------------------------------------------- */

OUTCOME(both_zero, R(1, 0) == 0 && R(2, 0) == 0)

static void sb(enum order w1, enum order r1, enum order w2, enum order r2) {
    begin("SB");
    THREAD();
    ex_store(&p, x, 1, w1);
    ex_load(&p, R0, y, r1);
    THREAD();
    ex_store(&p, y, 1, w2);
    ex_load(&p, R0, x, r2);
}

TEST(explorer, store_buffering) {
    sb(SEQ, SEQ, SEQ, SEQ);
    CHECK(!allows(both_zero));
    sb(REL, ACQ, REL, ACQ); /* what TSO shows with plain moves */
    CHECK(allows(both_zero));
    sb(REL, SEQ, SEQ, SEQ); /* each of the four is needed */
    CHECK(allows(both_zero));
    sb(SEQ, ACQ, SEQ, SEQ);
    CHECK(allows(both_zero));
    sb(SEQ, SEQ, REL, SEQ);
    CHECK(allows(both_zero));
    sb(SEQ, SEQ, SEQ, ACQ);
    CHECK(allows(both_zero));
}

TEST(explorer, store_buffering_with_read_modify_writes) {
    for (int i = 0; i < 2; i++) {
        begin("SB+rmw");
        THREAD();
        ex_swap(&p, R1, x, 1, i ? ARL : SEQ);
        ex_load(&p, R0, y, i ? ACQ : SEQ);
        THREAD();
        ex_swap(&p, R1, y, 1, i ? ARL : SEQ);
        ex_load(&p, R0, x, i ? ACQ : SEQ);
        CHECK_EQ(allows(both_zero), i == 1); /* on TSO a swap is a fence; C11 and ARMv8 (casal, ldapr) do not say so */
    }
}

OUTCOME(both_one, R(1, 0) == 1 && R(2, 0) == 1)

static void lb(enum order read, enum order write, bool depends) {
    begin("LB");
    THREAD();
    ex_load(&p, R0, x, read);
    ex_store(&p, y, depends ? R0 : 1, write);
    THREAD();
    ex_load(&p, R0, y, read);
    ex_store(&p, x, depends ? R0 : 1, write);
}

TEST(explorer, load_buffering) {
    lb(RLX, RLX, false);
    CHECK(allows(both_one));
    lb(ACQ, RLX, false);
    CHECK(!allows(both_one));
    lb(RLX, REL, false);
    CHECK(!allows(both_one));
    lb(SEQ, SEQ, false);
    CHECK(!allows(both_one));
    lb(RLX, RLX, true); /* nothing comes out of thin air */
    CHECK(!allows(both_one));
}

TEST(explorer, load_buffering_does_not_pass_a_condition) {
    for (int nconditions = 0; nconditions < 3; nconditions++) {
        begin("LB+ctrl");
        THREAD();
        ex_load(&p, R0, x, RLX);
        if (nconditions > 0) ex_when(&p, R0, EQ, 1, 1);
        ex_store(&p, y, 1, RLX);
        THREAD();
        ex_load(&p, R0, y, RLX);
        if (nconditions > 1) ex_when(&p, R0, EQ, 1, 1);
        ex_store(&p, x, 1, RLX);
        CHECK_EQ(allows(both_one), nconditions < 2); /* one side is enough to go first */
    }
}

TEST(explorer, load_buffering_passes_a_condition_that_does_not_decide_it) {
    begin("LB+fake ctrl"); /* compilers may move the writes up, if processors may not */
    THREAD();
    ex_load(&p, R0, x, RLX);
    ex_when(&p, R0, EQ, 1, 1);
    ex_set(&p, R1, 1);
    ex_store(&p, y, 1, RLX);
    THREAD();
    ex_load(&p, R0, y, RLX);
    ex_when(&p, R0, EQ, 1, 1);
    ex_store(&p, x, 1, RLX);
    CHECK(allows(both_one));
    begin("LB+ctrl, both ways");
    for (int t = 0; t < 2; t++) {
        THREAD();
        ex_load(&p, R0, t ? y : x, RLX);
        ex_when(&p, R0, EQ, 0, 1);
        ex_end(&p);
        ex_store(&p, t ? x : y, 1, RLX);
    }
    CHECK(!allows(both_one));
    begin("LB+ctrl, taken at first"); /* a write under a condition that holds only for what has not been read yet */
    for (int t = 0; t < 2; t++) {
        THREAD();
        ex_load(&p, R0, t ? y : x, RLX);
        ex_when(&p, R0, EQ, 0, 1);
        ex_store(&p, t ? x : y, 1, RLX);
    }
    CHECK(!allows(both_one));
}

OUTCOME(another_value, R(1, 0) == 1 && o->memory[1] != 1)

TEST(explorer, a_write_of_what_was_read_has_that_value) {
    begin("LB+data");
    THREAD();
    ex_load(&p, R0, x, RLX);
    ex_store(&p, y, R0, RLX);
    THREAD();
    ex_load(&p, R0, y, RLX);
    ex_store(&p, x, 1, RLX);
    CHECK(!allows(another_value));
}

OUTCOME(second_first, R(1, 0) == 1 && R(2, 0) == 1 && R(2, 1) == 0)

/* The second thread's add comes first, though it has seen what follows the first one's. */
TEST(explorer, load_buffering_with_read_modify_writes) {
    static const struct {
        enum order add, write, read;
        bool allowed;
    } cases[] = {{RLX, RLX, RLX, true}, {RLX, REL, RLX, true},  {RLX, RLX, ACQ, true},
                 {ACQ, RLX, RLX, true}, {RLX, REL, ACQ, false}, {ACQ, RLX, ACQ, false}};
    for (int i = 0; i < 6; i++) {
        begin("LB+rmw");
        THREAD();
        ex_add(&p, R0, x, 1, cases[i].add);
        ex_store(&p, y, 1, cases[i].write);
        THREAD();
        ex_load(&p, R0, y, cases[i].read);
        ex_add(&p, R1, x, 1, RLX);
        CHECK_EQ(allows(second_first), cases[i].allowed);
    }
}

/* ---- coherence --------------------------------------------------------------------------------------------------- */

OUTCOME(backwards, R(2, 0) == 2 && R(2, 1) == 1)
OUTCOME(crosswise, R(3, 0) == 1 && R(3, 1) == 2 && R(4, 0) == 2 && R(4, 1) == 1)
OUTCOME(own_overtaken, o->memory[0] == 1)
OUTCOME(own_unread, R(1, 0) == 0)
OUTCOME(read_then_before, R(1, 0) == 2 && o->memory[0] == 2)

TEST(explorer, reads_of_one_location_agree) {
    begin("CoRR");
    THREAD();
    ex_store(&p, x, 1, RLX);
    ex_store(&p, x, 2, RLX);
    THREAD();
    ex_load(&p, R0, x, RLX);
    ex_load(&p, R1, x, RLX);
    CHECK(!allows(backwards));
    CHECK(!allows(own_overtaken)); /* CoWW: the thread's second write is the last one */
    begin("CoRR2");
    THREAD();
    ex_store(&p, x, 1, RLX);
    THREAD();
    ex_store(&p, x, 2, RLX);
    for (int t = 0; t < 2; t++) {
        THREAD();
        ex_load(&p, R0, x, RLX);
        ex_load(&p, R1, x, RLX);
    }
    CHECK(!allows(crosswise));
}

TEST(explorer, a_thread_sees_its_own_writes_in_order) {
    begin("CoWR");
    THREAD();
    ex_store(&p, x, 1, RLX);
    ex_load(&p, R0, x, RLX);
    THREAD();
    ex_store(&p, x, 2, RLX);
    CHECK(!allows(own_unread));
    begin("CoRW");
    THREAD();
    ex_load(&p, R0, x, RLX);
    ex_store(&p, x, 1, RLX);
    THREAD();
    ex_store(&p, x, 2, RLX);
    CHECK(!allows(read_then_before)); /* what was read comes before what is written then */
}

OUTCOME(both_first, o->memory[0] == 1 && o->memory[1] == 1)

TEST(explorer, two_times_two_writes) {
    static const enum order orders[] = {RLX, REL, SEQ};
    for (int i = 0; i < 3; i++) {
        begin("2+2W");
        THREAD();
        ex_store(&p, x, 1, orders[i]);
        ex_store(&p, y, 2, orders[i]);
        THREAD();
        ex_store(&p, y, 1, orders[i]);
        ex_store(&p, x, 2, orders[i]);
        CHECK_EQ(allows(both_first), orders[i] != SEQ);
    }
}

OUTCOME(r_outcome, o->memory[1] == 2 && R(2, 0) == 0)

TEST(explorer, a_write_ordered_behind_another_brings_nothing_with_it) {
    for (int i = 0; i < 2; i++) {
        enum order w = i ? SEQ : REL, r = i ? SEQ : ACQ;
        begin("R");
        THREAD();
        ex_store(&p, x, 1, w);
        ex_store(&p, y, 1, w);
        THREAD();
        ex_store(&p, y, 2, w);
        ex_load(&p, R0, x, r);
        CHECK_EQ(allows(r_outcome), i == 0);
    }
}

OUTCOME(s_outcome, R(2, 0) == 1 && o->memory[0] == 2)

TEST(explorer, a_write_after_a_message_comes_after_what_it_told_of) {
    for (int i = 0; i < 3; i++) {
        begin("S");
        THREAD();
        ex_store(&p, x, 2, RLX);
        ex_store(&p, y, 1, i == 1 ? RLX : REL);
        THREAD();
        ex_load(&p, R0, y, i == 2 ? RLX : ACQ);
        ex_store(&p, x, 1, RLX);
        CHECK_EQ(allows(s_outcome), i != 0);
    }
}

/* ---- three threads and more -------------------------------------------------------------------------------------- */

OUTCOME(wrc_outcome, R(2, 0) == 1 && R(3, 0) == 1 && R(3, 1) == 0)

TEST(explorer, write_to_read_causality) {
    for (int i = 0; i < 3; i++) {
        begin("WRC");
        THREAD();
        ex_store(&p, x, 1, REL);
        THREAD();
        ex_load(&p, R0, x, i == 1 ? RLX : ACQ);
        ex_store(&p, y, 1, i == 2 ? RLX : REL);
        THREAD();
        ex_load(&p, R0, y, ACQ);
        ex_load(&p, R1, x, RLX);
        CHECK_EQ(allows(wrc_outcome), i == 2); /* with a relaxed first read coherence does it: x was read before y */
    }
}

OUTCOME(isa2_outcome, R(2, 0) == 1 && R(3, 0) == 1 && R(3, 1) == 0)

TEST(explorer, a_message_passed_on) {
    for (int i = 0; i < 3; i++) {
        begin("ISA2");
        THREAD();
        ex_store(&p, x, 1, RLX);
        ex_store(&p, y, 1, REL);
        THREAD();
        ex_load(&p, R0, y, i == 1 ? RLX : ACQ);
        ex_store(&p, z, 1, i == 2 ? RLX : REL);
        THREAD();
        ex_load(&p, R0, z, ACQ);
        ex_load(&p, R1, x, RLX);
        CHECK_EQ(allows(isa2_outcome), i != 0);
    }
}

OUTCOME(iriw_outcome, R(3, 0) == 1 && R(3, 1) == 0 && R(4, 0) == 1 && R(4, 1) == 0)

TEST(explorer, independent_reads_of_independent_writes) {
    static const enum order writes[] = {SEQ, REL, RLX, SEQ}, reads[] = {SEQ, ACQ, RLX, ACQ};
    for (int i = 0; i < 4; i++) {
        begin("IRIW");
        THREAD();
        ex_store(&p, x, 1, writes[i]);
        THREAD();
        ex_store(&p, y, 1, writes[i]);
        THREAD();
        ex_load(&p, R0, x, reads[i]);
        ex_load(&p, R1, y, reads[i]);
        THREAD();
        ex_load(&p, R0, y, reads[i]);
        ex_load(&p, R1, x, reads[i]);
        CHECK_EQ(allows(iriw_outcome), i != 0); /* C11 allows with acquire what no multi-copy atomic machine shows */
    }
}

OUTCOME(z6u_outcome, R(2, 1) == 1 && R(2, 0) == 3 && R(3, 0) == 0)

TEST(explorer, seq_cst_beside_weaker_accesses) {
    begin(
        "Z6.U"); /* Lahav et al., figure 1: C11 as first printed forbids it, Power and ARMv7 show it, RC11 allows it */
    THREAD();
    ex_store(&p, x, 1, SEQ);
    ex_store(&p, y, 1, REL);
    THREAD();
    ex_add(&p, R1, y, 1, SEQ);
    ex_load(&p, R0, y, RLX);
    THREAD();
    ex_store(&p, y, 3, SEQ);
    ex_load(&p, R0, x, SEQ);
    CHECK(allows(z6u_outcome));
}

/* ---- read-modify-writes ------------------------------------------------------------------------------------------ */

OUTCOME(an_add_lost, o->memory[0] != 3)
OUTCOME(both_took_it, R(1, 0) == 0 && R(2, 0) == 0)
OUTCOME(a_store_between, R(1, 0) == 0 && o->memory[0] == 1)

TEST(explorer, read_modify_writes_are_atomic) {
    begin("three adds");
    for (int t = 0; t < 3; t++) {
        THREAD();
        ex_add(&p, R0, x, 1, RLX);
    }
    CHECK(!allows(an_add_lost));
    begin("a lock, relaxed");
    for (int t = 0; t < 2; t++) {
        THREAD();
        ex_cas(&p, R0, x, 0, 1, RLX);
    }
    CHECK(!allows(both_took_it));
    begin("load and store");
    for (int t = 0; t < 2; t++) {
        THREAD();
        ex_load(&p, R0, x, SEQ);
        ex_store(&p, x, 1, SEQ);
    }
    CHECK(allows(both_took_it));
    begin("nothing comes between");
    THREAD();
    ex_add(&p, R0, x, 1, RLX);
    THREAD();
    ex_store(&p, x, 5, RLX);
    CHECK(!allows(a_store_between)); /* 0, 1, 5 or 0, 5, 6; never 0, 5, 1 */
}

OUTCOME(sequence_cut, R(3, 0) == 2 && R(3, 1) == 0)

TEST(explorer, release_sequences) {
    for (int i = 0; i < 4; i++) {
        begin("release sequence");
        THREAD();
        ex_store(&p, x, 1, RLX);
        ex_store(&p, y, 1, i == 3 ? RLX : REL);
        THREAD();
        if (i == 1) { /* a plain store of another thread is no part of it */
            ex_await(&p, -1, y, EQ, 1, RLX);
            ex_store(&p, y, 2, RLX);
        } else {
            ex_cas(&p, R0, y, 1, 2, RLX);
        }
        THREAD();
        ex_load(&p, R0, y, i == 2 ? RLX : ACQ);
        ex_load(&p, R1, x, RLX);
        CHECK_EQ(allows(sequence_cut), i != 0);
    }
}

OUTCOME(own_store_cut, R(2, 0) == 2 && R(2, 1) == 0)

TEST(explorer, a_later_plain_store_of_the_same_thread_ends_a_release_sequence) {
    begin("as in C20"); /* C11 forbids it, C20 allows it: the weaker is taken */
    THREAD();
    ex_store(&p, x, 1, RLX);
    ex_store(&p, y, 1, REL);
    ex_store(&p, y, 2, RLX);
    THREAD();
    ex_load(&p, R0, y, ACQ);
    ex_load(&p, R1, x, RLX);
    CHECK(allows(own_store_cut));
}

TEST(explorer, a_failed_exchange_only_loads) {
    begin("failed exchange");
    THREAD();
    ex_store(&p, x, 1, PLAIN);
    ex_store(&p, y, 7, REL);
    THREAD();
    ex_cas(&p, R0, y, 3, 4, ARL);
    ex_when(&p, R0, EQ, 7, 1);
    ex_load(&p, R1, x, PLAIN); /* acquired by the failed one */
    CHECK(!allows(NULL));
    begin("failed exchange, relaxed");
    THREAD();
    ex_store(&p, x, 1, PLAIN);
    ex_store(&p, y, 7, REL);
    THREAD();
    ex_cas(&p, R0, y, 3, 4, REL);
    ex_when(&p, R0, EQ, 7, 1);
    ex_load(&p, R1, x, PLAIN);
    CHECK_STR_EQ(ex_explore(&p, NULL).wrong, "a data race");
}

/* ---- waiting, locks ---------------------------------------------------------------------------------------------- */

TEST(explorer, a_thread_that_waits_for_ever_is_told) {
    begin("nobody answers");
    THREAD();
    ex_store(&p, x, 1, SEQ);
    THREAD();
    ex_await(&p, -1, x, EQ, 2, SEQ);
    struct ex_result r = ex_explore(&p, NULL);
    CHECK_STR_EQ(r.wrong, "a thread waits for ever");
    CHECK(strstr(r.trace, "store x seq_cst, writes 1\n") && strstr(r.trace, "waits at instruction 0\n"));
    begin("somebody does");
    THREAD();
    ex_store(&p, x, 2, RLX);
    THREAD();
    ex_await(&p, -1, x, EQ, 2, RLX);
    CHECK(ex_explore(&p, NULL).wrong == NULL);
}

TEST(explorer, locks_keep_threads_apart) {
    static const struct { enum order acquire, release; } kinds[] = {{ACQ, REL}, {RLX, REL}, {ACQ, RLX}};
    for (int i = 0; i < 3; i++) {
        begin("lock");
        for (int t = 0; t < 2; t++) {
            THREAD();
            ex_lock(&p, y, kinds[i].acquire);
            ex_load(&p, R0, x, PLAIN);
            ex_plus(&p, R0, 1);
            ex_store(&p, x, R0, PLAIN);
            ex_unlock(&p, y, kinds[i].release);
        }
        struct ex_result r = ex_explore(&p, NULL);
        CHECK_EQ(r.wrong != NULL, i != 0);
    }
}

TEST(explorer, counts_of_executions_are_those_done_by_hand) {
    mp(RLX, RLX); /* each of the two reads has two writes to read from */
    CHECK_EQ(ex_explore(&p, NULL).nexecutions, 4);
    mp(REL, ACQ);
    CHECK_EQ(ex_explore(&p, NULL).nexecutions, 3);
    sb(RLX, RLX, RLX, RLX);
    CHECK_EQ(ex_explore(&p, NULL).nexecutions, 4);
    sb(SEQ, SEQ, SEQ, SEQ);
    CHECK_EQ(ex_explore(&p, NULL).nexecutions, 3);
    begin("three writers"); /* 3! orders */
    for (int t = 0; t < 3; t++) {
        THREAD();
        ex_store(&p, x, t + 1, RLX);
    }
    CHECK_EQ(ex_explore(&p, NULL).nexecutions, 6);
}
