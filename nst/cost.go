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
func GramMatrix(a torch.Tensor) torch.Tensor {
	f := matrix(a)
	return gram(f, torch.Tensor{}, 1/float64(torch.Shape(f)[2]))
}

// gram is Σ_p w_p·F_p·F_pᵀ over the positions p of F [N,n_C,P], which may be a part
// of a layer's. The guide w [1,P] has the sum 1 over all of them; none means that
// every weight is uniform, 1/(n_H·n_W). (Gatys et al. 2017, arXiv:1611.07865,
// equations 3 and 4, where w is the square of the guidance channel.)
func gram(f, guide torch.Tensor, uniform float64) torch.Tensor {
	if guide.T == nil {
		return torch.SYRK(f, uniform)
	}
	f = wide(f)
	return torch.MatMul(torch.Mul(f, guide), torch.Transpose(f, 1, 2))
}

// statistics are what a style cost compares of a layer's feature maps.
type statistics struct {
	gram torch.Tensor // [N,n_C,n_C]; where there is a mean, of the centred features
	mean torch.Tensor // [N,n_C,1]; none for the Gram matrix alone
}

// measure returns the sums that the statistics of F [N,n_C,P] are made of, which
// may be a part of a layer's positions: Σ w_p·F_p·F_pᵀ and, with moments, the mean
// μ = Σ w_p·F_p. Parts' sums are added up, and then centred.
func measure(f, guide torch.Tensor, uniform float64, loss StyleLoss) statistics {
	s := statistics{gram: gram(f, guide, uniform)}
	if loss == MomentsLoss {
		f = wide(f)
		if guide.T == nil {
			guide = torch.Cast(torch.Full(uniform, torch.DeviceOf(f), 1, torch.Shape(f)[2]), torch.TypeOf(f))
		}
		s.mean = torch.MatMul(f, torch.Transpose(guide, 0, 1))
	}
	return s
}

// centred makes sums of all positions the statistics: where there is a mean, the
// Gram matrix becomes that of the centred features,
// Σ w_p·(F_p−μ)·(F_p−μ)ᵀ = G − μ·μᵀ.
func (s statistics) centred() statistics {
	if s.mean.T != nil {
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
// such a neighbour, and adds γ·∂TV/∂x to the gradient. (Mahendran and Vedaldi,
// arXiv:1412.0035, equation 4, with β = 2, as a mean.) It goes by bands of rows,
// so that it takes little memory.
func totalVariation(x, gradient torch.Tensor, gamma float64) (variation torch.Tensor) {
	const band = 256
	scale := 1 / each(x)
	rows, columns := torch.Shape(x)[2], torch.Shape(x)[3]
	// Each difference pulls its two ends together. All are views.
	add := func(near, far, gradientNear, gradientFar torch.Tensor) {
		part := torch.Local(func() torch.Tensor {
			difference := torch.Sub(far, near)
			torch.AddInPlace(gradientFar, difference, 2*scale*gamma)
			torch.AddInPlace(gradientNear, difference, -2*scale*gamma)
			return torch.Scale(squares(difference), scale)
		})
		if variation.T != nil {
			part = torch.Add(variation, part)
		}
		variation = part
	}
	for top := int64(0); top < rows; top += band {
		bottom := min(rows, top+band)
		row := func(t torch.Tensor) torch.Tensor { return torch.Slice(t, 2, top, bottom) }
		column := func(t torch.Tensor, from, to int64) torch.Tensor { return torch.Slice(row(t), 3, from, to) }
		add(column(x, 0, columns-1), column(x, 1, columns), column(gradient, 0, columns-1), column(gradient, 1, columns))
		below := min(rows-1, bottom)
		near := func(t torch.Tensor) torch.Tensor { return torch.Slice(t, 2, top, below) }
		far := func(t torch.Tensor) torch.Tensor { return torch.Slice(t, 2, top+1, below+1) }
		add(near(x), far(x), near(gradient), far(gradient))
	}
	return variation
}

// carry adds to into [N,n_C,P] what factor·D = ∂J/∂G, symmetric, and, where there is a mean
// μ, shift = ∂J/∂μ − 2·D·μ [N,n_C,1] are to the features F that they are of:
//
//	∂J/∂F_p = w_p·(2·D·F_p + ∂J/∂μ − 2·D·μ)
//
// Every w_p is uniform where there is no guide. With fresh, into has no values yet.
func carry(into torch.Tensor, fresh bool, f, guide torch.Tensor, uniform, factor float64, D, shift torch.Tensor) {
	keep := 1.0
	if fresh {
		keep = 0
	}
	if guide.T == nil {
		torch.AddProduct(into, D, f, keep, 2*uniform*factor)
		if shift.T != nil {
			torch.AddInPlace(into, shift, uniform)
		}
		return
	}
	g := torch.Scale(torch.MatMul(D, wide(f)), 2*factor)
	if shift.T != nil {
		g = torch.Add(g, shift)
	}
	g = torch.Mul(g, guide)
	if fresh {
		torch.Copy(into, g)
	} else {
		torch.AddInPlace(into, g, 1)
	}
}

// matrix makes feature maps [N,n_C,n_H,n_W] the matrices [N,n_C,n_H·n_W].
func matrix(a torch.Tensor) torch.Tensor { return torch.Flatten(a, 2, 3) }

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
func squares(t torch.Tensor) torch.Tensor { return torch.SquareSums(t) }
