package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
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
	"github.com/seed9bb5c928/nst/nst/video"
)

func TestVideo(t *testing.T) {
	folder, in := t.TempDir(), nsttest.Clip(t, 12, ".mp4")
	out, frames := filepath.Join(folder, "out.mp4"), filepath.Join(folder, "frames")
	require.NoError(t, os.Mkdir(frames, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(frames, "000006.png"), nil, 0o644))
	status, stdout, stderr := runNST(t, "video", in, nsttest.Style(t), "-o", out, "--frames", frames,
		"--size", "50", "--style-size", "64", "--iterations", "3", "--frame-iterations", "1", "--limit", "5", "--json",
		"--preview", filepath.Join(folder, "now.jpg"), "--log", filepath.Join(folder, "log"))
	require.Equal(t, exitDone, status, stderr)
	var s videoSummary
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	assert.Equal(t, [4]int{50, 38, 5, 1}, [4]int{s.Width, s.Height, s.Frames, s.Shots})
	made, err := video.Probe(context.Background(), out)
	require.NoError(t, err)
	assert.Equal(t, [3]int{50, 38, 5}, [3]int{made.Width, made.Height, made.Frames})
	assert.Equal(t, []string{"aac"}, made.Audio)
	assert.Equal(t, 5, lines(filepath.Join(folder, "log")))
	for _, name := range []string{"now.jpg", "frames/000001.png", "frames/000005.png"} {
		p, err := picture.Open(filepath.Join(folder, name))
		require.NoError(t, err)
		assert.Equal(t, [2]int{50, 38}, [2]int{p.Width, p.Height}, name)
	}
	assert.Contains(t, stderr, "000006.png and what follows it in "+frames+" is of an earlier run")
	assert.NoFileExists(t, out+".nst", "all is done")
}

// Killed after a frame or two, as often as it takes, a run that goes on makes the frames of
// one that never was, also where devices share shots every other time.
func TestKilledVideosResume(t *testing.T) {
	nsttest.Long(t)
	random := rand.New(rand.NewPCG(nsttest.Seed(t), 0))
	for name, c := range map[string]struct {
		clip   string
		frames int
		other  []string // every other time
	}{
		"one device": {nsttest.Clip(t, 12, ".mp4"), 12, nil},
		"shots":      {nsttest.Shots(t, ".mp4"), 8, []string{"--device", "cpu,cpu", "--share", "shots"}},
	} {
		t.Run(name, func(t *testing.T) { resumeKilled(t, random, c.clip, c.frames, c.other) })
	}
}

func resumeKilled(t *testing.T, random *rand.Rand, in string, frames int, other []string) {
	folder := t.TempDir()
	start := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(os.Args[0], append([]string{"video", in, nsttest.Style(t), "--frames",
			filepath.Join(folder, name), "--size", "64", "--style-size", "64", "--iterations", "20",
			"--frame-iterations", "10", "--model", smallNetwork(t), "--device", "cpu", "-q",
			"--log", filepath.Join(folder, name+".log")},
			args...)...)
		c.Stderr = os.Stderr
		require.NoError(t, c.Start())
		return c
	}
	require.NoError(t, start("whole").Wait())
	kills := 0
	for ended := false; !ended; {
		args := []string{"--resume"}
		if kills%2 == 0 {
			args = append(args, other...)
		}
		c := start("parts", args...)
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		log := filepath.Join(folder, "parts.log")
		goal := lines(log) + 1 + random.IntN(2)
		for waiting := true; waiting; {
			select {
			case err := <-done:
				require.NoError(t, err)
				ended, waiting = true, false
			case <-time.After(2 * time.Millisecond):
				waiting = lines(log) < goal
			}
		}
		if !ended {
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
			_ = c.Process.Kill()
			<-done
			kills++
		}
	}
	t.Logf("killed %d times", kills)
	assert.Greater(t, kills, 1)
	sameFrames(t, frames, filepath.Join(folder, "whole"), filepath.Join(folder, "parts"))
	assert.NoFileExists(t, filepath.Join(folder, "parts.nst"))
}

// sameFrames says whether two folders have the same frames.
func sameFrames(t *testing.T, frames int, want, got string) {
	t.Helper()
	for i := range frames {
		name := fmt.Sprintf("%06d.png", i+1)
		a, err := os.ReadFile(filepath.Join(want, name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(got, name))
		require.NoError(t, err)
		assert.Equal(t, a, b, name)
	}
}

// An interrupted run says how it is gone on with, and is refused if that is forgotten.
func TestInterruptedVideo(t *testing.T) {
	folder, in := t.TempDir(), nsttest.Clip(t, 12, ".mp4")
	out := filepath.Join(folder, "out.mp4")
	args := []string{"video", in, nsttest.Style(t), "-o", out, "--size", "64", "--style-size", "64",
		"--iterations", "3", "--frame-iterations", "2", "-q", "--log", filepath.Join(folder, "log")}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		for lines(filepath.Join(folder, "log")) < 2 {
			time.Sleep(time.Millisecond)
		}
	}()
	status, _, stderr := runContext(t, ctx, args...)
	require.Equal(t, exitInterrupted, status, stderr)
	assert.Contains(t, stderr, "out.mp4.nst: the same command with --resume goes on")
	assert.NoFileExists(t, out)
	status, _, stderr = runNST(t, args...)
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, stderr, "out.mp4.nst is what an earlier run has left: --resume goes on with it; or remove it")
	status, _, stderr = runNST(t, append(args, "--resume", "--style-weight", "7")...)
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, stderr, "was made with style_weight")
	status, _, stderr = runNST(t, append(args, "--resume", "--share", "shots", "--device", "cpu,cpu")...)
	require.Equal(t, exitDone, status, stderr)
	made, err := video.Probe(context.Background(), out)
	require.NoError(t, err)
	assert.Equal(t, 12, made.Frames)
}

// Devices that share shots make the frames that one makes.
func TestVideoSharesShots(t *testing.T) {
	nsttest.NoLeaks(t)
	folder, in := t.TempDir(), nsttest.Shots(t, ".mp4")
	for _, device := range []string{"cpu", "cpu,cpu"} {
		status, stdout, stderr := runNST(t, "video", in, nsttest.Demo(t, "style.png"), "--frames",
			filepath.Join(folder, device), "--size", "64", "--style-size", "64", "--iterations", "3",
			"--frame-iterations", "2", "--model", smallNetwork(t), "--share", "shots", "--device", device,
			"--json", "--log", filepath.Join(folder, device+".log"))
		require.Equal(t, exitDone, status, stderr)
		var s videoSummary
		require.NoError(t, json.Unmarshal([]byte(stdout), &s))
		assert.Equal(t, [2]int{8, 3}, [2]int{s.Frames, s.Shots})
		assert.Equal(t, 8, lines(filepath.Join(folder, device+".log")))
	}
	sameFrames(t, 8, filepath.Join(folder, "cpu"), filepath.Join(folder, "cpu,cpu"))
}

func TestVideoBadInput(t *testing.T) {
	folder, in, style := t.TempDir(), nsttest.Clip(t, 12, ".mp4"), nsttest.Style(t)
	out := filepath.Join(folder, "out.mp4")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{in}, "video takes a clip and at least one style picture"},
		{[]string{in, style}, "-o is missing: the clip to write, .mp4, .mov, .mkv, .webm; or --frames"},
		{[]string{in, style, "-o", in}, "which is the clip; give it a file of its own"},
		{[]string{in, style, "-o", out, "--log", in}, "--log is " + in + ", which is the clip"},
		{[]string{in, style, "-o", out, "--preview", style}, "which is the style 1"},
		{[]string{in, style, "-o", out, "--store", out}, "as --store is"},
		{[]string{in, style, "-o", out, "--bits", "16"}, "--bits is 16"},
		{[]string{folder, style, "-o", out}, "is no file"},
		{[]string{in, style, "-o", filepath.Join(folder, "out.gif")}, "clips end in .mp4"},
		{[]string{in, style, "-o", out, "--codec", "libnone"}, "libnone"},
		{[]string{style, style, "-o", out}, "is no video that ffmpeg knows"},
		{[]string{filepath.Join(folder, "none.mp4"), style, "-o", out}, "none.mp4 cannot be opened"},
		{[]string{in, filepath.Join(folder, "none.png"), "-o", out}, "none.png"},
		{[]string{in, style, "-o", out, "--passes", "0"}, "--passes 0"},
		{[]string{in, style, "-o", out, "--limit", "-1"}, "--limit is -1"},
		{[]string{in, style, "-o", out, "--share", "frames"}, `--share is "frames"; tiles or shots will do`},
		{[]string{in, style, "-o", out, "--share", "shots", "--device", "cpu,cpu,pretend:0,pretend:0"}, "named twice"},
		{[]string{in, style, "-o", out, "--share", "shots", "--device", "cpu,cpu", "--memory-limit", "1G"},
			"--share shots has 2 engines there"},
		{[]string{in, style, "-o", out, "--long-term", "2,1"}, "--long-term is [2 1]"},
		{[]string{in, style, "-o", out, "--frame-iterations", "-1"}, "--frame-iterations is -1"},
		{[]string{in, style, "-o", out, "--temporal-weight", "-1"}, "--temporal-weight is -1"},
		{[]string{in, style, "-o", out, "--transfer", "color"}, "--transfer color"},
		{[]string{in, style, "-o", out, "--flow", folder, "--flow-model", in}, "--flow and --flow-model"},
		{[]string{in, style, "-o", out, "--flow", in}, "is no folder"},
		{[]string{in, style, "-o", out, "--flow-model", in}, "is no network that can be loaded"},
		{[]string{in, style, "-o", out, "--flow", folder, "--size", "64", "--iterations", "1"},
			"backward_2_1.flo is missing"},
		{[]string{in, style, "-o", out, "--preview", "now.xyz"}, "--preview"},
	} {
		status, _, stderr := runNST(t, append([]string{"video"}, c.args...)...)
		assert.Equal(t, exitUsage, status, "%v: %s", c.args, stderr)
		assert.Contains(t, stderr, c.says)
		assert.NoFileExists(t, out)
		if err := os.Remove(out + ".nst"); err == nil {
			assert.Contains(t, strings.Join(c.args, " "), "--size", "no frames are kept of what did not begin")
		}
	}
	t.Setenv("PATH", folder)
	status, _, stderr := runNST(t, "video", in, style, "-o", out)
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, stderr, "ffprobe is not installed: install ffmpeg (5.1 or later), which brings it")
}
