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
	path := filepath.Join(t.TempDir(), "clip"+ending)
	seconds := fmt.Sprint(float64(frames) / 25)
	out, err := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25",
		"-f", "lavfi", "-i", "sine=frequency=440", "-t", seconds, "-shortest", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, out)
	}
	return path
}
