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
func MeasureStyle(pool *tiling.Pool, spec *Spec, width, height int, source Source, guides Guides) (found StyleTargets,
	err error) {
	layers, made := spec.StyleLayers(), false
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
			torch.NoGrad(func() { err = measureStyle(found, pool, spec, layers, width, height, source, guides) })
			return err
		})
	})
	made = true
	return found, err
}

func measureStyle(found StyleTargets, pool *tiling.Pool, spec *Spec, layers []vgg19.Layer, width, height int,
	source Source, guides Guides) error {
	of := func(l vgg19.Layer) map[Level]torch.Tensor {
		if guides == nil {
			return map[Level]torch.Tensor{0: {}}
		}
		return guides[l.Stride]
	}
	for _, l := range layers {
		found[l] = map[Level]Statistics{}
		for level := range of(l) {
			found[l][level] = Statistics{}
		}
	}
	tiles := tiling.Cut(width, height, pool.Size, vgg19.Deepest(layers), torch.Wrap{})
	err := tiling.MapReduce(pool, len(tiles), func(w *tiling.Worker, i int) StyleTargets {
		w.Drop(0)
		pass := w.Network.Run(torch.To(source(tiles[i]), w.Device()), tiles[i].Local(), layers, false)
		defer pass.Close()
		part := StyleTargets{}
		for _, l := range layers {
			part[l] = map[Level]Statistics{}
			for level, guide := range of(l) {
				part[l][level] = tileSums(spec.StyleLoss, pass, l, tiles[i], guide, width, height, w.Device())
			}
		}
		return part
	}, func(i int, part StyleTargets) {
		for l, levels := range part {
			for level, sums := range levels {
				gather(found[l][level], sums, tiles[i], l, width, height)
			}
		}
	})
	if err != nil {
		return err
	}
	for _, levels := range found {
		for level, sums := range levels {
			levels[level] = finished(sums, spec.StyleLoss)
		}
	}
	return nil
}

// finished makes kept sums kept statistics.
func finished(sums Statistics, loss StyleLoss) Statistics {
	now := loss.Statistics(sums)
	for _, name := range now.names() {
		if now[name].T != sums[name].T {
			torch.Keep(now[name])
			torch.Close(sums[name])
		}
	}
	return now
}
