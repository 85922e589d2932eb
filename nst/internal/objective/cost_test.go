package objective

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/torch"
)

// The costs by hand: two feature maps of two positions.
func TestCosts(t *testing.T) {
	nsttest.NoLeaks(t)
	read := func(t torch.Tensor) float64 { return torch.Float64s(t)[0] }
	require.NoError(t, torch.Scoped(func() error {
		a := torch.FromFloats([]float32{1, 2, 3, 4}, torch.CPU, 1, 2, 1, 2) // maps (1,2) and (3,4)
		b := torch.FromFloats([]float32{0, 0, 0, 2}, torch.CPU, 1, 2, 1, 2)
		assert.Equal(t, []float32{5. / 2, 11. / 2, 11. / 2, 25. / 2}, torch.Floats(GramMatrix(a)))
		assert.Equal(t, []float32{0, 0, 0, 2}, torch.Floats(GramMatrix(b)))
		assert.InDelta(t, (1+4+9+4)/(4.*2*2), read(ContentCost(a, b)), 1e-6)
		style := StyleCost(GramMatrix(a), GramMatrix(b))
		assert.InDelta(t, (2.5*2.5+2*5.5*5.5+10.5*10.5)/(4.*4), read(style), 1e-5)
		assert.InDelta(t, 10*18./16+40*read(style), read(TotalCost(ContentCost(a, b), style, 10, 40)), 1e-3)
		return nil
	}))
}

// Features of half precision have Gram matrices and costs without overflow.
func TestHalfPrecisionDoesNotOverflow(t *testing.T) {
	nsttest.NoLeaks(t)
	values := make([]float32, 64*40*40)
	for i := range values {
		values[i] = float32(i%97) * 600 // up to 57,600, as near to float16's limit
	}
	require.NoError(t, torch.Scoped(func() error {
		a := torch.FromFloats(values, torch.CPU, 1, 64, 40, 40)
		want := torch.Floats(GramMatrix(a))
		for _, scalar := range []torch.ScalarType{torch.Float16, torch.BFloat16} {
			half := torch.Cast(a, scalar)
			g := GramMatrix(half)
			assert.Equal(t, torch.Float32, torch.TypeOf(g))
			for i, v := range torch.Floats(g) {
				require.InEpsilon(t, want[i], v, 0.01)
			}
			cost := ContentCost(torch.Scale(half, 0), half)
			assert.InEpsilon(t, torch.Floats(ContentCost(torch.Scale(a, 0), a))[0], torch.Floats(cost)[0], 0.01)
			style := StyleCost(torch.Scale(g, 0), g)
			assert.False(t, math.IsInf(float64(torch.Floats(style)[0]), 0))
		}
		return nil
	}))
}
