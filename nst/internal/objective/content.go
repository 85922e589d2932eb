package objective

import (
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// contentPart is what findContent makes of a tile.
type contentPart struct {
	squares  map[*contentTerm]torch.Tensor // sums of the features' squares [N]
	features map[*contentTerm]torch.Tensor // to be kept; none if they are not
}

// EachTensor implements tiling.Part.
func (p contentPart) EachTensor(do func(*torch.Tensor)) {
	eachTensor(p.squares, do)
	eachTensor(p.features, do)
}

func (t *contentTerm) release() {
	t.normaliser.close()
	torch.Close(t.features...)
	t.normaliser, t.features = normaliser{}, nil
}

// findContent finds the content terms' normalisers and, if they are to be kept, the
// content's features.
func (e *Evaluator) findContent() error {
	for _, t := range e.content {
		t.release()
	}
	if len(e.content) == 0 {
		return nil
	}
	squares, features := map[*contentTerm]torch.Tensor{}, map[*contentTerm][]torch.Tensor{}
	defer func() { // what is kept is closed, whatever comes
		for _, t := range e.content {
			t.features = features[t]
		}
	}()
	defer eachTensor(squares, func(t *torch.Tensor) { torch.Close(*t) })
	err := tiling.MapReduce(e.pool, len(e.tiles), func(w *tiling.Worker, i int) contentPart {
		part := contentPart{map[*contentTerm]torch.Tensor{}, map[*contentTerm]torch.Tensor{}}
		features := e.contentFeatures(w, i)
		for _, t := range e.content {
			a := features[t]
			visible := wide(a)
			if alpha := e.opacityAt(t.layer, w, i); alpha.T != nil {
				visible = torch.Mul(visible, alpha)
			}
			part.squares[t] = torch.SquareSums(visible)
			if !e.pool.Recompute {
				part.features[t] = a
			}
		}
		return part
	}, func(_ int, part contentPart) {
		addTensors(squares, part.squares)
		for _, t := range e.content {
			if a, ok := part.features[t]; ok {
				features[t], part.features[t] = append(features[t], a), torch.Tensor{}
			}
		}
	})
	if err != nil {
		return err
	}
	return torch.Scoped(func() error {
		for _, t := range e.content {
			t.normaliser = e.spec.newNormaliser(squares[t], t.values, contentMeanSquare, featureDimensions,
				e.spec.Alpha*t.weight)
		}
		return nil
	})
}

// contentFeatures are the content's features at tile i's positions, on the worker's
// device.
func (e *Evaluator) contentFeatures(w *tiling.Worker, i int) map[*contentTerm]torch.Tensor {
	out := map[*contentTerm]torch.Tensor{}
	var pass *vgg19.Pass
	for _, t := range e.content {
		if t.features != nil {
			out[t] = torch.To(t.features[i], w.Device())
			continue
		}
		if pass == nil {
			w.Drop(0) // there is memory for one pass
			pass = w.Network.Run(torch.To(e.source(e.tiles[i]), w.Device()), e.tiles[i].Local(), e.spec.ContentLayers(),
				false)
			defer pass.Close()
		}
		out[t] = pass.Feature(t.layer)
	}
	return out
}

// opacityAt is how opaque the content is at a layer's positions in tile i, [1,1,h,w];
// none if it is wholly.
func (e *Evaluator) opacityAt(l vgg19.Layer, w *tiling.Worker, i int) torch.Tensor {
	whole := e.opacity[l.Stride]
	if whole.T == nil {
		return whole
	}
	return torch.To(e.tiles[i].Own.Positions(whole, l.Stride).Of(whole), w.Device())
}

// addContentGradient adds the term's gradient to into, and puts the norm [N] of the
// differences, which it keeps, into norms. It closes target, the content's features.
func (e *Evaluator) addContentGradient(t *contentTerm, into torch.Tensor, fresh bool, maps, target, alpha torch.Tensor,
	norms map[positional]torch.Tensor) {
	difference := into
	if !fresh {
		difference = torch.EmptyLike(maps)
	}
	torch.Subtract(difference, maps, target)
	torch.Close(target)
	if alpha.T != nil { // of the cost, and once more of its derivative
		torch.MulInPlace(difference, alpha)
	}
	norms[t] = torch.Keep(torch.Norms(difference))
	if alpha.T != nil {
		torch.MulInPlace(difference, alpha)
	}
	factor, ok := t.normaliser.scalarSlope()
	if fresh || !ok {
		t.normaliser.applySlope(difference)
		factor = 1
	}
	if !fresh {
		torch.AddInPlace(into, difference, factor)
	}
}
