#!/bin/sh
# Searches the protocol's model (onthefly.pml): run.sh quick|long [pattern]
#
# quick   every rule's clean search and every planted fault, on one core in about two minutes, under 2 GB
# long    the large searches, two mutators over the whole model among them (bitstate): up to 5 GB, some hours
# pattern runs only the configurations whose name matches the shell pattern *pattern*
#
# One line a configuration: its verdict, name, what was expected, what was found, the states stored, the greatest depth,
# the seconds; for a bitstate search also the hash factor, its bits for each state.
# A clean one passes when the search ends without an error, without cutting a path short and with every line of the
# model reached; a fault passes when the search reports an error; a bounded one when it found no error, whether it
# ended or its minutes did (MODEL_MINUTES, 25). Exit status 0 when all passed, 1 when one did not, 2 for wrong usage or
# a missing tool. CC names the C compiler (cc). Everything is built in a temporary directory, in TMPDIR.
set -u

model_dir=$(cd "$(dirname "$0")" && pwd)
compiler=${CC:-cc}

usage() {
    echo "usage: run.sh quick|long [pattern]" >&2
    exit 2
}

need() {
    command -v "$1" >/dev/null 2>&1 && return
    echo "run.sh: $1 is missing; install it with: apt-get install $2" >&2
    exit 2
}

# Every configuration: tier, expected outcome, search, name, options of the model.
#   full  exhaustive, states compressed    bits  bitstate, 4 GB of bits
configurations() {
    # The first lines are one mutator, two objects. "two-..." are two mutators that leave the global root alone.
    cat <<'END'
quick clean full base             -DNT=1
quick fault full no-deletion      -DNT=1 -DFAULT_NO_DELETION -DONLY_LIVE
quick fault full one-flush        -DNT=1 -DFAULT_ONE_FLUSH
quick fault full no-disarm        -DNT=1 -DFAULT_NO_DISARM
quick fault full white            -DNT=1 -DFAULT_WHITE -DONLY_LIVE
quick fault full flush-late       -DNT=1 -DFAULT_FLUSH_LATE -DONLY_LIVE
quick fault full flush-discard    -DNT=1 -DFAULT_FLUSH_DISCARD -DONLY_LIVE
quick fault full length           -DNT=1 -DFAULT_LEN -DONLY_LIVE
quick clean full candq            -DNT=1 -DCANDQ
quick clean full candonly         -DNT=1 -DCANDQ -DCANDONLY
quick fault full candq-mixed      -DNT=1 -DCANDQ -DFAULT_CANDQ_MIXED -DONLY_LIVE
quick clean full rootbeside       -DNT=1 -DROOTBESIDE
quick clean full lateinit         -DNT=1 -DLATEINIT
quick clean full span-stale       -DNT=1 -DSPAN -DSTALE
quick fault full hole-white       -DNT=1 -DSPAN -DFAULT_HOLE_WHITE -DONLY_LIVE
quick fault full span-white       -DNT=1 -DSPAN -DFAULT_SPAN_WHITE -DONLY_LIVE
quick clean full copystack        -DNT=1 -DCOPYSTACK
quick fault full copy-uncounted   -DNT=1 -DCOPYSTACK -DFAULT_COPY_UNCOUNTED -DONLY_LIVE
quick fault full copy-late        -DNT=1 -DCOPYSTACK -DFAULT_COPY_LATE -DONLY_LIVE
quick fault full copy-drop        -DNT=1 -DATTACH -DCOPYSTACK -DFAULT_COPY_DROP -DONLY_LIVE
quick clean full assist           -DNT=1 -DASSIST -DOVERFLOW
quick fault full quiet            -DNT=1 -DASSIST -DOVERFLOW -DFAULT_QUIET
quick clean full workers          -DNT=1 -DWORKERS
quick clean full workers-candq    -DNT=1 -DWORKERS -DCANDQ
quick fault full worker-late      -DNT=1 -DWORKERS -DFAULT_WORKER_LATE
quick fault full worker-early     -DNT=1 -DWORKERS -DFAULT_WORKER_EARLY
quick fault full worker-unseen    -DNT=1 -DWORKERS -DFAULT_WORKER_UNSEEN
quick clean full attach           -DNT=1 -DATTACH -DASSIST
quick clean full attach-quiet     -DNT=1 -DATTACH -DASSIST -DQUIETROUND -DFAULT_ROUND_RESET
quick fault full round-reset      -DNT=1 -DATTACH -DASSIST -DFAULT_ROUND_RESET
quick fault full attach-idle      -DNT=1 -DATTACH -DFAULT_ATTACH_IDLE -DONLY_LIVE
quick fault full attach-gen       -DNT=1 -DATTACH -DFAULT_ATTACH_GEN -DONLY_LIVE
quick fault full detach-quiet     -DNT=1 -DATTACH -DASSIST -DFAULT_DETACH_QUIET
quick fault full detach-drop      -DNT=1 -DATTACH -DFAULT_DETACH_DROP -DONLY_LIVE
quick clean full block            -DNT=1 -DBLOCK
quick fault full block-unchecked  -DNT=1 -DBLOCK -DFAULT_BLOCK_UNCHECKED -DONLY_LIVE
quick fault full block-lost       -DNT=1 -DBLOCK -DFAULT_BLOCK_LOST
quick fault full block-relaxed    -DNT=1 -DBLOCK -DFAULT_BLOCK_RELAXED
quick fault full post-relaxed     -DNT=1 -DBLOCK -DFAULT_POST_RELAXED
quick clean full upvalue          -DNT=1 -DCORO -DUPVAL
quick fault full coro-unscanned   -DNT=1 -DCORO -DFAULT_CORO_UNSCANNED -DONLY_LIVE
quick fault full coro-once        -DNT=1 -DCORO -DFAULT_CORO_ONCE -DONLY_LIVE
quick fault full upvalue-unread   -DNT=1 -DCORO -DUPVAL -DFAULT_UPVAL -DONLY_LIVE
quick clean full large            -DNT=1 -DLARGE
quick fault full large-swept      -DNT=1 -DLARGE -DFAULT_LARGE -DONLY_LIVE
quick clean full maybe            -DNT=1 -DNOROOT -DMAYBE
quick fault full maybe-shaded     -DNT=1 -DMAYBE -DFAULT_MAYBE
quick fault full weak-unspoiled   -DNT=1 -DWEAK -DFAULT_WEAK -DONLY_LIVE
quick fault full ephemeron-late   -DNT=1 -DNOROOT -DEPH -DFAULT_EPH
quick clean full insertion        -DNT=1 -DINSERTION
quick fault full insert-norescan  -DNT=1 -DINSERTION -DFAULT_NO_RESCAN -DONLY_LIVE
quick fault full insert-fresh     -DNT=1 -DINSERTION -DFAULT_FRESH_BLACK -DONLY_LIVE
quick clean full two-base         -DNT=2 -DNOROOT
quick clean full two-insertion    -DNT=2 -DNOROOT -DINSERTION
quick clean full two-candonly     -DNT=2 -DNOROOT -DCANDQ -DCANDONLY
quick clean full two-lists        -DNT=2 -DNOROOT -DLISTS
quick fault full two-pop-unchecked -DNT=2 -DNOROOT -DLISTS -DFAULT_POP_UNCHECKED -DONLY_LIVE
quick clean full two-copystack    -DNT=2 -DNOROOT -DCOPYSTACK
quick fault full two-copy-replaced -DNT=2 -DNOROOT -DCORO -DCOPYSTACK -DFAULT_COPY_REPLACED -DONLY_LIVE
quick clean full two-lateinit     -DNT=2 -DNOROOT -DLATEINIT
quick fault full two-colour       -DNT=2 -DNOROOT -DFAULT_COLOUR -DONLY_LIVE
quick fault full two-attach-late  -DNT=2 -DNOROOT -DATTACH -DFAULT_ATTACH_LATE -DONLY_LIVE
quick fault full two-early-trace  -DNT=2 -DNOROOT -DSTALE -DFAULT_EARLY_TRACE -DONLY_LIVE
quick fault full two-stale-marked -DNT=2 -DNOROOT -DSPAN -DSTALE -DFAULT_STALE_MARKED -DONLY_LIVE
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
long  clean full two-attach       -DNT=2 -DNOROOT -DATTACH -DASSIST
long  clean full two-span         -DNT=2 -DNOROOT -DSPAN
long  clean full two-block        -DNT=2 -DNOROOT -DBLOCK
long  clean full two-span-lists   -DNT=2 -DNOROOT -DSPAN -DLISTS
long  clean full two-copy-stale   -DNT=2 -DNOROOT -DCOPYSTACK -DSTALE -DLATEINIT
long  clean full two-copy-span    -DNT=2 -DNOROOT -DCOPYSTACK -DSPAN -DSTALE
long  clean full two-copy-attach  -DNT=2 -DNOROOT -DCOPYSTACK -DATTACH -DASSIST
long  clean full two-copy-block   -DNT=2 -DNOROOT -DCOPYSTACK -DBLOCK
long  clean full two-copy-coro    -DNT=2 -DNOROOT -DCOPYSTACK -DCORO
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
END
}

# Builds and runs one search; its report is in $work/out.
search() { # method, options
    case $1 in
    full) flags="-O1 -DCOLLAPSE -DMEMLIM=6000" args=-m2000000 ;;
    bits) flags="-O2 -DBITSTATE" args="-m10000000 -w35 -Q${MODEL_MINUTES:-25}" ;;
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

as_expected() { # expected, outcome
    case $1/$2 in
    clean/clean | fault/error | bound/clean | bound/cut) true ;;
    *) false ;;
    esac
}

[ $# -ge 1 ] && [ $# -le 2 ] || usage
tier=$1
pattern=${2:-}
case $tier in quick | long) ;; *) usage ;; esac
need spin spin
need "$compiler" gcc

work=$(mktemp -d "${TMPDIR:-/tmp}/trigc-model.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM
cp "$model_dir/onthefly.pml" "$work/" || exit 2
configurations >"$work/list"

passed=0
failed=0
while read -r its_tier expected method name options; do
    [ "$its_tier" = "$tier" ] || continue
    case $name in *$pattern*) ;; *) continue ;; esac
    start=$(date +%s)
    search "$method" "$options"
    seconds=$(($(date +%s) - start))
    found=$(outcome "$options")
    depth=$(sed -n 's/.*depth reached \([0-9]*\),.*/\1/p' "$work/out" | head -n 1)
    factor=$(sed -n 's/^hash factor: \([0-9.]*\).*/, hash factor \1/p' "$work/out" | head -n 1)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$work/out" | head -n 1)
    if as_expected "$expected" "$found"; then
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
    printf '%-6s %-17s %s: %s, %s states, depth %s%s, %s s%s\n' "$verdict" "$name" "$expected" "$found" \
        "${states:-no}" "${depth:-0}" "$factor" "$seconds" "${detail:+ ($detail)}"
done <"$work/list"

[ $((passed + failed)) -gt 0 ] || echo "run.sh: no $tier configuration matches '$pattern'" >&2
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
