package nst

import "github.com/seed9bb5c928/nst/torch"

// The costs of Gatys, Ecker and Bethge, "A Neural Algorithm of Artistic Style"
// (arXiv:1508.06576). Subscripts are the paper's: C the content picture, S the
// style picture, G the generated one. a is a layer's feature maps, a tensor
// [N,n_C,n_H,n_W] of N pictures, each of which has costs of its own. All are
// numeric code in torch's sense (called in a
// torch.Scoped they panic with a *torch.Error, which the scope returns), make
// tensors of their scope, and can be differentiated by autograd.

// GramMatrix returns the Gram matrices [N,n_C,n_C] of one layer's feature maps,
//
//	G = F·Fᵀ / (n_H·n_W)
//
// where the rows of F [n_C, n_H·n_W] are the feature maps: G_ij is the mean
// product of maps i and j (equation 3). The paper divides by n_H·n_W in the
// cost (equation 4); dividing here, by each picture's own size, lets pictures
// of different sizes be compared. Maps of half precision are summed in float32,
// which their products cannot overflow.
func GramMatrix(a torch.Tensor) torch.Tensor { return gram(matrix(a), torch.Tensor{}) }

// gram is Σ_p w_p·F_p·F_pᵀ over the positions p. The guide w [1, n_H·n_W] has
// the sum 1; none means 1/(n_H·n_W) for each. (Gatys et al. 2017,
// arXiv:1611.07865, equations 3 and 4, where w is the square of the guidance
// channel.)
func gram(f, guide torch.Tensor) torch.Tensor {
	if guide.T == nil {
		return torch.SYRK(f, 1/positions(f))
	}
	return torch.MatMul(torch.Mul(f, guide), torch.Transpose(f, 1, 2))
}

// statistics are what a style cost compares of a layer's feature maps.
type statistics struct {
	gram torch.Tensor // [N,n_C,n_C]; where there is a mean, of the centred features
	mean torch.Tensor // [N,n_C,1]; none for the Gram matrix alone
}

// measure returns the statistics of F [N,n_C, n_H·n_W] under a guide. With
// moments they are the mean μ = Σ w_p·F_p and the Gram matrix of the centred
// features, Σ w_p·(F_p−μ)·(F_p−μ)ᵀ = G − μ·μᵀ.
func measure(f, guide torch.Tensor, loss StyleLoss) statistics {
	s := statistics{gram: gram(f, guide)}
	if loss == MomentsLoss {
		if guide.T == nil {
			guide = torch.Cast(torch.Full(1/positions(f), torch.DeviceOf(f), 1, int64(positions(f))), torch.TypeOf(f))
		}
		s.mean = torch.MatMul(f, torch.Transpose(guide, 0, 1))
		s.gram = torch.Sub(s.gram, torch.MatMul(s.mean, torch.Transpose(s.mean, 1, 2)))
	}
	return s
}

// ContentCost returns
//
//	J_content(C,G) = 1/(4·n_H·n_W·n_C) · Σ (a_C − a_G)²
//
// [N], for one layer's feature maps of the content and the generated pictures
// (the paper's equation 1 has ½ for the factor).
func ContentCost(aC, aG torch.Tensor) torch.Tensor {
	return quarterMeanSquare(torch.Sub(wide(aG), wide(aC)))
}

// StyleCost returns
//
//	J_style(S,G) = 1/(4·n_C²) · Σ (G_S − G_G)²
//
// [N], for one layer's Gram matrices of the style and the generated pictures
// (equation 4, the sizes being in the Gram matrices).
func StyleCost(gS, gG torch.Tensor) torch.Tensor { return quarterMeanSquare(torch.Sub(gG, gS)) }

// quarterMeanSquare is 1/(4n) · Σ d² for each picture's n differences d: of
// feature maps the content cost, of Gram matrices the style cost, and of means
// what a style cost of moments has beside it. By d its gradient is d/(2n).
func quarterMeanSquare(d torch.Tensor) torch.Tensor {
	return torch.Scale(squares(d), 1/(4*each(d)))
}

// TotalCost returns J(G) = α·J_content(C,G) + β·J_style(S,G) (equation 7).
func TotalCost(content, style torch.Tensor, alpha, beta float64) torch.Tensor {
	return torch.Add(torch.Scale(content, alpha), torch.Scale(style, beta))
}

// totalVariation returns
//
//	TV(x) = 1/n · Σ (x_right − x)² + (x_below − x)²
//
// [N] for pictures x [N,3,H,W] of n values, the sums running over all that have
// such a neighbour, and its gradient ∂TV/∂x. (Mahendran and Vedaldi,
// arXiv:1412.0035, equation 4, with β = 2, as a mean.)
func totalVariation(x torch.Tensor) (variation, gradient torch.Tensor) {
	gradient = torch.Scale(x, 0)
	scale := 1 / each(x)
	for _, dim := range []int64{2, 3} {
		n := torch.Shape(x)[dim]
		difference := torch.Sub(torch.Slice(x, dim, 1, n), torch.Slice(x, dim, 0, n-1))
		part := torch.Scale(squares(difference), scale)
		if variation.T != nil {
			part = torch.Add(variation, part)
		}
		variation = part
		// Each difference pulls its two ends together. The slices are views.
		torch.AddInPlace(torch.Slice(gradient, dim, 1, n), difference, 2*scale)
		torch.AddInPlace(torch.Slice(gradient, dim, 0, n-1), difference, -2*scale)
	}
	return variation, gradient
}

// carry adds to into [N,n_C,n_H·n_W] what D = ∂J/∂G, symmetric, and, where there
// is a mean μ, d = ∂J/∂μ are to the features F that they are of:
//
//	∂J/∂F_p = w_p·(2·D·F_p + d − 2·D·μ)
//
// with w_p = 1/(n_H·n_W) where there is no guide. With fresh, into has no values
// yet.
func carry(into torch.Tensor, fresh bool, f, guide, mean, D, d torch.Tensor) {
	keep := 1.0
	if fresh {
		keep = 0
	}
	var shift torch.Tensor
	if mean.T != nil {
		shift = torch.Sub(d, torch.Scale(torch.MatMul(D, mean), 2))
	}
	if guide.T == nil {
		torch.AddProduct(into, D, f, keep, 2/positions(f))
		if mean.T != nil {
			torch.AddInPlace(into, shift, 1/positions(f))
		}
		return
	}
	g := torch.Scale(torch.MatMul(D, f), 2)
	if mean.T != nil {
		g = torch.Add(g, shift)
	}
	g = torch.Mul(g, guide)
	if fresh {
		torch.Copy(into, g)
	} else {
		torch.AddInPlace(into, g, 1)
	}
}

// matrix makes feature maps [N,n_C,n_H,n_W] the matrices [N,n_C,n_H·n_W], wide.
func matrix(a torch.Tensor) torch.Tensor { return wide(torch.Flatten(a, 2, 3)) }

// positions is n_H·n_W of F [N,n_C, n_H·n_W].
func positions(f torch.Tensor) float64 { return float64(torch.Shape(f)[2]) }

// each is the number of values of each picture.
func each(t torch.Tensor) float64 { return float64(torch.Count(t) / torch.Shape(t)[0]) }

// wide is t in float32 if it is of half precision, whose sums and products
// overflow or lose their small parts; else t.
func wide(t torch.Tensor) torch.Tensor {
	if scalar := torch.TypeOf(t); scalar == torch.Float16 || scalar == torch.BFloat16 {
		return torch.Cast(t, torch.Float32)
	}
	return t
}

// squares is each picture's sum of squares, [N].
func squares(t torch.Tensor) torch.Tensor { return torch.Sums(torch.Pow(t, 2)) }
