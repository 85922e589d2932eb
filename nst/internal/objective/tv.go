package objective

import "github.com/seed9bb5c928/nst/torch"

// totalVariation returns
//
//	TV(x) = 1/n · Σ (x_right − x)² + (x_below − x)²
//
// [N] for pictures x [N,3,H,W] of n values, the sums running over all that have
// such a neighbour, which in the directions of wrap are all, and adds γ·∂TV/∂x to the gradient. (Mahendran and Vedaldi,
// arXiv:1412.0035, equation 4, with β = 2, as a mean.) It goes by bands of rows,
// so that it takes little memory.
func totalVariation(x, gradient torch.Tensor, gamma float64, wrap torch.Wrap) (variation torch.Tensor) {
	const band = 256
	scale := 1 / valuesEach(x)
	rows, columns := torch.Shape(x)[2], torch.Shape(x)[3]
	// Each difference pulls its two ends together. All are views.
	add := func(near, far, gradientNear, gradientFar torch.Tensor) {
		part := torch.Local(func() torch.Tensor {
			difference := torch.Sub(far, near)
			torch.AddInPlace(gradientFar, difference, 2*scale*gamma)
			torch.AddInPlace(gradientNear, difference, -2*scale*gamma)
			return torch.Scale(torch.SquareSums(difference), scale)
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
		add(column(x, 0, columns-1), column(x, 1, columns), column(gradient, 0, columns-1),
			column(gradient, 1, columns))
		below := min(rows-1, bottom)
		near := func(t torch.Tensor) torch.Tensor { return torch.Slice(t, 2, top, below) }
		far := func(t torch.Tensor) torch.Tensor { return torch.Slice(t, 2, top+1, below+1) }
		add(near(x), far(x), near(gradient), far(gradient))
	}
	seam := func(dim, n int64) {
		edge := func(t torch.Tensor, at int64) torch.Tensor { return torch.Slice(t, dim, at, at+1) }
		add(edge(x, n-1), edge(x, 0), edge(gradient, n-1), edge(gradient, 0))
	}
	if wrap.X {
		seam(3, columns)
	}
	if wrap.Y {
		seam(2, rows)
	}
	return variation
}
