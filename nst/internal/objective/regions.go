package objective

import (
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Level names a region of a picture: a grey level of its mask, or 0 without one.
type Level = uint8

// Guides are the weights of a layer's positions [1,1,n_H,n_W], by the layer's stride and
// the region. A region without positions of the stride has none.
type Guides map[int]map[Level]torch.Tensor

// AddGuide adds the guide of a region, given how far each pixel belongs to it,
// [1,1,H,W] from 0 to 1, at the strides of the layers. There membership is halved from
// block to block, as the network's maps are; a position's weight is its square, and the
// weights' sum is 1.
func (g Guides) AddGuide(level Level, member torch.Tensor, layers []vgg19.Layer, device torch.Device,
	scalar torch.ScalarType) {
	atStrides(member, layers, device, scalar, func(stride int, t torch.Tensor) {
		if g[stride] == nil {
			g[stride] = map[Level]torch.Tensor{}
		}
		if weight := torch.Float64s(torch.SquareSums(t))[0]; weight > 0 {
			g[stride][level] = torch.Scale(torch.Pow(t, 2), 1/weight)
		}
	})
}

// Opacity is how opaque the content is at the positions of a stride, [1,1,n_H,n_W].
type Opacity map[int]torch.Tensor

// NewOpacity makes it of the content's alpha [1,1,H,W] for the layers. The caller closes
// it, or hands it over.
func NewOpacity(alpha torch.Tensor, layers []vgg19.Layer, device torch.Device, scalar torch.ScalarType) Opacity {
	out := Opacity{}
	torch.Within(func() {
		atStrides(alpha, layers, device, scalar, func(stride int,
			t torch.Tensor) {
			out[stride] = torch.Keep(torch.Clone(t))
		})
	})
	return out
}

// Close frees the tensors.
func (o Opacity) Close() {
	for _, t := range o {
		torch.Close(t)
	}
}

// atStrides calls do for a map of a picture's pixels at the strides of the layers, where
// it is halved from block to block.
func atStrides(t torch.Tensor, layers []vgg19.Layer, device torch.Device, scalar torch.ScalarType,
	do func(stride int, t torch.Tensor)) {
	wanted, largest := map[int]bool{}, 1
	for _, l := range layers {
		wanted[l.Stride] = true
		largest = max(largest, l.Stride)
	}
	t = torch.Cast(torch.To(t, device), scalar)
	for stride := 1; stride <= largest; stride *= 2 {
		if stride > 1 {
			t = torch.AvgPool2d(t)
		}
		if wanted[stride] {
			do(stride, t)
		}
	}
}
