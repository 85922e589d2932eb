package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/video"
)

// frames show how far a clip is: one line that changes on a terminal, a line now and then
// elsewhere.
type frames struct {
	progress
	began  time.Time
	first  int // frames that an earlier run had made
	latest video.Progress
	part   float64 // of the frame after the latest
}

func newFrames(quiet bool, out io.Writer) *frames {
	return &frames{progress: *newProgress(quiet, out), began: time.Now()}
}

// update is after a frame.
func (f *frames) update(p video.Progress) {
	if f.latest.Done == 0 {
		f.first = p.Done - 1
	}
	f.latest, f.now, f.part = p, "", 0
	f.show()
}

// within is during the frame after the latest.
func (f *frames) within(p nst.Progress) {
	f.now, f.part = fmt.Sprintf(", %d px, %d/%d", p.Scale, p.Iteration, p.Iterations), p.Fraction
	f.show()
}

// remote is during a frame that is made elsewhere; p.Fraction is of all.
func (f *frames) remote(done, all int, p nst.Progress) {
	if f.latest.Frames == 0 {
		f.first, f.began = done, time.Now()
	}
	f.latest = video.Progress{Done: done, Frames: all, Passes: 1}
	p.Fraction = max(0, p.Fraction*float64(all)-float64(done))
	f.within(p)
}

// show says which frame is being made, and how long all will take.
func (f *frames) show() {
	p := f.latest
	text := fmt.Sprintf("frame %d", p.Done+1)
	if all := p.Frames * p.Passes; all > p.Done {
		left := "?"
		if did := float64(p.Done-f.first) + f.part; did > 0 {
			seconds := time.Since(f.began).Seconds() / did * (float64(all-p.Done) - f.part)
			left = time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
		}
		text += fmt.Sprintf(" of %d, %s left", all, left)
	}
	f.line(text + f.now)
}

// written is while the result is written.
func (f *frames) written(n, all int) { f.line(fmt.Sprintf("writing, frame %d of %d", n, all)) }

// line shows a line, if it is time for one: on a terminal over the last one.
func (f *frames) line(text string) {
	switch {
	case f.out == nil:
	case f.tty && time.Since(f.last) >= lineEvery/100:
		fmt.Fprintf(f.out, "\r\x1b[K%s", text)
		f.last = time.Now()
	case !f.tty && time.Since(f.last) >= lineEvery:
		fmt.Fprintln(f.out, text)
		f.last = time.Now()
	}
}

// done ends the line.
func (f *frames) done() {
	f.progress.done()
	if f.tty {
		fmt.Fprint(f.out, "\r\x1b[K")
	}
}

// frameLog is the file of --log: a line for each frame. Without one it takes nothing.
type frameLog struct {
	file *os.File
	err  error
}

// openFrameLog begins a log, or adds to that of the run that is gone on with.
func openFrameLog(path string, resumed bool) (*frameLog, error) {
	if path == "" {
		return &frameLog{}, nil
	}
	mode := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if !resumed {
		mode |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, mode, 0o644)
	if err != nil {
		return nil, usage("--log: %s cannot be written: %w", path, err)
	}
	return &frameLog{file: f}, nil
}

// write adds a line.
func (l *frameLog) write(p video.Progress) {
	if l.file != nil && l.err == nil {
		l.err = json.NewEncoder(l.file).Encode(p)
	}
}

func (l *frameLog) close() error {
	if l.file == nil {
		return nil
	}
	if err := errors.Join(l.err, l.file.Close()); err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	return nil
}
