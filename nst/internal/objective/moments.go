package objective

import "github.com/seed9bb5c928/nst/torch"

// Moments compares means and covariances, which are the Gram matrices of the centred
// features.
type Moments struct{}

// Sums are the Gram matrix, and the mean μ = Σ w_p·F_p, of the positions.
func (Moments) Sums(f Features) Statistics {
	matrices := torch.Local(func() torch.Tensor { return gram(f) }) // what it makes goes before there is more
	F, guide := wide(f.F), f.Guide
	if guide.T == nil {
		guide = torch.Cast(torch.Full(f.Uniform, torch.DeviceOf(F), 1, torch.Shape(F)[2]), torch.TypeOf(F))
	}
	return Statistics{GramMatrices: matrices, Means: torch.Bmm(F, torch.Transpose(guide, 0, 1))}
}

// Statistics centres: Σ w_p·(F_p−μ)·(F_p−μ)ᵀ = G − μ·μᵀ.
func (Moments) Statistics(sums Statistics) Statistics {
	mean := sums[Means]
	return Statistics{
		GramMatrices: torch.Sub(sums[GramMatrices], torch.Bmm(mean, torch.Transpose(mean, 1, 2))),
		Means:        mean,
	}
}

// Target is the style's.
func (Moments) Target(style Statistics) (Statistics, Terms) { return style, differences(style) }

// Compare finds D = ∂J/∂G and, as the slope of the mean with what the covariance has of
// it, ∂J/∂μ − 2·D·μ.
func (Moments) Compare(sums Statistics, target Target) (norms Statistics, slopes Slopes) {
	now := Moments{}.Statistics(sums)
	d, gramNorm := target.difference(GramMatrices, now)
	target.normalisers[GramMatrices].applySlope(d)
	shift, meanNorm := target.difference(Means, now)
	target.normalisers[Means].applySlope(shift)
	return Statistics{GramMatrices: gramNorm, Means: meanNorm},
		Slopes{Statistics{GramMatrices: d, Means: centredSlope(shift, d, now[Means])}, 1}
}

// centredSlope is ∂J/∂μ − 2·D·μ for the slope of the mean, and D = ∂J/∂Σ.
func centredSlope(slope, d, mean torch.Tensor) torch.Tensor {
	return torch.Sub(slope, torch.Scale(torch.Bmm(d, mean), 2))
}

// Recordable is true.
func (Moments) Recordable() bool { return true }

// Memory is the Gram matrices', and that of the features' sums.
func (Moments) Memory(of Extent) Takes {
	t := Gram{}.Memory(of)
	t.Summing = max(t.Summing, of.matrices()+of.widened()+of.positions())
	t.Comparing = 2 * of.matrices()
	return t
}

// AddGradient adds ∂J/∂F_p = w_p·(2·D·F_p + ∂J/∂μ − 2·D·μ).
func (Moments) AddGradient(into Gradient, f Features, slopes Slopes) {
	addGramGradient(into, f, slopes.Of[GramMatrices], slopes.Factor, slopes.Of[Means])
}
