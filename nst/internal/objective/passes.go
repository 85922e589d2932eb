package objective

import (
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// run runs the network over what tile i sees of the pictures, unless the worker has kept
// that pass. The caller closes or keeps it.
func (e *Evaluator) run(w *tiling.Worker, x torch.Tensor, i int) *vgg19.Pass {
	if pass := w.Take(i); pass != nil {
		return pass
	}
	w.Drop(max(0, e.pool.Passes-1))
	t := e.tiles[i]
	return w.Network.Run(torch.To(t.Seen.Of(x), w.Device()), t.Local(), e.layers, true)
}

// regionSums are the sums of the summed terms' regions.
type regionSums map[*region]Statistics

// EachTensor implements tiling.Part.
func (s regionSums) EachTensor(do func(*torch.Tensor)) {
	for _, of := range s {
		of.EachTensor(do)
	}
}

// sumUp is phase 1: the sums of the summed terms' regions, of the caller's scope.
func (e *Evaluator) sumUp(x torch.Tensor) (regionSums, error) {
	sums := regionSums{}
	if len(e.summed) == 0 { // nothing is summed
		return sums, nil
	}
	for _, t := range e.summed {
		for _, r := range t.regions {
			sums[r] = Statistics{}
		}
	}
	err := tiling.MapReduce(e.pool, len(e.tiles), func(w *tiling.Worker, i int) regionSums {
		pass := e.run(w, x, i)
		w.Keep(i, pass)
		part := regionSums{}
		for _, t := range e.summed {
			for _, r := range t.regions {
				part[r] = tileSums(t.loss, pass, t.layer, e.tiles[i], r.guide, e.width, e.height, w.Device())
			}
		}
		return part
	}, func(i int, part regionSums) {
		for _, t := range e.summed {
			for _, r := range t.regions {
				gather(sums[r], part[r], placeOf(e.tiles[i], t.layer, e.width, e.height))
			}
		}
	})
	sums.EachTensor(func(t *torch.Tensor) { torch.Rejoin(*t) })
	return sums, err
}

// tileSums are a layer's sums over a tile's positions, for a picture of width×height.
func tileSums(loss Loss, pass *vgg19.Pass, l vgg19.Layer, tile tiling.Tile, guide torch.Tensor, width, height int,
	device torch.Device) Statistics {
	return local(func() Statistics {
		return loss.Sums(featuresOf(pass.Feature(l), l, tile, guide, width, height, device))
	})
}

// featuresOf are a layer's feature maps at a tile's positions with the tile's part of
// the guide.
func featuresOf(maps torch.Tensor, l vgg19.Layer, tile tiling.Tile, guide torch.Tensor, width, height int,
	device torch.Device) Features {
	f := Features{F: matrix(maps), At: placeOf(tile, l, width, height), Uniform: 1 / positions(l, width, height)}
	if guide.T != nil {
		part := tile.Own.Positions(guide, l.Stride).Of(guide)
		f.Guide = torch.To(torch.View(part, 1, torch.Count(part)), device)
	}
	return f
}

// gradientPart is what phase 3 makes of a tile.
type gradientPart struct {
	gradient torch.Tensor                // by the pixels that the tile sees
	norms    map[positional]torch.Tensor // of the differences; of one tile of several, squared
}

// EachTensor implements tiling.Part.
func (p *gradientPart) EachTensor(do func(*torch.Tensor)) {
	do(&p.gradient)
	eachTensor(p.norms, do)
}

// backPropagate is phase 3: the norms of the positional terms' differences, and the gradient
// of all terms.
func (e *Evaluator) backPropagate(x torch.Tensor, slopes map[*region]Slopes) (norms map[positional]torch.Tensor,
	gradient torch.Tensor, err error) {
	norms = map[positional]torch.Tensor{}
	one := len(e.tiles) == 1
	whole := one && e.tiles[0].Seen == vgg19.Whole(x) // what it sees is the pictures, each pixel once
	if !whole {
		gradient = torch.Scale(x, 0)
	}
	err = tiling.MapReduce(e.pool, len(e.tiles), func(w *tiling.Worker, i int) *gradientPart {
		// The content's features, if they are computed, come first, and free what they need.
		t := &tileGradient{evaluator: e, worker: w, tile: i, slopes: slopes, targets: e.contentFeatures(w, i),
			norms: map[positional]torch.Tensor{}}
		t.pass = e.run(w, x, i) // which Backward closes
		part := &gradientPart{gradient: t.pass.Backward(t.add), norms: t.norms}
		if !one { // tiles' squares can be added
			eachTensor(part.norms, func(n *torch.Tensor) { torch.MulInPlace(*n, *n) })
		}
		return part
	}, func(i int, part *gradientPart) {
		if whole {
			gradient, part.gradient = part.gradient, torch.Tensor{}
		} else {
			seen := e.tiles[i].Seen
			torch.AddAround(gradient, part.gradient, int64(seen.Top), int64(seen.Left))
		}
		addTensors(norms, part.norms)
	})
	if whole && gradient.T != nil {
		torch.Rejoin(gradient)
	}
	eachTensor(norms, func(n *torch.Tensor) {
		if torch.Rejoin(*n); !one {
			*n = torch.Pow(*n, 0.5)
		}
	})
	return norms, gradient, err
}

// tileGradient adds the terms' gradients on the way back through a tile's pass.
type tileGradient struct {
	evaluator *Evaluator
	worker    *tiling.Worker
	tile      int
	pass      *vgg19.Pass
	slopes    map[*region]Slopes
	targets   map[*contentTerm]torch.Tensor // the content's features
	norms     map[positional]torch.Tensor   // which it fills in
}

// add adds the gradients of layer l's costs by its features to the gradient that arrived
// from deeper layers (the zero Tensor: there is none).
func (t *tileGradient) add(l vgg19.Layer, arriving torch.Tensor) torch.Tensor {
	type adder func(maps, into torch.Tensor, fresh bool)
	var adders []adder
	e, device := t.evaluator, t.worker.Device()
	for _, term := range e.content {
		if term.layer == l {
			adders = append(adders, func(maps, into torch.Tensor, fresh bool) {
				alpha := e.opacityAt(l, t.worker, t.tile)
				e.addContentGradient(term, into, fresh, maps, t.targets[term], alpha, t.norms)
			})
		}
	}
	for _, term := range e.summed {
		if term.layer != l {
			continue
		}
		for _, r := range term.regions {
			adders = append(adders, func(maps, into torch.Tensor, fresh bool) {
				f := featuresOf(maps, l, e.tiles[t.tile], r.guide, e.width, e.height, device)
				term.loss.AddGradient(Gradient{matrix(into), fresh}, f,
					t.slopes[r].at(e.tiles[t.tile], l, device))
			})
		}
	}
	for _, n := range e.neighbourhoods {
		for _, term := range n.compared() {
			if term.layer == l {
				adders = append(adders, func(maps, into torch.Tensor, fresh bool) {
					term.addGradient(e, maps, into, fresh, e.tiles[t.tile], device, t.norms)
				})
			}
		}
	}
	if len(adders) == 0 { // a layer has lost all its regions
		return arriving
	}
	defer func() { // they were kept, and are the caller's scope's
		for term, norm := range t.norms {
			if term.at() == l {
				torch.Rejoin(norm)
			}
		}
	}()
	return torch.Local(func() torch.Tensor {
		maps, into, fresh := t.pass.Feature(l), arriving, arriving.T == nil
		if fresh {
			into = torch.EmptyLike(maps)
		}
		for _, add := range adders {
			torch.Within(func() { add(maps, into, fresh) })
			fresh = false
		}
		if into.T == arriving.T {
			into = torch.Slice(into, 0, 0, torch.Shape(into)[0]) // another handle, to be returned
		}
		return into
	})
}
