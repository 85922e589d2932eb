package nst

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// In tiles, the gradient is that of the whole picture, whatever the sizes, layers
// and tiles.
func TestTilesAreExact(t *testing.T) {
	nsttest.Long(t)
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	random := rand.New(rand.NewPCG(2, 0))
	layers := func(most int) (out []LayerWeight) {
		for _, k := range random.Perm(most)[:1+random.IntN(3)] {
			if l := vgg19.Layers[k]; l.Stride <= 16 {
				out = append(out, LayerWeight{Layer: l.Name})
			}
		}
		return out
	}
	for range 8 {
		w, h := 16+random.IntN(56), 16+random.IntN(56)
		tile := 16 + random.IntN(32)
		o := Options{
			Size: new(0), Precision: Double, ContentLayers: layers(30), StyleLayers: layers(37),
			Preset: []Preset{Balanced, Classic}[random.IntN(2)], TVWeight: new(float64(random.IntN(2)) * 10),
			Pooling: []vgg19.Pooling{vgg19.MaxPooling, vgg19.AveragePooling}[random.IntN(2)],
			Padding: []vgg19.Padding{vgg19.ZeroPadding, vgg19.ReplicatePadding}[random.IntN(2)],
		}
		content, style := noise(random.Uint64(), w, h), noise(random.Uint64(), 16+random.IntN(120), 16+random.IntN(120))
		if random.IntN(2) > 0 {
			fading(content)
		}
		o.Start, o.Tile = StartNoise, TileOff // of one grey all activations would tie
		costs, want, err := e.Evaluate(context.Background(), content, style, o)
		require.NoError(t, err)
		o.Tile = Tile(fmt.Sprint(tile))
		tiled, got, err := e.Evaluate(context.Background(), content, style, o)
		require.NoError(t, err)
		assert.InEpsilon(t, costs.Total, tiled.Total, 1e-6)
		assert.LessOrEqual(t, nsttest.Difference(got, want), 1e-6, "%d×%d in tiles of %d: %+v", w, h, tile, o)
	}
}

// Steps go the same way in tiles.
func TestTilesKeepTheWay(t *testing.T) {
	nsttest.Long(t)
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	for _, preset := range []Preset{Classic, Balanced} {
		var totals [2][]float64
		for i, tile := range []Tile{TileOff, "32"} {
			o := Options{Preset: preset, Size: new(0), Scales: ScalesOff, Optimizer: Adam, Iterations: new(4),
				Precision: Double, Start: StartNoise, Tile: tile}
			r, err := e.Stylize(context.Background(), noise(1, 64, 48), []*picture.Picture{noise(2, 60, 70)}, o,
				Hooks{Progress: func(p Progress) {
					totals[i] = append(totals[i], p.Total)
				}})
			require.NoError(t, err)
			assert.Equal(t, []int{1, 4}[i], r.Tiles)
		}
		for i := range totals[0] {
			assert.InEpsilon(t, totals[0][i], totals[1][i], 1e-6, "%s, step %d", preset, i)
		}
	}
}

// Pictures made by several devices are those of one with the same tiles, to the
// last bit, also if one is slow, or fails on the way.
func TestSeveralDevices(t *testing.T) {
	nsttest.Long(t)
	open := func(devices string) *Engine {
		e, err := Open(context.Background(), nsttest.Slim(t), OpenOptions{Device: devices})
		require.NoError(t, err)
		t.Cleanup(e.Close)
		return e
	}
	alone, both := open("pretend:0"), open("pretend:0,pretend:1")
	assert.Equal(t, []torch.Device{"pretend:0", "pretend:1"}, both.Devices())
	control := func(command string, value int64) int64 {
		n, err := torch.ControlDevice(command, value)
		require.NoError(t, err)
		return n
	}
	for _, o := range []Options{{StyleLoss: NeighboursLoss, StyleRotate: []float64{0, 90}}, {StyleLoss: SlicedLoss},
		{ContentLoss: SimilarityLoss}} {
		o.Size, o.Iterations, o.Tile = new(64), new(3), "32"
		var made []*picture.Picture
		content, styles := noise(1, 64, 48), []*picture.Picture{noise(2, 60, 60)}
		for _, e := range []*Engine{alone, both} {
			r, err := e.Stylize(context.Background(), content, styles, o, Hooks{})
			require.NoError(t, err)
			made = append(made, r.Picture)
		}
		assert.Equal(t, made[0], made[1], "%s, %s", o.StyleLoss, o.ContentLoss)
	}
	for _, optimizer := range []Optimizer{Adam, LBFGS} {
		o := Options{Size: new(64), Iterations: new(3), Optimizer: optimizer, Tile: "32"}
		var warnings []string
		hooks := Hooks{Warn: func(m string) { warnings = append(warnings, m) }}
		run := func(e *Engine) *Result {
			warnings = nil
			r, err := e.Stylize(context.Background(), noise(1, 64, 48), []*picture.Picture{noise(2, 60, 60)}, o, hooks)
			require.NoError(t, err)
			return r
		}
		want := run(alone)
		assert.Greater(t, want.Tiles, 2)
		run(both) // which remembers the style
		operations := control("operations", 0)
		assert.Equal(t, want.Picture, run(both).Picture)
		operations = control("operations", 0) - operations
		assert.Empty(t, warnings)
		control("slow", 300)
		assert.Equal(t, want.Picture, run(both).Picture)
		control("slow", 0)
		survived := 0
		for n := operations / 4; n < operations*9/10; n += operations / 4 {
			control("fault", n)
			warnings = nil
			r, err := both.Stylize(context.Background(), noise(1, 64, 48), []*picture.Picture{noise(2, 60, 60)}, o,
				hooks)
			if control("fault", 0); err != nil { // it was not a tile's work
				assert.ErrorContains(t, err, "the fault ordered")
				continue
			}
			survived++
			assert.Len(t, warnings, 1)
			assert.Equal(t, want.Picture, r.Picture)
		}
		assert.Positive(t, survived)
	}
}

// Several workers on the CPU share tiles alone, and make the very picture that one
// makes of the whole; devices with their own memory take a band of it each.
func TestWhatIsShared(t *testing.T) {
	nsttest.Long(t)
	run := func(devices string, tile Tile) *Result {
		e, err := Open(context.Background(), nsttest.Slim(t), OpenOptions{Device: devices})
		require.NoError(t, err)
		defer e.Close()
		o := Options{Size: new(96), Iterations: new(5), Optimizer: LBFGS, Tile: tile}
		r, err := e.Stylize(context.Background(), noise(1, 96, 80), []*picture.Picture{noise(2, 60, 60)}, o, Hooks{})
		require.NoError(t, err)
		return r
	}
	workers := fmt.Sprintf("cpu:%d", min(2, torch.Threads()))
	want, got := run("cpu", TileAuto), run(workers, TileAuto)
	assert.Equal(t, 1, got.Tiles)
	assert.Zero(t, nsttest.Difference(got.Picture.Pixels, want.Picture.Pixels))
	want, got = run("cpu", "32"), run(workers, "32")
	assert.Equal(t, 9, got.Tiles)
	// libtorch's sums on half the threads
	assert.LessOrEqual(t, nsttest.Difference(got.Picture.Pixels, want.Picture.Pixels), 1e-3)
	assert.Equal(t, 2, run("pretend:0,pretend:1", TileAuto).Tiles)
}

// Devices that share no picture have an engine each.
func TestOpenEach(t *testing.T) {
	nsttest.NoLeaks(t)
	model := nsttest.Slim(t)
	all, err := OpenEach(context.Background(), model, OpenOptions{Device: "pretend:0,cpu,pretend:1,cpu"})
	require.NoError(t, err)
	var devices []torch.Device
	for _, e := range all {
		devices = append(devices, e.Devices()...)
		e.Close()
	}
	assert.Equal(t, []torch.Device{"pretend:0", "cpu", "pretend:1", "cpu"}, devices)
	all, err = OpenEach(context.Background(), model, OpenOptions{})
	require.NoError(t, err)
	require.Len(t, all, 1)
	all[0].Close()
	for device, says := range map[string]string{"pretend:0,pretend:0": "pretend:0 is named twice", "cpu,": `""`} {
		_, err := OpenEach(context.Background(), model, OpenOptions{Device: device})
		require.ErrorIs(t, err, torch.ErrDevice, device)
		assert.ErrorContains(t, err, says)
	}
}

// With less and less memory a picture is made in smaller and smaller tiles, until
// there is not enough for the smallest.
func TestLessAndLessMemory(t *testing.T) {
	nsttest.Long(t)
	const device = "pretend:1"
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: device})
	require.NoError(t, err)
	defer e.Close()
	content, style := noise(1, 112, 96), []*picture.Picture{noise(2, 96, 96)}
	for how, limits := range map[string][]int64{ // beside the network; a plan reckons with cuDNN's workspace, too
		"planned":    {0, 100 << 20, 88 << 20, 76 << 20, 128 << 10},
		"run out of": {0, 16 << 20, 11 << 20, 7 << 20, 128 << 10},
	} {
		var want float64
		tiles, failures := 0, 0
		for _, limit := range limits {
			m, err := torch.MemoryOf(device)
			require.NoError(t, err)
			warned := false // of tiles; that there is no memory for a graph is said too
			warn := func(message string) { warned = warned || strings.Contains(message, "tiles of") }
			o := Options{Preset: Classic, Size: new(0), Iterations: new(1), Precision: Exact,
				// of a small halo
				StyleLayers: []LayerWeight{{Layer: "relu1_1"},
					{Layer: "relu3_1"}}, ContentLayers: []LayerWeight{{Layer: "relu2_2"}}}
			if limit > 0 && how == "planned" {
				o.MemoryLimit = Bytes(m.Allocated + limit)
			}
			if limit > 0 {
				_, err = torch.ControlDevice("memory-limit", m.Allocated+limit)
				require.NoError(t, err)
			}
			if how == "run out of" { // begin with the whole picture
				o.Tile = "112"
			}
			first := math.NaN() // the total at the start: after Adam's step rounding has changed signs
			r, err := e.Stylize(context.Background(), content, style, o, Hooks{Warn: warn, Progress: func(p Progress) {
				if p.Iteration == 0 {
					first = p.Total
				}
			}})
			_, controlErr := torch.ControlDevice("memory-limit", 0)
			require.NoError(t, controlErr)
			if err != nil {
				require.ErrorIs(t, err, torch.ErrOutOfMemory)
				failures++
				continue
			}
			assert.Zero(t, failures, "more memory did not do")
			if limit == 0 {
				want = first
				assert.Equal(t, 1, r.Tiles)
			}
			assert.InEpsilon(t, want, first, 1e-5)
			assert.GreaterOrEqual(t, r.Tiles, tiles, "%s, %d bytes", how, limit)
			if how == "run out of" {
				assert.Equal(t, r.Tiles > 1, warned)
			}
			t.Logf("%s, %d bytes: %d tiles", how, limit, r.Tiles)
			tiles = r.Tiles
		}
		assert.Greater(t, tiles, 4, how)
		assert.Positive(t, failures, how)
	}
}

// When memory goes away in the middle of a run, what was computed of tiles is not
// kept any more, and the picture is the same.
func TestMemoryGoesAway(t *testing.T) {
	nsttest.Long(t)
	const device = "pretend:1"
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: device})
	require.NoError(t, err)
	defer e.Close()
	limit := func(bytes int64) {
		_, err := torch.ControlDevice("memory-limit", bytes)
		require.NoError(t, err)
	}
	defer limit(0)
	m, err := torch.MemoryOf(device)
	require.NoError(t, err)
	run := func(left int64) (*Result, []string) {
		var warnings []string
		o := Options{Size: new(0), Scales: ScalesOff, Iterations: new(3), Optimizer: Adam, Tile: "64",
			StyleLayers: []LayerWeight{{Layer: "relu1_1"},
				{Layer: "relu3_1"}}, ContentLayers: []LayerWeight{{Layer: "relu2_2"}}}
		r, err := e.Stylize(context.Background(), noise(1, 128, 128), []*picture.Picture{noise(2, 60, 60)}, o,
			Hooks{Warn: func(w string) { warnings = append(warnings, w) }, Progress: func(p Progress) {
				if p.Iteration == 1 && left > 0 {
					limit(m.Allocated + left)
				}
			}})
		require.NoError(t, err)
		limit(0)
		return r, warnings
	}
	want, warnings := run(0)
	assert.Equal(t, 4, want.Tiles)
	assert.Empty(t, warnings)
	kept := 0
	for left := want.PeakMemory - m.Allocated; left > 0; left = left * 4 / 5 {
		r, warnings := run(left)
		if r.Tiles > want.Tiles { // now there is too little for one
			break
		}
		assert.Zero(t, nsttest.Difference(r.Picture.Pixels, want.Picture.Pixels))
		if len(warnings) > 0 {
			assert.Len(t, warnings, 1)
			assert.Contains(t, warnings[0], "not kept")
			kept++
		}
	}
	assert.Positive(t, kept)
}
