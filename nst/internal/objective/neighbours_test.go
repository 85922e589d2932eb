package objective

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// In float64 the gradient of the nearest neighbours' cost is autograd's within 1e-9, on the
// grid and in squares of it, with weights of positions and without.
func TestNeighboursGradient(t *testing.T) {
	const c, rows, columns, candidates = 5, 3, 2, 7
	spec := &Spec{Style: weighted(t, 1, "relu1_1", "relu3_1"), Beta: 3, Normalisation: MeanSquare, Neighbours: true}
	grid := spec.Grid()
	require.Equal(t, 4, grid)
	for name, s := range map[string]struct {
		layer   int
		weights bool
	}{"squares": {0, false}, "squares, weighed": {0, true}, "the grid": {1, false}, "the grid, weighed": {1, true}} {
		t.Run(name, func(t *testing.T) {
			nsttest.NoLeaks(t)
			require.NoError(t, torch.Scoped(func() error {
				layer := spec.Style[s.layer].Layer
				r := finer(layer, grid)
				random := rand.New(rand.NewPCG(3, 1))
				values := func(shape ...int64) torch.Tensor {
					n := int64(1)
					for _, d := range shape {
						n *= d
					}
					out := make([]float32, n)
					for i := range out {
						out[i] = random.Float32()
					}
					return torch.Cast(torch.FromFloats(out, torch.CPU, shape...), torch.Float64)
				}
				F, mean := values(1, c*r*r, rows, columns), values(1, c, 1) // squares of r×r positions
				units := torch.View(values(1, c, r*r*candidates), c, r*r*candidates)
				units = torch.View(torch.Mul(units, torch.Pow(torch.View(torch.Sums(torch.Transpose(torch.Mul(units,
					units), 0, 1)), 1, r*r*candidates), -0.5)), c*r*r, candidates)
				of := &neighbourhood{share: 0.5}
				m := &matches{weight: 1,
					units: map[torch.Device]map[vgg19.Layer]torch.Tensor{torch.CPU: {layer: units}},
					nearest: torch.Cast(torch.FromFloats([]float32{3, 0, 6, 3, 1, 2}, torch.CPU, 1, 1, rows, columns),
						torch.Int64)}
				of.pictures = [][]*matches{{m}}
				each := torch.Scale(torch.Cast(torch.Full(1, torch.CPU, 1, 1, rows, columns), torch.Float64),
					1./(rows*columns))
				if s.weights {
					each = values(1, 1, rows, columns)
					of.guides = map[int]torch.Tensor{grid: each}
				}
				term := &neighbourTerm{of: of, layer: layer, weight: 1, mean: mean}
				weight := spec.Beta * of.share
				one := torch.Cast(torch.Full(1, torch.CPU, 1), torch.Float64)
				term.normaliser = spec.newNormaliser(one, 1, styleMeanSquare(c), statisticDimensions, weight)
				defer term.normaliser.close()
				whole := vgg19.Window{Bottom: rows * grid, Right: columns * grid}
				tile := tiling.Tile{Own: whole, Seen: whole}
				e := &Evaluator{spec: spec, width: columns * grid, height: rows * grid}

				// Σ_p w_p·‖u(F_p − μ) − t_p‖², one operation after the other.
				torch.RequireGrad(F, true)
				positions := []int64{1, c, r * r * rows * columns}
				centred := torch.Sub(torch.View(F, positions...), mean)
				ones := torch.Cast(torch.Full(1, torch.CPU, 1, 1, c), torch.Float64)
				lengths := torch.Bmm(ones, torch.Mul(centred, centred))
				difference := torch.Sub(torch.Mul(centred, torch.Pow(lengths, -0.5)),
					torch.View(term.targets(tile, grid, torch.CPU), positions...))
				flat := torch.View(torch.Scale(each, 1/float64(r*r)), 1, rows*columns)
				var all []torch.Tensor
				for range r * r {
					all = append(all, flat)
				}
				weights := torch.View(torch.Stack(all, 0), 1, 1, positions[2])
				sum := torch.Sum(torch.Mul(torch.Mul(difference, difference), weights))
				torch.Backward([]torch.Tensor{sum}, nil)

				torch.NoGrad(func() {
					maps := torch.Detach(F)
					if r > 1 {
						maps = torch.PixelShuffle(maps, r)
					}
					got, norms := torch.EmptyLike(maps), map[positional]torch.Tensor{}
					term.addGradient(e, maps, got, true, tile, torch.CPU, norms)
					if r > 1 {
						got = torch.PixelUnshuffle(got, r)
					}
					square := math.Pow(torch.Float64s(norms[term])[0], 2)
					torch.Close(norms[term])
					assert.InEpsilon(t, torch.Float64s(torch.Detach(sum))[0], square, 1e-9)
					factor := term.normaliser.cost(0, weight, square) / square
					want := torch.Scale(torch.Gradient(F), factor)
					size := torch.Float64s(torch.Norms(want))[0]
					require.Positive(t, size)
					assert.LessOrEqual(t, torch.Float64s(torch.Norms(torch.Sub(got, want)))[0]/size, 1e-9)
				})
				return nil
			}))
		})
	}
}
