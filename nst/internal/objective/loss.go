package objective

import (
	"maps"
	"slices"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Loss is what a cost compares of a layer's feature maps, of all its positions together: the
// style's, or, as Spec.ContentLoss, the content's. It has no state. Each is a file,
// and another one is another file.
type Loss interface {
	// Sums returns sums over the positions of F, which may be a tile's: those of tiles
	// are added up. What has four dimensions, [N,K,h,w], is of each position, and is set
	// side by side.
	Sums(f Features) Statistics
	// Statistics makes the sums over all of a layer's positions the statistics that are
	// compared. What it does not change it returns as it is.
	Statistics(sums Statistics) Statistics
	// Target makes the statistics of the style, [N,…], what they are compared with, once
	// for many comparisons, and says what the costs are made of. What it does not change
	// it returns as it is.
	Target(style Statistics) (target Statistics, terms Terms)
	// Compare returns, of the sums over all positions, the roots [N] of the terms,
	// distances from the target, and the cost's slopes.
	Compare(sums Statistics, target Target) (norms Statistics, slopes Slopes)
	// Recordable says whether a graph can record Compare: it reads nothing back.
	Recordable() bool
	// AddGradient adds ∂J/∂F, as it follows from the slopes, to a gradient.
	AddGradient(into Gradient, f Features, slopes Slopes)
	// Memory says what these take.
	Memory(of Extent) Takes
}

// Extent is how much of a layer is worked on at once.
type Extent struct {
	Pictures, Maps int64
	At             Place // of the positions
	Value          int64 // what a value of the features takes, in bytes
	Guided         bool  // the positions have weights
}

// wideValue is what a value of statistics takes, and of features when they are widened.
func (e Extent) wideValue() int64 { return max(4, e.Value) }

// positions is what a value of each position takes, in the statistics' type.
func (e Extent) positions() int64 { return e.Pictures * e.At.Rows * e.At.Columns * e.wideValue() }

// maps is what features take as they are.
func (e Extent) maps() int64 { return e.features() * e.Value / e.wideValue() }

// features is what features take, in the statistics' type.
func (e Extent) features() int64 { return e.Maps * e.positions() }

// widened is what features take that have been widened; 0 where they are wide as they are.
func (e Extent) widened() int64 {
	if e.Value < e.wideValue() {
		return e.features()
	}
	return 0
}

// matrices is what a matrix n_C×n_C of each picture takes.
func (e Extent) matrices() int64 { return e.Pictures * e.Maps * e.Maps * e.wideValue() }

// Takes is what a loss takes of memory for a layer, beside features and gradient, in bytes.
type Takes struct {
	// Summing, Comparing and Adding are what Sums, Compare and AddGradient take while they
	// are at it.
	Summing, Comparing, Adding int64
	// Held is what there is until an evaluation ends: sums, slopes and the target.
	Held int64
	// Statistics are what is kept of a style picture.
	Statistics int64
}

// Features are a layer's feature maps at the positions of a tile, or all, with the
// weights w_p of the positions, whose sum over all of the layer is 1.
type Features struct {
	F       torch.Tensor // [N,n_C,P]
	At      Place
	Guide   torch.Tensor // w [1,P]; none where all are equal
	Uniform float64      // what they are then: 1/(n_H·n_W)
}

// Place is where a tile's positions lie among a layer's, in rows and columns.
type Place struct {
	Top, Left, Rows, Columns int64 // of the tile
	Height, Width            int64 // of the layer
}

// placeOf is a tile's in a layer of a picture of width×height.
func placeOf(tile tiling.Tile, l vgg19.Layer, width, height int) Place {
	p := Place{Top: int64(tile.Own.Top / l.Stride), Left: int64(tile.Own.Left / l.Stride),
		Height: int64(height / l.Stride), Width: int64(width / l.Stride)}
	p.Rows = min(int64(tile.Own.Bottom/l.Stride), p.Height) - p.Top
	p.Columns = min(int64(tile.Own.Right/l.Stride), p.Width) - p.Left
	return p
}

// Gradient is ∂J/∂F [N,n_C,P], to be added to.
type Gradient struct {
	Into  torch.Tensor
	Fresh bool // it has no values yet: what is added is to be copied
}

// Slopes are ∂J/∂ what a Loss compares, by name, in whatever form its AddGradient
// wants them, times Factor, which is still to be applied.
type Slopes struct {
	Of     Statistics
	Factor float64
}

// comparison is what a Loss's Compare returns; a tiling.Part.
type comparison struct {
	norms  Statistics
	slopes Slopes
}

func comparisonOf(norms Statistics, slopes Slopes) comparison { return comparison{norms, slopes} }

// EachTensor implements tiling.Part.
func (c comparison) EachTensor(do func(*torch.Tensor)) {
	c.norms.EachTensor(do)
	c.slopes.Of.EachTensor(do)
}

// at is the slopes for a tile of a layer, on a device: of what is of each position, the
// tile's.
func (s Slopes) at(tile tiling.Tile, l vgg19.Layer, device torch.Device) Slopes {
	out := Slopes{Statistics{}, s.Factor}
	for name, t := range s.Of {
		if len(torch.Shape(t)) == featureDimensions {
			t = torch.Flatten(tile.Own.Positions(t, l.Stride).Of(t), 2, 3)
		}
		out.Of[name] = torch.To(t, device)
	}
	return out
}

// Statistic names what is compared.
type Statistic string

// The statistics that there are.
const (
	GramMatrices Statistic = "gram" // [N,n_C,n_C]; with Means, of the centred features
	Means        Statistic = "mean" // [N,n_C,1]
)

// Statistics are a layer's, or sums that they are made of, or what belongs to each.
type Statistics map[Statistic]torch.Tensor

// names are the statistics' names, in a fixed order.
func (s Statistics) names() []Statistic { return slices.Sorted(maps.Keys(s)) }

// EachTensor calls do for every tensor, which it may replace.
func (s Statistics) EachTensor(do func(*torch.Tensor)) { eachTensor(s, do) }

// Close frees the tensors.
func (s Statistics) Close() {
	for _, t := range s {
		torch.Close(t)
	}
}

// Stack puts the statistics of several pictures, [1,…] each, together.
func Stack(parts []Statistics) Statistics {
	out := Statistics{}
	for _, name := range parts[0].names() {
		var all []torch.Tensor
		for _, p := range parts {
			all = append(all, p[name])
		}
		out[name] = StackPictures(all)
	}
	return out
}

// StackPictures makes tensors [1,…] of one picture each one [N,…].
func StackPictures(parts []torch.Tensor) torch.Tensor {
	if len(parts) == 1 {
		return parts[0]
	}
	sizes := torch.Shape(parts[0])
	return torch.View(torch.Stack(parts, 0), append([]int64{int64(len(parts))}, sizes[1:]...)...)
}

// OnePicture is picture i of several, a view [1,…].
func OnePicture(pictures torch.Tensor, i int) torch.Tensor {
	return torch.Slice(pictures, 0, int64(i), int64(i)+1)
}

// Weighted is one style's statistics and its weight in a blend.
type Weighted struct {
	Statistics
	Weight float64
}

// Blend is the weighted mean of the statistics of several styles. It makes tensors of
// the caller's scope.
func Blend(parts []Weighted) Statistics {
	sum := 0.0
	for _, p := range parts {
		sum += p.Weight
	}
	out := Statistics{}
	for _, p := range parts {
		for _, name := range p.names() {
			scaled := torch.Scale(p.Statistics[name], p.Weight/sum)
			if already, ok := out[name]; ok {
				scaled = torch.Add(already, scaled)
			}
			out[name] = scaled
		}
	}
	return out
}

// Terms are what a Loss's costs are made of: the squares of distances from the
// target, of the statistics that give them their names.
type Terms map[Statistic]Term

// Term is what a cost is measured by.
type Term struct {
	Squares torch.Tensor // [N] the target's own size: the square of its distance from nothing
	Values  float64      // how many values are compared: the paper's costs are means
}

// differences are the terms of a loss that compares all statistics value by value.
func differences(style Statistics) Terms {
	out := Terms{}
	for name, t := range style {
		out[name] = Term{torch.SquareSums(t), valuesEach(t)}
	}
	return out
}

// Target is what is compared with, and what the terms are multiplied by.
type Target struct {
	Statistics
	normalisers map[Statistic]normaliser
}

// terms are the names of the terms, in a fixed order.
func (t Target) terms() []Statistic { return slices.Sorted(maps.Keys(t.normalisers)) }

// difference is a statistic's difference from the target, a tensor of the caller's, and
// its norm [N].
func (t Target) difference(name Statistic, now Statistics) (difference, norm torch.Tensor) {
	difference = torch.Sub(now[name], t.Statistics[name])
	return difference, torch.Norms(difference)
}

func (t Target) close() {
	t.Statistics.Close()
	for _, n := range t.normalisers {
		n.close()
	}
}
