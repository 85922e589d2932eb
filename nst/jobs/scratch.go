package jobs

import (
	"os"
	"path/filepath"
	"syscall"
)

// Scratch is a folder for a clip: ffmpeg reads files that have names. Who makes it holds its
// lock, so that what a process that was killed has left can be told from what is in use: the
// next Queue that is opened on the machine removes it.
type Scratch struct {
	folder string
	lock   *os.File
}

const scratchPrefix = "nst-clip-"

// NewScratch makes one, in the folder of temporary files. The caller removes it.
func NewScratch() (*Scratch, error) {
	folder, err := os.MkdirTemp("", scratchPrefix)
	if err != nil {
		return nil, err
	}
	s := &Scratch{folder: folder}
	if s.lock, err = os.Create(s.Path("lock.new")); err == nil {
		err = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX)
	}
	if err == nil { // it has its name when it is held
		err = os.Rename(s.Path("lock.new"), s.Path("lock"))
	}
	if err != nil {
		s.Remove()
		return nil, err
	}
	return s, nil
}

// Path is a file in it.
func (s *Scratch) Path(name string) string { return filepath.Join(s.folder, name) }

// Remove removes it, and all that is in it.
func (s *Scratch) Remove() {
	_ = os.RemoveAll(s.folder)
	if s.lock != nil {
		s.lock.Close()
	}
}

// removeLeft removes the folders of processes that are no more.
func removeLeft() {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), scratchPrefix+"*"))
	for _, folder := range folders {
		lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(folder)
		}
		lock.Close()
	}
}
