package picture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// codedPicture is what the codec's own header says of a picture in a HEIF file.
type codedPicture struct {
	known         bool
	width, height int
	chroma        int // 0: none, 1: 4:2:0, 2: 4:2:2, 3: 4:4:4
	depth         int // of luma

	described    bool // how YCbCr is made
	matrix, full int
}

// headerBits reads a codec's header from the highest bit on.
type headerBits struct {
	data []byte
	at   int // bits
	past bool
}

// take is a number of so many bits; 0 where the header ends before.
func (b *headerBits) take(count int) (n int) {
	if count > 8*len(b.data)-b.at {
		b.at, b.past = 8*len(b.data), true
		return 0
	}
	for range count {
		n = n<<1 | int(b.data[b.at/8]>>(7-b.at%8))&1
		b.at++
	}
	return n
}

// golomb is an Exp-Golomb number (ITU-T H.265, 9.2).
func (b *headerBits) golomb() int {
	zeros := 0
	for b.take(1) == 0 && !b.past {
		if zeros++; zeros > 31 { // larger than any
			b.past = true
		}
	}
	return 1<<zeros - 1 + b.take(zeros)
}

// codedConfig is what hvcC or av1C, which many tiles may share, says.
type codedConfig struct {
	header  []byte // SPS or sequence header; nil: there is none
	picture codedPicture
	err     error
}

// codecs by the kinds of HEIF's items: where the configuration is, how it is read, and how the
// picture is, which may not have another one.
var codecs = map[string]struct {
	property string
	config   func([]byte) codedConfig
	picture  func(c codedConfig, pixels []byte) (codedPicture, error)
}{
	"hvc1": {"hvcC", configHEVC, codedHEVC},
	"av01": {"av1C", configAV1, codedAV1},
}

const unitSPS = 33 // the kind of NAL units that are sequence parameter sets

func kindOfUnit(unit []byte) byte { return unit[0] >> 1 & 63 }

// configHEVC reads the sequence parameter set in hvcC (ISO/IEC 14496-15, 8.3.3; ITU-T
// H.265, 7.3.2.2 and E.2.1), as far as still pictures have it, and refuses another one.
func configHEVC(hvcC []byte) (c codedConfig) {
	f := &fields{data: hvcC}
	for range 21 {
		f.number(1)
	}
	if lengths := f.number(1)&3 + 1; lengths != 4 && !f.short { // libheif takes them for 4 bytes, whatever hvcC says
		c.err = refused(fmt.Sprintf("is a HEIC whose parts have lengths of %d bytes, not 4: save it as JPEG or PNG",
			lengths))
		return c
	}
	for range f.number(1) {
		f.number(1)
		for range f.number(2) {
			size := int(f.number(2))
			if size > len(f.data) {
				c.err = io.ErrUnexpectedEOF
				return c
			}
			unit := f.data[:size]
			f.data = f.data[size:]
			if size < 3 || kindOfUnit(unit) != unitSPS {
				continue
			}
			if c.header != nil && !bytes.Equal(c.header, unit) {
				c.err = errTwice("SPS")
				return c
			}
			c.header = unit
		}
		if f.short {
			break
		}
	}
	if c.header == nil {
		c.err = errors.New("no sequence parameter set")
		return c
	}
	c.picture = parametersHEVC(bytes.ReplaceAll(c.header[2:], []byte{0, 0, 3}, []byte{0, 0})) // without its header
	return c
}

// codedHEVC refuses another sequence parameter set among the pixels.
func codedHEVC(c codedConfig, pixels []byte) (codedPicture, error) {
	if c.err != nil {
		return codedPicture{}, c.err
	}
	for f := (&fields{data: pixels}); len(f.data) > 0; {
		size := f.number(4)
		if size > uint64(len(f.data)) || f.short {
			return codedPicture{}, io.ErrUnexpectedEOF
		}
		unit := f.data[:size]
		f.data = f.data[size:]
		if size >= 2 && kindOfUnit(unit) == unitSPS && !bytes.Equal(c.header, unit) {
			return codedPicture{}, errTwice("SPS")
		}
	}
	return c.picture, nil
}

// parametersHEVC reads a sequence parameter set.
func parametersHEVC(sps []byte) (c codedPicture) {
	b := &headerBits{data: sps}
	b.take(4)
	layers := b.take(3)
	b.take(1 + 88 + 8) // the general profile and level
	if layers > 0 {
		return c
	}
	b.golomb()
	if c.chroma = b.golomb(); c.chroma == 3 {
		b.take(1)
	}
	c.width, c.height = b.golomb(), b.golomb()
	if b.take(1) == 1 {
		for range 4 {
			b.golomb()
		}
	}
	c.depth = 8 + b.golomb()
	b.golomb()
	order := min(b.golomb()+4, 16) // more is not allowed
	b.take(1)
	for range 3 + 6 {
		b.golomb()
	}
	c.known = !b.past
	if b.take(1) == 1 {
		if b.take(1) == 1 { // scaling lists, as hardly any still picture has them
			return c
		}
	}
	b.take(2)
	if b.take(1) == 1 { // PCM
		b.take(8)
		b.golomb()
		b.golomb()
		b.take(1)
	}
	if b.golomb() > 0 { // reference pictures, which stills have none of
		return c
	}
	if b.take(1) == 1 {
		for range b.golomb() {
			if b.take(order + 1); b.past {
				return c
			}
		}
	}
	b.take(2)
	if b.take(1) == 0 {
		return c
	}
	if b.take(1) == 1 && b.take(8) == 255 {
		b.take(32)
	}
	if b.take(1) == 1 {
		b.take(1)
	}
	if b.take(1) == 1 {
		b.take(3)
		c.full, c.matrix = b.take(1), 2
		if b.take(1) == 1 {
			b.take(16)
			c.matrix = b.take(8)
		}
		c.described = !b.past
	}
	return c
}

// configAV1 reads the sequence header in av1C, which need not have one.
func configAV1(av1C []byte) (c codedConfig) {
	c.header, c.err = sequenceHeader(nil, av1C[min(4, len(av1C)):])
	return c
}

// codedAV1 reads the sequence header in an AV1 picture or, where that has none, in av1C, and
// refuses another one.
func codedAV1(c codedConfig, pixels []byte) (p codedPicture, err error) {
	if c.err != nil {
		return p, c.err
	}
	header, err := sequenceHeader(c.header, pixels)
	if err != nil {
		return p, err
	}
	if header == nil {
		return p, errors.New("no sequence header")
	}
	return headerAV1(header)
}

// sequenceHeader finds it among OBUs (AV1 bitstream specification, 5.3 and 5.5), and refuses
// another than the one that is known already.
func sequenceHeader(known, part []byte) (header []byte, err error) {
	header = known
	for len(part) > 0 {
		kind, extended, sized := part[0]>>3&15, part[0]&4 != 0, part[0]&2 != 0
		part = part[1:]
		if extended {
			part = part[min(1, len(part)):]
		}
		size := uint64(len(part))
		if sized {
			length := 0
			if size, length = binary.Uvarint(part); length <= 0 || size > uint64(len(part)-length) {
				return nil, io.ErrUnexpectedEOF
			}
			part = part[length:]
		}
		if unit := part[:size]; kind == 1 {
			if header != nil && !bytes.Equal(header, unit) {
				return nil, errTwice("sequence header")
			}
			header = unit
		}
		part = part[size:]
	}
	return header, nil
}

// headerAV1 reads a sequence header as far as the size.
func headerAV1(header []byte) (c codedPicture, err error) {
	b := &headerBits{data: header}
	b.take(3 + 1)
	if b.take(1) == 1 { // of a still picture
		b.take(5)
	} else {
		delays, delayBits := false, 0
		if b.take(1) == 1 { // timing
			b.take(32)
			b.take(32)
			if b.take(1) == 1 {
				b.golomb()
			}
			if delays = b.take(1) == 1; delays {
				delayBits = b.take(5) + 1
				b.take(32)
				b.take(10)
			}
		}
		display := b.take(1) == 1
		for range b.take(5) + 1 { // operating points
			if b.take(12); b.take(5) > 7 {
				b.take(1)
			}
			if delays && b.take(1) == 1 {
				b.take(2*delayBits + 1)
			}
			if display && b.take(1) == 1 {
				b.take(4)
			}
		}
	}
	wide, high := b.take(4)+1, b.take(4)+1
	c.width, c.height = b.take(wide)+1, b.take(high)+1
	if b.past {
		return c, io.ErrUnexpectedEOF
	}
	c.known = true
	return c, nil
}
