package nst

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// A run that is cancelled while a later scale is prepared, or evaluated for the first
// time, has the picture and the checkpoint of the scale before.
func TestCancelledBetweenScales(t *testing.T) {
	nsttest.Long(t)
	nsttest.NoLeaks(t)
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	layers := []LayerWeight{{Layer: "relu2_1"}}
	content, styles := noise(1, 96, 64), []*picture.Picture{noise(2, 80, 80)}
	o := Options{Size: new(0), Scales: "64", Iterations: new(24), Tile: "32", ContentLayers: layers,
		StyleLayers: layers}
	first := shares(24, []int{64, 96})[0]
	require.Greater(t, first, 1, "else nothing is there when it is cancelled")
	want, err := e.Stylize(context.Background(), content, styles, o, Hooks{})
	require.NoError(t, err)
	cancelled := 0
	for after := 1; after < 80; after += 5 { // tiles, after the last step of the first scale
		ctx, cancel := context.WithCancel(context.Background())
		var checkpoint *Checkpoint
		steps, tiles, ends := 0, 0, 0
		r, err := e.Stylize(ctx, content, styles, o, Hooks{
			Progress: func(p Progress) {
				if steps = p.Iteration; p.Last {
					ends++
					checkpoint, err = p.State.Checkpoint()
					require.NoError(t, err)
				}
			},
			Tile: func(done, all int) {
				if steps >= first-1 {
					if tiles++; tiles == after {
						cancel()
					}
				}
			},
		})
		reached := ctx.Err() != nil
		cancel()
		if !reached { // the run has fewer
			require.NoError(t, err)
			break
		}
		cancelled++
		require.ErrorIs(t, err, context.Canceled, "cancelled after %d tiles", after)
		require.NotNil(t, r, "cancelled after %d tiles", after)
		assert.Equal(t, 96, r.Picture.Width)
		assert.Equal(t, 1, ends)
		o := o
		o.Resume = checkpoint
		resumed, err := e.Stylize(context.Background(), content, styles, o, Hooks{})
		require.NoError(t, err, "cancelled after %d tiles", after)
		assert.Equal(t, want.Picture, resumed.Picture, "cancelled after %d tiles", after)
	}
	assert.Greater(t, cancelled, 5)
}

// As many styles as there are can be blended, however many the cache keeps.
func TestManyStyles(t *testing.T) {
	nsttest.NoLeaks(t)
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	layers := []LayerWeight{{Layer: "relu1_1"}}
	o := Options{Size: new(0), Iterations: new(1), Scales: ScalesOff, ContentLayers: layers, StyleLayers: layers}
	var styles []*picture.Picture
	for i := range cachedStyles + 10 {
		styles = append(styles, noise(uint64(i), 16, 16))
	}
	_, err = e.Stylize(context.Background(), noise(0, 16, 16), styles, o, Hooks{})
	assert.NoError(t, err)
}

// A shortage of memory is one wherever in a run it comes, and a hook that calls the engine
// is told.
func TestErrorsOfARun(t *testing.T) {
	nsttest.NoLeaks(t)
	const device = "pretend:1"
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", OpenOptions{Device: device})
	require.NoError(t, err)
	defer e.Close()
	layers := []LayerWeight{{Layer: "relu2_1"}}
	o := Options{Size: new(0), Scales: "64", Iterations: new(4), ContentLayers: layers, StyleLayers: layers,
		Tile: TileOff}
	content, styles := noise(1, 96, 64), []*picture.Picture{noise(2, 80, 80)}
	limit := func(bytes int64) {
		_, err := torch.ControlDevice("memory-limit", bytes)
		require.NoError(t, err)
	}
	defer limit(0)
	for steps := range 4 {
		_, err = e.Stylize(context.Background(), content, styles, o, Hooks{Progress: func(p Progress) {
			if p.Iteration == steps {
				limit(1)
			}
		}})
		limit(0)
		assert.ErrorIs(t, err, torch.ErrOutOfMemory, "after %d steps", steps)
	}
	_, err = e.Stylize(context.Background(), content, styles, o, Hooks{Progress: func(p Progress) {
		_, err := e.Stylize(context.Background(), content, styles, o, Hooks{})
		assert.ErrorContains(t, err, "hook")
	}})
	assert.NoError(t, err)
}

// A run that is cancelled in its last evaluation, or while Adam's average is tried, says so.
func TestCancelledAtTheEnd(t *testing.T) {
	nsttest.NoLeaks(t)
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	layers := []LayerWeight{{Layer: "relu2_1"}}
	content, styles := noise(1, 48, 32), []*picture.Picture{noise(2, 40, 40)}
	for _, optimizer := range []Optimizer{Adam, LBFGS} {
		o := Options{Size: new(0), Scales: ScalesOff, Iterations: new(2), Tile: "16", Optimizer: optimizer,
			ContentLayers: layers, StyleLayers: layers}
		run := func(after int) (r *Result, tiles int, last Progress, err error) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r, err = e.Stylize(ctx, content, styles, o, Hooks{
				Progress: func(p Progress) { last = p },
				Tile: func(int, int) {
					if tiles++; tiles == after {
						cancel()
					}
				},
			})
			return r, tiles, last, err
		}
		_, _, last, err := run(-1)
		require.NoError(t, err)
		assert.Equal(t, 1.0, last.Fraction)
		want, all, _, err := run(-1) // the style is remembered
		require.NoError(t, err)
		for after := all - 6; after < all; after++ {
			r, _, _, err := run(after)
			require.NotNil(t, r)
			assert.ErrorIs(t, err, context.Canceled, "%s, after %d of %d tiles", optimizer, after, all)
			assert.GreaterOrEqual(t, r.Costs.Total, want.Costs.Total)
		}
	}
}

// A hook that ends its goroutine, as a failing test does, ends the run alone.
func TestHookThatEndsItsGoroutine(t *testing.T) {
	nsttest.NoLeaks(t)
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", OpenOptions{Device: "cpu:2"})
	require.NoError(t, err)
	defer e.Close()
	layers := []LayerWeight{{Layer: "relu2_1"}}
	content, styles := noise(1, 48, 32), []*picture.Picture{noise(2, 40, 40)}
	o := Options{Size: new(0), Scales: ScalesOff, Iterations: new(1), Tile: "16", ContentLayers: layers,
		StyleLayers: layers}
	for name, h := range map[string]Hooks{
		"tile":     {Tile: func(int, int) { runtime.Goexit() }},
		"progress": {Progress: func(Progress) { runtime.Goexit() }},
	} {
		_, err := e.Stylize(context.Background(), content, styles, o, h)
		assert.ErrorContains(t, err, "ended its goroutine", name)
		_, err = e.Stylize(context.Background(), content, styles, o, Hooks{})
		assert.NoError(t, err, name)
	}
	_, err = new(State).Picture()
	assert.ErrorIs(t, err, ErrState)
}
