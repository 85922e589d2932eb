package video

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// Time is when a frame is shown, from the clip's beginning, and for how long, in units of
// Base seconds.
type Time struct {
	At   int64    `json:"at"`
	For  int64    `json:"for"`
	Base [2]int64 `json:"base"` // a fraction
}

// Seconds is when the frame is shown.
func (t Time) Seconds() float64 { return float64(t.At) * float64(t.Base[0]) / float64(t.Base[1]) }

// nanoseconds is a number of the time's units.
func (t Time) nanoseconds(units int64) int64 {
	whole, rest := units*t.Base[0]/t.Base[1], units*t.Base[0]%t.Base[1]
	return whole*1_000_000_000 + (rest*1_000_000_000+t.Base[1]/2)/t.Base[1]
}

// Frame is one of a clip's pictures.
type Frame struct {
	Picture *picture.Picture
	Time    Time
}

// Reader reads a clip's frames, one after the other. It holds few at a time.
type Reader struct {
	clip   *Clip
	ctx    context.Context
	cmd    *tooling
	pixels chan []byte
	times  chan Time
	ahead  [][]byte // frames of which it is not known yet when they are shown
	done   chan struct{}
	read   int
	closed bool
	ended  error // how ffmpeg did
}

// Open begins to read. The caller closes the reader. The error, as Reader.Next's, matches ErrClip
// where the file is not the one that was probed.
func (c *Clip) Open(ctx context.Context) (*Reader, error) {
	if err := c.unchanged(); err != nil {
		return nil, err
	}
	// The pictures go to one pipe, and when each is shown to another, as lines of numbers.
	graph := fmt.Sprintf("[0:%d]%s,split[pixels][times]", c.stream, c.upright())
	args := append([]string{"-nostdin", "-v", "error"}, c.decoding()...)
	args = append(args, "-i", input(c.Path), "-filter_complex", graph)
	// In the clip's own unit of time, or ffmpeg rounds to that of the rate of frames.
	raw := []string{"-fps_mode", "passthrough", "-enc_time_base", c.base, "-c:v", "rawvideo"}
	args = append(append(append(args, "-map", "[pixels]"), raw...), "-f", "rawvideo", "pipe:1")
	args = append(append(append(args, "-map", "[times]"), raw...), "-flush_packets", "1", "-f", "framecrc", "pipe:3")
	cmd, err := command(ctx, c.Width*c.Height, "ffmpeg", args...)
	if err != nil {
		return nil, err
	}
	lines, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	pixels, err := cmd.StdoutPipe() // which a failed start closes
	if err == nil {
		err = cmd.start()
	}
	if err != nil {
		lines.Close()
		return nil, err
	}
	r := &Reader{clip: c, ctx: ctx, cmd: cmd, pixels: make(chan []byte), times: make(chan Time),
		done: make(chan struct{})}
	go r.readPixels(pixels)
	go r.readTimes(lines)
	return r, nil
}

// upright are the filters that make what is to be seen of a stream's pictures: square
// pixels, RGB of 8 bits, and of more light than a screen has as much as it has. (ffmpeg turns
// them upright by itself.)
func (c *Clip) upright() string {
	filters := []string{fmt.Sprintf("scale=w=%d:h=%d", c.Width, c.Height), "setsar=1"}
	if c.highDynamicRange() {
		return strings.Join(append(filters, "zscale=transfer=linear:npl=100", "format=gbrpf32le",
			"zscale=primaries=bt709", "tonemap=hable:desat=0", "zscale=transfer=bt709:matrix=bt709:range=tv",
			"format=yuv444p", "scale=in_color_matrix=bt709", "format=rgb24"), ",")
	}
	if c.matrix != "" {
		filters[0] += ":in_color_matrix=" + scaleMatrices[c.matrix] + ":flags=bicubic+accurate_rnd+full_chroma_int"
	}
	return strings.Join(append(filters, "format=rgb24"), ",")
}

// readPixels reads the frames.
func (r *Reader) readPixels(from io.Reader) {
	defer close(r.pixels)
	defer drained(from) // so that it can end
	for {
		data := make([]byte, 3*r.clip.Width*r.clip.Height)
		if _, err := io.ReadFull(from, data); err != nil {
			return
		}
		select {
		case r.pixels <- data:
		case <-r.done:
			return
		}
	}
}

// readTimes reads what ffmpeg's framecrc writes: lines of comments, of which one is the unit
// of time, and for each frame the stream, when it is decoded, when it is shown, for how long,
// its bytes and their checksum.
func (r *Reader) readTimes(from io.ReadCloser) {
	defer from.Close()
	defer close(r.times)
	defer drained(from)
	base := [2]int64{1, 1}
	for lines := bufio.NewScanner(from); lines.Scan(); {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "#tb 0: "); ok {
			_, _ = fmt.Sscanf(rest, "%d/%d", &base[0], &base[1])
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, ",")
		if len(fields) < 4 {
			continue
		}
		at, err := strconv.ParseInt(strings.TrimSpace(fields[2]), 10, 64)
		if err != nil {
			continue
		}
		long, _ := strconv.ParseInt(strings.TrimSpace(fields[3]), 10, 64)
		select {
		case r.times <- Time{At: at, For: long, Base: base}:
		case <-r.done:
			return
		}
	}
}

// Next reads a frame. At the end it is io.EOF; Damaged then says whether it is the clip's.
func (r *Reader) Next() (*Frame, error) {
	if len(r.ahead) == 0 {
		data, ok := <-r.pixels
		switch {
		case r.ctx.Err() != nil:
			return nil, r.ctx.Err()
		case !ok && r.read == 0:
			return nil, r.failed()
		case !ok:
			return nil, r.end()
		}
		r.ahead = append(r.ahead, data)
	}
	// ffmpeg may wait for its frames to be taken before it says when they are shown.
	for pixels := r.pixels; ; {
		select {
		case at, ok := <-r.times:
			if !ok {
				if r.ctx.Err() != nil {
					return nil, r.ctx.Err()
				}
				return nil, r.failed()
			}
			// Asked of each frame, so that none of another clip is kept.
			if err := r.clip.unchanged(); err != nil {
				return nil, err
			}
			data := r.ahead[0]
			r.ahead = r.ahead[1:]
			r.read++
			return &Frame{pictureOf(data, r.clip.Width, r.clip.Height), at}, nil
		case data, ok := <-pixels:
			if !ok {
				pixels = nil
				continue
			}
			r.ahead = append(r.ahead, data)
		}
	}
}

// failed is the error of a clip without a frame, or of one that has no time.
func (r *Reader) failed() error {
	r.Close()
	if err := r.clip.unchanged(); err != nil {
		return err
	}
	why := r.cmd.said.last()
	switch {
	case why == "":
		why = "it is empty"
	case strings.HasPrefix(why, "Error marking filters"): // which is what comes of it
		why = "none is whole"
	}
	return fmt.Errorf("%w: %s has no frame that ffmpeg can decode: %s", ErrClip, r.clip.Path, why)
}

// end is io.EOF where ffmpeg has come to an end by itself, and of the clip that was probed.
func (r *Reader) end() error {
	if !r.closed {
		r.closed = true
		close(r.done)
		r.ended = r.cmd.wait()
	}
	var exit *exec.ExitError
	gaveUp := errors.As(r.ended, &exit) && exit.Exited() // on the clip, and said why
	if r.ended != nil && !gaveUp {
		return fmt.Errorf("%w was ended when it had decoded %d frames: %w", ErrTool, r.read, r.ended)
	}
	return cmp.Or(r.clip.unchanged(), io.EOF)
}

// Damaged is what ffmpeg said of the clip where it could not be decoded as it should, after
// io.EOF; empty: nothing.
func (r *Reader) Damaged() string { return r.cmd.said.last() }

// Close ends the reading.
func (r *Reader) Close() {
	if r.closed {
		return
	}
	r.closed = true
	close(r.done)
	_ = r.cmd.Cancel()
	_ = r.cmd.wait() // it was told to end
}

// pictureOf makes a picture of RGB bytes.
func pictureOf(data []byte, width, height int) *picture.Picture {
	p := picture.New(width, height)
	plane := width * height
	for i := range plane {
		for k := range 3 {
			p.Pixels[k*plane+i] = float32(data[3*i+k]) / 255
		}
	}
	return p
}

// bytesOf is pictureOf's inverse; values are rounded.
func bytesOf(p *picture.Picture) []byte {
	plane := p.Width * p.Height
	data := make([]byte, 3*plane)
	for i := range plane {
		for k := range 3 {
			data[3*i+k] = byte(min(max(p.Pixels[k*plane+i], 0), 1)*255 + 0.5)
		}
	}
	return data
}
