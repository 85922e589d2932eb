package nst

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

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
	styles   []objective.Dimensions
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

// comfortable is the side of a tile from which on its halo costs little; below slow, the network
// sees four times the picture's pixels and more.
const comfortable, slow = 384, 128

// enough is the side of a tile for which nothing else is given up: see plan.
const enough = 256

// bytes is what a picture of the scale takes.
func (at scale) bytes(double bool) int64 {
	n := 3 * int64(at.width) * int64(at.height) * 4
	if double {
		n *= 2
	}
	return n
}

// plan makes the plan. It changes nothing: the same situation, its networks set up as they
// are, makes the same plan, and with more memory one of no more tiles.
func (s situation) plan() plan {
	at := s.schedule[len(s.schedule)-1]
	device := s.workers[0].Device()
	p := s.planOn(device, at.longest(), fewSteps)
	// Where that makes small tiles, L-BFGS remembers fewer steps; then the pictures, and what it
	// remembers, are the host's, which takes time of its own. Tiles gain little by being larger than
	// enough, and so are not: with more memory there would be more of them.
	if !s.enough(p) {
		p = s.planOn(device, enough, s.leastSteps())
		if device != torch.CPU && !s.enough(p) {
			if onHost := s.planOn(torch.CPU, enough, s.leastSteps()); s.fits(at, onHost) {
				p = onHost
			}
		}
	}
	if s.tile == TileOff {
		return s.rememberMore(p)
	}
	if s.tile.side() > 0 {
		if state := s.state(p); state > s.free[p.primary]-s.styleMemory() {
			p.warning = fmt.Sprintf("the picture and %s's state take %s, more than there is", s.descent.Method,
				humanize.IBytes(uint64(state)))
		}
		return s.keepMore(s.rememberMore(p))
	}
	if fits := s.fits(at, p); !fits || p.size.Side > 0 && p.size.Side < slow {
		there := "there is"
		if !fits {
			there = "there may not even be"
		}
		p.warning = fmt.Sprintf("%s memory for tiles of %d pixels, which take long: more memory%s or a smaller size "+
			"will do better", there, p.size.Side, s.missing(at, p))
	}
	return s.keepMore(s.rememberMore(p))
}

// longest is the scale's longest side.
func (at scale) longest() int { return longest(at.width, at.height) }

// enough says whether a plan's tiles fit, and are large enough, or of the size that was asked for.
func (s situation) enough(p plan) bool {
	large := p.size.Side == 0 || p.size.Side >= enough || p.size.Side == s.tile.side()
	return large && s.fits(s.schedule[len(s.schedule)-1], p)
}

// planOn is the plan of the largest tiles, up to a side, where the pictures are on a device and
// L-BFGS remembers so many steps.
func (s situation) planOn(primary torch.Device, side, steps int) plan {
	at := s.schedule[len(s.schedule)-1]
	p := plan{primary: primary, passes: 1, memory: s.remembers(steps)}
	if s.tile == TileOff {
		return p
	}
	if p.size.Side = s.tile.side(); p.size.Side > 0 {
		return p
	}
	p.size = s.largest(at, p, side)
	// To transform the weights, or compute the content's features, each time costs a fifth
	// more time: smaller tiles cost it only when they are small, but one is better than two.
	for _, change := range []func(*plan){
		func(p *plan) { p.keep = torch.KeepNone },
		func(p *plan) { p.recompute = true },
	} {
		if p.size.Side == 0 {
			break
		}
		other := p
		change(&other)
		other.size = s.largest(at, other, side)
		if other.size.Side > comfortable {
			other.size.Side = comfortable
		}
		if other.size.Side == 0 || other.size.Side > p.size.Side || !s.fits(at, p) {
			p = other
		}
	}
	return p
}

// remembers is the memory of so many steps.
func (s situation) remembers(steps int) descent.Memory { return descent.Memory{Least: int64(steps)} }

// fewSteps is how many steps L-BFGS remembers before anything else is given memory.
const fewSteps = 5

// leastSteps is how many it remembers where tiles would be small otherwise: as many as take 64 MiB,
// which is a small part of what a tile takes.
func (s situation) leastSteps() int {
	const bytes = 64 << 20
	return int(min(fewSteps, max(1, bytes/(2*s.result(false)))))
}

// rememberMore has L-BFGS remember more steps, if that leaves the tiles as they are, and takes no
// more than a third of what there is: on the CPU, where that is all of the machine's, 512 MiB, but
// for a few steps.
func (s situation) rememberMore(p plan) plan {
	at := s.schedule[len(s.schedule)-1]
	most := s.free[p.primary] / 3
	if p.primary == torch.CPU && !s.limited {
		most = max(512<<20, fewSteps*2*s.result(false))
	}
	for steps := int(p.memory.Least) + 1; steps <= descent.History; steps++ {
		more := p
		more.memory = s.remembers(steps)
		if int64(steps)*2*s.result(false) > most || !s.fits(at, more) {
			break
		}
		p = more
	}
	return p
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

// fits says whether every device has what a scale needs of it, and can count its maps.
func (s situation) fits(at scale, p plan) bool {
	tiles := s.spec.Cut(at.width, at.height, p.size)
	onGPU := slices.ContainsFunc(s.workers, func(w *tiling.Worker) bool { return w.Device() != torch.CPU })
	uncountable := func(t tiling.Tile) bool { return mapValues(t)*s.pictures >= mostValues }
	if onGPU && slices.ContainsFunc(tiles, uncountable) {
		return false
	}
	lack, _ := s.lacks(at, tiles, p)
	return lack <= 0
}

// lacks is how many bytes more a scale needs than there are, on the device that has the least
// for it; none where it is not above 0.
func (s situation) lacks(at scale, tiles []tiling.Tile, p plan) (most int64, of torch.Device) {
	for device, bytes := range s.needs(at, tiles, p) {
		if lack := bytes - s.free[device]; of == "" || lack > most {
			most, of = lack, device
		}
	}
	return most, of
}

// missing says about how much more memory tiles of a comfortable side need, all that can be saved
// being saved.
func (s situation) missing(at scale, p plan) string {
	p.size.Side, p.recompute, p.keep, p.memory = comfortable, true, torch.KeepNone, s.remembers(fewSteps)
	tiles := s.spec.Cut(at.width, at.height, p.size)
	free := s.free
	for s.free = maps.Clone(free); ; {
		lack, of := s.lacks(at, tiles, p)
		if lack <= 0 {
			break
		}
		s.free[of] += lack
	}
	var parts []string
	for _, device := range slices.Sorted(maps.Keys(s.free)) {
		if more := s.free[device] - free[device]; more > 0 {
			parts = append(parts, fmt.Sprintf("%d MiB on %s", more>>20+1, device))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (about " + strings.Join(parts, ", ") + ")"
}

// mostValues is how many values a map may not have on an accelerator, whose kernels
// count in 32 bits.
const mostValues = 1 << 31

// mapValues is how many a tile's largest map has, conv1_1's.
func mapValues(t tiling.Tile) int64 {
	return int64(vgg19.Layers[0].Channels) * int64(t.Seen.Bottom-t.Seen.Top) * int64(t.Seen.Right-t.Seen.Left)
}

// largest is the size of the largest tiles, up to a side, that every worker has memory for: the whole
// picture, or a band of it for each of several devices, if that will do; the smallest
// ones if there is memory for none. Workers on one device gain nothing from bands: what
// does for the whole gets all their threads.
func (s situation) largest(at scale, p plan, side int) tiling.Size {
	stride := s.spec.Deepest().Stride
	all := at.longest() / stride
	devices := map[torch.Device]bool{}
	for _, w := range s.workers {
		devices[w.Device()] = true
	}
	p.size = tiling.Size{}
	if n := len(s.workers); len(devices) > 1 {
		p.size.Band = max(1, (all+n-1)/n) * stride
	}
	if side >= at.longest() && s.fits(at, p) {
		return p.size
	}
	// The larger a tile is, the more it takes.
	most := min(all, side/stride)
	p.size.Side = stride * max(1, sort.Search(most, func(n int) bool {
		p.size.Side = stride * (n + 1)
		return !s.fits(at, p)
	}))
	return p.size
}
