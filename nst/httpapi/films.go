package httpapi

import (
	"os"
	"sync"
	"time"
)

// films are the files of clips that were asked for lately. A player asks for a clip in many
// parts, and each would bring all of it from the store again.
type films struct {
	mutex sync.Mutex
	all   map[string]*film
}

// film is a clip's file.
type film struct {
	*os.File
	users int
	kept  bool // it is among all
}

const (
	maxFilms = 8
	filmTime = time.Minute // that one is kept without a user
)

// take returns the file of a name, which bring fills where there is none. The caller leaves
// it.
func (f *films) take(name string, bring func(*os.File) error) (*film, error) {
	f.mutex.Lock()
	one := f.all[name]
	if one != nil {
		one.users++
	}
	f.mutex.Unlock()
	if one != nil {
		return one, nil
	}
	file, err := spool()
	if err != nil {
		return nil, err
	}
	if err := bring(file); err != nil {
		file.Close()
		return nil, err
	}
	one = &film{File: file, users: 1}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.all[name] == nil && len(f.all) < maxFilms {
		f.all[name], one.kept = one, true
	}
	return one, nil
}

// leave says that a user needs a file no longer.
func (f *films) leave(name string, one *film) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	one.users--
	switch {
	case one.users > 0:
	case !one.kept:
		one.Close()
	default:
		time.AfterFunc(filmTime, func() { f.drop(name, one) })
	}
}

// drop forgets a file that has no user.
func (f *films) drop(name string, one *film) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if one.users == 0 && f.all[name] == one {
		delete(f.all, name)
		one.Close()
	}
}

// close forgets those that have no user; the others are closed when they are left.
func (f *films) close() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for name, one := range f.all {
		delete(f.all, name)
		if one.kept = false; one.users == 0 {
			one.Close()
		}
	}
}
