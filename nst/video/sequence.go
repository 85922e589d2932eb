package video

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// Options chooses what a Sequence does. The zero value is the default.
type Options struct {
	// Options are those of each frame. Size is the longest side of the frames, StyleSize nil
	// the same. Start is of the first frame of each shot. Color and Transfer are settled by
	// the first frame of all, so that colours are steady. TemporalWeight is how much a frame
	// is held to those before.
	nst.Options
	// FrameIterations is the number of steps of a frame that follows another; nil means
	// DefaultFrameIterations. Iterations is that of the first frame of a shot.
	FrameIterations *int `json:"frame_iterations,omitempty"`
	// LongTerm is how many frames back a frame is held to: to the first of them (or, where its
	// shot does not go so far back, to that one's first frame), and where that is not known to
	// the next. Empty: 1, 2, 4.
	LongTerm []int `json:"long_term,omitempty"`
}

// DefaultFrameIterations nearly keep the style of a shot's first frame: see the package's README.
const DefaultFrameIterations = 50

// ErrFrame is matched (errors.Is) by the error of a frame of another size than the first.
var ErrFrame = errors.New("a frame does not fit the clip")

// Sequence makes the frames of one clip, one after the other. It is not safe for concurrent
// use.
type Sequence struct {
	engine  *nst.Engine
	do      func(ctx context.Context, work func() error) error // what uses torch: the engine's
	options Options
	flow    Flow
	given   []*picture.Picture // the styles

	styles        []*picture.Picture // as they are used
	width, height int                // of the frames; 0 before the first
	chroma        bool               // the results have the content's

	past    []past  // of the shot, the newest first
	opening float64 // where there is none: the part of the next frame that the shot before has
}

// past is a frame that was made.
type past struct {
	content Numbered
	result  func() (*picture.Picture, error)
}

// Made is a frame that was made.
type Made struct {
	Index int `json:"frame"`
	// Cut says that a shot begins with it.
	Cut bool `json:"cut"`
	// Known is the part of its pixels, from 0 to 1, that the frames before have: the mean of the
	// weights by which they are held to those; where a shot begins, of what that was decided by.
	Known float64 `json:"known"`
	// Iterations and Costs are the transfer's.
	Iterations int       `json:"iterations"`
	Costs      nst.Costs `json:"costs"`
	// Result is the frame as the transfer left it, in values of 8 bits: what the next frame
	// goes on from.
	Result *picture.Picture `json:"-"`
}

// Validate says whether a Sequence can begin with these options; the error matches
// nst.ErrInvalidOption and names the field.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

func (o Options) withDefaults() (Options, error) {
	invalid := func(field, format string, args ...any) error {
		return &nst.OptionError{Field: field, Problem: fmt.Sprintf(format, args...)}
	}
	if o.Transfer == nst.TransferColor {
		return o, invalid("Transfer", "%s is not for videos: its frames do not follow from each other", o.Transfer)
	}
	if err := o.Options.Validate(); err != nil {
		return o, err
	}
	if o.FrameIterations == nil {
		o.FrameIterations = new(DefaultFrameIterations)
	}
	if n := *o.FrameIterations; n < 0 {
		return o, invalid("FrameIterations", "is %d; 0 or more will do", n)
	}
	if len(o.LongTerm) == 0 {
		o.LongTerm = []int{1, 2, 4}
	}
	for i, n := range o.LongTerm {
		if n < 1 || n > maxLongTerm || i > 0 && n <= o.LongTerm[i-1] {
			return o, invalid("LongTerm", "is %v; ascending numbers from 1 to %d will do", o.LongTerm, maxLongTerm)
		}
	}
	return o, nil
}

// NewSequence prepares for a clip. flow may be nil: OwnFlow. The error is Validate's.
func NewSequence(engine *nst.Engine, styles []*picture.Picture, o Options, flow Flow) (*Sequence, error) {
	o, err := o.withDefaults()
	if flow == nil {
		flow = OwnFlow
	}
	return &Sequence{engine: engine, do: engine.Do, options: o, flow: flow, given: styles}, err
}

// shot is a sequence, on any engine, for one shot of the clip whose first frame has settled
// what depends on it. known is Made.Known of the shot's first frame, which the clip knew.
func (s *Sequence) shot(engine *nst.Engine, known float64) *Sequence {
	return &Sequence{engine: engine, do: engine.Do, options: s.options, flow: s.flow, styles: s.styles,
		width: s.width, height: s.height, chroma: s.chroma, opening: known}
}

// maxLongTerm is the largest of Options.LongTerm: so many frames are held.
const maxLongTerm = 64

// FrameSize is the size of the frames that are made of those of a clip: as nst.Options has
// it, in even numbers, which encoders want. It looks at the sizes of the pictures alone, and with
// styles says what of them, of the masks and the options does not go together.
func FrameSize(o Options, width, height int, styles ...*picture.Picture) (w, h int, err error) {
	if w, h, err = o.ResultSize(&picture.Picture{Width: width, Height: height}); err != nil {
		return 0, 0, err
	}
	even := func(n int) int { return max(2, n+n%2) }
	w, h = even(w), even(h)
	if len(styles) > 0 {
		_, _, err = o.ofFrames().ResultSize(&picture.Picture{Width: w, Height: h}, styles...)
	}
	return w, h, err
}

// ofFrames are the options of frames that come at their size.
func (o Options) ofFrames() nst.Options {
	if o.StyleSize == nil {
		size := nst.DefaultSize
		if o.Size != nil {
			size = *o.Size
		}
		o.StyleSize = &size
	}
	o.Size = new(0)
	return o.Options
}

// begin settles what depends on the first frame.
func (s *Sequence) begin(first *picture.Picture) (err error) {
	if s.styles != nil {
		return nil
	}
	if s.width, s.height, err = FrameSize(s.options, first.Width, first.Height); err != nil {
		return err
	}
	o := &s.options
	o.Options = o.ofFrames()
	s.styles = s.given
	s.chroma = o.Color == nst.ColorContent || o.Transfer == nst.TransferLuminance
	if o.Transfer == nst.TransferLuminance {
		first = picture.Luminance(first)
	}
	if o.Color == nst.ColorMatch || o.Transfer == nst.TransferLuminance {
		s.styles = nil
		for _, p := range s.given {
			if o.Transfer == nst.TransferLuminance {
				p = picture.Luminance(p)
			}
			s.styles = append(s.styles, picture.MatchColors(p, first))
		}
	}
	return nil
}

// content is a frame at the size of the results.
func (s *Sequence) content(ctx context.Context, in Input) (Numbered, error) {
	p := in.Picture
	if err := s.begin(p); err != nil {
		return Numbered{}, err
	}
	if p.Width == s.width && p.Height == s.height {
		return Numbered{in.Index, p}, nil
	}
	out := &picture.Picture{Width: s.width, Height: s.height}
	err := s.do(ctx, func() error {
		out.Pixels = torch.ResizeFloats(p.Pixels, p.Height, p.Width, s.height, s.width,
			s.options.Wrap.Directions())
		return nil
	})
	clamp(out.Pixels)
	return Numbered{in.Index, out}, err
}

// Input is a frame to be made.
type Input struct {
	// Index is its place in the clip, from 0.
	Index   int
	Picture *picture.Picture
	// Before is the frame's result in an earlier pass; nil: this is the first.
	Before *picture.Picture
}

// Next makes the next frame of the clip, or of one of its shots backwards. The errors are
// those of nst.Engine.Stylize, and the flow's; after one the frame can be asked for again.
func (s *Sequence) Next(ctx context.Context, in Input, h nst.Hooks) (*Made, error) {
	content, err := s.content(ctx, in)
	if err != nil {
		return nil, err
	}
	made := &Made{Index: in.Index}
	var o nst.Options
	err = s.do(ctx, func() (err error) {
		o, err = s.following(ctx, content, in.Before, made)
		return err
	})
	if err != nil {
		return nil, err
	}
	made.Result = in.Before
	if in.Before == nil || !made.Cut { // else it has nothing to be held to, and was made before
		used := content.Picture
		if o.Transfer == nst.TransferLuminance {
			used = picture.Luminance(used)
		}
		o.Transfer, o.Color = "", "" // what there is of them is done here
		r, err := s.engine.Stylize(ctx, used, s.styles, o, h)
		if err != nil {
			return nil, err
		}
		made.Iterations, made.Costs, made.Result = r.Iterations, r.Costs, rounded(r.Picture)
	}
	s.remember(content, made.Cut, func() (*picture.Picture, error) { return made.Result, nil })
	return made, nil
}

// look finds out whether a shot begins with the next frame, which it does not make: there is
// no result that a later one could go on from.
func (s *Sequence) look(ctx context.Context, in Input) (made Made, err error) {
	content, err := s.content(ctx, in)
	if err != nil {
		return made, err
	}
	made.Index = in.Index
	err = s.do(ctx, func() error {
		_, err := s.nearest(ctx, content, &made)
		return err
	})
	if err == nil {
		s.remember(content, made.Cut, nil)
	}
	return made, err
}

// Restore has the sequence know of a frame that was made before. Its result is asked for if
// a later frame goes on from it.
func (s *Sequence) Restore(ctx context.Context, in Input, made Made, result func() (*picture.Picture, error)) error {
	content, err := s.content(ctx, in)
	if err == nil {
		s.remember(content, made.Cut, result)
	}
	return err
}

// remember has the frames that follow go on from one.
func (s *Sequence) remember(content Numbered, cut bool, result func() (*picture.Picture, error)) {
	if cut {
		s.past = nil
	}
	s.past = slices.Insert(s.past, 0, past{content, result})
	if most := s.options.LongTerm[len(s.options.LongTerm)-1]; len(s.past) > most {
		s.past = s.past[:most]
	}
}

// Finish gives a frame's result the colours that were asked for. The frame is the clip's.
func (s *Sequence) Finish(ctx context.Context, in Input, result *picture.Picture) (*picture.Picture, error) {
	if err := s.begin(in.Picture); err != nil || !s.chroma {
		return result, err
	}
	content, err := s.content(ctx, in)
	if err != nil {
		return nil, err
	}
	return picture.Recolor(result, content.Picture), nil
}

// rounded is a picture in values of 8 bits.
func rounded(p *picture.Picture) *picture.Picture { return pictureOf(bytesOf(p), p.Width, p.Height) }

// What a cut is: the colours change, and few places are known; or hardly any place is.
const (
	cutApart  = 0.3
	cutKnown  = 0.5
	cutNearly = 0.1
)

// tie is what a frame has of an earlier one.
type tie struct {
	to      past
	back    []float32 // the flow to it
	weights []float32 // where that can be relied on
}

// tieTo finds what a frame has of the one that was made n before it.
func (s *Sequence) tieTo(ctx context.Context, content Numbered, n int) (tie, error) {
	to := s.past[n-1]
	back, forth, err := s.flows(ctx, content, to.content)
	if err != nil {
		return tie{}, err
	}
	return tie{to, back, reliable(back, forth, s.width, s.height)}, nil
}

// nearest finds what a frame has of the first of those that it is held to, or where the shot
// does not go so far back, of its first frame. It says in made whether a shot begins here
// instead. What it goes by is the clip's frames since the last cut: no result.
func (s *Sequence) nearest(ctx context.Context, content Numbered, made *Made) (t tie, err error) {
	if len(s.past) == 0 {
		made.Cut, made.Known = true, s.opening
		return t, nil
	}
	if t, err = s.tieTo(ctx, content, min(s.options.LongTerm[0], len(s.past))); err != nil {
		return t, err
	}
	made.Known = mean(t.weights)
	changed := apart(histogram(content.Picture), histogram(t.to.content.Picture))
	made.Cut = made.Known < cutNearly || made.Known < cutKnown && changed > cutApart
	return t, nil
}

// following are the options of a frame: held to those before, or, where a shot begins,
// without. It says in made what it found out.
func (s *Sequence) following(ctx context.Context, content Numbered, before *picture.Picture, made *Made) (
	o nst.Options, err error) {
	o = s.options.Options
	nearest, err := s.nearest(ctx, content, made)
	if err != nil || made.Cut {
		return o, err
	}
	target, weights, err := s.moved(ctx, content, nearest)
	if err != nil {
		return o, err
	}
	made.Known = mean(weights)
	o.Previous = &nst.Previous{Picture: target, Weights: weights}
	o.Start = nst.StartPicture
	if before == nil {
		o.Picture = blended(target, smoothed(target), weights)
	} else { // half of what moved here, where that is known
		half := make([]float32, len(weights))
		for i, w := range weights {
			half[i] = w / 2
		}
		o.Picture = blended(target, before, half)
	}
	o.Iterations = s.options.FrameIterations
	return o, nil
}

// moved is what the results before have of a frame, and where: of the nearest first, and of
// each that is farther back what the nearer ones leave. Where none has anything it is the
// nearest's guess.
func (s *Sequence) moved(ctx context.Context, content Numbered, nearest tie) (
	target *picture.Picture, weights []float32, err error) {
	sum := picture.New(s.width, s.height)
	weights = make([]float32, s.width*s.height)
	add := func(t tie) (*picture.Picture, error) {
		result, err := t.to.result()
		if err != nil {
			return nil, err
		}
		moved := warped(result, t.back)
		for i, c := range softened(t.weights, s.width, s.height) {
			c = max(0, c-weights[i])
			weights[i] += c
			for k := i; k < len(sum.Pixels); k += len(weights) {
				sum.Pixels[k] += c * moved.Pixels[k]
			}
		}
		return moved, nil
	}
	if target, err = add(nearest); err != nil {
		return nil, nil, err
	}
	for _, n := range s.options.LongTerm[1:] {
		if n > len(s.past) || mean(weights) > enough {
			break
		}
		t, err := s.tieTo(ctx, content, n)
		if errors.Is(err, ErrNoFlow) {
			continue
		}
		if err == nil {
			_, err = add(t)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	for i, w := range weights {
		for k := i; k < len(sum.Pixels) && w > 0; k += len(weights) {
			target.Pixels[k] = sum.Pixels[k] / w
		}
	}
	return target, weights, nil
}

// enough is the mean weight by which a frame is held to frames so near that those farther back
// are not asked.
const enough = 0.995

// flows are the flow from a frame to an earlier one, and from that to it.
func (s *Sequence) flows(ctx context.Context, now, then Numbered) (back, forth []float32, err error) {
	of := func(from, to Numbered) []float32 {
		if err != nil {
			return nil
		}
		var flow []float32
		if flow, err = s.flow(ctx, from, to); err == nil && !slices.ContainsFunc(flow, finite) {
			err = fmt.Errorf("%w: from frame %d to frame %d it has no number", ErrFlow, from.Index+1, to.Index+1)
		}
		return flow
	}
	return of(now, then), of(then, now), err
}

func finite(v float32) bool { return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) }
