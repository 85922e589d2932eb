package nst_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// previous is what a frame of 64×48 is held to: noise, with weights of 0, 1 and between.
func previous() *nst.Previous {
	p := nst.NoiseOf(7, 64, 48)
	weights := make([]float32, 64*48)
	for i := range weights {
		weights[i] = float32(i%5) / 4
	}
	return &nst.Previous{Picture: p, Weights: weights}
}

// The temporal cost is the mean of w·(x − y)², and its gradient 2·δ·w·(x − y)/n, whole, in
// tiles and in each precision.
func TestTemporalCost(t *testing.T) {
	nsttest.NoLeaks(t)
	e := slim(t, "cpu")
	content, style, start := nst.NoiseOf(1, 64, 48), nst.NoiseOf(2, 48, 48), nst.NoiseOf(3, 64, 48)
	for name, o := range map[string]nst.Options{
		"whole": {Precision: nst.Double, Tile: nst.TileOff},
		"tiles": {Precision: nst.Double, Tile: "32"},
		"fast":  {Precision: nst.Fast},
	} {
		t.Run(name, func(t *testing.T) {
			const delta = 30.0
			o.Size, o.Start, o.Picture = new(0), nst.StartPicture, start
			without, plain, err := e.Evaluate(context.Background(), content, style, o)
			require.NoError(t, err)
			assert.Zero(t, without.Temporal)
			o.Previous, o.TemporalWeight = previous(), new(delta)
			with, gradient, err := e.Evaluate(context.Background(), content, style, o)
			require.NoError(t, err)
			n, want, slope := float64(len(start.Pixels)), 0.0, make([]float32, len(start.Pixels))
			for i, x := range start.Pixels {
				d, w := float64(x)-float64(o.Previous.Picture.Pixels[i]), float64(o.Previous.Weights[i%(64*48)])
				want += w * d * d / n
				slope[i] = float32(2 * delta * w * d / n)
			}
			assert.InEpsilon(t, want, with.Temporal, 1e-6)
			assert.InEpsilon(t, without.Total+delta*want, with.Total, 1e-6)
			for i := range gradient {
				gradient[i] -= plain[i]
			}
			assert.LessOrEqual(t, nsttest.Difference(gradient, slope), 1e-4)
		})
	}
}

// A strong weight leaves what is known as it was, and what is not is free.
func TestTemporalHolds(t *testing.T) {
	e := slim(t, "cpu")
	content, style := nst.NoiseOf(1, 64, 48), nst.NoiseOf(2, 48, 48)
	held := &nst.Previous{Picture: nst.NoiseOf(7, 64, 48), Weights: make([]float32, 64*48)}
	for y := range 48 {
		for x := range 32 {
			held.Weights[y*64+x] = 1
		}
	}
	r, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, nst.Options{Size: new(0),
		Start: nst.StartPicture, Picture: held.Picture, Iterations: new(20), Previous: held, TemporalWeight: new(1e5)},
		nst.Hooks{})
	require.NoError(t, err)
	moved := [2]float64{}
	for i, v := range r.Picture.Pixels {
		d := float64(v - held.Picture.Pixels[i])
		moved[i%64/32] += d * d / float64(len(r.Picture.Pixels)/2)
	}
	assert.Less(t, moved[0], 1e-5)
	assert.Greater(t, moved[1], 1e-4)
}

// What cannot be held to is said at once.
func TestTemporalErrors(t *testing.T) {
	for _, c := range []struct {
		options nst.Options
		says    string
	}{
		{nst.Options{Previous: &nst.Previous{Picture: nst.NoiseOf(1, 64, 48), Weights: []float32{1, 1, 1}}},
			"Previous has 3 weights for 3072 pixels"},
		{nst.Options{Previous: &nst.Previous{}}, "Previous cannot be held to"},
		{nst.Options{TemporalWeight: new(-1.0)}, "TemporalWeight is -1; it cannot be negative"},
		{nst.Options{Previous: previous(), TemporalWeight: new(-2.0)}, "TemporalWeight is -2"},
	} {
		err := c.options.Validate()
		require.ErrorIs(t, err, nst.ErrInvalidOption, c.says)
		assert.ErrorContains(t, err, c.says)
	}
}

// A run of a frame can be gone on with, and not as another.
func TestTemporalCheckpoint(t *testing.T) {
	e := slim(t, "cpu")
	content, style := nst.NoiseOf(1, 64, 48), nst.NoiseOf(2, 48, 48)
	o := nst.Options{Size: new(0), Scales: nst.ScalesOff, Iterations: new(6), Previous: previous()}
	var half *nst.Checkpoint
	whole, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{StateEvery: 1,
		Progress: func(p nst.Progress) {
			if p.Iteration == 3 {
				var err error
				half, err = p.State.Checkpoint()
				assert.NoError(t, err)
			}
		}})
	require.NoError(t, err)
	o.Resume = half
	resumed, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{})
	require.NoError(t, err)
	assert.Equal(t, whole.Picture.Pixels, resumed.Picture.Pixels)
	o.Previous = &nst.Previous{Picture: nst.NoiseOf(8, 64, 48), Weights: o.Previous.Weights}
	_, err = e.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{})
	require.ErrorIs(t, err, nst.ErrCheckpoint)
	assert.ErrorContains(t, err, "previous frames' picture")
}
