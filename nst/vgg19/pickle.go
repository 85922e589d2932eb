package vgg19

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nlpodyssey/gopickle/pytorch"
	"github.com/nlpodyssey/gopickle/types"

	"github.com/seed9bb5c928/nst/nst/internal/process"
)

// A pickle says how much memory its reader takes, and gopickle (v0.2.0) takes it before it looks
// whether there is that much to read. So it is read by a child of this program, to which the
// kernel gives a few times the file's size.

// readsPickles is set in the environment of such a child, whose file is its third descriptor.
const readsPickles = "NST_READS_PICKLES"

const (
	pickleFile   = "/proc/self/fd/3"
	pickleMemory = 1 << 30 // for Go and the program, in addition to pickleTimes the file
	pickleTimes  = 16      // its bytes as numbers, copied and passed on
	pickleTime   = 10 * time.Minute
)

// init makes this process one that reads a pickle, if that is what it was started for.
func init() {
	if os.Getenv(readsPickles) == "" {
		return
	}
	out := bufio.NewWriter(os.Stdout)
	tensors, err := readPickle(pickleFile)
	answer := pickled{Tensors: map[string]pickledArray{}}
	for name, a := range tensors {
		answer.Tensors[name] = pickledArray{a.shape, a.data}
	}
	if err != nil {
		answer.Error = err.Error()
	}
	if err := errors.Join(gob.NewEncoder(out).Encode(answer), out.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// pickled is what the child answers.
type pickled struct {
	Error   string
	Tensors map[string]pickledArray
}

type pickledArray struct {
	Shape []int
	Data  []float32
}

// readPickleApart is readPickle in a process of its own, which ends with ctx.
func readPickleApart(ctx context.Context, path string) (map[string]array, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	c, err := process.Self(readsPickles)
	if err != nil {
		return nil, err
	}
	said := &process.Said{}
	c.Stderr, c.ExtraFiles = said, []*os.File{file}
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.Stdout = theirs
	wait, err := process.Start(c, pickleMemory+pickleTimes*uint64(info.Size()))
	theirs.Close()
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, pickleTime)
	defer cancel()
	defer context.AfterFunc(limited, func() { _ = c.Process.Kill() })()
	var answer pickled
	err = gob.NewDecoder(bufio.NewReader(out)).Decode(&answer)
	_ = c.Process.Kill() // it has said all
	ended := wait()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		return nil, errors.New("it takes longer to read than weights do")
	case err != nil && said.LackedMemory():
		return nil, errors.New("it claims more memory than its size wants")
	case err != nil:
		return nil, fmt.Errorf("what reads it has ended: %s", firstOf(said.FirstLine(), ended))
	case answer.Error != "":
		return nil, errors.New(answer.Error)
	}
	tensors := map[string]array{}
	for name, a := range answer.Tensors {
		tensors[name] = array{a.Shape, a.Data}
	}
	return tensors, nil
}

// firstOf is what a program said, or how it ended.
func firstOf(said string, ended error) string {
	if said != "" || ended == nil {
		return said
	}
	return ended.Error()
}

// readPickle reads a dictionary of tensors that torch.save wrote.
func readPickle(path string) (tensors map[string]array, err error) {
	defer func() { // gopickle panics on some malformed files
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed: %v", r)
		}
	}()
	if err := checkPickle(path); err != nil {
		return nil, err
	}
	loaded, err := pytorch.Load(path)
	if err != nil {
		return nil, err
	}
	tensors = map[string]array{}
	add := func(key, value any) error {
		name, ok := key.(string)
		t, ok2 := value.(*pytorch.Tensor)
		if !ok || !ok2 {
			return nil
		}
		data, err := floats(t)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if data != nil {
			tensors[name] = array{t.Size, data}
		}
		return nil
	}
	switch d := loaded.(type) {
	case *types.Dict:
		for _, e := range *d {
			if err := add(e.Key, e.Value); err != nil {
				return nil, err
			}
		}
	case *types.OrderedDict:
		for key, e := range d.Map {
			if err := add(key, e.Value); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("it holds a %T, not a dictionary of tensors", loaded)
	}
	return tensors, nil
}

// checkPickle says whether the file begins as torch.save's do: with a zip's or a
// pickle's first bytes. gopickle 0.2.0 never returns from an empty file, nor
// from one that begins with zeros, which it takes for a tar's end.
func checkPickle(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	begin := make([]byte, 2)
	if _, err := io.ReadFull(f, begin); err != nil {
		return errors.New("it is empty")
	}
	if string(begin) != "PK" && begin[0] != 0x80 {
		return errors.New("it begins with neither a zip nor a pickle")
	}
	return nil
}

// floats returns a contiguous tensor's elements; nil for types that hold no
// weights.
func floats(t *pytorch.Tensor) ([]float32, error) {
	count, expected := 1, 1
	for i := len(t.Size) - 1; i >= 0; i-- {
		if t.Size[i] != 1 && t.Stride[i] != expected {
			return nil, fmt.Errorf("its elements are not in row order (strides %v)", t.Stride)
		}
		expected *= t.Size[i]
		count *= t.Size[i]
	}
	cut := func(n int) (int, int, error) {
		if t.StorageOffset < 0 || t.StorageOffset+count > n {
			return 0, 0, fmt.Errorf("it needs %d elements of a storage of %d", t.StorageOffset+count, n)
		}
		return t.StorageOffset, t.StorageOffset + count, nil
	}
	switch s := t.Source.(type) {
	case *pytorch.FloatStorage:
		return convert(s.Data, cut)
	case *pytorch.HalfStorage:
		return convert(s.Data, cut)
	case *pytorch.BFloat16Storage:
		return convert(s.Data, cut)
	case *pytorch.DoubleStorage:
		return convert(s.Data, cut)
	case *pytorch.ByteStorage:
		return convert(s.Data, cut)
	default:
		return nil, nil
	}
}

func convert[T float32 | float64 | uint8](source []T, cut func(n int) (int, int, error)) ([]float32, error) {
	from, to, err := cut(len(source))
	if err != nil {
		return nil, err
	}
	out := make([]float32, to-from)
	for i, v := range source[from:to] {
		out[i] = float32(v)
	}
	return out, nil
}
