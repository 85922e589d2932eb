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
	"os"
	"os/exec"
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

func TestStylize(t *testing.T) {
	nsttest.NoLeaks(t)
	content, style := nsttest.Demo(t, "content.png"), nsttest.Demo(t, "style.png")
	folder := t.TempDir()
	out, log := filepath.Join(folder, "out.png"), filepath.Join(folder, "log.jsonl")
	status, stdout, stderr := runNST(t, "stylize", content, style, style, "-o", out, "--size", "48", "--style-size", "40",
		"--iterations", "4", "--save-every", "2", "--log", log, "--json", "--init", "noise", "--seed", "3", "--device", "cpu",
		"--optimizer", "lbfgs", "--learning-rate", "0.9", "--pooling", "avg", "--content-layers", "relu4_2",
		"--style-layers", "relu1_1=0.5,relu2_1", "--content-weight", "2", "--style-weight", "30", "--tv-weight", "3", "--style-weights", "1,2", "--style-scale", "0.9")
	require.Equal(t, exitDone, status, stderr)
	p, err := picture.Open(out)
	require.NoError(t, err)
	assert.Equal(t, [2]int{48, 32}, [2]int{p.Width, p.Height})
	assert.FileExists(t, filepath.Join(folder, "out-000002.png"))
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Len(t, entries, 3, "the result, one picture on the way, the log, and nothing else")

	var s map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	for key, want := range map[string]any{"output": out, "width": 48., "height": 32., "iterations": 4., "device": "cpu", "precision": "exact", "tiles": 1.} {
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
		total := 2*l["content"].(float64) + 3*l["tv"].(float64) + 30*(0.5*style["relu1_1"].(float64)+0.5*style["relu2_1"].(float64))
		assert.InEpsilon(t, total, l["total"], 1e-9)
		assert.Positive(t, l["tv"])
		assert.Contains(t, l, "gradient_l2")
		assert.Contains(t, l, "seconds")
	}

	// Going on from a result, and the text summary.
	status, stdout, stderr = runNST(t, "stylize", content, style, "-o", out, "--size", "48", "--iterations", "0", "--init", out)
	assert.Equal(t, exitDone, status, stderr)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "48×32, 0 iterations")
	again, err := picture.Open(out)
	require.NoError(t, err)
	assert.Equal(t, p, again, "no iteration changes nothing")
	status, stdout, stderr = runNST(t, "stylize", content, style, "-o", filepath.Join(folder, "q.jpg"), "--size", "0", "--style-size", "64", "--iterations", "0", "-q")
	assert.Equal(t, exitDone, status, stderr)
	assert.Empty(t, stdout+stderr)
}

func TestInterrupted(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.png")
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	interrupted, stop := context.WithCancel(context.Background())
	context.AfterFunc(ctx, stop)
	status, _, stderr := runContext(t, interrupted, "stylize", nsttest.Demo(t, "content.png"), nsttest.Demo(t, "style.png"), "-o", out, "--size", "64", "--iterations", "1000000", "-q")
	assert.Equal(t, exitInterrupted, status)
	assert.Contains(t, stderr, "wrote the best picture so far")
	assert.Contains(t, stderr, "nst: interrupted")
	_, err := picture.Open(out)
	assert.NoError(t, err)
}

// The program itself, by a signal.
func TestSignal(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.png")
	program := exec.Command(filepath.Join(nsttest.Root(t), "build", "bin", "nst"), "stylize", nsttest.Demo(t, "content.png"), nsttest.Demo(t, "style.png"),
		"-o", out, "--size", "64", "--iterations", "1000000", "--model", smallNetwork(t), "--log", out+".jsonl")
	require.NoError(t, program.Start())
	require.Eventually(t, func() bool {
		log, err := os.ReadFile(out + ".jsonl")
		return err == nil && bytes.Count(log, []byte("\n")) > 3
	}, 30*time.Second, 10*time.Millisecond)
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
	require.NoError(t, png.Encode(&small, image.NewNRGBA(image.Rect(0, 0, 1, 1))))
	content, style := nsttest.Demo(t, "content.png"), nsttest.Demo(t, "style.png")
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
		"missing picture":    {stylize(filepath.Join(folder, "none.jpg")), "none.jpg cannot be opened: no such file"},
		"empty picture":      {stylize(write("empty.png", nil)), "empty.png is empty"},
		"truncated picture":  {stylize(write("half.png", whole[:len(whole)/2])), "half.png is cut short"},
		"no picture":         {stylize(write("text.png", []byte("hello"))), "text.png is not a picture of a known format"},
		"zero-sized picture": {stylize(write("zero.png", pngHeader(0, 0))), "zero.png is"},
		"one-pixel picture":  {stylize(write("one.png", small.Bytes())), "1×1; layer relu5_1 needs at least 16×16"},
		"huge picture":       {stylize(write("huge.png", pngHeader(60000, 60000))), "claims 60000×60000 pixels"},
		"bad style":          {[]string{"stylize", content, filepath.Join(folder, "none.jpg"), "-o", out}, "none.jpg cannot be opened"},
		"too small":          {good("--size", "10"), "relu5_1 needs at least 16×16"},
		"layer":              {good("--style-layers", "relu7_1"), `--style-layers names an unknown layer "relu7_1"`},
		"layer's weight":     {good("--content-layers", "relu4_2=x"), `--content-layers: the weight in "relu4_2=x" is no number`},
		"preset":             {good("--preset", "fancy"), `--preset "fancy" is unknown`},
		"device":             {good("--device", "abacus"), `--device: no such device: "abacus"; known are auto, cpu, cuda and cuda:N`},
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
		"precision to be":    {good("--precision", "fast"), "--precision fast is not there yet"},
		"precision":          {good("--precision", "int8"), `--precision "int8" is unknown`},
		"start":              {good("--init", "blue"), "--init (content, noise, gray or a picture file)"},
		"flag":               {good("--colour", "red"), "unknown flag: --colour"},
		"log":                {good("--log", filepath.Join(folder, "none", "log")), "--log: "},
		"no output":          {[]string{"stylize", content, style}, "-o is missing"},
		"one picture":        {[]string{"stylize", content, "-o", out}, "at least one style picture"},
		"unwritable output":  {append(good(), "-o", "/proc/out.png"), "no file can be made in /proc"},
		"no output folder":   {append(good(), "-o", filepath.Join(folder, "none", "out.png")), "no file can be made in"},
		"directory output":   {append(good(), "-o", directory), "directory.png exists and is no regular file"},
		"output's ending":    {append(good(), "-o", filepath.Join(folder, "out.gif")), `not ".gif"`},
		"bits":               {good("--bits", "12"), "8 or 16 bits per channel, not 12"},
		"quality":            {good("--quality", "90"), ".png has no quality"},
		"scales":             {good("--scales", "64,48"), "--scales \"64,48\" does not grow"},
		"no scales":          {good("--scales", "big"), "is no schedule"},
		"scales too large":   {good("--scales", "64"), "--scales \"64\" goes beyond the result's longest side, 48"},
		"style loss":         {good("--style-loss", "l1"), `--style-loss "l1" is unknown: known are gram and moments`},
		"padding":            {good("--padding", "reflect"), `--padding "reflect" is unknown`},
		"color":              {good("--color", "blue"), `--color "blue" is unknown`},
		"one mask":           {good("--content-mask", content), "--content-mask and a mask for each style picture go together"},
		"checkpoint":         {good("--checkpoint", filepath.Join(folder, "none", "c")), "--checkpoint: "},
		"checkpoint-every":   {good("--checkpoint-every", "0"), "--checkpoint-every is 0"},
		"no checkpoint":      {good("--resume", filepath.Join(folder, "none")), "--resume: "},
		"torn checkpoint":    {good("--resume", write("torn", []byte("hello"))), "it is cut short or no checkpoint"},
		"report":             {good("--report", filepath.Join(folder, "none", "r.html")), "--report: "},
		"no settings":        {good("--settings-from", content), "says nothing of how it was made"},
		"batch":              {[]string{"batch", "--content", folder, "--style", folder}, "-o is missing"},
		"empty batch":        {[]string{"batch", "--content", filepath.Join(folder, "*.none"), "--style", folder, "-o", folder}, "--content: there is no picture in"},
		"no network":         {good("--model", filepath.Join(folder, "none.pt")), "--model: " + filepath.Join(folder, "none.pt") + " is not there"},
		"half a network":     {good("--model", write("half.pt", network[:len(network)/2])), "half.pt is not a whole TorchScript file"},
		"command":            {[]string{"stylise"}, `unknown command "stylise"`},
		"weights":            {[]string{"weights", filepath.Join(folder, "none.pth"), "-o", out + ".pt"}, "none.pth"},
		"no weights":         {[]string{"weights", write("text.pth", []byte("hello")), "-o", out + ".pt"}, "holds no weights that can be read"},
		"weights' output":    {[]string{"weights", "default"}, "-o is missing"},
		"normalisation":      {[]string{"weights", "default", "-o", out + ".pt", "--normalisation", "x"}, "unknown normalisation"},
		"inspect":            {[]string{"weights", "inspect", write("text.pt", []byte("hello"))}, "is not a whole TorchScript file"},
		"inspect nothing":    {[]string{"weights", "inspect"}, "inspect takes one argument"},
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
		assert.Regexp(t, `--device: no such device: cuda: .*libtorch_cuda\.so`, stderr)
	})
	t.Run("no default network", func(t *testing.T) {
		t.Setenv("NST_MODEL", "")
		t.Setenv("NST_CACHE", folder)
		var stderr bytes.Buffer
		assert.Equal(t, exitUsage, run(context.Background(), good(), &stderr, &stderr))
		assert.Contains(t, stderr.String(), "nst weights default -o "+filepath.Join(folder, "vgg19.pt"))
	})
}

func TestHelp(t *testing.T) {
	status, stdout, _ := runNST(t)
	assert.Equal(t, exitDone, status)
	for _, part := range []string{"stylize", "weights", "doctor", "130 interrupted"} {
		assert.Contains(t, stdout, part)
	}
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
