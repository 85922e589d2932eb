package objective

import (
	"math"

	"github.com/seed9bb5c928/nst/torch"
)

// SelfSimilarity compares how like each other a picture's positions are (Kolkin et al. 2019,
// arXiv:1904.12785, equation 2): what is alike in the content is to be alike in the result,
// whatever it looks like there. With the cosine distances D_ij = 1 − u(F_i)·u(F_j) between K
// positions,
//
//	R_ij = D_ij / Σ_k D_kj,   J = Σ_ij (R_ij − T_ij)²
//
// where T is the content's R. (The paper has |R−T|, whose slope jumps: L-BFGS minds.) The
// positions are those of every step-th row and column, similarityPositions at most.
type SelfSimilarity struct{}

const (
	chosen       Statistic = "chosen"     // features [N,n_C,K] at the positions
	similarities Statistic = "similarity" // R [N,K,K]
)

// leastDistance is the mean distance D below which positions are alike.
const leastDistance = 1e-6

// similarityPositions is about how many the paper compares.
const similarityPositions = 1024

func similarityLattice(at Place) lattice { return newLattice(at.Height, at.Width, similarityPositions) }

// onLattice is a view of the positions of a tile's maps [N,n_C,P] that are compared, and where
// they begin among all of those.
func onLattice(maps torch.Tensor, at Place) (part torch.Tensor, top, left int64) {
	shape := torch.Shape(maps)
	return similarityLattice(at).of(torch.View(maps, shape[0], shape[1], at.Rows, at.Columns), at.Top, at.Left)
}

// Sums are the features at the positions that are compared, and 0 where another tile has
// them.
func (SelfSimilarity) Sums(f Features) Statistics {
	part, top, left := onLattice(f.F, f.At)
	lat := similarityLattice(f.At)
	return Statistics{chosen: matrix(torch.Pad(wide(part), top, left, lat.rows, lat.columns))}
}

// compared are u(F_i), their lengths, the sums of D's columns [N,1,K], and R.
func (SelfSimilarity) compared(sums Statistics) (units, lengths, columns, R torch.Tensor) {
	units, lengths = torch.Units(sums[chosen], torch.Tensor{})
	d := torch.Bmm(torch.Transpose(units, 1, 2), units)
	torch.ScaleInPlace(d, -1)
	torch.AddInPlace(d, torch.Full(1, torch.DeviceOf(d)), 1)
	columns = columnSumsOf(d)
	// Of a picture that is all alike D is what rounding leaves.
	torch.ClampInPlace(columns, leastDistance*float64(torch.Shape(d)[1]), math.Inf(1))
	torch.MulInPlace(d, torch.Pow(columns, -1))
	return units, lengths, columns, d
}

// columnSumsOf are those of matrices [N,K,K], [N,1,K].
func columnSumsOf(m torch.Tensor) torch.Tensor {
	shape := torch.Shape(m)
	ones := torch.Cast(torch.Full(1, torch.DeviceOf(m), shape[0], 1, shape[1]), torch.TypeOf(m))
	return torch.Bmm(ones, m)
}

// Statistics are R.
func (s SelfSimilarity) Statistics(sums Statistics) Statistics {
	_, _, _, R := s.compared(sums)
	return Statistics{similarities: R}
}

// Target is the content's R.
func (SelfSimilarity) Target(content Statistics) (Statistics, Terms) {
	return content, differences(content)
}

// Compare finds, with S = ∂J/∂R, ∂J/∂D_ij = (S_ij − Σ_k S_kj·R_kj)/Σ_k D_kj = E_ij, and
// ∂J/∂u(F_i) = −Σ_j (E_ij + E_ji)·u(F_j).
func (s SelfSimilarity) Compare(sums Statistics, target Target) (norms Statistics, slopes Slopes) {
	units, lengths, columns, R := s.compared(sums)
	d, norm := target.difference(similarities, Statistics{similarities: R})
	target.normalisers[similarities].applySlope(d)
	torch.MulInPlace(R, d) // it is not needed any more
	torch.Subtract(d, d, columnSumsOf(R))
	torch.MulInPlace(d, torch.Pow(columns, -1))
	e := torch.Add(d, torch.Transpose(d, 1, 2))
	g := torch.Bmm(units, e)
	torch.ScaleInPlace(g, -1)
	torch.UnitsBackwardInPlace(g, units, lengths)
	return Statistics{similarities: norm}, Slopes{Statistics{chosen: g}, 1}
}

// Recordable is true.
func (SelfSimilarity) Recordable() bool { return true }

// Memory is that of matrices of the positions that are compared, and of their features.
func (SelfSimilarity) Memory(of Extent) Takes {
	lat := similarityLattice(of.At)
	k := lat.rows * lat.columns
	features, matrices := of.Pictures*of.Maps*k*of.wideValue(), of.Pictures*k*k*of.wideValue()
	return Takes{Summing: 2 * features, Comparing: 3*matrices + 2*features, Held: 2*features + matrices,
		Statistics: matrices / of.Pictures}
}

// AddGradient adds ∂J/∂F at the positions that are compared.
func (SelfSimilarity) AddGradient(into Gradient, f Features, slopes Slopes) {
	if into.Fresh {
		torch.Copy(into.Into, torch.Full(0, torch.DeviceOf(into.Into)))
	}
	part, top, left := onLattice(into.Into, f.At)
	if torch.Count(part) == 0 {
		return
	}
	g, lat, shape := slopes.Of[chosen], similarityLattice(f.At), torch.Shape(part)
	g = torch.View(g, shape[0], shape[1], lat.rows, lat.columns)
	torch.AddInPlace(part, window(g, top, left, shape[2], shape[3]), slopes.Factor)
}
