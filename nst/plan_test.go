package nst

import (
	"context"
	"maps"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// defaultSituation is of one picture by the default options, with 64 GiB of the host's
// memory.
func defaultSituation(t *testing.T, e *Engine, schedule ...scale) situation {
	return situationOf(t, e, Options{}, schedule...)
}

// situationOf is that of other options.
func situationOf(t *testing.T, e *Engine, o Options, schedule ...scale) situation {
	s, err := o.withDefaults()
	require.NoError(t, err)
	spec := s.spec
	spec.Channels = map[vgg19.Layer]int64{}
	for _, l := range s.layers() {
		spec.Channels[l] = int64(l.Channels)
	}
	return situation{
		workers: e.workers, free: map[torch.Device]int64{torch.CPU: 64 << 30}, tile: TileAuto, pictures: 1,
		schedule: schedule, spec: &spec, descent: s.descent, double: s.Precision == Double,
	}
}

// A plan is made by its situation alone; with less memory tiles are no larger, and what
// it plans fits, until nothing does.
func TestPlan(t *testing.T) {
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	at := defaultSituation(t, e, scale{512, 384, 0.5, 30}, scale{1024, 768, 1, 100})
	whole := at.plan()
	assert.Equal(t, tiling.Size{}, whole.size)
	assert.Equal(t, torch.KeepSmall, whole.keep, "for one tile nothing more is gained")
	before, warned := 1<<20, 0
	for free := int64(8 << 30); free > 64<<20; free = free * 4 / 5 {
		at.free[torch.CPU] = free
		given := maps.Clone(at.free)
		p := at.plan()
		assert.Equal(t, p, at.plan())
		assert.Equal(t, given, at.free, "it changes nothing")
		side := p.size.Side
		if side == 0 {
			side = 1 << 20
		}
		assert.LessOrEqual(t, side, before, "%d MiB", free>>20)
		before = side
		assert.Equal(t, side < slow, p.warning != "", "%d pixels: %s", side, p.warning)
		if p.warning != "" {
			warned++
			at.free[torch.CPU] += missed(t, p.warning, "cpu")
			assert.GreaterOrEqual(t, at.plan().size.Side, comfortable, p.warning)
		}
	}
	assert.Positive(t, warned)
	at.tile, at.free[torch.CPU] = "256", 8<<30
	assert.Equal(t, 256, at.plan().size.Side)
	assert.Greater(t, at.plan().passes, 1)
	assert.Equal(t, torch.KeepAll, at.plan().keep)
	at.tile = TileOff
	assert.Equal(t, tiling.Size{}, at.plan().size)
}

// missed is how much memory of a device a plan's warning asks for.
func missed(t *testing.T, warning, device string) int64 {
	found := regexp.MustCompile(`(\d+) MiB on ` + device + `[,)]`).FindStringSubmatch(warning)
	require.NotNil(t, found, warning)
	more, err := strconv.ParseInt(found[1], 10, 64)
	require.NoError(t, err)
	return more << 20
}

// Under a limit L-BFGS takes its part of what is added; of several devices each says what it
// lacks, and an explicit tile is warned of when the pictures alone do not fit.
func TestPlanSaysWhatIsMissing(t *testing.T) {
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	for _, free := range []int64{50, 100, 200, 300} {
		at := defaultSituation(t, e, scale{3000, 2000, 1, 100})
		at.limited, at.free[torch.CPU] = true, free<<20
		p := at.plan()
		require.NotEmpty(t, p.warning)
		at.free[torch.CPU] += missed(t, p.warning, "cpu")
		assert.Empty(t, at.plan().warning, "after: %s", p.warning)
	}
	at := defaultSituation(t, e, scale{4096, 4096, 1, 100})
	at.tile, at.free[torch.CPU] = "64", 100<<20
	assert.Contains(t, at.plan().warning, "the picture and lbfgs's state take")

	both, err := Open(context.Background(), "vgg19/testdata/small.pt",
		OpenOptions{Device: "pretend:0,pretend:1"})
	require.NoError(t, err)
	defer both.Close()
	at = defaultSituation(t, both, scale{167, 331, 1, 100})
	at.free["pretend:0"] = 5 << 30 // and of the other nothing
	p := at.plan()
	at.free["pretend:1"] += missed(t, p.warning, "pretend:1")
	assert.NotContains(t, p.warning, "pretend:0")
	assert.Empty(t, at.plan().warning, "after: %s", p.warning)
}

// The pictures leave an accelerator that has no room for them, and maps that its kernels
// cannot count are cut.
func TestPlanOfAnAccelerator(t *testing.T) {
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", OpenOptions{Device: "pretend:0"})
	require.NoError(t, err)
	defer e.Close()
	at := defaultSituation(t, e, scale{8192, 4096, 1, 100})
	at.free["pretend:0"] = 1 << 40
	p := at.plan()
	assert.Equal(t, torch.Device("pretend:0"), p.primary)
	assert.Positive(t, p.size.Side, "64 maps of 8192×4096 are 2³¹ values")
	at.free["pretend:0"] = 4 << 30
	assert.Equal(t, torch.CPU, at.plan().primary)
}

// A small picture is made whole under a limit that the transformed weights, which its
// small maps would have kept, do not fit in.
func TestPlanOfASmallPicture(t *testing.T) {
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	for _, w := range e.workers {
		w.Network.SetFast(true)
	}
	at := defaultSituation(t, e, scale{300, 200, 1, 100})
	at.free[torch.CPU], at.limited = 165<<20, true
	p := at.plan()
	assert.Equal(t, tiling.Size{}, p.size)
	assert.Equal(t, torch.KeepNone, p.keep)
	assert.Empty(t, p.warning)
}

// CUDA's libraries try algorithms where that is asked for, or where a scale has work enough to
// win the time back; precisions that give the same bits each time never have them try.
func TestAutotunes(t *testing.T) {
	small, large := scale{512, 512, 1, 500}, scale{4096, 4096, 1, 1200}
	for _, c := range []struct {
		autotune  Autotune
		precision Precision
		at        scale
		pictures  int
		tries     bool
	}{
		{"", Fast, small, 1, false}, {"", Fast, large, 1, true}, {AutotuneAuto, BF16, small, 16, false},
		{AutotuneAuto, BF16, small, 160, true}, {AutotuneOff, Fast, large, 1, false},
		{AutotuneOn, Fast, small, 1, true},
		{AutotuneOn, Exact, large, 1, false}, {AutotuneAuto, Double, large, 1, false},
	} {
		s, err := Options{Autotune: c.autotune, Precision: c.precision}.withDefaults()
		require.NoError(t, err)
		assert.Equal(t, c.tries, s.autotunes(c.at, c.pictures), "%+v", c)
	}
}

// More memory never makes a worse plan: tiles do not grow in number, by any loss, optimiser or size.
func TestMoreMemoryMakesNoMoreTiles(t *testing.T) {
	nsttest.Long(t)
	for _, device := range []string{"pretend:0", "cpu"} {
		e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: device})
		require.NoError(t, err)
		defer e.Close()
		for _, size := range []int{512, 1400} {
			for _, o := range []Options{{Optimizer: Adam}, {Optimizer: LBFGS}, {Optimizer: LBFGS, Precision: BF16},
				{Optimizer: Adam, StyleLoss: NeighboursLoss}, {Optimizer: LBFGS, StyleLoss: WassersteinLoss}} {
				for _, limited := range []bool{false, true} {
					before, at := 1<<30, int64(0)
					for free := int64(150 << 20); before > 1; free += free / 30 {
						s := situationOf(t, e, o, scale{size, size * 3 / 4, 1, 100})
						s.limited, s.free[e.Device()] = limited, free
						p := s.plan()
						last := s.schedule[len(s.schedule)-1]
						tiles := len(s.spec.Cut(last.width, last.height, p.size))
						require.LessOrEqual(t, tiles, before, "%s, %d px, %+v: %d MiB has %d tiles, %d MiB %d",
							device, size, o, at>>20, before, free>>20, tiles)
						before, at = tiles, free
					}
				}
			}
		}
	}
}
