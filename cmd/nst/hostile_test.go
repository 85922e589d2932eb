package main

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// A file that was made to hurt is a picture like others, or a line and exit status 2.
func TestHostilePictures(t *testing.T) {
	paths, err := filepath.Glob("../../nst/picture/testdata/hostile/*")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 12)
	out := filepath.Join(t.TempDir(), "out.png")
	refused := 0
	for _, path := range paths {
		status, _, stderr := runNST(t, "stylize", path, nsttest.Style(t), "-o", out, "--size", "32", "--iterations",
			"0", "-q", "--device", "cpu", "--model", smallNetwork(t), "--content-layers", "relu2_1", "--style-layers",
			"relu2_1", "--memory-limit", "2G")
		if status != exitDone {
			assert.Equal(t, exitUsage, status, path)
			assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			assert.Contains(t, stderr, filepath.Base(path))
			refused++
		}
		switch filepath.Base(path) {
		case "jpeg-scans-1000.jpg", "tiff-tile-zstd.tif", "heic-lie.heic", "heic-sps-1.heic", "avif-lie.avif",
			"jxl-two.jxl", "tiff-bytes-512K.tif":
			assert.Equal(t, exitUsage, status, path)
		}
	}
	assert.Less(t, refused, len(paths), "some are pictures")
}

// program starts nst itself, and returns what it says on standard error.
func program(t *testing.T, args ...string) (p *exec.Cmd, said *strings.Builder) {
	p, said = exec.Command(os.Args[0], args...), &strings.Builder{}
	p.Stderr = said
	require.NoError(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p, said
}

// ended is the exit status of a program, within some time.
func ended(t *testing.T, p *exec.Cmd) int {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Wait()
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Minute):
		require.FailNow(t, "it does not end")
	}
	return p.ProcessState.ExitCode()
}

// A terminal that is closed costs no picture, and neither does one who reads no more.
func TestTerminalIsGone(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.png")
	args := []string{"stylize", nsttest.Content(t), nsttest.Style(t), "-o", out, "--size", "64", "--model",
		smallNetwork(t), "--checkpoint", out + ".state", "--log", out + ".jsonl"}
	hangups := make(chan os.Signal, 1) // under nohup the program would be told to ignore them
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	p, said := program(t, append(args, "--iterations", "1000000")...)
	require.Eventually(t, func() bool { return lines(out+".jsonl") > 3 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, p.Process.Signal(syscall.SIGHUP))
	assert.Equal(t, exitInterrupted, ended(t, p), said)
	assert.FileExists(t, out+".state")
	_, err := picture.Open(out)
	assert.NoError(t, err)

	require.NoError(t, os.Remove(out))
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	p = exec.Command(os.Args[0], append(args, "--iterations", "20")...)
	p.Stderr, p.Stdout = writer, writer
	require.NoError(t, p.Start())
	writer.Close()
	assert.Equal(t, exitDone, ended(t, p))
	_, err = picture.Open(out)
	assert.NoError(t, err)
}

// What never comes, or computes without end, ends with an interrupt, and a network by itself.
func TestNeverEnding(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	pipe, network := filepath.Join(folder, "pipe"), filepath.Join(folder, "loop.pt")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	m, err := torch.NewModule("Loop")
	require.NoError(t, err)
	require.NoError(t, m.Define("def forward(self, image: Tensor, layers: List[str]) -> List[Tensor]:\n    n = 1\n"+
		"    while n > 0:\n        n = n % 7 + 1\n    return [image]\n"))
	require.NoError(t, m.Save(network))
	m.Close()
	for name, args := range map[string][]string{
		"a pipe that nobody writes to": {pipe, nsttest.Style(t)},
		"a network":                    {nsttest.Content(t), nsttest.Style(t), "--model", network},
	} {
		p, said := program(t, append([]string{"stylize", "-q", "--size", "32", "-o", filepath.Join(folder, "out.png")},
			args...)...)
		time.Sleep(2 * time.Second)
		require.NoError(t, p.Process.Signal(os.Interrupt))
		assert.Equal(t, exitInterrupted, ended(t, p), "%s: %s", name, said)
		assert.Equal(t, "nst: interrupted\n", said.String(), name)
	}
	p, said := program(t, "stylize", "-q", "-o", filepath.Join(folder, "out.png"), nsttest.Content(t), nsttest.Style(t),
		"--model", network)
	assert.Equal(t, exitUsage, ended(t, p))
	assert.Contains(t, said.String(), "has not returned in 30 seconds")
	assert.Equal(t, 1, strings.Count(said.String(), "\n"), said)
}
