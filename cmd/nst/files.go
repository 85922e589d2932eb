package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/picture/decoder"
	"github.com/seed9bb5c928/nst/torch"
)

// standard is the name of the standard input and output.
const standard = "-"

// decoders decode the pictures of the command line, in processes of their own: so a file keeps
// to --memory-limit whatever it says, and an interrupt ends its decoding at once.
var decoders = decoder.New(decoder.Config{})

// openPicture opens a picture, if decoding it fits what --memory-limit leaves on the CPU. An
// input may be the standard one, once.
func (t *transferFlags) openPicture(ctx context.Context, path string) (*picture.Picture, error) {
	if err := t.claim(path); err != nil {
		return nil, err
	}
	decoders.Prepare() // while libtorch is loaded
	limit, err := t.memoryLeft()
	if err != nil {
		return nil, err
	}
	return decoders.Open(ctx, path, limit)
}

// claim notes that a file is read, which the standard input can be once.
func (t *transferFlags) claim(path string) error {
	if path != standard {
		return nil
	}
	if t.stdin {
		return usage("- is standard input, which can be read once: give other pictures by name")
	}
	t.stdin = true
	return nil
}

// memoryLeft is what --memory-limit leaves of the host's memory or, without it or where
// the work is done elsewhere, what is free.
func (t *transferFlags) memoryLeft() (int64, error) {
	if t.remote {
		return math.MaxInt64, nil
	}
	used, err := torch.MemoryOf(torch.CPU)
	if err != nil {
		return 0, err
	}
	free := max(1, used.Free)
	text := t.flags.Lookup("memory-limit").Value.String()
	if text == "" {
		return free, nil
	}
	var limit nst.Bytes
	if err := limit.UnmarshalText([]byte(text)); err != nil {
		return 0, usage("--memory-limit: %w", err)
	}
	if device, err := torch.ParseDevice(t.device); limit == 0 || err != nil || device != torch.CPU {
		return free, nil
	}
	return max(1, int64(limit)-used.Allocated), nil
}

// target is where a result is written, and how.
type target struct {
	path     string
	format   picture.Format
	encoding picture.Encoding
	stdout   io.Writer
}

// newTarget checks, before any work is done, that the result can be written. The format
// is that of the name's ending, if --format does not say another.
func newTarget(path, format string, e picture.Encoding, stdout io.Writer) (target, error) {
	t := target{path, picture.Format(format), e, stdout}
	var err error
	switch {
	case format == "" && path == standard:
		t.format = picture.PNG
	case format == "":
		if t.format, err = picture.FormatOf(path); err != nil {
			return t, err
		}
	default:
		if t.format, err = picture.FormatOf("." + format); err != nil {
			return t, usage("--format is %q; png, jpg, webp, tif or avif will do", format)
		}
	}
	if err := t.format.Check(e); err != nil {
		return t, fmt.Errorf("%w (%s)", err, path)
	}
	if path == standard {
		return t, nil
	}
	return t, picture.CheckWritable(path)
}

// fit sets what the format asks of options that do not say it: one without alpha shows
// the pictures over white.
func (t target) fit(options *nst.Options) {
	if !t.format.Alpha() && options.Alpha == "" {
		options.Alpha = nst.AlphaWhite
	}
}

// at is the target for another picture of the same run.
func (t target) at(path string) target {
	t.path = path
	return t
}

// save writes a picture.
func (t target) save(p *picture.Picture) error {
	if t.path == standard {
		return p.Encode(t.stdout, t.format, t.encoding)
	}
	return picture.Replace(t.path, func(w io.Writer) error { return p.Encode(w, t.format, t.encoding) })
}

// apartFrom says whether what is written goes over what is read, or over what another flag
// writes. Both are paths by the flags that name them, or by what they are; empty ones are none.
func apartFrom(written, read map[string]string) error {
	names := slices.Sorted(maps.Keys(written))
	for i, name := range names {
		if written[name] == "" || written[name] == standard {
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(read)) {
			if read[other] != "" && sameFile(written[name], read[other]) {
				return usage("%s is %s, which is the %s; give it a file of its own", name, written[name], other)
			}
		}
		for _, other := range names[:i] {
			if written[other] != "" && sameFile(written[name], written[other]) {
				return usage("%s is %s, as %s is; give it a file of its own", name, written[name], other)
			}
		}
	}
	return nil
}

// readFiles are the files that a transfer reads, by what they are.
func (t *transferFlags) readFiles(content string, styles []string) map[string]string {
	read := map[string]string{"content": content, "content mask": t.contentMask, "strength mask": t.strengthMask,
		"network": t.model}
	for i, path := range styles {
		read[fmt.Sprintf("style %d", i+1)] = path
	}
	for i, path := range t.styleMasks {
		read[fmt.Sprintf("style mask %d", i+1)] = path
	}
	return read
}

// sameFile says whether two paths are of one file, which need not be there.
func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	second, other := os.Stat(b)
	return filepath.Clean(a) == filepath.Clean(b) || err == nil && other == nil && os.SameFile(first, second)
}
