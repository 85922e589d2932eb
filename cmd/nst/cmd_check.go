package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"github.com/seed9bb5c928/nst/cmd/nst/internal/bench"
	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// newCheckCommand is what scripts/gpu_check runs.
func newCheckCommand() *cobra.Command {
	o := &checkOptions{}
	c := &cobra.Command{
		Use:    "check --device DEVICE --stage gradients|graphs",
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
		"gradients, of every precision against float64 on the CPU; graphs: replays, open tensors and memory over many "+
			"iterations; both if empty")
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

// precisionCheck is a precision on the device against float64 on the CPU.
type precisionCheck struct {
	Precision nst.Precision `json:"precision"`
	Total     float64       `json:"total_relative_error"`
	Gradient  float64       `json:"gradient_relative_l2_error"`
	Tolerance float64       `json:"tolerance"` // of the gradient; the total's is the same
	Passed    bool          `json:"passed"`
}

func runCheck(ctx context.Context, o *checkOptions, stdout, stderr io.Writer) error {
	if !slices.Contains([]string{"", "gradients", "graphs"}, o.stage) {
		return usage("--stage is %q; gradients or graphs will do", o.stage)
	}
	there := &transferFlags{device: o.device, model: o.model}
	engine, err := there.open(ctx, stderr) // before the CPU's: libtorch counts its devices once
	if err != nil {
		return err
	}
	defer engine.Close()
	content, style, err := (&benchOptions{}).pictures()
	if err != nil {
		return err
	}
	d := &deviceCheck{Device: engine.Device(), Card: torch.Card(engine.Device()), Libtorch: torch.Version(),
		Size: o.size, Passed: true}
	if o.stage != "graphs" {
		if err := d.gradients(ctx, o, engine, content, style, stderr); err != nil {
			return err
		}
	}
	if o.stage != "gradients" {
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

// tolerances are by how much a precision's total and gradient may differ from
// float64's: about twice what was found with TF32's and bf16's rounding emulated on the
// CPU (3.2 and 10.5 % of the gradient at 256 px).
var tolerances = []struct {
	precision nst.Precision
	tolerance float64
}{{nst.Double, 1e-6}, {nst.Exact, 1e-3}, {nst.Fast, 0.07}, {nst.TF32, 0.07}, {nst.BF16, 0.22}}

// cpuFast is the tolerance of the CPU's Winograd kernels, which do not round to TF32.
const cpuFast = 5e-3

// gradients compares every precision's costs and gradient with float64's on the CPU.
func (d *deviceCheck) gradients(ctx context.Context, o *checkOptions, engine *nst.Engine, content,
	style *picture.Picture, stderr io.Writer) error {
	here := &transferFlags{device: "cpu", model: o.model}
	reference, err := here.open(ctx, stderr)
	if err != nil {
		return err
	}
	defer reference.Close()
	evaluate := func(e *nst.Engine, p nst.Precision) (nst.Costs, []float32, error) {
		return e.Evaluate(ctx, content, style, nst.Options{Size: &o.size, Precision: p})
	}
	wantCosts, want, err := evaluate(reference, nst.Double)
	if err != nil {
		return err
	}
	for _, p := range tolerances {
		if p.precision == nst.TF32 && engine.Device() == torch.CPU {
			continue
		}
		costs, got, err := evaluate(engine, p.precision)
		if err != nil {
			return fmt.Errorf("%s: %w", p.precision, err)
		}
		var difference, norm float64
		for i, w := range want {
			difference += math.Pow(float64(got[i]-w), 2)
			norm += math.Pow(float64(w), 2)
		}
		if p.precision == nst.Fast && engine.Device() == torch.CPU {
			p.tolerance = cpuFast
		}
		c := precisionCheck{Precision: p.precision, Total: math.Abs(costs.Total/wantCosts.Total - 1),
			Gradient: math.Sqrt(difference / norm), Tolerance: p.tolerance}
		c.Passed = c.Total <= p.tolerance && c.Gradient <= p.tolerance
		d.Passed = d.Passed && c.Passed
		d.Precisions = append(d.Precisions, c)
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
