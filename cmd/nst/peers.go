package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// peers are PyTorch's configurations, each a process of its own that runs
// scripts/bench_pytorch.py (see there for what is said): so each has its own
// memory, and nothing of another's in it.
type peers map[string]*peer

type peer struct {
	command        *exec.Cmd
	input          io.WriteCloser
	output         *bufio.Scanner
	complaint      strings.Builder
	configurations []string // that it knows
	torch          string
}

// startPeers starts them with the same network and pictures, which it writes to
// folder.
func (o *benchOptions) startPeers(ctx context.Context, engine *nst.Engine, content, style *picture.Picture,
	folder string, stderr io.Writer) (peers, error) {
	script, err := o.peerScript()
	if err != nil {
		return nil, err
	}
	model := o.model
	if model == "" {
		if model, err = defaultModel(); err != nil {
			return nil, err
		}
	}
	args := []string{script, model}
	for i, p := range []*picture.Picture{content, style} {
		path := filepath.Join(folder, fmt.Sprintf("%d.png", i))
		if err := p.Save(path, picture.Encoding{}); err != nil {
			return nil, err
		}
		args = append(args, path)
	}
	args = append(args, "--device", string(engine.Device()))
	first, err := o.startPeer(ctx, args)
	if err != nil {
		return nil, err
	}
	all := peers{}
	for i, name := range first.configurations {
		if all[name] = first; i == 0 {
			continue
		}
		if all[name], err = o.startPeer(ctx, args); err != nil {
			all.close()
			return nil, err
		}
	}
	fmt.Fprintf(stderr, "nst: beside PyTorch %s: %s (its torch.compile takes up to a minute at each size)\n",
		first.torch, strings.Join(first.configurations, ", "))
	return all, nil
}

func (o *benchOptions) startPeer(ctx context.Context, args []string) (p *peer, err error) {
	p = &peer{command: exec.CommandContext(ctx, o.python, args...)}
	p.command.Stderr = &p.complaint
	if p.input, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, usage("--python: %s cannot be run: %w", o.python, err)
	}
	p.output = bufio.NewScanner(output)
	p.output.Buffer(nil, 1<<24)
	var hello struct {
		Configurations []string
		Torch          string
	}
	if err := p.read(&hello); err != nil {
		p.close()
		lines := strings.Split(strings.TrimSpace(p.complaint.String()), "\n")
		return nil, usage("--peers: %s cannot run %s (%s); a Python with torch, numpy and Pillow will do: "+
			"--python PATH",
			o.python, filepath.Base(args[0]), lines[len(lines)-1])
	}
	p.configurations, p.torch = hello.Configurations, hello.Torch
	return p, nil
}

// peerScript finds scripts/bench_pytorch.py: the program is in build/bin.
func (o *benchOptions) peerScript() (string, error) {
	if o.script != "" {
		return o.script, nil
	}
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

func (p *peer) read(answer any) error {
	if !p.output.Scan() {
		return errors.Join(errors.New("it ended"), p.output.Err())
	}
	return json.Unmarshal(p.output.Bytes(), answer)
}

// run has a configuration run n iterations; its first ever at this size comes
// before and apart. The seconds of each are added to r's.
func (p *peer) run(name string, size, batch, n int, r *peerResult) {
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
func (p *peer) ahead(name string, size, batch, n int, r *peerResult) {
	if seconds := p.ask(name, size, batch, n, true, r); len(seconds) == 1 {
		r.Ahead = seconds[0]
	}
}

func (p *peer) ask(name string, size, batch, n int, ahead bool, r *peerResult) (seconds []float64) {
	question, err := json.Marshal(map[string]any{"configuration": name, "size": size, "batch": batch, "iterations": n,
		"ahead": ahead})
	if err == nil {
		_, err = p.input.Write(append(question, '\n'))
	}
	var answer struct {
		Seconds    []float64
		PeakMemory int64 `json:"peak_memory_bytes"`
		Error      string
	}
	if err == nil {
		err = p.read(&answer)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	r.Error, r.PeakMemory = answer.Error, answer.PeakMemory
	return answer.Seconds
}

func (p *peer) close() {
	p.input.Close()
	_ = p.command.Wait()
}

func (all peers) close() {
	for _, p := range all {
		p.close()
	}
}
