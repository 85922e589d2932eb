package picture

import (
	"bytes"
	"cmp"
	"errors"
	"image"
	"io"
	"math"

	"github.com/gen2brain/jpegxl"
)

// isJXL tells a codestream or a file of boxes around it (ISO/IEC 18181-2).
func isJXL(data []byte) bool {
	return begins("\xff\x0a")(data) || begins("\x00\x00\x00\x0cJXL \r\n\x87\n")(data)
}

// headerJXL is more than what is read of a codestream has, without its extra channels' names.
const headerJXL = 16 << 10

// readJXL reads size and colours, which the decoder does not tell (ISO/IEC 18181-1,
// annexes D and E). The decoder turns the picture upright, and hands out the colours
// that the header names.
func readJXL(data []byte, f *file) error {
	f.format, f.bytes, f.extra = "jxl", 48, wasmMemory
	stream := data
	if data[0] == 0 {
		stream = nil
		parts := uint32(0)
		err := boxes(data, func(kind string, content []byte) error {
			switch {
			case kind == "jxlc" && stream != nil, kind == "jxlp" && stream != nil && parts == 0:
				return errors.New("two codestreams")
			case kind == "jxlc":
				stream = content
			case kind == "jxlp":
				b := &fields{data: content}
				if index := uint32(b.number(4)); b.short || index&^(1<<31) != parts {
					return errors.New("parts of a codestream in no order")
				}
				if stream == nil {
					stream = []byte{}
				}
				parts++
				if len(stream) < headerJXL { // what is read here may be in more than one
					stream = append(stream, b.data[:min(len(b.data), headerJXL)]...)
				}
			}
			return nil
		})
		var cut cutError
		if behind := errors.As(err, &cut) && cut != "jxlc" && cut != "jxlp"; len(stream) == 0 || err != nil && !behind {
			return cmp.Or(err, io.ErrUnexpectedEOF)
		}
	}
	b := &bitReader{data: stream, at: 16}
	width, height := b.sizeJXL()
	f.width, f.height = width, height
	f.decode = func() (image.Image, error) { return jpegxl.Decode(bytes.NewReader(data)) }
	if b.take(1) == 1 { // all as usual: 8 bits, sRGB
		return b.err()
	}
	if b.take(1) == 1 { // extra fields
		if orientation := b.take(3) + 1; orientation >= 5 {
			f.width, f.height = height, width
		}
		if b.take(1) == 1 { // intrinsic size
			b.sizeJXL()
		}
		if b.take(1) == 1 { // preview
			return refused("is a JPEG XL with a preview: save it without")
		}
		if b.take(1) == 1 { // animation
			b.u32([4][2]int{{0, 100}, {0, 1000}, {10, 1}, {30, 1}})
			b.u32([4][2]int{{0, 1}, {0, 1001}, {8, 1}, {10, 1}})
			b.u32([4][2]int{{0, 0}, {3, 0}, {16, 0}, {32, 0}})
			b.take(1)
		}
	}
	if b.depthJXL() {
		return refused("is a JPEG XL of floats (a high dynamic range?): save it with whole numbers")
	}
	b.take(1) // 16-bit buffers are enough
	for range b.u32([4][2]int{{0, 0}, {0, 1}, {4, 2}, {12, 1}}) {
		if b.take(1) == 1 {
			continue // alpha, as usual
		}
		f.bytes += 8
		kind := b.enum()
		b.depthJXL()
		b.u32([4][2]int{{0, 0}, {0, 3}, {0, 4}, {3, 1}})
		for range b.u32([4][2]int{{0, 0}, {4, 0}, {5, 16}, {10, 48}}) {
			b.take(8)
		}
		switch kind {
		case 0:
			b.take(1)
		case 2, 4, 5:
			return refused("is a JPEG XL with inks, spot colours or filter arrays: save it as PNG")
		}
		if b.past {
			return b.err()
		}
	}
	b.take(1) // XYB or not: the decoder undoes it
	if b.take(1) == 1 {
		return b.err() // sRGB
	}
	profile := b.take(1) == 1
	space := b.enum()
	if profile || space > 1 {
		return refused("is a JPEG XL with an ICC profile, which is not read: save it in sRGB, or as PNG")
	}
	white := d65
	custom := func() [2]float64 {
		part := func() float64 {
			n := b.u32([4][2]int{{19, 0}, {19, 524288}, {20, 1048576}, {21, 2097152}})
			return float64(n>>1^-(n&1)) / 1e6
		}
		return [2]float64{part(), part()}
	}
	switch b.enum() {
	case 2:
		white = custom()
	case 10:
		white = [2]float64{1. / 3, 1. / 3}
	case 11:
		white = [2]float64{0.314, 0.351}
	}
	p := srgbPrimaries
	if space == 0 {
		switch b.enum() {
		case 2:
			p = primaries{custom(), custom(), custom()}
		case 9:
			p = primaries{{0.708, 0.292}, {0.170, 0.797}, {0.131, 0.046}}
		case 11:
			p = primaries{{0.680, 0.320}, {0.265, 0.690}, {0.150, 0.060}}
		}
	}
	p[3] = white
	var light func(float64) float64
	if b.take(1) == 1 {
		gamma := float64(b.take(24)) / 1e7
		light = func(v float64) float64 { return math.Pow(v, 1/gamma) }
	} else {
		switch transfer := b.enum(); transfer {
		case 8:
			light = func(v float64) float64 { return v }
		case 16, 18:
			_, err := cicp(9, transfer)
			return err
		case 17:
			light = func(v float64) float64 { return math.Pow(v, 2.6) }
		default:
			light = linear
		}
	}
	if !p.sound() {
		return errors.New("impossible colours")
	}
	f.colours.named = &rgbSpace{p, light}
	return b.err()
}

// bitReader reads a codestream's header, from the lowest bit on.
type bitReader struct {
	data []byte
	at   int // bits
	past bool
}

func (b *bitReader) take(count int) int {
	n := 0
	if count > 8*len(b.data)-b.at {
		b.at, b.past = 8*len(b.data), true
		return 0
	}
	for i := range count {
		n |= int(b.data[b.at/8]>>(b.at%8)&1) << i
		b.at++
	}
	return n
}

func (b *bitReader) err() error {
	if b.past {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// u32 is one of four numbers: so many bits, and what is added.
func (b *bitReader) u32(choices [4][2]int) int {
	c := choices[b.take(2)]
	return b.take(c[0]) + c[1]
}

func (b *bitReader) enum() int { return b.u32([4][2]int{{0, 0}, {0, 1}, {4, 2}, {6, 18}}) }

// sizeJXL reads a size (annex D.2).
func (b *bitReader) sizeJXL() (width, height int) {
	small := b.take(1) == 1
	side := func() int {
		if small {
			return 8 * (b.take(5) + 1)
		}
		return b.u32([4][2]int{{9, 1}, {13, 1}, {18, 1}, {30, 1}})
	}
	height = side()
	if ratio := b.take(3); ratio != 0 {
		r := [8][2]int{1: {1, 1}, 2: {12, 10}, 3: {4, 3}, 4: {3, 2}, 5: {16, 9}, 6: {5, 4}, 7: {2, 1}}[ratio]
		return height * r[0] / r[1], height
	}
	return side(), height
}

// depthJXL reads how a sample is stored, and says whether as a float.
func (b *bitReader) depthJXL() bool {
	if b.take(1) == 1 {
		b.u32([4][2]int{{0, 32}, {0, 16}, {0, 24}, {6, 1}})
		b.take(4)
		return true
	}
	b.u32([4][2]int{{0, 8}, {0, 10}, {0, 12}, {6, 1}})
	return false
}
