// Package process starts programs that end with this one, and take no more memory than they
// may.
package process

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

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
			limit := unix.Rlimit{Cur: memory, Max: memory}
			err = unix.Prlimit(c.Process.Pid, unix.RLIMIT_DATA, &limit, nil)
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
