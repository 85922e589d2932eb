// Package nsttest is what tests of several packages share: where their files
// are, and the check that nothing leaks. Programs do not import it.
package nsttest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/seed9bb5c928/nst/torch"
)

// Root is the repository's top folder.
func Root(t testing.TB) string {
	t.Helper()
	folder, err := root()
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

func root() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("no go.mod above the working folder")
		}
		folder = parent
	}
}

// Reference is the path of a file of nst/testdata/reference: small pictures, and
// PyTorch's numbers of them.
func Reference(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(Root(t), "nst", "testdata", "reference", name)
}

// Content is the path of a small picture, of 128×96 pixels, for tests that any suits: it is
// decoded in no time, even beside the race detector.
func Content(t testing.TB) string { return Reference(t, "content-128x96.png") }

// Style is the path of another, of 120×96 pixels.
func Style(t testing.TB) string { return Reference(t, "style-120x96.png") }

// Long marks a test that takes long: go test -short, and with it scripts/test quick, leave
// it out; scripts/test runs it.
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long, and -short was asked for")
	}
}

// Model is the path of the default network, which scripts/setup makes.
func Model(t testing.TB) string { return built(t, "share", "nst", "vgg19.pt") }

// Demo is the path of a demo picture that scripts/setup fetches: "content.png"
// or "style.png".
func Demo(t testing.TB, name string) string { return built(t, "demo", name) }

// RunWithPretend is for a TestMain: it runs the tests with the pretend
// accelerator, which scripts/setup compiles, as NST_DEVICE_LIBRARY.
func RunWithPretend(m *testing.M) {
	folder, err := root()
	library := filepath.Join(folder, "build", "lib", "libpretend.so")
	if err == nil {
		_, err = os.Stat(library)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v: run scripts/setup, which compiles it\n", err)
		os.Exit(1)
	}
	os.Setenv("NST_DEVICE_LIBRARY", library)
	// Load it now: libtorch's first backward counts the devices, for ever.
	if _, err := torch.ParseDevice("cpu"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func built(t testing.TB, path ...string) string {
	t.Helper()
	full := filepath.Join(append([]string{Root(t), "build"}, path...)...)
	if _, err := os.Stat(full); err != nil {
		t.Fatalf("%v: run scripts/setup, which makes it", err)
	}
	return full
}

// Writer returns a function that writes a file of a folder and returns its
// path.
func Writer(t testing.TB, folder string) func(name string, data []byte) string {
	return func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// Address reserves an address of this machine, until the test ends, for a server that is
// started, and started again, by it: nobody else is given the port meanwhile, and a server
// can listen there, since this only holds it.
func Address(t testing.TB) string {
	t.Helper()
	held, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { syscall.Close(held) })
		err = syscall.SetsockoptInt(held, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = syscall.Bind(held, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var at syscall.Sockaddr
	if err == nil {
		at, err = syscall.Getsockname(held)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}

// Seed is the seed of what a test does at random: $NST_SEED, or another one each time. The
// log has it.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("NST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("NST_SEED: %v", err)
		}
	}
	t.Logf("NST_SEED=%d", seed)
	return seed
}

// Difference is the relative L2 difference of a from b: ‖a−b‖/‖b‖.
func Difference(a, b []float32) float64 {
	d := make([]float32, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	return Norm(d) / Norm(b)
}

// Norm is the L2 norm.
func Norm(v []float32) float64 {
	sum := 0.0
	for _, x := range v {
		sum += math.Pow(float64(x), 2)
	}
	return math.Sqrt(sum)
}

// NoLeaks fails the test if tensors that are open when it ends were not when it
// began.
func NoLeaks(t testing.TB) {
	t.Helper()
	before := torch.Live()
	percent := debug.SetGCPercent(-1) // which would release what is forgotten
	t.Cleanup(func() {
		defer debug.SetGCPercent(percent)
		// Threads that are closing may be releasing their last.
		for range 100 {
			if torch.Live() == before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d tensors are open, %d were before", torch.Live(), before)
	})
}

// Idle is NoLeaks, and fails the test too if there are more goroutines when it ends
// than when it began.
func Idle(t testing.TB) {
	t.Helper()
	NoLeaks(t)
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 200 { // some of a NATS server end when they next look
			http.DefaultClient.CloseIdleConnections()
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		stacks := make([]byte, 4<<20)
		t.Errorf("%d goroutines run, %d did before:\n%s", runtime.NumGoroutine(), before,
			stacks[:runtime.Stack(stacks, true)])
	})
}
