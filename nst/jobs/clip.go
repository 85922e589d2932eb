package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/video"
)

// A clip is a job whose content is a file of moving pictures. What it has beside a job of a
// picture is here and in clipwork.go, which makes it.

// clipName is the object that a clip is kept as, and the part of a request that it is.
const clipName = "clip"

// ClipOptions are what is asked of a clip beside nst.Options, named as the flags of nst video
// are. The zero value is the default.
type ClipOptions struct {
	// FrameIterations and LongTerm are video.Options'.
	FrameIterations *int  `json:"frame_iterations,omitempty"`
	LongTerm        []int `json:"long_term,omitempty"`
	// Passes is how often the clip is gone through; 0 means 1.
	Passes int `json:"passes,omitempty"`
	// Container is a key of Containers; empty: DefaultContainer.
	Container string `json:"container,omitempty"`
}

// Containers are the kinds of files that clips are written to, with their media types.
var Containers = map[string]string{"mp4": "video/mp4", "mov": "video/quicktime", "mkv": "video/x-matroska",
	"webm": "video/webm"}

// DefaultContainer is what every browser plays.
const DefaultContainer = "mp4"

// maxPasses is how often a clip may be gone through.
const maxPasses = 10

func (o ClipOptions) passes() int       { return max(1, o.Passes) }
func (o ClipOptions) container() string { return cmp.Or(o.Container, DefaultContainer) }

// empty says whether nothing is asked.
func (o ClipOptions) empty() bool {
	return o.FrameIterations == nil && len(o.LongTerm) == 0 && o.Passes == 0 && o.Container == ""
}

// video are the options of all frames.
func (o ClipOptions) video(each nst.Options) video.Options {
	return video.Options{Options: each, FrameIterations: o.FrameIterations, LongTerm: o.LongTerm}
}

// Clip is what is known of a job's clip.
type Clip struct {
	ClipOptions
	// Frames is how many there are: those that the file holds, and at the end those that could
	// be decoded.
	Frames int `json:"frames"`
	// Seconds is how long it takes; 0: the file does not say. Bytes is the file's size.
	Seconds float64 `json:"seconds,omitempty"`
	Bytes   int64   `json:"bytes"`
	// Kept is how many segments of the frames that are done each attempt has kept: together,
	// one after the other, they are a video.Store's file.
	Kept []int `json:"kept,omitempty"`
}

// segmentName is the object of an attempt's n-th segment, both from 1.
func segmentName(attempt, n int) string { return fmt.Sprintf("frames-%d-%06d", attempt, n) }

// segments are the names of the objects with the frames that are done, in their order. An
// attempt has names of its own, so that a worker that does not know yet that it has lost the
// job spoils nothing. With all there are those that a worker may have written without the
// record's saying so.
func (j Job) segments(all bool) (names []string) {
	if j.Clip == nil {
		return nil
	}
	for i := range max(j.Attempts, len(j.Clip.Kept)) {
		kept := 0
		if i < len(j.Clip.Kept) {
			kept = j.Clip.Kept[i]
		}
		if all {
			kept++
		}
		for n := range kept {
			names = append(names, segmentName(i+1, n+1))
		}
	}
	return names
}

// with is the clip of which an attempt has kept so many segments. (A record's copies share
// what it points to.)
func (c Clip) with(attempt, kept int) *Clip {
	c.Kept = append(slices.Clone(c.Kept), make([]int, max(0, attempt-len(c.Kept)))...)
	c.Kept[attempt-1] = kept
	return &c
}

// first is the clip of which the first n segments alone are kept.
func (c Clip) first(n int) *Clip {
	c.Kept = slices.Clone(c.Kept)
	for i, kept := range c.Kept {
		c.Kept[i] = min(kept, n)
		n -= c.Kept[i]
	}
	return &c
}

// dropSegments deletes the frames that are done.
func (q *Queue) dropSegments(ctx context.Context, j Job) (err error) {
	for _, name := range j.segments(true) {
		if e := q.drop(ctx, object(j.ID, name)); e != nil {
			if err = errors.Join(err, e); Unavailable(e) {
				return err
			}
		}
	}
	return err
}

// TakesClips says whether this process can look at clips: ffmpeg and ffprobe are installed.
func TakesClips() bool { return video.Installed() == nil }

// How long a clip may be looked at when it is submitted, and how many are at once.
const (
	lookTime = time.Minute
	lookers  = 2
)

// checkClip looks whether a clip can be decoded, and returns the size of its frames alone.
func (q *Queue) checkClip(ctx context.Context, r Request, j *Job) (*picture.Picture, error) {
	if err := q.checkClipOptions(r.ClipOptions); err != nil {
		return nil, err
	}
	if !TakesClips() {
		return nil, ErrNoClips
	}
	info, err := os.Stat(r.Clip)
	if err != nil {
		return nil, &PictureError{clipName, err}
	}
	select {
	case q.looking <- struct{}{}:
		defer func() { <-q.looking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	c, frame, err := q.look(look, r.Clip)
	if err != nil && ctx.Err() == nil && look.Err() != nil {
		err = unusable("cannot be looked through in %d seconds", int(lookTime.Seconds()))
	}
	if err != nil {
		return nil, clipError(err, r.Clip)
	}
	j.Clip = &Clip{ClipOptions: r.ClipOptions, Frames: c.Frames, Seconds: c.Seconds, Bytes: info.Size()}
	return frame, nil
}

// unusable is an error about a clip: the rest of a sentence.
func unusable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{video.ErrClip}, args...)...)
}

// checkClipOptions says what of them cannot be had here.
func (q *Queue) checkClipOptions(o ClipOptions) error {
	if n := o.FrameIterations; n != nil && *n > q.config.MaxIterations {
		return &nst.OptionError{Field: "FrameIterations", Problem: fmt.Sprintf("is %d; at most %d are made here", *n,
			q.config.MaxIterations)}
	}
	if o.Passes < 0 || o.Passes > maxPasses {
		return &nst.OptionError{Field: "Passes", Problem: fmt.Sprintf("is %d; 1 to %d will do", o.Passes, maxPasses)}
	}
	if Containers[o.container()] == "" {
		return &nst.OptionError{Field: "Container", Problem: fmt.Sprintf("is %.40q; mp4, mov, mkv and webm are known",
			o.Container)}
	}
	return nil
}

// look finds out what a clip is, how many frames it has and whether the first can be decoded.
func (q *Queue) look(ctx context.Context, path string) (c *video.Clip, frame *picture.Picture, err error) {
	if c, err = video.Probe(ctx, path); err != nil {
		return c, nil, err
	}
	pixels := int64(c.Width) * int64(c.Height)
	if pixels > q.config.MaxPixels {
		return c, nil, unusable("has frames of %d×%d pixels; at most %d are taken here", c.Width, c.Height,
			q.config.MaxPixels)
	}
	if c.Frames, err = c.CountFrames(ctx); err != nil {
		return c, nil, err
	}
	if c.Frames > q.config.MaxClipFrames {
		return c, nil, unusable("has %d frames; at most %d are taken here", c.Frames, q.config.MaxClipFrames)
	}
	frame = &picture.Picture{Width: c.Width, Height: c.Height}
	if pixels*frameMemory > glanceMemory { // a worker will see
		return c, frame, nil
	}
	reader, err := c.Open(ctx)
	if err != nil {
		return c, nil, err
	}
	defer reader.Close()
	first, err := reader.Next()
	if err == nil {
		frame.Width, frame.Height = first.Picture.Width, first.Picture.Height
	}
	return c, frame, err
}

// frameMemory is what decoding a frame takes, in bytes a pixel: three, and three numbers.
const frameMemory = 15

// clipError is an error, of a clip without the name of the file that it lies in here.
func clipError(err error, path string) error {
	text := strings.ReplaceAll(err.Error(), path, "the clip")
	switch {
	case errors.Is(err, video.ErrClip):
		text = strings.TrimPrefix(strings.TrimPrefix(text, video.ErrClip.Error()+": "), "the clip ")
		return &PictureError{clipName, errors.New(text)}
	case text != err.Error() && errors.Is(err, video.ErrTool):
		return fmt.Errorf("%w: %s", video.ErrTool, strings.TrimPrefix(text, video.ErrTool.Error()))
	}
	return err
}

// frames says how large the frames will be that are made of a clip's; content and styles have
// the sizes of the clip's frames and of the style pictures.
func (q *Queue) frames(o video.Options, content *picture.Picture, styles []*picture.Picture) (width, height int,
	err error) {
	if err := o.Validate(); err != nil {
		return 0, 0, err
	}
	return video.FrameSize(o, content.Width, content.Height, styles...)
}

// clipRoom is how much room may be taken by what is made of a clip. A frame that is done is a
// PNG of at most three bytes a pixel, in each pass, beside the clip's own frame where there
// are several; the result is taken to have at most a byte a pixel.
func (j Job) clipRoom() int64 {
	kept := int64(j.Clip.passes())
	if kept > 1 {
		kept++
	}
	return int64(j.Width) * int64(j.Height) * int64(j.Clip.Frames) * (3*kept + 1)
}

// hashClip adds what is asked of a clip, and the clip, to a request's hash.
func (r Request) hashClip(h io.Writer) error {
	f, err := os.Open(r.Clip)
	if err != nil {
		return err
	}
	defer f.Close()
	options, err := json.Marshal(r.ClipOptions)
	if err != nil {
		return err
	}
	fmt.Fprintf(h, "clip %s ", options)
	_, err = io.Copy(h, f)
	return err
}

// writeFile stores a file as an object.
func (q *Queue) writeFile(ctx context.Context, id, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return q.write(ctx, id, name, f)
}
