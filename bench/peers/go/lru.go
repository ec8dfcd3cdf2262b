package main

// A cache with a hash table and a list in order of use, held at a size in bytes (bench/work_lru.c).

const (
	payloadMin  = 32
	payloadMax  = 1024
	payloadMean = (payloadMin + payloadMax) / 2
	entryBytes  = 48 // as the cache counts them, in every language
)

type entry struct {
	key, size         uint64
	chain, prev, next *entry
	payload           []byte
}

type lru struct {
	buckets               []*entry
	ring                  *entry // its next is the newest, its prev the oldest
	used, limit, nentries uint64
	random, sum           uint64
}

func hash(key uint64) uint64 {
	key *= 0x9e3779b97f4a7c15
	return key ^ key>>32
}

func (c *lru) bucket(key uint64) **entry { return &c.buckets[hash(key)&uint64(len(c.buckets)-1)] }

func (c *lru) lookup(key uint64) *entry {
	e := *c.bucket(key)
	for e != nil && e.key != key {
		e = e.chain
	}
	return e
}

func remove(e *entry) {
	e.prev.next = e.next
	e.next.prev = e.prev
}

func (c *lru) insertNewest(e *entry) {
	newest := c.ring.next
	e.prev = c.ring
	e.next = newest
	newest.prev = e
	c.ring.next = e
}

func (c *lru) chainRemove(e *entry) {
	at := c.bucket(e.key)
	for *at != e {
		at = &(*at).chain
	}
	*at = e.chain
}

func (c *lru) evictToLimit() {
	for c.used > c.limit {
		oldest := c.ring.prev
		remove(oldest)
		c.chainRemove(oldest)
		c.used -= entryBytes + oldest.size
		c.nentries--
	}
}

func (c *lru) newPayload(key uint64) []byte {
	payload := make([]byte, payloadMin+random(&c.random)%(payloadMax-payloadMin+1))
	fill(payload, byte(hash(key)))
	return payload
}

func (c *lru) insert(key uint64) {
	payload, bucket := c.newPayload(key), c.bucket(key)
	e := &entry{key: key, size: uint64(len(payload)), payload: payload, chain: *bucket}
	*bucket = e
	c.insertNewest(e)
	c.used += entryBytes + e.size
	c.nentries++
	c.evictToLimit()
}

func (c *lru) touch(e *entry) {
	if c.ring.next == e {
		return
	}
	remove(e)
	c.insertNewest(e)
}

func (c *lru) get(key uint64) {
	e := c.lookup(key)
	if e == nil {
		c.insert(key)
		return
	}
	want := byte(hash(key))
	if e.payload[0] != want || e.payload[e.size/2] != want || e.payload[e.size-1] != want {
		damaged("a payload")
	}
	c.sum += e.size
	c.touch(e)
}

func (c *lru) put(key uint64) {
	e := c.lookup(key)
	if e == nil {
		c.insert(key)
		return
	}
	payload := c.newPayload(key)
	c.used = c.used - e.size + uint64(len(payload))
	e.size = uint64(len(payload))
	e.payload = payload
	c.touch(e)
	c.evictToLimit()
}

func runLRU(w *work) uint64 {
	expected := w.live / (entryBytes + payloadMean)
	keys, nbuckets := expected+expected/4, uint64(1024)
	for nbuckets < expected {
		nbuckets *= 2
	}
	c := &lru{buckets: make([]*entry, nbuckets), ring: &entry{}, limit: w.live, random: 20261121}
	c.ring.prev, c.ring.next = c.ring, c.ring
	p := w.probes[0]
	p.start()
	for key := range expected {
		c.insert(key)
		p.op()
	}
	for range w.ops {
		r := random(&c.random)
		if key := (r >> 8) % keys; r%10 < 7 {
			c.get(key)
		} else {
			c.put(key)
		}
		p.op()
	}
	return c.sum*31 + c.nentries
}
