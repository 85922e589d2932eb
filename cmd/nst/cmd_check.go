package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/torch"
)

// newCheckCommand is what scripts/gpu_check runs.
func newCheckCommand() *cobra.Command {
	var device, model string
	var size, iterations int
	c := &cobra.Command{
		Use:    "check --device DEVICE",
		Short:  "Compare a device with the CPU, and look for leaks: one JSON object",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runCheck(c.Context(), device, model, size, iterations, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&device, "device", "cuda", "the device to check")
	c.Flags().StringVar(&model, "model", "", "a TorchScript feature network (default: the default VGG-19)")
	c.Flags().IntVar(&size, "size", 256, "side of the pictures")
	c.Flags().IntVar(&iterations, "iterations", 1000, "iterations over which memory is watched")
	return c
}

// deviceCheck is the JSON object.
type deviceCheck struct {
	Device     torch.Device     `json:"device"`
	Libtorch   string           `json:"libtorch"`
	Precisions []precisionCheck `json:"precisions"`
	// Leaks: open tensors and allocated bytes after a few iterations, and after all.
	Iterations  int      `json:"iterations"`
	LiveTensors [2]int64 `json:"live_tensors"`
	Allocated   [2]int64 `json:"allocated_bytes"`
	Passed      bool     `json:"passed"`
}

// precisionCheck is a precision on the device against float64 on the CPU.
type precisionCheck struct {
	Precision nst.Precision `json:"precision"`
	Total     float64       `json:"total_relative_error"`
	Gradient  float64       `json:"gradient_relative_l2_error"`
	Tolerance float64       `json:"tolerance"` // of the gradient; the total's is the same
	Passed    bool          `json:"passed"`
}

func runCheck(ctx context.Context, device, model string, size, iterations int, stdout, stderr io.Writer) error {
	there := &transferFlags{device: device, model: model}
	engine, err := there.open(ctx, stderr) // before the CPU's: libtorch counts its devices once
	if err != nil {
		return err
	}
	defer engine.Close()
	here := &transferFlags{device: "cpu", model: model}
	reference, err := here.open(ctx, stderr)
	if err != nil {
		return err
	}
	defer reference.Close()
	content, style, err := (&benchOptions{}).pictures()
	if err != nil {
		return err
	}
	evaluate := func(e *nst.Engine, p nst.Precision) (nst.Costs, []float32, error) {
		return e.Evaluate(ctx, content, style, nst.Options{Size: &size, Precision: p})
	}
	d := &deviceCheck{Device: engine.Device(), Libtorch: torch.Version(), Iterations: iterations, Passed: true}
	wantCosts, want, err := evaluate(reference, nst.Double)
	if err != nil {
		return err
	}
	for _, p := range []struct {
		precision nst.Precision
		tolerance float64
	}{{nst.Double, 1e-6}, {nst.Exact, 5e-3}, {nst.Fast, 2e-2}, {nst.TF32, 2e-2}, {nst.BF16, 0.2}} {
		costs, got, err := evaluate(engine, p.precision)
		if err != nil {
			return fmt.Errorf("%s: %w", p.precision, err)
		}
		var difference, norm float64
		for i, w := range want {
			difference += math.Pow(float64(got[i]-w), 2)
			norm += math.Pow(float64(w), 2)
		}
		c := precisionCheck{Precision: p.precision, Total: math.Abs(costs.Total/wantCosts.Total - 1), Gradient: math.Sqrt(difference / norm), Tolerance: p.tolerance}
		c.Passed = c.Total <= p.tolerance && c.Gradient <= p.tolerance
		d.Passed = d.Passed && c.Passed
		d.Precisions = append(d.Precisions, c)
	}
	run, err := engine.StartBenchmark(ctx, content, style, nst.Options{}, size, 1)
	if err != nil {
		return err
	}
	defer run.Close()
	for i, n := range []int{min(iterations, 50), max(0, iterations-50)} { // L-BFGS's memory fills at first
		if _, _, err := run.Iterate(n); err != nil {
			return err
		}
		m, err := torch.MemoryOf(engine.Device())
		if err != nil {
			return err
		}
		d.LiveTensors[i], d.Allocated[i] = torch.Live(), m.Allocated
	}
	d.Passed = d.Passed && d.LiveTensors[0] == d.LiveTensors[1] && float64(d.Allocated[1]) < 1.01*float64(d.Allocated[0])
	if err := json.NewEncoder(stdout).Encode(d); err != nil {
		return err
	}
	if !d.Passed {
		return fmt.Errorf("%s differs from the CPU, or leaks: see the JSON object", engine.Device())
	}
	return nil
}
