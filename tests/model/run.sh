#!/bin/sh
# Searches the protocol's model (onthefly.pml): run.sh quick|long|pairs|--full [pattern]
#
# quick   every rule's clean search and every planted fault, on one core in about two minutes, under 1 GB
# long    the large searches, two mutators over the whole model among them (bitstate): up to 5 GB, some hours
# pairs   each two options together, one mutator: half an hour, under 3 GB
# --full  all of these
# pattern runs only the configurations whose name matches the shell pattern *pattern*
#
# A table, one line a configuration: its verdict, name, what was expected, what was found, the states stored, the
# greatest depth, the seconds; for a bitstate search also the hash factor, its bits for each state.
# A clean one passes when the search ends without an error, without cutting a path short and with every line of the
# model reached (but in pairs, some of which shut out a line of each other); a fault passes when the search reports an
# error; a bounded one when it found no error, whether it ended ("clean": complete) or its minutes did ("cut";
# MODEL_MINUTES, 25). Exit status 0 when all passed, 1 when one did not, 2 for wrong usage or a missing tool. CC names
# the C compiler (cc). Everything is built in a temporary directory, in TMPDIR.
set -u

model_dir=$(cd "$(dirname "$0")" && pwd)
compiler=${CC:-cc}

usage() {
    echo "usage: run.sh quick|long|pairs|--full [pattern]" >&2
    exit 2
}

need() {
    command -v "$1" >/dev/null 2>&1 && return
    echo "run.sh: $1 is missing; install it with: apt-get install $2" >&2
    exit 2
}

# Every configuration: tier, expected outcome, search, name, options of the model.
#   fast  exhaustive, built quickly    full  exhaustive, states compressed    bits  bitstate, 4 GB of bits
#   rand  bitstate in a random order, no deeper than 1,500 steps: for faults of models that are too large for the others
configurations() {
    # The first lines are one mutator, two objects. "two-..." are two mutators that leave the global root alone.
    cat <<'END'
quick clean fast base             -DNT=1
quick fault fast no-deletion      -DNT=1 -DFAULT_NO_DELETION -DONLY_LIVE
quick fault fast one-flush        -DNT=1 -DFAULT_ONE_FLUSH
quick fault fast no-disarm        -DNT=1 -DFAULT_NO_DISARM
quick fault fast white            -DNT=1 -DFAULT_WHITE -DONLY_LIVE
quick fault fast flush-late       -DNT=1 -DFAULT_FLUSH_LATE -DONLY_LIVE
quick fault fast flush-discard    -DNT=1 -DFAULT_FLUSH_DISCARD -DONLY_LIVE
quick fault fast length           -DNT=1 -DFAULT_LEN -DONLY_LIVE
quick clean fast candq            -DNT=1 -DCANDQ
quick clean fast candonly         -DNT=1 -DCANDQ -DCANDONLY
quick fault fast candq-mixed      -DNT=1 -DCANDQ -DFAULT_CANDQ_MIXED -DONLY_LIVE
quick clean fast rootbeside       -DNT=1 -DROOTBESIDE
quick clean fast lateinit         -DNT=1 -DLATEINIT
quick clean fast span-stale       -DNT=1 -DSPAN -DSTALE
quick fault fast hole-white       -DNT=1 -DSPAN -DFAULT_HOLE_WHITE -DONLY_LIVE
quick fault fast span-white       -DNT=1 -DSPAN -DFAULT_SPAN_WHITE -DONLY_LIVE
quick clean fast copystack        -DNT=1 -DCOPYSTACK
quick fault fast copy-uncounted   -DNT=1 -DCOPYSTACK -DFAULT_COPY_UNCOUNTED -DONLY_LIVE
quick fault fast copy-late        -DNT=1 -DCOPYSTACK -DFAULT_COPY_LATE -DONLY_LIVE
quick fault fast copy-drop        -DNT=1 -DATTACH -DCOPYSTACK -DFAULT_COPY_DROP -DONLY_LIVE
quick clean fast assist           -DNT=1 -DASSIST -DOVERFLOW
quick fault fast quiet            -DNT=1 -DASSIST -DOVERFLOW -DFAULT_QUIET
quick clean fast workers          -DNT=1 -DWORKERS
quick clean fast workers-candq    -DNT=1 -DWORKERS -DCANDQ
quick fault fast worker-late      -DNT=1 -DWORKERS -DFAULT_WORKER_LATE
quick fault fast worker-early     -DNT=1 -DWORKERS -DFAULT_WORKER_EARLY
quick fault fast worker-unseen    -DNT=1 -DWORKERS -DFAULT_WORKER_UNSEEN
quick clean fast attach           -DNT=1 -DATTACH -DASSIST
quick clean fast attach-quiet     -DNT=1 -DATTACH -DASSIST -DQUIETROUND -DFAULT_ROUND_RESET
quick fault fast round-reset      -DNT=1 -DATTACH -DASSIST -DFAULT_ROUND_RESET
quick fault fast attach-idle      -DNT=1 -DATTACH -DFAULT_ATTACH_IDLE -DONLY_LIVE
quick fault fast attach-gen       -DNT=1 -DATTACH -DFAULT_ATTACH_GEN -DONLY_LIVE
quick fault fast detach-quiet     -DNT=1 -DATTACH -DASSIST -DFAULT_DETACH_QUIET
quick fault fast detach-drop      -DNT=1 -DATTACH -DFAULT_DETACH_DROP -DONLY_LIVE
quick clean fast block            -DNT=1 -DBLOCK
quick fault fast block-unchecked  -DNT=1 -DBLOCK -DFAULT_BLOCK_UNCHECKED -DONLY_LIVE
quick fault fast block-lost       -DNT=1 -DBLOCK -DFAULT_BLOCK_LOST
quick fault fast block-relaxed    -DNT=1 -DBLOCK -DFAULT_BLOCK_RELAXED
quick fault fast post-relaxed     -DNT=1 -DBLOCK -DFAULT_POST_RELAXED
quick clean fast upvalue          -DNT=1 -DCORO -DUPVAL
quick fault fast coro-unscanned   -DNT=1 -DCORO -DFAULT_CORO_UNSCANNED -DONLY_LIVE
quick fault fast coro-once        -DNT=1 -DCORO -DFAULT_CORO_ONCE -DONLY_LIVE
quick fault fast upvalue-unread   -DNT=1 -DCORO -DUPVAL -DFAULT_UPVAL -DONLY_LIVE
quick clean fast large            -DNT=1 -DLARGE
quick fault fast large-swept      -DNT=1 -DLARGE -DFAULT_LARGE -DONLY_LIVE
quick clean fast maybe            -DNT=1 -DNOROOT -DMAYBE
quick fault fast maybe-shaded     -DNT=1 -DMAYBE -DFAULT_MAYBE
quick fault fast weak-unspoiled   -DNT=1 -DWEAK -DFAULT_WEAK -DONLY_LIVE
quick fault fast ephemeron-late   -DNT=1 -DNOROOT -DEPH -DFAULT_EPH
quick clean fast insertion        -DNT=1 -DINSERTION
quick fault fast insert-norescan  -DNT=1 -DINSERTION -DFAULT_NO_RESCAN -DONLY_LIVE
quick fault fast insert-fresh     -DNT=1 -DINSERTION -DFAULT_FRESH_BLACK -DONLY_LIVE
quick fault fast alloc-polls      -DNT=1 -DNOROOT -DFAULT_ALLOC_POLLS -DONLY_LIVE
quick fault fast assist-polls     -DNT=1 -DASSIST -DFAULT_ASSIST_POLLS
quick fault fast wait-running     -DNT=1 -DNOROOT -DBLOCK -DFAULT_WAIT_RUNNING
quick clean fast two-words        -DNT=1 -DNOROOT -DNL=2
quick clean fast two-words-init   -DNT=1 -DNOROOT -DNL=2 -DLATEINIT
quick fault fast init-twice       -DNT=1 -DNOROOT -DNL=2 -DLATEINIT -DFAULT_INIT_TWICE -DONLY_LIVE
quick clean fast range            -DNT=1 -DNOROOT -DRANGE
quick fault fast range-unwaited   -DNT=1 -DNOROOT -DRANGE -DFAULT_RANGE_UNWAITED
quick fault fast range-removed    -DNT=1 -DNOROOT -DRANGE -DFAULT_RANGE_REMOVED -DONLY_LIVE
quick fault fast range-added      -DNT=1 -DNOROOT -DNL=2 -DRANGE -DINSERTION -DFAULT_RANGE_ADDED -DONLY_LIVE
quick clean fast nomem            -DNT=1 -DNOROOT -DNOMEM
quick fault fast nomem-dropped    -DNT=1 -DNOROOT -DNOMEM -DFAULT_NOMEM_DROPPED -DONLY_LIVE
quick fault fast nomem-uncounted  -DNT=1 -DNOROOT -DNOMEM -DFAULT_NOMEM_UNCOUNTED -DONLY_LIVE
quick clean fast free             -DNT=1 -DNOROOT -DNL=2 -DFREE
quick fault fast free-marking     -DNT=1 -DNOROOT -DFREE -DFAULT_FREE_MARKING -DONLY_LIVE
quick clean fast fork             -DNT=1 -DNOROOT -DFORK
quick fault fast fork-marks       -DNT=1 -DNOROOT -DFORK -DFAULT_FORK_MARKS -DONLY_LIVE
quick fault fast fork-sweep       -DNT=1 -DNOROOT -DFORK -DFAULT_FORK_SWEEP -DONLY_LIVE
quick fault fast fork-step        -DNT=1 -DNOROOT -DFORK -DFAULT_FORK_STEP -DONLY_LIVE
quick clean fast flag             -DNT=1 -DNOROOT -DFLAG
quick fault fast flag-late        -DNT=1 -DNOROOT -DFLAG -DFAULT_FLAG_LATE
quick clean fast finalize         -DNT=1 -DNOROOT -DFIN -DNOWEAK
quick fault fast fin-twice        -DNT=1 -DNOROOT -DFIN -DNOWEAK -DFAULT_FIN_TWICE
quick fault fast fin-some         -DNT=1 -DNOROOT -DFIN -DNOWEAK -DFAULT_FIN_SOME
quick fault fast fin-early        -DNT=1 -DNOROOT -DFIN -DNOWEAK -DFAULT_FIN_EARLY -DONLY_LIVE
quick fault fast fin-untraced     -DNT=1 -DNOROOT -DFIN -DNOWEAK -DFAULT_FIN_UNTRACED -DONLY_LIVE
quick fault fast fin-bare         -DNT=1 -DNOROOT -DFIN -DNOWEAK -DFAULT_FIN_BARE -DONLY_LIVE
quick fault fast fin-unscanned    -DNT=1 -DNOROOT -DFIN -DNOWEAK -DFAULT_FIN_UNSCANNED -DONLY_LIVE
quick fault fast fin-unsettled    -DNT=1 -DNOROOT -DNOFIELD -DFIN -DNOWEAK -DEPH -DFAULT_FIN_UNSETTLED -DONLY_LIVE
quick fault fast fin-weak-late    -DNT=1 -DNOROOT -DFIN -DFAULT_FIN_WEAK_LATE
quick fault fast fin-weak-kept    -DNT=1 -DNOROOT -DFIN -DWFIELD -DNOWEAK -DFAULT_FIN_WEAK_KEPT -DONLY_LIVE
quick fault fast assist-death     -DNT=1 -DNOROOT -DFIN -DNOWEAK -DASSIST -DOVERFLOW
quick fault fast weak-once        -DNT=1 -DNOROOT -DFIN -DFAULT_WEAK_ONCE
quick fault fast weak-stored      -DNT=1 -DNOROOT -DFIN -DFAULT_WEAK_STORED
quick clean fast cleanup          -DNT=1 -DNOROOT -DCLEANUP -DNOWEAK
quick fault fast clean-early      -DNT=1 -DNOROOT -DFIN -DNOWEAK -DCLEANUP -DFAULT_CLEAN_EARLY -DONLY_LIVE
quick fault fast clean-unlocked   -DNT=1 -DNOROOT -DCLEANUP -DNOWEAK -DFAULT_CLEAN_UNLOCKED -DONLY_LIVE
quick clean fast find             -DNT=1 -DNOROOT -DFIND -DNOWEAK
quick fault fast gate-gives       -DNT=1 -DNOROOT -DFIND -DNOWEAK -DFAULT_GATE_GIVES -DONLY_LIVE
quick fault fast gate-early       -DNT=1 -DNOROOT -DFIND -DNOWEAK -DFAULT_GATE_EARLY -DONLY_LIVE
quick clean fast two-base         -DNT=2 -DNOROOT
quick clean fast two-insertion    -DNT=2 -DNOROOT -DINSERTION
quick clean fast two-candonly     -DNT=2 -DNOROOT -DCANDQ -DCANDONLY
quick clean fast two-lists        -DNT=2 -DNOROOT -DLISTS
quick fault fast two-pop-unchecked -DNT=2 -DNOROOT -DLISTS -DFAULT_POP_UNCHECKED -DONLY_LIVE
quick clean fast two-copystack    -DNT=2 -DNOROOT -DCOPYSTACK
quick fault fast two-copy-replaced -DNT=2 -DNOROOT -DCORO -DCOPYSTACK -DFAULT_COPY_REPLACED -DONLY_LIVE
quick clean fast two-lateinit     -DNT=2 -DNOROOT -DLATEINIT
quick fault fast two-colour       -DNT=2 -DNOROOT -DFAULT_COLOUR -DONLY_LIVE
quick fault fast two-attach-late  -DNT=2 -DNOROOT -DATTACH -DFAULT_ATTACH_LATE -DONLY_LIVE
quick fault fast two-early-trace  -DNT=2 -DNOROOT -DSTALE -DFAULT_EARLY_TRACE -DONLY_LIVE
quick fault fast two-stale-marked -DNT=2 -DNOROOT -DSPAN -DSTALE -DFAULT_STALE_MARKED -DONLY_LIVE
quick clean fast two-eph-maybe    -DNT=2 -DNOROOT -DNOFIELD -DEPH -DMAYBE
quick fault fast two-eph-once     -DNT=2 -DNOROOT -DNOFIELD -DFIN -DNOWEAK -DEPH -DFAULT_EPH_ONCE
quick fault full no-settle-2      -DNT=2 -DFAULT_NO_SETTLE
quick fault full hidden-2         -DNT=2 -DOVERFLOW -DFAULT_HIDDEN
quick fault full no-insertion-2   -DNT=2 -DFAULT_NO_INSERTION
long  clean full eager            -DNT=1 -DEAGER -DASSIST -DOVERFLOW
long  clean full weak             -DNT=1 -DWEAK
long  clean full maybe-root       -DNT=1 -DMAYBE
long  clean full ephemeron        -DNT=1 -DEPH
long  clean full candq-assist     -DNT=1 -DCANDQ -DASSIST -DOVERFLOW
long  clean full candq-maybe      -DNT=1 -DCANDQ -DMAYBE
long  clean full candq-span       -DNT=1 -DCANDQ -DSPAN -DSTALE
long  clean full workers-assist   -DNT=1 -DWORKERS -DASSIST -DOVERFLOW -DQUIETROUND
long  clean full workers-attach   -DNT=1 -DWORKERS -DATTACH -DASSIST -DQUIETROUND
long  clean full workers-round    -DNT=1 -DWORKERS -DWORKERROUND -DCANDQ
long  clean full workers-3        -DNT=1 -DNO=3 -DWORKERS
long  clean full two-workers      -DNT=2 -DNOROOT -DWORKERS
long  clean full span-attach      -DNT=1 -DSPAN -DATTACH -DASSIST -DOVERFLOW
long  clean full block-attach     -DNT=1 -DBLOCK -DATTACH -DASSIST -DOVERFLOW -DCANDQ
long  clean full span-lists       -DNT=1 -DSPAN -DLISTS
long  clean full copy-assist      -DNT=1 -DCOPYSTACK -DASSIST -DOVERFLOW
long  clean full copy-candq       -DNT=1 -DCOPYSTACK -DCANDQ -DASSIST -DOVERFLOW -DQUIETROUND
long  clean full copy-attach      -DNT=1 -DCOPYSTACK -DATTACH -DASSIST
long  clean full copy-span        -DNT=1 -DCOPYSTACK -DSPAN -DSTALE
long  clean full copy-block       -DNT=1 -DCOPYSTACK -DBLOCK
long  clean full copy-upvalue     -DNT=1 -DCOPYSTACK -DCORO -DUPVAL
long  clean full copy-weak        -DNT=1 -DCOPYSTACK -DWEAK
long  clean full copy-maybe       -DNT=1 -DCOPYSTACK -DMAYBE
long  clean full copy-rootbeside  -DNT=1 -DCOPYSTACK -DROOTBESIDE
long  clean full copy-two-words   -DNT=1 -DNL=2 -DCOPYSTACK
long  clean full copy-3           -DNT=1 -DNO=3 -DCOPYSTACK
long  clean full base-3           -DNT=1 -DNO=3
long  clean full finalize-weak    -DNT=1 -DNOROOT -DFIN
long  clean full finalize-field   -DNT=1 -DNOROOT -DFIN -DWFIELD -DNOWEAK
long  clean full finalize-root    -DNT=1 -DFIN -DNOWEAK
long  clean full finalize-find    -DNT=1 -DNOROOT -DFIN -DNOWEAK -DFIND
long  clean full finalize-cleanup -DNT=1 -DNOROOT -DFIN -DNOWEAK -DCLEANUP
long  clean full cleanup-root     -DNT=1 -DCLEANUP -DNOWEAK
long  clean full two-words-root   -DNT=1 -DNL=2
long  clean full lateinit-words   -DNT=1 -DNL=2 -DLATEINIT
long  clean full lateinit-copy    -DNT=1 -DNL=2 -DLATEINIT -DCOPYSTACK
long  clean full lateinit-assist  -DNT=1 -DNL=2 -DLATEINIT -DASSIST -DOVERFLOW
long  fault full lateinit-insert  -DNT=1 -DNL=2 -DLATEINIT -DINSERTION
long  clean full insertion-range  -DNT=1 -DNL=2 -DNOROOT -DRANGE -DINSERTION
long  fault full find-reviving    -DNT=1 -DNOROOT -DFIN -DNOWEAK -DFIND -DFAULT_FIND_REVIVING -DONLY_LIVE
long  fault full store-polls-2    -DNT=2 -DSHARED -DFAULT_STORE_POLLS -DONLY_LIVE
long  clean full two-attach       -DNT=2 -DNOROOT -DATTACH -DASSIST
long  clean full two-span         -DNT=2 -DNOROOT -DSPAN
long  clean full two-block        -DNT=2 -DNOROOT -DBLOCK
long  clean full two-span-lists   -DNT=2 -DNOROOT -DSPAN -DLISTS
long  clean full two-copy-stale   -DNT=2 -DNOROOT -DCOPYSTACK -DSTALE -DLATEINIT
long  clean full two-copy-span    -DNT=2 -DNOROOT -DCOPYSTACK -DSPAN -DSTALE
long  clean full two-copy-attach  -DNT=2 -DNOROOT -DCOPYSTACK -DATTACH -DASSIST
long  clean full two-copy-block   -DNT=2 -DNOROOT -DCOPYSTACK -DBLOCK
long  clean full two-copy-coro    -DNT=2 -DNOROOT -DCOPYSTACK -DCORO
long  clean full two-weak         -DNT=2 -DNOROOT -DWEAK
long  clean full two-maybe        -DNT=2 -DNOROOT -DMAYBE
long  clean full two-cleanup      -DNT=2 -DNOROOT -DCLEANUP -DNOWEAK
long  clean full two-eph-finalize -DNT=2 -DNOROOT -DNOFIELD -DFIN -DNOWEAK -DEPH
long  clean full two-eph-copy     -DNT=2 -DNOROOT -DNOFIELD -DEPH -DCOPYSTACK
long  clean full two-fin-weak     -DNT=2 -DNOROOT -DNOFIELD -DFIN
long  fault full two-weak-colour  -DNT=2 -DNOROOT -DWEAK -DFAULT_COLOUR -DONLY_LIVE
long  fault full two-maybe-colour -DNT=2 -DNOROOT -DMAYBE -DFAULT_COLOUR -DONLY_LIVE
long  fault rand eph-maybe-settle-2 -DNT=2 -DNOFIELD -DEPH -DMAYBE -DFAULT_NO_SETTLE
long  bound bits base-2           -DNT=2
long  bound bits candq-2          -DNT=2 -DCANDQ
long  bound bits lateinit-2       -DNT=2 -DLATEINIT
long  bound bits block-2          -DNT=2 -DBLOCK
long  bound bits assist-2         -DNT=2 -DASSIST
long  bound bits attach-2         -DNT=2 -DATTACH
long  bound bits span-2           -DNT=2 -DSPAN
long  bound bits overflow-2       -DNT=2 -DOVERFLOW
long  bound bits overflow-candq-2 -DNT=2 -DOVERFLOW -DCANDQ -DASSIST -DQUIETROUND
long  bound bits span-lists-2     -DNT=2 -DSPAN -DLISTS
long  bound bits copy-2           -DNT=2 -DCOPYSTACK
long  bound bits copy-assist-2    -DNT=2 -DCOPYSTACK -DASSIST
long  bound bits two-copy-upvalue -DNT=2 -DNOROOT -DCOPYSTACK -DCORO -DUPVAL
long  bound bits xchg-2           -DNT=2 -DXCHG -DFAULT_NO_SETTLE
long  bound bits weak-2           -DNT=2 -DWEAK
long  bound bits weak-root-2      -DNT=2 -DNOFIELD -DWEAK
long  bound bits maybe-2          -DNT=2 -DMAYBE
long  bound bits ephemeron-2      -DNT=2 -DEPH
long  bound bits eph-maybe-2      -DNT=2 -DNOFIELD -DEPH -DMAYBE
long  bound bits fin-eph-2        -DNT=2 -DNOFIELD -DFIN -DNOWEAK -DEPH
long  bound bits two-ephemeron    -DNT=2 -DNOROOT -DEPH
long  bound bits two-fin-eph      -DNT=2 -DNOROOT -DFIN -DNOWEAK -DEPH
long  bound bits two-finalize     -DNT=2 -DNOROOT -DFIN -DNOWEAK
long  bound bits two-find         -DNT=2 -DNOROOT -DFIND -DNOWEAK
long  bound bits two-upvalue      -DNT=2 -DNOROOT -DCORO -DUPVAL
END
}

# Each two options, one mutator that leaves the global root alone, and the global weak slot where it has finalizers or
# cleanups. Left out are two that need the same state for different things.
pairs() {
    cat >"$work/options" <<'END'
candq -DCANDQ
candonly -DCANDQ -DCANDONLY
assist -DASSIST -DOVERFLOW -DQUIETROUND
workers -DWORKERS
attach -DATTACH
block -DBLOCK
coroutine -DCORO -DUPVAL
large -DLARGE
weak -DWEAK
ephemeron -DEPH
maybe -DMAYBE
span -DSPAN -DSTALE
lists -DLISTS
copystack -DCOPYSTACK
lateinit -DLATEINIT -DNL=2
insertion -DINSERTION
rootbeside -DROOTBESIDE
finalize -DFIN -DNOWEAK
cleanup -DCLEANUP -DNOWEAK
find -DFIND -DNOWEAK
range -DRANGE
nomem -DNOMEM
free -DFREE -DNL=2
flag -DFLAG
fork -DFORK
END
    seen=
    while read -r first first_options; do
        for second in $seen; do
            case $second+$first in
            candq+candonly | workers+fork | large+span | large+lateinit | ephemeron+free | finalize+free | cleanup+free) continue ;;
            esac
            its_options=$first_options
            case $second in
            weak) its_options=${first_options% -DNOWEAK} ;;
            esac
            second_options=$(sed -n "s/^$second //p" "$work/options")
            case "$its_options $second_options" in
            *NL=2*NL=2*) second_options=${second_options%-DNL=2} ;;
            *NOWEAK*NOWEAK*) second_options=${second_options%-DNOWEAK} ;;
            esac
            echo "pairs clean pair $second+$first -DNT=1 -DNOROOT $its_options $second_options"
        done
        seen="$seen $first"
    done <"$work/options"
}

# Builds and runs one search; its report is in $work/out.
search() { # method, options
    case $1 in
    fast) flags="-O0 -DMEMLIM=2000" args="-m1000000 -w22" ;;
    full) flags="-O1 -DCOLLAPSE -DMEMLIM=${MODEL_MB:-6000}" args=-m2000000 ;;
    pair) flags="-O0 -DCOLLAPSE -DMEMLIM=2600" args="-m2000000 -Q${MODEL_MINUTES:-25}" ;;
    bits) flags="-O2 -DBITSTATE" args="-m10000000 -w35 -Q${MODEL_MINUTES:-25}" ;;
    rand) flags="-O2 -DBITSTATE -DT_RAND -DP_RAND" args="-m1500 -w30 -RS1 -Q${MODEL_MINUTES:-25}" ;;
    esac
    # shellcheck disable=SC2086 # options are lists of words
    (cd "$work" && rm -f pan* ./*.trail && spin -a $2 onthefly.pml && "$compiler" -w -DSAFETY $flags -o pan pan.c &&
        ./pan $args) >"$work/out" 2>&1
}

# How many lines of the model were never reached, in the mutators and (but for the collector's copies of the steps that
# it does for blocked threads, each made for one step) in the collector; the ends of the two loops do not count.
unreached() {
    sed -n '/^unreached in proctype mutator/,$p' "$work/out" | case $1 in
    *-DBLOCK*) sed -n '/^unreached in proctype collector/q;p' ;;
    *) cat ;;
    esac | grep -c 'state [0-9]*, "[^-]'
}

# What the search found: clean, hollow (clean, but a line of the model was never reached), cut (a path or the whole of
# it ended early), error, or broken (no report).
outcome() {
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$work/out" | head -n 1)
    if [ -z "$errors" ]; then
        echo broken
    elif [ "$errors" -ne 0 ]; then
        echo error
    elif grep -q -e 'max search depth too small' -e 'Search not completed' -e 'MEMLIM bound' "$work/out"; then
        echo cut
    elif [ "$(unreached "$1")" -ne 0 ]; then
        echo hollow
    else
        echo clean
    fi
}

as_expected() { # expected, outcome, method
    case $1/$2 in
    clean/clean | fault/error | bound/clean | bound/cut) true ;;
    clean/hollow) [ "$3" = pair ] ;;
    *) false ;;
    esac
}

[ $# -ge 1 ] && [ $# -le 2 ] || usage
tier=$1
pattern=${2:-}
case $tier in
quick | long | pairs) ;;
--full) tier="quick long pairs" ;;
*) usage ;;
esac
need spin spin
need "$compiler" gcc

work=$(mktemp -d "${TMPDIR:-/tmp}/trigc-model.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM
cp "$model_dir/onthefly.pml" "$work/" || exit 2
configurations >"$work/list"
pairs >>"$work/list"

row='%-8s %-20s %-8s %-7s %12s %9s %7s  %s\n'
# shellcheck disable=SC2059 # one format for all rows
printf "$row" verdict name expected found states depth seconds ""
passed=0
failed=0
while read -r its_tier expected method name options; do
    case " $tier " in *" $its_tier "*) ;; *) continue ;; esac
    case $name in *$pattern*) ;; *) continue ;; esac
    start=$(date +%s)
    search "$method" "$options"
    seconds=$(($(date +%s) - start))
    found=$(outcome "$options")
    depth=$(sed -n 's/.*depth reached \([0-9]*\),.*/\1/p' "$work/out" | head -n 1)
    factor=$(sed -n 's/^hash factor: \([0-9.]*\).*/hash factor \1/p' "$work/out" | head -n 1)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$work/out" | head -n 1)
    if as_expected "$expected" "$found" "$method"; then
        passed=$((passed + 1))
        verdict=ok
    else
        failed=$((failed + 1))
        verdict=FAILED
    fi
    case $found in
    error) detail=$(sed -n 's/^pan:[0-9]*: //p' "$work/out" | head -n 1) ;;
    cut) detail=$(grep -h -e 'max search depth too small' -e 'Search not completed' "$work/out" | head -n 1) ;;
    broken) detail=$(tail -n 1 "$work/out") ;;
    hollow) detail=$(grep -h 'state [0-9]*, "[^-]' "$work/out" | head -n 1) ;;
    clean) detail= ;;
    esac
    # shellcheck disable=SC2059
    printf "$row" "$verdict" "$name" "$expected" "$found" "${states:-none}" "${depth:-0}" "$seconds" \
        "${factor:+$factor }${detail:+($detail)}"
done <"$work/list"

[ $((passed + failed)) -gt 0 ] || echo "run.sh: no $tier configuration matches '$pattern'" >&2
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
