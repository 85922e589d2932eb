package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// stylizeOptions are the flags of nst stylize.
type stylizeOptions struct {
	content, output                  string
	styles                           []string
	size, styleSize, iterations      int
	seed                             uint64
	init, preset, optimizer, pooling string
	contentWeight, styleWeight, rate float64
	tvWeight, styleScale             float64
	styleWeights                     []float64
	contentLayers, styleLayers       []string
	device, precision, model         string
	saveEvery                        int
	log                              string
	json, quiet                      bool
	changed                          func(flag string) bool
}

func newStylizeCommand() *cobra.Command {
	o := &stylizeOptions{}
	c := &cobra.Command{
		Use:   "stylize CONTENT STYLE… -o OUT",
		Short: "Give a picture the style of others",
		Example: `  nst stylize photo.jpg painting.jpg -o out.png
  nst stylize photo.jpg painting.jpg -o out.png --size 1024 --optimizer lbfgs`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("stylize takes a content picture and at least one style picture: nst stylize CONTENT STYLE… -o OUT")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.content, o.styles = args[0], args[1:]
			o.changed = c.Flags().Changed
			return runStylize(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.register(c.Flags())
	return c
}

func (o *stylizeOptions) register(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVarP(&o.output, "output", "o", "", "the picture to write: .png, .jpg or .jpeg (required)")
	f.IntVar(&o.size, "size", nst.DefaultSize, "longest side of the result; 0 keeps the content picture's own size")
	f.IntVar(&o.styleSize, "style-size", 0, "longest side of each style picture; 0 keeps its own size (default: as --size)")
	f.Float64Var(&o.styleScale, "style-scale", 1, "factor on the style size")
	f.Float64SliceVar(&o.styleWeights, "style-weights", nil, "blend of several styles: a weight for each (default: equal)")
	f.StringVar(&o.init, "init", "content", "where the picture starts: content, noise, gray or a picture file")
	f.Uint64Var(&o.seed, "seed", 0, "of everything random")
	f.StringVar(&o.preset, "preset", string(nst.Balanced), "objective, weights, optimizer and rate together: balanced, classic or gatys")
	f.Float64Var(&o.contentWeight, "content-weight", 0, "weight α of the content cost (default: the preset's)")
	f.Float64Var(&o.styleWeight, "style-weight", 0, "weight β of the style cost (default: the preset's)")
	f.Float64Var(&o.tvWeight, "tv-weight", 0, "weight of the total variation, which smooths")
	f.StringSliceVar(&o.contentLayers, "content-layers", nil, "content layers, each with its weight if wanted: relu4_2[=w],… (default: the preset's)")
	f.StringSliceVar(&o.styleLayers, "style-layers", nil, "style layers: relu1_1[=w],… (default: the preset's)")
	f.StringVar(&o.optimizer, "optimizer", "", "adam or lbfgs (default: the preset's)")
	f.Float64Var(&o.rate, "learning-rate", 0, "step of Adam on pixels in [0,1], or factor on L-BFGS's steps (default: the preset's)")
	f.IntVar(&o.iterations, "iterations", 0, "number of steps; 0 evaluates the start, writes it and stops (default: the preset's)")
	f.StringVar(&o.pooling, "pooling", string(vgg19.MaxPooling), "max or avg")
	f.StringVar(&o.device, "device", "auto", "auto, cpu, cuda or cuda:N")
	f.StringVar(&o.precision, "precision", string(nst.Exact), "exact: float32 with direct convolutions; double: float64, to compare with")
	f.IntVar(&o.saveEvery, "save-every", 0, "write the picture on the way, as OUT-000010.png and so on, every N iterations; 0: never")
	f.StringVar(&o.log, "log", "", "write the costs of each iteration to this file, as JSON Lines")
	f.BoolVar(&o.json, "json", false, "print the result's summary as one JSON object")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	f.StringVar(&o.model, "model", "", "a TorchScript feature network (default: the default VGG-19)")
}

// options makes the engine's options of the flags.
func (o *stylizeOptions) options() (nst.Options, error) {
	out := nst.Options{
		Preset: nst.Preset(o.preset), Seed: o.seed, StyleWeights: o.styleWeights, Optimizer: nst.Optimizer(o.optimizer),
		Pooling: vgg19.Pooling(o.pooling), Precision: nst.Precision(o.precision),
	}
	var err error
	if out.Size, err = size("size", o.size); err != nil {
		return out, err
	}
	if o.styleScale == 0 { // the engine's zero means the default
		return out, usage("--style-scale is 0; a positive number will do")
	}
	out.StyleScale = o.styleScale
	if o.changed("style-size") {
		if out.StyleSize, err = size("style-size", o.styleSize); err != nil {
			return out, err
		}
	}
	for flag, number := range map[string]struct {
		from *float64
		to   **float64
	}{
		"content-weight": {&o.contentWeight, &out.ContentWeight},
		"style-weight":   {&o.styleWeight, &out.StyleWeight},
		"tv-weight":      {&o.tvWeight, &out.TVWeight},
		"learning-rate":  {&o.rate, &out.LearningRate},
	} {
		if o.changed(flag) {
			*number.to = number.from
		}
	}
	if o.changed("iterations") {
		out.Iterations = &o.iterations
	}
	if out.ContentLayers, err = layers("content-layers", o.contentLayers); err != nil {
		return out, err
	}
	if out.StyleLayers, err = layers("style-layers", o.styleLayers); err != nil {
		return out, err
	}
	if o.saveEvery < 0 {
		return out, usage("--save-every is %d; 0 or more will do", o.saveEvery)
	}
	switch o.init {
	case "content", "noise", "gray":
		out.Start = nst.Start(o.init)
	default:
		out.Start = nst.StartPicture
		if out.Picture, err = picture.Open(o.init); err != nil {
			return out, fmt.Errorf("--init (content, noise, gray or a picture file): %w", err)
		}
	}
	return out, nil
}

// size turns the flag's 0, a picture's own size, into the engine's.
func size(flag string, n int) (int, error) {
	switch {
	case n < 0:
		return 0, usage("--%s is %d; a number of pixels, or 0, will do", flag, n)
	case n == 0:
		return nst.OwnSize, nil
	}
	return n, nil
}

// layers reads relu1_1[=w],….
func layers(flag string, given []string) ([]nst.LayerWeight, error) {
	var out []nst.LayerWeight
	for _, g := range given {
		name, weight, weighted := strings.Cut(g, "=")
		l := nst.LayerWeight{Layer: strings.TrimSpace(name)}
		if weighted {
			w, err := strconv.ParseFloat(weight, 64)
			if err != nil {
				return nil, usage("--%s: the weight in %q is no number", flag, g)
			}
			l.Weight = &w
		}
		out = append(out, l)
	}
	return out, nil
}

// summary is what --json prints.
type summary struct {
	Output              string       `json:"output"`
	Width               int          `json:"width"`
	Height              int          `json:"height"`
	Iterations          int          `json:"iterations"`
	Seconds             float64      `json:"seconds"`
	SecondsPerIteration float64      `json:"seconds_per_iteration"`
	Total               float64      `json:"total"`
	PeakMemoryBytes     int64        `json:"peak_memory_bytes"`
	Device              torch.Device `json:"device"`
	Precision           string       `json:"precision"`
	Tiles               int          `json:"tiles"`
}

func newSummary(output string, device torch.Device, r *nst.Result) summary {
	s := summary{
		Output: output, Width: r.Picture.Width, Height: r.Picture.Height,
		Iterations: r.Iterations, Seconds: r.Seconds, Total: r.Costs.Total,
		PeakMemoryBytes: r.PeakMemory, Device: device, Precision: string(r.Precision), Tiles: r.Tiles,
	}
	if r.Iterations > 0 {
		s.SecondsPerIteration = r.Seconds / float64(r.Iterations)
	}
	return s
}

// runStylize finds out all it can before the work begins: options, output,
// pictures, network, in this order.
func runStylize(ctx context.Context, o *stylizeOptions, stdout, stderr io.Writer) (err error) {
	if o.output == "" {
		return usage("-o is missing: the picture to write, .png, .jpg or .jpeg")
	}
	if err := picture.CheckOutput(o.output); err != nil {
		return err
	}
	options, err := o.options()
	if err != nil {
		return err
	}
	if err := options.Validate(); err != nil {
		return err
	}
	content, err := picture.Open(o.content)
	if err != nil {
		return err
	}
	var styles []*picture.Picture
	for _, path := range o.styles {
		p, err := picture.Open(path)
		if err != nil {
			return err
		}
		styles = append(styles, p)
	}
	log, err := openLog(o.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.close()) }()
	model := o.model
	if model == "" {
		if model, err = defaultModel(); err != nil {
			return err
		}
	}
	engine, err := nst.Open(ctx, model, o.device)
	if err != nil {
		if errors.Is(err, torch.ErrDevice) {
			return fmt.Errorf("--device: %w", err)
		}
		return modelError(model, err)
	}
	defer engine.Close()
	if o.device == "auto" && engine.Device() == torch.CPU && torch.HasNVIDIADriver() {
		fmt.Fprintln(stderr, "nst: a GPU's driver is here, but CUDA cannot be used and the CPU is; nst doctor says why")
	}

	show := newProgress(o.quiet, stderr)
	var saving error
	result, err := engine.Stylize(ctx, content, styles, options, func(p nst.Progress) {
		show.update(p)
		log.write(p)
		if o.saveEvery > 0 && p.Iteration > 0 && p.Iteration%o.saveEvery == 0 && p.Iteration < p.Iterations && saving == nil {
			saving = p.Picture().Save(onTheWay(o.output, p.Iteration))
		}
	})
	show.done()
	if result == nil || result.Picture == nil {
		return err
	}
	if saveErr := result.Picture.Save(o.output); saveErr != nil {
		return errors.Join(saveErr, err)
	}
	if err != nil {
		fmt.Fprintf(stderr, "nst: wrote the best picture so far, of iteration %d or before, to %s\n", result.Iterations, o.output)
		return err
	}
	if saving != nil {
		return fmt.Errorf("the result is written, a picture on the way is not: %w", saving)
	}
	s := newSummary(o.output, engine.Device(), result)
	if o.json {
		return json.NewEncoder(stdout).Encode(s)
	}
	if !o.quiet {
		fmt.Fprintln(stderr, s.text())
	}
	return nil
}

// onTheWay is the name of a picture on the way: out.png is out-000010.png.
func onTheWay(output string, iteration int) string {
	ending := filepath.Ext(output)
	return fmt.Sprintf("%s-%06d%s", strings.TrimSuffix(output, ending), iteration, ending)
}

// costLog writes JSON Lines; the zero value writes nothing.
type costLog struct {
	file   *os.File
	buffer *bufio.Writer
	err    error
}

func openLog(path string) (*costLog, error) {
	if path == "" {
		return &costLog{}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, usage("--log: %s cannot be written: %w", path, err)
	}
	return &costLog{file: f, buffer: bufio.NewWriter(f)}, nil
}

// write adds a line and flushes it, so that a log can be followed.
func (l *costLog) write(p nst.Progress) {
	if l.file == nil || l.err != nil {
		return
	}
	l.err = errors.Join(json.NewEncoder(l.buffer).Encode(p), l.buffer.Flush())
}

func (l *costLog) close() error {
	if l.file == nil {
		return nil
	}
	if err := errors.Join(l.err, l.file.Close()); err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	return nil
}
