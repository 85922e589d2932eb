package nst_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// run is a transfer of the demo pictures; it returns the costs before each step
// and after the last.
func run(t *testing.T, e *nst.Engine, o nst.Options) (*nst.Result, []nst.Costs) {
	t.Helper()
	var costs []nst.Costs
	r, err := e.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
		[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))}, o,
		nst.Hooks{Progress: func(p nst.Progress) { costs = append(costs, p.Costs) }})
	require.NoError(t, err)
	return r, costs
}

func TestSeedRepeatsARun(t *testing.T) {
	e := engine(t, "cpu")
	for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
		o := nst.Options{Size: new(64), Start: nst.StartNoise, Seed: 7, Iterations: new(5), Optimizer: optimizer}
		first, costs := run(t, e, o)
		second, again := run(t, e, o)
		assert.Equal(t, first.Picture, second.Picture)
		assert.Equal(t, costs, again)
		o.Seed = 8
		other, _ := run(t, e, o)
		assert.NotEqual(t, first.Picture, other.Picture)
	}
}

// L-BFGS in 100 evaluations gets lower than Adam in 100 steps, with either
// preset and from either start.
func TestLBFGSBeatsAdam(t *testing.T) {
	nsttest.Long(t)
	e := engine(t, "cpu")
	for _, preset := range []nst.Preset{nst.Balanced, nst.Classic} {
		for _, start := range []nst.Start{nst.StartContent, nst.StartNoise} {
			t.Run(fmt.Sprint(preset, " ", start), func(t *testing.T) {
				total := map[nst.Optimizer]float64{}
				for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
					r, costs := run(t, e, nst.Options{Preset: preset, Start: start, Optimizer: optimizer, Size: new(48),
						Iterations: new(40)})
					require.Len(t, costs, 41)
					assert.Less(t, r.Costs.Total, costs[0].Total)
					total[optimizer] = r.Costs.Total
				}
				assert.Less(t, total[nst.LBFGS], total[nst.Adam])
				t.Logf("L-BFGS/Adam: %.3f", total[nst.LBFGS]/total[nst.Adam])
			})
		}
	}
}

// L-BFGS with absurd rates goes back to its best picture, and never to NaN.
func TestLBFGSSurvivesItsRate(t *testing.T) {
	nsttest.Long(t)
	e := engine(t, "cpu")
	for _, rate := range []float64{1e-6, 30, 1e6} {
		r, costs := run(t, e, nst.Options{Preset: nst.Classic, Start: nst.StartNoise, Optimizer: nst.LBFGS,
			LearningRate: &rate, Size: new(48), Iterations: new(40)})
		require.Len(t, costs, 41)
		for _, c := range costs {
			assert.LessOrEqual(t, r.Costs.Total, c.Total)
		}
		assert.Less(t, r.Costs.Total, costs[0].Total)
	}
}

// The whole transfer on the pretend accelerator is the CPU's: in float64, where both
// use libtorch alone, but for the order of sums and a factor's rounding, and in float32 by its costs.
func TestPretendAcceleratorAgreesWithTheCPU(t *testing.T) {
	nsttest.Long(t)
	both := engines(t, nsttest.Slim(t), "cpu", "pretend:1")
	cpu, pretend := both[0], both[1]
	require.Equal(t, torch.Device("pretend:1"), pretend.Device())
	for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
		for _, pooling := range []vgg19.Pooling{vgg19.MaxPooling, vgg19.AveragePooling} {
			t.Run(fmt.Sprint(optimizer, " ", pooling), func(t *testing.T) {
				o := nst.Options{Size: new(48), Start: nst.StartNoise, Iterations: new(6), Optimizer: optimizer,
					Pooling: pooling, Precision: nst.Double}
				want, wantCosts := run(t, cpu, o)
				got, gotCosts := run(t, pretend, o)
				for i := range wantCosts {
					near(t, "total", wantCosts[i].Total, gotCosts[i].Total, 1e-7)
				}
				for i, v := range want.Picture.Pixels {
					require.InDelta(t, v, got.Picture.Pixels[i], 1e-5)
				}
				assert.Positive(t, got.PeakMemory)
				for _, precision := range []nst.Precision{nst.Exact, nst.Fast} {
					o.Precision = precision
					_, wantCosts = run(t, cpu, o)
					_, gotCosts = run(t, pretend, o)
					for i := range wantCosts {
						near(t, "total", wantCosts[i].Total, gotCosts[i].Total,
							map[nst.Optimizer]float64{nst.Adam: 1e-4, nst.LBFGS: 2e-2}[optimizer])
					}
				}
			})
		}
	}
	// Between two readings of the costs nothing is copied and nothing waited for,
	// whether the iterations are replayed from a graph or sent one by one, and the
	// costs are the same.
	for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
		var all [2][]nst.Costs
		for graphs := range int64(2) {
			t.Run(fmt.Sprint(optimizer, " copies, graphs ", graphs), func(t *testing.T) {
				_, err := torch.ControlDevice("graphs", graphs)
				require.NoError(t, err)
				defer torch.ControlDevice("graphs", 1)
				before, began := counts(t), counts(t)
				const iterations, every = 40, 8
				readings, most := 0, 0
				last := -1
				_, err = pretend.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
					[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))},
					nst.Options{Size: new(32), Scales: nst.ScalesOff, Iterations: new(iterations),
						Optimizer: optimizer}, nst.Hooks{StateEvery: every, Progress: func(p nst.Progress) {
						all[graphs] = append(all[graphs], p.Costs)
						assert.Equal(t, p.Last || p.Iteration%every == 0, p.State != nil)
						now := counts(t)
						if p.Iteration > 2 && !p.Last { // the first step uploads the gradient's scale
							host := now["copies-to-host"] - before["copies-to-host"]
							assert.LessOrEqual(t, host, int64(1), "to the host: the costs")
							assert.Equal(t, before["copies-to-device"], now["copies-to-device"])
							if host == 1 {
								readings++
								most = max(most, p.Iteration-last)
								last = p.Iteration
							}
						}
						before = now
					}})
				require.NoError(t, err)
				require.Len(t, all[graphs], iterations+1)
				assert.LessOrEqual(t, most, every)
				assert.Less(t, readings, iterations*9/10, "costs are read several at a time")
				assert.Equal(t, (iterations-1)*graphs, before["replays"]-began["replays"])
			})
		}
		assert.Equal(t, all[0], all[1])
	}
	t.Run("a fault while recording", func(t *testing.T) {
		o := nst.Options{Size: new(32), Scales: nst.ScalesOff, Iterations: new(4)}
		want, _ := run(t, pretend, o)
		began, faulty := counts(t)["operations"], int64(0)
		run(t, pretend, o)
		all := counts(t)["operations"] - began // of a run, of which the last third and more is replayed or recorded
		for n := all / 2; n < all; n += all / 16 {
			_, err := torch.ControlDevice("fault", n)
			require.NoError(t, err)
			got, err := pretend.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
				[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))}, o, nst.Hooks{})
			if err == nil { // it was recorded, and sent piece by piece instead
				assert.Equal(t, want.Picture, got.Picture)
				faulty++
			}
		}
		_, err := torch.ControlDevice("fault", 0)
		require.NoError(t, err)
		assert.Positive(t, faulty)
	})
	t.Run("memory limit", func(t *testing.T) {
		for _, limit := range []int64{1 << 10, 256 << 10} { // beside the network
			m, err := torch.MemoryOf("pretend:1")
			require.NoError(t, err)
			_, err = torch.ControlDevice("memory-limit", m.Allocated+limit)
			require.NoError(t, err)
			_, err = pretend.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
				[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))}, nst.Options{Size: new(128),
					Iterations: new(1)}, nst.Hooks{})
			assert.ErrorIs(t, err, torch.ErrOutOfMemory)
			_, err = torch.ControlDevice("memory-limit", 0)
			require.NoError(t, err)
		}
		run(t, pretend, nst.Options{Size: new(32), Iterations: new(1)}) // and it goes on
	})
}

// Edges, too, are the CPU's: whatever else is wrong with them, a network whose layers do not
// agree with its module is computed as the module, for good.
func TestPretendAcceleratorsEdges(t *testing.T) {
	both := engines(t, nsttest.Slim(t), "cpu", "pretend:0")
	content, style := open(t, nsttest.Demo(t, "content.png")), open(t, nsttest.Demo(t, "style.png"))
	for _, precision := range []nst.Precision{nst.Exact, nst.Double, nst.Exact} {
		var totals []float64
		for _, e := range both {
			costs, _, err := e.Evaluate(context.Background(), content, style, nst.Options{
				Size: new(48), Precision: precision, Padding: vgg19.ReplicatePadding, Start: nst.StartNoise})
			require.NoError(t, err)
			totals = append(totals, costs.Total)
		}
		near(t, "total", totals[0], totals[1], 1e-6)
	}
}

// counts are what the pretend accelerator has counted.
func counts(t *testing.T) map[string]int64 {
	out := map[string]int64{}
	for _, name := range []string{"copies-to-host", "copies-to-device", "synchronisations", "operations", "replays"} {
		n, err := torch.ControlDevice(name, 0)
		require.NoError(t, err)
		out[name] = n
	}
	return out
}

func TestStartsAndSizes(t *testing.T) {
	e := engine(t, "cpu")
	content := open(t, nsttest.Demo(t, "content.png")) // 451×300
	r, costs := run(t, e, nst.Options{Size: new(48), Iterations: new(0)})
	assert.Equal(t, [2]int{48, 32}, [2]int{r.Picture.Width, r.Picture.Height})
	assert.Zero(t, r.Iterations)
	require.Len(t, costs, 1)
	assert.Zero(t, costs[0].Content, "the start is the content")
	assert.Equal(t, costs[0], r.Costs)

	r, _ = run(t, e, nst.Options{Size: new(0), StyleSize: new(32), Iterations: new(0)})
	assert.Equal(t, content, r.Picture)
	r, _ = run(t, e, nst.Options{Size: new(32), Start: nst.StartGray, Iterations: new(0)})
	for _, v := range r.Picture.Pixels {
		require.Equal(t, float32(0.5), v)
	}
	start := picture.New(48, 32)
	r, _ = run(t, e, nst.Options{Size: new(48), Start: nst.StartPicture, Picture: start, Iterations: new(0)})
	assert.Equal(t, start, r.Picture)
	r, _ = run(t, e, nst.Options{Size: new(96), Start: nst.StartPicture, Picture: start, Iterations: new(0)})
	assert.Equal(t, [2]int{96, 64}, [2]int{r.Picture.Width, r.Picture.Height}, "resized")
}

// Two styles that are the same picture are that picture's style.
func TestStylesAreAveraged(t *testing.T) {
	e := engine(t, "cpu")
	content, a, b := open(t, nsttest.Demo(t, "content.png")), open(t, nsttest.Demo(t, "style.png")), picture.New(64, 64)
	cost := func(styles ...*picture.Picture) float64 {
		r, err := e.Stylize(context.Background(), content, styles,
			nst.Options{Preset: nst.Classic, Size: new(64), Iterations: new(0)}, nst.Hooks{})
		require.NoError(t, err)
		return r.Costs.Total
	}
	assert.InEpsilon(t, cost(a), cost(a, a), 1e-5)
	assert.NotEqual(t, cost(a), cost(a, b))
}

// Weights blend styles; a weight of 0 leaves one out, to the last bit.
func TestStyleWeightsAndScale(t *testing.T) {
	e := engine(t, "cpu")
	content, a, b := open(t, nsttest.Demo(t, "content.png")), open(t, nsttest.Demo(t, "style.png")), picture.New(64, 64)
	final := func(o nst.Options, styles ...*picture.Picture) *nst.Result {
		o.Size, o.Iterations = new(64), new(2)
		r, err := e.Stylize(context.Background(), content, styles, o, nst.Hooks{})
		require.NoError(t, err)
		return r
	}
	alone := final(nst.Options{}, a)
	assert.Equal(t, alone.Picture, final(nst.Options{StyleWeights: []float64{1, 0}}, a, b).Picture)
	assert.Equal(t, final(nst.Options{}, a, b).Picture, final(nst.Options{StyleWeights: []float64{3, 3}}, a, b).Picture)
	assert.NotEqual(t, final(nst.Options{}, a, b).Picture, final(nst.Options{StyleWeights: []float64{3, 1}}, a,
		b).Picture)
	assert.Equal(t, final(nst.Options{StyleSize: new(32)}, a).Picture,
		final(nst.Options{StyleSize: new(64), StyleScale: new(0.5)}, a).Picture)
	_, err := e.Stylize(context.Background(), content, []*picture.Picture{a},
		nst.Options{StyleWeights: []float64{1, 1}}, nst.Hooks{})
	assert.ErrorIs(t, err, nst.ErrInvalidOption)
}

// Gatys' units: mean squares, the style's times 1000/C². With total variation
// the picture is smoother.
func TestGatysAndTotalVariation(t *testing.T) {
	e := engine(t, "cpu")
	o := nst.Options{Preset: nst.Classic, Size: new(64), Start: nst.StartNoise, Iterations: new(0)}
	classic, _ := run(t, e, o)
	o.Preset = nst.Gatys
	gatys, _ := run(t, e, o)
	near(t, "content", 4*classic.Costs.Content, gatys.Costs.Content, 1e-6)
	for layer, maps := range map[string]float64{"relu1_1": 64, "relu3_1": 256, "relu5_1": 512} {
		near(t, layer, 4*1000/(maps*maps)*classic.Costs.Style[layer], gatys.Costs.Style[layer], 1e-6)
	}
	sum := gatys.Costs.Content
	for _, v := range gatys.Costs.Style {
		sum += v
	}
	near(t, "total", sum, gatys.Costs.Total, 1e-9)
	o.Iterations = new(20)
	r, costs := run(t, e, o)
	assert.Less(t, r.Costs.Total, 0.5*costs[0].Total, "L-BFGS from noise")

	o = nst.Options{Size: new(64), Start: nst.StartNoise, Iterations: new(15), TVWeight: new(1e-9)}
	_, rough := run(t, e, o)
	o.TVWeight = new(1000.0)
	_, smooth := run(t, e, o)
	assert.Less(t, smooth[15].TV, 0.5*rough[15].TV)
}

func TestNothingToDo(t *testing.T) {
	e := engine(t, "cpu")
	p := picture.New(32, 32)
	for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
		r, err := e.Stylize(context.Background(), p, []*picture.Picture{p},
			nst.Options{Size: new(0), Optimizer: optimizer, Iterations: new(3), StyleMargin: new(0.0)}, nst.Hooks{})
		require.NoError(t, err, "a picture that has the style already: no gradient, no NaN")
		assert.Zero(t, r.Costs.Total)
		assert.Equal(t, p, r.Picture)
	}
}

// pictureAt is the picture at this moment.
func pictureAt(t *testing.T, p nst.Progress) *picture.Picture {
	now, err := p.State.Picture()
	require.NoError(t, err)
	return now
}

// The state can be read in the callback, on its goroutine, and nowhere else: an error,
// no crash.
func TestStateIsTheCallbacks(t *testing.T) {
	e := engine(t, "cpu")
	var kept []*nst.State
	_, err := e.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
		[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))},
		nst.Options{Size: new(32), Iterations: new(2)}, nst.Hooks{Progress: func(p nst.Progress) {
			kept = append(kept, p.State)
			elsewhere := make(chan error)
			go func() {
				_, err := p.State.Picture()
				elsewhere <- err
			}()
			assert.ErrorIs(t, <-elsewhere, nst.ErrState)
			assert.Equal(t, 32, pictureAt(t, p).Width)
		}})
	require.NoError(t, err)
	for _, s := range append(kept, nil) {
		_, err := s.Picture()
		assert.ErrorIs(t, err, nst.ErrState)
		_, err = s.Checkpoint()
		assert.ErrorIs(t, err, nst.ErrState)
	}
}

// Costs are read after as many iterations as are asked for, and the run is the same.
func TestReadEvery(t *testing.T) {
	e := engine(t, "pretend:0")
	run := func(every int) (totals []float64, states []int) {
		_, err := e.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
			[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))},
			nst.Options{Size: new(32), Scales: nst.ScalesOff, Iterations: new(9),
				Optimizer: nst.Adam}, nst.Hooks{ReadEvery: every, Progress: func(p nst.Progress) {
				totals = append(totals, p.Total)
				if p.State != nil {
					states = append(states, p.Iteration)
				}
			}})
		require.NoError(t, err)
		return totals, states
	}
	want, states := run(1)
	assert.Len(t, states, 10)
	got, states := run(4)
	assert.Equal(t, want, got)
	assert.Equal(t, []int{0, 4, 8, 9}, states)
	_, err := e.Stylize(context.Background(), picture.New(32, 32), []*picture.Picture{picture.New(32, 32)},
		nst.Options{}, nst.Hooks{ReadEvery: -1})
	assert.ErrorIs(t, err, nst.ErrInvalidOption)
}

func TestCancelling(t *testing.T) {
	e := engine(t, "cpu")
	content, style := open(t, nsttest.Demo(t, "content.png")), open(t, nsttest.Demo(t, "style.png"))
	ctx, cancel := context.WithCancel(context.Background())
	var best float64 = math.Inf(1)
	var last *picture.Picture
	r, err := e.Stylize(ctx, content, []*picture.Picture{style}, nst.Options{Size: new(48), Iterations: new(1000)},
		nst.Hooks{Progress: func(p nst.Progress) {
			assert.Equal(t, 48, p.Scale)
			assert.Equal(t, 1000, p.Iterations)
			best = min(best, p.Total)
			last = pictureAt(t, p)
			if p.Iteration == 4 {
				cancel()
			}
		}})
	require.ErrorIs(t, err, context.Canceled)
	require.NotNil(t, r)
	assert.Equal(t, best, r.Costs.Total)
	assert.Equal(t, last, r.Picture, "the last was the best")
	assert.LessOrEqual(t, r.Iterations, 5)

	r, err = e.Stylize(ctx, content, []*picture.Picture{style}, nst.Options{}, nst.Hooks{})
	assert.ErrorIs(t, err, context.Canceled)
	assert.Nil(t, r)
}

func TestUnusablePicturesAreRefused(t *testing.T) {
	e := engine(t, "cpu")
	good := picture.New(40, 40)
	for name, c := range map[string]struct {
		content *picture.Picture
		styles  []*picture.Picture
		options nst.Options
		part    string
	}{
		"no content": {nil, []*picture.Picture{good}, nst.Options{}, "content picture"},
		"no style":   {good, nil, nst.Options{}, "no style picture"},
		"one pixel": {picture.New(1, 1), []*picture.Picture{good}, nst.Options{},
			"the content picture is 1×1; layer relu4_2 needs at least 8×8"},
		"small style": {good, []*picture.Picture{good, picture.New(100, 7)}, nst.Options{},
			"style picture 2 is 100×7"},
		"made small": {picture.New(400, 40), []*picture.Picture{good}, nst.Options{Size: new(64)},
			"becomes, with its longest side 64, 64×6"},
		"deepest layer": {good, []*picture.Picture{picture.New(31, 64)},
			nst.Options{StyleLayers: []nst.LayerWeight{{Layer: "pool5"}}}, "pool5 needs at least 32×32"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.Stylize(context.Background(), c.content, c.styles, c.options, nst.Hooks{})
			require.ErrorIs(t, err, picture.ErrPicture)
			assert.ErrorContains(t, err, c.part)
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	layer := func(name string, weight float64) []nst.LayerWeight {
		return []nst.LayerWeight{{Layer: name, Weight: &weight}}
	}
	for name, c := range map[string]struct {
		options     nst.Options
		field, part string
	}{
		"preset": {nst.Options{Preset: "fancy"}, "Preset",
			`"fancy" is unknown: known are balanced, classic and gatys`},
		"optimizer":       {nst.Options{Optimizer: "sgd"}, "Optimizer", "known are adam and lbfgs"},
		"negative weight": {nst.Options{ContentWeight: new(-1.0)}, "ContentWeight", "is -1; it cannot be negative"},
		"NaN weight":      {nst.Options{StyleWeight: new(math.NaN())}, "StyleWeight", "is NaN"},
		"infinite weight": {nst.Options{StyleWeight: new(math.Inf(1))}, "StyleWeight", "is +Inf"},
		"all zero": {nst.Options{StyleWeight: new(0.0), ContentWeight: new(0.0)}, "ContentWeight",
			"every weight is 0"},
		"all layers zero": {nst.Options{StyleWeight: new(0.0), ContentLayers: layer("relu1_1", 0)}, "ContentWeight",
			"every weight is 0"},
		"variation":     {nst.Options{TVWeight: new(-1.0)}, "TVWeight", "is -1"},
		"style weights": {nst.Options{StyleWeights: []float64{1, math.NaN()}}, "StyleWeights", "is NaN"},
		"sum of weights": {nst.Options{StyleWeights: []float64{1e308, 1e308}}, "StyleWeights",
			"their sum is no number"},
		"no style weights": {nst.Options{StyleWeights: []float64{0}}, "StyleWeights", "are all 0"},
		"large scale":      {nst.Options{StyleScale: new(1000.0)}, "StyleScale", "makes the style size 512000"},
		"style scale":      {nst.Options{StyleScale: new(-1.0)}, "StyleScale", "is -1"},
		"NaN rate":         {nst.Options{LearningRate: new(math.NaN())}, "LearningRate", "is NaN"},
		"zero rate":        {nst.Options{LearningRate: new(0.0)}, "LearningRate", "is 0"},
		"layer":            {nst.Options{StyleLayers: layer("relu9_1", 1)}, "StyleLayers", `unknown layer "relu9_1"`},
		"layer twice": {nst.Options{ContentLayers: append(layer("relu1_1", 1), layer("relu1_1", 2)...)},
			"ContentLayers", "relu1_1 twice"},
		"layer weight": {nst.Options{ContentLayers: layer("relu1_1", -2)}, "ContentLayers", "negative"},
		"iterations":   {nst.Options{Iterations: new(-1)}, "Iterations", "is -1"},
		"size":         {nst.Options{Size: new(-7)}, "Size", "is -7"},
		"large size":   {nst.Options{StyleSize: new(100000)}, "StyleSize", "at most 65535"},
		"start":        {nst.Options{Start: "blue"}, "Start", "known are content, noise, gray, faint and picture"},
		"no picture":   {nst.Options{Start: nst.StartPicture}, "Picture", "cannot be started from"},
		"pooling":      {nst.Options{Pooling: "median"}, "Pooling", "known are max and avg"},
		"precision":    {nst.Options{Precision: "int8"}, "Precision", "known are"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.options.Validate()
			require.ErrorIs(t, err, nst.ErrInvalidOption)
			var option *nst.OptionError
			require.ErrorAs(t, err, &option)
			assert.Equal(t, c.field, option.Field)
			assert.Contains(t, option.Problem, c.part)
		})
	}
	assert.NoError(t, nst.Options{}.Validate())
}

// An error speaks of options by the names that its reader has for them, and leaves what was given.
func TestTextOfOptionErrors(t *testing.T) {
	err := &nst.OptionError{Field: "Start", Problem: `"Size" is unknown; Picture, Size or MaskSoft may be`}
	assert.Equal(t, `--start "Size" is unknown; --picture, --size or --masksoft may be`,
		err.Text(func(field string) string { return "--" + strings.ToLower(field) }))
}

func TestConcurrentTransfersOfOneEngine(t *testing.T) {
	e := engine(t, "cpu")
	want, _ := run(t, e, nst.Options{Size: new(32), Iterations: new(2)})
	done := make(chan *picture.Picture)
	for range 4 {
		go func() {
			r, err := e.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
				[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))}, nst.Options{Size: new(32),
					Iterations: new(2)}, nst.Hooks{})
			assert.NoError(t, err)
			done <- r.Picture
		}()
	}
	for range 4 {
		assert.Equal(t, want.Picture, <-done)
	}
}

func TestOpenErrors(t *testing.T) {
	_, err := nst.Open(context.Background(), "vgg19/testdata/small.json", nst.OpenOptions{Device: "cpu"})
	assert.ErrorIs(t, err, vgg19.ErrNetwork)
	_, err = nst.Open(context.Background(), "vgg19/testdata/small.pt", nst.OpenOptions{Device: "abacus"})
	assert.ErrorIs(t, err, torch.ErrDevice)
}

// Strength is a style weight: resolved options say which, and resolving them again changes
// nothing.
func TestStrength(t *testing.T) {
	for _, c := range []struct {
		preset           nst.Preset
		strength, weight float64
	}{{nst.Balanced, 0.5, 300}, {nst.Balanced, 0, 30}, {nst.Balanced, 1, 3000}, {nst.Classic, 1, 400},
		{nst.Gatys, 0.5, 5}} {
		o, err := nst.Options{Preset: c.preset, Strength: &c.strength}.Resolve()
		require.NoError(t, err)
		assert.InEpsilon(t, c.weight, *o.StyleWeight, 1e-9)
		again, err := o.Resolve()
		require.NoError(t, err)
		assert.Equal(t, o, again)
	}
	for part, o := range map[string]nst.Options{
		"Strength is 1.5; 0 to 1 will do": {Strength: new(1.5)},
		"Strength is NaN":                 {Strength: new(math.NaN())},
		"leave one of them out":           {Strength: new(0.5), StyleWeight: new(2.0)},
	} {
		_, err := o.Resolve()
		assert.ErrorContains(t, err, part)
	}
}
