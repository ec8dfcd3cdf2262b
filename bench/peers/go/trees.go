package main

import "sync"

// Short-lived binary trees of depths 4, 6, .. beside a long-lived one (bench/work_trees.c).

const minDepth = 4

type node struct{ left, right *node }

func build(p *probe, depth int) *node {
	p.step()
	if depth == 0 {
		return &node{}
	}
	return &node{build(p, depth-1), build(p, depth-1)}
}

func count(p *probe, n *node) uint64 {
	p.step()
	if n.left == nil {
		return 1
	}
	return 1 + count(p, n.left) + count(p, n.right)
}

func treesOf(w *work, index int) uint64 {
	p := w.probes[index]
	p.start()
	sum := count(p, build(p, w.depth+1))
	longLived := build(p, w.depth)
	for depth := minDepth; depth <= w.depth; depth += 2 {
		for i := index; i < 1<<(w.depth-depth+minDepth); i += w.threads {
			sum += count(p, build(p, depth))
		}
	}
	return sum + count(p, longLived)
}

func runTrees(w *work) uint64 {
	sums := make([]uint64, w.threads)
	var all sync.WaitGroup
	for i := range w.threads {
		all.Go(func() { sums[i] = treesOf(w, i) })
	}
	all.Wait()
	sum := uint64(0)
	for _, s := range sums {
		sum += s
	}
	return sum
}
