package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed9bb5c928/nst/cmd/nst/internal/bench"
	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// benchOptions are the flags of nst bench.
type benchOptions struct {
	suite                 string
	sizes, batches        []int
	iterations            int
	sustain               time.Duration
	device, precision     string
	tile, memoryLimit     string
	model, content, style string
	peers                 bool
	only                  []string
	python, script        string
	chart                 string
	json, benchFormat     bool
}

func newBenchCommand() *cobra.Command {
	o := &benchOptions{}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: seconds for an iteration and a picture, energy, and PyTorch beside them",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runBench(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.register(c.Flags())
	c.AddCommand(newBenchCompareCommand(), newBenchReportCommand())
	return c
}

func (o *benchOptions) register(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.suite, "suite", "", "measure a set of workloads in the place of --sizes: "+suites())
	f.IntSliceVar(&o.sizes, "sizes", []int{256, 512}, "sides of the square pictures")
	f.IntSliceVar(&o.batches, "batch", []int{1}, "pictures at once")
	f.IntVar(&o.iterations, "iterations", 10,
		"iterations measured of each, and of each peer (a suite: as its times want)")
	f.DurationVar(&o.sustain, "sustain", 0, "go on for so long after each measurement, such as 60s")
	f.StringVar(&o.device, "device", "auto", "auto, cpu, cuda or cuda:N")
	f.StringVar(&o.precision, "precision", "", "as of nst stylize")
	f.StringVar(&o.tile, "tile", "", "as of nst stylize, for --sizes")
	f.StringVar(&o.memoryLimit, "memory-limit", "", "as of nst stylize, for --sizes")
	f.StringVar(&o.model, "model", "", "a TorchScript feature network (default: the default VGG-19)")
	f.StringVar(&o.content, "content", "", "a content picture (default: one that is made up)")
	f.StringVar(&o.style, "style", "", "a style picture (default: one that is made up)")
	f.BoolVar(&o.peers, "peers", false, "run the same work in PyTorch, in turns")
	f.StringSliceVar(&o.only, "peer", nil, "run only these of PyTorch's configurations, such as compiled,spst")
	f.StringVar(&o.python, "python", "python3", "a Python with torch, for --peers")
	f.StringVar(&o.script, "script", "", "scripts/bench_pytorch.py, for --peers (default: found beside the program)")
	f.StringVar(&o.chart, "chart", "", "draw seconds and memory over size to this .svg or .png file")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.BoolVar(&o.benchFormat, "benchfmt", false, "print lines for benchstat")
}

// suites are the names of the suites.
func suites() string { return strings.Join(slices.Sorted(maps.Keys(bench.Suites)), ", ") }

func (o *benchOptions) check() error {
	for _, n := range slices.Concat(o.sizes, o.batches, []int{o.iterations}) {
		if n < 1 {
			return usage("--sizes, --batch and --iterations are 1 or more, not %d", n)
		}
	}
	if o.sustain < 0 {
		return usage("--sustain is %v; a time such as 60s will do", o.sustain)
	}
	if o.suite != "" && bench.Suites[o.suite] == nil {
		return usage("--suite: %q is unknown: known are %s", o.suite, suites())
	}
	if o.suite != "" && (o.tile != "" || o.memoryLimit != "" || o.content != "" || o.style != "" || o.model != "") {
		return usage("--suite is measured as it is, to be compared: without --tile, --memory-limit, --content, " +
			"--style and --model")
	}
	if o.chart == "" {
		return nil
	}
	if !slices.Contains([]string{".svg", ".png"}, strings.ToLower(filepath.Ext(o.chart))) {
		return usage("--chart: %s ends neither in .svg nor in .png", o.chart)
	}
	if info, err := os.Stat(filepath.Dir(o.chart)); err != nil || !info.IsDir() {
		return usage("--chart: the folder of %s is not there", o.chart)
	}
	return nil
}

// workloads are what is to be measured.
func (o *benchOptions) workloads() (all []bench.Workload, err error) {
	if o.suite != "" {
		return bench.Suites[o.suite], nil
	}
	var limit nst.Bytes
	if o.memoryLimit != "" {
		if err := limit.UnmarshalText([]byte(o.memoryLimit)); err != nil {
			return nil, usage("--memory-limit: %w", err)
		}
	}
	var own []string
	for _, flag := range [][2]string{{"tile", o.tile}, {"memory-limit", o.memoryLimit}, {"model", o.model},
		{"content", o.content}, {"style", o.style}} {
		if flag[1] != "" {
			own = append(own, "--"+flag[0]+" "+filepath.Base(flag[1]))
		}
	}
	for _, size := range o.sizes {
		for _, batch := range o.batches {
			w := bench.Iteration(size, batch)
			if w.Options.Tile, w.Options.MemoryLimit = nst.Tile(o.tile), limit; len(own) > 0 {
				w.Version, w.Flags = 0, strings.Join(own, " ") // no recipe's
			}
			all = append(all, w)
		}
	}
	return all, nil
}

func runBench(ctx context.Context, o *benchOptions, stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	workloads, err := o.workloads()
	if err != nil {
		return err
	}
	r := &bench.Runner{Precision: nst.Precision(o.precision), Sustain: o.sustain, Iterations: o.iterations}
	if o.suite != "" {
		r.Iterations = 0
	}
	if r.Content, r.Style, err = o.pictures(ctx); err != nil {
		return err
	}
	began := time.Now()
	t := &transferFlags{device: o.device, model: o.model}
	if r.Engine, err = t.open(ctx, stderr); err != nil {
		return err
	}
	defer r.Engine.Close()
	loaded := time.Since(began).Seconds()
	if err := o.describeModel(r); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "nst-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	pastiche := ""
	if o.peers || len(o.only) > 0 {
		if r.Peers, err = o.startPeers(ctx, r, folder, stderr); err != nil {
			return err
		}
		defer r.Peers.Close()
		if len(o.only) == 0 {
			pastiche = bench.PasticheOf(o.python)
		}
	}
	b, err := r.NewReport(ctx, version())
	if err != nil {
		return err
	}
	b.Suite, b.Load = o.suite, loaded
	var failed []error
	var interrupted error // what was measured until then is printed
	show := newStages(stderr, len(workloads))
	defer show.done()
	for i, w := range workloads {
		r.Stage = func(what string, fraction float64) { show.update(i, w.Name, what, fraction) }
		result, err := r.Measure(ctx, w)
		if err != nil && ctx.Err() != nil {
			interrupted = ctx.Err()
			break
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s, batch %d: %w", w.Name, w.Batch, err))
			b.Failed = append(b.Failed, bench.Failure{Workload: w.Name, Error: oneLine(err)})
			continue
		}
		if pastiche != "" && w.Batch == 1 && w.Whole == 0 && w.Size <= mostPastiche {
			show.update(i, w.Name, "pastiche", -1)
			if result.Process, err = bench.BesidePastiche(ctx, pastiche, folder, r.Content, r.Style, w.Size, o.device,
				o.passed()...); err != nil {
				fmt.Fprintf(stderr, "nst: beside pastiche: %v\n", err)
			}
		}
		b.Results = append(b.Results, result)
		show.finished(i, w.Name, result)
	}
	show.done()
	if len(b.Results) > 0 {
		if err := o.write(b, stdout); err != nil {
			return err
		}
	}
	return errors.Join(append(failed, interrupted)...)
}

// mostPastiche is the size up to which pastiche is run, too: it has no tiles.
const mostPastiche = 1024

func (o *benchOptions) write(b *bench.Report, stdout io.Writer) error {
	if o.chart != "" {
		if err := b.Draw(o.chart); err != nil {
			return fmt.Errorf("--chart: %w", err)
		}
	}
	switch {
	case o.json:
		return json.NewEncoder(stdout).Encode(b)
	case o.benchFormat:
		return b.WriteBenchFormat(stdout)
	}
	b.Print(stdout)
	return nil
}

// passed are the flags that nst stylize is given beside pastiche.
func (o *benchOptions) passed() (flags []string) {
	for flag, value := range map[string]string{"--precision": o.precision, "--model": o.model} {
		if value != "" {
			flags = append(flags, flag, value)
		}
	}
	return flags
}

// pictures are the two named, or those of the workloads.
func (o *benchOptions) pictures(ctx context.Context) (content, style *picture.Picture, err error) {
	content, style = bench.Pictures()
	for path, p := range map[*string]**picture.Picture{&o.content: &content, &o.style: &style} {
		if *path == "" {
			continue
		}
		if *p, err = decoders.Open(ctx, *path, 0); err != nil {
			return nil, nil, err
		}
	}
	return content, style, nil
}

// describeModel finds out what arithmetic another network than the default one has.
func (o *benchOptions) describeModel(r *bench.Runner) error {
	if o.model == "" {
		return nil
	}
	network, err := vgg19.Load(o.model, torch.CPU)
	if err != nil {
		return modelError(o.model, err)
	}
	defer network.Close()
	d, err := network.Describe(torch.CPU)
	if err != nil {
		return modelError(o.model, err)
	}
	r.Channels = map[string]int{}
	for _, p := range d.Parameters {
		if layer, ok := strings.CutSuffix(p.Name, "_weight"); ok && len(p.Shape) == 4 {
			r.Channels[layer] = int(p.Shape[0])
		}
	}
	r.Foreign = !d.LayerByLayer || len(r.Channels) == 0
	return nil
}

func (o *benchOptions) startPeers(ctx context.Context, r *bench.Runner, folder string, stderr io.Writer) (
	all bench.Peers, err error) {
	script, model := o.script, o.model
	if script == "" {
		if script, err = peerScript(); err != nil {
			return nil, err
		}
	}
	if model == "" {
		if model, err = defaultModel(); err != nil {
			return nil, err
		}
	}
	return bench.StartPeers(ctx, bench.PeerOptions{Python: o.python, Script: script, Model: model, Content: r.Content,
		Style: r.Style, Device: r.Engine.Device(), Only: o.only, Folder: folder, Stderr: stderr})
}

// peerScript finds scripts/bench_pytorch.py: the program is in build/bin.
func peerScript() (string, error) {
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	script := filepath.Join(filepath.Dir(program), "..", "..", "scripts", "bench_pytorch.py")
	if err == nil {
		_, err = os.Stat(script)
	}
	if err != nil {
		return "", usage("--peers: scripts/bench_pytorch.py is not where it is expected; name it with --script")
	}
	return filepath.Clean(script), nil
}

func newBenchCompareCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "compare BEFORE.json AFTER.json",
		Short: "Hold two reports of nst bench --json against each other",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage("compare takes two arguments: the reports before and after; there are %d", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			before, err := bench.Read(args[0])
			if err != nil {
				return err
			}
			after, err := bench.Read(args[1])
			if err != nil {
				return err
			}
			if asJSON {
				all, alone := bench.Compare(before, after)
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"differences": all, "alone": alone})
			}
			return bench.WriteComparison(c.OutOrStdout(), before, after)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func newBenchReportCommand() *cobra.Command {
	out := ""
	c := &cobra.Command{
		Use:   "report FOLDER -o PAGE.html",
		Short: "Make one page of a folder of reports of nst bench --json",
		Args:  oneArgument("report takes one argument: a folder of reports"),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return usage("--output is missing: the page's file, such as bench.html")
			}
			reports, err := bench.ReadFolder(args[0])
			if err != nil {
				return err
			}
			return picture.Replace(out, func(w io.Writer) error { return bench.WritePage(w, reports) })
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "the page's file")
	return c
}
