package main

// Splay, after the benchmark of that name in Octane (bench/work_splay.c).

const (
	splayNodes   = 8000
	payloadDepth = 5
	textForm     = "String for key ................ in leaf node"
	textKey      = 15
	textDigits   = 16
)

type payload struct {
	left, right *payload
	numbers     []uint64
	text        []byte
}

type snode struct {
	key         uint64
	payload     *payload
	left, right *snode
}

type splayTree struct {
	root, dummy    *snode
	random, nnodes uint64
}

// The key's node, or the last one on the way to it, comes to the root.
func (t *splayTree) splay(key uint64) {
	left, right, at := t.dummy, t.dummy, t.root
	t.dummy.left, t.dummy.right = nil, nil
	for key != at.key {
		if key < at.key {
			if at.left == nil {
				break
			}
			if key < at.left.key {
				next := at.left
				at.left = next.right
				next.right = at
				at = next
				if at.left == nil {
					break
				}
			}
			right.left = at
			right = at
			at = at.left
		} else {
			if at.right == nil {
				break
			}
			if key > at.right.key {
				next := at.right
				at.right = next.left
				next.left = at
				at = next
				if at.right == nil {
					break
				}
			}
			left.right = at
			left = at
			at = at.right
		}
	}
	left.right = at.left
	right.left = at.right
	at.left = t.dummy.right
	at.right = t.dummy.left
	t.root = at
}

func (t *splayTree) has(key uint64) bool {
	if t.root == nil {
		return false
	}
	t.splay(key)
	return t.root.key == key
}

func (t *splayTree) insert(key uint64, p *payload) {
	n := &snode{key: key, payload: p}
	t.nnodes++
	if t.root == nil {
		t.root = n
		return
	}
	t.splay(key)
	if key > t.root.key {
		n.left = t.root
		n.right = t.root.right
		t.root.right = nil
	} else {
		n.right = t.root
		n.left = t.root.left
		t.root.left = nil
	}
	t.root = n
}

func (t *splayTree) remove(key uint64) {
	t.splay(key)
	if removed := t.root; removed.left == nil {
		t.root = removed.right
	} else {
		t.root = removed.left
		t.splay(key)
		t.root.right = removed.right
	}
	t.nnodes--
}

func (t *splayTree) keyBefore(key uint64) uint64 {
	t.splay(key)
	n := t.root.left
	if n == nil {
		return key
	}
	for n.right != nil {
		n = n.right
	}
	return n.key
}

func newText(key uint64) []byte {
	text := []byte(textForm)
	for i := range textDigits {
		text[textKey+i] = "0123456789abcdef"[key>>(60-4*i)&15]
	}
	return text
}

func newNumbers() []uint64 {
	numbers := make([]uint64, 10)
	for i := range numbers {
		numbers[i] = uint64(i)
	}
	return numbers
}

func newPayload(depth int, key uint64) *payload {
	if depth == 0 {
		return &payload{numbers: newNumbers(), text: newText(key)}
	}
	left := newPayload(depth-1, key)
	return &payload{left: left, right: newPayload(depth-1, key)}
}

func (t *splayTree) insertNew() uint64 {
	key := random(&t.random)
	for t.has(key) {
		key = random(&t.random)
	}
	t.insert(key, newPayload(payloadDepth, key))
	return key
}

func payloadSum(p *payload, key uint64) uint64 {
	if p.left != nil {
		return payloadSum(p.left, key) + payloadSum(p.right, key)
	}
	sum, read := uint64(0), uint64(0)
	for _, n := range p.numbers {
		sum += n
	}
	for _, c := range p.text[textKey : textKey+textDigits] {
		if c >= 'a' {
			read = read*16 + uint64(c-'a'+10)
		} else {
			read = read*16 + uint64(c-'0')
		}
	}
	if read != key {
		damaged("a payload")
	}
	return sum + read
}

func treeSum(n *snode, sum uint64) uint64 {
	if n == nil {
		return sum
	}
	sum = treeSum(n.left, sum)
	sum = sum*31 + payloadSum(n.payload, n.key)
	return treeSum(n.right, sum)
}

func runSplay(w *work) uint64 {
	t, p := &splayTree{dummy: &snode{}, random: 20261121}, w.probes[0]
	nodes := w.count
	if nodes == 0 {
		nodes = splayNodes
	}
	p.start()
	for range nodes {
		t.insertNew()
		p.op()
	}
	for range w.ops {
		t.remove(t.keyBefore(t.insertNew()))
		p.op()
	}
	return treeSum(t.root, t.nnodes)
}
