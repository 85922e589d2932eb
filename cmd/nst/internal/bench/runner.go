package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// Runner measures workloads on an engine's device.
type Runner struct {
	Engine         *nst.Engine
	Content, Style *picture.Picture
	Precision      nst.Precision
	// Channels are those of the network's convolutions, by their names, that differ from the
	// published ones. Foreign says that its arithmetic is not known at all.
	Channels map[string]int
	Foreign  bool
	// Iterations are how many are measured of each workload; 0: as many as take BurstTime,
	// between 5 and 50.
	Iterations int
	// Sustain is how long a device is to go on after that; 0: it does not.
	Sustain time.Duration
	Peers   Peers
	// Stage is told what is being done, and how far it is (0 to 1; below 0: not known).
	Stage func(what string, fraction float64)

	card *card
}

// Times that a measurement takes, or may take.
const (
	BurstTime   = 15 * time.Second
	warmUpLimit = time.Minute
)

const (
	leastBurst, mostBurst = 5, 50
	rounds                = 3  // turns that nst and its peers take
	ahead                 = 32 // iterations sent without waiting
	// A median that moves by less than this stands still.
	still = 0.02
	// From these on figures are doubtful: quartiles this far apart, over the median; other
	// programs with that share of the processors; clocks that have fallen to that part.
	noisy       = 0.05
	othersShare = 0.05
	fallen      = 0.95
)

// NewReport is one without results.
func (r *Runner) NewReport(ctx context.Context, program string) (*Report, error) {
	device := r.Engine.Device()
	r.card = cardOf(device)
	peak, err := matrixGFLOPS(ctx, device)
	if err != nil {
		return nil, err
	}
	resolved, err := nst.Options{Precision: r.Precision}.Resolve()
	if err != nil {
		return nil, err
	}
	return &Report{Schema: Version, Time: time.Now().UTC().Truncate(time.Second), Device: device,
		Precision: string(resolved.Precision), Kernels: torch.KernelsName(), Threads: r.Engine.Threads(), Peak: peak,
		Machine: describe(r.card, r.Engine.Threads(), program)}, nil
}

func (r *Runner) stage(what string, fraction float64) {
	if r.Stage != nil {
		r.Stage(what, fraction)
	}
}

// Measure measures a workload.
func (r *Runner) Measure(ctx context.Context, w Workload) (out Result, err error) {
	w.Options.Precision = r.Precision
	resolved, err := w.Options.Resolve()
	if err != nil {
		return out, err
	}
	out = Result{Workload: w.Name, WorkloadVersion: w.Version, Size: w.Size, Batch: w.Batch,
		Optimizer: string(resolved.Optimizer), Warnings: []string{}}
	if w.Whole > 0 {
		err = r.whole(ctx, w, &out)
	} else {
		err = r.iterations(ctx, w, &out)
	}
	if err != nil {
		return out, err
	}
	out.SecondsPerIteration, out.Min = out.Burst.Median, out.Burst.Min
	out.IterationsPerSecond = float64(w.Batch) / out.SecondsPerIteration
	if !r.Foreign && w.Options.Scales == nst.ScalesOff || w.Whole == 0 && !r.Foreign {
		work, err := flops(w.Options, w.Size, r.Channels)
		if err != nil {
			return out, err
		}
		out.GFLOPs = finite(float64(w.Batch) * work / out.SecondsPerIteration / 1e9)
	}
	for name, p := range out.Peers {
		if p.Error == "" {
			p.describe(out.SecondsPerIteration)
			out.Peers[name] = p
		}
	}
	return out, nil
}

// iterations measures single ones: nst and each peer in turns.
func (r *Runner) iterations(ctx context.Context, w Workload, out *Result) (err error) {
	run := StartMeter(ctx, r.Engine, r.Content, r.Style, w.Options, w.Size, w.Batch, 1)
	defer func() { _, _ = run.Stop() }()
	r.stage("warming up", -1)
	first, err := run.Iterate(1)
	if err != nil {
		return err
	}
	out.First = first[0]
	var seconds float64 // of one
	if out.WarmUp, seconds, err = warmUp(run); err != nil {
		return err
	}
	if !out.WarmUp.Steady {
		out.warn("the times had not become steady after %.0f s of warming up", out.WarmUp.Seconds)
	}
	n := r.Iterations
	if n == 0 {
		n = min(max(int(BurstTime.Seconds()/seconds), leastBurst), mostBurst)
	}
	turns := 1
	if len(r.Peers) > 0 {
		turns = min(rounds, n)
		out.Peers = map[string]PeerResult{}
	}
	watcher := watch(r.card)
	var own []float64
	for turn := range turns {
		r.stage("measuring", float64(turn)/float64(turns))
		watcher.resume()
		some, err := run.Iterate(share(n, turns, turn))
		watcher.pause()
		if err != nil {
			return err
		}
		own = append(own, some...)
		for _, name := range r.Peers.Names() {
			p := out.Peers[name]
			if p.Error == "" {
				r.stage("PyTorch "+name, float64(turn)/float64(turns))
				r.Peers[name].run(name, w.Size, w.Batch, share(n, turns, turn), &p)
				out.Peers[name] = p
			}
		}
	}
	out.Burst, out.Telemetry = SeriesOf(own), watcher.telemetry(len(own), w.Batch)
	out.judge(out.Burst, out.Telemetry, watcher, "")
	if r.Sustain > 0 {
		if err := r.sustain(run, w, out); err != nil {
			return err
		}
	}
	result, err := run.Stop()
	if err != nil {
		return err
	}
	out.took(result)
	return r.sendAhead(ctx, w, out)
}

func (out *Result) took(result *nst.Result) {
	out.PeakMemory, out.Replayed, out.Tiles = result.PeakMemory, result.Replayed, result.Tiles
	out.Autotune = result.AutotuneSeconds
}

func (out *Result) warn(format string, args ...any) {
	out.Warnings = append(out.Warnings, fmt.Sprintf(format, args...))
}

// judge warns of what makes a series doubtful.
func (out *Result) judge(s Series, t Telemetry, w *watcher, which string) {
	if s.Spread > noisy {
		out.warn("the %siterations are noisy: their quartiles are %.0f %% of the median apart", which, 100*s.Spread)
	}
	if t.Others != nil && *t.Others > othersShare {
		out.warn("other programs took %.0f %% of the processors' time", 100**t.Others)
	}
	for sensor, what := range map[string]string{"sm": "the card's clock", "cpu": "the processors' clock"} {
		if from, to := w.fell(sensor); to < fallen*from {
			out.warn("%s fell from %.0f to %.0f MHz", what, from, to)
		}
	}
	if len(t.Throttled) > 0 {
		out.warn("the card was held back: %s", strings.Join(t.Throttled, ", "))
	}
}

// warmUp iterates until the median of what takes a quarter of a second, or three iterations,
// moves no more.
func warmUp(run *Meter) (w WarmUp, seconds float64, err error) {
	began := time.Now()
	n, before := 2, math.Inf(1)
	for !w.Steady && time.Since(began) < warmUpLimit {
		some, err := run.Iterate(n)
		if err != nil {
			return w, 0, err
		}
		w.Iterations += n
		seconds = median(some)
		w.Steady = math.Abs(seconds-before) <= still*seconds
		before = seconds
		n = min(max(int(0.25/seconds), 3), 64)
		if seconds > 2 {
			n = 2
		}
	}
	w.Seconds = time.Since(began).Seconds()
	return w, seconds, nil
}

// sustain has a device go on for long.
func (r *Runner) sustain(run *Meter, w Workload, out *Result) error {
	var all []float64
	watcher := watch(r.card)
	watcher.resume()
	for began := time.Now(); time.Since(began) < r.Sustain; {
		r.stage("sustaining", float64(time.Since(began))/float64(r.Sustain))
		n := min(max(int(1/out.Burst.Median), 1), 64)
		some, err := run.Iterate(n)
		if err != nil {
			watcher.pause()
			return err
		}
		all = append(all, some...)
	}
	watcher.pause()
	out.Sustained = &Sustained{SeriesOf(all), watcher.telemetry(len(all), w.Batch)}
	out.judge(out.Sustained.Series, out.Sustained.Telemetry, watcher, "sustained ")
	return nil
}

// sendAhead times a device and each peer once more, without waiting for each iteration. On
// the CPU an iteration is done when it is sent.
func (r *Runner) sendAhead(ctx context.Context, w Workload, out *Result) error {
	if r.Engine.Device() == torch.CPU {
		return nil
	}
	r.stage("sending ahead", -1)
	run := StartMeter(ctx, r.Engine, r.Content, r.Style, w.Options, w.Size, w.Batch, ahead)
	_, err := run.Iterate(1)
	for range 2 { // the first ones ready the device
		var seconds []float64
		if err == nil {
			seconds, err = run.Iterate(ahead)
		}
		sum := 0.0
		for _, s := range seconds {
			sum += s / ahead
		}
		out.Ahead = &sum
	}
	if _, stopErr := run.Stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	for _, name := range r.Peers.Names() {
		if p := out.Peers[name]; p.Error == "" {
			r.Peers[name].ahead(name, w.Size, w.Batch, ahead, &p)
			out.Peers[name] = p
		}
	}
	return nil
}

// whole measures a whole picture: its iterations, and all that is not one.
func (r *Runner) whole(ctx context.Context, w Workload, out *Result) error {
	folder, err := os.MkdirTemp("", "nst-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	o, n := w.Options, w.iterations(r.Engine.Device())
	o.Size, o.StyleSize, o.Iterations = new(0), new(0), &n
	content, style := squared(r.Content, w.Size), squared(r.Style, w.Size)
	var seconds []float64 // of each iteration
	var last nst.Progress
	var sum float64
	watcher := watch(r.card)
	watcher.resume()
	began := time.Now()
	result, err := r.Engine.Stylize(ctx, content, []*picture.Picture{style}, o,
		nst.Hooks{Progress: func(p nst.Progress) {
			r.stage("making the picture", p.Fraction)
			// Where the evaluation of a scale's start is told of, it was no iteration.
			if done := p.Iteration - last.Iteration; done > 0 && p.Scale == last.Scale {
				each := (p.Seconds - last.Seconds) / float64(done)
				seconds = append(seconds, slices.Repeat([]float64{each}, done)...)
				sum += p.Seconds - last.Seconds
			} else if out.First == 0 {
				out.First = time.Since(began).Seconds()
			}
			last = p
		}})
	if err == nil {
		err = result.Picture.Save(filepath.Join(folder, "out.png"), picture.Encoding{})
	}
	took := time.Since(began).Seconds()
	watcher.pause()
	if err == nil && len(seconds) == 0 {
		err = errors.New("the run was over before it was timed")
	}
	if err != nil {
		return err
	}
	out.took(result)
	times := float64(w.Whole) / float64(n)
	out.Whole = &Whole{Seconds: took - sum + times*sum, Iterations: w.Whole, Measured: n, Extrapolated: n < w.Whole}
	out.WarmUp.Steady = true // a picture is made as it comes
	out.Burst, out.Telemetry = SeriesOf(seconds), watcher.telemetry(n, 1)
	// Scales take different times: their iterations are no repetitions of each other.
	if o.Scales == nst.ScalesOff {
		out.judge(out.Burst, out.Telemetry, watcher, "")
	} else {
		out.judge(Series{}, out.Telemetry, watcher, "")
	}
	return nil
}

// share is how many of n fall to turn i.
func share(n, turns, i int) int { return n*(i+1)/turns - n*i/turns }
