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

// journalOf returns what a program over the pretend CUDA sent, by name, and what is said against it.
func journalOf(t *testing.T, p *exec.Cmd) (counts map[string]int, said string) {
	t.Helper()
	var journal string
	for _, of := range p.Env {
		if path, ok := strings.CutPrefix(of, "NST_PRETEND_CUDA_JOURNAL="); ok {
			journal = path
		}
	}
	files, err := filepath.Glob(journal + ".counts.*")
	require.NoError(t, err)
	counts = map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			var direct, recorded, replayed int
			if n, _ := fmt.Sscan(line, &direct, &recorded, &replayed); n == 3 {
				counts[strings.TrimSpace(line[39:])] += direct + replayed
			}
		}
	}
	text, err := os.ReadFile(journal)
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return counts, string(text)
}

// Each command comes to its end over the pretend CUDA, breaks no rule of CUDA's, and replays where
// it can.
func TestCommandsOnCUDA(t *testing.T) {
	nsttest.Long(t)
	folder, model := t.TempDir(), nsttest.Slim(t)
	content, style := nsttest.Content(t), nsttest.Style(t)
	at := func(name string) string { return filepath.Join(folder, name) }
	short := []string{"--size", "64", "--iterations", "8", "--model", model}
	for name, c := range map[string]struct {
		args    []string
		replays bool
	}{
		"stylize": {[]string{"stylize", content, style, "-o", at("a.png"), "--device", "cuda", "--report", at("a.html"),
			"--log", at("a.jsonl"), "--save-every", "3"}, true},
		"scales":  {[]string{"stylize", content, style, style, "-o", at("b.png"), "--device", "cuda:1"}, true},
		"tiles":   {[]string{"stylize", content, style, "-o", at("c.png"), "--device", "cuda", "--tile", "32"}, false},
		"devices": {[]string{"stylize", content, style, "-o", at("d.png"), "--device", "cuda:0,cuda:1"}, false},
		"limit": {[]string{"stylize", content, style, "-o", at("e.png"), "--device", "cuda", "--memory-limit", "300M"},
			true},
		"texture": {[]string{"texture", style, "-o", at("f.png"), "--device", "cuda"}, true},
		"batch": {[]string{"batch", "--content", content, "--style", filepath.Join(filepath.Dir(style), "*128x96.png"),
			"-o", at("batch"), "--device", "cuda", "--together", "2"}, true},
		"video": {[]string{"video", nsttest.Clip(t, 3, ".mp4"), style, "-o", at("g.mp4"), "--device", "cuda",
			"--frame-iterations", "4"}, true},
		"shots": {[]string{"video", nsttest.Shots(t, ".mp4"), style, "-o", at("h.mp4"), "--device", "cuda:0,cuda:1",
			"--share", "shots", "--frame-iterations", "4"}, true},
		"bench": {[]string{"bench", "--device", "cuda", "--sizes", "64", "--json"}, true},
		"check": {[]string{"check", "--device", "cuda", "--stage", "graphs", "--size", "64"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(c.args, short...)
			if name == "bench" || name == "check" {
				args = append(c.args, "--iterations", "30", "--model", model)
			}
			p, said := overCUDA(t, []string{"devices 2"}, args...)
			require.NoError(t, p.Start())
			assert.Equal(t, exitDone, ended(t, p), said)
			counts, against := journalOf(t, p)
			assert.Empty(t, against)
			assert.Positive(t, counts["cudaLaunchKernel"])
			assert.Equal(t, c.replays, counts["graph"] > 0, "replays")
			made, ended := counts["cudaGraphInstantiateWithFlags"], counts["cudaGraphExecDestroy"]
			assert.Equal(t, made, ended, "graphs")
		})
	}
}

// A run that is interrupted between replays ends with its best picture.
func TestInterruptedOnCUDA(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.png")
	p, said := overCUDA(t, nil, "stylize", nsttest.Content(t), nsttest.Style(t), "-o", out, "--size", "64", "--model",
		nsttest.Slim(t), "--device", "cuda", "--iterations", "100000000", "--scales", "off")
	require.NoError(t, p.Start())
	require.Eventually(t, func() bool {
		counts, _ := journalOf(t, p)
		return counts["graph"] > 100
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, p.Process.Signal(os.Interrupt))
	assert.Equal(t, exitInterrupted, ended(t, p), said)
	_, against := journalOf(t, p)
	assert.Empty(t, against)
	_, err := picture.Open(out)
	assert.NoError(t, err)
}

// What CUDA calls lost, in any way and wherever it comes, is one line that names the card, blames
// nothing else, and is exit 1.
func TestLostCard(t *testing.T) {
	nsttest.Long(t)
	model, out := nsttest.Slim(t), filepath.Join(t.TempDir(), "out.png")
	for kind, code := range map[string]string{"launch": "700", "later": "719", "wait": "702", "copy": "700",
		"replay": "715", "capture": "714", "instantiate": "718", "malloc": "710", "load": "716"} {
		for _, n := range []int{1, 2, 30, 250} {
			order := fmt.Sprintf("fault %s %s %d", kind, code, n)
			p, said := overCUDA(t, []string{order}, "stylize", nsttest.Content(t), nsttest.Style(t), "-o", out,
				"--size", "64", "--iterations", "5", "--model", model, "--device", "cuda", "--scales", "off", "-q")
			require.NoError(t, p.Start())
			status := ended(t, p)
			if counts, _ := journalOf(t, p); n > 1 && counts["fault "+kind] == 0 { // there are not so many
				continue
			}
			assert.Equal(t, exitFailed, status, order)
			assert.Regexp(t, `^nst: cuda:0 is lost: [^:]* \(CUDA error `+code+`\); a new process may be able to use `+
				"it: start nst again\n$", said.String(), order)
		}
	}
}

// Of two cards that share tiles the second may be lost: the first makes the picture, also at larger
// scales.
func TestLostSecondCard(t *testing.T) {
	nsttest.Long(t)
	out, model, went := filepath.Join(t.TempDir(), "out.png"), nsttest.Slim(t), 0
	for n := 400; n < 1400; n += 40 {
		p, said := overCUDA(t, []string{"devices 2", fmt.Sprint("fault launch 700 ", n)}, "stylize", nsttest.Content(t),
			nsttest.Style(t), "-o", out, "--size", "256", "--iterations", "6", "--model", model, "--device",
			"cuda:0,cuda:1", "-q")
		require.NoError(t, p.Start())
		status := ended(t, p)
		if !strings.Contains(said.String(), "is not used any more") { // the first is lost, or either while it is opened
			continue
		}
		went++
		assert.Equal(t, exitDone, status, said)
		assert.Regexp(t, `^nst: cuda:1 failed and is not used any more \(cuda:1 is lost: [^\n]*\n$`, said.String())
	}
	assert.Positive(t, went)
}

// A clip whose card is lost keeps its frames: the same command with --resume makes the rest.
func TestLostCardInAClip(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.mp4")
	args := []string{"video", nsttest.Clip(t, 4, ".mp4"), nsttest.Style(t), "-o", out, "--size", "64", "--model",
		nsttest.Slim(t), "--device", "cuda", "--iterations", "6", "--frame-iterations", "4", "--resume"}
	p, said := overCUDA(t, []string{"fault replay 700 10"}, args...)
	require.NoError(t, p.Start())
	assert.Equal(t, exitFailed, ended(t, p))
	assert.Contains(t, said.String(), "cuda:0 is lost: an illegal memory access was encountered (CUDA error 700)")
	assert.FileExists(t, out+".nst", "its frames")
	p, said = overCUDA(t, nil, args...)
	require.NoError(t, p.Start())
	assert.Equal(t, exitDone, ended(t, p), said)
	assert.FileExists(t, out)
}

// A run whose card is lost writes the best picture that it has, and goes on from its checkpoint.
func TestLostCardKeepsThePicture(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	out, state, orders := at("out.png"), at("state"), at("orders")
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
}
