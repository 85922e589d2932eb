package main

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// withStdin has a file as standard input.
func withStdin(t *testing.T, path string) {
	file, err := os.Open(path)
	require.NoError(t, err)
	old := os.Stdin
	os.Stdin = file
	t.Cleanup(func() { os.Stdin = old; file.Close() })
}

// A picture comes from standard input and goes to standard output.
func TestStreams(t *testing.T) {
	nsttest.Long(t)
	content, style := nsttest.Content(t), nsttest.Style(t)
	want, err := picture.Open(content)
	require.NoError(t, err)
	args := []string{"stylize", "-", style, "-o", "-", "--size", "0", "--style-size", "64", "--iterations", "0", "-q",
		"--device", "cpu"}
	for _, format := range []string{"", "jpg", "avif"} {
		withStdin(t, content)
		args := args
		if format != "" {
			args = append(args[:len(args):len(args)], "--format", format)
		}
		status, stdout, stderr := runNST(t, args...)
		require.Equal(t, exitDone, status, stderr)
		got, err := picture.Inspect([]byte(stdout))
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"": "png", "jpg": "jpeg", "avif": "avif"}[format], got.Format)
		p, err := picture.Decode(bytes.NewReader([]byte(stdout)))
		require.NoError(t, err)
		if format == "" {
			assert.Equal(t, want, p)
		}
	}
	for part, args := range map[string][]string{
		"can be read once":       {"stylize", "-", "-", "-o", filepath.Join(t.TempDir(), "a.png")},
		"--json and --save-ever": {"stylize", content, style, "-o", "-", "--json"},
		`--format is "gif"`:      {"stylize", content, style, "-o", "-", "--format", "gif"},
		"standard input is not":  {"stylize", "-", style, "-o", filepath.Join(t.TempDir(), "a.png")},
	} {
		withStdin(t, filepath.Join(nsttest.Root(t), "go.mod"))
		if part == "can be read once" {
			withStdin(t, content)
		}
		status, stdout, stderr := runNST(t, args...)
		assert.Equal(t, exitUsage, status)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, part)
	}
}

// Transparent pixels: kept where the format can, white on demand and in JPEG.
func TestAlphaFlag(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	m := image.NewNRGBA(image.Rect(0, 0, 48, 32))
	for i := range m.Pix {
		m.Pix[i] = uint8(i * 5)
	}
	for y := range 32 {
		for x := range 48 {
			if x < 8 {
				m.SetNRGBA(x, y, color.NRGBA{})
			}
		}
	}
	content := filepath.Join(folder, "alpha.png")
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	require.NoError(t, os.WriteFile(content, b.Bytes(), 0o600))
	want, err := picture.Open(content)
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		args []string
		kept bool
	}{{"a.png", nil, true}, {"a.tif", []string{"--bits", "16"}, true}, {"a.jpg", nil, false}, {"b.png",
		[]string{"--alpha", "white"}, false}} {
		out := filepath.Join(folder, c.name)
		status, _, stderr := runNST(t, append([]string{"stylize", content, nsttest.Style(t), "-o", out,
			"--size", "0", "--style-size", "64", "--iterations", "1", "-q", "--device", "cpu"}, c.args...)...)
		require.Equal(t, exitDone, status, stderr)
		p, err := picture.Open(out)
		require.NoError(t, err)
		if c.kept {
			assert.Equal(t, want.Alpha, p.Alpha, c.name)
		} else {
			assert.Nil(t, p.Alpha, c.name)
		}
	}
	status, _, stderr := runNST(t, "stylize", content, content, "-o", filepath.Join(folder, "c.png"), "--alpha",
		"black")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, stderr, `--alpha "black" is unknown`)
}

// --memory-limit covers decoding: what does not fit is refused with what would do.
func TestMemoryLimitOfDecoding(t *testing.T) {
	folder := t.TempDir()
	large := filepath.Join(folder, "large.png")
	m := image.NewGray(image.Rect(0, 0, 12000, 9000))
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	require.NoError(t, os.WriteFile(large, b.Bytes(), 0o600))
	status, _, stderr := runNST(t, "stylize", large, nsttest.Style(t), "-o", filepath.Join(folder, "a.png"),
		"--size", "96", "--memory-limit", "1G", "--device", "cpu")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, stderr, "is of 12000×9000 pixels, for which decoding takes 2.4 GiB of memory;")
	assert.Contains(t, stderr, "a higher limit will do if there is more, or a smaller copy of the file")
}

// Files that a folder's batch leaves out are named, and nothing but these is a failure.
func TestLeftOut(t *testing.T) {
	folder := t.TempDir()
	notes := filepath.Join(folder, "notes.txt")
	require.NoError(t, os.WriteFile(notes, []byte("x"), 0o600))
	args := []string{"batch", "--content", folder, "--style", filepath.Dir(nsttest.Style(t)), "-o",
		filepath.Join(folder, "out"), "--size", "32", "--iterations", "0", "-q", "--device", "cpu"}
	status, _, stderr := runNST(t, args...)
	assert.Equal(t, exitFailed, status)
	assert.Contains(t, stderr, "left out "+notes)
	assert.Contains(t, stderr, "all files in "+folder+" were left out")
}

// What is read is not written over, by whatever flag.
func TestApartFrom(t *testing.T) {
	folder := t.TempDir()
	content := filepath.Join(folder, "content.png")
	data, err := os.ReadFile(nsttest.Content(t))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(content, data, 0o600))
	link := filepath.Join(folder, "link")
	require.NoError(t, os.Symlink(content, link))
	for _, flag := range []string{"--log", "--report", "--checkpoint"} {
		for _, path := range []string{content, link} {
			status, _, stderr := runNST(t, "stylize", content, nsttest.Style(t), "-o",
				filepath.Join(folder, "out.png"), "--size", "64", "--iterations", "1", flag, path)
			assert.Equal(t, exitUsage, status)
			assert.Contains(t, stderr, flag+" is "+path+", which is the content; give it a file of its own")
			left, err := os.ReadFile(content)
			require.NoError(t, err)
			require.Equal(t, data, left)
		}
	}
}
