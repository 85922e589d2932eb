package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// reloaded are files of the service's that are read again when they change, and on SIGHUP.
type reloaded struct {
	files  []string
	seen   string // what they were when they were read
	now    string // what they are: read when they stay so, since they may be half written
	hangup chan os.Signal
}

// reload begins to look; what happens to the files from now on is not missed.
func reload(files ...string) *reloaded {
	f := &reloaded{files: files, hangup: make(chan os.Signal, 1)}
	signal.Notify(f.hangup, syscall.SIGHUP)
	f.seen = f.stamp()
	return f
}

func (f *reloaded) stamp() (all string) {
	for _, path := range f.files {
		if info, err := os.Stat(path); err == nil {
			all += fmt.Sprintln(info.ModTime(), info.Size())
		}
	}
	return all
}

// reloadEvery is how often the files are looked at.
const reloadEvery = time.Second

// watch has the files read again, until ctx is done. What cannot be read changes nothing.
func (f *reloaded) watch(ctx context.Context, log *slog.Logger, read func() error) {
	defer signal.Stop(f.hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.hangup:
		case <-time.After(reloadEvery):
			now := f.stamp()
			if now == f.seen || now != f.now {
				f.now = now
				continue
			}
			f.seen = now
		}
		if err := read(); err != nil {
			log.Error("what was read before stays", "files", f.files, "error", err)
			continue
		}
		if len(f.files) > 0 {
			log.Info("read again", "files", f.files)
		}
	}
}

// logFile is a log that is opened anew on SIGHUP, as after it was moved away.
type logFile struct {
	path  string
	mutex sync.Mutex
	file  *os.File
}

func (l *logFile) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.file != nil {
		l.file.Close()
	}
	l.file = file
	return nil
}

// Write writes to what is open now.
func (l *logFile) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.file.Write(p)
}

// keyPair is a certificate for TLS that is in files, with its key.
type keyPair struct {
	flags     string
	cert, key string
	now       atomic.Pointer[tls.Certificate]
}

// openCertificate reads a certificate; of no files it is nil.
func openCertificate(flags, cert, key string) (*keyPair, error) {
	if (cert == "") != (key == "") {
		return nil, usage("%s go together: give both or neither", flags)
	}
	if cert == "" {
		return nil, nil
	}
	c := &keyPair{flags: flags, cert: cert, key: key}
	return c, c.read()
}

func (c *keyPair) read() error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return usage("%s: %w", c.flags, err)
	}
	c.now.Store(&pair)
	return nil
}

// config is TLS by whatever certificate is there when a client connects.
func (c *keyPair) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil }}
}
