package objective

import "github.com/seed9bb5c928/nst/torch"

// Gram compares Gram matrices, as Gatys et al. do.
type Gram struct{}

// gram returns the Gram matrices [N,n_C,n_C] of feature maps,
//
//	G = Σ_p w_p·F_p·F_pᵀ
//
// over the positions p. Without a guide w_p is 1/(n_H·n_W), and G_ij the mean product of
// maps i and j (equation 3; the paper divides by n_H·n_W in the cost, equation 4: dividing
// here, by each picture's own size, lets pictures of different sizes be compared). A
// guide's w is the square of the guidance channel of Gatys et al. 2017 (arXiv:1611.07865,
// equations 3 and 4). Maps of half precision are summed in float32, which their products
// cannot overflow.
func gram(f Features) torch.Tensor {
	if f.Guide.T == nil {
		return torch.SYRK(f.F, f.Uniform)
	}
	F := wide(f.F)
	return torch.Bmm(torch.Mul(F, f.Guide), torch.Transpose(F, 1, 2))
}

// Sums are the Gram matrix of the positions.
func (Gram) Sums(f Features) Statistics { return Statistics{GramMatrices: gram(f)} }

// Statistics are the sums.
func (Gram) Statistics(sums Statistics) Statistics { return sums }

// Target is the style's.
func (Gram) Target(style Statistics) (Statistics, Terms) { return style, differences(style) }

// Compare finds D = ∂J/∂G.
func (Gram) Compare(sums Statistics, target Target) (norms Statistics, slopes Slopes) {
	d, norm := target.difference(GramMatrices, sums)
	factor, ok := target.normalisers[GramMatrices].scalarSlope()
	if !ok {
		target.normalisers[GramMatrices].applySlope(d)
	}
	return Statistics{GramMatrices: norm}, Slopes{Statistics{GramMatrices: d}, factor}
}

// Recordable is true.
func (Gram) Recordable() bool { return true }

// AddGradient adds ∂J/∂F_p = w_p·2·D·F_p.
func (Gram) AddGradient(into Gradient, f Features, slopes Slopes) {
	addGramGradient(into, f, slopes.Of[GramMatrices], slopes.Factor, torch.Tensor{})
}

// Memory is that of matrices, and of a product of the features with their guide.
func (Gram) Memory(of Extent) Takes {
	one := of.matrices()
	t := Takes{Summing: one + min(summedPieces, of.features()*of.Maps/512), Held: 3 * one,
		Statistics: one / of.Pictures}
	if of.Guided {
		t.Summing, t.Adding = one+of.features()+of.widened(), of.features()+of.widened()
	}
	return t
}

// summedPieces is what the products of pieces of long matrices take on a GPU, before they are
// added up: see torch.SYRK.
const summedPieces = 8 << 20

// addGramGradient adds
//
//	∂J/∂F_p = w_p·(2·factor·D·F_p + shift)
//
// for symmetric D [N,n_C,n_C] and shift [N,n_C,1] (none: 0).
func addGramGradient(into Gradient, f Features, d torch.Tensor, factor float64, shift torch.Tensor) {
	keep := 1.0
	if into.Fresh {
		keep = 0
	}
	if f.Guide.T == nil {
		torch.BaddbmmInPlace(into.Into, d, f.F, keep, 2*f.Uniform*factor)
		if shift.T != nil {
			torch.AddInPlace(into.Into, shift, f.Uniform)
		}
		return
	}
	g := torch.Bmm(d, wide(f.F)) // then in place: it is as large as the maps
	torch.ScaleInPlace(g, 2*factor)
	if shift.T != nil {
		torch.AddInPlace(g, shift, 1)
	}
	torch.MulInPlace(g, f.Guide)
	if into.Fresh {
		torch.Copy(into.Into, g)
	} else {
		torch.AddInPlace(into.Into, g, 1)
	}
}
