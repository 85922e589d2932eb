package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// overCUDA is nst itself, over the pretend CUDA with its orders. What it says comes to said.
func overCUDA(t *testing.T, orders []string, args ...string) (p *exec.Cmd, said *bytes.Buffer) {
	p, said = exec.Command(os.Args[0], args...), &bytes.Buffer{}
	p.Env = nsttest.PretendCUDA(t, filepath.Join(t.TempDir(), "journal"), orders...)
	p.Stderr = said
	return p, said
}

// What CUDA calls lost, in any way and wherever it comes, is one line that names the card, blames
// nothing else, and is exit 1.
func TestLostCard(t *testing.T) {
	model, out := nsttest.Slim(t), filepath.Join(t.TempDir(), "out.png")
	for _, c := range []struct{ kind, code string }{{"launch", "700"}, {"launch", "719"}, {"later", "719"}, {"wait", "702"},
		{"copy", "700"}, {"replay", "715"}, {"capture", "714"}, {"instantiate", "718"}, {"malloc", "710"}, {"load", "716"}} {
		for _, n := range []int{1, 2, 30, 250} {
			order := fmt.Sprintf("fault %s %s %d", c.kind, c.code, n)
			p, said := overCUDA(t, []string{order}, "stylize", nsttest.Content(t), nsttest.Style(t), "-o", out, "--size",
				"64", "--iterations", "5", "--model", model, "--device", "cuda", "--scales", "off", "-q")
			require.NoError(t, p.Start())
			status := ended(t, p)
			if status == exitDone && n > 1 { // there are not so many of the kind
				continue
			}
			assert.Equal(t, exitFailed, status, order)
			assert.Regexp(t, `^nst: cuda:0 is lost: [^:]* \(CUDA error `+c.code+`\); a new process may be able to use `+
				"it: start nst again\n$", said.String(), order)
		}
	}
}

// A run whose card is lost writes the best picture that it has, and goes on from its checkpoint.
func TestLostCardKeepsThePicture(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	out, state, orders := filepath.Join(folder, "out.png"), filepath.Join(folder, "state"), filepath.Join(folder, "orders")
	args := []string{"stylize", nsttest.Content(t), nsttest.Style(t), "-o", out, "--size", "64", "--model",
		nsttest.Slim(t), "--device", "cuda", "--iterations", "100000000", "--checkpoint", state, "--checkpoint-every",
		"1000"}
	p, said := overCUDA(t, nil, args...)
	p.Env = append(p.Env, "NST_PRETEND_CUDA_ORDERS="+orders)
	require.NoError(t, p.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(state); return err == nil }, time.Minute, 10*time.Millisecond)
	time.Sleep(3 * time.Second) // pictures are kept every two
	require.NoError(t, os.WriteFile(orders, []byte("fault replay 700 1\n"), 0o600))
	require.Equal(t, exitFailed, ended(t, p), said)
	assert.Contains(t, said.String(), "nst: wrote the best picture so far, of iteration ")
	assert.Regexp(t, `\nnst: cuda:0 is lost: .* \(CUDA error 700\); .*state is of iteration \d+; `, said.String())
	made, err := picture.Open(out)
	require.NoError(t, err)
	assert.Equal(t, 64, made.Width)
	p, said = overCUDA(t, nil, append(args, "--resume", state)...)
	require.NoError(t, p.Start())
	time.Sleep(time.Second)
	require.NoError(t, p.Process.Signal(os.Interrupt))
	assert.Equal(t, exitInterrupted, ended(t, p), said)
}

// A batch whose card is lost stops, and says what is left; the same command makes that.
func TestLostCardInABatch(t *testing.T) {
	contents, out := t.TempDir(), t.TempDir()
	data, err := os.ReadFile(nsttest.Content(t))
	require.NoError(t, err)
	for _, name := range []string{"a.png", "b.png", "c.png"} {
		require.NoError(t, os.WriteFile(filepath.Join(contents, name), data, 0o600))
	}
	args := []string{"batch", "--content", contents, "--style", nsttest.Style(t), "-o", out, "--size", "64", "--model",
		nsttest.Slim(t), "--device", "cuda", "--iterations", "5", "--scales", "off"}
	p, said := overCUDA(t, []string{"fault replay 700 6"}, args...)
	require.NoError(t, p.Start())
	assert.Equal(t, exitFailed, ended(t, p))
	assert.Contains(t, said.String(), "2 pictures are left, which the same command makes: b--style-120x96.png, "+
		"c--style-120x96.png")
	assert.Len(t, filesOf(t, out), 1)
	p, said = overCUDA(t, nil, args...)
	require.NoError(t, p.Start())
	assert.Equal(t, exitDone, ended(t, p), said)
	assert.Len(t, filesOf(t, out), 3)
}

func filesOf(t *testing.T, folder string) (names []string) {
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A worker whose card is lost gives its job back and ends; its successor goes on, and no job is
// lost.
func TestLostCardOfAWorker(t *testing.T) {
	nsttest.Long(t)
	journal := filepath.Join(t.TempDir(), "journal")
	env := nsttest.PretendCUDA(t, journal, "fault replay 719 25") // in each worker's life
	s := startServingWith(t, env, "--device", "cuda")
	var locations []string
	for range 3 {
		locations = append(locations, s.submit(`{"size": 48, "iterations": 20, "scales": "off"}`))
	}
	for _, location := range locations {
		assert.Equal(t, 48, s.result(location).Width)
	}
	text, err := os.ReadFile(s.log)
	require.NoError(t, err)
	assert.Contains(t, string(text), "the device is lost; this worker ends")
	assert.Contains(t, string(text), "cuda:0 is lost: unspecified launch failure (CUDA error 719)")
	assert.Positive(t, strings.Count(string(text), "this worker ends"))
}
