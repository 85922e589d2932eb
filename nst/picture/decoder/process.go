package decoder

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed9bb5c928/nst/nst/internal/process"
)

// child is a process that decodes, as its parent sees it.
type child struct {
	command  *exec.Cmd
	conn     *net.UnixConn
	from     *bufio.Reader
	said     *process.Said
	slowness int
	bound    int64 // bytes that the file which it decodes may take for what it is
	spent    bool  // it has had enough
	timer    *time.Timer
	late     atomic.Bool // it was ended because time was over
	ended    chan struct{}
	once     sync.Once
}

// variable is set in the environment of children.
const variable = "NST_DECODES"

// headerTime is how long a child may take, by the clock, to start and to read a header.
const headerTime = 60 * time.Second

// start starts a child.
func start() (*child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "child"), os.NewFile(uintptr(pair[1]), "parent")
	defer mine.Close()
	defer theirs.Close()
	conn, err := net.FileConn(mine)
	if err != nil {
		return nil, err
	}
	c := &child{conn: conn.(*net.UnixConn), said: &process.Said{}, ended: make(chan struct{})}
	c.from = bufio.NewReaderSize(c.conn, 1<<20)
	if c.command, err = process.Self(variable); err != nil {
		c.conn.Close()
		return nil, err
	}
	c.command.Args = []string{"nst: decodes"}
	c.command.Stderr = c.said
	c.command.ExtraFiles = []*os.File{theirs}
	wait, err := process.Start(c.command, 0)
	if err != nil {
		c.conn.Close()
		return nil, err
	}
	go func() {
		_ = wait()
		close(c.ended)
	}()
	return c, nil
}

// alive says whether a child that waits is still there.
func (c *child) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// kill ends the child, whatever it does.
func (c *child) kill() { _ = c.command.Process.Kill() }

// end ends it, and returns when it is gone.
func (c *child) end() {
	c.once.Do(func() {
		c.kill()
		c.limit(0)
		<-c.ended
		c.conn.Close()
	})
}

// limit ends the child when so much time has passed; 0: never.
func (c *child) limit(d time.Duration) {
	if c.timer != nil {
		c.timer.Stop()
	}
	if d > 0 {
		c.timer = time.AfterFunc(d, func() {
			c.late.Store(true)
			c.kill()
		})
	}
}

// send sends an order, with the file that it is about.
func (c *child) send(o order, file *os.File) error {
	c.limit(headerTime)
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, _, err = c.conn.WriteMsgUnix(append(line, '\n'), unix.UnixRights(int(file.Fd())), nil)
	runtime.KeepAlive(file)
	return err
}

// receive reads an answer.
func (c *child) receive() (a answer, err error) {
	line, err := readLine(c.from)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(line, &a)
}

// How a child ended.

func (c *child) status() syscall.WaitStatus {
	<-c.ended
	status, _ := c.command.ProcessState.Sys().(syscall.WaitStatus)
	return status
}

// state is how it ended, in a line.
func (c *child) state() string { return cmp.Or(c.said.FirstLine(), c.command.ProcessState.String()) }

// inMemory is a file that is in no folder.
func inMemory(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("picture", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("no room for a picture: %w", err)
	}
	file := os.NewFile(uintptr(fd), "picture")
	if _, err := file.Write(data); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
