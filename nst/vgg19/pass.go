package vgg19

import (
	"slices"

	"github.com/seed9bb5c928/nst/torch"
)

// Pass is one run of a network over an image, from which gradients can be taken
// back to the pixels. Its tensors are of the scope that Run was called in, which
// Backward may close early.
type Pass struct {
	network *Network
	wanted  map[string]torch.Tensor // features by layer
	last    int                     // index in Layers of the deepest layer

	// Of a chain: the layers' outputs by their index in Layers; none where the
	// layer was computed together with the next, or is not needed any more.
	outputs []torch.Tensor
	pooled  map[int]pooled // by the index of a pool, if its gradient needs no more

	image torch.Tensor // without a chain the leaf that autograd takes gradients to
}

// pooled is what the gradient of a pool, and of the ReLU before it, needs.
type pooled struct {
	chosen        torch.Tensor
	height, width int64
}

// Run computes the named layers' feature maps of an image [N,3,H,W], RGB in
// [0,1], and no more. With backward it keeps what Backward needs. It is numeric
// code in torch's sense.
func (n *Network) Run(image torch.Tensor, layers []string, backward bool) *Pass {
	p := &Pass{network: n, wanted: map[string]torch.Tensor{}, image: image}
	if n.chain != nil {
		torch.NoGrad(func() { p.forward(image, layers, backward) })
		return p
	}
	if !backward {
		torch.NoGrad(func() { p.take(layers, n.Features(image, layers)) })
		return p
	}
	p.image = torch.Detach(image)
	torch.RequireGrad(p.image, true)
	p.take(layers, n.Features(p.image, layers))
	return p
}

func (p *Pass) take(layers []string, features []torch.Tensor) {
	for i, f := range features {
		p.wanted[layers[i]] = f
	}
}

// Feature returns a layer's feature maps [N,C,H,W]. Backward may close them.
func (p *Pass) Feature(layer string) torch.Tensor { return p.wanted[layer] }

// Backward returns ∂J/∂image [N,3,H,W], in row order. It goes from the deepest of the layers
// to the pixels, once, and asks at each layer that Run was given for ∂J/∂F: add
// gets the layer and the gradient that has arrived there from deeper ones (the
// zero Tensor where none has), which it may change, and returns it with the
// layer's own gradient added, in the features' type.
func (p *Pass) Backward(add func(layer string, arriving torch.Tensor) torch.Tensor) torch.Tensor {
	if p.network.chain == nil {
		return p.autograd(add)
	}
	var gradient torch.Tensor
	torch.NoGrad(func() { gradient = p.backward(add) })
	return gradient
}

// autograd is Backward through the graph that the module left.
func (p *Pass) autograd(add func(string, torch.Tensor) torch.Tensor) torch.Tensor {
	var taps, seeds []torch.Tensor
	torch.NoGrad(func() {
		for layer, f := range p.wanted {
			if seed := add(layer, torch.Tensor{}); seed.T != nil {
				taps, seeds = append(taps, f), append(seeds, seed)
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
// TorchScript and autograd: so a ReLU needs no copy, pooling no indices, and the
// layers' own gradients are added into those that arrive from deeper ones.
type chain struct {
	scale, shift torch.Tensor // of the input, [1,3,1,1], in float32
	convolutions map[string]*torch.Convolution
	scalar       torch.ScalarType // of the convolutions
}

func (c *chain) close() {
	torch.Close(c.scale, c.shift)
	for _, convolution := range c.convolutions {
		convolution.Close()
	}
}

func (n *Network) mode() torch.ConvolutionMode {
	return torch.ConvolutionMode{Fast: n.fast, Replicate: n.padding == ReplicatePadding}
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

func (p *Pass) forward(image torch.Tensor, layers []string, backward bool) {
	c, mode := p.network.chain, p.network.mode()
	for i, l := range Layers {
		if slices.Contains(layers, l.Name) {
			p.last = i
		}
	}
	p.outputs, p.pooled = make([]torch.Tensor, p.last+1), map[int]pooled{}
	x := torch.Sub(torch.Mul(torch.Cast(image, torch.TypeOf(c.scale)), c.scale), c.shift)
	x = torch.Cast(x, c.scalar)
	done := func(i int, y torch.Tensor) { // layer i has made y from x
		l := Layers[i]
		tap := slices.Contains(layers, l.Name)
		if tap {
			p.wanted[l.Name] = y
		}
		// Behind a ReLU lies the mask of its convolution, and of what pooling
		// chose from.
		needed := backward && l.Kind == ReLU
		if tap || needed {
			p.outputs[i] = y
		}
	}
	for i := 0; i <= p.last; i++ {
		l := Layers[i]
		var y torch.Tensor
		made := i
		switch l.Kind {
		case Conv:
			convolution := c.convolutions[l.Name]
			if convolution == nil {
				panic(&torch.Error{Op: "forward", Message: "the network has no layer " + l.Name})
			}
			fused := i < p.last && !slices.Contains(layers, l.Name)
			y = convolution.Forward(x, mode, fused)
			if fused {
				made = i + 1
			}
		case ReLU:
			y = torch.ReLU(x)
		case Pool:
			var chosen torch.Tensor
			y, chosen = torch.Pool(x, p.network.poolScale())
			if chosen.T != nil && backward {
				size := torch.Shape(x)
				p.pooled[i] = pooled{chosen, size[2], size[3]}
				if !slices.Contains(layers, Layers[i-1].Name) {
					p.outputs[i-1] = torch.Tensor{}
				}
			} else {
				torch.Close(chosen)
			}
		}
		before := i - 1
		i = made
		done(i, y)
		if before < 0 || p.outputs[before].T != x.T {
			torch.Close(x)
		}
		x = y
	}
}

func (p *Pass) backward(add func(string, torch.Tensor) torch.Tensor) torch.Tensor {
	c, mode := p.network.chain, p.network.mode()
	var gradient torch.Tensor
	step := func(next torch.Tensor) {
		torch.Close(gradient)
		gradient = next
	}
	for i := p.last; i >= 0; i-- {
		l := Layers[i]
		if _, tap := p.wanted[l.Name]; tap {
			gradient = add(l.Name, gradient)
		}
		if gradient.T == nil {
			torch.Close(p.outputs[i])
			continue
		}
		switch l.Kind {
		case Conv:
			step(c.convolutions[l.Name].Backward(gradient, torch.Tensor{}, mode))
		case ReLU:
			y := p.outputs[i]            // none where the pool behind it took its gradient along
			if p.outputs[i-1].T == nil { // computed together
				i--
				step(c.convolutions[Layers[i].Name].Backward(gradient, y, mode))
			} else if y.T != nil {
				step(torch.ReLUBackward(gradient, y))
			}
			torch.Close(y)
		case Pool:
			if pool, ok := p.pooled[i]; ok {
				step(torch.MaxPoolBackward(pool.chosen, gradient, pool.height, pool.width))
				torch.Close(pool.chosen)
			} else {
				step(torch.PoolBackward(p.outputs[i-1], gradient, p.network.poolScale()))
			}
		}
		torch.Close(p.outputs[i])
	}
	if gradient.T == nil {
		return torch.Scale(p.image, 0)
	}
	return torch.Contiguous(torch.Mul(torch.Cast(gradient, torch.TypeOf(c.scale)), c.scale))
}
