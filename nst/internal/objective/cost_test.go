package objective

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/torch"
)

// The Gram matrix and the costs by hand: two feature maps of two positions.
func TestCosts(t *testing.T) {
	nsttest.NoLeaks(t)
	require.NoError(t, torch.Scoped(func() error {
		a := torch.FromFloats([]float32{1, 2, 3, 4}, torch.CPU, 1, 2, 2) // maps (1,2) and (3,4)
		b := torch.FromFloats([]float32{0, 0, 0, 2}, torch.CPU, 1, 2, 2)
		half := func(f torch.Tensor) torch.Tensor { return gram(Features{F: f, Uniform: 1. / 2}) }
		assert.Equal(t, []float32{5. / 2, 11. / 2, 11. / 2, 25. / 2}, torch.Floats(half(a)))
		assert.Equal(t, []float32{0, 0, 0, 2}, torch.Floats(half(b)))
		squares := func(d torch.Tensor) float64 { return torch.Float64s(torch.SquareSums(d))[0] }
		assert.InDelta(t, (1+4+9+4)/(4.*2*2), quarterMean(squares(torch.Sub(a, b)), 4), 1e-6)
		assert.InDelta(t, (2.5*2.5+2*5.5*5.5+10.5*10.5)/(4.*4), quarterMean(squares(torch.Sub(half(a), half(b))), 4),
			1e-5)
		// A guide that counts the second position alone.
		guide := torch.FromFloats([]float32{0, 1}, torch.CPU, 1, 2)
		assert.Equal(t, []float32{4, 8, 8, 16}, torch.Floats(gram(Features{F: a, Guide: guide})))
		return nil
	}))
}

// Features of half precision have Gram matrices without overflow.
func TestHalfPrecisionDoesNotOverflow(t *testing.T) {
	nsttest.NoLeaks(t)
	values := make([]float32, 64*40*40)
	for i := range values {
		values[i] = float32(i%97) * 600 // up to 57,600, as near to float16's limit
	}
	require.NoError(t, torch.Scoped(func() error {
		a := torch.FromFloats(values, torch.CPU, 1, 64, 40*40)
		sum := func(f torch.Tensor) torch.Tensor { return gram(Features{F: f, Uniform: 1. / 1600}) }
		want := torch.Floats(sum(a))
		for _, scalar := range []torch.ScalarType{torch.Float16, torch.BFloat16} {
			g := sum(torch.Cast(a, scalar))
			assert.Equal(t, torch.Float32, torch.TypeOf(g))
			for i, v := range torch.Floats(g) {
				require.InEpsilon(t, want[i], v, 0.01)
			}
			squares := torch.Float64s(torch.SquareSums(wide(torch.Cast(a, scalar))))[0]
			assert.InEpsilon(t, torch.Float64s(torch.SquareSums(a))[0], squares, 0.01)
		}
		return nil
	}))
}
