// Package objective is what style transfer makes small: the costs of Gatys, Ecker and
// Bethge, "A Neural Algorithm of Artistic Style" (arXiv:1508.06576), and their gradient
// by the pixels.
//
// Subscripts in formulas are the paper's: C the content picture, S the style picture, G
// the generated one. a is a layer's feature maps, a tensor [N,n_C,n_H,n_W] of N
// pictures, each of which has costs of its own; F is the same as matrices [N,n_C,P] of P
// positions. Functions of tensors are numeric code in torch's sense: called in a
// torch.Scoped they panic with a *torch.Error, which the scope returns, and make tensors
// of their scope.
package objective

import (
	"slices"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Spec is an objective without its targets:
//
//	J(G) = α·J_content(C,G) + β·Σ λ_l·J_l(S,G) + γ·TV(G) + δ·J_temporal(G)
//
// (equation 7 of the paper, a total variation, and what a frame of a video is held to).
type Spec struct {
	Alpha, Beta, Gamma, Delta float64
	Content, Style            []WeightedLayer
	StyleLoss                 Loss // unless Neighbours
	// Neighbours has each position compared with the style's nearest (see neighbours.go).
	Neighbours bool
	// ContentLoss compares the content's and the generated picture's maps. nil: the
	// paper's content cost, the difference of features at each position.
	ContentLoss   Loss
	Normalisation Normalisation
	// Wrap is in which directions the generated and the content picture come round. There
	// their sides are multiples of the deepest layer's stride.
	Wrap torch.Wrap
	// Regions is how many regions have weights of their own for each position; 0: all positions
	// are alike.
	Regions int
	// Channels is the network's number of maps n_C in each of the layers.
	Channels map[vgg19.Layer]int64
}

// WeightedLayer is a layer with its weight λ_l among those of its cost.
type WeightedLayer struct {
	Layer  vgg19.Layer
	Weight float64
}

// Normalisation is what the paper's costs, as cost.go has them, are multiplied by.
type Normalisation int

const (
	// Paper is 1.
	Paper Normalisation = iota
	// RelativeToTarget makes costs relative to their target's own size: a style cost
	// becomes ‖G_S−G_G‖²/‖G_S‖².
	RelativeToTarget
	// MeanSquare makes costs mean squares, and the style's 1000/C² of those.
	MeanSquare
)

// content is the layers of the content cost that weigh something.
func (s *Spec) content() []WeightedLayer { return weighing(s.Alpha, s.Content) }

// positional is those of the paper's content cost.
func (s *Spec) positional() []WeightedLayer {
	if s.ContentLoss != nil {
		return nil
	}
	return s.content()
}

// style is those of the style cost.
func (s *Spec) style() []WeightedLayer { return weighing(s.Beta, s.Style) }

func weighing(factor float64, layers []WeightedLayer) (out []WeightedLayer) {
	for _, l := range layers {
		if factor*l.Weight > 0 {
			out = append(out, l)
		}
	}
	return out
}

func layersOf(weighted []WeightedLayer) (out []vgg19.Layer) {
	for _, l := range weighted {
		out = append(out, l.Layer)
	}
	return out
}

// ContentLayers are the layers of the content cost that weigh something.
func (s *Spec) ContentLayers() []vgg19.Layer { return layersOf(s.content()) }

// StyleLayers are those of the style cost.
func (s *Spec) StyleLayers() []vgg19.Layer { return layersOf(s.style()) }

// Layers are those of both costs, each once: what the network computes.
func (s *Spec) Layers() (out []vgg19.Layer) {
	for _, l := range slices.Concat(s.ContentLayers(), s.StyleLayers()) {
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// recordable says whether a graph can record what is compared. (The nearest neighbours are
// found before.)
func (s *Spec) recordable() bool {
	return (s.Neighbours || s.StyleLoss.Recordable()) && (s.ContentLoss == nil || s.ContentLoss.Recordable())
}

// Deepest is as far as the network runs.
func (s *Spec) Deepest() vgg19.Layer { return vgg19.Deepest(s.Layers()) }

// Cut divides the generated picture, of width×height, into tiles.
func (s *Spec) Cut(width, height int, size tiling.Size) []tiling.Tile {
	return tiling.Cut(width, height, size, s.Deepest(), s.Wrap)
}

// positions is n_H·n_W of a layer for a picture of width×height.
func positions(l vgg19.Layer, width, height int) float64 {
	return float64((height / l.Stride) * (width / l.Stride))
}
