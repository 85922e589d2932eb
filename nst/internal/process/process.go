// Package process starts programs that end with this one, and take no more memory than they
// may.
package process

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Self is this program, started again for what a variable in its environment names: its init
// sees that before main does. It gets nothing else of the terminal or the folder that this one is
// in, and shows no stacks.
func Self(variable string) (*exec.Cmd, error) {
	program := "/proc/self/exe" // whatever was installed in its place since
	if _, err := os.Stat(program); err != nil {
		if program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	c := exec.Command(program)
	for _, of := range os.Environ() { // what a stranger's file could take out of it is no secret
		if strings.HasPrefix(of, "LD_") || strings.HasPrefix(of, "GO") {
			c.Env = append(c.Env, of)
		}
	}
	c.Env = append(c.Env, variable+"=1", "GOTRACEBACK=none")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is told by us
	return c, nil
}

// Said keeps the beginning of what a program says.
type Said struct {
	mutex sync.Mutex
	data  []byte
}

// Write keeps the first kilobytes.
func (s *Said) Write(p []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.data = append(s.data, p[:min(len(p), 4096-len(s.data))]...)
	return len(p), nil
}

// String is what was kept.
func (s *Said) String() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return string(bytes.ToValidUTF8(s.data, []byte("?")))
}

// LackedMemory says whether Go's runtime said so.
func (s *Said) LackedMemory() bool {
	return s.any("out of memory", "cannot allocate", "failed to reserve", "makeslice: len out of range")
}

// LackedThreads says whether it could start no thread, of which a user, or a container, may have
// only so many.
func (s *Said) LackedThreads() bool {
	return s.any("failed to create new OS thread", "pthread_create failed")
}

func (s *Said) any(texts ...string) bool {
	said := s.String()
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(said, text) })
}

// FirstLine is the first line; empty: nothing was said.
func (s *Said) FirstLine() string {
	line, _, _ := strings.Cut(s.String(), "\n")
	return line
}

// Start starts a command, which the kernel kills if this program ends in any way. It may have so
// many bytes of memory of its own; 0: as many as there are. wait is to be called in place of
// exec.Cmd.Wait, as often as wanted.
func Start(c *exec.Cmd, memory uint64) (wait func() error, err error) {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, wanted, ended := make(chan error), make(chan struct{}), make(chan struct{})
	var result error
	go func() {
		// The kernel takes the end of the thread that has started a program for the parent's.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := c.Start()
		if err == nil && memory > 0 {
			var limit unix.Rlimit
			err = unix.Prlimit(c.Process.Pid, unix.RLIMIT_DATA, nil, &limit)
			if limit.Cur = min(memory, limit.Cur); err == nil {
				limit.Max = limit.Cur
				err = unix.Prlimit(c.Process.Pid, unix.RLIMIT_DATA, &limit, nil)
			}
			if errors.Is(err, unix.ESRCH) { // it has ended already
				err = nil
			}
			if err != nil {
				_ = c.Process.Kill()
				_ = c.Wait()
			}
		}
		if started <- err; err == nil {
			<-wanted
			result = c.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	want := sync.OnceFunc(func() { close(wanted) })
	return func() error { want(); <-ended; return result }, nil
}
