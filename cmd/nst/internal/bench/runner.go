package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
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
	// Iterations are how many are measured of each workload; 0: as many as its time wants.
	Iterations int
	// Sustain is how long a device is to go on after that; 0: it does not.
	Sustain time.Duration
	Peers   Peers
	// Stage is told what is being done, and how far it is (0 to 1; below 0: not known).
	Stage func(what string, fraction float64)

	card    *card
	threads int // the engine's, which cannot be asked while a run stands still
}

// A burst takes about so long: on a GPU, whose iterations are short, long enough for its
// sensors. It has at least, and at most, so many iterations.
const (
	burstTime, leastBurst, mostBurst          = 15 * time.Second, 3, 50
	burstTimeGPU, leastBurstGPU, mostBurstGPU = 5 * time.Second, 30, 2000
)

const (
	warmUpLimit = 30 * time.Second
	rounds      = 3  // turns that nst and its peers take
	ahead       = 32 // iterations sent without waiting
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
	r.card, r.threads = cardOf(device), r.Engine.Threads()
	peak, err := matrixGFLOPS(ctx, device)
	if err != nil {
		return nil, err
	}
	resolved, err := nst.Options{Precision: r.Precision}.Resolve()
	if err != nil {
		return nil, err
	}
	return &Report{Schema: Version, Time: time.Now().UTC().Truncate(time.Second), Device: device,
		Precision: string(resolved.Precision), Kernels: torch.KernelsName(), Threads: r.threads, Peak: peak,
		Machine: describe(r.card, r.threads, program)}, nil
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
	out = Result{Workload: w.Name, WorkloadVersion: w.Version, Flags: w.Flags, Size: w.Size, Batch: w.Batch,
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
	if out.Tiles > 1 && w.Options.Tile == "" {
		out.warn("it was made in %d tiles for want of memory", out.Tiles)
	}
	if !r.Foreign {
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
	out.First, out.WarmUp = first[0], &WarmUp{}
	var seconds float64 // of one
	if *out.WarmUp, seconds, err = warmUp(run); err != nil {
		return err
	}
	if !out.WarmUp.Steady {
		out.warn("the times had not become steady after %.0f s of warming up", out.WarmUp.Seconds)
	}
	n := r.burst(seconds)
	turns := 1
	if len(r.Peers) > 0 {
		turns = min(rounds, n)
		out.Peers = map[string]PeerResult{}
	}
	watcher := r.watch()
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
	out.Burst, out.Telemetry = SeriesOf(own), watcher.telemetry(len(own))
	out.judge(out.Burst, out.Telemetry, watcher, "")
	if r.Sustain > 0 {
		if err := r.sustain(run, w, out); err != nil {
			return err
		}
	}
	result, err := run.Stop()
	if err = cmp.Or(err, ctx.Err()); err != nil { // peers end with ctx, too
		return err
	}
	out.took(result)
	return r.sendAhead(ctx, w, out)
}

// burst is how many iterations are measured that take so long each.
func (r *Runner) burst(seconds float64) int {
	switch {
	case r.Iterations > 0:
		return r.Iterations
	case r.Engine.Device() == torch.CPU:
		return min(max(int(burstTime.Seconds()/seconds), leastBurst), mostBurst)
	}
	return min(max(int(burstTimeGPU.Seconds()/seconds), leastBurstGPU), mostBurstGPU)
}

// watch watches what the device is: its card, or the processors that compute.
func (r *Runner) watch() *watcher { return watch(r.card, r.threads) }

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
	sensor, what := "cpu", "the processors' clock"
	if w.card != nil {
		sensor, what = "sm", "the card's clock"
	}
	if from, to := w.fell(sensor); to < fallen*from {
		out.warn("%s fell from %.0f to %.0f MHz", what, from, to)
	}
	if len(t.Throttled) > 0 {
		out.warn("the card was held back: %s", strings.Join(t.Throttled, ", "))
	}
}

// warmUp iterates until the median of what takes a quarter of a second, or three iterations,
// moves no more than it would by chance.
func warmUp(run *Meter) (w WarmUp, seconds float64, err error) {
	began := time.Now()
	n, before := 2, math.Inf(1)
	for windows := 0; !w.Steady && (windows < 2 || time.Since(began) < warmUpLimit); windows++ {
		some, err := run.Iterate(n)
		if err != nil {
			return w, 0, err
		}
		w.Iterations += n
		s := SeriesOf(some)
		seconds = s.Median
		// What is only noise does not become less by warming up.
		w.Steady = math.Abs(seconds-before) <= max(still*seconds, (s.Upper-s.Lower)/2)
		before = seconds
		n = min(max(int(0.25/seconds), 3), 64)
		if seconds > 2 {
			n = 1
		}
	}
	w.Seconds = time.Since(began).Seconds()
	return w, seconds, nil
}

// sustain has a device go on for long.
func (r *Runner) sustain(run *Meter, w Workload, out *Result) error {
	var all []float64
	watcher := r.watch()
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
	out.Sustained = &Sustained{SeriesOf(all), watcher.telemetry(len(all))}
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
	var times groups
	watcher := r.watch()
	watcher.resume()
	began := time.Now()
	progress := func(p nst.Progress) {
		r.stage("making the picture", p.Fraction)
		if out.First == 0 {
			out.First = time.Since(began).Seconds()
		}
		times.add(p)
	}
	result, err := r.Engine.Stylize(ctx, content, []*picture.Picture{style}, o, nst.Hooks{Progress: progress})
	if err == nil {
		err = result.Picture.Save(filepath.Join(folder, "out.png"), picture.Encoding{})
	}
	took := time.Since(began).Seconds()
	watcher.pause()
	if err = cmp.Or(err, ctx.Err()); err == nil && len(times.each) == 0 {
		err = errors.New("the run was over before it was timed")
	}
	if err != nil {
		return err
	}
	out.took(result)
	missing := float64(w.Whole-n) / float64(n)
	out.Whole = &Whole{Seconds: took + missing*times.sum, Iterations: w.Whole, Measured: n, Extrapolated: n < w.Whole}
	out.Burst, out.Telemetry = SeriesOf(times.each), watcher.telemetry(n)
	if e := out.Telemetry.Energy; e != nil {
		out.Whole.Energy = new(*e * out.Whole.Seconds / took)
	}
	out.judge(out.Burst, out.Telemetry, watcher, "")
	return nil
}

// groups times the iterations of a run at its last scale. Costs are read, and told of,
// several iterations at a time, so iterations are taken together that lie closer than
// groupTime: each group has one mean.
type groups struct {
	each  []float64
	sum   float64 // of all iterations of all scales
	last  nst.Progress
	begin nst.Progress // of the group
}

const groupTime = 0.15

func (g *groups) add(p nst.Progress) {
	same := p.Scale == g.last.Scale
	if same { // else the evaluation of a scale's start is told of, which is no iteration
		g.sum += p.Seconds - g.last.Seconds
	} else {
		g.begin, g.each = p, nil
	}
	if n := p.Iteration - g.begin.Iteration; same && n > 0 && p.Seconds-g.begin.Seconds >= groupTime {
		g.each = append(g.each, (p.Seconds-g.begin.Seconds)/float64(n))
		g.begin = p
	}
	if n := p.Iteration - g.begin.Iteration; p.Last && len(g.each) == 0 && n > 0 { // a small picture
		g.each = append(g.each, (p.Seconds-g.begin.Seconds)/float64(n))
	}
	g.last = p
}

// share is how many of n fall to turn i.
func share(n, turns, i int) int { return n*(i+1)/turns - n*i/turns }
