package objective

import (
	"slices"

	"github.com/seed9bb5c928/nst/torch"
)

// normaliser is what a cost of differences is multiplied by, for each picture, and what
// that makes of the gradient.
type normaliser struct {
	n       float64      // differences of a picture
	factors []float64    // of the costs, one for each picture
	slopes  []float64    // what a difference is multiplied by to be ∂J/∂difference
	device  torch.Tensor // the slopes, [N,1,…], as many dimensions as a difference has
}

// With MeanSquare a content cost is the mean of squared differences, 4·J, and a style cost
// 1000/C² times that of a layer of C maps, as Gatys published them.
const contentMeanSquare = 4

func styleMeanSquare(maps float64) float64 { return 4 * 1000 / (maps * maps) }

const (
	featureDimensions   = 4 // of maps [N,n_C,n_H,n_W]
	statisticDimensions = 3 // of statistics [N,n_C,…]
)

// newNormaliser is for a cost of n differences. squares [N] are the targets' sums of
// squares; meanSquare is MeanSquare's factor; weight is the cost's weight in the total; the
// slopes get as many dimensions as the differences have.
func (s *Spec) newNormaliser(squares torch.Tensor, n, meanSquare float64, dimensions int, weight float64) normaliser {
	pictures := int(torch.Shape(squares)[0])
	out := normaliser{n: n}
	switch s.Normalisation {
	case RelativeToTarget:
		out.factors = torch.Float64s(squares)
		for i, size := range out.factors {
			out.factors[i] = 4 * n / positive(size)
		}
	case MeanSquare:
		out.factors = slices.Repeat([]float64{meanSquare}, pictures)
	default:
		out.factors = slices.Repeat([]float64{1}, pictures)
	}
	for _, factor := range out.factors {
		out.slopes = append(out.slopes, factor*quarterMeanSlope(weight, n))
	}
	out.device = torch.Keep(torch.PerPicture(out.slopes, squares, dimensions))
	return out
}

// positive guards a divisor: a picture that a layer does not respond to has no size to
// measure by.
func positive(v float64) float64 {
	if v > 0 {
		return v
	}
	return 1
}

// cost is picture i's cost, times its weight, by the sum of its differences' squares.
func (n normaliser) cost(i int, weight, squares float64) float64 {
	return quarterMean(weight*n.factors[i]*squares, n.n)
}

// applySlope makes difference, of the caller's, ∂J/∂difference.
func (n normaliser) applySlope(difference torch.Tensor) {
	torch.MulInPlace(difference, torch.To(n.device, torch.DeviceOf(difference)))
}

// scalarSlope is the slope of one picture alone, which another operation can take along.
// On the CPU there is none: that would round otherwise than where several are made
// together.
func (n normaliser) scalarSlope() (slope float64, ok bool) {
	if len(n.slopes) > 1 || torch.DeviceOf(n.device) == torch.CPU {
		return 1, false
	}
	return n.slopes[0], true
}

func (n normaliser) close() { torch.Close(n.device) }
