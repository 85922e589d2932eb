package nst

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"

	"github.com/dustin/go-humanize"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Tile is how a picture is divided to be evaluated: TileAuto, TileOff, or the side
// of a tile in pixels, such as "512". However it is divided, the costs and the
// gradient are those of the whole picture. Smaller tiles take more time and can do
// with less memory, as long as they are not mostly halo. What memory there is, or
// MemoryLimit allows, is used to keep what was computed of tiles until it is needed
// again.
type Tile string

const (
	// TileAuto takes the whole picture if it fits the memory, else the largest
	// tiles that do. Memory that runs out all the same halves them.
	TileAuto Tile = "auto"
	// TileOff takes the whole picture, whatever comes.
	TileOff Tile = "off"
)

// Bytes is an amount of memory. As text it is such as "2G" or "1500M": K, M, G and
// T are powers of 1024.
type Bytes int64

// MarshalText writes a number that UnmarshalText reads.
func (b Bytes) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(b), 10), nil }

// UnmarshalText reads "2G", "2GiB" or "2147483648".
func (b *Bytes) UnmarshalText(text []byte) error {
	t := string(text)
	if n := len(t); n > 1 && (t[n-1]|0x20) != 'b' && (t[n-1] < '0' || t[n-1] > '9') {
		t += "iB"
	}
	v, err := humanize.ParseBytes(t)
	if err != nil || v > 1<<50 {
		return fmt.Errorf("%q is no amount of memory; 2G or 1500M is", text)
	}
	*b = Bytes(v)
	return nil
}

// UnmarshalJSON reads a number of bytes, or UnmarshalText's text.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	return b.UnmarshalText(bytes.Trim(data, `"`))
}

// tileSide is the side that Tile names; 0 for the words.
func (s *settings) tileSide() int {
	n, _ := strconv.Atoi(string(s.Tile))
	return n
}

func (s *settings) checkTile() error {
	if s.Tile = either(s.Tile, TileAuto); s.Tile != TileAuto && s.Tile != TileOff {
		if n, err := strconv.Atoi(string(s.Tile)); err != nil || n < 16 {
			return invalid("Tile", "is %q; auto, off or a side of 16 pixels and more will do", s.Tile)
		}
	}
	if s.MemoryLimit < 0 {
		return invalid("MemoryLimit", "is %d; a number of bytes, or 0, will do", s.MemoryLimit)
	}
	return nil
}

// plan decides for the result's size, which is the largest, where pictures are, how
// they are cut, what is kept, and how many steps L-BFGS remembers.
func (t *transfer) plan() error {
	s, f := t.settings, t.farm
	at := t.schedule[len(t.schedule)-1]
	f.home, f.fixed = f.workers[0].device(), s.Tile == TileOff
	pictures := int64(len(t.members)) * 3 * int64(at.width) * int64(at.height) * map[torch.ScalarType]int64{torch.Float32: 4, torch.Float64: 8}[s.Precision.scalar()]
	free := map[torch.Device]int64{}
	for _, device := range append(t.engine.Devices(), torch.CPU) {
		if _, known := free[device]; known {
			continue
		}
		bytes, err := t.free(device, pictures)
		if err != nil {
			return err
		}
		free[device] = bytes
	}
	t.memory = lbfgsMemory{bytes: 512 << 20, least: 5}
	if home := f.home; home != torch.CPU { // what there is room for: it is its own memory
		t.memory.bytes = max(t.memory.bytes, free[home]/3)
	}
	if s.MemoryLimit > 0 { // a third of it
		t.memory = lbfgsMemory{bytes: min(max(t.memory.bytes, t.memory.least*2*pictures), free[f.home]/3), least: 1}
	}
	state := int64(2) // x and its gradient
	switch {
	case s.iterations == 0:
	case s.Optimizer == Adam:
		state += 4 // the best, m, v and the average
	default:
		if f.home != torch.CPU {
			state += 3 // two pictures are preconditioned at once
		}
		state += 8 + 2*int64(t.memory.steps(int64(len(t.members))*3*int64(at.width)*int64(at.height)*4)) // the best, the last gradient and step, and while it makes one
	}
	if f.home != torch.CPU && state*pictures > free[f.home]*3/4 {
		f.home = torch.CPU
	}
	free[f.home] -= state * pictures
	if free[f.home] < 0 {
		f.warn(fmt.Sprintf("there is memory for the smallest tiles alone, which take long: the picture and %s's state take %s", s.Optimizer, humanize.IBytes(uint64(state*pictures))))
	}
	f.keep(false, 1)
	if s.Tile == TileOff {
		return nil
	}
	defer t.keep(free)
	if f.size.side = s.tileSide(); f.size.side == 0 {
		f.size = t.largest(at, free, false)
		// To compute the content's features anew costs a fifth more time: smaller
		// tiles cost it only when they are small.
		if f.size.side > 0 && f.size.side < comfortable {
			if other := t.largest(at, free, true); other.side == 0 || other.side > f.size.side {
				f.size, f.forget = other, true
			}
		}
	}
	return nil
}

// comfortable is the side of a tile from which on its halo costs little.
const comfortable = 384

// free is how much of a device's memory this process may still use.
func (t *transfer) free(device torch.Device, pictures int64) (int64, error) {
	if err := torch.EmptyCache(device); err != nil {
		return 0, err
	}
	m, err := torch.MemoryOf(device)
	if err != nil {
		return 0, err
	}
	limit := int64(t.settings.MemoryLimit)
	if device != torch.CPU {
		free := m.Free * 9 / 10
		if limit > 0 {
			free = min(free, limit-m.Allocated)
		}
		return free, nil
	}
	if limit == 0 || !slices.Contains(t.engine.Devices(), torch.CPU) {
		return m.Free * 8 / 10, nil
	}
	t.collect() // what decoding has left
	if m, err = torch.MemoryOf(device); err != nil {
		return 0, err
	}
	// Beside tensors there will be the result and pictures at their sizes.
	tensors, _ := torch.HostTensors()
	others := m.Allocated - tensors + pictures + t.resized() + hostReserve
	t.limitTensors(max(1<<20, limit-others))
	return limit - others - tensors, nil
}

// limitTensors is torch.LimitHostTensors on all of the engine's threads, of which this
// is the first.
func (t *transfer) limitTensors(bytes int64) {
	torch.LimitHostTensors(bytes)
	for _, w := range t.engine.workers[1:] {
		_ = w.thread.Do(context.Background(), func() error { torch.LimitHostTensors(bytes); return nil })
	}
}

// resized is what the pictures take that are used at another size than their own:
// the contents at a time, and the largest of the styles, which come before.
func (t *transfer) resized() int64 {
	at := t.schedule[len(t.schedule)-1]
	bytes := func(p *picture.Picture, width, height int) int64 {
		if width == p.Width && height == p.Height {
			return 0
		}
		return 12 * int64(width) * int64(height)
	}
	var contents, style int64
	for _, m := range t.members {
		contents += bytes(m.content, at.width, at.height)
	}
	for _, p := range t.styles {
		width, height := t.settings.fitStyle(p, at.factor)
		style = max(style, bytes(p, width, height))
	}
	return max(contents, style)
}

// collect has what is no longer used given back, if there is a limit to keep to.
func (t *transfer) collect() {
	if t.settings.MemoryLimit > 0 {
		debug.FreeOSMemory()
	}
}

// hostReserve is what the host needs beside tensors and pictures: libraries that
// are not loaded yet, the kernels' own memory, and small tensors.
const hostReserve = 160 << 20

// keep has the networks keep what they make of their weights, and workers the passes
// of as many tiles as they can, if there is more than one tile and memory for it:
// what is not kept is computed twice.
func (t *transfer) keep(free map[torch.Device]int64) {
	tiles := 1
	var scales []*evaluator
	for _, at := range t.schedule {
		e := newEvaluator(t.farm, t.settings, at.width, at.height)
		tiles = max(tiles, len(cut(at.width, at.height, t.farm.size, deepest(e.layers))))
		scales = append(scales, e)
	}
	if tiles == 1 {
		return
	}
	fits := func(passes int) bool {
		return !slices.ContainsFunc(scales, func(e *evaluator) bool { return !t.fits(e, t.farm.size, passes, free, t.farm.forget) })
	}
	t.farm.keep(true, 1) // of which fits takes account
	t.farm.keep(fits(1), 1)
	if !t.farm.forget { // that computes the content's features at a time when there is one pass
		t.farm.passes = max(1, sort.Search(tiles, func(n int) bool { return !fits(n + 1) }))
	}
}

func (f *farm) keep(weights bool, passes int) {
	f.passes = passes
	for _, w := range f.workers {
		w.network.SetKeep(weights)
	}
}

// fits says whether every worker has memory for tiles of a size, of which it keeps
// the passes of so many at once.
func (t *transfer) fits(e *evaluator, size size, passes int, free map[torch.Device]int64, forget bool) bool {
	tiles := cut(e.width, e.height, size, deepest(e.layers))
	need := map[torch.Device]int64{}
	for i, w := range t.farm.workers[:min(len(t.farm.workers), len(tiles))] {
		var largest vgg19.Need
		for _, part := range tiles {
			if w.device() != torch.CPU && part.values()*int64(len(t.members)) >= mostValues {
				return false
			}
			n := e.memory(w.network, part, len(t.members), forget)
			largest = vgg19.Need{Most: max(largest.Most, n.Most), Pass: max(largest.Pass, n.Pass), Weights: max(largest.Weights, n.Weights)}
		}
		need[w.device()] += (largest.Most + int64(min(passes, len(tiles))-1)*largest.Pass) * 109 / 100 // the estimate is within 15 %, and low as a rule
		if i == 0 || w.network != t.farm.workers[i-1].network {
			need[w.device()] += largest.Weights
		}
	}
	if !forget {
		for _, c := range e.content {
			need[t.farm.home] += int64(c.values) * int64(len(t.members)) * 4
		}
	}
	for device, bytes := range need {
		if bytes > free[device] {
			return false
		}
	}
	return true
}

// mostValues is how many values a map may not have on an accelerator, whose kernels
// count in 32 bits.
const mostValues = 1 << 31

// values is how many a tile's largest map has, conv1_1's.
func (t tile) values() int64 {
	return int64(vgg19.Layers[0].Channels) * int64(t.seen.Bottom-t.seen.Top) * int64(t.seen.Right-t.seen.Left)
}

// largest is the size of the largest tiles that every worker has memory for: the
// whole picture, or a band of it for each of several devices, if that will do; the
// smallest ones if there is memory for none. Workers on one device gain nothing from
// bands: what does for the whole gets all their threads.
func (t *transfer) largest(at scale, free map[torch.Device]int64, forget bool) size {
	e := newEvaluator(t.farm, t.settings, at.width, at.height)
	fits := func(size size) bool { return t.fits(e, size, 1, free, forget) }
	stride := deepest(e.layers).Stride
	all := longest(at.width, at.height) / stride
	var out size
	devices := map[torch.Device]bool{}
	for _, w := range t.farm.workers {
		devices[w.device()] = true
	}
	if n := len(t.farm.workers); len(devices) > 1 {
		out.band = max(1, (all+n-1)/n) * stride
	}
	if fits(out) {
		return out
	}
	for side := all * stride; side > stride; side -= stride {
		if out.side = side; fits(out) {
			return out
		}
	}
	out.side = stride
	return out
}

// memory is what a tile needs.
func (e *evaluator) memory(network *vgg19.Network, t tile, pictures int, forget bool) vgg19.Need {
	height, width := t.seen.Bottom-t.seen.Top, t.seen.Right-t.seen.Left
	need := network.Memory(t.local(), height, width, e.layers, pictures, true)
	if forget && len(e.content) > 0 {
		need.Most = max(need.Most, network.Memory(t.local(), height, width, e.contentLayers(), pictures, false).Most)
		for _, c := range e.content { // at the tile's positions
			need.Most += int64(c.values*float64((t.own.Bottom-t.own.Top)*(t.own.Right-t.own.Left))/float64(e.width*e.height)) * int64(pictures) * 4
		}
	}
	return need
}
