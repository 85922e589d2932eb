package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/video"
	"github.com/seed9bb5c928/nst/torch"
)

// videoOptions are the flags of nst video.
type videoOptions struct {
	*transferFlags
	clip, output, frames string
	styles               []string
	encoding             video.Encoding
	clipFlags
	limit           int
	flow, flowModel string
	share           string
	store           string
	resume, keep    bool
	preview, log    string
	json, quiet     bool
}

func newVideoCommand() *cobra.Command {
	o := &videoOptions{}
	c := &cobra.Command{
		Use:   "video CLIP STYLE… -o OUT",
		Short: "Give a clip the style of pictures, steady in time",
		Example: `  nst video clip.mp4 painting.jpg -o out.mp4
  nst video clip.mp4 painting.jpg -o out.mp4 --resume
  nst video clip.mp4 painting.jpg --frames frames --size 1280 --limit 10`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("video takes a clip and at least one style picture: nst video CLIP STYLE… -o OUT")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.clip, o.styles = args[0], args[1:]
			return o.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVarP(&o.output, "output", "o", "", "the clip to write: "+video.Endings)
	f.StringVar(&o.frames, "frames", "", "a folder for the frames as pictures, 000001.png and so on, with or in place "+
		"of -o")
	o.transferFlags = newTransferFlags(f)
	o.clipFlags.register(o.transferFlags)
	f.StringVar(&o.flow, "flow", "", "a folder with optical flow in place of nst's own: forward_1_2.flo, "+
		"backward_2_1.flo and so on, as artistic-videos names them")
	f.StringVar(&o.flowModel, "flow-model", "", "a TorchScript network that finds the optical flow, such as "+
		"torchvision's RAFT")
	f.StringVar(&o.encoding.Codec, "codec", "", "ffmpeg's encoder (default: H.264, for .webm VP9)")
	f.IntVar(&o.limit, "limit", 0, "make the first N frames alone; 0: all")
	f.StringVar(&o.share, "share", shareTiles, "what several devices of --device share: tiles, of each frame, or "+
		"shots, which are then made at the same time")
	f.StringVar(&o.store, "store", "", "the file that keeps the frames which are done until all are (default: OUT.nst)")
	f.BoolVar(&o.resume, "resume", false, "go on with the frames that an earlier run has left, if there are any")
	f.BoolVar(&o.keep, "keep-store", false, "leave that file when all is done")
	f.StringVar(&o.preview, "preview", "", "write each frame that is done to this picture file")
	f.StringVar(&o.log, "log", "", "write a line for each frame to this file, as JSON Lines")
	f.BoolVar(&o.json, "json", false, "print the summary as one JSON object")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	f.Lookup("bits").Hidden = true // frames have 8
	f.Lookup("quality").Usage = "of the encoder, 1 to 100 (default 65)"
	return c
}

// Values of --share.
const (
	shareTiles = "tiles"
	shareShots = "shots"
)

// clipFlags are what can be asked of a clip, made here or by a service, beside a picture's.
type clipFlags struct {
	frameIterations int
	longTerm        []int
	passes          int
}

func (c *clipFlags) register(t *transferFlags) {
	optional(t, "temporal-weight", "how much a frame is held to those before it, where the optical flow "+
		"can be relied on (default: the preset's)", number, func(o *nst.Options) **float64 { return &o.TemporalWeight })
	t.flags.IntVar(&c.frameIterations, "frame-iterations", video.DefaultFrameIterations,
		"number of steps of a frame that follows another; --iterations is that of the first of each shot")
	t.flags.IntSliceVar(&c.longTerm, "long-term", []int{1, 2, 4}, "how many frames back a frame is held to: where the "+
		"first is not known, the next, and so on")
	t.flags.IntVar(&c.passes, "passes", 1, "how often the clip is gone through, forward and back in turns")
}

// videoSummary is what --json prints.
type videoSummary struct {
	Output          string       `json:"output,omitempty"`
	FramesFolder    string       `json:"frames_folder,omitempty"`
	Width           int          `json:"width"`
	Height          int          `json:"height"`
	Frames          int          `json:"frames"`
	Shots           int          `json:"shots"`
	Seconds         float64      `json:"seconds"` // of this run
	SecondsPerFrame float64      `json:"seconds_per_frame"`
	Device          torch.Device `json:"device"`
}

// videoInputs are what a clip is made of.
type videoInputs struct {
	options       video.Options
	clip          *video.Clip
	styles        []*picture.Picture
	width, height int    // of the frames that are made
	preview       target // of --preview
}

// inputs finds out all that it can before the work begins.
func (o *videoOptions) inputs(ctx context.Context) (in videoInputs, err error) {
	if o.output == "" && o.frames == "" {
		return in, usage("-o is missing: the clip to write, %s; or --frames, a folder for pictures", video.Endings)
	}
	if o.flow != "" && o.flowModel != "" {
		return in, usage("--flow and --flow-model are two ways to say one thing: leave one of them out")
	}
	if o.limit < 0 || o.passes < 1 {
		return in, usage("--limit is %d and --passes %d; 0 or more, and 1 or more will do", o.limit, o.passes)
	}
	if o.share != shareTiles && o.share != shareShots {
		return in, usage("--share is %q; %s or %s will do", o.share, shareTiles, shareShots)
	}
	if o.bits != 8 {
		return in, usage("--bits is %d; the frames of a video have 8", o.bits)
	}
	options, err := o.options(ctx)
	if err != nil {
		return in, err
	}
	in.options = video.Options{Options: options, FrameIterations: &o.frameIterations, LongTerm: o.longTerm}
	if err := in.options.Validate(); err != nil {
		return in, err
	}
	if in.clip, err = video.Probe(ctx, o.clip); err != nil {
		return in, err
	}
	if in.width, in.height, err = video.FrameSize(in.options, in.clip.Width, in.clip.Height); err != nil {
		return in, err
	}
	if err := o.checkOutputs(ctx, in); err != nil {
		return in, err
	}
	if o.preview != "" {
		if in.preview, err = newTarget(o.preview, "", picture.Encoding{Bits: 8}, nil); err != nil {
			return in, fmt.Errorf("--preview: %w", err)
		}
	}
	for _, path := range o.styles {
		p, err := o.openPicture(ctx, path)
		if err != nil {
			return in, err
		}
		in.styles = append(in.styles, p)
	}
	_, _, err = video.FrameSize(in.options, in.clip.Width, in.clip.Height, in.styles...)
	return in, err
}

// frameFile are the names of frames.
var frameFile = regexp.MustCompile(`^[0-9]{6,}\.png$`)

// checkOutputs says whether the result can be written.
func (o *videoOptions) checkOutputs(ctx context.Context, in videoInputs) (err error) {
	written := map[string]string{"-o": o.output, "--preview": o.preview, "--log": o.log, "--store": o.storePath()}
	read := o.readFiles("", o.styles)
	read["clip"], read["flow network"] = o.clip, o.flowModel
	if err := apartFrom(written, read); err != nil {
		return err
	}
	for what, path := range read {
		if o.frames != "" && path != "" && frameFile.MatchString(filepath.Base(path)) &&
			sameFile(filepath.Dir(path), o.frames) {
			return usage("--frames is %s, where the %s lies, as %s; give the frames a folder of their own", o.frames,
				what, filepath.Base(path))
		}
	}
	if o.output != "" {
		o.encoding.Quality = o.quality
		if o.encoding, err = in.clip.CheckOutput(ctx, o.output, in.width, in.height, o.encoding); err != nil {
			return err
		}
	}
	if o.frames != "" {
		if err := os.MkdirAll(o.frames, 0o755); err != nil {
			return usage("--frames: %w", err)
		}
		if err := picture.CheckWritable(filepath.Join(o.frames, video.FrameFile(0))); err != nil {
			return fmt.Errorf("--frames: %w", err)
		}
	}
	return nil
}

// run makes the frames that are not there yet, and writes the result when all are.
func (o *videoOptions) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	in, err := o.inputs(ctx)
	if err != nil {
		return err
	}
	engines, err := o.openEngines(ctx, in.options.MemoryLimit > 0, stderr)
	if err != nil {
		return err
	}
	for _, e := range engines {
		defer e.Close()
	}
	device := engines[0].Device()
	flow, closeFlow, err := o.openFlow(ctx, device)
	if err != nil {
		return err
	}
	defer closeFlow()
	store, resumed, err := o.openStore(ctx, in.options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.leave(store, err, stderr)) }()
	log, err := openFrameLog(o.log, resumed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.close()) }()

	show := newFrames(o.quiet, stderr)
	made := 0
	var saving error // of what is written on the way: the run goes on
	warn := func(message string) { fmt.Fprintf(stderr, "nst: %s\n", message) }
	hooks := nst.Hooks{Warn: warn, Progress: show.within}
	if len(engines) > 1 { // one line does not tell of several frames
		hooks.Progress = func(nst.Progress) { show.show() }
	}
	run := &video.Run{Engine: engines[0], Beside: engines[1:], Clip: in.clip, Styles: in.styles, Options: in.options,
		Flow: flow, Store: store, Passes: o.passes, Limit: o.limit, Warn: warn, Hooks: hooks,
		Progress: func(p video.Progress) {
			made++
			show.update(p)
			if saving == nil && o.preview != "" {
				saving = in.preview.save(p.Picture)
			}
			log.write(p)
		}}
	began := time.Now()
	err = run.Make(ctx)
	show.done()
	if err != nil {
		return err
	}
	s := videoSummary{Output: o.output, FramesFolder: o.frames, Width: in.width, Height: in.height,
		Seconds: time.Since(began).Seconds(), Device: device}
	s.SecondsPerFrame = s.Seconds / float64(max(1, made))
	s.Frames, s.Shots = store.Count(o.limit)
	if err := o.write(ctx, run, s.Frames, func(n int) { show.written(n, s.Frames) }); err != nil {
		return err
	}
	show.done()
	if saving != nil {
		return fmt.Errorf("%w, --preview is not: %w", errOnTheWay, saving)
	}
	if o.json {
		return json.NewEncoder(stdout).Encode(s)
	}
	if !o.quiet {
		fmt.Fprintln(stderr, s.text())
	}
	return nil
}

// write writes what was made, so many frames.
func (o *videoOptions) write(ctx context.Context, run *video.Run, frames int, written func(frames int)) error {
	if o.frames != "" {
		if err := run.WriteFrames(ctx, o.frames, picture.Encoding{Bits: 8}, written); err != nil {
			return err
		}
		if more := video.FrameFile(frames); exists(filepath.Join(o.frames, more)) {
			run.Warn(fmt.Sprintf("%s and what follows it in %s is of an earlier run, which had more frames", more,
				o.frames))
		}
	}
	if o.output != "" {
		return run.Write(ctx, o.output, o.encoding, written)
	}
	return nil
}

// errOnTheWay is of what was to be written beside the result.
var errOnTheWay = errors.New("the result is written")

// leave is the end of a run, however it ended: the frames that are done stay unless all are,
// or none is.
func (o *videoOptions) leave(store *video.Store, failed error, stderr io.Writer) error {
	frames, _ := store.Count(0)
	if failed != nil && frames > 0 && !errors.Is(failed, video.ErrStore) && !errors.Is(failed, errOnTheWay) {
		fmt.Fprintf(stderr, "nst: %s done so far are in %s: the same command with --resume goes on\n",
			counted(frames, "frame"), o.storePath())
	}
	if frames > 0 && (failed != nil && !errors.Is(failed, errOnTheWay) || o.keep) {
		return store.Close()
	}
	return store.Remove()
}

// openEngines readies the devices: one engine of all, or one of each, by --share.
func (o *videoOptions) openEngines(ctx context.Context, limited bool, stderr io.Writer) ([]*nst.Engine, error) {
	if o.share == shareTiles {
		engine, err := o.open(ctx, stderr)
		return []*nst.Engine{engine}, err
	}
	engines, err := o.openEach(ctx, stderr)
	onCPU := 0
	for _, e := range engines {
		if e.Device() == torch.CPU {
			onCPU++
		}
	}
	if err == nil && onCPU > 1 && limited {
		for _, e := range engines {
			e.Close()
		}
		return nil, usage("--memory-limit is the whole process's on the CPU, and --share shots has %d engines "+
			"there: leave one of them out", onCPU)
	}
	return engines, err
}

// openFlow is where the optical flow comes from.
func (o *videoOptions) openFlow(ctx context.Context, device torch.Device) (flow video.Flow, done func(), err error) {
	switch {
	case o.flow != "":
		if info, err := os.Stat(o.flow); err != nil || !info.IsDir() {
			return nil, nil, usage("--flow: %s is no folder", o.flow)
		}
		return video.FlowFiles(o.flow), func() {}, nil
	case o.flowModel != "":
		m, err := video.OpenFlowModel(ctx, o.flowModel, string(device))
		if err != nil {
			return nil, nil, fmt.Errorf("--flow-model: %w", err)
		}
		return m.Flow, m.Close, nil
	}
	return video.OwnFlow, func() {}, nil
}

// text is the summary as a line for people.
func (s videoSummary) text() string {
	to := s.Output
	if to == "" {
		to = s.FramesFolder
	}
	return fmt.Sprintf("%s: %s of %d×%d, %s, in %.1f s (%.3g s each), %s", to, counted(s.Frames, "frame"), s.Width,
		s.Height, counted(s.Shots, "shot"), s.Seconds, s.SecondsPerFrame, s.Device)
}

// counted is a number of things.
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// storePath is where the frames are kept that are done.
func (o *videoOptions) storePath() string {
	switch {
	case o.store != "":
		return o.store
	case o.output != "":
		return o.output + ".nst"
	}
	return filepath.Clean(o.frames) + ".nst"
}

// openStore opens the frames of the run before, or begins.
func (o *videoOptions) openStore(ctx context.Context, all video.Options) (s *video.Store, resumed bool, err error) {
	identity, err := o.identity(ctx, all)
	if err != nil {
		return nil, false, err
	}
	path := o.storePath()
	if o.resume && exists(path) {
		s, err = video.OpenStore(path, identity)
		return s, true, err
	}
	s, err = video.CreateStore(path, identity)
	if errors.Is(err, video.ErrStore) {
		err = usage("%s is what an earlier run has left: --resume goes on with it; or remove it", path)
	}
	return s, false, err
}

// identity is all that the frames depend on, by the flags' names.
func (o *videoOptions) identity(ctx context.Context, all video.Options) (map[string]string, error) {
	resolved, err := all.Options.Resolve()
	if err != nil {
		return nil, err
	}
	resolved.Tile, resolved.MemoryLimit = "", 0 // they change no cost but by rounding
	all.Options = resolved
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	out := map[string]string{"passes": strconv.Itoa(o.passes)}
	if o.passes > 1 { // a shot is gone through from its end
		out["limit"] = strconv.Itoa(o.limit)
	}
	if o.flow != "" {
		if out["flow"], err = listing(o.flow); err != nil {
			return nil, err
		}
	}
	for name, v := range fields {
		out[name] = fmt.Sprint(v)
	}
	files := o.readFiles("", o.styles)
	files["clip"], files["flow network"] = o.clip, o.flowModel
	if files["network"] == "" {
		if files["network"], err = defaultModel(); err != nil {
			return nil, err
		}
	}
	if all.Picture != nil {
		files["picture to start from"] = o.flags.Lookup("init").Value.String()
	}
	for name, path := range files {
		if path == "" {
			continue
		}
		if out[name], err = hashOf(ctx, path); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// listing is the hash of the names, sizes and times of a folder's files.
func listing(folder string) (string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, e.Name(), info.Size(), info.ModTime().UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// hashOf is a file's SHA-256, shortened.
func hashOf(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, &interruptible{ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// interruptible is a reader that ends with a context.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

// Read reads until the context is done.
func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}
