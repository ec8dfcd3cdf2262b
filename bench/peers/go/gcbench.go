package main

// GCBench, as Ellis, Kovac and Boehm have it (bench/work_gcbench.c).

const arrayDoubles = 500000

type gnode struct {
	left, right *gnode
	i, j        int32
}

func newNode(p *probe, left, right *gnode) *gnode {
	p.step()
	return &gnode{left: left, right: right}
}

func populate(p *probe, depth int, n *gnode) {
	if depth == 0 {
		return
	}
	n.left = newNode(p, nil, nil)
	n.right = newNode(p, nil, nil)
	populate(p, depth-1, n.left)
	populate(p, depth-1, n.right)
}

func makeTree(p *probe, depth int) *gnode {
	if depth == 0 {
		return newNode(p, nil, nil)
	}
	left := makeTree(p, depth-1)
	return newNode(p, left, makeTree(p, depth-1))
}

func treeSize(depth int) uint64 { return 2<<depth - 1 }

func countNodes(n *gnode) uint64 {
	if n == nil {
		return 0
	}
	return 1 + countNodes(n.left) + countNodes(n.right)
}

func buildTrees(p *probe, depth int, ntrees uint64) uint64 {
	for range ntrees {
		populate(p, depth, newNode(p, nil, nil))
	}
	for range ntrees {
		makeTree(p, depth)
	}
	return ntrees
}

func runGCBench(w *work) uint64 {
	p, longest, sum := w.probes[0], max(w.depth-2, 1), uint64(0)
	p.start()
	makeTree(p, w.depth)
	longLived := newNode(p, nil, nil)
	populate(p, longest, longLived)
	array := make([]float64, arrayDoubles)
	for i := 1; i < arrayDoubles/2; i++ {
		array[i] = 1 / float64(i)
	}
	for depth := minDepth; depth <= longest; depth += 2 {
		sum = sum*31 + buildTrees(p, depth, 2*treeSize(w.depth)/treeSize(depth))
	}
	if array[1000] != 1.0/1000 {
		damaged("the array")
	}
	return sum*31 + countNodes(longLived)
}
