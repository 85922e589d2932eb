package vgg19

import (
	"slices"

	"github.com/seed9bb5c928/nst/torch"
)

// Need is memory, in bytes.
type Need struct {
	Most    int64 // in use at once while the layers are run and their gradient is taken back
	Pass    int64 // what a Pass holds, from Run to Backward
	Weights int64 // what the network keeps from then on (see SetKeep), for any number of images of the size
}

// Work is what a network is asked to do, of which Memory estimates the need.
type Work struct {
	Height, Width int               // of the images
	Own           Window            // which positions are asked for: see Run
	Layers        []Layer           // to run
	Images        int               // at once
	Backward      bool              // whether their gradient is taken back
	Keep          torch.KeptWeights // see SetKeep
	// Summing and Adding are what the caller takes at a layer, in bytes, beside its features:
	// once the layers are run, and while it adds its gradient.
	Summing, Adding map[Layer]int64
}

// BytesPerValue is what a value of a feature map takes.
func (n *Network) BytesPerValue() int64 {
	switch {
	case n.scalar == torch.Float64:
		return 8
	case n.chain != nil && n.chain.scalar != n.scalar:
		return 2
	}
	return 4
}

// channels are the layers' numbers of maps, by their index in Layers: the network's, or the
// published one's where they are not known.
func (n *Network) channels() []int64 {
	out := make([]int64, len(Layers))
	for i, l := range Layers {
		switch {
		case l.Kind != Conv:
			out[i] = out[i-1]
		case n.chain != nil && n.chain.channels[l] > 0:
			out[i] = n.chain.channels[l]
		default:
			out[i] = int64(l.Channels)
		}
	}
	return out
}

// Memory estimates, from the table of layers, what work takes in tensors.
func (n *Network) Memory(work Work) (need Need) {
	own, height, width, layers, backward := work.Own, work.Height, work.Width, work.Layers, work.Backward
	perValue := n.BytesPerValue()
	value := int64(work.Images) * perValue
	ours := n.device == torch.CPU && n.chain != nil && n.chain.scalar == torch.Float32
	kernels := ours && n.fast && n.padding == ZeroPadding
	// What a value's choice takes, of a maximum: a byte in our kernels, else an int64.
	choice := int64(0)
	if n.pooling == MaxPooling && n.chain != nil {
		if choice = 8; ours {
			choice = 1
		}
	}
	last := last(layers)
	taps := make([]bool, last+1)
	for i := range taps {
		taps[i] = slices.Contains(layers, Layers[i])
	}
	tapped := func(i int) bool { return taps[i] }
	channels := n.channels()
	whole := own == Window{0, 0, height, width}
	// What a layer's maps, and its own positions, take; and what is held of it.
	maps, features, held := make([]int64, last+1), make([]int64, last+1), make([]int64, last+1)
	choices := make([]int64, last+1)
	window, uncropped := Window{0, 0, height, width}, make([]int64, last+1)
	size := func(i int, w Window) int64 {
		l := Layers[i]
		return value * channels[i] * int64((w.Bottom-w.Top)/l.Stride) * int64((w.Right-w.Left)/l.Stride)
	}
	windows := make([]Window, last+1)
	for i, l := range Layers[:last+1] {
		uncropped[i], windows[i] = size(i, window), window
		if maps[i] = uncropped[i]; l.Kind == Pool && i < last {
			need := own.within(Layers[last], l)
			window = Window{max(window.Top, need.Top), max(window.Left, need.Left), min(window.Bottom, need.Bottom),
				min(window.Right, need.Right)}
			maps[i] = size(i, window)
		}
		if !whole {
			features[i] = size(i, own)
		}
		if tapped(i) || backward && l.Kind == ReLU {
			held[i] = maps[i]
		}
		if l.Kind == Pool && choice > 0 {
			choices[i] = uncropped[i] / perValue * choice
		}
		if l.Kind == Pool && backward && choice > 0 {
			if held[i] += choices[i]; choice > 1 && !tapped(i) { // and the mask
				held[i] += uncropped[i]
			}
			if !tapped(i - 1) {
				held[i-1] = 0
			}
		}
	}
	for i := range last + 1 {
		if weights, kept := n.transformed(kernels, work.Keep, i, windows[i]); kept && backward {
			need.Weights += 2 * weights
		} else if kept {
			need.Weights += weights
		}
	}
	image := value / perValue * max(4, perValue) * 3 * int64(height) * int64(width)
	peak, sum := 3*image, image // cut out, and normalised in two steps
	scratch := func(i int) int64 {
		if weights, kept := n.transformed(kernels, work.Keep, i, windows[i]); !kept {
			return weights
		}
		return 0
	}
	from := func(i int) int64 { // what layer i is computed from
		if i == 0 {
			return image
		}
		return maps[i-1]
	}
	for i, l := range Layers[:last+1] { // forward
		if l.Kind == ReLU && !tapped(i-1) {
			sum += held[i]
			continue // computed with its convolution
		}
		in := from(i)
		if i > 0 && held[i-1] > 0 {
			in = 0 // it is in the sum
		}
		peak = max(peak, sum+in+uncropped[i]+choices[i]+scratch(i))
		sum += held[i]
	}
	need.Pass = sum
	for i := range last + 1 { // the features that are asked for
		if tapped(i) {
			peak = max(peak, sum+features[i]+work.Summing[Layers[i]])
		}
	}
	if !backward {
		need.Most = peak + smallTensors
		return need
	}
	for i := last; i >= 0; i-- { // backward: g is the gradient that arrives
		l, g := Layers[i], maps[i]
		if tapped(i) {
			peak = max(peak, sum+g+2*features[i]+work.Adding[l])
		}
		in := from(i)
		switch {
		case l.Kind == Pool:
			if peak = max(peak, sum+uncropped[i]+maps[i-1]); choice > 1 { // the gradient is masked first
				peak = max(peak, sum+2*uncropped[i]+maps[i-1])
			}
		case l.Kind == Conv && i < last && !tapped(i): // with the mask behind it
			if peak = max(peak, sum+held[i+1]+g+in+scratch(i)); !kernels {
				peak = max(peak, sum+held[i+1]+2*g+in)
			}
		case l.Kind == Conv:
			peak = max(peak, sum+g+in+scratch(i))
		}
		sum -= held[i]
	}
	need.Most = peak + smallTensors
	return need
}

// smallTensors is what small tensors take beside.
const smallTensors = 1 << 20

// transformed is what the weights of layer i take when the CPU's kernels have
// transformed them for maps of a window: while these are computed or, if they are
// small, for ever (see torch/csrc/conv.cc).
func (n *Network) transformed(kernels bool, keep torch.KeptWeights, i int, maps Window) (bytes int64, kept bool) {
	if !kernels || i == 0 || Layers[i].Kind != Conv {
		return 0, false
	}
	l, channels := Layers[i], n.channels()
	side := func(n int) int { return (n/l.Stride + 3) / 4 }
	return 4 * 36 * channels[i-1] * channels[i], keep == torch.KeepAll ||
		keep == torch.KeepSmall && side(maps.Bottom-maps.Top)*side(maps.Right-maps.Left) <= 128
}
