// main.go - the workloads of bench/ in Go: one run in one process, with the arguments and the output of bench/worker.c.
//
//	peers-go store --ops=5000000 --count=200000
//	peers-go lru --live=67108864 --ops=2000000
//	peers-go trees --depth=18 --threads=2
//	peers-go gcbench --depth=18
//	peers-go splay --ops=300000
//
// The same data structures, operations and random numbers as in C, so that the checksums agree. Nothing of the
// runtime is tuned.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

type work struct {
	ops, live, count uint64
	depth, threads   int
	probes           []*probe
}

var workloads = map[string]func(*work) uint64{
	"store": runStore, "lru": runLRU, "trees": runTrees, "gcbench": runGCBench, "splay": runSplay,
}

func usage(why string) {
	fmt.Fprintf(os.Stderr, "%s\nusage: peers-go store|lru|trees|gcbench|splay [--ops=N] [--live=BYTES] [--count=N] "+
		"[--depth=N] [--threads=N]\n", why)
	os.Exit(64)
}

func parse(arguments []string) *work {
	w := &work{ops: 1000000, live: 64 << 20, depth: 16, threads: 1}
	for _, argument := range arguments {
		key, value, _ := strings.Cut(argument, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			usage("not a number: " + argument)
		}
		switch key {
		case "--ops":
			w.ops = n
		case "--live":
			w.live = n
		case "--count":
			w.count = n
		case "--depth":
			w.depth = int(n)
		case "--threads":
			w.threads = int(n)
		default:
			usage("unknown option: " + argument)
		}
	}
	return w
}

// xorshift64: the same numbers everywhere.
func random(state *uint64) uint64 {
	*state ^= *state << 13
	*state ^= *state >> 7
	*state ^= *state << 17
	return *state
}

func damaged(what string) {
	fmt.Fprintln(os.Stderr, what+" is damaged")
	os.Exit(1)
}

func main() {
	if len(os.Args) < 2 || workloads[os.Args[1]] == nil {
		usage("no such workload")
	}
	w := parse(os.Args[2:])
	for range w.threads {
		w.probes = append(w.probes, newProbe())
	}
	start := time.Now()
	sum := workloads[os.Args[1]](w)
	seconds := time.Since(start).Seconds()
	all := w.probes[0]
	for _, p := range w.probes[1:] {
		all.merge(p)
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	fmt.Printf("name go\nseconds %.6f\nchecksum %016x\np50_ns %d\np999_ns %d\nworst_ns %d\ncollections %d\nend\n", seconds,
		sum, all.percentile(50), all.percentile(99.9), all.worst, stats.NumGC)
}
