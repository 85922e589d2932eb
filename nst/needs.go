package nst

import (
	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// needs is what a scale, cut into tiles, needs of each device, as planned.
func (s situation) needs(at scale, tiles []tiling.Tile, p plan) map[torch.Device]int64 {
	styles := s.styleMemory()
	need := map[torch.Device]int64{p.primary: styles + s.state(p)}
	for i, w := range s.workers[:min(len(s.workers), len(tiles))] {
		if _, there := need[w.Device()]; !there {
			need[w.Device()] = styles
		}
		most, weights := s.working(w.Network, at, tiles, p)
		need[w.Device()] += most * 109 / 100 // what is small, and not counted
		if w.Device() != torch.CPU {
			need[w.Device()] += workspace
		}
		if i == 0 || w.Network != s.workers[i-1].Network {
			need[w.Device()] += weights
		}
	}
	if !p.recompute {
		need[p.primary] += s.spec.ContentMemory(s.job(s.workers[0].Network, at, p))
	}
	return need
}

// workspace is what a GPU's library may take beside a convolution's maps: libtorch
// caps it for none, cuDNN's implicit kernels need little, and what is not there it
// does without. An estimate.
const workspace = 64 << 20

// working is what a worker needs at most while it works on tiles, and what its network keeps
// of its weights.
func (s situation) working(network *vgg19.Network, at scale, tiles []tiling.Tile, p plan) (most, weights int64) {
	var pass int64
	j := s.job(network, at, p)
	for _, j.Tile = range kindsOf(tiles) {
		need := s.spec.Memory(j)
		most, pass, weights = max(most, need.Most), max(pass, need.Pass), max(weights, need.Weights)
	}
	kept := int64(min(p.passes, len(tiles)) - 1)
	return max(most+kept*pass, s.measuring(network, p)), weights
}

// job is what memory is estimated for at a scale, but for the tile.
func (s situation) job(network *vgg19.Network, at scale, p plan) objective.Job {
	return objective.Job{Network: network, Width: at.width, Height: at.height, Pictures: int(s.pictures),
		Styles: s.styles, Remembered: min(len(s.styles)*len(s.schedule), max(len(s.styles), cachedStyles)),
		Recompute: p.recompute, Keep: p.keep}
}

// styleMemory is what every device holds of the styles, at the result's size.
func (s situation) styleMemory() int64 {
	return s.spec.StyleMemory(s.job(s.workers[0].Network, s.schedule[len(s.schedule)-1], plan{}))
}

// measuring is what a worker needs for the largest of the styles.
func (s situation) measuring(network *vgg19.Network, p plan) (most int64) {
	var largest objective.Dimensions
	for _, of := range s.styles {
		if of.Width*of.Height > largest.Width*largest.Height {
			largest = of
		}
	}
	layers := s.spec.StyleLayers()
	if len(layers) == 0 || largest.Width == 0 {
		return 0
	}
	j := objective.Job{Network: network, Width: largest.Width, Height: largest.Height, Pictures: 1, Keep: p.keep}
	tiles := tiling.Cut(j.Width, j.Height, p.size, vgg19.Deepest(layers), torch.Wrap{})
	for _, j.Tile = range kindsOf(tiles) {
		most = max(most, s.spec.MeasuringMemory(j))
	}
	return most
}

// kindsOf are tiles of which no two are alike: most are.
func kindsOf(tiles []tiling.Tile) (out []tiling.Tile) {
	seen := map[tiling.Tile]bool{}
	for _, t := range tiles {
		h, w := t.Seen.Bottom-t.Seen.Top, t.Seen.Right-t.Seen.Left
		kind := tiling.Tile{Own: t.Local(), Seen: vgg19.Window{Bottom: h, Right: w}}
		if !seen[kind] {
			seen[kind], out = true, append(out, t)
		}
	}
	return out
}

// result is what the pictures take at the result's size.
func (s situation) result(double bool) int64 {
	return s.pictures * s.schedule[len(s.schedule)-1].bytes(double)
}

// state is what the descent holds as planned, at the result's size.
func (s situation) state(p plan) int64 {
	held := int64(2) // times the pictures: they and their gradient
	if !s.still {
		settings := s.descent
		settings.Memory = p.memory
		held = settings.Held(p.primary, s.result(false))
	}
	if s.spec.Delta > 0 {
		held += 3 // what a frame is held to, its weights, and the differences
	}
	return held * s.result(s.double)
}
