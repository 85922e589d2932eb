package video

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// threeShots is a clip with two cuts, of 8 frames.
func threeShots(t *testing.T) *Clip {
	t.Helper()
	c, err := Probe(context.Background(), nsttest.Shots(t, ".mkv"))
	require.NoError(t, err)
	return c
}

// twoEngines are on the CPU, each by itself.
func twoEngines(t *testing.T) []*nst.Engine {
	t.Helper()
	engines, err := nst.OpenEach(context.Background(), nsttest.Slim(t), nst.OpenOptions{Device: "cpu,cpu"})
	require.NoError(t, err)
	require.Len(t, engines, 2)
	for _, e := range engines {
		t.Cleanup(e.Close)
	}
	return engines
}

// ours is an identity of runs.
var ours = map[string]string{"clip": "c"}

// newStore is one without frames.
func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := CreateStore(filepath.Join(t.TempDir(), "frames"), ours)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// assertSame says whether two stores have the same frames, to the last bit, whatever their order.
func assertSame(t *testing.T, passes, frames int, want, got *Store) {
	t.Helper()
	require.Equal(t, passes*frames, want.done(0))
	require.Equal(t, passes*frames, got.done(0))
	for pass := 1; pass <= passes; pass++ {
		for i := range frames {
			a, _ := want.Made(pass, i)
			b, ok := got.Made(pass, i)
			require.True(t, ok, "frame %d of pass %d", i, pass)
			assert.Equal(t, a, b, "frame %d of pass %d", i, pass)
			one, err := want.Result(pass, i)
			require.NoError(t, err)
			other, err := got.Result(pass, i)
			require.NoError(t, err)
			assert.Equal(t, one.Pixels, other.Pixels, "frame %d of pass %d", i, pass)
		}
	}
}

// flows are torch.Flow's, of which it is known whether a frame is looked at, as it is first, or
// made. In one pass, held to one frame, each flow is asked for once for either.
type flows struct {
	mutex sync.Mutex
	asked map[[2]int]bool
	// called is told of each flow back to an earlier frame.
	called func(ctx context.Context, frame int, making bool) error
}

func (f *flows) flow(ctx context.Context, from, to Numbered) ([]float32, error) {
	pair := [2]int{from.Index, to.Index}
	f.mutex.Lock()
	making := f.asked[pair]
	if f.asked == nil {
		f.asked = map[[2]int]bool{}
	}
	f.asked[pair] = true
	f.mutex.Unlock()
	if from.Index > to.Index {
		if err := f.called(ctx, from.Index, making); err != nil {
			return nil, err
		}
	}
	return OwnFlow(ctx, from, to)
}

// Shots that are made apart are those of one engine, to the last bit: also what the first frame
// settles, and what a cut is by frames farther back.
func TestShots(t *testing.T) {
	nsttest.Idle(t)
	clip, engines := threeShots(t), twoEngines(t)
	for name, c := range map[string]struct {
		passes int
		change func(*Options)
	}{
		"far back":           {1, func(o *Options) { o.LongTerm = []int{2, 3} }},
		"two passes, colour": {2, func(o *Options) { o.Color = nst.ColorMatch }},
	} {
		t.Run(name, func(t *testing.T) {
			run := Run{Engine: engines[0], Clip: clip, Styles: []*picture.Picture{waves(64, 64, 3, 9)},
				Options: quick(), Passes: c.passes, Store: newStore(t)}
			c.change(&run.Options)
			alone := run
			require.NoError(t, alone.Make(context.Background()))
			frames, shots := alone.Store.Count(0)
			require.Equal(t, [2]int{8, 3}, [2]int{frames, shots})

			var within atomic.Int32
			one := func() {
				assert.EqualValues(t, 1, within.Add(1), "callbacks wait for each other")
				within.Add(-1)
			}
			read, done := 0, 0
			run.Beside, run.Store = engines[1:], newStore(t)
			run.Reading = func(i int) {
				one()
				assert.Equal(t, read, i)
				read++
			}
			run.Hooks = nst.Hooks{Progress: func(nst.Progress) { one() }, Tile: func(int, int) { one() }}
			run.Progress = func(p Progress) {
				one()
				done++
				assert.Equal(t, [3]int{done, 8, c.passes}, [3]int{p.Done, p.Frames, p.Passes})
			}
			require.NoError(t, run.Make(context.Background()))
			assert.Equal(t, [2]int{8, 8 * c.passes}, [2]int{read, done})
			assertSame(t, c.passes, 8, alone.Store, run.Store)
		})
	}
}

// Shots are made at the same time, and each as soon as it begins: its end need not be known.
func TestShotsAtTheSameTime(t *testing.T) {
	nsttest.Idle(t)
	clip, engines := threeShots(t), twoEngines(t)
	options := quick()
	options.LongTerm = []int{1}
	first, second := make(chan struct{}), make(chan struct{})
	wait := func(ctx context.Context, what chan struct{}) error {
		select {
		case <-what:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f := flows{called: func(ctx context.Context, frame int, making bool) error {
		switch {
		case making && frame == 1:
			close(first)
		case !making && frame == 2: // the shot's end is found when it is under way
			return wait(ctx, first)
		case making && frame == 4: // of the second shot
			close(second)
		case making && frame == 2: // of the first one
			return wait(ctx, second)
		}
		return nil
	}}
	run := Run{Engine: engines[0], Beside: engines[1:], Clip: clip, Styles: []*picture.Picture{waves(64, 64, 3, 9)},
		Options: options, Flow: f.flow, Store: newStore(t)}
	require.NoError(t, run.Make(context.Background()))
	assert.Equal(t, 8, run.Store.done(0))
}

// A shot that fails ends the others, and the search for more: its error is the run's, and what
// is done is kept.
func TestShotsFail(t *testing.T) {
	nsttest.Idle(t)
	clip, engines := threeShots(t), twoEngines(t)
	options := quick()
	options.LongTerm = []int{1}
	broken := errors.New("no flow today")
	for _, making := range []bool{true, false} { // when a frame is made, or looked at
		f := flows{called: func(ctx context.Context, frame int, now bool) error {
			if frame == 2 && now == making {
				return broken
			}
			if frame > 2 && !now { // an engine waits for the second shot
				<-ctx.Done()
			}
			return ctx.Err()
		}}
		run := Run{Engine: engines[0], Beside: engines[1:], Clip: clip, Styles: []*picture.Picture{waves(64, 64, 3, 9)},
			Options: options, Flow: f.flow, Store: newStore(t)}
		require.ErrorIs(t, run.Make(context.Background()), broken)
		assert.Equal(t, 2, run.Store.done(0))
		run.Flow = nil
		require.NoError(t, run.Make(context.Background()))
		alone := run
		alone.Beside, alone.Store = nil, newStore(t)
		require.NoError(t, alone.Make(context.Background()))
		assertSame(t, 1, 8, alone.Store, run.Store)
	}
}

// A run that is interrupted after every second frame is gone on with by one engine and by
// several in turns, and makes what one makes that is not.
func TestShotsInterrupted(t *testing.T) {
	nsttest.Long(t)
	nsttest.Idle(t)
	clip, engines := threeShots(t), twoEngines(t)
	const passes = 2
	alone := Run{Engine: engines[0], Clip: clip, Styles: []*picture.Picture{waves(64, 64, 3, 9)}, Options: quick(),
		Passes: passes, Store: newStore(t)}
	require.NoError(t, alone.Make(context.Background()))

	path := filepath.Join(t.TempDir(), "parts")
	store, err := CreateStore(path, ours)
	require.NoError(t, err)
	times := 0
	for err = context.Canceled; err != nil; times++ {
		run := alone
		run.Store = store
		if times%2 == 0 {
			run.Beside = engines[1:]
		}
		ctx, cancel := context.WithCancel(context.Background())
		before, made := store.done(0), 0
		run.Progress = func(p Progress) {
			made++
			assert.Equal(t, before+made, p.Done)
			if made == 2 {
				cancel()
			}
		}
		if err = run.Make(ctx); err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
		cancel()
		require.NoError(t, store.Close())
		var e error
		store, e = OpenStore(path, ours)
		require.NoError(t, e)
	}
	defer store.Close()
	assert.Greater(t, times, 3)
	assertSame(t, passes, 8, alone.Store, store)
}

// A store takes frames from several goroutines.
func TestStoreIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "frames")
	s, err := CreateStore(path, ours)
	require.NoError(t, err)
	const frames = 40
	var group sync.WaitGroup
	for k := range 4 {
		group.Go(func() {
			for i := k; i < frames; i += 4 {
				assert.NoError(t, s.Add(1, &Made{Index: i, Result: coloured(i, 16, 12)}))
				p, err := s.Result(1, i)
				assert.NoError(t, err)
				assert.Equal(t, coloured(i, 16, 12).Pixels, p.Pixels)
				s.Count(0)
			}
		})
	}
	group.Wait()
	require.NoError(t, s.Close())
	s, err = OpenStore(path, ours)
	require.NoError(t, err)
	defer s.Close()
	for i := range frames {
		p, err := s.Result(1, i)
		require.NoError(t, err)
		assert.Equal(t, coloured(i, 16, 12).Pixels, p.Pixels)
	}
}
