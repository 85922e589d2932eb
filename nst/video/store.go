package video

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// ErrStore is matched (errors.Is) by the error of frames that cannot be gone on with: of
// another clip, other options, or a file that is none.
var ErrStore = errors.New("unusable frames of an earlier run")

// Store is the frames that are done, in a file: a tar archive of PNG files, to which one
// after the other is added. Whatever happens to the program or the machine, the frames that
// were added are there. One program at a time uses it: others are refused. It is safe for
// concurrent use.
type Store struct {
	file *os.File
	path string

	mutex  sync.Mutex // of what follows, and of writing
	frames map[string]stored
	end    int64 // of the last entry that is whole
}

// stored is where a frame's entry is.
type stored struct {
	at, size int64
	made     Made
}

const (
	storeIdentity = "video.json"
	storeMade     = "NST.made" // the PAX record of a frame
)

// CreateStore begins a file, which must not be there, for a run with an identity: all that
// its frames depend on, by name.
func CreateStore(path string, identity map[string]string) (*Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("%w: %s is what an earlier run has left: go on with it, or remove it", ErrStore,
				path)
		}
		return nil, fmt.Errorf("%w: %w", picture.ErrOutput, err)
	}
	s := &Store{file: f, path: path, frames: map[string]stored{}}
	data, err := json.Marshal(identity)
	if err == nil {
		err = s.lock()
	}
	if err == nil {
		err = s.add(&tar.Header{Name: storeIdentity}, data)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close(), os.Remove(path))
	}
	return s, nil
}

// OpenStore opens the file of an earlier run with the same identity. What was being added
// when that ended is cut off.
func OpenStore(path string, identity map[string]string) (*Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	s := &Store{file: f, path: path, frames: map[string]stored{}}
	err = s.lock()
	if err == nil {
		err = s.read(identity)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s %w", ErrStore, path, err)
	}
	return s, nil
}

// lock keeps other programs out until the file is closed.
func (s *Store) lock() error {
	if err := syscall.Flock(int(s.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("is in use by another run: %w", err)
	}
	return nil
}

// read finds the entries.
func (s *Store) read(identity map[string]string) error {
	size, err := s.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	entries := tar.NewReader(s.file)
	for first := true; ; first = false {
		header, err := entries.Next()
		if err == nil && header.Size > 1<<40 {
			err = io.ErrUnexpectedEOF
		}
		if first {
			var theirs map[string]string
			if err == nil && header.Name == storeIdentity {
				err = json.NewDecoder(entries).Decode(&theirs)
			}
			if err != nil || theirs == nil {
				return errors.New("holds no frames of this program's")
			}
			if err := compare(theirs, identity); err != nil {
				return err
			}
		} else if err != nil {
			break // the end, or what was cut short
		}
		at, err := s.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if first { // the decoder has read to the data's end
			at -= header.Size
		}
		end := at + (header.Size+511)/512*512
		if end > size {
			break
		}
		if !first {
			f := stored{at: at, size: header.Size}
			if json.Unmarshal([]byte(header.PAXRecords[storeMade]), &f.made) != nil {
				break
			}
			s.frames[header.Name] = f
		}
		s.end = end
	}
	return s.file.Truncate(s.end)
}

// compare says what differs.
func compare(theirs, ours map[string]string) error {
	if reflect.DeepEqual(theirs, ours) {
		return nil
	}
	names := slices.Collect(maps.Keys(ours))
	names = slices.AppendSeq(names, maps.Keys(theirs))
	slices.Sort(names)
	var differ []string
	for _, name := range slices.Compact(names) {
		if theirs[name] == ours[name] {
			continue
		}
		differ = append(differ, fmt.Sprintf("%s %s, not %s", name, orNone(theirs[name]), orNone(ours[name])))
	}
	return fmt.Errorf("was made with %s", strings.Join(differ, "; "))
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}

// add writes an entry at the end, and waits until the disk has it.
func (s *Store) add(header *tar.Header, data []byte) error {
	var entry bytes.Buffer
	w := tar.NewWriter(&entry)
	header.Mode, header.Size = 0o644, int64(len(data))
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Flush(); err != nil { // no Close: more may follow
		return err
	}
	if _, err := s.file.WriteAt(entry.Bytes(), s.end); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", picture.ErrOutput, err), s.file.Truncate(s.end))
	}
	s.end += int64(entry.Len())
	return s.file.Sync()
}

// contentPass is the place of the clip's own frames, if there are later passes.
const contentPass = 0

// passName is what the names of a pass's entries begin with.
func passName(pass int) string { return fmt.Sprintf("pass-%d/", pass) }

// frameName is an entry's name.
func frameName(pass, index int) string { return fmt.Sprintf("%s%06d.png", passName(pass), index+1) }

// Add adds a frame of a pass.
func (s *Store) Add(pass int, m *Made) error {
	var data bytes.Buffer
	if err := m.Result.Encode(&data, picture.PNG, picture.Encoding{Bits: 8}); err != nil {
		return err
	}
	record, err := json.Marshal(m)
	if err != nil {
		return err
	}
	name := frameName(pass, m.Index)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	err = s.add(&tar.Header{Name: name, PAXRecords: map[string]string{storeMade: string(record)}}, data.Bytes())
	if err == nil {
		size := int64(data.Len())
		kept := *m
		kept.Result = nil
		s.frames[name] = stored{at: s.end - (size+511)/512*512, size: size, made: kept}
	}
	return err
}

// frame is where a frame's entry is.
func (s *Store) frame(pass, index int) (f stored, ok bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	f, ok = s.frames[frameName(pass, index)]
	return f, ok
}

// Made is what there is of a frame, without its pictures.
func (s *Store) Made(pass, index int) (m Made, ok bool) {
	f, ok := s.frame(pass, index)
	return f.made, ok
}

// Result is a frame's picture.
func (s *Store) Result(pass, index int) (*picture.Picture, error) {
	f, ok := s.frame(pass, index)
	if !ok {
		return nil, fmt.Errorf("%w: %s has no frame %d of pass %d", ErrStore, s.path, index+1, pass)
	}
	p, err := picture.Decode(io.NewSectionReader(s.file, f.at, f.size))
	if err != nil {
		return nil, fmt.Errorf("%w: frame %d in %s %w; without that file all frames are made anew", ErrStore, index+1,
			s.path, err)
	}
	return p, nil
}

// Count is how many frames of the first pass there are, and how many shots they make, of the
// first so many of the clip; 0: of all.
func (s *Store) Count(limit int) (frames, shots int) {
	return s.count(limit, func(name string) bool { return strings.HasPrefix(name, passName(1)) })
}

// done is how many frames there are in all passes, of the first so many of the clip; 0: of all.
func (s *Store) done(limit int) (frames int) {
	frames, _ = s.count(limit, func(name string) bool { return !strings.HasPrefix(name, passName(contentPass)) })
	return frames
}

func (s *Store) count(limit int, counts func(name string) bool) (frames, shots int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for name, f := range s.frames {
		if !counts(name) || limit > 0 && f.made.Index >= limit {
			continue
		}
		frames++
		if f.made.Cut {
			shots++
		}
	}
	return frames, shots
}

// Bytes is how large the file is.
func (s *Store) Bytes() int64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.end
}

// Close closes the file.
func (s *Store) Close() error { return s.file.Close() }

// Remove closes and removes it.
func (s *Store) Remove() error { return errors.Join(s.file.Close(), os.Remove(s.path)) }
