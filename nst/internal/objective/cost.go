package objective

import "github.com/seed9bb5c928/nst/torch"

// The costs as the paper has them are mean squares of differences: of feature maps
// (equation 1, which has ½ for the factor), or of Gram matrices (equation 4). Of n
// differences d
//
//	J = 1/(4n) · ‖d‖²    ∂J/∂d = d/(2n)
//
// An evaluation finds ‖d‖² on the device, and weighs it with these.

// quarterMean is J of n differences, by the sum of their squares.
func quarterMean(squares, n float64) float64 { return squares / (4 * n) }

// quarterMeanSlope is what a difference is multiplied by to be ∂J/∂d, times weight.
func quarterMeanSlope(weight, n float64) float64 { return weight / (2 * n) }

// ContentCost returns
//
//	J_content(C,G) = 1/(4·n_H·n_W·n_C) · Σ (a_C − a_G)²
//
// [N], for one layer's feature maps of the content and the generated pictures.
func ContentCost(aC, aG torch.Tensor) torch.Tensor { return costOf(torch.Sub(wide(aG), wide(aC))) }

// StyleCost returns
//
//	J_style(S,G) = 1/(4·n_C²) · Σ (G_S − G_G)²
//
// [N], for one layer's Gram matrices of the style and the generated pictures (the sizes
// n_H·n_W being in the Gram matrices).
func StyleCost(gS, gG torch.Tensor) torch.Tensor { return costOf(torch.Sub(gG, gS)) }

// costOf is each picture's cost [N] by its differences.
func costOf(d torch.Tensor) torch.Tensor {
	return torch.Scale(torch.SquareSums(d), quarterMean(1, valuesEach(d)))
}

// TotalCost returns J(G) = α·J_content(C,G) + β·J_style(S,G) (equation 7).
func TotalCost(content, style torch.Tensor, alpha, beta float64) torch.Tensor {
	return torch.Add(torch.Scale(content, alpha), torch.Scale(style, beta))
}

// matrix makes feature maps [N,n_C,n_H,n_W] the matrices F [N,n_C,n_H·n_W].
func matrix(a torch.Tensor) torch.Tensor { return torch.Flatten(a, 2, 3) }

// valuesEach is the number of values of each of the N pictures.
func valuesEach(t torch.Tensor) float64 { return float64(torch.Count(t) / torch.Shape(t)[0]) }

// wide is t in float32 if it is of half precision, whose sums and products overflow or
// lose their small parts; else t.
func wide(t torch.Tensor) torch.Tensor {
	if scalar := torch.TypeOf(t); scalar == torch.Float16 || scalar == torch.BFloat16 {
		return torch.Cast(t, torch.Float32)
	}
	return t
}
