package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// stylizeOptions are the flags of nst stylize.
type stylizeOptions struct {
	*transferFlags
	content, output string
	texture         bool // there is no content
	format          string
	styles          []string
	saveEvery       int
	checkpoint      string
	checkpointEvery int
	resume          string
	log, report     string
	json, quiet     bool
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
				return usage("stylize takes a content picture and at least one style picture: nst stylize CONTENT " +
					"STYLE… -o OUT")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.content, o.styles = args[0], args[1:]
			return runStylize(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.register(c.Flags())
	return c
}

func (o *stylizeOptions) register(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVarP(&o.output, "output", "o", "",
		"the picture to write: "+picture.Endings+"; - is standard output (required)")
	f.StringVar(&o.format, "format", "", "of the picture: png, jpg, webp, tif or avif (default: by the name's "+
		"ending; png on standard output)")
	o.transferFlags = newTransferFlags(f)
	f.IntVar(&o.saveEvery, "save-every", 0,
		"write the picture on the way, as OUT-000010.png and so on, every N iterations; 0: never")
	f.StringVar(&o.checkpoint, "checkpoint", "",
		"write the state to this file every --checkpoint-every iterations and on interruption")
	f.IntVar(&o.checkpointEvery, "checkpoint-every", 25, "iterations from checkpoint to checkpoint")
	f.StringVar(&o.resume, "resume", "", "go on from a checkpoint of the same pictures and settings")
	f.StringVar(&o.log, "log", "", "write the costs of each iteration to this file, as JSON Lines")
	f.StringVar(&o.report, "report", "", "write a page with pictures, cost curves, settings and timings to this "+
		".html file")
	f.BoolVar(&o.json, "json", false, "print the result's summary as one JSON object")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
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
	Replayed            int          `json:"replayed_iterations"` // from a graph
	AutotuneSeconds     float64      `json:"autotune_seconds,omitempty"`
}

func newSummary(output string, device torch.Device, r *nst.Result) summary {
	s := summary{
		Output: output, Width: r.Picture.Width, Height: r.Picture.Height,
		Iterations: r.Iterations, Seconds: r.Seconds, Total: r.Costs.Total,
		PeakMemoryBytes: r.PeakMemory, Device: device, Precision: string(r.Precision), Tiles: r.Tiles,
		Replayed: r.Replayed, AutotuneSeconds: r.AutotuneSeconds,
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
		return usage("-o is missing: the picture to write, %s", picture.Endings)
	}
	if o.output == standard && (o.json || o.saveEvery > 0) {
		return usage("-o - writes the picture to standard output: --json and --save-every need a file")
	}
	if o.saveEvery < 0 {
		return usage("--save-every is %d; 0 or more will do", o.saveEvery)
	}
	if o.checkpointEvery < 1 {
		return usage("--checkpoint-every is %d; 1 or more will do", o.checkpointEvery)
	}
	options, err := o.options(ctx)
	if err != nil {
		return err
	}
	var content *picture.Picture
	if o.texture {
		side := nst.DefaultSize
		if options.Size != nil {
			side = *options.Size
		}
		if content, options, err = nst.Texture(options, side, side); err != nil {
			return err
		}
	}
	encoding, err := o.encoding(options)
	if err != nil {
		return err
	}
	out, err := newTarget(o.output, o.format, encoding, stdout)
	if err != nil {
		return err
	}
	out.fit(&options)
	written := map[string]string{"--log": o.log, "--report": o.report, "--checkpoint": o.checkpoint}
	if err := apartFrom(written, o.readFiles(o.content, o.styles)); err != nil {
		return err
	}
	for flag, path := range map[string]string{"checkpoint": o.checkpoint, "report": o.report} {
		if path != "" {
			if sameFile(path, o.output) {
				return usage("--%s is %s, where the result goes; give it a file of its own", flag, path)
			}
			if err := picture.CheckWritable(path); err != nil {
				return fmt.Errorf("--%s: %w", flag, err)
			}
		}
	}
	if !o.remote && options.Transfer != nst.TransferColor {
		go func() { _ = torch.Load() }() // while pictures are decoded; who needs it is told
	}
	if !o.texture {
		if content, err = o.openPicture(ctx, o.content); err != nil {
			return err
		}
	}
	if width, height, err := options.ResultSize(content); err != nil {
		return err
	} else if err := out.format.CheckSize(encoding, width, height); err != nil {
		return err
	}
	var styles []*picture.Picture
	for _, path := range o.styles {
		p, err := o.openPicture(ctx, path)
		if err != nil {
			return err
		}
		styles = append(styles, p)
	}
	if _, _, err := options.ResultSize(content, styles...); err != nil {
		return err
	}
	if options.Transfer == nst.TransferColor {
		if o.resume != "" || o.checkpoint != "" || o.log != "" || o.saveEvery > 0 {
			return usage("--transfer color has no iterations: --resume, --checkpoint, --log and --save-every do not " +
				"go with it")
		}
		result, err := nst.TransferColors(ctx, content, styles, options)
		if err != nil {
			return err
		}
		page := newPage(o.report, o.content, o.styles, content, styles)
		return errors.Join(out.save(result.Picture), o.tell(torch.CPU, result, page, encoding.Comment, stdout, stderr))
	}
	resumed := 0
	if o.resume != "" {
		if options.Resume, err = readCheckpoint(o.resume); err != nil {
			return err
		}
		resumed = options.Resume.Iteration()
	}
	log, err := openLog(o.log, resumed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.close()) }()
	engine, err := o.open(ctx, stderr)
	if err != nil {
		return err
	}
	defer engine.Close()

	show := newProgress(o.quiet, stderr)
	page := newPage(o.report, o.content, o.styles, content, styles)
	var saving error // of what is written on the way: the run goes on
	hooks := nst.Hooks{
		StateEvery: o.stateEvery(), Tile: show.tile,
		Warn: func(message string) { fmt.Fprintf(stderr, "nst: %s\n", message) },
	}
	checkpointed := "" // what there is to resume from, if the device fails
	hooks.Progress = func(p nst.Progress) {
		show.update(p)
		log.write(p)
		page.add(p)
		if saving != nil {
			return
		}
		if due(p, o.saveEvery) && !p.Last {
			now, err := p.State.Picture()
			if saving = err; err == nil {
				saving = out.at(onTheWay(o.output, p.Iteration)).save(now)
			}
		}
		if o.checkpoint != "" && (due(p, o.checkpointEvery) && p.Iteration != resumed || p.Last) &&
			(p.Iteration < p.Iterations || ctx.Err() != nil) {
			written := writeCheckpoint(p, o.checkpoint)
			if written == nil {
				checkpointed = fmt.Sprintf("; %s is of iteration %d", o.checkpoint, p.Iteration)
			}
			saving = errors.Join(saving, written)
		}
	}
	result, err := engine.Stylize(ctx, content, styles, options, hooks)
	show.done()
	if errors.Is(err, nst.ErrCheckpoint) {
		err = fmt.Errorf("--resume: %s: %w", o.resume, err)
	}
	if errors.Is(err, torch.ErrDeviceLost) && checkpointed != "" {
		err = fmt.Errorf("%w%s", err, checkpointed)
	}
	if result == nil || result.Picture == nil {
		return err
	}
	if saveErr := out.save(result.Picture); saveErr != nil {
		return errors.Join(saveErr, err)
	}
	if err != nil {
		fmt.Fprintf(stderr, "nst: wrote the best picture so far, of iteration %d or before, to %s\n", result.Iterations,
			o.output)
	}
	if saving != nil {
		err = errors.Join(err, fmt.Errorf("the result is written, what was due on the way is not: %w", saving))
	}
	if err != nil {
		_, pageErr := o.writePage(engine.Device(), result, page, encoding.Comment)
		return errors.Join(err, pageErr)
	}
	return o.tell(engine.Device(), result, page, encoding.Comment, stdout, stderr)
}

// writePage writes the report of a result, if it is wanted.
func (o *stylizeOptions) writePage(device torch.Device, r *nst.Result, page *page, settings string) (summary, error) {
	s := newSummary(o.output, device, r)
	if err := page.write(s, settings, r); err != nil {
		return s, fmt.Errorf("the result is written, --report is not: %w", err)
	}
	return s, nil
}

// tell writes the report, and says what was made.
func (o *stylizeOptions) tell(device torch.Device, r *nst.Result, page *page, settings string, stdout,
	stderr io.Writer) error {
	s, err := o.writePage(device, r, page, settings)
	switch {
	case err != nil:
		return err
	case o.json:
		return json.NewEncoder(stdout).Encode(s)
	case !o.quiet:
		fmt.Fprintln(stderr, s.text())
	}
	return nil
}

// open readies the device, or several that share tiles, and the network.
func (t *transferFlags) open(ctx context.Context, stderr io.Writer) (*nst.Engine, error) {
	return openBy(ctx, t, stderr, nst.Open)
}

// openEach readies several devices that do not share tiles.
func (t *transferFlags) openEach(ctx context.Context, stderr io.Writer) ([]*nst.Engine, error) {
	return openBy(ctx, t, stderr, nst.OpenEach)
}

func openBy[E any](ctx context.Context, t *transferFlags, stderr io.Writer,
	open func(context.Context, string, nst.OpenOptions) (E, error)) (opened E, err error) {
	model := t.model
	if model == "" {
		if model, err = defaultModel(); err != nil {
			return opened, err
		}
	}
	type result struct {
		opened E
		err    error
	}
	done := make(chan result, 1)
	go func() {
		opened, err := open(ctx, model, nst.OpenOptions{Device: t.device, LowPriority: t.lowPriority})
		done <- result{opened, err}
	}()
	select {
	case r := <-done:
		opened, err = r.opened, r.err
	case <-ctx.Done(): // a network may compute without end: it ends with the program
		select {
		case r := <-done:
			opened, err = r.opened, r.err
		case <-time.After(openGrace):
			return opened, ctx.Err()
		}
	}
	if err != nil {
		if errors.Is(err, torch.ErrDevice) {
			return opened, fmt.Errorf("--device: %w", err)
		}
		return opened, modelError(model, err)
	}
	if why := torch.AutoFallback(); t.device == "auto" && why != nil {
		fmt.Fprintf(stderr, "nst: the CPU is used: %s\n", oneLine(why))
	}
	return opened, nil
}

// openGrace is how long what is opened may take to end by itself when it is interrupted.
const openGrace = 3 * time.Second

// stateEvery is nst.Hooks.StateEvery: every how many iterations something is to
// be had but costs.
func (o *stylizeOptions) stateEvery() int {
	every := 0 // the greatest common divisor
	need := func(n int) {
		for n != 0 {
			every, n = n, every%n
		}
	}
	need(o.saveEvery)
	if o.checkpoint != "" {
		need(o.checkpointEvery)
	}
	if o.report != "" {
		need(1) // a short run has few to show
	}
	if every == 0 {
		return math.MaxInt
	}
	return every
}

// due says whether something that is done every n iterations is.
func due(p nst.Progress, n int) bool {
	return n > 0 && p.Iteration > 0 && p.Iteration%n == 0
}

func readCheckpoint(path string) (*nst.Checkpoint, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // it might never end
		return nil, usage("--resume: %s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, usage("--resume: %s cannot be opened: %w", path, err)
	}
	defer f.Close()
	c, err := nst.ReadCheckpoint(f)
	if err != nil {
		return nil, fmt.Errorf("--resume: %s: %w", path, err)
	}
	return c, nil
}

// writeCheckpoint keeps the last whole checkpoint until the new one is whole.
func writeCheckpoint(p nst.Progress, path string) error {
	c, err := p.State.Checkpoint()
	if err != nil {
		return fmt.Errorf("--checkpoint: %w", err)
	}
	err = picture.Replace(path, func(w io.Writer) error {
		_, err := c.WriteTo(w)
		return err
	})
	if err != nil {
		return fmt.Errorf("--checkpoint: %w", err)
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

// openLog begins a log, or goes on with that of a run that is resumed: its
// lines from that iteration on will be written again.
func openLog(path string, resumed int) (*costLog, error) {
	if path == "" {
		return &costLog{}, nil
	}
	var kept []byte
	if resumed > 0 {
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, usage("--log: %s cannot be gone on with: %w", path, err)
		}
		for line := range bytes.Lines(old) {
			var l struct{ Iteration *int }
			if json.Unmarshal(line, &l) != nil || l.Iteration == nil || *l.Iteration >= resumed {
				break
			}
			kept = append(kept, line...)
		}
	}
	if len(kept) > 0 { // the old log stays until this is whole
		if err := picture.WriteFile(path, kept); err != nil {
			return nil, fmt.Errorf("--log: %w", err)
		}
	}
	mode := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if len(kept) == 0 {
		mode |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, mode, 0o644)
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
