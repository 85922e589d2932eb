package vgg19

import (
	"slices"
	"strings"

	"github.com/seed9bb5c928/nst/torch"
)

// link makes the chain anew from the module's parameters, converted to scalar, if it is
// VGG-19. Where that fails, for want of memory, there is none, and Cast tries again.
func (n *Network) link(scalar torch.ScalarType) (err error) {
	n.unlink()
	n.linked = false
	recognised := false
	defer func() {
		if !recognised {
			n.unlink()
		}
	}()
	err = torch.Scoped(func() error {
		convolutions, err := n.readConvolutions()
		if err != nil || convolutions == nil {
			return err
		}
		for _, input := range n.inputs() {
			n.chain = &chain{scale: torch.Keep(input.scale), offset: torch.Keep(torch.Scale(input.shift, -1)),
				convolutions: map[Layer]*torch.Convolution{}, channels: map[Layer]int64{}, scalar: scalar}
			for layer, p := range convolutions {
				weight := p.weight
				n.chain.channels[layer] = torch.Shape(weight)[0]
				if input.blueFirst && layer == Layers[0] {
					weight = torch.Flip(weight, 1)
				}
				weight = torch.Cast(weight, scalar)
				n.chain.convolutions[layer] = torch.NewConvolution(weight, torch.Cast(p.bias, scalar))
			}
			if recognised, err = n.agrees(); recognised || err != nil {
				return err
			}
			n.unlink()
		}
		return nil
	})
	n.linked = err == nil
	return err
}

// unlink closes the chain, if there is one.
func (n *Network) unlink() {
	if n.chain != nil {
		n.chain.close()
		n.chain = nil
	}
}

type parameters struct{ weight, bias torch.Tensor }

// readConvolutions finds the module's convolutions, in order: nil if they are
// not VGG-19's. Their numbers of channels may be others.
func (n *Network) readConvolutions() (map[Layer]parameters, error) {
	names, err := n.module.Parameters()
	if err != nil {
		return nil, err
	}
	var tensors []torch.Tensor
	for _, name := range names {
		if strings.HasPrefix(name, "input_") {
			continue
		}
		if t := n.module.Parameter(name); len(torch.Shape(t)) == 4 || len(torch.Shape(t)) == 1 {
			tensors = append(tensors, t)
		}
	}
	out, in := map[Layer]parameters{}, int64(3)
	for _, l := range Layers {
		if l.Kind != Conv || len(tensors) < 2 {
			continue
		}
		weight, bias := tensors[0], tensors[1]
		shape := torch.Shape(weight)
		if len(shape) != 4 || shape[1] != in || shape[2] != 3 || shape[3] != 3 ||
			!slices.Equal(torch.Shape(bias), shape[:1]) {
			break
		}
		out[l], in, tensors = parameters{weight, bias}, shape[0], tensors[2:]
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// input is how a network may want its image: image·scale − shift.
type input struct {
	scale, shift torch.Tensor
	blueFirst    bool
}

// inputs are the ways in which the module may normalise its image: what it says
// itself, or what published networks want.
func (n *Network) inputs() (out []input) {
	// The input's own arithmetic is in float32 also for half-precision layers.
	wide := func(t torch.Tensor) torch.Tensor {
		if n.scalar == torch.Float64 {
			return torch.Cast(t, torch.Float64)
		}
		return torch.Cast(t, torch.Float32)
	}
	names, err := n.module.Parameters()
	if err == nil && slices.Contains(names, "input_scale") && slices.Contains(names, "input_shift") {
		return []input{{wide(n.module.Parameter("input_scale")), wide(n.module.Parameter("input_shift")), false}}
	}
	values := func(v [3]float32) torch.Tensor { return wide(torch.FromFloats(v[:], n.device, 1, 3, 1, 1)) }
	for _, known := range []Normalisation{Torchvision, Caffe, {Scale: [3]float32{1, 1, 1}},
		{Scale: [3]float32{255, 255, 255}}} {
		out = append(out, input{values(known.Scale), values(known.Shift), false},
			input{values(known.Scale), values(known.Shift), true})
	}
	return out
}

// agrees says whether the chain's features are the module's, on a small image of
// every layer of the chain. Its error is the device's; another one of the module's says that
// they do not agree.
func (n *Network) agrees() (agree bool, err error) {
	const side = 16
	var layers []Layer
	for i, l := range Layers {
		if l.Kind == ReLU && n.chain.convolutions[Layers[i-1]] != nil && l.Stride <= side {
			layers = append(layers, l)
		}
	}
	// Half-precision sums differ by their order.
	tolerance := map[torch.ScalarType]float64{torch.Float64: 1e-6, torch.Float32: 1e-3}[n.chain.scalar]
	if tolerance == 0 {
		tolerance = 0.1
	}
	err = torch.Scoped(func() error {
		torch.NoGrad(func() {
			torch.SetMath(torch.Math{}) // both are computed alike, and not rounded; a run chooses anew
			image := make([]float32, 3*side*side)
			for i := range image {
				image[i] = float32(i*2654435761>>7%1024) / 1024
			}
			x := torch.Cast(torch.FromFloats(image, n.device, 1, 3, side, side), n.scalar)
			want := n.Features(x, layers)
			pass := n.Run(x, Whole(x), layers, false)
			defer pass.Close()
			for i, layer := range layers {
				a, b := torch.Cast(want[i], torch.Float32), torch.Cast(pass.Feature(layer), torch.Float32)
				if !slices.Equal(torch.Shape(a), torch.Shape(b)) {
					return
				}
				difference := torch.Floats(torch.Sum(torch.Pow(torch.Sub(a, b), 2)))[0]
				size := torch.Floats(torch.Sum(torch.Pow(a, 2)))[0]
				if !(float64(difference) <= tolerance*tolerance*float64(size)) {
					return
				}
			}
			agree = true
		})
		return nil
	})
	if err != nil && !torch.OfDevice(err) {
		return false, nil
	}
	return agree, err
}
