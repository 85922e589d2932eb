package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// Peers are PyTorch's configurations by name, each a process of its own that runs
// scripts/bench_pytorch.py (see there for what is said): so each has its own
// memory, and nothing of another's in it.
type Peers map[string]*peer

// PeerResult is a peer's, of the work that it stands beside.
type PeerResult struct {
	SecondsPerIteration float64 `json:"seconds_per_iteration,omitempty"`
	Min                 float64 `json:"min,omitempty"`
	First               float64 `json:"first_iteration_seconds,omitempty"`
	Ahead               float64 `json:"seconds_ahead,omitempty"`
	PeakMemory          int64   `json:"peak_memory_bytes,omitempty"`
	// Ratio is nst's median over the peer's: below 1 nst is faster.
	Ratio float64 `json:"ratio,omitempty"`
	// PixelsPerPixel is how many a configuration evaluates for each of the picture's, where
	// it is not one.
	PixelsPerPixel float64 `json:"pixels_per_pixel,omitempty"`
	Burst          *Series `json:"burst,omitempty"`
	Error          string  `json:"error,omitempty"`

	seconds []float64
}

func (p *PeerResult) describe(own float64) {
	s := SeriesOf(p.seconds)
	p.Burst, p.SecondsPerIteration, p.Min, p.Ratio = &s, s.Median, s.Min, own/s.Median
}

// Names are those of the configurations, in order.
func (all Peers) Names() []string { return slices.Sorted(maps.Keys(all)) }

// PeerOptions say how peers are started.
type PeerOptions struct {
	Python, Script, Model string
	Content, Style        *picture.Picture
	Device                torch.Device
	Only                  []string // configurations; none: all but those that are asked for by name
	Folder                string   // for the pictures, which stays the caller's
	Stderr                io.Writer
}

type peer struct {
	command   *exec.Cmd
	input     io.WriteCloser
	output    *bufio.Scanner
	complaint strings.Builder
	greeting
}

// greeting is what a peer says first: the configurations that it knows, those that run only
// when they are asked for, and PyTorch's version.
type greeting struct {
	Configurations, More []string
	Torch                string
}

// StartPeers starts them, with the same network and pictures. The error is a UsageError if
// the Python, or what it lacks, is the reason.
func StartPeers(ctx context.Context, o PeerOptions) (Peers, error) {
	args := []string{o.Script, o.Model}
	for i, p := range []*picture.Picture{o.Content, o.Style} {
		path := filepath.Join(o.Folder, fmt.Sprintf("%d.png", i))
		if err := p.Save(path, picture.Encoding{}); err != nil {
			return nil, err
		}
		args = append(args, path)
	}
	args = append(args, "--device", string(o.Device))
	first, err := startPeer(ctx, o, args)
	if err != nil {
		return nil, err
	}
	wanted := o.Only
	if len(wanted) == 0 {
		wanted = first.Configurations
	}
	all := Peers{}
	for i, name := range wanted {
		if !slices.Contains(slices.Concat(first.Configurations, first.More), name) {
			err = usage("--peer: %q is unknown: known are %s", name,
				strings.Join(slices.Concat(first.Configurations, first.More), ", "))
		} else if all[name] = first; i > 0 {
			all[name], err = startPeer(ctx, o, args)
		}
		if err != nil {
			delete(all, name)
			if len(all) == 0 {
				first.close()
			}
			all.Close()
			return nil, err
		}
	}
	fmt.Fprintf(o.Stderr, "nst: beside PyTorch %s: %s (its torch.compile takes up to a minute at each size)\n",
		first.Torch, strings.Join(wanted, ", "))
	return all, nil
}

func startPeer(ctx context.Context, o PeerOptions, args []string) (p *peer, err error) {
	p = &peer{command: exec.CommandContext(ctx, o.Python, args...)}
	// What torch.compile kept of an earlier run is not used: it does not notice that the
	// processor is another one, and then writes over its own memory (seen with 2.15).
	p.command.Env = append(os.Environ(), "TORCHINDUCTOR_CACHE_DIR="+filepath.Join(o.Folder, "inductor"))
	p.command.Stderr = &p.complaint
	if p.input, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, usage("--python: %s cannot be run: %w", o.Python, err)
	}
	p.output = bufio.NewScanner(output)
	p.output.Buffer(nil, 1<<24)
	if err := p.read(&p.greeting); err != nil {
		p.close()
		return nil, usage("--peers: %s cannot run %s (%w); a Python with torch, numpy and Pillow will do: "+
			"--python PATH", o.Python, filepath.Base(args[0]), err)
	}
	return p, nil
}

// read is the answer to what was asked; without one, how the process ended and its last words.
func (p *peer) read(answer any) error {
	if p.output.Scan() {
		return json.Unmarshal(p.output.Bytes(), answer)
	}
	if p.close(); p.output.Err() != nil {
		return p.output.Err()
	}
	words := strings.TrimSpace(p.complaint.String())
	if words == "" {
		return fmt.Errorf("it ended (%s)", p.command.ProcessState)
	}
	return fmt.Errorf("it ended (%s): %s", p.command.ProcessState, words[strings.LastIndex(words, "\n")+1:])
}

// run has a configuration run n iterations; its first ever at this size comes
// before and apart. The seconds of each are added to r's.
func (p *peer) run(name string, size, batch, n int, r *PeerResult) {
	if r.First == 0 {
		if first := p.ask(name, size, batch, 1, false, r); len(first) == 1 {
			r.First = first[0]
		}
	}
	if r.Error == "" {
		r.seconds = append(r.seconds, p.ask(name, size, batch, n, false, r)...)
	}
}

// ahead has it run n iterations without waiting for each.
func (p *peer) ahead(name string, size, batch, n int, r *PeerResult) {
	if seconds := p.ask(name, size, batch, n, true, r); len(seconds) == 1 {
		r.Ahead = seconds[0]
	}
}

func (p *peer) ask(name string, size, batch, n int, ahead bool, r *PeerResult) (seconds []float64) {
	question, err := json.Marshal(map[string]any{"configuration": name, "size": size, "batch": batch, "iterations": n,
		"ahead": ahead})
	var answer struct {
		Seconds    []float64
		PeakMemory int64   `json:"peak_memory_bytes"`
		Pixels     float64 `json:"pixels_per_pixel"`
		Error      string
	}
	if err == nil {
		// That nobody reads any more, the answer tells, with why.
		_, _ = p.input.Write(append(question, '\n'))
		err = p.read(&answer)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	r.Error, r.PeakMemory, r.PixelsPerPixel = answer.Error, answer.PeakMemory, answer.Pixels
	return answer.Seconds
}

// close has the process end, which it does by itself when nothing more is asked; or it is ended.
func (p *peer) close() {
	p.input.Close()
	late := time.AfterFunc(5*time.Second, func() { _ = p.command.Process.Kill() })
	defer late.Stop()
	_ = p.command.Wait()
}

// Close ends them.
func (all Peers) Close() {
	for _, p := range all {
		p.close()
	}
}
