package nst

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// halves is a mask of two regions, the left and the right half.
func halves(width, height int) *picture.Picture {
	p := picture.New(width, height)
	for i := range p.Pixels {
		p.Pixels[i] = float32(i % width * 2 / width)
	}
	return p
}

// ramp is a mask that goes from black at the left to white at the right.
func ramp(width, height int) *picture.Picture {
	p := picture.New(width, height)
	for i := range p.Pixels {
		p.Pixels[i] = float32(i%width) / float32(width-1)
	}
	return p
}

// plannedAndTaken plans a run, and makes it. It returns what it is to take of each device by
// the plan, but for what libraries take, and what it took at most.
func plannedAndTaken(t *testing.T, e *Engine, inputs []Input, o Options) (planned, taken map[torch.Device]int64) {
	t.Helper()
	r, err := e.newRun(inputs, o, Hooks{})
	require.NoError(t, err)
	taken = map[torch.Device]int64{}
	require.NoError(t, r.do(context.Background(), func() error {
		s, err := r.situation()
		require.NoError(t, err)
		at := r.final()
		planned = s.needs(at, r.spec.Cut(at.width, at.height, r.pool.Size), r.settled)
		for device := range planned {
			m, err := torch.MemoryOf(device)
			require.NoError(t, err)
			planned[device] -= workspace
			taken[device] = -m.Allocated
			require.NoError(t, torch.ResetPeak(device))
		}
		_, err = r.optimise(context.Background())
		require.NoError(t, err)
		for device := range planned {
			m, err := torch.MemoryOf(device)
			require.NoError(t, err)
			taken[device] += m.Peak
		}
		return nil
	}))
	return planned, taken
}

// What a plan reckons a run takes of an accelerator is what it takes, or a little more,
// whatever is asked for.
func TestPlanIsWhatIsTaken(t *testing.T) {
	nsttest.Long(t)
	_, err := torch.ControlDevice("graphs", 0) // a recording would hold all that it made
	require.NoError(t, err)
	defer func() { _, _ = torch.ControlDevice("graphs", 1) }()
	// The slim network is fast at a size at which maps, and what is as large, take most. Where
	// it is not (to sort, and bfloat16 on the CPU) pictures are smaller. The published one has
	// channels enough for what is of channel by channel to count.
	const width, height = 384, 256
	content, style, mask := noise(1, width, height), noise(2, width, height), halves(width, height)
	masked := func(o Options) Options {
		o.ContentMask, o.StyleMasks = mask, []*picture.Picture{mask}
		return o
	}
	one := Input{Content: content, Styles: []*picture.Picture{style}}
	two := []Input{one, one}
	alike := Options{ContentLoss: SimilarityLoss, ContentLayers: []LayerWeight{{Layer: "relu3_1"}}, Size: new(128)}
	angles := []float64{0, 45, 90, 135, 180, 225, 270, 315}
	for name, c := range map[string]struct {
		options   Options
		published bool    // the network, not the slim one
		inputs    []Input // one if there are none
		devices   string  // "pretend:0" if there are none
		most      float64 // times what is taken may be planned, if that is more than 1.4
	}{
		"plain":                 {},
		"plain, published":      {options: Options{Size: new(128)}, published: true},
		"relu5_1":               {options: Options{Preset: Classic}},
		"exact":                 {options: Options{Precision: Exact}},
		"double":                {options: Options{Precision: Double}},
		"bf16":                  {options: Options{Precision: BF16, Size: new(256)}},
		"average":               {options: Options{Pooling: vgg19.AveragePooling}},
		"replicate":             {options: Options{Padding: vgg19.ReplicatePadding}},
		"tv":                    {options: Options{TVWeight: new(1.0)}},
		"temporal":              {options: Options{Previous: &Previous{content, make([]float32, width*height)}}},
		"wrap":                  {options: Options{Wrap: WrapXY}},
		"wrap, tiles":           {options: Options{Wrap: WrapXY, Tile: "128"}},
		"tiles":                 {options: Options{Tile: "128"}},
		"scales":                {options: Options{Scales: "192"}},
		"pictures":              {inputs: two},
		"several styles":        {inputs: []Input{{content, []*picture.Picture{style, content, style}}}},
		"large style":           {options: Options{StyleScale: new(2.0)}},
		"L-BFGS":                {options: Options{Optimizer: LBFGS}},
		"L-BFGS, double":        {options: Options{Optimizer: LBFGS, Precision: Double}},
		"L-BFGS, wrap":          {options: Options{Optimizer: LBFGS, Wrap: WrapXY}},
		"L-BFGS, pictures":      {options: Options{Optimizer: LBFGS}, inputs: two},
		"L-BFGS, scales":        {options: Options{Optimizer: LBFGS, Scales: "192"}},
		"moments":               {options: Options{StyleLoss: MomentsLoss}},
		"moments, bf16":         {options: Options{StyleLoss: MomentsLoss, Precision: BF16, Size: new(256)}},
		"w2":                    {options: Options{StyleLoss: WassersteinLoss}},
		"w2, published":         {options: Options{StyleLoss: WassersteinLoss, Size: new(128)}, published: true},
		"swd":                   {options: Options{StyleLoss: SlicedLoss, Size: new(256)}},
		"swd, bf16":             {options: Options{StyleLoss: SlicedLoss, Precision: BF16, Size: new(256)}},
		"swd, tiles":            {options: Options{StyleLoss: SlicedLoss, Tile: "128", Size: new(256)}},
		"swd, pictures":         {options: Options{StyleLoss: SlicedLoss, Size: new(256)}, inputs: two},
		"nn":                    {options: Options{StyleLoss: NeighboursLoss}},
		"nn, bf16":              {options: Options{StyleLoss: NeighboursLoss, Precision: BF16}},
		"nn, tiles":             {options: Options{StyleLoss: NeighboursLoss, Tile: "128"}},
		"nn, pictures":          {options: Options{StyleLoss: NeighboursLoss}, inputs: two},
		"nn, rotations":         {options: Options{StyleLoss: NeighboursLoss, StyleRotate: angles, Size: new(256)}},
		"similarity":            {options: Options{ContentLoss: SimilarityLoss}},
		"similarity, published": {options: alike, published: true},
		"masks":                 {options: masked(Options{})},
		"masks, bf16":           {options: masked(Options{Precision: BF16})},
		"masks, tiles":          {options: masked(Options{Tile: "128"})},
		"masks, tiles, bf16":    {options: masked(Options{Tile: "128", Precision: BF16})},
		"masks, moments":        {options: masked(Options{StyleLoss: MomentsLoss})},
		"masks, moments, bf16":  {options: masked(Options{StyleLoss: MomentsLoss, Precision: BF16})},
		"masks, swd":            {options: masked(Options{StyleLoss: SlicedLoss, Size: new(256)})},
		"masks, swd, bf16":      {options: masked(Options{StyleLoss: SlicedLoss, Precision: BF16, Size: new(256)})},
		"masks, nn":             {options: masked(Options{StyleLoss: NeighboursLoss})},
		"masks, nn, bf16":       {options: masked(Options{StyleLoss: NeighboursLoss, Precision: BF16})},
		"soft masks":            {options: masked(Options{MaskSoft: true})},
		"strength":              {options: Options{StrengthMask: ramp(width, height)}},
		"strength, tiles":       {options: Options{StrengthMask: ramp(width, height), Tile: "128"}},
		"alpha":                 {inputs: []Input{{fading(noise(1, width, height)), one.Styles}}},
		// either may have to keep the passes of both tiles
		"two devices": {devices: "pretend:0,pretend:1", most: 2.2},
	} {
		t.Run(name, func(t *testing.T) {
			nsttest.NoLeaks(t)
			model := nsttest.Slim(t)
			if c.published {
				model = nsttest.Model(t)
			}
			if c.inputs == nil {
				c.inputs = []Input{one}
			}
			e, err := Open(context.Background(), model, OpenOptions{Device: either(c.devices, "pretend:0")})
			require.NoError(t, err)
			defer e.Close()
			o := c.options
			o.Iterations, o.Optimizer, o.Scales = new(1), either(o.Optimizer, Adam), either(o.Scales, ScalesOff)
			if o.Scales != ScalesOff {
				o.Iterations = new(4) // at both
			}
			if o.Size == nil {
				o.Size = new(width)
			}
			planned, taken := plannedAndTaken(t, e, c.inputs, o)
			require.NotEmpty(t, taken)
			for device, bytes := range taken {
				ratio := float64(planned[device]) / float64(bytes)
				t.Logf("%s: %.1f MiB planned, %.1f taken: %.2f", device, float64(planned[device])/(1<<20),
					float64(bytes)/(1<<20), ratio)
				assert.GreaterOrEqual(t, ratio, 1.0)
				assert.LessOrEqual(t, ratio, max(c.most, 1.4))
			}
		})
	}
}
