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
// of different sizes be compared.
func GramMatrix(a torch.Tensor) torch.Tensor {
	f := flatten(a)
	return torch.Scale(torch.MM(f, torch.Transpose(f, 0, 1)), 1/float64(torch.Shape(f)[1]))
}

// ContentCost returns
//
//	J_content(C,G) = 1/(4·n_H·n_W·n_C) · Σ (a_C − a_G)²
//
// for one layer's feature maps of the content and the generated picture (the
// paper's equation 1 has ½ for the factor).
func ContentCost(aC, aG torch.Tensor) torch.Tensor {
	return torch.Scale(sumOfSquares(torch.Sub(aC, aG)), 1/(4*float64(torch.Count(aC))))
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
	return torch.Scale(torch.Sub(aG, aC), 1/(2*float64(torch.Count(aC))))
}

// styleGradient is D = ∂J_style/∂G_G = (G_G − G_S)/(2·n_C²), a symmetric
// matrix.
func styleGradient(gS, gG torch.Tensor) torch.Tensor {
	return torch.Scale(torch.Sub(gG, gS), 1/(2*float64(torch.Count(gS))))
}

// gramGradient carries D = ∂J/∂G to the feature maps F that G is of: as D is
// symmetric, ∂J/∂F = (D + Dᵀ)·F/(n_H·n_W) = 2/(n_H·n_W)·D·F. positions is
// n_H·n_W of the whole picture, of which a may be a part.
func gramGradient(d, a torch.Tensor, positions float64) torch.Tensor {
	return torch.View(torch.Scale(torch.MM(d, flatten(a)), 2/positions), torch.Shape(a)...)
}

// flatten makes feature maps [1,n_C,n_H,n_W] the matrix [n_C, n_H·n_W].
func flatten(a torch.Tensor) torch.Tensor {
	shape := torch.Shape(a)
	return torch.View(torch.Flatten(a, 2, 3), shape[1], shape[2]*shape[3])
}

func sumOfSquares(t torch.Tensor) torch.Tensor { return torch.Sum(torch.Pow(t, 2)) }
