package nst

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strings"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// fingerprint tells pictures apart: SHA-256 of the sizes and values.
type fingerprint [sha256.Size]byte

func fingerprintOf(p *picture.Picture) (f fingerprint) {
	if p == nil {
		return f
	}
	h := sha256.New()
	buffer := binary.LittleEndian.AppendUint64(nil, uint64(p.Width))
	buffer = binary.LittleEndian.AppendUint64(buffer, uint64(p.Height))
	for _, values := range [][]float32{p.Pixels, p.Alpha} {
		for _, v := range values {
			buffer = binary.LittleEndian.AppendUint32(buffer, math.Float32bits(v))
			if len(buffer) >= 1<<16 {
				h.Write(buffer)
				buffer = buffer[:0]
			}
		}
	}
	h.Write(buffer)
	h.Sum(f[:0])
	return f
}

// styleTargets are the statistics of one style picture: by layer, and there by
// the mask's level (0 without a mask).
type styleTargets map[string]map[uint8]statistics

func (t styleTargets) close() {
	for _, levels := range t {
		for _, s := range levels {
			torch.Close(s.gram, s.mean)
		}
	}
}

// styleKey is what the statistics of a style picture depend on, within an
// engine, which has one network.
type styleKey struct {
	picture, mask fingerprint
	width, height int
	layers        string
	loss          StyleLoss
	pooling       vgg19.Pooling
	padding       vgg19.Padding
	precision     Precision
	home          torch.Device
}

// styleCache keeps the targets of the styles used last. It is used on the
// engine's thread alone, and owns the tensors.
type styleCache struct {
	lru    *simplelru.LRU[styleKey, styleTargets]
	misses int // for tests
}

// cachedStyles is how many are kept. VGG-19's five style layers take 2.4 MB for
// each style picture and scale.
const cachedStyles = 64

func newStyleCache() *styleCache {
	lru, err := simplelru.NewLRU(cachedStyles, func(_ styleKey, t styleTargets) { t.close() })
	if err != nil {
		panic(err) // of sizes below 1
	}
	return &styleCache{lru: lru}
}

// get returns the targets, made by compute if they are not there.
func (c *styleCache) get(key styleKey, compute func() (styleTargets, error)) (styleTargets, error) {
	if t, ok := c.lru.Get(key); ok {
		return t, nil
	}
	c.misses++
	t, err := compute()
	if err != nil {
		return nil, err
	}
	c.lru.Add(key, t)
	return t, nil
}

func (c *styleCache) close() { c.lru.Purge() }

// styleTargets returns the statistics of style picture i at a scale. They
// belong to the engine's cache.
func (t *transfer) styleTargets(i int, at scale) (styleTargets, error) {
	s, e, p := t.settings, t.engine, t.styles[i]
	width, height := s.fitStyle(p, at.factor)
	layers := newEvaluator(t.farm, s, width, height).styleLayers()
	key := styleKey{
		picture: t.styleIDs[i], width: width, height: height, layers: strings.Join(layers, " "),
		loss: s.StyleLoss, pooling: s.pooling(), padding: s.Padding, precision: s.Precision, home: t.farm.home,
	}
	if s.StyleMasks != nil {
		key.mask = fingerprintOf(s.StyleMasks[i])
	}
	return e.styles.get(key, func() (found styleTargets, err error) {
		err = t.farm.fit(width, height, deepest(layers), func() error {
			found.close()
			found = styleTargets{}
			return torch.Scoped(func() (err error) {
				torch.NoGrad(func() { err = t.measureStyle(found, i, layers, width, height) })
				return err
			})
		})
		if err != nil {
			found.close()
		}
		return found, err
	})
}

// measureStyle fills found, tile by tile.
func (t *transfer) measureStyle(found styleTargets, i int, layers []string, width, height int) error {
	s, device := t.settings, t.farm.home
	var byStride map[int]guides
	if m := t.styleMasks[i]; m != nil {
		byStride = m.guides(layers, device, s.Precision.scalar(), width, height)
	}
	type sum struct {
		layer string
		level uint8
		guide torch.Tensor
	}
	var all []sum
	for _, layer := range layers {
		levels := guides{0: torch.Tensor{}}
		if byStride != nil {
			levels = byStride[strideOf(layer)]
		}
		found[layer] = map[uint8]statistics{}
		for level, guide := range levels {
			all = append(all, sum{layer, level, guide})
		}
	}
	// An evaluator without targets knows how to measure.
	e := newEvaluator(t.farm, s, width, height)
	e.tiles = cut(width, height, t.farm.size, deepest(layers))
	p := resized(t.styles[i], width, height)
	defer t.collect()
	err := t.farm.each(len(e.tiles), func(w *worker, i int) (made []torch.Tensor) {
		w.drop(0)
		part := e.tiles[i]
		pass := w.network.Run(torch.To(s.part(p, part), w.device()), part.local(), layers, false)
		defer pass.Close()
		for _, one := range all {
			made = append(made, e.measure(w, pass, one.layer, one.guide, i)...)
		}
		return made
	}, func(_ int, made []torch.Tensor) {
		for _, one := range all {
			sum := found[one.layer][one.level]
			accumulate(&sum.gram, &made[0])
			if made = made[1:]; e.loss == MomentsLoss {
				accumulate(&sum.mean, &made[0])
				made = made[1:]
			}
			found[one.layer][one.level] = sum
		}
	})
	if err != nil {
		return err
	}
	for _, levels := range found {
		for level, sum := range levels {
			now := sum.centred()
			if now.gram.T != sum.gram.T {
				torch.Close(sum.gram)
				torch.Keep(now.gram)
			}
			levels[level] = now
		}
	}
	return nil
}

// blend is the statistics of several styles, weighted: the shares' sum is made
// 1. It makes tensors of the caller's scope.
func blend(parts []statistics, shares []float64) statistics {
	sum := 0.0
	for _, v := range shares {
		sum += v
	}
	var out statistics
	mix := func(out *torch.Tensor, part torch.Tensor, share float64) {
		if part.T == nil {
			return
		}
		scaled := torch.Scale(part, share)
		if out.T != nil {
			scaled = torch.Add(*out, scaled)
		}
		*out = scaled
	}
	for i, p := range parts {
		mix(&out.gram, p.gram, shares[i]/sum)
		mix(&out.mean, p.mean, shares[i]/sum)
	}
	return out
}
