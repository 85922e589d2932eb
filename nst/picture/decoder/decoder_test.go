package decoder

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// Children of these tests do what a file could make a decoder do, if the environment says so.
var _ = func() bool {
	var kept [][]byte
	misdeeds := map[string]func() error{
		"hungry": func() error {
			for {
				kept = append(kept, bytes.Repeat([]byte{1}, 16<<20))
			}
		},
		"greedy": func() error { kept = append(kept, make([]byte, 1<<40)); return nil },
		"busy": func() error {
			for {
				runtime.Gosched()
			}
		},
		"lazy":    func() error { time.Sleep(time.Hour); return nil },
		"panic":   func() error { go func() { panic("of a goroutine") }(); time.Sleep(time.Second); return nil },
		"deep":    func() error { return deep(1) },
		"exit":    func() error { os.Exit(0); return nil },
		"network": func() error { _, err := net.Dial("tcp", "127.0.0.1:1"); return denied(err) },
		"program": func() error { return denied(exec.Command("/bin/true").Run()) },
		"file":    func() error { _, err := os.ReadFile("/etc/hostname"); return denied(err) },
		"write":   func() error { return denied(os.WriteFile("/tmp/nst-decoder-test", nil, 0o600)) },
	}
	if misdeed := misdeeds[os.Getenv("GO_TEST_MISDEED")]; misdeed != nil {
		decodeRaw = func(*picture.Header, int64) (*picture.Raw, error) {
			return nil, errors.Join(misdeed(), errors.New("but is decoded"))
		}
	}
	return true
}()

// deep uses up the stack.
func deep(n int) error {
	if n < 0 {
		return nil
	}
	var room [1 << 10]byte
	room[n%len(room)] = 1
	return errors.Join(deep(n+1), errors.New(string(room[:])))
}

// denied is nil where something was refused by the system.
func denied(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return nil
	}
	return errors.New("is not held back: " + err.Error())
}

func read(t testing.TB, name string) []byte {
	data, err := os.ReadFile(filepath.Join("../testdata", name))
	require.NoError(t, err)
	return data
}

// What a child makes of a file is what picture makes of it.
func TestDecode(t *testing.T) {
	p := New(Config{})
	defer p.Close()
	paths, err := filepath.Glob("../testdata/kinds/*.*")
	require.NoError(t, err)
	hostile, err := filepath.Glob("../testdata/hostile/*.*")
	require.NoError(t, err)
	for _, path := range append(paths, hostile...) {
		want, wrong := picture.Open(path)
		got, err := p.Open(t.Context(), path, 0)
		if wrong != nil {
			require.ErrorIs(t, err, picture.ErrPicture)
			assert.EqualError(t, err, wrong.Error())
			continue
		}
		require.NoError(t, err, path)
		assert.True(t, assert.ObjectsAreEqual(want, got), path)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		info, err := p.Inspect(t.Context(), Request{Data: data}, 1<<30)
		require.NoError(t, err)
		assert.Equal(t, [2]int{want.Width, want.Height}, [2]int{info.Width, info.Height})
	}
	_, err = p.Open(t.Context(), "../testdata/none.png", 0)
	require.ErrorIs(t, err, picture.ErrPicture)
	assert.ErrorContains(t, err, "none.png cannot be opened: no such file")
	_, err = p.Decode(t.Context(), Request{})
	require.ErrorIs(t, err, picture.ErrPicture)
	assert.EqualError(t, err, "is empty")
	_, err = p.Open(t.Context(), "../testdata/kinds/png_srgb.png", 1000)
	assert.ErrorContains(t, err, "1000 B may be used")
}

// A part of a file is decoded where it lies.
func TestDecodePart(t *testing.T) {
	p := New(Config{})
	defer p.Close()
	data := read(t, "kinds/png_srgb.png")
	path := filepath.Join(t.TempDir(), "several")
	require.NoError(t, os.WriteFile(path, append(append(make([]byte, 5000), data...), 1, 2, 3), 0o600))
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	got, err := p.Decode(t.Context(), Request{File: file, At: 5000, Size: int64(len(data))})
	require.NoError(t, err)
	want, err := picture.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

// Whatever a decoder does, it is the error of one file, in one line, and the next one is
// decoded.
func TestMisdeeds(t *testing.T) {
	data := read(t, "kinds/png_srgb.png")
	for misdeed, part := range map[string]string{
		"hungry": "takes more memory to decode", "greedy": "takes more memory to decode",
		"busy": "takes too long to decode", "lazy": "takes too long to decode", "panic": "of a goroutine",
		"deep": "takes more memory to decode", "exit": "ended the process", "network": "but is decoded",
		"program": "but is decoded", "file": "but is decoded", "write": "but is decoded",
	} {
		t.Run(misdeed, func(t *testing.T) {
			t.Setenv("GO_TEST_MISDEED", misdeed)
			p := New(Config{Slowness: 1})
			defer p.Close()
			began := time.Now()
			_, err := p.Decode(t.Context(), Request{Data: data, Memory: 64 << 20})
			require.ErrorIs(t, err, picture.ErrPicture)
			assert.ErrorContains(t, err, part)
			assert.NotContains(t, err.Error(), "\n")
			assert.Less(t, time.Since(began), time.Minute)
			t.Setenv("GO_TEST_MISDEED", "")
			p.Close()
			p = New(Config{})
			defer p.Close()
			_, err = p.Decode(t.Context(), Request{Data: data})
			assert.NoError(t, err)
		})
	}
}

// children are this process's.
func children(t *testing.T) (pids []int) {
	all, err := procfs.AllProcs()
	require.NoError(t, err)
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && stat.PPID == os.Getpid() && stat.State != "Z" {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// A child that is killed costs nothing the first time, and the second time it is no file's fault;
// one whose client leaves is ended.
func TestKilled(t *testing.T) {
	t.Setenv("GO_TEST_MISDEED", "lazy")
	data := read(t, "kinds/png_srgb.png")
	p := New(Config{})
	defer p.Close()
	first := make(chan error)
	go func() {
		_, err := p.Decode(context.Background(), Request{Data: data})
		first <- err
	}()
	var pids []int
	require.Eventually(t, func() bool { pids = children(t); return len(pids) == 1 }, time.Minute, time.Millisecond)
	t.Setenv("GO_TEST_MISDEED", "") // of the next one
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
	require.NoError(t, <-first)
	p.Close()
	t.Setenv("GO_TEST_MISDEED", "lazy")
	p = New(Config{})
	for range 2 {
		failed := make(chan error)
		go func() {
			_, err := p.Decode(context.Background(), Request{Data: data})
			failed <- err
		}()
		kills := 0
		for err := error(nil); err == nil; {
			select {
			case err = <-failed:
				require.ErrorIs(t, err, ErrDecoder)
				assert.NotErrorIs(t, err, picture.ErrPicture)
				assert.ErrorContains(t, err, "it was killed")
			case <-time.After(20 * time.Millisecond):
				for _, pid := range children(t) {
					if syscall.Kill(pid, syscall.SIGKILL) == nil {
						kills++
					}
				}
			}
		}
		assert.GreaterOrEqual(t, kills, 2)
	}
	gone := errors.New("the client has left")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(300*time.Millisecond, func() { cancel(gone) })
	began := time.Now()
	_, err := p.Decode(ctx, Request{Data: data})
	require.ErrorIs(t, err, gone)
	assert.Less(t, time.Since(began), 10*time.Second)
	assert.Empty(t, children(t))
}

// Those that wait have their turns one client after the other, and one client leaves room.
func TestTurns(t *testing.T) {
	turns := newTurns(4)
	var leaves []func()
	for range 2 {
		leave, err := turns.wait(t.Context(), "busy")
		require.NoError(t, err)
		leaves = append(leaves, leave)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := turns.wait(short, "busy")
	require.ErrorIs(t, err, context.DeadlineExceeded, "half are another's")
	for range 2 {
		leave, err := turns.wait(t.Context(), "other")
		require.NoError(t, err)
		leaves = append(leaves, leave)
	}
	var mutex sync.Mutex
	var order []string
	var waiting sync.WaitGroup
	for i, client := range []string{"a", "a", "a", "b"} {
		waiting.Go(func() {
			leave, err := turns.wait(t.Context(), client)
			assert.NoError(t, err)
			mutex.Lock()
			order = append(order, client)
			mutex.Unlock()
			leave()
		})
		require.Eventually(t, func() bool { return turns.count() == i+1 }, time.Minute, time.Millisecond)
	}
	leaves[0]()
	waiting.Wait()
	assert.Equal(t, []string{"a", "b"}, order[:2], "b has its turn before a's second")
	for _, leave := range leaves[1:] {
		leave()
	}
	assert.Zero(t, turns.going)
	assert.Empty(t, turns.of)
	assert.Empty(t, turns.clients)
	assert.Empty(t, turns.waiting)
}

func (t *turns) count() (n int) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, waiting := range t.waiting {
		n += len(waiting)
	}
	return n
}
