// Package vgg19 is the feature network: the table of its layers, the conversion
// of trained weights into a TorchScript module, and loading one.
//
// VGG-19 is Simonyan and Zisserman's network E (arXiv:1409.1556, table 1)
// without its classifier: 16 convolutions of 3×3 with padding 1, each followed
// by a ReLU, in five blocks that each end in a 2×2 pooling.
package vgg19

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is what a layer does.
type Kind int

// The kinds of layers.
const (
	Conv Kind = iota // 3×3 convolution, stride 1, padding 1
	ReLU
	Pool // 2×2, stride 2
)

// Layer is one row of the network's table.
type Layer struct {
	// Name is "conv1_1"…"conv5_4", "relu1_1"…"relu5_4" or "pool1"…"pool5".
	Name string
	Kind Kind
	// Channels is the layer's number of feature maps in the published network.
	Channels int
	// Stride is the distance, in pixels of the image, between neighbouring
	// positions of the layer's feature maps: 1, 2, 4, 8, 16 or 32.
	Stride int
	// Halo is how far, in pixels of the image, the layer sees beyond the
	// stride×stride square of a position: a tile needs this margin on each side
	// for its own positions to be exact.
	Halo int
}

// blocks is network E: the convolutions of each block and their channels.
var blocks = []struct{ convolutions, channels int }{{2, 64}, {2, 128}, {4, 256}, {4, 512}, {4, 512}}

// Layers is the network's table, in the order of computation.
var Layers = func() []Layer {
	var table []Layer
	stride, halo := 1, 0
	for b, block := range blocks {
		for c := range block.convolutions {
			halo += stride
			id := fmt.Sprintf("%d_%d", b+1, c+1)
			table = append(table,
				Layer{"conv" + id, Conv, block.channels, stride, halo},
				Layer{"relu" + id, ReLU, block.channels, stride, halo})
		}
		stride *= 2
		table = append(table, Layer{fmt.Sprintf("pool%d", b+1), Pool, block.channels, stride, halo})
	}
	return table
}()

// Lookup returns a layer by its name; the error lists the names there are.
func Lookup(name string) (Layer, error) {
	for _, l := range Layers {
		if l.Name == name {
			return l, nil
		}
	}
	return Layer{}, fmt.Errorf("unknown layer %q: VGG-19 has conv1_1…conv5_4, relu1_1…relu5_4 and pool1…pool5 (%s)",
		name, blockNote)
}

// blockNote says what the dots in Lookup's message stand for.
var blockNote = func() string {
	var parts []string
	for b, block := range blocks {
		parts = append(parts, fmt.Sprintf("%d in block %d", block.convolutions, b+1))
	}
	return "convolutions: " + strings.Join(parts, ", ")
}()

// Deepest returns the last of some layers in the order of computation, which is as
// far as the network runs for them; of none, the first of the table.
func Deepest(layers []Layer) Layer { return Layers[last(layers)] }

// last is the index of the last of the layers, 0 if there is none.
func last(layers []Layer) (index int) {
	for i, l := range Layers {
		if slices.Contains(layers, l) {
			index = i
		}
	}
	return index
}

// names are the layers' names, which the TorchScript module goes by.
func names(layers []Layer) (out []string) {
	for _, l := range layers {
		out = append(out, l.Name)
	}
	return out
}
