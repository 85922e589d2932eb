package video

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// made is a clip that ffmpeg makes of its test picture, 10 frames of 64×48 unless the
// arguments say otherwise.
func made(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	const source = "testsrc=size=64x48:rate=25:duration=0.4,gblur=sigma=4"
	all := append([]string{"-v", "error", "-f", "lavfi", "-i", source}, args...)
	out, err := exec.Command("ffmpeg", append(all, path)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// uneven leaves out every fourth frame.
var uneven = []string{"-vf", "select='not(eq(mod(n,4),1))'", "-vsync", "vfr"}

// fine is H.264 that loses next to nothing.
func fine(args ...string) []string {
	return append(args, "-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv444p")
}

// sound is an input of ffmpeg's, as long as the pictures.
var sound = []string{"-f", "lavfi", "-i", "sine=frequency=440:duration=0.4"}

// all reads a clip.
func all(t *testing.T, path string) (*Clip, []*Frame) {
	t.Helper()
	c, err := Probe(context.Background(), path)
	require.NoError(t, err)
	r, err := c.Open(context.Background())
	require.NoError(t, err)
	defer r.Close()
	var frames []*Frame
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			assert.Empty(t, r.Damaged())
			return c, frames
		}
		require.NoError(t, err)
		frames = append(frames, f)
	}
}

// Clips of many kinds have frames that are upright, with square pixels, at their times, with
// the colours that went in.
func TestClips(t *testing.T) {
	_, want := all(t, made(t, "plain.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp"))
	require.Len(t, want, 10)
	for _, c := range []struct {
		name          string
		args          []string
		width, height int
		frames        int
		tolerance     float64 // of the mean difference from the plain one, in levels; 0: other pictures
	}{
		{"h264.mp4", []string{"-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv444p"}, 64, 48, 10, 3},
		{"full.mp4", fine("-vf", "scale=out_range=pc", "-color_range", "pc"), 64, 48, 10, 3},
		{"709.mp4", fine("-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709"), 64, 48, 10, 3},
		{"pal.mp4", fine("-vf", "scale=out_color_matrix=bt470", "-colorspace", "bt470bg"), 64, 48, 10, 3},
		{"2020.mp4", fine("-vf", "scale=out_color_matrix=bt2020", "-colorspace", "bt2020nc"), 64, 48, 10, 3},
		{"hdr.mp4", []string{"-vf", "scale=out_color_matrix=bt2020,format=yuv420p10le", "-colorspace", "bt2020nc",
			"-color_trc", "arib-std-b67", "-color_primaries", "bt2020", "-c:v", "libx265", "-x265-params",
			"log-level=error"}, 64, 48, 10, 0},
		{"vp9.webm", []string{"-c:v", "libvpx-vp9", "-lossless", "1", "-pix_fmt", "yuv444p"}, 64, 48, 10, 2},
		{"moving.gif", nil, 64, 48, 10, 20},
		{"wide pixels.mkv", []string{"-vf", "setsar=2/1", "-c:v", "ffv1"}, 128, 48, 10, 0},
		{"with sound.mp4", append(sound, "-c:v", "libx264", "-crf", "1"), 64, 48, 10, 12},
		{"odd.avi", []string{"-vf", "crop=63:47", "-c:v", "ffv1", "-pix_fmt", "gbrp"}, 63, 47, 10, 0},
		{"uneven times.mkv", append([]string{"-c:v", "ffv1"}, uneven...), 64, 48, 7, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			clip, frames := all(t, made(t, c.name, c.args...))
			assert.Equal(t, [2]int{c.width, c.height}, [2]int{clip.Width, clip.Height})
			require.Len(t, frames, c.frames)
			assert.InDelta(t, 0.4, clip.Seconds, 0.05)
			sum := 0.0
			for i, f := range frames {
				require.Equal(t, [2]int{c.width, c.height}, [2]int{f.Picture.Width, f.Picture.Height})
				if i > 0 {
					assert.Greater(t, f.Time.Seconds(), frames[i-1].Time.Seconds())
				}
				if c.tolerance == 0 {
					continue
				}
				assert.InDelta(t, float64(i)/25, f.Time.Seconds(), 1e-3)
				for k, v := range f.Picture.Pixels {
					sum += max(float64(v-want[i].Picture.Pixels[k]), float64(want[i].Picture.Pixels[k]-v))
				}
			}
			assert.LessOrEqual(t, sum*255/float64(len(frames)*len(want[0].Picture.Pixels)), c.tolerance)
		})
	}
}

// A clip that is turned by what its file says is upright.
func TestUpright(t *testing.T) {
	lying := made(t, "lying.mp4", "-c:v", "libx264", "-crf", "1")
	turned := filepath.Join(t.TempDir(), "turned.mp4")
	out, err := exec.Command("ffmpeg", "-v", "error", "-i", lying, "-c", "copy", "-metadata:s:v", "rotate=90",
		turned).CombinedOutput()
	require.NoError(t, err, "%s", out)
	clip, frames := all(t, turned)
	require.Equal(t, [2]int{48, 64}, [2]int{clip.Width, clip.Height})
	_, before := all(t, lying)
	for _, y := range []int{3, 30} {
		for _, x := range []int{3, 40} { // what was at (y, 63-x) of the lying one, or the other way round
			got := frames[0].Picture.Pixels[x*48+y]
			one, other := before[0].Picture.Pixels[y*64+63-x], before[0].Picture.Pixels[(47-y)*64+x]
			assert.True(t, max(got-one, one-got) < 0.1 || max(got-other, other-got) < 0.1, "%g is not %g or %g", got,
				one, other)
		}
	}
}

// What is written has the frames' times, the sound and the kind of colours of the clip that
// it is of.
func TestWrite(t *testing.T) {
	for _, c := range []struct {
		in, out string
		args    []string
		sound   string
	}{
		{"a.mp4", "a.mp4", append(sound, "-c:v", "libx264"), "aac"},
		{"a.mkv", "a.webm", append(append(sound, "-c:v", "libx264", "-c:a", "aac"), uneven...), "opus"},
		{"a.webm", "a.mov", append(append(sound, "-c:v", "libvpx-vp9", "-c:a", "libopus"), uneven...), "aac"},
		{"a.mkv", "a.mkv", append(uneven, "-c:v", "ffv1", "-pix_fmt", "gbrp"), ""},
		{"a.mp4", "b.mp4", fine("-vf", "scale=out_color_matrix=bt470", "-colorspace", "bt470bg"), ""},
		{"a.mp4", "c.mp4", fine("-vf", "scale=out_color_matrix=bt2020", "-colorspace", "bt2020nc"), ""},
		{"a.mp4", "name with 'quotes' and %d:;.mp4", []string{"-c:v", "libx264", "-color_range", "pc"}, ""},
	} {
		t.Run(c.in+" to "+c.out, func(t *testing.T) {
			ctx := context.Background()
			clip, frames := all(t, made(t, c.in, c.args...))
			path := filepath.Join(t.TempDir(), c.out)
			e, err := clip.CheckOutput(ctx, path, 64, 48, Encoding{Quality: 100})
			require.NoError(t, err)
			w, err := clip.Create(ctx, path, 64, 48, frames[0].Time, e)
			require.NoError(t, err)
			for _, f := range frames {
				require.NoError(t, w.Write(f.Picture, f.Time))
			}
			assert.NoFileExists(t, path)
			require.NoError(t, w.Close())
			again, written := all(t, path)
			require.Len(t, written, len(frames))
			for i := range frames {
				// From the beginning of the file, which with some codecs is a little before that of the sound.
				assert.InDelta(t, frames[0].Time.Seconds(), written[0].Time.Seconds(), 0.025)
				assert.InDelta(t, frames[i].Time.Seconds()-frames[0].Time.Seconds(),
					written[i].Time.Seconds()-written[0].Time.Seconds(), 1.1e-3, "frame %d", i)
				assert.Less(t, mean(difference(frames[i].Picture, written[i].Picture)), 4./255)
			}
			if clip.matrix != "" {
				assert.Equal(t, [2]any{clip.full, clip.matrix}, [2]any{again.full, again.matrix})
			}
			if c.sound == "" {
				assert.Empty(t, again.Audio)
			} else {
				assert.Equal(t, []string{c.sound}, again.Audio)
			}
			assert.InDelta(t, clip.Seconds, again.Seconds, 0.06)
			entries, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			assert.Len(t, entries, 1, "what is written on the way is gone")
		})
	}
}

// difference is how far values are apart.
func difference(a, b *picture.Picture) []float32 {
	out := make([]float32, len(a.Pixels))
	for i := range out {
		out[i] = max(a.Pixels[i]-b.Pixels[i], b.Pixels[i]-a.Pixels[i])
	}
	return out
}

// What is no clip is one line that says so.
func TestNoClip(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	whole, err := os.ReadFile(made(t, "whole.mp4", "-c:v", "libx264"))
	require.NoError(t, err)
	cover := made(t, "cover.m4a", append(sound, "-map", "1:a", "-map", "0:v", "-frames:v", "1", "-c:v", "png",
		"-disposition:v", "attached_pic")...)
	for path, says := range map[string]string{
		filepath.Join(folder, "none.mp4"):     "cannot be opened: no such file",
		folder:                                "is no file",
		write("empty.mp4", ""):                "is no video that ffmpeg knows",
		write("text.mp4", "just some text\n"): "is no video that ffmpeg knows",
		write("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"): "is no video that " +
			"ffmpeg knows",
		write("list.ffconcat", "ffconcat version 1.0\nfile /etc/passwd\n"): "is no video that ffmpeg knows",
		write("short.mp4", string(whole[:len(whole)/2])):                   "",
		cover: "has no moving pictures",
	} {
		c, err := Probe(context.Background(), path)
		if err == nil { // it is found out when it is read
			var r *Reader
			if r, err = c.Open(context.Background()); err == nil {
				_, err = r.Next()
				r.Close()
			}
		}
		require.ErrorIs(t, err, ErrClip, path)
		assert.ErrorContains(t, err, says)
		assert.NotContains(t, err.Error(), "\n")
	}
}

// Times that keep to no rate are kept, also those of pictures that begin after the sound.
func TestTimes(t *testing.T) {
	const jitter = "settb=1/90000,setpts='PTS+mod(N*1237\\,2100)-1000+3000'"
	for _, name := range []string{"jitter.mkv", "jitter.mp4"} {
		_, plain := all(t, made(t, "plain.mkv", "-c:v", "ffv1"))
		in := made(t, name, "-vf", jitter, "-vsync", "passthrough", "-enc_time_base", "1/90000", "-c:v", "libx264",
			"-bf", "2")
		clip, frames := all(t, in)
		require.Len(t, frames, len(plain))
		out := filepath.Join(t.TempDir(), "out.mkv")
		e, err := clip.CheckOutput(context.Background(), out, 64, 48, Encoding{})
		require.NoError(t, err)
		w, err := clip.Create(context.Background(), out, 64, 48, frames[0].Time, e)
		require.NoError(t, err)
		for i, f := range frames {
			want := float64(i)/25 + (float64(i*1237%2100))/90000
			assert.InDelta(t, want, f.Time.Seconds()-frames[0].Time.Seconds(), 1.1e-3, "%s, frame %d", name, i)
			require.NoError(t, w.Write(f.Picture, f.Time))
		}
		require.NoError(t, w.Close())
		_, written := all(t, out)
		require.Len(t, written, len(frames))
		for i := range frames {
			assert.InDelta(t, frames[i].Time.Seconds()-frames[0].Time.Seconds(),
				written[i].Time.Seconds()-written[0].Time.Seconds(), 1.1e-3, "%s, frame %d", name, i)
		}
	}
	late := filepath.Join(t.TempDir(), "late.mkv")
	out, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", "-itsoffset", "0.523",
		"-i", made(t, "ten.mkv", "-r", "10", "-c:v", "ffv1"), "-map", "1:v", "-map", "0:a", "-c:v", "copy",
		"-c:a", "flac", late).CombinedOutput()
	require.NoError(t, err, "%s", out)
	_, frames := all(t, late)
	assert.InDelta(t, 0.523, frames[0].Time.Seconds(), 2e-3)
}

// A clip that becomes another one while it is read is not half of each.
func TestClipChanges(t *testing.T) {
	ctx := context.Background()
	for what, change := range map[string]func(path string) error{
		"replaced": func(path string) error { return os.Rename(made(t, "b.mkv", "-c:v", "ffv1"), path) },
		"cut":      func(path string) error { return os.Truncate(path, 1000) },
		"touched":  func(path string) error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) },
		"removed":  os.Remove,
	} {
		c, err := Probe(ctx, made(t, "a.mkv", "-c:v", "ffv1"))
		require.NoError(t, err)
		r, err := c.Open(ctx)
		require.NoError(t, err)
		_, err = r.Next()
		require.NoError(t, err)
		require.NoError(t, change(c.Path))
		for err == nil {
			_, err = r.Next()
		}
		r.Close()
		require.ErrorIs(t, err, ErrClip, what)
		_, again := c.Open(ctx)
		for _, err := range []error{err, again} {
			assert.ErrorContains(t, err, c.Path+" is not what it was when it was first read", what)
		}
	}
}

// A clip that turns into a much larger one is not followed there.
func TestGrowing(t *testing.T) {
	small := made(t, "small.ts", "-c:v", "libx264")
	large := made(t, "large.ts", "-vf", "scale=1600:1200", "-c:v", "libx264")
	a, err := os.ReadFile(small)
	require.NoError(t, err)
	b, err := os.ReadFile(large)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "both.ts")
	require.NoError(t, os.WriteFile(path, append(a, b...), 0o600))
	assert.LessOrEqual(t, framesOfDamaged(t, path), 10)
}

// framesOfDamaged is how many frames can be read of a clip, and it is said why not all.
func framesOfDamaged(t *testing.T, path string) (n int) {
	t.Helper()
	c, err := Probe(context.Background(), path)
	require.NoError(t, err)
	r, err := c.Open(context.Background())
	require.NoError(t, err)
	defer r.Close()
	for ; ; n++ {
		if _, err = r.Next(); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, io.EOF)
	assert.NotEmpty(t, r.Damaged())
	return n
}

// A clip that ends early has the frames before, and it is said why.
func TestDamaged(t *testing.T) {
	whole, err := os.ReadFile(made(t, "whole.mkv", "-c:v", "ffv1"))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "damaged.mkv")
	damaged := append([]byte{}, whole...)
	for i := len(damaged) / 2; i < len(damaged)/2+2000; i++ {
		damaged[i] ^= 0x5a
	}
	require.NoError(t, os.WriteFile(path, damaged, 0o600))
	assert.Greater(t, framesOfDamaged(t, path), 2)
}

// What ffmpeg cannot write is known before any work is done.
func TestCheckOutput(t *testing.T) {
	ctx := context.Background()
	clip, err := Probe(ctx, made(t, "a.mp4", "-c:v", "libx264"))
	require.NoError(t, err)
	for _, c := range []struct {
		name     string
		width    int
		encoding Encoding
		is       error
		says     string
	}{
		{"out.png", 64, Encoding{}, picture.ErrOutput, "clips end in .mp4, .mov, .mkv, .webm"},
		{"none/out.mp4", 64, Encoding{}, picture.ErrOutput, ""},
		{"out.mp4", 64, Encoding{Codec: "libnone"}, ErrTool, "libnone"},
		{"out.mp4", 63, Encoding{Codec: "libx264"}, ErrTool, "63"},
		{"out.mp4", 64, Encoding{Quality: 101}, picture.ErrOutput, "the quality is 101"},
	} {
		_, err := clip.CheckOutput(ctx, filepath.Join(t.TempDir(), c.name), c.width, 48, c.encoding)
		require.ErrorIs(t, err, c.is, c.name)
		assert.ErrorContains(t, err, c.says)
		assert.NotContains(t, err.Error(), "\n")
	}
	t.Setenv("PATH", t.TempDir())
	_, err = Probe(ctx, clip.Path)
	require.ErrorIs(t, err, ErrTool)
	assert.ErrorContains(t, err, "ffprobe is not installed: install ffmpeg")
}

// Reading and writing end when they are told to, and leave nothing.
func TestInterrupted(t *testing.T) {
	clip, frames := all(t, made(t, "a.mp4", "-c:v", "libx264", "-vf", "scale=640:480"))
	ctx, cancel := context.WithCancel(context.Background())
	r, err := clip.Open(ctx)
	require.NoError(t, err)
	_, err = r.Next()
	require.NoError(t, err)
	folder := t.TempDir()
	path := filepath.Join(folder, "out.mp4")
	e, err := clip.CheckOutput(ctx, path, 640, 480, Encoding{})
	require.NoError(t, err)
	w, err := clip.Create(ctx, path, 640, 480, frames[0].Time, e)
	require.NoError(t, err)
	require.NoError(t, w.Write(frames[0].Picture, frames[0].Time))
	cancel()
	for err == nil {
		_, err = r.Next()
	}
	assert.ErrorIs(t, err, context.Canceled)
	r.Close()
	assert.NoError(t, w.Abandon())
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, entries)
	assert.True(t, strings.HasSuffix(path, ".mp4"))
}
