package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"image"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// nst runs the program in this process, with the small network unless args name
// another.
func runNST(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return runContext(t, context.Background(), args...)
}

func runContext(t *testing.T, ctx context.Context, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	t.Setenv("NST_MODEL", smallNetwork(t))
	var out, errs bytes.Buffer
	status = run(ctx, args, &out, &errs)
	for _, trace := range []string{"goroutine ", "frame #", "panic", ".go:", ".cpp:"} {
		assert.NotContains(t, errs.String(), trace, "no stack trace")
	}
	return status, out.String(), errs.String()
}

func smallNetwork(t *testing.T) string {
	return filepath.Join(nsttest.Root(t), "nst", "vgg19", "testdata", "small.pt")
}

// TestMain is also the commands that tests run over the pretend CUDA, or kill, and nst worker, which
// nst serve starts.
func TestMain(m *testing.M) {
	commands := []string{"worker", "serve", "stylize", "texture", "batch", "video", "bench", "check"}
	if len(os.Args) > 1 && slices.Contains(commands, os.Args[1]) {
		main()
	}
	nsttest.RunWithPretend(m)
}

func TestStylize(t *testing.T) {
	nsttest.NoLeaks(t)
	content, style := nsttest.Content(t), nsttest.Style(t)
	folder := t.TempDir()
	out, log := filepath.Join(folder, "out.png"), filepath.Join(folder, "log.jsonl")
	status, stdout, stderr := runNST(t, "stylize", content, style, style, "-o", out, "--size", "48", "--style-size",
		"40",
		"--iterations", "4", "--save-every", "2", "--log", log, "--json", "--init", "noise", "--seed", "3",
		"--device", "cpu",
		"--optimizer", "lbfgs", "--learning-rate", "0.9", "--pooling", "avg", "--content-layers", "relu4_2",
		"--style-layers", "relu1_1=0.5,relu2_1", "--content-weight", "2", "--style-weight", "30", "--tv-weight", "3",
		"--style-weights", "1,2", "--style-scale", "0.9")
	require.Equal(t, exitDone, status, stderr)
	p, err := picture.Open(out)
	require.NoError(t, err)
	assert.Equal(t, [2]int{48, 36}, [2]int{p.Width, p.Height})
	assert.FileExists(t, filepath.Join(folder, "out-000002.png"))
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Len(t, entries, 3, "the result, one picture on the way, the log, and nothing else")

	var s map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	for key, want := range map[string]any{"output": out, "width": 48., "height": 36., "iterations": 4., "device": "cpu",
		"precision": "fast", "tiles": 1.} {
		assert.Equal(t, want, s[key], key)
	}
	for _, key := range []string{"seconds", "seconds_per_iteration", "total", "peak_memory_bytes"} {
		assert.Positive(t, s[key], key)
	}
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 5, "one before each step, one after the last")
	for i, line := range lines {
		var l map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		assert.Equal(t, float64(i), l["iteration"])
		assert.Equal(t, 48., l["scale"])
		assert.Len(t, l["style"], 2)
		style := l["style"].(map[string]any)
		total := 2*l["content"].(float64) + 3*l["tv"].(float64) +
			30*(0.5*style["relu1_1"].(float64)+0.5*style["relu2_1"].(float64))
		assert.InEpsilon(t, total, l["total"], 1e-9)
		assert.Positive(t, l["tv"])
		assert.Contains(t, l, "gradient_l2")
		assert.Contains(t, l, "seconds")
	}

	// Going on from a result, and the text summary.
	status, stdout, stderr = runNST(t, "stylize", content, style, "-o", out, "--size", "48", "--iterations", "0",
		"--init", out)
	assert.Equal(t, exitDone, status, stderr)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "48×36, 0 iterations")
	again, err := picture.Open(out)
	require.NoError(t, err)
	assert.Equal(t, p, again, "no iteration changes nothing")
	status, stdout, stderr = runNST(t, "stylize", content, style, "-o", filepath.Join(folder, "q.jpg"), "--size", "0",
		"--style-size", "64", "--iterations", "0", "-q")
	assert.Equal(t, exitDone, status, stderr)
	assert.Empty(t, stdout+stderr)
}

func TestInterrupted(t *testing.T) {
	nsttest.Long(t)
	out := filepath.Join(t.TempDir(), "out.png")
	interrupted, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		for lines(out+".jsonl") < 3 {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	status, _, stderr := runContext(t, interrupted, "stylize", nsttest.Content(t),
		nsttest.Style(t), "-o", out, "--size", "64", "--iterations", "1000000", "-q", "--log", out+".jsonl")
	assert.Equal(t, exitInterrupted, status)
	assert.Contains(t, stderr, "wrote the best picture so far")
	assert.Contains(t, stderr, "nst: interrupted")
	_, err := picture.Open(out)
	assert.NoError(t, err)
}

// lines is how many a file has; 0 if there is none.
func lines(path string) int {
	data, _ := os.ReadFile(path)
	return bytes.Count(data, []byte("\n"))
}

// The program itself, by a signal.
func TestSignal(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.png")
	program := exec.Command(os.Args[0], "stylize",
		nsttest.Content(t), nsttest.Style(t),
		"-o", out, "--size", "64", "--iterations", "1000000", "--model", smallNetwork(t), "--log", out+".jsonl")
	require.NoError(t, program.Start())
	require.Eventually(t, func() bool { return lines(out+".jsonl") > 3 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, program.Process.Signal(os.Interrupt))
	var exit *exec.ExitError
	require.ErrorAs(t, program.Wait(), &exit)
	assert.Equal(t, exitInterrupted, exit.Sys().(syscall.WaitStatus).ExitStatus())
	_, err := picture.Open(out)
	assert.NoError(t, err)
}

// pngHeader claims a size and has no pixels.
func pngHeader(width, height uint32) []byte {
	chunk := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	chunk = append(binary.BigEndian.AppendUint32(chunk, height), 8, 2, 0, 0, 0)
	data := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), chunk...)
	return binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(chunk))
}

func TestBadInput(t *testing.T) {
	nsttest.NoLeaks(t)
	folder := t.TempDir()
	write := nsttest.Writer(t, folder)
	var small bytes.Buffer
	require.NoError(t, png.Encode(&small, image.NewGray(image.Rect(0, 0, 1, 1))))
	content, style := nsttest.Content(t), nsttest.Style(t)
	whole, err := os.ReadFile(content)
	require.NoError(t, err)
	network, err := os.ReadFile(nsttest.Model(t))
	require.NoError(t, err)
	out := filepath.Join(folder, "out.png")
	directory := filepath.Join(folder, "directory.png")
	require.NoError(t, os.Mkdir(directory, 0o700))

	stylize := func(content string, more ...string) []string {
		return append([]string{"stylize", content, style, "-o", out, "--size", "48", "--iterations", "1"}, more...)
	}
	good := func(more ...string) []string { return stylize(content, more...) }
	for name, c := range map[string]struct {
		args []string
		part string
	}{
		"missing picture":   {stylize(filepath.Join(folder, "none.jpg")), "none.jpg cannot be opened: no such file"},
		"empty picture":     {stylize(write("empty.png", nil)), "empty.png is empty"},
		"truncated picture": {stylize(write("half.png", whole[:len(whole)/2])), "half.png is cut short"},
		"no picture": {stylize(write("text.png", []byte("hello"))),
			"text.png is not a picture of a known format"},
		"zero-sized picture": {stylize(write("zero.png", pngHeader(0, 0))), "zero.png is"},
		"one-pixel picture":  {stylize(write("one.png", small.Bytes())), "1×1; layer relu4_2 needs at least 8×8"},
		"huge picture":       {stylize(write("huge.png", pngHeader(60000, 60000))), "claims 60000×60000 pixels"},
		"bad style": {[]string{"stylize", content, filepath.Join(folder, "none.jpg"), "-o", out},
			"none.jpg cannot be opened"},
		"too small": {good("--size", "9"), "relu4_2 needs at least 8×8"},
		"layer":     {good("--style-layers", "relu7_1"), `--style-layers names an unknown layer "relu7_1"`},
		"layer's weight": {good("--content-layers", "relu4_2=x"),
			`--content-layers: the weight in "relu4_2=x" is no number`},
		"preset": {good("--preset", "fancy"), `--preset "fancy" is unknown`},
		"device": {good("--device", "abacus"),
			`--device: no such device: "abacus"; known are auto, cpu, cuda and cuda:N`},
		"optimizer":          {good("--optimizer", "sgd"), `--optimizer "sgd" is unknown`},
		"negative weight":    {good("--style-weight", "-3"), "--style-weight is -3; it cannot be negative"},
		"NaN weight":         {good("--content-weight", "nan"), "--content-weight is NaN"},
		"zero weights":       {good("--content-weight", "0", "--style-weight", "0"), "every weight is 0"},
		"style weights":      {good("--style-weights", "1,2"), "--style-weights are 2, for 1 style pictures"},
		"no style weights":   {good("--style-weights", "0"), "--style-weights are all 0"},
		"style scale":        {good("--style-scale", "0"), "--style-scale is 0"},
		"negative variation": {good("--tv-weight", "-1"), "--tv-weight is -1"},
		"NaN rate":           {good("--learning-rate", "nan"), "--learning-rate is NaN"},
		"zero rate":          {good("--learning-rate", "0"), "--learning-rate is 0"},
		"iterations":         {good("--iterations", "-1"), "--iterations is -1"},
		"size":               {good("--size", "-1"), "--size is -1"},
		"no number":          {good("--size", "big"), `"big"`},
		"save-every":         {good("--save-every", "-1"), "--save-every is -1"},
		"pooling":            {good("--pooling", "median"), `--pooling "median" is unknown`},
		"precision of CUDA":  {good("--precision", "tf32"), "--precision tf32 is CUDA's, and the device is the CPU"},
		"precision":          {good("--precision", "int8"), `--precision "int8" is unknown`},
		"start":              {good("--init", "blue"), "--init (content, noise, gray, faint or a picture file)"},
		"flag":               {good("--colour", "red"), "unknown flag: --colour"},
		"log":                {good("--log", filepath.Join(folder, "none", "log")), "--log: "},
		"no output":          {[]string{"stylize", content, style}, "-o is missing"},
		"one picture":        {[]string{"stylize", content, "-o", out}, "at least one style picture"},
		"unwritable output":  {append(good(), "-o", "/proc/out.png"), "no file can be made in /proc"},
		"no output folder": {append(good(), "-o", filepath.Join(folder, "none", "out.png")),
			"no file can be made in"},
		"directory output": {append(good(), "-o", directory), "directory.png exists and is no regular file"},
		"output's ending":  {append(good(), "-o", filepath.Join(folder, "out.gif")), `not ".gif"`},
		"bits":             {good("--bits", "12"), "8 or 16 bits per channel, not 12"},
		"quality":          {good("--quality", "90"), "png has no quality"},
		"scales":           {good("--scales", "64,48"), "--scales \"64,48\" does not grow"},
		"no scales":        {good("--scales", "big"), "is no schedule"},
		"scales too large": {good("--scales", "64"), "--scales \"64\" goes beyond the result's longest side, 48"},
		"style loss": {good("--style-loss", "l1"),
			`--style-loss "l1" is unknown: known are gram, moments, nn, swd and w2`},
		"content loss": {good("--content-loss", "l1"),
			`--content-loss "l1" is unknown: known are features and similarity`},
		"wrap":         {good("--wrap", "z"), `--wrap "z" is unknown`},
		"style margin": {good("--style-margin", "0.5"), "--style-margin is 0.5; 0 to 0.2"},
		"no texture":   {[]string{"texture", "-o", out}, "at least one style picture"},
		"texture's content": {[]string{"texture", style, "-o", out, "--content-weight", "2"},
			"--content-weight is of nst stylize"},
		"no size of a texture": {[]string{"texture", style, "-o", out, "--size", "0"}, "--size makes a texture of 0×0"},
		"size of a texture":    {[]string{"texture", style, "-o", out, "--size", "60000"}, "million pixels will do"},
		"compare one":          {[]string{"compare", content, "--html", out}, "compare takes 2 to 26 pictures, not 1"},
		"compare nowhere":      {[]string{"compare", content, style}, "--html is missing"},
		"compare what is none": {[]string{"compare", content, directory, "--html", out}, "directory.png"},
		"padding":              {good("--padding", "reflect"), `--padding "reflect" is unknown`},
		"color":                {good("--color", "blue"), `--color "blue" is unknown`},
		"one mask": {good("--content-mask", content),
			"--content-mask and a mask for each style picture go together"},
		"checkpoint":       {good("--checkpoint", filepath.Join(folder, "none", "c")), "--checkpoint: "},
		"checkpoint-every": {good("--checkpoint-every", "0"), "--checkpoint-every is 0"},
		"no checkpoint":    {good("--resume", filepath.Join(folder, "none")), "--resume: "},
		"torn checkpoint":  {good("--resume", write("torn", []byte("hello"))), "it is cut short or no checkpoint"},
		"report":           {good("--report", filepath.Join(folder, "none", "r.html")), "--report: "},
		"no settings":      {good("--settings-from", content), "says nothing of how it was made"},
		"batch":            {[]string{"batch", "--content", folder, "--style", folder}, "-o is missing"},
		"empty batch": {[]string{"batch", "--content", filepath.Join(folder, "*.none"), "--style", folder, "-o",
			folder}, "--content: there is no picture in"},
		"no network": {good("--model", filepath.Join(folder, "none.pt")), "--model: " +
			filepath.Join(folder, "none.pt") + " is not there"},
		"half a network": {good("--model", write("half.pt", network[:len(network)/2])),
			"half.pt is not a whole TorchScript file"},
		"command": {[]string{"stylise"}, `unknown command "stylise"`},
		"weights": {[]string{"weights", filepath.Join(folder, "none.pth"), "-o", out + ".pt"}, "none.pth"},
		"no weights": {[]string{"weights", write("text.pth", []byte("hello")), "-o", out + ".pt"},
			"holds no weights that can be read"},
		"weights' output": {[]string{"weights", "default"}, "-o is missing"},
		"normalisation": {[]string{"weights", "default", "-o", out + ".pt", "--normalisation", "x"},
			"unknown normalisation"},
		"inspect": {[]string{"weights", "inspect", write("text.pt", []byte("hello"))},
			"is not a whole TorchScript file"},
		"inspect nothing": {[]string{"weights", "inspect"}, "inspect takes one argument"},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := runNST(t, c.args...)
			assert.Equal(t, exitUsage, status)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, c.part)
			assert.Equal(t, 1, strings.Count(stderr, "\n"), "one line: %s", stderr)
			assert.NoFileExists(t, out)
		})
	}
	t.Run("cuda", func(t *testing.T) {
		if torch.HasNVIDIADriver() {
			return // this machine may have it
		}
		status, _, stderr := runNST(t, good("--device", "cuda")...)
		assert.Equal(t, exitUsage, status)
		assert.Regexp(t, `--device: no such device: cuda: (there is no NVIDIA driver|`+
			`libtorch's CUDA library cannot be loaded)`, stderr)
	})
	t.Run("no default network", func(t *testing.T) {
		t.Setenv("NST_MODEL", "")
		t.Setenv("NST_CACHE", folder)
		var stderr bytes.Buffer
		assert.Equal(t, exitUsage, run(context.Background(), good(), &stderr, &stderr))
		assert.Contains(t, stderr.String(), "nst weights default -o "+filepath.Join(folder, "vgg19.pt"))
	})
}

// A picture says how it was made, in every format, and the same is made again.
func TestSettingsFrom(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	content, style := nsttest.Content(t), nsttest.Style(t)
	first := filepath.Join(folder, "first.png")
	status, _, stderr := runNST(t, "stylize", content, style, "-o", first, "--size", "48", "--iterations", "3",
		"--init", "noise", "--seed", "5",
		"--style-weight", "77", "--style-layers", "relu1_1=0.25,relu3_1", "--learning-rate", "0.031",
		"--color", "match", "--pooling", "avg", "--style-scale", "0.8")
	require.Equal(t, exitDone, status, stderr)
	want, err := picture.Open(first)
	require.NoError(t, err)
	for _, name := range []string{"again.png", "again.jpg", "again.webp", "again.tif"} {
		again := filepath.Join(folder, name)
		status, _, stderr = runNST(t, "stylize", content, style, "-o", again, "--settings-from", first)
		require.Equal(t, exitDone, status, stderr)
		more := filepath.Join(folder, "more.png")
		status, _, stderr = runNST(t, "stylize", content, style, "-o", more, "--settings-from", again)
		require.Equal(t, exitDone, status, stderr)
		got, err := picture.Open(more)
		require.NoError(t, err)
		assert.Equal(t, want, got, name)
	}
	other := filepath.Join(folder, "other.png")
	status, _, stderr = runNST(t, "stylize", content, style, "-o", other, "--settings-from", first, "--seed", "6")
	require.Equal(t, exitDone, status, stderr)
	got, err := picture.Open(other)
	require.NoError(t, err)
	assert.NotEqual(t, want, got, "a flag that is given goes before")
	status, _, stderr = runNST(t, "stylize", content, style, "-o", other, "--size", "48", "--iterations", "0", "--init",
		first)
	require.Equal(t, exitDone, status, stderr)
	status, _, stderr = runNST(t, "stylize", content, style, "-o", first, "--settings-from", other)
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, stderr, "was started from a picture; give it with --init")
}

func TestOutputFormats(t *testing.T) {
	folder := t.TempDir()
	for _, args := range [][]string{{"a.png", "--bits", "16"}, {"a.tif", "--bits", "16"}, {"b.png"},
		{"a.jpg", "--quality", "70"}, {"a.webp"}} {
		out := filepath.Join(folder, args[0])
		status, _, stderr := runNST(t, append([]string{"stylize", nsttest.Content(t),
			nsttest.Style(t), "-o", out, "--size", "32", "--iterations", "2"}, args[1:]...)...)
		require.Equal(t, exitDone, status, stderr)
		p, err := picture.Open(out)
		require.NoError(t, err)
		levels := 0
		for _, v := range p.Pixels {
			if l := float64(v) * 255; math.Abs(l-math.Round(l)) > 0.01 {
				levels++
			}
		}
		if len(args) > 1 && args[1] == "--bits" {
			assert.Greater(t, levels, len(p.Pixels)/2, "%s: 16 bits of real content", args[0])
		} else if args[0] == "b.png" {
			assert.Zero(t, levels)
		}
	}
}

// Every pair is made, what is there is left alone, and a bad file is reported
// at the end.
func TestBatch(t *testing.T) {
	nsttest.Long(t)
	nsttest.NoLeaks(t)
	contents, styles, out := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "new", "folder")
	content, style := nsttest.Content(t), nsttest.Style(t)
	for _, f := range []struct{ folder, from, name string }{
		{contents, content, "a.png"}, {contents, style, "b.png"}, {contents, content, "a.jpg.png"},
		{styles, style, "s.png"}, {styles, content, "t.png"},
	} {
		data, err := os.ReadFile(f.from)
		require.NoError(t, err)
		nsttest.Writer(t, f.folder)(f.name, data)
	}
	nsttest.Writer(t, contents)("bad.jpg", []byte("no picture"))
	nsttest.Writer(t, contents)("notes.txt", []byte("no picture"))
	args := []string{"batch", "--content", contents, "--style", filepath.Join(styles, "*.png"), "-o", out, "--size",
		"32", "--iterations", "2", "--json"}
	status, stdout, stderr := runNST(t, args...)
	assert.Equal(t, exitUsage, status, "an unusable input")
	assert.Contains(t, stderr, "2 of 8 pictures failed")
	assert.Contains(t, stderr, "bad.jpg is not a picture of a known format")
	assert.Equal(t, 6, strings.Count(stdout, "\n"))
	names := func() (all []string) {
		entries, err := os.ReadDir(out)
		require.NoError(t, err)
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	want := []string{"a--s.png", "a--t.png", "a.jpg--s.png", "a.jpg--t.png", "b--s.png", "b--t.png"}
	assert.Equal(t, want, names())

	// Again: what is there stays, to the byte; what is missing is made.
	kept := filepath.Join(out, "a--s.png")
	require.NoError(t, os.WriteFile(kept, []byte("mine"), 0o600))
	require.NoError(t, os.Remove(filepath.Join(out, "b--t.png")))
	require.NoError(t, os.Remove(filepath.Join(contents, "bad.jpg")))
	status, stdout, stderr = runNST(t, args...)
	require.Equal(t, exitDone, status, stderr)
	assert.Equal(t, 1, strings.Count(stdout, "\n"))
	assert.Contains(t, stderr, "5 of 6 are there already")
	data, err := os.ReadFile(kept)
	require.NoError(t, err)
	assert.Equal(t, "mine", string(data))
	status, _, stderr = runNST(t, append(args, "--overwrite", "-q")...)
	require.Equal(t, exitDone, status, stderr)
	_, err = picture.Open(kept)
	assert.NoError(t, err)

	// Several at once, of two sizes among them, come out the same.
	alone, err := picture.Open(filepath.Join(out, "b--t.png"))
	require.NoError(t, err)
	status, stdout, stderr = runNST(t, append(args, "--overwrite", "-q", "--together", "4")...)
	require.Equal(t, exitDone, status, stderr)
	assert.Equal(t, 6, strings.Count(stdout, "\n"))
	together, err := picture.Open(filepath.Join(out, "b--t.png"))
	require.NoError(t, err)
	assert.Equal(t, alone.Pixels, together.Pixels)

	// An interruption leaves no picture that is not finished.
	require.NoError(t, os.RemoveAll(out))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	interrupted, stop := context.WithCancel(context.Background())
	context.AfterFunc(ctx, stop)
	status, _, stderr = runContext(t, interrupted, append(args, "--iterations", "100000")...)
	assert.Equal(t, exitInterrupted, status, stderr)
	assert.Empty(t, names())
}

func TestBatchNames(t *testing.T) {
	assert.Equal(t, []string{"a", "b"}, outputNames([]string{"x/a.png", "x/b.jpg"}))
	assert.Equal(t, []string{"a.png", "a.jpg", "b"}, outputNames([]string{"x/a.png", "x/a.jpg", "b.png"}))
	assert.Equal(t, []string{"a.png", "a.png-2"}, outputNames([]string{"x/a.png", "y/a.png"}))
}

// The report is one file that needs no other, and holds what it should.
func TestReport(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	page := filepath.Join(folder, "report.html")
	status, _, stderr := runNST(t, "stylize", nsttest.Content(t), nsttest.Style(t), "-o",
		filepath.Join(folder, "out.png"),
		"--size", "64", "--scales", "32,48", "--iterations", "30", "--report", page, "--style-weight", "55.5")
	require.Equal(t, exitDone, status, stderr)
	data, err := os.ReadFile(page)
	require.NoError(t, err)
	text := string(data)
	for _, part := range []string{"<svg", "total", "style relu4_1", "Content: content-128x96.png",
		"Style: style-120x96.png", "Result, 64×48", "&#34;style_weight&#34;: 55.5", "<td>32</td>", "<td>64</td>",
		"30 iterations",
		"Iteration 0, 32 px"} {
		assert.Contains(t, text, part)
	}
	assert.GreaterOrEqual(t, strings.Count(text, "data:image/jpeg;base64,"), 2+1+6)
	assert.NotRegexp(t, `(src|href)="(https?:|/|\.)`, text, "nothing is fetched")
}

// Killed after some iterations more, ten times, a run that goes on from its last
// checkpoint ends with the picture and the costs of one that never was.
func TestKilledRunsResume(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	seed := nsttest.Seed(t)
	path := func(name string) string { return filepath.Join(folder, name) }
	for _, optimizer := range []string{"adam", "lbfgs"} {
		base := []string{"stylize", nsttest.Content(t), nsttest.Style(t), "--size", "96",
			"--scales", "64", "--style-size", "96", "--iterations", "300",
			"--init", "noise", "--optimizer", optimizer, "--model", smallNetwork(t), "--device", "cpu", "-q"}
		start := func(args ...string) *exec.Cmd {
			c := exec.Command(os.Args[0], append(base, args...)...)
			c.Stderr = os.Stderr
			require.NoError(t, c.Start())
			return c
		}
		require.NoError(t, start("-o", path("whole.png"), "--log", path("whole.log")).Wait())
		random := rand.New(rand.NewPCG(seed, uint64(len(optimizer))))
		state, log, out := path(optimizer+".state"), path(optimizer+".log"), path(optimizer+".png")
		kills, resumes := 0, 0
		for kills < 6 {
			args := []string{"-o", out, "--log", log, "--checkpoint", state, "--checkpoint-every", "3"}
			resumed := 0
			if _, err := os.Stat(state); err == nil {
				args = append(args, "--resume", state)
				at, err := readCheckpoint(state)
				require.NoError(t, err, "never half a checkpoint")
				if resumed = at.Iteration(); resumed > 0 {
					resumes++
				}
			}
			c := start(args...)
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			goal, done := resumed+1+random.IntN(50), false
			for !done && lines(log) < goal {
				select {
				case err := <-ended:
					require.NoError(t, err)
					done = true
				case <-time.After(5 * time.Millisecond):
				}
			}
			if done {
				break
			}
			_ = c.Process.Kill()
			if <-ended == nil {
				break // it was done
			}
			kills++
		}
		t.Logf("%s: killed %d times, resumed %d times", optimizer, kills, resumes)
		assert.Greater(t, kills, 2)
		assert.Positive(t, resumes)
		args := []string{"-o", out, "--log", log}
		if _, err := os.Stat(state); err == nil {
			args = append(args, "--resume", state)
		}
		require.NoError(t, start(args...).Wait())
		want, err := picture.Open(path("whole.png"))
		require.NoError(t, err)
		got, err := picture.Open(out)
		require.NoError(t, err)
		wantCosts, gotCosts := costsOf(t, path("whole.log")), costsOf(t, log)
		require.Len(t, gotCosts, len(wantCosts))
		for i, c := range wantCosts {
			require.Equal(t, c, gotCosts[i], "line %d", i)
		}
		assert.True(t, slices.Equal(want.Pixels, got.Pixels), "the same picture")
		entries, err := os.ReadDir(folder)
		require.NoError(t, err)
		for _, e := range entries { // a killed write leaves its own file, never half a checkpoint
			if e.Name() == filepath.Base(state) {
				_, err := readCheckpoint(state)
				assert.NoError(t, err)
			}
		}
	}
}

// costsOf is a log's lines without their times.
func costsOf(t *testing.T, log string) (lines []map[string]any) {
	data, err := os.ReadFile(log)
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		var l map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		delete(l, "seconds")
		lines = append(lines, l)
	}
	return lines
}

// The device check passes the pretend accelerator, which rounds as a card with TF32 does, and
// finds that it does: the tolerances are no wider than they need to be.
func TestCheck(t *testing.T) {
	nsttest.Long(t)
	nsttest.NoLeaks(t)
	_, err := torch.ControlDevice("tf32", 1)
	require.NoError(t, err)
	defer torch.ControlDevice("tf32", 0)
	check := func(args ...string) (got deviceCheck) {
		args = append([]string{"check", "--device", "pretend:1", "--size", "64"}, args...)
		status, stdout, stderr := runNST(t, args...)
		require.Equal(t, exitDone, status, stderr+stdout)
		require.NoError(t, json.Unmarshal([]byte(stdout), &got))
		assert.True(t, got.Passed)
		return got
	}
	got := check("--stage", "gradients", "--model", nsttest.Model(t))
	require.Len(t, got.Precisions, len(tolerances))
	for i, p := range got.Precisions {
		t.Logf("%s: gradient %.2g, total %.2g", p.Precision, p.Gradient, p.Total)
		assert.Equal(t, tolerances[i].precision, p.Precision)
		if p.Precision != nst.Double && p.Precision != nst.Exact { // which may not round
			assert.Greater(t, p.Gradient, p.Tolerances[1]/4, "%s", p.Precision)
		}
	}
	got = check("--iterations", "60", "--stage", "features", "--model", nsttest.Slim(t))
	assert.Len(t, got.Features, len(checked(64)))
	got = check("--iterations", "60", "--stage", "graphs")
	require.Len(t, got.Graphs, 2)
	for _, g := range got.Graphs {
		assert.Positive(t, g.Allocated[0])
		assert.GreaterOrEqual(t, g.Replayed, 58, "of %s: all but the first two", g.Optimizer)
	}
}

// A device that records no graph, computes something else or fails does not pass, and what it
// does well is said beside.
func TestCheckFails(t *testing.T) {
	nsttest.Long(t)
	for _, c := range []struct {
		order string
		value int64
		stage string
		says  []string // regular expressions
	}{
		{"graphs", 0, "graphs", []string{`"replayed_iterations":0[^}]*"passed":false`}},
		{"graphs", 0, "features", []string{`"feature":"plain"[^}]*"replayed_iterations":0,"passed":false`,
			`"feature":"w2"[^}]*"passed":true`}}, // which is never replayed
		{"error", 100, "gradients", []string{`"precision":"double"[^}]*"passed":false`}},
		{"error", 100, "features", []string{`"feature":"w2"[^}]*"passed":false`}},
		{"fault", 2000, "features", []string{`"error":"[^}]*the fault ordered[^}]*"passed":false`,
			`"feature":"wrap"[^}]*"passed":true`}},
	} {
		before, err := torch.ControlDevice(c.order, c.value)
		require.NoError(t, err)
		status, stdout, stderr := runNST(t, "check", "--device", "pretend:1", "--stage", c.stage, "--size", "64",
			"--iterations", "5", "--model", nsttest.Slim(t))
		_, err = torch.ControlDevice(c.order, before)
		require.NoError(t, err)
		assert.Equal(t, exitFailed, status, stderr)
		for _, says := range c.says {
			assert.Regexp(t, says, stdout, "%s %d", c.order, c.value)
		}
	}
	for _, wrong := range [][]string{{"--size", "16"}, {"--iterations", "0"}} {
		status, _, stderr := runNST(t, append([]string{"check", "--device", "pretend:1"}, wrong...)...)
		assert.Equal(t, exitUsage, status, stderr)
		assert.Contains(t, stderr, wrong[0]+" ")
	}
}

// What is no number is null.
func TestFigure(t *testing.T) {
	text, err := json.Marshal([]figure{1.5, figure(math.NaN()), figure(math.Inf(1))})
	require.NoError(t, err)
	assert.JSONEq(t, `[1.5, null, null]`, string(text))
}

func TestHelp(t *testing.T) {
	status, stdout, _ := runNST(t)
	assert.Equal(t, exitDone, status)
	for _, part := range []string{"stylize", "batch", "weights", "doctor", "130 interrupted"} {
		assert.Contains(t, stdout, part)
	}
	status, stdout, _ = runNST(t, "--version")
	assert.Equal(t, exitDone, status)
	assert.Regexp(t, `^nst version .+, ABI [0-9a-f]{8}, go1\.\d+`, stdout)
}

func TestWeights(t *testing.T) {
	folder := t.TempDir()
	out := filepath.Join(folder, "net.pt")
	source := filepath.Join(nsttest.Root(t), "nst", "vgg19", "testdata", "weights.pth")
	status, _, stderr := runNST(t, "weights", source, "-o", out)
	require.Equal(t, exitDone, status, stderr)
	status, stdout, stderr := runNST(t, "weights", "inspect", out)
	require.Equal(t, exitDone, status, stderr)
	for _, part := range []string{"weights.pth sha256:", "torchvision", "conv1_1 relu1_1", "conv2_2_weight [8 8 3 3]"} {
		assert.Contains(t, stdout, part)
	}

	// The default, from where scripts/setup keeps it, is the network it made.
	out = filepath.Join(folder, "default.pt")
	status, _, stderr = runNST(t, "weights", "default", "-o", out)
	require.Equal(t, exitDone, status, stderr)
	_, stdout, _ = runNST(t, "weights", "inspect", out)
	_, want, _ := runNST(t, "weights", "inspect", nsttest.Model(t))
	assert.Equal(t, want, stdout)
	assert.Contains(t, stdout, "c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6")
}

func TestDoctor(t *testing.T) {
	status, stdout, _ := runNST(t, "doctor")
	assert.Equal(t, exitDone, status)
	for _, part := range []string{"libtorch  2.", "device    cpu", "nothing is missing"} {
		assert.Contains(t, stdout, part)
	}
	_, stdout, _ = runNST(t, "doctor", "--json")
	var d diagnosis
	require.NoError(t, json.Unmarshal([]byte(stdout), &d))
	assert.Positive(t, d.Threads)
	assert.Positive(t, d.Devices[0].Free)
	assert.Empty(t, d.Missing)
}

func TestOneLine(t *testing.T) {
	assert.Equal(t, "a b", oneLine(errors.New("a\n\tb")))
	assert.Equal(t, "--style-layers", flagName("StyleLayers"))
	assert.Equal(t, "--tv-weight", flagName("TVWeight"))
	assert.Equal(t, "--init", flagName("Picture"))
}
