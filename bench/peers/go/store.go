package main

// A window of messages of 1 KB in a ring; each push replaces the oldest (bench/work_store.c).

const messageBytes = 1024

// fill sets every byte, by the doubling copies that bytes.Repeat makes.
func fill(b []byte, value byte) {
	b[0] = value
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

func runStore(w *work) uint64 {
	window := w.count
	if window == 0 {
		window = 200000
	}
	ring := make([][]byte, window)
	p := w.probes[0]
	p.start()
	for i := range w.ops {
		message := make([]byte, messageBytes)
		fill(message, byte(i))
		ring[i%window] = message
		p.op()
	}
	first, sum := uint64(0), uint64(0)
	if w.ops > window {
		first = w.ops - window
	}
	for i := first; i < w.ops; i++ {
		got := uint64(0)
		for _, b := range ring[i%window] {
			got += uint64(b)
		}
		if got != (i&0xff)*messageBytes {
			damaged("a message")
		}
		sum = sum*31 + got
	}
	return sum
}
