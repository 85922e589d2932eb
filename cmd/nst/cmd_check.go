package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/seed9bb5c928/nst/cmd/nst/internal/bench"
	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// newCheckCommand is what scripts/gpu_check runs.
func newCheckCommand() *cobra.Command {
	o := &checkOptions{}
	c := &cobra.Command{
		Use:    "check --device DEVICE --stage gradients|features|graphs",
		Short:  "Compare a device with the CPU, or look for leaks and replayed graphs: one JSON object",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runCheck(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&o.device, "device", "cuda", "the device to check")
	c.Flags().StringVar(&o.model, "model", "", "a TorchScript feature network (default: the default VGG-19)")
	c.Flags().StringVar(&o.stage, "stage", "",
		"gradients, of every precision against float64 on the CPU; features: a short run with each loss and option, "+
			"likewise; graphs: replays, open tensors and memory over many iterations; all if empty")
	c.Flags().IntVar(&o.size, "size", 256, "side of the pictures")
	c.Flags().IntVar(&o.iterations, "iterations", 1000, "iterations over which memory is watched")
	return c
}

type checkOptions struct {
	device, model, stage string
	size, iterations     int
}

// deviceCheck is the JSON object.
type deviceCheck struct {
	Device     torch.Device     `json:"device"`
	Card       string           `json:"card,omitempty"`
	Libtorch   string           `json:"libtorch"`
	Size       int              `json:"size"`
	Precisions []precisionCheck `json:"precisions,omitempty"`
	Features   []featureCheck   `json:"features,omitempty"`
	Graphs     []graphCheck     `json:"graphs,omitempty"`
	Passed     bool             `json:"passed"`
}

// graphCheck is many iterations of an optimiser: how many were replayed from a graph,
// and open tensors and allocated bytes after a few iterations and after all.
type graphCheck struct {
	Optimizer   nst.Optimizer `json:"optimizer"`
	Iterations  int           `json:"iterations"`
	Replayed    int           `json:"replayed_iterations"`
	LiveTensors [2]int64      `json:"live_tensors"`
	Allocated   [2]int64      `json:"allocated_bytes"`
	Passed      bool          `json:"passed"`
}

// figure is a number, or null in JSON where it is none.
type figure float64

// MarshalJSON implements json.Marshaler.
func (f figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// precisionCheck is a precision on the device against float64 on the CPU.
type precisionCheck struct {
	Precision  nst.Precision `json:"precision"`
	Total      figure        `json:"total_relative_error"`
	Gradient   figure        `json:"gradient_relative_l2_error"`
	Tolerances [2]figure     `json:"tolerances"` // of both
	Error      string        `json:"error,omitempty"`
	Passed     bool          `json:"passed"`
}

// featureCheck is a short run with something that is asked for, in float64 on the device and on
// the CPU.
type featureCheck struct {
	Feature  string `json:"feature"`
	Total    figure `json:"total_relative_error"`      // of the last iteration's cost
	Picture  figure `json:"picture_relative_l2_error"` // of the result
	Replayed int    `json:"replayed_iterations"`
	Error    string `json:"error,omitempty"`
	Passed   bool   `json:"passed"`
}

func runCheck(ctx context.Context, o *checkOptions, stdout, stderr io.Writer) error {
	if !slices.Contains([]string{"", "gradients", "features", "graphs"}, o.stage) {
		return usage("--stage is %q; gradients, features or graphs will do", o.stage)
	}
	if o.size < leastSize || o.iterations < 1 {
		return usage("--size is %d and --iterations %d; %d or more, and 1 or more will do", o.size, o.iterations,
			leastSize)
	}
	there := &transferFlags{device: o.device, model: o.model}
	engine, err := there.open(ctx, stderr) // before the CPU's: libtorch counts its devices once
	if err != nil {
		return err
	}
	defer engine.Close()
	content, style, err := (&benchOptions{}).pictures(ctx)
	if err != nil {
		return err
	}
	d := &deviceCheck{Device: engine.Device(), Card: torch.Card(engine.Device()), Libtorch: torch.Version(),
		Size: o.size, Passed: true}
	asked := func(stage string) bool { return o.stage == "" || o.stage == stage }
	if asked("gradients") || asked("features") {
		reference, err := (&transferFlags{device: "cpu", model: o.model}).open(ctx, stderr)
		if err != nil {
			return err
		}
		defer reference.Close()
		if asked("gradients") {
			err = d.gradients(ctx, o, engine, reference, content, style)
		}
		if err == nil && asked("features") {
			err = d.features(ctx, o, engine, reference, content, style)
		}
		if err != nil {
			return err
		}
	}
	if asked("graphs") {
		if err := d.graphs(ctx, o, engine, content, style); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(stdout).Encode(d); err != nil {
		return err
	}
	if !d.Passed {
		return fmt.Errorf("%s differs from the CPU, records no graph, or leaks: see the JSON object", engine.Device())
	}
	return nil
}

// tolerances are by how much a precision's total and gradient may differ from float64's, with the
// default network and a start from noise: two to four times what was found at 64 to 512 px with
// TF32's and bf16's rounding emulated on the pretend accelerator. (Where a picture comes near the
// style, what is left of the difference of Gram matrices is itself of rounding's size.)
var tolerances = []struct {
	precision       nst.Precision
	total, gradient figure
}{{nst.Double, 1e-6, 1e-6}, {nst.Exact, 1e-5, 1e-3}, {nst.Fast, 1e-3, 0.02}, {nst.TF32, 1e-3, 0.02},
	{nst.BF16, 1e-3, 0.07}}

// cpuFast is the gradient's tolerance of the CPU's Winograd kernels, which do not round to TF32.
const cpuFast = 5e-3

// gradients compares every precision's costs and gradient with float64's on the CPU.
func (d *deviceCheck) gradients(ctx context.Context, o *checkOptions, engine, reference *nst.Engine, content,
	style *picture.Picture) error {
	evaluate := func(e *nst.Engine, p nst.Precision) (nst.Costs, []float32, error) {
		return e.Evaluate(ctx, content, style, nst.Options{Size: &o.size, Precision: p, Start: nst.StartNoise})
	}
	wantCosts, want, err := evaluate(reference, nst.Double)
	if err != nil {
		return err
	}
	for _, p := range tolerances {
		if p.precision == nst.TF32 && engine.Device() == torch.CPU {
			continue
		}
		if p.precision == nst.Fast && engine.Device() == torch.CPU {
			p.gradient = cpuFast
		}
		c := precisionCheck{Precision: p.precision, Tolerances: [2]figure{p.total, p.gradient}}
		costs, got, err := evaluate(engine, p.precision)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // the others are checked all the same
			c.Error = oneLine(err)
		} else {
			c.Total, c.Gradient = figure(math.Abs(costs.Total/wantCosts.Total-1)), relativeError(got, want)
			c.Passed = c.Total <= p.total && c.Gradient <= p.gradient
		}
		d.Passed = d.Passed && c.Passed
		d.Precisions = append(d.Precisions, c)
	}
	return nil
}

// relativeError is how far values are from others, in the Euclidean norm, as a part of these.
func relativeError(got, want []float32) figure {
	var difference, norm float64
	for i, w := range want {
		difference += math.Pow(float64(got[i])-float64(w), 2)
		norm += math.Pow(float64(w), 2)
	}
	return figure(math.Sqrt(difference / norm))
}

// feature is something that changes what a device is sent, and whether it is replayed.
type feature struct {
	options nst.Options
	replays bool
}

// checked are the features that are checked.
func checked(size int) map[string]feature {
	half := picture.New(size, size)
	for i := range half.Pixels {
		half.Pixels[i] = float32(i % size * 2 / size)
	}
	held := &nst.Previous{Picture: half, Weights: half.Pixels[:size*size]}
	return map[string]feature{
		"plain":      {nst.Options{}, true},
		"lbfgs":      {nst.Options{Optimizer: nst.LBFGS}, true},
		"moments":    {nst.Options{StyleLoss: nst.MomentsLoss}, true},
		"w2":         {nst.Options{StyleLoss: nst.WassersteinLoss}, false},
		"swd":        {nst.Options{StyleLoss: nst.SlicedLoss}, false},
		"nn":         {nst.Options{StyleLoss: nst.NeighboursLoss, StyleRotate: []float64{0, 90}}, true},
		"similarity": {nst.Options{ContentLoss: nst.SimilarityLoss}, true},
		"average":    {nst.Options{Pooling: vgg19.AveragePooling}, true},
		"replicate":  {nst.Options{Padding: vgg19.ReplicatePadding}, true},
		"tv":         {nst.Options{TVWeight: new(1.0)}, true},
		"wrap":       {nst.Options{Wrap: nst.WrapXY}, true},
		"masks":      {nst.Options{ContentMask: half, StyleMasks: []*picture.Picture{half}}, true},
		"soft masks": {nst.Options{ContentMask: half, StyleMasks: []*picture.Picture{half}, MaskSoft: true}, true},
		"nn masks": {nst.Options{ContentMask: half, StyleMasks: []*picture.Picture{half},
			StyleLoss: nst.NeighboursLoss}, true},
		"strength": {nst.Options{StrengthMask: half}, true},
		"video":    {nst.Options{Previous: held}, true},
		"texture":  {nst.Options{ContentWeight: new(0.0), Start: nst.StartFaint}, true},
		"classic":  {nst.Options{Preset: nst.Classic}, true},
		"gatys":    {nst.Options{Preset: nst.Gatys}, true},
		"tiles":    {nst.Options{Tile: nst.Tile(strconv.Itoa(size / 2))}, false},
	}
}

// leastSize is the smallest for which tolerances were found.
const leastSize = 64

// alike is how near to each other a feature's run on the device and on the CPU have to be.
const alike = 1e-5

// features compares a short run with each feature, in float64, with the CPU's. So what cannot be
// done on the device, is done wrongly, or is replayed wrongly, is found.
func (d *deviceCheck) features(ctx context.Context, o *checkOptions, engine, reference *nst.Engine, content,
	style *picture.Picture) error {
	const iterations = 6
	all := checked(o.size)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		f.options.Size, f.options.Iterations, f.options.Scales = &o.size, new(iterations), nst.ScalesOff
		f.options.Precision = nst.Double
		c := featureCheck{Feature: name}
		var made [2]*nst.Result
		var err error
		for i, e := range []*nst.Engine{reference, engine} {
			var failed error
			made[i], failed = e.Stylize(ctx, content, []*picture.Picture{style}, f.options, nst.Hooks{})
			err = errors.Join(err, failed)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // the others are checked all the same
			c.Error = oneLine(err)
		} else {
			c.Replayed = made[1].Replayed
			c.Total = figure(math.Abs(made[1].Costs.Total/made[0].Costs.Total - 1))
			c.Picture = relativeError(made[1].Picture.Pixels, made[0].Picture.Pixels)
			c.Passed = c.Total <= alike && c.Picture <= alike
		}
		if f.replays && engine.Device() != torch.CPU {
			c.Passed = c.Passed && c.Replayed >= iterations-2
		}
		d.Passed = d.Passed && c.Passed
		d.Features = append(d.Features, c)
	}
	return nil
}

// graphs runs many iterations of each optimiser. A device that is not the CPU is to
// replay all but the first ones.
func (d *deviceCheck) graphs(ctx context.Context, o *checkOptions, engine *nst.Engine, content,
	style *picture.Picture) error {
	for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
		g := graphCheck{Optimizer: optimizer, Iterations: o.iterations}
		few := min(o.iterations, 50) // L-BFGS's memory fills at first
		run := bench.StartMeter(ctx, engine, content, style, nst.Options{Optimizer: optimizer}, o.size, 1, 1)
		var err error
		for i, n := range []int{few, max(1, o.iterations-few)} {
			if _, err = run.Iterate(n); err != nil {
				break
			}
			m, memoryErr := torch.MemoryOf(engine.Device())
			err = memoryErr
			g.LiveTensors[i], g.Allocated[i] = torch.Live(), m.Allocated
		}
		result, stopErr := run.Stop()
		if err = errors.Join(err, stopErr); err != nil {
			return err
		}
		g.Replayed = result.Replayed
		// While L-BFGS's memory fills, nothing can be said of leaks.
		g.Passed = o.iterations <= few ||
			g.LiveTensors[0] == g.LiveTensors[1] && float64(g.Allocated[1]) < 1.01*float64(g.Allocated[0])
		if engine.Device() != torch.CPU {
			g.Passed = g.Passed && g.Replayed >= o.iterations-2
		}
		d.Passed = d.Passed && g.Passed
		d.Graphs = append(d.Graphs, g)
	}
	return nil
}
