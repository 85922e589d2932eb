package nst

import "github.com/seed9bb5c928/nst/torch"

// The costs of Gatys, Ecker and Bethge, "A Neural Algorithm of Artistic Style"
// (arXiv:1508.06576). Subscripts are the paper's: C the content picture, S the
// style picture, G the generated one. a is a layer's feature maps, a tensor
// [1,n_C,n_H,n_W]. All are numeric code in torch's sense (called in a
// torch.Scoped they panic with a *torch.Error, which the scope returns), make
// tensors of their scope, and can be differentiated by autograd.

// GramMatrix returns the Gram matrix of one layer's feature maps,
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
		return torch.Scale(torch.MM(f, torch.Transpose(f, 0, 1)), 1/float64(torch.Shape(f)[1]))
	}
	return torch.MM(torch.Mul(f, guide), torch.Transpose(f, 0, 1))
}

// statistics are what a style cost compares of a layer's feature maps.
type statistics struct {
	gram torch.Tensor // [n_C,n_C]; where there is a mean, of the centred features
	mean torch.Tensor // [n_C,1]; none for the Gram matrix alone
}

// measure returns the statistics of F [n_C, n_H·n_W] under a guide. With
// moments they are the mean μ = Σ w_p·F_p and the Gram matrix of the centred
// features, Σ w_p·(F_p−μ)·(F_p−μ)ᵀ = G − μ·μᵀ.
func measure(f, guide torch.Tensor, loss StyleLoss) statistics {
	s := statistics{gram: gram(f, guide)}
	if loss == MomentsLoss {
		if guide.T == nil {
			n := torch.Shape(f)[1]
			guide = torch.Cast(torch.Full(1/float64(n), torch.DeviceOf(f), 1, n), torch.TypeOf(f))
		}
		s.mean = torch.MM(f, torch.Transpose(guide, 0, 1))
		s.gram = torch.Sub(s.gram, torch.MM(s.mean, torch.Transpose(s.mean, 0, 1)))
	}
	return s
}

// ContentCost returns
//
//	J_content(C,G) = 1/(4·n_H·n_W·n_C) · Σ (a_C − a_G)²
//
// for one layer's feature maps of the content and the generated picture (the
// paper's equation 1 has ½ for the factor).
func ContentCost(aC, aG torch.Tensor) torch.Tensor {
	return torch.Scale(sumOfSquares(torch.Sub(wide(aC), wide(aG))), 1/(4*float64(torch.Count(aC))))
}

// StyleCost returns
//
//	J_style(S,G) = 1/(4·n_C²) · Σ (G_S − G_G)²
//
// for one layer's Gram matrices of the style and the generated picture
// (equation 4, the sizes being in the Gram matrices).
func StyleCost(gS, gG torch.Tensor) torch.Tensor {
	return torch.Scale(sumOfSquares(torch.Sub(gS, gG)), 1/(4*float64(torch.Count(gS))))
}

// meanCost returns 1/(4·n_C) · Σ (μ_S − μ_G)² for the means of one layer's
// feature maps.
func meanCost(mS, mG torch.Tensor) torch.Tensor {
	return torch.Scale(sumOfSquares(torch.Sub(mS, mG)), 1/(4*float64(torch.Count(mS))))
}

// TotalCost returns J(G) = α·J_content(C,G) + β·J_style(S,G) (equation 7).
func TotalCost(content, style torch.Tensor, alpha, beta float64) torch.Tensor {
	return torch.Add(torch.Scale(content, alpha), torch.Scale(style, beta))
}

// totalVariation returns
//
//	TV(x) = 1/n · Σ (x_right − x)² + (x_below − x)²
//
// for a picture x [1,3,H,W] of n values, the sums running over all that have
// such a neighbour, and its gradient ∂TV/∂x. (Mahendran and Vedaldi,
// arXiv:1412.0035, equation 4, with β = 2, as a mean.)
func totalVariation(x torch.Tensor) (variation, gradient torch.Tensor) {
	gradient = torch.Scale(x, 0)
	scale := 1 / float64(torch.Count(x))
	for _, dim := range []int64{2, 3} {
		n := torch.Shape(x)[dim]
		difference := torch.Sub(torch.Slice(x, dim, 1, n), torch.Slice(x, dim, 0, n-1))
		part := torch.Scale(sumOfSquares(difference), scale)
		if variation.T != nil {
			part = torch.Add(variation, part)
		}
		variation = part
		// Each difference pulls its two ends together. The slices are views.
		after, before := torch.Slice(gradient, dim, 1, n), torch.Slice(gradient, dim, 0, n-1)
		torch.Copy(after, torch.Add(after, torch.Scale(difference, 2*scale)))
		torch.Copy(before, torch.Sub(before, torch.Scale(difference, 2*scale)))
	}
	return variation, gradient
}

// contentGradient is ∂J_content/∂a_G = (a_G − a_C)/(2·n_H·n_W·n_C).
func contentGradient(aC, aG torch.Tensor) torch.Tensor {
	return torch.Scale(torch.Sub(wide(aG), wide(aC)), 1/(2*float64(torch.Count(aC))))
}

// styleGradient is D = ∂J_style/∂G_G = (G_G − G_S)/(2·n_C²), a symmetric
// matrix.
func styleGradient(gS, gG torch.Tensor) torch.Tensor {
	return torch.Scale(torch.Sub(gG, gS), 1/(2*float64(torch.Count(gS))))
}

// meanGradient is d = ∂meanCost/∂μ_G = (μ_G − μ_S)/(2·n_C).
func meanGradient(mS, mG torch.Tensor) torch.Tensor {
	return torch.Scale(torch.Sub(mG, mS), 1/(2*float64(torch.Count(mS))))
}

// carry takes D = ∂J/∂G, symmetric, and, where there is a mean μ, d = ∂J/∂μ to
// the features F that they are of:
//
//	∂J/∂F_p = w_p·(2·D·F_p + d − 2·D·μ)
//
// with w_p = 1/(n_H·n_W) where there is no guide.
func carry(f, guide, mean, D, d torch.Tensor) torch.Tensor {
	scale := 2.0
	if guide.T == nil {
		scale = 2 / float64(torch.Shape(f)[1])
	}
	out := torch.Scale(torch.MM(D, f), scale)
	if mean.T != nil {
		shift := torch.Sub(torch.Scale(d, 0.5), torch.MM(D, mean))
		out = torch.Add(out, torch.Scale(shift, scale))
	}
	if guide.T != nil {
		out = torch.Mul(out, guide)
	}
	return out
}

// matrix makes feature maps [1,n_C,n_H,n_W] the matrix [n_C, n_H·n_W], wide.
func matrix(a torch.Tensor) torch.Tensor {
	shape := torch.Shape(a)
	return wide(torch.View(torch.Flatten(a, 2, 3), shape[1], shape[2]*shape[3]))
}

// wide is t in float32 if it is of half precision, whose sums and products
// overflow or lose their small parts; else t.
func wide(t torch.Tensor) torch.Tensor {
	if scalar := torch.TypeOf(t); scalar == torch.Float16 || scalar == torch.BFloat16 {
		return torch.Cast(t, torch.Float32)
	}
	return t
}

func sumOfSquares(t torch.Tensor) torch.Tensor { return torch.Sum(torch.Pow(t, 2)) }
