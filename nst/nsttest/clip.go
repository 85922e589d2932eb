package nsttest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

// Clip is the file of a clip of 64×48 with so many frames, 25 a second, and a tone, until the
// test ends. It ends as the container it is to have does: ".mp4", say.
func Clip(t testing.TB, frames int, ending string) string {
	t.Helper()
	seconds := fmt.Sprint(float64(frames) / 25)
	return clip(t, ending, "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25", "-f", "lavfi", "-i", "sine=frequency=440",
		"-t", seconds, "-shortest")
}

// Shots is the file of a clip like Clip's, without sound, that has three shots: of 3, 2 and 3
// frames.
func Shots(t testing.TB, ending string) string {
	t.Helper()
	return clip(t, ending, "-filter_complex", "testsrc=size=64x48:rate=25,gblur=sigma=4,trim=end_frame=3[a];"+
		"mandelbrot=size=64x48:rate=25,trim=end_frame=2[b];"+
		"testsrc2=size=64x48:rate=25,gblur=sigma=3,trim=end_frame=3[c];[a][b][c]concat=n=3")
}

// clip is a file that ffmpeg makes.
func clip(t testing.TB, ending string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clip"+ending)
	args = append(append([]string{"-nostdin", "-v", "error"}, args...), path)
	if out, err := exec.Command("ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, out)
	}
	return path
}
