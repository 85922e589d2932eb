package picture

import (
	"image"
	"image/color"
	"runtime"
	"slices"
	"sync"
)

// pixel is a decoded colour, sRGB's or another's, not multiplied by alpha: red, green,
// blue and alpha, in [0,1].
type pixel [4]float32

// rowReader reads row y of an image into pixels, one for each column.
type rowReader func(y int, row []pixel)

// picture makes an upright picture in sRGB of the file's pixels.
func (f *file) picture(m image.Image) *Picture {
	convert, inks := f.colours.toSRGB(m, f.grey)
	p := New(f.width, f.height)
	if f.orientation >= 5 { // the stored rows are the upright picture's columns
		p.Width, p.Height = f.height, f.width
	}
	plane := f.width * f.height
	if !opaque(m) {
		p.Alpha = make([]float32, plane)
	}
	rows(f.height, func(from, to int) {
		read, row := reader(m, f.colours.ycbcr, inks), make([]pixel, f.width)
		colours := convert()
		for y := from; y < to; y++ {
			read(y, row)
			if colours != nil {
				colours(row)
			}
			at, step := f.orientation.path(f.width, f.height, y)
			if p.Alpha == nil && step == 1 { // as most are
				red, green := p.Pixels[at:][:len(row)], p.Pixels[plane+at:][:len(row)]
				blue := p.Pixels[2*plane+at:][:len(row)]
				for x, v := range row {
					red[x], green[x], blue[x] = v[0], v[1], v[2]
				}
				continue
			}
			for _, v := range row {
				if p.Alpha != nil {
					if p.Alpha[at] = v[3]; v[3] == 0 {
						v = pixel{1, 1, 1}
					}
				}
				p.Pixels[at], p.Pixels[plane+at], p.Pixels[2*plane+at] = v[0], v[1], v[2]
				at += step
			}
		}
	})
	for _, a := range p.Alpha {
		if a < 1 {
			return p
		}
	}
	p.Alpha = nil
	return p
}

// rows calls f for parts of n rows, at once. If one panics, so does rows, in its caller.
func rows(n int, f func(from, to int)) {
	workers := runtime.GOMAXPROCS(0)
	var wait sync.WaitGroup
	failures := make(chan any, workers)
	for w := range workers {
		wait.Go(func() {
			defer func() {
				if failure := recover(); failure != nil {
					failures <- failure
				}
			}()
			f(n*w/workers, n*(w+1)/workers)
		})
	}
	wait.Wait()
	select {
	case failure := <-failures:
		panic(failure)
	default:
	}
}

// orientation is how the camera was held, 1 to 8 (EXIF 2.3, tag 0x0112); 1 is upright.
type orientation int

// path says where in the upright picture the first pixel of stored row y lies, and how
// far it is to the next one's place.
func (o orientation) path(width, height, y int) (at, step int) {
	x, down := width-1, height-1-y
	switch o {
	case 2:
		return y*width + x, -1
	case 3:
		return down*width + x, -1
	case 4:
		return down * width, 1
	case 5:
		return y, height
	case 6:
		return down, height
	case 7:
		return x*height + down, -height
	case 8:
		return x*height + y, -height
	}
	return y * width, 1
}

// opaque says whether an image is known to have no transparent pixel.
func opaque(m image.Image) bool {
	switch m := m.(type) {
	case *image.YCbCr, *image.Gray, *image.Gray16, *image.CMYK:
		return true
	case *image.Paletted:
		for _, c := range m.Palette {
			if _, _, _, a := c.RGBA(); a != 0xffff {
				return false
			}
		}
		return true
	case indexed:
		return !slices.ContainsFunc(m.palette, func(c pixel) bool { return c[3] < 1 })
	}
	return false
}

func byteOf(v uint8) float32   { return float32(v) / 0xff }
func wordOf(b []uint8) float32 { return float32(uint16(b[0])<<8|uint16(b[1])) / 0xffff }

// reader returns a reader of m's rows for one goroutine. Where inks is set, the pixels
// of CMYK are cyan, magenta, yellow and black.
func reader(m image.Image, luma ycbcr, inks bool) rowReader {
	corner := m.Bounds().Min
	switch m := m.(type) {
	case *image.YCbCr:
		return readYCbCr(m, nil, luma)
	case *image.NYCbCrA:
		return readYCbCr(&m.YCbCr, m, luma)
	case *image.Gray:
		return func(y int, row []pixel) {
			for x, v := range m.Pix[m.PixOffset(corner.X, corner.Y+y):][:len(row)] {
				row[x] = pixel{byteOf(v), byteOf(v), byteOf(v), 1}
			}
		}
	case *image.Gray16:
		return func(y int, row []pixel) {
			line := m.Pix[m.PixOffset(corner.X, corner.Y+y):]
			for x := range row {
				v := wordOf(line[2*x:])
				row[x] = pixel{v, v, v, 1}
			}
		}
	case *image.NRGBA:
		return func(y int, row []pixel) {
			line := m.Pix[m.PixOffset(corner.X, corner.Y+y):][:4*len(row)]
			for x := range row {
				row[x] = pixel{byteOf(line[4*x]), byteOf(line[4*x+1]), byteOf(line[4*x+2]), byteOf(line[4*x+3])}
			}
		}
	case *image.NRGBA64:
		return func(y int, row []pixel) {
			line := m.Pix[m.PixOffset(corner.X, corner.Y+y):]
			for x := range row {
				row[x] = pixel{wordOf(line[8*x:]), wordOf(line[8*x+2:]), wordOf(line[8*x+4:]), wordOf(line[8*x+6:])}
			}
		}
	case *image.RGBA:
		return func(y int, row []pixel) {
			line := m.Pix[m.PixOffset(corner.X, corner.Y+y):][:4*len(row)]
			for x := range row {
				row[x] = straight(byteOf(line[4*x]), byteOf(line[4*x+1]), byteOf(line[4*x+2]), byteOf(line[4*x+3]))
			}
		}
	case *image.RGBA64:
		return func(y int, row []pixel) {
			line := m.Pix[m.PixOffset(corner.X, corner.Y+y):]
			for x := range row {
				row[x] = straight(wordOf(line[8*x:]), wordOf(line[8*x+2:]), wordOf(line[8*x+4:]), wordOf(line[8*x+6:]))
			}
		}
	case *image.Paletted:
		palette := make([]pixel, 256)
		for i, c := range m.Palette {
			palette[i] = pixelOf(c)
		}
		return readIndexed(m, palette)
	case indexed:
		palette := make([]pixel, 256)
		copy(palette, m.palette)
		return readIndexed(m.Paletted, palette)
	case *image.CMYK:
		return func(y int, row []pixel) { // inks on white paper, where no profile knows better
			line := m.Pix[m.PixOffset(corner.X, corner.Y+y):][:4*len(row)]
			for x := range row {
				if inks {
					row[x] = pixel{byteOf(line[4*x]), byteOf(line[4*x+1]), byteOf(line[4*x+2]), byteOf(line[4*x+3])}
					continue
				}
				paper := 1 - byteOf(line[4*x+3])
				row[x] = pixel{(1 - byteOf(line[4*x])) * paper, (1 - byteOf(line[4*x+1])) * paper,
					(1 - byteOf(line[4*x+2])) * paper, 1}
			}
		}
	case canvas:
		read, size := reader(m.Image, luma, inks), m.Image.Bounds().Size()
		whole := make([]pixel, size.X)
		return func(y int, row []pixel) {
			clear(row)
			if y -= m.at.Y; y >= 0 && y < size.Y && m.at.X < len(row) {
				read(y, whole)
				copy(row[m.at.X:], whole)
			}
		}
	}
	return func(y int, row []pixel) {
		for x := range row {
			row[x] = pixelOf(m.At(corner.X+x, corner.Y+y))
		}
	}
}

// readIndexed looks colours up.
func readIndexed(m *image.Paletted, palette []pixel) rowReader {
	corner := m.Rect.Min
	return func(y int, row []pixel) {
		for x, i := range m.Pix[m.PixOffset(corner.X, corner.Y+y):][:len(row)] {
			row[x] = palette[i]
		}
	}
}

// pixelOf is a colour of Go's.
func pixelOf(c color.Color) pixel {
	switch c := c.(type) {
	case color.NRGBA:
		return pixel{byteOf(c.R), byteOf(c.G), byteOf(c.B), byteOf(c.A)}
	case color.NRGBA64:
		return pixel{float32(c.R) / 0xffff, float32(c.G) / 0xffff, float32(c.B) / 0xffff, float32(c.A) / 0xffff}
	}
	r, g, b, a := c.RGBA()
	return straight(float32(r)/0xffff, float32(g)/0xffff, float32(b)/0xffff, float32(a)/0xffff)
}

// straight divides a colour by its alpha.
func straight(r, g, b, a float32) pixel {
	if a == 1 || a == 0 {
		return pixel{r, g, b, a}
	}
	return pixel{min(r/a, 1), min(g/a, 1), min(b/a, 1), a}
}

// readYCbCr converts YCbCr. Chroma of fewer samples is interpolated as libjpeg and
// libwebp do, with weights of 3/4 and 1/4 for the nearer and the farther sample, if it
// is not to be repeated.
func readYCbCr(m *image.YCbCr, alpha *image.NYCbCrA, luma ycbcr) rowReader {
	bounds := m.Rect
	width, height := bounds.Dx(), bounds.Dy()
	across, down := 1, 1
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422:
		across = 2
	case image.YCbCrSubsampleRatio420:
		across, down = 2, 2
	case image.YCbCrSubsampleRatio440:
		down = 2
	case image.YCbCrSubsampleRatio411:
		across = 4
	case image.YCbCrSubsampleRatio410:
		across, down = 4, 2
	}
	columns, lines := (width+across-1)/across, (height+down-1)/down
	interpolated := !luma.nearest && (columns > 2 || luma.limited) // libjpeg repeats what is that narrow
	line := func(plane []uint8, y int) []uint8 { return plane[min(max(y, 0), lines-1)*m.CStride:][:columns] }
	// chroma is row y of a plane, of a value for each column of the picture.
	chroma := func(plane []uint8, y int, low, out []float32) {
		near := line(plane, y/down)
		if down == 2 && interpolated {
			far := line(plane, y/2-1+y%2*2)
			for i, v := range near {
				low[i] = 0.75*float32(v) + 0.25*float32(far[i])
			}
		} else {
			for i, v := range near {
				low[i] = float32(v)
			}
		}
		switch {
		case across == 1:
			copy(out, low)
		case across == 2 && interpolated:
			before := low[0]
			for i, v := range low[:columns-1] {
				two := out[2*i : 2*i+2]
				two[0], two[1] = 0.75*v+0.25*before, 0.75*v+0.25*low[i+1]
				before = v
			}
			last := low[columns-1]
			if out[2*columns-2] = 0.75*last + 0.25*before; width%2 == 0 {
				out[2*columns-1] = last
			}
		default: // as libjpeg does
			for x := range out {
				out[x] = low[x/across]
			}
		}
	}
	offset, scale := float32(0), float32(1)/255
	wide := scale
	if luma.limited {
		offset, scale, wide = 16, 1./219, 1./224
	}
	if luma.red == 0 {
		luma.red, luma.blue = 0.299, 0.114
	}
	green := 1 - luma.red - luma.blue
	redCr, blueCb := 2*(1-luma.red), 2*(1-luma.blue)
	greenCb, greenCr := blueCb*luma.blue/green, redCr*luma.red/green
	low, cb, cr := make([]float32, columns), make([]float32, width), make([]float32, width)
	unit := func(v float32) float32 { // faster than min and max, which mind NaN
		if v < 0 {
			return 0
		}
		if v > 1 {
			return 1
		}
		return v
	}
	return func(y int, row []pixel) {
		chroma(m.Cb, y, low, cb)
		chroma(m.Cr, y, low, cr)
		cb, cr := cb[:len(row)], cr[:len(row)]
		for x, v := range m.Y[y*m.YStride:][:len(row)] {
			l, b, r := (float32(v)-offset)*scale, (cb[x]-128)*wide, (cr[x]-128)*wide
			row[x] = pixel{unit(l + redCr*r), unit(l - greenCb*b - greenCr*r), unit(l + blueCb*b), 1}
		}
		if alpha != nil {
			for x, v := range alpha.A[y*alpha.AStride:][:len(row)] {
				row[x][3] = byteOf(v)
			}
		}
	}
}
