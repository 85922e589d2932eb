package objective

import (
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// StyleTargets are the statistics of one style picture, by layer and region. Whoever has
// them closes them.
type StyleTargets map[vgg19.Layer]map[Level]Statistics

// EachTensor implements tiling.Part.
func (t StyleTargets) EachTensor(do func(*torch.Tensor)) {
	for _, levels := range t {
		for _, s := range levels {
			s.EachTensor(do)
		}
	}
}

// Close frees the tensors.
func (t StyleTargets) Close() { t.EachTensor(func(s *torch.Tensor) { torch.Close(*s) }) }

// MeasureStyle finds the statistics of a style picture of width×height, tile by tile, at
// the spec's style layers. guides, which may be nil, has its regions.
func MeasureStyle(pool *tiling.Pool, spec *Spec, width, height int, source Source, guides Guides) (StyleTargets,
	error) {
	return measure(pool, spec.StyleLoss, spec.StyleLayers(), torch.Wrap{}, width, height, source, guides)
}

// addContent gives the evaluator the terms of ContentLoss.
func (e *Evaluator) addContent() error {
	of := e.spec.content()
	found, err := measure(e.pool, e.spec.ContentLoss, layersOf(of), e.spec.Wrap, e.width, e.height, e.source, nil)
	if err != nil {
		return err
	}
	defer found.Close()
	return torch.Scoped(func() error {
		torch.NoGrad(func() {
			for _, l := range of {
				t := &summedTerm{layer: l.Layer, weight: l.Weight, loss: e.spec.ContentLoss, content: true}
				e.summed = append(e.summed, t)
				target := Region{Layer: l.Layer, Share: 1, Target: found[l.Layer][0]}
				t.add(e.spec, target, contentMeanSquare, e.spec.Alpha)
			}
		})
		return nil
	})
}

// measure finds the statistics of pictures by a loss, at some layers.
func measure(pool *tiling.Pool, loss Loss, layers []vgg19.Layer, wrap torch.Wrap, width, height int, source Source,
	guides Guides) (found StyleTargets, err error) {
	made := false
	defer func() {
		if err != nil || !made {
			found.Close()
			found = nil
		}
	}()
	err = pool.WithinMemory(width, height, vgg19.Deepest(layers), func() error {
		found.Close()
		found = StyleTargets{}
		return torch.Scoped(func() (err error) {
			torch.NoGrad(func() { err = found.measure(pool, loss, layers, wrap, width, height, source, guides) })
			return err
		})
	})
	made = true
	return found, err
}

func (t StyleTargets) measure(pool *tiling.Pool, loss Loss, layers []vgg19.Layer, wrap torch.Wrap, width, height int,
	source Source, guides Guides) error {
	of := func(l vgg19.Layer) map[Level]torch.Tensor {
		if guides == nil {
			return map[Level]torch.Tensor{0: {}}
		}
		return guides[l.Stride]
	}
	for _, l := range layers {
		t[l] = map[Level]Statistics{}
		for level := range of(l) {
			t[l][level] = Statistics{}
		}
	}
	tiles := tiling.Cut(width, height, pool.Size, vgg19.Deepest(layers), wrap)
	err := tiling.MapReduce(pool, len(tiles), func(w *tiling.Worker, i int) StyleTargets {
		w.Drop(0)
		pass := w.Network.Run(torch.To(source(tiles[i]), w.Device()), tiles[i].Local(), layers, false)
		defer pass.Close()
		part := StyleTargets{}
		for _, l := range layers {
			part[l] = map[Level]Statistics{}
			for level, guide := range of(l) {
				part[l][level] = tileSums(loss, pass, l, tiles[i], guide, width, height, w.Device())
			}
		}
		return part
	}, func(i int, part StyleTargets) {
		for l, levels := range part {
			for level, sums := range levels {
				gather(t[l][level], sums, placeOf(tiles[i], l, width, height))
			}
		}
	})
	if err != nil {
		return err
	}
	for _, levels := range t {
		for level, sums := range levels {
			levels[level] = finished(sums, loss)
		}
	}
	return nil
}

// finished makes kept sums kept statistics.
func finished(sums Statistics, loss Loss) Statistics {
	now := loss.Statistics(sums)
	for _, name := range now.names() {
		if now[name].T != sums[name].T {
			torch.Keep(now[name])
		}
	}
	for _, name := range sums.names() {
		if sums[name].T != now[name].T {
			torch.Close(sums[name])
		}
	}
	return now
}
