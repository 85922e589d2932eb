package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/seed9bb5c928/nst/cmd/nst/internal/bench"
	"github.com/seed9bb5c928/nst/nst"
)

// progress shows how far a run is: a bar with the cost and the time left on a
// terminal, a line now and then elsewhere.
type progress struct {
	out  io.Writer // nil: quiet
	bar  *progressbar.ProgressBar
	tty  bool
	last time.Time

	prefix string // of what is shown
	now    string // what is shown
}

// permille is the bar's length: iterations take longer as scales grow, so it
// shows work, not iterations.
const permille = 1000

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 10 * time.Second

func newProgress(quiet bool, out io.Writer) *progress {
	if quiet {
		return &progress{}
	}
	f, ok := out.(*os.File)
	p := &progress{out: out, tty: ok && term.IsTerminal(int(f.Fd())), last: time.Now()}
	if p.tty {
		fmt.Fprint(p.out, "reading the pictures' features…\r")
	}
	return p
}

func (p *progress) update(n nst.Progress) {
	switch {
	case p.out == nil:
	case p.tty:
		if p.bar == nil {
			p.bar = progressbar.NewOptions(permille, progressbar.OptionSetWriter(p.out),
				progressbar.OptionSetPredictTime(true),
				progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(),
				progressbar.OptionThrottle(100*time.Millisecond))
		}
		p.now = fmt.Sprintf("%s%d px, %d/%d, cost %.4g", p.prefix, n.Scale, n.Iteration, n.Iterations, n.Total)
		p.bar.Describe(p.now)
		_ = p.bar.Set(int(n.Fraction * permille))
	case time.Since(p.last) >= lineEvery:
		p.last = time.Now()
		left := "?"
		if n.Fraction > 0 {
			seconds := n.Seconds / n.Fraction * (1 - n.Fraction)
			left = time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
		}
		fmt.Fprintf(p.out, "%s%d px, iteration %d of %d, cost %.4g, %s left\n", p.prefix, n.Scale, n.Iteration,
			n.Iterations, n.Total, left)
	}
}

// tile shows how far an evaluation is that takes several tiles.
func (p *progress) tile(done, all int) {
	switch {
	case p.out == nil || all == 1:
	case p.bar != nil:
		p.bar.Describe(fmt.Sprintf("%s, tile %d/%d", p.now, done, all))
	case p.tty:
		fmt.Fprintf(p.out, "reading the pictures' features, tile %d/%d…   \r", done, all)
	case time.Since(p.last) >= lineEvery:
		p.last = time.Now()
		fmt.Fprintf(p.out, "%stile %d of %d\n", p.prefix, done, all)
	}
}

func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// text is the summary as a line for people.
func (s summary) text() string {
	return fmt.Sprintf("%s: %d×%d, %d iterations in %.1f s (%.3g s each), cost %.4g, %s at most, %s %s",
		s.Output, s.Width, s.Height, s.Iterations, s.Seconds, s.SecondsPerIteration, s.Total,
		humanize.IBytes(uint64(s.PeakMemoryBytes)), s.Device, s.Precision)
}

// stages show how far a benchmark is: a bar on a terminal, a line for each workload elsewhere.
type stages struct {
	out  io.Writer
	bar  *progressbar.ProgressBar // nil: no terminal
	of   int
	last time.Time
}

func newStages(out io.Writer, of int) *stages {
	s := &stages{out: out, of: of, last: time.Now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.bar = progressbar.NewOptions(of*permille, progressbar.OptionSetWriter(out), progressbar.OptionSetWidth(30),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false))
	}
	return s
}

// update says what is being done of a workload, and how far that is (below 0: not known).
func (s *stages) update(i int, name, what string, fraction float64) {
	switch {
	case s.bar != nil:
		s.bar.Describe(fmt.Sprintf("%s: %s", name, what))
		_ = s.bar.Set(int((float64(i) + max(0, fraction)) * permille))
	case time.Since(s.last) >= lineEvery:
		s.last = time.Now()
		fmt.Fprintf(s.out, "nst: %d of %d, %s: %s\n", i+1, s.of, name, what)
	}
}

// finished says what came of a workload.
func (s *stages) finished(i int, name string, r bench.Result) {
	s.done()
	s.last = time.Now()
	fmt.Fprintf(s.out, "nst: %d of %d, %s, batch %d, %s: %.4g s an iteration\n", i+1, s.of, name, r.Batch, r.Optimizer,
		r.SecondsPerIteration)
	for _, warning := range r.Warnings {
		fmt.Fprintf(s.out, "nst: %s: doubtful: %s\n", name, warning)
	}
}

func (s *stages) done() {
	if s.bar != nil {
		_ = s.bar.Clear()
	}
}
