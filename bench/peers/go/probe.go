package main

import (
	"math/bits"
	"time"
)

// The buckets of bench/hdr.h: three significant digits, the largest value exact.
const (
	subLog2 = 11
	sub     = 1 << subLog2
	half    = sub / 2
	topLog2 = 40
	nbucket = sub + (topLog2-subLog2)*half
	stepOps = 64
)

// What a thread felt: the time between two of its operations. One probe has one goroutine.
type probe struct {
	last   time.Time
	steps  uint64
	worst  uint64
	total  uint64
	counts []uint64
}

func newProbe() *probe {
	p := &probe{counts: make([]uint64, nbucket)}
	for i := range p.counts {
		p.counts[i] = 0
	}
	return p
}

func index(v uint64) int {
	if v < sub {
		return int(v)
	}
	shift := bits.Len64(v) - subLog2
	return sub + (shift-1)*half + int(v>>shift) - half
}

func highest(index int) uint64 {
	if index < sub {
		return uint64(index)
	}
	shift := (index-sub)/half + 1
	return (uint64((index-sub)%half+half)+1)<<shift - 1
}

func (p *probe) start() { p.last = time.Now() }

func (p *probe) op() {
	now := time.Now()
	ns := uint64(now.Sub(p.last))
	p.last = now
	p.counts[index(min(ns, 1<<topLog2-1))]++
	p.total++
	p.worst = max(p.worst, ns)
}

// Operations too short to be timed one by one: each 64th is.
func (p *probe) step() {
	if p.steps++; p.steps%stepOps == 0 {
		p.op()
	}
}

func (p *probe) merge(from *probe) {
	for i, n := range from.counts {
		p.counts[i] += n
	}
	p.total += from.total
	p.worst = max(p.worst, from.worst)
}

func (p *probe) percentile(percent float64) uint64 {
	below, wanted := uint64(0), percent/100*float64(p.total)
	for i, n := range p.counts {
		if below += n; below > 0 && float64(below) >= wanted {
			return min(highest(i), p.worst)
		}
	}
	return p.worst
}
