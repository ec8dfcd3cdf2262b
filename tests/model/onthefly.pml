/* The collector's protocol as a Spin model: on-the-fly tri-colour marking with a hybrid
 * (Yuasa + Dijkstra) write barrier and ragged handshakes; no step stops all mutators.
 *
 * NT mutators, NO objects of one field each, NL locals a mutator (its stack), one global
 * root that is written through the barrier. The collector runs cycle after cycle.
 *
 * Safety, asserted at each use: a mutator never holds, reads or writes a freed object, and
 * nobody marks one. Also asserted: when a barrier is disarmed, its thread holds nothing grey
 * and nothing unmarked is left in its buffer. The search also reports a deadlock, which is
 * how a handshake that nobody answers shows.
 *
 * The steps. A comment at a step of the code cites the model by these names; each is written
 * beside the lines below that model it.
 *
 *   M-ARM      H1: the barrier goes on, the stack counts as grey
 *   M-SETTLE   H2: nothing to do but answer; no store that saw a barrier off is in flight after it
 *   M-SCAN     H3: the thread's own roots become grey; its stack is black and it allocates black
 *   M-COPY     a word of a stack that M-SCAN copied becomes grey, beside the mutators (COPYSTACK)
 *   M-ROOTS    the global root becomes grey, after the last H3 answer (or beside H3: ROOTBESIDE)
 *   M-MARK     the queue is drained; begins after the last H3 answer
 *   M-FLUSH    H4: candidates are marked, grey work is handed over, the answer is any or none
 *   M-RESCAN   (INSERTION) all threads stand at a safepoint: stacks and what was allocated black are scanned, and
 *              traced to the end
 *   M-CLOSE    after a round of none: the ephemeron pass, and back to M-MARK or closed
 *   M-DEATH    what is unmarked is taken out of weak slots and ephemerons; what finalizer queues claim comes back, and
 *              is delivered; cleanups are due; in R7's order (FIN, CLEANUP)
 *   M-DISARM   H5: the barrier goes off, the buffer is thrown away
 *   M-FLIP     the heap's sweep generation advances
 *   M-RETIRE   H6: holes are given back, the thread allocates white in the new generation
 *   M-SWEEP    span by span, by the collector or by a thread that has retired
 *   M-POLL     a mutator's safepoint: it does the step that is asked for and answers
 *   M-ALLOC    allocation and the initialising store
 *   M-LOAD     a load from a field, the root, a weak slot, an ephemeron, a finalizer queue; by address
 *   M-STORE    a store through the barrier
 *   M-BLOCK    a thread enters a blocking region: state first, then the test for a request
 *   M-UNBLOCK  it leaves: it waits while the collector holds its state word
 *   M-ATTACH   a newcomer starts as if it had answered the last posted step
 *   M-DETACH   a leaver does the pending step and hands over what it has
 *   M-ASSIST   a mutator pops a grey object and traces it
 *   M-WORKER   a second marker beside the collector: takes from the queue, traces, shares, goes idle (WORKERS)
 *
 * The barrier only appends: a word that looks unmarked goes into the thread's candidate
 * buffer, without its mark bit. The bit is set when the buffer is flushed: at the H4 answer,
 * at detach, and with OVERFLOW at any time, in the middle of a store too (a full buffer).
 *
 *   spin -a [-DNO=3 -DNT=2 -DNL=1] [options] onthefly.pml
 *   gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m5000000        (exhaustive)
 *   gcc -O2 -DSAFETY -DBITSTATE -o pan pan.c && ./pan -m10000000 -w35  (bitstate)
 * run.sh does this for every line below; README.md has the results.
 *
 * Options add behaviour, and each rule has a planted fault that must be found:
 *   (always)   -DFAULT_NO_SETTLE   tracing may start while a store that began before all
 *                                  barriers were on is still in flight
 *              -DFAULT_NO_DELETION -DFAULT_NO_INSERTION -DFAULT_ONE_FLUSH -DFAULT_NO_DISARM
 *              -DFAULT_WHITE       allocate white during marking
 *              -DFAULT_COLOUR      black by thread state alone, not by the span's generation
 *              -DFAULT_FLUSH_LATE  H4 is answered first and the candidates are flushed after
 *              -DFAULT_FLUSH_DISCARD  H4 ignores the candidates and H5 throws them away
 *              -DFAULT_STORE_POLLS -DFAULT_ALLOC_POLLS  a safepoint inside a store; with a new object in hand
 *   -DFLAG     a request is a flag and a step, read in this order:
 *                                  -DFAULT_FLAG_LATE    the flag is taken back after the answer
 *   -DNOMEM    no memory for a work buffer: what is grey stays marked and is scanned again:
 *                                  -DFAULT_NOMEM_DROPPED   it stays marked only
 *                                  -DFAULT_NOMEM_UNCOUNTED a round does not wait for it
 *   -DRANGE    a range of root slots comes and goes:
 *                                  -DFAULT_RANGE_ADDED  without shading (with INSERTION)
 *                                  -DFAULT_RANGE_REMOVED  without shading
 *                                  -DFAULT_RANGE_UNWAITED  taken back while the collector is in it
 *   -DFORK     the one mutator forks, and the model goes on with the child:
 *                                  -DFAULT_FORK_MARKS   marks of the cycle that is abandoned stay
 *                                  -DFAULT_FORK_SWEEP   a sweep that was begun is not ended
 *                                  -DFAULT_FORK_STEP    after the flip its thread does not retire
 *   -DFREE     a mutator frees what nothing else names, between cycles:
 *                                  -DFAULT_FREE_MARKING while one marks, too
 *   -DEAGER    the barrier itself marks (no candidate buffer)
 *   -DCANDQ    tracing and root scans queue candidates that are marked when they are popped; a
 *              flush and a weak load in a round still mark. The queue's entries say which they are:
 *                                  -DFAULT_CANDQ_MIXED  a flush marks an object and queues it as a candidate
 *   -DCANDONLY (with CANDQ) everything queues candidates, only the pop marks
 *   -DSTALE    conservative words: -DFAULT_EARLY_TRACE  tracing before the last scan
 *   -DSPAN     spans of two slots, each thread's hole and the span that it holds:
 *                                  -DFAULT_HOLE_WHITE   H3 leaves the thread's hole unmarked
 *                                  -DFAULT_SPAN_WHITE   a span of the old generation, taken after
 *                                                       the flip and before H6, is not marked
 *                                  -DFAULT_STALE_MARKED (with STALE) a stale word that names a slot
 *                                                       of a hole is marked but not queued
 *   -DLISTS    a list of spans for each parity of the generation; a sweep on demand first looks at the heap's
 *              generation and then pops, under the list's lock:
 *                                  -DFAULT_POP_UNCHECKED  without a look at the generation of what it pops
 *   -DCOPYSTACK  M-SCAN copies a stack, or shades it as before; an unshaded copy is grey work (M-COPY):
 *                                  -DFAULT_COPY_UNCOUNTED a round is posted, and closes, with a copy unshaded
 *                                  -DFAULT_COPY_LATE    the answer first, the copy after it
 *                                  -DFAULT_COPY_DROP    (with ATTACH) a leaver's copy goes with it
 *                                  -DFAULT_COPY_REPLACED  (with CORO) a stack's newer copy replaces the older
 *   -DWEAK     a weak slot:        -DFAULT_WEAK         a load in the closing rounds spoils nothing
 *   -DEPH      an ephemeron:       -DFAULT_EPH          settled only after the close
 *                                  -DFAULT_EPH_ONCE     (with FIN: a get is in steps) settled in rounds only, not before
 *   -DMAYBE    maybe words:        -DFAULT_MAYBE        shaded without the weak-load rule
 *   -DFIND     a reference by address, of whatever is allocated:
 *                                  -DFAULT_GATE_GIVES   what is unmarked is given away after the close
 *                                  -DFAULT_GATE_EARLY   the gate goes idle after the close, not with the flip
 *   -DFIN      a finalizer queue, and weak loads in steps: slot, gate, slot again:
 *                                  -DFAULT_WEAK_ONCE    without the second look
 *                                  -DFAULT_WEAK_STORED  a weak slot is cleared by a plain store
 *                                  -DFAULT_FIN_WEAK_LATE  weak slots are cleared after objects came back
 *                                  -DFAULT_FIN_SOME     what another one that comes back leads to stays in the table
 *                                  -DFAULT_FIN_TWICE    the claim stays, too
 *                                  -DFAULT_FIN_UNTRACED -DFAULT_FIN_EARLY  not traced; delivered before it is black
 *                                  -DFAULT_FIN_UNSCANNED  the queue is no root
 *                                  -DFAULT_FIN_BARE     what is taken out of the queue is not shaded
 *                                  -DFAULT_FIN_UNSETTLED (with EPH) ephemerons are not settled again
 *                                  -DFAULT_FIND_REVIVING (with FIND) loads by address do not wait for it
 *   -DWFIELD   (with FIN) an object has a weak slot:
 *                                  -DFAULT_FIN_WEAK_KEPT  those of what came back are not cleared
 *   -DCLEANUP  cleanups:           -DFAULT_CLEAN_UNLOCKED  registering one and the look at the dead share no lock
 *                                  -DFAULT_CLEAN_EARLY  (with FIN) due before objects come back
 *   -DASSIST -DOVERFLOW  mutators trace; buffers flush between answers:
 *                                  -DFAULT_QUIET        the answer tells only what is held now
 *                                  -DFAULT_ASSIST_POLLS a safepoint with a popped object in hand
 *                                  -DFAULT_HIDDEN       such a flush in a round tells nothing till the next answer
 *   -DWORKERS  a second marker beside the collector, which counts as busy from the step that takes its first
 *              object until it holds nothing:
 *                                  -DFAULT_WORKER_LATE  it takes first and counts itself afterwards
 *                                  -DFAULT_WORKER_EARLY it counts itself idle with an object in hand
 *                                  -DFAULT_WORKER_UNSEEN  a round does not wait for it
 *   -DWORKERROUND (with WORKERS) it may take what is handed over in a round; without it, it waits for the mark phase
 *   -DQUIETROUND (with ASSIST) assists are stopped before a round; without it they go on in it
 *   -DATTACH   attach and detach:  -DFAULT_ATTACH_IDLE -DFAULT_ATTACH_LATE -DFAULT_ATTACH_GEN
 *                                  -DFAULT_DETACH_QUIET (with ASSIST)
 *                                  -DFAULT_ROUND_RESET (with ASSIST)  a round forgets what was told
 *                                                       after the queue was seen empty, before the post
 *                                  -DFAULT_DETACH_DROP  the leaver's candidates are thrown away
 *   -DBLOCK    blocking regions:   -DFAULT_BLOCK_UNCHECKED  leaving does not wait while held
 *                                  -DFAULT_BLOCK_LOST       entering does not test for a request
 *                                  -DFAULT_BLOCK_RELAXED    entering tests before its state shows
 *                                  -DFAULT_POST_RELAXED     the collector looks at the state before
 *                                                           its request shows
 *                                  -DFAULT_WAIT_RUNNING     a thread waits for the cycle's end outside of one
 *   -DCORO     a suspended stack:  -DFAULT_CORO_UNSCANNED -DFAULT_CORO_ONCE
 *   -DUPVAL    (with CORO) reads and writes of a suspended stack: -DFAULT_UPVAL
 *   -DLARGE    a large object under construction across safepoints: -DFAULT_LARGE
 *   -DLATEINIT initialising stores across safepoints while the object is unpublished and the slot zero (wants NL=2)
 *                                  -DFAULT_INIT_TWICE   into a slot that is not zero, or is seen by others
 *   -DROOTBESIDE  global roots scanned beside the scan handshake
 *   -DINSERTION  no deletion barrier; stacks stay grey, and are scanned again in a stop after a round of none:
 *                                  -DFAULT_NO_RESCAN    stacks are not scanned again
 *                                  -DFAULT_FRESH_BLACK  what was allocated black is not scanned in the stop
 *   -DXCHG     the barrier's load and store are one atomic exchange; FAULT_NO_SETTLE is then none
 *   -DFAULT_LEN   a mutable length bounds the trace, and shrinks without a barrier
 *
 * -DNOROOT narrows a search: the mutators leave the global root alone.
 * -DNOWEAK   the same for the global weak slot (FIN, CLEANUP, FIND).
 * -DNOFIELD  the same for the objects' fields: what is referred to is on stacks, in weak slots, entries and queues.
 * -DSHARED   begins with one object that is on every stack.
 */
#ifndef FAULT_QUIET
#define WORKED
#endif
#ifdef CORO
#ifndef FAULT_CORO_UNSCANNED
#define CORO_FIX
#endif
#ifdef FAULT_CORO_ONCE
#define CORO_BESIDE
#else
#define CORO_RESET
#endif
#endif
#ifndef FAULT_UPVAL
#define UPVAL_FIX
#endif
#ifdef LARGE
#ifndef FAULT_LARGE
#define LARGE_FIX
#endif
#endif
#ifdef EPH
#ifndef FAULT_EPH
#define EPH_FIX
#endif
#endif
#ifndef FAULT_MAYBE
#define MAYBE_FIX
#endif
#ifdef FAULT_LEN
#define LEN
#endif
#ifdef INSERTION                /* no stack is black before the stop */
#define FAULT_NO_DELETION
#define FRESH(o) fresh = fresh | BIT(o)
#else
#define FRESH(o) skip
#endif
#ifdef FAULT_ATTACH_IDLE
#define ATTACH_IDLE
#endif
#ifdef FAULT_ATTACH_LATE
#define ATTACH_LATE
#endif
#ifdef FAULT_ATTACH_GEN
#define ATTACH_GEN
#endif
#ifdef FAULT_DETACH_QUIET
#define DETACH_QUIET
#endif
#if defined(EPH) || defined(MAYBE) || defined(FIN) || defined(CLEANUP) || defined(FIND)
#define WEAK
#endif
#if defined(FIN) || defined(CLEANUP) || defined(FIND)
#define DEATH                   /* the gate is closed until the flip; weak loads and what clears slots are in steps */
#endif
#if defined(EPH) && defined(DEATH) && !defined(FAULT_EPH_ONCE)
#define SETTLE_BEFORE
#endif
#ifndef NO
#define NO 2
#endif
#ifndef NT
#define NT 2
#endif
#ifndef NL
#define NL 1
#endif
#define NIL NO
#define ROOT NO                 /* slot index of the global root */
#define ALL ((1<<NO)-1)
#define BIT(o) (1<<(o))
#ifdef CANDQ                    /* a set of entries: the low bits are marked objects, the high ones candidates */
#define CAND(o) BIT((o)+NO)
#define ENTRIES(o) (BIT(o) | CAND(o))
#else
#define ENTRIES(o) BIT(o)
#endif
#define LIVE(o) ((alive >> (o)) & 1)
#ifdef CLEANUP                  /* what a mutator may hold, read and write: allocated, and no cleanup of it was due */
#define USABLE(o) (LIVE(o) && !((gone >> (o)) & 1))
#else
#define USABLE(o) LIVE(o)
#endif
#define LAST (NO-1)             /* the object with a weak slot of its own (FIN) */
#define MARKED(o) ((marks >> (o)) & 1)
#define POPPED 16
#define ACKED (req[0] == none && req[NT-1] == none)
#ifdef NOROOT
#define HAND (loc[t*NL] != NIL && loc[t*NL+NL-1] != NIL)
#else
#define HAND true
#endif
#ifdef LARGE_FIX
#define HID(o) hid[o]
#else
#define HID(o) 0
#endif
#ifdef FAULT_INIT_TWICE
#define UNWRITTEN true
#else
#define UNWRITTEN (slot[pend[t]] == NIL)
#endif
#ifdef FAULT_RANGE_UNWAITED
#define UNSCANNED true
#else
#define UNSCANNED (!rangescan)
#endif
#ifdef SPAN
#define SP(o) ((o)/2)           /* the object's span */
#define NS ((NO+1)/2)
#define SLOTS(s) ((3<<(2*(s))) & ALL)
#define CACHED(s) (cache[0] == (s) || cache[NT-1] == (s))
#define NOSPAN NS
#define HOLES (hole[0] | hole[NT-1])
#else
#define SP(o) (o)
#define NS NO
#define SLOTS(s) BIT(s)
#define CACHED(s) 0
#define HOLES 0
#endif
#ifdef LISTS                    /* of the thread's generation, or the pages of an empty span, which begins in it */
#define FILED(s) (gen[s] == mygen[t] || gen[s] == heapgen && !(alive & SLOTS(s)) && last == h_retire)
#else
#define FILED(s) true
#endif
#ifdef FAULT_POP_UNCHECKED
#define UNSWEPT(s) true
#else
#define UNSWEPT(s) (gen[s] != heapgen)
#endif

byte slot[NO+1];                /* slot[o]: field of object o; slot[ROOT]: the global root */
byte alive;                     /* allocated, a bit an object */
byte marks;                     /* mark bits */
bit  gen[NS];                   /* sweep generation of a span: 0 is the heap's, 1 the one before */
#define heapgen 0               /* sweep generation of the heap: see flip */
byte loc[NT*NL];                /* the mutators' stacks: no barrier */
bit  armed[NT];                 /* barrier on */
bit  greystk[NT];               /* armed, own stack not yet scanned */
bit  black[NT];                 /* allocates black */
bit  mygen[NT];                 /* the generation this mutator knows as current */
#ifndef EAGER
byte cand[NT];                  /* what the barrier appended: candidates, not marked by it */
#endif
byte buf[NT];                   /* grey objects that it holds and has not handed over */
byte queue;                     /* grey objects the collector knows */
#ifdef INSERTION
byte fresh;                     /* allocated black in this cycle: their first stores had no barrier */
bit  stopped;                   /* who has come to a safepoint stays there */
#endif
bit  found;                     /* this flush round brought something */
#ifdef COPYSTACK
byte copied;                    /* what the copies of stacks name and nobody has shaded yet */
#ifdef FAULT_COPY_REPLACED
byte corcopied;                 /* the same of the suspended stack's copy */
#else
#define corcopied copied
#endif
#ifdef FAULT_COPY_LATE
bit  late[NT];                  /* has answered, is copied later */
#endif
#define COPIES ((copied | corcopied) != 0)
#else
#define COPIES false
#endif
#ifdef FAULT_COPY_UNCOUNTED
#define COPYWORK false
#else
#ifdef FAULT_COPY_LATE
#define COPYWORK (COPIES || late[0] || late[NT-1])
#else
#define COPYWORK COPIES
#endif
#endif
#ifdef WORKERS
byte wbuf;                      /* grey objects that the second marker holds */
bit  busy;                      /* it holds one, or traces one */
#ifdef FAULT_WORKER_UNSEEN
#define WORKING false
#else
#define WORKING busy
#endif
#ifdef WORKERROUND
#define WORKER_MAY true
#else
bit  open;                      /* it may take work: from the mark phase's beginning until all is seen empty */
#define WORKER_MAY open
#endif
#else
#define WORKING false
#endif
mtype = { none, h_arm, h_settle, h_scan, h_flush, h_stop, h_disarm, h_retire };
mtype req[NT] = none;
bit rounds;                     /* a flush round is under way: from the queue seen empty to M-MARK or M-CLOSE */
bit tracing;                    /* assists may run */
#ifdef QUIETROUND
byte nassist;                   /* assists that hold a popped object */
#endif
bit worked[NT];                 /* has turned grey, popped or handed over since its last answer */
byte pend[NT] = NIL;            /* unpublished object of this mutator (LATEINIT, LARGE) */
bit att[NT] = 1;                /* attached */
mtype last = none;              /* the last posted step */
bit retgen = 0;                 /* generation of the last posted retire */
bit hid[NO];                    /* being built: nobody sweeps or finds it (LARGE) */
byte cor = NIL; bit corscan; bit incycle;       /* a suspended stack of one word; scanned in this cycle */
#ifdef SPAN
byte cache[NT] = NOSPAN;        /* the span that a thread holds */
byte hole[NT];                  /* the free slots of it that are its own */
#endif
#ifdef BLOCK
mtype = { running, blocked, held };
mtype bst[NT] = running;        /* a thread's state word */
bit cycling;                    /* a cycle is under way: what a blocked thread may be waiting for */
#endif
#ifdef LEN
bit lenb[NO];
#endif
#ifdef EPH
byte ek = NIL; byte ev = NIL;
#endif
#ifdef WORKED
#define WORKED_NOW(t) worked[t] = 1
#else
#define WORKED_NOW(t) skip
#endif
#ifdef WEAK
mtype = { w_idle, w_open, w_closing, w_closed };
byte weak = NIL;                /* one weak slot */
mtype wstate = w_idle;
bit  spoiled;
#endif
#ifdef FIN
byte claim;                     /* objects that a finalizer queue watches: in the table */
byte revived;                   /* came back in this cycle, not delivered yet: the collector's list */
byte queued;                    /* in the queue */
#ifdef WFIELD
byte wfield = NIL;              /* weak slot of object LAST */
#endif
byte waslast;                   /* claimed and unmarked at the close: all of it has to come back (I-FIN2) */
byte fowed;                     /* was watched, and is to come back once (I-WATCH2) */
#endif
#ifdef DEATH
bit  reviving;                  /* a mark does not tell what was reachable at the close */
byte looked = NIL;              /* the collector's register */
#endif
#ifdef CLEANUP
byte clean;                     /* objects with a cleanup: in the table */
byte due;                       /* cleanups to be run */
byte cowed;                     /* its cleanup is to be due once */
byte gone;                      /* objects whose cleanup was due, until their slot is another one's */
#endif
#ifdef RANGE
bit  rangein; byte rangeword = NIL;             /* a range of one root slot: registered; what it holds */
bit  rangescan;                 /* the collector is in it */
#define IN_RANGE(o) (rangeword == (o))
#else
#define IN_RANGE(o) false
#endif
#ifdef NOMEM
byte rescan;                    /* objects that are marked and could not be queued */
#ifdef FAULT_NOMEM_UNCOUNTED
#define RESCANS false
#else
#define RESCANS (rescan != 0)
#endif
#else
#define RESCANS false
#endif
#ifdef FREE
bit  stay;                      /* from before H1 to the flip nothing is freed by hand (R13) */
#endif
#ifdef FORK                     /* one mutator: the child's; the model goes on with the child */
bit  forked;                    /* it has just forked, and waits until the cycle is what it can be in the child */
bit  marking;                   /* from before H1 to the flip */
bit  stale;                     /* marks of a cycle that was abandoned */
#endif
#ifdef FLAG
bit  flag[NT];                  /* there is something to answer; the step itself is read afterwards */
#define ASKED(t) flag[t]
#else
#define ASKED(t) (req[t] != none)
#endif

/* A candidate, or a copied word, whose object is marked has no effect any more, whoever marked it: it is forgotten at
 * once, which changes nothing but the number of states. */
inline forget_marked() {
#ifdef COPYSTACK
  copied = copied & ~marks; corcopied = corcopied & ~marks;
#endif
#ifndef EAGER
  cand[0] = cand[0] & ~marks; cand[NT-1] = cand[NT-1] & ~marks
#else
  skip
#endif
}

/* Turn one object grey at once: test-and-set of the mark bit, then into a set of greys. */
inline shade(set, o) {
  d_step {
    if
    :: o != NIL && !MARKED(o) ->
       assert(BIT(o) & (alive | HOLES));
#ifdef CANDONLY
       set = set | CAND(o)
#else
       marks = marks | BIT(o); forget_marked();
       set = set | BIT(o)
#endif
    :: else
    fi }
}

/* What tracing and root scans do with a word: CANDQ leaves the mark bit to the pop. */
inline found_word(set, o) {
#ifdef CANDQ
  d_step { if :: o != NIL && !MARKED(o) -> assert(BIT(o) & (alive | HOLES)); set = set | CAND(o) :: else fi }
#else
  shade(set, o)
#endif
}

#ifdef COPYSTACK
inline copy_word(set, o) { d_step { if :: o != NIL && !MARKED(o) -> set = set | BIT(o) :: else fi } }

/* M-COPY: any word of any copy is taken, judged, and becomes grey. With STALE it may be no reference at all. */
inline take_copied(o) {
  pick_bit((copied | corcopied), o); copied = copied & ~BIT(o); corcopied = corcopied & ~BIT(o)
}
inline shade_copied(set, o) {
#ifdef STALE
  if :: BIT(o) & (alive | HOLES) -> found_word(set, o) :: else fi;
#else
  found_word(set, o);
#endif
  o = 0
}
#endif

/* What the barrier does with a word: no mark bit is touched. */
inline remember(t, o) {
#ifdef EAGER
  shade(buf[t], o)
#else
  d_step { if :: o != NIL && !MARKED(o) -> cand[t] = cand[t] | BIT(o) :: else fi }
#endif
}

/* M-FLUSH, its first half: the candidates that are still unmarked become grey, the others are
 * forgotten. What turned grey counts as work. Inside an atomic step. */
inline flush_candidates(t) {
#ifndef EAGER
  d_step {
    cand[t] = cand[t] & ~marks;
    assert((cand[t] & ~alive) == 0);
#ifdef WORKED
    if :: cand[t] != 0 -> worked[t] = 1 :: else fi;
#endif
#ifdef CANDONLY
    buf[t] = buf[t] | (cand[t] << NO);
#else
#ifdef FAULT_CANDQ_MIXED
    buf[t] = buf[t] | (cand[t] << NO);
#else
    buf[t] = buf[t] | cand[t];
#endif
    marks = marks | cand[t]; forget_marked();
#endif
    cand[t] = 0 }
#else
  skip
#endif
}

/* Before a flush that is no answer marks anything: in a round, that something is about to turn grey is told at once. A
 * thread that answers after this may find its own candidate marked, and has nothing to tell. */
inline tell(t) {
#ifndef FAULT_HIDDEN
  if :: rounds && (cand[t] & ~marks) != 0 -> found = 1 :: else fi
#else
  skip
#endif
}
inline hand_over(t) {
#ifdef NOMEM
  if                            /* no memory for a buffer: what is in hand stays marked, and is scanned again (R19) */
  :: queue = queue | buf[t]
#ifdef FAULT_NOMEM_DROPPED
  :: skip
#else
  :: buf[t] != 0 && buf[t] <= ALL -> rescan = rescan | buf[t]
#endif
  fi;
  buf[t] = 0
#else
  queue = queue | buf[t]; buf[t] = 0
#endif
}

/* A span's live objects are the marked ones (M-SWEEP). */
inline sweep_span(s) { sweep_span_for(s, heapgen) }
inline sweep_span_for(s, g) {
  d_step {
    alive = alive & (marks | (ALL & ~SLOTS(s)));
    marks = marks & (ALL & ~SLOTS(s));
    gen[s] = g;
#ifdef FIN
    assert(((claim | fowed) & ~alive) == 0);            /* I-WATCH3: what is watched lives, or has come back */
#ifdef WFIELD
    wfield = (LIVE(LAST) -> wfield : NIL);
#endif
#endif
#ifdef CLEANUP
    assert(((clean | cowed) & ~alive) == 0);            /* I-WATCH3: the cleanup of what is freed is due, or has run */
#endif
    slot[0] = (LIVE(0) -> slot[0] : NIL);
#if NO > 1
    slot[1] = (LIVE(1) -> slot[1] : NIL);
#endif
#if NO > 2
    slot[2] = (LIVE(2) -> slot[2] : NIL);
#endif
#if NO > 3
    slot[3] = (LIVE(3) -> slot[3] : NIL);
#endif
    skip }
}

inline pick(v) { if :: v = 0 :: v = NL-1 fi }
inline pick_entry(set, o) {     /* any object that has an entry in a set */
  if
  :: set & ENTRIES(0) -> o = 0
#if NO > 1
  :: set & ENTRIES(1) -> o = 1
#endif
#if NO > 2
  :: set & ENTRIES(2) -> o = 2
#endif
#if NO > 3
  :: set & ENTRIES(3) -> o = 3
#endif
  fi
}
inline pick_bit(set, o) {       /* any object of a set */
  if
  :: set & BIT(0) -> o = 0
#if NO > 1
  :: set & BIT(1) -> o = 1
#endif
#if NO > 2
  :: set & BIT(2) -> o = 2
#endif
#if NO > 3
  :: set & BIT(3) -> o = 3
#endif
  fi
}

/* M-SCAN: what the stack names becomes grey. */
inline shade_stack(t, k, o) {
  k = 0; do :: k < NL -> found_word(buf[t], loc[t*NL+k]); k++ :: else -> break od; k = 0;
#ifdef STALE
  if                            /* a stale word on the stack names an allocated object, or a slot of a hole */
  :: pick_bit((alive | HOLES), o);
#ifdef FAULT_STALE_MARKED
     if :: LIVE(o) -> found_word(buf[t], o) :: else -> marks = marks | BIT(o) fi
#else
     found_word(buf[t], o)
#endif
  :: true
  fi; o = 0;
#endif
  skip
}
#ifdef COPYSTACK
/* M-SCAN: the stack is copied. A stale word may name any slot, and is judged by M-COPY. */
inline copy_stack(t, k, o) {
#ifdef FAULT_COPY_LATE
  late[t] = 1
#else
  k = 0; do :: k < NL -> copy_word(copied, loc[t*NL+k]); k++ :: else -> break od; k = 0;
#ifdef STALE
  if :: pick_bit(ALL, o); copy_word(copied, o) :: true fi; o = 0;
#endif
  skip
#endif
}
#endif

#ifdef CORO
/* A suspended stack is scanned: copied, or shaded. */
inline copy_cor() {
#ifdef FAULT_COPY_REPLACED
  corcopied = 0;
#endif
  copy_word(corcopied, cor)
}
inline scan_cor_by(t) {         /* by a thread */
#ifdef COPYSTACK
  if :: copy_cor() :: remember(t, cor) fi;
#else
  remember(t, cor);
#endif
  corscan = 1
}
inline scan_cor() {             /* by the collector */
#ifdef COPYSTACK
  if :: copy_cor() :: found_word(queue, cor) fi;
#else
  found_word(queue, cor);
#endif
  corscan = 1
}
#endif

/* The step that is asked of thread t, done by the thread itself or, while it is blocked, by the
 * collector that holds its state word: the work first, the answer after it. */
inline do_step(t, k, o) {
  if
  :: req[t] == h_arm -> armed[t] = 1; greystk[t] = 1            /* M-ARM */
  :: req[t] == h_scan ->                                        /* M-SCAN */
#ifdef COPYSTACK
     if
     :: copy_stack(t, k, o)
     :: shade_stack(t, k, o)
     fi
#else
     shade_stack(t, k, o)
#endif
  :: req[t] == h_flush ->                                       /* M-FLUSH */
#ifndef FAULT_FLUSH_LATE
#ifndef FAULT_FLUSH_DISCARD
     flush_candidates(t);
#endif
#endif
     skip
  :: req[t] == h_disarm ->                                      /* M-DISARM */
     armed[t] = 0;
#ifndef ONLY_LIVE
     assert(buf[t] == 0);
#else
     buf[t] = 0;
#endif
#ifndef EAGER
#ifndef FAULT_FLUSH_DISCARD
#ifndef ONLY_LIVE
     assert((cand[t] & ~marks) == 0);
#endif
#endif
     cand[t] = 0;
#endif
     skip
  :: req[t] == h_retire ->                                      /* M-RETIRE */
     black[t] = 0;
     give_back(t);
     mygen[t] = heapgen
  :: else                                                       /* M-SETTLE */
  fi
}
inline answer(t) {
  if
  :: req[t] == h_scan ->
#ifndef INSERTION
     greystk[t] = 0;
#endif
#ifndef FAULT_WHITE
     black[t] = 1;
#ifdef SPAN
#ifndef FAULT_HOLE_WHITE
     assert(hole[t] == 0 || gen[cache[t]] == mygen[t]);
     marks = marks | hole[t];
#endif
#endif
#endif
     hand_over(t)
  :: req[t] == h_flush ->
     if :: buf[t] != 0 -> found = 1; hand_over(t) :: else fi;
#ifdef WORKED
     if :: worked[t] -> found = 1; worked[t] = 0 :: else fi;
#endif
     skip
  :: else
  fi;
  req[t] = none
}
/* M-FLIP. Only equality of generations matters, so the heap's is called 0 and all others are renamed when it
 * advances: half the states of a bit that turns. */
inline flip() {
  d_step {
    gen[0] = 1 - gen[0];
#if NS > 1
    gen[1] = 1 - gen[1];
#endif
#if NS > 2
    gen[2] = 1 - gen[2];
#endif
#if NS > 3
    gen[3] = 1 - gen[3];
#endif
    mygen[0] = (att[0] -> 1 - mygen[0] : 0);
#if NT > 1
    mygen[1] = (att[1] -> 1 - mygen[1] : 0);
#endif
    retgen = 1 - retgen }
}
inline give_back(t) {           /* what is left of the hole loses its marks */
#ifdef SPAN
  marks = marks & (ALL & ~hole[t]); hole[t] = 0; cache[t] = NOSPAN
#else
  skip
#endif
}

#ifdef DEATH
/* Whether thread t may make a reference of o (else NIL): M-LOAD's part under the gate lock. Between the flip and its
 * sweep an object lives if it is marked. */
inline ask_gate(t, o, byaddress) {
  if
  :: o == NIL || MARKED(o) || !armed[t] && !byaddress
  :: else ->
  if
  :: wstate == w_idle ->
     if :: byaddress && gen[SP(o)] != heapgen && !HID(o) -> o = NIL :: else fi
  :: wstate == w_open -> shade(buf[t], o); WORKED_NOW(t)
  :: wstate == w_closing -> shade(buf[t], o); spoiled = 1; WORKED_NOW(t)
  :: wstate == w_closed ->
#ifndef FAULT_GATE_GIVES
     o = NIL
#else
     skip
#endif
  fi
  fi
}

/* M-DEATH: a weak slot that names what is unmarked is cleared, by compare-and-swap: never a newer value. */
inline clear_weak(word) {
  atomic { looked = word; if :: looked != NIL && MARKED(looked) -> looked = NIL :: else fi };
#ifdef FAULT_WEAK_STORED
  atomic { if :: looked != NIL -> assert(word == NIL || !MARKED(word)); word = NIL :: else fi; looked = NIL };
#else
  atomic { if :: looked != NIL && word == looked -> assert(!MARKED(word)); word = NIL :: else fi; looked = NIL };
#endif
}
#endif

/* A safepoint where none may be (R1, R3): any number of steps is answered. */
inline poll_inside(t, k, v) {
  do
  :: atomic { req[t] != none -> do_step(t, k, v) }; atomic { answer(t) }
  :: true -> break
  od
}

proctype mutator(byte t) {
  byte i, j, x, old, o;
  do
#ifdef FLAG
  :: atomic { ASKED(t) ->
#ifndef FAULT_FLAG_LATE
     flag[t] = 0;               /* M-POLL: first the flag, then the step, which may have been answered */
#endif
     skip };
     if
     :: atomic { req[t] != none -> do_step(t, i, o) }; atomic { answer(t) }
     :: req[t] == none
     fi;
#ifdef FAULT_FLAG_LATE
     flag[t] = 0;
#endif
     assert(req[t] == none || flag[t]);         /* else nobody answers: what was posted meanwhile is lost */
#else
  :: atomic { req[t] != none -> do_step(t, i, o) };             /* M-POLL: the work, then the answer */
     atomic {
#ifdef FAULT_FLUSH_LATE
       if :: req[t] == h_flush -> i = 1 :: else fi;
#endif
       answer(t) };
#endif
#ifdef INSERTION
     !stopped || req[t] != none;                                /* M-RESCAN: it stands here until the stop is over */
#endif
#ifdef FAULT_FLUSH_LATE
     atomic { if :: i -> flush_candidates(t); hand_over(t) :: else fi; i = 0 }
#endif
#ifdef SPAN
  :: atomic {                   /* M-ALLOC: take a span that nobody holds; sweep it first if it is behind */
       if
       :: cache[t] == NOSPAN && !CACHED(0) && FILED(0) -> o = 0
#if NO > 2
       :: cache[t] == NOSPAN && !CACHED(1) && FILED(1) -> o = 1
#endif
       fi;
#ifdef LISTS
       gen[o] = mygen[t];
#else
       if :: gen[o] != heapgen && mygen[t] == heapgen -> sweep_span(o) :: else fi;
#endif
       cache[t] = o; hole[t] = SLOTS(o) & ~alive;
#ifdef FAULT_COLOUR
       if :: black[t] -> marks = marks | hole[t] :: else fi;
#else
#ifdef FAULT_SPAN_WHITE
       if :: black[t] && gen[o] == mygen[t] && gen[o] == heapgen -> marks = marks | hole[t] :: else fi;
#else
       if :: black[t] && gen[o] == mygen[t] -> marks = marks | hole[t] :: else fi;
#endif
#endif
       o = 0 }
  :: atomic { cache[t] != NOSPAN -> give_back(t) }              /* M-ALLOC: give the span back at any time */
  :: atomic {                   /* M-ALLOC: from the hole */
       pick_bit(hole[t], o); pick(i); pick(j);
       hole[t] = hole[t] & ~BIT(o);
#ifdef INSERTION
       if :: black[t] && MARKED(o) -> FRESH(o) :: else fi;
#endif
#else
  :: atomic {                   /* M-ALLOC: sweep the span first if it is behind */
       pick_bit((ALL & ~alive), o); pick(i); pick(j);
#ifdef LISTS
       if :: gen[o] != mygen[t] -> marks = marks & ~BIT(o); gen[o] = mygen[t] :: else fi;
#else
       if :: gen[o] != heapgen && mygen[t] == heapgen -> marks = marks & ~BIT(o); gen[o] = heapgen :: else fi;
#endif
#ifdef FAULT_COLOUR
       if :: black[t] -> marks = marks | BIT(o) :: else fi;
#else
       if :: black[t] && gen[o] == mygen[t] -> marks = marks | BIT(o); FRESH(o) :: else fi;
#endif
#endif
       alive = alive | BIT(o); slot[o] = NIL;
#ifdef WFIELD
       if :: o == LAST -> wfield = NIL :: else fi;
#endif
#ifdef CLEANUP
       gone = gone & ~BIT(o);
#endif
#ifdef LEN
       lenb[o] = 1;
#endif
#ifdef LARGE
       if :: pend[t] == NIL -> pend[t] = o; hid[o] = 1; old = NIL
          :: old = loc[t*NL+j]; loc[t*NL+i] = o
       fi };
     if :: pend[t] != o -> slot[o] = old :: pend[t] != o :: pend[t] == o fi;
#else
#ifdef FAULT_ALLOC_POLLS
       x = i; i = 0 };
     poll_inside(t, i, old);    /* with the object in hand, in no root */
     atomic { i = x; x = 0;
#endif
       old = loc[t*NL+j];       /* the value to initialise with is held in a register */
#ifdef LATEINIT
       pend[t] = o;
#endif
       loc[t*NL+i] = o };
#if !defined(LATEINIT) && !defined(NOFIELD)
     if :: slot[o] = old :: skip fi;   /* initialising store, no barrier, before the next safepoint */
#endif
#endif
     i = 0; j = 0; o = 0; old = 0
#ifdef LISTS
  :: mygen[t] == heapgen;       /* M-SWEEP on demand: a mutator looks whether its generation is the heap's; */
     atomic {                   /* then it pops from the list of the other parity, the one before it, if there is one */
       if
       :: gen[0] != mygen[t] && UNSWEPT(0) && !HID(0) && !CACHED(0) -> o = 0
#if NS > 1
       :: gen[1] != mygen[t] && UNSWEPT(1) && !HID(1) && !CACHED(1) -> o = 1
#endif
#if NS > 2
       :: gen[2] != mygen[t] && UNSWEPT(2) && !HID(2) && !CACHED(2) -> o = 2
#endif
       :: else -> o = NIL
       fi;
       if :: o != NIL -> sweep_span_for(o, mygen[t]) :: else fi; o = 0 }
#else
  :: atomic {                   /* M-SWEEP: a retired mutator sweeps some span on demand, before the others retire */
       if
       :: gen[0] != heapgen && !HID(0) && !CACHED(0) && mygen[t] == heapgen -> o = 0
#ifdef SPAN
#if NO > 2
       :: gen[1] != heapgen && !CACHED(1) && mygen[t] == heapgen -> o = 1
#endif
#else
#if NO > 1
       :: gen[1] != heapgen && !HID(1) && mygen[t] == heapgen -> o = 1
#endif
#if NO > 2
       :: gen[2] != heapgen && !HID(2) && mygen[t] == heapgen -> o = 2
#endif
#endif
       fi;
       sweep_span(o); o = 0 }
#endif
#if !defined(NOFIELD) || !defined(NOROOT)
  :: atomic {                   /* M-LOAD: a field or the root */
       HAND; pick(i); pick(j);
       if
#ifndef NOFIELD
       :: loc[t*NL+i] != NIL -> assert(USABLE(loc[t*NL+i])); loc[t*NL+j] = slot[loc[t*NL+i]]
#endif
#ifndef NOROOT
       :: loc[t*NL+j] = slot[ROOT]
#endif
       fi;
       assert(loc[t*NL+j] == NIL || USABLE(loc[t*NL+j]));
       i = 0; j = 0 }
  :: atomic {                   /* M-STORE: a local or NIL into a field or the root */
       HAND; pick(i); pick(j);
       if
#ifndef NOFIELD
       :: loc[t*NL+i] != NIL -> x = loc[t*NL+i]; assert(USABLE(x))
#endif
#ifndef NOROOT
       :: x = ROOT
#endif
       fi;
       if :: o = loc[t*NL+j] :: o = NIL fi;
#ifdef LATEINIT
#ifdef FAULT_INIT_TWICE         /* it stays the thread's own to initialise although others may see it */
       if :: pend[t] != NIL && x == pend[t] -> pend[t] = NIL :: else fi;
#else
       if :: pend[t] != NIL && (o == pend[t] || x == pend[t]) -> pend[t] = NIL :: else fi;
#endif
#endif
       i = 0; j = 0 };
     if
#ifdef XCHG
     :: armed[t] ->
        if :: greystk[t] -> remember(t, o) :: else fi;
        d_step { old = slot[x]; slot[x] = o }; remember(t, old); old = 0; goto stored
     :: else
     fi;
     slot[x] = o;
stored: x = 0; o = 0
#else
     :: armed[t] ->
#ifndef FAULT_NO_DELETION
        old = slot[x]; remember(t, old); old = 0;
#endif
#ifndef FAULT_NO_INSERTION
        if :: greystk[t] -> remember(t, o) :: else fi;
#endif
#ifdef OVERFLOW
#ifndef EAGER
        if                      /* the buffer is full: flushed here, without a safepoint */
        :: atomic { cand[t] != 0 -> tell(t) }; atomic { flush_candidates(t) }
        :: skip
        fi;
#endif
#endif
        skip
     :: else
#ifdef FAULT_STORE_POLLS
        -> poll_inside(t, i, old)               /* between the barrier, which was off, and the store */
#endif
     fi;
     slot[x] = o;
#ifdef LEN
     if :: x != ROOT -> lenb[x] = 1 :: else fi;
#endif
     x = 0; o = 0
#endif
#endif
#ifdef OVERFLOW
#ifndef EAGER
  :: atomic { cand[t] != 0 -> tell(t) }; atomic { flush_candidates(t) }         /* M-FLUSH between answers */
#endif
  :: atomic { buf[t] != 0 -> hand_over(t);
#ifdef WORKED
     worked[t] = 1;
#endif
     }
#endif
#ifdef BLOCK
#ifdef FAULT_WAIT_RUNNING
  :: cycling -> !cycling        /* a wait for the cycle's end outside of a blocking region */
#endif
  :: bst[t] = blocked;                                          /* M-BLOCK: the state first, then the request is read */
#ifndef FAULT_BLOCK_LOST
     if :: req[t] != none -> goto unblock :: else fi;
#endif
inside:
     if :: true -> skip :: true -> !cycling fi;                 /* comes out by itself, or waits for the cycle's end */
unblock:
#ifdef FAULT_BLOCK_UNCHECKED
     bst[t] = running;
#else
     atomic { bst[t] == blocked -> bst[t] = running };          /* M-UNBLOCK: not while held */
#endif
     if :: atomic { req[t] != none -> do_step(t, i, o) }; atomic { answer(t) } :: else fi
#ifdef FAULT_BLOCK_RELAXED
  :: req[t] == none -> bst[t] = blocked; goto inside
#endif
#endif
#ifdef ASSIST
  :: atomic { tracing && queue != 0; pick_entry(queue, o);      /* M-ASSIST */
#ifdef QUIETROUND
     nassist++;
#endif
#ifdef WORKED
     worked[t] = 1;
#endif
#ifdef CANDQ
     if :: queue & BIT(o) -> queue = queue & ~BIT(o); i = 1 :: else -> queue = queue & ~CAND(o); i = 0 fi };
     atomic {                   /* a candidate is marked at the pop */
       if :: !i && MARKED(o) -> o = NIL :: else -> marks = marks | BIT(o); forget_marked() fi; i = 0 };
#else
     queue = queue & ~BIT(o) };
#endif
#ifdef FAULT_ASSIST_POLLS
     poll_inside(t, i, j);      /* with a popped object in hand */
#endif
     old = (o == NIL -> NIL : slot[o]);
     atomic {
#ifdef QUIETROUND
       nassist--;
#endif
       found_word(buf[t], old); o = 0; old = 0 }
#ifdef COPYSTACK
  :: atomic { tracing && COPIES -> take_copied(o);              /* M-ASSIST with a word of a copy */
#ifdef QUIETROUND
     nassist++;
#endif
#ifdef WORKED
     worked[t] = 1;
#endif
     skip };
     atomic {
#ifdef QUIETROUND
       nassist--;
#endif
       shade_copied(buf[t], o) }
#endif
#endif
#ifdef ATTACH
  :: atomic { /* M-DETACH: answers what is pending, hands over, drops its stack */
     i = 0; do :: i < NL -> loc[t*NL+i] = NIL; i++ :: else -> break od; i = 0;
#ifdef FAULT_DETACH_DROP
     cand[t] = 0;
#endif
     flush_candidates(t);
     if :: buf[t] != 0 || worked[t] -> hand_over(t); worked[t] = 0;
#ifndef DETACH_QUIET
        found = 1
#endif
        :: else fi;
     give_back(t);
#ifdef FAULT_COPY_DROP
     copied = 0;
#endif
     req[t] = none; att[t] = 0; armed[t] = 0; greystk[t] = 0; black[t] = 0; mygen[t] = 0 };
     atomic { /* M-ATTACH */
     att[t] = 1;
#ifdef ATTACH_IDLE
     mygen[t] = heapgen
#else
#ifdef ATTACH_LATE
#define OUT(s) (last == s && !(ACKED))
     if
     :: OUT(h_arm) -> mygen[t] = heapgen
     :: last == h_arm && ACKED || last == h_settle || OUT(h_scan) -> armed[t] = 1; greystk[t] = 1; mygen[t] = retgen
     :: last == h_scan && ACKED || last == h_flush || OUT(h_disarm) -> armed[t] = 1; black[t] = 1; mygen[t] = retgen
     :: last == h_disarm && ACKED -> black[t] = 1; mygen[t] = retgen
     :: last == none || last == h_retire -> mygen[t] = heapgen
     fi
#else
     if
     :: last == h_arm || last == h_settle -> armed[t] = 1; greystk[t] = 1; mygen[t] = retgen
     :: last == h_scan || last == h_flush -> armed[t] = 1; black[t] = 1; mygen[t] = retgen
     :: last == h_disarm -> black[t] = 1;
#ifdef ATTACH_GEN
        mygen[t] = heapgen
#else
        mygen[t] = retgen
#endif
     :: last == none || last == h_retire -> mygen[t] = heapgen
     fi
#endif
#endif
     }
#endif
#ifdef LATEINIT
  :: atomic { pend[t] != NIL && (loc[t*NL] == pend[t] || loc[t*NL+NL-1] == pend[t]) && UNWRITTEN; pick(j);
       old = loc[t*NL+j] };
     slot[pend[t]] = old;
#ifdef FAULT_INIT_TWICE
     atomic { old = 0; j = 0 }
#else
     atomic { pend[t] = NIL; old = 0; j = 0 }
#endif
#endif
#ifdef LARGE
  :: atomic { pend[t] != NIL -> pick(i); o = pend[t]; pend[t] = NIL;
#ifdef LARGE_FIX
       hid[o] = 0; slot[o] = NIL; alive = alive | BIT(o); marks = marks & ~BIT(o); gen[o] = heapgen;
       if :: mygen[t] != heapgen -> gen[o] = mygen[t] :: else fi;
       if :: black[t] && gen[o] == mygen[t] -> marks = marks | BIT(o) :: else fi;
#endif
       assert(LIVE(o)); loc[t*NL+i] = o; o = 0; i = 0 }
#endif
#ifdef CORO
  :: atomic { /* resume the suspended stack, suspend the present one (one word moves each way) */
       pick(i);
#if defined(CORO_FIX) && !defined(INSERTION)
       if :: black[t] && !corscan -> scan_cor_by(t) :: else fi;
#ifdef CORO_RESET
       if :: !black[t] -> corscan = 0 :: else fi;
#endif
#endif
       x = loc[t*NL+i]; loc[t*NL+i] = cor; cor = x; x = 0; i = 0 }
#endif
#ifdef UPVAL
  :: atomic { pick(i);
#if defined(UPVAL_FIX) && !defined(INSERTION)
       if :: !black[t] -> corscan = 0 :: else fi;
       if :: black[t] && !corscan -> scan_cor_by(t) :: else fi;
#endif
       if :: loc[t*NL+i] = cor :: cor = loc[t*NL+i] fi; i = 0 }
#endif
#ifdef LEN
  :: atomic { pick(i); pick(j); if :: loc[t*NL+i] != NIL && lenb[loc[t*NL+i]] -> x = loc[t*NL+i]; assert(LIVE(x));
       loc[t*NL+j] = slot[x]; lenb[x] = 0; x = 0 :: else fi; i = 0; j = 0 }
#endif
#ifdef EPH
  :: atomic { pick(i); ek = loc[t*NL+i]; ev = NIL; i = 0 }
  :: atomic { ek != NIL -> pick(j); ev = loc[t*NL+j]; j = 0 }
#ifdef DEATH
  :: atomic {                   /* M-LOAD: get with a key that is in hand, in steps: the entry, */
       ek != NIL && (loc[t*NL] == ek || loc[t*NL+NL-1] == ek) ->
       if :: loc[t*NL] == ek -> i = 0 :: loc[t*NL+NL-1] == ek -> i = NL-1 fi;
       pick(j); x = ev };
     atomic {                   /* the gate, which trusts a mark: what a held key leads to was reachable at the close */
       o = x; ask_gate(t, o, false);
#ifndef FAULT_EPH_ONCE
       assert(o == x);          /* else: a live key's value reads as gone */
#endif
#ifdef FIN
       assert(o == NIL || !(reviving && (revived & BIT(o))));   /* I-DEATH1: black before anybody gets it */
#endif
       assert(o == NIL || USABLE(o));
       loc[t*NL+j] = o; x = 0; o = 0; i = 0; j = 0 }
#else
  :: atomic { /* M-LOAD: get with a key that is in hand */
       pick(i); pick(j); if :: loc[t*NL+i] != NIL && loc[t*NL+i] == ek -> o = ev; assert(o == NIL || LIVE(o));
       if
       :: o == NIL
       :: o != NIL && wstate == w_idle
       :: o != NIL && wstate == w_open -> remember(t, o)
       :: o != NIL && wstate == w_closing -> if :: !MARKED(o) -> shade(buf[t], o); spoiled = 1 :: else fi
       :: o != NIL && wstate == w_closed -> assert(MARKED(o))  /* else: a live key's value reads as gone */
       fi;
       loc[t*NL+j] = o; o = 0 :: else fi; i = 0; j = 0 }
#endif
#endif
#ifdef MAYBE
  :: atomic { armed[t]; pick_bit(ALL, o); if :: LIVE(o) ->
#ifdef MAYBE_FIX
       if :: wstate == w_closing && !MARKED(o) -> shade(buf[t], o); spoiled = 1
          :: wstate == w_closed && !MARKED(o) -> skip
          :: else -> remember(t, o) fi
#else
       remember(t, o)
#endif
       :: else fi; o = 0 }
#endif
  :: atomic { pick(i); loc[t*NL+i] = NIL; i = 0 }          /* drop a local */
#ifdef RANGE
  :: atomic { !rangein -> pick(i); rangeword = loc[t*NL+i]; rangein = 1;        /* M-STORE: a range of roots is added */
#ifndef FAULT_RANGE_ADDED
       if :: armed[t] -> remember(t, rangeword) :: else fi;
#endif
       i = 0 }
  :: atomic { rangein -> pick(i); loc[t*NL+i] = rangeword; assert(rangeword == NIL || USABLE(rangeword)); i = 0 }
  :: atomic { rangein && UNSCANNED;                             /* it is taken back when no scanner is in it */
#ifndef FAULT_RANGE_REMOVED
       if :: armed[t] -> remember(t, rangeword) :: else fi;
#endif
       rangein = 0; rangeword = NIL }
#endif
#ifdef FORK
  :: forked = 1; !forked
#endif
#ifdef FREE
  :: atomic {                   /* freed by hand: nothing else names it, and no cycle marks */
#ifndef FAULT_FREE_MARKING
       !stay;
#endif
       pick(i); x = loc[t*NL+i];
       if
       :: x != NIL && slot[0] != x && slot[NO > 1] != x && slot[NO-1] != x && slot[ROOT] != x && cor != x &&
          pend[0] != x && pend[NT-1] != x && !IN_RANGE(x) ->
          loc[t*NL+i] = NIL;
#ifdef WEAK
          weak = (weak == x -> NIL : weak);
#endif
          o = 0;
          do
          :: o < NT*NL && loc[o] == x -> i = 1; break
          :: o < NT*NL && loc[o] != x -> o++
          :: else -> i = 0; break
          od;
          if
          :: i -> skip          /* on another stack: not freed, only dropped */
          :: else ->
             slot[x] = NIL; marks = marks & ~BIT(x);
             if :: gen[SP(x)] == heapgen -> alive = alive & ~BIT(x) :: else fi  /* else its sweep frees it */
          fi
       :: else
       fi;
       x = 0; o = 0; i = 0 }
#endif
#ifdef DEATH
#if !defined(NOWEAK) || defined(WFIELD)
  :: atomic {                   /* M-LOAD: a weak slot, in steps: the slot, */
#ifdef WFIELD
       pick(i);
       if
#ifdef NOWEAK
       :: loc[t*NL+i] != LAST -> x = NIL
#else
       :: x = weak
#endif
       :: loc[t*NL+i] == LAST -> assert(USABLE(LAST)); x = wfield; j = 1
       fi };
#else
       pick(i); x = weak };
#endif
ask:
     atomic {                   /* the gate, */
       o = x; ask_gate(t, o, false) };
     atomic {                   /* the slot again: what comes back is marked after the slots that name it are cleared */
#ifdef WFIELD
       old = (j -> wfield : weak);
#else
       old = weak;
#endif
       if
#ifndef FAULT_WEAK_ONCE
       :: old != x && o != NIL -> x = old; old = 0; goto ask
#endif
       :: else
       fi;
       assert(o == NIL || USABLE(o));
       loc[t*NL+i] = o; x = 0; o = 0; i = 0; j = 0; old = 0 }
#endif
#ifndef NOWEAK
  :: atomic { pick(i); weak = loc[t*NL+i]; i = 0 }
#endif
#ifdef WFIELD
  :: atomic { pick(i); pick(j);
       if :: loc[t*NL+i] == LAST -> assert(USABLE(LAST)); wfield = loc[t*NL+j]
          :: loc[t*NL+i] == LAST -> wfield = slot[LAST]
          :: loc[t*NL+i] != LAST
       fi;
       i = 0; j = 0 }
#endif
#ifdef FIN
  :: atomic { pick(i);
       if :: loc[t*NL+i] != NIL && !((claim | fowed) & BIT(loc[t*NL+i])) ->
            claim = claim | BIT(loc[t*NL+i]); fowed = fowed | BIT(loc[t*NL+i])
         :: else fi; i = 0 }
  :: atomic {                   /* M-LOAD: the next one of the queue */
       pick_bit(queued, o); pick(i);
       queued = queued & ~BIT(o); assert(USABLE(o));
#ifndef FAULT_FIN_BARE
       if :: armed[t] -> remember(t, o) :: else fi;
#endif
       loc[t*NL+i] = o; o = 0; i = 0 }
#endif
#ifdef CLEANUP
  :: atomic { pick(i);
       if :: loc[t*NL+i] != NIL && !((clean | due) & BIT(loc[t*NL+i])) ->
            clean = clean | BIT(loc[t*NL+i]); cowed = cowed | BIT(loc[t*NL+i])
         :: else fi; i = 0 }
  :: atomic { pick_bit(due, o); due = due & ~BIT(o); o = 0 }            /* it runs */
#endif
#ifdef FIND
  :: atomic {                   /* M-LOAD: by address; not while objects come back */
       pick_bit(alive, o); pick(i);
       if
#ifndef FAULT_FIND_REVIVING
       :: reviving && MARKED(o)
#endif
       :: else -> ask_gate(t, o, true); loc[t*NL+i] = o; assert(o == NIL || USABLE(o))
       fi;
       o = 0; i = 0 }
#endif
#elif defined(WEAK)
  :: atomic {                   /* M-LOAD: a weak slot, under the lock that also guards closing */
       pick(i); o = weak;
       if
       :: o == NIL
       :: o != NIL && wstate == w_idle
       :: o != NIL && wstate == w_open -> remember(t, o)
       :: o != NIL && wstate == w_closing ->
#ifdef FAULT_WEAK
          remember(t, o)
#else
          if :: !MARKED(o) -> shade(buf[t], o); spoiled = 1 :: else fi
#endif
       :: o != NIL && wstate == w_closed -> if :: MARKED(o) :: !MARKED(o) -> o = NIL fi
       fi;
       loc[t*NL+i] = o; assert(o == NIL || LIVE(o)); i = 0; o = 0 }
  :: atomic { pick(i); weak = loc[t*NL+i]; i = 0 }         /* set the weak slot */
#endif
  od
}

#ifdef WORKERS
/* M-WORKER, an entry o that was taken: marked if it was a candidate, traced. */
#ifdef CANDQ
#define TAKE(set) if :: set & BIT(o) -> set = set & ~BIT(o); i = 1 :: else -> set = set & ~CAND(o); i = 0 fi
#define TAKE_OWN wbuf = wbuf & ~CAND(o)
#else
#define TAKE(set) set = set & ~BIT(o)
#define TAKE_OWN TAKE(wbuf)
#endif
inline trace_taken() {
#ifdef CANDQ
  atomic { if :: !i && MARKED(o) -> o = NIL :: else -> marks = marks | BIT(o); forget_marked() fi; i = 0 };
#endif
  old = (o == NIL -> NIL : slot[o]);
  atomic { found_word(wbuf, old); o = 0; old = 0 }
}

proctype worker() {
  byte o, old;
#ifdef CANDQ
  bit i;
#endif
  do
  :: atomic { WORKER_MAY && queue != 0; pick_entry(queue, o); TAKE(queue)
#ifndef FAULT_WORKER_LATE
     ; busy = 1
#endif
     };
#ifdef FAULT_WORKER_LATE
     busy = 1;
#endif
#ifdef FAULT_WORKER_EARLY
     busy = 0;
#endif
     trace_taken();
     do
     :: atomic { wbuf != 0; pick_entry(wbuf, o); TAKE_OWN }; trace_taken()
     :: atomic { wbuf != 0 -> queue = queue | wbuf; wbuf = 0 }  /* others are idle: it shares */
     :: wbuf == 0 -> break
     od;
     busy = 0
  od
}
#endif

byte c, v;
#ifdef BLOCK
byte d;
bit seen[NT];
#endif

/* Post a step; do it for the threads that are blocked. Each state word is looked at once: a thread
 * that is seen running must see the request by itself. */
#ifdef FLAG
#define FLAGGED(t) flag[t] = 1
#else
#define FLAGGED(t) skip
#endif
inline handshake(step) {
#ifdef FAULT_POST_RELAXED
  seen[0] = (bst[0] == blocked); seen[NT-1] = (bst[NT-1] == blocked);
#endif
  d_step { c = 0; last = step; if :: step == h_retire -> retgen = heapgen :: step == h_arm -> corscan = 0 :: else fi;
   do :: c < NT -> if :: att[c] -> req[c] = step; FLAGGED(c) :: else fi; c++ :: else -> break od; c = 0 };
#ifdef BLOCK
  do
  :: c < NT ->
     if
#ifdef FAULT_POST_RELAXED
     :: atomic { seen[c] && bst[c] == blocked && req[c] != none -> bst[c] = held };
#else
     :: atomic { bst[c] == blocked && req[c] != none -> bst[c] = held };
#endif
        atomic { do_step(c, d, v) };
        atomic { answer(c) };
        atomic { if :: bst[c] == held -> bst[c] = blocked :: else fi }
     :: else
     fi;
     c++
  :: else -> break
  od;
  atomic { c = 0; seen[0] = 0; seen[NT-1] = 0 }
#endif
}
inline trace_one() {            /* M-MARK: pop one, trace it */
  d_step {
    c = 0;
    if
    :: queue != 0 ->
       do :: !(queue & ENTRIES(c)) -> c++ :: else -> break od;
#ifdef CANDQ
       if :: queue & BIT(c) -> queue = queue & ~BIT(c) :: else -> queue = queue & ~CAND(c); c = c + POPPED fi
#else
       queue = queue & ~BIT(c)
#endif
    :: else -> c = NO
    fi };
#ifdef CANDQ
  d_step {                      /* a candidate is marked at the pop; traced if that was news */
    if
    :: c >= POPPED -> c = c - POPPED; if :: MARKED(c) -> c = NO :: else -> marks = marks | BIT(c); forget_marked() fi
    :: else
    fi };
#endif
#ifdef LEN
  v = (c == NO -> NIL : (lenb[c] -> slot[c] : NIL));
#else
  v = (c == NO -> NIL : slot[c]);
#endif
  d_step { found_word(queue, v); v = 0; c = 0 }
}

/* The wait for the last answer of M-SCAN. Copies are shaded beside it; nothing is traced. */
inline scans_answered() {
#ifdef COPYSTACK
  do
  :: atomic { COPIES -> take_copied(c); shade_copied(queue, c) }
  :: ACKED -> break
  od
#else
  ACKED
#endif
}

#ifdef CLEANUP
/* M-DEATH: cleanups of what is unmarked are due. One lock with a registration (I-WATCH1). */
inline take_cleanups() {
#ifdef FAULT_CLEAN_UNLOCKED
  v = clean;
  atomic {
#else
  atomic { v = clean;
#endif
    assert((v & ~marks & (due | ~cowed)) == 0);         /* I-WATCH2: once */
    cowed = cowed & ~(v & ~marks);
    due = due | (v & ~marks); gone = gone | (v & ~marks); clean = v & marks; v = 0 }
}
#endif
#ifdef FIN
/* M-DEATH: what came back is in the queue. It is black, with all that it names (I-FIN1); no weak slot of what was
 * reachable names it; and none that was claimed and unmarked stays behind (I-FIN2). */
inline deliver() {
  atomic {
#ifndef ONLY_LIVE
    c = 0;
    do
    :: c < NO ->
       if
       :: revived & BIT(c) -> assert(MARKED(c) && (slot[c] == NIL || MARKED(slot[c])));
#ifndef FIND
          assert(weak != c)
#endif
       :: else -> assert(!(waslast & BIT(c)))
       fi;
       c++
    :: else -> break
    od;
    c = 0;
    assert((revived & (queued | ~fowed)) == 0);         /* I-WATCH2: once */
#endif
    queued = queued | revived; fowed = fowed & ~revived; revived = 0; waslast = 0 }
}
#endif

#ifdef FORK
#define UNMARKING marking = 0
/* What the child makes of the cycle: abandoned before its flip; after it its thread retires, and what is left of the
 * sweep is done before the next H1, as are the marks of one that was abandoned (R20). */
inline after_fork() {
  if
  :: marking ->
#ifndef FAULT_FORK_MARKS
     stale = 1;
#endif
     armed[0] = 0; greystk[0] = 0; black[0] = 0; last = none
  :: else ->
#ifndef FAULT_FORK_STEP
     black[0] = 0; give_back(0); mygen[0] = heapgen;
#endif
     last = h_retire; retgen = heapgen
  fi;
  marking = 0; req[0] = none; buf[0] = 0; queue = 0; worked[0] = 0; found = 0; rounds = 0; tracing = 0; incycle = 0;
#ifndef EAGER
  cand[0] = 0;
#endif
#ifdef COPYSTACK
  copied = 0;
#endif
#ifdef WEAK
  wstate = w_idle; spoiled = 0;
#endif
#ifdef DEATH
  reviving = 0; looked = NIL;
#endif
#ifdef FIN
  claim = claim | revived; revived = 0; waslast = 0;
#endif
#ifdef INSERTION
  fresh = 0;
#endif
#ifdef NOMEM
  rescan = 0;
#endif
#ifdef RANGE
  rangescan = 0;
#endif
#ifdef FREE
  stay = 0;
#endif
  c = 0; v = 0; forked = 0
}
#else
#define UNMARKING skip
#endif

active proctype collector() {
  d_step {
    c = 0; do :: c <= NO -> slot[c] = NIL; c++ :: else -> break od;
    c = 0; do :: c < NT*NL -> loc[c] = NIL; c++ :: else -> break od;
#ifdef SHARED
    alive = BIT(0); c = 0; do :: c < NT -> loc[c*NL] = 0; c++ :: else -> break od;
#endif
    c = 0 };
  atomic { run mutator(0);
#if NT > 1
    run mutator(1);
#endif
#ifdef WORKERS
    run worker();
#endif
    skip
  };
  do
  ::
#ifdef FORK
  {
     d_step { c = 0 };
#ifndef FAULT_FORK_SWEEP
     do                         /* what another process began to sweep */
     :: c < NS -> d_step { if :: gen[c] != heapgen -> sweep_span(c) :: else fi; c++ }
     :: else -> break
     od;
#endif
     atomic { c = 0; if :: stale -> marks = 0; stale = 0 :: else fi; marking = 1 };
#endif
#ifdef BLOCK
     cycling = 1;
#endif
#ifdef FREE
     stay = 1;
#endif
#ifdef DEATH
     wstate = w_open;           /* before the first thread is armed */
#endif
     handshake(h_arm); ACKED;                                   /* M-ARM */
#ifndef FAULT_NO_SETTLE
     handshake(h_settle); ACKED;                                /* M-SETTLE */
#endif
#ifdef WEAK
#ifndef DEATH
     wstate = w_open;
#endif
#endif
     handshake(h_scan);                                         /* M-SCAN */
#ifdef CORO
     incycle = 1;
#ifdef CORO_BESIDE
     atomic { if :: !corscan -> scan_cor() :: else fi };
#endif
#endif
#ifndef FAULT_EARLY_TRACE
#ifndef ROOTBESIDE
     scans_answered();
#endif
#endif
     v = slot[ROOT];                                            /* M-ROOTS */
     d_step { found_word(queue, v); v = 0 };
#ifdef ROOTBESIDE
     scans_answered();
#endif
#ifdef RANGE
     atomic { if :: rangein -> rangescan = 1 :: else fi };
     atomic {
       if :: rangescan -> assert(rangein); v = rangeword; found_word(queue, v); v = 0; rangescan = 0 :: else fi };
#endif
#ifdef FIN
#ifndef FAULT_FIN_UNSCANNED
     c = 0;                     /* the finalizer queue, beside the mutators that take from it */
     do
     :: atomic { c < NO -> if :: queued & BIT(c) -> found_word(queue, c) :: else fi; c++ }
     :: c == NO -> break
     od;
     c = 0;
#endif
#endif
#ifdef CORO
#if !defined(CORO_BESIDE) && !defined(INSERTION)
     atomic { if :: !corscan -> scan_cor() :: else fi };
#endif
#endif
mark_phase:
     atomic { rounds = 0; tracing = 1 };
#ifdef WORKERS
#ifndef WORKERROUND
     open = 1;
#endif
#endif
#ifndef FAULT_ROUND_RESET
     found = 0;                 /* before the queue is seen empty: a leaver's "any" from here on counts in this round */
#endif
     do
     :: queue != 0 -> trace_one()                               /* M-MARK */
#ifdef COPYSTACK
     :: atomic { COPIES -> take_copied(c); shade_copied(queue, c) }        /* M-COPY */
#ifdef FAULT_COPY_LATE
     :: atomic { late[0] -> late[0] = 0; v = 0;
        do :: v < NL -> copy_word(copied, loc[v]); v++ :: else -> break od; v = 0 }
     :: atomic { late[NT-1] -> late[NT-1] = 0; v = 0;
        do :: v < NL -> copy_word(copied, loc[(NT-1)*NL+v]); v++ :: else -> break od; v = 0 }
#endif
#endif
#ifdef NOMEM
     :: atomic { queue != 0; pick_entry(queue, c);              /* M-MARK: no memory: marked, and to be scanned again */
        queue = queue & ~ENTRIES(c); marks = marks | BIT(c); rescan = rescan | BIT(c); forget_marked(); c = 0 }
     :: atomic { queue == 0 && rescan != 0; pick_bit(rescan, c);
        rescan = rescan & ~BIT(c); queue = queue | BIT(c); c = 0 }
#endif
     :: atomic { ACKED && queue == 0 && !COPYWORK && !WORKING && !RESCANS ->
#ifdef WORKERS
#ifndef WORKERROUND
        open = 0;               /* R3: nobody takes anything from here to the next M-MARK */
#endif
#endif
        skip };
#ifdef SETTLE_BEFORE            /* R6: from here on an entry of a held key that names what is unmarked fails the round */
        d_step { if :: ek != NIL && ev != NIL && MARKED(ek) -> found_word(queue, ev) :: else fi };
#endif
#ifdef QUIETROUND
        tracing = 0; nassist == 0;                              /* R3: no assist from here to the next M-MARK */
        if
        :: queue != 0 || COPYWORK || RESCANS -> tracing = 1;
#ifdef WORKERS
#ifndef WORKERROUND
           open = 1;
#endif
#endif
           skip
        :: else -> break
        fi
#elif defined(SETTLE_BEFORE)
        if
        :: queue != 0 ->
#ifdef WORKERS
#ifndef WORKERROUND
           open = 1;
#endif
#endif
           skip
        :: else -> break
        fi
#else
        break
#endif
     od;
#ifdef OVERFLOW
     rounds = 1;
#endif
#ifdef WEAK
     atomic { wstate = w_closing; spoiled = 0 };
#endif
#ifdef FAULT_ROUND_RESET
     found = 0;
#endif
     handshake(h_flush); ACKED;                                 /* M-FLUSH */
#ifndef FAULT_ONE_FLUSH
     if :: found || queue != 0 || RESCANS -> goto mark_phase :: else fi;        /* M-CLOSE */
#ifdef COPYSTACK
#ifdef FAULT_COPY_UNCOUNTED
     copied = 0;                /* the memory of the copies is given back */
#else
     assert(!COPIES);           /* none was taken in the round, which began without */
#endif
#endif
#else
     do :: queue != 0 -> trace_one() :: else -> break od;
#endif
#ifdef INSERTION
     stopped = 1; handshake(h_stop); ACKED;                     /* M-RESCAN: nobody runs from here on */
     d_step {
       c = 0;
       do
       :: c < NT ->
          cand[c] = cand[c] & ~marks; marks = marks | cand[c]; queue = queue | cand[c] | buf[c];
          cand[c] = 0; buf[c] = 0; greystk[c] = 0; c++
       :: else -> break
       od;
       c = 0 };
#ifndef FAULT_NO_RESCAN
     d_step { c = 0; do :: c < NT*NL -> found_word(queue, loc[c]); c++ :: else -> break od; c = 0 };
#ifdef CORO
     d_step { v = cor; found_word(queue, v); v = 0; corscan = 1 };      /* suspended stacks for the first time */
#endif
#endif
#ifndef FAULT_FRESH_BLACK
     queue = queue | fresh;
#endif
     fresh = 0;
     do :: queue != 0 -> trace_one() :: else -> break od;
     stopped = 0;
#endif
#ifdef WEAK
#ifdef EPH_FIX
     d_step { if :: ek != NIL && ev != NIL && MARKED(ek) -> found_word(queue, ev) :: else fi };
     if :: queue != 0 -> goto mark_phase :: else fi;
#endif
     atomic { if :: spoiled -> goto mark_phase :: else -> wstate = w_closed
#ifdef FIN
        ; waslast = claim & ~marks
#endif
        fi };
#ifdef DEATH
#if !defined(NOWEAK) && !defined(FAULT_FIN_WEAK_LATE)
     clear_weak(weak);                                          /* M-DEATH, R7's order: weak slots of what is marked, */
#endif
#ifdef FAULT_CLEAN_EARLY
     take_cleanups();
#endif
#ifdef FIN
#ifdef WFIELD
     if :: LIVE(LAST) && MARKED(LAST) -> clear_weak(wfield) :: else fi;
#endif
#ifdef FAULT_FIN_SOME
     atomic {
       if :: claim & ~marks & BIT(0) -> revived = BIT(0) :: else -> revived = claim & ~marks fi;
       claim = claim & ~revived };
#else
     atomic { revived = claim & ~marks;                         /* what queues claim is marked and traced, */
#ifndef FAULT_FIN_TWICE
       claim = claim & marks
#endif
       };
#endif
     if
     :: revived != 0 ->
#ifdef FAULT_FIN_EARLY
        deliver();
#endif
        atomic { reviving = 1; c = 0 };
        do
        :: c < NO -> d_step { if :: (revived | queued) & BIT(c) -> shade(queue, c) :: else fi }; c++
        :: else -> break
        od;
        c = 0;
#ifdef FAULT_FIN_UNTRACED
        queue = 0;
#endif
        do
        :: queue != 0 -> trace_one()
        :: else ->
#ifdef EPH
#ifndef FAULT_FIN_UNSETTLED
           d_step { if :: ek != NIL && ev != NIL && MARKED(ek) -> found_word(queue, ev) :: else fi };
#endif
#endif
           if :: queue != 0 :: else -> break fi
        od;
#if defined(WFIELD) && !defined(FAULT_FIN_WEAK_KEPT)
        if :: LIVE(LAST) && MARKED(LAST) -> clear_weak(wfield) :: else fi;      /* weak slots of what came back, */
#endif
        reviving = 0
     :: else
     fi;
#endif
#ifdef FAULT_FIN_WEAK_LATE
     clear_weak(weak);
#endif
#ifdef EPH
     atomic { if :: ek != NIL && !MARKED(ek) -> ek = NIL; ev = NIL :: else fi };        /* entries of dead keys, */
#endif
#ifdef CLEANUP
#ifndef FAULT_CLEAN_EARLY
     take_cleanups();                                           /* cleanups of what is still unmarked, */
#endif
#endif
#ifdef FIN
     deliver();                                                 /* and the queue gets what came back */
#endif
#else
#ifdef EPH
#ifndef EPH_FIX
     d_step { if :: ek != NIL && ev != NIL && MARKED(ek) -> found_word(queue, ev) :: else fi };
     do :: queue != 0 -> trace_one() :: else -> break od;
#endif
     atomic { if :: ek != NIL && !MARKED(ek) -> ek = NIL; ev = NIL :: else fi };       /* M-DEATH */
#endif
     atomic { if :: weak != NIL && !MARKED(weak) -> weak = NIL :: else fi };
#ifndef MAYBE
     wstate = w_idle;
#endif
#endif
#ifdef FAULT_GATE_EARLY
     wstate = w_idle;
#endif
#endif
#ifndef FAULT_NO_DISARM
     atomic { rounds = 0; tracing = 0; incycle = 0 }; handshake(h_disarm); ACKED;      /* M-DISARM */
#ifdef DEATH
     atomic { wstate = w_idle; flip(); UNMARKING };             /* M-FLIP: under one lock with the gate */
#else
#ifdef MAYBE
     wstate = w_idle;
#endif
#ifdef FORK
     atomic { flip(); marking = 0 };
#else
     flip();                                                    /* M-FLIP */
#endif
#endif
#ifdef FREE
     stay = 0;
#endif
     handshake(h_retire); ACKED;                                /* M-RETIRE */
#else
     flip();
     handshake(h_retire); ACKED;
     handshake(h_disarm); ACKED;
#endif
     d_step { c = 0 };
     do                         /* M-SWEEP: span by span; allocation sweeps on demand too */
     :: c < NS ->
        d_step {
          if :: gen[c] != heapgen && !HID(c) -> assert(!CACHED(c)); sweep_span(c) :: else fi;
          c++ }
     :: else -> break
     od;
#ifdef BLOCK
     cycling = 0;
#endif
     c = 0
#ifdef FORK
  } unless { atomic { forked -> after_fork() } }
#endif
  od
}
