package nst

import (
	"fmt"
	"sort"

	"github.com/dustin/go-humanize"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// situation is all that a plan is made by.
type situation struct {
	workers  []*tiling.Worker // of which the devices and networks count
	free     map[torch.Device]int64
	limited  bool // the free memory is by a limit, which is to be kept
	tile     Tile
	schedule []scale
	pictures int64 // made at once
	double   bool  // in float64
	spec     *objective.Spec
	descent  descent.Settings // without Memory
	still    bool             // no step is made
	styles   int64            // what every device holds of the styles, in bytes
}

// plan is how the memory is used: decided for the result's size, which is the largest.
type plan struct {
	primary   torch.Device      // where the pictures are
	size      tiling.Size       // of tiles
	recompute bool              // the content's features
	keep      torch.KeptWeights // of the networks' weights, transformed
	passes    int               // that each worker keeps
	memory    descent.Memory    // that L-BFGS remembers its steps in
	warning   string
}

// comfortable is the side of a tile from which on its halo costs little.
const comfortable = 384

// bytes is what a picture of the scale takes.
func (at scale) bytes(double bool) int64 {
	n := 3 * int64(at.width) * int64(at.height) * 4
	if double {
		n *= 2
	}
	return n
}

// plan makes the plan. It changes nothing: the same situation, its networks set up as they
// are, makes the same plan.
func (s situation) plan() plan {
	at := s.schedule[len(s.schedule)-1]
	pictures := s.pictures * at.bytes(s.double)
	p := plan{primary: s.workers[0].Device(), passes: 1}
	free := map[torch.Device]int64{}
	for device, bytes := range s.free {
		free[device] = bytes - s.styles
	}
	held := int64(0) // times the pictures' memory
	if p.memory, held = s.state(p.primary); p.primary != torch.CPU && held*pictures > free[p.primary]*3/4 {
		p.primary = torch.CPU
		p.memory, held = s.state(p.primary)
	}
	if free[p.primary] -= held * pictures; free[p.primary] < 0 && s.tile != TileOff {
		p.warning = fmt.Sprintf("there is memory for the smallest tiles alone, which take long: the picture and "+
			"%s's state take %s", s.descent.Method, humanize.IBytes(uint64(held*pictures)))
	}
	if s.tile == TileOff {
		return p
	}
	s.free = free
	if p.size.Side = s.tile.side(); p.size.Side > 0 {
		return s.keepMore(p)
	}
	p.size = s.largest(at, p)
	// To transform the weights, or compute the content's features, each time costs a fifth
	// more time: smaller tiles cost it only when they are small.
	for _, change := range []func(*plan){
		func(p *plan) { p.keep = torch.KeepNone },
		func(p *plan) { p.recompute = true },
	} {
		if p.size.Side == 0 || p.size.Side >= comfortable {
			break
		}
		other := p
		change(&other)
		other.size = s.largest(at, other)
		if other.size.Side == 0 || other.size.Side > p.size.Side || !s.fits(at, p) {
			p = other
		}
	}
	if p.warning == "" && !s.fits(at, p) {
		p.warning = "there may be memory for the smallest tiles alone, which take long: more memory, or a smaller " +
			"size, will do better"
	}
	return s.keepMore(p)
}

// state is what L-BFGS may remember its steps in where the pictures are on a device, and
// how many times the pictures' memory the descent then holds.
func (s situation) state(primary torch.Device) (m descent.Memory, held int64) {
	at := s.schedule[len(s.schedule)-1]
	m = descent.Memory{Bytes: 512 << 20, Least: 5}
	if primary != torch.CPU { // what there is room for: it is its own memory
		m.Bytes = max(m.Bytes, s.free[primary]/3)
	}
	if s.limited { // a third of it
		m.Bytes = min(max(m.Bytes, m.Least*2*s.pictures*at.bytes(s.double)), s.free[primary]/3)
		m.Least = 1
	}
	if s.spec.Delta > 0 {
		held = 4 // what a frame is held to, its weights, and the differences
	}
	if s.still {
		return m, held + 2 // the pictures and their gradient
	}
	settings := s.descent
	settings.Memory = m
	return m, held + settings.Held(primary, s.pictures*at.bytes(false))
}

// keepMore has the networks keep all that they make of their weights, and workers the
// passes of as many tiles as they can, if there is more than one tile and memory for it:
// what is not kept is computed twice.
func (s situation) keepMore(p plan) plan {
	tiles := 1
	for _, at := range s.schedule {
		tiles = max(tiles, len(s.spec.Cut(at.width, at.height, p.size)))
	}
	if tiles == 1 {
		return p
	}
	fits := func(p plan) bool {
		for _, at := range s.schedule {
			if !s.fits(at, p) {
				return false
			}
		}
		return true
	}
	kept := p
	if kept.keep = torch.KeepAll; fits(kept) {
		p = kept
	}
	if !p.recompute { // that computes the content's features when there is one pass
		p.passes = max(1, sort.Search(tiles, func(n int) bool {
			more := p
			more.passes = n + 1
			return !fits(more)
		}))
	}
	return p
}

// fits says whether every worker has memory for a scale, as planned.
func (s situation) fits(at scale, p plan) bool {
	tiles := s.spec.Cut(at.width, at.height, p.size)
	kinds := map[tiling.Tile]tiling.Tile{} // most tiles are alike
	for _, t := range tiles {
		h, w := t.Seen.Bottom-t.Seen.Top, t.Seen.Right-t.Seen.Left
		kinds[tiling.Tile{Own: t.Local(), Seen: vgg19.Window{Bottom: h, Right: w}}] = t
	}
	need := map[torch.Device]int64{}
	for i, w := range s.workers[:min(len(s.workers), len(tiles))] {
		var largest vgg19.Need
		for _, t := range kinds {
			if w.Device() != torch.CPU && mapValues(t)*s.pictures >= mostValues {
				return false
			}
			n := s.spec.Memory(w.Network, t, at.width, at.height, int(s.pictures), p.recompute, p.keep)
			largest = vgg19.Need{Most: max(largest.Most, n.Most), Pass: max(largest.Pass, n.Pass),
				Weights: max(largest.Weights, n.Weights)}
		}
		// the estimate is within 15 %, and low as a rule
		need[w.Device()] += (largest.Most + int64(min(p.passes, len(tiles))-1)*largest.Pass) * 109 / 100
		if i == 0 || w.Network != s.workers[i-1].Network {
			need[w.Device()] += largest.Weights
		}
	}
	if !p.recompute {
		need[p.primary] += s.spec.ContentMemory(s.workers[0].Network, at.width, at.height, int(s.pictures))
	}
	for device, bytes := range need {
		if bytes > s.free[device] {
			return false
		}
	}
	return true
}

// mostValues is how many values a map may not have on an accelerator, whose kernels
// count in 32 bits.
const mostValues = 1 << 31

// mapValues is how many a tile's largest map has, conv1_1's.
func mapValues(t tiling.Tile) int64 {
	return int64(vgg19.Layers[0].Channels) * int64(t.Seen.Bottom-t.Seen.Top) * int64(t.Seen.Right-t.Seen.Left)
}

// largest is the size of the largest tiles that every worker has memory for: the whole
// picture, or a band of it for each of several devices, if that will do; the smallest
// ones if there is memory for none. Workers on one device gain nothing from bands: what
// does for the whole gets all their threads.
func (s situation) largest(at scale, p plan) tiling.Size {
	stride := s.spec.Deepest().Stride
	all := longest(at.width, at.height) / stride
	devices := map[torch.Device]bool{}
	for _, w := range s.workers {
		devices[w.Device()] = true
	}
	p.size = tiling.Size{}
	if n := len(s.workers); len(devices) > 1 {
		p.size.Band = max(1, (all+n-1)/n) * stride
	}
	if s.fits(at, p) {
		return p.size
	}
	for side := all * stride; side > stride; side -= stride {
		if p.size.Side = side; s.fits(at, p) {
			return p.size
		}
	}
	p.size.Side = stride
	return p.size
}
