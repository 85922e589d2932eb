package objective

import "github.com/seed9bb5c928/nst/torch"

// The paper's costs are means of squared differences d:
//
//	J_content(C,G) = 1/(4·n_C·n_H·n_W) · Σ (a_C − a_G)²   (equation 1, which has ½ for the factor)
//	J_style(S,G)   = 1/(4·n_C²) · Σ (G_S − G_G)²          (equation 4; n_H·n_W is in the Gram matrices)
//
// In both, with n differences,
//
//	J = ‖d‖²/(4n)    ∂J/∂d = d/(2n)
//
// An evaluation finds ‖d‖² on the device, and multiplies it, and d, by these.

// quarterMean is J of n differences, by the sum of their squares.
func quarterMean(squares, n float64) float64 { return squares / (4 * n) }

// quarterMeanSlope is what a difference is multiplied by to be ∂J/∂d, times weight.
func quarterMeanSlope(weight, n float64) float64 { return weight / (2 * n) }

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
