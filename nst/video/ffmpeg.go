package video

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/seed9bb5c928/nst/nst/internal/process"
)

// ErrClip is matched (errors.Is) by the error of a clip that cannot be read.
var ErrClip = errors.New("unusable clip")

// ErrTool is matched by the error of ffmpeg or ffprobe that is missing, or cannot do what is
// asked of it.
var ErrTool = errors.New("ffmpeg")

// Installed says whether ffmpeg and ffprobe are; the error matches ErrTool.
func Installed() error {
	for _, name := range []string{"ffmpeg", "ffprobe"} {
		if _, err := tool(name); err != nil {
			return err
		}
	}
	return nil
}

// tool finds one of ffmpeg's programs.
func tool(name string) (path string, err error) {
	if path, err = exec.LookPath(name); err != nil {
		err = fmt.Errorf("%w: %s is not installed: install ffmpeg (5.1 or later), which brings it", ErrTool, name)
	}
	return path, err
}

// tooling is one of ffmpeg's programs, which reads what strangers may have made.
type tooling struct {
	*exec.Cmd
	said   *lastLines
	memory uint64
	wait   func() error
}

// Memory that ffmpeg's programs may take: for themselves, and for each pixel of a clip's frames,
// of which they hold some dozens.
const (
	toolMemory  = 2 << 30
	pixelMemory = 400
)

// start starts it. The error matches ErrTool.
func (t *tooling) start() (err error) {
	if t.wait, err = process.Start(t.Cmd, t.memory); err != nil {
		return fmt.Errorf("%w cannot be started: %w", ErrTool, err)
	}
	return nil
}

// command is one of ffmpeg's programs, for frames of so many pixels. It ends with ctx and with
// this program, and is killed if it does not heed being told.
func command(ctx context.Context, pixels int, name string, args ...string) (*tooling, error) {
	path, err := tool(name)
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, path, args...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 5 * time.Second
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is told by us
	said := &lastLines{}
	c.Stderr = said
	return &tooling{Cmd: c, said: said, memory: toolMemory + pixelMemory*uint64(pixels)}, nil
}

// lastLines keeps the end of what a program says.
type lastLines struct{ data []byte }

const keptOfLines = 4096

// Write keeps the end.
func (l *lastLines) Write(p []byte) (int, error) {
	l.data = append(l.data, p...)
	if over := len(l.data) - keptOfLines; over > 0 {
		l.data = l.data[over:]
	}
	return len(p), nil
}

// last is the last line that says something, without the part of ffmpeg that it names.
func (l *lastLines) last() string {
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(l.data, []byte("?")))), "\n")
	text := strings.TrimSpace(lines[len(lines)-1])
	if strings.HasPrefix(text, "[") {
		if _, rest, ok := strings.Cut(text, "] "); ok {
			text = rest
		}
	}
	return text
}

// explain adds to how a program ended what it said last.
func (l *lastLines) explain(err error) string {
	if text := l.last(); text != "" {
		return text
	}
	return err.Error()
}

// input is a clip's name as ffmpeg's programs are to understand it: a file, whatever
// characters are in its name.
func input(path string) string { return "file:" + path }

// drained reads what is left, so that a program which writes can end.
func drained(r io.Reader) { _, _ = io.Copy(io.Discard, r) }
