package nst

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// A panic of the caller's functions, on whichever thread, is the run's error; the engine
// goes on as before.
func TestPanicsAreErrors(t *testing.T) {
	nsttest.Long(t)
	nsttest.NoLeaks(t)
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: "cpu:2"})
	require.NoError(t, err)
	content, styles := noise(1, 64, 48), []*picture.Picture{noise(2, 64, 64)}
	run := func(h Hooks) (*Result, error) {
		o := Options{Size: new(0), Iterations: new(2), Tile: "16", Scales: ScalesOff}
		return e.Stylize(context.Background(), content, styles, o, h)
	}
	want, err := run(Hooks{})
	require.NoError(t, err)
	for name, hooks := range map[string]Hooks{
		"progress": {Progress: func(Progress) { panic("progress") }},
		"tile":     {Tile: func(int, int) { panic("tile") }},
		"nil":      {Progress: func(Progress) { var p *picture.Picture; _ = p.Width }},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(hooks)
			var p *PanicError
			require.ErrorAs(t, err, &p)
			assert.NotEmpty(t, p.Stack)
			assert.NotContains(t, p.Error(), "goroutine")
			got, err := run(Hooks{})
			require.NoError(t, err)
			assert.Equal(t, want.Picture, got.Picture)
		})
	}
	e.Close()
	e.Close()
}

// What one run limits is no other engine's: each has a thread of its own.
func TestLimitsAreARunsOwn(t *testing.T) {
	one, other := torch.StartThread(torch.CPU), torch.StartThread(torch.CPU)
	defer one.Close()
	defer other.Close()
	ctx := context.Background()
	large := func() error { torch.Full(0, torch.CPU, 1<<20); return nil }
	require.NoError(t, one.Do(ctx, func() error { torch.LimitHostTensors(1 << 20); return nil }))
	require.ErrorIs(t, one.Do(ctx, large), torch.ErrOutOfMemory)
	require.NoError(t, other.Do(ctx, large))
	require.NoError(t, other.Do(ctx, func() error { torch.LimitHostTensors(0); return nil }))
	require.ErrorIs(t, one.Do(ctx, large), torch.ErrOutOfMemory, "another's end lifts no limit")
}
