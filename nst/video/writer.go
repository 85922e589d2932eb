package video

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// Encoding is how a clip is written.
type Encoding struct {
	// Codec is one of ffmpeg's encoders; empty: the first that it has of those that are usual
	// for the file's kind (H.264, for .webm VP9).
	Codec string
	// Quality is from 1 to 100; 0 means 65. It is what the encoder makes of it: libx264's
	// constant rate factor falls from 51 to 0, and 65 is 18.
	Quality int
	// Short has the sound end with the frames: for a clip of which not all are made.
	Short bool
}

// container is a kind of file.
type container struct {
	name   string   // ffmpeg's
	codecs []string // that are tried
	audio  []string // that it can hold as they are; nil: all
	other  string   // what sound is made otherwise
}

var (
	h264    = []string{"libx264", "h264_nvenc", "libopenh264", "mpeg4"}
	kindsOf = map[string]container{
		".mp4": {"mp4", h264, []string{"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}, "aac"},
		".m4v": {"mp4", h264, []string{"aac", "mp3", "ac3", "eac3", "alac"}, "aac"},
		".mov": {"mov", h264, []string{"aac", "mp3", "ac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be"}, "aac"},
		".mkv": {"matroska", h264, nil, ""},
		".webm": {"webm", []string{"libvpx-vp9", "libsvtav1", "libaom-av1", "libvpx"}, []string{"opus", "vorbis"},
			"libopus"},
	}
)

// Endings are those of files that clips are written to.
const Endings = ".mp4, .mov, .mkv, .webm"

// CheckOutput says whether a clip with frames of width×height can be written so, before any
// work is done: whether ffmpeg has the encoder and it takes such frames. It returns the
// encoding with every choice made. The error matches ErrTool, or picture.ErrOutput.
func (c *Clip) CheckOutput(ctx context.Context, path string, width, height int, e Encoding) (Encoding, error) {
	kind, ok := kindsOf[strings.ToLower(filepath.Ext(path))]
	if !ok {
		return e, fmt.Errorf("%w: %s: clips end in %s", picture.ErrOutput, path, Endings)
	}
	if e.Quality < 0 || e.Quality > 100 {
		return e, fmt.Errorf("%w: the quality is %d; 1 to 100 will do", picture.ErrOutput, e.Quality)
	}
	if e.Quality == 0 {
		e.Quality = 65
	}
	if err := picture.CheckWritable(path); err != nil {
		return e, err
	}
	try := kind.codecs
	if e.Codec != "" {
		try = []string{e.Codec}
	}
	var why error
	for _, e.Codec = range try {
		if why = c.tryEncoder(ctx, filepath.Ext(path), width, height, e); why == nil {
			return e, nil
		}
		if ctx.Err() != nil {
			return e, ctx.Err()
		}
	}
	return e, why
}

// tryEncoder encodes one black frame.
func (c *Clip) tryEncoder(ctx context.Context, ending string, width, height int, e Encoding) error {
	dir, err := os.MkdirTemp("", "nst-encoder-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	silent := *c
	silent.Audio, silent.Path = nil, ""
	at := Time{Base: [2]int64{1, 25}, For: 1}
	w, err := silent.Create(ctx, filepath.Join(dir, "one"+ending), width, height, at, e)
	if err != nil {
		return err
	}
	if err := errors.Join(w.Write(picture.New(width, height), at), w.Close()); err != nil {
		return fmt.Errorf("%w cannot write %s of %d×%d by %s: %s", ErrTool, ending, width, height, e.Codec,
			w.cmd.said.explain(err))
	}
	return nil
}

// Writer writes a clip, as ffmpeg encodes it. The file is there when all of it is.
type Writer struct {
	ctx    context.Context
	file   *picture.Pending // which ffmpeg writes, by its name
	cmd    *tooling
	stdin  io.WriteCloser
	width  int
	height int
	closed bool
}

// Create begins a clip like this one, with its sound, its rate of frames and its kind of
// colours, of frames of width×height, of which the first is shown at a time. The encoding is
// CheckOutput's. The caller closes the writer, or abandons it.
func (c *Clip) Create(ctx context.Context, path string, width, height int, first Time, e Encoding) (*Writer, error) {
	file, err := picture.Begin(path)
	if err != nil {
		return nil, err
	}
	w := &Writer{ctx: ctx, file: file, width: width, height: height}
	args := c.writing(kindsOf[strings.ToLower(filepath.Ext(path))], first, e)
	if err := w.start(append(args, input(file.Name())), first); err != nil {
		return nil, errors.Join(err, file.Abandon())
	}
	return w, nil
}

// writing are ffmpeg's flags, but for the file.
func (c *Clip) writing(kind container, first Time, e Encoding) []string {
	args := []string{"-nostdin", "-y", "-v", "error",
		"-itsoffset", strconv.FormatFloat(first.Seconds(), 'f', 9, 64), "-f", "matroska", "-i", "pipe:0"}
	if c.Path != "" { // for its sound, its title and its chapters
		args = append(append(args, c.decoding()...), "-i", input(c.Path))
	}
	args = append(args, "-map", "0:v:0", "-vf", c.encoded(), "-c:v", e.Codec)
	args = append(args, quality(e)...)
	args = append(args, c.tags()...)
	// The unit of time is the clip's own, so that no time is rounded.
	base := fmt.Sprintf("%d/%d", first.Base[0], first.Base[1])
	args = append(args, "-fps_mode", "passthrough", "-enc_time_base", base)
	if c.Path != "" {
		args = append(args, "-map_metadata", "1", "-map_chapters", "1", "-map", "1:a?")
		for i, codec := range c.Audio {
			how := "copy"
			if kind.audio != nil && !slices.Contains(kind.audio, codec) {
				how = kind.other
			}
			args = append(args, fmt.Sprintf("-c:a:%d", i), how)
		}
	}
	if e.Short {
		args = append(args, "-shortest")
	}
	if kind.name == "mp4" || kind.name == "mov" {
		args = append(args, "-movflags", "+faststart")
	}
	return append(args, "-f", kind.name)
}

// start starts ffmpeg, and sends it what comes before the frames.
func (w *Writer) start(args []string, first Time) (err error) {
	if w.cmd, err = command(w.ctx, w.width*w.height, "ffmpeg", args...); err != nil {
		return err
	}
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := w.cmd.start(); err != nil {
		return err
	}
	if _, err := w.stdin.Write(matroskaHeader(w.width, w.height, first)); err != nil {
		return w.failed(err)
	}
	return nil
}

// encoded are the filters between RGB and what the encoder takes.
func (c *Clip) encoded() string {
	return "scale=out_color_matrix=" + scaleMatrices[c.outMatrix()] + ":out_range=" + c.outRange() +
		":flags=bicubic+accurate_rnd+full_chroma_int,format=yuv420p"
}

// outMatrix is the clip's own, or for RGB what players take.
func (c *Clip) outMatrix() string {
	switch {
	case c.highDynamicRange(), c.matrix == "" && c.Height >= 720:
		return "bt709"
	case c.matrix == "":
		return "smpte170m"
	}
	return c.matrix
}

func (c *Clip) outRange() string {
	if c.full && c.matrix != "" {
		return "pc"
	}
	return "tv"
}

// tags say of the colours what is known of the clip's.
func (c *Clip) tags() []string {
	primaries, transfer := c.primaries, c.transfer
	if c.highDynamicRange() {
		primaries, transfer = "bt709", "bt709"
	}
	out := []string{"-colorspace", c.outMatrix(), "-color_range", c.outRange()}
	if primaries != "" {
		out = append(out, "-color_primaries", primaries)
	}
	if transfer != "" {
		out = append(out, "-color_trc", transfer)
	}
	return out
}

// quality are an encoder's flags.
func quality(e Encoding) []string {
	part := float64(100-e.Quality) / 100
	factor := func(most float64) string { return strconv.Itoa(int(part*most + 0.5)) }
	switch e.Codec {
	case "libx264", "libx265":
		return []string{"-crf", factor(51), "-preset", "medium"}
	case "libvpx-vp9", "libvpx", "libaom-av1", "libsvtav1":
		return []string{"-crf", factor(63), "-b:v", "0"}
	case "h264_nvenc", "hevc_nvenc", "av1_nvenc":
		return []string{"-cq", factor(51), "-b:v", "0"}
	}
	return []string{"-q:v", strconv.Itoa(1 + int(part*30))}
}

// Write adds a frame.
func (w *Writer) Write(p *picture.Picture, at Time) error {
	if p.Width != w.width || p.Height != w.height {
		return fmt.Errorf("a frame of %d×%d does not go into a clip of %d×%d", p.Width, p.Height, w.width, w.height)
	}
	if _, err := w.stdin.Write(matroskaFrame(bytesOf(p), at)); err != nil {
		return w.failed(err)
	}
	return nil
}

func (w *Writer) failed(err error) error {
	w.stdin.Close()
	waited := w.cmd.wait()
	w.closed = true
	if waited != nil {
		err = waited
	}
	return w.why(err)
}

// why is the error of an ffmpeg that has ended with one.
func (w *Writer) why(err error) error {
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	return fmt.Errorf("%w: %s", ErrTool, w.cmd.said.explain(err))
}

// Close ends the clip, and puts it in its place.
func (w *Writer) Close() error {
	if w.closed {
		return w.file.Abandon()
	}
	w.stdin.Close()
	w.closed = true
	if err := w.cmd.wait(); err != nil {
		return errors.Join(w.why(err), w.file.Abandon())
	}
	return w.file.Commit()
}

// Abandon ends the writing, and leaves nothing.
func (w *Writer) Abandon() error {
	if !w.closed {
		w.closed = true
		_ = w.cmd.Cancel()
		w.stdin.Close()
		_ = w.cmd.wait()
	}
	return w.file.Abandon()
}

// Frames go to ffmpeg as Matroska (RFC 9559) with uncompressed pictures, the simplest format
// that has a time for each. It is made of elements: an identifier, a size, and data.

// element is one, with its data.
func element(id uint32, data ...[]byte) []byte {
	all := slices.Concat(data...)
	out := identifier(id)
	out = binary.BigEndian.AppendUint64(out, 1<<56|uint64(len(all))) // a size of 8 bytes
	return append(out, all...)
}

func identifier(id uint32) []byte {
	return bytes.TrimLeft(binary.BigEndian.AppendUint32(nil, id), "\x00")
}

func number(id uint32, v uint64) []byte { return element(id, binary.BigEndian.AppendUint64(nil, v)) }

func text(id uint32, v string) []byte { return element(id, []byte(v)) }

// matroskaHeader is all before the frames.
func matroskaHeader(width, height int, first Time) []byte {
	const unknownSize = "\x01\xff\xff\xff\xff\xff\xff\xff"
	return slices.Concat(
		element(0x1A45DFA3, text(0x4282, "matroska"), number(0x4287, 4), number(0x4285, 2)), // EBML
		identifier(0x18538067), []byte(unknownSize), // Segment
		element(0x1549A966, number(0x2AD7B1, 1), text(0x4D80, "nst"), text(0x5741, "nst")), // Info: nanoseconds
		element(0x1654AE6B, element(0xAE, // Tracks, of one
			number(0xD7, 1), number(0x73C5, 1), number(0x83, 1), text(0x86, "V_UNCOMPRESSED"),
			number(0x23E383, uint64(max(1, first.nanoseconds(first.For)))),
			element(0xE0, number(0xB0, uint64(width)), number(0xBA, uint64(height)), text(0x2EB524, "RGB\x18")))))
}

// matroskaFrame is a cluster of one frame.
func matroskaFrame(data []byte, at Time) []byte {
	block := element(0xA1, []byte{0x81, 0, 0, 0}, data) // of track 1, at the cluster's time
	return element(0x1F43B675, number(0xE7, uint64(max(0, at.nanoseconds(at.At)))),
		element(0xA0, block, number(0x9B, uint64(max(1, at.nanoseconds(at.For))))))
}
