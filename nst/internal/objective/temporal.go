package objective

import "github.com/seed9bb5c928/nst/torch"

// Temporal is what a frame of a video is held to: where the frames before it, as they moved,
// are known.
type Temporal struct {
	// Target is y [1,3,H,W], and Roots the square roots of its weights w, [1,1,H,W].
	Target, Roots torch.Tensor
}

// keep takes the tensors out of every scope.
func (t *Temporal) keep() { torch.Keep(t.Target); torch.Keep(t.Roots) }

func (t *Temporal) close() {
	if t != nil {
		torch.Close(t.Target, t.Roots)
	}
}

// cost returns
//
//	J_temporal(x) = 1/n · Σ w·(x − y)²
//
// [1] for a picture x [1,3,H,W] of n values, and adds δ·∂J_temporal/∂x to the gradient.
// (Ruder, Dosovitskiy and Brox, arXiv:1604.08610, their temporal consistency loss.)
func (t *Temporal) cost(x, gradient torch.Tensor, delta float64) torch.Tensor {
	n := valuesEach(x)
	return torch.Local(func() torch.Tensor {
		difference := torch.Sub(x, t.Target)
		torch.MulInPlace(difference, t.Roots)
		sum := torch.Scale(torch.SquareSums(difference), 1/n)
		torch.MulInPlace(difference, t.Roots)
		torch.AddInPlace(gradient, difference, 2*delta/n)
		return sum
	})
}
