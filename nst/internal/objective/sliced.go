package objective

import (
	"math"
	"math/rand/v2"

	"github.com/seed9bb5c928/nst/torch"
)

// Sliced compares the features' whole distributions, not their moments alone: it projects
// them on K directions θ_k, drawn by the seed, and compares along each by the square of the
// Wasserstein-2 distance (Heitz et al. 2021, arXiv:2006.07229, equations 2 and 3),
//
//	SW² = 1/K · Σ_k Σ_p w_p·(x_kp − t_k(u_kp))²,  x_k = θ_kᵀF
//
// where u_kp is the rank of x_kp among all x_k, 0 to 1, and t_k the style's quantiles. A
// rank does not change with small changes of F, so that ∂SW²/∂F_p = 2·w_p/K · Σ_k
// θ_k·(x_kp − t_k(u_kp)). Styles are blended by their quantiles' means, which along a line is
// their distributions' barycentre.
type Sliced struct{ Seed, Scale uint64 } // of which the directions are drawn

const (
	projections Statistic = "projection" // x [N,K,h,w]
	weightings  Statistic = "weight"     // w [N,1,h,w]; none where all are alike
	quantiles   Statistic = "quantile"   // t [N,K,quantileCount]
)

// directionCount is K, and quantileCount how many quantiles are kept of each projection.
const directionCount, quantileCount = 32, 4096

// directions are the K directions of n_C dimensions, [N,K,n_C], the same each time.
func (s Sliced) directions(like torch.Tensor) torch.Tensor {
	shape := torch.Shape(like)
	random := rand.New(rand.NewPCG(s.Seed, s.Scale<<16+uint64(shape[1])))
	theta := make([]float32, directionCount*shape[1])
	for k := range int64(directionCount) {
		row, square := theta[k*shape[1]:(k+1)*shape[1]], 0.0
		for i := range row {
			row[i] = float32(random.NormFloat64())
			square += float64(row[i]) * float64(row[i])
		}
		for i := range row {
			row[i] /= float32(math.Sqrt(square))
		}
	}
	one := torch.Cast(torch.FromFloats(theta, torch.DeviceOf(like), directionCount, shape[1]), torch.TypeOf(like))
	var all []torch.Tensor
	for range shape[0] {
		all = append(all, one)
	}
	return torch.Stack(all, 0)
}

// Sums are the projections at each position, and the positions' weights.
func (s Sliced) Sums(f Features) Statistics {
	F := wide(f.F)
	x := torch.Bmm(s.directions(F), F)
	shape := torch.Shape(x)
	out := Statistics{projections: torch.View(x, shape[0], shape[1], f.At.Rows, f.At.Columns)}
	if f.Guide.T != nil {
		w := torch.Cast(torch.View(f.Guide, 1, 1, f.At.Rows, f.At.Columns), torch.TypeOf(F))
		var all []torch.Tensor
		for range shape[0] {
			all = append(all, w)
		}
		out[weightings] = StackPictures(all)
	}
	return out
}

// flat is what is of each position with the positions in one dimension.
func (Sliced) flat(sums Statistics) (x, weights torch.Tensor) {
	if w, ok := sums[weightings]; ok {
		weights = torch.Flatten(w, 1, 3)
	}
	return torch.Flatten(sums[projections], 2, 3), weights
}

// Statistics are the quantiles.
func (s Sliced) Statistics(sums Statistics) Statistics {
	x, weights := s.flat(sums)
	return Statistics{quantiles: torch.Quantiles(x, weights, quantileCount)}
}

// Target is the style's. Its size is its distance from nothing, the mean square of its
// projections.
func (Sliced) Target(style Statistics) (Statistics, Terms) {
	size := torch.Scale(torch.SquareSums(style[quantiles]), 1./(directionCount*quantileCount))
	return style, Terms{quantiles: {size, 1}}
}

// Compare finds the slopes ∂J/∂x, without the positions' weights.
func (s Sliced) Compare(sums Statistics, target Target) (norms Statistics, slopes Slopes) {
	x, weights := s.flat(sums)
	d := torch.QuantileDifferences(x, weights, target.Statistics[quantiles])
	shape := torch.Shape(sums[projections])
	var norm torch.Tensor
	if weights.T == nil {
		norm = torch.Scale(torch.Norms(d), 1/math.Sqrt(float64(directionCount*shape[2]*shape[3])))
	} else {
		root := torch.View(torch.Pow(weights, 0.5), shape[0], 1, shape[2]*shape[3])
		norm = torch.Scale(torch.Norms(torch.Mul(d, root)), 1/math.Sqrt(directionCount))
	}
	target.normalisers[quantiles].applySlope(d)
	return Statistics{quantiles: norm}, Slopes{Statistics{projections: torch.View(d, shape...)}, 1. / directionCount}
}

// Memory is that of projections, and of sorting one of them at a time (see
// torch/csrc/quantiles.cc).
func (Sliced) Memory(of Extent) Takes {
	along := directionCount * of.positions()
	table := directionCount * quantileCount * of.wideValue()
	t := Takes{Summing: along + of.widened(), Adding: along + of.features(),
		Comparing: sortedBytes * of.At.Rows * of.At.Columns, Held: 2*along + 2*of.Pictures*table, Statistics: table}
	if of.Guided {
		t.Comparing = max(t.Comparing, along+of.positions())
		t.Held += of.positions()
	}
	return t
}

// sortedBytes is what comparing sorted values takes for each.
const sortedBytes = 128

// Recordable is false: sorting and searching, and directions that come from the host.
func (Sliced) Recordable() bool { return false }

// AddGradient adds ∂J/∂F_p = w_p·Σ_k θ_k·∂J/∂x_kp.
func (s Sliced) AddGradient(into Gradient, f Features, slopes Slopes) {
	theta := s.directions(wide(torch.Slice(f.F, 2, 0, 1))) // as at any position
	g := torch.Bmm(torch.Transpose(theta, 1, 2), slopes.Of[projections])
	weight := f.Uniform * slopes.Factor
	if f.Guide.T != nil {
		torch.MulInPlace(g, f.Guide)
		weight = slopes.Factor
	}
	if into.Fresh {
		torch.ScaleInPlace(g, weight)
		torch.Copy(into.Into, g)
	} else {
		torch.AddInPlace(into.Into, g, weight)
	}
}
