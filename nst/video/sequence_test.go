package video

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// waves is a picture with detail everywhere, moved to the right and down.
func waves(width, height int, dx, dy float64) *picture.Picture {
	p := picture.New(width, height)
	for y := range height {
		for x := range width {
			u, v := float64(x)-dx, float64(y)-dy
			for k := range 3 {
				f := float64(k + 2)
				p.Pixels[(k*height+y)*width+x] = float32(0.5 + 0.2*math.Sin(u/f+1) + 0.2*math.Sin(v/(f+1)+u/9) +
					0.08*math.Sin((u+2*v)/3))
			}
		}
	}
	return p
}

// constant is a flow that is the same everywhere.
func constant(width, height int, u, v float32) []float32 {
	out := make([]float32, 2*width*height)
	for i := range width * height {
		out[i], out[width*height+i] = u, v
	}
	return out
}

// A flow can be relied on where going back and forth ends where it began, inside the picture,
// and where motion is smooth.
func TestReliable(t *testing.T) {
	const w, h = 20, 12
	plane := w * h
	// Everything moves by 3 to the right: what came in at the left was not to be seen.
	got := reliable(constant(w, h, -3, 0), constant(w, h, 3, 0), w, h)
	for i, c := range got {
		assert.Equal(t, i%w >= 3, c == 1, "column %d", i%w)
	}
	// Back and forth do not fit on the right half.
	forth := constant(w, h, 3, 0)
	for i := range plane {
		if i%w >= 10 {
			forth[i] = 9
		}
	}
	back := constant(w, h, -3, 0)
	got = reliable(back, forth, w, h)
	assert.Zero(t, got[5*w+17])
	assert.Equal(t, float32(1), got[5*w+8])
	// A step of motion is an edge.
	for i := range plane {
		if i%w >= 10 {
			back[i], forth[i] = -1, 1
		}
	}
	got = reliable(back, forth, w, h)
	assert.Zero(t, got[5*w+9])
	assert.Equal(t, float32(1), got[5*w+16])
	// What is no number cannot be relied on.
	back[3*w+6] = float32(math.NaN())
	assert.Zero(t, reliable(back, forth, w, h)[3*w+6])
}

// Weights fall to 0 over three pixels along a line, hardly around a single pixel, and are 0 where
// much is unknown; a picture has no step where they do.
func TestSoftened(t *testing.T) {
	const width, height = 12, 10
	weights := func(known func(x, y int) bool) []float32 {
		out := make([]float32, width*height)
		for i := range out {
			if known(i%width, i/width) {
				out[i] = 1
			}
		}
		return out
	}
	for i, c := range softened(weights(func(x, _ int) bool { return x != 4 }), width, height) {
		away := max(i%width-4, 4-i%width)
		assert.InDelta(t, min(1, float64(away)/3), c, 1e-6, "column %d", i%width)
	}
	lone := softened(weights(func(x, y int) bool { return x != 4 || y != 5 }), width, height)
	assert.Zero(t, lone[5*width+4])
	assert.InDelta(t, 7./9, lone[5*width+5], 1e-6)
	assert.Equal(t, float32(1), lone[5*width+7])
	assert.Zero(t, mean(softened(weights(func(x, y int) bool { return (x+y)%2 == 0 }), width, height)[2*width:8*width]))
	whole := weights(func(int, int) bool { return true })
	assert.Equal(t, whole, softened(whole, width, height))
	p := smoothed(&picture.Picture{Width: 5, Height: 1, Pixels: []float32{0, 0, 9, 0, 0, 1, 1, 1, 1, 1, 0, 0, 9, 9, 9}})
	assert.InDeltaSlice(t, []float32{1, 2, 3, 2, 1, 1, 1, 1, 1, 1, 1, 3, 6, 8, 9}, p.Pixels, 1e-6)
}

// Where two motions meet, the results that move apart or over each other leave a step. A frame
// does not start with it, nor is it held to it.
func TestNoStepWhereMotionsMeet(t *testing.T) {
	const width, height, moves = 64, 48, 8
	ramp := picture.New(width, height)
	for i := range ramp.Pixels {
		ramp.Pixels[i] = float32(i%width) / width
	}
	flow := func(_ context.Context, from, to Numbered) ([]float32, error) {
		out := make([]float32, 2*width*height)
		for i := range width * height {
			if i%width >= width/2 {
				out[i] = float32(moves * (from.Index - to.Index))
			}
		}
		return out, nil
	}
	s, err := NewSequence(slim(t), []*picture.Picture{waves(64, 64, 3, 9)}, quick(), flow)
	require.NoError(t, err)
	in := Input{Picture: waves(width, height, 0, 0)}
	require.NoError(t, s.Restore(context.Background(), in, Made{Cut: true},
		func() (*picture.Picture, error) { return ramp, nil }))
	content, err := s.content(context.Background(), Input{Index: 1, Picture: in.Picture})
	require.NoError(t, err)
	o, err := s.following(context.Background(), content, nil, &Made{})
	require.NoError(t, err)
	row := func(p *picture.Picture) []float32 { return p.Pixels[20*width:][:width] }
	step := func(values []float32) (most float32) {
		for i := range values[:width-2*moves] { // beyond, the flow leaves the picture
			most = max(most, values[i+1]-values[i])
		}
		return most
	}
	assert.InDelta(t, float64(moves+1)/width, step(row(o.Previous.Picture)), 1e-6)
	assert.Less(t, step(row(o.Picture)), float32(0.6*(moves+1)/width))
	assert.Less(t, o.Previous.Weights[20*width+width/2-1], float32(0.34))
	assert.Less(t, o.Previous.Weights[20*width+width/2], float32(0.34))
}

func TestHistogram(t *testing.T) {
	a, b := histogram(waves(40, 30, 0, 0)), histogram(waves(40, 30, 1, 0))
	assert.Zero(t, apart(a, a))
	assert.Less(t, apart(a, b), 0.1)
	black, white := picture.New(8, 8), picture.New(8, 8)
	for i := range white.Pixels {
		white.Pixels[i] = 1
	}
	assert.InDelta(t, 1, apart(histogram(black), histogram(white)), 1e-9)
}

// slim is an engine with small weights.
func slim(t testing.TB) *nst.Engine {
	t.Helper()
	e, err := nst.Open(context.Background(), nsttest.Slim(t), nst.OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// quick are options that take little time.
func quick() Options {
	return Options{Options: nst.Options{Size: new(0), StyleSize: new(64), Iterations: new(6)}, FrameIterations: new(3)}
}

// A panorama that is turned by half is, made smaller, the smaller one turned by half: its edges
// are none.
func TestPanoramaIsResized(t *testing.T) {
	const width, height = 128, 64
	o := quick()
	o.Size, o.Wrap = new(64), nst.WrapX
	s, err := NewSequence(slim(t), []*picture.Picture{waves(64, 64, 3, 9)}, o, nil)
	require.NoError(t, err)
	turned := func(p *picture.Picture) *picture.Picture {
		out := picture.New(p.Width, p.Height)
		for i := range p.Pixels {
			out.Pixels[i-i%p.Width+(i+p.Width/2)%p.Width] = p.Pixels[i]
		}
		return out
	}
	p := waves(width, height, 0, 0)
	small, err := s.content(context.Background(), Input{Picture: p})
	require.NoError(t, err)
	other, err := s.content(context.Background(), Input{Picture: turned(p)})
	require.NoError(t, err)
	assert.Equal(t, 64, small.Picture.Width)
	assert.InDeltaSlice(t, turned(small.Picture).Pixels, other.Picture.Pixels, 1e-6)
}

// A still clip stands still; a frame is held to the one before as that moved; another picture
// is a cut.
func TestSequence(t *testing.T) {
	nsttest.NoLeaks(t)
	s, err := NewSequence(slim(t), []*picture.Picture{waves(64, 64, 3, 9)}, quick(), nil)
	require.NoError(t, err)
	next := func(i int, p *picture.Picture) *Made {
		made, err := s.Next(context.Background(), Input{Index: i, Picture: p}, nst.Hooks{})
		require.NoError(t, err)
		assert.Equal(t, i, made.Index)
		return made
	}
	first := next(0, waves(64, 48, 0, 0))
	assert.True(t, first.Cut)
	assert.Equal(t, 6, first.Iterations)
	still := next(1, waves(64, 48, 0, 0))
	assert.False(t, still.Cut)
	assert.Equal(t, 3, still.Iterations)
	assert.InDelta(t, 1, still.Known, 1e-3)
	assert.Less(t, mean(difference(first.Result, still.Result)), 1./255)
	moved := next(2, waves(64, 48, 2, 1))
	assert.False(t, moved.Cut)
	assert.Greater(t, moved.Known, 0.7)
	other := picture.New(64, 48)
	for i := range other.Pixels {
		other.Pixels[i] = float32(i*i%97) / 96
	}
	assert.True(t, next(3, other).Cut)
	assert.False(t, next(4, other).Cut)
}

// The more a frame is held to the one before, the nearer it is to that as it moved.
func TestHeld(t *testing.T) {
	engine, far := slim(t), []float64{}
	for _, weight := range []float64{0, 1e5, 1e6} {
		o := quick()
		o.TemporalWeight, o.FrameIterations = &weight, new(10)
		s, err := NewSequence(engine, []*picture.Picture{waves(64, 64, 3, 9)}, o,
			func(_ context.Context, from, to Numbered) ([]float32, error) {
				d := float32(to.Index - from.Index)
				return constant(64, 48, 2*d, d), nil
			})
		require.NoError(t, err)
		var results []*picture.Picture
		for i := range 2 {
			made, err := s.Next(context.Background(), Input{Index: i, Picture: waves(64, 48, 2*float64(i), float64(i))},
				nst.Hooks{})
			require.NoError(t, err)
			results = append(results, made.Result)
		}
		sum := 0.0
		for y := 1 + 3; y < 48; y++ { // what came in, and three pixels beside it, are not held
			for x := 2 + 3; x < 64; x++ {
				d := float64(results[1].Pixels[y*64+x] - results[0].Pixels[(y-1)*64+x-2])
				sum += d * d / (44 * 59)
			}
		}
		far = append(far, math.Sqrt(sum))
	}
	t.Logf("root mean squares: %.2g", far)
	assert.Greater(t, far[0], far[1])
	assert.Greater(t, far[1], far[2])
	assert.Less(t, far[2], 1./255)
}

// Where something was hidden by the last frame, and not by one before, that one is gone on
// from.
func TestLongTerm(t *testing.T) {
	o := quick()
	o.LongTerm = []int{1, 2}
	// The left half is not known from the last frame.
	flow := func(_ context.Context, from, to Numbered) ([]float32, error) {
		p := from.Picture
		out := make([]float32, 2*p.Width*p.Height)
		if from.Index-to.Index == 1 {
			for i := range p.Width * p.Height {
				if i%p.Width < p.Width/2 {
					out[i] = -1e4
				}
			}
		}
		return out, nil
	}
	s, err := NewSequence(slim(t), []*picture.Picture{waves(64, 64, 3, 9)}, o, flow)
	require.NoError(t, err)
	known := []float64{0, 0.5, 1}
	for i := range known {
		made, err := s.Next(context.Background(), Input{Index: i, Picture: waves(64, 48, 0, 0)}, nst.Hooks{})
		require.NoError(t, err)
		assert.InDelta(t, known[i], made.Known, 0.05, "frame %d", i)
	}
}

// A frame is held to one some frames back also where the shot is not so old yet.
func TestLongTermFarBack(t *testing.T) {
	o := quick()
	o.LongTerm = []int{3, 5}
	var asked [][2]int
	flow := func(_ context.Context, from, to Numbered) ([]float32, error) {
		asked = append(asked, [2]int{from.Index, to.Index})
		return constant(64, 48, 0, 0), nil
	}
	s, err := NewSequence(slim(t), []*picture.Picture{waves(64, 64, 3, 9)}, o, flow)
	require.NoError(t, err)
	for i := range 5 {
		made, err := s.Next(context.Background(), Input{Index: i, Picture: waves(64, 48, 0, 0)}, nst.Hooks{})
		require.NoError(t, err)
		assert.Equal(t, i == 0, made.Cut, "frame %d", i)
	}
	assert.Equal(t, [][2]int{{1, 0}, {0, 1}, {2, 0}, {0, 2}, {3, 0}, {0, 3}, {4, 1}, {1, 4}}, asked)
}

// Masks may be of the clip's aspect or of the frames that are made, which are in whole positions
// where they come round.
func TestMasksOfFrames(t *testing.T) {
	style := &picture.Picture{Width: 96, Height: 96}
	for _, mask := range []*picture.Picture{{Width: 1920, Height: 1080}, {Width: 304, Height: 168},
		{Width: 1080, Height: 1920}} {
		o := Options{Options: nst.Options{Size: new(300), Wrap: nst.WrapXY, StrengthMask: mask}}
		width, height, err := FrameSize(o, 1920, 1080, style)
		if mask.Width < mask.Height {
			require.ErrorContains(t, err, "StrengthMask is 1080×1920, of another aspect than the content")
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, []int{304, 168}, []int{width, height})
	}
}

func TestSequenceErrors(t *testing.T) {
	e, styles := slim(t), []*picture.Picture{waves(64, 64, 3, 9)}
	for says, change := range map[string]func(*Options){
		"FrameIterations is -1":                func(o *Options) { o.FrameIterations = new(-1) },
		"LongTerm is [2 1]":                    func(o *Options) { o.LongTerm = []int{2, 1} },
		"LongTerm is [0]":                      func(o *Options) { o.LongTerm = []int{0} },
		"LongTerm is [65]":                     func(o *Options) { o.LongTerm = []int{65} },
		"Transfer color is not for videos":     func(o *Options) { o.Transfer = nst.TransferColor },
		"TemporalWeight is -3; it cannot be n": func(o *Options) { o.TemporalWeight = new(-3.0) },
	} {
		o := quick()
		change(&o)
		_, err := NewSequence(e, styles, o, nil)
		require.ErrorIs(t, err, nst.ErrInvalidOption, says)
		assert.ErrorContains(t, err, says)
	}
	broken := errors.New("no flow today")
	s, err := NewSequence(e, styles, quick(), func(context.Context, Numbered, Numbered) ([]float32, error) {
		return nil, broken
	})
	require.NoError(t, err)
	_, err = s.Next(context.Background(), Input{Picture: waves(64, 48, 0, 0)}, nst.Hooks{})
	require.NoError(t, err)
	_, err = s.Next(context.Background(), Input{Index: 1, Picture: waves(64, 48, 0, 0)}, nst.Hooks{})
	assert.ErrorIs(t, err, broken)
}

// The colours that are asked for are steady: the content's, or matched by the first frame.
func TestColours(t *testing.T) {
	styles := []*picture.Picture{waves(64, 64, 3, 9)}
	for _, o := range []nst.Options{{Color: nst.ColorContent}, {Color: nst.ColorMatch},
		{Transfer: nst.TransferLuminance}} {
		all := quick()
		all.Color, all.Transfer = o.Color, o.Transfer
		s, err := NewSequence(slim(t), styles, all, nil)
		require.NoError(t, err)
		frame := waves(64, 48, 0, 0)
		for i := range 2 {
			made, err := s.Next(context.Background(), Input{Index: i, Picture: frame}, nst.Hooks{})
			require.NoError(t, err)
			p, err := s.Finish(context.Background(), Input{Picture: frame}, made.Result)
			require.NoError(t, err)
			if o.Color == nst.ColorMatch {
				assert.Equal(t, made.Result.Pixels, p.Pixels)
				continue
			}
			assert.NotEqual(t, made.Result.Pixels, p.Pixels)
			assert.Less(t, mean(difference(p, picture.Recolor(p, frame))), 1e-3, "it has the frame's chroma")
		}
	}
}

// testClip is a clip with a cut, of 6 frames.
func testClip(t *testing.T) *Clip {
	t.Helper()
	path := made(t, "clip.mkv", "-filter_complex",
		"[0]trim=end_frame=3,setpts=PTS-STARTPTS[a];mandelbrot=size=64x48:rate=25,trim=end_frame=3[b];[a][b]concat",
		"-c:v", "ffv1")
	c, err := Probe(context.Background(), path)
	require.NoError(t, err)
	return c
}

// A run that is interrupted after any frame, and gone on with, makes what one makes that is
// not, to the last bit, in one pass and in several.
func TestResume(t *testing.T) {
	nsttest.Long(t)
	clip, engine := testClip(t), slim(t)
	for _, passes := range []int{1, 3} {
		identity := map[string]string{"clip": "c"}
		run := func(s *Store) *Run {
			return &Run{Engine: engine, Clip: clip, Styles: []*picture.Picture{waves(64, 64, 3, 9)}, Options: quick(),
				Store: s, Passes: passes}
		}
		folder := t.TempDir()
		s, err := CreateStore(filepath.Join(folder, "whole"), identity)
		require.NoError(t, err)
		require.NoError(t, run(s).Make(context.Background()))
		frames, shots := s.Count(0)
		assert.Equal(t, [2]int{6, 2}, [2]int{frames, shots})
		require.NoError(t, s.Close())
		whole, err := os.ReadFile(filepath.Join(folder, "whole"))
		require.NoError(t, err)

		path := filepath.Join(folder, "parts")
		s, err = CreateStore(path, identity)
		require.NoError(t, err)
		times := 0
		for err = context.Canceled; err != nil; times++ {
			ctx, cancel := context.WithCancel(context.Background())
			r := run(s)
			made := 0
			r.Progress = func(p Progress) {
				assert.Equal(t, [2]int{clip.Frames, passes}, [2]int{p.Frames, p.Passes})
				if made++; made == 2 {
					cancel()
				}
			}
			if err = r.Make(ctx); err != nil {
				require.ErrorIs(t, err, context.Canceled)
			}
			require.NoError(t, s.Close())
			var e error
			s, e = OpenStore(path, identity)
			require.NoError(t, e)
			cancel()
		}
		assert.GreaterOrEqual(t, times, 3)
		parts, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, whole, parts)

		out := filepath.Join(folder, "out.mp4")
		e, err := clip.CheckOutput(context.Background(), out, 64, 48, Encoding{})
		require.NoError(t, err)
		require.NoError(t, run(s).Write(context.Background(), out, e, nil))
		_, written := all(t, out)
		assert.Len(t, written, 6)
		require.NoError(t, run(s).WriteFrames(context.Background(), folder, picture.Encoding{Bits: 8}, nil))
		p, err := picture.Open(filepath.Join(folder, "000006.png"))
		require.NoError(t, err)
		last, err := s.Result(passes, 5)
		require.NoError(t, err)
		assert.Equal(t, last.Pixels, p.Pixels)
		require.NoError(t, s.Close())
	}
}

// A clip that changes under a run ends it before a frame of the other clip is kept.
func TestClipChangesUnderARun(t *testing.T) {
	clip, err := Probe(context.Background(), nsttest.Clip(t, 6, ".mkv"))
	require.NoError(t, err)
	store, err := CreateStore(filepath.Join(t.TempDir(), "store"), nil)
	require.NoError(t, err)
	run := &Run{Engine: slim(t), Clip: clip, Styles: []*picture.Picture{waves(64, 64, 3, 9)}, Options: quick(),
		Store: store, Reading: func(index int) {
			if index == 2 {
				require.NoError(t, os.Truncate(clip.Path, clip.file.Size()-1))
			}
		}}
	err = run.Make(context.Background())
	require.ErrorIs(t, err, ErrClip)
	assert.ErrorContains(t, err, "is not what it was")
	frames, _ := store.Count(0)
	assert.Equal(t, 3, frames, "those that were read before")
	require.NoError(t, store.Close())
}
