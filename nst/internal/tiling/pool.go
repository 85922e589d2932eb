package tiling

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Worker is a device with the network on it. All its work runs on its thread.
type Worker struct {
	Thread  *torch.Thread
	Network *vgg19.Network
	// Threads is how many of the processor's cores it uses for a tile, where it is one
	// of several workers on the CPU; 0: all.
	Threads int

	kept []keptPass
	lost bool // it failed, and is not used any more
}

// keptPass is the forward pass of a tile, to go back through later.
type keptPass struct {
	tile int
	pass *vgg19.Pass
}

// Device is the worker's device.
func (w *Worker) Device() torch.Device { return w.Thread.Device() }

// Revive has a worker that failed used again.
func (w *Worker) Revive() { w.lost = false }

// Keep takes over the pass of tile i, for Take.
func (w *Worker) Keep(i int, pass *vgg19.Pass) { w.kept = append(w.kept, keptPass{i, pass}) }

// Take gives away the pass that is kept of tile i, or nil.
func (w *Worker) Take(i int) *vgg19.Pass {
	for k, found := range w.kept {
		if found.tile == i {
			w.kept = slices.Delete(w.kept, k, k+1)
			return found.pass
		}
	}
	return nil
}

// Drop closes the passes that are kept, except the first few.
func (w *Worker) Drop(except int) {
	for len(w.kept) > except {
		w.kept[len(w.kept)-1].pass.Close()
		w.kept = w.kept[:len(w.kept)-1]
	}
}

// Pool is the workers that share a picture's tiles, and how the memory is used that
// they have. It is used on the first worker's thread.
type Pool struct {
	Workers []*Worker
	// Context ends the work between tiles.
	Context context.Context
	// Primary is the device of the pictures and of the sums over tiles: the first
	// worker's, or the CPU.
	Primary torch.Device
	// Fixed says that the tiles' size may not change.
	Fixed bool
	// Size is the tiles' size.
	Size Size
	// Passes is how many passes a worker may keep at once.
	Passes int
	// Recompute says that the content's features are computed for each evaluation, not
	// kept.
	Recompute bool
	// Warn is told what the work goes on in spite of.
	Warn func(string)
	// OnTile, if it is there, is told after each tile how many are done.
	OnTile func(done, all int)
}

// DropPasses closes all passes that the workers have kept.
func (p *Pool) DropPasses() {
	for _, w := range p.Workers {
		w.Drop(0)
	}
}

// WithinMemory calls do. As long as there is not enough memory it calls it again: as it was, with
// what the devices' caches had; then with smaller tiles of a picture of width×height. It fails when
// tiles are as small as the deepest layer's stride.
func (p *Pool) WithinMemory(width, height int, deepest vgg19.Layer, do func() error) error {
	for again := true; ; {
		err := do()
		side := max(width, height)
		if p.Size.Side > 0 {
			side = min(side, p.Size.Side)
		}
		switch {
		case !errors.Is(err, torch.ErrOutOfMemory):
			return err
		case again:
			again = false
		case p.Passes > 1:
			p.Passes = 1
			p.Warn("there is not enough memory: what was computed of a tile is not kept until it is needed again")
		case p.Fixed || side < 2*deepest.Stride:
			return err
		default:
			p.Size.Side = max(deepest.Stride, side/2/deepest.Stride*deepest.Stride)
			p.Warn(fmt.Sprintf("there is not enough memory: going on with tiles of %d pixels", p.Size.Side))
		}
		for _, w := range p.Workers {
			if w.lost {
				continue
			}
			if err := torch.EmptyCache(w.Device()); err != nil {
				return err
			}
		}
	}
}
