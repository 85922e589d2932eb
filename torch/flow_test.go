package torch_test

import (
	"fmt"
	"image"
	_ "image/png"
	"math"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/torch"
)

// demo is a part of a demo picture, from (left,top), as planes.
func demo(t testing.TB, name string, left, top, height, width int) []float32 {
	t.Helper()
	file, err := os.Open(nsttest.Demo(t, name))
	require.NoError(t, err)
	defer file.Close()
	picture, _, err := image.Decode(file)
	require.NoError(t, err)
	planes := make([]float32, 3*height*width)
	for i := range height * width {
		r, g, b, _ := picture.At(left+i%width, top+i/width).RGBA()
		for p, v := range []uint32{r, g, b} {
			planes[p*height*width+i] = float32(v) / 65535
		}
	}
	return planes
}

// resample is planes at (x+u,y+v), by Lanczos' kernel of 8×8 pixels: another than Warp's and
// Flow's own, and more exact.
func resample(planes, flow []float32, height, width int) []float32 {
	out := make([]float32, len(planes))
	plane := height * width
	kernel := func(at float64) (first int, weights [8]float64) {
		first = int(math.Floor(at)) - 3
		sum := 0.0
		for i := range weights {
			d := math.Pi * (at - float64(first+i))
			weights[i] = 1
			if d != 0 {
				weights[i] = math.Sin(d) * math.Sin(d/4) / (d * d / 4)
			}
			sum += weights[i]
		}
		for i := range weights {
			weights[i] /= sum
		}
		return first, weights
	}
	for i := range plane {
		left, across := kernel(float64(i%width) + float64(flow[i]))
		top, down := kernel(float64(i/width) + float64(flow[plane+i]))
		for p := 0; p < len(planes); p += plane {
			sum := 0.0
			for j, b := range down {
				row := planes[p+min(max(top+j, 0), height-1)*width:][:width]
				for k, a := range across {
					sum += a * b * float64(row[min(max(left+k, 0), width-1)])
				}
			}
			out[p+i] = float32(min(max(sum, 0), 1))
		}
	}
	return out
}

// field is a flow by a function of a pixel, from the middle.
func field(height, width int, at func(x, y float64) (u, v float64)) []float32 {
	flow := make([]float32, 2*height*width)
	for i := range height * width {
		u, v := at(float64(i%width-width/2), float64(i/width-height/2))
		flow[i], flow[height*width+i] = float32(u), float32(v)
	}
	return flow
}

// endpoint is the mean length of what two flows differ by, over the pixels that are to be
// looked at and stay in the picture.
func endpoint(got, want []float32, height, width int, look func(x, y int) bool) float64 {
	sum, count := 0.0, 0
	for i := range height * width {
		u, v := float64(want[i]), float64(want[height*width+i])
		x, y := float64(i%width)+u, float64(i/width)+v
		if x < 0 || y < 0 || x > float64(width-1) || y > float64(height-1) || !look(i%width, i/width) {
			continue
		}
		sum += math.Hypot(float64(got[i])-u, float64(got[height*width+i])-v)
		count++
	}
	return sum / float64(count)
}

func everywhere(int, int) bool { return true }

func turn(by float64) func(x, y float64) (u, v float64) {
	sin, cos := math.Sincos(by)
	return func(x, y float64) (u, v float64) { return x*(cos-1) - y*sin, x*sin + y*(cos-1) }
}

func TestFlowOfWarps(t *testing.T) {
	const height, width = 240, 320
	to := demo(t, "content.png", 65, 30, height, width)
	for name, c := range map[string]struct {
		at  func(x, y float64) (u, v float64)
		max float64
	}{
		// Measured: 0.000 to 0.047.
		"none":             {func(_, _ float64) (u, v float64) { return 0, 0 }, 0.001},
		"parts of a pixel": {func(_, _ float64) (u, v float64) { return 0.4, -0.3 }, 0.15},
		"shift":            {func(_, _ float64) (u, v float64) { return 3.3, -1.7 }, 0.15},
		"turn":             {turn(0.05), 0.15},
		"zoom":             {func(x, y float64) (u, v float64) { return 0.05 * x, 0.05 * y }, 0.15},
		"waves":            {func(x, y float64) (u, v float64) { return 3 * math.Sin(y/25), 2 * math.Cos(x/30) }, 0.15},
		"a quarter":        {func(_, _ float64) (u, v float64) { return width / 4, -5.4 }, 0.15},
		"a quarter back":   {func(_, _ float64) (u, v float64) { return -width / 4, height / 5 }, 0.15},
	} {
		t.Run(name, func(t *testing.T) {
			want := field(height, width, c.at)
			from := resample(to, want, height, width)
			err := endpoint(torch.Flow(from, to, height, width), want, height, width, everywhere)
			t.Logf("%.3f px", err)
			assert.Less(t, err, c.max)
		})
	}
}

// A textured square moves over a texture that moves otherwise. Looked at is what is 2 to 10
// pixels from the square's edge, on either side of it, and is seen in both pictures. Measured:
// 0.035 to 0.045.
func TestFlowAtMotionsEdges(t *testing.T) {
	const height, width, half = 240, 320, 50
	type motion struct{ u, v float64 }
	cat := demo(t, "content.png", 65, 30, height, width)
	tissue := demo(t, "style.png", 100, 100, height, width)
	for name, c := range map[string]struct {
		back, square []float32
		ground, over motion
	}{
		"tissue over cat": {cat, tissue, motion{-2.3, -1.4}, motion{6.4, 3.3}},
		"cat over tissue": {tissue, cat, motion{1.6, 2.2}, motion{-4.7, 0}},
		"large":           {tissue, cat, motion{-2.3, 1.4}, motion{12.3, -7.6}},
	} {
		t.Run(name, func(t *testing.T) {
			// How far a place is outside the square as it is in the second picture; inside it is negative.
			outside := func(x, y float64) float64 { return max(math.Abs(x), math.Abs(y)) - half - 0.5 }
			constant := func(m motion) []float32 {
				return field(height, width, func(_, _ float64) (u, v float64) { return m.u, m.v })
			}
			inFrom := func(x, y float64) float64 { return outside(x+c.over.u, y+c.over.v) }
			want := field(height, width, func(x, y float64) (u, v float64) {
				if inFrom(x, y) < 0 {
					return c.over.u, c.over.v
				}
				return c.ground.u, c.ground.v
			})
			paste := func(back, square []float32, outside func(x, y float64) float64) []float32 {
				out := make([]float32, len(back))
				for i := range out {
					x, y := float64(i%width-width/2), float64(i/width%height-height/2)
					out[i] = back[i]
					if outside(x, y) < 0 {
						out[i] = square[i]
					}
				}
				return out
			}
			from := paste(resample(c.back, constant(c.ground), height, width),
				resample(c.square, constant(c.over), height, width), inFrom)
			to := paste(c.back, c.square, outside)
			err := endpoint(torch.Flow(from, to, height, width), want, height, width, func(px, py int) bool {
				x, y := float64(px-width/2), float64(py-height/2)
				d := inFrom(x, y)
				hidden := d >= 0 && outside(x+c.ground.u, y+c.ground.v) < 1
				return math.Abs(d) >= 2 && math.Abs(d) <= 10 && !hidden
			})
			t.Logf("%.3f px", err)
			assert.Less(t, err, 0.3)
		})
	}
}

func TestFlowOfUniformPictures(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {1, 9}, {9, 1}, {2, 2}, {3, 500}, {500, 3}, {40, 60}} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			grey := make([]float32, 3*size[0]*size[1])
			for i := range grey {
				grey[i] = 0.5
			}
			assert.Equal(t, make([]float32, 2*size[0]*size[1]), torch.Flow(grey, grey, size[0], size[1]))
		})
	}
}

// Whatever the pictures hold the flow is finite, and where the picture is one pixel high or wide it
// does not leave it.
func TestFlowOfAnything(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, size := range [][2]int{{1, 1}, {1, 9}, {9, 1}, {3, 500}, {33, 47}} {
		for name, odd := range map[string][]float32{"noise": {0.3}, "NaN": {nan}, "all": {nan, inf, -inf, -1, 1e30}} {
			t.Run(fmt.Sprint(size, name), func(t *testing.T) {
				height, width := size[0], size[1]
				pictures := [2][]float32{}
				state := uint32(1)
				for p := range pictures {
					pictures[p] = make([]float32, 3*height*width)
					for i := range pictures[p] {
						state = state*1664525 + 1013904223
						pictures[p][i] = float32(state>>8) / (1 << 24)
						if state>>28 == 0 {
							pictures[p][i] = odd[i%len(odd)]
						}
					}
				}
				flow := torch.Flow(pictures[0], pictures[1], height, width)
				require.Len(t, flow, 2*height*width)
				for i, v := range flow {
					require.False(t, math.IsNaN(float64(v)) || math.IsInf(float64(v), 0), i)
					if i < height*width && width == 1 || i >= height*width && height == 1 {
						require.Zero(t, v, i)
					}
				}
			})
		}
	}
}

func TestFlowDoesNotDependOnThreads(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const height, width = 290, 440
	to := demo(t, "content.png", 0, 3, height, width)
	from := demo(t, "content.png", 5, 6, height, width)
	defer torch.SetThreads(torch.SetThreads(1))
	flow := torch.Flow(from, to, height, width)
	warped := torch.Warp(to, flow, height, width)
	for _, threads := range []int{2, 3} {
		torch.SetThreads(threads)
		again := torch.Flow(from, to, height, width)
		require.Equal(t, flow, again, threads)
		require.Equal(t, warped, torch.Warp(to, again, height, width), threads)
	}
}

func TestFlowAndWarpRefuseWhatDoesNotFit(t *testing.T) {
	of := func(n int) []float32 { return make([]float32, n) }
	for name, f := range map[string]func(){
		"no picture":      func() { torch.Flow(nil, nil, 0, 0) },
		"one plane":       func() { torch.Flow(of(6), of(6), 2, 3) },
		"other sizes":     func() { torch.Flow(of(18), of(27), 2, 3) },
		"a negative size": func() { torch.Flow(of(18), of(18), -2, -3) },
		"no planes":       func() { torch.Warp(nil, of(12), 2, 3) },
		"half a plane":    func() { torch.Warp(of(9), of(12), 2, 3) },
		"half a flow":     func() { torch.Warp(of(18), of(6), 2, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() { assert.IsType(t, &torch.Error{}, recover()) }()
			f()
		})
	}
}

func TestWarp(t *testing.T) {
	const height, width = 23, 37
	planes := demo(t, "content.png", 200, 100, height, width)[:2*height*width]
	nan, inf := math.NaN(), math.Inf(1)
	for name, c := range map[string]struct {
		u, v float64
		x, y int // where the value is from
	}{
		"none":           {0, 0, 0, 0},
		"right and up":   {2, -1, 2, -1},
		"left and down":  {-5, 7, -5, 7},
		"far outside":    {1e9, -1e9, width, -height},
		"infinitely far": {-inf, inf, -width, height},
		"no number":      {nan, nan, -width, -height},
	} {
		t.Run(name, func(t *testing.T) {
			moved := torch.Warp(planes, field(height, width, func(_, _ float64) (u, v float64) { return c.u, c.v }),
				height, width)
			for i, v := range moved {
				x, y := i%width+c.x, i/width%height+c.y
				from := i/(height*width)*height*width + min(max(y, 0), height-1)*width + min(max(x, 0), width-1)
				require.Equal(t, planes[from], v, i)
			}
		})
	}
	t.Run("constant", func(t *testing.T) {
		same := make([]float32, 3*height*width)
		for i := range same {
			same[i] = 0.7
		}
		assert.InDeltaSlice(t, same, torch.Warp(same, field(height, width, turn(1)), height, width), 1e-6)
	})
	t.Run("a cubic's values between", func(t *testing.T) {
		// Catmull-Rom's interpolation is exact for squares.
		square := func(x, y float64) float32 { return float32(0.01*x*x - 0.02*x*y + 0.03*y*y + 0.1*x) }
		values := make([]float32, height*width)
		for i := range values {
			values[i] = square(float64(i%width), float64(i/width))
		}
		moved := torch.Warp(values, field(height, width, func(_, _ float64) (u, v float64) { return 0.3, -0.6 }),
			height, width)
		for y := 2; y < height-2; y++ {
			for x := 2; x < width-2; x++ {
				require.InDelta(t, square(float64(x)+0.3, float64(y)-0.6), moved[y*width+x], 1e-4)
			}
		}
	})
}

func BenchmarkFlow(b *testing.B) {
	for _, size := range [][2]int{{480, 640}, {1080, 1920}} {
		b.Run(fmt.Sprintf("%dx%d", size[1], size[0]), func(b *testing.B) {
			height, width := size[0], size[1]
			to := torch.ResizeFloats(demo(b, "content.png", 0, 0, 300, 400), 300, 400, height, width, torch.Wrap{})
			from := torch.Warp(to, field(height, width, turn(0.02)), height, width)
			for b.Loop() {
				torch.Flow(from, to, height, width)
			}
		})
	}
}
