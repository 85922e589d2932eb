package picture

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"math"
	"regexp"
	"slices"

	"github.com/gen2brain/jpegn"
	"golang.org/x/image/webp"
)

// What files carry around their pixels.

// tagged takes the orientation from EXIF or, if that has none, from XMP.
func (f *file) tagged(exif, xmp []byte) {
	exif = bytes.TrimPrefix(exif, []byte("Exif\x00\x00"))
	f.comment = commentEXIF(exif)
	if o := orientationEXIF(exif); o != 0 {
		f.orientation = o
	} else if match := orientationXMP.FindSubmatch(xmp); match != nil {
		f.orientation = orientation(match[1][0] - '0')
	}
}

var orientationXMP = regexp.MustCompile(`tiff:Orientation(?:\s*=\s*["']|\s*>\s*)([1-8])\b`)

// readJPEG walks the segments up to the end of the picture (ITU-T T.81, annex B).
func readJPEG(data []byte, f *file) error {
	f.format = "jpeg"
	var exif, xmp []byte
	var j jpegColours
	profile, profileParts := map[byte][]byte{}, byte(0)
	progressive, ended, scans, end := false, false, 0, len(data)
	for at, scan := 2, false; !ended; {
		if scan { // entropy-coded data, in which a marker's 0xff is followed by neither 0 nor RST
			for at+1 < len(data) && (data[at] != 0xff || data[at+1] == 0 ||
				(data[at+1] >= 0xd0 && data[at+1] <= 0xd7)) {
				at++
			}
			scan = false
		}
		for at < len(data) && data[at] != 0xff { // viewers skip what should not be there
			at++
		}
		for at < len(data) && data[at] == 0xff { // fill bytes
			at++
		}
		if at >= len(data) {
			break
		}
		marker := data[at]
		at++
		if ended = marker == 0xd9; ended {
			end = at // thumbnails and other pictures may follow
		}
		if ended || marker <= 1 || (marker >= 0xd0 && marker <= 0xd8) {
			continue // without a length
		}
		if at+2 > len(data) {
			break
		}
		size := int(binary.BigEndian.Uint16(data[at:]))
		if size < 2 || at+size > len(data) {
			break
		}
		content := data[at+2 : at+size]
		from := at + 2
		at += size
		switch {
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc: // SOFn
			if len(content) < 6 || len(content) < 6+3*int(content[5]) {
				return errors.New("a short frame header")
			}
			if len(j.ids) > 0 {
				return errors.New("two frame headers")
			}
			switch {
			case marker > 0xc2:
				return refused("is a lossless, hierarchical or arithmetic-coded JPEG: save it as an ordinary one, " +
					"or as PNG")
			case content[0] != 8:
				return refused(fmt.Sprintf("is a JPEG of %d bits: save it with 8, or as PNG", content[0]))
			}
			f.height, f.width = int(binary.BigEndian.Uint16(content[1:])), int(binary.BigEndian.Uint16(content[3:]))
			progressive = marker == 0xc2
			across, down := 1, 1 // the most samples that a component has of a block's pixels
			for i := range int(content[5]) {
				j.places = append(j.places, from+6+3*i)
				j.ids = append(j.ids, content[6+3*i])
				across, down = max(across, int(content[7+3*i]>>4)), max(down, int(content[7+3*i]&15))
			}
			whole := func(n, samples int) int64 { return int64(n+8*samples-1) / int64(8*samples) * int64(8*samples) }
			f.extra = whole(f.width, across)*whole(f.height, down) - int64(f.width)*int64(f.height)
		case marker == 0xda:
			if scans++; scans > maxScans {
				return refused(fmt.Sprintf("is a JPEG of more than %d scans: save it anew", maxScans))
			}
			if scan = true; len(content) > 0 && len(content) >= 1+2*int(content[0]) {
				for i := range int(content[0]) {
					j.places = append(j.places, from+1+2*i)
				}
			}
		case marker == 0xe0 && bytes.HasPrefix(content, []byte("JFIF\x00")):
			j.jfif = true
		case marker == 0xe1 && bytes.HasPrefix(content, []byte("Exif\x00")) && exif == nil:
			exif = content[min(6, len(content)):]
		case marker == 0xe1 && bytes.HasPrefix(content, []byte("http://ns.adobe.com/xap/1.0/\x00")) && xmp == nil:
			xmp = content
		case marker == 0xe2 && bytes.HasPrefix(content, []byte("ICC_PROFILE\x00")) && len(content) > 14:
			profile[content[12]], profileParts = content[14:], content[13]
		case marker == 0xee && bytes.HasPrefix(content, []byte("Adobe")) && len(content) >= 12:
			j.adobe, j.transform = true, content[11]
			j.markers = append(j.markers, from-3)
		}
	}
	if len(j.ids) == 0 {
		return io.ErrUnexpectedEOF
	}
	for part := byte(1); part <= profileParts && part != 0; part++ {
		if profile[part] == nil {
			f.colours.profile = nil
			break
		}
		f.colours.profile = append(f.colours.profile, profile[part]...)
	}
	f.tagged(exif, xmp)
	f.grey = len(j.ids) == 1
	f.bytes = int64(len(j.ids))
	if progressive {
		f.bytes *= 5 // coefficients of 32 bits
	}
	f.extra *= f.bytes
	f.decode = func() (image.Image, error) { return j.decode(data[:end:end], ended) }
	return nil
}

// maxScans is how many scans a JPEG may have: each goes through all of the picture, however
// few bytes it has. Encoders write up to 14.
const maxScans = 64

// jpegColours say what a JPEG's components are.
type jpegColours struct {
	ids         []byte
	places      []int // of the components' names in the file, in the frame's and the scans' headers
	markers     []int // where Adobe's segments are
	jfif, adobe bool
	transform   byte // Adobe's: 0 is RGB or CMYK, 1 YCbCr, 2 YCCK
}

// decode decodes by libjpeg's rules: JFIF goes before Adobe's marker, that before the
// components' names. The decoders do not mind the first, and want Adobe's for four
// components, which it says are inverted. A file that is not ended is decoded by the
// decoder that finds out whether something of it is missing.
func (j jpegColours) decode(data []byte, ended bool) (image.Image, error) {
	if !ended {
		data = append(bytes.Clone(data), 0xff, 0xd9)
	}
	switch {
	case len(j.ids) == 4:
		if !j.adobe { // taken for Adobe's, as Photoshop and Pillow do
			data = withAdobe(data, 0)
		}
		return jpeg.Decode(bytes.NewReader(data)) // jpegn takes some of them for RGBA
	case len(j.ids) == 3 && j.jfif && (j.adobe && j.transform == 0 || string(j.ids) == "RGB"):
		data = bytes.Clone(data)
		for _, at := range j.markers { // a comment then
			data[at] = 0xfe
		}
		for _, at := range j.places {
			data[at] = byte(bytes.IndexByte(j.ids, data[at]) + 1)
		}
	}
	if !ended {
		return jpeg.Decode(bytes.NewReader(data))
	}
	return jpegn.Decode(bytes.NewReader(data))
}

// withAdobe puts Adobe's segment at the beginning of a JPEG.
func withAdobe(data []byte, transform byte) []byte {
	segment := []byte("\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00")
	segment[len(segment)-1] = transform
	return slices.Concat(data[:2], segment, data[2:])
}

// inverted inverts inks.
func inverted(m image.Image, err error) (image.Image, error) {
	if inks, ok := m.(*image.CMYK); ok && err == nil {
		for i, v := range inks.Pix {
			inks.Pix[i] = 255 - v
		}
	}
	return m, err
}

// chunksPNG reads what PNG's chunks say of colours and orientation: cICP goes before
// iCCP, that before sRGB, that before gAMA and cHRM (PNG, third edition, 12.1, table 24).
func (f *file) chunksPNG(data []byte) (ended bool, err error) {
	var exif, xmp []byte
	comment, pixels := "", int64(0)
	seen := map[string][]byte{}
	for at := 8; at+12 <= len(data); {
		size := int64(binary.BigEndian.Uint32(data[at:]))
		if size > int64(len(data)-at-12) {
			break
		}
		kind, content := string(data[at+4:at+8]), data[at+8:at+8+int(size)]
		at += 12 + int(size)
		switch kind {
		case "IDAT":
			pixels += size
		case "eXIf":
			exif = content
		case "tEXt":
			if text, ok := bytes.CutPrefix(content, []byte(keyword+"\x00")); ok && comment == "" {
				comment = string(text)
			}
		case "iTXt":
			text, ok := bytes.CutPrefix(content, []byte("XML:com.adobe.xmp\x00"))
			if _, twice := seen[kind]; ok && len(text) > 2 && !twice {
				seen[kind], xmp = content, text
				if text[0] == 1 { // compressed, behind a language and a translated keyword
					if parts := bytes.SplitN(text[2:], []byte{0}, 3); len(parts) == 3 {
						xmp, _ = inflate(parts[2], 1<<20)
					}
				}
			}
		case "cICP", "iCCP", "sRGB", "gAMA", "cHRM":
			if _, twice := seen[kind]; !twice && pixels == 0 { // they come before the pixels
				seen[kind] = content
			}
		case "IEND":
			ended = true
		}
	}
	f.grey = data[25]&2 == 0
	// IHDR, which the decoder has read, is the first chunk.
	depth := int64(data[24]) * map[byte]int64{0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[data[25]]
	f.stored(pixels, 1032, int64(f.height)*((int64(f.width)*depth+7)/8))
	f.tagged(exif, xmp)
	f.comment = comment
	if c := seen["cICP"]; len(c) == 4 && c[2] == 0 {
		if c[3] != 1 {
			return ended, refused("is a PNG of a limited range (cICP): save it in the full one")
		}
		f.colours, err = cicp(int(c[0]), int(c[1]))
		return ended, err
	}
	if f.colours.profile, err = inflateProfile(seen["iCCP"]); f.colours.profile != nil || err != nil {
		return ended, err
	}
	if seen["sRGB"] == nil {
		f.colours = gammaPNG(seen["gAMA"], seen["cHRM"])
	}
	return ended, nil
}

// inflateProfile is iCCP's content: a name, a method and the profile, deflated.
func inflateProfile(chunk []byte) ([]byte, error) {
	_, rest, found := bytes.Cut(chunk, []byte{0})
	if !found || len(rest) < 1 || rest[0] != 0 {
		return nil, nil
	}
	return inflate(rest[1:], maxProfile)
}

// inflate returns what is deflated; nil where that is damaged. More than most is refused.
func inflate(data []byte, most int64) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, nil
	}
	var out bytes.Buffer
	out.Grow(int(min(most+2*bytes.MinRead, 1032*int64(len(data)))))
	if _, err = io.CopyN(&out, r, most+1); err == nil {
		return nil, errLongProfile
	}
	if !errors.Is(err, io.EOF) {
		return nil, nil
	}
	return out.Bytes(), nil
}

var errLongProfile = refused(fmt.Sprintf("has an ICC profile of more than %d MiB: save it with another",
	maxProfile>>20))

// gammaPNG are the colours by gAMA and cHRM, numbers of 1/100000 (PNG, third edition,
// 11.3.2.1 and 11.3.2.2). A gamma of 1/2.2 is how encoders wrote sRGB.
func gammaPNG(gamma, chromaticities []byte) colours {
	p := srgbPrimaries
	same := true
	if len(chromaticities) == 32 {
		for i, place := range []int{3, 0, 1, 2} { // white comes first
			for k := range 2 {
				v := float64(binary.BigEndian.Uint32(chromaticities[8*i+4*k:])) / 100000
				same = same && math.Abs(v-p[place][k]) < 0.002
				p[place][k] = v
			}
		}
	}
	exponent := 0.45455
	if len(gamma) == 4 {
		exponent = float64(binary.BigEndian.Uint32(gamma)) / 100000
	}
	likeSRGB := math.Abs(exponent-0.45455) < 0.005
	if (same && likeSRGB) || !(exponent > 0.01 && exponent < 100) || !p.sound() {
		return colours{}
	}
	light := func(v float64) float64 { return math.Pow(v, 1/exponent) }
	if len(gamma) != 4 {
		light = linear
	}
	return colours{named: &rgbSpace{p, light}}
}

// sound says whether primaries span colours.
func (p primaries) sound() bool {
	for _, c := range p {
		if !(c[0] >= 0 && c[1] > 0.001 && c[0]+c[1] <= 1) {
			return false
		}
	}
	area := (p[1][0]-p[0][0])*(p[2][1]-p[0][1]) - (p[2][0]-p[0][0])*(p[1][1]-p[0][1])
	return math.Abs(area) > 0.001
}

// isWebP tells a RIFF file of that kind.
func isWebP(data []byte) bool {
	return len(data) > 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP"
}

// riff calls each for the chunks of RIFF's body, until it returns false.
func riff(body []byte, each func(kind string, content []byte) bool) {
	for len(body) >= 8 {
		kind, size := string(body[:4]), uint64(binary.LittleEndian.Uint32(body[4:]))
		body = body[8:]
		if size > uint64(len(body)) {
			size = uint64(len(body)) // cut short: the decoder will say so
		}
		if !each(kind, body[:size]) {
			return
		}
		body = body[min(size+size%2, uint64(len(body))):]
	}
}

// chunkRIFF writes a chunk.
func chunkRIFF(kind string, content []byte) []byte {
	out := append([]byte(kind), binary.LittleEndian.AppendUint32(nil, uint32(len(content)))...)
	out = append(out, content...)
	if len(content)%2 == 1 {
		out = append(out, 0)
	}
	return out
}

// readWebP reads a WebP (RFC 9649, 2.7): of an animation, the first frame. The decoder
// is handed the frame's bitstream alone.
func readWebP(data []byte, f *file) error {
	f.format, f.bytes, f.colours.ycbcr.limited = "webp", 5, true
	u24 := func(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
	var exif, xmp, alpha, still []byte
	var lossless, animated bool
	var left, top int
	bitstream := func(kind string, content []byte) bool {
		switch kind {
		case "ALPH":
			alpha = content
		case "VP8 ", "VP8L":
			still, lossless = content, kind == "VP8L"
		}
		return still == nil
	}
	riff(data[12:], func(kind string, content []byte) bool {
		switch {
		case kind == "VP8X" && len(content) >= 10:
			f.width, f.height = u24(content[4:])+1, u24(content[7:])+1
			animated = content[0]&2 != 0
		case kind == "ICCP":
			f.colours.profile = content
		case kind == "EXIF" && exif == nil:
			exif = content
		case kind == "XMP " && xmp == nil:
			xmp = content
		case kind == "ANMF" && still == nil && len(content) > 16:
			left, top = 2*u24(content), 2*u24(content[3:])
			riff(content[16:], bitstream)
		case still == nil && !animated:
			bitstream(kind, content)
		}
		return true
	})
	if still == nil {
		return io.ErrUnexpectedEOF
	}
	f.tagged(exif, xmp)
	kind, extended := "VP8 ", []byte(nil)
	if lossless {
		kind, alpha = "VP8L", nil
	}
	frame := func() []byte {
		return chunkRIFF("RIFF", append(append([]byte("WEBP"), extended...), chunkRIFF(kind, still)...))
	}
	c, err := webp.DecodeConfig(bytes.NewReader(frame()))
	if err != nil {
		return err
	}
	if f.width == 0 {
		f.width, f.height = c.Width, c.Height
	}
	if !animated && (c.Width != f.width || c.Height != f.height) || left+c.Width > f.width || top+c.Height > f.height {
		return fmt.Errorf("a frame of %d×%d does not fit its canvas", c.Width, c.Height)
	}
	f.stored(int64(len(data)), 1<<16, int64(f.width)*int64(f.height)) // of one colour
	if alpha != nil {
		extended = append(chunkRIFF("VP8X", extendedWebP(0x10, c.Width, c.Height)), chunkRIFF("ALPH", alpha)...)
	}
	f.decode = func() (image.Image, error) {
		m, err := webp.Decode(bytes.NewReader(frame()))
		if err != nil {
			return nil, err
		}
		return onCanvas(m, image.Pt(left, top), f.width, f.height), nil
	}
	return nil
}

// extendedWebP is the content of a VP8X chunk.
func extendedWebP(flags byte, width, height int) []byte {
	out := []byte{flags, 0, 0, 0}
	for _, side := range []int{width - 1, height - 1} {
		out = append(out, byte(side), byte(side>>8), byte(side>>16))
	}
	return out
}

// Comment reads the comment that Save wrote into a picture file. There is none,
// "", in files from elsewhere.
func Comment(path string) (string, error) {
	data, err := ReadFile(path)
	if err != nil {
		return "", err
	}
	f, err := inspect(data)
	if err != nil {
		return "", fmt.Errorf("%w: %s %w", ErrPicture, Named(path), err)
	}
	return f.comment, nil
}
