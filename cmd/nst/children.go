package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// natsVariable names the environment's variable for --nats of a child, whose command
// line others can read.
const natsVariable = "NST_NATS"

// exitChild is exitUsage of a child: Go's own status of a program that panicked is 2 too.
const exitChild = 64

// Pauses before a worker that ended is started again: they grow as long as workers do
// not live.
const (
	firstPause = time.Second
	longPause  = 30 * time.Second
	lived      = time.Minute // one that ran so long was well
)

// children are workers in processes of their own, started again when they end.
type children struct {
	args   []string
	nats   string
	log    *slog.Logger
	stderr io.Writer
}

// errChild is the error of a worker that refuses its flags, device or network.
var errChild = usageError{errors.New("no worker can work: see its error above")}

// run keeps one worker alive until ctx is done, which the worker is told by SIGTERM. It
// fails if the first one ends at once for wrong usage or unusable input.
func (c children) run(ctx context.Context) error {
	// The kernel ends a child with the thread that made it, if this process is killed.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pause := firstPause
	for first := true; ctx.Err() == nil; first = false {
		began := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var exit *exec.ExitError
		if first && errors.As(err, &exit) && exit.ExitCode() == exitChild {
			return errChild
		}
		if time.Since(began) > lived {
			pause = firstPause
		}
		c.log.Error("a worker ended; it is started again", "worker", strings.Join(c.args, " "), "why", fmt.Sprint(err),
			"pause", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
	}
	return nil
}

func (c children) once(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, c.args...)
	cmd.Env = append(os.Environ(), natsVariable+"="+c.nats)
	cmd.Stderr = c.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true} // Ctrl-C is told by us
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second // a job is kept meanwhile
	return cmd.Run()
}

// locked is a writer that several processes' output may go to.
type locked struct {
	mutex sync.Mutex
	w     io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.w.Write(p)
}
