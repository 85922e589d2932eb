package objective

import (
	"math"

	"github.com/seed9bb5c928/nst/torch"
)

// Wasserstein compares Gaussian distributions of the features' means μ and covariances Σ,
// by the square of their Wasserstein-2 distance (Olkin and Pukelsheim 1982), as
// style-transfer-pytorch does:
//
//	W² = ‖μ_S−μ_G‖² + tr(Σ_S + Σ_G − 2·(R·Σ_G·R)^½),  R = Σ_S^½
//
// To the diagonals of both covariances δ is added: where a picture has fewer positions than
// a layer maps, or features vary by less than sums in float32 are exact to, the root has no
// slope without it.
type Wasserstein struct{ Moments }

// What a target has besides, in float64 like its covariance.
const (
	roots  Statistic = "root"  // R [N,n_C,n_C]
	deltas Statistic = "delta" // δ [N,1]
)

// faintest is δ as a part of the mean square of a style's features, and flat what is added
// to it for a style that has none.
const faintest, flat = 1e-4, 1e-8

// Target finds R. The style's size is its distance from a picture without features,
// ‖μ_S‖² + tr Σ_S.
func (Wasserstein) Target(style Statistics) (Statistics, Terms) {
	mean, maps := style[Means], valuesEach(style[Means])
	size := torch.Add(torch.SquareSums(torch.Cast(mean, torch.Float64)),
		traces(torch.Cast(style[GramMatrices], torch.Float64)))
	delta := torch.Add(torch.Scale(size, faintest/maps), torch.Full(flat, torch.DeviceOf(mean)))
	delta = torch.View(delta, torch.Count(delta), 1)
	covariance := widened(style[GramMatrices], delta)
	values, vectors := torch.Eigh(covariance)
	torch.ClampInPlace(values, 0, math.Inf(1)) // what rounding made of the smallest
	size = torch.Cast(size, torch.TypeOf(mean))
	target := Statistics{Means: mean, GramMatrices: covariance, deltas: delta,
		roots: spectral(vectors, torch.Pow(values, 0.5))}
	return target, Terms{Means: {size, maps}, GramMatrices: {size, maps}}
}

// Compare finds, with the optimal map T = R·(R·Σ_G·R)^-½·R between the two distributions,
// ∂J/∂Σ = ½·(1 − T), and the slope of the mean as Moments does.
func (w Wasserstein) Compare(sums Statistics, target Target) (norms Statistics, slopes Slopes) {
	now := w.Statistics(sums)
	scalar, R := torch.TypeOf(now[Means]), target.Statistics[roots]
	covariance := widened(now[GramMatrices], target.Statistics[deltas])
	values, vectors := torch.Eigh(torch.Bmm(R, torch.Bmm(covariance, R)))
	torch.ClampInPlace(values, smallestEigenvalue, math.Inf(1))
	square := torch.Add(traces(covariance), traces(target.Statistics[GramMatrices]))
	square = torch.Sub(square, torch.Scale(torch.Sums(torch.Pow(values, 0.5)), 2))
	torch.ClampInPlace(square, 0, math.Inf(1))

	d := spectral(torch.Bmm(R, vectors), torch.Pow(values, -0.5))
	torch.ScaleInPlace(d, -0.5)
	torch.AddInPlace(torch.Diagonal(d), torch.Full(0.5, torch.DeviceOf(d)), 1)
	d = torch.Cast(d, scalar)
	target.normalisers[GramMatrices].applySlope(d)
	shift, meanNorm := target.difference(Means, now)
	target.normalisers[Means].applySlope(shift)
	return Statistics{GramMatrices: torch.Cast(torch.Pow(square, 0.5), scalar), Means: meanNorm},
		Slopes{Statistics{GramMatrices: d, Means: centredSlope(shift, d, now[Means])}, 1}
}

// smallestEigenvalue guards a division. δ² is far larger, unless the style has no
// variance.
const smallestEigenvalue = 1e-30

// Memory is Moments', and that of matrices in float64: two of them are the target's.
func (Wasserstein) Memory(of Extent) Takes {
	t := Moments{}.Memory(of)
	matrix := of.matrices() * 8 / of.wideValue()
	t.Held += 2 * matrix
	t.Comparing += 10 * matrix
	return t
}

// Recordable is false: to find eigenvalues libraries read back whether they did.
func (Wasserstein) Recordable() bool { return false }

// widened is matrices in float64, symmetric to the last bit (the root magnifies what is
// not), with delta [N,1] added to their diagonals.
func widened(matrices, delta torch.Tensor) torch.Tensor {
	out := torch.Cast(matrices, torch.Float64)
	out = torch.Add(out, torch.Transpose(out, 1, 2))
	torch.ScaleInPlace(out, 0.5)
	torch.AddInPlace(torch.Diagonal(out), delta, 1)
	return out
}

// traces are those of matrices [N,n,n].
func traces(t torch.Tensor) torch.Tensor { return torch.Sums(torch.Diagonal(t)) }

// spectral is B·diag(λ)·Bᵀ for λ [N,n] and B [N,n,n].
func spectral(basis, values torch.Tensor) torch.Tensor {
	size := torch.Shape(values)
	scaled := torch.Mul(basis, torch.View(values, size[0], 1, size[1]))
	return torch.Bmm(scaled, torch.Transpose(basis, 1, 2))
}
