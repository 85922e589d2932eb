package httpapi

import (
	"context"
	"os"
	"sync"
	"time"
)

// films are the files of clips that were asked for lately. A player asks for a clip in many
// parts, also at once, and each would bring all of it from the store again.
type films struct {
	mutex sync.Mutex
	all   map[string]*film
}

// film is a clip's file, once it is brought.
type film struct {
	*os.File
	users   int
	left    time.Time // by the last one
	brought chan struct{}
	err     error
	kept    bool // it is among all
}

const (
	maxFilms = 8           // of those without a user
	filmTime = time.Minute // that one is kept without a user
)

// take returns the file of a name, which the first who asks for it has bring fill. The caller
// leaves it.
func (f *films) take(ctx context.Context, name string, bring func(*os.File) error) (*film, error) {
	f.mutex.Lock()
	one, there := f.all[name]
	if !there {
		one = &film{brought: make(chan struct{}), kept: true}
		f.all[name] = one
	}
	one.users++
	f.mutex.Unlock()
	if there {
		select {
		case <-one.brought:
		case <-ctx.Done():
			f.leave(name, one)
			return nil, ctx.Err()
		}
		if one.err != nil { // the first's client may have left: this one's has not
			f.leave(name, one)
			return f.take(ctx, name, bring)
		}
		return one, nil
	}
	file, err := spool()
	if err == nil {
		if err = bring(file); err != nil {
			file.Close()
		}
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	defer close(one.brought)
	if one.err = err; err != nil {
		f.forget(name, one)
		return nil, err
	}
	one.File = file
	return one, nil
}

// forget has the next who asks bring the file anew.
func (f *films) forget(name string, one *film) {
	if f.all[name] == one {
		delete(f.all, name)
	}
	one.kept = false
}

// leave says that a user needs a file no longer.
func (f *films) leave(name string, one *film) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if one.users--; one.users > 0 || one.File == nil {
		return
	}
	if !one.kept {
		one.Close()
		return
	}
	left := time.Now()
	one.left = left
	f.makeRoom()
	time.AfterFunc(filmTime, func() { f.drop(name, one, left) })
}

// makeRoom closes the file that was left first, if there are too many.
func (f *films) makeRoom() {
	idle, name := 0, ""
	for n, one := range f.all {
		if one.users > 0 {
			continue
		}
		if idle++; name == "" || one.left.Before(f.all[name].left) {
			name = n
		}
	}
	if idle > maxFilms {
		one := f.all[name]
		f.forget(name, one)
		one.Close()
	}
}

// drop forgets a file that has had no user since then.
func (f *films) drop(name string, one *film, since time.Time) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if one.kept && one.users == 0 && one.left.Equal(since) {
		f.forget(name, one)
		one.Close()
	}
}

// close forgets those that have no user; the others are closed when they are left.
func (f *films) close() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for name, one := range f.all {
		if f.forget(name, one); one.users == 0 {
			one.Close()
		}
	}
}
