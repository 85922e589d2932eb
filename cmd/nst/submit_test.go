package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/video"
)

// served starts nst serve with a small network, and waits until it would make jobs.
func served(t *testing.T, flags ...string) (address string, stop func()) {
	address = nsttest.Address(t)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	data := t.TempDir()
	done.Go(func() {
		var stderr bytes.Buffer
		assert.Equal(t, exitDone, run(ctx, append([]string{"serve", "--addr", address, "--data", data, "--model",
			nsttest.Slim(t), "--device", "cpu"}, flags...), io.Discard, &stderr), "%s", &stderr)
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	require.Eventually(t, func() bool {
		ready := []string{"ready", "--server", "http://" + address}
		return run(context.Background(), ready, io.Discard, io.Discard) == exitDone
	}, time.Minute, 50*time.Millisecond)
	return address, stop
}

// submitTo is nst submit to the service at an address; said is what it last said.
func submitTo(t *testing.T, address string) (submit func(args ...string) (status int, stdout string),
	said *bytes.Buffer) {
	said = &bytes.Buffer{}
	return func(args ...string) (status int, stdout string) {
		t.Helper()
		said.Reset()
		var out bytes.Buffer
		status = run(context.Background(), append([]string{"submit", "--server", "http://" + address}, args...), &out,
			said)
		return status, out.String()
	}, said
}

// A service makes what stylize makes here, of the same flags, and says what is wrong as
// stylize does.
func TestSubmit(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	write := nsttest.Writer(t, folder)
	const secret = "0123456789abcdef"
	tokens, token := write("tokens", []byte("ann: "+secret+"\n")), write("token", []byte(secret+"\n"))
	address, _ := served(t, "--token-file", tokens)
	submit, said := submitTo(t, address)
	content, style := nsttest.Content(t), nsttest.Style(t)
	flags := []string{content, style, "--size", "48", "--iterations", "3", "--seed", "7"}
	with := func(more ...string) []string { return slices.Concat(flags, []string{"--token-file", token}, more) }

	there, here := filepath.Join(folder, "there.png"), filepath.Join(folder, "here.png")
	status, _ := submit(with("-o", there)...)
	require.Equal(t, exitDone, status, said.String())
	assert.Contains(t, said.String(), "there.png: 48×36, 3 iterations in ")
	require.Equal(t, exitDone, run(context.Background(), append([]string{"stylize", "-q", "-o", here, "--model",
		nsttest.Slim(t), "--device", "cpu"}, flags...), io.Discard, said), said.String())
	theirs, err := picture.Open(there)
	require.NoError(t, err)
	ours, err := picture.Open(here)
	require.NoError(t, err)
	assert.Equal(t, ours, theirs)

	status, id := submit(with("--detach")...)
	require.Equal(t, exitDone, status, said.String())
	jpg := filepath.Join(folder, "late.jpg")
	status, text := submit("--job", strings.TrimSpace(id), "-o", jpg, "--token-file", token, "--json")
	require.Equal(t, exitDone, status, said.String())
	var j struct{ ID, Owner, State string }
	require.NoError(t, json.Unmarshal([]byte(text), &j))
	assert.Equal(t, "ann", j.Owner)
	assert.Equal(t, "done", j.State)
	o, err := recordedSettings(t.Context(), jpg)
	require.NoError(t, err)
	assert.EqualValues(t, 7, o.Seed)

	t.Setenv(tokenVariable, "not-the-token-of-anyone")
	for _, c := range []struct {
		says string
		args []string
	}{
		{"the service does not know the token that was given", slices.Concat(flags, []string{"-o", there})},
		{"there is no job none at the service", []string{"--job", "none", "-o", there, "--token-file", token}},
		{"--iterations is 30000; at most 20000 are made here", with("-o", there, "--iterations", "30000")},
		{"--device is about the machine that computes", with("-o", there, "--device", "cpu")},
		{"-o is missing", with()},
		{"--size and --strength-mask cannot change it", []string{"--job", "none", "-o", there, "--size", "9",
			"--strength-mask", "nowhere.png"}},
		{"--json needs a file", with("-o", "-", "--json")},
		{"--detach does not wait", with("-o", there, "--detach")},
		{"nowhere.png cannot be read", []string{content, "nowhere.png", "-o", there}},
		{`--server is "example.com"`, with("-o", there, "--server", "example.com")},
		{"the content picture", []string{token, style, "-o", there, "--token-file", token}},
		{"takes a content picture", []string{content, "-o", there}},
	} {
		status, _ := submit(c.args...)
		assert.Equal(t, exitUsage, status, c.says)
		assert.Contains(t, said.String(), c.says)
		assert.Equal(t, 1, strings.Count(said.String(), "\n"), said.String())
	}
}

// A clip is sent as pictures are, and what it is made is what its name says.
func TestSubmitClip(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	address, _ := served(t, "--max-clip-bytes", "100000", "--max-clip-frames", "5")
	submit, said := submitTo(t, address)
	clip, style := nsttest.Clip(t, 4, ".mp4"), nsttest.Style(t)
	flags := []string{clip, style, "--size", "64", "--iterations", "2", "--frame-iterations", "1", "--scales", "off"}
	out := filepath.Join(folder, "out.webm")
	status, _ := submit(append(flags, "-o", out)...)
	require.Equal(t, exitDone, status, said.String())
	assert.Contains(t, said.String(), "out.webm: 4 frames of 64×48 in ")
	made, err := video.Probe(context.Background(), out)
	require.NoError(t, err)
	n, err := made.CountFrames(context.Background())
	require.NoError(t, err)
	assert.Equal(t, 4, n)
	assert.Equal(t, []string{"opus"}, made.Audio)

	status, id := submit(append(flags, "--detach")...)
	require.Equal(t, exitDone, status, said.String())
	id = strings.TrimSpace(id)
	late := filepath.Join(folder, "late.mp4")
	status, text := submit("--job", id, "-o", late, "--json")
	require.Equal(t, exitDone, status, said.String())
	assert.Contains(t, text, `"frame_iterations":1`)
	info, err := os.Stat(late)
	require.NoError(t, err)
	assert.Contains(t, text, fmt.Sprintf(`"bytes":%d`, info.Size()))

	large := filepath.Join(folder, "large.mp4")
	require.NoError(t, os.WriteFile(large, make([]byte, 5<<20), 0o600))
	for _, c := range []struct {
		says string
		args []string
	}{
		{"a clip may have 100000 bytes", []string{large, style, "-o", out}},
		{"the clip has 6 frames; at most 5 are taken here", []string{nsttest.Clip(t, 6, ".mp4"), style, "-o", out}},
		{"the clip is no video", []string{"main.go", style, "-o", out}},
		{"nowhere.mp4 cannot be read", []string{"nowhere.mp4", style, "-o", out}},
		{"makes a clip that ends in .mp4", []string{"--job", id, "-o", out}},
		{"--format is of pictures", append(flags, "-o", out, "--format", "png")},
		{"--passes is 11; 1 to 10 will do", append(flags, "-o", out, "--passes", "11")},
	} {
		status, _ := submit(c.args...)
		assert.Equal(t, exitUsage, status, c.says)
		assert.Contains(t, said.String(), c.says)
		assert.Equal(t, 1, strings.Count(said.String(), "\n"), said.String())
	}
}
