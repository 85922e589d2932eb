// Package decoder decodes picture files in child processes, so that no file can hurt the
// program that asks for it: what a child dies of, runs out of or computes too long at is the
// error of one file. The kernel keeps a child's limits of memory and of the processor's time,
// and refuses it files, programs and the network; one whose parent ends is ended.
//
// A child is this program itself, started again: see init in child.go. So a program that
// imports this package needs nothing else, and its tests have real children.
package decoder

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// Config says how a Pool works. The zero value is the default.
type Config struct {
	// Children is how many files may be decoded at once; 0: as many as there are processors,
	// and two at least.
	Children int
	// Slowness is how many times what a file may take of a processor (picture.Info.Time) a
	// child may; 0 means 5, for machines that are slower or busy. Four times that long it may
	// take by the clock.
	Slowness int
}

// Pool decodes files in children, some of which it keeps for the next ones. It is safe for
// concurrent use.
type Pool struct {
	config Config
	turns  *turns

	mutex  sync.Mutex
	idle   []*child
	closed bool
}

// New returns a pool, which has no children yet.
func New(c Config) *Pool {
	if c.Children == 0 {
		c.Children = max(2, runtime.GOMAXPROCS(0))
	}
	if c.Slowness == 0 {
		c.Slowness = 5
	}
	return &Pool{config: c, turns: newTurns(c.Children)}
}

// ErrDecoder matches errors of what decodes and not of a file: no more processes or threads may be
// started, or they are killed. Later it may succeed.
var ErrDecoder = errors.New("pictures cannot be decoded at the moment")

// Request is a file to look at or to decode.
type Request struct {
	// Data is the file's contents; nil: they are File's, Size bytes from At on. A File is
	// read by the child alone.
	Data     []byte
	File     *os.File
	At, Size int64
	// Memory is how many bytes decoding may take; 0: as many as the file says that it takes.
	Memory int64
	// Client is for whom it is: those that wait have their turns one client after the other,
	// and one has half of the children at most.
	Client string
}

// Inspect reads a file's header: see picture.Inspect. With a mind to decode, which is given so
// many bytes of memory, a file that takes no more is decoded too, to see whether it can be; 0:
// it is not. The error matches picture.ErrPicture, if it is the file's, and ErrDecoder, if it is that
// of what decodes.
func (p *Pool) Inspect(ctx context.Context, r Request, decode int64) (info picture.Info, err error) {
	err = p.with(ctx, r, func(c *child) error {
		info, err = c.inspect(r, decode)
		return err
	})
	return info, err
}

// Decode decodes a file: see picture.DecodeWithin. The error is Inspect's.
func (p *Pool) Decode(ctx context.Context, r Request) (picked *picture.Picture, err error) {
	var raw *picture.Raw
	err = p.with(ctx, r, func(c *child) error {
		raw, err = c.decode(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return raw.Picture(), nil
}

// Open is Decode of a file that has a name; "-" is standard input. The error says the name.
func (p *Pool) Open(ctx context.Context, path string, memory int64) (made *picture.Picture, err error) {
	err = p.named(ctx, path, func(r Request) error {
		r.Memory = memory
		made, err = p.Decode(ctx, r)
		return err
	})
	return made, err
}

// Comment is picture.Comment.
func (p *Pool) Comment(ctx context.Context, path string) (comment string, err error) {
	err = p.named(ctx, path, func(r Request) error {
		info, err := p.Inspect(ctx, r, 0)
		comment = info.Comment
		return err
	})
	return comment, err
}

// named does something with a file that has a name, which it adds to the error.
func (p *Pool) named(ctx context.Context, path string, do func(Request) error) error {
	var r Request
	var err error
	if info, missing := os.Stat(path); path != "-" && missing == nil && info.Mode().IsRegular() {
		r.Size = info.Size()
		if r.File, err = picture.OpenFile(path); err == nil {
			defer r.File.Close()
		}
	} else { // a pipe, or nothing
		r.Data, err = readPipe(ctx, path)
	}
	if err != nil {
		return err
	}
	if err = do(r); errors.Is(err, picture.ErrPicture) {
		return fmt.Errorf("%w: %s %w", picture.ErrPicture, picture.Named(path), err)
	}
	return err
}

// readPipe is picture.ReadFile of what may never come.
func readPipe(ctx context.Context, path string) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		data, err := picture.ReadFile(path)
		read <- result{data, err}
	}()
	select {
	case r := <-read:
		return r.data, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Prepare starts a child, if none waits, so that the first file does not wait for it.
func (p *Pool) Prepare() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.closed || len(p.idle) > 0 {
		return
	}
	if c, err := start(); err == nil { // else who decodes is told
		p.wait(c)
	}
}

// idleTime is how long a child waits for another file: it has the memory of a small program.
const idleTime = 30 * time.Second

// wait has a child wait for a file, and end when none comes. The pool is locked.
func (p *Pool) wait(c *child) {
	p.idle = append(p.idle, c)
	c.timer = time.AfterFunc(idleTime, func() {
		p.mutex.Lock()
		at := slices.Index(p.idle, c)
		if at >= 0 {
			p.idle = slices.Delete(p.idle, at, at+1)
		}
		p.mutex.Unlock()
		if at >= 0 {
			c.end()
		}
	})
}

// Close ends the children that wait. What is being decoded goes on.
func (p *Pool) Close() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.end()
	}
	p.idle = nil
}

// errKilled is the error of a child that somebody has ended, or the kernel for want of memory or of
// threads.
var errKilled = fmt.Errorf("%w: the process that decodes was ended, twice: it was killed, or the machine's memory or "+
	"the processes that may be started have run out", ErrDecoder)

// with has a child do something, when it is the client's turn; another child, if the first is
// killed.
func (p *Pool) with(ctx context.Context, r Request, do func(*child) error) error {
	leave, err := p.turns.wait(ctx, r.Client)
	if err != nil {
		return err
	}
	defer leave()
	if err = p.once(ctx, r, do); errors.Is(err, errKilled) {
		err = p.once(ctx, r, do)
	}
	return err
}

// once has one child do something. It is ended if that was too much, or the client leaves.
func (p *Pool) once(ctx context.Context, r Request, do func(*child) error) error {
	c, err := p.take()
	if err != nil {
		return fmt.Errorf("%w: a process for it cannot be started: %w", ErrDecoder, err)
	}
	c.slowness = p.config.Slowness
	left := context.AfterFunc(ctx, c.kill)
	err = do(c)
	c.limit(0)
	if whole := left(); !whole { // it is being ended
		c.end()
		return context.Cause(ctx)
	}
	if errors.As(err, new(*death)) {
		c.end()
		if reason := c.reason(r.Memory); reason != nil {
			return reason
		}
		return errKilled
	}
	if c.spent || c.late.Load() {
		c.end()
	} else {
		p.keep(c)
	}
	return err
}

// take returns a child that waits, or a new one.
func (p *Pool) take() (*child, error) {
	p.mutex.Lock()
	for n := len(p.idle); n > 0; n = len(p.idle) {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		if c.timer.Stop() && !c.late.Load() && c.alive() {
			p.mutex.Unlock()
			return c, nil
		}
		c.end()
	}
	p.mutex.Unlock()
	return start()
}

// keep has a child wait for the next file.
func (p *Pool) keep(c *child) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.closed || len(p.idle) >= p.config.Children {
		c.end()
		return
	}
	p.wait(c)
}

// failure is the error of a file, which completes "PICTURE …".
type failure string

func (f failure) Error() string        { return string(f) }
func (f failure) Is(target error) bool { return target == picture.ErrPicture }

// death is the error of a child that answers no more.
type death struct{ error }

// inspect and decode ask the child.

func (c *child) inspect(r Request, decode int64) (info picture.Info, err error) {
	a, err := c.ask(r, order{Decode: decode > 0, Memory: decode, Glance: true})
	if err != nil {
		return info, err
	}
	return a.Info, nil
}

func (c *child) decode(r Request) (*picture.Raw, error) {
	a, err := c.ask(r, order{Decode: true, Memory: r.Memory})
	if err != nil {
		return nil, err
	}
	raw, err := picture.ReadRaw(c.from, a.Info.Memory)
	if err != nil {
		return nil, &death{err}
	}
	return raw, nil
}

// ask sends an order, and what it is about, and waits for the first part of the answer.
func (c *child) ask(r Request, o order) (a answer, err error) {
	file := r.File
	o.At, o.Size, o.Slowness = r.At, r.Size, c.slowness
	c.bound = headerMemory(cmp.Or(r.Size, int64(len(r.Data))))
	if file == nil {
		if file, err = inMemory(r.Data); err != nil {
			return a, fmt.Errorf("%w: %w", ErrDecoder, err)
		}
		defer file.Close()
		o.At, o.Size = 0, int64(len(r.Data))
	}
	if o.Memory == 0 {
		o.Memory = math.MaxInt64
	}
	if err := c.send(o, file); err != nil {
		return a, &death{err}
	}
	for { // first what the header says, from which on the time is known
		if a, err = c.receive(); err != nil {
			return a, &death{err}
		}
		if a.Error != "" {
			c.spent = a.Spent
			return a, failure(a.Error)
		}
		if a.Last {
			c.spent = a.Spent
			return a, nil
		}
		c.bound = 2 * a.Info.Memory
		c.limit(a.Info.Time * time.Duration(4*c.slowness))
	}
}

// reason is what a child died of; nil: it was killed, or had too few threads.
func (c *child) reason(memory int64) error {
	status := c.status()
	switch {
	case c.late.Load(), status.Signaled() && status.Signal() == syscall.SIGXCPU:
		return failure("takes too long to decode, which it may have been made for: save it anew")
	case c.said.LackedThreads():
		return nil
	case c.said.LackedMemory():
		if memory > 0 && memory <= c.bound {
			return failure(fmt.Sprintf("takes more memory to decode than may be used (%s): a higher limit will do if "+
				"there is more, or a smaller copy of the file", humanize.IBytes(uint64(memory))))
		}
		return failure("takes more memory to decode than its size wants, which it may have been made for: save it anew")
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		return nil
	case status.Exited() && status.ExitStatus() == setUp:
		return fmt.Errorf("%w: the process for it cannot be prepared: %s", ErrDecoder, c.state())
	}
	return failure("ended the process that decodes it (" + c.state() + "): save it anew")
}

var errBroken = errors.New("a child's answer cannot be read")

// readLine reads a line of at most a buffer's length.
func readLine(from *bufio.Reader) ([]byte, error) {
	line, err := from.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, errBroken
	}
	if err != nil {
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	return line, nil
}
