package video

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// Clip is a file with moving pictures, as ffprobe describes it.
type Clip struct {
	Path string
	// Width and Height are of the frames as they are to be seen: upright, with square pixels.
	Width, Height int
	// Frames is how many there are, as far as the file says; 0: it does not.
	Frames int
	// Seconds is how long it takes; 0: the file does not say.
	Seconds float64
	// Audio is the codecs of the streams with sound.
	Audio []string

	stream    int    // of the file's: the one with the pictures
	base      string // the unit of its frames' times, in seconds, as a fraction
	matrix    string // of what Y'CbCr is; empty: the pictures are RGB
	full      bool   // the values go from 0 to 255, not from 16 to 235
	primaries string
	transfer  string
	file      os.FileInfo // as it was probed
}

// probed is what ffprobe prints.
type probed struct {
	Streams []stream `json:"streams"`
	Format  struct {
		Duration string `json:"duration"`
	} `json:"format"`
}

// stream is one of a file's streams.
type stream struct {
	Index       int    `json:"index"`
	Kind        string `json:"codec_type"`
	Codec       string `json:"codec_name"`
	Width       int    `json:"width"`
	Height      int    `json:"height"`
	Aspect      string `json:"sample_aspect_ratio"`
	Format      string `json:"pix_fmt"`
	Range       string `json:"color_range"`
	Matrix      string `json:"color_space"`
	Transfer    string `json:"color_transfer"`
	Primaries   string `json:"color_primaries"`
	Rate        string `json:"avg_frame_rate"`
	Base        string `json:"time_base"`
	Frames      string `json:"nb_frames"`
	Duration    string `json:"duration"`
	Disposition struct {
		Cover int `json:"attached_pic"`
	} `json:"disposition"`
	SideData []struct {
		Rotation float64 `json:"rotation"`
	} `json:"side_data_list"`
}

// containers are the formats that a clip of somebody else's may have: those that hold what is
// in them. A playlist can name any file of this machine.
const containers = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,mxf,ivf,nut," +
	"dv,h264,hevc,yuv4mpegpipe"

// reading are the flags before an input, of whose pictures none may be larger than so many
// pixels: they may change their size on the way.
func reading(pixels int64) []string {
	return []string{"-protocol_whitelist", "file,pipe", "-format_whitelist", containers, "-max_pixels",
		strconv.FormatInt(pixels, 10)}
}

// decoding is reading of this clip: to a size that is much larger than its own it may not
// change.
func (c *Clip) decoding() []string {
	const change = 4
	return reading(min(change*int64(c.Width+64)*int64(c.Height+64), picture.MaxPixels))
}

// Probe finds out what is in a file. The error, of one line, matches ErrClip or ErrTool.
func Probe(ctx context.Context, path string) (*Clip, error) {
	info, err := os.Stat(path)
	if err != nil {
		var of *os.PathError
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, fmt.Errorf("%w: %s cannot be opened: %w", ErrClip, path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no file; one with a video will do (a clip is read more than once)", ErrClip,
			path)
	}
	var p probed
	said, err := probe(ctx, path, reading(picture.MaxPixels), &p, "-show_format", "-show_streams")
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(said, "Invalid argument") { // ffmpeg's word for what is not among the containers
		said = "it is of a kind that is not read; .mp4, .mov, .mkv, .webm, .avi, .mpg, .ts and .gif will do"
	}
	if said != "" {
		return nil, fmt.Errorf("%w: %s is no video that ffmpeg knows: %s", ErrClip, path, said)
	}
	c, err := p.clip(path)
	if err == nil {
		c.file = info
	}
	return c, err
}

// unchanged is an error if the file is not the one that was probed any more: it is read again
// and again while frames are made, and half of each would be a clip that nobody has asked for.
func (c *Clip) unchanged() error {
	info, err := os.Stat(c.Path)
	if err == nil && info.Size() == c.file.Size() && info.ModTime().Equal(c.file.ModTime()) {
		return nil
	}
	return fmt.Errorf("%w: %s is not what it was when it was first read, by its size and time: leave it as it is "+
		"until the result is written", ErrClip, c.Path)
}

// probe asks ffprobe, by flags and those before an input, and reads its answer. Where it cannot
// tell, said is why.
func probe(ctx context.Context, path string, before []string, answer any, flags ...string) (said string, err error) {
	args := slices.Concat([]string{"-v", "error", "-print_format", "json"}, flags, before, []string{input(path)})
	c, err := command(ctx, 0, "ffprobe", args...)
	if err != nil {
		return "", err
	}
	out := limited{most: maxProbed}
	c.Stdout = &out
	if err := c.start(); err != nil {
		return "", err
	}
	err = c.wait()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case out.over:
		return "it says more of itself than a video has to say", nil
	case err != nil:
		return strings.TrimPrefix(c.said.explain(err), input(path)+": "), nil
	}
	if err := json.Unmarshal(out.data, answer); err != nil {
		return "what ffprobe says of it cannot be read: " + err.Error(), nil
	}
	return "", nil
}

// maxProbed is how many bytes ffprobe may say of a file.
const maxProbed = 16 << 20

// limited keeps what is written, up to a limit.
type limited struct {
	data []byte
	most int
	over bool
}

// Write keeps it, or fails: then who writes ends.
func (l *limited) Write(p []byte) (int, error) {
	if l.over = l.over || len(l.data)+len(p) > l.most; l.over {
		return 0, io.ErrShortWrite
	}
	l.data = append(l.data, p...)
	return len(p), nil
}

// clip is the description of the first stream with moving pictures.
func (p probed) clip(path string) (*Clip, error) {
	i := slices.IndexFunc(p.Streams, func(s stream) bool { return s.Kind == "video" && s.Disposition.Cover == 0 })
	if i < 0 {
		return nil, fmt.Errorf("%w: %s has no moving pictures", ErrClip, path)
	}
	s := p.Streams[i]
	c := &Clip{Path: path, Width: s.Width, Height: s.Height, stream: s.Index, full: s.Range == "pc",
		matrix: known(s.Matrix), primaries: known(s.Primaries), transfer: known(s.Transfer)}
	if wide, high, ok := fraction(s.Aspect, ":"); ok && wide > 0 && wide != high {
		c.Width = max(1, int(math.Round(float64(c.Width)*wide/high)))
	}
	for _, d := range s.SideData {
		if quarter := math.Mod(math.Abs(d.Rotation), 180); quarter > 45 && quarter < 135 {
			c.Width, c.Height = c.Height, c.Width
		}
	}
	if c.Width < 1 || c.Height < 1 {
		return nil, fmt.Errorf("%w: %s does not say how large its pictures are", ErrClip, path)
	}
	if max(c.Width, c.Height) > picture.MaxSide || int64(c.Width)*int64(c.Height) > picture.MaxPixels {
		return nil, fmt.Errorf("%w: %s has pictures of %d×%d; at most %d million pixels will do", ErrClip, path,
			c.Width, c.Height, picture.MaxPixels/1_000_000)
	}
	rgb := strings.Contains(s.Format, "rgb") || strings.Contains(s.Format, "bgr") ||
		strings.HasPrefix(s.Format, "gbr") || strings.HasPrefix(s.Format, "pal") || s.Matrix == "gbr"
	_, converted := scaleMatrices[c.matrix]
	switch { // what players take where a file says nothing, or nothing that is usual
	case rgb:
		c.matrix = ""
	case !converted && c.Height >= 720:
		c.matrix = "bt709"
	case !converted:
		c.matrix = "smpte170m"
	}
	if strings.HasPrefix(s.Format, "yuvj") {
		c.full = true
	}
	c.Seconds, _ = strconv.ParseFloat(s.Duration, 64)
	if c.Seconds <= 0 {
		c.Seconds, _ = strconv.ParseFloat(p.Format.Duration, 64)
	}
	c.base = s.Base
	if one, by, ok := fraction(s.Base, "/"); !ok || one <= 0 || by <= 0 {
		c.base = "1/90000" // MPEG's
	}
	if c.Frames, _ = strconv.Atoi(s.Frames); c.Frames <= 0 {
		if frames, by, ok := fraction(s.Rate, "/"); ok && frames > 0 {
			c.Frames = int(math.Round(c.Seconds * frames / by))
		}
	}
	for _, s := range p.Streams {
		if s.Kind == "audio" {
			c.Audio = append(c.Audio, s.Codec)
		}
	}
	return c, nil
}

// CountFrames counts the frames that are in the file, without decoding them: Frames is what
// the file says. Fewer may be decoded.
func (c *Clip) CountFrames(ctx context.Context) (int, error) {
	var counted struct {
		Streams []struct {
			Packets string `json:"nb_read_packets"`
		} `json:"streams"`
	}
	said, err := probe(ctx, c.Path, c.decoding(), &counted, "-count_packets", "-select_streams",
		strconv.Itoa(c.stream), "-show_entries", "stream=nb_read_packets")
	if err != nil {
		return 0, err
	}
	if said != "" {
		return 0, fmt.Errorf("%w: %s has frames that cannot be counted: %s", ErrClip, c.Path, said)
	}
	if len(counted.Streams) > 0 {
		if n, err := strconv.Atoi(counted.Streams[0].Packets); err == nil && n > 0 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: %s has no frames", ErrClip, c.Path)
}

// scaleMatrices are ffmpeg's names of the kinds of Y'CbCr, as its scale filter wants them.
var scaleMatrices = map[string]string{"bt709": "bt709", "smpte170m": "smpte170m", "bt470bg": "bt470", "fcc": "fcc",
	"smpte240m": "smpte240m", "bt2020nc": "bt2020", "bt2020c": "bt2020"}

// known is what ffprobe says of colours, or nothing.
func known(word string) string {
	if word == "unknown" || word == "reserved" {
		return ""
	}
	return word
}

// fraction reads two numbers.
func fraction(text, between string) (a, b float64, ok bool) {
	first, second, _ := strings.Cut(text, between)
	a, err := strconv.ParseFloat(first, 64)
	b, other := strconv.ParseFloat(second, 64)
	return a, b, err == nil && other == nil && b != 0
}

// highDynamicRange says whether the pictures are brighter than a screen of sRGB.
func (c *Clip) highDynamicRange() bool {
	return c.transfer == "smpte2084" || c.transfer == "arib-std-b67"
}
