// Package jobs is a queue of transfers on NATS JetStream. A Queue takes jobs,
// tells of them and hands out their pictures; workers, in this process or on other
// machines, take jobs from it, one at a time each, and a job of a worker that dies
// goes on with another from its last checkpoint.
//
// In JetStream are a work-queue stream with a message for each job that is not
// finished, a key-value bucket of records (Job, in JSON), one of previews, one of
// workers, and an object store with what is large: pictures, clips, checkpoints and
// results. A clip, whose frames package video makes, has in place of a checkpoint those that
// are done, in segments.
package jobs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// State is where a job is.
type State string

// The states of a job.
const (
	Queued    State = "queued"    // it waits for a worker
	Running   State = "running"   // a worker has it
	Done      State = "done"      // there is a result
	Failed    State = "failed"    // Job.Error says why
	Cancelled State = "cancelled" // by request
)

// Finished says whether nothing more will happen.
func (s State) Finished() bool { return s == Done || s == Failed || s == Cancelled }

// Job is what is known of a job.
type Job struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Revision grows with each change of the record.
	Revision uint64 `json:"revision"`

	// Owner is whose it is; empty: nobody's. Priority is the owner's.
	Owner    string `json:"owner,omitempty"`
	Priority int    `json:"priority,omitempty"`

	Created  time.Time  `json:"created"`
	Started  *time.Time `json:"started,omitempty"`  // by the first worker
	Finished *time.Time `json:"finished,omitempty"` // when nothing more happens

	Options nst.Options `json:"options"`
	// Clip is of a job whose content is a clip; nil: it is a picture.
	Clip *Clip `json:"clip,omitempty"`
	// Styles is the number of style pictures, Width and Height the result's size.
	Styles int `json:"styles"`
	Width  int `json:"width"`
	Height int `json:"height"`

	Worker   string `json:"worker,omitempty"` // that has it, or had it last
	Device   string `json:"device,omitempty"`
	Attempts int    `json:"attempts"` // times that a worker began
	// Began is when the last one did.
	Began *time.Time `json:"began,omitempty"`

	Progress *Progress  `json:"progress,omitempty"`
	Costs    *nst.Costs `json:"costs,omitempty"` // the last known; at the end the result's
	Curve    []Point    `json:"curve,omitempty"` // of the total, about evenly spaced
	Preview  int        `json:"preview"`         // how many previews there have been
	Result   *Result    `json:"result,omitempty"`
	// Warnings are what the run went on in spite of.
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"`

	// Inputs are the objects that the pictures are kept as.
	Inputs inputs `json:"inputs"`
	// Failures are the errors of attempts. Deaths is how often workers vanished since
	// the checkpoint was DeathAt, an object's identity (of a clip the name of its newest
	// segment); empty: there was none.
	Failures []string `json:"failures,omitempty"`
	Deaths   int      `json:"deaths,omitempty"`
	DeathAt  string   `json:"died_at,omitempty"`

	// Checkpoint and ResultName are the objects that the checkpoint and the result which count are
	// kept as; empty: there is none, or a program older than version 5 wrote it. Each that is
	// written has a name of its own, so that a worker that was paused and comes back overwrites
	// nothing of its successor's.
	Checkpoint string `json:"checkpoint,omitempty"`
	ResultName string `json:"result_name,omitempty"`
	// AtOnce is how many of the owner's jobs may run at once; 0: any number.
	AtOnce int `json:"at_once,omitempty"`
	// MaxSeconds is how long workers may have the job, all attempts together; 0: as long as it takes.
	MaxSeconds float64 `json:"max_seconds,omitempty"`

	// Version is the record's: see version.
	Version int `json:"version,omitempty"`
	// RequestID names the request that submitted it, in logs.
	RequestID string `json:"request,omitempty"`
	// Trace is the span that submitted it, as in a traceparent header.
	Trace string `json:"trace,omitempty"`
	// Key is the hash of the request's, Reserved how much room the job may take.
	Key      string `json:"key,omitempty"`
	Reserved int64  `json:"reserved,omitempty"`
}

// version is that of the records that are written. Older ones are read; newer ones are
// another program's, of which this one might leave something out: 2 has masks of strength,
// and content losses, 3 has owners, 4 has clips, 5 names of attempts.
const version = 5

// errVersion is the error of a record that a newer program wrote.
var errVersion = errors.New("a newer version of nst wrote it")

// inputs say which pictures there are beside the content.
type inputs struct {
	Clip         bool `json:"clip,omitempty"` // in place of the content
	Styles       int  `json:"styles"`
	ContentMask  bool `json:"content_mask,omitempty"`
	StyleMasks   int  `json:"style_masks,omitempty"`
	StrengthMask bool `json:"strength_mask,omitempty"`
	Init         bool `json:"init,omitempty"`
}

// names are the objects' names, after the job's.
func (in inputs) names() []string {
	all := []string{"content"}
	if in.Clip {
		all[0] = clipName
	}
	for i := range in.Styles {
		all = append(all, numbered("style", i))
	}
	if in.ContentMask {
		all = append(all, "content-mask")
	}
	for i := range in.StyleMasks {
		all = append(all, numbered("style-mask", i))
	}
	if in.StrengthMask {
		all = append(all, "strength-mask")
	}
	if in.Init {
		all = append(all, "init")
	}
	return all
}

// Pictures are the names of what was sent with the job: content or clip, style-1 and so on,
// and masks.
func (j Job) Pictures() []string { return j.Inputs.names() }

// Has says whether a picture of that name was sent with the job.
func (j Job) Has(name string) bool { return slices.Contains(j.Pictures(), name) }

// The objects that the checkpoint and the result are kept as, after the job's.
func (j Job) checkpoint() string { return cmp.Or(j.Checkpoint, "checkpoint") }
func (j Job) result() string     { return cmp.Or(j.ResultName, "result") }

// resultOf is the result of an attempt, checkpointOf its n-th checkpoint.
func resultOf(attempt int) string        { return fmt.Sprintf("result-%d", attempt) }
func checkpointOf(attempt, n int) string { return fmt.Sprintf("checkpoint-%d-%d", attempt, n) }

// leftover says whether an object's name is of what a worker wrote, and does not count: its worker
// died, or had lost the job.
func (j Job) leftover(name string) bool {
	kind, _, _ := strings.Cut(name, "-")
	return (kind == "result" || kind == "checkpoint") && name != j.result() && name != j.checkpoint()
}

// timeLeft is how long workers may still have the job, if there is a limit.
func (j Job) timeLeft() (left time.Duration, limited bool) {
	spent := 0.0
	if j.Progress != nil {
		spent = j.Progress.Seconds
	}
	return time.Duration(max(0, j.MaxSeconds-spent) * float64(time.Second)), j.MaxSeconds > 0
}

func numbered(name string, i int) string { return fmt.Sprintf("%s-%d", name, i+1) }

// Progress is how far a running job is: see nst.Progress. Of a clip, Scale and Iteration are
// of the frame that is being made, the rest is of all.
type Progress struct {
	Frame       int     `json:"frame,omitempty"`  // of a clip: how many are done, in all passes
	Frames      int     `json:"frames,omitempty"` // of how many
	Scale       int     `json:"scale"`
	Iteration   int     `json:"iteration"`
	Iterations  int     `json:"iterations"`
	Fraction    float64 `json:"fraction"`
	Seconds     float64 `json:"seconds"`
	SecondsLeft float64 `json:"seconds_left"`
}

// Point is a total of the curve. Of a clip, Iteration is the number of the frame.
type Point struct {
	Iteration int     `json:"iteration"`
	Scale     int     `json:"scale"`
	Total     float64 `json:"total"`
}

// maxPoints bounds a curve: when it is full, every second point goes.
const maxPoints = 240

func (j *Job) addPoint(p Point, step *int) {
	if *step == 0 {
		*step = 1
	}
	if n := len(j.Curve); n > 0 && p.Iteration < j.Curve[n-1].Iteration+*step {
		return
	}
	j.Curve = append(j.Curve, p)
	if len(j.Curve) < maxPoints {
		return
	}
	kept := make([]Point, 0, maxPoints) // readers may have the other
	for i, q := range j.Curve {
		if i%2 == 0 {
			kept = append(kept, q)
		}
	}
	j.Curve = kept
	*step *= 2
}

// Result is what a finished transfer took.
type Result struct {
	// Type is the media type of a clip; empty: it is a PNG. Frames and Shots are its.
	Type       string  `json:"type,omitempty"`
	Frames     int     `json:"frames,omitempty"`
	Shots      int     `json:"shots,omitempty"`
	Bytes      int     `json:"bytes"`
	Iterations int     `json:"iterations"`
	Seconds    float64 `json:"seconds"`
	PeakMemory int64   `json:"peak_memory_bytes"`
	Tiles      int     `json:"tiles"`
}

// Request is a transfer to be made. The pictures are files' contents.
type Request struct {
	Options nst.Options
	Content []byte
	Styles  [][]byte
	// Clip is the path of a file with moving pictures in place of Content, and ClipOptions
	// are its.
	Clip        string
	ClipOptions ClipOptions
	// Init is the picture to start from, for nst.StartPicture; the masks are
	// nst.Options' (there may be none).
	Init         []byte
	ContentMask  []byte
	StrengthMask []byte
	StyleMasks   [][]byte
	// Key, if there is one, makes an owner's requests with the same key one job.
	Key string
	// ID names the request in logs.
	ID string
	// Owner is whose the job will be.
	Owner Owner
	// Client is who sends it, by a name or an address: pictures of several are looked at in
	// turns. Empty: the owner.
	Client string
}

// Errors of a Queue, matched with errors.Is.
var (
	ErrNotFound  = errors.New("there is no such job")
	ErrNotReady  = errors.New("it is not there yet")
	ErrQueueFull = errors.New("the queue is full; try again later")
	ErrNoSpace   = errors.New("the store has no room for the job beside what those that wait may need; finished " +
		"jobs that are deleted make room")
	ErrKeyUsed = errors.New("that key was used for another request")
	ErrKeyBusy = errors.New("another request with that key is being made; try again")
	// ErrNoClips is of a clip where ffmpeg is not installed.
	ErrNoClips = errors.New("clips are not taken here: ffmpeg and ffprobe, by which they are read, are not installed")
	// ErrStuck is Work's when a transfer hangs. Its engine cannot be closed, nor used any
	// more: the process had better end.
	ErrStuck = errors.New("a transfer hangs: it has finished neither a tile nor an iteration for too long")
)

// PictureError says which picture of a request cannot be used. It matches
// picture.ErrPicture.
type PictureError struct {
	// Part is "content", "clip", "style 1", "content mask", "style mask 1" or "init".
	Part string
	Err  error
}

// Error names the picture and completes the sentence.
func (e *PictureError) Error() string {
	if e.Part == clipName {
		return "the clip " + e.Err.Error()
	}
	return "the " + e.Part + " picture " + e.Err.Error()
}

// Unwrap is the reason.
func (e *PictureError) Unwrap() error { return e.Err }

// Is says that the error is a picture.ErrPicture.
func (e *PictureError) Is(target error) bool { return target == picture.ErrPicture }
