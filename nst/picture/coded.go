package picture

import "bytes"

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

func (b *headerBits) take(count int) (n int) {
	for range count {
		bit := 0
		if b.at/8 < len(b.data) {
			bit = int(b.data[b.at/8]>>(7-b.at%8)) & 1
		} else {
			b.past = true
		}
		n = n<<1 | bit
		b.at++
	}
	return n
}

// golomb is an Exp-Golomb number (ITU-T H.265, 9.2).
func (b *headerBits) golomb() int {
	zeros := 0
	for b.take(1) == 0 && !b.past {
		zeros++
	}
	return 1<<min(zeros, 30) - 1 + b.take(min(zeros, 30))
}

// codedHEVC reads the sequence parameter set in hvcC (ISO/IEC 14496-15, 8.3.3; ITU-T
// H.265, 7.3.2.2 and E.2.1), as far as still pictures have it.
func codedHEVC(hvcC []byte) (c codedPicture) {
	var sps []byte
	f := &fields{data: hvcC}
	for range 22 {
		f.number(1)
	}
	for range f.number(1) {
		kind := f.number(1) & 63
		for range f.number(2) {
			size := int(f.number(2))
			if size > len(f.data) {
				return c
			}
			if kind == 33 && sps == nil && size > 2 {
				sps = bytes.ReplaceAll(f.data[2:size], []byte{0, 0, 3}, []byte{0, 0}) // behind the NAL unit's header
			}
			f.data = f.data[size:]
		}
		if f.short {
			return c
		}
	}
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
	order := b.golomb() + 4
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

// codedAV1 reads the sequence header in av1C or, where that has none, the file's first
// (AV1 bitstream specification, 5.5), if it is of a plain still picture.
func codedAV1(av1C, data []byte) (c codedPicture) {
	if len(av1C) > 4 {
		data = av1C[4:]
	} else if at := bytes.Index(data, []byte("\x12\x00\x0a")); at >= 0 { // a temporal delimiter, and then it
		data = data[at+2:]
	}
	if len(data) < 2 || data[0]&0xf8 != 1<<3 || data[0]&2 == 0 {
		return c
	}
	data = data[1:]
	for len(data) > 0 && data[0]&0x80 != 0 { // its length
		data = data[1:]
	}
	if len(data) < 2 {
		return c
	}
	b := &headerBits{data: data[1:]}
	b.take(3 + 1)
	if b.take(1) == 1 {
		b.take(5)
	} else {
		if b.take(2) > 0 || b.take(5) > 0 { // timing or delays, several operating points
			return c
		}
		if b.take(12); b.take(5) > 7 {
			b.take(1)
		}
	}
	wide, high := b.take(4)+1, b.take(4)+1
	c.width, c.height = b.take(wide)+1, b.take(high)+1
	c.known = !b.past
	if b.past {
		c.width, c.height = 0, 0
	}
	return c
}
