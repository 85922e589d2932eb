package nst

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/picture"
)

func TestSchedule(t *testing.T) {
	wide := picture.New(1000, 100) // 100 px high: relu4_2 needs 8
	for name, c := range map[string]struct {
		options    Options
		content    *picture.Picture
		sides      []int
		iterations []int
	}{
		"default":            {Options{}, nil, []int{128, 181, 256, 362, 512}, []int{35, 25, 17, 12, 111}},
		"1024":               {Options{Size: new(1024)}, nil, []int{128, 181, 256, 362, 512, 724, 1024}, nil},
		"between":            {Options{Size: new(600)}, nil, []int{150, 212, 300, 424, 600}, nil},
		"own size":           {Options{Size: new(0)}, picture.New(300, 400), []int{141, 200, 283, 400}, nil},
		"small":              {Options{Size: new(128)}, nil, []int{128}, []int{200}},
		"off":                {Options{Scales: ScalesOff}, nil, []int{512}, []int{200}},
		"classic":            {Options{Preset: Classic}, nil, []int{512}, []int{500}},
		"classic with them":  {Options{Preset: Classic, Scales: ScalesAuto}, nil, []int{128, 181, 256, 362, 512}, nil},
		"few iterations":     {Options{Iterations: new(60)}, nil, []int{256, 362, 512}, []int{7, 5, 48}},
		"one iteration":      {Options{Iterations: new(1)}, nil, []int{512}, []int{1}},
		"none":               {Options{Iterations: new(0), Scales: "256,512"}, nil, []int{512}, []int{0}},
		"a list":             {Options{Scales: "200, 512", Iterations: new(100)}, nil, []int{200, 512}, []int{17, 83}},
		"a list without end": {Options{Scales: "200", Iterations: new(5)}, nil, []int{200, 512}, []int{1, 4}},
		"more scales": {Options{Scales: "100,200,300,400", Iterations: new(2)}, nil, []int{400, 512},
			[]int{1, 1}},
		"a narrow picture": {Options{}, wide, []int{128, 181, 256, 362, 512}, nil},
		"from a picture":   {Options{Start: StartPicture, Picture: picture.New(300, 300)}, nil, []int{362, 512}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := c.options.withDefaults()
			require.NoError(t, err)
			content := c.content
			if content == nil {
				content = picture.New(1000, 800)
			}
			scales, err := s.schedule(content, []*picture.Picture{picture.New(900, 900)})
			require.NoError(t, err)
			var sides, iterations []int
			sum := 0
			for i, at := range scales {
				sides, iterations = append(sides, longest(at.width, at.height)), append(iterations, at.iterations)
				sum += at.iterations
				if i > 0 && i < len(scales)-1 {
					assert.LessOrEqual(t, at.iterations, scales[i-1].iterations, "fewer as size grows")
				}
			}
			assert.Equal(t, c.sides, sides)
			if c.iterations != nil {
				assert.Equal(t, c.iterations, iterations)
			}
			assert.Equal(t, s.iterations, sum)
			last := scales[len(scales)-1]
			assert.Equal(t, 1.0, last.factor)
		})
	}
	s, err := Options{Scales: "8,512"}.withDefaults()
	require.NoError(t, err)
	_, err = s.schedule(picture.New(1000, 800), nil)
	assert.ErrorContains(t, err, "becomes, with its longest side 8, 8×6")
	s, err = Options{Scales: "1024"}.withDefaults()
	require.NoError(t, err)
	_, err = s.schedule(picture.New(1000, 800), nil)
	assert.ErrorIs(t, err, ErrInvalidOption)
}

func TestShares(t *testing.T) {
	for iterations := range 60 {
		for scales := 1; scales <= max(1, min(iterations, 12)); scales++ {
			var sides []int
			for i := range scales {
				sides = append(sides, 100+100*i)
			}
			sum, got := 0, shares(iterations, sides)
			for _, n := range got {
				sum += n
			}
			require.Equal(t, iterations, sum)
			if iterations >= scales {
				for _, n := range got {
					assert.Positive(t, n)
				}
			}
		}
	}
}
