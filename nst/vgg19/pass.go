package vgg19

import (
	"slices"

	"github.com/seed9bb5c928/nst/torch"
)

// Window is a part of an image, in pixels: the rows from Top to before Bottom, and
// the columns from Left to before Right.
type Window struct{ Top, Left, Bottom, Right int }

// Whole is the window that is all of an image, or maps, [N,C,H,W].
func Whole(image torch.Tensor) Window {
	shape := torch.Shape(image)
	return Window{0, 0, int(shape[2]), int(shape[3])}
}

// Of returns the window of an image [N,C,H,W]: a copy, unless it is all of it. Beyond its
// edges the image comes round.
func (w Window) Of(image torch.Tensor) torch.Tensor {
	if w == Whole(image) {
		return torch.Slice(image, 0, 0, torch.Shape(image)[0])
	}
	return torch.Crop(image, int64(w.Top), int64(w.Left), int64(w.Bottom-w.Top), int64(w.Right-w.Left))
}

// View returns the window of an image [N,C,H,W] over the same memory.
func (w Window) View(image torch.Tensor) torch.Tensor {
	return torch.Slice(torch.Slice(image, 2, int64(w.Top), int64(w.Bottom)), 3, int64(w.Left), int64(w.Right))
}

// Positions are those of the window that lie in a whole image's maps of a stride.
func (w Window) Positions(maps torch.Tensor, stride int) Window {
	return w.positions(maps, stride, 0, 0).Window
}

// Pass is one run of a network over an image, from which gradients can be taken
// back to the pixels. The owner closes it, on any thread.
type Pass struct {
	network *Network
	wanted  map[Layer]tap
	last    int // index in Layers of the deepest layer

	// Of a chain: the layers' outputs by their index in Layers; none where the
	// layer was computed together with the next, or is not needed any more.
	outputs []torch.Tensor
	pooled  map[int]pooled // by the index of a pool, for its gradient
	cropped map[int]crop   // by the index of a pool, if not all of it was used

	image torch.Tensor // without a chain, the leaf that autograd takes gradients to; with one, its like
}

// tap is a layer's feature maps, of which those of the window are asked for.
type tap struct {
	maps torch.Tensor
	own  crop
}

// crop is a window of maps that are height×width, in their positions.
type crop struct {
	Window
	height, width int
}

func (c crop) whole() bool { return c.Window == Window{0, 0, c.height, c.width} }

// back is the gradient of maps of which the part has gradient g.
func (c crop) back(g torch.Tensor) torch.Tensor {
	if c.whole() {
		return g
	}
	return torch.Pad(g, int64(c.Top), int64(c.Left), int64(c.height), int64(c.width))
}

// positions are those of the window that lie in maps of a stride, of which the
// first is at row y and column x of the image.
func (w Window) positions(maps torch.Tensor, stride, y, x int) crop {
	all := Whole(maps)
	return crop{Window{
		Top: (w.Top - y) / stride, Left: (w.Left - x) / stride,
		Bottom: min((w.Bottom-y)/stride, all.Bottom), Right: min((w.Right-x)/stride, all.Right),
	}, all.Bottom, all.Right}
}

// pooled is what the gradient of a pool, and of a maximum's the ReLU before it, needs:
// the size of what it was of, and what a maximum chose (see torch.Pool).
type pooled struct {
	chosen        torch.Tensor
	height, width int64
}

// Run computes the layers' feature maps of an image [N,3,H,W], RGB in
// [0,1], and no more. With backward it keeps what Backward needs. It is numeric
// code in torch's sense.
//
// Features, and gradients, are those at the positions of the window own. Where
// that is not all of the image, the image is to reach beyond it by the deepest
// layer's Halo, no less and no more, unless the picture that it is of ends there,
// and edges of own that are not the picture's are to lie at multiples of the
// deepest layer's Stride in that picture. Then they are those of the whole
// picture.
func (n *Network) Run(image torch.Tensor, own Window, layers []Layer, backward bool) *Pass {
	p := &Pass{network: n, wanted: map[Layer]tap{}}
	torch.Within(func() { // what is not kept goes
		switch {
		case n.chain != nil:
			torch.NoGrad(func() { p.forward(image, own, layers, backward) })
		case backward:
			p.image = torch.Detach(image)
			torch.RequireGrad(p.image, true)
			torch.Grad(func() { p.take(own, layers, n.Features(p.image, layers)) })
		default:
			torch.NoGrad(func() { p.take(own, layers, n.Features(image, layers)) })
		}
		p.tensors(func(t torch.Tensor) { torch.Keep(t) })
	})
	return p
}

// tensors are all that the pass holds.
func (p *Pass) tensors(do func(torch.Tensor)) {
	given := func(t torch.Tensor) {
		if t.T != nil && *t.T != nil {
			do(t)
		}
	}
	given(p.image)
	for _, t := range p.outputs {
		given(t)
	}
	for _, t := range p.wanted {
		given(t.maps)
	}
	for _, t := range p.pooled {
		given(t.chosen)
	}
}

// Close frees what the pass holds. Closing it again does nothing.
func (p *Pass) Close() { p.tensors(func(t torch.Tensor) { torch.Close(t) }) }

func (p *Pass) take(own Window, layers []Layer, features []torch.Tensor) {
	for i, f := range features {
		p.wanted[layers[i]] = tap{f, own.positions(f, layers[i].Stride, 0, 0)}
	}
}

// Feature returns a layer's feature maps [N,C,h,w] at the window's positions, which
// may be the pass's own memory, and belong to the caller's scope.
func (p *Pass) Feature(layer Layer) torch.Tensor {
	t := p.wanted[layer]
	return t.own.Of(t.maps)
}

// Backward returns ∂J/∂image [N,3,H,W], in row order, and closes the pass. It goes
// from the deepest of the layers to the pixels, once, and asks at each layer that Run was given for ∂J/∂F: add
// gets the layer and the gradient that has arrived there from deeper ones (the
// zero Tensor where none has), which it may change, and returns it with the
// layer's own gradient added, in the features' type.
func (p *Pass) Backward(add func(layer Layer, arriving torch.Tensor) torch.Tensor) torch.Tensor {
	defer p.Close()
	if p.network.chain == nil {
		return p.autograd(add)
	}
	var gradient torch.Tensor
	torch.NoGrad(func() { gradient = p.backward(add) })
	return gradient
}

// autograd is Backward through the graph that the module left.
func (p *Pass) autograd(add func(Layer, torch.Tensor) torch.Tensor) torch.Tensor {
	var taps, seeds []torch.Tensor
	torch.NoGrad(func() {
		for layer, t := range p.wanted {
			if seed := add(layer, torch.Tensor{}); seed.T != nil {
				taps, seeds = append(taps, t.maps), append(seeds, t.own.back(seed))
			}
		}
	})
	if len(taps) == 0 {
		return torch.Scale(torch.Detach(p.image), 0) // nothing to follow
	}
	torch.Backward(taps, seeds)
	return torch.Gradient(p.image)
}

// chain is VGG-19 computed layer by layer from its parameters, without
// TorchScript and autograd: so a ReLU needs no copy, pooling only what it chose, and the
// layers' own gradients are added into those that arrive from deeper ones.
type chain struct {
	scale, offset torch.Tensor // of the input, [1,3,1,1], in float32: it becomes image·scale + offset
	convolutions  map[Layer]*torch.Convolution
	channels      map[Layer]int64  // of the convolutions
	scalar        torch.ScalarType // of the convolutions
}

func (c *chain) close() {
	torch.Close(c.scale, c.offset)
	for _, convolution := range c.convolutions {
		convolution.Close()
	}
}

func (n *Network) mode() torch.ConvolutionMode {
	return torch.ConvolutionMode{Fast: n.fast, Replicate: n.padding == ReplicatePadding, Keep: n.keep, Fused: n.fused}
}

// poolScale is what torch.Pool is told.
func (n *Network) poolScale() float64 {
	switch n.pooling {
	case AveragePooling:
		return 1. / 4
	case RescaledAveragePooling:
		return 1. / 2
	}
	return 0
}

func (p *Pass) forward(image torch.Tensor, own Window, layers []Layer, backward bool) {
	c, mode := p.network.chain, p.network.mode()
	p.last = last(layers)
	p.outputs, p.pooled, p.cropped = make([]torch.Tensor, p.last+1), map[int]pooled{}, map[int]crop{}
	deepest, y0, x0 := Layers[p.last], 0, 0 // where the maps begin in the image
	p.image = Whole(image).Of(image)
	x := torch.Local(func() torch.Tensor {
		return torch.Cast(torch.Normalise(image, c.scale, c.offset), c.scalar)
	})
	// Behind a ReLU lies the mask of its convolution; behind a maximum's choices, if
	// they do not say where it was 0, that of the ReLU before it.
	done := func(i int, y torch.Tensor, needed bool) { // layer i has made y from x
		l := Layers[i]
		wanted := slices.Contains(layers, l)
		if wanted {
			p.wanted[l] = tap{y, own.positions(y, l.Stride, y0, x0)}
		}
		if wanted || needed && backward {
			p.outputs[i] = y
		}
	}
	for i := 0; i <= p.last; i++ {
		l := Layers[i]
		var y torch.Tensor
		made, needed := i, false
		switch l.Kind {
		case Conv:
			convolution := c.convolutions[l]
			if convolution == nil {
				panic(&torch.Error{Op: "forward", Message: "the network has no layer " + l.Name})
			}
			fused := i < p.last && !slices.Contains(layers, l)
			y = convolution.Forward(x, mode, fused)
			if fused {
				made, needed = i+1, true
			}
		case ReLU:
			y, needed = torch.ReLU(x), true
		case Pool:
			var chosen torch.Tensor
			y, chosen = torch.Pool(x, p.network.poolScale())
			if !backward {
				torch.Close(chosen)
				break
			}
			size := torch.Shape(x)
			p.pooled[i] = pooled{chosen, size[2], size[3]}
			if chosen.T != nil { // an average has no choices, and its ReLU is masked as others are
				needed = torch.TypeOf(chosen) != torch.Uint8
				if !slices.Contains(layers, Layers[i-1]) {
					p.outputs[i-1] = torch.Tensor{}
				}
			}
		}
		before := i - 1
		i = made
		done(i, y, needed)
		if before < 0 || p.outputs[before].T != x.T {
			torch.Close(x)
		}
		x = y
		if l.Kind == Pool && i < p.last {
			need := own.within(deepest, l).positions(y, l.Stride, y0, x0)
			if !need.whole() {
				p.cropped[i] = need
				x = need.Of(y)
				if p.outputs[i].T != y.T {
					torch.Close(y)
				}
				y0, x0 = y0+need.Top*l.Stride, x0+need.Left*l.Stride
			}
		}
	}
}

// within is what the deepest layer's positions of the window see of layer l's
// maps. What the next pool takes together stays together, since every block but
// the deepest layer's has an even number of convolutions.
func (w Window) within(deepest, l Layer) Window {
	halo := deepest.Halo - l.Halo
	return Window{max(0, w.Top-halo), max(0, w.Left-halo), w.Bottom + halo, w.Right + halo}
}

func (p *Pass) backward(add func(Layer, torch.Tensor) torch.Tensor) torch.Tensor {
	c, mode := p.network.chain, p.network.mode()
	var gradient torch.Tensor
	step := func(next torch.Tensor) {
		torch.Close(gradient)
		gradient = next
	}
	for i := p.last; i >= 0; i-- {
		l := Layers[i]
		if c, ok := p.cropped[i]; ok && gradient.T != nil {
			step(c.back(gradient))
		}
		if t, ok := p.wanted[l]; ok && t.own.whole() {
			if sum := add(l, gradient); sum.T != gradient.T {
				step(sum)
			}
		} else if ok {
			if g := add(l, torch.Tensor{}); g.T != nil && gradient.T != nil {
				torch.Within(func() { torch.AddInPlace(t.own.View(gradient), g, 1) })
				torch.Close(g)
			} else if g.T != nil {
				gradient = t.own.back(g)
				torch.Close(g)
			}
		}
		if gradient.T == nil {
			torch.Close(p.outputs[i])
			continue
		}
		switch l.Kind {
		case Conv:
			step(c.convolutions[l].Backward(gradient, torch.Tensor{}, mode))
		case ReLU:
			y := p.outputs[i]            // none where the pool behind it took its gradient along
			if p.outputs[i-1].T == nil { // computed together
				i--
				step(c.convolutions[Layers[i]].Backward(gradient, y, mode))
			} else if y.T != nil {
				step(torch.ReLUBackward(gradient, y))
			}
			torch.Close(y)
		case Pool:
			pool := p.pooled[i]
			if pool.chosen.T != nil {
				step(torch.MaxPoolBackward(pool.chosen, p.outputs[i], gradient, pool.height, pool.width))
				torch.Close(pool.chosen)
			} else {
				step(torch.AveragePoolBackward(gradient, p.network.poolScale(), pool.height, pool.width))
			}
		}
		torch.Close(p.outputs[i])
	}
	if gradient.T == nil {
		return torch.Scale(p.image, 0) // nothing to follow
	}
	return torch.Local(func() torch.Tensor {
		g := torch.NormaliseBackward(gradient, c.scale)
		torch.Close(gradient)
		return g
	})
}
